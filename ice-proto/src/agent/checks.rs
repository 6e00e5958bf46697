//! Sending checks and judging their answers (RFC 8445 sections 6.1.4 and 7.2).

use alloc::vec::Vec;
use core::time::Duration;

use stun_proto::wire::{
    Class, ErrorCode, IceControlled, IceControlling, Message, MessageType, Method, Priority,
    TransactionId, UseCandidate, Username, Writer, XorMappedAddress,
};
use stun_proto::{Instant, Received, Retransmit, RetransmitConfig, Step};

use super::pairs::{PairId, PairState};
use super::{Agent, Event, MAX_TRANSMIT, MIN_PACING, Role, State, Timer};
use crate::{CandidateKind, ComponentId, Route};

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To find out whether a pair works.
    Pair {
        id: PairId,
        /// It nominates the pair as well.
        nominates: bool,
    },
    /// To find out whether the other side still wants data.
    Consent(ComponentId),
}

/// A check under way.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) purpose: Purpose,
    pub(super) route: Route,
    /// The role it was sent in: a conflict is judged by it.
    role: Role,
    schedule: Retransmit,
    started: Instant,
    request: Vec<u8>,
    /// It is not sent again, and its end means nothing; a late success counts.
    cancelled: bool,
}

impl Agent {
    /// Starts the next check, and arranges for the one after it.
    pub(super) fn pace(&mut self, now: Instant) {
        if self.state == State::Ended || self.remote.is_none() {
            return;
        }
        let streams = self.lists.len() as u16;
        for _ in 0..streams {
            let stream = self.next_list;
            self.next_list = self
                .next_list
                .saturating_add(1)
                .checked_rem(streams)
                .unwrap_or(0);
            if let Some(id) = self.next_check(stream) {
                self.start_check(now, id);
                let pacing = self.config.pacing.max(MIN_PACING);
                self.timers.arm(Timer::Pace, now, pacing);
                return;
            }
        }
    }

    /// How long to wait before a check is sent again (RFC 8445 section 14.3).
    fn rto(&self) -> Duration {
        let active = self
            .pairs
            .all
            .values()
            .filter(|pair| matches!(pair.state, PairState::Waiting | PairState::InProgress))
            .count();
        let all = self.pairs.all.len();
        let checks = u32::try_from(active.saturating_mul(all)).unwrap_or(u32::MAX);
        let pacing = self.config.pacing.max(MIN_PACING);
        // Beyond some seconds it would only delay what the pacing spreads anyway.
        pacing
            .saturating_mul(checks)
            .min(Duration::from_secs(3))
            .max(self.config.min_rto)
    }

    fn start_check(&mut self, now: Instant, id: PairId) {
        let Some(pair) = self.pairs.all.get(&id) else {
            return;
        };
        let (route, local) = (pair.route, pair.local);
        let nominates = pair.nominating && self.role == Role::Controlling;
        if !matches!(pair.state, PairState::Succeeded { .. }) {
            self.set_state(id, PairState::InProgress);
        }
        let config = RetransmitConfig {
            rto: self.rto(),
            ..RetransmitConfig::default()
        };
        let purpose = Purpose::Pair { id, nominates };
        let schedule = Retransmit::datagram(config, now);
        self.send_check(now, purpose, route, local, schedule);
    }

    /// Sends a consent check: once, never again.
    pub(super) fn start_consent(
        &mut self,
        now: Instant,
        component: ComponentId,
        route: Route,
        local: usize,
    ) {
        let config = RetransmitConfig {
            sends: 1,
            last_wait: 1,
            rto: self.config.consent_timeout,
            ..RetransmitConfig::default()
        };
        let purpose = Purpose::Consent(component);
        let schedule = Retransmit::datagram(config, now);
        self.send_check(now, purpose, route, local, schedule);
    }

    fn send_check(
        &mut self,
        now: Instant,
        purpose: Purpose,
        route: Route,
        local: usize,
        schedule: Retransmit,
    ) {
        let (Some(remote), Some(key)) = (&self.remote, &self.remote_key) else {
            return;
        };
        let Some(priority) = self.locals.get(local).map(|known| known.check_priority()) else {
            return;
        };
        let id = self.rng.transaction_id();
        let username = alloc::format!("{}:{}", remote.credentials.ufrag, self.local.ufrag);
        let Ok(username) = Username::new(&username) else {
            return;
        };
        let (controlling, controlled) = match self.role {
            Role::Controlling => (Some(IceControlling(self.tie_breaker)), None),
            Role::Controlled => (None, Some(IceControlled(self.tie_breaker))),
        };
        let nominates = matches!(
            purpose,
            Purpose::Pair {
                nominates: true,
                ..
            }
        );
        let mut buf = [0; MAX_TRANSMIT];
        let written = Writer::new(&mut buf, MessageType::request(Method::BINDING), id)
            .attribute(&username)
            .attribute(&Priority(priority))
            .maybe(controlling.as_ref())
            .maybe(controlled.as_ref())
            .maybe(nominates.then_some(&UseCandidate))
            .message_integrity(key)
            .fingerprint()
            .finish();
        let Some(request) = written.ok().and_then(|len| buf.get(..len)) else {
            return;
        };
        self.outbox.push_back((route, request.to_vec()));
        self.timers.set(Timer::Check(id), schedule.deadline());
        let check = Check {
            purpose,
            route,
            role: self.role,
            schedule,
            started: now,
            request: request.to_vec(),
            cancelled: false,
        };
        self.checks.insert(id, check);
    }

    /// A check is to be sent again, or no answer will come any more.
    pub(super) fn check_due(&mut self, now: Instant, id: TransactionId) {
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        match check.schedule.on_timeout(now) {
            Step::Wait => {
                let deadline = check.schedule.deadline();
                self.timers.set(Timer::Check(id), deadline);
            }
            Step::Send => {
                let deadline = check.schedule.deadline();
                if !check.cancelled {
                    self.outbox.push_back((check.route, check.request.clone()));
                }
                self.timers.set(Timer::Check(id), deadline);
            }
            Step::TimedOut => {
                if let Some(check) = self.checks.remove(&id)
                    && !check.cancelled
                {
                    self.check_failed(now, &check);
                }
            }
        }
    }

    /// No longer sends the checks of a pair again; a late success still counts.
    pub(super) fn cancel_checks(&mut self, pair: PairId) {
        for check in self.checks.values_mut() {
            if matches!(check.purpose, Purpose::Pair { id, .. } if id == pair) {
                check.cancelled = true;
            }
        }
    }

    fn check_failed(&mut self, now: Instant, check: &Check) {
        let Purpose::Pair { id, nominates } = check.purpose else {
            return;
        };
        let Some(pair) = self.pairs.all.get_mut(&id) else {
            return;
        };
        pair.state = PairState::Failed;
        pair.nominating = false;
        pair.mapped = None;
        let component = pair.component;
        if nominates {
            self.events.push_back(Event::NominationFailed { component });
        }
        self.changed(now);
    }

    pub(super) fn stun<'a>(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'a>,
    ) -> Received<'a, ComponentId> {
        match message.class() {
            Class::Request => self.check_request(now, route, message),
            // A keep-alive.
            Class::Indication => Received::Consumed,
            Class::Success | Class::Error => self.answer(now, route, message),
        }
    }

    fn answer<'a>(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'a>,
    ) -> Received<'a, ComponentId> {
        let now = self.clock.advance(now);
        let id = message.transaction_id();
        if !self.checks.contains_key(&id) {
            return Received::NotMine;
        }
        let proven = self
            .remote_key
            .as_ref()
            .is_some_and(|key| message.verify(key).is_ok());
        if !proven {
            // A forger cannot end a check: it goes on as if nothing had come.
            self.stats.stray = self.stats.stray.saturating_add(1);
            return Received::Consumed;
        }
        let Some(check) = self.checks.remove(&id) else {
            return Received::NotMine;
        };
        self.timers.disarm(Timer::Check(id));
        let asymmetric = check.route != route;
        match message.class() {
            Class::Success if !asymmetric => match message.find() {
                Some(XorMappedAddress(mapped)) => self.check_succeeded(now, &check, mapped),
                None => self.check_failed(now, &check),
            },
            Class::Error
                if message.find::<ErrorCode<'_>>().map(|e| e.code())
                    == Some(ErrorCode::ROLE_CONFLICT) =>
            {
                self.conflict(now, &check);
            }
            Class::Success | Class::Error | Class::Request | Class::Indication => {
                self.check_failed(now, &check);
            }
        }
        Received::Consumed
    }

    /// The other side has the same role and insists (RFC 8445 section 7.2.5.1).
    fn conflict(&mut self, now: Instant, check: &Check) {
        if check.role == self.role {
            self.switch_role();
            self.tie_breaker = self.rng.u64();
        }
        if let Purpose::Pair { id, .. } = check.purpose {
            self.trigger(id);
        }
        self.changed(now);
    }

    pub(super) fn switch_role(&mut self) {
        self.role = self.role.other();
        self.events.push_back(Event::RoleChanged(self.role));
        for pair in self.pairs.all.values_mut() {
            pair.nominating = false;
        }
    }

    /// Puts a pair in front of the waiting ones.
    pub(super) fn trigger(&mut self, id: PairId) {
        let Some(pair) = self.pairs.all.get_mut(&id) else {
            return;
        };
        if !matches!(pair.state, PairState::Succeeded { .. }) {
            pair.state = PairState::Waiting;
        }
        let stream = usize::from(pair.component.stream);
        if let Some(list) = self.lists.get_mut(stream)
            && !list.triggered.contains(&id)
        {
            list.triggered.push_back(id);
        }
    }

    fn check_succeeded(&mut self, now: Instant, check: &Check, mapped: core::net::SocketAddr) {
        let rtt = now.duration_since(check.started);
        let (id, nominates) = match check.purpose {
            Purpose::Consent(component) => return self.consent_renewed(now, component),
            Purpose::Pair { id, nominates } => (id, nominates),
        };
        let Some(pair) = self.pairs.all.get(&id) else {
            return;
        };
        let (component, local) = (pair.component, pair.local);
        let mapped = self.mapped_candidate(component, local, mapped);
        self.sources.insert(check.route, component);
        if let Some(pair) = self.pairs.all.get_mut(&id) {
            pair.state = PairState::Succeeded { rtt };
            pair.mapped = mapped;
        }
        self.unfreeze_like(id);
        let wanted = self.pairs.all.get(&id).is_some_and(|pair| pair.wanted);
        if nominates || (wanted && self.role == Role::Controlled) {
            self.select(now, id);
        }
        self.changed(now);
    }

    /// The local candidate the other side saw; a new peer-reflexive one if it is none of ours
    /// (RFC 8445 section 7.2.5.3.1).
    fn mapped_candidate(
        &mut self,
        component: ComponentId,
        local: usize,
        mapped: core::net::SocketAddr,
    ) -> Option<usize> {
        let known = self.locals.iter().position(|known| {
            known.candidate.component == component && known.candidate.addr == mapped
        });
        if known.is_some() || self.locals.len() >= super::MAX_LOCAL {
            return known.or(Some(local));
        }
        let base = self.locals.get(local)?;
        let priority = base.check_priority();
        let mut candidate = base.candidate.clone();
        candidate.related = Some(candidate.addr);
        candidate.kind = CandidateKind::PeerReflexive;
        candidate.addr = mapped;
        let foundation = super::foundation(&self.locals, &candidate);
        self.locals.push(super::KnownLocal {
            candidate,
            foundation,
            priority,
        });
        Some(self.locals.len().saturating_sub(1))
    }
}
