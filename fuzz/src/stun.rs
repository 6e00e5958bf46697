//! Entry functions for STUN: any bytes are a run.

use alloc::vec::Vec;

use stun_proto::framing::{Deframer, Next, Unit};
use stun_proto::uri::Uri;
use stun_proto::wire::{
    ErrorCode, Key, Message, MessageType, Method, PasswordAlgorithms, UnknownAttributes, Username,
    Writer, XorMappedAddress,
};

use crate::sim::Choices;

/// Reads a message with all that hangs on it, and a URI.
pub fn parse_stun(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        let _ = message.check_fingerprint();
        let _ = message.verify(&Key::short_term("password"));
        let _ = message.get::<Username<'_>>();
        let _ = message.get::<ErrorCode<'_>>();
        let _ = message.get::<XorMappedAddress>();
        let _ = message.get::<UnknownAttributes>();
        if let Some(Ok(list)) = message.get::<PasswordAlgorithms<'_>>() {
            assert!(list.iter().count() <= data.len());
        }
        assert_eq!(message.as_bytes(), data);
    }
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(uri) = text.parse::<Uri>()
    {
        let shown = alloc::format!("{uri}");
        assert_eq!(shown.parse::<Uri>(), Ok(uri));
    }
}

/// Writes a message as the bytes say, changes one byte of it, and looks whether the code notices.
pub fn ops_stun_message(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let key = Key::short_term("password");
    let mut buf = [0; 2048];
    let ty = MessageType::request(Method::new(choices.below(0x1000) as u16));
    let id = stun_proto::wire::TransactionId(choices.array());
    let mut writer = Writer::new(&mut buf, ty, id);
    for _ in 0..choices.below(8) {
        // Any type but the three that the writer places itself.
        let ty = 0x4000 | choices.below(0x4000) as u16;
        let len = choices.index(60);
        writer = writer.raw(stun_proto::wire::AttributeType(ty), &choices.bytes(len));
    }
    let len = writer.message_integrity(&key).fingerprint().finish();
    let len = len.expect("the message fits");
    let message = Message::parse(&buf[..len]).expect("what was written can be read");
    assert!(message.verify(&key).is_ok());
    assert_eq!(message.check_fingerprint(), Some(true));
    let at = choices.index(len);
    let change = choices.byte();
    buf[at] ^= change;
    if change != 0
        && let Ok(changed) = Message::parse(&buf[..len])
    {
        let noticed = changed.verify(&key).is_err() || changed.check_fingerprint() != Some(true);
        assert!(noticed, "byte {at} was changed and nobody noticed");
    }
}

/// Cuts a stream whole and in pieces: the units are the same.
pub fn ops_stun_stream(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let mut stream = Vec::new();
    for _ in 0..choices.below(6) {
        match choices.below(3) {
            0 => {
                let len = choices.index(20);
                stream.extend_from_slice(&[0x40, 0, 0, len as u8]);
                stream.extend(choices.bytes(len));
                stream.resize(stream.len().next_multiple_of(4), 0);
            }
            1 => {
                let mut buf = [0; 64];
                let ty = MessageType::request(Method::BINDING);
                let id = stun_proto::wire::TransactionId(choices.array());
                let len = Writer::new(&mut buf, ty, id).finish();
                stream.extend_from_slice(&buf[..len.unwrap_or_default()]);
            }
            _ => {
                let len = choices.index(10);
                stream.extend(choices.bytes(len));
            }
        }
    }
    let whole = units(&[&stream]);
    let mut pieces: Vec<&[u8]> = Vec::new();
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + choices.index(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(units(&pieces), whole);
}

fn units(pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut deframer = Deframer::with_channels(1000);
    let mut all = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match deframer.next(&mut input) {
                Ok(Next::Unit(Unit::Message(bytes))) => all.push(Some(bytes.to_vec())),
                Ok(Next::Unit(Unit::ChannelData { data, .. })) => all.push(Some(data.to_vec())),
                Ok(Next::Partial | Next::Nothing) => break,
                Err(_) => {
                    all.push(None);
                    return all;
                }
            }
        }
    }
    all
}
