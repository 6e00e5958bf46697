//! Starting over without losing what works (RFC 8445 section 9).

use alloc::collections::BTreeMap;

use stun_proto::Instant;

use super::checks::Purpose;
use super::conclude::Selected;
use super::schedule::Checklist;
use super::{Agent, AgentState, Base, Credentials, Here, Permission, There, Timer};
use crate::{CandidateKind, ComponentId};

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
}

impl Old {
    pub(super) fn uses(&self, base: Base) -> bool {
        self.selected.values().any(|selected| selected.base == base)
    }
}

/// The session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is closed")]
pub struct RestartError;

impl Agent {
    /// Starts over, with new credentials and the same role: to be told the other side, whose new
    /// description goes to [`set_remote`](Self::set_remote). Until then, and until new pairs are
    /// selected, data goes the old way.
    ///
    /// Host and relayed candidates stay as far as they have not been released; more may be added.
    /// Reflexive ones are to be gathered again: a NAT may have another address for them by now, and
    /// the dead one, of the same foundation, would hold up the checks of the one that replaces it.
    ///
    /// # Errors
    /// [`RestartError`].
    pub fn restart(&mut self, now: Instant) -> Result<(), RestartError> {
        let now = self.clock.advance(now);
        if self.state == AgentState::Closed {
            return Err(RestartError);
        }
        let here = core::mem::replace(&mut self.here, Here::generate(&mut self.rng));
        let mut selected = core::mem::take(&mut self.selected);
        // What was in use has not been released, even if the other side was lost.
        let held: smallvec::SmallVec<[Base; 4]> =
            selected.values().map(|selected| selected.base).collect();
        selected.retain(|_, selected| !selected.lost);
        // A restart that comes before the last one has led to anything leaves that one's past.
        if let Some(there) = self.there.take()
            && (self.old.is_none() || !selected.is_empty())
        {
            self.old = Some(Old {
                generation: self.generation,
                here,
                there,
                selected,
                answers: true,
            });
            let last = self.config.old_generation;
            self.timers.arm(Timer::OldGeneration, now, last);
        }
        self.reset(&held);
        Ok(())
    }

    /// Forgets all of the present generation but the role and what is known of local addresses;
    /// those in `held` are still there.
    fn reset(&mut self, held: &[Base]) {
        self.generation = self.generation.wrapping_add(1);
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
            *list = Checklist {
                removed: list.removed,
                ..Checklist::default()
            };
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
