//! The side that sends requests.

use core::time::Duration;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::Path;

use super::derive::{ack, checked_cancel};
use super::table::{Kind, Table};
use super::{Outgoing, Timings, is_reliable, unless_reliable};
use crate::Instant;
use crate::time::Clock;
use crate::wire::{Method, Request, Response};

/// A client transaction; numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// Why a request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There are as many open transactions as allowed.
    #[error("too many open client transactions")]
    Full,
    /// The topmost Via has no branch of RFC 3261, or one that is in use.
    #[error("branch missing or in use")]
    Branch,
    /// ACK has no transaction.
    #[error("ACK has no transaction")]
    Ack,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// No final response came: to be treated as 408.
    TimedOut(ClientId),
    /// It is over and its number forgotten: said once of each, and nothing after it.
    Ended(ClientId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A and E: send again.
    Resend,
    /// B and F: give up.
    GiveUp,
    /// C: it has rung long enough.
    Ringing,
    /// D, K and M: late responses are no longer expected.
    Linger,
}

impl Kind for Timer {
    const ALL: &'static [Self] = &[Self::Resend, Self::GiveUp, Self::Ringing, Self::Linger];
    const LINGER: Self = Self::Linger;
}

#[derive(Clone, Debug)]
enum State {
    /// INVITE, nothing heard.
    Calling,
    /// INVITE, 1xx heard.
    Ringing,
    /// INVITE, refused; answers with this ACK.
    Refused { ack: Bytes },
    /// INVITE, 2xx heard (RFC 6026).
    Accepted,
    /// Other methods, nothing heard.
    Trying,
    /// Other methods, 1xx heard.
    Proceeding,
    /// Other methods, final response heard.
    Completed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    No,
    /// As soon as a 1xx comes.
    Wanted,
    Sent,
}

#[derive(Clone, Debug)]
struct Client {
    path: Path,
    request: Request,
    state: State,
    interval: Duration,
    cancel: Cancel,
    /// Made by this layer; nobody wants to hear of it.
    internal: bool,
}

type Key = (String, Method);

/// The open client transactions of one element.
///
/// ```
/// use core::net::SocketAddr;
/// use core::time::Duration;
/// use sip_outbound::wire::{Limits, Message, ParseConfig, Request};
/// use sip_outbound::{ClientTransactions, Instant, Timings};
/// use stun_proto::{FiveTuple, Path};
///
/// let text = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
///     To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n";
/// let message = Message::parse(text, &ParseConfig::default()).unwrap();
/// let request = Request::check(message, &Limits::DEFAULT).unwrap();
/// let addr: SocketAddr = "192.0.2.1:5060".parse().unwrap();
/// let path = Path::Datagram(FiveTuple::udp(addr, addr));
///
/// let now = Instant::ZERO;
/// let mut clients = ClientTransactions::new(Timings::RFC3261, 256, now);
/// clients.send(now, path, request).unwrap();
/// assert_eq!(&clients.poll_transmit().unwrap().bytes[..], text);
/// assert_eq!(clients.poll_timeout(), Some(now + Duration::from_millis(500)));
/// ```
#[derive(Clone, Debug)]
pub struct ClientTransactions {
    timings: Timings,
    limit: usize,
    clock: Clock,
    next: u64,
    table: Table<ClientId, Key, Timer, Client>,
    by_path: BTreeSet<(Path, ClientId)>,
    out: VecDeque<Outgoing>,
    events: VecDeque<ClientEvent>,
}

impl ClientTransactions {
    /// No transactions; at most `limit` at a time, their CANCELs apart.
    pub const fn new(timings: Timings, limit: usize, now: Instant) -> Self {
        Self {
            timings,
            limit,
            clock: Clock::new(now),
            next: 0,
            table: Table::new(),
            by_path: BTreeSet::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// How many transactions are open, CANCELs included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Sends a request and watches over it.
    ///
    /// # Errors
    /// [`SendError`]; nothing has changed then.
    pub fn send(
        &mut self,
        now: Instant,
        path: Path,
        request: Request,
    ) -> Result<ClientId, SendError> {
        if self.table.len() >= self.limit {
            return Err(SendError::Full);
        }
        self.open(now, path, request, false)
    }

    fn open(
        &mut self,
        now: Instant,
        path: Path,
        request: Request,
        internal: bool,
    ) -> Result<ClientId, SendError> {
        let now = self.clock.advance(now);
        if *request.method() == Method::ACK {
            return Err(SendError::Ack);
        }
        let branch = request.cookie_branch().ok_or(SendError::Branch)?;
        let key = (String::from(branch), request.method().clone());
        if self.table.find(&key).is_some() {
            return Err(SendError::Branch);
        }
        let id = ClientId(self.next);
        self.next = self.next.saturating_add(1);
        let invite = *request.method() == Method::INVITE;
        let client = Client {
            path,
            state: if invite {
                State::Calling
            } else {
                State::Trying
            },
            interval: self.timings.t1,
            cancel: Cancel::No,
            internal,
            request,
        };
        self.push(path, client.request.as_bytes().clone());
        self.table.insert(id, key, client);
        self.by_path.insert((path, id));
        if !is_reliable(path) {
            self.table.arm(id, Timer::Resend, now, self.timings.t1);
        }
        self.table
            .arm(id, Timer::GiveUp, now, self.timings.timeout());
        Ok(id)
    }

    fn push(&mut self, path: Path, bytes: Bytes) {
        self.out.push_back(Outgoing { path, bytes });
    }

    /// The request of an open transaction.
    pub fn request(&self, id: ClientId) -> Option<&Request> {
        self.table.get(id).map(|client| &client.request)
    }

    /// The path of an open transaction.
    pub fn path(&self, id: ClientId) -> Option<Path> {
        self.table.get(id).map(|client| client.path)
    }

    /// Takes in a response. `Some` when the user of the transaction is to see it: every 1xx,
    /// the first final response, and every 2xx to an INVITE. Everything else is dropped.
    pub fn handle_response(
        &mut self,
        now: Instant,
        path: Path,
        response: &Response,
    ) -> Option<ClientId> {
        let now = self.clock.advance(now);
        let key = (String::from(response.branch()?), response.method().clone());
        let id = self.table.find(&key)?;
        let client = self.table.get_mut(id)?;
        let same_way = match (client.path, path) {
            (Path::Stream(sent), Path::Stream(came)) => sent == came,
            (Path::Datagram(sent), Path::Datagram(came)) => sent.local == came.local,
            (Path::Stream(_), Path::Datagram(_)) | (Path::Datagram(_), Path::Stream(_)) => false,
        };
        let mine = response
            .sent_by()
            .eq_ignore_ascii_case(client.request.sent_by());
        if !same_way || !mine {
            return None;
        }
        let internal = client.internal;
        let seen = if response.code().is_provisional() {
            self.provisional(now, id, response)
        } else {
            self.last(now, id, response)
        };
        (seen && !internal).then_some(id)
    }

    fn provisional(&mut self, now: Instant, id: ClientId, response: &Response) -> bool {
        let Some(client) = self.table.get_mut(id) else {
            return false;
        };
        match client.state {
            State::Calling | State::Ringing => {
                let first = matches!(client.state, State::Calling);
                client.state = State::Ringing;
                let cancel = client.cancel;
                self.table.disarm(id, Timer::Resend);
                let restarts = first || response.code().number() > 100;
                if cancel == Cancel::No && restarts {
                    self.table.disarm(id, Timer::GiveUp);
                    self.table
                        .arm(id, Timer::Ringing, now, self.timings.ringing);
                }
                if cancel == Cancel::Wanted {
                    self.send_cancel(now, id);
                }
                true
            }
            State::Trying => {
                client.state = State::Proceeding;
                if !is_reliable(client.path) {
                    self.table.arm(id, Timer::Resend, now, self.timings.t2);
                }
                true
            }
            State::Proceeding => true,
            State::Refused { .. } | State::Accepted | State::Completed => false,
        }
    }

    fn last(&mut self, now: Instant, id: ClientId, response: &Response) -> bool {
        let Some(client) = self.table.get_mut(id) else {
            return false;
        };
        let path = client.path;
        let (linger, seen) = match (&client.state, response.code().is_success()) {
            (State::Calling | State::Ringing, true) => {
                client.state = State::Accepted;
                (self.timings.timeout(), true)
            }
            (State::Calling | State::Ringing, false) => {
                // The INVITE and the response have been checked: this does not fail.
                let ack = match ack(&client.request, response) {
                    Ok(ack) => ack.as_bytes().clone(),
                    Err(_) => Bytes::new(),
                };
                client.state = State::Refused { ack: ack.clone() };
                self.push(path, ack);
                let wait = self.timings.timeout().max(Duration::from_secs(32));
                (unless_reliable(path, wait), true)
            }
            (State::Trying | State::Proceeding, _) => {
                client.state = State::Completed;
                (unless_reliable(path, self.timings.t4), true)
            }
            // Each 2xx comes from another branch or asks for its ACK again.
            (State::Accepted, true) => return true,
            (State::Refused { ack }, false) => {
                let ack = ack.clone();
                self.push(path, ack);
                return false;
            }
            (State::Accepted, false) | (State::Refused { .. }, true) | (State::Completed, _) => {
                return false;
            }
        };
        if linger.is_zero() {
            self.remove(id);
        } else {
            self.table.linger(id, now, linger);
        }
        seen
    }

    /// Asks for an INVITE to be given up: sends CANCEL, at the earliest behind a provisional
    /// response. The end of the INVITE comes as usual: 487, or whatever was faster. Does nothing
    /// once a final response is there.
    pub fn cancel(&mut self, now: Instant, id: ClientId) {
        let now = self.clock.advance(now);
        let Some(client) = self.table.get_mut(id) else {
            return;
        };
        match (&client.state, client.cancel) {
            (State::Calling, Cancel::No) => client.cancel = Cancel::Wanted,
            (State::Ringing, Cancel::No) => self.send_cancel(now, id),
            (
                State::Calling
                | State::Ringing
                | State::Refused { .. }
                | State::Accepted
                | State::Trying
                | State::Proceeding
                | State::Completed,
                _,
            ) => {}
        }
    }

    fn send_cancel(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.table.get_mut(id) else {
            return;
        };
        client.cancel = Cancel::Sent;
        let path = client.path;
        if let Some(cancel) = checked_cancel(&client.request) {
            // The branch is that of the INVITE, the method is not: the key is free.
            let _ = self.open(now, path, cancel, true);
        }
        self.table.disarm(id, Timer::Ringing);
        self.table
            .arm(id, Timer::GiveUp, now, self.timings.timeout());
    }

    /// Forgets a transaction; whatever comes for it is dropped from now on.
    pub fn forget(&mut self, id: ClientId) {
        self.remove(id);
    }

    /// Ends all transactions whose way is gone; they count as answered with 503.
    pub fn path_failed(&mut self, path: Path) -> Vec<ClientId> {
        let all = (path, ClientId(0))..=(path, ClientId(u64::MAX));
        let ids: Vec<_> = self.by_path.range(all).map(|(_, id)| *id).collect();
        ids.into_iter()
            .filter(|id| {
                let client = self.remove(*id);
                client.is_some_and(|client| client.is_open() && !client.internal)
            })
            .collect()
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some((id, timer)) = self.table.expired(now) {
            match timer {
                Timer::Resend => self.resend(now, id),
                Timer::GiveUp => {
                    if self.table.get(id).is_some_and(|client| !client.internal) {
                        self.events.push_back(ClientEvent::TimedOut(id));
                    }
                    self.remove(id);
                }
                Timer::Ringing => self.send_cancel(now, id),
                Timer::Linger => {
                    self.remove(id);
                }
            }
        }
    }

    fn resend(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.table.get_mut(id) else {
            return;
        };
        let doubled = client.interval.saturating_mul(2);
        client.interval = match client.state {
            State::Calling => doubled,
            State::Trying => doubled.min(self.timings.t2),
            State::Proceeding => self.timings.t2,
            State::Ringing | State::Refused { .. } | State::Accepted | State::Completed => return,
        };
        let (path, bytes) = (client.path, client.request.as_bytes().clone());
        let interval = client.interval;
        self.table.arm(id, Timer::Resend, now, interval);
        self.push(path, bytes);
    }

    /// The next message to be sent.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.out.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.poll_timeout()
    }

    #[cfg(test)]
    pub(super) fn by_path_len(&self) -> usize {
        self.by_path.len()
    }

    fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.table.remove(id)?;
        self.by_path.remove(&(client.path, id));
        if !client.internal {
            self.events.push_back(ClientEvent::Ended(id));
        }
        Some(client)
    }
}

impl Client {
    /// Whether the final response is still to come.
    const fn is_open(&self) -> bool {
        match self.state {
            State::Calling | State::Ringing | State::Trying | State::Proceeding => true,
            State::Refused { .. } | State::Accepted | State::Completed => false,
        }
    }
}
