//! What the operating system knows about processes.

use std::time::Instant;

use anyhow::Result;

/// Lets this process have so many files open.
pub fn allow_files(count: u64) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count))?;
    }
    Ok(())
}

/// Another process that is looked at from time to time.
#[derive(Debug)]
pub struct Watched {
    pid: u32,
    ticks: u64,
    at: Instant,
}

impl Watched {
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            ticks: ticks(pid).unwrap_or_default(),
            at: Instant::now(),
        }
    }

    /// Resident memory in MB, and the share of one processor in % since the last look.
    pub fn look(&mut self) -> (f64, f64) {
        let (ticks, at) = (ticks(self.pid).unwrap_or_default(), Instant::now());
        let used = ticks.saturating_sub(self.ticks) as f64;
        let passed = at.duration_since(self.at).as_secs_f64();
        (self.ticks, self.at) = (ticks, at);
        // A tick is a hundredth of a second.
        (resident(self.pid).unwrap_or_default(), used / passed)
    }
}

/// User and system time.
fn ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let field = |n: usize| fields.split(' ').nth(n)?.parse::<u64>().ok();
    Some(field(11)? + field(12)?)
}

fn resident(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().split(' ').next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
