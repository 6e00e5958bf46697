//! No table grows beyond what `max_memory` says, with every one full.

use allocation_counter::measure;
use sip_outbound::wire::{Limits, Message, ParseConfig, Request};
use sip_outbound::{
    EdgeConfig, EdgeProxy, FlowAction, FlowId, Instant, RegisterStep, Registrar, RegistrarConfig,
    Side,
};
use stun_proto::Transport;

use super::{reversed, tuple};

/// Some bytes of a name.
fn long(len: usize) -> String {
    "x".repeat(len)
}

/// A head of nearly 64 KiB in fields of nearly 8 KiB.
fn rows() -> String {
    let row = format!("X: {}\r\n", long(8000));
    row.repeat(7)
}

fn message(method: &str, n: usize, rows: &str, body: usize) -> String {
    format!(
        "{method} sip:{}@ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9;branch=z9hG4bK{method}{n}\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:alice{n}@ims.example.com>\r\nCall-ID: c{n}{}\r\nCSeq: 1 {method}\r\n\
         Supported: path, outbound, gruu\r\nMax-Forwards: 70\r\n{}Content-Length: {body}\r\n\r\n{}",
        long(900),
        long(4000),
        rows,
        long(body)
    )
}

fn checked(text: &str) -> Request {
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    Request::check(message, &Limits::DEFAULT).unwrap()
}

const FLOWS: usize = 30;

fn edge_config() -> EdgeConfig {
    EdgeConfig {
        next_hop: Some("sip:core.example.com;transport=tcp".parse().unwrap()),
        max_flows: FLOWS,
        max_events: 10,
        max_server_transactions: FLOWS,
        max_client_transactions: FLOWS,
        max_datagrams: 20,
        max_waiting: 20,
        max_core_flows: 1,
        ..EdgeConfig::new("ep.example.com")
    }
}

/// Registers a flow; the machine at the other end of the core says yes to everything.
fn register(edge: &mut EdgeProxy, flow: FlowId, n: usize) {
    let user = format!("alice{n}{}", long(700));
    let text = format!(
        "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9;branch=z9hG4bKr{n}\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:{user}@ims.example.com>\r\nCall-ID: c{n}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:a@h>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    edge.handle_flow_input(Instant::ZERO, flow, text.as_bytes());
    while let Some(action) = edge.poll_action() {
        if let FlowAction::OpenFlow { flow, .. } = action {
            edge.flow_opened(Instant::ZERO, flow, tuple(Transport::Tcp, 5060));
        }
    }
    let mut buf = vec![0; 70_000];
    let core = edge.writable().next().unwrap();
    let len = edge.poll_flow(core, &mut buf).unwrap();
    let request = checked(core::str::from_utf8(&buf[..len]).unwrap());
    let routes = vec![format!("<sip:s{}@core.example.com;lr>", long(900)); 16].join(", ");
    let answer =
        sip_outbound::wire::Builder::reply(&request, sip_outbound::wire::StatusCode::OK, Some("t"))
            .header("Contact", "<sip:a@h>;expires=3600")
            .header("Service-Route", &routes[..7000])
            .header("Service-Route", &routes[7000 - 7000 % 930..14_000])
            .finish(b"")
            .unwrap();
    edge.handle_flow_input(Instant::ZERO, core, answer.as_bytes());
    edge.poll_flow(flow, &mut buf).unwrap();
    while edge.poll_event().is_some() {}
}

// spec: SEC-G-04, SEC-G-05
#[test]
fn an_edge_proxy_with_every_table_full_stays_below_its_bound() {
    let config = edge_config();
    let bound = config.max_memory();
    let mut quiet = 0;
    let used = measure(|| {
        let mut edge = EdgeProxy::new(config, [7; 32], Instant::ZERO).unwrap();
        let mut flows = Vec::new();
        let small = measure(|| {
            for n in 0..FLOWS {
                let at = reversed(tuple(Transport::Tls, n as u16));
                let flow = edge.flow_accepted(Instant::ZERO, at, Side::Access);
                flows.push(flow.unwrap());
                register(&mut edge, flows[n], n);
            }
        });
        quiet = usize::try_from(small.bytes_current).unwrap() / FLOWS;
        let rows = rows();
        // Requests that nobody answers.
        for (n, flow) in flows.iter().enumerate() {
            let method = if n % 2 == 0 { "INVITE" } else { "MESSAGE" };
            let text = message(method, n, &rows, 65_000);
            edge.handle_flow_input(Instant::ZERO, *flow, text.as_bytes());
            while edge.poll_transmit(&mut vec![0; 140_000]).is_some() {}
        }
        // Answers that nobody takes, and the longest message but for its last byte.
        for (n, flow) in flows.iter().enumerate() {
            for m in 0..40 {
                let text = message("OPTIONS", 1000 + n * 100 + m, "", 0);
                edge.handle_flow_input(Instant::ZERO, *flow, text.as_bytes());
            }
            let text = message("MESSAGE", 100 + n, &rows, 65_000);
            edge.handle_flow_input(Instant::ZERO, *flow, &text.as_bytes()[..text.len() - 1]);
        }
        for n in 0..40 {
            let at = reversed(tuple(Transport::Udp, 1000 + n));
            let text = message("OPTIONS", 100_000 + usize::from(n), "", 0);
            edge.handle_datagram(Instant::ZERO, at, text.as_bytes());
        }
        assert_eq!(
            (edge.flow_count(), edge.writable().count()),
            (FLOWS + 1, FLOWS)
        );
        assert_eq!(edge.max_memory(), bound);
        core::mem::forget(edge);
    });
    let live = usize::try_from(used.bytes_max).unwrap();
    assert!(live <= bound && live > bound / 4, "{live} {bound}");
    assert!(quiet < 24_000, "{quiet}");
}

// spec: SEC-G-04, SEC-G-05
#[test]
fn a_registrar_with_every_table_full_stays_below_its_bound() {
    let config = RegistrarConfig {
        digest: None,
        max_total: 80,
        max_events: 2000,
        max_pending: 1,
        ..RegistrarConfig::new("ims.example.com")
    };
    let bound = config.max_memory();
    let used = measure(|| {
        let mut registrar = Registrar::new(config, [7; 32], Instant::ZERO).unwrap();
        for user in 0..8 {
            for device in 0..12 {
                for cseq in 1..20 {
                    let name = format!("u{user}{}", long(900));
                    let text = format!(
                        "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\n\
                         From: <sip:a@b>;tag=1\r\nTo: <sip:{name}@ims.example.com>\r\nCall-ID: {device}{}\r\nCSeq: {cseq} REGISTER\r\n\
                         Contact: <sip:a@h>;reg-id=1;+sip.instance=\"<urn:uuid:{device}>\";x={}\r\n\
                         Supported: path, outbound, gruu\r\n\r\n",
                        long(1500),
                        long(2400)
                    );
                    let flow = Some(FlowId(1));
                    let step = registrar.handle_register(Instant::ZERO, flow, &checked(&text));
                    let RegisterStep::Respond(_) = step else {
                        panic!()
                    };
                }
            }
        }
        assert_eq!(registrar.len(), 80);
        assert_eq!(registrar.max_memory(), bound);
        core::mem::forget(registrar);
    });
    let live = usize::try_from(used.bytes_max).unwrap();
    assert!(live <= bound && live > bound / 8, "{live} {bound}");
}

// spec: SEC-G-04
#[test]
fn the_bounds_for_the_defaults_are_what_the_documentation_says() {
    let edge = EdgeConfig::new("ep.example.com").max_memory();
    let registrar = RegistrarConfig::new("b").max_memory();
    assert!((8_100_000_000..8_300_000_000).contains(&edge), "{edge}");
    assert!(
        (1_950_000_000..2_050_000_000).contains(&registrar),
        "{registrar}"
    );
}
