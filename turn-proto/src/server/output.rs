//! What a server asks of its host, and what it tells it.

use core::net::{IpAddr, SocketAddr};

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use stun_proto::auth::User;
use stun_proto::framing::FramingError;
use stun_proto::wire::{PasswordAlgorithmId, WriteError};
use stun_proto::{FiveTuple, Path, StreamId};

use super::MAX_TRANSMIT;
use crate::data::DataHeader;
pub use crate::data::RelayProtocol;
use crate::wire::{AddressFamily, Channel};

/// A relay socket, numbered by the server: the address peers see. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u64);

/// A TCP connection between a relay and a peer (RFC 6062), numbered by the server. Never used
/// twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// A key that was asked for with [`Action::LookUpKey`]. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyTicket(pub u64);

// IP headers are the host's: it has both packets at hand, and the module's documentation says what
// it does with them.
// deviates: TURN-14-1 DSCP and ECN stand in the host's packets.
// deviates: TURN-14-2 DF does; `dont_fragment` says when it was asked for.
// deviates: TURN-15-1 all of them do, and are the host's own towards and from TCP.
// deviates: TURN-16-1 the same, and the host's stack reassembles fragments.
// deviates: TURN-13-1 translation between families is by the host's sockets (alternate behaviour).
// deviates: TURN-13.2-1 the MTU in a "packet too big" is that of the host's stack.
/// Where a client's data goes: out of this relay to this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayTo {
    /// The relay whose address is the source.
    pub relay: RelayId,
    /// The destination.
    pub peer: SocketAddr,
    /// The client asked that the datagram be not fragmented: set DF. Without it, DF is copied
    /// from the client's datagram or left clear (RFC 8656 sections 14 and 15).
    pub dont_fragment: bool,
}

/// Where a peer's data goes, and what stands around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The client.
    pub to: Path,
    /// Header and padding.
    pub header: DataHeader,
}

/// Who a key is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// The user name.
    Name(Vec<u8>),
    /// The hash of name and realm: see [`userhash`](stun_proto::wire::userhash).
    Hash([u8; 32]),
}

/// What the host must do. Take actions after transmits: some, like [`Splice`](Self::Splice),
/// follow a response that must be sent first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a socket of this family, and answer with [`Server::relay_opened`],
    /// [`Server::relay_port_taken`] or [`Server::relay_failed`].
    ///
    /// [`Server::relay_opened`]: super::Server::relay_opened
    /// [`Server::relay_port_taken`]: super::Server::relay_port_taken
    /// [`Server::relay_failed`]: super::Server::relay_failed
    OpenRelay {
        /// Its number from now on.
        relay: RelayId,
        /// UDP, or a TCP listener.
        protocol: RelayProtocol,
        /// The family of its address.
        family: AddressFamily,
        /// Which of the host's addresses of that family, counted from 0.
        address: u16,
        /// The port to bind: random, from the configured range, and not in use here. Two relays
        /// asked for in a row, the first with an even port, the second on the port above, are a
        /// pair (EVEN-PORT with reservation). A host that chooses ports itself may bind another
        /// one; the server takes it unless parity or the other of a pair forbids it.
        port: u16,
        /// Only an even port will do.
        even_port: bool,
        /// The client it is for.
        client: FiveTuple,
    },
    /// Close this socket; nothing more is relayed through it.
    CloseRelay {
        /// Which one.
        relay: RelayId,
    },
    /// Find the key of a user and answer with [`Server::key_found`].
    ///
    /// [`Server::key_found`]: super::Server::key_found
    LookUpKey {
        /// Names the question.
        ticket: KeyTicket,
        /// The user.
        user: KeyOwner,
        /// How the key is derived: see [`Key::long_term`](stun_proto::wire::Key::long_term).
        algorithm: PasswordAlgorithmId,
    },
    /// Send what is waiting for this stream, then close it.
    CloseStream {
        /// Which one.
        id: StreamId,
        /// Why.
        reason: CloseReason,
    },
    /// Connect to a peer from the address of a TCP relay, and answer with
    /// [`Server::peer_connected`] or [`Server::peer_closed`]. Do not read before the connection
    /// is spliced: the peer's bytes wait in the socket, whose window bounds them.
    ///
    /// [`Server::peer_connected`]: super::Server::peer_connected
    /// [`Server::peer_closed`]: super::Server::peer_closed
    ConnectPeer {
        /// The connection's number from now on.
        peer: PeerId,
        /// The relay whose address is the source.
        relay: RelayId,
        /// Where to.
        to: SocketAddr,
    },
    /// Close this connection, established or not.
    ClosePeer {
        /// Which one.
        peer: PeerId,
    },
    /// From now on copy bytes between the two, unchanged, both ways, once everything
    /// [`poll_transmit`](super::Server::poll_transmit) gave for the stream is sent. Stop reading
    /// one side while the other cannot be written; pass half-closes on after what came before
    /// them. Tell the server when either side is closed for good.
    Splice {
        /// The connection to the peer.
        peer: PeerId,
        /// The client's data connection; the server reads no more of it.
        stream: StreamId,
    },
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// It carries something else than STUN and ChannelData.
    Framing(FramingError),
    /// Its first unit is not a STUN request, or a message is malformed.
    Protocol,
    /// There was no allocation for too long, or a unit did not end.
    Idle,
    /// The peer, or the allocation, of a data connection is gone.
    PeerClosed,
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteReason {
    /// The client asked for it.
    Client,
    /// It was not refreshed.
    Expired,
    /// The client's stream is gone.
    StreamClosed,
    /// The relay failed.
    RelayFailed,
    /// The host asked for it.
    Host,
}

/// What happened, for accounting and for programming a faster data path. An allocation with two
/// relays has one event for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Somebody who had answered the challenge from this address does not know the password, or
    /// the server not the user. As many as fit are told; all are counted
    /// ([`Stats::failed_logins`]).
    LoginFailed {
        /// The client.
        client: FiveTuple,
        /// The user name (or hash) it gave.
        username: Vec<u8>,
    },
    /// A client got a relayed address.
    AllocationCreated {
        /// The relay.
        relay: RelayId,
        /// The client.
        client: FiveTuple,
        /// The user name (or hash); the client's address where no proof is asked.
        username: Vec<u8>,
        /// The relayed transport address.
        relayed: SocketAddr,
    },
    /// It lives on.
    AllocationRefreshed {
        /// The relay.
        relay: RelayId,
        /// For so many seconds from now.
        lifetime: u32,
    },
    /// Its client is at another address now (RFC 8016).
    AllocationMoved {
        /// The relay.
        relay: RelayId,
        /// Where the client's data comes from and goes to.
        path: Path,
    },
    /// An allocation ended. Its permissions and channels end with it, without events.
    AllocationDeleted {
        /// The relay.
        relay: RelayId,
        /// Why.
        reason: DeleteReason,
        /// Payload bytes relayed to peers. Not those of spliced connections.
        to_peers: u64,
        /// Payload bytes relayed to the client. Not those of spliced connections.
        to_client: u64,
    },
    /// Data may flow between relay and this address.
    PermissionAdded {
        /// The relay.
        relay: RelayId,
        /// The peer's address, all ports.
        peer: IpAddr,
    },
    /// Data may no longer flow.
    PermissionExpired {
        /// The relay.
        relay: RelayId,
        /// The peer's address.
        peer: IpAddr,
    },
    /// A channel leads to this peer.
    ChannelBound {
        /// The relay.
        relay: RelayId,
        /// The number.
        channel: Channel,
        /// The peer.
        peer: SocketAddr,
    },
    /// A channel leads nowhere any more.
    ChannelUnbound {
        /// The relay.
        relay: RelayId,
        /// The number.
        channel: Channel,
    },
}

/// Counters; they stop at their highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that are no STUN, or not what a client may send.
    pub malformed: u64,
    /// Requests that could not be authenticated, first ones included.
    pub unauthenticated: u64,
    /// Of these, those with a nonce of this server and a wrong user name or password.
    pub failed_logins: u64,
    /// Unverified requests left unanswered to spare their supposed sender.
    pub rate_limited: u64,
    /// Data without allocation, permission or channel.
    pub not_permitted: u64,
    /// Data beyond a user's bandwidth.
    pub over_bandwidth: u64,
    /// Messages dropped because the host did not take what was ready before, or because a key
    /// that was asked for did not come.
    pub responses_dropped: u64,
    /// Requests turned away because of a limit of the server: 486 and 508.
    pub limited: u64,
}

/// Counts one more.
pub(super) const fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

/// What waits for the host.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    responses: VecDeque<(Path, Vec<u8>)>,
    pub(super) actions: VecDeque<Action>,
    pub(super) events: VecDeque<Event>,
}

/// Queues keep this much room when they are empty.
const KEEP: usize = 16;

impl Outbox {
    /// Whether nothing more should be begun before the host has taken something.
    pub(super) fn is_full(&self, limit: usize) -> bool {
        self.responses.len() >= limit || self.actions.len() >= limit || self.events.len() >= limit
    }

    /// Queues a message. Messages that cannot be written are not sent: all that are written here
    /// fit.
    pub(super) fn send(
        &mut self,
        to: Path,
        write: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>,
    ) {
        let mut buf = [0; MAX_TRANSMIT];
        if let Ok(len) = write(&mut buf)
            && let Some(message) = buf.get(..len)
        {
            self.responses.push_back((to, message.to_vec()));
        }
    }

    /// Tells of a failed login, unless the host has more waiting already.
    pub(super) fn login_failed(&mut self, client: FiveTuple, user: User<'_>) {
        if self.events.len() < KEEP {
            let username = match user {
                User::Name(name) => name.to_vec(),
                User::Hash(hash) => hash.to_vec(),
            };
            self.events
                .push_back(Event::LoginFailed { client, username });
        }
    }

    pub(super) fn next_response(&mut self) -> Option<(Path, Vec<u8>)> {
        let next = self.responses.pop_front();
        if self.responses.is_empty() {
            // Nothing stays behind of a burst.
            self.responses.shrink_to(KEEP);
        }
        next
    }

    pub(super) fn next_action(&mut self) -> Option<Action> {
        let next = self.actions.pop_front();
        if self.actions.is_empty() {
            self.actions.shrink_to(KEEP);
        }
        next
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        let next = self.events.pop_front();
        if self.events.is_empty() {
            self.events.shrink_to(KEEP);
        }
        next
    }

    /// Forgets what was to be sent to a stream that is gone.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.responses.retain(|(to, _)| *to != Path::Stream(stream));
    }
}
