//! Getting, keeping and giving back the allocation (RFC 8656 sections 7 and 8).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use stun_proto::auth::AuthFailure;
use stun_proto::time::deadline;
use stun_proto::wire::{
    AlternateDomain, AlternateServer, Attribute as _, Message, UnknownAttributes, XorMappedAddress,
};
use stun_proto::{Instant, Path};
use zeroize::Zeroizing;

use super::requests::{Pending, Request};
use super::{
    AllocateOptions, Cause, ClientError, Core, Event, RelayProtocol, State, Timer, backoff,
};
use crate::wire::{
    AddressErrorCode, AddressFamily, DontFragment, Lifetime, MobilityTicket,
    RequestedAddressFamily, ReservationToken, XorRelayedAddress, code,
};

/// How long to leave a server alone that has no room.
const NO_ROOM_WAIT: Duration = Duration::from_secs(60);

/// An allocation is refreshed this long before its end, but at half time when it is shorter
/// than twice that, and at least hourly (RFC 8656 section 8).
const REFRESH_MARGIN: Duration = Duration::from_secs(60);
const REFRESH_LATEST: Duration = Duration::from_secs(3540);

/// How often a 500 is tried again.
const MAX_SERVER_ERRORS: u8 = 4;

/// What the server has granted.
#[derive(Clone, Debug)]
pub(super) struct Allocation {
    pub(super) options: AllocateOptions,
    v4: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    /// When the server forgets it; never when `None`.
    pub(super) expires: Option<Instant>,
    /// A Refresh is under way.
    refreshing: bool,
    failures: u32,
    /// Why the last Refresh failed.
    cause: Cause,
}

impl Allocation {
    /// Whether peers of this family can be reached.
    pub(super) const fn holds(&self, family: AddressFamily) -> bool {
        match family {
            AddressFamily::V4 => self.v4.is_some(),
            AddressFamily::V6 => self.v6.is_some(),
        }
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

impl AllocateOptions {
    /// Refuses what RFC 8656 section 7.1 and RFC 6062 section 4.1 forbid.
    pub(super) fn check(&self, path: Path) -> Result<(), ClientError> {
        let reserves = self.even_port == Some(true);
        let twice = self.family.is_some() || self.reservation.is_some() || reserves;
        let chosen = self.family.is_some() || self.even_port.is_some();
        let over_udp = matches!(path, Path::Datagram(_));
        let for_udp = self.dont_fragment || self.even_port.is_some() || self.reservation.is_some();
        let tcp = self.protocol == RelayProtocol::Tcp;
        // A Refresh with this lifetime would delete the allocation.
        let none = self
            .lifetime
            .is_some_and(|lifetime| lifetime.as_secs() == 0);
        let contradiction = none
            || (self.additional_v6 && twice)
            || (self.reservation.is_some() && chosen)
            || (tcp && (over_udp || for_udp || self.additional_v6));
        if contradiction {
            Err(ClientError::Options)
        } else {
            Ok(())
        }
    }

    /// What may be asked for after `code` refused this.
    fn weaker(mut self, code: u16, message: &Message<'_>) -> Option<Self> {
        let before = self;
        match code {
            stun_proto::wire::ErrorCode::UNKNOWN_ATTRIBUTE => {
                let unknown: UnknownAttributes = message.find()?;
                if unknown.0.contains(&DontFragment::TYPE) {
                    self.dont_fragment = false;
                }
                // A server that does not know the attribute has nothing but IPv4.
                if unknown.0.contains(&RequestedAddressFamily::TYPE)
                    && self.family == Some(AddressFamily::V4)
                {
                    self.family = None;
                }
            }
            code::MOBILITY_FORBIDDEN => self.mobility = false,
            _ => {}
        }
        (self != before).then_some(self)
    }
}

impl Core {
    pub(super) fn allocate_error(
        &mut self,
        now: Instant,
        pending: Pending,
        code: u16,
        message: &Message<'_>,
    ) {
        let State::Allocating { options, .. } = &mut self.state else {
            return;
        };
        if let Some(weaker) = options.weaker(code, message) {
            *options = weaker;
            return self.start(now, Request::Allocate);
        }
        let server_error = code == stun_proto::wire::ErrorCode::SERVER_ERROR;
        if server_error && pending.server_errors < MAX_SERVER_ERRORS {
            let wait = backoff(Duration::from_secs(1), u32::from(pending.server_errors));
            let wait = wait.saturating_add(self.jitter());
            self.timers.arm(Timer::TryAgain, now, wait);
            self.delayed = Some(pending.once_more());
            return;
        }
        let alternate = self.alternate(&pending, code, message);
        if alternate.is_some() {
            let domain: Option<AlternateDomain<'_>> = message.find();
            self.alternate_domain =
                domain.and_then(|d| d.as_str().map(alloc::borrow::ToOwned::to_owned));
        }
        self.allocate_failed(Cause::Code(code), alternate);
    }

    /// Ends it all; the table of RFC 8656 section 7.4.
    pub(super) fn allocate_failed(&mut self, cause: Cause, alternate: Option<SocketAddr>) {
        let State::Allocating {
            options, closing, ..
        } = self.state
        else {
            return;
        };
        if closing {
            return self.end(Event::Closed);
        }
        let reserved = options.even_port.is_some() || options.reservation.is_some();
        let retry_after = match cause {
            Cause::Code(code::ALLOCATION_MISMATCH) => Some(Duration::ZERO),
            Cause::Code(code::INSUFFICIENT_CAPACITY) if reserved => Some(Duration::ZERO),
            Cause::Code(code::QUOTA_REACHED | code::INSUFFICIENT_CAPACITY) => {
                Some(NO_ROOM_WAIT.saturating_add(self.jitter()))
            }
            Cause::Timeout
            | Cause::Integrity { .. }
            | Cause::Code(_)
            | Cause::Auth(_)
            | Cause::Malformed
            | Cause::Family
            | Cause::TooLong
            | Cause::OutOfSync
            | Cause::StreamClosed
            | Cause::Unreachable
            | Cause::Stalled
            | Cause::Framing(_) => None,
        };
        self.end(Event::AllocateFailed {
            cause,
            retry_after,
            fresh_address: cause == Cause::Code(code::ALLOCATION_MISMATCH),
            alternate,
        });
    }

    /// The server to ask instead, if the redirect counts and leads to a place it may lead to.
    fn alternate(&self, pending: &Pending, code: u16, message: &Message<'_>) -> Option<SocketAddr> {
        let redirects = match self.config.redirects {
            super::Redirects::Refuse => false,
            super::Redirects::Protected => pending.authenticated && message.has_integrity(),
            super::Redirects::Unprotected => true,
        };
        if code != stun_proto::wire::ErrorCode::TRY_ALTERNATE || !redirects {
            return None;
        }
        let server = match self.link.path {
            Path::Datagram(at) => Some(at.remote),
            Path::Stream(_) => None,
        };
        message
            .get_all::<AlternateServer>()
            .flatten()
            .map(|alternate| alternate.0)
            .find(|to| {
                is_server(*to)
                    && server.is_none_or(|now| now != *to && now.is_ipv4() == to.is_ipv4())
            })
    }

    pub(super) fn allocate_succeeded(
        &mut self,
        now: Instant,
        sent: Instant,
        message: &Message<'_>,
    ) {
        let State::Allocating {
            options, closing, ..
        } = self.state
        else {
            return;
        };
        if closing {
            return self.delete(now, Event::Closed);
        }
        let granted = match Granted::read(options, message) {
            Ok(granted) => granted,
            // There may be an allocation that is of no use: it is given back.
            Err(cause) => {
                return self.delete(
                    now,
                    Event::AllocateFailed {
                        cause,
                        retry_after: None,
                        fresh_address: false,
                        alternate: None,
                    },
                );
            }
        };
        let of = |family| {
            granted
                .relayed
                .into_iter()
                .flatten()
                .find(|addr| AddressFamily::of(addr.ip()) == family)
        };
        let (v4, v6) = (of(AddressFamily::V4), of(AddressFamily::V6));
        self.state = State::Active(Allocation {
            options,
            v4,
            v6,
            expires: None,
            refreshing: false,
            failures: 0,
            cause: Cause::Timeout,
        });
        self.keep_ticket(message);
        self.granted(sent, granted.lifetime);
        self.begin_life(now);
        let [first, second] = granted.relayed;
        let Some(relayed) = first else { return };
        self.tell(Event::Allocated {
            relayed,
            additional: second,
            refused: granted.refused,
            mapped: granted.mapped,
            lifetime: granted.lifetime,
            reservation: message.find::<ReservationToken>().map(|token| token.0),
            dont_fragment: options.dont_fragment,
            mobile: self.ticket.is_some(),
        });
    }

    pub(super) fn keep_ticket(&mut self, message: &Message<'_>) {
        let wanted = match &self.state {
            State::Active(allocation) => allocation.options.mobility,
            State::Idle | State::Allocating { .. } | State::Deleting(_) | State::Ended => false,
        };
        if let Some(MobilityTicket(ticket)) = message.find().filter(|_| wanted)
            && !ticket.is_empty()
        {
            self.ticket = Some(Zeroizing::new(ticket.to_vec()));
        }
    }

    /// Notes what the server granted, counted from `sent`.
    fn granted(&mut self, sent: Instant, lifetime: Duration) {
        let wait = if lifetime < REFRESH_MARGIN.saturating_mul(2) {
            lifetime.checked_div(2).unwrap_or_default()
        } else {
            lifetime.saturating_sub(REFRESH_MARGIN).min(REFRESH_LATEST)
        };
        let expires = deadline(sent, lifetime);
        self.timers.arm(Timer::Refresh, sent, wait);
        self.timers.set(Timer::Expiry, expires);
        if let State::Active(allocation) = &mut self.state {
            allocation.expires = expires;
            allocation.failures = 0;
        }
    }

    /// Sends a Refresh, unless one is under way or there is no path for it.
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.down {
            return;
        }
        if let State::Active(allocation) = &mut self.state
            && !core::mem::replace(&mut allocation.refreshing, true)
        {
            self.start(now, Request::Refresh);
        }
    }

    pub(super) fn refreshed(&mut self, now: Instant, sent: Instant, message: &Message<'_>) {
        if let State::Active(allocation) = &mut self.state {
            allocation.refreshing = false;
        }
        if self.prolong(sent, message).is_none() {
            self.refresh_failed(now, Cause::Malformed);
        }
        self.nonce_is_fresh(now);
    }

    /// Takes in what the answer to a Refresh grants, if anything.
    pub(super) fn prolong(&mut self, sent: Instant, message: &Message<'_>) -> Option<Duration> {
        self.keep_ticket(message);
        let Lifetime(secs) = message.find()?;
        let lifetime = Duration::from_secs(u64::from(secs));
        let granted = Some(lifetime).filter(|lifetime| !lifetime.is_zero())?;
        self.granted(sent, granted);
        Some(granted)
    }

    /// Refreshing goes on until the allocation has ended by itself.
    pub(super) fn refresh_failed(&mut self, now: Instant, cause: Cause) {
        let jitter = self.jitter();
        let State::Active(allocation) = &mut self.state else {
            return;
        };
        allocation.refreshing = false;
        allocation.cause = cause;
        let wait = backoff(Duration::from_secs(1), allocation.failures);
        allocation.failures = allocation.failures.saturating_add(1);
        let wait = wait.saturating_add(jitter);
        self.timers.arm(Timer::Refresh, now, wait);
        // Requests of one moment may have made each other's nonces stale: that passes.
        let hopeless = |failure| failure != AuthFailure::TooManyStale;
        if matches!(cause, Cause::Auth(failure) if hopeless(failure)) {
            if self.token.is_none() {
                return self.fail(cause);
            }
            // The token has expired: another one is needed before the allocation ends.
            self.tell(Event::TokenNeeded);
        }
        self.nonce_is_fresh(now);
    }

    pub(super) fn expired(&mut self) {
        if let State::Active(allocation) = &self.state {
            let cause = allocation.cause;
            self.fail(cause);
        }
    }

    /// Gives the allocation back; `event` follows when that is done.
    pub(super) fn delete(&mut self, now: Instant, event: Event) {
        self.forget();
        self.state = State::Deleting(event);
        self.start(now, Request::Delete);
    }

    pub(super) fn release_family(
        &mut self,
        now: Instant,
        family: AddressFamily,
    ) -> Result<(), ClientError> {
        match &self.state {
            State::Active(allocation) if allocation.v4.is_some() && allocation.v6.is_some() => {
                self.start(now, Request::Release(family));
                Ok(())
            }
            State::Active(_)
            | State::Idle
            | State::Allocating { .. }
            | State::Deleting(_)
            | State::Ended => Err(ClientError::State),
        }
    }

    /// One of two relayed addresses is gone, with what hung on it.
    pub(super) fn family_released(&mut self, family: AddressFamily) {
        let State::Active(allocation) = &mut self.state else {
            return;
        };
        match family {
            AddressFamily::V4 => allocation.v4 = None,
            AddressFamily::V6 => allocation.v6 = None,
        }
        let gone = |ip: IpAddr| AddressFamily::of(ip) == family;
        self.forget_permissions(gone);
        self.forget_channels(gone);
        self.tell(Event::FamilyReleased { family });
    }
}

/// What a success says.
struct Granted {
    relayed: [Option<SocketAddr>; 2],
    refused: Option<(AddressFamily, u16)>,
    mapped: Option<SocketAddr>,
    lifetime: Duration,
}

impl Granted {
    fn read(options: AllocateOptions, message: &Message<'_>) -> Result<Self, Cause> {
        let lifetime = match message.find() {
            Some(Lifetime(secs)) if secs > 0 => Duration::from_secs(u64::from(secs)),
            Some(Lifetime(_)) | None => return Err(Cause::Malformed),
        };
        let mapped = match message.get::<XorMappedAddress>() {
            Some(Ok(mapped)) => Some(mapped.0),
            Some(Err(_)) => return Err(Cause::Family),
            None => None,
        };
        let mut relayed = [None; 2];
        for address in message.get_all::<XorRelayedAddress>() {
            let XorRelayedAddress(address) = address.map_err(|_| Cause::Family)?;
            let family = AddressFamily::of(address.ip());
            if options.family.is_some_and(|wanted| wanted != family) {
                return Err(Cause::Family);
            }
            match &mut relayed {
                [slot @ None, _] => *slot = Some(address),
                [Some(first), slot @ None]
                    if options.additional_v6 && first.is_ipv4() != address.is_ipv4() =>
                {
                    *slot = Some(address);
                }
                [_, _] => {}
            }
        }
        let [first, second] = relayed;
        let first = first.ok_or(Cause::Malformed)?;
        let refused = if options.additional_v6 && second.is_none() {
            // Servers that do not know the wish say nothing.
            let missing = match AddressFamily::of(first.ip()) {
                AddressFamily::V4 => AddressFamily::V6,
                AddressFamily::V6 => AddressFamily::V4,
            };
            let said: Option<AddressErrorCode<'_>> = message.find();
            let said = said.filter(|said| said.family == missing);
            let code = said.map_or(code::ADDRESS_FAMILY_NOT_SUPPORTED, |s| s.error.code());
            Some((missing, code))
        } else {
            None
        };
        Ok(Self {
            relayed,
            refused,
            mapped,
            lifetime,
        })
    }
}

/// Whether a redirect may lead there.
fn is_server(to: SocketAddr) -> bool {
    let somewhere = match to.ip().to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()),
    };
    somewhere && (to.port() >= 1024 || matches!(to.port(), 53 | 80 | 443))
}
