//! What can be wrong with bytes and with values.

/// Why bytes are not the head of a SIP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct ParseError {
    /// Offset of the byte that does not fit, or of the line it stands in.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ParseErrorKind,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The bytes end inside the head.
    #[error("incomplete head")]
    Incomplete,
    /// The first line is neither a request line nor a status line of SIP.
    #[error("not a SIP start line")]
    StartLine,
    /// A carriage return without line feed, or a line feed alone.
    #[error("line end is not CR LF")]
    LineEnd,
    /// NUL or another control character.
    #[error("control character")]
    Control,
    /// A header field without a colon, or whose name is not a token.
    #[error("malformed header field name")]
    HeaderName,
    /// The start line is folded.
    #[error("folded start line")]
    Fold,
    /// The start line is longer than allowed.
    #[error("start line too long")]
    StartLineTooLong,
    /// A header field is longer than allowed.
    #[error("header field too long")]
    LineTooLong,
    /// There are more header fields than allowed.
    #[error("too many header fields")]
    TooManyHeaders,
    /// The head as a whole is longer than allowed.
    #[error("head too long")]
    HeadTooLong,
}

/// Why the value of a header field cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The field is not there.
    #[error("missing")]
    Missing,
    /// The field may occur once and occurs more often.
    #[error("repeated")]
    Repeated,
    /// The value does not follow the grammar.
    #[error("malformed")]
    Malformed,
    /// A number is larger than the protocol allows.
    #[error("out of range")]
    OutOfRange,
    /// A parameter name occurs twice.
    #[error("parameter given twice")]
    DuplicateParameter,
    /// Longer, or with more parts, than the configured limit.
    #[error("over a limit")]
    Limit,
}

/// Why a message cannot be written as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The method, a header name or a parameter name is not a token.
    #[error("not a token")]
    Token,
    /// The request URI is not a URI.
    #[error("not a URI")]
    Uri,
    /// A value holds CR, LF, NUL or another control character.
    #[error("control character in a value")]
    Control,
    /// The status code is not between 100 and 699.
    #[error("status code out of range")]
    Status,
    /// The field to be changed is not there or cannot be read.
    #[error("no such value")]
    NoSuchValue,
    /// The message would break a limit of [`Limits`](super::Limits).
    #[error("message over a limit: {0}")]
    Limit(ParseErrorKind),
}
