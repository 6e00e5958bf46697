//! A server on loopback, this workspace's client before it, and peers that echo.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use stun_proto::auth::Credentials;
use stun_proto::{Path, Received, StreamId};
use turn_proto::RelayProtocol;
use turn_proto::client::{self, AllocateOptions, Cause, Client, ClientConfig, Connection, Event};
use turn_proto::policy::Preset;
use turn_proto::server::{Admission, StaticUsers};

use super::*;

pub(super) const REALM: &str = "example.org";
pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) fn keys(name: &str) -> Keys {
    let mut listed = StaticUsers::new(REALM);
    listed.add(name, "secret");
    Keys { listed, rest: None }
}

pub(super) fn config(ports: RangeInclusive<u16>) -> HostConfig {
    let mut server = ServerConfig::new(REALM);
    server.peers.preset = Preset::Any;
    server.relay_tcp = true;
    server.unverified.per_second = 0;
    server.ports = ports;
    let at = SocketAddr::new(LOOPBACK, 0);
    HostConfig {
        server,
        listen: [Transport::Udp, Transport::Tcp]
            .map(|transport| Listen { transport, at })
            .to_vec(),
        relays: vec![RelayAddress {
            ip: LOOPBACK,
            external: None,
        }],
        workers: 2,
        tls: None,
        buffers: sockets::Buffers::default(),
        spread: sockets::Spread::Flow,
        secret: None,
    }
}

/// A server with two workers; each test has its own ports.
pub(super) fn start(ports: RangeInclusive<u16>, quota: Quota) -> Host {
    Host::start(config(ports), keys("alice"), quota).unwrap()
}

pub(super) fn at(host: &Host, transport: Transport) -> SocketAddr {
    let listening = host.listening().iter();
    let mut of = listening.filter(|listen| listen.transport == transport);
    of.next().unwrap().at
}

/// A client on blocking sockets.
pub(super) struct Ue {
    pub(super) client: Client,
    path: Path,
    udp: UdpSocket,
    server: SocketAddr,
    streams: BTreeMap<StreamId, TcpStream>,
    /// Bytes behind the messages of a data connection.
    behind: Vec<u8>,
    data: Vec<Vec<u8>>,
}

impl Ue {
    pub(super) fn new(host: &Host, transport: Transport, user: &str) -> Self {
        let server = at(host, transport);
        let udp = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let mut streams = BTreeMap::new();
        let path = match transport {
            Transport::Udp => Path::Datagram(FiveTuple::udp(udp.local_addr().unwrap(), server)),
            _ => {
                streams.insert(StreamId(0), connect(server));
                Path::Stream(StreamId(0))
            }
        };
        let mut config = ClientConfig::new(Some(Credentials::new(user, "secret")));
        config.redirects = client::Redirects::Protected;
        Self {
            client: Client::new(config, path, transport, random(), now()),
            path,
            udp,
            server,
            streams,
            behind: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Asks for an allocation; why there is none.
    pub(super) fn allocate(&mut self, protocol: RelayProtocol) -> Result<SocketAddr, Cause> {
        let options = AllocateOptions {
            protocol,
            ..AllocateOptions::default()
        };
        self.client.allocate(now(), options).unwrap();
        self.until(|event| match event {
            Event::Allocated { relayed, .. } => Some(Ok(*relayed)),
            Event::AllocateFailed { cause, .. } => Some(Err(*cause)),
            _ => None,
        })
    }

    pub(super) fn bind(&mut self, peer: SocketAddr) {
        self.client.bind_channel(now(), peer).unwrap();
        self.until(|event| matches!(event, Event::ChannelBound { .. }).then_some(()));
    }

    pub(super) fn connect_peer(&mut self, peer: SocketAddr) -> (TcpStream, Vec<u8>) {
        self.client.connect_peer(now(), peer).unwrap();
        self.ready()
    }

    /// The next data connection, and what came on it already.
    pub(super) fn ready(&mut self) -> (TcpStream, Vec<u8>) {
        let id = self.until(|event| match event {
            Event::ConnectionReady { id, .. } => Some(*id),
            _ => None,
        });
        let tcp = self.streams.remove(&id).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (tcp, std::mem::take(&mut self.behind))
    }

    pub(super) fn close(&mut self) {
        self.client.close(now());
        self.until(|event| matches!(event, Event::Closed).then_some(()));
    }

    pub(super) fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let mut buf = [0; 2000];
        let sent = self.client.send(now(), peer, data, &mut buf).unwrap();
        self.udp.send_to(&buf[..sent.len], self.server).unwrap();
    }

    /// Data from a peer, within five seconds.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        for _ in 0..500 {
            if !self.data.is_empty() {
                return self.data.remove(0);
            }
            self.step();
        }
        panic!("no data came");
    }

    /// Goes on until an event is the one looked for.
    pub(super) fn until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        for _ in 0..500 {
            self.step();
            while let Some(event) = self.client.poll_event() {
                if let Event::ConnectionAttempt { connection, .. } = event {
                    self.client.accept(now(), connection).unwrap();
                }
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        }
        panic!("it did not happen");
    }

    fn step(&mut self) {
        let mut buf = [0; client::MAX_TRANSMIT];
        if self.client.poll_timeout().is_some_and(|at| at <= now()) {
            self.client.handle_timeout(now());
        }
        while let Some(sent) = self.client.poll_transmit(&mut buf) {
            match sent.to {
                Path::Datagram(at) => drop(self.udp.send_to(&buf[..sent.len], at.remote).unwrap()),
                Path::Stream(id) => {
                    self.streams
                        .get_mut(&id)
                        .unwrap()
                        .write_all(&buf[..sent.len])
                        .unwrap();
                }
            }
        }
        while let Some(action) = self.client.poll_action() {
            match action {
                client::Action::OpenStream { connection } => self.open(connection),
                client::Action::CloseStream { id } => drop(self.streams.remove(&id)),
                _ => {}
            }
        }
        self.read();
    }

    fn open(&mut self, connection: Connection) {
        let id = StreamId(1 + self.streams.len() as u64 + now().as_nanos() as u64);
        self.streams.insert(id, connect(self.server));
        self.client
            .handle_stream_opened(now(), connection, id)
            .unwrap();
    }

    fn read(&mut self) {
        let mut buf = [0; 70_000];
        if let (Path::Datagram(at), Ok(len)) = (self.path, self.udp.recv(&mut buf)) {
            if let Received::Data { data, .. } = self.client.handle_datagram(now(), at, &buf[..len])
            {
                self.data.push(data.to_vec());
            }
            return;
        }
        for (id, tcp) in &mut self.streams {
            let len = match tcp.read(&mut buf) {
                Ok(len) => len,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let mut input = &buf[..len];
            while !input.is_empty() {
                if let Received::Data { data, .. } =
                    self.client.handle_stream(now(), *id, &mut input)
                {
                    self.behind.extend_from_slice(data);
                }
            }
        }
    }
}

pub(super) fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    tcp
}

/// Sends every datagram back.
pub(super) fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let local = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buf = [0; 70_000];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..len], from);
        }
    });
    local
}

/// Sends everything back, and its end behind it.
pub(super) fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let local = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (mut from, mut to) = (tcp.try_clone().unwrap(), tcp);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    local
}

/// Waits for what workers show of themselves, once a second.
pub(super) fn eventually(host: &Host, wanted: impl Fn(&[Snapshot]) -> bool) {
    for _ in 0..200 {
        if wanted(&host.snapshots()) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{:?}", host.snapshots());
}

pub(super) fn refusal(cause: Cause) -> String {
    format!("{cause}")
}
