//! The edge proxy: remembers which flow leads to which client, and is the only way to it (RFC 5626
//! section 5, RFC 3261 section 16).

mod agree;
mod binding;
mod config;
mod flow;
mod forward;
mod heirs;
mod names;
mod output;
mod pcscf;
mod plan;
mod respond;
mod token;

use core::net::SocketAddr;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::{FiveTuple, Rng};

pub use config::{EdgeConfig, EdgeConfigError, EdgeSecAgree, PcscfConfig, ServiceRouteCheck};
pub use flow::{EdgeFlowEnd, Side};
pub use token::{FlowToken, FlowTokenKeys, ForgedToken};

use crate::Instant;
use crate::framing::{DatagramKind, Frame, PONG, answer_binding, classify};
use crate::outbox::Leftovers;
use crate::time::{Clock, Timers};
use crate::transaction::{ClientId, ClientTransactions, ServerId, ServerTransactions};
use crate::ua::{FlowAction, FlowId, FlowTarget};
use crate::wire::{Aor, Message};
use flow::{EdgeFlow, NextHop, Waiting};
use heirs::Heirs;
use plan::LoopKey;
use respond::Context;

/// One name for each reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A flow has been silent, or without registration, for too long.
    Idle(FlowId),
    /// A message is not complete.
    Message(FlowId),
    /// The registration of a flow runs out.
    Registration(FlowId),
}

/// What the host may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeEvent {
    /// A client has registered over this flow, or refreshed.
    Registered {
        /// The flow.
        flow: FlowId,
        /// Who.
        aor: Aor,
    },
    /// The registration over this flow has ended.
    Unregistered {
        /// The flow.
        flow: FlowId,
    },
    /// A flow is gone.
    FlowEnded {
        /// The flow.
        flow: FlowId,
        /// Why.
        end: EdgeFlowEnd,
    },
    /// A response could not be delivered: the flow of its request is gone.
    ResponseLost {
        /// The flow.
        flow: FlowId,
    },
}

/// An edge proxy.
///
/// Clients are on the access side, everything else on the core side. The host accepts connections
/// and hands their bytes in; connections to the core are asked for by
/// [`poll_action`](Self::poll_action).
///
/// ```
/// use sip_outbound::{EdgeConfig, EdgeProxy, FlowAction, Instant, Side};
/// use stun_proto::{FiveTuple, Path, StreamId, Transport};
///
/// let mut config = EdgeConfig::new("ep1.example.com");
/// config.next_hop = Some("sip:registrar.example.com;transport=tcp".parse().unwrap());
/// let now = Instant::ZERO;
/// let mut edge = EdgeProxy::new(config, [7; 32], now).unwrap();
///
/// let at = |local: &str, remote: &str, transport| FiveTuple {
///     transport,
///     local: local.parse().unwrap(),
///     remote: remote.parse().unwrap(),
/// };
/// let client = at("203.0.113.1:5061", "198.51.100.7:51044", Transport::Tls);
/// let client = edge.flow_accepted(now, client, Side::Access).unwrap();
/// let register = b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TLS 10.7.0.9;branch=z9hG4bK1;rport\r\n\
///     From: <sip:a@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\n\
///     Supported: path, outbound\r\nContact: <sip:a@10.7.0.9>;reg-id=1;+sip.instance=\"<urn:uuid:1>\"\r\n\
///     Content-Length: 0\r\n\r\n";
/// edge.handle_flow_input(now, client, register);
///
/// // It has to go on: the host connects, and writes.
/// let Some(FlowAction::OpenFlow { flow, target }) = edge.poll_action() else { panic!() };
/// assert_eq!(target.uri.as_uri().host(), "registrar.example.com");
/// edge.flow_opened(now, flow, at("192.0.2.1:40000", "192.0.2.2:5060", Transport::Tcp));
/// let mut buf = [0; 2048];
/// let sent = edge.poll_transmit(&mut buf).unwrap();
/// assert_eq!(sent.to, Path::Stream(StreamId(flow.0)));
/// let text = core::str::from_utf8(&buf[..sent.len]).unwrap();
/// assert!(text.contains(";received=198.51.100.7") && text.contains("@ep1.example.com;lr;ob>"));
/// ```
#[derive(Debug)]
pub struct EdgeProxy {
    config: EdgeConfig,
    rng: Rng,
    clock: Clock,
    timers: Timers<Timer>,
    tokens: FlowTokenKeys,
    /// Salt of the loop check.
    loop_key: LoopKey,
    next_flow: u64,
    next_serial: u64,
    flows: BTreeMap<FlowId, EdgeFlow>,
    /// Streams that have something to send.
    ready: BTreeSet<FlowId>,
    by_tuple: BTreeMap<FiveTuple, FlowId>,
    /// Flows to the core that were opened from here.
    core: BTreeMap<NextHop, FlowId>,
    /// Flows of the core side, whoever opened them.
    core_flows: usize,
    leftovers: Leftovers,
    datagrams: VecDeque<(FiveTuple, Bytes)>,
    clients: ClientTransactions,
    servers: ServerTransactions,
    contexts: BTreeMap<ServerId, Context>,
    heirs: Heirs,
    /// INVITEs of clients, by their flow.
    calling: BTreeSet<(FlowId, ServerId)>,
    by_client: BTreeMap<ClientId, ServerId>,
    /// Requests that wait for a flow to the core.
    waiting: BTreeMap<FlowId, Vec<Waiting>>,
    waiting_count: usize,
    actions: VecDeque<FlowAction>,
    events: VecDeque<EdgeEvent>,
    dropped: u64,
}

impl EdgeProxy {
    /// A proxy without flows. `seed` must come from a cryptographic source.
    ///
    /// # Errors
    /// [`EdgeConfigError`].
    pub fn new(config: EdgeConfig, seed: [u8; 32], now: Instant) -> Result<Self, EdgeConfigError> {
        config.check()?;
        let mut rng = Rng::from_seed(seed);
        let tokens = match &config.token_key {
            Some(key) => FlowTokenKeys::new(key),
            None => FlowTokenKeys::random(&mut rng),
        };
        Ok(Self {
            tokens,
            loop_key: LoopKey(rng.bytes()),
            // Serials of another boot must not come again.
            next_serial: rng.u64(),
            rng,
            clock: Clock::new(now),
            timers: Timers::new(),
            next_flow: 1,
            flows: BTreeMap::new(),
            ready: BTreeSet::new(),
            by_tuple: BTreeMap::new(),
            core: BTreeMap::new(),
            core_flows: 0,
            leftovers: Leftovers::default(),
            datagrams: VecDeque::new(),
            clients: ClientTransactions::new(config.timings, config.max_client_transactions, now),
            servers: ServerTransactions::new(config.timings, config.max_server_transactions, now),
            contexts: BTreeMap::new(),
            heirs: Heirs::default(),
            calling: BTreeSet::new(),
            by_client: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            dropped: 0,
            config,
        })
    }

    /// The keys of the flow tokens, to be rotated.
    pub const fn token_keys(&mut self) -> &mut FlowTokenKeys {
        &mut self.tokens
    }

    /// The host has accepted a connection, TLS finished. `None` when there are as many flows as
    /// allowed, or too many events wait: close it.
    pub fn flow_accepted(&mut self, now: Instant, at: FiveTuple, side: Side) -> Option<FlowId> {
        let now = self.clock.advance(now);
        if !self.has_room(side) || self.is_clogged() {
            return None;
        }
        Some(self.add_flow(now, side, None, Some(at)))
    }

    /// Whether one more flow may be accepted. Clients do not keep the core out, neither by flows of
    /// their own nor by those they have opened to it.
    fn has_room(&self, side: Side) -> bool {
        let (all, core) = (self.flows.len(), self.core_flows);
        match side {
            Side::Access => all.saturating_sub(core) < self.config.max_flows,
            Side::Core => core.saturating_sub(self.core.len()) < self.config.max_core_flows,
        }
    }

    /// Whether the host takes nothing of what it is told.
    fn is_clogged(&self) -> bool {
        self.actions.len().saturating_add(self.events.len()) >= self.config.max_events
    }

    /// Messages and datagrams that were dropped without an answer: unreadable, unexpected, or too
    /// many.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    const fn drop_one(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }

    fn add_flow(
        &mut self,
        now: Instant,
        side: Side,
        target: Option<FlowTarget>,
        at: Option<FiveTuple>,
    ) -> FlowId {
        let id = FlowId(self.next_flow);
        self.next_flow = self.next_flow.saturating_add(1);
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1);
        if side == Side::Core {
            self.core_flows = self.core_flows.saturating_add(1);
        }
        let mut flow = EdgeFlow::new(side, target, serial);
        if let Some(at) = at {
            flow.open(at, &self.config, now);
            if !at.transport.is_stream() {
                self.by_tuple.entry(at).or_insert(id);
            }
        }
        self.flows.insert(id, flow);
        self.touch(now, id);
        id
    }

    /// The host has opened a connection to the core that [`FlowAction::OpenFlow`] asked for.
    pub fn flow_opened(&mut self, now: Instant, flow: FlowId, at: FiveTuple) {
        let now = self.clock.advance(now);
        let Some(entry) = self.flows.get_mut(&flow).filter(|flow| flow.link.is_none()) else {
            return;
        };
        entry.open(at, &self.config, now);
        // Several next hops can be one address.
        if !at.transport.is_stream() {
            self.by_tuple.entry(at).or_insert(flow);
        }
        self.touch(now, flow);
        for waiting in self.take_waiting(flow) {
            self.send_waiting(now, flow, waiting);
        }
        self.settle(now);
    }

    /// A flow broke, was closed by the other side, or could not be opened.
    pub fn flow_failed(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        self.leftovers.forget(flow);
        self.end_flow(now, flow, EdgeFlowEnd::Closed);
        self.settle(now);
    }

    /// Takes in bytes of a stream.
    pub fn handle_flow_input(&mut self, now: Instant, flow: FlowId, mut data: &[u8]) {
        let now = self.clock.advance(now);
        if !data.is_empty() {
            self.touch(now, flow);
        }
        loop {
            let framer = self.flows.get_mut(&flow).and_then(EdgeFlow::framer);
            let Some(frame) = framer.and_then(|framer| framer.next(now, &mut data)) else {
                break;
            };
            self.handle_frame(now, flow, frame);
            // What this one brings about goes out before what the next one does.
            self.settle(now);
        }
        self.watch_message(flow);
    }

    /// Takes in a datagram of the access side, from whomever.
    pub fn handle_datagram(&mut self, now: Instant, at: FiveTuple, data: &[u8]) {
        self.datagram(now, Side::Access, at, data);
    }

    /// Takes in a datagram of the core side: from somebody the host knows by its address and trusts.
    pub fn handle_core_datagram(&mut self, now: Instant, at: FiveTuple, data: &[u8]) {
        self.datagram(now, Side::Core, at, data);
    }

    fn datagram(&mut self, now: Instant, side: Side, at: FiveTuple, data: &[u8]) {
        let now = self.clock.advance(now);
        let known = self.by_tuple.get(&at).copied();
        match classify(data) {
            DatagramKind::KeepAlive => {
                if let Some(flow) = known {
                    self.touch(now, flow);
                }
            }
            DatagramKind::Stun => {
                if let Some(flow) = known {
                    self.touch(now, flow);
                }
                if let Some(answer) = answer_binding(at, data) {
                    self.push_datagram(at, answer);
                }
            }
            DatagramKind::Sip => {
                let limits = match known.and_then(|flow| self.flows.get(&flow)) {
                    Some(flow) if flow.registration.is_some() => self.config.parse.limits,
                    Some(_) | None if side == Side::Core => self.config.parse.limits,
                    Some(_) | None => self.config.unregistered_limits,
                };
                let parse = crate::wire::ParseConfig {
                    limits,
                    ..self.config.parse
                };
                match Message::parse(data, &parse) {
                    Ok(message) => match self.datagram_flow(now, side, at, &message) {
                        Some(flow) => {
                            self.touch(now, flow);
                            self.handle_message(now, flow, message);
                        }
                        None => self.drop_one(),
                    },
                    Err(_) => self.drop_one(),
                }
            }
        }
        self.settle(now);
    }

    /// The flow of a datagram; only what looks like a request opens one.
    fn datagram_flow(
        &mut self,
        now: Instant,
        side: Side,
        at: FiveTuple,
        message: &Message,
    ) -> Option<FlowId> {
        let known = self.by_tuple.get(&at).copied();
        known.or_else(|| {
            let room = self.has_room(side) && !self.is_clogged();
            (room && message.is_request()).then(|| self.add_flow(now, side, None, Some(at)))
        })
    }

    fn handle_frame(&mut self, now: Instant, flow: FlowId, frame: Frame) {
        match frame {
            Frame::Message(message) => self.handle_message(now, flow, message),
            Frame::Ping => self.push(now, flow, Bytes::from_static(PONG)),
            Frame::Pong => {}
            Frame::Broken { error, message } => {
                if let Some(message) = message {
                    self.refuse_broken(now, flow, &message);
                }
                self.end_flow(now, flow, EdgeFlowEnd::Framing(error));
            }
        }
    }

    /// The flow lives: starts the wait for its next sign of life.
    fn touch(&mut self, now: Instant, flow: FlowId) {
        let Some(entry) = self.flows.get(&flow) else {
            return;
        };
        let wait = match (&entry.registration, entry.side) {
            // As long as a request would wait for an answer.
            (_, Side::Core) if entry.link.is_none() => self.config.timings.timeout(),
            (_, Side::Core) => self.config.core_idle,
            // Signs of life do not replace a registration.
            (None, Side::Access) if self.timers.get(Timer::Idle(flow)).is_some() => return,
            (None, Side::Access) => self.config.unregistered_timeout,
            (Some(registration), Side::Access) => match registration.interval {
                None => {
                    self.timers.disarm(Timer::Idle(flow));
                    return;
                }
                Some(seconds) => core::time::Duration::from_secs(u64::from(seconds))
                    .saturating_add(self.config.flow_grace),
            },
        };
        self.timers.arm(Timer::Idle(flow), now, wait);
    }

    fn watch_message(&mut self, flow: FlowId) {
        let framer = self.flows.get_mut(&flow).and_then(EdgeFlow::framer);
        let deadline = framer.and_then(|framer| framer.poll_timeout());
        self.timers.set(Timer::Message(flow), deadline);
    }

    /// Ends a flow: requests towards it fail, and its token is dead.
    fn end_flow(&mut self, now: Instant, flow: FlowId, end: EdgeFlowEnd) {
        let path = self.path(flow);
        let Some(entry) = self.flows.remove(&flow) else {
            return;
        };
        for timer in [
            Timer::Idle(flow),
            Timer::Message(flow),
            Timer::Registration(flow),
        ] {
            self.timers.disarm(timer);
        }
        // Others may go the same way: next hops with one address.
        let mut shared = false;
        if let Some(at) = entry.at {
            if self.by_tuple.get(&at) == Some(&flow) {
                self.by_tuple.remove(&at);
                let mut core = self.core.values().copied();
                let same =
                    |flow: &FlowId| self.flows.get(flow).and_then(|flow| flow.at) == Some(at);
                if let Some(heir) = core.find(same) {
                    self.by_tuple.insert(at, heir);
                }
            }
            shared = self.by_tuple.contains_key(&at);
        }
        if let Some(target) = &entry.target {
            self.core.remove(&NextHop::of(&target.uri));
        }
        self.ready.remove(&flow);
        if entry.side == Side::Core {
            self.core_flows = self.core_flows.saturating_sub(1);
        }
        let path = path.filter(|_| !shared);
        let lost = path.map(|path| self.clients.path_failed(path));
        for client in lost.unwrap_or_default() {
            self.branch_failed(now, client, entry.side == Side::Access);
        }
        for waiting in self.take_waiting(flow) {
            self.waiting_failed(now, waiting);
        }
        if entry.side == Side::Access {
            self.cancel_invites_of(now, flow);
        }
        if !matches!(end, EdgeFlowEnd::Closed | EdgeFlowEnd::Unsent) {
            self.leftovers.keep(flow, entry.out);
        }
        let stream = entry.at.is_none_or(|at| at.transport.is_stream());
        if stream {
            self.actions.push_back(FlowAction::CloseFlow { flow });
        }
        if let Some(registration) = entry.registration {
            if let (Some(client), Some(at)) = (registration.client, entry.at) {
                let token = FlowToken {
                    at,
                    serial: entry.serial,
                };
                self.heirs.bury(client, flow, token, self.config.max_flows);
            }
            self.events.push_back(EdgeEvent::Unregistered { flow });
        }
        self.events.push_back(EdgeEvent::FlowEnded { flow, end });
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Idle(flow) => self.end_flow(now, flow, EdgeFlowEnd::Idle),
                Timer::Message(flow) => {
                    let framer = self.flows.get_mut(&flow).and_then(EdgeFlow::framer);
                    if let Some(frame) = framer.and_then(|framer| framer.handle_timeout(now)) {
                        self.handle_frame(now, flow, frame);
                    }
                }
                Timer::Registration(flow) => self.unregister(now, flow),
            }
        }
        self.clients.handle_timeout(now);
        self.servers.handle_timeout(now);
        self.settle(now);
    }

    fn unregister(&mut self, now: Instant, flow: FlowId) {
        let config = &self.config;
        if let Some(entry) = self.flows.get_mut(&flow)
            && let Some(registration) = entry.registration.take()
        {
            if let Some(client) = registration.client {
                self.heirs.unregister(&client, flow);
            }
            entry.narrow(config);
            self.timers.disarm(Timer::Registration(flow));
            self.timers.disarm(Timer::Idle(flow));
            self.events.push_back(EdgeEvent::Unregistered { flow });
            self.touch(now, flow);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.clients.poll_timeout(),
            self.servers.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the host must do next. A flow to the core is opened like one of a
    /// [`UserAgent`](crate::UserAgent).
    pub fn poll_action(&mut self) -> Option<FlowAction> {
        self.actions.pop_front()
    }

    /// What the host may want to know next.
    pub fn poll_event(&mut self) -> Option<EdgeEvent> {
        self.events.pop_front()
    }

    /// A bound for the bytes this proxy ever holds: see [`EdgeConfig::max_memory`].
    pub const fn max_memory(&self) -> usize {
        self.config.max_memory()
    }

    /// How many flows there are.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// Whom the registration over a flow is of.
    pub fn registered(&self, flow: FlowId) -> Option<&Aor> {
        let registration = self.flows.get(&flow)?.registration.as_ref()?;
        Some(&registration.aor)
    }

    fn remote(&self, flow: FlowId) -> Option<SocketAddr> {
        Some(self.flows.get(&flow)?.at?.remote)
    }
}

#[cfg(test)]
mod tests;
