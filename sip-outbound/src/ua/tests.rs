#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod agree;
mod calls;
mod flows;
mod golden;
mod idle;
mod storms;
mod ways;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use stun_proto::{FiveTuple, Transport};

use super::*;
use crate::digest::Account;
use crate::wire::{Builder, Limits, Message, Method, Name, Request, StatusCode};

const URN: &str = "urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee";

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn uri(text: &str) -> UriBuf {
    UriBuf::parse(text).unwrap()
}

fn config(proxies: usize) -> UserAgentConfig {
    let proxies = (1..=proxies)
        .map(|n| uri(&alloc::format!("sips:ep{n}.example.com")))
        .collect();
    let instance = InstanceId::new(URN).unwrap();
    let mut config = UserAgentConfig::new(uri("sip:alice@ims.example.com"), instance, proxies);
    config.accounts = alloc::vec![Account::new(
        "alice@ims.example.com",
        "secret",
        "ims.example.com"
    )];
    // A network that bears any silence; how that is found out has tests of its own.
    config.keep_alive.first = Duration::from_secs(86_400);
    config
}

fn tuple(transport: Transport, host: u8) -> FiveTuple {
    FiveTuple {
        transport,
        local: SocketAddr::from(([10, 7, 0, 9], 40112)),
        remote: SocketAddr::from(([203, 0, 113, host], 443)),
    }
}

/// A user agent, and what it has said.
struct Bench {
    ua: UserAgent,
    now: Instant,
    transport: Transport,
    /// Everything that was sent, by flow, not yet looked at.
    sent: Vec<(FlowId, Vec<u8>)>,
    events: Vec<UserAgentEvent>,
    actions: Vec<FlowAction>,
    /// What becomes of the ping that follows the first 200 on a flow.
    first_ping: FirstPing,
    pinged: Vec<FlowId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstPing {
    /// It is answered, and not shown.
    Answered,
    /// It is among what was sent.
    Shown,
}

fn bench(config: UserAgentConfig) -> Bench {
    seeded(config, 7)
}

fn seeded(config: UserAgentConfig, seed: u8) -> Bench {
    Bench {
        ua: UserAgent::new(config, [seed; 32], at(0)).unwrap(),
        now: at(0),
        transport: Transport::Tls,
        sent: Vec::new(),
        events: Vec::new(),
        actions: Vec::new(),
        first_ping: FirstPing::Answered,
        pinged: Vec::new(),
    }
}

impl Bench {
    fn drain(&mut self) {
        let mut buf = [0; 65_535];
        while let Some(sent) = self.ua.poll_transmit(&mut buf) {
            let bytes = &buf[..sent.len];
            let first = bytes == b"\r\n\r\n"
                && !self.pinged.contains(&sent.to)
                && self.ua.reg_id(sent.to).is_some();
            if first && self.first_ping == FirstPing::Answered {
                self.pinged.push(sent.to);
                self.ua.handle_flow_input(self.now, sent.to, b"\r\n");
            } else {
                self.sent.push((sent.to, bytes.to_vec()));
            }
        }
        while let Some(action) = self.ua.poll_action() {
            self.actions.push(action);
        }
        while let Some(event) = self.ua.poll_event() {
            self.events.push(event);
        }
        let next = self.ua.poll_timeout();
        assert!(
            next.is_none_or(|next| next > self.now),
            "{next:?} {:?}",
            self.now
        );
    }

    /// Lets time pass until something happens, or until `ms`.
    fn run_to(&mut self, ms: u64) {
        self.drain();
        while let Some(next) = self.ua.poll_timeout().filter(|next| *next <= at(ms)) {
            self.now = next;
            self.ua.handle_timeout(next);
            self.drain();
        }
        self.now = at(ms);
    }

    fn ms(&self) -> u64 {
        self.now.duration_since(at(0)).as_millis() as u64
    }

    fn run_for(&mut self, ms: u64) {
        self.run_to(self.ms() + ms);
    }

    fn start(&mut self) -> Vec<FlowId> {
        self.ua.start(self.now);
        self.open()
    }

    /// Opens whatever is asked for.
    fn open(&mut self) -> Vec<FlowId> {
        self.drain();
        let opened: Vec<_> = self
            .actions
            .drain(..)
            .filter_map(|action| match action {
                FlowAction::OpenFlow { flow, target } => Some((flow, target)),
                FlowAction::CloseFlow { .. } => None,
            })
            .collect();
        for (flow, target) in &opened {
            let host = target.verify_name().as_bytes()[2] - b'0';
            let names = alloc::vec![String::from(target.verify_name()), "ims.example.com".into()];
            let tuple = tuple(self.transport, host);
            self.ua.flow_opened(self.now, *flow, tuple, names);
        }
        self.drain();
        opened.into_iter().map(|(flow, _)| flow).collect()
    }

    /// The next message that was sent.
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

    fn input(&mut self, flow: FlowId, bytes: &[u8]) {
        self.ua.handle_flow_input(self.now, flow, bytes);
        self.drain();
    }

    fn answer(&mut self, flow: FlowId, request: &Request, code: u16, rows: &[(&str, &str)]) {
        let code = StatusCode::new(code).unwrap();
        let mut builder = Builder::reply(request, code, Some("server"));
        for (name, value) in rows {
            builder = builder.header(*name, value);
        }
        let message = builder.finish(b"").unwrap();
        self.input(flow, message.as_bytes());
    }

    /// Answers the next REGISTER as a registrar with outbound does.
    fn accept(&mut self, rows: &[(&str, &str)]) -> FlowId {
        let (flow, request) = self.next_request();
        assert_eq!(request.method(), &Method::REGISTER);
        let contact = request.only(Name::CONTACT).unwrap();
        let mut all = alloc::vec![("Contact", contact), ("Require", "outbound")];
        all.extend_from_slice(rows);
        self.answer(flow, &request, 200, &all);
        flow
    }

    /// Starts, and registers all flows.
    fn registered(config: UserAgentConfig, rows: &[(&str, &str)]) -> (Self, Vec<FlowId>) {
        bench(config).register(rows)
    }

    fn register(mut self, rows: &[(&str, &str)]) -> (Self, Vec<FlowId>) {
        let flows = self.start();
        for _ in &flows {
            self.accept(rows);
        }
        self.events.clear();
        (self, flows)
    }

    /// The kinds of events since the last call.
    fn kinds(&mut self) -> String {
        let kinds: Vec<_> = self
            .events
            .drain(..)
            .map(|event| {
                let text = alloc::format!("{event:?}");
                String::from(text.split([' ', '(', '{']).next().unwrap())
            })
            .collect();
        kinds.join(" ")
    }

    fn refusal(&mut self) -> Option<Refusal> {
        self.events.drain(..).find_map(|event| match event {
            UserAgentEvent::Refused { cause, .. } => Some(cause),
            _ => None,
        })
    }

    /// The last flow failure: cause and wait.
    fn failure(&mut self) -> Option<(FlowFailure, Option<Duration>)> {
        let found = self.events.iter().rev().find_map(|event| match event {
            UserAgentEvent::FlowFailed {
                cause, retry_in, ..
            } => Some((*cause, *retry_in)),
            _ => None,
        });
        self.events.clear();
        found
    }

    fn closed(&mut self, flow: FlowId) -> bool {
        self.actions.contains(&FlowAction::CloseFlow { flow })
    }
}
