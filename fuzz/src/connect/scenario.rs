//! A client whose only way out is a proxy, the proxy, and a target that greets and echoes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use http_connect::Instant;

use super::client_node::ClientNode;
use super::proxy_node::{Auth, PROXY, ProxyNode, TARGET, at};
use crate::contract::Checked;
use crate::sim::{
    Allowed, Arrival, Choices, Cuts, End, Firewall, Gateway, HostId, INTERNET, Link, Net, Outbox,
    Trace, World,
};

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
