//! Changes of a session within its dialog: INVITE and UPDATE both ways, one at a time (RFC 3261
//! section 14, RFC 3311, RFC 6141).

use core::fmt;
use core::time::Duration;

use alloc::string::String;

use bytes::Bytes;
use sip_outbound::wire::{Method, Request, Response, StatusCode};
use sip_outbound::{FlowId, RequestId, ServerId, UserAgent};
use stun_proto::Instant;

use super::outgoing::{is_challenge, refused};
use super::{
    ACCEPT, CallError, CallEvent, CallId, Calls, Direction, EndCause, Timer, description,
    description_headers,
};

/// An offer of this side. `Debug` shows how long it is.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) method: Method,
    pub(super) body: Bytes,
    pub(super) attempts: u32,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("method", &self.method)
            .field("body", &self.body.len())
            .field("attempts", &self.attempts)
            .finish()
    }
}

/// The offer of this side.
#[derive(Clone, Debug)]
pub(super) enum Ours {
    None,
    Sent {
        request: RequestId,
        offer: Offer,
    },
    /// It met one of the other side.
    Glare(Offer),
}

impl Ours {
    pub(super) const fn request(&self) -> Option<RequestId> {
        match self {
            Self::Sent { request, .. } => Some(*request),
            Self::None | Self::Glare(_) => None,
        }
    }
}

/// INVITE or UPDATE of the other side.
#[derive(Clone, Debug)]
pub(super) enum Theirs {
    None,
    /// To be answered by the application.
    Asked {
        id: ServerId,
        flow: FlowId,
        method: Method,
        cseq: u32,
        /// It brought an offer.
        offer: bool,
    },
    /// INVITE, accepted; the ACK is to come.
    Accepted {
        id: ServerId,
        flow: FlowId,
        cseq: u32,
        /// The offer is this side's, in the 2xx.
        offered: bool,
    },
}

impl Theirs {
    pub(super) const fn id(&self) -> Option<ServerId> {
        match self {
            Self::None => None,
            Self::Asked { id, .. } | Self::Accepted { id, .. } => Some(*id),
        }
    }

    /// Whether an ACK of this number is due.
    pub(super) const fn awaits(&self, number: u32) -> bool {
        match self {
            Self::Accepted { cseq, .. } => *cseq == number,
            Self::None | Self::Asked { .. } => false,
        }
    }
}

impl Calls {
    pub(super) fn send_offer(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        mut offer: Offer,
    ) -> Result<(), CallError> {
        let open = self.open(call).ok_or(CallError::Unknown)?;
        offer.attempts = offer.attempts.saturating_add(1);
        let (method, body) = (offer.method.clone(), offer.body.clone());
        let headers = description_headers();
        let request = ua.request_in_dialog(now, &mut open.dialog, method, headers, body)?;
        open.ours = Ours::Sent { request, offer };
        Ok(())
    }

    /// An offer that met one of the other side is made again.
    pub(super) fn offer_due(&mut self, now: Instant, ua: &mut UserAgent, call: CallId) {
        let Some(open) = self.open(call) else {
            return;
        };
        match core::mem::replace(&mut open.ours, Ours::None) {
            Ours::Glare(offer) => {
                if self.send_offer(now, ua, call, offer).is_err() {
                    self.offer_refused(call, None);
                }
            }
            ours @ (Ours::None | Ours::Sent { .. }) => open.ours = ours,
        }
    }

    fn offer_refused(&mut self, call: CallId, code: Option<StatusCode>) {
        self.events
            .push_back(CallEvent::OfferRefused { call, code });
    }

    /// RFC 3261 section 14.1: 2.1 to 4 s where this side owns the Call-ID, else up to 2 s, in
    /// steps of 10 ms.
    fn wait_after_glare(&mut self, now: Instant, call: CallId) {
        let direction = self.table.get(&call).map(|call| call.direction);
        let steps = match direction {
            Some(Direction::Outgoing) => self.rng.below(191).saturating_add(210),
            Some(Direction::Incoming) | None => self.rng.below(201),
        };
        let wait = Duration::from_millis(u64::from(steps).saturating_mul(10));
        self.timers
            .arm(Timer::Offer(call), now, wait.max(Duration::from_millis(1)));
    }

    /// A final response to this side's INVITE or UPDATE.
    pub(super) fn offer_answered(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        request: RequestId,
        response: &Response,
    ) {
        let (code, attempts) = (response.code(), self.config.offer_attempts);
        let answer = description(response, self.config.max_body).ok().flatten();
        let Some(open) = self.open(call) else {
            return;
        };
        open.dialog.handle_response(response);
        if is_challenge(code) {
            return;
        }
        let dialog = open.dialog.clone();
        let Ours::Sent { offer, .. } = core::mem::replace(&mut open.ours, Ours::None) else {
            return;
        };
        if code.is_success() {
            if offer.method == Method::INVITE {
                self.acknowledge(now, ua, request, &dialog);
            }
            match answer {
                Some(answer) => self.events.push_back(CallEvent::Answered {
                    call,
                    fork: None,
                    answer,
                }),
                None => self.bye(now, ua, call, dialog, EndCause::Description),
            }
        } else if code == StatusCode::REQUEST_PENDING && offer.attempts < attempts {
            open.ours = Ours::Glare(offer);
            self.wait_after_glare(now, call);
        } else if code == StatusCode::NO_SUCH_CALL {
            self.end(call, refused(response));
        } else if code == StatusCode::REQUEST_TIMEOUT {
            self.bye(now, ua, call, dialog, EndCause::TimedOut);
        } else {
            self.offer_refused(call, Some(code));
        }
    }

    /// This side's INVITE or UPDATE got no final response that counts.
    pub(super) fn offer_failed(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        cause: EndCause,
    ) {
        let Some(open) = self.open(call) else {
            return;
        };
        let dialog = open.dialog.clone();
        open.ours = Ours::None;
        if cause == EndCause::FlowLost {
            self.offer_refused(call, None);
        } else if matches!(cause, EndCause::Authentication(_)) {
            self.offer_refused(call, Some(StatusCode::UNAUTHORIZED));
        } else {
            self.bye(now, ua, call, dialog, cause);
        }
    }

    /// INVITE or UPDATE of the other side within the dialog.
    pub(super) fn offered(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        id: ServerId,
        flow: FlowId,
        request: &Request,
    ) {
        let offer = description(request, self.config.max_body);
        let Some(open) = self.open(call) else {
            return;
        };
        let update = *request.method() == Method::UPDATE;
        if update && offer == Ok(None) {
            // It refreshes the Contact alone.
            return self.reply(now, ua, id, StatusCode::OK, &[]);
        }
        if matches!(open.ours, Ours::Sent { .. }) {
            return self.reply(now, ua, id, StatusCode::REQUEST_PENDING, &[]);
        }
        if open.theirs.id().is_some() || !open.established {
            return self.reply_later(now, ua, id);
        }
        let offer = match offer {
            Ok(offer) => offer,
            Err(code) => {
                let headers = [(String::from("Accept"), String::from(ACCEPT))];
                return self.reply(now, ua, id, code, &headers);
            }
        };
        open.theirs = Theirs::Asked {
            id,
            flow,
            method: request.method().clone(),
            cseq: request.cseq_number(),
            offer: offer.is_some(),
        };
        // The other side's came first this time; what this side says next is made of the answer.
        open.ours = Ours::None;
        self.timers.disarm(Timer::Offer(call));
        self.events.push_back(CallEvent::Offer { call, offer });
    }

    pub(super) fn accept_offer(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        body: &Bytes,
    ) -> Result<(), CallError> {
        let open = self.open(call).ok_or(CallError::Unknown)?;
        let Theirs::Asked {
            id,
            flow,
            method,
            cseq,
            offer,
        } = &open.theirs
        else {
            return Err(CallError::State);
        };
        let headers = description_headers();
        ua.respond(now, *id, StatusCode::OK, "", &headers, body)?;
        if *method == Method::INVITE {
            open.theirs = Theirs::Accepted {
                id: *id,
                flow: *flow,
                cseq: *cseq,
                offered: !offer,
            };
        } else {
            open.theirs = Theirs::None;
            self.events.push_back(CallEvent::Settled { call });
        }
        Ok(())
    }

    pub(super) fn refuse_offer(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        code: StatusCode,
    ) -> Result<(), CallError> {
        let open = self.open(call).ok_or(CallError::Unknown)?;
        let Theirs::Asked { id, .. } = open.theirs else {
            return Err(CallError::State);
        };
        open.theirs = Theirs::None;
        ua.respond(now, id, code, "", &[], b"")?;
        Ok(())
    }

    /// The call ends: what the other side asked is refused.
    pub(super) fn drop_theirs(&mut self, now: Instant, ua: &mut UserAgent, call: CallId) {
        let _ = self.refuse_offer(now, ua, call, StatusCode::REQUEST_TERMINATED);
    }

    /// The flow is gone over which the other side waits for an answer, or is to acknowledge one.
    pub(super) fn offer_flow_failed(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        lost: FlowId,
    ) {
        let Some(open) = self.open(call) else {
            return;
        };
        match open.theirs {
            Theirs::Asked { flow, .. } if flow == lost => {
                open.theirs = Theirs::None;
                self.events.push_back(CallEvent::OfferWithdrawn { call });
            }
            // The ACK comes over no other flow. Where it brings no answer, the other side is
            // taken to have sent it; the media will show.
            Theirs::Accepted { flow, .. } if flow == lost => self.confirm(now, ua, call, None),
            Theirs::None | Theirs::Asked { .. } | Theirs::Accepted { .. } => {}
        }
    }
}
