//! What a P-CSCF adds to requests of its clients (3GPP TS 24.229 section 5.2).

use alloc::string::String;
use alloc::vec::Vec;

use super::flow::EdgeFlow;
use super::{EdgeProxy, Side};
use crate::wire::{Editor, Limits, Name, NameAddr, Params, Request, Uri, split_list};

/// What stays within the network (RFC 7315 section 6, RFC 5502 section 7, TS 24.229 section 4.4):
/// no client gets it or says it.
const WITHIN_THE_NETWORK: [&str; 5] = [
    "P-Charging-Vector",
    "P-Charging-Function-Addresses",
    "P-Served-User",
    "P-Visited-Network-ID",
    "Remote-Party-ID",
];

/// What clients may learn from the network, but may not say themselves (RFC 3325 section 5, RFC
/// 7315 section 4.2).
const SAID_BY_THE_NETWORK: [&str; 2] = ["P-Asserted-Identity", "P-Called-Party-ID"];

impl EdgeProxy {
    /// Keeps what only the network may say to the network, in requests and responses.
    pub(super) fn guard_trust<'m>(&self, from: Side, to: Side, mut edit: Editor<'m>) -> Editor<'m> {
        if self.config.pcscf.is_none() || (from, to) == (Side::Core, Side::Core) {
            return edit;
        }
        for name in WITHIN_THE_NETWORK {
            edit = edit.remove(name);
        }
        if from == Side::Access {
            for name in SAID_BY_THE_NETWORK {
                edit = edit.remove(name);
            }
        }
        let limits = &self.config.parse.limits;
        edit.map_rows(Name::P_ACCESS_NETWORK_INFO, |row| {
            let said: Vec<&str> = split_list(row)
                .filter(|info| !is_of_network(info, limits))
                .collect();
            (!said.is_empty()).then(|| said.join(", "))
        })
    }

    /// Says by `integrity-protected` how a REGISTER came, in place of what the client says.
    pub(super) fn protect<'m>(
        &self,
        entry: &EdgeFlow,
        request: &Request,
        edit: Editor<'m>,
    ) -> Editor<'m> {
        if !self
            .config
            .pcscf
            .is_some_and(|pcscf| pcscf.integrity_protected)
        {
            return edit;
        }
        let secure = entry.at.is_some_and(|at| at.transport.is_secure());
        let same_user = entry.registration.as_ref().is_some_and(|registration| {
            let to = request.to(&self.config.parse.limits);
            let aor = to.ok().and_then(|to| to.uri.sip()).map(|uri| uri.aor());
            aor.as_ref() == Some(&registration.aor)
        });
        edit.map_rows(Name::AUTHORIZATION, |row| {
            let (scheme, rest) = row.split_once(' ')?;
            let is = |part: &str, name: &str| {
                part.split_once('=')
                    .is_some_and(|(n, _)| n.trim().eq_ignore_ascii_case(name))
            };
            let parts: Vec<&str> = split_list(rest)
                .filter(|part| !part.is_empty() && !is(part, "integrity-protected"))
                .collect();
            let answers = parts.iter().any(|part| {
                let value = part.split_once('=').map(|(_, value)| value.trim());
                is(part, "response")
                    && value.is_some_and(|value| !value.trim_matches('"').is_empty())
            });
            let protected = match (secure, same_user, answers) {
                (true, true, _) => Some("tls-yes"),
                (true, false, true) => Some("tls-pending"),
                (false, true, _) => Some("ip-assoc-yes"),
                (false, false, true) => Some("ip-assoc-pending"),
                (_, false, false) => None,
            };
            let mut value = alloc::format!("{scheme} {}", parts.join(","));
            if let Some(protected) = protected {
                value.push_str(&alloc::format!(",integrity-protected=\"{protected}\""));
            }
            Some(String::from(value.trim_end()))
        })
    }

    /// Says who the client is, in place of what it says.
    pub(super) fn assert_identity<'m>(
        &self,
        entry: &EdgeFlow,
        request: &Request,
        edit: Editor<'m>,
    ) -> Editor<'m> {
        let asserts = self.config.pcscf.is_some_and(|pcscf| pcscf.assert_identity);
        let register = *request.method() == crate::wire::Method::REGISTER;
        let Some(registration) = entry.registration.as_ref().filter(|_| asserts && !register)
        else {
            return edit;
        };
        let limits = &self.config.parse.limits;
        let preferred = request.list(Name::P_PREFERRED_IDENTITY).find_map(|value| {
            let preferred = NameAddr::parse(value, limits).ok()?.uri;
            let mut known = registration.identities.iter();
            known.find(|known| is_same_identity(known, &preferred, limits))
        });
        let Some(identity) = preferred.or(registration.identities.first()) else {
            return edit;
        };
        edit.remove(Name::P_PREFERRED_IDENTITY)
            .set(Name::P_ASSERTED_IDENTITY, &alloc::format!("<{identity}>"))
    }
}

/// Whether an access network has said this of itself (RFC 7315 section 5.4), or may have: what
/// cannot be read is not believed.
fn is_of_network(info: &str, limits: &Limits) -> bool {
    let params = info.find(';').and_then(|at| info.get(at..)).unwrap_or("");
    Params::parse(params, limits.params).map_or(true, |params| params.has("network-provided"))
}

fn is_same_identity(known: &str, preferred: &Uri<'_>, limits: &Limits) -> bool {
    match (Uri::parse(known, limits), preferred) {
        (Ok(Uri::Sip(known)), Uri::Sip(preferred)) => known.is_equivalent(preferred),
        (Ok(Uri::Other(known)), Uri::Other(preferred)) => known == *preferred,
        (Ok(Uri::Sip(_) | Uri::Other(_)) | Err(_), _) => false,
    }
}
