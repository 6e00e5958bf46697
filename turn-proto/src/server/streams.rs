//! Clients that come over TCP or TLS (RFC 8656 sections 3.1 and 12.5).

use stun_proto::framing::{Deframer, Next, Unit};
use stun_proto::wire::{Class, Message};
use stun_proto::{FiveTuple, Instant, Path, Received, StreamId};

use super::allocation::Timer;
use super::{Action, CloseReason, Core, DeleteReason, PeerId, RelayTo, Server, Users};
use crate::wire;

/// A unit of a client with an allocation: ChannelData with 65,535 bytes and its padding.
const MAX_UNIT: usize = 65_535 + 4 + 3;

/// One client's stream.
#[derive(Debug)]
pub(super) struct ClientStream {
    at: FiveTuple,
    state: StreamState,
    /// It has, or had, an allocation: ChannelData may still be on its way.
    had_allocation: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamState {
    /// Nothing has come yet.
    New,
    /// Its first request was a ConnectionBind, and so were all since.
    Binding,
    /// It carries requests, indications and ChannelData.
    Control,
    /// It is spliced to a peer (RFC 6062): the bytes are no messages.
    Data(PeerId),
    /// The host has been asked to close it.
    Closing,
}

/// There are as many streams as allowed, or the number is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many streams")]
pub struct StreamRefused;

impl<U: Users> Server<U> {
    /// A client's stream was accepted; `at` says which transport, and both addresses.
    ///
    /// # Errors
    /// [`StreamRefused`]: close it.
    pub fn stream_opened(
        &mut self,
        now: Instant,
        id: StreamId,
        at: FiveTuple,
    ) -> Result<(), StreamRefused> {
        let core = &mut self.core;
        let now = core.clock.advance(now);
        let limits = core.config.limits;
        if core.streams.len() >= limits.streams || core.streams.contains_key(&id) {
            return Err(StreamRefused);
        }
        let stream = ClientStream {
            at,
            state: StreamState::New,
            had_allocation: false,
        };
        core.streams.insert(id, stream);
        core.timers
            .arm(Timer::StreamIdle(id), now, core.config.stream_idle);
        let deframer = Deframer::with_channels(limits.unauthenticated_unit);
        self.deframers.insert(id, deframer);
        Ok(())
    }

    /// Takes the next unit from `input` and advances it. Call it until `input` is empty, or until
    /// it is [`NotMine`](Received::NotMine): the stream is a data connection then, and the rest
    /// of `input`, like everything after it, goes to the peer it is spliced to.
    ///
    /// A violation empties `input` and ends the stream with an action that says why.
    pub fn handle_stream<'s, 'i: 's>(
        &'s mut self,
        now: Instant,
        id: StreamId,
        input: &mut &'i [u8],
    ) -> Received<'s, RelayTo> {
        let core = &mut self.core;
        let now = core.clock.advance(now);
        let state = core.streams.get(&id).map(|stream| stream.state);
        if let Some(StreamState::Data(_)) = state {
            self.deframers.remove(&id);
            return Received::NotMine;
        }
        let open = state.is_some_and(|state| state != StreamState::Closing);
        let Some(deframer) = self.deframers.get_mut(&id).filter(|_| open) else {
            *input = &[];
            return Received::Consumed;
        };
        let allocated = core.by_path.contains_key(&Path::Stream(id).into());
        deframer.set_limit(if allocated {
            MAX_UNIT
        } else {
            core.config.limits.unauthenticated_unit
        });
        let partial = Timer::StreamPartial(id);
        match deframer.next(input) {
            Ok(Next::Unit(unit)) => {
                core.timers.disarm(partial);
                core.unit(now, id, unit).unwrap_or_else(|reason| {
                    *input = &[];
                    core.close_stream(id, reason);
                    Received::Consumed
                })
            }
            Ok(Next::Partial) => {
                if core.timers.get(partial).is_none() {
                    let times = if allocated { 3 } else { 1 };
                    let wait = core.config.partial_timeout.saturating_mul(times);
                    core.timers.arm(partial, now, wait);
                }
                Received::Consumed
            }
            Ok(Next::Nothing) => Received::Consumed,
            Err(error) => {
                *input = &[];
                core.close_stream(id, CloseReason::Framing(error));
                Received::Consumed
            }
        }
    }

    /// A client's stream is closed, by whichever side: its allocation ends.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        self.core.clock.advance(now);
        self.deframers.remove(&id);
        self.core.stream_closed(id);
        self.core.out.forget(id);
    }
}

impl<U: Users> Core<U> {
    fn unit<'a>(
        &mut self,
        now: Instant,
        id: StreamId,
        unit: Unit<'a>,
    ) -> Result<Received<'a, RelayTo>, CloseReason> {
        let stream = self.streams.get_mut(&id).ok_or(CloseReason::Protocol)?;
        let (path, at) = (Path::Stream(id), stream.at);
        match unit {
            // No channel can be bound before there is an allocation: this is something else.
            Unit::ChannelData { .. } if !stream.had_allocation => Err(CloseReason::Protocol),
            Unit::ChannelData { channel, data } => Ok(match self.channel(channel) {
                Some(channel) => self.channel_data(now, path, channel, data),
                None => self.not_permitted(),
            }),
            Unit::Message(bytes) => {
                let message = Message::parse(bytes).map_err(|_| CloseReason::Protocol)?;
                let binds = message.method() == wire::CONNECTION_BIND;
                stream.state = match stream.state {
                    StreamState::New if message.class() != Class::Request => {
                        return Err(CloseReason::Protocol);
                    }
                    StreamState::New | StreamState::Binding if binds => StreamState::Binding,
                    StreamState::New | StreamState::Binding => StreamState::Control,
                    same @ (StreamState::Control | StreamState::Data(_) | StreamState::Closing) => {
                        same
                    }
                };
                Ok(self.message(now, path, at, &message))
            }
        }
    }

    /// Whether a stream has carried nothing but ConnectionBind.
    pub(super) fn may_become_data(&self, id: StreamId) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|stream| stream.state == StreamState::Binding)
    }

    /// Whether this is a stream that cannot have an allocation.
    pub(super) fn is_data_connection(&self, path: Path) -> bool {
        let Path::Stream(id) = path else {
            return false;
        };
        let gone = |stream: &ClientStream| {
            matches!(stream.state, StreamState::Data(_) | StreamState::Closing)
        };
        self.streams.get(&id).is_none_or(gone)
    }

    /// The stream belongs to a peer from now on.
    pub(super) fn becomes_data(&mut self, id: StreamId, peer: PeerId) {
        self.forget_timers(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.state = StreamState::Data(peer);
        }
    }

    pub(super) fn close_stream(&mut self, id: StreamId, reason: CloseReason) {
        let path = Path::Stream(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.state == StreamState::Closing {
            return;
        }
        stream.state = StreamState::Closing;
        self.forget_timers(id);
        self.leave(path);
        self.out
            .actions
            .push_back(Action::CloseStream { id, reason });
    }

    fn stream_closed(&mut self, id: StreamId) {
        let stream = self.streams.remove(&id);
        if let Some(StreamState::Data(peer)) = stream.map(|stream| stream.state) {
            self.data_connection_closed(peer);
        }
        self.forget_timers(id);
        self.leave(Path::Stream(id));
    }

    /// Nothing more comes from this stream, and nothing can be sent there.
    fn leave(&mut self, path: Path) {
        self.forget_waiting(path);
        if let Some(id) = self.by_path.get(&path.into()).copied()
            && !self.survives(id, path)
        {
            self.delete(id, DeleteReason::StreamClosed);
        }
    }

    fn forget_timers(&mut self, id: StreamId) {
        self.timers.disarm(Timer::StreamIdle(id));
        self.timers.disarm(Timer::StreamPartial(id));
    }

    /// The stream has an allocation: it may be idle as long as that lives.
    pub(super) fn stream_with_allocation(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.had_allocation = true;
        }
        self.timers.disarm(Timer::StreamIdle(id));
    }

    /// The allocation ended: the stream must get another one soon.
    pub(super) fn stream_without_allocation(&mut self, id: StreamId) {
        let open = |stream: &ClientStream| {
            matches!(
                stream.state,
                StreamState::New | StreamState::Binding | StreamState::Control
            )
        };
        if self.streams.get(&id).is_some_and(open) {
            let now = self.clock.now();
            self.timers
                .arm(Timer::StreamIdle(id), now, self.config.stream_idle);
        }
    }
}
