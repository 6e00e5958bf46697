//! Which SIP domains a certificate stands for (RFC 5922 section 7).

use alloc::string::String;
use alloc::vec::Vec;

use crate::wire::{Limits, SipUri, host_ip};

/// The names in a certificate whose chain the host has validated. Reading them out of it is the
/// host's, who has a parser for certificates; names of other kinds are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Whether there is a subjectAltName at all, with whatever in it.
    pub has_alt_names: bool,
    /// URIs of subjectAltName.
    pub uris: Vec<String>,
    /// DNS names of subjectAltName.
    pub dns: Vec<String>,
    /// IP addresses of subjectAltName.
    pub addresses: Vec<core::net::IpAddr>,
    /// The CN of the subject.
    pub common_name: Option<String>,
}

/// Whether DNS names with a wildcard count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcards {
    /// No, as RFC 5922 section 7.2 wants it.
    #[default]
    Refuse,
    /// `*.example.com` stands for any one label in front of `example.com`: certificates that were
    /// made for the web are often all that a P-CSCF has.
    OneLabel,
}

impl CertificateNames {
    /// The SIP domains the certificate stands for: hosts of `sip:` URIs without user; if there are
    /// none, DNS names; the CN only if there is no subjectAltName.
    pub fn domains(&self) -> Vec<&str> {
        let uris: Vec<&str> = self.uris.iter().filter_map(|uri| domain_of(uri)).collect();
        if !uris.is_empty() {
            return uris;
        }
        let alt = self.has_alt_names
            || !self.uris.is_empty()
            || !self.dns.is_empty()
            || !self.addresses.is_empty();
        match &self.common_name {
            Some(name) if !alt => alloc::vec![name.as_str()],
            Some(_) | None => self.dns.iter().map(String::as_str).collect(),
        }
    }
}

fn domain_of(uri: &str) -> Option<&str> {
    let uri = SipUri::parse(uri, &Limits::DEFAULT).ok()?;
    (!uri.is_secure() && uri.user().is_none()).then(|| uri.host())
}

/// Whether the peer has proven to be `host`, the domain that was asked for (see
/// [`FlowTarget::verify_name`](crate::FlowTarget::verify_name)), by its certificate. The whole name
/// counts, without regard to case. A host that is an address must stand in the certificate as one.
///
/// ```
/// use sip_outbound::locate::{CertificateNames, Wildcards, is_proven};
///
/// let names = CertificateNames {
///     has_alt_names: true,
///     dns: vec!["pcscf.example.com".into()],
///     ..CertificateNames::default()
/// };
/// assert!(is_proven("PCSCF.example.com", &names, Wildcards::Refuse));
/// assert!(!is_proven("example.com", &names, Wildcards::Refuse));
/// ```
pub fn is_proven(host: &str, names: &CertificateNames, wildcards: Wildcards) -> bool {
    if let Some(ip) = host_ip(host) {
        let by_uri = |uri: &String| domain_of(uri).and_then(host_ip) == Some(ip);
        return names.addresses.contains(&ip) || names.uris.iter().any(by_uri);
    }
    let host = trimmed(host);
    names.domains().into_iter().any(|name| {
        let name = trimmed(name);
        match (name.strip_prefix("*."), wildcards) {
            (Some(parent), Wildcards::OneLabel) => {
                let rest = host.split_once('.').map(|(_, rest)| rest);
                // Not for whole top level domains.
                parent.contains('.') && rest.is_some_and(|rest| rest.eq_ignore_ascii_case(parent))
            }
            (Some(_), Wildcards::Refuse) => false,
            (None, _) => !name.is_empty() && name.eq_ignore_ascii_case(host),
        }
    })
}

/// A name without the dot of the root.
fn trimmed(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}
