//! Heads of requests and responses (RFC 9112 sections 2 to 5): one parser for both directions,
//! strict unless told otherwise.

use core::fmt;
use core::ops::Range;

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::text::is_token_byte;

/// Limits on a head; a longer one is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, its blank line included: 16 KiB.
    pub bytes: usize,
    /// Bytes of one line: 8 KiB.
    pub line: usize,
    /// Fields: 100.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            // deviates: SEC-F-03 a head with a Kerberos ticket in it does not fit into 8 KiB
            bytes: 16 * 1024,
            line: 8 * 1024,
            fields: 100,
        }
    }
}

/// What is forgiven in a head. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// A line may end in LF alone.
    pub bare_lf: bool,
    /// A field may go on in the next line, if that begins with a blank; replaced by one space.
    pub folding: bool,
    /// Blanks may stand between field name and colon.
    pub blank_before_colon: bool,
    /// Empty lines may stand in front of the first line.
    pub leading_empty_lines: bool,
    /// More than one space may stand between the version and the status code.
    pub extra_spaces: bool,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The first line is longer than allowed.
    #[error("first line too long")]
    StartLineTooLong,
    /// The head, one of its lines, or the number of its fields is larger than allowed.
    #[error("head too large")]
    TooLarge,
    /// A line ends otherwise than in CRLF, or holds a control character.
    #[error("illegal control character or line end")]
    Control,
    /// A field without a name, with a malformed one, or folded.
    #[error("malformed field")]
    Field,
}

impl Leniency {
    /// Nothing is forgiven.
    pub const STRICT: Self = Self {
        bare_lf: false,
        folding: false,
        blank_before_colon: false,
        leading_empty_lines: false,
        extra_spaces: false,
    };

    /// Everything is forgiven.
    pub const LENIENT: Self = Self {
        bare_lf: true,
        folding: true,
        blank_before_colon: true,
        leading_empty_lines: true,
        extra_spaces: true,
    };
}

/// A whole head, with its first line and its fields found. It may hold credentials: wiped when
/// dropped, and `Debug` shows the names of the fields only.
#[derive(Clone)]
pub struct Head {
    text: Zeroizing<String>,
    start_line: Range<usize>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.fields()
                    .map(|(name, _)| name.get(..64).unwrap_or(name)),
            )
            .finish()
    }
}

impl Head {
    /// The first line, without its end.
    pub fn start_line(&self) -> &str {
        self.slice(&self.start_line)
    }

    /// All fields in their order: name, value without blanks around it.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (self.slice(name), self.slice(value)))
    }

    /// The values of all fields of this name, without regard to case.
    pub fn all<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> {
        self.fields()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The value of the first field of this name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Whether one of the fields of this name lists `word`, without regard to case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(word))
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }
}

/// Collects a head from chunks of any size; each byte is looked at a fixed number of times.
///
/// ```
/// use http_connect::wire::{HeadLimits, HeadReader, Leniency};
///
/// let mut reader = HeadReader::new(HeadLimits::default(), Leniency::STRICT);
/// let mut input: &[u8] = b"HTTP/1.1 200 OK\r\nA: 1\r";
/// assert!(reader.take(&mut input).unwrap().is_none());
/// let mut input: &[u8] = b"\n\r\nrest";
/// let head = reader.take(&mut input).unwrap().unwrap();
/// assert_eq!(head.start_line(), "HTTP/1.1 200 OK");
/// assert_eq!(head.first("a"), Some("1"));
/// assert_eq!(input, b"rest");
/// ```
pub struct HeadReader {
    limits: HeadLimits,
    leniency: Leniency,
    /// The head with normal line ends and without what was forgiven.
    text: Vec<u8>,
    /// Bytes taken in, those forgiven included.
    taken: usize,
    line_start: usize,
    /// Where the line before began.
    last_start: usize,
    lines: usize,
    after_cr: bool,
    /// A field line ended; a blank at the beginning of the next one folds it.
    foldable: bool,
    /// How many bytes have been looked at, each time one is.
    #[cfg(test)]
    pub(super) looked: usize,
}

impl fmt::Debug for HeadReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadReader")
            .field("taken", &self.taken)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

impl HeadReader {
    /// A reader at the beginning of a head.
    pub const fn new(limits: HeadLimits, leniency: Leniency) -> Self {
        Self {
            limits,
            leniency,
            text: Vec::new(),
            taken: 0,
            line_start: 0,
            last_start: 0,
            lines: 0,
            after_cr: false,
            foldable: false,
            #[cfg(test)]
            looked: 0,
        }
    }

    /// Whether nothing of a head has come yet.
    pub const fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// The lines that have come so far.
    pub fn beginning(&self) -> &[u8] {
        &self.text
    }

    /// Takes bytes up to the end of the head; what follows stays in `input`. The reader is at the
    /// beginning of another head then.
    ///
    /// # Errors
    /// [`HeadError`]; the reader is of no more use.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Head>, HeadError> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if self.byte(byte)? {
                return self.finish().map(Some);
            }
        }
        Ok(None)
    }

    /// Takes in one byte; `true` when the head is complete.
    fn byte(&mut self, byte: u8) -> Result<bool, HeadError> {
        self.taken = self.taken.saturating_add(1);
        #[cfg(test)]
        {
            self.looked = self.looked.saturating_add(1);
        }
        if self.taken > self.limits.bytes {
            return Err(HeadError::TooLarge);
        }
        match byte {
            b'\n' if self.after_cr || self.leniency.bare_lf => {
                self.after_cr = false;
                self.end_of_line()
            }
            _ if self.after_cr => Err(HeadError::Control),
            b'\r' => {
                self.after_cr = true;
                Ok(false)
            }
            b'\t' | b' '..=b'~' | 0x80.. => self.text_byte(byte).map(|()| false),
            _ => Err(HeadError::Control),
        }
    }

    fn text_byte(&mut self, byte: u8) -> Result<(), HeadError> {
        let at_line_start = self.text.len() == self.line_start;
        if at_line_start && self.lines > 0 && matches!(byte, b' ' | b'\t') {
            if !self.leniency.folding || !self.foldable {
                return Err(HeadError::Field);
            }
            // Back to the line before: its end becomes one space.
            self.text.truncate(self.line_start.saturating_sub(1));
            self.text.push(b' ');
            self.line_start = self.last_start;
            self.lines = self.lines.saturating_sub(1);
            return Ok(());
        }
        self.text.push(byte);
        if self.text.len().saturating_sub(self.line_start) > self.limits.line {
            return Err(if self.lines == 0 {
                HeadError::StartLineTooLong
            } else {
                HeadError::TooLarge
            });
        }
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<bool, HeadError> {
        let empty = self.text.len() == self.line_start;
        if empty && self.lines > 0 {
            return Ok(true);
        }
        if empty {
            return if self.leniency.leading_empty_lines {
                Ok(false)
            } else {
                Err(HeadError::Control)
            };
        }
        self.foldable = self.lines > 0;
        self.text.push(b'\n');
        self.last_start = self.line_start;
        self.line_start = self.text.len();
        self.lines = self.lines.saturating_add(1);
        if self.lines > self.limits.fields.saturating_add(1) {
            return Err(HeadError::TooLarge);
        }
        Ok(false)
    }

    fn finish(&mut self) -> Result<Head, HeadError> {
        let fresh = Self::new(self.limits, self.leniency);
        let bytes = core::mem::replace(self, fresh).text;
        // Bytes above ASCII are legal in values; what is not UTF-8 is shown as U+FFFD.
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(bad) => String::from_utf8_lossy(bad.as_bytes()).into_owned(),
        };
        let mut lines = text.split_inclusive('\n').scan(0_usize, |at, line| {
            let start = *at;
            *at = at.saturating_add(line.len());
            Some((start, line.trim_end_matches('\n')))
        });
        let start_line = lines.next().map_or(0..0, |(_, line)| 0..line.len());
        let fields = lines
            .map(|(start, line)| self.field(start, line))
            .collect::<Result<_, _>>()?;
        Ok(Head {
            start_line,
            fields,
            text: Zeroizing::new(text),
        })
    }

    fn field(&self, start: usize, line: &str) -> Result<(Range<usize>, Range<usize>), HeadError> {
        const BLANKS: [char; 2] = [' ', '\t'];
        let (name, value) = line.split_once(':').ok_or(HeadError::Field)?;
        let bare = name.trim_end_matches(BLANKS);
        if bare.len() != name.len() && !self.leniency.blank_before_colon {
            return Err(HeadError::Field);
        }
        if bare.is_empty() || !bare.bytes().all(is_token_byte) {
            return Err(HeadError::Field);
        }
        let after_colon = start.saturating_add(name.len()).saturating_add(1);
        let trimmed = value.trim_start_matches(BLANKS);
        let from = after_colon.saturating_add(value.len().saturating_sub(trimmed.len()));
        let trimmed = trimmed.trim_end_matches(BLANKS);
        Ok((
            start..start.saturating_add(bare.len()),
            from..from.saturating_add(trimmed.len()),
        ))
    }
}

/// Whether a text may be the value of a field: printable, no line ends.
pub(crate) fn is_field_value(value: &str) -> bool {
    value
        .bytes()
        .all(|b| b == b'\t' || (b >= b' ' && b != 0x7F))
}

/// Whether a text may be the name of a field.
pub(crate) fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}
