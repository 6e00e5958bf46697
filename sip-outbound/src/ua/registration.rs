//! One registration for each flow (RFC 3261 section 10.2, RFC 5626 section 4.2).

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::InfoVerdict;
use stun_proto::Rng;

use super::backoff::{between, delay, fraction};
use super::flow::{Link, Purpose};
use super::idle::Idle;
use super::{
    FlowFailure, FlowId, FlowTarget, Phase, Profile, Refusal, Registration, Timer, UserAgent,
    UserAgentConfig, UserAgentEvent, WithoutOutbound,
};
use crate::Instant;
use crate::digest::{
    AkaAnswer, AuthFailure, ChallengeStep, DigestAttempt, DigestClient, empty_authorization,
};
use crate::wire::{
    Builder, Keep, Message, Method, Name, NameAddr, Request, Response, StatusCode, UriBuf, Via,
    parse_retry_after, same_host,
};

/// A position in the outbound proxy set.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    reg_id: u32,
    proxy: UriBuf,
    call_id: String,
    tag: String,
    cseq: u32,
    state: State,
    pub(super) digest: DigestClient,
    attempt: DigestAttempt,
    /// Failures in a row.
    failures: u32,
    /// Registered, and known to be alive: the next failure is the first one again.
    proven: bool,
    /// What the current operation asks for.
    asked: u32,
    /// A 423 has been obeyed in this operation.
    brief: bool,
    /// The registrar has not confirmed outbound: no longer speak of it.
    plain: bool,
    bound: Option<Duration>,
    /// What its flows have died of.
    pub(super) idle: Idle,
    /// Remove the binding as soon as the refresh under way is answered.
    remove_next: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not started, or over.
    Idle,
    Opening(FlowId),
    /// REGISTER is unanswered, or the card is being asked.
    Registering(FlowId),
    /// As `Registering`, with a binding that is still good.
    Refreshing(FlowId),
    Registered(FlowId),
    /// The timer will try again.
    Waiting,
    Removing(FlowId),
    Refused,
}

impl Slot {
    pub(super) fn new(reg_id: u32, proxy: UriBuf, config: &UserAgentConfig, rng: &mut Rng) -> Self {
        Self {
            reg_id,
            proxy,
            call_id: super::request::token(rng, 16),
            tag: super::request::token(rng, 8),
            cseq: 0,
            state: State::Idle,
            digest: DigestClient::new(config.accounts.clone(), config.digest),
            attempt: DigestAttempt::default(),
            failures: 0,
            proven: false,
            asked: config.expires,
            brief: false,
            plain: false,
            bound: None,
            idle: Idle::default(),
            remove_next: false,
        }
    }

    pub(super) const fn is_removing(&self) -> bool {
        matches!(self.state, State::Removing(_)) || self.remove_next
    }

    /// The flow, while a binding over it is good.
    pub(super) const fn registered_flow(&self) -> Option<FlowId> {
        match self.state {
            State::Registered(flow) | State::Refreshing(flow) => Some(flow),
            State::Idle
            | State::Opening(_)
            | State::Registering(_)
            | State::Waiting
            | State::Removing(_)
            | State::Refused => None,
        }
    }

    const fn flow(&self) -> Option<FlowId> {
        match self.state {
            State::Opening(flow)
            | State::Registering(flow)
            | State::Refreshing(flow)
            | State::Registered(flow)
            | State::Removing(flow) => Some(flow),
            State::Idle | State::Waiting | State::Refused => None,
        }
    }
}

impl UserAgent {
    pub(super) fn open_slot(&mut self, _now: Instant, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        if self.phase != Phase::Running || slot.flow().is_some() {
            return;
        }
        let target = FlowTarget {
            uri: slot.proxy.clone(),
            address: None,
        };
        let flow = self.new_flow(target, Purpose::Slot(index));
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = State::Opening(flow);
        }
    }

    /// Opens a registration's next flow now instead of when its time has come. Without effect
    /// unless it waits for that. Failures that came before still count.
    pub fn retry_now(&mut self, now: Instant, reg_id: u32) {
        let now = self.clock.advance(now);
        let waiting = |slot: &Slot| slot.reg_id == reg_id && slot.state == State::Waiting;
        if let Some(index) = self.slots.iter().position(waiting) {
            self.timers.disarm(Timer::Retry(index));
            self.open_slot(now, index);
        }
    }

    /// The host is in another network: every flow is given up, and every registration is made
    /// anew at once, with what was learned of the old network forgotten.
    pub fn network_changed(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        for slot in &mut self.slots {
            slot.idle = Idle::default();
        }
        let flows: Vec<_> = self.flows.keys().copied().collect();
        for flow in flows {
            self.fail_flow(now, flow, FlowFailure::NetworkChanged);
        }
        for index in 0..self.slots.len() {
            let waiting = |slot: &&mut Slot| slot.state == State::Waiting;
            if let Some(slot) = self.slots.get_mut(index).filter(waiting) {
                slot.failures = 0;
                self.timers.disarm(Timer::Retry(index));
                self.open_slot(now, index);
            }
        }
        self.settle(now);
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
        self.register(now, index);
    }

    /// Sends REGISTER as the slot now stands.
    fn register(&mut self, now: Instant, index: usize) {
        let Some(flow) = self.slots.get(index).and_then(Slot::flow) else {
            return;
        };
        let Some(path) = self.path(flow) else {
            return;
        };
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
        let contact_uri = self.contact_uri(flow, false)?;
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
            let realm = account.realms.first().map_or("", String::as_str);
            let value = empty_authorization(&account.username, realm, registrar);
            builder = builder.header(Name::AUTHORIZATION, value);
        }
        for (name, value) in fields {
            builder = builder.header(name, value);
        }
        let message = builder.finish(b"").ok()?;
        Request::check(message, &self.config.parse.limits).ok()
    }

    /// Takes in the response to a REGISTER.
    pub(super) fn register_answered(&mut self, now: Instant, index: usize, response: &Response) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(flow) = slot.flow() else {
            return;
        };
        let code = response.code();
        if code.is_provisional() {
            return;
        }
        if core::mem::take(&mut slot.remove_next) {
            slot.state = State::Registered(flow);
            self.stop_slot(now, index);
            return;
        }
        if code == StatusCode::UNAUTHORIZED || code == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            self.register_challenged(now, index, flow, response);
            return;
        }
        if slot.is_removing() {
            self.removed(index);
            return;
        }
        if code.is_success() {
            self.register_accepted(now, index, flow, response);
            return;
        }
        let recoverable = code == StatusCode::REQUEST_TIMEOUT
            || code == StatusCode::TEMPORARILY_UNAVAILABLE
            || code.class() == 5;
        if code == StatusCode::INTERVAL_TOO_BRIEF {
            self.too_brief(now, index, response);
        } else if recoverable {
            let retry_after = response
                .only(Name::RETRY_AFTER)
                .ok()
                .and_then(parse_retry_after);
            self.register_failed(now, index, flow, code, retry_after);
        } else {
            self.refuse_slot(index, Refusal::Status(code));
        }
    }

    fn register_challenged(
        &mut self,
        now: Instant,
        index: usize,
        flow: FlowId,
        response: &Response,
    ) {
        let Some(open) = self.open_ref(flow) else {
            return;
        };
        let secure = open.at.transport.is_secure();
        let suspicious = secure && self.is_foreign_realm(flow, response.message());
        let uri = String::from(self.config.registrar.as_str());
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let reg_id = slot.reg_id;
        if suspicious {
            self.events.push_back(UserAgentEvent::Suspicious { reg_id });
        }
        let step = slot
            .digest
            .handle_challenge(&mut slot.attempt, response, &uri, secure);
        self.follow(now, index, step);
    }

    /// Whether no realm that asks belongs to a name the peer has proven: somebody may be passing
    /// on a challenge that was meant for another connection.
    fn is_foreign_realm(&self, flow: FlowId, message: &Message) -> bool {
        let Some(open) = self.open_ref(flow).filter(|open| !open.names.is_empty()) else {
            return false;
        };
        let within = |realm: &str| {
            open.names.iter().any(|name| {
                same_host(name, realm)
                    || name
                        .len()
                        .checked_sub(realm.len().saturating_add(1))
                        .and_then(|at| name.split_at_checked(at))
                        .is_some_and(|(_, end)| {
                            end.strip_prefix('.')
                                .is_some_and(|end| end.eq_ignore_ascii_case(realm))
                        })
            })
        };
        let mut realms = message
            .rows(Name::WWW_AUTHENTICATE)
            .flat_map(http_connect::auth::challenges)
            .filter_map(Result::ok)
            .filter_map(|challenge| challenge.parameter("realm").map(String::from))
            .peekable();
        realms.peek().is_some() && !realms.any(|realm| within(&realm))
    }

    fn follow(&mut self, now: Instant, index: usize, step: ChallengeStep) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let reg_id = slot.reg_id;
        match step {
            ChallengeStep::Retry => self.register(now, index),
            ChallengeStep::AskCard(challenge) => self
                .events
                .push_back(UserAgentEvent::CardNeeded { reg_id, challenge }),
            ChallengeStep::Refuse(_) if slot.is_removing() => self.removed(index),
            ChallengeStep::Refuse(failure) => {
                self.refuse_slot(index, Refusal::Authentication(failure));
            }
        }
    }

    /// Takes in what the smart card said to [`UserAgentEvent::CardNeeded`].
    pub fn card_answer(&mut self, now: Instant, reg_id: u32, answer: &AkaAnswer) {
        let now = self.clock.advance(now);
        let found = self.slots.iter().position(|slot| slot.reg_id == reg_id);
        let Some(index) = found else {
            return;
        };
        let Some(slot) = self
            .slots
            .get_mut(index)
            .filter(|slot| slot.flow().is_some())
        else {
            return;
        };
        let step = slot.digest.handle_aka(answer);
        if step != ChallengeStep::Refuse(AuthFailure::NoUsableChallenge) {
            self.follow(now, index, step);
        }
        self.settle(now);
    }

    /// Min-Expires is obeyed once, and only when it is longer than what was asked.
    fn too_brief(&mut self, now: Instant, index: usize, response: &Response) {
        let least = response.seconds(Name::MIN_EXPIRES).ok();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match least.filter(|least| *least > slot.asked && !slot.brief) {
            Some(least) => {
                slot.brief = true;
                slot.asked = least;
                self.register(now, index);
            }
            None => self.refuse_slot(index, Refusal::MinExpires),
        }
    }

    /// A failure that may pass. A binding that is still good is kept, and its flow with it.
    fn register_failed(
        &mut self,
        now: Instant,
        index: usize,
        flow: FlowId,
        code: StatusCode,
        retry_after: Option<u32>,
    ) {
        let all_failed = self.is_all_failed(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let State::Refreshing(flow) = slot.state {
            slot.state = State::Registered(flow);
            slot.failures = slot.failures.saturating_add(1);
            let wait = delay(
                &self.config.recovery,
                slot.failures,
                all_failed,
                &mut self.rng,
            );
            let least = Duration::from_secs(u64::from(retry_after.unwrap_or(0)));
            self.timers.arm(Timer::Refresh(index), now, wait.max(least));
            return;
        }
        self.fail_flow(now, flow, FlowFailure::Failed(code));
        let Some(seconds) = retry_after else {
            return;
        };
        // The first time the proxy's word counts, 0 included; later it may only lengthen.
        let wait = Duration::from_secs(u64::from(seconds));
        let first = self.slots.get(index).is_some_and(|slot| slot.failures <= 1);
        let own = self.timers.get(Timer::Retry(index));
        let asked = crate::time::deadline(now, wait);
        let at = if first { asked } else { own.max(asked) };
        if first && wait.is_zero() {
            self.timers.disarm(Timer::Retry(index));
            self.open_slot(now, index);
        } else {
            self.timers.set(Timer::Retry(index), at);
        }
        if let Some(UserAgentEvent::FlowFailed { retry_in, .. }) = self.events.back_mut() {
            *retry_in = at.map(|at| at.duration_since(now));
        }
    }

    fn register_accepted(&mut self, now: Instant, index: usize, flow: FlowId, response: &Response) {
        let Some(own) = self.own_binding(index, flow, response) else {
            self.refuse_slot(index, Refusal::NotBound);
            return;
        };
        let outbound = response.has_tag(Name::REQUIRE, "outbound");
        let path: Vec<String> = response.list(Name::PATH).map(String::from).collect();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let reg_id = slot.reg_id;
        if slot.digest.accepted(&slot.attempt, response) == InfoVerdict::Forged {
            self.events.push_back(UserAgentEvent::Suspicious { reg_id });
        }
        slot.attempt.restart();
        slot.brief = false;
        if !outbound && !slot.plain {
            if self.config.without_outbound == WithoutOutbound::Refuse {
                self.remove_unwanted(now, index, flow);
                return;
            }
            slot.plain = true;
            self.events
                .push_back(UserAgentEvent::NotOutbound { reg_id });
        }
        slot.state = State::Registered(flow);
        let bound = self.start_keep_alive(now, index, flow, outbound, response);
        self.service_route = response
            .routes(Name::SERVICE_ROUTE, &self.config.parse.limits)
            .filter_map(Result::ok)
            .map(UriBuf::from)
            .collect();
        let granted = Duration::from_secs(u64::from(own.expires));
        let refresh = refresh_after(self.config.profile, granted, &mut self.rng);
        self.timers.arm(Timer::Refresh(index), now, refresh);
        self.timers.arm(Timer::Expiry(index), now, granted);
        self.events.push_back(UserAgentEvent::Registered {
            reg_id,
            flow,
            registration: Registration {
                expires: own.expires,
                outbound,
                path,
                service_route: self.service_route.clone(),
                pub_gruu: own.pub_gruu,
                temp_gruu: own.temp_gruu,
                associated: response
                    .list(Name::P_ASSOCIATED_URI)
                    .map(String::from)
                    .collect(),
                keep_alive: bound,
            },
        });
        if bound.is_none() {
            self.slot_proven(index);
        }
    }

    /// Starts, goes on with or stops keep-alives, as the answer says.
    fn start_keep_alive(
        &mut self,
        now: Instant,
        index: usize,
        flow: FlowId,
        outbound: bool,
        response: &Response,
    ) -> Option<Duration> {
        let datagram = matches!(self.open_ref(flow)?.link, Link::Datagram { .. });
        let limits = self.config.parse.limits;
        let keep = response
            .via(&limits)
            .map_or(Keep::Absent, |via: Via<'_>| via.keep());
        let asked = match (response.seconds(Name::FLOW_TIMER), keep) {
            (Ok(seconds), _) => Some(Some(seconds)),
            (Err(_), Keep::Granted(seconds)) => Some(Some(seconds)),
            (Err(_), Keep::Absent | Keep::Offered) => outbound.then_some(None),
        };
        let bound = asked.map(|asked| self.keep_alive_bound(flow, asked, datagram));
        match bound {
            Some(bound) => self.schedule_ping(now, flow, bound),
            None => self.stop_pings(flow),
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.bound = bound;
        }
        bound
    }

    /// A pong came.
    pub(super) fn slot_alive(&mut self, now: Instant, index: usize, flow: FlowId) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let registered = slot.registered_flow() == Some(flow);
        if slot.bound.is_some() && self.is_ping_due(flow) {
            self.send_ping(now, flow);
        }
        if registered {
            self.slot_proven(index);
        }
    }

    /// The longest interval between pings on a flow; none when there are to be no pings.
    pub(super) fn slot_bound(&self, flow: FlowId) -> Option<Duration> {
        match self.flows.get(&flow)?.purpose {
            Purpose::Slot(index) => self.slots.get(index)?.bound,
            Purpose::Extra => None,
        }
    }

    fn slot_proven(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.proven = true;
            slot.failures = 0;
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
        slot.bound = None;
        let removing = slot.is_removing();
        slot.remove_next = false;
        if removing || !running {
            slot.state = State::Idle;
            return (reg_id, None);
        }
        slot.state = State::Waiting;
        if core::mem::take(&mut slot.proven) || cause == FlowFailure::NetworkChanged {
            slot.failures = 0;
        } else {
            slot.failures = slot.failures.saturating_add(1);
        }
        let wait = delay(
            &self.config.recovery,
            slot.failures,
            all_failed,
            &mut self.rng,
        );
        if wait.is_zero() {
            self.open_slot(now, index);
        } else {
            self.timers.arm(Timer::Retry(index), now, wait);
        }
        (reg_id, Some(wait))
    }

    /// Whether no other slot has a binding.
    fn is_all_failed(&self, index: usize) -> bool {
        let mut others = self.slots.iter().enumerate();
        !others.any(|(at, slot)| at != index && slot.registered_flow().is_some())
    }

    fn disarm_slot(&mut self, index: usize) {
        for timer in [
            Timer::Refresh(index),
            Timer::Retry(index),
            Timer::Expiry(index),
        ] {
            self.timers.disarm(timer);
        }
        self.registers.retain(|_, slot| *slot != index);
    }

    /// Gives a registration up.
    fn refuse_slot(&mut self, index: usize, cause: Refusal) {
        self.disarm_slot(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let (reg_id, flow) = (slot.reg_id, slot.flow());
        slot.state = State::Refused;
        self.events
            .push_back(UserAgentEvent::Refused { reg_id, cause });
        self.drop_flow(flow);
    }

    /// Closes a flow that is no longer wanted, and ends what ran over it.
    fn drop_flow(&mut self, flow: Option<FlowId>) {
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
    fn remove_unwanted(&mut self, now: Instant, index: usize, flow: FlowId) {
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
            State::Idle | State::Waiting | State::Refused => slot.state = State::Idle,
            State::Removing(_) => {}
        }
    }

    fn removed(&mut self, index: usize) {
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

    fn own_binding(&self, index: usize, flow: FlowId, response: &Response) -> Option<Own> {
        let slot = self.slots.get(index)?;
        let limits = self.config.parse.limits;
        let contact = self.contact_uri(flow, false)?;
        let contact = UriBuf::parse(contact).ok()?;
        let bindings: Vec<NameAddr<'_>> =
            response.contacts(&limits).filter_map(Result::ok).collect();
        let by_name = bindings.iter().find(|binding| {
            let instance = binding.instance();
            let same =
                instance.is_some_and(|urn| urn.eq_ignore_ascii_case(self.config.instance.as_str()));
            same && binding.reg_id() == Some(slot.reg_id)
        });
        let by_uri = || {
            bindings.iter().find(|binding| {
                let uri = binding.uri.sip();
                uri.is_some_and(|uri| uri.is_equivalent(&contact.as_uri()))
            })
        };
        let own = by_name.or_else(by_uri)?;
        let expires = own.expires().or(response.expires()).unwrap_or(slot.asked);
        let gruu = |name| own.params.unquoted(name).map(String::from);
        (expires > 0).then(|| Own {
            expires,
            pub_gruu: gruu("pub-gruu"),
            temp_gruu: gruu("temp-gruu"),
        })
    }
}

/// What the registrar says of our binding.
struct Own {
    expires: u32,
    pub_gruu: Option<String>,
    temp_gruu: Option<String>,
}

/// When to refresh a binding.
fn refresh_after(profile: Profile, granted: Duration, rng: &mut Rng) -> Duration {
    let half = fraction(granted, 1, 2);
    match profile {
        Profile::Ims if granted > Duration::from_secs(1200) => {
            granted.saturating_sub(Duration::from_secs(600))
        }
        Profile::Ims => half,
        Profile::Internet if granted <= Duration::from_secs(64) => half,
        Profile::Internet => {
            let latest = granted.saturating_sub(Duration::from_secs(32));
            let low = fraction(granted, 4, 5);
            let high = fraction(granted, 9, 10).min(latest);
            between(low.min(high), high, rng)
        }
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
