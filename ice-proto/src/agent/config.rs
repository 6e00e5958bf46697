//! What an agent is told, and what it tells.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use alloc::string::String;

use crate::{Candidate, ComponentId, RelayId, Route};

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
}

/// How an [`Agent`](super::Agent) behaves.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The role to begin with; a conflict may change it.
    pub role: Role,
    /// How many components each stream has: as many entries as streams.
    pub components: alloc::vec::Vec<u16>,
    /// Wait between two new checks (Ta): 50 ms; never less than 5 ms.
    pub pacing: Duration,
    /// Shortest wait before a check is sent again: 500 ms.
    pub min_rto: Duration,
    /// Most pairs, all streams together: 100.
    pub max_pairs: usize,
    /// Most remote candidates, peer-reflexive ones included: 64.
    pub max_remote: usize,
    /// Most checks remembered that came before the other side's description: 32.
    pub max_early: usize,
    /// How long to wait for better pairs once every component has a valid one: 500 ms.
    pub nomination_delay: Duration,
    /// How long nothing is given up (RFC 8863): 39.5 s.
    pub patience: Duration,
    /// How often consent is asked for, on average: 5 s. `None` sends keep-alives instead.
    pub consent: Option<Duration>,
    /// How long consent lasts: 30 s.
    pub consent_timeout: Duration,
    /// Wait between keep-alives where no consent is asked for: 15 s.
    pub keep_alive: Duration,
    /// Answers checks that prove nothing with 400 or 401 instead of silence: no.
    pub answer_unverified: bool,
}

impl AgentConfig {
    /// The defaults for one stream with one component.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            components: alloc::vec![1],
            pacing: Duration::from_millis(50),
            min_rto: Duration::from_millis(500),
            max_pairs: 100,
            max_remote: 64,
            max_early: 32,
            nomination_delay: Duration::from_millis(500),
            patience: Duration::from_millis(39_500),
            consent: Some(Duration::from_secs(5)),
            consent_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            answer_unverified: false,
        }
    }
}

/// What both sides of a check know. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name fragment, 4 to 256 characters.
    pub ufrag: String,
    /// The password, 22 to 256 characters.
    pub pwd: String,
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
}

/// A candidate of this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// Stream and component.
    pub component: ComponentId,
    /// How it was found.
    pub kind: crate::CandidateKind,
    /// Its address.
    pub addr: SocketAddr,
    /// Where checks are sent from: the host address, or the relayed address itself.
    pub base: Base,
    /// 65535 unless there are several of its kind.
    pub local_preference: u16,
    /// The STUN or TURN server that told it.
    pub server: Option<core::net::IpAddr>,
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
    /// There are as many as allowed.
    #[error("too many candidates")]
    Limit,
    /// The description is complete, or the session over.
    #[error("no more candidates are expected")]
    Late,
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
        peer: core::net::IpAddr,
    },
    /// Data will flow: a channel makes it cheaper.
    BindChannel {
        /// At this relay.
        relay: RelayId,
        /// For this address.
        peer: SocketAddr,
    },
}

/// Why a session came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Every pair was tried, and for one component at least none works.
    #[error("no pair of candidates works")]
    NoPair,
    /// The other side no longer answers.
    #[error("the other side no longer answers")]
    ConsentLost,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "few and short-lived")]
pub enum Event {
    /// Data of this component goes this way from now on.
    Selected {
        /// Stream and component.
        component: ComponentId,
        /// This side's candidate.
        local: Candidate,
        /// The other side's candidate.
        remote: Candidate,
        /// Round trip of the check that proved it.
        rtt: Duration,
        /// Where datagrams leave.
        route: Route,
    },
    /// Every component of every stream has a selected pair.
    Completed,
    /// The session is over. Terminal.
    Failed(Failure),
    /// A conflict changed the role.
    RoleChanged(Role),
    /// The pair this side nominated did not work after all; another one is tried.
    NominationFailed {
        /// Stream and component.
        component: ComponentId,
    },
}

/// Counters; they stop at their highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Checks that prove nothing.
    pub unverified: u64,
    /// Answers nobody waits for, or without valid integrity.
    pub stray: u64,
    /// Data from addresses no check has proven.
    pub unknown_source: u64,
    /// Candidates and checks beyond a limit.
    pub beyond_limit: u64,
}
