//! Requests and responses on their way through the home network.

use alloc::string::String;
use alloc::vec::Vec;

use sip_outbound::wire::{Message, Name, Request, Response, StatusCode, Uri, UriBuf};
use sip_outbound::{ClientId, FlowId, Instant, ServerId, Target};

use super::search::{Search, Step};
use super::{Home, path};

/// Why a request is not passed on.
struct Reject(StatusCode, Option<(Name, String)>);

impl From<StatusCode> for Reject {
    fn from(code: StatusCode) -> Self {
        Self(code, None)
    }
}

impl Home {
    pub(super) fn route_request(
        &mut self,
        now: Instant,
        link: FlowId,
        id: ServerId,
        request: &Request,
    ) {
        if let Err(Reject(code, field)) = self.check(request) {
            let field = field.as_ref().map(|(name, value)| (*name, value.as_str()));
            return self.reply(now, id, code, field.as_slice());
        }
        let Some((prepared, routed)) = self.prepare(request) else {
            return self.reply(now, id, StatusCode::BAD_REQUEST, &[]);
        };
        let limits = self.parse.limits;
        let uri = request.uri(&limits).ok().and_then(|uri| uri.sip());
        let targets = match uri {
            Some(uri) if !routed => self.registrar.targets(&uri).map(|found| (found, uri.aor())),
            Some(_) | None => None,
        };
        match targets {
            Some((targets, aor)) if targets.is_empty() => self.ask_user(id, aor),
            // It would only come back: no other network is reached through this one.
            None if !routed => self.reply(now, id, StatusCode::NOT_FOUND, &[]),
            Some((targets, _)) => {
                let mut search = Search::new(link, prepared, Some(targets));
                let first = search.first();
                self.searches.insert(id, search);
                if let Some(target) = first {
                    self.try_target(now, id, Some(&target));
                }
            }
            None => {
                self.searches.insert(id, Search::new(link, prepared, None));
                self.try_target(now, id, None);
            }
        }
    }

    /// RFC 3261 section 16.3.
    fn check(&self, request: &Request) -> Result<(), Reject> {
        let limits = self.parse.limits;
        match request.uri(&limits) {
            Ok(Uri::Sip(_)) => {}
            Ok(Uri::Other(_)) => return Err(StatusCode::UNSUPPORTED_URI_SCHEME.into()),
            Err(_) => return Err(StatusCode::BAD_REQUEST.into()),
        }
        match request.max_forwards() {
            Ok(Some(0)) => return Err(StatusCode::TOO_MANY_HOPS.into()),
            Ok(_) => {}
            Err(_) => return Err(StatusCode::BAD_REQUEST.into()),
        }
        let unknown: Vec<_> = request.list(Name::PROXY_REQUIRE).collect();
        if unknown.is_empty() {
            Ok(())
        } else {
            let field = (Name::UNSUPPORTED, unknown.join(", "));
            Err(Reject(StatusCode::BAD_EXTENSION, Some(field)))
        }
    }

    /// The request as it goes on, and whether a Route says where to.
    fn prepare(&self, request: &Request) -> Option<(Request, bool)> {
        let limits = self.parse.limits;
        let routes: Vec<UriBuf> = request
            .routes(Name::ROUTE, &limits)
            .map(|route| route.map(UriBuf::from))
            .collect::<Result<_, _>>()
            .ok()?;
        let own = routes
            .iter()
            .take_while(|route| self.serves(route.as_uri().host()));
        let own = own.count();
        let mut edit = request.edit();
        for _ in 0..own {
            edit = edit.pop_first(Name::ROUTE);
        }
        let left = request
            .max_forwards()
            .ok()?
            .map_or(70, |left| left.saturating_sub(1));
        edit = edit.set(Name::MAX_FORWARDS, &alloc::format!("{left}"));
        if request.method().forms_dialog()
            && let Some(domain) = self.domains.first()
        {
            let uri = request.uri(&limits).ok()?.sip()?;
            let scheme = if uri.is_secure() { "sips" } else { "sip" };
            // In front of the way to the callee, behind the way to the caller.
            edit = edit.push_front(
                Name::RECORD_ROUTE,
                &alloc::format!("<{scheme}:{domain};lr>"),
            );
        }
        let request = Request::check(edit.finish().ok()?, &limits).ok()?;
        Some((request, own < routes.len()))
    }

    /// Sends a request on its way to one place.
    fn try_target(&mut self, now: Instant, id: ServerId, target: Option<&Target>) {
        let sent = self.send(now, id, target);
        match sent {
            Some(client) => {
                if let Some(search) = self.searches.get_mut(&id) {
                    search.client = Some(client);
                }
                self.by_client.insert(client, id);
            }
            None => self.answered(now, id, StatusCode::SERVER_ERROR, None),
        }
    }

    fn send(&mut self, now: Instant, id: ServerId, target: Option<&Target>) -> Option<ClientId> {
        let branch = self.branch();
        let search = self.searches.get(&id)?;
        let link = search.link;
        let addressed = match target {
            Some(target) => target.address(&search.request).ok()?,
            None => search.request.message().clone(),
        };
        let message = self.with_via(&addressed, &branch)?;
        let request = Request::check(message, &self.parse.limits).ok()?;
        self.clients.send(now, path(link), request).ok()
    }

    fn branch(&mut self) -> String {
        alloc::format!("z9hG4bK{:032x}", u128::from_be_bytes(self.rng.bytes()))
    }

    /// `None` also when the edge proxy would not take the message: it would close the stream.
    fn with_via(&self, message: &Message, branch: &str) -> Option<Message> {
        let domain = self.domains.first()?;
        let via = alloc::format!("SIP/2.0/TCP {domain};branch={branch}");
        let message = message.edit().push_front(Name::VIA, &via).finish().ok()?;
        Message::parse(message.as_bytes(), &self.edge).ok()
    }

    /// The ACK for a 2xx: no transaction, and nobody to tell when it goes nowhere.
    pub(super) fn route_ack(&mut self, link: FlowId, request: &Request) {
        if self.check(request).is_err() {
            return;
        }
        let Some((prepared, true)) = self.prepare(request) else {
            return;
        };
        let branch = self.branch();
        if let Some(message) = self.with_via(prepared.message(), &branch) {
            self.out.push_back((link, message.as_bytes().clone()));
        }
    }

    pub(super) fn cancelled(&mut self, now: Instant, invite: ServerId) {
        self.withdraw(now, invite);
        let Some(search) = self.searches.get_mut(&invite) else {
            return self.reply(now, invite, StatusCode::REQUEST_TERMINATED, &[]);
        };
        search.cancelled = true;
        match search.client {
            Some(client) => self.clients.cancel(now, client),
            None => self.reply(now, invite, StatusCode::REQUEST_TERMINATED, &[]),
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn give_up_search(&mut self, now: Instant, id: ServerId) {
        if let Some(client) = self.searches.remove(&id).and_then(|search| search.client) {
            self.by_client.remove(&client);
            self.clients.cancel(now, client);
        }
    }

    pub(super) fn handle_response(&mut self, now: Instant, link: FlowId, response: &Response) {
        let Some(client) = self.clients.handle_response(now, path(link), response) else {
            return;
        };
        let code = response.code();
        if code == StatusCode::TRYING {
            return;
        }
        if code.is_provisional() || code.is_success() {
            if let Some(&id) = self.by_client.get(&client)
                && let Some(message) = returned(response, code)
            {
                self.respond(now, id, &message);
            }
            return;
        }
        self.branch_ended(now, client, code, Some(response.clone()));
    }

    pub(super) fn branch_ended(
        &mut self,
        now: Instant,
        client: ClientId,
        code: StatusCode,
        response: Option<Response>,
    ) {
        if let Some(id) = self.by_client.remove(&client) {
            self.answered(now, id, code, response);
        }
    }

    fn answered(
        &mut self,
        now: Instant,
        id: ServerId,
        code: StatusCode,
        response: Option<Response>,
    ) {
        let Some(search) = self.searches.get_mut(&id) else {
            return;
        };
        if let Some(binding) = search.failed_binding(code) {
            self.registrar.drop_binding(binding);
        }
        match search.answered(code, response) {
            Step::Try(target) => self.try_target(now, id, Some(&target)),
            Step::Respond(answer) => {
                // It is not this proxy that is overloaded (section 16.7 step 6).
                let code = match answer.code {
                    StatusCode::SERVICE_UNAVAILABLE => StatusCode::SERVER_ERROR,
                    code => code,
                };
                let message = answer
                    .response
                    .and_then(|response| returned(&response, code));
                match message {
                    Some(message) => self.respond(now, id, &message),
                    None => self.reply(now, id, code, &[]),
                }
            }
        }
    }
}

/// A response as the previous hop gets it.
fn returned(response: &Response, code: StatusCode) -> Option<Message> {
    let mut edit = response.edit().pop_first(Name::VIA);
    if code != response.code() {
        edit = edit.set_status(code);
    }
    edit.finish().ok()
}
