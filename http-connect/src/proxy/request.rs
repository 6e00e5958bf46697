//! Reading a request as strictly as a proxy must (RFC 9112 sections 3, 5 and 6).

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{ProxyConfig, ProxyError};
use crate::wire::{Head, HeadError, Host, RequestLine, Target, content_length};

/// Methods that exist and are not offered: 405 instead of 501.
const KNOWN_METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH",
];

/// Fields that concern one hop only (RFC 9110 section 7.6.1), and those the proxy writes itself.
const NOT_FORWARDED: [&str; 11] = [
    "Connection",
    "Proxy-Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Content-Length",
    "Upgrade",
    "Host",
    "Via",
    "Proxy-Authorization",
];

/// A CONNECT that follows the rules.
pub(super) struct Request {
    pub(super) target: Target,
    /// The request target exactly as it was sent, for Digest.
    pub(super) uri: String,
    pub(super) authorization: Option<Zeroizing<String>>,
    /// HTTP/1.0: no persistence.
    pub(super) old: bool,
    /// Members of Via, oldest first.
    via: Vec<String>,
    /// What a parent proxy is to see, Via left out.
    forward: Vec<(String, String)>,
}

impl Request {
    /// Checks a head.
    pub(super) fn read(head: &Head, config: &ProxyConfig) -> Result<Self, ProxyError> {
        let bad = |status| ProxyError::BadRequest(status);
        let (uri, old) = request_line(head.start_line(), config.limits.target)?;
        let target: Target = uri.parse().map_err(|_| bad(400))?;
        check_host(head, &target, old, config.ignore_host_mismatch).ok_or(bad(400))?;
        if head.first("Transfer-Encoding").is_some() {
            return Err(bad(400));
        }
        match content_length(head) {
            Ok(None) => {}
            Ok(Some(0)) if config.tolerate_empty_body => {}
            Ok(Some(_)) | Err(_) => return Err(bad(400)),
        }
        let mut authorization = head.all("Proxy-Authorization");
        let first = authorization.next();
        if authorization.next().is_some() {
            return Err(bad(400));
        }
        let connection: Vec<&str> = head
            .all("Connection")
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let stays = |name: &str| {
            !NOT_FORWARDED.iter().any(|n| n.eq_ignore_ascii_case(name))
                && !connection.iter().any(|n| n.eq_ignore_ascii_case(name))
        };
        let members = head.all("Via").flat_map(|value| value.split(','));
        Ok(Self {
            target,
            uri: String::from(uri),
            authorization: first.map(|value| Zeroizing::new(String::from(value))),
            old,
            via: members.map(|m| m.trim().to_string()).collect(),
            forward: head
                .fields()
                .filter(|(name, _)| stays(name))
                .map(|(name, value)| (String::from(name), String::from(value)))
                .collect(),
        })
    }

    /// Whether the proxy of this name has forwarded the request before.
    pub(super) fn has_passed(&self, pseudonym: &str) -> bool {
        self.via.iter().any(|member| {
            let mut words = member.split_ascii_whitespace().skip(1);
            words
                .next()
                .is_some_and(|by| by.eq_ignore_ascii_case(pseudonym))
        })
    }

    /// The fields a parent proxy is to see, with this proxy's Via added (RFC 9110 section 7.6.3).
    pub(super) fn forwarded_fields(&self, pseudonym: &str) -> Vec<(String, String)> {
        let mut fields = self.forward.clone();
        let mut via = self.via.join(", ");
        if !via.is_empty() {
            via.push_str(", ");
        }
        via.push_str(if self.old { "1.0 " } else { "1.1 " });
        via.push_str(pseudonym);
        fields.push((String::from("Via"), via));
        fields
    }
}

/// What a head that could not be read is answered with.
pub(super) const fn head_error(error: HeadError) -> ProxyError {
    ProxyError::BadRequest(match error {
        HeadError::StartLineTooLong => 414,
        HeadError::TooLarge => 431,
        HeadError::Control | HeadError::Field => 400,
    })
}

/// The target of a CONNECT, and whether it is one of HTTP/1.0.
fn request_line(line: &str, longest_target: usize) -> Result<(&str, bool), ProxyError> {
    let bad = |status| Err(ProxyError::BadRequest(status));
    let Some(RequestLine {
        method,
        target,
        version,
    }) = RequestLine::parse(line)
    else {
        return bad(400);
    };
    if version.0 != 1 {
        return bad(505);
    }
    if method != "CONNECT" {
        return bad(if KNOWN_METHODS.contains(&method) {
            405
        } else {
            501
        });
    }
    if target.len() > longest_target {
        return bad(414);
    }
    Ok((target, version.1 == 0))
}

/// Checks that there is one Host, and that it is well-formed and does not contradict the target.
fn check_host(head: &Head, target: &Target, old: bool, ignore_mismatch: bool) -> Option<()> {
    let mut hosts = head.all("Host");
    let Some(text) = hosts.next() else {
        return old.then_some(());
    };
    if hosts.next().is_some() {
        return None;
    }
    let (host, port) = parse_host(text)?;
    let same = host == *target.host() && port.is_none_or(|port| port == target.port());
    (same || ignore_mismatch).then_some(())
}

/// The value of Host: a target whose port may be missing or empty.
fn parse_host(text: &str) -> Option<(Host, Option<u16>)> {
    if let Ok(target) = text.parse::<Target>() {
        return Some((target.host().clone(), Some(target.port())));
    }
    let bare = text.strip_suffix(':').unwrap_or(text);
    let mut whole = String::from(bare);
    whole.push_str(":1");
    let target = whole.parse::<Target>().ok()?;
    Some((target.host().clone(), None))
}
