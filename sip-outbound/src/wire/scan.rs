//! Finding the end of a head, however it arrives, and reading its lines (RFC 3261 section 7).

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::chars::{is_blank, is_control, is_token};
use super::{Key, Name, ParseConfig, ParseError, ParseErrorKind};

/// Where the parts of the first line stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartLine {
    Request {
        method_end: usize,
        /// The URI, blanks around it included when they do not belong there.
        uri: (usize, usize),
        version: (usize, usize),
    },
    Response {
        code: (usize, usize),
        reason: (usize, usize),
    },
}

impl StartLine {
    /// Reads the first line. What stands between method and version is not looked at, so that a
    /// malformed URI can be answered.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        if is_version(line.get(..7).unwrap_or_default(), true) && line.get(7) == Some(&b' ') {
            let code_end = line
                .iter()
                .skip(8)
                .position(|&b| b == b' ')
                .map_or(line.len(), |at| at.saturating_add(8));
            let code = line.get(8..code_end)?;
            let digits = !code.is_empty() && code.iter().all(u8::is_ascii_digit);
            let reason = (code_end.saturating_add(1).min(line.len()), line.len());
            return digits.then_some(Self::Response {
                code: (8, code_end),
                reason,
            });
        }
        let method_end = line.iter().position(|&b| b == b' ')?;
        let method = line.get(..method_end)?;
        if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
            return None;
        }
        let end = line.iter().rposition(|&b| !is_blank(b))?.saturating_add(1);
        let version = line
            .get(..end)?
            .iter()
            .rposition(|&b| b == b' ')?
            .saturating_add(1);
        let uri = (method_end.saturating_add(1), version.saturating_sub(1));
        let known = is_version(line.get(version..end)?, false) && uri.0 <= uri.1;
        known.then_some(Self::Request {
            method_end,
            uri,
            // With the blanks behind it, so that they are noticed.
            version: (version, line.len()),
        })
    }
}

/// `SIP/` digits `.` digits; only 2.0 when `exact`.
fn is_version(text: &[u8], exact: bool) -> bool {
    let Some((name, number)) = text.split_at_checked(4) else {
        return false;
    };
    let mut parts = number.split(|&b| b == b'.');
    let number_like = |part: Option<&[u8]>| {
        part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    name.eq_ignore_ascii_case(b"SIP/")
        && if exact {
            number == b"2.0"
        } else {
            number_like(parts.next()) && number_like(parts.next()) && parts.next().is_none()
        }
}

/// Remembers how far a head has been searched. Every byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadScan {
    offset: usize,
    line_start: usize,
    field_start: usize,
    lines: usize,
    escaped: bool,
    /// A header field goes on in the next line.
    pub(crate) folds: bool,
}

impl HeadScan {
    /// Looks on in `bytes`, which begin with the start line and with everything that was there in
    /// earlier calls: the length of the head, once its end is there.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        config: &ParseConfig,
    ) -> Result<Option<usize>, ParseError> {
        let err = |offset, kind| Err(ParseError { offset, kind });
        while let Some(&byte) = bytes.get(self.offset) {
            if self.offset >= config.limits.head {
                return err(self.offset, ParseErrorKind::HeadTooLong);
            }
            if byte != b'\r' {
                self.check_byte(byte, config)?;
                self.offset = self.offset.saturating_add(1);
                continue;
            }
            let Some(&next) = bytes.get(self.offset.saturating_add(1)) else {
                break;
            };
            if next != b'\n' {
                return err(self.offset, ParseErrorKind::LineEnd);
            }
            let (line_start, line_end) = (self.line_start, self.offset);
            self.offset = self.offset.saturating_add(2);
            if self.offset > config.limits.head {
                return err(line_end, ParseErrorKind::HeadTooLong);
            }
            if line_start == line_end {
                if self.lines == 0 {
                    return err(line_start, ParseErrorKind::StartLine);
                }
                return Ok(Some(self.offset));
            }
            let line = bytes.get(line_start..line_end).unwrap_or_default();
            self.end_line(line, config)?;
        }
        Ok(None)
    }

    fn check_byte(&mut self, byte: u8, config: &ParseConfig) -> Result<(), ParseError> {
        let offset = self.offset;
        let err = |kind| Err(ParseError { offset, kind });
        if byte == b'\n' {
            return err(ParseErrorKind::LineEnd);
        }
        if is_control(byte) && !(self.escaped && config.leniency.quoted_controls) {
            return err(ParseErrorKind::Control);
        }
        self.escaped = byte == b'\\' && !self.escaped;
        // A line that starts with a blank goes on with the field before it.
        if offset == self.line_start {
            if !is_blank(byte) {
                self.field_start = offset;
            } else if self.lines <= 1 {
                return err(ParseErrorKind::Fold);
            } else {
                self.folds = true;
            }
        }
        let len = offset.saturating_sub(self.field_start);
        if self.lines == 0 && len >= config.limits.start_line {
            return err(ParseErrorKind::StartLineTooLong);
        }
        if len >= config.limits.line {
            return err(ParseErrorKind::LineTooLong);
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], config: &ParseConfig) -> Result<(), ParseError> {
        let offset = self.line_start;
        if self.lines == 0 && StartLine::parse(line).is_none() {
            let kind = ParseErrorKind::StartLine;
            return Err(ParseError { offset, kind });
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > config.limits.headers.saturating_add(1) {
            let kind = ParseErrorKind::TooManyHeaders;
            return Err(ParseError { offset, kind });
        }
        self.line_start = self.offset;
        self.escaped = false;
        Ok(())
    }
}

/// One header field: where its parts stand in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) start: usize,
    pub(crate) name_end: usize,
    pub(crate) value: (usize, usize),
    /// Behind the line end.
    pub(crate) end: usize,
    pub(crate) known: Option<Name>,
}

impl Row {
    pub(crate) fn is(&self, head: &[u8], key: &Key<'_>) -> bool {
        match key {
            Key::Known(name) => self.known == Some(*name),
            Key::Other(text) => {
                let name = head.get(self.start..self.name_end).unwrap_or_default();
                self.known.is_none() && name.eq_ignore_ascii_case(text.as_bytes())
            }
        }
    }
}

pub(crate) type Rows = SmallVec<[Row; 16]>;

/// A copy of `head` in which every fold, with the blanks around it, is one space.
pub(crate) fn unfold(head: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len());
    let mut rest = head;
    while let Some((&byte, tail)) = rest.split_first() {
        let folded = byte == b'\r' && tail.get(1).is_some_and(|&b| is_blank(b));
        if folded {
            while out.last().is_some_and(|&b| is_blank(b)) {
                out.pop();
            }
            out.push(b' ');
            let blanks = |b: &u8| is_blank(*b);
            let text = tail.get(1..).unwrap_or_default();
            let skip = text.iter().take_while(|b| blanks(b)).count();
            rest = text.get(skip..).unwrap_or_default();
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

/// Reads the lines of a whole head without folds: the start line, and where the header fields
/// stand.
pub(crate) fn index(head: &[u8]) -> Result<(StartLine, Rows), ParseError> {
    let err = |offset, kind| ParseError { offset, kind };
    let mut rows = Rows::new();
    let mut start = None;
    let mut offset = 0_usize;
    for line in head.split_inclusive(|&b| b == b'\n') {
        let end = offset.saturating_add(line.len());
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        if start.is_none() {
            let parsed = StartLine::parse(line);
            start = Some(parsed.ok_or(err(offset, ParseErrorKind::StartLine))?);
        } else if !line.is_empty() {
            let row = field(line, offset, end);
            rows.push(row.ok_or(err(offset, ParseErrorKind::HeaderName))?);
        }
        offset = end;
    }
    let start = start.ok_or(err(0, ParseErrorKind::StartLine))?;
    Ok((start, rows))
}

fn field(line: &[u8], start: usize, end: usize) -> Option<Row> {
    let colon = line.iter().position(|&b| b == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return None;
    }
    let value = value.get(1..)?;
    let lead = value.iter().take_while(|&&b| is_blank(b)).count();
    let value_start = start
        .saturating_add(colon)
        .saturating_add(1)
        .saturating_add(lead);
    let len = value.get(lead..)?.trim_ascii_end().len();
    Some(Row {
        start,
        name_end: start.saturating_add(name.len()),
        value: (value_start, value_start.saturating_add(len)),
        end,
        known: Name::parse(core::str::from_utf8(name).ok()?),
    })
}
