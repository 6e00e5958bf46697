//! The client as the contract checker sees it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use stun_proto::{FiveTuple, Instant, Path, Received, StreamId};
use turn_proto::client::{AllocateOptions, Client, Event, MAX_TRANSMIT};

use crate::contract::Machine;
use crate::pieces::pieces;
use crate::sim::Choices;

/// What an application asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// A relayed address.
    Allocate(AllocateOptions),
    /// Data from and to this address.
    Permission(IpAddr),
    /// A channel.
    Bind(SocketAddr),
    /// Data.
    Send(SocketAddr, Vec<u8>),
    /// The end.
    Close,
}

/// What goes into a client.
#[derive(Clone, Debug)]
pub enum ClientIn {
    /// A datagram.
    Datagram(FiveTuple, Vec<u8>),
    /// Bytes of a stream.
    Stream(StreamId, Vec<u8>),
    /// The stream is gone.
    StreamClosed(StreamId),
    /// A hard ICMP error.
    Icmp,
    /// A command.
    Command(Command),
}

/// What comes out of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientOut {
    /// Bytes for the server.
    Transmit(Path, Vec<u8>),
    /// An event.
    Event(Event),
    /// Data from a peer.
    Data(SocketAddr, Vec<u8>),
    /// A datagram that is not the client's.
    NotMine,
    /// A command was refused.
    Refused(String),
}

/// A client.
#[derive(Debug)]
pub struct ClientMachine(pub Client);

impl Machine for ClientMachine {
    type Input = ClientIn;
    type Output = ClientOut;

    fn input(&mut self, now: Instant, input: &ClientIn, out: &mut Vec<ClientOut>) {
        let client = &mut self.0;
        match input {
            ClientIn::Datagram(at, data) => match client.handle_datagram(now, *at, data) {
                Received::NotMine => out.push(ClientOut::NotMine),
                Received::Consumed => {}
                Received::Data { peer, data } => out.push(ClientOut::Data(peer, data.to_vec())),
            },
            ClientIn::Stream(id, data) => {
                let mut rest = &data[..];
                let mut calls = 0;
                while !rest.is_empty() {
                    if let Received::Data { peer, data } = client.handle_stream(now, *id, &mut rest)
                    {
                        out.push(ClientOut::Data(peer, data.to_vec()));
                    }
                    calls += 1;
                    assert!(calls <= data.len() + 1, "handle_stream does not advance");
                }
            }
            ClientIn::StreamClosed(id) => client.handle_stream_closed(now, *id),
            ClientIn::Icmp => client.handle_icmp_error(now),
            ClientIn::Command(command) => {
                let result = match command {
                    Command::Allocate(options) => {
                        client.allocate(now, *options).map_err(|e| format!("{e}"))
                    }
                    Command::Permission(peer) => client
                        .create_permission(now, *peer)
                        .map_err(|e| format!("{e}")),
                    Command::Bind(peer) => {
                        client.bind_channel(now, *peer).map_err(|e| format!("{e}"))
                    }
                    Command::Send(peer, data) => {
                        let mut buf = alloc::vec![0; data.len() + 100];
                        let sent = client.send(now, *peer, data, &mut buf);
                        sent.map_err(|e| format!("{e}")).map(|sent| {
                            buf.truncate(sent.len);
                            out.push(ClientOut::Transmit(sent.to, buf));
                        })
                    }
                    Command::Close => {
                        client.close(now);
                        Ok(())
                    }
                };
                if let Err(why) = result {
                    out.push(ClientOut::Refused(why));
                }
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll(&mut self, _room: usize) -> Option<ClientOut> {
        let mut buf = [0; MAX_TRANSMIT];
        if let Some(transmit) = self.0.poll_transmit(&mut buf) {
            let bytes = buf[..transmit.len].to_vec();
            return Some(ClientOut::Transmit(transmit.to, bytes));
        }
        self.0.poll_event().map(ClientOut::Event)
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn is_terminal(output: &ClientOut) -> bool {
        let ClientOut::Event(event) = output else {
            return false;
        };
        matches!(
            event,
            Event::AllocateFailed { .. } | Event::AllocationLost { .. } | Event::Closed
        )
    }

    fn is_silence(output: &ClientOut) -> bool {
        matches!(output, ClientOut::NotMine | ClientOut::Refused(_))
    }

    fn lane(output: &ClientOut) -> u64 {
        match output {
            ClientOut::Transmit(..) => 0,
            ClientOut::Event(_) => 1,
            ClientOut::Data(..) => 2,
            ClientOut::NotMine | ClientOut::Refused(_) => 3,
        }
    }

    fn cut(input: &ClientIn, choices: &mut Choices) -> Vec<ClientIn> {
        match input {
            ClientIn::Stream(id, data) => pieces(data, choices)
                .into_iter()
                .map(|piece| ClientIn::Stream(*id, piece))
                .collect(),
            ClientIn::Datagram(..)
            | ClientIn::StreamClosed(_)
            | ClientIn::Icmp
            | ClientIn::Command(_) => Vec::from([input.clone()]),
        }
    }

    fn noise(&self, choices: &mut Choices) -> Option<ClientIn> {
        let local = SocketAddr::from(([203, 0, 113, 7], 7));
        let remote = SocketAddr::from(([203, 0, 113, 8], 8));
        let len = choices.index(60);
        let data = choices.bytes(len);
        Some(match choices.below(3) {
            0 => ClientIn::Datagram(FiveTuple::udp(local, remote), data),
            1 => ClientIn::Stream(StreamId(u64::MAX), data),
            _ => ClientIn::Command(Command::Send(remote, data)),
        })
    }
}
