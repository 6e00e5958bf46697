//! The agent (RFC 8445): one session with one other side.

mod checks;
mod conclude;
mod config;
mod pairs;
mod requests;

use core::net::IpAddr;
use core::time::Duration;

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::time::{Clock, Timers};
use stun_proto::wire::{Key, Message, Method, TransactionId};
use stun_proto::{FiveTuple, Instant, Received, Rng, Transmit};

use self::checks::Check;
use self::conclude::Selected;
pub use self::config::{
    Action, AgentConfig, Base, CandidateError, Credentials, Event, Failure, LocalCandidate, Remote,
    Role, Stats,
};
use self::pairs::{Checklist, KnownLocal, KnownRemote, PairState, Pairs, foundation};
use self::requests::EarlyCheck;
use crate::{Candidate, CandidateKind, ComponentId, RelayId, Route, priority};

/// The longest check or answer of an agent; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = 1232;

/// Checks start no closer together than this, whatever is configured.
const MIN_PACING: Duration = Duration::from_millis(5);

/// Local candidates of one agent.
const MAX_LOCAL: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next check may start.
    Pace,
    /// A check is to be sent again, or given up.
    Check(TransactionId),
    /// Pairs may be given up.
    Patience,
    /// Better pairs have been waited for long enough.
    Nominate(u16),
    /// Consent is to be asked for, or the path kept open.
    Consent(ComponentId),
    /// Consent ends.
    ConsentExpiry(ComponentId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Completed,
    /// The terminal event is out.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Asked,
    Created,
    Failed,
}

/// An ICE agent with full implementation. See the [module](self).
///
/// ```
/// use ice_proto::{Agent, AgentConfig, Base, CandidateKind, ComponentId, Instant, LocalCandidate, Role};
///
/// let now = Instant::ZERO;
/// let mut agent = Agent::new(AgentConfig::new(Role::Controlling), [7; 32], now);
/// let addr = "192.0.2.1:40000".parse().unwrap();
/// let line = agent
///     .add_local_candidate(now, LocalCandidate {
///         component: ComponentId { stream: 0, component: 1 },
///         kind: CandidateKind::Host,
///         addr,
///         base: Base::Host(addr),
///         local_preference: 65535,
///         server: None,
///         related: None,
///     })
///     .unwrap();
/// assert_eq!(line.to_string(), "candidate:1 1 udp 2130706431 192.0.2.1 40000 typ host");
/// ```
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    role: Role,
    tie_breaker: u64,
    clock: Clock,
    rng: Rng,
    state: State,
    local: Credentials,
    local_key: Key,
    remote: Option<Remote>,
    remote_key: Option<Key>,
    locals: Vec<KnownLocal>,
    remotes: Vec<KnownRemote>,
    gathering_done: bool,
    remote_done: bool,
    patient: bool,
    pairs: Pairs,
    lists: Vec<Checklist>,
    next_list: u16,
    checks: BTreeMap<TransactionId, Check>,
    early: VecDeque<EarlyCheck>,
    permissions: BTreeMap<(RelayId, IpAddr), Permission>,
    /// Where data may come from.
    sources: BTreeMap<Route, ComponentId>,
    selected: BTreeMap<ComponentId, Selected>,
    timers: Timers<Timer>,
    outbox: VecDeque<(Route, Vec<u8>)>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Agent {
    /// An agent without candidates. `seed` must come from a cryptographic source: user name
    /// fragment, password, tie-breaker and transaction IDs come from it.
    pub fn new(config: AgentConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::from_seed(seed);
        let local = Credentials {
            ufrag: ice_chars(&mut rng, 8),
            pwd: ice_chars(&mut rng, 24),
        };
        Self {
            role: config.role,
            tie_breaker: rng.u64(),
            clock: Clock::new(now),
            state: State::Running,
            local_key: Key::short_term(&local.pwd),
            local,
            remote: None,
            remote_key: None,
            locals: Vec::new(),
            remotes: Vec::new(),
            gathering_done: false,
            remote_done: false,
            patient: true,
            pairs: Pairs::default(),
            lists: config
                .components
                .iter()
                .map(|_| Checklist::default())
                .collect(),
            next_list: 0,
            checks: BTreeMap::new(),
            early: VecDeque::new(),
            permissions: BTreeMap::new(),
            sources: BTreeMap::new(),
            selected: BTreeMap::new(),
            timers: Timers::new(),
            outbox: VecDeque::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
            rng,
        }
    }

    /// What the description of this side must say.
    pub const fn local_credentials(&self) -> &Credentials {
        &self.local
    }

    /// The present role.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// This side's candidates for a description.
    pub fn local_candidates(&self) -> impl Iterator<Item = (u16, Candidate)> {
        self.locals
            .iter()
            .filter(|known| known.candidate.kind != CandidateKind::PeerReflexive)
            .map(|known| (known.candidate.component.stream, known.shown()))
    }

    /// Adds a candidate and returns what the description says about it.
    ///
    /// # Errors
    /// [`CandidateError`]; redundant ones are those with the same address and base.
    pub fn add_local_candidate(
        &mut self,
        now: Instant,
        candidate: LocalCandidate,
    ) -> Result<Candidate, CandidateError> {
        let now = self.clock.advance(now);
        if self.state == State::Ended {
            return Err(CandidateError::Late);
        }
        if !self.has_component(candidate.component) {
            return Err(CandidateError::Component);
        }
        let same = |known: &KnownLocal| {
            known.candidate.component == candidate.component
                && known.candidate.addr == candidate.addr
                && known.candidate.base == candidate.base
        };
        if self.locals.iter().any(same) {
            return Err(CandidateError::Redundant);
        }
        if self.locals.len() >= MAX_LOCAL {
            return Err(CandidateError::Limit);
        }
        let known = KnownLocal {
            foundation: foundation(&self.locals, &candidate),
            priority: priority(
                candidate.kind,
                candidate.local_preference,
                candidate.component.component,
            ),
            candidate,
        };
        let shown = known.shown();
        let index = self.locals.len();
        self.locals.push(known);
        self.pair_up(index..index.saturating_add(1), 0..self.remotes.len());
        self.changed(now);
        Ok(shown)
    }

    /// No more local candidates will come.
    pub fn local_gathering_done(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.gathering_done = true;
        self.changed(now);
    }

    /// The other side's description has come: checks may begin.
    pub fn set_remote(&mut self, now: Instant, remote: Remote) {
        let now = self.clock.advance(now);
        if self.state == State::Ended || self.remote.is_some() {
            return;
        }
        if remote.lite {
            // A full agent always decides when the other one is lite.
            self.role = Role::Controlling;
        }
        self.remote_key = Some(Key::short_term(&remote.credentials.pwd));
        self.remote = Some(remote);
        self.timers.arm(Timer::Patience, now, self.config.patience);
        while let Some(check) = self.early.pop_front() {
            self.take_early(check);
        }
        self.refreeze();
        self.changed(now);
    }

    /// Adds a candidate of the other side.
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
        if self.state == State::Ended || self.remote_done {
            return Err(CandidateError::Late);
        }
        let component = ComponentId {
            stream,
            component: candidate.component,
        };
        if !self.has_component(component) {
            return Err(CandidateError::Component);
        }
        let known = self.remotes.iter_mut().find(|known| {
            known.stream == stream
                && known.candidate.component == candidate.component
                && known.candidate.addr == candidate.addr
        });
        if let Some(known) = known {
            if known.candidate.kind != CandidateKind::PeerReflexive {
                return Err(CandidateError::Redundant);
            }
            // A check has brought it to light before: what is under way goes on, with its priority.
            known.candidate.kind = candidate.kind;
            known.candidate.foundation = candidate.foundation;
            known.candidate.related = candidate.related;
            return Ok(());
        }
        let from_one_address = self
            .remotes
            .iter()
            .filter(|known| known.candidate.addr.ip() == candidate.addr.ip())
            .count();
        if self.remotes.len() >= self.config.max_remote || from_one_address >= 8 {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
            return Err(CandidateError::Limit);
        }
        let index = self.remotes.len();
        self.remotes.push(KnownRemote { stream, candidate });
        self.pair_up(0..self.locals.len(), index..index.saturating_add(1));
        self.refreeze();
        self.changed(now);
        Ok(())
    }

    /// The other side has no more candidates.
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.remote_done = true;
        self.changed(now);
    }

    fn has_component(&self, id: ComponentId) -> bool {
        let components = self.config.components.get(usize::from(id.stream));
        components.is_some_and(|most| (1..=*most).contains(&id.component))
    }

    /// Something changed that checks may follow from.
    fn changed(&mut self, now: Instant) {
        if self.remote.is_some() && self.state == State::Running {
            if self.timers.get(Timer::Pace).is_none() {
                self.pace(now);
            }
            self.conclude(now);
        }
    }

    /// Takes in a datagram.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a, ComponentId> {
        self.handle(now, Route::Datagram(at), data)
    }

    /// Takes in what a TURN server relayed from `peer`.
    pub fn handle_relayed<'a>(
        &mut self,
        now: Instant,
        relay: RelayId,
        peer: core::net::SocketAddr,
        data: &'a [u8],
    ) -> Received<'a, ComponentId> {
        self.handle(now, Route::Relay { relay, peer }, data)
    }

    fn handle<'a>(
        &mut self,
        now: Instant,
        route: Route,
        data: &'a [u8],
    ) -> Received<'a, ComponentId> {
        let first = data.first().copied().unwrap_or(0xFF);
        if first < 4
            && let Ok(message) = Message::parse(data)
            && message.method() == Method::BINDING
            && message.check_fingerprint() == Some(true)
        {
            return self.stun(now, route, &message);
        }
        match self.sources.get(&route) {
            Some(component) if self.state != State::Ended => Received::Data {
                peer: *component,
                data,
            },
            Some(_) | None => {
                self.stats.unknown_source = self.stats.unknown_source.saturating_add(1);
                Received::NotMine
            }
        }
    }

    /// The component a route arrives at, by the local candidate it uses.
    fn component_at(&self, route: Route) -> Option<usize> {
        self.locals.iter().position(|known| {
            let sends = matches!(
                known.candidate.kind,
                CandidateKind::Host | CandidateKind::Relayed
            );
            sends
                && match (known.candidate.base, route) {
                    (Base::Host(base), Route::Datagram(at)) => base == at.local,
                    (Base::Relay(ours), Route::Relay { relay, .. }) => ours == relay,
                    (Base::Host(_), Route::Relay { .. }) | (Base::Relay(_), Route::Datagram(_)) => {
                        false
                    }
                }
        })
    }

    /// The permission asked for exists.
    pub fn permission_created(&mut self, now: Instant, relay: RelayId, peer: IpAddr) {
        let now = self.clock.advance(now);
        self.permissions.insert((relay, peer), Permission::Created);
        self.changed(now);
    }

    /// The permission asked for cannot be had: its pairs fail.
    pub fn permission_failed(&mut self, now: Instant, relay: RelayId, peer: IpAddr) {
        let now = self.clock.advance(now);
        self.permissions.insert((relay, peer), Permission::Failed);
        self.fail_pairs(now, |route| {
            matches!(route, Route::Relay { relay: r, peer: p } if r == relay && p.ip() == peer)
        });
    }

    /// A relay is gone: its pairs fail.
    pub fn relay_lost(&mut self, now: Instant, relay: RelayId) {
        let now = self.clock.advance(now);
        self.fail_pairs(
            now,
            |route| matches!(route, Route::Relay { relay: r, .. } if r == relay),
        );
    }

    fn fail_pairs(&mut self, now: Instant, concerned: impl Fn(Route) -> bool) {
        let ids: Vec<_> = self
            .pairs
            .all
            .iter()
            .filter(|(_, pair)| concerned(pair.route))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.cancel_checks(id);
            self.set_state(id, PairState::Failed);
        }
        self.changed(now);
    }

    fn is_permitted(&self, route: Route) -> bool {
        match route {
            Route::Datagram(_) => true,
            Route::Relay { relay, peer } => {
                self.permissions.get(&(relay, peer.ip())) == Some(&Permission::Created)
            }
        }
    }

    fn ask_permission(&mut self, route: Route) {
        if let Route::Relay { relay, peer } = route {
            let peer = peer.ip();
            if let Entry::Vacant(entry) = self.permissions.entry((relay, peer)) {
                entry.insert(Permission::Asked);
                self.actions
                    .push_back(Action::CreatePermission { relay, peer });
            }
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Pace => self.pace(now),
                Timer::Check(id) => self.check_due(now, id),
                Timer::Patience => {
                    self.patient = false;
                    self.conclude(now);
                }
                Timer::Nominate(_) => self.conclude(now),
                Timer::Consent(component) => self.ask_consent(now, component),
                Timer::ConsentExpiry(component) => self.consent_expired(component),
            }
        }
    }

    /// Writes the next check or answer into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the message, at most [`MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<Route>> {
        let (to, message) = self.outbox.pop_front()?;
        let len = message.len();
        assert!(len <= buf.len(), "transmit buffer too small");
        if let Some(slot) = buf.get_mut(..len) {
            slot.copy_from_slice(&message);
        }
        Some(Transmit { to, len })
    }

    /// The next thing the host must do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Where data of a component goes now: the selected pair, or before there is one the best that
    /// works. `None` while nothing does.
    pub fn route(&self, component: ComponentId) -> Option<Route> {
        if self.state == State::Ended {
            return None;
        }
        if let Some(selected) = self.selected.get(&component) {
            return Some(selected.route);
        }
        self.best_valid(component)
            .and_then(|id| self.pairs.all.get(&id))
            .map(|pair| pair.route)
    }

    /// Ends the session without an event; nothing is sent any more.
    pub fn close(&mut self) {
        self.state = State::Ended;
        self.timers = Timers::new();
        self.checks.clear();
        self.outbox.clear();
        self.actions.clear();
        self.sources.clear();
        self.selected.clear();
        self.early.clear();
    }
}

/// Random letters, digits, `+` and `/`: six bits each.
fn ice_chars(rng: &mut Rng, len: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..len)
        .filter_map(|_| ALPHABET.get(rng.below(64) as usize))
        .map(|&byte| char::from(byte))
        .collect()
}

#[cfg(test)]
mod tests;
