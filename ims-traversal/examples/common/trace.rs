//! What crosses a hop, in words.

use stun_proto::wire::{Class, Message};

/// The next host on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The HTTP proxy.
    Proxy,
    /// The STUN or TURN server.
    Server,
    /// The other peer.
    Peer,
}

/// A datagram, or the beginning of a stream's bytes, in words.
pub fn unit(data: &[u8]) -> Option<String> {
    match data.first() {
        Some(0x40..=0x4F) => Some("ChannelData".to_owned()),
        Some(0..=3) => {
            let len = data
                .get(2..4)
                .map_or(0, |len| usize::from(len[0]) << 8 | usize::from(len[1]));
            let message = data.get(..len + 20).unwrap_or(data);
            Message::parse(message)
                .ok()
                .map(|message| describe(&message))
        }
        _ => Some("data".to_owned()),
    }
}

/// What bytes of a TCP connection are, and for whom.
pub fn crossing(data: &[u8]) -> Option<(Hop, String)> {
    match data.first() {
        Some(0x14..=0x17) => Some((Hop::Server, "TLS records".to_owned())),
        // The CONNECT has been told when it was decided on.
        Some(b'A'..=b'Z') if data.is_ascii() => None,
        _ => Some((Hop::Server, unit(data)?)),
    }
}

/// A STUN message in words.
fn describe(message: &Message<'_>) -> String {
    let method = match message.method().number() {
        0x001 => "Binding",
        0x003 => "Allocate",
        0x004 => "Refresh",
        0x006 => "Send",
        0x007 => "Data",
        0x008 => "CreatePermission",
        0x009 => "ChannelBind",
        _ => "STUN",
    };
    match message.class() {
        Class::Request => format!("{method} request"),
        Class::Indication => format!("{method} indication"),
        Class::Success => format!("{method} success"),
        Class::Error => {
            let error = message.find::<stun_proto::wire::ErrorCode<'_>>();
            let code = error.map_or(0, |error| error.code());
            format!("{method} error {code}")
        }
    }
}
