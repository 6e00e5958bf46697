//! Getting, keeping and giving back the allocation.

use stun_proto::wire::{PasswordAlgorithm, Username};

use super::*;
use crate::wire::RequestedTransport;

// spec: TURN-7.1-2, STUN-9.2.3.1-1, STUN-9.2.5-2, TURN-7.3-2, TURN-7.2-14
#[test]
fn allocate_is_challenged_then_authenticated() {
    let mut rig = Rig::new();
    let options = AllocateOptions::default();
    rig.client.allocate(rig.now, options).unwrap();
    let first = rig.request();
    let message = first.message();
    assert_eq!(message.method(), wire::ALLOCATE);
    assert_eq!(message.find(), Some(RequestedTransport::UDP));
    for ty in [0x0006, 0x0014, 0x0015, 0x001D, 0x001E] {
        assert!(!message.has(stun_proto::wire::AttributeType(ty)));
    }
    assert!(!message.has_integrity());
    rig.challenge(&first, 401);
    let second = rig.request();
    let message = second.message();
    assert_ne!(message.transaction_id(), first.message().transaction_id());
    let username: Username<'_> = message.find().unwrap();
    assert_eq!(username.as_str(), Some("user"));
    message.verify(&rig.key).unwrap();
    rig.allocate_ok(&second);
    assert_eq!(
        rig.event(),
        Some(Event::Allocated {
            relayed: addr(RELAYED),
            additional: None,
            refused: None,
            mapped: Some(addr(MAPPED)),
            lifetime: secs(600),
            reservation: None,
            dont_fragment: false,
            mobile: false,
        })
    );
}

// spec: TURN-6-3, STUN-9.2.5-8, TURN-5-1
#[test]
fn sha256_is_chosen_even_if_md5_comes_first() {
    let mut rig = Rig::new();
    let options = AllocateOptions::default();
    rig.client.allocate(rig.now, options).unwrap();
    let first = rig.request();
    rig.answer(&first, Class::Error, false, |w| {
        w.attribute(&ErrorCode::new(401))
            .attribute(&Realm::new(REALM).unwrap())
            .attribute(&Nonce::new("obMatJos2gAAAxyz").unwrap())
            .attribute(&PasswordAlgorithms::from_bytes(&[0, 1, 0, 0, 0, 2, 0, 0]).unwrap())
    });
    let second = rig.request();
    let choice: PasswordAlgorithm<'_> = second.message().find().unwrap();
    assert_eq!(choice.id, PasswordAlgorithmId::SHA256);
    rig.key = key(PasswordAlgorithmId::SHA256);
    rig.protection = IntegrityAlgorithm::Sha256;
    second.message().verify(&rig.key).unwrap();
    rig.allocate_ok(&second);
    assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
}

// The server of 8656 section 9.1 in the specification's vectors: same attributes, other IDs.
// spec: TURN-7.1-6
#[test]
fn the_first_allocate_is_the_vector_but_for_its_id() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        lifetime: Some(secs(3600)),
        ..AllocateOptions::default()
    };
    rig.client.allocate(rig.now, options).unwrap();
    let request = rig.request();
    let vector =
        hex::decode("000300102112a442a56250d3f17abe679422de85000d000400000e100019000411000000")
            .unwrap();
    let mut expected: Vec<_> = Message::parse(&vector).unwrap().attributes().collect();
    let mut got: Vec<_> = request.message().attributes().collect();
    expected.sort_by_key(|a| a.ty);
    got.sort_by_key(|a| a.ty);
    assert_eq!(got, expected);
}

// spec: TURN-5-5
#[test]
fn software_is_in_allocate_and_refresh_if_configured() {
    let config = ClientConfig {
        software: Some("test client".into()),
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp).allocate();
    let refresh = &rig.advance(540)[0];
    let software: stun_proto::wire::Software<'_> = refresh.message().find().unwrap();
    assert_eq!(software.as_str(), Some("test client"));
}

// spec: TURN-8-1, TURN-8.3-1, TURN-6-4
#[test]
fn the_allocation_is_refreshed_a_minute_before_its_end_for_a_day() {
    let mut rig = Rig::allocated();
    let seen = rig.run(86_400, |rig, request| rig.serve(request));
    let times: Vec<_> = seen.iter().map(|s| s.at).collect();
    let expected: Vec<_> = (1..=160).map(|n| at(n * 540)).collect();
    assert_eq!(times, expected);
    assert!(seen.iter().all(|s| s.method() == wire::REFRESH));
    assert_eq!(rig.event(), None);
}

// spec: TURN-7.3-2
#[test]
fn short_lifetimes_are_refreshed_at_half_time_and_long_ones_before_an_hour() {
    for (granted, wait) in [
        (10, 5),
        (100, 50),
        (120, 60),
        (7200, 3540),
        (u32::MAX, 3540),
    ] {
        let mut rig = Rig::allocated();
        let seen = rig.advance(540);
        rig.refresh_ok(&seen[0], granted);
        assert_eq!(rig.client.poll_timeout(), Some(at(540 + wait)));
    }
}

// spec: TURN-8.3-D1
#[test]
fn refreshing_goes_on_until_the_allocation_has_ended() {
    let mut rig = Rig::allocated();
    let seen = rig.advance(601);
    assert!(seen.len() > 6);
    let cause = Cause::Timeout;
    assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
    rig.assert_silent();
}

// spec: TURN-8.3-D1
#[test]
fn a_late_answer_to_the_second_refresh_keeps_the_allocation() {
    let mut rig = Rig::allocated();
    let first = rig.advance(540)[0].clone();
    let later = rig.advance(590);
    let second = later
        .iter()
        .find(|s| s.message().transaction_id() != first.message().transaction_id())
        .expect("a new transaction after the first has timed out");
    rig.refresh_ok(second, 600);
    let seen = rig.run(1000, |rig, request| rig.serve(request));
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(rig.event(), None);
}

// spec: SEC-C-04
#[test]
fn refused_refreshes_back_off_to_a_minute_and_never_overlap() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&Lifetime(3600))
    });
    rig.events();
    let seen = rig.run(3599, |rig, request| rig.error(request, 500));
    let gaps: Vec<_> = seen
        .windows(2)
        .map(|pair| pair[1].at.duration_since(pair[0].at))
        .collect();
    assert!(seen.len() < 12, "{gaps:?}");
    assert!(gaps[0] >= secs(1) && gaps[1] >= secs(2) && gaps[2] >= secs(4));
    rig.advance(3601);
    let cause = Cause::Code(500);
    assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
}

// spec: SEC-C-04, SEC-G-08
#[test]
fn a_jump_of_the_clock_ends_everything_without_a_storm() {
    let mut rig = Rig::allocated();
    rig.permit("203.0.113.1");
    rig.bind("203.0.113.2:2000");
    rig.now = at(10 * 365 * 86_400);
    rig.client.handle_timeout(rig.now);
    assert!(rig.requests().is_empty());
    assert!(matches!(
        rig.events().last(),
        Some(Event::AllocationLost { .. })
    ));
    rig.assert_silent();
}

// spec: TURN-8.1-1, TURN-8.3-1
#[test]
fn a_stale_nonce_while_deleting_keeps_lifetime_zero() {
    let mut rig = Rig::allocated();
    rig.client.close(rig.now);
    let first = rig.request();
    assert_eq!(first.lifetime(), Some(0));
    rig.nonce = "nonce-2";
    rig.challenge(&first, 438);
    let second = rig.request();
    assert_eq!(second.lifetime(), Some(0));
    assert_eq!(second.nonce(), Some(b"nonce-2".to_vec()));
    rig.refresh_ok(&second, 0);
    assert_eq!(rig.event(), Some(Event::Closed));
    rig.assert_silent();
}

// spec: TURN-8.3-1
#[test]
fn deleting_ends_with_a_mismatch_or_without_any_answer() {
    let mut rig = Rig::allocated();
    rig.client.close(rig.now);
    let request = rig.request();
    rig.error(&request, 437);
    assert_eq!(rig.event(), Some(Event::Closed));
    let mut rig = Rig::allocated();
    rig.client.close(rig.now);
    rig.advance(39);
    assert_eq!(rig.event(), None);
    rig.advance(40);
    assert_eq!(rig.event(), Some(Event::Closed));
    rig.assert_silent();
}

// spec: TURN-8-1
#[test]
fn closing_before_the_answer_gives_back_what_comes() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.client.close(rig.now);
    assert_eq!(rig.event(), None);
    rig.allocate_ok(&request);
    let delete = rig.request();
    assert_eq!(
        (delete.method(), delete.lifetime()),
        (wire::REFRESH, Some(0))
    );
    rig.refresh_ok(&delete, 0);
    assert_eq!(rig.event(), Some(Event::Closed));
    // Who has only been challenged has nothing to give back.
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let first = rig.request();
    rig.client.close(rig.now);
    rig.challenge(&first, 401);
    assert_eq!(rig.event(), Some(Event::Closed));
    rig.assert_silent();
}

// spec: TURN-5-4
#[test]
fn a_mismatch_means_that_the_allocation_is_gone() {
    let mut rig = Rig::allocated();
    rig.permit("203.0.113.9");
    let seen = rig.advance(240);
    rig.error(&seen[0], 437);
    let cause = Cause::Code(437);
    assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
    assert!(!rig.client.is_permitted(ip("203.0.113.9")));
    rig.assert_silent();
}

// Trap U6: the nonces of the old process are unknown to the new one, then the allocation is.
// spec: TURN-5-4, STUN-9.2.5-4
#[test]
fn a_restarted_server_is_noticed_with_the_first_refresh() {
    for code in [401, 438] {
        let mut rig = Rig::allocated();
        let refresh = rig.advance(540)[0].clone();
        rig.nonce = "nonce-of-the-new-process";
        rig.challenge(&refresh, code);
        let again = rig.request();
        assert_eq!(again.nonce(), Some(rig.nonce.as_bytes().to_vec()));
        rig.error(&again, 437);
        let cause = Cause::Code(437);
        assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
        rig.assert_silent();
    }
}

// Trap U24: the key is derived again for another realm.
// spec: STUN-9.2.5-4
#[test]
fn a_stale_nonce_with_another_realm_changes_the_key() {
    let mut rig = Rig::allocated();
    let refresh = rig.advance(540)[0].clone();
    rig.answer(&refresh, Class::Error, false, |w| {
        w.attribute(&ErrorCode::new(438))
            .attribute(&Realm::new("other.example").unwrap())
            .attribute(&Nonce::new("nonce-2").unwrap())
    });
    let again = rig.request();
    let md5 = PasswordAlgorithmId::MD5;
    rig.key = Key::long_term(md5, b"user", b"other.example", b"secret").unwrap();
    again.message().verify(&rig.key).unwrap();
}

// Trap U3: only the lifetime that was granted counts.
#[test]
fn the_granted_lifetime_counts_not_the_wanted_one() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        lifetime: Some(secs(86_400)),
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    assert_eq!(request.lifetime(), Some(86_400));
    rig.allocate_ok(&request);
    let seen = rig.advance(540);
    assert_eq!(seen[0].lifetime(), Some(86_400));
    assert_eq!(seen[0].at, at(540));
}

// spec: STUN-6.2.1-1, STUN-5-6
#[test]
fn a_lost_allocate_is_sent_again_unchanged() {
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let seen = rig.advance(31);
    let times: Vec<_> = seen.iter().map(|s| s.at.as_millis_from_zero()).collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15500]);
    assert!(seen.iter().all(|s| s.bytes == seen[0].bytes));
}

trait FromZero {
    fn as_millis_from_zero(&self) -> u128;
}

impl FromZero for Instant {
    fn as_millis_from_zero(&self) -> u128 {
        self.duration_since(Self::ZERO).as_millis()
    }
}

// spec: TURN-3.9-1
#[test]
fn a_race_can_be_decided_by_the_challenge() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        stop_at_challenge: true,
        ..AllocateOptions::default()
    };
    rig.client.allocate(rig.now, options).unwrap();
    let first = rig.request();
    rig.challenge(&first, 401);
    assert_eq!(rig.event(), Some(Event::Challenged));
    assert!(rig.try_request().is_none());
    assert_eq!(rig.client.poll_timeout(), None);
    rig.client.proceed(rig.now).unwrap();
    let second = rig.request();
    assert!(second.message().has_integrity());
    rig.allocate_ok(&second);
    assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
    assert_eq!(rig.client.proceed(rig.now), Err(ClientError::State));
    // The loser just closes: nothing is at the server.
    let mut loser = Rig::new();
    loser.client.allocate(loser.now, options).unwrap();
    let first = loser.request();
    loser.challenge(&first, 401);
    loser.event();
    loser.client.close(loser.now);
    assert_eq!(loser.event(), Some(Event::Closed));
    loser.assert_silent();
}

// spec: TURN-7.1-3, TURN-7.1-4, TURN-7.1-5, 6062-4.1-1, 6062-4.1-2
#[test]
fn contradicting_options_are_refused() {
    let none = AllocateOptions::default();
    let v4 = Some(AddressFamily::V4);
    let tcp = RelayProtocol::Tcp;
    let bad = [
        AllocateOptions {
            lifetime: Some(Duration::from_millis(999)),
            ..none
        },
        AllocateOptions {
            family: v4,
            reservation: Some([1; 8]),
            ..none
        },
        AllocateOptions {
            family: v4,
            additional_v6: true,
            ..none
        },
        AllocateOptions {
            additional_v6: true,
            reservation: Some([1; 8]),
            ..none
        },
        AllocateOptions {
            additional_v6: true,
            even_port: Some(true),
            ..none
        },
        AllocateOptions {
            reservation: Some([1; 8]),
            even_port: Some(false),
            ..none
        },
        AllocateOptions {
            protocol: tcp,
            dont_fragment: true,
            ..none
        },
        AllocateOptions {
            protocol: tcp,
            even_port: Some(false),
            ..none
        },
        AllocateOptions {
            protocol: tcp,
            reservation: Some([1; 8]),
            ..none
        },
    ];
    for options in bad {
        let mut rig = Rig::stream();
        let refused = rig.client.allocate(rig.now, options);
        assert_eq!(refused, Err(ClientError::Options), "{options:?}");
        assert!(rig.try_request().is_none());
        rig.client.allocate(rig.now, none).unwrap();
        assert_eq!(rig.client.allocate(rig.now, none), Err(ClientError::State));
    }
    let mut rig = Rig::new();
    let over_udp = AllocateOptions {
        protocol: tcp,
        ..none
    };
    let refused = rig.client.allocate(rig.now, over_udp);
    assert_eq!(refused, Err(ClientError::Options));
}
