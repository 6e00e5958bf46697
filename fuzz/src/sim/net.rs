//! The network and its clock.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use sans_io_time::Instant;

use super::choices::Choices;
use super::stream::{Cuts, Stream};
use super::topology::{Host, HostId, INTERNET, Site, SiteId};
use super::trace::Trace;
use super::world::{Arrival, Event, Packet, World};

/// Steps of one run; more is a livelock.
const MAX_STEPS: u64 = 400_000;

/// Steps without time going on; more is a livelock.
const MAX_STEPS_AT_ONCE: u64 = 20_000;

type Tap = Box<dyn FnMut(Instant, &mut Choices, Packet) -> Vec<Packet>>;
type Describe = fn(&[u8]) -> String;

/// The network and its clock.
pub struct Net {
    pub(super) now: Instant,
    pub(super) choices: Choices,
    pub(super) trace: Trace,
    pub(super) sites: Vec<Site>,
    pub(super) hosts: Vec<Host>,
    pub(super) sockets: BTreeMap<(SiteId, SocketAddr), HostId>,
    pub(super) listeners: BTreeSet<(SiteId, SocketAddr)>,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) next_end: u64,
    queue: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    steps: u64,
    steps_at_once: u64,
    /// Whether ICMP errors come back for closed ports and oversized datagrams.
    pub icmp: bool,
    /// How late hosts notice their deadlines, at most.
    pub lateness: Duration,
    /// How streams are cut, those opened from now on.
    pub cuts: Cuts,
    /// How many bytes a stream holds before its writer has to wait, those opened from now on.
    pub window: usize,
    /// How long a connection attempt without answer takes.
    pub connect_timeout: Duration,
    /// Chance in permille that a bit of a piece of a stream flips.
    pub stream_corrupt: u16,
    /// Streams that are silent for longer are dead, and nobody is told.
    pub stream_idle: Option<Duration>,
    wake: Option<(Instant, Instant)>,
    tap: Option<Tap>,
    pub(super) describe: Option<Describe>,
}

impl Net {
    /// An empty internet at time 0.
    pub fn new(choices: Choices, trace: Trace) -> Self {
        Self {
            now: Instant::ZERO,
            choices,
            trace,
            sites: vec![Site::new(None)],
            hosts: Vec::new(),
            sockets: BTreeMap::new(),
            listeners: BTreeSet::new(),
            streams: BTreeMap::new(),
            next_end: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            steps: 0,
            steps_at_once: 0,
            icmp: false,
            lateness: Duration::ZERO,
            cuts: Cuts::None,
            window: 64 * 1024,
            connect_timeout: Duration::from_secs(20),
            stream_corrupt: 0,
            stream_idle: None,
            wake: None,
            tap: None,
            describe: None,
        }
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The run's decisions.
    pub const fn choices(&mut self) -> &mut Choices {
        &mut self.choices
    }

    /// Adds a line to the trace.
    pub fn note<S: fmt::Display>(&self, host: HostId, what: impl FnOnce() -> S) {
        self.trace.line(self.now, self.name(host), what);
    }

    /// How payloads look in the trace.
    pub const fn describe(&mut self, describe: Describe) {
        self.describe = Some(describe);
    }

    /// The name of a host.
    pub fn name(&self, host: HostId) -> &str {
        self.hosts.get(host.0).map_or("?", |host| &host.name)
    }

    /// Ends all faults: links only delay, hosts are on time, streams are not altered.
    pub fn heal(&mut self) {
        self.trace.line(self.now, "net", || "faults end");
        for site in &mut self.sites {
            if let Some((_, gateway)) = &mut site.up {
                gateway.link.heal();
            }
        }
        self.lateness = Duration::ZERO;
        self.wake = None;
        self.stream_corrupt = 0;
        self.stream_idle = None;
        self.tap = None;
    }

    /// Puts somebody on the path between sites, who sees every packet and decides what goes on.
    pub fn tap(&mut self, tap: impl FnMut(Instant, &mut Choices, Packet) -> Vec<Packet> + 'static) {
        self.tap = Some(Box::new(tap));
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        if let Some(at) = self.now.checked_add(after) {
            self.queue.insert((at, self.next_event), event);
            self.next_event += 1;
        }
    }

    /// Calls [`World::deliver`] with [`Arrival::Alarm`] later.
    pub fn alarm(&mut self, host: HostId, after: Duration, token: u64) {
        self.schedule(after, Event::Tell(host, Arrival::Alarm(token)));
    }

    /// Runs until `until`, or until `done` says so after a step; whether it did.
    ///
    /// # Panics
    /// Panics on a livelock.
    pub fn run<W: World>(
        &mut self,
        world: &mut W,
        until: Instant,
        mut done: impl FnMut(&W) -> bool,
    ) -> bool {
        loop {
            if done(world) {
                return true;
            }
            let event = self.queue.first_key_value().map(|(key, _)| *key);
            let wake = self.wake_time(world.deadline());
            let next = [event.map(|(at, _)| at), wake].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = self.now.max(until);
                return false;
            };
            self.count_step(next);
            self.now = self.now.max(next);
            match event.filter(|(at, _)| wake.is_none_or(|wake| *at <= wake)) {
                Some(key) => {
                    if let Some(event) = self.queue.remove(&key) {
                        self.handle(world, event);
                    }
                }
                None => {
                    self.wake = None;
                    world.wake(self);
                }
            }
            world.check(self);
        }
    }

    /// Runs for a while.
    pub fn run_for<W: World>(&mut self, world: &mut W, time: Duration) {
        let until = self.now.checked_add(time).expect("time enough");
        self.run(world, until, |_| false);
    }

    fn count_step(&mut self, next: Instant) {
        self.steps += 1;
        self.steps_at_once = if next > self.now {
            0
        } else {
            self.steps_at_once + 1
        };
        assert!(
            self.steps < MAX_STEPS && self.steps_at_once < MAX_STEPS_AT_ONCE,
            "livelock: {} steps, {} of them at once",
            self.steps,
            self.steps_at_once
        );
    }

    /// When the hosts notice that their deadline has come.
    fn wake_time(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        let deadline = deadline?;
        if let Some((known, at)) = self.wake
            && known == deadline
        {
            return Some(at);
        }
        let late = self.choices.duration(self.lateness);
        let at = deadline.max(self.now).checked_add(late)?;
        self.wake = Some((deadline, at));
        Some(at)
    }

    fn handle<W: World>(&mut self, world: &mut W, event: Event) {
        let told = match event {
            Event::Descend {
                site,
                packet,
                origin,
            } => {
                let Some(mut tap) = (if site == INTERNET {
                    self.tap.take()
                } else {
                    None
                }) else {
                    let told = self.descend(site, packet, origin);
                    return self.tell(world, told);
                };
                let packets = tap(self.now, &mut self.choices, packet);
                self.tap = Some(tap);
                for packet in packets {
                    let told = self.descend(site, packet, origin);
                    self.tell(world, told);
                }
                return;
            }
            Event::Tell(host, arrival) => Some((host, arrival)),
            Event::Syn {
                site,
                from,
                to,
                end,
                path,
            } => self.syn(site, from, to, end, path),
            Event::SynAck(end) => self.syn_ack(end),
            Event::ReadStream(end) => self.read_stream(end),
            Event::ResetStream(end) => self.reset_arrives(end),
            Event::StreamWritable(end) => self.writable(end),
        };
        self.tell(world, told);
    }

    fn tell<W: World>(&mut self, world: &mut W, told: Option<(HostId, Arrival)>) {
        if let Some((host, arrival)) = told {
            world.deliver(self, host, arrival);
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("now", &self.now)
            .field("hosts", &self.hosts)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
