//! The media of a call in the course of its life: lost, looked for anew, moved to another network.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use ice_proto::Role;
use stun_proto::Instant;

use super::{CallId, Due, EndCause, FIRST_WAIT, MediaId, Ue, UeEvent};
use crate::media::MediaEvent;

/// After a loss, servers that do not answer are asked again so many times before what is there is
/// offered: after 2, 4 and 8 s.
const MAX_TRIES: u32 = 3;

impl Ue {
    /// Gathers anew with new credentials, while the old way is still in use.
    pub(super) fn restart_media(&mut self, now: Instant, call: CallId) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        let Some(entry) = self.media.get_mut(&leg.media) else {
            return;
        };
        (leg.gathered, leg.fresh) = (false, true);
        (leg.waits, leg.poor) = (false, false);
        self.timers.disarm(call);
        // A closed one has ended its call.
        let _ = entry.media.restart(now);
        let _ = entry.media.gather(now);
    }

    /// Takes in what happened to media.
    pub(in crate::ue) fn media_event(&mut self, now: Instant, id: MediaId, event: MediaEvent) {
        let call = id.call;
        if event == MediaEvent::Closed {
            return self.forget_media(id);
        }
        self.note_asking(id, &event);
        // Of media that are being closed nobody wants to hear.
        let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.media == id) else {
            return;
        };
        match &event {
            MediaEvent::Gathered => {
                let offers = leg.fresh && leg.due == Due::Nothing;
                if offers && self.flows.is_empty() {
                    // It is not known how things are when there is a flow.
                    leg.waits = true;
                    return;
                }
                let again = offers && leg.poor;
                if again && leg.tries < MAX_TRIES {
                    let wait = FIRST_WAIT.saturating_mul(1 << leg.tries);
                    leg.tries = leg.tries.saturating_add(1);
                    leg.waits = true;
                    return self.timers.arm(call, now, wait);
                }
                leg.gathered = true;
                return self.describe(now, call);
            }
            MediaEvent::ServerFailed { .. } => leg.poor |= !leg.gathered,
            MediaEvent::Completed => leg.restarts = self.config.media_restarts,
            MediaEvent::OfferDue => {
                leg.wants_offer = true;
                self.describe(now, call);
            }
            MediaEvent::RouteLost { cause, .. } => {
                let why = alloc::format!("{cause}");
                self.media_lost(now, call, why);
            }
            MediaEvent::Failed(failure) => {
                let why = alloc::format!("{failure}");
                self.media_lost(now, call, why);
            }
            MediaEvent::Silent { .. } => {
                self.media_lost(now, call, String::from("nothing heard"));
            }
            MediaEvent::LocalCandidate { .. }
            | MediaEvent::Proxied { .. }
            | MediaEvent::Connected { .. }
            | MediaEvent::NeedCredentials { .. }
            | MediaEvent::NeedToken { .. }
            | MediaEvent::Selected { .. }
            | MediaEvent::Heard { .. }
            | MediaEvent::KeepAliveDue { .. }
            | MediaEvent::Ice(_)
            | MediaEvent::Closed => {}
        }
        let event = Box::new(event);
        self.events.push_back(UeEvent::Media { call, event });
    }

    /// There is no way any more: one more attempt, or the end of the call.
    fn media_lost(&mut self, now: Instant, call: CallId, why: String) {
        let Some(leg) = self.legs.get_mut(&call) else {
            return;
        };
        if leg.fresh {
            // It is being looked for.
            return;
        }
        let ice = leg
            .negotiation
            .agreed()
            .is_some_and(|a| a.transport.is_ice());
        if leg.restarts == 0 || !leg.established || !ice {
            return self.end_call(now, call, EndCause::Media(why));
        }
        leg.restarts = leg.restarts.saturating_sub(1);
        leg.wants_offer = true;
        if self.flows.is_empty() {
            // What is found now may not be there any more when it can be offered.
            (leg.gathered, leg.fresh, leg.waits) = (false, true, true);
        } else {
            self.restart_media(now, call);
        }
    }

    /// The network has changed: calls get new media, and offer them.
    pub(in crate::ue) fn move_media(&mut self, now: Instant) {
        let calls: Vec<_> = self.legs.keys().copied().collect();
        for call in calls {
            let Some(leg) = self.legs.get_mut(&call) else {
                continue;
            };
            let old = leg.media;
            leg.media = MediaId {
                call,
                instance: old.instance.saturating_add(1),
            };
            (leg.gathered, leg.fresh) = (false, true);
            (leg.waits, leg.poor) = (false, false);
            leg.wants_offer = true;
            self.close_media(now, old);
            // Who offers controls.
            self.open_media(now, call, Role::Controlling);
        }
    }
}
