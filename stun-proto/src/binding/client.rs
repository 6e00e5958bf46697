//! The Binding client.

use core::net::SocketAddr;
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::config::{Authentication, BindingClientConfig, ConfigError, RequestError};
use super::redirect::{Alternative, RedirectRefused, Redirects};
use super::{MAX_TRANSMIT, max_message};
use crate::auth::{AuthFailure, LongTermClient, RequestAuth, ShortTermClient};
use crate::framing::{Deframer, Next, Unit};
use crate::time::{Clock, Timers};
use crate::wire::{
    AttributeType, Message, MessageType, Method, Software, TransactionId, TransmitCounter, Writer,
    append_fingerprint, set_transmit_count,
};
use crate::{FiveTuple, Instant, Path, Received, Rng, StreamId, Transactions, Transmit, Transport};

/// The longest message taken from a stream.
const MAX_STREAM_MESSAGE: usize = 4096;

/// A request of the application, through all its retransmissions and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the application wants to know. Every request ends with exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingEvent {
    /// The server has said what it sees.
    Mapped {
        /// The request.
        request: RequestId,
        /// Where the response came from; another server than was asked after a redirection.
        path: Path,
        /// Our address as the server sees it.
        mapped: SocketAddr,
        /// The round trip; `None` when the request was sent more than once.
        rtt: Option<Duration>,
        /// The server's counts of transmissions, when they are counted (RFC 7982).
        counter: Option<TransmitCounter>,
    },
    /// No answer, or none that helps.
    Failed {
        /// The request.
        request: RequestId,
        /// Where it went.
        path: Path,
        /// Why.
        cause: FailureCause,
    },
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureCause {
    /// Nothing came that counts.
    #[error("no response")]
    Timeout {
        /// The code of an unproven error response, which may say what is wrong.
        hint: Option<u16>,
    },
    /// Only responses came that nobody has proven.
    #[error("responses without valid integrity")]
    IntegrityViolated {
        /// The code of an unproven error response, which may say what is wrong.
        hint: Option<u16>,
    },
    /// The network says that the server cannot be reached.
    #[error("server unreachable")]
    Unreachable,
    /// The stream was refused, closed or reset, or carried something else than STUN.
    #[error("stream lost")]
    StreamLost,
    /// The response has a required attribute that is not known here.
    #[error("response with an unknown attribute {0:?}")]
    UnknownAttribute(AttributeType),
    /// The response lacks what makes it one.
    #[error("malformed response")]
    Malformed,
    /// The server said so. 400 will come again for the same request.
    #[error("error response {code}")]
    Code {
        /// The code, 300 to 699.
        code: u16,
    },
    /// The server wants proof that cannot be given.
    #[error("authentication failed: {0}")]
    Auth(AuthFailure),
    /// With credentials the request would be too long for an unknown path.
    #[error("request too long")]
    TooLong,
    /// Another server is to be asked; the host must connect to it first.
    #[error("redirected")]
    Redirected(Alternative),
    /// Another server is to be asked, and will not be.
    #[error("redirection refused: {0}")]
    RedirectRefused(RedirectRefused),
}

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingAction {
    /// Nothing comes from this stream any more: reset it, and connect again if it is needed
    /// (RFC 8489 section 6.2.2).
    Reset(StreamId),
}

#[expect(clippy::large_enum_variant, reason = "one per machine")]
#[derive(Debug)]
pub(super) enum Auth {
    None,
    ShortTerm(ShortTermClient),
    LongTerm(LongTermClient),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Make the request again after a server error.
    Retry(RequestId),
    /// Send an indication.
    KeepAlive(Path),
}

/// The worst that came instead of a response that counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) unproven: bool,
    pub(super) hint: Option<u16>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: Path,
    pub(super) auth: RequestAuth,
    pub(super) server_errors: u8,
    pub(super) seen: Seen,
}

/// A STUN client for the Binding method. One machine per server: credentials, their nonce and
/// what was learned of the server are shared by all requests.
///
/// A stream is named to the machine once it is connected and, over TLS, once the server's
/// certificate is verified: requests are sent at once. Keep it open as long as the address learned
/// over it is in use.
///
/// ```
/// use stun_proto::binding::{BindingClient, BindingClientConfig, BindingEvent, MAX_TRANSMIT};
/// use stun_proto::{FiveTuple, Instant, Path};
///
/// let now = Instant::ZERO;
/// let server = FiveTuple::udp(
///     "192.0.2.9:5000".parse().unwrap(),
///     "198.51.100.1:3478".parse().unwrap(),
/// );
/// let mut client = BindingClient::new(BindingClientConfig::default(), [7; 32], now).unwrap();
/// client.request(now, Path::Datagram(server)).unwrap();
///
/// let mut buf = [0; MAX_TRANSMIT];
/// while let Some(transmit) = client.poll_transmit(&mut buf) {
///     let _datagram = (transmit.to, &buf[..transmit.len]); // to the socket
/// }
/// let _wait_until = client.poll_timeout(); // then handle_timeout
/// // client.handle_datagram(now, server, &received);
/// while let Some(event) = client.poll_event() {
///     if let BindingEvent::Mapped { mapped, .. } = event {
///         println!("the NAT shows us as {mapped}");
///     }
/// }
/// ```
#[derive(Debug)]
pub struct BindingClient {
    pub(super) config: BindingClientConfig,
    rng: Rng,
    clock: Clock,
    pub(super) auth: Auth,
    pub(super) redirects: Redirects,
    next_request: u64,
    pub(super) requests: BTreeMap<RequestId, Request>,
    pub(super) transactions: Transactions<RequestId>,
    pub(super) timers: Timers<Timer>,
    keep_alive: BTreeMap<Path, Duration>,
    indications: VecDeque<(Path, Vec<u8>)>,
    streams: BTreeMap<StreamId, Deframer>,
    actions: VecDeque<BindingAction>,
    pub(super) events: VecDeque<BindingEvent>,
}

impl BindingClient {
    /// A client with nothing to do. All its randomness comes from `seed`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        config: BindingClientConfig,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let auth = match &config.authentication {
            Authentication::None => Auth::None,
            Authentication::ShortTerm(client) => Auth::ShortTerm(client.clone()),
            Authentication::LongTerm(credentials) => {
                Auth::LongTerm(LongTermClient::new(Some(credentials.clone())))
            }
            Authentication::LongTermIfAsked(credentials) => {
                Auth::LongTerm(LongTermClient::new(Some(credentials.clone())).open_servers())
            }
        };
        Ok(Self {
            rng: Rng::from_seed(seed),
            clock: Clock::new(now),
            auth,
            redirects: Redirects::new(config.redirect),
            next_request: 0,
            requests: BTreeMap::new(),
            transactions: Transactions::new(config.retransmit, config.max_requests)
                .with_server_limit(config.max_requests_per_server),
            timers: Timers::new(),
            keep_alive: BTreeMap::new(),
            indications: VecDeque::new(),
            streams: BTreeMap::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            config,
        })
    }

    /// Asks the server at the other end of `path` for our address.
    ///
    /// # Errors
    /// [`RequestError`]; nothing has changed then.
    // deviates: STUN-6.2.3-2 TLS is the host's; a stream is named here only once it is verified.
    pub fn request(&mut self, now: Instant, path: Path) -> Result<RequestId, RequestError> {
        let now = self.clock.advance(now);
        self.check_transport(path)?;
        let taken = self.requests.len().saturating_add(self.events.len());
        if taken >= self.config.max_requests || !self.may_use(path) {
            return Err(RequestError::TooMany);
        }
        let id = RequestId(self.next_request);
        let mut auth = RequestAuth::default();
        let tid = self.rng.transaction_id();
        let bytes = self.write_request(path, tid, &mut auth)?;
        self.transactions
            .start(now, path, tid, &bytes, id)
            .map_err(|_| RequestError::TooMany)?;
        self.next_request = self.next_request.wrapping_add(1);
        match path {
            Path::Stream(stream) => {
                self.streams
                    .entry(stream)
                    .or_insert_with(|| Deframer::stun_only(MAX_STREAM_MESSAGE));
            }
            Path::Datagram(at) => self.redirects.note_asked(now, at.remote),
        }
        self.requests.insert(
            id,
            Request {
                path,
                auth,
                server_errors: 0,
                seen: Seen::default(),
            },
        );
        Ok(id)
    }

    /// Sends one Binding indication: it is neither answered nor repeated, and keeps a NAT binding
    /// alive.
    ///
    /// # Errors
    /// [`RequestError`]; nothing has changed then.
    pub fn indication(&mut self, now: Instant, path: Path) -> Result<(), RequestError> {
        self.clock.advance(now);
        self.check_transport(path)?;
        if self.indications.len() >= self.config.max_paths {
            return Err(RequestError::TooMany);
        }
        let bytes = self.write_indication(path)?;
        self.indications.push_back((path, bytes));
        Ok(())
    }

    /// Sends an indication over `path` every `interval` from now on, or no more with `None`.
    ///
    /// # Errors
    /// [`RequestError`]; nothing has changed then.
    pub fn keep_alive(
        &mut self,
        now: Instant,
        path: Path,
        interval: Option<Duration>,
    ) -> Result<(), RequestError> {
        let now = self.clock.advance(now);
        let Some(interval) = interval.filter(|interval| !interval.is_zero()) else {
            self.timers.disarm(Timer::KeepAlive(path));
            self.keep_alive.remove(&path);
            return Ok(());
        };
        self.check_transport(path)?;
        let known = self.keep_alive.contains_key(&path);
        if !known && self.keep_alive.len() >= self.config.max_paths {
            return Err(RequestError::TooMany);
        }
        self.keep_alive.insert(path, interval);
        self.timers.arm(Timer::KeepAlive(path), now, interval);
        Ok(())
    }

    /// Takes in a datagram. Everything that is no response to a request of this client is
    /// [`Received::NotMine`].
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &'a [u8],
    ) -> Received<'a> {
        let now = self.clock.advance(now);
        let Ok(message) = Message::parse(data) else {
            return Received::NotMine;
        };
        if self.handle_message(now, Path::Datagram(at), &message) {
            Received::Consumed
        } else {
            Received::NotMine
        }
    }

    /// Takes in the next message of a stream and advances `input` behind it; call it until
    /// `input` is empty. A stream no request was made over is [`Received::NotMine`].
    pub fn handle_stream<'a>(
        &mut self,
        now: Instant,
        id: StreamId,
        input: &mut &'a [u8],
    ) -> Received<'a> {
        let now = self.clock.advance(now);
        let Some(mut deframer) = self.streams.remove(&id) else {
            return Received::NotMine;
        };
        let intact = match deframer.next(input) {
            Ok(Next::Unit(Unit::Message(bytes))) => match Message::parse(bytes) {
                Ok(message) => {
                    self.handle_message(now, Path::Stream(id), &message);
                    true
                }
                Err(_) => false,
            },
            Ok(Next::Unit(Unit::ChannelData { .. })) | Err(_) => false,
            Ok(Next::Partial | Next::Nothing) => true,
        };
        if intact {
            self.streams.insert(id, deframer);
        } else {
            *input = &[];
            self.actions.push_back(BindingAction::Reset(id));
            self.lose_stream(id);
        }
        Received::Consumed
    }

    /// Takes in that a stream was refused, closed or reset.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        self.clock.advance(now);
        self.lose_stream(id);
    }

    /// Takes in an ICMP error about a datagram to this address. Hard are destination unreachable
    /// with protocol or port unreachable and the like; soft ones change nothing.
    pub fn handle_icmp(&mut self, now: Instant, at: FiveTuple, hard: bool) {
        self.clock.advance(now);
        if hard {
            self.fail_path(Path::Datagram(at), &FailureCause::Unreachable);
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Retry(id) => self.make_again(now, id),
                Timer::KeepAlive(path) => self.send_keep_alive(now, path),
            }
        }
        self.transactions.handle_timeout(now);
        while let Some(ended) = self.transactions.poll_timed_out() {
            let id = ended.context;
            let Some(request) = self.requests.get(&id) else {
                continue;
            };
            let Seen { unproven, hint } = request.seen;
            if let Path::Stream(stream) = request.path {
                self.reset(stream);
            }
            let cause = if unproven {
                FailureCause::IntegrityViolated { hint }
            } else {
                FailureCause::Timeout { hint }
            };
            self.fail(id, cause);
        }
    }

    /// Writes the next message into `buf`, which holds [`MAX_TRANSMIT`] bytes.
    ///
    /// # Panics
    /// When `buf` is too small.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        if let Some((to, bytes)) = self.indications.pop_front() {
            let len = bytes.len();
            assert!(len <= buf.len(), "transmit buffer too small");
            if let Some(slot) = buf.get_mut(..len) {
                slot.copy_from_slice(&bytes);
            }
            return Some(Transmit { to, len });
        }
        let transmit = self.transactions.poll_transmit(buf)?;
        if self.config.count_transmissions
            && let Some(message) = buf.get_mut(..transmit.len)
        {
            let id = Message::parse(message).map(|message| message.transaction_id());
            let sends = id.ok().and_then(|id| self.transactions.sends(id));
            set_transmit_count(message, sends.unwrap_or(1));
        }
        Some(transmit)
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<BindingAction> {
        self.actions.pop_front()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<BindingEvent> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.timers.next(), self.transactions.poll_timeout()];
        timers.into_iter().flatten().min()
    }

    fn check_transport(&self, path: Path) -> Result<(), RequestError> {
        let udp = matches!(path, Path::Datagram(at) if at.transport == Transport::Udp);
        if self.config.classic && !udp {
            return Err(RequestError::ClassicTransport);
        }
        Ok(())
    }

    fn may_use(&self, path: Path) -> bool {
        match path {
            Path::Datagram(_) => true,
            Path::Stream(id) => {
                self.streams.contains_key(&id) || self.streams.len() < self.config.max_paths
            }
        }
    }

    fn write_request(
        &self,
        path: Path,
        id: TransactionId,
        auth: &mut RequestAuth,
    ) -> Result<Vec<u8>, RequestError> {
        let mut buf = [0; MAX_TRANSMIT];
        let mut writer = Writer::new(&mut buf, MessageType::request(Method::BINDING), id);
        if !self.config.classic {
            let software = self.config.software.as_deref().map(Software::new);
            writer = writer.maybe(software.and_then(Result::ok).as_ref());
        }
        if self.config.count_transmissions {
            writer = writer.attribute(&TransmitCounter {
                request: 1,
                response: 0,
            });
        }
        let len = match &self.auth {
            Auth::None => writer.finish(),
            Auth::ShortTerm(client) => client.finish(writer),
            Auth::LongTerm(client) => client.finish(writer, auth),
        };
        self.sealed(path, &mut buf, len.map_err(|_| RequestError::TooLong)?)
    }

    /// Long-term credentials never protect indications.
    fn write_indication(&mut self, path: Path) -> Result<Vec<u8>, RequestError> {
        let mut buf = [0; MAX_TRANSMIT];
        let ty = MessageType::indication(Method::BINDING);
        let writer = Writer::new(&mut buf, ty, self.rng.transaction_id());
        let len = match &self.auth {
            Auth::None | Auth::LongTerm(_) => writer.finish(),
            Auth::ShortTerm(client) => client.finish(writer),
        };
        self.sealed(path, &mut buf, len.map_err(|_| RequestError::TooLong)?)
    }

    fn sealed(&self, path: Path, buf: &mut [u8], len: usize) -> Result<Vec<u8>, RequestError> {
        let len = if self.config.fingerprint {
            append_fingerprint(buf, len).map_err(|_| RequestError::TooLong)?
        } else {
            len
        };
        match buf.get(..len) {
            Some(message) if len <= max_message(path) => Ok(message.to_vec()),
            Some(_) | None => Err(RequestError::TooLong),
        }
    }

    /// The same question in a new transaction.
    pub(super) fn make_again(&mut self, now: Instant, id: RequestId) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let (path, mut auth) = (request.path, request.auth);
        let tid = self.rng.transaction_id();
        let Ok(bytes) = self.write_request(path, tid, &mut auth) else {
            return self.fail(id, FailureCause::TooLong);
        };
        if let Some(request) = self.requests.get_mut(&id) {
            request.auth = auth;
            request.seen = Seen::default();
        }
        if self.transactions.start(now, path, tid, &bytes, id).is_err() {
            // Each request has one transaction at most, so there is always room.
            self.fail(id, FailureCause::Timeout { hint: None });
        }
    }

    fn send_keep_alive(&mut self, now: Instant, path: Path) {
        let Some(interval) = self.keep_alive.get(&path).copied() else {
            return;
        };
        self.timers.arm(Timer::KeepAlive(path), now, interval);
        let queued = self.indications.iter().any(|(queued, _)| *queued == path);
        if !queued && self.indications.len() < self.config.max_paths {
            let indication = self.write_indication(path).ok();
            self.indications
                .extend(indication.map(|bytes| (path, bytes)));
        }
    }

    fn lose_stream(&mut self, id: StreamId) {
        let path = Path::Stream(id);
        self.streams.remove(&id);
        self.timers.disarm(Timer::KeepAlive(path));
        self.keep_alive.remove(&path);
        self.indications.retain(|(queued, _)| *queued != path);
        self.fail_path(path, &FailureCause::StreamLost);
    }

    fn reset(&mut self, id: StreamId) {
        let action = BindingAction::Reset(id);
        if self.streams.contains_key(&id) && !self.actions.contains(&action) {
            self.actions.push_back(action);
        }
    }

    fn fail_path(&mut self, path: Path, cause: &FailureCause) {
        self.transactions.fail_path(path);
        let on_path = self.requests.iter().filter(|(_, r)| r.path == path);
        let ids: Vec<_> = on_path.map(|(id, _)| *id).collect();
        for id in ids {
            self.fail(id, cause.clone());
        }
    }

    pub(super) fn fail(&mut self, id: RequestId, cause: FailureCause) {
        self.timers.disarm(Timer::Retry(id));
        if let Some(request) = self.requests.remove(&id) {
            self.events.push_back(BindingEvent::Failed {
                request: id,
                path: request.path,
                cause,
            });
        }
    }
}
