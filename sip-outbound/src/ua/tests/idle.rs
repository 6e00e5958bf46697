//! Firewalls that forget connections sooner than the edge knows.

extern crate std;

use std::eprintln;

use super::*;

/// A network that swallows what comes over a connection that was silent for too long.
struct Firewall {
    bench: Bench,
    forgets: u64,
    flow_timer: &'static str,
    /// The flow that is up, and when a byte last passed; `None` when it is forgotten.
    alive: Option<(FlowId, u64)>,
    registers: usize,
    pings: Vec<u64>,
}

impl Firewall {
    fn new(forgets: u64, flow_timer: &'static str) -> Self {
        let mut config = config(1);
        config.keep_alive.first = KeepAlive::default().first;
        let mut bench = bench(config);
        bench.first_ping = FirstPing::Shown;
        bench.ua.start(at(0));
        Self {
            bench,
            forgets,
            flow_timer,
            alive: None,
            registers: 0,
            pings: Vec::new(),
        }
    }

    /// Runs for `ms`; for how many of them a request could have come down the flow.
    fn run(&mut self, ms: u64) -> u64 {
        let (start, mut reachable) = (self.bench.ms(), 0);
        loop {
            self.pass();
            let now = self.bench.ms();
            let next = self.bench.ua.poll_timeout().unwrap();
            let next = (next.duration_since(at(0)).as_millis() as u64).min(start + ms);
            if let Some((flow, last)) = self.alive
                && self.bench.ua.slots[0].registered_flow() == Some(flow)
            {
                reachable += next.min(last + self.forgets).saturating_sub(now);
            }
            self.bench.now = at(next);
            if next >= start + ms {
                return reachable;
            }
            self.bench.now = self.bench.ua.poll_timeout().unwrap();
            self.bench.ua.handle_timeout(self.bench.now);
        }
    }

    fn pass(&mut self) {
        loop {
            for flow in self.bench.open() {
                self.alive = Some((flow, self.bench.ms()));
            }
            if self.bench.sent.is_empty() {
                return;
            }
            let now = self.bench.ms();
            let flow = self.bench.sent[0].0;
            let passes = self
                .alive
                .is_some_and(|(alive, last)| alive == flow && now <= last + self.forgets);
            if !passes {
                self.bench.sent.remove(0);
                continue;
            }
            self.alive = Some((flow, now));
            if self.bench.sent[0].1 == b"\r\n\r\n" {
                self.bench.sent.remove(0);
                self.pings.push(now);
                self.bench.input(flow, b"\r\n");
            } else {
                self.registers += 1;
                self.bench.accept(&[("Flow-Timer", self.flow_timer)]);
            }
        }
    }
}

const MINUTES_12: u64 = 720_000;

// spec: PRI-10-1
#[test]
fn behind_a_firewall_that_forgets_after_12_s_it_is_registered_97_percent_of_12_minutes() {
    for flow_timer in ["20", "60", "120", "0"] {
        let mut firewall = Firewall::new(12_000, flow_timer);
        let share = firewall.run(MINUTES_12) as f64 / MINUTES_12 as f64;
        let registers = firewall.registers;
        eprintln!(
            "Flow-Timer {flow_timer}: {:.2} %, {registers} REGISTERs",
            share * 100.0
        );
        assert!(share > 0.97, "{flow_timer}: {share}");
    }
}

#[test]
fn what_was_learned_of_a_network_is_used_when_it_is_entered_again() {
    let mut first = Firewall::new(12_000, "60");
    first.run(MINUTES_12);
    let known = first.bench.ua.idle_time();
    assert!(
        known
            .limit
            .is_some_and(|limit| limit <= Duration::from_secs(12))
    );
    let mut second = Firewall::new(12_000, "60");
    second.bench.ua.set_idle_time(at(0), known);
    assert_eq!(second.run(MINUTES_12), MINUTES_12);
    assert_eq!(second.registers, 1);
    assert_eq!(second.bench.ua.idle_time().limit, known.limit);
    // Another network is another matter.
    second.bench.ua.network_changed(second.bench.now);
    assert_eq!(second.bench.ua.idle_time(), IdleTime::default());
}

#[test]
fn intervals_grow_to_what_the_edge_asks_for() {
    let mut firewall = Firewall::new(1_000_000, "100");
    firewall.run(MINUTES_12);
    let gaps: Vec<_> = firewall
        .pings
        .windows(2)
        .map(|two| two[1] - two[0])
        .collect();
    assert_eq!((firewall.pings[0], firewall.registers), (0, 1));
    assert!((4_000..=5_000).contains(&gaps[0]), "{gaps:?}");
    let mut survived = 0;
    for gap in &gaps {
        assert!(*gap <= (survived * 3 / 2).max(5_000), "{gaps:?}");
        survived = survived.max(*gap);
    }
    let last = gaps[gaps.len() - 1];
    assert!((80_000..=100_000).contains(&last), "{gaps:?}");
}

#[test]
fn a_limit_is_questioned_after_a_day() {
    let mut firewall = Firewall::new(12_000, "60");
    firewall.run(MINUTES_12);
    // The firewall is replaced.
    firewall.forgets = 1_000_000;
    firewall.run(25 * 3_600_000);
    assert_eq!(firewall.bench.ua.idle_time().limit, None);
    let pings = &firewall.pings;
    assert!(pings[pings.len() - 1] - pings[pings.len() - 2] >= 48_000);
}

#[test]
fn a_network_that_was_down_teaches_nothing_about_silence() {
    let mut config = config(1);
    config.keep_alive.first = KeepAlive::default().first;
    let (mut bench, flows) = Bench::registered(config, &[]);
    // No pong; and the next flow cannot be opened.
    while !bench.closed(flows[0]) {
        bench.now = bench.ua.poll_timeout().unwrap();
        bench.ua.handle_timeout(bench.now);
        bench.drain();
    }
    let next = bench.actions.iter().find_map(|action| match action {
        FlowAction::OpenFlow { flow, .. } => Some(*flow),
        _ => None,
    });
    bench.actions.clear();
    bench.sent.clear();
    bench.ua.flow_failed(bench.now, next.unwrap());
    bench.run_for(60_000);
    bench.open();
    bench
        .sent
        .retain(|(_, bytes)| bytes.starts_with(b"REGISTER"));
    bench.accept(&[]);
    assert_eq!(bench.ua.idle_time().limit, None);
}
