//! Calls: INVITE dialogs over a user agent, with session descriptions as opaque bodies (RFC 3261
//! sections 12 to 15, RFC 3264, RFC 3311, RFC 6141).
//!
//! A machine without bytes of its own: it is told what the user agent says, and answers by
//! commands to the user agent.
//!
//! ```text
//! outgoing  prepare -> invite -> (18x ...) -> 2xx ---+
//! incoming  Incoming -> (ring) -> accept -> ACK -----+-> open -> BYE -> Ended
//!                         |          offers both ways, one at a time ^
//!                         +- refused, cancelled, too late -> Ended
//! ```

mod command;
mod event;
mod incoming;
mod offer;
mod outgoing;

use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sip_outbound::wire::{Message, Method, Name, Request, StatusCode};
use sip_outbound::{Dialog, FlowId, RequestId, ServerId, UserAgent, UserAgentEvent};
use stun_proto::time::{Clock, Timers};
use stun_proto::{Instant, Rng};

use crate::sdp::body::description_in;
pub(super) use event::CallEvent;
pub use event::{CallError, EndCause};
use offer::{Ours, Theirs};

/// A call, incoming or outgoing. Numbered by the machine, never used again.
///
/// ```
/// use ims_traversal::ue::CallId;
///
/// assert!(CallId(1) < CallId(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// This side.
    Outgoing,
    /// The other side.
    Incoming,
}

/// Limits and patience of calls.
///
/// ```
/// use ims_traversal::ue::CallConfig;
///
/// let config = CallConfig { max_calls: 2, ..CallConfig::default() };
/// assert_eq!(config.ring_timeout.as_secs(), 180);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallConfig {
    /// Calls at a time, ending ones included: 8. Further ones that come in get 486.
    pub max_calls: usize,
    /// Early dialogs of one call that are reported, and accepted ones that are ended again
    /// because another was faster: 8 each. Further ones are passed over.
    pub max_forks: usize,
    /// Octets of a body that is looked at: 16,384. Requests with more get 413.
    pub max_body: usize,
    /// How long an incoming call may wait to be answered: 180 s, then it gets 480.
    pub ring_timeout: Duration,
    /// How long the end of a call may wait for a flow to send it over: 64 s, which is longer than
    /// the first wait of a user agent that has lost all flows.
    pub flow_patience: Duration,
    /// How often an offer that met one of the other side is made: 5 times.
    pub offer_attempts: u32,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            max_calls: 8,
            max_forks: 8,
            max_body: 16 * 1024,
            ring_timeout: Duration::from_secs(180),
            flow_patience: Duration::from_secs(64),
            offer_attempts: 5,
        }
    }
}

/// Methods a host of calls handles.
pub(super) const METHODS: [Method; 8] = [
    Method::INVITE,
    Method::ACK,
    Method::CANCEL,
    Method::BYE,
    Method::OPTIONS,
    Method::MESSAGE,
    Method::INFO,
    Method::UPDATE,
];

pub(super) use crate::sdp::body::{ACCEPT, SDP};

/// One name for each reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Nobody answers.
    Ringing(CallId),
    /// No flow to end the call over.
    Ending(CallId),
    /// Make the offer again.
    Offer(CallId),
}

#[derive(Clone, Debug)]
enum State {
    /// Outgoing, INVITE not sent yet.
    Prepared {
        to: String,
        headers: Vec<(String, String)>,
    },
    /// Outgoing, INVITE sent.
    Inviting {
        request: RequestId,
        /// Tags of early dialogs.
        forks: Vec<String>,
        /// Why it was given up, once it was.
        given_up: Option<EndCause>,
    },
    /// Incoming, not answered yet.
    Ringing {
        id: ServerId,
        flow: FlowId,
        invite: Box<Request>,
        tag: String,
    },
    Open(Open),
    /// BYE is sent, or waits for a flow.
    Ending {
        request: Option<RequestId>,
        dialog: Dialog,
        cause: EndCause,
    },
}

/// A call with its one dialog.
#[derive(Clone, Debug)]
struct Open {
    dialog: Dialog,
    /// Both sides know that it is open.
    established: bool,
    /// Why it is to end as soon as the ACK is there.
    end: Option<EndCause>,
    ours: Ours,
    theirs: Theirs,
}

#[derive(Clone, Debug)]
struct Call {
    direction: Direction,
    state: State,
}

/// An INVITE of this side that got a 2xx, with the dialogs it opened.
#[derive(Clone, Debug)]
struct Accepted {
    request: RequestId,
    dialogs: Vec<Dialog>,
}

/// All calls over one user agent.
#[derive(Debug)]
pub(super) struct Calls {
    config: CallConfig,
    rng: Rng,
    clock: Clock,
    timers: Timers<Timer>,
    next: u64,
    table: BTreeMap<CallId, Call>,
    /// Kept as long as the user agent may see repeated or further 2xx.
    accepted: Vec<Accepted>,
    /// BYEs whose outcome nobody waits for.
    strays: BTreeSet<RequestId>,
    events: VecDeque<CallEvent>,
}

impl Calls {
    pub(super) const fn new(config: CallConfig, rng: Rng, now: Instant) -> Self {
        Self {
            config,
            rng,
            clock: Clock::new(now),
            timers: Timers::new(),
            next: 1,
            table: BTreeMap::new(),
            accepted: Vec::new(),
            strays: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether there are no calls, ending ones included.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The numbers of all calls.
    pub(super) fn ids(&self) -> Vec<CallId> {
        self.table.keys().copied().collect()
    }

    /// Takes in what the user agent says; gives back what is not about calls alone.
    pub(super) fn handle_event(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        event: UserAgentEvent,
    ) -> Option<UserAgentEvent> {
        let now = self.clock.advance(now);
        let other = self.take_event(now, ua, event);
        self.accepted
            .retain(|accepted| ua.sent_request(accepted.request).is_some());
        other
    }

    fn take_event(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        event: UserAgentEvent,
    ) -> Option<UserAgentEvent> {
        match event {
            UserAgentEvent::Response {
                request,
                flow,
                response,
            } => {
                if self.response(now, ua, request, flow, &response) {
                    return None;
                }
                Some(UserAgentEvent::Response {
                    request,
                    flow,
                    response,
                })
            }
            UserAgentEvent::RequestFailed { request, cause } => {
                let known = self.request_failed(now, ua, request, cause);
                (!known).then_some(UserAgentEvent::RequestFailed { request, cause })
            }
            UserAgentEvent::Request { id, flow, request } => {
                if self.request(now, ua, id, flow, &request) {
                    return None;
                }
                Some(UserAgentEvent::Request { id, flow, request })
            }
            UserAgentEvent::Ack { request, .. } => {
                self.acknowledged(now, ua, &request);
                None
            }
            UserAgentEvent::Cancelled { id } => {
                self.cancelled(id);
                None
            }
            UserAgentEvent::NoAck { id } => {
                self.not_acknowledged(now, ua, id);
                None
            }
            event @ UserAgentEvent::Registered { .. } => {
                self.flow_ready(now, ua);
                Some(event)
            }
            event @ UserAgentEvent::FlowFailed { flow, .. } => {
                self.flow_failed(now, ua, flow);
                Some(event)
            }
            event @ UserAgentEvent::Stopped => {
                for call in self.ids() {
                    let cause = self.known_cause(call);
                    self.end(call, cause.unwrap_or(EndCause::Stopped));
                }
                Some(event)
            }
            event @ (UserAgentEvent::NotOutbound { .. }
            | UserAgentEvent::Refused { .. }
            | UserAgentEvent::Unregistered { .. }
            | UserAgentEvent::CardNeeded { .. }
            | UserAgentEvent::Suspicious { .. }) => Some(event),
        }
    }

    /// Takes in that it is `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant, ua: &mut UserAgent) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Ringing(call) => {
                    let code = StatusCode::TEMPORARILY_UNAVAILABLE;
                    self.refuse_call(now, ua, call, code, EndCause::NotAnswered);
                }
                Timer::Ending(call) => self.ended(call),
                Timer::Offer(call) => self.offer_due(now, ua, call),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to know.
    pub(super) fn poll_event(&mut self) -> Option<CallEvent> {
        self.events.pop_front()
    }

    fn open(&mut self, call: CallId) -> Option<&mut Open> {
        match &mut self.table.get_mut(&call)?.state {
            State::Open(open) => Some(open),
            State::Prepared { .. }
            | State::Inviting { .. }
            | State::Ringing { .. }
            | State::Ending { .. } => None,
        }
    }

    /// The call a dialog belongs to.
    fn find(&self, matches: impl Fn(&State) -> bool) -> Option<CallId> {
        let mut calls = self.table.iter();
        calls
            .find(|(_, call)| matches(&call.state))
            .map(|(id, _)| *id)
    }

    /// Takes a call off the table.
    fn end(&mut self, call: CallId, cause: EndCause) {
        for timer in [
            Timer::Ringing(call),
            Timer::Ending(call),
            Timer::Offer(call),
        ] {
            self.timers.disarm(timer);
        }
        if self.table.remove(&call).is_some() {
            self.events.push_back(CallEvent::Ended { call, cause });
        }
    }

    /// Why a call was going to end, if it was.
    fn known_cause(&self, call: CallId) -> Option<EndCause> {
        match &self.table.get(&call)?.state {
            State::Inviting { given_up, .. } => given_up.clone(),
            State::Open(open) => open.end.clone(),
            State::Ending { cause, .. } => Some(cause.clone()),
            State::Prepared { .. } | State::Ringing { .. } => None,
        }
    }

    /// The end of a call whose BYE is over.
    fn ended(&mut self, call: CallId) {
        if let Some(State::Ending { cause, .. }) = self.table.get(&call).map(|call| &call.state) {
            let cause = cause.clone();
            self.end(call, cause);
        }
    }

    /// Sends BYE, now or when there is a flow again.
    fn bye(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        mut dialog: Dialog,
        cause: EndCause,
    ) {
        let sent = ua.request_in_dialog(now, &mut dialog, Method::BYE, Vec::new(), Bytes::new());
        self.timers.disarm(Timer::Ringing(call));
        self.timers.disarm(Timer::Offer(call));
        let request = sent.ok();
        if request.is_none() {
            let patience = self.config.flow_patience;
            self.timers.arm(Timer::Ending(call), now, patience);
        }
        if let Some(entry) = self.table.get_mut(&call) {
            entry.state = State::Ending {
                request,
                dialog,
                cause,
            };
        }
    }

    /// A registration is there again: what waited for a flow is sent.
    fn flow_ready(&mut self, now: Instant, ua: &mut UserAgent) {
        for call in self.ids() {
            let Some(entry) = self.table.get(&call) else {
                continue;
            };
            match &entry.state {
                State::Ending {
                    request: None,
                    dialog,
                    cause,
                } => {
                    let (dialog, cause) = (dialog.clone(), cause.clone());
                    self.timers.disarm(Timer::Ending(call));
                    self.bye(now, ua, call, dialog, cause);
                }
                State::Prepared { .. }
                | State::Inviting { .. }
                | State::Ringing { .. }
                | State::Open(_)
                | State::Ending { .. } => {}
            }
        }
    }

    /// Requests of the other side that came over this flow can no longer be answered.
    fn flow_failed(&mut self, now: Instant, ua: &mut UserAgent, lost: FlowId) {
        for call in self.ids() {
            let Some(entry) = self.table.get_mut(&call) else {
                continue;
            };
            match &mut entry.state {
                State::Ringing { flow, .. } if *flow == lost => {
                    self.end(call, EndCause::FlowLost);
                }
                State::Open(_) => self.offer_flow_failed(now, ua, call, lost),
                State::Prepared { .. }
                | State::Inviting { .. }
                | State::Ringing { .. }
                | State::Ending { .. } => {}
            }
        }
    }

    /// Random hexadecimal digits for a tag.
    fn token(&mut self) -> String {
        let random: [u8; 8] = self.rng.bytes();
        random
            .iter()
            .map(|byte| alloc::format!("{byte:02x}"))
            .collect()
    }
}

/// The session description of a message, or the code that says why it is not taken.
fn description(message: &Message, limit: usize) -> Result<Option<Bytes>, StatusCode> {
    let body = message.body();
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() > limit {
        return Err(StatusCode::REQUEST_ENTITY_TOO_LARGE);
    }
    // Encodings such as gzip are not undone.
    if message.has(Name::CONTENT_ENCODING) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    // A body without a type is what it looks like.
    let like = if body.starts_with(b"v=0") { SDP } else { "" };
    let kind = message.only(Name::CONTENT_TYPE).unwrap_or(like);
    match description_in(kind, body) {
        Some(found) => Ok(Some(Bytes::copy_from_slice(found))),
        None if is_optional(message) => Ok(None),
        None => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// Whether a body need not be understood (RFC 3261 section 20.11).
fn is_optional(message: &Message) -> bool {
    let value = message.only(Name::CONTENT_DISPOSITION).unwrap_or_default();
    value.split(';').skip(1).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("handling")
            && value.trim().eq_ignore_ascii_case("optional")
    })
}

/// The methods this side takes, and that the body is a session description.
fn description_headers() -> Vec<(String, String)> {
    let mut headers = Vec::from([(String::from("Allow"), allowed())]);
    headers.push(("Content-Type".into(), SDP.into()));
    headers
}

/// The value of Allow.
pub(super) fn allowed() -> String {
    let names: Vec<_> = METHODS.iter().map(Method::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
