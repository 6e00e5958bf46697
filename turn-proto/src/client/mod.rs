//! The client (RFC 8656): one allocation over one five-tuple or stream.
//!
//! ```text
//! Idle -allocate-> Allocating --Allocated--> Active -close-> Deleting --Closed--> Ended
//!                      |                        |                                   ^
//!                      +---AllocateFailed-------+----------AllocationLost-----------+
//! ```
//! Events in capitals; the last one is terminal: afterwards the client says nothing any more, and
//! a new one is made for the next attempt, from another local port. [`Servers`] remembers meanwhile
//! what was learned about a server: how long to leave it alone, and where redirects may lead.
//!
//! # What happens by itself
//! - The challenge is answered, a stale nonce renewed; one new nonce serves all requests under way.
//! - The allocation is refreshed a minute before its end, permissions after 240 s in batches,
//!   channels after 480 s. What fails is tried again with pauses from 5 s to a minute, but for
//!   peers the server forbids; a refresh of the allocation until that has ended.
//! - A channel keeps its number for as long as the server may know it by that, and 300 s more.
//! - A silent datagram path is kept open every 25 s, and every second time with a Refresh, whose
//!   answer proves that the server still knows this client by the address it has: a NAT may have
//!   given it another one.
//! - A stream on which nothing comes for 10 s is asked for life with a Refresh; one that stays
//!   silent for another 15 s is dead, and so is the allocation.
//!
//! # What the host does
//! - A new password for the same user is handed in with [`Client::set_password`]; another user
//!   needs another client.
//! - To race paths (RFC 8305), make one client for each and let them
//!   [stop at the challenge](AllocateOptions::stop_at_challenge): the first that is challenged goes
//!   on, the others are closed.
//! - After a hard ICMP error ([`Client::handle_icmp_error`]) requests fail at once; a host that does
//!   not believe them does not hand them in.
//! - Data to peers without permission is an error; queueing it is up to who sends it.
//!
//! ```
//! use stun_proto::{FiveTuple, Instant, Received};
//! use turn_proto::client::{Action, Client, Event, MAX_TRANSMIT};
//!
//! /// What a host does after each input; then it waits for the next, or for the deadline.
//! fn drive(client: &mut Client, mut send: impl FnMut(&[u8])) -> Option<Instant> {
//!     let mut buf = [0; MAX_TRANSMIT];
//!     while let Some(transmit) = client.poll_transmit(&mut buf) {
//!         send(&buf[..transmit.len]); // to `transmit.to`
//!     }
//!     while let Some(action) = client.poll_action() {
//!         match action {
//!             Action::OpenStream { connection } => { let _ = connection; } // see RFC 6062
//!             Action::CloseStream { id } => { let _ = id; }
//!             _ => {}
//!         }
//!     }
//!     while let Some(event) = client.poll_event() {
//!         match event {
//!             Event::Allocated { relayed, .. } => { let _ = relayed; } // tell the peers
//!             Event::AllocateFailed { cause, retry_after, .. } => { let _ = (cause, retry_after); }
//!             Event::AllocationLost { .. } | Event::Closed => {}
//!             _ => {}
//!         }
//!     }
//!     client.poll_timeout()
//! }
//!
//! /// What it does with a datagram.
//! fn datagram(client: &mut Client, now: Instant, at: FiveTuple, bytes: &[u8]) {
//!     match client.handle_datagram(now, at, bytes) {
//!         Received::Data { peer, data } => { let _ = (peer, data); } // for the application
//!         Received::Consumed => {}
//!         Received::NotMine => {} // ICE, DTLS, QUIC ... on the same socket
//!     }
//! }
//! ```

mod allocation;
mod channels;
mod config;
mod connections;
mod dispatch;
mod mobility;
mod path;
mod permissions;
mod relay;
mod requests;
mod servers;

use core::net::{IpAddr, SocketAddr};

use alloc::collections::BTreeMap;

use stun_proto::auth::Secret;
use stun_proto::framing::{Deframer, Next, Unit};
use stun_proto::wire::{Key, Message, MessageType, Method, Writer};
use stun_proto::{FiveTuple, Instant, Path, Received, StreamId, Transmit, Transport};
use zeroize::Zeroizing;

pub use self::config::{
    Action, AllocateOptions, Cause, ClientConfig, ClientError, Event, Redirects, SendError, Stats,
    UnprotectedErrors,
};
pub use self::connections::Connection;
use self::dispatch::{Core, Link, State, Timer, backoff, plain};
use self::requests::Request;
pub use self::servers::Servers;
pub use crate::data::RelayProtocol;
use crate::wire::{AddressFamily, Channel};

/// The longest request of a client; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = 1280;

/// A unit on a stream: ChannelData with 65,535 bytes and its padding.
const MAX_UNIT: usize = 65_535 + 4 + 3;

/// The same before there is an allocation.
const MAX_FIRST_UNIT: usize = 8192;

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
    /// Apart from the rest, because data may be borrowed from them.
    deframers: BTreeMap<StreamId, Deframer>,
}

impl Client {
    /// A client without allocation. `path` leads to the server, over `transport`; `seed` must come
    /// from a cryptographic source.
    ///
    /// A path that was used before may still have an allocation at the server: take a fresh local
    /// port for each client (RFC 8656 section 7.1).
    pub fn new(
        config: ClientConfig,
        path: Path,
        transport: Transport,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut deframers = BTreeMap::new();
        if let Path::Stream(id) = path {
            deframers.insert(id, Deframer::stun_only(MAX_FIRST_UNIT));
        }
        Self {
            core: Core::new(config, Link { path, transport }, seed, now),
            deframers,
        }
    }

    /// Asks for a relayed address: [`Event::Allocated`] or [`Event::AllocateFailed`] follows.
    ///
    /// # Errors
    /// [`ClientError::State`] unless this is the first command, [`ClientError::Options`].
    pub fn allocate(&mut self, now: Instant, options: AllocateOptions) -> Result<(), ClientError> {
        let core = &mut self.core;
        if !matches!(core.state, State::Idle) {
            return Err(ClientError::State);
        }
        options.check(core.link.path)?;
        let now = core.clock.advance(now);
        core.state = State::Allocating {
            options,
            held: false,
            closing: false,
        };
        core.start(now, Request::Allocate);
        Ok(())
    }

    /// Goes on after [`Event::Challenged`].
    ///
    /// # Errors
    /// [`ClientError::State`] when it has not stopped there.
    pub fn proceed(&mut self, now: Instant) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        if let State::Allocating { held, .. } = &mut self.core.state
            && core::mem::take(held)
        {
            self.core.start(now, Request::Allocate);
            return Ok(());
        }
        Err(ClientError::State)
    }

    /// The server the token is to be for, after [`Event::TokenNeeded`] (RFC 7635 section 4).
    pub fn token_server(&self) -> Option<&str> {
        self.core.token_server.as_deref()
    }

    /// Authenticates with a token from now on: `kid` and `mac_key` are what the authorization server
    /// gave to the client, `token` is what it made for the TURN server, in binary form. Goes on
    /// where [`Event::TokenNeeded`] stopped; a new token in time keeps the allocation alive.
    ///
    /// # Errors
    /// [`ClientError::State`] when the client is closing or has ended, or when the allocation was
    /// made with credentials: it stays with them.
    pub fn set_token(
        &mut self,
        now: Instant,
        kid: &str,
        mac_key: &[u8],
        token: &[u8],
    ) -> Result<(), ClientError> {
        let core = &mut self.core;
        let now = core.clock.advance(now);
        let possible = match core.state {
            State::Idle | State::Allocating { .. } => true,
            State::Active(_) => core.token.is_some(),
            State::Deleting(_) | State::Ended => false,
        };
        if !possible {
            return Err(ClientError::State);
        }
        core.auth.set_third_party_key(kid, Key::from_bytes(mac_key));
        core.token = Some(Zeroizing::new(token.to_vec()));
        let waits = core.transactions.is_empty() && core.token_server.is_some();
        match core.state {
            State::Allocating { .. } if waits => core.start(now, Request::Allocate),
            State::Active(_) => core.refresh(now),
            State::Idle | State::Allocating { .. } | State::Deleting(_) | State::Ended => {}
        }
        Ok(())
    }

    /// Another password for the same user name: every request from now on is made with it. To be
    /// told before the server stops accepting the old one, since an allocation whose refresh is
    /// rejected is lost. Another user name needs another allocation (RFC 8656 section 5).
    ///
    /// # Errors
    /// [`ClientError::State`] without credentials, with a token, or when the client has ended.
    pub fn set_password(&mut self, now: Instant, password: Secret) -> Result<(), ClientError> {
        let core = &mut self.core;
        core.clock.advance(now);
        let fixed = core.config.credentials.is_none() || core.token.is_some();
        if fixed || matches!(core.state, State::Ended) {
            return Err(ClientError::State);
        }
        core.auth.set_password(password);
        Ok(())
    }

    /// The name for the certificate of the server that [`Event::AllocateFailed`] redirects to; the
    /// name of the server so far when `None` (RFC 8489 section 10).
    pub fn alternate_domain(&self) -> Option<&str> {
        self.core.alternate_domain.as_deref()
    }

    /// Lets data flow between the relayed address and `peer`, any port, and keeps it so until it is
    /// released or the client closed. Asking again for what is there or under way does nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn create_permission(&mut self, now: Instant, peer: IpAddr) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.check_family(peer)?;
        self.core.create_permission(now, peer)
    }

    /// Stops refreshing a permission: it lapses by itself within 300 s.
    pub fn release_permission(&mut self, now: Instant, peer: IpAddr) {
        self.core.clock.advance(now);
        self.core.release_permission(peer);
    }

    /// Binds a channel to `peer`, which makes headers short, and keeps it until it is released or
    /// the client closed. Creates the permission as well.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn bind_channel(&mut self, now: Instant, peer: SocketAddr) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.check_family(peer.ip())?;
        if peer.port() == 0 {
            return Err(ClientError::Peer);
        }
        if self.core.is_for_tcp() {
            return Err(ClientError::State);
        }
        self.core.bind_channel(now, plain(peer))
    }

    /// Stops refreshing a channel: it lapses by itself within 600 s. Its permission stays.
    pub fn release_channel(&mut self, now: Instant, peer: SocketAddr) {
        let now = self.core.clock.advance(now);
        self.core.release_channel(now, plain(peer));
    }

    /// Whether data can be sent to `peer` now.
    pub fn is_permitted(&self, peer: IpAddr) -> bool {
        self.core.permissions.is_live(self.core.clock.now(), peer)
    }

    /// The channel that leads to `peer` now: for hosts that program a faster data path.
    pub fn channel_of(&self, peer: SocketAddr) -> Option<Channel> {
        let (now, peer) = (self.core.clock.now(), plain(peer));
        let permitted = self.core.permissions.is_live(now, peer.ip());
        self.core.channels.bound(now, peer).filter(|_| permitted)
    }

    /// Sends data that must not be fragmented from now on, always as Send indications, or stops it
    /// (RFC 8656 section 14).
    ///
    /// # Errors
    /// [`ClientError::State`] unless [`Event::Allocated`] said that it is possible.
    pub fn set_dont_fragment(&mut self, on: bool) -> Result<(), ClientError> {
        match &self.core.state {
            State::Active(allocation) if allocation.options.dont_fragment => {
                self.core.dont_fragment = on;
                Ok(())
            }
            State::Active(_)
            | State::Idle
            | State::Allocating { .. }
            | State::Deleting(_)
            | State::Ended => Err(ClientError::State),
        }
    }

    /// Asks the server at once whether the allocation is still there, and prolongs it if so:
    /// [`Event::Refreshed`] follows, or [`Event::RefreshFailed`], or [`Event::AllocationLost`] when
    /// the server knows of none. For hosts that have reason to doubt: another network, an ICE
    /// restart.
    ///
    /// # Errors
    /// [`ClientError::State`] without allocation, or without path to the server.
    pub fn refresh(&mut self, now: Instant) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.prove(now)
    }

    /// Gives one of two relayed addresses back: [`Event::FamilyReleased`] follows.
    ///
    /// # Errors
    /// [`ClientError::State`] unless there are two.
    pub fn release_family(
        &mut self,
        now: Instant,
        family: AddressFamily,
    ) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.release_family(now, family)
    }

    /// Takes the allocation to another path: [`Event::PathChanged`] or [`Event::PathChangeFailed`]
    /// follows, and until then the old path stays in use (RFC 8016).
    ///
    /// # Errors
    /// [`ClientError::State`] without ticket, or when the path is the one in use;
    /// [`ClientError::Options`] when it would show a private user name.
    pub fn path_changed(
        &mut self,
        now: Instant,
        path: Path,
        transport: Transport,
    ) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.path_changed(now, path, transport)?;
        if let Path::Stream(id) = path {
            let deframer = Deframer::stun_only(MAX_UNIT);
            self.deframers.entry(id).or_insert(deframer);
        }
        Ok(())
    }

    /// Connects the relayed address to `peer` over TCP: [`Action::OpenStream`] and then
    /// [`Event::ConnectionReady`] follow, or [`Event::ConnectionFailed`] (RFC 6062).
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect_peer(
        &mut self,
        now: Instant,
        peer: SocketAddr,
    ) -> Result<Connection, ClientError> {
        let now = self.core.clock.advance(now);
        self.core.check_family(peer.ip())?;
        self.core.connect_peer(now, plain(peer))
    }

    /// Accepts a peer's connection: goes on as [`connect_peer`](Self::connect_peer).
    ///
    /// # Errors
    /// [`ClientError::State`] when there is no such attempt, or no longer.
    pub fn accept(&mut self, now: Instant, connection: Connection) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.accept(now, connection)
    }

    /// Leaves a peer's connection alone: the server drops it.
    ///
    /// # Errors
    /// [`ClientError::State`] when there is no such attempt, or no longer.
    pub fn ignore(&mut self, now: Instant, connection: Connection) -> Result<(), ClientError> {
        self.core.clock.advance(now);
        self.core.ignore(connection)
    }

    /// The stream that [`Action::OpenStream`] asked for is there.
    ///
    /// # Errors
    /// [`ClientError::State`] when it is not wanted any more: close it.
    pub fn handle_stream_opened(
        &mut self,
        now: Instant,
        connection: Connection,
        id: StreamId,
    ) -> Result<(), ClientError> {
        let now = self.core.clock.advance(now);
        self.core.stream_opened(now, connection, id)?;
        self.deframers
            .insert(id, Deframer::stun_only(MAX_FIRST_UNIT));
        Ok(())
    }

    /// The stream that [`Action::OpenStream`] asked for could not be opened.
    pub fn handle_stream_failed(&mut self, now: Instant, connection: Connection) {
        let now = self.core.clock.advance(now);
        self.core
            .connection_failed(now, connection, Cause::StreamClosed);
    }

    /// Gives the allocation back: [`Event::Closed`] follows, at once if there is none.
    pub fn close(&mut self, now: Instant) {
        let now = self.core.clock.advance(now);
        self.core.close(now);
    }

    /// Takes in a datagram from the server.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a> {
        let core = &mut self.core;
        let path = Path::Datagram(at);
        if !core.transport_known(path) {
            return Received::NotMine;
        }
        core.heard(now, path);
        let relays = matches!(core.state, State::Active(_) | State::Deleting(_));
        if relays && data.first().is_some_and(|byte| byte >> 4 == 4) {
            let now = core.clock.advance(now);
            return core.channel_datagram(now, data);
        }
        match Message::parse(data) {
            Ok(message) => {
                let advanced = now.max(core.clock.now());
                core.message(advanced, path, &message)
            }
            Err(_) => Received::NotMine,
        }
    }

    /// Takes the next unit from `input` and advances it. Call it until `input` is empty. All of
    /// `input` is taken in when the stream is not the client's any more.
    ///
    /// Once [`Event::ConnectionReady`] names the stream, its bytes come back as they are.
    pub fn handle_stream<'s, 'i: 's>(
        &'s mut self,
        now: Instant,
        id: StreamId,
        input: &mut &'i [u8],
    ) -> Received<'s> {
        let core = &mut self.core;
        let path = Path::Stream(id);
        if let Some(peer) = core.connections.open_peer(id) {
            core.clock.advance(now);
            let data = core::mem::take(input);
            return Received::Data { peer, data };
        }
        let deframer = self.deframers.get_mut(&id);
        let Some(deframer) = deframer.filter(|_| core.transport_known(path)) else {
            *input = &[];
            return Received::NotMine;
        };
        let now = core.clock.advance(now);
        core.heard(now, path);
        let relays = matches!(core.state, State::Active(_) | State::Deleting(_));
        if relays && !core.connections.has_stream(id) {
            deframer.set_limit(MAX_UNIT);
            deframer.set_channels(true);
        }
        let next = deframer.next(input);
        core.note_partial(now, path, matches!(next, Ok(Next::Partial)));
        let violation = match next {
            Ok(Next::Unit(Unit::ChannelData { channel, data })) => {
                let Some(channel) = Channel::new(channel) else {
                    core.count_not_permitted();
                    return Received::Consumed;
                };
                return core.channel_data(now, channel, data);
            }
            Ok(Next::Unit(Unit::Message(bytes))) => match Message::parse(bytes) {
                Ok(message) => {
                    let received = core.message(now, path, &message);
                    if received == Received::NotMine {
                        core.count_dropped();
                        return Received::Consumed;
                    }
                    return received;
                }
                Err(_) => Cause::Malformed,
            },
            Ok(Next::Partial | Next::Nothing) => return Received::Consumed,
            Err(error) => Cause::Framing(error),
        };
        *input = &[];
        core.violated(now, id, violation);
        Received::Consumed
    }

    /// The stream is closed, by whichever side.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        let now = self.core.clock.advance(now);
        self.deframers.remove(&id);
        self.core.stream_closed(now, id);
        self.core.pump(now);
    }

    /// A hard ICMP error came for a datagram to the server: the requests under way have failed.
    pub fn handle_icmp_error(&mut self, now: Instant) {
        let now = self.core.clock.advance(now);
        let path = self.core.link.path;
        for ended in self.core.transactions.fail_path(path) {
            self.core.failed(now, ended.context, Cause::Unreachable);
        }
        self.core.pump(now);
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
        if core::mem::take(&mut core.keep_alive_due) && !core.down {
            let ty = MessageType::indication(Method::BINDING);
            let written = Writer::new(buf, ty, core.rng.transaction_id()).finish();
            assert!(written.is_ok(), "transmit buffer too small");
            let to = core.link.path;
            return written.ok().map(|len| Transmit { to, len });
        }
        let transmit = core.transactions.poll_transmit(buf);
        transmit.or_else(|| core.connects.poll_transmit(buf))
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.core.actions.pop_front()
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
            self.core.connects.poll_timeout(),
            self.core.partial_until,
        ];
        timers.into_iter().flatten().min()
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.core.stats
    }
}

#[cfg(test)]
mod tests;
