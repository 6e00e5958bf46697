//! SIP Outbound: user agent, edge proxy and registrar as machines under watch, and the scenarios
//! they live through.

mod edge;
mod ops;
mod parse;
mod registrar;
mod speech;
mod ua;

pub use crate::pieces::Octets;
pub use edge::{EdgeIn, EdgeMachine, EdgeOut};
pub use ops::{ops_sip_agent, ops_sip_edge};
pub use parse::parse_sip;
pub use registrar::{RegistrarIn, RegistrarMachine, RegistrarOut};
pub use ua::{Told, UserAgentIn, UserAgentMachine, UserAgentOut};
