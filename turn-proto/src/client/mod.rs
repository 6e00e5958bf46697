//! The client (RFC 8656): one allocation over one five-tuple or stream.

mod channels;
mod config;
mod permissions;
mod requests;

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;

use alloc::collections::VecDeque;

use stun_proto::auth::LongTermClient;
use stun_proto::framing::{Deframer, Next, Unit};
use stun_proto::time::{Clock, Timers, deadline};
use stun_proto::wire::{Class, Message, MessageType, Method, Writer};
use stun_proto::{
    FiveTuple, Instant, Path, Received, Rng, StreamId, Transactions, Transmit, Transport,
};

use self::channels::Channels;
pub use self::config::{
    AllocateOptions, Cause, ClientConfig, ClientError, Event, SendError, Stats,
};
use self::permissions::Permissions;
use self::requests::{Pending, Request};
use crate::data::DataHeader;
use crate::wire::{self, AddressFamily, Channel, ChannelData, Data, Icmp, XorPeerAddress};

/// The longest request of a client; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = 1280;

/// A unit on a stream: ChannelData with 65,535 bytes and its padding.
const MAX_UNIT: usize = 65_535 + 4 + 3;

/// Transactions open at once.
const MAX_TRANSACTIONS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The allocation is to be refreshed.
    Refresh,
    /// The allocation ends.
    Expiry,
    /// A permission is to be refreshed, or asked for again after a failure.
    Permission(IpAddr),
    /// A permission ends.
    PermissionExpiry(IpAddr),
    /// A channel is to be refreshed.
    Channel(SocketAddr),
    /// A channel ends, or has cooled down.
    ChannelExpiry(SocketAddr),
    /// The path is to be kept open.
    KeepAlive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Allocating(AllocateOptions),
    Active {
        relayed: SocketAddr,
        lifetime: Option<Duration>,
    },
    /// Being given back.
    Deleting,
    /// The terminal event is out.
    Ended,
}

/// A TURN client. See the [module](self).
///
/// ```
/// use stun_proto::auth::Credentials;
/// use stun_proto::{FiveTuple, Instant, Path, Transport};
/// use turn_proto::client::{AllocateOptions, Client, ClientConfig, MAX_TRANSMIT};
///
/// let at = FiveTuple::udp("10.0.0.2:40000".parse().unwrap(), "192.0.2.1:3478".parse().unwrap());
/// let config = ClientConfig::new(Some(Credentials::new("user", "secret")));
/// let now = Instant::ZERO;
/// let mut client = Client::new(config, Path::Datagram(at), Transport::Udp, [7; 32], now);
/// client.allocate(now, AllocateOptions::default()).unwrap();
///
/// let mut buf = [0; MAX_TRANSMIT];
/// let request = client.poll_transmit(&mut buf).unwrap();
/// assert_eq!(request.to, Path::Datagram(at));
/// assert!(client.poll_timeout().is_some());
/// ```
#[derive(Debug)]
pub struct Client {
    core: Core,
    /// Apart from the rest, because data may be borrowed from it.
    deframer: Deframer,
}

#[derive(Debug)]
struct Core {
    config: ClientConfig,
    path: Path,
    transport: Transport,
    clock: Clock,
    rng: Rng,
    auth: LongTermClient,
    transactions: Transactions<Pending>,
    timers: Timers<Timer>,
    state: State,
    permissions: Permissions,
    channels: Channels,
    keep_alive_due: bool,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Client {
    /// A client without allocation. `path` leads to the server, over `transport`; `seed` must come
    /// from a cryptographic source.
    pub fn new(
        config: ClientConfig,
        path: Path,
        transport: Transport,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut auth = LongTermClient::new(config.credentials.clone()).prefer_sha256();
        if config.lenient_errors {
            auth = auth.lenient_errors();
        }
        Self {
            core: Core {
                path,
                transport,
                clock: Clock::new(now),
                auth,
                transactions: Transactions::new(config.retransmit, MAX_TRANSACTIONS),
                timers: Timers::new(),
                state: State::Idle,
                permissions: Permissions::new(config.max_permissions),
                channels: Channels::new(config.max_channels, rng.below(0x1000) as u16),
                keep_alive_due: false,
                events: VecDeque::new(),
                stats: Stats::default(),
                config,
                rng,
            },
            deframer: Deframer::stun_only(MAX_UNIT),
        }
    }

    /// Asks for a relayed address: [`Event::Allocated`] or [`Event::AllocateFailed`] follows.
    ///
    /// # Errors
    /// [`ClientError::State`] unless this is the first command.
    pub fn allocate(&mut self, now: Instant, options: AllocateOptions) -> Result<(), ClientError> {
        if self.core.state != State::Idle {
            return Err(ClientError::State);
        }
        let now = self.core.clock.advance(now);
        self.core.state = State::Allocating(options);
        self.core.start(now, Request::Allocate(options));
        Ok(())
    }

    /// Lets data flow between the relayed address and `peer`, any port, until the client is closed.
    /// Asking again for what is there or under way does nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_permission(&mut self, now: Instant, peer: IpAddr) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.check_family(peer)?;
        self.core.create_permission(now, peer)
    }

    /// Binds a channel to `peer`, which makes headers short, and keeps it until the client is
    /// closed. Creates the permission as well.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn bind_channel(&mut self, now: Instant, peer: SocketAddr) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.check_family(peer.ip())?;
        self.core.bind_channel(now, peer)
    }

    /// Whether data can be sent to `peer` now.
    pub fn is_permitted(&self, peer: IpAddr) -> bool {
        self.core.permissions.is_live(self.core.clock.now(), peer)
    }

    /// Gives the allocation back: [`Event::Closed`] follows, at once if there is none.
    pub fn close(&mut self, now: Instant) {
        let now = self.core.clock.advance(now);
        match self.core.state {
            State::Active { .. } => {
                self.core.forget();
                self.core.state = State::Deleting;
                self.core.start(now, Request::Delete);
            }
            State::Idle | State::Allocating(_) => self.core.end(Event::Closed),
            State::Deleting | State::Ended => {}
        }
    }

    /// Takes in a datagram from the server.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a> {
        if self.core.path != Path::Datagram(at) || self.core.state == State::Ended {
            return Received::NotMine;
        }
        if let Some(ChannelData { channel, data }) = ChannelData::parse(data) {
            let now = self.core.clock.advance(now);
            return self.core.channel_data(now, channel, data);
        }
        let Ok(message) = Message::parse(data) else {
            return Received::NotMine;
        };
        let now = self.core.clock.advance(now);
        self.core.message(now, &message)
    }

    /// Takes the next unit from `input` and advances it. Call it until `input` is empty.
    pub fn handle_stream<'s, 'i: 's>(
        &'s mut self,
        now: Instant,
        id: StreamId,
        input: &mut &'i [u8],
    ) -> Received<'s> {
        let core = &mut self.core;
        if core.path != Path::Stream(id) || core.state == State::Ended {
            *input = &[];
            return Received::NotMine;
        }
        let now = core.clock.advance(now);
        self.deframer
            .set_channels(matches!(core.state, State::Active { .. } | State::Deleting));
        match self.deframer.next(input) {
            Ok(Next::Unit(Unit::Message(bytes))) => match Message::parse(bytes) {
                Ok(message) => core.message(now, &message),
                Err(_) => {
                    *input = &[];
                    core.fail(Cause::Malformed);
                    Received::Consumed
                }
            },
            Ok(Next::Unit(Unit::ChannelData { channel, data })) => match Channel::new(channel) {
                Some(channel) => core.channel_data(now, channel, data),
                None => core.not_permitted(),
            },
            Ok(Next::Partial | Next::Nothing) => Received::Consumed,
            Err(error) => {
                *input = &[];
                core.fail(Cause::Framing(error));
                Received::Consumed
            }
        }
    }

    /// The stream to the server is closed, by whichever side.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        self.core.clock.advance(now);
        if self.core.path == Path::Stream(id) {
            self.core.fail(Cause::StreamClosed);
        }
    }

    /// A hard ICMP error came for a datagram to the server: the requests under way have failed.
    pub fn handle_icmp_error(&mut self, now: Instant) {
        let now = self.core.clock.advance(now);
        let path = self.core.path;
        for ended in self.core.transactions.fail_path(path) {
            self.core.failed(now, ended.context, Cause::Unreachable);
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.core.clock.advance(now);
        self.core.handle_timeout(now);
    }

    /// Writes the next request into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the request, at most [`MAX_TRANSMIT`]: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let core = &mut self.core;
        if core.keep_alive_due {
            core.keep_alive_due = false;
            let ty = MessageType::indication(Method::BINDING);
            let written = Writer::new(buf, ty, core.rng.transaction_id()).finish();
            assert!(written.is_ok(), "transmit buffer too small");
            let to = core.path;
            return written.ok().map(|len| Transmit { to, len });
        }
        core.transactions.poll_transmit(buf)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.core.timers.next(),
            self.core.transactions.poll_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.core.stats
    }

    /// What stands around `len` bytes for `peer`: for hosts that gather writes.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_header(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        len: usize,
    ) -> Result<(Path, DataHeader), SendError> {
        let core = &mut self.core;
        let now = core.clock.advance(now);
        if !matches!(core.state, State::Active { .. }) {
            return Err(SendError::NoAllocation);
        }
        if !core.permissions.is_live(now, peer.ip()) {
            return Err(SendError::NoPermission);
        }
        let header = match core.channels.bound(now, peer) {
            Some(channel) => DataHeader::channel(channel, len, core.transport.is_stream()),
            None => {
                let id = core.rng.transaction_id();
                DataHeader::indication(wire::SEND, id, peer, len, false)
            }
        };
        Ok((core.path, header.ok_or(SendError::TooLong)?))
    }

    /// Puts a payload for `peer` and what stands around it into `buf`.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        payload: &[u8],
        buf: &mut [u8],
    ) -> Result<Transmit, SendError> {
        let (to, header) = self.send_header(now, peer, payload.len())?;
        let len = header
            .write(payload, buf)
            .ok_or(SendError::BufferTooSmall)?;
        Ok(Transmit { to, len })
    }

    /// Puts what must stand around a payload for `peer` that lies in `buf` already; returns the
    /// range to send. 52 bytes of room in front and 3 behind always suffice.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_in_place(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        buf: &mut [u8],
        payload: Range<usize>,
    ) -> Result<(Path, Range<usize>), SendError> {
        let (to, header) = self.send_header(now, peer, payload.len())?;
        let range = header
            .write_around(buf, payload)
            .ok_or(SendError::BufferTooSmall)?;
        Ok((to, range))
    }
}

impl Core {
    fn check_family(&self, peer: IpAddr) -> Result<(), ClientError> {
        match self.state {
            State::Active { relayed, .. } => {
                if AddressFamily::of(relayed.ip()) == AddressFamily::of(peer) {
                    Ok(())
                } else {
                    Err(ClientError::Family)
                }
            }
            State::Idle | State::Allocating(_) | State::Deleting | State::Ended => {
                Err(ClientError::State)
            }
        }
    }

    fn message<'a>(&mut self, now: Instant, message: &Message<'a>) -> Received<'a> {
        match message.class() {
            Class::Indication if message.method() == wire::DATA => self.data(now, message),
            Class::Success | Class::Error => {
                self.response(now, message);
                Received::Consumed
            }
            Class::Indication | Class::Request => self.dropped(),
        }
    }

    fn data<'a>(&mut self, now: Instant, message: &Message<'a>) -> Received<'a> {
        let Some(XorPeerAddress(peer)) = message.find() else {
            return self.dropped();
        };
        if !self.permissions.is_live(now, peer.ip()) {
            return self.not_permitted();
        }
        if let Some(icmp) = message.find::<Icmp>() {
            self.events.push_back(Event::Icmp { peer, icmp });
            return Received::Consumed;
        }
        match message.find() {
            Some(Data(data)) => Received::Data { peer, data },
            None => self.dropped(),
        }
    }

    fn channel_data<'a>(&mut self, now: Instant, channel: Channel, data: &'a [u8]) -> Received<'a> {
        match self.channels.peer_of(now, channel) {
            Some(peer) => Received::Data { peer, data },
            None => self.not_permitted(),
        }
    }

    const fn dropped<'a>(&mut self) -> Received<'a> {
        self.stats.dropped = self.stats.dropped.saturating_add(1);
        Received::Consumed
    }

    const fn not_permitted<'a>(&mut self) -> Received<'a> {
        self.stats.not_permitted = self.stats.not_permitted.saturating_add(1);
        Received::Consumed
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        while let Some(ended) = self.transactions.poll_timed_out() {
            let cause = match ended.context.unverified {
                Some(code) => Cause::Integrity { code },
                None => Cause::Timeout,
            };
            self.failed(now, ended.context, cause);
        }
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Refresh => self.refresh(now),
                Timer::Expiry => self.fail(Cause::Timeout),
                Timer::Permission(peer) => self.refresh_permissions(now, peer),
                Timer::PermissionExpiry(peer) => self.permission_expired(peer),
                Timer::Channel(peer) => self.start(now, Request::Bind(peer)),
                Timer::ChannelExpiry(peer) => self.channel_expired(now, peer),
                Timer::KeepAlive => {
                    self.keep_alive_due = true;
                    self.arm_keep_alive(now);
                }
            }
        }
    }

    fn arm_keep_alive(&mut self, now: Instant) {
        if let Some(every) = self
            .config
            .keep_alive
            .filter(|_| !self.transport.is_stream())
        {
            self.timers.arm(Timer::KeepAlive, now, every);
        }
    }

    fn refresh(&mut self, now: Instant) {
        if let State::Active { lifetime, .. } = self.state {
            self.start(now, Request::Refresh(lifetime));
        }
    }

    /// Notes what the server granted, counted from `sent`.
    fn granted(&mut self, sent: Instant, lifetime: Duration) {
        let two_minutes = Duration::from_secs(120);
        let minute = Duration::from_secs(60);
        let wait = if lifetime < two_minutes {
            lifetime.checked_div(2).unwrap_or_default()
        } else {
            lifetime
                .saturating_sub(minute)
                .min(Duration::from_secs(3540))
        };
        self.timers.arm(Timer::Refresh, sent, wait);
        self.timers.set(Timer::Expiry, deadline(sent, lifetime));
    }

    /// Whatever was under way or there is gone.
    fn fail(&mut self, cause: Cause) {
        match self.state {
            State::Ended | State::Idle => {}
            State::Allocating(_) => self.end(Event::AllocateFailed {
                cause,
                retry_after: None,
                fresh_address: false,
                alternate: None,
            }),
            State::Active { .. } => self.end(Event::AllocationLost { cause }),
            State::Deleting => self.end(Event::Closed),
        }
    }

    fn end(&mut self, event: Event) {
        self.forget();
        self.state = State::Ended;
        self.events.push_back(event);
    }

    /// Drops everything that is under way.
    fn forget(&mut self) {
        self.transactions = Transactions::new(self.config.retransmit, MAX_TRANSACTIONS);
        self.timers = Timers::new();
        self.permissions.clear();
        self.channels.clear();
        self.keep_alive_due = false;
    }
}

#[cfg(test)]
mod tests;
