//! From a configuration to what the host is made of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::ServerConfig as TlsConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use stun_proto::Transport;
use stun_proto::limit::RateLimit;
use stun_proto::wire::{PasswordAlgorithmId, PasswordAlgorithms};
use turn_proto::policy::{self, Prefix};
use turn_proto::server::{self, RestHash, RestUsers, ServerConfig, StaticUsers};

use crate::config::{Algorithm, Answer, Config, Hash, Preset, Spread};
use crate::host::{HostConfig, Keys, Listen, Quota, RelayAddress, sockets};

/// Everything the host is started with.
pub struct Setup {
    pub host: HostConfig,
    pub keys: Keys,
    pub quota: Quota,
}

impl Setup {
    /// Checks everything and reads all files.
    pub fn new(config: &Config) -> Result<Self> {
        let listen = listeners(config);
        ensure!(
            !listen.is_empty(),
            "nowhere to listen: give udp, tcp or tls"
        );
        ensure!(!config.relay.addresses.is_empty(), "no address for relays");
        ensure!(
            config.drain.answer != Answer::Redirect || redirect(config).is_some(),
            "drain.answer is \"redirect\", but there is no [redirect] address"
        );
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        ensure!(
            !config.protocol.mobility || workers == 1,
            "protocol.mobility needs workers = 1: a client that has moved may come to any worker"
        );
        let tls = tls(config)?;
        ensure!(
            tls.is_some() || config.listen.tls.is_empty(),
            "listen.tls needs tls.certificate and tls.key"
        );
        let host = HostConfig {
            server: server_config(config, &listen)?,
            listen,
            relays: relays(config)?,
            workers: workers.min(256),
            tls,
            buffers: sockets::Buffers {
                listener: config.listen.socket_buffer,
                relay: config.relay.socket_buffer,
            },
            spread: match config.listen.spread {
                Spread::Flow => sockets::Spread::Flow,
                Spread::Address => sockets::Spread::Address,
            },
            secret: secret(config)?,
        };
        let limits = &config.limits;
        Ok(Self {
            host,
            keys: keys(config)?,
            quota: Quota::new(limits.allocations_per_user, limits.allocations),
        })
    }
}

fn listeners(config: &Config) -> Vec<Listen> {
    let of = |transport: Transport, all: &[SocketAddr]| -> Vec<Listen> {
        all.iter().map(|at| Listen { transport, at: *at }).collect()
    };
    let mut listen = of(Transport::Udp, &config.listen.udp);
    listen.extend(of(Transport::Tcp, &config.listen.tcp));
    listen.extend(of(Transport::Tls, &config.listen.tls));
    listen
}

fn relays(config: &Config) -> Result<Vec<RelayAddress>> {
    for (inner, outer) in &config.relay.external {
        ensure!(
            config.relay.addresses.contains(inner) && inner.is_ipv4() == outer.is_ipv4(),
            "relay.external: {inner} is not one of relay.addresses, or {outer} of another family"
        );
    }
    let relay = |ip: &IpAddr| RelayAddress {
        ip: *ip,
        external: config.relay.external.get(ip).copied(),
    };
    let relays: Vec<RelayAddress> = config.relay.addresses.iter().map(relay).collect();
    let wildcard = relays.iter().any(|relay| relay.ip.is_unspecified());
    ensure!(
        !wildcard,
        "relay.addresses: a wildcard is no address of a relay"
    );
    Ok(relays)
}

fn server_config(config: &Config, listen: &[Listen]) -> Result<ServerConfig> {
    let mut server = ServerConfig::new(config.users.realm.clone());
    let algorithms = &config.users.algorithms;
    server.auth.password_algorithms = match algorithms.as_slice() {
        [Algorithm::Md5] => None,
        [Algorithm::Sha256, Algorithm::Md5] => Some(PasswordAlgorithms::SHA256_MD5),
        _ => anyhow::bail!("users.algorithms is [\"sha256\", \"md5\"] or [\"md5\"]"),
    };
    server.auth.username_anonymity = config.users.anonymity;
    let (first, last) = config.relay.ports;
    server.ports = first..=last;
    server.relay_udp = config.relay.udp;
    server.relay_tcp = config.relay.tcp;
    server.dont_fragment = config.relay.dont_fragment;
    server.software.clone_from(&config.protocol.software);
    server.rfc5766_channels = config.protocol.rfc5766_channels;
    server.mobility = config.protocol.mobility;
    server.tunnelled_clients = config.protocol.tunnelled_clients;
    server.shortest_unverified = config.protocol.shortest_unverified;
    let limits = &config.limits;
    server.unverified = RateLimit {
        per_second: limits.unverified_per_second,
        proven_per_second: limits.proven_per_second,
    };
    server.default_lifetime = Duration::from_secs(limits.default_lifetime);
    server.max_lifetime = Duration::from_secs(limits.max_lifetime);
    server.limits = server::Limits {
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
        ..server::Limits::default()
    };
    server.peers = peers(config, listen)?;
    server.check()?;
    Ok(server)
}

/// The policy. Addresses of the server are no peers unless they are allowed by name: other programs
/// run there.
fn peers(config: &Config, listen: &[Listen]) -> Result<policy::PeerPolicy> {
    let prefixes = |texts: &[String], key: &str| -> Result<Vec<Prefix>> {
        let parse = |text: &String| {
            let prefix = text.parse::<Prefix>();
            prefix.with_context(|| format!("{key}: {text:?}"))
        };
        texts.iter().map(parse).collect()
    };
    let mut policy = policy::PeerPolicy {
        preset: match config.peers.preset {
            Preset::Public => policy::Preset::Public,
            Preset::Listed => policy::Preset::ListedOnly,
            Preset::Any => policy::Preset::Any,
        },
        allow: prefixes(&config.peers.allow, "peers.allow")?,
        deny: prefixes(&config.peers.deny, "peers.deny")?,
    };
    if config.peers.preset != Preset::Any {
        for listen in listen {
            for at in sockets::expand(listen.at)? {
                let bits = if at.is_ipv4() { 32 } else { 128 };
                policy.deny.extend(Prefix::new(at.ip(), bits));
            }
        }
    }
    Ok(policy)
}

/// The certificate, if there is one.
pub fn tls(config: &Config) -> Result<Option<Arc<TlsConfig>>> {
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) else {
        return Ok(None);
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("certificate file {}", certificate.display()))?;
    ensure!(
        !chain.is_empty(),
        "no certificate in {}",
        certificate.display()
    );
    let key =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("key file {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key")?;
    // RFC 7443.
    tls.alpn_protocols = vec![b"stun.turn".to_vec(), b"stun.nat-discovery".to_vec()];
    Ok(Some(Arc::new(tls)))
}

/// The users of list, file and shared secret.
pub fn keys(config: &Config) -> Result<Keys> {
    let users = &config.users;
    let mut listed = StaticUsers::new(users.realm.clone());
    let mut count = 0;
    for (line, place) in lines(&users.list, "users.list", users.file.as_deref())? {
        let (name, password) = line
            .split_once(':')
            .filter(|(name, _)| !name.is_empty())
            .with_context(|| format!("{place}: a user is NAME:PASSWORD"))?;
        count += 1;
        match password.strip_prefix("0x").map(hex) {
            Some(Some(key)) if key.len() == 16 => {
                ensure!(
                    users.algorithms == [Algorithm::Md5],
                    "{place}: user {name}: an MD5 key needs users.algorithms = [\"md5\"]"
                );
                listed.add_key(name, PasswordAlgorithmId::MD5, &key);
            }
            Some(Some(key)) if key.len() == 32 => {
                listed.add_key(name, PasswordAlgorithmId::SHA256, &key);
            }
            Some(_) => anyhow::bail!("{place}: user {name}: a key has 32 or 64 hexadecimal digits"),
            None => listed.add(name, password),
        }
    }
    let secrets = lines(
        &users.secrets,
        "users.secrets",
        users.secrets_file.as_deref(),
    )?;
    ensure!(secrets.len() <= 4, "users.secrets: at most four");
    ensure!(
        count > 0 || !secrets.is_empty(),
        "no users and no shared secret"
    );
    // The first one is added last, so that it comes first.
    let mut rest: Option<RestUsers> = None;
    for (secret, _) in secrets.iter().rev() {
        match &mut rest {
            Some(rest) => rest.add_secret(secret.clone()),
            None => rest = Some(RestUsers::new(secret.clone())),
        }
    }
    if let Some(rest) = &mut rest {
        rest.hash = match users.secret_hash {
            Hash::Sha1 => RestHash::Sha1,
            Hash::Sha256 => RestHash::Sha256,
        };
        rest.longest = users.secret_longest;
        rest.separator = u8::try_from(users.secret_separator)
            .ok()
            .context("users.secret_separator is one ASCII character")?;
        rest.refresh_after_expiry = users.refresh_after_expiry;
    }
    Ok(Keys { listed, rest })
}

/// What is given under `key`, and the lines of a file that are not empty and no comment; and where
/// each stands.
fn lines(
    given: &[String],
    key: &str,
    file: Option<&std::path::Path>,
) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = given
        .iter()
        .zip(1..)
        .map(|(line, number)| (line.clone(), format!("{key}, entry {number}")))
        .collect();
    if let Some(file) = file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let lines = text.lines().zip(1..);
        all.extend(lines.map(|(line, number)| {
            let place = format!("{}, line {number}", file.display());
            (line.to_owned(), place)
        }));
    }
    all.retain(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'));
    Ok(all)
}

fn secret(config: &Config) -> Result<Option<[u8; 32]>> {
    let Some(file) = &config.shared.secret_file else {
        return Ok(None);
    };
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let secret = hex(text.trim()).and_then(|bytes| bytes.try_into().ok());
    secret
        .context("shared.secret_file holds 64 hexadecimal digits")
        .map(Some)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

/// Whom new clients are sent to, if there is somebody.
pub fn redirect(config: &Config) -> Option<server::Redirect> {
    let own = &config.redirect;
    (own.v4.is_some() || own.v6.is_some()).then(|| server::Redirect {
        v4: own.v4,
        v6: own.v6,
        domain: own.domain.clone(),
    })
}
