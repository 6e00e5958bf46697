//! Sending checks and judging their answers (RFC 8445 section 7.2).

use alloc::vec::Vec;
use core::time::Duration;

use stun_proto::wire::{
    Class, ErrorCode, IceControlled, IceControlling, Message, MessageType, Method, Priority,
    TransactionId, UseCandidate, Username, Writer, XorMappedAddress,
};
use stun_proto::{Instant, Received, Retransmit, RetransmitConfig, Step};

use super::candidates::LocalId;
use super::pairs::{Pair, PairId, PairState, Valid};
use super::{Agent, AgentState, Event, MAX_LOCAL, MAX_TRANSMIT, Role, RouteLoss, Timer};
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
    generation: u32,
    /// The role it was sent in: a conflict is judged by it.
    role: Role,
    schedule: Retransmit,
    started: Instant,
    request: Vec<u8>,
    /// It is not sent again, and its end means nothing; a late success counts.
    cancelled: bool,
}

impl Agent {
    /// How long to wait before a check is sent again (RFC 8445 section 14.3).
    pub(super) fn rto(&self) -> Duration {
        let active = self.pairs.values().filter(|pair| pair.is_active()).count();
        let checks = active.saturating_mul(self.pairs.len());
        let checks = u32::try_from(checks).unwrap_or(u32::MAX);
        let longest = self.config.max_rto.max(self.config.min_rto);
        self.pacing()
            .saturating_mul(checks)
            .clamp(self.config.min_rto, longest)
    }

    pub(super) const fn has_budget(&self) -> bool {
        self.check_datagrams < self.config.max_check_datagrams
    }

    pub(super) fn start_check(&mut self, now: Instant, id: PairId) {
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        let (route, local) = (pair.route, pair.local);
        let nominates = pair.nominating && self.role == Role::Controlling;
        if pair.valid().is_none() {
            pair.state = PairState::InProgress;
        }
        let config = RetransmitConfig {
            rto: self.rto(),
            ..RetransmitConfig::default()
        };
        let purpose = Purpose::Pair { id, nominates };
        let schedule = Retransmit::datagram(config, now);
        self.send_check(now, purpose, route, local, schedule);
    }

    /// Sends a consent check: once, never again (RFC 7675 section 5.1).
    pub(super) fn start_consent(
        &mut self,
        now: Instant,
        component: ComponentId,
        route: Route,
        local: LocalId,
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
        local: LocalId,
        schedule: Retransmit,
    ) {
        // Consent of a component that has not settled again after a restart is still asked for
        // with the credentials from before it.
        let before = matches!(purpose, Purpose::Consent(c) if !self.selected.contains_key(&c));
        let old = self.old.as_ref().filter(|_| before);
        let (here, there) = match old {
            Some(old) => (&old.here, Some(&old.there)),
            None => (&self.here, self.there.as_ref()),
        };
        let Some(there) = there else {
            return;
        };
        let Some(priority) = self.locals.get(&local).map(|known| known.check_priority()) else {
            return;
        };
        let id = self.rng.transaction_id();
        let theirs = &there.remote.credentials.ufrag;
        let username = alloc::format!("{theirs}:{}", here.credentials.ufrag);
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
            .message_integrity(&there.key)
            .fingerprint()
            .finish();
        let Some(request) = written.ok().and_then(|len| buf.get(..len)) else {
            return;
        };
        let generation = match old {
            Some(old) => old.generation,
            None => self.generation,
        };
        self.push(route, request);
        if matches!(purpose, Purpose::Pair { .. }) {
            self.check_datagrams = self.check_datagrams.saturating_add(1);
        }
        self.timers.set(Timer::Check(id), schedule.deadline());
        let check = Check {
            purpose,
            route,
            generation,
            role: self.role,
            schedule,
            started: now,
            request: request.to_vec(),
            cancelled: false,
        };
        self.make_room_for_check();
        self.checks.insert(id, check);
    }

    /// Checks under way are limited by forgetting cancelled ones, the oldest first.
    fn make_room_for_check(&mut self) {
        if self.checks.len() < self.config.max_pairs.saturating_mul(3) {
            return;
        }
        let oldest = self
            .checks
            .iter()
            .filter(|(_, check)| check.cancelled)
            .min_by_key(|(_, check)| check.started)
            .map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.checks.remove(&id);
            self.timers.disarm(Timer::Check(id));
        }
    }

    /// A check is to be sent again, or no answer will come any more.
    pub(super) fn check_due(&mut self, now: Instant, id: TransactionId) {
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        let step = check.schedule.on_timeout(now);
        self.timers.set(Timer::Check(id), check.schedule.deadline());
        match step {
            Step::Wait => {}
            Step::Send => {
                if !check.cancelled && self.check_datagrams < self.config.max_check_datagrams {
                    self.check_datagrams = self.check_datagrams.saturating_add(1);
                    let (route, request) = (check.route, check.request.clone());
                    self.push(route, &request);
                    if !self.has_budget() {
                        self.changed(now);
                    }
                }
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

    /// Forgets the consent checks of a component: late answers do not revive it.
    pub(super) fn forget_consent(&mut self, component: ComponentId) {
        let timers = &mut self.timers;
        self.checks.retain(|id, check| {
            let forget = check.purpose == Purpose::Consent(component);
            if forget {
                timers.disarm(Timer::Check(*id));
            }
            !forget
        });
    }

    fn check_failed(&mut self, now: Instant, check: &Check) {
        let Purpose::Pair { id, nominates } = check.purpose else {
            return;
        };
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        if pair.valid().is_some() && !nominates {
            // A check for nothing, of a pair that has worked.
            return;
        }
        pair.state = PairState::Failed;
        pair.nominating = false;
        let component = pair.component;
        if nominates {
            let generation = self.generation;
            self.events.push_back(Event::NominationFailed {
                component,
                generation,
            });
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
            Class::Indication if self.local_at(route).is_some() => Received::Consumed,
            Class::Indication => Received::NotMine,
            Class::Success | Class::Error => self.answer(now, route, message),
        }
    }

    fn answer<'a>(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'a>,
    ) -> Received<'a, ComponentId> {
        let id = message.transaction_id();
        let Some(check) = self.checks.get(&id) else {
            return Received::NotMine;
        };
        let now = self.clock.advance(now);
        let there = match &self.old {
            Some(old) if old.generation == check.generation => Some(&old.there),
            Some(_) | None => self.there.as_ref(),
        };
        if there.is_none_or(|there| message.verify(&there.key).is_err()) {
            // A forger cannot end a check: it goes on as if nothing had come.
            self.stats.stray = self.stats.stray.saturating_add(1);
            return Received::Consumed;
        }
        let Some(check) = self.checks.remove(&id) else {
            return Received::NotMine;
        };
        self.timers.disarm(Timer::Check(id));
        let error: Option<ErrorCode<'_>> = message.find();
        let mapped: Option<XorMappedAddress> = message.find();
        match (message.class(), mapped, error.map(|error| error.code())) {
            // The answer must take the same way back (RFC 8445 section 7.2.5.2.1).
            (Class::Success, Some(XorMappedAddress(mapped)), _) if check.route == route => {
                self.check_succeeded(now, &check, mapped);
            }
            (Class::Error, _, Some(ErrorCode::ROLE_CONFLICT)) => self.conflict(now, &check),
            (Class::Error, _, Some(FORBIDDEN)) if check.route == route => match check.purpose {
                Purpose::Consent(component) => {
                    self.lose_route(component, RouteLoss::ConsentRevoked);
                }
                Purpose::Pair { .. } => self.check_failed(now, &check),
            },
            (Class::Success | Class::Error | Class::Request | Class::Indication, _, _) => {
                self.check_failed(now, &check);
            }
        }
        Received::Consumed
    }

    /// The other side has the same role and insists (RFC 8445 section 7.2.5.1). The role the check
    /// was sent in counts: two such answers switch it once.
    fn conflict(&mut self, now: Instant, check: &Check) {
        if check.role == self.role && check.generation == self.generation {
            if !self.switch_role() {
                return self.check_failed(now, check);
            }
            self.tie_breaker = self.rng.u64();
        }
        if let Purpose::Pair { id, .. } = check.purpose {
            self.trigger(id);
        }
        self.changed(now);
    }

    /// Takes the other role, unless that has happened too often.
    pub(super) fn switch_role(&mut self) -> bool {
        if self.switches >= self.config.max_role_switches {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return false;
        }
        self.switches = self.switches.saturating_add(1);
        self.role = self.role.other();
        self.events.push_back(Event::RoleChanged(self.role));
        for pair in self.pairs.values_mut() {
            pair.nominating = false;
        }
        self.reprioritize();
        true
    }

    fn check_succeeded(&mut self, now: Instant, check: &Check, mapped: core::net::SocketAddr) {
        let (id, nominates) = match check.purpose {
            Purpose::Consent(component) => {
                return self.consent_renewed(now, component, check.generation);
            }
            Purpose::Pair { id, nominates } => (id, nominates),
        };
        let Some(pair) = self.pairs.get(&id) else {
            return;
        };
        let (component, local, remote) = (pair.component, pair.local, pair.remote);
        let foundation = pair.foundation;
        let mapped = self.mapped_candidate(component, local, mapped);
        let priority = |id| self.locals.get(&id).map_or(0, |known| known.priority);
        let remote = self.remotes.get(&remote);
        let remote = remote.map_or(0, |known| known.candidate.priority);
        let valid = Valid {
            mapped,
            priority: self.role.pair_priority(priority(mapped), remote),
            rtt: now.duration_since(check.started),
            since: now,
        };
        self.sources.insert(check.route, component);
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        pair.state = PairState::Succeeded(valid);
        let selects = nominates || (pair.wanted && self.role == Role::Controlled);
        if !pair.nominating || nominates {
            // A check that waits its turn would only find out the same.
            pair.nominating = false;
            self.unqueue(id);
        }
        self.unfreeze_like(foundation);
        if selects {
            self.select(now, id);
        }
        self.changed(now);
    }

    /// The local candidate the other side saw; a new peer-reflexive one if it is none of ours
    /// (RFC 8445 section 7.2.5.3.1).
    fn mapped_candidate(
        &mut self,
        component: ComponentId,
        local: LocalId,
        mapped: core::net::SocketAddr,
    ) -> LocalId {
        let known = self.locals.iter().find(|(_, known)| {
            known.candidate.component == component && known.candidate.addr == mapped
        });
        if let Some((id, _)) = known {
            return *id;
        }
        let Some(base) = self
            .locals
            .get(&local)
            .filter(|_| self.locals.len() < MAX_LOCAL)
        else {
            return local;
        };
        let priority = base.check_priority();
        let mut candidate = base.candidate.clone();
        candidate.related = Some(candidate.addr);
        candidate.kind = CandidateKind::PeerReflexive;
        candidate.addr = mapped;
        let id = self.insert_local(candidate, priority, true);
        if let Some(known) = self.locals.get(&id) {
            let candidate = known.shown();
            self.events.push_back(Event::LocalReflexive {
                component,
                candidate,
            });
        }
        id
    }

    /// The local candidate whose base a route arrives at.
    pub(super) fn local_at(&self, route: Route) -> Option<LocalId> {
        if self.state == AgentState::Closed {
            return None;
        }
        let base = super::candidates::base_of(route);
        self.locals
            .iter()
            .find(|(_, known)| known.is_base() && known.candidate.base == base)
            .map(|(id, _)| *id)
    }

    /// Whether a nomination for a component is on its way.
    pub(super) fn is_nominating(&self, component: ComponentId) -> bool {
        let nominates = |pair: &Pair| pair.component == component && pair.nominating;
        self.pairs.values().any(nominates)
    }
}

/// The code that withdraws consent (RFC 7675 section 5.2).
const FORBIDDEN: u16 = 403;
