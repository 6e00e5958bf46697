//! Finding out that a flow is dead (RFC 5626 section 4.4).

use core::time::Duration;

use bytes::Bytes;

use super::backoff::{between, fraction};
use super::flow::{Link, Ping, Purpose};
use super::idle::{Idle, IdleTime};
use super::{FlowFailure, FlowId, Timer, UserAgent};
use crate::Instant;
use crate::framing::PING;
use crate::time::{deadline, elapsed};

/// Intervals an edge may ask for.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(86_400);

impl UserAgent {
    /// The longest interval between keep-alives, from what the edge asked for in seconds; 0
    /// leaves it to us.
    pub(super) fn keep_alive_bound(
        &self,
        flow: FlowId,
        asked: Option<u32>,
        datagram: bool,
    ) -> Duration {
        let keep = &self.config.keep_alive;
        let own = if datagram { keep.datagram } else { keep.stream };
        let bound = match asked {
            None | Some(0) => own,
            Some(seconds) => Duration::from_secs(u64::from(seconds)).clamp(SHORTEST, LONGEST),
        };
        bound.min(self.keep_alive_cap(flow))
    }

    /// What no interval on this flow may exceed.
    fn keep_alive_cap(&self, flow: FlowId) -> Duration {
        let cap = self.config.keep_alive.cap;
        let Some(entry) = self.flows.get(&flow) else {
            return cap;
        };
        let stream = entry
            .open
            .as_ref()
            .is_some_and(|open| matches!(open.link, Link::Stream(_)));
        let learned = self.idle.limit(self.clock.now()).filter(|_| stream);
        let caps = [entry.keep_alive_cap, learned].into_iter().flatten();
        caps.fold(cap, Duration::min)
    }

    /// Sets an upper bound for the interval between keep-alives on this flow, besides
    /// [`KeepAlive::cap`](super::KeepAlive): what lies on its way may forget idle connections
    /// sooner. From the next keep-alive on; best before
    /// [`flow_opened`](Self::flow_opened). Less than 1 s counts as 1 s.
    pub fn limit_keep_alive(&mut self, flow: FlowId, cap: Duration) {
        if let Some(entry) = self.flows.get_mut(&flow) {
            entry.keep_alive_cap = Some(cap.max(Duration::from_secs(1)));
        }
    }

    /// Draws the next interval: 80 to 100 % of the bound, or on a stream of as much of it as the
    /// network is known to bear. A ping that is due earlier stays so: refreshing a registration must
    /// not put it off.
    pub(super) fn schedule_ping(&mut self, now: Instant, flow: FlowId, bound: Duration) {
        let mut bound = bound.min(self.keep_alive_cap(flow));
        let open = self.open_ref(flow);
        if open.is_some_and(|open| matches!(open.link, Link::Stream(_))) {
            bound = bound.min(self.idle.next(self.config.keep_alive.first));
        }
        let low = fraction(bound, 4, 5);
        let drawn = deadline(now, between(low, bound, &mut self.rng));
        let timer = Timer::KeepAlive(flow);
        let due = [self.timers.get(timer), drawn].into_iter().flatten().min();
        self.timers.set(timer, due);
    }

    /// How long a pong may take; `None` where none was promised and none has ever come.
    fn pong_wait(&self, flow: FlowId) -> Option<Duration> {
        let answers = self.open_ref(flow).is_some_and(|open| open.answers);
        let owed = answers || self.agreed_bound(flow).is_some();
        owed.then_some(self.config.keep_alive.pong)
    }

    /// What the streams have taught about the present network, to be remembered for the next time.
    pub fn idle_time(&self) -> IdleTime {
        self.idle.known(self.clock.now())
    }

    /// Takes back what [`idle_time`](Self::idle_time) said when this network was left. Best after
    /// [`network_changed`](Self::network_changed), or before [`start`](Self::start).
    pub fn set_idle_time(&mut self, now: Instant, known: IdleTime) {
        let now = self.clock.advance(now);
        self.idle = Idle::new(now, known);
    }

    pub(super) fn stop_pings(&mut self, flow: FlowId) {
        self.timers.disarm(Timer::KeepAlive(flow));
    }

    pub(super) fn send_ping(&mut self, now: Instant, flow: FlowId) {
        let id = self.rng.transaction_id();
        let wait = self.pong_wait(flow);
        let Some(open) = self.open_mut(flow) else {
            return;
        };
        // The next one follows the pong at once.
        if !matches!(open.ping, Ping::None) {
            return;
        }
        match open.link {
            Link::Stream(_) => {
                let full = open.out.push(Bytes::from_static(PING)).is_err();
                open.ping = Ping::Unsent(open.out.mark());
                // Now, as what else waits may be taken first.
                open.quiet = Some(elapsed(open.active, now));
                if full {
                    self.fail_flow(now, flow, FlowFailure::Unsent);
                    return;
                }
                // Waiting that long for the socket to take it is a failure as well.
                if let Some(wait) = wait {
                    self.timers.arm(Timer::Pong(flow), now, wait);
                }
            }
            Link::Datagram { .. } => {
                let deadline = open.start_binding(now, id);
                self.timers.set(Timer::Pong(flow), deadline);
            }
        }
        // From ping to ping, however long the pong takes.
        if let Some(bound) = self.keep_bound(flow) {
            self.schedule_ping(now, flow, bound);
        }
    }

    /// Whether the next ping fell due while this one was out.
    pub(super) fn is_ping_due(&self, flow: FlowId) -> bool {
        self.timers.get(Timer::KeepAlive(flow)).is_none()
    }

    /// The host has taken bytes; perhaps the ping is among them.
    pub(super) fn ping_taken(&mut self, flow: FlowId) {
        let (now, wait) = (self.clock.now(), self.pong_wait(flow));
        let Some(open) = self.open_mut(flow) else {
            return;
        };
        if let Ping::Unsent(mark) = open.ping
            && open.out.is_past(mark)
        {
            if let Link::Stream(framer) = &mut open.link {
                framer.ping_sent();
            }
            open.ping = match wait {
                Some(_) => Ping::Outstanding,
                None => Ping::None,
            };
            if let Some(wait) = wait {
                self.timers.arm(Timer::Pong(flow), now, wait);
            }
        }
    }

    /// The flow is alive.
    pub(super) fn pong(&mut self, now: Instant, flow: FlowId) {
        let Some(open) = self.open_mut(flow) else {
            return;
        };
        open.ping = Ping::None;
        open.answers = true;
        if let Some(silence) = open.quiet.take() {
            self.idle.survived(silence);
        }
        self.timers.disarm(Timer::Pong(flow));
        if self.keep_bound(flow).is_some() && self.is_ping_due(flow) {
            self.send_ping(now, flow);
        }
        if let Some(Purpose::Slot(slot)) = self.flows.get(&flow).map(|flow| flow.purpose) {
            self.slot_alive(now, slot, flow);
        }
    }

    pub(super) fn pong_late(&mut self, now: Instant, flow: FlowId) {
        let Some(open) = self.open_mut(flow) else {
            return;
        };
        let failure = match &open.ping {
            Ping::None | Ping::Late => return,
            Ping::Unsent(_) => FlowFailure::Unsent,
            Ping::Outstanding => {
                let receiving = match &open.link {
                    Link::Stream(framer) => framer.is_receiving(),
                    Link::Datagram { .. } => false,
                };
                if receiving {
                    open.ping = Ping::Late;
                    return;
                }
                FlowFailure::KeepAlive
            }
            Ping::Binding { .. } => match open.binding_timeout(now) {
                Ok(deadline) => {
                    self.timers.set(Timer::Pong(flow), deadline);
                    return;
                }
                Err(failure) => failure,
            },
        };
        self.fail_flow(now, flow, failure);
    }
}
