//! What kind of NAT is in the way (RFC 5780, an experiment: its answers are hints, not facts).
//!
//! [`NatClient`] runs the tests over sockets that the host opens for it; [`NatServer`] is the
//! server with two addresses and two ports they need. Over TCP and TLS only mappings can be tested:
//! by [`NatStreamClient`].

mod client;
mod search;
mod server;
mod stream;
mod types;

pub use client::NatClient;
pub use server::{NatAddresses, NatServer, NatServerConfig};
pub use stream::{NatStreamAction, NatStreamClient};
pub use types::{
    AddressDependence, NatAction, NatClientConfig, NatEvent, NatFailure, NatSocket, NatTest,
};

#[cfg(test)]
mod tests;
