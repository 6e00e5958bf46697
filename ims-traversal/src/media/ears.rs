//! Whether the other side is heard.

use core::time::Duration;

use alloc::collections::BTreeMap;

use ice_proto::{ComponentId, Instant};
use stun_proto::time::{Timers, deadline};

use super::MediaEvent;

/// The component whose silence counts: RTP. RTCP may be missing altogether.
const FIRST: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Data have to come now and then.
    Silence(ComponentId),
}

#[derive(Clone, Copy, Debug)]
struct Hearing {
    /// When data came last, or were first expected.
    last: Instant,
    /// Data have come, lately.
    heard: bool,
}

/// Notes what comes, at no cost for each datagram.
#[derive(Debug)]
pub(super) struct Ears {
    timeout: Option<Duration>,
    /// The other side is expected to send.
    expecting: bool,
    known: BTreeMap<ComponentId, Hearing>,
    timers: Timers<Timer>,
}

impl Ears {
    pub(super) const fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            expecting: true,
            known: BTreeMap::new(),
            timers: Timers::new(),
        }
    }

    /// Data of a component may come from now on.
    pub(super) fn open(&mut self, now: Instant, component: ComponentId) {
        let fresh = Hearing {
            last: now,
            heard: false,
        };
        let hearing = self.known.entry(component).or_insert(fresh);
        if !hearing.heard {
            hearing.last = now;
        }
        self.arm(component);
    }

    /// Data have come.
    pub(super) fn heard(&mut self, now: Instant, component: ComponentId) -> Option<MediaEvent> {
        if let Some(hearing) = self.known.get_mut(&component)
            && hearing.heard
        {
            hearing.last = now;
            return None;
        }
        let hearing = Hearing {
            last: now,
            heard: true,
        };
        self.known.insert(component, hearing);
        self.arm(component);
        Some(MediaEvent::Heard { component })
    }

    pub(super) fn expect(&mut self, now: Instant, expecting: bool) {
        self.expecting = expecting;
        for hearing in self.known.values_mut() {
            hearing.last = now;
        }
        let known: alloc::vec::Vec<ComponentId> = self.known.keys().copied().collect();
        for component in known {
            self.arm(component);
        }
    }

    fn arm(&mut self, component: ComponentId) {
        let timer = Timer::Silence(component);
        let last = self.known.get(&component).map(|hearing| hearing.last);
        match (self.timeout, last) {
            (Some(timeout), Some(last)) if self.expecting && component.component == FIRST => {
                self.timers.set(timer, deadline(last, timeout));
            }
            _ => self.timers.disarm(timer),
        }
    }

    /// A component that has been silent for too long.
    pub(super) fn expired(&mut self, now: Instant) -> Option<MediaEvent> {
        let timeout = self.timeout?;
        while let Some(Timer::Silence(component)) = self.timers.expired(now) {
            let Some(hearing) = self.known.get_mut(&component) else {
                continue;
            };
            if now.duration_since(hearing.last) >= timeout {
                hearing.heard = false;
                return Some(MediaEvent::Silent { component });
            }
            self.arm(component);
        }
        None
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn close(&mut self) {
        self.timers = Timers::new();
        self.expecting = false;
    }
}
