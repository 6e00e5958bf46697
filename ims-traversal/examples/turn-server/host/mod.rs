//! The host of `turn_proto::server`: sockets, threads and time around the machine.
//!
//! Each worker is a thread with a machine of its own. Workers share no state on the data path: the
//! kernel spreads clients over them by the hash of the five-tuple (`SO_REUSEPORT`), each has its
//! own range of relay ports, and what they have in common is the secret of nonces and tokens, the
//! users, and the count of allocations.
//!
//! Made for Linux; other Unix systems send each datagram by itself and hear of no ICMP errors.
#![allow(dead_code, unused_imports, reason = "each program uses its part")]
#![allow(unreachable_pub, reason = "a module of programs, not of a library")]

mod account;
mod datagrams;
mod peers;
pub mod sockets;
mod splice;
mod stream;
mod streams;
pub mod udp;
pub mod users;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rustls::ServerConfig as TlsConfig;
use stun_proto::{FiveTuple, Instant, Transport};
use turn_proto::server::{Redirect, ServerConfig, SharedKeys};
use turn_proto::wire::AddressFamily;

pub use self::account::{Counts, Gauge, Snapshot};
use self::stream::Stream;
pub use self::users::{HostUsers, Keys, Quota};
use self::worker::Worker;

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// UDP, TCP or TLS.
    pub transport: Transport,
    pub at: SocketAddr,
}

/// One address relays are opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    pub ip: IpAddr,
    /// What peers are told instead, when a NAT translates it.
    pub external: Option<IpAddr>,
}

impl RelayAddress {
    fn is(&self, family: AddressFamily) -> bool {
        AddressFamily::of(self.ip) == family
    }
}

/// What a host is made of.
#[derive(Debug)]
pub struct HostConfig {
    /// For each worker. Ports and streams are shared out among them; of allocations the quota
    /// decides, and nothing here.
    pub server: ServerConfig,
    pub listen: Vec<Listen>,
    pub relays: Vec<RelayAddress>,
    /// Threads, 1 to 256.
    pub workers: usize,
    /// Needed to listen for TLS.
    pub tls: Option<Arc<TlsConfig>>,
    pub buffers: sockets::Buffers,
    pub spread: sockets::Spread,
    /// The secret that servers of several machines share; made for the moment without one.
    pub secret: Option<[u8; 32]>,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Users from now on; allocations of others end when they are not refreshed.
    Users(Arc<Keys>),
    /// The certificate of new connections.
    Tls(Arc<TlsConfig>),
    /// New allocations are sent elsewhere, or no longer.
    Redirect(Option<Redirect>),
    /// A data connection whose peer is this worker's.
    Adopt(Box<Adopted>),
    /// Ends everything.
    Stop,
}

/// A stream that changes workers.
#[derive(Debug)]
pub struct Adopted {
    stream: Stream,
    at: FiveTuple,
    /// Clear bytes that no machine has taken in.
    bytes: Vec<u8>,
}

/// How a worker is reached.
#[derive(Clone, Debug)]
pub struct Mailbox {
    commands: mpsc::Sender<Command>,
    waker: Arc<mio::Waker>,
}

impl Mailbox {
    /// Hands a command over; a worker that has ended gets none.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// The time machines are told: seconds since 1970 when the program started, and a clock that is
/// never set from then on. Servers that share a secret have the same beginning.
pub fn now() -> Instant {
    static START: OnceLock<(std::time::Instant, Duration)> = OnceLock::new();
    let (start, base) = START.get_or_init(|| (std::time::Instant::now(), unix_time()));
    Instant::ZERO + *base + start.elapsed()
}

/// The time of day, since 1970.
pub fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// A running server.
#[derive(Debug)]
pub struct Host {
    mailboxes: Vec<Mailbox>,
    threads: Vec<JoinHandle<()>>,
    gauges: Vec<Gauge>,
    quota: Arc<Quota>,
    listening: Vec<Listen>,
}

impl Host {
    /// Opens the listeners and starts the workers.
    pub fn start(config: HostConfig, keys: Keys, quota: Quota) -> Result<Self> {
        anyhow::ensure!((1..=256).contains(&config.workers), "1 to 256 workers");
        let quota = Arc::new(quota);
        let keys = Arc::new(keys);
        let (mut sockets, listening) = open(&config)?;
        let secret = config.secret.unwrap_or_else(random);
        let mut polls = Vec::new();
        let mut mailboxes = Vec::new();
        let mut inboxes = Vec::new();
        for _ in 0..config.workers {
            let poll = mio::Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), worker::Source::Waker.token())?;
            let (commands, inbox) = mpsc::channel();
            let waker = Arc::new(waker);
            mailboxes.push(Mailbox { commands, waker });
            polls.push(poll);
            inboxes.push(inbox);
        }
        let mut threads = Vec::new();
        let mut gauges = Vec::new();
        for (index, (poll, inbox)) in polls.into_iter().zip(inboxes).enumerate().rev() {
            let users = HostUsers {
                keys: Arc::clone(&keys),
                quota: Arc::clone(&quota),
            };
            let gauge = Gauge::default();
            let seed = worker::Seed {
                index,
                server: server_config(&config, index, secret, &listening, &quota)?,
                relays: relays_of(&config.relays, config.workers, index),
                tls: config.tls.clone(),
                buffers: config.buffers,
                mailboxes: mailboxes.clone(),
                gauge: gauge.clone(),
                sockets: sockets.pop().unwrap_or_default(),
                shares_key: config.secret.is_some(),
            };
            gauges.insert(0, gauge);
            let mut worker = Worker::new(seed, users, poll, inbox)?;
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || worker.run())?);
        }
        Ok(Self {
            mailboxes,
            threads,
            gauges,
            quota,
            listening,
        })
    }

    /// Where it listens: wildcards replaced by addresses, and port 0 by the real one.
    pub fn listening(&self) -> &[Listen] {
        &self.listening
    }

    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Whether a worker has ended without being told to: a bug, after which the kernel goes on
    /// handing clients to nobody.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// What each worker last showed of itself.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.gauges.iter().map(Gauge::get).collect()
    }

    /// Tells every worker.
    pub fn tell(&self, command: impl Fn() -> Command) {
        for mailbox in &self.mailboxes {
            mailbox.send(command());
        }
    }

    /// Ends everything, and waits for it.
    pub fn stop(&mut self) {
        self.tell(|| Command::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The listening sockets of one worker.
#[derive(Debug, Default)]
pub struct Sockets {
    pub udp: Vec<std::net::UdpSocket>,
    pub tcp: Vec<(std::net::TcpListener, Transport)>,
}

fn open(config: &HostConfig) -> Result<(Vec<Sockets>, Vec<Listen>)> {
    let mut all: Vec<Sockets> = Vec::new();
    all.resize_with(config.workers, Sockets::default);
    let mut listening = Vec::new();
    for relay in &config.relays {
        sockets::is_free(SocketAddr::new(relay.ip, 0), false)
            .with_context(|| format!("relays on {}", relay.ip))?;
    }
    for listen in &config.listen {
        let found = sockets::expand(listen.at)?;
        anyhow::ensure!(
            !found.is_empty(),
            "{} {}: this host has no such address",
            listen.transport,
            listen.at
        );
        for at in found {
            let mut entry = Listen { at, ..*listen };
            sockets::is_free(at, listen.transport.is_stream())
                .with_context(|| format!("{} {at}", listen.transport))?;
            for (index, own) in all.iter_mut().enumerate() {
                let first = index == 0;
                let opened = open_one(config, own, entry, first);
                entry.at = opened.with_context(|| format!("{} {at}", listen.transport))?;
            }
            listening.push(entry);
        }
    }
    Ok((all, listening))
}

fn open_one(
    config: &HostConfig,
    own: &mut Sockets,
    listen: Listen,
    first: bool,
) -> Result<SocketAddr> {
    let Listen { transport, at } = listen;
    let by_address = first && config.spread == sockets::Spread::Address;
    match transport {
        Transport::Udp => {
            let socket = sockets::udp_listener(at, config.buffers.listener)?;
            let local = socket.local_addr()?;
            if by_address {
                sockets::spread_by_address(&socket, at.is_ipv4(), config.workers)?;
            }
            own.udp.push(socket);
            Ok(local)
        }
        Transport::Tls if config.tls.is_none() => anyhow::bail!("no certificate"),
        Transport::Tcp | Transport::Tls => {
            let socket = sockets::tcp_listener(at)?;
            let local = socket.local_addr()?;
            if by_address {
                sockets::spread_by_address(&socket, at.is_ipv4(), config.workers)?;
            }
            own.tcp.push((socket, transport));
            Ok(local)
        }
        _ => anyhow::bail!("cannot listen for this transport"),
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// The machine's part of the configuration, for one worker.
fn server_config(
    config: &HostConfig,
    index: usize,
    secret: [u8; 32],
    listening: &[Listen],
    quota: &Quota,
) -> Result<ServerConfig> {
    let mut server = config.server.clone();
    server.ports = ports_of(&config.server.ports, &config.relays, config.workers, index)
        .context("too few relay ports for so many workers")?;
    let own = relays_of(&config.relays, config.workers, index);
    let count = |family| own.iter().filter(|relay| relay.is(family)).count();
    server.addresses_v4 = u16::try_from(count(AddressFamily::V4)).unwrap_or(u16::MAX);
    server.addresses_v6 = u16::try_from(count(AddressFamily::V6)).unwrap_or(u16::MAX);
    server.listeners.extend(listening.iter().map(|l| l.at));
    server.instance = u8::try_from(index).ok();
    server.shared_keys = Some(SharedKeys::new(secret));
    server.limits.allocations = quota.total;
    server.limits.allocations_per_user = quota.per_user;
    server.limits.streams = config.server.limits.streams.div_ceil(config.workers);
    Ok(server)
}

/// How many addresses the family with the fewer has, if it has any.
fn fewest(relays: &[RelayAddress]) -> usize {
    let v4 = relays.iter().filter(|relay| relay.ip.is_ipv4()).count();
    match (v4, relays.len() - v4) {
        (0, n) | (n, 0) => n.max(1),
        (n, m) => n.min(m),
    }
}

/// The addresses that a worker opens relays on: of each family its share, or one that it has in
/// common with other workers.
fn relays_of(relays: &[RelayAddress], workers: usize, index: usize) -> Vec<RelayAddress> {
    let mut own = Vec::new();
    for family in [AddressFamily::V4, AddressFamily::V6] {
        let all: Vec<_> = relays.iter().filter(|relay| relay.is(family)).collect();
        let first = index % all.len().max(1);
        own.extend(all.into_iter().skip(first).step_by(workers));
    }
    own
}

/// A worker's ports: workers on one address have different ones, and each begins with an even one.
fn ports_of(
    ports: &RangeInclusive<u16>,
    relays: &[RelayAddress],
    workers: usize,
    index: usize,
) -> Option<RangeInclusive<u16>> {
    let addresses = fewest(relays);
    let parts = workers.div_ceil(addresses);
    if parts == 1 {
        return Some(ports.clone());
    }
    let first = usize::from(ports.start().next_multiple_of(2));
    let room = (usize::from(*ports.end()) + 1).checked_sub(first)?;
    let each = room / parts / 2 * 2;
    if each < 2 {
        return None;
    }
    let start = first + index / addresses * each;
    let end = start + each - 1;
    Some(u16::try_from(start).ok()?..=u16::try_from(end).ok()?)
}

#[cfg(test)]
mod tests;
