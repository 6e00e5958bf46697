//! Starting over without losing what works (RFC 8445 section 9).

use alloc::collections::BTreeMap;

use stun_proto::Instant;

use alloc::vec::Vec;

use super::candidates::{KnownLocal, KnownRemote, LocalId, RemoteId, base_of};
use super::checks::Purpose;
use super::conclude::Selected;
use super::pairs::{Pair, PairId, PairState};
use super::schedule::{Checklist, ListState};
use super::{Action, Agent, AgentState, Base, Credentials, Here, Permission, Role, There, Timer};
use crate::{CandidateKind, ComponentId, Route};

/// What was agreed on before the restart.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) generation: u32,
    pub(super) here: Here,
    pub(super) there: There,
    /// The pairs of components that have no new one yet.
    pub(super) selected: BTreeMap<ComponentId, Selected>,
    /// Checks with the old credentials are still answered.
    pub(super) answers: bool,
    kept: Kept,
}

/// What is needed besides to go back to before a restart.
#[derive(Debug)]
struct Kept {
    role: Role,
    tie_breaker: u64,
    state: AgentState,
    patient: bool,
    gathering_done: bool,
    remote_done: bool,
    locals: BTreeMap<LocalId, KnownLocal>,
    remotes: BTreeMap<RemoteId, KnownRemote>,
    pairs: BTreeMap<PairId, Pair>,
    lists: Vec<Checklist>,
    sources: BTreeMap<Route, ComponentId>,
    /// Pairs that were lost already.
    lost: BTreeMap<ComponentId, Selected>,
}

impl Old {
    /// A base is gone.
    pub(super) fn remove_base(&mut self, base: Base) {
        let kept = &mut self.kept;
        kept.pairs.retain(|_, pair| base_of(pair.route) != base);
        kept.locals.retain(|_, known| known.candidate.base != base);
        kept.sources.retain(|route, _| base_of(*route) != base);
    }

    /// A component is not wanted any more.
    pub(super) fn remove_component(&mut self, component: ComponentId) {
        self.selected.remove(&component);
        let kept = &mut self.kept;
        kept.lost.remove(&component);
        kept.pairs.retain(|_, pair| pair.component != component);
        kept.locals
            .retain(|_, known| known.candidate.component != component);
        kept.sources.retain(|_, owner| *owner != component);
    }

    pub(super) fn uses(&self, base: Base) -> bool {
        self.selected.values().any(|selected| selected.base == base)
    }
}

/// The session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is closed")]
pub struct RestartError;

/// There is nothing to go back to: no restart, or one that the other side has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no restart to take back")]
pub struct RollbackError;

impl Agent {
    /// Starts over, with new credentials and the same role: to be told the other side, whose new
    /// description goes to [`set_remote`](Self::set_remote). Until then, and until new pairs are
    /// selected, data goes the old way: consent is kept up and checks are answered with the old
    /// credentials, until [`AgentConfig::old_generation`](super::AgentConfig::old_generation) after
    /// the other side has agreed. If it does not agree, [`rollback`](Self::rollback).
    ///
    /// Host and relayed candidates stay as far as they have not been released; more may be added.
    /// Reflexive ones are to be gathered again: a NAT may have another address for them by now, and
    /// the dead one, of the same foundation, would hold up the checks of the one that replaces it.
    ///
    /// # Errors
    /// [`RestartError`].
    pub fn restart(&mut self, now: Instant) -> Result<(), RestartError> {
        self.clock.advance(now);
        if self.state == AgentState::Closed {
            return Err(RestartError);
        }
        let here = core::mem::replace(&mut self.here, Here::generate(&mut self.rng));
        let sources = self.sources.clone();
        let mut selected = core::mem::take(&mut self.selected);
        // What was in use has not been released, even if the other side was lost.
        let held: smallvec::SmallVec<[Base; 4]> =
            selected.values().map(|selected| selected.base).collect();
        let mut lost = selected.clone();
        lost.retain(|_, selected| selected.lost);
        selected.retain(|_, selected| !selected.lost);
        // A restart that comes before the last one has led to anything leaves that one's past.
        if let Some(there) = self.there.take()
            && (self.old.is_none() || !selected.is_empty())
        {
            let kept = Kept {
                role: self.role,
                tie_breaker: self.tie_breaker,
                state: self.state,
                patient: self.patient,
                gathering_done: self.gathering_done,
                remote_done: self.remote_done,
                locals: self.locals.clone(),
                remotes: core::mem::take(&mut self.remotes),
                pairs: core::mem::take(&mut self.pairs),
                lists: core::mem::take(&mut self.lists),
                sources,
                lost,
            };
            self.lists = kept.lists.iter().map(Checklist::anew).collect();
            self.old = Some(Old {
                generation: self.generation,
                here,
                there,
                selected,
                answers: true,
                kept,
            });
        }
        // It counts from when the other side agrees.
        self.timers.disarm(Timer::OldGeneration);
        self.reset(&held);
        Ok(())
    }

    /// Takes a restart back: the other side has refused it, or does not answer. What was agreed on
    /// before holds again, credentials included, and goes on from where it stands now; local
    /// candidates added since then are released ([`Action::Release`]).
    ///
    /// # Errors
    /// [`RollbackError`]; nothing has changed then.
    pub fn rollback(&mut self, now: Instant) -> Result<(), RollbackError> {
        let now = self.clock.advance(now);
        if self.state == AgentState::Closed || self.there.is_some() {
            return Err(RollbackError);
        }
        let old = self.old.take().ok_or(RollbackError)?;
        let kept = old.kept;
        self.timers.disarm(Timer::OldGeneration);
        let before = core::mem::replace(&mut self.locals, kept.locals);
        self.locals
            .retain(|_, known| component_exists(&self.config.components, known));
        let known = |base| self.locals.values().any(|l| l.candidate.base == base);
        let mut added: Vec<Base> = before.values().map(|l| l.candidate.base).collect();
        added.retain(|base| !known(*base));
        added.sort_unstable();
        added.dedup();
        self.actions
            .extend(added.into_iter().map(|base| Action::Release { base }));
        self.generation = old.generation;
        self.here = old.here;
        self.there = Some(old.there);
        self.selected = old.selected;
        self.selected.extend(kept.lost);
        self.role = kept.role;
        self.tie_breaker = kept.tie_breaker;
        self.state = kept.state;
        self.patient = kept.patient;
        self.gathering_done = kept.gathering_done;
        self.remote_done = kept.remote_done;
        self.remotes = kept.remotes;
        self.pairs = kept.pairs;
        self.sources = kept.sources;
        let removed: Vec<bool> = self.lists.iter().map(|list| list.removed).collect();
        self.lists = kept.lists;
        for (list, removed) in self.lists.iter_mut().zip(removed) {
            list.removed |= removed;
        }
        self.early.clear();
        self.resume(now);
        Ok(())
    }

    /// Goes on with checks and waits that a restart has interrupted.
    fn resume(&mut self, now: Instant) {
        for pair in self.pairs.values_mut() {
            // Its check has been forgotten.
            if pair.state == PairState::InProgress {
                pair.state = PairState::Waiting;
            }
        }
        let routes: Vec<Route> = self.pairs.values().map(|pair| pair.route).collect();
        for route in routes {
            self.ask_permission(route);
        }
        if self.state == AgentState::Running && self.patient {
            self.timers.arm(Timer::Patience, now, self.config.patience);
        }
        let graced = |list: &Checklist| list.state == ListState::Completed && !list.released;
        for (list, stream) in self.lists.iter().zip(0..) {
            if graced(list) {
                let grace = self.config.grace;
                self.timers.arm(Timer::Grace(stream), now, grace);
            }
        }
        self.changed(now);
    }

    /// The other side has agreed to a restart: what was before it has its days counted.
    pub(super) fn agreed(&mut self, now: Instant) {
        if self.old.is_some() && self.timers.get(Timer::OldGeneration).is_none() {
            let last = self.config.old_generation;
            self.timers.arm(Timer::OldGeneration, now, last);
        }
    }

    /// Whether the other side answers a restart with what it said before: it does not restart.
    pub(super) fn declines_restart(&self, new: &Credentials) -> bool {
        let old = self.old.as_ref().filter(|_| self.there.is_none());
        old.is_some_and(|old| old.there.remote.credentials == *new)
    }

    /// Forgets all of the present generation but the role and what is known of local addresses;
    /// those in `held` are still there.
    fn reset(&mut self, held: &[Base]) {
        self.generations = self.generations.wrapping_add(1);
        self.generation = self.generations;
        self.tie_breaker = self.rng.u64();
        self.switches = 0;
        self.check_datagrams = 0;
        self.state = AgentState::Running;
        self.patient = true;
        self.gathering_done = false;
        self.remote_done = false;
        self.pairs.clear();
        self.remotes.clear();
        self.unpaired = false;
        self.early.clear();
        self.permissions
            .retain(|_, permission| *permission == Permission::Created);
        let released: smallvec::SmallVec<[bool; 8]> =
            self.lists.iter().map(|list| list.released).collect();
        let used = |base: Base| {
            held.contains(&base) || self.old.as_ref().is_some_and(|old| old.uses(base))
        };
        self.locals.retain(|_, known| {
            let stream = usize::from(known.candidate.component.stream);
            let gone = released.get(stream).copied().unwrap_or(false);
            let learned = match known.candidate.kind {
                CandidateKind::PeerReflexive | CandidateKind::ServerReflexive => true,
                CandidateKind::Host | CandidateKind::Relayed => false,
            };
            !learned && (!gone || used(known.candidate.base))
        });
        if self.config.explicit_conveyance {
            for known in self.locals.values_mut() {
                known.conveyed = false;
            }
        }
        for (list, stream) in self.lists.iter_mut().zip(0..) {
            *list = list.anew();
            self.timers.disarm(Timer::Nominate(stream));
            self.timers.disarm(Timer::Grace(stream));
        }
        self.timers.disarm(Timer::Patience);
        let timers = &mut self.timers;
        let old = &self.old;
        self.checks.retain(|id, check| {
            let keep = match check.purpose {
                Purpose::Consent(component) => old
                    .as_ref()
                    .is_some_and(|old| old.selected.contains_key(&component)),
                Purpose::Pair { .. } => false,
            };
            if !keep {
                timers.disarm(Timer::Check(*id));
            }
            keep
        });
        self.sources.retain(|route, component| {
            let old = old.as_ref().and_then(|old| old.selected.get(component));
            old.is_some_and(|selected| selected.route == *route)
        });
    }

    /// A component has its new pair: the old one is of no use any more.
    pub(super) fn replace_old(&mut self, component: ComponentId) {
        let Some(old) = &mut self.old else {
            return;
        };
        old.selected.remove(&component);
        if old.selected.is_empty() && !old.answers {
            self.old = None;
        }
    }

    /// Checks from before the restart have been answered for long enough.
    pub(super) fn forget_old(&mut self) {
        if let Some(old) = &mut self.old {
            old.answers = false;
            if old.selected.is_empty() {
                self.old = None;
            }
        }
    }

    /// Whether these credentials, or half of them, are those from before the restart.
    pub(super) fn old_remote_is(&self, new: &Credentials) -> bool {
        self.old.as_ref().is_some_and(|old| {
            let known = &old.there.remote.credentials;
            known.ufrag == new.ufrag || known.pwd == new.pwd
        })
    }
}

/// Whether the component of a candidate is still wanted.
fn component_exists(components: &[u16], known: &KnownLocal) -> bool {
    let ComponentId { stream, component } = known.candidate.component;
    let most = components.get(usize::from(stream));
    most.is_some_and(|most| component <= *most)
}
