//! IP packets in envelopes, as they go through the TLS connection to an EFTF (3GPP TS 24.322
//! section 7).
//!
//! Only the envelopes: the addresses and the keep-alive interval of the tunnel are agreed on when
//! it is set up, in ways of the host, and so is the connection, for which
//! [`Tunnel`](crate::tunnel::Tunnel) serves. Either side releases the tunnel by closing it.
//!
//! An envelope is a type, the length of all of it (two octets, type and length included), and what
//! it holds. Type 1 holds one IPv4 or IPv6 packet.

use alloc::vec::Vec;

/// How long the header of an envelope is.
pub const ENVELOPE_HEADER: usize = 3;

/// The longest packet that fits.
pub const MAX_PACKET: usize = u16::MAX as usize - ENVELOPE_HEADER;

const IP_PACKET: u8 = 1;

/// Why a packet cannot be sent, or a stream cannot be read any further.
///
/// ```
/// use ims_traversal::eftf::{EnvelopeError, envelope_header};
///
/// assert_eq!(envelope_header(b"?"), Err(EnvelopeError::NotIp));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// An envelope shorter than its header, or one of type 1 without packet.
    #[error("impossible envelope length {0}")]
    Length(u16),
    /// The packet is longer than allowed.
    #[error("packet too long")]
    TooLong,
    /// The packet is neither IPv4 nor IPv6.
    #[error("neither IPv4 nor IPv6")]
    NotIp,
    /// The packet says that it is longer, or shorter.
    #[error("the length of the packet is not that of its envelope")]
    Mismatch,
}

/// The header of the envelope for a packet; the packet follows it.
///
/// # Errors
/// [`EnvelopeError`] when this is not one whole IP packet, or one longer than [`MAX_PACKET`].
///
/// ```
/// use ims_traversal::eftf::envelope_header;
///
/// let packet = b"\x45\0\0\x14\0\0\0\0\x40\x06\0\0\x0a\0\0\x0a\x0a\0\0\x0b";
/// assert_eq!(envelope_header(packet), Ok([1, 0, 23]));
/// ```
pub fn envelope_header(packet: &[u8]) -> Result<[u8; ENVELOPE_HEADER], EnvelopeError> {
    if packet.len() > MAX_PACKET {
        return Err(EnvelopeError::TooLong);
    }
    check_packet(packet)?;
    let whole = packet.len().saturating_add(ENVELOPE_HEADER);
    let [high, low] = u16::try_from(whole).unwrap_or(u16::MAX).to_be_bytes();
    Ok([IP_PACKET, high, low])
}

/// Whether these octets are one IP packet by its own account.
fn check_packet(packet: &[u8]) -> Result<(), EnvelopeError> {
    let version = packet.first().map(|octet| octet >> 4);
    let len = match (version, packet) {
        (Some(4), [_, _, a, b, ..]) => usize::from(u16::from_be_bytes([*a, *b])),
        (Some(6), [_, _, _, _, a, b, ..]) => {
            usize::from(u16::from_be_bytes([*a, *b])).saturating_add(40)
        }
        (Some(4 | 6), _) => return Err(EnvelopeError::Mismatch),
        _ => return Err(EnvelopeError::NotIp),
    };
    if len == packet.len() {
        Ok(())
    } else {
        Err(EnvelopeError::Mismatch)
    }
}

/// Takes IP packets out of a stream of envelopes.
///
/// A packet that lies whole in one read is handed out as a slice of that read; only one that is
/// split over reads is put together first. Envelopes of unknown types are passed over and counted.
///
/// ```
/// use ims_traversal::eftf::Envelopes;
///
/// let mut envelopes = Envelopes::new(1500);
/// let packet = b"\x45\0\0\x14\0\0\0\0\x40\x06\0\0\x0a\0\0\x0a\x0a\0\0\x0b";
/// let stream = [&[1, 0, 23][..], packet, &[7, 0, 4, 0]].concat();
/// let mut input = &stream[..];
/// assert_eq!(envelopes.next(&mut input), Some(Ok(&packet[..])));
/// assert_eq!(envelopes.next(&mut input), None);
/// assert_eq!(envelopes.skipped(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Envelopes {
    max_packet: usize,
    /// The beginning of an envelope that came with earlier reads.
    held: Vec<u8>,
    /// What is in `held` has been handed out.
    spent: bool,
    /// Octets of an unknown envelope that are still to come.
    skip: usize,
    skipped: u64,
    broken: Option<EnvelopeError>,
}

/// Buffers that grew beyond this are given back once their packet is done.
const KEEP_CAPACITY: usize = 4096;

enum Header {
    Packet(usize),
    Unknown(usize),
}

impl Envelopes {
    /// At the beginning of a stream whose packets are no longer than `max_packet`; at most
    /// [`MAX_PACKET`] counts.
    pub fn new(max_packet: usize) -> Self {
        Self {
            max_packet: max_packet.min(MAX_PACKET),
            held: Vec::new(),
            spent: false,
            skip: 0,
            skipped: 0,
            broken: None,
        }
    }

    /// Takes the next packet and advances `input` behind it; `None` when `input` is used up.
    ///
    /// # Errors
    /// [`EnvelopeError`]: the stream cannot be read any further, close it. Every later call gives
    /// the same.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Option<Result<&'s [u8], EnvelopeError>> {
        if let Some(error) = self.broken {
            return Some(Err(error));
        }
        if core::mem::take(&mut self.spent) {
            self.held.clear();
            self.held.shrink_to(KEEP_CAPACITY);
        }
        loop {
            let skip = self.skip.min(input.len());
            self.skip = self.skip.saturating_sub(skip);
            advance(input, skip);
            if input.is_empty() {
                return None;
            }
            let missing = ENVELOPE_HEADER.saturating_sub(self.held.len());
            if missing == 0 {
                break;
            }
            if self.held.is_empty() && input.len() >= ENVELOPE_HEADER {
                match self.header(input) {
                    Err(error) => return Some(Err(self.fail(error))),
                    Ok(Header::Unknown(len)) => self.pass_over(len),
                    Ok(Header::Packet(len)) => {
                        let Some((envelope, rest)) = input.split_at_checked(len) else {
                            break;
                        };
                        *input = rest;
                        let packet = envelope.get(ENVELOPE_HEADER..).unwrap_or_default();
                        return Some(match check_packet(packet) {
                            Ok(()) => Ok(packet),
                            Err(error) => Err(self.fail(error)),
                        });
                    }
                }
                continue;
            }
            self.hold(input, missing);
            if self.held.len() < ENVELOPE_HEADER {
                return None;
            }
            match self.header(&self.held) {
                Err(error) => return Some(Err(self.fail(error))),
                Ok(Header::Unknown(len)) => {
                    self.held.clear();
                    self.pass_over(len.saturating_sub(ENVELOPE_HEADER));
                }
                Ok(Header::Packet(_)) => break,
            }
        }
        self.collect(input)
    }

    /// Puts a packet together whose header is in `held`, or at the beginning of `input`.
    fn collect(&mut self, input: &mut &[u8]) -> Option<Result<&[u8], EnvelopeError>> {
        if self.held.is_empty() {
            self.hold(input, ENVELOPE_HEADER);
        }
        let Ok(Header::Packet(len)) = self.header(&self.held) else {
            return None;
        };
        self.hold(input, len.saturating_sub(self.held.len()));
        if self.held.len() < len {
            return None;
        }
        let checked = check_packet(self.held.get(ENVELOPE_HEADER..).unwrap_or_default());
        if let Err(error) = checked {
            return Some(Err(self.fail(error)));
        }
        self.spent = true;
        self.held.get(ENVELOPE_HEADER..).map(Ok)
    }

    /// What a header, which is whole, announces.
    fn header(&self, head: &[u8]) -> Result<Header, EnvelopeError> {
        let [kind, high, low, ..] = *head else {
            return Ok(Header::Unknown(0));
        };
        let len = u16::from_be_bytes([high, low]);
        let whole = usize::from(len);
        if whole < ENVELOPE_HEADER || (kind == IP_PACKET && whole == ENVELOPE_HEADER) {
            return Err(EnvelopeError::Length(len));
        }
        if kind != IP_PACKET {
            return Ok(Header::Unknown(whole));
        }
        if whole.saturating_sub(ENVELOPE_HEADER) > self.max_packet {
            return Err(EnvelopeError::TooLong);
        }
        Ok(Header::Packet(whole))
    }

    fn pass_over(&mut self, len: usize) {
        self.skip = len;
        self.skipped = self.skipped.saturating_add(1);
    }

    fn hold(&mut self, input: &mut &[u8], len: usize) {
        let len = len.min(input.len());
        self.held
            .extend_from_slice(input.get(..len).unwrap_or_default());
        advance(input, len);
    }

    fn fail(&mut self, error: EnvelopeError) -> EnvelopeError {
        self.broken = Some(error);
        self.held = Vec::new();
        error
    }

    /// How many envelopes of unknown types were passed over.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn advance(input: &mut &[u8], by: usize) {
    *input = input.get(by..).unwrap_or_default();
}

#[cfg(test)]
mod tests;
