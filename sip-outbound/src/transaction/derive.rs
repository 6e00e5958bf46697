//! Requests that are made out of another request (RFC 3261 sections 9.1 and 17.1.1.3).

use crate::wire::{
    BuildError, Builder, Limits, Message, Method, Name, Request, Response, split_list,
};

/// The ACK for a response other than 2xx: goes the way of the INVITE.
pub(super) fn ack(invite: &Request, response: &Response) -> Result<Message, BuildError> {
    derived(invite, Method::ACK, response.message())
}

/// The CANCEL for an INVITE.
fn cancel(invite: &Request) -> Result<Message, BuildError> {
    derived(invite, Method::CANCEL, invite.message())
}

/// `to` is where To is taken from.
fn derived(invite: &Request, method: Method, to: &Message) -> Result<Message, BuildError> {
    let via = invite.rows(Name::VIA).next().unwrap_or_default();
    let number = invite.cseq_number();
    Builder::request(&method, invite.uri_text())
        .header(Name::VIA, split_list(via).next().unwrap_or_default())
        .copy_all(invite, Name::ROUTE)
        .header(Name::MAX_FORWARDS, 70)
        .copy_all(invite, Name::FROM)
        .copy_all(to, Name::TO)
        .copy_all(invite, Name::CALL_ID)
        .header(Name::CSEQ, format_args!("{number} {method}"))
        .finish(b"")
}

/// A derived CANCEL, checked like any request.
pub(super) fn checked_cancel(invite: &Request) -> Option<Request> {
    // What it is made of has been checked.
    Request::check(cancel(invite).ok()?, &Limits::DEFAULT).ok()
}
