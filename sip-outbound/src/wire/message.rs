//! A message: its head indexed once, everything else read when asked for.

use core::fmt;

use bytes::Bytes;

use super::chars::trim;
use super::params::{ListIter, split_list};
use super::scan::{HeadScan, Row, Rows, StartLine, index, unfold};
use super::values::decimal;
use super::{
    CSeq, Editor, Key, Limits, Name, NameAddr, ParseConfig, ParseError, ParseErrorKind, SipUri,
    StatusCode, ValueError, Via,
};

/// A syntactically sound message. What is not asked for is not looked at, and goes on byte for
/// byte when the message is forwarded; only folded header fields are put on one line.
///
/// Cloning is cheap: the bytes are shared.
///
/// ```
/// use sip_outbound::wire::{Message, Name, ParseConfig};
///
/// let text = b"OPTIONS sip:example.com SIP/2.0\r\nk: path, outbound\r\nSupported: gruu\r\n\r\nbody";
/// let message = Message::parse(text, &ParseConfig::default()).unwrap();
/// let tags: Vec<_> = message.list(Name::SUPPORTED).collect();
/// assert_eq!(tags, ["path", "outbound", "gruu"]);
/// assert_eq!(message.body(), b"body");
/// ```
#[derive(Clone)]
pub struct Message {
    bytes: Bytes,
    head_len: usize,
    start: StartLine,
    rows: Rows,
    defect: Option<Defect>,
}

/// What is wrong with the length of a message; it can be answered with 400 but not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// Content-Length is missing on a stream, repeated, or not a plain number.
    #[error("Content-Length missing, repeated or malformed")]
    ContentLength,
    /// The datagram ends before the body does.
    #[error("body shorter than Content-Length")]
    BodyTooShort,
    /// The body is longer than [`Limits::body`].
    #[error("body too long")]
    BodyTooLong,
}

/// The first line of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// A request line.
    Request {
        /// The method.
        method: &'a str,
        /// The request URI as written; not yet checked.
        uri: &'a str,
    },
    /// A status line.
    Response {
        /// The code; `None` when it is not between 100 and 699.
        code: Option<StatusCode>,
        /// The reason phrase.
        reason: &'a [u8],
    },
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name as written, without the blanks behind it.
    pub name: &'a str,
    /// The name, if it is known here.
    pub known: Option<Name>,
    /// The value without the blanks around it.
    pub value: &'a [u8],
}

impl Message {
    /// Reads a datagram. Line ends in front of the message are passed over, octets behind the
    /// body are ignored; without Content-Length the body goes to the end (RFC 3261 section 18.3).
    ///
    /// # Errors
    /// [`ParseError`] when there is no SIP head. A wrong Content-Length is a
    /// [`defect`](Self::defect), so that it can be answered.
    pub fn parse(datagram: &[u8], config: &ParseConfig) -> Result<Self, ParseError> {
        let mut data = datagram;
        while let Some(rest) = data.strip_prefix(b"\r\n") {
            data = rest;
        }
        let mut scan = HeadScan::default();
        let head_len = scan.advance(data, config)?.ok_or(ParseError {
            offset: data.len(),
            kind: ParseErrorKind::Incomplete,
        })?;
        let (head, body) = data.split_at_checked(head_len).unwrap_or((data, &[]));
        let mut message = Self::from_head(head, scan.folds)?;
        let len = match message.content_length() {
            Ok(None) => body.len(),
            Ok(Some(len)) if len > body.len() => {
                message.defect = Some(Defect::BodyTooShort);
                body.len()
            }
            Ok(Some(len)) => len,
            Err(_) => {
                message.defect = Some(Defect::ContentLength);
                body.len()
            }
        };
        if len > config.limits.body {
            message.defect = Some(Defect::BodyTooLong);
            return Ok(message);
        }
        Ok(message.with_body(body.get(..len).unwrap_or_default()))
    }

    /// A message without body, of a head that was scanned to its end.
    pub(crate) fn from_head(head: &[u8], folds: bool) -> Result<Self, ParseError> {
        let bytes = if folds {
            Bytes::from(unfold(head))
        } else {
            Bytes::copy_from_slice(head)
        };
        Self::from_bytes(bytes.clone(), bytes.len())
    }

    /// A message of bytes whose first `head_len` are a scanned head without folds.
    pub(crate) fn from_bytes(bytes: Bytes, head_len: usize) -> Result<Self, ParseError> {
        let (start, rows) = index(bytes.get(..head_len).unwrap_or_default())?;
        Ok(Self {
            bytes,
            head_len,
            start,
            rows,
            defect: None,
        })
    }

    pub(crate) fn with_body(mut self, body: &[u8]) -> Self {
        if !body.is_empty() {
            self.bytes = [self.head(), body].concat().into();
        }
        self
    }

    pub(crate) fn with_defect(mut self, defect: Defect) -> Self {
        self.defect = Some(defect);
        self
    }

    /// The message as it goes over the wire.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn head(&self) -> &[u8] {
        self.bytes.get(..self.head_len).unwrap_or_default()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.head_len..).unwrap_or_default()
    }

    /// The body, sharing the memory of the message.
    pub fn body_bytes(&self) -> Bytes {
        self.bytes.slice(self.head_len.min(self.bytes.len())..)
    }

    /// What is wrong with the length of the message.
    pub const fn defect(&self) -> Option<Defect> {
        self.defect
    }

    fn slice(&self, (from, to): (usize, usize)) -> &[u8] {
        self.bytes.get(from..to).unwrap_or_default()
    }

    fn text(&self, range: (usize, usize)) -> &str {
        core::str::from_utf8(self.slice(range)).unwrap_or_default()
    }

    /// The first line.
    pub fn start(&self) -> Start<'_> {
        match self.start {
            StartLine::Request {
                method_end, uri, ..
            } => Start::Request {
                method: self.text((0, method_end)),
                uri: self.text(uri),
            },
            StartLine::Response { code, reason } => Start::Response {
                code: decimal(self.text(code))
                    .and_then(|code| u16::try_from(code).ok())
                    .and_then(StatusCode::new),
                reason: self.slice(reason),
            },
        }
    }

    /// The version of a request as written.
    pub(crate) fn version(&self) -> &str {
        match self.start {
            StartLine::Request { version, .. } => self.text(version),
            StartLine::Response { .. } => "SIP/2.0",
        }
    }

    /// Whether it is a request.
    pub const fn is_request(&self) -> bool {
        matches!(self.start, StartLine::Request { .. })
    }

    /// The method of a request; empty for responses.
    pub fn method(&self) -> &str {
        match self.start() {
            Start::Request { method, .. } => method,
            Start::Response { .. } => "",
        }
    }

    pub(crate) fn row_list(&self) -> &[Row] {
        &self.rows
    }

    /// All header fields in their order.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = Header<'_>> {
        self.rows.iter().map(|row| Header {
            name: self.text((row.start, row.name_end)),
            known: row.known,
            value: self.slice(row.value),
        })
    }

    /// The values of all fields of this name, one for each field, lists not split. Values that
    /// are not UTF-8 read as `"\u{FFFD}"`, which no grammar accepts.
    pub fn rows<'s>(
        &'s self,
        name: impl Into<Key<'s>>,
    ) -> impl DoubleEndedIterator<Item = &'s str> {
        let key = name.into();
        self.rows
            .iter()
            .filter(move |row| row.is(&self.bytes, &key))
            .map(|row| core::str::from_utf8(self.slice(row.value)).unwrap_or("\u{FFFD}"))
    }

    /// Whether there is a field of this name.
    pub fn has<'s>(&'s self, name: impl Into<Key<'s>>) -> bool {
        self.rows(name).next().is_some()
    }

    /// The value of a field that may occur once.
    ///
    /// # Errors
    /// [`ValueError::Missing`], [`ValueError::Repeated`].
    pub fn only<'s>(&'s self, name: impl Into<Key<'s>>) -> Result<&'s str, ValueError> {
        let mut rows = self.rows(name);
        let value = rows.next().ok_or(ValueError::Missing)?;
        match rows.next() {
            None => Ok(value),
            Some(_) => Err(ValueError::Repeated),
        }
    }

    /// The values of a comma list over all fields of this name, in their order; empty parts are
    /// passed over. Not for the authentication fields, whose commas mean something else.
    pub fn list<'s>(&'s self, name: impl Into<Key<'s>>) -> impl Iterator<Item = &'s str> {
        self.rows(name)
            .flat_map(|row| -> ListIter<'s> { split_list(row) })
            .filter(|part| !part.is_empty())
    }

    /// Whether the list of this name holds this option tag.
    pub fn has_tag(&self, name: Name, tag: &str) -> bool {
        self.list(name).any(|part| part.eq_ignore_ascii_case(tag))
    }

    /// Whether Supported or Require holds this option tag.
    pub fn supports(&self, tag: &str) -> bool {
        self.has_tag(Name::SUPPORTED, tag) || self.has_tag(Name::REQUIRE, tag)
    }

    /// The value of Content-Length: one field of one to ten digits.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn content_length(&self) -> Result<Option<usize>, ValueError> {
        match self.only(Name::CONTENT_LENGTH) {
            Err(ValueError::Missing) => Ok(None),
            Err(error) => Err(error),
            Ok(text) => {
                let len = decimal(text).ok_or(ValueError::Malformed)?;
                usize::try_from(len)
                    .map(Some)
                    .map_err(|_| ValueError::OutOfRange)
            }
        }
    }

    /// The topmost Via value.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn via(&self, limits: &Limits) -> Result<Via<'_>, ValueError> {
        // An empty part in front is malformed, not passed over.
        let row = self.rows(Name::VIA).next().ok_or(ValueError::Missing)?;
        Via::parse(split_list(row).next().unwrap_or_default(), limits)
    }

    /// How many Via values there are.
    pub fn via_count(&self) -> usize {
        self.list(Name::VIA).count()
    }

    /// From.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn from(&self, limits: &Limits) -> Result<NameAddr<'_>, ValueError> {
        NameAddr::parse(self.only(Name::FROM)?, limits)
    }

    /// To.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn to(&self, limits: &Limits) -> Result<NameAddr<'_>, ValueError> {
        NameAddr::parse(self.only(Name::TO)?, limits)
    }

    /// CSeq.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn cseq(&self) -> Result<CSeq<'_>, ValueError> {
        CSeq::parse(self.only(Name::CSEQ)?)
    }

    /// Route, Record-Route, Path or Service-Route: all values, each with its URI.
    pub fn routes<'s>(
        &'s self,
        name: Name,
        limits: &'s Limits,
    ) -> impl Iterator<Item = Result<SipUri<'s>, ValueError>> + 's {
        self.list(name).enumerate().map(move |(at, value)| {
            if at >= limits.routes {
                return Err(ValueError::Limit);
            }
            NameAddr::parse_route(value, limits).map(|(_, uri)| uri)
        })
    }

    /// The values of Contact, `*` apart.
    pub fn contacts<'s>(
        &'s self,
        limits: &'s Limits,
    ) -> impl Iterator<Item = Result<NameAddr<'s>, ValueError>> + 's {
        self.list(Name::CONTACT)
            .enumerate()
            .map(move |(at, value)| {
                if at >= limits.contacts {
                    return Err(ValueError::Limit);
                }
                NameAddr::parse(value, limits)
            })
    }

    /// Whether Contact is `*`, whatever stands beside it.
    pub fn has_wildcard_contact(&self) -> bool {
        self.list(Name::CONTACT).any(|value| value == "*")
    }

    /// The number of seconds in a field such as Expires, Min-Expires or Flow-Timer.
    ///
    /// # Errors
    /// [`ValueError`]; numbers from 2^32 on are [`ValueError::Malformed`].
    pub fn seconds(&self, name: Name) -> Result<u32, ValueError> {
        decimal(self.only(name)?).ok_or(ValueError::Malformed)
    }

    /// Expires; a malformed value counts as 3600 (RFC 3261 section 10.2).
    pub fn expires(&self) -> Option<u32> {
        match self.seconds(Name::EXPIRES) {
            Ok(seconds) => Some(seconds),
            Err(ValueError::Missing) => None,
            Err(_) => Some(3600),
        }
    }

    /// Max-Forwards: at most 255.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn max_forwards(&self) -> Result<Option<u8>, ValueError> {
        match self.only(Name::MAX_FORWARDS) {
            Err(ValueError::Missing) => Ok(None),
            Err(error) => Err(error),
            Ok(text) => {
                let number = super::values::decimal_padded(text).ok_or(ValueError::Malformed)?;
                u8::try_from(number)
                    .map(Some)
                    .map_err(|_| ValueError::OutOfRange)
            }
        }
    }

    /// Starts a copy with changes.
    pub fn edit(&self) -> Editor<'_> {
        Editor::new(self)
    }

    /// The name of a row as written, and its value, for the editor.
    pub(crate) fn row_value(&self, row: &Row) -> &[u8] {
        self.slice(row.value)
    }

    pub(crate) fn first_line(&self) -> &[u8] {
        let end = self
            .rows
            .first()
            .map_or_else(|| self.head_len.saturating_sub(2), |first| first.start);
        self.slice((0, end))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The head may hold credentials: the first line has to do.
        let line = self.first_line().trim_ascii_end();
        let shown = line.get(..64).unwrap_or(line);
        f.debug_struct("Message")
            .field("line", &trim(&alloc::format!("{}", shown.escape_ascii())))
            .field("headers", &self.rows.len())
            .field("body", &self.body().len())
            .finish()
    }
}
