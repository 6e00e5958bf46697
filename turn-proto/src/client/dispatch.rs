//! What happens between input and output: dispatch, timers, the end of everything.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::LongTermClient;
use stun_proto::time::{Clock, Timers, deadline};
use stun_proto::wire::{Class, Message};
use stun_proto::{
    Instant, Path, Received, RetransmitConfig, Rng, StreamId, Transactions, Transport,
};
use zeroize::Zeroizing;

use super::allocation::Allocation;
use super::channels::Channels;
use super::connections::Connections;
use super::path::Life;
use super::permissions::Permissions;
use super::requests::Pending;
use super::{
    Action, AllocateOptions, Cause, ClientConfig, ClientError, Connection, Event, RelayProtocol,
    Stats, UnprotectedErrors,
};
use crate::wire::{self, AddressFamily};

/// More than `requests` starts at once, for those that do not wait.
pub(super) const MAX_TRANSACTIONS: usize = 32;

/// The server may take 30 s and more to connect to a peer (RFC 6062 section 5.2).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(65);

/// How long a unit on a stream may take to arrive.
const PARTIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// In the order in which those of the same instant are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The allocation ends.
    Expiry,
    /// The allocation is to be refreshed.
    Refresh,
    /// An Allocate is to be tried again.
    TryAgain,
    /// A channel ends, or has cooled down.
    ChannelExpiry(SocketAddr),
    /// A channel is to be refreshed, or asked for again after a failure.
    Channel(SocketAddr),
    /// A permission ends.
    PermissionExpiry(IpAddr),
    /// A permission is to be refreshed, or asked for again after a failure.
    Permission(IpAddr),
    /// The server gives a connection up that no stream was bound to.
    Connection(Connection),
    /// The path may have to be kept open.
    KeepAlive,
    /// The stream may be dead.
    Silence,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    Idle,
    Allocating {
        options: AllocateOptions,
        /// Waits for the host before it goes on.
        held: bool,
        /// What comes is given back at once.
        closing: bool,
    },
    Active(Allocation),
    /// Being given back; the terminal event follows.
    Deleting(Event),
    /// The terminal event is out.
    Ended,
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) path: Path,
    pub(super) transport: Transport,
}

pub(super) struct Core {
    pub(super) config: ClientConfig,
    pub(super) link: Link,
    /// The path before the last move; data may still come over it.
    pub(super) old: Option<Link>,
    /// The path being moved to.
    pub(super) candidate: Option<Link>,
    /// The stream of `link` is gone, the allocation waits for a new path.
    pub(super) down: bool,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) auth: LongTermClient,
    /// When the server last accepted the nonce.
    pub(super) nonce_at: Instant,
    pub(super) token: Option<Zeroizing<Vec<u8>>>,
    pub(super) token_server: Option<String>,
    pub(super) ticket: Option<Zeroizing<Vec<u8>>>,
    pub(super) alternate_domain: Option<String>,
    pub(super) transactions: Transactions<Pending>,
    /// Connect requests, which may take longer than others.
    pub(super) connects: Transactions<Pending>,
    pub(super) waiting: VecDeque<Pending>,
    pub(super) delayed: Option<Pending>,
    pub(super) timers: Timers<Timer>,
    pub(super) state: State,
    pub(super) permissions: Permissions,
    pub(super) channels: Channels,
    /// The peer whose ChannelBind met a 400.
    pub(super) bad_bind: Option<SocketAddr>,
    pub(super) connections: Connections,
    pub(super) dont_fragment: bool,
    pub(super) life: Life,
    /// A Binding indication is to be sent.
    pub(super) keep_alive_due: bool,
    /// When a unit that has begun on the stream must have ended.
    pub(super) partial_until: Option<Instant>,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: Stats,
}

/// Leaves out what may hold secrets: tokens, tickets, requests under way.
impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("link", &self.link)
            .field("state", &self.state)
            .field("permissions", &self.permissions)
            .field("channels", &self.channels)
            .field("connections", &self.connections)
            .field("timers", &self.timers)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn new(config: ClientConfig, link: Link, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut auth = LongTermClient::new(config.credentials.clone()).prefer_sha256();
        if config.unprotected_errors != UnprotectedErrors::Refuse {
            auth = auth.lenient_errors();
        }
        if config.open_servers {
            auth = auth.open_servers();
        }
        if config.third_party {
            auth = auth.expect_challenge();
        }
        if config.private_username && !link.transport.is_secure() {
            auth = auth.hide_username();
        }
        Self {
            link,
            old: None,
            candidate: None,
            down: false,
            clock: Clock::new(now),
            auth,
            nonce_at: now,
            token: None,
            token_server: None,
            ticket: None,
            alternate_domain: None,
            transactions: transactions(config.retransmit),
            connects: connects(&config),
            waiting: VecDeque::new(),
            delayed: None,
            timers: Timers::new(),
            state: State::Idle,
            permissions: Permissions::new(config.max_permissions),
            channels: Channels::new(config.max_channels, rng.below(0x1000) as u16),
            bad_bind: None,
            connections: Connections::new(config.max_connections),
            dont_fragment: false,
            life: Life::new(now),
            keep_alive_due: false,
            partial_until: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
            rng,
        }
    }

    /// Whether bytes that come over `path` are the client's.
    pub(super) fn transport_known(&self, path: Path) -> bool {
        let connection = match path {
            Path::Stream(id) => self.connections.has_stream(id),
            Path::Datagram(_) => false,
        };
        let mut links = [Some(self.link), self.old, self.candidate]
            .into_iter()
            .flatten();
        let ended = matches!(self.state, State::Ended);
        !ended && (connection || links.any(|link| link.path == path))
    }

    pub(super) fn transport_of(&self, path: Path) -> Transport {
        let links = [self.candidate, self.old];
        let other = links.into_iter().flatten().find(|link| link.path == path);
        other.unwrap_or(self.link).transport
    }

    pub(super) const fn is_for_tcp(&self) -> bool {
        match &self.state {
            State::Active(allocation) => {
                matches!(allocation.options.protocol, RelayProtocol::Tcp)
            }
            State::Idle | State::Allocating { .. } | State::Deleting(_) | State::Ended => false,
        }
    }

    pub(super) fn check_family(&self, peer: IpAddr) -> Result<(), ClientError> {
        match &self.state {
            State::Active(allocation) if allocation.holds(AddressFamily::of(peer)) => Ok(()),
            State::Active(_) => Err(ClientError::Family),
            State::Idle | State::Allocating { .. } | State::Deleting(_) | State::Ended => {
                Err(ClientError::State)
            }
        }
    }

    pub(super) fn message<'a>(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'a>,
    ) -> Received<'a> {
        if message.check_fingerprint() == Some(false) {
            return Received::NotMine;
        }
        let method = message.method();
        let data_stream = match path {
            Path::Stream(id) => self.connections.has_stream(id),
            Path::Datagram(_) => false,
        };
        match message.class() {
            Class::Success | Class::Error => {
                if !self.response(now, path, message) {
                    return Received::NotMine;
                }
                self.clock.advance(now);
                Received::Consumed
            }
            Class::Indication if method == wire::DATA && !data_stream => {
                self.clock.advance(now);
                self.data(now, message)
            }
            Class::Indication if method == wire::CONNECTION_ATTEMPT && !data_stream => {
                self.clock.advance(now);
                self.connection_attempt(now, message);
                Received::Consumed
            }
            Class::Indication | Class::Request => Received::NotMine,
        }
    }

    /// Sees to it that a unit which has begun on the stream to the server comes to an end.
    pub(super) fn note_partial(&mut self, now: Instant, path: Path, partial: bool) {
        if path != self.link.path {
            return;
        }
        if !partial {
            self.partial_until = None;
        } else if self.partial_until.is_none() {
            self.partial_until = deadline(now, PARTIAL_TIMEOUT);
        }
    }

    /// A stream carries what it must not.
    pub(super) fn violated(&mut self, now: Instant, id: StreamId, cause: Cause) {
        if self.connections.has_stream(id) {
            if let Some(connection) = self.connections.of_stream(id) {
                self.connection_failed(now, connection, cause);
            }
            return;
        }
        self.actions.push_back(Action::CloseStream { id });
        if self.link.path == Path::Stream(id) {
            self.fail(cause);
        } else {
            self.stream_closed(now, id);
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        match &mut self.state {
            State::Active(_) if !self.down => self.delete(now, Event::Closed),
            // An answer that is under way may bring an allocation.
            State::Allocating { closing, .. } if !self.transactions.is_empty() => *closing = true,
            State::Idle | State::Allocating { .. } | State::Active(_) => self.end(Event::Closed),
            State::Deleting(_) | State::Ended => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        // After a jump of the clock what hung on the allocation needs no word of its own.
        if let State::Active(allocation) = &self.state
            && !allocation.is_live(now)
        {
            return self.expired();
        }
        if self.partial_until.is_some_and(|until| until <= now) {
            self.partial_until = None;
            if let Path::Stream(id) = self.link.path {
                self.violated(now, id, Cause::Stalled);
            }
        }
        self.transactions.handle_timeout(now);
        self.connects.handle_timeout(now);
        while let Some(ended) = self
            .transactions
            .poll_timed_out()
            .or_else(|| self.connects.poll_timed_out())
        {
            let cause = ended.context.silence();
            self.failed(now, ended.context, cause);
        }
        while let Some(timer) = self.timers.expired(now) {
            self.timer(now, timer);
        }
        self.pump(now);
    }

    pub(super) fn timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Refresh => self.refresh(now),
            Timer::Expiry => self.expired(),
            Timer::TryAgain => {
                if let Some(pending) = self.delayed.take() {
                    self.send_request(now, pending);
                }
            }
            Timer::Permission(peer) => self.refresh_permissions(now, peer),
            Timer::PermissionExpiry(peer) => self.permission_expired(peer),
            Timer::Channel(peer) => self.request_channel(now, peer),
            Timer::ChannelExpiry(peer) => self.channel_expired(peer),
            Timer::Connection(connection) => {
                self.connection_failed(now, connection, Cause::Timeout);
            }
            Timer::KeepAlive => self.keep_alive(now),
            Timer::Silence => self.silent(now),
        }
    }

    /// Puts an event where the host takes it away. A host that does not is not let down by the memory
    /// running out: events beyond the limit are dropped, but never the last one.
    pub(super) fn tell(&mut self, event: Event) {
        if self.events.len() < self.config.event_limit() {
            self.events.push_back(event);
        } else {
            self.count_dropped();
        }
    }

    /// Whatever was under way or there is gone.
    pub(super) fn fail(&mut self, cause: Cause) {
        match self.state {
            State::Ended | State::Idle => {}
            State::Allocating { .. } => self.allocate_failed(cause, None),
            State::Active(_) => self.end(Event::AllocationLost { cause }),
            State::Deleting(event) => self.end(event),
        }
    }

    pub(super) fn end(&mut self, event: Event) {
        self.forget();
        self.state = State::Ended;
        self.events.push_back(event);
    }

    /// Drops everything that is under way.
    pub(super) fn forget(&mut self) {
        self.transactions = transactions(self.config.retransmit);
        self.connects = connects(&self.config);
        self.waiting.clear();
        self.delayed = None;
        self.timers = Timers::new();
        self.permissions.clear();
        self.channels.clear();
        self.forget_connections();
        self.candidate = None;
        self.old = None;
        self.partial_until = None;
        self.keep_alive_due = false;
    }
}
pub(super) const fn transactions(config: RetransmitConfig) -> Transactions<Pending> {
    Transactions::new(config, MAX_TRANSACTIONS)
}

pub(super) fn connects(config: &ClientConfig) -> Transactions<Pending> {
    let reliable_timeout = config.retransmit.reliable_timeout.max(CONNECT_TIMEOUT);
    let retransmit = RetransmitConfig {
        reliable_timeout,
        ..config.retransmit
    };
    Transactions::new(retransmit, config.max_connections)
}

/// The address without scope and flow label, as it comes back from the server.
pub(super) const fn plain(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip(), peer.port())
}

/// The wait after so many failures: doubles from `first` to a minute.
pub(super) fn backoff(first: Duration, failures: u32) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    doubled.min(Duration::from_secs(60))
}
