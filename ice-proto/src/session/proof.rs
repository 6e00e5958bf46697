//! Relays after a restart: a server may have forgotten its own, a NAT may have moved the client, the
//! stream may be dead. None is counted on before its server has confirmed it.

use core::time::Duration;

use alloc::vec::Vec;

use stun_proto::Instant;

use super::gather::Job;
use super::relay::{Phase, Relay};
use super::{Gathering, Session};
use crate::RelayId;

/// An attempt at a relay that is younger goes on through a restart.
const YOUNG: Duration = Duration::from_secs(3);

impl Session {
    /// The session starts over: asks after the relays that are there.
    pub(super) fn doubt_relays(&mut self, now: Instant) {
        let unused = |id: RelayId, relay: &Relay| match relay.phase {
            Phase::Stream | Phase::Socket | Phase::Allocating(_) => relay.is_older(now, YOUNG),
            Phase::Doubted(_) | Phase::Kept(_) => !self.agent.uses_relay(id),
            Phase::Active(_) | Phase::Closing(_) | Phase::Replacing(_) => false,
        };
        let relays = self.relays.iter();
        let gone: Vec<RelayId> = relays
            .filter(|(id, relay)| unused(**id, relay))
            .map(|(id, _)| *id)
            .collect();
        self.close_relays(now, |id| gone.contains(&id));
        for (id, relay) in &mut self.relays {
            let ends = matches!(relay.phase, Phase::Closing(_) | Phase::Replacing(_));
            if relay.doubt(now) || ends {
                self.agent.withhold_relay(*id);
            }
        }
    }

    /// A restart was taken back: the relays of before are as good as they were, and those that
    /// were on their way are not needed. The agent releases the rest.
    pub(super) fn trust_relays(&mut self, now: Instant) {
        let begun: Vec<RelayId> = self
            .relays
            .iter()
            .filter(|(_, relay)| relay.is_begun())
            .map(|(id, _)| *id)
            .collect();
        self.close_relays(now, |id| begun.contains(&id));
        for relay in self.relays.values_mut() {
            relay.end();
            relay.trust();
        }
    }

    /// The server has confirmed a relay.
    pub(super) fn relay_proven(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        if !matches!(relay.phase, Phase::Doubted(_)) {
            return;
        }
        let Some((relayed, mapped)) = relay.granted.filter(|_| self.gathering != Gathering::Done)
        else {
            return relay.turn(Phase::Kept);
        };
        relay.turn(Phase::Active);
        self.show_relay(id, relayed, mapped);
        self.settle_for(id);
    }

    /// It has not, and need not any more.
    pub(super) fn relay_doubtful(&mut self, id: RelayId) {
        if let Some(relay) = self.relays.get_mut(&id)
            && matches!(relay.phase, Phase::Doubted(_))
        {
            relay.turn(Phase::Kept);
        }
    }

    /// One relay is there: others that were to serve the same are not waited for.
    pub(super) fn settle_for(&mut self, id: RelayId) {
        let Some(chosen) = self.relays.get(&id) else {
            return;
        };
        let alike: Vec<RelayId> = self
            .relays
            .iter()
            .filter(|(other, relay)| **other != id && relay.is_like(chosen))
            .map(|(other, _)| *other)
            .collect();
        let mut begun = Vec::new();
        for other in alike {
            let Some(relay) = self.relays.get_mut(&other) else {
                continue;
            };
            if relay.is_begun() {
                begun.push(other);
            } else if matches!(relay.phase, Phase::Doubted(_)) {
                relay.turn(Phase::Kept);
            }
        }
        self.close_relays(self.clock.now(), |other| begun.contains(&other));
    }

    /// A relay is lost while candidates are looked for: the server is asked for another one.
    pub(super) fn ask_again(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get(&id) else {
            return;
        };
        if self.gathering != Gathering::Running || !relay.is_wanted() {
            return;
        }
        let (server, component) = (relay.server, relay.component);
        let Some(host) = relay.host else {
            return self.jobs.push_back(Job::Open { component, server });
        };
        let lost_at = self.hosts.get(host).map(|known| known.addr.ip());
        let again = self.hosts.iter().position(|known| {
            let same = known.component == component && Some(known.addr.ip()) == lost_at;
            same && !known.for_relay && !known.gone
        });
        if let Some(host) = again {
            self.jobs.push_back(Job::Allocate { host, server });
        }
    }
}
