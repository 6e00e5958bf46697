//! STUN (RFC 8489) without I/O: bytes and times go in, datagrams, events and a deadline come out.
//!
//! The machines here own no socket, clock, thread or source of randomness, need no runtime, and
//! build without `std`. They answer "what is my address behind this NAT?" from both sides, and are
//! what the crates for TURN and ICE are made of.
//!
//! | module | for |
//! |---|---|
//! | [`binding`] | the Binding client and server |
//! | [`nat`] | what kind of NAT is in the way |
//! | [`wire`] | messages, attributes, integrity |
//! | [`auth`] | short-term and long-term credentials, both sides |
//! | [`framing`] | messages on byte streams |
//! | [`demux`] | several protocols on one socket |
//! | [`uri`], [`discovery`] | finding a server |
//! | [`limit`], [`time`] | keeping answers few; deadlines |
//!
//! [`Transactions`] holds the requests under way, for protocols that bring their own methods.
//!
//! # What it does not do
//! No TLS and DTLS: the host runs them with the versions and ciphers of BCP 195 and certificates
//! checked (RFC 8489 section 6.2.3), over DTLS with the cookie exchange on, and hands over the
//! clear text. No DNS: [`discovery`] says what to ask. No preparation of strings: user names,
//! realms and passwords beyond printable ASCII are to be processed with OpaqueString (RFC 8265)
//! first. No list of servers: those are the application's.
//!
//! # The driver loop
//! Every machine is driven the same way. After each input: drain transmits, actions and events, then
//! wait for the next input or the deadline.
//!
//! ```
//! use stun_proto::binding::{BindingClient, BindingClientConfig, BindingEvent, MAX_TRANSMIT};
//! use stun_proto::binding::{BindingServer, BindingServerConfig};
//! use stun_proto::{FiveTuple, Instant, Path};
//!
//! // The host's clock, randomness and addresses.
//! let mut now = Instant::ZERO;
//! let seed = [7; 32];
//! let at = FiveTuple::udp(
//!     "192.0.2.9:5000".parse().unwrap(),
//!     "198.51.100.1:3478".parse().unwrap(),
//! );
//! let mut client = BindingClient::new(BindingClientConfig::default(), seed, now).unwrap();
//! client.request(now, Path::Datagram(at)).unwrap();
//! # let mut server = BindingServer::new(BindingServerConfig::default(), seed).unwrap();
//! # let mut network = Vec::new();
//! # let mut answer = [0; MAX_TRANSMIT];
//!
//! let mut buf = [0; MAX_TRANSMIT];
//! let mapped = 'wait: loop {
//!     while let Some(transmit) = client.poll_transmit(&mut buf) {
//!         let datagram = &buf[..transmit.len];
//!         // socket.send_to(datagram, ..)
//! #       let seen = FiveTuple::udp(at.remote, "203.0.113.5:40000".parse().unwrap());
//! #       network.extend(server.respond(now, seen, datagram, &mut answer).map(|t| t.len));
//!     }
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             BindingEvent::Mapped { mapped, .. } => break 'wait Some(mapped),
//!             BindingEvent::Failed { .. } => break 'wait None,
//!         }
//!     }
//!     // Wait for the socket, until this time at most.
//!     let deadline = client.poll_timeout();
//! #   let received = network.pop().map(|len| &answer[..len]);
//!     match received {
//!         Some(datagram) => {
//!             client.handle_datagram(now, at, datagram);
//!         }
//!         None => {
//!             now = deadline.unwrap();
//!             client.handle_timeout(now);
//!         }
//!     }
//! };
//! assert_eq!(mapped, Some("203.0.113.5:40000".parse().unwrap()));
//! ```
//!
//! # The life of a request
//! ```text
//!             401, 438: new transaction with credentials
//!             5xx: new transaction, at most four, after a pause
//!                 300: new transaction with another server
//!                          .----------------.
//!                          v                |
//! request -> waiting -> sent, again and again -> Mapped
//!            for its       |
//!            turn          '-> Failed { cause }
//! ```
//!
//! # Limits
//! | what | how many | where |
//! |---|---|---|
//! | attributes in a message | 64 | [`wire::MAX_ATTRIBUTES`] |
//! | requests under way, of these with one server | 64, 10 | [`binding::BindingClientConfig`] |
//! | transmissions of a request | 7 in 39.5 s | [`RetransmitConfig`] |
//! | challenges for a request, stale nonces | 2, 3 | [`auth::LongTermClient`] |
//! | redirections in five minutes | 3 | [`binding::Redirects`] |
//! | answers to a network per second | 10 | [`limit::RateLimit`] |
//! | bytes of an unfinished stream unit | as configured | [`framing::Deframer`] |
//!
//! # RFCs
//! | RFC | what of it |
//! |---|---|
//! | 8489 | all, save TLS and string preparation, which are the host's |
//! | 5389, 3489 | their peers are served; classic integrity is ignored |
//! | 5769 | its test vectors |
//! | 5780 | over UDP, mappings over TCP and TLS as well; PADDING is answered with no more than was sent, never asked for |
//! | 7064, 7065 | URIs |
//! | 7350, 7443 | DTLS as a transport; ALPN identifiers |
//! | 4571 | frames, as ICE uses them |
//! | 7983, 9443 | telling protocols apart |
//! | 7982 | counters, for requests without credentials |
#![no_std]

extern crate alloc;

pub mod auth;
pub mod binding;
pub mod demux;
pub mod discovery;
pub mod framing;
pub mod limit;
pub mod nat;
mod net;
mod rng;
pub mod time;
mod transaction;
pub mod uri;
pub mod wire;

pub use net::{FiveTuple, Path, Received, StreamId, Transmit, Transport};
pub use rng::Rng;
pub use sans_io_time::Instant;
pub use transaction::{
    Ended, Retransmit, RetransmitConfig, RttEstimator, Step, Transactions, TransactionsFull,
};
