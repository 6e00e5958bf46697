//! SIP Outbound: user agent, edge proxy and registrar as machines under watch, and the scenarios
//! they live through.

mod agent_node;
mod core_node;
mod edge;
mod edge_node;
mod intruder;
mod model;
mod ops;
mod ops_registrar;
mod parse;
mod registrar;
mod runs;
mod scenario;
mod speech;
mod ua;
mod watch;

pub use crate::pieces::Octets;
pub use edge::{EdgeIn, EdgeMachine, EdgeOut};
pub use ops::{ops_sip_agent, ops_sip_edge};
pub use ops_registrar::ops_sip_registrar;
pub use parse::parse_sip;
pub use registrar::{RegistrarIn, RegistrarMachine, RegistrarOut};
pub use runs::{
    Direction, registration_bytes, registration_cut, sim_sip_hour, sim_sip_password, sim_sip_week,
};
pub use scenario::sim_sip;
pub use ua::{Told, UserAgentIn, UserAgentMachine, UserAgentOut};
