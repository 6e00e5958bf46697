//! The proxy's host.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use http_connect::auth::{Challenge, parse_basic};
use http_connect::{
    AuthVerdict, ConnectServer, Prefix, ProxyAction, ProxyConfig, ProxyError, ProxyEvent, Side,
    Ticket,
};

use super::proxy::{ProxyIn, ProxyMachine, ProxyOut};
use crate::contract::Checked;
use crate::sim::{Arrival, ConnectFailure, End, HostId, Net, Outbox};

pub(super) const PROXY: &str = "198.51.100.80:3128";
pub(super) const TARGET: &str = "203.0.113.43:443";
/// The name of the target, and one that has no address.
pub(super) const NAMES: [&str; 2] = ["pcscf.example.com", "nowhere.example.com"];

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// How clients have to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    None,
    Basic,
    /// Three legs on one connection.
    Ntlm,
}

/// One client's connection at the proxy.
pub(super) struct Session {
    pub(super) machine: Checked<ProxyMachine>,
    pub(super) client: End,
    pub(super) upstream: Option<(End, Ticket)>,
    /// How many bytes each connection was told to take, and took.
    pub(super) legs: u32,
}

pub(super) struct ProxyNode {
    pub(super) host: HostId,
    pub(super) auth: Auth,
    pub(super) half_close: bool,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) outbox: Outbox,
    pub(super) next: u64,
    /// Questions waiting for an answer: alarm number, session, ticket, name.
    pub(super) questions: BTreeMap<u64, (u64, Ticket, alloc::string::String)>,
    /// What is to be handed in once all outputs are dealt with.
    pub(super) follow: VecDeque<(u64, ProxyIn)>,
    pub(super) busy: bool,
    pub(super) healed: bool,
}

/// Bytes a connection may have waiting before it takes no more.
pub(super) const ROOM: usize = 8 * 1024;

impl ProxyNode {
    pub(super) fn accept(&mut self, net: &mut Net, end: End) {
        let now = net.now();
        let seed = net.choices().machine_seed();
        let (authenticate, half_close) = (self.auth != Auth::None, self.half_close);
        let machine = Checked::new("proxy", now, move || {
            let mut config = ProxyConfig::new("proxy");
            config.authenticate = authenticate;
            config.half_close = half_close;
            // Connections die without a sign here, too.
            config.limits.idle_timeout = Some(Duration::from_secs(90));
            config
                .addresses
                .allowed
                .push(Prefix::new(at(TARGET).ip(), 32));
            let server = ConnectServer::new(Arc::new(config), seed, now);
            ProxyMachine::new(server.expect("a sound configuration"), now)
        });
        let session = Session {
            machine,
            client: end,
            upstream: None,
            legs: 0,
        };
        let id = self.next;
        self.next += 1;
        self.sessions.insert(id, session);
        self.input(net, id, ProxyIn::Room(Side::Client, ROOM));
    }

    pub(super) fn session_of(&self, end: End) -> Option<(u64, Side)> {
        self.sessions.iter().find_map(|(id, session)| {
            if session.client == end {
                Some((*id, Side::Client))
            } else if session
                .upstream
                .is_some_and(|(upstream, _)| upstream == end)
            {
                Some((*id, Side::Upstream))
            } else {
                None
            }
        })
    }

    pub(super) fn input(&mut self, net: &mut Net, id: u64, input: ProxyIn) {
        self.follow.push_back((id, input));
        if self.busy {
            return;
        }
        self.busy = true;
        while let Some((id, input)) = self.follow.pop_front() {
            if let Some(session) = self.sessions.get_mut(&id) {
                let outputs = session.machine.input(net.now(), input);
                self.outputs(net, id, outputs);
            }
        }
        self.busy = false;
    }

    pub(super) fn timeout(&mut self, net: &mut Net, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let outputs = session.machine.timeout(net.now());
            self.busy = true;
            self.outputs(net, id, outputs);
            self.busy = false;
            if let Some((id, input)) = self.follow.pop_front() {
                self.input(net, id, input);
            }
        }
    }

    pub(super) fn outputs(&mut self, net: &mut Net, id: u64, outputs: Vec<ProxyOut>) {
        for output in outputs {
            let Some(session) = self.sessions.get_mut(&id) else {
                return;
            };
            match output {
                ProxyOut::Bytes(side, data) => {
                    let end = match side {
                        Side::Client => Some(session.client),
                        Side::Upstream => session.upstream.map(|(end, _)| end),
                    };
                    let end = end.expect("a connection to write to");
                    self.outbox.write(net, end, &data);
                    // The room is given back once the bytes are gone.
                    if self.outbox.waiting(end) == 0 {
                        self.input(net, id, ProxyIn::Room(side, data.len()));
                    }
                }
                ProxyOut::Action(action) => {
                    net.note(self.host, || format!("{id}: {action:?}"));
                    self.action(net, id, action);
                }
                ProxyOut::Event(event) => {
                    net.note(self.host, || format!("{id}: {event:?}"));
                    if let ProxyEvent::Closed(_) = event {
                        self.end(net, id);
                    }
                }
            }
        }
    }

    pub(super) fn end(&mut self, net: &mut Net, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.outbox.close(net, session.client);
            if let Some((end, _)) = session.upstream {
                self.outbox.close(net, end);
            }
            let mut choices = net.choices().fork();
            session.machine.finish(&mut choices);
        }
    }

    pub(super) fn action(&mut self, net: &mut Net, id: u64, action: ProxyAction) {
        match action {
            ProxyAction::CheckAuth { ticket, check } => {
                let verdict = self.judge(id, check.authorization());
                self.input(net, id, ProxyIn::Auth(ticket, verdict));
            }
            ProxyAction::Resolve { ticket, name } => {
                let number = self.next;
                self.next += 1;
                self.questions.insert(number, (id, ticket, name));
                let wait = if self.healed || net.choices().chance(900) {
                    net.choices().duration(Duration::from_millis(300))
                } else {
                    Duration::from_secs(20)
                };
                net.alarm(self.host, wait, number);
            }
            ProxyAction::Connect { ticket, address } => {
                assert_eq!(address, at(TARGET), "only the target is allowed");
                let end = net.connect(self.host, at(PROXY).ip(), address);
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.upstream = Some((end, ticket));
                }
            }
            ProxyAction::CloseWrite(side) => {
                if let Some(session) = self.sessions.get(&id) {
                    match (side, session.upstream) {
                        (Side::Client, _) => self.outbox.shutdown(net, session.client),
                        (Side::Upstream, Some((end, _))) => self.outbox.shutdown(net, end),
                        (Side::Upstream, None) => {}
                    }
                }
            }
            ProxyAction::Close(Side::Upstream) => {
                if let Some(session) = self.sessions.get_mut(&id)
                    && let Some((end, _)) = session.upstream.take()
                {
                    self.outbox.close(net, end);
                }
            }
            // Both are closed with the last event.
            _ => {}
        }
    }

    pub(super) fn judge(&mut self, id: u64, authorization: Option<&str>) -> AuthVerdict {
        let allow = AuthVerdict::Allow {
            user: Some("alice".to_owned()),
            info: None,
        };
        match self.auth {
            Auth::None => allow,
            Auth::Basic => {
                let sent = authorization.and_then(|value| Challenge::parse(value).ok());
                let sent = sent.and_then(|challenge| parse_basic(&challenge));
                let good = sent.is_some_and(|sent| {
                    sent.username == "alice" && sent.password.expose() == b"secret"
                });
                if good {
                    allow
                } else {
                    AuthVerdict::Challenge(Vec::from(["Basic realm=\"proxy\"".to_owned()]))
                }
            }
            Auth::Ntlm => {
                let session = self.sessions.get_mut(&id);
                let legs = session.map_or(0, |session| {
                    session.legs += 1;
                    session.legs
                });
                match authorization {
                    Some("NTLM bGVnMw==") if legs > 1 => allow,
                    Some("NTLM bGVnMQ==") => AuthVerdict::Continue("NTLM bGVnMg==".to_owned()),
                    _ => AuthVerdict::Challenge(Vec::from(["NTLM".to_owned()])),
                }
            }
        }
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Accepted { end, .. } => self.accept(net, end),
            Arrival::Connected { end, .. } => {
                if let Some((id, _)) = self.session_of(end)
                    && let Some((_, ticket)) = self.sessions[&id].upstream
                {
                    self.input(net, id, ProxyIn::Room(Side::Upstream, ROOM));
                    self.input(net, id, ProxyIn::Connected(ticket));
                } else {
                    net.close(end);
                }
            }
            Arrival::ConnectFailed { end, why } => {
                if let Some((id, _)) = self.session_of(end)
                    && let Some((_, ticket)) = self.sessions[&id].upstream
                {
                    let error = match why {
                        ConnectFailure::Refused => ProxyError::ConnectionRefused,
                        ConnectFailure::TimedOut => ProxyError::ConnectionTimeout,
                    };
                    self.input(net, id, ProxyIn::Failure(ticket, error));
                }
            }
            Arrival::Bytes { end, data } => {
                if let Some((id, side)) = self.session_of(end) {
                    self.input(net, id, ProxyIn::Bytes(side, data));
                }
            }
            Arrival::Eof { end } => {
                if let Some((id, side)) = self.session_of(end) {
                    self.input(net, id, ProxyIn::Eof(side));
                }
            }
            Arrival::Reset { end } => {
                self.outbox.forget(end);
                if let Some((id, side)) = self.session_of(end) {
                    self.input(net, id, ProxyIn::Reset(side));
                }
            }
            Arrival::Writable { end } => {
                let before = self.outbox.waiting(end);
                self.outbox.flush(net, end);
                let gone = before - self.outbox.waiting(end);
                if gone > 0
                    && let Some((id, side)) = self.session_of(end)
                {
                    self.input(net, id, ProxyIn::Room(side, gone));
                }
            }
            Arrival::Alarm(number) => {
                if let Some((id, ticket, name)) = self.questions.remove(&number) {
                    let input = if name == NAMES[0] {
                        ProxyIn::Resolved(ticket, Vec::from([at(TARGET).ip()]))
                    } else {
                        ProxyIn::Failure(ticket, ProxyError::Dns { rcode: None })
                    };
                    self.input(net, id, input);
                }
            }
            Arrival::Datagram { .. } | Arrival::Unreachable { .. } => {}
        }
        self.read(net);
    }

    /// Reads only from connections whose bytes are welcome.
    pub(super) fn read(&self, net: &mut Net) {
        for session in self.sessions.values() {
            let machine = session.machine.machine();
            let full = |side| machine.waiting(side) > 1000;
            net.pause(session.client, full(Side::Client));
            if let Some((end, _)) = session.upstream {
                net.pause(end, full(Side::Upstream));
            }
        }
    }
}
