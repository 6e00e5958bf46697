//! One call as far as it has come, and the numbered packets that go over it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ice_proto::ComponentId;
use ims_traversal::media::MediaEvent;
use ims_traversal::sdp::Direction;
use ims_traversal::ue::{CallId, CallMedia, EndCause, UeEvent};
use stun_proto::Instant;

use crate::common::now;
use crate::common::rtp::{Rtp, Tally};
use crate::common::ue::{Output, UeHost};

/// One RTP packet each.
const FRAME: Duration = Duration::from_millis(20);
/// How long the other side has to be silent before this one is done.
const QUIET: Duration = Duration::from_millis(500);

/// A call and its packets.
#[derive(Debug)]
pub struct Talk {
    pub call: CallId,
    pub established: bool,
    /// There is a way for the media.
    media: bool,
    /// What has been agreed on: nothing is sent where that is not wanted (RFC 3264 section 6.1).
    direction: Direction,
    pub ended: Option<EndCause>,
    rtp: Rtp,
    /// When it began to send.
    begun: Option<Instant>,
    frame: Instant,
    heard: Instant,
}

impl Talk {
    /// A call in which so many packets are sent.
    pub fn new(call: CallId, messages: u32) -> Self {
        Self {
            call,
            established: false,
            media: false,
            direction: Direction::SendRecv,
            ended: None,
            rtp: Rtp::new(messages),
            begun: None,
            frame: now(),
            heard: now(),
        }
    }

    /// Whether both sides have taken the call, and there is a way for its media.
    pub const fn is_talking(&self) -> bool {
        self.established && self.media && self.ended.is_none()
    }

    pub fn begin(&mut self) {
        (self.begun, self.frame, self.heard) = (Some(now()), now(), now());
    }

    pub fn lasted(&self) -> Duration {
        let begun = self.begun.unwrap_or_else(now);
        now().duration_since(begun)
    }

    /// When the next packet is due.
    pub const fn next_frame(&self) -> Instant {
        self.frame
    }

    /// Whether all packets have come back, and the other side has no more to say.
    pub fn is_done(&self) -> bool {
        self.rtp.is_done() && now().duration_since(self.heard) >= QUIET
    }

    pub const fn is_echoed(&self) -> bool {
        self.rtp.is_done()
    }

    pub const fn tally(&self) -> Tally {
        self.rtp.tally()
    }

    /// Sends what is due.
    pub fn tick(&mut self, host: &mut UeHost) {
        if now() < self.frame {
            return;
        }
        self.frame += FRAME;
        if !self.direction.sends() {
            return;
        }
        let component = ComponentId {
            stream: 0,
            component: 1,
        };
        let call = self.call;
        for packet in self.rtp.tick() {
            // What finds no way now is sent again, and counted.
            host.send(CallMedia { call, component }, &packet);
        }
    }

    /// Takes in what concerns this call; packets of the other side go back.
    pub fn take(&mut self, host: &mut UeHost, output: &Output) {
        match output {
            Output::Media(from, packet) if from.call == self.call && self.rtp.take(packet) => {
                self.heard = now();
                if self.direction.sends() {
                    host.send(*from, packet);
                }
            }
            Output::Event(event) => self.note(event),
            Output::Media(..) | Output::Acted(_) | Output::NoSocket(..) => {}
        }
    }

    fn note(&mut self, event: &UeEvent) {
        match event {
            UeEvent::Established { call } if *call == self.call => self.established = true,
            UeEvent::Agreed {
                call,
                direction,
                codecs,
                ..
            } if *call == self.call => {
                self.direction = *direction;
                if let Some(codec) = codecs.iter().find(|codec| codec.is_sound()) {
                    self.rtp.set_codec(codec.payload_type, &codec.name);
                }
            }
            UeEvent::Media { call, event } if *call == self.call => {
                self.media |= **event == MediaEvent::Completed;
            }
            UeEvent::Ended { call, cause } if *call == self.call => {
                self.ended = Some(cause.clone());
            }
            _ => {}
        }
    }

    /// An error if the call is over.
    pub fn ensure_alive(&self) -> Result<()> {
        match &self.ended {
            Some(cause) => bail!("the call ended: {cause}"),
            None => Ok(()),
        }
    }

    /// Whether the call went as it was to go: somebody hung up, nothing was lost.
    pub fn ensure_good(&self, messages: u32) -> Result<()> {
        match &self.ended {
            None | Some(EndCause::HungUp | EndCause::RemoteHungUp) => {}
            Some(cause) => bail!("the call ended: {cause}"),
        }
        let echoed = self.tally().echoed;
        ensure!(
            echoed >= messages,
            "only {echoed} of {messages} packets came back"
        );
        Ok(())
    }
}
