//! Application data: no queue, no copy, no allocation (RFC 8656 sections 11 and 12).

use core::net::SocketAddr;
use core::ops::Range;

use stun_proto::wire::Message;
use stun_proto::{Instant, Path, Received, Transmit};

use super::dispatch::plain;
use super::{Client, Core, Event, RelayProtocol, SendError, State};
use crate::data::DataHeader;
use crate::wire::{self, Channel, ChannelData, Data, Icmp, XorPeerAddress};

/// The longest payload of a UDP datagram over IPv4.
const MAX_DATAGRAM: usize = 65_507;

impl Client {
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
        let now = self.core.clock.advance(now);
        self.core.send_header(now, plain(peer), len)
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
    /// What stands around `len` bytes for `peer`, and where they go.
    pub(super) fn send_header(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        len: usize,
    ) -> Result<(Path, DataHeader), SendError> {
        let State::Active(allocation) = &self.state else {
            return Err(SendError::NoAllocation);
        };
        let udp = allocation.options.protocol == RelayProtocol::Udp;
        if !udp || self.down || !allocation.is_live(now) {
            return Err(SendError::NoAllocation);
        }
        if !self.permissions.is_live(now, peer.ip()) {
            return Err(SendError::NoPermission);
        }
        if len > MAX_DATAGRAM {
            return Err(SendError::TooLong);
        }
        let channel = self.channels.bound(now, peer);
        let header = match channel.filter(|_| !self.dont_fragment) {
            Some(channel) => DataHeader::channel(channel, len, self.link.transport.is_stream()),
            None => {
                let id = self.rng.transaction_id();
                DataHeader::indication(wire::SEND, id, peer, len, self.dont_fragment)
            }
        };
        let header = header.ok_or(SendError::TooLong)?;
        let whole = header
            .as_bytes()
            .len()
            .saturating_add(len)
            .saturating_add(header.padding());
        if matches!(self.link.path, Path::Datagram(_)) && whole > MAX_DATAGRAM {
            return Err(SendError::TooLong);
        }
        self.life.sent = now;
        Ok((self.link.path, header))
    }

    /// ChannelData that came as a datagram.
    pub(super) fn channel_datagram<'a>(&mut self, now: Instant, bytes: &'a [u8]) -> Received<'a> {
        match ChannelData::parse(bytes) {
            Some(ChannelData { channel, data }) => self.channel_data(now, channel, data),
            None => {
                self.count_dropped();
                Received::Consumed
            }
        }
    }

    pub(super) fn channel_data<'a>(
        &mut self,
        now: Instant,
        channel: Channel,
        data: &'a [u8],
    ) -> Received<'a> {
        let from = self.channels.peer_of(now, channel).filter(|_| {
            // While the allocation is given back nothing is delivered.
            matches!(self.state, State::Active(_))
        });
        match from {
            // Data may overtake the answer that confirms the channel.
            Some((peer, confirmed)) if !confirmed || self.permissions.is_live(now, peer.ip()) => {
                Received::Data { peer, data }
            }
            Some(_) | None => {
                self.count_not_permitted();
                Received::Consumed
            }
        }
    }

    /// A Data indication.
    pub(super) fn data<'a>(&mut self, now: Instant, message: &Message<'a>) -> Received<'a> {
        let known = |ty| {
            <XorPeerAddress as stun_proto::wire::Attribute<'_>>::TYPE == ty
                || <Data<'_> as stun_proto::wire::Attribute<'_>>::TYPE == ty
        };
        let understood = message.unknown_required(known).next().is_none();
        let peer = message.find::<XorPeerAddress>().filter(|_| understood);
        let Some(XorPeerAddress(peer)) = peer else {
            self.count_dropped();
            return Received::Consumed;
        };
        if !matches!(self.state, State::Active(_)) || !self.permissions.is_live(now, peer.ip()) {
            self.count_not_permitted();
            return Received::Consumed;
        }
        if let Some(icmp) = message.find::<Icmp>() {
            if self.events.len() < self.config.max_events {
                self.tell(Event::Icmp { peer, icmp });
            } else {
                self.count_dropped();
            }
            return Received::Consumed;
        }
        match message.find() {
            Some(Data(data)) => Received::Data { peer, data },
            None => {
                self.count_dropped();
                Received::Consumed
            }
        }
    }

    pub(super) const fn count_dropped(&mut self) {
        self.stats.dropped = self.stats.dropped.saturating_add(1);
    }

    pub(super) const fn count_not_permitted(&mut self) {
        self.stats.not_permitted = self.stats.not_permitted.saturating_add(1);
    }
}
