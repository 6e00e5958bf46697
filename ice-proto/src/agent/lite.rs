//! What a lite agent does (RFC 8445 sections 7.3.2 and 8.2).

use core::time::Duration;

use stun_proto::Instant;

use super::candidates::{LocalId, RemoteId};
use super::conclude::Choice;
use super::{Agent, Event, Role};
use crate::{ComponentId, Route};

impl Agent {
    /// The other side nominates a pair by checking it: it is selected. The latest counts.
    pub(super) fn select_checked(
        &mut self,
        now: Instant,
        component: ComponentId,
        local: LocalId,
        remote: RemoteId,
        route: Route,
    ) {
        let known = self.selected.get(&component);
        if known.is_some_and(|known| known.route == route) {
            return;
        }
        let choice = self.direct(now, component, local, remote, route);
        self.settle(now, choice);
    }

    fn direct(
        &self,
        now: Instant,
        component: ComponentId,
        local: LocalId,
        remote: RemoteId,
        route: Route,
    ) -> Choice {
        let ours = self.locals.get(&local).map_or(0, |known| known.priority);
        let theirs = self.remotes.get(&remote);
        let theirs = theirs.map_or(0, |known| known.candidate.priority);
        Choice {
            component,
            route,
            local,
            shown: local,
            remote,
            priority: self.role.pair_priority(ours, theirs),
            rtt: Duration::ZERO,
            since: now,
            plain: false,
        }
    }

    /// Two lite agents make no checks: each takes the most important pair of each component, and
    /// the controlling one sees to it that both took the same.
    pub(super) fn pair_lite_with_lite(&mut self, now: Instant) {
        let theirs = self.there.as_ref().is_some_and(|there| there.remote.lite);
        if !(self.config.lite && theirs && self.gathering_done && self.remote_done) {
            return;
        }
        let mut ambiguous = false;
        for stream in self.streams() {
            for component in self.components(stream) {
                if self.selected.contains_key(&component) {
                    continue;
                }
                let mut best: Option<Choice> = None;
                let mut count = 0_usize;
                for choice in self.direct_pairs(now, component) {
                    count = count.saturating_add(1);
                    if best.is_none_or(|best| choice.priority > best.priority) {
                        best = Some(choice);
                    }
                }
                ambiguous |= count > 1;
                if let Some(choice) = best {
                    self.sources.insert(choice.route, component);
                    self.settle(now, choice);
                }
            }
        }
        if ambiguous && self.role == Role::Controlling {
            self.events.push_back(Event::ExchangeNeeded);
        }
    }

    fn direct_pairs(&self, now: Instant, component: ComponentId) -> alloc::vec::Vec<Choice> {
        let locals = self
            .locals
            .iter()
            .filter(|(_, l)| l.candidate.component == component);
        locals
            .flat_map(|(local, l)| {
                let remotes = self.remotes.iter().filter(move |(_, r)| {
                    r.stream == component.stream
                        && r.candidate.component == component.component
                        && r.candidate.addr.is_ipv4() == l.candidate.addr.is_ipv4()
                });
                remotes.map(move |(remote, r)| {
                    let route = Self::route_from(l.candidate.base, r.candidate.addr);
                    self.direct(now, component, *local, *remote, route)
                })
            })
            .collect()
    }
}
