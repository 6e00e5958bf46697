//! TLS as a layer over bytes, by rustls.

use core::fmt;
use core::mem;
use std::io::{Read as _, Write as _};

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

/// Which side of TLS the tunnel plays, and with what.
///
/// ```
/// use ims_traversal::tunnel::Tls;
/// # let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
/// # let config = rustls::ClientConfig::builder_with_provider(provider)
/// #     .with_safe_default_protocol_versions().unwrap()
/// #     .with_root_certificates(rustls::RootCertStore::empty())
/// #     .with_no_client_auth();
///
/// let tls = Tls::Client { config: config.into(), name: "turn.example".try_into().unwrap() };
/// assert!(format!("{tls:?}").contains("turn.example"));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Tls {
    /// The side that checks the other's certificate.
    Client {
        /// Roots, versions, suites and ALPN identifiers.
        config: Arc<ClientConfig>,
        /// The name the certificate must be for; sent as SNI unless it is an address.
        name: ServerName<'static>,
    },
    /// The side that shows a certificate.
    Server {
        /// The certificate, versions, suites and ALPN identifiers.
        config: Arc<ServerConfig>,
    },
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { name, .. } => f
                .debug_struct("Client")
                .field("name", name)
                .finish_non_exhaustive(),
            Self::Server { .. } => f.debug_struct("Server").finish_non_exhaustive(),
        }
    }
}

/// A TLS session whose records the tunnel carries.
#[derive(Debug)]
pub(super) struct TlsLayer {
    session: Connection,
}

impl TlsLayer {
    /// Starts a session that holds back at most `limit` bytes of clear text for sending.
    pub(super) fn new(tls: &Tls, limit: usize) -> Result<Self, rustls::Error> {
        let mut session = match tls {
            Tls::Client { config, name } => {
                Connection::from(ClientConnection::new(config.clone(), name.clone())?)
            }
            Tls::Server { config } => Connection::from(ServerConnection::new(config.clone())?),
        };
        session.set_buffer_limit(Some(limit));
        Ok(Self { session })
    }

    /// Takes in records; clear text goes to the end of `inbox`. `Ok(true)` when the other side has
    /// said that it will send no more.
    pub(super) fn input(
        &mut self,
        mut records: &[u8],
        inbox: &mut BytesMut,
    ) -> Result<bool, rustls::Error> {
        let mut closed = false;
        while !records.is_empty() && !closed {
            // Reading from a slice does not fail; it stops short when enough records wait.
            let _ = self.session.read_tls(&mut records);
            let state = self.session.process_new_packets()?;
            closed = state.peer_has_closed();
            let start = inbox.len();
            inbox.resize(start.saturating_add(state.plaintext_bytes_to_read()), 0);
            let slot = inbox.get_mut(start..).unwrap_or_default();
            // As many bytes as the session says it has; a shorter read would be its error.
            let _ = self.session.reader().read_exact(slot);
        }
        Ok(closed)
    }

    /// Takes clear text to send; how much of it.
    pub(super) fn write(&mut self, data: &[u8]) -> usize {
        self.session.writer().write(data).unwrap_or(0)
    }

    /// Fills `buf` with records as far as there are any.
    pub(super) fn output(&mut self, buf: &mut [u8]) -> usize {
        let total = buf.len();
        let mut rest = buf;
        while !rest.is_empty() && self.session.wants_write() {
            let mut sink = Sink(mem::take(&mut rest));
            let _ = self.session.write_tls(&mut sink);
            rest = sink.0;
        }
        total.saturating_sub(rest.len())
    }

    pub(super) fn wants_output(&self) -> bool {
        self.session.wants_write()
    }

    /// How many bytes of records wait to be sent.
    pub(super) fn waiting(&mut self) -> usize {
        // Nothing has come in since the last time: this only asks for the state.
        let state = self.session.process_new_packets();
        state.map_or(0, |state| state.tls_bytes_to_write())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        match &self.session {
            Connection::Server(session) => session.server_name(),
            Connection::Client(_) => None,
        }
    }

    pub(super) fn alpn(&self) -> Option<Vec<u8>> {
        self.session.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// Says that no more will be sent.
    pub(super) fn close(&mut self) {
        self.session.send_close_notify();
    }
}

/// A slice that shrinks as it is written to.
struct Sink<'b>(&'b mut [u8]);

impl std::io::Write for Sink<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let len = data.len().min(self.0.len());
        let (slot, rest) = mem::take(&mut self.0).split_at_mut(len);
        slot.copy_from_slice(data.get(..len).unwrap_or_default());
        self.0 = rest;
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
