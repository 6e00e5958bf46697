use core::time::Duration;

use super::*;

/// Sums the bytes of a stream and says so every second; each flaw breaks one clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    EndlessDrain,
    PastDeadline,
    EarlyTimeout,
    Backwards,
    Noise,
    Pieces,
    AfterEnd,
    Random,
}

struct Sum {
    flaw: Flaw,
    now: Instant,
    total: u64,
    next: Option<Instant>,
    out: Vec<Out>,
    random: u64,
}

#[derive(Clone, Debug)]
enum In {
    Bytes(Vec<u8>),
    Foreign,
    End,
}

#[derive(Clone, Debug, PartialEq)]
enum Out {
    Total(u64),
    Echo(Vec<u8>),
    End,
}

fn second(now: Instant) -> Option<Instant> {
    now.checked_add(Duration::from_secs(1))
}

impl Machine for Sum {
    type Input = In;
    type Output = Out;

    fn input(&mut self, now: Instant, input: &In, _: &mut Vec<Out>) {
        self.now = if self.flaw == Flaw::Backwards {
            now
        } else {
            self.now.max(now)
        };
        match input {
            In::Bytes(bytes) => {
                if self.flaw == Flaw::Pieces {
                    self.total += 1;
                }
                self.total += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                self.out.push(Out::Echo(bytes.clone()));
                if self.next.is_none() || self.flaw == Flaw::Backwards {
                    self.next = second(self.now);
                }
            }
            In::Foreign if self.flaw == Flaw::Noise => self.total += 1,
            In::Foreign => {}
            In::End => {
                self.out.push(Out::End);
                self.next = None;
                if self.flaw == Flaw::AfterEnd {
                    self.out.push(Out::Total(1));
                }
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let due = self.next.is_some_and(|next| next <= self.now);
        if due || self.flaw == Flaw::EarlyTimeout {
            self.out.push(Out::Total(self.total + self.random));
            if self.flaw != Flaw::PastDeadline {
                self.next = second(self.now);
            }
        }
    }

    fn poll(&mut self, room: usize) -> Option<Out> {
        if self.flaw == Flaw::EndlessDrain && self.total > 0 {
            return Some(Out::Total(0));
        }
        if let Some(Out::Echo(bytes)) = self.out.first_mut()
            && bytes.len() > room
        {
            let rest = bytes.split_off(room);
            return Some(Out::Echo(core::mem::replace(bytes, rest)));
        }
        (!self.out.is_empty()).then(|| self.out.remove(0))
    }

    fn deadline(&self) -> Option<Instant> {
        self.next
    }

    fn is_terminal(output: &Out) -> bool {
        *output == Out::End
    }

    fn merge(into: &mut Out, next: &Out) -> bool {
        let (Out::Echo(into), Out::Echo(next)) = (into, next) else {
            return false;
        };
        into.extend_from_slice(next);
        true
    }

    fn lane(output: &Out) -> u64 {
        u64::from(matches!(output, Out::Echo(_)))
    }

    fn cut(input: &In, choices: &mut Choices) -> Vec<In> {
        let In::Bytes(bytes) = input else {
            return Vec::from([input.clone()]);
        };
        let (head, tail) = bytes.split_at(choices.index(bytes.len() + 1));
        [head, tail].map(|piece| In::Bytes(piece.to_vec())).to_vec()
    }

    fn noise(&self, _: &mut Choices) -> Option<In> {
        Some(In::Foreign)
    }
}

thread_local! {
    static CALLS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

fn run(flaw: Flaw) {
    let mut choices = Choices::from_seed(5);
    let mut sum = Checked::new("sum", Instant::ZERO, move || Sum {
        flaw,
        now: Instant::ZERO,
        total: 0,
        next: None,
        out: Vec::new(),
        random: CALLS.with(|calls| {
            calls.set(calls.get() + 1);
            if flaw == Flaw::Random { calls.get() } else { 0 }
        }),
    });
    let mut now = Instant::ZERO;
    for _ in 0..100 {
        let after = Duration::from_millis(choices.range(0..=700));
        now = now.checked_add(after).unwrap();
        while let Some(deadline) = sum.deadline().filter(|deadline| *deadline <= now) {
            sum.timeout(deadline);
        }
        let len = choices.range(1..=9) as usize;
        sum.input(now, In::Bytes(choices.bytes(len)));
        // Inputs often come at the same time.
        sum.input(now, In::Bytes(choices.bytes(len)));
    }
    sum.input(now, In::End);
    sum.finish(&mut choices);
}

fn check(flaw: Flaw, clause: &str) {
    let failure = std::panic::catch_unwind(|| run(flaw)).unwrap_err();
    let text = failure.downcast_ref::<alloc::string::String>().unwrap();
    assert!(text.contains(clause), "{text}");
}

#[test]
fn a_sound_machine_passes() {
    run(Flaw::None);
}

#[test]
fn every_clause_finds_the_machine_that_breaks_it() {
    check(Flaw::EndlessDrain, "clause 1");
    check(Flaw::PastDeadline, "clause 2");
    check(Flaw::EarlyTimeout, "clause 3");
    check(Flaw::Backwards, "clause 4");
    check(Flaw::Noise, "clause 5");
    check(Flaw::Pieces, "clause 7");
    check(Flaw::AfterEnd, "clause 8");
    check(Flaw::Random, "clause 9");
}
