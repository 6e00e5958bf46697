//! Could a kernel relay by itself, told nothing but the server's events? A table is programmed from
//! them here, and must agree with the machine about every packet.

use std::collections::{BTreeMap, BTreeSet};

use core::net::{IpAddr, SocketAddr};

use stun_proto::Rng;
use stun_proto::auth::Credentials;
use turn_proto::client::{AllocateOptions, ClientConfig};
use turn_proto::server::{Event, RelayId};
use turn_proto::wire::{Channel, channel_header};
use turn_proto::{FiveTuple, Path, Received, Transport};

use crate::wired::*;

/// What a kernel would hold for one relay.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    client: Path,
    permissions: BTreeSet<IpAddr>,
    channels: BTreeMap<Channel, SocketAddr>,
}

#[derive(Debug, Default)]
struct Kernel {
    flows: BTreeMap<RelayId, Flow>,
    seen: usize,
}

impl Kernel {
    /// Takes in the events it has not seen.
    fn program(&mut self, events: &[Event]) {
        for event in &events[self.seen..] {
            match event {
                Event::AllocationCreated { relay, client, .. } => {
                    let client = Path::Datagram(*client);
                    let flow = Flow {
                        client,
                        permissions: BTreeSet::new(),
                        channels: BTreeMap::new(),
                    };
                    assert!(self.flows.insert(*relay, flow).is_none());
                }
                Event::AllocationMoved { relay, path } => self.of(*relay).client = *path,
                Event::AllocationDeleted { relay, .. } => {
                    assert!(self.flows.remove(relay).is_some());
                }
                Event::PermissionAdded { relay, peer } => {
                    assert!(self.of(*relay).permissions.insert(*peer));
                }
                Event::PermissionExpired { relay, peer } => {
                    assert!(self.of(*relay).permissions.remove(peer));
                }
                Event::ChannelBound {
                    relay,
                    channel,
                    peer,
                } => {
                    let before = self.of(*relay).channels.insert(*channel, *peer);
                    assert_eq!(before, None);
                }
                Event::ChannelUnbound { relay, channel } => {
                    assert!(self.of(*relay).channels.remove(channel).is_some());
                }
                _ => {}
            }
        }
        self.seen = events.len();
    }

    fn of(&mut self, relay: RelayId) -> &mut Flow {
        self.flows
            .get_mut(&relay)
            .expect("no event before the first or after the last")
    }

    /// ChannelData from a client: where it goes.
    fn to_peer(&self, client: Path, channel: Channel) -> Option<(RelayId, SocketAddr)> {
        self.flows.iter().find_map(|(relay, flow)| {
            let peer = *flow.channels.get(&channel)?;
            let may = flow.client == client && flow.permissions.contains(&peer.ip());
            may.then_some((*relay, peer))
        })
    }

    /// A peer's datagram: where it goes, on which channel.
    fn to_client(&self, relay: RelayId, peer: SocketAddr) -> Option<(Path, Channel)> {
        let flow = self.flows.get(&relay)?;
        let mut channels = flow.channels.iter();
        let (channel, _) = channels.find(|(_, at)| **at == peer)?;
        let may = flow.permissions.contains(&peer.ip());
        may.then_some((flow.client, *channel))
    }
}

/// As the server names a path.
fn seen(local: SocketAddr) -> Path {
    Path::Datagram(FiveTuple::udp(server_addr(), local))
}

struct Run {
    world: World,
    kernel: Kernel,
    rng: Rng,
    /// Relays that ever were.
    relays: BTreeSet<RelayId>,
    hits: usize,
}

const PEERS: u32 = 6;

fn peer(n: u32) -> SocketAddr {
    // Two ports for each address; the last are of IPv6.
    let ip: IpAddr = if n < 4 {
        [9, 9, 9, (n / 2) as u8 + 1].into()
    } else {
        [0x2600, 0, 0, 0, 0, 0, 0, 1].into()
    };
    SocketAddr::new(ip, 1000 + n as u16 % 2)
}

impl Run {
    fn new(seed: u8) -> Self {
        let mut config = server_config();
        config.mobility = true;
        config.limits.permissions = 3;
        Self {
            world: World::with(config),
            kernel: Kernel::default(),
            rng: Rng::from_seed([seed; 32]),
            relays: BTreeSet::new(),
            hits: 0,
        }
    }

    /// Somebody does something.
    fn act(&mut self) {
        let ends = self.world.ends.len() as u32;
        let now = self.world.now;
        if ends == 0 || self.rng.below(12) == 0 {
            let name = ["alice", "bob"][self.rng.below(2) as usize];
            let password = if name == "alice" {
                "secret"
            } else {
                "password"
            };
            let config = ClientConfig {
                credentials: Some(Credentials::new(name, password)),
                ..client_config()
            };
            let end = self.world.end(config, Transport::Udp, 40_000 + ends as u16);
            let options = AllocateOptions {
                mobility: true,
                additional_v6: self.rng.below(2) == 0,
                ..AllocateOptions::default()
            };
            return self.world.allocate(end, options);
        }
        let end = self.rng.below(ends) as usize;
        let to = peer(self.rng.below(PEERS));
        let action = self.rng.below(9);
        let client = self.world.client(end);
        // What is refused is refused.
        match action {
            0 | 1 => {
                let _ = client.bind_channel(now, to);
            }
            2 => {
                let _ = client.create_permission(now, to.ip());
            }
            3 => client.release_channel(now, to),
            4 => client.release_permission(now, to.ip()),
            5 if self.rng.below(3) == 0 => client.close(now),
            6 => {
                let family = turn_proto::wire::AddressFamily::of(to.ip());
                let _ = client.release_family(now, family);
            }
            7 => {
                let local =
                    SocketAddr::new(ip("198.51.100.77"), 1000 + self.rng.below(60_000) as u16);
                let path = Path::Datagram(FiveTuple::udp(local, server_addr()));
                if client.path_changed(now, path, Transport::Udp).is_ok() {
                    self.world.ends[end].elsewhere.push(local);
                }
            }
            _ => {}
        }
        self.world.step();
        if action == 8 {
            let wait = [1, 30, 100, 250, 600][self.rng.below(5) as usize];
            self.world.run(now + secs(wait));
        }
    }

    /// Machine and table say the same about every packet there could be. In the packet by which a
    /// client arrives at its new address the machine knows more, as it should.
    fn compare(&mut self) {
        self.world.step();
        self.kernel.program(&self.world.events);
        self.relays.extend(self.world.relays.keys());
        // A kernel that begins now is told the same.
        let mut anew = Kernel::default();
        anew.program(&self.world.server.standing_events().collect::<Vec<_>>());
        assert_eq!(anew.flows, self.kernel.flows);
        let now = self.world.now;
        let paths: Vec<Path> = (self.world.ends.iter())
            .flat_map(|end| end.elsewhere.iter().chain([&end.local]))
            .map(|local| seen(*local))
            .collect();
        let numbers: BTreeSet<Channel> = (self.kernel.flows.values())
            .flat_map(|flow| flow.channels.keys().copied())
            .collect();
        for path in &paths {
            for channel in &numbers {
                let expected = self.kernel.to_peer(*path, *channel);
                let known = self.kernel.flows.values().any(|flow| flow.client == *path);
                if !known {
                    continue;
                }
                let Path::Datagram(at) = *path else { continue };
                let mut packet = channel_header(*channel, 3).unwrap().to_vec();
                packet.extend(b"abc");
                let got = match self.world.server.handle_datagram(now, at, &packet) {
                    Received::Data { peer, .. } => Some((peer.relay, peer.peer)),
                    Received::Consumed | Received::NotMine => None,
                };
                assert_eq!(got, expected, "{path:?} {channel:?} at {now:?}");
                self.hits += usize::from(got.is_some());
            }
        }
        for relay in &self.relays {
            for peer in (0..PEERS).map(peer) {
                let expected = self.kernel.to_client(*relay, peer);
                let expected = expected
                    .map(|(path, channel)| (path, channel_header(channel, 3).unwrap().to_vec()));
                let forward = self.world.server.handle_relay(now, *relay, peer, 3);
                let got = forward.map(|forward| (forward.to, forward.header.as_bytes().to_vec()));
                // Without a channel it takes an indication, which is the machine's.
                let got = got.filter(|(_, header)| header.len() == 4);
                assert_eq!(got, expected, "{relay:?} {peer} at {now:?}");
                self.hits += usize::from(got.is_some());
            }
        }
    }
}

// spec: TURN-9-1, TURN-12-2, TURN-12.5-1
#[test]
fn a_table_programmed_from_events_agrees_with_the_machine_about_every_packet() {
    const RUNS: u8 = if cfg!(debug_assertions) { 6 } else { 60 };
    let mut hits = 0;
    for seed in 0..RUNS {
        let mut run = Run::new(seed);
        for _ in 0..100 {
            run.act();
            run.compare();
        }
        hits += run.hits;
        // Nothing is left over when all is done.
        run.world.run(run.world.now + secs(10_000));
        for end in 0..run.world.ends.len() {
            let now = run.world.now;
            run.world.client(end).close(now);
        }
        run.world.step();
        run.world.run(run.world.now + secs(4000));
        run.kernel.program(&run.world.events);
        assert!(run.kernel.flows.is_empty(), "{:?}", run.kernel);
    }
    assert!(hits > 250 * usize::from(RUNS), "{hits}");
}

#[test]
fn bytes_of_a_faster_path_are_accounted_for() {
    let mut config = server_config();
    config.limits.user_bandwidth = 10_000;
    let mut world = World::with(config);
    let end = world.udp(40_000);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, "9.9.9.9:9");
    let relay = world.relay_of(end);
    let channel = world.ends[end].client.channel_of(addr("9.9.9.9:9"));
    assert!(channel.is_some());
    assert_eq!(world.ends[end].client.channel_of(addr("9.9.9.9:8")), None);
    assert!(world.talks(end, "9.9.9.9:9"));
    // More than a second's worth: nothing is left for the machine's own path until more comes.
    let now = world.now;
    assert_eq!(world.server.relayed_bytes(relay), Some((4, 4)));
    world.server.count_relayed(now, relay, 9000, 5000);
    assert_eq!(world.server.relayed_bytes(relay), Some((9004, 5004)));
    assert_eq!(world.server.relayed_bytes(RelayId(999)), None);
    assert!(!world.talks(end, "9.9.9.9:9"));
    world.run(at(1));
    assert!(world.talks(end, "9.9.9.9:9"));
    // Nobody's relay.
    world.server.count_relayed(at(1), RelayId(999), 1, 1);
    world.client(end).close(at(1));
    world.step();
    let Some(Event::AllocationDeleted {
        to_peers,
        to_client,
        ..
    }) = world.events.last()
    else {
        panic!();
    };
    assert_eq!((*to_peers, *to_client), (9000 + 2 * 4, 5000 + 2 * 4));
    assert_eq!(world.ends[end].client.channel_of(addr("9.9.9.9:9")), None);
}
