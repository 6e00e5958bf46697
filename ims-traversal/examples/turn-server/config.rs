//! The configuration file, the flags that override it, and what both make.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The whole file. Unknown keys are errors, so that none is silently without effect.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads with a machine and sockets each; 0 is one for each core.
    pub workers: usize,
    pub listen: Listeners,
    pub tls: Tls,
    pub relay: Relays,
    pub users: Users,
    pub peers: Peers,
    pub limits: Limits,
    pub protocol: Protocol,
    pub redirect: Redirect,
    pub drain: Drain,
    pub metrics: Metrics,
    pub log: Log,
    pub shared: Shared,
}

/// Addresses with ports; a wildcard stands for all addresses of the host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listeners {
    pub udp: Vec<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    pub tls: Vec<SocketAddr>,
    /// Bytes the kernel keeps for each UDP listener and worker.
    pub socket_buffer: Option<usize>,
    pub spread: Spread,
}

/// How clients are spread over the workers.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// By addresses and ports.
    #[default]
    Flow,
    /// By the client's address.
    Address,
}

/// PEM files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relays {
    /// One or more of each family.
    pub addresses: Vec<IpAddr>,
    /// What peers are told instead of an address.
    pub external: BTreeMap<IpAddr, IpAddr>,
    /// The first and the last port.
    pub ports: (u16, u16),
    pub udp: bool,
    pub tcp: bool,
    pub dont_fragment: bool,
    /// Bytes the kernel keeps for each relay.
    pub socket_buffer: Option<usize>,
}

impl Default for Relays {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            external: BTreeMap::new(),
            ports: (49_152, 65_535),
            udp: true,
            tcp: false,
            dont_fragment: cfg!(target_os = "linux"),
            socket_buffer: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    pub realm: String,
    /// NAME:PASSWORD or NAME:0xKEY.
    pub list: Vec<String>,
    /// A file with one of them in each line.
    pub file: Option<PathBuf>,
    /// Shared secrets, the one in use first.
    pub secrets: Vec<String>,
    /// A file with one secret in each line.
    pub secrets_file: Option<PathBuf>,
    pub secret_hash: Hash,
    /// Seconds a name may still have.
    pub secret_longest: Option<u64>,
    pub secret_separator: char,
    pub refresh_after_expiry: bool,
    pub algorithms: Vec<Algorithm>,
    pub anonymity: bool,
}

impl Default for Users {
    fn default() -> Self {
        Self {
            realm: String::new(),
            list: Vec::new(),
            file: None,
            secrets: Vec::new(),
            secrets_file: None,
            secret_hash: Hash::default(),
            secret_longest: None,
            secret_separator: ':',
            refresh_after_expiry: false,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            anonymity: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    #[default]
    Sha1,
    Sha256,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    Md5,
    Sha256,
}

/// Which peers may be reached where the lists say nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Every address of the public Internet, nothing special.
    #[default]
    Public,
    /// Nothing but what is allowed by name.
    Listed,
    /// Everything, private and loopback addresses included: for laboratories.
    Any,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    pub preset: Preset,
    /// ADDR or ADDR/BITS.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub allocations: usize,
    pub allocations_per_user: usize,
    pub permissions: usize,
    pub channels: usize,
    pub streams: usize,
    pub reservations: usize,
    pub peer_connections: usize,
    pub pending_connects: usize,
    pub unbound_connections: usize,
    /// Bytes per second, of each worker.
    pub user_bandwidth: u64,
    pub unverified_per_second: u16,
    pub proven_per_second: u16,
    pub default_lifetime: u64,
    pub max_lifetime: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = turn_proto::server::Limits::default();
        Self {
            allocations: limits.allocations,
            allocations_per_user: limits.allocations_per_user,
            permissions: limits.permissions,
            channels: limits.channels,
            streams: limits.streams,
            reservations: limits.reservations,
            peer_connections: limits.peer_connections,
            pending_connects: limits.pending_connects,
            unbound_connections: limits.unbound_connections,
            user_bandwidth: limits.user_bandwidth,
            unverified_per_second: 10,
            proven_per_second: 1000,
            default_lifetime: 600,
            max_lifetime: 3600,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protocol {
    /// What SOFTWARE says; nothing by default.
    pub software: Option<String>,
    pub rfc5766_channels: bool,
    pub mobility: bool,
    pub tunnelled_clients: bool,
    pub shortest_unverified: usize,
}

/// Whom clients are to ask instead.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    pub v4: Option<SocketAddr>,
    pub v6: Option<SocketAddr>,
    pub domain: Option<String>,
    /// With so many allocations and more.
    pub above: Option<usize>,
}

/// What happens after SIGTERM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    pub answer: Answer,
    /// Seconds until the allocations that are left are ended; 0 ends them at once.
    pub seconds: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            answer: Answer::Capacity,
            seconds: 3600,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// 300, and those of `[redirect]`; 508 to families without one.
    Redirect,
    /// 486.
    Quota,
    /// 508.
    Capacity,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: Format,
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: Format::default(),
            filter: "info".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What several servers have in common.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shared {
    /// A file with 64 hexadecimal digits.
    pub secret_file: Option<PathBuf>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, with line and key.
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", file.display()))
    }

    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

#[cfg(test)]
mod tests;
