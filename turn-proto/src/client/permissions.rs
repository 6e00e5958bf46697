//! The permissions of a client (RFC 8656 section 9).

use core::net::IpAddr;
use core::time::Duration;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use smallvec::SmallVec;
use stun_proto::time::deadline;
use stun_proto::{Instant, Path};

use super::requests::Request;
use super::{Cause, ClientError, Core, Event, Timer, backoff};
use crate::wire::code;

const LIFETIME: Duration = Duration::from_secs(300);
const REFRESH_AFTER: Duration = Duration::from_secs(240);

/// Refreshes that are due so soon go along with one that is due now.
const BATCH_AHEAD: Duration = Duration::from_secs(10);

/// Addresses in one request, however much room there is.
const MAX_BATCH: usize = 16;

/// Longest request over datagrams whose way is not known (RFC 8489 section 6.1).
const SAFE_V4: usize = 548;
const SAFE_V6: usize = 1232;

/// Wait after a first failure; doubles.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(5);

/// How long a permission waits for a channel to the same address to refresh it.
const CHANNEL_FIRST: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
struct Permission {
    /// Until when data may flow; `None` when it may not, or not yet.
    live_until: Option<Instant>,
    /// A request for it is under way.
    pending: bool,
    failures: u32,
    /// Why the last request failed.
    cause: Cause,
    /// The failure has been told.
    told: bool,
    /// The server forbids it; it is not asked again.
    denied: bool,
    /// It is not refreshed any more.
    released: bool,
    /// It has waited for a channel.
    waited: bool,
}

impl Permission {
    const NEW: Self = Self {
        live_until: None,
        pending: false,
        failures: 0,
        cause: Cause::Timeout,
        told: false,
        denied: false,
        released: false,
        waited: false,
    };
}

/// All permissions, by the peer's address.
#[derive(Debug)]
pub(super) struct Permissions {
    by_peer: BTreeMap<IpAddr, Permission>,
    limit: usize,
}

impl Permissions {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            by_peer: BTreeMap::new(),
            limit,
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_peer.clear();
    }

    /// Whether data may flow.
    pub(super) fn is_live(&self, now: Instant, peer: IpAddr) -> bool {
        self.by_peer
            .get(&peer)
            .is_some_and(|p| p.live_until.is_some_and(|until| now < until))
    }

    pub(super) fn has_room_for(&self, peer: IpAddr) -> bool {
        self.by_peer.contains_key(&peer) || self.by_peer.len() < self.limit
    }

    /// Makes room for the permission that comes with a channel.
    pub(super) fn reserve(&mut self, peer: IpAddr) {
        self.by_peer.entry(peer).or_insert(Permission::NEW);
    }
}

impl Core {
    pub(super) fn create_permission(
        &mut self,
        now: Instant,
        peer: IpAddr,
    ) -> Result<(), ClientError> {
        if !self.permissions.has_room_for(peer) {
            return Err(ClientError::Limit);
        }
        let permission = self
            .permissions
            .by_peer
            .entry(peer)
            .or_insert(Permission::NEW);
        permission.released = false;
        let idle = !permission.pending
            && !permission.denied
            && permission.live_until.is_none()
            && self.timers.get(Timer::Permission(peer)).is_none();
        if idle {
            self.request_permission(now, peer);
        } else if !permission.pending
            && permission.live_until.is_some()
            && self.timers.get(Timer::Permission(peer)).is_none()
        {
            // It had been released: take up its refreshing again.
            self.refresh_permissions(now, peer);
        }
        Ok(())
    }

    fn request_permission(&mut self, now: Instant, peer: IpAddr) {
        if let Some(permission) = self.permissions.by_peer.get_mut(&peer) {
            permission.pending = true;
            self.start(now, Request::Permissions(SmallVec::from_slice(&[peer])));
        }
    }

    /// Stops refreshing: the permission lapses by itself.
    pub(super) fn release_permission(&mut self, peer: IpAddr) {
        if let Some(permission) = self.permissions.by_peer.get_mut(&peer) {
            permission.released = true;
            self.timers.disarm(Timer::Permission(peer));
            if permission.live_until.is_none() && !permission.pending {
                self.permissions.by_peer.remove(&peer);
            }
        }
    }

    /// Drops the permissions of a family that is no longer relayed.
    pub(super) fn forget_permissions(&mut self, gone: impl Fn(IpAddr) -> bool) {
        let peers: Vec<IpAddr> = self.permissions.by_peer.keys().copied().collect();
        for peer in peers.into_iter().filter(|ip| gone(*ip)) {
            self.permissions.by_peer.remove(&peer);
            self.timers.disarm(Timer::Permission(peer));
            self.timers.disarm(Timer::PermissionExpiry(peer));
        }
    }

    /// A permission is due for its refresh: others that will be soon go along.
    pub(super) fn refresh_permissions(&mut self, now: Instant, peer: IpAddr) {
        let binding = self.channels.is_binding(peer);
        let Some(permission) = self.permissions.by_peer.get_mut(&peer) else {
            return;
        };
        if permission.pending || permission.denied || permission.released {
            return;
        }
        if binding && !core::mem::replace(&mut permission.waited, true) {
            // A ChannelBind under way refreshes it as well.
            return self.timers.arm(Timer::Permission(peer), now, CHANNEL_FIRST);
        }
        // What has failed before goes alone, so that it stops nobody.
        let alone = permission.failures > 0;
        let soon = deadline(now, BATCH_AHEAD);
        let room = self.batch_size(peer);
        let mut batch: SmallVec<[IpAddr; 8]> = SmallVec::from_slice(&[peer]);
        if !alone {
            for (other, permission) in &self.permissions.by_peer {
                let due = self.timers.get(Timer::Permission(*other));
                let goes_along = !permission.pending
                    && permission.live_until.is_some()
                    && permission.failures == 0
                    && !self.channels.is_binding(*other)
                    && due.is_some_and(|at| soon.is_none_or(|soon| at <= soon));
                if batch.len() < room && *other != peer && goes_along {
                    batch.push(*other);
                }
            }
        }
        for ip in &batch {
            self.timers.disarm(Timer::Permission(*ip));
            if let Some(permission) = self.permissions.by_peer.get_mut(ip) {
                permission.pending = true;
            }
        }
        self.start(now, Request::Permissions(batch));
    }

    /// How many addresses fit into one request without its being fragmented.
    fn batch_size(&self, peer: IpAddr) -> usize {
        let longest = match self.link.path {
            Path::Datagram(at) if at.remote.is_ipv4() => SAFE_V4,
            Path::Datagram(_) | Path::Stream(_) => SAFE_V6,
        };
        // Dual allocations may have both families in one request.
        let each = if peer.is_ipv4() && !self.has_v6() {
            12
        } else {
            24
        };
        let room = longest.saturating_sub(self.overhead());
        room.checked_div(each)
            .unwrap_or_default()
            .clamp(1, MAX_BATCH)
    }

    pub(super) fn permissions_created(&mut self, now: Instant, sent: Instant, peers: &[IpAddr]) {
        for peer in peers {
            self.permission_live(now, sent, *peer);
        }
        self.nonce_is_fresh(now);
    }

    /// A request sent at `sent` made or renewed a permission.
    pub(super) fn permission_live(&mut self, now: Instant, sent: Instant, peer: IpAddr) {
        let was_live = self.permissions.is_live(now, peer);
        let permission = self
            .permissions
            .by_peer
            .entry(peer)
            .or_insert(Permission::NEW);
        let live_until = deadline(sent, LIFETIME);
        *permission = Permission {
            live_until,
            released: permission.released,
            ..Permission::NEW
        };
        self.timers.set(Timer::PermissionExpiry(peer), live_until);
        if !permission.released {
            self.timers
                .arm(Timer::Permission(peer), sent, REFRESH_AFTER);
        }
        if !was_live {
            self.tell(Event::PermissionCreated { peer });
        }
    }

    pub(super) fn permissions_failed(&mut self, now: Instant, peers: &[IpAddr], cause: Cause) {
        // One bad address must not block the others: each on its own.
        let refused = matches!(cause, Cause::Code(_) | Cause::Auth(_));
        for peer in peers {
            if refused && peers.len() > 1 {
                self.request_permission(now, *peer);
            } else {
                self.permission_failed(now, *peer, cause);
            }
        }
    }

    pub(super) fn permission_failed(&mut self, now: Instant, peer: IpAddr, cause: Cause) {
        let jitter = self.jitter();
        let Some(permission) = self.permissions.by_peer.get_mut(&peer) else {
            return;
        };
        permission.pending = false;
        permission.cause = cause;
        if permission.released && permission.live_until.is_none() {
            self.permissions.by_peer.remove(&peer);
            return;
        }
        permission.denied = is_denial(cause);
        if permission.denied {
            permission.live_until = None;
            self.timers.disarm(Timer::PermissionExpiry(peer));
        } else if !permission.released {
            let wait = backoff(RETRY_FIRST, permission.failures).saturating_add(jitter);
            permission.failures = permission.failures.saturating_add(1);
            self.timers.arm(Timer::Permission(peer), now, wait);
        }
        if permission.live_until.is_none() && !core::mem::replace(&mut permission.told, true) {
            self.tell(Event::PermissionFailed { peer, cause });
        }
    }

    pub(super) fn permission_expired(&mut self, peer: IpAddr) {
        let Some(permission) = self.permissions.by_peer.get_mut(&peer) else {
            return;
        };
        permission.live_until = None;
        permission.told = true;
        let cause = permission.cause;
        if permission.released {
            self.permissions.by_peer.remove(&peer);
        }
        self.tell(Event::PermissionFailed { peer, cause });
    }
}

/// Whether the server will say the same again whenever it is asked.
pub(super) fn is_denial(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::Code(code::FORBIDDEN | code::PEER_FAMILY_MISMATCH)
    )
}
