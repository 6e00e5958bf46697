//! The home network inside the P-CSCF: the registrar of its domains, and the proxy that finds
//! registered users (RFC 3261 section 16, RFC 5626 section 7).
//!
//! It stands behind the edge proxy as an outside registrar would: on streams, here of memory. The
//! edge proxy lets in only registered clients, so nobody is asked again for other requests.
//!
//! A request is tried at one device after the other, and at the flows of a device one after the
//! other: it never has two branches at a time.

mod route;
mod search;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use http_connect::auth::{ClaimedUser, HashAlgorithm};
use sip_outbound::wire::{
    Aor, Builder, Limits, Message, Method, Name, ParseConfig, Request, Response, Start, StatusCode,
    UriBuf, is_answerable,
};
use sip_outbound::{
    ClientEvent, ClientId, ClientTransactions, FlowId, Frame, Framer, FramerConfig, Incoming,
    Instant, KeyAnswer, Outgoing, PONG, RegisterStep, Registrar, RegistrarConfigError,
    RegistrarEvent, Role, ServerEvent, ServerId, ServerTransactions, Ticket,
};
use stun_proto::{Path, Rng, StreamId};

use super::HomeConfig;
use search::Search;

/// What the home network wants the host to find out.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Key {
        ticket: Ticket,
        user: ClaimedUser,
        hash: HashAlgorithm,
        aor: Aor,
    },
    User {
        query: u64,
        aor: Aor,
    },
}

/// What a request waits for that the host was asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Key(Ticket),
    User(u64),
}

#[derive(Debug)]
pub(super) struct Home {
    /// What is accepted: more than the edge proxy does, which adds fields.
    parse: ParseConfig,
    /// What the edge proxy accepts. More of it would end the stream, and with it the requests of
    /// all users.
    edge: ParseConfig,
    domains: Vec<String>,
    rng: Rng,
    registrar: Registrar,
    servers: ServerTransactions,
    clients: ClientTransactions,
    searches: BTreeMap<ServerId, Search>,
    by_client: BTreeMap<ClientId, ServerId>,
    asked: BTreeMap<ServerId, Asked>,
    by_ticket: BTreeMap<Ticket, ServerId>,
    by_query: BTreeMap<u64, ServerId>,
    next_query: u64,
    /// The streams to the edge proxy.
    links: BTreeMap<FlowId, Framer>,
    out: VecDeque<(FlowId, Bytes)>,
    questions: VecDeque<Question>,
}

impl Home {
    pub(super) fn new(
        config: &HomeConfig,
        edge: &ParseConfig,
        rng: &mut Rng,
        now: Instant,
    ) -> Result<Self, RegistrarConfigError> {
        let mut registrar = config.registrar.clone();
        if registrar.service_route.is_empty()
            && let Some(domain) = registrar.domains.first()
        {
            let route = UriBuf::parse(alloc::format!("sip:orig@{domain};lr"));
            registrar.service_route.extend(route.ok());
        }
        let parse = ParseConfig {
            limits: widened(&edge.limits),
            ..*edge
        };
        registrar.parse = parse;
        Ok(Self {
            parse,
            edge: *edge,
            domains: registrar.domains.clone(),
            rng: Rng::from_seed(rng.fork()),
            registrar: Registrar::new(registrar, rng.fork(), now)?,
            servers: ServerTransactions::new(config.timings, config.max_server_transactions, now),
            clients: ClientTransactions::new(config.timings, config.max_client_transactions, now),
            searches: BTreeMap::new(),
            by_client: BTreeMap::new(),
            asked: BTreeMap::new(),
            by_ticket: BTreeMap::new(),
            by_query: BTreeMap::new(),
            next_query: 0,
            links: BTreeMap::new(),
            out: VecDeque::new(),
            questions: VecDeque::new(),
        })
    }

    /// Whether requests for this host belong here.
    pub(super) fn serves(&self, host: &str) -> bool {
        let mut domains = self.domains.iter();
        domains.any(|domain| domain.eq_ignore_ascii_case(host))
    }

    /// How many bindings there are.
    pub(super) fn bindings(&self) -> usize {
        self.registrar.len()
    }

    /// A stream of the edge proxy leads here.
    pub(super) fn link_opened(&mut self, now: Instant, link: FlowId) {
        let config = FramerConfig {
            parse: self.parse,
            ..FramerConfig::new(Role::Server)
        };
        self.links.insert(link, Framer::new(config, now));
    }

    pub(super) fn link_closed(&mut self, now: Instant, link: FlowId) {
        self.links.remove(&link);
        for client in self.clients.path_failed(path(link)) {
            self.branch_ended(now, client, StatusCode::SERVER_ERROR, None);
        }
        self.settle();
    }

    /// Takes in bytes of a stream; `false` when it cannot be read any further.
    pub(super) fn handle_input(&mut self, now: Instant, link: FlowId, mut data: &[u8]) -> bool {
        let mut whole = true;
        while let Some(framer) = self.links.get_mut(&link) {
            match framer.next(now, &mut data) {
                None => break,
                Some(Frame::Message(message)) => self.handle_message(now, link, message),
                Some(Frame::Ping) => self.out.push_back((link, Bytes::from_static(PONG))),
                Some(Frame::Pong) => {}
                Some(Frame::Broken { .. }) => whole = false,
            }
        }
        self.settle();
        whole
    }

    fn handle_message(&mut self, now: Instant, link: FlowId, message: Message) {
        let limits = self.parse.limits;
        if !message.is_request() {
            if let Ok(response) = Response::check(message, &limits) {
                self.handle_response(now, link, &response);
            }
            return;
        }
        let request = match Request::check(message.clone(), &limits) {
            Ok(request) => request,
            Err(refusal) => {
                if is_answerable(&message, &limits) {
                    let tag = self.tag();
                    let reply = Builder::reply_malformed(&message, refusal.status, Some(&tag));
                    if let Ok(reply) = reply.finish(b"") {
                        self.out.push_back((link, reply.as_bytes().clone()));
                    }
                }
                return;
            }
        };
        match self.servers.handle_request(now, path(link), &request) {
            Incoming::New(id) if *request.method() == Method::CANCEL => {
                self.reply(now, id, StatusCode::NO_SUCH_CALL, &[]);
            }
            Incoming::New(id) if *request.method() == Method::REGISTER => {
                let step = self.registrar.handle_register(now, None, &request);
                self.register_step(now, id, step);
            }
            Incoming::New(id) => self.route_request(now, link, id, &request),
            Incoming::Ack => self.route_ack(link, &request),
            Incoming::Cancelled(invite) => self.cancelled(now, invite),
            Incoming::Absorbed | Incoming::Overload => {}
        }
    }

    fn register_step(&mut self, now: Instant, id: ServerId, step: RegisterStep) {
        match step {
            RegisterStep::Respond(message) => self.answer_register(now, id, &message),
            RegisterStep::NeedKey {
                ticket,
                user,
                hash,
                aor,
            } => {
                self.asked.insert(id, Asked::Key(ticket));
                self.by_ticket.insert(ticket, id);
                self.questions.push_back(Question::Key {
                    ticket,
                    user,
                    hash,
                    aor,
                });
            }
        }
    }

    pub(super) fn key_found(&mut self, now: Instant, ticket: Ticket, answer: &KeyAnswer) {
        let message = self.registrar.key_found(now, ticket, answer);
        if let (Some(message), Some(id)) = (message, self.by_ticket.remove(&ticket)) {
            self.asked.remove(&id);
            self.answer_register(now, id, &message);
        }
        self.settle();
    }

    fn answer_register(&mut self, now: Instant, id: ServerId, message: &Message) {
        let limits = self.parse.limits;
        let to = self.servers.request(id).and_then(|request| {
            let to = request.to(&limits).ok()?.uri.sip()?;
            Some(alloc::format!("<{}>", to.as_str()))
        });
        let accepted = Response::check(message.clone(), &limits);
        let message = match (to, accepted) {
            // Who the client is now (RFC 7315 section 4.1).
            (Some(to), Ok(response)) if response.code().is_success() => {
                let edit = message.edit().push_back(Name::P_ASSOCIATED_URI, &to);
                edit.finish().unwrap_or_else(|_| message.clone())
            }
            (Some(_) | None, _) => message.clone(),
        };
        self.respond(now, id, &message);
    }

    pub(super) fn user_found(&mut self, now: Instant, query: u64, exists: bool) {
        if let Some(id) = self.by_query.remove(&query) {
            self.asked.remove(&id);
            let code = if exists {
                StatusCode::TEMPORARILY_UNAVAILABLE
            } else {
                StatusCode::NOT_FOUND
            };
            self.reply(now, id, code, &[]);
        }
        self.settle();
    }

    /// Asks whether a user exists that is not registered.
    fn ask_user(&mut self, id: ServerId, aor: Aor) {
        let query = self.next_query;
        self.next_query = self.next_query.saturating_add(1);
        self.asked.insert(id, Asked::User(query));
        self.by_query.insert(query, id);
        self.questions.push_back(Question::User { query, aor });
    }

    /// Nobody waits for the answer to this question any more.
    fn withdraw(&mut self, now: Instant, id: ServerId) {
        match self.asked.remove(&id) {
            Some(Asked::Key(ticket)) => {
                self.by_ticket.remove(&ticket);
                // Lets go of the request.
                let _ = self.registrar.key_found(now, ticket, &KeyAnswer::Unknown);
            }
            Some(Asked::User(query)) => {
                self.by_query.remove(&query);
            }
            None => {}
        }
    }

    fn tag(&mut self) -> String {
        alloc::format!("{:016x}", self.rng.u64())
    }

    fn suits_edge(&self, bytes: &[u8]) -> bool {
        bytes == PONG || Message::parse(bytes, &self.edge).is_ok()
    }

    /// Sends a response. Instead of a final one that is too large for the edge proxy, the client
    /// is told that.
    fn respond(&mut self, now: Instant, id: ServerId, message: &Message) {
        if self.suits_edge(message.as_bytes()) {
            // Fails when nobody waits any more, and for 1xx where there must be none.
            let _ = self.servers.respond(now, id, message);
        } else if !is_provisional(message) {
            self.reply(now, id, StatusCode::MESSAGE_TOO_LARGE, &[]);
        }
    }

    /// Answers a request here.
    fn reply(&mut self, now: Instant, id: ServerId, code: StatusCode, fields: &[(Name, &str)]) {
        let tag = self.tag();
        let Some(request) = self.servers.request(id) else {
            return;
        };
        let mut builder = Builder::reply(request, code, Some(&tag));
        for (name, value) in fields {
            builder = builder.header(*name, value);
        }
        if let Ok(message) = builder.finish(b"") {
            let _ = self.servers.respond(now, id, &message);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.registrar.handle_timeout(now);
        self.clients.handle_timeout(now);
        self.transaction_events(now);
        self.servers.handle_timeout(now);
        self.transaction_events(now);
        self.settle();
    }

    fn transaction_events(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.clients.poll_event() {
                match event {
                    ClientEvent::TimedOut(client) => {
                        self.branch_ended(now, client, StatusCode::REQUEST_TIMEOUT, None);
                    }
                    ClientEvent::Ended(client) => {
                        self.by_client.remove(&client);
                    }
                }
            } else if let Some(event) = self.servers.poll_event() {
                match event {
                    ServerEvent::NoAck(_) => {}
                    ServerEvent::Abandoned(id) => {
                        self.withdraw(now, id);
                        self.give_up_search(now, id);
                    }
                    ServerEvent::Ended(id) => {
                        self.withdraw(now, id);
                        self.searches.remove(&id);
                    }
                }
            } else {
                break;
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [
            self.registrar.poll_timeout(),
            self.clients.poll_timeout(),
            self.servers.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Collects what the transactions send.
    fn settle(&mut self) {
        while let Some(Outgoing { path, bytes }) = self
            .clients
            .poll_transmit()
            .or_else(|| self.servers.poll_transmit())
        {
            if let Path::Stream(StreamId(id)) = path {
                self.out.push_back((FlowId(id), bytes));
            }
        }
    }

    /// What goes to the edge proxy next, and on which stream. What that would not take is left
    /// out: the answer to a request with so many Vias that nothing can be added to them.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(FlowId, Bytes)> {
        while let Some((ticket, response)) = self.registrar.poll_response() {
            if let Some(id) = self.by_ticket.remove(&ticket) {
                self.asked.remove(&id);
                self.answer_register(now, id, &response);
            }
        }
        self.transaction_events(now);
        self.settle();
        loop {
            let (link, bytes) = self.out.pop_front()?;
            if self.links.contains_key(&link) && self.suits_edge(&bytes) {
                return Some((link, bytes));
            }
        }
    }

    pub(super) fn poll_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<RegistrarEvent> {
        self.registrar.poll_event()
    }
}

fn is_provisional(message: &Message) -> bool {
    match message.start() {
        Start::Response { code, .. } => code.is_some_and(StatusCode::is_provisional),
        Start::Request { .. } => false,
    }
}

const fn path(link: FlowId) -> Path {
    Path::Stream(StreamId(link.0))
}

/// Room for what the edge proxy adds to a request that is just small enough for it.
const fn widened(limits: &Limits) -> Limits {
    Limits {
        start_line: limits.start_line.saturating_add(1024),
        line: limits.line.saturating_add(4096),
        headers: limits.headers.saturating_add(16),
        head: limits.head.saturating_add(8192),
        vias: limits.vias.saturating_add(2),
        routes: limits.routes.saturating_add(2),
        ..*limits
    }
}
