//! The server as the contract checker sees it.

use alloc::vec::Vec;
use core::net::SocketAddr;

use stun_proto::{FiveTuple, Instant, Path, Received, StreamId};
use turn_proto::server::{Action, Event, MAX_TRANSMIT, RelayId, RelayTo, Server, StaticUsers};

use crate::contract::Machine;
use crate::pieces::pieces;
use crate::sim::Choices;

/// What goes into a server.
#[derive(Clone, Debug)]
pub enum ServerIn {
    /// A datagram from a client.
    Datagram(FiveTuple, Vec<u8>),
    /// A client's stream.
    StreamOpened(StreamId, FiveTuple),
    /// Bytes of a client's stream.
    Stream(StreamId, Vec<u8>),
    /// A client's stream is gone.
    StreamClosed(StreamId),
    /// A datagram from a peer.
    Relay(RelayId, SocketAddr, Vec<u8>),
    /// A relay is open.
    RelayOpened(RelayId, SocketAddr),
    /// A relay is not to be had.
    RelayFailed(RelayId),
}

/// What comes out of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerOut {
    /// A control message for a client.
    Transmit(Path, Vec<u8>),
    /// Data for a client.
    ToClient(Path, Vec<u8>),
    /// Data for a peer.
    ToPeer(RelayTo, Vec<u8>),
    /// What the host must do.
    Action(Action),
    /// An event.
    Event(Event),
    /// A stream was refused.
    Refused(StreamId),
    /// A datagram that is not the server's.
    NotMine,
}

/// A server.
#[derive(Debug)]
pub struct ServerMachine(pub Server<StaticUsers>);

impl Machine for ServerMachine {
    type Input = ServerIn;
    type Output = ServerOut;

    fn input(&mut self, now: Instant, input: &ServerIn, out: &mut Vec<ServerOut>) {
        let server = &mut self.0;
        match input {
            ServerIn::Datagram(at, data) => match server.handle_datagram(now, *at, data) {
                Received::NotMine => out.push(ServerOut::NotMine),
                Received::Consumed => {}
                Received::Data { peer, data } => out.push(ServerOut::ToPeer(peer, data.to_vec())),
            },
            ServerIn::StreamOpened(id, at) => {
                if server.stream_opened(now, *id, *at).is_err() {
                    out.push(ServerOut::Refused(*id));
                }
            }
            ServerIn::Stream(id, data) => {
                let mut rest = &data[..];
                let mut calls = 0;
                while !rest.is_empty() {
                    if let Received::Data { peer, data } = server.handle_stream(now, *id, &mut rest)
                    {
                        out.push(ServerOut::ToPeer(peer, data.to_vec()));
                    }
                    calls += 1;
                    assert!(calls <= data.len() + 1, "handle_stream does not advance");
                }
            }
            ServerIn::StreamClosed(id) => server.handle_stream_closed(now, *id),
            ServerIn::Relay(relay, from, data) => {
                let mut buf = alloc::vec![0; data.len() + 100];
                if let Some(sent) = server.forward(now, *relay, *from, data, &mut buf) {
                    buf.truncate(sent.len);
                    out.push(ServerOut::ToClient(sent.to, buf));
                }
            }
            ServerIn::RelayOpened(relay, at) => server.relay_opened(now, *relay, *at),
            ServerIn::RelayFailed(relay) => server.relay_failed(now, *relay),
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll(&mut self, _room: usize) -> Option<ServerOut> {
        let mut buf = [0; MAX_TRANSMIT];
        if let Some(transmit) = self.0.poll_transmit(&mut buf) {
            let bytes = buf[..transmit.len].to_vec();
            return Some(ServerOut::Transmit(transmit.to, bytes));
        }
        let action = self.0.poll_action().map(ServerOut::Action);
        action.or_else(|| self.0.poll_event().map(ServerOut::Event))
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn is_silence(output: &ServerOut) -> bool {
        matches!(output, ServerOut::NotMine)
    }

    fn lane(output: &ServerOut) -> u64 {
        match output {
            ServerOut::Transmit(..) => 0,
            ServerOut::ToClient(..) => 1,
            ServerOut::ToPeer(..) => 2,
            ServerOut::Action(_) => 3,
            ServerOut::Event(_) => 4,
            ServerOut::Refused(_) | ServerOut::NotMine => 5,
        }
    }

    fn cut(input: &ServerIn, choices: &mut Choices) -> Vec<ServerIn> {
        match input {
            ServerIn::Stream(id, data) => pieces(data, choices)
                .into_iter()
                .map(|piece| ServerIn::Stream(*id, piece))
                .collect(),
            ServerIn::Datagram(..)
            | ServerIn::StreamOpened(..)
            | ServerIn::StreamClosed(_)
            | ServerIn::Relay(..)
            | ServerIn::RelayOpened(..)
            | ServerIn::RelayFailed(_) => Vec::from([input.clone()]),
        }
    }

    fn noise(&self, choices: &mut Choices) -> Option<ServerIn> {
        let at = FiveTuple::udp(
            SocketAddr::from(([203, 0, 113, 7], 3478)),
            SocketAddr::from(([203, 0, 113, 8], 8)),
        );
        // Neither STUN nor ChannelData by its first two bits.
        let len = choices.index(60);
        let mut data = alloc::vec![0x80 | choices.byte()];
        data.extend(choices.bytes(len));
        Some(match choices.below(3) {
            0 => ServerIn::Datagram(at, data),
            1 => ServerIn::Stream(StreamId(u64::MAX), data),
            _ => ServerIn::Relay(RelayId(u64::MAX), at.remote, data),
        })
    }
}
