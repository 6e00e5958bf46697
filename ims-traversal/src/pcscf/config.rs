//! What a P-CSCF is told in the beginning.

use core::net::SocketAddr;
use core::time::Duration;

use alloc::string::String;
#[cfg(feature = "tls")]
use alloc::sync::Arc;
use alloc::vec::Vec;

use sip_outbound::{EdgeConfig, EdgeConfigError, RegistrarConfig, RegistrarConfigError, Timings};
use stun_proto::Transport;

/// Where the requests for a domain go: its registrar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreHop {
    /// The domain, as it stands in URIs.
    pub domain: String,
    /// Its registrar.
    pub address: SocketAddr,
    /// UDP or TCP. The way between P-CSCF and registrar is trusted; there is no TLS on it.
    pub transport: Transport,
}

impl CoreHop {
    /// A registrar that is spoken to over UDP.
    ///
    /// ```
    /// use ims_traversal::pcscf::CoreHop;
    /// let hop = CoreHop::udp("ims.example.com", "203.0.113.21:5060".parse().unwrap());
    /// assert_eq!(hop.domain, "ims.example.com");
    /// ```
    pub fn udp(domain: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            domain: domain.into(),
            address,
            transport: Transport::Udp,
        }
    }
}

/// What happens to connections that speak HTTP on a port of SIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpPolicy {
    /// They are closed without a word.
    #[default]
    Close,
    /// The host gets them, see [`PcscfEvent::Http`](super::PcscfEvent::Http).
    HandOver,
}

/// A registrar, and the proxy of its domains, inside the P-CSCF.
///
/// ```
/// use ims_traversal::pcscf::{HomeConfig, Pcscf, ServiceConfig};
/// use sip_outbound::RegistrarConfig;
/// use stun_proto::Instant;
///
/// let mut config = ServiceConfig::new("127.0.0.1", "127.0.0.1:5060".parse().unwrap());
/// config.home = Some(HomeConfig::new(RegistrarConfig::new("ims.example.com")));
/// let pcscf = Pcscf::new(config, [7; 32], Instant::ZERO).unwrap();
/// assert_eq!(pcscf.binding_count(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct HomeConfig {
    /// Domains, challenges, times. Without a Service-Route, one is made of the first domain.
    pub registrar: RegistrarConfig,
    /// Transaction timers.
    pub timings: Timings,
    /// Open server transactions: 1,024.
    pub max_server_transactions: usize,
    /// Open client transactions: 1,024.
    pub max_client_transactions: usize,
}

impl HomeConfig {
    /// The defaults for a registrar.
    pub const fn new(registrar: RegistrarConfig) -> Self {
        Self {
            registrar,
            timings: Timings::RFC3261,
            max_server_transactions: 1024,
            max_client_transactions: 1024,
        }
    }
}

/// How a [`Pcscf`](super::Pcscf) behaves.
///
/// ```
/// use ims_traversal::pcscf::{CoreHop, ServiceConfig};
///
/// let core_socket = "203.0.113.40:5060".parse().unwrap();
/// let mut config = ServiceConfig::new("203.0.113.40", core_socket);
/// config.edge.aliases = vec!["pcscf.example.com".into()];
/// config.hops = vec![CoreHop::udp("ims.example.com", "203.0.113.21:5060".parse().unwrap())];
/// assert_eq!(config.edge.flow_timer, Some(60));
/// ```
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// The edge proxy: names, flow timer, gate, limits of messages and transactions. Its port is
    /// that of the core socket, unless given.
    pub edge: EdgeConfig,
    /// Serves domains here.
    pub home: Option<HomeConfig>,
    /// Domains that are served elsewhere. Requests to anywhere else are refused.
    pub hops: Vec<CoreHop>,
    /// The address of the host's UDP socket towards registrars.
    pub core_socket: SocketAddr,
    /// Certificate, versions, suites and ALPN identifiers for [`Listener::Tls`](super::Listener).
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What happens to HTTP.
    pub http: HttpPolicy,
    /// Names (SNI) under which SIP is spoken, when ALPN does not tell.
    pub sip_names: Vec<String>,
    /// Names (SNI) under which HTTP is spoken, when ALPN does not tell.
    pub http_names: Vec<String>,
    /// How long a TLS handshake may take: 10 s.
    pub handshake_timeout: Duration,
    /// How long a connection to a registrar may take to open: 15 s.
    pub connect_timeout: Duration,
    /// How long a connection that is being closed may take to read the rest: 5 s.
    pub linger: Duration,
    /// Over how long [`shut_down`](super::Pcscf::shut_down) spreads the end of the connections, so
    /// that not all clients come back at once: 5 s.
    pub shutdown_spread: Duration,
    /// Connections of clients at a time: 10,000; more are refused. Those with registrars are
    /// limited by [`max_core_flows`](EdgeConfig::max_core_flows): as many that are opened from
    /// here, and as many that registrars open.
    pub max_conns: usize,
    /// Connections whose TLS handshake is not done: 512; more are refused.
    pub max_handshakes: usize,
    /// Clear bytes that may wait for one connection: 262,144; with more it is closed. From a
    /// quarter of it on nothing more is read, see [`wants_input`](super::Pcscf::wants_input).
    pub max_unsent: usize,
}

impl ServiceConfig {
    /// The defaults: a P-CSCF of this name (see [`EdgeConfig::pcscf`]), without registrars.
    pub fn new(host: impl Into<String>, core_socket: SocketAddr) -> Self {
        Self {
            edge: EdgeConfig::pcscf(host),
            home: None,
            hops: Vec::new(),
            core_socket,
            #[cfg(feature = "tls")]
            tls: None,
            http: HttpPolicy::Close,
            sip_names: Vec::new(),
            http_names: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(15),
            linger: Duration::from_secs(5),
            shutdown_spread: Duration::from_secs(5),
            max_conns: 10_000,
            max_handshakes: 512,
            max_unsent: 256 * 1024,
        }
    }

    /// Connections with registrars at a time, those that are being closed included.
    pub(super) const fn max_core_conns(&self) -> usize {
        self.edge.max_core_flows.saturating_mul(2)
    }

    pub(super) fn check(&self) -> Result<(), ServiceConfigError> {
        if self.home.is_none() && self.hops.is_empty() {
            return Err(ServiceConfigError::NoRegistrar);
        }
        let hops = &self.hops;
        if hops.iter().any(|hop| hop.transport.is_secure()) {
            return Err(ServiceConfigError::SecureHop);
        }
        let zero = self.handshake_timeout.is_zero()
            || self.connect_timeout.is_zero()
            || self.linger.is_zero()
            || self.max_conns == 0
            || self.max_handshakes == 0
            || self.max_unsent == 0;
        let home_zero = self.home.as_ref().is_some_and(|home| {
            home.max_server_transactions == 0 || home.max_client_transactions == 0
        });
        if zero || home_zero {
            return Err(ServiceConfigError::Zero);
        }
        Ok(())
    }
}

/// Why a configuration does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceConfigError {
    /// No domain is served, neither here nor elsewhere.
    #[error("no registrar")]
    NoRegistrar,
    /// The way to registrars is UDP or TCP.
    #[error("TLS towards a registrar")]
    SecureHop,
    /// A limit or a wait is zero.
    #[error("limit or wait is zero")]
    Zero,
    /// The edge proxy.
    #[error("edge proxy: {0}")]
    Edge(#[from] EdgeConfigError),
    /// The registrar.
    #[error("registrar: {0}")]
    Registrar(#[from] RegistrarConfigError),
}
