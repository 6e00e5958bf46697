//! A user agent behind a NAT, two edge proxies, the core of its domain, and somebody who floods.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sip_outbound::wire::{Message, Method, ParseConfig, Start};
use sip_outbound::{Instant, Profile};
use stun_proto::Transport;

use super::agent_node::{AgentHabits, AgentNode};
use super::core_node::{CORE, CoreNode, Fate};
use super::edge_node::{CORE_PORT, EDGES, EdgeHabits, EdgeNode};
use super::intruder::Intruder;
use crate::sim::{
    Arrival, Choices, Cuts, Gateway, HostId, INTERNET, Link, NatKind, Net, Packet, SiteId, Trace,
    World,
};

/// How long a refusal is explained by a restart of the registrar: it has forgotten the nonces of
/// registrations under way.
const CONFUSION: Duration = Duration::from_secs(70);

/// The machines of a run.
pub(super) struct SipWorld {
    pub(super) agent: AgentNode,
    pub(super) edges: [EdgeNode; 2],
    pub(super) core: Box<CoreNode>,
    intruder: Intruder,
    chaos: HostId,
    access: SiteId,
    home: SiteId,
    /// When the registrar started last.
    restarted: Option<Instant>,
    core_link: Link,
    refused: bool,
    pub(super) healed: bool,
}

impl World for SipWorld {
    fn deliver(&mut self, net: &mut Net, to: HostId, arrival: Arrival) {
        if to == self.agent.host {
            self.agent.deliver(net, arrival);
        } else if to == self.core.host {
            self.core.deliver(net, arrival);
        } else if to == self.intruder.host {
            self.intruder.deliver(net, arrival);
        } else if to == self.chaos {
            self.chaos(net, &arrival);
        } else if let Some(edge) = self.edges.iter_mut().find(|edge| edge.host == to) {
            edge.deliver(net, arrival);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let [first, second] = &self.edges;
        let all = [
            self.agent.deadline(),
            first.deadline(),
            second.deadline(),
            self.core.deadline(),
        ];
        all.into_iter().flatten().min()
    }

    fn wake(&mut self, net: &mut Net) {
        self.agent.wake(net);
        for edge in &mut self.edges {
            edge.wake(net);
        }
        self.core.wake(net);
    }

    fn check(&mut self, net: &Net) {
        self.agent.watch.check(net.now());
        let refused = self.agent.watch.any_refused();
        if refused && !self.refused {
            let restarted = self.restarted.map(|at| net.now().duration_since(at));
            let excused = restarted.is_some_and(|ago| ago < CONFUSION);
            assert!(
                self.agent.habits.wrong || excused,
                "the registration was refused without reason"
            );
        }
        self.refused = refused;
    }
}

impl SipWorld {
    fn chaos(&mut self, net: &mut Net, arrival: &Arrival) {
        if self.healed {
            return;
        }
        if *arrival == Arrival::Alarm(1) {
            net.gateway(self.home).link.loss = self.core_link.loss;
            return;
        }
        match net.choices().below(24) {
            0 => {
                let edge = net.choices().index(2);
                self.edges[edge].crash(net);
            }
            1 => {
                self.core.restart(net);
                self.restarted = Some(net.now());
            }
            2 | 3 => {
                if let Some(end) = self.agent.some_end(net) {
                    net.note(self.chaos, || "resets a connection");
                    net.cut(end);
                }
            }
            4 | 5 => {
                if let Some(end) = self.agent.some_end(net) {
                    net.note(self.chaos, || "lets a connection die");
                    net.kill(end);
                }
            }
            6 => {
                let edge = net.choices().index(2);
                if let Some(end) = self.edges[edge].some_end() {
                    net.shutdown(end);
                }
            }
            7 => net.rebind(self.access),
            8 => {
                net.lateness = net.choices().duration(Duration::from_secs(20));
                self.agent.watch.late = true;
            }
            9 => net.lateness = Duration::ZERO,
            10 => {
                net.note(self.chaos, || "cuts the core off");
                net.gateway(self.home).link.loss = 1000;
                let wait = net.choices().duration(Duration::from_secs(100));
                net.alarm(self.chaos, wait, 1);
            }
            11 | 12 => {
                let method = if net.choices().flip() {
                    Method::INVITE
                } else {
                    Method::MESSAGE
                };
                self.core.call(net, method);
            }
            13 => {
                let edge = net.choices().index(2);
                self.edges[edge].rotate(net);
            }
            14 => {
                if let Some(end) = self.agent.some_end(net) {
                    let (side, paused) = (net.choices().flip(), net.choices().flip());
                    net.pause(if side { end } else { end.other() }, paused);
                }
            }
            15 => {
                let limit = *net.choices().pick(&[20, 70, 100, 300]);
                net.stream_idle = Some(Duration::from_secs(limit));
            }
            16 => net.stream_idle = None,
            17 if !self.core.registers.is_empty() => {
                // Somebody in the core says again what was said before.
                let data = net.choices().pick(&self.core.registers).clone();
                let from = SocketAddr::from((EDGES[0].1, CORE_PORT));
                net.inject(Packet {
                    from,
                    to: CORE,
                    data,
                });
            }
            _ => self
                .intruder
                .act(net, &self.core.paths, &self.core.registers),
        }
        let longest = *net.choices().pick(&[1, 20, 60]);
        let wait = net.choices().duration(Duration::from_secs(longest));
        net.alarm(self.chaos, wait, 0);
    }

    /// Nobody does anything odd.
    pub(super) fn calm(&mut self) {
        self.healed = true;
        self.agent.healed = true;
        self.core.healed = true;
        for edge in &mut self.edges {
            edge.healed = true;
        }
    }

    /// Ends all faults: what follows must come to rest.
    pub(super) fn heal(&mut self, net: &mut Net) {
        net.heal();
        self.calm();
        self.intruder.stop(net);
        for edge in &mut self.edges {
            edge.start(net);
        }
    }

    /// Both registrations are in force, and a message and a call get through.
    pub(super) fn converge(&mut self, net: &mut Net, within: Duration) {
        let until = net.now().checked_add(within).expect("time");
        for method in [Method::MESSAGE, Method::INVITE] {
            loop {
                let both = |world: &Self| world.agent.watch.registered() == 2;
                let done = net.run(self, until, both);
                assert!(
                    done,
                    "not registered {within:?} after the last fault: {:?}",
                    self.agent.watch
                );
                let number = self.core.call(net, method.clone());
                let fate = |world: &Self| world.core.fates.get(&number).copied();
                net.run(self, until, |world| fate(world).is_some());
                if fate(self) == Some(Fate::Answered) {
                    let came = self.agent.got.get(&format!("call{number}"));
                    assert_eq!(
                        came,
                        Some(&true),
                        "{method} over a flow that is not registered"
                    );
                    break;
                }
                // A flow may have died without a sign before the last fault; the agent finds out
                // by its next ping.
                assert!(
                    net.now() < until,
                    "{method} does not arrive: {:?}",
                    fate(self)
                );
                net.run_for(self, Duration::from_secs(5));
            }
        }
    }

    /// Plays the lives of all machines again.
    pub(super) fn finish(mut self, net: &mut Net) {
        self.agent.finish(net);
        for edge in &mut self.edges {
            edge.finish(net);
        }
        let mut choices = net.choices().fork();
        self.core.finish(&mut choices);
    }
}

/// What a payload is, for the trace.
fn describe(data: &[u8]) -> String {
    match Message::parse(data, &ParseConfig::default())
        .as_ref()
        .map(|m| (m.start(), m.cseq()))
    {
        Ok((Start::Request { method, .. }, cseq)) => {
            format!("{method} {}", cseq.map_or(0, |cseq| cseq.number))
        }
        Ok((Start::Response { code, .. }, Ok(cseq))) => {
            format!(
                "{:?} to {} {}",
                code.map(|code| code.number()),
                cseq.method,
                cseq.number
            )
        }
        Ok(_) | Err(_) => "?".to_string(),
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) agent: AgentHabits,
    pub(super) edge: EdgeHabits,
    pub(super) access: Link,
    pub(super) core: Link,
    pub(super) nat: NatKind,
}

impl Plan {
    /// Nothing goes wrong.
    pub(super) const fn calm(transport: Transport) -> Self {
        Self {
            agent: AgentHabits {
                transport,
                expires: 3600,
                profile: Profile::Internet,
                wrong: false,
            },
            edge: EdgeHabits {
                pcscf: true,
                flow_timer: Some(120),
            },
            access: Link::clean(Duration::from_millis(20)),
            core: Link::clean(Duration::from_millis(5)),
            // Mappings outlive the longest interval there is: a ping may come after the whole of it.
            nat: NatKind {
                timeout: Duration::from_secs(300),
                ..NatKind::new(
                    crate::sim::Dependence::AddressAndPort,
                    crate::sim::Dependence::AddressAndPort,
                )
            },
        }
    }

    fn drawn(choices: &mut Choices) -> Self {
        let transports = [Transport::Tls, Transport::Tcp, Transport::Udp];
        let mut core = Link::drawn(choices);
        let mut access = Link::drawn(choices);
        for link in [&mut core, &mut access] {
            // Whoever alters messages can have a client refused for good.
            link.corrupt = 0;
            link.truncate = 0;
        }
        Self {
            agent: AgentHabits {
                transport: *choices.pick(&transports),
                expires: *choices.pick(&[60, 600, 3600, 600_000]),
                profile: *choices.pick(&[Profile::Internet, Profile::Ims]),
                wrong: choices.chance(100),
            },
            edge: EdgeHabits {
                pcscf: choices.flip(),
                flow_timer: *choices.pick(&[None, Some(15), Some(60), Some(120), Some(1000)]),
            },
            access,
            core,
            nat: NatKind::drawn(choices),
        }
    }
}

/// Builds the network of a plan; nothing has happened yet.
pub(super) fn build(net: &mut Net, plan: &Plan) -> SipWorld {
    net.describe(describe);
    let external = IpAddr::from([192, 0, 2, 1]);
    let nat = Gateway::nat(plan.access.clone(), plan.nat, external);
    let access = net.site(INTERNET, nat);
    let home = net.site(INTERNET, Gateway::routed(plan.core.clone()));
    let edges = [0, 1].map(|number| EdgeNode::new(net, number, plan.edge.clone()));
    let ip = IpAddr::from([10, 0, 0, 2]);
    SipWorld {
        agent: AgentNode::new(net, ip, access, plan.agent.clone()),
        edges,
        core: Box::new(CoreNode::new(net, home)),
        intruder: Intruder::new(net, plan.edge.pcscf),
        chaos: net.host("chaos", &[]),
        access,
        home,
        restarted: None,
        core_link: plan.core.clone(),
        refused: false,
        healed: false,
    }
}

/// Registrations, messages and calls through faults, floods and replays; afterwards both
/// registrations must come back, and a message and a call must arrive.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_sip(choices: Choices, trace: Trace) {
    let mut net = Net::new(choices, trace);
    net.icmp = net.choices().flip();
    net.cuts = *net
        .choices()
        .pick(&[Cuts::None, Cuts::Most(40), Cuts::Wild]);
    net.window = *net.choices().pick(&[300, 5000, 64 * 1024]);
    let plan = Plan::drawn(net.choices());
    let mut world = build(&mut net, &plan);
    world.agent.start(&mut net);
    net.alarm(world.agent.host, Duration::from_secs(1), 0);
    net.alarm(world.chaos, Duration::from_secs(1), 0);
    let longest = *net.choices().pick(&[10, 200, 3600]);
    let faults = net.choices().duration(Duration::from_secs(longest));
    net.run_for(&mut world, faults);
    world.heal(&mut net);
    world.converge(&mut net, Duration::from_secs(7200));
    world.finish(&mut net);
}
