//! What a faster data path (in a kernel, say) takes to relay for the machine.
//!
//! [`Event`]s say all that changes, in time: which allocations of datagram clients there are, whom
//! they may reach, by which channels. A packet such a path has no entry for goes to the machine,
//! which also knows of clients that are about to move.

use stun_proto::Instant;

use super::allocation::Allocation;
use super::output::{Event, RelayId};
use super::{Server, Users};
use crate::wire::AddressFamily;

impl<U: Users> Server<U> {
    /// The events that would make everything that is there now: for a data path that begins, or
    /// begins anew, in the middle. Those still waiting in [`poll_event`](Self::poll_event) are
    /// included already: take them away first.
    pub fn standing_events(&self) -> impl Iterator<Item = Event> + '_ {
        self.core
            .allocations
            .values()
            .filter(|allocation| allocation.is_open())
            .flat_map(|allocation| allocation.events())
    }

    /// Payload bytes relayed so far, to peers and to the client; `None` when there is no such relay.
    pub fn relayed_bytes(&self, relay: RelayId) -> Option<(u64, u64)> {
        let allocation = self.core.allocations.get(self.core.by_relay.get(&relay)?)?;
        let held = allocation.relay(allocation.family_of(relay)?)?;
        Some((held.to_peers, held.to_client))
    }

    /// Payload bytes that a faster data path has relayed since it last said so. They count in
    /// [`Event::AllocationDeleted`] and are taken off what the user may relay; a user who has
    /// nothing left is not stopped on that path by this server.
    pub fn count_relayed(&mut self, now: Instant, relay: RelayId, to_peers: u64, to_client: u64) {
        let core = &mut self.core;
        let now = core.clock.advance(now);
        let id = core.by_relay.get(&relay);
        let Some(allocation) = id.and_then(|id| core.allocations.get_mut(id)) else {
            return;
        };
        let both = to_peers.saturating_add(to_client);
        let per_second = core.config.limits.user_bandwidth;
        if let Some(account) = core.accounts.get_mut(&allocation.username) {
            account.gain(per_second, now);
            account.credit = account.credit.saturating_sub(both);
        }
        let family = allocation.family_of(relay);
        if let Some(counted) = family.and_then(|family| allocation.relay_mut(family).as_mut()) {
            counted.to_peers = counted.to_peers.saturating_add(to_peers);
            counted.to_client = counted.to_client.saturating_add(to_client);
        }
    }
}

impl Allocation {
    /// The events that would make it.
    fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let created = self.relays().filter_map(|relay| {
            Some(Event::AllocationCreated {
                relay: relay.id,
                client: self.client,
                username: self.username.clone(),
                relayed: relay.relayed?,
            })
        });
        let relay_to = |ip| self.relay(AddressFamily::of(ip)).map(|relay| relay.id);
        let permissions = self.permissions.keys().filter_map(move |peer| {
            let (relay, peer) = (relay_to(*peer)?, *peer);
            Some(Event::PermissionAdded { relay, peer })
        });
        let channels = self.channels.iter().filter_map(move |(channel, binding)| {
            Some(Event::ChannelBound {
                relay: relay_to(binding.peer.ip())?,
                channel: *channel,
                peer: binding.peer,
            })
        });
        created.chain(permissions).chain(channels)
    }
}
