//! A client whose only way out is a proxy, the proxy, and a target that greets and echoes.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use http_connect::auth::{Allow, Challenge, ClientAuth, Credentials, Policy, parse_basic};
use http_connect::{
    AuthVerdict, ConnectClient, ConnectConfig, ConnectEvent, ConnectServer, Instant, Prefix,
    ProxyAction, ProxyConfig, ProxyError, ProxyEvent, Side, Ticket,
};

use super::client::{ClientIn, ClientMachine, ClientOut};
use super::proxy::{ProxyIn, ProxyMachine, ProxyOut};
use crate::contract::Checked;
use crate::sim::{
    Allowed, Arrival, Choices, ConnectFailure, Cuts, End, Firewall, Gateway, HostId, INTERNET,
    Link, Net, Outbox, Trace, World,
};

const PROXY: &str = "198.51.100.80:3128";
const TARGET: &str = "203.0.113.43:443";
/// The name of the target, and one that has no address.
const NAMES: [&str; 2] = ["pcscf.example.com", "nowhere.example.com"];

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// How clients have to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Auth {
    None,
    Basic,
    /// Three legs on one connection.
    Ntlm,
}

/// The client's host: one tunnel after the other.
struct ClientNode {
    host: HostId,
    ip: IpAddr,
    machine: Option<Checked<ClientMachine>>,
    end: Option<End>,
    outbox: Outbox,
    established: bool,
    /// What the application sent into the tunnel, and what came out of it.
    sent: Vec<u8>,
    got: Vec<u8>,
    /// What it still wants to send.
    payload: Vec<u8>,
    healed: bool,
    finished: bool,
}

impl ClientNode {
    fn start(&mut self, net: &mut Net) {
        let now = net.now();
        let seed = net.choices().machine_seed();
        let odd = if self.healed {
            0
        } else {
            net.choices().below(8)
        };
        let target = match odd {
            1 => format!("{}:443", NAMES[1]),
            2 => format!("{}:25", NAMES[0]),
            3 => TARGET.to_string(),
            _ => format!("{}:443", NAMES[0]),
        };
        let config = ConnectConfig {
            expect_tls: net.choices().chance(200),
            proxy_connection: net.choices().flip(),
            ..ConnectConfig::default()
        };
        let wrong = odd == 4;
        self.machine = Some(Checked::new("client", now, move || {
            let password = if wrong { "wrong" } else { "secret" };
            let policy = Policy {
                basic: Allow::Always,
                ntlm: Allow::Always,
                ..Policy::default()
            };
            let auth = ClientAuth::new(Some(Credentials::new("alice", password)), policy);
            let target = target.parse().expect("a target");
            let client = ConnectClient::new(target, config.clone(), auth, seed, now);
            ClientMachine(client.expect("no odd fields"))
        }));
        self.established = false;
        self.sent.clear();
        self.got.clear();
        let len = *net.choices().pick(&[0, 1, 100, 5000, 40_000]);
        let mut payload = net.choices().fork().bytes(len);
        if let Some(first) = payload.first_mut() {
            *first = 0x16;
        }
        self.payload = payload;
        self.end = Some(net.connect(self.host, self.ip, at(PROXY)));
    }

    fn input(&mut self, net: &mut Net, input: ClientIn) {
        let now = net.now();
        if let Some(machine) = &mut self.machine {
            let outputs = machine.input(now, input);
            self.outputs(net, outputs);
        }
    }

    fn outputs(&mut self, net: &mut Net, outputs: Vec<ClientOut>) {
        for output in outputs {
            match output {
                ClientOut::Transmit(data) => {
                    let end = self.end.expect("a connection to write to");
                    self.outbox.write(net, end, &data);
                }
                ClientOut::Tunnel(data) => self.got.extend_from_slice(&data),
                ClientOut::Event(event) => {
                    net.note(self.host, || format!("{event:?}"));
                    self.event(net, event);
                }
            }
        }
    }

    fn event(&mut self, net: &mut Net, event: ConnectEvent) {
        match event {
            ConnectEvent::Established { .. } => {
                self.established = true;
                let end = self.end.expect("a connection");
                let payload = self.payload.clone();
                self.sent = payload;
                self.outbox.write(net, end, &self.payload);
            }
            ConnectEvent::Reconnect => {
                self.drop_end(net);
                self.end = Some(net.connect(self.host, self.ip, at(PROXY)));
            }
            ConnectEvent::NeedToken { token, .. } => {
                let leg = if token.is_none() {
                    "bGVnMQ=="
                } else {
                    "bGVnMw=="
                };
                self.input(net, ClientIn::Token(Some(leg.to_owned())));
            }
            ConnectEvent::Rejected(_) | ConnectEvent::Failed(_) => self.stop(net),
            _ => {}
        }
    }

    fn drop_end(&mut self, net: &mut Net) {
        if let Some(end) = self.end.take() {
            self.outbox.forget(end);
            net.close(end);
        }
    }

    /// The attempt, or the tunnel, is over.
    fn stop(&mut self, net: &mut Net) {
        self.drop_end(net);
        self.established = false;
        if let Some(machine) = self.machine.take() {
            let mut choices = net.choices().fork();
            machine.finish(&mut choices);
        }
    }

    fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        let is = |end: &End| self.end == Some(*end);
        match arrival {
            Arrival::Connected { end, .. } if is(&end) => self.input(net, ClientIn::Connected),
            Arrival::ConnectFailed { end, .. } if is(&end) => self.stop(net),
            Arrival::Bytes { end, data } if is(&end) => self.input(net, ClientIn::Bytes(data)),
            Arrival::Eof { end } | Arrival::Reset { end } if is(&end) => {
                self.input(net, ClientIn::Eof);
                if self.established {
                    self.stop(net);
                }
            }
            Arrival::Writable { end } => self.outbox.flush(net, end),
            Arrival::Alarm(_) => {
                if self.machine.is_none() && !self.finished {
                    self.start(net);
                } else if !self.healed && net.choices().chance(50) {
                    self.stop(net);
                }
                let most = if self.healed { 1 } else { 30 };
                let wait = net.choices().duration(Duration::from_secs(most));
                net.alarm(self.host, wait, 0);
            }
            Arrival::Datagram { .. }
            | Arrival::Unreachable { .. }
            | Arrival::Accepted { .. }
            | Arrival::Connected { .. }
            | Arrival::ConnectFailed { .. }
            | Arrival::Bytes { .. }
            | Arrival::Eof { .. }
            | Arrival::Reset { .. } => {}
        }
    }
}

/// One client's connection at the proxy.
struct Session {
    machine: Checked<ProxyMachine>,
    client: End,
    upstream: Option<(End, Ticket)>,
    /// How many bytes each connection was told to take, and took.
    legs: u32,
}

struct ProxyNode {
    host: HostId,
    auth: Auth,
    half_close: bool,
    sessions: BTreeMap<u64, Session>,
    outbox: Outbox,
    next: u64,
    /// Questions waiting for an answer: alarm number, session, ticket, name.
    questions: BTreeMap<u64, (u64, Ticket, alloc::string::String)>,
    /// What is to be handed in once all outputs are dealt with.
    follow: VecDeque<(u64, ProxyIn)>,
    busy: bool,
    healed: bool,
}

/// Bytes a connection may have waiting before it takes no more.
const ROOM: usize = 8 * 1024;

impl ProxyNode {
    fn accept(&mut self, net: &mut Net, end: End) {
        let now = net.now();
        let seed = net.choices().machine_seed();
        let (authenticate, half_close) = (self.auth != Auth::None, self.half_close);
        let machine = Checked::new("proxy", now, move || {
            let mut config = ProxyConfig::new("proxy");
            config.authenticate = authenticate;
            config.half_close = half_close;
            // Connections die without a sign here, too.
            config.limits.idle_timeout = Some(Duration::from_secs(90));
            config
                .addresses
                .allowed
                .push(Prefix::new(at(TARGET).ip(), 32));
            let server = ConnectServer::new(Arc::new(config), seed, now);
            ProxyMachine::new(server.expect("a sound configuration"), now)
        });
        let session = Session {
            machine,
            client: end,
            upstream: None,
            legs: 0,
        };
        let id = self.next;
        self.next += 1;
        self.sessions.insert(id, session);
        self.input(net, id, ProxyIn::Room(Side::Client, ROOM));
    }

    fn session_of(&self, end: End) -> Option<(u64, Side)> {
        self.sessions.iter().find_map(|(id, session)| {
            if session.client == end {
                Some((*id, Side::Client))
            } else if session
                .upstream
                .is_some_and(|(upstream, _)| upstream == end)
            {
                Some((*id, Side::Upstream))
            } else {
                None
            }
        })
    }

    fn input(&mut self, net: &mut Net, id: u64, input: ProxyIn) {
        self.follow.push_back((id, input));
        if self.busy {
            return;
        }
        self.busy = true;
        while let Some((id, input)) = self.follow.pop_front() {
            if let Some(session) = self.sessions.get_mut(&id) {
                let outputs = session.machine.input(net.now(), input);
                self.outputs(net, id, outputs);
            }
        }
        self.busy = false;
    }

    fn timeout(&mut self, net: &mut Net, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let outputs = session.machine.timeout(net.now());
            self.busy = true;
            self.outputs(net, id, outputs);
            self.busy = false;
            if let Some((id, input)) = self.follow.pop_front() {
                self.input(net, id, input);
            }
        }
    }

    fn outputs(&mut self, net: &mut Net, id: u64, outputs: Vec<ProxyOut>) {
        for output in outputs {
            let Some(session) = self.sessions.get_mut(&id) else {
                return;
            };
            match output {
                ProxyOut::Bytes(side, data) => {
                    let end = match side {
                        Side::Client => Some(session.client),
                        Side::Upstream => session.upstream.map(|(end, _)| end),
                    };
                    let end = end.expect("a connection to write to");
                    self.outbox.write(net, end, &data);
                    // The room is given back once the bytes are gone.
                    if self.outbox.waiting(end) == 0 {
                        self.input(net, id, ProxyIn::Room(side, data.len()));
                    }
                }
                ProxyOut::Action(action) => {
                    net.note(self.host, || format!("{id}: {action:?}"));
                    self.action(net, id, action);
                }
                ProxyOut::Event(event) => {
                    net.note(self.host, || format!("{id}: {event:?}"));
                    if let ProxyEvent::Closed(_) = event {
                        self.end(net, id);
                    }
                }
            }
        }
    }

    fn end(&mut self, net: &mut Net, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.outbox.close(net, session.client);
            if let Some((end, _)) = session.upstream {
                self.outbox.close(net, end);
            }
            let mut choices = net.choices().fork();
            session.machine.finish(&mut choices);
        }
    }

    fn action(&mut self, net: &mut Net, id: u64, action: ProxyAction) {
        match action {
            ProxyAction::CheckAuth { ticket, check } => {
                let verdict = self.judge(id, check.authorization());
                self.input(net, id, ProxyIn::Auth(ticket, verdict));
            }
            ProxyAction::Resolve { ticket, name } => {
                let number = self.next;
                self.next += 1;
                self.questions.insert(number, (id, ticket, name));
                let wait = if self.healed || net.choices().chance(900) {
                    net.choices().duration(Duration::from_millis(300))
                } else {
                    Duration::from_secs(20)
                };
                net.alarm(self.host, wait, number);
            }
            ProxyAction::Connect { ticket, address } => {
                assert_eq!(address, at(TARGET), "only the target is allowed");
                let end = net.connect(self.host, at(PROXY).ip(), address);
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.upstream = Some((end, ticket));
                }
            }
            ProxyAction::CloseWrite(side) => {
                if let Some(session) = self.sessions.get(&id) {
                    match (side, session.upstream) {
                        (Side::Client, _) => self.outbox.shutdown(net, session.client),
                        (Side::Upstream, Some((end, _))) => self.outbox.shutdown(net, end),
                        (Side::Upstream, None) => {}
                    }
                }
            }
            ProxyAction::Close(Side::Upstream) => {
                if let Some(session) = self.sessions.get_mut(&id)
                    && let Some((end, _)) = session.upstream.take()
                {
                    self.outbox.close(net, end);
                }
            }
            // Both are closed with the last event.
            _ => {}
        }
    }

    fn judge(&mut self, id: u64, authorization: Option<&str>) -> AuthVerdict {
        let allow = AuthVerdict::Allow {
            user: Some("alice".to_owned()),
            info: None,
        };
        match self.auth {
            Auth::None => allow,
            Auth::Basic => {
                let sent = authorization.and_then(|value| Challenge::parse(value).ok());
                let sent = sent.and_then(|challenge| parse_basic(&challenge));
                let good = sent.is_some_and(|sent| {
                    sent.username == "alice" && sent.password.expose() == b"secret"
                });
                if good {
                    allow
                } else {
                    AuthVerdict::Challenge(Vec::from(["Basic realm=\"proxy\"".to_owned()]))
                }
            }
            Auth::Ntlm => {
                let session = self.sessions.get_mut(&id);
                let legs = session.map_or(0, |session| {
                    session.legs += 1;
                    session.legs
                });
                match authorization {
                    Some("NTLM bGVnMw==") if legs > 1 => allow,
                    Some("NTLM bGVnMQ==") => AuthVerdict::Continue("NTLM bGVnMg==".to_owned()),
                    _ => AuthVerdict::Challenge(Vec::from(["NTLM".to_owned()])),
                }
            }
        }
    }

    fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Accepted { end, .. } => self.accept(net, end),
            Arrival::Connected { end, .. } => {
                if let Some((id, _)) = self.session_of(end)
                    && let Some((_, ticket)) = self.sessions[&id].upstream
                {
                    self.input(net, id, ProxyIn::Room(Side::Upstream, ROOM));
                    self.input(net, id, ProxyIn::Connected(ticket));
                } else {
                    net.close(end);
                }
            }
            Arrival::ConnectFailed { end, why } => {
                if let Some((id, _)) = self.session_of(end)
                    && let Some((_, ticket)) = self.sessions[&id].upstream
                {
                    let error = match why {
                        ConnectFailure::Refused => ProxyError::ConnectionRefused,
                        ConnectFailure::TimedOut => ProxyError::ConnectionTimeout,
                    };
                    self.input(net, id, ProxyIn::Failure(ticket, error));
                }
            }
            Arrival::Bytes { end, data } => {
                if let Some((id, side)) = self.session_of(end) {
                    self.input(net, id, ProxyIn::Bytes(side, data));
                }
            }
            Arrival::Eof { end } => {
                if let Some((id, side)) = self.session_of(end) {
                    self.input(net, id, ProxyIn::Eof(side));
                }
            }
            Arrival::Reset { end } => {
                self.outbox.forget(end);
                if let Some((id, side)) = self.session_of(end) {
                    self.input(net, id, ProxyIn::Reset(side));
                }
            }
            Arrival::Writable { end } => {
                let before = self.outbox.waiting(end);
                self.outbox.flush(net, end);
                let gone = before - self.outbox.waiting(end);
                if gone > 0
                    && let Some((id, side)) = self.session_of(end)
                {
                    self.input(net, id, ProxyIn::Room(side, gone));
                }
            }
            Arrival::Alarm(number) => {
                if let Some((id, ticket, name)) = self.questions.remove(&number) {
                    let input = if name == NAMES[0] {
                        ProxyIn::Resolved(ticket, Vec::from([at(TARGET).ip()]))
                    } else {
                        ProxyIn::Failure(ticket, ProxyError::Dns { rcode: None })
                    };
                    self.input(net, id, input);
                }
            }
            Arrival::Datagram { .. } | Arrival::Unreachable { .. } => {}
        }
        self.read(net);
    }

    /// Reads only from connections whose bytes are welcome.
    fn read(&self, net: &mut Net) {
        for session in self.sessions.values() {
            let machine = session.machine.machine();
            let full = |side| machine.waiting(side) > 1000;
            net.pause(session.client, full(Side::Client));
            if let Some((end, _)) = session.upstream {
                net.pause(end, full(Side::Upstream));
            }
        }
    }
}

/// The target: greets every connection, then echoes.
#[derive(Default)]
struct TargetNode {
    outbox: Outbox,
    /// What was received and sent, by connection.
    seen: BTreeMap<End, (Vec<u8>, Vec<u8>)>,
}

struct ConnectWorld {
    client: ClientNode,
    proxy: ProxyNode,
    target: TargetNode,
    target_host: HostId,
    chaos: HostId,
    healed: bool,
}

impl ConnectWorld {
    fn target(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Accepted { end, .. } => {
                let len = *net.choices().pick(&[0, 1, 200, 20_000]);
                let mut greeting = net.choices().fork().bytes(len);
                if let Some(first) = greeting.first_mut()
                    && (self.healed || *first & 1 == 0)
                {
                    *first = 0x16;
                }
                self.target.outbox.write(net, end, &greeting);
                self.target.seen.insert(end, (Vec::new(), greeting));
            }
            Arrival::Bytes { end, data } => {
                if let Some((received, sent)) = self.target.seen.get_mut(&end) {
                    received.extend_from_slice(&data);
                    sent.extend_from_slice(&data);
                    self.target.outbox.write(net, end, &data);
                }
            }
            Arrival::Eof { end } => self.target.outbox.close(net, end),
            Arrival::Reset { end } => self.target.outbox.forget(end),
            Arrival::Writable { end } => self.target.outbox.flush(net, end),
            Arrival::Datagram { .. }
            | Arrival::Unreachable { .. }
            | Arrival::Connected { .. }
            | Arrival::ConnectFailed { .. }
            | Arrival::Alarm(_) => {}
        }
    }

    fn chaos(&mut self, net: &mut Net) {
        if self.healed {
            return;
        }
        match net.choices().below(8) {
            0 => {
                if let Some(end) = self.client.end {
                    net.reset(end);
                    self.client.stop(net);
                }
            }
            1 => {
                if let Some(end) = self.client.end {
                    net.kill(end);
                }
            }
            2 => {
                let session = self.proxy.sessions.values().next();
                if let Some((end, _)) = session.and_then(|session| session.upstream) {
                    net.reset(end.other());
                }
            }
            3 => {
                net.note(self.proxy.host, || "crashes");
                net.reset_all(self.proxy.host);
                for (_, session) in core::mem::take(&mut self.proxy.sessions) {
                    let mut choices = net.choices().fork();
                    session.machine.finish(&mut choices);
                }
                self.proxy.questions.clear();
            }
            4 => net.lateness = net.choices().duration(Duration::from_secs(40)),
            _ => net.lateness = Duration::ZERO,
        }
        let wait = net.choices().duration(Duration::from_secs(20));
        net.alarm(self.chaos, wait, 0);
    }

    /// Every byte at either end is the one that was sent at the other, in order, once.
    fn check_tunnel(&mut self) {
        let Some(client) = self.client.end.filter(|_| self.client.established) else {
            return;
        };
        let session = self.proxy.session_of(client.other());
        let Some((upstream, _)) = session.and_then(|(id, _)| self.proxy.sessions[&id].upstream)
        else {
            return;
        };
        let Some((received, sent)) = self.target.seen.get(&upstream.other()) else {
            return;
        };
        let (up, down) = (&self.client.sent, &self.client.got);
        assert!(up.starts_with(received), "the target got what was not sent");
        assert!(sent.starts_with(down), "the client got what was not sent");
        let all = received.len() == up.len() && down.len() == sent.len();
        if self.healed && all {
            self.client.finished = true;
        }
    }
}

impl World for ConnectWorld {
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival) {
        let bytes = matches!(arrival, Arrival::Bytes { .. });
        if to == self.client.host {
            self.client.deliver(net, arrival);
        } else if to == self.proxy.host {
            self.proxy.deliver(net, arrival);
        } else if to == self.target_host {
            self.target(net, arrival);
        } else {
            self.chaos(net);
        }
        if bytes {
            self.check_tunnel();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let client = self.client.machine.as_ref().and_then(Checked::deadline);
        let sessions = self.proxy.sessions.values();
        let sessions = sessions.filter_map(|session| session.machine.deadline());
        sessions.chain(client).min()
    }

    fn wake(&mut self, net: &mut Net) {
        let now = net.now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some(machine) = &mut self.client.machine
            && due(machine.deadline())
        {
            let outputs = machine.timeout(now);
            self.client.outputs(net, outputs);
        }
        let ids: Vec<_> = self.proxy.sessions.keys().copied().collect();
        for id in ids {
            let session = self.proxy.sessions.get(&id);
            if session.is_some_and(|session| due(session.machine.deadline())) {
                self.proxy.timeout(net, id);
            }
        }
    }
}

fn build(net: &mut Net) -> ConnectWorld {
    net.cuts = *net
        .choices()
        .pick(&[Cuts::None, Cuts::Most(1), Cuts::Most(50), Cuts::Wild]);
    net.window = *net.choices().pick(&[300, 5000, 64 * 1024]);
    if net.cuts == Cuts::Most(1) {
        net.cuts = Cuts::Wild;
    }
    let auth = *net.choices().pick(&[Auth::None, Auth::Basic, Auth::Ntlm]);
    let mut choices = net.choices().fork();
    let firewall = Firewall {
        allowed: Allowed::Proxy(at(PROXY)),
        rejects: choices.flip(),
    };
    let link = Link::drawn(&mut choices);
    let site = net.site(INTERNET, Gateway::routed(link).with_firewall(firewall));
    let ip = IpAddr::from([192, 0, 2, 10]);
    let client = net.host("client", &[(ip, site)]);
    let proxy = net.host("proxy", &[(at(PROXY).ip(), INTERNET)]);
    let target = net.host("target", &[(at(TARGET).ip(), INTERNET)]);
    net.listen(proxy, at(PROXY));
    net.listen(target, at(TARGET));
    let chaos = net.host("chaos", &[]);
    net.alarm(client, Duration::ZERO, 0);
    net.alarm(chaos, Duration::from_secs(1), 0);
    ConnectWorld {
        client: ClientNode {
            host: client,
            ip,
            machine: None,
            end: None,
            outbox: Outbox::new(),
            established: false,
            sent: Vec::new(),
            got: Vec::new(),
            payload: Vec::new(),
            healed: false,
            finished: false,
        },
        proxy: ProxyNode {
            host: proxy,
            auth,
            half_close: choices.flip(),
            sessions: BTreeMap::new(),
            outbox: Outbox::new(),
            next: 0,
            questions: BTreeMap::new(),
            follow: VecDeque::new(),
            busy: false,
            healed: false,
        },
        target: TargetNode::default(),
        target_host: target,
        chaos,
        healed: false,
    }
}

/// Tunnel after tunnel through faults; afterwards one must carry its bytes both ways in full.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_connect(choices: Choices, trace: Trace) {
    let mut net = Net::new(choices, trace);
    let mut world = build(&mut net);
    let longest = *net.choices().pick(&[2, 60, 300]);
    let faults = net.choices().duration(Duration::from_secs(longest));
    net.run_for(&mut world, faults);
    net.heal();
    world.healed = true;
    world.proxy.healed = true;
    world.client.healed = true;
    world.client.stop(&mut net);
    net.alarm(world.client.host, Duration::ZERO, 0);
    let until = net.now().checked_add(Duration::from_secs(60));
    let done = net.run(&mut world, until.expect("time"), |world| {
        world.client.finished
    });
    assert!(done, "no complete tunnel a minute after the last fault");
    world.client.stop(&mut net);
    net.run_for(&mut world, Duration::from_secs(200));
    assert!(
        world.proxy.sessions.is_empty(),
        "the proxy holds connections of clients that are gone"
    );
}
