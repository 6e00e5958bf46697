//! Sans-IO ICE (RFC 8445).
#![no_std]

extern crate alloc;

mod agent;
mod candidate;
pub mod sdp;
mod session;

// The bare agent.
pub use agent::{
    Action, Agent, AgentConfig, AgentState, Base, CandidateError, Credentials, Event, Failure,
    LocalCandidate, MAX_TRANSMIT, NominateError, Nomination, Pacer, Remote, RemoteError,
    RestartError, Role, RouteLoss, Stats,
};
// Candidates.
pub use candidate::{
    Candidate, CandidateKind, ComponentId, RelayId, Route, is_usable_host, local_preferences,
    pair_priority, priority,
};
// Agent and gathering together.
pub use session::{
    Policy, RemoteDescription, RemoteStream, SESSION_MAX_TRANSMIT, SendError, ServerFailure,
    Session, SessionAction, SessionConfig, SessionError, SessionEvent, Step, StreamFailure,
    TurnServer,
};
// Shared words.
pub use stun_proto::{FiveTuple, Instant, Received, StreamId, Transmit, Transport};
