//! Digest authentication as SIP uses it (RFC 3261 section 22, RFC 8760, RFC 3310, RFC 4169): a layer
//! over [`http_connect::auth`] that knows the fields of SIP, several realms, and who is asked.

mod aka;
mod client;

pub use aka::{AkaAnswer, AkaChallenge};
pub(crate) use client::empty_authorization;
pub use client::{
    Account, AuthFailure, ChallengeStep, DigestAttempt, DigestClient, DigestPolicy, Password,
};

#[cfg(test)]
mod tests;
