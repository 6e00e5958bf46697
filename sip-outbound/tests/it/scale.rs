//! Work does not grow with the number of flows and bindings: ten against ten thousand of them.

use std::time::Instant as Clock;

use sip_outbound::wire::{Limits, Message, ParseConfig, Request};
use sip_outbound::{
    ClientTransactions, EdgeConfig, EdgeProxy, FlowAction, FlowId, Instant, Registrar,
    RegistrarConfig, Side, Timings,
};
use stun_proto::{FiveTuple, Path, StreamId, Transport};

use super::reversed;

const FEW: u64 = 10;
const MANY: u64 = 10_000;

/// A search through all would take at least 24 times as long, a tree takes three times at most.
const FACTOR: u32 = 12;

fn request(method: &str, n: u64, rows: &str) -> String {
    format!(
        "{method} sip:u{n}@ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9;branch=z9hG4bK{method}{n}\r\n\
         From: <sip:u{n}@ims.example.com>;tag=1\r\nTo: <sip:u{n}@ims.example.com>\r\nCall-ID: c{n}\r\n\
         CSeq: 1 {method}\r\nMax-Forwards: 70\r\n{rows}Content-Length: 0\r\n\r\n"
    )
}

fn checked(text: &str) -> Request {
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    Request::check(message, &Limits::DEFAULT).unwrap()
}

fn tuple(port: u16) -> FiveTuple {
    reversed(super::tuple(Transport::Tls, port))
}

/// The shortest of several runs of some work.
fn shortest<M>(machine: &mut M, mut work: impl FnMut(&mut M, u64)) -> u32 {
    let mut run = |round: u64| {
        let start = Clock::now();
        for step in 0..20 {
            work(machine, round * 20 + step);
        }
        u32::try_from(start.elapsed().as_nanos()).unwrap()
    };
    (0..20).map(&mut run).min().unwrap()
}

fn check(what: &str, few: u32, many: u32) {
    assert!(many < few * FACTOR, "{what}: {few} ns, {many} ns");
}

/// An edge proxy with so many flows, each with an open request.
fn edge(flows: u64) -> (EdgeProxy, FlowId) {
    let mut config = EdgeConfig::new("ep.example.com");
    config.next_hop = Some("sip:core.example.com;transport=tcp".parse().unwrap());
    config.max_server_transactions = 100_000;
    config.max_client_transactions = 100_000;
    config.max_flows = 20_000;
    let mut edge = EdgeProxy::new(config, [7; 32], Instant::ZERO).unwrap();
    let mut last = FlowId(0);
    for n in 0..flows {
        last = edge
            .flow_accepted(Instant::ZERO, tuple(n as u16), Side::Access)
            .unwrap();
        let text = request("OPTIONS", n, "");
        edge.handle_flow_input(Instant::ZERO, last, text.as_bytes());
        while let Some(action) = edge.poll_action() {
            if let FlowAction::OpenFlow { flow, .. } = action {
                edge.flow_opened(Instant::ZERO, flow, super::tuple(Transport::Tcp, 5060));
            }
        }
        while edge.poll_transmit(&mut [0; 4096]).is_some() {}
    }
    (edge, last)
}

// spec: SEC-G-06
#[test]
fn an_edge_proxy_works_as_fast_with_many_flows_as_with_few() {
    type Work = fn(&mut EdgeProxy, FlowId, u64);
    let works: [(&str, Work); 5] = [
        ("ping and pong", |edge, last, step| {
            let flow = FlowId(last.0 - step);
            edge.handle_flow_input(Instant::ZERO, flow, b"\r\n\r\n");
            assert!(edge.poll_flow(flow, &mut [0; 4096]).is_some());
        }),
        ("request and answer", |edge, last, step| {
            // Refused here, so that no transactions are left behind.
            let text = request("OPTIONS", 1_000_000 + step, "").replace(": 70", ": 0");
            edge.handle_flow_input(Instant::ZERO, last, text.as_bytes());
            assert!(edge.poll_flow(last, &mut [0; 4096]).is_some());
        }),
        ("timeout", |edge, _, _| {
            edge.handle_timeout(Instant::ZERO);
            let _ = edge.writable().next();
        }),
        ("output of any flow", |edge, last, step| {
            edge.handle_flow_input(Instant::ZERO, FlowId(last.0 - step), b"\r\n\r\n");
            assert!(edge.poll_transmit(&mut [0; 4096]).is_some());
        }),
        ("end of a flow", |edge, last, step| {
            edge.flow_failed(Instant::ZERO, FlowId(last.0 - step));
        }),
    ];
    // The last work ends 400 flows.
    let (mut few, mut many) = (edge(FEW + 400), edge(MANY));
    for (what, work) in works {
        let time = |(edge, last): &mut (EdgeProxy, FlowId)| {
            let last = *last;
            shortest(edge, |edge, step| work(edge, last, step))
        };
        check(what, time(&mut few), time(&mut many));
    }
}

// spec: SEC-G-06
#[test]
fn a_lost_path_costs_what_was_on_it() {
    let time = |count| {
        let mut machine = ClientTransactions::new(Timings::RFC3261, 1_000_000, Instant::ZERO);
        for n in 0..count + 400 {
            let request = checked(&request("OPTIONS", n, ""));
            let path = Path::Stream(StreamId(n));
            machine.send(Instant::ZERO, path, request).unwrap();
        }
        shortest(&mut machine, |machine, step| {
            let lost = machine.path_failed(Path::Stream(StreamId(count + step)));
            assert_eq!(lost.len(), 1);
        })
    };
    check("path failed", time(FEW), time(MANY));
}

// spec: SEC-G-06
#[test]
fn a_closed_flow_costs_the_registrar_what_was_on_it() {
    let time = |count| {
        let config = RegistrarConfig {
            digest: None,
            max_events: 100_000,
            ..RegistrarConfig::new("ims.example.com")
        };
        let mut registrar = Registrar::new(config, [7; 32], Instant::ZERO).unwrap();
        for n in 0..count + 400 {
            let rows = format!(
                "Contact: <sip:u@h>;reg-id=1;+sip.instance=\"<urn:uuid:{n}>\"\r\nSupported: path, outbound, gruu\r\n"
            );
            let register = checked(&request("REGISTER", n, &rows));
            let flow = Some(FlowId(n));
            registrar.handle_register(Instant::ZERO, flow, &register);
        }
        assert_eq!(registrar.len() as u64, count + 400);
        shortest(&mut registrar, |registrar, step| {
            registrar.flow_closed(Instant::ZERO, FlowId(count + step));
        })
    };
    check("flow closed", time(FEW), time(MANY));
}
