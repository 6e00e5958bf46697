//! The table of a client's open transactions.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::{Retransmit, RetransmitConfig, RttEstimator, Step};
use crate::time::{Timers, deadline};
use crate::wire::TransactionId;
use crate::{Instant, Path, Transmit};

/// How long an RTO estimate outlives the last transaction with its server (RFC 8489
/// section 6.2.1).
const ESTIMATE_LIFETIME: Duration = Duration::from_secs(600);

/// How many servers' estimates are kept at most.
const MAX_ESTIMATES: usize = 16;

/// There are as many open transactions as allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many open transactions")]
pub struct TransactionsFull;

/// A transaction that ended without an accepted response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// The ID the request had.
    pub id: TransactionId,
    /// What the caller attached to it.
    pub context: T,
}

#[derive(Debug)]
struct Open<T> {
    path: Path,
    request: Vec<u8>,
    schedule: Retransmit,
    started: Instant,
    context: T,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    rtt: RttEstimator,
    last_used: Instant,
}

/// Open transactions: keeps each request's bytes, so that a retransmission is byte-identical,
/// and says when which of them is to be sent or given up.
///
/// `T` is what the caller wants to have back with the end of a transaction. Judging whether a
/// response is acceptable is the caller's: it looks the transaction up with
/// [`context_mut`](Self::context_mut), and ends it with [`finish`](Self::finish).
#[derive(Debug)]
pub struct Transactions<T> {
    config: RetransmitConfig,
    limit: usize,
    open: BTreeMap<TransactionId, Open<T>>,
    timers: Timers<TransactionId>,
    outbox: VecDeque<TransactionId>,
    timed_out: VecDeque<Ended<T>>,
    estimates: BTreeMap<IpAddr, Estimate>,
}

impl<T> Transactions<T> {
    /// An empty table for at most `limit` open transactions.
    pub const fn new(config: RetransmitConfig, limit: usize) -> Self {
        Self {
            config,
            limit,
            open: BTreeMap::new(),
            timers: Timers::new(),
            outbox: VecDeque::new(),
            timed_out: VecDeque::new(),
            estimates: BTreeMap::new(),
        }
    }

    /// Opens a transaction: `request` is the whole message with this `id`, to be sent over `path`.
    ///
    /// # Errors
    /// [`TransactionsFull`]; nothing has changed then.
    pub fn start(
        &mut self,
        now: Instant,
        path: Path,
        id: TransactionId,
        request: &[u8],
        context: T,
    ) -> Result<(), TransactionsFull> {
        if self.open.len() >= self.limit || self.open.contains_key(&id) {
            return Err(TransactionsFull);
        }
        let schedule = match path {
            Path::Datagram(at) => {
                let rto = self.rto(now, at.remote.ip());
                let config = RetransmitConfig { rto, ..self.config };
                Retransmit::datagram(config, now)
            }
            Path::Stream(_) => Retransmit::stream(self.config, now),
        };
        self.timers.set(id, schedule.deadline());
        let open = Open {
            path,
            request: request.to_vec(),
            schedule,
            started: now,
            context,
        };
        self.open.insert(id, open);
        self.outbox.push_back(id);
        Ok(())
    }

    /// The RTO a new datagram transaction with this server starts with.
    pub fn rto(&self, now: Instant, server: IpAddr) -> Duration {
        match self.estimates.get(&server) {
            Some(known) if now.duration_since(known.last_used) <= ESTIMATE_LIFETIME => {
                known.rtt.rto()
            }
            _ => self.config.rto,
        }
    }

    /// The open transaction a message that came over `path` with this `id` would belong to.
    pub fn context_mut(&mut self, path: Path, id: TransactionId) -> Option<&mut T> {
        let open = self.open.get_mut(&id)?;
        (open.path == path).then_some(&mut open.context)
    }

    /// Ends a transaction because its response was accepted, and learns the round trip from it
    /// if the request was sent only once.
    pub fn finish(&mut self, now: Instant, id: TransactionId) -> Option<T> {
        let open = self.remove(id)?;
        if let Path::Datagram(at) = open.path {
            let server = at.remote.ip();
            let mut known = match self.estimates.get(&server) {
                Some(known) if now.duration_since(known.last_used) <= ESTIMATE_LIFETIME => *known,
                _ => Estimate {
                    rtt: RttEstimator::new(self.config.rto),
                    last_used: now,
                },
            };
            known.last_used = now;
            if open.schedule.sends() == 1 {
                known.rtt.sample(now.duration_since(open.started));
            }
            if self.estimates.len() >= MAX_ESTIMATES && !self.estimates.contains_key(&server) {
                let oldest = self.estimates.iter().min_by_key(|(_, e)| e.last_used);
                if let Some(ip) = oldest.map(|(ip, _)| *ip) {
                    self.estimates.remove(&ip);
                }
            }
            self.estimates.insert(server, known);
        }
        Some(open.context)
    }

    /// Ends a transaction without learning anything from it.
    pub fn cancel(&mut self, id: TransactionId) -> Option<T> {
        self.remove(id).map(|open| open.context)
    }

    /// Ends all transactions over `path`: hard ICMP error, or the stream is gone.
    pub fn fail_path(&mut self, path: Path) -> Vec<Ended<T>> {
        let ids: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.path == path)
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter()
            .filter_map(|id| {
                let context = self.cancel(id)?;
                Some(Ended { id, context })
            })
            .collect()
    }

    /// Writes the next request that is due into `buf`.
    ///
    /// # Panics
    /// When `buf` is shorter than the request: the host's bug.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        while let Some(id) = self.outbox.pop_front() {
            let Some(open) = self.open.get(&id) else {
                continue;
            };
            let len = open.request.len();
            assert!(len <= buf.len(), "transmit buffer too small");
            if let Some(slot) = buf.get_mut(..len) {
                slot.copy_from_slice(&open.request);
            }
            return Some(Transmit { to: open.path, len });
        }
        None
    }

    /// Takes in that it is `now`: queues what is to be sent again, gives up what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.timers.expired(now) {
            let Some(open) = self.open.get_mut(&id) else {
                continue;
            };
            match open.schedule.on_timeout(now) {
                Step::Wait => self.timers.set(id, open.schedule.deadline()),
                Step::Send => {
                    self.timers.set(id, open.schedule.deadline());
                    if !self.outbox.contains(&id) {
                        self.outbox.push_back(id);
                    }
                }
                Step::TimedOut => {
                    if let Some(open) = self.remove(id) {
                        let context = open.context;
                        self.timed_out.push_back(Ended { id, context });
                    }
                }
            }
        }
        self.estimates
            .retain(|_, known| now.duration_since(known.last_used) <= ESTIMATE_LIFETIME);
    }

    /// The next transaction that timed out.
    pub fn poll_timed_out(&mut self) -> Option<Ended<T>> {
        self.timed_out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether something waits for [`poll_transmit`](Self::poll_transmit).
    pub fn has_transmit(&self) -> bool {
        self.outbox.iter().any(|id| self.open.contains_key(id))
    }

    /// How many transactions are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The contexts of all open transactions, in no meaningful order.
    pub fn contexts(&self) -> impl Iterator<Item = (TransactionId, &T)> {
        self.open.iter().map(|(id, open)| (*id, &open.context))
    }

    /// The deadline of a transaction that would start now and never be answered.
    pub fn give_up_at(&self, now: Instant, path: Path) -> Option<Instant> {
        match path {
            Path::Datagram(_) => {
                let mut schedule = Retransmit::datagram(self.config, now);
                loop {
                    let at = schedule.deadline()?;
                    if schedule.on_timeout(at) == Step::TimedOut {
                        return Some(at);
                    }
                }
            }
            Path::Stream(_) => deadline(now, self.config.reliable_timeout),
        }
    }

    fn remove(&mut self, id: TransactionId) -> Option<Open<T>> {
        self.timers.disarm(id);
        self.open.remove(&id)
    }
}
