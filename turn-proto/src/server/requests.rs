//! What a server does with requests (RFC 8656 sections 7 to 10 and 12).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;
use stun_proto::auth::{Refusal, User};
use stun_proto::time::deadline;
use stun_proto::wire::{
    Attribute, AttributeError, AttributeType, ErrorCode, Message, MessageType, Method, Nonce,
    PasswordAlgorithm, Realm, Software, TransactionId, UnknownAttributes, Userhash, Username,
    Writer, XorMappedAddress,
};
use stun_proto::{FiveTuple, Instant, Path};

use super::allocation::{Allocation, ChannelBinding, Protection, RelayState, Timer};
use super::{Action, Core, DeleteReason, Event, RelayId, Users};
use crate::wire::{
    self, AdditionalAddressFamily, AddressFamily, Channel, ChannelNumber, DontFragment, EvenPort,
    Lifetime, RequestedAddressFamily, RequestedTransport, ReservationToken, XorPeerAddress,
    XorRelayedAddress, code,
};

const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// A request that is proven to be from a user, and how its answer is protected.
struct Proven<'a> {
    message: Message<'a>,
    path: Path,
    client: FiveTuple,
    username: Vec<u8>,
    protection: Protection,
}

/// An error code for the client.
#[derive(Debug)]
struct Denied(u16);

impl<U: Users> Core<U> {
    /// Authenticates a request and hands it to its handler.
    pub(super) fn request(
        &mut self,
        now: Instant,
        path: Path,
        client: FiveTuple,
        message: &Message<'_>,
    ) {
        if message.method() == Method::BINDING {
            return self.binding(now, path, client, message);
        }
        let claim = match self.auth.identify(client.remote, message) {
            Ok(claim) => claim,
            Err(refusal) => return self.refuse(now, path, client, message, &refusal),
        };
        let key = self.users.key(claim.user, claim.algorithm);
        let proof = match self.auth.verify(now, &claim, key.as_ref()) {
            Ok(proof) => proof,
            Err(refusal) => {
                return self.refuse(now, path, client, message, &refusal);
            }
        };
        let username = match proof.user {
            User::Name(name) => name.to_vec(),
            User::Hash(hash) => hash.to_vec(),
        };
        let algorithm = proof.protection;
        let Some(key) = key else { return };
        let proven = Proven {
            message: *message,
            path,
            client,
            username,
            protection: Protection { algorithm, key },
        };
        let unknown = self.unknown(message);
        if !unknown.is_empty() {
            return self.unknown_attributes(&proven, unknown);
        }
        self.dispatch(now, &proven);
    }

    fn dispatch(&mut self, now: Instant, proven: &Proven<'_>) {
        let result = match proven.message.method() {
            wire::ALLOCATE => self.allocate(now, proven),
            wire::REFRESH => self
                .owned(proven)
                .and_then(|relay| self.refresh(now, proven, relay)),
            wire::CREATE_PERMISSION => self
                .owned(proven)
                .and_then(|relay| self.create_permission(now, proven, relay)),
            wire::CHANNEL_BIND => self
                .owned(proven)
                .and_then(|relay| self.channel_bind(now, proven, relay)),
            _ => Ok(()),
        };
        if let Err(Denied(code)) = result {
            let ty = proven.message.message_type().error();
            self.reply(proven, ty, |writer| writer.attribute(&ErrorCode::new(code)));
        }
    }

    /// Whether a request that proves nothing gets an answer.
    fn may_answer(&mut self, now: Instant, client: FiveTuple) -> bool {
        self.stats.unauthenticated = self.stats.unauthenticated.saturating_add(1);
        let allowed =
            client.transport.is_stream() || self.unverified.allows(now, client.remote.ip());
        if !allowed {
            self.stats.rate_limited = self.stats.rate_limited.saturating_add(1);
        }
        allowed
    }

    fn refuse(
        &mut self,
        now: Instant,
        path: Path,
        client: FiveTuple,
        message: &Message<'_>,
        refusal: &Refusal<'_>,
    ) {
        if !self.may_answer(now, client) {
            return;
        }
        let auth = self.auth.clone();
        self.queue(path, |buf| {
            auth.write_refusal(now, client.remote, message, refusal, buf)
        });
    }

    fn binding(&mut self, now: Instant, path: Path, client: FiveTuple, message: &Message<'_>) {
        if !client.transport.is_stream() && !self.unverified.allows(now, client.remote.ip()) {
            self.stats.rate_limited = self.stats.rate_limited.saturating_add(1);
            return;
        }
        let unknown = self.unknown(message);
        let (ty, id) = (message.message_type(), message.transaction_id());
        self.queue(path, |buf| {
            if unknown.is_empty() {
                return Writer::new(buf, ty.success(), id)
                    .attribute(&XorMappedAddress(client.remote))
                    .finish();
            }
            Writer::new(buf, ty.error(), id)
                .attribute(&ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE).with_reason(""))
                .attribute(&UnknownAttributes(unknown))
                .finish()
        });
    }

    fn unknown_attributes(&mut self, proven: &Proven<'_>, unknown: SmallVec<[AttributeType; 8]>) {
        let ty = proven.message.message_type().error();
        self.reply(proven, ty, |writer| {
            writer
                .attribute(&ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE))
                .attribute(&UnknownAttributes(unknown))
        });
    }

    /// Queues a protected answer to a request.
    fn reply(
        &mut self,
        proven: &Proven<'_>,
        ty: MessageType,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        let id = proven.message.transaction_id();
        self.answer(proven.path, ty, id, &proven.protection, attributes);
    }

    fn answer(
        &mut self,
        path: Path,
        ty: MessageType,
        id: TransactionId,
        protection: &Protection,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        let software = self.config.software.clone();
        let software = software.as_deref().and_then(|s| Software::new(s).ok());
        self.queue(path, |buf| {
            attributes(Writer::new(buf, ty, id))
                .maybe(software.as_ref())
                .integrity(protection.algorithm, &protection.key)
                .finish()
        });
    }

    /// The allocation a request is about, if it is the user's (RFC 8656 section 5).
    fn owned(&self, proven: &Proven<'_>) -> Result<RelayId, Denied> {
        let (relay, allocation) = self
            .allocation_at(proven.path)
            .filter(|(_, allocation)| allocation.relayed().is_some())
            .ok_or(Denied(code::ALLOCATION_MISMATCH))?;
        if allocation.username != proven.username {
            return Err(Denied(code::WRONG_CREDENTIALS));
        }
        Ok(relay)
    }

    /// Section 7.2, in the order of its checks.
    fn allocate(&mut self, now: Instant, proven: &Proven<'_>) -> Result<(), Denied> {
        if let Some((relay, allocation)) = self.allocation_at(proven.path) {
            let again = allocation.request == proven.message.transaction_id()
                && allocation.username == proven.username;
            if !again {
                return Err(Denied(code::ALLOCATION_MISMATCH));
            }
            if allocation.relayed().is_some() {
                self.write_allocated(now, relay, &proven.protection);
            }
            // While the relay is being opened its answer serves this request as well.
            return Ok(());
        }
        let Wanted { family, even_port } = self.wanted_relay(&proven.message)?;
        let lifetime = self.granted(&proven.message)?;
        let limits = self.config.limits;
        let held = self.by_user.get(&proven.username).copied().unwrap_or(0);
        if held >= limits.allocations_per_user {
            return Err(Denied(code::QUOTA_REACHED));
        }
        if self.allocations.len() >= limits.allocations {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        let relay = RelayId(self.next_relay);
        self.next_relay = self.next_relay.saturating_add(1);
        let allocation = Allocation {
            path: proven.path,
            client: proven.client,
            family,
            state: RelayState::Opening {
                lifetime,
                even_port,
                protection: Box::new(proven.protection.clone()),
            },
            username: proven.username.clone(),
            request: proven.message.transaction_id(),
            permissions: Default::default(),
            channels: Default::default(),
            by_peer: Default::default(),
            to_peers: 0,
            to_client: 0,
        };
        self.allocations.insert(relay, allocation);
        self.by_path.insert(proven.path, relay);
        self.by_user
            .insert(proven.username.clone(), held.saturating_add(1));
        self.timers
            .arm(Timer::RelayOpening(relay), now, self.config.relay_timeout);
        if let Path::Stream(id) = proven.path {
            self.stream_with_allocation(id);
        }
        self.actions.push_back(Action::OpenRelay {
            relay,
            family,
            even_port,
            client: proven.client,
        });
        Ok(())
    }

    /// What kind of relay an Allocate asks for, if it is one there can be.
    fn wanted_relay(&self, message: &Message<'_>) -> Result<Wanted, Denied> {
        let bad = Denied(ErrorCode::BAD_REQUEST);
        match message.get::<RequestedTransport>() {
            Some(Ok(RequestedTransport::UDP)) => {}
            Some(Ok(_)) => return Err(Denied(code::UNSUPPORTED_TRANSPORT)),
            Some(Err(_)) | None => return Err(bad),
        }
        let family = message.get::<RequestedAddressFamily>();
        let additional = message.get::<AdditionalAddressFamily>();
        if message.has(<ReservationToken as Attribute<'_>>::TYPE) {
            let excluded = family.is_some()
                || additional.is_some()
                || message.has(<EvenPort as Attribute<'_>>::TYPE);
            // No port is ever reserved here, so no token is known.
            return Err(if excluded {
                bad
            } else {
                Denied(code::INSUFFICIENT_CAPACITY)
            });
        }
        if family.is_some() && additional.is_some() {
            return Err(bad);
        }
        let family = match family {
            None => AddressFamily::V4,
            Some(Ok(RequestedAddressFamily(family))) => family,
            Some(Err(AttributeError::AddressFamily)) => {
                return Err(Denied(code::ADDRESS_FAMILY_NOT_SUPPORTED));
            }
            Some(Err(_)) => return Err(bad),
        };
        let even_port = match message.get::<EvenPort>() {
            None => false,
            Some(Ok(EvenPort {
                reserve_next: false,
            })) => true,
            Some(Ok(EvenPort { reserve_next: true })) if additional.is_some() => return Err(bad),
            // The port above is not reserved for anybody here.
            Some(Ok(EvenPort { reserve_next: true })) => {
                return Err(Denied(code::INSUFFICIENT_CAPACITY));
            }
            Some(Err(_)) => return Err(bad),
        };
        let supported = match family {
            AddressFamily::V4 => self.config.relay_v4,
            AddressFamily::V6 => self.config.relay_v6,
        };
        if supported {
            Ok(Wanted { family, even_port })
        } else {
            Err(Denied(code::ADDRESS_FAMILY_NOT_SUPPORTED))
        }
    }

    /// The lifetime for a request, in seconds: between the default and the longest.
    fn granted(&self, message: &Message<'_>) -> Result<u32, Denied> {
        let default = self.config.default_lifetime.as_secs() as u32;
        let longest = self.config.max_lifetime.as_secs() as u32;
        match message.get::<Lifetime>() {
            None => Ok(default),
            Some(Ok(Lifetime(wanted))) => Ok(wanted.min(longest).max(default)),
            Some(Err(_)) => Err(Denied(ErrorCode::BAD_REQUEST)),
        }
    }

    /// Answers the Allocate that made an open relay, at first and when it comes again.
    pub(super) fn write_allocated(
        &mut self,
        now: Instant,
        relay: RelayId,
        protection: &Protection,
    ) {
        let Some(allocation) = self.allocations.get(&relay) else {
            return;
        };
        let RelayState::Open { relayed, expires } = allocation.state else {
            return;
        };
        let left = expires.map_or(u64::from(u32::MAX), |at| at.duration_since(now).as_secs());
        let mapped = allocation.client.remote;
        let (path, id) = (allocation.path, allocation.request);
        let ty = MessageType::request(wire::ALLOCATE).success();
        self.answer(path, ty, id, protection, |writer| {
            writer
                .attribute(&XorRelayedAddress(relayed))
                .attribute(&XorMappedAddress(mapped))
                .attribute(&Lifetime(u32::try_from(left).unwrap_or(u32::MAX)))
        });
    }

    /// Answers an Allocate whose relay could not be opened.
    pub(super) fn refuse_opening(&mut self, relay: RelayId) {
        let Some(allocation) = self.allocations.get(&relay) else {
            return;
        };
        let RelayState::Opening { protection, .. } = &allocation.state else {
            return;
        };
        let protection = protection.clone();
        let (path, id) = (allocation.path, allocation.request);
        let ty = MessageType::request(wire::ALLOCATE).error();
        let error = ErrorCode::new(code::INSUFFICIENT_CAPACITY);
        self.answer(path, ty, id, &protection, |writer| writer.attribute(&error));
    }

    /// Section 8.2.
    fn refresh(&mut self, now: Instant, proven: &Proven<'_>, relay: RelayId) -> Result<(), Denied> {
        let held = self.allocations.get(&relay).map(|a| a.family);
        match proven.message.get::<RequestedAddressFamily>() {
            None => {}
            Some(Ok(RequestedAddressFamily(family))) if Some(family) == held => {}
            Some(Ok(_) | Err(AttributeError::AddressFamily)) => {
                return Err(Denied(code::PEER_FAMILY_MISMATCH));
            }
            Some(Err(_)) => return Err(Denied(ErrorCode::BAD_REQUEST)),
        }
        let delete = proven.message.find() == Some(Lifetime(0));
        let granted = if delete {
            0
        } else {
            self.granted(&proven.message)?
        };
        if delete {
            self.delete(relay, DeleteReason::Client);
        } else if let Some(allocation) = self.allocations.get_mut(&relay)
            && let RelayState::Open { expires, .. } = &mut allocation.state
        {
            *expires = deadline(now, Duration::from_secs(u64::from(granted)));
            self.timers.set(Timer::Allocation(relay), *expires);
        }
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer.attribute(&Lifetime(granted)));
        Ok(())
    }

    /// Section 10.2: all addresses are judged before the first permission is made.
    fn create_permission(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        relay: RelayId,
    ) -> Result<(), Denied> {
        let mut peers: SmallVec<[IpAddr; 8]> = SmallVec::new();
        for peer in proven.message.get_all::<XorPeerAddress>() {
            let XorPeerAddress(peer) = peer.map_err(|_| Denied(ErrorCode::BAD_REQUEST))?;
            peers.push(peer.ip());
        }
        if peers.is_empty() {
            return Err(Denied(ErrorCode::BAD_REQUEST));
        }
        for peer in &peers {
            self.judge_peer(relay, *peer)?;
        }
        peers.sort_unstable();
        peers.dedup();
        let allocation = self.allocations.get(&relay);
        let known = |ip: &&IpAddr| allocation.is_some_and(|a| a.permissions.contains_key(*ip));
        let held = allocation.map_or(0, |a| a.permissions.len());
        let new = peers
            .len()
            .saturating_sub(peers.iter().filter(known).count());
        if held.saturating_add(new) > self.config.limits.permissions {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        for peer in peers {
            self.permit(now, relay, peer);
        }
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer);
        Ok(())
    }

    /// Whether an allocation may reach this address.
    fn judge_peer(&self, relay: RelayId, peer: IpAddr) -> Result<(), Denied> {
        let held = self.allocations.get(&relay).map(|a| a.family);
        if held != Some(AddressFamily::of(peer)) {
            return Err(Denied(code::PEER_FAMILY_MISMATCH));
        }
        if !self.config.peers.allows_ip(peer) {
            return Err(Denied(code::FORBIDDEN));
        }
        Ok(())
    }

    /// Makes or renews a permission.
    fn permit(&mut self, now: Instant, relay: RelayId, peer: IpAddr) {
        let Some(allocation) = self.allocations.get_mut(&relay) else {
            return;
        };
        let expires = deadline(now, PERMISSION_LIFETIME);
        self.timers.set(Timer::Permission(relay, peer), expires);
        if allocation.permissions.insert(peer, expires).is_none() {
            self.events
                .push_back(Event::PermissionAdded { relay, peer });
        }
    }

    /// Section 12.2, checks in the order of severity: form, range, family, policy, conflicts, room.
    fn channel_bind(
        &mut self,
        now: Instant,
        proven: &Proven<'_>,
        relay: RelayId,
    ) -> Result<(), Denied> {
        let bad = || Denied(ErrorCode::BAD_REQUEST);
        let ChannelNumber(number) = proven.message.find().ok_or_else(bad)?;
        let XorPeerAddress(peer) = proven.message.find().ok_or_else(bad)?;
        let channel = Channel::new(number).ok_or_else(bad)?;
        if peer.port() == 0 {
            return Err(bad());
        }
        self.judge_peer(relay, peer.ip())?;
        let Some(allocation) = self.allocations.get(&relay) else {
            return Err(Denied(code::ALLOCATION_MISMATCH));
        };
        let bound_to = allocation.peer_of(now, channel);
        let bound_by = allocation.channel_of(now, peer);
        let conflict = bound_to.is_some_and(|other| other != peer)
            || bound_by.is_some_and(|other| other != channel);
        if conflict {
            return Err(bad());
        }
        let limits = self.config.limits;
        let no_channel = bound_to.is_none() && allocation.channels.len() >= limits.channels;
        let no_permission = !allocation.permissions.contains_key(&peer.ip())
            && allocation.permissions.len() >= limits.permissions;
        if no_channel || no_permission {
            return Err(Denied(code::INSUFFICIENT_CAPACITY));
        }
        self.bind(now, relay, channel, peer);
        self.permit(now, relay, peer.ip());
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| writer);
        Ok(())
    }

    fn bind(&mut self, now: Instant, relay: RelayId, channel: Channel, peer: SocketAddr) {
        let Some(allocation) = self.allocations.get_mut(&relay) else {
            return;
        };
        let expires = deadline(now, CHANNEL_LIFETIME);
        let binding = ChannelBinding { peer, expires };
        let renewed = allocation.channels.insert(channel, binding).is_some();
        allocation.by_peer.insert(peer, channel);
        self.timers.set(Timer::Channel(relay, channel), expires);
        if !renewed {
            self.events.push_back(Event::ChannelBound {
                relay,
                channel,
                peer,
            });
        }
    }

    /// The comprehension-required attributes of a request that nobody here understands.
    fn unknown(&self, message: &Message<'_>) -> SmallVec<[AttributeType; 8]> {
        let dont_fragment = self.config.dont_fragment;
        message
            .unknown_required(|ty| {
                KNOWN.contains(&ty)
                    || (dont_fragment && ty == <DontFragment as Attribute<'_>>::TYPE)
            })
            .collect()
    }
}

/// What an Allocate asks for.
struct Wanted {
    family: AddressFamily,
    even_port: bool,
}

/// The comprehension-required attributes that requests to a server may hold.
const KNOWN: [AttributeType; 13] = [
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
    // PRIORITY: ICE clients that gather may send it along.
    <stun_proto::wire::Priority as Attribute<'_>>::TYPE,
];
