//! What a server keeps for one allocation.

use core::net::{IpAddr, SocketAddr};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use stun_proto::wire::{IntegrityAlgorithm, Key, TransactionId};
use stun_proto::{FiveTuple, Instant, Path};

use super::RelayId;
use crate::wire::{AddressFamily, Channel};

/// How answers to a request are protected.
#[derive(Clone, Debug)]
pub(super) struct Protection {
    pub(super) algorithm: IntegrityAlgorithm,
    pub(super) key: Key,
}

/// Whether the relay is there.
#[derive(Clone, Debug)]
pub(super) enum RelayState {
    /// The host has been asked for it.
    Opening {
        /// What the lifetime will be, in seconds.
        lifetime: u32,
        /// Only an even port will do.
        even_port: bool,
        /// How the answer is protected.
        protection: Box<Protection>,
    },
    /// It is open.
    Open {
        /// The relayed transport address.
        relayed: SocketAddr,
        /// When the allocation ends.
        expires: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelBinding {
    pub(super) peer: SocketAddr,
    pub(super) expires: Option<Instant>,
}

/// One allocation. Keyed by its relay in the server's table.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) path: Path,
    pub(super) client: FiveTuple,
    pub(super) family: AddressFamily,
    pub(super) state: RelayState,
    pub(super) username: Vec<u8>,
    /// The request that made it: the same one again gets the same answer.
    pub(super) request: TransactionId,
    pub(super) permissions: BTreeMap<IpAddr, Option<Instant>>,
    pub(super) channels: BTreeMap<Channel, ChannelBinding>,
    pub(super) by_peer: BTreeMap<SocketAddr, Channel>,
    /// Payload bytes relayed towards peers and towards the client.
    pub(super) to_peers: u64,
    pub(super) to_client: u64,
}

impl Allocation {
    /// Whether there is a live permission for this address.
    pub(super) fn permits(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions
            .get(&ip)
            .is_some_and(|expires| expires.is_none_or(|at| now < at))
    }

    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        match self.state {
            RelayState::Opening { .. } => None,
            RelayState::Open { relayed, .. } => Some(relayed),
        }
    }

    /// The peer a bound channel leads to.
    pub(super) fn peer_of(&self, now: Instant, channel: Channel) -> Option<SocketAddr> {
        let binding = self.channels.get(&channel)?;
        binding
            .expires
            .is_none_or(|at| now < at)
            .then_some(binding.peer)
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
    /// The host takes too long to open a relay.
    RelayOpening(RelayId),
    /// An allocation ends.
    Allocation(RelayId),
    /// A permission ends.
    Permission(RelayId, IpAddr),
    /// A channel ends.
    Channel(RelayId, Channel),
    /// A stream has no allocation for too long.
    StreamIdle(stun_proto::StreamId),
    /// A unit on a stream does not end.
    StreamPartial(stun_proto::StreamId),
}
