//! ChannelData: four bytes of header instead of a STUN message (RFC 8656 section 12.4).

use core::fmt;

/// Bytes in front of the payload of a ChannelData message.
pub const CHANNEL_HEADER_LEN: usize = 4;

/// A channel number that may be bound: 0x4000 to 0x4FFF.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u16);

impl Channel {
    /// The lowest number.
    pub const FIRST: Self = Self(0x4000);
    /// The highest number.
    pub const LAST: Self = Self(0x4FFF);

    /// The channel with this number; `None` outside 0x4000..=0x4FFF.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= Self::FIRST.0 && number <= Self::LAST.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The channel with this number in the range of RFC 5766; `None` outside 0x4000..=0x7FFF.
    pub const fn new_rfc5766(number: u16) -> Option<Self> {
        if number >= Self::FIRST.0 && number <= 0x7FFF {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:#06x})", self.0)
    }
}

/// The header of a ChannelData message with `len` bytes of payload; `None` when 16 bits cannot
/// say how many.
///
/// Over streams the payload is followed by [`padding`](ChannelData::padding) zero bytes, over
/// datagrams by none.
pub fn channel_header(channel: Channel, len: usize) -> Option<[u8; CHANNEL_HEADER_LEN]> {
    let [c1, c0] = channel.number().to_be_bytes();
    let [l1, l0] = u16::try_from(len).ok()?.to_be_bytes();
    Some([c1, c0, l1, l0])
}

/// A ChannelData message that came as a datagram.
///
/// ```
/// use turn_proto::wire::ChannelData;
///
/// let datagram = [0x40, 0x00, 0x00, 0x05, b'h', b'e', b'l', b'l', b'o', 0, 0, 0];
/// let message = ChannelData::parse(&datagram).unwrap();
/// assert_eq!(message.channel.number(), 0x4000);
/// assert_eq!(message.data, b"hello");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel.
    pub channel: Channel,
    /// The payload, without padding.
    pub data: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads a datagram; bytes behind the declared length are padding and ignored. `None` when it
    /// is no ChannelData, when the number is reserved, or when it is shorter than it says.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let ([c1, c0, l1, l0], rest) = datagram.split_first_chunk()?;
        let channel = Channel::new(u16::from_be_bytes([*c1, *c0]))?;
        let data = rest.get(..usize::from(u16::from_be_bytes([*l1, *l0])))?;
        Some(Self { channel, data })
    }

    /// How many zero bytes follow a payload of `len` bytes on a stream: 0 to 3.
    pub const fn padding(len: usize) -> usize {
        len.wrapping_neg() & 3
    }
}
