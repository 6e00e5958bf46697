//! What follows from the answers to REGISTER.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::InfoVerdict;
use stun_proto::Rng;

use super::backoff::{between, delay, fraction};
use super::draft::ContactKind;
use super::flow::Link;
use super::slot::{Keep, Proof, State};
use super::{
    FlowFailure, FlowId, Profile, Refusal, Registration, Timer, UserAgent, UserAgentEvent,
    WithoutOutbound,
};
use crate::Instant;
use crate::digest::{AkaAnswer, AuthFailure, ChallengeStep};
use crate::time::elapsed;
use crate::wire::{
    Keep as ViaKeep, Message, Name, NameAddr, Response, SipUri, StatusCode, UriBuf, Via,
    parse_retry_after, same_host,
};

/// No refresh is tried again sooner, however short the binding.
const LEAST_RETRY: Duration = Duration::from_secs(5);

impl UserAgent {
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
        if self.agree(now, index, flow, response) {
            return;
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
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
            self.refused(now, index, Refusal::Status(code));
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
                self.refused(now, index, Refusal::Authentication(failure));
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
            None => self.refused(now, index, Refusal::MinExpires),
        }
    }

    /// The wait for another refresh: one that would outlast the binding is cut to half of what is
    /// left of it, as long as that is worth it and not less than the registrar asked for.
    pub(super) fn before_expiry(
        &self,
        now: Instant,
        index: usize,
        wait: Duration,
        least: Duration,
    ) -> Duration {
        let end = self.timers.get(Timer::Expiry(index));
        let left = end.map_or(Duration::MAX, |end| elapsed(now, end));
        let half = fraction(left, 1, 2);
        if wait >= left && half >= least.max(LEAST_RETRY) {
            half
        } else {
            wait
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
            let wait = self.before_expiry(now, index, wait.max(least), least);
            self.timers.arm(Timer::Refresh(index), now, wait);
            return;
        }
        self.fail_flow(now, flow, FlowFailure::Failed(code));
        let waits = self
            .slots
            .get(index)
            .is_some_and(|slot| slot.state == State::Waiting);
        let Some(seconds) = retry_after.filter(|_| waits) else {
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
            self.refused(now, index, Refusal::NotBound);
            return;
        };
        self.idle.convicted(now);
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
        slot.accepted = true;
        let fresh = slot.proof == Proof::None;
        if fresh {
            slot.proof = Proof::Bound(now);
        }
        let sec_agree = slot.agreed.is_some();
        let bound = self.start_keep_alive(now, index, flow, (fresh, outbound), response);
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
                sec_agree,
            },
        });
    }

    /// Starts, goes on with or stops keep-alives, as the answer says.
    fn start_keep_alive(
        &mut self,
        now: Instant,
        index: usize,
        flow: FlowId,
        (fresh, outbound): (bool, bool),
        response: &Response,
    ) -> Option<Duration> {
        let datagram = matches!(self.open_ref(flow)?.link, Link::Datagram { .. });
        let limits = self.config.parse.limits;
        let keep = response
            .via(&limits)
            .map_or(ViaKeep::Absent, |via: Via<'_>| via.keep());
        let asked = match (response.seconds(Name::FLOW_TIMER), keep) {
            (Ok(seconds), _) => Some(Some(seconds)),
            (Err(_), ViaKeep::Granted(seconds)) => Some(Some(seconds)),
            (Err(_), ViaKeep::Absent | ViaKeep::Offered) => outbound.then_some(None),
        };
        let keep = match asked {
            Some(asked) => Keep::Agreed(self.keep_alive_bound(flow, asked, datagram)),
            None if self.config.keep_alive.unasked && !datagram => {
                Keep::Unasked(self.keep_alive_bound(flow, None, datagram))
            }
            None => Keep::None,
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.keep = keep;
        }
        match self.keep_bound(flow) {
            // At once: a pong proves the flow, and says from where its silence counts.
            Some(_) if fresh => self.send_ping(now, flow),
            Some(bound) => self.schedule_ping(now, flow, bound),
            None => self.stop_pings(flow),
        }
        keep.agreed()
    }

    /// What a 2xx says of our binding. It is named by instance and reg-id, or else by URI (RFC 3261
    /// section 10.2.4); but what lies in between may rewrite the one and drop the other, and a 2xx
    /// without any Contact is one, too. `None` when all it lists are others, or ours with no time.
    fn own_binding(&self, index: usize, flow: FlowId, response: &Response) -> Option<Own> {
        let slot = self.slots.get(index)?;
        let limits = self.config.parse.limits;
        let contact = self.contact_uri(flow, ContactKind::Binding)?;
        let contact = UriBuf::parse(contact).ok()?;
        let bindings: Vec<NameAddr<'_>> =
            response.contacts(&limits).filter_map(Result::ok).collect();
        let otherwise = response.expires().unwrap_or(slot.asked);
        let own = find_own(
            &bindings,
            self.config.instance.as_str(),
            slot.reg_id,
            &contact.as_uri(),
        );
        let Some(own) = own else {
            return (bindings.is_empty() && otherwise > 0).then_some(Own {
                expires: otherwise,
                pub_gruu: None,
                temp_gruu: None,
            });
        };
        let expires = own.expires().unwrap_or(otherwise);
        let gruu = |name| own.params.unquoted(name).map(String::from);
        (expires > 0).then(|| Own {
            expires,
            pub_gruu: gruu("pub-gruu"),
            temp_gruu: gruu("temp-gruu"),
        })
    }
}

/// The binding that is ours, by the surest sign there is.
fn find_own<'b, 'a>(
    bindings: &'b [NameAddr<'a>],
    instance: &str,
    reg_id: u32,
    contact: &SipUri<'_>,
) -> Option<&'b NameAddr<'a>> {
    let is_instance = |binding: &&NameAddr<'_>| {
        let own = binding.instance();
        own.is_some_and(|urn| urn.eq_ignore_ascii_case(instance))
    };
    let is_uri = |binding: &&NameAddr<'_>| {
        let uri = binding.uri.sip();
        uri.is_some_and(|uri| uri.is_equivalent(contact))
    };
    let is_address = |binding: &&NameAddr<'_>| {
        let uri = binding.uri.sip();
        uri.is_some_and(|uri| {
            (uri.user(), uri.port()) == (contact.user(), contact.port())
                && same_host(uri.host(), contact.host())
        })
    };
    let find = |is: &dyn Fn(&&'b NameAddr<'a>) -> bool| bindings.iter().find(is);
    find(&|binding| is_instance(binding) && binding.reg_id() == Some(reg_id))
        .or_else(|| find(&|binding| is_uri(binding)))
        .or_else(|| find(&|binding| is_instance(binding) && binding.reg_id().is_none()))
        .or_else(|| find(&|binding| is_address(binding)))
        .or_else(|| {
            // Rewritten beyond recognition: of those that are nobody's the one that was made last.
            let nobodys = |binding: &&NameAddr<'_>| {
                binding.instance().is_none() && binding.reg_id().is_none()
            };
            let unnamed = bindings.iter().filter(nobodys);
            unnamed.max_by_key(|binding| binding.expires())
        })
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
