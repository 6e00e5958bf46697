//! The edge proxy as the contract checker sees it, together with how much each connection takes.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use sip_outbound::{EdgeEvent, EdgeProxy, FlowAction, FlowId, Instant, MAX_TRANSMIT, Side};
use stun_proto::FiveTuple;

use super::ua::STRAY;
use crate::contract::Machine;
use crate::pieces::{Octets, pieces};
use crate::sim::Choices;

/// What goes into an edge proxy.
#[derive(Clone, Debug)]
pub enum EdgeIn {
    /// A connection was accepted, or datagrams are expected from there; a stream takes so many
    /// bytes at first.
    Accepted(FiveTuple, Side, usize),
    /// A flow to the core is open.
    Opened(FlowId, FiveTuple, usize),
    /// A flow is gone, or could not be opened.
    Failed(FlowId),
    /// Bytes of a stream.
    Bytes(FlowId, Octets),
    /// A datagram of a client.
    Datagram(FiveTuple, Octets),
    /// A datagram of the core.
    CoreDatagram(FiveTuple, Octets),
    /// A stream takes so many bytes more.
    Room(FlowId, usize),
    /// Another key for the tokens.
    Rotate([u8; 32]),
}

/// What comes out of an edge proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum EdgeOut {
    /// What became of a connection.
    Accepted(Option<FlowId>),
    /// Bytes of a stream.
    Bytes(FlowId, Octets),
    /// A datagram.
    Datagram(FiveTuple, Octets),
    /// What the host must do.
    Action(FlowAction),
    /// An event.
    Event(EdgeEvent),
}

/// An edge proxy.
#[derive(Debug)]
pub struct EdgeMachine {
    /// The machine.
    pub edge: EdgeProxy,
    /// How much each stream takes.
    room: BTreeMap<FlowId, usize>,
    max_flows: usize,
    buf: Vec<u8>,
}

impl EdgeMachine {
    /// Around a machine without flows.
    pub fn new(edge: EdgeProxy, max_flows: usize) -> Self {
        Self {
            edge,
            room: BTreeMap::new(),
            max_flows,
            buf: vec![0; MAX_TRANSMIT],
        }
    }
}

impl Machine for EdgeMachine {
    type Input = EdgeIn;
    type Output = EdgeOut;

    fn input(&mut self, now: Instant, input: &EdgeIn, out: &mut Vec<EdgeOut>) {
        let edge = &mut self.edge;
        match input {
            EdgeIn::Accepted(at, side, room) => {
                let flow = edge.flow_accepted(now, *at, *side);
                if let Some(flow) = flow.filter(|_| at.transport.is_stream()) {
                    self.room.insert(flow, *room);
                }
                out.push(EdgeOut::Accepted(flow));
            }
            EdgeIn::Opened(flow, at, room) => {
                if at.transport.is_stream() {
                    self.room.insert(*flow, *room);
                }
                edge.flow_opened(now, *flow, *at);
            }
            EdgeIn::Failed(flow) => edge.flow_failed(now, *flow),
            EdgeIn::Bytes(flow, data) => edge.handle_flow_input(now, *flow, &data.0),
            EdgeIn::Datagram(at, data) => edge.handle_datagram(now, *at, &data.0),
            EdgeIn::CoreDatagram(at, data) => edge.handle_core_datagram(now, *at, &data.0),
            EdgeIn::Room(flow, more) => {
                edge.handle_timeout(now);
                if let Some(room) = self.room.get_mut(flow) {
                    *room = room.saturating_add(*more);
                }
            }
            EdgeIn::Rotate(key) => edge.token_keys().rotate(key),
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.edge.handle_timeout(now);
    }

    fn poll(&mut self, room: usize) -> Option<EdgeOut> {
        if let Some(sent) = self.edge.poll_datagram(&mut self.buf) {
            return Some(EdgeOut::Datagram(
                sent.to,
                Octets(self.buf[..sent.len].to_vec()),
            ));
        }
        let flows: Vec<_> = self.edge.writable().collect();
        for flow in flows {
            let left = self.room.get_mut(&flow).expect("a stream that is open");
            let most = room.min(*left).min(self.buf.len());
            if most == 0 {
                continue;
            }
            let len = self.edge.poll_flow(flow, &mut self.buf[..most]);
            let len = len.expect("a flow that is writable has something to send");
            assert!(len > 0 && len <= most, "a transmit of {len}");
            *left -= len;
            return Some(EdgeOut::Bytes(flow, Octets(self.buf[..len].to_vec())));
        }
        let action = self.edge.poll_action().map(EdgeOut::Action);
        action.or_else(|| self.edge.poll_event().map(EdgeOut::Event))
    }

    fn deadline(&self) -> Option<Instant> {
        self.edge.poll_timeout()
    }

    fn merge(into: &mut EdgeOut, next: &EdgeOut) -> bool {
        match (into, next) {
            (EdgeOut::Bytes(flow, into), EdgeOut::Bytes(also, next)) if flow == also => {
                into.0.extend_from_slice(&next.0);
                true
            }
            _ => false,
        }
    }

    fn lane(output: &EdgeOut) -> u64 {
        match output {
            EdgeOut::Accepted(_) => 0,
            EdgeOut::Datagram(..) => 1,
            EdgeOut::Action(_) => 2,
            EdgeOut::Event(_) => 3,
            EdgeOut::Bytes(flow, _) => 4 + flow.0,
        }
    }

    fn cut(input: &EdgeIn, choices: &mut Choices) -> Vec<EdgeIn> {
        match input {
            EdgeIn::Bytes(flow, bytes) => pieces(&bytes.0, choices)
                .into_iter()
                .map(|piece| EdgeIn::Bytes(*flow, Octets(piece)))
                .collect(),
            _ => Vec::from([input.clone()]),
        }
    }

    fn noise(&self, choices: &mut Choices) -> Option<EdgeIn> {
        let nobody = FlowId(u64::MAX);
        let nowhere = "192.0.2.99:9".parse().expect("an address");
        let at = FiveTuple::udp(nowhere, nowhere);
        Some(match choices.below(5) {
            0 => EdgeIn::Bytes(nobody, Octets(b"\r\n\r\nOPTIONS".to_vec())),
            1 => EdgeIn::Failed(nobody),
            2 => EdgeIn::Datagram(at, Octets(b"\r\n\r\n".to_vec())),
            3 => EdgeIn::Datagram(at, Octets(b"junk".to_vec())),
            _ => EdgeIn::Datagram(at, Octets(STRAY.to_vec())),
        })
    }

    fn check(&self) {
        let flows = self.edge.flow_count();
        assert!(flows <= self.max_flows, "{flows} flows");
    }
}
