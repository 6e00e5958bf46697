//! Nominating, concluding, and keeping what was found (RFC 8445 sections 8 and 11, RFC 7675).

use core::time::Duration;

use alloc::vec::Vec;

use stun_proto::wire::{MessageType, Method, Writer};
use stun_proto::{Instant, time::deadline};

use super::pairs::{PairId, PairState};
use super::{Action, Agent, Event, Failure, MAX_TRANSMIT, Role, State, Timer};
use crate::{ComponentId, Route};

/// What a component has settled on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected {
    pub(super) pair: PairId,
    pub(super) route: Route,
    local: usize,
    priority: u64,
}

impl Agent {
    /// Whether a component has a pair that stays: no others are formed any more.
    pub(super) fn is_concluded(&self, component: ComponentId) -> bool {
        let follows_later = self.remote.as_ref().is_some_and(|remote| !remote.ice2);
        self.selected.contains_key(&component) && !(follows_later && self.role == Role::Controlled)
    }

    /// The most important pair of a component that works.
    pub(super) fn best_valid(&self, component: ComponentId) -> Option<PairId> {
        self.pairs
            .all
            .iter()
            .filter(|(_, pair)| {
                pair.component == component && matches!(pair.state, PairState::Succeeded { .. })
            })
            .max_by_key(|(_, pair)| self.pair_priority(pair))
            .map(|(id, _)| *id)
    }

    /// Nominates what is good enough, gives up what is hopeless.
    pub(super) fn conclude(&mut self, now: Instant) {
        if self.state != State::Running || self.remote.is_none() {
            return;
        }
        for stream in 0..self.lists.len() as u16 {
            if self.role == Role::Controlling {
                self.nominate(now, stream);
            }
            if self.is_hopeless(stream) {
                return self.end(Failure::NoPair);
            }
        }
    }

    fn components(&self, stream: u16) -> impl Iterator<Item = ComponentId> + use<> {
        let most = self.config.components.get(usize::from(stream));
        (1..=most.copied().unwrap_or(0)).map(move |component| ComponentId { stream, component })
    }

    /// Regular nomination (RFC 8445 section 8.1.1): at once when nothing better can come, else after
    /// the delay.
    fn nominate(&mut self, now: Instant, stream: u16) {
        let best: Vec<PairId> = self
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
        let waited = now.duration_since(since) >= self.config.nomination_delay;
        let nothing_better = best.iter().all(|id| !self.better_may_come(*id));
        if !waited && !nothing_better {
            let at = deadline(since, self.config.nomination_delay);
            self.timers.set(Timer::Nominate(stream), at);
            return;
        }
        self.timers.disarm(Timer::Nominate(stream));
        for id in best {
            let Some(pair) = self.pairs.all.get_mut(&id) else {
                continue;
            };
            let component = pair.component;
            let under_way = self
                .pairs
                .all
                .values()
                .any(|pair| pair.component == component && pair.nominating);
            if under_way || self.selected.contains_key(&component) {
                continue;
            }
            if let Some(pair) = self.pairs.all.get_mut(&id) {
                pair.nominating = true;
            }
            self.trigger(id);
            if self.timers.get(Timer::Pace).is_none() {
                self.pace(now);
            }
        }
    }

    /// Whether a more important pair of the same component is still to be decided.
    fn better_may_come(&self, than: PairId) -> bool {
        let Some(valid) = self.pairs.all.get(&than) else {
            return false;
        };
        let priority = self.pair_priority(valid);
        self.pairs.all.values().any(|pair| {
            pair.component == valid.component
                && self.pair_priority(pair) > priority
                && matches!(
                    pair.state,
                    PairState::Frozen | PairState::Waiting | PairState::InProgress
                )
        })
    }

    /// Whether some component of a stream will never have a pair.
    fn is_hopeless(&self, stream: u16) -> bool {
        if self.patient {
            return false;
        }
        let over = |pair: &super::pairs::Pair| {
            matches!(pair.state, PairState::Failed | PairState::Succeeded { .. })
                || !self.is_permitted(pair.route)
        };
        self.components(stream).any(|component| {
            !self.selected.contains_key(&component)
                && self.best_valid(component).is_none()
                && self
                    .pairs
                    .all
                    .values()
                    .filter(|pair| pair.component == component)
                    .all(over)
        })
    }

    /// A pair is nominated and works: its component uses it (RFC 8445 section 8.1.2).
    pub(super) fn select(&mut self, now: Instant, id: PairId) {
        let Some(pair) = self.pairs.all.get(&id) else {
            return;
        };
        let PairState::Succeeded { rtt } = pair.state else {
            return;
        };
        let priority = self.pair_priority(pair);
        let (component, route) = (pair.component, pair.route);
        let (local, remote) = (pair.local, pair.remote);
        let shown = pair.mapped.unwrap_or(local);
        if let Some(selected) = self.selected.get(&component) {
            // Later ones count only where the other side nominates several.
            if self.is_concluded(component) || selected.priority >= priority || selected.pair == id
            {
                return;
            }
        }
        let (Some(l), Some(r)) = (self.locals.get(shown), self.remotes.get(remote)) else {
            return;
        };
        self.events.push_back(Event::Selected {
            component,
            local: l.shown(),
            remote: r.candidate.clone(),
            rtt,
            route,
        });
        let selected = Selected {
            pair: id,
            route,
            local,
            priority,
        };
        self.selected.insert(component, selected);
        if let Route::Relay { relay, peer } = route {
            self.actions.push_back(Action::BindChannel { relay, peer });
        }
        let others: Vec<PairId> = self
            .pairs
            .all
            .iter()
            .filter(|(other, pair)| pair.component == component && **other != id)
            .map(|(other, _)| *other)
            .collect();
        if self.is_concluded(component) {
            others.into_iter().for_each(|other| self.remove_pair(other));
        }
        self.arm_consent(now, component);
        let all = (0..self.lists.len() as u16)
            .flat_map(|stream| self.components(stream))
            .all(|component| self.selected.contains_key(&component));
        if all && self.state == State::Running {
            self.state = State::Completed;
            self.timers.disarm(Timer::Patience);
            self.events.push_back(Event::Completed);
        }
    }

    fn arm_consent(&mut self, now: Instant, component: ComponentId) {
        let wait = match self.config.consent {
            Some(every) => {
                let expiry = Timer::ConsentExpiry(component);
                if self.timers.get(expiry).is_none() {
                    self.timers.arm(expiry, now, self.config.consent_timeout);
                }
                // Between 80 and 120 percent.
                let percent = self.rng.below(41).saturating_add(80);
                every
                    .saturating_mul(percent)
                    .checked_div(100)
                    .unwrap_or(every)
            }
            None => self.config.keep_alive,
        };
        let wait = wait.max(Duration::from_millis(100));
        self.timers.arm(Timer::Consent(component), now, wait);
    }

    /// Asks for consent, or keeps the path open where that is not asked for.
    pub(super) fn ask_consent(&mut self, now: Instant, component: ComponentId) {
        let Some(Selected { route, local, .. }) = self.selected.get(&component).copied() else {
            return;
        };
        if self.config.consent.is_some() {
            self.start_consent(now, component, route, local);
        } else {
            let id = self.rng.transaction_id();
            let mut buf = [0; MAX_TRANSMIT];
            let ty = MessageType::indication(Method::BINDING);
            let written = Writer::new(&mut buf, ty, id).fingerprint().finish();
            if let Some(message) = written.ok().and_then(|len| buf.get(..len)) {
                self.outbox.push_back((route, message.to_vec()));
            }
        }
        self.arm_consent(now, component);
    }

    pub(super) fn consent_renewed(&mut self, now: Instant, component: ComponentId) {
        if self.selected.contains_key(&component) {
            self.timers.arm(
                Timer::ConsentExpiry(component),
                now,
                self.config.consent_timeout,
            );
        }
    }

    pub(super) fn consent_expired(&mut self, component: ComponentId) {
        if self.selected.contains_key(&component) {
            self.end(Failure::ConsentLost);
        }
    }

    fn end(&mut self, failure: Failure) {
        self.close();
        self.events.push_back(Event::Failed(failure));
    }
}
