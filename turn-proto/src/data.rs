//! What stands around application data on its way between client and server.

use core::fmt;
use core::net::SocketAddr;
use core::ops::Range;

use stun_proto::wire::{Attribute as _, MAGIC_COOKIE, MessageType, Method, TransactionId};

use crate::wire::{Channel, ChannelData, XorPeerAddress, channel_header};

/// What a relay carries between the server and the peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelayProtocol {
    /// Datagrams.
    #[default]
    Udp,
    /// Connections (RFC 6062): the relay listens, and connects from the same address. The client
    /// reaches the server over a stream.
    Tcp,
}

/// The longest header: an indication with an IPv6 peer and DONT-FRAGMENT.
const MAX_HEADER: usize = 52;

/// The bytes in front of a payload, and how many zero bytes follow it.
///
/// A host that can gather writes sends header, payload and padding without copying; the others
/// have them put together by the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    bytes: [u8; MAX_HEADER],
    len: u8,
    padding: u8,
}

impl DataHeader {
    /// ChannelData (RFC 8656 section 12.4); padded on streams only. `None` above 65,535 bytes.
    pub(crate) fn channel(channel: Channel, payload: usize, stream: bool) -> Option<Self> {
        let mut header = Self::new();
        header.push(&channel_header(channel, payload)?);
        header.padding = if stream {
            ChannelData::padding(payload) as u8
        } else {
            0
        };
        Some(header)
    }

    /// A Send or Data indication whose last attribute is DATA with the payload (RFC 8656
    /// section 11). `None` when the message would be longer than 16 bits can say.
    pub(crate) fn indication(
        method: Method,
        id: TransactionId,
        peer: SocketAddr,
        payload: usize,
        dont_fragment: bool,
    ) -> Option<Self> {
        let peer = XorPeerAddress(peer);
        let padding = ChannelData::padding(payload);
        let address = peer.encoded_len();
        let fragment = if dont_fragment { 4 } else { 0 };
        let around = address.checked_add(8)?.checked_add(fragment)?;
        let total = around.checked_add(payload)?.checked_add(padding)?;
        let total = u16::try_from(total).ok()?;
        let mut header = Self::new();
        header.push(&MessageType::indication(method).to_wire().to_be_bytes());
        header.push(&total.to_be_bytes());
        header.push(&MAGIC_COOKIE.to_be_bytes());
        header.push(&id.0);
        header.push(&XorPeerAddress::TYPE.0.to_be_bytes());
        header.push(&(address as u16).to_be_bytes());
        let mut value = [0; 20];
        let value = value.get_mut(..address)?;
        peer.encode(value, id);
        header.push(value);
        if dont_fragment {
            header.push(&crate::wire::DontFragment::TYPE.0.to_be_bytes());
            header.push(&[0; 2]);
        }
        header.push(&crate::wire::Data::TYPE.0.to_be_bytes());
        header.push(&u16::try_from(payload).ok()?.to_be_bytes());
        header.padding = padding as u8;
        Some(header)
    }

    const fn new() -> Self {
        Self {
            bytes: [0; MAX_HEADER],
            len: 0,
            padding: 0,
        }
    }

    fn push(&mut self, more: &[u8]) {
        let start = usize::from(self.len);
        let end = start.saturating_add(more.len());
        if let Some(slot) = self.bytes.get_mut(start..end) {
            slot.copy_from_slice(more);
            self.len = end as u8;
        }
    }

    /// The bytes in front of the payload.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// How many zero bytes follow the payload: 0 to 3.
    pub const fn padding(&self) -> usize {
        self.padding as usize
    }

    /// Puts header, payload and padding together at the beginning of `buf`; how long they are, or
    /// `None` when `buf` is too small.
    pub fn write(&self, payload: &[u8], buf: &mut [u8]) -> Option<usize> {
        let header = self.as_bytes();
        let (head, rest) = buf.split_at_mut_checked(header.len())?;
        let (body, rest) = rest.split_at_mut_checked(payload.len())?;
        let (tail, _) = rest.split_at_mut_checked(self.padding())?;
        head.copy_from_slice(header);
        body.copy_from_slice(payload);
        tail.fill(0);
        header
            .len()
            .checked_add(payload.len())?
            .checked_add(tail.len())
    }

    /// Puts the header in front of, and the padding behind, a payload that stands in `buf` already.
    /// The range of the whole, or `None` when there is too little room around the payload.
    pub fn write_around(&self, buf: &mut [u8], payload: Range<usize>) -> Option<Range<usize>> {
        let header = self.as_bytes();
        let start = payload.start.checked_sub(header.len())?;
        let end = payload.end.checked_add(self.padding())?;
        if end > buf.len() || payload.start > payload.end {
            return None;
        }
        buf.get_mut(start..payload.start)?.copy_from_slice(header);
        buf.get_mut(payload.end..end)?.fill(0);
        Some(start..end)
    }
}

impl fmt::Debug for DataHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataHeader({:02x?}, +{})", self.as_bytes(), self.padding)
    }
}
