//! A TURN server on real sockets: one machine behind a lock, a task for each socket.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ims_traversal::tunnel::{Tls, TunnelConfig};
use rustls::ServerConfig as TlsConfig;
use stun_proto::{FiveTuple, Path, Received, StreamId, Transport};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use turn_proto::server::{
    Action, Event, MAX_TRANSMIT, RelayId, RelayProtocol, Server, ServerConfig, StaticUsers,
};
use turn_proto::wire::AddressFamily;

use super::stream::{self, StreamInput, Writer};
use super::{now, seed, sleep_until};

/// The longest datagram, and what stands around it.
const DATAGRAM: usize = 65_536 + 64;

/// What the server tells about itself.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Something happened to an allocation.
    Event(Event),
    /// A stream was accepted.
    StreamOpened(FiveTuple),
    /// A stream ended, and why if it failed.
    StreamClosed(Option<String>),
}

type OnNotice = Box<dyn Fn(Notice) + Send + Sync>;

/// A running server.
pub struct TurnHost {
    server: Mutex<Server<StaticUsers>>,
    /// Where relays are opened.
    relay_ips: Vec<IpAddr>,
    /// What relays are called outside, if a NAT translates them.
    external_ip: Option<IpAddr>,
    listeners: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
    relays: Mutex<HashMap<RelayId, Relay>>,
    streams: Mutex<HashMap<StreamId, Writer>>,
    next_stream: AtomicU64,
    wake: Notify,
    on_notice: OnNotice,
}

struct Relay {
    socket: Arc<UdpSocket>,
    task: tokio::task::JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TurnHost {
    /// A server that opens its relays on these addresses.
    pub fn new(
        config: ServerConfig,
        users: StaticUsers,
        relay_ips: Vec<IpAddr>,
        external_ip: Option<IpAddr>,
        on_notice: impl Fn(Notice) + Send + Sync + 'static,
    ) -> anyhow::Result<Arc<Self>> {
        let host = Arc::new(Self {
            server: Mutex::new(Server::new(config, users, seed(), now())?),
            relay_ips,
            external_ip,
            listeners: Mutex::default(),
            relays: Mutex::default(),
            streams: Mutex::default(),
            next_stream: AtomicU64::new(0),
            wake: Notify::new(),
            on_notice: Box::new(on_notice),
        });
        tokio::spawn(Arc::clone(&host).keep_time());
        Ok(host)
    }

    /// How many allocations there are.
    pub fn allocations(&self) -> usize {
        lock(&self.server).allocations()
    }

    /// Closes every stream and relay.
    pub fn shut_down(&self) {
        lock(&self.streams).clear();
        for (_, relay) in lock(&self.relays).drain() {
            relay.task.abort();
        }
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let deadline = lock(&self.server).poll_timeout();
            tokio::select! {
                () = sleep_until(deadline) => {
                    lock(&self.server).handle_timeout(now());
                    self.drain();
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Listens for datagrams.
    pub async fn listen_udp(self: &Arc<Self>, at: SocketAddr) -> io::Result<SocketAddr> {
        let socket = Arc::new(UdpSocket::bind(at).await?);
        let local = socket.local_addr()?;
        lock(&self.listeners).insert(local, Arc::clone(&socket));
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let mut buf = vec![0; DATAGRAM];
            loop {
                if let Ok((len, remote)) = socket.recv_from(&mut buf).await {
                    host.datagram(FiveTuple::udp(local, remote), &buf[..len]);
                }
            }
        });
        Ok(local)
    }

    fn datagram(self: &Arc<Self>, at: FiveTuple, data: &[u8]) {
        let received = lock(&self.server).handle_datagram(now(), at, data);
        match received {
            Received::Data { peer, data } => {
                if let Some(relay) = lock(&self.relays).get(&peer.relay) {
                    // A datagram that cannot be sent now is lost.
                    let _ = relay.socket.try_send_to(data, peer.peer);
                }
            }
            Received::Consumed => self.drain(),
            Received::NotMine => {}
        }
    }

    /// Listens for connections, with TLS if it is configured.
    pub async fn listen_tcp(
        self: &Arc<Self>,
        at: SocketAddr,
        tls: Option<Arc<TlsConfig>>,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(at).await?;
        let local = listener.local_addr()?;
        let host = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                if let Ok((tcp, remote)) = listener.accept().await {
                    let _ = tcp.set_nodelay(true);
                    let host = Arc::clone(&host);
                    tokio::spawn(host.stream(tcp, remote, tls.clone()));
                }
            }
        });
        Ok(local)
    }

    async fn stream(
        self: Arc<Self>,
        tcp: TcpStream,
        remote: SocketAddr,
        tls: Option<Arc<TlsConfig>>,
    ) {
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let (writer, outgoing) = stream::queue();
        let transport = if tls.is_some() {
            Transport::Tls
        } else {
            Transport::Tcp
        };
        let config = TunnelConfig {
            tls: tls.map(|config| Tls::Server { config }),
            ..TunnelConfig::default()
        };
        let mut failure = None;
        let mut writer = Some(writer);
        let on = |input| match input {
            StreamInput::Ready(local) => {
                let at = FiveTuple {
                    transport,
                    local,
                    remote,
                };
                // Refused when there are too many: dropping the writer closes it.
                let writer = writer.take();
                if lock(&self.server).stream_opened(now(), id, at).is_ok()
                    && let Some(writer) = writer
                {
                    lock(&self.streams).insert(id, writer);
                    (self.on_notice)(Notice::StreamOpened(at));
                }
                self.wake.notify_one();
            }
            StreamInput::Data(data) => self.stream_data(id, &data),
            StreamInput::Failed(error) => failure = Some(error.to_string()),
            StreamInput::Closed | StreamInput::ProxyConnected => {}
        };
        stream::serve(tcp, config, outgoing, on).await;
        lock(&self.streams).remove(&id);
        lock(&self.server).handle_stream_closed(now(), id);
        self.drain();
        (self.on_notice)(Notice::StreamClosed(failure));
    }

    fn stream_data(self: &Arc<Self>, id: StreamId, data: &[u8]) {
        let mut input = data;
        while !input.is_empty() {
            let mut server = lock(&self.server);
            match server.handle_stream(now(), id, &mut input) {
                Received::Data { peer, data } => {
                    if let Some(relay) = lock(&self.relays).get(&peer.relay) {
                        let _ = relay.socket.try_send_to(data, peer.peer);
                    }
                }
                Received::Consumed => {}
                Received::NotMine => break,
            }
        }
        self.drain();
    }

    /// Does what the server wants done.
    fn drain(self: &Arc<Self>) {
        let mut buf = [0; MAX_TRANSMIT];
        let mut server = lock(&self.server);
        let mut closing = Vec::new();
        loop {
            while let Some(sent) = server.poll_transmit(&mut buf) {
                self.send(sent.to, &buf[..sent.len]);
            }
            match server.poll_action() {
                Some(Action::OpenRelay {
                    relay,
                    protocol: RelayProtocol::Udp,
                    family,
                    port,
                    ..
                }) => match self.open_relay(relay, family, port) {
                    Ok(at) => server.relay_opened(now(), relay, at),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        server.relay_port_taken(now(), relay);
                    }
                    Err(_) => server.relay_failed(now(), relay),
                },
                Some(Action::OpenRelay { relay, .. }) => server.relay_failed(now(), relay),
                Some(Action::CloseRelay { relay }) => {
                    if let Some(relay) = lock(&self.relays).remove(&relay) {
                        relay.task.abort();
                    }
                }
                Some(Action::CloseStream { id, .. }) => closing.push(id),
                Some(_) => {}
                None => break,
            }
        }
        for id in closing {
            lock(&self.streams).remove(&id);
        }
        while let Some(event) = server.poll_event() {
            (self.on_notice)(Notice::Event(event));
        }
        drop(server);
        self.wake.notify_one();
    }

    fn send(&self, to: Path, data: &[u8]) {
        match to {
            Path::Datagram(at) => {
                if let Some(socket) = lock(&self.listeners).get(&at.local) {
                    let _ = socket.try_send_to(data, at.remote);
                }
            }
            Path::Stream(id) => {
                if let Some(writer) = lock(&self.streams).get(&id) {
                    // A client that does not read loses data, as on any slow path.
                    let _ = writer.try_send(data.to_vec());
                }
            }
        }
    }

    fn open_relay(
        self: &Arc<Self>,
        relay: RelayId,
        family: AddressFamily,
        port: u16,
    ) -> io::Result<SocketAddr> {
        let ip = self
            .relay_ips
            .iter()
            .find(|ip| AddressFamily::of(**ip) == family)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = std::net::UdpSocket::bind((*ip, port))?;
        self.start_relay(relay, socket)
    }

    fn start_relay(
        self: &Arc<Self>,
        relay: RelayId,
        socket: std::net::UdpSocket,
    ) -> io::Result<SocketAddr> {
        socket.set_nonblocking(true)?;
        let mut at = socket.local_addr()?;
        if let Some(ip) = self.external_ip {
            at.set_ip(ip);
        }
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let (host, receiver) = (Arc::clone(self), Arc::clone(&socket));
        let task = tokio::spawn(async move {
            let (mut data, mut buf) = (vec![0; DATAGRAM], vec![0; DATAGRAM]);
            loop {
                if let Ok((len, from)) = receiver.recv_from(&mut data).await {
                    let forward =
                        lock(&host.server).forward(now(), relay, from, &data[..len], &mut buf);
                    if let Some(sent) = forward {
                        host.send(sent.to, &buf[..sent.len]);
                    }
                }
            }
        });
        lock(&self.relays).insert(relay, Relay { socket, task });
        Ok(at)
    }
}
