//! Who a request is from, which handler it goes to, and how it is answered (RFC 8489 section 9.2,
//! RFC 8656 section 5).

use core::net::SocketAddr;

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;
use stun_proto::auth::{Claim, Refusal, User};
use stun_proto::wire::{
    Attribute, AttributeType, ErrorCode, IntegrityAlgorithm, Key, Message, MessageType, Method,
    Nonce, PasswordAlgorithm, Realm, Software, TransactionId, UnknownAttributes, Userhash,
    Username, WriteError, Writer, XorMappedAddress, userhash,
};
use stun_proto::{FiveTuple, Instant, Path};

use super::allocation::{AllocationId, Protection, Timer};
use super::output::{Action, KeyOwner, KeyTicket, count};
use super::users::{KeyQuery, Lookup, Purpose};
use super::{Core, Users, canonical};
use crate::wire::{
    self, AccessToken, ChannelNumber, ConnectionId, DontFragment, EvenPort, Lifetime,
    MobilityTicket, RequestedAddressFamily, RequestedTransport, ReservationToken,
    ThirdPartyAuthorization, XorPeerAddress, code,
};

/// A request, and where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'m, 'a> {
    pub(super) message: &'m Message<'a>,
    pub(super) path: Path,
    pub(super) client: FiveTuple,
}

/// A request that is proven to be from a user (or needs no proof), and how its answer is
/// protected.
#[derive(Debug)]
pub(super) struct Proven<'a> {
    pub(super) message: Message<'a>,
    pub(super) path: Path,
    pub(super) client: FiveTuple,
    pub(super) username: Vec<u8>,
    pub(super) protection: Protection,
    /// The most seconds the token of the request allows.
    pub(super) longest: Option<u32>,
    /// The request carries a token.
    pub(super) by_token: bool,
}

/// A request that waits for a key.
#[derive(Debug)]
pub(super) struct Waiting {
    path: Path,
    client: FiveTuple,
    id: TransactionId,
    bytes: Box<[u8]>,
}

/// An error code for the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied(pub(super) u16);

pub(super) const BAD_REQUEST: Denied = Denied(ErrorCode::BAD_REQUEST);

impl<U: Users> Core<U> {
    /// Authenticates a request and hands it to its handler.
    pub(super) fn request(
        &mut self,
        now: Instant,
        path: Path,
        client: FiveTuple,
        message: &Message<'_>,
    ) {
        self.sweep();
        if self.out.is_full(self.config.limits.responses) {
            return count(&mut self.stats.responses_dropped);
        }
        let seen = Seen {
            message,
            path,
            client,
        };
        if message.method() == Method::BINDING {
            return self.binding(now, seen);
        }
        if self.users.open_access() && !message.has_integrity() {
            return self.anonymous(now, seen);
        }
        let claim = match self.auth.identify(nonce_address(client), message) {
            Ok(claim) => claim,
            Err(refusal) => return self.refuse(now, seen, &refusal),
        };
        if self.users.third_party().is_some()
            && let Some(token) = self.token_of(seen, &claim)
        {
            return self.by_token(now, seen, &claim, token);
        }
        let query = KeyQuery {
            user: claim.user,
            algorithm: claim.algorithm,
            realm: self.auth.realm(),
            purpose: purpose(message),
            unix_time: self.unix_now(),
        };
        match self.users.key(&query) {
            Lookup::Key(key) => self.verify(now, seen, &claim, &[key]),
            Lookup::OneOf(keys) => self.verify(now, seen, &claim, &keys),
            Lookup::Unknown => self.verify(now, seen, &claim, &[]),
            Lookup::Later => self.wait_for_key(now, seen, &claim),
        }
    }

    /// Checks the proof with the keys a user may have, and goes on with the request.
    fn verify(&mut self, now: Instant, seen: Seen<'_, '_>, claim: &Claim<'_>, keys: &[Box<Key>]) {
        let mut refused = None;
        for key in keys.iter().take(4) {
            match self.auth.verify(now, claim, Some(key)) {
                Ok(proof) => {
                    let algorithm = proof.protection;
                    let username = self.account_name(proof.user);
                    return self.proven(now, seen, username, (algorithm, key.clone()), None);
                }
                // Another of the keys may be the right one.
                Err(refusal) if refusal.code == ErrorCode::UNAUTHENTICATED => {
                    refused = Some(refusal);
                }
                Err(refusal) => return self.refuse(now, seen, &refusal),
            }
        }
        // As much work for an unknown user as for a wrong password.
        let refusal = refused.or_else(|| self.auth.verify(now, claim, None).err());
        if let Some(refusal) = refusal {
            if refusal.code == ErrorCode::UNAUTHENTICATED {
                count(&mut self.stats.failed_logins);
                self.out.login_failed(seen.client, claim.user);
            }
            self.refuse(now, seen, &refusal);
        }
    }

    /// What a user's allocations are found by: the hash where names may be hidden behind it.
    fn account_name(&self, user: User<'_>) -> Vec<u8> {
        match user {
            User::Name(name) if self.config.auth.username_anonymity => {
                userhash(name, self.auth.realm().as_bytes()).to_vec()
            }
            User::Name(name) => name.to_vec(),
            User::Hash(hash) => hash.to_vec(),
        }
    }

    /// A request where no proof is asked: it counts for the address it came from.
    fn anonymous(&mut self, now: Instant, seen: Seen<'_, '_>) {
        let username = alloc::format!("{}", canonical(seen.client.remote).ip()).into_bytes();
        self.go_on(
            now,
            Proven {
                message: *seen.message,
                path: seen.path,
                client: seen.client,
                username,
                protection: Protection {
                    integrity: None,
                    fingerprint: seen.message.check_fingerprint().is_some(),
                },
                longest: None,
                by_token: false,
            },
        );
    }

    /// A request whose proof is right.
    pub(super) fn proven(
        &mut self,
        now: Instant,
        seen: Seen<'_, '_>,
        username: Vec<u8>,
        integrity: (IntegrityAlgorithm, Box<Key>),
        token: Option<u32>,
    ) {
        self.go_on(
            now,
            Proven {
                message: *seen.message,
                path: seen.path,
                client: seen.client,
                username,
                protection: Protection {
                    integrity: Some(integrity),
                    fingerprint: seen.message.check_fingerprint().is_some(),
                },
                longest: token,
                by_token: token.is_some(),
            },
        );
    }

    fn go_on(&mut self, now: Instant, proven: Proven<'_>) {
        let unknown = self.unknown(&proven.message, proven.by_token);
        if !unknown.is_empty() {
            let ty = proven.message.message_type().error();
            return self.reply(&proven, ty, |writer| {
                writer
                    .attribute(&ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE))
                    .attribute(&UnknownAttributes(unknown))
            });
        }
        let result = match proven.message.method() {
            wire::ALLOCATE => self.allocate(now, &proven),
            wire::REFRESH
                if proven
                    .message
                    .has(<MobilityTicket<'_> as Attribute<'_>>::TYPE) =>
            {
                self.move_client(now, &proven)
            }
            wire::REFRESH => self
                .owned(&proven)
                .and_then(|id| self.refresh(now, &proven, id)),
            wire::CREATE_PERMISSION => self
                .owned(&proven)
                .and_then(|id| self.create_permission(now, &proven, id)),
            wire::CHANNEL_BIND => self
                .owned(&proven)
                .and_then(|id| self.channel_bind(now, &proven, id)),
            wire::CONNECT => self
                .owned(&proven)
                .and_then(|id| self.connect(now, &proven, id)),
            wire::CONNECTION_BIND => self.connection_bind(&proven),
            _ => Ok(()),
        };
        if let Err(denied) = result {
            self.deny(&proven, denied);
        }
    }

    fn deny(&mut self, proven: &Proven<'_>, Denied(number): Denied) {
        if matches!(number, code::QUOTA_REACHED | code::INSUFFICIENT_CAPACITY) {
            count(&mut self.stats.limited);
        }
        let ty = proven.message.message_type().error();
        self.reply(proven, ty, |writer| {
            writer.attribute(&ErrorCode::new(number))
        });
    }

    /// The allocation a request is about, if it is the user's (RFC 8656 section 5).
    fn owned(&self, proven: &Proven<'_>) -> Result<AllocationId, Denied> {
        let (id, allocation) = self
            .allocation_at(proven.path)
            .filter(|(_, allocation)| allocation.is_open())
            .ok_or(Denied(code::ALLOCATION_MISMATCH))?;
        if allocation.username != proven.username {
            return Err(Denied(code::WRONG_CREDENTIALS));
        }
        Ok(id)
    }

    /// The comprehension-required attributes of a request that nobody here understands.
    fn unknown(&self, message: &Message<'_>, by_token: bool) -> SmallVec<[AttributeType; 8]> {
        let dont_fragment = self.config.dont_fragment || self.config.relay_tcp && asks_tcp(message);
        message
            .unknown_required(|ty| {
                KNOWN.contains(&ty)
                    || (dont_fragment && ty == <DontFragment as Attribute<'_>>::TYPE)
                    || (by_token && ty == <AccessToken<'_> as Attribute<'_>>::TYPE)
            })
            .collect()
    }
}

/// Answers.
impl<U: Users> Core<U> {
    /// Answers a request that proves nothing, unless the answer would do harm to whoever the
    /// request pretends to be from.
    pub(super) fn refuse(&mut self, now: Instant, seen: Seen<'_, '_>, refusal: &Refusal<'_>) {
        count(&mut self.stats.unauthenticated);
        let mut buf = [0; super::MAX_TRANSMIT];
        let client = nonce_address(seen.client);
        if let Some(len) = self.write_refusal(now, client, seen.message, refusal, &mut buf) {
            self.send_unverified(now, seen, buf.get(..len).unwrap_or_default());
        }
    }

    fn write_refusal(
        &self,
        now: Instant,
        client: SocketAddr,
        message: &Message<'_>,
        refusal: &Refusal<'_>,
        buf: &mut [u8],
    ) -> Option<usize> {
        let written = self.auth.write_refusal(now, client, message, refusal, buf);
        let len = written.ok()?;
        match self.users.third_party() {
            Some(name) if refusal.code == ErrorCode::UNAUTHENTICATED => {
                let ty = <ThirdPartyAuthorization<'_> as Attribute<'_>>::TYPE;
                Some(append(buf, len, ty, name.as_bytes()))
            }
            Some(_) | None => Some(len),
        }
    }

    pub(super) fn challenge_len(&self) -> Option<usize> {
        let mut request = [0; 28];
        let ty = MessageType::request(wire::ALLOCATE);
        let writer = Writer::new(&mut request, ty, TransactionId([0; 12]));
        writer.attribute(&RequestedTransport::UDP).finish().ok()?;
        let message = Message::parse(&request).ok()?;
        let client = SocketAddr::from(([0, 0, 0, 0], 0));
        let refusal = self.auth.identify(client, &message).err()?;
        let (now, mut buf) = (self.clock.now(), [0; super::MAX_TRANSMIT]);
        self.write_refusal(now, client, &message, &refusal, &mut buf)
    }

    fn send_unverified(&mut self, now: Instant, seen: Seen<'_, '_>, answer: &[u8]) {
        let asked = seen.message.as_bytes().len();
        if !seen.client.transport.is_stream() {
            let config = &self.config;
            let fair = answer.len() <= asked.saturating_mul(config.largest_gain)
                && asked >= config.shortest_unverified;
            let from = seen.client.remote.ip();
            if !fair || !self.unverified.allows(now, from, answer.len()) {
                return count(&mut self.stats.rate_limited);
            }
        }
        self.out.send(seen.path, |buf| {
            let slot = buf
                .get_mut(..answer.len())
                .ok_or(WriteError::BufferTooSmall)?;
            slot.copy_from_slice(answer);
            Ok(answer.len())
        });
    }

    /// Binding proves nothing and needs no proof.
    fn binding(&mut self, now: Instant, seen: Seen<'_, '_>) {
        let message = seen.message;
        let unknown = self.unknown(message, false);
        let (ty, id) = (message.message_type(), message.transaction_id());
        let protection = Protection {
            integrity: None,
            fingerprint: message.check_fingerprint().is_some(),
        };
        let mut buf = [0; super::MAX_TRANSMIT];
        let written = if unknown.is_empty() {
            let mapped = XorMappedAddress(canonical(seen.client.remote));
            protection.seal(Writer::new(&mut buf, ty.success(), id).attribute(&mapped))
        } else {
            let error = ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE).with_reason("");
            let writer = Writer::new(&mut buf, ty.error(), id).attribute(&error);
            protection.seal(writer.attribute(&UnknownAttributes(unknown)))
        };
        if let Ok(len) = written {
            self.send_unverified(now, seen, buf.get(..len).unwrap_or_default());
        }
    }

    /// Queues a protected answer to a request.
    pub(super) fn reply(
        &mut self,
        proven: &Proven<'_>,
        ty: MessageType,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        let id = proven.message.transaction_id();
        self.answer(proven.path, ty, id, &proven.protection, attributes);
    }

    pub(super) fn answer(
        &mut self,
        path: Path,
        ty: MessageType,
        id: TransactionId,
        protection: &Protection,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        let Self { config, out, .. } = self;
        let software = config.software.as_deref();
        let software = software.and_then(|s| Software::new(s).ok());
        out.send(path, |buf| {
            let writer = attributes(Writer::new(buf, ty, id)).maybe(software.as_ref());
            protection.seal(writer)
        });
    }
}

/// Keys that the host looks up.
impl<U: Users> Core<U> {
    fn wait_for_key(&mut self, now: Instant, seen: Seen<'_, '_>, claim: &Claim<'_>) {
        // Nothing is kept for somebody who has not answered a challenge from this address.
        if let Err(refusal) = self.auth.check_nonce(now, claim) {
            return self.refuse(now, seen, &refusal);
        }
        let id = seen.message.transaction_id();
        if self.waiting_for.contains_key(&(seen.path, id)) {
            return;
        }
        if self.waiting.len() >= self.config.limits.key_lookups {
            return self.server_error(seen.path, seen.message.message_type(), id);
        }
        let ticket = KeyTicket(self.number());
        let waiting = Waiting {
            path: seen.path,
            client: seen.client,
            id,
            bytes: seen.message.as_bytes().into(),
        };
        self.waiting.insert(ticket, waiting);
        self.waiting_for.insert((seen.path, id), ticket);
        self.timers
            .arm(Timer::Key(ticket), now, self.config.key_timeout);
        let user = match claim.user {
            User::Name(name) => KeyOwner::Name(name.to_vec()),
            User::Hash(hash) => KeyOwner::Hash(hash),
        };
        self.out.actions.push_back(Action::LookUpKey {
            ticket,
            user,
            algorithm: claim.algorithm,
        });
    }

    fn take_waiting(&mut self, ticket: KeyTicket) -> Option<Waiting> {
        self.timers.disarm(Timer::Key(ticket));
        let waiting = self.waiting.remove(&ticket)?;
        self.waiting_for.remove(&(waiting.path, waiting.id));
        Some(waiting)
    }

    pub(super) fn key_found(&mut self, now: Instant, ticket: KeyTicket, key: Option<Key>) {
        let now = self.clock.advance(now);
        let Some(waiting) = self.take_waiting(ticket) else {
            return;
        };
        let Ok(message) = Message::parse(&waiting.bytes) else {
            return;
        };
        let seen = Seen {
            message: &message,
            path: waiting.path,
            client: waiting.client,
        };
        if self.out.is_full(self.config.limits.responses) {
            return count(&mut self.stats.responses_dropped);
        }
        let from = nonce_address(waiting.client);
        match self.auth.identify(from, &message) {
            Ok(claim) => {
                let keys: SmallVec<[Box<Key>; 1]> = key.into_iter().map(Box::new).collect();
                self.verify(now, seen, &claim, &keys);
            }
            Err(refusal) => self.refuse(now, seen, &refusal),
        }
    }

    pub(super) fn key_timed_out(&mut self, ticket: KeyTicket) {
        let Some(waiting) = self.take_waiting(ticket) else {
            return;
        };
        count(&mut self.stats.responses_dropped);
        if let Ok(message) = Message::parse(&waiting.bytes) {
            self.server_error(waiting.path, message.message_type(), waiting.id);
        }
    }

    /// Forgets the requests of a stream that is gone.
    pub(super) fn forget_waiting(&mut self, path: Path) {
        let range = (path, TransactionId([0; 12]))..=(path, TransactionId([0xFF; 12]));
        let tickets: SmallVec<[KeyTicket; 4]> =
            self.waiting_for.range(range).map(|(_, t)| *t).collect();
        for ticket in tickets {
            self.take_waiting(ticket);
        }
    }

    fn server_error(&mut self, path: Path, ty: MessageType, id: TransactionId) {
        self.out.send(path, |buf| {
            Writer::new(buf, ty.error(), id)
                .attribute(&ErrorCode::new(ErrorCode::SERVER_ERROR))
                .finish()
        });
    }
}

/// Whose a nonce is. Over streams it is good for all ports of an address: the nonce of the control
/// connection serves for data connections as well (RFC 6062 section 4.3), and nobody opens a
/// stream from an address that is not theirs.
fn nonce_address(client: FiveTuple) -> SocketAddr {
    if client.transport.is_stream() {
        SocketAddr::new(client.remote.ip(), 0)
    } else {
        client.remote
    }
}

/// What a request wants the key of its user for.
fn purpose(message: &Message<'_>) -> Purpose {
    match message.method() {
        wire::ALLOCATE => Purpose::Create,
        wire::REFRESH if message.find() != Some(Lifetime(0)) => Purpose::Prolong,
        _ => Purpose::Use,
    }
}

/// Whether an Allocate is for a TCP relay: its handler has its own word on DONT-FRAGMENT.
fn asks_tcp(message: &Message<'_>) -> bool {
    message.find() == Some(RequestedTransport::TCP)
}

/// Adds an attribute behind an unprotected message; its new length.
fn append(buf: &mut [u8], len: usize, ty: AttributeType, value: &[u8]) -> usize {
    let padded = value.len().next_multiple_of(4);
    let end = len.saturating_add(4).saturating_add(padded);
    let (Some(slot), Ok(value_len)) = (buf.get_mut(len..end), u16::try_from(value.len())) else {
        return len;
    };
    let [t1, t0] = ty.0.to_be_bytes();
    let [l1, l0] = value_len.to_be_bytes();
    slot.fill(0);
    let bytes = [t1, t0, l1, l0];
    for (to, from) in slot.iter_mut().zip(bytes.iter().chain(value)) {
        *to = *from;
    }
    let body = end.saturating_sub(stun_proto::wire::HEADER_LEN) as u16;
    if let Some(slot) = buf.get_mut(2..4) {
        slot.copy_from_slice(&body.to_be_bytes());
    }
    end
}

/// The comprehension-required attributes that requests to a server may hold.
const KNOWN: [AttributeType; 14] = [
    <Username<'_> as Attribute<'_>>::TYPE,
    <Userhash as Attribute<'_>>::TYPE,
    <Realm<'_> as Attribute<'_>>::TYPE,
    <Nonce<'_> as Attribute<'_>>::TYPE,
    <PasswordAlgorithm<'_> as Attribute<'_>>::TYPE,
    <RequestedTransport as Attribute<'_>>::TYPE,
    <RequestedAddressFamily as Attribute<'_>>::TYPE,
    <EvenPort as Attribute<'_>>::TYPE,
    <ReservationToken as Attribute<'_>>::TYPE,
    <Lifetime as Attribute<'_>>::TYPE,
    <XorPeerAddress as Attribute<'_>>::TYPE,
    <ChannelNumber as Attribute<'_>>::TYPE,
    <ConnectionId as Attribute<'_>>::TYPE,
    // PRIORITY: ICE clients that gather may send it along.
    <stun_proto::wire::Priority as Attribute<'_>>::TYPE,
];
