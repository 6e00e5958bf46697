//! HTTP CONNECT: client and proxy as machines under watch, and the scenario they live through.

mod client;
mod client_node;
mod ops;
mod proxy;
mod proxy_node;
mod scenario;

pub use client::{ClientIn, ClientMachine, ClientOut};
pub use ops::{ops_connect_client, ops_connect_proxy, parse_http};
pub use proxy::{ProxyIn, ProxyMachine, ProxyOut};
pub use scenario::sim_connect;
