//! An ICE agent on real sockets that exchanges numbered messages with its other side.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ice_proto::{
    Candidate, ComponentId, FiveTuple, Instant, Received, RemoteDescription, Transport,
};
use ims_traversal::media::{
    MAX_TRANSMIT, Media, MediaAction, MediaConfig, MediaEvent, ServerCause,
};
use ims_traversal::{ConnError, ConnFailure, ConnId, Endpoint};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::conn::{Conn, ConnInput};
use super::messages::{Messages, Summary};
use super::network::Network;
use super::trace::{Hop, crossing, unit};
use super::{now, seed, sleep_until};

/// What a peer is told.
pub struct PeerConfig {
    /// What its payloads begin with.
    pub name: String,
    /// Servers, role, components; the proxy and TLS.
    pub media: MediaConfig,
    /// Local addresses.
    pub bind: Vec<IpAddr>,
    /// The firewall in front of it.
    pub network: Network,
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

enum Input {
    Datagram(FiveTuple, Vec<u8>),
    Conn(ConnId, ConnInput),
}

/// A peer at work.
pub struct Peer {
    config: PeerConfig,
    media: Media,
    sockets: HashMap<SocketAddr, Arc<UdpSocket>>,
    conns: HashMap<ConnId, Conn>,
    input: mpsc::Receiver<Input>,
    inputs: mpsc::Sender<Input>,
    on: Box<dyn FnMut(PeerOutput) + Send>,
    described: bool,
    remote_since: Option<Instant>,
    connected: bool,
    failure: Option<String>,
    last_server_failure: Option<String>,
    closed: bool,
    messages: Messages,
}

impl Peer {
    /// Binds the sockets and begins to gather.
    pub async fn new(
        config: PeerConfig,
        on: impl FnMut(PeerOutput) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (inputs, input) = mpsc::channel(1024);
        let mut peer = Self {
            media: Media::new(config.media.clone(), seed(), now()),
            config,
            sockets: HashMap::new(),
            conns: HashMap::new(),
            input,
            inputs,
            on: Box::new(on),
            described: false,
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
                peer.media.add_host(now(), component, local)?;
            }
        }
        peer.media.gather(now())?;
        Ok(peer)
    }

    fn components(&self) -> Vec<ComponentId> {
        let streams = &self.config.media.session.agent.components;
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
        if let Err(error) = self.media.set_remote(now(), description) {
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
        self.media.close(now());
        let end = now() + Duration::from_secs(1);
        while !(self.closed && self.conns.is_empty()) && self.step(end).await.is_ok() {}
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
            () = sleep_until(self.media.poll_timeout()) => self.media.handle_timeout(now()),
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
                let received = self.media.handle_datagram(now(), at, &data);
                if let Received::Data { peer, data } = received {
                    self.messages.take(&self.config.name, peer, data);
                }
            }
            Input::Conn(id, ConnInput::Connected(tcp)) => {
                let (Ok(local), Ok(remote)) = (tcp.local_addr(), tcp.peer_addr()) else {
                    return self.media.connection_failed(now(), id, ConnFailure::Reset);
                };
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.established(tcp);
                    self.media.connected(now(), id, local, remote);
                }
            }
            Input::Conn(id, ConnInput::Failed(failure)) => {
                self.conns.remove(&id);
                self.media.connection_failed(now(), id, failure);
            }
            Input::Conn(id, ConnInput::Data(data)) => {
                if let Some((hop, what)) = crossing(&data) {
                    self.crossed(false, hop, what);
                }
                self.media.handle_input(now(), id, &data);
                while let Some(received) = self.media.poll_received(now()) {
                    if let Received::Data { peer, data } = received {
                        self.messages.take(&self.config.name, peer, data);
                    }
                }
            }
            Input::Conn(id, ConnInput::Eof) => {
                self.media.handle_eof(now(), id);
                while self.media.poll_received(now()).is_some() {}
            }
            // Draining writes.
            Input::Conn(_, ConnInput::Writable) => {}
        }
    }

    fn hop(&self, remote: SocketAddr) -> Hop {
        let session = &self.config.media.session;
        let turn = session.turn_servers.iter().any(|s| s.addr == remote);
        if turn || session.stun_servers.contains(&remote) {
            Hop::Server
        } else {
            Hop::Peer
        }
    }

    fn drain(&mut self) {
        let mut buf = [0; MAX_TRANSMIT];
        for (component, payload) in std::mem::take(&mut self.messages.echoes) {
            self.send(component, &payload);
        }
        loop {
            while let Some(sent) = self.media.poll_transmit(&mut buf) {
                self.transmit(sent.to, &buf[..sent.len]);
            }
            if let Some(action) = self.media.poll_action() {
                self.act(action);
            } else if let Some(event) = self.media.poll_event() {
                self.event(event);
            } else if !self.write_conns() {
                return;
            }
        }
    }

    /// Writes to the connections what they take; whether one of them broke.
    fn write_conns(&mut self) -> bool {
        let (mut broken, mut sent) = (None, Vec::new());
        self.conns.retain(|id, conn| {
            let written = conn.write(|buf| {
                let len = self.media.poll_conn(*id, buf)?;
                sent.extend(crossing(&buf[..len]));
                Some(len)
            });
            if written.is_err() {
                broken = Some(*id);
            }
            written.is_ok() && !conn.is_done()
        });
        for (hop, what) in sent {
            self.crossed(true, hop, what);
        }
        if let Some(id) = broken {
            self.media.connection_failed(now(), id, ConnFailure::Reset);
        }
        broken.is_some()
    }

    fn transmit(&mut self, at: FiveTuple, data: &[u8]) {
        if let Some(socket) = self.sockets.get(&at.local)
            && self.config.network.send(socket, data, at.remote)
        {
            let hop = self.hop(at.remote);
            self.trace(true, hop, data);
        }
    }

    fn act(&mut self, action: MediaAction) {
        match action {
            MediaAction::Connect { conn, to } => self.dial(conn, to),
            MediaAction::Close { conn } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.close();
                }
            }
            MediaAction::OpenSocket { relay, local } => {
                let bound = std::net::UdpSocket::bind((local, 0)).and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    self.add_socket(UdpSocket::from_std(socket)?)
                });
                match bound {
                    Ok(at) => self.media.socket_opened(now(), relay, at),
                    Err(_) => self.media.socket_failed(now(), relay),
                }
            }
            MediaAction::CloseSocket { local } => drop(self.sockets.remove(&local)),
        }
    }

    fn dial(&mut self, id: ConnId, to: Endpoint) {
        let (hop, what) = match &self.config.media.proxy {
            Some(_) => (Hop::Proxy, "CONNECT"),
            None => (Hop::Server, "TCP connection"),
        };
        self.crossed(true, hop, what.into());
        let (network, inputs) = (self.config.network.clone(), self.inputs.clone());
        let on = move |input| {
            let inputs = inputs.clone();
            async move { inputs.send(Input::Conn(id, input)).await.is_ok() }
        };
        self.conns.insert(id, Conn::dial(network, to, on));
    }

    fn event(&mut self, event: MediaEvent) {
        match event {
            MediaEvent::Gathered => self.described(),
            MediaEvent::Proxied { .. } => {
                self.crossed(false, Hop::Proxy, "HTTP 2xx: tunnel open".into());
            }
            MediaEvent::Connected { transport, .. } => {
                let what = match transport {
                    Transport::Tls => "TLS handshake complete",
                    Transport::Tcp | Transport::Udp | Transport::Dtls => "TCP connection open",
                };
                self.crossed(false, Hop::Server, what.into());
            }
            MediaEvent::ServerFailed {
                server,
                transport,
                cause,
                ..
            } => {
                let step = match &cause {
                    ServerCause::Conn(ConnError::Tcp(_)) => "TCP connection: ",
                    _ => "",
                };
                let why = format!("server {server} over {transport}: {step}{cause}");
                self.last_server_failure = Some(why.clone());
                (self.on)(PeerOutput::ServerFailed(why));
            }
            // Nobody here to ask.
            MediaEvent::NeedCredentials { conn, .. } => {
                self.media.set_credentials(now(), conn, None);
            }
            MediaEvent::NeedToken { conn, .. } => self.media.set_token(now(), conn, None),
            MediaEvent::Selected {
                component,
                local,
                remote,
                relay,
                rtt,
            } => (self.on)(PeerOutput::Selected {
                component,
                local,
                remote,
                relay_transport: relay.map(|leg| leg.transport),
                rtt,
            }),
            MediaEvent::Completed => {
                self.connected = true;
                if let Some(since) = self.remote_since {
                    self.messages.summary.connected_after = now().duration_since(since);
                }
                (self.on)(PeerOutput::State("connected"));
            }
            MediaEvent::Failed(failure) => self.failure = Some(failure.to_string()),
            MediaEvent::Closed => self.closed = true,
            _ => {}
        }
    }

    fn described(&mut self) {
        self.described = true;
        let agent = self.media.agent();
        let candidates: Vec<_> = agent
            .local_candidates()
            .map(|(_, candidate)| candidate.to_string())
            .collect();
        if candidates.is_empty() {
            let why = self.last_server_failure.take();
            self.failure = Some(why.unwrap_or_else(|| "no candidates".into()));
            return;
        }
        let credentials = agent.local_credentials().clone();
        (self.on)(PeerOutput::Description {
            ufrag: credentials.ufrag,
            pwd: credentials.pwd.expose().to_owned(),
            candidates,
        });
    }

    fn send(&mut self, component: ComponentId, payload: &[u8]) {
        let mut buf = [0; 2048];
        // What cannot be sent is sent again.
        if let Ok(Some(sent)) = self.media.send(now(), component, payload, &mut buf) {
            self.transmit(sent.to, &buf[..sent.len]);
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
        if let Some(what) = unit(data) {
            self.crossed(sent, hop, what);
        }
    }

    fn crossed(&mut self, sent: bool, hop: Hop, what: String) {
        (self.on)(PeerOutput::Crossed { sent, hop, what });
    }
}
