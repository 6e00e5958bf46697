//! The stream to the server: framing, violations, loss.

use stun_proto::framing::FramingError;

use super::*;

const ID: StreamId = StreamId(1);

fn failed(rig: &mut Rig) -> Cause {
    match rig.event() {
        Some(Event::AllocateFailed { cause, .. } | Event::AllocationLost { cause }) => cause,
        other => panic!("{other:?}"),
    }
}

// Trap U30: a proxy answers in plain text, and 'H' looks like a channel.
// spec: TURN-STR-3, TURN-STR-1, SEC-F-05
#[test]
fn anything_but_stun_before_the_allocation_is_fatal() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x05\x01\x00\x00",
        b"\x40\x00\x00\x01x\0\0\0",
        b"\x80\0\0\0",
    ] {
        let mut rig = Rig::stream();
        rig.client
            .allocate(rig.now, AllocateOptions::default())
            .unwrap();
        rig.request();
        rig.input(bytes);
        assert!(matches!(failed(&mut rig), Cause::Framing(_)));
        let close = Action::CloseStream { id: ID };
        assert_eq!(rig.client.poll_action(), Some(close));
        rig.assert_silent();
    }
}

// spec: TURN-STR-1, SEC-F-05
#[test]
fn garbage_ends_an_allocation() {
    let mut rig = Rig::stream().allocate();
    rig.input(b"\xFF\0\0\0");
    assert_eq!(failed(&mut rig), Cause::Framing(FramingError::NotStun));
    assert!(rig.client.poll_action().is_some());
    rig.assert_silent();
}

// spec: SEC-F-03
#[test]
fn a_long_unit_before_the_allocation_is_fatal() {
    let mut rig = Rig::stream();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    rig.request();
    rig.input(b"\x01\x13\xFF\xFC\x21\x12\xA4\x42");
    assert_eq!(failed(&mut rig), Cause::Framing(FramingError::TooLong));
}

// spec: STUN-6.2.2-3, TURN-STR-4
#[test]
fn a_closed_stream_ends_everything() {
    let mut rig = Rig::stream();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    rig.client.handle_stream_closed(rig.now, ID);
    assert_eq!(failed(&mut rig), Cause::StreamClosed);
    rig.assert_silent();
    let mut rig = Rig::stream().allocate();
    rig.client.handle_stream_closed(rig.now, StreamId(99));
    assert_eq!(rig.event(), None);
    rig.client.handle_stream_closed(rig.now, ID);
    assert_eq!(failed(&mut rig), Cause::StreamClosed);
    rig.assert_silent();
    let mut rig = Rig::stream().allocate();
    rig.client.close(rig.now);
    rig.client.handle_stream_closed(rig.now, ID);
    assert_eq!(rig.event(), Some(Event::Closed));
}

// spec: STUN-6.2.2-1, STUN-6.2.2-2
#[test]
fn over_a_stream_nothing_is_sent_twice() {
    let mut rig = Rig::stream();
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    assert_eq!(rig.advance(39).len(), 1);
    assert_eq!(rig.event(), None);
    rig.advance(40);
    assert_eq!(failed(&mut rig), Cause::Timeout);
}

// spec: STUN-9.1.4-2
#[test]
fn over_a_stream_an_answer_without_integrity_ends_the_request_at_once() {
    let mut rig = Rig::stream();
    let request = rig.ask(AllocateOptions::default());
    rig.answer(&request, Class::Success, false, |w| {
        w.attribute(&XorRelayedAddress(addr("6.6.6.6:6")))
            .attribute(&Lifetime(600))
    });
    assert_eq!(failed(&mut rig), Cause::Integrity { code: None });
}

// Trap U14: unpadded ChannelData, or relayed padding, breaks everything that is not 4-aligned.
// spec: TURN-12.5-2, TURN-12.6-4
#[test]
fn channel_data_is_padded_on_streams_and_padding_is_not_delivered() {
    let mut rig = Rig::stream().allocate();
    let peer = addr("192.0.2.210:49191");
    let channel = rig.bind("192.0.2.210:49191");
    for len in 0..9 {
        let payload = alloc::vec![0xEE; len];
        let mut buf = [0x55; 100];
        let sent = rig.client.send(rig.now, peer, &payload, &mut buf).unwrap();
        assert_eq!(sent.to, Path::Stream(ID));
        assert_eq!(sent.len, 4 + len.next_multiple_of(4));
        assert!(buf[4 + len..sent.len].iter().all(|b| *b == 0));
        let got = rig.channel_data(channel, &payload);
        assert_eq!(got, Some((peer, payload)));
    }
}

// spec: TURN-STR-2
#[test]
fn data_is_delivered_before_its_padding_has_come() {
    let mut rig = Rig::stream().allocate();
    let peer = addr("192.0.2.210:49191");
    let channel = rig.bind("192.0.2.210:49191");
    let [c1, c0] = channel.number().to_be_bytes();
    let got = rig.input(&[c1, c0, 0, 1, b'x']);
    assert_eq!(got, Some((peer, b"x".to_vec())));
    let got = rig.input(&[0, 0, 0, c1, c0, 0, 1, b'y']);
    assert_eq!(got, Some((peer, b"y".to_vec())));
}

// spec: SEC-F-04
#[test]
fn a_unit_that_does_not_end_within_30_s_is_fatal() {
    let mut rig = Rig::stream().allocate();
    let channel = rig.bind("192.0.2.210:49191");
    let [c1, c0] = channel.number().to_be_bytes();
    rig.now = at(10);
    rig.input(&[c1, c0, 0, 100]);
    rig.now = at(20);
    rig.input(b"x");
    rig.advance(39);
    assert_eq!(rig.event(), None);
    rig.advance(40);
    assert_eq!(failed(&mut rig), Cause::Stalled);
    let close = Action::CloseStream { id: ID };
    assert_eq!(rig.client.poll_action(), Some(close));
    rig.assert_silent();
}

#[test]
fn messages_of_no_use_are_dropped_and_the_stream_goes_on() {
    let mut rig = Rig::stream().allocate();
    let ty = MessageType::new(Class::Success, Method::BINDING);
    let mut buf = [0; 20];
    let len = Writer::new(&mut buf, ty, TransactionId([3; 12]))
        .finish()
        .unwrap();
    rig.input(&buf[..len]);
    assert_eq!(rig.client.stats().dropped, 1);
    // A reserved channel number is dropped, too.
    rig.input(&[0x50, 0, 0, 1, 1, 0, 0, 0]);
    assert_eq!(rig.client.stats().not_permitted, 1);
    rig.permit("203.0.113.1");
}

fn kept(options: AllocateOptions) -> Rig {
    let config = ClientConfig::new(Some(Credentials::new("user", "secret")));
    let mut rig = Rig::with(config, Path::Stream(ID), Transport::Tls);
    let request = rig.ask(options);
    rig.answer(&request, Class::Success, true, |w| {
        let w = w
            .attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&XorMappedAddress(addr(MAPPED)))
            .attribute(&Lifetime(600));
        let ticket = crate::wire::MobilityTicket(b"ticket");
        w.maybe(options.mobility.then_some(&ticket))
    });
    assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
    rig
}

#[test]
fn an_idle_stream_is_asked_for_life_every_10_s_by_default() {
    let mut rig = kept(AllocateOptions::default());
    let seen = rig.run(61, |rig, request| rig.serve(request));
    let times: Vec<_> = seen.iter().map(|s| s.at).collect();
    assert_eq!(times, [at(10), at(20), at(30), at(40), at(50), at(60)]);
    assert!(seen.iter().all(|s| s.method() == wire::REFRESH));
    assert_eq!(rig.event(), None);
}

#[test]
fn a_stream_that_brings_data_is_not_asked_for_life() {
    let mut rig = kept(AllocateOptions::default());
    let channel = rig.bind("192.0.2.210:49191");
    for second in 1..20 {
        assert!(rig.advance(5 * second).is_empty());
        rig.channel_data(channel, b"x");
    }
}

#[test]
fn a_stream_that_answers_nothing_for_15_s_is_dead() {
    let mut rig = kept(AllocateOptions::default());
    rig.permit("192.0.2.150");
    let mut buf = [0; 100];
    // What is sent proves nothing.
    for second in 1..25 {
        rig.advance(second);
        let peer = addr("192.0.2.150:1");
        rig.client.send(rig.now, peer, b"x", &mut buf).unwrap();
    }
    assert_eq!(rig.event(), None);
    rig.advance(25);
    assert_eq!(failed(&mut rig), Cause::Timeout);
    let close = Action::CloseStream { id: ID };
    assert_eq!(rig.client.poll_action(), Some(close));
    rig.assert_silent();
}

#[test]
fn a_stream_that_brings_data_lives_although_a_request_is_not_answered() {
    let mut rig = kept(AllocateOptions::default());
    let channel = rig.bind("192.0.2.210:49191");
    let peer = ip("192.0.2.211");
    rig.client.create_permission(rig.now, peer).unwrap();
    for second in 1..39 {
        rig.advance(second);
        rig.channel_data(channel, b"x");
    }
    assert_eq!(rig.event(), None);
}

#[test]
fn without_keep_alive_a_request_without_answer_tells_that_the_stream_is_dead() {
    let mut rig = Rig::stream().allocate();
    rig.advance(554);
    assert_eq!(rig.event(), None);
    rig.advance(555);
    assert_eq!(failed(&mut rig), Cause::Timeout);
}

#[test]
fn a_dead_stream_of_a_mobile_allocation_is_a_lost_path() {
    let mut rig = kept(AllocateOptions {
        mobility: true,
        ..AllocateOptions::default()
    });
    rig.advance(25);
    assert_eq!(rig.event(), Some(Event::PathLost));
    let close = Action::CloseStream { id: ID };
    assert_eq!(rig.client.poll_action(), Some(close));
    rig.client.handle_stream_closed(rig.now, ID);
    let new = Path::Stream(StreamId(2));
    let moved = rig.client.path_changed(rig.now, new, Transport::Tls);
    assert_eq!(moved, Ok(()));
    let request = rig.request();
    rig.refresh_ok(&request, 600);
    assert_eq!(rig.event(), Some(Event::PathChanged));
}

#[test]
fn an_allocation_is_given_back_over_a_dead_stream_within_15_s() {
    let mut rig = kept(AllocateOptions::default());
    rig.client.close(rig.now);
    rig.advance(14);
    assert_eq!(rig.event(), None);
    rig.advance(15);
    assert_eq!(rig.event(), Some(Event::Closed));
}

#[test]
fn a_peer_that_is_slow_to_connect_does_not_make_the_stream_dead() {
    let mut rig = kept(AllocateOptions {
        protocol: RelayProtocol::Tcp,
        ..AllocateOptions::default()
    });
    let peer = addr("192.0.2.210:5000");
    rig.client.connect_peer(rig.now, peer).unwrap();
    let refresh = |rig: &mut Rig, request: &Seen| {
        if request.method() == wire::REFRESH {
            rig.refresh_ok(request, 600);
        }
    };
    rig.run(60, refresh);
    assert_eq!(rig.event(), None);
}
