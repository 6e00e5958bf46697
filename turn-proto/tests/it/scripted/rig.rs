//! A client and a scripted server, with the test's clock between them.

use core::net::SocketAddr;

use stun_proto::auth::Credentials;
use turn_proto::client::{AllocateOptions, Cause, Client, ClientConfig, Event, MAX_TRANSMIT};
use turn_proto::{FiveTuple, Instant, Path, Received, StreamId, Transport};

use super::{Habits, Script};
use crate::wired::{addr, at, ip, server_addr};

pub(super) const REALM: &str = "turn.example";
pub(super) const RELAYED: &str = "203.0.113.1:50000";
pub(super) const MAPPED: &str = "198.51.100.7:40000";

pub(super) struct Rig {
    pub(super) client: Client,
    pub(super) server: Script,
    pub(super) path: Path,
    pub(super) now: Instant,
    pub(super) events: Vec<Event>,
    /// Every so many-th answer over datagrams is lost; none with 0.
    pub(super) loses: u32,
    answers: u32,
}

impl Rig {
    pub(super) fn new(habits: Habits, transport: Transport) -> Self {
        Self::with(habits, transport, |_| {})
    }

    pub(super) fn with(
        habits: Habits,
        transport: Transport,
        change: impl FnOnce(&mut ClientConfig),
    ) -> Self {
        let local = SocketAddr::new(ip("198.51.100.7"), 40_000);
        let path = if transport.is_stream() {
            Path::Stream(StreamId(1))
        } else {
            Path::Datagram(FiveTuple::udp(local, server_addr()))
        };
        let mut config = ClientConfig::new(Some(Credentials::new("alice", "secret")));
        change(&mut config);
        Self {
            client: Client::new(config, path, transport, [3; 32], at(0)),
            server: Script::new(habits),
            path,
            now: at(0),
            events: Vec::new(),
            loses: 0,
            answers: 0,
        }
    }

    /// The client starts anew from the same address; the server is the same.
    pub(super) fn starts_anew(self) -> Self {
        let Path::Datagram(_) = self.path else {
            panic!("a stream is never the same again");
        };
        let config = ClientConfig::new(Some(Credentials::new("alice", "secret")));
        let client = Client::new(config, self.path, Transport::Udp, [4; 32], self.now);
        Self {
            client,
            events: Vec::new(),
            ..self
        }
    }

    pub(super) fn allocate(&mut self, options: AllocateOptions) {
        self.client.allocate(self.now, options).unwrap();
        self.step();
    }

    /// As far as it has come without time passing.
    pub(super) fn allocated(habits: Habits, transport: Transport) -> Self {
        let mut rig = Self::new(habits, transport);
        rig.allocate(AllocateOptions::default());
        assert!(
            matches!(rig.events[..], [Event::Allocated { .. }]),
            "{:?}",
            rig.events
        );
        rig
    }

    pub(super) fn step(&mut self) {
        let mut buf = [0; MAX_TRANSMIT];
        while let Some(sent) = self.client.poll_transmit(&mut buf) {
            let answer = self.server.request(self.now, sent.to, &buf[..sent.len]);
            let Some(answer) = answer else { continue };
            self.answers += 1;
            let datagram = matches!(sent.to, Path::Datagram(_));
            if datagram && self.loses > 0 && self.answers.is_multiple_of(self.loses) {
                continue;
            }
            self.input(&answer);
        }
        self.events
            .extend(core::iter::from_fn(|| self.client.poll_event()));
    }

    /// Gives the client bytes; what comes out for the application.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut got = Vec::new();
        match self.path {
            Path::Datagram(at) => {
                if let Received::Data { peer, data } =
                    self.client.handle_datagram(self.now, at, bytes)
                {
                    got.push((peer, data.to_vec()));
                }
            }
            Path::Stream(id) => {
                // As a network cuts it: somewhere.
                let (first, second) = bytes.split_at(bytes.len() * 2 / 3);
                for mut piece in [first, second] {
                    while !piece.is_empty() {
                        if let Received::Data { peer, data } =
                            self.client.handle_stream(self.now, id, &mut piece)
                        {
                            got.push((peer, data.to_vec()));
                        }
                    }
                }
            }
        }
        got
    }

    pub(super) fn run(&mut self, until: u64) {
        self.step();
        while let Some(next) = self.client.poll_timeout().filter(|next| *next <= at(until)) {
            assert!(next > self.now, "the deadline {next:?} was served already");
            self.now = next;
            self.client.handle_timeout(next);
            self.step();
        }
        self.now = at(until);
    }

    pub(super) fn permit(&mut self, peer: &str) {
        self.client.create_permission(self.now, ip(peer)).unwrap();
        self.step();
    }

    pub(super) fn bind(&mut self, peer: &str) {
        self.client.bind_channel(self.now, addr(peer)).unwrap();
        self.step();
    }

    /// Data flows both ways.
    pub(super) fn talks(&mut self, peer: &str) -> bool {
        let (peer, mut buf) = (addr(peer), [0; 200]);
        let Ok(sent) = self.client.send(self.now, peer, b"ping!", &mut buf) else {
            return false;
        };
        let path = self.path;
        let relayed = self.server.relay_client(self.now, path, &buf[..sent.len]);
        let back = self.server.relay_peer(self.now, path, peer, b"pong...");
        let Some(back) = back else { return false };
        let heard = self.input(&back);
        relayed == Some((peer, b"ping!".to_vec())) && heard == [(peer, b"pong...".to_vec())]
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.events.iter().find_map(|event| match event {
            Event::AllocateFailed { cause, .. } | Event::AllocationLost { cause } => Some(*cause),
            _ => None,
        })
    }

    /// Gives the allocation back.
    pub(super) fn close(&mut self) {
        self.client.close(self.now);
        self.step();
        self.run(self.now.duration_since(at(0)).as_secs() + 100);
    }
}
