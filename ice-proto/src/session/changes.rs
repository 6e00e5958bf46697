//! What changes in the life of a session: it starts over, local addresses go, components are not
//! needed, the other side has no ICE.

use core::net::SocketAddr;

use alloc::vec::Vec;

use stun_proto::time::Timers;
use stun_proto::{Instant, Transactions};

use super::{Gathering, MAX_BINDINGS, Session, SessionError, SessionEvent};
use crate::{AgentState, Base, PlainError, RollbackError};

impl Session {
    /// Starts over with new credentials ([`Agent::restart`](crate::Agent::restart)): after [`gather`](Self::gather), the
    /// new [`description`](Self::description) goes to the other side. Data goes on meanwhile.
    ///
    /// Local addresses that are still there are candidates again, and told as such once more
    /// ([`SessionEvent::LocalCandidate`]); more may be added. A relay is one as soon as its server
    /// has confirmed that it is still there; over streams another one is asked for at the same time
    /// over a new connection, since the old one may be dead: whichever is there first is used.
    /// Server-reflexive addresses are asked for anew, since a NAT may have forgotten the old ones.
    ///
    /// When the other side refuses the restart, or does not answer, [`rollback`](Self::rollback).
    ///
    /// # Errors
    /// [`SessionError::State`] after [`close`](Self::close).
    pub fn restart(&mut self, now: Instant) -> Result<(), SessionError> {
        let now = self.clock.advance(now);
        self.pump();
        self.agent.restart(now).map_err(|_| SessionError::State)?;
        self.gathering = Gathering::Idle;
        self.concluded = false;
        self.gate = None;
        self.jobs.clear();
        self.timers = Timers::new();
        self.bindings = Transactions::new(self.config.retransmit, MAX_BINDINGS);
        let stale = |event: &SessionEvent| matches!(event, SessionEvent::LocalCandidate { .. });
        self.events.retain(|event| !stale(event));
        self.doubt_relays(now);
        let kept: Vec<_> = self.agent.local_candidates().collect();
        for (stream, candidate) in kept {
            let event = SessionEvent::LocalCandidate { stream, candidate };
            self.events.push_back(event);
        }
        for host in 0..self.hosts.len() {
            // Those that are still candidates are redundant.
            let _ = self.show_host(now, host);
        }
        Ok(())
    }

    /// Takes a restart back ([`Agent::rollback`](crate::Agent::rollback)): what was agreed on before
    /// holds again, and what has been gathered since is given back.
    ///
    /// # Errors
    /// [`RollbackError`]: there is none to take back; nothing has changed then.
    pub fn rollback(&mut self, now: Instant) -> Result<(), RollbackError> {
        let now = self.clock.advance(now);
        self.pump();
        self.agent.rollback(now)?;
        self.rolled_back(now);
        self.pump();
        Ok(())
    }

    /// The agent has gone back to before a restart.
    pub(super) fn rolled_back(&mut self, now: Instant) {
        self.gathering = Gathering::Done;
        self.concluded = self.agent.state() != AgentState::Running;
        self.gate = None;
        self.jobs.clear();
        self.timers = Timers::new();
        self.bindings = Transactions::new(self.config.retransmit, MAX_BINDINGS);
        let stale = |event: &SessionEvent| matches!(event, SessionEvent::LocalCandidate { .. });
        self.events.retain(|event| !stale(event));
        self.trust_relays(now);
    }

    /// The other side has no ICE: [`Agent::set_remote_plain`](crate::Agent::set_remote_plain).
    ///
    /// # Errors
    /// [`PlainError`].
    pub fn set_remote_plain(
        &mut self,
        now: Instant,
        stream: u16,
        peers: &[SocketAddr],
    ) -> Result<(), PlainError> {
        let now = self.clock.advance(now);
        self.pump();
        self.agent.set_remote_plain(now, stream, peers)?;
        self.pump();
        Ok(())
    }

    /// RTP and RTCP share a port, for instance: [`Agent::limit_components`](crate::Agent::limit_components). Relays of the
    /// components that are gone are given back.
    pub fn limit_components(&mut self, now: Instant, stream: u16, most: u16) {
        let now = self.clock.advance(now);
        self.pump();
        self.agent.limit_components(now, stream, most);
        self.close_needless_relays(now);
        self.pump();
    }

    /// A local address is gone: so are the candidates with it as base, and the relays reached from
    /// it.
    pub fn remove_host(&mut self, now: Instant, addr: SocketAddr) {
        let now = self.clock.advance(now);
        self.agent.remove_base(now, Base::Host(addr));
        self.close_relays_from(now, addr);
        for host in &mut self.hosts {
            host.gone |= host.addr == addr;
        }
        self.pump();
    }
}
