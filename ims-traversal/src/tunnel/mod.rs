//! One byte stream through whatever lies between: an HTTP proxy, TLS, both, or nothing.
//!
//! What rides on it (TURN, SIP) writes and reads clear bytes; the host moves the bytes of the TCP
//! connection. Neither knows of the other.

#[cfg(feature = "tls")]
mod tls;
mod words;

#[cfg(feature = "tls")]
use core::time::Duration;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
#[cfg(feature = "tls")]
use alloc::vec::Vec;

use bytes::{Buf as _, BytesMut};
use http_connect::auth::{ClientAuth, Credentials};
use http_connect::{ConnectClient, ConnectEvent, FieldError};
use stun_proto::time::Clock;
#[cfg(feature = "tls")]
use stun_proto::time::deadline;
use stun_proto::{Instant, Rng};

#[cfg(feature = "tls")]
pub use self::tls::Tls;
#[cfg(feature = "tls")]
use self::tls::TlsLayer;
pub use self::words::{ProxyHop, Step, TunnelConfig, TunnelError, TunnelEvent};

#[derive(Debug)]
enum Layer {
    Clear {
        outbox: BytesMut,
    },
    #[cfg(feature = "tls")]
    Tls(Box<TlsLayer>),
}

#[derive(Debug)]
enum State {
    Connect(Box<ConnectClient>),
    /// TLS is being set up; clear tunnels pass through in no time.
    Handshake(Layer),
    Open(Layer),
    /// This side has closed; what is left is still sent.
    Closing(Layer),
    Ended,
}

/// A tunnel over one TCP connection at a time. See the [module](self).
///
/// ```
/// use ims_traversal::tunnel::{Tunnel, TunnelConfig, TunnelEvent};
/// use stun_proto::Instant;
///
/// let now = Instant::ZERO;
/// let mut tunnel = Tunnel::new(TunnelConfig::default(), [7; 32], now).unwrap();
/// tunnel.handle_connected(now);
/// assert_eq!(tunnel.poll_event(), Some(TunnelEvent::Ready { alpn: None }));
///
/// assert_eq!(tunnel.write(b"hello"), 5);
/// let mut buf = [0; 100];
/// assert_eq!(tunnel.poll_transmit(&mut buf), Some(5));
///
/// tunnel.handle_input(now, b"answer");
/// assert_eq!(tunnel.read(&mut buf), 6);
/// ```
#[derive(Debug)]
pub struct Tunnel {
    state: State,
    /// Looks at the first bytes that come through the proxy.
    opened: Option<http_connect::Tunnel>,
    learned: Option<ClientAuth>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    write_limit: usize,
    #[cfg(feature = "tls")]
    handshake_timeout: Duration,
    handshake_deadline: Option<Instant>,
    clock: Clock,
    /// Clear bytes for the reader.
    inbox: BytesMut,
    events: VecDeque<TunnelEvent>,
}

impl Tunnel {
    /// A tunnel that waits for its TCP connection: to the proxy if there is one, else to the
    /// other side.
    ///
    /// # Errors
    /// [`FieldError`] when a configured field of the CONNECT request cannot be sent.
    pub fn new(config: TunnelConfig, seed: [u8; 32], now: Instant) -> Result<Self, FieldError> {
        let mut rng = Rng::from_seed(seed);
        let state = match config.proxy {
            #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
            Some(mut hop) => {
                #[cfg(feature = "tls")]
                if let Some(Tls::Client { .. }) = &config.tls {
                    hop.config.expect_tls = true;
                }
                State::Connect(Box::new(ConnectClient::new(
                    hop.target,
                    hop.config,
                    hop.auth,
                    rng.fork(),
                    now,
                )?))
            }
            None => State::Handshake(Layer::Clear {
                outbox: BytesMut::new(),
            }),
        };
        Ok(Self {
            state,
            opened: None,
            learned: None,
            #[cfg(feature = "tls")]
            tls: config.tls,
            write_limit: config.write_limit,
            #[cfg(feature = "tls")]
            handshake_timeout: config.handshake_timeout,
            handshake_deadline: None,
            clock: Clock::new(now),
            inbox: BytesMut::new(),
            events: VecDeque::new(),
        })
    }

    /// There is a (new) TCP connection.
    pub fn handle_connected(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        match &mut self.state {
            State::Connect(client) => client.handle_connected(now),
            State::Handshake(_) if self.handshake_deadline.is_none() => self.start_layer(now),
            State::Handshake(_) | State::Open(_) | State::Closing(_) | State::Ended => {}
        }
    }

    /// Everything below is there: sets up what the bytes go through.
    fn start_layer(&mut self, #[cfg_attr(not(feature = "tls"), expect(unused))] now: Instant) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            match TlsLayer::new(tls, self.write_limit) {
                Ok(layer) => {
                    self.handshake_deadline = deadline(now, self.handshake_timeout);
                    self.state = State::Handshake(Layer::Tls(Box::new(layer)));
                }
                Err(error) => self.fail(TunnelError::Tls(error)),
            }
            return;
        }
        let outbox = BytesMut::new();
        self.state = State::Open(Layer::Clear { outbox });
        self.events.push_back(TunnelEvent::Ready { alpn: None });
    }

    /// Takes in bytes of the TCP connection. [`read`](Self::read) them before the next ones, else
    /// they pile up.
    pub fn handle_input(&mut self, now: Instant, data: &[u8]) {
        let now = self.clock.advance(now);
        let rest = match &mut self.state {
            State::Connect(client) => {
                let rest = client.handle_input(now, data);
                self.connect_events(now);
                rest
            }
            State::Handshake(_) | State::Open(_) | State::Closing(_) => data,
            State::Ended => return,
        };
        if rest.is_empty() {
            return;
        }
        match self.opened.as_mut().map(|opened| opened.read(rest)) {
            Some(Err(error)) => self.fail(TunnelError::NotATunnel(error)),
            Some(Ok(data)) => self.layer_input(data),
            None => self.layer_input(rest),
        }
    }

    fn connect_events(&mut self, now: Instant) {
        loop {
            let State::Connect(client) = &mut self.state else {
                return;
            };
            match client.poll_event() {
                None => return,
                Some(ConnectEvent::Established { .. }) => {
                    self.opened = client.tunnel();
                    if let State::Connect(client) =
                        core::mem::replace(&mut self.state, State::Ended)
                    {
                        self.learned = Some(client.into_auth());
                    }
                    self.events.push_back(TunnelEvent::Connected);
                    self.start_layer(now);
                }
                Some(ConnectEvent::Reconnect) => self.events.push_back(TunnelEvent::Reconnect),
                Some(ConnectEvent::NeedToken { scheme, token }) => {
                    self.events
                        .push_back(TunnelEvent::NeedToken { scheme, token });
                }
                Some(ConnectEvent::NeedCredentials { realm, scheme }) => {
                    self.events
                        .push_back(TunnelEvent::NeedCredentials { realm, scheme });
                }
                Some(ConnectEvent::Rejected(rejection)) => {
                    self.fail(TunnelError::Refused(rejection));
                }
                Some(ConnectEvent::Failed(error)) => self.fail(TunnelError::Connect(error)),
                // Events of a later version of that crate: none of them opens a tunnel.
                Some(_) => {}
            }
        }
    }

    fn layer_input(&mut self, data: &[u8]) {
        let layer = match &mut self.state {
            State::Handshake(layer) | State::Open(layer) | State::Closing(layer) => layer,
            State::Connect(_) | State::Ended => return,
        };
        match layer {
            Layer::Clear { .. } => self.inbox.extend_from_slice(data),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => {
                let outcome = tls.input(data, &mut self.inbox);
                let ready = !tls.is_handshaking();
                let alpn = tls.alpn();
                match outcome {
                    Ok(closed) => {
                        if ready {
                            self.handshaken(alpn);
                        }
                        if closed {
                            self.closed();
                        }
                    }
                    Err(error) => self.tls_failed(error),
                }
            }
        }
    }

    #[cfg(feature = "tls")]
    fn handshaken(&mut self, alpn: Option<Vec<u8>>) {
        if let State::Handshake(_) = self.state
            && let State::Handshake(layer) = core::mem::replace(&mut self.state, State::Ended)
        {
            self.handshake_deadline = None;
            self.state = State::Open(layer);
            self.events.push_back(TunnelEvent::Ready { alpn });
        }
    }

    #[cfg(feature = "tls")]
    fn tls_failed(&mut self, error: rustls::Error) {
        let certificate = matches!(
            error,
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
        );
        let error = if certificate {
            TunnelError::Certificate(error)
        } else {
            TunnelError::Tls(error)
        };
        self.handshake_deadline = None;
        match core::mem::replace(&mut self.state, State::Ended) {
            // The alert that says why is still sent.
            State::Handshake(layer) | State::Open(layer) => {
                self.state = State::Closing(layer);
                self.events.push_back(TunnelEvent::Failed(error));
            }
            // It is over for this side already.
            State::Closing(layer) => self.state = State::Closing(layer),
            State::Connect(_) | State::Ended => {}
        }
    }

    /// The other side has closed its half of the TCP connection, or the connection is lost.
    pub fn handle_eof(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        match &mut self.state {
            State::Connect(client) => {
                client.handle_eof(now);
                self.connect_events(now);
            }
            State::Handshake(_) => self.fail(TunnelError::ClosedDuring(Step::Tls)),
            State::Open(_) => self.closed(),
            State::Closing(_) | State::Ended => self.state = State::Ended,
        }
    }

    /// The other side sends no more. What waits is still sent, and with TLS this side's farewell
    /// (RFC 8446 section 6.1).
    fn closed(&mut self) {
        if matches!(self.state, State::Open(_)) {
            self.close();
            self.events.push_back(TunnelEvent::Closed);
        }
    }

    /// Takes in that it is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        if let State::Connect(client) = &mut self.state {
            client.handle_timeout(now);
            self.connect_events(now);
        }
        if self.handshake_deadline.is_some_and(|at| now >= at) {
            self.fail(TunnelError::HandshakeTimeout);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Connect(client) => client.poll_timeout(),
            State::Handshake(_) | State::Open(_) | State::Closing(_) | State::Ended => {
                self.handshake_deadline
            }
        }
    }

    /// Fills `buf` with bytes for the TCP connection; how many. Every size will do.
    pub fn poll_transmit(&mut self, buf: &mut [u8]) -> Option<usize> {
        let layer = match &mut self.state {
            State::Connect(client) => return client.poll_transmit(buf),
            State::Handshake(layer) | State::Open(layer) | State::Closing(layer) => layer,
            State::Ended => return None,
        };
        let len = match layer {
            Layer::Clear { outbox } => take(outbox, buf),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.output(buf),
        };
        (len > 0).then_some(len)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has bytes.
    pub fn wants_transmit(&self) -> bool {
        match &self.state {
            State::Connect(client) => client.wants_transmit(),
            State::Handshake(layer) | State::Open(layer) | State::Closing(layer) => match layer {
                Layer::Clear { outbox } => !outbox.is_empty(),
                #[cfg(feature = "tls")]
                Layer::Tls(tls) => tls.wants_output(),
            },
            State::Ended => false,
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        self.events.pop_front()
    }

    /// The token [`TunnelEvent::NeedToken`] asked for, base64; `None` gives up.
    pub fn set_token(&mut self, now: Instant, token: Option<String>) {
        let now = self.clock.advance(now);
        if let State::Connect(client) = &mut self.state {
            client.set_token(now, token);
            self.connect_events(now);
        }
    }

    /// What [`TunnelEvent::NeedCredentials`] asked for; `None` gives up.
    pub fn set_credentials(&mut self, now: Instant, credentials: Option<Credentials>) {
        let now = self.clock.advance(now);
        if let State::Connect(client) = &mut self.state {
            client.set_credentials(now, credentials);
            self.connect_events(now);
        }
    }

    /// Whether the exchange with the proxy goes on, over this connection or the next one.
    pub(crate) const fn is_asking(&self) -> bool {
        matches!(self.state, State::Connect(_))
    }

    /// What was learned of the proxy's authentication, once: after [`TunnelEvent::Connected`], for
    /// the next tunnel through the same proxy.
    pub const fn take_auth(&mut self) -> Option<ClientAuth> {
        self.learned.take()
    }

    /// Takes clear bytes to send; how many of them: fewer when the limit is reached, none unless
    /// the tunnel is ready.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let State::Open(layer) = &mut self.state else {
            return 0;
        };
        match layer {
            Layer::Clear { outbox } => {
                let room = self.write_limit.saturating_sub(outbox.len());
                let taken = data.get(..room.min(data.len())).unwrap_or_default();
                outbox.extend_from_slice(taken);
                taken.len()
            }
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.write(data),
        }
    }

    /// How many bytes wait for [`poll_transmit`](Self::poll_transmit); with TLS those of its
    /// records.
    pub fn waiting(&mut self) -> usize {
        match &mut self.state {
            State::Handshake(layer) | State::Open(layer) | State::Closing(layer) => match layer {
                Layer::Clear { outbox } => outbox.len(),
                #[cfg(feature = "tls")]
                Layer::Tls(tls) => tls.waiting(),
            },
            State::Connect(_) | State::Ended => 0,
        }
    }

    /// Fills `buf` with clear bytes that have come; how many.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        take(&mut self.inbox, buf)
    }

    /// How many clear bytes can be read.
    pub fn readable(&self) -> usize {
        self.inbox.len()
    }

    /// The clear bytes that can be read, where they are; then [`consume`](Self::consume) them.
    pub fn received(&self) -> &[u8] {
        &self.inbox
    }

    /// Forgets the first `len` bytes of [`received`](Self::received), or all there are.
    pub fn consume(&mut self, len: usize) {
        self.inbox.advance(len.min(self.inbox.len()));
    }

    /// The name a client asked for by SNI; known to the server's side once the tunnel is ready.
    pub fn server_name(&self) -> Option<&str> {
        match &self.state {
            State::Open(layer) | State::Closing(layer) => match layer {
                Layer::Clear { .. } => None,
                #[cfg(feature = "tls")]
                Layer::Tls(tls) => tls.server_name(),
            },
            State::Connect(_) | State::Handshake(_) | State::Ended => None,
        }
    }

    /// Closes this side: what was written is still sent, then the host closes the connection.
    pub fn close(&mut self) {
        match core::mem::replace(&mut self.state, State::Ended) {
            State::Open(layer) | State::Handshake(layer) => {
                #[cfg(feature = "tls")]
                let mut layer = layer;
                #[cfg(feature = "tls")]
                if let Layer::Tls(tls) = &mut layer {
                    tls.close();
                }
                self.handshake_deadline = None;
                self.state = State::Closing(layer);
            }
            State::Closing(layer) => self.state = State::Closing(layer),
            State::Connect(_) | State::Ended => {}
        }
    }

    fn fail(&mut self, error: TunnelError) {
        self.state = State::Ended;
        self.handshake_deadline = None;
        self.events.push_back(TunnelEvent::Failed(error));
    }
}

/// Moves as much as fits.
fn take(from: &mut BytesMut, buf: &mut [u8]) -> usize {
    let len = from.len().min(buf.len());
    if let (Some(slot), Some(bytes)) = (buf.get_mut(..len), from.get(..len)) {
        slot.copy_from_slice(bytes);
    }
    from.advance(len);
    len
}

#[cfg(test)]
mod tests;
