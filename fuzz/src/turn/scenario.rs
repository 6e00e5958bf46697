//! Clients behind NATs and firewalls, a server, peers that echo, and attackers.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use stun_proto::auth::Credentials;
use stun_proto::{FiveTuple, Instant, Path, StreamId, Transport};
use turn_proto::client::{AllocateOptions, Client, ClientConfig, Event};

use super::client::{ClientIn, ClientMachine, ClientOut, Command};
use super::node::{SERVER, ServerNode, TCP_PORT, UDP_PORT, at, describe, ip};
use crate::contract::Checked;
use crate::sim::{
    Arrival, Choices, Cuts, Dependence, End, Gateway, HostId, INTERNET, Link, NatKind, Net, Outbox,
    Packet, Trace, World,
};

/// Echo to whoever sends.
const PEERS: [&str; 2] = ["203.0.113.1:7", "203.0.113.2:7"];

/// A client's host with its application.
struct ClientNode {
    host: HostId,
    ip: IpAddr,
    transport: Transport,
    machine: Option<Checked<ClientMachine>>,
    path: Option<Path>,
    connecting: Option<End>,
    outbox: Outbox,
    /// The relayed address.
    relayed: Option<SocketAddr>,
    /// Not before this may a new client be started.
    not_before: Instant,
    /// What must come back, and whether it has.
    expected: Option<(SocketAddr, Vec<u8>)>,
    echoed: bool,
    unanswered: u32,
    healed: bool,
}

impl ClientNode {
    fn server(&self) -> SocketAddr {
        let port = if self.transport.is_stream() {
            TCP_PORT
        } else {
            UDP_PORT
        };
        SocketAddr::new(ip(SERVER), port)
    }

    /// Opens a socket and a client on it.
    fn start(&mut self, net: &mut Net) {
        if self.connecting.is_some() || net.now() < self.not_before {
            return;
        }
        if self.transport.is_stream() {
            self.connecting = Some(net.connect(self.host, self.ip, self.server()));
        } else {
            let local = SocketAddr::new(self.ip, net.free_port(self.host));
            net.bind(self.host, local);
            let at = FiveTuple::udp(local, self.server());
            self.open(net, Path::Datagram(at));
        }
    }

    fn open(&mut self, net: &mut Net, path: Path) {
        let (now, transport) = (net.now(), self.transport);
        let seed = net.choices().machine_seed();
        let wrong = !self.healed && net.choices().chance(20);
        let machine = Checked::new("client", now, move || {
            let password = if wrong { "wrong" } else { "secret" };
            let config = ClientConfig::new(Some(Credentials::new("alice", password)));
            ClientMachine(Client::new(config, path, transport, seed, now))
        });
        self.path = Some(path);
        self.machine = Some(machine);
        let mut options = AllocateOptions::default();
        if net.choices().chance(100) {
            let seconds = net.choices().below(5000);
            options.lifetime = Some(Duration::from_secs(seconds));
        }
        self.command(net, Command::Allocate(options));
    }

    fn command(&mut self, net: &mut Net, command: Command) {
        self.input(net, ClientIn::Command(command));
    }

    fn input(&mut self, net: &mut Net, input: ClientIn) {
        let now = net.now();
        if let Some(machine) = &mut self.machine {
            let outputs = machine.input(now, input);
            self.outputs(net, outputs);
        }
    }

    fn outputs(&mut self, net: &mut Net, outputs: Vec<ClientOut>) {
        let mut asks = None;
        for output in outputs {
            match output {
                ClientOut::Transmit(Path::Datagram(at), data) => {
                    net.send(self.host, at.local, at.remote, &data);
                }
                ClientOut::Transmit(Path::Stream(id), data) => {
                    self.outbox.write(net, End(id.0), &data);
                }
                ClientOut::Event(event) => {
                    net.note(self.host, || format!("{event:?}"));
                    match event {
                        Event::Allocated { relayed, .. } => {
                            self.relayed = Some(relayed);
                            asks = Some(at(PEERS[net.choices().index(2)]));
                        }
                        Event::AllocateFailed { retry_after, .. } => {
                            let wait = retry_after.unwrap_or(Duration::from_secs(2));
                            let wait = wait.min(Duration::from_secs(60));
                            self.not_before = net.now().checked_add(wait).expect("time");
                        }
                        _ => {}
                    }
                }
                ClientOut::Data(peer, data) => {
                    net.note(self.host, || format!("data of {} from {peer}", data.len()));
                    if self.expected == Some((peer, data)) {
                        self.echoed = true;
                    }
                }
                ClientOut::NotMine => {}
                ClientOut::Refused(why) => net.note(self.host, || format!("refused: {why}")),
            }
        }
        if self.machine.as_ref().is_some_and(Checked::is_ended) {
            self.drop_machine(net);
        } else if let Some(peer) = asks {
            let command = if net.choices().flip() {
                Command::Permission(peer.ip())
            } else {
                Command::Bind(peer)
            };
            self.command(net, command);
        }
    }

    /// The client has ended, or its host has crashed.
    fn drop_machine(&mut self, net: &mut Net) {
        self.relayed = None;
        match self.path.take() {
            Some(Path::Datagram(at)) => net.unbind(self.host, at.local),
            Some(Path::Stream(id)) => {
                self.outbox.forget(End(id.0));
                net.close(End(id.0));
            }
            None => {}
        }
        if let Some(machine) = self.machine.take() {
            let mut choices = net.choices().fork();
            machine.finish(&mut choices);
        }
    }

    fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        let current = |end: End| self.path == Some(Path::Stream(StreamId(end.0)));
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } => self.input(net, ClientIn::Datagram(FiveTuple::udp(local, remote), data)),
            Arrival::Unreachable { remote, .. } => {
                if remote == self.server() && self.path.is_some() {
                    self.input(net, ClientIn::Icmp);
                }
            }
            Arrival::Connected { end, .. } if self.connecting == Some(end) => {
                self.connecting = None;
                self.open(net, Path::Stream(StreamId(end.0)));
            }
            Arrival::ConnectFailed { .. } => {
                self.connecting = None;
            }
            Arrival::Bytes { end, data } if current(end) => {
                self.input(net, ClientIn::Stream(StreamId(end.0), data));
            }
            Arrival::Eof { end } | Arrival::Reset { end } => {
                if self.connecting == Some(end) {
                    self.connecting = None;
                }
                if current(end) {
                    self.input(net, ClientIn::StreamClosed(StreamId(end.0)));
                } else {
                    net.close(end);
                }
            }
            Arrival::Writable { end } => self.outbox.flush(net, end),
            Arrival::Alarm(_) => {
                self.tick(net);
                let wait = if self.healed {
                    Duration::from_secs(1)
                } else {
                    let longest = *net.choices().pick(&[2, 20, 200]);
                    net.choices().duration(Duration::from_secs(longest))
                };
                net.alarm(self.host, wait, 0);
            }
            Arrival::Connected { .. } | Arrival::Bytes { .. } | Arrival::Accepted { .. } => {}
        }
    }

    /// What the application does now and then.
    fn tick(&mut self, net: &mut Net) {
        if self.machine.is_none() {
            return self.start(net);
        }
        if self.healed {
            return self.prove(net);
        }
        let peer = at(PEERS[net.choices().index(2)]);
        match net.choices().below(20) {
            0 => self.command(net, Command::Close),
            1 => {
                net.note(self.host, || "crashes");
                self.drop_machine(net);
            }
            2..=4 => self.command(net, Command::Permission(peer.ip())),
            5..=7 => self.command(net, Command::Bind(peer)),
            8 => {
                let stranger = at("203.0.113.99:1");
                self.command(net, Command::Bind(stranger));
            }
            _ => {
                let len = *net.choices().pick(&[0, 1, 3, 100, 1200]);
                let data = net.choices().bytes(len);
                self.command(net, Command::Send(peer, data));
            }
        }
    }

    /// All faults are over: an echo must come back. A client that notices that its allocation is
    /// dead starts again, as ICE would have it do.
    fn prove(&mut self, net: &mut Net) {
        if self.echoed || self.relayed.is_none() {
            return;
        }
        self.unanswered += 1;
        if self.unanswered > 8 {
            self.unanswered = 0;
            net.note(self.host, || "no echo, starts again");
            self.drop_machine(net);
            return self.start(net);
        }
        let (peer, data) = self.expected.clone().unwrap_or_else(|| {
            let len = net.choices().range(1..=1200) as usize;
            (at(PEERS[net.choices().index(2)]), net.choices().bytes(len))
        });
        self.expected = Some((peer, data.clone()));
        self.command(net, Command::Permission(peer.ip()));
        self.command(net, Command::Send(peer, data));
    }
}

struct TurnWorld {
    server: ServerNode,
    clients: Vec<ClientNode>,
    peers: Vec<HostId>,
    /// Restarts the server, rebinds NATs, injects what it saw.
    chaos: HostId,
    seen: Rc<RefCell<Vec<Packet>>>,
    natted: Vec<crate::sim::SiteId>,
    healed: bool,
}

impl World for TurnWorld {
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival) {
        if to == self.server.host {
            self.server.deliver(net, arrival);
        } else if self.peers.contains(&to) {
            if let Arrival::Datagram {
                local,
                remote,
                data,
            } = arrival
                && remote.ip() == ip(SERVER)
            {
                net.send(to, local, remote, &data);
            }
        } else if to == self.chaos {
            self.chaos(net);
        } else if let Some(client) = self.clients.iter_mut().find(|client| client.host == to) {
            client.deliver(net, arrival);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let clients = self
            .clients
            .iter()
            .filter_map(|client| client.machine.as_ref());
        let clients = clients.filter_map(Checked::deadline);
        clients.chain(self.server.machine.deadline()).min()
    }

    fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        self.server.wake(net);
        for client in &mut self.clients {
            if let Some(machine) = &mut client.machine
                && machine.deadline().is_some_and(|at| at <= now)
            {
                let outputs = machine.timeout(now);
                client.outputs(net, outputs);
            }
        }
    }
}

impl TurnWorld {
    fn chaos(&mut self, net: &mut Net) {
        if self.healed {
            return;
        }
        match net.choices().below(12) {
            0 => self.server.restart(net),
            1 => {
                if let Some(site) = self.natted.first() {
                    net.rebind(*site);
                }
            }
            2 => {
                if let Some(Path::Stream(id)) = self.clients[0].path {
                    net.reset(End(id.0));
                }
            }
            3 => {
                if let Some(Path::Stream(id)) = self.clients[0].path {
                    net.kill(End(id.0));
                }
            }
            4 => net.lateness = net.choices().duration(Duration::from_secs(700)),
            5 => net.lateness = Duration::ZERO,
            _ => {
                // Replays or forges something.
                let seen = self.seen.borrow();
                if seen.is_empty() {
                    return;
                }
                let mut packet = net.choices().pick(&seen).clone();
                if net.choices().flip() {
                    let len = packet.data.len();
                    if len > 0 {
                        let at = net.choices().index(len);
                        packet.data[at] ^= net.choices().byte();
                    }
                }
                if net.choices().chance(200) {
                    packet.to = net.choices().pick(&seen).to;
                }
                if net.choices().chance(200) {
                    packet.from = net.choices().pick(&seen).from;
                }
                net.inject(packet);
            }
        }
        let wait = net.choices().duration(Duration::from_secs(60));
        net.alarm(self.chaos, wait, 0);
    }
}

fn build(net: &mut Net) -> TurnWorld {
    net.describe(describe);
    net.icmp = net.choices().flip();
    net.cuts = *net.choices().pick(&[Cuts::None, Cuts::Most(3), Cuts::Wild]);
    net.window = *net.choices().pick(&[200, 4096, 64 * 1024]);
    let server = ServerNode::new(net);
    let peers = PEERS.map(|peer| {
        let peer = at(peer);
        let host = net.host("peer", &[(peer.ip(), INTERNET)]);
        net.bind(host, peer);
        host
    });
    let (mut clients, mut natted) = (Vec::new(), Vec::new());
    for number in 0..net.choices().range(1..=2) as u8 {
        let mut choices = net.choices().fork();
        let link = Link::drawn(&mut choices);
        let kind = if choices.flip() {
            NatKind::drawn(&mut choices)
        } else {
            NatKind::new(Dependence::AddressAndPort, Dependence::AddressAndPort)
        };
        let external = IpAddr::from([192, 0, 2, number + 1]);
        let site = net.site(INTERNET, Gateway::nat(link, kind, external));
        natted.push(site);
        let ip = IpAddr::from([10, 0, 0, 2]);
        let transport = if net.choices().chance(600) {
            Transport::Udp
        } else {
            Transport::Tcp
        };
        let host = net.host(["alice", "bob"][usize::from(number)], &[(ip, site)]);
        net.alarm(host, Duration::ZERO, 0);
        clients.push(ClientNode {
            host,
            ip,
            transport,
            machine: None,
            path: None,
            connecting: None,
            outbox: Outbox::new(),
            relayed: None,
            not_before: Instant::ZERO,
            expected: None,
            echoed: false,
            unanswered: 0,
            healed: false,
        });
    }
    let chaos = net.host("chaos", &[]);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&seen);
    net.tap(move |_, choices, packet| {
        let mut seen = kept.borrow_mut();
        if seen.len() < 50 {
            seen.push(packet.clone());
        } else if choices.chance(100) {
            let at = choices.index(50);
            seen[at] = packet.clone();
        }
        Vec::from([packet])
    });
    TurnWorld {
        server,
        clients,
        peers: peers.to_vec(),
        chaos,
        seen,
        natted,
        healed: false,
    }
}

/// Clients and server through faults and attacks; afterwards every client must get an echo through
/// its relay within two minutes.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_turn(choices: Choices, trace: Trace) {
    let mut net = Net::new(choices, trace);
    let mut world = build(&mut net);
    net.alarm(world.chaos, Duration::from_secs(1), 0);
    let longest = *net.choices().pick(&[5, 60, 1300]);
    let faults = net.choices().duration(Duration::from_secs(longest));
    net.run_for(&mut world, faults);
    net.heal();
    world.healed = true;
    world.server.healed = true;
    for client in &mut world.clients {
        client.healed = true;
        // Who was told to wait, waits; the time is bounded all the same.
        client.not_before = net.now();
        net.alarm(client.host, Duration::ZERO, 0);
    }
    let until = net.now().checked_add(Duration::from_secs(180));
    let done = net.run(&mut world, until.expect("time"), |world| {
        world.clients.iter().all(|client| client.echoed)
    });
    assert!(done, "no echo three minutes after the last fault");
    let mut choices = net.choices().fork();
    for client in &mut world.clients {
        client.drop_machine(&mut net);
    }
    world.server.machine.finish(&mut choices);
}
