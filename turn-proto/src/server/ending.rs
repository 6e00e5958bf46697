//! How allocations and what hangs on them end.

use core::net::IpAddr;

use alloc::vec::Vec;

use stun_proto::Path;

use super::allocation::{Allocation, AllocationId, Relay, Timer};
use super::output::{Action, DeleteReason, Event, RelayId};
use super::{Core, Users};
use crate::wire::{AddressFamily, Channel};

impl<U: Users> Core<U> {
    /// Ends an allocation and everything that hangs on it.
    pub(super) fn delete(&mut self, id: AllocationId, reason: DeleteReason) {
        let Some(allocation) = self.allocations.remove(&id) else {
            return;
        };
        self.timers.disarm(Timer::Opening(id));
        for peer in allocation.permissions.keys() {
            self.timers.disarm(Timer::Permission(id, *peer));
        }
        for channel in allocation.channels.keys() {
            self.timers.disarm(Timer::Channel(id, *channel));
        }
        if !allocation.is_open()
            && let Some(relay) = allocation.reserved
        {
            self.drop_reservation(relay);
        }
        for relay in allocation.relays() {
            self.end_relay(&allocation, relay, reason);
        }
        let peers: Vec<_> = allocation.connections.values().copied().collect();
        for peer in peers {
            self.end_connection(peer);
        }
        self.credit_account(&allocation.username);
        self.users.release(&allocation.username);
        self.by_path.remove(&allocation.path.into());
        let next = allocation.mobility.as_ref().and_then(|moves| moves.next);
        if let Some((path, _)) = next {
            self.by_path.remove(&path.into());
        }
        for path in [Some(allocation.path), next.map(|(path, _)| path)] {
            if let Some(Path::Stream(stream)) = path {
                self.stream_without_allocation(stream);
            }
        }
    }

    fn credit_account(&mut self, username: &[u8]) {
        if let Some(account) = self.accounts.get_mut(username) {
            account.allocations = account.allocations.saturating_sub(1);
            if account.allocations == 0 {
                self.accounts.remove(username);
            }
        }
    }

    fn end_relay(&mut self, allocation: &Allocation, relay: &Relay, reason: DeleteReason) {
        self.timers.disarm(Timer::Relay(relay.id));
        self.by_relay.remove(&relay.id);
        self.free_relay(relay);
        self.out
            .actions
            .push_back(Action::CloseRelay { relay: relay.id });
        if allocation.is_open() {
            self.out.events.push_back(Event::AllocationDeleted {
                relay: relay.id,
                reason,
                to_peers: relay.to_peers,
                to_client: relay.to_client,
            });
        }
    }

    /// Gives back the address and the port of a relay.
    pub(super) fn free_relay(&mut self, relay: &Relay) {
        self.ports.release(relay.place, relay.port);
        if let Some(relayed) = relay.relayed {
            self.by_address.remove(&(relay.place.protocol, relayed));
        }
    }

    /// Ends one relay; the allocation too when it was the only one.
    pub(super) fn delete_relay(&mut self, relay: RelayId, reason: DeleteReason) {
        let Some(id) = self.by_relay.get(&relay).copied() else {
            return;
        };
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let Some(family) = allocation.family_of(relay) else {
            return;
        };
        if allocation.relays().count() <= 1 {
            return self.delete(id, reason);
        }
        let Some(ended) = allocation.relay_mut(family).take() else {
            return;
        };
        let of_family = |ip: IpAddr| AddressFamily::of(ip) == family;
        let channels: Vec<Channel> = allocation
            .channels
            .iter()
            .filter(|(_, binding)| of_family(binding.peer.ip()))
            .map(|(channel, _)| *channel)
            .collect();
        for channel in channels {
            self.timers.disarm(Timer::Channel(id, channel));
            if let Some(binding) = allocation.channels.remove(&channel) {
                allocation.by_peer.remove(&binding.peer);
            }
        }
        allocation.permissions.retain(|peer, _| {
            let keep = !of_family(*peer);
            if !keep {
                self.timers.disarm(Timer::Permission(id, *peer));
            }
            keep
        });
        self.timers.disarm(Timer::Relay(relay));
        self.by_relay.remove(&relay);
        self.free_relay(&ended);
        self.out.actions.push_back(Action::CloseRelay { relay });
        self.out.events.push_back(Event::AllocationDeleted {
            relay,
            reason,
            to_peers: ended.to_peers,
            to_client: ended.to_client,
        });
    }

    pub(super) fn permission_expired(&mut self, id: AllocationId, peer: IpAddr) {
        if let Some(allocation) = self.allocations.get_mut(&id) {
            allocation.permissions.remove(&peer);
            if let Some(relay) = allocation.relay(AddressFamily::of(peer)) {
                let relay = relay.id;
                self.out
                    .events
                    .push_back(Event::PermissionExpired { relay, peer });
            }
        }
    }

    pub(super) fn unbind(&mut self, id: AllocationId, channel: Channel) {
        self.timers.disarm(Timer::Channel(id, channel));
        if let Some(allocation) = self.allocations.get_mut(&id)
            && let Some(binding) = allocation.channels.remove(&channel)
        {
            allocation.by_peer.remove(&binding.peer);
            if let Some(relay) = allocation.relay(AddressFamily::of(binding.peer.ip())) {
                let relay = relay.id;
                self.out
                    .events
                    .push_back(Event::ChannelUnbound { relay, channel });
            }
        }
    }
}
