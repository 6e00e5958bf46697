//! One relay, and how far it has come.

use alloc::boxed::Box;
use core::net::SocketAddr;
use core::time::Duration;

use stun_proto::{Instant, StreamId};
use turn_proto::client::Client;

use crate::ComponentId;

/// How far a relay has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// The host opens the stream.
    Stream,
    /// The host binds a fresh socket.
    Socket,
    /// The client asks for an allocation.
    Allocating(Box<Client>),
    /// There is an allocation, and a candidate.
    Active(Box<Client>),
    /// There was one before a restart, and the server is asked whether it is still there.
    Doubted(Box<Client>),
    /// There was one before a restart. It has not been proven, or another one has been before it:
    /// only what was agreed on before the restart uses it.
    Kept(Box<Client>),
    /// The allocation is being given back.
    Closing(Box<Client>),
    /// The same, and from where it was reached another one is asked for afterwards.
    Replacing(Box<Client>),
}

/// One relay, or the attempt at one.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) server: usize,
    pub(super) component: ComponentId,
    /// The host address it is reached from; none over streams.
    pub(super) host: Option<usize>,
    pub(super) stream: Option<StreamId>,
    pub(super) fresh: u8,
    /// When it was begun.
    pub(super) since: Instant,
    /// The relayed address, and the client's as the server sees it.
    pub(super) granted: Option<(SocketAddr, Option<SocketAddr>)>,
    pub(super) phase: Phase,
}

impl Relay {
    pub(super) const fn is_gathering(&self) -> bool {
        match self.phase {
            Phase::Stream
            | Phase::Socket
            | Phase::Allocating(_)
            | Phase::Doubted(_)
            | Phase::Replacing(_) => true,
            Phase::Active(_) | Phase::Kept(_) | Phase::Closing(_) => false,
        }
    }

    /// Whether it may still become a candidate for the first time.
    pub(super) const fn is_begun(&self) -> bool {
        match self.phase {
            Phase::Stream | Phase::Socket | Phase::Allocating(_) => true,
            Phase::Active(_)
            | Phase::Doubted(_)
            | Phase::Kept(_)
            | Phase::Closing(_)
            | Phase::Replacing(_) => false,
        }
    }

    /// Whether it serves the same as another one: same server and component, both over streams or
    /// both from the same address.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.server == other.server && self.component == other.component && self.host == other.host
    }

    pub(super) fn is_older(&self, now: Instant, than: Duration) -> bool {
        now.duration_since(self.since) >= than
    }

    /// Whether it is, or was to be, a candidate.
    pub(super) const fn is_wanted(&self) -> bool {
        match self.phase {
            Phase::Active(_) | Phase::Doubted(_) | Phase::Replacing(_) => true,
            Phase::Stream
            | Phase::Socket
            | Phase::Allocating(_)
            | Phase::Kept(_)
            | Phase::Closing(_) => false,
        }
    }

    /// Asks the server whether the allocation is still there, if there was one.
    pub(super) fn doubt(&mut self, now: Instant) -> bool {
        let there = matches!(
            self.phase,
            Phase::Active(_) | Phase::Doubted(_) | Phase::Kept(_)
        );
        if there {
            // Without path there is no answer either.
            let asked = self.client().map(|client| client.refresh(now));
            let to = if asked == Some(Ok(())) {
                Phase::Doubted
            } else {
                Phase::Kept
            };
            self.turn(to);
        }
        there
    }

    /// It was a candidate before a restart that was taken back.
    pub(super) fn trust(&mut self) {
        if matches!(self.phase, Phase::Doubted(_) | Phase::Kept(_)) {
            self.turn(Phase::Active);
        }
    }

    /// Has another relay follow one that is being given back.
    pub(super) fn replace(&mut self) -> bool {
        let phase = core::mem::replace(&mut self.phase, Phase::Stream);
        let (phase, replaced) = match phase {
            Phase::Closing(client) | Phase::Replacing(client) => (Phase::Replacing(client), true),
            other @ (Phase::Stream
            | Phase::Socket
            | Phase::Allocating(_)
            | Phase::Active(_)
            | Phase::Doubted(_)
            | Phase::Kept(_)) => (other, false),
        };
        self.phase = phase;
        replaced
    }

    /// Has none follow.
    pub(super) fn end(&mut self) {
        let phase = core::mem::replace(&mut self.phase, Phase::Stream);
        self.phase = match phase {
            Phase::Replacing(client) => Phase::Closing(client),
            other @ (Phase::Stream
            | Phase::Socket
            | Phase::Allocating(_)
            | Phase::Active(_)
            | Phase::Doubted(_)
            | Phase::Kept(_)
            | Phase::Closing(_)) => other,
        };
    }

    /// Goes from one phase with an allocation to another.
    pub(super) fn turn(&mut self, to: fn(Box<Client>) -> Phase) {
        let phase = core::mem::replace(&mut self.phase, Phase::Stream);
        self.phase = match phase {
            Phase::Allocating(client)
            | Phase::Active(client)
            | Phase::Doubted(client)
            | Phase::Kept(client) => to(client),
            other @ (Phase::Stream | Phase::Socket | Phase::Closing(_) | Phase::Replacing(_)) => {
                other
            }
        };
    }

    pub(super) fn client(&mut self) -> Option<&mut Client> {
        match &mut self.phase {
            Phase::Allocating(client)
            | Phase::Active(client)
            | Phase::Doubted(client)
            | Phase::Kept(client)
            | Phase::Closing(client)
            | Phase::Replacing(client) => Some(client),
            Phase::Stream | Phase::Socket => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Allocating(client)
            | Phase::Active(client)
            | Phase::Doubted(client)
            | Phase::Kept(client)
            | Phase::Closing(client)
            | Phase::Replacing(client) => client.poll_timeout(),
            Phase::Stream | Phase::Socket => None,
        }
    }
}
