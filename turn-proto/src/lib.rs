//! Sans-IO TURN (RFC 8656).
#![no_std]

extern crate alloc;

pub mod wire;

pub use stun_proto::{FiveTuple, Instant, Path, Received, StreamId, Transmit, Transport};
