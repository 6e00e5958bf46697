#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Instant;
use crate::wire::{Defect, Leniency, Limits, ParseErrorKind};

const MESSAGE: &str = "MESSAGE sip:a SIP/2.0\r\nl: 4\r\n\r\n\r\n\r\n";

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn server() -> Framer {
    Framer::new(FramerConfig::new(Role::Server), at(0))
}

fn client() -> Framer {
    Framer::new(FramerConfig::new(Role::Client), at(0))
}

/// Everything that `bytes` bring, in short.
fn feed(framer: &mut Framer, ms: u64, bytes: &[u8]) -> String {
    let mut input = bytes;
    let mut seen = String::new();
    while let Some(frame) = framer.next(at(ms), &mut input) {
        match frame {
            Frame::Ping => seen.push_str("ping "),
            Frame::Pong => seen.push_str("pong "),
            Frame::Message(message) => {
                seen.push_str(&alloc::format!(
                    "{}+{} ",
                    message.method(),
                    message.body().len()
                ));
            }
            Frame::Broken { error, message } => {
                let with = if message.is_some() { "with" } else { "without" };
                seen.push_str(&alloc::format!("broken {error:?} {with} head "));
            }
        }
    }
    assert!(input.is_empty());
    seen
}

// spec: SIP-18.3-1, SIP-7.5-1
#[test]
fn messages_end_where_content_length_says() {
    let mut framer = server();
    let two = alloc::format!("\r\n{MESSAGE}{MESSAGE}");
    assert_eq!(feed(&mut framer, 0, two.as_bytes()), "MESSAGE+4 MESSAGE+4 ");
    let mut framer = server();
    let mut seen = String::new();
    for byte in two.bytes() {
        seen.push_str(&feed(&mut framer, 0, &[byte]));
    }
    assert_eq!(seen, "MESSAGE+4 MESSAGE+4 ");
}

#[test]
fn blank_lines_in_front_of_a_message_are_passed_over() {
    let mut framer = client();
    assert_eq!(
        feed(
            &mut framer,
            0,
            b"\r\n\r\n\r\nOPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n"
        ),
        "OPTIONS+0 "
    );
}

// spec: PRJ-3-1, SEC-P-01
#[test]
fn an_uncertain_length_breaks_a_stream_for_good() {
    for (rows, defect) in [
        ("", Defect::ContentLength),
        ("l: -1\r\n", Defect::ContentLength),
        ("l: x\r\n", Defect::ContentLength),
        ("l: 4294967301\r\n", Defect::ContentLength),
        ("l: 1\r\nContent-Length: 1\r\n", Defect::ContentLength),
        ("l: 65537\r\n", Defect::BodyTooLong),
    ] {
        let mut framer = server();
        let text = alloc::format!("OPTIONS sip:a SIP/2.0\r\n{rows}\r\n{MESSAGE}");
        let expected = alloc::format!("broken Length({defect:?}) with head ");
        assert_eq!(feed(&mut framer, 0, text.as_bytes()), expected);
        assert_eq!(feed(&mut framer, 0, MESSAGE.as_bytes()), "");
        assert_eq!(framer.poll_timeout(), None);
    }
    let mut config = FramerConfig::new(Role::Server);
    config.parse.leniency = Leniency {
        assume_zero_length: true,
        ..Leniency::default()
    };
    let mut framer = Framer::new(config, at(0));
    let text = alloc::format!("OPTIONS sip:a SIP/2.0\r\n\r\n{MESSAGE}");
    assert_eq!(
        feed(&mut framer, 0, text.as_bytes()),
        "OPTIONS+0 MESSAGE+4 "
    );
}

// spec: SEC-P-17, SEC-F-05, SEC-F-06
#[test]
fn other_protocols_end_the_stream_at_their_first_line() {
    for probe in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42",
        b"\x40\x00\x00\x04abcd\r\n",
        b"SSH-2.0-x\r\n",
    ] {
        let mut framer = server();
        let seen = feed(&mut framer, 0, probe);
        assert!(
            seen.starts_with("broken Head(") && seen.ends_with("without head "),
            "{seen}"
        );
        assert_eq!(feed(&mut framer, 0, MESSAGE.as_bytes()), "");
    }
    for first in 0..=u8::MAX {
        let probe = [first, 1, 2, 3];
        let readable = matches!(first, b'\r' | b'\n');
        let mut framer = server();
        let mut input = &probe[..];
        let frame = framer.next(at(0), &mut input);
        assert!(
            matches!(frame, Some(Frame::Broken { .. })),
            "{first} {readable}"
        );
    }
}

// spec: PRJ-3-2, SEC-F-04
#[test]
fn a_message_must_be_complete_in_time_but_line_ends_start_no_clock() {
    let mut framer = server();
    assert_eq!(feed(&mut framer, 0, b"\r\n"), "");
    assert_eq!(framer.poll_timeout(), None);
    assert!(framer.handle_timeout(at(600_000)).is_none());
    assert_eq!(feed(&mut framer, 600_000, b"O"), "");
    assert_eq!(framer.poll_timeout(), Some(at(630_000)));
    assert!(framer.is_receiving());
    for second in 601..630 {
        assert_eq!(feed(&mut framer, second * 1000, b"P"), "");
        assert!(framer.handle_timeout(at(second * 1000)).is_none());
    }
    let late = framer.handle_timeout(at(630_000));
    assert!(matches!(
        late,
        Some(Frame::Broken {
            error: FramingError::Timeout,
            message: None
        })
    ));
    assert_eq!(framer.poll_timeout(), None);
    assert!(framer.handle_timeout(at(700_000)).is_none());
    // Time that goes backwards stands still.
    let mut framer = server();
    feed(&mut framer, 1000, b"O");
    assert!(framer.handle_timeout(at(0)).is_none());
    assert_eq!(framer.poll_timeout(), Some(at(31_000)));
}

// spec: OUT-5.4-1, PRJ-3-5, SEC-P-14
#[test]
fn a_server_answers_each_double_line_end_however_it_is_cut() {
    for cuts in [
        &[&b"\r\n\r\n"[..]][..],
        &[b"\r\n", b"\r\n"],
        &[b"\r", b"\n\r\n"],
        &[b"\r", b"\n", b"\r", b"\n"],
    ] {
        let mut framer = server();
        let seen: String = cuts
            .iter()
            .map(|cut| feed(&mut framer, 1999, cut))
            .collect();
        assert_eq!(seen, "ping ");
    }
    let mut framer = server();
    assert_eq!(feed(&mut framer, 0, b"\r\n\r\n\r\n\r\n"), "ping ping ");
    assert_eq!(feed(&mut framer, 0, b"\n\r\n\r\n"), "ping ");
    assert_eq!(feed(&mut framer, 0, b"\r\r\n\r\n"), "ping ");
}

// spec: PRJ-3-5
#[test]
fn half_a_ping_does_not_wait_for_minutes() {
    let mut framer = server();
    assert_eq!(feed(&mut framer, 0, b"\r\n"), "");
    assert_eq!(feed(&mut framer, 2000, b"\r\n"), "ping ");
    assert_eq!(feed(&mut framer, 10_000, b"\r\n"), "");
    assert_eq!(feed(&mut framer, 12_001, b"\r\n"), "");
    assert_eq!(feed(&mut framer, 12_002, b"\r\n"), "ping ");
}

// spec: SEC-P-14
#[test]
fn pings_have_a_budget_and_stray_line_ends_too() {
    let mut framer = server();
    assert_eq!(feed(&mut framer, 0, &PING.repeat(5)), "ping ".repeat(5));
    assert_eq!(
        feed(&mut framer, 999, b"\r\n\r\n"),
        "broken PingFlood without head "
    );
    let mut framer = server();
    for second in 0..100 {
        assert_eq!(feed(&mut framer, second * 1000, b"\r\n\r\n"), "ping ");
    }
    let mut framer = server();
    assert_eq!(feed(&mut framer, 0, &b"\n".repeat(64)), "");
    assert_eq!(
        feed(&mut framer, 0, b"\n"),
        "broken StrayFlood without head "
    );
    let mut framer = client();
    assert_eq!(feed(&mut framer, 0, &b"\r\n".repeat(32)), "");
    assert_eq!(
        feed(&mut framer, 0, b"\r\n"),
        "broken StrayFlood without head "
    );
    let mut framer = client();
    for half_minute in 0..1000 {
        assert_eq!(feed(&mut framer, half_minute * 30_000, b"\r\n\r\n"), "");
    }
}

// spec: PRJ-3-5, SEC-P-14, PRJ-8-1
#[test]
fn a_client_takes_one_line_end_for_its_ping_and_only_between_messages() {
    let mut framer = client();
    assert_eq!(feed(&mut framer, 0, b"\r\n"), "");
    framer.ping_sent();
    assert_eq!(feed(&mut framer, 0, MESSAGE.as_bytes()), "MESSAGE+4 ");
    assert_eq!(feed(&mut framer, 0, b"\r"), "");
    assert_eq!(feed(&mut framer, 0, b"\n\r\n"), "pong ");
    framer.ping_sent();
    assert_eq!(feed(&mut framer, 0, b"\r\n\r\n"), "pong ");
    assert_eq!(feed(&mut framer, 0, b"\r\n\r\n"), "");
    let mut config = FramerConfig::new(Role::Client);
    config.client_answers_pings = true;
    let mut framer = Framer::new(config, at(0));
    assert_eq!(feed(&mut framer, 0, b"\r\n\r\n"), "ping ");
    framer.ping_sent();
    assert_eq!(feed(&mut framer, 0, b"\r\n"), "pong ");
}

// spec: SEC-F-03, SEC-G-10
#[test]
fn a_stranger_gets_eight_kilobytes() {
    let mut config = FramerConfig::new(Role::Server);
    config.parse.limits = Limits::UNAUTHENTICATED;
    let limits = Limits::UNAUTHENTICATED;
    assert!(limits.head + limits.body <= 8192);
    let mut framer = Framer::new(config, at(0));
    let flood = alloc::format!(
        "OPTIONS sip:a SIP/2.0\r\n{}",
        "X: abcdefgh\r\n".repeat(1000)
    );
    let seen = feed(&mut framer, 0, flood.as_bytes());
    assert!(
        seen.contains("HeadTooLong") || seen.contains("TooManyHeaders"),
        "{seen}"
    );
    let mut framer = Framer::new(config, at(0));
    let seen = feed(&mut framer, 0, b"OPTIONS sip:a SIP/2.0\r\nl: 2049\r\n\r\n");
    assert_eq!(seen, "broken Length(BodyTooLong) with head ");
    let mut framer = Framer::new(config, at(0));
    framer.set_limits(Limits::DEFAULT, Duration::from_secs(30));
    assert_eq!(
        feed(&mut framer, 0, b"OPTIONS sip:a SIP/2.0\r\nl: 2049\r\n\r\n"),
        ""
    );
}

// spec: SEC-P-04
#[test]
fn a_head_over_the_limit_breaks_the_stream() {
    let mut framer = server();
    let text = alloc::format!("OPTIONS sip:a SIP/2.0\r\nX: {}", "a".repeat(9000));
    let mut seen = String::new();
    for piece in text.as_bytes().chunks(7) {
        seen.push_str(&feed(&mut framer, 0, piece));
    }
    assert!(seen.contains(&alloc::format!("{:?}", ParseErrorKind::LineTooLong)));
}

// spec: OUT-8-1, PRJ-3-4
#[test]
fn datagrams_are_told_apart_by_their_first_octets() {
    for empty in [&b""[..], b"\r\n", b"\r\n\r\n", b"\0\0\0\0", b" \r\n\0"] {
        assert_eq!(classify(empty), DatagramKind::KeepAlive);
    }
    let stun = |first: u8| {
        let mut bytes = [0_u8; 20];
        bytes[0] = first;
        bytes[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
        classify(&bytes)
    };
    assert_eq!(
        (stun(0), stun(1), stun(2)),
        (DatagramKind::Stun, DatagramKind::Stun, DatagramKind::Sip)
    );
    assert_eq!(classify(&[1; 20]), DatagramKind::Sip);
}

/// Units a stream may consist of.
fn unit() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"\r\n\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(MESSAGE.as_bytes().to_vec()),
        Just(b"SIP/2.0 200 OK\r\nSubject: a\r\n b\r\nContent-Length: 0\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    // spec: PRJ-3-3, SEC-F-02
    #[test]
    fn cuts_change_nothing(
        units in proptest::collection::vec(unit(), 0..8),
        cuts in proptest::collection::vec(0_usize..400, 0..20),
        pinging in any::<bool>(),
    ) {
        let bytes = units.concat();
        let make = || {
            let mut framer = if pinging { client() } else { server() };
            if pinging {
                framer.ping_sent();
            }
            framer
        };
        let whole = feed(&mut make(), 0, &bytes);
        let mut framer = make();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut seen, mut from) = (String::new(), 0);
        for cut in cuts {
            seen.push_str(&feed(&mut framer, 0, &bytes[from..cut]));
            from = cut;
        }
        prop_assert_eq!(&seen, &whole);
        let mut framer = make();
        let bytewise: String = bytes.iter().map(|b| feed(&mut framer, 0, &[*b])).collect();
        prop_assert_eq!(bytewise, whole);
    }
}
