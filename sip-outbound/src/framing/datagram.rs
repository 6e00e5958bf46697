//! What a datagram on a SIP port is (RFC 5626 section 8).

use bytes::Bytes;
use stun_proto::FiveTuple;
use stun_proto::wire::{
    Class, MAGIC_COOKIE, Message as StunMessage, MessageType, Method as StunMethod, Writer,
    XorMappedAddress,
};

/// The protocol a datagram belongs to, told by its first octets alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// STUN: the first octet is 0 or 1 and the magic cookie is in its place.
    Stun,
    /// Nothing but CR, LF, space and NUL: somebody keeps a NAT binding open. Counts as traffic,
    /// is never answered.
    KeepAlive,
    /// To be read as SIP.
    Sip,
}

/// Tells what a datagram is.
///
/// ```
/// use sip_outbound::{DatagramKind, classify};
///
/// assert_eq!(classify(b"\r\n\r\n"), DatagramKind::KeepAlive);
/// assert_eq!(classify(b"\0\x01\0\0\x21\x12\xa4\x42............"), DatagramKind::Stun);
/// assert_eq!(classify(b"OPTIONS sip:a SIP/2.0\r\n"), DatagramKind::Sip);
/// ```
pub fn classify(datagram: &[u8]) -> DatagramKind {
    if datagram
        .iter()
        .all(|b| matches!(b, b'\r' | b'\n' | b' ' | 0))
    {
        return DatagramKind::KeepAlive;
    }
    let cookie = datagram.get(4..8) == Some(&MAGIC_COOKIE.to_be_bytes());
    match datagram.first() {
        Some(0 | 1) if cookie => DatagramKind::Stun,
        Some(_) | None => DatagramKind::Sip,
    }
}

/// The answer to the keep-alive of a client over datagrams, a STUN Binding request: what every
/// element sends back that clients register with directly (RFC 5626 section 8). `None` for anything
/// else. Over streams [`PONG`](super::PONG) answers [`Frame::Ping`](super::Frame).
pub fn answer_binding(at: FiveTuple, datagram: &[u8]) -> Option<Bytes> {
    let request = StunMessage::parse(datagram).ok()?;
    if request.class() != Class::Request || request.method() != StunMethod::BINDING {
        return None;
    }
    let mut buf = [0; 128];
    let ty = MessageType::request(StunMethod::BINDING).success();
    let len = Writer::new(&mut buf, ty, request.transaction_id())
        .attribute(&XorMappedAddress(at.remote))
        .finish()
        .ok()?;
    buf.get(..len).map(Bytes::copy_from_slice)
}
