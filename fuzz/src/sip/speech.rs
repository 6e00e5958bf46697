//! What the other side of a machine may say: messages that make sense, those that nearly do, those
//! of the torture tests, and plain bytes.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sip_outbound::wire::{Builder, Limits, Message, Name, ParseConfig, Request, StatusCode};

use crate::sim::Choices;

macro_rules! torture {
    ($($name:literal),+ $(,)?) => {
        [$(include_bytes!(concat!("../../../sip-outbound/tests/torture/", $name)).as_slice()),+]
    };
}

/// Some messages of RFC 4475 and RFC 5118.
pub(super) const TORTURE: [&[u8]; 12] = torture![
    "rfc4475/wsinv.dat",
    "rfc4475/longreq.dat",
    "rfc4475/dblreq.dat",
    "rfc4475/mpart01.dat",
    "rfc4475/clerr.dat",
    "rfc4475/ncl.dat",
    "rfc4475/mcl01.dat",
    "rfc4475/escruri.dat",
    "rfc4475/badvers.dat",
    "rfc4475/zeromf.dat",
    "rfc4475/bext01.dat",
    "rfc5118/ipv6-good",
];

/// Reads bytes as a request, or as nothing.
pub(super) fn request(bytes: &[u8]) -> Option<Request> {
    let message = Message::parse(bytes, &ParseConfig::default()).ok()?;
    Request::check(message, &Limits::DEFAULT).ok()
}

/// Bytes that stand between messages, or have no business there.
pub(super) fn noise(choices: &mut Choices) -> Vec<u8> {
    const WORDS: [&[u8]; 10] = [
        b"\r\n\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"SIP/2.0 200 OK\r\n",
        b"Content-Length: 5\r\n",
        b"l: 70000\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0",
        b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl",
    ];
    match choices.below(8) {
        0 => {
            let len = choices.index(30);
            choices.bytes(len)
        }
        1 => choices.pick(&TORTURE).to_vec(),
        _ => choices.pick(&WORDS).to_vec(),
    }
}

/// Changes one octet, cuts the end off, or does neither.
pub(super) fn damage(choices: &mut Choices, mut bytes: Vec<u8>) -> Vec<u8> {
    match choices.below(8) {
        0 if !bytes.is_empty() => {
            let at = choices.index(bytes.len());
            bytes[at] = choices.byte();
        }
        1 => {
            let len = choices.index(bytes.len() + 1);
            bytes.truncate(len);
        }
        _ => {}
    }
    bytes
}

/// A response to a request that was seen, as a registrar, a proxy or somebody else may give it.
pub(super) fn answer(choices: &mut Choices, asked: &Request) -> Option<Vec<u8>> {
    const CODES: [u16; 16] = [
        200, 200, 200, 401, 401, 407, 100, 183, 403, 423, 430, 439, 486, 500, 503, 302,
    ];
    let code = StatusCode::new(*choices.pick(&CODES))?;
    let mut builder = Builder::reply(asked, code, Some("peer"));
    let dressing = choices.byte();
    let on = |bit: u8| dressing & (1 << bit) != 0;
    match code.number() {
        200 => {
            if on(0) {
                builder = builder.header(Name::REQUIRE, "outbound");
            }
            for contact in asked.list(Name::CONTACT) {
                builder = builder.header(Name::CONTACT, contact);
            }
            if on(1) {
                builder = builder.header(Name::FLOW_TIMER, choices.below(200));
            }
            if on(2) {
                builder = builder.header(Name::SERVICE_ROUTE, "<sip:home.example.com;lr>");
            }
            if on(3) {
                builder = builder.copy_all(asked, Name::RECORD_ROUTE);
            }
        }
        401 | 407 => {
            let name = if code == StatusCode::UNAUTHORIZED {
                Name::WWW_AUTHENTICATE
            } else {
                Name::PROXY_AUTHENTICATE
            };
            let realm = if on(0) { "example.com" } else { "elsewhere" };
            let stale = if on(1) { ",stale=TRUE" } else { "" };
            let algorithm = ["MD5", "SHA-256", "AKAv1-MD5", "FOO"][choices.index(4)];
            let qop = if on(2) { "" } else { ",qop=\"auth\"" };
            let nonce = choices.below(3);
            builder = builder.header(
                name,
                format!(
                    "Digest realm=\"{realm}\",nonce=\"n{nonce}\",algorithm={algorithm}{qop}{stale}"
                ),
            );
        }
        423 => builder = builder.header(Name::MIN_EXPIRES, choices.below(10_000)),
        500 | 503 if on(0) => {
            builder = builder.header(Name::RETRY_AFTER, choices.below(300));
        }
        _ => {}
    }
    let message = builder.finish(b"").ok()?;
    Some(message.as_bytes().to_vec())
}

/// A request from outside, perhaps along a route that was seen.
pub(super) fn visit(choices: &mut Choices, routes: &[String]) -> Vec<u8> {
    const METHODS: [&str; 9] = [
        "INVITE",
        "MESSAGE",
        "OPTIONS",
        "ACK",
        "CANCEL",
        "BYE",
        "REGISTER",
        "FOO",
        "SUBSCRIBE",
    ];
    let method = *choices.pick(&METHODS);
    let number = choices.below(4);
    let uri = *choices.pick(&[
        "sip:alice@192.0.2.10:5060",
        "sip:bob@example.com",
        "sip:example.com",
        "tel:+1",
        "sip:ep1.example.com;lr",
    ]);
    let mut text = format!("{method} {uri} SIP/2.0\r\n");
    let mut line = |line: String| {
        text.push_str(&line);
        text.push_str("\r\n");
    };
    for hop in 0..=choices.below(2) {
        line(format!(
            "Via: SIP/2.0/TCP h{hop}.example.com;branch=z9hG4bK{number};rport"
        ));
    }
    if !routes.is_empty() && choices.flip() {
        line(format!("Route: {}", choices.pick(routes)));
    }
    line(format!("Max-Forwards: {}", choices.below(71)));
    line(format!("From: <sip:bob@example.com>;tag={number}"));
    let tag = ["", ";tag=ua", ";tag=x"][choices.index(3)];
    line(format!("To: <sip:alice@example.com>{tag}"));
    line(format!("Call-ID: call{number}"));
    let other = if choices.chance(30) { "FOO" } else { method };
    line(format!("CSeq: {} {other}", choices.below(3)));
    if choices.flip() {
        let params = ["", ";reg-id=1;+sip.instance=\"<urn:x>\"", ";expires=0"][choices.index(3)];
        line(format!("Contact: <sip:bob@192.0.2.20;ob>{params}"));
    }
    if choices.flip() {
        line("Supported: path, outbound".to_owned());
    }
    if choices.chance(100) {
        line("Require: frobnicate".to_owned());
    }
    let body = choices.index(20);
    let shown = if choices.chance(50) { body + 3 } else { body };
    line(format!("Content-Length: {shown}"));
    text.push_str("\r\n");
    text.push_str(&"x".repeat(body));
    text.into_bytes()
}
