//! Proving who sent a message (RFC 8489 section 9).

mod long_term_client;
mod long_term_server;
mod nonce;
mod secret;
mod short_term;

pub use long_term_client::{
    AuthFailure, Credentials, Discarded, Judgement, LongTermClient, RequestAuth,
};
pub use long_term_server::{
    Alternate, Authenticated, Claim, LongTermServer, LongTermServerConfig, Refusal, User,
};
pub use nonce::{NonceKeys, NonceState, SecurityFeatures};
pub use secret::Secret;
pub use short_term::{ShortTermClient, ShortTermRefusal, authenticate_short_term};

#[cfg(test)]
mod tests;
