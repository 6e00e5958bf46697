//! TURN clients and how they serve the agent: one for each host address and server over UDP, one
//! for each component and server over streams.

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use stun_proto::{FiveTuple, Instant, Path, RetransmitConfig, StreamId, Transport};
use turn_proto::client::{self, AllocateOptions, Cause, Client, ClientConfig};

use super::gather::Job;
use super::relay::{Phase, Relay};
use super::{
    Gathering, Policy, ServerFailure, Session, SessionAction, SessionEvent, Step, StreamFailure,
};
use crate::{Action, Base, CandidateKind, ComponentId, LocalCandidate, RelayId};

/// How often a server that wants a fresh address gets one (RFC 8656 section 7.4: 437).
const MAX_FRESH: u8 = 2;

/// Answers to Allocate after which the server may still be good for a reflexive address.
const QUOTA_REACHED: u16 = turn_proto::wire::code::QUOTA_REACHED;
const INSUFFICIENT_CAPACITY: u16 = turn_proto::wire::code::INSUFFICIENT_CAPACITY;

impl Session {
    fn new_client(&mut self, now: Instant, server: usize, path: Path) -> Option<Box<Client>> {
        let turn = self.config.turn_servers.get(server)?;
        let mut config = ClientConfig::new(Some(turn.credentials.clone()));
        config.retransmit = RetransmitConfig {
            rto: self.rto,
            ..self.config.retransmit
        };
        let options = AllocateOptions {
            family: turn.family,
            ..AllocateOptions::default()
        };
        let transport = turn.transport;
        let mut client = Client::new(config, path, transport, self.rng.fork(), now);
        client.allocate(now, options).ok()?;
        Some(Box::new(client))
    }

    const fn next_relay_id(&mut self) -> RelayId {
        let id = RelayId(self.next_relay);
        self.next_relay = self.next_relay.saturating_add(1);
        id
    }

    /// Asks for an allocation from a host address; whether there is something to send.
    pub(super) fn open_datagram_relay(&mut self, now: Instant, host: usize, server: usize) -> bool {
        let known = self.hosts.get(host).copied();
        let addr = self.config.turn_servers.get(server).map(|turn| turn.addr);
        let (Some(known), Some(addr)) = (known, addr) else {
            return false;
        };
        let path = Path::Datagram(FiveTuple::udp(known.addr, addr));
        if self.by_path.contains_key(&path) {
            return false;
        }
        let Some(client) = self.new_client(now, server, path) else {
            return false;
        };
        let id = self.next_relay_id();
        self.by_path.insert(path, id);
        let relay = Relay {
            server,
            component: known.component,
            host: Some(host),
            stream: None,
            fresh: 0,
            since: now,
            granted: None,
            phase: Phase::Allocating(client),
        };
        self.relays.insert(id, relay);
        true
    }

    /// Has the host open a stream to a server, unless there is a relay over one already, or soon
    /// will be. One from before a restart that may be dead does not count.
    pub(super) fn open_stream_relay(
        &mut self,
        now: Instant,
        component: ComponentId,
        server: usize,
    ) {
        let counts = |relay: &Relay| relay.is_begun() || matches!(relay.phase, Phase::Active(_));
        let known = self.relays.values().any(|relay| {
            relay.server == server
                && relay.component == component
                && relay.host.is_none()
                && counts(relay)
        });
        if known {
            return;
        }
        let Some(stream) = self.open_stream(server) else {
            return;
        };
        let id = self.next_relay_id();
        self.by_path.insert(Path::Stream(stream), id);
        let relay = Relay {
            server,
            component,
            host: None,
            stream: Some(stream),
            fresh: 0,
            since: now,
            granted: None,
            phase: Phase::Stream,
        };
        self.relays.insert(id, relay);
    }

    /// The server of a relay, and how it is reached.
    pub fn relay_server(&self, relay: RelayId) -> Option<(SocketAddr, Transport)> {
        let server = self.relays.get(&relay)?.server;
        let turn = self.config.turn_servers.get(server)?;
        Some((turn.addr, turn.transport))
    }

    /// The stream asked for is open, TLS included.
    pub fn stream_opened(&mut self, now: Instant, id: StreamId, _local: SocketAddr) {
        let now = self.clock.advance(now);
        let path = Path::Stream(id);
        let waiting = self.by_path.get(&path).copied().filter(|relay| {
            let relay = self.relays.get(relay);
            relay.is_some_and(|relay| matches!(relay.phase, Phase::Stream))
        });
        let Some(relay) = waiting else {
            if !self.by_path.contains_key(&path) {
                // Nobody waits for it any more.
                self.actions.push_back(SessionAction::CloseStream { id });
            }
            return;
        };
        let server = self.relays.get(&relay).map_or(0, |relay| relay.server);
        if let Some(client) = self.new_client(now, server, path)
            && let Some(relay) = self.relays.get_mut(&relay)
        {
            relay.phase = Phase::Allocating(client);
        }
    }

    /// The stream asked for cannot be opened.
    pub fn stream_failed(&mut self, now: Instant, id: StreamId, cause: StreamFailure) {
        let now = self.clock.advance(now);
        let Some(relay) = self.by_path.get(&Path::Stream(id)).copied() else {
            return;
        };
        self.server_failed(relay, Step::Open, ServerFailure::Stream(cause));
        self.forget_stream(id);
        self.remove_relay(relay);
        self.check_gathered(now);
    }

    /// A stream is closed, by whichever side.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        let now = self.clock.advance(now);
        let Some(relay) = self.by_path.get(&Path::Stream(id)).copied() else {
            return;
        };
        self.forget_stream(id);
        match self.relays.get_mut(&relay).map(Relay::client) {
            Some(Some(client)) => client.handle_stream_closed(now, id),
            Some(None) => {
                let cause = ServerFailure::Stream(StreamFailure::Other);
                self.server_failed(relay, Step::Open, cause);
                self.remove_relay(relay);
                self.check_gathered(now);
            }
            None => {}
        }
        self.pump();
    }

    /// The socket asked for is bound to `local`.
    pub fn socket_opened(&mut self, now: Instant, id: RelayId, local: SocketAddr) {
        let now = self.clock.advance(now);
        let waiting = self.relays.get(&id).and_then(|relay| match relay.phase {
            Phase::Socket => Some((relay.server, relay.component)),
            Phase::Stream
            | Phase::Allocating(_)
            | Phase::Active(_)
            | Phase::Doubted(_)
            | Phase::Kept(_)
            | Phase::Closing(_)
            | Phase::Replacing(_) => None,
        });
        let Some((server, component)) = waiting else {
            self.actions.push_back(SessionAction::CloseSocket { local });
            return;
        };
        let host = self.hosts.len();
        self.hosts.push(super::HostAddress {
            component,
            addr: local,
            preference: 65535,
            for_relay: true,
            gone: false,
        });
        let addr = self.config.turn_servers.get(server).map(|turn| turn.addr);
        let Some(addr) = addr else { return };
        let path = Path::Datagram(FiveTuple::udp(local, addr));
        if let Some(client) = self.new_client(now, server, path)
            && let Some(relay) = self.relays.get_mut(&id)
        {
            relay.host = Some(host);
            relay.phase = Phase::Allocating(client);
            self.by_path.insert(path, id);
        }
    }

    /// The socket asked for cannot be had.
    pub fn socket_failed(&mut self, now: Instant, id: RelayId) {
        let now = self.clock.advance(now);
        let waits = self.relays.get(&id);
        if waits.is_some_and(|relay| matches!(relay.phase, Phase::Socket)) {
            self.server_failed(id, Step::Open, ServerFailure::NoSocket);
            self.remove_relay(id);
            self.check_gathered(now);
        }
    }

    pub(super) fn server_failed(&mut self, relay: RelayId, step: Step, cause: ServerFailure) {
        let server = self.relays.get(&relay).map(|relay| relay.server);
        if let Some(turn) = server.and_then(|server| self.config.turn_servers.get(server)) {
            self.events.push_back(SessionEvent::ServerFailed {
                server: turn.addr,
                transport: turn.transport,
                step,
                cause,
            });
        }
    }

    fn forget_stream(&mut self, id: StreamId) {
        if let Some(relay) = self.by_path.remove(&Path::Stream(id))
            && let Some(relay) = self.relays.get_mut(&relay)
        {
            relay.stream = None;
        }
    }

    /// Drops a relay that has ended, and closes what it was reached over.
    fn remove_relay(&mut self, id: RelayId) {
        let Some(relay) = self.relays.remove(&id) else {
            return;
        };
        self.by_path.retain(|_, owner| *owner != id);
        if let Some(id) = relay.stream {
            self.actions.push_back(SessionAction::CloseStream { id });
        }
        let host = relay.host.and_then(|host| self.hosts.get(host)).copied();
        if let Some(host) = host.filter(|host| host.for_relay) {
            let local = host.addr;
            self.actions.push_back(SessionAction::CloseSocket { local });
        }
        if self.closing && self.relays.is_empty() {
            self.events.push_back(SessionEvent::Closed);
        }
    }

    /// Takes what the clients and the agent have for each other, until nothing is left; whether
    /// there was anything.
    pub(super) fn pump(&mut self) -> bool {
        let now = self.clock.now();
        let mut any = false;
        loop {
            if let Some((id, event)) = self.next_client_event() {
                self.client_event(now, id, event);
            } else if let Some(action) = self.agent.poll_action() {
                self.agent_action(now, action);
            } else if let Some(event) = self.agent.poll_event() {
                self.agent_event(now, event);
            } else {
                return any;
            }
            any = true;
        }
    }

    fn next_client_event(&mut self) -> Option<(RelayId, client::Event)> {
        self.relays.iter_mut().find_map(|(id, relay)| {
            let event = relay.client()?.poll_event()?;
            Some((*id, event))
        })
    }

    fn client_event(&mut self, now: Instant, id: RelayId, event: client::Event) {
        match event {
            client::Event::Allocated {
                relayed, mapped, ..
            } => self.allocated(id, relayed, mapped),
            client::Event::AllocateFailed {
                cause,
                fresh_address,
                ..
            } => self.allocate_failed(id, cause, fresh_address),
            client::Event::AllocationLost { cause } => {
                self.server_failed(id, Step::Refresh, ServerFailure::Turn(cause));
                self.ask_again(id);
                self.remove_relay(id);
                self.agent.relay_lost(now, id);
            }
            client::Event::Refreshed { .. } => self.relay_proven(id),
            client::Event::RefreshFailed { .. } => self.relay_doubtful(id),
            client::Event::Closed => {
                self.ask_again(id);
                self.remove_relay(id);
                self.agent.relay_lost(now, id);
            }
            client::Event::PermissionCreated { peer } => {
                self.agent.permission_created(now, id, peer);
            }
            client::Event::PermissionFailed { peer, .. } => {
                self.agent.permission_failed(now, id, peer);
            }
            // Without a channel data takes the longer way.
            client::Event::ChannelBound { .. }
            | client::Event::ChannelFailed { .. }
            | client::Event::Icmp { .. } => {}
            // What else a client says, now or later, is not about what a session asks of it.
            client::Event::Challenged
            | client::Event::TokenNeeded
            | client::Event::FamilyReleased { .. }
            | client::Event::PathChanged
            | client::Event::PathChangeFailed { .. }
            | client::Event::PathLost
            | client::Event::ConnectionAttempt { .. }
            | client::Event::ConnectionReady { .. }
            | client::Event::ConnectionFailed { .. }
            | client::Event::ConnectionClosed { .. }
            | _ => {}
        }
        self.check_gathered(now);
    }

    fn allocated(&mut self, id: RelayId, relayed: SocketAddr, mapped: Option<SocketAddr>) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        if matches!(relay.phase, Phase::Allocating(_)) {
            relay.turn(Phase::Active);
        }
        relay.granted = Some((relayed, mapped));
        let (server, host) = (relay.server, relay.host);
        let addr = self.config.turn_servers.get(server).map(|turn| turn.addr);
        if let (Some(host), Some(mapped), Some(addr)) = (host, mapped, addr) {
            self.reflexive(host, addr, mapped);
        }
        self.show_relay(id, relayed, mapped);
        self.settle_for(id);
    }

    /// Makes a candidate of a relay.
    pub(super) fn show_relay(
        &mut self,
        id: RelayId,
        relayed: SocketAddr,
        mapped: Option<SocketAddr>,
    ) {
        let Some(relay) = self.relays.get(&id) else {
            return;
        };
        let (server, component, host) = (relay.server, relay.component, relay.host);
        let Some(turn) = self.config.turn_servers.get(server) else {
            return;
        };
        let (addr, transport) = (turn.addr, turn.transport);
        if self.hosts.iter().any(|host| host.addr == relayed) {
            return;
        }
        if !self.agent.has_component(component) {
            return self.close_relays(self.clock.now(), |other| other == id);
        }
        let related = match self.config.policy {
            Policy::All => mapped,
            Policy::RelayOnly => None,
        };
        let preference = relay_preference(transport, server, host);
        self.add_candidate(LocalCandidate {
            component,
            kind: CandidateKind::Relayed,
            addr: relayed,
            base: Base::Relay(id),
            local_preference: preference,
            server: Some(addr.ip()),
            related: Some(related.unwrap_or_else(|| nowhere(relayed))),
        });
        self.check_enough(self.clock.now());
    }

    fn allocate_failed(&mut self, id: RelayId, cause: Cause, fresh_address: bool) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let (server, host) = (relay.server, relay.host);
        let again = fresh_address && relay.fresh < MAX_FRESH;
        if again && self.gathering == Gathering::Running {
            relay.fresh = relay.fresh.saturating_add(1);
            self.try_afresh(id);
            return;
        }
        let quota = matches!(cause, Cause::Code(QUOTA_REACHED | INSUFFICIENT_CAPACITY));
        let turn = self.config.turn_servers.get(server).map(|turn| turn.addr);
        if let (true, Some(host), Some(server)) = (quota, host, turn)
            && self.config.policy == Policy::All
            && self.gathering == Gathering::Running
        {
            self.jobs.push_back(Job::Binding { host, server });
        }
        self.server_failed(id, Step::Allocate, ServerFailure::Turn(cause));
        self.remove_relay(id);
    }

    /// Tries once more, from another local address or over another stream.
    fn try_afresh(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        let (server, host, old) = (relay.server, relay.host, relay.stream.take());
        relay.phase = match host {
            Some(_) => Phase::Socket,
            None => Phase::Stream,
        };
        self.by_path.retain(|_, owner| *owner != id);
        if let Some(id) = old {
            self.actions.push_back(SessionAction::CloseStream { id });
        }
        match host.and_then(|host| self.hosts.get(host)).copied() {
            Some(host) => {
                if host.for_relay {
                    let local = host.addr;
                    self.actions.push_back(SessionAction::CloseSocket { local });
                }
                let (relay, local) = (id, host.addr.ip());
                self.actions
                    .push_back(SessionAction::OpenSocket { relay, local });
            }
            None => {
                if let Some(stream) = self.open_stream(server) {
                    self.by_path.insert(Path::Stream(stream), id);
                    if let Some(relay) = self.relays.get_mut(&id) {
                        relay.stream = Some(stream);
                    }
                }
            }
        }
    }

    fn agent_action(&mut self, now: Instant, action: Action) {
        match action {
            Action::CreatePermission { relay, peer } => {
                let client = self.relays.get_mut(&relay).and_then(Relay::client);
                let asked = client.map(|client| client.create_permission(now, peer));
                if !matches!(asked, Some(Ok(()))) {
                    self.agent.permission_failed(now, relay, peer);
                }
            }
            Action::BindChannel { relay, peer } => {
                if let Some(client) = self.relays.get_mut(&relay).and_then(Relay::client) {
                    // Without a channel data takes the longer way.
                    let _ = client.bind_channel(now, peer);
                }
            }
            Action::Release {
                base: Base::Relay(relay),
            } => self.close_relays(now, |id| id == relay),
            // The socket is the host's, and may be the way to a relay.
            Action::Release {
                base: Base::Host(_),
            } => {}
        }
    }

    fn agent_event(&mut self, now: Instant, event: crate::Event) {
        match event {
            crate::Event::Completed { .. } => self.concluded = true,
            crate::Event::Failed { .. } => {
                self.concluded = true;
                self.close_relays(now, |_| true);
            }
            crate::Event::Selected { .. }
            | crate::Event::LocalReflexive { .. }
            | crate::Event::StreamFailed { .. }
            | crate::Event::RoleChanged(_)
            | crate::Event::NominationFailed { .. }
            | crate::Event::RouteLost { .. }
            | crate::Event::KeepAliveDue { .. }
            | crate::Event::ExchangeNeeded => {}
        }
        self.events.push_back(SessionEvent::Ice(event));
    }

    pub(super) fn close_relays(&mut self, now: Instant, concerned: impl Fn(RelayId) -> bool) {
        let ids: alloc::vec::Vec<RelayId> = self.relays.keys().copied().collect();
        for id in ids.into_iter().filter(|id| concerned(*id)) {
            let Some(relay) = self.relays.get_mut(&id) else {
                continue;
            };
            let phase = core::mem::replace(&mut relay.phase, Phase::Stream);
            match phase {
                // What may come of it goes with the stream, and an answer might never come.
                Phase::Allocating(_) if relay.host.is_none() => self.remove_relay(id),
                Phase::Allocating(mut client)
                | Phase::Active(mut client)
                | Phase::Doubted(mut client)
                | Phase::Kept(mut client) => {
                    client.close(now);
                    relay.phase = Phase::Closing(client);
                }
                Phase::Closing(client) | Phase::Replacing(client) => {
                    relay.phase = Phase::Closing(client);
                }
                Phase::Stream | Phase::Socket => self.remove_relay(id),
            }
        }
    }

    /// Some components are gone.
    pub(super) fn close_needless_relays(&mut self, now: Instant) {
        let gone = |component: ComponentId| !self.agent.has_component(component);
        let ids: smallvec::SmallVec<[RelayId; 8]> = self
            .relays
            .iter()
            .filter(|(_, relay)| gone(relay.component))
            .map(|(id, _)| *id)
            .collect();
        self.jobs.retain(|job| match job {
            Job::Open { component, .. } => self.agent.has_component(*component),
            Job::Binding { .. } | Job::Allocate { .. } => true,
        });
        self.close_relays(now, |id| ids.contains(&id));
        self.check_gathered(now);
    }

    /// The address some relays are reached from is gone.
    pub(super) fn close_relays_from(&mut self, now: Instant, addr: SocketAddr) {
        let gone = |host: usize| self.hosts.get(host).is_some_and(|host| host.addr == addr);
        let ids: smallvec::SmallVec<[RelayId; 8]> = self
            .relays
            .iter()
            .filter(|(_, relay)| relay.host.is_some_and(gone))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.remove_relay(id);
            self.agent.relay_lost(now, id);
        }
    }

    /// Gathering has taken too long: relays that are not there yet will never be.
    pub(super) fn give_up_relays(&mut self) {
        let now = self.clock.now();
        for relay in self.relays.values_mut() {
            relay.end();
            if matches!(relay.phase, Phase::Doubted(_)) {
                relay.turn(Phase::Kept);
            }
        }
        let late: smallvec::SmallVec<[RelayId; 8]> = self
            .relays
            .iter()
            .filter(|(_, relay)| relay.is_begun())
            .map(|(id, _)| *id)
            .collect();
        for id in &late {
            let step = match self.relays.get(id).map(|relay| &relay.phase) {
                Some(Phase::Stream | Phase::Socket) => Step::Open,
                Some(
                    Phase::Allocating(_)
                    | Phase::Active(_)
                    | Phase::Doubted(_)
                    | Phase::Kept(_)
                    | Phase::Closing(_)
                    | Phase::Replacing(_),
                )
                | None => Step::Allocate,
            };
            self.server_failed(*id, step, ServerFailure::Timeout);
        }
        self.close_relays(now, |id| late.contains(&id));
    }
}

/// Relays over UDP before those over TCP before those over TLS, then in the order of the servers,
/// then of the host addresses.
fn relay_preference(transport: Transport, server: usize, host: Option<usize>) -> u16 {
    let leg = match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls | Transport::Dtls => 2,
    };
    let rank = (leg << 13) | ((server & 0xF) << 8) | (host.unwrap_or_default() & 0xFF);
    65535_u16.saturating_sub(rank as u16)
}

/// What stands for an address that is not shown (RFC 8839 section 5.1).
const fn nowhere(like: SocketAddr) -> SocketAddr {
    let ip = match like {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 9)
}
