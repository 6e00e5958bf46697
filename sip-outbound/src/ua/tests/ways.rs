//! What the host knows of the way a flow takes, and what the machine learns of it.

use super::*;

/// Runs until something is sent on a flow that has been silent; how long that took, in ms.
fn quiet(bench: &mut Bench) -> u64 {
    let from = bench.ms();
    while bench.sent.is_empty() {
        bench.now = bench.ua.poll_timeout().unwrap();
        bench.ua.handle_timeout(bench.now);
        bench.drain();
    }
    bench.sent.clear();
    bench.ms() - from
}

/// Waits until the flow that has died is opened again.
fn reopened(bench: &mut Bench) -> FlowId {
    loop {
        bench.sent.clear();
        if let Some(flow) = bench.open().pop() {
            return flow;
        }
        bench.now = bench.ua.poll_timeout().unwrap();
        bench.ua.handle_timeout(bench.now);
    }
}

fn long() -> UserAgentConfig {
    let mut config = config(1);
    config.expires = 10_000_000;
    config
}

// spec: PRI-3-1
#[test]
fn a_flow_may_have_a_cap_of_its_own() {
    for (cap, asked, low, high) in [
        (50, "300", 40_000, 50_000),
        (50, "30", 24_000, 30_000),
        (600, "300", 96_000, 120_000),
    ] {
        let mut bench = bench(long());
        bench.ua.start(bench.now);
        bench
            .ua
            .limit_keep_alive(FlowId(1), Duration::from_secs(cap));
        let flow = bench.open()[0];
        bench.accept(&[("Flow-Timer", asked)]);
        for _ in 0..50 {
            let gap = quiet(&mut bench);
            assert!((low..=high).contains(&gap), "{cap} {asked} {gap}");
            bench.input(flow, b"\r\n");
        }
        // A cap that comes later holds from the next keep-alive on.
        bench.ua.limit_keep_alive(flow, Duration::from_secs(20));
        quiet(&mut bench);
        bench.input(flow, b"\r\n");
        assert!(quiet(&mut bench) <= 20_000);
    }
}

// spec: PRI-10-1
#[test]
fn two_deaths_at_about_the_same_idle_age_shorten_the_interval() {
    let (mut bench, flows) = Bench::registered(long(), &[]);
    let mut flow = flows[0];
    let mut die = |bench: &mut Bench, age: u64| {
        bench.run_for(age);
        bench.ua.flow_failed(bench.now, flow);
        bench.events.clear();
        bench.drain();
        flow = reopened(bench);
        bench.accept(&[]);
        let gap = quiet(bench);
        bench.input(flow, b"\r\n");
        gap
    };
    assert!(die(&mut bench, 60_000) >= 96_000);
    // Another age says nothing, and neither does one that no keep-alive would have prevented.
    assert!(die(&mut bench, 90_000) >= 96_000);
    assert!(die(&mut bench, 4_000) >= 96_000);
    let gap = die(&mut bench, 85_000);
    assert!((54_400..=68_000).contains(&gap), "{gap}");
    // Down to the shortest interval, in the end.
    for age in [
        40_000, 40_000, 30_000, 30_000, 18_000, 16_000, 8_000, 7_000, 6_000,
    ] {
        die(&mut bench, age);
    }
    assert!((4_000..=5_000).contains(&die(&mut bench, 5_500)));
    // Another network is another matter.
    bench.ua.network_changed(bench.now);
    let flow = bench.open()[0];
    bench.sent.retain(|(of, _)| *of == flow);
    bench.accept(&[]);
    assert!(quiet(&mut bench) >= 96_000);
}

// spec: PRI-10-1
#[test]
fn a_ping_without_pong_shows_the_idle_age_as_well() {
    let (mut bench, flows) = Bench::registered(long(), &[]);
    let mut flow = flows[0];
    let mut caps = Vec::new();
    for _ in 0..4 {
        caps.push(quiet(&mut bench));
        // No pong; then it is opened again.
        while bench.ua.flows.contains_key(&flow) {
            bench.now = bench.ua.poll_timeout().unwrap();
            bench.ua.handle_timeout(bench.now);
        }
        flow = reopened(&mut bench);
        bench.accept(&[]);
    }
    // Halved at once, each time.
    assert!(caps[0] >= 96_000, "{caps:?}");
    assert!(caps.windows(2).all(|two| two[1] <= two[0] / 2), "{caps:?}");
}

// spec: PRI-10-1
#[test]
fn the_idle_age_does_not_depend_on_how_a_ping_is_taken() {
    let (mut bench, flows) = Bench::registered(long(), &[]);
    bench.now = bench.ua.poll_timeout().unwrap();
    bench.ua.handle_timeout(bench.now);
    let mut octet = [0];
    while bench.ua.poll_flow(flows[0], &mut octet).is_some() {}
    let age = bench.ua.open_ref(flows[0]).unwrap().quiet.unwrap();
    assert!(age >= Duration::from_secs(96), "{age:?}");
}

// spec: PRI-10-2
#[test]
fn bytes_the_host_does_not_take_in_10_seconds_fail_the_flow() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    bench.now = at(1000);
    let message = || NewRequest::new(Method::MESSAGE, "sip:b@c");
    bench.ua.request(bench.now, message()).unwrap();
    bench.ua.handle_timeout(at(10_999));
    // Taken in time; the next one is not.
    let mut buf = [0; 4096];
    bench.ua.poll_flow(flows[0], &mut buf).unwrap();
    bench.ua.handle_timeout(at(11_000));
    bench.ua.request(at(12_000), message()).unwrap();
    bench.ua.poll_flow(flows[0], &mut buf[..10]).unwrap();
    bench.ua.handle_timeout(at(21_999));
    assert!(bench.ua.open_ref(flows[0]).is_some());
    bench.ua.handle_timeout(at(22_000));
    bench.now = at(22_000);
    bench.drain();
    assert_eq!(bench.failure().unwrap().0, FlowFailure::Unsent);
}

#[test]
fn a_new_network_ends_every_flow_and_opens_them_at_once() {
    let mut bench = bench(config(2));
    bench.first_ping = FirstPing::Shown;
    let (mut bench, flows) = bench.register(&[]);
    // One of the two is waiting for its time.
    bench.ua.flow_failed(bench.now, flows[1]);
    assert!(bench.open().is_empty());
    bench.sent.clear();
    bench.events.clear();
    bench.ua.network_changed(bench.now);
    bench.drain();
    assert_eq!(
        bench.failure(),
        Some((FlowFailure::NetworkChanged, Some(Duration::ZERO)))
    );
    assert!(bench.closed(flows[0]));
    let opened = bench.open();
    assert_eq!(opened.len(), 2);
    bench.accept(&[]);
    bench.accept(&[]);
    assert_eq!(bench.kinds(), "Registered Registered");
}

#[test]
fn a_waiting_registration_can_be_tried_at_once() {
    let mut bench = bench(config(1));
    let flows = bench.start();
    bench.ua.retry_now(bench.now, 1);
    assert!(bench.open().is_empty());
    assert_eq!(bench.ua.reg_id(flows[0]), Some(1));
    bench.ua.flow_failed(bench.now, flows[0]);
    bench.drain();
    let (_, first) = bench.failure().unwrap();
    bench.ua.retry_now(bench.now, 2);
    assert!(bench.open().is_empty());
    bench.ua.retry_now(bench.now, 1);
    let flow = bench.open()[0];
    // The failures still count.
    bench.ua.flow_failed(bench.now, flow);
    bench.drain();
    let (_, second) = bench.failure().unwrap();
    assert!(first.unwrap().as_secs() <= 60 && second.unwrap().as_secs() >= 60);
}

#[test]
fn a_flow_can_be_led_to_another_edge_proxy_before_it_is_open() {
    let mut bench = bench(config(2));
    bench.ua.start(bench.now);
    let other = uri("sips:ep3.example.com");
    assert!(bench.ua.redirect_flow(FlowId(1), other.clone()));
    bench.open();
    assert!(!bench.ua.redirect_flow(FlowId(1), other));
    let (_, register) = bench.next_request();
    assert_eq!(register.only(Name::ROUTE), Ok("<sips:ep3.example.com;lr>"));
}
