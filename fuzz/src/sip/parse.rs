//! Any bytes as a datagram, as a stream cut in any way, and as each of the values.

use alloc::vec::Vec;

use sip_outbound::wire::{
    CSeq, Limits, Message, Name, NameAddr, Params, ParseConfig, Request, Response, SipUri, Uri,
    UriBuf, Via, is_answerable, parse_retry_after, split_list,
};
use sip_outbound::{
    FlowTokenKeys, Frame, Framer, FramerConfig, FramingError, Instant, Role, classify,
};

use crate::pieces::pieces;
use crate::sim::Choices;

/// Reads bytes as a datagram, as a stream and as values; what was read can be written again, and
/// cutting the stream elsewhere changes nothing.
pub fn parse_sip(data: &[u8]) {
    let _ = classify(data);
    if let Ok(message) = Message::parse(data, &ParseConfig::default()) {
        check_message(data, &message);
    }
    check_stream(data);
    if let Ok(text) = core::str::from_utf8(data) {
        check_values(text);
    }
}

fn check_message(data: &[u8], message: &Message) {
    let limits = Limits::DEFAULT;
    let bytes = message.as_bytes();
    let folded = data.windows(3).any(|w| matches!(w, b"\r\n " | b"\r\n\t"));
    let mut start = 0;
    while data[start..].starts_with(b"\r\n") {
        start += 2;
    }
    if !folded && message.defect().is_none() {
        assert!(data[start..].starts_with(bytes), "not the bytes that came");
    }
    let again = message.edit().finish().expect("an unchanged message");
    assert_eq!(again.as_bytes(), bytes, "an unchanged copy has changed");
    if message.defect().is_none() {
        let again = Message::parse(bytes, &ParseConfig::default()).expect("the same message");
        assert_eq!(again.as_bytes(), bytes);
        assert!(again.headers().eq(message.headers()), "other fields");
    }
    read_all(message, &limits);
    let answerable = is_answerable(message, &limits);
    if message.is_request() {
        assert!(Response::check(message.clone(), &limits).is_err());
        if let Ok(request) = Request::check(message.clone(), &limits) {
            assert_eq!(request.as_bytes(), bytes);
            let _ = request.uri(&limits);
            assert!(answerable || request.method().as_str() == "ACK");
            let reply = sip_outbound::wire::Builder::reply(
                &request,
                sip_outbound::wire::StatusCode::OK,
                Some("t"),
            );
            if let Ok(reply) = reply.finish(b"") {
                let reply = Response::check(reply, &limits).expect("the reply is a response");
                assert_eq!(reply.cseq_number(), request.cseq_number());
                assert_eq!(reply.call_id(), request.call_id());
                assert_eq!(reply.branch(), request.branch());
            }
        }
    } else if let Ok(response) = Response::check(message.clone(), &limits) {
        let _ = (response.code(), response.reason(), response.branch());
    }
}

/// Everything that can be asked of a message.
fn read_all(message: &Message, limits: &Limits) {
    let _ = (message.start(), message.method(), message.content_length());
    let _ = (message.via(limits), message.via_count());
    let _ = (message.from(limits), message.to(limits), message.cseq());
    let _ = (message.has_wildcard_contact(), message.expires());
    let _ = (message.max_forwards(), message.seconds(Name::MIN_EXPIRES));
    let _ = message.contacts(limits).count();
    for name in [
        Name::ROUTE,
        Name::PATH,
        Name::RECORD_ROUTE,
        Name::SERVICE_ROUTE,
    ] {
        let _ = message.routes(name, limits).count();
    }
    for header in message.headers() {
        let _ = message.rows(header.name).count();
        let _ = message.list(header.name).count();
        let _ = message.only(header.name);
    }
    // A message without one of its fields, and with one more.
    let changed = message
        .edit()
        .pop_first(Name::VIA)
        .push_front(Name::VIA, "SIP/2.0/TCP h;branch=z9hG4bKx");
    if let Ok(changed) = changed.finish() {
        assert!(changed.via_count() >= 1);
        assert_eq!(changed.body(), message.body());
    }
}

/// What a stream brings, in words that can be compared.
#[derive(Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>),
    Ping,
    Pong,
    Broken(FramingError, Option<Vec<u8>>),
}

fn frames(role: Role, pieces: &[&[u8]]) -> Vec<Seen> {
    let mut framer = Framer::new(FramerConfig::new(role), Instant::ZERO);
    let mut seen = Vec::new();
    if role == Role::Client {
        framer.ping_sent();
    }
    for piece in pieces {
        let mut input = *piece;
        while let Some(frame) = framer.next(Instant::ZERO, &mut input) {
            assert!(
                !matches!(seen.last(), Some(Seen::Broken(..))),
                "something follows the end"
            );
            seen.push(match frame {
                Frame::Message(message) => {
                    assert!(message.defect().is_none());
                    Seen::Message(message.as_bytes().to_vec())
                }
                Frame::Ping => Seen::Ping,
                Frame::Pong => {
                    framer.ping_sent();
                    Seen::Pong
                }
                Frame::Broken { error, message } => {
                    Seen::Broken(error, message.map(|message| message.as_bytes().to_vec()))
                }
            });
        }
        assert!(input.is_empty(), "input left over");
    }
    seen
}

fn check_stream(data: &[u8]) {
    let seed = data
        .iter()
        .fold(7u64, |n, b| n.wrapping_mul(31).wrapping_add(u64::from(*b)));
    for role in [Role::Server, Role::Client] {
        let whole = frames(role, &[data]);
        let mut choices = Choices::from_seed(seed);
        for _ in 0..4 {
            let cut = pieces(data, &mut choices);
            let cut: Vec<_> = cut.iter().map(Vec::as_slice).collect();
            assert_eq!(frames(role, &cut), whole, "cut {cut:?}");
        }
        let octets: Vec<_> = data.chunks(1).collect();
        assert_eq!(frames(role, &octets), whole, "octet by octet");
    }
}

fn check_values(text: &str) {
    let limits = Limits::DEFAULT;
    if let Ok(uri) = Uri::parse(text, &limits) {
        assert_eq!(uri.as_str(), text);
    }
    if let Ok(uri) = SipUri::parse(text, &limits) {
        assert_eq!(uri.as_str(), text);
        assert!(uri.is_equivalent(&uri), "{text} is not itself");
        let _ = (
            uri.user(),
            uri.password(),
            uri.host_ip(),
            uri.port_or_default(),
        );
        let _ = (uri.params().count(), uri.transport(), uri.headers());
        // Where no escape is undone, the name is a URI again.
        let aor = UriBuf::parse(uri.aor().as_str());
        if let Ok(aor) = aor
            && !text.contains('%')
        {
            assert_eq!(aor.as_uri().aor(), uri.aor(), "the AOR of an AOR");
        }
    }
    if let Ok(address) = NameAddr::parse(text, &limits) {
        let _ = (address.display_name(), address.tag(), address.expires());
        let _ = (address.reg_id(), address.instance());
    }
    let _ = NameAddr::parse_route(text, &limits);
    if let Ok(via) = Via::parse(text, &limits) {
        let same = via.with_params(&[]);
        let again = Via::parse(&same, &limits).expect("a Via");
        assert_eq!((again.host(), again.port), (via.host(), via.port));
        assert!(again.params.iter().eq(via.params.iter()));
        let set = via.with_params(&[("rport", Some("7")), ("received", Some("192.0.2.1"))]);
        if let Ok(set) = Via::parse(&set, &limits) {
            assert_eq!(set.rport(), Some(7));
        }
    }
    let _ = CSeq::parse(text);
    let _ = parse_retry_after(text);
    if let Ok(params) = Params::parse(text, 32) {
        for (name, value) in params.iter() {
            assert!(params.has(name), "{name} is there and is not");
            let _ = (value, params.unquoted(name));
        }
    }
    let joined: usize = split_list(text).map(str::len).sum();
    assert!(joined <= text.len());
    if let Ok(token) = FlowTokenKeys::new(&[7; 32]).open(text) {
        let again = FlowTokenKeys::new(&[7; 32]).issue(&token);
        assert_eq!(again, text, "two texts for {token:?}");
    }
}
