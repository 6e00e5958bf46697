//! Several protocols on one UDP socket (RFC 7983, RFC 9443).

use crate::wire::{HEADER_LEN, MAGIC_COOKIE};

/// What a datagram is, as far as its first byte can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// STUN, if [`is_stun`] agrees.
    Stun,
    /// ZRTP.
    Zrtp,
    /// DTLS.
    Dtls,
    /// ChannelData of the TURN server.
    Channel,
    /// RTP or RTCP: see [`is_rtcp`].
    Rtp,
    /// QUIC.
    Quic,
    /// Nothing that belongs here: to be dropped.
    Unknown,
}

/// Tells the kind of a datagram by its first byte.
///
/// `from_turn_server` says that it came from a TURN server in use: nobody else sends ChannelData.
/// `quic` says that QUIC shares the socket (RFC 9443); its endpoints must keep the fixed bit then,
/// that is, not use RFC 9287.
///
/// ```
/// use stun_proto::demux::{Kind, classify};
///
/// assert_eq!(classify(0x00, false, false), Kind::Stun);
/// assert_eq!(classify(0x40, true, false), Kind::Channel);
/// assert_eq!(classify(0x40, false, false), Kind::Unknown);
/// assert_eq!(classify(0x40, false, true), Kind::Quic);
/// ```
pub const fn classify(first_byte: u8, from_turn_server: bool, quic: bool) -> Kind {
    match first_byte {
        0..=3 => Kind::Stun,
        16..=19 => Kind::Zrtp,
        20..=63 => Kind::Dtls,
        64..=79 if from_turn_server => Kind::Channel,
        128..=191 => Kind::Rtp,
        64..=127 | 192..=255 if quic => Kind::Quic,
        4..=15 | 64..=127 | 192..=255 => Kind::Unknown,
    }
}

/// Whether a datagram has the shape of a STUN message: top bits, cookie, and a length that is a
/// multiple of four and equals what follows the header.
///
/// Where every message carries FINGERPRINT, that is to be checked as well.
pub fn is_stun(datagram: &[u8]) -> bool {
    let [t1, _, l1, l0, c3, c2, c1, c0, ..] = datagram else {
        return false;
    };
    let len = usize::from(u16::from_be_bytes([*l1, *l0]));
    *t1 < 0x40
        && u32::from_be_bytes([*c3, *c2, *c1, *c0]) == MAGIC_COOKIE
        && len.is_multiple_of(4)
        && datagram.len() == len.saturating_add(HEADER_LEN)
}

/// Whether a datagram of [`Kind::Rtp`] is RTCP, by its second byte (RFC 5761 section 4).
pub const fn is_rtcp(second_byte: u8) -> bool {
    matches!(second_byte, 192..=223)
}

#[cfg(test)]
mod tests;
