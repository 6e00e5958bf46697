//! An HTTP proxy that opens CONNECT tunnels and nothing else.

#![allow(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a program on std, not a machine"
)]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use http_connect::{Ended, Prefix, ProxyConfig, Record};
use serde_json::json;

use common::http_proxy::{self, Users};
use common::say;

/// An HTTP proxy that opens CONNECT tunnels and nothing else.
#[derive(Debug, Parser)]
#[command(name = "http-proxy", version)]
struct Args {
    /// Where to listen; may be given several times.
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// A port that may be asked for; may be given several times.
    #[arg(long, value_name = "PORT", default_values_t = [443])]
    allow_port: Vec<u16>,
    /// Addresses that may be connected to although they are not public, ADDR/BITS; may be given
    /// several times.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    allow: Vec<Prefix>,
    /// A user, NAME:PASSWORD; may be given several times. Without users nobody is asked.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// A file with one NAME:PASSWORD in each line.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Offers Basic.
    #[arg(long)]
    basic: bool,
    /// Offers Digest (SHA-256 and MD5). With users and neither flag, both are offered.
    #[arg(long)]
    digest: bool,
    /// The realm users belong to.
    #[arg(long, default_value = "proxy")]
    realm: String,
    /// Prints one JSON line for each connection instead of text.
    #[arg(long)]
    json: bool,
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "128"));
    let address = address.parse().map_err(|_| "not an address")?;
    let bits = bits.parse().map_err(|_| "not a number of bits")?;
    Ok(Prefix::new(address, bits))
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let passwords: HashMap<_, _> = common::users(&args.user, args.users.as_deref())?
        .into_iter()
        .collect();
    for at in &args.listen {
        let both = !args.basic && !args.digest;
        let (basic, digest) = (args.basic || both, args.digest || both);
        let users = match passwords.is_empty() {
            true => None,
            false => Some(Users::new(&args.realm, passwords.clone(), basic, digest)?),
        };
        let config = |local| {
            let mut config = ProxyConfig::new("http-proxy");
            config.ports.clone_from(&args.allow_port);
            config.addresses.allowed.clone_from(&args.allow);
            config.own_addresses = vec![local];
            // Clients that name the proxy in Host and announce the body they do not have, node's
            // among them: other proxies open their tunnels.
            config.ignore_host_mismatch = true;
            config.tolerate_empty_body = true;
            config
        };
        let json = args.json;
        let local = http_proxy::listen(*at, config, users, move |from, record| {
            report(json, from, record);
        })
        .await
        .with_context(|| format!("listening on {at}"))?;
        if args.json {
            say(&json!({ "type": "listening", "address": local.to_string() }).to_string());
        } else {
            say(&format!("listening on {local}"));
        }
    }
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn report(json: bool, from: SocketAddr, record: &Record) {
    let target = record.target.as_ref().map(ToString::to_string);
    let how = match record.ended {
        Ended::Refused(error) => format!("refused: {error}"),
        Ended::ClientGone => "client gone".to_owned(),
        Ended::Spliced => "tunnel".to_owned(),
        other => format!("{other:?}"),
    };
    if json {
        let line = json!({
            "type": "connection", "from": from.to_string(), "status": record.status,
            "target": target, "user": record.user, "ended": how,
        });
        return say(&line.to_string());
    }
    let target = target.unwrap_or_else(|| "-".to_owned());
    let user = record.user.as_deref().unwrap_or("-");
    say(&format!("{from} {user} {} {target} {how}", record.status));
}
