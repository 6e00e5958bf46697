//! The roles of 3GPP C1-133869, "Firewall traversal for IMS services based on ICE", composed from
//! the sans-IO crates of this workspace.
//!
//! Two of them are whole: [`ue::Ue`], which registers, calls and is called, and
//! [`pcscf::Pcscf`], which it registers at.
//!
//! [`tunnel`] makes one byte stream of "through the proxy, with TLS inside", so that TURN and SIP
//! ride on it without knowing. [`access`] is control: SIP flows that climb a [`ladder`] of ways to
//! the P-CSCF. [`media`] is one call's ICE session, with such tunnels to its TURN servers, and
//! [`sdp`] what both sides of a call say about it.
#![no_std]

extern crate alloc;
#[cfg(feature = "tls")]
extern crate std;

pub mod access;
mod conns;
pub mod eftf;
pub mod ladder;
pub mod media;
pub mod pcscf;
pub mod sdp;
#[cfg(test)]
#[cfg(feature = "tls")]
mod test_tls;
pub mod tunnel;
pub mod ue;

// What every role says to its host.
pub use conns::{
    ConnAction, ConnError, ConnFailure, ConnId, ConnLimits, Endpoint, HttpProxy, PlanError,
};
