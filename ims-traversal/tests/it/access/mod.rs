//! Control: a UE, its firewall and HTTP proxy, and P-CSCFs with registrars.

mod faults;
mod registering;
mod world;
