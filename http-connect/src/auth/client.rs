//! Answering challenges: which scheme, how often, and when to give up (RFC 9110 section 11.4).

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::digest::{Algorithm, HashAlgorithm};
use super::session::digest_algorithm;
use super::{Challenge, Credentials, DigestSession, InfoVerdict, basic_authorization, challenges};
use crate::Rng;

/// An authentication scheme, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Basic: the password in clear.
    Basic,
    /// Digest with this algorithm.
    Digest(HashAlgorithm),
    /// NTLM: opaque legs, bound to one connection.
    Ntlm,
    /// Negotiate (RFC 4559): opaque legs, bound to one connection.
    Negotiate,
}

impl Scheme {
    /// The scheme a challenge asks for, if it is one of these.
    pub fn of(challenge: &Challenge<'_>) -> Option<Self> {
        if challenge.is("Basic") {
            Some(Self::Basic)
        } else if challenge.is("Digest") {
            // AKA needs a card, which nobody has put into this machine.
            digest_algorithm(challenge)
                .filter(|algorithm| algorithm.aka.is_none())
                .map(|Algorithm { hash, .. }| Self::Digest(hash))
        } else if challenge.is("NTLM") {
            Some(Self::Ntlm)
        } else if challenge.is("Negotiate") {
            Some(Self::Negotiate)
        } else {
            None
        }
    }

    /// Whether its tokens come from the host.
    pub const fn is_opaque(self) -> bool {
        match self {
            Self::Ntlm | Self::Negotiate => true,
            Self::Basic | Self::Digest(_) => false,
        }
    }

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Digest(_) => "Digest",
            Self::Ntlm => "NTLM",
            Self::Negotiate => "Negotiate",
        }
    }
}

/// When something risky may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Never.
    Never,
    /// Only when the connection to the proxy is encrypted.
    OverTls,
    /// Always.
    Always,
}

impl Allow {
    const fn permits(self, hop_is_tls: bool) -> bool {
        match self {
            Self::Never => false,
            Self::OverTls => hop_is_tls,
            Self::Always => true,
        }
    }
}

/// Which schemes may be answered.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The connection to the proxy or server is TLS. Off.
    pub hop_is_tls: bool,
    /// Basic, which shows the password to everybody on the way: over TLS only.
    pub basic: Allow,
    /// Digest with MD5: over TLS only.
    pub md5: Allow,
    /// Digest without qop, which protects less (RFC 2069): never.
    pub no_qop: Allow,
    /// NTLM, whose tokens the host brings: never.
    pub ntlm: Allow,
    /// Negotiate, whose tokens the host brings: never.
    pub negotiate: Allow,
    /// The only realms that are answered; all when empty.
    pub realms: Vec<String>,
    /// Asks the host for credentials when there are none, instead of giving up. Off.
    pub ask_host: bool,
    /// How many challenges of one response are looked at: 8.
    pub max_challenges: usize,
    /// How many requests a multi-leg scheme may take: 8.
    pub max_legs: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            hop_is_tls: false,
            basic: Allow::OverTls,
            md5: Allow::OverTls,
            no_qop: Allow::Never,
            ntlm: Allow::Never,
            negotiate: Allow::Never,
            realms: Vec::new(),
            ask_host: false,
            max_challenges: 8,
            max_legs: 8,
        }
    }
}

impl Policy {
    /// How good a challenge is, better ones greater, if it may be answered at all.
    pub fn rank(&self, challenge: &Challenge<'_>) -> Option<Strength> {
        let scheme = Scheme::of(challenge)?;
        let is_digest = matches!(scheme, Scheme::Digest(_));
        let qop = is_digest && challenge.parameter("qop").is_some();
        let permits = |allow: Allow| allow.permits(self.hop_is_tls);
        let by_scheme = match scheme {
            Scheme::Basic => permits(self.basic),
            Scheme::Digest(HashAlgorithm::Md5) => permits(self.md5),
            Scheme::Digest(HashAlgorithm::Sha256 | HashAlgorithm::Sha512_256) => true,
            Scheme::Ntlm => permits(self.ntlm),
            Scheme::Negotiate => permits(self.negotiate),
        };
        let by_realm = self.realms.is_empty()
            || scheme.is_opaque()
            || challenge
                .parameter("realm")
                .is_some_and(|realm| self.realms.iter().any(|known| *known == realm));
        let strength = Strength { scheme, qop };
        let by_qop = qop || !is_digest || permits(self.no_qop);
        (by_scheme && by_realm && by_qop).then_some(strength)
    }
}

/// How good a challenge is: what protects more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strength {
    /// The scheme.
    pub scheme: Scheme,
    /// Digest with qop, so that the response covers count and cnonce.
    pub qop: bool,
}

impl Strength {
    /// Whether somebody who has seen `best` should not make do with this: the scheme is weaker, or
    /// the qop is gone.
    pub fn is_weaker_than(self, best: Self) -> bool {
        let lost_qop = matches!(self.scheme, Scheme::Digest(_)) && best.qop && !self.qop;
        self.scheme < best.scheme || lost_qop
    }

    fn combined(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self {
            scheme: self.scheme.max(other.scheme),
            qop: self.qop || other.qop,
        })
    }
}

/// Why a challenge is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthRefusal {
    /// There are no credentials.
    #[error("credentials are asked for and there are none")]
    NoCredentials,
    /// None of the offered schemes is known and allowed.
    #[error("no offered authentication scheme is known and allowed")]
    NoUsableScheme,
    /// The server offers less than it did before.
    #[error("the server offers weaker authentication than before")]
    Downgrade,
    /// User name or password are wrong.
    #[error("user name or password was rejected")]
    WrongCredentials,
    /// User name or password cannot be sent by Basic.
    #[error("user name or password cannot be sent by Basic authentication")]
    NotForBasic,
    /// A multi-leg scheme takes too many legs, or the host gave it up.
    #[error("the authentication handshake did not come to an end")]
    Unfinished,
}

/// What to do about a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthStep {
    /// Send the request again: [`ClientAuth::authorization`] has an answer now.
    Retry,
    /// Ask the host for the next token of this scheme, then send the request again.
    NeedToken {
        /// Negotiate or NTLM.
        scheme: Scheme,
        /// What the server sent, base64 as it came; `None` for the first leg.
        token: Option<String>,
    },
    /// Ask the host for user name and password: [`ClientAuth::set_credentials`].
    NeedCredentials {
        /// What they are for.
        realm: String,
        /// How they will be sent.
        scheme: Scheme,
    },
    /// Give up.
    Refuse(AuthRefusal),
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "one per client")]
enum Answer {
    None,
    Basic(Zeroizing<String>),
    Digest(DigestSession),
    Opaque {
        scheme: Scheme,
        legs: u8,
        token: Option<Zeroizing<String>>,
    },
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic(_) => "Basic(..)",
            Self::Digest(_) => "Digest(..)",
            Self::Opaque { .. } => "Opaque(..)",
        })
    }
}

/// What a client knows about one server's or proxy's wish for authentication; to be carried from
/// connection to connection, so that the next request is answered before it is challenged.
///
/// It belongs to one proxy: never use it with another, which would get to see the credentials.
///
/// ```
/// use http_connect::Rng;
/// use http_connect::auth::{AuthStep, ClientAuth, Credentials, Policy};
///
/// let mut auth = ClientAuth::new(Some(Credentials::new("me", "pass")), Policy::default());
/// let field = r#"Digest realm="gate", nonce="n", qop="auth", algorithm=SHA-256, Basic realm="gate""#;
/// assert_eq!(auth.challenge([field]), AuthStep::Retry);
/// let mut rng = Rng::from_seed([7; 32]);
/// let value = auth.authorization(&mut rng, "CONNECT", "h.example:443", b"").unwrap();
/// assert!(value.starts_with("Digest "));
/// ```
#[derive(Clone, Debug)]
pub struct ClientAuth {
    credentials: Option<Credentials>,
    policy: Policy,
    answer: Answer,
    /// The last request carried the present answer.
    answered: bool,
    /// The present answer is to a challenge of this operation, not of an earlier one.
    fresh: bool,
    /// One stale nonce per operation is forgiven.
    stale_seen: bool,
    strongest: Option<Strength>,
    /// The fields for which credentials are missing.
    unanswered: Vec<String>,
}

impl ClientAuth {
    /// Nothing known yet.
    pub const fn new(credentials: Option<Credentials>, policy: Policy) -> Self {
        Self {
            credentials,
            policy,
            answer: Answer::None,
            answered: false,
            fresh: false,
            stale_seen: false,
            strongest: None,
            unanswered: Vec::new(),
        }
    }

    /// What may be answered.
    pub const fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    /// The value of `Authorization` or `Proxy-Authorization` for a request, if one is known.
    pub fn authorization(
        &mut self,
        rng: &mut Rng,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> Option<Zeroizing<String>> {
        let value = match &mut self.answer {
            Answer::None => None,
            Answer::Basic(value) => Some(value.clone()),
            Answer::Digest(session) => Some(Zeroizing::new(
                session.authorization(rng, method, uri, body),
            )),
            Answer::Opaque { scheme, token, .. } => token.take().map(|token| {
                let mut value = Zeroizing::new(String::from(scheme.name()));
                value.push(' ');
                value.push_str(&token);
                value
            }),
        };
        self.answered = value.is_some();
        value
    }

    /// Takes in the challenge fields of a 401 or 407.
    pub fn challenge<'f>(&mut self, fields: impl IntoIterator<Item = &'f str>) -> AuthStep {
        let fields: Vec<&str> = fields.into_iter().collect();
        let offers: Vec<Challenge<'f>> = fields
            .iter()
            .flat_map(|field| challenges(field))
            .filter_map(Result::ok)
            .take(self.policy.max_challenges)
            .collect();
        if let Some(step) = self.follow_up(&offers) {
            return step;
        }
        let step = self.choose(&offers);
        if matches!(step, AuthStep::NeedCredentials { .. }) {
            self.unanswered = fields.into_iter().map(String::from).collect();
        }
        step
    }

    /// Takes up the strongest challenge that may be answered; of equal ones the one the server
    /// named first.
    fn choose(&mut self, offers: &[Challenge<'_>]) -> AuthStep {
        let mut allowed: Vec<_> = offers
            .iter()
            .filter_map(|challenge| Some((self.policy.rank(challenge)?, challenge)))
            .collect();
        allowed.sort_by_key(|(strength, _)| core::cmp::Reverse(*strength));
        let Some((best, _)) = allowed.first() else {
            let weaker = self.strongest.is_some() && !offers.is_empty();
            return AuthStep::Refuse(if weaker {
                AuthRefusal::Downgrade
            } else {
                AuthRefusal::NoUsableScheme
            });
        };
        if self.strongest.is_some_and(|seen| best.is_weaker_than(seen)) {
            return AuthStep::Refuse(AuthRefusal::Downgrade);
        }
        let mut step = AuthStep::Refuse(AuthRefusal::NoUsableScheme);
        for (strength, challenge) in allowed {
            if let Some(taken) = self.take_up(strength, challenge) {
                step = taken;
                break;
            }
        }
        step
    }

    /// What a challenge means when the last request carried an answer.
    fn follow_up(&mut self, offers: &[Challenge<'_>]) -> Option<AuthStep> {
        if !self.answered {
            return None;
        }
        self.answered = false;
        match &mut self.answer {
            Answer::None => None,
            Answer::Basic(_) => {
                self.answer = Answer::None;
                Some(AuthStep::Refuse(AuthRefusal::WrongCredentials))
            }
            Answer::Digest(session) => {
                let renewed = offers.iter().any(|challenge| session.renew(challenge));
                if renewed && !self.stale_seen {
                    self.stale_seen = true;
                    return Some(AuthStep::Retry);
                }
                self.answer = Answer::None;
                // A nonce of long ago may be unknown by now, with nothing wrong about the password.
                let may_be_old = !core::mem::replace(&mut self.fresh, true) && !renewed;
                (!may_be_old).then_some(AuthStep::Refuse(AuthRefusal::WrongCredentials))
            }
            Answer::Opaque { scheme, legs, .. } => {
                let scheme = *scheme;
                let token = offers
                    .iter()
                    .find(|challenge| challenge.is(scheme.name()))
                    .and_then(|challenge| challenge.token68);
                *legs = legs.saturating_add(1);
                let refusal = match token {
                    None => Some(AuthRefusal::WrongCredentials),
                    Some(_) if *legs > self.policy.max_legs => Some(AuthRefusal::Unfinished),
                    Some(_) => None,
                };
                if let Some(refusal) = refusal {
                    self.answer = Answer::None;
                    return Some(AuthStep::Refuse(refusal));
                }
                let token = token.map(String::from);
                Some(AuthStep::NeedToken { scheme, token })
            }
        }
    }

    fn take_up(&mut self, strength: Strength, challenge: &Challenge<'_>) -> Option<AuthStep> {
        let scheme = strength.scheme;
        if scheme.is_opaque() {
            self.answer = Answer::Opaque {
                scheme,
                legs: 1,
                token: None,
            };
            self.strongest = Some(strength.combined(self.strongest));
            let token = challenge.token68.map(String::from);
            return Some(AuthStep::NeedToken { scheme, token });
        }
        let Some(credentials) = &self.credentials else {
            if !self.policy.ask_host {
                return Some(AuthStep::Refuse(AuthRefusal::NoCredentials));
            }
            let realm = challenge.parameter("realm").unwrap_or_default();
            let realm = realm.into_owned();
            return Some(AuthStep::NeedCredentials { realm, scheme });
        };
        self.answer = if scheme == Scheme::Basic {
            match basic_authorization(credentials) {
                Ok(value) => Answer::Basic(value),
                Err(_) => return Some(AuthStep::Refuse(AuthRefusal::NotForBasic)),
            }
        } else {
            let session = DigestSession::new(challenge, credentials).ok()?;
            Answer::Digest(session.with_extended_username())
        };
        self.fresh = true;
        self.strongest = Some(strength.combined(self.strongest));
        Some(AuthStep::Retry)
    }

    /// Takes in what [`AuthStep::NeedCredentials`] asked for; `None` gives up. Also replaces the
    /// credentials at any other time: what was known from using the old ones is forgotten.
    pub fn set_credentials(&mut self, credentials: Option<Credentials>) -> AuthStep {
        self.credentials = credentials;
        self.answer = Answer::None;
        self.answered = false;
        let fields = core::mem::take(&mut self.unanswered);
        if self.credentials.is_none() {
            return AuthStep::Refuse(AuthRefusal::NoCredentials);
        }
        self.challenge(fields.iter().map(String::as_str))
    }

    /// Takes in the host's token for the leg asked for, in base64; `None` gives up. `Ok` when the
    /// request is to be sent again.
    ///
    /// # Errors
    /// [`AuthRefusal::Unfinished`] when no leg is open, the token is no base64 or the host gave
    /// up.
    pub fn set_token(&mut self, token: Option<String>) -> Result<(), AuthRefusal> {
        match (&mut self.answer, token.filter(|token| is_token68(token))) {
            (Answer::Opaque { token, .. }, Some(new)) => {
                *token = Some(Zeroizing::new(new));
                Ok(())
            }
            (Answer::Opaque { .. } | Answer::None | Answer::Basic(_) | Answer::Digest(_), _) => {
                self.answer = Answer::None;
                Err(AuthRefusal::Unfinished)
            }
        }
    }

    /// Begins a multi-leg handshake before the server has asked for one: the next request carries
    /// this token.
    ///
    /// # Errors
    /// [`AuthRefusal::NoUsableScheme`] when the policy does not allow it,
    /// [`AuthRefusal::Unfinished`] when the token is no base64.
    pub fn begin(&mut self, scheme: Scheme, token: String) -> Result<(), AuthRefusal> {
        let allow = match scheme {
            Scheme::Ntlm => self.policy.ntlm,
            Scheme::Negotiate => self.policy.negotiate,
            Scheme::Basic | Scheme::Digest(_) => Allow::Never,
        };
        if !allow.permits(self.policy.hop_is_tls) {
            return Err(AuthRefusal::NoUsableScheme);
        }
        if !is_token68(&token) {
            return Err(AuthRefusal::Unfinished);
        }
        self.answer = Answer::Opaque {
            scheme,
            legs: 1,
            token: Some(Zeroizing::new(token)),
        };
        Ok(())
    }

    /// Whether a handshake is under way that only goes on over the same connection.
    pub const fn is_bound_to_connection(&self) -> bool {
        matches!(self.answer, Answer::Opaque { .. })
    }

    /// The request was accepted: takes in `Proxy-Authentication-Info`, if the response has it, and
    /// forgives a stale nonce again. `body` is that of the response.
    pub fn accepted(&mut self, info: Option<&str>, body: &[u8]) -> InfoVerdict {
        self.answered = false;
        self.fresh = false;
        self.stale_seen = false;
        match (&mut self.answer, info) {
            (Answer::Digest(session), Some(info)) => session.handle_info(info, body),
            (Answer::Opaque { .. }, _) => {
                // It has authenticated this connection and no other.
                self.answer = Answer::None;
                InfoVerdict::Unproven
            }
            (Answer::Digest(_), None) | (Answer::None | Answer::Basic(_), _) => {
                InfoVerdict::Unproven
            }
        }
    }

    /// The token a server sends along with its consent, for the host to check.
    pub fn final_token<'f>(&self, fields: impl IntoIterator<Item = &'f str>) -> Option<String> {
        let Answer::Opaque { scheme, .. } = &self.answer else {
            return None;
        };
        let mut offers = fields.into_iter().flat_map(challenges).flatten();
        let own = offers.find(|challenge| challenge.is(scheme.name()))?;
        own.token68.map(String::from)
    }

    /// The connection is gone: a handshake bound to it starts over.
    pub fn connection_lost(&mut self) {
        if self.is_bound_to_connection() {
            self.answer = Answer::None;
            self.answered = false;
        }
    }

    /// Forgets that the server has offered better than what it offers now.
    pub const fn forgive_downgrade(&mut self) {
        self.strongest = None;
    }
}

/// Whether a text can stand behind a scheme instead of parameters.
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    !body.is_empty() && body.bytes().all(legal)
}
