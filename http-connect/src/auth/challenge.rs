//! Reading what a server asks for and what a client shows (RFC 9110 section 11).

use core::fmt;

use alloc::borrow::Cow;
use alloc::string::String;

use smallvec::SmallVec;

use crate::text::is_token_byte;

/// How many parameters one challenge may have.
const MAX_PARAMETERS: usize = 32;

/// A field does not follow the grammar of challenges or credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed authentication field at byte {offset}")]
pub struct ChallengeError {
    /// Offset of the first byte that is wrong.
    pub offset: usize,
}

/// The value of a parameter, as it stands in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RawValue<'a> {
    text: &'a str,
    /// `text` is what stood between double quotes, escapes still in it.
    quoted: bool,
}

impl<'a> RawValue<'a> {
    fn unescaped(self) -> Cow<'a, str> {
        if !self.quoted || !self.text.contains('\\') {
            return Cow::Borrowed(self.text);
        }
        let mut plain = String::with_capacity(self.text.len());
        let mut escaped = false;
        for c in self.text.chars() {
            if c == '\\' && !escaped {
                escaped = true;
            } else {
                escaped = false;
                plain.push(c);
            }
        }
        Cow::Owned(plain)
    }
}

/// One challenge (`WWW-Authenticate`, `Proxy-Authenticate`) or one set of credentials
/// (`Authorization`, `Proxy-Authorization`): a scheme with a token or with parameters. `Debug` shows
/// the scheme only, since the rest may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The scheme, as written; compare without regard to case.
    pub scheme: &'a str,
    /// The token, for schemes that have one instead of parameters.
    pub token68: Option<&'a str>,
    parameters: SmallVec<[(&'a str, RawValue<'a>); 8]>,
}

impl fmt::Debug for Challenge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.get(..64).unwrap_or(self.scheme);
        f.debug_tuple("Challenge").field(&scheme).finish()
    }
}

impl<'a> Challenge<'a> {
    /// Reads a field that holds exactly one, as credentials do.
    ///
    /// # Errors
    /// [`ChallengeError`].
    pub fn parse(field: &'a str) -> Result<Self, ChallengeError> {
        let mut all = challenges(field);
        let first = all.next().unwrap_or(Err(ChallengeError { offset: 0 }))?;
        match all.next() {
            None => Ok(first),
            Some(_) => Err(ChallengeError { offset: all.offset }),
        }
    }

    /// Whether this is the scheme, without regard to case.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The first parameter of this name (without regard to case), quotes and escapes removed.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.parameters
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.unescaped())
    }

    /// Whether a parameter comes twice, so that nobody knows which one counts.
    pub(super) fn is_ambiguous(&self) -> bool {
        let mut seen: SmallVec<[&str; 16]> = SmallVec::new();
        self.parameters.iter().any(|(name, _)| {
            let again = seen.iter().any(|known| known.eq_ignore_ascii_case(name));
            seen.push(name);
            again
        })
    }

    /// All parameters in their order, quotes and escapes removed.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.parameters
            .iter()
            .map(|(name, value)| (*name, value.unescaped()))
    }
}

/// Reads the challenges of one field; ends after the first error.
///
/// ```
/// use http_connect::auth::challenges;
///
/// let field = r#"Negotiate, Basic realm="a, b", Digest realm="x", nonce="n""#;
/// let schemes: Vec<_> = challenges(field).map(|c| c.unwrap().scheme).collect();
/// assert_eq!(schemes, ["Negotiate", "Basic", "Digest"]);
/// ```
pub const fn challenges(field: &str) -> Challenges<'_> {
    Challenges {
        field,
        offset: 0,
        failed: false,
    }
}

/// Iterator over the challenges of a field. See [`challenges`].
#[derive(Clone)]
pub struct Challenges<'a> {
    field: &'a str,
    offset: usize,
    failed: bool,
}

impl fmt::Debug for Challenges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl<'a> Iterator for Challenges<'a> {
    type Item = Result<Challenge<'a>, ChallengeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        self.run(|b| matches!(b, b',' | b' ' | b'\t'));
        if self.rest().is_empty() {
            return None;
        }
        let challenge = self.challenge();
        self.failed = challenge.is_none();
        Some(challenge.ok_or(ChallengeError {
            offset: self.offset,
        }))
    }
}

impl<'a> Challenges<'a> {
    fn rest(&self) -> &'a str {
        self.field.get(self.offset..).unwrap_or_default()
    }

    fn advance(&mut self, by: usize) {
        self.offset = self.offset.saturating_add(by);
    }

    /// Passes over the longest run of such bytes and returns it.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.bytes().position(|b| !wanted(b)).unwrap_or(rest.len());
        self.advance(len);
        rest.get(..len).unwrap_or_default()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest().as_bytes().first() == Some(&byte);
        self.advance(usize::from(found));
        found
    }

    fn challenge(&mut self) -> Option<Challenge<'a>> {
        let scheme = self.run(is_token_byte);
        if scheme.is_empty() {
            return None;
        }
        let mut challenge = Challenge {
            scheme,
            token68: None,
            parameters: SmallVec::new(),
        };
        let spaces = self.run(|b| b == b' ');
        if self.at_end_of_challenge() {
            return Some(challenge);
        }
        if spaces.is_empty() {
            return None;
        }
        if let Some(token) = self.token68() {
            challenge.token68 = Some(token);
            return Some(challenge);
        }
        loop {
            let parameter = self.parameter()?;
            if challenge.parameters.len() >= MAX_PARAMETERS {
                return None;
            }
            challenge.parameters.push(parameter);
            self.run(is_blank);
            if self.rest().is_empty() {
                return Some(challenge);
            }
            // Behind a comma stands either another parameter or the next challenge.
            let before = self.offset;
            if !self.eat(b',') {
                return None;
            }
            self.run(|b| b == b',' || is_blank(b));
            if self.rest().is_empty() {
                return Some(challenge);
            }
            if !self.parameter_follows() {
                self.offset = before;
                return Some(challenge);
            }
        }
    }

    fn at_end_of_challenge(&self) -> bool {
        let rest = self.rest().trim_start_matches(['\t', ' ']);
        rest.is_empty() || rest.starts_with(',')
    }

    fn token68(&mut self) -> Option<&'a str> {
        let start = self.offset;
        let text = self.run(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        let padding = self.run(|b| b == b'=');
        if !text.is_empty() && self.at_end_of_challenge() {
            let end = start
                .saturating_add(text.len())
                .saturating_add(padding.len());
            return self.field.get(start..end);
        }
        self.offset = start;
        None
    }

    fn parameter_follows(&self) -> bool {
        let mut ahead = self.clone();
        let name = ahead.run(is_token_byte);
        ahead.run(is_blank);
        !name.is_empty() && ahead.eat(b'=')
    }

    fn parameter(&mut self) -> Option<(&'a str, RawValue<'a>)> {
        let name = self.run(is_token_byte);
        self.run(is_blank);
        if name.is_empty() || !self.eat(b'=') {
            return None;
        }
        self.run(is_blank);
        if !self.eat(b'"') {
            // More than a token, since nonces and URIs are found without quotes as well.
            let text = self.run(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\'));
            let quoted = false;
            return (!text.is_empty()).then_some((name, RawValue { text, quoted }));
        }
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        })?;
        self.advance(end.saturating_add(1));
        let text = rest.get(..end)?;
        let quoted = true;
        let printable = text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7F));
        printable.then_some((name, RawValue { text, quoted }))
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Appends `text` as a quoted string; what cannot stand in one is left out.
pub(super) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars().filter(|c| *c == '\t' || !c.is_ascii_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
