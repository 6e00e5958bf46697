//! The side that answers requests.

use core::time::Duration;

use alloc::collections::VecDeque;
use alloc::string::String;

use bytes::Bytes;
use stun_proto::Path;

use super::table::{Kind, Table};
use super::{Outgoing, Timings, is_reliable, unless_reliable};
use crate::Instant;
use crate::time::Clock;
use crate::wire::{Builder, Method, Request, Response, StatusCode, split_list};

/// A server transaction; numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub(crate) u64);

/// What a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A new one, to be answered under this number. A CANCEL comes this way when there is no
    /// INVITE for it.
    New(ServerId),
    /// The ACK for a 2xx, or for nothing: has no transaction.
    Ack,
    /// The INVITE of this number is to be given up, answer it with 487. The CANCEL itself has been
    /// answered.
    Cancelled(ServerId),
    /// Known already, and dealt with.
    Absorbed,
    /// There are as many open transactions as allowed; answered with 503 unless it was an ACK.
    Overload,
}

/// Why a response is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    /// There is no such transaction, or it is over.
    #[error("no such server transaction")]
    Unknown,
    /// The request has been answered.
    #[error("the request has been answered")]
    Answered,
    /// This code is not allowed for the request: 1xx other than 100, or 408, where the method is
    /// not INVITE (RFC 4320).
    #[error("this status is not allowed here")]
    Status,
    /// The response is not one to this request.
    #[error("the response does not belong to the request")]
    Foreign,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The ACK for a refusal never came.
    NoAck(ServerId),
    /// The request was not answered for so long that nobody waits for the answer any more: 64 * T1,
    /// or [`Timings::unanswered`] for an INVITE, which is refused with 408.
    Abandoned(ServerId),
    /// It is over and its number forgotten: said once of each, and nothing after it.
    Ended(ServerId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// 100 is due.
    Trying,
    /// G: send the refusal again.
    Resend,
    /// H: the ACK does not come.
    NoAck,
    /// The request is not answered.
    Abandoned,
    /// I, J and L: the request is no longer expected again.
    Linger,
}

impl Kind for Timer {
    const ALL: &'static [Self] = &[
        Self::Trying,
        Self::Resend,
        Self::NoAck,
        Self::Abandoned,
        Self::Linger,
    ];
    const LINGER: Self = Self::Linger;
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing sent.
    Trying,
    /// 1xx sent.
    Proceeding { last: Bytes },
    /// INVITE, 2xx sent (RFC 6026).
    Accepted,
    /// INVITE, refusal sent.
    Refused { last: Bytes },
    /// INVITE, refusal acknowledged.
    Confirmed,
    /// Other methods, final response sent.
    Completed { last: Bytes },
}

#[derive(Clone, Debug)]
struct Server {
    reply_to: Path,
    request: Request,
    state: State,
    since: Instant,
    interval: Duration,
}

/// What tells requests apart: branch and sent-by, or without a branch of RFC 3261 everything that
/// section 17.2.3 lists. ACK counts as INVITE.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    branch: String,
    sent_by: String,
    method: Method,
}

impl Key {
    fn of(request: &Request, method: &Method) -> Self {
        let method = match method {
            m if *m == Method::ACK => Method::INVITE,
            m => m.clone(),
        };
        let (branch, sent_by) = match request.cookie_branch() {
            Some(branch) => (String::from(branch), request.sent_by().to_ascii_lowercase()),
            None => {
                let via = request.rows(crate::wire::Name::VIA).next();
                let via = split_list(via.unwrap_or_default()).next();
                // The To tag of an ACK is ours; for other methods it has to be the same.
                let to_tag = if method == Method::INVITE {
                    None
                } else {
                    request.to_tag()
                };
                let parts = [
                    request.uri_text(),
                    to_tag.unwrap_or_default(),
                    request.from_tag().unwrap_or_default(),
                    request.call_id(),
                ];
                let number = request.cseq_number();
                let text = alloc::format!("{}\n{number}", parts.join("\n"));
                (text, String::from(via.unwrap_or_default()))
            }
        };
        Self {
            branch,
            sent_by,
            method,
        }
    }
}

/// The open server transactions of one element.
///
/// ```
/// use sip_outbound::wire::{Builder, Limits, Message, ParseConfig, Request, StatusCode};
/// use sip_outbound::{Incoming, Instant, ServerTransactions, Timings};
/// use stun_proto::{Path, StreamId};
///
/// let text = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
///     To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n";
/// let message = Message::parse(text, &ParseConfig::default()).unwrap();
/// let request = Request::check(message, &Limits::DEFAULT).unwrap();
/// let (now, path) = (Instant::ZERO, Path::Stream(StreamId(1)));
///
/// let mut servers = ServerTransactions::new(Timings::RFC3261, 1024, now);
/// let Incoming::New(id) = servers.handle_request(now, path, &request) else { panic!() };
/// let ok = Builder::reply(&request, StatusCode::OK, Some("t")).finish(b"").unwrap();
/// servers.respond(now, id, &ok).unwrap();
/// assert!(servers.poll_transmit().unwrap().bytes.starts_with(b"SIP/2.0 200 OK\r\n"));
/// ```
#[derive(Clone, Debug)]
pub struct ServerTransactions {
    timings: Timings,
    limit: usize,
    clock: Clock,
    next: u64,
    table: Table<ServerId, Key, Timer, Server>,
    out: VecDeque<Outgoing>,
    events: VecDeque<ServerEvent>,
}

impl ServerTransactions {
    /// No transactions; at most `limit` at a time.
    pub const fn new(timings: Timings, limit: usize, now: Instant) -> Self {
        Self {
            timings,
            limit,
            clock: Clock::new(now),
            next: 0,
            table: Table::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// How many transactions are open.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Takes in a request whose responses go to `reply_to`.
    pub fn handle_request(&mut self, now: Instant, reply_to: Path, request: &Request) -> Incoming {
        let now = self.clock.advance(now);
        let key = Key::of(request, request.method());
        if let Some(id) = self.table.find(&key) {
            return if *request.method() == Method::ACK {
                self.acknowledged(now, id)
            } else {
                self.repeated(id)
            };
        }
        if *request.method() == Method::ACK {
            return Incoming::Ack;
        }
        if self.table.len() >= self.limit {
            self.answer_statelessly(reply_to, request, StatusCode::SERVICE_UNAVAILABLE);
            return Incoming::Overload;
        }
        let invite = (*request.method() == Method::CANCEL)
            .then(|| Key::of(request, &Method::INVITE))
            .and_then(|key| self.table.find(&key));
        let id = self.open(now, reply_to, request.clone(), key);
        match invite {
            None => Incoming::New(id),
            Some(invite) => self.cancelled(now, id, invite, request),
        }
    }

    fn open(&mut self, now: Instant, reply_to: Path, request: Request, key: Key) -> ServerId {
        let id = ServerId(self.next);
        self.next = self.next.saturating_add(1);
        let (trying, patience) = if *request.method() == Method::INVITE {
            (self.timings.trying, self.timings.unanswered)
        } else {
            (self.timings.non_invite_trying(), self.timings.timeout())
        };
        let server = Server {
            reply_to,
            request,
            state: State::Trying,
            since: now,
            interval: self.timings.t1,
        };
        self.table.insert(id, key, server);
        self.table.arm(id, Timer::Trying, now, trying);
        self.table.arm(id, Timer::Abandoned, now, patience);
        id
    }

    fn cancelled(
        &mut self,
        now: Instant,
        id: ServerId,
        invite: ServerId,
        cancel: &Request,
    ) -> Incoming {
        // The tag is that of the INVITE's responses in spirit only: nobody looks at it.
        let tag = alloc::format!("c{}", invite.0);
        if let Ok(ok) = Builder::reply(cancel, StatusCode::OK, Some(&tag)).finish(b"") {
            let _ = self.respond(now, id, &ok);
        }
        let open = self
            .table
            .get(invite)
            .is_some_and(|invite| match invite.state {
                State::Trying | State::Proceeding { .. } => true,
                State::Accepted
                | State::Refused { .. }
                | State::Confirmed
                | State::Completed { .. } => false,
            });
        if open {
            Incoming::Cancelled(invite)
        } else {
            Incoming::Absorbed
        }
    }

    fn acknowledged(&mut self, now: Instant, id: ServerId) -> Incoming {
        let Some(server) = self.table.get_mut(id) else {
            return Incoming::Absorbed;
        };
        match server.state {
            State::Refused { .. } => {
                server.state = State::Confirmed;
                let wait = unless_reliable(server.reply_to, self.timings.t4);
                self.linger(now, id, wait);
                Incoming::Absorbed
            }
            // Only old clients use the branch of the INVITE for this (RFC 6026 section 7.1).
            State::Accepted => Incoming::Ack,
            State::Trying
            | State::Proceeding { .. }
            | State::Confirmed
            | State::Completed { .. } => Incoming::Absorbed,
        }
    }

    fn repeated(&mut self, id: ServerId) -> Incoming {
        let Some(server) = self.table.get(id) else {
            return Incoming::Absorbed;
        };
        match &server.state {
            State::Proceeding { last } | State::Refused { last } | State::Completed { last } => {
                let (path, bytes) = (server.reply_to, last.clone());
                self.out.push_back(Outgoing { path, bytes });
            }
            State::Trying | State::Accepted | State::Confirmed => {}
        }
        Incoming::Absorbed
    }

    /// The request of an open transaction.
    pub fn request(&self, id: ServerId) -> Option<&Request> {
        self.table.get(id).map(|server| &server.request)
    }

    /// Where the responses of an open transaction go.
    pub fn reply_to(&self, id: ServerId) -> Option<Path> {
        self.table.get(id).map(|server| server.reply_to)
    }

    /// Whether the request is still to be answered.
    pub fn is_open(&self, id: ServerId) -> bool {
        self.table.get(id).is_some_and(|server| match server.state {
            State::Trying | State::Proceeding { .. } => true,
            State::Accepted
            | State::Refused { .. }
            | State::Confirmed
            | State::Completed { .. } => false,
        })
    }

    /// Sends a response. After a 2xx to an INVITE, further 2xx may be sent for 64 * T1.
    ///
    /// # Errors
    /// [`RespondError`]; nothing has changed then.
    pub fn respond(
        &mut self,
        now: Instant,
        id: ServerId,
        response: &crate::wire::Message,
    ) -> Result<(), RespondError> {
        let now = self.clock.advance(now);
        let server = self.table.get_mut(id).ok_or(RespondError::Unknown)?;
        let response = Response::check(response.clone(), &crate::wire::Limits::DEFAULT)
            .map_err(|_| RespondError::Foreign)?;
        let same = response.branch() == server.request.branch()
            && response.method() == server.request.method()
            && response.cseq_number() == server.request.cseq_number();
        if !same {
            return Err(RespondError::Foreign);
        }
        let invite = *server.request.method() == Method::INVITE;
        let code = response.code();
        let (path, bytes) = (server.reply_to, response.as_bytes().clone());
        match (&server.state, invite) {
            (State::Accepted, _) if code.is_success() => {}
            (
                State::Accepted
                | State::Refused { .. }
                | State::Confirmed
                | State::Completed { .. },
                _,
            ) => return Err(RespondError::Answered),
            (State::Trying | State::Proceeding { .. }, true) => {
                self.answer_invite(now, id, code, bytes.clone());
            }
            (State::Trying | State::Proceeding { .. }, false) => {
                let odd = code.is_provisional() && code != StatusCode::TRYING;
                if odd || code == StatusCode::REQUEST_TIMEOUT {
                    return Err(RespondError::Status);
                }
                let early = now.duration_since(server.since) < self.timings.non_invite_trying();
                if code == StatusCode::TRYING && early && !is_reliable(server.reply_to) {
                    // The timer sends it when it may be sent.
                    return Ok(());
                }
                self.answer_other(now, id, code, bytes.clone());
            }
        }
        self.out.push_back(Outgoing { path, bytes });
        Ok(())
    }

    fn answer_invite(&mut self, now: Instant, id: ServerId, code: StatusCode, bytes: Bytes) {
        self.table.disarm(id, Timer::Trying);
        let Some(server) = self.table.get_mut(id) else {
            return;
        };
        let reliable = is_reliable(server.reply_to);
        if code.is_provisional() {
            server.state = State::Proceeding { last: bytes };
        } else if code.is_success() {
            server.state = State::Accepted;
            self.linger(now, id, self.timings.timeout());
        } else {
            server.state = State::Refused { last: bytes };
            self.table.disarm(id, Timer::Abandoned);
            if !reliable {
                self.table.arm(id, Timer::Resend, now, self.timings.t1);
            }
            self.table
                .arm(id, Timer::NoAck, now, self.timings.timeout());
        }
    }

    fn answer_other(&mut self, now: Instant, id: ServerId, code: StatusCode, bytes: Bytes) {
        self.table.disarm(id, Timer::Trying);
        let Some(server) = self.table.get_mut(id) else {
            return;
        };
        if code.is_provisional() {
            server.state = State::Proceeding { last: bytes };
            return;
        }
        server.state = State::Completed { last: bytes };
        let wait = unless_reliable(server.reply_to, self.timings.timeout());
        self.linger(now, id, wait);
    }

    /// Answers a request that gets no transaction; ACK is never answered.
    pub fn answer_statelessly(&mut self, reply_to: Path, request: &Request, code: StatusCode) {
        if *request.method() == Method::ACK {
            return;
        }
        if let Ok(response) = Builder::reply(request, code, Some("0")).finish(b"") {
            let bytes = response.as_bytes().clone();
            let path = reply_to;
            self.out.push_back(Outgoing { path, bytes });
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some((id, timer)) = self.table.expired(now) {
            match timer {
                Timer::Trying => self.send_trying(now, id),
                Timer::Resend => self.resend(now, id),
                Timer::NoAck => {
                    self.events.push_back(ServerEvent::NoAck(id));
                    self.remove(id);
                }
                Timer::Abandoned => self.abandon(now, id),
                Timer::Linger => {
                    self.remove(id);
                }
            }
        }
    }

    fn abandon(&mut self, now: Instant, id: ServerId) {
        let Some(server) = self.table.get(id) else {
            return;
        };
        self.events.push_back(ServerEvent::Abandoned(id));
        if *server.request.method() == Method::INVITE {
            let late = StatusCode::REQUEST_TIMEOUT;
            if let Ok(late) = Builder::reply(&server.request, late, Some("0")).finish(b"") {
                let _ = self.respond(now, id, &late);
            }
        } else {
            self.remove(id);
        }
    }

    fn send_trying(&mut self, now: Instant, id: ServerId) {
        let Some(server) = self.table.get(id) else {
            return;
        };
        let trying = Builder::reply(&server.request, StatusCode::TRYING, None).finish(b"");
        if let Ok(trying) = trying {
            let _ = self.respond(now, id, &trying);
        }
    }

    fn resend(&mut self, now: Instant, id: ServerId) {
        let Some(server) = self.table.get_mut(id) else {
            return;
        };
        let State::Refused { last } = &server.state else {
            return;
        };
        let (path, bytes) = (server.reply_to, last.clone());
        let interval = server.interval.saturating_mul(2).min(self.timings.t2);
        server.interval = interval;
        self.table.arm(id, Timer::Resend, now, interval);
        self.out.push_back(Outgoing { path, bytes });
    }

    fn linger(&mut self, now: Instant, id: ServerId, wait: Duration) {
        if wait.is_zero() {
            self.remove(id);
        } else {
            self.table.linger(id, now, wait);
        }
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.out.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.poll_timeout()
    }

    fn remove(&mut self, id: ServerId) {
        if self.table.remove(id).is_some() {
            self.events.push_back(ServerEvent::Ended(id));
        }
    }
}
