//! One flow: its bytes and its keep-alive.

use core::net::SocketAddr;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::wire::{
    Class, Message as StunMessage, MessageType, Method as StunMethod, TransactionId, Writer,
    XorMappedAddress,
};
use stun_proto::{FiveTuple, Path, Retransmit, RetransmitConfig, Step, StreamId};

use super::{FlowFailure, FlowId, FlowTarget};
use crate::Instant;
use crate::framing::Framer;
use crate::outbox::Outbox;
use crate::time::elapsed;

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The registration at this place in the set.
    Slot(usize),
    /// Another next hop.
    Extra,
}

#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) id: FlowId,
    pub(super) target: FlowTarget,
    pub(super) purpose: Purpose,
    pub(super) open: Option<Open>,
    /// What the host knows of the way.
    pub(super) keep_alive_cap: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) at: FiveTuple,
    /// What the peer's certificate holds.
    pub(super) names: Vec<String>,
    pub(super) link: Link,
    pub(super) out: Outbox,
    pub(super) ping: Ping,
    /// A pong has come: one that fails to is missed from now on.
    pub(super) answers: bool,
    /// When a byte last passed, either way.
    pub(super) active: Instant,
    /// How long none had passed when the ping under way was handed over.
    pub(super) quiet: Option<Duration>,
    /// What has waited for the host longest, as a mark in `out`.
    pub(super) oldest: Option<u64>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a handful of flows")]
pub(super) enum Link {
    Stream(Framer),
    Datagram {
        /// The public address that STUN showed.
        mapped: Option<SocketAddr>,
    },
}

/// How long nothing had passed over a stream when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// So long that the ping which ended it was lost.
    Fatal(Duration),
    /// So long when it was closed.
    Closed(Duration),
    /// It died of something else.
    Irrelevant,
}

/// The keep-alive under way.
#[derive(Clone, Debug)]
pub(super) enum Ping {
    None,
    /// The host has not taken it yet; taken when the outbox is past this mark.
    Unsent(u64),
    /// On its way.
    Outstanding,
    /// Too late; the message that is being received is waited for.
    Late,
    /// STUN.
    Binding {
        id: TransactionId,
        request: Bytes,
        schedule: Retransmit,
    },
}

impl Open {
    /// How a stream's silence has to do with its death by this.
    pub(super) fn silence(&self, now: Instant, cause: FlowFailure) -> Silence {
        let Link::Stream(_) = self.link else {
            return Silence::Irrelevant;
        };
        let pinged = match self.ping {
            Ping::None => None,
            Ping::Unsent(_) | Ping::Outstanding | Ping::Late | Ping::Binding { .. } => self.quiet,
        };
        match cause {
            FlowFailure::Closed => pinged.map_or_else(
                || Silence::Closed(elapsed(self.active, now)),
                Silence::Fatal,
            ),
            FlowFailure::KeepAlive => pinged.map_or(Silence::Irrelevant, Silence::Fatal),
            FlowFailure::NotOpened
            | FlowFailure::Insecure
            | FlowFailure::AddressChanged
            | FlowFailure::Framing(_)
            | FlowFailure::TimedOut
            | FlowFailure::Failed(_)
            | FlowFailure::Refused(_)
            | FlowFailure::Unsent
            | FlowFailure::Expired
            | FlowFailure::NetworkChanged => Silence::Irrelevant,
        }
    }

    pub(super) fn path(&self, id: FlowId) -> Path {
        match self.link {
            Link::Stream(_) => Path::Stream(StreamId(id.0)),
            Link::Datagram { .. } => Path::Datagram(self.at),
        }
    }

    /// A Binding request is on its way from now on.
    pub(super) fn start_binding(&mut self, now: Instant, id: TransactionId) -> Option<Instant> {
        let mut buf = [0; 64];
        let ty = MessageType::request(StunMethod::BINDING);
        // 28 bytes fit.
        let len = Writer::new(&mut buf, ty, id).fingerprint().finish().ok()?;
        let request = Bytes::copy_from_slice(buf.get(..len)?);
        let schedule = Retransmit::datagram(RetransmitConfig::default(), now);
        let deadline = schedule.deadline();
        // A full outbox is noticed by whoever sends a message.
        let _ = self.out.push(request.clone());
        self.ping = Ping::Binding {
            id,
            request,
            schedule,
        };
        deadline
    }

    /// The schedule of the Binding request is due: when again, or that it has failed.
    pub(super) fn binding_timeout(&mut self, now: Instant) -> Result<Option<Instant>, FlowFailure> {
        let Ping::Binding {
            request, schedule, ..
        } = &mut self.ping
        else {
            return Ok(None);
        };
        match schedule.on_timeout(now) {
            Step::Wait => {}
            Step::Send => {
                let _ = self.out.push(request.clone());
            }
            Step::TimedOut => return Err(FlowFailure::KeepAlive),
        }
        Ok(schedule.deadline())
    }

    /// Takes in STUN: whether it answers the Binding request.
    pub(super) fn handle_stun(&mut self, datagram: &[u8]) -> Result<bool, FlowFailure> {
        let Ping::Binding { id, .. } = &self.ping else {
            return Ok(false);
        };
        let Ok(message) = StunMessage::parse(datagram) else {
            return Ok(false);
        };
        if message.transaction_id() != *id {
            return Ok(false);
        }
        match message.class() {
            Class::Request | Class::Indication => return Ok(false),
            Class::Error => return Err(FlowFailure::KeepAlive),
            Class::Success => {}
        }
        let Some(XorMappedAddress(seen)) = message.find() else {
            return Err(FlowFailure::KeepAlive);
        };
        self.ping = Ping::None;
        if let Link::Datagram { mapped } = &mut self.link {
            if mapped.is_some_and(|before| before != seen) {
                return Err(FlowFailure::AddressChanged);
            }
            *mapped = Some(seen);
        }
        Ok(true)
    }
}
