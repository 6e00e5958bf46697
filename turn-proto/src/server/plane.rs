//! The data plane (RFC 8656 sections 11 and 12): no queue, no copy, no allocation of memory.

use core::net::SocketAddr;

use stun_proto::wire::{Attribute, Message, MessageType, Writer};
use stun_proto::{FiveTuple, Instant, Path, Received};

use super::allocation::{Allocation, AllocationId};
use super::output::{Forward, RelayId, RelayProtocol, RelayTo, count};
use super::{Account, Core, Users, canonical};
use crate::data::DataHeader;
use crate::wire::{
    self, AddressFamily, Channel, ChannelData, Data, DontFragment, Icmp, XorPeerAddress,
};

/// How a client names a peer.
#[derive(Clone, Copy, Debug)]
enum Target {
    Channel(Channel),
    Peer(SocketAddr),
}

impl<U: Users> Core<U> {
    pub(super) fn datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        let path = Path::Datagram(at);
        if let Some((channel, data)) = self.channel_datagram(data) {
            let now = self.clock.advance(now);
            return self.channel_data(now, path, channel, data);
        }
        let Ok(message) = Message::parse(data) else {
            return Received::NotMine;
        };
        let now = self.clock.advance(now);
        self.message(now, path, at, &message)
    }

    fn channel_datagram<'a>(&self, datagram: &'a [u8]) -> Option<(Channel, &'a [u8])> {
        if let Some(ChannelData { channel, data }) = ChannelData::parse(datagram) {
            return Some((channel, data));
        }
        if !self.config.rfc5766_channels {
            return None;
        }
        let ([c1, c0, l1, l0], rest) = datagram.split_first_chunk()?;
        let channel = Channel::new_rfc5766(u16::from_be_bytes([*c1, *c0]))?;
        let len = usize::from(u16::from_be_bytes([*l1, *l0]));
        Some((channel, rest.get(..len)?))
    }

    /// The channel with this number, if it is one that may be bound here.
    pub(super) const fn channel(&self, number: u16) -> Option<Channel> {
        if self.config.rfc5766_channels {
            Channel::new_rfc5766(number)
        } else {
            Channel::new(number)
        }
    }

    pub(super) fn channel_data<'a>(
        &mut self,
        now: Instant,
        path: Path,
        channel: Channel,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        self.relay_to_peer(now, path, Target::Channel(channel), false, data)
    }

    pub(super) fn send_indication<'a>(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'a>,
    ) -> Received<'a, RelayTo> {
        let peer: Option<XorPeerAddress> = message.find();
        let data: Option<Data<'a>> = message.find();
        let dont_fragment = message.has(<DontFragment as Attribute<'_>>::TYPE);
        let settable = self.config.dont_fragment;
        let known = |ty| {
            ty == <XorPeerAddress as Attribute<'_>>::TYPE
                || ty == <Data<'_> as Attribute<'_>>::TYPE
                || (settable && ty == <DontFragment as Attribute<'_>>::TYPE)
        };
        let understood = message.unknown_required(known).next().is_none();
        let intact = message.check_fingerprint() != Some(false);
        match (peer, data) {
            (Some(XorPeerAddress(peer)), Some(Data(data))) if understood && intact => {
                self.relay_to_peer(now, path, Target::Peer(peer), dont_fragment, data)
            }
            _ => {
                count(&mut self.stats.malformed);
                Received::Consumed
            }
        }
    }

    /// Lets a client's data through if there is a permission for where it goes.
    fn relay_to_peer<'a>(
        &mut self,
        now: Instant,
        path: Path,
        target: Target,
        dont_fragment: bool,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        let found = self.by_path.get(&path.into()).copied();
        let Some((id, allocation)) =
            found.and_then(|id| Some((id, self.allocations.get_mut(&id)?)))
        else {
            return self.not_permitted();
        };
        let moved = allocation.path != path;
        let listeners = &self.config.listeners;
        let Some((relay, peer)) = allocation.way_to(now, target, listeners) else {
            return self.not_permitted();
        };
        if !may_spend(
            &mut self.accounts,
            &allocation.username,
            self.config.limits.user_bandwidth,
            now,
            data.len(),
        ) {
            count(&mut self.stats.over_bandwidth);
            return Received::Consumed;
        }
        if let Some(counted) = allocation.relay_mut(AddressFamily::of(peer.ip())) {
            counted.to_peers = counted.to_peers.saturating_add(data.len() as u64);
        }
        if moved {
            self.arrived(id);
        }
        Received::Data {
            peer: RelayTo {
                relay,
                peer,
                dont_fragment,
            },
            data,
        }
    }

    pub(super) const fn not_permitted<'a>(&mut self) -> Received<'a, RelayTo> {
        count(&mut self.stats.not_permitted);
        Received::Consumed
    }

    pub(super) fn allocation_at(&self, path: Path) -> Option<(AllocationId, &Allocation)> {
        let id = *self.by_path.get(&path.into())?;
        Some((id, self.allocations.get(&id)?))
    }

    pub(super) fn relay_to_client(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        len: usize,
    ) -> Option<Forward> {
        let now = self.clock.advance(now);
        let from = canonical(from);
        let id = self.by_relay.get(&relay)?;
        let allocation = self.allocations.get_mut(id)?;
        if !allocation.receives(now, relay, from) {
            count(&mut self.stats.not_permitted);
            return None;
        }
        let header = match allocation.channel_of(now, from) {
            Some(channel) => {
                let stream = matches!(allocation.path, Path::Stream(_));
                DataHeader::channel(channel, len, stream)
            }
            None => {
                let id = self.rng.transaction_id();
                DataHeader::indication(wire::DATA, id, from, len, false)
            }
        }?;
        if !may_spend(
            &mut self.accounts,
            &allocation.username,
            self.config.limits.user_bandwidth,
            now,
            len,
        ) {
            count(&mut self.stats.over_bandwidth);
            return None;
        }
        let to = allocation.path;
        if let Some(counted) = allocation.relay_mut(AddressFamily::of(from.ip())) {
            counted.to_client = counted.to_client.saturating_add(len as u64);
        }
        Some(Forward { to, header })
    }

    pub(super) fn icmp_to_client(
        &mut self,
        now: Instant,
        relay: RelayId,
        peer: SocketAddr,
        icmp: Icmp,
    ) {
        let now = self.clock.advance(now);
        let peer = canonical(peer);
        let v4 = peer.is_ipv4();
        let relevant = if v4 {
            matches!(icmp.ty, 3 | 11)
        } else {
            matches!(icmp.ty, 1..=3)
        };
        let allocation = self
            .by_relay
            .get(&relay)
            .and_then(|id| self.allocations.get(id))
            .filter(|allocation| relevant && allocation.receives(now, relay, peer));
        let Some(allocation) = allocation else {
            return;
        };
        if self.out.is_full(self.config.limits.responses) {
            return count(&mut self.stats.responses_dropped);
        }
        let has_mtu = if v4 {
            icmp.ty == 3 && icmp.code == 4
        } else {
            icmp.ty == 2
        };
        let data = if has_mtu { icmp.data } else { 0 };
        let id = self.rng.transaction_id();
        let ty = MessageType::indication(wire::DATA);
        self.out.send(allocation.path, |buf| {
            Writer::new(buf, ty, id)
                .attribute(&XorPeerAddress(peer))
                .attribute(&Icmp { data, ..icmp })
                .finish()
        });
    }
}

impl Allocation {
    /// The relay and peer that data for this target goes to, if it may.
    fn way_to(
        &self,
        now: Instant,
        target: Target,
        listeners: &[SocketAddr],
    ) -> Option<(RelayId, SocketAddr)> {
        let peer = match target {
            // Judged when it was bound.
            Target::Channel(channel) => self.peer_of(now, channel)?,
            Target::Peer(peer) if self.is_own(peer, listeners) => return None,
            Target::Peer(peer) => peer,
        };
        let relay = self.relay(AddressFamily::of(peer.ip()))?;
        let may = self.protocol == RelayProtocol::Udp
            && relay.is_live(now)
            && self.permits(now, peer.ip());
        may.then_some((relay.id, peer))
    }

    /// Whether an address can be no peer: without port, or the server itself.
    pub(super) fn is_own(&self, peer: SocketAddr, listeners: &[SocketAddr]) -> bool {
        let listens = |at: &SocketAddr| {
            at.port() == peer.port() && (at.ip() == peer.ip() || self.is_local(at, peer))
        };
        peer.port() == 0 || peer == canonical(self.client.local) || listeners.iter().any(listens)
    }

    /// Whether a listener on every address listens on this one, as far as can be known: on the
    /// addresses of this allocation.
    fn is_local(&self, listener: &SocketAddr, peer: SocketAddr) -> bool {
        let same = |at: SocketAddr| at.ip() == peer.ip();
        listener.ip().is_unspecified()
            && (same(canonical(self.client.local))
                || self.relays().filter_map(|relay| relay.relayed).any(same))
    }

    /// Whether what came from this peer to this relay is for the client.
    fn receives(&self, now: Instant, relay: RelayId, from: SocketAddr) -> bool {
        let live = self
            .relay(AddressFamily::of(from.ip()))
            .is_some_and(|held| held.id == relay && held.is_live(now));
        let reachable = !self.mobility.as_ref().is_some_and(|moves| moves.lost);
        live && reachable
            && self.is_open()
            && self.protocol == RelayProtocol::Udp
            && self.permits(now, from.ip())
    }
}

impl Account {
    /// Adds what has come together since it was last looked at.
    pub(super) fn gain(&mut self, per_second: u64, now: Instant) {
        // In whole milliseconds: what is left of one counts next time.
        let millis = now.duration_since(self.seen).as_millis();
        let gained = millis.saturating_mul(u128::from(per_second)) / 1000;
        if gained > 0 {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.credit = self.credit.saturating_add(gained).min(per_second);
            self.seen = now;
        }
    }
}

/// Whether a user may relay so many bytes more now; they are taken off if so.
fn may_spend(
    accounts: &mut alloc::collections::BTreeMap<alloc::vec::Vec<u8>, Account>,
    username: &[u8],
    per_second: u64,
    now: Instant,
    len: usize,
) -> bool {
    if per_second == 0 {
        return true;
    }
    let Some(account) = accounts.get_mut(username) else {
        return true;
    };
    account.gain(per_second, now);
    match account.credit.checked_sub(len as u64) {
        Some(left) => {
            account.credit = left;
            true
        }
        None => false,
    }
}
