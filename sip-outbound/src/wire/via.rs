//! Via: the way a response goes back (RFC 3261 section 20.42, RFC 3581, RFC 6223).

use core::net::IpAddr;

use alloc::string::String;

use super::chars::{all, is_blank, is_token, trim};
use super::host::{host_ip, parse_hostport};
use super::params::{Params, split_run};
use super::{Limits, ValueError};

/// What every branch of RFC 3261 begins with.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// One Via value.
///
/// ```
/// use sip_outbound::wire::{Limits, Via};
///
/// let via = Via::parse("SIP/2.0/TLS 10.7.0.9:40112;branch=z9hG4bKr1;rport;keep", &Limits::DEFAULT).unwrap();
/// assert_eq!((via.transport, via.host(), via.port), ("TLS", "10.7.0.9", Some(40112)));
/// assert_eq!(via.branch(), Some("z9hG4bKr1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// The transport, as written.
    pub transport: &'a str,
    /// Host and port of the sender, as written.
    pub sent_by: &'a str,
    host_len: usize,
    /// The port of the sender, if it is given.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params<'a>,
    text: &'a str,
}

impl<'a> Via<'a> {
    /// Reads one value.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, ValueError> {
        let text = trim(text);
        let (head, params) = match text.find(';') {
            Some(at) => text.split_at_checked(at).unwrap_or((text, "")),
            None => (text, ""),
        };
        let (transport, sent_by) = split_protocol(head).ok_or(ValueError::Malformed)?;
        let (host_len, port, len) =
            parse_hostport(sent_by, is_blank).ok_or(ValueError::Malformed)?;
        if len != sent_by.len() {
            return Err(ValueError::Malformed);
        }
        Ok(Self {
            transport,
            sent_by,
            host_len,
            port,
            params: Params::parse(params, limits.params)?,
            text,
        })
    }

    /// The value as it was written.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The host of the sender; IPv6 addresses with their brackets.
    pub fn host(&self) -> &'a str {
        self.sent_by.get(..self.host_len).unwrap_or_default()
    }

    /// The branch.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.value("branch")
    }

    /// The branch, if it begins with the magic cookie and does not end there.
    pub fn cookie_branch(&self) -> Option<&'a str> {
        self.branch().filter(|branch| {
            branch.len() > MAGIC_COOKIE.len()
                && branch
                    .get(..MAGIC_COOKIE.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(MAGIC_COOKIE))
        })
    }

    /// Where the request came from, as the next hop saw it; with or without brackets.
    pub fn received(&self) -> Option<IpAddr> {
        host_ip(self.params.value("received")?)
    }

    /// The source port as the next hop saw it; `None` also when it was only asked for.
    pub fn rport(&self) -> Option<u16> {
        let port = self.params.number("rport")?;
        u16::try_from(port).ok()
    }

    /// Whether the next hop is asked to fill `rport` in.
    pub fn asks_rport(&self) -> bool {
        self.params.has("rport") && self.params.value("rport").is_none()
    }

    /// RFC 6223: what the value says about keep-alives.
    pub fn keep(&self) -> Keep {
        match (self.params.has("keep"), self.params.number("keep")) {
            (false, _) => Keep::Absent,
            (true, None) => Keep::Offered,
            (true, Some(seconds)) => Keep::Granted(seconds),
        }
    }

    /// The value with parameters set: `None` as value of a parameter gives its bare name.
    /// Parameters that are there already keep their place, others are appended.
    pub fn with_params(&self, set: &[(&str, Option<&str>)]) -> String {
        let head = self.text.len().saturating_sub(self.params.as_str().len());
        let mut out = String::from(trim(self.text.get(..head).unwrap_or_default()));
        let mut push = |name: &str, value: Option<&str>| {
            out.push(';');
            out.push_str(name);
            if let Some(value) = value {
                out.push('=');
                out.push_str(value);
            }
        };
        for (name, value) in self.params.iter() {
            match set.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
                Some((_, value)) => push(name, *value),
                None => push(name, value),
            }
        }
        for (name, value) in set.iter().filter(|(name, _)| !self.params.has(name)) {
            push(name, *value);
        }
        out
    }
}

/// The `keep` parameter (RFC 6223 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Not there.
    Absent,
    /// Without a value: the sender of the Via is willing to send keep-alives.
    Offered,
    /// With a value: the receiver wants them, at this interval in seconds; 0 leaves the interval
    /// to the sender.
    Granted(u32),
}

/// `SIP / 2.0 / transport` with blanks anywhere, then blanks: transport and the rest. Other
/// versions pass, so that 505 can go back to them.
fn split_protocol(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    if !trim(name).eq_ignore_ascii_case("SIP") || !all(trim(version), is_token) {
        return None;
    }
    let (transport, rest) = split_run(trim(rest), is_token);
    let blank = rest.bytes().next().is_some_and(is_blank);
    (blank && all(transport, is_token)).then_some((transport, trim(rest)))
}
