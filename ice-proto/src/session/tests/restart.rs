//! What becomes of relays in a restart.

use super::*;

const BOTH: [(Transport, &str); 2] = [(Transport::Udp, TURN), (Transport::Tls, TURN_TLS)];

/// Two sessions that talk over relays.
fn talking(transport: Transport, server: &str) -> Net {
    let mut net = relayed_pair(transport, server);
    net.run(1000);
    connect(&mut net);
    net.run(20_000);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
    net
}

fn restart(net: &mut Net) {
    let now = net.now;
    for node in &mut net.nodes {
        node.events.clear();
        node.session.restart(now).unwrap();
        node.session.gather(now).unwrap();
    }
}

fn after(net: &mut Net, millis: u64) {
    let end = net.now + Duration::from_millis(millis);
    net.run_until(end);
}

fn lost_routes(net: &Net) -> usize {
    let lost = |event: &&SessionEvent| matches!(event, SessionEvent::Ice(Event::RouteLost { .. }));
    let nodes = net.nodes.iter();
    nodes.map(|n| n.events.iter().filter(lost).count()).sum()
}

#[test]
fn a_relay_that_lives_is_a_candidate_again_and_data_never_stop() {
    for (transport, server) in BOTH {
        let mut net = talking(transport, server);
        let before = net.nodes[0].session.agent().selected(ONE).unwrap().0.addr;
        restart(&mut net);
        chat(&mut net);
        after(&mut net, 1000);
        connect(&mut net);
        after(&mut net, 3000);
        assert!(net.nodes.iter().all(completed));
        chat(&mut net);
        let now = net.nodes[0].session.agent().selected(ONE).unwrap().0.addr;
        assert_eq!(now, before);
        after(&mut net, 20_000);
        assert_eq!((net.server.allocations(), lost_routes(&net)), (2, 0));
        chat(&mut net);
    }
}

// firezone issue 12319, coturn restarted: the relay was offered again, and the restart failed.
#[test]
fn a_relay_its_server_has_forgotten_is_replaced_in_the_restart() {
    for (transport, server) in BOTH {
        let mut net = talking(transport, server);
        net.server.forget();
        restart(&mut net);
        after(&mut net, 1500);
        for node in &net.nodes {
            assert!(gathered(node));
            assert_eq!(candidates(node).len(), 1, "{:?}", node.events);
        }
        connect(&mut net);
        after(&mut net, 3000);
        assert!(net.nodes.iter().all(completed));
        chat(&mut net);
        assert_eq!(net.server.allocations(), 2);
    }
}

#[test]
fn a_relay_that_is_being_given_back_is_followed_by_another_one() {
    let side = |role, seed, host, public| {
        let config = SessionConfig {
            turn_servers: alloc::vec![turn(TURN, Transport::Udp)],
            ..config(role)
        };
        node(config, seed, host, public)
    };
    let mut net = Net::new(alloc::vec![
        side(Role::Controlling, 1, "10.0.0.1:1000", "192.0.2.1:61000"),
        side(Role::Controlled, 2, "10.0.1.1:1000", "192.0.2.2:62000"),
    ]);
    net.run(1000);
    connect(&mut net);
    // Nobody uses the relays. The server has given one back, and its client does not know yet.
    let mut waited = 0;
    while net.server.allocations() == 2 {
        after(&mut net, 1);
        waited += 1;
        assert!(waited < 10_000);
    }
    restart(&mut net);
    after(&mut net, 5000);
    for node in &net.nodes {
        assert!(gathered(node));
        let relayed = candidates(node);
        let relayed = relayed.iter().filter(|text| text.contains("typ relay"));
        assert_eq!(relayed.count(), 1, "{:?}", candidates(node));
    }
    assert_eq!(net.server.allocations(), 2);
}

#[test]
fn a_dead_stream_holds_no_restart_up() {
    let mut net = talking(Transport::Tls, TURN_TLS);
    net.lost = alloc::vec![Path::Stream(StreamId(0))];
    restart(&mut net);
    after(&mut net, 500);
    assert!(net.nodes.iter().all(gathered));
    connect(&mut net);
    after(&mut net, 1500);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
    // The old ones are found to be dead, which concerns nobody any more.
    after(&mut net, 60_000);
    assert_eq!(lost_routes(&net), 0);
    assert_eq!(net.closed.len(), 2);
    chat(&mut net);
}

// The server is gone for a while: what was agreed on before still has its relay.
#[test]
fn a_relay_that_is_not_confirmed_is_no_candidate_but_goes_on_for_the_old_generation() {
    let mut net = talking(Transport::Udp, TURN);
    let path = Path::Datagram(FiveTuple::udp(addr("10.0.0.1:1000"), addr(TURN)));
    net.lost = alloc::vec![path];
    restart(&mut net);
    after(&mut net, 10_100);
    assert!(gathered(&net.nodes[0]) && candidates(&net.nodes[0]).is_empty());
    net.lost.clear();
    chat(&mut net);
    // It comes back, and the next restart finds it.
    after(&mut net, 5000);
    restart(&mut net);
    after(&mut net, 1000);
    assert_eq!(candidates(&net.nodes[0]).len(), 1);
    connect(&mut net);
    after(&mut net, 3000);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
}

#[test]
fn a_restart_that_is_taken_back_gives_back_what_was_gathered_for_it() {
    for (transport, server) in BOTH {
        let mut net = talking(transport, server);
        let before = net.nodes[0].session.agent().local_credentials().clone();
        let now = net.now;
        let session = &mut net.nodes[0].session;
        session.restart(now).unwrap();
        session.gather(now).unwrap();
        after(&mut net, 2000);
        let now = net.now;
        net.nodes[0].session.rollback(now).unwrap();
        assert_eq!(net.nodes[0].session.agent().local_credentials(), &before);
        assert!(net.nodes[0].session.rollback(now).is_err());
        after(&mut net, 60_000);
        assert_eq!((net.server.allocations(), lost_routes(&net)), (2, 0));
        chat(&mut net);
        // The other side's answer may say so as well.
        let now = net.now;
        let session = &mut net.nodes[0].session;
        session.restart(now).unwrap();
        session.gather(now).unwrap();
        let remote = net.nodes[1].session.description(0);
        let lines: String = remote.iter().map(|l| alloc::format!("a={l}\r\n")).collect();
        let description = RemoteDescription::parse(&lines).unwrap();
        let session = &mut net.nodes[0].session;
        let _ = session.set_remote_description(now, &description);
        assert_eq!(session.agent().local_credentials(), &before);
        after(&mut net, 60_000);
        assert_eq!((net.server.allocations(), lost_routes(&net)), (2, 0));
        chat(&mut net);
    }
}

// A network that is gone for a minute, and a host that restarts all the time.
#[test]
fn restarts_over_a_dead_network_pile_nothing_up() {
    let mut net = talking(Transport::Tls, TURN_TLS);
    net.lost = (0..100).map(|id| Path::Stream(StreamId(id))).collect();
    for round in 0..30 {
        restart(&mut net);
        after(&mut net, 2000);
        let open = net.nodes[0].session.relays.len();
        assert!(open <= 3, "{open} relays in round {round}");
    }
    let still = net.opened.len() - net.closed.len();
    assert!(still <= 6, "{still} streams");
    net.lost.clear();
    restart(&mut net);
    after(&mut net, 2000);
    connect(&mut net);
    after(&mut net, 3000);
    assert!(net.nodes.iter().all(completed));
    chat(&mut net);
}
