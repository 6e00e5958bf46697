//! User agent, edge proxy and registrar together, in memory.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code"
)]

mod memory;
mod memory_ua;
mod scale;
mod torture;

use core::net::SocketAddr;
use core::time::Duration;

use sip_outbound::wire::{
    Builder, Limits, Message, Method, Name, ParseConfig, Request, Response, StatusCode, UriBuf,
};
use sip_outbound::{
    Account, Dialog, EdgeConfig, EdgeProxy, FlowAction, FlowId, Frame, Framer, FramerConfig,
    InstanceId, Instant, KeyAnswer, NewRequest, RegisterStep, Registrar, RegistrarConfig, Role,
    Side, UserAgent, UserAgentConfig, UserAgentEvent,
};
use stun_proto::{FiveTuple, Path, StreamId, Transport};

fn tuple(transport: Transport, port: u16) -> FiveTuple {
    FiveTuple {
        transport,
        local: SocketAddr::from(([192, 0, 2, 1], port)),
        remote: SocketAddr::from(([203, 0, 113, 7], 443)),
    }
}

fn reversed(at: FiveTuple) -> FiveTuple {
    FiveTuple {
        local: at.remote,
        remote: at.local,
        ..at
    }
}

/// One client, one P-CSCF, and a core that is a registrar and echoes everything else.
struct World {
    now: Instant,
    ua: UserAgent,
    edge: EdgeProxy,
    registrar: Registrar,
    /// The flows of the client: theirs and the proxy's number.
    links: Vec<(FlowId, FlowId)>,
    core: Option<(FlowId, Framer)>,
    events: Vec<UserAgentEvent>,
    /// Requests other than REGISTER that the core got.
    seen: Vec<Request>,
    /// Bytes are handed over in pieces of this size.
    piece: usize,
    next_port: u16,
}

impl World {
    fn new(piece: usize) -> Self {
        let now = Instant::ZERO;
        let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
        let proxies = vec![UriBuf::parse("sips:pcscf.example.com:443").unwrap()];
        let mut config = UserAgentConfig::ims(
            UriBuf::parse("sip:alice@ims.example.com").unwrap(),
            instance,
            proxies,
        );
        config.accounts = vec![Account::new(
            "alice@ims.example.com",
            "secret",
            "ims.example.com",
        )];
        let mut edge = EdgeConfig::pcscf("pcscf.example.com");
        edge.next_hop = Some(UriBuf::parse("sip:core.example.com;transport=tcp").unwrap());
        let mut registrar = RegistrarConfig::new("ims.example.com");
        registrar.service_route =
            vec![UriBuf::parse("sip:core.example.com;lr;transport=tcp").unwrap()];
        Self {
            now,
            ua: UserAgent::new(config, [1; 32], now).unwrap(),
            edge: EdgeProxy::new(edge, [2; 32], now).unwrap(),
            registrar: Registrar::new(registrar, [3; 32], now).unwrap(),
            links: Vec::new(),
            core: None,
            events: Vec::new(),
            seen: Vec::new(),
            piece,
            next_port: 40_000,
        }
    }

    /// Carries everything to where it goes until nothing is left.
    fn settle(&mut self) {
        let mut buf = [0; 4096];
        loop {
            let mut idle = true;
            while let Some(action) = self.ua.poll_action() {
                idle = false;
                match action {
                    FlowAction::OpenFlow { flow, target } => {
                        let at = tuple(Transport::Tls, self.next_port);
                        self.next_port += 1;
                        let theirs = self
                            .edge
                            .flow_accepted(self.now, reversed(at), Side::Access);
                        self.links.push((flow, theirs.unwrap()));
                        let names =
                            vec![target.verify_name().to_string(), "ims.example.com".into()];
                        self.ua.flow_opened(self.now, flow, at, names);
                    }
                    FlowAction::CloseFlow { flow } => {
                        if let Some(at) = self.links.iter().position(|link| link.0 == flow) {
                            let (_, theirs) = self.links.remove(at);
                            self.edge.flow_failed(self.now, theirs);
                        }
                    }
                }
            }
            while let Some(action) = self.edge.poll_action() {
                idle = false;
                match action {
                    FlowAction::OpenFlow { flow, .. } => {
                        let framer = Framer::new(FramerConfig::new(Role::Server), self.now);
                        self.core = Some((flow, framer));
                        self.edge
                            .flow_opened(self.now, flow, tuple(Transport::Tcp, 5060));
                    }
                    FlowAction::CloseFlow { flow } => {
                        if let Some(at) = self.links.iter().position(|link| link.1 == flow) {
                            let (ours, _) = self.links.remove(at);
                            self.ua.handle_flow_closed(self.now, ours);
                        }
                    }
                }
            }
            while let Some(sent) = self.ua.poll_transmit(&mut buf) {
                idle = false;
                let theirs = self
                    .links
                    .iter()
                    .find(|link| link.0 == sent.to)
                    .map(|link| link.1);
                for piece in buf[..sent.len].chunks(self.piece) {
                    self.edge
                        .handle_flow_input(self.now, theirs.unwrap(), piece);
                }
            }
            while let Some(sent) = self.edge.poll_transmit(&mut buf) {
                idle = false;
                let Path::Stream(StreamId(id)) = sent.to else {
                    panic!()
                };
                match self.links.iter().find(|link| link.1 == FlowId(id)) {
                    Some((ours, _)) => {
                        for piece in buf[..sent.len].chunks(self.piece) {
                            self.ua.handle_flow_input(self.now, *ours, piece);
                        }
                    }
                    None => self.core_input(buf[..sent.len].to_vec()),
                }
            }
            while let Some(event) = self.ua.poll_event() {
                idle = false;
                self.events.push(event);
            }
            if idle {
                break;
            }
        }
        for next in [self.ua.poll_timeout(), self.edge.poll_timeout()] {
            assert!(next.is_none_or(|next| next > self.now));
        }
    }

    fn core_input(&mut self, bytes: Vec<u8>) {
        let (flow, framer) = self.core.as_mut().unwrap();
        let flow = *flow;
        let mut input = &bytes[..];
        let mut replies = Vec::new();
        while let Some(frame) = framer.next(self.now, &mut input) {
            let Frame::Message(message) = frame else {
                panic!()
            };
            match Request::check(message, &Limits::DEFAULT) {
                Ok(request) if *request.method() == Method::ACK => self.seen.push(request),
                Ok(request) => replies.push(request),
                Err(_) => {}
            }
        }
        for request in replies {
            let reply = self.core_answer(&request);
            self.edge
                .handle_flow_input(self.now, flow, reply.as_bytes());
        }
    }

    fn core_answer(&mut self, request: &Request) -> Message {
        if *request.method() != Method::REGISTER {
            self.seen.push(request.clone());
            let mut builder = Builder::reply(request, StatusCode::OK, Some("core"));
            if *request.method() == Method::INVITE {
                builder = builder
                    .copy_all(request, Name::RECORD_ROUTE)
                    .header(Name::CONTACT, "<sip:bob@core.example.com;transport=tcp>");
            }
            return builder.finish(b"").unwrap();
        }
        match self.registrar.handle_register(self.now, None, request) {
            RegisterStep::Respond(message) => message,
            RegisterStep::NeedKey { ticket, hash, .. } => {
                let user = b"alice@ims.example.com";
                let ha1 = http_connect::auth::ha1(hash, user, b"ims.example.com", b"secret");
                let answer = KeyAnswer::Known {
                    ha1,
                    authorised: true,
                    exists: true,
                };
                self.registrar.key_found(self.now, ticket, &answer).unwrap()
            }
        }
    }

    fn run_for(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        self.settle();
        loop {
            let next = [
                self.ua.poll_timeout(),
                self.edge.poll_timeout(),
                self.registrar.poll_timeout(),
            ];
            let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = next;
            self.ua.handle_timeout(next);
            self.edge.handle_timeout(next);
            self.registrar.handle_timeout(next);
            self.settle();
        }
        self.now = end;
    }

    fn count(&mut self, kind: &str) -> usize {
        let found = self
            .events
            .iter()
            .filter(|event| format!("{event:?}").starts_with(kind))
            .count();
        self.events.clear();
        found
    }
}

// spec: SEED-2.2-1, SEED-2.1-2, E-3.1.0-4, SIP-18.3-1
#[test]
fn a_client_registers_through_a_pcscf_and_stays_for_a_day() {
    for piece in [1, 7, 4096] {
        let mut world = World::new(piece);
        world.ua.start(world.now);
        world.settle();
        assert_eq!(world.count("Registered"), 1);
        assert_eq!(world.registrar.len(), 1);
        assert!(world.edge.registered(world.links[0].1).is_some());
        world.run_for(86_400);
        assert_eq!(world.registrar.len(), 1);
        assert_eq!(world.links.len(), 1);
        // Granted 3,600 s, refreshed 600 s before.
        assert_eq!(world.count("Registered"), 28);
        world.ua.stop(world.now);
        world.settle();
        assert_eq!(world.count("Stopped"), 1);
        assert!(world.registrar.is_empty() && world.links.is_empty());
    }
}

#[test]
fn a_message_goes_out_and_one_comes_in() {
    let mut world = World::new(4096);
    world.ua.start(world.now);
    world.settle();
    world.events.clear();
    let message =
        NewRequest::new(Method::MESSAGE, "sip:bob@ims.example.com").body("text/plain", "hi");
    world.ua.request(world.now, message).unwrap();
    world.settle();
    let [UserAgentEvent::Response { response, .. }] = &world.events[..] else {
        panic!()
    };
    assert_eq!(response.code(), StatusCode::OK);
    world.events.clear();

    let uri = UriBuf::parse("sip:alice@ims.example.com").unwrap();
    let target = world
        .registrar
        .targets(&uri.as_uri())
        .unwrap()
        .first(0)
        .unwrap();
    let text = "MESSAGE sip:alice@ims.example.com SIP/2.0\r\nVia: SIP/2.0/TCP core.example.com;branch=z9hG4bKx\r\n\
        Max-Forwards: 70\r\nFrom: <sip:bob@x>;tag=1\r\nTo: <sip:alice@ims.example.com>\r\nCall-ID: in\r\nCSeq: 1 MESSAGE\r\nContent-Length: 2\r\n\r\nho";
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    let request = Request::check(message, &Limits::DEFAULT).unwrap();
    let addressed = target.address(&request).unwrap();
    let core = world.core.as_ref().unwrap().0;
    world
        .edge
        .handle_flow_input(world.now, core, addressed.as_bytes());
    world.settle();
    let Some(UserAgentEvent::Request { id, request, .. }) = world.events.pop() else {
        panic!()
    };
    assert_eq!(request.body(), b"ho");
    assert!(!request.has(Name::ROUTE));
    world
        .ua
        .respond(world.now, id, StatusCode::OK, "t", &[], b"")
        .unwrap();
    let mut buf = [0; 4096];
    let sent = world.ua.poll_transmit(&mut buf).unwrap();
    world
        .edge
        .handle_flow_input(world.now, world.links[0].1, &buf[..sent.len]);
    let sent = world.edge.poll_transmit(&mut buf).unwrap();
    assert_eq!(sent.to, Path::Stream(StreamId(core.0)));
    let answer = Message::parse(&buf[..sent.len], &ParseConfig::default()).unwrap();
    assert_eq!(
        Response::check(answer, &Limits::DEFAULT).unwrap().code(),
        StatusCode::OK
    );
}

// spec: OUT-4.5-1, SEC-G-07, SEC-G-12
#[test]
fn a_lost_flow_is_made_anew_and_everything_is_as_before() {
    let run = || {
        let mut world = World::new(4096);
        world.ua.start(world.now);
        world.settle();
        // A pong has proven the flow by then.
        world.run_for(100);
        let (ours, theirs) = world.links.remove(0);
        world.ua.handle_flow_closed(world.now, ours);
        world.edge.flow_failed(world.now, theirs);
        world.settle();
        assert_eq!(world.links.len(), 1);
        assert_eq!(world.registrar.len(), 1);
        world.run_for(1000);
        format!(
            "{:?} {:?} {:?}",
            world.events,
            world.ua.poll_timeout(),
            world.edge.poll_timeout()
        )
    };
    assert_eq!(run(), run());
}

// spec: OUT-4.3-4, OUT-5.3.1-2, OUT-5.3.2-1, OUT-5.3.2-2, SIP-12.2.1.1-1, MEM-5.1.2A-1
#[test]
fn the_requests_of_a_call_go_over_its_flow_both_ways() {
    let mut world = World::new(4096);
    world.ua.start(world.now);
    world.settle();
    world.events.clear();
    let invite = NewRequest::new(Method::INVITE, "sip:bob@ims.example.com");
    let id = world.ua.request(world.now, invite).unwrap();
    world.settle();
    let invite = world.seen.remove(0);
    // The P-CSCF has left its token where the way back begins.
    let tokens: Vec<&str> = invite.list(Name::RECORD_ROUTE).collect();
    assert_eq!(tokens.len(), 2);
    assert!(tokens[0].ends_with("@pcscf.example.com;lr>"));
    assert!(tokens.iter().all(|uri| uri.starts_with("<sips:")));
    let token = tokens.join(", ");
    assert!(!token.contains(";ob"));
    let contact = invite.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
    assert!(contact.uri.sip().unwrap().is_outbound());
    assert_eq!(
        invite.list(Name::ROUTE).collect::<Vec<_>>(),
        ["<sip:core.example.com;lr;transport=tcp>"]
    );
    let contact = contact.uri.as_str().to_string();
    let Some(UserAgentEvent::Response { response, flow, .. }) = world.events.pop() else {
        panic!()
    };
    let mut dialog = Dialog::caller(flow, &invite, &response).unwrap();
    world.ua.ack(world.now, &dialog, id, &[], b"").unwrap();
    world.settle();
    let ack = world.seen.remove(0);
    assert_eq!((ack.method(), ack.has(Name::ROUTE)), (&Method::ACK, false));
    assert_eq!(ack.uri_text(), "sip:bob@core.example.com;transport=tcp");

    // From the other side: down the flow that the token names.
    let options = format!(
        "OPTIONS {contact} SIP/2.0\r\nVia: SIP/2.0/TCP core.example.com;branch=z9hG4bKopt\r\nRoute: {token}\r\n\
         Max-Forwards: 70\r\nFrom: {};tag=core\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        invite.only(Name::TO).unwrap(),
        invite.only(Name::FROM).unwrap(),
        invite.call_id()
    );
    let core = world.core.as_ref().unwrap().0;
    world
        .edge
        .handle_flow_input(world.now, core, options.as_bytes());
    world.settle();
    let Some(UserAgentEvent::Request {
        request, flow: on, ..
    }) = world.events.pop()
    else {
        panic!()
    };
    assert!(dialog.handle_request(&request).is_ok());
    assert_eq!((on, request.has(Name::ROUTE)), (flow, false));
    world
        .ua
        .request_in_dialog(
            world.now,
            &mut dialog,
            Method::BYE,
            Vec::new(),
            Default::default(),
        )
        .unwrap();
    world.settle();
    let bye = world.seen.remove(0);
    assert_eq!((bye.method(), bye.has(Name::ROUTE)), (&Method::BYE, false));
    assert_eq!(bye.to_tag(), Some("core"));
    assert_eq!(world.count("Response"), 1);
}
