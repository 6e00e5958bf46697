//! How the control plane of a UE is told to get to its P-CSCF.

use core::time::Duration;

#[cfg(feature = "tls")]
use alloc::sync::Arc;

#[cfg(feature = "tls")]
use rustls::ClientConfig;
use sip_outbound::{ConfigError, UserAgentConfig};

use crate::HttpProxy;
use crate::conns::ConnLimits;
use crate::ladder::{LadderConfig, LadderError};

/// How an [`Access`](super::Access) behaves.
///
/// ```
/// use http_connect::auth::Credentials;
/// use ims_traversal::access::AccessConfig;
/// use ims_traversal::{Endpoint, HttpProxy};
/// use sip_outbound::wire::UriBuf;
/// use sip_outbound::{InstanceId, UserAgentConfig};
/// # let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
/// # let tls = rustls::ClientConfig::builder_with_provider(provider)
/// #     .with_safe_default_protocol_versions().unwrap()
/// #     .with_root_certificates(rustls::RootCertStore::empty())
/// #     .with_no_client_auth();
///
/// let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
/// let aor: UriBuf = "sip:alice@ims.example".parse().unwrap();
/// let pcscfs: Vec<UriBuf> = ["sips:pcscf1.ims.example", "sips:pcscf2.ims.example"]
///     .map(|uri| uri.parse().unwrap())
///     .into();
/// let agent = UserAgentConfig::ims(aor, instance, pcscfs);
/// let mut config = AccessConfig::new(agent, tls.into());
/// let endpoint = Endpoint::Name { host: "proxy.corp.example".into(), port: 3128 };
/// config.proxy = Some(HttpProxy::new(endpoint, Some(Credentials::new("alice", "secret"))));
/// assert_eq!(config.tls_port, 443);
/// ```
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Who registers where. The P-CSCFs are its `proxies`; their own ports serve ordinary access.
    pub agent: UserAgentConfig,
    /// The ways to the P-CSCF.
    pub ladder: LadderConfig,
    /// The HTTP proxy of the present network.
    pub proxy: Option<HttpProxy>,
    /// Roots, versions and suites of TLS to the P-CSCF. Without ALPN, since there are firewalls
    /// that let only the names of the web pass; see `sip_alpn`.
    #[cfg(feature = "tls")]
    pub tls: Arc<ClientConfig>,
    /// Offers `sip/2` by ALPN. Off.
    pub sip_alpn: bool,
    /// The port of the P-CSCF that hides among web traffic: 443.
    pub tls_port: u16,
    /// Longest interval between keep-alives to that port: 120 s, whatever the P-CSCF says.
    pub keep_alive_443: Duration,
    /// The same through an HTTP proxy: 50 s.
    pub keep_alive_proxy: Duration,
    /// How long the host may take to open a UDP socket: 15 s.
    pub socket_timeout: Duration,
    /// How long the host may take to set up its tunnel: 60 s.
    pub tunnel_timeout: Duration,
    /// Limits of the TCP connections.
    pub conns: ConnLimits,
}

impl AccessConfig {
    /// The defaults around what has none.
    pub fn new(agent: UserAgentConfig, #[cfg(feature = "tls")] tls: Arc<ClientConfig>) -> Self {
        Self {
            agent,
            ladder: LadderConfig::default(),
            proxy: None,
            #[cfg(feature = "tls")]
            tls,
            sip_alpn: false,
            tls_port: 443,
            keep_alive_443: Duration::from_secs(120),
            keep_alive_proxy: Duration::from_secs(50),
            socket_timeout: Duration::from_secs(15),
            tunnel_timeout: Duration::from_secs(60),
            conns: ConnLimits::default(),
        }
    }
}

/// Why an [`AccessConfig`] does not work.
///
/// ```
/// use ims_traversal::access::AccessError;
/// use ims_traversal::ladder::LadderError;
///
/// let error = AccessError::from(LadderError::Networks);
/// assert_eq!(error.to_string(), "no network can be remembered");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The user agent.
    #[error(transparent)]
    Agent(#[from] ConfigError),
    /// The ladder.
    #[error(transparent)]
    Ladder(#[from] LadderError),
}
