//! What goes out: over streams as they can take it, datagrams one by one.

use bytes::Bytes;
use stun_proto::{FiveTuple, Path, StreamId, Transmit};

use super::{EdgeEvent, EdgeFlowEnd, EdgeProxy, Side};
use crate::Instant;
use crate::transaction::{ClientEvent, Outgoing, ServerEvent};
use crate::ua::FlowId;

impl EdgeProxy {
    pub(super) fn path(&self, flow: FlowId) -> Option<Path> {
        let at = self.flows.get(&flow)?.at?;
        Some(if at.transport.is_stream() {
            Path::Stream(StreamId(flow.0))
        } else {
            Path::Datagram(at)
        })
    }

    pub(super) fn push_datagram(&mut self, at: FiveTuple, bytes: Bytes) {
        if self.datagrams.len() >= self.config.max_datagrams {
            self.datagrams.pop_front();
        }
        self.datagrams.push_back((at, bytes));
    }

    pub(super) fn push(&mut self, now: Instant, flow: FlowId, bytes: Bytes) {
        let Some(entry) = self.flows.get_mut(&flow) else {
            return;
        };
        let Some(at) = entry.at else {
            return;
        };
        if !at.transport.is_stream() {
            self.push_datagram(at, bytes);
        } else if entry.out.push(bytes).is_err() {
            self.end_flow(now, flow, EdgeFlowEnd::Unsent);
        } else {
            let core = entry.side == Side::Core;
            self.ready.insert(flow);
            if core {
                self.touch(now, flow);
            }
        }
    }

    /// Takes in what the transactions have to say, and moves what they send to the flows.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.clients.poll_event() {
                match event {
                    ClientEvent::TimedOut(client) => self.branch_timed_out(now, client),
                    ClientEvent::Ended(client) => {
                        self.by_client.remove(&client);
                    }
                }
            } else if let Some(event) = self.servers.poll_event() {
                match event {
                    ServerEvent::NoAck(_) | ServerEvent::Abandoned(_) => {}
                    ServerEvent::Ended(server) => {
                        if let Some(context) = self.contexts.remove(&server) {
                            self.calling.remove(&(context.source, server));
                        }
                    }
                }
            } else if let Some(outgoing) = self
                .clients
                .poll_transmit()
                .or_else(|| self.servers.poll_transmit())
            {
                self.pass_on(now, outgoing);
            } else {
                return;
            }
        }
    }

    fn pass_on(&mut self, now: Instant, Outgoing { path, bytes }: Outgoing) {
        match path {
            Path::Datagram(at) => self.push_datagram(at, bytes),
            Path::Stream(StreamId(id)) if self.flows.contains_key(&FlowId(id)) => {
                self.push(now, FlowId(id), bytes);
            }
            // Nobody connects back to a client behind a NAT.
            Path::Stream(StreamId(id)) => self
                .events
                .push_back(EdgeEvent::ResponseLost { flow: FlowId(id) }),
        }
    }

    /// The streams that have something to send.
    pub fn writable(&self) -> impl Iterator<Item = FlowId> {
        self.ready.iter().copied().chain(self.leftovers.flows())
    }

    /// Writes the next datagram, or what any stream has to send, into `buf`. A stream is named by
    /// the number of its flow. Hosts whose connections can be full ask by
    /// [`poll_datagram`](Self::poll_datagram) and [`poll_flow`](Self::poll_flow) instead, so that
    /// a slow one does not hold the others up.
    ///
    /// # Panics
    /// When `buf` is shorter than a datagram; [`MAX_TRANSMIT`](crate::MAX_TRANSMIT) fits all.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        if let Some(Transmit { to, len }) = self.poll_datagram(buf) {
            let to = Path::Datagram(to);
            return Some(Transmit { to, len });
        }
        let flow = self.writable().next()?;
        let len = self.poll_flow(flow, buf)?;
        let to = Path::Stream(StreamId(flow.0));
        Some(Transmit { to, len })
    }

    /// Writes the next datagram into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the datagram; [`MAX_TRANSMIT`](crate::MAX_TRANSMIT) fits all.
    pub fn poll_datagram(&mut self, buf: &mut [u8]) -> Option<Transmit<FiveTuple>> {
        let (to, bytes) = self.datagrams.pop_front()?;
        assert!(bytes.len() <= buf.len(), "transmit buffer too small");
        if let Some(slot) = buf.get_mut(..bytes.len()) {
            slot.copy_from_slice(&bytes);
        }
        let len = bytes.len();
        Some(Transmit { to, len })
    }

    /// Writes as much as fits of what this stream has to send into `buf`.
    pub fn poll_flow(&mut self, flow: FlowId, buf: &mut [u8]) -> Option<usize> {
        let Some(entry) = self.flows.get_mut(&flow) else {
            return self.leftovers.take(flow, buf);
        };
        let len = entry.out.take_stream(buf);
        if entry.out.is_empty() {
            self.ready.remove(&flow);
        }
        (len > 0).then_some(len)
    }
}
