//! The long-term credential mechanism, server side, without memory per client (RFC 8489
//! section 9.2.4).

use core::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::time::Duration;

use alloc::string::String;

use super::nonce::{NonceKeys, NonceState, SecurityFeatures};
use crate::wire::{
    AlternateDomain, AlternateServer, Class, ErrorCode, IntegrityAlgorithm, Key, Message, Nonce,
    PasswordAlgorithm, PasswordAlgorithmId, PasswordAlgorithms, Realm, TextTooLong,
    UnknownAttributes, Userhash, Username, Verified, WriteError, Writer,
};
use crate::{Instant, Rng};

/// What a server asks of its clients.
#[derive(Clone, Debug)]
pub struct LongTermServerConfig {
    /// The domain of the credentials: 1 to 127 characters, without quotes.
    pub realm: String,
    /// How long a nonce counts: 600 s.
    pub nonce_lifetime: Duration,
    /// The algorithms offered, best first; `None` speaks RFC 5389 (MD5 and SHA-1 only).
    pub password_algorithms: Option<PasswordAlgorithms<'static>>,
    /// Whether users may hide behind USERHASH; the host must find users by hash then.
    pub username_anonymity: bool,
}

impl LongTermServerConfig {
    /// The defaults: RFC 8489 with SHA-256 and MD5, user names in clear, 600 s.
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            realm: realm.into(),
            nonce_lifetime: Duration::from_secs(600),
            password_algorithms: Some(PasswordAlgorithms::SHA256_MD5),
            username_anonymity: false,
        }
    }
}

/// Who a request says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User<'a> {
    /// The name itself.
    Name(&'a [u8]),
    /// The hash of name and realm: see [`userhash`](crate::wire::userhash).
    Hash([u8; 32]),
}

/// A request that claims to be from a user; the key to check it with is needed next.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The user whose key is needed.
    pub user: User<'a>,
    /// How that key is to be derived: see [`Key::long_term`].
    pub algorithm: PasswordAlgorithmId,
    message: Message<'a>,
    nonce: Nonce<'a>,
    client: SocketAddr,
    protection: IntegrityAlgorithm,
}

/// A request that is proven to be from a user.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated<'a, 'k> {
    /// The request.
    pub request: Verified<'a>,
    /// The user.
    pub user: User<'a>,
    /// The key that proved it.
    pub key: &'k Key,
    /// How responses are to be protected.
    pub protection: IntegrityAlgorithm,
}

/// Why a request is not let in; [`LongTermServer::write_refusal`] makes the answer.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'k> {
    /// The error code: 400, 401 or 438.
    pub code: u16,
    challenge: bool,
    protection: Option<(IntegrityAlgorithm, &'k Key)>,
}

/// Challenges requests and checks their proofs. Keeps nothing per client: nonces carry their own
/// proof.
#[derive(Clone, Debug)]
pub struct LongTermServer {
    config: LongTermServerConfig,
    nonces: NonceKeys,
    /// Checked against when there is no such user, so that this takes as long as a wrong password.
    nobody: Key,
}

impl LongTermServer {
    /// A server with nonce keys of its own.
    ///
    /// # Errors
    /// [`TextTooLong`] when the realm is longer than 127 bytes. An empty realm counts as too long
    /// as well: clients cannot work with it.
    pub fn new(config: LongTermServerConfig, rng: &mut Rng) -> Result<Self, TextTooLong> {
        if config.realm.is_empty() || config.realm.len() > 127 {
            return Err(TextTooLong { limit: 127 });
        }
        Ok(Self {
            config,
            nonces: NonceKeys::new(rng),
            nobody: Key::from_bytes(&rng.bytes::<16>()),
        })
    }

    /// The domain of the credentials.
    pub fn realm(&self) -> &str {
        &self.config.realm
    }

    /// Replaces the nonce key; nonces signed by the last one still count.
    pub fn rotate_nonce_key(&mut self, rng: &mut Rng) {
        self.nonces.rotate(rng);
    }

    /// First step: reads who a request says it is from.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with when the request proves nothing or is incomplete.
    pub fn identify<'a>(
        &self,
        client: SocketAddr,
        message: &Message<'a>,
    ) -> Result<Claim<'a>, Refusal<'static>> {
        if !message.has_integrity() {
            return Err(Refusal::challenge(ErrorCode::UNAUTHENTICATED));
        }
        let bad_request = Refusal {
            code: ErrorCode::BAD_REQUEST,
            challenge: false,
            protection: None,
        };
        let user = match (message.get(), message.get()) {
            (Some(Ok(Userhash(hash))), _) if self.config.username_anonymity => User::Hash(hash),
            (_, Some(username)) => {
                let username: Username<'_> = username.map_err(|_| bad_request)?;
                User::Name(username.as_bytes())
            }
            (Some(_), None) | (None, None) => return Err(bad_request),
        };
        let realm: Realm<'_> = message.find().ok_or(bad_request)?;
        let nonce: Nonce<'_> = message.find().ok_or(bad_request)?;
        let (algorithm, protection) = self
            .chosen_algorithm(message, nonce)
            .map_err(|()| bad_request)?;
        if realm.as_bytes() != self.config.realm.as_bytes() {
            return Err(Refusal::challenge(ErrorCode::UNAUTHENTICATED));
        }
        Ok(Claim {
            user,
            algorithm,
            message: *message,
            nonce,
            client,
            protection,
        })
    }

    /// Which key the request is made with, and how its response is protected. `Err` when list and
    /// choice do not go together (section 9.2.4).
    fn chosen_algorithm(
        &self,
        message: &Message<'_>,
        nonce: Nonce<'_>,
    ) -> Result<(PasswordAlgorithmId, IntegrityAlgorithm), ()> {
        let implicit = (PasswordAlgorithmId::MD5, IntegrityAlgorithm::Sha1);
        let offered = match self.config.password_algorithms {
            Some(offered) if SecurityFeatures::of_nonce(nonce.as_bytes()).password_algorithms => {
                offered
            }
            Some(_) | None => return Ok(implicit),
        };
        let list = message.get::<PasswordAlgorithms<'_>>();
        let choice = message.get::<PasswordAlgorithm<'_>>();
        match (list, choice) {
            (None, None) => Ok(implicit),
            (Some(Ok(list)), Some(Ok(choice)))
                if list == offered && offered.iter().any(|entry| entry == choice) =>
            {
                Ok((choice.id, IntegrityAlgorithm::Sha256))
            }
            (Some(_), _) | (None, Some(_)) => Err(()),
        }
    }

    /// Second step: checks the proof with the key of the user, `None` when there is no such user.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with.
    pub fn verify<'a, 'k>(
        &self,
        now: Instant,
        claim: &Claim<'a>,
        key: Option<&'k Key>,
    ) -> Result<Authenticated<'a, 'k>, Refusal<'k>> {
        let verified = claim.message.verify(key.unwrap_or(&self.nobody));
        let (Ok(request), Some(key)) = (verified, key) else {
            return Err(Refusal::challenge(ErrorCode::UNAUTHENTICATED));
        };
        let lifetime = self.config.nonce_lifetime;
        let nonce = claim.nonce.as_bytes();
        match self.nonces.check(now, claim.client, nonce, lifetime) {
            NonceState::Valid => Ok(Authenticated {
                request,
                user: claim.user,
                key,
                protection: claim.protection,
            }),
            NonceState::Stale => Err(Refusal {
                code: ErrorCode::STALE_NONCE,
                challenge: true,
                protection: Some((claim.protection, key)),
            }),
        }
    }

    /// Whether the nonce of a request counts: for servers that ask elsewhere for the key, and keep
    /// the request meanwhile only of clients that answered a challenge from their address.
    ///
    /// # Errors
    /// The [`Refusal`] (438, unprotected for want of a key) to answer with.
    pub fn check_nonce(&self, now: Instant, claim: &Claim<'_>) -> Result<(), Refusal<'static>> {
        let lifetime = self.config.nonce_lifetime;
        let nonce = claim.nonce.as_bytes();
        match self.nonces.check(now, claim.client, nonce, lifetime) {
            NonceState::Valid => Ok(()),
            NonceState::Stale => Err(Refusal::challenge(ErrorCode::STALE_NONCE)),
        }
    }

    /// Both steps for hosts that have all keys at hand.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with.
    pub fn authenticate<'a, 'k>(
        &self,
        now: Instant,
        client: SocketAddr,
        message: &Message<'a>,
        key_of: impl FnOnce(User<'a>, PasswordAlgorithmId) -> Option<&'k Key>,
    ) -> Result<Authenticated<'a, 'k>, Refusal<'k>> {
        let claim = self.identify(client, message)?;
        self.verify(now, &claim, key_of(claim.user, claim.algorithm))
    }

    /// Writes the answer to a refused request: at most 100 bytes for a realm of 12, so that
    /// nobody gains by having it sent to somebody else.
    ///
    /// # Errors
    /// [`WriteError`] when `buf` is too small, or `request` is none.
    pub fn write_refusal(
        &self,
        now: Instant,
        client: SocketAddr,
        request: &Message<'_>,
        refusal: &Refusal<'_>,
        buf: &mut [u8],
    ) -> Result<usize, WriteError> {
        if request.class() != Class::Request {
            return Err(WriteError::NotARequest);
        }
        let ty = request.message_type().error();
        let error = ErrorCode::new(refusal.code).with_reason("");
        let mut writer = Writer::new(buf, ty, request.transaction_id()).attribute(&error);
        let nonce;
        if refusal.challenge {
            let features = SecurityFeatures {
                password_algorithms: self.config.password_algorithms.is_some(),
                username_anonymity: self.config.username_anonymity,
            };
            nonce = self.nonces.issue(now, client, features);
            writer = writer
                .maybe(Realm::new(&self.config.realm).ok().as_ref())
                .maybe(Nonce::new(&nonce).ok().as_ref())
                .maybe(self.config.password_algorithms.as_ref());
        }
        match refusal.protection {
            Some((algorithm, key)) => writer.integrity(algorithm, key).finish(),
            None => writer.finish(),
        }
    }
}

impl Refusal<'static> {
    const fn challenge(code: u16) -> Self {
        Self {
            code,
            challenge: true,
            protection: None,
        }
    }
}

/// Where a client is sent instead (RFC 8489 section 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alternate<'d> {
    /// The server's IPv4 address.
    pub v4: Option<SocketAddrV4>,
    /// The server's IPv6 address.
    pub v6: Option<SocketAddrV6>,
    /// The name in the server's certificate, needed over TLS and DTLS when it has another one
    /// than this server.
    pub domain: Option<AlternateDomain<'d>>,
}

impl<'a, 'k> Authenticated<'a, 'k> {
    /// Writes the 300 that sends the client elsewhere: first the address of the family the request
    /// came by, then the other one. `Ok(None)` when there is none of that family.
    ///
    /// # Errors
    /// [`WriteError`] when `buf` is too small.
    pub fn write_try_alternate(
        &self,
        client: SocketAddr,
        alternate: &Alternate<'_>,
        buf: &mut [u8],
    ) -> Result<Option<usize>, WriteError> {
        let v4 = alternate.v4.map(SocketAddr::V4).map(AlternateServer);
        let v6 = alternate.v6.map(SocketAddr::V6).map(AlternateServer);
        let (first, second) = match client.ip().to_canonical() {
            IpAddr::V4(_) => (v4, v6),
            IpAddr::V6(_) => (v6, v4),
        };
        let Some(first) = first else {
            return Ok(None);
        };
        let ty = self.request.message_type().error();
        Writer::new(buf, ty, self.request.transaction_id())
            .attribute(&ErrorCode::new(ErrorCode::TRY_ALTERNATE))
            .attribute(&first)
            .maybe(second.as_ref())
            .maybe(alternate.domain.as_ref())
            .integrity(self.protection, self.key)
            .finish()
            .map(Some)
    }

    /// Writes the 420 for attributes nobody here understands.
    ///
    /// # Errors
    /// [`WriteError`] when `buf` is too small.
    pub fn write_unknown_attributes(
        &self,
        unknown: UnknownAttributes,
        buf: &mut [u8],
    ) -> Result<usize, WriteError> {
        let ty = self.request.message_type().error();
        Writer::new(buf, ty, self.request.transaction_id())
            .attribute(&ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE))
            .attribute(&unknown)
            .integrity(self.protection, self.key)
            .finish()
    }
}
