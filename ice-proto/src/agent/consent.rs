//! Keeping what was found: consent (RFC 7675) and keep-alives (RFC 8445 section 11).

use core::time::Duration;

use stun_proto::Instant;
use stun_proto::time::deadline;
use stun_proto::wire::{MessageType, Method, Writer};

use super::conclude::Selected;
use super::{Agent, Event, PlainKeepAlive, RouteLoss, Timer};
use crate::{ComponentId, Route};

/// Keep-alives never come closer together.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Consent checks never come closer together.
const MIN_CONSENT: Duration = Duration::from_secs(4);

impl Agent {
    /// What a component uses: its selected pair, or until there is one the one from before the
    /// restart.
    pub(super) fn active(&self, component: ComponentId) -> Option<&Selected> {
        let old = || self.old.as_ref()?.selected.get(&component);
        self.selected.get(&component).or_else(old)
    }

    /// The generation of what a component uses.
    fn active_generation(&self, component: ComponentId) -> u32 {
        let old = self.old.as_ref();
        match old.filter(|_| !self.selected.contains_key(&component)) {
            Some(old) => old.generation,
            None => self.generation,
        }
    }

    fn active_mut(&mut self, component: ComponentId) -> Option<&mut Selected> {
        match self.selected.get_mut(&component) {
            Some(selected) => Some(selected),
            None => self.old.as_mut()?.selected.get_mut(&component),
        }
    }

    /// Data of a component has been sent the way [`route`](Self::route) says: no keep-alive is due
    /// for a while. Not needed where consent is asked for.
    pub fn data_sent(&mut self, now: Instant, component: ComponentId) {
        let now = self.clock.advance(now);
        if let Some(active) = self.active_mut(component) {
            active.last_sent = now;
        }
    }

    /// A pair was selected; the other side consented at `since`.
    pub(super) fn begin_consent(&mut self, now: Instant, component: ComponentId, since: Instant) {
        if self.config.lite {
            return;
        }
        self.forget_consent(component);
        self.timers.disarm(Timer::ConsentExpiry(component));
        if self.consent(component).is_some() {
            let end = deadline(since, self.config.consent_timeout);
            self.timers.set(Timer::ConsentExpiry(component), end);
        }
        self.arm_consent(now, component);
    }

    /// How often consent is asked for. A side without ICE would not know what to answer.
    fn consent(&self, component: ComponentId) -> Option<Duration> {
        let plain = self.active(component).is_some_and(|active| active.plain);
        self.config.consent.filter(|_| !plain)
    }

    fn arm_consent(&mut self, now: Instant, component: ComponentId) {
        let wait = match self.consent(component) {
            Some(every) => {
                // Between 80 and 120 percent, in steps of a thousandth.
                let share = self.rng.below(401).saturating_add(800);
                let wait = every.saturating_mul(share).checked_div(1000);
                wait.unwrap_or(every).max(MIN_CONSENT)
            }
            None => self.config.keep_alive.max(MIN_KEEP_ALIVE),
        };
        self.timers.arm(Timer::Consent(component), now, wait);
    }

    /// Asks for consent, or keeps the path open where that is not asked for.
    pub(super) fn consent_due(&mut self, now: Instant, component: ComponentId) {
        let Some(active) = self.active(component).copied() else {
            return;
        };
        if self.consent(component).is_some() {
            self.start_consent(now, component, active.route, active.local);
            return self.arm_consent(now, component);
        }
        let tr = self.config.keep_alive.max(MIN_KEEP_ALIVE);
        let due = deadline(active.last_sent, tr);
        if due.is_some_and(|due| due > now) {
            return self.timers.set(Timer::Consent(component), due);
        }
        let kind = if active.plain {
            self.config.plain_keep_alive
        } else {
            PlainKeepAlive::Indication
        };
        match kind {
            PlainKeepAlive::Indication => self.push_indication(active.route),
            PlainKeepAlive::Empty => self.push(active.route, &[]),
            PlainKeepAlive::Host => self.events.push_back(Event::KeepAliveDue { component }),
        }
        if let Some(active) = self.active_mut(component) {
            active.last_sent = now;
        }
        self.arm_consent(now, component);
    }

    fn push_indication(&mut self, route: Route) {
        let id = self.rng.transaction_id();
        let mut buf = [0; 32];
        let ty = MessageType::indication(Method::BINDING);
        let written = Writer::new(&mut buf, ty, id).fingerprint().finish();
        if let Some(message) = written.ok().and_then(|len| buf.get(..len)) {
            self.push(route, message);
        }
    }

    pub(super) fn consent_renewed(
        &mut self,
        now: Instant,
        component: ComponentId,
        generation: u32,
    ) {
        if self.active_generation(component) == generation
            && self.active(component).is_some_and(|a| !a.lost)
        {
            let timeout = self.config.consent_timeout;
            self.timers
                .arm(Timer::ConsentExpiry(component), now, timeout);
        }
    }

    /// Data of a component can no longer be sent; nothing but a restart changes that.
    pub(super) fn lose_route(&mut self, component: ComponentId, cause: RouteLoss) {
        let generation = self.active_generation(component);
        let Some(active) = self.active_mut(component) else {
            return;
        };
        if active.lost {
            return;
        }
        active.lost = true;
        self.timers.disarm(Timer::Consent(component));
        self.timers.disarm(Timer::ConsentExpiry(component));
        self.forget_consent(component);
        self.events.push_back(Event::RouteLost {
            component,
            cause,
            generation,
        });
    }
}
