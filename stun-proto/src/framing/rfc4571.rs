//! Length-prefixed frames, as ICE over TCP uses them (RFC 4571 section 2).

use core::convert::Infallible;

use super::reassembly::{Measure, Reassembly, Taken};

/// The most bytes a frame can hold.
pub const MAX_FRAME: usize = u16::MAX as usize;

/// The two bytes in front of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader(pub [u8; 2]);

impl FrameHeader {
    /// The header of a frame with `len` bytes; `None` above [`MAX_FRAME`].
    pub fn new(len: usize) -> Option<Self> {
        u16::try_from(len).ok().map(|len| Self(len.to_be_bytes()))
    }
}

/// Cuts a stream into frames. An empty frame is legal and handed out like any other.
///
/// ```
/// use stun_proto::framing::FrameDeframer;
///
/// let mut deframer = FrameDeframer::new();
/// let mut input = &[0, 3, 0xAA, 0xBB, 0xCC, 0, 0][..];
/// assert_eq!(deframer.next(&mut input), Some(&[0xAA, 0xBB, 0xCC][..]));
/// assert_eq!(deframer.next(&mut input), Some(&[][..]));
/// assert_eq!(deframer.next(&mut input), None);
/// ```
#[derive(Debug, Default)]
pub struct FrameDeframer {
    reassembly: Reassembly,
}

impl FrameDeframer {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame and advances `input` behind it; `None` when `input` is used up.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<&'s [u8]> {
        let Ok(taken) = self.reassembly.next::<Infallible>(input, |head| {
            Ok(match head {
                [l1, l0, ..] => Measure::Known {
                    len: usize::from(u16::from_be_bytes([*l1, *l0])).saturating_add(2),
                    padding: 0,
                },
                _ => Measure::Unknown { until: 2 },
            })
        });
        match taken {
            Taken::Unit(frame) => frame.get(2..),
            Taken::Partial | Taken::Nothing => None,
        }
    }

    /// Bytes held for the current frame.
    pub const fn held(&self) -> usize {
        self.reassembly.held()
    }
}
