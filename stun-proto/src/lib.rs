//! Sans-IO STUN (RFC 8489).
#![no_std]

extern crate alloc;

mod net;
mod rng;
pub mod time;
pub mod wire;

pub use net::{FiveTuple, Path, Received, StreamId, Transmit, Transport};
pub use rng::Rng;
pub use sans_io_time::Instant;
