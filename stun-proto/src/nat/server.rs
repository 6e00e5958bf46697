//! The server side: four transport addresses, two of each (RFC 5780 section 6).

use core::net::{IpAddr, SocketAddr};

use crate::limit::{RateLimit, RateLimiter};
use crate::wire::{
    Attribute as _, AttributeType, ChangeRequest, Class, ErrorCode, MappedAddress, Message, Method,
    OtherAddress, Padding, ResponseOrigin, ResponsePort, UnknownAttributes, WriteError, Writer,
    XorMappedAddress, append_fingerprint,
};
use crate::{FiveTuple, Instant, Rng, Transmit, Transport};

/// The two addresses and two ports of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatAddresses {
    ips: [IpAddr; 2],
    ports: [u16; 2],
}

impl NatAddresses {
    /// `None` unless there are two addresses of one family and two ports. A server with less is a
    /// [`BindingServer`](crate::binding::BindingServer), and not announced as
    /// `_stun-behavior`.
    pub fn new(ips: [IpAddr; 2], ports: [u16; 2]) -> Option<Self> {
        let ([a1, a2], [p1, p2]) = (ips, ports);
        (a1 != a2 && a1.is_ipv4() == a2.is_ipv4() && p1 != p2).then_some(Self { ips, ports })
    }

    /// All four, to open sockets on.
    pub fn all(&self) -> [SocketAddr; 4] {
        let ([a1, a2], [p1, p2]) = (self.ips, self.ports);
        [(a1, p1), (a1, p2), (a2, p1), (a2, p2)].map(SocketAddr::from)
    }

    /// The address of the four that differs in both from `local`; `None` when that is none of them.
    fn other(&self, local: SocketAddr) -> Option<SocketAddr> {
        let ([a1, a2], [p1, p2]) = (self.ips, self.ports);
        let ip = match local.ip() {
            ip if ip == a1 => a2,
            ip if ip == a2 => a1,
            _ => return None,
        };
        let port = match local.port() {
            port if port == p1 => p2,
            port if port == p2 => p1,
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatServerConfig {
    /// Its addresses.
    pub addresses: NatAddresses,
    /// Whether RESPONSE-PORT is served; otherwise it is unknown.
    pub response_port: bool,
    /// How many responses each network gets over UDP.
    pub limit: RateLimit,
}

/// A STUN server for NAT behaviour discovery. It keeps no state per client.
///
/// ```
/// use stun_proto::nat::{NatAddresses, NatServer, NatServerConfig};
/// use stun_proto::limit::RateLimit;
///
/// let ips = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap());
/// let config = NatServerConfig {
///     addresses: NatAddresses::new(ips, [3478, 3479]).unwrap(),
///     response_port: true,
///     limit: RateLimit::default(),
/// };
/// let server = NatServer::new(config, [7; 32]);
/// # let _ = server;
/// ```
#[derive(Debug)]
pub struct NatServer {
    config: NatServerConfig,
    limiter: RateLimiter,
}

impl NatServer {
    /// The fewest bytes a buffer for responses must hold; larger ones make room for PADDING.
    pub const MAX_TRANSMIT: usize = crate::binding::MAX_TRANSMIT;

    /// A server; all its memory is taken now. All its randomness comes from `seed`.
    pub fn new(config: NatServerConfig, seed: [u8; 32]) -> Self {
        Self {
            config,
            limiter: RateLimiter::new(config.limit, &mut Rng::from_seed(seed)),
        }
    }

    /// Answers what came over `at`, if it is to be answered. The response may have to leave by
    /// another of the four sockets, and go to another port: see `to`.
    ///
    /// # Panics
    /// When `buf` is shorter than [`MAX_TRANSMIT`](Self::MAX_TRANSMIT).
    pub fn respond(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &[u8],
        buf: &mut [u8],
    ) -> Option<Transmit<FiveTuple>> {
        assert!(buf.len() >= Self::MAX_TRANSMIT, "transmit buffer too small");
        let message = Message::parse(data).ok()?;
        let request = message.class() == Class::Request && message.method() == Method::BINDING;
        let other = self.config.addresses.other(at.local)?;
        if !request || message.check_fingerprint() == Some(false) {
            return None;
        }
        let transmit = self.answer(at, other, &message, buf).ok()?;
        let udp = at.transport == Transport::Udp;
        if udp && !self.limiter.allows(now, at.remote.ip(), transmit.len) {
            return None;
        }
        Some(transmit)
    }

    fn answer(
        &self,
        at: FiveTuple,
        other: SocketAddr,
        message: &Message<'_>,
        buf: &mut [u8],
    ) -> Result<Transmit<FiveTuple>, WriteError> {
        // A connection has one address at each end.
        let udp = at.transport == Transport::Udp;
        let port_known = udp && self.config.response_port;
        let known = |ty| is_known(ty, udp, port_known);
        let unknown = UnknownAttributes(message.unknown_required(known).collect());
        if !unknown.0.is_empty() {
            return refuse(
                at,
                message,
                ErrorCode::UNKNOWN_ATTRIBUTE,
                Some(&unknown),
                buf,
            );
        }
        let bad_request = |buf| refuse(at, message, ErrorCode::BAD_REQUEST, None, buf);
        let change = match message.get::<ChangeRequest>() {
            None => None,
            Some(Ok(change)) => Some(change),
            Some(Err(_)) => return bad_request(buf),
        };
        let port = match message.get::<ResponsePort>() {
            None => None,
            Some(Ok(ResponsePort(port))) => Some(port),
            Some(Err(_)) => return bad_request(buf),
        };
        let padding: Option<Padding> = message.find();
        if padding.is_some() && port.is_some() {
            return bad_request(buf);
        }
        let (change_ip, change_port) = change.map_or((false, false), |change| {
            (change.change_ip, change.change_port)
        });
        let ip = if change_ip { other.ip() } else { at.local.ip() };
        let from = if change_port {
            other.port()
        } else {
            at.local.port()
        };
        let mut to = at;
        to.local = SocketAddr::new(ip, from);
        to.remote.set_port(port.unwrap_or(at.remote.port()));
        // Never longer than what the client has sent: padding is no amplifier.
        let room = buf.len().saturating_sub(20 + 4 * 24 + 4 + 8);
        let padding = padding.map(|asked| Padding {
            len: asked.len.min(u16::try_from(room).unwrap_or(u16::MAX)) & !3,
        });
        let writer = Writer::new(
            buf,
            message.message_type().success(),
            message.transaction_id(),
        )
        .attribute(&MappedAddress(at.remote))
        .attribute(&XorMappedAddress(at.remote))
        .attribute(&ResponseOrigin(to.local))
        .attribute(&OtherAddress(other))
        .maybe(padding.as_ref());
        let len = writer.finish()?;
        let len = print(message, buf, len)?;
        Ok(Transmit { to, len })
    }
}

fn refuse(
    at: FiveTuple,
    message: &Message<'_>,
    code: u16,
    unknown: Option<&UnknownAttributes>,
    buf: &mut [u8],
) -> Result<Transmit<FiveTuple>, WriteError> {
    let len = Writer::new(
        buf,
        message.message_type().error(),
        message.transaction_id(),
    )
    .attribute(&ErrorCode::new(code).with_reason(""))
    .maybe(unknown)
    .finish()?;
    let len = print(message, buf, len)?;
    Ok(Transmit { to: at, len })
}

/// Answers a fingerprint with one.
fn print(message: &Message<'_>, buf: &mut [u8], len: usize) -> Result<usize, WriteError> {
    match message.check_fingerprint() {
        Some(_) => append_fingerprint(buf, len),
        None => Ok(len),
    }
}

fn is_known(ty: AttributeType, change: bool, port: bool) -> bool {
    match ty {
        ChangeRequest::TYPE => change,
        ResponsePort::TYPE => port,
        Padding::TYPE => true,
        _ => {
            ty == XorMappedAddress::TYPE
                || matches!(
                    ty.0,
                    0x0001 | 0x0006 | 0x0009 | 0x000A | 0x0014 | 0x0015 | 0x001D | 0x001E
                )
        }
    }
}
