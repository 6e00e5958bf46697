//! What a server is told before it starts.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::{LongTermServerConfig, User};
use stun_proto::limit::RateLimit;
use stun_proto::wire::{Key, PasswordAlgorithmId, userhash};

use crate::policy::PeerPolicy;

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
    /// Control responses waiting for the host to take them: 1,024. Beyond: dropped and counted.
    pub responses: usize,
    /// Longest unit on a stream without allocation, in bytes: 2,048. Longer: stream closed.
    pub unauthenticated_unit: usize,
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
        }
    }
}

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
    /// Whether IPv4 can be relayed: yes.
    pub relay_v4: bool,
    /// Whether IPv6 can be relayed: no.
    pub relay_v6: bool,
    /// Whether the host can set the DF bit; if not, DONT-FRAGMENT is refused (420): no.
    pub dont_fragment: bool,
    /// How long the host may take to open a relay: 5 s, then 508.
    pub relay_timeout: Duration,
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
            relay_v4: true,
            relay_v6: false,
            dont_fragment: false,
            relay_timeout: Duration::from_secs(5),
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
    /// Neither family can be relayed.
    #[error("no address family to relay")]
    NoFamily,
}

impl ServerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Limits {
            allocations,
            allocations_per_user,
            permissions,
            channels,
            streams,
            responses,
            unauthenticated_unit,
        } = self.limits;
        let counts = [
            allocations,
            allocations_per_user,
            permissions,
            channels,
            streams,
            responses,
            unauthenticated_unit,
        ];
        let waits = [self.relay_timeout, self.stream_idle, self.partial_timeout];
        if counts.contains(&0) || waits.iter().any(Duration::is_zero) {
            return Err(ConfigError::ZeroLimit);
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
        if !self.relay_v4 && !self.relay_v6 {
            return Err(ConfigError::NoFamily);
        }
        Ok(())
    }
}

/// Where the keys of users come from.
pub trait Users {
    /// The key of a user for this algorithm; `None` when there is no such user.
    ///
    /// Called before the user has proven anything: it must not take long, nor longer for users that
    /// exist.
    fn key(&self, user: User<'_>, algorithm: PasswordAlgorithmId) -> Option<Key>;
}

/// Users from a list, with their keys only: passwords are not kept (RFC 8656 section 6).
///
/// ```
/// use stun_proto::auth::User;
/// use stun_proto::wire::PasswordAlgorithmId;
/// use turn_proto::server::{StaticUsers, Users};
///
/// let mut users = StaticUsers::new("example.org");
/// users.add("alice", "secret");
/// assert!(users.key(User::Name(b"alice"), PasswordAlgorithmId::MD5).is_some());
/// assert!(users.key(User::Name(b"bob"), PasswordAlgorithmId::MD5).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct StaticUsers {
    realm: String,
    by_name: BTreeMap<Vec<u8>, Box<UserKeys>>,
    by_hash: BTreeMap<[u8; 32], Vec<u8>>,
}

#[derive(Clone, Debug)]
struct UserKeys {
    md5: Key,
    sha256: Key,
}

impl StaticUsers {
    /// Nobody yet.
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            realm: realm.into(),
            by_name: BTreeMap::new(),
            by_hash: BTreeMap::new(),
        }
    }

    /// Adds or replaces a user.
    pub fn add(&mut self, name: &str, password: &str) {
        let realm = self.realm.as_bytes();
        let key =
            |algorithm| Key::long_term(algorithm, name.as_bytes(), realm, password.as_bytes());
        if let (Some(md5), Some(sha256)) = (
            key(PasswordAlgorithmId::MD5),
            key(PasswordAlgorithmId::SHA256),
        ) {
            let hash = userhash(name.as_bytes(), realm);
            self.by_hash.insert(hash, name.as_bytes().to_vec());
            let keys = Box::new(UserKeys { md5, sha256 });
            self.by_name.insert(name.as_bytes().to_vec(), keys);
        }
    }
}

impl Users for StaticUsers {
    fn key(&self, user: User<'_>, algorithm: PasswordAlgorithmId) -> Option<Key> {
        let keys = match user {
            User::Name(name) => self.by_name.get(name),
            User::Hash(hash) => self.by_name.get(self.by_hash.get(&hash)?),
        }?;
        match algorithm {
            PasswordAlgorithmId::MD5 => Some(keys.md5.clone()),
            PasswordAlgorithmId::SHA256 => Some(keys.sha256.clone()),
            _ => None,
        }
    }
}
