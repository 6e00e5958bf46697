//! What changes in the life of a session: it starts over, local addresses go, components are not
//! needed, the other side has no ICE.

use core::net::SocketAddr;

use alloc::vec::Vec;

use stun_proto::time::Timers;
use stun_proto::{Instant, Transactions};

use super::{Gathering, MAX_BINDINGS, Session, SessionError, SessionEvent};
use crate::{Base, PlainError};

impl Session {
    /// Starts over with new credentials ([`Agent::restart`](crate::Agent::restart)): after [`gather`](Self::gather), the
    /// new [`description`](Self::description) goes to the other side. Data goes on meanwhile.
    ///
    /// Local addresses and relays that are still there are candidates again, and told as such once
    /// more ([`SessionEvent::LocalCandidate`]); more may be added. Server-reflexive addresses are
    /// asked for anew, since a NAT may have forgotten the old ones.
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
