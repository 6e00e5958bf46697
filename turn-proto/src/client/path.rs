//! The path to the server: keeping it open, and finding out that it leads nowhere any more.

use core::time::Duration;

use stun_proto::time::deadline;
use stun_proto::wire::Message;
use stun_proto::{Instant, Path};

use super::requests::Request;
use super::{Action, Cause, ClientError, Core, Event, State, Timer};

/// Nothing is kept open more often than this.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// When the path in use last showed signs of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// Something was sent.
    pub(super) sent: Instant,
    /// Something came.
    heard: Instant,
    /// An answer came, which proves both directions and that the server knows this client.
    proven: Instant,
    probe: Probe,
}

/// The Refresh that is to prove the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Idle,
    UnderWay {
        /// The host waits for what becomes of it.
        asked: bool,
    },
}

impl Life {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            sent: now,
            heard: now,
            proven: now,
            probe: Probe::Idle,
        }
    }
}

impl Core {
    /// There is an allocation that is reached over `link` from now on.
    pub(super) fn begin_life(&mut self, now: Instant) {
        self.life = Life {
            probe: self.life.probe,
            ..Life::new(now)
        };
        self.timers.disarm(Timer::Silence);
        self.arm_keep_alive(now);
    }

    /// Something came over `path`. On the data path: nothing is armed here.
    pub(super) fn heard(&mut self, now: Instant, path: Path) {
        if path == self.link.path {
            self.life.heard = self.life.heard.max(now);
        }
    }

    /// An answer came over `path`.
    pub(super) fn proven(&mut self, now: Instant, path: Path) {
        if path == self.link.path {
            self.life.proven = now;
        }
    }

    /// A request was sent over `path`. If it is one that the server answers by itself, a stream
    /// has to say something in time.
    pub(super) fn asked(&mut self, now: Instant, path: Path, answers_promptly: bool) {
        if path != self.link.path {
            return;
        }
        self.life.sent = now;
        let counts = answers_promptly
            && self.link.transport.is_stream()
            && matches!(self.state, State::Active(_) | State::Deleting(_));
        if counts && self.timers.get(Timer::Silence).is_none() {
            let wait = self.config.stream_answer_timeout;
            self.timers.arm(Timer::Silence, now, wait);
        }
    }

    /// A stream had to say something by now.
    pub(super) fn silent(&mut self, now: Instant) {
        let Path::Stream(id) = self.link.path else {
            return;
        };
        let under_way = self.transactions.contexts();
        let here = under_way.filter(|(_, pending)| !pending.request.is_elsewhere());
        let oldest = here.map(|(_, pending)| pending.sent).min();
        let Some(oldest) = oldest.filter(|_| !self.down) else {
            return;
        };
        let since = oldest.max(self.life.heard);
        let until = deadline(since, self.config.stream_answer_timeout);
        if until.is_none_or(|until| until > now) {
            return self.timers.set(Timer::Silence, until);
        }
        self.actions.push_back(Action::CloseStream { id });
        self.link_closed(now, Cause::Timeout);
    }

    fn keep_alive_interval(&self) -> Option<Duration> {
        let every = if self.link.transport.is_stream() {
            self.config.stream_keep_alive
        } else {
            self.config.keep_alive
        };
        every.map(|every| every.max(MIN_KEEP_ALIVE))
    }

    /// When something is to be sent next, unless more is heard until then: to prove the path, or
    /// only to keep it open.
    fn keep_alive_times(&self, every: Duration) -> (Option<Instant>, Option<Instant>) {
        if self.link.transport.is_stream() {
            (deadline(self.life.heard, every), None)
        } else {
            let proof = deadline(self.life.proven, every.saturating_mul(2));
            (proof, deadline(self.life.sent, every))
        }
    }

    fn arm_keep_alive(&mut self, now: Instant) {
        let Some(every) = self.keep_alive_interval() else {
            return self.timers.disarm(Timer::KeepAlive);
        };
        let (proof, open) = self.keep_alive_times(every);
        let next = [proof, open].into_iter().flatten().min();
        // What is under way is given time.
        let next = next.filter(|at| *at > now).or_else(|| deadline(now, every));
        self.timers.set(Timer::KeepAlive, next);
    }

    /// Proves the path, or keeps it open, unless that has just happened.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        let Some(every) = self.keep_alive_interval().filter(|_| !self.down) else {
            return;
        };
        let (proof, open) = self.keep_alive_times(every);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(proof) && self.life.probe == Probe::Idle {
            self.probe(now, false);
        } else if due(open) {
            self.keep_alive_due = true;
            self.life.sent = now;
        }
        self.arm_keep_alive(now);
    }

    fn probe(&mut self, now: Instant, asked: bool) {
        if matches!(self.state, State::Active(_)) && !self.down {
            self.life.probe = Probe::UnderWay { asked };
            self.start(now, Request::Probe);
        }
    }

    /// The host wants to know whether the allocation is still there: a request that has been under
    /// way for a while would be sent again much later only, so there is a new one.
    pub(super) fn prove(&mut self, now: Instant) -> Result<(), ClientError> {
        if !matches!(self.state, State::Active(_)) || self.down {
            return Err(ClientError::State);
        }
        let under_way = self.transactions.contexts();
        let under_way = under_way.filter(|(_, pending)| pending.request == Request::Probe);
        let old: smallvec::SmallVec<[_; 2]> = under_way.map(|(id, _)| id).collect();
        for id in old {
            self.transactions.cancel(id);
        }
        self.probe(now, true);
        Ok(())
    }

    pub(super) fn probed(&mut self, now: Instant, sent: Instant, message: &Message<'_>) {
        let Some(lifetime) = self.prolong(sent, message) else {
            return self.probe_failed(Cause::Malformed);
        };
        let probe = core::mem::replace(&mut self.life.probe, Probe::Idle);
        if probe == (Probe::UnderWay { asked: true }) {
            self.tell(Event::Refreshed { lifetime });
        }
        self.nonce_is_fresh(now);
    }

    /// Nothing is proven. The allocation goes on: that it has ended is for its own Refresh to say.
    pub(super) fn probe_failed(&mut self, cause: Cause) {
        let probe = core::mem::replace(&mut self.life.probe, Probe::Idle);
        if probe == (Probe::UnderWay { asked: true }) {
            self.tell(Event::RefreshFailed { cause });
        }
    }
}
