//! What the application does with calls.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sip_outbound::wire::{Method, StatusCode};
use sip_outbound::{Dialog, NewRequest, UserAgent};
use stun_proto::Instant;

use super::offer::{Offer, Ours, Theirs};
use super::{Call, CallError, CallId, Calls, Direction, EndCause, Open, State, Timer};
use super::{SDP, description_headers};

impl Calls {
    /// A number for a call to `to`, which begins with [`invite`](Self::invite).
    ///
    /// # Errors
    /// [`CallError::Full`].
    pub(in crate::ue) fn prepare(
        &mut self,
        to: impl Into<String>,
        headers: Vec<(String, String)>,
    ) -> Result<CallId, CallError> {
        let state = State::Prepared {
            to: to.into(),
            headers,
        };
        self.add(Direction::Outgoing, state)
    }

    pub(super) fn add(&mut self, direction: Direction, state: State) -> Result<CallId, CallError> {
        if self.table.len() >= self.config.max_calls {
            return Err(CallError::Full);
        }
        let call = CallId(self.next);
        self.next = self.next.saturating_add(1);
        self.table.insert(call, Call { direction, state });
        Ok(call)
    }

    /// Sends the INVITE of a prepared call.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::ue) fn invite(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        offer: Bytes,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        let entry = self.table.get_mut(&call).ok_or(CallError::Unknown)?;
        let State::Prepared { to, headers } = &entry.state else {
            return Err(CallError::State);
        };
        let mut new = NewRequest::new(Method::INVITE, to);
        new.headers.clone_from(headers);
        new = new.header("Allow", super::allowed()).body(SDP, offer);
        entry.state = State::Inviting {
            request: ua.request(now, new)?,
            forks: Vec::new(),
            given_up: None,
        };
        Ok(())
    }

    /// Says 180 to an incoming call.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::ue) fn ring(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        let entry = self.table.get(&call).ok_or(CallError::Unknown)?;
        let State::Ringing { id, tag, .. } = &entry.state else {
            return Err(CallError::State);
        };
        ua.respond(now, *id, StatusCode::RINGING, tag, &[], b"")?;
        Ok(())
    }

    /// Takes an incoming call, or a change of the session that the other side wants: with the
    /// answer to its offer, or with an offer if it made none.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::ue) fn accept(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        body: &Bytes,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        let entry = self.table.get_mut(&call).ok_or(CallError::Unknown)?;
        let (id, flow, invite, tag) = match &entry.state {
            State::Ringing {
                id,
                flow,
                invite,
                tag,
            } => (*id, *flow, invite, tag),
            State::Open(_) => return self.accept_offer(now, ua, call, body),
            State::Prepared { .. } | State::Inviting { .. } | State::Ending { .. } => {
                return Err(CallError::State);
            }
        };
        // The Contact and tags were there when the call came in.
        let dialog = Dialog::callee(flow, invite, tag).map_err(|_| CallError::State)?;
        let offered = invite.body().is_empty();
        let cseq = invite.cseq_number();
        ua.respond(now, id, StatusCode::OK, tag, &description_headers(), body)?;
        self.timers.disarm(Timer::Ringing(call));
        entry.state = State::Open(Open {
            dialog,
            established: false,
            end: None,
            ours: Ours::None,
            theirs: Theirs::Accepted {
                id,
                flow,
                cseq,
                offered,
            },
        });
        Ok(())
    }

    /// Refuses an incoming call, or a change of the session that the other side wants.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::ue) fn refuse(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        code: StatusCode,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        match &self.table.get(&call).ok_or(CallError::Unknown)?.state {
            State::Ringing { .. } if code.number() >= 300 => {
                self.refuse_call(now, ua, call, code, EndCause::HungUp);
                Ok(())
            }
            State::Open(_) if code.number() >= 300 => self.refuse_offer(now, ua, call, code),
            State::Prepared { .. }
            | State::Inviting { .. }
            | State::Ringing { .. }
            | State::Open(_)
            | State::Ending { .. } => Err(CallError::State),
        }
    }

    /// Refuses an incoming call, which ends.
    pub(super) fn refuse_call(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        code: StatusCode,
        cause: EndCause,
    ) {
        if let Some(State::Ringing { id, tag, .. }) = self.table.get(&call).map(|call| &call.state)
        {
            // With the flow gone there is nobody to tell.
            let _ = ua.respond(now, *id, code, tag, &[], b"");
            self.end(call, cause);
        }
    }

    /// Ends a call, whatever its state; [`CallEvent::Ended`](super::CallEvent::Ended) follows.
    pub(in crate::ue) fn hang_up(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        cause: EndCause,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        let entry = self.table.get_mut(&call).ok_or(CallError::Unknown)?;
        match &mut entry.state {
            State::Prepared { .. } => self.end(call, cause),
            State::Inviting {
                request, given_up, ..
            } => {
                if given_up.is_none() {
                    *given_up = Some(cause);
                    // Its end is reported, now or later.
                    let _ = ua.cancel(now, *request);
                }
            }
            State::Ringing { .. } => {
                let media = matches!(cause, EndCause::Media(_) | EndCause::Description);
                let code = if media {
                    StatusCode::NOT_ACCEPTABLE_HERE
                } else {
                    StatusCode::DECLINE
                };
                self.refuse_call(now, ua, call, code, cause);
            }
            State::Open(open) => {
                // The callee must not hang up before it knows that the caller knows (RFC 3261
                // section 15).
                if !open.established {
                    open.end.get_or_insert(cause);
                    return Ok(());
                }
                let dialog = open.dialog.clone();
                self.drop_theirs(now, ua, call);
                self.bye(now, ua, call, dialog, cause);
            }
            State::Ending { .. } => {}
        }
        Ok(())
    }

    /// Offers a change of the session, by INVITE or UPDATE.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::ue) fn offer(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        method: Method,
        body: Bytes,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        let known = self.table.contains_key(&call);
        let Some(open) = self.open(call).filter(|open| open.established) else {
            return Err(if known {
                CallError::State
            } else {
                CallError::Unknown
            });
        };
        if !matches!((&open.ours, &open.theirs), (Ours::None, Theirs::None)) {
            return Err(CallError::Pending);
        }
        let offer = Offer {
            method,
            body,
            attempts: 0,
        };
        self.send_offer(now, ua, call, offer)
    }

    /// Whether this side may make an offer now.
    pub(in crate::ue) fn is_quiet(&self, call: CallId) -> bool {
        match self.table.get(&call).map(|call| &call.state) {
            Some(State::Open(open)) => {
                open.established && matches!((&open.ours, &open.theirs), (Ours::None, Theirs::None))
            }
            Some(
                State::Prepared { .. }
                | State::Inviting { .. }
                | State::Ringing { .. }
                | State::Ending { .. },
            )
            | None => false,
        }
    }

    /// Sends INFO; nobody is told how it went.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::ue) fn info(
        &mut self,
        now: Instant,
        ua: &mut UserAgent,
        call: CallId,
        content_type: &str,
        body: Bytes,
    ) -> Result<(), CallError> {
        let now = self.clock.advance(now);
        let known = self.table.contains_key(&call);
        let Some(open) = self.open(call).filter(|open| open.established) else {
            return Err(if known {
                CallError::State
            } else {
                CallError::Unknown
            });
        };
        let headers = Vec::from([("Content-Type".into(), content_type.into())]);
        let info = ua.request_in_dialog(now, &mut open.dialog, Method::INFO, headers, body)?;
        self.strays.insert(info);
        Ok(())
    }
}
