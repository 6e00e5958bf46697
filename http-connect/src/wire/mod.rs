//! The texts on the wire, without any state (RFC 9112): heads, first lines, bodies, and the fields
//! a tunnel is negotiated with.

mod alpn;
mod body;
mod head;
mod proxy_status;
mod retry_after;
mod start_line;
mod target;

pub use alpn::{AlpnError, alpn_value, parse_alpn};
pub use body::{BodyError, BodyReader, Framing};
pub use head::{Head, HeadError, HeadLimits, HeadReader, Leniency};
pub use proxy_status::{ProxyStatus, proxy_status};
pub use retry_after::RetryAfter;
pub use start_line::{RequestLine, StatusLine};
pub use target::{Host, Target, TargetError};

pub(crate) use body::content_length;
pub(crate) use head::{is_field_name, is_field_value};

#[cfg(test)]
mod tests;
