//! REGISTER for contacts that are not this instance's own (RFC 3261 section 10.2.2, RFC 5626
//! section 4.2.3).

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::draft::{Draft, RequestError, token};
use super::registration::loose;
use super::slot::Slot;
use super::{Phase, RequestId, UserAgent};
use crate::Instant;
use crate::wire::{Method, Name, Response, UriBuf};

impl UserAgent {
    /// Registers, for `expires` seconds, a contact of the user that is not this device, or removes
    /// it with 0. It is nothing but an entry of the registrar: no flow leads to it, nothing
    /// refreshes it. The answer comes as that of any request.
    ///
    /// # Errors
    /// [`RequestError`]; nothing has changed then.
    pub fn register_other(
        &mut self,
        now: Instant,
        contact: &UriBuf,
        expires: u32,
    ) -> Result<RequestId, RequestError> {
        let contact = alloc::format!("<{contact}>;expires={expires}");
        self.register_contact(now, alloc::vec![(Name::CONTACT.as_str().into(), contact)])
    }

    /// Removes all bindings of the user, those of other devices included. The own ones are made
    /// again as soon as the registrar has agreed. The answer comes as that of any request.
    ///
    /// # Errors
    /// [`RequestError`]; nothing has changed then.
    pub fn remove_all_bindings(&mut self, now: Instant) -> Result<RequestId, RequestError> {
        let field = |name: Name, value: &str| (String::from(name.as_str()), String::from(value));
        let fields = [field(Name::CONTACT, "*"), field(Name::EXPIRES, "0")];
        self.register_contact(now, fields.into())
    }

    fn register_contact(
        &mut self,
        now: Instant,
        headers: Vec<(String, String)>,
    ) -> Result<RequestId, RequestError> {
        let now = self.clock.advance(now);
        if self.phase != Phase::Running {
            return Err(RequestError::NoFlow);
        }
        if self.requests.len() >= self.config.max_transactions {
            return Err(RequestError::Full);
        }
        let registered = self.slots.iter().find_map(Slot::registered_flow);
        let flow = registered.ok_or(RequestError::NoFlow)?;
        let proxy = self.flows.get(&flow).map(|flow| loose(&flow.target.uri));
        let aor = self.config.aor.as_str();
        let tag = token(&mut self.rng, 8);
        let draft = Draft {
            method: Method::REGISTER,
            anonymous: false,
            uri: self.config.registrar.as_str().into(),
            routes: proxy.into_iter().collect(),
            from: alloc::format!("<{aor}>;tag={tag}"),
            to: alloc::format!("<{aor}>"),
            call_id: token(&mut self.rng, 16),
            cseq: 1,
            headers,
            body: Bytes::new(),
        };
        self.start_request(now, flow, draft, None)
    }

    /// A REGISTER of the application was answered: with all bindings the own ones are gone.
    pub(super) fn others_answered(&mut self, now: Instant, id: RequestId, response: &Response) {
        let all = self.requests.get(&id).is_some_and(|pending| {
            let mut headers = pending.draft.headers.iter();
            pending.draft.method == Method::REGISTER && headers.any(|(_, value)| value == "*")
        });
        if !all || !response.code().is_success() {
            return;
        }
        for index in 0..self.slots.len() {
            if let Some(flow) = self.slots.get(index).and_then(Slot::registered_flow) {
                self.register_anew(now, index, flow);
            }
        }
    }
}
