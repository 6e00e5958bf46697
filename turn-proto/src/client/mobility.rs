//! Taking the allocation to another path (RFC 8016).

use stun_proto::wire::Message;
use stun_proto::{Instant, Path, StreamId, Transport};

use super::requests::Request;
use super::{Cause, ClientError, Core, Event, Link, State, Timer};
use crate::wire::{Lifetime, code};

impl Core {
    pub(super) fn path_changed(
        &mut self,
        now: Instant,
        path: Path,
        transport: Transport,
    ) -> Result<(), ClientError> {
        let active = matches!(self.state, State::Active(_));
        // The server refuses a ticket from the address it knows already.
        let same = self.link.path == path && !self.down;
        if !active || self.ticket.is_none() || same {
            return Err(ClientError::State);
        }
        // The user name has been promised not to be seen.
        let exposed = self.config.private_username && !transport.is_secure();
        if exposed && self.link.transport.is_secure() {
            return Err(ClientError::Options);
        }
        if let Some(link) = self.candidate.take() {
            self.transactions.fail_path(link.path);
        }
        self.candidate = Some(Link { path, transport });
        self.start(now, Request::Move);
        Ok(())
    }

    /// The server has taken the new path.
    pub(super) fn moved(&mut self, now: Instant, sent: Instant, message: &Message<'_>) {
        let granted = message.find::<Lifetime>().is_some_and(|l| l.0 > 0);
        if !granted {
            return self.move_failed(now, Cause::Malformed);
        }
        let Some(link) = self.candidate.take() else {
            return;
        };
        // The server goes on using the old path until it gets data over the new one.
        self.old = (!self.down).then_some(self.link);
        self.link = link;
        self.down = false;
        self.partial_until = None;
        self.begin_life(now);
        self.refreshed(now, sent, message);
        self.tell(Event::PathChanged);
        self.pump(now);
    }

    /// The old path stays in use, if it still works.
    pub(super) fn move_failed(&mut self, now: Instant, cause: Cause) {
        if self.candidate.take().is_none() {
            return;
        }
        self.tell(Event::PathChangeFailed { cause });
        if self.down && cause == Cause::Code(code::ALLOCATION_MISMATCH) {
            return self.fail(cause);
        }
        self.pump(now);
    }

    /// A stream of the client is closed, by whichever side.
    pub(super) fn stream_closed(&mut self, now: Instant, id: StreamId) {
        let path = Path::Stream(id);
        if self.connections.has_stream(id) {
            self.connection_closed(now, id);
        } else if self.candidate.is_some_and(|link| link.path == path) {
            self.transactions.fail_path(path);
            self.move_failed(now, Cause::StreamClosed);
        } else if self.old.is_some_and(|link| link.path == path) {
            self.old = None;
        } else if self.link.path == path && !self.down {
            self.link_closed(now, Cause::StreamClosed);
        }
    }

    /// The stream to the server is gone, or dead.
    pub(super) fn link_closed(&mut self, now: Instant, cause: Cause) {
        let waits = matches!(self.state, State::Active(_)) && self.ticket.is_some();
        if !waits {
            return self.fail(cause);
        }
        self.down = true;
        self.partial_until = None;
        self.timers.disarm(Timer::Silence);
        self.tell(Event::PathLost);
        let path = self.link.path;
        let mut ended = self.transactions.fail_path(path);
        ended.extend(self.connects.fail_path(path));
        for request in ended {
            self.failed(now, request.context, cause);
        }
    }
}
