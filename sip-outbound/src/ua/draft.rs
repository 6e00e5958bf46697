//! What requests of the application are made of.

use core::net::SocketAddr;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stun_proto::{Rng, Transport};

use super::agree;
use super::flow::Purpose;
use super::registration::loose;
use super::request::Pending;
use super::{FlowId, UserAgent};
use crate::wire::{BuildError, Builder, Key, Method, Name, Request, UriBuf};

/// Where a request goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Through the edge proxy of any registration, the one with the lowest reg-id first.
    Registered,
    /// Over this flow.
    Flow(FlowId),
    /// To a next hop the application has resolved: over a flow that leads there already, to the
    /// same transport, address and port, and with TLS to the same proven name; else over a new
    /// flow.
    Resolved {
        /// The next hop.
        uri: UriBuf,
        /// Transport and address.
        address: (Transport, SocketAddr),
    },
}

/// A request outside of dialogs.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The method; not REGISTER, ACK or CANCEL.
    pub method: Method,
    /// Whom it is for: the request URI, and To.
    pub uri: String,
    /// The first hop.
    pub next_hop: NextHop,
    /// Further addresses of a [`NextHop::Resolved`], in the order a
    /// [`Locator`](crate::locate::Locator) gives them: tried when the one before cannot be
    /// connected to, answers with 503, or does not answer. The flows stay open as any other of a
    /// [`NextHop::Resolved`].
    pub alternatives: Vec<(Transport, SocketAddr)>,
    /// Further header fields.
    pub headers: Vec<(String, String)>,
    /// The body; Content-Type is a header field.
    pub body: Bytes,
    /// Leaves the instance and the user's name out (RFC 3323): From is anonymous.
    pub anonymous: bool,
}

impl NewRequest {
    /// A request without body through any registration.
    pub fn new(method: Method, uri: impl Into<String>) -> Self {
        Self {
            method,
            uri: uri.into(),
            next_hop: NextHop::Registered,
            alternatives: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            anonymous: false,
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..self.header("Content-Type", content_type)
        }
    }
}

/// Why a request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No registration is in force, the flow is gone, or the machine has stopped.
    #[error("no flow for the request")]
    NoFlow,
    /// There are as many open requests, or flows, as allowed.
    #[error("too many open requests or flows")]
    Full,
    /// REGISTER, ACK and CANCEL are made by the machine.
    #[error("this method is not for the application")]
    Method,
    /// The request cannot be written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The request is too large for a datagram, and the flow is not a stream.
    #[error("too large for a datagram")]
    TooLarge,
    /// There is no such request or dialog.
    #[error("no such request")]
    Unknown,
}

/// What a Contact is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContactKind {
    /// A binding at the registrar.
    Binding,
    /// The requests of a dialog, which come over the flow (`ob`, RFC 5626 section 4.3).
    Dialog {
        /// The other side is called by a `sips` URI (RFC 3261 section 8.1.1.8).
        secure: bool,
        /// The user's name stays out.
        anonymous: bool,
    },
}

/// What a request is made of again when it has to be repeated.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) method: Method,
    /// The user's name stays out.
    pub(super) anonymous: bool,
    pub(super) uri: String,
    pub(super) routes: Vec<String>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// Random hexadecimal digits, two for each byte; at most 32 bytes.
pub(super) fn token(rng: &mut Rng, bytes: usize) -> String {
    let random: [u8; 32] = rng.bytes();
    random
        .iter()
        .take(bytes)
        .map(|byte| alloc::format!("{byte:02x}"))
        .collect()
}

impl UserAgent {
    /// A fresh top Via for this flow.
    pub(super) fn new_via(&mut self, flow: FlowId, keep: bool) -> Option<String> {
        let branch = token(&mut self.rng, 16);
        let open = self.open_ref(flow)?;
        let (transport, local) = (open.at.transport, open.at.local);
        let keep = if keep { ";keep" } else { "" };
        Some(alloc::format!(
            "SIP/2.0/{transport} {local};branch=z9hG4bK{branch};rport{keep}"
        ))
    }

    /// The address of this device over this flow.
    pub(super) fn contact_uri(&self, flow: FlowId, kind: ContactKind) -> Option<String> {
        let open = self.open_ref(flow)?;
        let aor = self.config.aor.as_uri();
        let (ob, secure, user) = match kind {
            ContactKind::Binding => ("", aor.is_secure(), aor.user()),
            ContactKind::Dialog { secure, anonymous } => {
                let user = if anonymous {
                    Some("anonymous")
                } else {
                    aor.user()
                };
                (";ob", secure || aor.is_secure(), user)
            }
        };
        let scheme = if secure { "sips" } else { "sip" };
        let user = user.unwrap_or_default();
        let at = if user.is_empty() { "" } else { "@" };
        let transport = match open.at.transport {
            Transport::Tcp | Transport::Tls => ";transport=tcp",
            Transport::Udp | Transport::Dtls => "",
        };
        let local = open.at.local;
        Some(alloc::format!("{scheme}:{user}{at}{local}{transport}{ob}"))
    }

    /// The edge proxy in front, then what the registrar wants (RFC 3608 section 6.1).
    pub(super) fn preloaded_routes(&self, flow: FlowId) -> Vec<String> {
        let slot = match self
            .flows
            .get(&flow)
            .map(|flow| (flow.purpose, &flow.target))
        {
            Some((Purpose::Slot(_), target)) => Some(loose(&target.uri)),
            Some((Purpose::Extra, _)) | None => None,
        };
        let service = self
            .service_route
            .iter()
            .map(|uri| alloc::format!("<{uri}>"));
        match slot {
            Some(proxy) => core::iter::once(proxy).chain(service).collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn write_request(&mut self, pending: &mut Pending) -> Result<Request, RequestError> {
        let flow = pending.flow;
        let draft = &pending.draft;
        let keep = self.offers_keep(flow, &draft.method, &draft.call_id);
        let via = self.new_via(flow, keep).ok_or(RequestError::NoFlow)?;
        let dialog = draft.method.forms_dialog() || draft.method == Method::UPDATE;
        let is_contact =
            |(name, _): &(String, String)| Key::from(name.as_str()) == Name::CONTACT.into();
        let own = dialog && !draft.headers.iter().any(is_contact);
        let kind = ContactKind::Dialog {
            secure: is_sips(&draft.uri),
            anonymous: draft.anonymous,
        };
        let contact = self.contact_uri(flow, kind).filter(|_| own);
        let supported = if draft.method == Method::REGISTER {
            "path"
        } else {
            "outbound"
        };
        let mut builder = Builder::request(&draft.method, &draft.uri).header(Name::VIA, via);
        for route in &draft.routes {
            builder = builder.header(Name::ROUTE, route);
        }
        builder = builder
            .header(Name::MAX_FORWARDS, 70)
            .header(Name::FROM, &draft.from)
            .header(Name::TO, &draft.to)
            .header(Name::CALL_ID, &draft.call_id)
            .header(Name::CSEQ, format_args!("{} {}", draft.cseq, draft.method))
            .maybe(Name::CONTACT, contact.map(|uri| alloc::format!("<{uri}>")))
            .header(Name::SUPPORTED, supported)
            .maybe(Name::USER_AGENT, self.config.user_agent.as_ref());
        let slot = match self.flows.get(&flow).map(|flow| flow.purpose) {
            Some(Purpose::Slot(slot)) => self.slots.get_mut(slot),
            Some(Purpose::Extra) | None => None,
        };
        if let Some(slot) = slot {
            builder = agree::show(builder, slot.agreed.as_deref());
            let fields = slot.digest.authorize(
                &mut pending.attempt,
                &mut self.auth_rng,
                draft.method.as_str(),
                &draft.uri,
                &draft.body,
            );
            for (name, value) in fields {
                builder = builder.header(name, value);
            }
        }
        for (name, value) in &draft.headers {
            builder = builder.header(name.as_str(), value);
        }
        let message = builder.finish(&draft.body)?;
        Request::check(message, &self.config.parse.limits)
            .map_err(|_| RequestError::Build(BuildError::Uri))
    }
}

/// Whether a request URI is a `sips` one.
pub(super) fn is_sips(uri: &str) -> bool {
    uri.get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}
