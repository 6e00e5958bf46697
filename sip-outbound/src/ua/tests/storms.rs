//! Registrars that misbehave, and how often they are asked.

use super::*;

/// What a registrar does to a REGISTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// 200 as it should be.
    Accepts,
    /// 200 without outbound.
    AcceptsPlainly,
    /// 200 for a binding that ends in a moment.
    AcceptsBriefly,
    /// 200 that lists nothing of ours.
    Forgets,
    /// 200 that lists nothing.
    SaysNothing,
    Challenges,
    SaysStale,
    WantsLonger,
    Refuses(u16),
    RefusesForZero,
    Ignores,
    Closes,
    SendsGarbage,
}

const DEEDS: [Deed; 20] = [
    Deed::Accepts,
    Deed::AcceptsPlainly,
    Deed::AcceptsBriefly,
    Deed::Forgets,
    Deed::SaysNothing,
    Deed::Challenges,
    Deed::SaysStale,
    Deed::WantsLonger,
    Deed::Refuses(403),
    Deed::Refuses(404),
    Deed::Refuses(420),
    Deed::Refuses(430),
    Deed::Refuses(481),
    Deed::Refuses(500),
    Deed::Refuses(503),
    Deed::Refuses(600),
    Deed::RefusesForZero,
    Deed::Ignores,
    Deed::Closes,
    Deed::SendsGarbage,
];

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stays,
    ClosesAfter(u64),
}

const ENDS: [Then; 6] = [
    Then::Stays,
    Then::ClosesAfter(0),
    Then::ClosesAfter(20),
    Then::ClosesAfter(1_000),
    Then::ClosesAfter(15_000),
    Then::ClosesAfter(21_000),
];

/// A registrar that does `deed` to each REGISTER and `then` to the connection.
struct Script {
    bench: Bench,
    pongs: bool,
    /// By Call-ID, which names the registration.
    registers: Vec<(String, u64)>,
    closing: Vec<(u64, FlowId)>,
}

impl Script {
    fn new(proxies: usize, pongs: bool, seed: u8) -> Self {
        let mut config = config(proxies);
        config.keep_alive.first = Duration::from_secs(5);
        let mut bench = seeded(config, seed);
        bench.first_ping = FirstPing::Shown;
        bench.ua.start(at(0));
        Self {
            bench,
            pongs,
            registers: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Goes on for `ms`.
    fn run(&mut self, ms: u64, mut script: impl FnMut() -> (Deed, Then)) {
        let end = self.bench.ms() + ms;
        loop {
            self.answer_all(&mut script);
            let next = self.bench.ua.poll_timeout();
            let due = self.closing.iter().map(|(ms, _)| at(*ms)).min();
            let Some(next) = next
                .into_iter()
                .chain(due)
                .min()
                .filter(|next| *next <= at(end))
            else {
                self.bench.now = at(end);
                return;
            };
            self.bench.now = self.bench.now.max(next);
            self.bench.ua.handle_timeout(self.bench.now);
            let now = self.bench.ms();
            let closing = core::mem::take(&mut self.closing);
            for (ms, flow) in closing {
                if ms <= now {
                    self.bench.ua.handle_flow_closed(self.bench.now, flow);
                } else {
                    self.closing.push((ms, flow));
                }
            }
        }
    }

    fn answer_all(&mut self, script: &mut impl FnMut() -> (Deed, Then)) {
        let mut rounds = 0;
        loop {
            self.bench.open();
            self.bench.events.clear();
            if self.bench.sent.is_empty() {
                return;
            }
            rounds += 1;
            assert!(rounds < 100, "at {} ms", self.bench.ms());
            let (flow, bytes) = self.bench.sent.remove(0);
            if bytes == b"\r\n\r\n" {
                if self.pongs {
                    self.bench.input(flow, b"\r\n");
                }
            } else {
                self.bench.sent.insert(0, (flow, bytes));
                let (_, request) = self.bench.next_request();
                let sent = (request.call_id().into(), self.bench.ms());
                self.registers.push(sent);
                let (deed, then) = script();
                self.deal(flow, &request, deed);
                if let Then::ClosesAfter(ms) = then {
                    self.closing.push((self.bench.ms() + ms, flow));
                }
            }
        }
    }

    fn deal(&mut self, flow: FlowId, request: &Request, deed: Deed) {
        let contact = request.only(Name::CONTACT).unwrap();
        let bench = &mut self.bench;
        let challenge = |stale: bool| {
            let nonce = bench.now.as_nanos();
            alloc::format!(
                "Digest realm=\"ims.example.com\",nonce=\"{nonce}\",qop=\"auth\",algorithm=SHA-256,stale={stale}"
            )
        };
        match deed {
            Deed::Accepts => {
                let rows = [("Contact", contact), ("Require", "outbound")];
                bench.answer(flow, request, 200, &rows);
            }
            Deed::AcceptsPlainly => bench.answer(flow, request, 200, &[("Contact", contact)]),
            Deed::AcceptsBriefly => {
                let (uri, _) = contact.split_once(";expires").unwrap();
                let brief = alloc::format!("{uri};expires=1");
                bench.answer(flow, request, 200, &[("Contact", &brief)]);
            }
            Deed::Forgets => {
                let other = "<sip:x@y>;reg-id=7;+sip.instance=\"<urn:other>\"";
                bench.answer(flow, request, 200, &[("Contact", other)]);
            }
            Deed::SaysNothing => bench.answer(flow, request, 200, &[]),
            Deed::Challenges | Deed::SaysStale => {
                let text = challenge(deed == Deed::SaysStale);
                bench.answer(flow, request, 401, &[("WWW-Authenticate", &text)]);
            }
            Deed::WantsLonger => {
                bench.answer(flow, request, 423, &[("Min-Expires", "100000")]);
            }
            Deed::Refuses(code) => bench.answer(flow, request, code, &[]),
            Deed::RefusesForZero => bench.answer(flow, request, 503, &[("Retry-After", "0")]),
            Deed::Ignores => {}
            Deed::Closes => {
                bench.ua.handle_flow_closed(bench.now, flow);
                bench.drain();
            }
            Deed::SendsGarbage => bench.input(flow, b"HTTP/1.1 200 OK\r\n\r\n"),
        }
    }

    /// The most REGISTER requests of one registration in any minute.
    fn busiest_minute(&self) -> usize {
        let in_minute = |(name, from): &(String, u64)| {
            let rows = self.registers.iter();
            rows.filter(|(other, ms)| other == name && (*from..from + 60_000).contains(ms))
                .count()
        };
        self.registers.iter().map(in_minute).max().unwrap_or(0)
    }
}

#[test]
fn no_single_misbehaviour_of_a_registrar_draws_more_than_six_registers_a_minute() {
    for deed in DEEDS {
        for then in ENDS {
            for pongs in [true, false] {
                let mut script = Script::new(1, pongs, 7);
                script.run(1_800_000, || (deed, then));
                let busiest = script.busiest_minute();
                assert!(busiest <= 6, "{deed:?} {then:?} {pongs}: {busiest}");
            }
        }
    }
}

#[test]
fn no_mixture_of_misbehaviours_draws_more_than_six_registers_a_minute() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed([seed; 32]);
        let proxies = 1 + rng.below(4) as usize;
        let mut script = Script::new(proxies.max(1), rng.below(2) == 0, seed);
        for _ in 0..20 {
            let draw = || {
                let deed = DEEDS[rng.below(DEEDS.len() as u32) as usize];
                let then = ENDS[rng.below(ENDS.len() as u32) as usize];
                (deed, then)
            };
            script.run(60_000, draw);
            // The host, too, does what it can.
            let now = script.bench.now;
            match rng.below(4) {
                0 => script.bench.ua.network_changed(now),
                1 => script.bench.ua.retry_now(now, 1),
                2 => {
                    let end = RegistrationEnd::Deactivated;
                    script.bench.ua.registration_ended(now, 1, end);
                }
                _ => {}
            }
        }
        let busiest = script.busiest_minute();
        assert!(busiest <= 6, "seed {seed}: {busiest}");
    }
}

/// What a registrar says when it means well.
const WELL: (Deed, Then) = (Deed::Accepts, Then::Stays);

#[test]
fn whatever_a_registrar_did_it_is_registered_with_once_it_is_well_again() {
    for deed in DEEDS {
        let mut script = Script::new(1, true, 7);
        // It has accepted before.
        script.run(100_000, || WELL);
        script.run(3_600_000, || (deed, Then::ClosesAfter(20)));
        script.run(3_600_000, || WELL);
        assert!(
            script.bench.ua.slots[0].registered_flow().is_some(),
            "{deed:?}"
        );
    }
}

// spec: OUT-4.5-3
#[test]
fn a_registrar_without_outbound_that_closes_is_not_stormed() {
    for (pongs, most) in [(false, 1), (true, 2)] {
        let mut script = Script::new(1, pongs, 7);
        let then = Then::ClosesAfter(20);
        script.run(8_000, || (Deed::AcceptsPlainly, then));
        assert!(script.registers.len() <= most, "{:?}", script.registers);
        script.run(52_000, || (Deed::AcceptsPlainly, then));
        assert!(script.registers.len() <= most + 1, "{:?}", script.registers);
        // Ever more rarely.
        script.run(3_540_000, || (Deed::AcceptsPlainly, then));
        assert!(script.registers.len() <= most + 8, "{:?}", script.registers);
    }
}

#[test]
fn a_flow_that_has_lived_is_made_anew_at_once_and_a_young_one_once() {
    let mut bench = bench(config(1));
    let mut flow = bench.start()[0];
    // Always at once, at different ages.
    for age in [21_000, 27_000, 34_000, 43_000, 54_000] {
        bench.accept(&[]);
        bench.run_for(age);
        bench.ua.handle_flow_closed(bench.now, flow);
        flow = bench.open()[0];
        assert_eq!(bench.failure().unwrap().1, Some(Duration::ZERO));
    }
    // After a moment: the first time at once, a pong had come; then with waits that grow.
    bench.accept(&[]);
    bench.ua.handle_flow_closed(bench.now, flow);
    flow = bench.open()[0];
    assert_eq!(bench.failure().unwrap().1, Some(Duration::ZERO));
    for (low, high) in [(30, 60), (60, 120), (120, 240)] {
        bench.accept(&[]);
        bench.ua.handle_flow_closed(bench.now, flow);
        bench.drain();
        let wait = bench.failure().unwrap().1.unwrap();
        assert!((low..=high).contains(&wait.as_secs()), "{wait:?}");
        bench.run_for(wait.as_millis() as u64 + 1);
        flow = bench.open()[0];
    }
}

/// Registers plainly, with a registrar that answers pings as `pongs` says; what was sent in the
/// next `ms`, and whether the flow lived.
fn plain(pongs: bool, ms: u64, unasked: bool) -> (Vec<u64>, bool) {
    let mut config = config(1);
    config.keep_alive.unasked = unasked;
    config.expires = 1_000_000;
    let mut script = Script::new(1, pongs, 7);
    script.bench = bench(config);
    script.bench.first_ping = FirstPing::Shown;
    script.bench.ua.start(at(0));
    let bench = &mut script.bench;
    let flow = bench.open()[0];
    let (_, register) = bench.next_request();
    let contact = String::from(register.only(Name::CONTACT).unwrap());
    bench.answer(flow, &register, 200, &[("Contact", &contact)]);
    let mut pings = Vec::new();
    while bench.ms() < ms {
        for (_, bytes) in bench.sent.drain(..).collect::<Vec<_>>() {
            assert_eq!(bytes, b"\r\n\r\n");
            pings.push(bench.ms());
            // Only the first one is answered.
            if pongs && pings.len() == 1 {
                bench.input(flow, b"\r\n");
            }
        }
        let next = bench
            .ua
            .poll_timeout()
            .map_or(at(ms), |next| next.min(at(ms)));
        bench.now = next;
        bench.ua.handle_timeout(next);
        bench.drain();
    }
    (pings, !bench.closed(flow))
}

// spec: OUT-4.4-3
#[test]
fn a_plain_registration_has_pings_as_well_and_misses_only_pongs_that_had_come() {
    let (pings, alive) = plain(false, 600_000, true);
    assert!(alive && (5..=7).contains(&pings.len()), "{pings:?}");
    let (pings, alive) = plain(true, 600_000, true);
    assert!(!alive && pings.len() == 2, "{pings:?}");
    let (pings, alive) = plain(false, 600_000, false);
    assert!(alive && pings.is_empty(), "{pings:?}");
}

/// A refresh is answered in this way; what follows is shown.
fn refreshed(code: u16, rows: &[(&str, &str)]) -> (Bench, FlowId) {
    let mut bench = bench(config(1));
    let flow = bench.start()[0];
    let (_, register) = bench.next_request();
    let contact = "<sip:alice@10.7.0.9:40112;transport=tcp>;expires=60";
    let all = [("Contact", contact), ("Require", "outbound")];
    bench.answer(flow, &register, 200, &all);
    bench.run_for(30_000);
    bench.events.clear();
    let (_, refresh) = bench.next_request();
    bench.answer(flow, &refresh, code, rows);
    (bench, flow)
}

// spec: OUT-4.2.2-2
#[test]
fn a_refusal_of_a_refresh_keeps_the_binding_and_is_followed_by_further_attempts() {
    for code in [400, 403, 404, 420, 430, 439, 480, 481, 600, 603] {
        let (mut bench, flow) = refreshed(code, &[]);
        assert!(bench.events.is_empty() && !bench.closed(flow), "{code}");
        // Once more before it expires.
        bench.run_for(15_000);
        let (_, again) = bench.next_request();
        bench.answer(flow, &again, code, &[]);
        bench.run_for(14_999);
        assert!(!bench.closed(flow));
        // Then over another flow, and with waits.
        bench.run_for(1);
        assert_eq!(bench.failure().unwrap().0, FlowFailure::Expired);
        for _ in 0..3 {
            bench.sent.clear();
            let flow = loop {
                if let [flow] = bench.open()[..] {
                    break flow;
                }
                bench.now = bench.ua.poll_timeout().unwrap();
                bench.ua.handle_timeout(bench.now);
            };
            let (_, register) = bench.next_request();
            bench.answer(flow, &register, code, &[]);
            let (cause, wait) = bench.failure().unwrap();
            let passes = [480].contains(&code);
            let status = StatusCode::new(code).unwrap();
            let expected = if passes {
                FlowFailure::Failed(status)
            } else {
                FlowFailure::Refused(Refusal::Status(status))
            };
            assert_eq!(cause, expected);
            assert!(wait.unwrap() >= Duration::from_secs(30), "{code} {wait:?}");
        }
    }
}

const CHALLENGE: &str =
    "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";

// spec: SIP-22.1-2
#[test]
fn credentials_that_were_right_and_are_rejected_wait_for_the_end_of_the_binding() {
    let (mut bench, flow) = refreshed(401, &[("WWW-Authenticate", CHALLENGE)]);
    let (_, again) = bench.next_request();
    bench.answer(flow, &again, 401, &[("WWW-Authenticate", CHALLENGE)]);
    bench.run_for(29_999);
    assert!(bench.events.is_empty() && bench.sent.is_empty() && !bench.closed(flow));
    bench.run_for(1);
    assert_eq!(bench.failure().unwrap().0, FlowFailure::Expired);
    let flow = bench.open()[0];
    bench.accept(&[]);
    assert!(bench.ua.slots[0].registered_flow() == Some(flow));
}

#[test]
fn a_third_stale_nonce_is_followed_by_a_wait() {
    let mut bench = bench(config(1));
    let flow = bench.start()[0];
    for n in 0..4 {
        let (_, register) = bench.next_request();
        let challenge = alloc::format!(
            "{},stale=true",
            CHALLENGE.replace("\"n\"", &alloc::format!("\"n{n}\""))
        );
        bench.answer(flow, &register, 401, &[("WWW-Authenticate", &challenge)]);
    }
    let (cause, wait) = bench.failure().unwrap();
    let stale = Refusal::Authentication(crate::digest::AuthFailure::Stale);
    assert_eq!(cause, FlowFailure::Refused(stale));
    assert!(wait.unwrap() >= Duration::from_secs(30));
}

#[test]
fn a_refused_registration_can_be_tried_again() {
    let mut bench = bench(config(1));
    let flow = bench.start()[0];
    let (_, register) = bench.next_request();
    bench.answer(flow, &register, 403, &[]);
    let forbidden = Refusal::Status(StatusCode::new(403).unwrap());
    assert_eq!(bench.refusal(), Some(forbidden));
    bench.ua.retry_now(bench.now, 1);
    assert_eq!(bench.open().len(), 1);
    bench.accept(&[]);
    assert_eq!(bench.kinds(), "Registered");
}

#[test]
fn another_network_revives_what_was_refused_but_not_a_wrong_password() {
    for (wrong, opened) in [(false, 1), (true, 0)] {
        let mut bench = bench(config(1));
        let flow = bench.start()[0];
        for _ in 0..2 {
            let (_, register) = bench.next_request();
            if wrong {
                bench.answer(flow, &register, 401, &[("WWW-Authenticate", CHALLENGE)]);
            } else {
                bench.answer(flow, &register, 403, &[]);
                break;
            }
        }
        assert!(bench.refusal().is_some());
        bench.ua.network_changed(bench.now);
        assert_eq!(bench.open().len(), opened);
    }
}

// spec: SIP-10.2.4-1
#[test]
fn a_binding_that_was_rewritten_on_the_way_is_still_ours() {
    let instance = alloc::format!("+sip.instance=\"<{URN}>\"");
    let rewritten = [
        // Without ;transport.
        ("<sip:alice@10.7.0.9:40112>;expires=600".into(), Some(600)),
        // To what the registrar sees.
        (
            "<sip:alice@198.51.100.7:61234>;expires=700".into(),
            Some(700),
        ),
        ("<sip:sbc.example.com:5080>;expires=700".into(), Some(700)),
        // The instance without reg-id.
        (
            alloc::format!("<sip:x@y>;{instance};expires=800"),
            Some(800),
        ),
        // Beside others.
        (
            alloc::format!(
                "<sip:old@z>;expires=10, <sip:x@y>;expires=900, <sip:alice@h>;reg-id=2;{instance};expires=1000"
            ),
            Some(900),
        ),
        // Without a time of its own, and without any word of it.
        ("<sip:x@y>".into(), Some(3600)),
        (String::new(), Some(3600)),
    ];
    for (contact, expires) in rewritten {
        let mut bench = bench(config(1));
        let flow = bench.start()[0];
        let (_, register) = bench.next_request();
        let mut rows = alloc::vec![("Require", "outbound")];
        if !contact.is_empty() {
            rows.push(("Contact", contact.as_str()));
        }
        bench.answer(flow, &register, 200, &rows);
        let granted = bench.events.iter().find_map(|event| match event {
            UserAgentEvent::Registered { registration, .. } => Some(registration.expires),
            _ => None,
        });
        assert_eq!(granted, expires, "{contact}");
    }
    // One for no time is none; neither is another device's.
    for contact in [
        alloc::format!("<sip:x@y>;reg-id=1;{instance};expires=0"),
        "<sip:x@y>;reg-id=1;+sip.instance=\"<urn:other>\"".into(),
    ] {
        let mut bench = bench(config(1));
        let flow = bench.start()[0];
        let (_, register) = bench.next_request();
        bench.answer(flow, &register, 200, &[("Contact", &contact)]);
        let (cause, wait) = bench.failure().unwrap();
        assert_eq!(cause, FlowFailure::Refused(Refusal::NotBound));
        assert!(wait.unwrap() >= Duration::from_secs(30));
    }
}
