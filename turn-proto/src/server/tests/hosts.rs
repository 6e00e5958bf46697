//! What hosts with several servers need.

use core::cell::RefCell;

use super::*;
use crate::server::Admission;

/// Users whose allocations are counted outside the server.
#[derive(Debug)]
struct Counted {
    users: StaticUsers,
    answer: RefCell<Admission>,
    held: RefCell<Vec<Vec<u8>>>,
}

impl Users for Counted {
    fn key(&self, query: &KeyQuery<'_>) -> Lookup {
        self.users.key(query)
    }

    fn admit(&self, username: &[u8]) -> Admission {
        let answer = *self.answer.borrow();
        if answer == Admission::Admitted {
            self.held.borrow_mut().push(username.to_vec());
        }
        answer
    }

    fn release(&self, username: &[u8]) {
        let mut held = self.held.borrow_mut();
        let index = held.iter().position(|name| name == username).unwrap();
        held.remove(index);
    }
}

/// A server of such users, and the nonce of one client.
struct Host {
    server: Server<Counted>,
    now: Instant,
    rig: Rig,
}

impl Host {
    fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut users = StaticUsers::new(REALM);
        users.add("alice", "secret");
        let mut config = ServerConfig::new(REALM);
        change(&mut config);
        let users = Counted {
            users,
            answer: RefCell::new(Admission::Admitted),
            held: RefCell::default(),
        };
        let now = Instant::ZERO + secs(1_000_000);
        Self {
            server: Server::new(config, users, [3; 32], now).unwrap(),
            now,
            rig: Rig::new(),
        }
    }

    fn held(&mut self) -> usize {
        self.server.users_mut().held.borrow().len()
    }

    fn answer(&mut self) -> Option<u16> {
        let mut buf = [0; MAX_TRANSMIT];
        let sent = self.server.poll_transmit(&mut buf)?;
        if let Some(nonce) = Message::parse(&buf[..sent.len])
            .unwrap()
            .find::<Nonce<'_>>()
        {
            self.rig.nonce = nonce.as_bytes().to_vec();
        }
        Some(code_of(&buf[..sent.len]))
    }

    /// Asks for an allocation; the answer, if there is one at once.
    fn allocate(&mut self, n: u16) -> Option<u16> {
        self.rig.nonce.clear();
        for _ in 0..2 {
            let request = self.rig.signed(ALICE, wire::ALLOCATE, |w| {
                w.attribute(&RequestedTransport::UDP)
            });
            self.server.handle_datagram(self.now, client(n), &request);
            match self.answer() {
                Some(401 | 438) => {}
                answer => return answer,
            }
        }
        panic!("challenged twice");
    }

    fn relay(&mut self) -> RelayId {
        loop {
            if let Action::OpenRelay { relay, .. } = self.server.poll_action().unwrap() {
                return relay;
            }
        }
    }
}

#[test]
fn a_host_may_refuse_allocations_with_486_or_508() {
    let mut host = Host::new(|_| {});
    for (answer, code) in [(Admission::QuotaReached, 486), (Admission::NoCapacity, 508)] {
        *host.server.users_mut().answer.borrow_mut() = answer;
        assert_eq!(host.allocate(1), Some(code));
        assert_eq!((host.held(), host.server.allocations()), (0, 0));
    }
    assert_eq!(host.server.stats().limited, 2);
}

#[test]
fn what_is_admitted_is_released_once_however_it_ends() {
    let mut host = Host::new(|config| config.ports = 50_000..=50_001);
    // Opened, and ended by the host.
    assert_eq!(host.allocate(1), None);
    let relay = host.relay();
    host.server
        .relay_opened(host.now, relay, addr("203.0.113.1:50000"));
    assert_eq!((host.answer(), host.held()), (Some(0), 1));
    // The relay cannot be opened.
    assert_eq!((host.allocate(2), host.held()), (None, 2));
    let failed = host.relay();
    host.server.relay_failed(host.now, failed);
    assert_eq!((host.answer(), host.held()), (Some(508), 1));
    // Another one takes the last port, so that there is none to ask the host for.
    assert_eq!((host.allocate(3), host.held()), (None, 2));
    assert_eq!((host.allocate(4), host.held()), (Some(508), 2));
    host.server.close_allocation(host.now, relay);
    assert_eq!(host.held(), 1);
    // The third one is never opened.
    host.now += secs(6);
    host.server.handle_timeout(host.now);
    assert_eq!((host.held(), host.server.allocations()), (0, 0));
}

#[test]
fn connections_say_whose_they_are() {
    let mut rig = Rig::with(|config| {
        config.relay_tcp = true;
        config.instance = Some(0xA7);
    });
    let at = FiveTuple {
        transport: Transport::Tcp,
        ..client(1)
    };
    let stream = StreamId(1);
    rig.server.stream_opened(rig.now, stream, at).unwrap();
    let mut numbers = Vec::new();
    let ask = |rig: &mut Rig, method, peer: Option<&str>| {
        let peer = peer.map(|peer| XorPeerAddress(addr(peer)));
        let request = rig.signed(ALICE, method, |w| match &peer {
            Some(peer) => w.attribute(peer),
            None => w.attribute(&RequestedTransport::TCP),
        });
        let mut input = &request[..];
        rig.server.handle_stream(rig.now, stream, &mut input);
        let Some((_, answer)) = rig.answer() else {
            return 0;
        };
        if let Some(nonce) = Message::parse(&answer).unwrap().find::<Nonce<'_>>() {
            rig.nonce = nonce.as_bytes().to_vec();
        }
        code_of(&answer)
    };
    assert_eq!(ask(&mut rig, wire::ALLOCATE, None), 438);
    assert_eq!(ask(&mut rig, wire::ALLOCATE, None), 0);
    for peer in ["9.9.9.1:80", "9.9.9.2:80", "9.9.9.3:80"] {
        assert_eq!(ask(&mut rig, wire::CONNECT, Some(peer)), 0);
        let Some(Action::ConnectPeer { peer, .. }) = rig.actions.pop() else {
            panic!("{:?}", rig.actions);
        };
        rig.server.peer_connected(rig.now, peer);
        let (_, answer) = rig.answer().unwrap();
        let number: crate::wire::ConnectionId = Message::parse(&answer).unwrap().find().unwrap();
        numbers.push(number.0);
    }
    assert!(numbers.iter().all(|number| number[0] == 0xA7));
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3);
}
