//! The session as the contract checker sees it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use ice_proto::{
    Candidate, ComponentId, FiveTuple, Instant, Received, RelayId, Remote, SESSION_MAX_TRANSMIT,
    Session, SessionAction, SessionEvent, StreamFailure, StreamId,
};
use stun_proto::Path;

use crate::contract::Machine;
use crate::pieces::pieces;
use crate::sim::Choices;

/// What an application asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// A host address.
    AddHost(ComponentId, SocketAddr),
    /// Candidates.
    Gather,
    /// The other side's description.
    SetRemote(Remote),
    /// A candidate of the other side.
    AddRemote(u16, Candidate),
    /// The other side has no more.
    EndOfRemote,
    /// New credentials.
    Restart,
    /// Data.
    Send(ComponentId, Vec<u8>),
    /// A host address is gone.
    RemoveHost(SocketAddr),
    /// The end.
    Close,
}

/// What goes into a session.
#[derive(Clone, Debug)]
pub enum SessionIn {
    /// A datagram.
    Datagram(FiveTuple, Vec<u8>),
    /// A stream asked for is open.
    StreamOpened(StreamId, SocketAddr),
    /// A stream asked for is not to be had.
    StreamFailed(StreamId, StreamFailure),
    /// Bytes of a stream.
    Stream(StreamId, Vec<u8>),
    /// A stream is gone.
    StreamClosed(StreamId),
    /// A socket asked for is open.
    SocketOpened(RelayId, SocketAddr),
    /// An ICMP error.
    Icmp(FiveTuple),
    /// A command.
    Command(Command),
}

/// What comes out of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionOut {
    /// Bytes to send.
    Transmit(Path, Vec<u8>),
    /// What the host must do.
    Action(SessionAction),
    /// An event.
    Event(SessionEvent),
    /// Data from the other side.
    Data(ComponentId, Vec<u8>),
    /// A datagram that is not the session's.
    NotMine,
    /// A command was refused.
    Refused(String),
}

/// A session.
#[derive(Debug)]
pub struct SessionMachine(pub Session);

impl SessionMachine {
    fn command(
        &mut self,
        now: Instant,
        command: &Command,
        out: &mut Vec<SessionOut>,
    ) -> Result<(), String> {
        let session = &mut self.0;
        match command {
            Command::AddHost(component, addr) => session
                .add_host(now, *component, *addr)
                .map_err(|e| format!("{e}")),
            Command::Gather => session.gather(now).map_err(|e| format!("{e}")),
            Command::SetRemote(remote) => session
                .set_remote(now, remote.clone())
                .map_err(|e| format!("{e}")),
            Command::AddRemote(stream, candidate) => session
                .add_remote_candidate(now, *stream, candidate.clone())
                .map_err(|e| format!("{e}")),
            Command::EndOfRemote => {
                session.end_of_remote_candidates(now);
                Ok(())
            }
            Command::Restart => session.restart(now).map_err(|e| format!("{e}")),
            Command::Send(component, data) => {
                let mut buf = alloc::vec![0; data.len() + 100];
                let sent = session.send(now, *component, data, &mut buf);
                sent.map_err(|e| format!("{e}")).map(|sent| {
                    buf.truncate(sent.len);
                    out.push(SessionOut::Transmit(sent.to, buf));
                })
            }
            Command::RemoveHost(addr) => {
                session.remove_host(now, *addr);
                Ok(())
            }
            Command::Close => {
                session.close(now);
                Ok(())
            }
        }
    }
}

impl Machine for SessionMachine {
    type Input = SessionIn;
    type Output = SessionOut;

    fn input(&mut self, now: Instant, input: &SessionIn, out: &mut Vec<SessionOut>) {
        let session = &mut self.0;
        match input {
            SessionIn::Datagram(at, data) => match session.handle_datagram(now, *at, data) {
                Received::NotMine => out.push(SessionOut::NotMine),
                Received::Consumed => {}
                Received::Data { peer, data } => out.push(SessionOut::Data(peer, data.to_vec())),
            },
            SessionIn::StreamOpened(id, local) => session.stream_opened(now, *id, *local),
            SessionIn::StreamFailed(id, cause) => session.stream_failed(now, *id, *cause),
            SessionIn::Stream(id, data) => {
                let mut rest = &data[..];
                let mut calls = 0;
                while !rest.is_empty() {
                    if let Received::Data { peer, data } =
                        session.handle_stream(now, *id, &mut rest)
                    {
                        out.push(SessionOut::Data(peer, data.to_vec()));
                    }
                    calls += 1;
                    assert!(calls <= data.len() + 1, "handle_stream does not advance");
                }
            }
            SessionIn::StreamClosed(id) => session.handle_stream_closed(now, *id),
            SessionIn::SocketOpened(relay, local) => session.socket_opened(now, *relay, *local),
            SessionIn::Icmp(at) => session.handle_icmp_error(now, *at),
            SessionIn::Command(command) => {
                if let Err(why) = self.command(now, command, out) {
                    out.push(SessionOut::Refused(why));
                }
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll(&mut self, _room: usize) -> Option<SessionOut> {
        let mut buf = [0; SESSION_MAX_TRANSMIT];
        if let Some(transmit) = self.0.poll_transmit(&mut buf) {
            let bytes = buf[..transmit.len].to_vec();
            return Some(SessionOut::Transmit(transmit.to, bytes));
        }
        let action = self.0.poll_action().map(SessionOut::Action);
        action.or_else(|| self.0.poll_event().map(SessionOut::Event))
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    fn is_terminal(output: &SessionOut) -> bool {
        matches!(output, SessionOut::Event(SessionEvent::Closed))
    }

    fn is_silence(output: &SessionOut) -> bool {
        matches!(output, SessionOut::NotMine | SessionOut::Refused(_))
    }

    fn lane(output: &SessionOut) -> u64 {
        match output {
            SessionOut::Transmit(..) => 0,
            SessionOut::Action(_) => 1,
            SessionOut::Event(_) => 2,
            SessionOut::Data(..) => 3,
            SessionOut::NotMine | SessionOut::Refused(_) => 4,
        }
    }

    fn cut(input: &SessionIn, choices: &mut Choices) -> Vec<SessionIn> {
        match input {
            SessionIn::Stream(id, data) => pieces(data, choices)
                .into_iter()
                .map(|piece| SessionIn::Stream(*id, piece))
                .collect(),
            SessionIn::Datagram(..)
            | SessionIn::StreamOpened(..)
            | SessionIn::StreamFailed(..)
            | SessionIn::StreamClosed(_)
            | SessionIn::SocketOpened(..)
            | SessionIn::Icmp(_)
            | SessionIn::Command(_) => Vec::from([input.clone()]),
        }
    }

    fn noise(&self, choices: &mut Choices) -> Option<SessionIn> {
        let local = SocketAddr::from(([203, 0, 113, 7], 7));
        let remote = SocketAddr::from(([203, 0, 113, 8], 8));
        let len = choices.index(60);
        let data = choices.bytes(len);
        Some(match choices.below(2) {
            0 => SessionIn::Datagram(FiveTuple::udp(local, remote), data),
            _ => SessionIn::Stream(StreamId(u64::MAX), data),
        })
    }
}
