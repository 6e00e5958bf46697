//! ICE: the session with its agent as a machine under watch, a model of what NATs let through,
//! and the scenario two peers live through.

mod model;
mod ops;
mod peer_node;
mod scenario;
mod session;

pub use model::{Reach, direct_path};
pub use ops::{ops_ice_session, parse_ice};
pub use scenario::{sim_ice, sim_ice_restart};
pub use session::{Command, SessionIn, SessionMachine, SessionOut};
