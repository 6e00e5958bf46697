//! Nominating and concluding (RFC 8445 section 8).

use core::time::Duration;

use stun_proto::Instant;
use stun_proto::time::deadline;

use super::candidates::{LocalId, RemoteId, base_of};
use super::pairs::{Pair, PairId};
use super::schedule::ListState;
use super::{Action, Agent, AgentState, Base, Event, Failure, Nomination, Role, Timer};
use crate::{Candidate, CandidateKind, ComponentId, Route};

/// What a component has settled on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected {
    pub(super) route: Route,
    pub(super) base: Base,
    /// The candidate the checks leave from.
    pub(super) local: LocalId,
    /// The same as the other side sees it.
    pub(super) shown: LocalId,
    pub(super) remote: RemoteId,
    pub(super) priority: u64,
    /// When something was last sent that way, as far as is known.
    pub(super) last_sent: Instant,
    /// Nothing may be sent that way any more.
    pub(super) lost: bool,
    /// The other side has no ICE.
    pub(super) plain: bool,
}

/// A pair about to be selected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) component: ComponentId,
    pub(super) route: Route,
    pub(super) local: LocalId,
    /// The local candidate as the other side sees it.
    pub(super) shown: LocalId,
    pub(super) remote: RemoteId,
    pub(super) priority: u64,
    pub(super) rtt: Duration,
    /// When it was last known to work.
    pub(super) since: Instant,
    /// The other side has no ICE.
    pub(super) plain: bool,
}

/// Why a pair cannot be nominated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NominateError {
    /// The other side decides.
    #[error("the other side nominates")]
    NotControlling,
    /// One has been nominated for this component already: only a restart makes another possible.
    #[error("a pair is nominated already")]
    Nominated,
    /// No check has succeeded that way.
    #[error("no valid pair takes this route")]
    NotValid,
}

impl Agent {
    /// Whether a component has a pair that stays: no others are formed any more.
    pub(super) fn is_concluded(&self, component: ComponentId) -> bool {
        self.selected.contains_key(&component) && !self.may_reselect()
    }

    /// Whether another pair may be selected after the first: where the other side follows RFC 5245
    /// and nominates several, or the host wants it.
    fn may_reselect(&self) -> bool {
        let ice2 = self.there.as_ref().is_none_or(|there| there.remote.ice2);
        self.role == Role::Controlled && (!ice2 || self.config.follow_latest)
    }

    /// The most important pair of a component that works.
    fn best_valid(&self, component: ComponentId) -> Option<PairId> {
        self.pairs
            .iter()
            .filter(|(_, pair)| pair.component == component)
            .filter_map(|(id, pair)| Some((id, pair.valid()?.priority)))
            .max_by_key(|(_, priority)| *priority)
            .map(|(id, _)| *id)
    }

    /// Nominates what is good enough, gives up what is hopeless.
    pub(super) fn conclude(&mut self, now: Instant) {
        if self.state != AgentState::Running || self.there.is_none() {
            return;
        }
        self.pair_new_remotes();
        self.pair_lite_with_lite(now);
        for stream in self.streams() {
            if !self.is_running(stream) {
                continue;
            }
            if self.role == Role::Controlling
                && let Nomination::After(delay) = self.config.nomination
            {
                self.nominate_stream(now, stream, delay);
            }
            if self.is_hopeless(stream) {
                self.fail_stream(stream);
            }
        }
        self.update_state();
    }

    /// The state of the session from those of its streams (RFC 8445 section 6.1.3).
    fn update_state(&mut self) {
        let mut wanted = self.lists.iter().filter(|list| !list.removed).peekable();
        if self.state != AgentState::Running || wanted.peek().is_none() {
            return;
        }
        let (completed, failed) = (ListState::Completed, ListState::Failed);
        let generation = self.generation;
        if wanted.clone().all(|list| list.state == completed) {
            self.state = AgentState::Completed;
            self.events.push_back(Event::Completed { generation });
        } else if wanted.all(|list| list.state == failed) {
            self.state = AgentState::Failed;
            self.checks.clear();
            self.outbox.clear();
            self.old = None;
            self.events.push_back(Event::Failed {
                cause: Failure::NoPair,
                generation,
            });
        }
        if !self
            .lists
            .iter()
            .any(|list| list.state == ListState::Running)
        {
            self.timers.disarm(Timer::Patience);
        }
    }

    /// Regular nomination (RFC 8445 section 8.1.1): at once when nothing better can come, else
    /// after the delay.
    fn nominate_stream(&mut self, now: Instant, stream: u16, delay: Duration) {
        let best: smallvec::SmallVec<[PairId; 4]> = self
            .components(stream)
            .filter_map(|component| self.best_valid(component))
            .collect();
        let complete = best.len() == self.components(stream).count();
        let Some(list) = self.lists.get_mut(usize::from(stream)) else {
            return;
        };
        if !complete {
            list.complete_since = None;
            self.timers.disarm(Timer::Nominate(stream));
            return;
        }
        let since = *list.complete_since.get_or_insert(now);
        let waited = now.duration_since(since) >= delay;
        let good = best
            .iter()
            .all(|id| !self.better_may_come(*id) || self.is_direct(*id));
        if !waited && !good {
            self.timers
                .set(Timer::Nominate(stream), deadline(since, delay));
            return;
        }
        self.timers.disarm(Timer::Nominate(stream));
        let kinds = best.first().and_then(|first| self.kinds(*first));
        for id in best {
            let id = self.same_kind(id, kinds);
            let component = self.pairs.get(&id).map(|pair| pair.component);
            let settled = component.is_none_or(|component| {
                self.selected.contains_key(&component) || self.is_nominating(component)
            });
            if !settled {
                self.nominate_pair(id);
            }
        }
    }

    fn nominate_pair(&mut self, id: PairId) {
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.nominating = true;
        }
        self.trigger(id);
    }

    /// Nominates the pair that takes `route`, where the host decides ([`Nomination::Host`]) or
    /// does not want to wait.
    ///
    /// # Errors
    /// [`NominateError`].
    pub fn nominate(
        &mut self,
        now: Instant,
        component: ComponentId,
        route: Route,
    ) -> Result<(), NominateError> {
        let now = self.clock.advance(now);
        if self.role != Role::Controlling || self.config.lite {
            return Err(NominateError::NotControlling);
        }
        if self.selected.contains_key(&component) || self.is_nominating(component) {
            return Err(NominateError::Nominated);
        }
        let id = self.find_pair(component, route).filter(|id| {
            let pair = self.pairs.get(id);
            pair.is_some_and(|pair| pair.valid().is_some())
        });
        self.nominate_pair(id.ok_or(NominateError::NotValid)?);
        self.changed(now);
        Ok(())
    }

    /// The routes of a component that work, with the round trip of each, the most important first.
    pub fn valid_routes(&self, component: ComponentId) -> alloc::vec::Vec<(Route, Duration)> {
        let mut valid: alloc::vec::Vec<_> = self
            .pairs
            .values()
            .filter(|pair| pair.component == component)
            .filter_map(|pair| Some((pair.route, pair.valid()?)))
            .collect();
        valid.sort_by_key(|(_, valid)| core::cmp::Reverse(valid.priority));
        valid
            .into_iter()
            .map(|(route, valid)| (route, valid.rtt))
            .collect()
    }

    fn kinds(&self, id: PairId) -> Option<(CandidateKind, CandidateKind)> {
        let pair = self.pairs.get(&id)?;
        let local = self.locals.get(&pair.valid()?.mapped)?;
        let remote = self.remotes.get(&pair.remote)?;
        Some((local.candidate.kind, remote.candidate.kind))
    }

    /// Another valid pair of the same component, if it is of these kinds and the first is not:
    /// all components had better take the same kind of way.
    fn same_kind(&self, id: PairId, kinds: Option<(CandidateKind, CandidateKind)>) -> PairId {
        let component = self.pairs.get(&id).map(|pair| pair.component);
        if kinds.is_none() || self.kinds(id) == kinds {
            return id;
        }
        let alike = self
            .pairs
            .iter()
            .filter(|(other, pair)| {
                Some(pair.component) == component && self.kinds(**other) == kinds
            })
            .filter_map(|(other, pair)| Some((*other, pair.valid()?.priority)))
            .max_by_key(|(_, priority)| *priority);
        alike.map_or(id, |(other, _)| other)
    }

    fn is_direct(&self, id: PairId) -> bool {
        self.kinds(id) == Some((CandidateKind::Host, CandidateKind::Host))
    }

    /// Whether a more important pair of the same component is still to be decided.
    fn better_may_come(&self, than: PairId) -> bool {
        let Some(known) = self.pairs.get(&than) else {
            return false;
        };
        let priority = known.priority;
        self.pairs.values().any(|pair| {
            pair.component == known.component && pair.priority > priority && pair.is_open()
        })
    }

    /// Whether some component of a stream will never have a pair (RFC 8445 section 7.2.5.4,
    /// RFC 8838 section 8). The end of patience stands for an end of candidates that never came.
    fn is_hopeless(&self, stream: u16) -> bool {
        if self.patient || !self.gathering_done {
            return false;
        }
        let undecided = |pair: &Pair| pair.is_open() && self.is_permitted(pair.route);
        let stuck = !self.has_budget();
        self.components(stream).any(|component| {
            let mut pairs = self
                .pairs
                .values()
                .filter(|pair| pair.component == component);
            !self.selected.contains_key(&component)
                && self.best_valid(component).is_none()
                && (stuck || !pairs.any(undecided))
        })
    }

    fn fail_stream(&mut self, stream: u16) {
        if let Some(list) = self.lists.get_mut(usize::from(stream)) {
            list.state = ListState::Failed;
        }
        self.remove_pairs(|pair| pair.component.stream == stream);
        for component in self.components(stream) {
            self.selected.remove(&component);
            self.timers.disarm(Timer::Consent(component));
            self.timers.disarm(Timer::ConsentExpiry(component));
        }
        self.timers.disarm(Timer::Nominate(stream));
        self.sources
            .retain(|_, component| component.stream != stream);
        let generation = self.generation;
        self.events
            .push_back(Event::StreamFailed { stream, generation });
    }

    /// A pair is nominated and works: its component uses it (RFC 8445 section 8.1.2).
    pub(super) fn select(&mut self, now: Instant, id: PairId) {
        let Some(pair) = self.pairs.get(&id) else {
            return;
        };
        let (Some(valid), component) = (pair.valid(), pair.component) else {
            return;
        };
        let known = self.selected.get(&component);
        // Consent that has expired or was withdrawn stays so until a restart (RFC 7675
        // section 5.1): a late nomination does not bring the pair back.
        if known.is_some_and(|known| known.lost && known.route == pair.route) {
            return;
        }
        let age = now.duration_since(valid.since);
        if self.config.consent.is_some() && age >= self.config.consent_timeout {
            // It has not been used so far, and must show once more that it works.
            return self.trigger(id);
        }
        if let Some(known) = known.filter(|known| !known.lost) {
            let better = self.config.follow_latest || valid.priority > known.priority;
            if known.route == pair.route || !better || !self.may_reselect() {
                return;
            }
        }
        let choice = Choice {
            component,
            route: pair.route,
            local: pair.local,
            shown: valid.mapped,
            remote: pair.remote,
            priority: valid.priority,
            rtt: valid.rtt,
            since: valid.since,
            plain: false,
        };
        self.settle(now, choice);
        let concluded = self.is_concluded(component);
        let follow = self.config.follow_latest;
        let least = self.pairs.get(&id).map_or(0, |pair| pair.priority);
        self.remove_pairs(|other| {
            let lower = other.priority < least && !follow;
            other.component == component && other.route != choice.route && (concluded || lower)
        });
    }

    /// A component uses this pair from now on.
    pub(super) fn settle(&mut self, now: Instant, choice: Choice) {
        let Choice {
            component,
            route,
            local,
            remote,
            ..
        } = choice;
        let shown = self.locals.get(&choice.shown);
        let (Some(l), Some(r)) = (shown, self.remotes.get(&remote)) else {
            return;
        };
        self.events.push_back(Event::Selected {
            component,
            local: l.shown(),
            remote: r.candidate.clone(),
            rtt: choice.rtt,
            route,
            generation: self.generation,
        });
        self.selected.insert(
            component,
            Selected {
                route,
                base: base_of(route),
                local,
                shown: choice.shown,
                remote,
                priority: choice.priority,
                last_sent: now,
                lost: false,
                plain: choice.plain,
            },
        );
        if let Route::Relay { relay, peer } = route {
            self.actions.push_back(Action::BindChannel { relay, peer });
        }
        self.replace_old(component);
        self.begin_consent(now, component, choice.since);
        self.complete_stream(now, component.stream);
    }

    pub(super) fn complete_stream(&mut self, now: Instant, stream: u16) {
        let all = self
            .components(stream)
            .all(|component| self.selected.contains_key(&component));
        if !all || !self.is_running(stream) {
            return;
        }
        if let Some(list) = self.lists.get_mut(usize::from(stream)) {
            list.state = ListState::Completed;
        }
        self.timers.disarm(Timer::Nominate(stream));
        if self.config.lite {
            self.release_unselected(stream);
        } else {
            let grace = self.config.grace;
            self.timers.arm(Timer::Grace(stream), now, grace);
        }
        self.update_state();
    }

    /// The pairs of a stream, if checks have settled on one for each component.
    pub(crate) fn settled(&self, stream: u16) -> Option<alloc::vec::Vec<(Candidate, Candidate)>> {
        let pairs = self.components(stream).map(|component| {
            let plain = self.selected.get(&component)?.plain;
            self.selected(component).filter(|_| !plain)
        });
        let pairs: Option<alloc::vec::Vec<_>> = pairs.collect();
        pairs.filter(|pairs| !pairs.is_empty())
    }

    /// The selected pair of a component: this side's candidate and the other's.
    pub fn selected(&self, component: ComponentId) -> Option<(Candidate, Candidate)> {
        let selected = self.selected.get(&component)?;
        let local = self.locals.get(&selected.shown)?;
        let remote = self.remotes.get(&selected.remote)?;
        Some((local.shown(), remote.candidate.clone()))
    }

    /// Where data of a component goes now: the selected pair; before there is one the best that
    /// works, or after a restart the one selected before it. `None` while nothing does.
    ///
    /// The answer is that of the latest time the agent has been told, by
    /// [`data_sent`](Self::data_sent) for instance.
    pub fn route(&self, component: ComponentId) -> Option<Route> {
        let list = self.lists.get(usize::from(component.stream))?;
        if list.removed || list.state == ListState::Failed {
            return None;
        }
        if let Some(active) = self.active(component) {
            let whole = || {
                let mut all = self.components(component.stream);
                all.all(|component| self.selected.contains_key(&component))
            };
            // A lite agent sends nothing before every component has its pair.
            let may = !self.config.lite || self.old.is_some() || whole();
            return Some(active.route).filter(|_| may && !active.lost);
        }
        let pair = self.pairs.get(&self.best_valid(component)?)?;
        let age = self.clock.now().duration_since(pair.valid()?.since);
        let fresh = self.config.consent.is_none() || age < self.config.consent_timeout;
        fresh.then_some(pair.route)
    }
}
