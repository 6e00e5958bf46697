//! The proxy as the contract checker sees it, together with what its host keeps: bytes it could
//! not hand in yet, and how much each connection takes.

use alloc::vec::Vec;
use core::net::IpAddr;

use http_connect::{
    AuthVerdict, ConnectServer, Instant, ProxyAction, ProxyError, ProxyEvent, Side, Ticket,
};

use crate::contract::Machine;
use crate::pieces::pieces;
use crate::sim::Choices;

/// What goes into a proxy.
#[derive(Clone, Debug)]
pub enum ProxyIn {
    /// Bytes from one side.
    Bytes(Side, Vec<u8>),
    /// One side has sent FIN.
    Eof(Side),
    /// One side is gone.
    Reset(Side),
    /// A verdict about credentials.
    Auth(Ticket, AuthVerdict),
    /// The addresses of a name.
    Resolved(Ticket, Vec<IpAddr>),
    /// The connection asked for is there.
    Connected(Ticket),
    /// What was asked for has failed.
    Failure(Ticket, ProxyError),
    /// The connection of one side takes so many bytes more.
    Room(Side, usize),
}

/// What comes out of a proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum ProxyOut {
    /// Bytes for one side.
    Bytes(Side, Vec<u8>),
    /// What the host must do.
    Action(ProxyAction),
    /// An event.
    Event(ProxyEvent),
}

/// A proxy.
#[derive(Debug)]
pub struct ProxyMachine {
    /// The machine.
    pub server: ConnectServer,
    now: Instant,
    /// Not taken yet, by side.
    held: [Vec<u8>; 2],
    /// FIN is behind what is held.
    eof: [bool; 2],
    /// How much each connection takes.
    room: [usize; 2],
    out: Vec<ProxyOut>,
}

const fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Upstream => 1,
    }
}

impl ProxyMachine {
    /// Around a machine for a connection just accepted.
    pub const fn new(server: ConnectServer, now: Instant) -> Self {
        Self {
            server,
            now,
            held: [Vec::new(), Vec::new()],
            eof: [false; 2],
            room: [0; 2],
            out: Vec::new(),
        }
    }

    /// Bytes read from a side that wait for the machine.
    pub fn waiting(&self, side: Side) -> usize {
        self.held[index(side)].len()
    }

    /// Hands in what is held, as far as it is wanted.
    fn pump(&mut self) {
        for side in [Side::Client, Side::Upstream] {
            while !self.held[index(side)].is_empty() && self.server.wants_input(side) {
                let input = core::mem::take(&mut self.held[index(side)]);
                let taken = self.server.handle_input(self.now, side, &input);
                assert!(taken.len <= input.len(), "more taken than given");
                let to = side.other();
                let room = &mut self.room[index(to)];
                let (now, later) = taken.forward.split_at((*room).min(taken.forward.len()));
                *room -= now.len();
                if !now.is_empty() {
                    self.out.push(ProxyOut::Bytes(to, now.to_vec()));
                }
                let len = taken.len;
                if !later.is_empty() {
                    self.server.handle_unsent(self.now, to, later);
                }
                self.held[index(side)] = input[len..].to_vec();
                if len == 0 {
                    break;
                }
            }
            if self.eof[index(side)] && self.held[index(side)].is_empty() {
                self.eof[index(side)] = false;
                self.server.handle_eof(self.now, side);
            }
        }
    }
}

impl Machine for ProxyMachine {
    type Input = ProxyIn;
    type Output = ProxyOut;

    fn input(&mut self, now: Instant, input: &ProxyIn, _out: &mut Vec<ProxyOut>) {
        self.now = self.now.max(now);
        match input {
            ProxyIn::Bytes(side, bytes) => {
                self.held[index(*side)].extend_from_slice(bytes);
            }
            ProxyIn::Eof(side) => self.eof[index(*side)] = true,
            ProxyIn::Reset(side) => {
                self.held[index(*side)].clear();
                self.server.handle_reset(now, *side);
            }
            ProxyIn::Auth(ticket, verdict) => {
                self.server.handle_auth(now, *ticket, verdict.clone());
            }
            ProxyIn::Resolved(ticket, addresses) => {
                self.server.handle_resolved(now, *ticket, addresses);
            }
            ProxyIn::Connected(ticket) => self.server.handle_connected(now, *ticket),
            ProxyIn::Failure(ticket, error) => self.server.handle_failure(now, *ticket, *error),
            ProxyIn::Room(side, more) => {
                // Polling starts timers, so the machine must know the time.
                self.server.handle_timeout(now);
                self.room[index(*side)] += more;
            }
        }
        self.pump();
    }

    fn timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.server.handle_timeout(now);
        self.pump();
    }

    fn poll(&mut self, room: usize) -> Option<ProxyOut> {
        if !self.out.is_empty() {
            return Some(self.out.remove(0));
        }
        for side in [Side::Client, Side::Upstream] {
            let mut buf = [0; 2000];
            let most = room.min(buf.len()).min(self.room[index(side)]);
            if most == 0 {
                continue;
            }
            if let Some(len) = self.server.poll_transmit(side, &mut buf[..most]) {
                assert!(len > 0 && len <= most, "a transmit of {len}");
                self.room[index(side)] -= len;
                self.pump();
                // What was forwarded meanwhile comes behind.
                return Some(ProxyOut::Bytes(side, buf[..len].to_vec()));
            }
        }
        let action = self.server.poll_action().map(ProxyOut::Action);
        action.or_else(|| self.server.poll_event().map(ProxyOut::Event))
    }

    fn deadline(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    fn is_terminal(output: &ProxyOut) -> bool {
        let ProxyOut::Event(event) = output else {
            return false;
        };
        matches!(event, ProxyEvent::Closed(_))
    }

    fn merge(into: &mut ProxyOut, next: &ProxyOut) -> bool {
        match (into, next) {
            (ProxyOut::Bytes(to, into), ProxyOut::Bytes(also, next)) if to == also => {
                into.extend_from_slice(next);
                true
            }
            _ => false,
        }
    }

    fn lane(output: &ProxyOut) -> u64 {
        match output {
            ProxyOut::Bytes(Side::Client, _) => 0,
            ProxyOut::Bytes(Side::Upstream, _) => 1,
            ProxyOut::Action(_) => 2,
            ProxyOut::Event(_) => 3,
        }
    }

    fn cut(input: &ProxyIn, choices: &mut Choices) -> Vec<ProxyIn> {
        match input {
            ProxyIn::Bytes(side, bytes) => pieces(bytes, choices)
                .into_iter()
                .map(|piece| ProxyIn::Bytes(*side, piece))
                .collect(),
            ProxyIn::Eof(_)
            | ProxyIn::Reset(_)
            | ProxyIn::Auth(..)
            | ProxyIn::Resolved(..)
            | ProxyIn::Connected(_)
            | ProxyIn::Failure(..)
            | ProxyIn::Room(..) => Vec::from([input.clone()]),
        }
    }
}
