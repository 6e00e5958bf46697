//! One flow of an edge proxy.

use alloc::string::String;

use stun_proto::{FiveTuple, Transport};

use super::EdgeConfig;
use super::binding::FlowRegistration;
use super::plan::Plan;
use crate::Instant;
use crate::framing::{Framer, FramerConfig, FramingError, Role};
use crate::outbox::Outbox;
use crate::transaction::ServerId;
use crate::ua::FlowTarget;
use crate::wire::{ParseConfig, UriBuf};

/// Which side of the proxy a flow is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client.
    Access,
    /// The network: may send requests to clients.
    Core,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeFlowEnd {
    /// The other side closed it, or it could not be opened.
    #[error("closed")]
    Closed,
    /// No sign of life, or no registration, for too long.
    #[error("silent or unregistered for too long")]
    Idle,
    /// The bytes cannot be read.
    #[error(transparent)]
    Framing(FramingError),
    /// The other side does not take what is sent.
    #[error("too much waits to be sent")]
    Unsent,
}

/// What makes two next hops the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NextHop {
    host: String,
    port: u16,
    secure: bool,
    transport: Option<Transport>,
}

impl NextHop {
    pub(super) fn of(uri: &UriBuf) -> Self {
        let uri = uri.as_uri();
        Self {
            host: uri.host().to_ascii_lowercase(),
            port: uri.port_or_default(),
            secure: uri.is_secure(),
            transport: uri.transport(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct EdgeFlow {
    pub(super) side: Side,
    /// Where a flow to the core leads.
    pub(super) target: Option<FlowTarget>,
    pub(super) serial: u64,
    pub(super) at: Option<FiveTuple>,
    pub(super) link: Option<Link>,
    pub(super) out: Outbox,
    pub(super) registration: Option<FlowRegistration>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most are streams")]
pub(super) enum Link {
    Stream(Framer),
    Datagram,
}

/// A request whose way is known but not open.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// None for ACK.
    pub(super) server: Option<ServerId>,
    pub(super) plan: Plan,
}

impl EdgeFlow {
    pub(super) const fn new(side: Side, target: Option<FlowTarget>, serial: u64) -> Self {
        Self {
            side,
            target,
            serial,
            at: None,
            link: None,
            out: Outbox::new(0),
            registration: None,
        }
    }

    pub(super) fn open(&mut self, at: FiveTuple, config: &EdgeConfig, now: Instant) {
        self.at = Some(at);
        self.out = Outbox::new(config.max_unsent);
        self.link = Some(if at.transport.is_stream() {
            let access = self.side == Side::Access;
            let limits = if access {
                config.unregistered_limits
            } else {
                config.parse.limits
            };
            let mut framer = FramerConfig {
                parse: ParseConfig {
                    limits,
                    ..config.parse
                },
                ..FramerConfig::new(Role::Server)
            };
            if access {
                framer.message_timeout = core::time::Duration::from_secs(10);
            }
            Link::Stream(Framer::new(framer, now))
        } else {
            Link::Datagram
        });
    }

    /// A registered client may send more.
    pub(super) fn widen(&mut self, config: &EdgeConfig) {
        let timeout = core::time::Duration::from_secs(30);
        if let Some(framer) = self.framer() {
            framer.set_limits(config.parse.limits, timeout);
        }
    }

    pub(super) fn narrow(&mut self, config: &EdgeConfig) {
        let timeout = core::time::Duration::from_secs(10);
        if let Some(framer) = self.framer() {
            framer.set_limits(config.unregistered_limits, timeout);
        }
    }

    pub(super) const fn framer(&mut self) -> Option<&mut Framer> {
        match &mut self.link {
            Some(Link::Stream(framer)) => Some(framer),
            Some(Link::Datagram) | None => None,
        }
    }
}
