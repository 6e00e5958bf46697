//! Sans-IO STUN (RFC 8489).
#![no_std]

extern crate alloc;

mod net;

pub use net::{FiveTuple, Path, Received, StreamId, Transmit, Transport};
pub use sans_io_time::Instant;
