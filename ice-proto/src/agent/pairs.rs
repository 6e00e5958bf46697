//! Pairs and checklists (RFC 8445 section 6.1.2).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use core::time::Duration;

use stun_proto::{FiveTuple, Instant};

use super::{Agent, Base, LocalCandidate, Role};
use crate::{Candidate, CandidateKind, ComponentId, Route, pair_priority, priority};

/// Where a pair stands (RFC 8445 section 6.1.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairState {
    Frozen,
    Waiting,
    InProgress,
    Succeeded { rtt: Duration },
    Failed,
}

/// A pair, by its number in the order of making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairId(u32);

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) component: ComponentId,
    /// Indices of the candidates.
    pub(super) local: usize,
    pub(super) remote: usize,
    pub(super) route: Route,
    pub(super) state: PairState,
    /// The local candidate as the other side sees it, once a check has told.
    pub(super) mapped: Option<usize>,
    /// The other side has nominated it: it is selected as soon as it works.
    pub(super) wanted: bool,
    /// This side nominates it with its next check.
    pub(super) nominating: bool,
}

/// The checks of one stream.
#[derive(Debug, Default)]
pub(super) struct Checklist {
    /// Pairs to check before all others, in the order they came.
    pub(super) triggered: VecDeque<PairId>,
    /// Since when every component has a valid pair.
    pub(super) complete_since: Option<Instant>,
}

/// What a description calls a foundation, for a local candidate (RFC 8445 section 5.1.1.3).
pub(super) fn foundation(all: &[KnownLocal], candidate: &LocalCandidate) -> String {
    let same = |other: &LocalCandidate| {
        other.kind == candidate.kind
            && other.server == candidate.server
            && base_ip(other) == base_ip(candidate)
    };
    match all.iter().find(|known| same(&known.candidate)) {
        Some(known) => known.foundation.clone(),
        None => {
            let mut seen: alloc::vec::Vec<&str> =
                all.iter().map(|known| known.foundation.as_str()).collect();
            seen.sort_unstable();
            seen.dedup();
            alloc::format!("{}", seen.len().saturating_add(1))
        }
    }
}

fn base_ip(candidate: &LocalCandidate) -> core::net::IpAddr {
    match candidate.base {
        Base::Host(addr) => addr.ip(),
        Base::Relay(_) => candidate.addr.ip(),
    }
}

/// A local candidate and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct KnownLocal {
    pub(super) candidate: LocalCandidate,
    pub(super) foundation: String,
    pub(super) priority: u32,
}

impl KnownLocal {
    /// As a description shows it.
    pub(super) fn shown(&self) -> Candidate {
        Candidate {
            foundation: self.foundation.clone(),
            component: self.candidate.component.component,
            priority: self.priority,
            addr: self.candidate.addr,
            kind: self.candidate.kind,
            related: self.candidate.related,
        }
    }

    /// The PRIORITY of a check from here: that of a peer-reflexive candidate.
    pub(super) fn check_priority(&self) -> u32 {
        let candidate = &self.candidate;
        priority(
            CandidateKind::PeerReflexive,
            candidate.local_preference,
            candidate.component.component,
        )
    }
}

/// A candidate of the other side.
#[derive(Clone, Debug)]
pub(super) struct KnownRemote {
    pub(super) stream: u16,
    pub(super) candidate: Candidate,
}

/// All pairs, in the order of making.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) all: BTreeMap<PairId, Pair>,
    next: u32,
}

impl Pairs {
    pub(super) fn insert(&mut self, pair: Pair) -> PairId {
        let id = PairId(self.next);
        self.next = self.next.saturating_add(1);
        self.all.insert(id, pair);
        id
    }
}

impl Agent {
    pub(super) fn pair_priority(&self, pair: &Pair) -> u64 {
        let local = self.locals.get(pair.local).map_or(0, |l| l.priority);
        let remote = self
            .remotes
            .get(pair.remote)
            .map_or(0, |r| r.candidate.priority);
        match self.role {
            Role::Controlling => pair_priority(local, remote),
            Role::Controlled => pair_priority(remote, local),
        }
    }

    /// The foundations of both candidates.
    fn foundations(&self, pair: &Pair) -> (&str, &str) {
        let local = self.locals.get(pair.local).map(|l| l.foundation.as_str());
        let remote = self
            .remotes
            .get(pair.remote)
            .map(|r| r.candidate.foundation.as_str());
        (local.unwrap_or_default(), remote.unwrap_or_default())
    }

    /// The way from a local candidate's base to an address.
    fn route_from(local: &LocalCandidate, remote: core::net::SocketAddr) -> Route {
        match local.base {
            Base::Host(base) => Route::Datagram(FiveTuple::udp(base, remote)),
            Base::Relay(relay) => Route::Relay {
                relay,
                peer: remote,
            },
        }
    }

    pub(super) fn find_pair(&self, component: ComponentId, route: Route) -> Option<PairId> {
        self.pairs
            .all
            .iter()
            .find(|(_, pair)| pair.component == component && pair.route == route)
            .map(|(id, _)| *id)
    }

    /// Pairs a new local or remote candidate with all of the other side (RFC 8445 section 6.1.2.2).
    pub(super) fn pair_up(
        &mut self,
        locals: core::ops::Range<usize>,
        remotes: core::ops::Range<usize>,
    ) {
        for local in locals {
            for remote in remotes.clone() {
                self.form_pair(local, remote);
            }
        }
    }

    /// Forms the pair of two candidates, if they fit and it is not there yet.
    pub(super) fn form_pair(&mut self, local: usize, remote: usize) -> Option<PairId> {
        let (l, r) = (self.locals.get(local)?, self.remotes.get(remote)?);
        // A reflexive candidate is checked from its base, whose pair is there as well.
        let sends = matches!(
            l.candidate.kind,
            CandidateKind::Host | CandidateKind::Relayed
        );
        let component = l.candidate.component;
        let (ours, theirs) = (l.candidate.addr.ip(), r.candidate.addr.ip());
        let fits = component.stream == r.stream
            && component.component == r.candidate.component
            && ours.is_ipv4() == theirs.is_ipv4()
            && is_link_local(ours) == is_link_local(theirs);
        if !sends || !fits || self.is_concluded(component) {
            return None;
        }
        let route = Self::route_from(&l.candidate, r.candidate.addr);
        if let Some(known) = self.find_pair(component, route) {
            return Some(known);
        }
        let pair = Pair {
            component,
            local,
            remote,
            route,
            state: PairState::Frozen,
            mapped: None,
            wanted: false,
            nominating: false,
        };
        if self.pairs.all.len() >= self.config.max_pairs && !self.make_room(&pair) {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return None;
        }
        self.ask_permission(route);
        let state = self.first_state(&pair);
        let id = self.pairs.insert(Pair { state, ..pair });
        Some(id)
    }

    /// Drops the least important pair that is not in use, if the new one is more important.
    fn make_room(&mut self, new: &Pair) -> bool {
        let idle = |pair: &Pair| {
            matches!(
                pair.state,
                PairState::Frozen | PairState::Waiting | PairState::Failed
            )
        };
        let rank = |pair: &Pair| (pair.state != PairState::Failed, self.pair_priority(pair));
        let least = self
            .pairs
            .all
            .iter()
            .filter(|(_, pair)| idle(pair))
            .min_by_key(|(_, pair)| rank(pair))
            .filter(|(_, pair)| rank(pair) < (true, self.pair_priority(new)))
            .map(|(id, _)| *id);
        match least {
            Some(id) => {
                self.remove_pair(id);
                true
            }
            None => false,
        }
    }

    pub(super) fn remove_pair(&mut self, id: PairId) {
        if let Some(pair) = self.pairs.all.remove(&id) {
            self.cancel_checks(id);
            if let Some(list) = self.lists.get_mut(usize::from(pair.component.stream)) {
                list.triggered.retain(|queued| *queued != id);
            }
        }
    }

    /// The state a new pair begins in (RFC 8445 section 6.1.2.6, RFC 8838 section 12): of each
    /// foundation over all streams, one pair waits, the others are frozen until it has worked.
    fn first_state(&self, new: &Pair) -> PairState {
        let foundation = self.foundations(new);
        let mut alike = self
            .pairs
            .all
            .values()
            .filter(|pair| self.foundations(pair) == foundation)
            .peekable();
        if alike.peek().is_none() {
            return PairState::Waiting;
        }
        if alike.any(|pair| matches!(pair.state, PairState::Succeeded { .. })) {
            PairState::Waiting
        } else {
            PairState::Frozen
        }
    }

    /// Chooses anew which pair of each foundation waits, while none has been checked: first
    /// stream, lowest component, highest priority.
    pub(super) fn refreeze(&mut self) {
        let untouched = self
            .pairs
            .all
            .values()
            .all(|pair| matches!(pair.state, PairState::Frozen | PairState::Waiting));
        if !untouched {
            return;
        }
        let mut order: alloc::vec::Vec<_> = self.pairs.all.keys().copied().collect();
        order.sort_by_key(|id| {
            let pair = self.pairs.all.get(id);
            pair.map(|pair| (pair.component, core::cmp::Reverse(self.pair_priority(pair))))
        });
        let mut seen: alloc::vec::Vec<(String, String)> = alloc::vec::Vec::new();
        for id in order {
            let Some(pair) = self.pairs.all.get(&id) else {
                continue;
            };
            let (l, r) = self.foundations(pair);
            let foundation = (String::from(l), String::from(r));
            let state = if seen.contains(&foundation) {
                PairState::Frozen
            } else {
                seen.push(foundation);
                PairState::Waiting
            };
            self.set_state(id, state);
        }
    }

    /// A pair has worked: those of the same foundation may be checked (RFC 8445
    /// section 7.2.5.3.3).
    pub(super) fn unfreeze_like(&mut self, id: PairId) {
        let Some(pair) = self.pairs.all.get(&id) else {
            return;
        };
        let (l, r) = self.foundations(pair);
        let foundation = (String::from(l), String::from(r));
        let frozen: alloc::vec::Vec<PairId> = self
            .pairs
            .all
            .iter()
            .filter(|(_, pair)| {
                pair.state == PairState::Frozen
                    && self.foundations(pair) == (foundation.0.as_str(), foundation.1.as_str())
            })
            .map(|(id, _)| *id)
            .collect();
        for id in frozen {
            self.set_state(id, PairState::Waiting);
        }
    }

    pub(super) fn set_state(&mut self, id: PairId, state: PairState) {
        if let Some(pair) = self.pairs.all.get_mut(&id) {
            pair.state = state;
        }
    }

    /// The next pair of a stream to check (RFC 8445 section 6.1.4.2): a triggered one, else the most
    /// important waiting one, unfreezing where nothing waits.
    pub(super) fn next_check(&mut self, stream: u16) -> Option<PairId> {
        let queue = self
            .lists
            .get(usize::from(stream))
            .map(|list| list.triggered.clone())
            .unwrap_or_default();
        let ready = queue.into_iter().find(|id| {
            let pair = self.pairs.all.get(id);
            pair.is_some_and(|pair| self.is_permitted(pair.route))
        });
        if let Some(id) = ready {
            if let Some(list) = self.lists.get_mut(usize::from(stream)) {
                list.triggered.retain(|queued| *queued != id);
            }
            return Some(id);
        }
        if !self.any_waiting(stream) {
            self.unfreeze_one_of_each(stream);
        }
        self.pairs
            .all
            .iter()
            .filter(|(_, pair)| {
                pair.component.stream == stream
                    && pair.state == PairState::Waiting
                    && self.is_permitted(pair.route)
            })
            .min_by_key(|(_, pair)| {
                (
                    core::cmp::Reverse(self.pair_priority(pair)),
                    pair.component.component,
                )
            })
            .map(|(id, _)| *id)
    }

    fn any_waiting(&self, stream: u16) -> bool {
        self.pairs.all.values().any(|pair| {
            pair.component.stream == stream
                && pair.state == PairState::Waiting
                && self.is_permitted(pair.route)
        })
    }

    /// Of each foundation of which nothing waits or is in progress anywhere, lets one pair wait.
    fn unfreeze_one_of_each(&mut self, stream: u16) {
        let mut order: alloc::vec::Vec<PairId> = self
            .pairs
            .all
            .iter()
            .filter(|(_, p)| p.component.stream == stream && p.state == PairState::Frozen)
            .map(|(id, _)| *id)
            .collect();
        order.sort_by_key(|id| {
            let pair = self.pairs.all.get(id);
            pair.map(|pair| (pair.component, core::cmp::Reverse(self.pair_priority(pair))))
        });
        for id in order {
            let Some(pair) = self.pairs.all.get(&id) else {
                continue;
            };
            let foundation = self.foundations(pair);
            let active = self.pairs.all.values().any(|other| {
                matches!(other.state, PairState::Waiting | PairState::InProgress)
                    && self.foundations(other) == foundation
            });
            if !active {
                self.set_state(id, PairState::Waiting);
            }
        }
    }
}

const fn is_link_local(ip: core::net::IpAddr) -> bool {
    match ip {
        core::net::IpAddr::V4(_) => false,
        core::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
