//! The permissions of a client (RFC 8656 section 9).

use core::net::IpAddr;
use core::time::Duration;

use alloc::collections::BTreeMap;

use smallvec::SmallVec;
use stun_proto::Instant;
use stun_proto::time::deadline;

use super::requests::Request;
use super::{Cause, ClientError, Core, Event, Timer};
use crate::wire::code;

const LIFETIME: Duration = Duration::from_secs(300);
const REFRESH_AFTER: Duration = Duration::from_secs(240);

/// Refreshes that are due so soon go along with one that is due now.
const BATCH_AHEAD: Duration = Duration::from_secs(10);

/// Addresses in one request, so that it stays below 548 bytes with all credentials.
const MAX_BATCH: usize = 4;

/// First wait after a failure; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Permission {
    /// Until when data may flow; `None` when it may not, or not yet.
    live_until: Option<Instant>,
    /// A request for it is under way.
    pending: bool,
    retry_wait: Duration,
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

    /// Notes that a permission is kept, made by whatever request.
    pub(super) fn has_room_for(&self, peer: IpAddr) -> bool {
        self.by_peer.contains_key(&peer) || self.by_peer.len() < self.limit
    }
}

impl Core {
    pub(super) fn create_permission(
        &mut self,
        now: Instant,
        peer: IpAddr,
    ) -> Result<(), ClientError> {
        if self.permissions.by_peer.contains_key(&peer) {
            return Ok(());
        }
        if !self.permissions.has_room_for(peer) {
            return Err(ClientError::Limit);
        }
        let permission = Permission {
            live_until: None,
            pending: true,
            retry_wait: RETRY_FIRST,
        };
        self.permissions.by_peer.insert(peer, permission);
        self.start(now, Request::Permissions(SmallVec::from_slice(&[peer])));
        Ok(())
    }

    /// A permission is due for its refresh: others that will be soon go along.
    pub(super) fn refresh_permissions(&mut self, now: Instant, peer: IpAddr) {
        let soon = deadline(now, BATCH_AHEAD);
        let mut batch: SmallVec<[IpAddr; 8]> = SmallVec::new();
        batch.push(peer);
        for (other, permission) in &self.permissions.by_peer {
            let due = self.timers.get(Timer::Permission(*other));
            let goes_along = !permission.pending
                && permission.live_until.is_some()
                && due.is_some_and(|at| soon.is_none_or(|soon| at <= soon));
            if batch.len() < MAX_BATCH && *other != peer && goes_along {
                batch.push(*other);
            }
        }
        batch.retain(|ip| {
            self.timers.disarm(Timer::Permission(*ip));
            let permission = self.permissions.by_peer.get_mut(ip);
            permission.is_some_and(|p| !core::mem::replace(&mut p.pending, true))
        });
        if !batch.is_empty() {
            self.start(now, Request::Permissions(batch));
        }
    }

    pub(super) fn permissions_created(&mut self, now: Instant, sent: Instant, peers: &[IpAddr]) {
        for peer in peers {
            self.permission_live(now, sent, *peer);
        }
    }

    /// A request sent at `sent` made or renewed a permission.
    pub(super) fn permission_live(&mut self, now: Instant, sent: Instant, peer: IpAddr) {
        let was_live = self.permissions.is_live(now, peer);
        let live_until = deadline(sent, LIFETIME);
        let permission = Permission {
            live_until,
            pending: false,
            retry_wait: RETRY_FIRST,
        };
        self.permissions.by_peer.insert(peer, permission);
        self.timers
            .arm(Timer::Permission(peer), sent, REFRESH_AFTER);
        self.timers.set(Timer::PermissionExpiry(peer), live_until);
        if !was_live {
            self.events.push_back(Event::PermissionCreated { peer });
        }
    }

    pub(super) fn permissions_failed(&mut self, now: Instant, peers: &[IpAddr], cause: Cause) {
        let refused = matches!(cause, Cause::Code(_));
        for peer in peers {
            let Some(permission) = self.permissions.by_peer.get_mut(peer) else {
                continue;
            };
            if refused && peers.len() > 1 {
                // One bad address must not block the others: each on its own.
                let single = SmallVec::from_slice(&[*peer]);
                self.start(now, Request::Permissions(single));
                continue;
            }
            permission.pending = false;
            let for_good = Cause::Code(code::FORBIDDEN) == cause
                || Cause::Code(code::PEER_FAMILY_MISMATCH) == cause;
            let wait = permission.retry_wait;
            permission.retry_wait = wait.saturating_mul(2).min(RETRY_LAST);
            let live = permission.live_until.is_some();
            if !for_good {
                let wait = wait.saturating_add(self.jitter());
                self.timers.arm(Timer::Permission(*peer), now, wait);
            }
            if for_good || !live {
                if let Some(permission) = self.permissions.by_peer.get_mut(peer) {
                    permission.live_until = None;
                }
                self.timers.disarm(Timer::PermissionExpiry(*peer));
                let peer = *peer;
                self.events
                    .push_back(Event::PermissionFailed { peer, cause });
            }
        }
    }

    pub(super) fn permission_expired(&mut self, peer: IpAddr) {
        if let Some(permission) = self.permissions.by_peer.get_mut(&peer) {
            permission.live_until = None;
            let cause = Cause::Timeout;
            self.events
                .push_back(Event::PermissionFailed { peer, cause });
        }
    }
}
