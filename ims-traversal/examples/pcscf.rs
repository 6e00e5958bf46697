//! A P-CSCF: clients behind firewalls reach it over TLS on port 443, or over TCP on port 80.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a program on std, not a machine"
)]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use http_connect::auth::Algorithm;
use ims_traversal::pcscf::{CoreHop, HomeConfig, HttpPolicy, Listener, PcscfEvent, ServiceConfig};
use rustls::server::ServerSessionMemoryCache;
use serde_json::{Value, json};
use sip_outbound::{EdgeSecAgree, RegistrarConfig, SecMechanisms, ServiceRouteCheck};
use stun_proto::Transport;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};

use common::pcscf::{Notice, PcscfHost, SipUsers, is_failure};
use common::say;

/// What becomes of clients that speak HTTP.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum HttpArg {
    /// They are closed without a word.
    Close,
    /// They get 404.
    Answer,
}

/// What becomes of the way a client wants its requests to take.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RouteArg {
    Off,
    Refuse,
    Replace,
}

/// Which clients agree on a security mechanism.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AgreeArg {
    Off,
    Offered,
    Required,
}

/// Which challenges the registrar here makes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DigestArg {
    Md5,
    Sha256,
    Both,
}

/// A P-CSCF (3GPP TS 24.229) for clients behind firewalls: SIP Outbound (RFC 5626) over TLS and TCP.
#[derive(Debug, Parser)]
#[command(name = "pcscf", version)]
struct Args {
    /// Where to listen for TLS; may be given several times. Needs --cert and --key.
    #[arg(long, value_name = "ADDR:PORT", requires = "cert", requires = "key")]
    listen_tls: Vec<SocketAddr>,
    /// Where to listen for TCP; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    listen_tcp: Vec<SocketAddr>,
    /// The certificate chain, a PEM file. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, a PEM file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The socket towards registrars: UDP, and with --core-tcp also TCP. A concrete address.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5060")]
    core: SocketAddr,
    /// Listens for connections of registrars on --core.
    #[arg(long)]
    core_tcp: bool,
    /// How registrars reach --core: stands in Path and Record-Route. Its address by default.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How clients reach this P-CSCF: stands in Record-Route and Via towards them, with the port they
    /// have connected to. The address they have connected to by default.
    #[arg(long, value_name = "HOST")]
    access_host: Option<String>,
    /// Names clients call this P-CSCF by in Route; may be given several times.
    #[arg(long, value_name = "HOST")]
    alias: Vec<String>,
    /// A domain with a registrar elsewhere, DOMAIN=[tcp:]ADDR:PORT; may be given several times.
    #[arg(long, value_name = "DOMAIN=ADDR:PORT", value_parser = hop)]
    registrar: Vec<CoreHop>,
    /// A domain whose registrar is here; may be given several times. The first one is the realm.
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
    /// A user of --domain, NAME:PASSWORD; may be given several times.
    #[arg(long, value_name = "NAME:PASSWORD", requires = "domain")]
    user: Vec<String>,
    /// A file with one NAME:PASSWORD in each line. Read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "domain")]
    users: Option<PathBuf>,
    /// Challenges of the registrar here.
    #[arg(long, value_enum, default_value = "both")]
    digest: DigestArg,
    /// Shortest and longest registration of the registrar here, in seconds.
    #[arg(long, value_name = "MIN,MAX", value_parser = range, default_value = "60,3600")]
    expires: (u32, u32),
    /// Seconds between keep-alives asked of clients; 0 asks for none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    flow_timer: u32,
    /// Seconds a flow may be silent beyond that.
    #[arg(long, value_name = "SECONDS", default_value_t = 32)]
    flow_grace: u64,
    /// Seconds a client may take to register.
    #[arg(long, value_name = "SECONDS", default_value_t = 64)]
    unregistered_timeout: u64,
    /// What becomes of the way a client wants its requests to take, when it is not the one its
    /// registrar gave it.
    #[arg(long, value_enum, default_value = "replace")]
    service_route: RouteArg,
    /// Seconds a client behind a NAT that sends no keep-alives is told its registration lasts, so
    /// that its refreshes hold the NAT open; 0 tells what was granted.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    nat_expires: u32,
    /// Agrees on TLS as the security mechanism with clients that ask for it (RFC 3329).
    #[arg(long, value_enum, default_value = "off")]
    sec_agree: AgreeArg,
    /// Takes registrations of clients without Path as well.
    #[arg(long)]
    without_path: bool,
    /// A file with 64 hex digits, the key of flow tokens: with it, registrars are told after a
    /// restart that flows are gone.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,
    /// What becomes of clients that speak HTTP.
    #[arg(long, value_enum, default_value = "close")]
    http: HttpArg,
    /// Connections of clients at a time.
    #[arg(long, default_value_t = 10_000)]
    max_connections: usize,
    /// TLS handshakes at a time.
    #[arg(long, default_value_t = 512)]
    max_handshakes: usize,
    /// Bytes that may wait for one connection.
    #[arg(long, default_value_t = 262_144)]
    max_unsent: usize,
    /// Open transactions.
    #[arg(long, default_value_t = 10_000)]
    max_transactions: usize,
    /// Bindings of the registrar here, in all.
    #[arg(long, default_value_t = 100_000)]
    max_bindings: usize,
    /// Seconds over which connections are closed after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    drain: u64,
    /// Prints JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

/// Reads two numbers, the first not above the second.
fn range(text: &str) -> Result<(u32, u32), String> {
    let (min, max) = text.split_once(',').ok_or("not MIN,MAX")?;
    let number = |text: &str| {
        text.trim()
            .parse()
            .map_err(|error| format!("{text}: {error}"))
    };
    let (min, max) = (number(min)?, number(max)?);
    if min > max {
        return Err("the shortest is longer than the longest".into());
    }
    Ok((min, max))
}

fn hop(text: &str) -> Result<CoreHop, String> {
    let (domain, at) = text.split_once('=').ok_or("not DOMAIN=ADDR:PORT")?;
    let (transport, at) = match at.split_once(':') {
        Some(("tcp", at)) => (Transport::Tcp, at),
        Some(("udp", at)) => (Transport::Udp, at),
        _ => (Transport::Udp, at),
    };
    Ok(CoreHop {
        domain: domain.into(),
        address: at.parse().map_err(|_| "not an address with a port")?,
        transport,
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    anyhow::ensure!(
        !(args.listen_tls.is_empty() && args.listen_tcp.is_empty()),
        "nowhere to listen: give --listen-tls or --listen-tcp"
    );
    allow_files(args.max_connections);
    let socket = UdpSocket::bind(args.core)
        .await
        .with_context(|| format!("UDP socket {}", args.core))?;
    let config = config(&args, socket.local_addr()?)?;
    let json = args.json;
    let host = PcscfHost::new(config, users(&args)?, socket, move |notice| {
        tell(json, &notice);
    })?;
    let tls = args.listen_tls.iter().map(|at| (*at, Listener::Tls));
    let tcp = args.listen_tcp.iter().map(|at| (*at, Listener::Tcp));
    let core = args.core_tcp.then_some((args.core, Listener::Core));
    for (at, listener) in tls.chain(tcp).chain(core) {
        let local = host.listen(at, listener).await;
        let local = local.with_context(|| format!("listening on {at}"))?;
        let kind = format!("{listener:?}").to_lowercase();
        print(
            json,
            &json!({ "type": "listening", "kind": kind, "address": local.to_string() }),
        );
    }
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut hup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => {
                let line = match reload(&args, &host) {
                    Ok(()) => json!({ "type": "reloaded" }),
                    // What is wrong changes nothing.
                    Err(error) => json!({ "type": "not-reloaded", "error": format!("{error:#}") }),
                };
                print(json, &line);
            }
        }
    }
    let (connections, bindings) = host.counts();
    print(
        json,
        &json!({ "type": "draining", "connections": connections, "bindings": bindings }),
    );
    tokio::select! {
        () = host.shut_down() => {}
        // Twice is meant.
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Lets the process have a file for each connection of a client, and some for registrars, as far
/// as the system allows.
fn allow_files(connections: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = connections as u64 + 256;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted.min(hard)), hard);
    if raised.is_err() || hard < wanted {
        tracing::warn!(
            wanted,
            hard,
            "the limit of open files is too low for --max-connections"
        );
    }
}

fn users(args: &Args) -> Result<SipUsers> {
    let users = common::users(&args.user, args.users.as_deref())?;
    Ok(SipUsers::new(&args.domain, users))
}

fn tls(args: &Args) -> Result<Option<Arc<rustls::ServerConfig>>> {
    let (Some(cert), Some(key)) = (&args.cert, &args.key) else {
        return Ok(None);
    };
    let mut config = Arc::unwrap_or_clone(common::tls::server(cert, key)?);
    config.alpn_protocols = vec![b"sip/2".to_vec()];
    if let HttpArg::Answer = args.http {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    // When a proxy closes all its tunnels, everybody comes back at once.
    config.session_storage = ServerSessionMemoryCache::new(args.max_connections);
    Ok(Some(Arc::new(config)))
}

fn reload(args: &Args, host: &PcscfHost) -> Result<()> {
    let (users, tls) = (users(args)?, tls(args)?);
    host.set_users(users);
    if let Some(tls) = tls {
        host.set_tls(tls);
    }
    Ok(())
}

fn config(args: &Args, core: SocketAddr) -> Result<ServiceConfig> {
    if args.host.is_none() && core.ip().is_unspecified() {
        anyhow::bail!("--core {core}: registrars need a concrete address, or --host");
    }
    let name = match (&args.host, core) {
        (Some(host), _) => host.clone(),
        (None, SocketAddr::V4(core)) => core.ip().to_string(),
        (None, SocketAddr::V6(core)) => format!("[{}]", core.ip()),
    };
    let mut config = ServiceConfig::new(name, core);
    config.hops.clone_from(&args.registrar);
    config.home = home(args);
    config.tls = tls(args)?;
    config.http = match args.http {
        HttpArg::Close => HttpPolicy::Close,
        HttpArg::Answer => HttpPolicy::HandOver,
    };
    config.max_conns = args.max_connections;
    config.max_handshakes = args.max_handshakes;
    config.max_unsent = args.max_unsent;
    config.shutdown_spread = Duration::from_secs(args.drain);
    let edge = &mut config.edge;
    edge.aliases.clone_from(&args.alias);
    edge.access_host.clone_from(&args.access_host);
    edge.flow_timer = Some(args.flow_timer).filter(|seconds| *seconds > 0);
    edge.flow_grace = Duration::from_secs(args.flow_grace);
    edge.unregistered_timeout = Duration::from_secs(args.unregistered_timeout);
    edge.require_path = !args.without_path;
    edge.max_flows = args.max_connections;
    edge.max_server_transactions = args.max_transactions;
    edge.max_client_transactions = args.max_transactions;
    edge.sec_agree = match args.sec_agree {
        AgreeArg::Off => None,
        agree => Some(EdgeSecAgree {
            mechanisms: SecMechanisms::parse("tls;q=0.1")?,
            required: matches!(agree, AgreeArg::Required),
        }),
    };
    if let Some(pcscf) = &mut edge.pcscf {
        pcscf.nat_expires = Some(args.nat_expires).filter(|seconds| *seconds > 0);
        pcscf.service_route = match args.service_route {
            RouteArg::Off => ServiceRouteCheck::Off,
            RouteArg::Refuse => ServiceRouteCheck::Refuse,
            RouteArg::Replace => ServiceRouteCheck::Replace,
        };
    }
    edge.token_key = args.token_key.as_deref().map(token_key).transpose()?;
    Ok(config)
}

fn home(args: &Args) -> Option<HomeConfig> {
    let realm = args.domain.first()?;
    let mut registrar = RegistrarConfig::new(realm.clone());
    registrar.domains.clone_from(&args.domain);
    if let Some(digest) = &mut registrar.digest {
        digest.algorithms = match args.digest {
            DigestArg::Md5 => vec![Algorithm::MD5],
            DigestArg::Sha256 => vec![Algorithm::SHA256],
            DigestArg::Both => vec![Algorithm::SHA256, Algorithm::MD5],
        };
    }
    (registrar.min_expires, registrar.max_expires) = args.expires;
    registrar.default_expires = registrar.max_expires;
    registrar.max_total = args.max_bindings;
    let mut home = HomeConfig::new(registrar);
    home.max_server_transactions = args.max_transactions;
    home.max_client_transactions = args.max_transactions;
    Some(home)
}

fn token_key(file: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("token key file {}", file.display()))?;
    let digits = text.trim();
    anyhow::ensure!(
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "a token key is 64 hex digits"
    );
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16)?;
    }
    Ok(key)
}

/// One line for each thing that happens.
fn tell(json: bool, notice: &Notice) {
    let line = match notice {
        Notice::Accepted(conn, from) => {
            tracing::debug!(conn = conn.0, %from, "accepted");
            return;
        }
        Notice::Refused(from, why) => {
            json!({ "type": "refused", "from": from.to_string(), "why": why })
        }
        Notice::Event(event) => match event {
            PcscfEvent::Ready { conn, alpn, name } => {
                let alpn = alpn.as_ref().map(|alpn| String::from_utf8_lossy(alpn));
                tracing::debug!(conn = conn.0, ?alpn, ?name, "ready");
                return;
            }
            PcscfEvent::Http { conn } => json!({ "type": "http", "conn": conn.0 }),
            PcscfEvent::Registered { conn, aor } => {
                json!({ "type": "registered", "conn": conn.0, "aor": aor.as_str() })
            }
            PcscfEvent::Unregistered { conn } => {
                json!({ "type": "unregistered", "conn": conn.0 })
            }
            PcscfEvent::Bindings { aor, count } => {
                json!({ "type": "bindings", "aor": aor.as_str(), "count": count })
            }
            PcscfEvent::BindingLost { aor, .. } => {
                json!({ "type": "binding-lost", "aor": aor.as_str() })
            }
            PcscfEvent::ResponseLost { flow } => {
                json!({ "type": "response-lost", "flow": flow.0 })
            }
            PcscfEvent::NoRoute { host } => json!({ "type": "no-route", "host": host }),
            PcscfEvent::Closed { conn, cause } => {
                let failed = is_failure(cause);
                json!({ "type": "closed", "conn": conn.0, "why": cause.to_string(), "failed": failed })
            }
            PcscfEvent::Stopped => json!({ "type": "stopped" }),
            other => json!({ "type": "other", "event": format!("{other:?}") }),
        },
    };
    print(json, &line);
}

fn print(json: bool, value: &Value) {
    say(&if json {
        value.to_string()
    } else {
        in_words(value)
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
