#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::wire::{MessageType, Method, WriteError, Writer};
use crate::{FiveTuple, Instant, Path, StreamId, Transmit, Transport};

mod client;
mod redirect;
mod server;

const START: Instant = Instant::ZERO;
const BINDING: MessageType = MessageType::request(Method::BINDING);

fn at(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The path from the client to the server.
fn here() -> FiveTuple {
    FiveTuple::udp(addr("192.0.2.9:5000"), addr("198.51.100.1:3478"))
}

fn over(transport: Transport) -> FiveTuple {
    FiveTuple {
        transport,
        ..here()
    }
}

/// The same path as the server sees it, behind a NAT.
fn there() -> FiveTuple {
    FiveTuple::udp(addr("198.51.100.1:3478"), addr("203.0.113.5:40000"))
}

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<alloc::string::String>()).unwrap()
}

fn write(f: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut buf = [0xAA; 1500];
    let len = f(&mut buf).unwrap();
    buf[..len].to_vec()
}

fn drain(client: &mut BindingClient) -> Vec<(Path, Vec<u8>)> {
    let mut buf = [0xAA; MAX_TRANSMIT];
    let mut sent = Vec::new();
    while let Some(Transmit { to, len }) = client.poll_transmit(&mut buf) {
        sent.push((to, buf[..len].to_vec()));
    }
    sent
}

fn events(client: &mut BindingClient) -> Vec<BindingEvent> {
    core::iter::from_fn(|| client.poll_event()).collect()
}
