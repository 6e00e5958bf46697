//! Finding the end of a body (RFC 9112 sections 6 and 7).

use core::fmt;

use alloc::vec::Vec;

use super::{Head, StatusLine};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, the last one empty.
    Chunked,
    /// Only the end of the connection ends it.
    UntilClose,
}

impl Framing {
    /// The framing of a final response to CONNECT other than 2xx, and whether it is so clear that
    /// the connection may be used again behind it.
    pub fn of_response(head: &Head, line: StatusLine) -> (Self, bool) {
        if line.status == 204 || line.status == 304 {
            return (Self::Length(0), true);
        }
        let length = content_length(head);
        if let Some(last) = head.all("Transfer-Encoding").last() {
            let coding = last.rsplit(',').next().unwrap_or_default().trim();
            if !coding.eq_ignore_ascii_case("chunked") {
                return (Self::UntilClose, false);
            }
            // HTTP/1.0 knows no chunks, so somebody on the way may see another end.
            return (Self::Chunked, line.minor > 0 && length == Ok(None));
        }
        match length {
            Ok(Some(length)) => (Self::Length(length), true),
            Ok(None) | Err(BodyError) => (Self::UntilClose, false),
        }
    }
}

/// The Content-Length of a head, at most 2^63 - 1; several equal ones count as one.
pub(crate) fn content_length(head: &Head) -> Result<Option<u64>, BodyError> {
    let mut length = None;
    for item in head.all("Content-Length").flat_map(|v| v.split(',')) {
        let item = item.trim();
        if item.is_empty() || !item.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BodyError);
        }
        let value: u64 = item.parse().map_err(|_| BodyError)?;
        if value > i64::MAX as u64 || length.is_some_and(|known| known != value) {
            return Err(BodyError);
        }
        length = Some(value);
    }
    Ok(length)
}

/// The bytes are no body of the framing announced, or a line of a chunk or all trailers are longer
/// than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed body")]
pub struct BodyError;

#[derive(Clone, Copy, Debug)]
enum State {
    Data { left: u64, chunked: bool },
    DataEnd { after_cr: bool },
    Size,
    Trailer { bytes: usize },
    Done,
    Endless,
}

/// Passes over a body, keeping its beginning.
///
/// ```
/// use http_connect::wire::{BodyReader, Framing};
///
/// let mut body = BodyReader::new(Framing::Chunked, 100);
/// let mut input: &[u8] = b"3;ext\r\nabc\r\n0\r\n\r\nrest";
/// body.take(&mut input).unwrap();
/// assert!(body.is_done());
/// assert_eq!(body.into_prefix(), b"abc");
/// assert_eq!(input, b"rest");
/// ```
pub struct BodyReader {
    state: State,
    line: Vec<u8>,
    prefix: Vec<u8>,
    keep: usize,
    passed: usize,
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader")
            .field("state", &self.state)
            .field("passed", &self.passed)
            .finish_non_exhaustive()
    }
}

impl BodyReader {
    /// Bytes of one chunk-size line or trailer line.
    pub const MAX_LINE: usize = 4096;

    /// Bytes of all trailers together.
    pub const MAX_TRAILERS: usize = 16 * 1024;

    /// Keeps the first `keep` bytes.
    pub const fn new(framing: Framing, keep: usize) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Data {
                left,
                chunked: false,
            },
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::Endless,
        };
        Self {
            state,
            line: Vec::new(),
            prefix: Vec::new(),
            keep,
            passed: 0,
        }
    }

    /// Whether the end was found.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether as much is kept as was to be kept.
    pub const fn is_full(&self) -> bool {
        self.prefix.len() >= self.keep
    }

    /// Bytes passed over so far, framing included.
    pub const fn passed(&self) -> usize {
        self.passed
    }

    /// The bytes that were kept.
    pub fn into_prefix(self) -> Vec<u8> {
        self.prefix
    }

    /// Passes over bytes; what follows the body stays in `input`.
    ///
    /// # Errors
    /// [`BodyError`]; the end will never be found then.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<(), BodyError> {
        while !input.is_empty() {
            match self.state {
                State::Done => return Ok(()),
                State::Endless => {
                    let len = input.len();
                    self.data(input, len);
                }
                State::Data { left, chunked } => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    self.data(input, len);
                    let left = left.saturating_sub(len as u64);
                    self.state = match (left, chunked) {
                        (0, false) => State::Done,
                        (0, true) => State::DataEnd { after_cr: false },
                        (left, chunked) => State::Data { left, chunked },
                    };
                }
                State::DataEnd { after_cr } => {
                    let byte = self.byte(input);
                    self.state = match (byte, after_cr) {
                        (b'\r', false) => State::DataEnd { after_cr: true },
                        (b'\n', true) => State::Size,
                        _ => return Err(BodyError),
                    };
                }
                State::Size => {
                    if let Some(line) = self.line(input)? {
                        self.state = match chunk_size(&line)? {
                            0 => State::Trailer { bytes: 0 },
                            left => State::Data {
                                left,
                                chunked: true,
                            },
                        };
                    }
                }
                State::Trailer { bytes } => {
                    if let Some(line) = self.line(input)? {
                        let bytes = bytes.saturating_add(line.len());
                        if bytes > Self::MAX_TRAILERS {
                            return Err(BodyError);
                        }
                        self.state = if line.is_empty() {
                            State::Done
                        } else {
                            State::Trailer { bytes }
                        };
                    }
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, input: &mut &[u8], len: usize) {
        let (data, rest) = input.split_at(len.min(input.len()));
        let room = self.keep.saturating_sub(self.prefix.len());
        self.prefix
            .extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        self.passed = self.passed.saturating_add(data.len());
        *input = rest;
    }

    fn byte(&mut self, input: &mut &[u8]) -> u8 {
        let (byte, rest) = input.split_first().map_or((0, *input), |(b, r)| (*b, r));
        *input = rest;
        self.passed = self.passed.saturating_add(1);
        byte
    }

    /// The next line without its CRLF, once it is complete.
    fn line(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, BodyError> {
        while !input.is_empty() {
            let byte = self.byte(input);
            if byte == b'\n' {
                let mut line = core::mem::take(&mut self.line);
                // A lone LF might be the end of a line to somebody else and not to us.
                return if line.pop() == Some(b'\r') {
                    Ok(Some(line))
                } else {
                    Err(BodyError)
                };
            }
            if self.line.len() >= Self::MAX_LINE || self.line.last() == Some(&b'\r') {
                return Err(BodyError);
            }
            self.line.push(byte);
        }
        Ok(None)
    }
}

/// The size in a chunk's first line; extensions are passed over.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.split(|&b| b == b';').next().unwrap_or_default();
    let text = core::str::from_utf8(digits).map_err(|_| BodyError)?;
    let text = text.trim_end_matches([' ', '\t']);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(BodyError);
    }
    u64::from_str_radix(text, 16).map_err(|_| BodyError)
}
