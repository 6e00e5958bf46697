//! Two UEs register, call each other and exchange media through four networks, on loopback sockets
//! alone.
//!
//! Starts a P-CSCF with a registrar, a TURN server and an HTTP proxy, then puts two UEs behind ever
//! stricter firewalls. Ephemeral ports stand for 5061, 443 and 80; the firewall is enforced where
//! the program opens sockets.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a program on std, not a machine"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../turn-server/host/mod.rs"]
mod host;
mod ladder;
mod story;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::json;

use common::say;
use story::{Outcome, Pair};
use world::{Kind, World};

/// Two UEs register, call each other and exchange media through four networks, on loopback sockets
/// alone.
#[derive(Debug, Parser)]
#[command(name = "traversal", version)]
struct Args {
    /// RTP packets each UE sends in each call.
    #[arg(long, default_value_t = 40)]
    messages: u32,
    /// Seconds each step may take.
    #[arg(long, default_value_t = 15)]
    timeout: u64,
    /// Prints JSON lines instead of ladders and a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&if args.json {
                json!({ "type": "failed", "reason": format!("{error:#}") }).to_string()
            } else {
                format!("failed: {error:#}")
            });
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let world = World::start().await?;
    if !args.json {
        say(&world.to_string());
    }
    let mut outcomes = Vec::new();
    for kind in Kind::ALL {
        let mut pair = Pair::new(&world, kind, Duration::from_secs(args.timeout))?;
        let told = pair.tell(args.messages).await;
        if !args.json {
            ladder::print(kind, &pair);
        }
        outcomes.push(told.with_context(|| format!("network \"{}\"", kind.name()))?);
    }
    if args.json {
        outcomes.iter().for_each(print_json);
    } else {
        ladder::print_table(&outcomes);
    }
    world.check_empty().await?;
    Ok(())
}

fn print_json(outcome: &Outcome) {
    let line = json!({
        "type": "network", "network": outcome.kind.name(), "control": outcome.control,
        "pair": outcome.pair, "relay_transport": outcome.relay,
        "registered_ms": outcome.registered.as_millis() as u64,
        "connected_ms": outcome.connected.as_millis() as u64,
        "recovered_ms": outcome.recovered.as_millis() as u64,
        "sent": outcome.tally.sent, "echoed": outcome.tally.echoed,
        "received": outcome.tally.received, "resent": outcome.tally.resent,
    });
    say(&line.to_string());
}
