//! The table of a client's open transactions.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::{Retransmit, RetransmitConfig, RttEstimator, Step};
use crate::time::{Timers, deadline, elapsed};
use crate::wire::TransactionId;
use crate::{Instant, Path, StreamId, Transmit};

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

/// How far a transaction is.
#[derive(Debug)]
enum Progress {
    /// Its server has as many transactions running as allowed.
    Waiting,
    /// Sent, or about to be.
    Running {
        schedule: Retransmit,
        started: Instant,
    },
}

#[derive(Debug)]
struct Open<T> {
    path: Path,
    request: Vec<u8>,
    progress: Progress,
    context: T,
}

/// What the limit of running transactions counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Datagram(SocketAddr),
    Stream(StreamId),
}

impl From<Path> for Server {
    fn from(path: Path) -> Self {
        match path {
            Path::Datagram(at) => Self::Datagram(at.remote),
            Path::Stream(id) => Self::Stream(id),
        }
    }
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
    /// Most transactions running with one server.
    server_limit: usize,
    running: BTreeMap<Server, usize>,
    /// Those that wait for their server, oldest first.
    waiting: VecDeque<TransactionId>,
    /// The latest time heard of.
    latest: Instant,
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
            server_limit: usize::MAX,
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            latest: Instant::ZERO,
        }
    }

    /// Lets at most `limit` transactions (at least one) run with one server, 10 unless there is
    /// another way of pacing; the others wait for their turn, oldest first (RFC 8489 section 6.2).
    #[must_use]
    pub const fn with_server_limit(mut self, limit: usize) -> Self {
        self.server_limit = if limit == 0 { 1 } else { limit };
        self
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
        let taken = self.open.len().saturating_add(self.timed_out.len());
        if taken >= self.limit || self.open.contains_key(&id) {
            return Err(TransactionsFull);
        }
        self.latest = now;
        let open = Open {
            path,
            request: request.to_vec(),
            progress: Progress::Waiting,
            context,
        };
        self.open.insert(id, open);
        if self.may_run(path) {
            self.run(id);
        } else {
            self.waiting.push_back(id);
        }
        Ok(())
    }

    fn may_run(&self, path: Path) -> bool {
        let running = self.running.get(&path.into()).copied();
        running.unwrap_or_default() < self.server_limit
    }

    /// Begins the schedule of a transaction.
    fn run(&mut self, id: TransactionId) {
        let now = self.latest;
        let Some(path) = self.open.get(&id).map(|open| open.path) else {
            return;
        };
        let schedule = match path {
            Path::Datagram(at) => {
                let server = at.remote.ip();
                let rto = self.rto(now, server);
                if let Some(known) = self.fresh_estimate(now, server) {
                    self.estimates.insert(
                        server,
                        Estimate {
                            last_used: now,
                            ..known
                        },
                    );
                }
                Retransmit::datagram(RetransmitConfig { rto, ..self.config }, now)
            }
            Path::Stream(_) => Retransmit::stream(self.config, now),
        };
        self.timers.set(id, schedule.deadline());
        if let Some(open) = self.open.get_mut(&id) {
            open.progress = Progress::Running {
                schedule,
                started: now,
            };
        }
        let count = self.running.entry(path.into()).or_default();
        *count = count.saturating_add(1);
        self.outbox.push_back(id);
    }

    /// The RTO a new datagram transaction with this server starts with.
    pub fn rto(&self, now: Instant, server: IpAddr) -> Duration {
        self.fresh_estimate(now, server)
            .map_or(self.config.rto, |known| known.rtt.rto())
    }

    fn fresh_estimate(&self, now: Instant, server: IpAddr) -> Option<Estimate> {
        let known = self.estimates.get(&server)?;
        (elapsed(known.last_used, now) <= ESTIMATE_LIFETIME).then_some(*known)
    }

    /// The open transaction a message that came over `path` with this `id` would belong to.
    pub fn context_mut(&mut self, path: Path, id: TransactionId) -> Option<&mut T> {
        let open = self.open.get_mut(&id)?;
        (open.path == path).then_some(&mut open.context)
    }

    /// Ends a transaction because its response was accepted, and learns the round trip from it
    /// if the request was sent only once.
    pub fn finish(&mut self, now: Instant, id: TransactionId) -> Option<T> {
        let rtt = self.rtt(now, id);
        self.latest = now;
        let open = self.remove(id)?;
        if let Path::Datagram(at) = open.path {
            self.learn(now, at.remote.ip(), rtt);
        }
        Some(open.context)
    }

    /// The round trip of a transaction whose response has come; `None` when the request was sent
    /// more than once, so that nobody knows which one was answered, or should have been by now:
    /// then the host was asleep, and the time says nothing about the path.
    pub fn rtt(&self, now: Instant, id: TransactionId) -> Option<Duration> {
        match &self.open.get(&id)?.progress {
            Progress::Running { schedule, started } if schedule.sends() == 1 => {
                let in_time = schedule.deadline().is_none_or(|due| now <= due);
                in_time.then(|| elapsed(*started, now))
            }
            Progress::Running { .. } | Progress::Waiting => None,
        }
    }

    /// How often the request of a transaction has been sent, the one just written included.
    pub fn sends(&self, id: TransactionId) -> Option<u8> {
        Some(match &self.open.get(&id)?.progress {
            Progress::Running { schedule, .. } => schedule.sends(),
            Progress::Waiting => 0,
        })
    }

    fn learn(&mut self, now: Instant, server: IpAddr, rtt: Option<Duration>) {
        let mut known = self.fresh_estimate(now, server).unwrap_or(Estimate {
            rtt: RttEstimator::new(self.config.rto),
            last_used: now,
        });
        known.last_used = now;
        if let Some(rtt) = rtt {
            known.rtt.sample(rtt);
        }
        if self.estimates.len() >= MAX_ESTIMATES && !self.estimates.contains_key(&server) {
            let oldest = self.estimates.iter().min_by_key(|(_, e)| e.last_used);
            if let Some(ip) = oldest.map(|(ip, _)| *ip) {
                self.estimates.remove(&ip);
            }
        }
        self.estimates.insert(server, known);
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
        self.latest = now;
        while let Some(id) = self.timers.expired(now) {
            let progress = self.open.get_mut(&id).map(|open| &mut open.progress);
            let Some(Progress::Running { schedule, .. }) = progress else {
                continue;
            };
            match schedule.on_timeout(now) {
                Step::Wait => self.timers.set(id, schedule.deadline()),
                Step::Send => {
                    self.timers.set(id, schedule.deadline());
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
            .retain(|_, known| elapsed(known.last_used, now) <= ESTIMATE_LIFETIME);
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
        !self.outbox.is_empty()
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

    /// Takes a transaction out of everything, and lets the next one of its server run.
    fn remove(&mut self, id: TransactionId) -> Option<Open<T>> {
        self.timers.disarm(id);
        let open = self.open.remove(&id)?;
        match open.progress {
            Progress::Waiting => self.waiting.retain(|waiting| *waiting != id),
            Progress::Running { .. } => {
                self.outbox.retain(|queued| *queued != id);
                let server = open.path.into();
                if let Some(count) = self.running.get_mut(&server) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.running.remove(&server);
                    }
                }
                self.run_next(server);
            }
        }
        Some(open)
    }

    fn run_next(&mut self, server: Server) {
        let next = self.waiting.iter().position(|id| {
            let open = self.open.get(id);
            open.is_some_and(|open| Server::from(open.path) == server && self.may_run(open.path))
        });
        if let Some(id) = next.and_then(|index| self.waiting.remove(index)) {
            self.run(id);
        }
    }
}
