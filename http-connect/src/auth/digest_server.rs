//! Digest on the side that challenges (RFC 7616 sections 3.3, 3.6 and 5).

use core::fmt;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use super::Challenge;
use super::challenge::push_quoted;
use super::digest::{Algorithm, Exchange, HashAlgorithm, HexDigest, Qop, nonce_count, session_key};
use super::nonce::{NonceId, NonceKeys, NonceState, seconds};
use super::replay::Replays;
use super::session::digest_algorithm;
use crate::text::hex_digit;
use crate::{Instant, Rng};

/// How a [`DigestServer`] behaves.
#[derive(Clone, Debug)]
pub struct DigestServerConfig {
    /// The domain of the credentials.
    pub realm: String,
    /// The algorithms offered, best first: SHA-256, then MD5.
    pub algorithms: Vec<Algorithm>,
    /// Offers `auth-int` behind `auth`. Off.
    pub auth_int: bool,
    /// Accepts credentials without qop, which protect less (RFC 2069). Off.
    pub allow_no_qop: bool,
    /// Asks clients to hide user names; users must be found by [`userhash`](super::userhash) then.
    /// Off.
    pub userhash: bool,
    /// Hands out a fresh nonce once half the life of the present one is over. On.
    pub next_nonce: bool,
    /// How long a nonce counts: 300 s.
    pub nonce_lifetime: Duration,
    /// How many nonces in use are watched for repeated counts: 4,096. When more are in use, the
    /// oldest become stale.
    pub max_nonces: usize,
}

impl DigestServerConfig {
    /// The defaults for a realm.
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            realm: realm.into(),
            algorithms: alloc::vec![Algorithm::SHA256, Algorithm::MD5],
            auth_int: false,
            allow_no_qop: false,
            userhash: false,
            next_nonce: true,
            nonce_lifetime: Duration::from_secs(300),
            max_nonces: 4096,
        }
    }
}

/// A [`DigestServerConfig`] that no server can work with: no algorithm or an AKA one, a realm that
/// is empty or holds control characters, a life of no second, or a table without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("realm, algorithms, lifetime or table size are unusable")]
pub struct DigestConfigError;

/// The user a request says it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedUser {
    /// The name.
    Name(String),
    /// H(user:realm) in hexadecimal digits (`userhash`).
    Hash(String),
}

/// Why credentials are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestRefusal {
    /// They are no Digest credentials, lack or repeat something, or name another URI: 400.
    #[error("malformed credentials")]
    Malformed,
    /// They are for another realm, or use what was not offered: challenge again.
    #[error("credentials for something else")]
    Foreign,
    /// There is no such user, or the password is wrong: challenge again.
    #[error("wrong user or password")]
    Wrong,
    /// They are right, but the nonce was never issued here: challenge again.
    #[error("forged nonce")]
    Forged,
    /// They are right, but the nonce is too old or for another client, or this count was used
    /// already: challenge again with `stale=true`.
    #[error("stale nonce")]
    Stale,
}

/// The request whose credentials are checked.
#[derive(Clone, Copy, Debug)]
pub struct DigestRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, exactly as received. A server that accepts other spellings of it
    /// compares with [`DigestClaim::uri`] itself and then passes that.
    pub uri: &'a str,
    /// The body; counts for `auth-int` only.
    pub body: &'a [u8],
}

/// Credentials that are well-formed; the key of their user is needed next.
#[derive(Clone, Debug)]
pub struct DigestClaim {
    user: ClaimedUser,
    algorithm: Algorithm,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    /// Quality of protection, count and cnonce.
    qop: Option<(Qop, u32, String)>,
    /// Also there without qop, for `-sess`.
    cnonce: String,
}

impl DigestClaim {
    /// The user.
    pub const fn user(&self) -> &ClaimedUser {
        &self.user
    }

    /// The hash function of the key that is needed: see [`ha1`](super::ha1).
    pub const fn hash(&self) -> HashAlgorithm {
        self.algorithm.hash
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The request target the client has hashed.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Reads credentials.
    ///
    /// # Errors
    /// [`DigestRefusal::Malformed`].
    pub fn read(credentials: &Challenge<'_>) -> Result<Self, DigestRefusal> {
        Self::parse(credentials).ok_or(DigestRefusal::Malformed)
    }

    fn parse(credentials: &Challenge<'_>) -> Option<Self> {
        if !credentials.is("Digest") || credentials.is_ambiguous() {
            return None;
        }
        let text = |name| credentials.parameter(name).map(String::from);
        let cnonce = text("cnonce").unwrap_or_default();
        // It goes back into the response.
        let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if cnonce.len() > 128 || !cnonce.bytes().all(plain) {
            return None;
        }
        let qop = match text("qop") {
            None => None,
            Some(qop) => {
                let qop = [Qop::Auth, Qop::AuthInt]
                    .into_iter()
                    .find(|known| known.name().eq_ignore_ascii_case(&qop))?;
                let nc = text("nc").filter(|nc| nc.len() == 8)?;
                let nc = nc.bytes().try_fold(0_u32, |sum, digit| {
                    Some(sum << 4 | u32::from(hex_digit(digit)?))
                })?;
                (!cnonce.is_empty()).then_some(())?;
                Some((qop, nc, cnonce.clone()))
            }
        };
        Some(Self {
            user: claimed_user(credentials)?,
            algorithm: digest_algorithm(credentials)?,
            realm: text("realm")?,
            nonce: text("nonce")?,
            uri: text("uri")?,
            response: text("response")?,
            qop,
            cnonce,
        })
    }

    fn exchange(&self) -> Exchange<'_> {
        let (qop, nc, cnonce) = match &self.qop {
            Some((qop, nc, cnonce)) => (Some(*qop), *nc, cnonce.as_str()),
            None => (None, 0, ""),
        };
        Exchange {
            hash: self.algorithm.hash,
            qop,
            nonce: &self.nonce,
            nc,
            cnonce,
            uri: &self.uri,
        }
    }
}

fn claimed_user(credentials: &Challenge<'_>) -> Option<ClaimedUser> {
    let hidden = credentials
        .parameter("userhash")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match (
        credentials.parameter("username"),
        credentials.parameter("username*"),
    ) {
        (Some(name), None) if hidden => Some(ClaimedUser::Hash(name.into_owned())),
        (Some(name), None) => Some(ClaimedUser::Name(name.into_owned())),
        (None, Some(extended)) if !hidden => extended_value(&extended).map(ClaimedUser::Name),
        (None | Some(_), Some(_)) | (None, None) => None,
    }
}

/// The text of an extended value in UTF-8 (RFC 8187 section 3.2).
fn extended_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("UTF-8") {
        return None;
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A request that is proven to be from a user.
#[derive(Clone, Debug)]
pub struct DigestProof {
    claim: DigestClaim,
    key: HexDigest,
    next_nonce: Option<String>,
}

impl DigestProof {
    /// The user.
    pub const fn user(&self) -> &ClaimedUser {
        &self.claim.user
    }

    /// The value of `Authentication-Info` for the response: the proof that this server knows the
    /// password, and perhaps the next nonce. `body` is that of the response.
    pub fn info(&self, body: &[u8]) -> String {
        let claim = &self.claim;
        let mut info = String::from("rspauth=");
        let proof = claim.exchange().response(&self.key, "", body);
        push_quoted(&mut info, proof.as_str());
        if let Some((qop, nc, cnonce)) = &claim.qop {
            info.push_str(&alloc::format!(",qop={},cnonce=", qop.name()));
            push_quoted(&mut info, cnonce);
            info.push_str(",nc=");
            info.push_str(&nonce_count(*nc));
        }
        if let Some(next) = &self.next_nonce {
            info.push_str(",nextnonce=");
            push_quoted(&mut info, next);
        }
        info
    }
}

/// Challenges requests and checks their proofs. Nonces carry their own proof; only those that
/// were used with the right password are remembered, and only so many.
///
/// ```
/// use http_connect::auth::{
///     Challenge, ClaimedUser, Credentials, DigestRequest, DigestServer, DigestServerConfig,
///     DigestSession, ha1,
/// };
/// use http_connect::{Instant, Rng};
///
/// let now = Instant::ZERO;
/// let mut rng = Rng::from_seed([7; 32]);
/// let config = DigestServerConfig::new("realm");
/// let mut server = DigestServer::new(config, &mut rng).unwrap();
///
/// let rows = server.challenges(now, b"192.0.2.1", false);
/// let best = Challenge::parse(&rows[0]).unwrap();
/// let mut session = DigestSession::new(&best, &Credentials::new("user", "pass")).unwrap();
/// let value = session.authorization(&mut rng, "REGISTER", "sip:example.com", b"");
///
/// let credentials = Challenge::parse(&value).unwrap();
/// let request = DigestRequest { method: "REGISTER", uri: "sip:example.com", body: b"" };
/// let proof = server
///     .verify(now, b"192.0.2.1", request, &credentials, |user, hash| {
///         (*user == ClaimedUser::Name("user".into())).then(|| ha1(hash, b"user", b"realm", b"pass"))
///     })
///     .unwrap();
/// assert!(proof.info(b"").starts_with("rspauth="));
/// ```
pub struct DigestServer {
    config: DigestServerConfig,
    rng: Rng,
    nonces: NonceKeys,
    /// Checked against when there is no such user, so that this takes as long as a wrong password.
    nobody: [u8; 32],
    replays: Replays,
}

impl fmt::Debug for DigestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestServer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl DigestServer {
    /// A server with a nonce key of its own. One with the same seed accepts the nonces of its
    /// predecessor, and forgets which counts were used.
    ///
    /// # Errors
    /// [`DigestConfigError`].
    pub fn new(config: DigestServerConfig, rng: &mut Rng) -> Result<Self, DigestConfigError> {
        let realm_ok = !config.realm.is_empty() && !config.realm.chars().any(char::is_control);
        let algorithms_ok = !config.algorithms.is_empty()
            && config.algorithms.iter().all(|known| known.aka.is_none());
        if !realm_ok
            || !algorithms_ok
            || config.max_nonces == 0
            || config.nonce_lifetime < Duration::from_secs(1)
        {
            return Err(DigestConfigError);
        }
        Ok(Self {
            config,
            nonces: NonceKeys::new(rng),
            nobody: rng.bytes(),
            rng: Rng::from_seed(rng.fork()),
            replays: Replays::default(),
        })
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.config.realm
    }

    /// Replaces the nonce key; nonces signed with the last one still count.
    pub fn rotate_nonce_key(&mut self) {
        self.nonces.rotate(&mut self.rng);
    }

    /// The values of the challenge fields, one for each algorithm, best first. `binding` is what
    /// the nonce is good for only: the client's address, a flow; may be empty.
    pub fn challenges(&mut self, now: Instant, binding: &[u8], stale: bool) -> Vec<String> {
        let nonce = self
            .nonces
            .issue(now, &self.config.realm, binding, &mut self.rng);
        let qop = if self.config.auth_int {
            "auth,auth-int"
        } else {
            "auth"
        };
        let challenge = |algorithm: &Algorithm| {
            let mut value = String::from("Digest realm=");
            push_quoted(&mut value, &self.config.realm);
            let name = algorithm.name();
            value.push_str(&alloc::format!(
                ",qop=\"{qop}\",algorithm={name},nonce=\"{nonce}\""
            ));
            if stale {
                value.push_str(",stale=true");
            }
            if self.config.userhash {
                value.push_str(",userhash=true");
            }
            value
        };
        self.config.algorithms.iter().map(challenge).collect()
    }

    /// Checks the credentials of a request. `ha1_of` finds a user's key for a hash function (see
    /// [`ha1`](super::ha1)).
    ///
    /// Hosts that look keys up elsewhere use [`DigestClaim::read`] and
    /// [`verify_claim`](Self::verify_claim).
    ///
    /// # Errors
    /// [`DigestRefusal`].
    pub fn verify(
        &mut self,
        now: Instant,
        binding: &[u8],
        request: DigestRequest<'_>,
        credentials: &Challenge<'_>,
        ha1_of: impl FnOnce(&ClaimedUser, HashAlgorithm) -> Option<HexDigest>,
    ) -> Result<DigestProof, DigestRefusal> {
        let claim = DigestClaim::read(credentials)?;
        let key = ha1_of(&claim.user, claim.hash());
        self.verify_claim(now, binding, request, claim, key.as_ref())
    }

    /// Whether the key of a claim's user is worth looking up: the claim is for this realm and
    /// request, uses what was offered, and its nonce was issued here, be it too old by now.
    ///
    /// # Errors
    /// [`DigestRefusal::Malformed`], [`Foreign`](DigestRefusal::Foreign) or
    /// [`Forged`](DigestRefusal::Forged).
    pub fn screen(
        &self,
        now: Instant,
        binding: &[u8],
        request: DigestRequest<'_>,
        claim: &DigestClaim,
    ) -> Result<(), DigestRefusal> {
        match self.judge(now, binding, request, claim)? {
            NonceState::Forged => Err(DigestRefusal::Forged),
            NonceState::Stale | NonceState::Valid(_) => Ok(()),
        }
    }

    /// What can be said of a claim without a key.
    fn judge(
        &self,
        now: Instant,
        binding: &[u8],
        request: DigestRequest<'_>,
        claim: &DigestClaim,
    ) -> Result<NonceState, DigestRefusal> {
        if claim.uri != request.uri {
            return Err(DigestRefusal::Malformed);
        }
        let offered = self.config.algorithms.contains(&claim.algorithm)
            && match &claim.qop {
                None => self.config.allow_no_qop,
                Some((Qop::Auth, ..)) => true,
                Some((Qop::AuthInt, ..)) => self.config.auth_int,
            };
        if !offered || claim.realm != self.config.realm {
            return Err(DigestRefusal::Foreign);
        }
        let lifetime = self.config.nonce_lifetime;
        let realm = &self.config.realm;
        Ok(self
            .nonces
            .check(now, lifetime, realm, binding, &claim.nonce))
    }

    /// Checks a claim with the key of its user, `None` when there is no such user. Both take the
    /// same work.
    ///
    /// # Errors
    /// [`DigestRefusal`].
    pub fn verify_claim(
        &mut self,
        now: Instant,
        binding: &[u8],
        request: DigestRequest<'_>,
        claim: DigestClaim,
        ha1: Option<&HexDigest>,
    ) -> Result<DigestProof, DigestRefusal> {
        let state = self.judge(now, binding, request, &claim)?;
        let nobody = super::digest::hash_joined(claim.hash(), &[&self.nobody]);
        let key = self.key(&claim, state, ha1.unwrap_or(&nobody));
        let right = claim
            .exchange()
            .response(&key, request.method, request.body)
            .matches(&claim.response);
        if !right || ha1.is_none() {
            return Err(DigestRefusal::Wrong);
        }
        match state {
            NonceState::Forged => return Err(DigestRefusal::Forged),
            NonceState::Stale => return Err(DigestRefusal::Stale),
            NonceState::Valid(id) => self.take_count(now, id, &claim, &key)?,
        }
        let next_nonce = self.next_nonce(now, binding, state, claim.algorithm);
        Ok(DigestProof {
            claim,
            key,
            next_nonce,
        })
    }

    /// What the response must have been computed with.
    fn key(&self, claim: &DigestClaim, state: NonceState, ha1: &HexDigest) -> HexDigest {
        if !claim.algorithm.session {
            return ha1.clone();
        }
        let known = match state {
            NonceState::Valid(id) => self.replays.session(id),
            NonceState::Stale | NonceState::Forged => None,
        };
        match known {
            Some(key) => key.clone(),
            None => session_key(claim.hash(), ha1, &claim.nonce, &claim.cnonce),
        }
    }

    fn take_count(
        &mut self,
        now: Instant,
        id: NonceId,
        claim: &DigestClaim,
        key: &HexDigest,
    ) -> Result<(), DigestRefusal> {
        // Without qop there is no count: each nonce is good for one request.
        let nc = claim.qop.as_ref().map_or(1, |(_, nc, _)| *nc);
        let session = claim.algorithm.session.then_some(key);
        let alive = seconds(now).saturating_sub(self.config.nonce_lifetime.as_secs());
        let limit = self.config.max_nonces;
        if self.replays.take(id, nc, session, alive, limit) {
            Ok(())
        } else {
            Err(DigestRefusal::Stale)
        }
    }

    fn next_nonce(
        &mut self,
        now: Instant,
        binding: &[u8],
        state: NonceState,
        algorithm: Algorithm,
    ) -> Option<String> {
        let NonceState::Valid(id) = state else {
            return None;
        };
        let age = seconds(now).saturating_sub(id.issued);
        let half = self.config.nonce_lifetime.as_secs() / 2;
        // The key of a session is kept with its first nonce.
        if !self.config.next_nonce || algorithm.session || age < half {
            return None;
        }
        let realm = &self.config.realm;
        Some(self.nonces.issue(now, realm, binding, &mut self.rng))
    }
}
