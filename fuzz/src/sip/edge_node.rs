//! The host of an edge proxy.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sip_outbound::wire::UriBuf;
use sip_outbound::{EdgeConfig, EdgeProxy, FlowAction, FlowId, Instant, Side};
use stun_proto::{FiveTuple, Transport};

use super::core_node::CORE;
use super::{EdgeIn, EdgeMachine, EdgeOut, Octets};
use crate::contract::Checked;
use crate::pieces::cut_short;
use crate::sim::{Arrival, End, HostId, INTERNET, Net, Outbox};

/// Names and addresses of the edge proxies.
pub(super) const EDGES: [(&str, [u8; 4]); 2] = [
    ("ep1.example.com", [203, 0, 113, 1]),
    ("ep2.example.com", [203, 0, 113, 2]),
];

/// Where clients connect to.
pub(super) const STREAM_PORT: u16 = 443;
/// Where clients send datagrams to.
pub(super) const DATAGRAM_PORT: u16 = 5060;
/// Where the core sends datagrams to.
pub(super) const CORE_PORT: u16 = 5070;

/// Bytes a connection may have waiting before it takes no more.
pub(super) const ROOM: usize = 6000;

/// Connections at a time: few, so that floods reach the limit.
const MAX_FLOWS: usize = 12;
/// Those the core opens, and as many to it.
const MAX_CORE_FLOWS: usize = 4;

/// How the edge proxies of a run behave.
#[derive(Clone, Debug)]
pub(super) struct EdgeHabits {
    pub(super) pcscf: bool,
    pub(super) flow_timer: Option<u32>,
}

/// An edge proxy's host.
pub(super) struct EdgeNode {
    pub(super) host: HostId,
    pub(super) ip: IpAddr,
    name: &'static str,
    habits: EdgeHabits,
    key: [u8; 32],
    /// None while it is down.
    machine: Option<Checked<EdgeMachine>>,
    ends: BTreeMap<FlowId, End>,
    flows: BTreeMap<End, FlowId>,
    /// To be closed once everything is written.
    closing: BTreeSet<End>,
    outbox: Outbox,
    queue: VecDeque<EdgeIn>,
    /// The connection whose acceptance is asked for.
    accepting: Option<End>,
    rotated: bool,
    /// Resets a connection behind so many bytes from the client.
    pub(super) cut: Option<usize>,
    pub(super) healed: bool,
}

impl EdgeNode {
    /// Puts a host with an edge proxy onto the internet.
    pub(super) fn new(net: &mut Net, number: usize, habits: EdgeHabits) -> Self {
        let (name, ip) = EDGES[number];
        let ip = IpAddr::from(ip);
        let host = net.host(&name[..3], &[(ip, INTERNET)]);
        let key = net.choices().machine_seed();
        let mut node = Self {
            host,
            ip,
            name,
            habits,
            key,
            machine: None,
            ends: BTreeMap::new(),
            flows: BTreeMap::new(),
            closing: BTreeSet::new(),
            outbox: Outbox::new(),
            queue: VecDeque::new(),
            accepting: None,
            rotated: false,
            cut: None,
            healed: false,
        };
        node.start(net);
        node
    }

    /// Starts, knowing nothing but its keys.
    pub(super) fn start(&mut self, net: &mut Net) {
        if self.machine.is_some() {
            return;
        }
        let (now, seed) = (net.now(), net.choices().machine_seed());
        let (name, habits, key) = (self.name, self.habits.clone(), self.key);
        self.machine = Some(Checked::new("edge", now, move || {
            let mut config = if habits.pcscf {
                EdgeConfig::pcscf(name)
            } else {
                EdgeConfig::new(name)
            };
            config.flow_timer = habits.flow_timer;
            config.next_hop = UriBuf::parse("sip:home.example.com").ok();
            config.token_key = Some(key);
            config.max_flows = MAX_FLOWS;
            config.max_core_flows = MAX_CORE_FLOWS;
            config.max_server_transactions = 64;
            config.max_client_transactions = 64;
            let edge = EdgeProxy::new(config, seed, now);
            let most = MAX_FLOWS + 2 * MAX_CORE_FLOWS;
            EdgeMachine::new(edge.expect("a sound configuration"), most)
        }));
        net.listen(self.host, SocketAddr::new(self.ip, STREAM_PORT));
        for port in [DATAGRAM_PORT, CORE_PORT] {
            net.bind(self.host, SocketAddr::new(self.ip, port));
        }
    }

    /// Loses everything, and is not there.
    pub(super) fn stop(&mut self, net: &mut Net) {
        let Some(machine) = self.machine.take() else {
            return;
        };
        net.note(self.host, || "goes down");
        net.unlisten(self.host, SocketAddr::new(self.ip, STREAM_PORT));
        for port in [DATAGRAM_PORT, CORE_PORT] {
            net.unbind(self.host, SocketAddr::new(self.ip, port));
        }
        net.reset_all(self.host);
        self.ends.clear();
        self.flows.clear();
        self.closing.clear();
        self.queue.clear();
        self.outbox = Outbox::new();
        let mut choices = net.choices().fork();
        machine.finish(&mut choices);
    }

    /// Plays the machine's life again.
    pub(super) fn finish(&mut self, net: &mut Net) {
        let mut choices = net.choices().fork();
        if let Some(machine) = self.machine.take() {
            machine.finish(&mut choices);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.machine.as_ref().and_then(Checked::deadline)
    }

    /// A client's connection.
    pub(super) fn some_end(&self) -> Option<End> {
        self.flows.keys().next().copied()
    }

    /// Signs tokens with another key from now on; once in the life of a registration.
    pub(super) fn rotate(&mut self, net: &mut Net) {
        if core::mem::replace(&mut self.rotated, true) {
            return;
        }
        self.key = net.choices().machine_seed();
        let key = self.key;
        self.input(net, EdgeIn::Rotate(key));
    }

    pub(super) fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        if let Some(machine) = &mut self.machine
            && machine.deadline().is_some_and(|at| at <= now)
        {
            for output in machine.timeout(now) {
                self.output(net, output);
            }
            self.run(net);
        }
    }

    fn input(&mut self, net: &mut Net, input: EdgeIn) {
        self.queue.push_back(input);
        self.run(net);
    }

    fn run(&mut self, net: &mut Net) {
        while let Some(input) = self.queue.pop_front() {
            let Some(machine) = &mut self.machine else {
                return;
            };
            for output in machine.input(net.now(), input) {
                self.output(net, output);
            }
        }
        for end in core::mem::take(&mut self.closing) {
            if let Some(flow) = self.flows.remove(&end) {
                self.ends.remove(&flow);
            }
            self.outbox.close(net, end);
        }
    }

    fn output(&mut self, net: &mut Net, output: EdgeOut) {
        match output {
            EdgeOut::Accepted(flow) => {
                let Some(end) = self.accepting.take() else {
                    return;
                };
                match flow {
                    None => net.close(end),
                    Some(flow) => {
                        self.ends.insert(flow, end);
                        self.flows.insert(end, flow);
                    }
                }
            }
            EdgeOut::Bytes(flow, data) => {
                let end = *self.ends.get(&flow).expect("a connection to write to");
                self.outbox.write(net, end, &data.0);
                if self.outbox.waiting(end) == 0 {
                    self.queue.push_back(EdgeIn::Room(flow, data.0.len()));
                }
            }
            EdgeOut::Datagram(at, data) => net.send(self.host, at.local, at.remote, &data.0),
            EdgeOut::Action(FlowAction::OpenFlow { flow, target }) => {
                let other = EDGES.iter().find(|(name, _)| *name == target.verify_name());
                let remote = other.map_or(CORE, |(_, ip)| (*ip, DATAGRAM_PORT).into());
                let local = SocketAddr::new(self.ip, net.free_port(self.host));
                if self.healed || !net.choices().chance(50) {
                    net.bind(self.host, local);
                    let at = FiveTuple::udp(local, remote);
                    self.queue.push_back(EdgeIn::Opened(flow, at, 0));
                } else {
                    self.queue.push_back(EdgeIn::Failed(flow));
                }
            }
            EdgeOut::Action(FlowAction::CloseFlow { flow }) => {
                if let Some(end) = self.ends.get(&flow) {
                    self.closing.insert(*end);
                    // What is left goes out first.
                    self.queue.push_back(EdgeIn::Room(flow, usize::MAX));
                }
            }
            EdgeOut::Event(event) => net.note(self.host, || format!("{event:?}")),
        }
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } => {
                let at = FiveTuple::udp(local, remote);
                let input = match local.port() {
                    DATAGRAM_PORT => EdgeIn::Datagram(at, Octets(data)),
                    // Nobody else is let in there.
                    CORE_PORT if remote != CORE => return,
                    _ => EdgeIn::CoreDatagram(at, Octets(data)),
                };
                self.input(net, input);
            }
            Arrival::Accepted { end, local, remote } => {
                if self.machine.is_none() {
                    return net.reset(end);
                }
                let at = FiveTuple {
                    transport: Transport::Tls,
                    local,
                    remote,
                };
                self.accepting = Some(end);
                self.input(net, EdgeIn::Accepted(at, Side::Access, ROOM));
            }
            Arrival::Bytes { end, mut data } => {
                let Some(flow) = self.flows.get(&end).copied() else {
                    return;
                };
                let cut = cut_short(&mut self.cut, &mut data);
                if !data.is_empty() {
                    self.input(net, EdgeIn::Bytes(flow, Octets(data)));
                }
                if cut {
                    net.note(self.host, || "is cut off");
                    net.reset(end);
                    self.gone(net, end);
                }
            }
            Arrival::Eof { end } => {
                self.gone(net, end);
                net.close(end);
            }
            Arrival::Reset { end } => self.gone(net, end),
            Arrival::Writable { end } => {
                let before = self.outbox.waiting(end);
                self.outbox.flush(net, end);
                let gone = before - self.outbox.waiting(end);
                if gone > 0
                    && let Some(flow) = self.flows.get(&end)
                {
                    self.input(net, EdgeIn::Room(*flow, gone));
                }
            }
            Arrival::Unreachable { .. }
            | Arrival::Connected { .. }
            | Arrival::ConnectFailed { .. } => {}
            Arrival::Alarm(_) => self.start(net),
        }
    }

    fn gone(&mut self, net: &mut Net, end: End) {
        self.outbox.forget(end);
        if let Some(flow) = self.flows.remove(&end) {
            self.ends.remove(&flow);
            self.input(net, EdgeIn::Failed(flow));
        }
    }

    /// Is down for a while.
    pub(super) fn crash(&mut self, net: &mut Net) {
        self.stop(net);
        let longest = *net.choices().pick(&[0, 20, 200]);
        let wait = net.choices().duration(Duration::from_secs(longest));
        net.alarm(self.host, wait, 0);
    }
}
