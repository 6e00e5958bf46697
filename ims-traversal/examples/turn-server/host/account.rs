//! What is counted, and the line that is written when an allocation ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stun_proto::{FiveTuple, Instant};
use turn_proto::server::{Event, RelayId, Stats};

/// Counters of a worker's sockets. Plain numbers: the worker publishes them once a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Datagrams from clients over UDP.
    pub from_clients: u64,
    pub to_peers: u64,
    pub from_peers: u64,
    /// Datagrams with data to clients, over UDP and streams.
    pub to_clients: u64,
    /// Datagrams the kernel did not take.
    pub unsent: u64,
    /// Datagrams for clients whose stream had too much waiting.
    pub dropped: u64,
    pub icmp: u64,
    pub accepted: u64,
    /// Streams that were handed to the worker their connection belongs to.
    pub handed_over: u64,
    pub tls_failures: u64,
    pub created: u64,
    pub ended: u64,
    /// Bytes of spliced connections.
    pub spliced: u64,
}

/// What a worker shows of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    pub counts: Counts,
    pub stats: Stats,
    pub allocations: usize,
    pub relays: usize,
    pub streams: usize,
    pub peers: usize,
}

/// Where it can be seen.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Mutex<Snapshot>>);

impl Gauge {
    pub fn set(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    pub fn get(&self) -> Snapshot {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is remembered of an allocation for its line.
#[derive(Debug)]
struct Record {
    client: FiveTuple,
    username: Vec<u8>,
    relayed: std::net::SocketAddr,
    since: Instant,
    /// Bytes of its spliced connections.
    tcp_to_peers: u64,
    tcp_to_client: u64,
}

/// How often failed logins are written, one of all there are.
const LOGIN_LINES: Duration = Duration::from_secs(1);

/// The allocations of a worker, for accounting.
#[derive(Debug, Default)]
pub struct Accounts {
    open: HashMap<RelayId, Record>,
    /// When a failed login may be written again, and how many have not been meanwhile.
    logins: (Option<Instant>, u64),
}

impl Accounts {
    /// Adds the bytes of a connection that has ended.
    pub fn spliced(&mut self, relay: RelayId, to_peers: u64, to_client: u64) {
        if let Some(record) = self.open.get_mut(&relay) {
            record.tcp_to_peers += to_peers;
            record.tcp_to_client += to_client;
        }
    }

    /// Writes what is worth a line.
    pub fn event(&mut self, now: Instant, event: Event, counts: &mut Counts) {
        match event {
            Event::LoginFailed { client, username } => {
                let (next, unwritten) = &mut self.logins;
                if next.is_some_and(|next| now < next) {
                    *unwritten += 1;
                    return;
                }
                tracing::warn!(
                    client = %client.remote, transport = %client.transport,
                    user = %Name(&username), unwritten = *unwritten, "login failed"
                );
                self.logins = (now.checked_add(LOGIN_LINES), 0);
            }
            Event::AllocationCreated {
                relay,
                client,
                username,
                relayed,
            } => {
                counts.created += 1;
                tracing::debug!(
                    relay = relay.0, client = %client.remote, transport = %client.transport,
                    user = %Name(&username), %relayed, "allocated"
                );
                let record = Record {
                    client,
                    username,
                    relayed,
                    since: now,
                    tcp_to_peers: 0,
                    tcp_to_client: 0,
                };
                self.open.insert(relay, record);
            }
            Event::AllocationDeleted {
                relay,
                reason,
                to_peers,
                to_client,
            } => {
                counts.ended += 1;
                let Some(record) = self.open.remove(&relay) else {
                    return;
                };
                tracing::info!(
                    target: "accounting",
                    relay = relay.0,
                    user = %Name(&record.username),
                    client = %record.client.remote,
                    server = %record.client.local,
                    transport = %record.client.transport,
                    relayed = %record.relayed,
                    seconds = now.duration_since(record.since).as_secs(),
                    bytes_to_peers = to_peers + record.tcp_to_peers,
                    bytes_to_client = to_client + record.tcp_to_client,
                    reason = ?reason,
                    "ended"
                );
            }
            Event::AllocationMoved { relay, path } => {
                tracing::debug!(relay = relay.0, ?path, "moved");
            }
            _ => {}
        }
    }
}

/// A user name in a log: 64 characters of it at most, with nothing that could pretend to be a line.
struct Name<'a>(&'a [u8]);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(64)];
        write!(f, "{}", shown.escape_ascii())
    }
}
