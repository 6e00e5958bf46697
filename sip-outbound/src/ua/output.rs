//! What goes out, flow by flow.

use bytes::Bytes;
use stun_proto::Transmit;

use super::flow::Link;
use super::{FlowFailure, FlowId, Timer, UserAgent, UserAgentEvent};
use crate::Instant;
use crate::transaction::{ClientEvent, Outgoing, ServerEvent};

impl UserAgent {
    /// Queues bytes for a flow; one that takes nothing any more has failed.
    pub(super) fn push(&mut self, now: Instant, flow: FlowId, bytes: Bytes) {
        let full = match self.open_mut(flow) {
            None => return,
            Some(open) => open.out.push(bytes).is_err(),
        };
        if full {
            self.fail_flow(now, flow, FlowFailure::Unsent);
        } else {
            self.watch_unsent(now, flow);
        }
    }

    /// Bytes were pushed, or taken by the host: the oldest ones may not wait for ever.
    fn watch_unsent(&mut self, now: Instant, flow: FlowId) {
        let limit = self.config.max_unsent_age;
        let Some(open) = self.open_mut(flow) else {
            return;
        };
        if open.oldest.is_some_and(|mark| !open.out.is_past(mark)) {
            return;
        }
        let waits = !open.out.is_empty();
        open.oldest = waits.then(|| open.out.mark());
        if waits {
            self.timers.arm(Timer::Unsent(flow), now, limit);
        } else {
            self.timers.disarm(Timer::Unsent(flow));
        }
    }

    /// Takes in what the transactions have to say, and moves what they send to the flows.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.clients.poll_event() {
                match event {
                    ClientEvent::TimedOut(id) => self.client_timed_out(now, id),
                    ClientEvent::Ended(id) => self.client_ended(id),
                }
            } else if let Some(event) = self.servers.poll_event() {
                match event {
                    ServerEvent::NoAck(id) => self.events.push_back(UserAgentEvent::NoAck { id }),
                    ServerEvent::Abandoned(_) | ServerEvent::Ended(_) => {}
                }
            } else if let Some(Outgoing { path, bytes }) = self
                .clients
                .poll_transmit()
                .or_else(|| self.servers.poll_transmit())
            {
                if let Some(flow) = self.flow_of(path) {
                    self.push(now, flow, bytes);
                }
            } else {
                return;
            }
        }
    }

    /// The flows that have something to send.
    pub fn writable(&self) -> impl Iterator<Item = FlowId> {
        self.flows
            .values()
            .filter(|flow| flow.open.as_ref().is_some_and(|open| !open.out.is_empty()))
            .map(|flow| flow.id)
            .chain(self.leftovers.flows())
    }

    /// Writes what any flow has to send into `buf`; see [`poll_flow`](Self::poll_flow).
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit<FlowId>> {
        let flow = self.writable().next()?;
        let len = self.poll_flow(flow, buf)?;
        Some(Transmit { to: flow, len })
    }

    /// Writes what this flow has to send into `buf`: on a stream as much as fits, on a datagram
    /// flow one datagram. Hosts whose sockets can be full ask flow by flow, so that a slow one
    /// does not hold the others up.
    ///
    /// # Panics
    /// On a datagram flow when `buf` is shorter than the datagram, see [`MAX_TRANSMIT`](crate::MAX_TRANSMIT).
    pub fn poll_flow(&mut self, flow: FlowId, buf: &mut [u8]) -> Option<usize> {
        if !self.flows.contains_key(&flow) {
            return self.leftovers.take(flow, buf);
        }
        let open = self.open_mut(flow)?;
        let len = match open.link {
            Link::Stream(_) => Some(open.out.take_stream(buf)).filter(|len| *len > 0),
            Link::Datagram { .. } => open.out.take_datagram(buf),
        }?;
        self.ping_taken(flow);
        let now = self.clock.now();
        if let Some(open) = self.open_mut(flow) {
            open.active = now;
        }
        self.watch_unsent(now, flow);
        Some(len)
    }
}
