//! Messages that come over the flows.

use core::time::Duration;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::Path;

use super::draft::{ContactKind, RequestError, is_sips, token};
use super::{FlowId, Timer, UserAgent, UserAgentEvent};
use crate::Instant;
use crate::route::stamp_via;
use crate::time::deadline;
use crate::transaction::{Incoming, ServerId};
use crate::wire::{Builder, Message, Method, Name, Request, Response, StatusCode, is_answerable};

/// A 2xx to an INVITE that is sent again until its ACK comes (RFC 3261 section 13.3.1.4).
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    flow: FlowId,
    response: Message,
    ack: AckKey,
    interval: Duration,
    until: Option<Instant>,
}

/// What an ACK has in common with its INVITE: Call-ID, our tag, and the number of CSeq.
type AckKey = (String, String, u32);

/// The 2xx that are sent again.
#[derive(Clone, Debug, Default)]
pub(super) struct AcceptedCalls {
    calls: BTreeMap<ServerId, Accepted>,
    by_ack: BTreeMap<AckKey, ServerId>,
}

impl AcceptedCalls {
    fn insert(&mut self, id: ServerId, accepted: Accepted) {
        self.by_ack.insert(accepted.ack.clone(), id);
        self.calls.insert(id, accepted);
    }

    fn remove(&mut self, id: ServerId) {
        if let Some(accepted) = self.calls.remove(&id) {
            self.by_ack.remove(&accepted.ack);
        }
    }

    fn acknowledged(&mut self, ack: &Request) -> Option<ServerId> {
        let tag = ack.to_tag().unwrap_or_default();
        let key = (ack.call_id().into(), tag.into(), ack.cseq_number());
        let id = self.by_ack.remove(&key)?;
        self.calls.remove(&id);
        Some(id)
    }

    pub(super) fn flow_lost(&mut self, flow: FlowId) {
        self.calls.retain(|_, accepted| accepted.flow != flow);
        let calls = &self.calls;
        self.by_ack.retain(|_, id| calls.contains_key(id));
    }
}

/// Methods of SIP and its extensions: one that is not handled gets 405 instead of 501.
const KNOWN: [Method; 14] = [
    Method::INVITE,
    Method::ACK,
    Method::CANCEL,
    Method::BYE,
    Method::REGISTER,
    Method::OPTIONS,
    Method::MESSAGE,
    Method::INFO,
    Method::UPDATE,
    Method::PRACK,
    Method::SUBSCRIBE,
    Method::NOTIFY,
    Method::REFER,
    Method::PUBLISH,
];

impl UserAgent {
    pub(super) fn handle_message(&mut self, now: Instant, flow: FlowId, message: Message) {
        let limits = self.limits().limits;
        // The host takes nothing of what it is told.
        if self.actions.len().saturating_add(self.events.len()) >= self.config.max_events {
            return;
        }
        if !message.is_request() {
            if let Ok(response) = Response::check(message, &limits) {
                self.handle_response(now, flow, response);
            }
            return;
        }
        let Some(at) = self.open_ref(flow).map(|open| open.at) else {
            return;
        };
        let stamped = stamp_via(&message, at.remote, &limits).unwrap_or(message);
        match Request::check(stamped.clone(), &limits) {
            Ok(request) => self.handle_request(now, flow, &request),
            Err(refusal) if is_answerable(&stamped, &limits) => {
                self.refuse_message(now, flow, &stamped, refusal.status);
            }
            Err(_) => {}
        }
    }

    fn refuse_message(&mut self, now: Instant, flow: FlowId, message: &Message, code: StatusCode) {
        let tag = token(&mut self.rng, 8);
        if let Ok(reply) = Builder::reply_malformed(message, code, Some(&tag)).finish(b"") {
            self.push(now, flow, reply.as_bytes().clone());
        }
    }

    /// A request at whose length the stream broke.
    pub(super) fn refuse_broken(&mut self, now: Instant, flow: FlowId, message: &Message) {
        let limits = self.limits().limits;
        if !is_answerable(message, &limits) {
            return;
        }
        if let Err(refusal) = Request::check(message.clone(), &limits) {
            self.refuse_message(now, flow, message, refusal.status);
        }
    }

    fn handle_response(&mut self, now: Instant, flow: FlowId, response: Response) {
        // One with more than our own Via has lost its way (RFC 3261 section 8.1.3.3).
        if response.via_count() != 1 {
            return;
        }
        let Some(path) = self.path(flow) else {
            return;
        };
        let Some(client) = self.clients.handle_response(now, path, &response) else {
            return;
        };
        if let Some(&index) = self.registers.get(&client) {
            if !response.code().is_provisional() {
                self.registers.remove(&client);
            }
            self.register_answered(now, index, &response);
        } else {
            self.request_answered(now, flow, client, response);
        }
    }

    fn handle_request(&mut self, now: Instant, flow: FlowId, request: &Request) {
        let Some(path) = self.path(flow) else {
            return;
        };
        let reply_to = match (path, crate::route::reply_address(request, self.limits())) {
            (Path::Datagram(at), Some(remote)) => {
                Path::Datagram(stun_proto::FiveTuple { remote, ..at })
            }
            (Path::Datagram(_) | Path::Stream(_), _) => path,
        };
        // Responses go over the flow; a client behind a NAT has nothing else.
        let reply_to = if self.flow_of(reply_to).is_some() {
            reply_to
        } else {
            path
        };
        match self.servers.handle_request(now, reply_to, request) {
            Incoming::New(id) => self.new_request(now, flow, id, request),
            Incoming::Ack => self.acknowledged(flow, request),
            Incoming::Cancelled(id) => {
                let tag = token(&mut self.rng, 8);
                let invite = self.servers.request(id).cloned();
                let reply = invite.map(|invite| {
                    Builder::reply(&invite, StatusCode::REQUEST_TERMINATED, Some(&tag)).finish(b"")
                });
                if let Some(Ok(reply)) = reply {
                    let _ = self.servers.respond(now, id, &reply);
                }
                self.events.push_back(UserAgentEvent::Cancelled { id });
            }
            Incoming::Absorbed | Incoming::Overload => {}
        }
    }

    fn new_request(&mut self, now: Instant, flow: FlowId, id: ServerId, request: &Request) {
        let method = request.method();
        let config = &self.config;
        let unsupported: Vec<&str> = request
            .list(Name::REQUIRE)
            .filter(|tag| {
                !config
                    .extensions
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(tag))
            })
            .collect();
        let tag = token(&mut self.rng, 8);
        let reply = |code| Builder::reply(request, code, Some(&tag));
        let refusal = if *method == Method::CANCEL {
            Some(reply(StatusCode::NO_SUCH_CALL))
        } else if !config.allow.contains(method) {
            let allow: Vec<_> = config.allow.iter().map(Method::as_str).collect();
            Some(if KNOWN.contains(method) {
                reply(StatusCode::METHOD_NOT_ALLOWED).header(Name::ALLOW, allow.join(", "))
            } else {
                reply(StatusCode::NOT_IMPLEMENTED).header(Name::ALLOW, allow.join(", "))
            })
        } else if !unsupported.is_empty() {
            Some(reply(StatusCode::BAD_EXTENSION).header(Name::UNSUPPORTED, unsupported.join(", ")))
        } else {
            None
        };
        if *method == Method::BYE {
            self.dialog_over(request.call_id());
        }
        match refusal.map(|refusal| refusal.finish(b"")) {
            Some(Ok(message)) => {
                let _ = self.servers.respond(now, id, &message);
            }
            Some(Err(_)) => {}
            None => self.events.push_back(UserAgentEvent::Request {
                id,
                flow,
                request: request.clone(),
            }),
        }
    }

    fn acknowledged(&mut self, flow: FlowId, request: &Request) {
        if let Some(id) = self.accepted.acknowledged(request) {
            self.timers.disarm(Timer::Accepted(id));
        }
        self.events.push_back(UserAgentEvent::Ack {
            flow,
            request: request.clone(),
        });
    }

    /// Answers a request of the other side. A 2xx to an INVITE is repeated by the machine until
    /// its ACK comes. `tag` is the To tag if the request had none; the same for all responses of
    /// one dialog. Contact is added where a response needs it, unless `headers` has one.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn respond(
        &mut self,
        now: Instant,
        id: ServerId,
        code: StatusCode,
        tag: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<(), RequestError> {
        let now = self.clock.advance(now);
        let request = self.servers.request(id).cloned();
        let request = request.ok_or(RequestError::Unknown)?;
        let path = self.servers.reply_to(id).ok_or(RequestError::Unknown)?;
        let flow = self.flow_of(path).ok_or(RequestError::NoFlow)?;
        let to_tag = (code != StatusCode::TRYING).then_some(tag);
        let invite = *request.method() == Method::INVITE;
        let dialog = invite && code.number() > 100 && code.number() < 300;
        let update = *request.method() == Method::UPDATE && code.is_success();
        let kind = ContactKind::Dialog {
            secure: is_sips(request.uri_text()),
            anonymous: false,
        };
        let contact = self
            .contact_uri(flow, kind)
            .filter(|_| {
                (dialog || update)
                    && !headers
                        .iter()
                        .any(|(n, _)| n.eq_ignore_ascii_case("contact"))
            })
            .map(|uri| alloc::format!("<{uri}>"));
        let mut builder = Builder::reply(&request, code, to_tag);
        if dialog {
            builder = builder.copy_all(&request, Name::RECORD_ROUTE);
        }
        builder = builder.maybe(Name::CONTACT, contact);
        for (name, value) in headers {
            builder = builder.header(name.as_str(), value);
        }
        let message = builder.finish(body)?;
        self.servers
            .respond(now, id, &message)
            .map_err(|_| RequestError::Unknown)?;
        if invite && code.is_success() {
            let t1 = self.config.timings.t1;
            let accepted = Accepted {
                flow,
                ack: (
                    request.call_id().into(),
                    request.to_tag().unwrap_or(tag).into(),
                    request.cseq_number(),
                ),
                interval: t1,
                until: deadline(now, self.config.timings.timeout()),
                response: message,
            };
            self.accepted.insert(id, accepted);
            self.timers.arm(Timer::Accepted(id), now, t1);
        }
        self.settle(now);
        Ok(())
    }

    pub(super) fn repeat_accepted(&mut self, now: Instant, id: ServerId) {
        let t2 = self.config.timings.t2;
        let Some(accepted) = self.accepted.calls.get_mut(&id) else {
            return;
        };
        if accepted.until.is_some_and(|until| now >= until) {
            self.accepted.remove(id);
            self.events.push_back(UserAgentEvent::NoAck { id });
            return;
        }
        accepted.interval = accepted.interval.saturating_mul(2).min(t2);
        let next = deadline(now, accepted.interval);
        let at = match (next, accepted.until) {
            (Some(next), Some(until)) => Some(next.min(until)),
            (next, until) => next.or(until),
        };
        let response: Bytes = accepted.response.as_bytes().clone();
        let flow = accepted.flow;
        self.timers.set(Timer::Accepted(id), at);
        self.push(now, flow, response);
    }
}
