//! SIP Outbound: user agent, edge proxy and registrar as machines under watch, and the scenarios
//! they live through.

mod edge;
mod model;
mod ops;
mod ops_registrar;
mod parse;
mod registrar;
mod speech;
mod ua;

pub use crate::pieces::Octets;
pub use edge::{EdgeIn, EdgeMachine, EdgeOut};
pub use ops::{ops_sip_agent, ops_sip_edge};
pub use ops_registrar::ops_sip_registrar;
pub use parse::parse_sip;
pub use registrar::{RegistrarIn, RegistrarMachine, RegistrarOut};
pub use ua::{Told, UserAgentIn, UserAgentMachine, UserAgentOut};
