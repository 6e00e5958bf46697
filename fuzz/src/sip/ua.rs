//! The user agent as the contract checker sees it, together with what its host keeps: how much
//! each connection takes.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use sip_outbound::wire::{Method, StatusCode};
use sip_outbound::{
    FlowAction, FlowId, Instant, MAX_TRANSMIT, NewRequest, RequestError, RequestId, ServerId,
    UserAgent, UserAgentEvent,
};
use stun_proto::FiveTuple;

use crate::contract::Machine;
use crate::pieces::{Octets, pieces};
use crate::sim::Choices;

/// What goes into a user agent.
#[derive(Clone, Debug)]
pub enum UserAgentIn {
    /// The application starts it.
    Start,
    /// The application ends it.
    Stop,
    /// A flow is open, with what the peer has proven to be; a stream takes so many bytes at first.
    Opened(FlowId, FiveTuple, Vec<String>, usize),
    /// A flow could not be opened, or broke.
    Failed(FlowId),
    /// The other side has closed a flow.
    Closed(FlowId),
    /// Bytes of a stream.
    Bytes(FlowId, Octets),
    /// A datagram.
    Datagram(FlowId, Octets),
    /// A stream takes so many bytes more.
    Room(FlowId, usize),
    /// The application sends a request.
    Request(NewRequest),
    /// The application gives a request up.
    Cancel(RequestId),
    /// The application answers a request.
    Respond(ServerId, StatusCode),
}

/// What comes out of a user agent.
#[derive(Clone, Debug, PartialEq)]
pub enum UserAgentOut {
    /// Bytes of a stream.
    Bytes(FlowId, Octets),
    /// A datagram.
    Datagram(FlowId, Octets),
    /// What the host must do.
    Action(FlowAction),
    /// An event.
    Event(Told),
    /// What became of a request of the application.
    Requested(Result<RequestId, RequestError>),
    /// What became of another command.
    Done(Result<(), RequestError>),
}

/// An event; two are the same if they say the same to the byte.
#[derive(Clone, Debug)]
pub struct Told(pub UserAgentEvent);

impl Told {
    fn message(&self) -> &[u8] {
        match &self.0 {
            UserAgentEvent::Response { response, .. } => response.as_bytes(),
            UserAgentEvent::Request { request, .. } | UserAgentEvent::Ack { request, .. } => {
                request.as_bytes()
            }
            _ => &[],
        }
    }
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.message() == other.message() && format!("{:?}", self.0) == format!("{:?}", other.0)
    }
}

/// How bytes get to the other end of a flow.
#[derive(Clone, Copy, Debug)]
enum Way {
    Datagram,
    Stream { room: usize },
}

/// A user agent.
#[derive(Debug)]
pub struct UserAgentMachine {
    /// The machine.
    pub ua: UserAgent,
    ways: BTreeMap<FlowId, Way>,
    buf: Vec<u8>,
}

impl UserAgentMachine {
    /// Around a machine that has no flows yet.
    pub fn new(ua: UserAgent) -> Self {
        Self {
            ua,
            ways: BTreeMap::new(),
            buf: vec![0; MAX_TRANSMIT],
        }
    }

    fn transmit(&mut self, room: usize) -> Option<UserAgentOut> {
        let flows: Vec<_> = self.ua.writable().collect();
        for flow in flows {
            let way = self.ways.get_mut(&flow).expect("a flow that is open");
            match way {
                Way::Datagram => {
                    let len = self.ua.poll_flow(flow, &mut self.buf);
                    let len = len.expect("a flow that is writable has something to send");
                    return Some(UserAgentOut::Datagram(
                        flow,
                        Octets(self.buf[..len].to_vec()),
                    ));
                }
                Way::Stream { room: left } => {
                    let most = room.min(*left).min(self.buf.len());
                    if most == 0 {
                        continue;
                    }
                    let len = self.ua.poll_flow(flow, &mut self.buf[..most]);
                    let len = len.expect("a flow that is writable has something to send");
                    assert!(len > 0 && len <= most, "a transmit of {len}");
                    *left -= len;
                    return Some(UserAgentOut::Bytes(flow, Octets(self.buf[..len].to_vec())));
                }
            }
        }
        None
    }
}

impl Machine for UserAgentMachine {
    type Input = UserAgentIn;
    type Output = UserAgentOut;

    fn input(&mut self, now: Instant, input: &UserAgentIn, out: &mut Vec<UserAgentOut>) {
        let ua = &mut self.ua;
        match input {
            UserAgentIn::Start => ua.start(now),
            UserAgentIn::Stop => ua.stop(now),
            UserAgentIn::Opened(flow, at, names, room) => {
                let way = if at.transport.is_stream() {
                    Way::Stream { room: *room }
                } else {
                    Way::Datagram
                };
                self.ways.insert(*flow, way);
                ua.flow_opened(now, *flow, *at, names.clone());
            }
            UserAgentIn::Failed(flow) => ua.flow_failed(now, *flow),
            UserAgentIn::Closed(flow) => ua.handle_flow_closed(now, *flow),
            UserAgentIn::Bytes(flow, data) | UserAgentIn::Datagram(flow, data) => {
                ua.handle_flow_input(now, *flow, &data.0);
            }
            UserAgentIn::Room(flow, more) => {
                // Polling starts timers, so the machine must know the time.
                ua.handle_timeout(now);
                if let Some(Way::Stream { room }) = self.ways.get_mut(flow) {
                    *room = room.saturating_add(*more);
                }
            }
            UserAgentIn::Request(new) => {
                out.push(UserAgentOut::Requested(ua.request(now, new.clone())));
            }
            UserAgentIn::Cancel(request) => {
                out.push(UserAgentOut::Done(ua.cancel(now, *request)));
            }
            UserAgentIn::Respond(id, code) => {
                let done = ua.respond(now, *id, *code, "ua", &[], b"");
                out.push(UserAgentOut::Done(done));
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.ua.handle_timeout(now);
    }

    fn poll(&mut self, room: usize) -> Option<UserAgentOut> {
        if let Some(sent) = self.transmit(room) {
            return Some(sent);
        }
        if let Some(action) = self.ua.poll_action() {
            return Some(UserAgentOut::Action(action));
        }
        let event = self.ua.poll_event()?;
        Some(UserAgentOut::Event(Told(event)))
    }

    fn deadline(&self) -> Option<Instant> {
        self.ua.poll_timeout()
    }

    fn is_terminal(output: &UserAgentOut) -> bool {
        matches!(output, UserAgentOut::Event(Told(UserAgentEvent::Stopped)))
    }

    fn is_silence(output: &UserAgentOut) -> bool {
        matches!(
            output,
            UserAgentOut::Requested(Err(_)) | UserAgentOut::Done(Err(_))
        )
    }

    fn merge(into: &mut UserAgentOut, next: &UserAgentOut) -> bool {
        match (into, next) {
            (UserAgentOut::Bytes(flow, into), UserAgentOut::Bytes(also, next)) if flow == also => {
                into.0.extend_from_slice(&next.0);
                true
            }
            _ => false,
        }
    }

    fn lane(output: &UserAgentOut) -> u64 {
        match output {
            UserAgentOut::Action(_) => 0,
            UserAgentOut::Event(_) => 1,
            UserAgentOut::Requested(_) | UserAgentOut::Done(_) => 2,
            UserAgentOut::Bytes(flow, _) | UserAgentOut::Datagram(flow, _) => 3 + flow.0,
        }
    }

    fn cut(input: &UserAgentIn, choices: &mut Choices) -> Vec<UserAgentIn> {
        match input {
            UserAgentIn::Bytes(flow, bytes) => pieces(&bytes.0, choices)
                .into_iter()
                .map(|piece| UserAgentIn::Bytes(*flow, Octets(piece)))
                .collect(),
            _ => Vec::from([input.clone()]),
        }
    }

    fn noise(&self, choices: &mut Choices) -> Option<UserAgentIn> {
        let nobody = FlowId(u64::MAX);
        Some(match choices.below(6) {
            0 => UserAgentIn::Bytes(nobody, Octets(b"\r\n\r\nSIP".to_vec())),
            1 => UserAgentIn::Failed(nobody),
            2 => UserAgentIn::Closed(nobody),
            3 => UserAgentIn::Request(NewRequest::new(Method::REGISTER, "sip:example.com")),
            4 => UserAgentIn::Request(NewRequest::new(Method::OPTIONS, "not a URI")),
            _ => {
                // Datagrams that are nobody's.
                let mut ways = self.ways.iter();
                let (flow, _) = ways.find(|(_, way)| matches!(way, Way::Datagram))?;
                let junk: &[u8] = match choices.below(4) {
                    0 => b"\r\n\r\n",
                    1 => b"junk",
                    2 => b"\x01\x01\0\0\x21\x12\xa4\x42............",
                    _ => STRAY,
                };
                UserAgentIn::Datagram(*flow, Octets(junk.to_vec()))
            }
        })
    }
}

/// A response to nothing.
pub(super) const STRAY: &[u8] =
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKstray\r\n\
    From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: stray\r\nCSeq: 1 REGISTER\r\n\r\n";
