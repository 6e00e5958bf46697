//! The security agreement with clients (RFC 3329), as far as TLS goes: a flow is protected when it
//! is a TLS flow.

use alloc::string::{String, ToString as _};

use super::flow::EdgeFlow;
use super::plan::Reject;
use super::{EdgeProxy, EdgeSecAgree, Side};
use crate::sec_agree::{SEC_AGREE, SecMechanisms};
use crate::wire::{Editor, Method, Name, Request, StatusCode, split_list};

impl EdgeProxy {
    /// The list for the client's agreement, where there is one to be made.
    pub(super) fn agreement(&self, entry: &EdgeFlow) -> Option<&EdgeSecAgree> {
        let access = entry.side == Side::Access;
        self.config.sec_agree.as_ref().filter(|_| access)
    }

    /// Whether the list goes out with the challenge of the registrar, as in IMS, and not by 494.
    pub(super) fn lists_in_challenge(&self, entry: &EdgeFlow, request: &Request) -> bool {
        self.agreement(entry).is_some()
            && self.config.pcscf.is_some()
            && !is_protected(entry)
            && *request.method() == Method::REGISTER
            && is_tagged(request)
            && request.has(Name::SECURITY_CLIENT)
    }

    /// Refuses what comes without the agreement it should have.
    pub(super) fn check_agreement(
        &self,
        entry: &EdgeFlow,
        request: &Request,
    ) -> Result<(), Reject> {
        let Some(agree) = self.agreement(entry) else {
            return Ok(());
        };
        let refuse = |code| {
            let fields = alloc::vec![
                (Name::SECURITY_SERVER, agree.mechanisms.to_string()),
                (Name::REQUIRE, String::from(SEC_AGREE)),
            ];
            Err(Reject { code, fields })
        };
        match (is_tagged(request), is_protected(entry)) {
            (true, true) => match SecMechanisms::of(request, Name::SECURITY_VERIFY) {
                Ok(verify) if agree.mechanisms.is_mirrored_by(&verify) => Ok(()),
                // Somebody has changed the list on its way, here or there.
                Ok(_) | Err(_) => refuse(StatusCode::SECURITY_AGREEMENT_REQUIRED),
            },
            (true, false) if self.lists_in_challenge(entry, request) => Ok(()),
            (true, false) => refuse(StatusCode::SECURITY_AGREEMENT_REQUIRED),
            (false, false) if agree.required => {
                if request.via_count() != 1 {
                    // The client is not at the other end of this flow.
                    Err(StatusCode::BAD_GATEWAY.into())
                } else if request.has_tag(Name::SUPPORTED, SEC_AGREE) {
                    refuse(StatusCode::SECURITY_AGREEMENT_REQUIRED)
                } else {
                    refuse(StatusCode::EXTENSION_REQUIRED)
                }
            }
            // TLS from the start needs no agreement.
            (false, true | false) => Ok(()),
        }
    }

    /// The agreement ends here: nothing of it goes on.
    pub(super) fn strip_agreement<'m>(&self, entry: &EdgeFlow, edit: Editor<'m>) -> Editor<'m> {
        if self.agreement(entry).is_none() {
            return edit;
        }
        let without = |row: &str| {
            let parts: alloc::vec::Vec<&str> = split_list(row)
                .filter(|part| !part.is_empty() && !part.eq_ignore_ascii_case(SEC_AGREE))
                .collect();
            (!parts.is_empty()).then(|| parts.join(", "))
        };
        edit.map_rows(Name::REQUIRE, without)
            .map_rows(Name::PROXY_REQUIRE, without)
            .remove(Name::SECURITY_CLIENT)
            .remove(Name::SECURITY_SERVER)
            .remove(Name::SECURITY_VERIFY)
    }
}

fn is_protected(entry: &EdgeFlow) -> bool {
    entry.at.is_some_and(|at| at.transport.is_secure())
}

fn is_tagged(request: &Request) -> bool {
    request.has_tag(Name::REQUIRE, SEC_AGREE) || request.has_tag(Name::PROXY_REQUIRE, SEC_AGREE)
}
