//! What a server is told before it starts.

use core::fmt;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::LongTermServerConfig;
use stun_proto::limit::RateLimit;
use zeroize::Zeroizing;

use crate::policy::PeerPolicy;
use crate::wire::AddressFamily;

/// The most a server holds of each kind. The action at the limit stands with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allocations in all: 10,000. Beyond: 508.
    pub allocations: usize,
    /// Allocations of one user: 10. Beyond: 486.
    pub allocations_per_user: usize,
    /// Permissions of one allocation: 128. Beyond: 508.
    pub permissions: usize,
    /// Channels of one allocation: 128. Beyond: 508.
    pub channels: usize,
    /// Streams of clients: 10,000. Beyond: refused.
    pub streams: usize,
    /// Responses, actions and events each that wait for the host to take them: 1,024. Beyond:
    /// requests are dropped and counted, and nothing expires until the host has taken some.
    pub responses: usize,
    /// Longest unit on a stream without allocation, in bytes: 2,048, at most 8,192. Longer:
    /// stream closed.
    pub unauthenticated_unit: usize,
    /// Longest request, in bytes: 4,096. Longer: dropped, unread.
    pub request: usize,
    /// Payload bytes per second of one user, all allocations and both directions together; as
    /// much may come at once. 0, the default, is no limit. Beyond: dropped and counted.
    pub user_bandwidth: u64,
    /// Requests that wait for a key ([`Lookup::Later`](super::Lookup::Later)): 256. Beyond: 500.
    pub key_lookups: usize,
    /// Relays kept for a RESERVATION-TOKEN: 1,024. Beyond: 508.
    pub reservations: usize,
    /// Connections of one allocation to peers: 128. Beyond: 508, or the peer is turned away.
    pub peer_connections: usize,
    /// Connections of one allocation that are being opened: 32. Beyond: 508.
    pub pending_connects: usize,
    /// Connections to peers in all that no client has taken over yet: 1,024. Beyond: 508, or the
    /// peer is turned away.
    pub unbound_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 10_000,
            allocations_per_user: 10,
            permissions: 128,
            channels: 128,
            streams: 10_000,
            responses: 1024,
            unauthenticated_unit: 2048,
            request: 4096,
            user_bandwidth: 0,
            key_lookups: 256,
            reservations: 1024,
            peer_connections: 128,
            pending_connects: 32,
            unbound_connections: 1024,
        }
    }
}

impl Limits {
    /// A bound for the bytes a server with these limits ever holds, whatever its clients do.
    ///
    /// An allocation takes about 900 bytes, 2,550 with a first channel and permission, and each
    /// further pair 530. The defaults give 3.6 GB: every table full, and each of
    /// 10,000 streams in the middle of the longest unit, which is more than a third of it. An
    /// address for relays takes 8 KiB for each protocol; 16 addresses are included.
    pub const fn max_memory(&self) -> usize {
        // Measured (tests/it/server_memory.rs) and rounded up; map nodes are half full at worst.
        const ALLOCATION: usize = 4096;
        const PERMISSION: usize = 256;
        const CHANNEL: usize = 448;
        const STREAM: usize = 1024;
        const CONNECTION: usize = 1024;
        const FIXED: usize = 256 * 1024;
        // A vector doubles: a unit may lie in one twice as long as itself.
        const UNIT: usize = 2 * (u16::MAX as usize + 64);
        let per_allocation = ALLOCATION
            .saturating_add(self.permissions.saturating_mul(PERMISSION))
            .saturating_add(self.channels.saturating_mul(CHANNEL))
            .saturating_add(self.peer_connections.saturating_mul(CONNECTION));
        // Only streams with an allocation may hold long units.
        let short = self.unauthenticated_unit.saturating_mul(2);
        let queued = super::MAX_TRANSMIT.saturating_add(512);
        FIXED
            .saturating_add(self.allocations.saturating_mul(per_allocation))
            .saturating_add(self.streams.saturating_mul(STREAM.saturating_add(short)))
            .saturating_add(min(self.streams, self.allocations).saturating_mul(UNIT))
            .saturating_add(self.responses.saturating_mul(queued))
            .saturating_add(
                self.key_lookups
                    .saturating_mul(self.request.saturating_add(512)),
            )
            .saturating_add(self.reservations.saturating_mul(512))
    }
}

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// A secret that several servers share, so that nonces, reservation tokens and mobility tickets
/// of one are understood by the others: 32 bytes from a cryptographic source.
///
/// What stands behind a token or ticket (a port, an allocation) lives in one server only; the
/// others answer 508 or 437. Nonces carry seconds of the host's clock: servers that share keys
/// must use instants with the same beginning.
#[derive(Clone)]
pub struct SharedKeys(pub(super) Zeroizing<[u8; 32]>);

impl SharedKeys {
    /// Takes in the secret.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKeys(..)")
    }
}

/// Whom clients are to ask instead (RFC 8489 section 10, RFC 8155 section 6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// Servers, at most one for each family; clients of a family without one are not redirected.
    pub v4: Option<SocketAddr>,
    /// The IPv6 server.
    pub v6: Option<SocketAddr>,
    /// The name in the certificate of those servers, where it differs: at most 255 bytes.
    pub domain: Option<String>,
}

// deviates: TURN-5-7 a server knows one realm, its own; which others there are the operator knows.
/// How a [`Server`](super::Server) behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Realm, nonces and password algorithms.
    pub auth: LongTermServerConfig,
    /// What SOFTWARE says in authenticated responses; nothing by default.
    pub software: Option<String>,
    /// Lifetime of an allocation that asks for none or less: 600 s.
    pub default_lifetime: Duration,
    /// The longest lifetime granted: 3,600 s.
    pub max_lifetime: Duration,
    /// Which peers may be reached.
    pub peers: PeerPolicy,
    /// Transport addresses the server itself listens on: no peers, whatever the policy says. The
    /// address a client reaches the server at is never a peer of that client.
    pub listeners: Vec<SocketAddr>,
    /// Whether datagrams are relayed: yes. Without, Allocate is refused (403).
    pub relay_udp: bool,
    /// Whether connections are relayed (RFC 6062): no. Without, Allocate is refused (442).
    pub relay_tcp: bool,
    /// Ports of relays, the same on each address: 49,152 to 65,535.
    pub ports: RangeInclusive<u16>,
    /// IPv4 addresses that relays can be opened on, each with all [`ports`](Self::ports).
    /// Default: 1; with 0, IPv4 is refused (440).
    pub addresses_v4: u16,
    /// IPv6 addresses that relays can be opened on. Default: 0, which refuses IPv6 (440).
    pub addresses_v6: u16,
    /// Whether the host can set the DF bit; if not, DONT-FRAGMENT is refused (420): no.
    pub dont_fragment: bool,
    /// How long the host may take to open a relay: 5 s, then 508.
    pub relay_timeout: Duration,
    /// How long a reserved relay is kept: 30 s, and no less.
    pub reservation_lifetime: Duration,
    /// How long the host may take to connect to a peer: 30 s, and no less; then 447. A connection
    /// no client takes over is closed after the same time.
    pub connect_timeout: Duration,
    /// How long the host may take to look up a key: 5 s, then 500.
    pub key_timeout: Duration,
    /// Whether allocations may move with their client (RFC 8016): no, 405.
    pub mobility: bool,
    /// Whether channels up to 0x7FFF may be bound, as RFC 5766 had it: no.
    pub rfc5766_channels: bool,
    /// Whether clients with Teredo and 6to4 addresses get allocations: no, 403 (RFC 8656
    /// section 21.4).
    pub tunnelled_clients: bool,
    /// Unverified datagrams shorter than this many bytes are not answered: 0.
    pub shortest_unverified: usize,
    /// Answers to unverified datagrams longer than this many times the request are not sent: 5.
    /// See [`Server::shortest_challenged`](super::Server::shortest_challenged).
    pub largest_gain: usize,
    /// Which of the servers of one host this is: the first byte of each CONNECTION-ID, so that the
    /// host can hand a data connection that came to another of its servers to this one. Without,
    /// all four bytes are random.
    pub instance: Option<u8>,
    /// Keys shared with other servers; without, the server makes its own.
    pub shared_keys: Option<SharedKeys>,
    /// How long a stream may be without allocation: 30 s, then closed.
    pub stream_idle: Duration,
    /// How long a unit may take to arrive before an allocation exists: 10 s, then closed. Three
    /// times as long afterwards.
    pub partial_timeout: Duration,
    /// Answers to unverified requests.
    pub unverified: RateLimit,
    /// How much is held at most.
    pub limits: Limits,
}

impl ServerConfig {
    /// The defaults for a realm: IPv4 only, public peers only.
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            auth: LongTermServerConfig::new(realm),
            software: None,
            default_lifetime: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            peers: PeerPolicy::default(),
            listeners: Vec::new(),
            relay_udp: true,
            relay_tcp: false,
            ports: 49_152..=65_535,
            addresses_v4: 1,
            addresses_v6: 0,
            dont_fragment: false,
            relay_timeout: Duration::from_secs(5),
            reservation_lifetime: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(30),
            key_timeout: Duration::from_secs(5),
            mobility: false,
            rfc5766_channels: false,
            tunnelled_clients: false,
            shortest_unverified: 0,
            largest_gain: 5,
            instance: None,
            shared_keys: None,
            stream_idle: Duration::from_secs(30),
            partial_timeout: Duration::from_secs(10),
            unverified: RateLimit::default(),
            limits: Limits::default(),
        }
    }
}

/// Why a configuration makes no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The realm is empty or longer than 127 bytes.
    #[error("realm empty or longer than 127 bytes")]
    Realm,
    /// The default lifetime is 0, longer than the longest, or the longest more than 32 bits can say.
    #[error("lifetimes contradict each other")]
    Lifetime,
    /// SOFTWARE is longer than 127 bytes.
    #[error("software longer than 127 bytes")]
    Software,
    /// One of the limits or timeouts is 0.
    #[error("a limit or timeout is zero")]
    ZeroLimit,
    /// Neither family, or no protocol, can be relayed.
    #[error("no address family or protocol to relay")]
    NoFamily,
    /// A wait is shorter than the protocol allows: reservations and connections need 30 s.
    #[error("a timeout is shorter than the protocol allows")]
    TooShort,
    /// The range of ports is empty, or begins at 0.
    #[error("no ports for relays")]
    Ports,
    /// A unit or request without proof may be longer than 8,192 bytes, or shorter than 512.
    #[error("limit for messages out of range")]
    MessageLimit,
}

impl ServerConfig {
    pub(super) const fn addresses(&self, family: AddressFamily) -> u16 {
        match family {
            AddressFamily::V4 => self.addresses_v4,
            AddressFamily::V6 => self.addresses_v6,
        }
    }

    /// Whether this makes a server.
    ///
    /// # Errors
    /// What [`Server::new`](super::Server::new) would say, but for the realm.
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = self.limits;
        let counts = [
            limits.allocations,
            limits.allocations_per_user,
            limits.permissions,
            limits.channels,
            limits.streams,
            limits.responses,
            limits.key_lookups,
            limits.reservations,
            limits.peer_connections,
            limits.pending_connects,
            limits.unbound_connections,
            self.largest_gain,
        ];
        let waits = [
            self.relay_timeout,
            self.stream_idle,
            self.partial_timeout,
            self.key_timeout,
        ];
        if counts.contains(&0) || waits.iter().any(Duration::is_zero) {
            return Err(ConfigError::ZeroLimit);
        }
        let sizes = [limits.unauthenticated_unit, limits.request];
        if sizes.iter().any(|size| !(512..=8192).contains(size)) {
            return Err(ConfigError::MessageLimit);
        }
        let shortest = Duration::from_secs(30);
        if self.reservation_lifetime < shortest || self.connect_timeout < shortest {
            return Err(ConfigError::TooShort);
        }
        if self.ports.is_empty() || *self.ports.start() == 0 {
            return Err(ConfigError::Ports);
        }
        let longest = self.max_lifetime.as_secs();
        if self.default_lifetime.as_secs() == 0
            || self.default_lifetime > self.max_lifetime
            || longest > u64::from(u32::MAX)
        {
            return Err(ConfigError::Lifetime);
        }
        if self.software.as_ref().is_some_and(|s| s.len() > 127) {
            return Err(ConfigError::Software);
        }
        if (self.addresses_v4 == 0 && self.addresses_v6 == 0) || !(self.relay_udp || self.relay_tcp)
        {
            return Err(ConfigError::NoFamily);
        }
        Ok(())
    }
}
