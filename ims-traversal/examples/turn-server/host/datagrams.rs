//! The data path over UDP: nothing is copied or allocated here.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use smallvec::SmallVec;
use stun_proto::{FiveTuple, Path, Received};
use turn_proto::DataHeader;
use turn_proto::server::{Forward, RelayId, RelayTo};
use turn_proto::wire::Icmp;

use super::account::Counts;
use super::udp::{BATCH, Parts, Pending, UdpSocket};
use super::worker::{Relay, Source, Worker};

/// Errors read from one socket before others have their turn.
const ERRORS: usize = 16;

/// Slots that must be free before a relay is read.
const FREE: usize = 8;

const PADDING: [u8; 3] = [0; 3];

/// Data for clients that waits in the slots to be sent from the listeners.
#[derive(Debug, Default)]
pub struct Outgoing(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    listener: usize,
    to: SocketAddr,
    header: DataHeader,
    slot: usize,
    start: usize,
    len: usize,
}

impl Entry {
    fn total(&self) -> usize {
        self.header.as_bytes().len() + self.len + self.header.padding()
    }

    fn parts<'a>(&'a self, slots: &'a [Box<[u8]>]) -> [IoSlice<'a>; 3] {
        let payload = slots
            .get(self.slot)
            .and_then(|slot| slot.get(self.start..self.start + self.len));
        let padding = PADDING.get(..self.header.padding());
        [
            IoSlice::new(self.header.as_bytes()),
            IoSlice::new(payload.unwrap_or_default()),
            IoSlice::new(padding.unwrap_or_default()),
        ]
    }
}

/// Datagrams of one client to one peer that came one after the other.
struct Run<'a> {
    to: Option<RelayTo>,
    parts: Parts<'a>,
    first: usize,
    /// A shorter one ends a run.
    ended: bool,
}

impl<'a> Run<'a> {
    fn new() -> Self {
        Self {
            to: None,
            parts: Parts::new(),
            first: 0,
            ended: false,
        }
    }

    fn push(
        &mut self,
        to: RelayTo,
        data: &'a [u8],
        relays: &mut HashMap<RelayId, Relay>,
        counts: &mut Counts,
    ) {
        let fits = self.to == Some(to)
            && !self.ended
            && UdpSocket::joins(self.parts.len(), self.first, data.len());
        if !fits {
            self.send(relays, counts);
            self.first = data.len();
            self.to = Some(to);
        }
        self.ended = data.len() < self.first || data.is_empty();
        self.parts.push(IoSlice::new(data));
    }

    fn send(&mut self, relays: &mut HashMap<RelayId, Relay>, counts: &mut Counts) {
        if let Some(to) = self.to.take()
            && let Some(Relay::Udp(socket)) = relays.get_mut(&to.relay)
        {
            socket.set_dont_fragment(to.dont_fragment);
            let failed = socket.send_run(to.peer, &self.parts, 1, self.first);
            counts.to_peers += (self.parts.len() - failed) as u64;
            counts.unsent += failed as u64;
        }
        self.parts.clear();
        self.ended = false;
    }
}

impl Worker {
    /// Clients have sent datagrams.
    pub(super) fn read_listener(&mut self, index: usize) {
        if self.used > 0 {
            self.send_outgoing();
        }
        let Some(listener) = self.listeners.get(index) else {
            return;
        };
        let local = listener.local();
        let received = match listener.receive(&mut self.slots, &mut self.metas) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Something about an earlier datagram.
            Err(_) => return self.again.push(Source::Udp(index)),
        };
        // An edge comes only when more arrives; a full batch may have left some.
        if received == BATCH {
            self.again.push(Source::Udp(index));
        }
        let mut run = Run::new();
        let mut answers = false;
        for (slot, meta) in self.slots.iter().zip(&self.metas).take(received) {
            let at = FiveTuple::udp(local, meta.addr);
            let whole = slot.get(..meta.len).unwrap_or_default();
            for datagram in whole.chunks(meta.stride.max(1)) {
                self.counts.from_clients += 1;
                match self.server.handle_datagram(self.now, at, datagram) {
                    Received::Data { peer, data } => {
                        run.push(peer, data, &mut self.relays, &mut self.counts);
                    }
                    Received::Consumed => answers = true,
                    Received::NotMine => {}
                }
            }
        }
        run.send(&mut self.relays, &mut self.counts);
        drop(run);
        if answers {
            self.drain();
        }
    }

    /// Peers have sent datagrams.
    pub(super) fn read_relay(&mut self, relay: RelayId) {
        if self.slots.len() - self.used < FREE {
            self.send_outgoing();
        }
        let Some(Relay::Udp(socket)) = self.relays.get(&relay) else {
            return;
        };
        let first = self.used;
        let free = self.slots.get_mut(first..).unwrap_or_default();
        let asked = free.len().min(BATCH);
        let received = match socket.receive(free, &mut self.metas) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                self.again.push(Source::Relay(relay));
                return self.read_errors(relay);
            }
        };
        if received == asked {
            self.again.push(Source::Relay(relay));
        }
        for offset in 0..received {
            let Some(meta) = self.metas.get(offset).copied() else {
                break;
            };
            let stride = meta.stride.max(1);
            let mut start = 0;
            // An empty datagram is one as well.
            loop {
                let len = stride.min(meta.len - start);
                self.counts.from_peers += 1;
                let forward = self.server.handle_relay(self.now, relay, meta.addr, len);
                if let Some(forward) = forward {
                    self.forward(forward, first + offset, start, len);
                }
                start += len;
                if start >= meta.len {
                    break;
                }
            }
        }
        self.used += received;
    }

    fn forward(&mut self, forward: Forward, slot: usize, start: usize, len: usize) {
        let Forward { to, header } = forward;
        match to {
            Path::Datagram(at) => {
                let listener = self.listeners.iter().position(|l| l.local() == at.local);
                let Some(listener) = listener else { return };
                self.outgoing.0.push(Entry {
                    listener,
                    to: at.remote,
                    header,
                    slot,
                    start,
                    len,
                });
            }
            Path::Stream(id) => {
                let payload = self
                    .slots
                    .get(slot)
                    .and_then(|slot| slot.get(start..start + len));
                let padding = PADDING.get(..header.padding()).unwrap_or_default();
                let parts = [header.as_bytes(), payload.unwrap_or_default(), padding];
                let Some(client) = self.clients.get_mut(&id) else {
                    return;
                };
                if client.write_data(&parts) {
                    self.counts.to_clients += 1;
                } else {
                    self.counts.dropped += 1;
                }
            }
        }
    }

    /// Sends what waits for clients: runs of equal datagrams as one, the others many at a time.
    pub(super) fn send_outgoing(&mut self) {
        let Self {
            outgoing,
            slots,
            listeners,
            counts,
            ..
        } = self;
        let mut entries = outgoing.0.as_slice();
        while let Some(first) = entries.first() {
            let same = |entry: &Entry| entry.listener == first.listener;
            let count = entries.iter().take_while(|entry| same(entry)).count();
            let (group, others) = entries.split_at(count);
            entries = others;
            if let Some(listener) = listeners.get_mut(first.listener) {
                let failed = send_group(listener, group, slots);
                counts.to_clients += (group.len() - failed) as u64;
                counts.unsent += failed as u64;
            }
        }
        outgoing.0.clear();
        self.used = 0;
    }

    /// ICMP errors have come back to a relay.
    pub(super) fn read_errors(&mut self, relay: RelayId) {
        let Some(Relay::Udp(socket)) = self.relays.get(&relay) else {
            return;
        };
        for _ in 0..ERRORS {
            let Some(error) = socket.next_error() else {
                break;
            };
            self.counts.icmp += 1;
            let icmp = Icmp {
                ty: error.ty,
                code: error.code,
                data: error.mtu,
            };
            self.server
                .handle_relay_icmp(self.now, relay, error.peer, icmp);
        }
        self.drain();
    }
}

/// Sends what goes out of one listener; how many failed.
fn send_group(listener: &mut UdpSocket, group: &[Entry], slots: &[Box<[u8]>]) -> usize {
    let mut failed = 0;
    let mut singles: SmallVec<[Pending<'_>; 64]> = SmallVec::new();
    let mut left = group;
    while let Some(first) = left.first() {
        let total = first.total();
        let mut count = 1;
        while let (Some(before), Some(next)) = (left.get(count - 1), left.get(count))
            && next.to == first.to
            && before.total() == total
            && UdpSocket::joins(count, total, next.total())
        {
            count += 1;
        }
        let (run, others) = left.split_at(count);
        left = others;
        if count > 1 {
            // Those before it stay before it.
            failed += listener.send_each(&singles);
            singles.clear();
            let parts: Parts<'_> = run.iter().flat_map(|entry| entry.parts(slots)).collect();
            failed += listener.send_run(first.to, &parts, 3, total);
            continue;
        }
        singles.push(Pending::new(first.to, first.parts(slots)));
        if singles.len() == 64 {
            failed += listener.send_each(&singles);
            singles.clear();
        }
    }
    failed + listener.send_each(&singles)
}
