//! The streams a session wants, over connections.

use core::net::SocketAddr;

use alloc::string::String;

use http_connect::auth::{ClientAuth, Credentials};
use ice_proto::{Instant, SessionAction, Step, StreamFailure, StreamId, Transport};

use super::{ConnStep, Media, MediaAction, MediaEvent, RelayLeg, ServerCause};
use crate::conns::{ConnAction, ConnError, ConnEvent, ConnId, ConnPlan, Endpoint};
use crate::tunnel::TunnelError;

/// A stream to a TURN server.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) leg: RelayLeg,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// The session waits for it, and it for this.
    Opening(ConnStep),
    Open,
    /// The other side has closed, or it broke; what came before is still read.
    Ending(Option<ConnError>),
}

impl Stream {
    /// There is a TCP connection.
    pub(super) const fn connected(&mut self) {
        if let State::Opening(step) = &mut self.state {
            *step = if self.leg.via_proxy {
                ConnStep::Proxy
            } else {
                ConnStep::Tls
            };
        }
    }
}

impl Media {
    /// Takes what session, connections and host have for each other, until nothing is left.
    pub(super) fn pump(&mut self) {
        loop {
            if let Some((id, event)) = self.conns.poll_event() {
                self.conn_event(id, event);
            } else if let Some(id) = self.ended_stream() {
                self.end_stream(id);
            } else if let Some(action) = self.session.poll_action() {
                self.session_action(action);
            } else if let Some(event) = self.session.poll_event() {
                self.session_event(event, None);
            } else if let Some(action) = self.conns.poll_action() {
                self.actions.push_back(match action {
                    ConnAction::Connect { conn, to } => MediaAction::Connect { conn, to },
                    ConnAction::Close { conn } => MediaAction::Close { conn },
                });
            } else {
                return;
            }
        }
    }

    fn session_action(&mut self, action: SessionAction) {
        match action {
            SessionAction::OpenStream {
                id,
                transport,
                remote,
                server_name,
            } => self.open_stream(id, transport, remote, server_name),
            SessionAction::CloseStream { id } => {
                if let Some(stream) = self.streams.get(&id)
                    && let State::Opening(step) = stream.state
                {
                    self.given_up.push_back((stream.leg, step));
                }
                self.forget_stream(id);
            }
            SessionAction::OpenSocket { relay, local } => self
                .actions
                .push_back(MediaAction::OpenSocket { relay, local }),
            SessionAction::CloseSocket { local } => {
                self.actions.push_back(MediaAction::CloseSocket { local });
            }
            // Nothing of a later version of that crate opens a way by itself.
            _ => {}
        }
    }

    fn open_stream(
        &mut self,
        id: StreamId,
        transport: Transport,
        server: SocketAddr,
        name: Option<String>,
    ) {
        let leg = RelayLeg {
            server,
            transport,
            via_proxy: self.config.proxy.is_some(),
        };
        let state = State::Opening(ConnStep::Tcp);
        self.streams.insert(id, Stream { leg, state });
        if let Err(cause) = self.plan(id, transport, server, name) {
            let coarse = match cause {
                ServerCause::NoTls => StreamFailure::Tls,
                ServerCause::Plan(_) => StreamFailure::Proxy,
                ServerCause::Conn(_) | ServerCause::Server(_) | ServerCause::GivenUp(_) => {
                    StreamFailure::Other
                }
            };
            self.stream_failed(id, coarse, cause);
        }
    }

    fn plan(
        &mut self,
        id: StreamId,
        transport: Transport,
        server: SocketAddr,
        name: Option<String>,
    ) -> Result<(), ServerCause> {
        let to = match &name {
            Some(name) if self.config.by_name => Endpoint::Name {
                host: name.clone(),
                port: server.port(),
            },
            Some(_) | None => Endpoint::Addr(server),
        };
        #[cfg(feature = "tls")]
        let tls = match (transport, &self.config.tls) {
            (Transport::Tls, Some(config)) => Some(tls_to(config, server, name)?),
            (Transport::Tls, None) => return Err(ServerCause::NoTls),
            (Transport::Tcp | Transport::Udp | Transport::Dtls, _) => None,
        };
        #[cfg(not(feature = "tls"))]
        if transport == Transport::Tls {
            return Err(ServerCause::NoTls);
        }
        let plan = ConnPlan {
            to,
            via: self.config.proxy.as_ref(),
            #[cfg(feature = "tls")]
            tls,
        };
        self.conns.open(self.clock.now(), id, plan)?;
        Ok(())
    }

    fn conn_event(&mut self, id: StreamId, event: ConnEvent) {
        let now = self.clock.now();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let RelayLeg {
            server,
            transport,
            via_proxy,
        } = stream.leg;
        let conn = self.conns.id(id);
        match event {
            ConnEvent::Proxied => {
                stream.state = State::Opening(ConnStep::Tls);
                self.events.push_back(MediaEvent::Proxied { server });
            }
            ConnEvent::Ready { local, .. } => {
                stream.state = State::Open;
                self.events.push_back(MediaEvent::Connected {
                    server,
                    transport,
                    via_proxy,
                });
                self.session.stream_opened(now, id, local);
            }
            ConnEvent::NeedCredentials { realm, scheme } => {
                self.events
                    .extend(conn.map(|conn| MediaEvent::NeedCredentials {
                        conn,
                        realm,
                        scheme,
                    }));
            }
            ConnEvent::NeedToken { scheme, token } => {
                self.events.extend(conn.map(|conn| MediaEvent::NeedToken {
                    conn,
                    scheme,
                    token,
                }));
            }
            ConnEvent::Closed => stream.state = State::Ending(None),
            ConnEvent::Failed(error) => {
                if let State::Opening(_) = stream.state {
                    let coarse = coarse(&error);
                    return self.stream_failed(id, coarse, error.into());
                }
                stream.state = State::Ending(Some(error));
            }
        }
    }

    /// A stream will never be there.
    fn stream_failed(&mut self, id: StreamId, coarse: StreamFailure, cause: ServerCause) {
        let now = self.clock.now();
        // What the session has said so far is not about this.
        while let Some(event) = self.session.poll_event() {
            self.session_event(event, None);
        }
        self.session.stream_failed(now, id, coarse);
        let mut cause = Some(cause);
        while let Some(event) = self.session.poll_event() {
            self.session_event(event, cause.take());
        }
        self.forget_stream(id);
    }

    fn forget_stream(&mut self, id: StreamId) {
        self.streams.remove(&id);
        self.readable.remove(&id);
        self.conns.close(self.clock.now(), id);
    }

    /// A stream that is over and has nothing more to read.
    fn ended_stream(&self) -> Option<StreamId> {
        let mut streams = self.streams.iter();
        let over = |(id, stream): &(&StreamId, &Stream)| {
            matches!(stream.state, State::Ending(_)) && !self.readable.contains(id)
        };
        streams.find(over).map(|(id, _)| *id)
    }

    fn end_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let state = core::mem::replace(&mut stream.state, State::Open);
        if let State::Ending(Some(error)) = state {
            let RelayLeg {
                server, transport, ..
            } = stream.leg;
            self.events.push_back(MediaEvent::ServerFailed {
                server,
                transport,
                step: Step::Refresh,
                cause: error.into(),
            });
        }
        self.session.handle_stream_closed(self.clock.now(), id);
        self.forget_stream(id);
    }

    /// Removes what was taken last; a connection that has more.
    pub(super) fn next_readable(&mut self) -> Option<StreamId> {
        if let Some((id, len)) = self.taken.take() {
            self.conns.consume(id, len);
        }
        self.pump();
        while let Some(id) = self.readable.first().copied() {
            if !self.conns.received(id).is_empty() {
                return Some(id);
            }
            self.readable.remove(&id);
            self.pump();
        }
        None
    }

    /// Answers [`MediaEvent::NeedCredentials`]; `None` gives up. Later connections use them too.
    pub fn set_credentials(
        &mut self,
        now: Instant,
        conn: ConnId,
        credentials: Option<Credentials>,
    ) {
        let now = self.clock.advance(now);
        if let (Some(proxy), Some(credentials)) = (&mut self.config.proxy, &credentials) {
            let policy = proxy.auth.policy_mut().clone();
            proxy.auth = ClientAuth::new(Some(credentials.clone()), policy);
        }
        if let Some(id) = self.conns.key(conn) {
            self.conns.set_credentials(now, id, credentials);
        }
        self.pump();
    }

    /// Answers [`MediaEvent::NeedToken`], base64; `None` gives up.
    pub fn set_token(&mut self, now: Instant, conn: ConnId, token: Option<String>) {
        let now = self.clock.advance(now);
        if let Some(id) = self.conns.key(conn) {
            self.conns.set_token(now, id, token);
        }
        self.pump();
    }
}

/// TLS to a server whose certificate is for its name, or else for its address.
#[cfg(feature = "tls")]
fn tls_to(
    config: &alloc::sync::Arc<rustls::ClientConfig>,
    server: SocketAddr,
    name: Option<String>,
) -> Result<crate::tunnel::Tls, ServerCause> {
    use rustls::pki_types::ServerName;
    let name = match name {
        Some(name) => ServerName::try_from(name).map_err(|_| ServerCause::NoTls)?,
        None => ServerName::from(server.ip()),
    };
    Ok(crate::tunnel::Tls::Client {
        config: config.clone(),
        name,
    })
}

/// What the session is told of a failure.
const fn coarse(error: &ConnError) -> StreamFailure {
    use crate::conns::ConnFailure;
    match error {
        ConnError::Tcp(ConnFailure::Refused) => StreamFailure::Refused,
        ConnError::Tcp(ConnFailure::TimedOut) => StreamFailure::Timeout,
        ConnError::Tcp(
            ConnFailure::Reset
            | ConnFailure::Unreachable
            | ConnFailure::Unresolved
            | ConnFailure::Other,
        ) => StreamFailure::Other,
        ConnError::Tunnel(TunnelError::Refused(_) | TunnelError::Connect(_)) => {
            StreamFailure::Proxy
        }
        ConnError::Tunnel(_) => StreamFailure::Tls,
    }
}
