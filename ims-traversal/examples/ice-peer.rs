//! An ICE agent for the command line: exchanges descriptions on standard input and output, then
//! numbered messages with the other side.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a program on std, not a machine"
)]

mod common;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use ice_proto::sdp::Line;
use ice_proto::{
    Credentials, Policy, Remote, RemoteDescription, RemoteStream, Role, SessionConfig, TurnServer,
};
use ims_traversal::media::MediaConfig;
use serde_json::{Value, json};
use stun_proto::uri::{Scheme, Uri};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use common::messages::Summary;
use common::network::Network;
use common::peer::{Peer, PeerConfig, PeerOutput};
use common::servers;

/// Which candidates to use.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// Every kind.
    All,
    /// Relayed ones only.
    Relay,
}

/// An ICE agent for the command line.
///
/// Writes its description as one JSON line, reads the other side's from standard input (the same
/// JSON, or the ICE lines of an SDP up to a=end-of-candidates), connects, sends numbered payloads,
/// and echoes those of the other side. Exit code 0 when all its payloads came back.
#[derive(Debug, Parser)]
#[command(name = "ice-peer", version)]
struct Args {
    /// Decides which pair is used.
    #[arg(
        long,
        conflicts_with = "controlled",
        required_unless_present = "controlled"
    )]
    controlling: bool,
    /// Leaves that to the other side.
    #[arg(long)]
    controlled: bool,
    /// What the payloads begin with.
    #[arg(long)]
    name: Option<String>,
    /// A local address; may be given several times. Default: the one the default route uses.
    #[arg(long, value_name = "IP")]
    bind: Vec<IpAddr>,
    /// A STUN server, stun:HOST[:PORT]; may be given several times.
    #[arg(long, value_name = "URI")]
    stun: Vec<String>,
    /// A TURN server, turn: or turns:HOST[:PORT][?transport=udp|tcp]; may be given several times.
    #[arg(long, value_name = "URI")]
    turn: Vec<String>,
    /// User name for the TURN servers.
    #[arg(long)]
    username: Option<String>,
    /// Password for the TURN servers.
    #[arg(long, env = "ICE_PEER_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// An HTTP proxy for TCP and TLS, http://[USER:PASSWORD@]HOST:PORT.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Certificates to trust, a PEM file; those the system trusts when it is not given.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Which candidates to use.
    #[arg(long, value_enum, default_value = "all")]
    policy: PolicyArg,
    /// Components of the one stream.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    components: u16,
    /// Payloads for each component.
    #[arg(long, default_value_t = 10)]
    messages: u32,
    /// Seconds each step may take: gathering, waiting, connecting with all messages.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// Seconds to echo on when done.
    #[arg(long, default_value_t = 2)]
    linger: u64,
    /// Takes loopback addresses as candidates.
    #[arg(long)]
    loopback: bool,
    /// JSON lines on standard output, which is the only format; accepted for symmetry.
    #[arg(long)]
    json: bool,
}

fn print(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(summary) => {
            print_done(summary);
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(&json!({ "type": "failed", "reason": format!("{error:#}") }));
            ExitCode::FAILURE
        }
    }
}

fn print_done(summary: Summary) {
    let Summary {
        sent,
        echoed,
        received,
        resent,
        ..
    } = summary;
    print(&json!({
        "type": "done", "sent": sent, "echoed": echoed, "received": received, "resent": resent,
    }));
}

async fn run(args: Args) -> Result<Summary> {
    let role = if args.controlling {
        Role::Controlling
    } else {
        Role::Controlled
    };
    let role_name = if args.controlling {
        "controlling"
    } else {
        "controlled"
    };
    let name = args.name.clone().unwrap_or_else(|| role_name.to_owned());
    anyhow::ensure!(
        !name.is_empty() && name.len() <= 64,
        "--name must have 1 to 64 characters"
    );
    let mut session = SessionConfig::new(role);
    session.agent.components = vec![args.components];
    session.allow_loopback = args.loopback;
    session.policy = match args.policy {
        PolicyArg::All => Policy::All,
        PolicyArg::Relay => Policy::RelayOnly,
    };
    session.stun_servers = args
        .stun
        .iter()
        .map(|uri| stun_server(uri))
        .collect::<Result<_>>()?;
    session.turn_servers = args
        .turn
        .iter()
        .map(|uri| turn_server(uri, &args))
        .collect::<Result<_>>()?;
    let bind = match &args.bind[..] {
        [] => vec![default_address(&session)?],
        given => given.to_vec(),
    };
    let config = PeerConfig {
        name: name.clone(),
        media: media(&args, session)?,
        bind,
        network: Network::default(),
        messages: args.messages,
        timeout: Duration::from_secs(args.timeout),
        linger: Duration::from_secs(args.linger),
    };
    let output = move |output| report(&name, role_name, output);
    let mut peer = Peer::new(config, output).await?;
    let failed = |why: String| anyhow::Error::msg(why);
    peer.gather().await.map_err(failed)?;
    let wait = Duration::from_secs(args.timeout);
    let description = tokio::time::timeout(wait, read_description()).await;
    let description =
        description.context("timeout while waiting for the other side's description")??;
    peer.set_remote(&description);
    let summary = peer.exchange().await.map_err(failed)?;
    // Told at once; echoing goes on for the other side's sake.
    print_done(summary);
    peer.finish().await;
    std::process::exit(0);
}

fn report(name: &str, role: &str, output: PeerOutput) {
    match output {
        PeerOutput::Description {
            ufrag,
            pwd,
            candidates,
        } => print(&json!({
            "type": "description", "name": name, "role": role, "ufrag": ufrag, "pwd": pwd,
            "lite": false, "candidates": candidates,
        })),
        PeerOutput::State(state) => print(&json!({ "type": "state", "state": state })),
        PeerOutput::ServerFailed(reason) => {
            print(&json!({ "type": "state", "state": "server-failed", "reason": reason }));
        }
        PeerOutput::Selected {
            component,
            local,
            remote,
            rtt,
            ..
        } => print(&json!({
            "type": "selected", "component": component.component, "local": local.to_string(),
            "remote": remote.to_string(), "rtt_ms": rtt.as_secs_f64() * 1000.0,
        })),
        PeerOutput::Crossed { .. } => {}
    }
}

fn stun_server(text: &str) -> Result<SocketAddr> {
    let uri: Uri = text.parse().with_context(|| format!("STUN URI {text}"))?;
    anyhow::ensure!(
        uri.scheme() == Scheme::Stun,
        "{text}: only stun: over UDP is supported"
    );
    servers::resolve(&servers::host_text(&uri), uri.port())
}

fn turn_server(text: &str, args: &Args) -> Result<TurnServer> {
    let server = servers::turn_uri(text)?;
    let (Some(username), Some(password)) = (&args.username, &args.password) else {
        bail!("--turn needs --username and --password");
    };
    Ok(TurnServer {
        addr: server.addr,
        transport: server.transport,
        credentials: stun_proto::auth::Credentials::new(username, password.as_str()),
        server_name: Some(server.host),
        family: None,
    })
}

/// The address the way to the servers, or to anywhere, begins with.
fn default_address(session: &SessionConfig) -> Result<IpAddr> {
    let stun = session.stun_servers.iter();
    let turn = session.turn_servers.iter().map(|s| &s.addr);
    let fallback = SocketAddr::from(([203, 0, 113, 1], 9));
    servers::local_address(stun.chain(turn).next().copied().unwrap_or(fallback))
}

fn media(args: &Args, session: SessionConfig) -> Result<MediaConfig> {
    let mut media = MediaConfig::new(session);
    let proxy = args.proxy.as_deref().map(servers::proxy).transpose()?;
    media.proxy = proxy.map(|proxy| proxy.http_proxy());
    // Proxies see the name, as browsers let them.
    media.by_name = media.proxy.is_some();
    media.tls = Some(common::tls::client_trusting(args.ca.as_deref())?);
    Ok(media)
}

/// Reads one description: a JSON line, or ICE lines of an SDP up to a=end-of-candidates.
async fn read_description() -> Result<RemoteDescription> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut sdp = String::new();
    while let Some(line) = lines.next_line().await? {
        if line.trim_start().starts_with('{') {
            let value: Value = serde_json::from_str(&line).context("description")?;
            if value["type"] == "description" {
                return from_json(&value);
            }
            continue;
        }
        sdp.push_str(&line);
        sdp.push('\n');
        if line.trim_end().ends_with("end-of-candidates") {
            return RemoteDescription::parse(&sdp)
                .context("the SDP lacks a=ice-ufrag or a=ice-pwd");
        }
    }
    bail!("standard input ended before the other side's description")
}

fn from_json(value: &Value) -> Result<RemoteDescription> {
    let text = |name: &str| {
        let text = value[name].as_str();
        text.with_context(|| format!("the description lacks \"{name}\""))
    };
    let credentials = Credentials {
        ufrag: text("ufrag")?.to_owned(),
        pwd: text("pwd")?.into(),
    };
    let lines = [
        format!("ice-ufrag:{}", credentials.ufrag),
        format!("ice-pwd:{}", credentials.pwd.expose()),
    ];
    for line in lines {
        line.parse::<Line>()
            .context("user name fragment or password")?;
    }
    let mut stream = RemoteStream {
        complete: true,
        ..RemoteStream::default()
    };
    let candidates = value["candidates"].as_array();
    for candidate in candidates.context("the description lacks \"candidates\"")? {
        match candidate.as_str().map(str::parse) {
            Some(Ok(candidate)) => stream.candidates.push(candidate),
            Some(Err(_)) | None => stream.skipped += 1,
        }
    }
    Ok(RemoteDescription {
        remote: Remote {
            credentials,
            lite: value["lite"].as_bool().unwrap_or(false),
            ice2: true,
            pacing: None,
        },
        streams: vec![stream],
    })
}
