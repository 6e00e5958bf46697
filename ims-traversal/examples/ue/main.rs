//! A UE for the command line: registers through firewalls and proxies, calls, and is called.

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
#[path = "../common/mod.rs"]
mod common;
mod phone;
mod report;
mod talk;

use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;

use args::{Args, Command};
use phone::Phone;
use report::Report;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let (Command::Register(options)
    | Command::Call { options, .. }
    | Command::Listen { options, .. }) = &args.command;
    let report = Report {
        json: options.json,
        start: common::now(),
    };
    let result = run(&args.command, options, report).await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = format!("{error:#}");
            report.step("failed", &reason, json!({ "reason": reason }));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: &Command, options: &args::Options, report: Report) -> anyhow::Result<()> {
    let mut phone = Phone::new(options, report)?;
    let done = match command {
        Command::Register(_) => phone.register().await,
        Command::Call { to, .. } => phone.call(to).await,
        Command::Listen { calls, .. } => phone.listen(*calls).await,
    };
    // Whatever happened, the registrations are removed.
    let stopped = phone.stop().await;
    done.and(stopped)
}
