//! Relay sockets: asking the host for them, and keeping one for later (RFC 8656 section 7.2).

use core::net::SocketAddr;

use alloc::vec::Vec;

use stun_proto::Instant;
use stun_proto::wire::{ErrorCode, MessageType};

use super::allocate::Wanted;
use super::allocation::{Allocation, AllocationId, Relay, State, Timer};
use super::output::{Action, DeleteReason, RelayId, RelayProtocol, count};
use super::ports::{Parity, Place};
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
        let parity = match wanted.even {
            Some(even) if even.reserve_next => Parity::Pair,
            Some(_) => Parity::Even,
            None => Parity::Any,
        };
        let (place, port) = self.free_port(protocol, family, parity).ok_or(full)?;
        let even = wanted.even.is_some();
        *allocation.relay_mut(family) = Some(self.ask(id, allocation, place, port, even));
        if wanted.additional {
            let parity = if even { Parity::Even } else { Parity::Any };
            match self.free_port(protocol, AddressFamily::V6, parity) {
                Some((place, port)) => {
                    allocation.v6 = Some(self.ask(id, allocation, place, port, even));
                }
                None => {
                    allocation.missing = Some((AddressFamily::V6, code::INSUFFICIENT_CAPACITY));
                }
            }
        }
        if reserve {
            let port = port.saturating_add(1);
            let relay = self.ask(id, allocation, place, port, false);
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
        place: Place,
        port: u16,
        even_port: bool,
    ) -> Relay {
        let relay = RelayId(self.number());
        self.by_relay.insert(relay, id);
        self.ports.take(place, port);
        self.out.actions.push_back(Action::OpenRelay {
            relay,
            protocol: place.protocol,
            family: place.family,
            address: place.address,
            port,
            even_port,
            client: allocation.client,
        });
        Relay::new(relay, place, port, even_port)
    }

    /// A random port that no relay here has, on any of the addresses.
    fn free_port(
        &mut self,
        protocol: RelayProtocol,
        family: AddressFamily,
        parity: Parity,
    ) -> Option<(Place, u16)> {
        let addresses = self.config.addresses(family);
        let first = u16::try_from(self.rng.below(addresses.into())).unwrap_or(0);
        (first..addresses).chain(0..first).find_map(|address| {
            let place = Place {
                protocol,
                family,
                address,
            };
            let port = self.ports.pick(&mut self.rng, place, parity)?;
            Some((place, port))
        })
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
            self.ports.release(held.place, held.port);
            held.port = relayed.port();
            held.relayed = Some(relayed);
            self.ports.take(held.place, held.port);
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
            let held = allocation.relay_mut(family).as_mut()?;
            held.taken = held.taken.saturating_add(1);
            (held.taken < PORT_TRIES).then_some((id, held.place, held.even_port))
        });
        let Some((id, old, even_port)) = again else {
            return self.relay_failed(now, relay);
        };
        let parity = if even_port { Parity::Even } else { Parity::Any };
        // The old port is still marked here, so this is another one.
        let Some((place, port)) = self.free_port(old.protocol, old.family, parity) else {
            return self.relay_failed(now, relay);
        };
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let client = allocation.client;
        if let Some(held) = allocation.relay_mut(old.family) {
            self.ports.release(held.place, held.port);
            (held.place, held.port) = (place, port);
        }
        self.ports.take(place, port);
        self.out.actions.push_back(Action::OpenRelay {
            relay,
            protocol: place.protocol,
            family: place.family,
            address: place.address,
            port,
            even_port,
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
        if let Some(failed) = allocation.relay_mut(family).take() {
            self.by_relay.remove(&relay);
            self.free_relay(&failed);
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
            self.free_relay(&kept.relay);
            self.out.actions.push_back(Action::CloseRelay { relay });
        }
    }
}
