//! Sans-IO ICE (RFC 8445): finds a way for datagrams between two hosts behind NATs and firewalls,
//! and keeps it.
//!
//! No sockets, clock, threads or randomness inside: datagrams, stream bytes and timestamps go in;
//! transmits, actions, events and a deadline come out.
//!
//! - [`Session`] is what a host drives: an agent together with gathering through STUN and TURN
//!   servers, over UDP or over streams the host opens (TCP, TLS, through an HTTP proxy).
//! - [`Agent`] is the agent alone, full or lite, for hosts that gather themselves: candidates and
//!   relayed datagrams come from outside.
//! - [`sdp`] reads and writes the lines of a description; [`RemoteDescription`] reads a whole one.
//! - [`Mux`] finds the agent a datagram is for when many share a socket, [`Pacer`] keeps the agents
//!   of one process apart.
//!
//! # What it does not do
//! It carries no descriptions to the other side: that is signalling, SIP for instance. It resolves
//! no names and opens no sockets. TCP candidates (RFC 6544) are passed over as unsupported; relays
//! are reached over TCP and TLS all the same. It encrypts nothing: DTLS starts on the selected
//! pair.
//!
//! # The loop of a host
//! ```
//! use std::net::UdpSocket;
//! use ice_proto::{
//!     ComponentId, FiveTuple, Instant, Received, Role, SESSION_MAX_TRANSMIT, Session,
//!     SessionAction, SessionConfig, SessionEvent,
//! };
//! use stun_proto::Path;
//!
//! fn drain(session: &mut Session, socket: &UdpSocket, buf: &mut [u8]) -> std::io::Result<()> {
//!     while let Some(transmit) = session.poll_transmit(buf) {
//!         match transmit.to {
//!             Path::Datagram(at) => {
//!                 socket.send_to(&buf[..transmit.len], at.remote)?;
//!             }
//!             Path::Stream(_id) => { /* write to the stream with this number */ }
//!         }
//!     }
//!     while let Some(action) = session.poll_action() {
//!         match action {
//!             SessionAction::OpenStream { .. } => { /* connect, then session.stream_opened(..) */ }
//!             _ => { /* open a socket, close one */ }
//!         }
//!     }
//!     while let Some(event) = session.poll_event() {
//!         match event {
//!             SessionEvent::LocalCandidate { .. } => { /* signal it */ }
//!             SessionEvent::GatheringDone => { /* the description is complete */ }
//!             SessionEvent::Ice(_event) => { /* selected, completed, failed ... */ }
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let start = std::time::Instant::now();
//! let clock = || Instant::from_nanos(start.elapsed().as_nanos() as i64);
//! let socket = UdpSocket::bind("127.0.0.1:0")?;
//! let local = socket.local_addr()?;
//! let mut config = SessionConfig::new(Role::Controlling);
//! config.allow_loopback = true;
//! # let seed = [7; 32];
//! let mut session = Session::new(config, seed, clock());
//! let component = ComponentId { stream: 0, component: 1 };
//! session.add_host(clock(), component, local).unwrap();
//! session.gather(clock()).unwrap();
//!
//! let (mut buf, mut input) = ([0; SESSION_MAX_TRANSMIT], [0; 2048]);
//! # for _ in 0..1 {
//! drain(&mut session, &socket, &mut buf)?;
//! let wait = session.poll_timeout().map(|at| at.duration_since(clock()));
//! # let wait = Some(std::time::Duration::from_millis(1)).or(wait);
//! socket.set_read_timeout(wait)?;
//! match socket.recv_from(&mut input) {
//!     Ok((len, remote)) => {
//!         let at = FiveTuple::udp(local, remote);
//!         if let Received::Data { .. } = session.handle_datagram(clock(), at, &input[..len]) {
//!             // Application data of a component; everything else is dropped.
//!         }
//!     }
//!     Err(_) => session.handle_timeout(clock()),
//! }
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Life of an agent
//! ```text
//!               set_remote                every component has its pair
//!   new ──► Running ─────► Running (checks) ──────────────► Completed ──► RouteLost
//!               ▲                │ nothing works,                │            │
//!               │ restart        ▼ patience is over              │            │
//!               ├─────────── Failed                              │            │
//!               └────────────────────────────────────────────────┴────────────┘
//!                                   close, at any time ──► Closed
//! ```
//! Data may go as soon as one pair of its component works, and goes on over the old pair during
//! a restart. Where the other side has no ICE, [`Session::set_remote_plain`] takes the place of
//! checks: data goes to the address its description says, and Completed comes at once.
//!
//! # Limits
//! All of [`AgentConfig`]: 100 pairs over all streams, 64 remote candidates (8 for each address of
//! a component, 16 peer-reflexive), 32 checks before the description, 700 datagrams of checks,
//! 4 role switches; besides, 64 local candidates, 128 permissions and 256 messages waiting for the
//! host. A description is read up to 32 streams, 128 candidates and 16 names each, a line up to
//! 512 bytes. Better candidates and pairs replace worse ones; what is beyond a limit is dropped
//! and counted in [`Stats`].
//!
//! # Standards
//! | RFC | what of it |
//! | --- | --- |
//! | 8445 | full and lite agents; regular nomination |
//! | 5245 | peers: several nominations are accepted |
//! | 8838 | trickle: late candidates, end of candidates |
//! | 8839 | candidate and other lines; another side without ICE |
//! | 6263 | keep-alives towards a side without ICE ([`PlainKeepAlive`]) |
//! | 8863 | patience: nothing is given up for 39.5 s |
//! | 7675 | consent |
//! | 8421 | [`local_preferences`] |
//!
//! Deviations: checks that prove nothing are not answered unless
//! [`AgentConfig::answer_unverified`]; the first RTO of a check is at most
//! [`AgentConfig::max_rto`]; a failed nomination does not fail its stream while patience lasts.
#![no_std]

extern crate alloc;

mod agent;
mod candidate;
mod mux;
pub mod sdp;
mod session;

// The bare agent.
pub use agent::{
    Action, Agent, AgentConfig, AgentState, Base, CandidateError, Credentials, Event, Failure,
    LocalCandidate, MAX_TRANSMIT, NominateError, Nomination, Pacer, PlainError, PlainKeepAlive,
    Remote, RemoteError, RestartError, Role, RollbackError, RouteLoss, Stats,
};
// Candidates.
pub use candidate::{
    Candidate, CandidateKind, ComponentId, InterfaceAddress, RelayId, Route, host_addresses,
    is_usable_host, local_preferences, pair_priority, priority,
};
// Agent and gathering together.
pub use session::{
    Policy, RemoteDescription, RemoteStream, SESSION_MAX_TRANSMIT, SendError, ServerFailure,
    Session, SessionAction, SessionConfig, SessionError, SessionEvent, Step, StreamFailure,
    TurnServer,
};
// Many agents behind one socket.
pub use mux::{Mux, MuxError, PacketKind};
// Shared words.
pub use stun_proto::{FiveTuple, Instant, Received, StreamId, Transmit, Transport};
