//! Many agents behind the same sockets.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use core::time::Duration;

use stun_proto::Instant;
use stun_proto::wire::{Class, Message, Method, TransactionId, Username};

use crate::{Agent, Route};

/// How long an answer to a check is waited for: longer than the check lasts.
const ANSWER_WAIT: Duration = Duration::from_secs(130);

/// Most checks whose answers are waited for, all agents together.
const MAX_CHECKS: usize = 65_536;

/// Most routes remembered, all agents together.
const MAX_ROUTES: usize = 65_536;

/// Another agent has this user name fragment, or there are as many as allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user name fragment taken, or too many agents")]
pub struct MuxError;

/// What a datagram looks like, by its first byte (RFC 7983, RFC 5761).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// 0 to 3.
    Stun,
    /// 16 to 19.
    Zrtp,
    /// 20 to 63.
    Dtls,
    /// 64 to 79: only from a TURN server.
    TurnChannel,
    /// 128 to 191, unless it is RTCP.
    Rtp,
    /// 128 to 191 with a second byte of 192 to 223.
    Rtcp,
    /// None of these: to be dropped.
    Unknown,
}

impl PacketKind {
    /// The kind of a datagram.
    ///
    /// ```
    /// use ice_proto::PacketKind;
    ///
    /// assert_eq!(PacketKind::of(&[0x80, 0x60]), PacketKind::Rtp);
    /// assert_eq!(PacketKind::of(&[0x16, 0xFE, 0xFD]), PacketKind::Dtls);
    /// ```
    pub fn of(datagram: &[u8]) -> Self {
        match (datagram.first(), datagram.get(1)) {
            (Some(0..=3), _) => Self::Stun,
            (Some(16..=19), _) => Self::Zrtp,
            (Some(20..=63), _) => Self::Dtls,
            (Some(64..=79), _) => Self::TurnChannel,
            (Some(128..=191), Some(192..=223)) => Self::Rtcp,
            (Some(128..=191), _) => Self::Rtp,
            (Some(_) | None, _) => Self::Unknown,
        }
    }
}

/// Tells which of many agents a datagram is for, when they share sockets: a gateway with one port,
/// for instance. It holds no agents, only their keys.
///
/// ```
/// use ice_proto::{Agent, AgentConfig, Instant, Mux, Role};
///
/// let now = Instant::ZERO;
/// let agent = Agent::new(AgentConfig::new(Role::Controlled), [7; 32], now);
/// let mut mux = Mux::new(1000);
/// mux.add(1, &agent).unwrap();
/// // For every datagram: if let Some(key) = mux.owner(route, data), hand it to that agent.
/// // For everything the agent sends: mux.sent(now, key, route, message).
/// mux.remove(1);
/// ```
#[derive(Clone, Debug)]
pub struct Mux<K> {
    limit: usize,
    names: BTreeMap<String, K>,
    checks: BTreeMap<TransactionId, K>,
    /// The same, the oldest first.
    by_age: VecDeque<(Instant, TransactionId)>,
    routes: BTreeMap<Route, K>,
}

impl<K: Copy + PartialEq> Mux<K> {
    /// For so many generations of agents: one agent has two for a while after a restart.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            names: BTreeMap::new(),
            checks: BTreeMap::new(),
            by_age: VecDeque::new(),
            routes: BTreeMap::new(),
        }
    }

    /// Makes an agent known, or its new credentials after a restart.
    ///
    /// # Errors
    /// [`MuxError`]; nothing has changed then.
    pub fn add(&mut self, key: K, agent: &Agent) -> Result<(), MuxError> {
        let ufrag = &agent.local_credentials().ufrag;
        match self.names.get(ufrag) {
            Some(known) if *known == key => return Ok(()),
            Some(_) => return Err(MuxError),
            None => {}
        }
        if self.names.len() >= self.limit {
            return Err(MuxError);
        }
        self.names.insert(ufrag.clone(), key);
        Ok(())
    }

    /// Forgets the credentials of an agent other than its present ones.
    pub fn forget_old(&mut self, key: K, agent: &Agent) {
        let ufrag = &agent.local_credentials().ufrag;
        self.names
            .retain(|name, owner| *owner != key || name == ufrag);
    }

    /// Forgets an agent.
    pub fn remove(&mut self, key: K) {
        self.names.retain(|_, owner| *owner != key);
        self.checks.retain(|_, owner| *owner != key);
        self.routes.retain(|_, owner| *owner != key);
    }

    /// An agent sends this message: its answer, and data from there, are for that agent. A route
    /// belongs to the agent that used it first.
    pub fn sent(&mut self, now: Instant, key: K, route: Route, message: &[u8]) {
        let Ok(message) = Message::parse(message) else {
            return;
        };
        if self.routes.len() < MAX_ROUTES {
            self.routes.entry(route).or_insert(key);
        }
        if message.class() != Class::Request {
            return;
        }
        while let Some((at, id)) = self.by_age.front().copied() {
            if self.by_age.len() < MAX_CHECKS && now.duration_since(at) < ANSWER_WAIT {
                break;
            }
            self.by_age.pop_front();
            self.checks.remove(&id);
        }
        let id = message.transaction_id();
        if self.checks.insert(id, key).is_none() {
            self.by_age.push_back((now, id));
        }
    }

    /// Whom a datagram is for: a check by the first part of its user name, an answer by its
    /// transaction, everything else by where it came from. `None`: nobody's, to be dropped.
    pub fn owner(&self, route: Route, datagram: &[u8]) -> Option<K> {
        let message = match PacketKind::of(datagram) {
            PacketKind::Stun => Message::parse(datagram).ok(),
            PacketKind::Zrtp
            | PacketKind::Dtls
            | PacketKind::TurnChannel
            | PacketKind::Rtp
            | PacketKind::Rtcp
            | PacketKind::Unknown => None,
        };
        let message = message.filter(|message| message.method() == Method::BINDING);
        let by_route = || self.routes.get(&route).copied();
        let Some(message) = message else {
            return by_route();
        };
        match message.class() {
            Class::Request => {
                let username: Username<'_> = message.find()?;
                let name = username.as_str()?.split(':').next()?;
                self.names.get(name).copied()
            }
            Class::Success | Class::Error => self.checks.get(&message.transaction_id()).copied(),
            Class::Indication => by_route(),
        }
    }
}

#[cfg(test)]
mod tests;
