//! The channels of a client (RFC 8656 section 12).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use stun_proto::Instant;
use stun_proto::time::deadline;

use super::permissions::{RETRY_FIRST, is_denial};
use super::requests::Request;
use super::{Cause, ClientError, Core, Event, Timer, backoff};
use crate::wire::Channel;

const LIFETIME: Duration = Duration::from_secs(600);

/// Leaves time for two tries, and is a multiple of what permissions are refreshed after, so that
/// every second refresh serves both.
const REFRESH_AFTER: Duration = Duration::from_secs(480);

/// How long a number and its peer stay together after the channel has expired.
const COOL_DOWN: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked for; the server may be using it already.
    Binding,
    /// The server has it.
    Bound,
    /// The last request failed, the next is due.
    Failed,
    /// Not refreshed any more, or refused: the pair stays together until it has cooled down.
    CoolingDown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    channel: Channel,
    state: State,
    /// Until when the server has it for certain.
    live_until: Option<Instant>,
    /// A request for it is under way.
    pending: bool,
    failures: u32,
    cause: Cause,
    /// The failure has been told.
    told: bool,
    /// A request for the pair may have reached the server without the answer reaching us.
    maybe: bool,
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

    /// The peer that data on a channel comes from, and whether the server has confirmed the
    /// channel (RFC 8656 section 12.3 lets data come before).
    pub(super) fn peer_of(&self, now: Instant, channel: Channel) -> Option<(SocketAddr, bool)> {
        let peer = *self.by_number.get(&channel)?;
        let entry = self.by_peer.get(&peer)?;
        let confirmed = entry.live_until.is_some_and(|until| now < until);
        let live = match entry.state {
            State::Binding | State::Failed => true,
            State::Bound | State::CoolingDown => confirmed,
        };
        live.then_some((peer, confirmed))
    }

    /// The channel to reach a peer by, once the server has confirmed it.
    pub(super) fn bound(&self, now: Instant, peer: SocketAddr) -> Option<Channel> {
        let entry = self.by_peer.get(&peer)?;
        let confirmed = entry.live_until.is_some_and(|until| now < until);
        (entry.state == State::Bound && confirmed).then_some(entry.channel)
    }

    pub(super) fn number_of(&self, peer: SocketAddr) -> Option<Channel> {
        self.by_peer.get(&peer).map(|entry| entry.channel)
    }

    /// Whether a request for a channel to this address is under way.
    pub(super) fn is_binding(&self, ip: IpAddr) -> bool {
        let ports = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        self.by_peer.range(ports).any(|(_, entry)| entry.pending)
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

    fn remove(&mut self, peer: SocketAddr) {
        if let Some(entry) = self.by_peer.remove(&peer) {
            self.by_number.remove(&entry.channel);
        }
    }
}

impl Core {
    pub(super) fn bind_channel(
        &mut self,
        now: Instant,
        peer: SocketAddr,
    ) -> Result<(), ClientError> {
        let entry = match self.channels.by_peer.get(&peer) {
            Some(entry) if entry.state != State::CoolingDown => return Ok(()),
            // The pair of before may be bound again at once.
            Some(entry) => Entry {
                state: State::Binding,
                told: false,
                ..*entry
            },
            None => {
                let full = self.channels.by_peer.len() >= self.channels.limit;
                if full || !self.permissions.has_room_for(peer.ip()) {
                    return Err(ClientError::Limit);
                }
                Entry {
                    channel: self.channels.free_number().ok_or(ClientError::Limit)?,
                    state: State::Binding,
                    live_until: None,
                    pending: false,
                    failures: 0,
                    cause: Cause::Timeout,
                    told: false,
                    maybe: false,
                }
            }
        };
        self.permissions.reserve(peer.ip());
        self.channels.by_peer.insert(peer, entry);
        self.channels.by_number.insert(entry.channel, peer);
        self.timers.disarm(Timer::ChannelExpiry(peer));
        self.request_channel(now, peer);
        Ok(())
    }

    /// Asks the server to bind or refresh, unless that is under way.
    pub(super) fn request_channel(&mut self, now: Instant, peer: SocketAddr) {
        if let Some(entry) = self.channels.by_peer.get_mut(&peer)
            && !core::mem::replace(&mut entry.pending, true)
        {
            self.start(now, Request::Bind(peer));
        }
    }

    /// Stops refreshing: the channel lapses by itself and then cools down.
    pub(super) fn release_channel(&mut self, now: Instant, peer: SocketAddr) {
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        if entry.state != State::CoolingDown {
            entry.state = State::CoolingDown;
            self.timers.disarm(Timer::Channel(peer));
            let rest = match entry.live_until {
                Some(until) => until.max(now),
                None => deadline(now, LIFETIME).unwrap_or(now),
            };
            let free = deadline(rest, COOL_DOWN);
            self.timers.set(Timer::ChannelExpiry(peer), free);
        }
    }

    /// Drops the channels of a family that is no longer relayed.
    pub(super) fn forget_channels(&mut self, gone: impl Fn(IpAddr) -> bool) {
        let peers: Vec<SocketAddr> = self.channels.by_peer.keys().copied().collect();
        for peer in peers.into_iter().filter(|peer| gone(peer.ip())) {
            self.channels.remove(peer);
            self.timers.disarm(Timer::Channel(peer));
            self.timers.disarm(Timer::ChannelExpiry(peer));
        }
    }

    pub(super) fn channel_bound(&mut self, now: Instant, sent: Instant, peer: SocketAddr) {
        self.nonce_is_fresh(now);
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        entry.pending = false;
        entry.live_until = deadline(sent, LIFETIME);
        entry.failures = 0;
        entry.maybe = true;
        entry.cause = Cause::Timeout;
        let live_until = entry.live_until;
        match entry.state {
            State::CoolingDown => {
                // Released meanwhile.
                let free = live_until.and_then(|until| deadline(until, COOL_DOWN));
                self.timers.set(Timer::ChannelExpiry(peer), free);
            }
            State::Binding | State::Bound | State::Failed => {
                let new = entry.state != State::Bound;
                entry.state = State::Bound;
                entry.told = false;
                self.timers.arm(Timer::Channel(peer), sent, REFRESH_AFTER);
                self.timers.set(Timer::ChannelExpiry(peer), live_until);
                if new {
                    self.tell(Event::ChannelBound { peer });
                }
            }
        }
        self.permission_live(now, sent, peer.ip());
    }

    /// The pair is kept together: the server may have bound it although no answer came.
    pub(super) fn channel_failed(&mut self, now: Instant, peer: SocketAddr, cause: Cause) {
        let jitter = self.jitter();
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        entry.pending = false;
        entry.cause = cause;
        entry.maybe |= !matches!(cause, Cause::Code(_) | Cause::TooLong);
        match entry.state {
            State::CoolingDown => return,
            State::Binding | State::Bound | State::Failed if is_denial(cause) => {
                self.refuse_channel(now, peer, cause);
            }
            State::Binding | State::Bound | State::Failed => {
                let wait = backoff(RETRY_FIRST, entry.failures).saturating_add(jitter);
                entry.failures = entry.failures.saturating_add(1);
                self.timers.arm(Timer::Channel(peer), now, wait);
                if entry.state != State::Bound {
                    entry.state = State::Failed;
                    if !core::mem::replace(&mut entry.told, true) {
                        self.tell(Event::ChannelFailed { peer, cause });
                    }
                }
            }
        }
        if cause == Cause::Code(stun_proto::wire::ErrorCode::BAD_REQUEST) {
            self.bad_bind(now, peer);
        }
    }

    /// The server forbids this peer: nothing is asked again.
    fn refuse_channel(&mut self, now: Instant, peer: SocketAddr, cause: Cause) {
        let maybe = self.channels.by_peer.get(&peer).is_some_and(|e| e.maybe);
        if maybe {
            self.release_channel(now, peer);
        } else {
            // The server cannot have bound it: the number is free.
            self.channels.remove(peer);
            self.timers.disarm(Timer::Channel(peer));
        }
        self.tell(Event::ChannelFailed { peer, cause });
    }

    /// A 400 for a well-formed ChannelBind: either the allocation is gone and the server says it
    /// in its own way, or the two sides have different ideas of the channels. A Refresh tells;
    /// when a second peer meets the same, the allocation is given up (RFC 8656 section 12.3).
    fn bad_bind(&mut self, now: Instant, peer: SocketAddr) {
        match self.bad_bind {
            Some(other) if other != peer => {
                let cause = Cause::OutOfSync;
                self.delete(now, Event::AllocationLost { cause });
            }
            Some(_) | None => {
                self.bad_bind = Some(peer);
                self.refresh(now);
            }
        }
    }

    /// A channel has expired, or cooled down.
    pub(super) fn channel_expired(&mut self, peer: SocketAddr) {
        let Some(entry) = self.channels.by_peer.get_mut(&peer) else {
            return;
        };
        match entry.state {
            // Asked for again as before, with the same number.
            State::Binding | State::Bound | State::Failed => {
                entry.state = State::Failed;
                entry.live_until = None;
                let cause = entry.cause;
                if !core::mem::replace(&mut entry.told, true) {
                    self.tell(Event::ChannelFailed { peer, cause });
                }
            }
            State::CoolingDown => self.channels.remove(peer),
        }
    }
}
