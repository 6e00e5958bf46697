//! Which mappings a NAT makes for TCP (RFC 5780 section 4.3, over connections).

use core::net::SocketAddr;
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};

use super::client::{Learned, MAX_REQUEST, PACE, read, rewritten, write};
use super::types::{AddressDependence, NatEvent, NatFailure, NatTest};
use crate::framing::{Deframer, Next, Unit};
use crate::time::{Clock, Timers, elapsed};
use crate::wire::{Class, Message, Method};
use crate::{Instant, Path, Received, RetransmitConfig, Rng, StreamId, Transactions, Transmit};

/// The longest response that is read.
const MAX_MESSAGE: usize = 2048;

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatStreamAction {
    /// Connect to this address of the server, and answer with
    /// [`NatStreamClient::handle_connected`] or [`NatStreamClient::handle_failed`].
    Connect {
        /// Where to.
        to: SocketAddr,
        /// From which local address: that of the first connection, which is still open then. It
        /// takes `SO_REUSEADDR`, or the like, on all of them. Any for the first.
        from: Option<SocketAddr>,
    },
    /// Close this connection.
    Close(StreamId),
}

/// The connection that is next, or in use.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Test I.
    First,
    /// Test II: the other address, the same port.
    OtherAddress(Learned, SocketAddr),
    /// Test III: the other address and port; the answer to II is known.
    OtherPort(Learned, SocketAddr, SocketAddr),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next connection may be made.
    Next,
}

/// Finds out which mappings a NAT makes for connections: three of them, one after the other, from
/// one local port to different addresses of the server.
///
/// Over TLS the host names a connection once the server's certificate is verified.
///
/// ```
/// use stun_proto::nat::{NatStreamAction, NatStreamClient};
/// use stun_proto::{Instant, Path, StreamId};
///
/// let now = Instant::ZERO;
/// let server = "198.51.100.1:3478".parse().unwrap();
/// let mut client = NatStreamClient::new(server, [7; 32], now);
/// client.handle_timeout(now);
/// let connect = NatStreamAction::Connect { to: server, from: None };
/// assert_eq!(client.poll_action(), Some(connect));
/// client.handle_connected(now, StreamId(1), "192.0.2.9:40000".parse().unwrap());
/// let mut buf = [0; NatStreamClient::MAX_TRANSMIT];
/// let request = client.poll_transmit(&mut buf).unwrap();
/// assert_eq!(request.to, Path::Stream(StreamId(1)));
/// ```
#[derive(Debug)]
pub struct NatStreamClient {
    server: SocketAddr,
    rng: Rng,
    clock: Clock,
    stage: Stage,
    /// The connection of the stage; `None` while it is being made.
    current: Option<StreamId>,
    local: Option<SocketAddr>,
    started: Option<Instant>,
    streams: BTreeMap<StreamId, Deframer>,
    transactions: Transactions<()>,
    timers: Timers<Timer>,
    actions: VecDeque<NatStreamAction>,
    events: VecDeque<NatEvent>,
}

impl NatStreamClient {
    /// The most bytes written at once.
    pub const MAX_TRANSMIT: usize = MAX_REQUEST;

    /// A client that asks this server. The tests begin with the first timeout, which is now.
    pub fn new(server: SocketAddr, seed: [u8; 32], now: Instant) -> Self {
        let mut timers = Timers::new();
        timers.arm(Timer::Next, now, Duration::ZERO);
        Self {
            server,
            rng: Rng::from_seed(seed),
            clock: Clock::new(now),
            stage: Stage::First,
            current: None,
            local: None,
            started: None,
            streams: BTreeMap::new(),
            transactions: Transactions::new(RetransmitConfig::default(), 1),
            timers,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The connection asked for is there, from this local address, which must not be a wildcard.
    pub fn handle_connected(&mut self, now: Instant, id: StreamId, local: SocketAddr) {
        let now = self.clock.advance(now);
        let waits = self.started.is_some() && self.current.is_none();
        if !waits || self.is_done() || self.streams.contains_key(&id) {
            return self.actions.push_back(NatStreamAction::Close(id));
        }
        self.streams.insert(id, Deframer::stun_only(MAX_MESSAGE));
        self.current = Some(id);
        if *self.local.get_or_insert(local) != local {
            // From another port it says nothing about this one's mappings.
            return self.fail(NatFailure::NoSocket);
        }
        let tid = self.rng.transaction_id();
        let mut buf = [0; MAX_REQUEST];
        let len = write(&mut buf, tid, None, None);
        let request = buf.get(..len).unwrap_or_default();
        // The table holds one transaction, and the last one is over.
        let _ = self
            .transactions
            .start(now, Path::Stream(id), tid, request, ());
    }

    /// The connection asked for could not be made.
    pub fn handle_failed(&mut self, now: Instant) {
        self.clock.advance(now);
        if self.started.is_some() && self.current.is_none() {
            self.fail(NatFailure::NoResponse);
        }
    }

    /// Takes in the next message of a connection and advances `input` behind it; call it until
    /// `input` is empty.
    pub fn handle_stream<'a>(
        &mut self,
        now: Instant,
        id: StreamId,
        input: &mut &'a [u8],
    ) -> Received<'a> {
        let now = self.clock.advance(now);
        let Some(mut deframer) = self.streams.remove(&id) else {
            *input = &[];
            return Received::NotMine;
        };
        let read = match deframer.next(input) {
            Ok(Next::Partial | Next::Nothing) => Ok(None),
            Ok(Next::Unit(Unit::Message(bytes))) => Message::parse(bytes).map(Some).map_err(|_| ()),
            Ok(Next::Unit(Unit::ChannelData { .. })) | Err(_) => Err(()),
        };
        match read {
            Ok(message) => {
                let answered = message.and_then(|message| self.answer(now, id, &message));
                self.streams.insert(id, deframer);
                if let Some(answer) = answered {
                    self.step(now, answer);
                }
            }
            Err(()) => {
                *input = &[];
                self.actions.push_back(NatStreamAction::Close(id));
                self.lost(id, NatFailure::Malformed);
            }
        }
        Received::Consumed
    }

    /// Takes in that a connection is closed.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        self.clock.advance(now);
        self.streams.remove(&id);
        self.lost(id, NatFailure::NoResponse);
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(Timer::Next) = self.timers.expired(now) {
            self.connect(now);
        }
        self.transactions.handle_timeout(now);
        while self.transactions.poll_timed_out().is_some() {
            self.fail(NatFailure::NoResponse);
        }
    }

    /// Writes the next request into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than [`MAX_TRANSMIT`](Self::MAX_TRANSMIT).
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        self.transactions.poll_transmit(buf)
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<NatStreamAction> {
        self.actions.pop_front()
    }

    /// What was found out: [`NatEvent::NoNat`], [`NatEvent::Mapping`], [`NatEvent::Rewritten`] or
    /// [`NatEvent::Failed`], and [`NatEvent::Done`] in the end.
    pub fn poll_event(&mut self) -> Option<NatEvent> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.timers.next(), self.transactions.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    fn connect(&mut self, now: Instant) {
        let main = self.server;
        let to = match self.stage {
            Stage::First => main,
            Stage::OtherAddress(_, other) => SocketAddr::new(other.ip(), main.port()),
            Stage::OtherPort(_, other, _) => other,
            Stage::Done => return,
        };
        self.started = Some(now);
        let from = self.local;
        self.actions
            .push_back(NatStreamAction::Connect { to, from });
    }

    /// What a message says, if it is the answer that is waited for.
    fn answer(
        &mut self,
        now: Instant,
        id: StreamId,
        message: &Message<'_>,
    ) -> Option<Result<(Learned, Option<SocketAddr>), NatFailure>> {
        let response = matches!(message.class(), Class::Success | Class::Error);
        let tid = message.transaction_id();
        let open = self
            .transactions
            .context_mut(Path::Stream(id), tid)
            .is_some();
        if !response || !open || message.method() != Method::BINDING {
            return None;
        }
        self.transactions.finish(now, tid);
        Some(read(message).map(|mapped| {
            let learned = Learned::of(mapped, self.server, message);
            (learned, rewritten(mapped, message))
        }))
    }

    fn step(&mut self, now: Instant, answer: Result<(Learned, Option<SocketAddr>), NatFailure>) {
        let (answer, rewritten) = match answer {
            Ok(answer) => answer,
            Err(why) => return self.fail(why),
        };
        match self.stage {
            Stage::First => {
                self.events
                    .extend(rewritten.map(|to| NatEvent::Rewritten { to }));
                if self.local == Some(answer.mapped) {
                    self.events.push_back(NatEvent::NoNat);
                    return self.end();
                }
                match answer.other {
                    Some(other) => self.go(now, Stage::OtherAddress(answer, other)),
                    None => self.fail(NatFailure::Unsupported),
                }
            }
            Stage::OtherAddress(first, _) if answer.mapped == first.mapped => {
                self.mapping(first, AddressDependence::EndpointIndependent);
            }
            Stage::OtherAddress(first, other) => {
                self.go(now, Stage::OtherPort(first, other, answer.mapped));
            }
            Stage::OtherPort(first, _, second) if answer.mapped == second => {
                self.mapping(first, AddressDependence::AddressDependent);
            }
            Stage::OtherPort(first, ..) => {
                self.mapping(first, AddressDependence::AddressAndPortDependent);
            }
            Stage::Done => {}
        }
    }

    /// Goes on with a connection as soon as the pace allows.
    fn go(&mut self, now: Instant, stage: Stage) {
        self.stage = stage;
        self.current = None;
        let since = self.started.take().map_or(PACE, |at| elapsed(at, now));
        self.timers
            .arm(Timer::Next, now, PACE.saturating_sub(since));
    }

    fn mapping(&mut self, Learned { mapped, .. }: Learned, depends_on: AddressDependence) {
        self.events
            .push_back(NatEvent::Mapping { depends_on, mapped });
        self.end();
    }

    /// A connection is gone: that matters if it is the one in use.
    fn lost(&mut self, id: StreamId, why: NatFailure) {
        if self.current == Some(id) {
            self.fail(why);
        }
    }

    fn fail(&mut self, why: NatFailure) {
        if !self.is_done() {
            let test = NatTest::Mapping;
            self.events.push_back(NatEvent::Failed { test, why });
            self.end();
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Done;
        self.current = None;
        self.timers.disarm(Timer::Next);
        self.transactions = Transactions::new(RetransmitConfig::default(), 1);
        let streams = core::mem::take(&mut self.streams);
        let close = streams.into_keys().map(NatStreamAction::Close);
        self.actions.extend(close);
        self.events.push_back(NatEvent::Done);
    }
}

#[cfg(test)]
mod tests;
