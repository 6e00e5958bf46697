//! TURN: client and server as machines under watch, and the scenarios they live through.

mod client;
mod model;
mod ops;
mod scenario;
mod server;

pub use client::{ClientIn, ClientMachine, ClientOut, Command};
pub use ops::{ops_turn_client, ops_turn_server, parse_turn};
pub use scenario::sim_turn;
pub use server::{ServerIn, ServerMachine, ServerOut};

use alloc::vec::Vec;

use crate::sim::Choices;

/// Cuts bytes in up to five pieces.
pub(crate) fn pieces(data: &[u8], choices: &mut Choices) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = data;
    for _ in 0..choices.below(5) {
        let (head, tail) = rest.split_at(choices.index(rest.len() + 1));
        pieces.push(head.to_vec());
        rest = tail;
    }
    pieces.push(rest.to_vec());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
