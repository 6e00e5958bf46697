//! The servers, and how UEs are configured to reach them from each network.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_connect::ProxyConfig;
use http_connect::auth::Credentials as ProxyCredentials;
use ice_proto::{Role, SessionConfig, Transport, TurnServer};
use ims_traversal::HttpProxy;
use ims_traversal::access::AccessConfig;
use ims_traversal::media::MediaConfig;
use ims_traversal::pcscf::{HomeConfig, Listener, ServiceConfig};
use ims_traversal::ue::UeConfig;
use rustls::ClientConfig;
use sip_outbound::wire::UriBuf;
use sip_outbound::{Account, InstanceId, RegistrarConfig, UserAgentConfig};
use stun_proto::auth::Credentials;
use tokio::net::UdpSocket;
use turn_proto::policy::Preset;
use turn_proto::server::{ServerConfig, StaticUsers};

use crate::common::http_proxy::{self, Users};
use crate::common::network::Network;
use crate::common::pcscf::{PcscfHost, SipUsers};
use crate::host::{self, Host, HostConfig, Keys, Listen, Quota, RelayAddress};

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const DOMAIN: &str = "ims.example";
const TURN_NAME: &str = "turn.example";
const TURN_USER: (&str, &str) = ("ue", "turn-secret");
const PROXY_USER: (&str, &str) = ("web", "proxy-secret");

/// What both UEs sit behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open,
    UdpBlocked,
    OnlyTls443,
    OnlyProxy,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Open,
        Self::UdpBlocked,
        Self::OnlyTls443,
        Self::OnlyProxy,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::UdpBlocked => "UDP blocked",
            Self::OnlyTls443 => "only TLS 443",
            Self::OnlyProxy => "only HTTP proxy",
        }
    }
}

/// The servers, and how to reach them.
pub struct World {
    turn: Host,
    pcscf: Arc<PcscfHost>,
    turn_udp: SocketAddr,
    turn_tcp: SocketAddr,
    turn_tls: SocketAddr,
    /// Stands for port 5061.
    sip: SocketAddr,
    /// Stands for port 443.
    sip_443: SocketAddr,
    proxy: SocketAddr,
    trust: Arc<ClientConfig>,
}

impl World {
    pub async fn start() -> Result<Self> {
        let any = SocketAddr::new(LOOPBACK, 0);
        let names = [TURN_NAME, &LOOPBACK.to_string()];
        let (server_tls, trust) = crate::common::tls::for_the_moment(&names)?;
        let turn = start_turn(any, Arc::clone(&server_tls))?;
        let [udp, tcp, tls] = turn.listening() else {
            anyhow::bail!("the TURN server does not listen where it should");
        };
        let (turn_udp, turn_tcp, turn_tls) = (udp.at, tcp.at, tls.at);

        let socket = UdpSocket::bind(any).await?;
        let mut config = ServiceConfig::new(LOOPBACK.to_string(), socket.local_addr()?);
        // One P-CSCF on several ports.
        config.edge.aliases = vec![LOOPBACK.to_string()];
        config.home = Some(HomeConfig::new(RegistrarConfig::new(DOMAIN)));
        config.tls = Some(server_tls);
        let passwords = ["alice", "bob"].map(|user| (user.to_owned(), format!("{user}-secret")));
        let users = SipUsers::new(&[DOMAIN.to_owned()], passwords);
        let pcscf = PcscfHost::new(config, users, socket, |_| {})?;
        let sip = pcscf.listen(any, Listener::Tls).await?;
        let sip_443 = pcscf.listen(any, Listener::Tls).await?;

        let proxy = start_proxy(vec![turn_tls.port(), sip_443.port()]).await?;
        Ok(Self {
            turn,
            pcscf,
            turn_udp,
            turn_tcp,
            turn_tls,
            sip,
            sip_443,
            proxy,
            trust,
        })
    }

    /// The firewall of a network.
    pub fn network(&self, kind: Kind) -> Network {
        let (udp_blocked, tcp_only_to) = match kind {
            Kind::Open => (false, None),
            Kind::UdpBlocked => (true, None),
            Kind::OnlyTls443 => (true, Some(vec![self.turn_tls, self.sip_443])),
            Kind::OnlyProxy => (true, Some(vec![self.proxy])),
        };
        Network {
            udp_blocked,
            tcp_only_to,
        }
    }

    /// What a connection to this address leads to.
    pub fn hop(&self, to: &str) -> &'static str {
        let names = [
            (self.turn_tcp, "TURN"),
            (self.turn_tls, "TURN 443"),
            (self.sip, "P-CSCF 5061"),
            (self.sip_443, "P-CSCF 443"),
            (self.proxy, "proxy"),
        ];
        let found = names.iter().find(|(at, _)| at.to_string() == to);
        found.map_or("?", |(_, name)| name)
    }

    /// A UE of this user in this network.
    pub fn ue(&self, kind: Kind, user: &str) -> Result<UeConfig> {
        let proxy = (kind == Kind::OnlyProxy).then(|| {
            let credentials = ProxyCredentials::new(PROXY_USER.0, PROXY_USER.1);
            HttpProxy::new(self.proxy.into(), Some(credentials))
        });
        let mut access = AccessConfig::new(self.agent(user)?, Arc::clone(&self.trust));
        access.tls_port = self.sip_443.port();
        access.proxy.clone_from(&proxy);
        let mut session = SessionConfig::new(Role::Controlling);
        session.allow_loopback = true;
        session.turn_servers = vec![self.turn_server(kind)];
        let mut media = MediaConfig::new(session);
        media.tls = Some(Arc::clone(&self.trust));
        media.proxy = proxy;
        Ok(UeConfig::new(access, media))
    }

    fn agent(&self, user: &str) -> Result<UserAgentConfig> {
        let aor: UriBuf = format!("sip:{user}@{DOMAIN}").parse()?;
        let pcscf: UriBuf = format!("sips:{}", self.sip).parse()?;
        let last = u32::from(user.as_bytes()[0]);
        let instance = format!("urn:uuid:0a1b2c3d-0000-4000-8000-{last:012x}");
        let instance = InstanceId::new(&instance)?;
        let mut agent = UserAgentConfig::ims(aor, instance, vec![pcscf]);
        let password = format!("{user}-secret");
        agent.accounts = vec![Account::new(user, password.as_str(), DOMAIN)];
        // So as not to keep the audience waiting for the 30 s of RFC 5626.
        agent.recovery.base_all_failed = Duration::from_millis(500);
        Ok(agent)
    }

    /// The TURN server as a UE in this network is configured with it: what gets through best.
    fn turn_server(&self, kind: Kind) -> TurnServer {
        let (addr, transport) = match kind {
            Kind::Open => (self.turn_udp, Transport::Udp),
            Kind::UdpBlocked => (self.turn_tcp, Transport::Tcp),
            Kind::OnlyTls443 | Kind::OnlyProxy => (self.turn_tls, Transport::Tls),
        };
        TurnServer {
            addr,
            transport,
            credentials: Credentials::new(TURN_USER.0, TURN_USER.1),
            server_name: Some(TURN_NAME.to_owned()),
            family: None,
        }
    }

    /// Whether the UEs have left nothing behind.
    pub async fn check_empty(&self) -> Result<()> {
        let left = || (self.turn.quota().allocations(), self.pcscf.counts().1);
        // The servers hear of the end on threads of their own.
        for _ in 0..100 {
            if left() == (0, 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (allocations, bindings) = left();
        anyhow::ensure!(allocations == 0, "allocations were not given back");
        anyhow::ensure!(bindings == 0, "bindings were not removed");
        Ok(())
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "P-CSCF: TLS {} (for 5061), {} (for 443)\nTURN server: UDP {}, TCP {}, TLS {} (for 443)\n\
             HTTP proxy: {}",
            self.sip, self.sip_443, self.turn_udp, self.turn_tcp, self.turn_tls, self.proxy
        )
    }
}

/// A TURN server with one worker.
fn start_turn(at: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Result<Host> {
    let mut listed = StaticUsers::new(TURN_NAME);
    listed.add(TURN_USER.0, TURN_USER.1);
    let mut server = ServerConfig::new(TURN_NAME);
    // The peers are on loopback here, where no relay should reach otherwise.
    server.peers.preset = Preset::Any;
    let listen = |transport| Listen { transport, at };
    let config = HostConfig {
        server,
        listen: [Transport::Udp, Transport::Tcp, Transport::Tls]
            .map(listen)
            .to_vec(),
        relays: vec![RelayAddress {
            ip: LOOPBACK,
            external: None,
        }],
        workers: 1,
        tls: Some(tls),
        buffers: host::sockets::Buffers::default(),
        spread: host::sockets::Spread::Flow,
        secret: None,
    };
    Host::start(config, Keys { listed, rest: None }, Quota::new(100, 1000))
}

async fn start_proxy(ports: Vec<u16>) -> Result<SocketAddr> {
    let passwords = HashMap::from([(PROXY_USER.0.to_owned(), PROXY_USER.1.to_owned())]);
    let users = Users::new("proxy.example", passwords, true, true)?;
    let config = move |local| {
        let mut config = ProxyConfig::new("proxy.example");
        config.ports = ports;
        let loopback = http_connect::Prefix::new(LOOPBACK, 32);
        config.addresses.allowed.push(loopback);
        config.own_addresses = vec![local];
        config
    };
    let any = SocketAddr::new(LOOPBACK, 0);
    let listening = http_proxy::listen(any, config, Some(users), |_, _| {}).await;
    listening.context("HTTP proxy")
}
