//! Anything at all, from anyone, in any order.

use alloc::collections::BTreeSet;
use alloc::vec;

use proptest::prelude::*;

use super::world::*;

use super::super::*;

#[derive(Clone, Debug)]
enum Op {
    Accept(bool),
    Bytes(usize, Vec<u8>),
    Lines(usize, Vec<usize>, usize),
    Eof(usize),
    Close(usize),
    Datagram(bool, Vec<usize>),
    Connected(usize, bool),
    Key,
    User(bool),
    Stick(usize),
    Read(usize, usize),
    Wait(u64),
    ShutDown,
}

/// What messages are made of.
const LINES: [&str; 24] = [
    "REGISTER sip:ims.example.com SIP/2.0\r\n",
    "REGISTER sip:out.example.com SIP/2.0\r\n",
    "MESSAGE sip:alice@ims.example.com SIP/2.0\r\n",
    "INVITE sip:alice@ims.example.com SIP/2.0\r\n",
    "INVITE sip:bob@out.example.com SIP/2.0\r\n",
    "CANCEL sip:alice@ims.example.com SIP/2.0\r\n",
    "ACK sip:alice@ims.example.com SIP/2.0\r\n",
    "SIP/2.0 200 OK\r\n",
    "Via: SIP/2.0/TCP h;branch=z9hG4bK1;rport;keep\r\n",
    "Via: SIP/2.0/TCP h;branch=z9hG4bK2\r\n",
    "From: <sip:alice@ims.example.com>;tag=1\r\n",
    "To: <sip:alice@ims.example.com>\r\n",
    "Call-ID: x\r\n",
    "CSeq: 1 REGISTER\r\n",
    "CSeq: 2 INVITE\r\n",
    "CSeq: 3 MESSAGE\r\n",
    "Contact: <sip:alice@10.0.0.2;ob>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-4000-8000-000000000001>\"\r\n",
    "Supported: path, outbound, gruu\r\n",
    "Route: <sip:203.0.113.40;lr>\r\n",
    "Max-Forwards: 0\r\n",
    "Content-Length: 0\r\n",
    "\r\n",
    "\r\n\r\n",
    "GET / HTTP/1.1\r\n",
];

/// A whole REGISTER or request of alice's.
const WHOLE: [&[usize]; 6] = [
    &[0, 8, 10, 11, 12, 13, 16, 17, 20, 21],
    &[1, 8, 10, 11, 12, 13, 16, 17, 20, 21],
    &[2, 9, 10, 11, 12, 15, 20, 21],
    &[3, 9, 10, 11, 12, 14, 16, 20, 21],
    &[5, 9, 10, 11, 12, 14, 20, 21],
    &[4, 9, 10, 11, 12, 14, 16, 20, 21],
];

fn lines() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        4 => (0..WHOLE.len()).prop_map(|at| WHOLE[at].to_vec()),
        1 => prop::collection::vec(0..LINES.len(), 0..12),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..6_usize;
    prop_oneof![
        2 => any::<bool>().prop_map(Op::Accept),
        1 => (at.clone(), prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(at, bytes)| Op::Bytes(at, bytes)),
        8 => (at.clone(), lines(), 1..100_usize).prop_map(|(at, lines, cut)| Op::Lines(at, lines, cut)),
        1 => at.clone().prop_map(Op::Eof),
        1 => at.clone().prop_map(Op::Close),
        2 => (any::<bool>(), lines()).prop_map(|(known, lines)| Op::Datagram(known, lines)),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, good)| Op::Connected(at, good)),
        1 => Just(Op::Key),
        1 => any::<bool>().prop_map(Op::User),
        1 => at.clone().prop_map(Op::Stick),
        1 => (at, 0..64_usize).prop_map(|(at, size)| Op::Read(at, size)),
        2 => (0..100_000_u64).prop_map(Op::Wait),
        1 => Just(Op::ShutDown),
    ]
}

fn text(lines: &[usize]) -> Vec<u8> {
    lines.iter().flat_map(|at| LINES[*at].bytes()).collect()
}

fn config() -> ServiceConfig {
    let hop = |domain: &str, last, transport| CoreHop {
        domain: domain.into(),
        address: SocketAddr::from(([203, 0, 113, last], 5060)),
        transport,
    };
    let mut config = home_config();
    config.hops = vec![
        hop("out.example.com", 21, Transport::Udp),
        hop("tcp.example.com", 22, Transport::Tcp),
    ];
    config.home.as_mut().unwrap().registrar.digest = None;
    config.edge.max_core_flows = 2;
    (config.max_conns, config.max_handshakes, config.max_unsent) = (5, 2, 2000);
    (
        config.edge.max_server_transactions,
        config.edge.max_client_transactions,
    ) = (6, 6);
    config
}

struct Host {
    pcscf: Pcscf,
    now: Instant,
    conns: Vec<ConnId>,
    stuck: BTreeSet<ConnId>,
    keys: Vec<Ticket>,
    queries: Vec<UserQuery>,
    closed: BTreeSet<ConnId>,
    trace: String,
}

impl Host {
    fn conn(&self, at: usize) -> ConnId {
        self.conns.get(at).copied().unwrap_or(ConnId(999))
    }

    fn apply(&mut self, op: &Op, port: u16) {
        let now = self.now;
        let pcscf = &mut self.pcscf;
        match op {
            Op::Accept(tls) => {
                let listener = if *tls { Listener::Tls } else { Listener::Tcp };
                if let Ok(conn) = pcscf.accept(now, at(listener, port), listener) {
                    self.conns.insert(0, conn);
                    self.conns.truncate(6);
                }
            }
            Op::Bytes(at, bytes) => {
                let conn = self.conn(*at);
                self.pcscf.handle_input(now, conn, bytes);
            }
            Op::Lines(at, lines, cut) => {
                let conn = self.conn(*at);
                for piece in text(lines).chunks(*cut) {
                    self.pcscf.handle_input(now, conn, piece);
                }
            }
            Op::Eof(at) => {
                let conn = self.conn(*at);
                self.pcscf.handle_eof(now, conn);
            }
            Op::Close(at) => {
                let conn = self.conn(*at);
                self.pcscf.close(now, conn);
            }
            Op::Datagram(known, lines) => {
                let port = if *known { 5060 } else { 5061 };
                let local = "203.0.113.40:5060".parse().unwrap();
                let from = SocketAddr::from(([203, 0, 113, 21], port));
                let data = text(lines);
                let received = pcscf.handle_datagram(now, FiveTuple::udp(local, from), &data);
                let stopped = self.trace.ends_with("Stopped\n");
                assert_eq!(received == Received::NotMine, !known || stopped);
            }
            Op::Connected(at, good) => {
                let conn = self.conn(*at);
                if *good {
                    let local = "203.0.113.40:4000".parse().unwrap();
                    self.pcscf.connected(now, conn, local);
                } else {
                    self.pcscf.connection_failed(now, conn);
                }
            }
            Op::Key => {
                if let Some(ticket) = self.keys.pop() {
                    pcscf.key_found(now, ticket, &KeyAnswer::Unknown);
                }
            }
            Op::User(exists) => {
                if let Some(query) = self.queries.pop() {
                    pcscf.user_found(now, query, *exists);
                }
            }
            Op::Stick(at) => {
                let conn = self.conn(*at);
                self.stuck.insert(conn);
            }
            Op::Read(at, size) => {
                let conn = self.conn(*at);
                let mut buf = vec![0; *size];
                let len = self.pcscf.poll_conn(conn, &mut buf);
                assert!(len.is_none_or(|len| 0 < len && len <= *size));
            }
            Op::Wait(millis) => self.wait(Duration::from_millis(*millis)),
            Op::ShutDown => pcscf.shut_down(now),
        }
        self.drain();
    }

    fn wait(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let Some(next) = self.pcscf.poll_timeout().filter(|next| *next <= end) {
            assert!(next > self.now);
            self.now = next;
            self.pcscf.handle_timeout(next);
            self.drain();
        }
        self.now = end;
        // Neither early nor repeated calls do anything.
        let before = self.trace.len();
        self.pcscf.handle_timeout(end);
        self.drain();
        assert_eq!(&self.trace[before..], "");
    }

    fn drain(&mut self) {
        let mut buf = vec![0; sip_outbound::MAX_TRANSMIT];
        for step in 0.. {
            assert!(step < 1000, "draining does not end");
            let mut idle = true;
            while let Some(conn) = self.pcscf.poll_writable() {
                idle = false;
                assert!(!self.closed.contains(&conn));
                if self.stuck.contains(&conn) {
                    continue;
                }
                while let Some(len) = self.pcscf.poll_conn(conn, &mut buf) {
                    self.trace += &std::format!("{conn:?} {len}\n");
                }
            }
            while let Some(sent) = self.pcscf.poll_transmit(&mut buf) {
                idle = false;
                assert_eq!(sent.to.remote, "203.0.113.21:5060".parse().unwrap());
                self.trace += &std::format!("{sent:?}\n");
            }
            while let Some(action) = self.pcscf.poll_action() {
                idle = false;
                self.trace += &std::format!("{action:?}\n");
                match action {
                    PcscfAction::Connect { conn, .. } => self.conns.insert(0, conn),
                    PcscfAction::Close { conn } => assert!(self.closed.insert(conn)),
                    PcscfAction::FindKey { ticket, .. } => self.keys.push(ticket),
                    PcscfAction::FindUser { query, .. } => self.queries.push(query),
                }
            }
            while let Some(event) = self.pcscf.poll_event() {
                idle = false;
                self.trace += &std::format!("{event:?}\n");
            }
            if idle {
                break;
            }
        }
        assert!(self.pcscf.poll_timeout().is_none_or(|next| next > self.now));
        assert!(self.pcscf.clients <= 5);
        assert!(self.pcscf.conn_count() - self.pcscf.clients <= 4);
        assert!(self.pcscf.handshakes <= 2);
    }
}

fn run(ops: &[Op]) -> String {
    let mut host = Host {
        pcscf: Pcscf::new(config(), [3; 32], Instant::ZERO).unwrap(),
        now: Instant::ZERO,
        conns: Vec::new(),
        stuck: BTreeSet::new(),
        keys: Vec::new(),
        queries: Vec::new(),
        closed: BTreeSet::new(),
        trace: String::new(),
    };
    for (op, port) in ops.iter().zip(1..) {
        host.apply(op, port);
    }
    // Everybody goes, and nothing is left behind.
    host.pcscf.shut_down(host.now);
    host.drain();
    host.wait(Duration::from_secs(20));
    assert_eq!(host.pcscf.conn_count(), 0);
    assert!(host.trace.ends_with("Stopped\n"));
    assert!(
        host.pcscf
            .owners
            .values()
            .all(|owner| *owner == Owner::Home)
    );
    assert_eq!(host.pcscf.timers.len(), 0);
    assert_eq!((host.pcscf.clients, host.pcscf.handshakes), (0, 0));
    assert_eq!(host.pcscf.poll_timeout(), None);
    host.trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    // spec: SEC-G-01, SEC-G-12
    #[test]
    fn no_order_of_events_breaks_it(ops in prop::collection::vec(op(), 0..60)) {
        prop_assert_eq!(run(&ops), run(&ops));
    }
}
