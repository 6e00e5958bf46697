//! What a proxy answers (RFC 9110 section 15, RFC 9112 section 4).

use alloc::string::String;

use super::failure::reason;
use super::{ProxyError, Queue};

/// The answer to a request that is refused.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    pub(super) error: ProxyError,
    /// Values of `Proxy-Authenticate`.
    pub(super) challenges: &'a [String],
    /// Seconds for `Retry-After`.
    pub(super) retry_after: Option<u64>,
    /// The value of `Proxy-Status`.
    pub(super) proxy_status: Option<String>,
    /// The connection stays.
    pub(super) keep: bool,
}

impl Refusal<'_> {
    /// Nothing in it comes from the request, so nothing needs escaping.
    pub(super) fn write(&self, out: &mut Queue) {
        let status = self.error.status();
        let reason = reason(status);
        let mut head = alloc::format!("HTTP/1.1 {status} {reason}\r\n");
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        field("Connection", if self.keep { "keep-alive" } else { "close" });
        if status == 405 {
            field("Allow", "CONNECT");
        }
        for challenge in self.challenges {
            field("Proxy-Authenticate", challenge);
        }
        if let Some(seconds) = self.retry_after {
            field("Retry-After", &alloc::format!("{seconds}"));
        }
        if let Some(value) = &self.proxy_status {
            field("Proxy-Status", value);
        }
        field("Content-Type", "text/plain");
        let length = reason.len().saturating_add(1);
        field("Content-Length", &alloc::format!("{length}"));
        for part in ["\r\n", reason, "\n"] {
            head.push_str(part);
        }
        out.append(head.as_bytes());
    }
}

/// The answer that opens the tunnel: 39 bytes unless it has to carry `info`.
pub(super) fn write_established(info: Option<&str>, out: &mut Queue) {
    out.append(b"HTTP/1.1 200 Connection established\r\n");
    if let Some(info) = info {
        out.append(b"Proxy-Authentication-Info: ");
        out.append(info.as_bytes());
        out.append(b"\r\n");
    }
    out.append(b"\r\n");
}
