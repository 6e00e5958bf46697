#![allow(clippy::arithmetic_side_effects, reason = "test code")]

//! A scripted server, as coturn and pion are (RFC 5389 credentials) or as RFC 8489 wants it, and
//! what the client does with it. The clock is the test's.

mod allocation;
mod channels;
mod connections;
mod errors;
mod extensions;
mod mobility;
mod permissions;
mod properties;
mod relay;
mod streams;

use core::time::Duration;

use alloc::vec::Vec;

use stun_proto::auth::Credentials;
use stun_proto::wire::{
    Class, ErrorCode, IntegrityAlgorithm, Key, Message, MessageType, Nonce, PasswordAlgorithmId,
    PasswordAlgorithms, Realm, TransactionId, Writer, XorMappedAddress,
};

use super::*;
use crate::wire::{
    self, ChannelNumber, Data, Lifetime, XorPeerAddress, XorRelayedAddress, channel_header,
};

const REALM: &str = "example.org";
const RELAYED: &str = "192.0.2.15:50000";
const MAPPED: &str = "198.51.100.7:7000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn at(s: u64) -> Instant {
    Instant::ZERO + secs(s)
}

fn udp_path(port: u16) -> Path {
    let local = SocketAddr::new(ip("10.0.0.2"), port);
    Path::Datagram(FiveTuple::udp(local, addr("192.0.2.1:3478")))
}

/// A request as the server reads it.
#[derive(Clone, Debug)]
struct Seen {
    bytes: Vec<u8>,
    at: Instant,
    to: Path,
}

impl Seen {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn method(&self) -> Method {
        self.message().method()
    }

    fn lifetime(&self) -> Option<u32> {
        self.message().find::<Lifetime>().map(|l| l.0)
    }

    fn nonce(&self) -> Option<Vec<u8>> {
        let nonce: Option<Nonce<'_>> = self.message().find();
        nonce.map(|nonce| nonce.as_bytes().to_vec())
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.message()
            .get_all::<XorPeerAddress>()
            .map(|peer| peer.unwrap().0)
            .collect()
    }

    fn channel(&self) -> Option<u16> {
        self.message().find::<ChannelNumber>().map(|n| n.0)
    }
}

struct Rig {
    client: Client,
    path: Path,
    now: Instant,
    key: Key,
    protection: IntegrityAlgorithm,
    nonce: &'static str,
}

fn config() -> ClientConfig {
    ClientConfig {
        keep_alive: None,
        stream_keep_alive: None,
        ..ClientConfig::new(Some(Credentials::new("user", "secret")))
    }
}

fn key(algorithm: PasswordAlgorithmId) -> Key {
    Key::long_term(algorithm, b"user", REALM.as_bytes(), b"secret").unwrap()
}

impl Rig {
    fn with(config: ClientConfig, path: Path, transport: Transport) -> Self {
        let now = Instant::ZERO;
        Self {
            client: Client::new(config, path, transport, [1; 32], now),
            path,
            now,
            key: key(PasswordAlgorithmId::MD5),
            protection: IntegrityAlgorithm::Sha1,
            nonce: "nonce-1",
        }
    }

    fn new() -> Self {
        Self::with(config(), udp_path(40000), Transport::Udp)
    }

    fn stream() -> Self {
        Self::with(config(), Path::Stream(StreamId(1)), Transport::Tcp)
    }

    /// Allocates with these options and takes the challenge; the request that carries credentials.
    fn ask(&mut self, options: AllocateOptions) -> Seen {
        self.client.allocate(self.now, options).unwrap();
        let first = self.request();
        assert!(!first.message().has_integrity());
        self.challenge(&first, 401);
        self.request()
    }

    fn allocate(mut self) -> Self {
        let request = self.ask(AllocateOptions::default());
        self.allocate_ok(&request);
        assert!(matches!(self.event(), Some(Event::Allocated { .. })));
        self
    }

    fn allocate_quietly(mut self) -> Self {
        let request = self.ask(AllocateOptions::default());
        self.allocate_ok(&request);
        self
    }

    fn allocated() -> Self {
        Self::new().allocate()
    }

    fn request(&mut self) -> Seen {
        self.try_request().expect("a request")
    }

    fn try_request(&mut self) -> Option<Seen> {
        let mut buf = [0; MAX_TRANSMIT];
        let sent = self.client.poll_transmit(&mut buf)?;
        Some(Seen {
            bytes: buf[..sent.len].to_vec(),
            at: self.now,
            to: sent.to,
        })
    }

    fn requests(&mut self) -> Vec<Seen> {
        core::iter::from_fn(|| self.try_request()).collect()
    }

    fn event(&mut self) -> Option<Event> {
        self.client.poll_event()
    }

    fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.event()).collect()
    }

    /// Lets time pass without answering anything.
    fn advance(&mut self, to: u64) -> Vec<Seen> {
        self.run(to, |_, _| {})
    }

    /// Lets time pass and shows each request to `server`.
    fn run(&mut self, to: u64, mut server: impl FnMut(&mut Self, &Seen)) -> Vec<Seen> {
        let end = at(to);
        let mut all = Vec::new();
        loop {
            while let Some(request) = self.try_request() {
                server(self, &request);
                all.push(request);
            }
            let Some(next) = self.client.poll_timeout().filter(|next| *next <= end) else {
                break;
            };
            assert!(next > self.now, "the deadline {next:?} was served already");
            self.now = next;
            self.client.handle_timeout(next);
        }
        self.now = end;
        all
    }

    fn input_on(&mut self, path: Path, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        match path {
            Path::Datagram(at) => match self.client.handle_datagram(self.now, at, bytes) {
                Received::Data { peer, data } => Some((peer, data.to_vec())),
                Received::Consumed | Received::NotMine => None,
            },
            Path::Stream(id) => {
                let mut input = bytes;
                let mut data = None;
                while !input.is_empty() {
                    if let Received::Data { peer, data: bytes } =
                        self.client.handle_stream(self.now, id, &mut input)
                    {
                        data = Some((peer, bytes.to_vec()));
                    }
                }
                data
            }
        }
    }

    fn input(&mut self, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        self.input_on(self.path, bytes)
    }

    /// Answers where the request came from.
    fn answer(
        &mut self,
        to: &Seen,
        class: Class,
        protected: bool,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) {
        let mut buf = [0; 500];
        let message = to.message();
        let ty = MessageType::new(class, message.method());
        let writer = attributes(Writer::new(&mut buf, ty, message.transaction_id()));
        let len = if protected {
            writer.integrity(self.protection, &self.key).finish()
        } else {
            writer.finish()
        };
        let len = len.unwrap();
        self.input_on(to.to, &buf[..len]);
    }

    fn challenge(&mut self, to: &Seen, code: u16) {
        let nonce = self.nonce;
        self.answer(to, Class::Error, false, |w| {
            w.attribute(&ErrorCode::new(code))
                .attribute(&Realm::new(REALM).unwrap())
                .attribute(&Nonce::new(nonce).unwrap())
        });
    }

    fn error(&mut self, to: &Seen, code: u16) {
        self.answer(to, Class::Error, true, |w| {
            w.attribute(&ErrorCode::new(code))
        });
    }

    fn ok(&mut self, to: &Seen) {
        self.answer(to, Class::Success, true, |w| w);
    }

    fn allocate_ok(&mut self, to: &Seen) {
        self.answer(to, Class::Success, true, |w| {
            w.attribute(&XorRelayedAddress(addr(RELAYED)))
                .attribute(&XorMappedAddress(addr(MAPPED)))
                .attribute(&Lifetime(600))
        });
    }

    fn refresh_ok(&mut self, to: &Seen, lifetime: u32) {
        self.answer(to, Class::Success, true, |w| {
            w.attribute(&Lifetime(lifetime))
        });
    }

    /// Answers whatever it is with success.
    fn serve(&mut self, request: &Seen) {
        match request.method() {
            wire::REFRESH => self.refresh_ok(request, 600),
            _ => self.ok(request),
        }
    }

    fn permit(&mut self, peer: &str) {
        self.client.create_permission(self.now, ip(peer)).unwrap();
        let request = self.request();
        self.ok(&request);
        let created = Event::PermissionCreated { peer: ip(peer) };
        assert_eq!(self.event(), Some(created));
    }

    fn bind(&mut self, peer: &str) -> Channel {
        self.client.bind_channel(self.now, addr(peer)).unwrap();
        let request = self.request();
        self.ok(&request);
        let events = self.events();
        let bound = Event::ChannelBound { peer: addr(peer) };
        assert!(events.contains(&bound), "{events:?}");
        Channel::new(request.channel().unwrap()).unwrap()
    }

    fn indication(
        &mut self,
        method: Method,
        attributes: impl for<'b> FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buf = [0; 500];
        let ty = MessageType::indication(method);
        let writer = Writer::new(&mut buf, ty, TransactionId([9; 12]));
        let len = attributes(writer).finish().unwrap();
        self.input(&buf[..len])
    }

    fn data_from(&mut self, peer: &str, payload: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        self.indication(wire::DATA, |w| {
            w.attribute(&XorPeerAddress(addr(peer)))
                .attribute(&Data(payload))
        })
    }

    fn channel_data(&mut self, channel: Channel, payload: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let mut bytes = channel_header(channel, payload.len()).unwrap().to_vec();
        bytes.extend_from_slice(payload);
        if matches!(self.path, Path::Stream(_)) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.input(&bytes)
    }

    /// Nothing may come any more, whatever happens.
    fn assert_silent(&mut self) {
        assert_eq!(self.client.poll_timeout(), None);
        self.client.handle_timeout(self.now + secs(100_000));
        assert!(self.try_request().is_none());
        assert_eq!(self.event(), None);
        assert_eq!(self.client.poll_action(), None);
    }
}
