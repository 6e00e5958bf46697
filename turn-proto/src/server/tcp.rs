//! TCP relays (RFC 6062): connections to and from peers, and the data connections of clients.
//!
//! The bytes of a connection never pass through the server: once a client has taken it over, the
//! host copies between the two sockets. Until then it does not read from the peer, so that what
//! the peer sends waits in the socket, bounded by its window.
// deviates: 6062-D3 back-pressure between two spliced sockets is the host's, as `Splice` says.

use core::net::SocketAddr;

use alloc::boxed::Box;

use stun_proto::wire::{ErrorCode, Message, MessageType, TransactionId, Writer};
use stun_proto::{Instant, Path, StreamId};

use super::allocation::{Allocation, AllocationId, Protection, Timer};
use super::output::{Action, CloseReason, PeerId, RelayId, RelayProtocol, count};
use super::requests::{BAD_REQUEST, Denied, Proven};
use super::{Core, Users, canonical};
use crate::wire::{self, AddressFamily, ConnectionId, XorPeerAddress, code};

/// A connection between a TCP relay and a peer.
#[derive(Debug)]
pub(super) struct Connection {
    allocation: AllocationId,
    peer: SocketAddr,
    state: ConnectionState,
}

#[derive(Debug)]
enum ConnectionState {
    /// The host has been asked to connect; the Connect is answered when it has.
    Connecting(Box<Connect>),
    /// The client has been told this number, and has not taken the connection over.
    Unbound([u8; 4]),
    /// It is spliced to this data connection.
    Bound(StreamId),
}

#[derive(Debug)]
struct Connect {
    path: Path,
    id: TransactionId,
    protection: Protection,
}

impl<U: Users> Core<U> {
    /// RFC 6062 section 5.2.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        id: AllocationId,
    ) -> Result<(), Denied> {
        let Some(allocation) = self.allocations.get(&id) else {
            return Err(Denied(code::ALLOCATION_MISMATCH));
        };
        if allocation.protocol != RelayProtocol::Tcp {
            return Err(BAD_REQUEST);
        }
        let XorPeerAddress(peer) = proven.message.find().ok_or(BAD_REQUEST)?;
        if allocation.connections.contains_key(&peer) {
            return Err(Denied(code::CONNECTION_EXISTS));
        }
        self.judge_peer(allocation, peer.ip())?;
        if allocation.is_own(peer, &self.config.listeners) {
            return Err(Denied(code::FORBIDDEN));
        }
        let limits = self.config.limits;
        if !self.has_room(allocation) || self.connecting(allocation) >= limits.pending_connects {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        let relay = allocation.relay(AddressFamily::of(peer.ip())).map(|r| r.id);
        let Some(relay) = relay else {
            return Err(Denied(code::PEER_FAMILY_MISMATCH));
        };
        let connect = Connect {
            path: proven.path,
            id: proven.message.transaction_id(),
            protection: proven.protection.clone(),
        };
        let state = ConnectionState::Connecting(Box::new(connect));
        let number = self.add_connection(now, id, peer, state);
        self.out.actions.push_back(Action::ConnectPeer {
            peer: number,
            relay,
            to: peer,
        });
        Ok(())
    }

    fn connecting(&self, allocation: &Allocation) -> usize {
        let is_connecting = |peer: &&PeerId| {
            self.connections
                .get(*peer)
                .is_some_and(|held| matches!(held.state, ConnectionState::Connecting(_)))
        };
        allocation
            .connections
            .values()
            .filter(is_connecting)
            .count()
    }

    /// Whether the limits allow an allocation one more connection.
    fn has_room(&self, allocation: &Allocation) -> bool {
        let limits = self.config.limits;
        allocation.connections.len() < limits.peer_connections
            && self.unbound() < limits.unbound_connections
    }

    /// Connections that no client has taken over: those being opened will be such.
    fn unbound(&self) -> usize {
        self.by_connection_id.len().saturating_add(self.opening)
    }

    fn add_connection(
        &mut self,
        now: Instant,
        id: AllocationId,
        peer: SocketAddr,
        state: ConnectionState,
    ) -> PeerId {
        let number = PeerId(self.number());
        if let ConnectionState::Connecting(_) = state {
            self.opening = self.opening.saturating_add(1);
        }
        let connection = Connection {
            allocation: id,
            peer,
            state,
        };
        self.connections.insert(number, connection);
        if let Some(allocation) = self.allocations.get_mut(&id) {
            allocation.connections.insert(peer, number);
        }
        let wait = self.config.connect_timeout;
        self.timers.arm(Timer::Peer(number), now, wait);
        number
    }

    /// A number no connection has now.
    fn connection_id(&mut self) -> [u8; 4] {
        loop {
            let mut id = self.rng.bytes::<4>();
            if let Some(instance) = self.config.instance {
                let [first, ..] = &mut id;
                *first = instance;
            }
            if !self.by_connection_id.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn peer_connected(&mut self, now: Instant, peer: PeerId) {
        let waits = |held: &Connection| matches!(held.state, ConnectionState::Connecting(_));
        if !self.connections.get(&peer).is_some_and(waits) {
            return self.out.actions.push_back(Action::ClosePeer { peer });
        }
        let id = self.connection_id();
        let Some(connection) = self.connections.get_mut(&peer) else {
            return;
        };
        let unbound = ConnectionState::Unbound(id);
        let before = core::mem::replace(&mut connection.state, unbound);
        if let ConnectionState::Connecting(connect) = before {
            self.opening = self.opening.saturating_sub(1);
            self.by_connection_id.insert(id, peer);
            let wait = self.config.connect_timeout;
            self.timers.arm(Timer::Peer(peer), now, wait);
            let ty = MessageType::request(wire::CONNECT).success();
            let Connect {
                path,
                id: request,
                protection,
            } = *connect;
            self.answer(path, ty, request, &protection, |writer| {
                writer.attribute(&ConnectionId(id))
            });
        }
    }

    /// RFC 6062 section 5.3.
    pub(super) fn peer_accepted(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
    ) -> Option<PeerId> {
        let from = canonical(from);
        let id = *self.by_relay.get(&relay)?;
        let allocation = self.allocations.get(&id)?;
        let live = allocation
            .relay(AddressFamily::of(from.ip()))
            .is_some_and(|held| held.id == relay && held.is_live(now));
        let allowed = allocation.protocol == RelayProtocol::Tcp
            && allocation.is_open()
            && live
            && allocation.permits(now, from.ip())
            && !allocation.connections.contains_key(&from);
        if !allowed || !self.has_room(allocation) || self.out.is_full(self.config.limits.responses)
        {
            count(&mut self.stats.not_permitted);
            return None;
        }
        let control = allocation.path;
        let number = self.connection_id();
        let peer = self.add_connection(now, id, from, ConnectionState::Unbound(number));
        self.by_connection_id.insert(number, peer);
        let transaction = self.rng.transaction_id();
        let ty = MessageType::indication(wire::CONNECTION_ATTEMPT);
        self.out.send(control, |buf| {
            Writer::new(buf, ty, transaction)
                .attribute(&ConnectionId(number))
                .attribute(&XorPeerAddress(from))
                .finish()
        });
        Some(peer)
    }

    /// RFC 6062 section 5.4.
    pub(super) fn connection_bind(&mut self, proven: &Proven<'_>) -> Result<(), Denied> {
        let Path::Stream(stream) = proven.path else {
            return Err(BAD_REQUEST);
        };
        if self.by_path.contains_key(&proven.path.into()) || !self.may_become_data(stream) {
            return Err(BAD_REQUEST);
        }
        let ConnectionId(id) = proven.message.find().ok_or(BAD_REQUEST)?;
        let peer = *self.by_connection_id.get(&id).ok_or(BAD_REQUEST)?;
        let connection = self.connections.get_mut(&peer).ok_or(BAD_REQUEST)?;
        let owner = self.allocations.get(&connection.allocation);
        if owner.is_none_or(|allocation| allocation.username != proven.username) {
            return Err(Denied(code::WRONG_CREDENTIALS));
        }
        connection.state = ConnectionState::Bound(stream);
        self.by_connection_id.remove(&id);
        self.timers.disarm(Timer::Peer(peer));
        self.becomes_data(stream, peer);
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer);
        self.out.actions.push_back(Action::Splice { peer, stream });
        Ok(())
    }

    /// The allocation a ConnectionBind is about.
    pub(super) fn allocation_of_connection(&self, message: &Message<'_>) -> Option<&Allocation> {
        let ConnectionId(id) = message.find()?;
        let peer = self.by_connection_id.get(&id)?;
        self.allocations
            .get(&self.connections.get(peer)?.allocation)
            .map(|allocation| &**allocation)
    }

    /// A connection failed, or one of its sides is closed.
    pub(super) fn peer_closed(&mut self, peer: PeerId) {
        if let Some(connection) = self.take_connection(peer) {
            self.connection_lost(connection);
        }
    }

    pub(super) fn peer_timed_out(&mut self, peer: PeerId) {
        if let Some(connection) = self.take_connection(peer) {
            self.out.actions.push_back(Action::ClosePeer { peer });
            self.connection_lost(connection);
        }
    }

    /// Closes both sides of a connection whose allocation has ended.
    pub(super) fn end_connection(&mut self, peer: PeerId) {
        self.peer_timed_out(peer);
    }

    /// The client closed its data connection.
    pub(super) fn data_connection_closed(&mut self, peer: PeerId) {
        if self.take_connection(peer).is_some() {
            self.out.actions.push_back(Action::ClosePeer { peer });
        }
    }

    fn take_connection(&mut self, peer: PeerId) -> Option<Connection> {
        let connection = self.connections.remove(&peer)?;
        self.timers.disarm(Timer::Peer(peer));
        match &connection.state {
            ConnectionState::Connecting(_) => self.opening = self.opening.saturating_sub(1),
            ConnectionState::Unbound(id) => {
                self.by_connection_id.remove(id);
            }
            ConnectionState::Bound(_) => {}
        }
        if let Some(allocation) = self.allocations.get_mut(&connection.allocation) {
            allocation.connections.remove(&connection.peer);
        }
        Some(connection)
    }

    /// Tells the client's side that there is no peer.
    fn connection_lost(&mut self, connection: Connection) {
        match connection.state {
            ConnectionState::Connecting(connect) => {
                let ty = MessageType::request(wire::CONNECT).error();
                let error = ErrorCode::new(code::CONNECTION_FAILED);
                let Connect {
                    path,
                    id,
                    protection,
                } = *connect;
                self.answer(path, ty, id, &protection, |writer| writer.attribute(&error));
            }
            ConnectionState::Unbound(_) => {}
            ConnectionState::Bound(stream) => {
                self.close_stream(stream, CloseReason::PeerClosed);
            }
        }
    }
}
