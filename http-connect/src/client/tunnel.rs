//! The tunnel itself: it exists only behind a 2xx.

/// What came through the tunnel first is not TLS: a captive portal has said "200 OK" to a question
/// it did not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy did not open a tunnel")]
pub struct NotATunnel;

/// An open tunnel. Only a 2xx makes one, so nothing can be sent into a tunnel, or be taken for its
/// bytes, before.
///
/// ```compile_fail
/// let tunnel = http_connect::Tunnel { expect_tls: false, seen: 0 };
/// ```
///
/// ```compile_fail
/// fn early(client: &mut http_connect::ConnectClient) {
///     client.write(b"ClientHello");
/// }
/// ```
///
/// There is one for each connection, and it cannot be shared:
///
/// ```compile_fail
/// fn share(tunnel: &http_connect::Tunnel) -> http_connect::Tunnel {
///     tunnel.clone()
/// }
/// ```
///
/// Bytes pass through it as they are:
///
/// ```
/// # use http_connect::{ConnectClient, ConnectConfig, Instant};
/// # use http_connect::auth::{ClientAuth, Policy};
/// # let auth = ClientAuth::new(None, Policy::default());
/// # let target = "h.example:443".parse().unwrap();
/// # let config = ConnectConfig { expect_tls: true, ..ConnectConfig::default() };
/// # let now = Instant::ZERO;
/// # let mut client = ConnectClient::new(target, config, auth, [7; 32], now).unwrap();
/// # client.handle_connected(now);
/// let rest = client.handle_input(now, b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01");
/// let mut tunnel = client.tunnel().unwrap();
/// assert_eq!(tunnel.read(rest), Ok(b"\x16\x03\x01".as_slice()));
/// assert_eq!(tunnel.write(b"ClientHello"), b"ClientHello");
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Tunnel {
    expect_tls: bool,
    /// How many of the first bytes have been judged, 2 at most.
    seen: u8,
}

impl Tunnel {
    pub(super) const fn new(expect_tls: bool) -> Self {
        Self {
            expect_tls,
            seen: 0,
        }
    }

    /// The bytes to be sent over the connection for these bytes of the tunnel: the same.
    pub const fn write<'b>(&self, data: &'b [u8]) -> &'b [u8] {
        data
    }

    /// The bytes of the tunnel for these bytes of the connection: the same.
    ///
    /// # Errors
    /// [`NotATunnel`] when TLS was expected and the first bytes are something else.
    pub fn read<'b>(&mut self, data: &'b [u8]) -> Result<&'b [u8], NotATunnel> {
        if self.expect_tls {
            for &byte in data {
                match (self.seen, byte) {
                    // A handshake record or an alert, then the major version.
                    (0, 0x15 | 0x16) | (1, 0x03) => self.seen = self.seen.saturating_add(1),
                    (0 | 1, _) => return Err(NotATunnel),
                    _ => break,
                }
            }
        }
        Ok(data)
    }
}
