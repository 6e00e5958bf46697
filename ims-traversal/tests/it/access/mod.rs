//! Control: a UE, its firewall and HTTP proxy, and P-CSCFs with registrars.

mod faults;
mod life;
mod registering;
pub mod world;
