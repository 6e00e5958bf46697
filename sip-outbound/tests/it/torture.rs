//! What elements do with the messages of RFC 4475 that a parser lets pass.

use sip_outbound::wire::{Leniency, Limits, Message, Name, ParseConfig, Request, Response};
use sip_outbound::{
    EdgeConfig, EdgeProxy, FlowAction, InstanceId, Instant, RegisterStep, Registrar,
    RegistrarConfig, UserAgent, UserAgentConfig, UserAgentEvent,
};
use stun_proto::Transport;

use super::{reversed, tuple};

fn read(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/torture/rfc4475/{name}.dat",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

fn lenient() -> ParseConfig {
    ParseConfig {
        limits: Limits::DEFAULT,
        leniency: Leniency {
            quoted_controls: true,
            ..Leniency::default()
        },
    }
}

fn code(bytes: &[u8]) -> u16 {
    let text = core::str::from_utf8(bytes.get(8..11).unwrap()).unwrap();
    text.parse().unwrap()
}

/// What an edge proxy answers to a datagram; none when it goes on.
fn at_edge(name: &str) -> Option<u16> {
    let mut config = EdgeConfig::new("ep.example.com");
    config.parse = lenient();
    let mut edge = EdgeProxy::new(config, [7; 32], Instant::ZERO).unwrap();
    let at = reversed(tuple(Transport::Udp, 5061));
    edge.handle_datagram(Instant::ZERO, at, &read(name));
    while let Some(action) = edge.poll_action() {
        if let FlowAction::OpenFlow { .. } = action {
            return None;
        }
    }
    let mut buf = [0; 65_535];
    edge.poll_transmit(&mut buf)
        .map(|sent| code(&buf[..sent.len]))
}

/// What a registrar answers.
fn at_registrar(name: &str, digest: bool) -> Response {
    register(&read(name), digest)
}

fn register(bytes: &[u8], digest: bool) -> Response {
    let mut config = RegistrarConfig::new("example.com");
    config.accept_unoffered_path = true;
    if !digest {
        config.digest = None;
    }
    let mut registrar = Registrar::new(config, [7; 32], Instant::ZERO).unwrap();
    let message = Message::parse(bytes, &lenient()).unwrap();
    let request = Request::check(message, &Limits::DEFAULT).unwrap();
    let RegisterStep::Respond(answer) = registrar.handle_register(Instant::ZERO, None, &request)
    else {
        panic!()
    };
    Response::check(answer, &Limits::DEFAULT).unwrap()
}

/// What a user agent answers to a datagram; none when the application is asked.
fn at_agent(name: &str) -> Option<u16> {
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
    let proxies = vec!["sip:ep.example.com".parse().unwrap()];
    let aor = "sip:user@example.com".parse().unwrap();
    let mut config = UserAgentConfig::new(aor, instance, proxies);
    config.parse = lenient();
    let mut ua = UserAgent::new(config, [7; 32], Instant::ZERO).unwrap();
    ua.start(Instant::ZERO);
    let Some(FlowAction::OpenFlow { flow, .. }) = ua.poll_action() else {
        panic!()
    };
    ua.flow_opened(Instant::ZERO, flow, tuple(Transport::Udp, 5060), Vec::new());
    let mut buf = [0; 65_535];
    while ua.poll_transmit(&mut buf).is_some() {}
    ua.handle_flow_input(Instant::ZERO, flow, &read(name));
    let asked = core::iter::from_fn(|| ua.poll_event())
        .any(|event| matches!(event, UserAgentEvent::Request { .. }));
    let answer = ua
        .poll_transmit(&mut buf)
        .map(|sent| code(&buf[..sent.len]));
    assert!(asked != answer.is_some(), "{name}");
    answer
}

// spec: SIP-16.3-1, SIP-8.2.2-1
#[test]
fn a_proxy_refuses_what_it_cannot_route() {
    for (name, expected) in [
        ("unkscm", Some(416)),
        ("novelsc", Some(416)),
        ("bext01", Some(420)),
        ("zeromf", Some(483)),
        ("esc01", None),
        ("intmeth", None),
        ("longreq", None),
        // A response that belongs to nothing.
        ("bcast", None),
    ] {
        if name == "bcast" {
            let mut edge = EdgeProxy::new(EdgeConfig::new("a"), [7; 32], Instant::ZERO).unwrap();
            let at = reversed(tuple(Transport::Udp, 5061));
            edge.handle_datagram(Instant::ZERO, at, &read(name));
            assert_eq!((edge.dropped(), edge.flow_count()), (1, 0));
            continue;
        }
        assert_eq!(at_edge(name), expected, "{name}");
    }
}

// spec: SIP-8.2.1-1
#[test]
fn a_user_agent_answers_what_it_does_not_know_and_asks_about_the_rest() {
    for (name, expected) in [
        ("intmeth", Some(501)),
        ("esc02", Some(501)),
        ("bext01", Some(420)),
        ("regbadct", Some(405)),
        // The application knows bodies and Max-Forwards does not concern the last one.
        ("invut", None),
        ("sdp01", None),
        ("zeromf", None),
        ("wsinv", None),
    ] {
        assert_eq!(at_agent(name), expected, "{name}");
    }
}

// spec: SIP-20.10-1, SIP-19.1-1, SIP-19.1.2-1
#[test]
fn a_registrar_stores_what_is_meant_and_refuses_what_is_not_clear() {
    let contacts = |name: &str| {
        let answer = at_registrar(name, false);
        assert_eq!(answer.code().number(), 200, "{name}");
        let rows = answer.rows(Name::CONTACT).map(String::from);
        rows.collect::<Vec<_>>()
    };
    for name in ["regbadct", "unksm2"] {
        assert_eq!(at_registrar(name, false).code().number(), 400, "{name}");
    }
    // An unknown scheme of credentials is none.
    assert_eq!(at_registrar("regaut01", true).code().number(), 401);
    let one = |name: &str| {
        let mut all = contacts(name);
        assert_eq!(all.len(), 1, "{name}");
        all.remove(0)
    };
    // A contact that is the user's own name would lead back to the registrar, whatever follows its
    // question mark. Another one is stored with what follows.
    assert_eq!(at_registrar("regescrt", false).code().number(), 403);
    let text = String::from_utf8(read("regescrt")).unwrap();
    let text = text.replace("To: sip:user@", "To: sip:other@");
    let answer = register(text.as_bytes(), false);
    let stored = answer.only(Name::CONTACT).unwrap();
    assert!(stored.starts_with("<sip:user@example.com?Route=%3Csip:sip.example.com%3E>"));
    assert!(one("cparam01").starts_with("<sip:+19725552222@gw1.example.net>;unknownparam"));
    assert!(one("cparam02").starts_with("<sip:+19725552222@gw1.example.net;unknownparam>"));
    // One NUL is not two.
    assert_eq!(contacts("escnull").len(), 2);
}
