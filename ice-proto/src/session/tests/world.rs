//! Sessions, the network between them, and a STUN and TURN server that follows a script.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use stun_proto::framing::{Deframer, Next, Unit};
use stun_proto::wire::{
    Class, ErrorCode, Key, Message, MessageType, Method, Nonce, PasswordAlgorithmId, Realm,
    Username, Writer, XorMappedAddress,
};
use stun_proto::{FiveTuple, Instant, Path, Received, Rng, StreamId};
use turn_proto::wire::{self, ChannelNumber, Data, Lifetime, XorPeerAddress, XorRelayedAddress};

use crate::ComponentId;
use crate::session::{SESSION_MAX_TRANSMIT, Session, SessionAction, SessionEvent, StreamFailure};

pub(super) const TURN: &str = "198.51.100.9:3479";
pub(super) const TURN_TLS: &str = "198.51.100.9:443";
const STUN: &str = "198.51.100.5:3478";
const DELAY: Duration = Duration::from_millis(20);

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A session behind a NAT that maps each address to one outside and lets everything in.
pub(super) struct Node {
    pub(super) session: Session,
    pub(super) events: Vec<SessionEvent>,
    pub(super) data: Vec<(ComponentId, Vec<u8>)>,
    nat: Vec<(SocketAddr, SocketAddr)>,
}

impl Node {
    pub(super) fn new(session: Session, nat: &[(&str, &str)]) -> Self {
        Self {
            session,
            events: Vec::new(),
            data: Vec::new(),
            nat: nat.iter().map(|(a, b)| (addr(a), addr(b))).collect(),
        }
    }

    /// The NAT shows another address from now on.
    pub(super) fn rebind(&mut self, public: &str) {
        self.nat.iter_mut().for_each(|(_, b)| *b = addr(public));
    }
}

/// What a session sent.
pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) to: Path,
    pub(super) bytes: Vec<u8>,
}

/// Whom the server talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Udp(SocketAddr),
    Stream(usize, StreamId),
}

enum Packet {
    Datagram { from: SocketAddr, to: SocketAddr },
    ToServer(Client),
    ToNode(usize, StreamId),
}

pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    pub(super) sent: Vec<Sent>,
    pub(super) server: Server,
    /// Actions that open something, and those that close something.
    pub(super) opened: Vec<SessionAction>,
    pub(super) closed: Vec<SessionAction>,
    /// Streams are read in pieces of so many bytes.
    pub(super) cut: usize,
    pub(super) streams_fail: Option<StreamFailure>,
    /// Datagrams to and from these servers, and what goes over these streams, is lost.
    pub(super) lost: Vec<Path>,
    wire: Vec<(Instant, Packet, Vec<u8>)>,
    next_port: u16,
}

impl Net {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            now: Instant::ZERO,
            sent: Vec::new(),
            server: Server::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            cut: 4096,
            streams_fail: None,
            lost: Vec::new(),
            wire: Vec::new(),
            next_port: 2000,
        }
    }

    pub(super) fn run(&mut self, millis: u64) {
        self.run_until(Instant::ZERO + Duration::from_millis(millis));
    }

    pub(super) fn run_until(&mut self, end: Instant) {
        self.drain();
        loop {
            let arrivals = self.wire.iter().map(|(at, ..)| *at);
            let timeouts = self.nodes.iter().filter_map(|n| n.session.poll_timeout());
            let Some(next) = arrivals.chain(timeouts).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = next;
            while let Some(index) = self.wire.iter().position(|(at, ..)| *at <= next) {
                let (_, packet, bytes) = self.wire.remove(index);
                self.deliver(&packet, &bytes);
            }
            for node in &mut self.nodes {
                node.session.handle_timeout(next);
            }
            self.drain();
        }
        self.now = end;
    }

    pub(super) fn send(&mut self, node: usize, component: ComponentId, payload: &[u8]) {
        let mut buf = [0; SESSION_MAX_TRANSMIT];
        let session = &mut self.nodes[node].session;
        let sent = session
            .send(self.now, component, payload, &mut buf)
            .unwrap();
        self.dispatch(node, sent.to, buf[..sent.len].to_vec());
    }

    fn drain(&mut self) {
        for index in 0..self.nodes.len() {
            let mut buf = [0; SESSION_MAX_TRANSMIT];
            while let Some(sent) = self.nodes[index].session.poll_transmit(&mut buf) {
                self.dispatch(index, sent.to, buf[..sent.len].to_vec());
            }
            while let Some(action) = self.nodes[index].session.poll_action() {
                self.act(index, action);
            }
            while let Some(sent) = self.nodes[index].session.poll_transmit(&mut buf) {
                self.dispatch(index, sent.to, buf[..sent.len].to_vec());
            }
            let node = &mut self.nodes[index];
            while let Some(event) = node.session.poll_event() {
                node.events.push(event);
            }
            let timeout = node.session.poll_timeout();
            assert!(timeout.is_none_or(|at| at > self.now), "{timeout:?}");
        }
    }

    fn dispatch(&mut self, node: usize, to: Path, bytes: Vec<u8>) {
        let packet = match to {
            Path::Datagram(at) => {
                let nat = &self.nodes[node].nat;
                let from = nat.iter().find(|(inside, _)| *inside == at.local);
                Packet::Datagram {
                    from: from.unwrap().1,
                    to: at.remote,
                }
            }
            Path::Stream(id) => Packet::ToServer(Client::Stream(node, id)),
        };
        if self.lost.contains(&to) {
            return;
        }
        self.sent.push(Sent {
            at: self.now,
            to,
            bytes: bytes.clone(),
        });
        self.wire.push((self.now + DELAY, packet, bytes));
    }

    fn act(&mut self, node: usize, action: SessionAction) {
        let now = self.now;
        let session = &mut self.nodes[node].session;
        match &action {
            SessionAction::OpenStream { id, .. } => {
                match self.streams_fail {
                    None => session.stream_opened(now, *id, addr("10.0.0.1:7")),
                    Some(cause) => session.stream_failed(now, *id, cause),
                }
                self.opened.push(action);
            }
            SessionAction::OpenSocket { relay, local } => {
                let local = SocketAddr::new(*local, self.next_port);
                session.socket_opened(now, *relay, local);
                let outside = SocketAddr::new(addr("192.0.2.1:1").ip(), self.next_port);
                self.nodes[node].nat.push((local, outside));
                self.next_port += 1;
                self.opened.push(action);
            }
            SessionAction::CloseStream { .. } | SessionAction::CloseSocket { .. } => {
                self.closed.push(action);
            }
        }
    }

    fn deliver(&mut self, packet: &Packet, bytes: &[u8]) {
        let mut out = Vec::new();
        match *packet {
            Packet::Datagram { from, to } if to == addr(STUN) || to == addr(TURN) => {
                self.server.datagram(from, to, bytes, &mut out);
            }
            Packet::ToServer(client) => {
                let mut deframer = self
                    .server
                    .deframers
                    .remove(&client)
                    .unwrap_or_else(|| Deframer::with_channels(70_000));
                let mut input = bytes;
                while !input.is_empty() {
                    match deframer.next(&mut input).unwrap() {
                        Next::Unit(Unit::Message(bytes)) => {
                            self.server.message(client, bytes, &mut out);
                        }
                        Next::Unit(Unit::ChannelData { channel, data }) => {
                            self.server.channel_data(client, channel, data, &mut out);
                        }
                        Next::Partial | Next::Nothing => {}
                    }
                }
                self.server.deframers.insert(client, deframer);
            }
            Packet::ToNode(node, id) => {
                let node = &mut self.nodes[node];
                for piece in bytes.chunks(self.cut) {
                    let mut input = piece;
                    while !input.is_empty() {
                        let received = node.session.handle_stream(self.now, id, &mut input);
                        if let Received::Data { peer, data } = received {
                            node.data.push((peer, data.to_vec()));
                        }
                    }
                }
            }
            Packet::Datagram { from, to } => {
                if self.server.relayed(from, to, bytes, &mut out) {
                } else {
                    for node in &mut self.nodes {
                        let inside = node.nat.iter().find(|(_, outside)| *outside == to);
                        let Some((local, _)) = inside.copied() else {
                            continue;
                        };
                        let at = FiveTuple::udp(local, from);
                        let received = node.session.handle_datagram(self.now, at, bytes);
                        if let Received::Data { peer, data } = received {
                            node.data.push((peer, data.to_vec()));
                        }
                    }
                }
            }
        }
        for (packet, bytes) in out {
            self.wire.push((self.now + DELAY, packet, bytes));
        }
    }
}

/// How the server answers Allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Grant,
    /// With this code.
    Refuse(u16),
    /// With 437, so many times.
    Mismatch(u32),
}

struct Allocation {
    relayed: SocketAddr,
    permissions: Vec<IpAddr>,
    channels: Vec<(u16, SocketAddr)>,
}

/// One user, one realm, one nonce that never gets stale.
pub(super) struct Server {
    pub(super) mood: Mood,
    allocations: BTreeMap<Client, Allocation>,
    deframers: BTreeMap<Client, Deframer>,
    next_port: u16,
    unpermitted: usize,
    rng: Rng,
}

type Out = Vec<(Packet, Vec<u8>)>;

impl Server {
    fn new() -> Self {
        Self {
            mood: Mood::Grant,
            allocations: BTreeMap::new(),
            deframers: BTreeMap::new(),
            next_port: 50_000,
            unpermitted: 0,
            rng: Rng::from_seed([99; 32]),
        }
    }

    pub(super) fn allocations(&self) -> usize {
        self.allocations.len()
    }

    pub(super) fn relayed_over_udp(&self) -> SocketAddr {
        let udp = |client: &Client| matches!(client, Client::Udp(_));
        let found = self.allocations.iter().find(|(client, _)| udp(client));
        found.unwrap().1.relayed
    }

    /// Whether no data ever came for a peer without permission.
    pub(super) const fn permissions_were_there(&self) -> bool {
        self.unpermitted == 0
    }

    /// It has been started anew.
    pub(super) fn forget(&mut self) {
        self.allocations.clear();
    }

    fn back(client: Client) -> Packet {
        match client {
            Client::Udp(to) => Packet::Datagram {
                from: addr(TURN),
                to,
            },
            Client::Stream(node, id) => Packet::ToNode(node, id),
        }
    }

    fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], out: &mut Out) {
        if let [0x40..=0x4F, c0, _, _, data @ ..] = bytes {
            let channel = u16::from_be_bytes([bytes[0], *c0]);
            return self.channel_data(Client::Udp(from), channel, data, out);
        }
        let message = Message::parse(bytes).unwrap();
        if message.method() == Method::BINDING {
            if message.class() == Class::Request {
                let mut buf = [0; 200];
                let ty = message.message_type().success();
                let len = Writer::new(&mut buf, ty, message.transaction_id())
                    .attribute(&XorMappedAddress(from))
                    .finish()
                    .unwrap();
                let back = Packet::Datagram { from: to, to: from };
                out.push((back, buf[..len].to_vec()));
            }
            return;
        }
        self.message(Client::Udp(from), bytes, out);
    }

    fn message(&mut self, client: Client, bytes: &[u8], out: &mut Out) {
        let message = Message::parse(bytes).unwrap();
        if message.method() == wire::SEND {
            let XorPeerAddress(peer) = message.find().unwrap();
            let Data(data) = message.find().unwrap();
            return self.relay_data(client, peer, data, out);
        }
        if message.class() != Class::Request {
            return;
        }
        let key = Key::long_term(
            PasswordAlgorithmId::MD5,
            b"George",
            b"example.com",
            b"wilma-6.7",
        );
        let key = key.unwrap();
        let (mut buf, id) = ([0; 300], message.transaction_id());
        let (ok, error) = (
            message.message_type().success(),
            message.message_type().error(),
        );
        let named = message.find::<Username<'_>>().is_some();
        let len = if !named || message.verify(&key).is_err() {
            Writer::new(&mut buf, error, id)
                .attribute(&ErrorCode::new(401))
                .attribute(&Realm::new("example.com").unwrap())
                .attribute(&Nonce::new("a nonce").unwrap())
                .finish()
        } else if let Some(code) = self.refusal(client, &message) {
            Writer::new(&mut buf, error, id)
                .attribute(&ErrorCode::new(code))
                .message_integrity(&key)
                .finish()
        } else {
            let relayed = self.apply(client, &message);
            let mapped = match client {
                Client::Udp(from) => from,
                Client::Stream(..) => addr("192.0.2.77:7777"),
            };
            let allocate = message.method() == wire::ALLOCATE;
            let life = matches!(message.method(), wire::ALLOCATE | wire::REFRESH);
            Writer::new(&mut buf, ok, id)
                .maybe(relayed.filter(|_| allocate).map(XorRelayedAddress).as_ref())
                .maybe(allocate.then_some(XorMappedAddress(mapped)).as_ref())
                .maybe(life.then_some(Lifetime(600)).as_ref())
                .message_integrity(&key)
                .finish()
        };
        out.push((Self::back(client), buf[..len.unwrap()].to_vec()));
    }

    fn refusal(&mut self, client: Client, message: &Message<'_>) -> Option<u16> {
        if message.method() != wire::ALLOCATE && !self.allocations.contains_key(&client) {
            return Some(437);
        }
        match self.mood {
            Mood::Refuse(code) if message.method() == wire::ALLOCATE => Some(code),
            Mood::Mismatch(left) if left > 0 && message.method() == wire::ALLOCATE => {
                self.mood = Mood::Mismatch(left - 1);
                Some(437)
            }
            Mood::Grant | Mood::Refuse(_) | Mood::Mismatch(_) => None,
        }
    }

    fn apply(&mut self, client: Client, message: &Message<'_>) -> Option<SocketAddr> {
        let peer = message.find().map(|XorPeerAddress(peer)| peer);
        match message.method() {
            wire::ALLOCATE => {
                let relayed = SocketAddr::new(addr(TURN).ip(), self.next_port);
                self.next_port += 1;
                let allocation = Allocation {
                    relayed,
                    permissions: Vec::new(),
                    channels: Vec::new(),
                };
                self.allocations.insert(client, allocation);
            }
            wire::REFRESH if message.find() == Some(Lifetime(0)) => {
                self.allocations.remove(&client);
            }
            wire::CREATE_PERMISSION => {
                let peers = message.get_all::<XorPeerAddress>();
                let peers = peers.map(|peer| peer.unwrap().0.ip());
                let allocation = self.allocations.get_mut(&client)?;
                allocation.permissions.extend(peers);
            }
            wire::CHANNEL_BIND => {
                let ChannelNumber(number) = message.find().unwrap();
                let allocation = self.allocations.get_mut(&client)?;
                allocation.channels.push((number, peer.unwrap()));
                allocation.permissions.push(peer.unwrap().ip());
            }
            _ => {}
        }
        self.allocations.get(&client).map(|a| a.relayed)
    }

    fn channel_data(&mut self, client: Client, channel: u16, data: &[u8], out: &mut Out) {
        let Some(allocation) = self.allocations.get(&client) else {
            return;
        };
        let channels = &allocation.channels;
        let peer = channels.iter().find(|(number, _)| *number == channel);
        let peer = peer.unwrap().1;
        self.relay_data(client, peer, data, out);
    }

    fn relay_data(&mut self, client: Client, peer: SocketAddr, data: &[u8], out: &mut Out) {
        let allocation = &self.allocations[&client];
        if !allocation.permissions.contains(&peer.ip()) {
            self.unpermitted += 1;
            return;
        }
        let from = allocation.relayed;
        out.push((Packet::Datagram { from, to: peer }, data.to_vec()));
    }

    /// A datagram that may be for a relay; whether it was.
    fn relayed(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8], out: &mut Out) -> bool {
        let found = self.allocations.iter().find(|(_, a)| a.relayed == to);
        let Some((client, allocation)) = found else {
            return false;
        };
        if !allocation.permissions.contains(&from.ip()) {
            return true;
        }
        let bound = allocation.channels.iter().find(|(_, peer)| *peer == from);
        let mut buf = [0; 2000];
        let len = match bound {
            Some((number, _)) => {
                buf[..2].copy_from_slice(&number.to_be_bytes());
                buf[2..4].copy_from_slice(&(data.len() as u16).to_be_bytes());
                buf[4..4 + data.len()].copy_from_slice(data);
                let len = 4 + data.len();
                match client {
                    Client::Udp(_) => len,
                    Client::Stream(..) => len.next_multiple_of(4),
                }
            }
            None => {
                let ty = MessageType::indication(wire::DATA);
                Writer::new(&mut buf, ty, self.rng.transaction_id())
                    .attribute(&XorPeerAddress(from))
                    .attribute(&Data(data))
                    .finish()
                    .unwrap()
            }
        };
        out.push((Self::back(*client), buf[..len].to_vec()));
        true
    }
}
