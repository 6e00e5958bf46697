//! The client as the contract checker sees it.

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::{ConnectClient, ConnectEvent, Instant};

use crate::contract::Machine;
use crate::pieces::pieces;
use crate::sim::Choices;

/// What goes into a client.
#[derive(Clone, Debug)]
pub enum ClientIn {
    /// There is a connection to the proxy.
    Connected,
    /// Bytes from the proxy.
    Bytes(Vec<u8>),
    /// The proxy has closed.
    Eof,
    /// The host's answer to a question for a token.
    Token(Option<String>),
}

/// What comes out of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientOut {
    /// Bytes for the proxy.
    Transmit(Vec<u8>),
    /// An event.
    Event(ConnectEvent),
    /// Bytes of the tunnel.
    Tunnel(Vec<u8>),
}

/// A client.
#[derive(Debug)]
pub struct ClientMachine(pub ConnectClient);

impl Machine for ClientMachine {
    type Input = ClientIn;
    type Output = ClientOut;

    fn input(&mut self, now: Instant, input: &ClientIn, out: &mut Vec<ClientOut>) {
        match input {
            ClientIn::Connected => self.0.handle_connected(now),
            ClientIn::Bytes(bytes) => {
                let rest = self.0.handle_input(now, bytes);
                assert!(
                    bytes.ends_with(rest),
                    "tunnel bytes are not the input's end"
                );
                if !rest.is_empty() {
                    out.push(ClientOut::Tunnel(rest.to_vec()));
                }
            }
            ClientIn::Eof => self.0.handle_eof(now),
            ClientIn::Token(token) => self.0.set_token(now, token.clone()),
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll(&mut self, room: usize) -> Option<ClientOut> {
        let mut buf = [0; 1000];
        let room = room.min(buf.len());
        if let Some(len) = self.0.poll_transmit(&mut buf[..room]) {
            assert!(len > 0, "a transmit of nothing");
            return Some(ClientOut::Transmit(buf[..len].to_vec()));
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
        // A tunnel that turns out to be none fails after it was established.
        matches!(event, ConnectEvent::Rejected(_) | ConnectEvent::Failed(_))
    }

    fn merge(into: &mut ClientOut, next: &ClientOut) -> bool {
        match (into, next) {
            (ClientOut::Transmit(into), ClientOut::Transmit(next))
            | (ClientOut::Tunnel(into), ClientOut::Tunnel(next)) => {
                into.extend_from_slice(next);
                true
            }
            _ => false,
        }
    }

    fn lane(output: &ClientOut) -> u64 {
        match output {
            ClientOut::Transmit(_) => 0,
            ClientOut::Event(_) => 1,
            ClientOut::Tunnel(_) => 2,
        }
    }

    fn cut(input: &ClientIn, choices: &mut Choices) -> Vec<ClientIn> {
        match input {
            ClientIn::Bytes(bytes) => pieces(bytes, choices)
                .into_iter()
                .map(ClientIn::Bytes)
                .collect(),
            ClientIn::Connected | ClientIn::Eof | ClientIn::Token(_) => Vec::from([input.clone()]),
        }
    }
}
