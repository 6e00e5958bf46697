//! What a client of NAT behaviour discovery is told, and what it tells.

use core::net::SocketAddr;
use core::time::Duration;

use crate::RetransmitConfig;

/// A UDP socket the host opens on a port of its own. The tests need silence on some of them, so
/// none may be used for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatSocket {
    /// For the mapping and the hairpin test.
    Mapping,
    /// For the filtering test: its port must not have been used for about a quarter of an hour.
    Filtering,
    /// For the binding whose lifetime is measured.
    Lifetime,
    /// Asks from another port in the hairpin and the lifetime test.
    Helper,
}

/// One of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatTest {
    /// Which mappings the NAT makes (section 4.3).
    Mapping,
    /// Which packets it lets in (section 4.4).
    Filtering,
    /// Whether hosts behind it reach each other by their mapped addresses (section 3.4).
    Hairpin,
    /// How long it keeps an idle binding (section 4.6).
    Lifetime,
}

/// What a behaviour depends on, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressDependence {
    /// Nothing.
    EndpointIndependent,
    /// The other side's address.
    AddressDependent,
    /// The other side's address and port.
    AddressAndPortDependent,
}

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatAction {
    /// Open this socket, and answer with [`NatClient::handle_socket`](super::NatClient::handle_socket).
    Open(NatSocket),
    /// Close it: it is not needed any more.
    Close(NatSocket),
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatEvent {
    /// The server sees our own address: there is no NAT.
    NoNat,
    /// How the NAT maps, and the mapping it gave to [`NatSocket::Mapping`].
    Mapping {
        /// What a mapping depends on.
        depends_on: AddressDependence,
        /// The mapping towards the server's first address.
        mapped: SocketAddr,
    },
    /// Something on the way rewrites addresses inside messages.
    Rewritten {
        /// What the unprotected copy of the mapped address became.
        to: SocketAddr,
    },
    /// What the NAT, or a firewall, lets in.
    Filtering(AddressDependence),
    /// Whether packets to our own mapped address come back.
    Hairpin(bool),
    /// How long an idle binding lives.
    Lifetime {
        /// It was alive after this time.
        at_least: Duration,
        /// It was gone after this time; `None` when it survived the longest time tried.
        less_than: Option<Duration>,
    },
    /// A test could not be made.
    Failed {
        /// Which one.
        test: NatTest,
        /// Why.
        why: NatFailure,
    },
    /// All tests are over; nothing follows.
    Done,
}

/// Why a test could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NatFailure {
    /// The host could not open a socket for it.
    #[error("no socket")]
    NoSocket,
    /// The server does not answer at all: UDP may be blocked.
    #[error("no response")]
    NoResponse,
    /// The server has no second address, or does not do what the test needs.
    #[error("the server does not support the test")]
    Unsupported,
    /// The server answered with this error.
    #[error("error response {0}")]
    Code(u16),
    /// The answer makes no sense.
    #[error("malformed response")]
    Malformed,
}

/// Which tests to make, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatClientConfig {
    /// The retransmission ladder. Where no answer is an answer, a test takes all of it.
    pub retransmit: RetransmitConfig,
    /// Whether to make the mapping test; it is made for the others' sake in part anyway.
    pub mapping: bool,
    /// Whether to make the filtering test.
    pub filtering: bool,
    /// Whether to make the hairpin test.
    pub hairpin: bool,
    /// The longest idle time to try in the lifetime test; `None` leaves it out. It takes several
    /// times as long.
    pub lifetime: Option<Duration>,
    /// How exactly the lifetime is wanted: 5 s; never below 1 s.
    pub lifetime_precision: Duration,
}

impl Default for NatClientConfig {
    fn default() -> Self {
        Self {
            retransmit: RetransmitConfig::default(),
            mapping: true,
            filtering: true,
            hairpin: true,
            lifetime: None,
            lifetime_precision: Duration::from_secs(5),
        }
    }
}
