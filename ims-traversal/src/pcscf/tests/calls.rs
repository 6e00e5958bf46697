//! Calls between clients of the registrar inside.

use sip_outbound::wire::{Method, Name, StatusCode};

use super::world::*;

use super::super::*;

// spec: SEED-2.2-1, SEED-2.2-2, SEED-2.2-3, E-3.1.0-4, OUT-7-4
#[test]
fn two_clients_register_over_tls_and_call_each_other() {
    for piece in [1, 100, 4096] {
        let mut world = World::new(home_config());
        world.piece = piece;
        let alice = world.phone("alice", 1, 1);
        let bob = world.phone("bob", 2, 1);
        assert_eq!(world.phones[alice].count("Registered"), 1);
        assert_eq!(world.phones[bob].count("Registered"), 1);
        assert_eq!(world.pcscf.binding_count(), 2);

        let (mut caller, mut callee) = world.call(alice, bob, "bob");
        // A new offer from either side, by the route that was recorded.
        for (from, to, dialog) in [(alice, bob, &mut caller), (bob, alice, &mut callee)] {
            let contact = std::vec![("Contact".into(), "<sip:there@10.0.0.2>".into())];
            let body = bytes::Bytes::new();
            let ua = &mut world.phones[from].ua;
            let again = ua.request_in_dialog(world.now, dialog, Method::INVITE, contact, body);
            let again = again.unwrap();
            world.settle();
            let (id, _, invite) = world.phones[to].request();
            assert!(!invite.has(Name::ROUTE));
            world.answer(to, id, StatusCode::OK);
            let (_, _, response) = world.phones[from].response();
            assert_eq!(response.code(), StatusCode::OK);
            let ua = &mut world.phones[from].ua;
            ua.ack(world.now, dialog, again, &[], b"").unwrap();
            world.settle();
            assert_eq!(world.phones[to].count("Ack"), 1);
        }
        let body = bytes::Bytes::new();
        let ua = &mut world.phones[bob].ua;
        ua.request_in_dialog(world.now, &mut callee, Method::BYE, Vec::new(), body)
            .unwrap();
        world.settle();
        let (id, _, bye) = world.phones[alice].request();
        assert_eq!(*bye.method(), Method::BYE);
        world.answer(alice, id, StatusCode::OK);
        assert_eq!(world.phones[bob].response().2.code(), StatusCode::OK);
    }
}

#[test]
fn a_message_says_who_it_is_from_and_finds_its_way() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    let bob = world.phone("bob", 2, 1);
    world.ask(alice, Method::MESSAGE, "bob");
    let (id, _, message) = world.phones[bob].request();
    let asserted = message.only(Name::P_ASSERTED_IDENTITY).unwrap();
    assert_eq!(asserted, "<sip:alice@ims.example.com>");
    world.answer(bob, id, StatusCode::OK);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::OK);
}

#[test]
fn what_is_for_another_domain_is_not_found_and_goes_nowhere() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    for uri in ["sip:bob@elsewhere.example", "sip:elsewhere.example"] {
        let request = sip_outbound::NewRequest::new(Method::MESSAGE, uri);
        let ua = &mut world.phones[alice].ua;
        ua.request(world.now, request).unwrap();
        world.settle();
        let code = world.phones[alice].response().2.code();
        assert_eq!(code, StatusCode::NOT_FOUND, "{uri}");
    }
}

#[test]
fn who_is_not_registered_is_unavailable_and_who_does_not_exist_is_not_found() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    world.ask(alice, Method::INVITE, "bob");
    let code = world.phones[alice].response().2.code();
    assert_eq!(code, StatusCode::TEMPORARILY_UNAVAILABLE);
    world.ask(alice, Method::INVITE, "nobody");
    let code = world.phones[alice].response().2.code();
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[test]
fn a_wrong_password_and_another_user_s_name_are_refused() {
    let mut world = World::new(home_config());
    let mallory = world.phone("mallory", 1, 1);
    assert_eq!(world.phones[mallory].count("Refused"), 1);
    assert_eq!(world.pcscf.binding_count(), 0);
}

// spec: OUT-7-1, OUT-7-2, MEM-5.2.8-1
#[test]
fn a_request_takes_the_second_flow_when_the_first_is_gone() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    let bob = world.phone("bob", 2, 2);
    assert_eq!(world.pcscf.binding_count(), 3);
    world.ask(alice, Method::MESSAGE, "bob");
    let (id, used, _) = world.phones[bob].request();
    // One request for two flows of one device.
    world.answer(bob, id, StatusCode::OK);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::OK);

    // The P-CSCF loses this flow; the client has not noticed.
    let (conn, _) = world.phones[bob].lines[&used];
    world.pcscf.handle_eof(world.now, conn);
    world.phones[bob].lines.remove(&used);
    world.ask(alice, Method::INVITE, "bob");
    let (id, other, _) = world.phones[bob].request();
    assert_ne!(other, used);
    world.answer(bob, id, StatusCode::OK);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::OK);
    assert_eq!(world.pcscf.binding_count(), 2);
    let lost = |event: &PcscfEvent| matches!(event, PcscfEvent::BindingLost { .. });
    assert!(world.events.iter().any(lost));

    let (conn, _) = world.phones[bob].lines.remove(&other).unwrap();
    world.phones[bob].offline = true;
    world.pcscf.handle_eof(world.now, conn);
    world.ask(alice, Method::INVITE, "bob");
    let code = world.phones[alice].response().2.code();
    assert_eq!(code, StatusCode::TEMPORARILY_UNAVAILABLE);
    assert_eq!(world.pcscf.binding_count(), 1);
}

// spec: OUT-7-3
#[test]
fn a_device_that_is_busy_is_not_tried_again_but_another_device_is() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    let first = world.phone("bob", 2, 1);
    let second = world.phone("bob", 3, 2);
    world.ask(alice, Method::INVITE, "bob");
    let (id, ..) = world.phones[second].request();
    assert_eq!(world.phones[first].count("Request"), 0);
    world.answer(second, id, StatusCode::BUSY_HERE);
    assert_eq!(world.phones[second].count("Request"), 0);
    let (id, ..) = world.phones[first].request();
    world.answer(first, id, StatusCode::OK);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::OK);

    // 6xx speaks for all devices.
    world.ask(alice, Method::INVITE, "bob");
    let (id, ..) = world.phones[second].request();
    world.answer(second, id, StatusCode::DECLINE);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::DECLINE);
    assert_eq!(world.phones[first].count("Request"), 0);
}

// spec: SIP-16.7-3
#[test]
fn the_challenges_of_all_devices_come_back_together() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    let first = world.phone("bob", 2, 1);
    let second = world.phone("bob", 3, 1);
    world.ask(alice, Method::MESSAGE, "bob");
    let asks = [
        (
            second,
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "Proxy-Authenticate",
            "one",
        ),
        (first, StatusCode::UNAUTHORIZED, "WWW-Authenticate", "two"),
    ];
    for (phone, code, field, realm) in asks {
        let (id, ..) = world.phones[phone].request();
        let value = std::format!("Digest realm=\"{realm}\",nonce=\"n\",qop=\"auth\"");
        let ua = &mut world.phones[phone].ua;
        ua.respond(world.now, id, code, "tag", &[(field.into(), value)], b"")
            .unwrap();
        world.settle();
    }
    let (_, _, response) = world.phones[alice].response();
    assert_eq!(response.code(), StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    for (name, realm) in [
        (Name::PROXY_AUTHENTICATE, "one"),
        (Name::WWW_AUTHENTICATE, "two"),
    ] {
        let rows: Vec<_> = response.rows(name).collect();
        assert_eq!(
            rows,
            [std::format!(
                "Digest realm=\"{realm}\",nonce=\"n\",qop=\"auth\""
            )]
        );
    }
}

#[test]
fn a_caller_who_hangs_up_ends_the_search() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    let first = world.phone("bob", 2, 1);
    let second = world.phone("bob", 3, 1);
    let call = world.ask(alice, Method::INVITE, "bob");
    let (id, ..) = world.phones[second].request();
    world.answer(second, id, StatusCode::RINGING);
    world.phones[alice].ua.cancel(world.now, call).unwrap();
    world.settle();
    assert_eq!(world.phones[second].count("Cancelled"), 1);
    let code = world.phones[alice].response().2.code();
    assert_eq!(code, StatusCode::REQUEST_TERMINATED);
    assert_eq!(world.phones[first].count("Request"), 0);
}

#[test]
fn a_device_that_only_rings_gives_way_to_the_next() {
    let mut config = home_config();
    // The caller's patience ends at 181 s.
    config.home.as_mut().unwrap().timings.ringing = Duration::from_secs(60);
    let mut world = World::new(config);
    let alice = world.phone("alice", 1, 1);
    let first = world.phone("bob", 2, 1);
    let second = world.phone("bob", 3, 1);
    world.ask(alice, Method::INVITE, "bob");
    let (id, ..) = world.phones[second].request();
    world.answer(second, id, StatusCode::RINGING);
    world.run_for(Duration::from_secs(59));
    assert_eq!(world.phones[first].count("Request"), 0);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.phones[second].count("Cancelled"), 1);
    let (id, ..) = world.phones[first].request();
    world.answer(first, id, StatusCode::OK);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::OK);
}

#[test]
fn the_same_seed_and_inputs_give_the_same_outputs() {
    let run = || {
        let mut world = World::new(home_config());
        world.listener = Listener::Tcp;
        let alice = world.phone("alice", 1, 2);
        let bob = world.phone("bob", 2, 1);
        world.call(alice, bob, "bob");
        world.run_for(Duration::from_secs(7200));
        std::format!("{:?} {:?}", world.events, world.pcscf.poll_timeout())
    };
    assert_eq!(run(), run());
}

#[test]
fn questions_nobody_answers_are_forgotten() {
    let mut config = home_config();
    config.home.as_mut().unwrap().registrar.max_pending = 1;
    let mut pcscf = Pcscf::new(config, [2; 32], Instant::ZERO).unwrap();
    let register = |pcscf: &mut Pcscf, now, port, nonce: Option<&str>| {
        let conn = pcscf.accept(now, at(Listener::Tcp, port), Listener::Tcp);
        let conn = conn.unwrap();
        let answer = nonce.map(|nonce| {
            std::format!(
                "Authorization: Digest username=\"alice\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",uri=\"sip:{DOMAIN}\",\
                 response=\"{:064x}\",algorithm=SHA-256,qop=auth,cnonce=\"x\",nc=00000001\r\n",
                0
            )
        });
        let text = std::format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK{port}\r\nFrom: <sip:alice@{DOMAIN}>;tag=1\r\n\
             To: <sip:alice@{DOMAIN}>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@h>\r\nSupported: path\r\n\
             {}Content-Length: 0\r\n\r\n",
            answer.unwrap_or_default()
        );
        pcscf.handle_input(now, conn, text.as_bytes());
        let mut buf = [0; 4096];
        let len = pcscf.poll_conn(conn, &mut buf).unwrap_or(0);
        String::from_utf8(buf[..len].to_vec()).unwrap()
    };
    let challenge = register(&mut pcscf, Instant::ZERO, 1, None);
    let nonce = challenge.split("nonce=\"").nth(1).unwrap();
    let nonce = nonce.split('"').next().unwrap();
    assert_eq!(register(&mut pcscf, Instant::ZERO, 2, Some(nonce)), "");
    assert!(matches!(
        pcscf.poll_action(),
        Some(PcscfAction::FindKey { .. })
    ));
    // One question at a time here.
    let busy = register(&mut pcscf, Instant::ZERO, 3, Some(nonce));
    assert!(busy.starts_with("SIP/2.0 500"), "{busy}");
    let mut now = Instant::ZERO;
    while let Some(next) = pcscf
        .poll_timeout()
        .filter(|at| *at < Instant::ZERO + Duration::from_secs(33))
    {
        now = next;
        pcscf.handle_timeout(now);
    }
    assert_eq!(register(&mut pcscf, now, 4, Some(nonce)), "");
}

#[test]
fn the_home_network_has_a_limit_of_its_own() {
    for (servers, clients) in [(1, 9), (9, 1)] {
        let mut config = home_config();
        let home = config.home.as_mut().unwrap();
        (home.max_server_transactions, home.max_client_transactions) = (servers, clients);
        let mut world = World::new(config);
        let alice = world.phone("alice", 1, 1);
        let bob = world.phone("bob", 2, 1);
        world.ask(alice, Method::INVITE, "bob");
        let (id, ..) = world.phones[bob].request();
        world.answer(bob, id, StatusCode::RINGING);
        world.phones[alice].events.clear();
        // It is full; what is under way goes on.
        world.ask(alice, Method::MESSAGE, "bob");
        let code = world.phones[alice].response().2.code();
        assert_eq!(code, StatusCode::SERVER_ERROR);
        world.answer(bob, id, StatusCode::BUSY_HERE);
        assert_eq!(
            world.phones[alice].response().2.code(),
            StatusCode::BUSY_HERE
        );
        world.ask(alice, Method::MESSAGE, "bob");
        assert_eq!(world.phones[bob].count("Request"), 1);
    }
}

#[test]
fn a_call_may_ring_for_long() {
    let mut world = World::new(home_config());
    let alice = world.phone("alice", 1, 1);
    let bob = world.phone("bob", 2, 1);
    world.ask(alice, Method::INVITE, "bob");
    let (id, ..) = world.phones[bob].request();
    // Everybody's patience begins anew with each 180.
    for _ in 0..3 {
        world.answer(bob, id, StatusCode::RINGING);
        world.run_for(Duration::from_secs(170));
    }
    world.answer(bob, id, StatusCode::OK);
    assert_eq!(world.phones[alice].response().2.code(), StatusCode::OK);
}
