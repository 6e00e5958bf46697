//! The P-CSCF (3GPP TS 24.229 section 5.2, TS 33.203 Annex W): clients behind firewalls reach it over
//! TLS on port 443, or over TCP on port 80, and it is the only way to them.
//!
//! [`Pcscf`] is an [`EdgeProxy`] with everything around it: the connections of clients with their
//! TLS, the connections to registrars, and if wanted a registrar of its own
//! ([`HomeConfig`]). Its host has TCP connections and one UDP socket, and a table of users when the
//! registrar is here.
//!
//! # What it does not do
//! No SDP and no media (see TS 24.229 section 6); no IPsec; no emergency calls; clients do not come
//! over UDP; no TLS towards registrars. Its own registrar forks to no two devices at a time, and
//! keeps nothing over restarts.
//!
//! # Life of a connection
//! ```text
//! accept -> TLS -> first line -> SIP: unregistered -> registered -> ... -> closing -> Close
//!            |         |          |                     |                    ^
//!            |         |          +- 64 s, bad bytes ---+- silent for 92 s --+
//!            |         +- HTTP: the host's, or closed -----------------------+
//!            +- 10 s, not TLS -----------------------------------------------+
//! ```
//! ALPN `sip/2`, or a name of [`sip_names`](ServiceConfig::sip_names), stands for the first line.
//!
//! # Limits
//! Connections, unfinished handshakes and bytes that wait are limited by [`ServiceConfig`],
//! messages and transactions by [`EdgeConfig`](sip_outbound::EdgeConfig), bindings by
//! [`RegistrarConfig`](sip_outbound::RegistrarConfig). Nothing is counted by address: many clients
//! come through one proxy.
//!
//! # Specifications
//! | Which | What |
//! |---|---|
//! | TS 33.203 Annex W | SIP over TLS on port 443 |
//! | TS 24.229 section 5.2 | gate, Path, `integrity-protected`, Service-Route, asserted identity |
//! | RFC 5626, 6223 | flows, keep-alives, 430 |
//! | RFC 3261 sections 10, 16; RFC 5626 section 7 | the registrar inside, and its proxy |

mod config;
mod conn;
mod first;
mod flows;
mod home;
mod words;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use sip_outbound::wire::Aor;
use sip_outbound::{EdgeProxy, FlowId, FlowTokenKeys, KeyAnswer, Side, Ticket};
use stun_proto::time::{Clock, Timers, deadline};
use stun_proto::{FiveTuple, Instant, Received, Rng, Transmit, Transport};

pub use config::{CoreHop, HomeConfig, HttpPolicy, ServiceConfig, ServiceConfigError};
pub use words::{CloseCause, Listener, PcscfAction, PcscfEvent, Refused, UserQuery};

use crate::ConnId;
#[cfg(feature = "tls")]
use crate::tunnel::Tls;
use crate::tunnel::{Tunnel, TunnelConfig, TunnelEvent};
use conn::{Conn, Phase};
use first::Verdict;
use home::Home;

/// One name for each reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// What a tunnel waits for: the end of the TLS handshake.
    Tunnel(ConnId),
    /// A registrar does not answer.
    Connect(ConnId),
    /// The other side does not read the rest.
    Linger(ConnId),
    /// Its turn to be closed has come.
    Leave(ConnId),
}

/// What is at the other end of a flow of the edge proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Conn(ConnId),
    Home,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Running,
    /// No new connections of clients; those that there are end before `until`, if ever.
    Leaving {
        until: Option<Instant>,
    },
    Stopped,
}

/// A P-CSCF. See the [module](self).
///
/// ```
/// use ims_traversal::pcscf::{CoreHop, Listener, Pcscf, PcscfEvent, ServiceConfig};
/// use stun_proto::{FiveTuple, Instant, Path, Transport};
///
/// let (now, core) = (Instant::ZERO, "203.0.113.40:5060".parse().unwrap());
/// let mut config = ServiceConfig::new("203.0.113.40", core);
/// config.hops = vec![CoreHop::udp("b", "203.0.113.21:5060".parse().unwrap())];
/// let mut pcscf = Pcscf::new(config, [7; 32], now).unwrap();
///
/// // A client has connected to port 80, and registers.
/// let at = FiveTuple {
///     transport: Transport::Tcp,
///     local: "203.0.113.40:80".parse().unwrap(),
///     remote: "198.51.100.9:40112".parse().unwrap(),
/// };
/// let conn = pcscf.accept(now, at, Listener::Tcp).unwrap();
/// let register = b"\r\n\r\nREGISTER sip:b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
///     To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@h>\r\nSupported: path\r\nContent-Length: 0\r\n\r\n";
/// pcscf.handle_input(now, conn, register);
///
/// // What the host does after every input:
/// let mut buf = [0; 65_536];
/// while let Some(action) = pcscf.poll_action() {
///     let _ = action; // open or close connections, look users up
/// }
/// while let Some(conn) = pcscf.poll_writable() {
///     while let Some(len) = pcscf.poll_conn(conn, &mut buf) {
///         assert_eq!(&buf[..len], b"\r\n"); // the pong
///     }
/// }
/// while let Some(sent) = pcscf.poll_transmit(&mut buf) {
///     assert_eq!(sent.to.remote.port(), 5060);
///     assert!(buf.starts_with(b"REGISTER sip:b SIP/2.0\r\n"));
/// }
/// assert!(matches!(pcscf.poll_event(), Some(PcscfEvent::Ready { .. })));
/// // Then it waits for the next input, or until poll_timeout() and calls handle_timeout().
/// assert!(pcscf.poll_timeout().is_some());
/// ```
#[derive(Debug)]
pub struct Pcscf {
    config: ServiceConfig,
    rng: Rng,
    clock: Clock,
    timers: Timers<Timer>,
    service: Service,
    edge: EdgeProxy,
    home: Option<Home>,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    /// Connections of clients.
    clients: usize,
    /// Connections in [`Phase::Handshake`].
    handshakes: usize,
    owners: BTreeMap<FlowId, Owner>,
    ready: VecDeque<ConnId>,
    actions: VecDeque<PcscfAction>,
    events: VecDeque<PcscfEvent>,
    scratch: Vec<u8>,
}

impl Pcscf {
    /// A P-CSCF without connections. `seed` must come from a cryptographic source.
    ///
    /// # Errors
    /// [`ServiceConfigError`].
    pub fn new(
        mut config: ServiceConfig,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ServiceConfigError> {
        config.check()?;
        // Registrars come to this port, clients to others.
        let port = config.core_socket.port();
        config.edge.port = config.edge.port.or((port != 5060).then_some(port));
        config.edge.aliases.push(config.edge.host.clone());
        // A call may ring for long without a word.
        let ringing = config.edge.timings.unanswered;
        config.edge.core_idle = config.edge.core_idle.max(ringing);
        // Whatever waits is pulled out of it at once.
        config.edge.max_unsent = config.edge.max_unsent.max(config.max_unsent);
        let mut rng = Rng::from_seed(seed);
        let home = match &config.home {
            Some(home) => {
                // It is not up to the way to the search to end it: one device after the other may
                // ring.
                config.edge.timings.ringing = config.edge.timings.unanswered;
                Some(Home::new(home, &config.edge.parse, &mut rng, now)?)
            }
            None => None,
        };
        Ok(Self {
            edge: EdgeProxy::new(config.edge.clone(), rng.fork(), now)?,
            home,
            rng,
            clock: Clock::new(now),
            timers: Timers::new(),
            service: Service::Running,
            conns: BTreeMap::new(),
            next_conn: 1,
            clients: 0,
            handshakes: 0,
            owners: BTreeMap::new(),
            ready: VecDeque::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            scratch: alloc::vec![0; 4096],
            config,
        })
    }

    /// The host has accepted a TCP connection. The transport of `at` does not count, `listener`
    /// does.
    ///
    /// # Errors
    /// [`Refused`]: close it.
    pub fn accept(
        &mut self,
        now: Instant,
        at: FiveTuple,
        listener: Listener,
    ) -> Result<ConnId, Refused> {
        let now = self.clock.advance(now);
        let (config, transport) = self.admit(&at, listener)?;
        let at = FiveTuple { transport, ..at };
        let side = listener.side();
        let Ok(mut tunnel) = Tunnel::new(config, self.rng.fork(), now) else {
            return Err(Refused::NoTls);
        };
        tunnel.handle_connected(now);
        let phase = match side {
            Side::Core => {
                let flow = self.edge.flow_accepted(now, at, side);
                let flow = flow.ok_or(Refused::Conns)?;
                Phase::Core { flow }
            }
            Side::Access => {
                self.handshakes = self.handshakes.saturating_add(1);
                Phase::Handshake
            }
        };
        let id = self.add(Conn::new(side, at, tunnel, phase));
        self.process(now, id);
        Ok(id)
    }

    fn admit(
        &self,
        at: &FiveTuple,
        listener: Listener,
    ) -> Result<(TunnelConfig, Transport), Refused> {
        if self.service != Service::Running {
            return Err(Refused::ShuttingDown);
        }
        if !self.has_room(listener.side()) {
            return Err(Refused::Conns);
        }
        let config = self.tunnel_config();
        match listener {
            #[cfg(feature = "tls")]
            Listener::Tls => {
                let tls = self.config.tls.clone().ok_or(Refused::NoTls)?;
                if self.handshakes >= self.config.max_handshakes {
                    return Err(Refused::Handshakes);
                }
                let tls = Some(Tls::Server { config: tls });
                Ok((TunnelConfig { tls, ..config }, Transport::Tls))
            }
            Listener::Tcp => Ok((config, Transport::Tcp)),
            Listener::Core => {
                let ip = at.remote.ip();
                if self.config.hops.iter().any(|hop| hop.address.ip() == ip) {
                    Ok((config, Transport::Tcp))
                } else {
                    Err(Refused::Stranger)
                }
            }
        }
    }

    /// Clients and registrars do not take each other's places.
    fn has_room(&self, side: Side) -> bool {
        match side {
            Side::Access => self.clients < self.config.max_conns,
            Side::Core => {
                let core = self.conns.len().saturating_sub(self.clients);
                core < self.config.max_core_conns()
            }
        }
    }

    fn tunnel_config(&self) -> TunnelConfig {
        TunnelConfig {
            handshake_timeout: self.config.handshake_timeout,
            ..TunnelConfig::default()
        }
    }

    fn add(&mut self, conn: Conn) -> ConnId {
        let id = ConnId(self.next_conn);
        self.next_conn = self.next_conn.saturating_add(1);
        if let Some(flow) = conn.phase.flow() {
            self.owners.insert(flow, Owner::Conn(id));
        }
        if conn.side == Side::Access {
            self.clients = self.clients.saturating_add(1);
        }
        self.conns.insert(id, conn);
        id
    }

    /// The host has opened a connection that [`PcscfAction::Connect`] asked for.
    pub fn connected(&mut self, now: Instant, conn: ConnId, local: SocketAddr) {
        let now = self.clock.advance(now);
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        let Phase::Connecting { flow } = entry.phase else {
            return;
        };
        self.timers.disarm(Timer::Connect(conn));
        entry.at.local = local;
        entry.phase = Phase::Core { flow };
        entry.tunnel.handle_connected(now);
        self.edge.flow_opened(now, flow, entry.at);
        self.process(now, conn);
    }

    /// A connection that [`PcscfAction::Connect`] asked for does not come about.
    pub fn connection_failed(&mut self, now: Instant, conn: ConnId) {
        let now = self.clock.advance(now);
        self.lose(now, conn, CloseCause::NoConnection);
        self.settle(now);
    }

    /// Takes in bytes of a TCP connection.
    pub fn handle_input(&mut self, now: Instant, conn: ConnId, data: &[u8]) {
        let now = self.clock.advance(now);
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        entry.tunnel.handle_input(now, data);
        self.process(now, conn);
    }

    /// The other side has closed a TCP connection, or it is lost.
    pub fn handle_eof(&mut self, now: Instant, conn: ConnId) {
        let now = self.clock.advance(now);
        let Some(entry) = self.conns.get_mut(&conn) else {
            return;
        };
        entry.tunnel.handle_eof(now);
        self.process(now, conn);
        self.lose(now, conn, CloseCause::Peer);
        self.settle(now);
    }

    /// Takes in a datagram of the socket towards registrars. From anyone else it is not ours.
    pub fn handle_datagram<'d>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'d [u8],
    ) -> Received<'d> {
        let is_hop = |hop: &CoreHop| hop.transport == Transport::Udp && hop.address == at.remote;
        let ours = at.transport == Transport::Udp && at.local == self.config.core_socket;
        let stopped = self.service == Service::Stopped;
        if stopped || !ours || !self.config.hops.iter().any(is_hop) {
            return Received::NotMine;
        }
        let now = self.clock.advance(now);
        self.edge.handle_core_datagram(now, at, data);
        self.settle(now);
        Received::Consumed
    }

    /// The answer to [`PcscfAction::FindKey`].
    pub fn key_found(&mut self, now: Instant, ticket: Ticket, answer: &KeyAnswer) {
        let now = self.clock.advance(now);
        if let Some(home) = &mut self.home {
            home.key_found(now, ticket, answer);
            self.settle(now);
        }
    }

    /// The answer to [`PcscfAction::FindUser`]: callers get 480 for users that exist, 404 for
    /// others.
    pub fn user_found(&mut self, now: Instant, query: UserQuery, exists: bool) {
        let now = self.clock.advance(now);
        if let Some(home) = &mut self.home {
            home.user_found(now, query.0, exists);
            self.settle(now);
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if self.service == Service::Stopped {
            return;
        }
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Tunnel(conn) => {
                    if let Some(entry) = self.conns.get_mut(&conn) {
                        entry.tunnel.handle_timeout(now);
                    }
                    self.process(now, conn);
                }
                Timer::Connect(conn) => self.lose(now, conn, CloseCause::NoConnection),
                Timer::Linger(conn) => self.finish(conn),
                Timer::Leave(conn) => self.part(now, conn, CloseCause::ShutDown),
            }
        }
        self.edge.handle_timeout(now);
        if let Some(home) = &mut self.home {
            home.handle_timeout(now);
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.service == Service::Stopped {
            return None;
        }
        [
            self.timers.next(),
            self.edge.poll_timeout(),
            self.home.as_ref().and_then(Home::poll_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<PcscfAction> {
        self.actions.pop_front()
    }

    /// What the host may want to know next.
    pub fn poll_event(&mut self) -> Option<PcscfEvent> {
        if self.events.is_empty() {
            self.home_outputs();
        }
        self.events.pop_front()
    }

    /// The next connection that has got something to write. Each is named once: poll it until it
    /// has no more, now or when the other side reads again.
    pub fn poll_writable(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.ready.pop_front() {
            if let Some(entry) = self.conns.get_mut(&conn) {
                entry.queued = false;
                return Some(conn);
            }
        }
        None
    }

    /// Fills `buf` with bytes for a TCP connection; how many. Every size will do. After the last
    /// ones of a connection that is to be closed, [`PcscfAction::Close`] follows.
    pub fn poll_conn(&mut self, conn: ConnId, buf: &mut [u8]) -> Option<usize> {
        let entry = self.conns.get_mut(&conn)?;
        let len = entry.poll(buf);
        if len.is_none() && !buf.is_empty() && matches!(entry.phase, Phase::Closing { .. }) {
            self.finish(conn);
        }
        len
    }

    /// Writes the next datagram for a registrar into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the datagram; [`sip_outbound::MAX_TRANSMIT`] fits all.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<FiveTuple>> {
        if self.service == Service::Stopped {
            return None;
        }
        self.edge.poll_datagram(buf)
    }

    /// Whether more is to be read of a TCP connection now: not while the other side does not read
    /// what is sent, nor while the host does not take what is its own.
    pub fn wants_input(&self, conn: ConnId) -> bool {
        let mark = self.config.max_unsent / 4;
        let entry = self.conns.get(&conn);
        entry.is_some_and(|entry| entry.waiting() <= mark && entry.tunnel.readable() <= mark)
    }

    /// What has come over a connection that is the host's, see [`PcscfEvent::Http`].
    pub fn received(&self, conn: ConnId) -> &[u8] {
        let entry = self.conns.get(&conn);
        let entry = entry.filter(|entry| matches!(entry.phase, Phase::Http));
        entry.map_or(&[], |entry| entry.tunnel.received())
    }

    /// Forgets the first `len` bytes of [`received`](Self::received).
    pub fn consume(&mut self, conn: ConnId, len: usize) {
        if let Some(entry) = self.conns.get_mut(&conn)
            && matches!(entry.phase, Phase::Http)
        {
            entry.tunnel.consume(len);
        }
    }

    /// Sends over a connection that is the host's; how many bytes were taken.
    pub fn write(&mut self, conn: ConnId, data: &[u8]) -> usize {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return 0;
        };
        let taken = match entry.phase {
            Phase::Http => entry.write(data),
            Phase::Handshake
            | Phase::First { .. }
            | Phase::Sip { .. }
            | Phase::Connecting { .. }
            | Phase::Core { .. }
            | Phase::Closing { .. } => 0,
        };
        self.mark(conn);
        taken
    }

    /// Closes a connection; what waits is still sent.
    pub fn close(&mut self, now: Instant, conn: ConnId) {
        let now = self.clock.advance(now);
        self.part(now, conn, CloseCause::Host);
        self.settle(now);
    }

    /// Shows this certificate to those who connect from now on.
    #[cfg(feature = "tls")]
    pub fn set_tls(&mut self, tls: alloc::sync::Arc<rustls::ServerConfig>) {
        self.config.tls = Some(tls);
    }

    /// Takes no more connections, and closes those there are over
    /// [`shutdown_spread`](ServiceConfig::shutdown_spread). [`PcscfEvent::Stopped`] is the end.
    pub fn shut_down(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if self.service != Service::Running {
            return;
        }
        let until = deadline(now, self.config.shutdown_spread);
        self.service = Service::Leaving { until };
        let spread = u32::try_from(self.config.shutdown_spread.as_millis()).unwrap_or(u32::MAX);
        let mut at_once = Vec::new();
        for (id, conn) in &self.conns {
            match &conn.phase {
                Phase::Sip { .. } => {
                    let wait = self.rng.below(spread.saturating_add(1));
                    let wait = Duration::from_millis(u64::from(wait));
                    self.timers.arm(Timer::Leave(*id), now, wait);
                }
                // Registrars go last: clients need them until then.
                Phase::Core { .. } | Phase::Connecting { .. } => {
                    self.timers.set(Timer::Leave(*id), until);
                }
                Phase::Handshake | Phase::First { .. } | Phase::Http => at_once.push(*id),
                Phase::Closing { .. } => {}
            }
        }
        for id in at_once {
            self.part(now, id, CloseCause::ShutDown);
        }
        self.settle(now);
        self.check_stopped();
    }

    /// How many connections there are.
    pub fn conn_count(&self) -> usize {
        self.conns.len()
    }

    /// How many bindings the registrar inside has.
    pub fn binding_count(&self) -> usize {
        self.home.as_ref().map_or(0, Home::bindings)
    }

    /// Whom the registration over a connection is of.
    pub fn registered(&self, conn: ConnId) -> Option<&Aor> {
        let flow = self.conns.get(&conn)?.phase.flow()?;
        self.edge.registered(flow)
    }

    /// The keys of the flow tokens, to be rotated.
    pub const fn token_keys(&mut self) -> &mut FlowTokenKeys {
        self.edge.token_keys()
    }
}

#[cfg(test)]
mod tests;
