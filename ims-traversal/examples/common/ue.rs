//! A UE on real sockets: TCP connections and UDP sockets around one [`Ue`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use ims_traversal::ue::{CallMedia, SocketId, SocketPlace, Ue, UeAction, UeConn, UeEvent};
use ims_traversal::{ConnFailure, Endpoint};
use stun_proto::{FiveTuple, Instant, Received};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::network::Network;
use super::{now, sleep_until};

/// Pieces that wait to be written to one connection; what is more waits in the machine.
const PIECES: usize = 8;
/// Inputs that wait for the machine.
const INPUTS: usize = 1024;

/// What a UE says to its program.
#[derive(Debug)]
pub enum Output {
    /// An event.
    Event(Box<UeEvent>),
    /// A datagram of media.
    Media(CallMedia, Vec<u8>),
    /// The host does what the machine wants.
    Acted(UeAction),
}

#[derive(Debug)]
enum Input {
    Connected(UeConn, SocketAddr, SocketAddr),
    Failed(UeConn, ConnFailure),
    Bytes(UeConn, Vec<u8>),
    Eof(UeConn),
    /// There is room for more to be written.
    Written,
    Datagram(FiveTuple, Vec<u8>),
}

/// One TCP connection, or the attempt at one.
struct Line {
    pieces: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
    /// What is left is still written.
    closing: bool,
}

/// A UE and its sockets.
pub struct UeHost {
    /// The machine. After each command, [`drain`](Self::drain) or wait with
    /// [`step`](Self::step).
    pub ue: Ue,
    network: Network,
    lines: HashMap<UeConn, Line>,
    sockets: HashMap<SocketId, SocketAddr>,
    by_local: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)>,
    inputs: mpsc::Sender<Input>,
    input: mpsc::Receiver<Input>,
    outputs: VecDeque<Output>,
}

impl UeHost {
    /// A host for a machine behind this firewall.
    pub fn new(ue: Ue, network: Network) -> Self {
        let (inputs, input) = mpsc::channel(INPUTS);
        Self {
            ue,
            network,
            lines: HashMap::new(),
            sockets: HashMap::new(),
            by_local: HashMap::new(),
            inputs,
            input,
            outputs: VecDeque::new(),
        }
    }

    /// Waits for something to be told, at most until `end`.
    pub async fn next(&mut self, end: Instant) -> Option<Output> {
        loop {
            self.drain();
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if now() >= end {
                return None;
            }
            tokio::select! {
                Some(input) = self.input.recv() => {
                    self.take(input);
                    // Whatever else is there already.
                    while let Ok(input) = self.input.try_recv() {
                        self.take(input);
                    }
                }
                () = sleep_until(self.ue.poll_timeout()) => self.ue.handle_timeout(now()),
                () = sleep_until(Some(end)) => {}
            }
        }
    }

    /// Whether anything is left to be written.
    pub fn is_busy(&self) -> bool {
        self.ue.writable().next().is_some() || !self.lines.is_empty()
    }

    /// Sends a datagram of media; whether there was a way.
    pub fn send(&mut self, to: CallMedia, payload: &[u8]) -> bool {
        let mut buf = [0; 2048];
        match self.ue.send(now(), to, payload, &mut buf) {
            Ok(Some(sent)) => {
                self.transmit(sent.to, &buf[..sent.len]);
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Breaks the TCP connections that fit, as a box on the way does; how many.
    pub fn cut(&mut self, which: impl Fn(UeConn) -> bool) -> usize {
        let cut: Vec<_> = self
            .lines
            .keys()
            .copied()
            .filter(|conn| which(*conn))
            .collect();
        for conn in &cut {
            if let Some(line) = self.lines.remove(conn) {
                line.task.abort();
            }
            self.ue.connection_failed(now(), *conn, ConnFailure::Reset);
        }
        cut.len()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Connected(conn, local, remote) => self.ue.connected(now(), conn, local, remote),
            Input::Failed(conn, failure) => {
                if self.lines.remove(&conn).is_some() {
                    self.ue.connection_failed(now(), conn, failure);
                }
            }
            Input::Bytes(conn, data) => {
                self.ue.handle_input(now(), conn, &data);
                while let Some(received) = self.ue.poll_received(now()) {
                    if let Received::Data { peer, data } = received {
                        self.outputs.push_back(Output::Media(peer, data.to_vec()));
                    }
                }
            }
            Input::Eof(conn) => self.ue.handle_eof(now(), conn),
            Input::Written => {}
            Input::Datagram(at, data) => {
                let received = self.ue.handle_datagram(now(), at, &data);
                if let Received::Data { peer, data } = received {
                    self.outputs.push_back(Output::Media(peer, data.to_vec()));
                }
            }
        }
    }

    /// Does all the machine wants done.
    fn drain(&mut self) {
        let mut buf = vec![0; 64 * 1024];
        loop {
            let mut idle = true;
            while let Some(sent) = self.ue.poll_transmit(&mut buf) {
                self.transmit(sent.to, &buf[..sent.len]);
            }
            let writable: Vec<_> = self.ue.writable().collect();
            for conn in writable {
                idle &= !self.write(conn, &mut buf);
            }
            while let Some(event) = self.ue.poll_event() {
                self.outputs.push_back(Output::Event(Box::new(event)));
            }
            while let Some(action) = self.ue.poll_action() {
                idle = false;
                self.outputs.push_back(Output::Acted(action.clone()));
                self.act(action);
            }
            if idle {
                break;
            }
        }
        // Those the machine has let go of and that have nothing left.
        let ue = &self.ue;
        let busy: Vec<_> = ue.writable().collect();
        self.lines
            .retain(|conn, line| !line.closing || busy.contains(conn));
    }

    /// Moves bytes towards a connection, as far as there is room; whether any.
    fn write(&mut self, conn: UeConn, buf: &mut [u8]) -> bool {
        let mut any = false;
        let Some(line) = self.lines.get(&conn) else {
            // It is gone; so is what it had to send.
            while self.ue.poll_conn(conn, buf).is_some() {}
            return false;
        };
        while let Ok(permit) = line.pieces.try_reserve() {
            let Some(len) = self.ue.poll_conn(conn, buf) else {
                break;
            };
            permit.send(buf[..len].to_vec());
            any = true;
        }
        any
    }

    fn transmit(&self, at: FiveTuple, data: &[u8]) {
        if let Some((socket, _)) = self.by_local.get(&at.local) {
            self.network.send(socket, data, at.remote);
        }
    }

    fn act(&mut self, action: UeAction) {
        match action {
            UeAction::Connect { conn, to } => {
                let (pieces, queue) = mpsc::channel(PIECES);
                let (network, inputs) = (self.network.clone(), self.inputs.clone());
                let task = tokio::spawn(connection(network, conn, to, queue, inputs));
                let closing = false;
                self.lines.insert(
                    conn,
                    Line {
                        pieces,
                        task,
                        closing,
                    },
                );
            }
            UeAction::Close { conn } => {
                if let Some(line) = self.lines.get_mut(&conn) {
                    line.closing = true;
                }
            }
            UeAction::OpenSocket { socket, place } => match self.bind(&place) {
                Ok((local, remote)) => {
                    self.sockets.insert(socket, local);
                    self.ue.socket_opened(now(), socket, local, remote);
                }
                Err(_) => self.ue.socket_failed(now(), socket),
            },
            // No EFTF here.
            UeAction::OpenTunnel { flow } => self.ue.tunnel_failed(now(), flow),
            UeAction::CloseSocket { socket } => {
                if let Some(at) = self.sockets.remove(&socket)
                    && let Some((_, task)) = self.by_local.remove(&at)
                {
                    task.abort();
                }
            }
        }
    }

    fn bind(&mut self, place: &SocketPlace) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
        let (ip, remote) = match place {
            SocketPlace::Address(ip) => (*ip, None),
            SocketPlace::Towards(to) => {
                let remote = match to {
                    Endpoint::Addr(addr) => *addr,
                    Endpoint::Name { host, port } => {
                        let found = (host.as_str(), *port).to_socket_addrs()?.next();
                        found.ok_or(io::ErrorKind::AddrNotAvailable)?
                    }
                };
                let any = if remote.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let probe = std::net::UdpSocket::bind(any)?;
                probe.connect(remote)?;
                (probe.local_addr()?.ip(), Some(remote))
            }
        };
        let socket = std::net::UdpSocket::bind((ip, 0))?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let local = socket.local_addr()?;
        let (reader, inputs) = (Arc::clone(&socket), self.inputs.clone());
        let task = tokio::spawn(async move {
            let mut buf = vec![0; 2048];
            loop {
                // Errors of earlier datagrams; the socket goes on.
                let Ok((len, remote)) = reader.recv_from(&mut buf).await else {
                    continue;
                };
                let at = FiveTuple::udp(local, remote);
                if inputs
                    .send(Input::Datagram(at, buf[..len].to_vec()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        self.by_local.insert(local, (socket, task));
        Ok((local, remote))
    }
}

impl Drop for UeHost {
    fn drop(&mut self) {
        self.lines.values().for_each(|line| line.task.abort());
        self.by_local.values().for_each(|(_, task)| task.abort());
    }
}

/// Connects, and moves bytes until the connection ends.
async fn connection(
    network: Network,
    conn: UeConn,
    to: Endpoint,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    inputs: mpsc::Sender<Input>,
) {
    let tcp = match connect(&network, &to).await {
        Ok(tcp) => tcp,
        Err(error) => {
            let _ = inputs.send(Input::Failed(conn, failure(&error))).await;
            return;
        }
    };
    let (Ok(local), Ok(remote)) = (tcp.local_addr(), tcp.peer_addr()) else {
        let _ = inputs.send(Input::Failed(conn, ConnFailure::Reset)).await;
        return;
    };
    let _ = inputs.send(Input::Connected(conn, local, remote)).await;
    let (mut reader, mut writer) = tcp.into_split();
    let write = async {
        while let Some(piece) = pieces.recv().await {
            writer.write_all(&piece).await?;
            let _ = inputs.send(Input::Written).await;
        }
        // Closed by this side.
        writer.shutdown().await?;
        Ok::<_, io::Error>(None)
    };
    let read = async {
        let mut buf = vec![0; 16 * 1024];
        loop {
            let len = reader.read(&mut buf).await?;
            let input = match len {
                0 => Input::Eof(conn),
                len => Input::Bytes(conn, buf[..len].to_vec()),
            };
            if inputs.send(input).await.is_err() || len == 0 {
                // The other half may go on.
                std::future::pending::<()>().await;
            }
        }
    };
    let ended: io::Result<Option<()>> = tokio::select! {
        ended = write => ended,
        ended = read => ended,
    };
    if let Err(error) = ended {
        let _ = inputs.send(Input::Failed(conn, failure(&error))).await;
    }
}

async fn connect(network: &Network, to: &Endpoint) -> io::Result<TcpStream> {
    let addresses: Vec<_> = match to {
        Endpoint::Addr(addr) => vec![*addr],
        Endpoint::Name { host, port } => {
            let name = (host.clone(), *port);
            let found = tokio::task::spawn_blocking(move || name.to_socket_addrs()).await?;
            found
                .map_err(|_| io::ErrorKind::AddrNotAvailable)?
                .collect()
        }
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match network.connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failure(error: &io::Error) -> ConnFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnFailure::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ConnFailure::Reset,
        io::ErrorKind::TimedOut => ConnFailure::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ConnFailure::Unreachable
        }
        io::ErrorKind::AddrNotAvailable => ConnFailure::Unresolved,
        _ => ConnFailure::Other,
    }
}
