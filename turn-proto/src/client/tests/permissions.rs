//! Permissions: made, kept, refused, given up.

use super::*;

// spec: TURN-10.3-1, TURN-9-1, TURN-10.1-1
#[test]
fn permissions_count_from_sending_and_are_refreshed_after_240_s() {
    let mut rig = Rig::allocated();
    let peer = ip("203.0.113.9");
    rig.client.create_permission(rig.now, peer).unwrap();
    let request = rig.request();
    assert_eq!(request.method(), wire::CREATE_PERMISSION);
    assert_eq!(request.peers(), [addr("203.0.113.9:0")]);
    rig.now = Instant::ZERO + Duration::from_millis(300);
    rig.ok(&request);
    assert!(rig.client.is_permitted(peer));
    let seen = rig.advance(240);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].at, at(240));
    // No answer: it ends 300 s after the first request.
    rig.advance(299);
    rig.events();
    assert!(rig.client.is_permitted(peer));
    rig.advance(300);
    assert!(!rig.client.is_permitted(peer));
    let cause = Cause::Timeout;
    let failed = Event::PermissionFailed { peer, cause };
    assert_eq!(rig.events(), [failed]);
}

// Trap U13 in kind: kept for hours.
// spec: TURN-9-1
#[test]
fn a_permission_is_kept_for_six_hours() {
    let mut rig = Rig::allocated();
    rig.permit("203.0.113.9");
    for hour in 1..=6 {
        rig.run(hour * 3600, |rig, request| rig.serve(request));
        assert!(rig.client.is_permitted(ip("203.0.113.9")));
    }
    assert_eq!(rig.event(), None);
}

#[test]
fn asking_again_for_what_is_there_does_nothing() {
    let mut rig = Rig::allocated();
    let peer = ip("203.0.113.9");
    rig.client.create_permission(rig.now, peer).unwrap();
    rig.client.create_permission(rig.now, peer).unwrap();
    let requests = rig.requests();
    assert_eq!(requests.len(), 1);
    rig.ok(&requests[0]);
    rig.client.create_permission(rig.now, peer).unwrap();
    assert!(rig.try_request().is_none());
}

// Trap U16.
// spec: TURN-10-D1
#[test]
fn one_bad_address_does_not_block_the_others() {
    for code in [403, 443, 400, 508] {
        let mut rig = Rig::allocated();
        rig.permit("203.0.113.1");
        rig.permit("203.0.113.2");
        let seen = rig.advance(240);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].peers().len(), 2);
        rig.error(&seen[0], code);
        let singles = rig.requests();
        assert_eq!(singles.len(), 2);
        rig.error(&singles[0], code);
        rig.ok(&singles[1]);
        let denied = code == 403 || code == 443;
        let peer = ip("203.0.113.1");
        let cause = Cause::Code(code);
        let failed = Event::PermissionFailed { peer, cause };
        // What is not denied for good lives on until it expires.
        assert_eq!(rig.event(), denied.then_some(failed), "{code}");
        assert_eq!(rig.client.is_permitted(peer), !denied);
        assert!(rig.client.is_permitted(ip("203.0.113.2")));
    }
}

// spec: TURN-10-D1, STUN-6.1-2
#[test]
fn refreshes_are_batched_below_548_bytes() {
    let config = ClientConfig {
        credentials: Some(Credentials::new("u".repeat(300), "secret")),
        max_permissions: 40,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
    let md5 = PasswordAlgorithmId::MD5;
    let name = "u".repeat(300);
    rig.key = Key::long_term(md5, name.as_bytes(), REALM.as_bytes(), b"secret").unwrap();
    let mut rig = rig.allocate();
    for n in 0..40 {
        let peer = IpAddr::from([203, 0, 113, n]);
        rig.client.create_permission(rig.now, peer).unwrap();
        for request in rig.requests() {
            assert_eq!(request.peers().len(), 1, "first requests go alone");
            rig.ok(&request);
        }
    }
    let seen = rig.run(241, |rig, request| rig.serve(request));
    assert_eq!(seen.iter().map(|s| s.peers().len()).sum::<usize>(), 40);
    assert!(seen.len() < 10, "{}", seen.len());
    assert!(seen.iter().all(|s| s.bytes.len() < 548));
}

// Trap U17: private peers are refused by many servers; nothing to worry about.
// spec: SEC-C-04
#[test]
fn a_denied_peer_is_not_asked_for_again_and_harms_nobody() {
    let mut rig = Rig::allocated();
    let peer = ip("10.1.2.3");
    rig.client.create_permission(rig.now, peer).unwrap();
    let request = rig.request();
    rig.error(&request, 403);
    let cause = Cause::Code(403);
    assert_eq!(rig.event(), Some(Event::PermissionFailed { peer, cause }));
    let seen = rig.run(3600, |rig, request| rig.serve(request));
    assert!(seen.iter().all(|s| s.method() == wire::REFRESH));
    rig.client.create_permission(rig.now, peer).unwrap();
    assert!(rig.try_request().is_none());
}

// Trap U2: pion says 401 for a denied peer.
#[test]
fn a_401_about_a_peer_is_no_end_of_the_allocation() {
    let mut rig = Rig::allocated();
    let peer = ip("10.1.2.3");
    rig.client.create_permission(rig.now, peer).unwrap();
    let request = rig.request();
    rig.answer(&request, Class::Error, true, |w| {
        w.attribute(&ErrorCode::new(401))
    });
    assert!(matches!(
        rig.event(),
        Some(Event::PermissionFailed {
            cause: Cause::Auth(_),
            ..
        })
    ));
    rig.permit("203.0.113.9");
}

// spec: SEC-C-04
#[test]
fn a_failing_permission_is_asked_for_with_growing_pauses() {
    let mut rig = Rig::allocated();
    let peer = ip("203.0.113.9");
    rig.client.create_permission(rig.now, peer).unwrap();
    let request = rig.request();
    rig.error(&request, 508);
    let seen = rig.run(400, |rig, request| rig.error(request, 508));
    let gaps: Vec<_> = seen
        .windows(2)
        .map(|pair| pair[1].at.duration_since(pair[0].at).as_secs())
        .collect();
    assert_eq!(seen[0].at.duration_since(at(0)).as_secs(), 5);
    assert_eq!(gaps[..5], [10, 20, 40, 60, 60]);
    // Told once, and again when it works.
    assert_eq!(rig.events().len(), 1);
    let seen = rig.run(500, |rig, request| rig.serve(request));
    assert!(!seen.is_empty());
    assert_eq!(rig.event(), Some(Event::PermissionCreated { peer }));
}

// spec: STUN-9.2.5-4, TURN-5-1
#[test]
fn one_new_nonce_serves_all_requests_under_way() {
    let mut rig = Rig::allocated();
    for peer in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        rig.client.create_permission(rig.now, ip(peer)).unwrap();
    }
    rig.client
        .bind_channel(rig.now, addr("203.0.113.4:1000"))
        .unwrap();
    let requests = rig.requests();
    assert_eq!(requests.len(), 4);
    let nonces = ["nonce-2", "nonce-3", "nonce-4", "nonce-5"];
    for (request, nonce) in requests.iter().zip(nonces) {
        rig.nonce = nonce;
        rig.challenge(request, 438);
    }
    // Each is sent once more, all with the first of the new nonces.
    let again = rig.requests();
    assert_eq!(again.len(), 4);
    for request in &again {
        assert_eq!(request.nonce(), Some(b"nonce-2".to_vec()));
        rig.ok(request);
    }
    assert!(rig.try_request().is_none());
}

// Trap T6: the bound on stale nonces starts anew with each request.
// spec: SEC-S-09
#[test]
fn nonces_may_expire_as_often_as_they_like_but_not_in_a_row() {
    let mut rig = Rig::allocated();
    for round in 0..20 {
        let seen = rig.advance((round + 1) * 540);
        rig.challenge(&seen[0], 438);
        let again = rig.request();
        rig.refresh_ok(&again, 600);
    }
    assert_eq!(rig.event(), None);
    let mut request = rig.advance(21 * 540)[0].clone();
    for _ in 0..3 {
        rig.challenge(&request, 438);
        request = rig.request();
    }
    rig.challenge(&request, 438);
    assert!(rig.try_request().is_none());
    // The allocation is not lost for that: another Refresh follows after a pause.
    assert_eq!(rig.event(), None);
    let again = rig.run(21 * 540 + 3, Rig::serve);
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0].at >= at(21 * 540 + 1));
    assert_eq!(rig.event(), None);
}

#[test]
fn a_released_permission_lapses() {
    let mut rig = Rig::allocated();
    let peer = ip("203.0.113.9");
    rig.permit("203.0.113.9");
    rig.client.release_permission(rig.now, peer);
    let seen = rig.run(299, |rig, request| rig.serve(request));
    assert!(seen.is_empty());
    assert!(rig.client.is_permitted(peer));
    rig.run(301, |rig, request| rig.serve(request));
    assert!(!rig.client.is_permitted(peer));
    // Taken up again in time it is refreshed at once.
    rig.events();
    rig.client.create_permission(rig.now, peer).unwrap();
    let request = rig.request();
    rig.ok(&request);
    rig.client.release_permission(rig.now, peer);
    rig.client.create_permission(rig.now, peer).unwrap();
    let seen = rig.run(302, |rig, request| rig.serve(request));
    assert_eq!(seen.len(), 1);
}

// spec: STUN-6.2-1, SEC-S-07
#[test]
fn no_more_than_ten_requests_are_under_way() {
    let mut rig = Rig::allocated();
    for n in 0..30 {
        let peer = IpAddr::from([203, 0, 113, n]);
        rig.client.create_permission(rig.now, peer).unwrap();
    }
    let mut open = rig.requests();
    assert_eq!(open.len(), 10);
    let mut served = 0;
    while let Some(request) = open.pop() {
        rig.ok(&request);
        served += 1;
        open.extend(rig.requests());
        assert!(open.len() <= 10);
    }
    assert_eq!(served, 30);
    assert_eq!(rig.events().len(), 30);
}

// spec: SEC-G-05
#[test]
fn limits_are_reached() {
    let mut rig = Rig::allocated();
    for n in 0..128 {
        let peer = IpAddr::from([203, 0, 113, n]);
        rig.client.create_permission(rig.now, peer).unwrap();
    }
    let peer = IpAddr::from([203, 0, 114, 0]);
    let full = rig.client.create_permission(rig.now, peer);
    assert_eq!(full, Err(ClientError::Limit));
    let full = rig.client.bind_channel(rig.now, SocketAddr::new(peer, 1));
    assert_eq!(full, Err(ClientError::Limit));
    // One that is there already is no matter.
    let peer = IpAddr::from([203, 0, 113, 5]);
    rig.client
        .bind_channel(rig.now, SocketAddr::new(peer, 1))
        .unwrap();
}

#[test]
fn commands_need_an_allocation_of_the_right_family() {
    let mut rig = Rig::new();
    let early = rig.client.create_permission(rig.now, ip("203.0.113.1"));
    assert_eq!(early, Err(ClientError::State));
    let mut rig = rig.allocate();
    let other = rig.client.create_permission(rig.now, ip("2001:db8::1"));
    assert_eq!(other, Err(ClientError::Family));
    let other = rig.client.bind_channel(rig.now, addr("[2001:db8::1]:5"));
    assert_eq!(other, Err(ClientError::Family));
    let port_0 = rig.client.bind_channel(rig.now, addr("203.0.113.1:0"));
    assert_eq!(port_0, Err(ClientError::Peer));
    assert!(rig.try_request().is_none());
}
