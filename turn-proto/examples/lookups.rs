//! What a packet costs when there are few allocations and when there are many, for counting
//! instructions:
//!
//! ```text
//! cargo build --release -p turn-proto --example lookups
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/lookups CASE ALLOCATIONS PACKETS
//! ```
//!
//! The difference between two numbers of packets, divided by theirs, is the cost of one.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::std_instead_of_alloc,
    reason = "a measuring program"
)]

use core::hint::black_box;
use core::net::SocketAddr;

use stun_proto::wire::{MessageType, TransactionId, Writer};
use turn_proto::policy::Preset;
use turn_proto::server::{Action, MAX_TRANSMIT, OpenAccess, RelayId, Server, ServerConfig};
use turn_proto::wire::{
    ALLOCATE, CHANNEL_BIND, ChannelNumber, Data, REFRESH, RequestedTransport, SEND, XorPeerAddress,
};
use turn_proto::{FiveTuple, Instant};

const PAYLOAD: [u8; 160] = [7; 160];

fn client(n: u32) -> FiveTuple {
    let remote = SocketAddr::new(
        (0x0100_0000 + n / 1000).to_be_bytes().into(),
        (n % 1000) as u16 + 1024,
    );
    FiveTuple::udp("192.0.2.1:3478".parse().unwrap(), remote)
}

fn peer(n: u32) -> SocketAddr {
    SocketAddr::new((0x0900_0000 + n).to_be_bytes().into(), 9000)
}

/// A server whose clients have one allocation with one channel each.
struct Rig {
    server: Server<OpenAccess>,
    relays: Vec<RelayId>,
    id: u64,
}

impl Rig {
    fn new(allocations: u32) -> Self {
        let mut config = ServerConfig::new("example.org");
        config.peers.preset = Preset::Any;
        config.ports = 1024..=65_535;
        config.limits.allocations = allocations as usize;
        config.limits.allocations_per_user = allocations as usize;
        config.unverified.per_second = 0;
        let server = Server::new(config, OpenAccess, [5; 32], Instant::ZERO).unwrap();
        let mut rig = Self {
            server,
            relays: Vec::new(),
            id: 0,
        };
        for n in 0..allocations {
            rig.request(n, ALLOCATE, |w| w.attribute(&RequestedTransport::UDP));
            rig.request(n, CHANNEL_BIND, |w| {
                w.attribute(&ChannelNumber(0x4000))
                    .attribute(&XorPeerAddress(peer(n)))
            });
        }
        assert_eq!(rig.server.allocations(), allocations as usize);
        rig
    }

    fn request(
        &mut self,
        n: u32,
        method: stun_proto::wire::Method,
        body: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        self.id += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.id.to_be_bytes());
        let mut buf = [0; 200];
        let writer = Writer::new(&mut buf, MessageType::request(method), TransactionId(id));
        let len = body(writer).finish().unwrap();
        self.server
            .handle_datagram(Instant::ZERO, client(n), &buf[..len]);
        while let Some(action) = self.server.poll_action() {
            if let Action::OpenRelay { relay, port, .. } = action {
                let at = SocketAddr::new([203, 0, 113, 1].into(), port);
                self.server.relay_opened(Instant::ZERO, relay, at);
                self.relays.push(relay);
            }
        }
        let mut buf = [0; MAX_TRANSMIT];
        while self.server.poll_transmit(&mut buf).is_some() {}
        while self.server.poll_event().is_some() {}
    }

    /// One packet of the client with this number.
    fn packet(&mut self, case: &str, n: u32, buf: &mut [u8]) {
        let now = Instant::ZERO;
        match case {
            "channel" => {
                let received = self.server.handle_datagram(now, client(n), buf);
                assert!(matches!(received, turn_proto::Received::Data { .. }));
            }
            "send" => {
                // Another peer in each packet: the address stands behind two attribute headers.
                let mut message = [0; 300];
                let ty = MessageType::indication(SEND);
                let len = Writer::new(&mut message, ty, TransactionId([1; 12]))
                    .attribute(&XorPeerAddress(peer(n)))
                    .attribute(&Data(&PAYLOAD))
                    .finish()
                    .unwrap();
                let received = self.server.handle_datagram(now, client(n), &message[..len]);
                assert!(matches!(received, turn_proto::Received::Data { .. }));
            }
            "relay" => {
                let relay = self.relays[n as usize];
                let forward = self.server.handle_relay(now, relay, peer(n), 160);
                assert!(black_box(forward).is_some());
            }
            "stranger" => {
                let mut at = client(n);
                at.remote.set_port(1);
                black_box(self.server.handle_datagram(now, at, buf));
            }
            "refresh" => self.request(n, REFRESH, |w| w),
            "timeout" => {
                self.server.handle_timeout(now);
                assert!(black_box(self.server.poll_timeout()).is_some());
            }
            other => panic!("no such case: {other}"),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (case, allocations, packets) = match &args[..] {
        [_, case, allocations, packets] => (
            case.as_str(),
            allocations.parse().unwrap(),
            packets.parse::<u32>().unwrap(),
        ),
        _ => panic!("CASE ALLOCATIONS PACKETS"),
    };
    let mut rig = Rig::new(allocations);
    let mut buf = [0; 164];
    buf[..4].copy_from_slice(&[0x40, 0, 0, 160]);
    for packet in 0..packets {
        // Spread over all clients, and the same work for every number of them.
        let n = packet.wrapping_mul(2_654_435_761) % allocations;
        rig.packet(case, n, &mut buf);
    }
    println!("{packets} packets, {allocations} allocations");
}
