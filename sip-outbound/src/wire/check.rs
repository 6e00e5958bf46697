//! Requests and responses that have what every element needs (RFC 3261 section 8.1.1).

use core::fmt;
use core::ops::Deref;

use super::chars::{all, is_token};
use super::values::is_call_id;
use super::{Defect, Limits, Message, Method, Name, Start, StatusCode, Uri, ValueError};

/// Why a request cannot be handled, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unacceptable {
    /// The code of the response.
    pub status: StatusCode,
    /// What is wrong.
    pub what: Flaw,
}

/// What is wrong with a message whose head could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// A response where a request was expected, or the other way round.
    #[error("wrong kind of message")]
    Kind,
    /// Not SIP/2.0.
    #[error("version not supported")]
    Version,
    /// The length of the message.
    #[error(transparent)]
    Length(Defect),
    /// The request URI.
    #[error("request URI {0}")]
    RequestUri(ValueError),
    /// The status code is not between 100 and 699.
    #[error("status code out of range")]
    Status,
    /// A header field that every message has.
    #[error("{0} {1}")]
    Field(Name, ValueError),
    /// CSeq names another method than the request line.
    #[error("CSeq method differs from the request method")]
    Method,
}

/// Everything that was read out of the needed fields.
#[derive(Clone, Debug)]
struct Essentials {
    method: Method,
    cseq: u32,
    branch: Span,
    cookie: bool,
    sent_by: Span,
    transport: Span,
    call_id: Span,
    from_tag: Span,
    to_tag: Span,
}

/// Bytes of the message; empty when absent.
#[derive(Clone, Copy, Debug, Default)]
struct Span(usize, usize);

impl Span {
    /// Where `part`, a slice of `whole`, stands in it.
    fn of(whole: &[u8], part: Option<&str>) -> Self {
        let Some(part) = part else {
            return Self::default();
        };
        let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        Self(start, start.saturating_add(part.len()))
    }
}

fn essentials(message: &Message, limits: &Limits) -> Result<Essentials, Flaw> {
    let field = |name| move |error| Flaw::Field(name, error);
    let via = message.via(limits).map_err(field(Name::VIA))?;
    if message.via_count() > limits.vias {
        return Err(Flaw::Field(Name::VIA, ValueError::Limit));
    }
    let from = message.from(limits).map_err(field(Name::FROM))?;
    let to = message.to(limits).map_err(field(Name::TO))?;
    let call_id = message.only(Name::CALL_ID).map_err(field(Name::CALL_ID))?;
    if !is_call_id(call_id) {
        return Err(Flaw::Field(Name::CALL_ID, ValueError::Malformed));
    }
    let cseq = message.cseq().map_err(field(Name::CSEQ))?;
    message.max_forwards().map_err(field(Name::MAX_FORWARDS))?;
    let bytes = message.as_bytes();
    let method = Method::new(cseq.method).ok_or(Flaw::Method)?;
    Ok(Essentials {
        method,
        cseq: cseq.number,
        branch: Span::of(bytes, via.branch()),
        cookie: via.cookie_branch().is_some(),
        sent_by: Span::of(bytes, Some(via.sent_by)),
        transport: Span::of(bytes, Some(via.transport)),
        call_id: Span::of(bytes, Some(call_id)),
        from_tag: Span::of(bytes, from.tag()),
        to_tag: Span::of(bytes, to.tag()),
    })
}

macro_rules! shared_accessors {
    () => {
        /// The message.
        pub const fn message(&self) -> &Message {
            &self.message
        }

        /// The message, as itself.
        pub fn into_message(self) -> Message {
            self.message
        }

        fn span(&self, span: Span) -> &str {
            let bytes = self.message.as_bytes().get(span.0..span.1);
            core::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
        }

        fn maybe(&self, span: Span) -> Option<&str> {
            let text = self.span(span);
            (!text.is_empty()).then_some(text)
        }

        /// The number of CSeq, below 2^31.
        pub const fn cseq_number(&self) -> u32 {
            self.essentials.cseq
        }

        /// The branch of the topmost Via.
        pub fn branch(&self) -> Option<&str> {
            self.maybe(self.essentials.branch)
        }

        /// The branch of the topmost Via, if it is one of RFC 3261.
        pub fn cookie_branch(&self) -> Option<&str> {
            self.branch().filter(|_| self.essentials.cookie)
        }

        /// Host and port of the topmost Via, as written.
        pub fn sent_by(&self) -> &str {
            self.span(self.essentials.sent_by)
        }

        /// The transport of the topmost Via, as written.
        pub fn via_transport(&self) -> &str {
            self.span(self.essentials.transport)
        }

        /// Call-ID.
        pub fn call_id(&self) -> &str {
            self.span(self.essentials.call_id)
        }

        /// The tag of From.
        pub fn from_tag(&self) -> Option<&str> {
            self.maybe(self.essentials.from_tag)
        }

        /// The tag of To.
        pub fn to_tag(&self) -> Option<&str> {
            self.maybe(self.essentials.to_tag)
        }
    };
}

/// A request with one usable Via, From, To, Call-ID and CSeq, and a request URI.
#[derive(Clone)]
pub struct Request {
    message: Message,
    essentials: Essentials,
}

impl Request {
    /// Checks a message.
    ///
    /// ```
    /// use sip_outbound::wire::{Limits, Message, ParseConfig, Request, StatusCode};
    ///
    /// let text = b"OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n\
    ///     From: <sip:a@b>;tag=1\r\nTo: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\n\r\n";
    /// let message = Message::parse(text, &ParseConfig::default()).unwrap();
    /// let refusal = Request::check(message, &Limits::DEFAULT).unwrap_err();
    /// assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
    /// ```
    ///
    /// # Errors
    /// [`Unacceptable`].
    pub fn check(message: Message, limits: &Limits) -> Result<Self, Unacceptable> {
        let refuse = |status| move |what| Unacceptable { status, what };
        let bad = refuse(StatusCode::BAD_REQUEST);
        let Start::Request { method, uri } = message.start() else {
            return Err(bad(Flaw::Kind));
        };
        let version = message.version();
        if !version.trim_end().eq_ignore_ascii_case("SIP/2.0") {
            return Err(refuse(StatusCode::VERSION_NOT_SUPPORTED)(Flaw::Version));
        }
        if version.len() != version.trim_end().len() {
            return Err(bad(Flaw::RequestUri(ValueError::Malformed)));
        }
        match message.defect() {
            Some(defect @ Defect::BodyTooLong) => {
                return Err(refuse(StatusCode::REQUEST_ENTITY_TOO_LARGE)(Flaw::Length(
                    defect,
                )));
            }
            Some(defect) => return Err(bad(Flaw::Length(defect))),
            None => {}
        }
        match Uri::parse(uri, limits) {
            Err(ValueError::Limit) => {
                let flaw = Flaw::RequestUri(ValueError::Limit);
                return Err(refuse(StatusCode::URI_TOO_LONG)(flaw));
            }
            Err(error) => return Err(bad(Flaw::RequestUri(error))),
            // Header fields in a request URI are never honoured.
            Ok(Uri::Sip(uri)) if uri.headers().is_some() => {
                return Err(bad(Flaw::RequestUri(ValueError::Malformed)));
            }
            Ok(Uri::Sip(_) | Uri::Other(_)) => {}
        }
        let essentials = essentials(&message, limits).map_err(bad)?;
        if essentials.method != *method {
            return Err(bad(Flaw::Method));
        }
        Ok(Self {
            message,
            essentials,
        })
    }

    shared_accessors!();

    /// The method.
    pub const fn method(&self) -> &Method {
        &self.essentials.method
    }

    /// The request URI as written.
    pub fn uri_text(&self) -> &str {
        match self.message.start() {
            Start::Request { uri, .. } => uri,
            Start::Response { .. } => "",
        }
    }

    /// The request URI.
    ///
    /// # Errors
    /// [`ValueError`] under narrower limits than it was checked with.
    pub fn uri(&self, limits: &Limits) -> Result<Uri<'_>, ValueError> {
        Uri::parse(self.uri_text(), limits)
    }
}

/// A response with one usable Via, From, To, Call-ID and CSeq, and a code from 100 to 699.
#[derive(Clone)]
pub struct Response {
    message: Message,
    essentials: Essentials,
    code: StatusCode,
}

impl Response {
    /// Checks a message. A response that fails is dropped, never answered.
    ///
    /// # Errors
    /// [`Flaw`].
    pub fn check(message: Message, limits: &Limits) -> Result<Self, Flaw> {
        let Start::Response { code, .. } = message.start() else {
            return Err(Flaw::Kind);
        };
        let code = code.ok_or(Flaw::Status)?;
        if let Some(defect) = message.defect() {
            return Err(Flaw::Length(defect));
        }
        let essentials = essentials(&message, limits)?;
        Ok(Self {
            message,
            essentials,
            code,
        })
    }

    shared_accessors!();

    /// The code.
    pub const fn code(&self) -> StatusCode {
        self.code
    }

    /// The method of CSeq: that of the request.
    pub const fn method(&self) -> &Method {
        &self.essentials.method
    }

    /// The reason phrase.
    pub fn reason(&self) -> &[u8] {
        match self.message.start() {
            Start::Response { reason, .. } => reason,
            Start::Request { .. } => b"",
        }
    }
}

impl Deref for Request {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Deref for Response {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

/// Whether a request that fails [`Request::check`] can be answered: top Via, From, To, Call-ID and
/// CSeq are there to be copied, and it is no ACK.
pub fn is_answerable(message: &Message, limits: &Limits) -> bool {
    has_way_back(message, limits)
        && [Name::FROM, Name::TO, Name::CALL_ID, Name::CSEQ]
            .into_iter()
            .all(|name| message.rows(name).next().is_some_and(|v| !v.is_empty()))
}

/// Whether a response, however incomplete, finds its way to who has sent this request. On a stream
/// that is enough to refuse what nothing else would be heard of.
pub(crate) fn has_way_back(message: &Message, limits: &Limits) -> bool {
    message.is_request()
        && all(message.method(), is_token)
        && message.method() != Method::ACK.as_str()
        && message.via(limits).is_ok()
}
