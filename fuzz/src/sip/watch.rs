//! What a user agent must keep to, seen from outside: the waits of RFC 5626 section 4.5, one ping
//! and one REGISTER at a time on a flow, pings as often as agreed, no more than six REGISTER requests
//! of a registration in a minute.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use sip_outbound::wire::{Message, Method, Name, ParseConfig};
use sip_outbound::{
    DatagramKind, FlowFailure, FlowId, Frame, Framer, FramerConfig, Instant, Recovery, Role,
    UserAgentEvent, classify,
};

use crate::sim::seconds;

/// How long a pong may take, and a message that is being received meanwhile.
const PONG: Duration = Duration::from_secs(10);
const MESSAGE: Duration = Duration::from_secs(30);

/// The first intervals between pings on a stream are as short as this, until it is known how long the
/// network bears silence.
const FIRST: Duration = Duration::from_secs(5);

/// A flow that has lived this long is good.
const LONG_LIFE: Duration = Duration::from_secs(20);

const MINUTE: Duration = Duration::from_secs(60);

/// A position in the outbound proxy set.
#[derive(Debug, Default)]
struct SlotWatch {
    /// Failures in a row.
    failures: u32,
    /// A pong came after the registration.
    proven: bool,
    /// When the flow was registered first.
    since: Option<Instant>,
    /// The death of a young flow was no failure.
    forgiven: bool,
    registered: Option<FlowId>,
    refused: bool,
    /// No flow may be opened earlier.
    not_before: Option<Instant>,
    /// What the last response to REGISTER asked for, in seconds.
    retry_after: Option<u32>,
}

/// One flow, in both directions.
#[derive(Debug)]
struct FlowWatch {
    sent: Framer,
    got: Framer,
    /// Over a connection.
    stream: bool,
    ping: Option<Instant>,
    /// STUN transactions, to tell repetitions.
    pings: BTreeSet<Vec<u8>>,
    /// The last ping, or the registration.
    since: Option<Instant>,
    /// When a ping went out last, as a repetition or not.
    last: Option<Instant>,
    /// The last pong.
    pong: Option<Instant>,
    bound: Option<Duration>,
    /// The CSeq of the REGISTER that is not answered.
    register: Option<u32>,
    answered: BTreeSet<u32>,
    /// Its REGISTER requests with credentials that were refused.
    rejections: u32,
    proving: bool,
    /// The connection did not take everything at once.
    congested: bool,
}

/// What is known of a user agent.
#[derive(Debug)]
pub(super) struct Watch {
    recovery: Recovery,
    hosts: Vec<&'static str>,
    slots: Vec<SlotWatch>,
    /// When REGISTER was sent in the last minute, by Call-ID.
    registers: BTreeMap<String, Vec<Instant>>,
    flows: BTreeMap<FlowId, FlowWatch>,
    /// The host is late now and then: nothing is said about what takes too long.
    pub(super) late: bool,
    /// Pings that went out.
    pub(super) pings: u64,
    /// Flows that failed.
    pub(super) failed: u64,
}

impl Watch {
    /// Nothing has happened yet. `hosts` are those of the outbound proxy set.
    pub(super) fn new(recovery: Recovery, hosts: &[&'static str]) -> Self {
        Self {
            recovery,
            hosts: hosts.to_vec(),
            slots: hosts.iter().map(|_| SlotWatch::default()).collect(),
            registers: BTreeMap::new(),
            flows: BTreeMap::new(),
            late: false,
            pings: 0,
            failed: 0,
        }
    }

    /// How many registrations are in force.
    pub(super) fn registered(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.registered.is_some())
            .count()
    }

    /// Whether all registrations were given up.
    pub(super) fn is_refused(&self) -> bool {
        self.slots.iter().all(|slot| slot.refused)
    }

    /// Whether one was.
    pub(super) fn any_refused(&self) -> bool {
        self.slots.iter().any(|slot| slot.refused)
    }

    /// Whether a registration runs over this flow.
    pub(super) fn is_registered(&self, flow: FlowId) -> bool {
        self.slots.iter().any(|slot| slot.registered == Some(flow))
    }

    fn slot_of_host(&mut self, host: &str) -> &mut SlotWatch {
        let at = self.hosts.iter().position(|known| *known == host);
        &mut self.slots[at.expect("a proxy of the set")]
    }

    /// The machine asks for a flow.
    pub(super) fn opening(&mut self, now: Instant, host: &str) {
        let slot = self.slot_of_host(host);
        let early = slot.not_before.filter(|at| now < *at);
        assert!(
            early.is_none(),
            "opens a flow to {host} at {}, before {:?}",
            seconds(now),
            early.map(seconds)
        );
    }

    /// A flow is open: a connection if `stream`.
    pub(super) fn opened(&mut self, now: Instant, flow: FlowId, stream: bool) {
        let framer = |role| Framer::new(FramerConfig::new(role), now);
        let watch = FlowWatch {
            sent: framer(Role::Server),
            got: framer(Role::Client),
            stream,
            ping: None,
            pings: BTreeSet::new(),
            since: None,
            last: None,
            pong: None,
            bound: None,
            register: None,
            answered: BTreeSet::new(),
            rejections: 0,
            proving: false,
            congested: false,
        };
        self.flows.insert(flow, watch);
    }

    /// A flow is not there any more.
    pub(super) fn closed(&mut self, flow: FlowId) {
        self.flows.remove(&flow);
    }

    /// The connection of a flow is full.
    pub(super) fn congested(&mut self, flow: FlowId) {
        if let Some(watch) = self.flows.get_mut(&flow) {
            watch.congested = true;
        }
    }

    /// Bytes go out over a stream.
    pub(super) fn sends(&mut self, now: Instant, flow: FlowId, mut data: &[u8]) {
        let Some(mut watch) = self.flows.remove(&flow) else {
            return;
        };
        while let Some(frame) = watch.sent.next(now, &mut data) {
            match frame {
                Frame::Ping => {
                    watch.got.ping_sent();
                    self.ping(now, flow, &mut watch);
                }
                Frame::Message(message) => {
                    if let Some(name) = watch.request(&message) {
                        self.register(now, name);
                    }
                }
                Frame::Pong | Frame::Broken { .. } => panic!("sends what is no SIP: {frame:?}"),
            }
        }
        self.flows.insert(flow, watch);
    }

    /// A datagram goes out.
    pub(super) fn sends_datagram(&mut self, now: Instant, flow: FlowId, data: &[u8]) {
        let Some(mut watch) = self.flows.remove(&flow) else {
            return;
        };
        match classify(data) {
            DatagramKind::Stun => {
                if watch.pings.insert(data[8..20].to_vec()) {
                    self.ping(now, flow, &mut watch);
                }
                watch.last = Some(now);
            }
            DatagramKind::Sip => {
                let message = Message::parse(data, &ParseConfig::default());
                if let Some(name) = watch.request(&message.expect("a message")) {
                    self.register(now, name);
                }
            }
            DatagramKind::KeepAlive => panic!("CRLF as a datagram"),
        }
        self.flows.insert(flow, watch);
    }

    fn ping(&mut self, now: Instant, flow: FlowId, watch: &mut FlowWatch) {
        let at = seconds(now);
        self.pings += 1;
        let first = self.slots.iter().any(|slot| slot.registered == Some(flow));
        let Some(since) = watch.since else {
            // At once, to prove the flow.
            assert!(
                first,
                "a ping at {at} before there is reason for one on {flow:?}"
            );
            (watch.ping, watch.since) = (Some(now), Some(now));
            return;
        };
        let Some(bound) = watch.bound else {
            // One that nobody has promised to answer.
            assert!(watch.stream && now.duration_since(since) >= FIRST * 4 / 5);
            (watch.ping, watch.since) = (None, Some(now));
            return;
        };
        assert!(watch.ping.is_none(), "a second ping at {at} on {flow:?}");
        let least = if watch.stream {
            bound.min(FIRST)
        } else {
            bound
        };
        let gap = now.duration_since(since);
        let silence = now.duration_since(watch.last.unwrap_or(since).max(since));
        let mut most = bound;
        if watch.congested {
            most += PONG;
        }
        let rounding = Duration::from_millis(1);
        // One that fell due before the pong came follows it at once.
        let late = self.late || watch.pong == Some(now);
        assert!(
            gap + rounding >= least * 4 / 5 && (late || silence <= most + rounding),
            "a ping at {at}, {gap:?} after the last; at most {bound:?} are agreed"
        );
        watch.congested = false;
        watch.ping = Some(now);
        watch.since = Some(now);
    }

    fn register(&mut self, now: Instant, name: String) {
        let sent = self.registers.entry(name).or_default();
        sent.retain(|sent| now.duration_since(*sent) < MINUTE);
        sent.push(now);
        let count = sent.len();
        assert!(
            count <= self.recovery.registers_per_minute,
            "{count} REGISTER in a minute"
        );
    }

    /// Bytes come in over a stream.
    pub(super) fn gets(&mut self, now: Instant, flow: FlowId, mut data: &[u8]) {
        let Some(mut watch) = self.flows.remove(&flow) else {
            return;
        };
        while let Some(frame) = watch.got.next(now, &mut data) {
            match frame {
                Frame::Pong => self.pong(now, flow, &mut watch),
                Frame::Message(message) => self.response(flow, &mut watch, &message),
                Frame::Ping | Frame::Broken { .. } => {}
            }
        }
        self.flows.insert(flow, watch);
    }

    /// A datagram comes in.
    pub(super) fn gets_datagram(&mut self, now: Instant, flow: FlowId, data: &[u8]) {
        let Some(mut watch) = self.flows.remove(&flow) else {
            return;
        };
        match classify(data) {
            DatagramKind::Stun => {
                if watch.pings.contains(&data[8..20]) {
                    self.pong(now, flow, &mut watch);
                }
            }
            DatagramKind::Sip => {
                if let Ok(message) = Message::parse(data, &ParseConfig::default()) {
                    self.response(flow, &mut watch, &message);
                }
            }
            DatagramKind::KeepAlive => {}
        }
        self.flows.insert(flow, watch);
    }

    fn pong(&mut self, now: Instant, flow: FlowId, watch: &mut FlowWatch) {
        if watch.ping.take().is_none() {
            return;
        }
        watch.pong = Some(now);
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| slot.registered == Some(flow));
        if let Some(slot) = slot {
            slot.proven = true;
            if slot.has_lived(now) {
                (slot.failures, slot.forgiven) = (0, false);
            }
        }
    }

    fn response(&mut self, flow: FlowId, watch: &mut FlowWatch, message: &Message) {
        let Ok(cseq) = message.cseq() else { return };
        let sip_outbound::wire::Start::Response {
            code: Some(code), ..
        } = message.start()
        else {
            return;
        };
        let register = cseq.method == Method::REGISTER.as_str();
        if !register || code.is_provisional() || watch.register != Some(cseq.number) {
            return;
        }
        watch.register = None;
        if !watch.answered.insert(cseq.number) {
            return;
        }
        if code.is_success() {
            watch.rejections = 0;
        }
        if code.number() == 401 && watch.proving {
            let stale = message
                .rows(Name::WWW_AUTHENTICATE)
                .any(|row| row.to_ascii_lowercase().contains("stale=true"));
            watch.rejections += u32::from(!stale);
        }
        let retry_after = message.only(Name::RETRY_AFTER).ok();
        let retry_after = retry_after.and_then(sip_outbound::wire::parse_retry_after);
        let recoverable = matches!(code.number(), 408 | 480 | 500..=599);
        if let Some(slot) = self
            .slots
            .iter_mut()
            .find(|slot| slot.registered == Some(flow))
        {
            // A refresh that fails keeps the flow, but counts.
            slot.failures += u32::from(recoverable);
        }
        for slot in &mut self.slots {
            slot.retry_after = retry_after.filter(|_| recoverable);
        }
    }

    /// The machine tells something.
    pub(super) fn event(&mut self, now: Instant, event: &UserAgentEvent) {
        match event {
            UserAgentEvent::Registered {
                reg_id,
                flow,
                registration,
            } => {
                let slot = &mut self.slots[*reg_id as usize - 1];
                slot.registered = Some(*flow);
                slot.since = slot.since.or(Some(now));
                slot.not_before = None;
                if let Some(watch) = self.flows.get_mut(flow) {
                    watch.bound = registration.keep_alive;
                }
            }
            UserAgentEvent::FlowFailed {
                reg_id: Some(reg_id),
                cause,
                retry_in,
                ..
            } => self.flow_failed(now, *reg_id as usize - 1, *cause, *retry_in),
            UserAgentEvent::Refused { reg_id, .. } => {
                let slot = &mut self.slots[*reg_id as usize - 1];
                slot.refused = true;
                slot.registered = None;
            }
            UserAgentEvent::Unregistered { reg_id } => {
                self.slots[*reg_id as usize - 1].registered = None;
            }
            _ => {}
        }
    }

    fn flow_failed(
        &mut self,
        now: Instant,
        index: usize,
        cause: FlowFailure,
        retry_in: Option<Duration>,
    ) {
        self.failed += 1;
        let mut others = self.slots.iter().enumerate();
        let alive = others.any(|(at, slot)| at != index && slot.registered.is_some());
        let base = if alive {
            self.recovery.base_some_alive
        } else {
            self.recovery.base_all_failed
        };
        let slot = &mut self.slots[index];
        slot.registered = None;
        let forgiven = slot.is_forgiven(now);
        (slot.proven, slot.since) = (false, None);
        if !forgiven {
            slot.failures += 1;
        }
        let busy = |sent: &Vec<Instant>| sent.len() >= self.recovery.registers_per_minute;
        let paced = self.registers.values().any(busy);
        let Some(wait) = retry_in else { return };
        let failures = slot.failures;
        slot.not_before = now.checked_add(wait);
        let most = if forgiven {
            Duration::ZERO
        } else {
            let factor = 2_u32.saturating_pow(failures);
            base.saturating_mul(factor).min(self.recovery.max)
        };
        let shown = format!("{wait:?} after {failures} failures, {cause:?}, other alive: {alive}");
        let asked = slot
            .retry_after
            .take()
            .filter(|_| matches!(cause, FlowFailure::Failed(_)));
        match asked.map(|seconds| Duration::from_secs(u64::from(seconds))) {
            Some(asked) if failures <= 1 => assert!(wait == asked || paced, "{shown}"),
            Some(asked) => assert!(wait >= asked.max(most / 2), "{shown}, asked {asked:?}"),
            None if paced => assert!(wait >= most / 2 && wait <= most.max(MINUTE), "{shown}"),
            None => assert!(wait >= most / 2 && wait <= most, "{shown}"),
        }
    }

    /// What holds at any time.
    pub(super) fn check(&self, now: Instant) {
        for (flow, watch) in &self.flows {
            if let Some(ping) = watch.ping {
                let waited = now.duration_since(ping);
                // STUN is repeated for 39.5 s.
                let most = PONG + MESSAGE;
                assert!(
                    self.late || waited <= most,
                    "{flow:?} waits {waited:?} for a pong"
                );
            }
            // Those of an old nonce, and then those of a new one.
            assert!(watch.rejections <= 2, "goes on after a second rejection");
        }
    }
}

impl SlotWatch {
    fn has_lived(&self, now: Instant) -> bool {
        self.since
            .is_some_and(|since| now.duration_since(since) >= LONG_LIFE)
    }

    /// Whether the death of its flow does not count.
    fn is_forgiven(&mut self, now: Instant) -> bool {
        if self.has_lived(now) {
            (self.failures, self.forgiven) = (0, false);
            return true;
        }
        self.proven && self.failures == 0 && !core::mem::replace(&mut self.forgiven, true)
    }
}

impl FlowWatch {
    /// The Call-ID of a REGISTER that is sent for the first time and is no removal.
    fn request(&mut self, message: &Message) -> Option<String> {
        if message.method() != Method::REGISTER.as_str() || !message.is_request() {
            return None;
        }
        let cseq = message.cseq().expect("CSeq").number;
        if self.register == Some(cseq) {
            // Sent again, over datagrams.
            return None;
        }
        let open = self.register;
        assert!(
            open.is_none(),
            "REGISTER {cseq} while {open:?} is not answered"
        );
        self.register = Some(cseq);
        let answers = |row: &str| row.contains("response=\"") && !row.contains("response=\"\"");
        self.proving = message.rows(Name::AUTHORIZATION).any(answers);
        let branch = message.via(&sip_outbound::wire::Limits::DEFAULT);
        let branch = branch.ok().and_then(|via| via.branch().map(str::to_owned));
        assert!(branch.is_some_and(|branch| branch.starts_with("z9hG4bK")));
        let removal = message
            .rows(Name::CONTACT)
            .any(|row| row.ends_with("expires=0"));
        let name = message.only(Name::CALL_ID).expect("Call-ID");
        (!removal).then(|| name.to_owned())
    }
}
