//! The command line: a configuration file, and what overrides it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::config::{Config, Format, Preset, Spread};

/// A TURN server (RFC 8656, 6062) that relays UDP and TCP to clients over UDP, TCP and TLS.
///
/// Without --config, everything not given here has its default. SIGHUP reads users and
/// certificates again, SIGTERM lets the allocations end and no new ones begin.
#[derive(Debug, Default, Parser)]
#[command(name = "turn-server", version)]
pub struct Args {
    /// The configuration, a TOML file; flags given here win.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Reads everything, says what is wrong, and starts nothing.
    #[arg(long)]
    pub check_config: bool,
    /// Where to listen for UDP; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    udp: Vec<SocketAddr>,
    /// Where to listen for TCP; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    tcp: Vec<SocketAddr>,
    /// Where to listen for TLS; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    tls: Vec<SocketAddr>,
    /// The certificate chain, a PEM file.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, a PEM file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// An address relays are opened on; may be given several times.
    #[arg(long, value_name = "IP")]
    relay: Vec<IpAddr>,
    /// What peers are told instead of the relay's address, when a NAT translates it.
    #[arg(long, value_name = "IP")]
    external: Option<IpAddr>,
    /// Relays connections as well (RFC 6062).
    #[arg(long)]
    relay_tcp: bool,
    /// The realm users belong to.
    #[arg(long)]
    realm: Option<String>,
    /// A user, NAME:PASSWORD or NAME:0xKEY; may be given several times.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// A file with one NAME:PASSWORD in each line.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// The secret shared with the service that makes time-limited names.
    #[arg(
        long,
        value_name = "SECRET",
        env = "TURN_SECRET",
        hide_env_values = true
    )]
    secret: Vec<String>,
    /// Which peers may be reached.
    #[arg(long, value_enum)]
    peers: Option<Preset>,
    /// Peers that may be reached whatever --peers says, ADDR[/BITS].
    #[arg(long, value_name = "PREFIX")]
    allow: Vec<String>,
    /// Peers that may not be reached, ADDR[/BITS]. The server's own addresses never are, unless
    /// allowed by name.
    #[arg(long, value_name = "PREFIX")]
    deny: Vec<String>,
    /// Allocations in all.
    #[arg(long)]
    max_allocations: Option<usize>,
    /// Allocations of one user.
    #[arg(long)]
    max_per_user: Option<usize>,
    /// Takes channel numbers up to 0x7FFF, as clients of RFC 5766 use.
    #[arg(long)]
    rfc5766_channels: bool,
    /// How clients are spread over the workers.
    #[arg(long, value_enum)]
    spread: Option<Spread>,
    /// Threads; 0 is one for each core.
    #[arg(long)]
    workers: Option<usize>,
    /// Where to show metrics.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Seconds that allocations have after SIGTERM.
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// Writes JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The file with these flags in place of its values. A list given here replaces a list there.
    pub fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(file) => Config::read(file)?,
            None => Config::default(),
        };
        replace(&mut config.listen.udp, &self.udp);
        replace(&mut config.listen.tcp, &self.tcp);
        replace(&mut config.listen.tls, &self.tls);
        replace(&mut config.relay.addresses, &self.relay);
        replace(&mut config.users.list, &self.user);
        replace(&mut config.users.secrets, &self.secret);
        replace(&mut config.peers.allow, &self.allow);
        replace(&mut config.peers.deny, &self.deny);
        set(&mut config.tls.certificate, &self.cert.clone().map(Some));
        set(&mut config.tls.key, &self.key.clone().map(Some));
        set(&mut config.users.file, &self.users.clone().map(Some));
        set(&mut config.users.realm, &self.realm);
        set(&mut config.peers.preset, &self.peers);
        set(&mut config.limits.allocations, &self.max_allocations);
        set(&mut config.limits.allocations_per_user, &self.max_per_user);
        set(&mut config.workers, &self.workers);
        set(&mut config.listen.spread, &self.spread);
        set(&mut config.metrics.listen, &self.metrics.map(Some));
        set(&mut config.drain.seconds, &self.drain);
        config.relay.tcp |= self.relay_tcp;
        config.protocol.rfc5766_channels |= self.rfc5766_channels;
        if let Some(external) = self.external {
            let same = |ip: &&IpAddr| ip.is_ipv4() == external.is_ipv4();
            let translated = config.relay.addresses.iter().filter(same);
            config.relay.external = translated.map(|ip| (*ip, external)).collect();
        }
        if self.json {
            config.log.format = Format::Json;
        }
        Ok(config)
    }
}

fn replace<T: Clone>(value: &mut Vec<T>, given: &[T]) {
    if !given.is_empty() {
        *value = given.to_vec();
    }
}

fn set<T: Clone>(value: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        value.clone_from(given);
    }
}
