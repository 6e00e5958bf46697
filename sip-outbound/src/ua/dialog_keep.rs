//! Keep-alives for dialogs over flows that have none for a registration (RFC 6223 section 4.2.3).

use core::time::Duration;

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::flow::{Link, Purpose};
use super::slot::Keep;
use super::{Dialog, FlowId, UserAgent};
use crate::Instant;
use crate::wire::{Keep as ViaKeep, Method, Response, StatusCode, Via};

/// Dialogs that have been promised keep-alives, by flow and Call-ID.
#[derive(Clone, Debug, Default)]
pub(super) struct DialogKeeps(BTreeMap<FlowId, BTreeMap<String, Duration>>);

impl DialogKeeps {
    pub(super) fn flow_lost(&mut self, flow: FlowId) {
        self.0.remove(&flow);
    }

    fn has(&self, flow: FlowId, call_id: &str) -> bool {
        let calls = self.0.get(&flow);
        calls.is_some_and(|calls| calls.contains_key(call_id))
    }
}

impl UserAgent {
    /// The longest interval between pings on a flow; none when there are to be no pings.
    pub(super) fn keep_bound(&self, flow: FlowId) -> Option<Duration> {
        let unasked = match self.keep_of(flow) {
            Keep::Unasked(bound) => Some(bound),
            Keep::Agreed(_) | Keep::None => None,
        };
        unasked.into_iter().chain(self.agreed_bound(flow)).min()
    }

    /// What the answer to REGISTER says of keep-alives on this flow.
    fn keep_of(&self, flow: FlowId) -> Keep {
        match self.flows.get(&flow).map(|flow| flow.purpose) {
            Some(Purpose::Slot(index)) => {
                self.slots.get(index).map_or(Keep::None, |slot| slot.keep)
            }
            Some(Purpose::Extra) | None => Keep::None,
        }
    }

    /// The same for pings whose answer was promised.
    pub(super) fn agreed_bound(&self, flow: FlowId) -> Option<Duration> {
        let registration = self.keep_of(flow).agreed();
        let dialogs = self.dialog_keeps.0.get(&flow);
        let dialogs = dialogs.into_iter().flat_map(BTreeMap::values).copied();
        registration.into_iter().chain(dialogs).min()
    }

    /// Whether a request that makes or refreshes a dialog offers keep-alives in its Via: not when
    /// there are some already.
    pub(super) fn offers_keep(&self, flow: FlowId, method: &Method, call_id: &str) -> bool {
        let refreshes = [Method::INVITE, Method::UPDATE].contains(method);
        (method.forms_dialog() || refreshes)
            && self.keep_of(flow).agreed().is_none()
            && !self.dialog_keeps.has(flow, call_id)
    }

    /// Takes in what a response to a request of the application says of keep-alives, and of the
    /// end of its dialog.
    pub(super) fn dialog_answered(&mut self, now: Instant, flow: FlowId, response: &Response) {
        let code = response.code();
        let gone = code == StatusCode::NO_SUCH_CALL || code == StatusCode::REQUEST_TIMEOUT;
        let hung_up = *response.method() == Method::BYE && !code.is_provisional();
        if gone || hung_up {
            self.dialog_over(response.call_id());
            return;
        }
        let limits = self.config.parse.limits;
        let keep = response
            .via(&limits)
            .map_or(ViaKeep::Absent, |via: Via<'_>| via.keep());
        let makes = response.to_tag().is_some()
            && (101..300).contains(&code.number())
            && self.offers_keep(flow, response.method(), response.call_id());
        let (ViaKeep::Granted(seconds), true) = (keep, makes) else {
            return;
        };
        let Some(open) = self.open_ref(flow) else {
            return;
        };
        let datagram = matches!(open.link, Link::Datagram { .. });
        let bound = self.keep_alive_bound(flow, Some(seconds), datagram);
        let limit = self.config.max_transactions;
        let calls = self.dialog_keeps.0.entry(flow).or_default();
        if calls.len() < limit {
            calls.insert(response.call_id().into(), bound);
            self.schedule_ping(now, flow, bound);
        }
    }

    /// Tells that a dialog is over in another way than by BYE, 481 or 408, which the machine sees
    /// itself: keep-alives that were agreed on for it are no longer sent.
    pub fn dialog_ended(&mut self, dialog: &Dialog) {
        self.dialog_over(&dialog.call_id);
    }

    pub(super) fn dialog_over(&mut self, call_id: &str) {
        let held: alloc::vec::Vec<FlowId> = self
            .dialog_keeps
            .0
            .iter_mut()
            .filter_map(|(flow, calls)| calls.remove(call_id).map(|_| *flow))
            .collect();
        self.dialog_keeps.0.retain(|_, calls| !calls.is_empty());
        for flow in held {
            if self.keep_bound(flow).is_none() {
                self.stop_pings(flow);
            }
        }
    }
}
