//! A network in memory, with a clock of its own, in which everything that can go wrong does.
//!
//! Nothing here knows a protocol. A [`Net`] has [sites](Net::site) with gateways (links, NATs,
//! firewalls) between them, [hosts](Net::host), UDP sockets and byte streams. A scenario is a
//! function of [`Choices`]: it builds a network, implements [`World`] around its machines, and
//! [runs](Net::run) it; the clock jumps to the next arrival or deadline. It ends by
//! [healing](Net::heal) all faults and asserting that the machines come to rest in the right state.
//!
//! [`seeds`] runs a scenario with many seeds, other ones each time; a failure names the seed and
//! shows the trace:
//!
//! ```text
//! SIM_SEEDS=10000 cargo test --release -p fuzz sim    # many
//! SIM_FIRST=77 cargo test -p fuzz sim_turn            # those that an earlier run drew
//! SIM_SEED=4711 cargo test -p fuzz sim_turn           # one
//! ```
//!
//! ```
//! use fuzz::sim::{Arrival, Choices, HostId, INTERNET, Net, Trace, World};
//! use sans_io_time::Instant;
//!
//! /// Sends everything back.
//! struct Echo(HostId, Vec<Vec<u8>>);
//! impl World for Echo {
//!     fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival) {
//!         let Arrival::Datagram { local, remote, data } = arrival else { return };
//!         if to == self.0 {
//!             net.send(to, local, remote, &data);
//!         } else {
//!             self.1.push(data);
//!         }
//!     }
//!     fn deadline(&self) -> Option<Instant> {
//!         None
//!     }
//!     fn wake(&mut self, _: &mut Net) {}
//! }
//!
//! let mut net = Net::new(Choices::from_seed(1), Trace::off());
//! let a = net.host("a", &[("192.0.2.1".parse().unwrap(), INTERNET)]);
//! let b = net.host("b", &[("192.0.2.2".parse().unwrap(), INTERNET)]);
//! let (at_a, at_b) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
//! net.bind(a, at_a);
//! net.bind(b, at_b);
//! net.send(a, at_a, at_b, b"hello");
//! let mut world = Echo(b, Vec::new());
//! net.run_for(&mut world, core::time::Duration::from_secs(1));
//! assert_eq!(world.1, [b"hello"]);
//! ```

mod choices;
mod firewall;
mod link;
mod nat;
mod net;
mod outbox;
mod run;
mod stream;
mod tcp;
mod topology;
mod trace;
mod udp;
mod world;

pub use choices::Choices;
pub use firewall::{Allowed, Firewall};
pub use link::{Link, NO_MTU};
pub use nat::{Dependence, NatKind};
pub use net::Net;
pub use outbox::Outbox;
pub use run::{Scenario, bytes, one, seeds};
pub use stream::{Cuts, End};
pub use topology::{Gateway, HostId, INTERNET, SiteId};
pub use trace::{Trace, seconds};
pub use world::{Arrival, ConnectFailure, Packet, World};
