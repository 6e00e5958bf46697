//! Answering checks (RFC 8445 section 7.3).

use core::time::Duration;

use alloc::vec::Vec;

use stun_proto::auth::{ShortTermRefusal, authenticate_short_term};
use stun_proto::wire::{
    Attribute, AttributeType, ErrorCode, IceControlled, IceControlling, Key, Message, MessageType,
    Method, Priority, UnknownAttributes, UseCandidate, Username, Writer, XorMappedAddress,
};
use stun_proto::{Instant, Received};

use super::candidates::LocalId;
use super::pairs::PairState;
use super::schedule::ListState;
use super::{Agent, MAX_TRANSMIT, Role};
use crate::{ComponentId, Route};

/// Unprotected refusals per second.
const MAX_REFUSALS: u8 = 10;

/// A check that came before the description it belongs to.
#[derive(Clone, Debug)]
pub(super) struct EarlyCheck {
    /// The user name fragment of the other side, at most 256 bytes.
    theirs: Vec<u8>,
    check: Incoming,
}

/// What matters of a proven check.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    route: Route,
    local: LocalId,
    priority: u32,
    use_candidate: bool,
}

/// Whom a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressee {
    /// This generation.
    Now,
    /// The one before the restart.
    Old,
    Nobody,
}

impl Agent {
    pub(super) fn check_request<'a>(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'a>,
    ) -> Received<'a, ComponentId> {
        let Some(local) = self.local_at(route) else {
            return Received::NotMine;
        };
        let username: Option<Username<'_>> = message.find();
        let username = username.map_or(&[][..], |name| name.as_bytes());
        let addressee = self.addressee(username);
        if addressee == Addressee::Nobody && !self.config.answer_unverified {
            return Received::NotMine;
        }
        let now = self.clock.advance(now);
        if self.is_deaf(route, local) {
            return Received::Consumed;
        }
        let key = match (addressee, &self.old) {
            (Addressee::Now, _) => Some(&self.here.key),
            (Addressee::Old, Some(old)) => Some(&old.here.key),
            (Addressee::Old | Addressee::Nobody, _) => None,
        };
        let proven = authenticate_short_term(message, |_| key);
        match (proven, key.cloned()) {
            (Ok(_), Some(key)) => {
                let theirs = username.iter().position(|b| *b == b':');
                let theirs = theirs.and_then(|at| username.get(at.saturating_add(1)..));
                let theirs = theirs.unwrap_or_default();
                self.proven_request(now, route, local, message, addressee, theirs, &key);
            }
            (Ok(_), None) => {}
            (Err(refusal), _) => {
                self.stats.unverified = self.stats.unverified.saturating_add(1);
                self.refuse(now, route, message, refusal);
            }
        }
        Received::Consumed
    }

    /// Whether checks that arrive this way are not answered: the stream has failed or is removed,
    /// or its grace is over and the candidate was not selected.
    fn is_deaf(&self, route: Route, local: LocalId) -> bool {
        let component = self.locals.get(&local).map(|l| l.candidate.component);
        let Some(component) = component else {
            return true;
        };
        let Some(list) = self.lists.get(usize::from(component.stream)) else {
            return true;
        };
        let base = super::candidates::base_of(route);
        let selected = self.active(component);
        list.removed
            || list.state == ListState::Failed
            || (list.released && selected.is_none_or(|selected| selected.base != base))
    }

    fn addressee(&self, username: &[u8]) -> Addressee {
        if is_for(username, self.here.credentials.ufrag.as_bytes()) {
            return Addressee::Now;
        }
        match &self.old {
            Some(old) if old.answers && is_for(username, old.here.credentials.ufrag.as_bytes()) => {
                Addressee::Old
            }
            Some(_) | None => Addressee::Nobody,
        }
    }

    fn refuse(
        &mut self,
        now: Instant,
        route: Route,
        message: &Message<'_>,
        refusal: ShortTermRefusal,
    ) {
        let (since, count) = &mut self.refusals;
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        if !self.config.answer_unverified || *count >= MAX_REFUSALS {
            return;
        }
        *count = count.saturating_add(1);
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(Method::BINDING).error();
        let written = Writer::new(&mut buf, ty, message.transaction_id())
            .attribute(&ErrorCode::new(refusal.code()))
            .fingerprint()
            .finish();
        if let Some(answer) = written.ok().and_then(|len| buf.get(..len)) {
            self.push(route, answer);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a proven check consists of")]
    fn proven_request(
        &mut self,
        now: Instant,
        route: Route,
        local: LocalId,
        message: &Message<'_>,
        addressee: Addressee,
        theirs: &[u8],
        key: &Key,
    ) {
        let unknown: smallvec::SmallVec<[AttributeType; 8]> =
            message.unknown_required(|ty| KNOWN.contains(&ty)).collect();
        if !unknown.is_empty() {
            let unknown = UnknownAttributes(unknown);
            let code = ErrorCode::UNKNOWN_ATTRIBUTE;
            return self.reply_error(route, message, code, Some(unknown), key);
        }
        let controlling: Option<IceControlling> = message.find();
        let controlled: Option<IceControlled> = message.find();
        let priority: Option<Priority> = message.find();
        let priority = priority
            .map(|Priority(priority)| priority)
            .filter(|p| *p != 0);
        let one_role = controlling.is_some() != controlled.is_some();
        let (Some(priority), true) = (priority, one_role) else {
            return self.reply_error(route, message, ErrorCode::BAD_REQUEST, None, key);
        };
        if addressee == Addressee::Old {
            // It cannot change anything any more, but the other side may still live on it.
            return self.reply_success(route, message, key);
        }
        let theirs_tie = match self.role {
            Role::Controlling => controlling.map(|IceControlling(tie)| tie),
            Role::Controlled => controlled.map(|IceControlled(tie)| tie),
        };
        if theirs_tie.is_some_and(|tie| !self.gives_way(tie)) {
            return self.reply_error(route, message, ErrorCode::ROLE_CONFLICT, None, key);
        }
        self.reply_success(route, message, key);
        let check = Incoming {
            route,
            local,
            priority,
            use_candidate: message.has(<UseCandidate as Attribute<'_>>::TYPE),
        };
        let known = self.there.as_ref();
        if known.is_some_and(|there| there.remote.credentials.ufrag.as_bytes() == theirs) {
            self.take(now, check);
            self.changed(now);
        } else {
            self.keep_early(theirs, check);
        }
    }

    /// A check claims the role this agent has: whether this agent gives way (RFC 8445
    /// section 7.3.1.1). A lite agent never does, because it can only be controlled by a full one.
    fn gives_way(&mut self, theirs: u64) -> bool {
        let mine_wins = self.tie_breaker >= theirs;
        let stay = match self.role {
            Role::Controlling => mine_wins,
            Role::Controlled => !mine_wins || self.config.lite,
        };
        !stay && self.switch_role()
    }

    fn keep_early(&mut self, theirs: &[u8], check: Incoming) {
        let same =
            |early: &&mut EarlyCheck| early.check.route == check.route && early.theirs == theirs;
        if let Some(known) = self.early.iter_mut().find(same) {
            known.check.use_candidate |= check.use_candidate;
            return;
        }
        if theirs.len() > 256 {
            return;
        }
        if self.early.len() >= self.config.max_early {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            self.early.pop_front();
        }
        let theirs = theirs.to_vec();
        self.early.push_back(EarlyCheck { theirs, check });
    }

    /// The description has come: takes in a check from before, if it was from the other side.
    pub(super) fn replay(&mut self, now: Instant, early: EarlyCheck) {
        let known = self.there.as_ref();
        if known.is_some_and(|there| there.remote.credentials.ufrag.as_bytes() == early.theirs) {
            self.take(now, early.check);
        }
    }

    fn reply_success(&mut self, route: Route, message: &Message<'_>, key: &Key) {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(Method::BINDING).success();
        let written = Writer::new(&mut buf, ty, message.transaction_id())
            .attribute(&XorMappedAddress(route.remote()))
            .message_integrity(key)
            .fingerprint()
            .finish();
        if let Some(answer) = written.ok().and_then(|len| buf.get(..len)) {
            self.push(route, answer);
        }
    }

    fn reply_error(
        &mut self,
        route: Route,
        message: &Message<'_>,
        code: u16,
        unknown: Option<UnknownAttributes>,
        key: &Key,
    ) {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(Method::BINDING).error();
        let written = Writer::new(&mut buf, ty, message.transaction_id())
            .attribute(&ErrorCode::new(code))
            .maybe(unknown.as_ref())
            .message_integrity(key)
            .fingerprint()
            .finish();
        if let Some(answer) = written.ok().and_then(|len| buf.get(..len)) {
            self.push(route, answer);
        }
    }

    /// What follows from a proven check: a candidate, a pair, a check the other way
    /// (RFC 8445 sections 7.3.1.3 to 7.3.1.5).
    fn take(&mut self, now: Instant, check: Incoming) {
        let Some(known) = self.locals.get(&check.local) else {
            return;
        };
        let component = known.candidate.component;
        let nominated = check.use_candidate && self.role == Role::Controlled;
        let addr = check.route.remote();
        let Some(remote) = self.remote_at(component, addr, check.priority) else {
            return;
        };
        self.sources.insert(check.route, component);
        self.pair_new_remotes();
        if self.config.lite {
            if nominated {
                self.select_checked(now, component, check.local, remote, check.route);
            }
            return;
        }
        let known = self.find_pair(component, check.route);
        let Some(id) = known.or_else(|| self.form_pair(check.local, remote)) else {
            return;
        };
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        pair.wanted |= nominated;
        match pair.state {
            PairState::Succeeded(_) if nominated => self.select(now, id),
            PairState::Succeeded(_) => {}
            PairState::InProgress => {
                self.cancel_checks(id);
                self.trigger(id);
            }
            PairState::Frozen | PairState::Waiting | PairState::Failed => self.trigger(id),
        }
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
