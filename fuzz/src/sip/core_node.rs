//! The host of the domain: registrar, and the proxy that is responsible for its users (RFC 5626
//! section 7). Reached by datagrams only.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use http_connect::auth::{ClaimedUser, HashAlgorithm, ha1};
use sip_outbound::wire::{
    Builder, Limits, Message, Method, Name, NameAddr, ParseConfig, Request, Response, StatusCode,
    UriBuf,
};
use sip_outbound::{
    ClientEvent, ClientId, ClientTransactions, Incoming, Instant, KeyAnswer, Next, Registrar,
    RegistrarConfig, ServerId, ServerTransactions, Target, Targets, Ticket, Timings,
};
use stun_proto::{FiveTuple, Path};

use super::edge_node::{CORE_PORT, EDGES};
use super::model::Model;
use super::{RegistrarIn, RegistrarMachine, RegistrarOut};
use crate::contract::Checked;
use crate::sim::{Arrival, Choices, HostId, Net, SiteId};

/// The address of the core.
pub(super) const CORE: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)), 5060);

/// The only user, and its password.
pub(super) const AOR: &str = "sip:alice@example.com";
pub(super) const PASSWORD: &str = "secret";

/// Bindings of one user, and in all.
const MAX_BINDINGS: usize = 3;

const LIMITS: Limits = Limits::DEFAULT;

fn registrar_config() -> RegistrarConfig {
    let mut config = RegistrarConfig::new("example.com");
    config.max_bindings = MAX_BINDINGS;
    config.max_total = MAX_BINDINGS;
    config.max_pending = 8;
    config
}

fn new_registrar(choices: &mut Choices, now: Instant) -> Checked<RegistrarMachine> {
    let seed = choices.machine_seed();
    Checked::new("registrar", now, move || {
        let registrar = Registrar::new(registrar_config(), seed, now);
        RegistrarMachine::new(registrar.expect("a sound configuration"), MAX_BINDINGS)
    })
}

/// A question to the user database.
struct Question {
    ticket: Ticket,
    server: ServerId,
    request: Request,
    known: bool,
    hash: HashAlgorithm,
}

/// A request to the user, over one flow after the other.
struct Call {
    number: u64,
    method: Method,
    targets: Targets,
    target: Target,
    branches: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    Failed(u16),
}

/// The core's host.
pub(super) struct CoreNode {
    pub(super) host: HostId,
    pub(super) machine: Checked<RegistrarMachine>,
    model: Model,
    clients: ClientTransactions,
    servers: ServerTransactions,
    questions: BTreeMap<u64, Question>,
    calls: BTreeMap<ClientId, Call>,
    next: u64,
    /// What became of each call.
    pub(super) fates: BTreeMap<u64, Fate>,
    /// Credentials that were accepted since the last start.
    accepted: BTreeSet<String>,
    /// Path values and REGISTER requests that came by, for those who listen.
    pub(super) paths: Vec<String>,
    pub(super) registers: Vec<Vec<u8>>,
    pub(super) healed: bool,
}

impl CoreNode {
    /// Puts the core's host into its site.
    pub(super) fn new(net: &mut Net, site: SiteId) -> Self {
        let host = net.host("core", &[(CORE.ip(), site)]);
        net.bind(host, CORE);
        let now = net.now();
        Self {
            host,
            machine: new_registrar(net.choices(), now),
            model: Model::new(&registrar_config()),
            clients: ClientTransactions::new(Timings::RFC3261, 64, now),
            servers: ServerTransactions::new(Timings::RFC3261, 64, now),
            questions: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
            fates: BTreeMap::new(),
            accepted: BTreeSet::new(),
            paths: Vec::new(),
            registers: Vec::new(),
            healed: false,
        }
    }

    /// Starts again, knowing nothing.
    pub(super) fn restart(&mut self, net: &mut Net) {
        net.note(self.host, || "restarts");
        let now = net.now();
        let fresh = new_registrar(net.choices(), now);
        let old = core::mem::replace(&mut self.machine, fresh);
        let mut choices = net.choices().fork();
        old.finish(&mut choices);
        self.model = Model::new(&registrar_config());
        self.clients = ClientTransactions::new(Timings::RFC3261, 64, now);
        self.servers = ServerTransactions::new(Timings::RFC3261, 64, now);
        self.questions.clear();
        for (_, call) in core::mem::take(&mut self.calls) {
            self.fates.insert(call.number, Fate::Failed(503));
        }
        self.accepted.clear();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let all = [
            self.machine.deadline(),
            self.clients.poll_timeout(),
            self.servers.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    pub(super) fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.machine.deadline()) {
            self.model.expire(now);
            let outputs = self.machine.timeout(now);
            self.outputs(net, outputs);
        }
        if due(self.clients.poll_timeout()) {
            self.clients.handle_timeout(now);
            while let Some(ClientEvent::TimedOut(id)) = self.clients.poll_event() {
                self.call_ended(net, id, StatusCode::REQUEST_TIMEOUT);
            }
        }
        if due(self.servers.poll_timeout()) {
            self.servers.handle_timeout(now);
            while self.servers.poll_event().is_some() {}
        }
        self.settle(net);
    }

    /// Sends what the transactions have to send.
    fn settle(&mut self, net: &mut Net) {
        while let Some(out) = self
            .clients
            .poll_transmit()
            .or_else(|| self.servers.poll_transmit())
        {
            let Path::Datagram(at) = out.path else {
                panic!("a stream in the core")
            };
            net.send(self.host, at.local, at.remote, &out.bytes);
        }
    }

    fn outputs(&mut self, net: &Net, outputs: Vec<RegistrarOut>) {
        for output in outputs {
            if let RegistrarOut::Event(event) = output {
                net.note(self.host, || format!("{event:?}"));
                self.model.event(&event);
            }
        }
        self.model.check(&self.machine.machine().registrar, &[AOR]);
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } => {
                if let Ok(message) = Message::parse(&data, &ParseConfig::default()) {
                    let path = Path::Datagram(FiveTuple::udp(local, remote));
                    self.message(net, path, message);
                }
            }
            Arrival::Alarm(number) => {
                if let Some(question) = self.questions.remove(&number) {
                    self.key_found(net, question);
                }
            }
            _ => {}
        }
        self.settle(net);
    }

    fn message(&mut self, net: &mut Net, path: Path, message: Message) {
        let now = net.now();
        if !message.is_request() {
            if let Ok(response) = Response::check(message, &LIMITS)
                && let Some(id) = self.clients.handle_response(now, path, &response)
            {
                self.response(net, path, id, &response);
            }
            return;
        }
        let Ok(request) = Request::check(message, &LIMITS) else {
            return;
        };
        match self.servers.handle_request(now, path, &request) {
            Incoming::New(id) if *request.method() == Method::REGISTER => {
                self.register(net, id, request);
            }
            Incoming::New(id) => {
                let reply = Builder::reply(&request, StatusCode::OK, Some("core")).finish(b"");
                let _ = self.servers.respond(now, id, &reply.expect("a reply"));
            }
            Incoming::Cancelled(id) => {
                let code = StatusCode::REQUEST_TERMINATED;
                let reply = Builder::reply(&request, code, Some("core")).finish(b"");
                let _ = self.servers.respond(now, id, &reply.expect("a reply"));
            }
            Incoming::Ack | Incoming::Absorbed | Incoming::Overload => {}
        }
    }

    fn register(&mut self, net: &mut Net, server: ServerId, request: Request) {
        let now = net.now();
        if self.paths.len() < 64 {
            self.paths
                .extend(request.list(Name::PATH).map(String::from));
            self.registers.push(request.as_bytes().to_vec());
        }
        if !self.healed && net.choices().chance(40) {
            let mut builder = Builder::reply(&request, StatusCode::SERVICE_UNAVAILABLE, Some("x"));
            if net.choices().flip() {
                let seconds = net.choices().below(200);
                builder = builder.header(Name::RETRY_AFTER, seconds);
            }
            let _ = self
                .servers
                .respond(now, server, &builder.finish(b"").expect("a reply"));
            return;
        }
        self.model.expire(now);
        let mut outputs = self
            .machine
            .input(now, RegistrarIn::Register(None, request.clone()));
        match outputs.remove(0) {
            RegistrarOut::Respond(answer) => self.answer(net, server, &request, &answer, false),
            RegistrarOut::NeedKey(ticket, user, hash, aor) => {
                assert_eq!(aor.as_str(), AOR);
                let known = user == ClaimedUser::Name("alice".to_owned());
                let question = Question {
                    ticket,
                    server,
                    request,
                    known,
                    hash,
                };
                let number = self.next;
                self.next += 1;
                self.questions.insert(number, question);
                let slow = !self.healed && net.choices().chance(50);
                let longest = if slow { 5000 } else { 50 };
                let wait = net.choices().duration(Duration::from_millis(longest));
                net.alarm(self.host, wait, number);
            }
            output => panic!("{output:?} to REGISTER"),
        }
        self.outputs(net, outputs);
    }

    fn key_found(&mut self, net: &mut Net, question: Question) {
        let now = net.now();
        let answer = if question.known {
            KeyAnswer::Known {
                ha1: ha1(question.hash, b"alice", b"example.com", PASSWORD.as_bytes()),
                authorised: true,
                exists: true,
            }
        } else {
            KeyAnswer::Unknown
        };
        self.model.expire(now);
        let mut outputs = self
            .machine
            .input(now, RegistrarIn::Key(question.ticket, answer));
        let RegistrarOut::Respond(answer) = outputs.remove(0) else {
            panic!("no answer to a key");
        };
        self.answer(
            net,
            question.server,
            &question.request,
            &answer,
            question.known,
        );
        self.outputs(net, outputs);
    }

    fn answer(
        &mut self,
        net: &Net,
        server: ServerId,
        request: &Request,
        answer: &Message,
        proven: bool,
    ) {
        let now = net.now();
        let response = Response::check(answer.clone(), &LIMITS).expect("a response");
        let code = response.code();
        net.note(self.host, || {
            format!("answers {code} to REGISTER {}", request.cseq_number())
        });
        if code.is_success() {
            assert!(proven, "let in without proof");
            let proof: String = request.rows(Name::AUTHORIZATION).collect();
            assert!(
                self.accepted.insert(proof.clone()),
                "credentials used twice: {proof}"
            );
        }
        if proven && code != StatusCode::UNAUTHORIZED {
            self.model.answered(now, None, request, answer);
        }
        // Fails when nobody waits for it any more.
        let _ = self.servers.respond(now, server, answer);
    }

    /// Sends a request to the user; its number.
    pub(super) fn call(&mut self, net: &mut Net, method: Method) -> u64 {
        let number = self.next;
        self.next += 1;
        let uri = UriBuf::parse(AOR).expect("a URI");
        let outputs = self.machine.input(net.now(), RegistrarIn::Find(uri));
        let Some(RegistrarOut::Targets(Some(mut targets))) = outputs.into_iter().next() else {
            panic!("no targets for our own user");
        };
        assert!(targets.len() <= 1, "one device");
        match targets.first(0) {
            None => {
                self.fates.insert(number, Fate::Failed(480));
            }
            Some(target) => {
                let call = Call {
                    number,
                    method,
                    targets,
                    target,
                    branches: 0,
                };
                self.attempt(net, call);
                self.settle(net);
            }
        }
        number
    }

    fn attempt(&mut self, net: &Net, mut call: Call) {
        call.branches += 1;
        let (number, branch) = (call.number, call.branches);
        let base = Builder::request(&call.method, AOR)
            .header(
                Name::VIA,
                format_args!("SIP/2.0/UDP {CORE};branch=z9hG4bKc{number}-{branch};rport"),
            )
            .header(Name::MAX_FORWARDS, 70)
            .header(
                Name::FROM,
                format_args!("<sip:bob@example.com>;tag=b{number}"),
            )
            .header(Name::TO, format_args!("<{AOR}>"))
            .header(Name::CALL_ID, format_args!("call{number}"))
            .header(Name::CSEQ, format_args!("1 {}", call.method))
            .header(Name::CONTACT, format_args!("<sip:bob@{CORE}>"))
            .finish(b"");
        let base = Request::check(base.expect("a request"), &LIMITS).expect("a request");
        let addressed = call.target.address(&base).expect("an addressed request");
        let request = Request::check(addressed, &LIMITS).expect("a request");
        let path = path_along(&request);
        let id = self.clients.send(net.now(), path, request);
        self.calls.insert(id.expect("a fresh branch"), call);
    }

    fn response(&mut self, net: &mut Net, path: Path, id: ClientId, response: &Response) {
        let code = response.code();
        if code.is_provisional() {
            return;
        }
        if code.is_success() && *response.method() == Method::INVITE {
            // Again for each repetition.
            let ack = within(response, &Method::ACK, 1, "");
            let Path::Datagram(at) = path_along(&ack) else {
                panic!("a stream in the core")
            };
            net.send(self.host, at.local, at.remote, ack.as_bytes());
            if let Some(call) = self.calls.remove(&id) {
                self.fates.insert(call.number, Fate::Answered);
                let branch = format!("bye{}", call.number);
                let bye = within(response, &Method::BYE, 2, &branch);
                let path = path_along(&bye);
                let _ = self.clients.send(net.now(), path, bye);
            }
            return;
        }
        let _ = path;
        self.call_ended(net, id, code);
    }

    /// Whether the binding of a target is still the same.
    fn holds(&self, target: &Target) -> bool {
        let uri = UriBuf::parse(AOR).expect("a URI");
        let registrar = &self.machine.machine().registrar;
        let mut targets = registrar.targets(&uri.as_uri()).expect("our domain");
        let mut next = targets.first(0);
        while let Some(found) = next {
            if found.binding == target.binding {
                return true;
            }
            next = match targets.next(0, StatusCode::FLOW_FAILED) {
                Next::Try(target) => Some(target),
                Next::Done => None,
            };
        }
        false
    }

    fn call_ended(&mut self, net: &Net, id: ClientId, code: StatusCode) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        net.note(self.host, || {
            format!("{} {} ends with {code}", call.method, call.number)
        });
        if code.is_success() {
            self.fates.insert(call.number, Fate::Answered);
            return;
        }
        if code == StatusCode::FLOW_FAILED {
            // It may have ended and come again since.
            if self.holds(&call.target) {
                self.model.drop_target(AOR, &call.target);
            }
            let outputs = self
                .machine
                .input(net.now(), RegistrarIn::Drop(call.target.binding));
            self.outputs(net, outputs);
        }
        match call.targets.next(0, code) {
            Next::Try(target) => {
                call.target = target;
                self.attempt(net, call);
            }
            Next::Done => {
                self.fates.insert(call.number, Fate::Failed(code.number()));
            }
        }
    }

    /// Plays the registrar's life again.
    pub(super) fn finish(self, choices: &mut Choices) {
        self.machine.finish(choices);
    }
}

/// Where a request goes: to the edge proxy that its Route names.
fn path_along(request: &Request) -> Path {
    let route = request.routes(Name::ROUTE, &LIMITS).next();
    let host = route.expect("a Route").expect("a URI").host().to_owned();
    let edge = EDGES.iter().find(|(name, _)| *name == host);
    let (_, ip) = edge.expect("one of our edge proxies");
    Path::Datagram(FiveTuple::udp(CORE, SocketAddr::from((*ip, CORE_PORT))))
}

/// A request within the dialog that a 2xx to our INVITE has made.
fn within(response: &Response, method: &Method, cseq: u32, branch: &str) -> Request {
    let contact = response
        .contacts(&LIMITS)
        .next()
        .expect("a Contact")
        .expect("a URI");
    let NameAddr { uri, .. } = contact;
    let mut routes: Vec<_> = response
        .list(Name::RECORD_ROUTE)
        .map(str::to_owned)
        .collect();
    routes.reverse();
    let branch = if branch.is_empty() {
        format!("ack{}", response.call_id())
    } else {
        branch.to_owned()
    };
    let mut builder = Builder::request(method, uri.as_str()).header(
        Name::VIA,
        format_args!("SIP/2.0/UDP {CORE};branch=z9hG4bK{branch};rport"),
    );
    for route in routes {
        builder = builder.header(Name::ROUTE, route);
    }
    let message = builder
        .header(Name::MAX_FORWARDS, 70)
        .header(Name::FROM, response.only(Name::FROM).expect("From"))
        .header(Name::TO, response.only(Name::TO).expect("To"))
        .header(Name::CALL_ID, response.call_id())
        .header(Name::CSEQ, format_args!("{cseq} {method}"))
        .finish(b"");
    Request::check(message.expect("a request"), &LIMITS).expect("a request")
}
