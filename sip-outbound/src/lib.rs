//! Sans-IO SIP Outbound (RFC 5626): how a SIP client behind firewalls and NATs stays reachable, on
//! all three sides.
//!
//! - [`UserAgent`]: several flows to edge proxies, a registration over each, keep-alives, recovery,
//!   and the requests that go both ways.
//! - [`EdgeProxy`]: remembers which flow leads to which client; with [`EdgeConfig::pcscf`] a
//!   P-CSCF.
//! - [`Registrar`]: bindings by address of record, instance and reg-id, and [`Targets`] to choose
//!   between them.
//!
//! Below them, for use on their own: [`wire`] (messages, byte-exact), [`Framer`] (messages and
//! pings of a byte stream), [`ClientTransactions`] and [`ServerTransactions`], [`DigestClient`],
//! [`SecMechanisms`], [`locate`].
//!
//! # What it does not do
//! No sockets, clock, randomness or threads; no TLS: the host makes connections and validates
//! certificates. What it asks DNS, and which names a certificate has to hold, says [`locate`]. No SDP
//! and no media; bodies are opaque. The edge proxy does not fork.
//!
//! # Driving a machine
//! After every input the host drains actions, bytes and events, then waits for the next input or the
//! deadline:
//!
//! ```
//! use sip_outbound::wire::UriBuf;
//! use sip_outbound::{
//!     Account, FlowAction, Instant, InstanceId, UserAgent, UserAgentConfig, UserAgentEvent,
//! };
//! use stun_proto::{FiveTuple, Transport};
//!
//! let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
//! let aor: UriBuf = "sip:alice@ims.example.com".parse().unwrap();
//! let proxy: UriBuf = "sips:pcscf.example.com:443".parse().unwrap();
//! let mut config = UserAgentConfig::new(aor, instance, vec![proxy]);
//! config.accounts = vec![Account::new("alice", "secret", "ims.example.com")];
//!
//! let now = Instant::ZERO; // the host's clock
//! let mut ua = UserAgent::new(config, [7; 32], now).unwrap();
//! ua.start(now);
//!
//! while let Some(action) = ua.poll_action() {
//!     match action {
//!         FlowAction::OpenFlow { flow, target } => {
//!             // Resolve, connect, do TLS with this name, and then:
//!             let name = target.verify_name().to_string();
//!             let at = FiveTuple {
//!                 transport: Transport::Tls,
//!                 local: "10.7.0.9:40112".parse().unwrap(),
//!                 remote: "203.0.113.1:443".parse().unwrap(),
//!             };
//!             ua.flow_opened(now, flow, at, vec![name]);
//!         }
//!         FlowAction::CloseFlow { .. } => {}
//!     }
//! }
//! let mut buf = [0; 2048];
//! while let Some(sent) = ua.poll_transmit(&mut buf) {
//!     // Write buf[..sent.len] to the connection of flow sent.to.
//!     assert!(buf.starts_with(b"REGISTER sip:ims.example.com SIP/2.0\r\n"));
//! }
//! while let Some(event) = ua.poll_event() {
//!     if let UserAgentEvent::Request { id, request, .. } = event {
//!         // Answer with ua.respond(now, id, ..).
//!         let _ = (id, request);
//!     }
//! }
//! // Wait until ua.poll_timeout(), then ua.handle_timeout(now); or for bytes, then
//! // ua.handle_flow_input(now, flow, &bytes).
//! assert!(ua.poll_timeout().is_some());
//! ```
//!
//! # Life of a registration
//! ```text
//! start -> opening -> registering -> registered -> refreshing -> ...
//!             |            |             |
//!             |            |             +-- no pong, closed, expired --+
//!             +------------+--- failed: wait, then opening again <------+
//!                          +--- refused for good: event, nothing more
//! stop -> removing -> closed; after the last one: Stopped
//! ```
//!
//! # Limits
//! Everything the network can make grow is bounded: heads and bodies ([`wire::Limits`]), open
//! transactions, flows, bytes and events that wait, bindings, key look-ups. The fields of the
//! configurations say what happens at the limit, and `max_memory` of each how many bytes a machine
//! holds at most. No packet costs more than a search in a tree.
//!
//! # RFCs
//! | RFC | What | Not |
//! |---|---|---|
//! | 3261 | syntax, framing, transactions, registration, proxying without forking | multicast, S/MIME, redirection |
//! | 3263, 5922 | where servers are, and what their certificates prove: [`locate`] | SCTP |
//! | 3327, 3608 | Path, Service-Route | |
//! | 3329 | security agreement on TLS; the lists and `d-ver` for other mechanisms | agreeing on Digest or IPsec |
//! | 3581 | `rport` | |
//! | 4320, 6026 | corrections of the transactions | |
//! | 5393 | loop detection | Max-Breadth: nothing forks |
//! | 5626 | user agent, edge proxy, registrar, the choice between the flows of a device | forking, and with it the rest of section 7, is the host's; Contact in dialogs shows `ob`, not a GRUU |
//! | 5627 | GRUUs at the registrar, and learned by the user agent | in the Contact of requests they are the application's to put |
//! | 6223 | `keep` for registrations and dialogs | a proxy that sends keep-alives itself |
//! | 7616, 8760, 3310, 4169 | Digest and AKA | |
//!
//! Of 3GPP TS 24.229: the habits of a UE ([`UserAgentConfig::ims`]) and of a P-CSCF
//! ([`EdgeConfig::pcscf`]), as far as firewall traversal without an EPC needs them.
#![no_std]

extern crate alloc;

mod digest;
mod edge;
mod framing;
pub mod locate;
mod outbox;
mod registrar;
mod route;
mod sec_agree;
mod time;
mod transaction;
mod ua;
pub mod wire;

// Authentication.
pub use digest::{
    Account, AkaAnswer, AkaChallenge, AuthFailure, ChallengeStep, DigestAttempt, DigestClient,
    DigestPolicy, Password,
};
pub use http_connect::auth::Allow;
// Security agreement.
pub use sec_agree::{SecAgreeError, SecMechanism, SecMechanisms, digest_verify};
// Framing.
pub use framing::{
    DatagramKind, Frame, Framer, FramerConfig, FramingError, PING, PONG, Role, answer_binding,
    classify,
};
// Transactions.
pub use transaction::{
    ClientEvent, ClientId, ClientTransactions, Incoming, Outgoing, RespondError, SendError,
    ServerEvent, ServerId, ServerTransactions, Timings,
};
// The user agent.
pub use ua::{
    ConfigError, Dialog, DialogError, FlowAction, FlowFailure, FlowId, FlowTarget, IdleTime,
    InstanceId, KeepAlive, MAX_TRANSMIT, NewRequest, NextHop, Profile, Recovery, Refusal,
    Registration, RegistrationEnd, RequestError, RequestFailure, RequestId, SecAgree, UserAgent,
    UserAgentConfig, UserAgentEvent, WithoutOutbound,
};
// The edge proxy.
pub use edge::{
    EdgeConfig, EdgeConfigError, EdgeEvent, EdgeFlowEnd, EdgeProxy, EdgeSecAgree, FlowToken,
    FlowTokenKeys, ForgedToken, PcscfConfig, ServiceRouteCheck, Side,
};
// The registrar.
pub use registrar::{
    BindingId, KeyAnswer, Next, RegisterStep, Registrar, RegistrarConfig, RegistrarConfigError,
    RegistrarEvent, Target, Targets, Ticket, with_all_challenges,
};
// Shared words.
pub use sans_io_time::Instant;
