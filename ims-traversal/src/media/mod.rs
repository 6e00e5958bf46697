//! The media of one call: an ICE session whose TURN streams run over TCP, TLS and HTTP proxies.
//!
//! Inside is an [`ice_proto::Session`] together with the TCP connections it wants, each with its
//! tunnel; the host has nothing to do with TURN, TLS or CONNECT. It binds UDP sockets, makes TCP
//! connections, and moves bytes.
//!
//! ```
//! use std::net::UdpSocket;
//! use ice_proto::{ComponentId, FiveTuple, Instant, Received, Role, SessionConfig};
//! use ims_traversal::media::{MAX_TRANSMIT, Media, MediaAction, MediaConfig, MediaEvent};
//!
//! fn drain(media: &mut Media, socket: &UdpSocket, buf: &mut [u8]) -> std::io::Result<()> {
//!     while let Some(sent) = media.poll_transmit(buf) {
//!         socket.send_to(&buf[..sent.len], sent.to.remote)?;
//!     }
//!     while let Some(action) = media.poll_action() {
//!         match action {
//!             MediaAction::Connect { .. } => { /* then media.connected(..) */ }
//!             _ => { /* close, open or close a socket */ }
//!         }
//!     }
//!     let writable: Vec<_> = media.writable().collect();
//!     for conn in writable {
//!         while let Some(_len) = media.poll_conn(conn, buf) { /* write buf[.._len] to it */ }
//!     }
//!     while let Some(event) = media.poll_event() {
//!         if event == MediaEvent::Gathered { /* describe: media.local(0) */ }
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let start = std::time::Instant::now();
//! let clock = || Instant::from_nanos(start.elapsed().as_nanos() as i64);
//! let socket = UdpSocket::bind("127.0.0.1:0")?;
//! let local = socket.local_addr()?;
//! let mut session = SessionConfig::new(Role::Controlling);
//! session.allow_loopback = true;
//! # let seed = [7; 32];
//! let mut media = Media::new(MediaConfig::new(session), seed, clock());
//! let rtp = ComponentId { stream: 0, component: 1 };
//! media.add_host(clock(), rtp, local).unwrap();
//! media.gather(clock()).unwrap();
//!
//! let (mut buf, mut input) = ([0; MAX_TRANSMIT], [0; 2048]);
//! # for _ in 0..1 {
//! drain(&mut media, &socket, &mut buf)?;
//! let wait = media.poll_timeout().map(|at| at.duration_since(clock()));
//! # let wait = Some(std::time::Duration::from_millis(1)).or(wait);
//! socket.set_read_timeout(wait)?;
//! match socket.recv_from(&mut input) {
//!     Ok((len, remote)) => {
//!         let at = FiveTuple::udp(local, remote);
//!         if let Received::Data { .. } = media.handle_datagram(clock(), at, &input[..len]) {
//!             // Media of a component.
//!         }
//!     }
//!     Err(_) => media.handle_timeout(clock()),
//! }
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! Those of ICE, TURN and [`ConnLimits`](crate::ConnLimits); besides, media wait in a connection up
//! to [`MediaConfig::media_queue`] and are dropped beyond.

mod config;
mod ears;
mod streams;
mod told;

use core::net::SocketAddr;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use ice_proto::{
    Agent, Candidate, CandidateError, ComponentId, FiveTuple, Instant, PlainError, Received,
    RelayId, RemoteDescription, RemoteError, RollbackError, SESSION_MAX_TRANSMIT, Session,
    SessionError, StreamId, Transmit,
};
use stun_proto::time::Clock;
use stun_proto::{Path, Rng};

pub use self::config::{
    ConnStep, MediaAction, MediaConfig, MediaEvent, MediaStats, RelayLeg, SendError, ServerCause,
};
use self::ears::Ears;
use self::streams::Stream;
use crate::conns::{ConnFailure, ConnId, Conns};
use crate::sdp::LocalTransport;

/// The longest datagram of [`Media::poll_transmit`]; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = SESSION_MAX_TRANSMIT;

/// The first component of a stream, RTP.
const FIRST: u16 = 1;

/// The media of one call. See the [module](self).
#[derive(Debug)]
pub struct Media {
    config: MediaConfig,
    session: Session,
    conns: Conns<StreamId>,
    clock: Clock,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams the session gave up while they were opened, in this order.
    given_up: VecDeque<(RelayLeg, ConnStep)>,
    /// Connections with clear bytes that have not been looked at.
    readable: BTreeSet<StreamId>,
    /// The last unit taken from a connection, still to be removed from it.
    taken: Option<(StreamId, usize)>,
    ears: Ears,
    actions: VecDeque<MediaAction>,
    events: VecDeque<MediaEvent>,
    stats: MediaStats,
}

impl Media {
    /// Media without local addresses. `seed` must come from a cryptographic source.
    pub fn new(config: MediaConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self {
            session: Session::new(config.session.clone(), rng.fork(), now),
            conns: Conns::new(config.conns, rng.fork(), now),
            clock: Clock::new(now),
            streams: BTreeMap::new(),
            given_up: VecDeque::new(),
            readable: BTreeSet::new(),
            taken: None,
            ears: Ears::new(config.media_timeout),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            stats: MediaStats::default(),
            config,
        }
    }

    /// Adds a local address the host has bound a UDP socket to: [`Session::add_host`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn add_host(
        &mut self,
        now: Instant,
        component: ComponentId,
        addr: SocketAddr,
    ) -> Result<(), SessionError> {
        let now = self.clock.advance(now);
        self.session.add_host(now, component, addr)
    }

    /// A local address is gone: [`Session::remove_host`].
    pub fn remove_host(&mut self, now: Instant, addr: SocketAddr) {
        let now = self.clock.advance(now);
        self.session.remove_host(now, addr);
        self.pump();
    }

    /// Asks the servers; [`MediaEvent::Gathered`] follows.
    ///
    /// # Errors
    /// [`SessionError::State`] unless this is the first time, or the first after
    /// [`restart`](Self::restart).
    pub fn gather(&mut self, now: Instant) -> Result<(), SessionError> {
        let now = self.clock.advance(now);
        self.session.gather(now)?;
        self.pump();
        Ok(())
    }

    /// What this side's description says about a stream: credentials, candidates, the default
    /// addresses. `None` while there is no candidate.
    pub fn local(&self, stream: u16) -> Option<LocalTransport> {
        let agent = self.session.agent();
        agent.local_candidates().find(|(of, _)| *of == stream)?;
        let at = |component| {
            let id = ComponentId { stream, component };
            self.session.default_address(id)
        };
        Some(LocalTransport {
            rtp: at(FIRST),
            rtcp: (agent.component_count(stream) > FIRST).then(|| at(2)),
            ice: self.session.description(stream),
        })
    }

    /// Takes in the other side's description: [`Session::set_remote_description`]. Returns how
    /// many candidates were passed over.
    ///
    /// # Errors
    /// [`RemoteError`]; [`RemoteError::RestartFirst`] when the other side has started over and
    /// this one has not.
    pub fn set_remote(
        &mut self,
        now: Instant,
        description: &RemoteDescription,
    ) -> Result<usize, RemoteError> {
        let now = self.clock.advance(now);
        let skipped = self.session.set_remote_description(now, description)?;
        self.pump();
        Ok(skipped)
    }

    /// The other side has no ICE: each component goes to the address its description says,
    /// through the relay if there is one ([`Session::set_remote_plain`]).
    ///
    /// # Errors
    /// [`PlainError`].
    pub fn set_remote_plain(
        &mut self,
        now: Instant,
        stream: u16,
        peers: &[SocketAddr],
    ) -> Result<(), PlainError> {
        let now = self.clock.advance(now);
        self.session.set_remote_plain(now, stream, peers)?;
        self.pump();
        Ok(())
    }

    /// Adds a candidate of the other side that trickled in.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        stream: u16,
        candidate: Candidate,
    ) -> Result<(), CandidateError> {
        let now = self.clock.advance(now);
        self.session.add_remote_candidate(now, stream, candidate)?;
        self.pump();
        Ok(())
    }

    /// The other side has no more candidates.
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.session.end_of_remote_candidates(now);
        self.pump();
    }

    /// RTP and RTCP share a port, as it turned out: [`Session::limit_components`].
    pub fn limit_components(&mut self, now: Instant, stream: u16, most: u16) {
        let now = self.clock.advance(now);
        self.session.limit_components(now, stream, most);
        self.pump();
    }

    /// Starts over with new credentials: [`Session::restart`]. [`gather`](Self::gather) comes
    /// next.
    ///
    /// # Errors
    /// [`SessionError::State`] after [`close`](Self::close).
    pub fn restart(&mut self, now: Instant) -> Result<(), SessionError> {
        let now = self.clock.advance(now);
        self.session.restart(now)?;
        self.pump();
        Ok(())
    }

    /// Takes a restart back that the other side has refused or not answered:
    /// [`Session::rollback`].
    ///
    /// # Errors
    /// [`RollbackError`]: there is none to take back.
    pub fn rollback(&mut self, now: Instant) -> Result<(), RollbackError> {
        let now = self.clock.advance(now);
        self.session.rollback(now)?;
        self.pump();
        Ok(())
    }

    /// Whether the other side is expected to send: from the beginning. Streams on hold are silent
    /// without anything being wrong.
    pub fn expect_data(&mut self, now: Instant, expecting: bool) {
        let now = self.clock.advance(now);
        self.ears.expect(now, expecting);
    }

    /// Ends everything and gives the relays back; [`MediaEvent::Closed`] follows.
    pub fn close(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.ears.close();
        self.session.close(now);
        self.pump();
    }

    /// The ICE agent inside, for what it knows.
    pub const fn agent(&self) -> &Agent {
        self.session.agent()
    }

    /// Counters.
    pub const fn stats(&self) -> MediaStats {
        self.stats
    }

    // ---- the host's inputs

    /// Takes in a datagram that came on one of the sockets. Data are a part of it.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a, ComponentId> {
        let now = self.clock.advance(now);
        let received = self.session.handle_datagram(now, at, data);
        if let Received::Data { peer, .. } = received {
            self.stats.received = self.stats.received.saturating_add(1);
            self.events.extend(self.ears.heard(now, peer));
        }
        received
    }

    /// A hard ICMP error came for a datagram.
    pub fn handle_icmp_error(&mut self, now: Instant, at: FiveTuple) {
        let now = self.clock.advance(now);
        self.session.handle_icmp_error(now, at);
        self.pump();
    }

    /// There is a TCP connection.
    pub fn connected(&mut self, now: Instant, conn: ConnId, local: SocketAddr, remote: SocketAddr) {
        let now = self.clock.advance(now);
        if let Some(stream) = self
            .conns
            .key(conn)
            .and_then(|id| self.streams.get_mut(&id))
        {
            stream.connected();
        }
        self.conns.connected(now, conn, local, remote);
        self.pump();
    }

    /// A TCP connection was not made, or broke.
    pub fn connection_failed(&mut self, now: Instant, conn: ConnId, failure: ConnFailure) {
        let now = self.clock.advance(now);
        self.conns.failed(now, conn, failure);
        self.pump();
    }

    /// Takes in bytes of a TCP connection; then [`poll_received`](Self::poll_received) has what
    /// was in them.
    pub fn handle_input(&mut self, now: Instant, conn: ConnId, data: &[u8]) {
        let now = self.clock.advance(now);
        if let Some(id) = self.conns.handle_input(now, conn, data) {
            self.readable.insert(id);
        }
        self.pump();
    }

    /// The next unit of what came on TCP connections, `None` when there is none: to be called
    /// until then after [`handle_input`](Self::handle_input). Data are not copied.
    pub fn poll_received(&mut self, now: Instant) -> Option<Received<'_, ComponentId>> {
        let now = self.clock.advance(now);
        let id = self.next_readable()?;
        let mut input = self.conns.received(id);
        let before = input.len();
        let received = self.session.handle_stream(now, id, &mut input);
        self.taken = Some((id, before.saturating_sub(input.len())));
        if let Received::Data { peer, .. } = received {
            self.stats.received = self.stats.received.saturating_add(1);
            self.events.extend(self.ears.heard(now, peer));
        }
        Some(received)
    }

    /// The other side has closed its half of a TCP connection.
    pub fn handle_eof(&mut self, now: Instant, conn: ConnId) {
        let now = self.clock.advance(now);
        self.conns.handle_eof(now, conn);
        self.pump();
    }

    /// The socket asked for is bound to `local`.
    pub fn socket_opened(&mut self, now: Instant, relay: RelayId, local: SocketAddr) {
        let now = self.clock.advance(now);
        self.session.socket_opened(now, relay, local);
        self.pump();
    }

    /// The socket asked for cannot be had.
    pub fn socket_failed(&mut self, now: Instant, relay: RelayId) {
        let now = self.clock.advance(now);
        self.session.socket_failed(now, relay);
        self.pump();
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.session.handle_timeout(now);
        self.conns.handle_timeout(now);
        while let Some(event) = self.ears.expired(now) {
            self.events.push_back(event);
        }
        self.pump();
    }

    // ---- the host's outputs

    /// Writes the next datagram into `buf`; what goes into connections is moved there.
    ///
    /// # Panics
    /// When `buf` is shorter than the message, at most [`MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<FiveTuple>> {
        loop {
            self.pump();
            let Transmit { to, len } = self.session.poll_transmit(buf)?;
            match to {
                Path::Datagram(to) => return Some(Transmit { to, len }),
                Path::Stream(id) => {
                    let message = buf.get(..len).unwrap_or_default();
                    let most = self.config.conns.write_limit;
                    if !self.conns.write_whole(id, message, most) {
                        self.stats.lost = self.stats.lost.saturating_add(1);
                    }
                }
            }
        }
    }

    /// Which connections have bytes to send, once [`poll_transmit`](Self::poll_transmit) is
    /// `None`.
    pub fn writable(&self) -> impl Iterator<Item = ConnId> {
        self.conns.writable()
    }

    /// Fills `buf`, of any size, with bytes for a TCP connection; how many.
    pub fn poll_conn(&mut self, conn: ConnId, buf: &mut [u8]) -> Option<usize> {
        self.conns.poll_conn(conn, buf)
    }

    /// The next thing the host must do.
    pub fn poll_action(&mut self) -> Option<MediaAction> {
        self.pump();
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.pump();
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.session.poll_timeout(),
            self.conns.poll_timeout(),
            self.ears.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Puts a payload for the other side into `buf`, with what a relay wants around it. `None`
    /// when it went into a connection, to be had by [`poll_conn`](Self::poll_conn).
    ///
    /// # Errors
    /// [`SendError`]; the payload is dropped then, which media bear.
    pub fn send(
        &mut self,
        now: Instant,
        component: ComponentId,
        payload: &[u8],
        buf: &mut [u8],
    ) -> Result<Option<Transmit<FiveTuple>>, SendError> {
        let now = self.clock.advance(now);
        let Transmit { to, len } = self.session.send(now, component, payload, buf)?;
        let to = match to {
            Path::Datagram(to) => Some(Transmit { to, len }),
            Path::Stream(id) => {
                let message = buf.get(..len).unwrap_or_default();
                let most = self.config.media_queue;
                if !self.conns.write_whole(id, message, most) {
                    self.stats.congested = self.stats.congested.saturating_add(1);
                    return Err(SendError::Congested);
                }
                None
            }
        };
        self.stats.sent = self.stats.sent.saturating_add(1);
        Ok(to)
    }
}

#[cfg(test)]
#[cfg(feature = "tls")]
mod tests;
