//! Asking for one's own address, and answering that question (RFC 8489 section 12).
//!
//! [`BindingClient`] learns the address a NAT gives to a socket, over datagrams or streams, with or
//! without credentials, and keeps that binding alive. [`BindingServer`] answers, and remembers
//! nothing of it: the answer to a repeated request is computed again (section 6.3.1).

mod classic;
mod client;
mod config;
mod redirect;
mod responses;
mod server;

pub use client::{BindingAction, BindingClient, BindingEvent, FailureCause, RequestId};
pub use config::{Authentication, BindingClientConfig, ConfigError, RequestError};
pub use redirect::{Alternative, RedirectPolicy, RedirectRefused, Redirects};
pub use server::{BindingServer, BindingServerConfig, BindingServerStats, ServerAuth};

use crate::{FiveTuple, Path, Transport};

/// The most bytes a machine of this module writes at once.
pub const MAX_TRANSMIT: usize = 1232;

/// The longest message to be sent when the path MTU is not known (RFC 8489 section 6.1).
///
/// Less than 548 bytes in IPv4, 1232 bytes in IPv6; over DTLS 93 bytes less, for record header,
/// explicit IV, MAC and padding of the most expensive ciphers.
pub(crate) fn max_message(path: Path) -> usize {
    match path {
        Path::Stream(_) => MAX_TRANSMIT,
        Path::Datagram(FiveTuple {
            transport, remote, ..
        }) => {
            let most: usize = if remote.is_ipv4() { 547 } else { MAX_TRANSMIT };
            match transport {
                Transport::Dtls => most.saturating_sub(93),
                Transport::Udp | Transport::Tcp | Transport::Tls => most,
            }
        }
    }
}

#[cfg(test)]
mod tests;
