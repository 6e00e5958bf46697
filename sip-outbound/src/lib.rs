//! Sans-IO SIP Outbound (RFC 5626).
#![no_std]

extern crate alloc;

mod digest;
mod edge;
mod framing;
mod outbox;
mod registrar;
mod route;
mod time;
mod transaction;
mod ua;
pub mod wire;

// Authentication.
pub use digest::{
    Account, AkaAnswer, AkaChallenge, AuthFailure, ChallengeStep, DigestAttempt, DigestClient,
    DigestPolicy, Password,
};
// Framing.
pub use framing::{
    DatagramKind, Frame, Framer, FramerConfig, FramingError, PING, PONG, Role, classify,
};
// Transactions.
pub use transaction::{
    ClientEvent, ClientId, ClientTransactions, Incoming, Outgoing, RespondError, SendError,
    ServerEvent, ServerId, ServerTransactions, Timings,
};
// The user agent.
pub use ua::{
    ConfigError, Dialog, DialogError, FlowAction, FlowFailure, FlowId, FlowTarget, InstanceId,
    KeepAlive, MAX_TRANSMIT, NewRequest, NextHop, Profile, Recovery, Refusal, Registration,
    RequestError, RequestFailure, RequestId, UserAgent, UserAgentConfig, UserAgentEvent,
    WithoutOutbound,
};
// The edge proxy.
pub use edge::{
    EdgeConfig, EdgeConfigError, EdgeEvent, EdgeFlowEnd, EdgeProxy, FlowToken, FlowTokenKeys,
    ForgedToken, PcscfConfig, ServiceRouteCheck, Side,
};
// The registrar.
pub use registrar::{
    BindingId, KeyAnswer, Next, RegisterStep, Registrar, RegistrarConfig, RegistrarConfigError,
    RegistrarEvent, Target, Targets, Ticket,
};
// Shared words.
pub use sans_io_time::Instant;
