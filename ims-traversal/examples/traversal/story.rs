//! What happens in each network.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ice_proto::ComponentId;
use ims_traversal::access::AccessEvent;
use ims_traversal::ladder::NetworkKey;
use ims_traversal::media::MediaEvent;
use ims_traversal::ue::{CallId, CallMedia, EndCause, Network, Ue, UeConn, UeEvent};
use sip_outbound::UserAgentEvent;
use stun_proto::Instant;
use tokio::time::Interval;

use crate::common::rtp::{Rtp, Tally};
use crate::common::ue::{Output, UeHost};
use crate::common::{now, seed};
use crate::ladder::{Row, words};
use crate::world::{DOMAIN, Kind, LOOPBACK, World};

/// How one network went.
pub struct Outcome {
    pub kind: Kind,
    /// How the P-CSCF was reached.
    pub control: String,
    /// The kinds of the candidates in use.
    pub pair: String,
    /// How the relay was reached.
    pub relay: String,
    /// From nothing to both registrations.
    pub registered: Duration,
    /// From the call to a way for its media, on both sides.
    pub connected: Duration,
    /// From the cut to the next registration.
    pub recovered: Duration,
    /// Of both sides together.
    pub tally: Tally,
}

/// One of the two UEs.
pub struct Side {
    pub name: &'static str,
    host: UeHost,
    rtp: Rtp,
    state: State,
}

#[derive(Default)]
struct State {
    registered: bool,
    control: String,
    call: Option<CallId>,
    established: bool,
    media: bool,
    pair: String,
    relay: String,
    ended: Option<EndCause>,
    message: Option<String>,
    delivered: Option<bool>,
    refused: Option<String>,
    stopped: bool,
}

/// Both UEs, and what was seen.
pub struct Pair<'w> {
    world: &'w World,
    kind: Kind,
    pub begun: Instant,
    sides: [Side; 2],
    pub rows: Vec<Row>,
    timeout: Duration,
    frame: Interval,
}

const ALICE: usize = 0;
const BOB: usize = 1;

impl<'w> Pair<'w> {
    pub fn new(world: &'w World, kind: Kind, timeout: Duration) -> Result<Self> {
        let side = |name| -> Result<Side> {
            let mut ue = Ue::new(world.ue(kind, name)?, seed(), now())?;
            ue.start(now(), Network::new(NetworkKey(1), vec![LOOPBACK]));
            Ok(Side {
                name,
                host: UeHost::new(ue, world.network(kind)),
                rtp: Rtp::new(0),
                state: State::default(),
            })
        };
        Ok(Self {
            world,
            kind,
            begun: now(),
            sides: [side("alice")?, side("bob")?],
            rows: Vec::new(),
            timeout,
            frame: tokio::time::interval(Duration::from_millis(20)),
        })
    }

    /// Register, call, talk, lose a flow and recover, hang up, unregister.
    pub async fn tell(&mut self, messages: u32) -> Result<Outcome> {
        self.both("registering", |s| s.state.registered).await?;
        let registered = now().duration_since(self.begun);
        let called = now();
        let bob = format!("sip:bob@{DOMAIN}");
        let call = self.sides[ALICE].host.ue.call(called, &bob)?;
        self.sides[ALICE].state.call = Some(call);
        self.both("setting the call up", |s| s.state.established)
            .await?;
        self.both("finding a way for the media", |s| s.state.media)
            .await?;
        let connected = now().duration_since(called);
        let first = messages / 2;
        self.sides.iter_mut().for_each(|side| side.rtp.more(first));
        self.both("exchanging packets", |s| s.rtp.is_done()).await?;
        let recovered = self.lose_flow(messages - first).await?;
        self.hang_up().await?;
        let tallies = self.sides.each_ref().map(|side| side.rtp.tally());
        let [a, b] = tallies;
        let state = &mut self.sides[ALICE].state;
        Ok(Outcome {
            kind: self.kind,
            control: std::mem::take(&mut state.control),
            pair: std::mem::take(&mut state.pair),
            relay: std::mem::take(&mut state.relay),
            registered,
            connected,
            recovered,
            tally: Tally {
                sent: a.sent + b.sent,
                echoed: a.echoed + b.echoed,
                received: a.received + b.received,
                resent: a.resent + b.resent,
            },
        })
    }

    /// Bob's connection to the P-CSCF is cut during the call: the media go on, he registers anew,
    /// and can be reached again.
    async fn lose_flow(&mut self, packets: u32) -> Result<Duration> {
        let cut = now();
        let bob = &mut self.sides[BOB];
        bob.state.registered = false;
        let lines = bob.host.cut(|conn| matches!(conn, UeConn::Control(_)));
        ensure!(lines == 1, "{lines} connections cut instead of one");
        self.note(
            BOB,
            "  x  ",
            "P-CSCF",
            "the TCP connection is cut".to_owned(),
        );
        self.sides
            .iter_mut()
            .for_each(|side| side.rtp.more(packets));
        let again = |s: &Side| s.state.registered;
        self.both("registering after the cut", again).await?;
        let recovered = now().duration_since(cut);
        let bob = format!("sip:bob@{DOMAIN}");
        let alice = &mut self.sides[ALICE].host.ue;
        alice.message(now(), &bob, "text/plain", "are you back?")?;
        self.wait("sending a MESSAGE", |pair| {
            let delivered = pair.sides[ALICE].state.delivered.is_some();
            delivered && pair.sides[BOB].state.message.is_some()
        })
        .await?;
        let state = &self.sides[ALICE].state;
        ensure!(state.delivered == Some(true), "the MESSAGE was not taken");
        let done = |s: &Side| s.rtp.is_done();
        self.both("exchanging packets after the cut", done).await?;
        Ok(recovered)
    }

    /// Bob hangs up, over his new flow; then both leave.
    async fn hang_up(&mut self) -> Result<()> {
        if let Some(call) = self.sides[BOB].state.call {
            self.sides[BOB].host.ue.hang_up(now(), call)?;
        }
        self.both("hanging up", |s| s.state.ended.is_some()).await?;
        let causes = self.sides.each_ref().map(|s| s.state.ended.clone());
        let expected = [EndCause::RemoteHungUp, EndCause::HungUp].map(Some);
        ensure!(causes == expected, "the call ended otherwise: {causes:?}");
        self.sides.iter_mut().for_each(|s| s.host.ue.stop(now()));
        self.both("unregistering", |s| s.state.stopped).await?;
        let end = now() + Duration::from_millis(200);
        for side in &mut self.sides {
            while side.host.is_busy() && side.host.next(end).await.is_some() {}
        }
        Ok(())
    }

    async fn both(&mut self, step: &str, done: impl Fn(&Side) -> bool) -> Result<()> {
        self.wait(step, |pair| pair.sides.iter().all(&done)).await
    }

    /// Runs both until something is so.
    async fn wait(&mut self, step: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = now() + self.timeout;
        while !done(self) {
            if now() >= end {
                bail!("timeout while {step}");
            }
            let [alice, bob] = &mut self.sides;
            let heard = tokio::select! {
                output = alice.host.next(end) => output.map(|output| (ALICE, output)),
                output = bob.host.next(end) => output.map(|output| (BOB, output)),
                _ = self.frame.tick() => {
                    self.sides.iter_mut().for_each(Side::talk);
                    None
                }
            };
            if let Some((index, output)) = heard {
                self.hear(index, output)?;
            }
            for side in &self.sides {
                let early = side.state.ended.as_ref().filter(|_| step != "hanging up");
                match (early, &side.state.refused) {
                    (Some(cause), _) if !side.state.stopped && step != "unregistering" => {
                        bail!("the call of {} ended while {step}: {cause}", side.name);
                    }
                    (_, Some(why)) => bail!("{} may not register: {why}", side.name),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, index: usize, arrow: &'static str, hop: &'static str, what: String) {
        self.rows.push(Row {
            at: now(),
            name: self.sides[index].name,
            arrow,
            hop,
            what,
        });
    }

    fn hear(&mut self, index: usize, output: Output) -> Result<()> {
        let row = words(self.world, self.sides[index].name, &output);
        self.rows.extend(row);
        let side = &mut self.sides[index];
        match output {
            Output::Media(from, packet) => {
                if side.rtp.take(&packet) {
                    side.host.send(from, &packet);
                }
            }
            Output::Event(event) => side.take(*event)?,
            Output::NoSocket(place, error) => bail!("no socket at {place:?}: {error}"),
            Output::Acted(_) => {}
        }
        Ok(())
    }
}

impl Side {
    /// Sends what is due in this frame.
    fn talk(&mut self) {
        let Some(call) = self.state.call.filter(|_| self.state.media) else {
            return;
        };
        let component = ComponentId {
            stream: 0,
            component: 1,
        };
        for packet in self.rtp.tick() {
            self.host.send(CallMedia { call, component }, &packet);
        }
    }

    fn take(&mut self, event: UeEvent) -> Result<()> {
        match event {
            UeEvent::Incoming { call, .. } => {
                self.state.call = Some(call);
                self.host.ue.answer(now(), call)?;
            }
            UeEvent::Established { .. } => self.state.established = true,
            UeEvent::Media { event, .. } => self.take_media(&event),
            UeEvent::Ended { cause, .. } => self.state.ended = Some(cause),
            UeEvent::Message { body, .. } => {
                self.state.message = Some(String::from_utf8_lossy(&body).into_owned());
            }
            UeEvent::Delivered { outcome, .. } => {
                let taken = outcome.is_ok_and(|code| code.is_success());
                self.state.delivered = Some(taken);
            }
            UeEvent::Access(event) => self.take_access(&event),
            UeEvent::Stopped => self.state.stopped = true,
            _ => {}
        }
        Ok(())
    }

    fn take_access(&mut self, event: &AccessEvent) {
        match event {
            AccessEvent::Ready {
                rung, via_proxy, ..
            } => {
                let transport = rung.transport();
                let hop = if *via_proxy { " in CONNECT" } else { "" };
                self.state.control = format!("{transport}{hop}");
            }
            AccessEvent::Agent(UserAgentEvent::Registered { .. }) => {
                self.state.registered = true;
            }
            AccessEvent::Agent(UserAgentEvent::Refused { cause, .. }) => {
                self.state.refused = Some(cause.to_string());
            }
            _ => {}
        }
    }

    fn take_media(&mut self, event: &MediaEvent) {
        match event {
            MediaEvent::Selected {
                local,
                remote,
                relay,
                ..
            } => {
                self.state.pair = format!("{} - {}", local.kind, remote.kind);
                self.state.relay = relay.map_or("-".to_owned(), |leg| {
                    let hop = if leg.via_proxy { " in CONNECT" } else { "" };
                    format!("{}{hop}", leg.transport)
                });
            }
            MediaEvent::Completed => self.state.media = true,
            _ => {}
        }
    }
}
