//! Digest on the side that answers challenges (RFC 7616 sections 3.3 to 3.5).

use alloc::borrow::Cow;
use alloc::string::String;

use super::challenge::push_quoted;
use super::digest::{
    Algorithm, Exchange, HashAlgorithm, HexDigest, Qop, ha1, nonce_count, session_key, userhash,
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
    /// Realm or nonce is missing, realm, nonce or opaque is longer than 1,024 bytes, or a parameter
    /// comes twice.
    #[error("a parameter is missing, too long or repeated")]
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

/// What was shown with one request, to check the response with.
///
/// Several requests may be under way at once, each with its own.
#[derive(Clone, Debug)]
pub struct DigestSent {
    hash: HashAlgorithm,
    qop: Option<Qop>,
    key: HexDigest,
    nonce: String,
    nc: u32,
    cnonce: String,
    uri: String,
}

impl DigestSent {
    #[cfg(test)]
    pub(super) const fn key(&self) -> &HexDigest {
        &self.key
    }

    fn exchange(&self) -> Exchange<'_> {
        Exchange {
            hash: self.hash,
            qop: self.qop,
            nonce: &self.nonce,
            nc: self.nc,
            cnonce: &self.cnonce,
            uri: &self.uri,
        }
    }

    /// Whether the value of `Authentication-Info` proves that the server knows the password.
    /// `body` is that of the response and counts for [`Qop::AuthInt`] only.
    pub fn check(&self, info: &str, body: &[u8]) -> InfoVerdict {
        read_info(info, |info| self.judge(info, body)).unwrap_or(InfoVerdict::Unproven)
    }

    fn judge(&self, info: &Challenge<'_>, body: &[u8]) -> InfoVerdict {
        let Some(proof) = info.parameter("rspauth") else {
            return InfoVerdict::Unproven;
        };
        let other_qop = info
            .parameter("qop")
            .is_some_and(|qop| self.qop.is_none_or(|own| own.name() != qop));
        let right = self.exchange().response(&self.key, "", body);
        if right.matches(&proof) && !other_qop && !info.is_ambiguous() {
            InfoVerdict::Proven
        } else {
            InfoVerdict::Forged
        }
    }
}

/// The field is a bare list of parameters; a scheme in front makes it a challenge.
fn read_info<T>(info: &str, read: impl FnOnce(&Challenge<'_>) -> T) -> Option<T> {
    let with_scheme = alloc::format!("Digest {info}");
    Challenge::parse(&with_scheme).ok().map(|info| read(&info))
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
    /// The algorithm as the challenge named it, if it did.
    algorithm_text: Option<String>,
    qop: Option<Qop>,
    username: String,
    hide_username: bool,
    extended_username: bool,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    auts: Option<String>,
    key: HexDigest,
    /// For `-sess` algorithms, once the first request was made.
    session: Option<HexDigest>,
    nc: u32,
    sent: Option<DigestSent>,
}

impl DigestSession {
    /// Takes up a challenge. For an AKA algorithm the password is what the card gave: any bytes.
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
            algorithm_text: offer.algorithm_text.map(Cow::into_owned),
            qop: offer.qop,
            username: credentials.username.clone(),
            hide_username: offer.userhash,
            extended_username: false,
            key: ha1(hash, user, offer.realm.as_bytes(), password),
            realm: offer.realm.into_owned(),
            nonce: offer.nonce.into_owned(),
            opaque: offer.opaque.map(Cow::into_owned),
            auts: None,
            session: None,
            nc: 0,
            sent: None,
        })
    }

    /// Sends a user name that is not ASCII as `username*` (RFC 7616 section 3.4), which HTTP wants
    /// and SIP does not know.
    #[must_use]
    pub const fn with_extended_username(mut self) -> Self {
        self.extended_username = true;
        self
    }

    /// Adds `auts`, with which a card asks for a new sequence number (RFC 3310 section 3.4): 14
    /// bytes in base64. The password is empty then.
    #[must_use]
    pub fn with_auts(mut self, auts: impl Into<String>) -> Self {
        self.auts = Some(auts.into());
        self
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The algorithm in use.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The quality of protection in use; `None` with servers that know none.
    pub const fn qop(&self) -> Option<Qop> {
        self.qop
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
        let same = offer.realm == self.realm && offer.algorithm == self.algorithm;
        // Somebody on the way may have taken the qop out.
        let weaker = self.qop.is_some() && offer.qop.is_none();
        if !stale || !same || weaker {
            return false;
        }
        self.qop = offer.qop;
        self.opaque = offer.opaque.map(Cow::into_owned);
        self.nonce = offer.nonce.into_owned();
        self.nc = 0;
        self.session = None;
        true
    }

    /// The value of an `Authorization` or `Proxy-Authorization` field for the next request.
    ///
    /// `uri` must be the request target exactly as it is sent. After 2^32 - 1 requests the count
    /// stands still and the server will find the nonce stale.
    pub fn authorization(&mut self, rng: &mut Rng, method: &str, uri: &str, body: &[u8]) -> String {
        let mut cnonce = String::with_capacity(32);
        for byte in rng.bytes::<16>() {
            cnonce.push_str(&alloc::format!("{byte:02x}"));
        }
        self.authorization_with(cnonce, method, uri, body)
    }

    pub(super) fn authorization_with(
        &mut self,
        cnonce: String,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> String {
        self.nc = self.nc.saturating_add(1);
        if self.algorithm.session && self.session.is_none() {
            let hash = self.algorithm.hash;
            self.session = Some(session_key(hash, &self.key, &self.nonce, &cnonce));
        }
        let sent = DigestSent {
            hash: self.algorithm.hash,
            qop: self.qop,
            key: self.session.as_ref().unwrap_or(&self.key).clone(),
            nonce: self.nonce.clone(),
            nc: self.nc,
            cnonce,
            uri: String::from(uri),
        };
        let response = sent.exchange().response(&sent.key, method, body);
        let value = self.write(&sent, response.as_str());
        self.sent = Some(sent);
        value
    }

    /// The value for a challenge that cannot be answered, with an empty `response`: a card that
    /// does not trust the network says so (RFC 3310 section 3.4).
    pub fn empty_authorization(&self, uri: &str) -> String {
        let sent = DigestSent {
            hash: self.algorithm.hash,
            qop: None,
            key: self.key.clone(),
            nonce: self.nonce.clone(),
            nc: 0,
            cnonce: String::new(),
            uri: String::from(uri),
        };
        self.write(&sent, "")
    }

    /// What was shown with the last request.
    pub const fn sent(&self) -> Option<&DigestSent> {
        self.sent.as_ref()
    }

    fn push_username(&self, value: &mut String) {
        if self.hide_username {
            let (user, realm) = (self.username.as_bytes(), self.realm.as_bytes());
            let hashed = userhash(self.algorithm.hash, user, realm);
            value.push_str("username=");
            push_quoted(value, hashed.as_str());
        } else if self.extended_username && !self.username.is_ascii() {
            value.push_str("username*=UTF-8''");
            push_percent_encoded(value, &self.username);
        } else {
            value.push_str("username=");
            push_quoted(value, &self.username);
        }
    }

    fn write(&self, sent: &DigestSent, response: &str) -> String {
        let mut value = String::from("Digest ");
        self.push_username(&mut value);
        let quoted = [
            ("realm", self.realm.as_str()),
            ("nonce", &sent.nonce),
            ("uri", &sent.uri),
            ("response", response),
        ];
        for (name, text) in quoted {
            push_parameter(&mut value, name);
            push_quoted(&mut value, text);
        }
        if let Some(algorithm) = &self.algorithm_text {
            push_parameter(&mut value, "algorithm");
            value.push_str(algorithm);
        }
        for (name, text) in [("opaque", &self.opaque), ("auts", &self.auts)] {
            if let Some(text) = text {
                push_parameter(&mut value, name);
                push_quoted(&mut value, text);
            }
        }
        if let Some(qop) = sent.qop {
            push_parameter(&mut value, "qop");
            value.push_str(qop.name());
            push_parameter(&mut value, "nc");
            value.push_str(&nonce_count(sent.nc));
            push_parameter(&mut value, "cnonce");
            push_quoted(&mut value, &sent.cnonce);
        }
        if self.hide_username {
            push_parameter(&mut value, "userhash");
            value.push_str("true");
        }
        value
    }

    /// Takes in the `Authentication-Info` or `Proxy-Authentication-Info` of the response to the
    /// last request: checks `rspauth`, goes over to `nextnonce`. `body` is that of the response.
    pub fn handle_info(&mut self, info: &str, body: &[u8]) -> InfoVerdict {
        match self.sent.clone() {
            Some(sent) => self.handle_info_of(&sent, info, body),
            None => InfoVerdict::Unproven,
        }
    }

    /// As [`handle_info`](Self::handle_info), for the response to an earlier request.
    pub fn handle_info_of(&mut self, sent: &DigestSent, info: &str, body: &[u8]) -> InfoVerdict {
        let read = read_info(info, |info| {
            let next = info.parameter("nextnonce").map(Cow::into_owned);
            (sent.judge(info, body), next)
        });
        let Some((verdict, next)) = read else {
            return InfoVerdict::Unproven;
        };
        if verdict != InfoVerdict::Forged
            && let Some(next) = next.filter(|next| !next.is_empty() && next.len() <= MAX_TEXT)
        {
            // The key of a `-sess` algorithm stays that of the first nonce.
            self.nonce = next;
            self.nc = 0;
        }
        verdict
    }
}

/// Writes UTF-8 as RFC 8187 does.
fn push_percent_encoded(value: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            value.push(char::from(byte));
        } else {
            value.push_str(&alloc::format!("%{byte:02X}"));
        }
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
    algorithm_text: Option<Cow<'a, str>>,
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
        if challenge.is_ambiguous() {
            return Err(DigestError::Malformed);
        }
        let too_long = |name| {
            let value = challenge.parameter(name);
            value.is_some_and(|text| text.len() > MAX_TEXT)
        };
        if ["realm", "nonce", "opaque"].into_iter().any(too_long) {
            return Err(DigestError::Malformed);
        }
        let text = |name| challenge.parameter(name);
        Ok(Self {
            algorithm: digest_algorithm(challenge).ok_or(DigestError::Algorithm)?,
            algorithm_text: text("algorithm"),
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
        None => Some(Algorithm::MD5),
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
            .split([',', ' ', '\t'])
            .any(|word| word.eq_ignore_ascii_case(qop.name()))
    };
    [Qop::Auth, Qop::AuthInt]
        .into_iter()
        .find(|&qop| has(qop))
        .map(Some)
        .ok_or(DigestError::Qop)
}
