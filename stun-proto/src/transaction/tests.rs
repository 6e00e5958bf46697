#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::wire::TransactionId;
use crate::{FiveTuple, Instant, Path, StreamId, Transmit};

const START: Instant = Instant::ZERO;

fn at(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn udp(server: &str) -> Path {
    let local: SocketAddr = "192.0.2.9:5000".parse().unwrap();
    Path::Datagram(FiveTuple::udp(local, server.parse().unwrap()))
}

fn server() -> Path {
    udp("198.51.100.1:3478")
}

fn id(n: u8) -> TransactionId {
    TransactionId([n; 12])
}

fn table() -> Transactions<u8> {
    Transactions::new(RetransmitConfig::default(), 64)
}

fn sent(table: &mut Transactions<u8>) -> Vec<(Path, Vec<u8>)> {
    let mut buf = [0; 64];
    let mut all = Vec::new();
    while let Some(Transmit { to, len }) = table.poll_transmit(&mut buf) {
        all.push((to, buf[..len].to_vec()));
    }
    all
}

/// Runs a lone transaction to its end; every transmission and the end, in milliseconds.
fn trace(config: RetransmitConfig, path: Path) -> String {
    let mut table = Transactions::new(config, 64);
    table.start(START, path, id(1), b"request", 7).unwrap();
    let mut text = String::new();
    let mut now = START;
    loop {
        for (to, bytes) in sent(&mut table) {
            assert_eq!((to, &bytes[..]), (path, &b"request"[..]));
            write!(text, "{} ", (now - START).as_millis()).unwrap();
        }
        while let Some(ended) = table.poll_timed_out() {
            assert_eq!((ended.id, ended.context), (id(1), 7));
            write!(text, "end {}", (now - START).as_millis()).unwrap();
        }
        let Some(next) = table.poll_timeout() else {
            return text;
        };
        assert!(next > now);
        // One nanosecond early does nothing.
        table.handle_timeout(next - Duration::from_nanos(1));
        assert!(!table.has_transmit());
        now = next;
        table.handle_timeout(now);
    }
}

// spec: STUN-6.2.1-1, STUN-6.2.1-2, STUN-6.2.1-6, STUN-5-6, SEC-S-07, 7350-3-1
#[test]
fn a_request_is_sent_seven_times_and_given_up_at_39_5_s() {
    assert_eq!(
        trace(RetransmitConfig::default(), server()),
        "0 500 1500 3500 7500 15500 31500 end 39500"
    );
    let fast = RetransmitConfig {
        rto: Duration::from_millis(100),
        sends: 3,
        last_wait: 4,
        ..RetransmitConfig::default()
    };
    assert_eq!(trace(fast, server()), "0 100 300 end 700");
    let once = RetransmitConfig { sends: 1, ..fast };
    assert_eq!(trace(once, server()), "0 end 400");
}

// spec: STUN-6.2.2-1, STUN-6.2.2-2
#[test]
fn over_a_stream_a_request_is_sent_once() {
    let stream = Path::Stream(StreamId(4));
    assert_eq!(trace(RetransmitConfig::default(), stream), "0 end 39500");
}

// spec: SEC-G-08
#[test]
fn a_late_host_moves_nothing_and_a_jump_ends_everything() {
    let mut table = table();
    table.start(START, server(), id(1), b"r", 0).unwrap();
    assert_eq!(sent(&mut table).len(), 1);
    // 200 ms late: the next step keeps its time.
    table.handle_timeout(at(700));
    assert_eq!(sent(&mut table).len(), 1);
    assert_eq!(table.poll_timeout(), Some(at(1500)));
    // Three steps missed: sent once.
    table.handle_timeout(at(7600));
    assert_eq!(sent(&mut table).len(), 1);
    assert_eq!(table.poll_timeout(), Some(at(15_500)));
    table.handle_timeout(Instant::from_nanos(i64::MAX));
    assert_eq!(table.poll_timed_out().unwrap().id, id(1));
    assert!(sent(&mut table).is_empty());

    for nanos in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
        let now = Instant::from_nanos(nanos);
        let mut table = super::tests::table();
        table.start(now, server(), id(1), b"r", 0).unwrap();
        table.handle_timeout(now);
        table.handle_timeout(START);
        table.finish(Instant::from_nanos(i64::MAX), id(1));
        assert!(table.rto(START, server_ip()) <= Duration::from_secs(60));
    }
}

fn server_ip() -> core::net::IpAddr {
    "198.51.100.1".parse().unwrap()
}

// spec: STUN-6.2.1-3
#[test]
fn the_estimator_follows_rfc6298_without_rounding() {
    let ms = Duration::from_millis;
    let mut rtt = RttEstimator::new(ms(1));
    assert_eq!(rtt.rto(), ms(1));
    rtt.sample(ms(100));
    // SRTT 100, RTTVAR 50.
    assert_eq!(rtt.rto(), ms(300));
    rtt.sample(ms(200));
    // RTTVAR 3/4 50 + 1/4 100 = 62.5, SRTT 7/8 100 + 1/8 200 = 112.5.
    assert_eq!(rtt.rto(), Duration::from_micros(362_500));
    for _ in 0..200 {
        rtt.sample(ms(100));
    }
    assert!(
        rtt.rto() >= ms(101) && rtt.rto() < ms(102),
        "{:?}",
        rtt.rto()
    );
    rtt.sample(Duration::MAX);
    assert!(rtt.rto() <= Duration::from_secs(60));
    let mut floored = RttEstimator::new(ms(500));
    floored.sample(ms(3));
    assert_eq!(floored.rto(), ms(500));
}

// spec: STUN-6.2.1-4
#[test]
fn a_request_sent_twice_teaches_nothing() {
    let mut table = table();
    table.start(START, server(), id(1), b"r", 0).unwrap();
    sent(&mut table);
    table.handle_timeout(at(500));
    assert_eq!(table.sends(id(1)), Some(2));
    assert_eq!(table.rtt(at(900), id(1)), None);
    table.finish(at(900), id(1));
    assert_eq!(table.rto(at(900), server_ip()), Duration::from_millis(500));

    table.start(at(1000), server(), id(2), b"r", 0).unwrap();
    let rtt = Duration::from_millis(400);
    assert_eq!(table.rtt(at(1400), id(2)), Some(rtt));
    table.finish(at(1400), id(2));
    assert_eq!(table.rto(at(1400), server_ip()), rtt * 3);
}

#[test]
fn a_host_that_slept_learns_nothing_from_the_answer_that_waited_for_it() {
    let mut table = table();
    table.start(START, server(), id(1), b"r", 0).unwrap();
    sent(&mut table);
    assert_eq!(table.rtt(at(30_000), id(1)), None);
    table.finish(at(30_000), id(1));
    assert_eq!(
        table.rto(at(30_000), server_ip()),
        Duration::from_millis(500)
    );
}

// spec: STUN-6.2.1-5, 5389-7.2.1-1
#[test]
fn an_estimate_is_for_one_server_and_dies_600_s_after_the_last_transaction() {
    let default = Duration::from_millis(500);
    let learned = Duration::from_millis(1200);
    let mut table = table();
    table.start(START, server(), id(1), b"r", 0).unwrap();
    table.finish(at(400), id(1));
    assert_eq!(table.rto(at(600_400), server_ip()), learned);
    assert_eq!(table.rto(at(600_401), server_ip()), default);
    assert_eq!(table.rto(at(401), "198.51.100.2".parse().unwrap()), default);
    // The port does not matter; a transaction that fails keeps the estimate alive, too.
    let other_port = udp("198.51.100.1:9");
    table
        .start(at(500_000), other_port, id(2), b"r", 0)
        .unwrap();
    sent(&mut table);
    assert_eq!(table.poll_timeout(), Some(at(501_200)));
    table.cancel(id(2));
    table.handle_timeout(at(1_100_000));
    assert_eq!(table.rto(at(1_100_000), server_ip()), learned);
    table.handle_timeout(at(1_100_001));
    assert_eq!(table.rto(at(1_100_001), server_ip()), default);
}

// spec: SEC-G-05
#[test]
fn estimates_are_kept_for_sixteen_servers() {
    let mut table = table();
    for n in 1..=17_u8 {
        let path = udp(&alloc::format!("198.51.100.{n}:3478"));
        table.start(at(n.into()), path, id(n), b"r", 0).unwrap();
        table.finish(at(u64::from(n) + 400), id(n));
    }
    let known = (1..=17_u8)
        .filter(|n| {
            let ip = alloc::format!("198.51.100.{n}").parse().unwrap();
            table.rto(at(500), ip) > Duration::from_millis(500)
        })
        .collect::<Vec<_>>();
    assert_eq!(known, (2..=17).collect::<Vec<_>>());
}

// spec: STUN-6.2-1
#[test]
fn the_eleventh_request_to_a_server_waits_for_its_turn() {
    let mut table = table().with_server_limit(10);
    for n in 1..=12 {
        table.start(START, server(), id(n), &[n], n).unwrap();
    }
    let elsewhere = udp("198.51.100.1:3479");
    table.start(START, elsewhere, id(13), &[13], 13).unwrap();
    let order = |sent: Vec<(Path, Vec<u8>)>| sent.iter().map(|s| s.1[0]).collect::<Vec<_>>();
    assert_eq!(order(sent(&mut table)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13]);
    assert_eq!(table.sends(id(11)), Some(0));
    table.cancel(id(13));
    assert!(sent(&mut table).is_empty());
    table.finish(at(100), id(5));
    assert_eq!(order(sent(&mut table)), [11]);
    // Its schedule begins now.
    assert_eq!(table.rtt(at(130), id(11)), Some(Duration::from_millis(30)));
    table.cancel(id(12));
    table.cancel(id(6));
    assert!(sent(&mut table).is_empty());
}

// spec: STUN-6.2.1-7, STUN-6.2.2-3
#[test]
fn what_happens_to_a_path_happens_to_its_transactions_only() {
    let (a, b) = (Path::Stream(StreamId(1)), Path::Stream(StreamId(2)));
    let mut table = table().with_server_limit(2);
    for (n, path) in [(1, a), (2, b), (3, server()), (4, a), (5, a)] {
        table.start(START, path, id(n), b"r", n).unwrap();
    }
    let mut failed: Vec<_> = table.fail_path(a).iter().map(|e| e.context).collect();
    failed.sort_unstable();
    assert_eq!(failed, [1, 4, 5]);
    assert_eq!(table.fail_path(server()).len(), 1);
    assert_eq!(sent(&mut table).len(), 1);
    assert_eq!(table.len(), 1);
}

// spec: SEC-S-06, STUN-6.2.2-4
#[test]
fn responses_belong_by_id_and_path_in_any_order() {
    let mut table = table();
    let stream = Path::Stream(StreamId(1));
    table.start(START, stream, id(1), b"r", 1).unwrap();
    table.start(START, stream, id(2), b"r", 2).unwrap();
    assert_eq!(table.context_mut(stream, id(3)), None);
    assert_eq!(table.context_mut(server(), id(2)), None);
    assert_eq!(table.context_mut(Path::Stream(StreamId(2)), id(2)), None);
    assert_eq!(table.context_mut(stream, id(2)), Some(&mut 2));
    assert_eq!(table.finish(at(1), id(2)), Some(2));
    assert_eq!(table.finish(at(2), id(1)), Some(1));
    assert_eq!(table.finish(at(3), id(1)), None);
    assert!(table.is_empty() && table.poll_timeout().is_none());
}

// spec: SEC-S-07, SEC-G-05, SEC-G-14
#[test]
fn the_table_and_its_queues_have_a_limit() {
    let mut table = Transactions::new(RetransmitConfig::default(), 3);
    for n in 1..=3 {
        table.start(START, server(), id(n), b"r", n).unwrap();
    }
    assert_eq!(
        table.start(START, server(), id(4), b"r", 4),
        Err(TransactionsFull)
    );
    // A host that never drains: ends count, and what was cancelled waits nowhere.
    table.handle_timeout(at(3_600_000));
    assert_eq!(
        table.start(START, server(), id(4), b"r", 4),
        Err(TransactionsFull)
    );
    while table.poll_timed_out().is_some() {}
    for _ in 0..100 {
        table.start(START, server(), id(4), b"r", 4).unwrap();
        assert_eq!(
            table.start(START, server(), id(4), b"r", 4),
            Err(TransactionsFull),
            "one ID twice"
        );
        table.cancel(id(4));
    }
    assert!(!table.has_transmit());
}
