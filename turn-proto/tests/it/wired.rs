//! Clients and our server wired together in memory. The clock is the test's, and the network takes
//! no time: what a test wants lost it loses by a rule.
#![allow(unreachable_pub, reason = "shared by the tests")]

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use stun_proto::Rng;
use stun_proto::auth::{Credentials, Judgement, LongTermClient, RequestAuth};
use stun_proto::wire::{
    Class, ErrorCode, Message, MessageType, Method, PasswordAlgorithmId, TransactionId, Writer,
};
use turn_proto::client::{self, AllocateOptions, Cause, Client, ClientConfig, Connection};
use turn_proto::policy::Preset;
use turn_proto::server::{
    self, KeyOwner, KeyTicket, PeerId, RelayId, Server, ServerConfig, StaticUsers, Users,
};
use turn_proto::wire::AddressFamily;
use turn_proto::{FiveTuple, Instant, Path, Received, StreamId, Transport};

pub const REALM: &str = "example.org";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn server_addr() -> SocketAddr {
    addr("192.0.2.1:3478")
}

pub fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub fn at(s: u64) -> Instant {
    Instant::ZERO + secs(s)
}

/// A message on its way, for rules about losing it and for looking at afterwards.
#[derive(Clone, Debug)]
pub struct Flight {
    pub at: Instant,
    /// The method, if it is a STUN message.
    pub method: Option<Method>,
    pub class: Class,
    pub code: u16,
    pub bytes: Vec<u8>,
}

impl Flight {
    pub fn is(&self, method: Method, class: Class) -> bool {
        self.method == Some(method) && self.class == class
    }

    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }
}

/// Somebody on the way: what is answered to a message before its receiver sees it.
type Forger = dyn FnMut(&Flight) -> Option<Vec<u8>>;

/// A datagram that left a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub relay: RelayId,
    pub to: SocketAddr,
    pub data: Vec<u8>,
    pub dont_fragment: bool,
}

/// What the server's host does when a relay is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    Works,
    Fails,
    /// Only for IPv4.
    FailsForV6,
    /// Every port is in use.
    Taken,
    /// No answer.
    Hangs,
}

/// A client and its sockets.
#[derive(Debug)]
pub struct End {
    pub client: Client,
    pub local: SocketAddr,
    /// Where else it has been, or is going to be.
    pub elsewhere: Vec<SocketAddr>,
    pub transport: Transport,
    pub path: Path,
    pub events: Vec<client::Event>,
    pub data: Vec<(SocketAddr, Vec<u8>)>,
    /// Connections that wait for a stream, when the test opens them.
    pub opening: Vec<Connection>,
    /// Opens streams when they are asked for.
    pub opens: bool,
    /// Streams to the server.
    pub streams: Vec<StreamId>,
}

impl End {
    pub fn relayed(&self) -> SocketAddr {
        let allocated = self.events.iter().find_map(|event| match event {
            client::Event::Allocated { relayed, .. } => Some(*relayed),
            _ => None,
        });
        allocated.unwrap_or_else(|| panic!("no allocation: {:?}", self.events))
    }

    pub fn saw(&self, event: client::Event) -> bool {
        self.events.contains(&event)
    }

    /// Why there is no allocation, or no longer.
    pub fn cause(&self) -> Option<Cause> {
        self.events.iter().find_map(|event| match event {
            client::Event::AllocateFailed { cause, .. }
            | client::Event::AllocationLost { cause } => Some(*cause),
            _ => None,
        })
    }
}

pub struct World<U: Users = StaticUsers> {
    pub server: Server<U>,
    pub now: Instant,
    pub ends: Vec<End>,
    pub relays: BTreeMap<RelayId, (SocketAddr, FiveTuple)>,
    pub sent: Vec<Sent>,
    pub events: Vec<server::Event>,
    pub flights: Vec<Flight>,
    pub opening: Opening,
    /// Connections to peers the host was asked for, not yet answered.
    pub connects: Vec<(PeerId, SocketAddr)>,
    pub closed_peers: Vec<PeerId>,
    /// Keys the host was asked for, not yet found.
    pub lookups: Vec<(KeyTicket, PasswordAlgorithmId)>,
    pub spliced: BTreeMap<StreamId, PeerId>,
    /// Local addresses that the server sees as others from now on: NATs have forgotten them.
    pub nat: BTreeMap<SocketAddr, SocketAddr>,
    /// Answers that somebody on the way makes, who is faster than the server.
    pub forges: Box<Forger>,
    /// Says which messages are lost.
    pub loses: Box<dyn FnMut(&Flight) -> bool>,
    next_stream: u64,
    next_seed: u8,
    rng: Rng,
}

pub fn server_config() -> ServerConfig {
    let mut config = ServerConfig::new(REALM);
    config.peers.preset = Preset::Any;
    config.unverified.per_second = 0;
    config.addresses_v6 = 1;
    config.relay_tcp = true;
    config
}

pub fn users() -> StaticUsers {
    let mut users = StaticUsers::new(REALM);
    users.add("alice", "secret");
    users.add("bob", "password");
    users
}

pub fn client_config() -> ClientConfig {
    ClientConfig {
        keep_alive: None,
        ..ClientConfig::new(Some(Credentials::new("alice", "secret")))
    }
}

impl World<StaticUsers> {
    pub fn new() -> Self {
        Self::with(server_config())
    }

    pub fn with(config: ServerConfig) -> Self {
        Self::for_users(config, users())
    }

    /// One client over UDP that has an allocation.
    pub fn allocated() -> Self {
        let mut world = Self::new();
        let end = world.udp(40_000);
        world.allocate(end, AllocateOptions::default());
        world.ends[end].relayed();
        world
    }
}

impl<U: Users> World<U> {
    pub fn for_users(config: ServerConfig, users: U) -> Self {
        let now = Instant::ZERO;
        Self {
            server: Server::new(config, users, [5; 32], now).unwrap(),
            now,
            ends: Vec::new(),
            relays: BTreeMap::new(),
            sent: Vec::new(),
            events: Vec::new(),
            flights: Vec::new(),
            opening: Opening::Works,
            connects: Vec::new(),
            closed_peers: Vec::new(),
            lookups: Vec::new(),
            spliced: BTreeMap::new(),
            nat: BTreeMap::new(),
            forges: Box::new(|_| None),
            loses: Box::new(|_| false),
            next_stream: 1,
            next_seed: 1,
            rng: Rng::from_seed([99; 32]),
        }
    }

    /// A client over UDP, from this port.
    pub fn udp(&mut self, port: u16) -> usize {
        self.end(client_config(), Transport::Udp, port)
    }

    pub fn tcp(&mut self, port: u16) -> usize {
        self.end(client_config(), Transport::Tcp, port)
    }

    pub fn end(&mut self, config: ClientConfig, transport: Transport, port: u16) -> usize {
        let local = SocketAddr::new(ip("198.51.100.7"), port);
        let path = self.path(transport, local);
        self.next_seed += 1;
        let seed = [self.next_seed; 32];
        let streams = match path {
            Path::Stream(id) => vec![id],
            Path::Datagram(_) => Vec::new(),
        };
        self.ends.push(End {
            client: Client::new(config, path, transport, seed, self.now),
            local,
            elsewhere: Vec::new(),
            transport,
            path,
            events: Vec::new(),
            data: Vec::new(),
            opening: Vec::new(),
            opens: true,
            streams,
        });
        self.ends.len() - 1
    }

    /// A path to the server; streams are opened there.
    pub fn path(&mut self, transport: Transport, local: SocketAddr) -> Path {
        let remote = server_addr();
        if !transport.is_stream() {
            return Path::Datagram(FiveTuple {
                transport,
                local,
                remote,
            });
        }
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let seen = FiveTuple {
            transport,
            local: remote,
            remote: local,
        };
        self.server.stream_opened(self.now, id, seen).unwrap();
        Path::Stream(id)
    }

    pub fn client(&mut self, end: usize) -> &mut Client {
        &mut self.ends[end].client
    }

    /// Asks for an allocation and lets everything happen that takes no time.
    pub fn allocate(&mut self, end: usize, options: AllocateOptions) {
        let now = self.now;
        self.client(end).allocate(now, options).unwrap();
        self.step();
    }

    pub fn permit(&mut self, end: usize, peer: &str) {
        let now = self.now;
        self.client(end).create_permission(now, ip(peer)).unwrap();
        self.step();
    }

    pub fn bind(&mut self, end: usize, peer: &str) {
        let now = self.now;
        self.client(end).bind_channel(now, addr(peer)).unwrap();
        self.step();
    }

    /// The relay of a client.
    pub fn relay_of(&self, end: usize) -> RelayId {
        let relayed = self.ends[end].relayed();
        let mut relays = self.relays.iter();
        *relays.find(|(_, (at, _))| *at == relayed).unwrap().0
    }

    /// Whether data gets from the client to the peer.
    pub fn reaches(&mut self, end: usize, peer: &str) -> bool {
        let (now, mut buf) = (self.now, [0; 100]);
        let peer = addr(peer);
        let Ok(sent) = self.client(end).send(now, peer, b"ping", &mut buf) else {
            return false;
        };
        let before = self.sent.len();
        self.feed_server(sent.to, &buf[..sent.len]);
        let new = self.sent.drain(before..).collect::<Vec<_>>();
        new.iter()
            .any(|sent| sent.to == peer && sent.data == b"ping")
    }

    /// What a peer sends to the client's relay, as the client gets it.
    pub fn hears(&mut self, end: usize, peer: &str, payload: &[u8]) -> bool {
        let relay = self.relay_of(end);
        let mut buf = vec![0; payload.len() + 100];
        let peer = addr(peer);
        let forward = self
            .server
            .forward(self.now, relay, peer, payload, &mut buf);
        let Some(sent) = forward else { return false };
        self.feed_client(sent.to, &buf[..sent.len]);
        let got = self.ends[end].data.pop();
        got == Some((peer, payload.to_vec()))
    }

    /// Data flows both ways.
    pub fn talks(&mut self, end: usize, peer: &str) -> bool {
        self.reaches(end, peer) && self.hears(end, peer, b"pong")
    }

    /// Sends a request the way a client of its own would, from wherever; the code it is answered
    /// with, 0 for success.
    pub fn ask(
        &mut self,
        from: SocketAddr,
        auth: &mut LongTermClient,
        method: Method,
        body: impl for<'b> Fn(Writer<'b>) -> Writer<'b>,
    ) -> u16 {
        let seen = FiveTuple::udp(server_addr(), from);
        let mut request = RequestAuth::default();
        loop {
            let mut buf = [0; 1200];
            let id = TransactionId(self.rng.bytes());
            let writer = Writer::new(&mut buf, MessageType::request(method), id);
            let len = auth.finish(body(writer), &mut request).unwrap();
            self.server.handle_datagram(self.now, seen, &buf[..len]);
            let mut answer = [0; server::MAX_TRANSMIT];
            // Relays are opened on the way; what is for others goes there.
            let sent = loop {
                match self.server.poll_transmit(&mut answer) {
                    Some(sent) if sent.to == Path::Datagram(seen) => break sent,
                    Some(sent) => self.feed_client(sent.to, &answer[..sent.len]),
                    None => {
                        let action = self.server.poll_action();
                        self.act(action.expect("an answer"));
                    }
                }
            };
            let message = Message::parse(&answer[..sent.len]).unwrap();
            match auth.judge(&mut request, &message, false) {
                Judgement::Retry => {}
                Judgement::Accept | Judgement::Discard(_) | Judgement::Fail(_) => {
                    let code: Option<ErrorCode<'_>> = message.find();
                    return code.map_or(0, |code| code.code());
                }
            }
        }
    }

    fn flight(&self, bytes: &[u8]) -> Flight {
        let message = Message::parse(bytes).ok();
        let code = message.as_ref().and_then(Message::find::<ErrorCode<'_>>);
        Flight {
            at: self.now,
            method: message.as_ref().map(Message::method),
            class: message.as_ref().map_or(Class::Indication, Message::class),
            code: code.map_or(0, |code| code.code()),
            bytes: bytes.to_vec(),
        }
    }

    fn is_lost(&mut self, flight: Flight) -> bool {
        let lost = (self.loses)(&flight);
        if flight.method.is_some() {
            self.flights.push(flight);
        }
        lost
    }

    pub fn feed_server(&mut self, path: Path, bytes: &[u8]) {
        let flight = self.flight(bytes);
        if let Some(forged) = (self.forges)(&flight) {
            let back = match path {
                Path::Datagram(at) => Path::Datagram(FiveTuple {
                    local: at.remote,
                    remote: at.local,
                    ..at
                }),
                Path::Stream(_) => path,
            };
            self.feed_client(back, &forged);
        }
        if self.is_lost(flight) {
            return;
        }
        let mut data = Vec::new();
        match path {
            Path::Datagram(at) => {
                let seen = FiveTuple {
                    transport: at.transport,
                    local: at.remote,
                    remote: *self.nat.get(&at.local).unwrap_or(&at.local),
                };
                let received = self.server.handle_datagram(self.now, seen, bytes);
                if let Received::Data { peer, data: bytes } = received {
                    data.push((peer, bytes.to_vec()));
                }
            }
            Path::Stream(id) => {
                let mut input = bytes;
                while !input.is_empty() {
                    match self.server.handle_stream(self.now, id, &mut input) {
                        Received::Data { peer, data: bytes } => data.push((peer, bytes.to_vec())),
                        Received::Consumed => {}
                        Received::NotMine => break,
                    }
                }
            }
        }
        self.sent.extend(data.into_iter().map(|(to, data)| Sent {
            relay: to.relay,
            to: to.peer,
            data,
            dont_fragment: to.dont_fragment,
        }));
    }

    pub fn feed_client(&mut self, mut path: Path, bytes: &[u8]) {
        if let Path::Datagram(at) = &mut path {
            if self.nat.contains_key(&at.remote) {
                // That binding is gone.
                return;
            }
            let inside = self.nat.iter().find(|(_, outside)| **outside == at.remote);
            at.remote = inside.map_or(at.remote, |(inside, _)| *inside);
        }
        let Some(end) = self.end_of(path) else { return };
        let flight = self.flight(bytes);
        if self.is_lost(flight) {
            return;
        }
        let now = self.now;
        let held = &mut self.ends[end];
        let mut data = Vec::new();
        match path {
            Path::Datagram(at) => {
                let seen = FiveTuple {
                    transport: at.transport,
                    local: at.remote,
                    remote: at.local,
                };
                if let Received::Data { peer, data: bytes } =
                    held.client.handle_datagram(now, seen, bytes)
                {
                    data.push((peer, bytes.to_vec()));
                }
            }
            Path::Stream(id) => {
                let mut input = bytes;
                while !input.is_empty() {
                    if let Received::Data { peer, data: bytes } =
                        held.client.handle_stream(now, id, &mut input)
                    {
                        data.push((peer, bytes.to_vec()));
                    }
                }
            }
        }
        held.data.extend(data);
    }

    fn end_of(&self, path: Path) -> Option<usize> {
        self.ends.iter().position(|end| match path {
            Path::Datagram(at) => {
                // As the server sees it.
                let here = end.local == at.remote && !end.transport.is_stream();
                here || end.elsewhere.contains(&at.remote)
            }
            Path::Stream(id) => end.streams.contains(&id),
        })
    }

    /// Lets everything happen that takes no time.
    pub fn step(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "the machines never fall silent");
            let moved = self.step_clients() | self.step_server();
            if !moved {
                return;
            }
        }
    }

    fn step_clients(&mut self) -> bool {
        let mut moved = false;
        for end in 0..self.ends.len() {
            let mut buf = [0; client::MAX_TRANSMIT];
            while let Some(sent) = self.ends[end].client.poll_transmit(&mut buf) {
                self.feed_server(sent.to, &buf[..sent.len]);
                moved = true;
            }
            while let Some(action) = self.ends[end].client.poll_action() {
                moved = true;
                match action {
                    client::Action::OpenStream { connection } if self.ends[end].opens => {
                        self.open_stream(end, connection);
                    }
                    client::Action::OpenStream { connection } => {
                        self.ends[end].opening.push(connection);
                    }
                    client::Action::CloseStream { id } => self.close_stream(id),
                    _ => {}
                }
            }
            while let Some(event) = self.ends[end].client.poll_event() {
                self.ends[end].events.push(event);
                moved = true;
            }
        }
        moved
    }

    /// Opens the stream a connection waits for.
    pub fn open_stream(&mut self, end: usize, connection: Connection) -> StreamId {
        let (transport, mut local) = (self.ends[end].transport, self.ends[end].local);
        local.set_port(local.port() + 1 + self.next_stream as u16);
        let Path::Stream(id) = self.path(transport, local) else {
            panic!("TCP relays are for streams");
        };
        self.ends[end].streams.push(id);
        let now = self.now;
        let opened = self.client(end).handle_stream_opened(now, connection, id);
        if opened.is_err() {
            self.server.handle_stream_closed(now, id);
        }
        id
    }

    /// A stream ends, as both sides see it.
    pub fn close_stream(&mut self, id: StreamId) {
        let now = self.now;
        self.server.handle_stream_closed(now, id);
        if let Some(end) = self.end_of(Path::Stream(id)) {
            let held = &mut self.ends[end];
            held.streams.retain(|held| *held != id);
            held.client.handle_stream_closed(now, id);
        }
    }

    fn step_server(&mut self) -> bool {
        let mut moved = false;
        let mut buf = [0; server::MAX_TRANSMIT];
        while let Some(sent) = self.server.poll_transmit(&mut buf) {
            self.feed_client(sent.to, &buf[..sent.len]);
            moved = true;
        }
        while let Some(action) = self.server.poll_action() {
            self.act(action);
            moved = true;
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push(event);
            moved = true;
        }
        moved
    }

    fn act(&mut self, action: server::Action) {
        let now = self.now;
        match action {
            server::Action::OpenRelay {
                relay,
                family,
                port,
                client,
                ..
            } => match self.opening {
                Opening::FailsForV6 if family == AddressFamily::V6 => {
                    self.server.relay_failed(now, relay);
                }
                Opening::Works | Opening::FailsForV6 => {
                    let ip = match family {
                        AddressFamily::V4 => ip("203.0.113.1"),
                        AddressFamily::V6 => ip("2001:db8::1"),
                    };
                    let relayed = SocketAddr::new(ip, port);
                    self.relays.insert(relay, (relayed, client));
                    self.server.relay_opened(now, relay, relayed);
                }
                Opening::Fails => self.server.relay_failed(now, relay),
                Opening::Taken => self.server.relay_port_taken(now, relay),
                Opening::Hangs => {}
            },
            server::Action::CloseRelay { relay } => drop(self.relays.remove(&relay)),
            server::Action::CloseStream { id, .. } => self.close_stream(id),
            server::Action::ConnectPeer { peer, to, .. } => self.connects.push((peer, to)),
            server::Action::LookUpKey {
                ticket,
                user,
                algorithm,
            } => {
                assert_eq!(user, KeyOwner::Name(b"alice".to_vec()));
                self.lookups.push((ticket, algorithm));
            }
            server::Action::ClosePeer { peer } => self.closed_peers.push(peer),
            server::Action::Splice { peer, stream } => {
                self.spliced.insert(stream, peer);
            }
            _ => {}
        }
    }

    /// The next deadline of anybody.
    pub fn deadline(&self) -> Option<Instant> {
        let clients = self.ends.iter().filter_map(|end| end.client.poll_timeout());
        clients.chain(self.server.poll_timeout()).min()
    }

    /// Lets time pass, serving every deadline at its time.
    pub fn run(&mut self, until: Instant) {
        self.step();
        while let Some(next) = self.deadline().filter(|next| *next <= until) {
            assert!(next > self.now, "the deadline {next:?} was served already");
            self.wake(next);
        }
        self.wake(until);
    }

    /// It is `now` at once, whatever was due before: a host that slept.
    pub fn wake(&mut self, now: Instant) {
        self.now = now;
        for end in &mut self.ends {
            end.client.handle_timeout(now);
        }
        self.server.handle_timeout(now);
        self.step();
    }

    /// Requests of this method that reached the wire.
    pub fn requests(&self, method: Method) -> Vec<&Flight> {
        let flights = self.flights.iter();
        flights
            .filter(|flight| flight.is(method, Class::Request))
            .collect()
    }

    /// How many answers carried this code.
    pub fn errors(&self, code: u16) -> usize {
        let flights = self.flights.iter();
        flights.filter(|flight| flight.code == code).count()
    }
}
