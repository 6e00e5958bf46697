//! The caller's INVITE, and what responses to requests of this side bring about.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sip_outbound::wire::{Limits, Method, Name, Response, StatusCode, parse_retry_after};
use sip_outbound::{Dialog, FlowId, RequestFailure, RequestId, UserAgent};
use stun_proto::Instant;

use super::offer::{Ours, Theirs};
use super::{Accepted, CallEvent, CallId, Calls, EndCause, Open, State, Timer, description};

/// Contacts of a 3xx that are passed on.
const MAX_CONTACTS: usize = 8;

impl Calls {
    /// Takes in a response; whether it was one to a request of a call.
    pub(super) fn response(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        request: RequestId,
        flow: FlowId,
        response: &Response,
    ) -> bool {
        let done = !response.code().is_provisional();
        if self.strays.contains(&request) {
            if done {
                self.strays.remove(&request);
            }
            return true;
        }
        let repeated = |accepted: &&Accepted| accepted.request == request;
        if self.accepted.iter().any(|accepted| repeated(&accepted)) {
            self.accepted_again(now, ua, request, flow, response);
            return true;
        }
        let Some(call) = self.owner(request) else {
            return false;
        };
        match self.table.get(&call).map(|call| &call.state) {
            Some(State::Inviting { .. }) => self.invite_answered(now, ua, call, flow, response),
            Some(State::Open(_)) if done => self.offer_answered(now, ua, call, request, response),
            Some(State::Ending { .. }) if done => self.ended(call),
            Some(
                State::Prepared { .. }
                | State::Ringing { .. }
                | State::Open(_)
                | State::Ending { .. },
            )
            | None => {}
        }
        true
    }

    /// The call that has sent this request.
    fn owner(&self, wanted: RequestId) -> Option<CallId> {
        self.find(|state| match state {
            State::Inviting { request, .. } => *request == wanted,
            State::Open(open) => open.ours.request() == Some(wanted),
            State::Ending { request, .. } => *request == Some(wanted),
            State::Prepared { .. } | State::Ringing { .. } => false,
        })
    }

    fn invite_answered(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        flow: FlowId,
        response: &Response,
    ) {
        let code = response.code();
        if code.is_provisional() {
            self.progress(call, response);
        } else if code.is_success() {
            self.invite_accepted(now, ua, call, flow, response);
        } else if !is_challenge(code) {
            let given_up = self.known_cause(call);
            self.end(call, given_up.unwrap_or_else(|| refused(response)));
        }
        // What is wrong with a challenge comes as the failure of the request.
    }

    fn progress(&mut self, call: CallId, response: &Response) {
        let (max_forks, max_body) = (self.config.max_forks, self.config.max_body);
        let Some(State::Inviting { forks, .. }) =
            self.table.get_mut(&call).map(|call| &mut call.state)
        else {
            return;
        };
        if response.code() == StatusCode::TRYING {
            return;
        }
        let fork = match response.to_tag() {
            None => None,
            Some(tag) => match forks.iter().position(|known| known == tag) {
                Some(known) => Some(known),
                None if forks.len() >= max_forks => return,
                None => {
                    forks.push(String::from(tag));
                    forks.len().checked_sub(1)
                }
            },
        };
        self.events.push_back(CallEvent::Progress {
            call,
            fork,
            code: response.code(),
            answer: description(response, max_body).ok().flatten(),
        });
    }

    /// The first 2xx: its dialog is the call.
    fn invite_accepted(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        flow: FlowId,
        response: &Response,
    ) {
        let Some(State::Inviting {
            request,
            given_up,
            forks,
        }) = self.table.get(&call).map(|call| &call.state)
        else {
            return;
        };
        let known = |tag: &String| Some(tag.as_str()) == response.to_tag();
        let fork = Some(forks.iter().position(known).unwrap_or(forks.len()));
        let (request, given_up) = (*request, given_up.clone());
        let invite = ua.sent_request(request);
        let dialog = invite.and_then(|invite| Dialog::caller(flow, invite, response).ok());
        let Some(dialog) = dialog else {
            // Without tag or Contact there is nobody to acknowledge it to.
            self.end(call, given_up.unwrap_or(EndCause::Malformed));
            return;
        };
        self.acknowledge(now, ua, request, &dialog);
        if let Some(cause) = given_up {
            return self.bye(now, ua, call, dialog, cause);
        }
        let Ok(Some(answer)) = description(response, self.config.max_body) else {
            return self.bye(now, ua, call, dialog, EndCause::Description);
        };
        if let Some(entry) = self.table.get_mut(&call) {
            entry.state = State::Open(Open {
                dialog,
                established: true,
                end: None,
                ours: Ours::None,
                theirs: Theirs::None,
            });
        }
        self.events
            .push_back(CallEvent::Answered { call, fork, answer });
        self.events.push_back(CallEvent::Established { call });
    }

    /// Sends the ACK for a 2xx, and remembers to send it again.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        request: RequestId,
        dialog: &Dialog,
    ) {
        // If the flow is gone, the repetition of the 2xx comes over none either.
        let _ = ua.ack(now, dialog, request, &[], b"");
        let known = self.accepted.iter_mut().find(|a| a.request == request);
        match known {
            Some(accepted) => accepted.dialogs.push(dialog.clone()),
            None => self.accepted.push(Accepted {
                request,
                dialogs: Vec::from([dialog.clone()]),
            }),
        }
    }

    /// Another 2xx to an INVITE: repeated, because the ACK was lost, or from another fork, whose
    /// dialog is ended (RFC 3261 section 13.2.2.4).
    fn accepted_again(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        request: RequestId,
        flow: FlowId,
        response: &Response,
    ) {
        let max_forks = self.config.max_forks;
        let found = self.accepted.iter().find(|a| a.request == request);
        let Some(accepted) = found.filter(|_| response.code().is_success()) else {
            return;
        };
        let same = |dialog: &&Dialog| Some(dialog.remote_tag()) == response.to_tag();
        if let Some(dialog) = accepted.dialogs.iter().find(same) {
            let _ = ua.ack(now, dialog, request, &[], b"");
            return;
        }
        if accepted.dialogs.len() > max_forks {
            return;
        }
        let invite = ua.sent_request(request);
        let dialog = invite.and_then(|invite| Dialog::caller(flow, invite, response).ok());
        let Some(mut dialog) = dialog else {
            return;
        };
        self.acknowledge(now, ua, request, &dialog);
        let bye = ua.request_in_dialog(now, &mut dialog, Method::BYE, Vec::new(), Bytes::new());
        self.strays.extend(bye.ok());
    }

    /// Takes in that a request has failed; whether it was one of a call.
    pub(super) fn request_failed(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        request: RequestId,
        cause: RequestFailure,
    ) -> bool {
        if self.strays.remove(&request) {
            return true;
        }
        let Some(call) = self.owner(request) else {
            return false;
        };
        let end = match cause {
            RequestFailure::TimedOut => EndCause::TimedOut,
            RequestFailure::FlowLost => EndCause::FlowLost,
            RequestFailure::Authentication(failure) => EndCause::Authentication(failure),
            // Failures of a later version of that crate.
            _ => EndCause::Malformed,
        };
        match self.table.get(&call).map(|call| &call.state) {
            Some(State::Inviting { given_up, .. }) => {
                let cause = given_up.clone().unwrap_or(end);
                self.end(call, cause);
            }
            Some(State::Open(_)) => self.offer_failed(now, ua, call, end),
            Some(State::Ending { dialog, cause, .. }) if end == EndCause::FlowLost => {
                let (dialog, cause) = (dialog.clone(), cause.clone());
                self.timers.disarm(Timer::Ending(call));
                self.bye(now, ua, call, dialog, cause);
            }
            Some(State::Ending { .. }) => self.ended(call),
            Some(State::Prepared { .. } | State::Ringing { .. }) | None => {}
        }
        true
    }
}

/// Whether the user agent deals with a final response itself, and reports a failure after it.
pub(super) fn is_challenge(code: StatusCode) -> bool {
    code == StatusCode::UNAUTHORIZED || code == StatusCode::PROXY_AUTHENTICATION_REQUIRED
}

pub(super) fn refused(response: &Response) -> EndCause {
    let retry_after = response.only(Name::RETRY_AFTER).ok();
    let seconds = retry_after.and_then(parse_retry_after);
    let limits = Limits::DEFAULT;
    let contacts = response.contacts(&limits).take(MAX_CONTACTS).flatten();
    EndCause::Refused {
        code: response.code(),
        retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
        contacts: contacts
            .map(|contact| contact.uri.as_str().into())
            .collect(),
    }
}
