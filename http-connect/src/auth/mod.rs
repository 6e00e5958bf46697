//! HTTP authentication on both sides (RFC 9110 section 11): Basic (RFC 7617), Digest (RFC 7616) and
//! schemes whose tokens the host brings (Negotiate, NTLM). SIP uses the same (RFC 3261 section 22).

mod challenge;
mod client;
mod credentials;
mod digest;
mod digest_server;
mod nonce;
mod replay;
mod server;
mod session;

pub use challenge::{Challenge, ChallengeError, Challenges, challenges};
pub use client::{Allow, AuthRefusal, AuthStep, ClientAuth, Policy, Scheme, Strength};
pub use credentials::{Credentials, NotForBasic, Secret, basic_authorization, parse_basic};
pub use digest::{
    Aka, Algorithm, Exchange, HashAlgorithm, HexDigest, Qop, ha1, hash_joined, session_key,
    userhash,
};
pub use digest_server::{
    ClaimedUser, DigestClaim, DigestConfigError, DigestProof, DigestRefusal, DigestRequest,
    DigestServer, DigestServerConfig,
};
pub use server::{ServerAuth, ServerVerdict, basic_challenge};
pub use session::{DigestError, DigestSent, DigestSession, InfoVerdict};

#[cfg(test)]
mod tests;
