//! A TURN client for the command line: allocates, and counts what comes back from an echo.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a program on std, not a machine"
)]

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use stun_proto::auth::Credentials;
use stun_proto::{FiveTuple, Path, Received, StreamId, Transport};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use turn_proto::RelayProtocol;
use turn_proto::client::{
    Action, AllocateOptions, Client, ClientConfig, Connection, Event, MAX_TRANSMIT,
};
use turn_proto::server::RestUsers;

use common::echo::Echoes;
use common::network::Network;
use common::servers::{self, Proxy, TurnUri};
use common::stream::{self, StreamInput, Writer};
use common::{now, say, seed, sleep_until};

/// A TURN client for the command line.
///
/// Allocates a relayed address, sends numbered messages to each peer, which is expected to echo
/// them, and gives the address back. With --tcp-relay over one TCP connection for each peer
/// (RFC 6062), and --accept serves connections from the peers. Exit code 0 when everything came
/// back.
#[derive(Debug, Parser)]
#[command(name = "turn-client", version)]
struct Args {
    /// The server, turn: or turns:HOST[:PORT][?transport=udp|tcp].
    #[arg(value_name = "URI")]
    server: String,
    /// User name.
    #[arg(long)]
    username: Option<String>,
    /// Password.
    #[arg(long, env = "TURN_CLIENT_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Makes user name and password from a secret shared with the server; the name counts for
    /// ten minutes.
    #[arg(long, value_name = "SECRET", conflicts_with_all = ["username", "password"])]
    rest_secret: Option<String>,
    /// An HTTP proxy for TCP and TLS, http://[USER:PASSWORD@]HOST:PORT.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Certificates to trust, a PEM file; those the system trusts when it is not given.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// An echo; may be given several times.
    #[arg(long, value_name = "IP:PORT")]
    peer: Vec<SocketAddr>,
    /// TCP between server and peers.
    #[arg(long)]
    tcp_relay: bool,
    /// Connections from peers to wait for and to echo (with --tcp-relay); permissions are for the
    /// addresses of --permit.
    #[arg(long, default_value_t = 0, requires = "tcp_relay")]
    accept: usize,
    /// An address peers may connect or send from; may be given several times.
    #[arg(long, value_name = "IP")]
    permit: Vec<IpAddr>,
    /// Indications instead of channels.
    #[arg(long)]
    no_channel: bool,
    /// Messages to each peer.
    #[arg(long, default_value_t = 10)]
    messages: u32,
    /// Bytes of each message.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=1200))]
    size: u16,
    /// Milliseconds between messages.
    #[arg(long, default_value_t = 20)]
    interval: u64,
    /// Seconds for all of it.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

enum Input {
    Datagram(FiveTuple, Vec<u8>),
    Stream(StreamId, StreamInput),
}

/// What a stream that leads to a peer is for.
#[derive(Clone, Copy)]
enum Use {
    /// Our messages, to this peer.
    Ours(SocketAddr),
    /// A peer's, to be sent back.
    Theirs,
}

struct Program {
    args: Args,
    server: TurnUri,
    proxy: Option<Proxy>,
    tls: Option<Arc<rustls::ClientConfig>>,
    client: Client,
    udp: Option<Arc<UdpSocket>>,
    streams: HashMap<StreamId, Writer>,
    /// The connection a stream is being opened for.
    opening: HashMap<StreamId, Connection>,
    open: HashMap<StreamId, Use>,
    accepting: HashMap<Connection, SocketAddr>,
    inputs: mpsc::Sender<Input>,
    next_stream: u64,
    echoes: Echoes,
    accepted: usize,
    served: usize,
    served_bytes: usize,
    /// TCP connections that became ready.
    connections: usize,
    failure: Option<String>,
    closed: bool,
}

/// The stream to the server.
const CONTROL: StreamId = StreamId(0);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = format!("{error:#}");
            if json {
                say(&json!({ "type": "failed", "reason": reason }).to_string());
            } else {
                say(&format!("failed: {reason}"));
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let server = servers::turn_uri(&args.server)?;
    let proxy = args.proxy.as_deref().map(servers::proxy).transpose()?;
    ensure!(
        proxy.is_none() || server.transport.is_stream(),
        "--proxy is for TCP and TLS"
    );
    let (inputs, mut input) = mpsc::channel(1024);
    let mut program = Program::new(args, server, proxy, inputs).await?;
    let end = now() + Duration::from_secs(program.args.timeout);
    let mut tick =
        tokio::time::interval(Duration::from_millis(program.args.interval.clamp(1, 1000)));
    while !program.is_done() {
        program.drain();
        if let Some(failure) = program.failure.take() {
            bail!(failure);
        }
        tokio::select! {
            Some(input) = input.recv() => program.take(input),
            () = sleep_until(program.client.poll_timeout()) => program.client.handle_timeout(now()),
            _ = tick.tick() => program.send_messages(),
            () = sleep_until(Some(end)) => bail!("timeout: {}", program.state()),
        }
    }
    program.client.close(now());
    let end = now() + Duration::from_secs(2);
    while !program.closed {
        program.drain();
        tokio::select! {
            Some(input) = input.recv() => program.take(input),
            () = sleep_until(Some(end)) => break,
        }
        program.drain();
    }
    program.print_done();
    Ok(())
}

impl Program {
    async fn new(
        args: Args,
        server: TurnUri,
        proxy: Option<Proxy>,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self> {
        let tls = Some(common::tls::client_trusting(args.ca.as_deref())?);
        let config = ClientConfig::new(credentials(&args)?);
        let (path, udp) = if server.transport.is_stream() {
            (Path::Stream(CONTROL), None)
        } else {
            let local = servers::local_address(server.addr)?;
            let socket = UdpSocket::bind((local, 0)).await?;
            let at = FiveTuple::udp(socket.local_addr()?, server.addr);
            (Path::Datagram(at), Some((Arc::new(socket), at)))
        };
        let client = Client::new(config, path, server.transport, seed(), now());
        let mut program = Self {
            echoes: Echoes::new(&args.peer, args.messages, usize::from(args.size)),
            args,
            server,
            proxy,
            tls,
            client,
            udp: udp.as_ref().map(|(socket, _)| Arc::clone(socket)),
            streams: HashMap::new(),
            opening: HashMap::new(),
            open: HashMap::new(),
            accepting: HashMap::new(),
            inputs,
            next_stream: 1,
            accepted: 0,
            served: 0,
            served_bytes: 0,
            connections: 0,
            failure: None,
            closed: false,
        };
        match udp {
            Some((socket, at)) => {
                let inputs = program.inputs.clone();
                tokio::spawn(async move {
                    let mut buf = vec![0; 65_536];
                    while let Ok((len, from)) = socket.recv_from(&mut buf).await {
                        let from = FiveTuple::udp(at.local, from);
                        // Ends with the program.
                        let _ = inputs
                            .send(Input::Datagram(from, buf[..len].to_vec()))
                            .await;
                    }
                });
                program.allocate()?;
            }
            None => program.dial(CONTROL)?,
        }
        Ok(program)
    }

    fn allocate(&mut self) -> Result<()> {
        let options = AllocateOptions {
            protocol: if self.args.tcp_relay {
                RelayProtocol::Tcp
            } else {
                RelayProtocol::Udp
            },
            ..AllocateOptions::default()
        };
        Ok(self.client.allocate(now(), options)?)
    }

    /// Opens a connection to the server, through the proxy if there is one.
    fn dial(&mut self, id: StreamId) -> Result<()> {
        let secure = self.server.transport == Transport::Tls;
        let (to, config) = servers::way_to(
            self.server.addr,
            secure,
            &self.server.host,
            self.proxy.as_ref(),
            self.tls.as_ref(),
        )?;
        let (writer, outgoing) = stream::queue();
        self.streams.insert(id, writer);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let (queue, mut queued) = mpsc::unbounded_channel();
            let on = move |input| drop(queue.send(input));
            let forward = async {
                while let Some(input) = queued.recv().await {
                    let _ = inputs.send(Input::Stream(id, input)).await;
                }
            };
            let network = Network::default();
            tokio::join!(stream::dial(network, to, config, outgoing, on), forward);
        });
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.echoes.done() && self.served >= self.args.accept
    }

    fn state(&self) -> String {
        let (back, all) = self.echoes.back();
        format!(
            "{back} of {all} messages came back, {} of {} connections served",
            self.served, self.args.accept
        )
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Datagram(at, data) => {
                if let Received::Data { peer, data } = self.client.handle_datagram(now(), at, &data)
                {
                    self.echoes.datagram(peer, data);
                }
            }
            Input::Stream(id, StreamInput::Data(data)) => self.take_stream(id, &data),
            Input::Stream(id, StreamInput::Ready(_)) => {
                self.connections += 1;
                let opened = match self.opening.remove(&id) {
                    Some(connection) => {
                        let opened = self.client.handle_stream_opened(now(), connection, id);
                        opened.map_err(Into::into)
                    }
                    None => self.allocate(),
                };
                if let Err(error) = opened {
                    self.failure = Some(format!("{error:#}"));
                }
            }
            Input::Stream(_, StreamInput::ProxyConnected) => {}
            Input::Stream(id, StreamInput::Closed) => self.stream_closed(id, None),
            Input::Stream(id, StreamInput::Failed(error)) => {
                self.stream_closed(id, Some(error.to_string()));
            }
        }
    }

    fn take_stream(&mut self, id: StreamId, data: &[u8]) {
        let mut input = data;
        while !input.is_empty() {
            let received = self.client.handle_stream(now(), id, &mut input);
            let Received::Data { peer, data } = received else {
                // What made the rest raw bytes of a peer is said by an event.
                self.drain();
                continue;
            };
            let data = data.to_vec();
            match self.open.get(&id) {
                Some(Use::Ours(peer)) => {
                    if !self.echoes.stream(*peer, &data) {
                        self.failure = Some(format!("{peer} sent something else back"));
                    }
                }
                Some(Use::Theirs) => {
                    self.served_bytes += data.len();
                    self.write(id, data);
                }
                None => self.echoes.datagram(peer, &data),
            }
        }
    }

    fn stream_closed(&mut self, id: StreamId, why: Option<String>) {
        self.streams.remove(&id);
        if let Some(connection) = self.opening.remove(&id) {
            self.client.handle_stream_failed(now(), connection);
        } else {
            self.client.handle_stream_closed(now(), id);
        }
        if let Some(Use::Theirs) = self.open.remove(&id) {
            self.served += 1;
        } else if let Some(why) = why {
            self.failure = Some(why);
        }
    }

    fn drain(&mut self) {
        let mut buf = [0; MAX_TRANSMIT];
        loop {
            while let Some(sent) = self.client.poll_transmit(&mut buf) {
                self.transmit(sent.to, &buf[..sent.len]);
            }
            if let Some(action) = self.client.poll_action() {
                match action {
                    Action::OpenStream { connection } => {
                        let id = StreamId(self.next_stream);
                        self.next_stream += 1;
                        self.opening.insert(id, connection);
                        if let Err(error) = self.dial(id) {
                            self.failure = Some(format!("{error:#}"));
                        }
                    }
                    Action::CloseStream { id } => drop(self.streams.remove(&id)),
                    _ => {}
                }
            } else if let Some(event) = self.client.poll_event() {
                if let Err(error) = self.event(event) {
                    self.failure = Some(format!("{error:#}"));
                }
            } else {
                return;
            }
        }
    }

    fn transmit(&mut self, to: Path, data: &[u8]) {
        match to {
            Path::Datagram(at) => {
                if let Some(socket) = &self.udp {
                    // A datagram that cannot be sent now is lost.
                    let _ = socket.try_send_to(data, at.remote);
                }
            }
            Path::Stream(id) => self.write(id, data.to_vec()),
        }
    }

    fn write(&mut self, id: StreamId, data: Vec<u8>) {
        if let Some(writer) = self.streams.get(&id)
            && writer.try_send(data).is_err()
            && self.open.contains_key(&id)
        {
            self.failure = Some("the connection does not take what is sent".into());
        }
    }

    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Allocated {
                relayed, mapped, ..
            } => {
                let mapped = mapped.map(|at| at.to_string());
                self.print(json!({
                    "type": "allocated", "relayed": relayed.to_string(), "mapped": mapped,
                    "transport": self.server.transport.to_string(),
                }));
                self.allocated()?;
            }
            Event::AllocateFailed { cause, .. } => bail!("no allocation: {cause}"),
            Event::AllocationLost { cause } => bail!("the allocation is lost: {cause}"),
            Event::PermissionCreated { peer } => {
                self.print(json!({ "type": "permitted", "peer": peer.to_string() }));
                if self.args.no_channel && !self.args.tcp_relay {
                    self.echoes.ready_at(peer);
                }
            }
            Event::PermissionFailed { peer, cause } => bail!("no permission for {peer}: {cause}"),
            Event::ChannelBound { peer } => self.echoes.ready(peer),
            Event::ChannelFailed { peer, cause } => bail!("no channel to {peer}: {cause}"),
            Event::ConnectionAttempt { connection, peer } if self.accepted < self.args.accept => {
                self.accepted += 1;
                self.accepting.insert(connection, peer);
                self.client.accept(now(), connection)?;
            }
            Event::ConnectionReady {
                connection,
                id,
                peer,
            } => {
                let accepted = self.accepting.remove(&connection).is_some();
                let role = if accepted { "accepted" } else { "connected" };
                self.print(json!({ "type": role, "peer": peer.to_string() }));
                if accepted {
                    self.open.insert(id, Use::Theirs);
                } else {
                    self.open.insert(id, Use::Ours(peer));
                    self.echoes.ready(peer);
                }
            }
            Event::ConnectionFailed { peer, cause, .. } => {
                bail!("no connection to {peer}: {cause}")
            }
            Event::Closed => self.closed = true,
            _ => {}
        }
        Ok(())
    }

    /// Asks for what the relayed address is to be used for.
    fn allocated(&mut self) -> Result<()> {
        let permit = self.args.permit.clone();
        for peer in permit {
            self.client.create_permission(now(), peer)?;
        }
        for peer in self.args.peer.clone() {
            if self.args.tcp_relay {
                self.client.connect_peer(now(), peer)?;
            } else if self.args.no_channel {
                self.client.create_permission(now(), peer.ip())?;
            } else {
                self.client.bind_channel(now(), peer)?;
            }
        }
        Ok(())
    }

    /// The next messages, as far as the last ones have come back.
    fn send_messages(&mut self) {
        for peer in self.echoes.peers() {
            let stream = self.stream_to(peer);
            let Some(message) = self.echoes.next(now(), peer, stream.is_none()) else {
                continue;
            };
            match stream {
                Some(id) => self.write(id, message),
                None => self.send(peer, &message),
            }
        }
    }

    fn stream_to(&self, peer: SocketAddr) -> Option<StreamId> {
        let leads = |used: &Use| matches!(used, Use::Ours(to) if *to == peer);
        let mut open = self.open.iter();
        open.find(|(_, used)| leads(used)).map(|(id, _)| *id)
    }

    fn send(&mut self, peer: SocketAddr, message: &[u8]) {
        let mut buf = vec![0; message.len() + 64];
        match self.client.send(now(), peer, message, &mut buf) {
            Ok(sent) => self.transmit(sent.to, &buf[..sent.len]),
            Err(error) => self.failure = Some(format!("sending to {peer}: {error}")),
        }
    }

    fn print(&self, line: Value) {
        if self.args.json {
            return say(&line.to_string());
        }
        let mut text = line["type"].as_str().unwrap_or_default().to_owned();
        for (name, value) in line.as_object().into_iter().flatten().skip(1) {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!(" {name}={value}"));
        }
        say(&text);
    }

    fn print_done(&self) {
        let (back, _) = self.echoes.back();
        let resent = self.echoes.resent();
        self.print(json!({
            "type": "done", "echoed": back, "resent": resent, "served": self.served,
            "served_bytes": self.served_bytes, "connections": self.connections,
            "closed": self.closed,
        }));
    }
}

fn credentials(args: &Args) -> Result<Option<Credentials>> {
    if let Some(secret) = &args.rest_secret {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let name = format!("{}:turn-client", time.as_secs() + 600);
        let password = RestUsers::new(secret.as_str()).password(name.as_bytes());
        return Ok(Some(Credentials::new(name, password.expose())));
    }
    match (&args.username, &args.password) {
        (Some(name), Some(password)) => Ok(Some(Credentials::new(name, password.as_str()))),
        (None, None) => Ok(None),
        _ => None.context("--username and --password go together"),
    }
}
