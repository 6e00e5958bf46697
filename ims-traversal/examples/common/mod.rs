//! What the programs share: sockets, TLS and time around the machines.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(unreachable_pub, reason = "a module of programs, not of a library")]

pub mod http_proxy;
pub mod network;
pub mod peer;
pub mod stream;
pub mod tls;
pub mod turn;

use std::sync::OnceLock;
use std::time::Duration;

use stun_proto::Instant;

static START: OnceLock<std::time::Instant> = OnceLock::new();

/// The time the machines are told: since the program started.
pub fn now() -> Instant {
    let start = START.get_or_init(std::time::Instant::now);
    Instant::ZERO + start.elapsed()
}

/// Sleeps until a deadline of a machine; for ever when there is none.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep(at.duration_since(now())).await,
        None => std::future::pending().await,
    }
}

/// A seed for a machine, from the operating system.
pub fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system has randomness");
    seed
}

/// Seconds with three digits, for traces.
pub fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}
