//! Basic and Digest together, as a proxy or server offers them.

use alloc::string::String;
use alloc::vec::Vec;

use super::challenge::push_quoted;
use super::digest::ha1;
use super::{
    Challenge, ClaimedUser, DigestRefusal, DigestRequest, DigestServer, HashAlgorithm, HexDigest,
    parse_basic,
};
use crate::Instant;

/// What a [`ServerAuth`] thinks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerVerdict {
    /// It is from this user.
    Allow {
        /// The user; as hexadecimal hash if the client hides the name.
        user: String,
        /// The value of `Authentication-Info` or `Proxy-Authentication-Info` for a response
        /// without body, if the scheme has one.
        info: Option<String>,
    },
    /// 401 or 407 with these values of the challenge field, one row each.
    Challenge(Vec<String>),
    /// 400: the credentials make no sense.
    Malformed,
}

/// Offers Digest, and Basic behind it if asked to, and keeps nothing of unknown clients.
///
/// ```
/// use http_connect::auth::{
///     DigestRequest, DigestServer, DigestServerConfig, ServerAuth, ServerVerdict, ha1,
/// };
/// use http_connect::{Instant, Rng};
///
/// let config = DigestServerConfig::new("gate");
/// let digest = DigestServer::new(config, &mut Rng::from_seed([7; 32])).unwrap();
/// let mut auth = ServerAuth::new(digest).with_basic();
/// let request = DigestRequest { method: "CONNECT", uri: "h.example:443", body: b"" };
/// let users = |hash, user: &str| (user == "me").then(|| ha1(hash, b"me", b"gate", b"pass"));
///
/// let verdict = auth.check_named(Instant::ZERO, b"", request, None, users);
/// assert!(matches!(verdict, ServerVerdict::Challenge(rows) if rows.len() == 3));
/// let verdict = auth.check_named(Instant::ZERO, b"", request, Some("Basic bWU6cGFzcw=="), users);
/// assert_eq!(verdict, ServerVerdict::Allow { user: "me".into(), info: None });
/// ```
#[derive(Debug)]
pub struct ServerAuth {
    digest: DigestServer,
    basic: bool,
}

impl ServerAuth {
    /// Digest alone.
    pub const fn new(digest: DigestServer) -> Self {
        Self {
            digest,
            basic: false,
        }
    }

    /// Offers and accepts Basic as well; only sensible where the connection is encrypted.
    #[must_use]
    pub const fn with_basic(mut self) -> Self {
        self.basic = true;
        self
    }

    /// The Digest side of it.
    pub const fn digest_mut(&mut self) -> &mut DigestServer {
        &mut self.digest
    }

    /// Judges a request by its `Authorization` or `Proxy-Authorization`. `ha1_of` finds the key
    /// of a user, see [`ha1`](super::ha1()); Basic asks for the SHA-256 one.
    pub fn check(
        &mut self,
        now: Instant,
        binding: &[u8],
        request: DigestRequest<'_>,
        authorization: Option<&str>,
        ha1_of: impl FnOnce(&ClaimedUser, HashAlgorithm) -> Option<HexDigest>,
    ) -> ServerVerdict {
        let Some(authorization) = authorization else {
            return self.challenge(now, binding, false);
        };
        let Ok(credentials) = Challenge::parse(authorization) else {
            return ServerVerdict::Malformed;
        };
        if self.basic && credentials.is("Basic") {
            return match self.check_basic(&credentials, ha1_of) {
                Some(verdict) => verdict,
                None => self.challenge(now, binding, false),
            };
        }
        if !credentials.is("Digest") {
            return self.challenge(now, binding, false);
        }
        let proof = self
            .digest
            .verify(now, binding, request, &credentials, ha1_of);
        match proof {
            Ok(proof) => {
                let (ClaimedUser::Name(user) | ClaimedUser::Hash(user)) = proof.user();
                ServerVerdict::Allow {
                    user: user.clone(),
                    info: Some(proof.info(b"")),
                }
            }
            Err(DigestRefusal::Malformed) => ServerVerdict::Malformed,
            Err(DigestRefusal::Stale) => self.challenge(now, binding, true),
            Err(DigestRefusal::Foreign | DigestRefusal::Wrong | DigestRefusal::Forged) => {
                self.challenge(now, binding, false)
            }
        }
    }

    /// As [`check`](Self::check), for hosts whose users do not hide their names.
    pub fn check_named(
        &mut self,
        now: Instant,
        binding: &[u8],
        request: DigestRequest<'_>,
        authorization: Option<&str>,
        ha1_of: impl FnOnce(HashAlgorithm, &str) -> Option<HexDigest>,
    ) -> ServerVerdict {
        self.check(
            now,
            binding,
            request,
            authorization,
            |user, hash| match user {
                ClaimedUser::Name(name) => ha1_of(hash, name),
                ClaimedUser::Hash(_) => None,
            },
        )
    }

    /// `None` for a wrong user or password; both take the same work.
    fn check_basic(
        &self,
        credentials: &Challenge<'_>,
        ha1_of: impl FnOnce(&ClaimedUser, HashAlgorithm) -> Option<HexDigest>,
    ) -> Option<ServerVerdict> {
        let Some(shown) = parse_basic(credentials) else {
            return Some(ServerVerdict::Malformed);
        };
        let hash = HashAlgorithm::Sha256;
        let (user, password) = (shown.username, shown.password);
        let claimed = ClaimedUser::Name(user);
        let key = ha1_of(&claimed, hash);
        let ClaimedUser::Name(user) = claimed else {
            return None;
        };
        let realm = self.digest.realm().as_bytes();
        let right = ha1(hash, user.as_bytes(), realm, password.expose());
        let nobody = ha1(hash, b"", b"", b"");
        let matches = right.matches(key.as_ref().unwrap_or(&nobody).as_str());
        (matches && key.is_some()).then_some(ServerVerdict::Allow { user, info: None })
    }

    fn challenge(&mut self, now: Instant, binding: &[u8], stale: bool) -> ServerVerdict {
        let mut rows = self.digest.challenges(now, binding, stale);
        if self.basic {
            rows.push(basic_challenge(self.digest.realm()));
        }
        ServerVerdict::Challenge(rows)
    }
}

/// The value of the challenge field that asks for Basic in a realm (RFC 7617), whatever characters
/// the realm has; control characters are left out.
pub fn basic_challenge(realm: &str) -> String {
    let mut row = String::from("Basic realm=");
    push_quoted(&mut row, realm);
    row.push_str(",charset=\"UTF-8\"");
    row
}
