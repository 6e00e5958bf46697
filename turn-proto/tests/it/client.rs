//! The client's steady state allocates nothing, and what it holds stays within its limits.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use allocation_counter::measure;
use stun_proto::wire::{Message, TransactionId, Writer};
use turn_proto::client::{AllocateOptions, Client, ClientConfig, Event, MAX_TRANSMIT};
use turn_proto::wire::{
    ChannelNumber, DATA, Data, Lifetime, XorPeerAddress, XorRelayedAddress, channel_header,
};
use turn_proto::{FiveTuple, Instant, Path, Received, StreamId, Transport};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A client and a server that asks for no credentials and grants whatever it is asked for.
struct Pair {
    client: Client,
    path: Path,
    now: Instant,
}

impl Pair {
    fn new(path: Path, transport: Transport) -> Self {
        Self::with(ClientConfig::new(None), path, transport)
    }

    fn with(config: ClientConfig, path: Path, transport: Transport) -> Self {
        let now = Instant::ZERO;
        let mut client = Client::new(config, path, transport, [1; 32], now);
        client.allocate(now, AllocateOptions::default()).unwrap();
        let mut pair = Self { client, path, now };
        pair.serve();
        assert!(matches!(
            pair.client.poll_event(),
            Some(Event::Allocated { .. })
        ));
        pair
    }

    fn input(&mut self, bytes: &[u8]) -> usize {
        let mut delivered = 0;
        match self.path {
            Path::Datagram(at) => {
                if let Received::Data { data, .. } =
                    self.client.handle_datagram(self.now, at, bytes)
                {
                    delivered += data.len();
                }
            }
            Path::Stream(id) => {
                let mut input = bytes;
                while !input.is_empty() {
                    if let Received::Data { data, .. } =
                        self.client.handle_stream(self.now, id, &mut input)
                    {
                        delivered += data.len();
                    }
                }
            }
        }
        delivered
    }

    /// Answers all requests; the channel numbers asked for.
    fn serve(&mut self) -> Vec<u16> {
        let mut channels = Vec::new();
        let mut buf = [0; MAX_TRANSMIT];
        while let Some(sent) = self.client.poll_transmit(&mut buf) {
            let request = Message::parse(&buf[..sent.len]).unwrap();
            channels.extend(request.find::<ChannelNumber>().map(|n| n.0));
            let mut answer = [0; 200];
            let ty = request.message_type().success();
            let len = Writer::new(&mut answer, ty, request.transaction_id())
                .attribute(&XorRelayedAddress(addr("192.0.2.15:50000")))
                .attribute(&Lifetime(600))
                .finish()
                .unwrap();
            self.input(&answer[..len]);
        }
        channels
    }

    fn bind(&mut self, peer: SocketAddr) -> u16 {
        self.client.bind_channel(self.now, peer).unwrap();
        let channel = self.serve()[0];
        while self.client.poll_event().is_some() {}
        channel
    }
}

fn udp() -> Pair {
    let at = FiveTuple::udp(addr("10.0.0.2:40000"), addr("192.0.2.1:3478"));
    Pair::new(Path::Datagram(at), Transport::Udp)
}

fn tls() -> Pair {
    Pair::new(Path::Stream(StreamId(1)), Transport::Tls)
}

#[test]
fn relaying_allocates_nothing() {
    for mut pair in [udp(), tls()] {
        let peers: Vec<SocketAddr> = (0..100)
            .map(|n| SocketAddr::new(IpAddr::from([203, 0, 113, n]), 1000))
            .collect();
        let channels: Vec<u16> = peers.iter().map(|peer| pair.bind(*peer)).collect();
        let mut messages = Vec::new();
        for (peer, number) in peers.iter().zip(&channels) {
            let channel = turn_proto::wire::Channel::new(*number).unwrap();
            let mut message = channel_header(channel, 160).unwrap().to_vec();
            message.extend_from_slice(&[7; 160]);
            messages.push(message);
            let mut buf = [0; 300];
            let ty = stun_proto::wire::MessageType::indication(DATA);
            let len = Writer::new(&mut buf, ty, TransactionId([3; 12]))
                .attribute(&XorPeerAddress(SocketAddr::new(peer.ip(), 5)))
                .attribute(&Data(&[7; 160]))
                .finish()
                .unwrap();
            messages.push(buf[..len].to_vec());
        }
        let mut buf = [0; 300];
        let mut delivered = 0;
        let info = measure(|| {
            for round in 0..10 {
                pair.now = Instant::ZERO + Duration::from_millis(20 * round);
                for message in &messages {
                    delivered += pair.input(message);
                }
                for peer in &peers {
                    let now = pair.now;
                    let other = SocketAddr::new(peer.ip(), 5);
                    pair.client.send(now, *peer, &[7; 160], &mut buf).unwrap();
                    pair.client.send(now, other, &[7; 160], &mut buf).unwrap();
                    pair.client.send_header(now, *peer, 160).unwrap();
                    let range = 60..220;
                    let in_place = pair.client.send_in_place(now, *peer, &mut buf, range);
                    assert!(in_place.is_ok());
                }
                assert!(pair.client.poll_timeout().is_some());
            }
        });
        assert_eq!(delivered, 10 * 200 * 160);
        assert_eq!(info.count_total, 0, "allocations in the steady state");
    }
}

// spec: SEC-G-10
#[test]
fn a_declared_length_reserves_nothing() {
    let mut pair = tls();
    let number = pair.bind(addr("203.0.113.1:1000"));
    let [c1, c0] = number.to_be_bytes();
    let info = measure(|| {
        pair.input(&[c1, c0, 0xFF, 0xFF, 1, 2, 3, 4]);
    });
    assert!(info.bytes_total <= 256, "{}", info.bytes_total);
}

// spec: SEC-G-04, SEC-C-03
#[test]
fn a_hostile_server_cannot_make_the_client_grow() {
    let mut pair = udp();
    pair.bind(addr("203.0.113.1:1000"));
    let mut forged = Vec::new();
    for n in 0..1000_u32 {
        let mut buf = [0; 300];
        let ip = IpAddr::from(n.to_be_bytes());
        let ty = stun_proto::wire::MessageType::indication(DATA);
        let id = TransactionId([n as u8; 12]);
        let len = Writer::new(&mut buf, ty, id)
            .attribute(&XorPeerAddress(SocketAddr::new(ip, 5)))
            .attribute(&Data(&[7; 160]))
            .finish()
            .unwrap();
        forged.push(buf[..len].to_vec());
        forged.push(vec![0x40 | (n >> 8) as u8 & 0xF, n as u8, 0, 1, 9]);
    }
    let info = measure(|| {
        for message in &forged {
            pair.input(message);
        }
    });
    assert_eq!(info.count_total, 0);
    assert!(pair.client.stats().not_permitted > 1900);
}

// spec: SEC-G-18
#[test]
fn an_ended_client_holds_no_tables() {
    let mut left = 0;
    let info = measure(|| {
        let mut pair = udp();
        for n in 0..100 {
            pair.bind(SocketAddr::new(IpAddr::from([203, 0, 113, n]), 1000));
        }
        pair.client.close(pair.now);
        let mut buf = [0; MAX_TRANSMIT];
        while pair.client.poll_transmit(&mut buf).is_some() {}
        pair.client
            .handle_timeout(Instant::ZERO + Duration::from_secs(100));
        while pair.client.poll_event().is_some() {}
        assert_eq!(pair.client.poll_timeout(), None);
        let held = measure(|| drop(pair));
        left = -held.bytes_current;
    });
    assert_eq!(info.bytes_current, 0);
    assert!(left < 20_000, "{left} bytes");
}

// spec: SEC-G-04
#[test]
fn a_full_client_stays_below_its_bound() {
    let config = ClientConfig {
        max_permissions: 500,
        max_channels: 500,
        ..ClientConfig::new(None)
    };
    let bound = config.max_memory();
    assert!(ClientConfig::new(None).max_memory() < 1_600_000);
    let mut live = 0;
    let info = measure(|| {
        let path = Path::Stream(StreamId(1));
        let mut pair = Pair::with(config, path, Transport::Tls);
        for n in 0..500_u32 {
            let ip = IpAddr::from((0xC600_0000 + n).to_be_bytes());
            let peer = SocketAddr::new(ip, 1000);
            pair.client.bind_channel(pair.now, peer).unwrap();
            if n < 490 {
                pair.serve();
            }
        }
        // The longest unit, but for its last byte.
        let mut unit = vec![0; 65_538];
        unit[..4].copy_from_slice(&[0x40, 0, 0xFF, 0xFF]);
        let before = measure(|| {
            pair.input(&unit);
        });
        assert!(before.bytes_current > 65_000);
        drop(unit);
        live = measure(|| drop(pair)).bytes_current;
    });
    assert_eq!(info.bytes_current, 0);
    let live = usize::try_from(-live).unwrap();
    assert!(live < bound, "{live} of {bound}");
    assert!(live > bound / 8, "{live} of {bound}");
}

#[test]
fn an_idle_client_is_small() {
    let mut live = 0;
    measure(|| {
        let pair = udp();
        live = size_of_val(&pair) as i64 - measure(|| drop(pair)).bytes_current;
    });
    assert!(live < 12_288, "{live}");
}
