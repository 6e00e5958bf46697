//! Requests on their way.

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::{FiveTuple, Path};

use super::flow::{NextHop, Waiting};
use super::plan::{Hop, Plan, Reject};
use super::respond::Context;
use super::{EdgeProxy, Side};
use crate::Instant;
use crate::route::{reply_address, stamp_via};
use crate::transaction::{Incoming, ServerId};
use crate::ua::{FlowAction, FlowId, FlowTarget};
use crate::wire::{
    Builder, Message, Method, Name, Request, Response, StatusCode, UriBuf, has_way_back,
    is_answerable,
};

impl EdgeProxy {
    pub(super) fn handle_message(&mut self, now: Instant, flow: FlowId, message: Message) {
        let limits = self.config.parse.limits;
        if self.is_clogged() {
            self.drop_one();
            return;
        }
        if !message.is_request() {
            match Response::check(message, &limits) {
                Ok(response) => self.handle_response(now, flow, &response),
                Err(_) => self.drop_one(),
            }
            return;
        }
        let Some(source) = self.remote(flow) else {
            return;
        };
        let stamped = stamp_via(&message, source, &limits).unwrap_or(message);
        match Request::check(stamped.clone(), &limits) {
            Ok(request) => self.handle_request(now, flow, &request),
            Err(refusal) if self.may_refuse(flow, &stamped) => {
                self.refuse(now, flow, &stamped, refusal.status);
            }
            Err(_) => self.drop_one(),
        }
    }

    /// Whether a request that fails its check can be answered: on a stream also without From, To,
    /// Call-ID or CSeq.
    fn may_refuse(&self, flow: FlowId, message: &Message) -> bool {
        let limits = &self.config.parse.limits;
        match self.path(flow) {
            Some(Path::Stream(_)) => has_way_back(message, limits),
            Some(Path::Datagram(_)) | None => is_answerable(message, limits),
        }
    }

    fn refuse(&mut self, now: Instant, flow: FlowId, message: &Message, code: StatusCode) {
        let tag = self.tag();
        if let Ok(reply) = Builder::reply_malformed(message, code, Some(&tag)).finish(b"") {
            self.push(now, flow, reply.as_bytes().clone());
        }
    }

    pub(super) fn refuse_broken(&mut self, now: Instant, flow: FlowId, message: &Message) {
        let limits = self.config.parse.limits;
        if !self.may_refuse(flow, message) {
            return;
        }
        if let Err(refusal) = Request::check(message.clone(), &limits) {
            self.refuse(now, flow, message, refusal.status);
        }
    }

    pub(super) fn tag(&mut self) -> String {
        alloc::format!("{:016x}", self.rng.u64())
    }

    fn handle_request(&mut self, now: Instant, flow: FlowId, request: &Request) {
        let Some(path) = self.path(flow) else {
            return;
        };
        let reply_to = match path {
            Path::Stream(_) => path,
            Path::Datagram(at) => match reply_address(request, &self.config.parse) {
                Some(remote) => Path::Datagram(FiveTuple { remote, ..at }),
                None => path,
            },
        };
        match self.servers.handle_request(now, reply_to, request) {
            Incoming::New(id) if *request.method() == Method::CANCEL => {
                // deviates: SIP-16.10-1 passed on, it would match nothing: the branch of the
                // INVITE was random.
                self.reply(now, id, &StatusCode::NO_SUCH_CALL.into());
            }
            Incoming::New(id) => match self.plan(flow, request) {
                Ok(plan) => {
                    let register = *request.method() == Method::REGISTER;
                    if !(register && self.answer_refresh(now, flow, id, request)) {
                        self.accept(now, flow, id, request, plan);
                    }
                }
                Err(reject) => self.reply(now, id, &reject),
            },
            Incoming::Ack => {
                if let Ok(plan) = self.plan(flow, request) {
                    self.dispatch(now, None, plan);
                }
            }
            Incoming::Cancelled(invite) => self.cancelled(now, invite),
            Incoming::Absorbed | Incoming::Overload => {}
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        source: FlowId,
        id: ServerId,
        request: &Request,
        plan: Plan,
    ) {
        let entry = self.flows.get(&source);
        let access = entry.is_some_and(|flow| flow.side == Side::Access);
        let register = access && *request.method() == Method::REGISTER;
        let agree = entry.is_some_and(|flow| self.lists_in_challenge(flow, request));
        let context = Context {
            source,
            client: None,
            register,
            keep: access && self.offers_keep(request),
            agree,
        };
        if access && *request.method() == Method::INVITE {
            self.calling.insert((source, id));
        }
        self.contexts.insert(id, context);
        self.dispatch(now, Some(id), plan);
    }

    /// Sends a request where its plan says, or lets it wait for the way to open.
    fn dispatch(&mut self, now: Instant, server: Option<ServerId>, plan: Plan) {
        let flow = match &plan.hop {
            Hop::Flow(flow) => Some(*flow),
            Hop::Target(uri) => self.core_flow(now, &uri.clone()),
        };
        let Some(flow) = flow else {
            self.give_up(now, server, StatusCode::SERVICE_UNAVAILABLE);
            return;
        };
        let waiting = Waiting { server, plan };
        if self
            .flows
            .get(&flow)
            .is_some_and(|flow| flow.link.is_some())
        {
            self.send_waiting(now, flow, waiting);
            return;
        }
        if self.waiting_count >= self.config.max_waiting {
            self.give_up(now, server, StatusCode::SERVICE_UNAVAILABLE);
        } else {
            self.waiting_count = self.waiting_count.saturating_add(1);
            self.waiting.entry(flow).or_default().push(waiting);
        }
    }

    /// What waits for a flow to open.
    pub(super) fn take_waiting(&mut self, flow: FlowId) -> Vec<Waiting> {
        let queue = self.waiting.remove(&flow).unwrap_or_default();
        self.waiting_count = self.waiting_count.saturating_sub(queue.len());
        queue
    }

    /// The flow to a next hop in the core, an old one or a new one.
    fn core_flow(&mut self, now: Instant, uri: &UriBuf) -> Option<FlowId> {
        let hop = NextHop::of(uri);
        if let Some(flow) = self.core.get(&hop) {
            return Some(*flow);
        }
        if self.core.len() >= self.config.max_core_flows {
            return None;
        }
        let target = FlowTarget {
            uri: uri.clone(),
            address: None,
        };
        let id = self.add_flow(now, Side::Core, Some(target.clone()), None);
        self.core.insert(hop, id);
        self.actions
            .push_back(FlowAction::OpenFlow { flow: id, target });
        Some(id)
    }

    /// The way is open.
    pub(super) fn send_waiting(&mut self, now: Instant, flow: FlowId, waiting: Waiting) {
        let Waiting { server, plan } = waiting;
        let (Some(path), Some(request)) = (self.path(flow), self.with_via(flow, &plan)) else {
            self.give_up(now, server, StatusCode::SERVER_ERROR);
            return;
        };
        let Some(server) = server else {
            self.push(now, flow, request.as_bytes().clone());
            return;
        };
        // Cancelled or abandoned meanwhile.
        if !self.servers.is_open(server) {
            return;
        }
        match self.clients.send(now, path, request) {
            Ok(client) => {
                if let Some(context) = self.contexts.get_mut(&server) {
                    context.client = Some(client);
                }
                self.by_client.insert(client, server);
            }
            Err(_) => self.give_up(now, Some(server), StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn with_via(&mut self, flow: FlowId, plan: &Plan) -> Option<Request> {
        let entry = self.flows.get(&flow)?;
        let (side, at) = (entry.side, entry.at?);
        let transport = at.transport;
        let name = self.sent_by(side, at);
        let rport = if transport.is_stream() { "" } else { ";rport" };
        let branch = u128::from_be_bytes(self.rng.bytes());
        let via = alloc::format!(
            "SIP/2.0/{transport} {name};branch=z9hG4bK{branch:032x}-{}{rport}",
            plan.loop_hash
        );
        let mut edit = plan.message.edit().push_front(Name::VIA, &via);
        if !plan.message.has(Name::CONTENT_LENGTH) {
            let len = alloc::format!("{}", plan.message.body().len());
            edit = edit.push_back(Name::CONTENT_LENGTH, &len);
        }
        let message = edit.finish().ok()?;
        Request::check(message, &self.config.parse.limits).ok()
    }

    pub(super) fn waiting_failed(&mut self, now: Instant, waiting: Waiting) {
        self.give_up(now, waiting.server, StatusCode::SERVER_ERROR);
    }

    fn give_up(&mut self, now: Instant, server: Option<ServerId>, code: StatusCode) {
        if let Some(id) = server {
            self.reply(now, id, &code.into());
        }
    }

    /// Answers a request here.
    pub(super) fn reply(&mut self, now: Instant, id: ServerId, reject: &Reject) {
        let tag = self.tag();
        let Some(request) = self.servers.request(id) else {
            return;
        };
        let mut builder = Builder::reply(request, reject.code, Some(&tag));
        for (name, value) in &reject.fields {
            builder = builder.header(*name, value);
        }
        if let Ok(message) = builder.finish(b"") {
            let _ = self.servers.respond(now, id, &message);
        }
    }

    /// Gives up what a client that is gone was calling: nobody would hear the answer (3GPP TS 24.229
    /// section 5.2.8.1).
    pub(super) fn cancel_invites_of(&mut self, now: Instant, source: FlowId) {
        let all = (source, ServerId(0))..=(source, ServerId(u64::MAX));
        let invites: Vec<ServerId> = self.calling.range(all).map(|(_, id)| *id).collect();
        for invite in invites {
            self.calling.remove(&(source, invite));
            if self.servers.is_open(invite) {
                self.cancelled(now, invite);
            }
        }
    }

    fn cancelled(&mut self, now: Instant, invite: ServerId) {
        match self
            .contexts
            .get(&invite)
            .and_then(|context| context.client)
        {
            Some(client) => self.clients.cancel(now, client),
            None => self.reply(now, invite, &StatusCode::REQUEST_TERMINATED.into()),
        }
    }
}
