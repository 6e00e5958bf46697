//! The agent (RFC 8445): one session with one other side.

mod candidates;
mod checks;
mod conclude;
mod config;
mod consent;
mod lite;
mod pacer;
mod pairs;
mod plain;
mod requests;
mod restart;
mod schedule;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::Secret;
use stun_proto::time::{Clock, Timers};
use stun_proto::wire::{Key, Message, Method, TransactionId};
use stun_proto::{FiveTuple, Instant, Received, Rng, Transmit};

use self::candidates::{KnownLocal, KnownRemote, LocalId, RemoteId};
use self::checks::Check;
pub use self::conclude::NominateError;
use self::conclude::Selected;
pub use self::config::{
    Action, AgentConfig, AgentState, Base, CandidateError, Credentials, Event, Failure,
    LocalCandidate, Nomination, Remote, RemoteError, Role, RouteLoss, Stats,
};
pub use self::pacer::Pacer;
use self::pairs::{Pair, PairId};
pub use self::plain::{PlainError, PlainKeepAlive};
use self::requests::EarlyCheck;
use self::restart::Old;
pub use self::restart::{RestartError, RollbackError};
use self::schedule::{Checklist, Pace};
use crate::{ComponentId, RelayId, Route};

/// The longest check or answer of an agent; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = 548;

/// Checks start no closer together than this, whatever is configured.
pub(crate) const MIN_PACING: Duration = Duration::from_millis(5);

/// Local candidates of one agent.
const MAX_LOCAL: usize = 64;

/// Permissions asked for until a restart; pairs that would need more are not checked.
const MAX_PERMISSIONS: usize = 128;

/// Messages waiting for the host. What comes beyond is not answered: datagrams get lost.
const MAX_OUTBOX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A check is to be sent again, or given up.
    Check(TransactionId),
    /// Pairs may be given up.
    Patience,
    /// Better pairs of a stream have been waited for long enough.
    Nominate(u16),
    /// Consent is to be asked for, or the path kept open.
    Consent(ComponentId),
    /// Consent ends.
    ConsentExpiry(ComponentId),
    /// The candidates a stream did not select are of no use any more.
    Grace(u16),
    /// What was agreed on before the restart is forgotten.
    OldGeneration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Asked,
    Created,
    Failed,
}

/// This side's credentials.
#[derive(Debug)]
struct Here {
    credentials: Credentials,
    key: Key,
}

impl Here {
    /// 48 random bits of name, 144 of password (RFC 8445 section 5.3).
    fn generate(rng: &mut Rng) -> Self {
        let credentials = Credentials {
            ufrag: ice_chars(rng, 8),
            pwd: Secret::new(ice_chars(rng, 24)),
        };
        Self {
            key: Key::short_term(credentials.pwd.expose()),
            credentials,
        }
    }
}

/// The other side's description.
#[derive(Debug)]
struct There {
    remote: Remote,
    key: Key,
}

/// An ICE agent, full or lite: one session with one other side.
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
    /// Role switches of this generation.
    switches: u8,
    clock: Clock,
    rng: Rng,
    state: AgentState,
    generation: u32,
    /// Counts restarts, those taken back included.
    generations: u32,
    here: Here,
    there: Option<There>,
    old: Option<Old>,
    locals: BTreeMap<LocalId, KnownLocal>,
    remotes: BTreeMap<RemoteId, KnownRemote>,
    next_candidate: u32,
    /// Some remote candidates have not been paired.
    unpaired: bool,
    gathering_done: bool,
    remote_done: bool,
    /// Nothing is given up yet (RFC 8863).
    patient: bool,
    pairs: BTreeMap<PairId, Pair>,
    next_pair: u32,
    lists: Vec<Checklist>,
    pace: Pace,
    checks: BTreeMap<TransactionId, Check>,
    /// Check datagrams of this generation.
    check_datagrams: u32,
    early: VecDeque<EarlyCheck>,
    permissions: BTreeMap<(RelayId, IpAddr), Permission>,
    /// Where data may come from.
    sources: BTreeMap<Route, ComponentId>,
    selected: BTreeMap<ComponentId, Selected>,
    refusals: (Instant, u8),
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
        let streams = config.components.len();
        Self {
            role: config.role,
            tie_breaker: rng.u64(),
            switches: 0,
            clock: Clock::new(now),
            state: AgentState::Running,
            generation: 0,
            generations: 0,
            here: Here::generate(&mut rng),
            there: None,
            old: None,
            locals: BTreeMap::new(),
            remotes: BTreeMap::new(),
            next_candidate: 0,
            unpaired: false,
            gathering_done: false,
            remote_done: false,
            patient: true,
            pairs: BTreeMap::new(),
            next_pair: 0,
            lists: (0..streams).map(|_| Checklist::default()).collect(),
            pace: Pace::default(),
            checks: BTreeMap::new(),
            check_datagrams: 0,
            early: VecDeque::new(),
            permissions: BTreeMap::new(),
            sources: BTreeMap::new(),
            selected: BTreeMap::new(),
            refusals: (now, 0),
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
        &self.here.credentials
    }

    /// The present role.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The number of the generation that [`local_credentials`](Self::local_credentials) belong to,
    /// and that events carry: 0, and after each restart the next one. A
    /// [rollback](Self::rollback) goes back to the one before.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Where the session stands.
    pub const fn state(&self) -> AgentState {
        self.state
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The other side's description has come: checks may begin.
    ///
    /// A full agent always controls a lite one, and a lite agent never a full one, whoever made
    /// the offer (RFC 8445 section 6.1.1). The same credentials again change nothing but `ice2` and
    /// `pacing`. After a [restart](Self::restart) the credentials of before mean that the other side
    /// does not restart: then neither does this one ([`rollback`](Self::rollback)).
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn set_remote(&mut self, now: Instant, remote: Remote) -> Result<(), RemoteError> {
        let now = self.clock.advance(now);
        if self.state == AgentState::Closed {
            return Err(RemoteError::Closed);
        }
        let Credentials { ufrag, pwd } = &remote.credentials;
        if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&pwd.expose().len()) {
            return Err(RemoteError::Credentials);
        }
        if self.declines_restart(&remote.credentials) && self.rollback(now).is_err() {
            return Err(RemoteError::Credentials);
        }
        if let Some(there) = &mut self.there {
            if there.remote.credentials != remote.credentials {
                return Err(RemoteError::RestartFirst);
            }
            // Gateways rewrite the rest; full and lite change by a restart only.
            there.remote.ice2 = remote.ice2;
            there.remote.pacing = remote.pacing;
            return Ok(());
        }
        if self.old_remote_is(&remote.credentials) {
            return Err(RemoteError::Credentials);
        }
        if remote.lite != self.config.lite {
            self.role = if remote.lite {
                Role::Controlling
            } else {
                Role::Controlled
            };
        }
        self.leave_plain();
        let key = Key::short_term(remote.credentials.pwd.expose());
        self.there = Some(There { remote, key });
        self.agreed(now);
        self.reprioritize();
        self.timers.arm(Timer::Patience, now, self.config.patience);
        for check in core::mem::take(&mut self.early) {
            self.replay(now, check);
        }
        self.changed(now);
        Ok(())
    }

    /// How long to wait between two checks: the longer of both sides' wishes (RFC 8445
    /// section 14.2).
    fn pacing(&self) -> Duration {
        let theirs = self.there.as_ref().map(|there| there.remote.pacing);
        let theirs = theirs.map(|pacing| pacing.unwrap_or(Duration::from_millis(50)));
        let pacing = self.config.pacing;
        let longest = Duration::from_secs(5);
        pacing
            .max(theirs.unwrap_or(pacing))
            .clamp(MIN_PACING, longest)
    }

    pub(crate) fn has_component(&self, id: ComponentId) -> bool {
        let components = self.config.components.get(usize::from(id.stream));
        components.is_some_and(|most| (1..=*most).contains(&id.component))
    }

    /// How many components a stream has; fewer than configured once it turned out that the other
    /// side has fewer.
    pub fn component_count(&self, stream: u16) -> u16 {
        let count = self.config.components.get(usize::from(stream));
        count.copied().unwrap_or(0)
    }

    /// What the other side's description said, once it is known.
    pub const fn remote(&self) -> Option<&Remote> {
        match &self.there {
            Some(there) => Some(&there.remote),
            None => None,
        }
    }

    /// The components of a stream.
    fn components(&self, stream: u16) -> impl Iterator<Item = ComponentId> + use<> {
        let most = self.config.components.get(usize::from(stream));
        (1..=most.copied().unwrap_or(0)).map(move |component| ComponentId { stream, component })
    }

    /// The streams that are still wanted.
    fn streams(&self) -> impl Iterator<Item = u16> + use<> {
        let wanted: smallvec::SmallVec<[u16; 8]> = self
            .lists
            .iter()
            .zip(0..)
            .filter(|(list, _)| !list.removed)
            .map(|(_, stream)| stream)
            .collect();
        wanted.into_iter()
    }

    /// Something changed that conclusions or checks may follow from.
    fn changed(&mut self, now: Instant) {
        self.conclude(now);
        self.arm_pace(now);
    }

    /// Takes in a datagram.
    ///
    /// [`Received::NotMine`] is no check for this agent and no data from an address that a check
    /// has proven: let somebody else look at it, or drop it.
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
        peer: SocketAddr,
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
            Some(component) if self.state != AgentState::Closed => Received::Data {
                peer: *component,
                data,
            },
            Some(_) | None => Received::NotMine,
        }
    }

    /// A hard ICMP error came for a datagram. By default it means nothing, because anybody can
    /// send one; see [`AgentConfig::icmp_fails_pairs`].
    pub fn handle_icmp_error(&mut self, now: Instant, at: FiveTuple) {
        let now = self.clock.advance(now);
        if !self.config.icmp_fails_pairs {
            return;
        }
        let route = Route::Datagram(at);
        self.fail_pairs(now, |pair| {
            pair.route == route && pair.state == pairs::PairState::InProgress
        });
    }

    /// The permission asked for exists.
    pub fn permission_created(&mut self, now: Instant, relay: RelayId, peer: IpAddr) {
        let now = self.clock.advance(now);
        if let Some(permission) = self.permissions.get_mut(&(relay, peer)) {
            *permission = Permission::Created;
            self.changed(now);
        }
    }

    /// The permission asked for cannot be had: its pairs fail.
    pub fn permission_failed(&mut self, now: Instant, relay: RelayId, peer: IpAddr) {
        let now = self.clock.advance(now);
        let Some(permission) = self.permissions.get_mut(&(relay, peer)) else {
            return;
        };
        *permission = Permission::Failed;
        let concerns = |route| matches!(route, Route::Relay { relay: r, peer: p } if r == relay && p.ip() == peer);
        self.fail_pairs(now, |pair| concerns(pair.route));
        // Where no check has gone before, nothing else tells that the way is closed.
        let closed: smallvec::SmallVec<[ComponentId; 2]> = self
            .selected
            .iter()
            .filter(|(_, selected)| selected.plain && concerns(selected.route))
            .map(|(component, _)| *component)
            .collect();
        for component in closed {
            self.lose_route(component, RouteLoss::NotPermitted);
        }
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
            if self.permissions.len() >= MAX_PERMISSIONS {
                return;
            }
            self.permissions.entry((relay, peer)).or_insert_with(|| {
                let action = Action::CreatePermission { relay, peer };
                self.actions.push_back(action);
                Permission::Asked
            });
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Check(id) => self.check_due(now, id),
                Timer::Patience => {
                    self.patient = false;
                    self.changed(now);
                }
                Timer::Nominate(_) => self.changed(now),
                Timer::Consent(component) => self.consent_due(now, component),
                Timer::ConsentExpiry(component) => {
                    self.lose_route(component, RouteLoss::ConsentExpired);
                }
                Timer::Grace(stream) => self.release_unselected(stream),
                Timer::OldGeneration => self.forget_old(),
            }
        }
    }

    /// Writes the next check or answer into `buf`. A check whose turn has come starts here.
    ///
    /// # Panics
    /// When `buf` is shorter than the message, at most [`MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<Route>> {
        self.poll_transmit_paced(buf, None)
    }

    /// As [`poll_transmit`](Self::poll_transmit), but a new check starts only when the pacer that
    /// all agents of the process share lets it (RFC 8445 section 14.2).
    ///
    /// # Panics
    /// As [`poll_transmit`](Self::poll_transmit).
    pub fn poll_transmit_paced(
        &mut self,
        buf: &mut [u8],
        mut pacer: Option<&mut Pacer>,
    ) -> Option<Transmit<Route>> {
        loop {
            if let Some((to, message)) = self.outbox.pop_front() {
                let len = message.len();
                assert!(len <= buf.len(), "transmit buffer too small");
                if let Some(slot) = buf.get_mut(..len) {
                    slot.copy_from_slice(&message);
                }
                return Some(Transmit { to, len });
            }
            if !self.tick(pacer.as_deref_mut()) {
                return None;
            }
        }
    }

    /// Queues a message, unless the host does not fetch them.
    fn push(&mut self, route: Route, message: &[u8]) {
        if self.outbox.len() < MAX_OUTBOX {
            self.outbox.push_back((route, message.to_vec()));
        } else {
            self.stats.beyond_limit = self.stats.beyond_limit.saturating_add(1);
        }
    }

    /// The next thing the host must do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.pair_new_remotes();
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pace = self.pace.next();
        [self.timers.next(), pace].into_iter().flatten().min()
    }

    /// Ends the session without an event; nothing is sent any more.
    pub fn close(&mut self) {
        self.state = AgentState::Closed;
        self.timers = Timers::new();
        self.pace = Pace::default();
        self.checks.clear();
        self.outbox.clear();
        self.actions.clear();
        self.events.clear();
        self.sources.clear();
        self.selected.clear();
        self.pairs.clear();
        self.early.clear();
        self.there = None;
        self.old = None;
    }

    /// The application needs a stream no longer: its checks, keep-alives and data end.
    pub fn remove_stream(&mut self, now: Instant, stream: u16) {
        let now = self.clock.advance(now);
        let Some(list) = self.lists.get_mut(usize::from(stream)) else {
            return;
        };
        list.removed = true;
        list.triggered.clear();
        let ids: Vec<PairId> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.component.stream == stream)
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.remove_pair(id));
        for component in self.components(stream) {
            self.selected.remove(&component);
            self.timers.disarm(Timer::Consent(component));
            self.timers.disarm(Timer::ConsentExpiry(component));
        }
        self.timers.disarm(Timer::Nominate(stream));
        self.timers.disarm(Timer::Grace(stream));
        self.sources
            .retain(|_, component| component.stream != stream);
        self.changed(now);
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
