//! The host of a TURN server.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use stun_proto::wire::Message;
use stun_proto::{FiveTuple, Instant, Path, StreamId, Transport};
use turn_proto::policy::Preset;
use turn_proto::server::{self, Action, RelayId, Server, ServerConfig, StaticUsers};

use super::model::Model;
use super::server::{ServerIn, ServerMachine, ServerOut};
use crate::contract::Checked;
use crate::sim::{Arrival, Choices, End, HostId, INTERNET, Net, Outbox};

/// The address of the server's host.
pub(crate) const SERVER: &str = "198.51.100.1";
/// Where it is asked over UDP.
pub(crate) const UDP_PORT: u16 = 3478;
/// Where it is asked over TCP.
pub(crate) const TCP_PORT: u16 = 443;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// What a payload is, for the trace.
pub(crate) fn describe(data: &[u8]) -> String {
    match Message::parse(data) {
        Ok(message) => format!("{:?} {:?}", message.method(), message.class()),
        Err(_) => format!("{:02x?}", &data[..data.len().min(8)]),
    }
}

/// The server's host.
#[derive(Debug)]
pub(crate) struct ServerNode {
    pub(crate) host: HostId,
    pub(crate) machine: Checked<ServerMachine>,
    pub(super) outbox: Outbox,
    pub(super) relays: BTreeMap<RelayId, SocketAddr>,
    pub(super) streams: BTreeMap<FiveTuple, StreamId>,
    pub(super) model: Model,
    pub(super) next_port: u16,
    pub(crate) healed: bool,
    /// While there are faults, a relay may take too long to open.
    pub(crate) slow_relays: bool,
}

pub(super) fn new_server(choices: &mut Choices, now: Instant) -> Checked<ServerMachine> {
    let seed = choices.machine_seed();
    Checked::new("server", now, move || {
        let mut config = ServerConfig::new("example.org");
        config.peers.preset = Preset::Any;
        config.limits.allocations_per_user = 1000;
        let mut users = StaticUsers::new("example.org");
        users.add("alice", "secret");
        let server = Server::new(config, users, seed, now);
        ServerMachine(server.expect("a sound configuration"))
    })
}

impl ServerNode {
    /// Puts a host with a server onto the internet.
    pub(crate) fn new(net: &mut Net) -> Self {
        let host = net.host("server", &[(ip(SERVER), INTERNET)]);
        net.bind(host, SocketAddr::new(ip(SERVER), UDP_PORT));
        net.listen(host, SocketAddr::new(ip(SERVER), TCP_PORT));
        let mut choices = net.choices().fork();
        Self {
            host,
            machine: new_server(&mut choices, net.now()),
            outbox: Outbox::new(),
            relays: BTreeMap::new(),
            streams: BTreeMap::new(),
            model: Model::default(),
            next_port: 49_152,
            healed: false,
            slow_relays: true,
        }
    }

    /// Tells the time, if it is time.
    pub(crate) fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        if self.machine.deadline().is_some_and(|at| at <= now) {
            for output in self.machine.timeout(now) {
                self.output(net, output);
            }
        }
    }

    fn input(&mut self, net: &mut Net, input: ServerIn) {
        let now = net.now();
        match &input {
            ServerIn::Datagram(at, data) => self.model.asks(Path::Datagram(*at), data),
            // Units of a stream: every one that could be a message.
            ServerIn::Stream(id, data) => self.model.hears(*id, data),
            _ => {}
        }
        let from = match &input {
            ServerIn::Relay(relay, from, _) => Some((*relay, *from)),
            _ => None,
        };
        for output in self.machine.input(now, input) {
            if let (ServerOut::ToClient(to, _), Some((relay, from))) = (&output, from) {
                self.model.passes(now, relay, from);
                assert_eq!(
                    self.model.owner(relay),
                    Some(*to),
                    "data for another client"
                );
            }
            self.output(net, output);
        }
    }

    pub(crate) fn output(&mut self, net: &mut Net, output: ServerOut) {
        let now = net.now();
        match output {
            ServerOut::Transmit(to, data) => {
                self.model.answers(now, to, &data);
                self.transmit(net, to, &data);
            }
            ServerOut::ToClient(to, data) => self.transmit(net, to, &data),
            ServerOut::ToPeer(to, data) => {
                self.model.passes(now, to.relay, to.peer);
                let from = self.relays.get(&to.relay);
                let from = *from.expect("a relay that is open");
                net.send(self.host, from, to.peer, &data);
            }
            ServerOut::Action(Action::OpenRelay { relay, .. }) => {
                let after = match net.choices().below(30) {
                    0 if !self.healed && self.slow_relays => Duration::from_secs(6),
                    _ => net.choices().duration(Duration::from_millis(50)),
                };
                net.alarm(self.host, after, relay.0);
            }
            ServerOut::Action(Action::CloseRelay { relay }) => {
                if let Some(address) = self.relays.remove(&relay) {
                    net.unbind(self.host, address);
                }
            }
            ServerOut::Action(Action::CloseStream { id, reason }) => {
                net.note(self.host, || format!("closes #{}: {reason:?}", id.0));
                self.outbox.close(net, End(id.0));
                self.input(net, ServerIn::StreamClosed(id));
            }
            ServerOut::Event(event) => {
                net.note(self.host, || format!("{event:?}"));
                let path = || match &event {
                    server::Event::AllocationCreated { client, .. } => {
                        match self.streams.get(client) {
                            Some(id) => Path::Stream(*id),
                            None => Path::Datagram(*client),
                        }
                    }
                    _ => unreachable!("asked for new allocations only"),
                };
                self.model.event(path, &event);
            }
            ServerOut::Refused(id) => self.outbox.close(net, End(id.0)),
            ServerOut::NotMine => {}
            ServerOut::Action(_) => {}
        }
    }

    fn transmit(&mut self, net: &mut Net, to: Path, data: &[u8]) {
        match to {
            Path::Datagram(at) => net.send(self.host, at.local, at.remote, data),
            Path::Stream(id) => self.outbox.write(net, End(id.0), data),
        }
    }

    pub(crate) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } => {
                let relay = self.relays.iter().find(|(_, at)| **at == local);
                let input = match relay {
                    Some((relay, _)) => ServerIn::Relay(*relay, remote, data),
                    None => ServerIn::Datagram(FiveTuple::udp(local, remote), data),
                };
                self.input(net, input);
            }
            Arrival::Accepted { end, local, remote } => {
                let at = FiveTuple {
                    transport: Transport::Tcp,
                    local,
                    remote,
                };
                self.streams.insert(at, StreamId(end.0));
                self.input(net, ServerIn::StreamOpened(StreamId(end.0), at));
            }
            Arrival::Bytes { end, data } => {
                self.input(net, ServerIn::Stream(StreamId(end.0), data));
            }
            Arrival::Eof { end } | Arrival::Reset { end } => {
                self.outbox.forget(end);
                net.close(end);
                self.input(net, ServerIn::StreamClosed(StreamId(end.0)));
            }
            Arrival::Writable { end } => self.outbox.flush(net, end),
            Arrival::Alarm(relay) => {
                let relay = RelayId(relay);
                if !self.healed && net.choices().chance(30) {
                    return self.input(net, ServerIn::RelayFailed(relay));
                }
                let address = SocketAddr::new(ip(SERVER), self.next_port);
                self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
                net.bind(self.host, address);
                self.relays.insert(relay, address);
                self.input(net, ServerIn::RelayOpened(relay, address));
            }
            Arrival::Unreachable { .. }
            | Arrival::Connected { .. }
            | Arrival::ConnectFailed { .. } => {}
        }
    }

    /// Starts again, knowing nothing.
    pub(crate) fn restart(&mut self, net: &mut Net) {
        net.note(self.host, || "restarts");
        for address in core::mem::take(&mut self.relays).into_values() {
            net.unbind(self.host, address);
        }
        net.reset_all(self.host);
        let mut choices = net.choices().fork();
        let fresh = new_server(&mut choices, net.now());
        let old = core::mem::replace(&mut self.machine, fresh);
        old.finish(&mut choices);
        self.outbox = Outbox::new();
        self.streams.clear();
        self.model = Model::default();
    }
}
