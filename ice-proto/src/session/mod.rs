//! The session: agent and gathering together, the one machine a host drives.

mod changes;
mod config;
mod data;
mod description;
mod gather;
mod proof;
mod relay;
mod relays;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use stun_proto::time::{Clock, Timers, deadline};
use stun_proto::{
    FiveTuple, Instant, Path, Received, RetransmitConfig, Rng, StreamId, Transactions, Transmit,
};

pub use self::config::{
    Policy, SendError, ServerFailure, SessionAction, SessionConfig, SessionError, SessionEvent,
    Step, StreamFailure, TurnServer,
};
pub use self::description::{RemoteDescription, RemoteStream};
use self::gather::{Binding, Job};
use self::relay::Relay;
use crate::{
    Agent, Base, Candidate, CandidateError, CandidateKind, ComponentId, LocalCandidate, RelayId,
    Remote, RemoteError, Route, agent, is_usable_host,
};

/// The longest message of a session, application data apart; smaller buffers are the host's bug.
pub const SESSION_MAX_TRANSMIT: usize = max(
    agent::MAX_TRANSMIT + RELAY_HEADER,
    turn_proto::client::MAX_TRANSMIT,
);

/// What a relay puts around a payload at most.
const RELAY_HEADER: usize = 55;

/// STUN and TURN servers each.
const MAX_SERVERS: usize = 8;

/// Host addresses, those opened for relays included.
const MAX_HOSTS: usize = 64;

/// Binding transactions open at once.
const MAX_BINDINGS: usize = MAX_HOSTS * MAX_SERVERS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Gathering ends, whatever is missing.
    Gathering,
    /// The same, because there is enough.
    Enough,
    /// A NAT's mapping is to be kept: host address, STUN server.
    KeepBinding(usize, SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathering {
    Idle,
    Running,
    Done,
}

/// A local address the host has bound a UDP socket to.
#[derive(Clone, Copy, Debug)]
struct HostAddress {
    component: ComponentId,
    addr: SocketAddr,
    preference: u16,
    /// Opened for one relay; no candidate itself.
    for_relay: bool,
    /// The host has taken it away.
    gone: bool,
}

/// An ICE session with its gathering: the one machine a host drives.
///
/// The host binds UDP sockets, reports them with [`add_host`](Self::add_host), and calls
/// [`gather`](Self::gather); what comes in on the sockets and on the streams it opens goes to
/// `handle_datagram` and `handle_stream`, what comes out of the `poll_` methods goes out.
///
/// ```
/// use ice_proto::{
///     ComponentId, Instant, Role, SESSION_MAX_TRANSMIT, Session, SessionConfig, SessionEvent,
/// };
///
/// let now = Instant::ZERO;
/// let mut session = Session::new(SessionConfig::new(Role::Controlling), [7; 32], now);
/// let component = ComponentId { stream: 0, component: 1 };
/// session.add_host(now, component, "192.0.2.1:40000".parse().unwrap()).unwrap();
/// session.gather(now).unwrap();
///
/// let mut buf = [0; SESSION_MAX_TRANSMIT];
/// while let Some(transmit) = session.poll_transmit(&mut buf) {
///     // Send buf[..transmit.len] to transmit.to.
/// }
/// while let Some(action) = session.poll_action() {
///     // Open or close a stream or socket.
/// }
/// let mut lines = Vec::new();
/// while let Some(event) = session.poll_event() {
///     if let SessionEvent::LocalCandidate { candidate, .. } = event {
///         lines.push(candidate.to_string());
///     }
/// }
/// assert_eq!(lines, ["candidate:1 1 udp 2130706431 192.0.2.1 40000 typ host"]);
/// // Then wait for input, but no longer than until session.poll_timeout().
/// ```
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    agent: Agent,
    clock: Clock,
    rng: Rng,
    hosts: Vec<HostAddress>,
    jobs: VecDeque<Job>,
    gathering: Gathering,
    /// What requests to servers start with.
    rto: Duration,
    bindings: Transactions<Binding>,
    relays: BTreeMap<RelayId, Relay>,
    by_path: BTreeMap<Path, RelayId>,
    timers: Timers<Timer>,
    /// Until when nothing new may be asked of a server.
    gate: Option<Instant>,
    /// The agent has come to its end, good or bad.
    concluded: bool,
    closing: bool,
    actions: VecDeque<SessionAction>,
    events: VecDeque<SessionEvent>,
    next_relay: u32,
    next_stream: u64,
}

impl Session {
    /// A session without addresses. `seed` must come from a cryptographic source.
    pub fn new(config: SessionConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self {
            agent: Agent::new(config.agent.clone(), rng.fork(), now),
            clock: Clock::new(now),
            hosts: Vec::new(),
            jobs: VecDeque::new(),
            gathering: Gathering::Idle,
            rto: config.retransmit.rto,
            bindings: Transactions::new(config.retransmit, MAX_BINDINGS),
            relays: BTreeMap::new(),
            by_path: BTreeMap::new(),
            timers: Timers::new(),
            gate: None,
            concluded: false,
            closing: false,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            next_relay: 0,
            next_stream: 0,
            config,
            rng,
        }
    }

    /// Adds a local address the host has bound a UDP socket to, the most preferred first: it
    /// becomes a host candidate and the base of others. Never a wildcard: with such a socket the
    /// host reports every address it stands for.
    ///
    /// # Errors
    /// [`SessionError::State`] after [`gather`](Self::gather), [`SessionError::Address`],
    /// [`SessionError::Candidate`].
    pub fn add_host(
        &mut self,
        now: Instant,
        component: ComponentId,
        addr: SocketAddr,
    ) -> Result<(), SessionError> {
        let now = self.clock.advance(now);
        if self.gathering != Gathering::Idle || self.closing {
            return Err(SessionError::State);
        }
        if !is_usable_host(addr.ip(), self.config.allow_loopback) {
            return Err(SessionError::Address);
        }
        let known = |host: &HostAddress| host.component == component && host.addr == addr;
        if let Some(index) = self.hosts.iter().position(known) {
            // After a restart it may be said again.
            if let Some(host) = self.hosts.get_mut(index) {
                host.gone = false;
            }
            return self.show_host(now, index);
        }
        if self.hosts.len() >= MAX_HOSTS {
            return Err(CandidateError::Limit.into());
        }
        let earlier = self
            .hosts
            .iter()
            .filter(|host| host.component == component)
            .count();
        self.hosts.push(HostAddress {
            component,
            addr,
            preference: 65535_u16.saturating_sub((earlier as u16).saturating_mul(256)),
            for_relay: false,
            gone: false,
        });
        let shown = self.show_host(now, self.hosts.len().saturating_sub(1));
        if shown.is_err() {
            self.hosts.pop();
        }
        shown
    }

    /// Makes a host candidate of a local address.
    fn show_host(&mut self, now: Instant, host: usize) -> Result<(), SessionError> {
        let Some(host) = self.hosts.get(host).copied() else {
            return Ok(());
        };
        if self.config.policy != Policy::All || host.for_relay || host.gone {
            return Ok(());
        }
        let candidate = LocalCandidate {
            component: host.component,
            kind: CandidateKind::Host,
            addr: host.addr,
            base: Base::Host(host.addr),
            local_preference: host.preference,
            server: None,
            related: None,
        };
        let candidate = self.agent.add_local_candidate(now, candidate)?;
        let stream = host.component.stream;
        self.events
            .push_back(SessionEvent::LocalCandidate { stream, candidate });
        Ok(())
    }

    /// Asks the servers. [`SessionEvent::GatheringDone`] follows when all have answered or failed.
    ///
    /// # Errors
    /// [`SessionError::State`] unless this is the first time.
    pub fn gather(&mut self, now: Instant) -> Result<(), SessionError> {
        let now = self.clock.advance(now);
        if self.gathering != Gathering::Idle || self.closing {
            return Err(SessionError::State);
        }
        self.gathering = Gathering::Running;
        for host in 0..self.hosts.len() {
            self.plan_host(host);
        }
        self.plan_streams();
        self.rto = self.gathering_rto();
        let retransmit = RetransmitConfig {
            rto: self.rto,
            ..self.config.retransmit
        };
        self.bindings = Transactions::new(retransmit, MAX_BINDINGS);
        let limit = self.config.gathering_timeout;
        self.timers.arm(Timer::Gathering, now, limit);
        self.check_gathered(now);
        // After a restart relays may be there already.
        self.check_enough(now);
        Ok(())
    }

    /// The other side's user name fragment and the rest of its description.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn set_remote(&mut self, now: Instant, remote: Remote) -> Result<(), RemoteError> {
        let now = self.clock.advance(now);
        let before = self.agent.generation();
        self.agent.set_remote(now, remote)?;
        if self.agent.generation() != before {
            self.rolled_back(now);
        }
        self.pump();
        Ok(())
    }

    /// Adds a candidate of the other side.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        stream: u16,
        candidate: Candidate,
    ) -> Result<(), CandidateError> {
        let now = self.clock.advance(now);
        self.agent.add_remote_candidate(now, stream, candidate)?;
        self.pump();
        Ok(())
    }

    /// The other side has no more candidates.
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.agent.end_of_remote_candidates(now);
        self.pump();
    }

    /// The agent inside, for what it knows.
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Where data of a component goes now.
    pub fn route(&self, component: ComponentId) -> Option<Route> {
        self.agent.route(component)
    }

    /// What the m= and c= lines of a description say for a component: the selected candidate,
    /// before there is one that most likely to work (RFC 8839 section 4.2.1.2), or port 9 of
    /// nowhere.
    pub fn default_address(&self, component: ComponentId) -> SocketAddr {
        if let Some((local, _)) = self.agent.selected(component) {
            return local.addr;
        }
        self.agent.default_candidate(component).map_or(
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9),
            |candidate| candidate.addr,
        )
    }

    /// Takes in a datagram that came on one of the sockets.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a, ComponentId> {
        let now = self.clock.advance(now);
        self.pump();
        if let Some(id) = self.by_path.get(&Path::Datagram(at)).copied() {
            let client = self.relays.get_mut(&id).and_then(Relay::client);
            match client.map(|client| client.handle_datagram(now, at, data)) {
                Some(Received::Data { peer, data }) => {
                    return self.agent.handle_relayed(now, id, peer, data);
                }
                Some(Received::Consumed) => return Received::Consumed,
                Some(Received::NotMine) | None => {}
            }
        }
        if self.binding_response(now, at, data) {
            return Received::Consumed;
        }
        self.agent.handle_datagram(now, at, data)
    }

    /// Takes the next unit from `input`, which came on a stream to a TURN server, and advances
    /// `input`. Call it until `input` is empty.
    pub fn handle_stream<'s, 'i: 's>(
        &'s mut self,
        now: Instant,
        id: StreamId,
        input: &mut &'i [u8],
    ) -> Received<'s, ComponentId> {
        let now = self.clock.advance(now);
        self.pump();
        let relay = self.by_path.get(&Path::Stream(id)).copied();
        let client = relay
            .and_then(|relay| self.relays.get_mut(&relay))
            .and_then(Relay::client);
        let (Some(relay), Some(client)) = (relay, client) else {
            *input = &[];
            return Received::NotMine;
        };
        match client.handle_stream(now, id, input) {
            Received::Data { peer, data } => self.agent.handle_relayed(now, relay, peer, data),
            Received::Consumed => Received::Consumed,
            Received::NotMine => Received::NotMine,
        }
    }

    /// A hard ICMP error came for a datagram: what was asked of a server that way has failed. It
    /// does not end checks, because anybody can send one.
    pub fn handle_icmp_error(&mut self, now: Instant, at: FiveTuple) {
        let now = self.clock.advance(now);
        let path = Path::Datagram(at);
        if let Some(id) = self.by_path.get(&path).copied()
            && let Some(client) = self.relays.get_mut(&id).and_then(Relay::client)
        {
            client.handle_icmp_error(now);
        }
        for ended in self.bindings.fail_path(path) {
            self.binding_ended(now, ended.context, Err(ServerFailure::Unreachable));
        }
        self.pump();
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.pump();
        if self.gate.is_some_and(|until| until <= now) {
            self.gate = None;
        }
        self.agent.handle_timeout(now);
        self.bindings.handle_timeout(now);
        while let Some(ended) = self.bindings.poll_timed_out() {
            self.binding_ended(now, ended.context, Err(ServerFailure::Timeout));
        }
        for relay in self.relays.values_mut() {
            if let Some(client) = relay.client() {
                client.handle_timeout(now);
            }
        }
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Gathering | Timer::Enough => self.gathering_timed_out(now),
                Timer::KeepBinding(host, server) => {
                    if !self.concluded {
                        self.ask_binding(now, host, server, true);
                    }
                }
            }
        }
        self.pump();
    }

    /// Writes the next message into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the message, at most [`SESSION_MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        loop {
            self.pump();
            if let Some(transmit) = self.poll_once(buf) {
                return Some(transmit);
            }
            // The agent may have found that it needs a permission.
            if !self.pump() {
                return None;
            }
        }
    }

    fn poll_once(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        if let Some(transmit) = self.poll_servers(buf) {
            return Some(transmit);
        }
        while let Some(Transmit { to, len }) = self.agent.poll_transmit(buf) {
            match to {
                Route::Datagram(at) => {
                    let to = Path::Datagram(at);
                    return Some(Transmit { to, len });
                }
                Route::Relay { relay, peer } => {
                    if let Some(transmit) = self.relay_check(relay, peer, len, buf) {
                        return Some(transmit);
                    }
                }
            }
        }
        None
    }

    /// The next request to a server, as soon as the pace of gathering allows.
    fn poll_servers(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let now = self.clock.now();
        let gathering = self.gathering == Gathering::Running;
        if gathering && self.gate.is_some_and(|until| now < until) {
            return None;
        }
        if gathering {
            self.start_job(now);
        }
        let transmit = self.bindings.poll_transmit(buf).or_else(|| {
            let mut clients = self.relays.values_mut().filter_map(Relay::client);
            clients.find_map(|client| client.poll_transmit(buf))
        });
        if gathering {
            if transmit.is_some() {
                self.gate = deadline(now, self.config.agent.pacing);
            } else {
                self.check_gathered(now);
            }
        }
        transmit
    }

    /// Puts a check that lies at the beginning of `buf` into what its relay wants around it.
    fn relay_check(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        len: usize,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        let now = self.clock.now();
        let client = self.relays.get_mut(&relay).and_then(Relay::client)?;
        let mut check = [0; agent::MAX_TRANSMIT];
        let check = check.get_mut(..len)?;
        check.copy_from_slice(buf.get(..len)?);
        client.send(now, peer, check, buf).ok()
    }

    /// The next thing the host must do.
    pub fn poll_action(&mut self) -> Option<SessionAction> {
        self.pump();
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.pump();
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let clients = self.relays.values().filter_map(Relay::poll_timeout);
        [
            self.agent.poll_timeout(),
            self.bindings.poll_timeout(),
            self.timers.next(),
            self.gate.filter(|_| self.gathering == Gathering::Running),
        ]
        .into_iter()
        .flatten()
        .chain(clients)
        .min()
    }

    /// Ends the session and gives the relays back; [`SessionEvent::Closed`] follows.
    pub fn close(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if self.closing {
            return;
        }
        self.pump();
        self.agent.close();
        self.closing = true;
        self.concluded = true;
        self.gathering = Gathering::Done;
        self.gate = None;
        self.jobs.clear();
        self.timers = Timers::new();
        self.bindings = Transactions::new(self.config.retransmit, MAX_BINDINGS);
        if self.relays.is_empty() {
            self.events.push_back(SessionEvent::Closed);
        } else {
            self.close_relays(now, |_| true);
        }
        self.pump();
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests;
