//! Requests of the other side: the INVITE of a call, and what comes within its dialog.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sip_outbound::wire::{Limits, Method, Name, Request, StatusCode};
use sip_outbound::{Dialog, DialogError, FlowId, ServerId, UserAgent};
use stun_proto::Instant;

use super::offer::Theirs;
use super::{ACCEPT, CallEvent, CallId, Calls, Direction, EndCause, State, Timer, description};

impl Calls {
    /// Takes in a request; whether it was for a call.
    pub(super) fn request(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        id: ServerId,
        flow: FlowId,
        request: &Request,
    ) -> bool {
        if request.to_tag().is_some() {
            return self.request_in_dialog(now, ua, id, flow, request);
        }
        if *request.method() == Method::INVITE {
            self.called(now, ua, id, flow, request);
            return true;
        }
        let outside = *request.method() == Method::OPTIONS || *request.method() == Method::MESSAGE;
        if !outside {
            // BYE, INFO and UPDATE have no meaning outside of dialogs.
            self.reply(now, ua, id, StatusCode::NO_SUCH_CALL, &[]);
        }
        !outside
    }

    /// Answers a request outside of a known dialog, or one whose To has a tag.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        id: ServerId,
        code: StatusCode,
        headers: &[(String, String)],
    ) {
        let tag = self.token();
        // What cannot be answered any more has been given up by the other side.
        let _ = ua.respond(now, id, code, &tag, headers, b"");
    }

    fn called(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        id: ServerId,
        flow: FlowId,
        invite: &Request,
    ) {
        let tag = self.token();
        let offer = match self.check_invite(flow, invite, &tag) {
            Ok(offer) => offer,
            Err(code) => {
                let accept = (code == StatusCode::UNSUPPORTED_MEDIA_TYPE)
                    .then(|| (String::from("Accept"), String::from(ACCEPT)));
                return self.reply(now, ua, id, code, accept.as_slice());
            }
        };
        let state = State::Ringing {
            id,
            flow,
            invite: Box::new(invite.clone()),
            tag,
        };
        let Ok(call) = self.add(Direction::Incoming, state) else {
            return self.reply(now, ua, id, StatusCode::BUSY_HERE, &[]);
        };
        self.timers
            .arm(Timer::Ringing(call), now, self.config.ring_timeout);
        let limits = Limits::DEFAULT;
        let from = invite.from(&limits).ok();
        let name = from.and_then(|from| from.display_name());
        let uri = |value: Option<sip_outbound::wire::NameAddr<'_>>| {
            value.map_or_else(String::new, |value| value.uri.as_str().into())
        };
        self.events.push_back(CallEvent::Incoming {
            call,
            from: uri(from),
            display_name: name.map(String::from),
            to: uri(invite.to(&limits).ok()),
            offer,
        });
    }

    /// The offer of an INVITE that can become a call, or why it cannot.
    fn check_invite(
        &self,
        flow: FlowId,
        invite: &Request,
        tag: &str,
    ) -> Result<Option<Bytes>, StatusCode> {
        // The same request by another way (RFC 3261 section 8.2.2.2).
        let merged = self.find(|state| match state {
            State::Ringing { invite: known, .. } => {
                known.call_id() == invite.call_id()
                    && known.from_tag() == invite.from_tag()
                    && known.cseq_number() == invite.cseq_number()
            }
            State::Open(open) => {
                open.dialog.call_id() == invite.call_id()
                    && invite.from_tag() == Some(open.dialog.remote_tag())
            }
            State::Prepared { .. } | State::Inviting { .. } | State::Ending { .. } => false,
        });
        if merged.is_some() {
            return Err(StatusCode::LOOP_DETECTED);
        }
        Dialog::callee(flow, invite, tag).map_err(|_| StatusCode::BAD_REQUEST)?;
        description(invite, self.config.max_body)
    }

    fn request_in_dialog(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        id: ServerId,
        flow: FlowId,
        request: &Request,
    ) -> bool {
        let found = self.find(|state| match state {
            State::Open(open) => open.dialog.matches(request),
            State::Ending { dialog, .. } => dialog.matches(request),
            State::Prepared { .. } | State::Inviting { .. } | State::Ringing { .. } => false,
        });
        let Some(call) = found else {
            return self.request_in_early_dialog(now, ua, id, request);
        };
        let method = request.method();
        let Some(open) = self.open(call) else {
            self.request_while_ending(now, ua, call, id, method);
            return true;
        };
        if let Err(error) = open.dialog.handle_request(request) {
            let code = if error == DialogError::OutOfOrder {
                StatusCode::SERVER_ERROR
            } else {
                StatusCode::NO_SUCH_CALL
            };
            self.reply(now, ua, id, code, &[]);
        } else if *method == Method::BYE {
            self.reply(now, ua, id, StatusCode::OK, &[]);
            self.drop_theirs(now, ua, call);
            self.end(call, EndCause::RemoteHungUp);
        } else if *method == Method::INVITE || *method == Method::UPDATE {
            self.offered(now, ua, call, id, flow, request);
        } else if *method == Method::INFO {
            self.informed(now, ua, call, id, request);
        } else {
            return false;
        }
        true
    }

    /// A dialog that no 2xx has confirmed: the caller may end it, a change has to wait.
    fn request_in_early_dialog(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        id: ServerId,
        request: &Request,
    ) -> bool {
        let ends = (request.from_tag(), request.to_tag());
        let found = self.find(|state| match state {
            State::Ringing { invite, tag, .. } => {
                invite.call_id() == request.call_id()
                    && ends == (invite.from_tag(), Some(tag.as_str()))
            }
            State::Inviting {
                request: sent,
                forks,
                ..
            } => ua.sent_request(*sent).is_some_and(|invite| {
                let fork = forks.iter().any(|tag| ends.0 == Some(tag.as_str()));
                invite.call_id() == request.call_id() && fork && ends.1 == invite.from_tag()
            }),
            State::Prepared { .. } | State::Open(_) | State::Ending { .. } => false,
        });
        let method = request.method();
        let known = found.and_then(|call| Some((call, &self.table.get(&call)?.state)));
        match known {
            Some(_) if *method == Method::OPTIONS || *method == Method::MESSAGE => return false,
            Some((call, State::Ringing { invite, .. }))
                if *method == Method::BYE && request.cseq_number() > invite.cseq_number() =>
            {
                self.reply(now, ua, id, StatusCode::OK, &[]);
                let code = StatusCode::REQUEST_TERMINATED;
                self.refuse_call(now, ua, call, code, EndCause::Cancelled);
            }
            // A callee ends no early dialog, it refuses.
            Some((_, State::Inviting { .. })) if *method == Method::BYE => {
                self.reply(now, ua, id, StatusCode::NO_SUCH_CALL, &[]);
            }
            Some((_, State::Inviting { .. })) if *method == Method::UPDATE => {
                // This side's offer is open. The Contact of the 2xx counts.
                let code = if request.body().is_empty() {
                    StatusCode::OK
                } else {
                    StatusCode::REQUEST_PENDING
                };
                self.reply(now, ua, id, code, &[]);
            }
            Some(_) => self.reply_later(now, ua, id),
            None => self.reply(now, ua, id, StatusCode::NO_SUCH_CALL, &[]),
        }
        true
    }

    /// Puts a request off for up to 10 s (RFC 3261 section 14.2, RFC 3311 section 5.2).
    pub(super) fn reply_later(&mut self, now: Instant, ua: &mut UserAgent, id: ServerId) {
        let wait = alloc::format!("{}", self.rng.below(11));
        let headers = [(String::from("Retry-After"), wait)];
        self.reply(now, ua, id, StatusCode::SERVER_ERROR, &headers);
    }

    /// BYE is sent: one of the other side crosses it, everything else is too late.
    fn request_while_ending(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        id: ServerId,
        method: &Method,
    ) {
        if *method != Method::BYE {
            return self.reply(now, ua, id, StatusCode::NO_SUCH_CALL, &[]);
        }
        self.reply(now, ua, id, StatusCode::OK, &[]);
        let unsent = matches!(
            self.table.get(&call).map(|call| &call.state),
            Some(State::Ending { request: None, .. })
        );
        if unsent {
            self.ended(call);
        }
    }

    fn informed(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        id: ServerId,
        request: &Request,
    ) {
        // No packages are declared (RFC 6086 section 4.2.2).
        if request.has("Info-Package") {
            return self.reply(now, ua, id, StatusCode::BAD_INFO_PACKAGE, &[]);
        }
        if request.body().len() > self.config.max_body {
            return self.reply(now, ua, id, StatusCode::REQUEST_ENTITY_TOO_LARGE, &[]);
        }
        self.reply(now, ua, id, StatusCode::OK, &[]);
        self.events.push_back(CallEvent::Info {
            call,
            content_type: request.only(Name::CONTENT_TYPE).unwrap_or_default().into(),
            body: Bytes::copy_from_slice(request.body()),
        });
    }

    /// The ACK for a 2xx of this side.
    pub(super) fn acknowledged(&mut self, now: Instant, ua: &mut UserAgent, ack: &Request) {
        let found = self.find(|state| match state {
            State::Open(open) => open.dialog.matches(ack) && open.theirs.awaits(ack.cseq_number()),
            State::Prepared { .. }
            | State::Inviting { .. }
            | State::Ringing { .. }
            | State::Ending { .. } => false,
        });
        let Some(call) = found else {
            return;
        };
        let answer = description(ack, self.config.max_body).ok().flatten();
        self.confirm(now, ua, call, answer);
    }

    /// The other side has the 2xx: the call is established if it was not, and ends if it is to.
    pub(super) fn confirm(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        answer: Option<Bytes>,
    ) {
        let Some(open) = self.open(call) else {
            return;
        };
        let Theirs::Accepted { offered, .. } = open.theirs else {
            return;
        };
        open.theirs = Theirs::None;
        let fresh = !core::mem::replace(&mut open.established, true);
        let dialog = open.dialog.clone();
        if let Some(cause) = open.end.take() {
            return self.bye(now, ua, call, dialog, cause);
        }
        match (offered, answer) {
            (true, None) => return self.bye(now, ua, call, dialog, EndCause::Description),
            (true, Some(answer)) => self.events.push_back(CallEvent::Answered {
                call,
                fork: None,
                answer,
            }),
            (false, _) if !fresh => self.events.push_back(CallEvent::Settled { call }),
            (false, _) => {}
        }
        if fresh {
            self.events.push_back(CallEvent::Established { call });
        }
    }

    /// No ACK came for a 2xx.
    pub(super) fn not_acknowledged(&mut self, now: Instant, ua: &mut UserAgent, lost: ServerId) {
        let found = self.find(|state| match state {
            State::Open(open) => open.theirs.id() == Some(lost),
            State::Prepared { .. }
            | State::Inviting { .. }
            | State::Ringing { .. }
            | State::Ending { .. } => false,
        });
        if let Some(call) = found
            && let Some(open) = self.open(call)
        {
            let (dialog, end) = (open.dialog.clone(), open.end.take());
            let cause = end.unwrap_or(EndCause::NotAcknowledged);
            self.bye(now, ua, call, dialog, cause);
        }
    }

    /// The other side gives an INVITE up, which has been answered.
    pub(super) fn cancelled(&mut self, cancelled: ServerId) {
        let calls: Vec<_> = self.ids();
        for call in calls {
            match self.table.get_mut(&call).map(|call| &mut call.state) {
                Some(State::Ringing { id, .. }) if *id == cancelled => {
                    self.end(call, EndCause::Cancelled);
                }
                Some(State::Open(open)) if open.theirs.id() == Some(cancelled) => {
                    open.theirs = Theirs::None;
                    self.events.push_back(CallEvent::OfferWithdrawn { call });
                }
                Some(
                    State::Prepared { .. }
                    | State::Inviting { .. }
                    | State::Ringing { .. }
                    | State::Open(_)
                    | State::Ending { .. },
                )
                | None => {}
            }
        }
    }
}
