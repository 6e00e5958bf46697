//! Writing messages, and copies of messages with changes. Nothing that could end a line early gets
//! through, and what comes out parses to what was put in.

use core::fmt::{self, Write as _};

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::chars::{all, is_blank, is_control, is_token, trim};
use super::params::{ListIter, list_comma, split_list};
use super::scan::{HeadScan, Row};
use super::{
    BuildError, Key, Leniency, Limits, Message, Method, Name, ParseConfig, Request, Start,
    StatusCode, Uri,
};

/// What is written has to fit what peers of ours accept.
const OUTGOING: ParseConfig = ParseConfig {
    limits: Limits {
        // A received head is copied into responses, and proxies add to it.
        head: 128 * 1024,
        headers: 256,
        body: usize::MAX,
        ..Limits::DEFAULT
    },
    leniency: Leniency {
        quoted_controls: true,
        assume_zero_length: false,
    },
};

/// Writes one message. Errors stick and come out of [`finish`](Builder::finish).
///
/// ```
/// use sip_outbound::wire::{Builder, Method, Name};
///
/// let message = Builder::request(&Method::OPTIONS, "sip:example.com")
///     .header(Name::MAX_FORWARDS, "70")
///     .header("X-Note", format_args!("{}", 7))
///     .finish(b"")
///     .unwrap();
/// assert_eq!(
///     &message.as_bytes()[..],
///     b"OPTIONS sip:example.com SIP/2.0\r\nMax-Forwards: 70\r\nX-Note: 7\r\nContent-Length: 0\r\n\r\n"
/// );
/// assert!(Builder::request(&Method::OPTIONS, "sip:a\r\nVia: x").finish(b"").is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    head: String,
    /// Values copied from a received message may hold what a new one may not.
    raw: Vec<u8>,
    error: Option<BuildError>,
}

impl Builder {
    /// Starts a request.
    pub fn request(method: &Method, uri: &str) -> Self {
        let mut builder = Self::new(&[method.as_str(), " ", uri, " SIP/2.0"]);
        if Uri::parse(uri, &OUTGOING.limits).is_err() {
            builder.fail(BuildError::Uri);
        }
        builder
    }

    /// Starts a response.
    pub fn response(code: StatusCode, reason: &str) -> Self {
        let mut builder = Self::new(&[]);
        let _ = write!(builder.head, "SIP/2.0 {code} ");
        builder.check_value(reason);
        builder.head.push_str(reason);
        builder.end_line();
        builder
    }

    /// Starts the response to a request: all Via values in their order, From, To, Call-ID and CSeq
    /// are copied; `to_tag` is added to To if it has no tag (RFC 3261 section 8.2.6.2).
    pub fn reply(request: &Request, code: StatusCode, to_tag: Option<&str>) -> Self {
        Self::reply_to_message(request.message(), code, to_tag, request.to_tag().is_some())
    }

    /// As [`reply`](Self::reply), for a request that failed [`Request::check`] but
    /// [can be answered](super::is_answerable).
    pub fn reply_malformed(message: &Message, code: StatusCode, to_tag: Option<&str>) -> Self {
        let tagged = message
            .to(&OUTGOING.limits)
            .is_ok_and(|to| to.tag().is_some());
        Self::reply_to_message(message, code, to_tag, tagged)
    }

    fn reply_to_message(
        message: &Message,
        code: StatusCode,
        to_tag: Option<&str>,
        tagged: bool,
    ) -> Self {
        let mut builder = Self::response(code, code.reason());
        for name in [Name::VIA, Name::FROM, Name::TO, Name::CALL_ID, Name::CSEQ] {
            let rows = message
                .row_list()
                .iter()
                .filter(|row| row.known == Some(name));
            let all = if name == Name::VIA { usize::MAX } else { 1 };
            for row in rows.take(all) {
                let value = message.row_value(row);
                let tag = to_tag.filter(|_| name == Name::TO && !tagged);
                builder.copy(name, value, tag);
            }
        }
        builder
    }

    fn new(line: &[&str]) -> Self {
        let mut builder = Self {
            head: String::with_capacity(512),
            raw: Vec::new(),
            error: None,
        };
        if !line.is_empty() {
            for part in line {
                builder.check_value(part);
                builder.head.push_str(part);
            }
            builder.end_line();
        }
        builder
    }

    fn end_line(&mut self) {
        self.head.push_str("\r\n");
        self.raw.extend_from_slice(self.head.as_bytes());
        self.head.clear();
    }

    fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }

    fn check_value(&mut self, value: &str) {
        if value.bytes().any(is_control) {
            self.fail(BuildError::Control);
        }
    }

    /// Copies a value of a received message, byte for byte, with a tag behind it.
    fn copy(&mut self, name: Name, value: &[u8], tag: Option<&str>) {
        self.raw.extend_from_slice(name.as_str().as_bytes());
        self.raw.extend_from_slice(b": ");
        self.raw.extend_from_slice(value);
        if let Some(tag) = tag {
            if !all(tag, is_token) {
                self.fail(BuildError::Token);
            }
            self.raw.extend_from_slice(b";tag=");
            self.raw.extend_from_slice(tag.as_bytes());
        }
        self.raw.extend_from_slice(b"\r\n");
    }

    /// Adds a header field.
    #[must_use]
    pub fn header<'k>(mut self, name: impl Into<Key<'k>>, value: impl fmt::Display) -> Self {
        let name = name.into().as_str();
        if !all(name, is_token) {
            self.fail(BuildError::Token);
        }
        let start = self.head.len();
        let _ = write!(self.head, "{name}: {value}");
        let line = self.head.get(start..).unwrap_or_default();
        if line.bytes().any(is_control) {
            self.fail(BuildError::Control);
        }
        self.end_line();
        self
    }

    /// Adds a header field if there is a value.
    #[must_use]
    pub fn maybe<'k>(self, name: impl Into<Key<'k>>, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// Copies all fields of this name from a received message, byte for byte.
    #[must_use]
    pub fn copy_all(mut self, message: &Message, name: Name) -> Self {
        let rows = message
            .row_list()
            .iter()
            .filter(|row| row.known == Some(name));
        for row in rows {
            self.copy(name, message.row_value(row), None);
        }
        self
    }

    /// Adds Content-Length and the body.
    ///
    /// # Errors
    /// The first [`BuildError`] met on the way.
    pub fn finish(mut self, body: &[u8]) -> Result<Message, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let _ = write!(self.head, "Content-Length: {}", body.len());
        self.end_line();
        self.raw.extend_from_slice(b"\r\n");
        assemble(self.raw, body)
    }
}

/// Scans and indexes what was written, as if it had been received.
fn assemble(mut bytes: Vec<u8>, body: &[u8]) -> Result<Message, BuildError> {
    let limit = |error: super::ParseError| BuildError::Limit(error.kind);
    let incomplete = BuildError::Limit(super::ParseErrorKind::Incomplete);
    let head_len = HeadScan::default()
        .advance(&bytes, &OUTGOING)
        .map_err(limit)?
        .ok_or(incomplete)?;
    bytes.extend_from_slice(body);
    // It may wait for long: without the room the vector has grown for.
    Message::from_bytes(Bytes::from(bytes.into_boxed_slice()), head_len).map_err(limit)
}

/// Makes a copy of a message with some header fields changed; all others stay as they are, byte
/// for byte and in their order.
///
/// ```
/// use sip_outbound::wire::{Message, Name, ParseConfig};
///
/// let text = b"BYE sip:b@c SIP/2.0\r\nv: SIP/2.0/TCP x\r\nX:  odd \r\nRoute: <sip:p;lr>, <sip:q;lr>\r\n\r\n";
/// let message = Message::parse(text, &ParseConfig::default()).unwrap();
/// let copy = message
///     .edit()
///     .push_front(Name::VIA, "SIP/2.0/TLS p")
///     .pop_first(Name::ROUTE)
///     .finish()
///     .unwrap();
/// assert_eq!(
///     &copy.as_bytes()[..],
///     b"BYE sip:b@c SIP/2.0\r\nVia: SIP/2.0/TLS p\r\nv: SIP/2.0/TCP x\r\nX:  odd \r\nRoute: <sip:q;lr>\r\n\r\n"
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Editor<'m> {
    message: &'m Message,
    first_line: Option<String>,
    lines: Vec<Line<'m>>,
    error: Option<BuildError>,
}

#[derive(Clone, Debug)]
enum Line<'m> {
    Kept(&'m Row),
    New { name: Key<'m>, value: String },
}

impl<'m> Editor<'m> {
    pub(super) fn new(message: &'m Message) -> Self {
        Self {
            message,
            first_line: None,
            lines: message.row_list().iter().map(Line::Kept).collect(),
            error: None,
        }
    }

    fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }

    fn is(&self, line: &Line<'_>, key: &Key<'_>) -> bool {
        match line {
            Line::Kept(row) => row.is(self.message.head(), key),
            Line::New { name, .. } => match (name, key) {
                (Key::Known(a), Key::Known(b)) => a == b,
                (Key::Other(a), Key::Other(b)) => a.eq_ignore_ascii_case(b),
                (Key::Known(_), Key::Other(_)) | (Key::Other(_), Key::Known(_)) => false,
            },
        }
    }

    fn find(&self, key: &Key<'_>) -> Option<usize> {
        self.lines.iter().position(|line| self.is(line, key))
    }

    fn find_last(&self, key: &Key<'_>) -> Option<usize> {
        self.lines.iter().rposition(|line| self.is(line, key))
    }

    fn line(&mut self, name: Key<'m>, value: &str) -> Line<'m> {
        if !all(name.as_str(), is_token) {
            self.fail(BuildError::Token);
        }
        if value.bytes().any(is_control) {
            self.fail(BuildError::Control);
        }
        let value = String::from(value);
        Line::New { name, value }
    }

    fn value_at(&self, at: usize) -> Option<String> {
        Some(match self.lines.get(at)? {
            Line::Kept(row) => {
                let value = self.message.row_value(row);
                String::from(core::str::from_utf8(value).ok()?)
            }
            Line::New { value, .. } => value.clone(),
        })
    }

    /// Puts another URI into the request line.
    #[must_use]
    pub fn set_uri(mut self, uri: &str) -> Self {
        match self.message.start() {
            Start::Request { method, .. } if Uri::parse(uri, &OUTGOING.limits).is_ok() => {
                self.first_line = Some(alloc::format!("{method} {uri} SIP/2.0\r\n"));
            }
            Start::Request { .. } | Start::Response { .. } => self.fail(BuildError::Uri),
        }
        self
    }

    /// Puts another code into the status line.
    #[must_use]
    pub fn set_status(mut self, code: StatusCode) -> Self {
        match self.message.start() {
            Start::Request { .. } => self.fail(BuildError::Status),
            Start::Response { .. } => {
                let reason = code.reason();
                self.first_line = Some(alloc::format!("SIP/2.0 {code} {reason}\r\n"));
            }
        }
        self
    }

    /// Adds a field in front of the first one of its name, or of all fields if there is none.
    #[must_use]
    pub fn push_front(mut self, name: impl Into<Key<'m>>, value: &str) -> Self {
        let name = name.into();
        let at = self.find(&name).unwrap_or(0);
        let line = self.line(name, value);
        self.lines.insert(at, line);
        self
    }

    /// Adds a field behind the last one of its name, or behind all fields if there is none.
    #[must_use]
    pub fn push_back(mut self, name: impl Into<Key<'m>>, value: &str) -> Self {
        let name = name.into();
        let at = self
            .find_last(&name)
            .map_or(self.lines.len(), |at| at.saturating_add(1));
        let line = self.line(name, value);
        self.lines.insert(at, line);
        self
    }

    /// Removes all fields of this name.
    #[must_use]
    pub fn remove(mut self, name: impl Into<Key<'m>>) -> Self {
        let key = name.into();
        let lines = core::mem::take(&mut self.lines);
        self.lines = lines
            .into_iter()
            .filter(|line| !self.is(line, &key))
            .collect();
        self
    }

    /// Puts one field in the place of all fields of this name; at the end if there was none.
    #[must_use]
    pub fn set(mut self, name: impl Into<Key<'m>>, value: &str) -> Self {
        let name = name.into();
        let at = self.find(&name).unwrap_or(self.lines.len());
        let line = self.line(name, value);
        self = self.remove(name);
        self.lines.insert(at.min(self.lines.len()), line);
        self
    }

    /// Changes each field of this name, or drops it where the answer is `None`.
    #[must_use]
    pub fn map_rows(mut self, name: Name, mut change: impl FnMut(&str) -> Option<String>) -> Self {
        let key = Key::Known(name);
        let mut at = 0_usize;
        while at < self.lines.len() {
            let found = self.lines.get(at).is_some_and(|line| self.is(line, &key));
            if !found {
                at = at.saturating_add(1);
                continue;
            }
            match self.value_at(at).and_then(|value| change(&value)) {
                None => {
                    self.lines.remove(at);
                }
                Some(value) => {
                    let new = self.line(key, &value);
                    if let Some(line) = self.lines.get_mut(at) {
                        *line = new;
                    }
                    at = at.saturating_add(1);
                }
            }
        }
        self
    }

    /// Puts another value in the place of the first value of a comma list.
    #[must_use]
    pub fn replace_first(mut self, name: Name, value: &str) -> Self {
        let edited = self.find(&Key::Known(name)).and_then(|at| {
            let row = self.value_at(at)?;
            let rest = list_comma(&row).and_then(|comma| row.get(comma..));
            Some((at, alloc::format!("{value}{}", rest.unwrap_or_default())))
        });
        match edited {
            None => self.fail(BuildError::NoSuchValue),
            Some((at, value)) => {
                let new = self.line(Key::Known(name), &value);
                if let Some(line) = self.lines.get_mut(at) {
                    *line = new;
                }
            }
        }
        self
    }

    /// Removes the first value of a comma list.
    #[must_use]
    pub fn pop_first(mut self, name: Name) -> Self {
        let key = Key::Known(name);
        let edited = self.find(&key).and_then(|at| {
            let row = self.value_at(at)?;
            let rest = list_comma(&row).and_then(|comma| row.get(comma.saturating_add(1)..));
            Some((at, String::from(trim(rest.unwrap_or_default()))))
        });
        self.store_or_remove(edited, key);
        self
    }

    /// Removes the last value of a comma list.
    #[must_use]
    pub fn pop_last(mut self, name: Name) -> Self {
        let key = Key::Known(name);
        let edited = self.find_last(&key).and_then(|at| {
            let row = self.value_at(at)?;
            let last: ListIter<'_> = split_list(&row);
            let len = last.last()?.len();
            let keep = row.trim_end_matches(|c: char| c.is_ascii() && is_blank(c as u8));
            let keep = keep.get(..keep.len().saturating_sub(len))?;
            let keep = trim(keep).strip_suffix(',').unwrap_or_default();
            Some((at, String::from(trim(keep))))
        });
        self.store_or_remove(edited, key);
        self
    }

    fn store_or_remove(&mut self, edited: Option<(usize, String)>, key: Key<'m>) {
        match edited {
            None => self.fail(BuildError::NoSuchValue),
            Some((at, rest)) if rest.is_empty() => {
                self.lines.remove(at);
            }
            Some((at, rest)) => {
                let new = self.line(key, &rest);
                if let Some(line) = self.lines.get_mut(at) {
                    *line = new;
                }
            }
        }
    }

    /// The changed copy.
    ///
    /// # Errors
    /// The first [`BuildError`] met on the way.
    pub fn finish(self) -> Result<Message, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let message = self.message;
        let extra = 256_usize;
        let mut out = Vec::with_capacity(message.as_bytes().len().saturating_add(extra));
        match &self.first_line {
            Some(line) => out.extend_from_slice(line.as_bytes()),
            None => out.extend_from_slice(message.first_line()),
        }
        for line in &self.lines {
            match line {
                Line::Kept(row) => {
                    let bytes = message.head().get(row.start..row.end);
                    out.extend_from_slice(bytes.unwrap_or_default());
                }
                Line::New { name, value } => {
                    out.extend_from_slice(name.as_str().as_bytes());
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        out.extend_from_slice(b"\r\n");
        assemble(out, message.body())
    }
}
