//! A TURN server over UDP, TCP and TLS, to be run beside or instead of any other.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a program on std, not a machine"
)]

mod args;
mod config;
mod host;
mod metrics;
mod setup;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use turn_proto::server::Admission;

use args::Args;
use config::{Answer, Config, Format};
use host::{Command, Host};
use setup::Setup;

fn main() -> Result<()> {
    let args = Args::parse();
    let config = args.config()?;
    let setup = Setup::new(&config)?;
    if args.check_config {
        tracing_subscriber::fmt().init();
        tracing::info!(workers = setup.host.workers, "the configuration is good");
        return Ok(());
    }
    log(&config)?;
    allow_files(&config);
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(run(&args, config, setup))
}

fn log(config: &Config) -> Result<()> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.log.filter.clone());
    let filter = EnvFilter::try_new(filter).context("log.filter")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match config.log.format {
        Format::Text => lines.init(),
        Format::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Lets the process have a file for each relay, stream and peer, as far as the system allows.
fn allow_files(config: &Config) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limits = &config.limits;
    // An allocation may have a relay of each family.
    let wanted = (2 * limits.allocations + limits.streams + limits.reservations + 256) as u64;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if soft >= wanted {
        return;
    }
    let most = wanted.max(hard);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, most)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard));
    if raised.is_err() || hard < wanted {
        tracing::warn!(
            wanted,
            hard,
            "the limit of open files may be too low for the limits"
        );
    }
}

async fn run(args: &Args, mut config: Config, setup: Setup) -> Result<()> {
    // Before the first worker, so that no signal finds nobody.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut host = Host::start(setup.host, setup.keys, setup.quota)?;
    for listen in host.listening() {
        tracing::info!(transport = %listen.transport, address = %listen.at, "listening");
    }
    let shown = Arc::new(Mutex::new(String::new()));
    if let Some(at) = config.metrics.listen {
        let listener = tokio::net::TcpListener::bind(at).await;
        let listener = listener.with_context(|| format!("metrics on {at}"))?;
        tracing::info!(address = %listener.local_addr()?, "metrics");
        tokio::spawn(metrics::serve(listener, Arc::clone(&shown)));
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut draining: Option<Instant> = None;
    let mut redirecting = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = hangup.recv() => {
                reload(args, &mut config, &host);
                continue;
            }
            _ = interrupt.recv() => break,
            _ = terminate.recv() => {
                if draining.is_some() {
                    break;
                }
                draining = Some(drain(&config, &host));
            }
        }
        if let Ok(mut shown) = shown.lock() {
            *shown = metrics::text(&host, draining.is_some());
        }
        anyhow::ensure!(!host.is_broken(), "a worker has ended");
        let left = host.quota().allocations();
        if draining.is_some_and(|until| left == 0 || Instant::now() >= until) {
            break;
        }
        if draining.is_none() {
            redirecting = steer(&config, &host, redirecting);
        }
    }
    let left = host.quota().allocations();
    host.stop();
    let all = metrics::sum(&host.snapshots());
    tracing::info!(
        allocations = left,
        to_peers = all.to_peers,
        to_clients = all.to_clients,
        unsent = all.unsent,
        dropped = all.dropped,
        "stopped"
    );
    Ok(())
}

/// Sends new clients elsewhere while there are too many here.
fn steer(config: &Config, host: &Host, before: bool) -> bool {
    let (Some(above), Some(to)) = (config.redirect.above, setup::redirect(config)) else {
        return false;
    };
    let now = host.quota().allocations() >= above;
    if now != before {
        tracing::info!(redirecting = now, "steering new clients");
        host.tell(|| Command::Redirect(now.then(|| to.clone())));
    }
    now
}

/// Takes no new allocations from now on; until when those there are may live.
fn drain(config: &Config, host: &Host) -> Instant {
    let answer = config.drain.answer;
    if answer == Answer::Redirect {
        let to = setup::redirect(config);
        host.tell(|| Command::Redirect(to.clone()));
    }
    host.quota().close(match answer {
        Answer::Quota => Admission::QuotaReached,
        Answer::Redirect | Answer::Capacity => Admission::NoCapacity,
    });
    let left = host.quota().allocations();
    tracing::info!(
        allocations = left,
        seconds = config.drain.seconds,
        "draining"
    );
    Instant::now() + Duration::from_secs(config.drain.seconds)
}

/// Reads users and certificates again. What is wrong changes nothing.
fn reload(args: &Args, config: &mut Config, host: &Host) {
    let read = || -> Result<_> {
        let fresh = args.config()?;
        let keys = setup::keys(&fresh)?;
        let tls = setup::tls(&fresh)?;
        // The realm is part of every key.
        anyhow::ensure!(
            fresh.users.realm == config.users.realm,
            "the realm cannot change while the server runs"
        );
        anyhow::ensure!(
            tls.is_some() || config.listen.tls.is_empty(),
            "listen.tls needs a certificate"
        );
        Ok((fresh, Arc::new(keys), tls))
    };
    match read() {
        Ok((fresh, keys, tls)) => {
            host.tell(|| Command::Users(Arc::clone(&keys)));
            if let Some(tls) = tls {
                host.tell(|| Command::Tls(Arc::clone(&tls)));
            }
            config.users = fresh.users;
            config.tls = fresh.tls;
            config.redirect = fresh.redirect;
            config.drain = fresh.drain;
            tracing::info!("users, certificate, redirect and drain read again");
        }
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "not read again; all as before"
        ),
    }
}
