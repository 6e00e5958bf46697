//! Channels: numbers, refreshing, cooling down.

use super::*;

// spec: TURN-12-1, TURN-12.1-1, TURN-12-4, TURN-12.5-2
#[test]
fn a_channel_is_used_once_the_server_confirmed_it() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.client.bind_channel(rig.now, peer).unwrap();
    let request = rig.request();
    let number = request.channel().unwrap();
    assert!((0x4000..=0x4FFF).contains(&number));
    assert_eq!(request.peers(), [peer]);
    let channel = Channel::new(number).unwrap();
    // Data may come as soon as the request was sent.
    let got = rig.channel_data(channel, b"hi");
    assert_eq!(got, Some((peer, b"hi".to_vec())));
    let mut buf = [0; 100];
    let sent = rig.client.send(rig.now, peer, b"abc", &mut buf);
    assert_eq!(sent, Err(SendError::NoPermission));
    rig.ok(&request);
    let sent = rig.client.send(rig.now, peer, b"abc", &mut buf).unwrap();
    assert_eq!(sent.len, 7);
    assert_eq!(&buf[..2], number.to_be_bytes());
    assert_eq!(&buf[2..7], b"\0\x03abc");
    assert_eq!(
        rig.events(),
        [
            Event::ChannelBound { peer },
            Event::PermissionCreated { peer: peer.ip() },
        ]
    );
}

// Trap U13: channels that are not refreshed die after ten minutes. U9: the permission is
// refreshed every 240 s nevertheless.
// spec: TURN-12-2
#[test]
fn a_channel_is_kept_for_six_hours_with_its_permission() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    let channel = rig.bind("192.0.2.210:49191");
    let seen = rig.run(6 * 3600, |rig, request| rig.serve(request));
    let of = |method| {
        let same = seen.iter().filter(move |s| s.method() == method);
        same.map(|s| s.at).collect::<Vec<_>>()
    };
    let binds = of(wire::CHANNEL_BIND);
    assert_eq!(binds[..3], [at(480), at(960), at(1440)]);
    let permissions = of(wire::CREATE_PERMISSION);
    assert_eq!(permissions[..3], [at(240), at(720), at(1200)]);
    assert!(
        seen.iter()
            .filter_map(Seen::channel)
            .all(|n| n == channel.number())
    );
    let mut buf = [0; 100];
    let sent = rig.client.send(rig.now, peer, b"abc", &mut buf).unwrap();
    assert_eq!(sent.len, 7);
    assert!(rig.channel_data(channel, b"x").is_some());
    assert_eq!(rig.event(), None);
}

// Trap U11: a new number after a lost answer makes coturn refuse the peer.
// spec: TURN-12-5
#[test]
fn a_lost_answer_changes_nothing_about_the_pair() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.client.bind_channel(rig.now, peer).unwrap();
    let number = rig.request().channel().unwrap();
    let seen = rig.advance(100);
    assert!(seen.len() > 7, "tried again after the timeout");
    assert!(seen.iter().all(|s| s.channel() == Some(number)));
    let cause = Cause::Timeout;
    assert_eq!(rig.event(), Some(Event::ChannelFailed { peer, cause }));
    let seen = rig.run(160, |rig, request| rig.serve(request));
    assert_eq!(seen[0].channel(), Some(number));
    assert!(rig.events().contains(&Event::ChannelBound { peer }));
}

// Trap U12.
// spec: TURN-12-3
#[test]
fn an_expired_channel_rests_300_s_before_its_number_or_peer_is_used_otherwise() {
    let config = ClientConfig {
        max_channels: 4096,
        max_permissions: 5000,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp).allocate();
    let peer = addr("192.0.2.210:49191");
    let first = rig.bind("192.0.2.210:49191");
    rig.client.release_channel(rig.now, peer);
    // The other 4,095 numbers are taken.
    for n in 0..4095_u16 {
        let other = SocketAddr::new(ip("203.0.113.1"), n + 1);
        rig.client.bind_channel(rig.now, other).unwrap();
        for request in rig.requests() {
            assert_ne!(request.channel(), Some(first.number()));
            rig.ok(&request);
        }
    }
    let one_more = addr("203.0.113.2:1");
    let full = |rig: &mut Rig| rig.client.bind_channel(rig.now, one_more);
    assert_eq!(full(&mut rig), Err(ClientError::Limit));
    rig.run(899, |rig, request| rig.serve(request));
    assert_eq!(full(&mut rig), Err(ClientError::Limit));
    assert!(rig.channel_data(first, b"x").is_none());
    rig.run(900, |rig, request| rig.serve(request));
    full(&mut rig).unwrap();
    let request = rig.request();
    assert_eq!(request.channel(), Some(first.number()));
}

// spec: TURN-12-3
#[test]
fn the_same_pair_is_bound_again_at_once() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    let channel = rig.bind("192.0.2.210:49191");
    rig.client.release_channel(rig.now, peer);
    // Released channels still deliver until they expire, but nothing is sent over them.
    assert!(rig.channel_data(channel, b"x").is_some());
    rig.run(650, |rig, request| rig.serve(request));
    assert!(rig.channel_data(channel, b"x").is_none());
    rig.client.bind_channel(rig.now, peer).unwrap();
    assert_eq!(rig.request().channel(), Some(channel.number()));
}

// spec: TURN-12-5
#[test]
fn numbers_go_round() {
    let mut rig = Rig::allocated();
    let mut last = None;
    for n in 1..100 {
        let channel = rig.bind(&alloc::format!("203.0.113.1:{n}")).number();
        if let Some(last) = last {
            assert_eq!(channel & 0xFFF, (last + 1) & 0xFFF);
        }
        last = Some(channel);
    }
}

// spec: SEC-C-04
#[test]
fn a_forbidden_channel_is_not_asked_for_again() {
    for code in [403, 443] {
        let mut rig = Rig::allocated();
        let peer = addr("10.0.0.1:1000");
        rig.client.bind_channel(rig.now, peer).unwrap();
        let request = rig.request();
        rig.error(&request, code);
        let cause = Cause::Code(code);
        assert_eq!(rig.event(), Some(Event::ChannelFailed { peer, cause }));
        let seen = rig.run(500, |rig, request| rig.serve(request));
        assert!(seen.is_empty());
    }
}

// Trap U7: coturn before its pull request 2067.
#[test]
fn a_400_for_a_channel_is_looked_into_with_a_refresh() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.client.bind_channel(rig.now, peer).unwrap();
    let request = rig.request();
    rig.error(&request, 400);
    let cause = Cause::Code(400);
    assert_eq!(rig.event(), Some(Event::ChannelFailed { peer, cause }));
    let probe = rig.request();
    assert_eq!((probe.method(), probe.lifetime()), (wire::REFRESH, None));
    rig.error(&probe, 437);
    let cause = Cause::Code(437);
    assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
}

// spec: TURN-12.3-1
#[test]
fn two_peers_with_a_400_mean_that_the_sides_have_lost_sync() {
    let mut rig = Rig::allocated();
    for peer in ["192.0.2.210:1", "192.0.2.211:2"] {
        rig.client.bind_channel(rig.now, addr(peer)).unwrap();
    }
    let requests = rig.requests();
    rig.error(&requests[0], 400);
    rig.event();
    let probe = rig.request();
    rig.refresh_ok(&probe, 600);
    assert_eq!(rig.event(), None, "the first is not taken that seriously");
    rig.error(&requests[1], 400);
    let delete = rig.request();
    assert_eq!(delete.lifetime(), Some(0));
    rig.events();
    rig.refresh_ok(&delete, 0);
    let cause = Cause::OutOfSync;
    assert_eq!(rig.event(), Some(Event::AllocationLost { cause }));
    rig.assert_silent();
}

#[test]
fn a_channel_falls_back_to_indications_when_its_refresh_fails() {
    let mut rig = Rig::allocated();
    let peer = addr("192.0.2.210:49191");
    rig.bind("192.0.2.210:49191");
    // Permissions and the allocation are refreshed, the channel is not.
    rig.run(601, |rig, request| {
        if request.method() != wire::CHANNEL_BIND {
            rig.serve(request);
        }
    });
    let cause = Cause::Timeout;
    assert_eq!(rig.event(), Some(Event::ChannelFailed { peer, cause }));
    let mut buf = [0; 100];
    let sent = rig.client.send(rig.now, peer, b"abc", &mut buf).unwrap();
    let message = Message::parse(&buf[..sent.len]).unwrap();
    assert_eq!(message.method(), wire::SEND);
    // And back when the server answers again.
    rig.run(700, |rig, request| rig.serve(request));
    assert!(rig.events().contains(&Event::ChannelBound { peer }));
    let sent = rig.client.send(rig.now, peer, b"abc", &mut buf).unwrap();
    assert_eq!(sent.len, 7);
}

// spec: SEC-G-05
#[test]
fn the_limit_on_channels_counts_those_that_cool_down() {
    let config = ClientConfig {
        max_channels: 2,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp).allocate();
    rig.bind("203.0.113.1:1");
    rig.bind("203.0.113.1:2");
    rig.client.release_channel(rig.now, addr("203.0.113.1:2"));
    let third = addr("203.0.113.1:3");
    let full = rig.client.bind_channel(rig.now, third);
    assert_eq!(full, Err(ClientError::Limit));
}
