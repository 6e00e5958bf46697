//! TURN: client and server as machines under watch, and the scenarios they live through.

mod client;
mod model;
pub(crate) mod node;
mod ops;
mod scenario;
mod server;

pub use client::{ClientIn, ClientMachine, ClientOut, Command};
pub use ops::{ops_turn_client, ops_turn_server, parse_turn};
pub use scenario::sim_turn;
pub use server::{ServerIn, ServerMachine, ServerOut};
