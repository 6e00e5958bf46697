//! TCP connections to peers (RFC 6062 section 4).

use core::net::SocketAddr;
use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use stun_proto::auth::LongTermClient;
use stun_proto::time::deadline;
use stun_proto::wire::Message;
use stun_proto::{Instant, Path, StreamId};

use super::requests::Request;
use super::{Action, Cause, ClientError, Core, Event, State as ClientState, Timer};
use crate::wire::{AddressFamily, ConnectionId, XorPeerAddress, code};

/// How long the server keeps a connection nobody has bound a stream to.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to leave a peer alone the server could not connect to.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A nonce older than this is renewed before a ConnectionBind depends on it: some servers take a
/// stale nonce there as a reason to drop the connection.
const NONCE_AGE: Duration = Duration::from_secs(300);

/// A connection to a peer, numbered by the client. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(u64);

#[derive(Debug)]
enum State {
    /// The server is asked to connect.
    Connecting,
    /// The peer has connected; the host has not decided yet.
    Offered([u8; 4]),
    /// The host has accepted it; the nonce is being renewed.
    Accepted([u8; 4]),
    /// The host is opening a stream for it.
    Opening([u8; 4]),
    /// ConnectionBind is under way, with nonces of its own.
    Binding([u8; 4], StreamId, Box<LongTermClient>),
    /// The stream leads to the peer.
    Open(StreamId),
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    state: State,
}

/// All connections of an allocation for TCP.
#[derive(Debug)]
pub(super) struct Connections {
    entries: BTreeMap<Connection, Entry>,
    by_stream: BTreeMap<StreamId, Connection>,
    /// Until when peers are left alone; no longer than `limit`.
    failed: BTreeMap<SocketAddr, Instant>,
    limit: usize,
    next: u64,
}

impl Connections {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_stream: BTreeMap::new(),
            failed: BTreeMap::new(),
            limit,
            next: 0,
        }
    }

    fn add(&mut self, peer: SocketAddr, state: State) -> Connection {
        let connection = Connection(self.next);
        self.next = self.next.wrapping_add(1);
        self.entries.insert(connection, Entry { peer, state });
        connection
    }

    pub(super) fn peer_of(&self, connection: Connection) -> Option<SocketAddr> {
        Some(self.entries.get(&connection)?.peer)
    }

    /// The stream of a connection.
    pub(super) fn stream_of(&self, connection: Connection) -> Option<StreamId> {
        match self.entries.get(&connection)?.state {
            State::Binding(_, stream, _) | State::Open(stream) => Some(stream),
            State::Connecting | State::Offered(_) | State::Accepted(_) | State::Opening(_) => None,
        }
    }

    /// What a ConnectionBind needs.
    pub(super) fn binding(&self, connection: Connection) -> Option<([u8; 4], &LongTermClient)> {
        match &self.entries.get(&connection)?.state {
            State::Binding(id, _, auth) => Some((*id, auth)),
            State::Connecting
            | State::Offered(_)
            | State::Accepted(_)
            | State::Opening(_)
            | State::Open(_) => None,
        }
    }

    pub(super) fn auth_mut(&mut self, connection: Connection) -> Option<&mut LongTermClient> {
        match &mut self.entries.get_mut(&connection)?.state {
            State::Binding(_, _, auth) => Some(auth),
            State::Connecting
            | State::Offered(_)
            | State::Accepted(_)
            | State::Opening(_)
            | State::Open(_) => None,
        }
    }

    pub(super) fn has_stream(&self, id: StreamId) -> bool {
        self.by_stream.contains_key(&id)
    }

    /// The connection a stream belongs to.
    pub(super) fn of_stream(&self, id: StreamId) -> Option<Connection> {
        self.by_stream.get(&id).copied()
    }

    /// The peer a stream leads to, once it does.
    pub(super) fn open_peer(&self, id: StreamId) -> Option<SocketAddr> {
        let entry = self.entries.get(self.by_stream.get(&id)?)?;
        matches!(entry.state, State::Open(_)).then_some(entry.peer)
    }
}

impl Core {
    pub(super) fn connect_peer(
        &mut self,
        now: Instant,
        peer: SocketAddr,
    ) -> Result<Connection, ClientError> {
        if !self.is_for_tcp() {
            return Err(ClientError::State);
        }
        if peer.port() == 0 {
            return Err(ClientError::Peer);
        }
        if self.connections.entries.values().any(|e| e.peer == peer) {
            return Err(ClientError::Connected);
        }
        let until = self.connections.failed.get(&peer);
        if until.is_some_and(|until| now < *until) {
            return Err(ClientError::TooEarly);
        }
        if self.connections.entries.len() >= self.connections.limit {
            return Err(ClientError::Limit);
        }
        let connection = self.connections.add(peer, State::Connecting);
        self.start(now, Request::Connect(connection));
        Ok(connection)
    }

    /// The server has connected to the peer.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        connection: Connection,
        id: Option<ConnectionId>,
    ) {
        let Some(ConnectionId(id)) = id else {
            return self.connection_failed(now, connection, Cause::Malformed);
        };
        self.nonce_at = now;
        self.timers
            .arm(Timer::Connection(connection), now, BIND_TIMEOUT);
        self.open_stream(connection, id);
    }

    fn open_stream(&mut self, connection: Connection, id: [u8; 4]) {
        if let Some(entry) = self.connections.entries.get_mut(&connection) {
            entry.state = State::Opening(id);
            self.actions.push_back(Action::OpenStream { connection });
        }
    }

    /// A peer has connected, so the server says.
    pub(super) fn connection_attempt(&mut self, now: Instant, message: &Message<'_>) {
        let (Some(XorPeerAddress(peer)), Some(ConnectionId(id))) = (message.find(), message.find())
        else {
            return self.count_dropped();
        };
        if !self.is_for_tcp() || !self.permissions.is_live(now, peer.ip()) {
            return self.count_not_permitted();
        }
        let known = |entry: &Entry| match entry.state {
            State::Offered(other) | State::Accepted(other) | State::Opening(other) => other == id,
            State::Binding(other, ..) => other == id,
            State::Connecting | State::Open(_) => false,
        };
        let full = self.connections.entries.len() >= self.connections.limit
            || self.events.len() >= self.config.max_events;
        if full || self.connections.entries.values().any(known) {
            return self.count_dropped();
        }
        let connection = self.connections.add(peer, State::Offered(id));
        self.timers
            .arm(Timer::Connection(connection), now, BIND_TIMEOUT);
        self.tell(Event::ConnectionAttempt { connection, peer });
    }

    pub(super) fn accept(
        &mut self,
        now: Instant,
        connection: Connection,
    ) -> Result<(), ClientError> {
        let entry = self.connections.entries.get_mut(&connection);
        let entry = entry.ok_or(ClientError::State)?;
        let State::Offered(id) = entry.state else {
            return Err(ClientError::State);
        };
        if now.duration_since(self.nonce_at) < NONCE_AGE || !self.auth.is_challenged() {
            self.open_stream(connection, id);
        } else {
            entry.state = State::Accepted(id);
            self.refresh(now);
        }
        Ok(())
    }

    /// The server has just accepted the nonce in use: streams that waited for that are opened.
    pub(super) fn nonce_is_fresh(&mut self, now: Instant) {
        self.nonce_at = now;
        let waiting = |(connection, entry): (&Connection, &Entry)| match entry.state {
            State::Accepted(id) => Some((*connection, id)),
            State::Connecting
            | State::Offered(_)
            | State::Opening(_)
            | State::Binding(..)
            | State::Open(_) => None,
        };
        let accepted: Vec<_> = self
            .connections
            .entries
            .iter()
            .filter_map(waiting)
            .collect();
        for (connection, id) in accepted {
            self.open_stream(connection, id);
        }
    }

    /// Forgets an attempt; the server drops it by itself.
    pub(super) fn ignore(&mut self, connection: Connection) -> Result<(), ClientError> {
        let entry = self.connections.entries.get(&connection);
        if !entry.is_some_and(|e| matches!(e.state, State::Offered(_))) {
            return Err(ClientError::State);
        }
        self.connections.entries.remove(&connection);
        self.timers.disarm(Timer::Connection(connection));
        Ok(())
    }

    pub(super) fn stream_opened(
        &mut self,
        now: Instant,
        connection: Connection,
        stream: StreamId,
    ) -> Result<(), ClientError> {
        let known = self.transport_known(Path::Stream(stream));
        let entry = self.connections.entries.get_mut(&connection);
        let entry = entry.ok_or(ClientError::State)?;
        let State::Opening(id) = entry.state else {
            return Err(ClientError::State);
        };
        if known {
            return Err(ClientError::State);
        }
        entry.state = State::Binding(id, stream, Box::new(self.auth.clone()));
        self.connections.by_stream.insert(stream, connection);
        self.start(now, Request::ConnectionBind(connection));
        Ok(())
    }

    pub(super) fn connection_bound(&mut self, now: Instant, connection: Connection) {
        let Some(entry) = self.connections.entries.get_mut(&connection) else {
            return;
        };
        let State::Binding(_, id, _) = entry.state else {
            return self.connection_failed(now, connection, Cause::Malformed);
        };
        entry.state = State::Open(id);
        let peer = entry.peer;
        self.timers.disarm(Timer::Connection(connection));
        self.tell(Event::ConnectionReady {
            connection,
            id,
            peer,
        });
    }

    pub(super) fn connection_failed(&mut self, now: Instant, connection: Connection, cause: Cause) {
        let Some(entry) = self.connections.entries.remove(&connection) else {
            return;
        };
        self.timers.disarm(Timer::Connection(connection));
        if let State::Binding(_, id, _) | State::Open(id) = entry.state {
            self.connections.by_stream.remove(&id);
            self.transactions.fail_path(Path::Stream(id));
            if cause != Cause::StreamClosed {
                self.actions.push_back(Action::CloseStream { id });
            }
        }
        let peer = entry.peer;
        if cause == Cause::Code(code::CONNECTION_FAILED) {
            let failed = &mut self.connections.failed;
            failed.retain(|_, until| now < *until);
            if failed.len() >= self.connections.limit {
                failed.pop_first();
            }
            failed.extend(deadline(now, RETRY_AFTER).map(|until| (peer, until)));
        }
        self.tell(Event::ConnectionFailed {
            connection,
            peer,
            cause,
        });
    }

    /// The stream of a connection is closed.
    pub(super) fn connection_closed(&mut self, now: Instant, id: StreamId) {
        let Some(connection) = self.connections.of_stream(id) else {
            return;
        };
        if self.connections.open_peer(id).is_none() {
            return self.connection_failed(now, connection, Cause::StreamClosed);
        }
        self.connections.by_stream.remove(&id);
        self.connections.entries.remove(&connection);
        self.tell(Event::ConnectionClosed { connection });
    }

    /// The allocation has ended, and with it all connections.
    pub(super) fn forget_connections(&mut self) {
        let streams = core::mem::take(&mut self.connections.by_stream);
        let close = |id| Action::CloseStream { id };
        self.actions.extend(streams.into_keys().map(close));
        self.connections.entries.clear();
        self.connections.failed.clear();
    }

    /// Whether the allocation has an IPv6 address.
    pub(super) const fn has_v6(&self) -> bool {
        match &self.state {
            ClientState::Active(allocation) => allocation.holds(AddressFamily::V6),
            ClientState::Idle
            | ClientState::Allocating { .. }
            | ClientState::Deleting(_)
            | ClientState::Ended => false,
        }
    }
}
