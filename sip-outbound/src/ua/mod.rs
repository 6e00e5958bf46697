//! The user agent: flows to the edge proxies, registrations over them, and the requests that go
//! both ways (RFC 5626 section 4).

mod agree;
mod answer;
mod backoff;
mod config;
mod dialog;
mod dialog_keep;
mod draft;
mod elsewhere;
mod event;
mod flow;
mod idle;
mod inbound;
mod keepalive;
mod others;
mod output;
mod pace;
mod registration;
mod request;
mod slot;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::{FiveTuple, Path, Rng};

pub use config::{
    ConfigError, InstanceId, KeepAlive, Profile, Recovery, SecAgree, UserAgentConfig,
    WithoutOutbound,
};
pub use dialog::{Dialog, DialogError};
pub use draft::{NewRequest, NextHop, RequestError};
pub use event::{
    FlowAction, FlowFailure, FlowId, FlowTarget, Refusal, Registration, RegistrationEnd,
    RequestFailure, RequestId, UserAgentEvent,
};
pub use idle::IdleTime;

use crate::Instant;
use crate::framing::{DatagramKind, Frame, Framer, FramerConfig, PONG, Role, classify};
use crate::outbox::{Leftovers, Outbox};
use crate::time::{Clock, Timers};
use crate::transaction::{ClientId, ClientTransactions, ServerId, ServerTransactions};
use crate::wire::{Message, ParseConfig, UriBuf};
use dialog_keep::DialogKeeps;
use flow::{Flow, Link, Open, Ping, Purpose, Silence};
use idle::Idle;
use inbound::AcceptedCalls;
use request::Pending;
use slot::Slot;

/// Largest datagram the machine writes: what fits any path, larger requests need a stream (RFC
/// 3261 section 18.1.1), and responses are as large as they have to be.
pub const MAX_TRANSMIT: usize = 65_535;

/// One name for each reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Register again.
    Refresh(usize),
    /// REGISTER has waited long enough for its turn.
    Paced(usize),
    /// Open the flow again.
    Retry(usize),
    /// The binding runs out.
    Expiry(usize),
    /// Ask whether the flow is alive.
    KeepAlive(FlowId),
    /// The answer is late.
    Pong(FlowId),
    /// A message is not complete.
    Message(FlowId),
    /// What is to be sent is not taken.
    Unsent(FlowId),
    /// Send a 2xx again.
    Accepted(ServerId),
}

/// A SIP user agent with several flows to its domain.
///
/// The host opens and closes connections as [`poll_action`](Self::poll_action) says, hands in
/// bytes, and writes what [`poll_transmit`](Self::poll_transmit) gives. The crate documentation
/// shows the loop.
///
/// ```
/// use sip_outbound::wire::{Builder, Limits, Message, Method, Name, ParseConfig, Request, StatusCode};
/// use sip_outbound::{
///     FlowAction, InstanceId, Instant, NewRequest, UserAgent, UserAgentConfig, UserAgentEvent,
/// };
/// use stun_proto::{FiveTuple, Transport};
///
/// let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
/// let proxy = "sips:pcscf.example.com".parse().unwrap();
/// let config = UserAgentConfig::new("sip:alice@example.com".parse().unwrap(), instance, vec![proxy]);
/// let now = Instant::ZERO;
/// let mut ua = UserAgent::new(config, [7; 32], now).unwrap();
/// ua.start(now);
/// let Some(FlowAction::OpenFlow { flow, .. }) = ua.poll_action() else { panic!() };
/// let at = FiveTuple {
///     transport: Transport::Tls,
///     local: "10.7.0.9:40112".parse().unwrap(),
///     remote: "203.0.113.1:5061".parse().unwrap(),
/// };
/// ua.flow_opened(now, flow, at, vec!["pcscf.example.com".into()]);
///
/// // The edge proxy answers what it is sent.
/// let mut buf = [0; 2048];
/// let sent = ua.poll_transmit(&mut buf).unwrap();
/// let message = Message::parse(&buf[..sent.len], &ParseConfig::default()).unwrap();
/// let register = Request::check(message, &Limits::DEFAULT).unwrap();
/// let answer = Builder::reply(&register, StatusCode::OK, Some("t"))
///     .copy_all(&register, Name::CONTACT)
///     .header(Name::REQUIRE, "outbound")
///     .finish(b"")
///     .unwrap();
/// ua.handle_flow_input(now, flow, answer.as_bytes());
/// assert!(matches!(ua.poll_event(), Some(UserAgentEvent::Registered { reg_id: 1, .. })));
///
/// // The flow is proven by a ping at once, and from now on requests go both ways.
/// let sent = ua.poll_transmit(&mut buf).unwrap();
/// assert_eq!(&buf[..sent.len], b"\r\n\r\n");
/// ua.handle_flow_input(now, flow, b"\r\n");
/// let hello = NewRequest::new(Method::MESSAGE, "sip:bob@example.com").body("text/plain", "hello");
/// ua.request(now, hello).unwrap();
/// let sent = ua.poll_transmit(&mut buf).unwrap();
/// assert!(buf[..sent.len].starts_with(b"MESSAGE sip:bob@example.com SIP/2.0\r\n"));
/// ```
#[derive(Debug)]
pub struct UserAgent {
    config: UserAgentConfig,
    rng: Rng,
    auth_rng: http_connect::Rng,
    clock: Clock,
    timers: Timers<Timer>,
    next_flow: u64,
    next_request: u64,
    flows: BTreeMap<FlowId, Flow>,
    /// How long streams may be silent in this network.
    idle: Idle,
    slots: Vec<Slot>,
    /// Proxies that no slot uses at present.
    spares: VecDeque<UriBuf>,
    service_route: Vec<UriBuf>,
    clients: ClientTransactions,
    servers: ServerTransactions,
    /// Transactions of REGISTER requests, by slot.
    registers: BTreeMap<ClientId, usize>,
    /// Requests of the application.
    requests: BTreeMap<RequestId, Pending>,
    by_client: BTreeMap<ClientId, RequestId>,
    accepted: AcceptedCalls,
    dialog_keeps: DialogKeeps,
    leftovers: Leftovers,
    actions: VecDeque<FlowAction>,
    events: VecDeque<UserAgentEvent>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Stopping,
    Stopped,
}

impl UserAgent {
    /// A user agent that does nothing until [`start`](Self::start). `seed` must come from a
    /// cryptographic source.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: UserAgentConfig, seed: [u8; 32], now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = Rng::from_seed(seed);
        let slots = config
            .proxies
            .iter()
            .take(config.flows)
            .zip(1..)
            .map(|(proxy, reg_id)| Slot::new(reg_id, proxy.clone(), &config, &mut rng))
            .collect();
        let spares = config.proxies.iter().skip(config.flows).cloned().collect();
        Ok(Self {
            auth_rng: http_connect::Rng::from_seed(rng.fork()),
            rng,
            clock: Clock::new(now),
            timers: Timers::new(),
            next_flow: 1,
            next_request: 1,
            flows: BTreeMap::new(),
            idle: Idle::default(),
            slots,
            spares,
            service_route: Vec::new(),
            clients: ClientTransactions::new(config.timings, config.max_transactions, now),
            servers: ServerTransactions::new(config.timings, config.max_transactions, now),
            registers: BTreeMap::new(),
            requests: BTreeMap::new(),
            by_client: BTreeMap::new(),
            accepted: AcceptedCalls::default(),
            dialog_keeps: DialogKeeps::default(),
            leftovers: Leftovers::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            phase: Phase::Idle,
            config,
        })
    }

    /// Opens the flows and registers. Does nothing when running.
    pub fn start(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if self.phase != Phase::Idle {
            return;
        }
        self.phase = Phase::Running;
        for slot in 0..self.slots.len() {
            self.open_slot(now, slot);
        }
    }

    /// Removes all registrations and closes all flows; [`UserAgentEvent::Stopped`] is the end.
    pub fn stop(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        match self.phase {
            Phase::Stopping | Phase::Stopped => return,
            Phase::Idle | Phase::Running => self.phase = Phase::Stopping,
        }
        for slot in 0..self.slots.len() {
            self.stop_slot(now, slot);
        }
        self.settle(now);
        self.finish_if_stopped();
    }

    fn finish_if_stopped(&mut self) {
        let busy = self.slots.iter().any(Slot::is_removing);
        if self.phase != Phase::Stopping || busy {
            return;
        }
        self.phase = Phase::Stopped;
        let flows: Vec<_> = self.flows.keys().copied().collect();
        for flow in flows {
            self.close_flow(flow);
        }
        self.timers = Timers::new();
        self.requests.clear();
        self.by_client.clear();
        self.accepted = AcceptedCalls::default();
        let (now, config) = (self.clock.now(), &self.config);
        self.clients = ClientTransactions::new(config.timings, config.max_transactions, now);
        self.servers = ServerTransactions::new(config.timings, config.max_transactions, now);
        self.events.push_back(UserAgentEvent::Stopped);
    }

    fn new_flow(&mut self, target: FlowTarget, purpose: Purpose) -> FlowId {
        let id = FlowId(self.next_flow);
        self.next_flow = self.next_flow.saturating_add(1);
        let flow = Flow {
            id,
            target: target.clone(),
            purpose,
            open: None,
            keep_alive_cap: None,
        };
        self.flows.insert(id, flow);
        self.actions
            .push_back(FlowAction::OpenFlow { flow: id, target });
        id
    }

    /// The host has opened a flow. `at` says how and from where to where; `names` are those the
    /// peer has proven by its certificate, which the host has checked against
    /// [`FlowTarget::verify_name`].
    pub fn flow_opened(&mut self, now: Instant, flow: FlowId, at: FiveTuple, names: Vec<String>) {
        let now = self.clock.advance(now);
        let Some(entry) = self.flows.get_mut(&flow).filter(|flow| flow.open.is_none()) else {
            return;
        };
        if entry.target.needs_tls() && !at.transport.is_secure() {
            self.fail_flow(now, flow, FlowFailure::Insecure);
            return;
        }
        let link = if at.transport.is_stream() {
            let config = FramerConfig {
                parse: self.config.parse,
                ..FramerConfig::new(Role::Client)
            };
            Link::Stream(Framer::new(config, now))
        } else {
            Link::Datagram { mapped: None }
        };
        entry.open = Some(Open {
            at,
            names,
            link,
            out: Outbox::new(self.config.max_unsent),
            ping: Ping::None,
            answers: false,
            active: now,
            quiet: None,
            oldest: None,
        });
        match entry.purpose {
            Purpose::Slot(slot) => self.slot_opened(now, slot, flow),
            Purpose::Extra => self.send_waiting(now, flow),
        }
        self.settle(now);
    }

    /// The host could not open a flow, or one it had opened broke.
    pub fn flow_failed(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        self.leftovers.forget(flow);
        let cause = match self.flows.get(&flow) {
            None => return,
            Some(entry) if entry.open.is_none() => FlowFailure::NotOpened,
            Some(_) => FlowFailure::Closed,
        };
        self.fail_flow(now, flow, cause);
        self.settle(now);
    }

    /// The other side has closed a flow, or half of it, or ended TLS.
    pub fn handle_flow_closed(&mut self, now: Instant, flow: FlowId) {
        self.flow_failed(now, flow);
    }

    /// Takes in bytes of a stream flow, or one datagram of a datagram flow.
    pub fn handle_flow_input(&mut self, now: Instant, flow: FlowId, data: &[u8]) {
        let now = self.clock.advance(now);
        let datagram = match self.open_mut(flow) {
            None => return,
            Some(open) => {
                open.active = now;
                matches!(open.link, Link::Datagram { .. })
            }
        };
        if datagram {
            self.handle_flow_datagram(now, flow, data);
        } else {
            self.handle_flow_stream(now, flow, data);
        }
        self.settle(now);
    }

    fn handle_flow_stream(&mut self, now: Instant, flow: FlowId, mut data: &[u8]) {
        loop {
            let frame = match self.open_mut(flow).map(|open| &mut open.link) {
                Some(Link::Stream(framer)) => framer.next(now, &mut data),
                Some(Link::Datagram { .. }) | None => return,
            };
            let Some(frame) = frame else {
                break;
            };
            self.handle_frame(now, flow, frame);
            // What this one brings about goes out before what the next one does.
            self.settle(now);
        }
        let late = self.open_mut(flow).is_some_and(|open| match &open.link {
            Link::Stream(framer) => matches!(open.ping, Ping::Late) && !framer.is_receiving(),
            Link::Datagram { .. } => false,
        });
        if late {
            self.fail_flow(now, flow, FlowFailure::KeepAlive);
        }
        self.watch_message(flow);
    }

    fn handle_frame(&mut self, now: Instant, flow: FlowId, frame: Frame) {
        match frame {
            Frame::Message(message) => self.handle_message(now, flow, message),
            Frame::Ping => self.push(now, flow, Bytes::from_static(PONG)),
            Frame::Pong => self.pong(now, flow),
            Frame::Broken { error, message } => {
                if let Some(message) = message {
                    self.refuse_broken(now, flow, &message);
                }
                self.fail_flow(now, flow, FlowFailure::Framing(error));
            }
        }
    }

    fn handle_flow_datagram(&mut self, now: Instant, flow: FlowId, data: &[u8]) {
        match classify(data) {
            DatagramKind::KeepAlive => {}
            DatagramKind::Stun => {
                let answered = self.open_mut(flow).map(|open| open.handle_stun(data));
                match answered {
                    Some(Ok(true)) => self.pong(now, flow),
                    Some(Ok(false)) | None => {}
                    Some(Err(cause)) => self.fail_flow(now, flow, cause),
                }
            }
            DatagramKind::Sip => {
                if let Ok(message) = Message::parse(data, &self.config.parse) {
                    self.handle_message(now, flow, message);
                }
            }
        }
    }

    /// The machine's deadline of a message that is being received.
    fn watch_message(&mut self, flow: FlowId) {
        let deadline = match self.open_mut(flow).map(|open| &open.link) {
            Some(Link::Stream(framer)) => framer.poll_timeout(),
            Some(Link::Datagram { .. }) | None => None,
        };
        self.timers.set(Timer::Message(flow), deadline);
    }

    fn open_mut(&mut self, flow: FlowId) -> Option<&mut Open> {
        self.flows.get_mut(&flow)?.open.as_mut()
    }

    fn open_ref(&self, flow: FlowId) -> Option<&Open> {
        self.flows.get(&flow)?.open.as_ref()
    }

    fn path(&self, flow: FlowId) -> Option<Path> {
        Some(self.open_ref(flow)?.path(flow))
    }

    fn flow_of(&self, path: Path) -> Option<FlowId> {
        let found = self.flows.values().find(|flow| {
            let open = flow.open.as_ref();
            open.is_some_and(|open| open.path(flow.id) == path)
        });
        found.map(|flow| flow.id)
    }

    fn close_flow(&mut self, flow: FlowId) -> Option<Flow> {
        let entry = self.flows.remove(&flow)?;
        self.dialog_keeps.flow_lost(flow);
        for timer in [
            Timer::KeepAlive(flow),
            Timer::Pong(flow),
            Timer::Message(flow),
            Timer::Unsent(flow),
        ] {
            self.timers.disarm(timer);
        }
        self.actions.push_back(FlowAction::CloseFlow { flow });
        Some(entry)
    }

    /// Ends a flow: what ran over it is lost, and its registration is made anew.
    fn fail_flow(&mut self, now: Instant, flow: FlowId, cause: FlowFailure) {
        let Some(mut entry) = self.close_flow(flow) else {
            return;
        };
        if let (FlowFailure::Framing(_), Some(open)) = (cause, &mut entry.open) {
            let out = core::mem::replace(&mut open.out, Outbox::new(0));
            self.leftovers.keep(flow, out);
        }
        match entry.open.as_ref().map(|open| open.silence(now, cause)) {
            Some(Silence::Fatal(silence)) => self.idle.silenced(silence),
            Some(Silence::Closed(silence)) => self.idle.closed(now, silence),
            Some(Silence::Irrelevant) if cause == FlowFailure::TimedOut => self.idle.acquitted(),
            Some(Silence::Irrelevant) => {}
            None => self.idle.acquitted(),
        }
        let lost = match &entry.open {
            Some(open) => self.clients.path_failed(open.path(flow)),
            None => Vec::new(),
        };
        let (reg_id, retry_in) = match entry.purpose {
            Purpose::Slot(slot) => self.slot_failed(now, slot, cause),
            Purpose::Extra => (None, None),
        };
        self.events.push_back(UserAgentEvent::FlowFailed {
            flow,
            reg_id,
            cause,
            retry_in,
        });
        self.requests_lost(flow, &lost);
        self.accepted.flow_lost(flow);
        self.finish_if_stopped();
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Refresh(slot) => self.refresh_slot(now, slot),
                Timer::Paced(slot) => self.register(now, slot),
                Timer::Retry(slot) => self.open_slot(now, slot),
                Timer::Expiry(slot) => self.slot_expired(now, slot),
                Timer::KeepAlive(flow) => self.send_ping(now, flow),
                Timer::Pong(flow) => self.pong_late(now, flow),
                Timer::Message(flow) => self.message_late(now, flow),
                Timer::Unsent(flow) => self.fail_flow(now, flow, FlowFailure::Unsent),
                Timer::Accepted(id) => self.repeat_accepted(now, id),
            }
        }
        self.clients.handle_timeout(now);
        self.servers.handle_timeout(now);
        self.settle(now);
    }

    fn message_late(&mut self, now: Instant, flow: FlowId) {
        let frame = match self.open_mut(flow).map(|open| &mut open.link) {
            Some(Link::Stream(framer)) => framer.handle_timeout(now),
            Some(Link::Datagram { .. }) | None => None,
        };
        if let Some(frame) = frame {
            self.handle_frame(now, flow, frame);
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

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<FlowAction> {
        self.actions.pop_front()
    }

    /// What the application wants to know next.
    pub fn poll_event(&mut self) -> Option<UserAgentEvent> {
        self.events.pop_front()
    }

    /// A bound for the bytes this user agent ever holds: see [`UserAgentConfig::max_memory`].
    pub const fn max_memory(&self) -> usize {
        self.config.max_memory()
    }

    fn limits(&self) -> &ParseConfig {
        &self.config.parse
    }
}

#[cfg(test)]
mod tests;
