//! What happened, in lines a person can read.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use core::fmt;

use sans_io_time::Instant;

/// Lines kept; older ones are forgotten.
const KEEP: usize = 400;

/// A shared ring of lines, or nothing at all.
///
/// Runs are made without a trace. One that fails is made again, with the same decisions, with a
/// trace; so nothing is formatted as long as all goes well.
#[derive(Clone, Default)]
pub struct Trace(Option<Rc<RefCell<Ring>>>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<String>,
    forgotten: usize,
}

impl Trace {
    /// Keeps nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Keeps the last lines.
    pub fn on() -> Self {
        Self(Some(Rc::default()))
    }

    /// Whether lines are kept.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a line `0.500s who what`. The text is only made if lines are kept.
    pub fn line<S: fmt::Display>(&self, now: Instant, who: &str, what: impl FnOnce() -> S) {
        let Some(ring) = &self.0 else { return };
        let line = format!("{} {who} {}", seconds(now), what());
        let mut ring = ring.borrow_mut();
        if ring.lines.len() == KEEP {
            ring.lines.pop_front();
            ring.forgotten = ring.forgotten.saturating_add(1);
        }
        ring.lines.push_back(line);
    }
}

/// `12.345s`; microseconds only when there are any.
pub fn seconds(now: Instant) -> String {
    let micros = now.as_nanos() / 1000;
    let (whole, part) = (micros / 1_000_000, (micros % 1_000_000).abs());
    if part % 1000 == 0 {
        format!("{whole}.{:03}s", part / 1000)
    } else {
        format!("{whole}.{part:06}s")
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ring) = &self.0 else {
            return f.write_str("(no trace)");
        };
        let ring = ring.borrow();
        if ring.forgotten > 0 {
            writeln!(f, "... {} lines before", ring.forgotten)?;
        }
        ring.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() {
            "Trace(on)"
        } else {
            "Trace(off)"
        })
    }
}
