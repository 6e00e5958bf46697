//! Loads a TURN server: many allocations in one process, each sending through its relay to an echo
//! and counting what comes back.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a program on std, not a machine"
)]

mod load;
mod process;
#[path = "../turn-server/host/udp.rs"]
#[allow(dead_code, reason = "shared with the server")]
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use load::{Load, Tally};
use process::Watched;

/// Loads a TURN server over UDP and says what gets lost on the way.
///
/// On loopback every client has an address of its own (127.1.0.0/16), so that the server's limit
/// for strangers does not hold them up.
#[derive(Debug, Parser)]
#[command(name = "turn-load", version)]
pub struct Args {
    /// The server.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3478")]
    server: SocketAddr,
    /// The user name.
    #[arg(long)]
    user: String,
    /// The password.
    #[arg(long)]
    password: String,
    /// The address of the echo, which relays send to.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// Allocations.
    #[arg(long, default_value_t = 5000)]
    clients: usize,
    /// Datagrams a second of each.
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    /// Bytes of each, 16 at least.
    #[arg(long, default_value_t = 160)]
    payload: usize,
    /// How many of a client's datagrams go one behind the other.
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// How long to send.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often to say how it goes, in seconds.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// The server's process: its memory and processor time are shown.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    process::allow_files(args.clients as u64 + 100)?;
    let mut load = Load::new(&args)?;
    let begun = load.now();
    load.allocate()?;
    say(&format!(
        "{} allocations after {:.1} s",
        args.clients,
        load.now().duration_since(begun).as_secs_f64()
    ));
    let mut watched = args.pid.map(Watched::new);
    say("   time s      sent/s    echoed/s  received/s   lost   rtt ms  max ms   RSS MB  CPU %");
    let mut last = Tally::default();
    let start = load.now();
    for step in 1..=args.seconds.div_ceil(args.every.max(1)) {
        let until = (step * args.every.max(1)).min(args.seconds);
        load.run(start, Duration::from_secs(until));
        let tally = load.tally();
        line(until, args.every as f64, &tally, &last, watched.as_mut());
        last = tally;
        load.reset_longest();
    }
    load.settle(Duration::from_secs(2));
    let all = load.tally();
    say(&format!(
        "sent {} (not taken by the kernel {}), echoed {}, received {}: lost {} on the way to the \
         peer, {} on the way back ({:.4} %)",
        all.sent,
        all.unsent,
        all.echoed,
        all.received,
        all.sent - all.echoed,
        all.echoed - all.received,
        100.0 * (all.sent - all.received) as f64 / all.sent.max(1) as f64,
    ));
    load.close();
    Ok(())
}

fn line(time: u64, every: f64, now: &Tally, last: &Tally, watched: Option<&mut Watched>) {
    let per = |now: u64, last: u64| (now - last) as f64 / every;
    let received = now.received - last.received;
    let rtt = (now.delay - last.delay) as f64 / received.max(1) as f64 / 1e6;
    let usage = watched.map_or_else(String::new, |watched| {
        let (memory, processor) = watched.look();
        format!("{memory:8.1} {processor:6.1}")
    });
    say(&format!(
        "{time:9} {:11.0} {:11.0} {:11.0} {:6} {rtt:8.2} {:7.1} {usage}",
        per(now.sent, last.sent),
        per(now.echoed, last.echoed),
        per(now.received, last.received),
        now.sent - now.received,
        now.longest as f64 / 1e6,
    ));
}

fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
