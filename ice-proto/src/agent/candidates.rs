//! The candidates of both sides (RFC 8445 sections 5.1 and 7.3.1.3, RFC 8838).

use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::net::SocketAddr;

use stun_proto::Instant;

use super::pairs::{Pair, PairState};
use super::{Agent, AgentState, Base, CandidateError, LocalCandidate, MAX_LOCAL, RouteLoss, Timer};
use crate::{Candidate, CandidateKind, ComponentId, RelayId, priority};

/// A local candidate, by its number in the order of adding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalId(u32);

/// A candidate of the other side, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RemoteId(u32);

/// A local candidate and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct KnownLocal {
    pub(super) candidate: LocalCandidate,
    pub(super) foundation: u32,
    pub(super) priority: u32,
    /// The other side has been told, or need not be.
    pub(super) conveyed: bool,
    /// From before a restart, and not known to be there still: not shown and not paired until it is
    /// added again.
    pub(super) withheld: bool,
}

impl KnownLocal {
    /// As a description shows it.
    pub(super) fn shown(&self) -> Candidate {
        Candidate {
            foundation: self.foundation.to_string(),
            component: self.candidate.component.component,
            priority: self.priority,
            addr: self.candidate.addr,
            kind: self.candidate.kind,
            related: self.candidate.related,
        }
    }

    /// The PRIORITY of a check from here: that of a peer-reflexive candidate (RFC 8445
    /// section 7.1.1).
    pub(super) const fn check_priority(&self) -> u32 {
        priority(
            CandidateKind::PeerReflexive,
            self.candidate.local_preference,
            self.candidate.component.component,
        )
    }

    /// Whether checks leave from this very address.
    pub(super) const fn is_base(&self) -> bool {
        matches!(
            self.candidate.kind,
            CandidateKind::Host | CandidateKind::Relayed
        )
    }
}

/// A candidate of the other side.
#[derive(Clone, Debug)]
pub(super) struct KnownRemote {
    pub(super) stream: u16,
    pub(super) candidate: Candidate,
    /// Equal numbers for equal foundations.
    pub(super) foundation: u32,
    /// Its pairs have been formed.
    pub(super) paired: bool,
}

/// What one walk over the candidates of the other side tells.
#[derive(Debug, Default)]
struct Survey {
    /// The candidate itself, and whether it is peer-reflexive.
    known: Option<(RemoteId, bool)>,
    /// Candidates of the component with the same IP address.
    of_address: usize,
    reflexive: usize,
    /// The least important one, with its priority.
    least: Option<(u32, RemoteId)>,
}

impl KnownRemote {
    const fn is_reflexive(&self) -> bool {
        matches!(self.candidate.kind, CandidateKind::PeerReflexive)
    }
}

impl Agent {
    /// This side's candidates for a description: the stream of each, and its line.
    pub fn local_candidates(&self) -> impl Iterator<Item = (u16, Candidate)> {
        self.locals
            .values()
            .filter(|known| known.candidate.kind != CandidateKind::PeerReflexive && !known.withheld)
            .map(|known| (known.candidate.component.stream, known.shown()))
    }

    /// Adds a candidate and returns what the description says about it.
    ///
    /// # Errors
    /// [`CandidateError`]; redundant ones are those with the same address and base, whatever
    /// their priority: the first one may have been signalled already.
    pub fn add_local_candidate(
        &mut self,
        now: Instant,
        candidate: LocalCandidate,
    ) -> Result<Candidate, CandidateError> {
        let now = self.clock.advance(now);
        if self.state == AgentState::Closed || self.gathering_done {
            return Err(CandidateError::Late);
        }
        if !self.has_component(candidate.component) {
            return Err(CandidateError::Component);
        }
        if self.config.lite && candidate.kind != CandidateKind::Host {
            return Err(CandidateError::Invalid);
        }
        let same = |known: &KnownLocal| {
            known.candidate.component == candidate.component
                && known.candidate.addr == candidate.addr
                && known.candidate.base == candidate.base
                && known.candidate.kind != CandidateKind::PeerReflexive
        };
        if let Some((id, known)) = self.locals.iter_mut().find(|(_, known)| same(known)) {
            if !core::mem::take(&mut known.withheld) {
                return Err(CandidateError::Redundant);
            }
            let (id, shown) = (*id, known.shown());
            self.pair_local(id);
            self.changed(now);
            return Ok(shown);
        }
        if self.locals.len() >= MAX_LOCAL {
            return Err(CandidateError::Limit);
        }
        let priority = self.unique_priority(&candidate);
        let conveyed = !self.config.explicit_conveyance;
        let id = self.insert_local(candidate, priority, conveyed);
        self.pair_local(id);
        self.changed(now);
        let shown = self.locals.get(&id).map(KnownLocal::shown);
        shown.ok_or(CandidateError::Limit)
    }

    /// The priority of a candidate, lowered until no other of its component has it (RFC 8445
    /// section 5.1.2).
    fn unique_priority(&self, candidate: &LocalCandidate) -> u32 {
        let component = candidate.component;
        let mut preference = candidate.local_preference;
        loop {
            let priority = priority(candidate.kind, preference, component.component);
            let taken = self
                .locals
                .values()
                .any(|known| known.candidate.component == component && known.priority == priority);
            if !taken || preference == 0 {
                return priority;
            }
            preference = preference.saturating_sub(1);
        }
    }

    pub(super) fn insert_local(
        &mut self,
        candidate: LocalCandidate,
        priority: u32,
        conveyed: bool,
    ) -> LocalId {
        let id = LocalId(self.next_id());
        let foundation = self.local_foundation(&candidate);
        let known = KnownLocal {
            candidate,
            foundation,
            priority,
            conveyed,
            withheld: false,
        };
        self.locals.insert(id, known);
        id
    }

    const fn next_id(&mut self) -> u32 {
        let id = self.next_candidate;
        self.next_candidate = self.next_candidate.saturating_add(1);
        id
    }

    /// One number for candidates of the same kind, base address and server (RFC 8445
    /// section 5.1.1.3).
    fn local_foundation(&self, candidate: &LocalCandidate) -> u32 {
        let base = |candidate: &LocalCandidate| match candidate.base {
            Base::Host(addr) => addr.ip(),
            Base::Relay(_) => candidate.addr.ip(),
        };
        let same = |known: &&KnownLocal| {
            let other = &known.candidate;
            other.kind == candidate.kind
                && other.server == candidate.server
                && base(other) == base(candidate)
        };
        match self.locals.values().find(same) {
            Some(known) => known.foundation,
            None => {
                let highest = self.locals.values().map(|known| known.foundation).max();
                highest.unwrap_or(0).saturating_add(1)
            }
        }
    }

    /// The other side has been told about a candidate of this one: it may be paired (RFC 8838
    /// section 10).
    pub fn candidate_conveyed(&mut self, now: Instant, component: ComponentId, addr: SocketAddr) {
        let now = self.clock.advance(now);
        let ids: Vec<LocalId> = self
            .locals
            .iter_mut()
            .filter(|(_, known)| {
                known.candidate.component == component && known.candidate.addr == addr
            })
            .map(|(id, known)| {
                known.conveyed = true;
                *id
            })
            .collect();
        ids.into_iter().for_each(|id| self.pair_local(id));
        self.changed(now);
    }

    /// No more local candidates will come, until a restart.
    pub fn local_gathering_done(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.gathering_done = true;
        self.changed(now);
    }

    /// A local address is gone, with all candidates it is the base of. Selected pairs that used it
    /// are lost.
    pub fn remove_base(&mut self, now: Instant, base: Base) {
        let now = self.clock.advance(now);
        let gone: Vec<LocalId> = self
            .locals
            .iter()
            .filter(|(_, known)| known.candidate.base == base)
            .map(|(id, _)| *id)
            .collect();
        self.remove_pairs(|pair| gone.contains(&pair.local));
        let lost: Vec<ComponentId> = self
            .streams()
            .flat_map(|stream| self.components(stream))
            .filter(|component| self.active(*component).is_some_and(|a| a.base == base))
            .collect();
        for component in lost {
            self.lose_route(component, RouteLoss::CandidateGone);
        }
        for id in &gone {
            self.locals.remove(id);
        }
        self.sources.retain(|route, _| base_of(*route) != base);
        self.checks.retain(|_, check| base_of(check.route) != base);
        self.outbox.retain(|(route, _)| base_of(*route) != base);
        if let Some(old) = &mut self.old {
            old.remove_base(base);
        }
        if let Base::Relay(relay) = base {
            self.permissions.retain(|(owner, _), _| *owner != relay);
        }
        self.changed(now);
    }

    /// After a restart: a relay has to be proven and added once more before it is a candidate again.
    pub(crate) fn withhold_relay(&mut self, relay: RelayId) {
        for known in self.locals.values_mut() {
            known.withheld |= known.candidate.base == Base::Relay(relay);
        }
    }

    /// Whether data of some component go, or went before a restart, over a relay.
    pub(crate) fn uses_relay(&self, relay: RelayId) -> bool {
        let base = Base::Relay(relay);
        let old = self.old.as_ref();
        self.selected.values().any(|s| s.base == base) || old.is_some_and(|old| old.uses(base))
    }

    /// A relay is gone: see [`remove_base`](Self::remove_base).
    pub fn relay_lost(&mut self, now: Instant, relay: RelayId) {
        self.remove_base(now, Base::Relay(relay));
    }

    /// Adds a candidate of the other side.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        stream: u16,
        candidate: Candidate,
    ) -> Result<(), CandidateError> {
        let now = self.clock.advance(now);
        if self.state == AgentState::Closed || self.remote_done {
            return Err(CandidateError::Late);
        }
        let component = ComponentId {
            stream,
            component: candidate.component,
        };
        if !self.has_component(component) {
            return Err(CandidateError::Component);
        }
        let ip = candidate.addr.ip();
        let impossible = !(1..=0x7FFF_FFFF).contains(&candidate.priority)
            || ip.is_unspecified()
            || ip.is_multicast()
            || candidate.addr.port() == 0;
        if impossible {
            return Err(CandidateError::Invalid);
        }
        let survey = self.survey(component, candidate.addr);
        match survey.known {
            Some((_, false)) => return Err(CandidateError::Redundant),
            Some((id, true)) => {
                self.now_signalled(id, candidate);
                self.changed(now);
                return Ok(());
            }
            None => {}
        }
        self.remote_room(&survey, candidate.priority)?;
        self.insert_remote(stream, candidate);
        self.arm_pace(now);
        Ok(())
    }

    /// A check has brought this candidate to light before it was signalled: its pairs go on, with
    /// their priority (RFC 8838 section 11).
    fn now_signalled(&mut self, id: RemoteId, candidate: Candidate) {
        let foundation = self.remote_foundation(&candidate.foundation);
        let Some(known) = self.remotes.get_mut(&id) else {
            return;
        };
        known.candidate = Candidate {
            priority: known.candidate.priority,
            ..candidate
        };
        known.foundation = foundation;
        for pair in self.pairs.values_mut() {
            if pair.remote == id {
                pair.foundation.1 = foundation;
            }
        }
    }

    /// What there is to know before a candidate of the other side is added, in one walk.
    fn survey(&self, component: ComponentId, addr: SocketAddr) -> Survey {
        let mut survey = Survey::default();
        for (id, known) in &self.remotes {
            let same_component = known.stream == component.stream
                && known.candidate.component == component.component;
            if same_component && known.candidate.addr.ip() == addr.ip() {
                survey.of_address = survey.of_address.saturating_add(1);
                if known.candidate.addr == addr {
                    survey.known = Some((*id, known.is_reflexive()));
                }
            }
            if known.is_reflexive() {
                survey.reflexive = survey.reflexive.saturating_add(1);
            }
            let rank = (known.candidate.priority, *id);
            if survey.least.is_none_or(|least| rank < least) {
                survey.least = Some(rank);
            }
        }
        survey
    }

    /// Makes room for a candidate of the other side, at the cost of a less important one.
    fn remote_room(&mut self, survey: &Survey, priority: u32) -> Result<(), CandidateError> {
        if survey.of_address >= self.config.max_per_address {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return Err(CandidateError::Limit);
        }
        if self.remotes.len() < self.config.max_remote {
            return Ok(());
        }
        self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
        let least = survey
            .least
            .filter(|(least, _)| *least < priority)
            .and_then(|(_, id)| self.unused_remote(id, priority));
        let least = least.ok_or(CandidateError::Limit)?;
        let gone = self.remotes.remove(&least);
        if gone.is_some_and(|known| known.paired) {
            self.remove_pairs(|pair| pair.remote == least);
        }
        Ok(())
    }

    /// The least important candidate of the other side that nothing depends on: `least`, unless
    /// something does.
    fn unused_remote(&self, least: RemoteId, priority: u32) -> Option<RemoteId> {
        let busy =
            |pair: &&Pair| matches!(pair.state, PairState::InProgress | PairState::Succeeded(_));
        let selected = self.selected.values().map(|selected| selected.remote);
        let busy = self.pairs.values().filter(busy).map(|pair| pair.remote);
        let in_use: smallvec::SmallVec<[RemoteId; 16]> = selected.chain(busy).collect();
        if !in_use.contains(&least) {
            return Some(least);
        }
        self.remotes
            .iter()
            .filter(|(id, known)| known.candidate.priority < priority && !in_use.contains(id))
            .min_by_key(|(_, known)| known.candidate.priority)
            .map(|(id, _)| *id)
    }

    pub(super) fn insert_remote(&mut self, stream: u16, candidate: Candidate) -> RemoteId {
        let id = RemoteId(self.next_id());
        let foundation = self.remote_foundation(&candidate.foundation);
        let known = KnownRemote {
            stream,
            candidate,
            foundation,
            paired: false,
        };
        self.remotes.insert(id, known);
        self.unpaired = true;
        id
    }

    /// The number of a foundation of the other side.
    fn remote_foundation(&self, text: &str) -> u32 {
        let known = self
            .remotes
            .values()
            .find(|known| known.candidate.foundation == text);
        known.map_or(self.next_candidate, |known| known.foundation)
    }

    /// The candidate of the other side a check came from; a new peer-reflexive one if it is not
    /// known (RFC 8445 section 7.3.1.3).
    pub(super) fn remote_at(
        &mut self,
        component: ComponentId,
        addr: SocketAddr,
        priority: u32,
    ) -> Option<RemoteId> {
        let survey = self.survey(component, addr);
        if let Some((id, _)) = survey.known {
            return Some(id);
        }
        if survey.reflexive >= self.config.max_peer_reflexive
            || self.remote_room(&survey, priority).is_err()
        {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return None;
        }
        let candidate = Candidate {
            // Shared with no other candidate.
            foundation: alloc::format!("prflx{}", self.next_candidate),
            component: component.component,
            priority: priority.min(0x7FFF_FFFF),
            addr,
            kind: CandidateKind::PeerReflexive,
            related: None,
        };
        Some(self.insert_remote(component.stream, candidate))
    }

    /// The other side has no more candidates; checks may still bring some to light.
    ///
    /// A stream has only as many components as both sides have (RFC 8445 section 6.1.2.2): those
    /// beyond the highest the other side has candidates for are given up.
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.remote_done = true;
        for stream in self.streams() {
            let known = self.remotes.values().filter(|known| known.stream == stream);
            let highest = known.map(|known| known.candidate.component).max();
            if let Some(highest) = highest {
                self.limit_components(now, stream, highest);
            }
        }
        self.changed(now);
    }

    /// A stream has no more than so many components: RTCP shares the first, for instance
    /// (RFC 5761).
    pub fn limit_components(&mut self, now: Instant, stream: u16, most: u16) {
        let now = self.clock.advance(now);
        let gone: Vec<ComponentId> = self
            .components(stream)
            .filter(|component| component.component > most)
            .collect();
        let Some(count) = self.config.components.get_mut(usize::from(stream)) else {
            return;
        };
        *count = (*count).min(most.max(1));
        for component in gone.into_iter().filter(|gone| gone.component > 1) {
            self.release_component(component);
            self.remove_pairs(|pair| pair.component == component);
            self.locals
                .retain(|_, known| known.candidate.component != component);
            self.remotes.retain(|_, known| {
                known.stream != stream || known.candidate.component != component.component
            });
            self.selected.remove(&component);
            self.timers.disarm(Timer::Consent(component));
            self.timers.disarm(Timer::ConsentExpiry(component));
            self.sources.retain(|_, owner| *owner != component);
            if let Some(old) = &mut self.old {
                old.remove_component(component);
            }
        }
        self.complete_stream(now, stream);
        self.changed(now);
    }

    /// Releases the bases only this component uses.
    fn release_component(&mut self, component: ComponentId) {
        let of = |own: bool| {
            let locals = self.locals.values();
            locals
                .filter(move |known| (known.candidate.component == component) == own)
                .map(|known| known.candidate.base)
        };
        let mut bases: Vec<Base> = of(true)
            .filter(|base| !of(false).any(|b| b == *base))
            .collect();
        bases.sort_unstable();
        bases.dedup();
        for base in bases {
            self.actions.push_back(super::Action::Release { base });
        }
    }

    /// After the grace the candidates that were not selected are of no use (RFC 8445
    /// section 8.3.1).
    pub(super) fn release_unselected(&mut self, stream: u16) {
        if let Some(list) = self.lists.get_mut(usize::from(stream)) {
            list.released = true;
        }
        self.timers.disarm(Timer::Grace(stream));
        let used = |base: Base| {
            self.selected.values().any(|selected| selected.base == base)
                || self.old.as_ref().is_some_and(|old| old.uses(base))
        };
        let mut bases: Vec<Base> = self
            .locals
            .values()
            .filter(|known| known.candidate.component.stream == stream)
            .map(|known| known.candidate.base)
            .filter(|base| !used(*base))
            .collect();
        bases.sort_unstable();
        bases.dedup();
        for base in bases {
            self.actions.push_back(super::Action::Release { base });
        }
    }
}

pub(super) const fn base_of(route: crate::Route) -> Base {
    match route {
        crate::Route::Datagram(at) => Base::Host(at.local),
        crate::Route::Relay { relay, .. } => Base::Relay(relay),
    }
}
