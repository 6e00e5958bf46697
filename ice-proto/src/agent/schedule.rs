//! Which pair is checked when (RFC 8445 sections 6.1.2.6 and 6.1.4).

use alloc::collections::VecDeque;
use core::cmp::Reverse;

use stun_proto::Instant;
use stun_proto::time::deadline;

use super::pairs::{Pair, PairId, PairState};
use super::{Agent, AgentState, Pacer};

/// Where the checks of a stream stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ListState {
    #[default]
    Running,
    /// Every component has its pair.
    Completed,
    Failed,
}

/// The checks of one stream.
#[derive(Debug, Default)]
pub(super) struct Checklist {
    pub(super) state: ListState,
    /// The application does not need the stream any more.
    pub(super) removed: bool,
    /// Pairs to check before all others, in the order they came.
    pub(super) triggered: VecDeque<PairId>,
    /// Since when every component has a valid pair.
    pub(super) complete_since: Option<Instant>,
    /// Checks on candidates that were not selected are no longer answered.
    pub(super) released: bool,
}

impl Checklist {
    /// The same after a restart.
    pub(super) fn anew(&self) -> Self {
        Self {
            removed: self.removed,
            ..Self::default()
        }
    }
}

/// The clock of the checks. While checks are under way it keeps to the grid of Ta, so that both
/// agents' checks stay in step; otherwise the next check starts at once.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Option<Instant>,
    last: Option<Instant>,
    on_grid: bool,
    next_list: usize,
}

impl Pace {
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Agent {
    /// Makes sure that the next check starts, if there is anything to check.
    pub(super) fn arm_pace(&mut self, now: Instant) {
        if self.pace.next.is_some() || !self.has_work() {
            return;
        }
        let pacing = self.pacing();
        let earliest = self.pace.last.and_then(|last| deadline(last, pacing));
        let at = match (earliest, self.pace.last) {
            (Some(earliest), Some(last)) if earliest <= now && self.pace.on_grid => {
                // The next point of the grid.
                let since = now.duration_since(last).as_nanos();
                let steps = since.div_ceil(pacing.as_nanos().max(1));
                let steps = u32::try_from(steps).unwrap_or(u32::MAX);
                deadline(last, pacing.saturating_mul(steps))
            }
            (Some(earliest), _) => Some(earliest.max(now)),
            (None, _) => Some(now),
        };
        self.pace.next = at;
    }

    /// Whether a tick now would start a check.
    fn has_work(&self) -> bool {
        if self.there.is_none() || self.config.lite || !self.has_budget() {
            return false;
        }
        if matches!(self.state, AgentState::Closed | AgentState::Failed) {
            return false;
        }
        if self.unpaired {
            return true;
        }
        let permitted = |pair: &Pair| self.is_permitted(pair.route);
        let queued = self.lists.iter().flat_map(|list| &list.triggered);
        let mut queued = queued.filter_map(|id| self.pairs.get(id));
        queued.any(permitted)
            || self.pairs.values().any(|pair| {
                self.is_running(pair.component.stream)
                    && permitted(pair)
                    && match pair.state {
                        PairState::Waiting => true,
                        PairState::Frozen => pair.fresh || !self.is_foundation_active(pair),
                        PairState::InProgress | PairState::Succeeded(_) | PairState::Failed => {
                            false
                        }
                    }
            })
    }

    pub(super) fn is_running(&self, stream: u16) -> bool {
        let list = self.lists.get(usize::from(stream));
        list.is_some_and(|list| list.state == ListState::Running && !list.removed)
    }

    /// Whether a pair like this one is waiting or in progress in any stream.
    fn is_foundation_active(&self, like: &Pair) -> bool {
        self.pairs
            .values()
            .any(|pair| pair.is_active() && pair.foundation == like.foundation)
    }

    /// Starts a check if its time has come; whether it did.
    pub(super) fn tick(&mut self, pacer: Option<&mut Pacer>) -> bool {
        let now = self.clock.now();
        if self.pace.next.is_none_or(|at| at > now) {
            return false;
        }
        self.pace.next = None;
        self.pair_new_remotes();
        self.thaw_fresh();
        if !self.has_work() {
            return false;
        }
        if let Some(Err(later)) = pacer.map(|pacer| pacer.take(now)) {
            self.pace.next = Some(later);
            return false;
        }
        let started = self.start_next(now);
        self.pace.last = Some(now);
        self.pace.on_grid = self.pairs.values().any(Pair::is_open);
        self.arm_pace(now);
        started
    }

    fn start_next(&mut self, now: Instant) -> bool {
        let count = self.lists.len();
        for offset in 0..count {
            let list = self.pace.next_list.saturating_add(offset);
            let list = list.checked_rem(count).unwrap_or(0);
            if let Some(id) = self.next_pair_of(list as u16) {
                self.pace.next_list = list.saturating_add(1).checked_rem(count).unwrap_or(0);
                self.start_check(now, id);
                return true;
            }
        }
        false
    }

    /// Chooses the first state of new pairs (RFC 8445 section 6.1.2.6, RFC 8838 section 12): the
    /// topmost pair of a foundation waits, and so do those of a foundation that has worked.
    pub(super) fn thaw_fresh(&mut self) {
        let order = |pair: &Pair| (pair.component, Reverse(pair.priority));
        let fresh: smallvec::SmallVec<[PairId; 16]> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.fresh)
            .map(|(id, _)| *id)
            .collect();
        for id in fresh {
            let Some(pair) = self.pairs.get(&id) else {
                continue;
            };
            let mut alike = self
                .pairs
                .iter()
                .filter(|(other, p)| p.foundation == pair.foundation && **other != id);
            let waits = alike
                .clone()
                .all(|(other, p)| (order(p), *other) > (order(pair), id))
                || alike.any(|(_, p)| p.valid().is_some());
            if let Some(pair) = self.pairs.get_mut(&id) {
                pair.fresh = false;
                if waits && pair.state == PairState::Frozen {
                    pair.state = PairState::Waiting;
                }
            }
        }
    }

    /// A pair has worked: those of the same foundation may be checked (RFC 8445
    /// section 7.2.5.3.3).
    pub(super) fn unfreeze_like(&mut self, foundation: (u32, u32)) {
        for pair in self.pairs.values_mut() {
            if pair.state == PairState::Frozen && pair.foundation == foundation {
                pair.state = PairState::Waiting;
                pair.fresh = false;
            }
        }
    }

    /// The next pair of a stream to check (RFC 8445 section 6.1.4.2): a triggered one, else the
    /// most important waiting one, unfreezing where nothing waits.
    fn next_pair_of(&mut self, stream: u16) -> Option<PairId> {
        let list = self.lists.get(usize::from(stream))?;
        let ready = list.triggered.iter().copied().find(|id| {
            let pair = self.pairs.get(id);
            pair.is_some_and(|pair| self.is_permitted(pair.route))
        });
        if let Some(id) = ready {
            self.unqueue(id);
            return Some(id);
        }
        if !self.is_running(stream) {
            return None;
        }
        if let Some(id) = self.best_waiting(stream) {
            return Some(id);
        }
        self.unfreeze_one_of_each(stream);
        self.best_waiting(stream)
    }

    fn best_waiting(&self, stream: u16) -> Option<PairId> {
        self.pairs
            .iter()
            .filter(|(_, pair)| {
                pair.component.stream == stream
                    && pair.state == PairState::Waiting
                    && self.is_permitted(pair.route)
            })
            .min_by_key(|(_, pair)| (Reverse(pair.priority), pair.component))
            .map(|(id, _)| *id)
    }

    /// Of each foundation of which nothing waits or is in progress anywhere, lets one pair wait.
    fn unfreeze_one_of_each(&mut self, stream: u16) {
        let mut frozen: smallvec::SmallVec<[PairId; 16]> = self
            .pairs
            .iter()
            .filter(|(_, pair)| {
                pair.component.stream == stream
                    && pair.state == PairState::Frozen
                    && self.is_permitted(pair.route)
            })
            .map(|(id, _)| *id)
            .collect();
        frozen.sort_by_key(|id| {
            let pair = self.pairs.get(id);
            pair.map(|pair| (pair.component, Reverse(pair.priority)))
        });
        for id in frozen {
            let active = |pair| self.is_foundation_active(pair);
            if self.pairs.get(&id).is_some_and(|pair| !active(pair))
                && let Some(pair) = self.pairs.get_mut(&id)
            {
                pair.state = PairState::Waiting;
            }
        }
    }

    /// Puts a pair in front of the waiting ones.
    pub(super) fn trigger(&mut self, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        pair.fresh = false;
        if pair.valid().is_none() {
            pair.state = PairState::Waiting;
        }
        let stream = usize::from(pair.component.stream);
        if let Some(list) = self.lists.get_mut(stream)
            && !list.triggered.contains(&id)
        {
            list.triggered.push_back(id);
        }
    }

    pub(super) fn unqueue(&mut self, id: PairId) {
        for list in &mut self.lists {
            list.triggered.retain(|queued| *queued != id);
        }
    }
}
