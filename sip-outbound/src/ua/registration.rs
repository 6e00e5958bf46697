//! The life of a registration, and the REGISTER requests it takes: one for each flow (RFC 3261
//! section 10.2, RFC 5626 section 4.2).

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use super::agree;
use super::backoff::delay;
use super::draft::ContactKind;
use super::flow::Purpose;
use super::idle::Idle;
use super::slot::{Keep, Proof, Slot, State};
use super::{
    FlowFailure, FlowId, FlowTarget, Phase, Profile, Refusal, RegistrationEnd, SecAgree, Timer,
    UserAgent, UserAgentEvent,
};
use crate::Instant;
use crate::digest::{AuthFailure, empty_authorization};
use crate::wire::{Builder, Method, Name, Request, UriBuf};

impl UserAgent {
    /// Opens the flow of a registration, as soon as REGISTER may be sent again.
    pub(super) fn open_slot(&mut self, now: Instant, index: usize) {
        let most = self.config.recovery.registers_per_minute;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let (proxy, wait) = (slot.proxy.clone(), slot.pace.wait(now, most));
        if wait.is_zero() {
            self.open_slot_to(index, proxy);
        } else if self.phase == Phase::Running && slot.flow().is_none() {
            slot.state = State::Waiting;
            self.timers.arm(Timer::Retry(index), now, wait);
        }
    }

    pub(super) fn open_slot_to(&mut self, index: usize, uri: UriBuf) {
        let idle = |slot: &Slot| slot.flow().is_none();
        if self.phase != Phase::Running || !self.slots.get(index).is_some_and(idle) {
            return;
        }
        let target = FlowTarget { uri, address: None };
        let flow = self.new_flow(target, Purpose::Slot(index));
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::Opening(flow);
        }
    }

    /// Opens a registration's next flow now instead of when its time has come, or after it was
    /// [`Refused`](UserAgentEvent::Refused). Without effect when there is a flow. Failures that came
    /// before still count, and so does
    /// [`registers_per_minute`](super::Recovery::registers_per_minute).
    pub fn retry_now(&mut self, now: Instant, reg_id: u32) {
        let now = self.clock.advance(now);
        let found = self.slots.iter().position(|slot| slot.reg_id == reg_id);
        let Some(index) = found else {
            return;
        };
        if self.slots.get(index).is_some_and(Slot::is_at_rest) {
            self.timers.disarm(Timer::Retry(index));
            self.open_slot(now, index);
        }
    }

    /// The host is in another network: every flow is given up, and every registration is made
    /// anew at once, with what was learned of the old network forgotten; see
    /// [`set_idle_time`](Self::set_idle_time). One that was refused is tried again as well, unless
    /// for a wrong password or because the network has ended it.
    pub fn network_changed(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.idle = Idle::default();
        let flows: Vec<_> = self.flows.keys().copied().collect();
        for flow in flows {
            self.fail_flow(now, flow, FlowFailure::NetworkChanged);
        }
        for index in 0..self.slots.len() {
            let revived = |slot: &&mut Slot| match slot.state {
                State::Waiting => true,
                State::Refused(cause) => !is_users_word(cause),
                State::Idle
                | State::Opening(_)
                | State::Registering(_)
                | State::Refreshing(_)
                | State::Registered(_)
                | State::Removing(_) => false,
            };
            if let Some(slot) = self.slots.get_mut(index).filter(revived) {
                slot.failures = 0;
                slot.forgiven = false;
                self.timers.disarm(Timer::Retry(index));
                self.open_slot(now, index);
            }
        }
        self.settle(now);
    }

    /// The registrar says, in answer to a subscription of the application, that a registration has
    /// ended. `false` when there is none to end: it is being made, or is over.
    pub fn registration_ended(&mut self, now: Instant, reg_id: u32, end: RegistrationEnd) -> bool {
        let now = self.clock.advance(now);
        let mut slots = self.slots.iter().enumerate();
        let found = slots.find_map(|(at, slot)| {
            let flow = slot.registered_flow().filter(|_| slot.reg_id == reg_id)?;
            Some((at, flow))
        });
        let Some((index, flow)) = found else {
            return false;
        };
        match end {
            RegistrationEnd::Deactivated => self.register_anew(now, index, flow),
            RegistrationEnd::Probation(wait) => {
                self.leave_flow(index, flow);
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.state = State::Waiting;
                }
                self.timers.arm(Timer::Retry(index), now, wait);
            }
            RegistrationEnd::Rejected => self.refuse_slot(index, Refusal::Ended),
        }
        self.settle(now);
        true
    }

    /// Makes a binding again over the flow that had it.
    pub(super) fn register_anew(&mut self, now: Instant, index: usize, flow: FlowId) {
        let expires = self.config.expires;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        // A refresh that is under way does it as well.
        if slot.state != State::Registered(flow) {
            return;
        }
        slot.state = State::Registering(flow);
        slot.attempt.restart();
        slot.asked = expires;
        self.disarm_slot(index);
        self.register(now, index);
    }

    /// The registration a flow is for; none of a flow to another next hop.
    pub fn reg_id(&self, flow: FlowId) -> Option<u32> {
        match self.flows.get(&flow)?.purpose {
            Purpose::Slot(index) => self.slots.get(index).map(|slot| slot.reg_id),
            Purpose::Extra => None,
        }
    }

    /// Leads a flow that is not open yet to another edge proxy of the domain: the registration is
    /// made there this time. `false` when the flow is open or unknown.
    pub fn redirect_flow(&mut self, flow: FlowId, proxy: UriBuf) -> bool {
        match self.flows.get_mut(&flow) {
            Some(entry) if entry.open.is_none() => {
                entry.target.uri = proxy;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn slot_opened(&mut self, now: Instant, index: usize, flow: FlowId) {
        let expires = self.config.expires;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.state = State::Registering(flow);
        slot.attempt.restart();
        slot.asked = expires;
        slot.brief = false;
        slot.plain = false;
        // With the connection before it, its agreement has ended.
        if !core::mem::take(&mut slot.agreed_ahead) {
            slot.agreed = None;
        }
        self.register(now, index);
    }

    /// Sends REGISTER as the slot now stands.
    pub(super) fn register(&mut self, now: Instant, index: usize) {
        let Some(flow) = self.slots.get(index).and_then(Slot::flow) else {
            return;
        };
        let Some(path) = self.path(flow) else {
            return;
        };
        let most = self.config.recovery.registers_per_minute;
        if let Some(slot) = self.slots.get_mut(index) {
            let wait = slot.pace.wait(now, most);
            if !wait.is_zero() && !slot.is_removing() {
                self.timers.arm(Timer::Paced(index), now, wait);
                return;
            }
            slot.pace.sent(now, most);
        }
        let request = self.build_register(index, flow);
        let sent = request.and_then(|request| self.clients.send(now, path, request).ok());
        match sent {
            Some(client) => {
                self.registers.insert(client, index);
            }
            // The table is full, or the configuration cannot be written: try again later.
            None => self.fail_flow(now, flow, FlowFailure::Unsent),
        }
    }

    fn build_register(&mut self, index: usize, flow: FlowId) -> Option<Request> {
        let via = self.new_via(flow, true)?;
        let contact_uri = self.contact_uri(flow, ContactKind::Binding)?;
        let route = loose(&self.flows.get(&flow)?.target.uri);
        let slot = self.slots.get_mut(index)?;
        slot.cseq = slot.cseq.saturating_add(1);
        let removing = slot.is_removing();
        let config = &self.config;
        let registrar = config.registrar.as_str();
        let method = Method::REGISTER;
        let expires = if removing { 0 } else { slot.asked };
        let mut contact = alloc::format!(
            "<{contact_uri}>;+sip.instance=\"<{}>\"",
            config.instance.as_str()
        );
        if !slot.plain {
            contact.push_str(&alloc::format!(";reg-id={}", slot.reg_id));
        }
        for (name, value) in &config.contact_params {
            contact.push(';');
            contact.push_str(name);
            if let Some(value) = value {
                contact.push('=');
                contact.push_str(value);
            }
        }
        contact.push_str(&alloc::format!(";expires={expires}"));
        let mut supported = String::from("path");
        if !slot.plain {
            supported.push_str(", outbound");
        }
        if config.gruu {
            supported.push_str(", gruu");
        }
        if config.sec_agree == SecAgree::On {
            supported.push_str(", sec-agree");
        }
        let aor = config.aor.as_str();
        let mut builder = Builder::request(&method, registrar)
            .header(Name::VIA, via)
            .header(Name::ROUTE, route)
            .header(Name::MAX_FORWARDS, 70)
            .header(Name::FROM, format_args!("<{aor}>;tag={}", slot.tag))
            .header(Name::TO, format_args!("<{aor}>"))
            .header(Name::CALL_ID, &slot.call_id)
            .header(Name::CSEQ, format_args!("{} {method}", slot.cseq))
            .header(Name::CONTACT, contact)
            .header(Name::SUPPORTED, supported)
            .maybe(Name::USER_AGENT, config.user_agent.as_ref());
        builder = agree::to_register(builder, config.sec_agree, slot.agreed.as_deref());
        let fields = slot.digest.authorize(
            &mut slot.attempt,
            &mut self.auth_rng,
            method.as_str(),
            registrar,
            b"",
        );
        if fields.is_empty()
            && config.profile == Profile::Ims
            && let Some(account) = config.accounts.first()
        {
            let host = registrar.strip_prefix("sip:").unwrap_or(registrar);
            let realm = account.home_realm().unwrap_or(host);
            let value = empty_authorization(&account.username, realm, registrar);
            builder = builder.header(Name::AUTHORIZATION, value);
        }
        for (name, value) in fields {
            builder = builder.header(name, value);
        }
        let message = builder.finish(b"").ok()?;
        Request::check(message, &self.config.parse.limits).ok()
    }

    /// A pong came. It proves the flow; that the registrar means it, only time does: one that
    /// closes each connection in a moment may answer pings as well.
    pub(super) fn slot_alive(&mut self, now: Instant, index: usize, flow: FlowId) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if slot.registered_flow() != Some(flow) {
            return;
        }
        if let Proof::Bound(since) | Proof::Pong(since) = slot.proof {
            slot.proof = Proof::Pong(since);
            slot.tried = 0;
        }
        if slot.has_lived(now) {
            slot.failures = 0;
            slot.forgiven = false;
        }
    }

    pub(super) fn refresh_slot(&mut self, now: Instant, index: usize) {
        let expires = self.config.expires;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let State::Registered(flow) = slot.state {
            slot.state = State::Refreshing(flow);
            slot.attempt.restart();
            slot.asked = slot.asked.max(expires);
            self.register(now, index);
        }
    }

    pub(super) fn slot_expired(&mut self, now: Instant, index: usize) {
        if let Some(flow) = self.slots.get(index).and_then(Slot::registered_flow) {
            self.fail_flow(now, flow, FlowFailure::Expired);
        }
    }

    pub(super) fn register_timed_out(&mut self, now: Instant, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        match slot.flow() {
            Some(_) if slot.is_removing() => self.removed(index),
            Some(flow) => self.fail_flow(now, flow, FlowFailure::TimedOut),
            None => {}
        }
    }

    /// The flow of a slot is gone: when it is tried again.
    pub(super) fn slot_failed(
        &mut self,
        now: Instant,
        index: usize,
        cause: FlowFailure,
    ) -> (Option<u32>, Option<Duration>) {
        self.disarm_slot(index);
        let all_failed = self.is_all_failed(index);
        let running = self.phase == Phase::Running;
        let Some(slot) = self.slots.get_mut(index) else {
            return (None, None);
        };
        let reg_id = Some(slot.reg_id);
        slot.keep = Keep::None;
        slot.agreed_ahead = false;
        let removing = slot.is_removing();
        slot.remove_next = false;
        if removing || !running {
            slot.state = State::Idle;
            return (reg_id, None);
        }
        slot.state = State::Waiting;
        let innocent = cause == FlowFailure::NetworkChanged || slot.is_forgiven(now);
        slot.proof = Proof::None;
        let another = !innocent && slot.try_another(&mut self.spares);
        if !innocent && !another {
            slot.failures = slot.failures.saturating_add(1);
        }
        let failures = if another || innocent {
            0
        } else {
            slot.failures
        };
        let pace = slot
            .pace
            .wait(now, self.config.recovery.registers_per_minute);
        let wait = delay(&self.config.recovery, failures, all_failed, &mut self.rng).max(pace);
        if wait.is_zero() {
            self.open_slot(now, index);
        } else {
            self.timers.arm(Timer::Retry(index), now, wait);
        }
        (reg_id, Some(wait))
    }

    /// Whether no other slot has a binding.
    pub(super) fn is_all_failed(&self, index: usize) -> bool {
        let mut others = self.slots.iter().enumerate();
        !others.any(|(at, slot)| at != index && slot.registered_flow().is_some())
    }

    pub(super) fn disarm_slot(&mut self, index: usize) {
        for timer in [
            Timer::Refresh(index),
            Timer::Paced(index),
            Timer::Retry(index),
            Timer::Expiry(index),
        ] {
            self.timers.disarm(timer);
        }
        self.registers.retain(|_, slot| *slot != index);
    }

    /// A registrar says no, in a way that waiting does not cure. One that has accepted this user
    /// before may be mistaken: then a binding that is still good is kept, and after it there are
    /// further attempts, ever more rarely.
    pub(super) fn refused(&mut self, now: Instant, index: usize, cause: Refusal) {
        let accepted = self.slots.iter().any(|slot| slot.accepted);
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        match slot.state {
            State::Refreshing(flow) => self.keep_binding(now, index, flow, cause),
            State::Registering(flow) if accepted || may_pass(cause) => {
                self.fail_flow(now, flow, FlowFailure::Refused(cause));
            }
            State::Idle
            | State::Opening(_)
            | State::Registering(_)
            | State::Registered(_)
            | State::Waiting
            | State::Removing(_)
            | State::Refused(_) => self.refuse_slot(index, cause),
        }
    }

    /// A refresh was refused.
    fn keep_binding(&mut self, now: Instant, index: usize, flow: FlowId, cause: Refusal) {
        let all_failed = self.is_all_failed(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.state = State::Registered(flow);
        slot.failures = slot.failures.saturating_add(1);
        slot.attempt.restart();
        // Credentials that were rejected are not sent again as long as nothing depends on it.
        if !is_users_word(cause) {
            let wait = delay(
                &self.config.recovery,
                slot.failures,
                all_failed,
                &mut self.rng,
            );
            let wait = self.before_expiry(now, index, wait, Duration::ZERO);
            self.timers.arm(Timer::Refresh(index), now, wait);
        }
    }

    /// Gives a registration up.
    pub(super) fn refuse_slot(&mut self, index: usize, cause: Refusal) {
        self.disarm_slot(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let (reg_id, flow) = (slot.reg_id, slot.flow());
        slot.state = State::Refused(cause);
        self.events
            .push_back(UserAgentEvent::Refused { reg_id, cause });
        self.drop_flow(flow);
    }

    /// Gives a flow up for another one of the same registration, without fault of its own.
    pub(super) fn leave_flow(&mut self, index: usize, flow: FlowId) {
        self.disarm_slot(index);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::Idle;
        }
        self.drop_flow(Some(flow));
    }

    /// Closes a flow that is no longer wanted, and ends what ran over it.
    pub(super) fn drop_flow(&mut self, flow: Option<FlowId>) {
        let Some(flow) = flow else {
            return;
        };
        let lost = match self.path(flow) {
            Some(path) => self.clients.path_failed(path),
            None => Vec::new(),
        };
        self.close_flow(flow);
        self.requests_lost(flow, &lost);
        self.accepted.flow_lost(flow);
        if !self
            .slots
            .iter()
            .any(|slot| slot.registered_flow().is_some())
        {
            self.service_route.clear();
        }
    }

    /// Removes a binding that is good for nothing.
    pub(super) fn remove_unwanted(&mut self, now: Instant, index: usize, flow: FlowId) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let reg_id = slot.reg_id;
        slot.state = State::Removing(flow);
        let cause = Refusal::NotOutbound;
        self.events
            .push_back(UserAgentEvent::Refused { reg_id, cause });
        self.disarm_slot(index);
        self.register(now, index);
    }

    /// Begins the end of a slot.
    pub(super) fn stop_slot(&mut self, now: Instant, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if matches!(slot.state, State::Refreshing(_)) {
            // One REGISTER at a time.
            slot.remove_next = true;
            return;
        }
        self.disarm_slot(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match slot.state {
            State::Registered(flow) | State::Refreshing(flow) => {
                slot.state = State::Removing(flow);
                slot.attempt.restart();
                self.register(now, index);
            }
            State::Opening(flow) | State::Registering(flow) => {
                slot.state = State::Idle;
                self.drop_flow(Some(flow));
            }
            State::Idle | State::Waiting | State::Refused(_) => slot.state = State::Idle,
            State::Removing(_) => {}
        }
    }

    pub(super) fn removed(&mut self, index: usize) {
        self.disarm_slot(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let (reg_id, flow) = (slot.reg_id, slot.flow());
        slot.remove_next = false;
        slot.state = State::Idle;
        self.events
            .push_back(UserAgentEvent::Unregistered { reg_id });
        self.drop_flow(flow);
        self.finish_if_stopped();
    }
}

/// Whether only the user can do something about it: by another password, or by asking the network.
const fn is_users_word(cause: Refusal) -> bool {
    match cause {
        Refusal::Authentication(AuthFailure::WrongCredentials) | Refusal::Ended => true,
        Refusal::Authentication(_)
        | Refusal::Status(_)
        | Refusal::NotBound
        | Refusal::NotOutbound
        | Refusal::SecAgree(_)
        | Refusal::MinExpires => false,
    }
}

/// Whether it is a fault of the registrar that may pass, even when it has never accepted anything.
const fn may_pass(cause: Refusal) -> bool {
    match cause {
        Refusal::NotBound | Refusal::Authentication(AuthFailure::Stale) => true,
        Refusal::Authentication(_)
        | Refusal::Status(_)
        | Refusal::NotOutbound
        | Refusal::SecAgree(_)
        | Refusal::Ended
        | Refusal::MinExpires => false,
    }
}

/// A proxy as a Route value: always a loose router.
pub(super) fn loose(proxy: &UriBuf) -> String {
    if proxy.as_uri().is_loose() {
        alloc::format!("<{proxy}>")
    } else {
        alloc::format!("<{proxy};lr>")
    }
}
