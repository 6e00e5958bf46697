//! A UE on real sockets: TCP connections and UDP sockets around one [`Ue`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use ims_traversal::ue::{
    CallMedia, MAX_TRANSMIT, SocketId, SocketPlace, Ue, UeAction, UeConn, UeEvent,
};
use ims_traversal::{ConnFailure, Endpoint};
use stun_proto::{FiveTuple, Instant, Received};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::conn::{Conn, ConnInput, failure_of};
use super::network::Network;
use super::{now, sleep_until};

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
    /// A UDP socket the machine wants cannot be had.
    NoSocket(SocketPlace, io::Error),
}

enum Input {
    Conn(UeConn, ConnInput),
    Datagram(FiveTuple, Vec<u8>),
}

/// A UE and its sockets.
pub struct UeHost {
    /// The machine. What follows from its commands is done by the next [`next`](Self::next).
    pub ue: Ue,
    network: Network,
    conns: HashMap<UeConn, Conn>,
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
            conns: HashMap::new(),
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

    /// Whether connections are open, be it to write the rest.
    pub fn is_busy(&self) -> bool {
        !self.conns.is_empty()
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
        let conns = self.conns.keys().copied();
        let cut: Vec<_> = conns.filter(|conn| which(*conn)).collect();
        for conn in &cut {
            self.conns.remove(conn);
            self.ue.connection_failed(now(), *conn, ConnFailure::Reset);
        }
        cut.len()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Conn(conn, input) => self.take_conn(conn, input),
            Input::Datagram(at, data) => {
                let received = self.ue.handle_datagram(now(), at, &data);
                if let Received::Data { peer, data } = received {
                    self.outputs.push_back(Output::Media(peer, data.to_vec()));
                }
            }
        }
    }

    fn take_conn(&mut self, conn: UeConn, input: ConnInput) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        match input {
            ConnInput::Connected(tcp) => match (tcp.local_addr(), tcp.peer_addr()) {
                (Ok(local), Ok(remote)) => {
                    entry.established(tcp);
                    self.ue.connected(now(), conn, local, remote);
                }
                (Err(error), _) | (_, Err(error)) => self.failed(conn, failure_of(&error)),
            },
            ConnInput::Failed(failure) => self.failed(conn, failure),
            ConnInput::Data(data) => {
                self.ue.handle_input(now(), conn, &data);
                while let Some(received) = self.ue.poll_received(now()) {
                    if let Received::Data { peer, data } = received {
                        self.outputs.push_back(Output::Media(peer, data.to_vec()));
                    }
                }
            }
            ConnInput::Eof => self.ue.handle_eof(now(), conn),
            ConnInput::Writable => {}
        }
    }

    fn failed(&mut self, conn: UeConn, failure: ConnFailure) {
        self.conns.remove(&conn);
        self.ue.connection_failed(now(), conn, failure);
    }

    /// Does all the machine wants done.
    fn drain(&mut self) {
        let mut buf = vec![0; MAX_TRANSMIT];
        loop {
            while let Some(sent) = self.ue.poll_transmit(&mut buf) {
                self.transmit(sent.to, &buf[..sent.len]);
            }
            self.write();
            let mut idle = true;
            while let Some(event) = self.ue.poll_event() {
                self.outputs.push_back(Output::Event(Box::new(event)));
            }
            while let Some(action) = self.ue.poll_action() {
                idle = false;
                self.outputs.push_back(Output::Acted(action.clone()));
                self.act(action);
            }
            if idle {
                return;
            }
        }
    }

    /// Moves bytes into the connections, as far as they take them.
    fn write(&mut self) {
        let mut broken = Vec::new();
        for (id, conn) in &mut self.conns {
            let ue = &mut self.ue;
            if let Err(error) = conn.write(|buf| ue.poll_conn(*id, buf)) {
                broken.push((*id, failure_of(&error)));
            }
        }
        for (conn, failure) in broken {
            self.failed(conn, failure);
        }
        self.conns.retain(|_, conn| !conn.is_done());
    }

    fn transmit(&self, at: FiveTuple, data: &[u8]) {
        if let Some((socket, _)) = self.by_local.get(&at.local) {
            self.network.send(socket, data, at.remote);
        }
    }

    fn act(&mut self, action: UeAction) {
        match action {
            UeAction::Connect { conn, to } => {
                let inputs = self.inputs.clone();
                let on = move |input| {
                    let inputs = inputs.clone();
                    async move { inputs.send(Input::Conn(conn, input)).await.is_ok() }
                };
                let dialled = Conn::dial(self.network.clone(), to, on);
                self.conns.insert(conn, dialled);
            }
            UeAction::Close { conn } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.close();
                }
            }
            UeAction::OpenSocket { socket, place } => match self.bind(&place) {
                Ok((local, remote)) => {
                    self.sockets.insert(socket, local);
                    self.ue.socket_opened(now(), socket, local, remote);
                }
                Err(error) => {
                    self.outputs.push_back(Output::NoSocket(place, error));
                    self.ue.socket_failed(now(), socket);
                }
            },
            UeAction::CloseSocket { socket } => {
                if let Some(at) = self.sockets.remove(&socket)
                    && let Some((_, task)) = self.by_local.remove(&at)
                {
                    task.abort();
                }
            }
            // No EFTF here.
            UeAction::OpenTunnel { flow } => self.ue.tunnel_failed(now(), flow),
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
                        found.ok_or(io::ErrorKind::NotFound)?
                    }
                };
                let local = super::servers::local_address(remote);
                (local.map_err(io::Error::other)?, Some(remote))
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
                // Errors are those of earlier datagrams; the socket goes on.
                let Ok((len, remote)) = reader.recv_from(&mut buf).await else {
                    continue;
                };
                let datagram = (FiveTuple::udp(local, remote), buf[..len].to_vec());
                let input = Input::Datagram(datagram.0, datagram.1);
                if inputs.send(input).await.is_err() {
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
        self.by_local.values().for_each(|(_, task)| task.abort());
    }
}
