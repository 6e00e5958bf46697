//! One TCP connection of a P-CSCF.

use bytes::{Buf as _, BytesMut};
use sip_outbound::{FlowId, Side};
use stun_proto::FiveTuple;

use super::CloseCause;
use crate::tunnel::Tunnel;

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// A client; TLS is being set up.
    Handshake,
    /// A client that has to say what it speaks.
    First { flow: FlowId },
    /// A client that speaks SIP.
    Sip { flow: FlowId },
    /// A client that is the host's.
    Http,
    /// To a registrar; TCP is being set up.
    Connecting { flow: FlowId },
    /// To a registrar.
    Core { flow: FlowId },
    /// What is left is still sent. `said`: so is that nothing more comes.
    Closing { cause: CloseCause, said: bool },
}

impl Phase {
    /// The flow of the edge proxy.
    pub(super) const fn flow(&self) -> Option<FlowId> {
        match self {
            Self::First { flow }
            | Self::Sip { flow }
            | Self::Connecting { flow }
            | Self::Core { flow } => Some(*flow),
            Self::Handshake | Self::Http | Self::Closing { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    /// Whether a client is at the other end, or a registrar.
    pub(super) side: Side,
    pub(super) at: FiveTuple,
    pub(super) tunnel: Tunnel,
    pub(super) phase: Phase,
    /// Clear bytes the tunnel has no room for.
    pending: BytesMut,
    /// Is among those that have something to write.
    pub(super) queued: bool,
}

impl Conn {
    pub(super) fn new(side: Side, at: FiveTuple, tunnel: Tunnel, phase: Phase) -> Self {
        Self {
            side,
            at,
            tunnel,
            phase,
            pending: BytesMut::new(),
            queued: false,
        }
    }

    /// Takes clear bytes to send; `false` when more than `limit` wait then.
    pub(super) fn push(&mut self, data: &[u8], limit: usize) -> bool {
        let taken = if self.pending.is_empty() {
            self.tunnel.write(data)
        } else {
            0
        };
        let rest = data.get(taken..).unwrap_or_default();
        self.pending.extend_from_slice(rest);
        self.pending.len() <= limit
    }

    /// Takes as many clear bytes as there is room for.
    pub(super) fn write(&mut self, data: &[u8]) -> usize {
        if self.pending.is_empty() {
            self.tunnel.write(data)
        } else {
            0
        }
    }

    /// How many clear bytes the tunnel has no room for.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// What waits is not sent any more.
    pub(super) fn forget_waiting(&mut self) {
        self.pending = BytesMut::new();
    }

    /// Whether there is something to poll.
    pub(super) fn wants_transmit(&self) -> bool {
        let closing = matches!(self.phase, Phase::Closing { .. });
        closing || !self.pending.is_empty() || self.tunnel.wants_transmit()
    }

    /// Fills `buf` with bytes for the TCP connection.
    pub(super) fn poll(&mut self, buf: &mut [u8]) -> Option<usize> {
        if buf.is_empty() {
            return None;
        }
        loop {
            if let Some(len) = self.tunnel.poll_transmit(buf) {
                return Some(len);
            }
            if !self.pending.is_empty() {
                let taken = self.tunnel.write(&self.pending);
                self.pending.advance(taken);
                if taken > 0 {
                    continue;
                }
            }
            match &mut self.phase {
                Phase::Closing { said, .. } if !*said => {
                    *said = true;
                    self.tunnel.close();
                }
                Phase::Closing { .. }
                | Phase::Handshake
                | Phase::First { .. }
                | Phase::Sip { .. }
                | Phase::Http
                | Phase::Connecting { .. }
                | Phase::Core { .. } => return None,
            }
        }
    }
}
