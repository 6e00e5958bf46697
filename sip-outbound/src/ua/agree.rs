//! The security agreement with the edge proxy (RFC 3329).

use alloc::string::{String, ToString as _};

use super::{FlowId, Refusal, SecAgree, UserAgent};
use crate::Instant;
use crate::sec_agree::{SEC_AGREE, SecAgreeError, SecMechanisms};
use crate::wire::{Builder, Name, Response, StatusCode, UriBuf};

/// What this side can do.
const KNOWN: [&str; 1] = ["tls"];

/// The fields of a REGISTER: the own list first, then that of the proxy.
pub(super) fn to_register(builder: Builder, mode: SecAgree, agreed: Option<&str>) -> Builder {
    match (mode, agreed) {
        (SecAgree::Off, _) => builder,
        (SecAgree::On, Some(list)) => show(builder, Some(list)),
        (SecAgree::On, None) => tagged(builder).header(Name::SECURITY_CLIENT, KNOWN.join(", ")),
    }
}

/// The fields of any other request over a flow with an agreement.
pub(super) fn show(builder: Builder, agreed: Option<&str>) -> Builder {
    match agreed {
        Some(list) => tagged(builder).header(Name::SECURITY_VERIFY, list),
        None => builder,
    }
}

fn tagged(builder: Builder) -> Builder {
    builder
        .header(Name::REQUIRE, SEC_AGREE)
        .header(Name::PROXY_REQUIRE, SEC_AGREE)
}

impl UserAgent {
    /// Takes in what an answer to REGISTER says about the agreement; `true` when that is all there
    /// is to it.
    pub(super) fn agree(
        &mut self,
        now: Instant,
        index: usize,
        flow: FlowId,
        response: &Response,
    ) -> bool {
        let demanded = response.code() == StatusCode::SECURITY_AGREEMENT_REQUIRED
            || response.code() == StatusCode::EXTENSION_REQUIRED
                && response.has_tag(Name::REQUIRE, SEC_AGREE);
        let challenged = response.code() == StatusCode::UNAUTHORIZED;
        let listed = response.has(Name::SECURITY_SERVER);
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let concerns = demanded || challenged && listed && slot.agreed.is_none();
        if self.config.sec_agree == SecAgree::Off || !concerns || slot.is_removing() {
            return false;
        }
        let shown = slot.agreed.is_some();
        let list = match read_list(response, shown) {
            Ok(list) => list,
            Err(error) => {
                self.refused(now, index, Refusal::SecAgree(error));
                return true;
            }
        };
        slot.agreed = Some(list);
        let open = self.open_ref(flow);
        if open.is_some_and(|open| open.at.transport.is_secure()) {
            // The challenge that came along is answered as usual.
            if demanded {
                self.register(now, index);
            }
            return demanded;
        }
        self.agree_on_tls(now, index, flow);
        true
    }

    /// Goes over to a flow with TLS, and shows the list there.
    fn agree_on_tls(&mut self, now: Instant, index: usize, flow: FlowId) {
        let proxy = self.flows.get(&flow).map(|flow| flow.target.uri.clone());
        let secure = proxy.as_ref().and_then(secured);
        let Some(uri) = secure else {
            let error = SecAgreeError::NothingCommon;
            self.refused(now, index, Refusal::SecAgree(error));
            return;
        };
        self.leave_flow(index, flow);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.agreed_ahead = true;
        }
        self.open_slot_to(index, uri);
    }
}

/// The list of a proxy that has TLS in it, word for word.
fn read_list(response: &Response, shown: bool) -> Result<String, SecAgreeError> {
    let list = SecMechanisms::of(response, Name::SECURITY_SERVER)?;
    list.choose(&KNOWN)?;
    if shown {
        // It was shown what it had said.
        return Err(SecAgreeError::Changed);
    }
    Ok(list.to_string())
}

/// A URI as if its scheme were `sips` (RFC 3329 section 2.4).
fn secured(uri: &UriBuf) -> Option<UriBuf> {
    let uri = uri.as_uri();
    let (_, rest) = uri.as_str().split_once(':')?;
    let end = rest.find([';', '?']).unwrap_or(rest.len());
    let mut text = alloc::format!("sips:{}", rest.get(..end)?);
    for (name, value) in uri.params() {
        // TLS runs over TCP.
        if name.eq_ignore_ascii_case("transport") {
            continue;
        }
        text.push(';');
        text.push_str(name);
        if let Some(value) = value {
            text.push('=');
            text.push_str(value);
        }
    }
    UriBuf::parse(text).ok()
}
