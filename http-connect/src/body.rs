//! Finding the end of a response body that nobody reads (RFC 9112 sections 6 and 7).

use alloc::vec::Vec;

use crate::head::Head;

/// Bytes of one chunk-size line or trailer line.
const MAX_LINE: usize = 4096;

/// Bytes of all trailers together.
const MAX_TRAILERS: usize = 16 * 1024;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, the last one empty.
    Chunked,
    /// Only the end of the connection ends it.
    UntilClose,
}

impl Framing {
    /// The framing of a response other than 2xx, and whether it is so clear that the connection
    /// may be used again.
    pub(crate) fn of_response(head: &Head, status: u16) -> (Self, bool) {
        if status == 204 || status == 304 {
            return (Self::Length(0), true);
        }
        let length = content_length(head);
        if let Some(last) = head.all("Transfer-Encoding").last() {
            let coding = last.rsplit(',').next().unwrap_or_default().trim();
            let framing = if coding.eq_ignore_ascii_case("chunked") {
                Self::Chunked
            } else {
                Self::UntilClose
            };
            let clear = framing == Self::Chunked && length == Ok(None);
            return (framing, clear);
        }
        match length {
            Ok(Some(length)) => (Self::Length(length), true),
            Ok(None) => (Self::UntilClose, false),
            Err(Contradictory) => (Self::UntilClose, false),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradictory;

/// The Content-Length of a head; several equal ones count as one.
pub(crate) fn content_length(head: &Head) -> Result<Option<u64>, Contradictory> {
    let mut length = None;
    for item in head.all("Content-Length").flat_map(|v| v.split(',')) {
        let item = item.trim();
        if item.is_empty() || !item.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Contradictory);
        }
        let value: u64 = item.parse().map_err(|_| Contradictory)?;
        if value > i64::MAX as u64 || length.is_some_and(|known| known != value) {
            return Err(Contradictory);
        }
        length = Some(value);
    }
    Ok(length)
}

/// The bytes are no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Debug)]
enum State {
    Data { left: u64, chunked: bool },
    DataEnd,
    Size,
    Trailer { bytes: usize },
    Done,
    Endless,
}

/// Passes over a body, keeping its beginning.
#[derive(Debug)]
pub(crate) struct Drain {
    state: State,
    line: Vec<u8>,
    prefix: Vec<u8>,
    keep: usize,
    passed: usize,
}

impl Drain {
    /// Keeps the first `keep` bytes.
    pub(crate) const fn new(framing: Framing, keep: usize) -> Self {
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

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes passed over so far, framing included.
    pub(crate) const fn passed(&self) -> usize {
        self.passed
    }

    pub(crate) fn into_prefix(self) -> Vec<u8> {
        self.prefix
    }

    /// Passes over bytes; what follows the body stays in `input`.
    pub(crate) fn take(&mut self, input: &mut &[u8]) -> Result<(), Malformed> {
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
                        (0, true) => State::DataEnd,
                        (left, chunked) => State::Data { left, chunked },
                    };
                }
                State::DataEnd | State::Size | State::Trailer { .. } => self.line_byte(input)?,
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

    fn line_byte(&mut self, input: &mut &[u8]) -> Result<(), Malformed> {
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(());
        };
        *input = rest;
        self.passed = self.passed.saturating_add(1);
        if byte != b'\n' {
            if self.line.len() >= MAX_LINE {
                return Err(Malformed);
            }
            self.line.push(byte);
            return Ok(());
        }
        let line = core::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        self.state = match self.state {
            State::DataEnd if line.is_empty() => State::Size,
            State::DataEnd => return Err(Malformed),
            State::Size => match chunk_size(line)? {
                0 => State::Trailer { bytes: 0 },
                left => State::Data {
                    left,
                    chunked: true,
                },
            },
            State::Trailer { .. } if line.is_empty() => State::Done,
            State::Trailer { bytes } => {
                let bytes = bytes.saturating_add(line.len());
                if bytes > MAX_TRAILERS {
                    return Err(Malformed);
                }
                State::Trailer { bytes }
            }
            State::Data { left, chunked } => State::Data { left, chunked },
            State::Done => State::Done,
            State::Endless => State::Endless,
        };
        Ok(())
    }
}

/// The size in a chunk's first line; extensions are passed over.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|&b| b == b';').next().unwrap_or_default();
    let text = core::str::from_utf8(digits).map_err(|_| Malformed)?;
    let text = text.trim_end_matches([' ', '\t']);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Malformed);
    }
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}
