//! Requests outside of calls.

use alloc::boxed::Box;
use alloc::string::String;

use bytes::Bytes;
use sip_outbound::wire::{Limits, Method, Name, Request, StatusCode};
use sip_outbound::{NewRequest, RequestId, ServerId, UserAgentEvent};
use stun_proto::Instant;

use super::call::{ACCEPT, allowed};
use super::{Ue, UeError, UeEvent};
use crate::access::AccessEvent;

impl Ue {
    /// Sends MESSAGE (RFC 3428); [`UeEvent::Delivered`] follows.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn message(
        &mut self,
        now: Instant,
        to: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<RequestId, UeError> {
        let now = self.clock.advance(now);
        self.running()?;
        let message = NewRequest::new(Method::MESSAGE, to).body(content_type, body);
        let request = self.access.agent_mut().request(now, message)?;
        self.messages.insert(request);
        self.settle(now);
        Ok(request)
    }

    /// Takes in what the user agent says and no call wanted.
    pub(super) fn agent_event(&mut self, now: Instant, event: UserAgentEvent) {
        match event {
            UserAgentEvent::Response {
                request, response, ..
            } => {
                let done = !response.code().is_provisional();
                if done && self.messages.remove(&request) {
                    let outcome = Ok(response.code());
                    self.events
                        .push_back(UeEvent::Delivered { request, outcome });
                }
            }
            UserAgentEvent::RequestFailed { request, cause } => {
                if self.messages.remove(&request) {
                    let outcome = Err(cause);
                    self.events
                        .push_back(UeEvent::Delivered { request, outcome });
                }
            }
            UserAgentEvent::Request { id, request, .. } => self.asked(now, id, &request),
            UserAgentEvent::Stopped => self.stopped(now),
            // Calls take these.
            UserAgentEvent::Ack { .. }
            | UserAgentEvent::Cancelled { .. }
            | UserAgentEvent::NoAck { .. } => {}
            event @ (UserAgentEvent::Registered { .. }
            | UserAgentEvent::NotOutbound { .. }
            | UserAgentEvent::FlowFailed { .. }
            | UserAgentEvent::Refused { .. }
            | UserAgentEvent::Unregistered { .. }
            | UserAgentEvent::CardNeeded { .. }
            | UserAgentEvent::Suspicious { .. }) => {
                self.note_flow(now, &event);
                let event = Box::new(AccessEvent::Agent(event));
                self.events.push_back(UeEvent::Access(event));
            }
        }
    }

    /// Keeps account of the flows with a registration.
    fn note_flow(&mut self, now: Instant, event: &UserAgentEvent) {
        if let UserAgentEvent::Registered { flow, .. } = event
            && self.flows.insert(*flow)
        {
            self.flow_is_back(now);
        } else if let UserAgentEvent::FlowFailed { flow, .. } = event {
            self.flows.remove(flow);
        }
    }

    /// OPTIONS and MESSAGE, within calls or outside.
    fn asked(&mut self, now: Instant, id: ServerId, request: &Request) {
        let message = *request.method() == Method::MESSAGE;
        let code = if message && request.body().len() > self.config.calls.max_body {
            StatusCode::REQUEST_ENTITY_TOO_LARGE
        } else {
            StatusCode::OK
        };
        let headers = [
            (String::from("Allow"), allowed()),
            (String::from("Accept"), String::from(ACCEPT)),
            (String::from("Supported"), String::from("outbound")),
        ];
        let headers = if message { &[] } else { headers.as_slice() };
        let tag = alloc::format!("{:016x}", self.rng.u64());
        let agent = self.access.agent_mut();
        let answered = agent.respond(now, id, code, &tag, headers, b"");
        // Told once: a repeated MESSAGE is the transaction's business.
        if message && code.is_success() && answered.is_ok() {
            let from = request.from(&Limits::DEFAULT).ok();
            self.events.push_back(UeEvent::Message {
                from: from.map_or_else(String::new, |from| from.uri.as_str().into()),
                content_type: request.only(Name::CONTENT_TYPE).unwrap_or_default().into(),
                body: Bytes::copy_from_slice(request.body()),
            });
        }
    }
}
