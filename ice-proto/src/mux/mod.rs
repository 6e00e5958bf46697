//! Many agents behind the same sockets.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use smallvec::SmallVec;
use stun_proto::Instant;
use stun_proto::wire::{Class, Message, Method, TransactionId, Username};

use crate::{Agent, Route};

/// How long an answer to a check is waited for: longer than the check lasts.
const ANSWER_WAIT: Duration = Duration::from_secs(130);

/// Checks of one agent whose answers are waited for; a further one displaces its oldest.
const CHECKS_PER_AGENT: usize = 512;

/// Routes of one agent; a further one displaces its oldest, those first that nobody has answered from.
const ROUTES_PER_AGENT: usize = 64;

/// Generations of one agent: for a while after a restart it has two.
const NAMES_PER_AGENT: usize = 2;

/// How long a route stays with an agent that hears nothing from there: as long as consent lasts
/// (RFC 7675 section 5.1).
const SILENCE: Duration = Duration::from_secs(30);

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

/// Why an agent is taken to be the one that talks over a route; the greater counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    /// It has answered a check from there. A peer that knows the password may have forged the
    /// source.
    Asked,
    /// Its own check was answered from there.
    Answered,
}

#[derive(Clone, Copy, Debug)]
struct Owner<K> {
    key: K,
    proof: Proof,
    last: Instant,
}

/// What belongs to one agent.
#[derive(Clone, Debug)]
struct Entry {
    /// User name fragments, the oldest first.
    names: SmallVec<[String; NAMES_PER_AGENT]>,
    /// Checks that wait for an answer, the oldest first.
    checks: VecDeque<(Instant, TransactionId)>,
    routes: Vec<Route>,
}

/// Tells which of many agents a datagram is for, when they share sockets: a gateway with one port,
/// for instance. It holds no agents, only their keys.
///
/// A route belongs to the agent whose check was answered over it. One that has only answered checks
/// from there, as a lite agent does, keeps it until another proves it, or until nothing has come from
/// there for 30 s: a peer can name a foreign address as its own, but not take it away.
///
/// # Limits
/// Each agent has room for 2 generations, 512 checks that wait for an answer, and 64 routes; what
/// exceeds that displaces what is its own. The agents are as many as the limit of [`new`](Self::new).
///
/// ```
/// use ice_proto::{Agent, AgentConfig, Instant, Mux, Role};
///
/// let now = Instant::ZERO;
/// let agent = Agent::new(AgentConfig::new(Role::Controlled), [7; 32], now);
/// let mut mux = Mux::new(1000);
/// mux.add(1, &agent).unwrap();
/// // For every datagram: if let Some(key) = mux.owner(now, route, data), hand it to that agent.
/// // For everything the agent sends: mux.sent(now, key, route, message).
/// mux.remove(1);
/// ```
#[derive(Clone, Debug)]
pub struct Mux<K> {
    limit: usize,
    agents: BTreeMap<K, Entry>,
    names: BTreeMap<String, K>,
    checks: BTreeMap<TransactionId, (K, Route)>,
    routes: BTreeMap<Route, Owner<K>>,
    refused: u64,
}

impl<K: Copy + Ord> Mux<K> {
    /// For so many generations of agents: one agent has two for a while after a restart.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            agents: BTreeMap::new(),
            names: BTreeMap::new(),
            checks: BTreeMap::new(),
            routes: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Makes an agent known, or its new credentials after a restart. A third generation displaces
    /// the first.
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
        // Then one goes and one comes.
        let full = |entry: &Entry| entry.names.len() >= NAMES_PER_AGENT;
        let replaces = self.agents.get(&key).is_some_and(full);
        if !replaces && self.names.len() >= self.limit {
            return Err(MuxError);
        }
        let entry = self.agents.entry(key).or_insert_with(|| Entry {
            names: SmallVec::new(),
            checks: VecDeque::new(),
            routes: Vec::new(),
        });
        if replaces {
            self.names.remove(&entry.names.remove(0));
        }
        entry.names.push(ufrag.clone());
        self.names.insert(ufrag.clone(), key);
        Ok(())
    }

    /// Forgets the credentials of an agent other than its present ones.
    pub fn forget_old(&mut self, key: K, agent: &Agent) {
        let present = &agent.local_credentials().ufrag;
        let Some(entry) = self.agents.get_mut(&key) else {
            return;
        };
        let names = &mut self.names;
        entry.names.retain(|name| {
            let stays = name == present;
            if !stays {
                names.remove(name);
            }
            stays
        });
    }

    /// Forgets an agent.
    pub fn remove(&mut self, key: K) {
        let Some(entry) = self.agents.remove(&key) else {
            return;
        };
        for name in &entry.names {
            self.names.remove(name);
        }
        for (_, id) in &entry.checks {
            self.checks.remove(id);
        }
        for route in &entry.routes {
            self.routes.remove(route);
        }
    }

    /// How often an agent did not get a route, because it is another's.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// An agent sends this message over `route`: the answer to a check is for that agent.
    pub fn sent(&mut self, now: Instant, key: K, route: Route, message: &[u8]) {
        let Ok(message) = Message::parse(message) else {
            return;
        };
        match message.class() {
            Class::Request => self.wait_for_answer(now, key, route, message.transaction_id()),
            Class::Success | Class::Indication => self.claim(now, key, route, Proof::Asked),
            Class::Error => {}
        }
    }

    fn wait_for_answer(&mut self, now: Instant, key: K, route: Route, id: TransactionId) {
        let Some(entry) = self.agents.get_mut(&key) else {
            return;
        };
        while let Some((at, old)) = entry.checks.front().copied() {
            let room = entry.checks.len() < CHECKS_PER_AGENT;
            if room && now.duration_since(at) < ANSWER_WAIT {
                break;
            }
            entry.checks.pop_front();
            self.checks.remove(&old);
        }
        // It is sent again until it is answered.
        if self.checks.insert(id, (key, route)).is_none() {
            entry.checks.push_back((now, id));
        }
    }

    /// An agent has reason to take a route for its own.
    fn claim(&mut self, now: Instant, key: K, route: Route, proof: Proof) {
        if !self.agents.contains_key(&key) {
            return;
        }
        let mut claim = Owner {
            key,
            proof,
            last: now,
        };
        match self.routes.get(&route) {
            Some(owner) if owner.key == key => claim.proof = proof.max(owner.proof),
            Some(owner) if proof > owner.proof || now.duration_since(owner.last) >= SILENCE => {
                if let Some(entry) = self.agents.get_mut(&owner.key) {
                    entry.routes.retain(|known| *known != route);
                }
                self.note_route(key, route);
            }
            Some(_) => {
                self.refused = self.refused.saturating_add(1);
                return;
            }
            None => self.note_route(key, route),
        }
        self.routes.insert(route, claim);
    }

    fn note_route(&mut self, key: K, route: Route) {
        let Some(entry) = self.agents.get_mut(&key) else {
            return;
        };
        if entry.routes.len() >= ROUTES_PER_AGENT {
            let worth = |route: &Route| self.routes.get(route).map(|own| (own.proof, own.last));
            let least = (0..entry.routes.len()).min_by_key(|at| entry.routes.get(*at).map(worth));
            if let Some(least) = least {
                self.routes.remove(&entry.routes.swap_remove(least));
            }
        }
        entry.routes.push(route);
    }

    /// Whom a datagram is for: a check by the first part of its user name, an answer by its
    /// transaction, everything else by where it came from. `None`: nobody's, to be dropped.
    pub fn owner(&mut self, now: Instant, route: Route, datagram: &[u8]) -> Option<K> {
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
        let by_route = || self.routes.get(&route).map(|owner| owner.key);
        let Some(message) = message else {
            return by_route();
        };
        match message.class() {
            Class::Request => {
                let username: Username<'_> = message.find()?;
                let name = username.as_str()?.split(':').next()?;
                self.names.get(name).copied()
            }
            Class::Success => {
                let (key, asked) = self.checks.get(&message.transaction_id()).copied()?;
                if asked == route {
                    self.claim(now, key, route, Proof::Answered);
                }
                Some(key)
            }
            Class::Error => {
                let check = self.checks.get(&message.transaction_id());
                check.map(|(key, _)| *key)
            }
            Class::Indication => by_route(),
        }
    }
}

#[cfg(test)]
mod tests;
