//! What the programs share: sockets, TLS and time around the machines.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(unreachable_pub, reason = "a module of programs, not of a library")]

pub mod conn;
pub mod echo;
pub mod http_proxy;
pub mod messages;
pub mod network;
pub mod pcscf;
pub mod peer;
pub mod rtp;
pub mod servers;
pub mod stream;
pub mod tls;
pub mod trace;
pub mod ue;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
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

/// Prints a line at once, whoever reads it.
pub fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Users from the command line and from a file with one NAME:PASSWORD in each line.
pub fn users(given: &[String], file: Option<&Path>) -> Result<Vec<(String, String)>> {
    let mut users = Vec::new();
    for (line, number) in given.iter().zip(1..) {
        users.push(user(line, &|| {
            format!("user {number} of the command line")
        })?);
    }
    if let Some(file) = file {
        let shown = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("users file {shown}"))?;
        let lines = text.lines().zip(1..);
        for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty()) {
            users.push(user(line, &|| {
                format!("users file {shown}, line {number}")
            })?);
        }
    }
    Ok(users)
}

/// Not shown when it is wrong: it may be a password.
fn user(line: &str, place: &dyn Fn() -> String) -> Result<(String, String)> {
    let parts = line.split_once(':').filter(|(name, _)| !name.is_empty());
    let (name, password) =
        parts.with_context(|| format!("{}: a user is NAME:PASSWORD", place()))?;
    Ok((name.to_owned(), password.to_owned()))
}
