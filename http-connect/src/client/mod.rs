//! The side that asks a proxy for a tunnel (RFC 9110 section 9.3.6).

mod config;
mod response;
mod tunnel;
mod words;

pub use config::{ConnectConfig, FieldError};
pub use tunnel::{NotATunnel, Tunnel};
pub use words::{ConnectError, ConnectEvent, Rejection, RejectionClass};

use core::fmt;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use zeroize::Zeroizing;

use self::words::class_of;
use crate::auth::{AuthRefusal, AuthStep, ClientAuth, Credentials, Scheme};
use crate::time::{Clock, Timers};
use crate::wire::{BodyReader, HeadReader, Target, alpn_value};
use crate::{Instant, Rng};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// One request and its answer, or one wait for the host.
    Exchange,
    /// The body of a rejection.
    Body,
    /// All of it.
    Total,
}

enum State {
    /// Until the host says that there is a (new) connection.
    NoConnection,
    AwaitHead(HeadReader),
    /// A rejection was read; its body is passed over before `next`.
    Draining {
        body: BodyReader,
        next: Next,
    },
    /// The host has been asked for a token or for credentials.
    AwaitHost {
        reusable: bool,
        /// The answer makes sense on this connection only.
        bound: bool,
    },
    Open {
        tunnel_taken: bool,
    },
    Ended,
}

/// What to do behind the body of a rejection.
enum Next {
    /// Ask again; on this connection if it may be used again.
    Retry {
        reusable: bool,
    },
    Token {
        reusable: bool,
        scheme: Scheme,
        token: Option<String>,
    },
    Credentials {
        reusable: bool,
        realm: String,
        scheme: Scheme,
    },
    Reject(Box<Rejection>),
}

/// Asks one proxy for one tunnel, over one connection at a time.
///
/// ```
/// use http_connect::auth::{ClientAuth, Policy};
/// use http_connect::{ConnectClient, ConnectConfig, ConnectEvent, Instant};
///
/// let target = "turn.example.com:443".parse().unwrap();
/// let auth = ClientAuth::new(None, Policy::default());
/// let now = Instant::ZERO;
/// let mut client = ConnectClient::new(target, ConnectConfig::default(), auth, [7; 32], now).unwrap();
/// client.handle_connected(now);
///
/// let mut buf = [0; 512];
/// let len = client.poll_transmit(&mut buf).unwrap();
/// assert!(buf[..len].starts_with(b"CONNECT turn.example.com:443 HTTP/1.1\r\n"));
///
/// let rest = client.handle_input(now, b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03");
/// assert_eq!(rest, b"\x16\x03");
/// assert!(matches!(client.poll_event(), Some(ConnectEvent::Established { status: 200, .. })));
/// ```
///
/// There is no way to write to or read from the tunnel here: that is what
/// [`tunnel`](Self::tunnel) gives once it is open.
pub struct ConnectClient {
    target: String,
    config: ConnectConfig,
    auth: ClientAuth,
    rng: Rng,
    clock: Clock,
    timers: Timers<Timer>,
    state: State,
    request: Vec<u8>,
    sent: usize,
    /// 1xx responses to the present request.
    interim: u8,
    /// Requests made over the present connection.
    requests: u8,
    reconnects: u8,
    /// A 408 was answered with a new attempt.
    timed_out: bool,
    /// A handshake was begun anew because its connection was of no more use.
    restarted: bool,
    events: VecDeque<ConnectEvent>,
    /// Another client's credentials, to be sent instead of own ones.
    passed_on: Option<Zeroizing<String>>,
}

impl fmt::Debug for ConnectClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::NoConnection => "NoConnection",
            State::AwaitHead(_) => "AwaitHead",
            State::Draining { .. } => "Draining",
            State::AwaitHost { .. } => "AwaitHost",
            State::Open { .. } => "Open",
            State::Ended => "Ended",
        };
        // Not the request: it holds credentials.
        f.debug_struct("ConnectClient")
            .field("target", &self.target)
            .field("state", &state)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl ConnectClient {
    /// A client that waits for its connection. `auth` may come from an earlier tunnel through the
    /// same proxy.
    ///
    /// # Errors
    /// [`FieldError`] when one of the configured fields cannot be sent.
    pub fn new(
        target: Target,
        config: ConnectConfig,
        auth: ClientAuth,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, FieldError> {
        config.check()?;
        let mut timers = Timers::new();
        timers.arm(Timer::Total, now, config.total_timeout);
        Ok(Self {
            target: target.to_string(),
            config,
            auth,
            rng: Rng::from_seed(seed),
            clock: Clock::new(now),
            timers,
            state: State::NoConnection,
            request: Vec::new(),
            sent: 0,
            interim: 0,
            requests: 0,
            reconnects: 0,
            timed_out: false,
            restarted: false,
            events: VecDeque::new(),
            passed_on: None,
        })
    }

    /// Sends these credentials, which are not this client's business.
    pub(crate) fn pass_on(&mut self, authorization: Option<Zeroizing<String>>) {
        self.passed_on = authorization;
    }

    /// What has been learnt about the proxy's authentication, for the next tunnel.
    pub fn into_auth(self) -> ClientAuth {
        self.auth
    }

    /// The tunnel, once: after [`ConnectEvent::Established`].
    pub const fn tunnel(&mut self) -> Option<Tunnel> {
        if let State::Open { tunnel_taken } = &mut self.state
            && !*tunnel_taken
        {
            *tunnel_taken = true;
            return Some(Tunnel::new(self.config.expect_tls));
        }
        None
    }

    /// There is a fresh connection to the proxy.
    pub fn handle_connected(&mut self, now: Instant) {
        self.clock.advance(now);
        if matches!(self.state, State::NoConnection) {
            self.requests = 0;
            self.send_request();
        }
    }

    // deviates: UP-5.2-1 bytes of the tunnel never follow the request before its 2xx
    fn send_request(&mut self) {
        let target = self.target.as_str();
        let authorization = self
            .auth
            .authorization(&mut self.rng, "CONNECT", target, b"");
        // Large enough at once: what a growing buffer leaves behind is not wiped.
        let secret = self.passed_on.as_ref().or(authorization.as_ref());
        let capacity = secret.map_or(0, |value| value.len()).saturating_add(4096);
        let mut head = Zeroizing::new(String::with_capacity(capacity));
        for part in ["CONNECT ", target, " HTTP/1.1\r\nHost: ", target, "\r\n"] {
            head.push_str(part);
        }
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        if self.config.proxy_connection {
            field("Proxy-Connection", "keep-alive");
        }
        if !self.config.alpn.is_empty() {
            let ids = self.config.alpn.iter().map(Vec::as_slice);
            field("ALPN", &alpn_value(ids));
        }
        for (name, value) in &self.config.fields {
            field(name, value);
        }
        if let Some(value) = secret {
            field("Proxy-Authorization", value);
        }
        head.push_str("\r\n");
        let head = Vec::from(head.as_bytes());
        self.drop_request();
        self.request = head;
        self.interim = 0;
        self.requests = self.requests.saturating_add(1);
        self.arm_exchange();
        let reader = HeadReader::new(self.config.limits, self.config.leniency);
        self.state = State::AwaitHead(reader);
    }

    /// Wipes it: it may hold credentials.
    fn drop_request(&mut self) {
        Zeroizing::new(core::mem::take(&mut self.request));
        self.sent = 0;
    }

    fn arm_exchange(&mut self) {
        self.timers.disarm(Timer::Body);
        let wait = self.config.exchange_timeout;
        self.timers.arm(Timer::Exchange, self.clock.now(), wait);
    }

    /// Takes in bytes from the proxy and returns those it has not consumed. Before the tunnel is
    /// open there are none; behind the 2xx they are the tunnel's first bytes, to be given to
    /// [`Tunnel::read`]. A machine that has ended leaves nothing over.
    #[must_use = "the first bytes of the tunnel may be among them"]
    pub fn handle_input<'i>(&mut self, now: Instant, data: &'i [u8]) -> &'i [u8] {
        self.clock.advance(now);
        let mut input = data;
        while !input.is_empty() {
            match &mut self.state {
                State::Open { .. } => return input,
                State::NoConnection | State::Ended => return &[],
                State::AwaitHost { .. } => {
                    // Nobody asked for this, so nobody can say what it answers.
                    self.connection_spoilt();
                    return &[];
                }
                State::AwaitHead(_) => self.await_head(&mut input),
                State::Draining { body, .. } => {
                    let malformed = body.take(&mut input).is_err();
                    let too_much = body.passed() > self.config.max_body;
                    if body.is_done() && !too_much {
                        self.drained(input.is_empty());
                    } else if malformed || too_much {
                        self.drained(false);
                    } else {
                        self.stop_at_full_prefix();
                    }
                    if !matches!(self.state, State::Draining { .. }) {
                        return &[];
                    }
                }
            }
        }
        &[]
    }

    fn await_head(&mut self, input: &mut &[u8]) {
        let State::AwaitHead(reader) = &mut self.state else {
            return;
        };
        if self.sent == 0 && self.requests > 1 {
            // An answer to a request that has not been sent yet: somebody put it behind the last
            // one.
            return self.reconnect();
        }
        if reader.is_empty() && matches!(input, [0x15 | 0x16, ..]) {
            return self.no_response(ConnectError::PeerSpeaksTls);
        }
        match reader.take(input) {
            Ok(None) => self.check_beginning(),
            Ok(Some(head)) => self.response(&head),
            Err(error) => {
                if reader.beginning().starts_with(b"HTTP/1.") {
                    self.fail(ConnectError::Head(error));
                } else {
                    self.no_response(ConnectError::StatusLine);
                }
            }
        }
    }

    /// Fails early when the first bytes cannot become a status line.
    fn check_beginning(&mut self) {
        if let State::AwaitHead(reader) = &self.state {
            let expected = b"HTTP/1.";
            let so_far = reader.beginning();
            if so_far.iter().zip(expected).any(|(a, b)| a != b) {
                self.no_response(ConnectError::StatusLine);
            }
        }
    }

    /// What came is no response. Behind an earlier one it may be what that had too much, as it would
    /// have been if it had come in one piece with it.
    fn no_response(&mut self, error: ConnectError) {
        if self.requests > 1 {
            self.reconnect();
        } else {
            self.fail(error);
        }
    }

    /// A rejection that is only reported is as good without the rest of its body.
    fn stop_at_full_prefix(&mut self) {
        if let State::Draining {
            body,
            next: Next::Reject(_),
        } = &self.state
            && body.is_full()
        {
            self.drained(false);
        }
    }

    /// The body of a rejection is over; `clean` says that its end was found and nothing follows.
    fn drained(&mut self, clean: bool) {
        if !matches!(self.state, State::Draining { .. }) {
            return;
        }
        // All that follows leads to another state.
        let State::Draining { body, next } =
            core::mem::replace(&mut self.state, State::NoConnection)
        else {
            return;
        };
        match next {
            Next::Retry { reusable } if reusable && clean => self.send_request(),
            Next::Retry { .. } => self.reconnect(),
            Next::Token {
                reusable,
                scheme,
                token,
            } => {
                let reusable = reusable && clean;
                // The first leg may begin on any connection, the others only on this one.
                if !reusable && token.is_some() {
                    return self.restart_handshake();
                }
                let bound = token.is_some();
                self.await_host(reusable, bound, ConnectEvent::NeedToken { scheme, token });
            }
            Next::Credentials {
                reusable,
                realm,
                scheme,
            } => self.await_host(
                reusable && clean,
                false,
                ConnectEvent::NeedCredentials { realm, scheme },
            ),
            Next::Reject(mut rejection) => {
                rejection.body = body.into_prefix();
                self.end(ConnectEvent::Rejected(*rejection));
            }
        }
    }

    fn await_host(&mut self, reusable: bool, bound: bool, event: ConnectEvent) {
        self.state = State::AwaitHost { reusable, bound };
        self.arm_exchange();
        self.events.push_back(event);
    }

    /// The token [`ConnectEvent::NeedToken`] asked for, base64; `None` gives up. Without effect
    /// when nothing was asked for.
    pub fn set_token(&mut self, now: Instant, token: Option<String>) {
        self.clock.advance(now);
        let State::AwaitHost { reusable, .. } = self.state else {
            return;
        };
        match self.auth.set_token(token) {
            Ok(()) if reusable => self.send_request(),
            Ok(()) => self.reconnect_with_token(),
            Err(refusal) => self.give_up(refusal),
        }
    }

    /// The credentials [`ConnectEvent::NeedCredentials`] asked for; `None` gives up. Without effect
    /// when nothing was asked for.
    pub fn set_credentials(&mut self, now: Instant, credentials: Option<Credentials>) {
        self.clock.advance(now);
        let State::AwaitHost { reusable, .. } = self.state else {
            return;
        };
        match self.auth.set_credentials(credentials) {
            AuthStep::Retry if reusable => self.send_request(),
            AuthStep::Retry => self.reconnect(),
            AuthStep::NeedToken { scheme, token } => {
                let bound = token.is_some();
                self.await_host(reusable, bound, ConnectEvent::NeedToken { scheme, token });
            }
            AuthStep::NeedCredentials { .. } => self.give_up(AuthRefusal::NoCredentials),
            AuthStep::Refuse(refusal) => self.give_up(refusal),
        }
    }

    fn give_up(&mut self, refusal: AuthRefusal) {
        self.end(ConnectEvent::Rejected(Rejection {
            status: 407,
            class: class_of(407),
            auth: Some(refusal),
            challenges: Vec::new(),
            retry_after: None,
            proxy_status: None,
            body: Vec::new(),
        }));
    }

    /// Asks for a new connection. A handshake bound to the old one is void.
    fn reconnect(&mut self) {
        self.auth.connection_lost();
        self.reconnect_with_token();
    }

    /// As `reconnect`, with a first leg that goes out on the new connection.
    fn reconnect_with_token(&mut self) {
        if self.reconnects >= self.config.max_reconnects {
            return self.fail(ConnectError::TooManyConnections);
        }
        self.reconnects = self.reconnects.saturating_add(1);
        self.drop_request();
        self.state = State::NoConnection;
        self.arm_exchange();
        self.events.push_back(ConnectEvent::Reconnect);
    }

    /// The connection is of no more use in the middle of a handshake.
    fn restart_handshake(&mut self) {
        if self.restarted {
            return self.fail(ConnectError::AuthConnectionLost);
        }
        self.restarted = true;
        self.reconnect();
    }

    /// The next request has to go over another connection.
    fn connection_spoilt(&mut self) {
        if let State::AwaitHost { reusable, bound } = &mut self.state {
            *reusable = false;
            if *bound {
                self.restart_handshake();
            }
        }
    }

    /// The proxy has closed its side, or the connection is lost.
    pub fn handle_eof(&mut self, now: Instant) {
        self.clock.advance(now);
        match &mut self.state {
            State::NoConnection | State::Open { .. } | State::Ended => {}
            State::Draining { .. } => self.drained(false),
            State::AwaitHost { .. } => self.connection_spoilt(),
            State::AwaitHead(reader) => {
                if self.auth.is_bound_to_connection() {
                    self.fail(ConnectError::AuthConnectionLost);
                } else if reader.is_empty() && self.requests > 1 {
                    // It promised to keep the connection and did not.
                    self.reconnect();
                } else {
                    self.fail(ConnectError::ProxyClosed);
                }
            }
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        match self.timers.expired(now) {
            Some(Timer::Body) => self.drained(false),
            Some(Timer::Exchange | Timer::Total) => self.fail(ConnectError::Timeout),
            None => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Fills `buf` with bytes for the proxy; how many. Every size will do.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<usize> {
        let waiting = self.request.get(self.sent..).unwrap_or_default();
        let len = waiting.len().min(buf.len());
        let (Some(from), Some(to)) = (waiting.get(..len), buf.get_mut(..len)) else {
            return None;
        };
        to.copy_from_slice(from);
        self.sent = self.sent.saturating_add(len);
        (len > 0).then_some(len)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has bytes.
    pub const fn wants_transmit(&self) -> bool {
        self.request.len() > self.sent
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ConnectEvent> {
        self.events.pop_front()
    }

    fn end(&mut self, event: ConnectEvent) {
        self.timers.clear();
        self.drop_request();
        self.state = State::Ended;
        self.events.push_back(event);
    }

    fn fail(&mut self, error: ConnectError) {
        if !matches!(self.state, State::Open { .. } | State::Ended) {
            self.end(ConnectEvent::Failed(error));
        }
    }
}

#[cfg(test)]
mod tests;
