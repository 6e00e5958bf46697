//! Deciding what becomes of a request, before anything is sent (RFC 3261 sections 16.3 to 16.6, RFC
//! 5626 section 5.3).

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::{HashAlgorithm, hash_joined};

use super::flow::EdgeFlow;
use super::token::FlowToken;
use super::{EdgeProxy, ServiceRouteCheck, Side};
use crate::sec_agree::SEC_AGREE;
use crate::ua::FlowId;
use crate::wire::{
    Editor, Keep, Limits, Message, Method, Name, Request, StatusCode, Uri, UriBuf, Via,
};

/// Makes the hash of the loop check one that nobody else can compute.
pub(super) struct LoopKey(pub(super) [u8; 16]);

impl core::fmt::Debug for LoopKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LoopKey(..)")
    }
}

/// A request as it goes on, but for its Via.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) message: Message,
    pub(super) hop: Hop,
    /// Second part of the branch.
    pub(super) loop_hash: String,
}

/// Where it goes.
#[derive(Clone, Debug)]
pub(super) enum Hop {
    Flow(FlowId),
    Target(UriBuf),
}

/// Why it goes nowhere, and what is answered here.
#[derive(Clone, Debug)]
pub(super) struct Reject {
    pub(super) code: StatusCode,
    /// Header fields of the answer.
    pub(super) fields: Vec<(Name, String)>,
}

impl From<StatusCode> for Reject {
    fn from(code: StatusCode) -> Self {
        let fields = Vec::new();
        Self { code, fields }
    }
}

enum Direction {
    Outgoing,
    /// `ob` stood in the Route value.
    Incoming {
        flow: FlowId,
        ob: bool,
    },
}

impl EdgeProxy {
    pub(super) fn plan(&self, source: FlowId, request: &Request) -> Result<Plan, Reject> {
        let limits = self.config.parse.limits;
        let entry = self.flows.get(&source).ok_or(StatusCode::FLOW_FAILED)?;
        self.check_gate(entry, request)?;
        self.check_agreement(entry, request)?;
        self.check_request(entry, request, &limits)?;
        let loop_hash = self.loop_hash(request);
        self.check_loop(request, &loop_hash, &limits)?;

        let mut edit = request.edit();
        let mut routes: Vec<UriBuf> = request
            .routes(Name::ROUTE, &limits)
            .map(|route| route.map(UriBuf::from))
            .collect::<Result<_, _>>()
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        let mut uri = String::from(request.uri_text());
        // A strict router in front of us has put the next URI last (section 16.4).
        if let Ok(Uri::Sip(own)) = Uri::parse(&uri, &limits)
            && own.is_loose()
            && (self.is_own(&own) || self.is_here(entry, &own))
            && let Some(last) = routes.pop()
        {
            uri = String::from(last.as_str());
            edit = edit.pop_last(Name::ROUTE).set_uri(&uri);
        }
        let own = routes
            .first()
            .filter(|route| {
                let uri = route.as_uri();
                self.is_own(&uri) || self.is_here(entry, &uri)
            })
            .cloned();
        let direction = self.direction(source, entry, request, own.as_ref())?;
        if let Some(own) = &own {
            routes.remove(0);
            edit = edit.pop_first(Name::ROUTE);
            // The name for the other side follows (RFC 5658 section 4).
            let twice = |next: &UriBuf| {
                let user = next.as_uri().user();
                let same = user.is_some() && user == own.as_uri().user();
                let back = || {
                    let way = self.direction(source, entry, request, Some(next));
                    self.is_own(&next.as_uri()) && matches!(way, Ok(Direction::Outgoing))
                };
                same || back()
            };
            if routes.first().is_some_and(twice) {
                routes.remove(0);
                edit = edit.pop_first(Name::ROUTE);
            }
        }
        edit = decrement(edit, request)?;
        edit = self.strip_agreement(entry, edit);
        edit = self.record_route(edit, source, request, own.as_ref(), &direction, &limits);
        let to = match direction {
            Direction::Incoming { .. } => Side::Access,
            Direction::Outgoing => Side::Core,
        };
        edit = self.guard_trust(entry.side, to, edit);
        if let Direction::Incoming { flow, .. } = direction {
            return finish(edit, Hop::Flow(flow), loop_hash);
        }
        if entry.side == Side::Access {
            edit = self.check_service_route(entry, request, edit, &mut routes)?;
            edit = self.assert_identity(entry, request, edit);
        }
        if routes.is_empty() && self.asks_about_us(entry, request, &uri, &limits) {
            return Err(Reject {
                code: StatusCode::OK,
                fields: alloc::vec![(Name::ACCEPT, String::from("application/sdp"))],
            });
        }
        if *request.method() == Method::REGISTER {
            edit = self.add_path(edit, source, entry, request, &limits)?;
        }
        let (edit, hop) = self.next_hop(edit, entry, &uri, routes)?;
        finish(edit, hop, loop_hash)
    }

    /// Whether this is an OPTIONS to this proxy itself (RFC 3261 section 11).
    fn asks_about_us(
        &self,
        entry: &EdgeFlow,
        request: &Request,
        uri: &str,
        limits: &Limits,
    ) -> bool {
        *request.method() == Method::OPTIONS
            && Uri::parse(uri, limits).is_ok_and(|uri| {
                uri.sip().is_some_and(|uri| {
                    uri.user().is_none() && (self.is_own(&uri) || self.is_here(entry, &uri))
                })
            })
    }

    fn check_gate(&self, entry: &EdgeFlow, request: &Request) -> Result<(), Reject> {
        let gated = self.config.pcscf.is_some_and(|pcscf| pcscf.gate);
        let stranger = entry.side == Side::Access && entry.registration.is_none();
        if gated && stranger && *request.method() != Method::REGISTER {
            return Err(StatusCode::FORBIDDEN.into());
        }
        Ok(())
    }

    fn check_request(
        &self,
        entry: &EdgeFlow,
        request: &Request,
        limits: &Limits,
    ) -> Result<(), Reject> {
        match request.uri(limits) {
            Err(_) => return Err(StatusCode::BAD_REQUEST.into()),
            Ok(Uri::Sip(_)) => {}
            // Numbers are looked up in the core.
            Ok(Uri::Other(text)) => {
                let number = text
                    .get(..4)
                    .is_some_and(|s| s.eq_ignore_ascii_case("tel:"));
                if !number || self.config.next_hop.is_none() {
                    return Err(StatusCode::UNSUPPORTED_URI_SCHEME.into());
                }
            }
        }
        if request.max_forwards() == Ok(Some(0)) {
            return Err(StatusCode::TOO_MANY_HOPS.into());
        }
        let agree = self.agreement(entry).map(|_| SEC_AGREE);
        let known = |tag: &str| {
            let all = self.config.proxy_extensions.iter().map(String::as_str);
            all.chain(agree)
                .any(|known| known.eq_ignore_ascii_case(tag))
        };
        let unknown: Vec<_> = request
            .list(Name::PROXY_REQUIRE)
            .filter(|tag| !known(tag))
            .collect();
        if !unknown.is_empty() && *request.method() != Method::ACK {
            return Err(Reject {
                code: StatusCode::BAD_EXTENSION,
                fields: alloc::vec![(Name::UNSUPPORTED, unknown.join(", "))],
            });
        }
        Ok(())
    }

    /// What must be different in a request that comes by for a good reason (RFC 5393 section 4.2).
    fn loop_hash(&self, request: &Request) -> String {
        let number = alloc::format!("{}", request.cseq_number());
        let mut parts: Vec<&[u8]> = alloc::vec![
            &self.loop_key.0,
            request.uri_text().as_bytes(),
            request.from_tag().unwrap_or_default().as_bytes(),
            request.to_tag().unwrap_or_default().as_bytes(),
            request.call_id().as_bytes(),
            number.as_bytes(),
        ];
        for name in [Name::ROUTE, Name::PROXY_REQUIRE, Name::PROXY_AUTHORIZATION] {
            parts.extend(request.rows(name).map(str::as_bytes));
        }
        let hash = hash_joined(HashAlgorithm::Sha256, &parts);
        hash.as_str().chars().take(16).collect()
    }

    fn check_loop(&self, request: &Request, hash: &str, limits: &Limits) -> Result<(), Reject> {
        let ours = |value: &str| {
            let Ok(via) = Via::parse(value, limits) else {
                return false;
            };
            let branch = via.branch().unwrap_or_default();
            // Nobody else can compute it.
            branch.rsplit('-').next() == Some(hash)
        };
        if request.list(Name::VIA).any(ours) {
            return Err(StatusCode::LOOP_DETECTED.into());
        }
        Ok(())
    }

    /// Finds the flow a token names, if it is still there.
    fn flow_of_token(&self, token: &FlowToken) -> Option<FlowId> {
        // Flows and serials are counted together.
        let behind = self.next_serial.wrapping_sub(token.serial);
        let id = FlowId(self.next_flow.checked_sub(behind)?);
        let entry = self.flows.get(&id)?;
        (entry.serial == token.serial && entry.at == Some(token.at)).then_some(id)
    }

    fn direction(
        &self,
        source: FlowId,
        entry: &EdgeFlow,
        request: &Request,
        own: Option<&UriBuf>,
    ) -> Result<Direction, Reject> {
        let Some(route) = own else {
            return Ok(Direction::Outgoing);
        };
        let Some(text) = route.as_uri().user() else {
            return Ok(Direction::Outgoing);
        };
        let token = self.tokens.open(text).map_err(|_| StatusCode::FORBIDDEN)?;
        let flow = self.flow_of_token(&token);
        // A new request is the registrar's to send by another flow (RFC 5626 section 5.3.1); a
        // dialog follows its client.
        let heir = || {
            let dialog = request.to_tag().is_some();
            dialog.then(|| self.heirs.heir(&token)).flatten()
        };
        let flow = flow.or_else(heir).ok_or(StatusCode::FLOW_FAILED)?;
        let client = entry
            .registration
            .as_ref()
            .and_then(|own| own.client.as_ref());
        if flow == source || client.is_some_and(|client| self.heirs.has(client, flow)) {
            return Ok(Direction::Outgoing);
        }
        // No client aims at another one.
        if entry.side == Side::Access {
            return Err(StatusCode::FORBIDDEN.into());
        }
        let ob = route.as_uri().is_outbound();
        Ok(Direction::Incoming { flow, ob })
    }

    fn record_route<'m>(
        &self,
        edit: Editor<'m>,
        source: FlowId,
        request: &Request,
        own: Option<&UriBuf>,
        direction: &Direction,
        limits: &Limits,
    ) -> Editor<'m> {
        if !request.method().forms_dialog() {
            return edit;
        }
        let top = request.routes(Name::ROUTE, limits).next();
        let secure = request
            .uri(limits)
            .is_ok_and(|uri| uri.sip().is_some_and(|uri| uri.is_secure()))
            || top.is_some_and(|top| top.is_ok_and(|top| top.is_secure()));
        let stays = match direction {
            Direction::Incoming { flow, ob } => {
                let wanted = *ob || self.config.record_route_always;
                wanted.then_some((*flow, Side::Access))
            }
            Direction::Outgoing => {
                let by_contact = request.contacts(limits).next().is_some_and(|contact| {
                    let uri = contact.ok().and_then(|contact| contact.uri.sip());
                    uri.is_some_and(|uri| uri.is_outbound())
                });
                let by_route = own.is_some_and(|route| route.as_uri().is_outbound());
                let access = self
                    .flows
                    .get(&source)
                    .is_some_and(|flow| flow.side == Side::Access);
                let wanted = by_contact || by_route || self.config.record_route_always;
                (access && wanted).then_some((source, Side::Core))
            }
        };
        match stays {
            Some((flow, to)) => self.record_both(edit, flow, secure, to),
            None => edit,
        }
    }

    fn add_path<'m>(
        &self,
        edit: Editor<'m>,
        source: FlowId,
        entry: &EdgeFlow,
        request: &Request,
        limits: &Limits,
    ) -> Result<Editor<'m>, Reject> {
        if entry.side != Side::Access {
            return Ok(edit);
        }
        let edit = self.protect(entry, request, edit);
        // Exactly one Via: nobody stands between us and the client.
        let first_hop = request.via_count() == 1;
        let by_flow = first_hop
            && request
                .contacts(limits)
                .any(|contact| contact.is_ok_and(|contact| contact.reg_id().is_some()));
        if !by_flow && !self.config.path_always {
            return Ok(edit);
        }
        if !request.has_tag(Name::SUPPORTED, "path") {
            if self.config.require_path {
                return Err(Reject {
                    code: StatusCode::EXTENSION_REQUIRED,
                    fields: alloc::vec![(Name::REQUIRE, String::from("path"))],
                });
            }
            return Ok(edit);
        }
        let secure = request
            .uri(limits)
            .is_ok_and(|uri| uri.sip().is_some_and(|uri| uri.is_secure()));
        let path = self
            .core_uri(source, secure, by_flow)
            .ok_or(StatusCode::FLOW_FAILED)?;
        let edit = edit.push_front(Name::PATH, &path);
        Ok(
            if self.config.require_path && !request.has_tag(Name::REQUIRE, "path") {
                edit.push_back(Name::REQUIRE, "path")
            } else {
                edit
            },
        )
    }

    /// Whether the way a client has preloaded is the one its registrar gave it.
    fn check_service_route<'m>(
        &self,
        entry: &EdgeFlow,
        request: &Request,
        mut edit: Editor<'m>,
        routes: &mut Vec<UriBuf>,
    ) -> Result<Editor<'m>, Reject> {
        let check = self.config.pcscf.map(|pcscf| pcscf.service_route);
        let initial = request.to_tag().is_none() && *request.method() != Method::REGISTER;
        let (Some(check), Some(registration), true) = (check, &entry.registration, initial) else {
            return Ok(edit);
        };
        let wanted: Vec<UriBuf> = registration
            .service_route
            .iter()
            .filter_map(|route| UriBuf::parse(route.as_str()).ok())
            .collect();
        if *routes == wanted {
            return Ok(edit);
        }
        match check {
            ServiceRouteCheck::Off => {}
            ServiceRouteCheck::Refuse => return Err(StatusCode::BAD_REQUEST.into()),
            ServiceRouteCheck::Replace => {
                edit = edit.remove(Name::ROUTE);
                for route in &wanted {
                    edit = edit.push_back(Name::ROUTE, &alloc::format!("<{route}>"));
                }
                *routes = wanted;
            }
        }
        Ok(edit)
    }

    /// The next hop by Route, configuration or request URI (RFC 3261 section 16.6 steps 6 and 7).
    fn next_hop<'m>(
        &self,
        mut edit: Editor<'m>,
        entry: &EdgeFlow,
        uri: &str,
        routes: Vec<UriBuf>,
    ) -> Result<(Editor<'m>, Hop), Reject> {
        if let Some(first) = routes.into_iter().next() {
            if !first.as_uri().is_loose() {
                edit = edit
                    .push_back(Name::ROUTE, &alloc::format!("<{uri}>"))
                    .pop_first(Name::ROUTE)
                    .set_uri(first.as_str());
            }
            return Ok((edit, Hop::Target(first)));
        }
        if entry.side == Side::Access
            && let Some(next) = &self.config.next_hop
        {
            return Ok((edit, Hop::Target(next.clone())));
        }
        let target = UriBuf::parse(uri).map_err(|_| StatusCode::UNSUPPORTED_URI_SCHEME)?;
        // Nobody is registered here: a request that stops at us has lost its way.
        if self.is_own(&target.as_uri()) {
            return Err(StatusCode::NOT_FOUND.into());
        }
        Ok((edit, Hop::Target(target)))
    }

    /// Whether the client asks for keep-alives to be negotiated in its Via.
    pub(super) fn offers_keep(&self, request: &Request) -> bool {
        let via = request.via(&self.config.parse.limits);
        via.is_ok_and(|via| via.keep() == Keep::Offered)
    }
}

fn decrement<'m>(edit: Editor<'m>, request: &Request) -> Result<Editor<'m>, Reject> {
    let left = match request.max_forwards() {
        Ok(None) => 70,
        Ok(Some(left)) => left.saturating_sub(1),
        Err(_) => return Err(StatusCode::BAD_REQUEST.into()),
    };
    Ok(edit.set(Name::MAX_FORWARDS, &alloc::format!("{left}")))
}

fn finish(edit: Editor<'_>, hop: Hop, loop_hash: String) -> Result<Plan, Reject> {
    let message = edit.finish().map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Plan {
        message,
        hop,
        loop_hash,
    })
}
