//! The TCP connections of one machine, each with the tunnel inside it.
//!
//! Two sides call it. The owner (control or media) knows a connection by its own key, from
//! [`Conns::open`] to [`Conns::close`]; the host knows it by [`ConnId`]. One key may see several
//! [`ConnId`]s, since a proxy that closes after its 407 is connected to again.

mod words;

use core::net::SocketAddr;
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use http_connect::Target;
use http_connect::auth::{ClientAuth, Credentials, Scheme};
use stun_proto::time::{Clock, Timers};
use stun_proto::{Instant, Rng};

pub use self::words::{ConnAction, ConnError, ConnFailure, ConnId, Endpoint, HttpProxy, PlanError};
#[cfg(feature = "tls")]
use crate::tunnel::Tls;
use crate::tunnel::{ProxyHop, Tunnel, TunnelConfig, TunnelEvent};

/// Ports to which no proxy is asked to connect.
const NEVER_BY_CONNECT: [u16; 2] = [80, 3478];

/// Limits of the TCP connections of one role.
///
/// ```
/// use ims_traversal::ConnLimits;
///
/// assert_eq!(ConnLimits::default().connect_timeout.as_secs(), 15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnLimits {
    /// How long a TCP connection may take to be made, its name to be resolved included: 15 s.
    pub connect_timeout: Duration,
    /// How long the host may take to write what is left of a connection that is over: 10 s. Then
    /// the rest is dropped.
    pub linger: Duration,
    /// How many connections there may be, with those that linger: 64.
    pub max_conns: usize,
    /// How many clear bytes may wait inside one connection: 64 KiB.
    pub write_limit: usize,
}

impl Default for ConnLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            linger: Duration::from_secs(10),
            max_conns: 64,
            write_limit: 64 * 1024,
        }
    }
}

/// Where a connection is to lead, and through what.
#[derive(Debug)]
pub(crate) struct ConnPlan<'p> {
    /// The far end, behind the proxy if there is one.
    pub(crate) to: Endpoint,
    pub(crate) via: Option<&'p HttpProxy>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConnEvent {
    /// The proxy has opened its part.
    Proxied,
    /// Bytes may be written and read.
    Ready {
        local: SocketAddr,
        /// Of the TCP connection: the proxy's, if there is one.
        remote: SocketAddr,
        alpn: Option<Vec<u8>>,
    },
    /// To be answered by [`Conns::set_credentials`].
    NeedCredentials { realm: String, scheme: Scheme },
    /// To be answered by [`Conns::set_token`].
    NeedToken {
        scheme: Scheme,
        token: Option<String>,
    },
    /// The other side has closed. What came before can be read until [`Conns::close`].
    Closed,
    /// It is of no more use; as after `Closed`.
    Failed(ConnError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The TCP connection is not there yet.
    Connect(ConnId),
    /// The tunnel has something to do.
    Tunnel(ConnId),
    /// The rest is not written yet.
    Linger(ConnId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected {
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// The host has been told to close it, once it has written the rest.
    Over,
    /// The same, and there is no rest.
    Dead,
}

#[derive(Debug)]
struct Conn<K> {
    /// `None` once the owner has let go of it.
    key: Option<K>,
    /// Where TCP goes to.
    hop: Endpoint,
    tunnel: Tunnel,
    state: State,
}

impl<K> Conn<K> {
    fn wants_transmit(&self) -> bool {
        match self.state {
            State::Connecting | State::Dead => false,
            State::Connected { .. } | State::Over => self.tunnel.wants_transmit(),
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Conns<K> {
    limits: ConnLimits,
    rng: Rng,
    clock: Clock,
    timers: Timers<Timer>,
    next: u64,
    conns: BTreeMap<ConnId, Conn<K>>,
    by_key: BTreeMap<K, ConnId>,
    actions: VecDeque<ConnAction>,
    events: VecDeque<(K, ConnEvent)>,
}

impl<K: Copy + Ord> Conns<K> {
    pub(crate) fn new(limits: ConnLimits, seed: [u8; 32], now: Instant) -> Self {
        Self {
            limits,
            rng: Rng::from_seed(seed),
            clock: Clock::new(now),
            timers: Timers::new(),
            next: 0,
            conns: BTreeMap::new(),
            by_key: BTreeMap::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    // ---- the owner's side

    /// Opens a connection that is known as `key` until [`close`](Self::close).
    pub(crate) fn open(
        &mut self,
        now: Instant,
        key: K,
        plan: ConnPlan<'_>,
    ) -> Result<ConnId, PlanError> {
        let now = self.clock.advance(now);
        if self.by_key.contains_key(&key) {
            return Err(PlanError::Exists);
        }
        if self.conns.len() >= self.limits.max_conns {
            return Err(PlanError::Full);
        }
        let proxy = match plan.via {
            Some(via) => Some(hop_to(&plan.to, via)?),
            None => None,
        };
        let config = TunnelConfig {
            proxy,
            #[cfg(feature = "tls")]
            tls: plan.tls,
            write_limit: self.limits.write_limit,
            ..TunnelConfig::default()
        };
        let tunnel = Tunnel::new(config, self.rng.fork(), now).map_err(PlanError::Field)?;
        let conn = Conn {
            key: Some(key),
            hop: plan.via.map_or(plan.to, |via| via.endpoint.clone()),
            tunnel,
            state: State::Connecting,
        };
        Ok(self.connect(now, conn))
    }

    /// Asks the host for a TCP connection, under a new number.
    fn connect(&mut self, now: Instant, mut conn: Conn<K>) -> ConnId {
        let id = ConnId(self.next);
        self.next = self.next.saturating_add(1);
        conn.state = State::Connecting;
        if let Some(key) = conn.key {
            self.by_key.insert(key, id);
        }
        let to = conn.hop.clone();
        self.actions.push_back(ConnAction::Connect { conn: id, to });
        let wait = self.limits.connect_timeout;
        self.timers.arm(Timer::Connect(id), now, wait);
        self.timers
            .set(Timer::Tunnel(id), conn.tunnel.poll_timeout());
        self.conns.insert(id, conn);
        id
    }

    /// The present number of a connection.
    pub(crate) fn id(&self, key: K) -> Option<ConnId> {
        self.by_key.get(&key).copied()
    }

    /// Whose a connection is.
    pub(crate) fn key(&self, id: ConnId) -> Option<K> {
        self.conns.get(&id)?.key
    }

    fn of_key(&mut self, key: K) -> Option<(ConnId, &mut Conn<K>)> {
        let id = self.id(key)?;
        Some((id, self.conns.get_mut(&id)?))
    }

    /// Takes clear bytes to send; how many of them. None before [`ConnEvent::Ready`].
    pub(crate) fn write(&mut self, key: K, data: &[u8]) -> usize {
        self.of_key(key)
            .map_or(0, |(_, conn)| conn.tunnel.write(data))
    }

    /// Takes a message to send, whole or not at all: if no more than `most` bytes wait then.
    pub(crate) fn write_whole(&mut self, key: K, message: &[u8], most: usize) -> bool {
        let most = most.min(self.limits.write_limit);
        self.of_key(key).is_some_and(|(_, conn)| {
            let waiting = conn.tunnel.waiting().saturating_add(message.len());
            waiting <= most && conn.tunnel.write(message) == message.len()
        })
    }

    /// The clear bytes that have come, where they are; then [`consume`](Self::consume) them.
    pub(crate) fn received(&self, key: K) -> &[u8] {
        let conn = self.id(key).and_then(|id| self.conns.get(&id));
        conn.map_or(&[], |conn| conn.tunnel.received())
    }

    pub(crate) fn consume(&mut self, key: K, len: usize) {
        if let Some((_, conn)) = self.of_key(key) {
            conn.tunnel.consume(len);
        }
    }

    /// After [`ConnEvent::Proxied`]: which proxy that was, and what was learned of its
    /// authentication. It is for that proxy alone.
    pub(crate) fn take_auth(&mut self, key: K) -> Option<(Endpoint, ClientAuth)> {
        let (_, conn) = self.of_key(key)?;
        let auth = conn.tunnel.take_auth()?;
        Some((conn.hop.clone(), auth))
    }

    /// Answers [`ConnEvent::NeedCredentials`]; `None` gives up.
    pub(crate) fn set_credentials(
        &mut self,
        now: Instant,
        key: K,
        credentials: Option<Credentials>,
    ) {
        let now = self.clock.advance(now);
        if let Some((id, conn)) = self.of_key(key) {
            conn.tunnel.set_credentials(now, credentials);
            self.settle(now, id);
        }
    }

    /// Answers [`ConnEvent::NeedToken`]; `None` gives up.
    pub(crate) fn set_token(&mut self, now: Instant, key: K, token: Option<String>) {
        let now = self.clock.advance(now);
        if let Some((id, conn)) = self.of_key(key) {
            conn.tunnel.set_token(now, token);
            self.settle(now, id);
        }
    }

    /// Lets go of a connection: what was written is still sent, nothing is reported any more, and
    /// the key is free again.
    pub(crate) fn close(&mut self, now: Instant, key: K) {
        let now = self.clock.advance(now);
        self.events.retain(|(of, _)| *of != key);
        let Some(id) = self.by_key.remove(&key) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.key = None;
            conn.tunnel.close();
            self.end(now, id);
        }
    }

    /// Lets go of all.
    pub(crate) fn close_all(&mut self, now: Instant) {
        while let Some((&key, _)) = self.by_key.first_key_value() {
            self.close(now, key);
        }
    }

    /// What has happened since the last time, oldest first.
    pub(crate) fn poll_event(&mut self) -> Option<(K, ConnEvent)> {
        self.events.pop_front()
    }

    // ---- the host's side

    /// There is a TCP connection.
    pub(crate) fn connected(
        &mut self,
        now: Instant,
        id: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        let now = self.clock.advance(now);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        match conn.state {
            State::Connecting => {}
            State::Connected { .. } | State::Over | State::Dead => return,
        }
        conn.state = State::Connected { local, remote };
        conn.tunnel.handle_connected(now);
        self.timers.disarm(Timer::Connect(id));
        self.settle(now, id);
    }

    /// A TCP connection was not made, or broke.
    pub(crate) fn failed(&mut self, now: Instant, id: ConnId, failure: ConnFailure) {
        let now = self.clock.advance(now);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        match conn.state {
            State::Connecting => self.fail(now, id, failure.into()),
            State::Connected { .. } => {
                // A proxy may cut the connection behind its 407; that ends nothing.
                conn.tunnel.handle_eof(now);
                loop {
                    let asked = match conn.tunnel.poll_event() {
                        Some(TunnelEvent::Reconnect) => return self.reconnect(now, id),
                        Some(TunnelEvent::Closed | TunnelEvent::Failed(_)) => break,
                        None if conn.tunnel.is_asking() => {
                            let deadline = conn.tunnel.poll_timeout();
                            self.timers.set(Timer::Tunnel(id), deadline);
                            return;
                        }
                        None => break,
                        Some(TunnelEvent::NeedCredentials { realm, scheme }) => {
                            ConnEvent::NeedCredentials { realm, scheme }
                        }
                        Some(TunnelEvent::NeedToken { scheme, token }) => {
                            ConnEvent::NeedToken { scheme, token }
                        }
                        Some(TunnelEvent::Connected | TunnelEvent::Ready { .. }) => continue,
                    };
                    if let Some(key) = conn.key {
                        self.events.push_back((key, asked));
                    }
                }
                self.fail(now, id, failure.into());
            }
            State::Over | State::Dead => {}
        }
        self.mute(id);
    }

    /// Takes in bytes of a TCP connection; whose they were.
    pub(crate) fn handle_input(&mut self, now: Instant, id: ConnId, data: &[u8]) -> Option<K> {
        let now = self.clock.advance(now);
        let conn = self.conns.get_mut(&id)?;
        match conn.state {
            State::Connecting | State::Over | State::Dead => None,
            State::Connected { .. } => {
                let key = conn.key;
                conn.tunnel.handle_input(now, data);
                self.settle(now, id);
                key
            }
        }
    }

    /// The other side has closed its half of a TCP connection.
    pub(crate) fn handle_eof(&mut self, now: Instant, id: ConnId) {
        let now = self.clock.advance(now);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        match conn.state {
            State::Connecting | State::Over | State::Dead => {}
            State::Connected { .. } => {
                conn.tunnel.handle_eof(now);
                self.settle(now, id);
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Connect(id) => self.fail(now, id, ConnFailure::TimedOut.into()),
                Timer::Tunnel(id) => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.tunnel.handle_timeout(now);
                        self.settle(now, id);
                    }
                }
                Timer::Linger(id) => self.mute(id),
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn poll_action(&mut self) -> Option<ConnAction> {
        self.actions.pop_front()
    }

    /// Which connections have bytes to send.
    pub(crate) fn writable(&self) -> impl Iterator<Item = ConnId> {
        let conns = self.conns.iter();
        conns
            .filter(|(_, conn)| conn.wants_transmit())
            .map(|(id, _)| *id)
    }

    /// Fills `buf`, of any size, with bytes for a TCP connection.
    pub(crate) fn poll_conn(&mut self, id: ConnId, buf: &mut [u8]) -> Option<usize> {
        let conn = self.conns.get_mut(&id)?;
        let len = match conn.state {
            State::Connecting | State::Dead => return None,
            State::Connected { .. } | State::Over => conn.tunnel.poll_transmit(buf),
        };
        self.drop_if_done(id);
        len
    }

    // ---- within

    /// After anything that touched a tunnel: passes its events on.
    fn settle(&mut self, now: Instant, id: ConnId) {
        while let Some(conn) = self.conns.get_mut(&id) {
            let (State::Connected { local, remote }, Some(key)) = (conn.state, conn.key) else {
                break;
            };
            let Some(event) = conn.tunnel.poll_event() else {
                break;
            };
            let event = match event {
                TunnelEvent::Connected => ConnEvent::Proxied,
                TunnelEvent::Ready { alpn } => ConnEvent::Ready {
                    local,
                    remote,
                    alpn,
                },
                TunnelEvent::NeedCredentials { realm, scheme } => {
                    ConnEvent::NeedCredentials { realm, scheme }
                }
                TunnelEvent::NeedToken { scheme, token } => ConnEvent::NeedToken { scheme, token },
                TunnelEvent::Reconnect => {
                    self.reconnect(now, id);
                    return;
                }
                TunnelEvent::Closed => {
                    self.events.push_back((key, ConnEvent::Closed));
                    self.end(now, id);
                    return;
                }
                TunnelEvent::Failed(error) => {
                    self.fail(now, id, error.into());
                    return;
                }
            };
            self.events.push_back((key, event));
        }
        if let Some(conn) = self.conns.get(&id) {
            self.timers
                .set(Timer::Tunnel(id), conn.tunnel.poll_timeout());
        }
    }

    /// The proxy is to be asked again over another connection.
    fn reconnect(&mut self, now: Instant, id: ConnId) {
        self.disarm(id);
        self.actions.push_back(ConnAction::Close { conn: id });
        if let Some(conn) = self.conns.remove(&id) {
            self.connect(now, conn);
        }
    }

    fn fail(&mut self, now: Instant, id: ConnId, error: ConnError) {
        let key = self.conns.get(&id).and_then(|conn| conn.key);
        if let Some(key) = key {
            self.events.push_back((key, ConnEvent::Failed(error)));
        }
        self.end(now, id);
    }

    /// Has the host close a connection once it has written the rest.
    fn end(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        match conn.state {
            State::Over | State::Dead => {}
            State::Connecting | State::Connected { .. } => {
                conn.state = State::Over;
                self.actions.push_back(ConnAction::Close { conn: id });
                self.disarm(id);
                let wait = self.limits.linger;
                self.timers.arm(Timer::Linger(id), now, wait);
            }
        }
        self.drop_if_done(id);
    }

    /// What was to be sent is no longer.
    fn mute(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.state = State::Dead;
            self.drop_if_done(id);
        }
    }

    /// Forgets a connection that the owner has let go of and that has nothing to send.
    fn drop_if_done(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else {
            return;
        };
        match conn.state {
            State::Connecting | State::Connected { .. } => return,
            State::Over if conn.tunnel.wants_transmit() => return,
            State::Over | State::Dead => {}
        }
        self.timers.disarm(Timer::Linger(id));
        if conn.key.is_none() {
            self.conns.remove(&id);
        }
    }

    fn disarm(&mut self, id: ConnId) {
        for timer in [Timer::Connect(id), Timer::Tunnel(id), Timer::Linger(id)] {
            self.timers.disarm(timer);
        }
    }
}

/// The CONNECT that leads to `to`.
fn hop_to(to: &Endpoint, via: &HttpProxy) -> Result<ProxyHop, PlanError> {
    let port = to.port();
    if NEVER_BY_CONNECT.contains(&port) {
        return Err(PlanError::ConnectPort(port));
    }
    Ok(ProxyHop {
        target: Target::new(&to.host(), port).map_err(PlanError::Target)?,
        config: via.connect.clone(),
        auth: via.auth.clone(),
    })
}

#[cfg(test)]
mod tests;
