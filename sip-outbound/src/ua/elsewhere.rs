//! Requests that cannot be served at one address are sent to the next (RFC 3263 section 4.3).

use core::net::SocketAddr;

use alloc::collections::VecDeque;

use stun_proto::Transport;

use super::{Phase, RequestId, UserAgent};
use crate::Instant;
use crate::wire::UriBuf;

/// Where else a request may go.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    pub(super) uri: UriBuf,
    pub(super) places: VecDeque<(Transport, SocketAddr)>,
}

impl UserAgent {
    /// Sends a request to the next address of its next hop, over another flow and with another
    /// branch. `false` when there is none: the request has failed.
    pub(super) fn try_elsewhere(&mut self, now: Instant, id: RequestId) -> bool {
        if self.phase == Phase::Stopping || self.phase == Phase::Stopped {
            return false;
        }
        loop {
            let pending = self.requests.get_mut(&id);
            let Some(elsewhere) = pending.and_then(|pending| pending.elsewhere.as_mut()) else {
                return false;
            };
            let Some(place) = elsewhere.places.pop_front() else {
                return false;
            };
            let uri = elsewhere.uri.clone();
            let Ok(flow) = self.flow_to(&uri, place) else {
                continue;
            };
            let Some(pending) = self.requests.get_mut(&id) else {
                return false;
            };
            pending.flow = flow;
            if let Some(client) = pending.client.take() {
                self.by_client.remove(&client);
            }
            if self.open_ref(flow).is_some() {
                self.transmit_again(now, id);
            }
            return true;
        }
    }
}
