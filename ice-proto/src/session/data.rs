//! The way out for application data: no queue, no allocation.

use stun_proto::{Instant, Path, Transmit};
use turn_proto::DataHeader;

use super::relay::Relay;
use super::{SendError, Session};
use crate::{ComponentId, Route};

impl Session {
    /// Puts a payload for the other side into `buf`, with what a relay wants around it.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(
        &mut self,
        now: Instant,
        component: ComponentId,
        payload: &[u8],
        buf: &mut [u8],
    ) -> Result<Transmit, SendError> {
        let (to, header) = self.send_header(now, component, payload.len())?;
        let len = match header {
            Some(header) => header.write(payload, buf),
            None => buf.get_mut(..payload.len()).map(|slot| {
                slot.copy_from_slice(payload);
                payload.len()
            }),
        };
        let len = len.ok_or(SendError::BufferTooSmall)?;
        Ok(Transmit { to, len })
    }

    /// Where `len` bytes of payload go and what stands around them, if anything: for hosts that
    /// gather writes.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_header(
        &mut self,
        now: Instant,
        component: ComponentId,
        len: usize,
    ) -> Result<(Path, Option<DataHeader>), SendError> {
        let now = self.clock.advance(now);
        // First, because it tells the agent the time, by which consent may be over.
        self.agent.data_sent(now, component);
        match self.agent.route(component).ok_or(SendError::NoRoute)? {
            Route::Datagram(at) => Ok((Path::Datagram(at), None)),
            Route::Relay { relay, peer } => {
                let client = self.relays.get_mut(&relay).and_then(Relay::client);
                let client = client.ok_or(SendError::NoRoute)?;
                let (to, header) = client.send_header(now, peer, len)?;
                Ok((to, Some(header)))
            }
        }
    }
}
