#![allow(clippy::arithmetic_side_effects, reason = "test code")]

mod agree;
mod core_side;
mod gate;
mod routing;
mod tokens;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use stun_proto::{Path, StreamId, Transport};

use super::*;
use crate::framing::{Framer, FramerConfig, Role};
use crate::wire::{Builder, Limits, Name, Request, Response, StatusCode};

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn tuple(port: u16) -> FiveTuple {
    FiveTuple {
        transport: Transport::Tls,
        local: SocketAddr::from(([192, 0, 2, 15], 443)),
        remote: SocketAddr::from(([203, 0, 113, 7], port)),
    }
}

/// An edge proxy, one client, and a core.
struct Bench {
    edge: EdgeProxy,
    now: Instant,
    client: FlowId,
    core: FlowId,
    /// What was sent, by flow; datagrams under flow 0.
    sent: Vec<(FlowId, Vec<u8>)>,
    events: Vec<EdgeEvent>,
    actions: Vec<FlowAction>,
}

fn config() -> EdgeConfig {
    let mut config = EdgeConfig::new("ep1.example.com");
    config.next_hop =
        Some(crate::wire::UriBuf::parse("sip:core.example.com;transport=tcp").unwrap());
    config
}

fn bench(config: EdgeConfig) -> Bench {
    let mut edge = EdgeProxy::new(config, [7; 32], at(0)).unwrap();
    let client = edge
        .flow_accepted(at(0), tuple(51044), Side::Access)
        .unwrap();
    let core = edge.flow_accepted(at(0), tuple(9999), Side::Core).unwrap();
    Bench {
        edge,
        now: at(0),
        client,
        core,
        sent: Vec::new(),
        events: Vec::new(),
        actions: Vec::new(),
    }
}

impl Bench {
    fn drain(&mut self) {
        let mut buf = alloc::vec![0; 70_000];
        while let Some(sent) = self.edge.poll_transmit(&mut buf) {
            let flow = match sent.to {
                Path::Stream(StreamId(id)) => FlowId(id),
                Path::Datagram(_) => FlowId(0),
            };
            self.sent.push((flow, buf[..sent.len].to_vec()));
        }
        while let Some(action) = self.edge.poll_action() {
            if let FlowAction::OpenFlow { flow, .. } = &action {
                let at = FiveTuple {
                    transport: Transport::Tcp,
                    ..tuple(5060)
                };
                self.edge.flow_opened(self.now, *flow, at);
                self.actions.push(action);
                return self.drain();
            }
            self.actions.push(action);
        }
        while let Some(event) = self.edge.poll_event() {
            self.events.push(event);
        }
        let next = self.edge.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now));
    }

    fn run_to(&mut self, ms: u64) {
        self.drain();
        while let Some(next) = self.edge.poll_timeout().filter(|next| *next <= at(ms)) {
            self.now = next;
            self.edge.handle_timeout(next);
            self.drain();
        }
        self.now = at(ms);
    }

    fn input(&mut self, flow: FlowId, bytes: impl AsRef<[u8]>) {
        self.edge.handle_flow_input(self.now, flow, bytes.as_ref());
        self.drain();
    }

    fn next(&mut self) -> (FlowId, Message) {
        let (flow, bytes) = self.sent.remove(0);
        let mut framer = Framer::new(FramerConfig::new(Role::Client), self.now);
        let mut rest = &bytes[..];
        let Some(Frame::Message(message)) = framer.next(self.now, &mut rest) else {
            panic!("{}", bytes.escape_ascii());
        };
        if !rest.is_empty() {
            self.sent.insert(0, (flow, rest.to_vec()));
        }
        (flow, message)
    }

    fn next_request(&mut self) -> (FlowId, Request) {
        let (flow, message) = self.next();
        (flow, Request::check(message, &Limits::DEFAULT).unwrap())
    }

    fn next_response(&mut self) -> (FlowId, Response) {
        let (flow, message) = self.next();
        (flow, Response::check(message, &Limits::DEFAULT).unwrap())
    }

    /// The code of the next response, which must go to this flow.
    fn code(&mut self, flow: FlowId) -> u16 {
        let (on, response) = self.next_response();
        assert_eq!(on, flow);
        response.code().number()
    }

    fn answer(&mut self, flow: FlowId, request: &Request, code: u16, rows: &[(&str, &str)]) {
        let code = StatusCode::new(code).unwrap();
        let mut builder = Builder::reply(request, code, Some("far"));
        for (name, value) in rows {
            builder = builder.header(*name, value);
        }
        let message = builder.finish(b"").unwrap();
        self.input(flow, message.as_bytes());
    }

    /// Registers the client for 10 h, through the flow of the core that is there.
    fn register_elsewhere(&mut self) {
        let text = register(1, "").replace("REGISTER sip:ims.example.com", "REGISTER sip:reg");
        self.input(self.client, text);
        let (flow, request) = self.next_request();
        let rows = [("Contact", "<sip:alice@10.7.0.9:40112>;expires=36000")];
        self.answer(flow, &request, 200, &rows);
        self.sent.clear();
        self.edge.flow_failed(self.now, flow);
        self.drain();
        self.actions.clear();
        self.events.clear();
    }

    /// Registers the client; the token in its Path.
    fn register(&mut self) -> String {
        self.input(self.client, register(1, ""));
        let (flow, request) = self.next_request();
        let rows = [
            (
                "Contact",
                "<sip:alice@10.7.0.9:40112>;reg-id=1;expires=3600",
            ),
            ("Require", "outbound"),
            ("Service-Route", "<sip:scscf.example.com;lr>"),
        ];
        self.answer(flow, &request, 200, &rows);
        assert_eq!(self.code(self.client), 200);
        let path = request.only(Name::PATH).unwrap();
        String::from(
            path.split(['<', '@'])
                .nth(1)
                .unwrap()
                .trim_start_matches("sip:"),
        )
    }
}

fn text(method: &str, uri: &str, rows: &str) -> String {
    alloc::format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9:40112;branch=z9hG4bK{method};rport;keep\r\n\
         From: <sip:alice@ims.example.com>;tag=1\r\nTo: <sip:bob@ims.example.com>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\
         Max-Forwards: 70\r\n{rows}Content-Length: 0\r\n\r\n"
    )
}

fn register(cseq: u32, rows: &str) -> String {
    alloc::format!(
        "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9:40112;branch=z9hG4bKr{cseq};rport;keep\r\n\
         Route: <sip:ep1.example.com;lr>\r\nFrom: <sip:alice@ims.example.com>;tag=1\r\nTo: <sip:alice@ims.example.com>\r\n\
         Call-ID: c\r\nCSeq: {cseq} REGISTER\r\nSupported: path, outbound\r\n\
         Contact: <sip:alice@10.7.0.9:40112>;reg-id=1;+sip.instance=\"<urn:uuid:x>\"\r\n{rows}Content-Length: 0\r\n\r\n"
    )
}
