//! STUN messages and ChannelData on one stream (RFC 8656 section 12.4 and 12.5).

use super::reassembly::{Measure, Reassembly, Taken};
use crate::wire::{HEADER_LEN, MAGIC_COOKIE};

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A STUN message of the length its header states; to be parsed.
    Message(&'a [u8]),
    /// Application data on a TURN channel, without header and padding.
    ChannelData {
        /// The channel number, 0x4000 to 0x7FFF.
        channel: u16,
        /// The payload.
        data: &'a [u8],
    },
}

/// What [`Deframer::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A whole unit.
    Unit(Unit<'a>),
    /// The input is used up in the middle of a unit: a deadline for its end is the caller's.
    Partial,
    /// The input is used up, and no unit has begun.
    Nothing,
}

/// Why a stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The first two bits are neither 00 nor, where channels are used, 01.
    #[error("neither a STUN message nor ChannelData")]
    NotStun,
    /// A STUN header without the magic cookie.
    #[error("STUN header without magic cookie")]
    Cookie,
    /// A STUN length that is no multiple of four.
    #[error("STUN message length is not a multiple of four")]
    Length,
    /// A unit longer than the limit.
    #[error("message longer than allowed")]
    TooLong,
}

/// Cuts a stream into STUN messages and ChannelData.
///
/// Memory grows with the bytes received, never with a length that was only declared, and stays
/// below the limit.
///
/// ```
/// use stun_proto::framing::{Deframer, Next, Unit};
///
/// let mut deframer = Deframer::with_channels(2048);
/// let stream = [0x40, 0x00, 0x00, 0x05, b'h', b'e', b'l', b'l', b'o', 0, 0, 0];
/// let (mut first, mut second) = stream.split_at(7);
/// assert_eq!(deframer.next(&mut first), Ok(Next::Partial));
/// let unit = Unit::ChannelData { channel: 0x4000, data: b"hello" };
/// assert_eq!(deframer.next(&mut second), Ok(Next::Unit(unit)));
/// ```
#[derive(Debug)]
pub struct Deframer {
    reassembly: Reassembly,
    limit: usize,
    channels: bool,
    error: Option<FramingError>,
}

impl Deframer {
    /// For STUN alone; units longer than `limit` bytes end the stream.
    pub fn stun_only(limit: usize) -> Self {
        Self {
            reassembly: Reassembly::default(),
            limit,
            channels: false,
            error: None,
        }
    }

    /// For STUN and ChannelData; units longer than `limit` bytes end the stream.
    pub fn with_channels(limit: usize) -> Self {
        Self {
            channels: true,
            ..Self::stun_only(limit)
        }
    }

    /// Changes the limit, for units that have not begun.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Allows or forbids ChannelData, for units that have not begun.
    pub const fn set_channels(&mut self, channels: bool) {
        self.channels = channels;
    }

    /// Takes the next unit and advances `input` behind what was read. Call it until it finds
    /// no unit any more.
    ///
    /// # Errors
    /// [`FramingError`], now and on every later call.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Next<'s>, FramingError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let (channels, limit) = (self.channels, self.limit);
        match self
            .reassembly
            .next(input, |head| measure(head, channels, limit))
        {
            Ok(Taken::Unit(unit)) => Ok(Next::Unit(classify(unit))),
            Ok(Taken::Partial) => Ok(Next::Partial),
            Ok(Taken::Nothing) => Ok(Next::Nothing),
            Err(error) => {
                self.error = Some(error);
                Err(error)
            }
        }
    }

    /// Bytes held for the current unit.
    pub const fn held(&self) -> usize {
        self.reassembly.held()
    }
}

/// Judges byte after byte in a fixed order, so that cuts change nothing.
fn measure(head: &[u8], channels: bool, limit: usize) -> Result<Measure, FramingError> {
    let first_two_bits = head.first().map(|byte| byte >> 6);
    match first_two_bits {
        None => return Ok(Measure::Unknown { until: 4 }),
        Some(0) => {}
        Some(1) if channels => {}
        Some(_) => return Err(FramingError::NotStun),
    }
    let [_, _, l1, l0, ..] = head else {
        return Ok(Measure::Unknown { until: 4 });
    };
    let len = usize::from(u16::from_be_bytes([*l1, *l0]));
    if first_two_bits == Some(1) {
        let total = len.saturating_add(4);
        if total > limit {
            return Err(FramingError::TooLong);
        }
        let padding = total.next_multiple_of(4).saturating_sub(total);
        return Ok(Measure::Known {
            len: total,
            padding,
        });
    }
    if !len.is_multiple_of(4) {
        return Err(FramingError::Length);
    }
    let total = len.saturating_add(HEADER_LEN);
    if total > limit {
        return Err(FramingError::TooLong);
    }
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let seen = head.get(4..).unwrap_or_default();
    if seen.iter().zip(cookie).any(|(byte, right)| *byte != right) {
        return Err(FramingError::Cookie);
    }
    Ok(Measure::Known {
        len: total,
        padding: 0,
    })
}

fn classify(unit: &[u8]) -> Unit<'_> {
    match unit {
        [c1, c0, _, _, data @ ..] if *c1 >= 0x40 => Unit::ChannelData {
            channel: u16::from_be_bytes([*c1, *c0]),
            data,
        },
        _ => Unit::Message(unit),
    }
}
