//! What is between two UEs. TCP takes no time, UDP ten milliseconds.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use http_connect::auth::{Credentials as ProxyCredentials, ha1};
use http_connect::{ConnectServer, ProxyAction, ProxyConfig, ProxyError, Side};
use ice_proto::{ComponentId, Role, SessionConfig, TurnServer};
use ims_traversal::access::{AccessConfig, AccessEvent};
use ims_traversal::ladder::{NetworkKey, Rung};
use ims_traversal::media::{MediaConfig, MediaEvent};
use ims_traversal::pcscf::{Listener, Pcscf, PcscfAction};
use ims_traversal::tunnel::{Tls, Tunnel, TunnelConfig, TunnelEvent};
use ims_traversal::ue::{
    CallId, CallMedia, EndCause, MAX_TRANSMIT, Network, SocketId, SocketPlace, Ue, UeAction,
    UeConfig, UeConn, UeEvent,
};
use ims_traversal::{ConnFailure, Endpoint};
use sip_outbound::wire::UriBuf;
use sip_outbound::{Account, InstanceId, Instant, KeyAnswer, UserAgentConfig, UserAgentEvent};
use stun_proto::auth::Credentials;
use stun_proto::{FiveTuple, Path, Received, StreamId, Transport};
use turn_proto::policy::Preset;
use turn_proto::server::{Action, RelayId, Server, ServerConfig, StaticUsers};

use crate::access::world::{http_proxy, judge, pcscf, proxy_config, tls};

pub const ALICE: usize = 0;
pub const BOB: usize = 1;

const TURN: [u8; 4] = [203, 0, 113, 9];
const PCSCF: [u8; 4] = [203, 0, 113, 1];
pub const USERS: [&str; 2] = ["alice", "bob"];

/// Where the UEs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing is blocked.
    Open,
    /// UDP is.
    NoUdp,
    /// Only TCP to 443 gets out.
    Only443,
    /// Only the HTTP proxy is reached.
    OnlyProxy,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::Open, Self::NoUdp, Self::Only443, Self::OnlyProxy];

    fn lets(self, port: u16) -> bool {
        match self {
            Self::Open | Self::NoUdp => port != 3128,
            Self::Only443 => port == 443,
            Self::OnlyProxy => port == 3128,
        }
    }
}

/// The other end of a TCP connection of a UE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Pcscf(ims_traversal::ConnId),
    Turn(StreamId),
}

enum Far {
    End(End),
    Proxy(Box<ConnectServer>, Option<End>),
}

struct Link {
    ue: usize,
    conn: UeConn,
    far: Far,
}

impl Link {
    fn end(&self) -> Option<End> {
        match &self.far {
            Far::End(end) => Some(*end),
            Far::Proxy(_, end) => *end,
        }
    }
}

/// One of the UEs, and what it has said.
pub struct Node {
    pub ue: Ue,
    pub events: Vec<UeEvent>,
    pub heard: Vec<(CallMedia, Vec<u8>)>,
    /// The last octet of its address.
    pub host: u8,
    pub place: Place,
}

pub struct World {
    pub now: Instant,
    pub nodes: [Node; 2],
    pub pcscf: Pcscf,
    pub turn: Server<StaticUsers>,
    proxy: Arc<ProxyConfig>,
    links: Vec<Link>,
    streams: BTreeMap<StreamId, Tunnel>,
    sockets: BTreeMap<SocketAddr, (usize, SocketId)>,
    relays: BTreeMap<SocketAddr, RelayId>,
    /// Datagrams under way: when they arrive; from, to, payload.
    flight: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    /// Bytes are handed over in pieces of this size.
    pub piece: usize,
    /// The TURN server refuses connections.
    pub turn_down: bool,
    /// The P-CSCF does.
    pub pcscf_down: bool,
    /// Datagrams that crossed a firewall.
    pub datagrams: u64,
    next: u16,
}

pub fn config(place: Place, user: usize) -> UeConfig {
    let name = USERS[user];
    let urn = format!("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccdde{user}");
    let proxies = vec![UriBuf::parse("sips:pcscf1.ims.example").unwrap()];
    let aor = UriBuf::parse(format!("sip:{name}@ims.example")).unwrap();
    let mut agent = UserAgentConfig::ims(aor, InstanceId::new(&urn).unwrap(), proxies);
    let account = format!("{name}@ims.example");
    agent.accounts = vec![Account::new(&account, "secret", "ims.example")];
    let mut access = AccessConfig::new(agent, tls(0).0);
    let (port, transport) = match place {
        Place::Open => (3478, Transport::Udp),
        Place::NoUdp => (3478, Transport::Tcp),
        Place::Only443 | Place::OnlyProxy => (443, Transport::Tls),
    };
    let mut session = SessionConfig::new(Role::Controlling);
    session.turn_servers = vec![TurnServer {
        addr: SocketAddr::from((TURN, port)),
        transport,
        credentials: Credentials::new("ue", "turn-secret"),
        server_name: Some("turn.ims.example".into()),
        family: None,
    }];
    let mut media = MediaConfig::new(session);
    media.tls = Some(tls(0).0);
    if place == Place::OnlyProxy {
        let proxy = http_proxy(Some(ProxyCredentials::new("user", "pass")));
        access.proxy = Some(proxy.clone());
        media.proxy = Some(proxy);
    }
    UeConfig::new(access, media)
}

impl World {
    pub fn with(place: Place, change: impl Fn(&mut UeConfig)) -> Self {
        let node = |user: usize| {
            let mut config = config(place, user);
            change(&mut config);
            Node {
                ue: Ue::new(config, [user as u8 + 1; 32], Instant::ZERO).unwrap(),
                events: Vec::new(),
                heard: Vec::new(),
                host: 20 + user as u8,
                place,
            }
        };
        let mut users = StaticUsers::new("turn.ims.example");
        users.add("ue", "turn-secret");
        let mut turn = ServerConfig::new("turn.ims.example");
        turn.peers.preset = Preset::Any;
        Self {
            now: Instant::ZERO,
            nodes: [node(ALICE), node(BOB)],
            pcscf: pcscf(1, 1, |_| {}),
            turn: Server::new(turn, users, [8; 32], Instant::ZERO).unwrap(),
            proxy: Arc::new(proxy_config()),
            links: Vec::new(),
            streams: BTreeMap::new(),
            sockets: BTreeMap::new(),
            relays: BTreeMap::new(),
            flight: BTreeMap::new(),
            piece: 4096,
            turn_down: false,
            pcscf_down: false,
            datagrams: 0,
            next: 40_000,
        }
    }

    /// The HTTP proxy is asked without credentials at first.
    pub fn without_credentials(config: &mut UeConfig) {
        let proxy = http_proxy(None);
        config.access.proxy = Some(proxy.clone());
        config.media.proxy = Some(proxy);
    }

    /// Both UEs are registered.
    pub fn registered(place: Place, change: impl Fn(&mut UeConfig)) -> Self {
        let mut world = Self::with(place, change);
        for user in [ALICE, BOB] {
            world.start(user);
        }
        assert!(world.run(60, |w| w.pcscf.binding_count() == 2));
        world
    }

    pub fn start(&mut self, user: usize) {
        let network = self.network(user, 1);
        let now = self.now;
        self.nodes[user].ue.start(now, network);
        self.settle();
    }

    pub fn network(&self, user: usize, key: u64) -> Network {
        let address = SocketAddr::from(([192, 168, 1, self.nodes[user].host], 0)).ip();
        Network::new(NetworkKey(key), vec![address])
    }

    fn port(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    /// Carries everything to where it goes until nothing is left.
    pub fn settle(&mut self) {
        loop {
            let mut busy = false;
            for user in [ALICE, BOB] {
                busy |= self.run_ue(user);
            }
            busy |= self.run_pcscf();
            busy |= self.run_turn();
            busy |= self.run_proxies();
            if !busy {
                break;
            }
        }
        for node in &self.nodes {
            let next = node.ue.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "{next:?}");
        }
    }

    fn run_ue(&mut self, user: usize) -> bool {
        let mut busy = false;
        let mut buf = vec![0; MAX_TRANSMIT];
        while let Some(sent) = self.nodes[user].ue.poll_transmit(&mut buf) {
            busy = true;
            self.send(user, sent.to, buf[..sent.len].to_vec());
        }
        let writable: Vec<_> = self.nodes[user].ue.writable().collect();
        for conn in writable {
            let most = self.piece;
            while let Some(len) = self.nodes[user].ue.poll_conn(conn, &mut buf[..most]) {
                busy = true;
                self.ue_sent(user, conn, &buf[..len]);
            }
        }
        while let Some(action) = self.nodes[user].ue.poll_action() {
            busy = true;
            self.obey(user, action);
        }
        while let Some(event) = self.nodes[user].ue.poll_event() {
            busy = true;
            self.nodes[user].events.push(event);
        }
        busy
    }

    /// A datagram of a UE, if its firewall lets it out.
    fn send(&mut self, user: usize, at: FiveTuple, data: Vec<u8>) {
        if self.nodes[user].place == Place::Open {
            self.datagrams += 1;
            self.fly(at.local, at.remote, data);
        }
    }

    fn fly(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        let arrives = self.now + Duration::from_millis(10);
        let order = self.flight.len() as u64 + 1_000_000 * u64::from(self.next);
        self.flight.insert((arrives, order), (from, to, data));
        self.next = self.next.wrapping_add(1).max(40_000);
    }

    fn obey(&mut self, user: usize, action: UeAction) {
        let now = self.now;
        match action {
            UeAction::Connect { conn, to } => self.connect(user, conn, &to),
            UeAction::Close { conn } => {
                // First everything out.
                let mut buf = [0; 4096];
                while let Some(len) = self.nodes[user].ue.poll_conn(conn, &mut buf) {
                    self.ue_sent(user, conn, &buf[..len]);
                }
                self.drop_link(user, conn);
            }
            UeAction::OpenSocket { socket, place } => {
                let SocketPlace::Address(ip) = place else {
                    panic!("{place:?}");
                };
                let local = SocketAddr::new(ip, self.port());
                self.sockets.insert(local, (user, socket));
                self.nodes[user].ue.socket_opened(now, socket, local, None);
            }
            UeAction::CloseSocket { socket } => {
                self.sockets.retain(|_, known| *known != (user, socket));
            }
            UeAction::OpenTunnel { .. } => panic!("{action:?}"),
        }
    }

    fn connect(&mut self, user: usize, conn: UeConn, to: &Endpoint) {
        // What is not let out vanishes.
        if !self.nodes[user].place.lets(to.port()) {
            return;
        }
        let down = match conn {
            UeConn::Control(_) => self.pcscf_down,
            UeConn::Media(..) => self.turn_down,
        };
        if down {
            let refused = ConnFailure::Refused;
            let ue = &mut self.nodes[user].ue;
            return ue.connection_failed(self.now, conn, refused);
        }
        let host = self.nodes[user].host;
        let local = SocketAddr::from(([192, 168, 1, host], self.port()));
        let (far, remote) = if to.port() == 3128 {
            let server = ConnectServer::new(self.proxy.clone(), [5; 32], self.now).unwrap();
            let remote = SocketAddr::from(([192, 168, 1, 1], 3128));
            (Far::Proxy(Box::new(server), None), remote)
        } else {
            let ip = match to {
                Endpoint::Name { .. } => PCSCF,
                Endpoint::Addr(_) => TURN,
            };
            let remote = SocketAddr::from((ip, to.port()));
            (Far::End(self.accept(local, remote)), remote)
        };
        let ue = user;
        self.links.push(Link { ue, conn, far });
        self.nodes[user].ue.connected(self.now, conn, local, remote);
    }

    /// A server takes a connection.
    fn accept(&mut self, from: SocketAddr, to: SocketAddr) -> End {
        let at = FiveTuple {
            transport: Transport::Tls,
            local: to,
            remote: from,
        };
        if to.ip() == SocketAddr::from((PCSCF, 0)).ip() {
            return End::Pcscf(self.pcscf.accept(self.now, at, Listener::Tls).unwrap());
        }
        let id = StreamId(u64::from(self.port()));
        let secure = to.port() == 443;
        let config = TunnelConfig {
            tls: secure.then(|| Tls::Server { config: tls(4).1 }),
            ..TunnelConfig::default()
        };
        let mut tunnel = Tunnel::new(config, [3; 32], self.now).unwrap();
        tunnel.handle_connected(self.now);
        self.streams.insert(id, tunnel);
        let transport = if secure {
            Transport::Tls
        } else {
            Transport::Tcp
        };
        let at = FiveTuple { transport, ..at };
        self.turn.stream_opened(self.now, id, at).unwrap();
        End::Turn(id)
    }

    fn link(&self, user: usize, conn: UeConn) -> Option<usize> {
        let mut links = self.links.iter();
        links.position(|link| (link.ue, link.conn) == (user, conn))
    }

    /// The UE's side of a connection is gone.
    fn drop_link(&mut self, user: usize, conn: UeConn) {
        if let Some(at) = self.link(user, conn) {
            let link = self.links.remove(at);
            if let Some(end) = link.end() {
                self.end_gone(end);
            }
        }
    }

    fn end_gone(&mut self, end: End) {
        match end {
            End::Pcscf(conn) => self.pcscf.handle_eof(self.now, conn),
            End::Turn(id) => {
                self.streams.remove(&id);
                self.turn.handle_stream_closed(self.now, id);
            }
        }
    }

    /// Cuts connections of a UE in both directions; how many.
    pub fn cut(&mut self, user: usize, which: impl Fn(UeConn) -> bool) -> usize {
        let links = self.links.iter().filter(|link| link.ue == user);
        let cut: Vec<_> = links.map(|link| link.conn).filter(|c| which(*c)).collect();
        for conn in &cut {
            self.drop_link(user, *conn);
            let now = self.now;
            let ue = &mut self.nodes[user].ue;
            ue.connection_failed(now, *conn, ConnFailure::Reset);
        }
        self.settle();
        cut.len()
    }

    fn ue_sent(&mut self, user: usize, conn: UeConn, bytes: &[u8]) {
        let now = self.now;
        let Some(at) = self.link(user, conn) else {
            return;
        };
        let (end, bytes) = match &mut self.links[at].far {
            Far::End(end) => (Some(*end), bytes.to_vec()),
            Far::Proxy(server, end) => {
                let taken = server.handle_input(now, Side::Client, bytes);
                assert_eq!(taken.len, bytes.len());
                (*end, taken.forward.to_vec())
            }
        };
        if let Some(end) = end {
            self.end_gets(end, &bytes);
        }
    }

    fn end_gets(&mut self, end: End, bytes: &[u8]) {
        let now = self.now;
        match end {
            End::Pcscf(conn) => self.pcscf.handle_input(now, conn, bytes),
            End::Turn(id) => {
                let mut out = Vec::new();
                let Some(tunnel) = self.streams.get_mut(&id) else {
                    return;
                };
                tunnel.handle_input(now, bytes);
                let clear = tunnel.received().to_vec();
                tunnel.consume(clear.len());
                let mut input = &clear[..];
                while !input.is_empty() {
                    let received = self.turn.handle_stream(now, id, &mut input);
                    if let Received::Data { peer, data } = received {
                        out.push((peer.relay, peer.peer, data.to_vec()));
                    }
                }
                for (relay, peer, data) in out {
                    self.relay_sent(relay, peer, data);
                }
            }
        }
    }

    /// A client's data leave the relay.
    fn relay_sent(&mut self, relay: RelayId, peer: SocketAddr, data: Vec<u8>) {
        let found = self.relays.iter().find(|(_, id)| **id == relay);
        if let Some((&from, _)) = found {
            self.fly(from, peer, data);
        }
    }

    fn end_sent(&mut self, end: End, bytes: &[u8]) {
        let now = self.now;
        let Some(at) = self.links.iter().position(|l| l.end() == Some(end)) else {
            return;
        };
        let (user, conn) = (self.links[at].ue, self.links[at].conn);
        let bytes = match &mut self.links[at].far {
            Far::End(_) => bytes.to_vec(),
            Far::Proxy(server, _) => {
                let taken = server.handle_input(now, Side::Upstream, bytes);
                assert_eq!(taken.len, bytes.len());
                taken.forward.to_vec()
            }
        };
        self.input(user, conn, &bytes);
    }

    fn input(&mut self, user: usize, conn: UeConn, bytes: &[u8]) {
        let (now, node) = (self.now, &mut self.nodes[user]);
        for piece in bytes.chunks(self.piece) {
            node.ue.handle_input(now, conn, piece);
            while let Some(received) = node.ue.poll_received(now) {
                if let Received::Data { peer, data } = received {
                    node.heard.push((peer, data.to_vec()));
                }
            }
        }
    }

    fn run_pcscf(&mut self) -> bool {
        let mut busy = false;
        let mut buf = vec![0; 4096];
        while let Some(conn) = self.pcscf.poll_writable() {
            while let Some(len) = self.pcscf.poll_conn(conn, &mut buf) {
                busy = true;
                self.end_sent(End::Pcscf(conn), &buf[..len]);
            }
        }
        while let Some(action) = self.pcscf.poll_action() {
            busy = true;
            match action {
                PcscfAction::Close { conn } => self.end_closed(End::Pcscf(conn)),
                PcscfAction::FindKey {
                    ticket, hash, aor, ..
                } => {
                    let user = aor.as_str().trim_start_matches("sip:");
                    let ha1 = ha1(hash, user.as_bytes(), b"ims.example", b"secret");
                    let answer = KeyAnswer::Known {
                        ha1,
                        authorised: true,
                        exists: true,
                    };
                    self.pcscf.key_found(self.now, ticket, &answer);
                }
                PcscfAction::FindUser { query, .. } => {
                    self.pcscf.user_found(self.now, query, true);
                }
                other => panic!("{other:?}"),
            }
        }
        while self.pcscf.poll_event().is_some() {}
        busy
    }

    /// A server has closed a connection.
    fn end_closed(&mut self, end: End) {
        let Some(at) = self.links.iter().position(|l| l.end() == Some(end)) else {
            return;
        };
        let (now, user, conn) = (self.now, self.links[at].ue, self.links[at].conn);
        match &mut self.links[at].far {
            Far::End(_) => {
                self.links.remove(at);
                self.nodes[user].ue.handle_eof(now, conn);
            }
            Far::Proxy(server, end) => {
                *end = None;
                server.handle_eof(now, Side::Upstream);
            }
        }
    }

    fn run_turn(&mut self) -> bool {
        let mut busy = false;
        let mut buf = vec![0; 4096];
        while let Some(sent) = self.turn.poll_transmit(&mut buf) {
            busy = true;
            self.turn_sent(sent.to, &buf[..sent.len]);
        }
        while let Some(action) = self.turn.poll_action() {
            busy = true;
            match action {
                Action::OpenRelay { relay, .. } => {
                    let at = SocketAddr::from((TURN, self.port()));
                    self.relays.insert(at, relay);
                    self.turn.relay_opened(self.now, relay, at);
                }
                Action::CloseRelay { relay } => self.relays.retain(|_, id| *id != relay),
                Action::CloseStream { id, .. } => {
                    self.streams.remove(&id);
                    self.end_closed(End::Turn(id));
                }
                other => panic!("{other:?}"),
            }
        }
        while self.turn.poll_event().is_some() {}
        let ids: Vec<_> = self.streams.keys().copied().collect();
        for id in ids {
            while let Some(tunnel) = self.streams.get_mut(&id) {
                while let Some(event) = tunnel.poll_event() {
                    let fine = matches!(event, TunnelEvent::Ready { .. } | TunnelEvent::Closed);
                    assert!(fine, "{event:?}");
                }
                let Some(len) = tunnel.poll_transmit(&mut buf) else {
                    break;
                };
                busy = true;
                self.end_sent(End::Turn(id), &buf[..len]);
            }
        }
        busy
    }

    fn turn_sent(&mut self, to: Path, bytes: &[u8]) {
        match to {
            Path::Datagram(at) => self.fly(at.local, at.remote, bytes.to_vec()),
            Path::Stream(id) => {
                if let Some(tunnel) = self.streams.get_mut(&id) {
                    assert_eq!(tunnel.write(bytes), bytes.len());
                }
            }
        }
    }

    fn run_proxies(&mut self) -> bool {
        let links = self.links.iter();
        let all: Vec<_> = links.map(|link| (link.ue, link.conn)).collect();
        let mut busy = false;
        for (user, conn) in all {
            while self.run_proxy(user, conn) {
                busy = true;
            }
        }
        busy
    }

    fn run_proxy(&mut self, user: usize, conn: UeConn) -> bool {
        let (now, mut buf) = (self.now, vec![0; 4096]);
        let Some(at) = self.link(user, conn) else {
            return false;
        };
        let Far::Proxy(server, end) = &mut self.links[at].far else {
            return false;
        };
        while server.poll_event().is_some() {}
        if let Some(len) = server.poll_transmit(Side::Client, &mut buf) {
            self.input(user, conn, &buf[..len]);
            return true;
        }
        if let Some(len) = server.poll_transmit(Side::Upstream, &mut buf) {
            if let Some(end) = *end {
                self.end_gets(end, &buf[..len]);
            }
            return true;
        }
        match server.poll_action() {
            None => return false,
            Some(ProxyAction::CheckAuth { ticket, check }) => {
                server.handle_auth(now, ticket, judge(check.authorization()));
            }
            Some(ProxyAction::Resolve { ticket, .. }) => {
                let ip = SocketAddr::from((PCSCF, 0)).ip();
                server.handle_resolved(now, ticket, &[ip]);
            }
            Some(ProxyAction::Connect { ticket, address }) => {
                if address.port() != 443 {
                    server.handle_failure(now, ticket, ProxyError::ConnectionRefused);
                    return true;
                }
                let from = SocketAddr::from(([203, 0, 113, 99], 1024));
                let accepted = self.accept(from, address);
                if let Far::Proxy(server, end) = &mut self.links[at].far {
                    *end = Some(accepted);
                    server.handle_connected(now, ticket);
                }
            }
            Some(ProxyAction::Close(Side::Upstream)) => {
                if let Some(end) = end.take() {
                    self.end_gone(end);
                }
            }
            Some(ProxyAction::Close(Side::Client)) => {
                self.links.remove(at);
                self.nodes[user].ue.handle_eof(now, conn);
            }
            Some(ProxyAction::CloseWrite(Side::Client)) => {
                self.nodes[user].ue.handle_eof(now, conn);
            }
            Some(other) => panic!("{other:?}"),
        }
        true
    }

    /// A datagram arrives.
    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let now = self.now;
        let at = FiveTuple::udp(to, from);
        if let Some(&(user, _)) = self.sockets.get(&to) {
            let node = &mut self.nodes[user];
            // What a firewall blocks on the way out it blocks on the way in.
            if node.place == Place::Open
                && let Received::Data { peer, data } = node.ue.handle_datagram(now, at, data)
            {
                node.heard.push((peer, data.to_vec()));
            }
        } else if let Some(&relay) = self.relays.get(&to) {
            let mut buf = vec![0; 4096];
            if let Some(sent) = self.turn.forward(now, relay, from, data, &mut buf) {
                self.turn_sent(sent.to, &buf[..sent.len]);
            }
        } else if to == SocketAddr::from((TURN, 3478))
            && let Received::Data { peer, data } = self.turn.handle_datagram(now, at, data)
        {
            self.relay_sent(peer.relay, peer.peer, data.to_vec());
        }
    }

    fn next(&self) -> Option<Instant> {
        let ues = self.nodes.iter().map(|node| node.ue.poll_timeout());
        let proxies = self.links.iter().map(|link| match &link.far {
            Far::Proxy(server, _) => server.poll_timeout(),
            Far::End(_) => None,
        });
        let flight = self.flight.first_key_value().map(|((at, _), _)| *at);
        ues.chain(proxies)
            .chain([self.pcscf.poll_timeout(), self.turn.poll_timeout(), flight])
            .flatten()
            .min()
    }

    /// Lets time pass until `done`, for `seconds` at most; whether it came to that.
    pub fn run(&mut self, seconds: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_secs(seconds);
        self.settle();
        while !done(self) {
            let Some(next) = self.next().filter(|next| *next <= end) else {
                self.now = end;
                return done(self);
            };
            let now = self.now.max(next);
            self.now = now;
            while let Some(entry) = self.flight.first_entry().filter(|e| e.key().0 <= now) {
                let (from, to, data) = entry.remove();
                self.arrive(from, to, &data);
            }
            for node in &mut self.nodes {
                node.ue.handle_timeout(now);
            }
            self.pcscf.handle_timeout(now);
            self.turn.handle_timeout(now);
            for link in &mut self.links {
                if let Far::Proxy(server, _) = &mut link.far {
                    server.handle_timeout(now);
                }
            }
            self.settle();
        }
        true
    }

    pub fn run_for(&mut self, seconds: u64) {
        self.run(seconds, |_| false);
    }

    /// Alice calls Bob, who answers; until both have a way for the media. The calls' numbers.
    pub fn call(&mut self) -> [CallId; 2] {
        let now = self.now;
        let hers = self.nodes[ALICE].ue.call(now, "sip:bob@ims.example");
        let hers = hers.unwrap();
        assert!(self.run(30, |w| w.incoming(BOB).is_some()));
        let his = self.incoming(BOB).unwrap();
        let now = self.now;
        self.nodes[BOB].ue.answer(now, his).unwrap();
        assert!(
            self.run(30, |w| w.ways(ALICE) == 1 && w.ways(BOB) == 1),
            "{:?}",
            self.nodes.each_ref().map(|node| &node.events)
        );
        [hers, his]
    }

    pub fn incoming(&self, user: usize) -> Option<CallId> {
        let mut events = self.nodes[user].events.iter().rev();
        events.find_map(|event| match event {
            UeEvent::Incoming { call, .. } => Some(*call),
            _ => None,
        })
    }

    /// How often media found a way.
    pub fn ways(&self, user: usize) -> usize {
        let found = |event: &&UeEvent| match event {
            UeEvent::Media { event, .. } => **event == MediaEvent::Completed,
            _ => false,
        };
        self.nodes[user].events.iter().filter(found).count()
    }

    /// The kinds of the candidates in use, and how the relay is reached.
    pub fn pair(&self, user: usize) -> String {
        let mut events = self.nodes[user].events.iter().rev();
        let found = events.find_map(|event| match event {
            UeEvent::Media { event, .. } => match &**event {
                MediaEvent::Selected {
                    local,
                    remote,
                    relay,
                    ..
                } => Some(match relay {
                    None => format!("{} {}", local.kind, remote.kind),
                    Some(leg) => {
                        let proxy = if leg.via_proxy { " by proxy" } else { "" };
                        format!("{} {} {}{proxy}", local.kind, remote.kind, leg.transport)
                    }
                }),
                _ => None,
            },
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The way by which the P-CSCF is reached.
    pub fn rung(&self, user: usize) -> Option<Rung> {
        let mut events = self.nodes[user].events.iter().rev();
        events.find_map(|event| match event {
            UeEvent::Access(event) => match **event {
                AccessEvent::Ready { rung, .. } => Some(rung),
                _ => None,
            },
            _ => None,
        })
    }

    pub fn registrations(&self, user: usize) -> usize {
        let registered = |event: &&UeEvent| {
            matches!(event, UeEvent::Access(event)
                if matches!(**event, AccessEvent::Agent(UserAgentEvent::Registered { .. })))
        };
        self.nodes[user].events.iter().filter(registered).count()
    }

    pub fn ended(&self, user: usize) -> Option<EndCause> {
        let mut events = self.nodes[user].events.iter();
        events.find_map(|event| match event {
            UeEvent::Ended { cause, .. } => Some(cause.clone()),
            _ => None,
        })
    }

    /// Sends media; whether there was a way.
    pub fn say(&mut self, user: usize, call: CallId, words: &[u8]) -> bool {
        let component = ComponentId {
            stream: 0,
            component: 1,
        };
        let to = CallMedia { call, component };
        let (now, mut buf) = (self.now, [0; 2048]);
        match self.nodes[user].ue.send(now, to, words, &mut buf) {
            Ok(Some(sent)) => self.send(user, sent.to, buf[..sent.len].to_vec()),
            Ok(None) => {}
            Err(_) => return false,
        }
        self.settle();
        true
    }

    /// Media cross in both directions.
    pub fn assert_talk(&mut self, calls: [CallId; 2]) {
        for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
            self.nodes[to].heard.clear();
            assert!(self.say(from, calls[from], b"\x80\x00hello"), "no way");
            let call = calls[to];
            assert!(self.run(1, |w| {
                w.nodes[to]
                    .heard
                    .iter()
                    .any(|(media, data)| media.call == call && data == b"\x80\x00hello")
            }));
        }
    }

    /// Both UEs stop, and leave nothing behind.
    pub fn stop(&mut self) {
        let now = self.now;
        for node in &mut self.nodes {
            node.ue.stop(now);
        }
        let stopped = |node: &Node| matches!(node.events.last(), Some(UeEvent::Stopped));
        assert!(self.run(20, |w| w.nodes.iter().all(stopped)));
        self.run_for(30);
        assert!(self.nodes.iter().all(stopped));
        assert!(self.nodes.iter().all(|n| n.ue.poll_timeout().is_none()));
        assert_eq!(
            (self.turn.allocations(), self.pcscf.binding_count()),
            (0, 0)
        );
        assert!(self.links.is_empty() && self.sockets.is_empty());
    }
}
