//! Messages and keep-alives of one byte stream, however it is cut.

use core::time::Duration;

use alloc::vec::Vec;

use super::PING;
use super::budget::Budget;
use crate::Instant;
use crate::time::{Clock, deadline};
use crate::wire::{Defect, HeadScan, Limits, Message, ParseConfig, ParseError};

/// How long the first part of a ping waits for the rest before it is only a stray line end.
const HALF_PING: Duration = Duration::from_secs(2);

/// Pongs that may be owed at once, and the time in which one more may be.
const PONG_BURST: u32 = 5;
const PONG_REFILL: Duration = Duration::from_secs(1);

/// Stray line end octets that are borne, and the time in which one more is.
const STRAY_BURST: u32 = 64;
const STRAY_REFILL: Duration = Duration::from_secs(1);

/// How much is appended before the search goes on, when a head comes in pieces.
const PIECE: usize = 512;

/// Which side of the keep-alive this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends pings and waits for pongs.
    Client,
    /// Answers pings.
    Server,
}

/// How a [`Framer`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct FramerConfig {
    /// The side.
    pub role: Role,
    /// What is accepted.
    pub parse: ParseConfig,
    /// How long a message may take from its first octet to its last: 30 s. Line ends between
    /// messages never start this.
    pub message_timeout: Duration,
    /// A client answers pings of the server while it has none of its own outstanding: off.
    pub client_answers_pings: bool,
}

impl FramerConfig {
    /// The defaults for a side.
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            parse: ParseConfig {
                limits: Limits::DEFAULT,
                leniency: crate::wire::Leniency {
                    quoted_controls: false,
                    assume_zero_length: false,
                },
            },
            message_timeout: Duration::from_secs(30),
            client_answers_pings: false,
        }
    }
}

/// What a stream brought.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A whole message.
    Message(Message),
    /// A ping: answer with [`PONG`](super::PONG) at once.
    Ping,
    /// The pong to the outstanding ping.
    Pong,
    /// The stream cannot be read any further; nothing follows.
    Broken {
        /// Why.
        error: FramingError,
        /// The head of the message at fault, if it could be read. A request is answered with 400
        /// or 413 before the stream is closed.
        message: Option<Message>,
    },
}

/// Why a stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A head that is not SIP, or over a limit.
    #[error("head: {0}")]
    Head(ParseError),
    /// The end of the message cannot be told, or is too far away.
    #[error(transparent)]
    Length(Defect),
    /// A message was not complete in time.
    #[error("message not complete in time")]
    Timeout,
    /// More pings than a client has reason to send.
    #[error("too many pings")]
    PingFlood,
    /// Too many line ends that are no keep-alive.
    #[error("too many stray line ends")]
    StrayFlood,
}

/// Cuts a byte stream into messages, pings and pongs.
///
/// ```
/// use sip_outbound::{Frame, Framer, FramerConfig, Instant, Role};
///
/// let mut framer = Framer::new(FramerConfig::new(Role::Server), Instant::ZERO);
/// let mut input = &b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\nl: 2\r\n\r\nhi"[..];
/// assert!(matches!(framer.next(Instant::ZERO, &mut input), Some(Frame::Ping)));
/// let Some(Frame::Message(message)) = framer.next(Instant::ZERO, &mut input) else { panic!() };
/// assert_eq!(message.body(), b"hi");
/// assert!(framer.next(Instant::ZERO, &mut input).is_none() && input.is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Framer {
    config: FramerConfig,
    clock: Clock,
    state: State,
    ping_outstanding: bool,
    pongs: Budget,
    strays: Budget,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one per connection")]
enum State {
    /// Between messages; `matched` octets of CR LF CR LF have come, the first one at `since`.
    Between {
        matched: usize,
        since: Instant,
    },
    Head {
        scan: HeadScan,
        buffer: Vec<u8>,
        deadline: Option<Instant>,
    },
    Body {
        head: Message,
        body: Vec<u8>,
        len: usize,
        deadline: Option<Instant>,
    },
    Broken,
}

impl Framer {
    /// A framer for a stream that starts now.
    pub const fn new(config: FramerConfig, now: Instant) -> Self {
        Self {
            config,
            clock: Clock::new(now),
            state: State::Between {
                matched: 0,
                since: now,
            },
            ping_outstanding: false,
            pongs: Budget::new(PONG_BURST, PONG_REFILL, now),
            strays: Budget::new(STRAY_BURST, STRAY_REFILL, now),
        }
    }

    /// Other limits from now on: wider ones once the peer is authenticated.
    pub const fn set_limits(&mut self, limits: Limits, message_timeout: Duration) {
        self.config.parse.limits = limits;
        self.config.message_timeout = message_timeout;
    }

    /// A ping is on its way: the next CR LF between messages is its pong.
    pub const fn ping_sent(&mut self) {
        self.ping_outstanding = true;
    }

    /// Whether a message has begun and is not complete.
    pub const fn is_receiving(&self) -> bool {
        matches!(self.state, State::Head { .. } | State::Body { .. })
    }

    /// Takes the next unit from the front of `input`; to be called until it returns `None`, which
    /// it does with `input` empty.
    pub fn next(&mut self, now: Instant, input: &mut &[u8]) -> Option<Frame> {
        let now = self.clock.advance(now);
        loop {
            let frame = match core::mem::replace(&mut self.state, State::Broken) {
                State::Broken => {
                    *input = &[];
                    return None;
                }
                State::Between { matched, since } => {
                    self.state = State::Between { matched, since };
                    if input.is_empty() {
                        return None;
                    }
                    self.between(now, input)
                }
                State::Head {
                    scan,
                    buffer,
                    deadline,
                } => {
                    let frame = self.head(scan, buffer, deadline, input);
                    if frame.is_none() && input.is_empty() {
                        return None;
                    }
                    frame
                }
                State::Body {
                    head,
                    body,
                    len,
                    deadline,
                } => {
                    let frame = self.body(head, body, len, deadline, input);
                    if frame.is_none() && input.is_empty() {
                        return None;
                    }
                    frame
                }
            };
            if frame.is_some() {
                return frame;
            }
        }
    }

    /// One octet between messages.
    fn between(&mut self, now: Instant, input: &mut &[u8]) -> Option<Frame> {
        let State::Between { matched, since } = self.state else {
            return None;
        };
        let (&byte, rest) = input.split_first()?;
        if !matches!(byte, b'\r' | b'\n') {
            self.state = State::Head {
                scan: HeadScan::default(),
                buffer: Vec::new(),
                deadline: deadline(now, self.config.message_timeout),
            };
            return None;
        }
        *input = rest;
        // A half that waited too long must not join with a line end minutes later.
        let stale = matched > 0 && now.duration_since(since) > HALF_PING;
        let matched = if stale { 0 } else { matched };
        let since = if matched == 0 { now } else { since };
        let next = PING.get(matched) == Some(&byte);
        // What does not go on starts anew; a CR can be the first octet of the next ping.
        let matched = match (next, byte) {
            (true, _) => matched.saturating_add(1),
            (false, b'\r') => 1,
            (false, _) => 0,
        };
        self.state = State::Between { matched, since };
        if self.config.role == Role::Client && self.ping_outstanding {
            if matched == 2 || matched == PING.len() {
                self.ping_outstanding = false;
                self.state = State::Between { matched: 0, since };
                return Some(Frame::Pong);
            }
            return None;
        }
        let answers = self.config.role == Role::Server || self.config.client_answers_pings;
        if answers && matched == PING.len() {
            self.state = State::Between { matched: 0, since };
            if !self.pongs.take(now) {
                return Some(self.broken(FramingError::PingFlood, None));
            }
            return Some(Frame::Ping);
        }
        if matched == PING.len() {
            self.state = State::Between { matched: 0, since };
        }
        self.count_strays(now, answers, next, stale)
    }

    /// Octets that can no longer become a ping count as stray.
    fn count_strays(
        &mut self,
        now: Instant,
        answers: bool,
        next: bool,
        stale: bool,
    ) -> Option<Frame> {
        let stray = !answers || !next || stale;
        if stray && !self.strays.take(now) {
            return Some(self.broken(FramingError::StrayFlood, None));
        }
        None
    }

    fn head(
        &mut self,
        mut scan: HeadScan,
        mut buffer: Vec<u8>,
        deadline: Option<Instant>,
        input: &mut &[u8],
    ) -> Option<Frame> {
        // A head that comes in one piece is read where it lies.
        if buffer.is_empty() {
            return match scan.advance(input, &self.config.parse) {
                Err(error) => Some(self.broken(FramingError::Head(error), None)),
                Ok(Some(len)) => {
                    let (head, rest) = input.split_at_checked(len)?;
                    *input = rest;
                    self.head_complete(head, scan.folds, deadline)
                }
                Ok(None) => {
                    buffer.extend_from_slice(input);
                    *input = &[];
                    self.state = State::Head {
                        scan,
                        buffer,
                        deadline,
                    };
                    None
                }
            };
        }
        let piece = input.get(..PIECE.min(input.len())).unwrap_or_default();
        buffer.extend_from_slice(piece);
        match scan.advance(&buffer, &self.config.parse) {
            Err(error) => Some(self.broken(FramingError::Head(error), None)),
            Ok(Some(len)) => {
                let surplus = buffer.len().saturating_sub(len);
                let used = piece.len().saturating_sub(surplus);
                *input = input.get(used..).unwrap_or_default();
                let head = buffer.get(..len).unwrap_or_default();
                self.head_complete(head, scan.folds, deadline)
            }
            Ok(None) => {
                *input = input.get(piece.len()..).unwrap_or_default();
                self.state = State::Head {
                    scan,
                    buffer,
                    deadline,
                };
                None
            }
        }
    }

    fn head_complete(
        &mut self,
        head: &[u8],
        folds: bool,
        deadline: Option<Instant>,
    ) -> Option<Frame> {
        let head = match Message::from_head(head, folds) {
            Ok(head) => head,
            Err(error) => return Some(self.broken(FramingError::Head(error), None)),
        };
        let defect = match head.content_length() {
            Ok(None) if self.config.parse.leniency.assume_zero_length => return self.whole(head),
            Ok(Some(0)) => return self.whole(head),
            Ok(Some(len)) if len <= self.config.parse.limits.body => {
                self.state = State::Body {
                    head,
                    body: Vec::new(),
                    len,
                    deadline,
                };
                return None;
            }
            Ok(Some(_)) => Defect::BodyTooLong,
            Ok(None) | Err(_) => Defect::ContentLength,
        };
        let message = head.with_defect(defect);
        Some(self.broken(FramingError::Length(defect), Some(message)))
    }

    fn body(
        &mut self,
        head: Message,
        mut body: Vec<u8>,
        len: usize,
        deadline: Option<Instant>,
        input: &mut &[u8],
    ) -> Option<Frame> {
        let missing = len.saturating_sub(body.len()).min(input.len());
        let (more, rest) = input.split_at_checked(missing)?;
        body.extend_from_slice(more);
        *input = rest;
        if body.len() >= len {
            return self.whole(head.with_body(&body));
        }
        self.state = State::Body {
            head,
            body,
            len,
            deadline,
        };
        None
    }

    fn whole(&mut self, message: Message) -> Option<Frame> {
        let now = self.clock.now();
        self.strays = Budget::new(STRAY_BURST, STRAY_REFILL, now);
        self.state = State::Between {
            matched: 0,
            since: now,
        };
        Some(Frame::Message(message))
    }

    fn broken(&mut self, error: FramingError, message: Option<Message>) -> Frame {
        self.state = State::Broken;
        Frame::Broken { error, message }
    }

    /// When a message that has begun must be complete.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Head { deadline, .. } | State::Body { deadline, .. } => *deadline,
            State::Between { .. } | State::Broken => None,
        }
    }

    /// Takes in that it is `now`: a message that is not complete in time breaks the stream.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Frame> {
        let now = self.clock.advance(now);
        let late = self.poll_timeout().is_some_and(|at| at <= now);
        late.then(|| self.broken(FramingError::Timeout, None))
    }
}
