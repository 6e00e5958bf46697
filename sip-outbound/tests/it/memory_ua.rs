//! A user agent stays below what its `max_memory` says.

use allocation_counter::measure;
use sip_outbound::wire::{
    Builder, Limits, Message, Method, Name, ParseConfig, Request, StatusCode,
};
use sip_outbound::{
    FlowAction, FlowId, InstanceId, Instant, NewRequest, UserAgent, UserAgentConfig,
};
use stun_proto::Transport;

use super::tuple;

const TRANSACTIONS: usize = 20;

fn long(len: usize) -> String {
    "x".repeat(len)
}

fn config() -> UserAgentConfig {
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
    let proxies = vec!["sips:ep.example.com".parse().unwrap()];
    let aor = "sip:alice@ims.example.com".parse().unwrap();
    UserAgentConfig {
        max_transactions: TRANSACTIONS,
        max_events: TRANSACTIONS,
        ..UserAgentConfig::new(aor, instance, proxies)
    }
}

/// A user agent that has registered over one flow.
fn registered(config: UserAgentConfig) -> (UserAgent, FlowId) {
    let mut ua = UserAgent::new(config, [7; 32], Instant::ZERO).unwrap();
    ua.start(Instant::ZERO);
    let Some(FlowAction::OpenFlow { flow, .. }) = ua.poll_action() else {
        panic!()
    };
    let names = vec!["ep.example.com".into()];
    ua.flow_opened(Instant::ZERO, flow, tuple(Transport::Tls, 40_000), names);
    let mut buf = [0; 4096];
    let sent = ua.poll_transmit(&mut buf).unwrap();
    let message = Message::parse(&buf[..sent.len], &ParseConfig::default()).unwrap();
    let register = Request::check(message, &Limits::DEFAULT).unwrap();
    let answer = Builder::reply(&register, StatusCode::OK, Some("t"))
        .copy_all(&register, Name::CONTACT)
        .header(Name::REQUIRE, "outbound")
        .finish(b"")
        .unwrap();
    ua.handle_flow_input(Instant::ZERO, flow, answer.as_bytes());
    while ua.poll_event().is_some() {}
    (ua, flow)
}

fn inbound(n: usize, method: &str, body: usize) -> String {
    let rows = format!("X: {}\r\n", long(8000)).repeat(7);
    format!(
        "{method} sip:alice@h SIP/2.0\r\nVia: SIP/2.0/TLS ep;branch=z9hG4bK{n}\r\nFrom: <sip:a@b>;tag=1\r\n\
         To: <sip:alice@b>\r\nCall-ID: c{n}{}\r\nCSeq: 1 {method}\r\nContact: <sip:a@b>\r\nMax-Forwards: 70\r\n{rows}\
         Content-Length: {body}\r\n\r\n{}",
        long(4000),
        long(body)
    )
}

// spec: SEC-G-04, SEC-G-05, SEC-G-14
#[test]
fn a_user_agent_with_every_table_full_stays_below_its_bound() {
    let config = config();
    let bound = config.max_memory();
    let mut quiet = 0;
    let used = measure(|| {
        let mut made = None;
        let small = measure(|| made = Some(registered(config)));
        quiet = small.bytes_current;
        let (mut ua, flow) = made.unwrap();
        // Requests of the other side, half of them accepted and never acknowledged.
        for n in 0..TRANSACTIONS {
            let text = inbound(n, "INVITE", 60_000);
            ua.handle_flow_input(Instant::ZERO, flow, text.as_bytes());
            if let Some(sip_outbound::UserAgentEvent::Request { id, .. }) = ua.poll_event() {
                let body = long(40_000);
                let answer =
                    ua.respond(Instant::ZERO, id, StatusCode::OK, "t", &[], body.as_bytes());
                answer.unwrap();
                while ua.poll_transmit(&mut vec![0; 200_000]).is_some() {}
            }
        }
        // Requests of the application.
        for _ in 0..TRANSACTIONS {
            let new = NewRequest::new(Method::INVITE, "sip:b@c").body("text/plain", long(60_000));
            ua.request(Instant::ZERO, new).unwrap();
            while ua.poll_transmit(&mut vec![0; 200_000]).is_some() {}
        }
        // More than is taken in, events that nobody takes, and a message without its end.
        for n in 0..100 {
            let text = inbound(1000 + n, "INVITE", 60_000);
            ua.handle_flow_input(Instant::ZERO, flow, text.as_bytes());
        }
        let text = inbound(9999, "MESSAGE", 65_000);
        ua.handle_flow_input(Instant::ZERO, flow, &text.as_bytes()[..text.len() - 1]);
        assert_eq!(ua.max_memory(), bound);
        core::mem::forget(ua);
    });
    let live = usize::try_from(used.bytes_max).unwrap();
    assert!(live <= bound && live > bound / 8, "{live} {bound}");
    assert!(quiet < 40_000, "{quiet}");
}

// spec: SEC-G-14
#[test]
fn a_host_that_takes_no_events_gets_no_more() {
    let (mut ua, flow) = registered(config());
    for n in 0..2 * TRANSACTIONS {
        let text = inbound(n, "ACK", 0);
        ua.handle_flow_input(Instant::ZERO, flow, text.as_bytes());
    }
    let events = core::iter::from_fn(|| ua.poll_event()).count();
    assert_eq!(events, TRANSACTIONS);
}

// spec: SEC-G-04
#[test]
fn the_bound_for_the_defaults_is_what_the_documentation_says() {
    let config = UserAgentConfig {
        max_transactions: 256,
        max_events: 256,
        ..config()
    };
    let bound = config.max_memory();
    assert!((375_000_000..390_000_000).contains(&bound), "{bound}");
}
