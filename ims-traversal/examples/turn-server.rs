//! A TURN server over UDP, TCP and TLS.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a program on std, not a machine"
)]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use turn_proto::policy::{Prefix, Preset};
use turn_proto::server::{Event, ServerConfig, StaticUsers};

use common::say;
use common::turn::{Notice, TurnHost};

/// Which peers may be reached where the lists say nothing.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PeersArg {
    /// Every address of the public Internet, nothing special.
    Public,
    /// Nothing but what --allow names.
    Listed,
    /// Everything, private and loopback addresses included: for laboratories.
    Any,
}

/// A TURN server (RFC 8656) that relays UDP to clients over UDP, TCP and TLS.
#[derive(Debug, Parser)]
#[command(name = "turn-server", version)]
struct Args {
    /// Where to listen for UDP; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    udp: Vec<SocketAddr>,
    /// Where to listen for TCP; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    tcp: Vec<SocketAddr>,
    /// Where to listen for TLS; may be given several times. Needs --cert and --key.
    #[arg(long, value_name = "ADDR:PORT", requires = "cert", requires = "key")]
    tls: Vec<SocketAddr>,
    /// The certificate chain, a PEM file.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, a PEM file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The address relays are opened on; one for each family at most.
    #[arg(long, value_name = "IP", required = true)]
    relay: Vec<IpAddr>,
    /// What peers are told instead of the relay's address, when a NAT translates it.
    #[arg(long, value_name = "IP")]
    external: Option<IpAddr>,
    /// The realm users belong to.
    #[arg(long)]
    realm: String,
    /// A user, NAME:PASSWORD; may be given several times.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// A file with one NAME:PASSWORD in each line.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Which peers may be reached.
    #[arg(long, value_enum, default_value = "public")]
    peers: PeersArg,
    /// Peers that may be reached whatever --peers says, ADDR[/BITS].
    #[arg(long, value_name = "PREFIX")]
    allow: Vec<Prefix>,
    /// Peers that may not be reached, ADDR[/BITS]. The server's own addresses never are, unless
    /// allowed by name.
    #[arg(long, value_name = "PREFIX")]
    deny: Vec<Prefix>,
    /// Allocations in all.
    #[arg(long, default_value_t = 10_000)]
    max_allocations: usize,
    /// Allocations of one user.
    #[arg(long, default_value_t = 10)]
    max_per_user: usize,
    /// Takes channel numbers up to 0x7FFF, as clients of RFC 5766 use.
    #[arg(long)]
    rfc5766_channels: bool,
    /// Prints JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    anyhow::ensure!(
        !(args.udp.is_empty() && args.tcp.is_empty() && args.tls.is_empty()),
        "nowhere to listen: give --udp, --tcp or --tls"
    );
    let json = args.json;
    let host = TurnHost::new(
        config(&args),
        users(&args)?,
        args.relay.clone(),
        args.external,
        move |notice| report(json, &notice),
    )?;
    let listening = |transport: &str, at: SocketAddr| {
        if json {
            let line =
                json!({ "type": "listening", "transport": transport, "address": at.to_string() });
            say(&line.to_string());
        } else {
            say(&format!("listening for {transport} on {at}"));
        }
    };
    for at in &args.udp {
        let local = host.listen_udp(*at).await;
        listening("UDP", local.with_context(|| format!("UDP {at}"))?);
    }
    for at in &args.tcp {
        let local = host.listen_tcp(*at, None).await;
        listening("TCP", local.with_context(|| format!("TCP {at}"))?);
    }
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        let tls = common::tls::server(cert, key)?;
        for at in &args.tls {
            let local = host.listen_tcp(*at, Some(tls.clone())).await;
            listening("TLS", local.with_context(|| format!("TLS {at}"))?);
        }
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    let left = host.allocations();
    host.shut_down();
    if json {
        say(&json!({ "type": "stopped", "allocations": left }).to_string());
    } else {
        say(&format!("stopped with {left} allocations"));
    }
    Ok(())
}

fn config(args: &Args) -> ServerConfig {
    let mut config = ServerConfig::new(args.realm.clone());
    config.relay_v4 = args.relay.iter().any(IpAddr::is_ipv4);
    config.relay_v6 = args.relay.iter().any(IpAddr::is_ipv6);
    config.rfc5766_channels = args.rfc5766_channels;
    config.limits.allocations = args.max_allocations;
    config.limits.allocations_per_user = args.max_per_user;
    config.peers.preset = match args.peers {
        PeersArg::Public => Preset::Public,
        PeersArg::Listed => Preset::ListedOnly,
        PeersArg::Any => Preset::Any,
    };
    config.peers.allow.clone_from(&args.allow);
    config.peers.deny.clone_from(&args.deny);
    // Relays of this very server may be peers of each other, but only when that is allowed.
    if !matches!(args.peers, PeersArg::Any) {
        let listeners = args.udp.iter().chain(&args.tcp).chain(&args.tls);
        let own = listeners.map(|at| at.ip());
        let own = own.filter_map(|ip| ip.to_string().parse::<Prefix>().ok());
        config.peers.deny.extend(own);
    }
    config
}

fn users(args: &Args) -> Result<StaticUsers> {
    let mut users = StaticUsers::new(args.realm.clone());
    for (name, password) in common::users(&args.user, args.users.as_deref())? {
        users.add(&name, &password);
    }
    Ok(users)
}

fn report(json: bool, notice: &Notice) {
    let value = match notice {
        Notice::Event(Event::AllocationCreated {
            relay,
            client,
            username,
            relayed,
            ..
        }) => json!({
            "type": "allocated", "relay": relay.0, "relayed": relayed.to_string(),
            "client": client.remote.to_string(), "transport": client.transport.to_string(),
            "user": String::from_utf8_lossy(username),
        }),
        Notice::Event(Event::AllocationDeleted {
            relay,
            reason,
            to_peers,
            to_client,
            ..
        }) => json!({
            "type": "deleted", "relay": relay.0, "reason": format!("{reason:?}"),
            "bytes_to_peers": to_peers, "bytes_to_client": to_client,
        }),
        Notice::StreamClosed(Some(reason)) => json!({ "type": "stream-failed", "reason": reason }),
        Notice::Event(_) | Notice::StreamOpened(_) | Notice::StreamClosed(None) => return,
    };
    say(&if json {
        value.to_string()
    } else {
        in_words(&value)
    });
}

fn in_words(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let words = fields.map(|(name, value)| match (name.as_str(), value.as_str()) {
        ("type", Some(what)) => what.to_owned(),
        (_, Some(text)) => format!("{name}={text}"),
        (_, None) => format!("{name}={value}"),
    });
    words.collect::<Vec<_>>().join(" ")
}
