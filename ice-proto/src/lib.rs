//! Sans-IO ICE (RFC 8445).
#![no_std]

extern crate alloc;

mod candidate;
pub mod sdp;

// Candidates.
pub use candidate::{
    Candidate, CandidateKind, ComponentId, RelayId, Route, is_usable_host, pair_priority, priority,
};
// Shared words.
pub use stun_proto::{FiveTuple, Instant, Received, StreamId, Transmit, Transport};
