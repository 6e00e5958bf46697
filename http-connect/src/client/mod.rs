//! The side that asks a proxy for a tunnel (RFC 9110 section 9.3.6).

use core::fmt;
use core::time::Duration;

use alloc::collections::VecDeque;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::auth::{AuthRefusal, AuthStep, ClientAuth, InfoVerdict, Scheme};
use crate::body::{Drain, Framing};
use crate::head::{
    Head, HeadError, HeadLimits, HeadReader, Leniency, is_field_name, is_field_value,
};
use crate::time::{Clock, Timers};
use crate::{Instant, Rng, Target};

/// How many 1xx responses are passed over for one request.
const MAX_INTERIM: u8 = 4;

/// How much of the body of a rejection is kept.
const KEPT_BODY: usize = 4096;

/// What is fixed for a tunnel, besides where it leads.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// Further fields of the request: name and value.
    pub fields: Vec<(String, String)>,
    /// Sends `Proxy-Connection: keep-alive`, which proxies that speak HTTP/1.0 want before a
    /// multi-leg handshake. Off.
    pub proxy_connection: bool,
    /// Limits on a response's head.
    pub limits: HeadLimits,
    /// What is forgiven in a response: bare LF, folding and blanks before the colon by default.
    pub leniency: Leniency,
    /// Most bytes of a rejection's body that are read to keep the connection: 64 KiB.
    pub max_body: usize,
    /// How long one request may take: 30 s.
    pub exchange_timeout: Duration,
    /// How long all of it may take: 60 s.
    pub total_timeout: Duration,
    /// How often a new connection may be asked for: 2.
    pub max_reconnects: u8,
    /// The tunnel will carry TLS: if something else comes first, it is no tunnel, and
    /// [`ConnectError::NotATunnel`] follows [`ConnectEvent::Established`]. Off.
    pub expect_tls: bool,
}

impl Default for ConnectConfig {
    fn default() -> Self {
        Self {
            fields: Vec::new(),
            proxy_connection: false,
            limits: HeadLimits::default(),
            leniency: Leniency {
                bare_lf: true,
                folding: true,
                blank_before_colon: true,
                leading_empty_lines: false,
            },
            max_body: 64 * 1024,
            exchange_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(60),
            max_reconnects: 2,
            expect_tls: false,
        }
    }
}

/// A field of [`ConnectConfig::fields`] cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {index} is reserved or holds illegal characters")]
pub struct FieldError {
    /// Which one.
    pub index: usize,
}

/// What a rejection says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionClass {
    /// The proxy does not do CONNECT, or disliked the request: never again.
    Permanent,
    /// Host or port are forbidden: another one may not be.
    Policy,
    /// The proxy wants credentials: see [`Rejection::auth`].
    Authentication,
    /// Later, perhaps: see [`Rejection::retry_after`].
    Temporary,
    /// The proxy could not reach the target.
    Upstream,
    /// Anything else.
    Other,
}

/// The proxy's "no". Its texts come from the proxy and prove nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code.
    pub status: u16,
    /// What it means.
    pub class: RejectionClass,
    /// Why a challenge was not answered.
    pub auth: Option<AuthRefusal>,
    /// The values of `Proxy-Authenticate`, whatever became of them.
    pub challenges: Vec<String>,
    /// The value of `Retry-After`: seconds or a date.
    pub retry_after: Option<String>,
    /// The value of `Proxy-Status` (RFC 9209).
    pub proxy_status: Option<String>,
    /// The beginning of the body, at most 4 KiB.
    pub body: Vec<u8>,
}

/// Why there is no tunnel, other than by the proxy's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The proxy closed the connection without an answer.
    #[error("the proxy closed the connection")]
    ProxyClosed,
    /// The proxy closed the connection in the middle of a handshake bound to it, again.
    #[error("the proxy closed the connection during authentication")]
    AuthConnectionLost,
    /// The answer is not HTTP.
    #[error("the answer is not HTTP: {0}")]
    Head(#[from] HeadError),
    /// The answer's first line is no status line of HTTP/1.
    #[error("the answer has no HTTP/1 status line")]
    StatusLine,
    /// 101, or more than four interim responses.
    #[error("unexpected interim response")]
    Interim,
    /// The proxy wants TLS on the connection to itself.
    #[error("the proxy speaks TLS")]
    PeerSpeaksTls,
    /// The proxy said yes and then sent something else than TLS: a captive portal.
    #[error("the proxy did not open a tunnel")]
    NotATunnel,
    /// The proxy's proof of knowing the password is wrong.
    #[error("the proxy failed to prove that it knows the password")]
    ForgedProof,
    /// No answer in time.
    #[error("the proxy did not answer in time")]
    Timeout,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectEvent {
    /// The tunnel is open: from now on the connection carries its bytes. Terminal, but for what
    /// [`ConnectConfig::expect_tls`] says.
    Established {
        /// The 2xx.
        status: u16,
    },
    /// A multi-leg scheme needs its next token: [`ConnectClient::set_token`].
    NeedToken {
        /// Negotiate or NTLM.
        scheme: Scheme,
        /// What the proxy sent, base64 as it came.
        token: Option<String>,
    },
    /// This connection is of no more use: close it, open another one to the same proxy, then call
    /// [`ConnectClient::handle_connected`].
    Reconnect,
    /// The proxy refuses. Terminal.
    Rejected(Rejection),
    /// It failed. Terminal.
    Failed(ConnectError),
}

#[derive(Debug)]
enum State {
    /// Until the host says that there is a (new) connection.
    NoConnection,
    AwaitHead(HeadReader),
    /// A rejection was read; its body is passed over before `next`.
    Draining {
        drain: Drain,
        next: Next,
    },
    AwaitToken {
        reusable: bool,
    },
    /// The tunnel; its first byte may be still to be looked at.
    Open {
        untested: bool,
    },
    Ended,
}

/// What to do behind the body of a rejection.
#[derive(Debug)]
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
    Reject(Rejection),
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
/// assert_eq!(client.poll_event(), Some(ConnectEvent::Established { status: 200 }));
/// ```
///
/// There is no way to write to or read from the tunnel here: its bytes are what
/// [`handle_input`](Self::handle_input) gives back once it is open.
pub struct ConnectClient {
    target: String,
    config: ConnectConfig,
    auth: ClientAuth,
    rng: Rng,
    clock: Clock,
    state: State,
    request: Vec<u8>,
    sent: usize,
    interim: u8,
    reconnects: u8,
    request_timeouts: u8,
    timers: Timers<Timer>,
    events: VecDeque<ConnectEvent>,
    /// Another client's credentials, to be sent instead of own ones.
    passed_on: Option<Zeroizing<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// One request and its answer, or one wait for the host.
    Exchange,
    /// All of it.
    Total,
}

impl fmt::Debug for ConnectClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: it holds credentials.
        f.debug_struct("ConnectClient")
            .field("target", &self.target)
            .field("state", &self.state)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl ConnectClient {
    /// A client that waits for its connection. `auth` may come from an earlier tunnel.
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
        if let Some(index) = config.fields.iter().position(|field| !may_be_sent(field)) {
            return Err(FieldError { index });
        }
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
            reconnects: 0,
            request_timeouts: 0,
            events: VecDeque::new(),
            passed_on: None,
        })
    }

    /// Sends these credentials, which are not this client's business.
    pub(crate) fn pass_on(&mut self, authorization: Option<Zeroizing<String>>) {
        self.passed_on = authorization;
    }

    fn arm_exchange(&mut self) {
        let wait = self.config.exchange_timeout;
        self.timers.arm(Timer::Exchange, self.clock.now(), wait);
    }

    /// What has been learnt about the proxy's authentication, for the next tunnel.
    pub fn into_auth(self) -> ClientAuth {
        self.auth
    }

    /// There is a fresh connection to the proxy.
    pub fn handle_connected(&mut self, now: Instant) {
        self.clock.advance(now);
        if matches!(self.state, State::NoConnection) {
            self.send_request();
        }
    }

    fn send_request(&mut self) {
        let target = self.target.as_str();
        let authorization = self
            .auth
            .authorization(&mut self.rng, "CONNECT", target, b"");
        let mut head = alloc::format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        if self.config.proxy_connection {
            field("Proxy-Connection", "keep-alive");
        }
        for (name, value) in &self.config.fields {
            field(name, value);
        }
        if let Some(value) = self.passed_on.as_ref().or(authorization.as_ref()) {
            field("Proxy-Authorization", value);
        }
        head.push_str("\r\n");
        self.request = head.into_bytes();
        self.sent = 0;
        self.interim = 0;
        self.arm_exchange();
        let reader = HeadReader::new(self.config.limits, self.config.leniency);
        self.state = State::AwaitHead(reader);
    }

    /// Takes in bytes from the proxy and returns those that belong to the tunnel: none before it
    /// is open, all afterwards.
    pub fn handle_input<'i>(&mut self, now: Instant, data: &'i [u8]) -> &'i [u8] {
        self.clock.advance(now);
        let mut input = data;
        while !input.is_empty() {
            match &mut self.state {
                State::Open { untested } => {
                    // Whether the first byte came with the head or later makes no difference.
                    if *untested && !matches!(input, [0x15 | 0x16, ..]) {
                        self.state = State::Ended;
                        self.events
                            .push_back(ConnectEvent::Failed(ConnectError::NotATunnel));
                        return &[];
                    }
                    *untested = false;
                    return input;
                }
                State::NoConnection | State::AwaitToken { .. } | State::Ended => return &[],
                State::AwaitHead(reader) => {
                    if reader.is_empty() && matches!(input, [0x15 | 0x16, ..]) {
                        self.fail(ConnectError::PeerSpeaksTls);
                        return &[];
                    }
                    match reader.take(&mut input) {
                        Ok(None) => self.check_beginning(),
                        Ok(Some(head)) => self.response(&head, input),
                        Err(error) => {
                            let http = reader.beginning().starts_with(b"HTTP/1.");
                            self.fail(if http {
                                ConnectError::Head(error)
                            } else {
                                ConnectError::StatusLine
                            });
                        }
                    }
                }
                State::Draining { drain, .. } => {
                    let malformed = drain.take(&mut input).is_err();
                    let too_much = drain.passed() > self.config.max_body;
                    if drain.is_done() && !too_much {
                        self.drained(true);
                    } else if malformed || too_much {
                        self.drained(false);
                        return &[];
                    }
                }
            }
        }
        &[]
    }

    /// Fails early when the first bytes cannot become a status line.
    fn check_beginning(&mut self) {
        if let State::AwaitHead(reader) = &self.state {
            let expected = b"HTTP/1.";
            let so_far = reader.beginning();
            if so_far.iter().zip(expected).any(|(a, b)| a != b) {
                self.fail(ConnectError::StatusLine);
            }
        }
    }

    fn response(&mut self, head: &Head, rest: &[u8]) {
        let Some((minor, status)) = status_line(head.start_line()) else {
            return self.fail(ConnectError::StatusLine);
        };
        match status {
            101 => self.fail(ConnectError::Interim),
            100..=199 => {
                self.interim = self.interim.saturating_add(1);
                if self.interim > MAX_INTERIM {
                    return self.fail(ConnectError::Interim);
                }
                let reader = HeadReader::new(self.config.limits, self.config.leniency);
                self.state = State::AwaitHead(reader);
            }
            200..=299 => self.established(head, status),
            _ => self.refused(head, minor, status),
        }
    }

    fn established(&mut self, head: &Head, status: u16) {
        let info = head.first("Proxy-Authentication-Info");
        if self.auth.accepted(info, b"") == InfoVerdict::Forged {
            return self.fail(ConnectError::ForgedProof);
        }
        self.disarm();
        self.state = State::Open {
            untested: self.config.expect_tls,
        };
        self.events.push_back(ConnectEvent::Established { status });
    }

    fn refused(&mut self, head: &Head, minor: u8, status: u16) {
        let (framing, clear) = Framing::of_response(head, status);
        let reusable = clear && framing != Framing::UntilClose && persists(head, minor);
        let text = |name| head.first(name).map(String::from);
        let reject = |auth| {
            Next::Reject(Rejection {
                status,
                class: class_of(status),
                auth,
                challenges: head.all("Proxy-Authenticate").map(String::from).collect(),
                retry_after: text("Retry-After"),
                proxy_status: text("Proxy-Status"),
                body: Vec::new(),
            })
        };
        let next = match status {
            407 => match self.auth.challenge(head.all("Proxy-Authenticate")) {
                AuthStep::Retry => Next::Retry { reusable },
                AuthStep::NeedToken { scheme, token } => Next::Token {
                    reusable,
                    scheme,
                    token,
                },
                AuthStep::NeedCredentials { .. } => reject(Some(AuthRefusal::NoCredentials)),
                AuthStep::Refuse(refusal) => reject(Some(refusal)),
            },
            408 if self.request_timeouts == 0 => {
                self.request_timeouts = 1;
                Next::Retry { reusable: false }
            }
            _ => reject(None),
        };
        let drain = Drain::new(framing, KEPT_BODY);
        let skip_body = match &next {
            Next::Retry { reusable } | Next::Token { reusable, .. } => !reusable,
            Next::Reject(_) => false,
        };
        let done = drain.is_done() || skip_body;
        self.state = State::Draining { drain, next };
        if done {
            self.drained(!skip_body);
        }
    }

    /// The body of a rejection is over; `whole` says that its end was found.
    fn drained(&mut self, whole: bool) {
        let State::Draining { drain, next } = core::mem::replace(&mut self.state, State::Ended)
        else {
            return;
        };
        match next {
            Next::Retry { reusable } if reusable && whole => self.send_request(),
            Next::Retry { .. } => self.reconnect(),
            Next::Token {
                reusable,
                scheme,
                token,
            } => {
                let reusable = reusable && whole;
                // The first leg may begin on any connection, the others only on this one.
                if !reusable && token.is_some() {
                    return self.reconnect();
                }
                self.state = State::AwaitToken { reusable };
                self.arm_exchange();
                self.events
                    .push_back(ConnectEvent::NeedToken { scheme, token });
            }
            Next::Reject(mut rejection) => {
                rejection.body = drain.into_prefix();
                self.disarm();
                self.events.push_back(ConnectEvent::Rejected(rejection));
            }
        }
    }

    /// The token [`ConnectEvent::NeedToken`] asked for, base64; `None` gives up.
    pub fn set_token(&mut self, now: Instant, token: Option<String>) {
        self.clock.advance(now);
        let State::AwaitToken { reusable } = self.state else {
            return;
        };
        match self.auth.set_token(token) {
            Ok(()) if reusable => self.send_request(),
            Ok(()) => self.reconnect(),
            Err(refusal) => {
                self.disarm();
                self.state = State::Ended;
                self.events.push_back(ConnectEvent::Rejected(Rejection {
                    status: 407,
                    class: RejectionClass::Authentication,
                    auth: Some(refusal),
                    challenges: Vec::new(),
                    retry_after: None,
                    proxy_status: None,
                    body: Vec::new(),
                }));
            }
        }
    }

    fn reconnect(&mut self) {
        if self.reconnects >= self.config.max_reconnects {
            return self.fail(ConnectError::ProxyClosed);
        }
        self.reconnects = self.reconnects.saturating_add(1);
        self.request.clear();
        self.sent = 0;
        self.state = State::NoConnection;
        self.arm_exchange();
        self.events.push_back(ConnectEvent::Reconnect);
    }

    /// The proxy has closed its side, or the connection is lost.
    pub fn handle_eof(&mut self, now: Instant) {
        self.clock.advance(now);
        match &self.state {
            State::NoConnection | State::Open { .. } | State::Ended => {}
            State::Draining { next, .. } => {
                // A rejection is as good without the rest of its body.
                let reusable = matches!(next, Next::Reject(_));
                self.drained(reusable);
            }
            State::AwaitHead(_) | State::AwaitToken { .. } => {
                if self.auth.is_bound_to_connection() {
                    self.auth.connection_lost();
                    if self.reconnects < self.config.max_reconnects {
                        return self.reconnect();
                    }
                    return self.fail(ConnectError::AuthConnectionLost);
                }
                self.fail(ConnectError::ProxyClosed);
            }
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        match self.timers.expired(now) {
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
        if len == 0 {
            return None;
        }
        for (slot, byte) in buf.iter_mut().zip(waiting) {
            *slot = *byte;
        }
        self.sent = self.sent.saturating_add(len);
        Some(len)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ConnectEvent> {
        self.events.pop_front()
    }

    fn disarm(&mut self) {
        self.timers.clear();
        self.request.clear();
        self.sent = 0;
    }

    fn fail(&mut self, error: ConnectError) {
        if matches!(self.state, State::Open { .. } | State::Ended) {
            return;
        }
        self.disarm();
        self.state = State::Ended;
        self.events.push_back(ConnectEvent::Failed(error));
    }
}

/// Whether a configured field is well-formed and not one the client writes itself.
fn may_be_sent((name, value): &(String, String)) -> bool {
    const RESERVED: [&str; 5] = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Proxy-Authorization",
    ];
    is_field_name(name)
        && is_field_value(value)
        && !RESERVED.iter().any(|r| r.eq_ignore_ascii_case(name))
}

/// Minor version and status of a status line of HTTP/1.
fn status_line(line: &str) -> Option<(u8, u16)> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let (minor, rest) = rest.split_once(' ')?;
    let [minor @ b'0'..=b'9'] = minor.as_bytes() else {
        return None;
    };
    let code = rest.split(' ').next().unwrap_or_default();
    if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let status = code.parse().ok().filter(|code| (100..600).contains(code))?;
    Some((minor.saturating_sub(b'0'), status))
}

/// Whether the connection goes on behind this response (RFC 9112 section 9.3).
fn persists(head: &Head, minor: u8) -> bool {
    let says = |word| head.lists("Connection", word) || head.lists("Proxy-Connection", word);
    if says("close") {
        return false;
    }
    minor >= 1 || says("keep-alive")
}

const fn class_of(status: u16) -> RejectionClass {
    match status {
        400 | 405 | 501 => RejectionClass::Permanent,
        403 => RejectionClass::Policy,
        407 => RejectionClass::Authentication,
        429 | 503 => RejectionClass::Temporary,
        502 | 504 => RejectionClass::Upstream,
        _ => RejectionClass::Other,
    }
}

#[cfg(test)]
mod tests;
