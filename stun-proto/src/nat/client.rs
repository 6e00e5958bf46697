//! The client side of NAT behaviour discovery.

use core::net::SocketAddr;
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};

use super::search::Search;
use super::types::{
    AddressDependence, NatAction, NatClientConfig, NatEvent, NatFailure, NatSocket, NatTest,
};
use crate::time::{Clock, Timers, elapsed};
use crate::wire::{
    Attribute as _, AttributeType, ChangeRequest, Class, ErrorCode, MappedAddress, Message,
    MessageType, Method, OtherAddress, ResponsePort, TransactionId, Writer, XorMappedAddress,
};
use crate::{FiveTuple, Instant, Path, Received, Rng, Transactions, Transmit, Transport};

/// Ten new transactions per second at most (RFC 5780 section 5).
pub(super) const PACE: Duration = Duration::from_millis(100);
/// Bytes of the longest request.
pub(super) const MAX_REQUEST: usize = 64;

/// What the first answer told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learned {
    pub(super) mapped: SocketAddr,
    pub(super) other: Option<SocketAddr>,
}

impl Learned {
    /// `None` where there is no second address that the tests could use.
    pub(super) fn of(mapped: SocketAddr, server: SocketAddr, message: &Message<'_>) -> Self {
        let usable = |other: &SocketAddr| {
            other.is_ipv4() == server.is_ipv4()
                && other.ip() != server.ip()
                && other.port() != server.port()
        };
        let other = message.find::<OtherAddress>().map(|other| other.0);
        Self {
            mapped,
            other: other.filter(usable),
        }
    }
}

/// What somebody on the way made of the unprotected copy of the mapped address.
pub(super) fn rewritten(mapped: SocketAddr, message: &Message<'_>) -> Option<SocketAddr> {
    let plain = message.find::<MappedAddress>().map(|plain| plain.0);
    plain.filter(|plain| *plain != mapped)
}

/// The request that is next or under way.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The host has still to open sockets.
    Sockets,
    /// Mapping test I.
    First,
    /// Mapping test II: the other address, the same port.
    OtherAddress(Learned, SocketAddr),
    /// Mapping test III: the other address and port; the answer to II is known.
    OtherPort(Learned, SocketAddr, SocketAddr),
    /// Filtering test I, which opens the binding.
    FilterOpen(Learned, SocketAddr),
    /// Filtering test II: answered from the other address and port.
    FilterBoth(Learned, SocketAddr),
    /// Filtering test III: answered from the other port.
    FilterPort(Learned, SocketAddr),
    /// To our own mapping.
    Hairpin(Learned),
    /// Makes the binding whose lifetime is measured.
    Prime(Search),
    /// Lets it idle.
    Idle(Search, Duration, SocketAddr),
    /// Asks for an answer to the binding, from another one.
    AskBack(Search, Duration, SocketAddr),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The request of the stage may be sent.
    Next,
}

/// What came of a request.
enum Outcome<'a> {
    Answered {
        on: NatSocket,
        from: SocketAddr,
        message: Message<'a>,
    },
    Looped,
    Silence,
}

/// Finds out what a NAT does, one request after the other.
///
/// ```
/// use stun_proto::nat::{NatAction, NatClient, NatClientConfig, NatEvent};
/// use stun_proto::Instant;
///
/// let now = Instant::ZERO;
/// let server = "198.51.100.1:3478".parse().unwrap();
/// let mut client = NatClient::new(NatClientConfig::default(), server, [7; 32], now);
/// while let Some(NatAction::Open(socket)) = client.poll_action() {
///     let bound = "192.0.2.9:40000".parse().unwrap(); // a port of its own for each
///     client.handle_socket(now, socket, Some(bound));
/// }
/// # client.handle_timeout(now);
/// let mut buf = [0; NatClient::MAX_TRANSMIT];
/// let transmit = client.poll_transmit(&mut buf).unwrap();
/// assert_eq!(transmit.to.remote, server);
/// ```
#[derive(Debug)]
pub struct NatClient {
    config: NatClientConfig,
    server: SocketAddr,
    rng: Rng,
    clock: Clock,
    stage: Stage,
    /// `None` where the host has not answered yet, or could not open it.
    sockets: BTreeMap<NatSocket, Option<SocketAddr>>,
    unanswered: u8,
    started: Option<Instant>,
    transactions: Transactions<()>,
    timers: Timers<Timer>,
    actions: VecDeque<NatAction>,
    events: VecDeque<NatEvent>,
}

impl NatClient {
    /// The most bytes written at once.
    pub const MAX_TRANSMIT: usize = MAX_REQUEST;

    /// A client that asks this server, over UDP.
    pub fn new(config: NatClientConfig, server: SocketAddr, seed: [u8; 32], now: Instant) -> Self {
        let mut actions = VecDeque::new();
        let mut open = |socket, wanted: bool| {
            if wanted {
                actions.push_back(NatAction::Open(socket));
            }
        };
        open(NatSocket::Mapping, true);
        open(NatSocket::Filtering, config.filtering);
        open(NatSocket::Lifetime, config.lifetime.is_some());
        open(
            NatSocket::Helper,
            config.hairpin || config.lifetime.is_some(),
        );
        Self {
            config,
            server,
            rng: Rng::from_seed(seed),
            clock: Clock::new(now),
            stage: Stage::Sockets,
            sockets: BTreeMap::new(),
            unanswered: u8::try_from(actions.len()).unwrap_or(u8::MAX),
            started: None,
            transactions: Transactions::new(config.retransmit, 1),
            timers: Timers::new(),
            actions,
            events: VecDeque::new(),
        }
    }

    /// Takes in that a socket is open on this address, which must not be a wildcard, or could not
    /// be opened. The tests begin with the last one.
    pub fn handle_socket(&mut self, now: Instant, socket: NatSocket, local: Option<SocketAddr>) {
        let now = self.clock.advance(now);
        if !matches!(self.stage, Stage::Sockets) || self.sockets.contains_key(&socket) {
            return;
        }
        self.sockets.insert(socket, local);
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered == 0 {
            self.go(now, Stage::First);
        }
    }

    /// Takes in a datagram that came in on one of the sockets.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a> {
        let now = self.clock.advance(now);
        let local = |(_, bound): &(&NatSocket, &Option<SocketAddr>)| **bound == Some(at.local);
        let Some((on, _)) = self.sockets.iter().find(local) else {
            return Received::NotMine;
        };
        let (on, Ok(message)) = (*on, Message::parse(data)) else {
            return Received::NotMine;
        };
        let id = message.transaction_id();
        let ours = self.transactions.contexts().any(|(open, ())| open == id);
        if !ours || at.transport != Transport::Udp || message.method() != Method::BINDING {
            return Received::NotMine;
        }
        let outcome = match message.class() {
            Class::Request if on == NatSocket::Mapping => Outcome::Looped,
            Class::Success | Class::Error => Outcome::Answered {
                on,
                from: at.remote,
                message,
            },
            Class::Request | Class::Indication => return Received::NotMine,
        };
        if !self.expects(&outcome) {
            return Received::NotMine;
        }
        self.transactions.finish(now, id);
        self.step(now, &outcome);
        Received::Consumed
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(Timer::Next) = self.timers.expired(now) {
            match self.stage {
                Stage::Idle(search, waited, mapped) => {
                    self.stage = Stage::AskBack(search, waited, mapped);
                    self.ask(now);
                }
                Stage::Sockets
                | Stage::First
                | Stage::OtherAddress(..)
                | Stage::OtherPort(..)
                | Stage::FilterOpen(..)
                | Stage::FilterBoth(..)
                | Stage::FilterPort(..)
                | Stage::Hairpin(_)
                | Stage::Prime(_)
                | Stage::AskBack(..)
                | Stage::Done => self.ask(now),
            }
        }
        self.transactions.handle_timeout(now);
        while self.transactions.poll_timed_out().is_some() {
            self.step(now, &Outcome::Silence);
        }
    }

    /// Writes the next request into `buf`; it leaves by the socket whose address is `to.local`.
    ///
    /// # Panics
    /// When `buf` is shorter than [`MAX_TRANSMIT`](Self::MAX_TRANSMIT).
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<FiveTuple>> {
        let Transmit { to, len } = self.transactions.poll_transmit(buf)?;
        match to {
            Path::Datagram(to) => Some(Transmit { to, len }),
            Path::Stream(_) => None,
        }
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<NatAction> {
        self.actions.pop_front()
    }

    /// What was found out.
    pub fn poll_event(&mut self) -> Option<NatEvent> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.timers.next(), self.transactions.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    /// Whether this is what the request under way can bring about.
    fn expects(&self, outcome: &Outcome<'_>) -> bool {
        let (on, from, refused) = match outcome {
            Outcome::Looped => return matches!(self.stage, Stage::Hairpin(_)),
            Outcome::Silence => return true,
            Outcome::Answered { on, from, message } => {
                (*on, *from, message.class() == Class::Error)
            }
        };
        let main = self.server;
        match self.stage {
            Stage::First => on == NatSocket::Mapping && from == main,
            Stage::OtherAddress(_, other) => {
                let to = SocketAddr::new(other.ip(), main.port());
                on == NatSocket::Mapping && from == to
            }
            Stage::OtherPort(_, other, _) => on == NatSocket::Mapping && from == other,
            Stage::FilterOpen(..) => on == NatSocket::Filtering && from == main,
            // A refusal comes from where the request went.
            Stage::FilterBoth(_, other) => {
                on == NatSocket::Filtering && (from == other || refused && from == main)
            }
            Stage::FilterPort(_, other) => {
                let port = SocketAddr::new(main.ip(), other.port());
                on == NatSocket::Filtering && (from == port || refused && from == main)
            }
            Stage::Prime(_) => on == NatSocket::Lifetime && from == main,
            Stage::AskBack(..) => {
                (on == NatSocket::Lifetime || on == NatSocket::Helper) && from == main
            }
            Stage::Sockets | Stage::Hairpin(_) | Stage::Idle(..) | Stage::Done => false,
        }
    }

    /// Goes on with a stage as soon as the pace allows.
    fn go(&mut self, now: Instant, stage: Stage) {
        self.stage = stage;
        if matches!(stage, Stage::Done) {
            let open = self.sockets.iter().filter(|(_, bound)| bound.is_some());
            let close = open.map(|(socket, _)| NatAction::Close(*socket));
            self.actions.extend(close);
            self.sockets.clear();
            self.events.push_back(NatEvent::Done);
            return;
        }
        let since = self.started.map_or(PACE, |started| elapsed(started, now));
        self.timers
            .arm(Timer::Next, now, PACE.saturating_sub(since));
    }

    /// Sends the request of the stage.
    fn ask(&mut self, now: Instant) {
        let main = self.server;
        let none = ChangeRequest {
            change_ip: false,
            change_port: false,
        };
        let port = ChangeRequest {
            change_port: true,
            ..none
        };
        let both = ChangeRequest {
            change_ip: true,
            ..port
        };
        let (from, to, change, back) = match self.stage {
            Stage::First => (NatSocket::Mapping, main, none, None),
            Stage::OtherAddress(_, other) => {
                let to = SocketAddr::new(other.ip(), main.port());
                (NatSocket::Mapping, to, none, None)
            }
            Stage::OtherPort(_, other, _) => (NatSocket::Mapping, other, none, None),
            Stage::FilterOpen(..) => (NatSocket::Filtering, main, none, None),
            Stage::FilterBoth(..) => (NatSocket::Filtering, main, both, None),
            Stage::FilterPort(..) => (NatSocket::Filtering, main, port, None),
            Stage::Hairpin(learned) => (NatSocket::Helper, learned.mapped, none, None),
            Stage::Prime(_) => (NatSocket::Lifetime, main, none, None),
            Stage::AskBack(_, _, mapped) => (NatSocket::Helper, main, none, Some(mapped.port())),
            Stage::Sockets | Stage::Idle(..) | Stage::Done => return,
        };
        let Some(local) = self.sockets.get(&from).copied().flatten() else {
            return self.give_up(now, NatFailure::NoSocket);
        };
        let id = self.rng.transaction_id();
        let mut buf = [0; MAX_REQUEST];
        let len = write(&mut buf, id, (change != none).then_some(change), back);
        let path = Path::Datagram(FiveTuple::udp(local, to));
        self.started = Some(now);
        let request = buf.get(..len).unwrap_or_default();
        // The table holds one transaction, and the last one is over.
        let _ = self.transactions.start(now, path, id, request, ());
    }

    /// The test the stage belongs to cannot be made.
    fn give_up(&mut self, now: Instant, why: NatFailure) {
        let test = match self.stage {
            Stage::FilterOpen(..) | Stage::FilterBoth(..) | Stage::FilterPort(..) => {
                NatTest::Filtering
            }
            Stage::Hairpin(_) => NatTest::Hairpin,
            Stage::Prime(_) | Stage::Idle(..) | Stage::AskBack(..) => NatTest::Lifetime,
            Stage::First
            | Stage::Sockets
            | Stage::OtherAddress(..)
            | Stage::OtherPort(..)
            | Stage::Done => NatTest::Mapping,
        };
        self.events.push_back(NatEvent::Failed { test, why });
        match self.stage {
            // Without the first answer there is nothing to go on with.
            Stage::First | Stage::Sockets | Stage::Done => self.go(now, Stage::Done),
            Stage::OtherAddress(learned, _) | Stage::OtherPort(learned, ..) => {
                self.after_mapping(now, learned);
            }
            Stage::FilterOpen(learned, _)
            | Stage::FilterBoth(learned, _)
            | Stage::FilterPort(learned, _) => self.after_filtering(now, learned),
            Stage::Hairpin(_) => self.after_hairpin(now),
            Stage::Prime(_) | Stage::Idle(..) | Stage::AskBack(..) => self.go(now, Stage::Done),
        }
    }

    fn step(&mut self, now: Instant, outcome: &Outcome<'_>) {
        let answer = match outcome {
            Outcome::Looped => None,
            Outcome::Silence => None,
            Outcome::Answered { message, .. } => match read(message) {
                Ok(mapped) => Some(mapped),
                Err(why) => return self.give_up(now, why),
            },
        };
        match (self.stage, answer) {
            (Stage::First, Some(mapped)) => self.first_answer(now, mapped, outcome),
            (Stage::OtherAddress(learned, other), Some(mapped)) => {
                if mapped == learned.mapped {
                    self.mapped(now, learned, AddressDependence::EndpointIndependent);
                } else {
                    self.go(now, Stage::OtherPort(learned, other, mapped));
                }
            }
            (Stage::OtherPort(learned, _, second), Some(mapped)) => {
                let depends_on = if mapped == second {
                    AddressDependence::AddressDependent
                } else {
                    AddressDependence::AddressAndPortDependent
                };
                self.mapped(now, learned, depends_on);
            }
            (Stage::FilterOpen(learned, other), Some(_)) => {
                self.go(now, Stage::FilterBoth(learned, other));
            }
            (Stage::FilterBoth(learned, _), Some(_)) => {
                self.filtered(now, learned, AddressDependence::EndpointIndependent);
            }
            (Stage::FilterBoth(learned, other), None) => {
                self.go(now, Stage::FilterPort(learned, other));
            }
            (Stage::FilterPort(learned, _), answered) => {
                let depends_on = match answered {
                    Some(_) => AddressDependence::AddressDependent,
                    None => AddressDependence::AddressAndPortDependent,
                };
                self.filtered(now, learned, depends_on);
            }
            (Stage::Hairpin(_), _) => {
                let looped = matches!(outcome, Outcome::Looped);
                self.events.push_back(NatEvent::Hairpin(looped));
                self.after_hairpin(now);
            }
            (Stage::Prime(search), Some(mapped)) => self.idle(now, search, mapped),
            (Stage::AskBack(mut search, waited, _), _) => {
                let survived = matches!(
                    outcome,
                    Outcome::Answered {
                        on: NatSocket::Lifetime,
                        ..
                    }
                );
                search.learn(waited, survived);
                self.measure(now, search);
            }
            (
                Stage::First
                | Stage::OtherAddress(..)
                | Stage::OtherPort(..)
                | Stage::FilterOpen(..)
                | Stage::Prime(_),
                None,
            ) => self.give_up(now, NatFailure::NoResponse),
            (Stage::Sockets | Stage::Idle(..) | Stage::Done, _) => {}
        }
    }

    fn first_answer(&mut self, now: Instant, mapped: SocketAddr, outcome: &Outcome<'_>) {
        let Outcome::Answered { message, .. } = outcome else {
            return;
        };
        if let Some(to) = rewritten(mapped, message) {
            self.events.push_back(NatEvent::Rewritten { to });
        }
        let learned = Learned::of(mapped, self.server, message);
        let local = self.sockets.get(&NatSocket::Mapping).copied().flatten();
        if local == Some(mapped) {
            self.events.push_back(NatEvent::NoNat);
            return self.after_mapping(now, learned);
        }
        match learned.other {
            _ if !self.config.mapping => self.after_mapping(now, learned),
            Some(other) => self.go(now, Stage::OtherAddress(learned, other)),
            None => {
                let (test, why) = (NatTest::Mapping, NatFailure::Unsupported);
                self.events.push_back(NatEvent::Failed { test, why });
                self.after_mapping(now, learned);
            }
        }
    }

    fn mapped(&mut self, now: Instant, learned: Learned, depends_on: AddressDependence) {
        let mapped = learned.mapped;
        self.events
            .push_back(NatEvent::Mapping { depends_on, mapped });
        self.after_mapping(now, learned);
    }

    fn after_mapping(&mut self, now: Instant, learned: Learned) {
        match learned.other {
            _ if !self.config.filtering => self.after_filtering(now, learned),
            Some(other) => self.go(now, Stage::FilterOpen(learned, other)),
            None => {
                let (test, why) = (NatTest::Filtering, NatFailure::Unsupported);
                self.events.push_back(NatEvent::Failed { test, why });
                self.after_filtering(now, learned);
            }
        }
    }

    fn filtered(&mut self, now: Instant, learned: Learned, depends_on: AddressDependence) {
        self.events.push_back(NatEvent::Filtering(depends_on));
        self.after_filtering(now, learned);
    }

    fn after_filtering(&mut self, now: Instant, learned: Learned) {
        if self.config.hairpin {
            self.go(now, Stage::Hairpin(learned));
        } else {
            self.after_hairpin(now);
        }
    }

    fn after_hairpin(&mut self, now: Instant) {
        let precision = self.config.lifetime_precision;
        match self.config.lifetime {
            None => self.go(now, Stage::Done),
            Some(longest) => {
                let precision = precision.max(Duration::from_secs(1));
                self.measure(now, Search::new(longest, precision));
            }
        }
    }

    /// The next round of the lifetime test, or its result.
    fn measure(&mut self, now: Instant, search: Search) {
        if search.next().is_some() {
            return self.go(now, Stage::Prime(search));
        }
        let (at_least, less_than) = search.bounds();
        self.events.push_back(NatEvent::Lifetime {
            at_least,
            less_than,
        });
        self.go(now, Stage::Done);
    }

    fn idle(&mut self, now: Instant, search: Search, mapped: SocketAddr) {
        let Some(wait) = search.next() else {
            return self.measure(now, search);
        };
        self.stage = Stage::Idle(search, wait, mapped);
        self.timers.arm(Timer::Next, now, wait.max(PACE));
    }
}

/// The mapped address in a response, or why there is none.
pub(super) fn read(message: &Message<'_>) -> Result<SocketAddr, NatFailure> {
    if message.class() == Class::Error {
        return Err(match message.find::<ErrorCode<'_>>().map(|e| e.code()) {
            Some(ErrorCode::UNKNOWN_ATTRIBUTE) => NatFailure::Unsupported,
            Some(code) => NatFailure::Code(code),
            None => NatFailure::Malformed,
        });
    }
    let mapped: Option<XorMappedAddress> = message.find();
    match mapped.filter(|_| message.unknown_required(is_known).next().is_none()) {
        Some(XorMappedAddress(mapped)) => Ok(mapped),
        None => Err(NatFailure::Malformed),
    }
}

/// MAPPED-ADDRESS, ERROR-CODE, UNKNOWN-ATTRIBUTES, XOR-MAPPED-ADDRESS, PADDING.
fn is_known(ty: AttributeType) -> bool {
    ty == XorMappedAddress::TYPE || matches!(ty.0, 0x0001 | 0x0009 | 0x000A | 0x0026)
}

/// 36 bytes at most.
pub(super) fn write(
    buf: &mut [u8],
    id: TransactionId,
    change: Option<ChangeRequest>,
    back: Option<u16>,
) -> usize {
    Writer::new(buf, MessageType::request(Method::BINDING), id)
        .maybe(change.as_ref())
        .maybe(back.map(ResponsePort).as_ref())
        .finish()
        .unwrap_or_default()
}
