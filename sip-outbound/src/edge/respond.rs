//! Responses on their way back (RFC 3261 section 16.7).

use alloc::string::ToString as _;

use super::EdgeProxy;
use crate::Instant;
use crate::transaction::{ClientId, ServerId};
use crate::ua::FlowId;
use crate::wire::{Editor, Message, Method, Name, Response, StatusCode, Via};

/// A request that was passed on: both its transactions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) source: FlowId,
    pub(super) client: Option<ClientId>,
    /// A client registers.
    pub(super) register: bool,
    /// The client offers keep-alives in its Via, for its registration or a dialog.
    pub(super) keep: bool,
    /// The client wants to agree on a security mechanism: our list goes with the challenge.
    pub(super) agree: bool,
}

impl EdgeProxy {
    pub(super) fn handle_response(&mut self, now: Instant, flow: FlowId, response: &Response) {
        let Some(path) = self.path(flow) else {
            return;
        };
        // One that belongs to no request of ours is dropped (RFC 6026 section 7.2).
        let Some(client) = self.clients.handle_response(now, path, response) else {
            self.drop_one();
            return;
        };
        let Some(&server) = self.by_client.get(&client) else {
            return;
        };
        let code = response.code();
        let success = code.is_success();
        let goes_on = code.is_provisional() || success && *response.method() == Method::INVITE;
        if !goes_on {
            self.by_client.remove(&client);
        }
        if code == StatusCode::TRYING {
            return;
        }
        let Some(context) = self.contexts.get(&server).copied() else {
            return;
        };
        let Some(message) = self.returned(now, flow, &context, server, response) else {
            return;
        };
        // Fails when the other side has answered twice.
        let _ = self.servers.respond(now, server, &message);
    }

    /// The response as the previous hop gets it.
    fn returned(
        &mut self,
        now: Instant,
        flow: FlowId,
        context: &Context,
        server: ServerId,
        response: &Response,
    ) -> Option<Message> {
        let mut edit = response.edit().pop_first(Name::VIA);
        let side = |flow| self.flows.get(&flow).map(|flow| flow.side);
        if let (Some(from), Some(to)) = (side(flow), side(context.source)) {
            edit = self.guard_trust(from, to, edit);
        }
        if response.code() == StatusCode::SERVICE_UNAVAILABLE {
            // It is not this proxy that is overloaded (section 16.7 step 6).
            edit = edit.set_status(StatusCode::SERVER_ERROR);
        }
        if context.agree
            && response.code() == StatusCode::UNAUTHORIZED
            && let Some(agree) = &self.config.sec_agree
        {
            edit = edit.set(Name::SECURITY_SERVER, &agree.mechanisms.to_string());
        }
        if context.register && response.code().is_success() {
            let request = self.servers.request(server).cloned()?;
            edit = self.note_registration(now, context.source, &request, response, edit);
            edit = self.ask_keep_alive(context, response, edit);
        } else if context.keep && self.stays_in_dialog(response) {
            edit = self.grant_keep(response, edit);
        }
        edit.finish().ok()
    }

    /// Whether the response makes or refreshes a dialog with this proxy on its way: only then
    /// keep-alives can be asked for it (RFC 6223 section 4.4).
    fn stays_in_dialog(&self, response: &Response) -> bool {
        let code = response.code().number();
        let limits = &self.config.parse.limits;
        let mut ways = response.routes(Name::RECORD_ROUTE, limits);
        (101..300).contains(&code)
            && response.method().forms_dialog()
            && response.to_tag().is_some()
            && ways.any(|way| way.is_ok_and(|way| self.is_own(&way)))
    }

    /// Tells the client how often to send keep-alives.
    fn ask_keep_alive<'m>(
        &self,
        context: &Context,
        response: &'m Response,
        mut edit: Editor<'m>,
    ) -> Editor<'m> {
        let Some(seconds) = self.config.flow_timer else {
            return edit;
        };
        let seconds = alloc::format!("{seconds}");
        if response.has_tag(Name::REQUIRE, "outbound") {
            edit = edit.set(Name::FLOW_TIMER, &seconds);
        }
        if context.keep {
            edit = self.grant_keep(response, edit);
        }
        edit
    }

    /// Puts the interval into the `keep` that the client has offered.
    fn grant_keep<'m>(&self, response: &'m Response, edit: Editor<'m>) -> Editor<'m> {
        let via = response.list(Name::VIA).nth(1);
        let via = via.map(|via| Via::parse(via, &self.config.parse.limits));
        let (Some(seconds), Some(Ok(via))) = (self.config.flow_timer, via) else {
            return edit;
        };
        let seconds = alloc::format!("{seconds}");
        edit.replace_first(Name::VIA, &via.with_params(&[("keep", Some(&seconds))]))
    }

    /// A request could not be delivered: its flow is gone.
    pub(super) fn branch_failed(&mut self, now: Instant, client: ClientId, to_client: bool) {
        let Some(server) = self.by_client.remove(&client) else {
            return;
        };
        // The registrar then tries another flow (RFC 5626 section 5.3.1); anything else counts as
        // 503, which is not passed on.
        let code = if to_client {
            StatusCode::FLOW_FAILED
        } else {
            StatusCode::SERVER_ERROR
        };
        self.reply(now, server, &code.into());
    }

    /// A request was never answered. Only an INVITE is told so: for others it is too late (RFC
    /// 4320 section 4.2).
    pub(super) fn branch_timed_out(&mut self, now: Instant, client: ClientId) {
        let Some(server) = self.by_client.remove(&client) else {
            return;
        };
        let invite = self
            .servers
            .request(server)
            .is_some_and(|request| *request.method() == Method::INVITE);
        if invite {
            self.reply(now, server, &StatusCode::REQUEST_TIMEOUT.into());
        }
    }
}
