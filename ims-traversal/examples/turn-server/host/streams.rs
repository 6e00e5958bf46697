//! Clients that come over TCP and TLS.

use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use stun_proto::wire::{HEADER_LEN, Message, MessageType};
use stun_proto::{FiveTuple, Received, StreamId, Transport};
use turn_proto::server::{CloseReason, PeerId};
use turn_proto::wire::{CONNECTION_BIND, ConnectionId};

use super::stream::{CONTROL_BACKLOG, DATA_BACKLOG, Read, Stream};
use super::worker::{Relay, Source, Worker};
use super::{Adopted, Command};

/// Connections accepted before others have their turn.
const ACCEPTS: usize = 64;

/// Reads of one stream before others have their turn.
const READS: usize = 4;

/// How long a stream that is being closed may take its last bytes.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One client's stream.
#[derive(Debug)]
pub struct Client {
    pub stream: Stream,
    at: FiveTuple,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing shows yet whether this is a data connection of another worker: its first bytes.
    New(Vec<u8>),
    /// The machine takes its bytes.
    Messages,
    /// The machine has answered its ConnectionBind: what came behind it.
    Data(Vec<u8>),
    Spliced(PeerId),
    Closing,
}

/// What the first bytes of a stream say.
enum First {
    /// More must come.
    Unclear,
    /// A data connection of this worker.
    Of(u8),
    /// Anything else: the machine sees to it.
    Other,
}

impl Client {
    /// Queues data for a client; `false` when too much waits already.
    pub fn write_data(&mut self, parts: &[&[u8]]) -> bool {
        // What goes wrong with the connection shows when it is read.
        self.stream.backlog() <= DATA_BACKLOG && self.stream.write(parts).is_ok()
    }
}

impl Worker {
    pub(super) fn accept_clients(&mut self, index: usize) {
        for _ in 0..ACCEPTS {
            let Some(acceptor) = self.acceptors.get(index) else {
                return;
            };
            let transport = acceptor.transport;
            match acceptor.listener.accept() {
                Ok((tcp, remote)) => self.accepted(tcp, remote, transport),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client is gone again.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return self.accept_later(Source::Tcp(index), &error),
            }
        }
        self.again.push(Source::Tcp(index));
    }

    /// No more file descriptors, as a rule: there may be some in a second. Those who wait are not
    /// announced again.
    pub(super) fn accept_later(&mut self, source: Source, error: &std::io::Error) {
        tracing::warn!(worker = self.index, %error, "accepting connections");
        self.later.push(source);
    }

    fn accepted(&mut self, tcp: TcpStream, remote: SocketAddr, transport: Transport) {
        self.counts.accepted += 1;
        let tls = self.tls.clone().filter(|_| transport == Transport::Tls);
        let Ok(stream) = Stream::new(tcp, tls) else {
            return;
        };
        let Ok(local) = stream.local() else { return };
        let at = FiveTuple {
            transport,
            local,
            remote,
        };
        self.begin(stream, at, State::New(Vec::new()));
    }

    /// Takes a stream in; `None` when there are too many.
    fn begin(&mut self, mut stream: Stream, at: FiveTuple, state: State) -> Option<StreamId> {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.server.stream_opened(self.now, id, at).ok()?;
        let token = Source::Stream(id).token();
        if stream.register(self.poll.registry(), token).is_err() {
            self.server.handle_stream_closed(self.now, id);
            return None;
        }
        self.clients.insert(id, Client { stream, at, state });
        Some(id)
    }

    /// A stream that came to another worker.
    pub(super) fn adopt(&mut self, adopted: Adopted) {
        let Adopted { stream, at, bytes } = adopted;
        if let Some(id) = self.begin(stream, at, State::Messages) {
            self.stream_data(id, &bytes);
            self.drain();
            self.stream_ready(id);
        }
    }

    pub(super) fn stream_ready(&mut self, id: StreamId) {
        let mut buf = std::mem::take(&mut self.scratch);
        self.serve_stream(id, &mut buf);
        self.scratch = buf;
    }

    fn serve_stream(&mut self, id: StreamId, buf: &mut [u8]) {
        for _ in 0..READS {
            let Some(client) = self.clients.get_mut(&id) else {
                return;
            };
            if let State::Spliced(peer) = client.state {
                return self.pump(peer, id, buf);
            }
            if client.stream.flush().is_err() {
                return self.client_gone(id);
            }
            match client.state {
                State::Closing if client.stream.is_finished() => return self.client_gone(id),
                // Bytes behind a ConnectionBind wait in the socket.
                State::Closing | State::Data(_) => return,
                State::New(_) | State::Messages | State::Spliced(_) => {}
            }
            match client.stream.read(buf) {
                Ok(Read::Bytes(len)) => self.stream_bytes(id, buf.get(..len).unwrap_or_default()),
                Ok(Read::Nothing) => return,
                Ok(Read::End) => return self.client_gone(id),
                Err(error) => {
                    if error.kind() == ErrorKind::InvalidData {
                        self.counts.tls_failures += 1;
                        tracing::debug!(%error, "TLS");
                    }
                    return self.client_gone(id);
                }
            }
        }
        self.again.push(Source::Stream(id));
    }

    /// Bytes of a client, not of a data connection.
    fn stream_bytes(&mut self, id: StreamId, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if let State::New(first) = &mut client.state {
            let mut whole = std::mem::take(first);
            whole.extend_from_slice(bytes);
            match first_of(&whole) {
                First::Unclear => client.state = State::New(whole),
                First::Of(owner) if usize::from(owner) != self.index => {
                    self.hand_over(id, usize::from(owner), whole);
                }
                First::Of(_) | First::Other => {
                    client.state = State::Messages;
                    self.stream_data(id, &whole);
                }
            }
        } else {
            self.stream_data(id, bytes);
        }
        self.drain();
    }

    /// The peer of a data connection is another worker's.
    fn hand_over(&mut self, id: StreamId, owner: usize, bytes: Vec<u8>) {
        let Some(mut client) = self.clients.remove(&id) else {
            return;
        };
        client.stream.deregister(self.poll.registry());
        self.server.handle_stream_closed(self.now, id);
        // A number that no worker has: the client is turned away.
        if let Some(mailbox) = self.mailboxes.get(owner) {
            self.counts.handed_over += 1;
            mailbox.send(Command::Adopt(Box::new(Adopted {
                stream: client.stream,
                at: client.at,
                bytes,
            })));
        }
    }

    fn stream_data(&mut self, id: StreamId, data: &[u8]) {
        let mut input = data;
        while !input.is_empty() {
            match self.server.handle_stream(self.now, id, &mut input) {
                Received::Data { peer, data } => {
                    self.counts.from_clients += 1;
                    if let Some(Relay::Udp(socket)) = self.relays.get_mut(&peer.relay) {
                        socket.set_dont_fragment(peer.dont_fragment);
                        match socket.send(peer.peer, &[IoSlice::new(data)]) {
                            Ok(()) => self.counts.to_peers += 1,
                            Err(_) => self.counts.unsent += 1,
                        }
                    }
                }
                Received::Consumed => {}
                Received::NotMine => {
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.state = State::Data(input.to_vec());
                    }
                    return;
                }
            }
        }
    }

    /// Sends a message of the machine. On a stream none may be lost.
    pub(super) fn write_control(&mut self, id: StreamId, message: &[u8]) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if client.stream.write(&[message]).is_err() || client.stream.backlog() > CONTROL_BACKLOG {
            self.client_gone(id);
        }
    }

    /// The machine is done with a stream: it gets what waits for it, and is closed.
    pub(super) fn close_client(&mut self, id: StreamId, reason: CloseReason) {
        tracing::debug!(stream = id.0, ?reason, "closing a stream");
        let Some(client) = self.clients.get_mut(&id) else {
            return self.server.handle_stream_closed(self.now, id);
        };
        client.state = State::Closing;
        if client.stream.finish().is_err() || client.stream.is_finished() {
            return self.client_gone(id);
        }
        self.closing.push((id, self.now + LAST_WORDS));
    }

    /// Gives up on streams that do not take their last bytes.
    pub(super) fn close_late(&mut self) {
        let mut late = std::mem::take(&mut self.closing);
        late.retain(|(id, until)| {
            let waits = *until > self.now;
            if !waits {
                self.client_gone(*id);
            }
            waits
        });
        self.closing = late;
    }

    /// A stream is closed, by whichever side.
    pub(super) fn client_gone(&mut self, id: StreamId) {
        if self.clients.remove(&id).is_some() {
            self.server.handle_stream_closed(self.now, id);
        }
    }

    /// From now on a stream's bytes are a peer's.
    pub(super) fn splice(&mut self, peer: PeerId, id: StreamId) {
        let held = match self.clients.get_mut(&id) {
            Some(client) => {
                let before = std::mem::replace(&mut client.state, State::Spliced(peer));
                match before {
                    State::Data(held) => held,
                    State::New(_) | State::Messages | State::Spliced(_) | State::Closing => {
                        Vec::new()
                    }
                }
            }
            None => return self.server.peer_closed(self.now, peer),
        };
        self.begin_splice(peer, id, &held);
        // What came meanwhile has had its edge.
        self.again.push(Source::Stream(id));
    }
}

/// Whether a stream begins with a ConnectionBind, and of whose connection.
fn first_of(bytes: &[u8]) -> First {
    let Some([m1, m0, l1, l0]) = bytes.first_chunk::<4>() else {
        return First::Unclear;
    };
    if u16::from_be_bytes([*m1, *m0]) != MessageType::request(CONNECTION_BIND).to_wire() {
        return First::Other;
    }
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([*l1, *l0]));
    // Longer than any: the machine says what is wrong.
    if len > 2048 {
        return First::Other;
    }
    let Some(message) = bytes.get(..len) else {
        return First::Unclear;
    };
    match Message::parse(message).ok().and_then(|m| m.find()) {
        Some(ConnectionId([owner, ..])) => First::Of(owner),
        None => First::Other,
    }
}
