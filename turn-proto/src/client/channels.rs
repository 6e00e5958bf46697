//! The channels of a client (RFC 8656 section 12).

use core::net::SocketAddr;
use core::time::Duration;

use alloc::collections::BTreeMap;

use stun_proto::Instant;
use stun_proto::time::deadline;

use super::requests::Request;
use super::{Cause, ClientError, Core, Event, Timer};
use crate::wire::Channel;

const LIFETIME: Duration = Duration::from_secs(600);
const REFRESH_AFTER: Duration = Duration::from_secs(540);

/// How long a number and its peer stay together after the channel has expired.
const COOL_DOWN: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked for; the server may be using it already.
    Binding,
    Bound,
    /// Expired or failed: the pair stays together until it has cooled down.
    CoolingDown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    channel: Channel,
    state: State,
    live_until: Option<Instant>,
}

/// All channels, by peer and by number.
#[derive(Debug)]
pub(super) struct Channels {
    by_peer: BTreeMap<SocketAddr, Entry>,
    by_number: BTreeMap<Channel, SocketAddr>,
    limit: usize,
    next: u16,
}

impl Channels {
    pub(super) const fn new(limit: usize, first: u16) -> Self {
        Self {
            by_peer: BTreeMap::new(),
            by_number: BTreeMap::new(),
            limit,
            next: first,
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_peer.clear();
        self.by_number.clear();
    }

    /// The peer that data on a channel comes from.
    pub(super) fn peer_of(&self, now: Instant, channel: Channel) -> Option<SocketAddr> {
        let peer = *self.by_number.get(&channel)?;
        let entry = self.by_peer.get(&peer)?;
        let live = match entry.state {
            State::Binding => true,
            State::Bound => entry.live_until.is_none_or(|until| now < until),
            State::CoolingDown => false,
        };
        live.then_some(peer)
    }

    /// The channel to reach a peer by, once the server has confirmed it.
    pub(super) fn bound(&self, now: Instant, peer: SocketAddr) -> Option<Channel> {
        let entry = self.by_peer.get(&peer)?;
        let live = entry.state == State::Bound && entry.live_until.is_none_or(|until| now < until);
        live.then_some(entry.channel)
    }

    pub(super) fn number_of(&self, peer: SocketAddr) -> Option<Channel> {
        self.by_peer.get(&peer).map(|entry| entry.channel)
    }

    /// A number no peer has, going round so that each rests as long as possible.
    fn free_number(&mut self) -> Option<Channel> {
        for _ in 0..0x1000 {
            let number = 0x4000 | (self.next & 0xFFF);
            self.next = self.next.wrapping_add(1);
            let channel = Channel::new(number)?;
            if !self.by_number.contains_key(&channel) {
                return Some(channel);
            }
        }
        None
    }
}

impl Core {
    pub(super) fn bind_channel(
        &mut self,
        now: Instant,
        peer: SocketAddr,
    ) -> Result<(), ClientError> {
        let channel = match self.channels.by_peer.get(&peer) {
            Some(entry) if entry.state != State::CoolingDown => return Ok(()),
            // The pair of before may be bound again at once.
            Some(entry) => entry.channel,
            None => {
                let full = self.channels.by_peer.len() >= self.channels.limit;
                if full || !self.permissions.has_room_for(peer.ip()) {
                    return Err(ClientError::Limit);
                }
                self.channels.free_number().ok_or(ClientError::Limit)?
            }
        };
        let entry = Entry {
            channel,
            state: State::Binding,
            live_until: None,
        };
        self.channels.by_peer.insert(peer, entry);
        self.channels.by_number.insert(channel, peer);
        self.timers.disarm(Timer::ChannelExpiry(peer));
        self.start(now, Request::Bind(peer));
        Ok(())
    }

    pub(super) fn channel_bound(&mut self, now: Instant, sent: Instant, peer: SocketAddr) {
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        let new = entry.state != State::Bound;
        entry.state = State::Bound;
        entry.live_until = deadline(sent, LIFETIME);
        let live_until = entry.live_until;
        self.timers.arm(Timer::Channel(peer), sent, REFRESH_AFTER);
        self.timers.set(Timer::ChannelExpiry(peer), live_until);
        self.permission_live(now, sent, peer.ip());
        if new {
            self.events.push_back(Event::ChannelBound { peer });
        }
    }

    /// The pair is kept together: the server may have bound it although no answer came.
    pub(super) fn channel_failed(&mut self, peer: SocketAddr, cause: Cause) {
        let now = self.clock.now();
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        match (entry.state, entry.live_until) {
            (State::Bound, Some(until)) if now < until => {
                // A refresh failed; there is still time.
                self.timers
                    .arm(Timer::Channel(peer), now, Duration::from_secs(5));
            }
            (State::Binding | State::Bound | State::CoolingDown, _) => {
                entry.state = State::CoolingDown;
                entry.live_until = None;
                let rest = LIFETIME.saturating_add(COOL_DOWN);
                self.timers.disarm(Timer::Channel(peer));
                self.timers.arm(Timer::ChannelExpiry(peer), now, rest);
                self.events.push_back(Event::ChannelFailed { peer, cause });
            }
        }
    }

    /// A channel has expired, or cooled down.
    pub(super) fn channel_expired(&mut self, now: Instant, peer: SocketAddr) {
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        match entry.state {
            State::Binding | State::Bound => {
                entry.state = State::CoolingDown;
                entry.live_until = None;
                self.timers.disarm(Timer::Channel(peer));
                self.timers.arm(Timer::ChannelExpiry(peer), now, COOL_DOWN);
                let cause = Cause::Timeout;
                self.events.push_back(Event::ChannelFailed { peer, cause });
            }
            State::CoolingDown => {
                let channel = entry.channel;
                self.channels.by_peer.remove(&peer);
                self.channels.by_number.remove(&channel);
            }
        }
    }
}
