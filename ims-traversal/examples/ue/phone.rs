//! What the subcommands do.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ims_traversal::access::{AccessEvent, RungFailure};
use ims_traversal::ladder::NetworkKey;
use ims_traversal::ue::{CallId, Network, Ue, UeEvent};
use serde_json::json;
use sip_outbound::UserAgentEvent;
use sip_outbound::wire::StatusCode;
use stun_proto::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Options;
use crate::common::rtp::Tally;
use crate::common::ue::{Output, UeHost};
use crate::common::{network, now, seed};
use crate::report::Report;
use crate::talk::Talk;

/// How long nothing may happen before that is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the program ends before it is done, whatever it is doing.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("{signal} while {step}")]
    Signal { signal: &'static str, step: String },
    #[error("registration given up: {0}")]
    GivenUp(String),
}

/// The registrations, by number.
#[derive(Debug, Default)]
struct Registrations {
    wanted: usize,
    there: BTreeSet<u32>,
    /// Those that were tried in vain, and are tried again.
    failed: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    /// A way failed for a reason that may pass.
    may_pass: bool,
    /// Why the last way, or registration, failed.
    last_failure: Option<String>,
}

/// How many registrations have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    All,
    One,
}

impl Registrations {
    /// Takes in an event.
    fn note(&mut self, event: &AccessEvent) -> Result<(), Over> {
        match event {
            AccessEvent::RungFailed { rung, cause, .. } => {
                self.last_failure = Some(format!("{rung}: {cause}"));
                // What the command line says does not get better.
                let fixed = matches!(cause, RungFailure::Insecure | RungFailure::Plan(_));
                self.may_pass |= !fixed;
            }
            AccessEvent::Exhausted { .. } if self.there.is_empty() && !self.may_pass => {
                let why = self.last_failure.clone().unwrap_or_default();
                return Err(Over::GivenUp(format!("no way to the P-CSCF: {why}")));
            }
            AccessEvent::Agent(UserAgentEvent::Registered { reg_id, .. }) => {
                self.there.insert(*reg_id);
                self.failed.remove(reg_id);
                self.refused.remove(reg_id);
            }
            AccessEvent::Agent(UserAgentEvent::FlowFailed {
                reg_id: Some(reg_id),
                cause,
                ..
            }) => {
                self.there.remove(reg_id);
                self.failed.insert(*reg_id);
                self.last_failure.get_or_insert_with(|| cause.to_string());
            }
            AccessEvent::Agent(UserAgentEvent::Refused { reg_id, cause }) => {
                self.there.remove(reg_id);
                self.refused.insert(*reg_id);
                self.last_failure = Some(cause.to_string());
                if self.refused.len() >= self.wanted {
                    return Err(Over::GivenUp(cause.to_string()));
                }
            }
            AccessEvent::Agent(UserAgentEvent::Unregistered { reg_id }) => {
                self.there.remove(reg_id);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there are as many as are needed. One is enough only once all others have been
    /// tried.
    fn suffice(&self, need: Need) -> bool {
        let tried: BTreeSet<_> = self.failed.union(&self.refused).collect();
        match need {
            Need::All => self.there.len() >= self.wanted,
            Need::One => !self.there.is_empty() && self.there.len() + tried.len() >= self.wanted,
        }
    }
}

/// A running UE and what it was asked to do.
pub struct Phone {
    host: UeHost,
    report: Report,
    signals: [Signal; 2],
    timeout: Duration,
    duration: Duration,
    messages: u32,
    registrations: Registrations,
    /// What is being waited for.
    step: String,
    stopped: bool,
}

impl Phone {
    pub fn new(options: &Options, report: Report) -> Result<Self> {
        // From here on a signal ends it in good order.
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        let [interrupt, terminate] = kinds.map(signal);
        let config = options.config()?;
        let wanted = config.access.agent.flows;
        let mut ue = Ue::new(config, seed(), now())?;
        let addresses = options.addresses().unwrap_or_else(|error| {
            let why = format!("{error:#}");
            report.step("no address", &why, json!({ "reason": why }));
            Vec::new()
        });
        ue.start(now(), Network::new(NetworkKey(0), addresses));
        Ok(Self {
            host: UeHost::new(ue, network::Network::default()),
            report,
            signals: [interrupt?, terminate?],
            timeout: Duration::from_secs(options.timeout),
            duration: Duration::from_secs(options.duration),
            messages: options.messages,
            registrations: Registrations {
                wanted,
                ..Registrations::default()
            },
            step: "starting".to_owned(),
            stopped: false,
        })
    }

    fn deadline(&self) -> Instant {
        now() + self.timeout
    }

    /// The next output; an error when the time is over, or a signal comes.
    async fn next(&mut self, end: Instant) -> Result<Output> {
        let begun = now();
        loop {
            let slice = end.min(now() + PATIENCE);
            if let Some(output) = self.until(slice).await? {
                return Ok(output);
            }
            let last = self.registrations.last_failure.as_ref();
            let last = last.map_or_else(String::new, |last| format!("; last failure: {last}"));
            if now() >= end {
                bail!("timeout while {}{last}", self.step);
            }
            let waited = now().duration_since(begun).as_secs();
            let values = json!({ "step": self.step, "seconds": waited });
            let words = format!("{}, for {waited} s{last}", self.step);
            self.report.step("waiting", &words, values);
        }
    }

    /// The next output until a time that is not the end.
    async fn until(&mut self, time: Instant) -> Result<Option<Output>, Over> {
        let [interrupt, terminate] = &mut self.signals;
        let signal = tokio::select! {
            output = self.host.next(time) => {
                if let Some(output) = &output {
                    self.report.output(output);
                }
                if let Some(Output::Event(event)) = &output
                    && let UeEvent::Access(event) = &**event
                {
                    self.registrations.note(event)?;
                }
                return Ok(output);
            }
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "terminated",
        };
        let step = self.step.clone();
        Err(Over::Signal { signal, step })
    }

    /// Waits for the registrations; ways that fail for the moment are tried again until the time
    /// is over.
    async fn registration(&mut self, need: Need) -> Result<()> {
        "registering".clone_into(&mut self.step);
        let end = self.deadline();
        while !self.registrations.suffice(need) {
            self.next(end).await?;
        }
        self.registrations.last_failure = None;
        Ok(())
    }

    /// `ue register`
    pub async fn register(&mut self) -> Result<()> {
        self.registration(Need::All).await?;
        "staying registered".clone_into(&mut self.step);
        let end = now() + self.duration;
        while now() < end {
            match self.until(end).await {
                // Long enough, says the user.
                Err(Over::Signal { .. }) => break,
                output => drop(output?),
            }
        }
        let Registrations { there, wanted, .. } = &self.registrations;
        let (there, wanted) = (there.len(), *wanted);
        ensure!(
            there >= wanted,
            "only {there} of {wanted} registrations were there at the end"
        );
        Ok(())
    }

    /// `ue call`
    pub async fn call(&mut self, to: &str) -> Result<()> {
        self.registration(Need::One).await?;
        let call = self.host.ue.call(now(), to)?;
        self.step = format!("calling {to}");
        let mut talk = Talk::new(call, self.messages);
        self.connect(&mut talk).await?;
        self.talk(&mut talk).await?;
        let (lasted, wanted) = (talk.lasted(), self.duration);
        if talk.ended.is_none() {
            self.end(&mut talk).await?;
        }
        self.tell(talk.tally());
        ensure!(
            lasted >= wanted,
            "the call ended after {} of {} s",
            lasted.as_secs(),
            wanted.as_secs()
        );
        talk.ensure_good(self.messages)
    }

    /// Waits until the call is there, and a way for its media.
    async fn connect(&mut self, talk: &mut Talk) -> Result<()> {
        let end = self.deadline();
        while !talk.is_talking() {
            let output = self.next(end).await?;
            self.follow(talk, &output);
            talk.ensure_alive()?;
        }
        Ok(())
    }

    /// Hangs up and waits for the end of the call.
    async fn end(&mut self, talk: &mut Talk) -> Result<()> {
        "hanging up".clone_into(&mut self.step);
        self.host.ue.hang_up(now(), talk.call)?;
        let end = self.deadline();
        while talk.ended.is_none() {
            let output = self.next(end).await?;
            self.follow(talk, &output);
        }
        Ok(())
    }

    fn tell(&self, tally: Tally) {
        let Tally {
            sent,
            echoed,
            received,
            resent,
        } = tally;
        let words = format!("{sent} sent, {echoed} back, {received} received, {resent} resent");
        let values =
            json!({ "sent": sent, "echoed": echoed, "received": received, "resent": resent });
        self.report.step("media", &words, values);
    }

    /// What an output says about a call.
    fn follow(&mut self, talk: &mut Talk, output: &Output) {
        talk.take(&mut self.host, output);
        let Output::Event(event) = output else {
            return;
        };
        match &**event {
            UeEvent::Established { call } if *call == talk.call => {
                "finding a way for the media".clone_into(&mut self.step);
            }
            UeEvent::Ringing { call, .. } if *call == talk.call => {
                "waiting for the call to be answered".clone_into(&mut self.step);
            }
            UeEvent::Incoming { call, .. } if *call != talk.call => {
                let busy = self.host.ue.reject(now(), *call, StatusCode::BUSY_HERE);
                self.note(busy, "rejecting a call");
            }
            _ => {}
        }
    }

    /// A command came too late, for instance: the next event says what has become of its call.
    fn note<T, E: std::fmt::Display>(&self, result: Result<T, E>, doing: &str) -> Option<T> {
        result
            .map_err(|error| {
                let why = format!("{doing}: {error}");
                self.report.step("too late", &why, json!({ "reason": why }));
            })
            .ok()
    }

    /// Exchanges numbered packets until all have come back, the call has lasted long enough, and
    /// the other side is quiet.
    async fn talk(&mut self, talk: &mut Talk) -> Result<()> {
        "exchanging packets".clone_into(&mut self.step);
        talk.begin();
        loop {
            talk.tick(&mut self.host);
            if let Some(output) = self.until(talk.next_frame()).await? {
                self.follow(talk, &output);
            }
            if talk.ended.is_some() || (talk.is_done() && talk.lasted() >= self.duration) {
                return Ok(());
            }
            if !talk.is_echoed() && talk.lasted() >= self.timeout {
                self.tell(talk.tally());
                talk.ensure_good(self.messages)?;
            }
        }
    }

    /// `ue listen`
    pub async fn listen(&mut self, calls: u32) -> Result<()> {
        self.registration(Need::One).await?;
        self.report.step("listening", "for calls", json!({}));
        let end = (!self.duration.is_zero()).then(|| now() + self.duration);
        let (mut taken, mut failed) = (0, 0);
        while calls == 0 || taken < calls {
            let call = match self.incoming(end).await {
                // The usual end of a service.
                Err(Over::Signal { .. }) if calls == 0 => return Ok(()),
                call => call?,
            };
            let Some(call) = call else {
                ensure!(calls == 0, "{taken} of {calls} calls came");
                return Ok(());
            };
            taken += 1;
            let result = self.taken(call).await;
            match result {
                Ok(()) => {}
                Err(error) if error.is::<Over>() => {
                    let signal = matches!(error.downcast_ref(), Some(Over::Signal { .. }));
                    return if signal && calls == 0 {
                        Ok(())
                    } else {
                        Err(error)
                    };
                }
                Err(error) if calls == 1 => return Err(error),
                Err(error) => {
                    failed += 1;
                    let why = format!("{error:#}");
                    self.report
                        .step("call failed", &why, json!({ "reason": why }));
                    // It may be over already.
                    let _ = self.host.ue.hang_up(now(), call);
                }
            }
        }
        ensure!(failed == 0, "{failed} of {calls} calls failed");
        Ok(())
    }

    /// The next call that comes in; none when the time is over.
    async fn incoming(&mut self, end: Option<Instant>) -> Result<Option<CallId>, Over> {
        "waiting for a call".clone_into(&mut self.step);
        loop {
            let far = now() + Duration::from_secs(3600);
            match self.until(end.unwrap_or(far)).await? {
                Some(Output::Event(event)) => {
                    if let UeEvent::Incoming { call, .. } = *event {
                        return Ok(Some(call));
                    }
                }
                Some(_) => {}
                None if end.is_some_and(|end| now() >= end) => return Ok(None),
                None => {}
            }
        }
    }

    /// Takes a call, and stays until the other side hangs up.
    async fn taken(&mut self, call: CallId) -> Result<()> {
        "taking a call".clone_into(&mut self.step);
        let mut talk = Talk::new(call, self.messages);
        let answered = self.host.ue.answer(now(), call);
        if self.note(answered, "taking a call").is_none() {
            // The caller has given up meanwhile.
            let end = self.deadline();
            while talk.ended.is_none() {
                let output = self.next(end).await?;
                self.follow(&mut talk, &output);
            }
            return talk.ensure_alive();
        }
        self.connect(&mut talk).await?;
        self.talk(&mut talk).await?;
        let end = now() + self.timeout.max(self.duration);
        while talk.ended.is_none() {
            "waiting for the other side to hang up".clone_into(&mut self.step);
            let output = self.next(end).await?;
            self.follow(&mut talk, &output);
        }
        self.tell(talk.tally());
        talk.ensure_good(self.messages)
    }

    /// Ends calls, gives relays back, removes the registrations, and waits for that. Another
    /// signal ends the waiting.
    pub async fn stop(&mut self) -> Result<()> {
        "unregistering".clone_into(&mut self.step);
        self.registrations.last_failure = None;
        self.host.ue.stop(now());
        let end = now() + Duration::from_secs(10);
        while !self.stopped {
            let output = match self.next(end).await {
                // It was given up before, or now: no news.
                Err(error) if matches!(error.downcast_ref(), Some(Over::GivenUp(_))) => continue,
                output => output?,
            };
            if let Output::Event(event) = output {
                self.stopped |= matches!(*event, UeEvent::Stopped);
            }
        }
        // What is left to be written.
        let end = now() + Duration::from_millis(200);
        while self.host.is_busy() && self.host.next(end).await.is_some() {}
        let left = &self.registrations.there;
        ensure!(left.is_empty(), "not unregistered: {left:?}");
        Ok(())
    }
}
