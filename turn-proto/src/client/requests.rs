//! Requests of a client and what becomes of them (RFC 8489 sections 6.3 and 9.2.5).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;

use smallvec::SmallVec;
use stun_proto::auth::{Discarded, Judgement, RequestAuth};
use stun_proto::wire::{
    Attribute, AttributeType, Class, ErrorCode, Message, MessageType, Method, Software,
    TransactionId, WriteError, Writer, XorMappedAddress,
};
use stun_proto::{Instant, Path};

use super::{
    Cause, Connection, Core, Event, MAX_TRANSMIT, RelayProtocol, State, Timer, UnprotectedErrors,
};
use crate::wire::{
    self, AccessToken, AdditionalAddressFamily, AddressFamily, ChannelNumber, ConnectionId,
    DontFragment, EvenPort, Lifetime, MobilityTicket, RequestedAddressFamily, RequestedTransport,
    ReservationToken, ThirdPartyAuthorization, XorPeerAddress, XorRelayedAddress, code,
};

/// Requests under way to one server at once (RFC 8489 section 6.2); others wait.
const MAX_OUTSTANDING: usize = 10;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Allocate,
    Refresh,
    /// A Refresh to find out whether path and allocation are still there.
    Probe,
    /// Gives the allocation back.
    Delete,
    /// Gives one of two relayed addresses back.
    Release(AddressFamily),
    /// Takes the allocation to the candidate path.
    Move,
    Permissions(SmallVec<[IpAddr; 8]>),
    Bind(SocketAddr),
    Connect(Connection),
    ConnectionBind(Connection),
}

impl Request {
    const fn method(&self) -> Method {
        match self {
            Self::Allocate => wire::ALLOCATE,
            Self::Refresh | Self::Probe | Self::Delete | Self::Release(_) | Self::Move => {
                wire::REFRESH
            }
            Self::Permissions(_) => wire::CREATE_PERMISSION,
            Self::Bind(_) => wire::CHANNEL_BIND,
            Self::Connect(_) => wire::CONNECT,
            Self::ConnectionBind(_) => wire::CONNECTION_BIND,
        }
    }

    /// Whether it takes another path than the one in use.
    pub(super) const fn is_elsewhere(&self) -> bool {
        match self {
            Self::Move | Self::ConnectionBind(_) => true,
            Self::Allocate
            | Self::Refresh
            | Self::Probe
            | Self::Delete
            | Self::Release(_)
            | Self::Permissions(_)
            | Self::Bind(_)
            | Self::Connect(_) => false,
        }
    }

    /// Whether it goes out at once, however much is under way.
    const fn is_urgent(&self) -> bool {
        match self {
            Self::Allocate | Self::Refresh | Self::Probe | Self::Delete | Self::Move => true,
            Self::Release(_)
            | Self::Permissions(_)
            | Self::Bind(_)
            | Self::Connect(_)
            | Self::ConnectionBind(_) => false,
        }
    }
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) request: Request,
    auth: RequestAuth,
    /// It was sent with credentials.
    pub(super) authenticated: bool,
    /// When it was first sent: what it brings counts from there.
    pub(super) sent: Instant,
    /// An answer without valid integrity came, with this code.
    unverified: Option<Option<u16>>,
    pub(super) server_errors: u8,
}

impl Pending {
    /// Why it came to nothing when no answer came in time.
    pub(super) fn silence(&self) -> Cause {
        match self.unverified {
            Some(code) => Cause::Integrity { code },
            None => Cause::Timeout,
        }
    }

    /// The same after a 500.
    pub(super) const fn once_more(mut self) -> Self {
        self.server_errors = self.server_errors.saturating_add(1);
        self
    }
}

impl Core {
    /// Sends a request that has not been tried yet, now or when there is room for it.
    pub(super) fn start(&mut self, now: Instant, request: Request) {
        let pending = Pending {
            request,
            auth: RequestAuth::default(),
            authenticated: false,
            sent: now,
            unverified: None,
            server_errors: 0,
        };
        let wait = self.down || self.transactions.len() >= MAX_OUTSTANDING;
        if wait && !pending.request.is_urgent() {
            self.waiting.push_back(pending);
        } else {
            self.send_request(now, pending);
        }
    }

    /// Sends requests that had to wait, as far as there is room now.
    pub(super) fn pump(&mut self, now: Instant) {
        while !self.down && self.transactions.len() < MAX_OUTSTANDING {
            let Some(pending) = self.waiting.pop_front() else {
                return;
            };
            self.send_request(now, pending);
        }
    }

    pub(super) fn send_request(&mut self, now: Instant, mut pending: Pending) {
        pending.sent = now;
        let Some(path) = self.path_for(&pending.request) else {
            return;
        };
        let id = self.rng.transaction_id();
        let mut buf = [0; MAX_TRANSMIT];
        let Ok(len) = self.write_request(&mut pending, id, &mut buf) else {
            return self.failed(now, pending, Cause::TooLong);
        };
        let message = buf.get(..len).unwrap_or_default();
        let answers_promptly = !matches!(pending.request, Request::Connect(_));
        let (table, pending) = match pending.request {
            Request::Connect(_) => (&mut self.connects, pending),
            Request::Allocate
            | Request::Refresh
            | Request::Probe
            | Request::Delete
            | Request::Release(_)
            | Request::Move
            | Request::Permissions(_)
            | Request::Bind(_)
            | Request::ConnectionBind(_) => (&mut self.transactions, pending),
        };
        // The tables are large enough for all that is started: see `pump`.
        let started = table.start(now, path, id, message, pending);
        debug_assert!(started.is_ok(), "too many transactions");
        self.asked(now, path, answers_promptly);
    }

    /// The path a request takes; `None` when there is none any more.
    fn path_for(&self, request: &Request) -> Option<Path> {
        match request {
            Request::Move => self.candidate.map(|link| link.path),
            Request::ConnectionBind(connection) => {
                self.connections.stream_of(*connection).map(Path::Stream)
            }
            Request::Allocate
            | Request::Refresh
            | Request::Probe
            | Request::Delete
            | Request::Release(_)
            | Request::Permissions(_)
            | Request::Bind(_)
            | Request::Connect(_) => Some(self.link.path),
        }
    }

    fn write_request(
        &self,
        pending: &mut Pending,
        id: TransactionId,
        buf: &mut [u8],
    ) -> Result<usize, WriteError> {
        let software = self.config.software.as_deref();
        let software = software.and_then(|text| Software::new(text).ok());
        let token = self.token_to_send();
        let writer = Writer::new(buf, MessageType::request(pending.request.method()), id);
        let mut auth = &self.auth;
        let writer = match &pending.request {
            Request::Allocate => self.write_allocate(writer.maybe(software.as_ref())),
            Request::Refresh | Request::Probe => {
                let lifetime = self.wanted_lifetime();
                writer
                    .maybe(software.as_ref())
                    .maybe(lifetime.as_ref())
                    .maybe(token.as_ref())
            }
            Request::Move => {
                let ticket = self.ticket.as_ref().map(|t| MobilityTicket(t));
                let lifetime = self.wanted_lifetime();
                writer
                    .maybe(software.as_ref())
                    .maybe(lifetime.as_ref())
                    .maybe(ticket.as_ref())
                    .maybe(token.as_ref())
            }
            Request::Delete => writer
                .maybe(software.as_ref())
                .attribute(&Lifetime(0))
                .maybe(token.as_ref()),
            Request::Release(family) => writer
                .maybe(software.as_ref())
                .attribute(&Lifetime(0))
                .attribute(&RequestedAddressFamily(*family))
                .maybe(token.as_ref()),
            Request::Permissions(peers) => peers.iter().fold(writer, |writer, peer| {
                writer.attribute(&XorPeerAddress(SocketAddr::new(*peer, 0)))
            }),
            Request::Bind(peer) => {
                let channel = self.channels.number_of(*peer).map(ChannelNumber::of);
                writer
                    .maybe(channel.as_ref())
                    .attribute(&XorPeerAddress(*peer))
            }
            Request::Connect(connection) => {
                let peer = self.connections.peer_of(*connection).map(XorPeerAddress);
                writer.maybe(peer.as_ref())
            }
            Request::ConnectionBind(connection) => {
                let bound = self.connections.binding(*connection);
                let id = bound.map(|(id, _)| ConnectionId(id));
                // Nonces belong to a stream: each has its own.
                auth = bound.map_or(auth, |(_, auth)| auth);
                writer.maybe(id.as_ref())
            }
        };
        pending.authenticated = auth.is_challenged();
        auth.finish(writer, &mut pending.auth)
    }

    fn write_allocate<'b>(&self, writer: Writer<'b>) -> Writer<'b> {
        let State::Allocating { options, .. } = &self.state else {
            return writer;
        };
        let transport = match options.protocol {
            RelayProtocol::Udp => RequestedTransport::UDP,
            RelayProtocol::Tcp => RequestedTransport::TCP,
        };
        let lifetime = options.lifetime.map(seconds);
        let family = options.family.map(RequestedAddressFamily);
        let additional = options
            .additional_v6
            .then_some(AdditionalAddressFamily(AddressFamily::V6));
        let even_port = options
            .even_port
            .map(|reserve_next| EvenPort { reserve_next });
        let reservation = options.reservation.map(ReservationToken);
        let token = self.token_to_send();
        writer
            .attribute(&transport)
            .maybe(lifetime.as_ref())
            .maybe(family.as_ref())
            .maybe(additional.as_ref())
            .maybe(even_port.as_ref())
            .maybe(reservation.as_ref())
            .maybe(options.dont_fragment.then_some(&DontFragment))
            .maybe(options.mobility.then_some(&MobilityTicket(&[])))
            .maybe(token.as_ref())
    }

    /// The token, where a proof goes with it: servers that know none refuse the attribute, and
    /// nobody need see it.
    fn token_to_send(&self) -> Option<AccessToken<'_>> {
        let token = self.token.as_ref().filter(|_| self.auth.is_challenged());
        token.map(|token| AccessToken(token))
    }

    fn wanted_lifetime(&self) -> Option<Lifetime> {
        match &self.state {
            State::Active(allocation) => allocation.options.lifetime.map(seconds),
            State::Idle | State::Allocating { .. } | State::Deleting(_) | State::Ended => None,
        }
    }

    /// How many bytes a request without attributes of its own has.
    pub(super) fn overhead(&self) -> usize {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::request(wire::CREATE_PERMISSION);
        let writer = Writer::new(&mut buf, ty, TransactionId([0; 12]));
        let written = self.auth.finish(writer, &mut RequestAuth::default());
        written.unwrap_or(MAX_TRANSMIT)
    }

    /// Takes in an answer that came over `path`; whether anybody waits for it.
    pub(super) fn response(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        let id = message.transaction_id();
        let transport = self.transport_of(path);
        let reliable = transport.is_stream() || transport.is_secure();
        let open = self.transactions.context_mut(path, id);
        let allocate = open.is_some_and(|pending| pending.request == Request::Allocate);
        let code = error_code(message);
        if allocate && code == Some(ErrorCode::UNAUTHENTICATED) && self.wants_token(message) {
            self.transactions.finish(now, id);
            self.tell(Event::TokenNeeded);
            return true;
        }
        let table = if self.connects.context_mut(path, id).is_some() {
            &mut self.connects
        } else {
            &mut self.transactions
        };
        let Some(pending) = table.context_mut(path, id) else {
            return false;
        };
        if pending.request.method() != message.method() {
            return false;
        }
        let auth = match pending.request {
            Request::ConnectionBind(connection) => self.connections.auth_mut(connection),
            Request::Allocate
            | Request::Refresh
            | Request::Probe
            | Request::Delete
            | Request::Release(_)
            | Request::Move
            | Request::Permissions(_)
            | Request::Bind(_)
            | Request::Connect(_) => None,
        };
        let auth = auth.unwrap_or(&mut self.auth);
        let mut judgement = auth.judge(&mut pending.auth, message, reliable);
        let lenient = allocate || self.config.unprotected_errors == UnprotectedErrors::Accept;
        let doubtful = judgement == Judgement::Accept && pending.authenticated && !lenient;
        if doubtful && !auth.proves(&pending.auth, message) {
            judgement = Judgement::Discard(Discarded::Integrity { code });
        }
        let redirect = Discarded::Integrity {
            code: Some(ErrorCode::TRY_ALTERNATE),
        };
        let follows = allocate && self.config.redirects == super::Redirects::Unprotected;
        let judgement = if follows && judgement == Judgement::Discard(redirect) {
            Judgement::Accept
        } else {
            judgement
        };
        self.judged(now, (path, id), judgement, message);
        self.pump(now);
        if self.transactions.is_empty() {
            self.timers.disarm(Timer::Silence);
        }
        // What a late answer grants counts from the request, and may have to be renewed already.
        if self.timers.next().is_some_and(|due| due <= now) {
            self.handle_timeout(now);
        }
        true
    }

    fn judged(
        &mut self,
        now: Instant,
        (path, id): (Path, TransactionId),
        judgement: Judgement,
        message: &Message<'_>,
    ) {
        if matches!(judgement, Judgement::Accept | Judgement::Retry) {
            self.proven(now, path);
        }
        match judgement {
            Judgement::Accept => {
                if let Some(pending) = self.finish(now, id) {
                    self.answered(now, pending, message);
                }
            }
            Judgement::Retry => {
                if let Some(pending) = self.finish(now, id) {
                    self.challenged(now, pending);
                }
            }
            Judgement::Discard(why) => {
                self.stats.unverified = self.stats.unverified.saturating_add(1);
                let code = if let Discarded::Integrity { code } = why {
                    code
                } else {
                    None
                };
                if self.transport_of(path).is_stream() {
                    // No better answer can come.
                    if let Some(pending) = self.cancel(id) {
                        self.failed(now, pending, Cause::Integrity { code });
                    }
                } else if let Some(pending) = self.transactions.context_mut(path, id) {
                    pending.unverified = Some(code);
                }
            }
            Judgement::Fail(failure) => {
                if let Some(pending) = self.cancel(id) {
                    self.failed(now, pending, Cause::Auth(failure));
                }
            }
        }
    }

    fn finish(&mut self, now: Instant, id: TransactionId) -> Option<Pending> {
        let pending = self.transactions.finish(now, id);
        pending.or_else(|| self.connects.finish(now, id))
    }

    fn cancel(&mut self, id: TransactionId) -> Option<Pending> {
        let pending = self.transactions.cancel(id);
        pending.or_else(|| self.connects.cancel(id))
    }

    /// The request is to be written again, with what the server asked for.
    fn challenged(&mut self, now: Instant, pending: Pending) {
        self.nonce_at = now;
        if let State::Allocating {
            options,
            held,
            closing,
        } = &mut self.state
        {
            if *closing {
                // Whoever had to be challenged has nothing yet.
                return self.end(Event::Closed);
            }
            if core::mem::take(&mut options.stop_at_challenge) {
                *held = true;
                self.tell(Event::Challenged);
                return;
            }
        }
        self.send_request(now, pending);
    }

    /// Whether the server speaks of a token that is not there yet (RFC 7635 section 6.1).
    fn wants_token(&mut self, message: &Message<'_>) -> bool {
        if !self.config.third_party || self.token.is_some() {
            return false;
        }
        let Some(ThirdPartyAuthorization(name)) = message.find() else {
            return false;
        };
        // Longer names are no names.
        let name = core::str::from_utf8(name).unwrap_or_default();
        self.token_server = Some(String::from(name.get(..255).unwrap_or(name)));
        true
    }

    fn answered(&mut self, now: Instant, pending: Pending, message: &Message<'_>) {
        let unknown = message
            .unknown_required(|ty| KNOWN.contains(&ty))
            .next()
            .is_some();
        if unknown {
            return self.failed(now, pending, Cause::Malformed);
        }
        if message.class() == Class::Success {
            return self.succeeded(now, pending, message);
        }
        match error_code(message) {
            None => self.failed(now, pending, Cause::Malformed),
            Some(code) if pending.request == Request::Allocate => {
                self.allocate_error(now, pending, code, message);
            }
            Some(code) => self.failed(now, pending, Cause::Code(code)),
        }
    }

    fn succeeded(&mut self, now: Instant, pending: Pending, message: &Message<'_>) {
        let sent = pending.sent;
        match pending.request {
            Request::Allocate => self.allocate_succeeded(now, sent, message),
            Request::Refresh => self.refreshed(now, sent, message),
            Request::Probe => self.probed(now, sent, message),
            Request::Delete => self.deleted(),
            Request::Release(family) => self.family_released(family),
            Request::Move => self.moved(now, sent, message),
            Request::Permissions(peers) => self.permissions_created(now, sent, &peers),
            Request::Bind(peer) => self.channel_bound(now, sent, peer),
            Request::Connect(connection) => self.connected(now, connection, message.find()),
            Request::ConnectionBind(connection) => self.connection_bound(now, connection),
        }
    }

    /// A request came to nothing.
    pub(super) fn failed(&mut self, now: Instant, pending: Pending, cause: Cause) {
        let gone = matches!(
            cause,
            Cause::Code(code::ALLOCATION_MISMATCH | code::WRONG_CREDENTIALS)
        );
        match pending.request {
            Request::Allocate => self.allocate_failed(cause, None),
            Request::Delete => self.deleted(),
            Request::Move => self.move_failed(now, cause),
            Request::ConnectionBind(connection) => self.connection_failed(now, connection, cause),
            Request::Refresh
            | Request::Probe
            | Request::Release(_)
            | Request::Permissions(_)
            | Request::Bind(_)
            | Request::Connect(_)
                if gone =>
            {
                self.fail(cause);
            }
            Request::Refresh => self.refresh_failed(now, cause),
            Request::Probe => self.probe_failed(cause),
            // It has gone already.
            Request::Release(family) if cause == Cause::Code(code::PEER_FAMILY_MISMATCH) => {
                self.family_released(family);
            }
            // The other family's refresh keeps it alive; nothing else is lost.
            Request::Release(_) => {}
            Request::Permissions(peers) => self.permissions_failed(now, &peers, cause),
            Request::Bind(peer) => self.channel_failed(now, peer, cause),
            Request::Connect(connection) => self.connection_failed(now, connection, cause),
        }
    }

    fn deleted(&mut self) {
        if let State::Deleting(event) = self.state {
            self.end(event);
        }
    }

    /// Up to a second, so that many clients do not come back at once.
    pub(super) fn jitter(&mut self) -> Duration {
        Duration::from_millis(u64::from(self.rng.below(1000)))
    }
}

/// The code of an error response.
fn error_code(message: &Message<'_>) -> Option<u16> {
    match message.class() {
        Class::Error => message.find::<ErrorCode<'_>>().map(|error| error.code()),
        Class::Success | Class::Request | Class::Indication => None,
    }
}

fn seconds(duration: Duration) -> Lifetime {
    Lifetime(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
}

/// The comprehension-required attributes that answers may hold.
const KNOWN: [AttributeType; 12] = [
    <ErrorCode<'_> as Attribute<'_>>::TYPE,
    <stun_proto::wire::UnknownAttributes as Attribute<'_>>::TYPE,
    <stun_proto::wire::Realm<'_> as Attribute<'_>>::TYPE,
    <stun_proto::wire::Nonce<'_> as Attribute<'_>>::TYPE,
    <stun_proto::wire::Username<'_> as Attribute<'_>>::TYPE,
    <XorMappedAddress as Attribute<'_>>::TYPE,
    <stun_proto::wire::MappedAddress as Attribute<'_>>::TYPE,
    <XorRelayedAddress as Attribute<'_>>::TYPE,
    <XorPeerAddress as Attribute<'_>>::TYPE,
    <Lifetime as Attribute<'_>>::TYPE,
    <ReservationToken as Attribute<'_>>::TYPE,
    <ConnectionId as Attribute<'_>>::TYPE,
];
