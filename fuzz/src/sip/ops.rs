//! Entry functions for the machines of SIP Outbound: any bytes are a run.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use sip_outbound::wire::{Method, Name, StatusCode, UriBuf};
use sip_outbound::{
    Account, EdgeConfig, EdgeProxy, FlowAction, FlowId, InstanceId, Instant, NewRequest, NextHop,
    Profile, RequestId, ServerId, Side, UserAgent, UserAgentConfig, UserAgentEvent,
};
use stun_proto::{FiveTuple, Transport};

use super::speech::{answer, damage, noise, request, visit};
use super::{EdgeIn, EdgeMachine, EdgeOut, Told, UserAgentIn, UserAgentMachine, UserAgentOut};
use crate::contract::Checked;
use crate::pieces::Octets;
use crate::sim::Choices;

/// Messages remembered.
const MAX_SEEN: usize = 24;

/// Steps of one run.
const MAX_STEPS: usize = 200;

fn uri(text: &str) -> UriBuf {
    UriBuf::parse(text).expect("a URI")
}

fn tuple(transport: Transport, port: u16) -> FiveTuple {
    FiveTuple {
        transport,
        local: ([192, 0, 2, 10], port).into(),
        remote: ([203, 0, 113, 1], 443).into(),
    }
}

fn agent(ims: bool) -> UserAgent {
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee");
    let proxies = vec![uri("sip:ep1.example.com"), uri("sip:ep2.example.com")];
    let aor = uri("sip:alice@example.com");
    let mut config = UserAgentConfig::new(aor, instance.expect("an instance"), proxies);
    config.accounts = vec![Account::new("alice", "secret", "example.com")];
    config.max_unsent = 4000;
    config.max_transactions = 8;
    if ims {
        config.profile = Profile::Ims;
    }
    let agent = UserAgent::new(config, [7; 32], Instant::ZERO);
    agent.expect("the configuration is good")
}

/// What the run remembers of a user agent's outputs.
#[derive(Default)]
struct AgentLog {
    asked: Vec<FlowId>,
    open: Vec<(FlowId, Transport)>,
    sent: Vec<Vec<u8>>,
    requests: Vec<RequestId>,
    calls: Vec<ServerId>,
}

impl AgentLog {
    fn note(&mut self, output: UserAgentOut) {
        match output {
            UserAgentOut::Bytes(_, bytes) | UserAgentOut::Datagram(_, bytes) => {
                if self.sent.len() == MAX_SEEN {
                    self.sent.remove(0);
                }
                self.sent.push(bytes.0);
            }
            UserAgentOut::Action(FlowAction::OpenFlow { flow, .. }) => self.asked.push(flow),
            UserAgentOut::Action(FlowAction::CloseFlow { flow }) => {
                self.asked.retain(|asked| *asked != flow);
                self.open.retain(|(open, _)| *open != flow);
            }
            UserAgentOut::Event(Told(UserAgentEvent::Request { id, .. })) => self.calls.push(id),
            UserAgentOut::Requested(Ok(id)) => self.requests.push(id),
            UserAgentOut::Event(_) | UserAgentOut::Requested(_) | UserAgentOut::Done(_) => {}
        }
    }

    /// What may come over a flow.
    fn speech(&self, choices: &mut Choices) -> Vec<u8> {
        let bytes = match choices.below(8) {
            0 => noise(choices),
            1 => visit(choices, &[]),
            2 => b"\r\n".to_vec(),
            _ => {
                // The last request is the one most likely to be open.
                let last = choices.index(self.sent.len().clamp(1, 3));
                let asked = self.sent.iter().rev().nth(last);
                let asked = asked.and_then(|bytes| request(bytes));
                let said = asked.and_then(|asked| answer(choices, &asked));
                said.unwrap_or_else(|| noise(choices))
            }
        };
        damage(choices, bytes)
    }
}

/// A user agent under operations drawn from the bytes.
pub fn ops_sip_agent(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let ims = choices.flip();
    let mut now = Instant::ZERO;
    let mut machine = Checked::new("user agent", now, move || UserAgentMachine::new(agent(ims)));
    let mut log = AgentLog::default();
    let mut port = 40_000;
    let mut steps = 0;
    for output in machine.input(now, UserAgentIn::Start) {
        log.note(output);
    }
    while !choices.is_spent() && steps < MAX_STEPS {
        steps += 1;
        let longest = *choices.pick(&[0, 0, 0, 1, 40, 2000]);
        now += choices.duration(Duration::from_secs(longest));
        let input = agent_step(&mut choices, &mut log, &mut port);
        let outputs = match input {
            Some(input) => machine.input(now, input),
            None => machine.timeout(now),
        };
        for output in outputs {
            log.note(output);
        }
    }
    machine.finish(&mut choices);
}

fn agent_step(choices: &mut Choices, log: &mut AgentLog, port: &mut u16) -> Option<UserAgentIn> {
    let open = if log.open.is_empty() {
        None
    } else {
        Some(*choices.pick(&log.open))
    };
    Some(match (choices.below(16), open) {
        (0..=2, _) if !log.asked.is_empty() => {
            let flow = log.asked.remove(choices.index(log.asked.len()));
            let transport = *choices.pick(&[Transport::Tls, Transport::Tcp, Transport::Udp]);
            *port = port.saturating_add(1);
            log.open.push((flow, transport));
            let names = if choices.flip() {
                vec![String::from("example.com")]
            } else {
                vec![]
            };
            let room = *choices.pick(&[100_000, 500]);
            UserAgentIn::Opened(flow, tuple(transport, *port), names, room)
        }
        (3, _) if !log.asked.is_empty() => {
            UserAgentIn::Failed(log.asked.remove(choices.index(log.asked.len())))
        }
        (4, Some((flow, _))) => UserAgentIn::Failed(flow),
        (5, Some((flow, _))) => UserAgentIn::Closed(flow),
        (6, Some((flow, _))) => UserAgentIn::Room(flow, choices.index(3000)),
        (7, _) => {
            let method = [Method::MESSAGE, Method::INVITE, Method::REGISTER];
            let mut new = NewRequest::new(choices.pick(&method).clone(), "sip:bob@example.com");
            if choices.chance(200) {
                new.next_hop = NextHop::Resolved {
                    uri: uri("sip:next.example.com"),
                    address: (Transport::Tcp, ([192, 0, 2, 50], 5060).into()),
                };
            }
            UserAgentIn::Request(new)
        }
        (8, _) if !log.requests.is_empty() => UserAgentIn::Cancel(*choices.pick(&log.requests)),
        (9, _) if !log.calls.is_empty() => {
            let code = *choices.pick(&[100, 180, 200, 408, 486]);
            UserAgentIn::Respond(*choices.pick(&log.calls), StatusCode::new(code)?)
        }
        (10, _) if choices.chance(60) => UserAgentIn::Stop,
        (11.., Some((flow, transport))) => {
            let bytes = log.speech(choices);
            if transport.is_stream() {
                UserAgentIn::Bytes(flow, Octets(bytes))
            } else {
                UserAgentIn::Datagram(flow, Octets(bytes))
            }
        }
        _ => return None,
    })
}

fn edge(pcscf: bool) -> EdgeProxy {
    let mut config = if pcscf {
        EdgeConfig::pcscf("ep1.example.com")
    } else {
        EdgeConfig::new("ep1.example.com")
    };
    config.next_hop = Some(uri("sip:home.example.com"));
    config.token_key = Some([7; 32]);
    config.max_flows = MAX_EDGE_FLOWS;
    config.max_core_flows = 2;
    config.max_server_transactions = 8;
    config.max_client_transactions = 8;
    config.max_unsent = 4000;
    config.max_datagrams = 4;
    let edge = EdgeProxy::new(config, [7; 32], Instant::ZERO);
    edge.expect("the configuration is good")
}

const MAX_EDGE_FLOWS: usize = 6;

/// What the run remembers of an edge proxy's outputs.
#[derive(Default)]
struct EdgeLog {
    open: Vec<FlowId>,
    asked: Vec<FlowId>,
    sent: Vec<Vec<u8>>,
    /// Tokens that were seen.
    routes: Vec<String>,
}

impl EdgeLog {
    fn note(&mut self, output: EdgeOut) {
        match output {
            EdgeOut::Accepted(flow) => self.open.extend(flow),
            EdgeOut::Bytes(_, bytes) | EdgeOut::Datagram(_, bytes) => {
                if let Some(request) = request(&bytes.0) {
                    let found = [Name::PATH, Name::RECORD_ROUTE];
                    let found = found.iter().flat_map(|name| request.list(*name));
                    self.routes.extend(found.map(String::from));
                    let over = self.routes.len().saturating_sub(MAX_SEEN);
                    self.routes.drain(..over);
                }
                if self.sent.len() == MAX_SEEN {
                    self.sent.remove(0);
                }
                self.sent.push(bytes.0);
            }
            EdgeOut::Action(FlowAction::OpenFlow { flow, .. }) => self.asked.push(flow),
            EdgeOut::Action(FlowAction::CloseFlow { flow }) => {
                self.open.retain(|open| *open != flow);
                self.asked.retain(|asked| *asked != flow);
            }
            EdgeOut::Event(_) => {}
        }
    }

    fn speech(&self, choices: &mut Choices) -> Vec<u8> {
        let bytes = match choices.below(6) {
            0 => noise(choices),
            1 | 2 => visit(choices, &self.routes),
            _ => {
                let last = choices.index(self.sent.len().clamp(1, 4));
                let asked = self.sent.iter().rev().nth(last);
                let asked = asked.and_then(|bytes| request(bytes));
                let said = asked.and_then(|asked| answer(choices, &asked));
                said.unwrap_or_else(|| visit(choices, &self.routes))
            }
        };
        damage(choices, bytes)
    }
}

/// An edge proxy under operations drawn from the bytes: clients and the core, over streams and
/// datagrams, with what they saw before.
pub fn ops_sip_edge(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let pcscf = choices.flip();
    let mut now = Instant::ZERO;
    let mut machine = Checked::new("edge proxy", now, move || {
        EdgeMachine::new(edge(pcscf), MAX_EDGE_FLOWS + 4)
    });
    let mut log = EdgeLog::default();
    let mut steps = 0;
    while !choices.is_spent() && steps < MAX_STEPS {
        steps += 1;
        let longest = *choices.pick(&[0, 0, 0, 1, 40, 2000]);
        now += choices.duration(Duration::from_secs(longest));
        let input = edge_step(&mut choices, &mut log);
        let outputs = match input {
            Some(input) => machine.input(now, input),
            None => machine.timeout(now),
        };
        for output in outputs {
            log.note(output);
        }
    }
    machine.finish(&mut choices);
}

fn edge_step(choices: &mut Choices, log: &mut EdgeLog) -> Option<EdgeIn> {
    let open = if log.open.is_empty() {
        None
    } else {
        Some(*choices.pick(&log.open))
    };
    let port = 5000 + choices.below(4) as u16;
    Some(match (choices.below(14), open) {
        (0 | 1, _) => {
            let transport = *choices.pick(&[Transport::Tls, Transport::Tcp, Transport::Udp]);
            let side = if choices.flip() {
                Side::Access
            } else {
                Side::Core
            };
            let room = *choices.pick(&[100_000, 500]);
            EdgeIn::Accepted(tuple(transport, port), side, room)
        }
        (2 | 3, _) if !log.asked.is_empty() => {
            let flow = log.asked.remove(choices.index(log.asked.len()));
            log.open.push(flow);
            let transport = *choices.pick(&[Transport::Tcp, Transport::Udp]);
            EdgeIn::Opened(flow, tuple(transport, port), 100_000)
        }
        (4, _) if !log.asked.is_empty() => {
            EdgeIn::Failed(log.asked.remove(choices.index(log.asked.len())))
        }
        (5, Some(flow)) => EdgeIn::Failed(flow),
        (6, Some(flow)) => EdgeIn::Room(flow, choices.index(3000)),
        (7, _) if choices.chance(100) => EdgeIn::Rotate([choices.byte(); 32]),
        (8, _) => EdgeIn::CoreDatagram(tuple(Transport::Udp, port), Octets(log.speech(choices))),
        (9, _) => EdgeIn::Datagram(tuple(Transport::Udp, port), Octets(log.speech(choices))),
        (10.., Some(flow)) => EdgeIn::Bytes(flow, Octets(log.speech(choices))),
        _ => return None,
    })
}
