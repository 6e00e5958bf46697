//! Digest on the side that challenges (RFC 7616 sections 3.3, 3.6 and 5.4).

use core::fmt;
use core::time::Duration;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::Challenge;
use super::challenge::push_quoted;
use super::digest::{Algorithm, Exchange, HashAlgorithm, HexDigest, Qop, nonce_count};
use super::session::digest_algorithm;
use crate::{Instant, Rng};

const TIME_LEN: usize = 5;
const SALT_LEN: usize = 8;
const TAG_LEN: usize = 16;
const NONCE_LEN: usize = TIME_LEN + SALT_LEN + TAG_LEN;

/// How many counts behind the highest one may still arrive (several flows share a nonce).
const WINDOW: u32 = 64;

/// How a [`DigestServer`] behaves.
#[derive(Clone, Debug)]
pub struct DigestServerConfig {
    /// The domain of the credentials.
    pub realm: String,
    /// The algorithms offered, best first: SHA-256, then MD5.
    pub algorithms: Vec<HashAlgorithm>,
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
            algorithms: alloc::vec![HashAlgorithm::Sha256, HashAlgorithm::Md5],
            nonce_lifetime: Duration::from_secs(300),
            max_nonces: 4096,
        }
    }
}

/// The user a request says it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedUser {
    /// The name.
    Name(String),
    /// H(user:realm) in hexadecimal digits (`userhash`).
    Hash(String),
}

/// A request that is proven to be from a user.
#[derive(Clone, Debug)]
pub struct DigestProof {
    /// The user.
    pub user: ClaimedUser,
    /// The value of `Authentication-Info` for the response: `rspauth` and what belongs to it.
    pub info: String,
}

/// Why credentials are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestRefusal {
    /// They are not Digest credentials, lack something, or are for another realm or URI.
    #[error("malformed or foreign credentials")]
    Malformed,
    /// There is no such user, or the password is wrong.
    #[error("wrong user or password")]
    Wrong,
    /// They are right, but the nonce is too old or this count was used already: challenge again
    /// with `stale=true`.
    #[error("stale nonce")]
    Stale,
}

/// What is known of the counts used with one nonce.
#[derive(Clone, Copy, Debug)]
struct Counts {
    highest: u32,
    /// Bit n: `highest - n` has been used.
    seen: u64,
}

impl Counts {
    /// Notes a count; `false` when it was used before or lies behind the window.
    fn take(&mut self, nc: u32) -> bool {
        if nc > self.highest {
            let by = nc.saturating_sub(self.highest);
            self.seen = if by >= WINDOW { 0 } else { self.seen << by } | 1;
            self.highest = nc;
            return true;
        }
        let behind = self.highest.saturating_sub(nc);
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

/// Challenges requests and checks their proofs. Nonces carry their own proof; only those that
/// were used with the right password are remembered, and only so many.
pub struct DigestServer {
    config: DigestServerConfig,
    key: Hmac<Sha256>,
    /// Checked against when there is no such user, so that this takes as long as a wrong password.
    nobody: HexDigest,
    /// By issue time and tag.
    used: BTreeMap<(u64, [u8; TAG_LEN]), Counts>,
    /// Nonces issued up to then may have been forgotten.
    forgotten: Option<u64>,
}

impl fmt::Debug for DigestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestServer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl DigestServer {
    /// A server with a nonce key of its own.
    pub fn new(config: DigestServerConfig, rng: &mut Rng) -> Self {
        let secret: [u8; 32] = rng.bytes();
        Self {
            config,
            // HMAC takes keys of every length; the fallback is never reached.
            key: Hmac::new_from_slice(&secret).unwrap_or_else(|_| Hmac::new(&Default::default())),
            nobody: super::digest::hash_joined(HashAlgorithm::Sha256, &[&rng.bytes::<32>()]),
            used: BTreeMap::new(),
            forgotten: None,
        }
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.config.realm
    }

    /// The values of the challenge fields, one for each algorithm, best first. `binding` is what
    /// the nonce is good for only: the client's address, a flow.
    pub fn challenges(
        &self,
        now: Instant,
        binding: &[u8],
        stale: bool,
        rng: &mut Rng,
    ) -> Vec<String> {
        let nonce = self.nonce(now, binding, rng);
        let challenge = |&hash: &HashAlgorithm| {
            let mut value = String::from("Digest realm=");
            push_quoted(&mut value, &self.config.realm);
            value.push_str(",qop=\"auth\",algorithm=");
            let session = false;
            value.push_str(Algorithm { hash, session }.name());
            value.push_str(",nonce=");
            push_quoted(&mut value, &nonce);
            if stale {
                value.push_str(",stale=true");
            }
            value
        };
        self.config.algorithms.iter().map(challenge).collect()
    }

    fn nonce(&self, now: Instant, binding: &[u8], rng: &mut Rng) -> String {
        let [_, _, _, time @ ..] = (now.secs() as u64).to_be_bytes();
        let salt: [u8; SALT_LEN] = rng.bytes();
        let tag = self.tag(time, salt, binding);
        Base64::encode_string(&[&time[..], &salt, &tag].concat())
    }

    fn tag(&self, time: [u8; TIME_LEN], salt: [u8; SALT_LEN], binding: &[u8]) -> [u8; TAG_LEN] {
        let mut mac = self.key.clone();
        for part in [&time[..], &salt, binding, self.config.realm.as_bytes()] {
            mac.update(part);
        }
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        full.first_chunk().copied().unwrap_or_default()
    }

    /// The issue time and tag of a nonce that was issued here for this binding.
    fn open(&self, nonce: &str, binding: &[u8]) -> Option<(u64, [u8; TAG_LEN])> {
        let mut bytes = [0; NONCE_LEN];
        let sealed = Base64::decode(nonce, &mut bytes).ok()?;
        let (time, rest) = sealed.split_first_chunk::<TIME_LEN>()?;
        let (salt, sent) = rest.split_first_chunk::<SALT_LEN>()?;
        let tag = self.tag(*time, *salt, binding);
        let seconds = time.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        bool::from(tag[..].ct_eq(sent)).then_some((seconds, tag))
    }

    /// Checks the credentials of a request. `ha1_of` finds a user's key for a hash function (see
    /// [`ha1`](super::ha1)); `uri` is the request target.
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
        let claim = Claim::read(credentials).ok_or(DigestRefusal::Malformed)?;
        let offered = self.config.algorithms.contains(&claim.hash);
        if !offered || claim.realm != self.config.realm || claim.uri != request.uri {
            return Err(DigestRefusal::Malformed);
        }
        let key = ha1_of(&claim.user, claim.hash);
        let exchange = Exchange {
            hash: claim.hash,
            qop: Some(claim.qop),
            nonce: &claim.nonce,
            nc: claim.nc,
            cnonce: &claim.cnonce,
            uri: request.uri,
        };
        let known = key.as_ref().unwrap_or(&self.nobody);
        let right = exchange
            .response(known, request.method, request.body)
            .matches(&claim.response);
        let Some(key) = key.filter(|_| right) else {
            return Err(DigestRefusal::Wrong);
        };
        self.use_nonce(now, binding, &claim.nonce, claim.nc)?;
        let info = alloc::format!(
            "qop={},rspauth=\"{}\",cnonce=\"{}\",nc={}",
            claim.qop.name(),
            exchange.response(&key, "", b"").as_str(),
            claim.cnonce,
            nonce_count(claim.nc),
        );
        Ok(DigestProof {
            user: claim.user,
            info,
        })
    }

    /// Notes that an authenticated request used this nonce for the `nc`th time.
    fn use_nonce(
        &mut self,
        now: Instant,
        binding: &[u8],
        nonce: &str,
        nc: u32,
    ) -> Result<(), DigestRefusal> {
        let (issued, tag) = self.open(nonce, binding).ok_or(DigestRefusal::Stale)?;
        let age = (now.secs() as u64).saturating_sub(issued);
        let lifetime = self.config.nonce_lifetime.as_secs();
        if age > lifetime || nc == 0 {
            return Err(DigestRefusal::Stale);
        }
        // What has expired need not be remembered to be refused.
        let alive = (now.secs() as u64).saturating_sub(lifetime);
        self.used = self.used.split_off(&(alive, [0; TAG_LEN]));
        if let Some(counts) = self.used.get_mut(&(issued, tag)) {
            return if counts.take(nc) {
                Ok(())
            } else {
                Err(DigestRefusal::Stale)
            };
        }
        if self.forgotten.is_some_and(|until| issued <= until) {
            return Err(DigestRefusal::Stale);
        }
        if self.used.len() >= self.config.max_nonces
            && let Some(((oldest, _), _)) = self.used.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(oldest));
        }
        let mut counts = Counts {
            highest: 0,
            seen: 0,
        };
        counts.take(nc);
        self.used.insert((issued, tag), counts);
        Ok(())
    }
}

/// The request whose credentials are checked.
#[derive(Clone, Copy, Debug)]
pub struct DigestRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, exactly as received.
    pub uri: &'a str,
    /// The body; counts for `auth-int` only.
    pub body: &'a [u8],
}

struct Claim {
    user: ClaimedUser,
    hash: HashAlgorithm,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    qop: Qop,
    nc: u32,
    cnonce: String,
}

impl Claim {
    fn read(credentials: &Challenge<'_>) -> Option<Self> {
        if !credentials.is("Digest") {
            return None;
        }
        let text = |name| credentials.parameter(name).map(String::from);
        let hidden = text("userhash").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let name = text("username")?;
        let nc = text("nc").filter(|nc| nc.len() == 8)?;
        let cnonce = text("cnonce").filter(|cnonce| {
            let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
            cnonce.len() <= 128 && cnonce.bytes().all(plain)
        })?;
        let qop = text("qop")?;
        Some(Self {
            user: if hidden {
                ClaimedUser::Hash(name)
            } else {
                ClaimedUser::Name(name)
            },
            hash: digest_algorithm(credentials).filter(|a| !a.session)?.hash,
            realm: text("realm")?,
            nonce: text("nonce")?,
            uri: text("uri")?,
            response: text("response")?,
            qop: [Qop::Auth, Qop::AuthInt]
                .into_iter()
                .find(|known| known.name().eq_ignore_ascii_case(&qop))?,
            nc: u32::from_str_radix(&nc, 16).ok()?,
            cnonce,
        })
    }
}
