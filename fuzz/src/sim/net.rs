//! Hosts, sites and the way between them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sans_io_time::Instant;

use super::choices::Choices;
use super::firewall::Firewall;
use super::link::Link;
use super::nat::{Nat, NatKind, Protocol};
use super::stream::{Cuts, End, Stream};
use super::trace::Trace;

/// A host, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A place where addresses mean the same to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub usize);

/// Where public addresses are.
pub const INTERNET: SiteId = SiteId(0);

/// Steps of one run; more is a livelock.
const MAX_STEPS: u64 = 400_000;

/// Steps without time going on; more is a livelock.
const MAX_STEPS_AT_ONCE: u64 = 20_000;

/// Time between two hosts of one site.
pub(super) const LAN: Duration = Duration::from_micros(200);

/// What stands between a site and its parent.
#[derive(Debug)]
pub struct Gateway {
    /// The way up and down.
    pub link: Link,
    /// What may leave.
    pub firewall: Firewall,
    nat: Option<Nat>,
}

impl Gateway {
    /// Forwards everything both ways, without changing addresses.
    pub const fn routed(link: Link) -> Self {
        Self {
            link,
            firewall: Firewall::OPEN,
            nat: None,
        }
    }

    /// Translates to this external address, if of its family.
    pub const fn nat(link: Link, kind: NatKind, external: IpAddr) -> Self {
        Self {
            link,
            firewall: Firewall::OPEN,
            nat: Some(Nat::new(kind, Some(external))),
        }
    }

    /// Admits only what `kind.filtering` lets in, without changing addresses.
    pub const fn stateful(link: Link, kind: NatKind) -> Self {
        Self {
            link,
            firewall: Firewall::OPEN,
            nat: Some(Nat::new(kind, None)),
        }
    }

    /// Adds a firewall for what leaves.
    pub const fn with_firewall(mut self, firewall: Firewall) -> Self {
        self.firewall = firewall;
        self
    }

    fn external(&self, like: IpAddr) -> Option<IpAddr> {
        let external = self.nat.as_ref()?.external()?;
        (external.is_ipv4() == like.is_ipv4()).then_some(external)
    }
}

#[derive(Clone, Copy, Debug)]
enum Owner {
    Host(HostId),
    Child(SiteId),
}

#[derive(Debug)]
struct Site {
    up: Option<(SiteId, Gateway)>,
    owners: BTreeMap<IpAddr, Owner>,
}

#[derive(Debug)]
struct Host {
    name: String,
    addresses: Vec<(IpAddr, SiteId)>,
    next_port: u16,
}

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address, as it is on this stretch.
    pub from: SocketAddr,
    /// The destination address, as it is on this stretch.
    pub to: SocketAddr,
    /// The payload.
    pub data: Vec<u8>,
}

/// Why a connection did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Nobody listens there, or a firewall says so.
    Refused,
    /// No answer.
    TimedOut,
}

/// What comes to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram.
    Datagram {
        /// The host's address.
        local: SocketAddr,
        /// Where it seems to come from.
        remote: SocketAddr,
        /// The payload.
        data: Vec<u8>,
    },
    /// An ICMP error for a datagram sent before.
    Unreachable {
        /// Its source.
        local: SocketAddr,
        /// Its destination.
        remote: SocketAddr,
    },
    /// Somebody connected to a listening address.
    Accepted {
        /// The new stream.
        end: End,
        /// The listening address.
        local: SocketAddr,
        /// Who.
        remote: SocketAddr,
    },
    /// A stream asked for is open.
    Connected {
        /// Which one.
        end: End,
        /// The local address it got.
        local: SocketAddr,
    },
    /// A stream asked for is not to be had.
    ConnectFailed {
        /// Which one.
        end: End,
        /// Why.
        why: ConnectFailure,
    },
    /// Bytes of a stream.
    Bytes {
        /// Which one.
        end: End,
        /// At least one byte.
        data: Vec<u8>,
    },
    /// The other side will not write any more.
    Eof {
        /// Which one.
        end: End,
    },
    /// A stream is gone, with what was under way.
    Reset {
        /// Which one.
        end: End,
    },
    /// A stream that was full takes bytes again.
    Writable {
        /// Which one.
        end: End,
    },
    /// An alarm that was set.
    Alarm(u64),
}

/// The machines of a run.
pub trait World {
    /// Something comes to a host.
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival);
    /// The earliest deadline of all machines.
    fn deadline(&self) -> Option<Instant>;
    /// It is time for the machines whose deadline has come.
    fn wake(&mut self, net: &mut Net);
    /// Called after every step: what must always hold is asserted here.
    fn check(&mut self, _net: &Net) {}
}

#[derive(Debug)]
pub(super) enum Event {
    /// A packet is in a site, on its way down to its destination.
    Descend {
        site: SiteId,
        packet: Packet,
        origin: Option<(HostId, SocketAddr, SocketAddr)>,
    },
    /// A connection attempt is in a site, on its way down.
    Syn {
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        end: End,
        path: Duration,
    },
    Tell(HostId, Arrival),
    /// The answer to a Syn.
    SynAck(End),
    ReadStream(End),
    ResetStream(End),
    StreamWritable(End),
}

type Tap = Box<dyn FnMut(Instant, &mut Choices, Packet) -> Vec<Packet>>;
type Describe = fn(&[u8]) -> String;

/// The network and its clock.
pub struct Net {
    pub(super) now: Instant,
    pub(super) choices: Choices,
    pub(super) trace: Trace,
    sites: Vec<Site>,
    hosts: Vec<Host>,
    sockets: BTreeMap<(SiteId, SocketAddr), HostId>,
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
    describe: Option<Describe>,
}

impl Net {
    /// An empty internet at time 0.
    pub fn new(choices: Choices, trace: Trace) -> Self {
        Self {
            now: Instant::ZERO,
            choices,
            trace,
            sites: vec![Site {
                up: None,
                owners: BTreeMap::new(),
            }],
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

    /// A new site below `parent`.
    pub fn site(&mut self, parent: SiteId, gateway: Gateway) -> SiteId {
        let id = SiteId(self.sites.len());
        let external = gateway.nat.as_ref().and_then(Nat::external);
        self.sites.push(Site {
            up: Some((parent, gateway)),
            owners: BTreeMap::new(),
        });
        if let Some(ip) = external {
            self.own(parent, ip, Owner::Child(id));
        }
        id
    }

    /// A new host; each of its addresses is in one site.
    pub fn host(&mut self, name: &str, addresses: &[(IpAddr, SiteId)]) -> HostId {
        let id = HostId(self.hosts.len());
        self.hosts.push(Host {
            name: name.to_string(),
            addresses: Vec::new(),
            next_port: 49_152,
        });
        for (ip, site) in addresses {
            self.add_address(id, *ip, *site);
        }
        id
    }

    /// One more address of a host.
    pub fn add_address(&mut self, host: HostId, ip: IpAddr, site: SiteId) {
        self.hosts[host.0].addresses.push((ip, site));
        self.own(site, ip, Owner::Host(host));
    }

    /// Makes an address known in a site, and above as far as nobody translates it.
    fn own(&mut self, site: SiteId, ip: IpAddr, owner: Owner) {
        let (mut site, mut owner) = (site, owner);
        loop {
            let here = &mut self.sites[site.0];
            here.owners.insert(ip, owner);
            let Some((parent, gateway)) = &here.up else {
                return;
            };
            if gateway.external(ip).is_some() {
                return;
            }
            owner = Owner::Child(site);
            site = *parent;
        }
    }

    /// The gateway of a site, to change its link or firewall.
    ///
    /// # Panics
    /// Panics for the internet.
    pub fn gateway(&mut self, site: SiteId) -> &mut Gateway {
        let up = self.sites[site.0].up.as_mut();
        up.map(|(_, gateway)| gateway).expect("a site with gateway")
    }

    /// Where a site leads, and how long that takes.
    pub(super) fn uplink(&self, site: SiteId) -> Option<(SiteId, Duration, Duration)> {
        let (parent, gateway) = self.sites[site.0].up.as_ref()?;
        Some((*parent, gateway.link.delay, gateway.link.jitter))
    }

    /// The NAT of a site forgets everything.
    pub fn rebind(&mut self, site: SiteId) {
        self.trace.line(self.now, "net", || {
            format!("NAT of site {} rebinds", site.0)
        });
        if let Some(nat) = &mut self.gateway(site).nat {
            nat.rebind();
        }
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

    /// Opens a UDP socket.
    pub fn bind(&mut self, host: HostId, local: SocketAddr) {
        let site = self.site_of(host, local.ip());
        self.sockets.insert((site, local), host);
    }

    /// A port of this address that is free for UDP.
    pub fn free_port(&mut self, host: HostId) -> u16 {
        let port = &mut self.hosts[host.0].next_port;
        let free = *port;
        *port = port.checked_add(1).unwrap_or(49_152);
        free
    }

    /// Closes a UDP socket.
    pub fn unbind(&mut self, host: HostId, local: SocketAddr) {
        let site = self.site_of(host, local.ip());
        self.sockets.remove(&(site, local));
    }

    /// The site an address of a host is in.
    ///
    /// # Panics
    /// Panics if the host has no such address.
    pub fn site_of(&self, host: HostId, ip: IpAddr) -> SiteId {
        let host = &self.hosts[host.0];
        let found = host.addresses.iter().find(|(own, _)| *own == ip);
        let Some((_, site)) = found else {
            panic!("{} sends from {ip}, which is not its address", host.name);
        };
        *site
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

    /// Puts a packet onto the internet, with whatever source address: what an attacker does who
    /// sits beside the path.
    pub fn inject(&mut self, packet: Packet) {
        self.trace_packet("attacker", &packet, "spoofed");
        let event = Event::Descend {
            site: INTERNET,
            packet,
            origin: None,
        };
        self.schedule(Duration::ZERO, event);
    }

    /// Sends a datagram from a socket of a host.
    ///
    /// # Panics
    /// Panics if the host has no such address, or for a payload longer than UDP can carry.
    pub fn send(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr, data: &[u8]) {
        assert!(
            data.len() <= super::link::NO_MTU,
            "datagram of {} bytes",
            data.len()
        );
        let (mut site, mut from) = (self.site_of(host, local.ip()), local);
        let mut copies = vec![(LAN, data.to_vec())];
        let now = self.now;
        let fate = loop {
            if self.is_below(site, remote.ip()) {
                break "";
            }
            let Some((parent, gateway)) = &mut self.sites[site.0].up else {
                break "no route";
            };
            if !gateway.firewall.lets_udp_out() {
                if gateway.firewall.rejects {
                    let told = Arrival::Unreachable { local, remote };
                    self.schedule(LAN, Event::Tell(host, told));
                }
                copies.clear();
                break "firewall";
            }
            if let Some(nat) = &mut gateway.nat {
                if nat.external() == Some(remote.ip()) && !nat.kind.hairpin {
                    copies.clear();
                    break "no hairpin";
                }
                from = nat.outbound(now, &mut self.choices, Protocol::Udp, from, remote);
            }
            let mut passed = Vec::new();
            for (time, data) in copies {
                for (more, data) in gateway.link.pass(now, &mut self.choices, data) {
                    passed.push((time + more, data));
                }
            }
            copies = passed;
            site = *parent;
            if copies.is_empty() {
                break "lost";
            }
        };
        if self.trace.is_on() {
            let packet = Packet {
                from: local,
                to: remote,
                data: data.to_vec(),
            };
            let name = self.name(host).to_string();
            self.trace_packet(&name, &packet, fate);
        }
        if fate == "no route" {
            return;
        }
        for (time, data) in copies {
            let packet = Packet {
                from,
                to: remote,
                data,
            };
            let event = Event::Descend {
                site,
                packet,
                origin: Some((host, local, remote)),
            };
            self.schedule(time, event);
        }
    }

    /// Whether an address is in this site or below it.
    fn is_below(&self, site: SiteId, ip: IpAddr) -> bool {
        self.sites[site.0].owners.contains_key(&ip)
    }

    fn trace_packet(&self, who: &str, packet: &Packet, fate: &str) {
        self.trace.line(self.now, who, || {
            let Packet { from, to, data } = packet;
            let what = match self.describe {
                Some(describe) => describe(data),
                None => format!("{:02x?}", data.get(..data.len().min(8)).unwrap_or_default()),
            };
            let fate = if fate.is_empty() {
                String::new()
            } else {
                format!(" ({fate})")
            };
            format!("udp {from} -> {to} {} bytes {what}{fate}", data.len())
        });
    }

    /// A packet is in a site: hands it down, or to its host.
    fn descend(
        &mut self,
        site: SiteId,
        mut packet: Packet,
        origin: Option<(HostId, SocketAddr, SocketAddr)>,
    ) -> Option<(HostId, Arrival)> {
        let now = self.now;
        match *self.sites[site.0].owners.get(&packet.to.ip())? {
            Owner::Host(host) => {
                if self.sockets.get(&(site, packet.to)) == Some(&host) {
                    return Some((
                        host,
                        Arrival::Datagram {
                            local: packet.to,
                            remote: packet.from,
                            data: packet.data,
                        },
                    ));
                }
                if let Some((host, local, remote)) = origin.filter(|_| self.icmp) {
                    let told = Arrival::Unreachable { local, remote };
                    self.schedule(LAN, Event::Tell(host, told));
                }
                None
            }
            Owner::Child(child) => {
                let (_, gateway) = self.sites[child.0].up.as_mut()?;
                if let Some(nat) = &gateway.nat {
                    let Some(inside) = nat.inbound(now, Protocol::Udp, packet.from, packet.to)
                    else {
                        self.trace_packet("net", &packet, "filtered");
                        return None;
                    };
                    packet.to = inside;
                }
                let passed = gateway.link.pass(now, &mut self.choices, packet.data);
                for (time, data) in passed {
                    let packet = Packet { data, ..packet };
                    let event = Event::Descend {
                        site: child,
                        packet,
                        origin,
                    };
                    self.schedule(time, event);
                }
                None
            }
        }
    }

    /// The way of a connection attempt out of its site: where it arrives, from which address, and
    /// how long that takes.
    pub(super) fn climb_tcp(
        &mut self,
        site: SiteId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<(SiteId, SocketAddr, Duration), ConnectFailure> {
        let (mut site, mut from, mut time) = (site, local, LAN);
        let now = self.now;
        while !self.is_below(site, remote.ip()) {
            let Some((parent, gateway)) = &mut self.sites[site.0].up else {
                return Err(ConnectFailure::TimedOut);
            };
            if !gateway.firewall.lets_tcp_out(remote) {
                return Err(if gateway.firewall.rejects {
                    ConnectFailure::Refused
                } else {
                    ConnectFailure::TimedOut
                });
            }
            if let Some(nat) = &mut gateway.nat {
                if nat.external() == Some(remote.ip()) && !nat.kind.hairpin {
                    return Err(ConnectFailure::TimedOut);
                }
                from = nat.outbound(now, &mut self.choices, Protocol::Tcp, from, remote);
            }
            time += gateway.link.delay;
            site = *parent;
        }
        Ok((site, from, time))
    }

    /// Where a connection attempt goes that is in a site: `Ok` when it is at its host.
    pub(super) fn descend_tcp(
        &mut self,
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<Result<HostId, (SiteId, SocketAddr, Duration)>> {
        let now = self.now;
        match *self.sites[site.0].owners.get(&to.ip())? {
            Owner::Host(host) => Some(Ok(host)),
            Owner::Child(child) => {
                let (_, gateway) = self.sites[child.0].up.as_ref()?;
                let to = match &gateway.nat {
                    Some(nat) => nat.inbound(now, Protocol::Tcp, from, to)?,
                    None => to,
                };
                Some(Err((child, to, gateway.link.delay)))
            }
        }
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
