//! Entry functions for TURN: any bytes are a run.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use stun_proto::auth::Credentials;
use stun_proto::wire::{Message, Writer};
use stun_proto::{FiveTuple, Instant, Path, StreamId, Transport};
use turn_proto::client::{AllocateOptions, Client, ClientConfig};
use turn_proto::policy::Preset;
use turn_proto::server::{RelayId, Server, ServerConfig, StaticUsers};
use turn_proto::wire::{ChannelData, channel_header};

use super::{ClientIn, ClientMachine, ClientOut, Command, ServerIn, ServerMachine, ServerOut};
use crate::contract::Checked;
use crate::sim::Choices;

const REALM: &str = "example.org";

/// Reads a datagram as ChannelData and as a message; what was read is written and read again.
pub fn parse_turn(data: &[u8]) {
    if let Some(read) = ChannelData::parse(data) {
        let header = channel_header(read.channel, read.data.len());
        let again = [&header.unwrap_or_default()[..], read.data].concat();
        assert_eq!(ChannelData::parse(&again), Some(read));
        assert!(data.starts_with(&again));
    }
    if let Ok(message) = Message::parse(data) {
        let mut buf = alloc::vec![0; data.len() + 8];
        let mut writer = Writer::new(&mut buf, message.message_type(), message.transaction_id());
        for raw in message.attributes() {
            writer = writer.raw(raw.ty, raw.value);
        }
        let len = writer.finish().unwrap_or_default();
        let again = Message::parse(&buf[..len]);
        let again: Vec<_> = again.iter().flat_map(Message::attributes).collect();
        assert!(message.attributes().eq(again));
    }
}

fn five_tuple(n: u8) -> FiveTuple {
    let server = SocketAddr::from(([192, 0, 2, 1], 3478));
    FiveTuple::udp(
        server,
        SocketAddr::from(([198, 51, 100, 7], 4000 + u16::from(n))),
    )
}

fn peer(choices: &mut Choices) -> SocketAddr {
    let ip: [u8; 4] = *choices.pick(&[[9, 9, 9, 9], [9, 9, 9, 8], [127, 0, 0, 1]]);
    SocketAddr::new(IpAddr::from(ip), 1000 + choices.below(3) as u16)
}

/// A message the other side may have sent: one that was seen, changed a little, or any bytes.
fn message(choices: &mut Choices, seen: &[Vec<u8>]) -> Vec<u8> {
    if seen.is_empty() || choices.chance(300) {
        let len = choices.index(80);
        return choices.bytes(len);
    }
    let mut bytes = choices.pick(seen).clone();
    if choices.flip() && !bytes.is_empty() {
        let at = choices.index(bytes.len());
        bytes[at] ^= choices.byte();
    }
    bytes
}

/// A client under operations drawn from the bytes: commands, messages of a server that echoes what
/// it saw with changes, time that passes.
pub fn ops_turn_client(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let stream = choices.flip();
    let mut now = Instant::ZERO;
    let at = five_tuple(0);
    let (path, transport) = if stream {
        (Path::Stream(StreamId(1)), Transport::Tcp)
    } else {
        (Path::Datagram(at), Transport::Udp)
    };
    let mut client = Checked::new("turn client", now, move || {
        let config = ClientConfig::new(Some(Credentials::new("user", "secret")));
        ClientMachine(Client::new(config, path, transport, [7; 32], Instant::ZERO))
    });
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut steps = 0;
    while !choices.is_spent() && steps < 200 {
        steps += 1;
        now += choices.duration(core::time::Duration::from_secs(100));
        let input = match choices.below(9) {
            0 => Some(ClientIn::Command(Command::Allocate(
                AllocateOptions::default(),
            ))),
            1 => Some(ClientIn::Command(Command::Permission(
                peer(&mut choices).ip(),
            ))),
            2 => Some(ClientIn::Command(Command::Bind(peer(&mut choices)))),
            3 => Some(ClientIn::Command(Command::Send(
                peer(&mut choices),
                b"x".to_vec(),
            ))),
            4 if choices.chance(100) => Some(ClientIn::Command(Command::Close)),
            5 if choices.chance(100) => Some(ClientIn::Icmp),
            6..=8 => {
                let bytes = message(&mut choices, &seen);
                Some(if stream {
                    ClientIn::Stream(StreamId(1), bytes)
                } else {
                    ClientIn::Datagram(at, bytes)
                })
            }
            _ => None,
        };
        let outputs = match input {
            Some(input) => client.input(now, input),
            None => client.timeout(now),
        };
        for output in outputs {
            if let ClientOut::Transmit(_, bytes) = output
                && seen.len() < 32
            {
                // As an answer: the class bits turned to success or error.
                let mut answer = bytes.clone();
                if let Some(first) = answer.first_mut() {
                    *first |= 1;
                }
                seen.extend([bytes, answer]);
            }
        }
    }
    client.finish(&mut choices);
}

/// A server under operations drawn from the bytes: several clients that send what they saw with
/// changes, relays that open or not, peers, time that passes.
pub fn ops_turn_server(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let mut now = Instant::ZERO;
    let mut server = Checked::new("turn server", now, || {
        let mut users = StaticUsers::new(REALM);
        users.add("user", "secret");
        let mut config = ServerConfig::new(REALM);
        config.peers.preset = Preset::Any;
        let server = Server::new(config, users, [7; 32], Instant::ZERO);
        ServerMachine(server.expect("the configuration is good"))
    });
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut relays: Vec<RelayId> = Vec::new();
    let mut steps = 0;
    while !choices.is_spent() && steps < 200 {
        steps += 1;
        now += choices.duration(core::time::Duration::from_secs(100));
        let client = five_tuple(choices.below(3) as u8);
        let id = StreamId(choices.below(3));
        let input = match choices.below(9) {
            0..=2 => Some(ServerIn::Datagram(client, message(&mut choices, &seen))),
            3 => Some(ServerIn::StreamOpened(
                id,
                FiveTuple {
                    transport: Transport::Tcp,
                    ..client
                },
            )),
            4 => Some(ServerIn::Stream(id, message(&mut choices, &seen))),
            5 => Some(ServerIn::StreamClosed(id)),
            6 if !relays.is_empty() => {
                let relay = *choices.pick(&relays);
                Some(ServerIn::Relay(relay, peer(&mut choices), b"data".to_vec()))
            }
            7 if !relays.is_empty() => {
                let relay = *choices.pick(&relays);
                let at = SocketAddr::from(([192, 0, 2, 1], 50_000 + relay.0 as u16));
                Some(ServerIn::RelayOpened(relay, at))
            }
            _ => None,
        };
        let outputs = match input {
            Some(input) => server.input(now, input),
            None => server.timeout(now),
        };
        for output in outputs {
            match output {
                ServerOut::Transmit(_, bytes) if seen.len() < 32 => seen.push(bytes),
                ServerOut::Action(turn_proto::server::Action::OpenRelay { relay, .. }) => {
                    relays.push(relay);
                }
                _ => {}
            }
        }
    }
    server.finish(&mut choices);
}
