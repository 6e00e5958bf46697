//! The clauses every machine of the workspace keeps, checked on every step.
//!
//! [`Checked`] wraps a machine, hands inputs on and drains it, and asserts what can be seen at
//! once: draining ends, no deadline is left in the past, nothing follows the terminal event. It
//! also keeps the inputs with their times. [`Checked::finish`] then plays them again to new
//! machines made from the same seed: once unchanged, once with everything changed that must make
//! no difference (streams cut elsewhere, other buffer sizes, early and repeated timeouts, time
//! that goes backwards, bytes that are not the machine's). The outputs must be the same.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::mem::take;

use sans_io_time::Instant;

use crate::sim::{Choices, seconds};

/// Outputs of one drain; more is a machine that never ends.
const MAX_DRAIN: usize = 20_000;

/// Steps kept for playing again.
const MAX_LOG: usize = 20_000;

/// A machine as the checker sees it.
pub trait Machine {
    /// Everything that goes in, but time: bytes, changes, commands.
    type Input: Clone + Debug;
    /// Everything that comes out: transmits with their bytes, actions, events, received data,
    /// results of commands.
    type Output: Clone + Debug + PartialEq;

    /// Takes in `input`, and puts what it says at once into `out`.
    fn input(&mut self, now: Instant, input: &Self::Input, out: &mut Vec<Self::Output>);
    /// Takes in that it is `now`.
    fn timeout(&mut self, now: Instant);
    /// The next output. A machine for one byte stream writes at most `room` bytes at a time.
    fn poll(&mut self, room: usize) -> Option<Self::Output>;
    /// When it wants to be told the time.
    fn deadline(&self) -> Option<Instant>;

    /// Whether nothing may follow this output.
    fn is_terminal(_output: &Self::Output) -> bool {
        false
    }
    /// What may be said after the end: results of commands, bytes that are not its own.
    fn is_silence(_output: &Self::Output) -> bool {
        false
    }
    /// Puts bytes of a stream that follow each other together; whether it did.
    fn merge(_into: &mut Self::Output, _next: &Self::Output) -> bool {
        false
    }
    /// Outputs of different lanes may come in any order.
    fn lane(_output: &Self::Output) -> u64 {
        0
    }
    /// The same input in pieces, if it is bytes of a stream.
    fn cut(input: &Self::Input, _choices: &mut Choices) -> Vec<Self::Input> {
        Vec::from([input.clone()])
    }
    /// Something that must change nothing now: foreign bytes, a command that is refused.
    fn noise(&self, _choices: &mut Choices) -> Option<Self::Input> {
        None
    }
    /// Asserts what always holds inside.
    fn check(&self) {}
}

struct Step<M: Machine> {
    at: Instant,
    /// `None` is a timeout.
    input: Option<M::Input>,
    outputs: Vec<M::Output>,
    /// The deadline afterwards.
    deadline: Option<Instant>,
}

/// A machine under watch.
pub struct Checked<M: Machine> {
    name: &'static str,
    machine: M,
    make: Box<dyn Fn() -> M>,
    log: Vec<Step<M>>,
    start: Instant,
    now: Instant,
    ended: bool,
    silent_wakes: u32,
}

impl<M: Machine> Debug for Checked<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Checked")
            .field("name", &self.name)
            .field("steps", &self.log.len())
            .finish_non_exhaustive()
    }
}

impl<M: Machine> Checked<M> {
    /// Watches what `make` makes, a machine that was started at `now`. Whatever is called twice
    /// must make equal machines.
    pub fn new(name: &'static str, now: Instant, make: impl Fn() -> M + 'static) -> Self {
        Self {
            name,
            machine: make(),
            make: Box::new(make),
            log: Vec::new(),
            start: now,
            now,
            ended: false,
            silent_wakes: 0,
        }
    }

    /// The machine, to look at.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// Whether the terminal event is out.
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Hands in an input; everything that comes out.
    pub fn input(&mut self, now: Instant, input: M::Input) -> Vec<M::Output> {
        self.step(now, Some(input))
    }

    /// Tells the time; everything that comes out.
    pub fn timeout(&mut self, now: Instant) -> Vec<M::Output> {
        self.step(now, None)
    }

    /// When the machine wants to be told the time.
    pub fn deadline(&self) -> Option<Instant> {
        self.machine.deadline()
    }

    fn step(&mut self, now: Instant, input: Option<M::Input>) -> Vec<M::Output> {
        let name = self.name;
        let before = self.machine.deadline();
        let mut outputs = Vec::new();
        match &input {
            Some(input) => self.machine.input(now, input, &mut outputs),
            None => self.machine.timeout(now),
        }
        self.now = self.now.max(now);
        drain(&mut self.machine, usize::MAX, &mut outputs, name);
        let at = seconds(self.now);
        // A host that is late may hand in something before it tells the time; that need not make
        // the machine look at its timers.
        let overdue = input.is_some() && before.is_some_and(|before| before <= self.now);
        if let Some(deadline) = self.machine.deadline().filter(|_| !overdue) {
            assert!(
                deadline > self.now,
                "{name}: clause 2: drained at {at} after {input:?}, yet the deadline is {}",
                seconds(deadline)
            );
        }
        if input.is_none() && before.is_some_and(|before| before <= self.now) {
            assert_ne!(
                before,
                self.machine.deadline(),
                "{name}: clause 3: nothing moved at the deadline"
            );
        }
        let quiet = input.is_none() && outputs.is_empty();
        self.silent_wakes = if quiet { self.silent_wakes + 1 } else { 0 };
        assert!(
            self.silent_wakes < 1000,
            "{name}: clause 3: woken {} times in a row for nothing",
            self.silent_wakes
        );
        if self.ended {
            let loud = outputs.iter().find(|output| !M::is_silence(output));
            assert!(
                loud.is_none(),
                "{name}: clause 8: after the end at {at}: {loud:?}"
            );
        } else if let Some(end) = outputs.iter().position(M::is_terminal) {
            self.ended = true;
            let loud = outputs[end + 1..].iter().find(|o| !M::is_silence(o));
            assert!(
                loud.is_none(),
                "{name}: clause 8: behind the end at {at}: {loud:?}"
            );
        }
        if self.ended {
            let left = self.machine.deadline().map(seconds);
            assert!(
                left.is_none(),
                "{name}: clause 8: ended, yet a deadline: {left:?}; outputs {outputs:?}"
            );
        }
        self.machine.check();
        if self.log.len() < MAX_LOG {
            self.log.push(Step {
                at: now,
                input,
                outputs: outputs.clone(),
                deadline: self.machine.deadline(),
            });
        }
        outputs
    }

    /// Plays the inputs again, changed in ways that must not matter.
    ///
    /// # Panics
    /// Panics if it did matter.
    pub fn finish(mut self, choices: &mut Choices) {
        let log = take(&mut self.log);
        let replay = Replay {
            name: self.name,
            make: &self.make,
            log: &log,
            start: self.start,
        };
        let all = [
            Change::Cuts,
            Change::Timeouts,
            Change::Backwards,
            Change::Noise,
        ];
        let seed = choices.u64();
        if let Some(difference) = replay.play(&all, &mut Choices::from_seed(seed)) {
            // Find out which of the changes it was.
            if let Some(difference) = replay.play(&[], choices) {
                panic!("{}: clause 9, not deterministic: {difference}", self.name);
            }
            for change in all {
                for more in 0..20 {
                    let mut choices = Choices::from_seed(seed.wrapping_add(more));
                    if let Some(difference) = replay.play(&[change], &mut choices) {
                        panic!("{}: {}: {difference}", self.name, change.clause());
                    }
                }
            }
            panic!("{}: clauses 3, 4, 5, 7 together: {difference}", self.name);
        }
    }
}

fn drain<M: Machine>(machine: &mut M, room: usize, out: &mut Vec<M::Output>, name: &str) {
    let begin = out.len();
    while let Some(output) = machine.poll(room) {
        out.push(output);
        assert!(
            out.len() - begin < MAX_DRAIN,
            "{name}: clause 1: draining does not end"
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Cuts,
    Timeouts,
    Backwards,
    Noise,
}

impl Change {
    const fn clause(self) -> &'static str {
        match self {
            Self::Cuts => "clause 7, cutting a stream elsewhere made a difference",
            Self::Timeouts => "clause 3, an early or repeated timeout made a difference",
            Self::Backwards => "clause 4, time that goes backwards made a difference",
            Self::Noise => "clause 5, what is not the machine's made a difference",
        }
    }
}

struct Replay<'a, M: Machine> {
    name: &'static str,
    make: &'a dyn Fn() -> M,
    log: &'a [Step<M>],
    start: Instant,
}

impl<M: Machine> Replay<'_, M> {
    /// The first difference, if there is one.
    fn play(&self, changes: &[Change], choices: &mut Choices) -> Option<alloc::string::String> {
        let mut machine = (self.make)();
        let mut now = self.start;
        let is = |change| changes.contains(&change);
        for (number, step) in self.log.iter().enumerate() {
            let mut extra = Vec::new();
            if is(Change::Timeouts) && choices.chance(150) {
                let limit = machine.deadline().unwrap_or(Instant::from_nanos(i64::MAX));
                let early = between(now, step.at, choices);
                if early < limit {
                    machine.timeout(early);
                    now = now.max(early);
                    drain(&mut machine, usize::MAX, &mut extra, self.name);
                }
            }
            // A timeout that is overdue would really happen.
            let overdue = machine.deadline().is_some_and(|deadline| deadline <= now);
            if is(Change::Backwards) && !overdue && choices.chance(100) {
                let earlier = now.as_nanos().saturating_sub(choices.below(1 << 42) as i64);
                machine.timeout(Instant::from_nanos(earlier));
                drain(&mut machine, usize::MAX, &mut extra, self.name);
            }
            if is(Change::Noise)
                && !overdue
                && choices.chance(150)
                && let Some(noise) = machine.noise(choices)
            {
                machine.input(now, &noise, &mut extra);
                drain(&mut machine, usize::MAX, &mut extra, self.name);
                extra.retain(|output| !M::is_silence(output));
            }
            if !extra.is_empty() {
                return Some(alloc::format!("before step {number}: {extra:?}"));
            }
            let overdue = machine.deadline().is_some_and(|deadline| deadline <= now);
            let at = if is(Change::Backwards) && step.at <= now && !overdue && choices.chance(200) {
                // What was not the machine's may have left its clock behind.
                machine.timeout(now);
                Instant::from_nanos(now.as_nanos().saturating_sub(choices.below(1 << 40) as i64))
            } else {
                step.at
            };
            now = now.max(step.at);
            let outputs = self.one(&mut machine, at, step, is(Change::Cuts), choices);
            let (expected, seen) = (lanes::<M>(&step.outputs), lanes::<M>(&outputs));
            let deadline = machine.deadline();
            if deadline != step.deadline {
                return Some(alloc::format!(
                    "step {number} at {}, input {:?}: deadline {:?} instead of {:?}",
                    seconds(step.at),
                    step.input,
                    deadline.map(seconds),
                    step.deadline.map(seconds)
                ));
            }
            if expected != seen {
                return Some(alloc::format!(
                    "step {number} at {}, input {:?}\nexpected {expected:?}\nseen     {seen:?}",
                    seconds(step.at),
                    step.input
                ));
            }
        }
        // The clock jumps ten years ahead, and then to its end.
        for end in [
            now.as_nanos().saturating_add(315_360_000_000_000_000),
            i64::MAX,
        ] {
            machine.timeout(Instant::from_nanos(end));
            drain(&mut machine, usize::MAX, &mut Vec::new(), self.name);
        }
        None
    }

    fn one(
        &self,
        machine: &mut M,
        at: Instant,
        step: &Step<M>,
        cut: bool,
        choices: &mut Choices,
    ) -> Vec<M::Output> {
        let mut outputs = Vec::new();
        let room = if cut && choices.flip() {
            choices.range(1..=300) as usize
        } else {
            usize::MAX
        };
        match &step.input {
            None => machine.timeout(at),
            Some(input) if cut => {
                let between = choices.flip();
                for piece in M::cut(input, choices) {
                    machine.input(at, &piece, &mut outputs);
                    if between {
                        drain(machine, room, &mut outputs, self.name);
                    }
                }
            }
            Some(input) => machine.input(at, input, &mut outputs),
        }
        drain(machine, room, &mut outputs, self.name);
        outputs
    }
}

/// A time from `from` to `to`; `from` if that is later.
fn between(from: Instant, to: Instant, choices: &mut Choices) -> Instant {
    let span = to.as_nanos().saturating_sub(from.as_nanos()).max(0);
    let some = match choices.byte() % 3 {
        0 => 0,
        1 => span,
        _ => choices.below(span.unsigned_abs().saturating_add(1)) as i64,
    };
    Instant::from_nanos(from.as_nanos().saturating_add(some))
}

fn lanes<M: Machine>(outputs: &[M::Output]) -> BTreeMap<u64, Vec<M::Output>> {
    let mut lanes: BTreeMap<u64, Vec<M::Output>> = BTreeMap::new();
    for output in outputs {
        let lane = lanes.entry(M::lane(output)).or_default();
        let merged = lane.last_mut().is_some_and(|last| M::merge(last, output));
        if !merged {
            lane.push(output.clone());
        }
    }
    lanes
}

#[cfg(test)]
mod tests;
