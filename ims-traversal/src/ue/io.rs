//! What goes in and out of a UE: bytes, datagrams, time, and what follows from them.

use core::net::SocketAddr;

use alloc::boxed::Box;
use alloc::vec::Vec;

use ice_proto::ComponentId;
use sip_outbound::FlowId;
use stun_proto::{FiveTuple, Instant, Received, Transmit};

use super::socket::Owner;
use super::{CallMedia, MediaId, Phase, Ue, UeAction, UeConn, UeEvent};
use crate::ConnFailure;
use crate::access::AccessEvent;
use crate::media::{Media, SendError};

impl Ue {
    /// The host has made a TCP connection.
    pub fn connected(&mut self, now: Instant, conn: UeConn, local: SocketAddr, remote: SocketAddr) {
        let now = self.clock.advance(now);
        match conn {
            UeConn::Control(conn) => self.access.connected(now, conn, local, remote),
            UeConn::Media(id, conn) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    entry.media.connected(now, conn, local, remote);
                }
            }
        }
        self.settle(now);
    }

    /// The host could not make a TCP connection, or one it had made broke.
    pub fn connection_failed(&mut self, now: Instant, conn: UeConn, failure: ConnFailure) {
        let now = self.clock.advance(now);
        match conn {
            UeConn::Control(conn) => self.access.connection_failed(now, conn, failure),
            UeConn::Media(id, conn) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    entry.media.connection_failed(now, conn, failure);
                }
            }
        }
        self.settle(now);
    }

    /// The other side has closed its half of a TCP connection.
    pub fn handle_eof(&mut self, now: Instant, conn: UeConn) {
        let now = self.clock.advance(now);
        match conn {
            UeConn::Control(conn) => self.access.handle_eof(now, conn),
            UeConn::Media(id, conn) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    entry.media.handle_eof(now, conn);
                }
            }
        }
        self.settle(now);
    }

    /// Takes in bytes of a TCP connection; then [`poll_received`](Self::poll_received) has the
    /// media that were in them.
    pub fn handle_input(&mut self, now: Instant, conn: UeConn, data: &[u8]) {
        let now = self.clock.advance(now);
        match conn {
            UeConn::Control(conn) => self.access.handle_input(now, conn, data),
            UeConn::Media(id, conn) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    entry.media.handle_input(now, conn, data);
                    self.receiving = Some(id);
                }
            }
        }
        self.settle(now);
    }

    /// The next unit of media that came on a TCP connection, `None` when there is none: to be
    /// called until then after [`handle_input`](Self::handle_input). Media are not copied.
    pub fn poll_received(&mut self, now: Instant) -> Option<Received<'_, CallMedia>> {
        let now = self.clock.advance(now);
        let id = self.receiving?;
        let entry = self.media.get_mut(&id)?;
        let received = entry.media.poll_received(now)?;
        Some(of_call(id, received))
    }

    /// Takes in a datagram that came on one of the sockets. Media are a part of it.
    pub fn handle_datagram<'d>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'d [u8],
    ) -> Received<'d, CallMedia> {
        let now = self.clock.advance(now);
        let id = match self.sockets.owner_at(at.local) {
            None => return Received::NotMine,
            Some(Owner::Control(_)) => {
                let received = match self.access.handle_datagram(now, at, data) {
                    Received::NotMine => Received::NotMine,
                    Received::Consumed | Received::Data { .. } => Received::Consumed,
                };
                self.settle(now);
                return received;
            }
            Some(Owner::Host(id, _) | Owner::Relay(id, _)) => id,
        };
        let Some(entry) = self.media.get_mut(&id) else {
            return Received::NotMine;
        };
        let received = of_call(id, entry.media.handle_datagram(now, at, data));
        self.settle(now);
        received
    }

    /// A hard ICMP error came for a datagram of media.
    pub fn handle_icmp_error(&mut self, now: Instant, at: FiveTuple) {
        let now = self.clock.advance(now);
        let owner = self.sockets.owner_at(at.local);
        if let Some(Owner::Host(id, _) | Owner::Relay(id, _)) = owner
            && let Some(entry) = self.media.get_mut(&id)
        {
            entry.media.handle_icmp_error(now, at);
        }
        self.settle(now);
    }

    /// The host's tunnel is up: [`Access::tunnel_opened`](crate::access::Access::tunnel_opened).
    pub fn tunnel_opened(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        self.access.tunnel_opened(now, flow);
        self.settle(now);
    }

    /// The host has no tunnel.
    pub fn tunnel_failed(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        self.access.tunnel_failed(now, flow);
        self.settle(now);
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.access.handle_timeout(now);
        self.calls.handle_timeout(now, self.access.agent_mut());
        while let Some(call) = self.timers.expired(now) {
            self.try_again(now, call);
        }
        for entry in self.media.values_mut() {
            if entry.media.poll_timeout().is_some_and(|at| at <= now) {
                entry.media.handle_timeout(now);
            }
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, once nothing is left to be
    /// polled.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let until = match self.phase {
            Phase::Ending { until } => until,
            Phase::Idle | Phase::Running | Phase::Leaving | Phase::Stopped => None,
        };
        let media = self.media.values().map(|entry| entry.media.poll_timeout());
        [
            until,
            self.access.poll_timeout(),
            self.calls.poll_timeout(),
            self.timers.next(),
        ]
        .into_iter()
        .chain(media)
        .flatten()
        .min()
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<UeAction> {
        self.settle(self.clock.now());
        self.actions.pop_front()
    }

    /// What the application wants to know next.
    pub fn poll_event(&mut self) -> Option<UeEvent> {
        self.settle(self.clock.now());
        self.events.pop_front()
    }

    /// Writes the next datagram into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the datagram, at most [`MAX_TRANSMIT`](super::MAX_TRANSMIT): the
    /// host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<FiveTuple>> {
        if let Some(sent) = self.access.poll_datagram(buf) {
            return Some(sent);
        }
        self.media
            .values_mut()
            .find_map(|entry| entry.media.poll_transmit(buf))
    }

    /// The TCP connections that have bytes to send, once [`poll_transmit`](Self::poll_transmit) is
    /// `None`.
    pub fn writable(&self) -> impl Iterator<Item = UeConn> {
        let media = self.media.iter().flat_map(|(id, entry)| {
            let conns = entry.media.writable();
            conns.map(|conn| UeConn::Media(*id, conn))
        });
        self.access.writable().map(UeConn::Control).chain(media)
    }

    /// Fills `buf`, of any size, with bytes for a TCP connection; how many.
    pub fn poll_conn(&mut self, conn: UeConn, buf: &mut [u8]) -> Option<usize> {
        match conn {
            UeConn::Control(conn) => self.access.poll_conn(conn, buf),
            UeConn::Media(id, conn) => self.media.get_mut(&id)?.media.poll_conn(conn, buf),
        }
    }

    /// Puts a payload for the other side of a call into `buf`, with what a relay wants around it.
    /// `None` when it went into a connection, to be had by [`poll_conn`](Self::poll_conn).
    ///
    /// # Errors
    /// [`SendError`]; the payload is dropped then, which media bear.
    pub fn send(
        &mut self,
        now: Instant,
        to: CallMedia,
        payload: &[u8],
        buf: &mut [u8],
    ) -> Result<Option<Transmit<FiveTuple>>, SendError> {
        let now = self.clock.advance(now);
        let leg = self.legs.get(&to.call);
        let entry = leg.and_then(|leg| self.media.get_mut(&leg.media));
        let no_route = SendError::Ice(ice_proto::SendError::NoRoute);
        let entry = entry.ok_or(no_route)?;
        entry.media.send(now, to.component, payload, buf)
    }

    /// Moves events and actions between control, calls and media until nothing moves any more.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(event) = self.access.poll_event() {
                idle = false;
                self.access_event(now, event);
            }
            while let Some(event) = self.calls.poll_event() {
                idle = false;
                self.call_event(now, event);
            }
            while let Some(action) = self.access.poll_action() {
                self.access_action(action);
            }
            let ids: Vec<_> = self.media.keys().copied().collect();
            for id in ids {
                while let Some(action) = self.media_of(id).and_then(Media::poll_action) {
                    self.media_action(id, action);
                }
                while let Some(event) = self.media_of(id).and_then(Media::poll_event) {
                    idle = false;
                    self.media_event(now, id, event);
                }
            }
            idle &= !self.leave(now);
            if idle {
                break;
            }
        }
    }

    fn media_of(&mut self, id: MediaId) -> Option<&mut Media> {
        self.media.get_mut(&id).map(|entry| &mut entry.media)
    }

    fn access_event(&mut self, now: Instant, event: AccessEvent) {
        if let AccessEvent::Agent(event) = event {
            let agent = self.access.agent_mut();
            if let Some(event) = self.calls.handle_event(now, agent, event) {
                self.agent_event(now, event);
            }
        } else {
            self.events.push_back(UeEvent::Access(Box::new(event)));
        }
    }

    /// When stopping: takes the next step if this one is done or has taken too long; whether it
    /// was.
    fn leave(&mut self, now: Instant) -> bool {
        let Phase::Ending { until } = self.phase else {
            return false;
        };
        let done = self.calls.is_empty() && self.media.is_empty();
        if !done && until.is_some_and(|until| now < until) {
            return false;
        }
        self.phase = Phase::Leaving;
        self.access.stop(now);
        true
    }

    /// Everything is over.
    pub(super) fn stopped(&mut self, now: Instant) {
        // The ends of the calls come first: nothing follows the last event.
        while let Some(event) = self.calls.poll_event() {
            self.call_event(now, event);
        }
        self.phase = Phase::Stopped;
        let ids: Vec<_> = self.media.keys().copied().collect();
        ids.into_iter().for_each(|id| self.forget_media(id));
        self.events.push_back(UeEvent::Stopped);
    }
}

fn of_call(id: MediaId, received: Received<'_, ComponentId>) -> Received<'_, CallMedia> {
    match received {
        Received::NotMine => Received::NotMine,
        Received::Consumed => Received::Consumed,
        Received::Data {
            peer: component,
            data,
        } => Received::Data {
            peer: CallMedia {
                call: id.call,
                component,
            },
            data,
        },
    }
}
