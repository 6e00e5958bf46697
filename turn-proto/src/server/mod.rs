//! The server (RFC 8656): one machine for all clients, listeners and transports of a host.

mod allocation;
mod config;
mod requests;
mod streams;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use stun_proto::auth::LongTermServer;
use stun_proto::framing::{Deframer, FramingError};
use stun_proto::limit::RateLimiter;
use stun_proto::time::{Clock, Timers, deadline};
use stun_proto::wire::{Class, Message, Method};
use stun_proto::{FiveTuple, Instant, Path, Received, Rng, StreamId, Transmit};

use self::allocation::{Allocation, RelayState, Timer};
pub use self::config::{ConfigError, Limits, ServerConfig, StaticUsers, Users};
use self::streams::ClientStream;
pub use self::streams::StreamRefused;
use crate::data::DataHeader;
use crate::wire::{
    self, AddressFamily, Channel, ChannelData, Data, DontFragment, Icmp, XorPeerAddress,
};

/// The longest control message of a server; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = 1280;

/// A relay socket, numbered by the server: the address peers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u64);

/// Where a client's data goes: out of this relay to this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayTo {
    /// The relay whose address is the source.
    pub relay: RelayId,
    /// The destination.
    pub peer: SocketAddr,
    /// The client asked that the datagram be not fragmented.
    pub dont_fragment: bool,
}

/// Where a peer's data goes, and what stands around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The client.
    pub to: Path,
    /// Header and padding.
    pub header: DataHeader,
}

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a UDP socket on an address of this family, with a port from 49152 up that cannot be
    /// guessed, and answer with [`Server::relay_opened`] or [`Server::relay_failed`].
    OpenRelay {
        /// Its number from now on.
        relay: RelayId,
        /// The family of its address.
        family: AddressFamily,
        /// Only an even port will do.
        even_port: bool,
        /// The client it is for.
        client: FiveTuple,
    },
    /// Close this socket; nothing more is relayed through it.
    CloseRelay {
        /// Which one.
        relay: RelayId,
    },
    /// Send what is waiting for this stream, then close it.
    CloseStream {
        /// Which one.
        id: StreamId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// It carries something else than STUN and ChannelData.
    Framing(FramingError),
    /// Its first unit is not a STUN request, or a message is malformed.
    Protocol,
    /// There was no allocation for too long, or a unit did not end.
    Idle,
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteReason {
    /// The client asked for it.
    Client,
    /// It was not refreshed.
    Expired,
    /// The client's stream is gone.
    StreamClosed,
    /// The relay failed.
    RelayFailed,
}

/// What happened, for accounting and for programming a faster data path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client got a relayed address.
    AllocationCreated {
        /// The relay.
        relay: RelayId,
        /// The client.
        client: FiveTuple,
        /// The user name (or hash).
        username: Vec<u8>,
        /// The relayed transport address.
        relayed: SocketAddr,
    },
    /// An allocation ended.
    AllocationDeleted {
        /// The relay.
        relay: RelayId,
        /// Why.
        reason: DeleteReason,
        /// Payload bytes relayed to peers.
        to_peers: u64,
        /// Payload bytes relayed to the client.
        to_client: u64,
    },
    /// Data may flow between relay and this address.
    PermissionAdded {
        /// The relay.
        relay: RelayId,
        /// The peer's address, all ports.
        peer: IpAddr,
    },
    /// Data may no longer flow.
    PermissionExpired {
        /// The relay.
        relay: RelayId,
        /// The peer's address.
        peer: IpAddr,
    },
    /// A channel leads to this peer.
    ChannelBound {
        /// The relay.
        relay: RelayId,
        /// The number.
        channel: Channel,
        /// The peer.
        peer: SocketAddr,
    },
    /// A channel leads nowhere any more.
    ChannelUnbound {
        /// The relay.
        relay: RelayId,
        /// The number.
        channel: Channel,
    },
}

/// Counters; they stop at their highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that are no STUN, or not what a client may send.
    pub malformed: u64,
    /// Requests that could not be authenticated.
    pub unauthenticated: u64,
    /// Unverified requests left unanswered to spare their supposed sender.
    pub rate_limited: u64,
    /// Data without allocation, permission or channel.
    pub not_permitted: u64,
    /// Responses dropped because the host did not take them.
    pub responses_dropped: u64,
}

/// A TURN server. See the [module](self).
///
/// Clients that have not answered a challenge leave nothing behind. Data goes through without
/// queue, copy or allocation; each lookup is logarithmic in the number of allocations.
#[derive(Debug)]
pub struct Server<U> {
    core: Core<U>,
    /// Apart from the rest, because data may be borrowed from them.
    deframers: BTreeMap<StreamId, Deframer>,
}

/// All of the server but the bytes of unfinished units.
#[derive(Debug)]
struct Core<U> {
    config: ServerConfig,
    users: U,
    auth: LongTermServer,
    clock: Clock,
    rng: Rng,
    unverified: RateLimiter,
    timers: Timers<Timer>,
    allocations: BTreeMap<RelayId, Allocation>,
    by_path: BTreeMap<Path, RelayId>,
    by_user: BTreeMap<Vec<u8>, usize>,
    streams: BTreeMap<StreamId, ClientStream>,
    next_relay: u64,
    responses: VecDeque<(Path, Vec<u8>)>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl<U: Users> Server<U> {
    /// A server that has no clients yet. `seed` must come from a cryptographic source.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        config: ServerConfig,
        users: U,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = Rng::from_seed(seed);
        let auth =
            LongTermServer::new(config.auth.clone(), &mut rng).map_err(|_| ConfigError::Realm)?;
        let core = Core {
            users,
            auth,
            clock: Clock::new(now),
            unverified: RateLimiter::new(config.unverified, &mut rng),
            rng,
            timers: Timers::new(),
            allocations: BTreeMap::new(),
            by_path: BTreeMap::new(),
            by_user: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_relay: 0,
            responses: VecDeque::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
        };
        Ok(Self {
            core,
            deframers: BTreeMap::new(),
        })
    }

    /// The users, to be changed at any time.
    pub const fn users_mut(&mut self) -> &mut U {
        &mut self.core.users
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.core.stats
    }

    /// How many allocations there are, those being opened included.
    pub fn allocations(&self) -> usize {
        self.core.allocations.len()
    }

    /// Takes in a datagram from a client. Data is to be sent from the relay to the peer.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        let path = Path::Datagram(at);
        if let Some(ChannelData { channel, data }) = ChannelData::parse(data) {
            let now = self.core.clock.advance(now);
            return self.core.channel_data(now, path, channel, data);
        }
        let Ok(message) = Message::parse(data) else {
            return Received::NotMine;
        };
        let now = self.core.clock.advance(now);
        self.core.message(now, path, at, &message)
    }

    /// A datagram with `len` bytes of payload came to a relay: where it goes, or `None` when it is
    /// to be dropped.
    pub fn handle_relay(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        len: usize,
    ) -> Option<Forward> {
        self.core.relay_to_client(now, relay, from, len)
    }

    /// As [`handle_relay`](Self::handle_relay), with everything put together in `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than payload plus 56 bytes: the host's bug.
    pub fn forward(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        payload: &[u8],
        buf: &mut [u8],
    ) -> Option<Transmit> {
        let Forward { to, header } = self.handle_relay(now, relay, from, payload.len())?;
        let len = header.write(payload, buf);
        assert!(len.is_some(), "transmit buffer too small");
        Some(Transmit { to, len: len? })
    }

    /// An ICMP error came back for a datagram sent from a relay to `peer` (the destination inside
    /// the error, never its sender). `family` types as RFC 8656 section 11.5 lists are passed on.
    pub fn handle_relay_icmp(
        &mut self,
        now: Instant,
        relay: RelayId,
        peer: SocketAddr,
        icmp: Icmp,
    ) {
        self.core.icmp_to_client(now, relay, peer, icmp);
    }

    /// The relay asked for is open at this address.
    pub fn relay_opened(&mut self, now: Instant, relay: RelayId, relayed: SocketAddr) {
        self.core.relay_opened(now, relay, relayed);
    }

    /// The relay asked for cannot be opened, or an open one failed.
    pub fn relay_failed(&mut self, now: Instant, relay: RelayId) {
        self.core.clock.advance(now);
        self.core.relay_failed(relay);
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
    }

    /// Writes the next control message into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the message, at most [`MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (to, message) = self.core.responses.pop_front()?;
        let len = message.len();
        assert!(len <= buf.len(), "transmit buffer too small");
        if let Some(slot) = buf.get_mut(..len) {
            slot.copy_from_slice(&message);
        }
        if self.core.responses.is_empty() {
            // Nothing stays behind of a burst.
            self.core.responses.shrink_to(16);
        }
        Some(Transmit { to, len })
    }

    /// The next thing the host must do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.core.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }
}

impl<U: Users> Core<U> {
    fn message<'a>(
        &mut self,
        now: Instant,
        path: Path,
        client: FiveTuple,
        message: &Message<'a>,
    ) -> Received<'a, RelayTo> {
        match (message.class(), message.method()) {
            (Class::Indication, wire::SEND) => return self.send_indication(now, path, message),
            // A client's keep-alive.
            (Class::Indication, Method::BINDING) => {}
            (Class::Request, method) if is_served(method) => {
                if message.check_fingerprint() == Some(false) {
                    self.stats.malformed = self.stats.malformed.saturating_add(1);
                } else {
                    self.request(now, path, client, message);
                }
            }
            (Class::Request | Class::Indication | Class::Success | Class::Error, _) => {
                self.stats.malformed = self.stats.malformed.saturating_add(1);
            }
        }
        Received::Consumed
    }

    fn channel_data<'a>(
        &mut self,
        now: Instant,
        path: Path,
        channel: Channel,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        let found = self.allocation_at(path).and_then(|(relay, allocation)| {
            let peer = allocation.peer_of(now, channel)?;
            Some((relay, peer))
        });
        match found {
            Some((relay, peer)) => self.relay_to_peer(now, relay, peer, false, data),
            None => self.not_permitted(),
        }
    }

    fn send_indication<'a>(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'a>,
    ) -> Received<'a, RelayTo> {
        let known = |ty| {
            ty == <XorPeerAddress as stun_proto::wire::Attribute<'_>>::TYPE
                || ty == <Data<'_> as stun_proto::wire::Attribute<'_>>::TYPE
                || ty == <DontFragment as stun_proto::wire::Attribute<'_>>::TYPE
        };
        let peer: Option<XorPeerAddress> = message.find();
        let data: Option<Data<'a>> = message.find();
        let understood = message.unknown_required(known).next().is_none();
        let (Some(XorPeerAddress(peer)), Some(Data(data)), true) = (peer, data, understood) else {
            self.stats.malformed = self.stats.malformed.saturating_add(1);
            return Received::Consumed;
        };
        let dont_fragment = message.find::<DontFragment>().is_some();
        match self.allocation_at(path) {
            Some((relay, _)) => self.relay_to_peer(now, relay, peer, dont_fragment, data),
            None => self.not_permitted(),
        }
    }

    /// Lets data through if there is a permission and the policy still holds.
    fn relay_to_peer<'a>(
        &mut self,
        now: Instant,
        relay: RelayId,
        peer: SocketAddr,
        dont_fragment: bool,
        data: &'a [u8],
    ) -> Received<'a, RelayTo> {
        let allowed = self.config.peers.allows(peer);
        let allocation = self.allocations.get_mut(&relay).filter(|allocation| {
            allowed
                && allocation.family == AddressFamily::of(peer.ip())
                && allocation.permits(now, peer.ip())
                && allocation.relayed().is_some()
        });
        let Some(allocation) = allocation else {
            return self.not_permitted();
        };
        allocation.to_peers = allocation.to_peers.saturating_add(data.len() as u64);
        Received::Data {
            peer: RelayTo {
                relay,
                peer,
                dont_fragment,
            },
            data,
        }
    }

    const fn not_permitted<'a>(&mut self) -> Received<'a, RelayTo> {
        self.stats.not_permitted = self.stats.not_permitted.saturating_add(1);
        Received::Consumed
    }

    fn allocation_at(&self, path: Path) -> Option<(RelayId, &Allocation)> {
        let relay = *self.by_path.get(&path)?;
        Some((relay, self.allocations.get(&relay)?))
    }

    fn relay_to_client(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        len: usize,
    ) -> Option<Forward> {
        let now = self.clock.advance(now);
        let allocation = self.allocations.get_mut(&relay)?;
        if !allocation.permits(now, from.ip()) || allocation.relayed().is_none() {
            self.stats.not_permitted = self.stats.not_permitted.saturating_add(1);
            return None;
        }
        let header = match allocation.channel_of(now, from) {
            Some(channel) => {
                let stream = matches!(allocation.path, Path::Stream(_));
                DataHeader::channel(channel, len, stream)
            }
            None => {
                let id = self.rng.transaction_id();
                DataHeader::indication(wire::DATA, id, from, len, false)
            }
        }?;
        allocation.to_client = allocation.to_client.saturating_add(len as u64);
        Some(Forward {
            to: allocation.path,
            header,
        })
    }

    fn icmp_to_client(&mut self, now: Instant, relay: RelayId, peer: SocketAddr, icmp: Icmp) {
        let now = self.clock.advance(now);
        let relevant = match AddressFamily::of(peer.ip()) {
            AddressFamily::V4 => matches!(icmp.ty, 3 | 11),
            AddressFamily::V6 => matches!(icmp.ty, 1..=3),
        };
        let Some(allocation) = self.allocations.get(&relay) else {
            return;
        };
        if !relevant || !allocation.permits(now, peer.ip()) {
            return;
        }
        let has_mtu = match AddressFamily::of(peer.ip()) {
            AddressFamily::V4 => icmp.ty == 3 && icmp.code == 4,
            AddressFamily::V6 => icmp.ty == 2,
        };
        let data = if has_mtu { icmp.data } else { 0 };
        let path = allocation.path;
        let id = self.rng.transaction_id();
        let ty = stun_proto::wire::MessageType::indication(wire::DATA);
        self.queue(path, |buf| {
            stun_proto::wire::Writer::new(buf, ty, id)
                .attribute(&XorPeerAddress(peer))
                .attribute(&Icmp { data, ..icmp })
                .finish()
        });
    }

    fn relay_opened(&mut self, now: Instant, relay: RelayId, relayed: SocketAddr) {
        let now = self.clock.advance(now);
        let Some(allocation) = self.allocations.get_mut(&relay) else {
            // Given up meanwhile; the action to close it is out already.
            return;
        };
        let RelayState::Opening {
            lifetime,
            even_port,
            ref protection,
        } = allocation.state
        else {
            return;
        };
        if even_port && !relayed.port().is_multiple_of(2) {
            return self.relay_failed(relay);
        }
        let protection = protection.clone();
        let expires = deadline(now, Duration::from_secs(u64::from(lifetime)));
        allocation.state = RelayState::Open { relayed, expires };
        self.events.push_back(Event::AllocationCreated {
            relay,
            client: allocation.client,
            username: allocation.username.clone(),
            relayed,
        });
        self.timers.disarm(Timer::RelayOpening(relay));
        self.timers.set(Timer::Allocation(relay), expires);
        self.write_allocated(now, relay, &protection);
    }

    fn relay_failed(&mut self, relay: RelayId) {
        self.refuse_opening(relay);
        self.delete(relay, DeleteReason::RelayFailed);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::RelayOpening(relay) => self.relay_failed(relay),
                Timer::Allocation(relay) => self.delete(relay, DeleteReason::Expired),
                Timer::Permission(relay, peer) => {
                    if let Some(allocation) = self.allocations.get_mut(&relay) {
                        allocation.permissions.remove(&peer);
                        self.events
                            .push_back(Event::PermissionExpired { relay, peer });
                    }
                }
                Timer::Channel(relay, channel) => self.unbind(relay, channel),
                Timer::StreamIdle(id) | Timer::StreamPartial(id) => {
                    self.close_stream(id, CloseReason::Idle);
                }
            }
        }
    }

    fn unbind(&mut self, relay: RelayId, channel: Channel) {
        if let Some(allocation) = self.allocations.get_mut(&relay)
            && let Some(binding) = allocation.channels.remove(&channel)
        {
            allocation.by_peer.remove(&binding.peer);
            self.events
                .push_back(Event::ChannelUnbound { relay, channel });
        }
    }

    /// Ends an allocation and everything that hangs on it.
    fn delete(&mut self, relay: RelayId, reason: DeleteReason) {
        let Some(allocation) = self.allocations.remove(&relay) else {
            return;
        };
        self.by_path.remove(&allocation.path);
        if let Some(count) = self.by_user.get_mut(&allocation.username) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_user.remove(&allocation.username);
            }
        }
        self.timers.disarm(Timer::RelayOpening(relay));
        self.timers.disarm(Timer::Allocation(relay));
        for peer in allocation.permissions.keys() {
            self.timers.disarm(Timer::Permission(relay, *peer));
        }
        for channel in allocation.channels.keys() {
            self.timers.disarm(Timer::Channel(relay, *channel));
        }
        self.actions.push_back(Action::CloseRelay { relay });
        if allocation.relayed().is_some() {
            self.events.push_back(Event::AllocationDeleted {
                relay,
                reason,
                to_peers: allocation.to_peers,
                to_client: allocation.to_client,
            });
        }
        if let Path::Stream(id) = allocation.path {
            self.stream_without_allocation(id);
        }
    }

    /// Queues a message for the host to take.
    fn queue(
        &mut self,
        to: Path,
        write: impl FnOnce(&mut [u8]) -> Result<usize, stun_proto::wire::WriteError>,
    ) {
        if self.responses.len() >= self.config.limits.responses {
            self.stats.responses_dropped = self.stats.responses_dropped.saturating_add(1);
            return;
        }
        let mut buf = [0; MAX_TRANSMIT];
        if let Ok(len) = write(&mut buf)
            && let Some(message) = buf.get(..len)
        {
            self.responses.push_back((to, message.to_vec()));
        }
    }
}

/// Whether the server has a handler for requests of this method.
const fn is_served(method: Method) -> bool {
    matches!(
        method,
        Method::BINDING
            | wire::ALLOCATE
            | wire::REFRESH
            | wire::CREATE_PERMISSION
            | wire::CHANNEL_BIND
    )
}

#[cfg(test)]
mod tests;
