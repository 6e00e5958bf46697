//! Sans-IO TURN (RFC 8656).
#![no_std]

extern crate alloc;

pub mod client;
mod data;
pub mod policy;
pub mod resolve;
pub mod server;
pub mod wire;

pub use data::{DataHeader, RelayProtocol};

pub use stun_proto::{FiveTuple, Instant, Path, Received, StreamId, Transmit, Transport};
