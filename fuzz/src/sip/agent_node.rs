//! The host of a user agent, with its application.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sip_outbound::wire::{Method, StatusCode, UriBuf};
use sip_outbound::{
    Account, FlowAction, FlowId, FlowTarget, InstanceId, Instant, NewRequest, Profile, Recovery,
    UserAgent, UserAgentConfig, UserAgentEvent,
};
use stun_proto::{FiveTuple, Transport};

use super::core_node::{AOR, PASSWORD};
use super::edge_node::{DATAGRAM_PORT, EDGES, ROOM, STREAM_PORT};
use super::watch::Watch;
use super::{Octets, Told, UserAgentIn, UserAgentMachine, UserAgentOut};
use crate::contract::Checked;
use crate::pieces::cut_short;
use crate::sim::{Arrival, End, HostId, Net, Outbox, SiteId};

/// How the user agent of a run behaves.
#[derive(Clone, Debug)]
pub(super) struct AgentHabits {
    pub(super) transport: Transport,
    pub(super) expires: u32,
    pub(super) profile: Profile,
    /// The user has mistyped the password, at first.
    pub(super) wrong: bool,
}

/// What a flow is at its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conn {
    Stream(End),
    Socket {
        local: SocketAddr,
        remote: SocketAddr,
    },
}

/// A user agent's host.
pub(super) struct AgentNode {
    pub(super) host: HostId,
    pub(super) ip: IpAddr,
    pub(super) habits: AgentHabits,
    pub(super) machine: Option<Checked<UserAgentMachine>>,
    pub(super) watch: Watch,
    conns: BTreeMap<FlowId, Conn>,
    outbox: Outbox,
    queue: VecDeque<UserAgentIn>,
    /// To be closed once everything is written.
    closing: BTreeSet<FlowId>,
    /// Resets a connection behind so many bytes from the proxy.
    pub(super) cut: Option<usize>,
    /// Requests that came, by Call-ID, and whether over a registered flow.
    pub(super) got: BTreeMap<String, bool>,
    pub(super) healed: bool,
}

impl AgentNode {
    /// Puts a host with a user agent that has not started into a site.
    pub(super) fn new(net: &mut Net, ip: IpAddr, site: SiteId, habits: AgentHabits) -> Self {
        let host = net.host("ue", &[(ip, site)]);
        Self {
            host,
            ip,
            habits,
            machine: None,
            watch: Watch::new(Recovery::default(), &EDGES.map(|(name, _)| name)),
            conns: BTreeMap::new(),
            outbox: Outbox::new(),
            queue: VecDeque::new(),
            closing: BTreeSet::new(),
            cut: None,
            got: BTreeMap::new(),
            healed: false,
        }
    }

    /// Starts the user agent.
    pub(super) fn start(&mut self, net: &mut Net) {
        let (now, seed) = (net.now(), net.choices().machine_seed());
        let habits = self.habits.clone();
        let late = self.watch.late;
        self.watch = Watch::new(Recovery::default(), &EDGES.map(|(name, _)| name));
        self.watch.late = late;
        self.machine = Some(Checked::new("user agent", now, move || {
            let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee");
            let proxy = |(name, _)| {
                let text = match habits.transport {
                    Transport::Tls | Transport::Dtls => format!("sips:{name}:{STREAM_PORT}"),
                    Transport::Tcp => format!("sip:{name}:{STREAM_PORT};transport=tcp"),
                    Transport::Udp => format!("sip:{name}"),
                };
                UriBuf::parse(text).expect("a URI")
            };
            let aor = UriBuf::parse(AOR).expect("a URI");
            let proxies = EDGES.map(proxy).to_vec();
            let mut config = UserAgentConfig::new(aor, instance.expect("an instance"), proxies);
            config.expires = habits.expires;
            config.profile = habits.profile;
            let password = if habits.wrong { "wrong" } else { PASSWORD };
            config.accounts = Vec::from([Account::new("alice", password, "example.com")]);
            let agent = UserAgent::new(config, seed, now);
            UserAgentMachine::new(agent.expect("a sound configuration"))
        }));
        self.input(net, UserAgentIn::Start);
    }

    /// The host crashes: the other sides notice, in time.
    pub(super) fn crash(&mut self, net: &mut Net) {
        net.note(self.host, || "crashes");
        net.reset_all(self.host);
        for (_, conn) in core::mem::take(&mut self.conns) {
            if let Conn::Socket { local, .. } = conn {
                net.unbind(self.host, local);
            }
        }
        self.outbox = Outbox::new();
        self.queue.clear();
        self.closing.clear();
        self.finish(net);
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

    /// The connection of any flow.
    pub(super) fn some_end(&self, net: &mut Net) -> Option<End> {
        let ends: Vec<_> = self.conns.values().filter_map(|conn| conn.end()).collect();
        (!ends.is_empty()).then(|| *net.choices().pick(&ends))
    }

    pub(super) fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        if let Some(machine) = &mut self.machine
            && machine.deadline().is_some_and(|at| at <= now)
        {
            let outputs = machine.timeout(now);
            self.outputs(net, outputs);
            self.run(net);
        }
    }

    /// The application or the host tells the machine something.
    pub(super) fn input(&mut self, net: &mut Net, input: UserAgentIn) {
        self.queue.push_back(input);
        self.run(net);
    }

    fn run(&mut self, net: &mut Net) {
        while let Some(input) = self.queue.pop_front() {
            let now = net.now();
            let Some(machine) = &mut self.machine else {
                return;
            };
            match &input {
                UserAgentIn::Bytes(flow, data) => self.watch.gets(now, *flow, &data.0),
                UserAgentIn::Datagram(flow, data) => self.watch.gets_datagram(now, *flow, &data.0),
                UserAgentIn::Opened(flow, at, ..) => {
                    self.watch.opened(now, *flow, at.transport.is_stream());
                }
                _ => {}
            }
            let outputs = machine.input(now, input);
            self.outputs(net, outputs);
        }
        for flow in core::mem::take(&mut self.closing) {
            self.watch.closed(flow);
            match self.conns.remove(&flow) {
                Some(Conn::Stream(end)) => self.outbox.close(net, end),
                Some(Conn::Socket { local, .. }) => net.unbind(self.host, local),
                None => {}
            }
        }
    }

    fn outputs(&mut self, net: &mut Net, outputs: Vec<UserAgentOut>) {
        let now = net.now();
        for output in &outputs {
            if let UserAgentOut::Event(Told(event)) = output {
                net.note(self.host, || format!("{event:?}"));
                self.watch.event(now, event);
            }
        }
        for output in outputs {
            match output {
                UserAgentOut::Bytes(flow, data) => {
                    self.watch.sends(now, flow, &data.0);
                    let Some(Conn::Stream(end)) = self.conns.get(&flow).copied() else {
                        panic!("no connection to write to");
                    };
                    self.outbox.write(net, end, &data.0);
                    if self.outbox.waiting(end) == 0 {
                        self.queue.push_back(UserAgentIn::Room(flow, data.0.len()));
                    } else {
                        self.watch.congested(flow);
                    }
                }
                UserAgentOut::Datagram(flow, data) => {
                    self.watch.sends_datagram(now, flow, &data.0);
                    let Some(Conn::Socket { local, remote }) = self.conns.get(&flow).copied()
                    else {
                        panic!("no socket to send from");
                    };
                    net.send(self.host, local, remote, &data.0);
                }
                UserAgentOut::Action(FlowAction::OpenFlow { flow, target }) => {
                    self.open(net, flow, &target);
                }
                UserAgentOut::Action(FlowAction::CloseFlow { flow }) => {
                    self.closing.insert(flow);
                    // What is left goes out first.
                    self.queue.push_back(UserAgentIn::Room(flow, usize::MAX));
                }
                UserAgentOut::Event(Told(event)) => self.event(&event),
                UserAgentOut::Requested(_) | UserAgentOut::Done(_) => {}
            }
        }
    }

    fn open(&mut self, net: &mut Net, flow: FlowId, target: &FlowTarget) {
        let host = target.verify_name().to_string();
        self.watch.opening(net.now(), &host);
        let found = EDGES.iter().find(|(name, _)| *name == host);
        let (_, ip) = found.expect("a proxy of the set");
        if self.habits.transport.is_stream() {
            let to = SocketAddr::from((*ip, STREAM_PORT));
            let end = net.connect(self.host, self.ip, to);
            self.conns.insert(flow, Conn::Stream(end));
        } else {
            let local = SocketAddr::new(self.ip, net.free_port(self.host));
            let remote = SocketAddr::from((*ip, DATAGRAM_PORT));
            net.bind(self.host, local);
            self.conns.insert(flow, Conn::Socket { local, remote });
            let at = FiveTuple::udp(local, remote);
            self.queue
                .push_back(UserAgentIn::Opened(flow, at, Vec::new(), 0));
        }
    }

    fn event(&mut self, event: &UserAgentEvent) {
        if let UserAgentEvent::Request { id, flow, request } = event {
            let from = request
                .only(sip_outbound::wire::Name::FROM)
                .unwrap_or_default();
            assert!(from.contains("bob@"), "a request from {from}");
            let good = self.watch.is_registered(*flow);
            self.got.insert(request.call_id().to_string(), good);
            let codes: &[StatusCode] = if *request.method() == Method::INVITE {
                &[StatusCode::RINGING, StatusCode::OK]
            } else {
                &[StatusCode::OK]
            };
            for code in codes {
                self.queue.push_back(UserAgentIn::Respond(*id, *code));
            }
        }
    }

    fn flow_at(&self, end: End) -> Option<FlowId> {
        let mut conns = self.conns.iter();
        let found = conns.find(|(_, conn)| **conn == Conn::Stream(end));
        found.map(|(flow, _)| *flow)
    }

    fn flow_of(&self, at: SocketAddr, from: Option<SocketAddr>) -> Option<FlowId> {
        let mut conns = self.conns.iter();
        let found = conns.find(|(_, conn)| match conn {
            Conn::Socket { local, remote } => {
                *local == at && from.is_none_or(|from| from == *remote)
            }
            Conn::Stream(_) => false,
        });
        found.map(|(flow, _)| *flow)
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } => {
                if let Some(flow) = self.flow_of(local, Some(remote)) {
                    self.input(net, UserAgentIn::Datagram(flow, Octets(data)));
                }
            }
            Arrival::Unreachable { local, .. } => {
                if let Some(flow) = self.flow_of(local, None) {
                    self.input(net, UserAgentIn::Failed(flow));
                }
            }
            Arrival::Connected { end, local } => match (self.flow_at(end), net.addresses(end)) {
                (Some(flow), Some((_, remote))) => {
                    let transport = self.habits.transport;
                    let at = FiveTuple {
                        transport,
                        local,
                        remote,
                    };
                    let names = Vec::from(["example.com".to_string()]);
                    self.input(net, UserAgentIn::Opened(flow, at, names, ROOM));
                }
                _ => net.close(end),
            },
            Arrival::ConnectFailed { end, .. } => {
                if let Some(flow) = self.flow_at(end) {
                    self.input(net, UserAgentIn::Failed(flow));
                }
            }
            Arrival::Bytes { end, data } => self.bytes(net, end, data),
            Arrival::Eof { end } | Arrival::Reset { end } => {
                self.outbox.forget(end);
                if let Some(flow) = self.flow_at(end) {
                    self.input(net, UserAgentIn::Closed(flow));
                }
                net.close(end);
            }
            Arrival::Writable { end } => {
                let before = self.outbox.waiting(end);
                self.outbox.flush(net, end);
                let gone = before - self.outbox.waiting(end);
                if gone > 0
                    && let Some(flow) = self.flow_at(end)
                {
                    self.input(net, UserAgentIn::Room(flow, gone));
                }
            }
            Arrival::Alarm(_) => self.tick(net),
            Arrival::Accepted { .. } => {}
        }
    }

    fn bytes(&mut self, net: &mut Net, end: End, mut data: Vec<u8>) {
        let Some(flow) = self.flow_at(end) else {
            return;
        };
        let cut = cut_short(&mut self.cut, &mut data);
        if !data.is_empty() {
            self.input(net, UserAgentIn::Bytes(flow, Octets(data)));
        }
        if cut {
            net.note(self.host, || "is cut off");
            net.reset(end);
            self.outbox.forget(end);
            if let Some(flow) = self.flow_at(end) {
                self.input(net, UserAgentIn::Closed(flow));
            }
        }
    }

    /// What the application does now and then.
    fn tick(&mut self, net: &mut Net) {
        if self.watch.any_refused() || self.machine.is_none() {
            // The user looks into it.
            self.habits.wrong = false;
            self.crash(net);
            self.start(net);
        } else if !self.healed {
            match net.choices().below(30) {
                0 => {
                    self.crash(net);
                    self.start(net);
                }
                1..=5 => {
                    let new = NewRequest::new(Method::MESSAGE, "sip:bob@example.com");
                    self.input(net, UserAgentIn::Request(new.body("text/plain", "hi")));
                }
                _ => {}
            }
        }
        let longest = if self.healed { 30 } else { 60 };
        let wait = net.choices().duration(Duration::from_secs(longest));
        net.alarm(self.host, wait, 0);
    }
}

impl Conn {
    const fn end(&self) -> Option<End> {
        match self {
            Self::Stream(end) => Some(*end),
            Self::Socket { .. } => None,
        }
    }
}
