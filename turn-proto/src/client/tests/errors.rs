//! Errors of Allocate (the table of RFC 8656 section 7.4), forged answers, and redirects.

use stun_proto::auth::AuthFailure;
use stun_proto::wire::{AlternateDomain, AlternateServer, AttributeType, UnknownAttributes};

use super::*;
use crate::wire::DontFragment;

/// What becomes of an Allocate that is refused with a protected `code`.
fn refused(code: u16, options: AllocateOptions) -> Event {
    let mut rig = Rig::new();
    let request = rig.ask(options);
    rig.error(&request, code);
    let event = rig.event().expect("an event");
    rig.assert_silent();
    event
}

fn failure(cause: Cause) -> Event {
    Event::AllocateFailed {
        cause,
        retry_after: None,
        fresh_address: false,
        alternate: None,
    }
}

// The table's IDs, one for each code: the reaction is what the last columns say.
// TURN-7.4-400, -403, -437, -440, -441, -442, -486, -508, other.
// spec: TURN-7.1-1, SEC-C-04
#[test]
fn allocate_errors_say_whether_to_try_again() {
    for (code, wait, fresh) in [
        (400, None, false),
        (403, None, false),
        (405, None, false),
        (420, None, false),
        (437, Some(0), true),
        (440, None, false),
        (441, None, false),
        (442, None, false),
        (486, Some(60), false),
        (508, Some(60), false),
        (300, None, false),
        (699, None, false),
    ] {
        let Event::AllocateFailed {
            cause,
            retry_after,
            fresh_address,
            alternate,
        } = refused(code, AllocateOptions::default())
        else {
            panic!("{code}");
        };
        assert_eq!(cause, Cause::Code(code));
        // A second of jitter keeps many clients from coming back at once.
        let whole = retry_after.map(|after| after.as_secs());
        assert_eq!(whole, wait, "{code}");
        assert_eq!(fresh_address, fresh, "{code}");
        assert_eq!(alternate, None);
    }
}

#[test]
fn no_room_for_a_reservation_can_be_tried_again_without_at_once() {
    for options in [
        AllocateOptions {
            even_port: Some(true),
            ..AllocateOptions::default()
        },
        AllocateOptions {
            reservation: Some([3; 8]),
            ..AllocateOptions::default()
        },
    ] {
        let Event::AllocateFailed { retry_after, .. } = refused(508, options) else {
            panic!("no failure");
        };
        assert_eq!(retry_after, Some(Duration::ZERO));
    }
}

// spec: STUN-6.3.4-3
#[test]
fn a_server_error_is_tried_four_times_more() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.error(&request, 500);
    let seen = rig.run(100, |rig, request| rig.error(request, 500));
    assert_eq!(seen.len(), 4);
    assert_eq!(rig.event(), Some(failure(Cause::Code(500))));
    rig.assert_silent();
}

// spec: STUN-9.2.5-3
#[test]
fn wrong_credentials_are_tried_once() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.challenge(&request, 401);
    let cause = Cause::Auth(AuthFailure::WrongCredentials);
    assert_eq!(rig.event(), Some(failure(cause)));
    rig.assert_silent();
}

#[test]
fn without_credentials_a_challenge_is_the_end() {
    let config = ClientConfig {
        credentials: None,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let request = rig.request();
    rig.challenge(&request, 401);
    let cause = Cause::Auth(AuthFailure::NoCredentials);
    assert_eq!(rig.event(), Some(failure(cause)));
}

// spec: SEC-C-02
#[test]
fn credentials_of_one_realm_do_not_answer_another() {
    let mut credentials = Credentials::new("user", "secret");
    credentials.realm = Some("home.example".into());
    let config = ClientConfig {
        credentials: Some(credentials),
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let request = rig.request();
    rig.challenge(&request, 401);
    let cause = Cause::Auth(AuthFailure::ForeignRealm);
    assert_eq!(rig.event(), Some(failure(cause)));
    assert!(rig.try_request().is_none());
}

// spec: SEC-C-01, STUN-9.1.4-2, STUN-9.2.5-7
#[test]
fn a_success_without_integrity_is_not_believed() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Success, false, |w| {
        w.attribute(&XorRelayedAddress(addr("6.6.6.6:6")))
            .attribute(&Lifetime(600))
    });
    assert_eq!(rig.event(), None);
    assert_eq!(rig.client.stats().unverified, 1);
    rig.advance(40);
    assert_eq!(rig.event(), Some(failure(Cause::Integrity { code: None })));
}

/// What comes of the first, unauthenticated Allocate when it is answered with success at once.
fn granted_unasked(config: ClientConfig, path: Path, transport: Transport) -> Rig {
    let mut rig = Rig::with(config, path, transport);
    let options = AllocateOptions::default();
    rig.client.allocate(rig.now, options).unwrap();
    let first = rig.request();
    rig.answer(&first, Class::Success, false, |w| {
        w.attribute(&XorRelayedAddress(addr("6.6.6.6:6")))
            .attribute(&XorMappedAddress(addr("6.6.6.6:7")))
            .attribute(&Lifetime(600))
    });
    rig
}

// spec: SEC-C-01
#[test]
fn a_success_to_the_first_allocate_is_not_believed_by_who_has_credentials() {
    let mut rig = granted_unasked(config(), udp_path(40000), Transport::Udp);
    assert_eq!(rig.event(), None);
    assert_eq!(rig.client.stats().unverified, 1);
    // The server's own answer comes later and is taken up as if nothing had been.
    let sent_again = rig.advance(1);
    let first = sent_again.first().expect("the Allocate is sent again");
    rig.challenge(first, 401);
    let request = rig.request();
    rig.allocate_ok(&request);
    let allocated = rig.event();
    let Some(Event::Allocated { relayed, .. }) = allocated else {
        panic!("{allocated:?}");
    };
    assert_eq!(relayed, addr(RELAYED));
    // Nothing else comes: the attempt fails and says why.
    let mut rig = granted_unasked(config(), udp_path(40000), Transport::Udp);
    rig.advance(40);
    assert_eq!(rig.event(), Some(failure(Cause::Integrity { code: None })));
    rig.assert_silent();
    // Over a stream at once, since nothing better can come.
    let stream = Path::Stream(StreamId(1));
    let mut rig = granted_unasked(config(), stream, Transport::Tcp);
    assert_eq!(rig.event(), Some(failure(Cause::Integrity { code: None })));
}

// spec: SEC-C-01
#[test]
fn servers_that_ask_for_nothing_are_believed_on_request() {
    let open = ClientConfig {
        open_servers: true,
        ..config()
    };
    let without = ClientConfig {
        credentials: None,
        ..config()
    };
    let token = ClientConfig {
        third_party: true,
        ..without.clone()
    };
    for (config, believed) in [(open, true), (without, true), (token, false)] {
        let mut rig = granted_unasked(config, udp_path(40000), Transport::Udp);
        let event = rig.event();
        let allocated = matches!(event, Some(Event::Allocated { .. }));
        assert_eq!(allocated, believed, "{event:?}");
    }
}

// spec: SEC-C-01
#[test]
fn no_unprotected_success_is_believed_once_there_is_an_allocation() {
    let mut rig = Rig::allocated();
    let peer = ip("203.0.113.1");
    rig.client.create_permission(rig.now, peer).unwrap();
    let bind = addr("203.0.113.2:5000");
    rig.client.bind_channel(rig.now, bind).unwrap();
    for request in rig.requests() {
        rig.answer(&request, Class::Success, false, |w| w);
    }
    assert_eq!(rig.events(), []);
    assert!(!rig.client.is_permitted(peer));
    assert!(!rig.client.is_permitted(bind.ip()));
    // A forged Refresh answer neither ends nor prolongs the allocation.
    let mut rig = Rig::allocated();
    rig.run(2000, |rig, request| {
        for lifetime in [0, 86_400] {
            rig.answer(request, Class::Success, false, |w| {
                w.attribute(&Lifetime(lifetime))
            });
        }
    });
    assert_eq!(
        rig.events(),
        [Event::AllocationLost {
            cause: Cause::Integrity { code: None }
        }]
    );
    // Nor does one to the request that gives it back.
    let mut rig = Rig::allocated();
    rig.client.close(rig.now);
    let request = rig.request();
    rig.answer(&request, Class::Success, false, |w| {
        w.attribute(&Lifetime(0))
    });
    assert_eq!(rig.event(), None);
    rig.ok(&request);
    assert_eq!(rig.event(), Some(Event::Closed));
}

// spec: STUN-9.2.5-6
#[test]
fn an_unprotected_400_is_only_a_hint() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Error, false, |w| {
        w.attribute(&ErrorCode::new(400))
    });
    assert_eq!(rig.event(), None);
    rig.advance(40);
    let cause = Cause::Integrity { code: Some(400) };
    assert_eq!(rig.event(), Some(failure(cause)));
}

/// A client with this tolerance.
fn tolerant(unprotected_errors: UnprotectedErrors) -> Rig {
    let config = ClientConfig {
        unprotected_errors,
        ..config()
    };
    Rig::with(config, udp_path(40000), Transport::Udp)
}

fn unprotected(rig: &mut Rig, to: &Seen, code: u16) {
    rig.answer(to, Class::Error, false, |w| {
        w.attribute(&ErrorCode::new(code))
    });
}

// Traps U1 and U2: coturn and pion send these without integrity.
// spec: TURN-5-4, SEC-C-01, SEC-S-06
#[test]
fn unprotected_errors_count_where_nothing_is_lost_by_them() {
    use UnprotectedErrors::{Accept, Refuse, ToAllocate};
    assert_eq!(config().unprotected_errors, ToAllocate);
    for (mode, allocate, others) in [
        (Refuse, false, false),
        (ToAllocate, true, false),
        (Accept, true, true),
    ] {
        for code in [437, 486, 508] {
            let mut rig = tolerant(mode);
            let request = rig.ask(AllocateOptions::default());
            unprotected(&mut rig, &request, code);
            assert_eq!(rig.event().is_some(), allocate, "{mode:?} {code}");
        }
        // Nobody else can say that the allocation is gone, nor give it back for the client.
        let mut rig = tolerant(mode).allocate();
        let refresh = rig.advance(540)[0].clone();
        unprotected(&mut rig, &refresh, 437);
        assert_eq!(rig.event().is_some(), others, "{mode:?}");
        let mut rig = tolerant(mode).allocate();
        rig.client.close(rig.now);
        let delete = rig.request();
        unprotected(&mut rig, &delete, 437);
        assert_eq!(rig.event() == Some(Event::Closed), others, "{mode:?}");
        // The server itself is believed.
        let mut rig = tolerant(mode).allocate();
        let refresh = rig.advance(540)[0].clone();
        rig.error(&refresh, 437);
        let cause = Cause::Code(437);
        assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
    }
}

// spec: STUN-6.3.3-1, STUN-6.3.4-1
#[test]
fn answers_that_are_not_understood_are_failures() {
    let unknown = AttributeType(0x7FFF);
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&Lifetime(600))
            .raw(unknown, &[])
    });
    assert_eq!(rig.event(), Some(failure(Cause::Malformed)));
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Error, true, |w| w);
    assert_eq!(rig.event(), Some(failure(Cause::Malformed)));
}

// spec: TURN-7.3-D1, TURN-7.3-1
#[test]
fn an_allocation_of_no_use_is_given_back() {
    type Answer = for<'b> fn(Writer<'b>) -> Writer<'b>;
    let cases: [(Answer, Cause); 5] = [
        (|w| w.attribute(&Lifetime(600)), Cause::Malformed),
        (
            |w| w.attribute(&XorRelayedAddress(addr(RELAYED))),
            Cause::Malformed,
        ),
        (
            |w| {
                w.attribute(&XorRelayedAddress(addr(RELAYED)))
                    .attribute(&Lifetime(0))
            },
            Cause::Malformed,
        ),
        (
            |w| {
                w.raw(AttributeType(0x0016), &[0, 3, 1, 2, 3, 4, 5, 6])
                    .attribute(&Lifetime(600))
            },
            Cause::Family,
        ),
        (
            |w| {
                w.attribute(&XorRelayedAddress(addr(RELAYED)))
                    .attribute(&Lifetime(600))
                    .raw(AttributeType(0x0020), &[0, 9, 1, 2, 3, 4, 5, 6])
            },
            Cause::Family,
        ),
    ];
    for (answer, cause) in cases {
        let mut rig = Rig::new();
        let request = rig.ask(AllocateOptions::default());
        rig.answer(&request, Class::Success, true, answer);
        // The terminal event comes when the allocation is gone.
        assert_eq!(rig.event(), None);
        let delete = rig.request();
        assert_eq!(delete.lifetime(), Some(0));
        rig.refresh_ok(&delete, 0);
        assert_eq!(rig.event(), Some(failure(cause)));
        rig.assert_silent();
    }
    // The family that was asked for, or none.
    let mut rig = Rig::new();
    let options = AllocateOptions {
        family: Some(AddressFamily::V6),
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    rig.allocate_ok(&request);
    assert_eq!(rig.request().lifetime(), Some(0));
}

// spec: TURN-7.3-D1
#[test]
fn a_missing_mapped_address_is_no_failure() {
    let mut rig = Rig::new();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&Lifetime(600))
    });
    assert!(matches!(
        rig.event(),
        Some(Event::Allocated { mapped: None, .. })
    ));
}

// Trap U18: pion answers 420, coturn does it its own way.
#[test]
fn a_server_that_cannot_avoid_fragments_is_asked_without() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        dont_fragment: true,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    assert_eq!(request.message().find(), Some(DontFragment));
    rig.answer(&request, Class::Error, true, |w| {
        let unknown = UnknownAttributes([AttributeType(0x001A)].into_iter().collect());
        w.attribute(&ErrorCode::new(420)).attribute(&unknown)
    });
    let again = rig.request();
    assert_eq!(again.message().find::<DontFragment>(), None);
    rig.allocate_ok(&again);
    assert!(matches!(
        rig.event(),
        Some(Event::Allocated {
            dont_fragment: false,
            ..
        })
    ));
    assert_eq!(rig.client.set_dont_fragment(true), Err(ClientError::State));
}

// spec: STUN-6.2.1-7
#[test]
fn a_hard_icmp_error_ends_the_attempt_at_once() {
    let mut rig = Rig::new();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    rig.request();
    rig.client.handle_icmp_error(rig.now);
    assert_eq!(rig.event(), Some(failure(Cause::Unreachable)));
    rig.assert_silent();
}

fn redirected(redirects: Redirects, protected: bool, to: &str) -> (Rig, Option<SocketAddr>) {
    let config = ClientConfig {
        redirects,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
    let request = rig.ask(AllocateOptions::default());
    let domain = AlternateDomain::new("other.example").unwrap();
    rig.answer(&request, Class::Error, protected, |w| {
        w.attribute(&ErrorCode::new(300))
            .attribute(&AlternateServer(addr("[2001:db8::9]:3478")))
            .attribute(&AlternateServer(addr(to)))
            .attribute(&domain)
    });
    let alternate = match rig.event() {
        Some(Event::AllocateFailed { alternate, .. }) => alternate,
        _ => None,
    };
    (rig, alternate)
}

// spec: STUN-10-1, STUN-10-3, SEC-S-10
#[test]
fn redirects_are_followed_when_protected_and_wanted() {
    let to = "192.0.2.99:3478";
    for (redirects, protected, followed) in [
        (Redirects::Refuse, true, false),
        (Redirects::Protected, true, true),
        (Redirects::Protected, false, false),
        (Redirects::Unprotected, false, true),
    ] {
        let (rig, alternate) = redirected(redirects, protected, to);
        let expected = followed.then(|| addr(to));
        assert_eq!(alternate, expected, "{redirects:?} {protected}");
        if followed {
            assert_eq!(rig.client.alternate_domain(), Some("other.example"));
        }
    }
}

// Anycast servers redirect before they authenticate anybody.
// spec: 8155-6-2
#[test]
fn an_anycast_server_is_left_for_its_unicast_address() {
    for (redirects, followed) in [
        (Redirects::Unprotected, true),
        (Redirects::Protected, false),
    ] {
        let config = ClientConfig {
            redirects,
            ..config()
        };
        let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
        rig.client
            .allocate(rig.now, AllocateOptions::default())
            .unwrap();
        let first = rig.request();
        assert!(first.bytes.len() < 548, "one packet");
        rig.answer(&first, Class::Error, false, |w| {
            w.attribute(&ErrorCode::new(300))
                .attribute(&AlternateServer(addr("192.0.2.99:3478")))
        });
        let Some(Event::AllocateFailed { alternate, .. }) = rig.event() else {
            panic!("no failure");
        };
        assert_eq!(alternate, followed.then(|| addr("192.0.2.99:3478")));
        rig.assert_silent();
    }
}

// spec: TURN-21.1.6-1
#[test]
fn a_private_username_is_sent_as_a_hash_or_over_tls_only() {
    let private = ClientConfig {
        private_username: true,
        ..config()
    };
    let udp = (udp_path(40000), Transport::Udp);
    let tls = (Path::Stream(StreamId(1)), Transport::Tls);
    for ((path, transport), nonce, shown) in [
        (udp, "nonce-1", None),
        (udp, "obMatJos2QAAAxyz", Some(false)),
        (tls, "nonce-1", Some(true)),
    ] {
        let mut rig = Rig::with(private.clone(), path, transport);
        rig.client
            .allocate(rig.now, AllocateOptions::default())
            .unwrap();
        let first = rig.request();
        rig.nonce = nonce;
        rig.challenge(&first, 401);
        let second = rig.try_request();
        let name = second.map(|s| s.message().has(AttributeType(0x0006)));
        assert_eq!(name, shown, "{transport} {nonce}");
        let refused = failure(Cause::Auth(AuthFailure::NoAnonymity));
        assert_eq!(rig.event(), shown.is_none().then_some(refused));
    }
}

// Trap U29.
// spec: SEC-S-10
#[test]
fn redirects_lead_to_no_strange_place() {
    for to in [
        "127.0.0.1:3478",
        "0.0.0.0:3478",
        "224.0.0.1:3478",
        "255.255.255.255:3478",
        "192.0.2.99:25",
        "192.0.2.1:3478",
    ] {
        let (_, alternate) = redirected(Redirects::Protected, true, to);
        assert_eq!(alternate, None, "{to}");
    }
    for to in ["192.0.2.99:443", "192.0.2.99:80", "192.0.2.99:53"] {
        let (_, alternate) = redirected(Redirects::Protected, true, to);
        assert_eq!(alternate, Some(addr(to)));
    }
}

// Trap U5 and U4: after a mismatch the host takes another port, three times.
// spec: TURN-7.1-1
#[test]
fn a_server_is_left_alone_after_three_mismatches() {
    let server = addr("192.0.2.1:3478");
    let mut servers = Servers::new();
    let mismatch = refused(437, AllocateOptions::default());
    for second in 0..2 {
        servers.asked(at(second), server);
        servers.note(at(second), server, &mismatch);
        assert!(servers.may_ask(at(second), server.ip()));
    }
    servers.note(at(3), server, &mismatch);
    assert!(!servers.may_ask(at(122), server.ip()));
    assert!(servers.may_ask(at(123), server.ip()));
    assert!(servers.may_ask(at(3), ip("192.0.2.2")));
}

// Trap U28: whatever the port and transport.
// spec: 5928-3-6, SEC-C-04
#[test]
fn a_server_without_room_is_left_alone_for_a_minute() {
    let mut servers = Servers::new();
    for code in [486, 508] {
        let full = refused(code, AllocateOptions::default());
        servers.note(at(10), addr("192.0.2.1:3478"), &full);
        assert!(!servers.may_ask(at(69), ip("192.0.2.1")));
        assert!(servers.may_ask(at(71), ip("192.0.2.1")));
    }
}

// spec: TURN-7.3-3
#[test]
fn a_refused_family_is_remembered() {
    let mut servers = Servers::new();
    let (server, v4, v6) = (ip("192.0.2.1"), AddressFamily::V4, AddressFamily::V6);
    servers.note_family(at(0), server, v6, 440);
    servers.note_family(at(0), server, v4, 508);
    assert!(!servers.may_ask_for(at(1_000_000), server, v6));
    assert!(!servers.may_ask_for(at(59), server, v4));
    assert!(servers.may_ask_for(at(60), server, v4));
}

// spec: STUN-10-4, SEC-S-10
#[test]
fn redirects_go_neither_in_circles_nor_on_for_ever() {
    let mut servers = Servers::new();
    let (first, second) = (addr("192.0.2.1:3478"), addr("192.0.2.2:3478"));
    servers.asked(at(0), first);
    assert!(servers.follow(at(1), second));
    servers.asked(at(1), second);
    assert!(!servers.follow(at(299), first));
    assert!(servers.follow(at(301), first));
    assert!(servers.follow(at(301), addr("192.0.2.3:3478")));
    assert!(!servers.follow(at(301), addr("192.0.2.4:3478")));
}

// spec: SEC-G-05
#[test]
fn the_memory_of_servers_is_bounded() {
    let mut servers = Servers::new();
    let full = refused(486, AllocateOptions::default());
    for n in 0..1000_u32 {
        let server = SocketAddr::new(IpAddr::from(n.to_be_bytes()), 3478);
        servers.asked(at(u64::from(n)), server);
        servers.note(at(u64::from(n)), server, &full);
    }
    // The oldest are forgotten, the latest are not.
    assert!(servers.may_ask(at(1000), IpAddr::from(900_u32.to_be_bytes())));
    assert!(!servers.may_ask(at(1000), IpAddr::from(999_u32.to_be_bytes())));
}
