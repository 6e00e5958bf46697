//! The long-term credential mechanism, client side (RFC 8489 section 9.2.5).

use alloc::string::String;
use alloc::vec::Vec;

use super::nonce::SecurityFeatures;
use super::secret::Secret;
use crate::wire::{
    Class, ErrorCode, IntegrityAlgorithm, Key, Message, Nonce, PasswordAlgorithm,
    PasswordAlgorithmId, PasswordAlgorithms, Realm, Userhash, Username, WriteError, Writer,
    userhash,
};

/// A user name and password, prepared with OpaqueString (printable ASCII needs no preparation).
// deviates: STUN-9.2-2 who provisions passwords makes them strong; nothing is refused here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user name: at most 508 bytes.
    pub username: String,
    /// The password; one that is made by a machine should hold 128 random bits.
    pub password: Secret,
    /// The only realm they are used for; any realm when `None`.
    pub realm: Option<String>,
}

impl Credentials {
    /// Credentials for whatever realm the server names.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: Secret::new(password),
            realm: None,
        }
    }
}

/// Why no further attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthFailure {
    /// The server rejected user name or password.
    #[error("the server rejected user name or password")]
    WrongCredentials,
    /// There are no credentials to answer the challenge with.
    #[error("the server asks for credentials")]
    NoCredentials,
    /// The challenge is for a realm the credentials are not for.
    #[error("the challenge is for another realm")]
    ForeignRealm,
    /// The challenge lacks REALM or NONCE, or they are too long to be sent back.
    #[error("the challenge lacks a usable REALM or NONCE")]
    Malformed,
    /// The server, or somebody on the way, offers less than the server did before or than its
    /// nonce announces.
    #[error("the challenge was weakened on the way")]
    BidDown,
    /// The user name is longer than the 508 bytes of USERNAME.
    #[error("the user name is too long to be sent")]
    UsernameTooLong,
    /// None of the offered password algorithms is known here.
    #[error("no known password algorithm offered")]
    NoCommonAlgorithm,
    /// The server found three nonces in a row stale.
    #[error("the server keeps finding the nonce stale")]
    TooManyStale,
    /// The name is to be hidden and the server does not offer that.
    #[error("the server offers no way to hide the user name")]
    NoAnonymity,
}

/// Why a response counts as never received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Discarded {
    /// It is not protected, or not by us and the server.
    #[error("response without valid integrity")]
    Integrity {
        /// The error code it carried, if any: a hint when nothing better comes.
        code: Option<u16>,
    },
    /// Its nonce announces password algorithms that it does not list.
    #[error("response hides the password algorithms")]
    HiddenAlgorithms,
}

/// What to do with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It answers the request.
    Accept,
    /// Write the request again, with a new transaction ID: what is asked for is known now.
    Retry,
    /// Go on waiting. Over a stream no better one can come: the request has failed.
    Discard(Discarded),
    /// The request has failed.
    Fail(AuthFailure),
}

/// How one request was authenticated, and what has been tried for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestAuth {
    /// The challenge it answers; 0 for none.
    generation: u32,
    unauthorized: u8,
    stale: u8,
}

/// Limits of SEC-S-09: after so many in a row an operation fails.
const MAX_UNAUTHORIZED: u8 = 2;
const MAX_STALE: u8 = 3;

#[derive(Clone, Debug)]
struct Challenge {
    generation: u32,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    /// The list to send back, and the choice from it.
    algorithms: Option<(Vec<u8>, PasswordAlgorithmId)>,
    anonymous: bool,
    key: Key,
    integrity: IntegrityAlgorithm,
}

/// What a client knows of a server's wish for authentication: shared by all requests to that
/// server over one five-tuple, so that one new nonce serves them all.
#[derive(Clone, Debug)]
pub struct LongTermClient {
    credentials: Option<Credentials>,
    /// A name and key of a third party, used instead of the credentials.
    third_party: Option<(String, Key)>,
    prefer_sha256: bool,
    lenient_errors: bool,
    open_servers: bool,
    expects_challenge: bool,
    challenge: Option<Challenge>,
    generations: u32,
    /// The key before the last [`set_password`](Self::set_password), and the challenges it answered
    /// up to.
    old_key: Option<(u32, Key)>,
    /// The best password algorithm the server has ever been taken up on.
    strongest: Option<PasswordAlgorithmId>,
    hide_username: bool,
}

impl LongTermClient {
    /// A client that has not been challenged yet.
    pub const fn new(credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            third_party: None,
            prefer_sha256: false,
            lenient_errors: false,
            open_servers: false,
            expects_challenge: false,
            challenge: None,
            generations: 0,
            old_key: None,
            strongest: None,
            hide_username: false,
        }
    }

    /// Prefers SHA-256 over the server's order, as TURN does (RFC 8656 section 6).
    #[must_use]
    pub const fn prefer_sha256(mut self) -> Self {
        self.prefer_sha256 = true;
        self
    }

    /// Sends the user name as a hash only, and to no server that does not offer that: for names
    /// that say who somebody is, over connections that others can read (RFC 8656 section 21.1.6).
    #[must_use]
    pub const fn hide_username(mut self) -> Self {
        self.hide_username = true;
        self
    }

    /// Accepts unprotected errors where real servers send them: 437, 486, 500 and 508, and any
    /// error over a stream or DTLS.
    #[must_use]
    pub const fn lenient_errors(mut self) -> Self {
        self.lenient_errors = true;
        self
    }

    /// Believes a server that answers without asking for credentials although there are some. By
    /// default such a success counts as never received: anybody on the way could have sent it, and
    /// every answer after it as well.
    #[must_use]
    pub const fn open_servers(mut self) -> Self {
        self.open_servers = true;
        self
    }

    /// Believes no success to a request without credentials even before there are some, because a
    /// [third party's key](Self::set_third_party_key) will come.
    #[must_use]
    pub const fn expect_challenge(mut self) -> Self {
        self.expects_challenge = true;
        self
    }

    /// Replaces the credentials; the next request starts without authentication.
    pub fn set_credentials(&mut self, credentials: Option<Credentials>) {
        self.credentials = credentials;
        self.challenge = None;
    }

    /// Another password for the same user, for every request from now on. Answers to those under
    /// way are still judged by the old one, and a server that does not know it any more gets the
    /// request again. Does nothing without credentials.
    pub fn set_password(&mut self, password: Secret) {
        let Some(credentials) = &mut self.credentials else {
            return;
        };
        credentials.password = password;
        let (Some(challenge), None) = (self.challenge.take(), &self.third_party) else {
            return;
        };
        let list = challenge.algorithms.clone();
        let list = list.as_ref();
        let list = list.and_then(|(list, _)| PasswordAlgorithms::from_bytes(list).ok());
        // The challenge was taken up before, so there is a key for it.
        if let Ok((algorithms, integrity, key)) = self.key_for(&challenge.realm, list) {
            self.rekey(challenge, algorithms, integrity, key);
        }
    }

    /// Answers the same challenge with another key from now on.
    fn rekey(
        &mut self,
        challenge: Challenge,
        algorithms: Option<(Vec<u8>, PasswordAlgorithmId)>,
        integrity: IntegrityAlgorithm,
        key: Key,
    ) {
        self.old_key = Some((challenge.generation, challenge.key.clone()));
        self.generations = self.generations.wrapping_add(1).max(1);
        self.challenge = Some(Challenge {
            generation: self.generations,
            algorithms,
            integrity,
            key,
            ..challenge
        });
    }

    /// Authenticates with a key of a third party instead of the credentials (RFC 7635): `kid` is
    /// sent as USERNAME, and no password algorithm is chosen. The next request starts without
    /// authentication, unless there was such a key before: then the server knows what is meant, and
    /// answers to requests under way are judged by the old one.
    pub fn set_third_party_key(&mut self, kid: impl Into<String>, key: Key) {
        let before = self.third_party.replace((kid.into(), key.clone()));
        let known = self.challenge.take().filter(|_| before.is_some());
        if let Some(challenge) = known {
            self.rekey(challenge, None, IntegrityAlgorithm::Sha1, key);
        }
    }

    /// Forgets the challenge, because another server is asked from now on.
    pub fn forget_challenge(&mut self) {
        self.challenge = None;
        self.strongest = None;
    }

    /// The user name in use.
    pub fn username(&self) -> Option<&str> {
        match (&self.third_party, &self.credentials) {
            (Some((kid, _)), _) => Some(kid),
            (None, credentials) => credentials.as_ref().map(|c| c.username.as_str()),
        }
    }

    /// Whether requests are authenticated already.
    pub const fn is_challenged(&self) -> bool {
        self.challenge.is_some()
    }

    /// Finishes a request: adds the credentials once the server has asked for them, and
    /// notes in `auth` which challenge they answer.
    ///
    /// # Errors
    /// [`WriteError`] when the buffer is too small.
    pub fn finish(&self, writer: Writer<'_>, auth: &mut RequestAuth) -> Result<usize, WriteError> {
        let (Some(challenge), Some(username)) = (&self.challenge, self.username()) else {
            auth.generation = 0;
            return writer.finish();
        };
        auth.generation = challenge.generation;
        let username = username.as_bytes();
        let hash = challenge
            .anonymous
            .then(|| Userhash(userhash(username, &challenge.realm)));
        let name = Username::from_bytes(username)
            .ok()
            .filter(|_| hash.is_none());
        let (list, choice) = match &challenge.algorithms {
            Some((list, choice)) => (
                PasswordAlgorithms::from_bytes(list).ok(),
                Some(PasswordAlgorithm::new(*choice)),
            ),
            None => (None, None),
        };
        writer
            .maybe(name.as_ref())
            .maybe(hash.as_ref())
            .maybe(Realm::from_bytes(&challenge.realm).ok().as_ref())
            .maybe(Nonce::from_bytes(&challenge.nonce).ok().as_ref())
            .maybe(list.as_ref())
            .maybe(choice.as_ref())
            .integrity(challenge.integrity, &challenge.key)
            .finish()
    }

    /// Judges a response whose transaction is known. `reliable` says that it came over a stream
    /// or DTLS.
    pub fn judge(
        &mut self,
        auth: &mut RequestAuth,
        response: &Message<'_>,
        reliable: bool,
    ) -> Judgement {
        let code = match response.class() {
            Class::Error => response.find::<ErrorCode<'_>>().map(|error| error.code()),
            Class::Success | Class::Request | Class::Indication => None,
        };
        match code {
            Some(ErrorCode::UNAUTHENTICATED) => self.unauthenticated(auth, response),
            Some(ErrorCode::STALE_NONCE) => self.stale(auth, response),
            code => self.other(auth, response, code, reliable),
        }
    }

    /// Whether a response is proven to come from the server, which one to a request without
    /// credentials never is.
    pub fn proves(&self, auth: &RequestAuth, response: &Message<'_>) -> bool {
        let answered = self.challenge.as_ref().filter(|_| auth.generation != 0);
        answered.is_some_and(|challenge| {
            let old = self.old_key.as_ref();
            let old = old.filter(|(last, _)| auth.generation <= *last);
            let verified = response.verify(old.map_or(&challenge.key, |(_, key)| key));
            // Only the code the request was made with counts (section 9.1.4 by way of 9.2.5).
            verified.is_ok_and(|v| v.algorithm() == challenge.integrity)
        })
    }

    fn other(
        &self,
        auth: &mut RequestAuth,
        response: &Message<'_>,
        code: Option<u16>,
        reliable: bool,
    ) -> Judgement {
        let nonce: Option<Nonce<'_>> = response.find();
        let announced =
            nonce.is_some_and(|n| SecurityFeatures::of_nonce(n.as_bytes()).password_algorithms);
        if announced && response.find::<PasswordAlgorithms<'_>>().is_none() {
            return Judgement::Discard(Discarded::HiddenAlgorithms);
        }
        if self.challenge.is_none() || auth.generation == 0 {
            // Errors to such a request cannot be protected; a success must not be needed.
            let doubtful = response.class() == Class::Success
                && !self.open_servers
                && (self.expects_challenge || self.username().is_some());
            return if doubtful {
                Judgement::Discard(Discarded::Integrity { code: None })
            } else {
                Judgement::Accept
            };
        }
        if self.proves(auth, response) {
            auth.stale = 0;
            auth.unauthorized = 0;
            return Judgement::Accept;
        }
        let lenient = self.lenient_errors
            && !response.has_integrity()
            && match code {
                Some(437 | 486 | 500 | 508) => true,
                Some(ErrorCode::TRY_ALTERNATE) | None => false,
                Some(_) => reliable,
            };
        if lenient {
            Judgement::Accept
        } else {
            Judgement::Discard(Discarded::Integrity { code })
        }
    }

    fn unauthenticated(&mut self, auth: &mut RequestAuth, response: &Message<'_>) -> Judgement {
        auth.unauthorized = auth.unauthorized.saturating_add(1);
        let used = self.challenge.as_ref();
        // A request made with the password of before says nothing about the one of now.
        let old = self.old_key.as_ref();
        let old = old.is_some_and(|(last, _)| auth.generation <= *last);
        if let Some(challenge) = used.filter(|_| auth.generation != 0 && !old) {
            let same_nonce = response
                .find::<Nonce<'_>>()
                .is_some_and(|nonce| nonce.as_bytes() == challenge.nonce);
            // A new nonce may mean that the old one was stale and the server says 401 for it.
            if same_nonce || auth.unauthorized > MAX_UNAUTHORIZED.saturating_sub(1) {
                return Judgement::Fail(AuthFailure::WrongCredentials);
            }
        }
        if auth.unauthorized > MAX_UNAUTHORIZED {
            return Judgement::Fail(AuthFailure::WrongCredentials);
        }
        let realm: Option<Realm<'_>> = response.find();
        if realm.is_none_or(|realm| realm.as_bytes().is_empty()) {
            return Judgement::Fail(AuthFailure::Malformed);
        }
        self.retry(auth, response)
    }

    fn stale(&mut self, auth: &mut RequestAuth, response: &Message<'_>) -> Judgement {
        auth.stale = auth.stale.saturating_add(1);
        if auth.stale > MAX_STALE {
            return Judgement::Fail(AuthFailure::TooManyStale);
        }
        self.retry(auth, response)
    }

    /// Takes up a challenge, unless a newer one than the request answered is known already.
    fn retry(&mut self, auth: &RequestAuth, response: &Message<'_>) -> Judgement {
        let newer_known = self
            .challenge
            .as_ref()
            .is_some_and(|known| auth.generation != 0 && known.generation != auth.generation);
        if newer_known {
            return Judgement::Retry;
        }
        match self.take_up(response) {
            Ok(()) => Judgement::Retry,
            Err(failure) => Judgement::Fail(failure),
        }
    }

    fn take_up(&mut self, response: &Message<'_>) -> Result<(), AuthFailure> {
        let nonce: Nonce<'_> = response.find().ok_or(AuthFailure::Malformed)?;
        let features = SecurityFeatures::of_nonce(nonce.as_bytes());
        let offered: Option<PasswordAlgorithms<'_>> = response.find();
        if offered.is_none() && (features.password_algorithms || self.strongest.is_some()) {
            return Err(AuthFailure::BidDown);
        }
        if self.username().is_none() {
            return Err(AuthFailure::NoCredentials);
        }
        let realm = match (response.find::<Realm<'_>>(), &self.challenge) {
            (Some(realm), _) if !realm.as_bytes().is_empty() => realm.as_bytes().to_vec(),
            (_, Some(known)) => known.realm.clone(),
            (_, None) => return Err(AuthFailure::Malformed),
        };
        if Realm::from_bytes(&realm).is_err() || Nonce::from_bytes(nonce.as_bytes()).is_err() {
            return Err(AuthFailure::Malformed);
        }
        let anonymous = features.username_anonymity && self.third_party.is_none();
        if self.hide_username && !anonymous {
            return Err(AuthFailure::NoAnonymity);
        }
        let name = self.username().filter(|_| !anonymous);
        if name.is_some_and(|name| Username::new(name).is_err()) {
            return Err(AuthFailure::UsernameTooLong);
        }
        let (algorithms, integrity, key) = self.key_for(&realm, offered)?;
        self.strongest = algorithms
            .as_ref()
            .map(|(_, choice)| *choice)
            .or(self.strongest);
        self.generations = self.generations.wrapping_add(1).max(1);
        self.challenge = Some(Challenge {
            generation: self.generations,
            realm,
            nonce: nonce.as_bytes().to_vec(),
            algorithms,
            anonymous,
            key,
            integrity,
        });
        Ok(())
    }

    /// The key for a realm, and how it is used: the list to send back with the choice from it, and
    /// the code that protects messages.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn key_for(
        &self,
        realm: &[u8],
        offered: Option<PasswordAlgorithms<'_>>,
    ) -> Result<
        (
            Option<(Vec<u8>, PasswordAlgorithmId)>,
            IntegrityAlgorithm,
            Key,
        ),
        AuthFailure,
    > {
        if let Some((_, key)) = &self.third_party {
            return Ok((None, IntegrityAlgorithm::Sha1, key.clone()));
        }
        let credentials = self.credentials.as_ref();
        let credentials = credentials.ok_or(AuthFailure::NoCredentials)?;
        let wanted = credentials.realm.as_ref();
        if wanted.is_some_and(|wanted| wanted.as_bytes() != realm) {
            return Err(AuthFailure::ForeignRealm);
        }
        let (algorithms, integrity) = match offered {
            None => (None, IntegrityAlgorithm::Sha1),
            Some(list) => {
                let choice = self.choose(list).ok_or(AuthFailure::NoCommonAlgorithm)?;
                if self.strongest > Some(choice) {
                    return Err(AuthFailure::BidDown);
                }
                (
                    Some((list.as_bytes().to_vec(), choice)),
                    IntegrityAlgorithm::Sha256,
                )
            }
        };
        let algorithm = algorithms
            .as_ref()
            .map_or(PasswordAlgorithmId::MD5, |(_, choice)| *choice);
        let (name, password) = (&credentials.username, credentials.password.expose());
        let key = Key::long_term(algorithm, name.as_bytes(), realm, password.as_bytes())
            .ok_or(AuthFailure::NoCommonAlgorithm)?;
        Ok((algorithms, integrity, key))
    }

    /// The first offer that is known here, or SHA-256 if that is preferred and offered.
    fn choose(&self, list: PasswordAlgorithms<'_>) -> Option<PasswordAlgorithmId> {
        let known = |id: &PasswordAlgorithmId| {
            *id == PasswordAlgorithmId::SHA256 || *id == PasswordAlgorithmId::MD5
        };
        let mut offers = list
            .iter()
            .filter(|entry| entry.parameters.is_empty())
            .map(|entry| entry.id)
            .filter(known);
        let first = offers.next()?;
        let better = self.prefer_sha256 && offers.any(|id| id == PasswordAlgorithmId::SHA256);
        Some(if better {
            PasswordAlgorithmId::SHA256
        } else {
            first
        })
    }
}
