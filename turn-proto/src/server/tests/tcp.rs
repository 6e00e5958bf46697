//! TCP relays (RFC 6062).

use super::*;
use crate::wire::ConnectionId;

const PEER: &str = "9.9.9.9:80";

/// A server with TCP relays, and streams to it.
struct Tcp {
    rig: Rig,
    next: u64,
}

impl Tcp {
    fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let rig = Rig::with(|config| {
            config.relay_tcp = true;
            change(config);
        });
        Self { rig, next: 0 }
    }

    fn open(&mut self) -> StreamId {
        self.next += 1;
        let id = StreamId(self.next);
        let at = FiveTuple {
            transport: Transport::Tcp,
            ..client(4000 + self.next as u16)
        };
        self.rig.server.stream_opened(self.rig.now, id, at).unwrap();
        id
    }

    fn feed(&mut self, id: StreamId, mut input: &[u8]) {
        while !input.is_empty() {
            let taken = self.rig.server.handle_stream(self.rig.now, id, &mut input);
            assert_eq!(taken, Received::Consumed);
        }
    }

    /// Sends a request on a stream, with the nonce it has or gets; the answer.
    fn ask(
        &mut self,
        id: StreamId,
        user: (&str, &str),
        method: Method,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b> + Copy,
    ) -> Option<Vec<u8>> {
        for _ in 0..2 {
            let request = self.rig.signed(user, method, attributes);
            self.feed(id, &request);
            let (to, answer) = self.rig.answer()?;
            assert_eq!(to, Path::Stream(id));
            if ![401, 438].contains(&code_of(&answer)) {
                return Some(answer);
            }
            let nonce: Nonce<'_> = Message::parse(&answer).unwrap().find().unwrap();
            self.rig.nonce = nonce.as_bytes().to_vec();
        }
        panic!("challenged twice");
    }

    /// A control connection with an allocation.
    fn control(&mut self) -> (StreamId, RelayId) {
        let id = self.open();
        let answer = self.ask(id, ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::TCP)
        });
        assert_eq!(code_of(&answer.unwrap()), 0);
        loop {
            if let Event::AllocationCreated { relay, .. } = self.rig.server.poll_event().unwrap() {
                return (id, relay);
            }
        }
    }

    fn connect(&mut self, id: StreamId, to: &str) -> Option<Vec<u8>> {
        let peer = XorPeerAddress(addr(to));
        self.ask(id, ALICE, wire::CONNECT, |w| w.attribute(&peer))
    }

    fn action(&mut self) -> Option<Action> {
        self.rig.answer();
        if self.rig.actions.is_empty() {
            None
        } else {
            Some(self.rig.actions.remove(0))
        }
    }

    /// The connection the server wants opened.
    fn wanted(&mut self) -> PeerId {
        loop {
            if let Action::ConnectPeer { peer, .. } = self.action().unwrap() {
                return peer;
            }
        }
    }

    /// Everything the server wants done.
    fn actions(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.action()).collect()
    }

    /// Connects to a peer and learns the number of the connection.
    fn connected(&mut self, id: StreamId, to: &str) -> (PeerId, ConnectionId) {
        assert_eq!(self.connect(id, to), None);
        let peer = self.wanted();
        self.rig.server.peer_connected(self.rig.now, peer);
        let (to, answer) = self.rig.answer().unwrap();
        assert_eq!((to, code_of(&answer)), (Path::Stream(id), 0));
        let number = Message::parse(&answer).unwrap().find().unwrap();
        (peer, number)
    }

    fn bind(&mut self, user: (&str, &str), number: ConnectionId) -> (StreamId, u16) {
        let id = self.open();
        let answer = self.ask(id, user, wire::CONNECTION_BIND, |w| w.attribute(&number));
        (id, code_of(&answer.unwrap()))
    }
}

fn new() -> Tcp {
    Tcp::with(|_| {})
}

// spec: 6062-5.1-1
#[test]
fn tcp_relays_are_for_stream_clients_without_wishes_for_datagrams() {
    let tcp = RequestedTransport::TCP;
    let with = || Rig::with(|config| config.relay_tcp = true);
    assert_eq!(Rig::new().allocate_code(|w| w.attribute(&tcp)), 442);
    assert_eq!(with().allocate_code(|w| w.attribute(&tcp)), 400);
    let mut rig = Rig::with(|config| {
        config.relay_tcp = true;
        config.relay_udp = false;
    });
    assert_eq!(
        rig.allocate_code(|w| w.attribute(&RequestedTransport::UDP)),
        403
    );
    let mut rig = new();
    let id = rig.open();
    let ask = |rig: &mut Tcp, ty: u16, value: &'static [u8]| {
        let ty = stun_proto::wire::AttributeType(ty);
        let answer = rig.ask(id, ALICE, wire::ALLOCATE, |w| {
            w.attribute(&RequestedTransport::TCP).raw(ty, value)
        });
        code_of(&answer.unwrap())
    };
    for (ty, value) in [(0x001A, &[][..]), (0x0018, &[0]), (0x0022, &[0; 8])] {
        assert_eq!(ask(&mut rig, ty, value), 400);
    }
    // A second family is not looked at.
    assert_eq!(ask(&mut rig, 0x8000, &[2, 0, 0, 0]), 0);
    assert_eq!(rig.rig.server.allocations(), 1);
}

// spec: 6062-5.2-1, 6062-D1
#[test]
fn connect_is_answered_when_the_peer_is() {
    let mut rig = new();
    let lonely = rig.open();
    assert_eq!(code_of(&rig.connect(lonely, PEER).unwrap()), 437);
    let (id, relay) = rig.control();
    let answer = rig.ask(id, ALICE, wire::CONNECT, |w| w);
    assert_eq!(code_of(&answer.unwrap()), 400);
    assert_eq!(code_of(&rig.connect(id, "192.0.2.9:80").unwrap()), 403);
    assert_eq!(code_of(&rig.connect(id, "9.9.9.9:0").unwrap()), 403);
    // No permission is needed.
    assert_eq!(rig.connect(id, PEER), None);
    assert!(matches!(
        rig.action(),
        Some(Action::ConnectPeer { relay: from, to, .. }) if from == relay && to == addr(PEER)
    ));
    assert_eq!(code_of(&rig.connect(id, PEER).unwrap()), 446);

    // Refused, and given up after 30 s.
    let mut rig = new();
    let (id, _) = rig.control();
    assert_eq!(rig.connect(id, PEER), None);
    let peer = rig.wanted();
    rig.rig.server.peer_closed(rig.rig.now, peer);
    assert_eq!(code_of(&rig.rig.answer().unwrap().1), 447);
    assert_eq!(rig.connect(id, PEER), None);
    rig.rig.advance(29);
    assert_eq!(rig.rig.answer(), None);
    rig.rig.advance(1);
    assert_eq!(code_of(&rig.rig.answer().unwrap().1), 447);
    rig.wanted();
    assert!(matches!(rig.action(), Some(Action::ClosePeer { .. })));

    // Connected and bound: still the same peer only once.
    let mut rig = new();
    let (id, _) = rig.control();
    let (_, first) = rig.connected(id, PEER);
    assert_eq!(code_of(&rig.connect(id, PEER).unwrap()), 446);
    assert_eq!(rig.bind(ALICE, first).1, 0);
    assert_eq!(code_of(&rig.connect(id, PEER).unwrap()), 446);
    let (_, second) = rig.connected(id, "9.9.9.9:81");
    assert_ne!(first, second);
}

// spec: 6062-5.4-1, 6062-D2, SEC-T-08, TURN-5-2
#[test]
fn a_new_stream_takes_a_connection_over_once() {
    let mut rig = new();
    let (control, _) = rig.control();
    let (peer, number) = rig.connected(control, PEER);
    let on_control = rig.ask(control, ALICE, wire::CONNECTION_BIND, |w| {
        w.attribute(&number)
    });
    assert_eq!(code_of(&on_control.unwrap()), 400);
    assert_eq!(rig.bind(ALICE, ConnectionId([1, 2, 3, 4])).1, 400);
    assert_eq!(rig.bind(BOB, number).1, 441);
    let missing = rig.open();
    let answer = rig.ask(missing, ALICE, wire::CONNECTION_BIND, |w| w);
    assert_eq!(code_of(&answer.unwrap()), 400);
    // Not on a stream that carried something else first.
    let other = rig.open();
    rig.ask(other, ALICE, wire::REFRESH, |w| w);
    let answer = rig.ask(other, ALICE, wire::CONNECTION_BIND, |w| {
        w.attribute(&number)
    });
    assert_eq!(code_of(&answer.unwrap()), 400);
    // Not over datagrams.
    let at = client(1);
    rig.rig.learn_nonce(at);
    let answer = rig
        .rig
        .ask(at, wire::CONNECTION_BIND, |w| w.attribute(&number));
    assert_eq!(code_of(&answer), 400);
    // The number has survived all this, the challenges included.
    rig.rig.actions.clear();
    let (data, code) = rig.bind(ALICE, number);
    assert_eq!(code, 0);
    let splice = Action::Splice { peer, stream: data };
    assert_eq!(rig.action(), Some(splice));
    assert_eq!(rig.bind(ALICE, number).1, 400);
    // What follows on that stream is the peer's, whatever it looks like.
    let mut input = &b"\0\x03GET /"[..];
    let taken = rig.rig.server.handle_stream(rig.rig.now, data, &mut input);
    assert_eq!(taken, Received::NotMine);
    assert_eq!(input.len(), 7);
    // The time for streams without allocation does not end it.
    rig.rig.advance(100);
    rig.rig.actions.clear();
    rig.rig.server.peer_closed(rig.rig.now, peer);
    let reason = CloseReason::PeerClosed;
    let close = Action::CloseStream { id: data, reason };
    assert!(rig.actions().contains(&close));
}

// spec: 6062-5.2-2, 6062-4.5-1
#[test]
fn bytes_behind_connection_bind_in_one_read_are_left_for_the_peer() {
    let mut rig = new();
    let (control, _) = rig.control();
    let (_, number) = rig.connected(control, PEER);
    let id = rig.open();
    let mut bytes = rig
        .rig
        .signed(ALICE, wire::CONNECTION_BIND, |w| w.attribute(&number));
    let end = bytes.len();
    bytes.extend(b"early data");
    // The first read ends inside the request, the second three bytes behind it.
    let (mut first, mut second) = bytes[..end + 3].split_at(end - 1);
    let (now, server) = (rig.rig.now, &mut rig.rig.server);
    let taken = server.handle_stream(now, id, &mut first);
    assert_eq!((taken, first), (Received::Consumed, &b""[..]));
    let taken = server.handle_stream(now, id, &mut second);
    assert_eq!((taken, second), (Received::Consumed, &b"ear"[..]));
    let taken = server.handle_stream(now, id, &mut second);
    assert_eq!((taken, second), (Received::NotMine, &b"ear"[..]));
    let answer = rig.rig.answer().unwrap().1;
    assert_eq!(code_of(&answer), 0);
}

// spec: 6062-5.3-1, 6062-5.3-2
#[test]
fn peers_with_permission_are_announced_and_closed_after_30_s() {
    let mut rig = new();
    let (control, relay) = rig.control();
    let from = addr(PEER);
    let now = rig.rig.now;
    assert_eq!(rig.rig.server.peer_accepted(now, relay, from), None);
    let permission = XorPeerAddress(addr("9.9.9.9:1"));
    rig.ask(control, ALICE, wire::CREATE_PERMISSION, |w| {
        w.attribute(&permission)
    });
    let peer = rig.rig.server.peer_accepted(now, relay, from).unwrap();
    let (to, bytes) = rig.rig.answer().unwrap();
    assert_eq!(to, Path::Stream(control));
    let message = Message::parse(&bytes).unwrap();
    let attempt = MessageType::indication(wire::CONNECTION_ATTEMPT);
    assert_eq!(message.message_type(), attempt);
    assert_eq!(message.find(), Some(XorPeerAddress(from)));
    let number: ConnectionId = message.find().unwrap();
    // The same peer address has one connection.
    assert_eq!(rig.rig.server.peer_accepted(now, relay, from), None);
    rig.rig.advance(29);
    assert_eq!(rig.action(), None);
    rig.rig.advance(1);
    assert_eq!(rig.action(), Some(Action::ClosePeer { peer }));
    assert_eq!(rig.bind(ALICE, number).1, 400);
    // A connection taken over stays.
    let now = rig.rig.now;
    let peer = rig.rig.server.peer_accepted(now, relay, from).unwrap();
    let bytes = rig.rig.answer().unwrap().1;
    let number = Message::parse(&bytes).unwrap().find().unwrap();
    rig.rig.actions.clear();
    let (stream, code) = rig.bind(ALICE, number);
    assert_eq!(code, 0);
    rig.rig.advance(31);
    let actions = rig.actions();
    assert!(actions.contains(&Action::Splice { peer, stream }));
    assert!(!actions.contains(&Action::ClosePeer { peer }));
}

// spec: 6062-5.5-1, TURN-STR-4
#[test]
fn connections_end_with_their_allocation_and_with_either_side() {
    let mut rig = new();
    let (control, _) = rig.control();
    let (bound, number) = rig.connected(control, PEER);
    let (data, _) = rig.bind(ALICE, number);
    let (unbound, _) = rig.connected(control, "9.9.9.9:81");
    assert_eq!(rig.connect(control, "9.9.9.9:82"), None);
    rig.rig.answer();
    rig.rig.actions.clear();
    rig.rig.server.handle_stream_closed(rig.rig.now, control);
    let closed = rig.actions();
    let reason = CloseReason::PeerClosed;
    for expected in [
        Action::ClosePeer { peer: bound },
        Action::CloseStream { id: data, reason },
        Action::ClosePeer { peer: unbound },
    ] {
        assert!(closed.contains(&expected), "{closed:?}");
    }
    assert_eq!(rig.rig.deleted(), Some(DeleteReason::StreamClosed));
    assert_eq!(rig.rig.server.poll_timeout(), None);

    // The client closes its data connection.
    let mut rig = new();
    let (control, _) = rig.control();
    let (peer, number) = rig.connected(control, PEER);
    let (data, _) = rig.bind(ALICE, number);
    rig.rig.answer();
    rig.rig.actions.clear();
    rig.rig.server.handle_stream_closed(rig.rig.now, data);
    assert_eq!(rig.action(), Some(Action::ClosePeer { peer }));
    // The address is free again.
    assert_eq!(rig.connect(control, PEER), None);
    // Expiry.
    rig.wanted();
    rig.rig.advance(600);
    assert_eq!(rig.rig.server.allocations(), 0);
}

// spec: SEC-T-06, SEC-G-05
#[test]
fn connections_are_limited() {
    let mut rig = Tcp::with(|config| {
        config.limits.pending_connects = 2;
        config.limits.peer_connections = 3;
        config.limits.unbound_connections = 3;
    });
    let (control, relay) = rig.control();
    let peer = |n: u16| alloc::format!("9.9.9.9:{n}");
    assert_eq!(rig.connect(control, &peer(1)), None);
    assert_eq!(rig.connect(control, &peer(2)), None);
    assert_eq!(code_of(&rig.connect(control, &peer(3)).unwrap()), 508);
    for _ in 0..2 {
        let wanted = rig.wanted();
        rig.rig.server.peer_connected(rig.rig.now, wanted);
        rig.rig.answer().unwrap();
    }
    assert_eq!(rig.connect(control, &peer(3)), None);
    assert_eq!(code_of(&rig.connect(control, &peer(4)).unwrap()), 508);
    let permission = XorPeerAddress(addr("9.9.9.9:1"));
    rig.ask(control, ALICE, wire::CREATE_PERMISSION, |w| {
        w.attribute(&permission)
    });
    let from = addr("9.9.9.9:5");
    let now = rig.rig.now;
    assert_eq!(rig.rig.server.peer_accepted(now, relay, from), None);
    // One fails, one more may come.
    let wanted = rig.wanted();
    rig.rig.server.peer_closed(now, wanted);
    assert!(rig.rig.server.peer_accepted(now, relay, from).is_some());
}

// spec: 6062-D1
#[test]
fn datagrams_do_not_pass_a_tcp_relay() {
    let mut rig = new();
    let (control, relay) = rig.control();
    let peer = XorPeerAddress(addr(PEER));
    rig.ask(control, ALICE, wire::CREATE_PERMISSION, |w| {
        w.attribute(&peer)
    });
    let answer = rig.ask(control, ALICE, wire::CHANNEL_BIND, |w| {
        w.attribute(&ChannelNumber(0x4000)).attribute(&peer)
    });
    assert_eq!(code_of(&answer.unwrap()), 403);
    let mut buf = [0; 100];
    let len = Writer::new(&mut buf, MessageType::indication(wire::SEND), rig.rig.id())
        .attribute(&peer)
        .attribute(&Data(b"x"))
        .finish();
    rig.feed(control, &buf[..len.unwrap()]);
    let now = rig.rig.now;
    assert!(
        rig.rig
            .server
            .handle_relay(now, relay, addr(PEER), 1)
            .is_none()
    );
    // And a UDP allocation connects nowhere.
    let id = rig.open();
    rig.ask(id, ALICE, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    assert_eq!(code_of(&rig.connect(id, PEER).unwrap()), 400);
}

#[test]
fn the_nonce_of_the_control_connection_serves_the_data_connection() {
    let mut tcp = new();
    let (control, _) = tcp.control();
    let (_, number) = tcp.connected(control, PEER);
    let data = tcp.open();
    let request = (tcp.rig).signed(ALICE, wire::CONNECTION_BIND, |w| w.attribute(&number));
    tcp.feed(data, &request);
    let (to, answer) = tcp.rig.answer().unwrap();
    assert_eq!((to, code_of(&answer)), (Path::Stream(data), 0));
}

#[test]
fn a_nonce_over_udp_is_for_one_port_and_over_tcp_for_one_address() {
    let mut tcp = new();
    tcp.rig.learn_nonce(client(1));
    let request = tcp.rig.signed(ALICE, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    assert_eq!(code_of(&tcp.rig.send(client(2), &request).unwrap()), 438);
    let (_, _) = tcp.control();
    let elsewhere = StreamId(90);
    let at = FiveTuple {
        transport: Transport::Tcp,
        local: client(1).local,
        remote: addr("192.0.2.99:4000"),
    };
    (tcp.rig.server.stream_opened(tcp.rig.now, elsewhere, at)).unwrap();
    let request = tcp.rig.signed(ALICE, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::TCP)
    });
    tcp.feed(elsewhere, &request);
    let (_, answer) = tcp.rig.answer().unwrap();
    assert_eq!(code_of(&answer), 438);
}
