//! Sans-IO SIP Outbound (RFC 5626).
#![no_std]

extern crate alloc;

mod digest;
mod framing;
mod time;
mod transaction;
pub mod wire;

pub use digest::{
    Account, AkaAnswer, AkaChallenge, AuthFailure, ChallengeStep, DigestAttempt, DigestClient,
    DigestPolicy, Password,
};
pub use framing::{
    DatagramKind, Frame, Framer, FramerConfig, FramingError, PING, PONG, Role, classify,
};
pub use sans_io_time::Instant;
pub use transaction::{
    ClientEvent, ClientId, ClientTransactions, Incoming, Outgoing, RespondError, SendError,
    ServerEvent, ServerId, ServerTransactions, Timings,
};
