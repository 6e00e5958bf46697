//! Answering challenges: which scheme, how often, and when to give up (RFC 9110 section 11.4).

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::digest::{Algorithm, HashAlgorithm};
use super::session::digest_algorithm;
use super::{Challenge, Credentials, DigestSession, InfoVerdict, basic_authorization, challenges};
use crate::Rng;

/// How many challenges of one response are looked at.
const MAX_CHALLENGES: usize = 8;

/// How many requests a multi-leg scheme may take.
const MAX_LEGS: u8 = 8;

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
            digest_algorithm(challenge).map(|Algorithm { hash, .. }| Self::Digest(hash))
        } else if challenge.is("NTLM") {
            Some(Self::Ntlm)
        } else if challenge.is("Negotiate") {
            Some(Self::Negotiate)
        } else {
            None
        }
    }

    const fn is_opaque(self) -> bool {
        match self {
            Self::Ntlm | Self::Negotiate => true,
            Self::Basic | Self::Digest(_) => false,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Digest(_) => "Digest",
            Self::Ntlm => "NTLM",
            Self::Negotiate => "Negotiate",
        }
    }
}

/// Which schemes may be answered.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Basic, which shows the password to everybody on the way: not allowed by default.
    pub basic: bool,
    /// Digest with MD5: allowed by default.
    pub md5: bool,
    /// NTLM and Negotiate, whose tokens the host brings: not allowed by default.
    pub opaque: bool,
    /// The only realms that are answered; all when empty.
    pub realms: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            basic: false,
            md5: true,
            opaque: false,
            realms: Vec::new(),
        }
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
#[derive(Clone, Debug)]
pub struct ClientAuth {
    credentials: Option<Credentials>,
    policy: Policy,
    answer: Answer,
    /// The last request carried the present answer.
    answered: bool,
    /// One stale nonce per operation is forgiven.
    stale_seen: bool,
    strongest: Option<Scheme>,
}

impl ClientAuth {
    /// Nothing known yet.
    pub const fn new(credentials: Option<Credentials>, policy: Policy) -> Self {
        Self {
            credentials,
            policy,
            answer: Answer::None,
            answered: false,
            stale_seen: false,
            strongest: None,
        }
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
        let offers: Vec<(Scheme, Challenge<'f>)> = fields
            .into_iter()
            .flat_map(challenges)
            .filter_map(Result::ok)
            .take(MAX_CHALLENGES)
            .filter_map(|c| Scheme::of(&c).map(|scheme| (scheme, c)))
            .collect();
        if let Some(step) = self.follow_up(&offers) {
            return step;
        }
        let mut allowed: Vec<_> = offers
            .iter()
            .filter(|(scheme, challenge)| self.allows(*scheme, challenge))
            .collect();
        // The strongest first; of equal ones the one the server named first.
        allowed.sort_by_key(|(scheme, _)| core::cmp::Reverse(*scheme));
        let Some((best, _)) = allowed.first() else {
            return AuthStep::Refuse(AuthRefusal::NoUsableScheme);
        };
        if self.strongest.is_some_and(|seen| seen > *best) {
            return AuthStep::Refuse(AuthRefusal::Downgrade);
        }
        allowed
            .iter()
            .find_map(|(scheme, challenge)| self.take_up(*scheme, challenge))
            .unwrap_or(AuthStep::Refuse(AuthRefusal::NoUsableScheme))
    }

    /// What a challenge means when the last request carried an answer.
    fn follow_up(&mut self, offers: &[(Scheme, Challenge<'_>)]) -> Option<AuthStep> {
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
                let renewed = offers.iter().any(|(_, challenge)| session.renew(challenge));
                if renewed && !self.stale_seen {
                    self.stale_seen = true;
                    return Some(AuthStep::Retry);
                }
                self.answer = Answer::None;
                Some(AuthStep::Refuse(AuthRefusal::WrongCredentials))
            }
            Answer::Opaque { scheme, legs, .. } => {
                let scheme = *scheme;
                let token = offers
                    .iter()
                    .find(|(offered, _)| *offered == scheme)
                    .and_then(|(_, challenge)| challenge.token68);
                *legs = legs.saturating_add(1);
                let refusal = match token {
                    None => Some(AuthRefusal::WrongCredentials),
                    Some(_) if *legs > MAX_LEGS => Some(AuthRefusal::Unfinished),
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

    fn allows(&self, scheme: Scheme, challenge: &Challenge<'_>) -> bool {
        let by_scheme = match scheme {
            Scheme::Basic => self.policy.basic,
            Scheme::Digest(HashAlgorithm::Md5) => self.policy.md5,
            Scheme::Digest(_) => true,
            Scheme::Ntlm | Scheme::Negotiate => self.policy.opaque,
        };
        let realms = &self.policy.realms;
        let by_realm = realms.is_empty()
            || scheme.is_opaque()
            || challenge
                .parameter("realm")
                .is_some_and(|realm| realms.iter().any(|known| *known == realm));
        by_scheme && by_realm
    }

    fn take_up(&mut self, scheme: Scheme, challenge: &Challenge<'_>) -> Option<AuthStep> {
        if scheme.is_opaque() {
            self.answer = Answer::Opaque {
                scheme,
                legs: 1,
                token: None,
            };
            self.strongest = self.strongest.max(Some(scheme));
            let token = challenge.token68.map(String::from);
            return Some(AuthStep::NeedToken { scheme, token });
        }
        let Some(credentials) = &self.credentials else {
            return Some(AuthStep::Refuse(AuthRefusal::NoCredentials));
        };
        self.answer = if scheme == Scheme::Basic {
            match basic_authorization(credentials) {
                Ok(value) => Answer::Basic(value),
                Err(_) => return Some(AuthStep::Refuse(AuthRefusal::NotForBasic)),
            }
        } else {
            Answer::Digest(DigestSession::new(challenge, credentials).ok()?)
        };
        self.strongest = self.strongest.max(Some(scheme));
        Some(AuthStep::Retry)
    }

    /// Takes in the host's token for the leg asked for; `None` gives up. `Ok` when the request is
    /// to be sent again.
    ///
    /// # Errors
    /// [`AuthRefusal::Unfinished`] when no leg is open or the host gave up.
    pub fn set_token(&mut self, token: Option<String>) -> Result<(), AuthRefusal> {
        match (&mut self.answer, token) {
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

    /// Whether a handshake is under way that only goes on over the same connection.
    pub const fn is_bound_to_connection(&self) -> bool {
        matches!(self.answer, Answer::Opaque { .. })
    }

    /// The request was accepted: takes in `Proxy-Authentication-Info`, if the response has it, and
    /// forgives a stale nonce again.
    pub fn accepted(&mut self, info: Option<&str>, uri: &str, body: &[u8]) -> InfoVerdict {
        self.answered = false;
        self.stale_seen = false;
        match (&mut self.answer, info) {
            (Answer::Digest(session), Some(info)) => session.handle_info(info, uri, body),
            (Answer::Digest(_) | Answer::None | Answer::Basic(_) | Answer::Opaque { .. }, _) => {
                InfoVerdict::Unproven
            }
        }
    }

    /// The connection is gone: a handshake bound to it starts over.
    pub fn connection_lost(&mut self) {
        if self.is_bound_to_connection() {
            self.answer = Answer::None;
            self.answered = false;
        }
    }
}
