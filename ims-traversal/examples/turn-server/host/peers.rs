//! Connections to and from peers (RFC 6062).

use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::net::TcpStream;
use stun_proto::StreamId;
use turn_proto::server::{PeerId, RelayId};

use super::sockets;
use super::splice::{Moved, Peer, PeerState};
use super::worker::{Relay, Source, Worker};

/// Connections accepted before others have their turn.
const ACCEPTS: usize = 16;

impl Worker {
    /// Peers connect to a relay.
    pub(super) fn accept_peers(&mut self, relay: RelayId) {
        for _ in 0..ACCEPTS {
            let Some(Relay::Tcp(listener, _)) = self.relays.get(&relay) else {
                return;
            };
            let (tcp, from) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return self.accept_later(Source::Relay(relay), &error),
            };
            // Without permission it is closed at once.
            if let Some(peer) = self.server.peer_accepted(self.now, relay, from) {
                self.add_peer(peer, tcp, relay, PeerState::Waiting);
            }
            self.drain();
        }
        self.again.push(Source::Relay(relay));
    }

    fn add_peer(&mut self, id: PeerId, tcp: TcpStream, relay: RelayId, state: PeerState) {
        let mut peer = Peer::new(tcp, relay, state);
        let token = Source::Peer(id).token();
        if peer.register(self.poll.registry(), token).is_err() {
            return self.server.peer_closed(self.now, id);
        }
        self.peers.insert(id, peer);
    }

    pub(super) fn connect_peer(&mut self, id: PeerId, relay: RelayId, to: SocketAddr) {
        let Some(Relay::Tcp(_, from)) = self.relays.get(&relay) else {
            return self.server.peer_closed(self.now, id);
        };
        match sockets::connect_from(*from, to) {
            Ok(tcp) => self.add_peer(id, TcpStream::from_std(tcp), relay, PeerState::Connecting),
            Err(error) => {
                tracing::debug!(%from, %to, %error, "connect");
                self.server.peer_closed(self.now, id);
            }
        }
    }

    pub(super) fn peer_ready(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match peer.state {
            PeerState::Connecting => match peer.connected() {
                None => return,
                Some(Ok(())) => {
                    peer.state = PeerState::Waiting;
                    self.server.peer_connected(self.now, id);
                }
                Some(Err(_)) => {
                    self.peers.remove(&id);
                    self.server.peer_closed(self.now, id);
                }
            },
            PeerState::Waiting => return,
            PeerState::Spliced(stream) => {
                let mut buf = std::mem::take(&mut self.scratch);
                self.pump(id, stream, &mut buf);
                self.scratch = buf;
                return;
            }
        }
        self.drain();
    }

    /// A client has taken a connection over; `held` came behind its request.
    pub(super) fn begin_splice(&mut self, id: PeerId, stream: StreamId, held: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.state = PeerState::Spliced(stream);
            peer.push(held);
        } else {
            self.server.peer_closed(self.now, id);
        }
    }

    pub(super) fn pump(&mut self, id: PeerId, stream: StreamId, buf: &mut [u8]) {
        let (Some(peer), Some(client)) = (self.peers.get_mut(&id), self.clients.get_mut(&stream))
        else {
            return;
        };
        match peer.pump(&mut client.stream, buf) {
            Ok(Moved::Idle) => {}
            Ok(Moved::More) => self.again.push(Source::Stream(stream)),
            Ok(Moved::Over) | Err(_) => {
                self.close_peer(id);
                self.client_gone(stream);
                self.drain();
            }
        }
    }

    pub(super) fn close_peer(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.remove(&id) {
            self.counts.spliced += peer.to_peer + peer.to_client;
            self.accounts
                .spliced(peer.relay, peer.to_peer, peer.to_client);
        }
    }
}
