//! The side that opens tunnels (RFC 9110 section 9.3.6): one machine for each client connection.

mod addresses;
mod answer;
mod config;
mod failure;
mod open;
mod parent;
mod queue;
mod relay;
mod request;
mod words;

pub use addresses::{AddressPolicy, Prefix};
pub use config::{Parent, ProxyConfig, ProxyConfigError, ProxyLimits};
pub use failure::ProxyError;
pub use words::{
    AuthCheck, AuthVerdict, Ended, NotOpen, ProxyAction, ProxyEvent, Record, Side, Spliced, Taken,
    Ticket,
};

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;

use smallvec::SmallVec;

use self::answer::Refusal;
use self::queue::Queue;
use self::request::{Request, head_error};
use crate::time::{Clock, Timers};
use crate::wire::{HeadReader, Leniency, is_field_value};
use crate::{ConnectClient, Instant, Rng};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Head,
    Auth,
    Connect,
    /// The last bytes for one side.
    Deliver,
    Linger,
    Idle,
    HalfClose,
}

enum State {
    Head(HeadReader),
    Auth {
        ticket: Ticket,
        request: Box<Request>,
    },
    Resolve {
        ticket: Ticket,
        request: Box<Request>,
    },
    Connect {
        ticket: Ticket,
        request: Box<Request>,
        address: SocketAddr,
        /// To be tried next.
        others: SmallVec<[SocketAddr; 4]>,
    },
    Parent {
        ticket: Ticket,
        request: Box<Request>,
        client: Box<ConnectClient>,
        /// There is a connection; otherwise the host is opening one.
        connected: bool,
    },
    Relay(Relay),
    /// The last bytes for `side` are on their way; nothing counts that it says.
    Deliver {
        side: Side,
        ended: Ended,
    },
    /// `side` has got FIN and may take its time to read and to close.
    Linger {
        side: Side,
        ended: Ended,
    },
    Closed,
    /// Between two of the above, inside one call only.
    Moving,
}

/// An open tunnel.
#[derive(Clone, Copy, Debug, Default)]
struct Relay {
    /// The first side that has closed, with [`ProxyConfig::half_close`].
    first: Option<Side>,
    /// FIN was passed on to the client, to the other side.
    fin: [bool; 2],
}

/// One client connection of a proxy.
///
/// The host reads from a side while [`wants_input`](Self::wants_input) says so, does what
/// [`poll_action`](Self::poll_action) asks for and writes what [`poll_transmit`](Self::poll_transmit)
/// and [`Taken::forward`] give it.
///
/// ```
/// extern crate alloc;
/// use alloc::sync::Arc;
/// use http_connect::{ConnectServer, Instant, ProxyAction, ProxyConfig, ProxyEvent, Side};
///
/// let now = Instant::ZERO;
/// let config = Arc::new(ProxyConfig::new("gate"));
/// let mut proxy = ConnectServer::new(config, [7; 32], now).unwrap();
///
/// let request = b"CONNECT 192.88.1.1:443 HTTP/1.1\r\nHost: 192.88.1.1:443\r\n\r\n";
/// assert_eq!(proxy.handle_input(now, Side::Client, request).len, request.len());
/// let Some(ProxyAction::Connect { ticket, address }) = proxy.poll_action() else { panic!() };
/// assert_eq!(address, "192.88.1.1:443".parse().unwrap());
///
/// proxy.handle_connected(now, ticket);
/// let mut buf = [0; 64];
/// let len = proxy.poll_transmit(Side::Client, &mut buf).unwrap();
/// assert_eq!(&buf[..len], b"HTTP/1.1 200 Connection established\r\n\r\n");
/// assert!(matches!(proxy.poll_event(), Some(ProxyEvent::Open { .. })));
///
/// let taken = proxy.handle_input(now, Side::Client, b"hello");
/// assert_eq!(taken.forward, b"hello");
/// ```
pub struct ConnectServer {
    config: Arc<ProxyConfig>,
    rng: Rng,
    clock: Clock,
    timers: Timers<Timer>,
    state: State,
    tickets: u32,
    requests: u8,
    to_client: Queue,
    to_upstream: Queue,
    /// The client, the other side has sent FIN.
    eof: [bool; 2],
    /// The host has, or is opening, a connection to the other side.
    upstream: bool,
    /// Bytes of a refused client that were thrown away.
    discarded: usize,
    record: Record,
    actions: VecDeque<ProxyAction>,
    events: VecDeque<ProxyEvent>,
    /// To be sent with the 2xx.
    info: Option<String>,
}

impl fmt::Debug for ConnectServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Head(_) => "Head",
            State::Auth { .. } => "Auth",
            State::Resolve { .. } => "Resolve",
            State::Connect { .. } => "Connect",
            State::Parent { .. } => "Parent",
            State::Relay(_) => "Relay",
            State::Deliver { .. } => "Deliver",
            State::Linger { .. } => "Linger",
            State::Closed => "Closed",
            State::Moving => "Moving",
        };
        f.debug_struct("ConnectServer")
            .field("state", &state)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl ConnectServer {
    /// A machine for a connection that was just accepted.
    ///
    /// # Errors
    /// [`ProxyConfigError`].
    pub fn new(
        config: Arc<ProxyConfig>,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ProxyConfigError> {
        config.check()?;
        let mut server = Self {
            config,
            rng: Rng::from_seed(seed),
            clock: Clock::new(now),
            timers: Timers::new(),
            state: State::Closed,
            tickets: 0,
            requests: 0,
            to_client: Queue::default(),
            to_upstream: Queue::default(),
            eof: [false; 2],
            upstream: false,
            discarded: 0,
            record: Record {
                status: 0,
                ended: Ended::ClientGone,
                target: None,
                user: None,
                up: 0,
                down: 0,
            },
            actions: VecDeque::new(),
            events: VecDeque::new(),
            info: None,
        };
        server.await_request();
        Ok(server)
    }

    fn await_request(&mut self) {
        let leniency = Leniency {
            leading_empty_lines: true,
            ..Leniency::STRICT
        };
        self.state = State::Head(HeadReader::new(self.config.limits.head, leniency));
        let wait = self.config.limits.head_timeout;
        self.timers.arm(Timer::Head, self.clock.now(), wait);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets = self.tickets.wrapping_add(1);
        Ticket(self.tickets)
    }

    fn queue(&mut self, to: Side) -> &mut Queue {
        match to {
            Side::Client => &mut self.to_client,
            Side::Upstream => &mut self.to_upstream,
        }
    }

    /// Whether bytes of this side are welcome now. Bytes that come nevertheless stay with the
    /// host; a host that stops reading makes the sender wait.
    pub fn wants_input(&self, from: Side) -> bool {
        let limits = &self.config.limits;
        match (&self.state, from) {
            (State::Closed | State::Moving, _) | (State::Head(_), Side::Upstream) => false,
            (State::Head(_), Side::Client) => true,
            (
                State::Auth { .. }
                | State::Resolve { .. }
                | State::Connect { .. }
                | State::Parent { .. },
                Side::Client,
            ) => self.to_upstream.len() < limits.early,
            (
                State::Auth { .. } | State::Resolve { .. } | State::Connect { .. },
                Side::Upstream,
            ) => false,
            (State::Parent { connected, .. }, Side::Upstream) => *connected,
            (State::Relay(_), Side::Client) => self.to_upstream.len() < limits.relay,
            (State::Relay(_), Side::Upstream) => self.to_client.len() < limits.relay,
            (State::Deliver { .. } | State::Linger { .. }, _) => true,
        }
    }

    /// Takes in bytes read from one side.
    pub fn handle_input<'i>(&mut self, now: Instant, from: Side, data: &'i [u8]) -> Taken<'i> {
        self.clock.advance(now);
        let mut input = data;
        if let (State::Head(reader), Side::Client) = (&mut self.state, from) {
            match reader.take(&mut input) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.timers.disarm(Timer::Head);
                    self.requests = self.requests.saturating_add(1);
                    match Request::read(&head, &self.config) {
                        Ok(request) => self.begin(Box::new(request)),
                        Err(error) => self.refuse(error),
                    }
                }
                Err(error) => self.refuse(head_error(error)),
            }
        }
        let (len, forward) = self.take(from, input);
        self.progress();
        Taken {
            len: data.len().saturating_sub(input.len()).saturating_add(len),
            forward,
        }
    }

    /// What becomes of bytes behind a request.
    fn take<'i>(&mut self, from: Side, input: &'i [u8]) -> (usize, &'i [u8]) {
        let limits = &self.config.limits;
        let nothing: &[u8] = &[];
        match (&mut self.state, from) {
            (State::Head(_) | State::Moving, _) => (0, nothing),
            (
                State::Auth { .. }
                | State::Resolve { .. }
                | State::Connect { .. }
                | State::Parent { .. },
                Side::Client,
            ) => {
                let len = self.to_upstream.push(input, limits.early);
                self.record.up = self.record.up.saturating_add(len as u64);
                (len, nothing)
            }
            (
                State::Auth { .. } | State::Resolve { .. } | State::Connect { .. },
                Side::Upstream,
            ) => (0, nothing),
            (State::Parent { .. }, Side::Upstream) => (self.parent_input(input), nothing),
            (State::Relay(_), _) => self.relay(from, input),
            (State::Deliver { .. } | State::Linger { .. }, _) => {
                self.discarded = self.discarded.saturating_add(input.len());
                (input.len(), nothing)
            }
            (State::Closed, _) => (input.len(), nothing),
        }
    }

    /// This side has sent FIN.
    pub fn handle_eof(&mut self, now: Instant, from: Side) {
        self.clock.advance(now);
        let [client, upstream] = &mut self.eof;
        match from {
            Side::Client => *client = true,
            Side::Upstream => *upstream = true,
        }
        if matches!(self.state, State::Relay(_)) {
            self.relay_eof(from);
        } else if from == Side::Upstream {
            self.parent_eof();
        } else if self.is_before_answer() {
            self.close(Ended::ClientGone);
        }
        self.progress();
    }

    /// The connection of this side is gone in both directions.
    pub fn handle_reset(&mut self, now: Instant, side: Side) {
        self.clock.advance(now);
        match self.state {
            State::Relay(_) => self.deliver(side.other(), Ended::Closed(side)),
            State::Deliver { side: to, ended } | State::Linger { side: to, ended } => {
                if to == side {
                    self.close(ended);
                }
            }
            State::Head(_)
            | State::Auth { .. }
            | State::Resolve { .. }
            | State::Connect { .. }
            | State::Parent { .. }
            | State::Closed
            | State::Moving => self.handle_eof(now, side),
        }
        self.progress();
    }

    /// Whether a request may still be refused.
    const fn is_before_answer(&self) -> bool {
        match self.state {
            State::Head(_)
            | State::Auth { .. }
            | State::Resolve { .. }
            | State::Connect { .. }
            | State::Parent { .. }
            | State::Moving => true,
            State::Relay(_) | State::Deliver { .. } | State::Linger { .. } | State::Closed => false,
        }
    }

    /// Refuses for lack of resources: 503 with `Retry-After`. Without effect once the tunnel is
    /// open or refused.
    pub fn refuse_overload(&mut self, now: Instant, retry_after: Duration) {
        self.clock.advance(now);
        self.refuse_with(ProxyError::Overload, &[], Some(retry_after.as_secs()), &[]);
        self.progress();
    }

    fn refuse(&mut self, error: ProxyError) {
        self.refuse_with(error, &[], None, &[]);
    }

    /// Answers and closes; nothing the client says from now on counts. `passed_on` are members of
    /// Proxy-Status that others have set.
    fn refuse_with(
        &mut self,
        error: ProxyError,
        challenges: &[String],
        retry_after: Option<u64>,
        passed_on: &[String],
    ) {
        if !self.is_before_answer() {
            return;
        }
        let refusal = Refusal {
            error,
            challenges,
            retry_after,
            proxy_status: self.proxy_status(error, passed_on),
            keep: false,
        };
        refusal.write(&mut self.to_client);
        self.record.status = error.status();
        // What the client sent ahead went nowhere.
        self.record.up = 0;
        self.deliver(Side::Client, Ended::Refused(error));
    }

    fn proxy_status(&self, error: ProxyError, passed_on: &[String]) -> Option<String> {
        error.name().filter(|_| self.config.proxy_status)?;
        let own = alloc::format!("{}; {error}", self.config.pseudonym);
        let members = passed_on
            .iter()
            .map(String::as_str)
            .filter(|member| is_field_value(member));
        let all: SmallVec<[&str; 4]> = members.chain([own.as_str()]).collect();
        Some(all.join(", "))
    }

    /// Sends `side` what is left for it; the other side is of no more use.
    fn deliver(&mut self, side: Side, ended: Ended) {
        self.timers.clear();
        self.queue(side.other()).clear();
        if matches!(ended, Ended::Refused(_)) {
            self.drop_upstream();
        }
        let wait = self.config.limits.half_close_timeout;
        self.timers.arm(Timer::Deliver, self.clock.now(), wait);
        self.state = State::Deliver { side, ended };
    }

    /// Takes the steps that depend on what has been sent so far.
    fn progress(&mut self) {
        if let State::Deliver { side, ended } = self.state
            && self.queue(side).is_empty()
        {
            self.timers.clear();
            self.actions.push_back(ProxyAction::CloseWrite(side));
            let wait = self.config.limits.linger_timeout;
            self.timers.arm(Timer::Linger, self.clock.now(), wait);
            self.state = State::Linger { side, ended };
        }
        if let State::Linger { side, ended } = self.state {
            let [client, upstream] = self.eof;
            let gone = match side {
                Side::Client => client,
                Side::Upstream => upstream,
            };
            if gone || self.discarded >= self.config.limits.linger_bytes {
                self.close(ended);
            }
        }
        self.relay_progress();
    }

    /// The end.
    fn close(&mut self, ended: Ended) {
        self.timers.clear();
        self.to_client = Queue::default();
        self.to_upstream = Queue::default();
        self.state = State::Closed;
        if ended != Ended::Spliced {
            self.actions.push_back(ProxyAction::Close(Side::Client));
            if self.upstream {
                self.actions.push_back(ProxyAction::Close(Side::Upstream));
            }
        }
        self.upstream = false;
        self.record.ended = ended;
        let record = self.record.clone();
        self.events.push_back(ProxyEvent::Closed(record));
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            self.on_timer(timer);
        }
        self.parent_timeout();
        self.progress();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Head => self.refuse(ProxyError::BadRequest(408)),
            Timer::Auth => self.refuse(ProxyError::Internal),
            Timer::Connect => {
                let resolving = matches!(self.state, State::Resolve { .. });
                self.refuse(if resolving {
                    ProxyError::DnsTimeout
                } else {
                    ProxyError::ConnectionTimeout
                });
            }
            Timer::Deliver => self.close(Ended::Undelivered),
            Timer::Linger => {
                if let State::Linger { ended, .. } = self.state {
                    self.close(ended);
                }
            }
            Timer::Idle => self.close(Ended::Idle),
            Timer::HalfClose => {
                if let State::Relay(Relay { first, .. }) = self.state {
                    self.close(first.map_or(Ended::Idle, Ended::Closed));
                }
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.timers.next(), self.parent_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Fills `buf` with bytes for this side; how many. Every size will do.
    pub fn poll_transmit(&mut self, to: Side, buf: &mut [u8]) -> Option<usize> {
        let len = match (&mut self.state, to) {
            (State::Parent { client, .. }, Side::Upstream) => client.poll_transmit(buf),
            (State::Relay(_) | State::Deliver { .. } | State::Linger { .. }, Side::Upstream) => {
                Some(self.to_upstream.take(buf))
            }
            // What the client sent ahead waits for the tunnel.
            (
                State::Head(_)
                | State::Auth { .. }
                | State::Resolve { .. }
                | State::Connect { .. }
                | State::Closed
                | State::Moving,
                Side::Upstream,
            ) => None,
            (_, Side::Client) => Some(self.to_client.take(buf)),
        };
        self.progress();
        len.filter(|len| *len > 0)
    }

    /// The next thing the host is to do.
    pub fn poll_action(&mut self) -> Option<ProxyAction> {
        self.actions.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ProxyEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;
