//! Keep-alives, the death of flows, and how they come back.

use super::*;
use crate::wire::Response;

/// Runs until a ping goes out; how long that took, in ms.
fn next_ping(bench: &mut Bench) -> u64 {
    let from = bench.ms();
    loop {
        bench.drain();
        if let Some(at) = bench
            .sent
            .iter()
            .position(|(_, bytes)| bytes == b"\r\n\r\n")
        {
            bench.sent.remove(at);
            return bench.ms() - from;
        }
        bench.now = bench.ua.poll_timeout().unwrap();
        bench.ua.handle_timeout(bench.now);
    }
}

fn gaps(rows: &[(&str, &str)], change: impl Fn(&mut UserAgentConfig), count: usize) -> (u64, u64) {
    let mut config = config(1);
    config.expires = 10_000_000;
    change(&mut config);
    let (mut bench, flows) = Bench::registered(config, rows);
    let gaps: Vec<_> = (0..count)
        .map(|_| {
            let gap = next_ping(&mut bench);
            bench.input(flows[0], b"\r\n");
            gap
        })
        .collect();
    (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap())
}

fn within(found: (u64, u64), low: u64, high: u64) {
    assert!(found.0 >= low && found.1 <= high, "{found:?} {low} {high}");
    // A thousand draws come near both ends.
    let margin = (high - low) / 20;
    assert!(
        found.0 <= low + margin && found.1 >= high - margin,
        "{found:?}"
    );
}

// spec: OUT-4.2.1-12, OUT-4.4-1, OUT-4.4-2, OUT-4.4.1-3, PRJ-8-2, PRI-3-1, KEEP-4.3-2
#[test]
fn intervals_are_drawn_from_the_upper_fifth() {
    within(gaps(&[], |_| {}, 1000), 96_000, 120_000);
    within(
        gaps(&[("Flow-Timer", "100")], |_| {}, 1000),
        80_000,
        100_000,
    );
    within(gaps(&[("Flow-Timer", "0")], |_| {}, 1000), 96_000, 120_000);
    within(gaps(&[("Flow-Timer", "12")], |_| {}, 1000), 9_600, 12_000);
    within(gaps(&[("Flow-Timer", "1")], |_| {}, 1000), 4_000, 5_000);
    within(
        gaps(&[("Flow-Timer", "300")], |_| {}, 1000),
        96_000,
        120_000,
    );
    let via_proxy = |config: &mut UserAgentConfig| config.keep_alive.cap = Duration::from_secs(50);
    within(
        gaps(&[("Flow-Timer", "300")], via_proxy, 1000),
        40_000,
        50_000,
    );
    within(
        gaps(&[("Flow-Timer", "30")], via_proxy, 1000),
        24_000,
        30_000,
    );
    let battery = |config: &mut UserAgentConfig| {
        config.keep_alive.stream = Duration::from_secs(840);
        config.keep_alive.cap = Duration::from_secs(840);
    };
    within(gaps(&[], battery, 1000), 672_000, 840_000);
}

/// Registers with these words in the answer's Via; whether pings follow.
fn pings_with_keep(keep: &str, outbound: bool) -> Option<Duration> {
    let mut bench = bench(config(1));
    bench.start();
    let (flow, register) = bench.next_request();
    let contact = register.only(Name::CONTACT).unwrap();
    let mut rows = alloc::vec![("Contact", contact)];
    if outbound {
        rows.push(("Require", "outbound"));
    }
    let mut builder = Builder::reply(&register, StatusCode::OK, Some("t"));
    for (name, value) in rows {
        builder = builder.header(name, value);
    }
    let answer = builder.finish(b"").unwrap();
    let answer = String::from_utf8(answer.as_bytes().to_vec()).unwrap();
    let answer = answer.replace(";keep\r\n", &alloc::format!("{keep}\r\n"));
    bench.input(flow, answer.as_bytes());
    bench.events.iter().find_map(|event| match event {
        UserAgentEvent::Registered { registration, .. } => Some(registration.keep_alive),
        _ => None,
    })?
}

// spec: KEEP-4.3-2, W-3.1.2-1, OUT-4.4-3
#[test]
fn keep_with_a_value_obliges_and_without_one_does_not() {
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(pings_with_keep(";keep=30", false), seconds(30));
    assert_eq!(pings_with_keep(";keep=0", false), seconds(120));
    assert_eq!(pings_with_keep(";keep", false), None);
    assert_eq!(pings_with_keep("", false), None);
    assert_eq!(pings_with_keep("", true), seconds(120));
    assert_eq!(pings_with_keep(";keep=30", true), seconds(30));
}

// spec: OUT-4.4-1
#[test]
fn neither_a_slow_pong_nor_a_refresh_puts_the_next_ping_off() {
    let mut bench = bench(config(1));
    bench.start();
    let (flow, register) = bench.next_request();
    // Refreshed sooner than a ping is due.
    let contact = "<sip:alice@10.7.0.9:40112;transport=tcp>;expires=60";
    let rows = [
        ("Contact", contact),
        ("Require", "outbound"),
        ("Flow-Timer", "100"),
    ];
    bench.answer(flow, &register, 200, &rows);
    let (mut last, mut pings) = (0, 0);
    while pings < 20 {
        let sent: Vec<_> = bench.sent.drain(..).collect();
        if sent.is_empty() {
            bench.now = bench.ua.poll_timeout().unwrap();
            bench.ua.handle_timeout(bench.now);
            bench.drain();
        }
        for (_, bytes) in sent {
            if bytes == b"\r\n\r\n" {
                let gap = bench.ms() - last;
                assert!((80_000..=100_000).contains(&gap), "{gap}");
                (last, pings) = (bench.ms(), pings + 1);
                bench.run_for(9_000);
                bench.input(flow, b"\r\n");
            } else {
                let message = Message::parse(&bytes, &ParseConfig::default()).unwrap();
                let request = Request::check(message, &Limits::DEFAULT).unwrap();
                bench.answer(flow, &request, 200, &rows);
            }
        }
    }
}

// spec: KEEP-4.2.2-1
#[test]
fn pings_stop_when_a_refresh_no_longer_grants_them() {
    let mut config = config(1);
    config.keep_alive.unasked = false;
    let mut bench = bench(config);
    bench.start();
    let (flow, register) = bench.next_request();
    let contact = "<sip:alice@10.7.0.9:40112;transport=tcp>;expires=60";
    bench.answer(
        flow,
        &register,
        200,
        &[("Contact", contact), ("Flow-Timer", "100")],
    );
    assert!(bench.ua.timers.get(Timer::KeepAlive(flow)).is_some());
    bench.run_for(30_000);
    let (_, refresh) = bench.next_request();
    bench.answer(flow, &refresh, 200, &[("Contact", contact)]);
    assert!(bench.ua.timers.get(Timer::KeepAlive(flow)).is_none());
}

// spec: OUT-4.4.1-4, SEC-P-14
#[test]
fn a_missing_pong_fails_the_flow_after_ten_seconds() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    next_ping(&mut bench);
    bench.run_for(9_999);
    assert!(!bench.closed(flows[0]));
    bench.run_for(1);
    assert!(bench.closed(flows[0]));
    assert_eq!(bench.failure().unwrap().0, FlowFailure::KeepAlive);
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    next_ping(&mut bench);
    bench.run_for(9_999);
    bench.input(flows[0], b"\r\n");
    bench.run_for(1_000);
    assert!(!bench.closed(flows[0]));
}

// spec: PRJ-8-1
#[test]
fn other_traffic_is_no_pong() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    next_ping(&mut bench);
    bench.run_for(5_000);
    bench.input(flows[0], b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n");
    bench.run_for(5_000);
    assert_eq!(bench.failure().unwrap().0, FlowFailure::KeepAlive);
}

// spec: OUT-4.4.1-4
#[test]
fn a_message_that_is_being_received_is_finished_first() {
    let options = "OPTIONS sip:alice@h SIP/2.0\r\nVia: SIP/2.0/TLS x;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    for (tail, dies) in [("", true), ("\r\n", false)] {
        let (mut bench, flows) = Bench::registered(config(1), &[]);
        next_ping(&mut bench);
        bench.run_for(9_000);
        let (head, rest) = options.split_at(20);
        bench.input(flows[0], head.as_bytes());
        bench.run_for(5_000);
        assert!(!bench.closed(flows[0]));
        bench.input(flows[0], alloc::format!("{rest}{tail}").as_bytes());
        assert!(bench.kinds().starts_with("Request"));
        assert_eq!(bench.closed(flows[0]), dies);
    }
}

// spec: OUT-4.4.1-2
#[test]
fn a_ping_stands_between_messages() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    bench
        .ua
        .request(
            bench.now,
            NewRequest::new(Method::MESSAGE, "sip:b@c").body("text/plain", "hi"),
        )
        .unwrap();
    let mut buf = [0; 10];
    let mut stream = Vec::new();
    let len = bench.ua.poll_flow(flows[0], &mut buf).unwrap();
    stream.extend_from_slice(&buf[..len]);
    bench.now = at(119_999);
    bench.ua.send_ping(bench.now, flows[0]);
    while let Some(len) = bench.ua.poll_flow(flows[0], &mut buf) {
        stream.extend_from_slice(&buf[..len]);
    }
    assert!(stream.starts_with(b"MESSAGE ") && stream.ends_with(b"hi\r\n\r\n"));
}

// spec: PRI-10-2
#[test]
fn a_ping_the_socket_does_not_take_fails_the_flow_too() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    let due = bench.ua.timers.get(Timer::KeepAlive(flows[0])).unwrap();
    bench.ua.handle_timeout(due);
    bench.ua.handle_timeout(due + Duration::from_millis(9_999));
    bench.ua.handle_timeout(due + Duration::from_secs(10));
    bench.now = due + Duration::from_secs(10);
    bench.drain();
    assert_eq!(bench.failure().unwrap().0, FlowFailure::Unsent);
}

// spec: SEC-G-14
#[test]
fn a_flow_that_takes_nothing_fails_at_its_limit() {
    let mut config = config(1);
    config.max_unsent = 4096;
    let (mut bench, _) = Bench::registered(config, &[]);
    for _ in 0..20 {
        let _ = bench
            .ua
            .request(bench.now, NewRequest::new(Method::MESSAGE, "sip:b@c"));
    }
    bench.drain();
    assert_eq!(bench.failure().unwrap().0, FlowFailure::Unsent);
}

// spec: OUT-4.5-1, OUT-4.5-2, OUT-4.5-3, SEC-P-15, OUT-4.2.2-2
#[test]
fn waits_grow_with_the_failures_and_start_over_after_a_pong() {
    let mut bench = bench(config(2));
    let flows = bench.start();
    bench.accept(&[]);
    assert_eq!(bench.next().0, flows[1]);
    // The second flow never registers, while the first one lives: base 90 s.
    let mut second = flows[1];
    for (low, high) in [
        (90, 180),
        (180, 360),
        (360, 720),
        (720, 1440),
        (900, 1800),
        (900, 1800),
    ] {
        bench.ua.flow_failed(bench.now, second);
        bench.drain();
        let (_, wait) = bench.failure().unwrap();
        let wait = wait.unwrap().as_millis() as u64;
        assert!((low * 1000..=high * 1000).contains(&wait), "{wait}");
        let until = bench.ms() + wait;
        while bench.ms() < until {
            let next = bench.ua.poll_timeout().unwrap();
            bench.now = next;
            bench.ua.handle_timeout(next);
            bench.drain();
            if bench.sent.iter().any(|(_, bytes)| bytes == b"\r\n\r\n") {
                bench.sent.clear();
                bench.input(flows[0], b"\r\n");
            }
            if let Some(at) = bench
                .sent
                .iter()
                .position(|(_, bytes)| bytes.starts_with(b"REGISTER"))
            {
                bench.sent.drain(..at);
                bench.accept(&[]);
            }
        }
        let opened = bench.open();
        assert_eq!(opened.len(), 1);
        second = opened[0];
        bench.sent.clear();
    }
}

// spec: OUT-4.5-3
#[test]
fn a_flow_without_a_pong_counts_as_another_failure() {
    let mut bench = bench(config(1));
    bench.first_ping = FirstPing::Shown;
    let (mut bench, flows) = bench.register(&[]);
    bench.ua.handle_flow_closed(bench.now, flows[0]);
    bench.drain();
    let wait = bench.failure().unwrap().1.unwrap();
    assert!((30..=60).contains(&wait.as_secs()), "{wait:?}");

    let (mut bench, flows) = Bench::registered(config(1), &[]);
    next_ping(&mut bench);
    bench.input(flows[0], b"\r\n");
    bench.ua.handle_flow_closed(bench.now, flows[0]);
    let opened = bench.open();
    assert_eq!(bench.failure().unwrap().1, Some(Duration::ZERO));
    // Registered anew, with the same reg-id (RFC 5626 section 4.5).
    let (_, register) = bench.next_request();
    assert!(register.only(Name::CONTACT).unwrap().contains("reg-id=1"));
    bench.ua.flow_failed(bench.now, opened[0]);
    bench.drain();
    let wait = bench.failure().unwrap().1.unwrap();
    assert!((30..=60).contains(&wait.as_secs()), "{wait:?}");
}

// spec: OUT-4.2.1-11
#[test]
fn retry_after_of_503_counts_the_first_time_and_later_only_lengthens() {
    for (value, expected) in [("0", 0), ("7", 7)] {
        let mut bench = bench(config(1));
        let flows = bench.start();
        let (_, register) = bench.next_request();
        bench.answer(flows[0], &register, 503, &[("Retry-After", value)]);
        assert_eq!(
            bench.failure().unwrap().1,
            Some(Duration::from_secs(expected))
        );
        bench.run_to(expected * 1000);
        // A new flow is asked for, so that the host resolves anew.
        assert_eq!(bench.open().len(), 1);
        let (flow, register) = bench.next_request();
        bench.answer(flow, &register, 503, &[("Retry-After", value)]);
        assert!(bench.failure().unwrap().1 >= Some(Duration::from_secs(60)));
    }
}

// spec: SIP-10.2.7-1
#[test]
fn a_register_without_answer_is_not_repeated_at_once() {
    let mut bench = bench(config(1));
    bench.start();
    bench.sent.clear();
    bench.run_to(32_000);
    let (cause, wait) = bench.failure().unwrap();
    assert_eq!(cause, FlowFailure::TimedOut);
    assert!(wait.unwrap() >= Duration::from_secs(30));
    assert!(bench.sent.is_empty());
}

// spec: OUT-4.2.2-2
#[test]
fn a_refresh_that_fails_for_now_keeps_the_flow_until_the_binding_ends() {
    let mut bench = bench(config(1));
    let flows = bench.start();
    let (_, register) = bench.next_request();
    let contact = "<sip:alice@10.7.0.9:40112;transport=tcp>;expires=60";
    bench.answer(
        flows[0],
        &register,
        200,
        &[("Contact", contact), ("Require", "outbound")],
    );
    bench.events.clear();
    bench.run_for(30_000);
    let (_, refresh) = bench.next_request();
    bench.answer(flows[0], &refresh, 503, &[]);
    assert!(!bench.closed(flows[0]) && bench.events.is_empty());
    bench.run_for(30_000);
    assert!(bench.closed(flows[0]));
    assert_eq!(bench.failure().unwrap().0, FlowFailure::Expired);
}

// spec: OUT-4.2.2-2
#[test]
fn a_refresh_that_fails_is_tried_again_before_the_binding_ends() {
    let contact = "<sip:alice@10.7.0.9:40112;transport=tcp>;expires=60";
    let rows = [("Contact", contact), ("Require", "outbound")];
    let mut bench = bench(config(1));
    let flows = bench.start();
    let (_, register) = bench.next_request();
    bench.answer(flows[0], &register, 200, &rows);
    bench.run_for(30_000);
    let (_, refresh) = bench.next_request();
    bench.answer(flows[0], &refresh, 503, &[]);
    // Half of what is left; the wait by formula is longer than that.
    bench.run_for(14_999);
    assert!(bench.sent.is_empty());
    bench.run_for(1);
    let (_, refresh) = bench.next_request();
    bench.answer(flows[0], &refresh, 200, &rows);
    bench.run_for(20_000);
    assert!(!bench.closed(flows[0]));
}

// spec: E-3.1.0-3, PRI-3-3
#[test]
fn nothing_is_sent_before_tls_is_up() {
    let mut bench = bench(config(1));
    bench.transport = Transport::Tcp;
    bench.start();
    assert!(bench.sent.is_empty());
    assert_eq!(bench.failure().unwrap().0, FlowFailure::Insecure);
}

#[test]
fn a_broken_stream_is_closed_and_a_bad_length_answered() {
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    bench.input(flows[0], b"GET / HTTP/1.1\r\n");
    assert!(bench.sent.is_empty());
    assert!(matches!(
        bench.failure().unwrap().0,
        FlowFailure::Framing(_)
    ));
    let (mut bench, flows) = Bench::registered(config(1), &[]);
    bench.input(
        flows[0],
        b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TLS x;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n",
    );
    assert!(bench.closed(flows[0]));
    assert!(bench.next().1.as_bytes().starts_with(b"SIP/2.0 400"));
}

fn datagram_bench() -> (Bench, FlowId) {
    let mut config = config(1);
    config.proxies[0] = uri("sip:ep1.example.com");
    config.digest.md5 = http_connect::auth::Allow::Always;
    let mut bench = bench(config);
    bench.transport = Transport::Udp;
    let flows = bench.start();
    bench.accept(&[]);
    // The first one follows the registration at once.
    let (gap, request) = next_binding(&mut bench);
    assert_eq!(gap, 0);
    let class = stun_proto::wire::Class::Success;
    bench.input(
        flows[0],
        &binding_response(&request, class, "198.51.100.1:5000"),
    );
    bench.events.clear();
    (bench, flows[0])
}

/// Runs to the next Binding request; how long that took, in ms, and its bytes.
fn next_binding(bench: &mut Bench) -> (u64, Vec<u8>) {
    let from = bench.ms();
    loop {
        bench.drain();
        if let Some(at) = bench
            .sent
            .iter()
            .position(|(_, bytes)| bytes.first() == Some(&0))
        {
            return (bench.ms() - from, bench.sent.remove(at).1);
        }
        bench.now = bench.ua.poll_timeout().unwrap();
        bench.ua.handle_timeout(bench.now);
    }
}

fn binding_response(request: &[u8], class: stun_proto::wire::Class, mapped: &str) -> Vec<u8> {
    use stun_proto::wire::{MessageType, Method, Writer, XorMappedAddress};
    let id = stun_proto::wire::Message::parse(request)
        .unwrap()
        .transaction_id();
    let mut buf = [0; 100];
    let len = Writer::new(&mut buf, MessageType::new(class, Method::BINDING), id)
        .attribute(&XorMappedAddress(mapped.parse().unwrap()))
        .finish()
        .unwrap();
    buf[..len].to_vec()
}

// spec: OUT-4.4.2-1, OUT-4.4.2-2, OUT-4.4.1-1, OUT-8-2
#[test]
fn datagram_flows_are_kept_alive_by_stun() {
    use stun_proto::wire::Class;
    let (mut bench, flow) = datagram_bench();
    for _ in 0..200 {
        let (gap, request) = next_binding(&mut bench);
        assert!((23_200..=29_000).contains(&gap), "{gap}");
        assert!(
            bench
                .sent
                .iter()
                .all(|(_, bytes)| !bytes.starts_with(b"\r\n"))
        );
        bench.input(
            flow,
            &binding_response(&request, Class::Success, "198.51.100.1:5000"),
        );
        if let Some(at) = bench
            .sent
            .iter()
            .position(|(_, bytes)| bytes.starts_with(b"REGISTER"))
        {
            bench.sent.drain(..at);
            bench.accept(&[]);
        }
        assert!(!bench.closed(flow));
    }
    let (_, request) = next_binding(&mut bench);
    bench.input(
        flow,
        &binding_response(&request, Class::Success, "198.51.100.1:5001"),
    );
    assert_eq!(bench.failure().unwrap().0, FlowFailure::AddressChanged);

    let (mut bench, flow) = datagram_bench();
    let (_, request) = next_binding(&mut bench);
    bench.input(
        flow,
        &binding_response(&request, Class::Error, "198.51.100.1:5000"),
    );
    assert_eq!(bench.failure().unwrap().0, FlowFailure::KeepAlive);

    let (mut bench, flow) = datagram_bench();
    let (_, request) = next_binding(&mut bench);
    let start = bench.ms();
    let mut foreign = request.clone();
    foreign[10] ^= 1;
    bench.input(
        flow,
        &binding_response(&foreign, Class::Success, "198.51.100.1:5000"),
    );
    bench.run_for(39_499);
    assert_eq!(
        bench
            .sent
            .iter()
            .filter(|(_, bytes)| *bytes == request)
            .count(),
        6
    );
    assert!(!bench.closed(flow));
    bench.run_to(start + 39_500);
    assert_eq!(bench.failure().unwrap().0, FlowFailure::KeepAlive);

    // Without a sign of support there is no STUN.
    let mut config = config(1);
    config.proxies[0] = uri("sip:ep1.example.com");
    let mut bench = super::bench(config);
    bench.transport = Transport::Udp;
    bench.start();
    let (flow, register) = bench.next_request();
    let contact = register.only(Name::CONTACT).unwrap();
    bench.answer(flow, &register, 200, &[("Contact", contact)]);
    bench.run_for(600_000);
    assert!(bench.sent.is_empty());
}

// spec: SEC-P-15
#[test]
fn ten_thousand_clients_do_not_come_back_together() {
    let recovery = Recovery::default();
    let mut rng = Rng::from_seed([3; 32]);
    let mut buckets = [0_u32; 31];
    for _ in 0..10_000 {
        let wait = backoff::delay(&recovery, 1, true, &mut rng).as_millis();
        assert!((30_000..=60_000).contains(&wait));
        buckets[(wait as usize - 30_000) / 1000] += 1;
    }
    let mean = 10_000 / 30;
    assert!(buckets.iter().all(|count| *count <= 3 * mean));
    for failures in [6, 30, 1000, u32::MAX] {
        let wait = backoff::delay(&recovery, failures, true, &mut rng).as_secs();
        assert!((900..=1800).contains(&wait));
    }
}

// spec: MEM-5.1.1.2-4
#[test]
fn another_proxy_is_tried_before_there_is_a_wait() {
    let mut config = config(4);
    config.flows = 2;
    config.keep_alive.stream = Duration::from_secs(3000);
    config.keep_alive.cap = Duration::from_secs(3000);
    let mut bench = bench(config);
    let flows = bench.start();
    bench.accept(&[]);
    let (flow, mut request) = bench.next_request();
    assert_eq!(flow, flows[1]);
    bench.events.clear();
    // The second registration: refused for now by one proxy after the other.
    let (mut from, mut hosts) = (flow, Vec::new());
    for code in [500, 504] {
        bench.answer(from, &request, code, &[]);
        assert_eq!(bench.failure().unwrap().1, Some(Duration::ZERO));
        let target = bench.actions.iter().find_map(|action| match action {
            FlowAction::OpenFlow { target, .. } => Some(String::from(target.verify_name())),
            _ => None,
        });
        hosts.push(target.unwrap());
        from = bench.open()[0];
        request = bench.next_request().1;
        let contact = request.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
        assert_eq!(contact.reg_id(), Some(2));
        assert!(
            request
                .only(Name::ROUTE)
                .unwrap()
                .contains(hosts.last().unwrap())
        );
    }
    assert_eq!(hosts, ["ep3.example.com", "ep4.example.com"]);
    // No answer at all from the last one: now it is time to wait.
    bench.run_for(32_000);
    let (cause, wait) = bench.failure().unwrap();
    assert_eq!(cause, FlowFailure::TimedOut);
    let wait = wait.unwrap().as_secs();
    assert!((90..=180).contains(&wait), "{wait}");
    bench.sent.clear();
    bench.run_for(wait * 1000 + 1000);
    let again = bench.open();
    assert!(bench.next().1.only(Name::ROUTE).unwrap().contains("ep2"));
    // The one that could not be opened is no different.
    bench.ua.flow_failed(bench.now, again[0]);
    bench.drain();
    assert_eq!(bench.failure().unwrap().1, Some(Duration::ZERO));
}

/// A user agent with a flow of its own to a peer, and an INVITE over it.
fn call_over_extra(keep_alive: u64) -> (Bench, FlowId, Request) {
    let mut config = config(1);
    // The registered flow stays out of the way.
    config.keep_alive.stream = Duration::from_secs(keep_alive);
    config.keep_alive.cap = Duration::from_secs(keep_alive);
    let (mut bench, _) = Bench::registered(config, &[]);
    let mut invite = NewRequest::new(Method::INVITE, "sip:bob@peer2.example.com");
    invite.next_hop = NextHop::Resolved {
        uri: uri("sips:pr2.example.com"),
        address: (Transport::Tls, SocketAddr::from(([203, 0, 113, 2], 443))),
    };
    bench.ua.request(bench.now, invite).unwrap();
    let flow = bench.open()[0];
    let (on, invite) = bench.next_request();
    assert_eq!(on, flow);
    (bench, flow, invite)
}

/// A response with this `keep` parameter in its Via.
fn answer_keep(
    bench: &mut Bench,
    flow: FlowId,
    request: &Request,
    code: u16,
    keep: &str,
) -> Response {
    let code = StatusCode::new(code).unwrap();
    let answer = Builder::reply(request, code, Some("far"))
        .header(Name::CONTACT, "<sip:bob@192.0.2.9>")
        .finish(b"")
        .unwrap();
    let text = String::from_utf8(answer.as_bytes().to_vec()).unwrap();
    let text = text.replacen(";keep\r\n", &alloc::format!("{keep}\r\n"), 1);
    bench.input(flow, text.as_bytes());
    let message = Message::parse(text.as_bytes(), &Default::default()).unwrap();
    Response::check(message, &Limits::DEFAULT).unwrap()
}

// spec: KEEP-4.2.3-1, KEEP-4.3-1, KEEP-4.3-2, OUT-4.4-3
#[test]
fn keep_alives_of_a_dialog_last_as_long_as_it_does() {
    for ended_by in ["BYE of ours", "BYE of theirs", "481", "the application"] {
        let (mut bench, flow, invite) = call_over_extra(3000);
        assert!(invite.only(Name::VIA).unwrap().ends_with(";keep"));
        answer_keep(&mut bench, flow, &invite, 180, ";keep=30");
        let ok = answer_keep(&mut bench, flow, &invite, 200, ";keep=30");
        let Some(UserAgentEvent::Response { request, .. }) = bench.events.last().cloned() else {
            panic!()
        };
        bench.events.clear();
        let mut dialog = Dialog::caller(flow, &invite, &ok).unwrap();
        bench.ua.ack(bench.now, &dialog, request, &[], b"").unwrap();
        bench.drain();
        // Neither the ACK nor a second INVITE ask again.
        assert!(!bench.next().1.only(Name::VIA).unwrap().contains("keep"));
        let again = bench.ua.request_in_dialog(
            bench.now,
            &mut dialog,
            Method::INVITE,
            Vec::new(),
            Default::default(),
        );
        again.unwrap();
        bench.drain();
        let (_, second) = bench.next_request();
        assert!(!second.only(Name::VIA).unwrap().contains("keep"));
        bench.answer(flow, &second, 488, &[]);
        bench.sent.clear();
        for _ in 0..5 {
            let gap = next_ping(&mut bench);
            assert!((24_000..=30_000).contains(&gap), "{gap}");
            bench.input(flow, b"\r\n");
        }
        match ended_by {
            "BYE of theirs" => {
                let bye = alloc::format!(
                    "BYE sip:alice@10.7.0.9 SIP/2.0\r\nVia: SIP/2.0/TLS x;branch=z9hG4bKbye\r\nFrom: <sip:b@c>;tag=far\r\n\
                     To: <sip:a@b>;tag=1\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
                    invite.call_id()
                );
                bench.input(flow, bye.as_bytes());
            }
            "the application" => bench.ua.dialog_ended(&dialog),
            other => {
                let (method, code) = if other == "481" {
                    (Method::INFO, 481)
                } else {
                    (Method::BYE, 200)
                };
                let sent = bench.ua.request_in_dialog(
                    bench.now,
                    &mut dialog,
                    method,
                    Vec::new(),
                    Default::default(),
                );
                sent.unwrap();
                bench.drain();
                let (_, request) = bench.next_request();
                bench.answer(flow, &request, code, &[]);
            }
        }
        bench.sent.clear();
        bench.run_for(100_000);
        assert!(
            bench.sent.iter().all(|(_, bytes)| bytes != b"\r\n\r\n"),
            "{ended_by}"
        );
        assert!(!bench.closed(flow));
    }
}

// spec: KEEP-4.3-2, KEEP-4.2.3-1
#[test]
fn a_dialog_without_an_answer_to_keep_gets_no_pings() {
    for keep in [";keep", ""] {
        let (mut bench, flow, invite) = call_over_extra(3000);
        answer_keep(&mut bench, flow, &invite, 200, keep);
        bench.run_for(100_000);
        assert!(bench.sent.iter().all(|(_, bytes)| bytes != b"\r\n\r\n"));
    }
    // Where the registration keeps the flow alive there is nothing to ask for.
    let (mut bench, _) = Bench::registered(config(1), &[]);
    let invite = NewRequest::new(Method::INVITE, "sip:bob@example.com");
    bench.ua.request(bench.now, invite).unwrap();
    bench.drain();
    assert!(!bench.next().1.only(Name::VIA).unwrap().contains("keep"));
}
