//! `name-addr` and `addr-spec` with their parameters: From, To, Contact, Route and the like (RFC
//! 3261 section 20.10).

use alloc::borrow::Cow;

use super::chars::{is_blank, is_token, trim};
use super::params::{Params, quoted_len, unquote};
use super::{Limits, SipUri, Uri, ValueError};

/// One value of From, To, Contact, Route, Record-Route, Path or Service-Route.
///
/// ```
/// use sip_outbound::wire::{Limits, NameAddr};
///
/// let text = r#""A, \"B\"" <sip:a@example.com;x=1> ;tag=7"#;
/// let from = NameAddr::parse(text, &Limits::DEFAULT).unwrap();
/// assert_eq!(from.display_name().as_deref(), Some(r#"A, "B""#));
/// assert_eq!(from.uri.as_str(), "sip:a@example.com;x=1");
/// assert_eq!(from.tag(), Some("7"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    display: Option<&'a str>,
    bracketed: bool,
    /// The URI.
    pub uri: Uri<'a>,
    /// The parameters of the header field, not those of the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value. Without angle brackets, parameters belong to the field and the URI may
    /// hold neither comma nor question mark.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn parse(text: &'a str, limits: &Limits) -> Result<Self, ValueError> {
        let text = trim(text);
        let (display, rest) = split_display(text).ok_or(ValueError::Malformed)?;
        let bracketed = rest.strip_prefix('<');
        let (uri, params) = match bracketed {
            Some(rest) => rest.split_once('>').ok_or(ValueError::Malformed)?,
            None => {
                let ends = |b: u8| b == b';' || is_blank(b);
                let len = rest.bytes().position(ends).unwrap_or(rest.len());
                let (uri, params) = rest.split_at_checked(len).unwrap_or((rest, ""));
                if uri.contains([',', '?']) {
                    return Err(ValueError::Malformed);
                }
                (uri, params)
            }
        };
        Ok(Self {
            display,
            bracketed: bracketed.is_some(),
            uri: Uri::parse(uri, limits)?,
            params: Params::parse(params, limits.params)?,
        })
    }

    /// Reads one value of a field whose values must be SIP URIs in angle brackets (Route,
    /// Record-Route, Path, Service-Route).
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn parse_route(text: &'a str, limits: &Limits) -> Result<(Self, SipUri<'a>), ValueError> {
        let value = Self::parse(text, limits)?;
        match value.uri {
            Uri::Sip(uri) if value.bracketed => Ok((value, uri)),
            Uri::Sip(_) | Uri::Other(_) => Err(ValueError::Malformed),
        }
    }

    /// The display name, quotes and escapes removed.
    pub fn display_name(&self) -> Option<Cow<'a, str>> {
        self.display.map(unquote)
    }

    /// The `tag` parameter.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.value("tag")
    }

    /// The `expires` parameter; a malformed one counts as 3600 (RFC 3261 section 10.2).
    pub fn expires(&self) -> Option<u32> {
        self.params
            .has("expires")
            .then(|| self.params.number("expires").unwrap_or(3600))
    }

    /// The `reg-id` parameter: 1 to 2^31 - 1, otherwise `None` (RFC 5626 section 10).
    pub fn reg_id(&self) -> Option<u32> {
        self.params
            .number("reg-id")
            .filter(|id| (1..=i32::MAX as u32).contains(id))
    }

    /// The instance identifier: the URN inside `+sip.instance="<..>"`.
    pub fn instance(&self) -> Option<Cow<'a, str>> {
        let strip = |text: &str| {
            let urn = text.strip_prefix('<')?.strip_suffix('>')?;
            (!urn.is_empty()).then_some(urn.len())
        };
        match self.params.unquoted("+sip.instance")? {
            Cow::Borrowed(text) => {
                let len = strip(text)?;
                text.get(1..len.saturating_add(1)).map(Cow::Borrowed)
            }
            Cow::Owned(text) => {
                let len = strip(&text)?;
                let urn = text.get(1..len.saturating_add(1))?;
                Some(Cow::Owned(urn.into()))
            }
        }
    }
}

/// Splits the display name off; the rest starts with `<` unless there is no display name.
fn split_display(text: &str) -> Option<(Option<&str>, &str)> {
    if text.starts_with('"') {
        let (display, rest) = text.split_at_checked(quoted_len(text)?)?;
        let rest = trim(rest);
        return rest.starts_with('<').then_some((Some(display), rest));
    }
    // A `<` behind a bare URI would belong to a parameter, and there it must be quoted.
    let plain = text.bytes().position(|b| !is_token(b) && !is_blank(b));
    let at = plain.unwrap_or(text.len());
    let (display, rest) = text.split_at_checked(at)?;
    if rest.starts_with('<') {
        let display = trim(display);
        return Some(((!display.is_empty()).then_some(display), rest));
    }
    Some((None, text))
}
