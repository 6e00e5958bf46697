//! Two peers, each behind something, with or without STUN and TURN servers.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ice_proto::Instant;

use super::model::{Reach, direct_path};
use super::peer_node::{COMPONENT, Peer, Relay, Signal, session};
use super::session::Command;
use crate::sim::{
    Allowed, Arrival, Choices, Cuts, Dependence, Firewall, Gateway, HostId, INTERNET, Link,
    NatKind, Net, Outbox, Packet, SiteId, Trace, World,
};
use crate::turn::node::{ServerNode, describe};

struct IceWorld {
    peers: Vec<Peer>,
    server: ServerNode,
    signals: BTreeMap<u64, (usize, Signal)>,
    next_signal: u64,
    /// Signalling keeps the order of what it carries.
    last_signal: [Instant; 2],
    chaos: HostId,
    sites: Vec<SiteId>,
    seen: alloc::rc::Rc<core::cell::RefCell<Vec<Packet>>>,
    healed: bool,
    /// A server or a NAT has forgotten what it knew.
    forgotten: bool,
}

impl IceWorld {
    /// Hands what the peers have to say to signalling.
    fn carry(&mut self, net: &mut Net) {
        for (from, peer) in self.peers.iter_mut().enumerate() {
            for signal in core::mem::take(&mut peer.outbound) {
                let to = 1 - from;
                let wait = net.choices().duration(Duration::from_millis(200));
                let at = net.now().checked_add(wait).expect("time");
                let at = at.max(self.last_signal[to]);
                self.last_signal[to] = at.checked_add(Duration::from_micros(1)).expect("time");
                self.signals.insert(self.next_signal, (to, signal));
                net.alarm(self.chaos, at.duration_since(net.now()), self.next_signal);
                self.next_signal += 1;
            }
        }
    }

    fn chaos(&mut self, net: &mut Net) {
        if self.healed {
            return;
        }
        match net.choices().below(8) {
            0 => {
                self.forgotten = true;
                if let Some(site) = self.sites.first() {
                    net.rebind(*site);
                }
            }
            1 => {
                self.forgotten = true;
                self.server.restart(net);
            }
            2 => net.lateness = net.choices().duration(Duration::from_secs(5)),
            3 => net.lateness = Duration::ZERO,
            _ => {
                let seen = self.seen.borrow();
                if seen.is_empty() {
                    return;
                }
                let mut packet = net.choices().pick(&seen).clone();
                if net.choices().flip() && !packet.data.is_empty() {
                    let at = net.choices().index(packet.data.len());
                    packet.data[at] ^= 1 << net.choices().below(8);
                }
                if net.choices().chance(300) {
                    packet.from = net.choices().pick(&seen).from;
                }
                net.inject(packet);
            }
        }
        let wait = net.choices().duration(Duration::from_secs(4));
        net.alarm(self.chaos, wait, u64::MAX);
    }

    /// Whether checks between the two NATs all come from new ports and yet get through: each side
    /// learns addresses without end, no pair works, and what is left of the limits may not suffice
    /// for the relay.
    fn floods(&self, together: bool) -> bool {
        let loose = |peer: &Peer| match peer.reach {
            Reach::Public => false,
            Reach::Nat(kind) => {
                kind.mapping != Dependence::Endpoint && kind.filtering != Dependence::AddressAndPort
            }
        };
        !together && self.peers.iter().all(|peer| peer.udp && loose(peer))
    }

    /// Whether data can flow at all, and whether it can flow without relay.
    fn expected(&self, together: bool) -> (bool, bool) {
        let [a, b] = &self.peers[..] else {
            return (false, false);
        };
        let direct = together || a.udp && b.udp && direct_path(a.reach, b.reach);
        let relay = |own: &Peer, other: &Peer| {
            own.relay != Relay::None && (other.udp || other.relay != Relay::None)
        };
        (direct || relay(a, b) || relay(b, a), direct)
    }
}

impl World for IceWorld {
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival) {
        if to == self.server.host {
            self.server.deliver(net, arrival);
        } else if let Some(peer) = self.peers.iter_mut().find(|peer| peer.host == to) {
            peer.deliver(net, arrival);
        } else if let Arrival::Alarm(token) = arrival {
            match self.signals.remove(&token) {
                Some((to, signal)) => {
                    net.note(self.peers[to].host, || format!("hears {signal:?}"));
                    self.peers[to].signal(net, signal);
                }
                None => self.chaos(net),
            }
        }
        self.carry(net);
    }

    fn deadline(&self) -> Option<Instant> {
        let peers = self.peers.iter().filter_map(|peer| peer.machine.deadline());
        peers.chain(self.server.machine.deadline()).min()
    }

    fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        self.server.wake(net);
        for peer in &mut self.peers {
            if peer.machine.deadline().is_some_and(|at| at <= now) {
                let outputs = peer.machine.timeout(now);
                peer.outputs(net, outputs);
            }
        }
        self.carry(net);
    }
}

fn peer(net: &mut Net, number: u8, site: SiteId, address: IpAddr, reach: Reach, udp: bool) -> Peer {
    let name = ["alice", "bob"][usize::from(number)];
    let host = net.host(name, &[(address, site)]);
    let local = SocketAddr::new(address, 5000);
    net.bind(host, local);
    let relay = *net.choices().pick(&[Relay::None, Relay::Udp, Relay::Tcp]);
    // Without UDP only a stream leads to the server.
    let relay = if !udp && relay == Relay::Udp {
        Relay::Tcp
    } else {
        relay
    };
    let machine = session(net, name, relay);
    let mut peer = Peer {
        name,
        host,
        local,
        reach,
        udp,
        relay,
        machine,
        outbox: Outbox::new(),
        streams: BTreeMap::new(),
        described: false,
        unsent: Vec::new(),
        outbound: Vec::new(),
        completed: false,
        failed: false,
        relayed_route: false,
        got: Vec::new(),
    };
    peer.command(net, Command::AddHost(COMPONENT, local));
    peer
}

/// What a peer stands behind.
fn place(net: &mut Net, number: u8, faults: bool) -> (SiteId, IpAddr, Reach, bool) {
    let mut choices = net.choices().fork();
    let link = if faults {
        Link::drawn(&mut choices)
    } else {
        Link::clean(Duration::from_micros(choices.range(100..=40_000)))
    };
    let public = IpAddr::from([192, 0, 2, 10 + number]);
    let external = IpAddr::from([192, 0, 2, 1 + number]);
    let private = IpAddr::from([10, 0, 0, 2 + number * (choices.byte() & 1)]);
    match choices.below(6) {
        0 => {
            let site = net.site(INTERNET, Gateway::routed(link));
            (site, public, Reach::Public, true)
        }
        1 => {
            let firewall = Firewall {
                allowed: if choices.flip() {
                    Allowed::Tcp
                } else {
                    Allowed::Web
                },
                rejects: choices.flip(),
            };
            let kind = NatKind::drawn(&mut choices);
            let gateway = Gateway::nat(link, kind, external).with_firewall(firewall);
            let site = net.site(INTERNET, gateway);
            (site, private, Reach::Nat(kind), false)
        }
        _ => {
            let kind = NatKind::drawn(&mut choices);
            let site = net.site(INTERNET, Gateway::nat(link, kind, external));
            (site, private, Reach::Nat(kind), true)
        }
    }
}

fn build(net: &mut Net, faults: bool) -> (IceWorld, bool) {
    net.describe(describe);
    net.icmp = net.choices().flip();
    net.cuts = *net
        .choices()
        .pick(&[Cuts::None, Cuts::Most(20), Cuts::Wild]);
    let mut server = ServerNode::new(net);
    server.healed = !faults;
    // A session that was refused a relay does not ask again, so no path could be foretold.
    server.slow_relays = false;
    let together = net.choices().chance(100);
    let (site, address, reach, udp) = place(net, 0, faults);
    let alice = peer(net, 0, site, address, reach, udp);
    let (site, address, reach, udp) = if together {
        let address = match address {
            IpAddr::V4(v4) => IpAddr::from(v4.to_bits().wrapping_add(7).to_be_bytes()),
            IpAddr::V6(_) => address,
        };
        (site, address, reach, udp)
    } else {
        place(net, 1, faults)
    };
    let bob = peer(net, 1, site, address, reach, udp);
    let chaos = net.host("signal", &[]);
    let seen = alloc::rc::Rc::default();
    let world = IceWorld {
        peers: Vec::from([alice, bob]),
        server,
        signals: BTreeMap::new(),
        next_signal: 0,
        last_signal: [Instant::ZERO; 2],
        chaos,
        sites: Vec::from([SiteId(1)]),
        seen,
        healed: !faults,
        forgotten: false,
    };
    (world, together)
}

/// Two peers meet through everything NATs and firewalls do: at once when nothing else goes wrong,
/// and after a restart when the faults are over. A path without relay is found exactly if there
/// is one and no relay; data flows both ways.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_ice(choices: Choices, trace: Trace) {
    let mut net = Net::new(choices, trace);
    let faults = net.choices().flip();
    meet(net, faults, false);
}

/// As [`sim_ice`] with faults, but peers without relay restart their sessions even when a NAT has
/// forgotten them, instead of beginning anew.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_ice_restart(choices: Choices, trace: Trace) {
    meet(Net::new(choices, trace), true, true);
}

fn meet(mut net: Net, faults: bool, restarts: bool) {
    let (mut world, together) = build(&mut net, faults);
    let (possible, direct) = world.expected(together);
    world.peers[0].describe(&mut net, true);
    world.carry(&mut net);
    if faults {
        let kept = alloc::rc::Rc::clone(&world.seen);
        net.tap(move |_, choices, packet| {
            let mut seen = kept.borrow_mut();
            if seen.len() < 30 {
                seen.push(packet.clone());
            } else if choices.chance(100) {
                let at = choices.index(30);
                seen[at] = packet.clone();
            }
            Vec::from([packet])
        });
        net.alarm(world.chaos, Duration::from_secs(1), u64::MAX);
        let time = net.choices().duration(Duration::from_secs(60));
        net.run_for(&mut world, time);
        net.heal();
        world.healed = true;
        world.server.healed = true;
        // What is under way arrives; then the peers agree anew.
        net.run_for(&mut world, Duration::from_secs(2));
        // A TURN client learns only when it refreshes that its relay is gone: who may have lost one
        // begins anew. The others restart.
        let relays = world.peers.iter().any(|peer| peer.relay != Relay::None);
        if world.forgotten && (relays || !restarts) {
            world.signals.clear();
            world.peers.iter_mut().for_each(|peer| peer.renew(&mut net));
        } else {
            world.peers[0].restart(&mut net);
        }
        world.peers[0].describe(&mut net, true);
        world.carry(&mut net);
    }
    let until = net
        .now()
        .checked_add(Duration::from_secs(300))
        .expect("time");
    net.run(&mut world, until, |world| {
        world.peers.iter().all(|peer| peer.completed || peer.failed)
    });
    let floods = world.floods(together);
    let possible = if floods {
        // Nothing is foretold; whoever controls has to come to an end.
        let [alice, bob] = &world.peers[..] else {
            return;
        };
        assert!(
            alice.completed != alice.failed,
            "the controlling side hangs"
        );
        alice.completed && bob.completed
    } else {
        possible
    };
    for peer in world.peers.iter().filter(|_| !floods) {
        let name = net.name(peer.host);
        assert_eq!(
            (peer.completed, peer.failed),
            (possible, !possible),
            "{name} completed, failed; with {:?} and {:?}, relays {:?} {:?}",
            world.peers[0].reach,
            world.peers[1].reach,
            world.peers[0].relay,
            world.peers[1].relay,
        );
    }
    let relayed = world.peers.iter().any(|peer| peer.relayed_route);
    assert!(!possible || direct || relayed, "a path that cannot be");
    if possible {
        prove(&mut net, &mut world, faults);
    }
    for peer in &mut world.peers {
        peer.command(&mut net, Command::Close);
    }
    net.run_for(&mut world, Duration::from_secs(60));
    let mut choices = net.choices().fork();
    for peer in world.peers {
        assert!(peer.machine.is_ended(), "closed, and no end");
        peer.machine.finish(&mut choices);
    }
    world.server.machine.finish(&mut choices);
}

/// Data gets through both ways.
fn prove(net: &mut Net, world: &mut IceWorld, faults: bool) {
    for from in 0..2 {
        let len = net.choices().range(1..=1000) as usize;
        let mut data = net.choices().fork().bytes(len);
        data[0] |= 0x80;
        world.peers[1 - from].got.clear();
        for _ in 0..3 {
            world.peers[from].command(net, Command::Send(COMPONENT, data.clone()));
            net.run_for(world, Duration::from_millis(1500));
        }
        let got = &world.peers[1 - from].got;
        let name = net.name(world.peers[1 - from].host);
        assert!(got.contains(&data), "{name} got no data");
        // A check that was altered and held back on the way may no longer look like one.
        let other = got.iter().any(|got| *got != data);
        assert!(faults || !other, "{name} got other data");
    }
}
