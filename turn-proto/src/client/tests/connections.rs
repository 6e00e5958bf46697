//! TCP connections to peers (RFC 6062).

use super::*;
use crate::wire::{ConnectionId, RequestedTransport};

const DATA: StreamId = StreamId(7);
const PEER: &str = "192.0.2.210:49191";

fn tcp() -> Rig {
    tcp_over(Rig::stream())
}

fn tcp_over(mut rig: Rig) -> Rig {
    let options = AllocateOptions {
        protocol: RelayProtocol::Tcp,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    let message = request.message();
    assert_eq!(message.find(), Some(RequestedTransport::TCP));
    rig.allocate_ok(&request);
    assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
    rig
}

fn connection_ok(rig: &mut Rig, request: &Seen) {
    rig.answer(request, Class::Success, true, |w| {
        w.attribute(&ConnectionId([0xDE, 0xAD, 0xBE, 0xEF]))
    });
}

/// A connection whose ConnectionBind is on its way.
fn binding(rig: &mut Rig) -> (Connection, Seen) {
    let connection = rig.client.connect_peer(rig.now, addr(PEER)).unwrap();
    let request = rig.request();
    assert_eq!(request.method(), wire::CONNECT);
    assert_eq!(request.peers(), [addr(PEER)]);
    connection_ok(rig, &request);
    let open = Action::OpenStream { connection };
    assert_eq!(rig.client.poll_action(), Some(open));
    rig.client
        .handle_stream_opened(rig.now, connection, DATA)
        .unwrap();
    let bind = rig.request();
    assert_eq!(bind.to, Path::Stream(DATA));
    assert_eq!(bind.method(), wire::CONNECTION_BIND);
    let id: ConnectionId = bind.message().find().unwrap();
    assert_eq!(id.0, [0xDE, 0xAD, 0xBE, 0xEF], "byte for byte");
    assert!(bind.message().has_integrity());
    (connection, bind)
}

// spec: 6062-4.3-1, 6062-4.2-1, 6062-4.5-1, 6062-4.6-1, TURN-STR-5
#[test]
fn a_connection_becomes_a_raw_stream_with_the_first_byte_behind_the_answer() {
    let mut whole = alloc::vec::Vec::new();
    for cut in 0..60 {
        let mut rig = tcp();
        let (connection, bind) = binding(&mut rig);
        let mut buf = [0; 100];
        let message = bind.message();
        let ty = MessageType::new(Class::Success, message.method());
        let len = Writer::new(&mut buf, ty, message.transaction_id())
            .integrity(rig.protection, &rig.key)
            .finish()
            .unwrap();
        whole.clear();
        whole.extend_from_slice(&buf[..len]);
        whole.extend_from_slice(b"\x40\x00raw bytes");
        let (mut first, mut rest) = whole.split_at(cut.min(whole.len()));
        let mut got = Vec::new();
        for input in [&mut first, &mut rest] {
            while !input.is_empty() {
                if let Received::Data { peer, data } =
                    rig.client.handle_stream(rig.now, DATA, input)
                {
                    assert_eq!(peer, addr(PEER));
                    got.extend_from_slice(data);
                }
            }
        }
        assert_eq!(got, b"\x40\x00raw bytes", "cut at {cut}");
        let ready = Event::ConnectionReady {
            connection,
            id: DATA,
            peer: addr(PEER),
        };
        assert_eq!(rig.event(), Some(ready));
        // Refreshing goes on over the control stream alone.
        let seen = rig.advance(540);
        assert!(seen.iter().all(|s| s.to == rig.path));
        rig.client.handle_stream_closed(rig.now, DATA);
        assert_eq!(rig.event(), Some(Event::ConnectionClosed { connection }));
    }
}

// spec: 6062-4.3-2
#[test]
fn one_connection_per_peer_and_ten_seconds_after_a_failure() {
    let mut rig = tcp();
    let peer = addr(PEER);
    let connection = rig.client.connect_peer(rig.now, peer).unwrap();
    let again = rig.client.connect_peer(rig.now, peer);
    assert_eq!(again, Err(ClientError::Connected));
    // Several at once to different peers are fine.
    rig.client
        .connect_peer(rig.now, addr("192.0.2.211:1"))
        .unwrap();
    let requests = rig.requests();
    assert_eq!(requests.len(), 2);
    rig.error(&requests[0], 447);
    let failed = Event::ConnectionFailed {
        connection,
        peer,
        cause: Cause::Code(447),
    };
    assert_eq!(rig.event(), Some(failed));
    rig.now = at(9);
    let early = rig.client.connect_peer(rig.now, peer);
    assert_eq!(early, Err(ClientError::TooEarly));
    rig.now = at(10);
    rig.client.connect_peer(rig.now, peer).unwrap();
}

// The server may take longer than a transaction to find out that nobody answers.
// spec: 6062-4.3-2
#[test]
fn a_connect_is_waited_for_longer_than_other_requests() {
    let mut rig = tcp();
    rig.client.connect_peer(rig.now, addr(PEER)).unwrap();
    rig.advance(60);
    assert_eq!(rig.event(), None);
    rig.advance(66);
    assert!(matches!(
        rig.event(),
        Some(Event::ConnectionFailed {
            cause: Cause::Timeout,
            ..
        })
    ));
}

fn attempt(rig: &mut Rig) -> Option<Connection> {
    let vector = "001c00142112a4420102030405060708090a0b0c002a0004deadbeef001200080001e135e112a690";
    let bytes = hex::decode(vector).unwrap();
    rig.input(&bytes);
    let event = rig.event()?;
    let Event::ConnectionAttempt { connection, peer } = event else {
        panic!("{event:?}");
    };
    assert_eq!(peer, addr(PEER));
    Some(connection)
}

// spec: 6062-4.4-1
#[test]
fn a_peers_connection_can_be_accepted_or_ignored() {
    let mut rig = tcp();
    assert_eq!(attempt(&mut rig), None, "without permission");
    assert_eq!(rig.client.stats().not_permitted, 1);
    rig.permit("192.0.2.210");
    let connection = attempt(&mut rig).unwrap();
    // The same number twice is one attempt.
    assert_eq!(attempt(&mut rig), None);
    rig.client.accept(rig.now, connection).unwrap();
    let accepted = rig.client.accept(rig.now, connection);
    assert_eq!(accepted, Err(ClientError::State));
    let open = Action::OpenStream { connection };
    assert_eq!(rig.client.poll_action(), Some(open));
    rig.client
        .handle_stream_opened(rig.now, connection, DATA)
        .unwrap();
    let bind = rig.request();
    rig.ok(&bind);
    assert!(matches!(rig.event(), Some(Event::ConnectionReady { .. })));
    let mut rig = tcp();
    rig.permit("192.0.2.210");
    let connection = attempt(&mut rig).unwrap();
    rig.client.ignore(rig.now, connection).unwrap();
    assert!(rig.requests().is_empty());
    assert_eq!(rig.client.poll_action(), None);
    assert_eq!(
        rig.client.ignore(rig.now, connection),
        Err(ClientError::State)
    );
}

// spec: 6062-5.3-2
#[test]
fn an_attempt_lapses_after_30_s() {
    let mut rig = tcp();
    rig.permit("192.0.2.210");
    let connection = attempt(&mut rig).unwrap();
    rig.advance(29);
    assert_eq!(rig.event(), None);
    rig.advance(30);
    assert!(matches!(
        rig.event(),
        Some(Event::ConnectionFailed {
            cause: Cause::Timeout,
            ..
        })
    ));
    assert_eq!(
        rig.client.accept(rig.now, connection),
        Err(ClientError::State)
    );
}

// Trap U19: coturn checks ConnectionBind with the nonce of the control stream, and drops the
// connection when that is stale.
#[test]
fn an_old_nonce_is_renewed_before_a_bind_depends_on_it() {
    let mut rig = tcp();
    rig.run(500, |rig, request| rig.serve(request));
    rig.permit("192.0.2.210");
    // That has just shown the nonce to be fresh.
    rig.client.release_permission(rig.now, ip("192.0.2.210"));
    let connection = attempt(&mut rig).unwrap();
    rig.client.accept(rig.now, connection).unwrap();
    assert!(rig.client.poll_action().is_some());

    // A stream on which nothing comes would be dead by the default.
    let patient = ClientConfig {
        stream_answer_timeout: secs(100),
        ..config()
    };
    let stream = Path::Stream(StreamId(1));
    let mut rig = tcp_over(Rig::with(patient, stream, Transport::Tcp));
    rig.permit("192.0.2.210");
    rig.advance(299);
    rig.events();
    let Some(connection) = attempt(&mut rig) else {
        panic!("no attempt");
    };
    rig.now = at(301);
    rig.client.accept(rig.now, connection).unwrap();
    assert_eq!(rig.client.poll_action(), None);
    let refresh = rig
        .requests()
        .into_iter()
        .find(|s| s.method() == wire::REFRESH)
        .expect("a refresh");
    rig.nonce = "nonce-2";
    rig.challenge(&refresh, 438);
    assert_eq!(rig.client.poll_action(), None);
    let again = rig.request();
    rig.refresh_ok(&again, 600);
    assert!(rig.client.poll_action().is_some());
    rig.client
        .handle_stream_opened(rig.now, connection, DATA)
        .unwrap();
    assert_eq!(rig.request().nonce(), Some(b"nonce-2".to_vec()));
}

// Trap T4: nonces belong to one stream.
// spec: 6062-D2
#[test]
fn the_nonce_of_a_data_stream_stays_there() {
    let mut rig = tcp();
    let (_, bind) = binding(&mut rig);
    rig.nonce = "nonce-of-the-data-stream";
    rig.challenge(&bind, 438);
    let again = rig.request();
    assert_eq!(again.to, Path::Stream(DATA));
    assert_eq!(again.nonce(), Some(rig.nonce.as_bytes().to_vec()));
    rig.ok(&again);
    assert!(matches!(rig.event(), Some(Event::ConnectionReady { .. })));
    let seen = rig.advance(540);
    assert_eq!(seen[0].nonce(), Some(b"nonce-1".to_vec()));
}

// spec: 6062-4.3-1
#[test]
fn what_goes_wrong_with_the_data_stream_ends_the_connection_only() {
    let close = Some(Action::CloseStream { id: DATA });
    let mut rig = tcp();
    let (_, bind) = binding(&mut rig);
    rig.error(&bind, 400);
    assert!(matches!(
        rig.event(),
        Some(Event::ConnectionFailed {
            cause: Cause::Code(400),
            ..
        })
    ));
    assert_eq!(rig.client.poll_action(), close);
    let mut rig = tcp();
    binding(&mut rig);
    rig.input_on(Path::Stream(DATA), b"HTTP/1.1 400");
    assert!(matches!(
        rig.event(),
        Some(Event::ConnectionFailed {
            cause: Cause::Framing(_),
            ..
        })
    ));
    assert_eq!(rig.client.poll_action(), close);
    let mut rig = tcp();
    binding(&mut rig);
    rig.client.handle_stream_closed(rig.now, DATA);
    assert!(matches!(
        rig.event(),
        Some(Event::ConnectionFailed {
            cause: Cause::StreamClosed,
            ..
        })
    ));
    assert_eq!(rig.client.poll_action(), None);
    let mut rig = tcp();
    let connection = rig.client.connect_peer(rig.now, addr(PEER)).unwrap();
    let request = rig.request();
    connection_ok(&mut rig, &request);
    rig.client.handle_stream_failed(rig.now, connection);
    assert!(matches!(rig.event(), Some(Event::ConnectionFailed { .. })));
    rig.permit("203.0.113.1");
}

// spec: 6062-5.5-1, SEC-G-18
#[test]
fn the_end_of_the_allocation_closes_its_connections() {
    let mut rig = tcp();
    let (_, bind) = binding(&mut rig);
    rig.ok(&bind);
    rig.client.poll_action();
    rig.client.close(rig.now);
    let close = Action::CloseStream { id: DATA };
    assert_eq!(rig.client.poll_action(), Some(close));
    let delete = rig.request();
    rig.refresh_ok(&delete, 0);
    assert_eq!(rig.events().last(), Some(&Event::Closed));
    rig.assert_silent();
}

// spec: SEC-G-05
#[test]
fn connections_are_limited() {
    let mut rig = tcp();
    rig.permit("192.0.2.210");
    for n in 0..32 {
        let peer = SocketAddr::new(ip("203.0.113.1"), n + 1);
        rig.client.connect_peer(rig.now, peer).unwrap();
    }
    let full = rig.client.connect_peer(rig.now, addr("203.0.113.2:1"));
    assert_eq!(full, Err(ClientError::Limit));
    assert_eq!(attempt(&mut rig), None);
    assert_eq!(rig.client.stats().dropped, 1);
}

// spec: 6062-D1
#[test]
fn an_allocation_for_tcp_relays_no_datagrams_and_one_for_udp_no_connections() {
    let mut rig = tcp();
    rig.permit("192.0.2.210");
    let mut buf = [0; 100];
    let sent = rig.client.send(rig.now, addr(PEER), b"x", &mut buf);
    assert_eq!(sent, Err(SendError::NoAllocation));
    let bound = rig.client.bind_channel(rig.now, addr(PEER));
    assert_eq!(bound, Err(ClientError::State));
    let mut rig = Rig::stream().allocate();
    let connected = rig.client.connect_peer(rig.now, addr(PEER));
    assert_eq!(connected, Err(ClientError::State));
    rig.permit("192.0.2.210");
    assert_eq!(attempt(&mut rig), None);
}
