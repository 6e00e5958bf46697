//! Pairs of candidates (RFC 8445 section 6.1.2).

use alloc::vec::Vec;
use core::time::Duration;

use stun_proto::{FiveTuple, Instant};

use super::candidates::{LocalId, RemoteId};
use super::{Agent, Base};
use crate::{CandidateKind, ComponentId, Route};

/// Where a pair stands (RFC 8445 section 6.1.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairState {
    Frozen,
    Waiting,
    InProgress,
    Succeeded(Valid),
    Failed,
}

/// What a check that succeeded has told (RFC 8445 section 7.2.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Valid {
    /// This side's candidate as the other side sees it.
    pub(super) mapped: LocalId,
    /// The priority of the pair with that candidate.
    pub(super) priority: u64,
    pub(super) rtt: Duration,
    /// When the answer came: consent counts from here.
    pub(super) since: Instant,
}

/// A pair, by its number in the order of making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairId(u32);

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) component: ComponentId,
    pub(super) local: LocalId,
    pub(super) remote: RemoteId,
    pub(super) route: Route,
    pub(super) state: PairState,
    pub(super) priority: u64,
    /// The numbers of both candidates' foundations.
    pub(super) foundation: (u32, u32),
    /// Its first state is still to be chosen; until then it is frozen.
    pub(super) fresh: bool,
    /// The other side has nominated it: it is selected as soon as it works.
    pub(super) wanted: bool,
    /// This side nominates it with its next check.
    pub(super) nominating: bool,
}

impl Pair {
    pub(super) const fn valid(&self) -> Option<Valid> {
        match self.state {
            PairState::Succeeded(valid) => Some(valid),
            PairState::Frozen | PairState::Waiting | PairState::InProgress | PairState::Failed => {
                None
            }
        }
    }

    pub(super) const fn is_active(&self) -> bool {
        matches!(self.state, PairState::Waiting | PairState::InProgress)
    }

    /// It has still to be decided whether it works.
    pub(super) const fn is_open(&self) -> bool {
        matches!(
            self.state,
            PairState::Frozen | PairState::Waiting | PairState::InProgress
        )
    }
}

impl Agent {
    /// Computes all priorities anew, because the role has changed.
    pub(super) fn reprioritize(&mut self) {
        let role = self.role;
        let priority = |id: LocalId, remote: u32| {
            let local = self.locals.get(&id).map_or(0, |known| known.priority);
            role.pair_priority(local, remote)
        };
        for pair in self.pairs.values_mut() {
            let remote = self.remotes.get(&pair.remote);
            let remote = remote.map_or(0, |known| known.candidate.priority);
            pair.priority = priority(pair.local, remote);
            if let PairState::Succeeded(valid) = &mut pair.state {
                valid.priority = priority(valid.mapped, remote);
            }
        }
    }

    /// The way from a base to an address.
    pub(super) const fn route_from(base: Base, remote: core::net::SocketAddr) -> Route {
        match base {
            Base::Host(local) => Route::Datagram(FiveTuple::udp(local, remote)),
            Base::Relay(relay) => Route::Relay {
                relay,
                peer: remote,
            },
        }
    }

    pub(super) fn find_pair(&self, component: ComponentId, route: Route) -> Option<PairId> {
        self.pairs
            .iter()
            .find(|(_, pair)| pair.component == component && pair.route == route)
            .map(|(id, _)| *id)
    }

    /// Pairs a new local candidate with all of the other side.
    pub(super) fn pair_local(&mut self, local: LocalId) {
        let remotes: Vec<RemoteId> = self.remotes.keys().copied().collect();
        for remote in remotes {
            self.form_pair(local, remote);
        }
    }

    /// Pairs the new candidates of the other side with all of this one. That is put off until
    /// their effect is asked for, so that a long description does not form pairs only to drop
    /// them for better ones.
    pub(super) fn pair_new_remotes(&mut self) {
        if !core::mem::take(&mut self.unpaired) {
            return;
        }
        let remotes = self.remotes.iter_mut().filter(|(_, known)| !known.paired);
        let remotes: Vec<RemoteId> = remotes
            .map(|(id, known)| {
                known.paired = true;
                *id
            })
            .collect();
        let locals: Vec<LocalId> = self.locals.keys().copied().collect();
        for remote in remotes {
            for local in &locals {
                self.form_pair(*local, remote);
            }
        }
    }

    /// Forms the pair of two candidates, if they fit and it is not there yet (RFC 8445
    /// sections 6.1.2.2 and 6.1.2.4).
    pub(super) fn form_pair(&mut self, local: LocalId, remote: RemoteId) -> Option<PairId> {
        let (l, r) = (self.locals.get(&local)?, self.remotes.get(&remote)?);
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
        if self.config.lite
            || !l.conveyed
            || l.withheld
            || !sends
            || !fits
            || self.is_concluded(component)
        {
            return None;
        }
        let route = Self::route_from(l.candidate.base, r.candidate.addr);
        if let Some(known) = self.find_pair(component, route) {
            return Some(known);
        }
        let pair = Pair {
            component,
            local,
            remote,
            route,
            state: PairState::Frozen,
            priority: self.role.pair_priority(l.priority, r.candidate.priority),
            foundation: (l.foundation, r.foundation),
            fresh: true,
            wanted: false,
            nominating: false,
        };
        if self.pairs.len() >= self.config.max_pairs && !self.make_room(&pair) {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return None;
        }
        self.ask_permission(route);
        let id = PairId(self.next_pair);
        self.next_pair = self.next_pair.saturating_add(1);
        self.pairs.insert(id, pair);
        Some(id)
    }

    /// Drops a pair for a new one: a failed one, else the least important that is not in use, of
    /// the stream that has most (RFC 8838 section 10). `false` when the new one is the least.
    fn make_room(&mut self, new: &Pair) -> bool {
        let mut counts: smallvec::SmallVec<[usize; 8]> =
            smallvec::SmallVec::from_elem(0, self.lists.len());
        for pair in self.pairs.values() {
            if let Some(count) = counts.get_mut(usize::from(pair.component.stream)) {
                *count = count.saturating_add(1);
            }
        }
        let count = |pair: &Pair| counts.get(usize::from(pair.component.stream)).copied();
        let ours = count(new).unwrap_or(0).saturating_add(1);
        let idle = |pair: &Pair| {
            matches!(
                pair.state,
                PairState::Frozen | PairState::Waiting | PairState::Failed
            )
        };
        let failed = |pair: &Pair| pair.state == PairState::Failed;
        let least = self
            .pairs
            .iter()
            .filter(|(_, pair)| idle(pair) && !pair.wanted)
            .min_by_key(|(_, pair)| {
                let spread = core::cmp::Reverse(count(pair));
                (!failed(pair), spread, pair.priority)
            })
            .filter(|(_, pair)| {
                let fuller = count(pair).unwrap_or(0) > ours;
                failed(pair) || fuller || pair.priority < new.priority
            })
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
        if let Some(pair) = self.pairs.remove(&id) {
            self.cancel_checks(id);
            if let Some(list) = self.lists.get_mut(usize::from(pair.component.stream)) {
                list.triggered.retain(|queued| *queued != id);
            }
        }
    }

    pub(super) fn remove_pairs(&mut self, concerned: impl Fn(&Pair) -> bool) {
        let ids: Vec<PairId> = self
            .pairs
            .iter()
            .filter(|(_, pair)| concerned(pair))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.remove_pair(id));
    }

    pub(super) fn fail_pairs(&mut self, now: Instant, concerned: impl Fn(&Pair) -> bool) {
        let ids: Vec<PairId> = self
            .pairs
            .iter()
            .filter(|(_, pair)| concerned(pair))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.cancel_checks(id);
            self.unqueue(id);
            if let Some(pair) = self.pairs.get_mut(&id) {
                pair.state = PairState::Failed;
                pair.nominating = false;
            }
        }
        self.changed(now);
    }
}

const fn is_link_local(ip: core::net::IpAddr) -> bool {
    match ip {
        core::net::IpAddr::V4(_) => false,
        core::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
