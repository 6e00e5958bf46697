//! Requests of a client and what becomes of them (RFC 8656 sections 7.4, 8.3, 10.3, 12.3).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use smallvec::SmallVec;
use stun_proto::Instant;
use stun_proto::auth::{Discarded, Judgement, RequestAuth};
use stun_proto::wire::{
    AlternateServer, Attribute, AttributeType, Class, ErrorCode, Message, MessageType, Software,
    Writer, XorMappedAddress,
};

use super::{AllocateOptions, Cause, Core, Event, MAX_TRANSMIT, State};
use crate::wire::{
    self, ChannelNumber, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress,
    XorRelayedAddress, code,
};

/// How long to leave a server alone that has no room.
const NO_ROOM_WAIT: Duration = Duration::from_secs(60);

/// How often a 500 is tried again.
const MAX_SERVER_ERRORS: u8 = 4;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Allocate(AllocateOptions),
    Refresh(Option<Duration>),
    Delete,
    Permissions(SmallVec<[IpAddr; 8]>),
    Bind(SocketAddr),
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) request: Request,
    auth: RequestAuth,
    /// When it was first sent: what it brings counts from there.
    pub(super) sent: Instant,
    /// An answer without valid integrity came, with this code.
    pub(super) unverified: Option<Option<u16>>,
    server_errors: u8,
}

impl Core {
    /// Sends a request that has not been tried yet.
    pub(super) fn start(&mut self, now: Instant, request: Request) {
        self.send_request(
            now,
            Pending {
                request,
                auth: RequestAuth::default(),
                sent: now,
                unverified: None,
                server_errors: 0,
            },
        );
    }

    fn send_request(&mut self, now: Instant, mut pending: Pending) {
        pending.sent = now;
        let id = self.rng.transaction_id();
        let mut buf = [0; MAX_TRANSMIT];
        let software = self.config.software.as_deref();
        let software = software.and_then(|text| Software::new(text).ok());
        let ty = MessageType::request(method_of(&pending.request));
        let writer = Writer::new(&mut buf, ty, id);
        let writer = match &pending.request {
            Request::Allocate(options) => {
                let lifetime = options.lifetime.map(seconds);
                let family = options.family.map(RequestedAddressFamily);
                writer
                    .maybe(software.as_ref())
                    .attribute(&RequestedTransport::UDP)
                    .maybe(lifetime.as_ref())
                    .maybe(family.as_ref())
            }
            Request::Refresh(lifetime) => {
                let lifetime = lifetime.map(seconds);
                writer.maybe(software.as_ref()).maybe(lifetime.as_ref())
            }
            Request::Delete => writer.maybe(software.as_ref()).attribute(&Lifetime(0)),
            Request::Permissions(peers) => {
                let mut writer = writer;
                for peer in peers {
                    writer = writer.attribute(&XorPeerAddress(SocketAddr::new(*peer, 0)));
                }
                writer
            }
            Request::Bind(peer) => {
                let Some(channel) = self.channels.number_of(*peer) else {
                    return;
                };
                writer
                    .attribute(&ChannelNumber::of(channel))
                    .attribute(&XorPeerAddress(*peer))
            }
        };
        let written = self.auth.finish(writer, &mut pending.auth);
        let message = written.ok().and_then(|len| buf.get(..len));
        let path = self.path;
        let started = message.map(|message| {
            self.transactions
                .start(now, path, id, message, pending.clone())
        });
        if !matches!(started, Some(Ok(()))) {
            // Too many at once, or credentials that fit into no message.
            self.failed(now, pending, Cause::Malformed);
        }
    }

    /// Takes in an answer.
    pub(super) fn response(&mut self, now: Instant, message: &Message<'_>) {
        let id = message.transaction_id();
        let reliable = self.transport.is_stream() || self.transport.is_secure();
        let Some(pending) = self.transactions.context_mut(self.path, id) else {
            self.dropped();
            return;
        };
        if method_of(&pending.request) != message.method() {
            self.dropped();
            return;
        }
        match self.auth.judge(&mut pending.auth, message, reliable) {
            Judgement::Accept => {
                if let Some(pending) = self.transactions.finish(now, id) {
                    self.answered(now, pending, message);
                }
            }
            Judgement::Retry => {
                if let Some(pending) = self.transactions.finish(now, id) {
                    self.send_request(now, pending);
                }
            }
            Judgement::Discard(why) => {
                self.stats.unverified = self.stats.unverified.saturating_add(1);
                let code = if let Discarded::Integrity { code } = why {
                    code
                } else {
                    None
                };
                pending.unverified = Some(code);
                if self.transport.is_stream()
                    && let Some(pending) = self.transactions.cancel(id)
                {
                    self.failed(now, pending, Cause::Integrity { code });
                }
            }
            Judgement::Fail(failure) => {
                if let Some(pending) = self.transactions.cancel(id) {
                    self.failed(now, pending, Cause::Auth(failure));
                }
            }
        }
    }

    fn answered(&mut self, now: Instant, mut pending: Pending, message: &Message<'_>) {
        if message
            .unknown_required(|ty| KNOWN.contains(&ty))
            .next()
            .is_some()
        {
            return self.failed(now, pending, Cause::Malformed);
        }
        if message.class() == Class::Success {
            return self.succeeded(now, pending, message);
        }
        let Some(error) = message.find::<ErrorCode<'_>>() else {
            return self.failed(now, pending, Cause::Malformed);
        };
        let server_error = error.code() == ErrorCode::SERVER_ERROR;
        if server_error && pending.server_errors < MAX_SERVER_ERRORS {
            pending.server_errors = pending.server_errors.saturating_add(1);
            return self.send_request(now, pending);
        }
        if error.code() == ErrorCode::TRY_ALTERNATE
            && let Request::Allocate(_) = pending.request
        {
            let alternate = message.find::<AlternateServer>().map(|a| a.0);
            return self.end(Event::AllocateFailed {
                cause: Cause::Code(error.code()),
                retry_after: None,
                fresh_address: false,
                alternate,
            });
        }
        self.failed(now, pending, Cause::Code(error.code()));
    }

    fn succeeded(&mut self, now: Instant, pending: Pending, message: &Message<'_>) {
        let lifetime = message
            .find::<Lifetime>()
            .map(|Lifetime(secs)| Duration::from_secs(u64::from(secs)));
        match pending.request {
            Request::Allocate(options) => {
                let relayed = message.find::<XorRelayedAddress>();
                let (Some(XorRelayedAddress(relayed)), Some(lifetime)) = (relayed, lifetime) else {
                    // There may be an allocation that is of no use: it is given back.
                    self.state = State::Deleting;
                    self.events.push_back(Event::AllocateFailed {
                        cause: Cause::Malformed,
                        retry_after: None,
                        fresh_address: false,
                        alternate: None,
                    });
                    return self.start(now, Request::Delete);
                };
                self.state = State::Active {
                    relayed,
                    lifetime: options.lifetime,
                };
                self.granted(pending.sent, lifetime);
                self.arm_keep_alive(now);
                self.events.push_back(Event::Allocated {
                    relayed,
                    mapped: message.find::<XorMappedAddress>().map(|m| m.0),
                    lifetime,
                });
            }
            Request::Refresh(_) => match lifetime {
                Some(lifetime) if !lifetime.is_zero() => self.granted(pending.sent, lifetime),
                Some(_) | None => self.retry_refresh(now),
            },
            Request::Delete => self.end(Event::Closed),
            Request::Permissions(peers) => self.permissions_created(now, pending.sent, &peers),
            Request::Bind(peer) => self.channel_bound(now, pending.sent, peer),
        }
    }

    /// A request came to nothing.
    pub(super) fn failed(&mut self, now: Instant, pending: Pending, cause: Cause) {
        let gone = cause == Cause::Code(code::ALLOCATION_MISMATCH);
        match pending.request {
            Request::Allocate(_) => {
                let no_room = matches!(
                    cause,
                    Cause::Code(code::QUOTA_REACHED | code::INSUFFICIENT_CAPACITY)
                );
                let retry_after = if no_room {
                    Some(NO_ROOM_WAIT)
                } else {
                    gone.then_some(Duration::ZERO)
                };
                self.end(Event::AllocateFailed {
                    cause,
                    retry_after,
                    fresh_address: gone,
                    alternate: None,
                });
            }
            Request::Delete => self.end(Event::Closed),
            Request::Refresh(_) | Request::Permissions(_) | Request::Bind(_) if gone => {
                self.fail(cause);
            }
            Request::Refresh(_) => match cause {
                Cause::Timeout | Cause::Unreachable | Cause::Integrity { .. } => {
                    self.retry_refresh(now);
                }
                Cause::Code(_)
                | Cause::Auth(_)
                | Cause::Malformed
                | Cause::StreamClosed
                | Cause::Framing(_) => self.fail(cause),
            },
            Request::Permissions(peers) => self.permissions_failed(now, &peers, cause),
            Request::Bind(peer) => self.channel_failed(peer, cause),
        }
    }

    /// Refreshing goes on until the allocation has ended by itself.
    fn retry_refresh(&mut self, now: Instant) {
        if let State::Active { .. } = self.state {
            let wait = Duration::from_secs(1).saturating_add(self.jitter());
            self.timers.arm(super::Timer::Refresh, now, wait);
        }
    }

    /// Up to a second, so that many clients do not come back at once.
    pub(super) fn jitter(&mut self) -> Duration {
        Duration::from_millis(u64::from(self.rng.below(1000)))
    }
}

fn seconds(duration: Duration) -> Lifetime {
    Lifetime(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
}

const fn method_of(request: &Request) -> stun_proto::wire::Method {
    match request {
        Request::Allocate(_) => wire::ALLOCATE,
        Request::Refresh(_) | Request::Delete => wire::REFRESH,
        Request::Permissions(_) => wire::CREATE_PERMISSION,
        Request::Bind(_) => wire::CHANNEL_BIND,
    }
}

/// The comprehension-required attributes that answers may hold.
const KNOWN: [AttributeType; 9] = [
    <ErrorCode<'_> as Attribute<'_>>::TYPE,
    <stun_proto::wire::UnknownAttributes as Attribute<'_>>::TYPE,
    <stun_proto::wire::Realm<'_> as Attribute<'_>>::TYPE,
    <stun_proto::wire::Nonce<'_> as Attribute<'_>>::TYPE,
    <XorMappedAddress as Attribute<'_>>::TYPE,
    <stun_proto::wire::MappedAddress as Attribute<'_>>::TYPE,
    <XorRelayedAddress as Attribute<'_>>::TYPE,
    <Lifetime as Attribute<'_>>::TYPE,
    <wire::ReservationToken as Attribute<'_>>::TYPE,
];
