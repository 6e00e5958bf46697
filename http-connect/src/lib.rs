//! Sans-IO HTTP CONNECT (RFC 9110 section 9.3.6): the client that asks a proxy for a tunnel, and the
//! proxy.
//!
//! Bytes and timestamps go in; bytes, events and one deadline come out. There is no socket, no
//! clock and no runtime inside; TLS, to the proxy or inside the tunnel, is the host's.
#![no_std]

extern crate alloc;

pub mod auth;
mod client;
mod proxy;
mod rng;
mod text;
mod time;
pub mod wire;

// Where a tunnel leads.
pub use wire::{Host, Target, TargetError};
// The client.
pub use client::{
    ConnectClient, ConnectConfig, ConnectError, ConnectEvent, FieldError, NotATunnel, Rejection,
    RejectionClass, Tunnel,
};
// The proxy.
pub use proxy::{
    AddressPolicy, AuthCheck, AuthVerdict, ConnectServer, Ended, NotOpen, Parent, Prefix,
    ProxyAction, ProxyConfig, ProxyConfigError, ProxyError, ProxyEvent, ProxyLimits, Record, Side,
    Spliced, Taken, Ticket,
};
// Heads.
pub use wire::{Head, HeadError, HeadLimits, Leniency};
// Shared words.
pub use rng::Rng;
pub use sans_io_time::Instant;
