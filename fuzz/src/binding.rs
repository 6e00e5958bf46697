//! The Binding client as a machine under watch, and its life with a server behind a NAT.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use stun_proto::binding::{
    BindingAction, BindingClient, BindingClientConfig, BindingEvent, BindingServer,
    BindingServerConfig, MAX_TRANSMIT, RequestId,
};
use stun_proto::{FiveTuple, Instant, Path, Received};

use crate::contract::{Checked, Machine};
use crate::sim::{
    Arrival, Choices, Gateway, HostId, INTERNET, Link, NatKind, Net, SiteId, Trace, World,
};

/// What goes into a client.
#[derive(Clone, Debug)]
pub enum BindingIn {
    /// A datagram.
    Datagram(FiveTuple, Vec<u8>),
    /// An ICMP error, hard or not.
    Icmp(FiveTuple, bool),
    /// The application asks.
    Request(Path),
    /// The path is to be kept open.
    KeepAlive(Path, Option<Duration>),
}

/// What comes out of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum BindingOut {
    /// Bytes for the server.
    Transmit(Path, Vec<u8>),
    /// What the host must do.
    Action(BindingAction),
    /// An event.
    Event(BindingEvent),
    /// The request has this number.
    Asked(RequestId),
    /// A datagram that is not the client's.
    NotMine,
    /// A command was refused.
    Refused(String),
}

/// A client.
#[derive(Debug)]
pub struct BindingMachine(pub BindingClient);

impl Machine for BindingMachine {
    type Input = BindingIn;
    type Output = BindingOut;

    fn input(&mut self, now: Instant, input: &BindingIn, out: &mut Vec<BindingOut>) {
        match input {
            BindingIn::Datagram(at, data) => {
                if self.0.handle_datagram(now, *at, data) == Received::NotMine {
                    out.push(BindingOut::NotMine);
                }
            }
            BindingIn::Icmp(at, hard) => self.0.handle_icmp(now, *at, *hard),
            BindingIn::Request(path) => out.push(match self.0.request(now, *path) {
                Ok(id) => BindingOut::Asked(id),
                Err(why) => BindingOut::Refused(format!("{why}")),
            }),
            BindingIn::KeepAlive(path, interval) => {
                if let Err(why) = self.0.keep_alive(now, *path, *interval) {
                    out.push(BindingOut::Refused(format!("{why}")));
                }
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll(&mut self, _room: usize) -> Option<BindingOut> {
        let mut buf = [0; MAX_TRANSMIT];
        if let Some(transmit) = self.0.poll_transmit(&mut buf) {
            let bytes = buf[..transmit.len].to_vec();
            return Some(BindingOut::Transmit(transmit.to, bytes));
        }
        let action = self.0.poll_action().map(BindingOut::Action);
        action.or_else(|| self.0.poll_event().map(BindingOut::Event))
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn is_silence(output: &BindingOut) -> bool {
        matches!(output, BindingOut::NotMine | BindingOut::Refused(_))
    }

    fn noise(&self, choices: &mut Choices) -> Option<BindingIn> {
        let local = SocketAddr::from(([203, 0, 113, 7], 7));
        let remote = SocketAddr::from(([203, 0, 113, 8], 8));
        let len = choices.index(60);
        let data = choices.bytes(len);
        Some(BindingIn::Datagram(FiveTuple::udp(local, remote), data))
    }
}

struct StunWorld {
    client: HostId,
    machine: Checked<BindingMachine>,
    path: FiveTuple,
    server: HostId,
    responder: BindingServer,
    /// Addresses the server has seen.
    seen: BTreeSet<SocketAddr>,
    /// When each request was made.
    open: BTreeMap<RequestId, Instant>,
    mapped: u32,
    site: SiteId,
    altered: bool,
    healed: bool,
}

impl StunWorld {
    fn outputs(&mut self, net: &mut Net, outputs: Vec<BindingOut>) {
        for output in outputs {
            match output {
                BindingOut::Transmit(Path::Datagram(at), data) => {
                    net.send(self.client, at.local, at.remote, &data);
                }
                BindingOut::Asked(id) => {
                    assert!(self.open.insert(id, net.now()).is_none(), "a number twice");
                }
                BindingOut::Event(event) => {
                    net.note(self.client, || format!("{event:?}"));
                    let (BindingEvent::Mapped { request, .. }
                    | BindingEvent::Failed { request, .. }) = &event;
                    assert!(self.open.remove(request).is_some(), "a second end");
                    if let BindingEvent::Mapped { mapped, .. } = event {
                        self.mapped += 1;
                        // What is not protected can be altered on the way.
                        let right = self.seen.contains(&mapped);
                        assert!(right || self.altered, "{mapped} was never seen");
                    }
                }
                BindingOut::Transmit(Path::Stream(_), _)
                | BindingOut::Action(_)
                | BindingOut::NotMine
                | BindingOut::Refused(_) => {}
            }
        }
    }

    fn input(&mut self, net: &mut Net, input: BindingIn) {
        let outputs = self.machine.input(net.now(), input);
        self.outputs(net, outputs);
    }
}

impl World for StunWorld {
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival) {
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } if to == self.server => {
                self.seen.insert(remote);
                let mut buf = [0; MAX_TRANSMIT];
                let at = FiveTuple::udp(local, remote);
                let answer = self.responder.respond(net.now(), at, &data, &mut buf);
                if let Some(answer) = answer {
                    net.send(self.server, local, remote, &buf[..answer.len]);
                }
            }
            Arrival::Datagram {
                local,
                remote,
                data,
            } => self.input(
                net,
                BindingIn::Datagram(FiveTuple::udp(local, remote), data),
            ),
            Arrival::Unreachable { .. } => {
                let hard = net.choices().flip();
                self.input(net, BindingIn::Icmp(self.path, hard));
            }
            Arrival::Alarm(_) => {
                let path = Path::Datagram(self.path);
                let input = match net.choices().below(6) {
                    _ if self.healed => BindingIn::Request(path),
                    0 => {
                        net.rebind(self.site);
                        return net.alarm(to, Duration::from_secs(1), 0);
                    }
                    1 => BindingIn::KeepAlive(path, Some(Duration::from_secs(20))),
                    2 => BindingIn::KeepAlive(path, None),
                    _ => BindingIn::Request(path),
                };
                self.input(net, input);
                let wait = net.choices().duration(Duration::from_secs(30));
                net.alarm(to, wait, 0);
            }
            Arrival::Accepted { .. }
            | Arrival::Connected { .. }
            | Arrival::ConnectFailed { .. }
            | Arrival::Bytes { .. }
            | Arrival::Eof { .. }
            | Arrival::Reset { .. }
            | Arrival::Writable { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.machine.deadline()
    }

    fn wake(&mut self, net: &mut Net) {
        let outputs = self.machine.timeout(net.now());
        self.outputs(net, outputs);
    }
}

/// A client asks over and over through faults: every request ends once, every address it is told
/// is one the server has seen, and when the faults are over it is told its address.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_stun(choices: Choices, trace: Trace) {
    let mut net = Net::new(choices, trace);
    net.icmp = net.choices().flip();
    let mut choices = net.choices().fork();
    let link = Link::drawn(&mut choices);
    let altered = link.corrupt > 0 || link.truncate > 0;
    let kind = NatKind::drawn(&mut choices);
    let site = net.site(
        INTERNET,
        Gateway::nat(link, kind, IpAddr::from([192, 0, 2, 1])),
    );
    let local = SocketAddr::from(([10, 0, 0, 2], 5000));
    let remote = SocketAddr::from(([198, 51, 100, 1], 3478));
    let client = net.host("client", &[(local.ip(), site)]);
    let server = net.host("server", &[(remote.ip(), INTERNET)]);
    net.bind(client, local);
    net.bind(server, remote);
    net.alarm(client, Duration::ZERO, 0);
    let seed = choices.machine_seed();
    let now = net.now();
    let machine = Checked::new("binding client", now, move || {
        let client = BindingClient::new(BindingClientConfig::default(), seed, now);
        BindingMachine(client.expect("a sound configuration"))
    });
    let responder = BindingServer::new(BindingServerConfig::default(), choices.machine_seed());
    let mut world = StunWorld {
        client,
        machine,
        path: FiveTuple::udp(local, remote),
        server,
        responder: responder.expect("a sound configuration"),
        seen: BTreeSet::new(),
        open: BTreeMap::new(),
        mapped: 0,
        site,
        altered,
        healed: false,
    };
    let longest = *net.choices().pick(&[5, 60, 900]);
    let faults = net.choices().duration(Duration::from_secs(longest));
    net.lateness = net.choices().duration(Duration::from_secs(2));
    net.run_for(&mut world, faults);
    net.heal();
    world.healed = true;
    let deadline = net
        .now()
        .checked_add(Duration::from_secs(80))
        .expect("time");
    world.mapped = 0;
    let done = net.run(&mut world, deadline, |world| world.mapped > 0);
    assert!(done, "no address 80 s after the last fault");
    let longest = world.open.values().min();
    let age = longest.map(|asked| net.now().duration_since(*asked));
    assert!(
        age.is_none_or(|age| age < Duration::from_secs(300)),
        "a request without end: {age:?}"
    );
    let mut choices = net.choices().fork();
    world.machine.finish(&mut choices);
}
