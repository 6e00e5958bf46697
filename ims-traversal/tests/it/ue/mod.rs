//! Two UEs with everything between them: firewalls, HTTP proxy, P-CSCF with registrar, TURN server.

mod calls;
mod faults;
mod world;
