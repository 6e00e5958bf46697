//! User agents, their connections, and a P-CSCF, in memory.

use std::sync::OnceLock;

use alloc::collections::BTreeSet;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec;

use http_connect::auth::{ClaimedUser, ha1};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use sip_outbound::wire::{
    Limits, Message, Method, ParseConfig, Request, Response, StatusCode, UriBuf,
};
use sip_outbound::{
    Account, Dialog, FlowAction, InstanceId, NewRequest, RegistrarConfig, RequestId, ServerId,
    UserAgent, UserAgentConfig, UserAgentEvent,
};

use super::super::*;
use crate::test_tls::self_signed;

pub(super) const HOST: &str = "pcscf.example.com";
pub(super) const DOMAIN: &str = "ims.example.com";

/// A certificate for [`HOST`], and who trusts it.
pub(super) fn tls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    static BOTH: OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = OnceLock::new();
    BOTH.get_or_init(|| {
        let (mut server, client) = fresh_tls();
        server.alpn_protocols = vec![b"sip/2".to_vec(), b"http/1.1".to_vec()];
        (Arc::new(server), Arc::new(client))
    })
    .clone()
}

pub(super) fn fresh_tls() -> (ServerConfig, ClientConfig) {
    let (client, server) = self_signed(&[HOST, "sip.example.com", "www.example.com"]);
    (server, client)
}

pub(super) fn config() -> ServiceConfig {
    let mut config = ServiceConfig::new("203.0.113.40", "203.0.113.40:5060".parse().unwrap());
    config.edge.aliases = vec![HOST.into()];
    config.tls = Some(tls().0);
    config
}

pub(super) fn home_config() -> ServiceConfig {
    ServiceConfig {
        home: Some(HomeConfig::new(RegistrarConfig::new(DOMAIN))),
        ..config()
    }
}

pub(super) fn at(listener: Listener, port: u16) -> FiveTuple {
    let (transport, local) = match listener {
        Listener::Tls => (Transport::Tls, 443),
        Listener::Tcp => (Transport::Tcp, 80),
        Listener::Core => (Transport::Tcp, 5060),
    };
    FiveTuple {
        transport,
        local: SocketAddr::from(([203, 0, 113, 40], local)),
        // All clients come through one proxy.
        remote: SocketAddr::from(([198, 51, 100, 9], port)),
    }
}

/// A client, and the tunnels of its flows.
pub(super) struct Phone {
    pub(super) ua: UserAgent,
    pub(super) lines: BTreeMap<FlowId, (ConnId, Tunnel)>,
    pub(super) events: Vec<UserAgentEvent>,
    /// Opens no flows.
    pub(super) offline: bool,
}

impl Phone {
    pub(super) fn count(&mut self, kind: &str) -> usize {
        let is = |event: &&UserAgentEvent| std::format!("{event:?}").starts_with(kind);
        let found = self.events.iter().filter(is).count();
        self.events.clear();
        found
    }

    /// The request that came last.
    pub(super) fn request(&mut self) -> (ServerId, FlowId, Request) {
        let found = self.events.drain(..).rev().find_map(|event| match event {
            UserAgentEvent::Request { id, flow, request } => Some((id, flow, request)),
            _ => None,
        });
        found.unwrap()
    }

    /// The final response that came last.
    pub(super) fn response(&mut self) -> (RequestId, FlowId, Response) {
        let found = self.events.drain(..).rev().find_map(|event| match event {
            UserAgentEvent::Response {
                request,
                flow,
                response,
            } if !response.code().is_provisional() => Some((request, flow, response)),
            _ => None,
        });
        found.unwrap()
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) pcscf: Pcscf,
    pub(super) phones: Vec<Phone>,
    pub(super) events: Vec<PcscfEvent>,
    /// What the host was asked to do and has not done.
    pub(super) actions: Vec<PcscfAction>,
    pub(super) datagrams: Vec<(FiveTuple, Vec<u8>)>,
    /// Bytes of connections that belong to no phone.
    pub(super) raw: BTreeMap<ConnId, Vec<u8>>,
    /// Connections whose other end does not read.
    pub(super) stuck: BTreeSet<ConnId>,
    pub(super) listener: Listener,
    /// Bytes are handed over in pieces of this size.
    pub(super) piece: usize,
    next_port: u16,
}

impl World {
    pub(super) fn new(config: ServiceConfig) -> Self {
        Self {
            now: Instant::ZERO,
            pcscf: Pcscf::new(config, [2; 32], Instant::ZERO).unwrap(),
            phones: Vec::new(),
            events: Vec::new(),
            actions: Vec::new(),
            datagrams: Vec::new(),
            raw: BTreeMap::new(),
            stuck: BTreeSet::new(),
            listener: Listener::Tls,
            piece: 4096,
            next_port: 10_000,
        }
    }

    pub(super) fn phone(&mut self, user: &str, device: u8, flows: usize) -> usize {
        let urn = std::format!("urn:uuid:00000000-0000-4000-8000-0000000000{device:02x}");
        let instance = InstanceId::new(&urn).unwrap();
        let proxies = (0..flows)
            .map(|_| UriBuf::parse(std::format!("sips:{HOST}:443")).unwrap())
            .collect();
        let aor = UriBuf::parse(std::format!("sip:{user}@{DOMAIN}")).unwrap();
        let mut config = UserAgentConfig::new(aor, instance, proxies);
        config.flows = flows;
        config.accounts = vec![Account::new(user, &*std::format!("{user}-secret"), DOMAIN)];
        let mut ua = UserAgent::new(config, [device; 32], self.now).unwrap();
        ua.start(self.now);
        self.phones.push(Phone {
            ua,
            lines: BTreeMap::new(),
            events: Vec::new(),
            offline: false,
        });
        self.settle();
        self.phones.len() - 1
    }

    /// A connection that is no phone's.
    pub(super) fn connect(&mut self, listener: Listener) -> Result<ConnId, Refused> {
        self.next_port += 1;
        let conn = self
            .pcscf
            .accept(self.now, at(listener, self.next_port), listener);
        if let Ok(conn) = conn {
            self.raw.insert(conn, Vec::new());
        }
        self.settle();
        conn
    }

    pub(super) fn input(&mut self, conn: ConnId, data: &[u8]) {
        for piece in data.chunks(self.piece) {
            self.pcscf.handle_input(self.now, conn, piece);
        }
        self.settle();
    }

    /// What has come over a connection that is no phone's.
    pub(super) fn output(&mut self, conn: ConnId) -> String {
        let bytes = core::mem::take(self.raw.get_mut(&conn).unwrap());
        String::from_utf8(bytes).unwrap()
    }

    pub(super) fn closed(&mut self, conn: ConnId) -> Option<CloseCause> {
        self.events.iter().find_map(|event| match event {
            PcscfEvent::Closed {
                conn: closed,
                cause,
            } if *closed == conn => Some(cause.clone()),
            _ => None,
        })
    }

    /// Carries everything to where it goes until nothing is left.
    pub(super) fn settle(&mut self) {
        loop {
            let mut idle = true;
            for at in 0..self.phones.len() {
                idle &= self.phone_outputs(at);
            }
            idle &= self.pcscf_outputs();
            if idle {
                break;
            }
        }
        let next = self.pcscf.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now));
    }

    fn phone_outputs(&mut self, at: usize) -> bool {
        let mut idle = true;
        let mut buf = vec![0; 65_536];
        let phone = &mut self.phones[at];
        while let Some(action) = phone.ua.poll_action() {
            idle = false;
            match action {
                FlowAction::OpenFlow { flow, .. } if phone.offline => {
                    phone.ua.flow_failed(self.now, flow);
                }
                FlowAction::OpenFlow { flow, .. } => {
                    self.next_port += 1;
                    let at = super::world::at(self.listener, self.next_port);
                    let Ok(conn) = self.pcscf.accept(self.now, at, self.listener) else {
                        phone.ua.flow_failed(self.now, flow);
                        continue;
                    };
                    let client = crate::tunnel::Tls::Client {
                        config: tls().1,
                        name: ServerName::try_from(HOST).unwrap(),
                    };
                    let config = TunnelConfig {
                        tls: (self.listener == Listener::Tls).then_some(client),
                        ..TunnelConfig::default()
                    };
                    let mut tunnel = Tunnel::new(config, [9; 32], self.now).unwrap();
                    tunnel.handle_connected(self.now);
                    phone.lines.insert(flow, (conn, tunnel));
                }
                FlowAction::CloseFlow { flow } => {
                    if let Some((conn, _)) = phone.lines.remove(&flow) {
                        self.pcscf.handle_eof(self.now, conn);
                    }
                }
            }
        }
        let flows: Vec<_> = phone.lines.keys().copied().collect();
        for flow in flows {
            let (conn, tunnel) = phone.lines.get_mut(&flow).unwrap();
            let conn = *conn;
            while let Some(event) = tunnel.poll_event() {
                idle = false;
                if let TunnelEvent::Ready { .. } = event {
                    let tuple = FiveTuple {
                        transport: Transport::Tls,
                        local: SocketAddr::from(([10, 0, 0, 2], 40_000)),
                        remote: SocketAddr::from(([203, 0, 113, 40], 443)),
                    };
                    let names = vec![HOST.to_string(), DOMAIN.to_string()];
                    phone.ua.flow_opened(self.now, flow, tuple, names);
                }
            }
            while let Some(len) = phone.ua.poll_flow(flow, &mut buf) {
                assert_eq!(tunnel.write(&buf[..len]), len);
            }
            while let Some(len) = tunnel.poll_transmit(&mut buf) {
                idle = false;
                for piece in buf[..len].chunks(self.piece) {
                    self.pcscf.handle_input(self.now, conn, piece);
                }
            }
        }
        while let Some(event) = phone.ua.poll_event() {
            idle = false;
            phone.events.push(event);
        }
        idle
    }

    fn pcscf_outputs(&mut self) -> bool {
        let mut idle = true;
        let mut buf = vec![0; 65_536];
        while let Some(conn) = self.pcscf.poll_writable() {
            idle = false;
            if self.stuck.contains(&conn) {
                continue;
            }
            let size = buf.len().min(self.piece);
            while let Some(len) = self.pcscf.poll_conn(conn, &mut buf[..size]) {
                self.deliver(conn, &buf[..len]);
            }
        }
        while let Some(action) = self.pcscf.poll_action() {
            idle = false;
            self.act(action);
        }
        while let Some(sent) = self.pcscf.poll_transmit(&mut buf) {
            idle = false;
            self.datagrams.push((sent.to, buf[..sent.len].to_vec()));
        }
        while let Some(event) = self.pcscf.poll_event() {
            idle = false;
            self.events.push(event);
        }
        idle
    }

    fn deliver(&mut self, conn: ConnId, bytes: &[u8]) {
        for phone in &mut self.phones {
            let line = phone.lines.iter_mut().find(|line| line.1.0 == conn);
            if let Some((flow, (_, tunnel))) = line {
                tunnel.handle_input(self.now, bytes);
                let data = tunnel.received().to_vec();
                tunnel.consume(data.len());
                phone.ua.handle_flow_input(self.now, *flow, &data);
                return;
            }
        }
        if let Some(raw) = self.raw.get_mut(&conn) {
            raw.extend_from_slice(bytes);
        }
    }

    fn act(&mut self, action: PcscfAction) {
        match action {
            PcscfAction::Close { conn } => {
                for phone in &mut self.phones {
                    let line = phone.lines.iter().find(|line| line.1.0 == conn);
                    if let Some(flow) = line.map(|line| *line.0) {
                        phone.lines.remove(&flow);
                        phone.ua.handle_flow_closed(self.now, flow);
                    }
                }
            }
            PcscfAction::FindKey {
                ticket,
                user,
                hash,
                aor,
            } => {
                let ClaimedUser::Name(name) = user else {
                    panic!()
                };
                let answer = match &*name {
                    "alice" | "bob" => {
                        let password = std::format!("{name}-secret");
                        let ha1 = ha1(
                            hash,
                            name.as_bytes(),
                            DOMAIN.as_bytes(),
                            password.as_bytes(),
                        );
                        let own = std::format!("sip:{name}@{DOMAIN}");
                        KeyAnswer::Known {
                            ha1,
                            authorised: aor.as_str() == own,
                            exists: true,
                        }
                    }
                    _ => KeyAnswer::Unknown,
                };
                self.pcscf.key_found(self.now, ticket, &answer);
            }
            PcscfAction::FindUser { query, aor } => {
                let exists = aor.as_str().starts_with("sip:bob@");
                self.pcscf.user_found(self.now, query, exists);
            }
            action @ PcscfAction::Connect { .. } => self.actions.push(action),
        }
    }

    pub(super) fn run_for(&mut self, wait: Duration) {
        let end = self.now + wait;
        self.settle();
        loop {
            let phones = self.phones.iter().map(|phone| phone.ua.poll_timeout());
            let next = phones.chain([self.pcscf.poll_timeout()]).flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next;
            for phone in &mut self.phones {
                phone.ua.handle_timeout(next);
            }
            self.pcscf.handle_timeout(next);
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn ask(&mut self, phone: usize, method: Method, user: &str) -> RequestId {
        let mut request = NewRequest::new(method.clone(), std::format!("sip:{user}@{DOMAIN}"));
        if method == Method::INVITE {
            request = request.body("application/sdp", "v=0\r\n");
        }
        let id = self.phones[phone].ua.request(self.now, request).unwrap();
        self.settle();
        id
    }

    pub(super) fn answer(&mut self, phone: usize, id: ServerId, code: StatusCode) {
        let contact = ("Contact".into(), "<sip:here@10.0.0.2>".into());
        let ua = &mut self.phones[phone].ua;
        ua.respond(self.now, id, code, "tag", &[contact], b"")
            .unwrap();
        self.settle();
    }

    /// Rings and answers; the dialogs of caller and callee.
    pub(super) fn call(&mut self, from: usize, to: usize, user: &str) -> (Dialog, Dialog) {
        let request = self.ask(from, Method::INVITE, user);
        let (id, flow, invite) = self.phones[to].request();
        self.answer(to, id, StatusCode::RINGING);
        self.answer(to, id, StatusCode::OK);
        let callee = Dialog::callee(flow, &invite, "tag").unwrap();
        let (_, flow, response) = self.phones[from].response();
        assert_eq!(response.code(), StatusCode::OK);
        let sent = self.phones[from].ua.sent_request(request).unwrap().clone();
        let caller = Dialog::caller(flow, &sent, &response).unwrap();
        let ua = &mut self.phones[from].ua;
        ua.ack(self.now, &caller, request, &[], b"").unwrap();
        self.settle();
        assert_eq!(self.phones[to].count("Ack"), 1);
        (caller, callee)
    }
}

pub(super) fn parse(bytes: &[u8]) -> Message {
    Message::parse(bytes, &ParseConfig::default()).unwrap()
}

pub(super) fn checked(bytes: &[u8]) -> Request {
    Request::check(parse(bytes), &Limits::DEFAULT).unwrap()
}
