//! An ICE agent on real sockets that exchanges numbered messages with its other side.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ice_proto::{
    Candidate, ComponentId, Event as IceEvent, FiveTuple, Instant, Received, RemoteDescription,
    SESSION_MAX_TRANSMIT, Session, SessionAction, SessionConfig, SessionEvent, StreamFailure,
    StreamId, Transport,
};
use ims_traversal::tunnel::{TunnelConfig, TunnelError};
use stun_proto::Path;
use stun_proto::wire::{Class, Message};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::network::Network;
use super::stream::{self, StreamError, StreamInput, Writer};
use super::{now, seed, sleep_until};

/// A connection to a TURN server that the session wants.
#[derive(Clone, Debug)]
pub struct WantedStream {
    /// TCP or TLS.
    pub transport: Transport,
    /// The server.
    pub remote: SocketAddr,
    /// The name its certificate must be for.
    pub server_name: Option<String>,
}

/// How a stream is opened: where the TCP connection goes, and what is inside it.
pub type OpenStream =
    Box<dyn Fn(&WantedStream) -> Result<(SocketAddr, TunnelConfig), String> + Send>;

/// What a peer is told.
pub struct PeerConfig {
    /// What its payloads begin with.
    pub name: String,
    /// Servers, role, components.
    pub session: SessionConfig,
    /// Local addresses.
    pub bind: Vec<IpAddr>,
    /// The firewall in front of it.
    pub network: Network,
    /// How streams are opened.
    pub open_stream: OpenStream,
    /// Payloads for each component.
    pub messages: u32,
    /// When it gives up.
    pub timeout: Duration,
    /// How long it echoes on when it is done.
    pub linger: Duration,
}

/// What a peer tells.
#[derive(Clone, Debug)]
pub enum PeerOutput {
    /// Its description is complete.
    Description {
        /// User name fragment.
        ufrag: String,
        /// Password.
        pwd: String,
        /// The candidate lines.
        candidates: Vec<String>,
    },
    /// A server is of no use.
    ServerFailed(String),
    /// A step was made.
    State(&'static str),
    /// A component has its pair.
    Selected {
        /// Which one.
        component: ComponentId,
        /// This side's candidate.
        local: Candidate,
        /// The other side's.
        remote: Candidate,
        /// How the relay is reached, if there is one on this side.
        relay_transport: Option<Transport>,
        /// Round trip of the check.
        rtt: Duration,
    },
    /// Something crossed a hop.
    Crossed {
        /// From this peer, or to it.
        sent: bool,
        /// The hop.
        hop: Hop,
        /// What it was.
        what: String,
    },
}

/// The next host on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The HTTP proxy.
    Proxy,
    /// The STUN or TURN server.
    Server,
    /// The other peer.
    Peer,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Payloads sent, not counting resends.
    pub sent: u32,
    /// Payloads that came back.
    pub echoed: u32,
    /// Payloads of the other side.
    pub received: u32,
    /// Resends.
    pub resent: u32,
    /// From the other side's description to the last selected pair.
    pub connected_after: Duration,
}

enum Input {
    Datagram(FiveTuple, Vec<u8>),
    Stream(StreamId, StreamInput),
}

/// A peer at work.
pub struct Peer {
    config: PeerConfig,
    session: Session,
    sockets: HashMap<SocketAddr, Arc<UdpSocket>>,
    streams: HashMap<StreamId, Writer>,
    servers: HashMap<StreamId, WantedStream>,
    input: mpsc::Receiver<Input>,
    inputs: mpsc::Sender<Input>,
    on: Box<dyn FnMut(PeerOutput) + Send>,
    described: bool,
    candidates: usize,
    remote_since: Option<Instant>,
    connected: bool,
    failure: Option<String>,
    last_server_failure: Option<String>,
    closed: bool,
    messages: Messages,
}

/// Payloads under way.
#[derive(Default)]
struct Messages {
    summary: Summary,
    /// Sent and not come back: when it was sent last.
    waiting: BTreeMap<(ComponentId, u32), Instant>,
    next: u32,
    /// Payloads to send back.
    echoes: Vec<(ComponentId, Vec<u8>)>,
}

impl Peer {
    /// Binds the sockets and begins to gather.
    pub async fn new(
        config: PeerConfig,
        on: impl FnMut(PeerOutput) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (inputs, input) = mpsc::channel(1024);
        let mut peer = Self {
            session: Session::new(config.session.clone(), seed(), now()),
            config,
            sockets: HashMap::new(),
            streams: HashMap::new(),
            servers: HashMap::new(),
            input,
            inputs,
            on: Box::new(on),
            described: false,
            candidates: 0,
            remote_since: None,
            connected: false,
            failure: None,
            last_server_failure: None,
            closed: false,
            messages: Messages::default(),
        };
        for component in peer.components() {
            for ip in peer.config.bind.clone() {
                let socket = UdpSocket::bind((ip, 0)).await?;
                let local = peer.add_socket(socket)?;
                peer.session.add_host(now(), component, local)?;
            }
        }
        peer.session.gather(now())?;
        Ok(peer)
    }

    fn components(&self) -> Vec<ComponentId> {
        let streams = &self.config.session.agent.components;
        (0..)
            .zip(streams)
            .flat_map(|(stream, most)| {
                (1..=*most).map(move |component| ComponentId { stream, component })
            })
            .collect()
    }

    fn add_socket(&mut self, socket: UdpSocket) -> std::io::Result<SocketAddr> {
        let local = socket.local_addr()?;
        let socket = Arc::new(socket);
        self.sockets.insert(local, Arc::clone(&socket));
        let (inputs, blocked) = (self.inputs.clone(), self.config.network.udp_blocked);
        tokio::spawn(async move {
            let mut buf = vec![0; 65_536];
            while let Ok((len, remote)) = socket.recv_from(&mut buf).await {
                let at = FiveTuple::udp(local, remote);
                let input = Input::Datagram(at, buf[..len].to_vec());
                // Ends with the peer.
                if !blocked && inputs.send(input).await.is_err() {
                    return;
                }
            }
        });
        Ok(local)
    }

    /// Takes in the other side's description.
    pub fn set_remote(&mut self, description: &RemoteDescription) {
        if let Err(error) = self.session.set_remote_description(now(), description) {
            self.failure = Some(format!("the other side's description: {error}"));
        }
        self.remote_since = Some(now());
        (self.on)(PeerOutput::State("checking"));
    }

    /// Runs until the description is complete.
    pub async fn gather(&mut self) -> Result<(), String> {
        let end = now() + self.config.timeout;
        self.drain();
        while !self.described {
            self.step(end).await?;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Runs until all payloads have come back.
    pub async fn exchange(&mut self) -> Result<Summary, String> {
        let end = now() + self.config.timeout;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !self.is_done() {
            if self.connected {
                tokio::select! {
                    _ = tick.tick() => self.send_messages(),
                    stepped = self.step(end) => stepped?,
                }
            } else {
                self.step(end).await?;
            }
        }
        Ok(self.messages.summary)
    }

    /// Echoes on, then gives everything back; how it went in the end.
    pub async fn finish(mut self) -> Summary {
        let end = now() + self.config.linger;
        while now() < end && self.step(end).await.is_ok() {}
        self.session.close(now());
        let end = now() + Duration::from_secs(1);
        while !self.closed && self.step(end).await.is_ok() {}
        self.streams.clear();
        self.messages.summary
    }

    fn is_done(&self) -> bool {
        let all = self.config.messages * self.components().len() as u32;
        self.connected && self.messages.summary.echoed >= all
    }

    /// Waits for one thing to happen, and does what follows from it.
    async fn step(&mut self, end: Instant) -> Result<(), String> {
        self.drain();
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        tokio::select! {
            Some(input) = self.input.recv() => self.take(input),
            () = sleep_until(self.session.poll_timeout()) => self.session.handle_timeout(now()),
            () = sleep_until(Some(end)) => {
                let step = if !self.described {
                    "gathering"
                } else if self.remote_since.is_none() {
                    "waiting for the other side's description"
                } else if self.connected {
                    "exchanging messages"
                } else {
                    "checking"
                };
                return Err(format!("timeout while {step}"));
            }
        }
        self.drain();
        Ok(())
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Datagram(at, data) => {
                let hop = self.hop(at.remote);
                self.trace(false, hop, &data);
                let received = self.session.handle_datagram(now(), at, &data);
                if let Received::Data { peer, data } = received {
                    self.messages.take(&self.config.name, peer, data);
                }
            }
            Input::Stream(id, StreamInput::Data(data)) => {
                self.trace(false, Hop::Server, &data);
                let mut input = &data[..];
                while !input.is_empty() {
                    let received = self.session.handle_stream(now(), id, &mut input);
                    if let Received::Data { peer, data } = received {
                        self.messages.take(&self.config.name, peer, data);
                    }
                }
            }
            Input::Stream(id, StreamInput::Ready(local)) => {
                let secure = self.servers.get(&id).map(|s| s.transport);
                if secure == Some(Transport::Tls) {
                    self.crossed(false, Hop::Server, "TLS handshake complete".into());
                }
                self.session.stream_opened(now(), id, local);
            }
            Input::Stream(_, StreamInput::ProxyConnected) => {
                self.crossed(false, Hop::Proxy, "HTTP 2xx: tunnel open".into());
            }
            Input::Stream(id, StreamInput::Closed) => {
                self.session.handle_stream_closed(now(), id);
            }
            Input::Stream(id, StreamInput::Failed(error)) => {
                let server = self.servers.get(&id).map(|s| s.remote);
                self.last_server_failure = Some(match server {
                    Some(server) => format!("TURN server {server}: {error}"),
                    None => error.to_string(),
                });
                self.session.stream_failed(now(), id, failure_of(&error));
            }
        }
    }

    fn hop(&self, remote: SocketAddr) -> Hop {
        let session = &self.config.session;
        let turn = session.turn_servers.iter().any(|s| s.addr == remote);
        if turn || session.stun_servers.contains(&remote) {
            Hop::Server
        } else {
            Hop::Peer
        }
    }

    fn drain(&mut self) {
        let mut buf = [0; SESSION_MAX_TRANSMIT];
        for (component, payload) in std::mem::take(&mut self.messages.echoes) {
            self.send(component, &payload);
        }
        loop {
            while let Some(sent) = self.session.poll_transmit(&mut buf) {
                self.transmit(sent.to, &buf[..sent.len]);
            }
            if let Some(action) = self.session.poll_action() {
                self.act(action);
            } else if let Some(event) = self.session.poll_event() {
                self.event(event);
            } else {
                return;
            }
        }
    }

    fn transmit(&mut self, to: Path, data: &[u8]) {
        match to {
            Path::Datagram(at) => {
                if let Some(socket) = self.sockets.get(&at.local)
                    && self.config.network.send(socket, data, at.remote)
                {
                    let hop = self.hop(at.remote);
                    self.trace(true, hop, data);
                }
            }
            Path::Stream(id) => {
                self.trace(true, Hop::Server, data);
                if let Some(writer) = self.streams.get(&id) {
                    let _ = writer.try_send(data.to_vec());
                }
            }
        }
    }

    fn act(&mut self, action: SessionAction) {
        match action {
            SessionAction::OpenStream {
                id,
                transport,
                remote,
                server_name,
            } => {
                let wanted = WantedStream {
                    transport,
                    remote,
                    server_name,
                };
                self.servers.insert(id, wanted.clone());
                match (self.config.open_stream)(&wanted) {
                    Ok((to, config)) => self.dial(id, &wanted, to, config),
                    Err(why) => {
                        self.last_server_failure = Some(format!("TURN server {remote}: {why}"));
                        self.session.stream_failed(now(), id, StreamFailure::Other);
                    }
                }
            }
            SessionAction::CloseStream { id } => drop(self.streams.remove(&id)),
            SessionAction::OpenSocket { relay, local } => {
                let bound = std::net::UdpSocket::bind((local, 0)).and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    self.add_socket(UdpSocket::from_std(socket)?)
                });
                match bound {
                    Ok(at) => self.session.socket_opened(now(), relay, at),
                    Err(_) => self.session.socket_failed(now(), relay),
                }
            }
            SessionAction::CloseSocket { local } => drop(self.sockets.remove(&local)),
            _ => {}
        }
    }

    fn dial(&mut self, id: StreamId, wanted: &WantedStream, to: SocketAddr, config: TunnelConfig) {
        if config.proxy.is_some() {
            let what = format!("CONNECT {}", wanted.remote);
            self.crossed(true, Hop::Proxy, what);
        } else {
            let what = format!("{} connection", wanted.transport);
            self.crossed(true, Hop::Server, what);
        }
        let (writer, outgoing) = stream::queue();
        self.streams.insert(id, writer);
        let (network, inputs) = (self.config.network.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let (queue, mut queued) = mpsc::unbounded_channel();
            let on = move |input| drop(queue.send(input));
            let forward = async {
                while let Some(input) = queued.recv().await {
                    let _ = inputs.send(Input::Stream(id, input)).await;
                }
            };
            tokio::join!(stream::dial(network, to, config, outgoing, on), forward);
        });
    }

    fn event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::LocalCandidate { .. } => self.candidates += 1,
            SessionEvent::GatheringDone => self.described(),
            SessionEvent::ServerFailed {
                server,
                transport,
                cause,
                ..
            } => {
                let why = match &self.last_server_failure {
                    Some(why) if why.contains(&server.to_string()) => why.clone(),
                    _ => format!("server {server} over {transport}: {cause}"),
                };
                self.last_server_failure = Some(why.clone());
                (self.on)(PeerOutput::ServerFailed(why));
            }
            SessionEvent::Ice(IceEvent::Selected {
                component,
                local,
                remote,
                rtt,
                ..
            }) => {
                let relayed = local.kind == ice_proto::CandidateKind::Relayed;
                let relay_transport = relayed.then(|| {
                    let stream = self.servers.values().next().map(|s| s.transport);
                    stream.unwrap_or(Transport::Udp)
                });
                (self.on)(PeerOutput::Selected {
                    component,
                    local,
                    remote,
                    relay_transport,
                    rtt,
                });
            }
            SessionEvent::Ice(IceEvent::Completed) => {
                self.connected = true;
                if let Some(since) = self.remote_since {
                    self.messages.summary.connected_after = now().duration_since(since);
                }
                (self.on)(PeerOutput::State("connected"));
            }
            SessionEvent::Ice(IceEvent::Failed(failure)) => {
                self.failure = Some(failure.to_string());
            }
            SessionEvent::Closed => self.closed = true,
            _ => {}
        }
    }

    fn described(&mut self) {
        self.described = true;
        if self.candidates == 0 {
            let why = self.last_server_failure.take();
            self.failure = Some(why.unwrap_or_else(|| "no candidates".into()));
            return;
        }
        let credentials = self.session.agent().local_credentials().clone();
        let candidates = self.session.agent().local_candidates();
        let candidates = candidates
            .map(|(_, candidate)| candidate.to_string())
            .collect();
        (self.on)(PeerOutput::Description {
            ufrag: credentials.ufrag,
            pwd: credentials.pwd,
            candidates,
        });
    }

    fn send(&mut self, component: ComponentId, payload: &[u8]) -> bool {
        let mut buf = [0; 2048];
        match self.session.send(now(), component, payload, &mut buf) {
            Ok(sent) => {
                self.transmit(sent.to, &buf[..sent.len]);
                true
            }
            Err(_) => false,
        }
    }

    /// The next new payload of each component, and those that have not come back for too long.
    fn send_messages(&mut self) {
        let time = now();
        let late = Duration::from_millis(500);
        let again: Vec<_> = self
            .messages
            .waiting
            .iter()
            .filter(|(_, sent)| time.duration_since(**sent) >= late)
            .map(|(key, _)| *key)
            .collect();
        for (component, number) in again {
            self.messages.summary.resent += 1;
            self.send_message(component, number);
        }
        if self.messages.next < self.config.messages {
            let number = self.messages.next;
            self.messages.next += 1;
            for component in self.components() {
                self.messages.summary.sent += 1;
                self.send_message(component, number);
            }
        }
    }

    fn send_message(&mut self, component: ComponentId, number: u32) {
        let payload = format!(
            "{} {} {} {number}",
            self.config.name, component.stream, component.component
        );
        self.messages.waiting.insert((component, number), now());
        self.send(component, payload.as_bytes());
    }

    fn trace(&mut self, sent: bool, hop: Hop, data: &[u8]) {
        let what = match data.first() {
            Some(0x40..=0x4F) => "ChannelData".to_owned(),
            Some(0..=3) => match Message::parse(data) {
                Ok(message) => describe(&message),
                Err(_) => return,
            },
            _ => "data".to_owned(),
        };
        self.crossed(sent, hop, what);
    }

    fn crossed(&mut self, sent: bool, hop: Hop, what: String) {
        (self.on)(PeerOutput::Crossed { sent, hop, what });
    }
}

impl Messages {
    fn take(&mut self, name: &str, component: ComponentId, data: &[u8]) {
        let own = std::str::from_utf8(data)
            .ok()
            .and_then(|text| text.strip_prefix(name)?.strip_prefix(' '));
        let Some(rest) = own else {
            self.summary.received += 1;
            self.echoes.push((component, data.to_vec()));
            return;
        };
        let number = rest.rsplit(' ').next().and_then(|n| n.parse().ok());
        if let Some(number) = number
            && self.waiting.remove(&(component, number)).is_some()
        {
            self.summary.echoed += 1;
        }
    }
}

/// A STUN message in words.
fn describe(message: &Message<'_>) -> String {
    let method = match message.method().number() {
        0x001 => "Binding",
        0x003 => "Allocate",
        0x004 => "Refresh",
        0x006 => "Send",
        0x007 => "Data",
        0x008 => "CreatePermission",
        0x009 => "ChannelBind",
        _ => "STUN",
    };
    match message.class() {
        Class::Request => format!("{method} request"),
        Class::Indication => format!("{method} indication"),
        Class::Success => format!("{method} success"),
        Class::Error => {
            let error = message.find::<stun_proto::wire::ErrorCode<'_>>();
            let code = error.map_or(0, |error| error.code());
            format!("{method} error {code}")
        }
    }
}

fn failure_of(error: &StreamError) -> StreamFailure {
    match error {
        StreamError::Tcp { error, .. } => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => StreamFailure::Refused,
            std::io::ErrorKind::TimedOut => StreamFailure::Timeout,
            _ => StreamFailure::Other,
        },
        StreamError::Tunnel(
            TunnelError::Refused(_) | TunnelError::Connect(_) | TunnelError::NotATunnel(_),
        ) => StreamFailure::Proxy,
        StreamError::Tunnel(_) => StreamFailure::Tls,
    }
}
