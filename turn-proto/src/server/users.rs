//! Where the keys of users come from.

use core::fmt;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use smallvec::SmallVec;
use stun_proto::auth::{Secret, User};
use stun_proto::wire::{Key, PasswordAlgorithmId, userhash};

/// What a request wants that a key is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new allocation.
    Create,
    /// An allocation is to live on.
    Prolong,
    /// Anything else about an allocation, its end included.
    Use,
}

/// Whose key is needed, and what for.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    /// The user.
    pub user: User<'a>,
    /// How the key is derived: see [`Key::long_term`].
    pub algorithm: PasswordAlgorithmId,
    /// The server's realm.
    pub realm: &'a str,
    /// What the request wants.
    pub purpose: Purpose,
    /// Seconds since 1970, if the host has told the server.
    pub unix_time: Option<u64>,
}

/// What is known about a user.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// The key.
    Key(Box<Key>),
    /// One of these keys, at most four: secrets are being changed.
    OneOf(SmallVec<[Box<Key>; 2]>),
    /// There is no such user.
    Unknown,
    /// The host will look it up: see [`Action::LookUpKey`](super::Action::LookUpKey). Only clients
    /// that have answered a challenge from their address are looked up.
    Later,
}

impl From<Option<Key>> for Lookup {
    fn from(key: Option<Key>) -> Self {
        key.map_or(Self::Unknown, |key| Self::Key(Box::new(key)))
    }
}

/// Whether a user may have one more allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admitted,
    /// It has as many as it may have: 486.
    QuotaReached,
    /// Nobody gets one now: 508.
    NoCapacity,
}

/// Where the keys of users come from.
pub trait Users {
    /// The key of a user.
    ///
    /// Called before the user has proven anything: it must not take long, nor longer for users that
    /// exist.
    fn key(&self, query: &KeyQuery<'_>) -> Lookup;

    /// Asked once for each allocation that the server's own limits allow. For quotas that several
    /// servers count together, and for servers that are being emptied. What is admitted is counted
    /// until it is [released](Self::release).
    fn admit(&self, username: &[u8]) -> Admission {
        let _ = username;
        Admission::Admitted
    }

    /// An allocation that was admitted has ended, or could not be opened.
    fn release(&self, username: &[u8]) {
        let _ = username;
    }

    /// Whether requests without any proof are served: for closed networks only (RFC 8155
    /// section 9). Quotas then count by client address.
    fn open_access(&self) -> bool {
        false
    }

    /// The name by which an authorization server knows this server: set to accept tokens of
    /// RFC 7635. At most 127 bytes.
    fn third_party(&self) -> Option<&str> {
        None
    }

    /// Decrypts the inside of an ACCESS-TOKEN with the key named `kid`, by an AEAD whose
    /// associated data is the server's name (RFC 7635 section 6.2).
    fn open_token(&self, kid: &[u8], nonce: &[u8], sealed: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let _ = (kid, nonce, sealed, name);
        None
    }
}

/// Users from a list, with their keys only: passwords are not kept (RFC 8656 section 6).
///
/// ```
/// use stun_proto::auth::User;
/// use stun_proto::wire::PasswordAlgorithmId;
/// use turn_proto::server::StaticUsers;
///
/// let mut users = StaticUsers::new("example.org");
/// users.add("alice", "secret");
/// assert!(users.key_of(User::Name(b"alice"), PasswordAlgorithmId::MD5).is_some());
/// assert!(users.key_of(User::Name(b"bob"), PasswordAlgorithmId::MD5).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct StaticUsers {
    realm: String,
    by_name: BTreeMap<Vec<u8>, Box<UserKeys>>,
    by_hash: BTreeMap<[u8; 32], Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct UserKeys {
    md5: Option<Key>,
    sha256: Option<Key>,
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
        let keys = UserKeys {
            md5: key(PasswordAlgorithmId::MD5),
            sha256: key(PasswordAlgorithmId::SHA256),
        };
        *self.keys_mut(name) = keys;
    }

    /// Adds a user of whom only a key is known, or another key of a user: 16 bytes for MD5, 32 for
    /// SHA-256. Whether it is one for this algorithm; if not, nothing has changed.
    ///
    /// A client that is offered both algorithms takes SHA-256: where some users have MD5 keys only,
    /// the server must not offer it.
    pub fn add_key(&mut self, name: &str, algorithm: PasswordAlgorithmId, key: &[u8]) -> bool {
        let slot = match (algorithm, key.len()) {
            (PasswordAlgorithmId::MD5, 16) => &mut self.keys_mut(name).md5,
            (PasswordAlgorithmId::SHA256, 32) => &mut self.keys_mut(name).sha256,
            _ => return false,
        };
        *slot = Some(Key::from_bytes(key));
        true
    }

    fn keys_mut(&mut self, name: &str) -> &mut UserKeys {
        let hash = userhash(name.as_bytes(), self.realm.as_bytes());
        self.by_hash.insert(hash, name.as_bytes().to_vec());
        self.by_name.entry(name.as_bytes().to_vec()).or_default()
    }

    /// Removes a user: the allocations it has end when they are not refreshed.
    pub fn remove(&mut self, name: &str) {
        self.by_name.remove(name.as_bytes());
        self.by_hash
            .remove(&userhash(name.as_bytes(), self.realm.as_bytes()));
    }

    /// The key of a user for this algorithm.
    pub fn key_of(&self, user: User<'_>, algorithm: PasswordAlgorithmId) -> Option<&Key> {
        let keys = match user {
            User::Name(name) => self.by_name.get(name),
            User::Hash(hash) => self.by_name.get(self.by_hash.get(&hash)?),
        }?;
        match algorithm {
            PasswordAlgorithmId::MD5 => keys.md5.as_ref(),
            PasswordAlgorithmId::SHA256 => keys.sha256.as_ref(),
            _ => None,
        }
    }
}

impl Users for StaticUsers {
    fn key(&self, query: &KeyQuery<'_>) -> Lookup {
        self.key_of(query.user, query.algorithm).cloned().into()
    }
}

/// Everybody, without proof: for closed networks and laboratories.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenAccess;

impl Users for OpenAccess {
    fn key(&self, _: &KeyQuery<'_>) -> Lookup {
        Lookup::Unknown
    }

    fn open_access(&self) -> bool {
        true
    }
}

/// The hash that makes passwords of [`RestUsers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestHash {
    /// HMAC-SHA1, as everybody does.
    #[default]
    Sha1,
    /// HMAC-SHA256.
    Sha256,
}

/// Users whose names say until when they count, and whose passwords follow from a secret shared
/// with the service that makes the names ("TURN REST API").
///
/// A name is `seconds since 1970`, optionally followed by `:` and anything; the password is
/// base64(HMAC(secret, name)). The server must be told the time with
/// [`Server::set_unix_time`](super::Server::set_unix_time): without it nobody is let in.
///
/// ```
/// use turn_proto::server::RestUsers;
///
/// let users = RestUsers::new("north");
/// let password = users.password(b"1433895918:user2");
/// assert_eq!(password.expose(), "Zs/dKU9OyrtO2tTalcDnVzae8KU=");
/// ```
#[derive(Clone)]
pub struct RestUsers {
    secrets: SmallVec<[Secret; 2]>,
    /// Which hash makes the passwords.
    pub hash: RestHash,
    /// The longest time a name may still have; no bound by default, in seconds.
    pub longest: Option<u64>,
    /// What stands between time and name.
    pub separator: u8,
    /// Lets allocations be refreshed with a name whose time is over, as other servers do. Off:
    /// the time counts at each refresh.
    pub refresh_after_expiry: bool,
}

/// The most secrets at once.
const MAX_SECRETS: usize = 4;

impl RestUsers {
    /// Users of this secret.
    pub fn new(secret: impl Into<String>) -> Self {
        let mut secrets = SmallVec::new();
        secrets.push(Secret::new(secret));
        Self {
            secrets,
            hash: RestHash::default(),
            longest: None,
            separator: b':',
            refresh_after_expiry: false,
        }
    }

    /// Makes a new secret the first one; the older ones still count, four in all.
    pub fn add_secret(&mut self, secret: impl Into<String>) {
        self.secrets.insert(0, Secret::new(secret));
        self.secrets.truncate(MAX_SECRETS);
    }

    /// Stops accepting all secrets but the first.
    pub fn drop_old_secrets(&mut self) {
        self.secrets.truncate(1);
    }

    /// The password that goes with a name, made with the first secret.
    pub fn password(&self, username: &[u8]) -> Secret {
        match self.secrets.first() {
            Some(secret) => self.password_of(secret, username),
            None => Secret::new(""),
        }
    }

    fn password_of(&self, secret: &Secret, username: &[u8]) -> Secret {
        let secret = secret.expose().as_bytes();
        let mut text = [0; 44];
        // HMAC takes keys of every length, and the text has room for both hashes.
        let encoded = match self.hash {
            RestHash::Sha1 => Hmac::<Sha1>::new_from_slice(secret).ok().and_then(|mac| {
                let code = mac.chain_update(username).finalize().into_bytes();
                Base64::encode(&code, &mut text).ok()
            }),
            RestHash::Sha256 => Hmac::<Sha256>::new_from_slice(secret).ok().and_then(|mac| {
                let code = mac.chain_update(username).finalize().into_bytes();
                Base64::encode(&code, &mut text).ok()
            }),
        };
        Secret::new(encoded.unwrap_or_default())
    }

    /// Whether a name counts for this purpose at this time.
    fn counts(&self, username: &[u8], purpose: Purpose, now: Option<u64>) -> bool {
        let digits = username
            .split(|byte| *byte == self.separator)
            .next()
            .unwrap_or_default();
        let expiry = core::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok());
        let (Some(expiry), Some(now)) = (expiry, now) else {
            return false;
        };
        let checked = match purpose {
            Purpose::Create => true,
            Purpose::Prolong => !self.refresh_after_expiry,
            Purpose::Use => false,
        };
        let too_long = |longest| expiry.saturating_sub(now) > longest;
        !checked || (now < expiry && !self.longest.is_some_and(too_long))
    }
}

impl Users for RestUsers {
    fn key(&self, query: &KeyQuery<'_>) -> Lookup {
        let User::Name(name) = query.user else {
            // Names are not known in advance, so neither are their hashes.
            return Lookup::Unknown;
        };
        if !self.counts(name, query.purpose, query.unix_time) {
            return Lookup::Unknown;
        }
        let keys = self.secrets.iter().filter_map(|secret| {
            let password = self.password_of(secret, name);
            let (realm, password) = (query.realm.as_bytes(), password.expose().as_bytes());
            Key::long_term(query.algorithm, name, realm, password).map(Box::new)
        });
        Lookup::OneOf(keys.collect())
    }
}

impl fmt::Debug for RestUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestUsers")
            .field("secrets", &self.secrets.len())
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}
