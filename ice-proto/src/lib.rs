//! Sans-IO ICE (RFC 8445).
#![no_std]

extern crate alloc;

mod agent;
mod candidate;
pub mod sdp;

// The bare agent.
pub use agent::{
    Action, Agent, AgentConfig, Base, CandidateError, Credentials, Event, Failure, LocalCandidate,
    MAX_TRANSMIT, Remote, Role, Stats,
};
// Candidates.
pub use candidate::{
    Candidate, CandidateKind, ComponentId, RelayId, Route, is_usable_host, pair_priority, priority,
};
// Shared words.
pub use stun_proto::{FiveTuple, Instant, Received, StreamId, Transmit, Transport};
