//! Digest on the side that answers challenges (RFC 7616 sections 3.3 to 3.5).

use alloc::borrow::Cow;
use alloc::string::String;

use super::challenge::push_quoted;
use super::digest::{
    Algorithm, Exchange, HashAlgorithm, HexDigest, Qop, ha1, hash_joined, nonce_count, session_key,
};
use super::{Challenge, Credentials};
use crate::Rng;

/// Longest realm, nonce and opaque taken from a challenge, in bytes each.
const MAX_TEXT: usize = 1024;

/// Why a Digest challenge cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Not a Digest challenge.
    #[error("not a Digest challenge")]
    Scheme,
    /// Realm or nonce is missing or too long.
    #[error("realm or nonce missing or too long")]
    Malformed,
    /// The algorithm is not known here.
    #[error("unknown digest algorithm")]
    Algorithm,
    /// None of the offered qualities of protection is known here.
    #[error("unknown quality of protection")]
    Qop,
}

/// What a response said about itself in `Authentication-Info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoVerdict {
    /// It held no proof.
    Unproven,
    /// The server has proven that it knows the password.
    Proven,
    /// The proof is wrong.
    Forged,
}

/// One realm's challenge and all that follows from it: counts the uses of the nonce and survives
/// the connection it came over.
///
/// ```
/// use http_connect::auth::{Challenge, Credentials, DigestSession};
/// use http_connect::Rng;
///
/// let field = r#"Digest realm="proxy.example", nonce="bm9uY2U=", qop="auth", algorithm=SHA-256"#;
/// let challenge = Challenge::parse(field).unwrap();
/// let credentials = Credentials::new("user", "secret");
/// let mut session = DigestSession::new(&challenge, &credentials).unwrap();
/// let mut rng = Rng::from_seed([7; 32]);
/// let value = session.authorization(&mut rng, "CONNECT", "pcscf.example.com:443", b"");
/// assert!(value.starts_with(r#"Digest username="user",realm="proxy.example","#));
/// assert!(value.contains("nc=00000001"));
/// ```
#[derive(Clone, Debug)]
pub struct DigestSession {
    algorithm: Algorithm,
    qop: Option<Qop>,
    username: String,
    hide_username: bool,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    key: HexDigest,
    /// For `-sess` algorithms, once the first request was made.
    session: Option<HexDigest>,
    nc: u32,
    cnonce: String,
}

impl DigestSession {
    /// Takes up a challenge.
    ///
    /// # Errors
    /// [`DigestError`].
    pub fn new(challenge: &Challenge<'_>, credentials: &Credentials) -> Result<Self, DigestError> {
        let offer = Offer::read(challenge)?;
        let (user, password) = (
            credentials.username.as_bytes(),
            credentials.password.expose(),
        );
        let hash = offer.algorithm.hash;
        Ok(Self {
            algorithm: offer.algorithm,
            qop: offer.qop,
            username: credentials.username.clone(),
            hide_username: offer.userhash,
            key: ha1(hash, user, offer.realm.as_bytes(), password),
            realm: offer.realm.into_owned(),
            nonce: offer.nonce.into_owned(),
            opaque: offer.opaque.map(Cow::into_owned),
            session: None,
            nc: 0,
            cnonce: String::new(),
        })
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The algorithm in use.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The nonce in use.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether `challenge` only says that the nonce is stale, the credentials being right; the new
    /// nonce is in use then.
    pub fn renew(&mut self, challenge: &Challenge<'_>) -> bool {
        let stale = challenge
            .parameter("stale")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let Ok(offer) = Offer::read(challenge) else {
            return false;
        };
        if !stale || offer.realm != self.realm || offer.algorithm != self.algorithm {
            return false;
        }
        self.qop = offer.qop;
        self.opaque = offer.opaque.map(Cow::into_owned);
        let nonce = offer.nonce.into_owned();
        self.set_nonce(nonce);
        true
    }

    fn set_nonce(&mut self, nonce: String) {
        self.nonce = nonce;
        self.nc = 0;
        self.session = None;
    }

    /// The value of an `Authorization` or `Proxy-Authorization` field for the next request.
    ///
    /// `uri` must be the request target exactly as it is sent.
    pub fn authorization(&mut self, rng: &mut Rng, method: &str, uri: &str, body: &[u8]) -> String {
        self.nc = self.nc.saturating_add(1);
        self.cnonce.clear();
        for word in [rng.u64(), rng.u64()] {
            self.cnonce.push_str(&alloc::format!("{word:016x}"));
        }
        if self.algorithm.session && self.session.is_none() {
            let hash = self.algorithm.hash;
            self.session = Some(session_key(hash, &self.key, &self.nonce, &self.cnonce));
        }
        let response = self.exchange(uri).response(self.secret(), method, body);
        self.write(uri, &response)
    }

    fn exchange<'s>(&'s self, uri: &'s str) -> Exchange<'s> {
        Exchange {
            hash: self.algorithm.hash,
            qop: self.qop,
            nonce: &self.nonce,
            nc: self.nc,
            cnonce: &self.cnonce,
            uri,
        }
    }

    fn secret(&self) -> &HexDigest {
        self.session.as_ref().unwrap_or(&self.key)
    }

    fn write(&self, uri: &str, response: &HexDigest) -> String {
        let hashed;
        let username = if self.hide_username {
            let parts = [self.username.as_bytes(), self.realm.as_bytes()];
            hashed = hash_joined(self.algorithm.hash, &parts);
            hashed.as_str()
        } else {
            &self.username
        };
        let mut value = String::from("Digest username=");
        push_quoted(&mut value, username);
        let quoted = [
            ("realm", self.realm.as_str()),
            ("nonce", &self.nonce),
            ("uri", uri),
            ("response", response.as_str()),
        ];
        for (name, text) in quoted {
            push_parameter(&mut value, name);
            push_quoted(&mut value, text);
        }
        push_parameter(&mut value, "algorithm");
        value.push_str(self.algorithm.name());
        if let Some(opaque) = &self.opaque {
            push_parameter(&mut value, "opaque");
            push_quoted(&mut value, opaque);
        }
        if let Some(qop) = self.qop {
            push_parameter(&mut value, "qop");
            value.push_str(qop.name());
            push_parameter(&mut value, "nc");
            value.push_str(&nonce_count(self.nc));
            push_parameter(&mut value, "cnonce");
            push_quoted(&mut value, &self.cnonce);
        }
        if self.hide_username {
            push_parameter(&mut value, "userhash");
            value.push_str("true");
        }
        value
    }

    /// Takes in the `Authentication-Info` or `Proxy-Authentication-Info` of the response to the
    /// last request: checks `rspauth`, goes over to `nextnonce`.
    pub fn handle_info(&mut self, info: &str, uri: &str, body: &[u8]) -> InfoVerdict {
        // The field is a bare list of parameters; a scheme in front makes it a challenge.
        let with_scheme = alloc::format!("Digest {info}");
        let Ok(info) = Challenge::parse(&with_scheme) else {
            return InfoVerdict::Unproven;
        };
        let verdict = match info.parameter("rspauth") {
            None => InfoVerdict::Unproven,
            Some(proof) => {
                let right = self.exchange(uri).response(self.secret(), "", body);
                if right.matches(&proof) {
                    InfoVerdict::Proven
                } else {
                    InfoVerdict::Forged
                }
            }
        };
        let next = info.parameter("nextnonce");
        if verdict != InfoVerdict::Forged
            && let Some(next) = next.filter(|next| !next.is_empty() && next.len() <= MAX_TEXT)
        {
            self.set_nonce(next.into_owned());
        }
        verdict
    }
}

fn push_parameter(value: &mut String, name: &str) {
    value.push(',');
    value.push_str(name);
    value.push('=');
}

/// What a challenge offers.
struct Offer<'a> {
    algorithm: Algorithm,
    qop: Option<Qop>,
    realm: Cow<'a, str>,
    nonce: Cow<'a, str>,
    opaque: Option<Cow<'a, str>>,
    userhash: bool,
}

impl<'a> Offer<'a> {
    fn read(challenge: &Challenge<'a>) -> Result<Self, DigestError> {
        if !challenge.is("Digest") {
            return Err(DigestError::Scheme);
        }
        let text = |name| {
            let value = challenge.parameter(name);
            value.filter(|text| text.len() <= MAX_TEXT)
        };
        Ok(Self {
            algorithm: digest_algorithm(challenge).ok_or(DigestError::Algorithm)?,
            qop: choose_qop(challenge.parameter("qop"))?,
            realm: text("realm").ok_or(DigestError::Malformed)?,
            nonce: text("nonce").ok_or(DigestError::Malformed)?,
            opaque: text("opaque"),
            userhash: challenge
                .parameter("userhash")
                .is_some_and(|value| value.eq_ignore_ascii_case("true")),
        })
    }
}

/// The algorithm a Digest challenge asks for; MD5 when it names none, `None` when it is unknown.
pub(super) fn digest_algorithm(challenge: &Challenge<'_>) -> Option<Algorithm> {
    match challenge.parameter("algorithm") {
        None => Some(Algorithm {
            hash: HashAlgorithm::Md5,
            session: false,
        }),
        Some(name) => Algorithm::from_name(&name),
    }
}

/// `auth` if offered, else `auth-int`; no qop at all is the old form.
fn choose_qop(offered: Option<Cow<'_, str>>) -> Result<Option<Qop>, DigestError> {
    let Some(offered) = offered else {
        return Ok(None);
    };
    let has = |qop: Qop| {
        offered
            .split(',')
            .any(|word| word.trim().eq_ignore_ascii_case(qop.name()))
    };
    [Qop::Auth, Qop::AuthInt]
        .into_iter()
        .find(|&qop| has(qop))
        .map(Some)
        .ok_or(DigestError::Qop)
}
