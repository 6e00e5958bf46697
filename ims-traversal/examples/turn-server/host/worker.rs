//! One thread: a machine, its sockets, and the loop that drives them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::RecvMeta;
use rustls::ServerConfig as TlsConfig;
use stun_proto::{Instant, Path, StreamId, Transport};
use turn_proto::server::{
    Action, MAX_TRANSMIT, PeerId, RelayId, RelayProtocol, Server, ServerConfig,
};

use super::account::{Accounts, Counts, Gauge, Snapshot};
use super::datagrams::Outgoing;
use super::sockets::{self, Buffers};
use super::splice::Peer;
use super::streams::Client;
use super::udp::{BATCH, SLOT, UdpSocket};
use super::users::HostUsers;
use super::{Command, Mailbox, RelayAddress, Sockets, now, unix_time};

/// Buffers of a worker: what is received waits here until it is sent.
const SLOTS: usize = 64;

/// How often counters are published and the time of day is told.
const TICK: Duration = Duration::from_secs(1);

/// How often the key that signs nonces is replaced, unless other servers have it as well.
const KEY_LIFE: Duration = Duration::from_secs(3600);

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Waker,
    Udp(usize),
    Tcp(usize),
    Relay(RelayId),
    Stream(StreamId),
    Peer(PeerId),
}

impl Source {
    pub const fn token(self) -> Token {
        let (kind, number) = match self {
            Self::Waker => (0, 0),
            Self::Udp(index) => (1, index as u64),
            Self::Tcp(index) => (2, index as u64),
            Self::Relay(relay) => (3, relay.0),
            Self::Stream(stream) => (4, stream.0),
            Self::Peer(peer) => (5, peer.0),
        };
        Token((number as usize) << 3 | kind)
    }

    const fn of(token: Token) -> Self {
        let number = (token.0 >> 3) as u64;
        match token.0 & 7 {
            1 => Self::Udp(number as usize),
            2 => Self::Tcp(number as usize),
            3 => Self::Relay(RelayId(number)),
            4 => Self::Stream(StreamId(number)),
            5 => Self::Peer(PeerId(number)),
            _ => Self::Waker,
        }
    }
}

/// What a worker starts with.
#[derive(Debug)]
pub struct Seed {
    pub index: usize,
    pub server: ServerConfig,
    pub relays: Vec<RelayAddress>,
    pub tls: Option<Arc<TlsConfig>>,
    pub buffers: Buffers,
    pub mailboxes: Vec<Mailbox>,
    pub gauge: Gauge,
    pub sockets: Sockets,
    /// Whether nonces are those of servers elsewhere as well.
    pub shares_key: bool,
}

/// A relay, open.
#[derive(Debug)]
pub enum Relay {
    Udp(UdpSocket),
    /// Where connections come in, and where connections to peers leave from.
    Tcp(TcpListener, SocketAddr),
}

/// A listener for connections.
#[derive(Debug)]
pub struct Acceptor {
    pub listener: TcpListener,
    pub transport: Transport,
}

#[derive(Debug)]
pub struct Worker {
    pub(super) index: usize,
    pub(super) poll: Poll,
    pub(super) server: Server<HostUsers>,
    pub(super) now: Instant,
    pub(super) listeners: Vec<UdpSocket>,
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) relays: HashMap<RelayId, Relay>,
    pub(super) clients: HashMap<StreamId, Client>,
    pub(super) peers: HashMap<PeerId, Peer>,
    pub(super) addresses: Vec<RelayAddress>,
    pub(super) tls: Option<Arc<TlsConfig>>,
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) counts: Counts,
    pub(super) accounts: Accounts,
    /// What is received, and how much of it waits to be sent.
    pub(super) slots: Vec<Box<[u8]>>,
    pub(super) used: usize,
    pub(super) metas: [RecvMeta; BATCH],
    pub(super) outgoing: Outgoing,
    /// Clear bytes of streams.
    pub(super) scratch: Vec<u8>,
    /// What has more to read than was read.
    pub(super) again: Vec<Source>,
    /// Listeners to be looked at again at the next tick.
    pub(super) later: Vec<Source>,
    pub(super) next_stream: u64,
    /// Streams that are being closed, and until when they may take their last bytes.
    pub(super) closing: Vec<(StreamId, Instant)>,
    buffers: Buffers,
    gauge: Gauge,
    inbox: Receiver<Command>,
    next_tick: Instant,
    next_key: Option<Instant>,
    stopped: bool,
}

impl Worker {
    pub fn new(
        seed: Seed,
        users: HostUsers,
        poll: Poll,
        inbox: Receiver<Command>,
    ) -> anyhow::Result<Self> {
        let now = now();
        let mut server = Server::new(seed.server, users, super::random(), now)?;
        server.set_unix_time(now, unix_time().as_secs());
        let registry = poll.registry();
        let mut listeners = Vec::new();
        for (index, socket) in seed.sockets.udp.into_iter().enumerate() {
            let mut socket = UdpSocket::new(socket)?;
            socket.register(registry, Source::Udp(index).token())?;
            listeners.push(socket);
        }
        let mut acceptors = Vec::new();
        for (index, (listener, transport)) in seed.sockets.tcp.into_iter().enumerate() {
            let mut listener = TcpListener::from_std(listener);
            let token = Source::Tcp(index).token();
            registry.register(&mut listener, token, Interest::READABLE)?;
            acceptors.push(Acceptor {
                listener,
                transport,
            });
        }
        Ok(Self {
            index: seed.index,
            poll,
            server,
            now,
            listeners,
            acceptors,
            relays: HashMap::new(),
            clients: HashMap::new(),
            peers: HashMap::new(),
            addresses: seed.relays,
            tls: seed.tls,
            mailboxes: seed.mailboxes,
            counts: Counts::default(),
            accounts: Accounts::default(),
            slots: (0..SLOTS)
                .map(|_| vec![0; SLOT].into_boxed_slice())
                .collect(),
            used: 0,
            metas: [RecvMeta::default(); BATCH],
            outgoing: Outgoing::default(),
            scratch: vec![0; 64 * 1024],
            again: Vec::new(),
            later: Vec::new(),
            next_stream: 0,
            closing: Vec::new(),
            buffers: seed.buffers,
            gauge: seed.gauge,
            inbox,
            next_tick: now,
            next_key: (!seed.shares_key).then_some(now + KEY_LIFE),
            stopped: false,
        })
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.stopped {
            let wait = self.wait();
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(worker = self.index, %error, "waiting for events");
                    break;
                }
            }
            self.now = now();
            let mut more = std::mem::take(&mut self.again);
            for event in &events {
                self.ready(Source::of(event.token()), event.is_error());
            }
            for source in more.drain(..) {
                self.ready(source, false);
            }
            if self.again.is_empty() {
                // Its memory is used again.
                self.again = more;
            }
            self.send_outgoing();
            self.keep_time();
            self.drain();
        }
        self.end();
    }

    /// How long nothing needs to be done.
    fn wait(&self) -> Duration {
        if !self.again.is_empty() {
            return Duration::ZERO;
        }
        let deadline = self.server.poll_timeout();
        let next = deadline.map_or(self.next_tick, |at| at.min(self.next_tick));
        next.duration_since(now())
    }

    fn ready(&mut self, source: Source, error: bool) {
        match source {
            Source::Waker => {
                while let Ok(command) = self.inbox.try_recv() {
                    self.command(command);
                }
            }
            Source::Udp(index) => self.read_listener(index),
            Source::Tcp(index) => self.accept_clients(index),
            Source::Relay(relay) => {
                if error {
                    self.read_errors(relay);
                }
                match self.relays.get(&relay) {
                    Some(Relay::Udp(_)) => self.read_relay(relay),
                    Some(Relay::Tcp(..)) => self.accept_peers(relay),
                    None => {}
                }
            }
            Source::Stream(stream) => self.stream_ready(stream),
            Source::Peer(peer) => self.peer_ready(peer),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Users(keys) => self.server.users_mut().keys = keys,
            Command::Tls(config) => self.tls = Some(config),
            Command::Redirect(redirect) => self.server.set_redirect(redirect),
            Command::Adopt(adopted) => self.adopt(*adopted),
            Command::Stop => self.stopped = true,
        }
    }

    fn keep_time(&mut self) {
        if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
            self.server.handle_timeout(self.now);
        }
        if self.now >= self.next_tick {
            self.next_tick = self.now + TICK;
            self.server.set_unix_time(self.now, unix_time().as_secs());
            if self.next_key.is_some_and(|at| self.now >= at) {
                self.next_key = Some(self.now + KEY_LIFE);
                // Each worker by itself: a nonce comes back to the worker it is from, since data
                // connections go to that of their control connection.
                self.server.rotate_nonce_key();
            }
            self.close_late();
            self.again.append(&mut self.later);
            self.publish();
        }
    }

    fn publish(&self) {
        self.gauge.set(Snapshot {
            counts: self.counts,
            stats: self.server.stats(),
            allocations: self.server.allocations(),
            relays: self.relays.len(),
            streams: self.clients.len(),
            peers: self.peers.len(),
        });
    }

    /// Does what the machine wants done. Responses go before actions.
    pub(super) fn drain(&mut self) {
        let mut buf = [0; MAX_TRANSMIT];
        loop {
            while let Some(sent) = self.server.poll_transmit(&mut buf) {
                self.send_control(sent.to, buf.get(..sent.len).unwrap_or_default());
            }
            match self.server.poll_action() {
                Some(action) => self.act(action),
                None => break,
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.accounts.event(self.now, event, &mut self.counts);
        }
    }

    fn send_control(&mut self, to: Path, message: &[u8]) {
        match to {
            Path::Datagram(at) => {
                let listener = self.listeners.iter().find(|l| l.local() == at.local);
                let sent =
                    listener.map(|listener| listener.send(at.remote, &[io::IoSlice::new(message)]));
                if !matches!(sent, Some(Ok(()))) {
                    self.counts.unsent += 1;
                }
            }
            Path::Stream(id) => self.write_control(id, message),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::OpenRelay {
                relay,
                protocol,
                family,
                address,
                port,
                ..
            } => {
                let mut of_family = self.addresses.iter().filter(|own| own.is(family));
                match of_family.nth(address.into()).copied() {
                    Some(address) => self.open_relay(relay, protocol, address, port),
                    None => self.server.relay_failed(self.now, relay),
                }
            }
            Action::CloseRelay { relay } => self.close_relay(relay),
            Action::CloseStream { id, reason } => self.close_client(id, reason),
            Action::ConnectPeer { peer, relay, to } => self.connect_peer(peer, relay, to),
            Action::ClosePeer { peer } => self.close_peer(peer),
            Action::Splice { peer, stream } => self.splice(peer, stream),
            // Keys are at hand: no lookup is ever asked for.
            Action::LookUpKey { ticket, .. } => self.server.key_found(self.now, ticket, None),
            other => tracing::warn!(?other, "an action this host does not know"),
        }
    }

    fn open_relay(
        &mut self,
        relay: RelayId,
        protocol: RelayProtocol,
        address: RelayAddress,
        port: u16,
    ) {
        let at = SocketAddr::new(address.ip, port);
        let opened = match protocol {
            RelayProtocol::Udp => self.open_udp(relay, at),
            RelayProtocol::Tcp => self.open_tcp(relay, at),
        };
        match opened {
            Ok(open) => {
                self.relays.insert(relay, open);
                let ip = address.external.unwrap_or(address.ip);
                let relayed = SocketAddr::new(ip, port);
                self.server.relay_opened(self.now, relay, relayed);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                self.server.relay_port_taken(self.now, relay);
            }
            Err(error) => {
                tracing::warn!(%at, %error, "cannot open a relay");
                self.server.relay_failed(self.now, relay);
            }
        }
    }

    fn open_udp(&mut self, relay: RelayId, at: SocketAddr) -> io::Result<Relay> {
        let socket = sockets::udp_relay(at, self.buffers.relay)?;
        let mut socket = UdpSocket::new(socket)?;
        socket.report_errors()?;
        socket.register(self.poll.registry(), Source::Relay(relay).token())?;
        Ok(Relay::Udp(socket))
    }

    fn open_tcp(&mut self, relay: RelayId, at: SocketAddr) -> io::Result<Relay> {
        let mut listener = TcpListener::from_std(sockets::tcp_relay(at)?);
        let token = Source::Relay(relay).token();
        let registry = self.poll.registry();
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Relay::Tcp(listener, at))
    }

    fn close_relay(&mut self, relay: RelayId) {
        // Dropping closes the socket, which ends its registration.
        self.relays.remove(&relay);
    }

    /// Ends all allocations, so that each has its line.
    fn end(&mut self) {
        let relays: Vec<RelayId> = self.relays.keys().copied().collect();
        for relay in relays {
            self.server.close_allocation(self.now, relay);
            self.drain();
        }
        self.publish();
    }
}
