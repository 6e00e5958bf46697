//! The server (RFC 8656): one machine for all clients, listeners and transports of a host.
//!
//! # Driving it
//!
//! ```
//! use stun_proto::{FiveTuple, Instant, Path, Received};
//! use turn_proto::server::{Action, MAX_TRANSMIT, Server, ServerConfig, StaticUsers};
//!
//! let mut users = StaticUsers::new("example.org");
//! users.add("alice", "secret");
//! let now = Instant::ZERO;
//! let mut server = Server::new(ServerConfig::new("example.org"), users, [7; 32], now).unwrap();
//!
//! // A datagram came in on a listening socket.
//! let (local, remote) = ("192.0.2.1:3478", "198.51.100.7:40000");
//! let at = FiveTuple::udp(local.parse().unwrap(), remote.parse().unwrap());
//! let binding_request = b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl";
//! match server.handle_datagram(now, at, binding_request) {
//!     // Send `data` from the socket of `peer.relay` to `peer.peer`.
//!     Received::Data { peer, data } => { let _ = (peer, data); }
//!     Received::Consumed | Received::NotMine => {}
//! }
//! // After every input: send, act, account, sleep. Responses go before actions.
//! let mut buf = [0; MAX_TRANSMIT];
//! while let Some(transmit) = server.poll_transmit(&mut buf) {
//!     assert_eq!(transmit.to, Path::Datagram(at));
//! }
//! while let Some(action) = server.poll_action() {
//!     if let Action::OpenRelay { relay, port, .. } = action {
//!         // Bind a socket to `port`, then tell the server.
//!         let relayed = ("192.0.2.1".parse::<core::net::IpAddr>().unwrap(), port).into();
//!         server.relay_opened(now, relay, relayed);
//!     }
//! }
//! while server.poll_event().is_some() {}
//! assert_eq!(server.poll_timeout(), None);
//! ```
//!
//! Datagrams that come to a relay go through [`Server::handle_relay`] (header and padding for a
//! vectored write), [`Server::forward`] (one copy) or [`Server::forward_in_place`] (none).
//!
//! # Life of an allocation
//!
//! ```text
//! Allocate --> Opening --(relay_opened)--> Open --(Refresh 0, expiry, stream gone)--> deleted
//!                 `-----(5 s, relay_failed)--> 508
//! ```
//!
//! # Many servers
//!
//! A server scales by instances: give each its own range of five-tuples (by listener, or by hash
//! as `SO_REUSEPORT` does) and [`SharedKeys`], so that the nonce of one is good for all. An
//! allocation, its reserved port and its ticket live in one instance; a client that lands on
//! another gets 437 or 508 and starts afresh.
//!
//! # What it does not do
//!
//! No classic STUN (RFC 3489) and no NAT discovery (RFC 5780): `stun-proto` has a server for
//! those.
//!
//! What stands in IP headers is the host's (RFC 8656 sections 13 to 16): it has both packets at
//! hand when a call returns. Between UDP on both sides it copies DSCP and ECN, and DF where
//! [`RelayTo::dont_fragment`] does not ask for it anyway; towards and from TCP it sends with its
//! own DSCP, Not-ECT, and DF only where that is asked; a "packet too big" it sends to a peer names
//! an MTU smaller by 48 bytes. If it cannot set DF, or translates between families without seeing
//! it, [`ServerConfig::dont_fragment`] stays off.
//!
//! The bytes of TCP relays (RFC 6062) do not pass the machine: see [`Action::Splice`].

mod allocate;
mod allocation;
mod config;
mod ending;
mod fast_path;
mod icmp;
mod mobility;
mod output;
mod peers;
mod plane;
mod ports;
mod relays;
mod requests;
mod streams;
mod tcp;
mod token;
mod users;

use core::net::{IpAddr, SocketAddr};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use stun_proto::auth::LongTermServer;
use stun_proto::framing::Deframer;
use stun_proto::limit::RateLimiter;
use stun_proto::time::{Clock, Timers};
use stun_proto::wire::{Class, Key, Message, Method, TransactionId};
use stun_proto::{FiveTuple, Instant, Path, Received, Rng, StreamId, Transmit};

use self::allocation::{Allocation, AllocationId, PathKey, Timer};
pub use self::config::{ConfigError, Limits, Redirect, ServerConfig, SharedKeys};
pub use self::icmp::{IcmpReport, parse_icmp};
use self::mobility::Tickets;
pub use self::output::{
    Action, CloseReason, DeleteReason, Event, Forward, KeyOwner, KeyTicket, PeerId, RelayId,
    RelayProtocol, RelayTo, Stats,
};
use self::output::{Outbox, count};
use self::ports::Ports;
use self::relays::Reservation;
use self::requests::Waiting;
use self::streams::ClientStream;
pub use self::streams::StreamRefused;
use self::tcp::Connection;
pub use self::users::{
    Admission, KeyQuery, Lookup, OpenAccess, Purpose, RestHash, RestUsers, StaticUsers, Users,
};
use crate::wire::{self, AddressFamily, Icmp};

/// The longest control message of a server; smaller buffers are the host's bug. No message of
/// this server is longer than 548 bytes, what every path carries.
pub const MAX_TRANSMIT: usize = 1280;

/// The most bytes the server puts in front of a peer's payload.
pub const HEADROOM: usize = 48;

/// A TURN server. See the [module](self).
///
/// Clients that have not answered a challenge leave nothing behind. Data goes through without
/// queue, copy or allocation; each lookup is logarithmic in the number of allocations.
#[derive(Debug)]
pub struct Server<U> {
    core: Core<U>,
    /// Apart from the rest, because data may be borrowed from them.
    deframers: BTreeMap<StreamId, Deframer>,
}

/// One user's share.
#[derive(Clone, Copy, Debug)]
struct Account {
    allocations: usize,
    /// Bytes that may be relayed now, of `seen`.
    credit: u64,
    seen: Instant,
}

/// All of the server but the bytes of unfinished units.
#[derive(Debug)]
struct Core<U> {
    config: ServerConfig,
    users: U,
    auth: LongTermServer,
    tickets: Tickets,
    redirect: Option<Redirect>,
    /// Seconds since 1970 at an instant.
    unix_time: Option<(Instant, u64)>,
    clock: Clock,
    rng: Rng,
    unverified: RateLimiter,
    timers: Timers<Timer>,
    /// A sweep ended because the host had not yet taken what came before.
    swept_in_part: bool,
    allocations: BTreeMap<AllocationId, Box<Allocation>>,
    by_path: BTreeMap<PathKey, AllocationId>,
    by_relay: BTreeMap<RelayId, AllocationId>,
    by_address: BTreeMap<(RelayProtocol, SocketAddr), RelayId>,
    accounts: BTreeMap<Vec<u8>, Account>,
    ports: Ports,
    reservations: BTreeMap<RelayId, Reservation>,
    tokens: BTreeMap<[u8; 8], RelayId>,
    connections: BTreeMap<PeerId, Connection>,
    by_connection_id: BTreeMap<[u8; 4], PeerId>,
    /// Connections the host is opening.
    opening: usize,
    waiting: BTreeMap<KeyTicket, Waiting>,
    waiting_for: BTreeMap<(Path, TransactionId), KeyTicket>,
    streams: BTreeMap<StreamId, ClientStream>,
    /// The next number for anything that has one.
    next: u64,
    out: Outbox,
    stats: Stats,
}

impl<U: Users> Server<U> {
    /// A server that has no clients yet. `seed` must come from a cryptographic source.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        config: ServerConfig,
        users: U,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = Rng::from_seed(seed);
        let shared = match &config.shared_keys {
            Some(keys) => *keys.0,
            None => rng.fork(),
        };
        let mut shared = Rng::from_seed(shared);
        let auth = LongTermServer::new(config.auth.clone(), &mut shared)
            .map_err(|_| ConfigError::Realm)?;
        let core = Core {
            users,
            auth,
            tickets: Tickets::new(&mut shared),
            redirect: None,
            unix_time: None,
            clock: Clock::new(now),
            unverified: RateLimiter::new(config.unverified, &mut rng),
            rng,
            timers: Timers::new(),
            swept_in_part: false,
            allocations: BTreeMap::new(),
            by_path: BTreeMap::new(),
            by_relay: BTreeMap::new(),
            by_address: BTreeMap::new(),
            accounts: BTreeMap::new(),
            ports: Ports::new(config.ports.clone()),
            reservations: BTreeMap::new(),
            tokens: BTreeMap::new(),
            connections: BTreeMap::new(),
            by_connection_id: BTreeMap::new(),
            opening: 0,
            waiting: BTreeMap::new(),
            waiting_for: BTreeMap::new(),
            streams: BTreeMap::new(),
            next: 0,
            out: Outbox::default(),
            stats: Stats::default(),
            config,
        };
        Ok(Self {
            core,
            deframers: BTreeMap::new(),
        })
    }

    /// The users, to be changed at any time.
    pub const fn users_mut(&mut self) -> &mut U {
        &mut self.core.users
    }

    /// Tells the server the time of day, for users and tokens that say until when they count:
    /// seconds since 1970. Tell it again when the clock of the host was set.
    pub fn set_unix_time(&mut self, now: Instant, seconds: u64) {
        let now = self.core.clock.advance(now);
        self.core.unix_time = Some((now, seconds));
    }

    /// Answers new allocations with 300 and these servers from now on, or no longer. For servers
    /// that are being emptied and for anycast addresses.
    pub fn set_redirect(&mut self, redirect: Option<Redirect>) {
        self.core.redirect = redirect;
    }

    /// Replaces the key that signs nonces; nonces signed with the last one still count. Once an
    /// hour is enough.
    pub fn rotate_nonce_key(&mut self) {
        self.core.auth.rotate_nonce_key(&mut self.core.rng);
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.core.stats
    }

    /// How many bytes a client has to send over UDP to be challenged: a challenge may be only
    /// [`largest_gain`](ServerConfig::largest_gain) times as long, and grows with the realm and
    /// the server's name. The shortest Allocate has 28 bytes; with the defaults that suffices for
    /// realms of up to 56 bytes.
    pub fn shortest_challenged(&self) -> usize {
        let gain = self.core.config.largest_gain;
        let len = self.core.challenge_len().unwrap_or_default();
        len.div_ceil(gain.max(1))
            .max(self.core.config.shortest_unverified)
    }

    /// How many allocations there are, those being opened included.
    pub fn allocations(&self) -> usize {
        self.core.allocations.len()
    }

    /// A bound for the bytes this server ever holds: see [`Limits::max_memory`].
    pub const fn max_memory(&self) -> usize {
        self.core.config.limits.max_memory()
    }

    /// Takes in a datagram from a client. Data is to be sent from the relay to the peer.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        self.core.datagram(now, at, data)
    }

    /// A datagram with `len` bytes of payload came to a relay: where it goes, or `None` when it is
    /// to be dropped.
    pub fn handle_relay(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        len: usize,
    ) -> Option<Forward> {
        self.core.relay_to_client(now, relay, from, len)
    }

    /// As [`handle_relay`](Self::handle_relay), with everything put together in `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than payload plus [`HEADROOM`] plus 3 bytes: the host's bug.
    pub fn forward(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        payload: &[u8],
        buf: &mut [u8],
    ) -> Option<Transmit> {
        let Forward { to, header } = self.handle_relay(now, relay, from, payload.len())?;
        let len = header.write(payload, buf);
        assert!(len.is_some(), "transmit buffer too small");
        Some(Transmit { to, len: len? })
    }

    /// As [`handle_relay`](Self::handle_relay), for a payload that was received into the middle of
    /// `buf`: header and padding are put around it, and the range of the whole comes back.
    ///
    /// # Panics
    /// When there are fewer than [`HEADROOM`] bytes in front of the payload, or fewer than 3
    /// behind: the host's bug.
    pub fn forward_in_place(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        buf: &mut [u8],
        payload: core::ops::Range<usize>,
    ) -> Option<(Path, core::ops::Range<usize>)> {
        let Forward { to, header } = self.handle_relay(now, relay, from, payload.len())?;
        let whole = header.write_around(buf, payload);
        assert!(whole.is_some(), "too little room around the payload");
        Some((to, whole?))
    }

    /// An ICMP error came back for a datagram sent from a relay to `peer` (the destination inside
    /// the error, never its sender). Types that RFC 8656 section 11.5 lists are passed on.
    pub fn handle_relay_icmp(
        &mut self,
        now: Instant,
        relay: RelayId,
        peer: SocketAddr,
        icmp: Icmp,
    ) {
        self.core.icmp_to_client(now, relay, peer, icmp);
    }

    /// A whole ICMP message came in, from a socket that gets those of all relays: as
    /// [`handle_relay_icmp`](Self::handle_relay_icmp), once [`parse_icmp`] has found whose it is.
    pub fn handle_icmp_packet(&mut self, now: Instant, family: AddressFamily, packet: &[u8]) {
        let report = parse_icmp(family, packet);
        let relay = report.and_then(|report| {
            let key = (RelayProtocol::Udp, report.relayed);
            self.core.by_address.get(&key).copied()
        });
        match (report, relay) {
            (Some(report), Some(relay)) => {
                self.core
                    .icmp_to_client(now, relay, report.peer, report.icmp);
            }
            _ => count(&mut self.core.stats.malformed),
        }
    }

    /// The relay asked for is open at this address, as peers see it.
    pub fn relay_opened(&mut self, now: Instant, relay: RelayId, relayed: SocketAddr) {
        let now = self.core.clock.advance(now);
        self.core.relay_opened(now, relay, relayed);
    }

    /// The port asked for is in use: the server asks for another one, a few times.
    pub fn relay_port_taken(&mut self, now: Instant, relay: RelayId) {
        let now = self.core.clock.advance(now);
        self.core.relay_port_taken(now, relay);
    }

    /// The relay asked for cannot be opened, or an open one failed.
    pub fn relay_failed(&mut self, now: Instant, relay: RelayId) {
        let now = self.core.clock.advance(now);
        self.core.relay_failed(now, relay);
    }

    /// Ends the allocation a relay belongs to.
    pub fn close_allocation(&mut self, now: Instant, relay: RelayId) {
        self.core.clock.advance(now);
        if let Some(id) = self.core.by_relay.get(&relay).copied() {
            self.core.delete(id, DeleteReason::Host);
        }
    }

    /// The key asked for, or `None` when there is no such user.
    pub fn key_found(&mut self, now: Instant, ticket: KeyTicket, key: Option<Key>) {
        self.core.key_found(now, ticket, key);
    }

    /// The connection asked for is established (RFC 6062).
    pub fn peer_connected(&mut self, now: Instant, peer: PeerId) {
        let now = self.core.clock.advance(now);
        self.core.peer_connected(now, peer);
    }

    /// A peer has connected to a TCP relay (RFC 6062). `None`: close the connection at once.
    /// Otherwise do not read from it before it is spliced.
    pub fn peer_accepted(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
    ) -> Option<PeerId> {
        let now = self.core.clock.advance(now);
        self.core.peer_accepted(now, relay, from)
    }

    /// A connection to a peer could not be established, or is closed, by whichever side.
    pub fn peer_closed(&mut self, now: Instant, peer: PeerId) {
        self.core.clock.advance(now);
        self.core.peer_closed(peer);
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.clock.advance(now);
        self.core.sweep();
    }

    /// Writes the next control message into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the message, at most [`MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (to, message) = self.core.out.next_response()?;
        let len = message.len();
        assert!(len <= buf.len(), "transmit buffer too small");
        if let Some(slot) = buf.get_mut(..len) {
            slot.copy_from_slice(&message);
        }
        Some(Transmit { to, len })
    }

    /// The next thing the host must do.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.core.out.actions.is_empty() {
            self.core.resume_sweep();
        }
        self.core.out.next_action()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.core.out.events.is_empty() {
            self.core.resume_sweep();
        }
        self.core.out.next_event()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }
}

impl<U: Users> Core<U> {
    /// Lets everything end whose time has come, as far as the host has room for what that means.
    fn sweep(&mut self) {
        let now = self.clock.now();
        while !self.out.is_full(self.config.limits.responses) {
            let Some(timer) = self.timers.expired(now) else {
                self.swept_in_part = false;
                return;
            };
            self.on_timer(now, timer);
        }
        self.swept_in_part = true;
    }

    /// Goes on with a sweep that lacked room. Another is not begun: that a host is late must not
    /// show while it hands in what has come meanwhile.
    fn resume_sweep(&mut self) {
        if self.swept_in_part {
            self.sweep();
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Opening(id) => self.opening_timed_out(now, id),
            Timer::Relay(relay) => self.delete_relay(relay, DeleteReason::Expired),
            Timer::Permission(id, peer) => self.permission_expired(id, peer),
            Timer::Channel(id, channel) => self.unbind(id, channel),
            Timer::Reservation(relay) => self.drop_reservation(relay),
            Timer::Key(ticket) => self.key_timed_out(ticket),
            Timer::Peer(peer) => self.peer_timed_out(peer),
            Timer::StreamIdle(id) | Timer::StreamPartial(id) => {
                self.close_stream(id, CloseReason::Idle);
            }
        }
    }

    /// A number nothing has had yet.
    const fn number(&mut self) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        number
    }

    fn message<'a>(
        &mut self,
        now: Instant,
        path: Path,
        client: FiveTuple,
        message: &Message<'a>,
    ) -> Received<'a, RelayTo> {
        match (message.class(), message.method()) {
            (Class::Indication, wire::SEND) => return self.send_indication(now, path, message),
            // A client's keep-alive.
            (Class::Indication, Method::BINDING) => {}
            (Class::Request, method) if is_served(method) => {
                let too_long = message.as_bytes().len() > self.config.limits.request;
                if too_long || message.check_fingerprint() == Some(false) {
                    count(&mut self.stats.malformed);
                } else {
                    self.request(now, path, client, message);
                }
            }
            (Class::Request | Class::Indication | Class::Success | Class::Error, _) => {
                count(&mut self.stats.malformed);
            }
        }
        Received::Consumed
    }

    /// The time of day, in seconds since 1970, if the host has told it.
    fn unix_now(&self) -> Option<u64> {
        let (at, seconds) = self.unix_time?;
        let since = self.clock.now().duration_since(at).as_secs();
        Some(seconds.saturating_add(since))
    }
}

/// Whether the server has a handler for requests of this method.
const fn is_served(method: Method) -> bool {
    matches!(
        method,
        Method::BINDING
            | wire::ALLOCATE
            | wire::REFRESH
            | wire::CREATE_PERMISSION
            | wire::CHANNEL_BIND
            | wire::CONNECT
            | wire::CONNECTION_BIND
    )
}

/// The address itself, where a socket for both families shows IPv4 as IPv6.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests;
