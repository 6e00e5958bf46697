//! What is known of a client once the registrar has accepted it, and the two expiries of a client
//! behind a NAT: what the registrar has granted, and the shorter one that the client is told so that
//! its refreshes hold the NAT open (3GPP TS 24.229 annex F.4.2).

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::{HashAlgorithm, HexDigest, hash_joined};

use super::heirs::Client;
use super::{EdgeEvent, EdgeProxy, Timer};
use crate::Instant;
use crate::time::elapsed;
use crate::transaction::ServerId;
use crate::ua::FlowId;
use crate::wire::{
    Aor, Builder, Editor, Limits, Message, Name, NameAddr, Request, Response, StatusCode, host_ip,
    split_list,
};

/// What is known of a client.
#[derive(Clone, Debug)]
pub(super) struct FlowRegistration {
    pub(super) aor: Aor,
    /// The device, if it says which one it is.
    pub(super) client: Option<Client>,
    /// Who the client may say it is, as URIs; the first one is meant when it does not say.
    pub(super) identities: Vec<String>,
    pub(super) service_route: Vec<String>,
    /// The client has a reason to send something at least this often, in seconds.
    pub(super) interval: Option<u32>,
    short: Option<ShortExpiry>,
}

/// A client that was told less than the registrar has granted.
#[derive(Clone, Debug)]
struct ShortExpiry {
    granted: Duration,
    since: Instant,
    shown: u32,
    cseq: u32,
    /// Of everything in the request that means something.
    print: HexDigest,
    answer: Message,
}

impl EdgeProxy {
    /// The registrar has accepted something that came over this flow. The answer as the client is
    /// to see it.
    pub(super) fn note_registration<'m>(
        &mut self,
        now: Instant,
        flow: FlowId,
        request: &Request,
        response: &'m Response,
        edit: Editor<'m>,
    ) -> Editor<'m> {
        let limits = self.config.parse.limits;
        if !request.has(Name::CONTACT) {
            return edit;
        }
        if is_removal(request, &limits) {
            self.unregister(now, flow);
            return edit;
        }
        let to = request.to(&limits).ok().and_then(|to| to.uri.sip());
        let granted = granted(request, response, &limits).filter(|granted| *granted > 0);
        let (Some(granted), Some(to)) = (granted, to) else {
            return edit;
        };
        let aor = to.aor();
        let short = self.short_expiry(now, flow, request, response, granted);
        let alive = self.keeps_alive(request, response);
        let interval = self.config.flow_timer.filter(|_| alive);
        let interval = short.as_ref().map(|short| short.shown).or(interval);
        let service_route = response
            .routes(Name::SERVICE_ROUTE, &limits)
            .filter_map(Result::ok)
            .map(|route| String::from(route.as_str()))
            .collect();
        let mut identities: Vec<String> = response
            .list(Name::P_ASSOCIATED_URI)
            .take(limits.routes)
            .filter_map(|value| NameAddr::parse(value, &limits).ok())
            .map(|value| String::from(value.uri.as_str()))
            .collect();
        if identities.is_empty() {
            identities.push(to.as_str().into());
        }
        let edit = match &short {
            Some(short) => show_less(edit, request, short.shown, &limits),
            None => edit,
        };
        let Some(entry) = self.flows.get_mut(&flow) else {
            return edit;
        };
        let client = client(&aor, request, &limits);
        let registration = FlowRegistration {
            aor: aor.clone(),
            client: client.clone(),
            identities,
            service_route,
            interval,
            short,
        };
        let before = entry.registration.replace(registration);
        if before.is_none() {
            entry.widen(&self.config);
        }
        if let Some(before) = before.and_then(|before| before.client) {
            self.heirs.unregister(&before, flow);
        }
        if let Some(client) = client {
            self.heirs.register(client, flow);
        }
        self.timers.disarm(Timer::Idle(flow));
        let granted = Duration::from_secs(u64::from(granted));
        self.timers.arm(Timer::Registration(flow), now, granted);
        self.touch(now, flow);
        self.events.push_back(EdgeEvent::Registered { flow, aor });
        edit
    }

    /// Whether the client sends keep-alives after this answer: with outbound always, otherwise when
    /// it has offered to and is asked.
    fn keeps_alive(&self, request: &Request, response: &Response) -> bool {
        let asked = self.config.flow_timer.is_some() && self.offers_keep(request);
        response.has_tag(Name::REQUIRE, "outbound") || asked
    }

    /// Whether the client has to be told less than was granted: it is behind a NAT, and sends no
    /// keep-alives.
    fn short_expiry(
        &self,
        now: Instant,
        flow: FlowId,
        request: &Request,
        response: &Response,
        granted: u32,
    ) -> Option<ShortExpiry> {
        let shown = self.config.pcscf?.nat_expires?;
        let via = request.via(&self.config.parse.limits).ok()?;
        let source = self.remote(flow)?.ip();
        let natted = host_ip(via.host()) != Some(source);
        let wanted = natted && granted > shown && !self.keeps_alive(request, response);
        wanted.then(|| ShortExpiry {
            granted: Duration::from_secs(u64::from(granted)),
            since: now,
            shown,
            cseq: request.cseq_number(),
            print: print(request, &self.config.parse.limits),
            answer: response.message().clone(),
        })
    }

    /// Answers a refresh that changes nothing here, while more than half of what was granted is
    /// left.
    pub(super) fn answer_refresh(
        &mut self,
        now: Instant,
        flow: FlowId,
        id: ServerId,
        request: &Request,
    ) -> bool {
        let limits = self.config.parse.limits;
        let tag = self.tag();
        let entry = self.flows.get_mut(&flow);
        let registration = entry.and_then(|entry| entry.registration.as_mut());
        let Some(short) = registration.and_then(|registration| registration.short.as_mut()) else {
            return false;
        };
        let passed = elapsed(short.since, now);
        let left = short.granted.saturating_sub(passed);
        let changes = is_removal(request, &limits)
            || request.cseq_number() <= short.cseq
            || print(request, &limits).as_str() != short.print.as_str();
        if changes || left.saturating_mul(2) <= short.granted {
            return false;
        }
        let mut builder = Builder::reply(request, StatusCode::OK, Some(&tag));
        for value in short.answer.list(Name::CONTACT) {
            let Ok(contact) = NameAddr::parse(value, &limits) else {
                continue;
            };
            let granted = contact.expires().or(short.answer.expires());
            let passed = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
            let left = granted.unwrap_or(0).saturating_sub(passed);
            let seconds = if is_among(&contact, request, &limits) {
                left.min(short.shown)
            } else {
                left
            };
            if seconds > 0 {
                builder = builder.header(Name::CONTACT, with_expires(value, &contact, seconds));
            }
        }
        for name in [
            Name::PATH,
            Name::SERVICE_ROUTE,
            Name::P_ASSOCIATED_URI,
            Name::REQUIRE,
            Name::SUPPORTED,
            Name::ALLOW,
        ] {
            builder = builder.copy_all(&short.answer, name);
        }
        let Ok(message) = builder.finish(b"") else {
            return false;
        };
        short.cseq = request.cseq_number();
        self.servers.respond(now, id, &message).is_ok()
    }
}

fn is_removal(request: &Request, limits: &Limits) -> bool {
    let default = request.expires();
    request.has_wildcard_contact()
        || request
            .contacts(limits)
            .all(|contact| contact.is_ok_and(|contact| contact.expires().or(default) == Some(0)))
}

/// The device that registers, if it says which one it is.
fn client(aor: &Aor, request: &Request, limits: &Limits) -> Option<Client> {
    let mut contacts = request.contacts(limits).filter_map(Result::ok);
    contacts.find_map(|contact| Some(Client::new(aor, &contact.instance()?)))
}

/// Whether the request names this Contact.
fn is_among(contact: &NameAddr<'_>, request: &Request, limits: &Limits) -> bool {
    let Some(uri) = contact.uri.sip() else {
        return false;
    };
    let mut own = request.contacts(limits).filter_map(Result::ok);
    own.any(|own| own.uri.sip().is_some_and(|own| own.is_equivalent(&uri)))
}

/// Seconds granted to the Contact of the request; if it is not to be found, to any.
fn granted(request: &Request, response: &Response, limits: &Limits) -> Option<u32> {
    let all = || response.contacts(limits).filter_map(Result::ok);
    let seconds = |contact: NameAddr<'_>| contact.expires().or(response.expires());
    let own = all().filter(|contact| is_among(contact, request, limits));
    own.filter_map(seconds)
        .max()
        .or_else(|| all().filter_map(seconds).max())
        .or(response.expires())
}

/// A Contact value with another expiry.
fn with_expires(value: &str, contact: &NameAddr<'_>, seconds: u32) -> String {
    let params = contact.params.as_str();
    let mut out = String::from(value.strip_suffix(params).unwrap_or(value).trim_end());
    for (name, value) in contact.params.iter() {
        if !name.eq_ignore_ascii_case("expires") {
            out.push(';');
            out.push_str(name);
            if let Some(value) = value {
                out.push('=');
                out.push_str(value);
            }
        }
    }
    out.push_str(&alloc::format!(";expires={seconds}"));
    out
}

/// Puts a shorter time into the client's own Contact.
fn show_less<'m>(edit: Editor<'m>, request: &Request, shown: u32, limits: &Limits) -> Editor<'m> {
    edit.map_rows(Name::CONTACT, |row| {
        let values: Vec<String> = split_list(row)
            .map(|value| match NameAddr::parse(value, limits) {
                Ok(contact) if is_among(&contact, request, limits) => {
                    with_expires(value, &contact, shown)
                }
                Ok(_) | Err(_) => String::from(value),
            })
            .collect();
        Some(values.join(", "))
    })
}

/// A hash over everything in a REGISTER but what differs from one refresh to the next.
fn print(request: &Request, limits: &Limits) -> HexDigest {
    let passing = [
        Name::VIA,
        Name::CSEQ,
        Name::MAX_FORWARDS,
        Name::EXPIRES,
        Name::AUTHORIZATION,
        Name::CONTACT,
    ];
    let contacts: Vec<String> = request
        .list(Name::CONTACT)
        .map(|value| match NameAddr::parse(value, limits) {
            Ok(contact) => with_expires(value, &contact, 0),
            Err(_) => String::from(value),
        })
        .collect();
    let mut parts: Vec<&[u8]> = alloc::vec![request.uri_text().as_bytes(), request.body()];
    for header in request.headers() {
        if header.known.is_none_or(|name| !passing.contains(&name)) {
            parts.push(header.name.as_bytes());
            parts.push(header.value);
        }
    }
    parts.extend(contacts.iter().map(String::as_bytes));
    hash_joined(HashAlgorithm::Sha256, &parts)
}
