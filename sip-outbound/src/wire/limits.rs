//! How much of a message is accepted.

/// Sizes in bytes and counts a received message may have; more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Start line: 2,048 bytes.
    pub start_line: usize,
    /// One header field, folds included: 8,192 bytes.
    pub line: usize,
    /// Header fields: 128.
    pub headers: usize,
    /// The whole head: 65,536 bytes; never more than `u32::MAX`.
    pub head: usize,
    /// The body: 65,536 bytes.
    pub body: usize,
    /// A URI: 1,024 bytes.
    pub uri: usize,
    /// Parameters of one value: 32.
    pub params: usize,
    /// Via values: 70.
    pub vias: usize,
    /// Route, Record-Route, Path or Service-Route values: 16 of each.
    pub routes: usize,
    /// Contact values: 10.
    pub contacts: usize,
}

impl Limits {
    /// What a stream may send before anything is known of its sender: 8 KiB in all.
    pub const UNAUTHENTICATED: Self = Self {
        head: 6 * 1024,
        body: 2 * 1024,
        ..Self::DEFAULT
    };

    /// See [`Default`].
    pub const DEFAULT: Self = Self {
        start_line: 2048,
        line: 8192,
        headers: 128,
        head: 65_536,
        body: 65_536,
        uri: 1024,
        params: 32,
        vias: 70,
        routes: 16,
        contacts: 10,
    };
}

impl Limits {
    /// A bound for the bytes one message takes that was read within these limits.
    pub const fn max_message(&self) -> usize {
        const ROW: usize = core::mem::size_of::<super::scan::Row>();
        const FIXED: usize = 2 * core::mem::size_of::<super::Request>();
        // A vector of rows doubles.
        let rows = self.headers.saturating_mul(2 * ROW);
        let text = self.head.saturating_add(self.body);
        text.saturating_add(rows).saturating_add(FIXED)
    }

    /// A bound for the bytes a stream takes while a message comes in: its head as it grows and as it
    /// is read, its body likewise.
    pub(crate) const fn max_incoming(&self) -> usize {
        let text = self.head.saturating_add(self.body);
        self.max_message().saturating_add(text.saturating_mul(2))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Deviations from the grammar that are accepted when asked for. All are off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// Control characters after a backslash in quoted strings, as the grammar has it (RFC 3261
    /// `quoted-pair`). Never CR or LF.
    pub quoted_controls: bool,
    /// On streams, a missing Content-Length means 0. Old senders do so; it lets a peer that
    /// disagrees about message ends smuggle messages.
    pub assume_zero_length: bool,
}

/// What a parser accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseConfig {
    /// Sizes and counts.
    pub limits: Limits,
    /// Deviations from the grammar.
    pub leniency: Leniency,
}
