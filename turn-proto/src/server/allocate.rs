//! Allocate (RFC 8656 section 7.2), and the relays it opens.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::boxed::Box;

use stun_proto::time::deadline;
use stun_proto::wire::{
    AlternateDomain, AlternateServer, Attribute, AttributeError, ErrorCode, IntegrityAlgorithm,
    Message, MessageType, XorMappedAddress,
};
use stun_proto::{Instant, Path};

use super::allocation::Timer;
use super::allocation::{Allocation, AllocationId, Mobility, Opening, Protection, Relay, State};
use super::output::{Event, RelayId, RelayProtocol};
use super::requests::{BAD_REQUEST, Denied, Proven};
use super::{Account, Admission, Core, Redirect, Users, canonical};
use crate::wire::{
    self, AdditionalAddressFamily, AddressErrorCode, AddressFamily, DontFragment, EvenPort,
    Lifetime, MobilityTicket, RequestedAddressFamily, RequestedTransport, ReservationToken,
    XorRelayedAddress, code,
};

/// What kind of relays an Allocate asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) protocol: RelayProtocol,
    pub(super) family: AddressFamily,
    /// IPv6 as well, if it can be had.
    pub(super) additional: bool,
    pub(super) even: Option<EvenPort>,
    /// A relay that is open already.
    pub(super) reserved: Option<RelayId>,
    /// The family that was asked for and is not allocated, and why.
    pub(super) missing: Option<(AddressFamily, u16)>,
}

impl<U: Users> Core<U> {
    /// Section 7.2, in the order of its checks.
    pub(super) fn allocate(&mut self, now: Instant, proven: &Proven<'_>) -> Result<(), Denied> {
        if let Some((id, allocation)) = self.allocation_at(proven.path) {
            let again = allocation.request == proven.message.transaction_id()
                && allocation.username == proven.username;
            if !again {
                return Err(Denied(code::ALLOCATION_MISMATCH));
            }
            if allocation.is_open() {
                self.write_allocated(now, id, &proven.protection);
            }
            // While the relays are being opened their answer serves this request as well.
            return Ok(());
        }
        if is_tunnel(canonical(proven.client.remote).ip()) && !self.config.tunnelled_clients {
            return Err(Denied(code::FORBIDDEN));
        }
        if self.is_data_connection(proven.path) {
            return Err(BAD_REQUEST);
        }
        let mobile = self.wants_to_move(proven)?;
        let wanted = self.wanted(proven)?;
        let lifetime = self.granted(&proven.message, proven.longest)?;
        if self.redirected(proven) {
            return Ok(());
        }
        self.check_quota(&proven.username)?;
        let opening = Opening {
            lifetime,
            protection: proven.protection.clone(),
            mobile: mobile && wanted.protocol == RelayProtocol::Udp,
        };
        self.begin(now, proven, wanted, opening)
            .inspect_err(|_| self.users.release(&proven.username))
    }

    fn check_quota(&self, username: &[u8]) -> Result<(), Denied> {
        let limits = self.config.limits;
        let held = self.accounts.get(username).map_or(0, |a| a.allocations);
        if held >= limits.allocations_per_user {
            return Err(Denied(code::QUOTA_REACHED));
        }
        if self.allocations.len() >= limits.allocations {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        match self.users.admit(username) {
            Admission::Admitted => Ok(()),
            Admission::QuotaReached => Err(Denied(code::QUOTA_REACHED)),
            Admission::NoCapacity => Err(Denied(code::INSUFFICIENT_CAPACITY)),
        }
    }

    /// Checks 3 to 9.
    fn wanted(&self, proven: &Proven<'_>) -> Result<Wanted, Denied> {
        let message = &proven.message;
        let protocol = match message.get::<RequestedTransport>() {
            Some(Ok(RequestedTransport::UDP)) => RelayProtocol::Udp,
            Some(Ok(RequestedTransport::TCP)) if self.config.relay_tcp => RelayProtocol::Tcp,
            Some(Ok(_)) => return Err(Denied(code::UNSUPPORTED_TRANSPORT)),
            Some(Err(_)) | None => return Err(BAD_REQUEST),
        };
        match protocol {
            RelayProtocol::Udp if !self.config.relay_udp => return Err(Denied(code::FORBIDDEN)),
            RelayProtocol::Udp => {}
            RelayProtocol::Tcp => self.check_tcp(proven)?,
        }
        let family = message.get::<RequestedAddressFamily>();
        let additional = match (protocol, message.get::<AdditionalAddressFamily>()) {
            (RelayProtocol::Tcp, _) => None,
            (RelayProtocol::Udp, additional) => additional,
        };
        let even = match message.get::<EvenPort>() {
            None => None,
            Some(Ok(even)) => Some(even),
            Some(Err(_)) => return Err(BAD_REQUEST),
        };
        if let Some(token) = message.get::<ReservationToken>() {
            if family.is_some() || additional.is_some() || even.is_some() {
                return Err(BAD_REQUEST);
            }
            return self.reserved(&proven.username, token.map_err(|_| BAD_REQUEST)?);
        }
        if family.is_some() && additional.is_some() {
            return Err(BAD_REQUEST);
        }
        let mut wanted = Wanted {
            protocol,
            family: AddressFamily::V4,
            additional: false,
            even,
            reserved: None,
            missing: None,
        };
        if let Some(family) = family {
            match family {
                Ok(RequestedAddressFamily(family)) => wanted.family = family,
                Err(AttributeError::AddressFamily) => {
                    return Err(Denied(code::ADDRESS_FAMILY_NOT_SUPPORTED));
                }
                Err(_) => return Err(BAD_REQUEST),
            }
        }
        match additional {
            None if self.relays_family(wanted.family) => Ok(wanted),
            None => Err(Denied(code::ADDRESS_FAMILY_NOT_SUPPORTED)),
            Some(Ok(AdditionalAddressFamily(AddressFamily::V6))) => {
                if even.is_some_and(|even| even.reserve_next) {
                    return Err(BAD_REQUEST);
                }
                Ok(self.both_families(wanted))
            }
            Some(Ok(_) | Err(_)) => Err(BAD_REQUEST),
        }
    }

    const fn relays_family(&self, family: AddressFamily) -> bool {
        self.config.addresses(family) > 0
    }

    /// As much of IPv4 and IPv6 as there is; a configuration without either makes no server.
    const fn both_families(&self, wanted: Wanted) -> Wanted {
        match (self.config.addresses_v4 > 0, self.config.addresses_v6 > 0) {
            (true, true) => Wanted {
                additional: true,
                ..wanted
            },
            (true, false) => Wanted {
                missing: Some((AddressFamily::V6, code::ADDRESS_FAMILY_NOT_SUPPORTED)),
                ..wanted
            },
            (false, _) => Wanted {
                family: AddressFamily::V6,
                missing: Some((AddressFamily::V4, code::ADDRESS_FAMILY_NOT_SUPPORTED)),
                ..wanted
            },
        }
    }

    /// RFC 6062 section 5.1.
    fn check_tcp(&self, proven: &Proven<'_>) -> Result<(), Denied> {
        let message = &proven.message;
        let datagrams_only = message.has(<DontFragment as Attribute<'_>>::TYPE)
            || message.has(<EvenPort as Attribute<'_>>::TYPE)
            || message.has(<ReservationToken as Attribute<'_>>::TYPE);
        if datagrams_only || !proven.client.transport.is_stream() {
            return Err(BAD_REQUEST);
        }
        Ok(())
    }

    /// The relay that is kept for this token, if it is this user's.
    fn reserved(&self, username: &[u8], token: ReservationToken) -> Result<Wanted, Denied> {
        let ReservationToken(token) = token;
        let relay = self.tokens.get(&token).copied();
        let found = relay.and_then(|relay| Some((relay, self.reservations.get(&relay)?)));
        match found {
            Some((relay, kept)) if kept.username == username && kept.with.is_none() => Ok(Wanted {
                protocol: RelayProtocol::Udp,
                family: kept.family,
                additional: false,
                even: None,
                reserved: Some(relay),
                missing: None,
            }),
            Some(_) | None => Err(Denied(code::INSUFFICIENT_CAPACITY)),
        }
    }

    /// The lifetime for a request, in seconds: between the default and the longest.
    pub(super) fn granted(&self, message: &Message<'_>, most: Option<u32>) -> Result<u32, Denied> {
        let default = self.config.default_lifetime.as_secs() as u32;
        let longest = self.config.max_lifetime.as_secs() as u32;
        let granted = match message.get::<Lifetime>() {
            None => default,
            Some(Ok(Lifetime(wanted))) => wanted.min(longest).max(default),
            Some(Err(_)) => return Err(BAD_REQUEST),
        };
        Ok(granted.min(most.unwrap_or(u32::MAX)))
    }

    /// Sends a client elsewhere, if that is what new clients are to be told.
    // deviates: STUN-14.8-3 a server without authentication (RFC 8155) cannot protect its 300
    fn redirected(&mut self, proven: &Proven<'_>) -> bool {
        let Some(Redirect { v4, v6, domain }) = self.redirect.clone() else {
            return false;
        };
        let (first, second) = match canonical(proven.client.remote) {
            SocketAddr::V4(_) => (v4, v6),
            SocketAddr::V6(_) => (v6, v4),
        };
        let Some(first) = first else {
            return false;
        };
        let by_sha256 = proven
            .protection
            .integrity
            .as_ref()
            .is_some_and(|(algorithm, _)| *algorithm == IntegrityAlgorithm::Sha256);
        let domain = domain.filter(|_| by_sha256 && proven.client.transport.is_secure());
        let ty = proven.message.message_type().error();
        self.reply(proven, ty, |writer| {
            writer
                .attribute(&ErrorCode::new(ErrorCode::TRY_ALTERNATE))
                .attribute(&AlternateServer(first))
                .maybe(second.map(AlternateServer).as_ref())
                .maybe(
                    domain
                        .as_deref()
                        .and_then(|name| AlternateDomain::new(name).ok())
                        .as_ref(),
                )
        });
        true
    }
}

/// The allocation itself.
impl<U: Users> Core<U> {
    fn begin(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        wanted: Wanted,
        opening: Opening,
    ) -> Result<(), Denied> {
        let id = AllocationId(self.number());
        let mut allocation = Box::new(Allocation {
            path: proven.path,
            client: proven.client,
            protocol: wanted.protocol,
            state: State::Opening(Box::new(opening)),
            username: proven.username.clone(),
            token_key: proven
                .by_token
                .then_some(proven.protection.integrity.as_ref())
                .flatten()
                .map(|(_, key)| key.clone()),
            request: proven.message.transaction_id(),
            v4: None,
            v6: None,
            reserved: None,
            missing: wanted.missing,
            permissions: Default::default(),
            channels: Default::default(),
            by_peer: Default::default(),
            connections: Default::default(),
            mobility: None,
        });
        if let Some(relay) = wanted.reserved {
            self.timers.disarm(Timer::Reservation(relay));
            self.tokens.remove(&self.tickets.token(relay));
            if let Some(kept) = self.reservations.remove(&relay) {
                self.by_relay.insert(relay, id);
                *allocation.relay_mut(kept.family) = Some(kept.relay);
            }
        } else {
            self.ask_for_relays(id, &mut allocation, wanted)?;
        }
        self.unverified.proven(now, proven.client.remote.ip());
        self.allocations.insert(id, allocation);
        self.by_path.insert(proven.path.into(), id);
        let bandwidth = self.config.limits.user_bandwidth;
        let account = self
            .accounts
            .entry(proven.username.clone())
            .or_insert(Account {
                allocations: 0,
                credit: bandwidth,
                seen: now,
            });
        account.allocations = account.allocations.saturating_add(1);
        self.timers
            .arm(Timer::Opening(id), now, self.config.relay_timeout);
        if let Path::Stream(stream) = proven.path {
            self.stream_with_allocation(stream);
        }
        self.settle(now, id);
        Ok(())
    }

    /// Tells the client, once all relays that were asked for are open.
    pub(super) fn settle(&mut self, now: Instant, id: AllocationId) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let State::Opening(opening) = &allocation.state else {
            return;
        };
        let kept = allocation
            .reserved
            .and_then(|relay| self.reservations.get_mut(&relay));
        let opens = |relay: &Relay| relay.relayed.is_none();
        if allocation.relays().any(opens) || kept.as_ref().is_some_and(|k| opens(&k.relay)) {
            return;
        }
        if let Some(kept) = &kept
            && !is_above(kept.relay.relayed, allocation.relay(kept.family))
        {
            return self.refuse_opening(id);
        }
        let Opening {
            lifetime,
            protection,
            mobile,
        } = (**opening).clone();
        allocation.state = State::Open;
        self.timers.disarm(Timer::Opening(id));
        if mobile {
            allocation.mobility = Some(Box::new(Mobility::default()));
        }
        if let Some(kept) = kept {
            kept.with = None;
            let relay = kept.relay.id;
            self.tokens.insert(self.tickets.token(relay), relay);
            let wait = self.config.reservation_lifetime;
            self.timers.arm(Timer::Reservation(relay), now, wait);
        }
        let expires = deadline(now, Duration::from_secs(u64::from(lifetime)));
        let (client, username) = (allocation.client, allocation.username.clone());
        for relay in allocation.relays_mut() {
            relay.expires = expires;
            self.timers.set(Timer::Relay(relay.id), expires);
            if let Some(relayed) = relay.relayed {
                self.out.events.push_back(Event::AllocationCreated {
                    relay: relay.id,
                    client,
                    username: username.clone(),
                    relayed,
                });
            }
        }
        self.write_allocated(now, id, &protection);
    }

    /// Answers the Allocate that made an allocation, at first and when it comes again.
    fn write_allocated(&mut self, now: Instant, id: AllocationId, protection: &Protection) {
        let Some(allocation) = self.allocations.get(&id) else {
            return;
        };
        let left = allocation
            .relays()
            .map(|relay| seconds_left(relay.expires, now))
            .min()
            .unwrap_or(0);
        let relayed = |family| {
            let relayed = allocation.relay(family)?.relayed?;
            Some(XorRelayedAddress(relayed))
        };
        let (v4, v6) = (relayed(AddressFamily::V4), relayed(AddressFamily::V6));
        let mapped = XorMappedAddress(canonical(allocation.client.remote));
        let token = allocation
            .reserved
            .filter(|relay| self.reservations.contains_key(relay))
            .map(|relay| ReservationToken(self.tickets.token(relay)));
        let missing = allocation.missing.map(|(family, number)| AddressErrorCode {
            family,
            error: ErrorCode::new(number),
        });
        let ticket = allocation
            .mobility
            .as_ref()
            .map(|moves| self.tickets.seal(&mut self.rng, id, moves.generation));
        let (path, request) = (allocation.path, allocation.request);
        let ty = MessageType::request(wire::ALLOCATE).success();
        self.answer(path, ty, request, protection, |writer| {
            writer
                .maybe(v4.as_ref())
                .maybe(v6.as_ref())
                .attribute(&mapped)
                .attribute(&Lifetime(left))
                .maybe(token.as_ref())
                .maybe(missing.as_ref())
                .maybe(ticket.as_ref().map(|t| MobilityTicket(t)).as_ref())
        });
    }

    /// Whether an Allocate asks to be mobile (RFC 8016 section 3.1.2).
    fn wants_to_move(&self, proven: &Proven<'_>) -> Result<bool, Denied> {
        match proven.message.find::<MobilityTicket<'_>>() {
            None => Ok(false),
            Some(MobilityTicket(ticket)) if !ticket.is_empty() => Err(BAD_REQUEST),
            Some(_) if self.may_move(proven) => Ok(true),
            Some(_) => Err(Denied(code::MOBILITY_FORBIDDEN)),
        }
    }
}

/// What is left of a lifetime, begun seconds counting whole.
pub(super) fn seconds_left(expires: Option<Instant>, now: Instant) -> u32 {
    let Some(at) = expires else {
        return u32::MAX;
    };
    let left = at.duration_since(now);
    let begun = u64::from(left.subsec_nanos() > 0);
    u32::try_from(left.as_secs().saturating_add(begun)).unwrap_or(u32::MAX)
}

/// Whether the reserved address is on the port above the other one, on the same IP address.
fn is_above(above: Option<SocketAddr>, below: Option<&Relay>) -> bool {
    let below = below.and_then(|relay| relay.relayed);
    above.zip(below).is_some_and(|(above, below)| {
        above.ip() == below.ip() && Some(above.port()) == below.port().checked_add(1)
    })
}

/// Whether an address is one of Teredo or 6to4: tunnels that can be made to loop (section 21.4).
pub(super) fn is_tunnel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => matches!(ip.segments(), [0x2001, 0, ..] | [0x2002, ..]),
    }
}
