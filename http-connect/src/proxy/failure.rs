//! What can go wrong at a proxy, and how it says so: status code and Proxy-Status error type
//! (RFC 9209 section 2.3).

use core::fmt;

/// An error type of RFC 9209, with the status code it is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The name does not exist, or cannot be resolved: 502.
    Dns {
        /// The response code of the DNS, such as `NXDOMAIN`.
        rcode: Option<&'static str>,
    },
    /// The name was not resolved in time: 504.
    DnsTimeout,
    /// The target refused the connection: 502.
    ConnectionRefused,
    /// The target did not answer in time: 504.
    ConnectionTimeout,
    /// There is no route to the target: 502.
    Unroutable,
    /// All addresses of the target are forbidden: 403.
    AddressProhibited,
    /// There are too many connections to the target: 503.
    ConnectionLimit,
    /// The target is known to be down: 503.
    Unavailable,
    /// The parent proxy closed the connection instead of answering: 502.
    ConnectionTerminated,
    /// The parent proxy did not answer in time: 504.
    ReadTimeout,
    /// The parent proxy refused, or did not answer in HTTP: 502.
    HttpProtocol {
        /// The status code it gave, if any.
        received: Option<u16>,
    },
    /// The answer of the parent proxy was too large: 502.
    ResponseTooLarge,
    /// The parent proxy ended the TLS handshake: 502.
    TlsAlert {
        /// The description of the alert.
        id: u8,
    },
    /// The certificate of the parent proxy is not acceptable: 502.
    TlsCertificate,
    /// The request has been here before: 502.
    Loop,
    /// Something is wrong in the proxy itself: 500.
    Internal,
    /// The proxy is overloaded: 503.
    Overload,
    /// The policy forbids it: 403.
    Denied,
    /// The request is not understood; the status code says why: 4xx or 5xx.
    BadRequest(u16),
    /// The client has to authenticate: 407.
    Unauthenticated,
}

impl ProxyError {
    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Dns { .. }
            | Self::ConnectionRefused
            | Self::Unroutable
            | Self::ConnectionTerminated
            | Self::HttpProtocol { .. }
            | Self::ResponseTooLarge
            | Self::TlsAlert { .. }
            | Self::TlsCertificate
            | Self::Loop => 502,
            Self::DnsTimeout | Self::ConnectionTimeout | Self::ReadTimeout => 504,
            Self::ConnectionLimit | Self::Unavailable | Self::Overload => 503,
            Self::AddressProhibited | Self::Denied => 403,
            Self::Internal => 500,
            Self::BadRequest(status @ 400..=599) => status,
            Self::BadRequest(_) => 400,
            Self::Unauthenticated => 407,
        }
    }

    /// The value of the `error` parameter, `None` where the proxy only does its duty.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Dns { .. } => "dns_error",
            Self::DnsTimeout => "dns_timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::Unroutable => "destination_ip_unroutable",
            Self::AddressProhibited => "destination_ip_prohibited",
            Self::ConnectionLimit => "connection_limit_reached",
            Self::Unavailable => "destination_unavailable",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ReadTimeout => "connection_read_timeout",
            Self::HttpProtocol { .. } => "http_protocol_error",
            Self::ResponseTooLarge => "http_response_header_section_size",
            Self::TlsAlert { .. } => "tls_alert_received",
            Self::TlsCertificate => "tls_certificate_error",
            Self::Loop => "proxy_loop_detected",
            Self::Internal => "proxy_internal_error",
            Self::Overload => "proxy_internal_response",
            Self::Denied => "http_request_denied",
            Self::BadRequest(_) => "http_request_error",
            Self::Unauthenticated => return None,
        })
    }
}

/// The parameters of a member of Proxy-Status, without the proxy's name.
impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(f, "error={name}")?;
        }
        match self {
            Self::Dns { rcode: Some(rcode) } => write!(f, "; rcode=\"{rcode}\""),
            Self::TlsAlert { id } => write!(f, "; alert-id={id}"),
            Self::HttpProtocol {
                received: Some(status),
            } => write!(f, "; received-status={status}"),
            Self::Dns { rcode: None }
            | Self::HttpProtocol { received: None }
            | Self::DnsTimeout
            | Self::ConnectionRefused
            | Self::ConnectionTimeout
            | Self::Unroutable
            | Self::AddressProhibited
            | Self::ConnectionLimit
            | Self::Unavailable
            | Self::ConnectionTerminated
            | Self::ReadTimeout
            | Self::ResponseTooLarge
            | Self::TlsCertificate
            | Self::Loop
            | Self::Internal
            | Self::Overload
            | Self::Denied
            | Self::BadRequest(_)
            | Self::Unauthenticated => Ok(()),
        }
    }
}

/// The reason phrase of a status code, which is the body of the answer as well.
pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}
