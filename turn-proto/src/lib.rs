//! TURN (RFC 8656) without I/O: bytes and times go in; bytes, actions, events and a deadline come
//! out.
//!
//! A client behind a NAT or firewall gets an address at a server on the open Internet, and the
//! server relays between that address and the client. The machines here own no socket, clock,
//! thread or source of randomness, need no runtime, and build without `std`.
//!
//! | module | for |
//! |---|---|
//! | [`client`] | one allocation: kept alive, permissions and channels with it |
//! | [`server`] | all clients of a host, over UDP, TCP, TLS and DTLS |
//! | [`policy`] | which peers a server relays to |
//! | [`resolve`] | from a `turn` URI to servers |
//! | [`wire`] | methods, attributes, ChannelData |
//!
//! # What it does not do
//! No TLS, DTLS or DNS: the host runs them and hands over clear text and answers. No list of servers
//! and no choice among them: that is ICE's, or the application's. No queue for data that cannot be
//! sent yet: [`client::SendError::NoPermission`] comes back instead.
//!
//! # The driver loop
//! Every machine is driven the same way: after each input drain transmits, actions and events, then
//! wait for the next input or the deadline. Here both ends are in one loop and the network is a
//! list.
//!
//! ```
//! use core::net::SocketAddr;
//! use stun_proto::auth::Credentials;
//! use turn_proto::client::{self, AllocateOptions, Client, ClientConfig};
//! use turn_proto::server::{self, Server, ServerConfig, StaticUsers};
//! use turn_proto::{FiveTuple, Instant, Path, Received, Transport};
//!
//! let now = Instant::ZERO; // the host's clock
//! let (here, there): (SocketAddr, SocketAddr) =
//!     ("198.51.100.7:40000".parse().unwrap(), "192.0.2.1:3478".parse().unwrap());
//! let (out, back) = (FiveTuple::udp(here, there), FiveTuple::udp(there, here));
//!
//! let mut users = StaticUsers::new("example.org");
//! users.add("alice", "secret");
//! let config = ServerConfig::new("example.org");
//! let mut server = Server::new(config, users, [1; 32], now).unwrap();
//!
//! let config = ClientConfig::new(Some(Credentials::new("alice", "secret")));
//! let mut client = Client::new(config, Path::Datagram(out), Transport::Udp, [2; 32], now);
//! client.allocate(now, AllocateOptions::default()).unwrap();
//!
//! let peer: SocketAddr = "8.8.4.4:5000".parse().unwrap();
//! let mut buf = [0; 1500];
//! # let mut rounds = 0;
//! 'run: loop {
//! #   rounds += 1;
//! #   assert!(rounds < 20);
//!     while let Some(sent) = client.poll_transmit(&mut buf) {
//!         server.handle_datagram(now, back, &buf[..sent.len]);
//!     }
//!     while let Some(sent) = server.poll_transmit(&mut buf) {
//!         client.handle_datagram(now, out, &buf[..sent.len]);
//!     }
//!     while let Some(action) = server.poll_action() {
//!         if let server::Action::OpenRelay { relay, port, .. } = action {
//!             // bind a socket to this port
//!             server.relay_opened(now, relay, SocketAddr::new(there.ip(), port));
//!         }
//!     }
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             client::Event::Allocated { .. } => client.bind_channel(now, peer).unwrap(),
//!             client::Event::ChannelBound { .. } => break 'run,
//!             _ => {}
//!         }
//!     }
//! }
//! // Data: four bytes of header, no queue, no copy but this one.
//! let sent = client.send(now, peer, b"hello", &mut buf).unwrap();
//! let relayed = server.handle_datagram(now, back, &buf[..sent.len]);
//! let Received::Data { peer: to, data } = relayed else { panic!() };
//! assert_eq!((to.peer, data), (peer, &b"hello"[..]));
//! assert!(client.poll_timeout().is_some() && server.poll_timeout().is_some());
//! ```
//!
//! # Limits
//! Every table has a limit with a name in [`client::ClientConfig`] or [`server::Limits`]; both say
//! with `max_memory` how much a machine holds at most. Bad input is dropped and counted, and
//! never makes a machine panic.
//!
//! # Cost
//! A packet is relayed without queue, copy or allocation of memory, and every lookup is logarithmic:
//! a thousand times the allocations cost half as much again. Instructions of the server on x86-64,
//! counted by `examples/lookups.rs` under callgrind:
//!
//! | what | 10 allocations | 10,000 allocations |
//! |---|---|---|
//! | ChannelData of a client | 1,102 | 1,584 |
//! | datagram of a peer, to a channel | 581 | 884 |
//! | Send indication (and making it) | 2,137 | 2,619 |
//! | ChannelData of a stranger, dropped | 596 | 1,009 |
//! | Refresh, answered | 5,908 | 8,073 |
//! | `handle_timeout` with nothing due, `poll_timeout` | 129 | 153 |
//!
//! An allocation takes about 900 bytes at the server, 2,550 with a channel and its permission, and
//! 530 for each further pair (`tests/it/server_memory.rs`); at the client all of it takes less than
//! 12 KiB. `max_memory` of the server says what all limits together come to.
//!
//! # RFCs
//! | RFC | what | remarks |
//! |---|---|---|
//! | 8656 | TURN | both sides; [`server`] says what it leaves to the host |
//! | 8489 | STUN | by way of `stun-proto`: SHA-256 where the server offers it |
//! | 5766, 6156 | older TURN | spoken with older peers; channels above 0x4FFF are never used |
//! | 6062 | TCP to the peers | both sides |
//! | 8016 | mobility | both sides |
//! | 7635 | third-party authorization | both sides; the token's cipher is the host's |
//! | 5928, 7065, 7350 | resolution, URIs, DTLS | [`resolve`] |
//! | 8155 | discovery of servers | [`resolve`] says where to look |
#![no_std]

extern crate alloc;

pub mod client;
mod data;
pub mod policy;
pub mod resolve;
pub mod server;
pub mod wire;

pub use data::{DataHeader, RelayProtocol};

pub use stun_proto::{FiveTuple, Instant, Path, Received, StreamId, Transmit, Transport};
