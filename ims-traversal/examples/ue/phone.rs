//! What the subcommands do.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ims_traversal::access::AccessEvent;
use ims_traversal::ladder::NetworkKey;
use ims_traversal::media::MediaEvent;
use ims_traversal::ue::{CallId, CallMedia, EndCause, Network, Ue, UeEvent};
use serde_json::json;
use sip_outbound::UserAgentEvent;
use sip_outbound::wire::StatusCode;
use stun_proto::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Options;
use crate::common::rtp::{Rtp, Tally};
use crate::common::ue::{Output, UeHost};
use crate::common::{network, now, seed};
use crate::report::Report;

/// How long nothing may happen before that is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// One RTP packet each.
const FRAME: Duration = Duration::from_millis(20);

/// A running UE and what it was asked to do.
pub struct Phone {
    host: UeHost,
    report: Report,
    signals: [Signal; 2],
    timeout: Duration,
    duration: Duration,
    messages: u32,
    flows: usize,
    registered: usize,
    /// What is being waited for.
    step: String,
    /// Why the last way to a P-CSCF failed.
    last_failure: Option<String>,
    stopped: bool,
}

/// A call as far as it has come.
#[derive(Debug, Default)]
struct Progress {
    established: bool,
    media: bool,
    ended: Option<EndCause>,
}

impl Progress {
    const fn is_talking(&self) -> bool {
        self.established && self.media && self.ended.is_none()
    }
}

impl Phone {
    pub fn new(options: &Options, report: Report) -> Result<Self> {
        let config = options.config()?;
        let flows = config.access.agent.flows;
        let mut ue = Ue::new(config, seed(), now())?;
        ue.start(now(), Network::new(NetworkKey(0), options.addresses()?));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        let [interrupt, terminate] = kinds.map(signal);
        Ok(Self {
            host: UeHost::new(ue, network::Network::default()),
            report,
            signals: [interrupt?, terminate?],
            timeout: Duration::from_secs(options.timeout),
            duration: Duration::from_secs(options.duration),
            messages: options.messages,
            flows,
            registered: 0,
            step: "starting".to_owned(),
            last_failure: None,
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
            let last = self.last_failure.as_ref();
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

    /// Waits for all registrations.
    async fn registration(&mut self) -> Result<()> {
        "registering".clone_into(&mut self.step);
        let end = self.deadline();
        while self.registered < self.flows {
            if let Output::Event(event) = self.next(end).await? {
                self.access(&event)?;
            }
        }
        Ok(())
    }

    /// What an event says about the registrations.
    fn access(&mut self, event: &UeEvent) -> Result<()> {
        let UeEvent::Access(event) = event else {
            return Ok(());
        };
        match &**event {
            AccessEvent::RungFailed { rung, cause, .. } => {
                self.last_failure = Some(format!("{rung}: {cause}"));
            }
            AccessEvent::Exhausted { .. } if self.registered == 0 => {
                let why = self.last_failure.clone().unwrap_or_default();
                bail!("no way to the P-CSCF: {why}");
            }
            AccessEvent::Agent(UserAgentEvent::Registered { .. }) => {
                self.registered += 1;
            }
            AccessEvent::Agent(UserAgentEvent::Refused { cause, .. }) => {
                bail!("registration given up: {cause}");
            }
            _ => {}
        }
        Ok(())
    }

    /// `ue register`
    pub async fn register(&mut self) -> Result<()> {
        self.registration().await?;
        "staying registered".clone_into(&mut self.step);
        let end = now() + self.duration;
        while now() < end {
            let [interrupt, terminate] = &mut self.signals;
            let output = tokio::select! {
                output = self.host.next(end) => output,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            };
            if let Some(Output::Event(event)) = &output {
                self.report.event(event);
                self.access(event)?;
            }
        }
        Ok(())
    }

    /// `ue call`
    pub async fn call(&mut self, to: &str) -> Result<()> {
        self.registration().await?;
        let call = self.host.ue.call(now(), to)?;
        self.step = format!("calling {to}");
        let mut progress = Progress::default();
        let end = self.deadline();
        while !progress.is_talking() {
            let output = self.next(end).await?;
            self.follow(call, &output, &mut progress)?;
            ensure_alive(&progress)?;
        }
        let tally = self.talk(call, &mut progress).await?;
        if progress.ended.is_none() {
            self.end(call, &mut progress).await?;
        }
        self.check(tally)
    }

    /// Hangs up and waits for the end of the call.
    async fn end(&mut self, call: CallId, progress: &mut Progress) -> Result<()> {
        "hanging up".clone_into(&mut self.step);
        self.host.ue.hang_up(now(), call)?;
        let end = self.deadline();
        while progress.ended.is_none() {
            let output = self.next(end).await?;
            self.follow(call, &output, progress)?;
        }
        Ok(())
    }

    fn check(&self, tally: Tally) -> Result<()> {
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
        ensure!(
            echoed >= self.messages,
            "only {echoed} of {} packets came back",
            self.messages
        );
        Ok(())
    }

    /// What an output says about a call.
    fn follow(&mut self, call: CallId, output: &Output, progress: &mut Progress) -> Result<()> {
        let Output::Event(event) = output else {
            return Ok(());
        };
        match &**event {
            UeEvent::Established { call: of } if *of == call => {
                progress.established = true;
                "finding a way for the media".clone_into(&mut self.step);
            }
            UeEvent::Ringing { call: of, .. } if *of == call => {
                "waiting for the call to be answered".clone_into(&mut self.step);
            }
            UeEvent::Media { call: of, event } if *of == call => {
                progress.media |= **event == MediaEvent::Completed;
            }
            UeEvent::Ended { call: of, cause } if *of == call => {
                progress.ended = Some(cause.clone());
            }
            UeEvent::Incoming { call: other, .. } if *other != call => {
                self.host.ue.reject(now(), *other, StatusCode::BUSY_HERE)?;
            }
            UeEvent::Access(_) => self.access(event)?,
            _ => {}
        }
        Ok(())
    }

    /// Exchanges numbered packets until all have come back, the call has lasted long enough, and
    /// the other side is quiet.
    async fn talk(&mut self, call: CallId, progress: &mut Progress) -> Result<Tally> {
        "exchanging packets".clone_into(&mut self.step);
        let component = ice_proto::ComponentId {
            stream: 0,
            component: 1,
        };
        let to = CallMedia { call, component };
        let mut rtp = Rtp::new(self.messages);
        let (begun, mut heard, mut frame) = (now(), now(), now());
        let quiet = Duration::from_millis(500);
        loop {
            if now() >= frame {
                frame += FRAME;
                for packet in rtp.tick() {
                    self.host.send(to, &packet);
                }
            }
            match self.until(frame).await? {
                Some(Output::Media(from, packet)) if from.call == call && rtp.take(&packet) => {
                    heard = now();
                    self.host.send(from, &packet);
                }
                Some(output) => self.follow(call, &output, progress)?,
                None => {}
            }
            let lasted = now().duration_since(begun);
            let silent = now().duration_since(heard) >= quiet;
            if progress.ended.is_some() || (rtp.is_done() && lasted >= self.duration && silent) {
                return Ok(rtp.tally());
            }
            if !rtp.is_done() && lasted >= self.timeout {
                let tally = rtp.tally();
                self.check(tally)?;
            }
        }
    }

    /// The next output until a time that is not the end.
    async fn until(&mut self, time: Instant) -> Result<Option<Output>> {
        let [interrupt, terminate] = &mut self.signals;
        let output = tokio::select! {
            output = self.host.next(time) => output,
            _ = interrupt.recv() => bail!("interrupted while {}", self.step),
            _ = terminate.recv() => bail!("terminated while {}", self.step),
        };
        match &output {
            Some(Output::Event(event)) => self.report.event(event),
            Some(Output::Acted(action)) => self.report.action(action),
            Some(Output::Media(..)) | None => {}
        }
        Ok(output)
    }

    /// `ue listen`
    pub async fn listen(&mut self, calls: u32) -> Result<()> {
        self.registration().await?;
        self.report.step("listening", "for calls", json!({}));
        let end = (!self.duration.is_zero()).then(|| now() + self.duration);
        let mut taken = 0;
        while calls == 0 || taken < calls {
            "waiting for a call".clone_into(&mut self.step);
            let far = now() + Duration::from_secs(3600);
            let output = match self.until(end.unwrap_or(far)).await {
                // The usual end of a service.
                Err(_) if calls == 0 => return Ok(()),
                output => output?,
            };
            match output {
                None if end.is_some_and(|end| now() >= end) && calls > 0 => {
                    bail!("no call came");
                }
                None if end.is_some_and(|end| now() >= end) => return Ok(()),
                Some(Output::Event(event)) => match *event {
                    UeEvent::Incoming { call, .. } => {
                        taken += 1;
                        self.taken(call).await?;
                    }
                    event => self.access(&event)?,
                },
                Some(Output::Media(..) | Output::Acted(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Takes a call, and stays until the other side hangs up.
    async fn taken(&mut self, call: CallId) -> Result<()> {
        "taking a call".clone_into(&mut self.step);
        self.host.ue.answer(now(), call)?;
        let mut progress = Progress::default();
        let end = self.deadline();
        while !progress.is_talking() {
            let output = self.next(end).await?;
            self.follow(call, &output, &mut progress)?;
            ensure_alive(&progress)?;
        }
        let tally = self.talk(call, &mut progress).await?;
        let end = now() + self.timeout.max(self.duration);
        while progress.ended.is_none() {
            "waiting for the other side to hang up".clone_into(&mut self.step);
            match self.next(end).await? {
                Output::Media(from, packet) => drop(self.host.send(from, &packet)),
                output => self.follow(call, &output, &mut progress)?,
            }
        }
        self.check(tally)
    }

    /// Ends calls, removes the registrations, and waits for that.
    pub async fn stop(&mut self) -> Result<()> {
        "unregistering".clone_into(&mut self.step);
        self.host.ue.stop(now());
        let end = now() + Duration::from_secs(10);
        while !self.stopped {
            if let Output::Event(event) = self.next(end).await? {
                self.stopped |= matches!(*event, UeEvent::Stopped);
            }
        }
        // What is left to be written.
        let end = now() + Duration::from_millis(200);
        while self.host.is_busy() && self.host.next(end).await.is_some() {}
        Ok(())
    }
}

fn ensure_alive(progress: &Progress) -> Result<()> {
    match &progress.ended {
        Some(cause) => bail!("the call ended: {cause}"),
        None => Ok(()),
    }
}
