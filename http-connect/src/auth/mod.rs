//! HTTP authentication on both sides (RFC 9110 section 11): Basic (RFC 7617), Digest (RFC 7616) and
//! schemes whose tokens the host brings (Negotiate, NTLM). SIP uses the same (RFC 3261 section 22).

mod challenge;
mod client;
mod credentials;
mod digest;
mod server;
mod session;

pub(crate) use challenge::is_token_byte;
pub use challenge::{Challenge, ChallengeError, Challenges, challenges};
pub use client::{AuthRefusal, AuthStep, ClientAuth, Policy, Scheme};
pub use credentials::{Credentials, NotForBasic, Secret, basic_authorization, parse_basic};
pub use digest::{
    Algorithm, Exchange, HashAlgorithm, HexDigest, Qop, ha1, hash_joined, session_key,
};
pub use server::{
    ClaimedUser, DigestProof, DigestRefusal, DigestRequest, DigestServer, DigestServerConfig,
};
pub use session::{DigestError, DigestSession, InfoVerdict};

#[cfg(test)]
mod tests;
