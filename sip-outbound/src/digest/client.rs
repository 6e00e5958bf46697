//! The side that is challenged: by the registrar, by proxies, in several realms.

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::Rng;
use http_connect::auth::{
    Algorithm, Allow, Challenge, Credentials, DigestSent, DigestSession, InfoVerdict, Policy,
    Secret, Strength, challenges,
};
use smallvec::SmallVec;

use super::aka::{auts_text, password};
use super::{AkaAnswer, AkaChallenge};
use crate::wire::{Message, Name, Response, StatusCode};

/// Realms remembered at most.
const MAX_REALMS: usize = 8;

/// Challenges of one response that are looked at.
const MAX_CHALLENGES: usize = 8;

/// Stale nonces that are forgiven within one operation.
const MAX_STALE: u8 = 2;

/// Where the password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// It is known.
    Text(Secret),
    /// A smart card makes it for each challenge; only AKA challenges are answered.
    Card,
}

/// Who the user is in some realms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user name; for IMS the private identity.
    pub username: String,
    /// The password.
    pub password: Password,
    /// The realms it is good for; `*` is every realm. Challenges of other realms are not answered,
    /// and an account that names a realm comes before one for all.
    pub realms: Vec<String>,
}

impl Account {
    /// An account with a password for one realm.
    pub fn new(
        username: impl Into<String>,
        password: impl Into<Secret>,
        realm: impl Into<String>,
    ) -> Self {
        Self {
            username: username.into(),
            password: Password::Text(password.into()),
            realms: alloc::vec![realm.into()],
        }
    }

    /// The realm to name before anybody has asked, if there is one.
    pub(crate) fn home_realm(&self) -> Option<&str> {
        self.realms.iter().map(String::as_str).find(|r| *r != EVERY)
    }
}

/// Stands for every realm in an account.
const EVERY: &str = "*";

/// The account that is good for a realm.
fn account_for(accounts: &[Account], realm: &str) -> Option<usize> {
    let lists = |wanted: &str| {
        let mut accounts = accounts.iter();
        accounts.position(|account| account.realms.iter().any(|known| known == wanted))
    };
    lists(realm).or_else(|| lists(EVERY))
}

/// Which challenges may be answered.
///
/// ```
/// use sip_outbound::{Allow, DigestPolicy};
///
/// // For a registrar that knows nothing better, and TLS on the way to it.
/// let policy = DigestPolicy { md5: Allow::OverTls, ..DigestPolicy::default() };
/// assert_eq!(DigestPolicy::default().md5, Allow::Never);
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestPolicy {
    /// MD5, AKA with a card apart: never. Registrars that offer nothing else are common; whoever
    /// listens to an answer can try passwords at high speed, so allow it over TLS at most.
    pub md5: Allow,
    /// Challenges without qop, which protect less: never.
    pub no_qop: Allow,
}

impl Default for DigestPolicy {
    fn default() -> Self {
        Self {
            md5: Allow::Never,
            no_qop: Allow::Never,
        }
    }
}

/// Why a challenge is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthFailure {
    /// There is no account for any realm that asks.
    #[error("no account for the realm")]
    NoAccount,
    /// None of the challenges is known and allowed.
    #[error("no challenge that is known and allowed")]
    NoUsableChallenge,
    /// The realm offers less than it did before.
    #[error("weaker authentication than before")]
    Downgrade,
    /// User name or password are wrong.
    #[error("user name or password was rejected")]
    WrongCredentials,
    /// Nonces become stale too fast.
    #[error("too many stale nonces in a row")]
    Stale,
    /// The card does not trust the network.
    #[error("the network failed the check of the card")]
    Network,
}

/// What to do about a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeStep {
    /// Send the request again, with the next CSeq and another branch.
    Retry,
    /// Ask the card, then call [`DigestClient::handle_aka`].
    AskCard(AkaChallenge),
    /// Give up.
    Refuse(AuthFailure),
}

/// What has been tried for one operation: a registration, a call.
#[derive(Clone, Debug, Default)]
pub struct DigestAttempt {
    answered: SmallVec<[usize; 2]>,
    stale: u8,
    sent: SmallVec<[(usize, DigestSent); 2]>,
}

impl DigestAttempt {
    /// The requests to come belong to a new operation.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

/// Who asks: the far end (401) or a proxy on the way (407).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    End,
    Proxy,
}

#[derive(Clone, Debug)]
struct Realm {
    asker: Asker,
    name: String,
    /// Requests to this URI are answered before they are challenged; all, for a proxy.
    uri: String,
    /// The best that was ever offered, and whether it came from a card.
    strongest: Option<(Strength, Algorithm)>,
    answer: Answer,
}

#[derive(Clone, Debug)]
enum Answer {
    None,
    /// The card is being asked about this challenge.
    Card(String),
    Session(DigestSession),
    /// The card wants another sequence number; a fresh challenge follows.
    Resync(DigestSession),
    /// The card refused: said once, in an empty response.
    Distrust(DigestSession),
}

/// All that is known about the realms that ask.
///
/// ```
/// use http_connect::Rng;
/// use sip_outbound::wire::{Limits, Message, Method, Name, ParseConfig, Response};
/// use sip_outbound::{Account, ChallengeStep, DigestAttempt, DigestClient, DigestPolicy};
///
/// let text = b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
///     To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\n\
///     WWW-Authenticate: Digest realm=\"b\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256\r\n\r\n";
/// let message = Message::parse(text, &ParseConfig::default()).unwrap();
/// let challenge = Response::check(message, &Limits::DEFAULT).unwrap();
///
/// let accounts = vec![Account::new("a", "secret", "b")];
/// let mut client = DigestClient::new(accounts, DigestPolicy::default());
/// let mut attempt = DigestAttempt::default();
/// let step = client.handle_challenge(&mut attempt, &challenge, "sip:b", true);
/// assert_eq!(step, ChallengeStep::Retry);
/// let mut rng = Rng::from_seed([7; 32]);
/// let fields = client.authorize(&mut attempt, &mut rng, "REGISTER", "sip:b", b"");
/// assert_eq!(fields[0].0, Name::AUTHORIZATION);
/// assert!(fields[0].1.contains("nc=00000001"));
/// ```
#[derive(Clone, Debug)]
pub struct DigestClient {
    accounts: Vec<Account>,
    policy: DigestPolicy,
    realms: Vec<Realm>,
}

/// A challenge that could be answered.
struct Offer<'a> {
    text: &'a str,
    challenge: Challenge<'a>,
    realm: String,
    strength: Strength,
    algorithm: Algorithm,
    account: usize,
}

impl DigestClient {
    /// A client that knows these accounts and nothing else.
    pub const fn new(accounts: Vec<Account>, policy: DigestPolicy) -> Self {
        Self {
            accounts,
            policy,
            realms: Vec::new(),
        }
    }

    /// Forgets all nonces and what was offered before; the accounts stay.
    pub fn reset(&mut self) {
        self.realms.clear();
    }

    /// The fields to put into a request. Realms that have asked before are answered at once, one
    /// more use of their nonce. Never for ACK, which repeats the fields of its INVITE, nor for
    /// CANCEL.
    pub fn authorize(
        &mut self,
        attempt: &mut DigestAttempt,
        rng: &mut Rng,
        method: &str,
        uri: &str,
        body: &[u8],
    ) -> Vec<(Name, String)> {
        attempt.sent.clear();
        let mut fields = Vec::new();
        for (at, realm) in self.realms.iter_mut().enumerate() {
            if realm.asker == Asker::End && realm.uri != uri {
                continue;
            }
            let value = match &mut realm.answer {
                Answer::None | Answer::Card(_) => continue,
                Answer::Session(session) | Answer::Resync(session) => {
                    let value = session.authorization(rng, method, uri, body);
                    if let Some(sent) = session.sent() {
                        attempt.sent.push((at, sent.clone()));
                    }
                    value
                }
                Answer::Distrust(session) => session.empty_authorization(uri),
            };
            let name = match realm.asker {
                Asker::End => Name::AUTHORIZATION,
                Asker::Proxy => Name::PROXY_AUTHORIZATION,
            };
            fields.push((name, value));
        }
        fields
    }

    /// Takes in a 401 or 407 to a request that went to `uri`, over TLS if `secure`. Each realm is
    /// answered once in an operation; the second time its credentials are wrong, unless the nonce
    /// was only stale.
    pub fn handle_challenge(
        &mut self,
        attempt: &mut DigestAttempt,
        response: &Response,
        uri: &str,
        secure: bool,
    ) -> ChallengeStep {
        let (asker, name) = if response.code() == StatusCode::UNAUTHORIZED {
            (Asker::End, Name::WWW_AUTHENTICATE)
        } else {
            (Asker::Proxy, Name::PROXY_AUTHENTICATE)
        };
        let mut step = Err(AuthFailure::NoUsableChallenge);
        let offers = match self.offers(response.message(), name, secure) {
            Ok(offers) => offers,
            Err(failure) => return ChallengeStep::Refuse(failure),
        };
        let mut done: SmallVec<[&str; 4]> = SmallVec::new();
        for offer in &offers {
            if done.contains(&offer.realm.as_str()) {
                continue;
            }
            done.push(&offer.realm);
            let of_realm = offers.iter().filter(|other| other.realm == offer.realm);
            match self.answer_realm(attempt, asker, uri, of_realm) {
                // Several realms may ask at once: one card question at a time.
                Ok(ChallengeStep::AskCard(card)) => step = Ok(ChallengeStep::AskCard(card)),
                Ok(next) => step = step.or(Ok(next)),
                Err(failure @ AuthFailure::WrongCredentials) => {
                    return ChallengeStep::Refuse(failure);
                }
                Err(failure) => step = step.map_err(|_| failure),
            }
        }
        step.unwrap_or_else(ChallengeStep::Refuse)
    }

    fn offers<'m>(
        &self,
        message: &'m Message,
        name: Name,
        secure: bool,
    ) -> Result<Vec<Offer<'m>>, AuthFailure> {
        let mut foreign = false;
        let offers: Vec<_> = message
            .rows(name)
            .flat_map(|row| {
                challenges(row)
                    .filter_map(Result::ok)
                    .map(move |c| (row, c))
            })
            .take(MAX_CHALLENGES)
            .filter_map(|(text, challenge)| {
                let realm = String::from(challenge.parameter("realm")?);
                let account = account_for(&self.accounts, &realm);
                foreign |= account.is_none();
                let account = account?;
                let (strength, algorithm) = self.rate(&challenge, account, secure)?;
                Some(Offer {
                    text,
                    challenge,
                    realm,
                    strength,
                    algorithm,
                    account,
                })
            })
            .collect();
        match (offers.is_empty(), foreign) {
            (true, true) => Err(AuthFailure::NoAccount),
            (true, false) => Err(AuthFailure::NoUsableChallenge),
            (false, _) => Ok(offers),
        }
    }

    /// How good a challenge is, if the account can answer it and the policy lets it.
    fn rate(
        &self,
        challenge: &Challenge<'_>,
        account: usize,
        secure: bool,
    ) -> Option<(Strength, Algorithm)> {
        let algorithm = match challenge.parameter("algorithm") {
            None => Algorithm::MD5,
            Some(name) => Algorithm::from_name(&name)?,
        };
        let policy = Policy {
            hop_is_tls: secure,
            basic: Allow::Never,
            md5: self.policy.md5,
            no_qop: self.policy.no_qop,
            ..Policy::default()
        };
        let card = self.accounts.get(account)?.password == Password::Card;
        match (card, algorithm.aka) {
            (false, None) => Some((policy.rank(challenge)?, algorithm)),
            (true, Some(_)) => {
                let nonce = challenge.parameter("nonce")?;
                AkaChallenge::from_nonce("", &nonce)?;
                let qop = challenge.parameter("qop").is_some();
                let scheme = http_connect::auth::Scheme::Digest(algorithm.hash);
                let allowed = qop || policy.no_qop == Allow::Always;
                allowed.then_some((Strength { qop, scheme }, algorithm))
            }
            (false, Some(_)) | (true, None) => None,
        }
    }

    fn answer_realm<'o, 'm: 'o>(
        &mut self,
        attempt: &mut DigestAttempt,
        asker: Asker,
        uri: &str,
        offers: impl Iterator<Item = &'o Offer<'m>> + Clone,
    ) -> Result<ChallengeStep, AuthFailure> {
        // The best of this realm; of equal ones the one named first. A newer AKA wins over all.
        let rank = |offer: &Offer<'_>| (offer.algorithm.aka, offer.strength);
        let best = offers
            .clone()
            .reduce(|best, next| if rank(next) > rank(best) { next } else { best })
            .ok_or(AuthFailure::NoUsableChallenge)?;
        let at = self.realm_index(asker, &best.realm, uri)?;
        let realm = self.realms.get_mut(at).ok_or(AuthFailure::NoAccount)?;
        if attempt.answered.contains(&at) {
            let (renewed, resync) = match &mut realm.answer {
                Answer::Session(session) => {
                    (offers.clone().any(|o| session.renew(&o.challenge)), false)
                }
                Answer::Resync(_) => (false, true),
                Answer::None | Answer::Card(_) => (false, false),
                Answer::Distrust(_) => return Err(AuthFailure::Network),
            };
            if !renewed && !resync {
                realm.answer = Answer::None;
                return Err(AuthFailure::WrongCredentials);
            }
            attempt.stale = attempt.stale.saturating_add(1);
            if attempt.stale > MAX_STALE {
                return Err(AuthFailure::Stale);
            }
            if renewed && best.algorithm.aka.is_none() {
                return Ok(ChallengeStep::Retry);
            }
        }
        let weaker = realm
            .strongest
            .is_some_and(|(strength, algorithm)| (algorithm.aka, strength) > rank(best));
        if weaker {
            return Err(AuthFailure::Downgrade);
        }
        realm.strongest = Some((best.strength, best.algorithm));
        realm.uri = uri.into();
        if !attempt.answered.contains(&at) {
            attempt.answered.push(at);
        }
        let account = self
            .accounts
            .get(best.account)
            .ok_or(AuthFailure::NoAccount)?;
        match &account.password {
            Password::Text(secret) => {
                let credentials = Credentials::new(account.username.clone(), secret.clone());
                let session = DigestSession::new(&best.challenge, &credentials)
                    .map_err(|_| AuthFailure::NoUsableChallenge)?;
                realm.answer = Answer::Session(session);
                Ok(ChallengeStep::Retry)
            }
            Password::Card => {
                let nonce = best.challenge.parameter("nonce").unwrap_or_default();
                let card = AkaChallenge::from_nonce(&best.realm, &nonce)
                    .ok_or(AuthFailure::NoUsableChallenge)?;
                realm.answer = Answer::Card(single(best.text, &best.challenge));
                Ok(ChallengeStep::AskCard(card))
            }
        }
    }

    fn realm_index(&mut self, asker: Asker, name: &str, uri: &str) -> Result<usize, AuthFailure> {
        let found = self
            .realms
            .iter()
            .position(|realm| realm.asker == asker && realm.name == name);
        if let Some(at) = found {
            return Ok(at);
        }
        if self.realms.len() >= MAX_REALMS {
            return Err(AuthFailure::NoAccount);
        }
        self.realms.push(Realm {
            asker,
            name: name.into(),
            uri: uri.into(),
            strongest: None,
            answer: Answer::None,
        });
        Ok(self.realms.len().saturating_sub(1))
    }

    /// Takes in what the card said. `Retry` when the request is to be sent again: with the
    /// response, with AUTS, or with an empty response after a MAC failure.
    pub fn handle_aka(&mut self, answer: &AkaAnswer) -> ChallengeStep {
        let unasked = ChallengeStep::Refuse(AuthFailure::NoUsableChallenge);
        let waiting = self
            .realms
            .iter_mut()
            .find(|realm| matches!(realm.answer, Answer::Card(_)));
        let Some(realm) = waiting else {
            return unasked;
        };
        let Answer::Card(text) = core::mem::replace(&mut realm.answer, Answer::None) else {
            return unasked;
        };
        let account = account_for(&self.accounts, &realm.name);
        let account = account.and_then(|at| self.accounts.get(at));
        let (Ok(challenge), Some(account)) = (Challenge::parse(&text), account) else {
            return unasked;
        };
        let algorithm = challenge
            .parameter("algorithm")
            .and_then(|name| Algorithm::from_name(&name))
            .unwrap_or(Algorithm::MD5);
        let secret = match answer {
            AkaAnswer::Response { res, ik, ck } => password(algorithm, res, ik, ck),
            AkaAnswer::SyncFailure { .. } | AkaAnswer::MacFailure => Secret::new(""),
        };
        let credentials = Credentials::new(account.username.clone(), secret);
        let Ok(session) = DigestSession::new(&challenge, &credentials) else {
            return unasked;
        };
        realm.answer = match answer {
            AkaAnswer::Response { .. } => Answer::Session(session),
            AkaAnswer::SyncFailure { auts } => Answer::Resync(session.with_auts(auts_text(auts))),
            AkaAnswer::MacFailure => Answer::Distrust(session),
        };
        ChallengeStep::Retry
    }

    /// The request was accepted: checks the proof of the server, if there is one, and goes over
    /// to its next nonce.
    pub fn accepted(&mut self, attempt: &DigestAttempt, response: &Response) -> InfoVerdict {
        let mut verdict = InfoVerdict::Unproven;
        for (at, sent) in &attempt.sent {
            let Some(realm) = self.realms.get_mut(*at) else {
                continue;
            };
            let name = match realm.asker {
                Asker::End => Name::AUTHENTICATION_INFO,
                Asker::Proxy => Name::PROXY_AUTHENTICATION_INFO,
            };
            let (Ok(info), Answer::Session(session)) = (response.only(name), &mut realm.answer)
            else {
                continue;
            };
            let this = session.handle_info_of(sent, info, response.body());
            verdict = match (verdict, this) {
                (InfoVerdict::Forged, _) | (_, InfoVerdict::Forged) => InfoVerdict::Forged,
                (InfoVerdict::Proven, _) | (_, InfoVerdict::Proven) => InfoVerdict::Proven,
                (InfoVerdict::Unproven, InfoVerdict::Unproven) => InfoVerdict::Unproven,
            };
        }
        verdict
    }
}

/// The text of one challenge alone: the row, unless several stand in it.
fn single(row: &str, challenge: &Challenge<'_>) -> String {
    if Challenge::parse(row).is_ok() {
        return row.into();
    }
    let mut text = String::from(challenge.scheme);
    for (index, (name, value)) in challenge.parameters().enumerate() {
        text.push_str(if index == 0 { " " } else { "," });
        text.push_str(name);
        text.push('=');
        text.push_str(&crate::wire::quote(&value));
    }
    text
}

/// The fields of the first REGISTER in IMS: the identity, and no answer to anything yet (3GPP TS
/// 24.229 section 5.1.1.2).
pub(crate) fn empty_authorization(username: &str, realm: &str, uri: &str) -> String {
    use crate::wire::quote;
    let (username, realm, uri) = (quote(username), quote(realm), quote(uri));
    alloc::format!("Digest username={username},realm={realm},nonce=\"\",uri={uri},response=\"\"")
}
