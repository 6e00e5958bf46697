//! The registrar as an entry function: any bytes are a run.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use http_connect::Rng;
use http_connect::auth::{HashAlgorithm, ha1};
use sip_outbound::wire::{Limits, Message, Name, Request, Response, StatusCode, UriBuf};
use sip_outbound::{
    Account, DigestAttempt, DigestClient, DigestPolicy, FlowId, Instant, KeyAnswer, Registrar,
    RegistrarConfig, Target, Ticket,
};

use super::model::Model;
use super::speech::request;
use super::{RegistrarIn, RegistrarMachine, RegistrarOut};
use crate::contract::Checked;
use crate::sim::Choices;

const AORS: [&str; 2] = ["sip:alice@example.com", "sip:bob@example.com"];
const INSTANCES: [&str; 3] = [
    "urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee",
    "urn:uuid:0A1B2C3D-0000-4000-8000-00AABBCCDDEE",
    "urn:x:device",
];

fn config(digest: bool) -> RegistrarConfig {
    let mut config = RegistrarConfig::new("example.com");
    if !digest {
        config.digest = None;
    }
    config.max_bindings = 4;
    config.max_total = 6;
    config.max_pending = 2;
    config.service_route = vec![UriBuf::parse("sip:home.example.com;lr").expect("a URI")];
    config
}

/// A run: the registrar, what it must hold, and a client that can answer its challenges.
struct Run {
    machine: Checked<RegistrarMachine>,
    model: Model,
    now: Instant,
    digest: bool,
    client: DigestClient,
    rng: Rng,
    cseq: u32,
    /// REGISTER requests sent before.
    sent: Vec<Request>,
    /// Those whose key is being looked up.
    pending: Vec<(Ticket, Request, Option<FlowId>)>,
    /// Credentials that were accepted.
    accepted: BTreeSet<String>,
}

/// A registrar under operations drawn from the bytes, compared with the model after each.
pub fn ops_sip_registrar(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let digest = choices.flip();
    let now = Instant::ZERO;
    let machine = Checked::new("registrar", now, move || {
        let registrar = Registrar::new(config(digest), [7; 32], Instant::ZERO);
        let registrar = registrar.expect("the configuration is good");
        RegistrarMachine::new(registrar, 6)
    });
    let account = Account::new("alice", "secret", "example.com");
    let mut run = Run {
        machine,
        model: Model::new(&config(digest)),
        now,
        digest,
        client: DigestClient::new(vec![account], DigestPolicy::default()),
        rng: Rng::from_seed([7; 32]),
        cseq: 1,
        sent: Vec::new(),
        pending: Vec::new(),
        accepted: BTreeSet::new(),
    };
    let mut steps = 0;
    while !choices.is_spent() && steps < 200 {
        steps += 1;
        run.step(&mut choices);
        let registrar = &run.machine.machine().registrar;
        run.model.check(registrar, &AORS);
    }
    run.machine.finish(&mut choices);
}

impl Run {
    fn step(&mut self, choices: &mut Choices) {
        let longest = *choices.pick(&[0, 0, 1, 30, 400, 4000]);
        self.now += choices.duration(Duration::from_secs(longest));
        match choices.below(10) {
            0 => self.timeout(),
            1 => {
                let flow = FlowId(choices.below(3));
                self.model.expire(self.now);
                self.model.flow_closed(flow);
                self.input(RegistrarIn::FlowClosed(flow));
            }
            2 => self.drop_one(choices),
            3 if !self.sent.is_empty() => {
                let again = choices.pick(&self.sent).clone();
                let flow = flow(choices);
                self.register(flow, again);
            }
            4 if !self.pending.is_empty() => self.key(choices),
            _ => {
                if let Some(request) = self.make(choices) {
                    let flow = flow(choices);
                    self.register(flow, request);
                }
                if choices.chance(700) && !self.pending.is_empty() {
                    self.key(choices);
                }
            }
        }
    }

    fn timeout(&mut self) {
        // Whoever is late tells the time first.
        self.model.expire(self.now);
        for output in self.machine.timeout(self.now) {
            self.aside(&output);
        }
    }

    /// What may come with every output.
    fn aside(&mut self, output: &RegistrarOut) {
        match output {
            RegistrarOut::Event(event) => self.model.event(event),
            RegistrarOut::Late(ticket, response) => {
                let response = Response::check(response.clone(), &Limits::DEFAULT);
                assert_eq!(
                    response.expect("a response").code(),
                    StatusCode::SERVER_ERROR
                );
                self.pending.retain(|(known, ..)| known != ticket);
            }
            RegistrarOut::Respond(_)
            | RegistrarOut::NeedKey(..)
            | RegistrarOut::NoTicket
            | RegistrarOut::Targets(_) => {}
        }
    }

    fn input(&mut self, input: RegistrarIn) -> Vec<RegistrarOut> {
        let outputs = self.machine.input(self.now, input);
        for output in &outputs {
            self.aside(output);
        }
        outputs
    }

    fn drop_one(&mut self, choices: &mut Choices) {
        let aor = *choices.pick(&AORS);
        let uri = UriBuf::parse(aor).expect("a URI");
        let registrar = &self.machine.machine().registrar;
        let mut targets = registrar.targets(&uri.as_uri()).expect("our domain");
        let device = choices.index(targets.len());
        if let Some(target @ Target { binding, .. }) = targets.first(device) {
            self.model.drop_target(aor, &target);
            self.input(RegistrarIn::Drop(binding));
        }
    }

    fn register(&mut self, flow: Option<FlowId>, request: Request) {
        if self.sent.len() < 16 {
            self.sent.push(request.clone());
        }
        self.model.expire(self.now);
        let first = self
            .machine
            .input(self.now, RegistrarIn::Register(flow, request.clone()));
        for output in first {
            match output {
                RegistrarOut::Respond(answer) => self.answered(flow, &request, &answer, false),
                RegistrarOut::NeedKey(ticket, ..) => {
                    self.pending.push((ticket, request.clone(), flow));
                }
                output => self.aside(&output),
            }
        }
    }

    /// The host answers one of the questions.
    fn key(&mut self, choices: &mut Choices) {
        let (ticket, request, flow) = self.pending.remove(choices.index(self.pending.len()));
        let hash = request
            .rows(Name::AUTHORIZATION)
            .any(|row| row.contains("SHA-256"));
        let hash = if hash {
            HashAlgorithm::Sha256
        } else {
            HashAlgorithm::Md5
        };
        let unknown = choices.chance(50);
        let (authorised, exists) = (!choices.chance(50), !choices.chance(50));
        let answer = if unknown {
            KeyAnswer::Unknown
        } else {
            KeyAnswer::Known {
                ha1: ha1(hash, b"alice", b"example.com", b"secret"),
                authorised,
                exists,
            }
        };
        self.model.expire(self.now);
        let outputs = self
            .machine
            .input(self.now, RegistrarIn::Key(ticket, answer));
        let is_late = |output: &RegistrarOut| matches!(output, RegistrarOut::Late(late, _) if *late == ticket);
        let too_late = outputs.iter().any(is_late);
        for output in outputs {
            match output {
                RegistrarOut::Respond(answer) => {
                    let believed = !unknown && authorised && exists;
                    self.answered(flow, &request, &answer, believed);
                }
                RegistrarOut::NoTicket => assert!(too_late, "no ticket for a key in time"),
                output => self.aside(&output),
            }
        }
    }

    fn answered(
        &mut self,
        flow: Option<FlowId>,
        request: &Request,
        answer: &Message,
        believed: bool,
    ) {
        let response = Response::check(answer.clone(), &Limits::DEFAULT).expect("a response");
        let code = response.code();
        if self.digest && (!believed || code == StatusCode::UNAUTHORIZED) {
            assert!(!code.is_success(), "let in without proof");
            if code == StatusCode::UNAUTHORIZED {
                let mut attempt = DigestAttempt::default();
                let uri = request.uri_text().to_owned();
                self.client
                    .handle_challenge(&mut attempt, &response, &uri, true);
            }
            return;
        }
        if self.digest && code.is_success() {
            let proof = request.rows(Name::AUTHORIZATION).collect::<String>();
            assert!(self.accepted.insert(proof.clone()), "twice: {proof}");
        }
        self.model.answered(self.now, flow, request, answer);
    }

    /// A REGISTER; most of them make sense.
    fn make(&mut self, choices: &mut Choices) -> Option<Request> {
        let aor = *choices.pick(&AORS);
        let uri = if choices.chance(20) {
            "sip:elsewhere.example"
        } else {
            "sip:example.com"
        };
        self.cseq += choices.below(3) as u32;
        let mut text = format!("REGISTER {uri} SIP/2.0\r\n");
        let mut line = |line: String| {
            text.push_str(&line);
            text.push_str("\r\n");
        };
        for hop in 0..=choices.below(2) {
            line(format!(
                "Via: SIP/2.0/TCP h{hop};branch=z9hG4bK{}",
                choices.below(100)
            ));
        }
        line(format!("From: <{aor}>;tag=1"));
        line(format!("To: <{aor}>"));
        line(format!("Call-ID: call{}", choices.below(3)));
        line(format!("CSeq: {} REGISTER", self.cseq));
        let path = *choices.pick(&[
            "",
            "",
            "<sip:t1@ep1;lr;ob>",
            "<sip:t2@ep2;lr;ob>",
            "<sip:ep1;lr>",
            "<sip:x;lr>, <sip:t1@ep1;lr;ob>",
        ]);
        if !path.is_empty() {
            line(format!("Path: {path}"));
        }
        line(format!(
            "Supported: {}",
            choices.pick(&["path, outbound", "path, outbound, gruu", "path", "gruu"])
        ));
        if choices.chance(100) {
            line(format!(
                "Expires: {}",
                choices.pick(&[0, 1, 60, 3600, 4_000_000_000_u64])
            ));
        }
        if choices.chance(30) {
            line("Require: frobnicate".to_owned());
        }
        match choices.below(12) {
            0 => {}
            1 => {
                line("Contact: *".to_owned());
                line("Expires: 0".to_owned());
            }
            2 => {
                line(format!(
                    "Contact: {}, {}",
                    contact(choices),
                    contact(choices)
                ));
            }
            _ => line(format!("Contact: {}", contact(choices))),
        }
        if self.digest {
            let mut attempt = DigestAttempt::default();
            let fields = self
                .client
                .authorize(&mut attempt, &mut self.rng, "REGISTER", uri, b"");
            for (name, value) in fields {
                let value = if choices.chance(50) {
                    value.replace("nc=00", "nc=01")
                } else {
                    value
                };
                line(format!("{}: {value}", name.as_str()));
            }
        }
        line("Content-Length: 0".to_owned());
        text.push_str("\r\n");
        request(text.as_bytes())
    }
}

fn flow(choices: &mut Choices) -> Option<FlowId> {
    let flow = choices.below(4);
    (flow < 3).then_some(FlowId(flow))
}

/// A Contact whose URI says what it is the Contact of, so that bindings can be told apart.
fn contact(choices: &mut Choices) -> String {
    let device = choices.index(INSTANCES.len() + 1);
    let instance = INSTANCES.get(device);
    // The first two are the same device.
    let name = device.max(1);
    let reg_id = choices.below(4);
    let port = choices.below(2);
    let user = if choices.chance(20) {
        "sip:alice@example.com".to_owned()
    } else {
        format!("sip:d{name}r{reg_id}@192.0.2.{port}")
    };
    let mut value = format!("<{user}>");
    if let Some(instance) = instance {
        value.push_str(&format!(";+sip.instance=\"<{instance}>\""));
    }
    match reg_id {
        0 => {}
        3 if choices.chance(100) => value.push_str(";reg-id=0"),
        _ => value.push_str(&format!(";reg-id={reg_id}")),
    }
    if choices.flip() {
        let expires = *choices.pick(&[0, 30, 60, 600, 3600, 9999]);
        value.push_str(&format!(";expires={expires}"));
    }
    value
}
