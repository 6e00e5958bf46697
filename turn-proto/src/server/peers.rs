//! Refresh, CreatePermission and ChannelBind (RFC 8656 sections 8.2, 10.2 and 12.2).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use smallvec::SmallVec;
use stun_proto::Instant;
use stun_proto::time::deadline;
use stun_proto::wire::{AttributeError, Message};

use super::allocate::is_tunnel;
use super::allocation::{Allocation, AllocationId, ChannelBinding, Relay, Timer};
use super::output::{DeleteReason, Event, RelayId, RelayProtocol};
use super::requests::{BAD_REQUEST, Denied, Proven};
use super::{Core, Users};
use crate::wire::{
    AddressFamily, Channel, ChannelNumber, Lifetime, RequestedAddressFamily, XorPeerAddress, code,
};

const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

impl<U: Users> Core<U> {
    /// Section 8.2.
    pub(super) fn refresh(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        id: AllocationId,
    ) -> Result<(), Denied> {
        let granted = self.prolong(now, proven, id)?;
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer.attribute(&Lifetime(granted)));
        Ok(())
    }

    /// Sets the time an allocation, or one of its relays, has left; 0 ends it.
    pub(super) fn prolong(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        id: AllocationId,
    ) -> Result<u32, Denied> {
        let relays = self.named_relays(&proven.message, id)?;
        if proven.message.find() == Some(Lifetime(0)) {
            for relay in relays {
                self.delete_relay(relay, DeleteReason::Client);
            }
            return Ok(0);
        }
        let granted = self.granted(&proven.message, proven.longest)?;
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return Err(Denied(code::ALLOCATION_MISMATCH));
        };
        if proven.by_token {
            let key = proven.protection.integrity.as_ref();
            allocation.token_key = key.map(|(_, key)| key.clone());
        }
        let expires = deadline(now, Duration::from_secs(u64::from(granted)));
        let named = |relay: &&mut Relay| relays.contains(&relay.id);
        for relay in allocation.relays_mut().filter(named) {
            relay.expires = expires;
            self.timers.set(Timer::Relay(relay.id), expires);
            self.out.events.push_back(Event::AllocationRefreshed {
                relay: relay.id,
                lifetime: granted,
            });
        }
        Ok(granted)
    }

    /// The relays a Refresh is about: those of one family, or all.
    fn named_relays(
        &self,
        message: &Message<'_>,
        id: AllocationId,
    ) -> Result<SmallVec<[RelayId; 2]>, Denied> {
        let Some(allocation) = self.allocations.get(&id) else {
            return Err(Denied(code::ALLOCATION_MISMATCH));
        };
        match message.get::<RequestedAddressFamily>() {
            None => Ok(allocation.relays().map(|relay| relay.id).collect()),
            Some(Ok(RequestedAddressFamily(family))) => {
                let relay = allocation.relay(family);
                let relay = relay.ok_or(Denied(code::PEER_FAMILY_MISMATCH))?;
                Ok(core::iter::once(relay.id).collect())
            }
            Some(Err(AttributeError::AddressFamily)) => Err(Denied(code::PEER_FAMILY_MISMATCH)),
            Some(Err(_)) => Err(BAD_REQUEST),
        }
    }

    /// Section 10.2: all addresses are judged before the first permission is made.
    pub(super) fn create_permission(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        id: AllocationId,
    ) -> Result<(), Denied> {
        let mut peers: SmallVec<[IpAddr; 8]> = SmallVec::new();
        for peer in proven.message.get_all::<XorPeerAddress>() {
            let XorPeerAddress(peer) = peer.map_err(|_| BAD_REQUEST)?;
            peers.push(peer.ip());
        }
        if peers.is_empty() {
            return Err(BAD_REQUEST);
        }
        let Some(allocation) = self.allocations.get(&id) else {
            return Err(Denied(code::ALLOCATION_MISMATCH));
        };
        for peer in &peers {
            self.judge_peer(allocation, *peer)?;
        }
        peers.sort_unstable();
        peers.dedup();
        let known = |ip: &&IpAddr| allocation.permissions.contains_key(*ip);
        let held = allocation.permissions.len();
        let new = peers
            .len()
            .saturating_sub(peers.iter().filter(known).count());
        if held.saturating_add(new) > self.config.limits.permissions {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        for peer in peers {
            self.permit(now, id, peer);
        }
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer);
        Ok(())
    }

    /// Whether an allocation may reach this address.
    pub(super) fn judge_peer(&self, allocation: &Allocation, peer: IpAddr) -> Result<(), Denied> {
        if allocation.relay(AddressFamily::of(peer)).is_none() {
            return Err(Denied(code::PEER_FAMILY_MISMATCH));
        }
        if !self.config.peers.allows_ip(peer) {
            return Err(Denied(code::FORBIDDEN));
        }
        Ok(())
    }

    /// Makes or renews a permission.
    fn permit(&mut self, now: Instant, id: AllocationId, peer: IpAddr) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let Some(relay) = allocation.relay(AddressFamily::of(peer)).map(|r| r.id) else {
            return;
        };
        let expires = deadline(now, PERMISSION_LIFETIME);
        self.timers.set(Timer::Permission(id, peer), expires);
        if allocation.permissions.insert(peer, expires).is_none() {
            self.out
                .events
                .push_back(Event::PermissionAdded { relay, peer });
        }
    }

    /// Section 12.2, checks in the order of severity: form, range, family, policy, conflicts, room.
    pub(super) fn channel_bind(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        id: AllocationId,
    ) -> Result<(), Denied> {
        let ChannelNumber(number) = proven.message.find().ok_or(BAD_REQUEST)?;
        let peer = proven.message.get::<XorPeerAddress>().ok_or(BAD_REQUEST)?;
        let channel = self.channel(number).ok_or(BAD_REQUEST)?;
        let XorPeerAddress(peer) = peer.map_err(|_| BAD_REQUEST)?;
        if peer.port() == 0 {
            return Err(BAD_REQUEST);
        }
        let Some(allocation) = self.allocations.get(&id) else {
            return Err(Denied(code::ALLOCATION_MISMATCH));
        };
        self.judge_peer(allocation, peer.ip())?;
        if allocation.protocol == RelayProtocol::Tcp
            || is_tunnel(peer.ip())
            || allocation.is_own(peer, &self.config.listeners)
        {
            return Err(Denied(code::FORBIDDEN));
        }
        let bound_to = allocation.peer_of(now, channel);
        let bound_by = allocation.channel_of(now, peer);
        let conflict = bound_to.is_some_and(|other| other != peer)
            || bound_by.is_some_and(|other| other != channel);
        if conflict {
            return Err(BAD_REQUEST);
        }
        let limits = self.config.limits;
        let no_channel = bound_to.is_none() && allocation.channels.len() >= limits.channels;
        let no_permission = !allocation.permissions.contains_key(&peer.ip())
            && allocation.permissions.len() >= limits.permissions;
        if no_channel || no_permission {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        self.bind(now, id, channel, peer);
        self.permit(now, id, peer.ip());
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer);
        Ok(())
    }

    fn bind(&mut self, now: Instant, id: AllocationId, channel: Channel, peer: SocketAddr) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let Some(relay) = allocation.relay(AddressFamily::of(peer.ip())) else {
            return;
        };
        let relay = relay.id;
        let expires = deadline(now, CHANNEL_LIFETIME);
        let binding = ChannelBinding { peer, expires };
        let renewed = allocation.channels.insert(channel, binding).is_some();
        allocation.by_peer.insert(peer, channel);
        self.timers.set(Timer::Channel(id, channel), expires);
        if !renewed {
            self.out.events.push_back(Event::ChannelBound {
                relay,
                channel,
                peer,
            });
        }
    }
}
