//! Control of a UE: a SIP user agent whose flows find their way to the P-CSCF (3GPP C1-133869
//! section 2.1).
//!
//! Each flow is a TCP connection of its own, with a CONNECT of its own if there is an HTTP proxy,
//! and TLS inside. Not one octet of SIP passes before TLS is up and the certificate is accepted.
//! When a way fails the next one is tried ([`ladder`](crate::ladder)); the user agent hears of it
//! only when all have failed.
//!
//! ```text
//! Trying -> TCP -> CONNECT -> TLS -> Ready -> REGISTER -> answered: remembered for the network
//!   ^        |        |        |                 |
//!   |        +--------+--------+-----------------+- refused, reset, closed, wrong certificate, silence
//!   |                          v
//!   +-- the next way -- RungFailed
//!                              +-- none left: Exhausted, and a wait (RFC 5626 section 4.5)
//! ```
//!
//! Nothing waits for ever: 15 s for TCP and for TLS, 30 s for the proxy's answer, F for REGISTER's.
//! What may pile up is limited by [`ConnLimits`](crate::ConnLimits) and
//! [`UserAgentConfig`](sip_outbound::UserAgentConfig). A way that works is kept as long as it does,
//! even when a better one comes up meanwhile.

mod climb;
mod config;
mod event;
mod ways;

use core::net::SocketAddr;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use http_connect::auth::Credentials;
use sip_outbound::{FlowId, UserAgent};
use stun_proto::time::{Clock, Timers};
use stun_proto::{FiveTuple, Instant, Received, Rng, Transmit};

pub use config::{AccessConfig, AccessError};
pub use event::{AccessAction, AccessEvent, AccessSocket, ConnPath, RungFailure};

use crate::conns::{ConnFailure, ConnId, Conns};
use crate::ladder::{AccessLadder, Climb, NetworkKey};
use crate::{Endpoint, HttpProxy};
use climb::{Flow, Way};

/// How many bytes of SIP are moved into a connection at a time.
const CHUNK: usize = 4096;

/// The control plane of a UE. See the [module](self).
///
/// The host does what [`poll_action`](Self::poll_action) says, hands in what it gets, and after
/// every call drains actions, bytes and events:
///
/// ```
/// # use ims_traversal::access::AccessConfig;
/// # use sip_outbound::wire::UriBuf;
/// # use sip_outbound::{InstanceId, UserAgentConfig};
/// # let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
/// # let tls = rustls::ClientConfig::builder_with_provider(provider)
/// #     .with_safe_default_protocol_versions().unwrap()
/// #     .with_root_certificates(rustls::RootCertStore::empty())
/// #     .with_no_client_auth();
/// # let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
/// # let aor: UriBuf = "sip:alice@ims.example".parse().unwrap();
/// # let pcscf: UriBuf = "sips:pcscf1.ims.example".parse().unwrap();
/// # let agent = UserAgentConfig::ims(aor, instance, vec![pcscf]);
/// # let config = AccessConfig::new(agent, tls.into());
/// use ims_traversal::access::{Access, AccessAction, AccessEvent};
/// use ims_traversal::ladder::NetworkKey;
/// use stun_proto::Instant;
///
/// let now = Instant::ZERO; // the host's clock
/// let mut access = Access::new(config, [7; 32], now).unwrap();
/// access.start(now, NetworkKey(1));
/// let mut buf = [0; 2048];
/// while let Some(action) = access.poll_action() {
///     if let AccessAction::Connect { conn, to } = action {
///         assert_eq!(to.to_string(), "pcscf1.ims.example:5061");
///         // Connect, and then:
///         let local = "10.7.0.9:40112".parse().unwrap();
///         access.connected(now, conn, local, "203.0.113.1:5061".parse().unwrap());
///         // The first bytes are a TLS ClientHello.
///         assert!(access.poll_conn(conn, &mut buf).is_some());
///         assert_eq!(buf[0], 0x16);
///     }
/// }
/// while let Some(event) = access.poll_event() {
///     assert!(matches!(event, AccessEvent::Trying { .. }));
/// }
/// // Wait until access.poll_timeout(), then access.handle_timeout(now); or for bytes, then
/// // access.handle_input(now, conn, &bytes).
/// assert!(access.poll_timeout().is_some());
/// ```
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    clock: Clock,
    agent: UserAgent,
    ladder: AccessLadder,
    network: NetworkKey,
    conns: Conns<FlowId>,
    flows: BTreeMap<FlowId, Flow>,
    /// Where the next flow of a registration goes on, by reg-id.
    climbs: BTreeMap<u32, Climb>,
    /// What the host was asked for and has not answered.
    timers: Timers<FlowId>,
    next_socket: u64,
    actions: VecDeque<AccessAction>,
    events: VecDeque<AccessEvent>,
}

impl Access {
    /// A control plane that does nothing until [`start`](Self::start). `seed` must come from a
    /// cryptographic source.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn new(
        mut config: AccessConfig,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, AccessError> {
        let mut rng = Rng::from_seed(seed);
        // All that a flow may leave behind fits into its connection, in records of one chunk each.
        let left = config.agent.max_unsent;
        let left = left.saturating_add(left / 64).saturating_add(CHUNK);
        config.conns.write_limit = config.conns.write_limit.max(left);
        #[cfg(feature = "tls")]
        if config.sip_alpn {
            let mut tls = rustls::ClientConfig::clone(&config.tls);
            tls.alpn_protocols = [b"sip/2".to_vec()].into();
            config.tls = tls.into();
        }
        Ok(Self {
            agent: UserAgent::new(config.agent.clone(), rng.fork(), now)?,
            ladder: AccessLadder::new(config.ladder.clone())?,
            clock: Clock::new(now),
            network: NetworkKey(0),
            conns: Conns::new(config.conns, rng.fork(), now),
            flows: BTreeMap::new(),
            climbs: BTreeMap::new(),
            timers: Timers::new(),
            next_socket: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            config,
        })
    }

    /// Opens the flows and registers. Does nothing when running.
    pub fn start(&mut self, now: Instant, network: NetworkKey) {
        let now = self.clock.advance(now);
        self.network = network;
        self.agent.start(now);
        self.settle(now);
    }

    /// Removes all registrations and closes all flows; [`Stopped`](sip_outbound::UserAgentEvent)
    /// is the end.
    pub fn stop(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.agent.stop(now);
        self.settle(now);
    }

    /// The host is in another network, or its address has changed: everything is given up and
    /// begun anew, at the way that is remembered for it. If the HTTP proxy is another one,
    /// [`set_proxy`](Self::set_proxy) comes first.
    pub fn network_changed(&mut self, now: Instant, network: NetworkKey) {
        let now = self.clock.advance(now);
        self.network = network;
        self.climbs.clear();
        self.agent.network_changed(now);
        self.settle(now);
    }

    /// Sets the HTTP proxy for connections that are made from now on.
    pub fn set_proxy(&mut self, proxy: Option<HttpProxy>) {
        self.config.proxy = proxy;
    }

    /// Answers [`AccessEvent::ProxyCredentials`] for every flow that waits, and for the
    /// connections to come; `None` gives up.
    pub fn set_proxy_credentials(&mut self, now: Instant, credentials: Option<Credentials>) {
        let now = self.clock.advance(now);
        if let Some(proxy) = &mut self.config.proxy {
            // Nobody has asked this copy yet, so there is no next step to take.
            let _ = proxy.auth.set_credentials(credentials.clone());
        }
        for flow in self.flows.keys().copied() {
            // Without effect on those that do not wait.
            self.conns.set_credentials(now, flow, credentials.clone());
        }
        self.settle(now);
    }

    /// Answers [`AccessEvent::ProxyToken`]; `None` gives up.
    pub fn set_proxy_token(&mut self, now: Instant, flow: FlowId, token: Option<String>) {
        let now = self.clock.advance(now);
        self.conns.set_token(now, flow, token);
        self.settle(now);
    }

    /// There is a TCP connection.
    pub fn connected(&mut self, now: Instant, conn: ConnId, local: SocketAddr, remote: SocketAddr) {
        let now = self.clock.advance(now);
        self.conns.connected(now, conn, local, remote);
        self.settle(now);
    }

    /// A TCP connection was not made, or broke.
    pub fn connection_failed(&mut self, now: Instant, conn: ConnId, failure: ConnFailure) {
        let now = self.clock.advance(now);
        self.conns.failed(now, conn, failure);
        self.settle(now);
    }

    /// Takes in bytes of a TCP connection.
    pub fn handle_input(&mut self, now: Instant, conn: ConnId, data: &[u8]) {
        let now = self.clock.advance(now);
        let flow = self.conns.handle_input(now, conn, data);
        self.settle(now);
        if let Some(flow) = flow {
            self.read(now, flow);
            self.settle(now);
        }
    }

    /// The other side has closed its half of a TCP connection.
    pub fn handle_eof(&mut self, now: Instant, conn: ConnId) {
        let now = self.clock.advance(now);
        self.conns.handle_eof(now, conn);
        self.settle(now);
    }

    /// There is a UDP socket.
    pub fn socket_opened(
        &mut self,
        now: Instant,
        socket: AccessSocket,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        let now = self.clock.advance(now);
        self.socket_ready(now, socket, FiveTuple::udp(local, remote));
        self.settle(now);
    }

    /// There is no UDP socket, or it broke.
    pub fn socket_failed(&mut self, now: Instant, socket: AccessSocket) {
        let now = self.clock.advance(now);
        if let Some(flow) = self.flow_of_socket(socket) {
            self.way_broke(now, flow, RungFailure::Host);
        }
        self.settle(now);
    }

    /// The host's tunnel is up.
    pub fn tunnel_opened(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        self.tunnel_ready(now, flow);
        self.settle(now);
    }

    /// The host has no tunnel.
    pub fn tunnel_failed(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        if matches!(self.way(flow), Some(Way::Tunnel)) {
            self.way_broke(now, flow, RungFailure::Host);
        }
        self.settle(now);
    }

    /// Takes in a datagram of ordinary access over UDP.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &[u8],
    ) -> Received<'static, FlowId> {
        let Some(flow) = self.flow_at(at) else {
            return Received::NotMine;
        };
        let now = self.clock.advance(now);
        self.agent.handle_flow_input(now, flow, data);
        self.settle(now);
        Received::Consumed
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(flow) = self.timers.expired(now) {
            self.way_broke(now, flow, RungFailure::Host);
        }
        self.conns.handle_timeout(now);
        self.settle(now);
        self.agent.handle_timeout(now);
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.conns.poll_timeout(),
            self.agent.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<AccessAction> {
        self.settle(self.clock.now());
        self.actions.pop_front()
    }

    /// What the application wants to know next.
    pub fn poll_event(&mut self) -> Option<AccessEvent> {
        self.settle(self.clock.now());
        self.events.pop_front()
    }

    /// The TCP connections that have bytes to send.
    pub fn writable(&self) -> impl Iterator<Item = ConnId> {
        let sip = self
            .agent
            .writable()
            .filter_map(|flow| self.open_conn(flow));
        let own = self.conns.writable();
        own.chain(sip)
    }

    /// Fills `buf`, of any size, with bytes for a TCP connection.
    pub fn poll_conn(&mut self, conn: ConnId, buf: &mut [u8]) -> Option<usize> {
        if buf.is_empty() {
            return None;
        }
        if let Some(len) = self.conns.poll_conn(conn, buf) {
            return Some(len);
        }
        let flow = self.conns.key(conn)?;
        self.open_conn(flow)?;
        // The connection holds nothing, so all of it fits: what the user agent has handed over is
        // what the socket is about to take.
        if self.move_out(flow) {
            self.conns.poll_conn(conn, buf)
        } else {
            None
        }
    }

    /// Moves bytes of SIP from the user agent into the connection; whether there were any.
    fn move_out(&mut self, flow: FlowId) -> bool {
        let mut chunk = [0; CHUNK];
        let Some(len) = self.agent.poll_flow(flow, &mut chunk) else {
            return false;
        };
        let bytes = chunk.get(..len).unwrap_or_default();
        self.conns.write(flow, bytes) > 0
    }

    /// Writes what any connection or socket has to send into `buf`. Hosts whose sockets can be full
    /// ask connection by connection, by [`poll_conn`](Self::poll_conn), and use this for datagrams.
    ///
    /// # Panics
    /// For datagrams, when `buf` is shorter than [`sip_outbound::MAX_TRANSMIT`] and one does not
    /// fit.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<ConnPath>> {
        if let Some(sent) = self.poll_datagram(buf) {
            let to = ConnPath::Datagram(sent.to);
            return Some(Transmit { to, len: sent.len });
        }
        let conn = self.writable().next()?;
        let len = self.poll_conn(conn, buf)?;
        let to = ConnPath::Conn(conn);
        Some(Transmit { to, len })
    }

    /// Writes the next datagram into `buf`.
    ///
    /// # Panics
    /// As [`poll_transmit`](Self::poll_transmit).
    pub fn poll_datagram(&mut self, buf: &mut [u8]) -> Option<Transmit<FiveTuple>> {
        let (flow, to) = self
            .agent
            .writable()
            .find_map(|flow| Some((flow, self.open_socket(flow)?)))?;
        let len = self.agent.poll_flow(flow, buf)?;
        Some(Transmit { to, len })
    }

    /// The user agent, to look at.
    pub const fn agent(&self) -> &UserAgent {
        &self.agent
    }

    /// The user agent, for its commands. What follows from them comes with the next polls. Events
    /// and actions are not to be taken from it.
    pub const fn agent_mut(&mut self) -> &mut UserAgent {
        &mut self.agent
    }

    /// The ladder, to export what it remembers.
    pub const fn ladder(&self) -> &AccessLadder {
        &self.ladder
    }

    /// The ladder, to import what an earlier life remembered.
    pub const fn ladder_mut(&mut self) -> &mut AccessLadder {
        &mut self.ladder
    }
}

#[cfg(test)]
mod tests;
