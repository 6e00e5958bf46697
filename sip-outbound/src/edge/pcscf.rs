//! What a P-CSCF adds to requests of its clients (3GPP TS 24.229 section 5.2).

use alloc::string::String;
use alloc::vec::Vec;

use super::EdgeProxy;
use super::flow::EdgeFlow;
use crate::wire::{Editor, Limits, Name, NameAddr, Request, Uri, split_list};

impl EdgeProxy {
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

fn is_same_identity(known: &str, preferred: &Uri<'_>, limits: &Limits) -> bool {
    match (Uri::parse(known, limits), preferred) {
        (Ok(Uri::Sip(known)), Uri::Sip(preferred)) => known.is_equivalent(preferred),
        (Ok(Uri::Other(known)), Uri::Other(preferred)) => known == *preferred,
        (Ok(Uri::Sip(_) | Uri::Other(_)) | Err(_), _) => false,
    }
}
