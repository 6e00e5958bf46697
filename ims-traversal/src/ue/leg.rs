//! One call's session: when its media are gathered, what is said of them, and what is found in the
//! other side's descriptions (RFC 3264, RFC 8839).
//!
//! Descriptions are complete: nothing is said before gathering has ended.

mod life;

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use ice_proto::Role;
use sip_outbound::RequestError;
use sip_outbound::wire::{Method, StatusCode};
use stun_proto::Instant;

use super::call::{CallError, CallEvent, CallId, EndCause};
use super::{MediaId, Ue, UeEvent};
use crate::sdp::{Direction, Negotiation, NegotiationError, RemoteTransport};

/// The first wait before something that did not work is tried again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// A new way for the media that the other side cannot be offered now, because it has lost its flow
/// for instance, is offered again so many times, 10 s apart: as long as a user agent takes to come
/// back.
const MAX_REFUSALS: u32 = 7;
const NEXT_OFFER: Duration = Duration::from_secs(10);

/// How long this side waits with its own offer after it has refused one: until the refusal is
/// acknowledged (RFC 3261 section 14.1).
const AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// A description that is due as soon as the candidates are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// INVITE of an outgoing call.
    Invite,
    /// 200 to an INVITE or UPDATE of the other side.
    Accept,
}

/// A call as far as its session is concerned.
#[derive(Debug)]
pub(super) struct Leg {
    /// The media in use.
    pub(super) media: MediaId,
    negotiation: Negotiation,
    due: Due,
    /// This side wants to change the session when nothing else is under way.
    wants_offer: bool,
    gathered: bool,
    /// The media were started over, which the other side does not know yet.
    fresh: bool,
    /// They are to gather anew, when there is a flow or some time has passed.
    waits: bool,
    /// A server failed in this gathering.
    poor: bool,
    /// How often gathering was begun anew for that reason.
    tries: u32,
    /// How often a new way could not be offered.
    refusals: u32,
    established: bool,
    /// The early dialog whose answer is in use.
    early: Option<usize>,
    /// How often lost media may be looked for before the next success.
    restarts: u32,
}

impl Leg {
    /// Whether the media are to have a component for RTCP.
    pub(super) fn may_need_rtcp(&self) -> bool {
        self.negotiation.may_need_rtcp()
    }
}

impl Ue {
    /// Begins an outgoing call: its INVITE goes when the candidates are there.
    pub(super) fn begin_outgoing(&mut self, now: Instant, call: CallId) {
        if let Some(leg) = self.new_leg(call, Due::Invite) {
            self.legs.insert(call, leg);
            self.open_media(now, call, Role::Controlling);
        }
    }

    /// Takes in an incoming call: it rings, and its media gather meanwhile.
    fn begin_incoming(&mut self, now: Instant, call: CallId, offer: Option<&Bytes>) -> bool {
        let Some(mut leg) = self.new_leg(call, Due::Nothing) else {
            return false;
        };
        // Who offers controls (RFC 8445 section 6.1.1).
        let role = match offer.map(|offer| leg.negotiation.handle_offer(offer)) {
            None => Role::Controlling,
            Some(Ok(_)) => Role::Controlled,
            Some(Err(error)) => {
                self.refuse(now, call, refusal(error));
                return false;
            }
        };
        self.legs.insert(call, leg);
        self.open_media(now, call, role);
        // A caller that is gone is reported as usual.
        let _ = self.calls.ring(now, self.access.agent_mut(), call);
        true
    }

    fn new_leg(&mut self, call: CallId, due: Due) -> Option<Leg> {
        // Its configuration was checked in the beginning.
        let negotiation = Negotiation::new(self.config.sdp.clone(), self.rng.u64()).ok()?;
        Some(Leg {
            media: MediaId { call, instance: 0 },
            negotiation,
            due,
            wants_offer: false,
            gathered: false,
            fresh: false,
            waits: false,
            poor: false,
            tries: 0,
            refusals: 0,
            established: false,
            early: None,
            restarts: self.config.media_restarts,
        })
    }

    /// The application takes an incoming call.
    pub(super) fn take(&mut self, now: Instant, call: CallId) -> Result<(), CallError> {
        let leg = self.legs.get_mut(&call).ok_or(CallError::Unknown)?;
        if leg.due != Due::Nothing || leg.established {
            return Err(CallError::State);
        }
        leg.due = Due::Accept;
        self.describe(now, call);
        Ok(())
    }

    /// Which way media may flow from now on, as far as this side is concerned.
    pub(super) fn direct(
        &mut self,
        now: Instant,
        call: CallId,
        direction: Direction,
    ) -> Result<(), CallError> {
        let leg = self.legs.get_mut(&call).ok_or(CallError::Unknown)?;
        if !leg.established {
            return Err(CallError::State);
        }
        leg.negotiation.set_direction(direction);
        leg.wants_offer = true;
        self.describe(now, call);
        Ok(())
    }

    fn refuse(&mut self, now: Instant, call: CallId, code: StatusCode) {
        // If it cannot be refused any more, it is over.
        let _ = self.calls.refuse(now, self.access.agent_mut(), call, code);
    }

    fn end_call(&mut self, now: Instant, call: CallId, cause: EndCause) {
        let _ = self
            .calls
            .hang_up(now, self.access.agent_mut(), call, cause);
    }

    /// Says what is due, if the candidates are there and nothing else is under way.
    fn describe(&mut self, now: Instant, call: CallId) {
        let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.gathered) else {
            return;
        };
        let ready = leg.established && !self.flows.is_empty();
        let offer = leg.wants_offer && ready && self.calls.is_quiet(call);
        if leg.due == Due::Nothing && !offer {
            return;
        }
        let Some(local) = self.media.get(&leg.media).and_then(|m| m.media.local(0)) else {
            let none = EndCause::Media(String::from("no candidates"));
            return self.end_call(now, call, none);
        };
        let asked = leg.negotiation.asked().is_some();
        let said = if asked {
            leg.negotiation.answer(&local)
        } else {
            leg.negotiation.offer(&local)
        };
        let Ok(said) = said else {
            return self.end_call(now, call, EndCause::Description);
        };
        let (said, agent) = (Bytes::from(said), self.access.agent_mut());
        let due = core::mem::replace(&mut leg.due, Due::Nothing);
        let sent = match due {
            Due::Invite => self.calls.invite(now, agent, call, said),
            Due::Accept => self.calls.accept(now, agent, call, &said),
            Due::Nothing => {
                leg.wants_offer = false;
                self.calls.offer(now, agent, call, Method::INVITE, said)
            }
        };
        match sent {
            Err(CallError::Request(RequestError::NoFlow | RequestError::Full))
                if due == Due::Nothing =>
            {
                self.offer_lost(now, call);
            }
            Err(_) if due == Due::Nothing => self.offer_impossible(now, call),
            Err(_) => self.end_call(now, call, EndCause::FlowLost),
            Ok(()) if due == Due::Invite => self.events.push_back(UeEvent::Calling { call }),
            Ok(()) if asked => self.agreed(now, call),
            Ok(()) => {}
        }
    }

    /// Both descriptions are there: the media look for their way.
    fn agreed(&mut self, now: Instant, call: CallId) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        (leg.fresh, leg.waits) = (false, false);
        (leg.tries, leg.refusals) = (0, 0);
        let Some(agreed) = leg.negotiation.agreed() else {
            return;
        };
        let Some(entry) = self.media.get_mut(&leg.media) else {
            return;
        };
        if agreed.rtcp_mux {
            entry.media.limit_components(now, 0, 1);
        }
        let (codecs, direction) = (agreed.send.clone(), agreed.direction);
        let ice = agreed.transport.is_ice();
        entry.media.expect_data(now, direction.receives());
        let applied = match &agreed.transport {
            RemoteTransport::Ice(description) => entry.media.set_remote(now, description).is_ok(),
            RemoteTransport::Plain { .. } => {
                // There may be no port here for the RTCP it would like to get, or none any more.
                let components = entry.media.agent().component_count(0);
                let mut peers = agreed.transport.addresses();
                peers.truncate(usize::from(components));
                entry.media.set_remote_plain(now, 0, &peers).is_ok()
            }
            RemoteTransport::Nowhere => true,
        };
        if !applied {
            return self.end_call(now, call, EndCause::Description);
        }
        self.events.push_back(UeEvent::Agreed {
            call,
            codecs,
            direction,
            ice,
        });
    }

    /// Takes in what happened to a call.
    pub(super) fn call_event(&mut self, now: Instant, event: CallEvent) {
        match event {
            CallEvent::Incoming {
                call,
                from,
                display_name,
                to,
                offer,
            } => {
                if self.begin_incoming(now, call, offer.as_ref()) {
                    self.events.push_back(UeEvent::Incoming {
                        call,
                        from,
                        display_name,
                        to,
                    });
                }
            }
            CallEvent::Progress {
                call,
                fork,
                code,
                answer,
            } => {
                self.events.push_back(UeEvent::Ringing { call, code, fork });
                if let (Some(fork), Some(answer)) = (fork, answer) {
                    self.early_answer(now, call, fork, &answer);
                }
            }
            CallEvent::Answered { call, fork, answer } => {
                self.answered(now, call, fork, &answer);
            }
            CallEvent::Established { call } => {
                if let Some(leg) = self.legs.get_mut(&call) {
                    leg.established = true;
                }
                self.events.push_back(UeEvent::Established { call });
                self.describe(now, call);
            }
            CallEvent::Offer { call, offer } => self.offered(now, call, offer.as_ref()),
            CallEvent::Settled { call } => self.describe(now, call),
            CallEvent::OfferWithdrawn { call } => self.withdrawn(now, call),
            CallEvent::OfferRefused { call, code } => match code {
                Some(code) => self.offer_refused(now, call, code),
                None => self.offer_lost(now, call),
            },
            CallEvent::Info {
                call,
                content_type,
                body,
            } => self.events.push_back(UeEvent::Info {
                call,
                content_type,
                body,
            }),
            CallEvent::Ended { call, cause } => self.call_ended(now, call, cause),
        }
    }

    fn call_ended(&mut self, now: Instant, call: CallId, cause: EndCause) {
        self.timers.disarm(call);
        if let Some(leg) = self.legs.remove(&call) {
            self.close_media(now, leg.media);
            self.events.push_back(UeEvent::Ended { call, cause });
        }
    }

    /// The first answer counts, wherever it stands (RFC 3261 section 13.2.1): the media look for
    /// their way while it rings.
    fn early_answer(&mut self, now: Instant, call: CallId, fork: usize, answer: &[u8]) {
        let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.early.is_none()) else {
            return;
        };
        // One that cannot be used does no harm yet.
        let mut trial = leg.negotiation.clone();
        if trial.handle_answer(answer).is_ok() {
            leg.negotiation = trial;
            leg.early = Some(fork);
            self.agreed(now, call);
        }
    }

    fn answered(&mut self, now: Instant, call: CallId, fork: Option<usize>, answer: &[u8]) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        match leg.early.take() {
            None => match leg.negotiation.handle_answer(answer) {
                Ok(_) => self.agreed(now, call),
                Err(_) => self.end_call(now, call, EndCause::Description),
            },
            // It is the same answer again.
            Some(early) if Some(early) == fork => {}
            // Another device was faster than the one whose answer came early: a new offer is for
            // this one alone.
            Some(_) => {
                leg.wants_offer = true;
                self.restart_media(now, call);
            }
        }
        self.describe(now, call);
    }

    /// The other side wants to change the session.
    fn offered(&mut self, now: Instant, call: CallId, offer: Option<&Bytes>) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        if leg.negotiation.has_offered() {
            // That of this side met one of theirs, and waits: it is made again after this one.
            leg.negotiation.roll_back();
            leg.wants_offer = true;
        }
        let before = leg.negotiation.agreed().map(|agreed| &agreed.transport);
        let before = before.and_then(user_fragment);
        let restart = match offer.map(|offer| leg.negotiation.handle_offer(offer)) {
            // An offer of this side's own begins anew (RFC 8839 section 4.4.1.1.1).
            None => true,
            Some(Ok(offer)) => {
                let new = user_fragment(&offer.transport);
                if leg.fresh && new.is_some() && new == before {
                    // An answer with new credentials would start over what it does not (RFC 8839
                    // section 4.4.2); this side's own offer does.
                    return self.turn_down(now, call, StatusCode::REQUEST_PENDING);
                }
                // Without ICE before, there is nothing to start over.
                new.is_some() && new != before
            }
            Some(Err(error)) => return self.turn_down(now, call, refusal(error)),
        };
        if offer.is_none() || (restart && leg.fresh) {
            // What this side says now has all that it wanted to say.
            leg.wants_offer = false;
        }
        leg.due = Due::Accept;
        if restart && (leg.waits || !leg.fresh) {
            self.restart_media(now, call);
        }
        self.describe(now, call);
    }

    /// Refuses an offer; then that of this side may be made.
    fn turn_down(&mut self, now: Instant, call: CallId, code: StatusCode) {
        self.refuse(now, call, code);
        if let Some(leg) = self.legs.get_mut(&call) {
            leg.negotiation.roll_back();
            if leg.wants_offer && leg.gathered {
                self.timers.arm(call, now, AFTER_REFUSAL);
            }
        }
    }

    /// The other side's offer is gone. If the media have started over for it, this side offers.
    fn withdrawn(&mut self, now: Instant, call: CallId) {
        if let Some(leg) = self.legs.get_mut(&call) {
            leg.negotiation.roll_back();
            leg.due = Due::Nothing;
            leg.wants_offer |= leg.fresh;
        }
        self.describe(now, call);
    }

    /// This side's offer was lost with its flow: it is made again over another, after 2, 4, .. s,
    /// or over the next.
    fn offer_lost(&mut self, now: Instant, call: CallId) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        leg.negotiation.roll_back();
        leg.wants_offer = true;
        leg.waits = leg.fresh;
        if leg.refusals < MAX_REFUSALS {
            let wait = FIRST_WAIT.saturating_mul(1 << leg.refusals);
            leg.refusals = leg.refusals.saturating_add(1);
            self.timers.arm(call, now, wait);
        }
    }

    /// This side's offer cannot be sent over any flow.
    fn offer_impossible(&mut self, now: Instant, call: CallId) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        leg.negotiation.roll_back();
        if leg.fresh {
            let none = EndCause::Media(String::from("new way cannot be offered"));
            self.end_call(now, call, none);
        }
        self.events
            .push_back(UeEvent::ChangeRefused { call, code: None });
    }

    /// This side's offer was refused: all is as before, unless the media have started over.
    fn offer_refused(&mut self, now: Instant, call: CallId, code: StatusCode) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        leg.negotiation.roll_back();
        if leg.fresh {
            if may_pass(code) && leg.refusals < MAX_REFUSALS {
                leg.refusals = leg.refusals.saturating_add(1);
                (leg.wants_offer, leg.waits) = (true, true);
                return self.timers.arm(call, now, NEXT_OFFER);
            }
            let refused = EndCause::Media(String::from("new way refused"));
            self.end_call(now, call, refused);
        }
        let code = Some(code);
        self.events.push_back(UeEvent::ChangeRefused { call, code });
        self.describe(now, call);
    }

    /// There is a flow again: offers that waited for it are made.
    pub(super) fn flow_is_back(&mut self, now: Instant) {
        let calls: Vec<_> = self.legs.keys().copied().collect();
        for call in calls {
            if self.legs.get(&call).is_some_and(|leg| leg.waits) {
                self.restart_media(now, call);
            }
            self.describe(now, call);
        }
    }

    /// Servers that failed may be there again, and an offer may be possible.
    pub(super) fn try_again(&mut self, now: Instant, call: CallId) {
        if self.flows.is_empty() {
            // The next one is waited for.
            return;
        }
        if self.legs.get(&call).is_some_and(|leg| leg.waits) {
            self.restart_media(now, call);
        }
        self.describe(now, call);
    }
}

/// The user name fragment of a description, which is new when ICE starts over.
fn user_fragment(transport: &RemoteTransport) -> Option<String> {
    match transport {
        RemoteTransport::Ice(description) => Some(description.remote.credentials.ufrag.clone()),
        RemoteTransport::Plain { .. } | RemoteTransport::Nowhere => None,
    }
}

/// Whether a refusal is about the moment, not about the offer. 477 is what Kamailio says when a
/// connection is gone.
const fn may_pass(code: StatusCode) -> bool {
    matches!(code.number(), 404 | 430 | 477 | 480 | 500 | 502 | 503 | 504)
}

/// What SIP says to an offer that cannot be taken (RFC 3261 section 13.3.1.3).
fn refusal(error: NegotiationError) -> StatusCode {
    if matches!(error, NegotiationError::Sdp(_)) {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::NOT_ACCEPTABLE_HERE
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]
mod tests;
