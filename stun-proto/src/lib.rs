//! Sans-IO STUN (RFC 8489).
#![no_std]

extern crate alloc;

pub mod auth;
pub mod binding;
pub mod demux;
pub mod discovery;
pub mod framing;
pub mod limit;
pub mod nat;
mod net;
mod rng;
pub mod time;
mod transaction;
pub mod uri;
pub mod wire;

pub use net::{FiveTuple, Path, Received, StreamId, Transmit, Transport};
pub use rng::Rng;
pub use sans_io_time::Instant;
pub use transaction::{
    Ended, Retransmit, RetransmitConfig, RttEstimator, Step, Transactions, TransactionsFull,
};
