//! Two media machines, a TURN server on UDP, TCP and TLS, an HTTP proxy in front of it, and hosts
//! that know no ICE.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use http_connect::{AuthVerdict, ConnectServer, ProxyAction, ProxyConfig, ProxyError, Side};
use rustls::{ClientConfig, ServerConfig};
use turn_proto::policy::Preset;
use turn_proto::server::{self, RelayTo, Server, StaticUsers};

use super::*;
use crate::test_tls::self_signed;
use crate::tunnel::{Tls, Tunnel, TunnelConfig, TunnelEvent};

pub(super) const TURN: &str = "198.51.100.9:3478";
pub(super) const TURN_TCP: &str = "198.51.100.9:80";
pub(super) const TURN_TLS: &str = "198.51.100.9:443";
pub(super) const PROXY: &str = "10.0.0.254:3128";
const DELAY: Duration = Duration::from_millis(10);

/// TLS for a server of this name, and for those who trust it.
pub(super) fn tls_configs(name: &str) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (client, server) = self_signed(&[name]);
    (Arc::new(client), Arc::new(server))
}

/// The server's end of a stream: perhaps TLS, then TURN.
struct Served {
    id: StreamId,
    tunnel: Tunnel,
}

/// What a machine's TCP connection leads to.
enum Far {
    Served(Served),
    Proxy(Box<ConnectServer>, Option<Served>),
}

pub(super) struct Node {
    pub(super) media: Media,
    pub(super) events: Vec<MediaEvent>,
    pub(super) data: Vec<(ComponentId, Vec<u8>)>,
    pub(super) sockets: Vec<SocketAddr>,
    pub(super) udp_blocked: bool,
    /// How TCP connections to these addresses fail.
    pub(super) refuses: BTreeMap<String, ConnFailure>,
    /// The host does not write what is to go into connections.
    pub(super) stuck: bool,
    pub(super) connects: Vec<String>,
    pub(super) closed: usize,
    conns: BTreeMap<ConnId, Far>,
}

impl Node {
    pub(super) fn is_told(&self, event: &MediaEvent) -> bool {
        self.events.contains(event)
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pub(super) server: Server<StaticUsers>,
    /// What hosts without ICE got: from, to, what.
    pub(super) plain: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Streams are cut into pieces of so many bytes.
    pub(super) cut: usize,
    /// Nothing comes back from here on: `connect`, `input`, or `upstream` of the proxy.
    pub(super) mute: Option<String>,
    /// `user:pass` the proxy wants, base64.
    pub(super) password: Option<&'static str>,
    tls: Arc<ServerConfig>,
    relays: BTreeMap<u16, server::RelayId>,
    wire: Vec<(Instant, SocketAddr, SocketAddr, Vec<u8>)>,
    next_stream: u64,
}

impl World {
    pub(super) fn new(tls: Arc<ServerConfig>) -> Self {
        let mut users = StaticUsers::new("example.org");
        users.add("George", "wilma-6.7");
        let mut config = server::ServerConfig::new("example.org");
        config.peers.preset = Preset::Any;
        Self {
            now: Instant::ZERO,
            nodes: Vec::new(),
            server: Server::new(config, users, [9; 32], Instant::ZERO).unwrap(),
            plain: Vec::new(),
            cut: 100_000,
            mute: None,
            password: None,
            tls,
            relays: BTreeMap::new(),
            wire: Vec::new(),
            next_stream: 0,
        }
    }

    pub(super) fn add(&mut self, mut media: Media, hosts: &[(ComponentId, &str)]) -> usize {
        for (component, at) in hosts {
            media.add_host(self.now, *component, addr(at)).unwrap();
        }
        self.nodes.push(Node {
            media,
            events: Vec::new(),
            data: Vec::new(),
            sockets: hosts.iter().map(|(_, at)| addr(at)).collect(),
            udp_blocked: false,
            refuses: BTreeMap::new(),
            stuck: false,
            connects: Vec::new(),
            closed: 0,
            conns: BTreeMap::new(),
        });
        self.nodes.len() - 1
    }

    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        self.settle();
        loop {
            let arrivals = self.wire.iter().map(|(at, ..)| *at);
            let media = self.nodes.iter().filter_map(|n| n.media.poll_timeout());
            let all = arrivals.chain(media).chain(self.server.poll_timeout());
            let Some(next) = all.min().filter(|at| *at <= end) else {
                break;
            };
            self.now = next.max(self.now);
            while let Some(index) = self.wire.iter().position(|(at, ..)| *at <= next) {
                let (_, from, to, bytes) = self.wire.remove(index);
                self.deliver(from, to, &bytes);
            }
            self.server.handle_timeout(next);
            for node in &mut self.nodes {
                node.media.handle_timeout(next);
            }
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.wire.push((self.now + DELAY, from, to, bytes.to_vec()));
    }

    pub(super) fn send(&mut self, node: usize, component: ComponentId, payload: &[u8]) -> bool {
        let mut buf = [0; 2048];
        let side = &mut self.nodes[node];
        match side.media.send(self.now, component, payload, &mut buf) {
            Ok(Some(sent)) => {
                assert!(!side.udp_blocked, "UDP does not get through");
                self.datagram(sent.to.local, sent.to.remote, &buf[..sent.len]);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if to == addr(TURN) {
            let at = FiveTuple::udp(to, from);
            let received = self.server.handle_datagram(self.now, at, bytes);
            if let Received::Data { peer, data } = received {
                let data = data.to_vec();
                self.relayed(peer, &data);
            }
        } else if to.ip() == addr(TURN).ip() {
            let Some(relay) = self.relays.get(&to.port()).copied() else {
                return;
            };
            let mut buf = [0; 4096];
            let sent = self.server.forward(self.now, relay, from, bytes, &mut buf);
            if let Some(sent) = sent {
                let bytes = buf[..sent.len].to_vec();
                self.serve(sent.to, &bytes);
            }
        } else if let Some(node) = self.nodes.iter_mut().find(|n| n.sockets.contains(&to)) {
            if node.udp_blocked {
                return;
            }
            let at = FiveTuple::udp(to, from);
            let received = node.media.handle_datagram(self.now, at, bytes);
            if let Received::Data { peer, data } = received {
                node.data.push((peer, data.to_vec()));
            }
        } else {
            self.plain.push((from, to, bytes.to_vec()));
        }
    }

    /// A client has the server send something from a relay.
    fn relayed(&mut self, to: RelayTo, data: &[u8]) {
        let port = self.relays.iter().find(|(_, relay)| **relay == to.relay);
        if let Some((port, _)) = port {
            let from = SocketAddr::new(addr(TURN).ip(), *port);
            self.datagram(from, to.peer, data);
        }
    }

    /// The server sends something to a client.
    fn serve(&mut self, to: Path, bytes: &[u8]) {
        match to {
            Path::Datagram(at) => self.datagram(at.local, at.remote, bytes),
            Path::Stream(id) => {
                let fars = self.nodes.iter_mut().flat_map(|n| n.conns.values_mut());
                let served = fars.filter_map(Far::served).find(|s| s.id == id);
                if let Some(served) = served {
                    assert_eq!(served.tunnel.write(bytes), bytes.len());
                }
            }
        }
    }

    /// Moves everything that can be moved now.
    fn settle(&mut self) {
        loop {
            let mut moved = self.settle_server();
            for index in 0..self.nodes.len() {
                moved |= self.settle_node(index);
                let conns: Vec<ConnId> = self.nodes[index].conns.keys().copied().collect();
                for conn in conns {
                    moved |= self.settle_conn(index, conn);
                }
            }
            if !moved {
                break;
            }
        }
        for node in &self.nodes {
            let timeout = node.media.poll_timeout();
            assert!(timeout.is_none_or(|at| at > self.now), "{timeout:?}");
        }
    }

    fn settle_server(&mut self) -> bool {
        let (mut moved, mut buf) = (false, [0; server::MAX_TRANSMIT]);
        while let Some(sent) = self.server.poll_transmit(&mut buf) {
            moved = true;
            let bytes = buf[..sent.len].to_vec();
            self.serve(sent.to, &bytes);
        }
        while let Some(action) = self.server.poll_action() {
            moved = true;
            match action {
                server::Action::OpenRelay { relay, port, .. } => {
                    self.relays.insert(port, relay);
                    let relayed = SocketAddr::new(addr(TURN).ip(), port);
                    self.server.relay_opened(self.now, relay, relayed);
                }
                server::Action::CloseRelay { relay } => {
                    self.relays.retain(|_, known| *known != relay);
                }
                other => panic!("{other:?}"),
            }
        }
        while self.server.poll_event().is_some() {}
        moved
    }

    fn settle_node(&mut self, index: usize) -> bool {
        let (mut moved, mut buf) = (false, [0; MAX_TRANSMIT]);
        let now = self.now;
        while let Some(sent) = self.nodes[index].media.poll_transmit(&mut buf) {
            moved = true;
            if !self.nodes[index].udp_blocked {
                let bytes = buf[..sent.len].to_vec();
                self.datagram(sent.to.local, sent.to.remote, &bytes);
            }
        }
        while let Some(action) = self.nodes[index].media.poll_action() {
            moved = true;
            let mute = self.is_mute("connect");
            let node = &mut self.nodes[index];
            match action {
                MediaAction::Connect { conn, to } => {
                    let to = alloc::string::ToString::to_string(&to);
                    node.connects.push(to.clone());
                    match node.refuses.get(&to) {
                        Some(failure) => node.media.connection_failed(now, conn, *failure),
                        None if mute => {}
                        None => self.connect(index, conn, &to),
                    }
                }
                MediaAction::Close { conn } => {
                    node.closed += 1;
                    // What is left is written first.
                    while self.settle_conn(index, conn) {}
                    if let Some(mut far) = self.nodes[index].conns.remove(&conn)
                        && let Some(served) = far.served()
                    {
                        self.server.handle_stream_closed(now, served.id);
                    }
                }
                MediaAction::OpenSocket { .. } | MediaAction::CloseSocket { .. } => {}
            }
        }
        let node = &mut self.nodes[index];
        while let Some(event) = node.media.poll_event() {
            moved = true;
            node.events.push(event);
        }
        moved
    }

    fn is_mute(&self, where_: &str) -> bool {
        self.mute.as_deref() == Some(where_)
    }

    fn connect(&mut self, index: usize, conn: ConnId, to: &str) {
        let far = if to == PROXY {
            let mut config = ProxyConfig {
                authenticate: self.password.is_some(),
                ..ProxyConfig::new("p")
            };
            let turn = http_connect::Prefix::new(addr(TURN).ip(), 24);
            config.addresses.allowed.push(turn);
            let proxy = ConnectServer::new(Arc::new(config), [4; 32], self.now).unwrap();
            Far::Proxy(Box::new(proxy), None)
        } else {
            Far::Served(self.accept(to))
        };
        let node = &mut self.nodes[index];
        node.conns.insert(conn, far);
        let local = addr("10.0.0.1:40000");
        node.media.connected(self.now, conn, local, addr(PROXY));
    }

    /// The server accepts a stream.
    fn accept(&mut self, to: &str) -> Served {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let tls = (to == TURN_TLS).then(|| Tls::Server {
            config: self.tls.clone(),
        });
        let transport = match tls {
            Some(_) => Transport::Tls,
            None => Transport::Tcp,
        };
        let config = TunnelConfig {
            tls,
            ..TunnelConfig::default()
        };
        let mut tunnel = Tunnel::new(config, [5; 32], self.now).unwrap();
        tunnel.handle_connected(self.now);
        let remote = SocketAddr::new(addr("192.0.2.200:1").ip(), 20_000 + id.0 as u16);
        let at = FiveTuple {
            local: addr(to),
            remote,
            transport,
        };
        self.server.stream_opened(self.now, id, at).unwrap();
        Served { id, tunnel }
    }

    /// Moves bytes of one connection both ways.
    fn settle_conn(&mut self, index: usize, conn: ConnId) -> bool {
        let Some(mut far) = self.nodes[index].conns.remove(&conn) else {
            return false;
        };
        let (mut moved, mut buf) = (false, vec![0; self.cut.min(4096)]);
        let node = &mut self.nodes[index];
        while !node.stuck
            && let Some(len) = node.media.poll_conn(conn, &mut buf)
        {
            moved = true;
            if self.mute.as_deref() == Some("input") {
                continue;
            }
            match &mut far {
                Far::Served(served) => served.tunnel.handle_input(self.now, &buf[..len]),
                Far::Proxy(proxy, upstream) => {
                    let taken = proxy.handle_input(self.now, Side::Client, &buf[..len]);
                    assert_eq!(taken.len, len);
                    if let Some(upstream) = upstream {
                        upstream.tunnel.handle_input(self.now, taken.forward);
                    }
                }
            }
        }
        let mut back = Vec::new();
        let mut eof = false;
        if let Far::Proxy(proxy, upstream) = &mut far {
            eof = self.settle_proxy(proxy, upstream, &mut back);
        }
        let mute = matches!(far, Far::Proxy(..)) && self.is_mute("upstream");
        if let Some(served) = far.served() {
            self.settle_served(served);
            let mut out = Vec::new();
            while !mute && let Some(len) = served.tunnel.poll_transmit(&mut buf) {
                out.extend_from_slice(&buf[..len]);
            }
            match &mut far {
                Far::Served(_) => back.extend(out),
                Far::Proxy(proxy, _) => {
                    let taken = proxy.handle_input(self.now, Side::Upstream, &out);
                    back.extend_from_slice(taken.forward);
                }
            }
        }
        moved |= !back.is_empty();
        let node = &mut self.nodes[index];
        for piece in back.chunks(self.cut) {
            node.media.handle_input(self.now, conn, piece);
            node.take(self.now);
        }
        if eof {
            moved = true;
            node.media.handle_eof(self.now, conn);
            node.take(self.now);
        } else {
            node.conns.insert(conn, far);
        }
        moved
    }

    /// The proxy at work; whether it has closed.
    fn settle_proxy(
        &mut self,
        proxy: &mut ConnectServer,
        upstream: &mut Option<Served>,
        back: &mut Vec<u8>,
    ) -> bool {
        let (now, mut buf, mut closed) = (self.now, [0; 4096], false);
        loop {
            while let Some(len) = proxy.poll_transmit(Side::Client, &mut buf) {
                back.extend_from_slice(&buf[..len]);
            }
            while let Some(len) = proxy.poll_transmit(Side::Upstream, &mut buf) {
                if let Some(upstream) = upstream {
                    upstream.tunnel.handle_input(now, &buf[..len]);
                }
            }
            match proxy.poll_action() {
                None => return closed,
                Some(ProxyAction::CheckAuth { ticket, check }) => {
                    let right = self.password.map(|pass| format!("Basic {pass}"));
                    let verdict = if check.authorization() == right.as_deref() {
                        AuthVerdict::Allow {
                            user: None,
                            info: None,
                        }
                    } else {
                        AuthVerdict::Challenge(vec!["Basic realm=\"corp\"".into()])
                    };
                    proxy.handle_auth(now, ticket, verdict);
                }
                Some(ProxyAction::Resolve { ticket, name }) => {
                    if name == "turn.example" {
                        proxy.handle_resolved(now, ticket, &[addr(TURN).ip()]);
                    } else {
                        let error = ProxyError::Dns { rcode: None };
                        proxy.handle_failure(now, ticket, error);
                    }
                }
                Some(ProxyAction::Connect { ticket, address }) => {
                    let to = alloc::string::ToString::to_string(&address);
                    *upstream = Some(self.accept(&to));
                    proxy.handle_connected(now, ticket);
                }
                Some(ProxyAction::CloseWrite(Side::Client) | ProxyAction::Close(Side::Client)) => {
                    closed = true;
                }
                Some(_) => {}
            }
        }
    }

    /// The server reads what has come through TLS.
    fn settle_served(&mut self, served: &mut Served) {
        while let Some(event) = served.tunnel.poll_event() {
            if let TunnelEvent::Failed(_) | TunnelEvent::Closed = event {
                self.server.handle_stream_closed(self.now, served.id);
            }
        }
        let mut clear = vec![0; served.tunnel.readable()];
        let len = served.tunnel.read(&mut clear);
        let mut input = &clear[..len];
        while !input.is_empty() {
            let received = self.server.handle_stream(self.now, served.id, &mut input);
            if let Received::Data { peer, data } = received {
                let data = data.to_vec();
                self.relayed(peer, &data);
            }
        }
        let mut buf = [0; server::MAX_TRANSMIT];
        while let Some(sent) = self.server.poll_transmit(&mut buf) {
            let bytes = buf[..sent.len].to_vec();
            if sent.to == Path::Stream(served.id) {
                assert_eq!(served.tunnel.write(&bytes), bytes.len());
            } else {
                self.serve(sent.to, &bytes);
            }
        }
        self.settle_server();
    }

    /// The server, or something in front of it, breaks every TCP connection of a node.
    pub(super) fn cut_off(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        for (conn, mut far) in core::mem::take(&mut node.conns) {
            node.media.connection_failed(now, conn, ConnFailure::Reset);
            if let Some(served) = far.served() {
                self.server.handle_stream_closed(now, served.id);
            }
        }
    }
}

impl Node {
    fn take(&mut self, now: Instant) {
        while let Some(received) = self.media.poll_received(now) {
            if let Received::Data { peer, data } = received {
                self.data.push((peer, data.to_vec()));
            }
        }
    }
}

impl Far {
    const fn served(&mut self) -> Option<&mut Served> {
        match self {
            Self::Served(served) | Self::Proxy(_, Some(served)) => Some(served),
            Self::Proxy(_, None) => None,
        }
    }
}
