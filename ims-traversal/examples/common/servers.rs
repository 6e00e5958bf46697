//! Servers and proxies as they stand on a command line, and the way to them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use http_connect::auth::{
    Allow, ClientAuth, Credentials as ProxyCredentials, Policy as AuthPolicy,
};
use http_connect::{ConnectConfig, Leniency, Target};
use ims_traversal::tunnel::{ProxyHop, Tls, TunnelConfig};
use ims_traversal::{Endpoint, HttpProxy};
use stun_proto::Transport;
use stun_proto::uri::{Host, Scheme, Uri, UriTransport};

/// A TURN server.
#[derive(Clone, Debug)]
pub struct TurnUri {
    /// Where it is.
    pub addr: SocketAddr,
    /// UDP, TCP or TLS.
    pub transport: Transport,
    /// What its certificate is for.
    pub host: String,
}

/// The host of a URI as text.
pub fn host_text(uri: &Uri) -> String {
    match uri.host() {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    }
}

/// The first address of a host.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let plain = host.trim_matches(['[', ']']);
    let found = (plain, port).to_socket_addrs();
    let found = found.with_context(|| format!("resolving {host}"))?.next();
    found.with_context(|| format!("no address for {host}"))
}

/// Reads a `turn:` or `turns:` URI.
pub fn turn_uri(text: &str) -> Result<TurnUri> {
    let uri: Uri = text.parse().with_context(|| format!("TURN URI {text}"))?;
    let transport = match (uri.scheme(), uri.transport()) {
        (Scheme::Turn, None | Some(UriTransport::Udp)) => Transport::Udp,
        (Scheme::Turn, Some(UriTransport::Tcp)) => Transport::Tcp,
        (Scheme::Turns, None | Some(UriTransport::Tcp)) => Transport::Tls,
        _ => bail!("{text}: this kind of server is not supported"),
    };
    let host = host_text(&uri);
    Ok(TurnUri {
        addr: resolve(&host, uri.port())?,
        transport,
        host,
    })
}

/// The local address the way to `to` begins with. Nothing is sent.
pub fn local_address(to: SocketAddr) -> Result<IpAddr> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any)?;
    socket
        .connect(to)
        .context("finding the local address; try --bind")?;
    Ok(socket.local_addr()?.ip())
}

/// A proxy as it stands in a URL.
#[derive(Clone, Debug)]
pub struct Proxy {
    addr: SocketAddr,
    credentials: Option<ProxyCredentials>,
}

/// Reads `http://[USER:PASSWORD@]HOST:PORT`.
pub fn proxy(url: &str) -> Result<Proxy> {
    let rest = url
        .strip_prefix("http://")
        .context("--proxy must begin with http://")?;
    let rest = rest.trim_end_matches('/');
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let credentials = match user.map(|user| user.split_once(':')) {
        None => None,
        Some(Some((name, password))) => Some(ProxyCredentials::new(name, password)),
        Some(None) => bail!("--proxy: a user needs a password, USER:PASSWORD@"),
    };
    let target: Target = place.parse().context("--proxy: HOST:PORT")?;
    let host = target.host().to_string();
    let addr = resolve(&host, target.port())?;
    Ok(Proxy { addr, credentials })
}

impl Proxy {
    /// As machines want it. What they do not know yet is the user's: any scheme will do.
    pub fn http_proxy(&self) -> HttpProxy {
        let mut proxy = HttpProxy::new(Endpoint::Addr(self.addr), self.credentials.clone());
        let policy = proxy.auth.policy_mut();
        (policy.basic, policy.md5) = (Allow::Always, Allow::Always);
        proxy
    }
}

/// How streams are opened: where the TCP connection goes, and what is inside it.
pub fn way_to(
    remote: SocketAddr,
    secure: bool,
    host: &str,
    proxy: Option<&Proxy>,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> Result<(SocketAddr, TunnelConfig)> {
    let tls = if secure {
        let config = Arc::clone(tls.context("no TLS")?);
        let name = super::tls::server_name(host)?;
        Some(Tls::Client { config, name })
    } else {
        None
    };
    let Some(proxy) = proxy else {
        let config = TunnelConfig {
            tls,
            ..TunnelConfig::default()
        };
        return Ok((remote, config));
    };
    let target = Target::new(host.trim_matches(['[', ']']), remote.port())?;
    let policy = AuthPolicy {
        basic: Allow::Always,
        md5: Allow::Always,
        ..AuthPolicy::default()
    };
    let hop = ProxyHop {
        target,
        config: ConnectConfig {
            expect_tls: tls.is_some(),
            leniency: Leniency::LENIENT,
            ..ConnectConfig::default()
        },
        auth: ClientAuth::new(proxy.credentials.clone(), policy),
    };
    let config = TunnelConfig {
        proxy: Some(hop),
        tls,
        ..TunnelConfig::default()
    };
    Ok((proxy.addr, config))
}
