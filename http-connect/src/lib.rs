//! Sans-IO HTTP CONNECT (RFC 9110 section 9.3.6): the client that asks a proxy for a tunnel, and the
//! proxy that opens it; with the HTTP authentication that SIP shares ([`auth`]).
//!
//! Bytes and timestamps go in; bytes, actions, events and one deadline come out. There is no socket,
//! no clock and no runtime inside.
//!
//! # What it does not do
//! TLS, on the way to the proxy or inside the tunnel; DNS; HTTP/2, HTTP/3 and CONNECT-UDP; requests
//! other than CONNECT. User names and passwords are taken as they are: the caller brings them into
//! NFC. Kerberos and NTLM are tokens of the host.
//!
//! # The client
//! One [`ConnectClient`] for each tunnel. It asks for a new connection when it needs one, and what it
//! has learnt about the proxy's wishes ([`auth::ClientAuth`]) goes into the next one.
//!
//! ```
//! use http_connect::{ConnectClient, ConnectEvent, Instant, Tunnel};
//! use std::io::{self, Read, Write};
//!
//! /// Opens a tunnel with blocking sockets: the connection, the tunnel, and its first bytes.
//! fn open<S: Read + Write>(
//!     mut client: ConnectClient,
//!     mut connect: impl FnMut() -> io::Result<S>,
//!     now: impl Fn() -> Instant,
//! ) -> io::Result<(S, Tunnel, Vec<u8>)> {
//!     let mut socket = connect()?;
//!     client.handle_connected(now());
//!     let mut buf = [0; 4096];
//!     loop {
//!         // First everything out ...
//!         while let Some(len) = client.poll_transmit(&mut buf) {
//!             socket.write_all(&buf[..len])?;
//!         }
//!         // ... then something in. A real host waits until `client.poll_timeout()` at most, and
//!         // calls `client.handle_timeout(now())` then.
//!         let len = socket.read(&mut buf)?;
//!         let rest = match len {
//!             0 => {
//!                 client.handle_eof(now());
//!                 &[]
//!             }
//!             len => client.handle_input(now(), &buf[..len]),
//!         };
//!         match client.poll_event() {
//!             None => {}
//!             Some(ConnectEvent::Reconnect) => {
//!                 socket = connect()?;
//!                 client.handle_connected(now());
//!             }
//!             Some(ConnectEvent::Established { .. }) => {
//!                 let mut tunnel = client.tunnel().ok_or(io::ErrorKind::Other)?;
//!                 let first = tunnel.read(rest).map_err(io::Error::other)?;
//!                 let first = first.to_vec();
//!                 return Ok((socket, tunnel, first));
//!             }
//!             Some(other) => return Err(io::Error::other(format!("{other:?}"))),
//!         }
//!     }
//! }
//! ```
//!
//! ```text
//! NoConnection --handle_connected--> AwaitHead --2xx--> Open: tunnel()
//!      ^                              |  ^  |
//!      |                        407, 408 |  +--other--> Draining --> Rejected
//!      |                              v  |
//!      +------ Reconnect --------- Draining --> AwaitHost (token, credentials)
//! ```
//!
//! # The proxy
//! One [`ConnectServer`] for each client connection; what it may do is in a [`ProxyConfig`] they
//! share. Credentials are judged by the host, for example with one [`auth::ServerAuth`] for all.
//!
//! ```
//! use http_connect::{ConnectServer, Instant, ProxyAction, ProxyError, Side};
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//!
//! /// One turn of an event loop: bytes that have come from one side, then all that follows.
//! fn turn(
//!     proxy: &mut ConnectServer,
//!     now: Instant,
//!     from: Side,
//!     data: &[u8],
//!     sockets: &mut dyn FnMut(Side) -> Option<TcpStream>,
//!     connect: &mut dyn FnMut(core::net::SocketAddr) -> bool,
//! ) -> usize {
//!     let taken = proxy.handle_input(now, from, data);
//!     if let Some(mut socket) = sockets(from.other()) {
//!         // Without a copy; what does not fit waits inside the machine.
//!         let written = socket.write(taken.forward).unwrap_or(0);
//!         proxy.handle_unsent(now, from.other(), &taken.forward[written..]);
//!     }
//!     while let Some(action) = proxy.poll_action() {
//!         match action {
//!             ProxyAction::Connect { ticket, address } if connect(address) => {
//!                 proxy.handle_connected(now, ticket);
//!             }
//!             ProxyAction::Connect { ticket, .. } => {
//!                 proxy.handle_failure(now, ticket, ProxyError::ConnectionRefused);
//!             }
//!             // Resolve, CheckAuth, CloseWrite, Close: see ProxyAction.
//!             _ => {}
//!         }
//!     }
//!     let mut buf = [0; 4096];
//!     for side in [Side::Client, Side::Upstream] {
//!         let Some(mut socket) = sockets(side) else { continue };
//!         while let Some(len) = proxy.poll_transmit(side, &mut buf) {
//!             let _ = socket.write_all(&buf[..len]);
//!         }
//!     }
//!     // Reading goes on where `proxy.wants_input(side)`; the rest of `data` is offered again.
//!     taken.len
//! }
//! ```
//!
//! ```text
//! Head -> Auth -> (policy) -> Resolve -> Connect -> Relay -> Deliver -> Linger -> Closed
//!   ^      |                     Parent ----^                   ^
//!   +- 407 of a handshake        any refusal -------------------+
//! ```
//!
//! # Limits
//! Everything a peer can make grow has a limit: [`HeadLimits`], [`ConnectConfig`], [`ProxyLimits`],
//! [`auth::Policy`], [`auth::DigestServerConfig`]. At a limit a head is refused (414, 431), a body
//! costs its connection, reading stops, or the oldest nonce becomes stale; each says which.
//!
//! # Security
//! Nothing is forgiven in heads unless [`Leniency`] says so. Credentials come before policy; names
//! are judged by the addresses they resolve to, and exactly those are connected to; bytes behind a
//! refused request are never looked at. Basic and MD5 want TLS or permission, and weaker offers than
//! before are refused. Secrets are wiped, compared in constant time, and absent from `Debug`.
//!
//! # Specifications
//! | RFC | What of it | Otherwise |
//! |---|---|---|
//! | 9110 | 7.6, 9.3.6, 10.2.3, 11, 15 | no caching, no redirects |
//! | 9112 | 2 to 7, 9 | folding in responses is refused unless asked for (5.2 wants it replaced) |
//! | 7616, 2617 | all but `domain` | SHA-512-256 is the one of FIPS 180-4, not the truncated SHA-512 of the RFC's example |
//! | 7617 | all | UTF-8 whatever `charset` says |
//! | 4559 and NTLM practice | opaque tokens | |
//! | 3310, 4169 | algorithm names, binary passwords, `auts` | the card is the host's |
//! | 7639 | all | off by default |
//! | 9209 | all error types a tunnel can meet | sent by option only |
//! | 2817 | 5.2, 5.3 | no bytes of the tunnel ahead of the 2xx |
#![no_std]

extern crate alloc;

pub mod auth;
mod client;
mod proxy;
mod rng;
mod text;
mod time;
pub mod wire;

// Where a tunnel leads.
pub use wire::{Host, Target, TargetError};
// The client.
pub use client::{
    ConnectClient, ConnectConfig, ConnectError, ConnectEvent, FieldError, NotATunnel, Rejection,
    RejectionClass, Tunnel,
};
// The proxy.
pub use proxy::{
    AddressPolicy, AuthCheck, AuthVerdict, ConnectServer, Ended, NotOpen, Parent, Prefix,
    ProxyAction, ProxyConfig, ProxyConfigError, ProxyError, ProxyEvent, ProxyLimits, Record, Side,
    Spliced, Taken, Ticket,
};
// Heads.
pub use wire::{Head, HeadError, HeadLimits, Leniency};
// Shared words.
pub use rng::Rng;
pub use sans_io_time::Instant;
