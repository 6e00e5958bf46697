//! The codec: message heads, values, URIs, without any state (RFC 3261 sections 7, 19, 20 and 25).
//!
//! [`Message`] indexes the lines of a head and reads nothing else; [`Request`] and [`Response`] add
//! that the fields every element needs are there. Typed views ([`Via`], [`NameAddr`], [`SipUri`])
//! borrow from the message and are checked when they are made. [`Builder`] writes new messages,
//! [`Editor`] changed copies.

mod addr;
mod builder;
mod chars;
mod check;
mod error;
mod escape;
mod host;
mod limits;
mod message;
mod name;
mod params;
mod scan;
mod uri;
mod values;
mod via;

pub use addr::NameAddr;
pub use builder::{Builder, Editor};
pub(crate) use check::has_way_back;
pub use check::{Flaw, Request, Response, Unacceptable, is_answerable};
pub use error::{BuildError, ParseError, ParseErrorKind, ValueError};
pub use escape::{escape_user, unescape};
pub use limits::{Leniency, Limits, ParseConfig};
pub use message::{Defect, Header, Message, Start};
pub use name::{Key, Name};
pub use params::{ListIter, ParamIter, Params, quote, split_list, unquote};
pub use uri::{Aor, SipUri, Uri, UriBuf};
pub use values::{CSeq, Method, StatusCode, parse_retry_after};
pub use via::{Keep, MAGIC_COOKIE, Via};

pub(crate) use chars::{all, is_token};
pub(crate) use host::{host_ip, same_host};
pub(crate) use scan::HeadScan;
pub(crate) use uri::transport_of;

#[cfg(test)]
mod tests;
