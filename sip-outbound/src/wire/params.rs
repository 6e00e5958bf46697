//! `;name=value` behind the value of a header field (RFC 3261 section 7.3.1).

use alloc::borrow::Cow;
use alloc::string::String;

use super::ValueError;
use super::chars::{is_blank, is_param_value, is_token, trim};

/// The parameters of one value, checked once and then read without failure. Names compare
/// without regard to case; no name occurs twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    text: &'a str,
}

impl<'a> Params<'a> {
    /// Checks `;name=value;name ..`, blanks anywhere between.
    ///
    /// # Errors
    /// [`ValueError`]: not of this form, a name twice, or more than `max` parameters.
    pub fn parse(text: &'a str, max: usize) -> Result<Self, ValueError> {
        let text = trim(text);
        let (mut rest, mut count) = (text, 0_usize);
        while !rest.is_empty() {
            let (name, _, next) = split_param(rest).ok_or(ValueError::Malformed)?;
            let earlier = text.len().saturating_sub(rest.len());
            let before = Params {
                text: text.get(..earlier).unwrap_or_default(),
            };
            if before.has(name) {
                return Err(ValueError::DuplicateParameter);
            }
            count = count.saturating_add(1);
            if count > max {
                return Err(ValueError::Limit);
            }
            rest = next;
        }
        Ok(Self { text })
    }

    /// The parameters as they were written, `;` included.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// Whether there is a parameter of this name, with or without value.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The value of a parameter as written, quotes included; `None` when the parameter is absent
    /// or has no value.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| value)
    }

    /// The value of a parameter, quotes and escapes removed.
    pub fn unquoted(&self, name: &str) -> Option<Cow<'a, str>> {
        self.value(name).map(unquote)
    }

    /// The value of a parameter as a number of at most ten digits.
    pub fn number(&self, name: &str) -> Option<u32> {
        super::values::decimal(self.value(name)?)
    }

    /// Names and values as written, in their order.
    pub const fn iter(&self) -> ParamIter<'a> {
        ParamIter { rest: self.text }
    }
}

/// Iterator over parameters. See [`Params::iter`].
#[derive(Clone, Debug)]
pub struct ParamIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for ParamIter<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value, rest) = split_param(self.rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

/// Splits the first parameter off: name, value as written, the rest.
fn split_param(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let rest = trim(trim(text).strip_prefix(';')?);
    let (name, rest) = split_run(rest, is_token);
    if name.is_empty() {
        return None;
    }
    let Some(rest) = trim(rest).strip_prefix('=') else {
        return at_param_end(rest).map(|rest| (name, None, rest));
    };
    let rest = trim(rest);
    let (value, rest) = if rest.starts_with('"') {
        rest.split_at_checked(quoted_len(rest)?)?
    } else {
        split_run(rest, is_param_value)
    };
    if value.is_empty() {
        return None;
    }
    at_param_end(rest).map(|rest| (name, Some(value), rest))
}

fn at_param_end(rest: &str) -> Option<&str> {
    let rest = trim(rest);
    (rest.is_empty() || rest.starts_with(';')).then_some(rest)
}

/// Splits off the longest run of such bytes.
pub(crate) fn split_run(text: &str, class: impl Fn(u8) -> bool) -> (&str, &str) {
    let len = text.bytes().position(|b| !class(b)).unwrap_or(text.len());
    text.split_at_checked(len).unwrap_or((text, ""))
}

/// The length of the quoted string `text` starts with, both quotes included.
pub(crate) fn quoted_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if at == 0 => {}
            _ if at == 0 => return None,
            b'"' if !escaped => return Some(at.saturating_add(1)),
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    None
}

/// `text` without the quotes around it and the escapes inside, if it is a quoted string.
pub fn unquote(text: &str) -> Cow<'_, str> {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let Some(inner) = inner else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// `text` as a quoted string, quotes and backslashes escaped.
///
/// Control characters cannot be quoted and are left out.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The parts of a comma list, blanks around them removed; commas inside quotes and angle
/// brackets do not count. Empty parts are kept.
pub const fn split_list(text: &str) -> ListIter<'_> {
    ListIter { rest: Some(text) }
}

/// Iterator over the parts of a comma list. See [`split_list`].
#[derive(Clone, Debug)]
pub struct ListIter<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for ListIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest?;
        let (part, rest) = match list_comma(text) {
            None => (text, None),
            Some(at) => (
                text.get(..at).unwrap_or_default(),
                text.get(at.saturating_add(1)..),
            ),
        };
        self.rest = rest;
        Some(trim(part))
    }
}

/// Where the first comma stands that separates parts of a list.
pub(crate) fn list_comma(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if !quoted => angle = false,
            b',' if !quoted && !angle => return Some(at),
            _ => {}
        }
        escaped = quoted && byte == b'\\' && !escaped;
    }
    None
}

/// The words of a blank-separated text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii() && is_blank(c as u8))
        .filter(|word| !word.is_empty())
}
