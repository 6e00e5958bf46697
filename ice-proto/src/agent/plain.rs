//! Another side without ICE (RFC 8839 section 4.2.5): its description says one address for each
//! component, and media goes there unchecked, from the default candidate of this side.

use core::cmp::Reverse;
use core::net::SocketAddr;
use core::time::Duration;

use stun_proto::Instant;
use turn_proto::wire::AddressFamily;

use super::candidates::{LocalId, RemoteId};
use super::conclude::Choice;
use super::schedule::ListState;
use super::{Agent, AgentState, Timer};
use crate::{Candidate, CandidateKind, ComponentId};

/// What keeps a path open that another side without ICE is at the end of (RFC 6263 section 4).
///
/// ```
/// use ice_proto::{AgentConfig, PlainKeepAlive, Role};
///
/// // The application sends an RTP packet when it is told to.
/// let config = AgentConfig {
///     plain_keep_alive: PlainKeepAlive::Host,
///     ..AgentConfig::new(Role::Controlling)
/// };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainKeepAlive {
    /// A Binding indication, which receivers of RTP drop as malformed.
    #[default]
    Indication,
    /// A datagram without content.
    Empty,
    /// Whatever the application sends upon
    /// [`Event::KeepAliveDue`](super::Event::KeepAliveDue): an RTP packet without content, for
    /// instance, which continues its stream.
    Host,
}

/// Why there is no way to a side without ICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlainError {
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
    /// No such stream, or a number of addresses it cannot have.
    #[error("no such stream or component")]
    Component,
    /// Nobody is at such an address.
    #[error("impossible address")]
    Address,
    /// This side has no candidate of the same address family.
    #[error("no local candidate of this address family")]
    NoCandidate,
}

impl Agent {
    /// The other side has no ICE: data of the stream's components goes to these addresses, in
    /// their order, and is taken from nowhere else. Components beyond are given up.
    ///
    /// It leaves from the candidate the description shows as default
    /// ([`default_candidate`](Self::default_candidate)), without checks and without consent; where
    /// that is a relay, permission and channel are asked for. The path is kept open as
    /// [`PlainKeepAlive`] says.
    ///
    /// Called again it goes to other addresses from then on. It may follow ICE, when a later
    /// description of the other side has none any more.
    ///
    /// # Errors
    /// [`PlainError`]; nothing has changed then.
    pub fn set_remote_plain(
        &mut self,
        now: Instant,
        stream: u16,
        peers: &[SocketAddr],
    ) -> Result<(), PlainError> {
        let now = self.clock.advance(now);
        if self.state == AgentState::Closed {
            return Err(PlainError::Closed);
        }
        let most = self.components(stream).count();
        let exists = self.streams().any(|known| known == stream);
        if !exists || peers.is_empty() || peers.len() > most {
            return Err(PlainError::Component);
        }
        let mut ways = smallvec::SmallVec::<[(ComponentId, LocalId, SocketAddr); 4]>::new();
        for (component, peer) in self.components(stream).zip(peers) {
            let ip = peer.ip().to_canonical();
            if ip.is_unspecified() || ip.is_multicast() || peer.port() == 0 {
                return Err(PlainError::Address);
            }
            let local = self.default_local(component, Some(AddressFamily::of(ip)));
            let local = local.ok_or(PlainError::NoCandidate)?;
            ways.push((component, local, SocketAddr::new(ip, peer.port())));
        }
        if ways.len() < most {
            self.limit_components(now, stream, ways.len() as u16);
        }
        if let Some(list) = self.lists.get_mut(usize::from(stream))
            && list.state == ListState::Failed
        {
            list.state = ListState::Running;
        }
        if self.state == AgentState::Failed {
            self.state = AgentState::Running;
        }
        self.agreed(now);
        for (component, local, peer) in ways {
            self.go_plainly(now, component, local, peer);
        }
        Ok(())
    }

    fn go_plainly(
        &mut self,
        now: Instant,
        component: ComponentId,
        local: LocalId,
        peer: SocketAddr,
    ) {
        let Some(base) = self.locals.get(&local).map(|known| known.candidate.base) else {
            return;
        };
        let route = Self::route_from(base, peer);
        let known = self.selected.get(&component);
        if known.is_some_and(|known| known.plain && !known.lost && known.route == route) {
            return;
        }
        self.remove_pairs(|pair| pair.component == component);
        self.sources.retain(|_, owner| *owner != component);
        let remote = self.plain_remote(component, peer);
        let priority = |id| self.locals.get(&id).map_or(0, |known| known.priority);
        let priority = self.role.pair_priority(priority(local), 1);
        self.ask_permission(route);
        self.sources.insert(route, component);
        self.selected.remove(&component);
        self.settle(
            now,
            Choice {
                component,
                route,
                local,
                shown: local,
                remote,
                priority,
                rtt: Duration::ZERO,
                since: now,
                plain: true,
            },
        );
    }

    /// The other side has ICE after all: ways that nobody has checked end.
    pub(super) fn leave_plain(&mut self) {
        let plain: smallvec::SmallVec<[ComponentId; 4]> = self
            .selected
            .iter()
            .filter(|(_, selected)| selected.plain)
            .map(|(component, _)| *component)
            .collect();
        for component in &plain {
            self.selected.remove(component);
            self.timers.disarm(Timer::Consent(*component));
            self.sources.retain(|_, owner| owner != component);
            self.remotes.retain(|_, known| {
                known.stream != component.stream || known.candidate.component != component.component
            });
            if let Some(list) = self.lists.get_mut(usize::from(component.stream)) {
                list.state = ListState::Running;
            }
            self.timers.disarm(Timer::Grace(component.stream));
        }
        if !plain.is_empty() {
            self.state = AgentState::Running;
        }
    }

    /// The only remote candidate of a component.
    fn plain_remote(&mut self, component: ComponentId, addr: SocketAddr) -> RemoteId {
        self.remotes.retain(|_, known| {
            known.stream != component.stream || known.candidate.component != component.component
        });
        let candidate = Candidate {
            foundation: "plain".into(),
            component: component.component,
            priority: 1,
            addr,
            kind: CandidateKind::Host,
            related: None,
        };
        let id = self.insert_remote(component.stream, candidate);
        if let Some(known) = self.remotes.get_mut(&id) {
            // It takes part in no checks.
            known.paired = true;
        }
        id
    }

    /// The candidate of a component most likely to work for a side without ICE, and therefore the
    /// one in the m= and c= lines (RFC 8839 section 4.2.1.2): relayed, else server-reflexive, else
    /// host; of these the most important. [`AgentConfig::default_family`] comes first.
    ///
    /// [`AgentConfig::default_family`]: super::AgentConfig::default_family
    pub fn default_candidate(&self, component: ComponentId) -> Option<Candidate> {
        let family = self.config.default_family;
        let wanted = self.default_local(component, family);
        let id = wanted.or_else(|| self.default_local(component, None))?;
        self.locals.get(&id).map(|known| known.shown())
    }

    fn default_local(
        &self,
        component: ComponentId,
        family: Option<AddressFamily>,
    ) -> Option<LocalId> {
        let fits = |addr: SocketAddr| family.is_none_or(|of| of == AddressFamily::of(addr.ip()));
        let rank = |kind| match kind {
            CandidateKind::Relayed => Some(0),
            CandidateKind::ServerReflexive => Some(1),
            CandidateKind::Host => Some(2),
            // The other side has not been told of it.
            CandidateKind::PeerReflexive => None,
        };
        self.locals
            .iter()
            .filter(|(_, known)| known.candidate.component == component && !known.withheld)
            .filter(|(_, known)| fits(known.candidate.addr))
            .filter_map(|(id, known)| {
                let rank = rank(known.candidate.kind)?;
                Some(((rank, Reverse(known.priority)), *id))
            })
            .min()
            .map(|(_, id)| id)
    }
}
