//! The open tunnel: bytes from either side to the other, bounded, in order, untouched.

use super::{
    ConnectServer, Ended, NotOpen, ProxyAction, Queue, Relay, Side, Spliced, State, Timer,
};
use crate::Instant;

impl ConnectServer {
    /// Hands bytes straight through when nothing waits in front of them, otherwise queues them.
    pub(super) fn relay<'i>(&mut self, from: Side, input: &'i [u8]) -> (usize, &'i [u8]) {
        let limit = self.config.limits.relay;
        let queue = self.queue(from.other());
        let nothing: &[u8] = &[];
        let (len, forward) = if queue.is_empty() {
            let len = input.len().min(limit);
            (len, input.get(..len).unwrap_or_default())
        } else {
            (queue.push(input, limit), nothing)
        };
        let count = match from {
            Side::Client => &mut self.record.up,
            Side::Upstream => &mut self.record.down,
        };
        *count = count.saturating_add(len as u64);
        if len > 0 {
            self.restart_idle();
        }
        (len, forward)
    }

    /// Takes back the part of [`Taken::forward`](super::Taken::forward) that the connection did
    /// not take: it goes out first with [`poll_transmit`](Self::poll_transmit).
    pub fn handle_unsent(&mut self, now: Instant, to: Side, rest: &[u8]) {
        self.clock.advance(now);
        if matches!(self.state, State::Relay(_) | State::Deliver { .. }) {
            self.queue(to).put_back(rest);
        }
    }

    pub(super) fn relay_eof(&mut self, from: Side) {
        if !self.config.half_close {
            return self.deliver(from.other(), Ended::Closed(from));
        }
        let State::Relay(relay) = &mut self.state else {
            return;
        };
        if relay.first.is_none() {
            relay.first = Some(from);
            let wait = self.config.limits.half_close_timeout;
            self.timers.arm(Timer::HalfClose, self.clock.now(), wait);
        }
    }

    /// Passes FIN on behind the last byte, and ends when both sides have it.
    pub(super) fn relay_progress(&mut self) {
        let State::Relay(Relay { first, fin }) = self.state else {
            return;
        };
        let [client_eof, upstream_eof] = self.eof;
        let [mut client_fin, mut upstream_fin] = fin;
        if upstream_eof && !client_fin && self.to_client.is_empty() {
            client_fin = true;
            self.actions
                .push_back(ProxyAction::CloseWrite(Side::Client));
        }
        if client_eof && !upstream_fin && self.to_upstream.is_empty() {
            upstream_fin = true;
            self.actions
                .push_back(ProxyAction::CloseWrite(Side::Upstream));
        }
        let fin = [client_fin, upstream_fin];
        self.state = State::Relay(Relay { first, fin });
        if let ([true, true], Some(first)) = (fin, first) {
            self.close(Ended::Closed(first));
        }
    }

    /// Lets the host take both connections and move the bytes itself; the machine is done then
    /// and has said so with its last event, in which the bytes moved from now on are missing.
    ///
    /// # Errors
    /// [`NotOpen`] before the tunnel is open, and once one side has closed it.
    pub fn splice(&mut self, now: Instant) -> Result<Spliced, NotOpen> {
        self.clock.advance(now);
        if !matches!(self.state, State::Relay(Relay { first: None, .. })) {
            return Err(NotOpen);
        }
        let take = |queue: &mut Queue| core::mem::take(queue).into_bytes();
        let spliced = Spliced {
            to_client: take(&mut self.to_client),
            to_upstream: take(&mut self.to_upstream),
        };
        self.close(Ended::Spliced);
        Ok(spliced)
    }
}
