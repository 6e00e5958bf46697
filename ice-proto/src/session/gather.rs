//! Finding candidates (RFC 8445 section 5.1.1): Binding requests and allocations, no two of them
//! started closer together than Ta.

use core::net::SocketAddr;
use core::time::Duration;

use stun_proto::wire::{Class, ErrorCode, Message, MessageType, Method, Writer, XorMappedAddress};
use stun_proto::{FiveTuple, Instant, Path, StreamId, Transport};

use super::{
    Gathering, MAX_SERVERS, Policy, ServerFailure, Session, SessionAction, SessionEvent, Step,
    Timer,
};
use crate::{Base, CandidateKind, ComponentId, LocalCandidate};

/// One thing to start when its turn has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Ask `server` for the reflexive address of a host address.
    Binding { host: usize, server: SocketAddr },
    /// Ask a TURN server for a relay, from a host address.
    Allocate { host: usize, server: usize },
    /// Ask a TURN server for a relay, over a stream.
    Open {
        component: ComponentId,
        server: usize,
    },
}

/// An open Binding transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub(super) host: usize,
    pub(super) server: SocketAddr,
    /// The address is known; the request only keeps the NAT's mapping.
    keep: bool,
}

impl Session {
    /// Notes what is to be asked from a host address.
    pub(super) fn plan_host(&mut self, host: usize) {
        let wanted = |host: &&super::HostAddress| {
            !host.gone && !host.for_relay && self.agent.has_component(host.component)
        };
        let known = self.hosts.get(host).filter(wanted);
        let Some(addr) = known.map(|host| host.addr) else {
            return;
        };
        let fits = |server: &SocketAddr| server.is_ipv4() == addr.is_ipv4();
        if self.config.policy == Policy::All {
            for server in self.config.stun_servers.iter().take(MAX_SERVERS) {
                if fits(server) {
                    let server = *server;
                    self.jobs.push_back(Job::Binding { host, server });
                }
            }
        }
        for (server, turn) in self
            .config
            .turn_servers
            .iter()
            .enumerate()
            .take(MAX_SERVERS)
        {
            if turn.transport != Transport::Udp || !fits(&turn.addr) {
                continue;
            }
            let path = Path::Datagram(FiveTuple::udp(addr, turn.addr));
            let owner = self.by_path.get(&path);
            let Some(relay) = owner.and_then(|owner| self.relays.get_mut(owner)) else {
                self.jobs.push_back(Job::Allocate { host, server });
                continue;
            };
            if !relay.replace() && self.config.policy == Policy::All {
                // The relay is there from before a restart; what the NAT shows may have changed.
                let server = turn.addr;
                self.jobs.push_back(Job::Binding { host, server });
            }
        }
    }

    /// Notes what is to be asked over streams, once per component.
    pub(super) fn plan_streams(&mut self) {
        for (server, turn) in self
            .config
            .turn_servers
            .iter()
            .enumerate()
            .take(MAX_SERVERS)
        {
            match turn.transport {
                Transport::Udp => {}
                Transport::Tcp | Transport::Tls => {
                    let streams = self.config.agent.components.iter().enumerate();
                    for (stream, count) in streams {
                        for component in 1..=*count {
                            let stream = stream as u16;
                            let component = ComponentId { stream, component };
                            if self.agent.has_component(component) {
                                self.jobs.push_back(Job::Open { component, server });
                            }
                        }
                    }
                }
                Transport::Dtls => self.events.push_back(SessionEvent::ServerFailed {
                    server: turn.addr,
                    transport: turn.transport,
                    step: Step::Open,
                    cause: ServerFailure::Unsupported,
                }),
            }
        }
    }

    /// The RTO while so much is asked at once: RFC 8445 section 14.3.
    pub(super) fn gathering_rto(&self) -> Duration {
        let candidates: u32 = self
            .jobs
            .iter()
            .map(|job| match job {
                Job::Binding { .. } | Job::Open { .. } => 1,
                Job::Allocate { .. } => 2,
            })
            .sum();
        let paced = self.config.agent.pacing.saturating_mul(candidates);
        self.config.retransmit.rto.max(paced)
    }

    /// Starts jobs until one has something to send.
    pub(super) fn start_job(&mut self, now: Instant) {
        while let Some(job) = self.jobs.pop_front() {
            let sends = match job {
                Job::Binding { host, server } => self.ask_binding(now, host, server, false),
                Job::Allocate { host, server } => self.open_datagram_relay(now, host, server),
                Job::Open { component, server } => {
                    self.open_stream_relay(now, component, server);
                    false
                }
            };
            if sends {
                return;
            }
        }
    }

    pub(super) fn ask_binding(
        &mut self,
        now: Instant,
        host: usize,
        server: SocketAddr,
        keep: bool,
    ) -> bool {
        let Some(local) = self.hosts.get(host).map(|host| host.addr) else {
            return false;
        };
        let id = self.rng.transaction_id();
        let mut buf = [0; 64];
        let request = MessageType::request(Method::BINDING);
        let written = Writer::new(&mut buf, request, id).fingerprint().finish();
        let request = written.ok().and_then(|len| buf.get(..len));
        let path = Path::Datagram(FiveTuple::udp(local, server));
        let context = Binding { host, server, keep };
        request.is_some_and(|request| {
            let started = self.bindings.start(now, path, id, request, context);
            started.is_ok()
        })
    }

    /// Takes in an answer of a STUN server; whether it was one.
    pub(super) fn binding_response(&mut self, now: Instant, at: FiveTuple, data: &[u8]) -> bool {
        if self.bindings.is_empty() {
            return false;
        }
        let Ok(message) = Message::parse(data) else {
            return false;
        };
        let (class, id) = (message.class(), message.transaction_id());
        let is_response = matches!(class, Class::Success | Class::Error);
        let path = Path::Datagram(at);
        if !is_response || self.bindings.context_mut(path, id).is_none() {
            return false;
        }
        let Some(binding) = self.bindings.finish(now, id) else {
            return false;
        };
        let answer = match (class, message.find(), message.find::<ErrorCode<'_>>()) {
            // ALTERNATE-SERVER is not followed (RFC 8445 section 5.1.1.2).
            (Class::Error, _, Some(error)) => Err(ServerFailure::Code(error.code())),
            (Class::Success, Some(XorMappedAddress(mapped)), _) => Ok(mapped),
            (Class::Success | Class::Error | Class::Request | Class::Indication, _, _) => {
                Err(ServerFailure::Malformed)
            }
        };
        self.binding_ended(now, binding, answer);
        true
    }

    pub(super) fn binding_ended(
        &mut self,
        now: Instant,
        binding: Binding,
        answer: Result<SocketAddr, ServerFailure>,
    ) {
        let Binding { host, server, keep } = binding;
        if keep {
            self.arm_keep_binding(now, host, server);
            return;
        }
        match answer {
            Ok(mapped) => {
                self.reflexive(host, server, mapped);
                self.arm_keep_binding(now, host, server);
            }
            Err(cause) => self.events.push_back(SessionEvent::ServerFailed {
                server,
                transport: Transport::Udp,
                step: Step::Binding,
                cause,
            }),
        }
        self.check_gathered(now);
    }

    fn arm_keep_binding(&mut self, now: Instant, host: usize, server: SocketAddr) {
        if !self.concluded {
            let every = self.config.keep_binding;
            self.timers
                .arm(Timer::KeepBinding(host, server), now, every);
        }
    }

    /// Adds a server-reflexive candidate.
    pub(super) fn reflexive(&mut self, host: usize, server: SocketAddr, mapped: SocketAddr) {
        let Some(known) = self.hosts.get(host).copied() else {
            return;
        };
        if self.config.policy != Policy::All || known.for_relay {
            return;
        }
        let rank = self
            .config
            .stun_servers
            .iter()
            .position(|known| *known == server)
            .unwrap_or(MAX_SERVERS);
        self.add_candidate(LocalCandidate {
            component: known.component,
            kind: CandidateKind::ServerReflexive,
            addr: mapped,
            base: Base::Host(known.addr),
            local_preference: known.preference.saturating_sub(rank as u16),
            server: Some(server.ip()),
            related: Some(known.addr),
        });
    }

    /// Hands a candidate to the agent, and tells the application unless it is redundant.
    pub(super) fn add_candidate(&mut self, candidate: LocalCandidate) {
        let stream = candidate.component.stream;
        let now = self.clock.now();
        if let Ok(candidate) = self.agent.add_local_candidate(now, candidate) {
            let event = SessionEvent::LocalCandidate { stream, candidate };
            self.events.push_back(event);
        }
    }

    /// Ends gathering once nothing is missing any more.
    pub(super) fn check_gathered(&mut self, now: Instant) {
        let missing = !self.jobs.is_empty()
            || self.bindings.contexts().any(|(_, binding)| !binding.keep)
            || self.relays.values().any(|relay| relay.is_gathering());
        if self.gathering == Gathering::Running && !missing {
            self.end_gathering(now);
        }
    }

    /// Every component may have its relay by now: the rest is not waited for much longer.
    pub(super) fn check_enough(&mut self, now: Instant) {
        let Some(wait) = self.config.enough else {
            return;
        };
        let streams = (0_u16..).zip(&self.config.agent.components);
        let mut all = streams.flat_map(|(stream, _)| {
            (1..=self.agent.component_count(stream))
                .map(move |component| ComponentId { stream, component })
        });
        let relayed = |component| {
            let default = self.agent.default_candidate(component);
            default.is_some_and(|known| known.kind == CandidateKind::Relayed)
        };
        let armed = self.timers.get(Timer::Enough).is_some();
        if self.gathering == Gathering::Running && !armed && all.all(relayed) {
            self.timers.arm(Timer::Enough, now, wait);
        }
    }

    /// Time is up: what is missing is given up.
    pub(super) fn gathering_timed_out(&mut self, now: Instant) {
        if self.gathering != Gathering::Running {
            return;
        }
        self.jobs.clear();
        let open: alloc::vec::Vec<_> = self
            .bindings
            .contexts()
            .filter(|(_, binding)| !binding.keep)
            .map(|(id, _)| id)
            .collect();
        for id in open {
            if let Some(binding) = self.bindings.cancel(id) {
                self.binding_ended(now, binding, Err(ServerFailure::Timeout));
            }
        }
        self.give_up_relays();
        self.end_gathering(now);
    }

    fn end_gathering(&mut self, now: Instant) {
        if self.gathering == Gathering::Running {
            self.gathering = Gathering::Done;
            self.gate = None;
            self.timers.disarm(Timer::Gathering);
            self.timers.disarm(Timer::Enough);
            self.agent.local_gathering_done(now);
            self.events.push_back(SessionEvent::GatheringDone);
        }
    }

    pub(super) const fn next_stream_id(&mut self) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream = self.next_stream.saturating_add(1);
        id
    }

    pub(super) fn open_stream(&mut self, server: usize) -> Option<StreamId> {
        let turn = self.config.turn_servers.get(server)?;
        let (transport, remote) = (turn.transport, turn.addr);
        let server_name = turn.server_name.clone();
        let id = self.next_stream_id();
        self.actions.push_back(SessionAction::OpenStream {
            id,
            transport,
            remote,
            server_name,
        });
        Some(id)
    }
}
