//! Answering checks (RFC 8445 section 7.3).

use stun_proto::auth::{ShortTermRefusal, authenticate_short_term};
use stun_proto::wire::{
    Attribute, AttributeType, ErrorCode, IceControlled, IceControlling, Message, MessageType,
    Method, Priority, UnknownAttributes, UseCandidate, Username, Writer, XorMappedAddress,
};
use stun_proto::{Instant, Received};

use super::pairs::{KnownRemote, PairState};
use super::{Agent, MAX_TRANSMIT, Role, State};
use crate::{Candidate, CandidateKind, ComponentId, Route};

/// A check that came before the other side's description.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyCheck {
    route: Route,
    local: usize,
    priority: u32,
    use_candidate: bool,
}

impl Agent {
    pub(super) fn check_request<'a>(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'a>,
    ) -> Received<'a, ComponentId> {
        let Some(local) = self.component_at(route) else {
            return Received::NotMine;
        };
        let ours = message
            .find::<Username<'_>>()
            .is_some_and(|name| is_for(name.as_bytes(), self.local.ufrag.as_bytes()));
        if !ours && !self.config.answer_unverified {
            return Received::NotMine;
        }
        if self.state == State::Ended {
            return Received::Consumed;
        }
        let now = self.clock.advance(now);
        let key = &self.local_key;
        if let Err(refusal) = authenticate_short_term(message, |_| ours.then_some(key)) {
            self.stats.unverified = self.stats.unverified.saturating_add(1);
            if self.config.answer_unverified {
                self.refuse(route, message, refusal);
            }
            return Received::Consumed;
        }
        self.proven_request(now, route, local, message);
        Received::Consumed
    }

    fn refuse(&mut self, route: Route, message: &Message<'_>, refusal: ShortTermRefusal) {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(Method::BINDING).error();
        let written = Writer::new(&mut buf, ty, message.transaction_id())
            .attribute(&ErrorCode::new(refusal.code()))
            .fingerprint()
            .finish();
        if let Some(answer) = written.ok().and_then(|len| buf.get(..len)) {
            self.outbox.push_back((route, answer.to_vec()));
        }
    }

    fn proven_request(&mut self, now: Instant, route: Route, local: usize, message: &Message<'_>) {
        let unknown: smallvec::SmallVec<[AttributeType; 8]> =
            message.unknown_required(|ty| KNOWN.contains(&ty)).collect();
        if !unknown.is_empty() {
            let error = ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE);
            return self.reply_error(route, message, error, Some(UnknownAttributes(unknown)));
        }
        let Some(Priority(priority)) = message.find().filter(|p: &Priority| p.0 != 0) else {
            let error = ErrorCode::new(ErrorCode::BAD_REQUEST);
            return self.reply_error(route, message, error, None);
        };
        if self.remote.is_none() {
            self.reply_success(route, message);
            return self.keep_early(route, local, priority, message);
        }
        if self.resolve_conflict(message).is_err() {
            let error = ErrorCode::new(ErrorCode::ROLE_CONFLICT);
            return self.reply_error(route, message, error, None);
        }
        self.reply_success(route, message);
        let check = EarlyCheck {
            route,
            local,
            priority,
            use_candidate: message.has(<UseCandidate as Attribute<'_>>::TYPE),
        };
        self.take_early(check);
        self.changed(now);
    }

    fn keep_early(&mut self, route: Route, local: usize, priority: u32, message: &Message<'_>) {
        let use_candidate = message.has(<UseCandidate as Attribute<'_>>::TYPE);
        if let Some(known) = self.early.iter_mut().find(|early| early.route == route) {
            known.use_candidate |= use_candidate;
            return;
        }
        if self.early.len() >= self.config.max_early {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            self.early.pop_front();
        }
        self.early.push_back(EarlyCheck {
            route,
            local,
            priority,
            use_candidate,
        });
    }

    /// Detects and repairs a role conflict (RFC 8445 section 7.3.1.1); `Err` when the other side
    /// must switch.
    fn resolve_conflict(&mut self, message: &Message<'_>) -> Result<(), ()> {
        let theirs = match self.role {
            Role::Controlling => message.find().map(|IceControlling(tie)| tie),
            Role::Controlled => message.find().map(|IceControlled(tie)| tie),
        };
        let Some(theirs) = theirs else {
            return Ok(());
        };
        let mine_wins = self.tie_breaker >= theirs;
        let stay = match self.role {
            Role::Controlling => mine_wins,
            Role::Controlled => !mine_wins,
        };
        if stay {
            return Err(());
        }
        self.switch_role();
        Ok(())
    }

    fn reply_success(&mut self, route: Route, message: &Message<'_>) {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(Method::BINDING).success();
        let written = Writer::new(&mut buf, ty, message.transaction_id())
            .attribute(&XorMappedAddress(route.remote()))
            .message_integrity(&self.local_key)
            .fingerprint()
            .finish();
        if let Some(answer) = written.ok().and_then(|len| buf.get(..len)) {
            self.outbox.push_back((route, answer.to_vec()));
        }
    }

    fn reply_error(
        &mut self,
        route: Route,
        message: &Message<'_>,
        error: ErrorCode<'_>,
        unknown: Option<UnknownAttributes>,
    ) {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(Method::BINDING).error();
        let written = Writer::new(&mut buf, ty, message.transaction_id())
            .attribute(&error)
            .maybe(unknown.as_ref())
            .message_integrity(&self.local_key)
            .fingerprint()
            .finish();
        if let Some(answer) = written.ok().and_then(|len| buf.get(..len)) {
            self.outbox.push_back((route, answer.to_vec()));
        }
    }

    /// What follows from a proven check: a candidate, a pair, a check the other way
    /// (RFC 8445 sections 7.3.1.3 to 7.3.1.5).
    pub(super) fn take_early(&mut self, check: EarlyCheck) {
        let Some(known) = self.locals.get(check.local) else {
            return;
        };
        let component = known.candidate.component;
        let Some(remote) = self.remote_candidate(component, check) else {
            return;
        };
        self.sources.insert(check.route, component);
        let known = self.find_pair(component, check.route);
        let Some(id) = known.or_else(|| self.form_pair(check.local, remote)) else {
            return;
        };
        let Some(pair) = self.pairs.all.get_mut(&id) else {
            return;
        };
        let nominated = check.use_candidate && self.role == Role::Controlled;
        pair.wanted |= nominated;
        match pair.state {
            PairState::Succeeded { .. } => {
                if nominated {
                    let now = self.clock.now();
                    self.select(now, id);
                }
            }
            PairState::InProgress => {
                self.cancel_checks(id);
                self.trigger(id);
            }
            PairState::Frozen | PairState::Waiting | PairState::Failed => self.trigger(id),
        }
    }

    /// The remote candidate a check came from; a new peer-reflexive one if it is not known.
    fn remote_candidate(&mut self, component: ComponentId, check: EarlyCheck) -> Option<usize> {
        let addr = check.route.remote();
        let known = self.remotes.iter().position(|known| {
            known.stream == component.stream
                && known.candidate.component == component.component
                && known.candidate.addr == addr
        });
        if known.is_some() {
            return known;
        }
        if self.remotes.len() >= self.config.max_remote {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return None;
        }
        let index = self.remotes.len();
        self.remotes.push(KnownRemote {
            stream: component.stream,
            candidate: Candidate {
                // Shared with no other candidate.
                foundation: alloc::format!("prflx{index}"),
                component: component.component,
                priority: check.priority.min(0x7FFF_FFFF),
                addr,
                kind: CandidateKind::PeerReflexive,
                related: None,
            },
        });
        Some(index)
    }
}

/// Whether a user name is `ours:anything`.
fn is_for(username: &[u8], ours: &[u8]) -> bool {
    username
        .strip_prefix(ours)
        .is_some_and(|rest| rest.first() == Some(&b':'))
}

/// The comprehension-required attributes of checks.
const KNOWN: [AttributeType; 3] = [
    <Username<'_> as Attribute<'_>>::TYPE,
    <Priority as Attribute<'_>>::TYPE,
    <UseCandidate as Attribute<'_>>::TYPE,
];
