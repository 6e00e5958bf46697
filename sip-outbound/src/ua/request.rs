//! Requests of the application (RFC 5626 section 4.3).

use core::net::SocketAddr;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::Transport;

use super::draft::{Draft, NewRequest, NextHop, RequestError, token};
use super::elsewhere::Elsewhere;
use super::flow::{Link, Purpose};
use super::slot::Slot;
use super::{
    Dialog, FlowId, FlowTarget, Phase, RequestFailure, RequestId, UserAgent, UserAgentEvent,
};
use crate::Instant;
use crate::digest::{AuthFailure, ChallengeStep, DigestAttempt};
use crate::transaction::ClientId;
use crate::wire::{
    BuildError, Builder, Message, Method, Name, Request, Response, StatusCode, Uri, UriBuf,
    same_host,
};

/// Requests this large need a stream when the path is unknown (RFC 3261 section 18.1.1).
const MAX_DATAGRAM: usize = 1300;

/// A request of the application that is under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) flow: FlowId,
    /// The transaction; none while the flow is being opened.
    pub(super) client: Option<ClientId>,
    pub(super) draft: Draft,
    pub(super) attempt: DigestAttempt,
    pub(super) elsewhere: Option<Elsewhere>,
    /// Somebody has answered.
    pub(super) heard: bool,
}

impl UserAgent {
    /// Sends a request outside of dialogs. A challenge is answered by the machine; everything else
    /// is reported under the number returned here.
    ///
    /// # Errors
    /// [`RequestError`]; nothing has changed then.
    pub fn request(&mut self, now: Instant, new: NewRequest) -> Result<RequestId, RequestError> {
        let now = self.clock.advance(now);
        let made = [Method::REGISTER, Method::ACK, Method::CANCEL];
        if made.contains(&new.method) {
            return Err(RequestError::Method);
        }
        Uri::parse(&new.uri, &self.config.parse.limits).map_err(|_| BuildError::Uri)?;
        if self.phase == Phase::Stopped {
            return Err(RequestError::NoFlow);
        }
        if self.requests.len() >= self.config.max_transactions {
            return Err(RequestError::Full);
        }
        let registered = self.slots.iter().find_map(Slot::registered_flow);
        let (flow, routes) = match &new.next_hop {
            NextHop::Registered => {
                let flow = registered.ok_or(RequestError::NoFlow)?;
                (flow, self.preloaded_routes(flow))
            }
            NextHop::Flow(flow) => {
                self.open_ref(*flow).ok_or(RequestError::NoFlow)?;
                (*flow, self.preloaded_routes(*flow))
            }
            NextHop::Resolved { uri, address } => {
                let flow = self.flow_to(uri, *address)?;
                (flow, self.preloaded_routes(flow))
            }
        };
        let aor = self.config.aor.as_str();
        let tag = token(&mut self.rng, 8);
        let from = if new.anonymous {
            alloc::format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={tag}")
        } else {
            alloc::format!("<{aor}>;tag={tag}")
        };
        let draft = Draft {
            from,
            to: alloc::format!("<{}>", new.uri),
            call_id: token(&mut self.rng, 16),
            cseq: 1,
            method: new.method,
            anonymous: new.anonymous,
            uri: new.uri,
            routes,
            headers: new.headers,
            body: new.body,
        };
        let elsewhere = match new.next_hop {
            NextHop::Resolved { uri, .. } => Some(Elsewhere {
                uri,
                places: new.alternatives.into(),
            }),
            NextHop::Registered | NextHop::Flow(_) => None,
        };
        self.start_request(now, flow, draft, elsewhere)
    }

    /// Sends a request within a dialog.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn request_in_dialog(
        &mut self,
        now: Instant,
        dialog: &mut Dialog,
        method: Method,
        headers: Vec<(String, String)>,
        body: Bytes,
    ) -> Result<RequestId, RequestError> {
        let now = self.clock.advance(now);
        let made = [Method::REGISTER, Method::ACK, Method::CANCEL];
        if made.contains(&method) {
            return Err(RequestError::Method);
        }
        if self.requests.len() >= self.config.max_transactions {
            return Err(RequestError::Full);
        }
        let flow = self.dialog_flow(dialog).ok_or(RequestError::NoFlow)?;
        let mut moved = dialog.clone();
        moved.move_to(flow);
        let (uri, routes) = moved.route();
        let draft = Draft {
            method,
            anonymous: dialog.local.contains("anonymous.invalid"),
            uri,
            routes,
            from: dialog.local.clone(),
            to: dialog.remote.clone(),
            call_id: dialog.call_id.clone(),
            cseq: dialog.local_cseq.saturating_add(1),
            headers,
            body,
        };
        let id = self.start_request(now, flow, draft, None)?;
        moved.local_cseq = moved.local_cseq.saturating_add(1);
        *dialog = moved;
        Ok(id)
    }

    /// The flow of a dialog; when that is gone, any registered one.
    fn dialog_flow(&self, dialog: &Dialog) -> Option<FlowId> {
        let alive = self.open_ref(dialog.flow).map(|_| dialog.flow);
        alive.or_else(|| self.slots.iter().find_map(Slot::registered_flow))
    }

    /// A flow to this address: one that is there, or a new one.
    pub(super) fn flow_to(
        &mut self,
        uri: &UriBuf,
        address: (Transport, SocketAddr),
    ) -> Result<FlowId, RequestError> {
        let host = uri.as_uri().host();
        let fits = |flow: &&super::flow::Flow| {
            let Some(open) = &flow.open else {
                return flow.target.address == Some(address) && flow.target.uri == *uri;
            };
            let proven = !open.at.transport.is_secure()
                || open.names.iter().any(|name| same_host(name, host));
            (open.at.transport, open.at.remote) == address && proven
        };
        if let Some(flow) = self.flows.values().find(fits) {
            return Ok(flow.id);
        }
        let extra = |flow: &&super::flow::Flow| flow.purpose == Purpose::Extra;
        if self.flows.values().filter(extra).count() >= self.config.max_extra_flows {
            return Err(RequestError::Full);
        }
        let target = FlowTarget {
            uri: uri.clone(),
            address: Some(address),
        };
        Ok(self.new_flow(target, Purpose::Extra))
    }

    /// Closes a flow that [`NextHop::Resolved`] opened.
    ///
    /// # Errors
    /// [`RequestError::Unknown`] for other flows.
    pub fn close_extra(&mut self, now: Instant, flow: FlowId) -> Result<(), RequestError> {
        let now = self.clock.advance(now);
        match self.flows.get(&flow).map(|flow| flow.purpose) {
            Some(Purpose::Extra) => {
                let lost = match self.path(flow) {
                    Some(path) => self.clients.path_failed(path),
                    None => Vec::new(),
                };
                self.close_flow(flow);
                self.requests_lost(flow, &lost);
                self.settle(now);
                Ok(())
            }
            Some(Purpose::Slot(_)) | None => Err(RequestError::Unknown),
        }
    }

    pub(super) fn start_request(
        &mut self,
        now: Instant,
        flow: FlowId,
        draft: Draft,
        elsewhere: Option<Elsewhere>,
    ) -> Result<RequestId, RequestError> {
        let mut pending = Pending {
            flow,
            client: None,
            draft,
            attempt: DigestAttempt::default(),
            elsewhere,
            heard: false,
        };
        let id = RequestId(self.next_request);
        if self.open_ref(flow).is_some() {
            pending.client = Some(self.transmit(now, &mut pending)?);
        }
        self.next_request = self.next_request.saturating_add(1);
        if let Some(client) = pending.client {
            self.by_client.insert(client, id);
        }
        self.requests.insert(id, pending);
        self.settle(now);
        Ok(id)
    }

    /// Writes the request of a draft and opens its transaction.
    fn transmit(&mut self, now: Instant, pending: &mut Pending) -> Result<ClientId, RequestError> {
        let flow = pending.flow;
        let request = self.write_request(pending)?;
        let open = self.open_ref(flow).ok_or(RequestError::NoFlow)?;
        let datagram = matches!(open.link, Link::Datagram { .. });
        if datagram && request.as_bytes().len() > MAX_DATAGRAM {
            return Err(RequestError::TooLarge);
        }
        let path = open.path(flow);
        self.clients
            .send(now, path, request)
            .map_err(|_| RequestError::Full)
    }

    /// A flow for another next hop is open: sends what waits for it.
    pub(super) fn send_waiting(&mut self, now: Instant, flow: FlowId) {
        let waiting: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, pending)| pending.flow == flow && pending.client.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.transmit_again(now, id);
        }
    }

    /// Sends a request of the table; one that cannot be sent has failed.
    pub(super) fn transmit_again(&mut self, now: Instant, id: RequestId) {
        let Some(mut pending) = self.requests.remove(&id) else {
            return;
        };
        match self.transmit(now, &mut pending) {
            Ok(client) => {
                pending.client = Some(client);
                self.by_client.insert(client, id);
                self.requests.insert(id, pending);
            }
            Err(_) => self.events.push_back(UserAgentEvent::RequestFailed {
                request: id,
                cause: RequestFailure::FlowLost,
            }),
        }
    }

    /// A request of the application as it was sent last; for an INVITE also while further 2xx may
    /// come. [`Dialog::caller`] wants it.
    pub fn sent_request(&self, request: RequestId) -> Option<&Request> {
        self.clients.request(self.requests.get(&request)?.client?)
    }

    /// Gives an INVITE up; its end is reported as usual.
    ///
    /// # Errors
    /// [`RequestError::Unknown`].
    pub fn cancel(&mut self, now: Instant, request: RequestId) -> Result<(), RequestError> {
        let now = self.clock.advance(now);
        let pending = self.requests.get(&request).ok_or(RequestError::Unknown)?;
        match pending.client {
            Some(client) => self.clients.cancel(now, client),
            None => {
                self.requests.remove(&request);
                let cause = RequestFailure::FlowLost;
                self.events
                    .push_back(UserAgentEvent::RequestFailed { request, cause });
            }
        }
        self.settle(now);
        Ok(())
    }

    /// Acknowledges a 2xx to an INVITE, again for each repetition of it. Credentials are those of
    /// the INVITE (RFC 3261 section 22.1).
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn ack(
        &mut self,
        now: Instant,
        dialog: &Dialog,
        request: RequestId,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<(), RequestError> {
        let now = self.clock.advance(now);
        let pending = self.requests.get(&request).ok_or(RequestError::Unknown)?;
        let client = pending.client.ok_or(RequestError::Unknown)?;
        let invite = self.clients.request(client).cloned();
        let invite = invite.ok_or(RequestError::Unknown)?;
        let flow = self.dialog_flow(dialog).ok_or(RequestError::NoFlow)?;
        let via = self.new_via(flow, false).ok_or(RequestError::NoFlow)?;
        let mut moved = dialog.clone();
        moved.move_to(flow);
        let (uri, routes) = moved.route();
        let mut builder = Builder::request(&Method::ACK, &uri).header(Name::VIA, via);
        for route in routes {
            builder = builder.header(Name::ROUTE, route);
        }
        builder = builder
            .header(Name::MAX_FORWARDS, 70)
            .header(Name::FROM, &dialog.local)
            .header(Name::TO, &dialog.remote)
            .header(Name::CALL_ID, &dialog.call_id)
            .header(Name::CSEQ, format_args!("{} ACK", invite.cseq_number()))
            .copy_all(&invite, Name::AUTHORIZATION)
            .copy_all(&invite, Name::PROXY_AUTHORIZATION);
        for (name, value) in headers {
            builder = builder.header(name.as_str(), value);
        }
        let message: Message = builder.finish(body)?;
        self.push(now, flow, message.as_bytes().clone());
        Ok(())
    }

    /// Takes in a response to a request of the application.
    pub(super) fn request_answered(
        &mut self,
        now: Instant,
        flow: FlowId,
        client: ClientId,
        response: Response,
    ) {
        let Some(&request) = self.by_client.get(&client) else {
            return;
        };
        let code = response.code();
        if code == StatusCode::SERVICE_UNAVAILABLE && self.try_elsewhere(now, request) {
            return;
        }
        if let Some(pending) = self.requests.get_mut(&request) {
            pending.heard = true;
        }
        let asks =
            code == StatusCode::UNAUTHORIZED || code == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        let refusal = if asks {
            match self.answer_challenge(now, request, client, &response) {
                Ok(()) => return,
                Err(failure) => Some(failure),
            }
        } else {
            None
        };
        self.dialog_answered(now, flow, &response);
        let invite_success = code.is_success() && *response.method() == Method::INVITE;
        if !code.is_provisional() {
            self.note_accepted(flow, request, &response);
            self.others_answered(now, request, &response);
        }
        // An accepted INVITE stays, for its ACKs and for further 2xx.
        if !code.is_provisional() && !invite_success {
            self.by_client.remove(&client);
            self.requests.remove(&request);
        }
        self.events.push_back(UserAgentEvent::Response {
            request,
            flow,
            response,
        });
        if let Some(failure) = refusal {
            let cause = RequestFailure::Authentication(failure);
            self.events
                .push_back(UserAgentEvent::RequestFailed { request, cause });
        }
    }

    /// A transaction is over; with it an accepted INVITE, which has waited for further 2xx.
    pub(super) fn client_ended(&mut self, client: ClientId) {
        self.registers.remove(&client);
        if let Some(request) = self.by_client.remove(&client) {
            self.requests.remove(&request);
        }
    }

    fn note_accepted(&mut self, flow: FlowId, request: RequestId, response: &Response) {
        let slot = match self.flows.get(&flow).map(|flow| flow.purpose) {
            Some(Purpose::Slot(slot)) => self.slots.get_mut(slot),
            Some(Purpose::Extra) | None => None,
        };
        if let (Some(slot), Some(pending)) = (slot, self.requests.get(&request))
            && response.code().is_success()
        {
            slot.digest.accepted(&pending.attempt, response);
        }
    }

    fn answer_challenge(
        &mut self,
        now: Instant,
        id: RequestId,
        client: ClientId,
        response: &Response,
    ) -> Result<(), AuthFailure> {
        let unknown = AuthFailure::NoAccount;
        let pending = self.requests.get_mut(&id).ok_or(unknown)?;
        let flow = self.flows.get(&pending.flow).ok_or(unknown)?;
        let secure = flow
            .open
            .as_ref()
            .is_some_and(|open| open.at.transport.is_secure());
        let Purpose::Slot(slot) = flow.purpose else {
            return Err(unknown);
        };
        let slot = self.slots.get_mut(slot).ok_or(unknown)?;
        let uri = &pending.draft.uri;
        match slot
            .digest
            .handle_challenge(&mut pending.attempt, response, uri, secure)
        {
            ChallengeStep::Retry => {
                pending.draft.cseq = pending.draft.cseq.saturating_add(1);
                pending.client = None;
                self.by_client.remove(&client);
                self.transmit_again(now, id);
                Ok(())
            }
            // The card belongs to the registration.
            ChallengeStep::AskCard(_) => Err(AuthFailure::NoUsableChallenge),
            ChallengeStep::Refuse(failure) => Err(failure),
        }
    }

    pub(super) fn client_timed_out(&mut self, now: Instant, client: ClientId) {
        if let Some(index) = self.registers.remove(&client) {
            self.register_timed_out(now, index);
            return;
        }
        self.request_ended(client, RequestFailure::TimedOut);
    }

    fn request_ended(&mut self, client: ClientId, cause: RequestFailure) {
        if let Some(request) = self.by_client.remove(&client) {
            self.request_failed(request, cause);
        }
    }

    fn request_failed(&mut self, request: RequestId, cause: RequestFailure) {
        let now = self.clock.now();
        let silent = self
            .requests
            .get(&request)
            .is_some_and(|pending| !pending.heard);
        if silent && self.try_elsewhere(now, request) {
            return;
        }
        if self.requests.remove(&request).is_some() {
            self.events
                .push_back(UserAgentEvent::RequestFailed { request, cause });
        }
    }

    /// A flow is gone: ends what ran over it or waited for it.
    pub(super) fn requests_lost(&mut self, flow: FlowId, lost: &[ClientId]) {
        for client in lost {
            self.registers.remove(client);
            self.request_ended(*client, RequestFailure::FlowLost);
        }
        let waiting: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, pending)| pending.flow == flow && pending.client.is_none())
            .map(|(id, _)| *id)
            .collect();
        for request in waiting {
            self.request_failed(request, RequestFailure::FlowLost);
        }
    }
}
