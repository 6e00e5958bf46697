//! Two ICE peers find each other through four networks, on loopback sockets alone.
//!
//! Starts a TURN server (UDP, TCP, TLS) and an HTTP proxy, then connects two peers behind ever
//! stricter firewalls. Ephemeral ports stand for 443 and 80; the firewall is enforced where the
//! program opens sockets.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a program on std, not a machine"
)]

mod common;
#[path = "turn-server/host/mod.rs"]
mod host;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use http_connect::ProxyConfig;
use http_connect::auth::Credentials as ProxyCredentials;
use ice_proto::{
    Candidate, Remote, RemoteDescription, RemoteStream, Role, SessionConfig, Transport, TurnServer,
};
use ims_traversal::HttpProxy;
use ims_traversal::media::MediaConfig;
use rustls::ClientConfig;
use serde_json::json;
use stun_proto::Instant;
use stun_proto::auth::Credentials;
use turn_proto::policy::Preset;
use turn_proto::server::{ServerConfig, StaticUsers};

use common::http_proxy::{self, Users};
use common::messages::Summary;
use common::network::Network;
use common::peer::{Peer, PeerConfig, PeerOutput};
use common::trace::Hop;
use common::{now, say};
use host::{Host, HostConfig, Keys, Listen, Quota, RelayAddress};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TURN_NAME: &str = "turn.example";
const TURN_USER: (&str, &str) = ("ue", "turn-secret");
const PROXY_USER: (&str, &str) = ("web", "proxy-secret");

/// Two ICE peers find each other through four networks, on loopback sockets alone.
#[derive(Debug, Parser)]
#[command(name = "traversal", version)]
struct Args {
    /// Payloads each peer sends through each network.
    #[arg(long, default_value_t = 20)]
    messages: u32,
    /// Seconds each network may take.
    #[arg(long, default_value_t = 20)]
    timeout: u64,
    /// Prints JSON lines instead of ladders and a table.
    #[arg(long)]
    json: bool,
}

/// What both peers sit behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    UdpBlocked,
    OnlyTls443,
    OnlyProxy,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Open,
        Self::UdpBlocked,
        Self::OnlyTls443,
        Self::OnlyProxy,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::UdpBlocked => "UDP blocked",
            Self::OnlyTls443 => "only TLS 443",
            Self::OnlyProxy => "only HTTP proxy",
        }
    }
}

/// The servers, and how to reach them.
struct World {
    turn: Host,
    udp: SocketAddr,
    tcp: SocketAddr,
    tls: SocketAddr,
    proxy: SocketAddr,
    trust: Arc<ClientConfig>,
}

/// A TURN server with one worker.
fn turn_server(at: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Result<Host> {
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
        secret: None,
    };
    Host::start(config, Keys { listed, rest: None }, Quota::new(100, 1000))
}

impl World {
    async fn start() -> Result<Self> {
        let any = SocketAddr::new(LOOPBACK, 0);
        let (server_tls, trust) = common::tls::for_the_moment(TURN_NAME)?;
        let turn = turn_server(any, server_tls)?;
        let [udp, tcp, tls] = turn.listening() else {
            anyhow::bail!("the TURN server does not listen where it should");
        };
        let (udp, tcp, tls) = (udp.at, tcp.at, tls.at);
        let passwords = HashMap::from([(PROXY_USER.0.to_owned(), PROXY_USER.1.to_owned())]);
        let users = Users::new("proxy.example", passwords, true, true)?;
        let proxy_config = move |local| {
            let mut config = ProxyConfig::new("proxy.example");
            config.ports = vec![tls.port()];
            config
                .addresses
                .allowed
                .push(http_connect::Prefix::new(LOOPBACK, 32));
            config.own_addresses = vec![local];
            config
        };
        let proxy = http_proxy::listen(any, proxy_config, Some(users), |_, _| {}).await?;
        Ok(Self {
            turn,
            udp,
            tcp,
            tls,
            proxy,
            trust,
        })
    }

    fn network(&self, kind: Kind) -> Network {
        let (udp_blocked, tcp_only_to) = match kind {
            Kind::Open => (false, None),
            Kind::UdpBlocked => (true, None),
            Kind::OnlyTls443 => (true, Some(vec![self.tls])),
            Kind::OnlyProxy => (true, Some(vec![self.proxy])),
        };
        Network {
            udp_blocked,
            tcp_only_to,
        }
    }

    /// The TURN server as a peer in this network is configured with it: what gets through best.
    fn turn_server(&self, kind: Kind) -> TurnServer {
        let (addr, transport) = match kind {
            Kind::Open => (self.udp, Transport::Udp),
            Kind::UdpBlocked => (self.tcp, Transport::Tcp),
            Kind::OnlyTls443 | Kind::OnlyProxy => (self.tls, Transport::Tls),
        };
        TurnServer {
            addr,
            transport,
            credentials: Credentials::new(TURN_USER.0, TURN_USER.1),
            server_name: Some(TURN_NAME.to_owned()),
            family: None,
        }
    }

    fn media(&self, kind: Kind, session: SessionConfig) -> MediaConfig {
        let mut media = MediaConfig::new(session);
        media.tls = Some(self.trust.clone());
        if kind == Kind::OnlyProxy {
            let credentials = ProxyCredentials::new(PROXY_USER.0, PROXY_USER.1);
            media.proxy = Some(HttpProxy::new(self.proxy.into(), Some(credentials)));
        }
        media
    }
}

/// What crossed which hop, in order.
#[derive(Default)]
struct Ladder {
    rows: Vec<(Instant, usize, bool, Hop, String)>,
}

/// What one peer told.
#[derive(Default)]
struct Told {
    description: Option<(String, String, Vec<String>)>,
    selected: Option<(Candidate, Candidate, Option<Transport>)>,
}

/// How one network went.
struct Outcome {
    kind: Kind,
    pair: String,
    transport: String,
    summaries: [Summary; 2],
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&if args.json {
                json!({ "type": "failed", "reason": format!("{error:#}") }).to_string()
            } else {
                format!("failed: {error:#}")
            });
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let world = World::start().await?;
    if !args.json {
        say(&format!(
            "TURN server: UDP {}, TCP {}, TLS {}; HTTP proxy: {}",
            world.udp, world.tcp, world.tls, world.proxy
        ));
    }
    let mut outcomes = Vec::new();
    for kind in Kind::ALL {
        let ladder = Arc::new(Mutex::new(Ladder::default()));
        let begun = now();
        let outcome = connect(&world, kind, args, &ladder).await;
        if !args.json {
            let ladder = ladder.lock().unwrap_or_else(PoisonError::into_inner);
            print_ladder(kind, begun, &ladder);
        }
        outcomes.push(outcome.with_context(|| format!("network \"{}\"", kind.name()))?);
    }
    if args.json {
        outcomes.iter().for_each(print_json);
    } else {
        print_table(&outcomes);
    }
    // The server hears of the end on threads of its own.
    let end = now() + Duration::from_secs(2);
    while world.turn.quota().allocations() > 0 && now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::ensure!(
        world.turn.quota().allocations() == 0,
        "allocations were not given back"
    );
    drop(world.turn);
    Ok(())
}

async fn connect(
    world: &World,
    kind: Kind,
    args: &Args,
    ladder: &Arc<Mutex<Ladder>>,
) -> Result<Outcome> {
    let failed = |why: String| anyhow::Error::msg(why);
    let mut sides = Vec::new();
    for (index, role) in [Role::Controlling, Role::Controlled]
        .into_iter()
        .enumerate()
    {
        let mut session = SessionConfig::new(role);
        session.allow_loopback = true;
        session.turn_servers = vec![world.turn_server(kind)];
        let config = PeerConfig {
            name: ["ue-a", "ue-b"][index].to_owned(),
            media: world.media(kind, session),
            bind: vec![LOOPBACK],
            network: world.network(kind),
            messages: args.messages,
            timeout: Duration::from_secs(args.timeout),
            linger: Duration::from_millis(300),
        };
        let told = Arc::new(Mutex::new(Told::default()));
        let (ladder, hears) = (Arc::clone(ladder), Arc::clone(&told));
        let peer = Peer::new(config, move |output| hear(index, output, &ladder, &hears)).await?;
        sides.push((peer, told));
    }
    let [(mut a, told_a), (mut b, told_b)] =
        <[_; 2]>::try_from(sides).map_err(|_| anyhow::Error::msg("two peers"))?;
    let gathered = tokio::join!(a.gather(), b.gather());
    gathered.0.map_err(failed)?;
    gathered.1.map_err(failed)?;
    a.set_remote(&description(&told_b)?);
    b.set_remote(&description(&told_a)?);
    let (summary_a, summary_b) = tokio::join!(finish(a), finish(b));
    let summaries = [summary_a.map_err(failed)?, summary_b.map_err(failed)?];
    let told = told_a.lock().unwrap_or_else(PoisonError::into_inner);
    let (local, remote, transport) = told.selected.clone().context("no selected pair")?;
    Ok(Outcome {
        kind,
        pair: format!("{} - {}", local.kind, remote.kind),
        transport: match (transport, kind) {
            (None, _) => "-".to_owned(),
            (Some(transport), Kind::OnlyProxy) => format!("{transport} in CONNECT"),
            (Some(transport), _) => transport.to_string(),
        },
        summaries,
    })
}

async fn finish(mut peer: Peer) -> Result<Summary, String> {
    peer.exchange().await?;
    Ok(peer.finish().await)
}

fn hear(index: usize, output: PeerOutput, ladder: &Mutex<Ladder>, told: &Mutex<Told>) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    match output {
        PeerOutput::Description {
            ufrag,
            pwd,
            candidates,
        } => told.description = Some((ufrag, pwd, candidates)),
        PeerOutput::Selected {
            local,
            remote,
            relay_transport,
            ..
        } => told.selected = Some((local, remote, relay_transport)),
        PeerOutput::Crossed { sent, hop, what } => {
            let mut ladder = ladder.lock().unwrap_or_else(PoisonError::into_inner);
            ladder.rows.push((now(), index, sent, hop, what));
        }
        PeerOutput::State(_) | PeerOutput::ServerFailed(_) => {}
    }
}

fn description(told: &Mutex<Told>) -> Result<RemoteDescription> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let (ufrag, pwd, candidates) = told.description.clone().context("no description")?;
    let candidates = candidates.iter().map(|line| line.parse());
    Ok(RemoteDescription {
        remote: Remote {
            credentials: ice_proto::Credentials { ufrag, pwd },
            lite: false,
            ice2: true,
            pacing: None,
        },
        streams: vec![RemoteStream {
            candidates: candidates.collect::<Result<_, _>>()?,
            complete: true,
            ..RemoteStream::default()
        }],
    })
}

/// The first rows of a network's ladder; what repeats is counted instead.
fn print_ladder(kind: Kind, begun: Instant, ladder: &Ladder) {
    say(&format!("\n== {}", kind.name()));
    let columns = ["ue-a", "ue-b"];
    let mut counts: HashMap<(usize, bool, &'static str, &str), usize> = HashMap::new();
    for (at, index, sent, hop, what) in &ladder.rows {
        let hop = match hop {
            Hop::Proxy => "proxy",
            Hop::Server => "turn",
            Hop::Peer => columns[1 - index],
        };
        let count = counts
            .entry((*index, *sent, hop, what.as_str()))
            .or_default();
        *count += 1;
        if *count > 1 {
            continue;
        }
        let time = common::seconds(at.duration_since(begun));
        let arrow = if *sent { "-->" } else { "<--" };
        say(&format!(
            "  {time}  {} {arrow} {hop:<5}  {what}",
            columns[*index]
        ));
    }
    let repeated: usize = counts.values().map(|count| count - 1).sum();
    say(&format!("  ({repeated} more of the same)"));
}

fn print_table(outcomes: &[Outcome]) {
    say("");
    say(
        "network          candidate pair   to the relay     connected  sent  echoed  received  resent",
    );
    for outcome in outcomes {
        let [a, b] = outcome.summaries;
        say(&format!(
            "{:<16} {:<16} {:<16} {:>6} ms  {:>4}  {:>6}  {:>8}  {:>6}",
            outcome.kind.name(),
            outcome.pair,
            outcome.transport,
            a.connected_after.max(b.connected_after).as_millis(),
            a.sent + b.sent,
            a.echoed + b.echoed,
            a.received + b.received,
            a.resent + b.resent,
        ));
    }
}

fn print_json(outcome: &Outcome) {
    let [a, b] = outcome.summaries;
    let line = json!({
        "type": "network", "network": outcome.kind.name(), "pair": outcome.pair,
        "relay_transport": outcome.transport,
        "connected_ms": a.connected_after.max(b.connected_after).as_millis() as u64,
        "sent": a.sent + b.sent, "echoed": a.echoed + b.echoed,
        "received": a.received + b.received, "resent": a.resent + b.resent,
    });
    say(&line.to_string());
}
