//! Dialogs: what the requests within a call have in common (RFC 3261 section 12).

use alloc::string::String;
use alloc::vec::Vec;

use super::FlowId;
use crate::wire::{Limits, Method, Name, NameAddr, Request, Response, SipUri, UriBuf, ValueError};

/// Why a request does not belong into a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialogError {
    /// It is another dialog's: 481.
    #[error("request of another dialog")]
    Foreign,
    /// CSeq is not higher than before: 500.
    #[error("CSeq out of order")]
    OutOfOrder,
}

/// One side of a dialog. The application keeps it and shows it for each request within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// The flow it runs over; a later one, once that was gone when a request was to be sent.
    pub flow: FlowId,
    pub(super) call_id: String,
    /// From and To of requests this side sends, tags included.
    pub(super) local: String,
    pub(super) remote: String,
    local_tag: String,
    remote_tag: String,
    pub(super) local_cseq: u32,
    remote_cseq: Option<u32>,
    target: UriBuf,
    routes: Vec<UriBuf>,
}

impl Dialog {
    /// The caller's side, from the request and a 101 to 299 response with tag and Contact.
    ///
    /// # Errors
    /// [`ValueError`] when something that makes a dialog is missing or malformed.
    pub fn caller(
        flow: FlowId,
        request: &Request,
        response: &Response,
    ) -> Result<Self, ValueError> {
        let limits = Limits::DEFAULT;
        let mut routes = routes(response.message(), &limits)?;
        routes.reverse();
        Ok(Self {
            flow,
            call_id: request.call_id().into(),
            local: request.only(Name::FROM)?.into(),
            remote: response.only(Name::TO)?.into(),
            local_tag: request.from_tag().ok_or(ValueError::Missing)?.into(),
            remote_tag: response.to_tag().ok_or(ValueError::Missing)?.into(),
            local_cseq: request.cseq_number(),
            remote_cseq: None,
            target: target(response.message(), &limits)?,
            routes,
        })
    }

    /// The callee's side, from the request and the tag that its responses carry.
    ///
    /// # Errors
    /// As [`caller`](Self::caller).
    pub fn callee(flow: FlowId, request: &Request, tag: &str) -> Result<Self, ValueError> {
        let limits = Limits::DEFAULT;
        let to = request.only(Name::TO)?;
        let local = match request.to_tag() {
            Some(_) => to.into(),
            None => alloc::format!("{to};tag={tag}"),
        };
        Ok(Self {
            flow,
            call_id: request.call_id().into(),
            local,
            remote: request.only(Name::FROM)?.into(),
            local_tag: request.to_tag().unwrap_or(tag).into(),
            remote_tag: request.from_tag().ok_or(ValueError::Missing)?.into(),
            local_cseq: 0,
            remote_cseq: Some(request.cseq_number()),
            target: target(request.message(), &limits)?,
            routes: routes(request.message(), &limits)?,
        })
    }

    /// Whether a request carries the names of this dialog.
    pub fn matches(&self, request: &Request) -> bool {
        request.call_id() == self.call_id
            && request.to_tag() == Some(&self.local_tag)
            && request.from_tag() == Some(&self.remote_tag)
    }

    /// Takes in a request of the other side: checks that it is next, and where INVITE or UPDATE
    /// name a new Contact, goes over to it.
    ///
    /// # Errors
    /// [`DialogError`]; nothing has changed then.
    pub fn handle_request(&mut self, request: &Request) -> Result<(), DialogError> {
        if !self.matches(request) {
            return Err(DialogError::Foreign);
        }
        let number = request.cseq_number();
        let acks = *request.method() == Method::ACK || *request.method() == Method::CANCEL;
        if !acks && self.remote_cseq.is_some_and(|last| number <= last) {
            return Err(DialogError::OutOfOrder);
        }
        if !acks {
            self.remote_cseq = Some(number);
        }
        self.refresh(request.method(), request.message());
        Ok(())
    }

    /// Takes in a final response to a request of this side: the number of its CSeq, which is not
    /// that of the first attempt when a challenge was answered, and with a 2xx the new Contact.
    pub fn handle_response(&mut self, response: &Response) {
        self.local_cseq = self.local_cseq.max(response.cseq_number());
        if response.code().is_success() {
            self.refresh(response.method(), response.message());
        }
    }

    fn refresh(&mut self, method: &Method, message: &crate::wire::Message) {
        if [Method::INVITE, Method::UPDATE].contains(method)
            && let Ok(target) = target(message, &Limits::DEFAULT)
        {
            self.target = target;
        }
    }

    /// Goes over to another flow. The edge proxy's Route holds a token for the old one, which would
    /// lead back into it: without it, the edge proxy routes on as for any request of this side (RFC
    /// 5626 section 5.3).
    pub(super) fn move_to(&mut self, flow: FlowId) {
        if core::mem::replace(&mut self.flow, flow) == flow {
            return;
        }
        // It has one name for each of its sides, with the same token.
        let token = self.routes.first().and_then(|edge| edge.as_uri().user());
        let Some(token) = token.map(String::from) else {
            return;
        };
        for edge in &mut self.routes {
            let uri = edge.as_uri();
            if uri.user() != Some(token.as_str()) {
                break;
            }
            let scheme = if uri.is_secure() { "sips" } else { "sip" };
            let host = uri.as_str().split_once('@').map(|(_, host)| host);
            let plain = host.map(|host| UriBuf::parse(alloc::format!("{scheme}:{host}")));
            if let Some(Ok(plain)) = plain {
                *edge = plain;
            }
        }
    }

    /// Request URI and Route values of a request to the other side (RFC 3261 section 12.2.1.1).
    pub fn route(&self) -> (String, Vec<String>) {
        let bracket = |uri: &UriBuf| alloc::format!("<{uri}>");
        match self.routes.split_first() {
            // A strict router wants itself in the request URI.
            Some((first, rest)) if !first.as_uri().is_loose() => {
                let mut routes: Vec<_> = rest.iter().map(bracket).collect();
                routes.push(bracket(&self.target));
                (without_headers(first.as_uri()), routes)
            }
            Some(_) | None => (
                without_headers(self.target.as_uri()),
                self.routes.iter().map(bracket).collect(),
            ),
        }
    }

    /// The tag of this side.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The tag of the other side.
    pub fn remote_tag(&self) -> &str {
        &self.remote_tag
    }

    /// Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Where requests to the other side go in the end.
    pub fn remote_target(&self) -> SipUri<'_> {
        self.target.as_uri()
    }
}

/// Header fields in a URI never get into a request URI.
fn without_headers(uri: SipUri<'_>) -> String {
    let text = uri.as_str();
    String::from(text.split_once('?').map_or(text, |(uri, _)| uri))
}

fn routes(message: &crate::wire::Message, limits: &Limits) -> Result<Vec<UriBuf>, ValueError> {
    message
        .routes(Name::RECORD_ROUTE, limits)
        .map(|route| route.map(UriBuf::from))
        .collect()
}

fn target(message: &crate::wire::Message, limits: &Limits) -> Result<UriBuf, ValueError> {
    let contact: NameAddr<'_> = message
        .contacts(limits)
        .next()
        .ok_or(ValueError::Missing)??;
    let uri = contact.uri.sip().ok_or(ValueError::Malformed)?;
    Ok(UriBuf::from(uri))
}
