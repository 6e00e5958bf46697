//! What an agent is told, and what it tells.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::auth::Secret;
use turn_proto::wire::AddressFamily;

use super::PlainKeepAlive;
use crate::{Candidate, CandidateKind, ComponentId, RelayId, Route, pair_priority};

/// Which agent decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nominates: the one that made the first offer.
    Controlling,
    /// Follows.
    Controlled,
}

impl Role {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }

    /// The priority of a pair, seen from this role.
    pub(super) const fn pair_priority(self, local: u32, remote: u32) -> u64 {
        match self {
            Self::Controlling => pair_priority(local, remote),
            Self::Controlled => pair_priority(remote, local),
        }
    }
}

/// Who nominates pairs, while this agent is controlling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nomination {
    /// The agent: at once when no better pair can come or all are host candidates, else so long
    /// after every component has a pair that works.
    After(Duration),
    /// The host, with [`Agent::nominate`](super::Agent::nominate).
    Host,
}

/// How an [`Agent`](super::Agent) behaves.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The role to begin with; the other side's description or a conflict may change it.
    pub role: Role,
    /// Answers checks and makes none (ICE lite): for hosts with a public address.
    pub lite: bool,
    /// How many components each stream has: as many entries as streams.
    pub components: Vec<u16>,
    /// Wait between two new checks (Ta): 50 ms; never less than 5 ms. The other side's wish counts
    /// if it is longer.
    pub pacing: Duration,
    /// Shortest wait before a check is sent again: 500 ms.
    pub min_rto: Duration,
    /// Longest first wait before a check is sent again, however many there are: 3 s.
    pub max_rto: Duration,
    /// Most pairs, all streams together: 100.
    pub max_pairs: usize,
    /// Most remote candidates, peer-reflexive ones included: 64. Better ones replace worse ones.
    pub max_remote: usize,
    /// Most remote candidates of a component with the same IP address: 8.
    pub max_per_address: usize,
    /// Most peer-reflexive remote candidates: 16.
    pub max_peer_reflexive: usize,
    /// Most checks remembered that came before the other side's description: 32.
    pub max_early: usize,
    /// Most datagrams with checks, consent apart, until a restart: 700.
    pub max_check_datagrams: u32,
    /// Most role switches until a restart: 4.
    pub max_role_switches: u8,
    /// Who nominates: the agent, after 500 ms.
    pub nomination: Nomination,
    /// How long nothing is given up (RFC 8863): 39.5 s.
    pub patience: Duration,
    /// How long candidates are of use after every component of their stream has its pair: 3 s.
    pub grace: Duration,
    /// How long what was agreed on before a restart is still good: 30 s.
    pub old_generation: Duration,
    /// How often consent is asked for, on average: 5 s. `None` sends keep-alives instead.
    pub consent: Option<Duration>,
    /// How long consent lasts: 30 s.
    pub consent_timeout: Duration,
    /// Wait between keep-alives where no consent is asked for: 15 s, and never less.
    pub keep_alive: Duration,
    /// What keeps the path to another side without ICE open: a Binding indication.
    pub plain_keep_alive: PlainKeepAlive,
    /// The family of the default candidate, which the description shows to sides without ICE
    /// (RFC 8445 section 5.2): whichever is most important. Where there is none of this family,
    /// another will do.
    pub default_family: Option<AddressFamily>,
    /// Answers checks that prove nothing with 400 or 401, ten each second at most, instead of
    /// silence: no.
    pub answer_unverified: bool,
    /// Hard ICMP errors fail the checks under way: no, since anybody can send one.
    pub icmp_fails_pairs: bool,
    /// Local candidates are paired only after
    /// [`Agent::candidate_conveyed`](super::Agent::candidate_conveyed) (RFC 8838 section 10): no,
    /// they count as conveyed as soon as they are added.
    pub explicit_conveyance: bool,
    /// Goes over to the pair nominated last, even a less important one: no. Lite agents always do.
    pub follow_latest: bool,
}

impl AgentConfig {
    /// The defaults for one stream with one component.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            lite: false,
            components: alloc::vec![1],
            pacing: Duration::from_millis(50),
            min_rto: Duration::from_millis(500),
            max_rto: Duration::from_secs(3),
            max_pairs: 100,
            max_remote: 64,
            max_per_address: 8,
            max_peer_reflexive: 16,
            max_early: 32,
            max_check_datagrams: 700,
            max_role_switches: 4,
            nomination: Nomination::After(Duration::from_millis(500)),
            patience: Duration::from_millis(39_500),
            grace: Duration::from_secs(3),
            old_generation: Duration::from_secs(30),
            consent: Some(Duration::from_secs(5)),
            consent_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            plain_keep_alive: PlainKeepAlive::Indication,
            default_family: None,
            answer_unverified: false,
            icmp_fails_pairs: false,
            explicit_conveyance: false,
            follow_latest: false,
        }
    }
}

/// What both sides of a check know. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name fragment, 4 to 256 characters.
    pub ufrag: String,
    /// The password, 22 to 256 characters.
    pub pwd: Secret,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// What the other side's description says, besides its candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its user name fragment and password.
    pub credentials: Credentials,
    /// It answers checks and makes none.
    pub lite: bool,
    /// It follows RFC 8445 (`ice2`), not RFC 5245.
    pub ice2: bool,
    /// The wait between checks it wishes for (`ice-pacing`); 50 ms if it does not say.
    pub pacing: Option<Duration>,
}

/// A candidate of this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// Stream and component.
    pub component: ComponentId,
    /// How it was found.
    pub kind: CandidateKind,
    /// Its address.
    pub addr: SocketAddr,
    /// Where checks are sent from: the host address, or the relayed address itself.
    pub base: Base,
    /// 65535 unless there are several of its kind.
    pub local_preference: u16,
    /// The STUN or TURN server that told it.
    pub server: Option<IpAddr>,
    /// What the description shows as related address.
    pub related: Option<SocketAddr>,
}

/// What a local candidate's datagrams leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    /// A local address.
    Host(SocketAddr),
    /// A relay.
    Relay(RelayId),
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// Pairs are looked for.
    Running,
    /// Every component of every stream has its pair.
    Completed,
    /// No stream has a pair for each of its components. A restart may help.
    Failed,
    /// The application has closed it.
    Closed,
}

/// Why a candidate is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CandidateError {
    /// There is no such stream or component.
    #[error("no such stream or component")]
    Component,
    /// It is known already.
    #[error("candidate known already")]
    Redundant,
    /// There are as many as allowed, all of them more important.
    #[error("too many candidates")]
    Limit,
    /// The description is complete, or the session over.
    #[error("no more candidates are expected")]
    Late,
    /// An address or priority no candidate has.
    #[error("impossible candidate")]
    Invalid,
}

/// Why the other side's description is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
    /// It differs from the one that holds: the other side restarts, and so must this one, with
    /// [`Agent::restart`](super::Agent::restart).
    #[error("the other side restarts: restart first")]
    RestartFirst,
    /// User name fragment or password is too short or too long, or not new after a restart.
    #[error("unfit credentials")]
    Credentials,
}

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Create a permission, then answer with
    /// [`Agent::permission_created`](super::Agent::permission_created) or
    /// [`Agent::permission_failed`](super::Agent::permission_failed).
    CreatePermission {
        /// At this relay.
        relay: RelayId,
        /// For this address.
        peer: IpAddr,
    },
    /// Data will flow: a channel makes it cheaper.
    BindChannel {
        /// At this relay.
        relay: RelayId,
        /// For this address.
        peer: SocketAddr,
    },
    /// This session has no use for a base any more: close it, unless another session uses it.
    Release {
        /// The socket or relay.
        base: Base,
    },
}

/// Why a session, or a stream, came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Every pair was tried, and for one component at least none works.
    #[error("no pair of candidates works")]
    NoPair,
}

/// Why data can no longer be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteLoss {
    /// The other side no longer answers.
    #[error("the other side no longer answers")]
    ConsentExpired,
    /// The other side wants no more data.
    #[error("the other side has withdrawn its consent")]
    ConsentRevoked,
    /// The local address or the relay is gone.
    #[error("the local candidate is gone")]
    CandidateGone,
    /// The relay lets nothing through to another side without ICE.
    #[error("the relay does not permit the other side")]
    NotPermitted,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Data of this component goes this way from now on.
    Selected {
        /// Stream and component.
        component: ComponentId,
        /// This side's candidate.
        local: Candidate,
        /// The other side's candidate.
        remote: Candidate,
        /// Round trip of the check that proved it; nothing for a lite agent.
        rtt: Duration,
        /// Where datagrams leave.
        route: Route,
        /// The [generation](super::Agent::generation) that has agreed on it.
        generation: u32,
    },
    /// A check has brought a candidate of this side to light. It need not be signalled.
    LocalReflexive {
        /// Stream and component.
        component: ComponentId,
        /// The candidate.
        candidate: Candidate,
    },
    /// Every component of every stream has a selected pair.
    Completed {
        /// The [generation](super::Agent::generation) that has come to its end.
        generation: u32,
    },
    /// A stream has no pair for one of its components: remove it, or restart.
    StreamFailed {
        /// Which one.
        stream: u16,
        /// The [generation](super::Agent::generation) that has failed.
        generation: u32,
    },
    /// Every stream has failed.
    Failed {
        /// Why.
        cause: Failure,
        /// The [generation](super::Agent::generation) that has failed.
        generation: u32,
    },
    /// A conflict changed the role.
    RoleChanged(Role),
    /// The pair this side nominated did not work after all; another one is tried. The other side
    /// may be using it nevertheless: a restart settles that.
    NominationFailed {
        /// Stream and component.
        component: ComponentId,
        /// The [generation](super::Agent::generation) of the pair.
        generation: u32,
    },
    /// Data of this component can no longer be sent. Only a restart helps; where one is under way
    /// already (`generation` is not the [present one](super::Agent::generation)), it is that one.
    RouteLost {
        /// Stream and component.
        component: ComponentId,
        /// Why.
        cause: RouteLoss,
        /// The generation of the pair that was in use.
        generation: u32,
    },
    /// Nothing has been sent to another side without ICE for a while, and the host keeps the path
    /// open itself ([`PlainKeepAlive::Host`]).
    KeepAliveDue {
        /// Stream and component.
        component: ComponentId,
    },
    /// Both sides are lite and had several pairs to choose from: a new exchange, which shows the
    /// selected ones as only candidates, makes sure that they chose the same (RFC 8445
    /// section 8.2).
    ExchangeNeeded,
}

/// Counters; they stop at their highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Checks that prove nothing.
    pub unverified: u64,
    /// Answers without valid integrity.
    pub stray: u64,
    /// Candidates, checks and messages beyond a limit.
    pub beyond_limit: u64,
}
