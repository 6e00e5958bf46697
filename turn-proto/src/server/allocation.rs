//! What a server keeps for one allocation.

use core::net::{IpAddr, SocketAddr};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use stun_proto::wire::{IntegrityAlgorithm, Key, TransactionId, WriteError, Writer};
use stun_proto::{FiveTuple, Instant, Path, StreamId, Transport};

use super::output::{KeyTicket, PeerId, RelayId, RelayProtocol};
use super::ports::Place;
use crate::wire::{AddressFamily, Channel};

/// An allocation, numbered by the server. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AllocationId(pub(super) u64);

/// A path as the key of a map that is searched for every packet: compared as a few integers, those
/// that differ most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathKey {
    /// The client's address, or the number of its stream.
    remote: u128,
    remote_port: u16,
    local_port: u16,
    local: u128,
    /// `None` for a stream.
    transport: Option<Transport>,
}

impl From<Path> for PathKey {
    fn from(path: Path) -> Self {
        let bits = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        match path {
            Path::Datagram(at) => Self {
                remote: bits(at.remote),
                local: bits(at.local),
                remote_port: at.remote.port(),
                local_port: at.local.port(),
                transport: Some(at.transport),
            },
            Path::Stream(StreamId(id)) => Self {
                remote: u128::from(id),
                local: 0,
                remote_port: 0,
                local_port: 0,
                transport: None,
            },
        }
    }
}

/// How answers to a request are protected.
#[derive(Clone, Debug)]
pub(super) struct Protection {
    /// Nothing where no proof is asked.
    pub(super) integrity: Option<(IntegrityAlgorithm, Box<Key>)>,
    /// The request had FINGERPRINT, so the answer has.
    pub(super) fingerprint: bool,
}

impl Protection {
    /// Writes the end of an answer.
    pub(super) fn seal(&self, writer: Writer<'_>) -> Result<usize, WriteError> {
        match (&self.integrity, self.fingerprint) {
            (Some((algorithm, key)), true) => {
                writer.integrity(*algorithm, key).fingerprint().finish()
            }
            (Some((algorithm, key)), false) => writer.integrity(*algorithm, key).finish(),
            (None, true) => writer.fingerprint().finish(),
            (None, false) => writer.finish(),
        }
    }
}

/// Whether the relays are there.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The host has been asked for them.
    Opening(Box<Opening>),
    /// The client has been told.
    Open,
}

/// An Allocate that waits for its relays.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// What the lifetime will be, in seconds.
    pub(super) lifetime: u32,
    /// How the answer is protected.
    pub(super) protection: Protection,
    /// The client wants to be able to move.
    pub(super) mobile: bool,
}

/// One relayed address of an allocation.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) place: Place,
    /// The port the host was asked for.
    pub(super) port: u16,
    pub(super) even_port: bool,
    /// The port was in use, this often.
    pub(super) taken: u8,
    /// The relayed transport address, once it is open.
    pub(super) relayed: Option<SocketAddr>,
    /// When it ends; `None` is never.
    pub(super) expires: Option<Instant>,
    /// Payload bytes relayed towards peers and towards the client.
    pub(super) to_peers: u64,
    pub(super) to_client: u64,
}

impl Relay {
    pub(super) const fn new(id: RelayId, place: Place, port: u16, even_port: bool) -> Self {
        Self {
            id,
            place,
            port,
            even_port,
            taken: 0,
            relayed: None,
            expires: None,
            to_peers: 0,
            to_client: 0,
        }
    }

    /// Whether data may pass.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.relayed.is_some() && lives(self.expires, now)
    }
}

/// Whether something that ends at this time is still there.
pub(super) fn lives(expires: Option<Instant>, now: Instant) -> bool {
    expires.is_none_or(|at| now < at)
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelBinding {
    pub(super) peer: SocketAddr,
    pub(super) expires: Option<Instant>,
}

/// Where an allocation's client is going (RFC 8016).
#[derive(Clone, Debug, Default)]
pub(super) struct Mobility {
    /// Counts the moves: the ticket in force names it.
    pub(super) generation: u64,
    /// The ticket before that is known until then, for the last request to come again.
    pub(super) old_until: Option<Instant>,
    /// Where the client will be once it sends data from there.
    pub(super) next: Option<(Path, FiveTuple)>,
    /// The stream it was on is gone.
    pub(super) lost: bool,
}

/// One allocation.
#[derive(Debug)]
pub(super) struct Allocation {
    /// Where the client's data goes.
    pub(super) path: Path,
    pub(super) client: FiveTuple,
    pub(super) protocol: RelayProtocol,
    pub(super) state: State,
    pub(super) username: Vec<u8>,
    /// The key of the token it was made or refreshed with (RFC 7635): later requests are
    /// protected with it, but do not carry the token.
    pub(super) token_key: Option<Box<Key>>,
    /// The request that made it: the same one again gets the same answer.
    pub(super) request: TransactionId,
    pub(super) v4: Option<Relay>,
    pub(super) v6: Option<Relay>,
    /// The port above is kept under this number.
    pub(super) reserved: Option<RelayId>,
    /// Why the second family was not allocated.
    pub(super) missing: Option<(AddressFamily, u16)>,
    pub(super) permissions: BTreeMap<IpAddr, Option<Instant>>,
    pub(super) channels: BTreeMap<Channel, ChannelBinding>,
    pub(super) by_peer: BTreeMap<SocketAddr, Channel>,
    /// Connections to peers: at most one for each.
    pub(super) connections: BTreeMap<SocketAddr, PeerId>,
    pub(super) mobility: Option<Box<Mobility>>,
}

impl Allocation {
    pub(super) const fn relay(&self, family: AddressFamily) -> Option<&Relay> {
        match family {
            AddressFamily::V4 => self.v4.as_ref(),
            AddressFamily::V6 => self.v6.as_ref(),
        }
    }

    pub(super) const fn relay_mut(&mut self, family: AddressFamily) -> &mut Option<Relay> {
        match family {
            AddressFamily::V4 => &mut self.v4,
            AddressFamily::V6 => &mut self.v6,
        }
    }

    /// Both relays, as far as there are two.
    pub(super) fn relays(&self) -> impl Iterator<Item = &Relay> {
        self.v4.iter().chain(self.v6.iter())
    }

    pub(super) fn relays_mut(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.v4.iter_mut().chain(self.v6.iter_mut())
    }

    /// The family a relay of this allocation has.
    pub(super) fn family_of(&self, relay: RelayId) -> Option<AddressFamily> {
        let is = |other: &Option<Relay>| other.as_ref().is_some_and(|other| other.id == relay);
        match (is(&self.v4), is(&self.v6)) {
            (true, _) => Some(AddressFamily::V4),
            (_, true) => Some(AddressFamily::V6),
            (false, false) => None,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether there is a live permission for this address.
    pub(super) fn permits(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions
            .get(&ip)
            .is_some_and(|expires| lives(*expires, now))
    }

    /// The peer a bound channel leads to.
    pub(super) fn peer_of(&self, now: Instant, channel: Channel) -> Option<SocketAddr> {
        let binding = self.channels.get(&channel)?;
        lives(binding.expires, now).then_some(binding.peer)
    }

    /// The channel bound to exactly this peer.
    pub(super) fn channel_of(&self, now: Instant, peer: SocketAddr) -> Option<Channel> {
        let channel = *self.by_peer.get(&peer)?;
        self.peer_of(now, channel).map(|_| channel)
    }
}

/// Reasons to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The host takes too long to open the relays.
    Opening(AllocationId),
    /// A relay ends.
    Relay(RelayId),
    /// A permission ends.
    Permission(AllocationId, IpAddr),
    /// A channel ends.
    Channel(AllocationId, Channel),
    /// Nobody wanted the reserved relay.
    Reservation(RelayId),
    /// The host takes too long to find a key.
    Key(KeyTicket),
    /// A peer cannot be reached, or its connection was not taken over.
    Peer(PeerId),
    /// A stream has no allocation for too long.
    StreamIdle(StreamId),
    /// A unit on a stream does not end.
    StreamPartial(StreamId),
}
