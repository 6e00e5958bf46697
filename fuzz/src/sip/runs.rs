//! Runs without chance, or with little of it: long ones, and those that are cut off at every byte.

use core::time::Duration;

use sip_outbound::wire::Method;
use stun_proto::Transport;

use super::core_node::Fate;
use super::scenario::{Plan, SipWorld, build};
use crate::sim::{Choices, Cuts, Net, Trace};

/// Both registrations of a calm network for some time, with a message now and then: no flow fails,
/// every message arrives, pings are as many as agreed.
fn calm(choices: Choices, trace: Trace, hours: u64) {
    let mut net = Net::new(choices, trace);
    net.cuts = *net.choices().pick(&[Cuts::None, Cuts::Wild]);
    let transports = [Transport::Tls, Transport::Udp];
    let transport = *net.choices().pick(&transports);
    let mut plan = Plan::calm(transport);
    plan.edge.pcscf = net.choices().flip();
    plan.edge.flow_timer = *net.choices().pick(&[None, Some(60), Some(120)]);
    plan.agent.expires = *net.choices().pick(&[600, 3600, 600_000]);
    plan.access.jitter = net.choices().duration(Duration::from_millis(200));
    let flow_timer = plan.edge.flow_timer;
    let mut world = build(&mut net, &plan);
    world.calm();
    world.agent.start(&mut net);
    net.run_for(&mut world, Duration::from_secs(2));
    for hour in 0..hours {
        assert_eq!(world.agent.watch.registered(), 2, "in hour {hour}");
        let number = world.core.call(&mut net, Method::MESSAGE);
        let until = net.now().checked_add(Duration::from_secs(3600));
        let failed = net.run(&mut world, until.expect("time"), |world| {
            world.agent.watch.failed > 0
        });
        assert!(!failed, "a flow failed in a calm network, in hour {hour}");
        let fate = world.core.fates.get(&number);
        assert_eq!(fate, Some(&Fate::Answered), "in hour {hour}");
        assert_eq!(world.core.machine.machine().registrar.len(), 2);
    }
    assert_eq!(
        world.agent.watch.failed, 0,
        "a flow failed in a calm network"
    );
    let bound = match (transport, flow_timer) {
        (Transport::Udp, None) => 29,
        (_, None) => 120,
        (_, Some(seconds)) => u64::from(seconds.min(120)),
    };
    let (seconds, pings) = (hours * 3600, world.agent.watch.pings);
    // Each flow is proven by one at once; on streams intervals begin with seconds and grow.
    let more = if transport == Transport::Udp { 4 } else { 50 };
    let (least, most) = (
        2 * seconds / bound - 2,
        2 * seconds * 5 / (bound * 4) + more,
    );
    assert!(
        (least..=most).contains(&pings),
        "{pings} pings in {seconds} s"
    );
    world.finish(&mut net);
}

/// An hour without faults.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_sip_hour(choices: Choices, trace: Trace) {
    calm(choices, trace, 1);
}

/// A week without faults.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_sip_week(choices: Choices, trace: Trace) {
    calm(choices, trace, 7 * 24);
}

/// Which direction of a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the user agent sends to its first edge proxy.
    Up,
    /// What comes back.
    Down,
}

fn registering(cut: Option<(Direction, usize)>) -> (Net, SipWorld) {
    let mut net = Net::new(Choices::from_seed(7), Trace::off());
    let mut world = build(&mut net, &Plan::calm(Transport::Tls));
    world.calm();
    match cut {
        Some((Direction::Up, at)) => world.edges[0].cut = Some(at),
        Some((Direction::Down, at)) => world.agent.cut = Some(at),
        None => {}
    }
    world.agent.start(&mut net);
    (net, world)
}

/// How many bytes the registration over one flow takes, up and down.
pub fn registration_bytes() -> [usize; 2] {
    let (mut net, mut world) = registering(None);
    let most = usize::MAX;
    world.edges[0].cut = Some(most);
    world.agent.cut = Some(most);
    net.run_for(&mut world, Duration::from_secs(2));
    assert_eq!(world.agent.watch.registered(), 2);
    let left = |cut: Option<usize>| most - cut.expect("not cut");
    // Both flows come down here, one goes up there.
    [left(world.edges[0].cut), left(world.agent.cut)]
}

/// Cuts the connection to the first edge proxy (up), or the one that gets that far first (down),
/// behind so many bytes of the registration. Both registrations must be there soon, with no more
/// than two bindings, and a call must arrive.
///
/// # Panics
/// Panics when something does not hold.
pub fn registration_cut(direction: Direction, at: usize) {
    let (mut net, mut world) = registering(Some((direction, at)));
    net.run_for(&mut world, Duration::from_secs(1));
    // The first failure costs a wait of one to three minutes.
    world.converge(&mut net, Duration::from_secs(400));
    let bindings = world.core.machine.machine().registrar.len();
    assert_eq!(bindings, 2, "bindings");
    assert!(world.agent.watch.failed <= 1, "more than one flow failed");
}

/// A wrong password is tried twice on each flow, once without and once with credentials, and never
/// again.
///
/// # Panics
/// Panics when something does not hold.
pub fn sim_sip_password(choices: Choices, trace: Trace) {
    let mut net = Net::new(choices, trace);
    let transport = *net.choices().pick(&[Transport::Tls, Transport::Udp]);
    let mut plan = Plan::calm(transport);
    plan.agent.wrong = true;
    let mut world = build(&mut net, &plan);
    world.calm();
    world.agent.start(&mut net);
    net.run_for(&mut world, Duration::from_secs(3 * 3600));
    assert!(world.agent.watch.is_refused(), "not refused");
    assert_eq!(world.core.registers.len(), 4, "REGISTER requests");
    assert_eq!(world.agent.watch.failed, 0);
    assert!(world.core.machine.machine().registrar.is_empty());
    assert_eq!(world.agent.deadline(), None, "still wants something");
    world.finish(&mut net);
}
