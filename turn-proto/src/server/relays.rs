//! Relay sockets: asking the host for them, and keeping one for later (RFC 8656 section 7.2).

use core::net::SocketAddr;

use alloc::vec::Vec;

use stun_proto::Instant;
use stun_proto::wire::{ErrorCode, MessageType};

use super::allocate::Wanted;
use super::allocation::{Allocation, AllocationId, Relay, State, Timer};
use super::output::{Action, DeleteReason, RelayId, RelayProtocol, count};
use super::requests::Denied;
use super::{Core, Users, canonical};
use crate::wire::{self, AddressFamily, code};

/// A relay kept for whoever has the token, or being opened for that.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Whose user may use it.
    pub(super) username: Vec<u8>,
    pub(super) family: AddressFamily,
    pub(super) relay: Relay,
    /// The allocation that is being opened together with it.
    pub(super) with: Option<AllocationId>,
}

/// How often another port is asked for when one is taken.
const PORT_TRIES: u8 = 8;

impl<U: Users> Core<U> {
    pub(super) fn ask_for_relays(
        &mut self,
        id: AllocationId,
        allocation: &mut Allocation,
        wanted: Wanted,
    ) -> Result<(), Denied> {
        let full = Denied(code::INSUFFICIENT_CAPACITY);
        let reserve = wanted.even.is_some_and(|even| even.reserve_next);
        if reserve && self.reservations.len() >= self.config.limits.reservations {
            return Err(full);
        }
        let (protocol, family) = (wanted.protocol, wanted.family);
        let even = wanted.even.is_some();
        let port = self
            .free_port(protocol, family, even, reserve)
            .ok_or(full)?;
        *allocation.relay_mut(family) = Some(self.ask(id, allocation, family, port, even));
        if wanted.additional {
            let port = self.free_port(protocol, AddressFamily::V6, even, false);
            match port {
                Some(port) => {
                    let relay = self.ask(id, allocation, AddressFamily::V6, port, even);
                    allocation.v6 = Some(relay);
                }
                None => {
                    allocation.missing = Some((AddressFamily::V6, code::INSUFFICIENT_CAPACITY));
                }
            }
        }
        if reserve {
            let port = port.saturating_add(1);
            let relay = self.ask(id, allocation, family, port, false);
            self.by_relay.remove(&relay.id);
            allocation.reserved = Some(relay.id);
            let reservation = Reservation {
                username: allocation.username.clone(),
                family,
                with: Some(id),
                relay,
            };
            self.reservations.insert(reservation.relay.id, reservation);
        }
        Ok(())
    }

    /// Asks the host for one relay.
    fn ask(
        &mut self,
        id: AllocationId,
        allocation: &Allocation,
        family: AddressFamily,
        port: u16,
        even_port: bool,
    ) -> Relay {
        let relay = RelayId(self.number());
        self.by_relay.insert(relay, id);
        self.ports.insert((allocation.protocol, family, port));
        self.out.actions.push_back(Action::OpenRelay {
            relay,
            protocol: allocation.protocol,
            family,
            port,
            even_port,
            client: allocation.client,
        });
        Relay::new(relay, port, even_port)
    }

    /// A random port that no relay here has; with room for the one above.
    fn free_port(
        &mut self,
        protocol: RelayProtocol,
        family: AddressFamily,
        even: bool,
        pair: bool,
    ) -> Option<u16> {
        const TRIES: u16 = 64;
        let (first, last) = (*self.config.ports.start(), *self.config.ports.end());
        let size = u32::from(last.abs_diff(first)).saturating_add(1);
        let start = self.rng.below(size);
        // A small range is walked through, a large one is poked into.
        let walk = size <= u32::from(TRIES);
        for step in 0..TRIES {
            let offset = match (walk, step) {
                (true, _) => start.checked_add(u32::from(step))?.checked_rem(size)?,
                (false, 0) => start,
                (false, _) => self.rng.below(size),
            };
            let mut port = first.checked_add(u16::try_from(offset).ok()?)?;
            if even && !walk {
                port &= !1;
            }
            let fits = port >= first
                && (!even || port.is_multiple_of(2))
                && (!pair || port < last)
                && !self.ports.contains(&(protocol, family, port));
            let above = port.saturating_add(1);
            if fits && !(pair && self.ports.contains(&(protocol, family, above))) {
                return Some(port);
            }
        }
        None
    }

    pub(super) fn relay_opened(&mut self, now: Instant, relay: RelayId, relayed: SocketAddr) {
        let relayed = canonical(relayed);
        if let Some(id) = self.by_relay.get(&relay).copied() {
            let Some(allocation) = self.allocations.get_mut(&id) else {
                return;
            };
            let protocol = allocation.protocol;
            let Some(family) = allocation.family_of(relay) else {
                return;
            };
            let Some(held) = allocation.relay_mut(family) else {
                return;
            };
            if held.relayed.is_some() {
                return;
            }
            let odd = held.even_port && !relayed.port().is_multiple_of(2);
            let foreign = AddressFamily::of(relayed.ip()) != family;
            if odd || foreign || self.by_address.contains_key(&(protocol, relayed)) {
                self.out.actions.push_back(Action::CloseRelay { relay });
                return self.relay_failed(now, relay);
            }
            self.ports.remove(&(protocol, family, held.port));
            held.port = relayed.port();
            held.relayed = Some(relayed);
            self.ports.insert((protocol, family, held.port));
            self.by_address.insert((protocol, relayed), relay);
            self.settle(now, id);
        } else if let Some(kept) = self.reservations.get_mut(&relay)
            && let Some(id) = kept.with
        {
            let key = (RelayProtocol::Udp, relayed);
            if self.by_address.contains_key(&key) {
                self.out.actions.push_back(Action::CloseRelay { relay });
                return self.relay_failed(now, relay);
            }
            kept.relay.relayed = Some(relayed);
            self.by_address.insert(key, relay);
            self.settle(now, id);
        } else {
            // Given up meanwhile.
            self.out.actions.push_back(Action::CloseRelay { relay });
        }
    }

    pub(super) fn relay_port_taken(&mut self, now: Instant, relay: RelayId) {
        let id = self.by_relay.get(&relay).copied();
        let paired = |allocation: &Allocation| allocation.reserved.is_some();
        let again = id.and_then(|id| {
            let allocation = self.allocations.get_mut(&id)?;
            let family = allocation.family_of(relay)?;
            if allocation.is_open() || paired(allocation) {
                return None;
            }
            let protocol = allocation.protocol;
            let held = allocation.relay_mut(family).as_mut()?;
            held.taken = held.taken.saturating_add(1);
            (held.taken < PORT_TRIES).then_some((id, protocol, family, held.even_port))
        });
        let Some((id, protocol, family, even)) = again else {
            return self.relay_failed(now, relay);
        };
        // The old port is still marked here, so this is another one.
        let Some(port) = self.free_port(protocol, family, even, false) else {
            return self.relay_failed(now, relay);
        };
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let client = allocation.client;
        if let Some(held) = allocation.relay_mut(family) {
            self.ports.remove(&(protocol, family, held.port));
            held.port = port;
        }
        self.ports.insert((protocol, family, port));
        self.out.actions.push_back(Action::OpenRelay {
            relay,
            protocol,
            family,
            port,
            even_port: even,
            client,
        });
    }

    pub(super) fn relay_failed(&mut self, now: Instant, relay: RelayId) {
        if let Some(kept) = self.reservations.get(&relay) {
            if let Some(id) = kept.with {
                self.refuse_opening(id);
            }
            return self.drop_reservation(relay);
        }
        let Some(id) = self.by_relay.get(&relay).copied() else {
            return;
        };
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        if allocation.is_open() {
            return self.delete_relay(relay, DeleteReason::RelayFailed);
        }
        let Some(family) = allocation.family_of(relay) else {
            return;
        };
        if allocation.relays().count() <= 1 || allocation.reserved.is_some() {
            return self.refuse_opening(id);
        }
        allocation.missing = Some((family, code::INSUFFICIENT_CAPACITY));
        let protocol = allocation.protocol;
        if let Some(failed) = allocation.relay_mut(family).take() {
            self.by_relay.remove(&relay);
            self.free_relay(protocol, Some(family), &failed);
        }
        self.settle(now, id);
    }

    pub(super) fn opening_timed_out(&mut self, now: Instant, id: AllocationId) {
        let Some(allocation) = self.allocations.get(&id) else {
            return;
        };
        let mut late: Vec<RelayId> = allocation
            .relays()
            .filter(|relay| relay.relayed.is_none())
            .map(|relay| relay.id)
            .collect();
        late.extend(allocation.reserved);
        for relay in late {
            self.out.actions.push_back(Action::CloseRelay { relay });
            self.relay_failed(now, relay);
        }
    }

    /// Answers an Allocate whose relays could not be opened, and forgets it.
    pub(super) fn refuse_opening(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.get(&id) else {
            return;
        };
        let State::Opening(opening) = &allocation.state else {
            return;
        };
        let protection = opening.protection.clone();
        let (path, request) = (allocation.path, allocation.request);
        count(&mut self.stats.limited);
        let ty = MessageType::request(wire::ALLOCATE).error();
        let error = ErrorCode::new(code::INSUFFICIENT_CAPACITY);
        self.answer(path, ty, request, &protection, |writer| {
            writer.attribute(&error)
        });
        self.delete(id, DeleteReason::RelayFailed);
    }

    pub(super) fn drop_reservation(&mut self, relay: RelayId) {
        self.timers.disarm(Timer::Reservation(relay));
        if let Some(kept) = self.reservations.remove(&relay) {
            self.tokens.remove(&self.tickets.token(relay));
            self.free_relay(RelayProtocol::Udp, Some(kept.family), &kept.relay);
            self.out.actions.push_back(Action::CloseRelay { relay });
        }
    }
}
