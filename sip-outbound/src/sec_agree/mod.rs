//! Agreeing on a security mechanism with the first hop (RFC 3329).
//!
//! Small functions over lists of mechanisms; [`UserAgent`](crate::UserAgent) and
//! [`EdgeProxy`](crate::EdgeProxy) use them.

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::{Exchange, HexDigest, Qop, hash_joined};

use crate::wire::{Message, Name, Params, ValueError, all, is_token, unquote};

/// The option tag.
pub(crate) const SEC_AGREE: &str = "sec-agree";

/// Mechanisms in one list that are looked at.
const MAX_MECHANISMS: usize = 16;

/// Parameters of one mechanism.
const MAX_PARAMS: usize = 16;

/// One security mechanism with its parameters, for example `tls;q=0.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecMechanism {
    name: String,
    /// As they are written, from the first `;`.
    params: String,
}

impl SecMechanism {
    /// A mechanism without preference, as clients list it.
    ///
    /// # Errors
    /// [`ValueError::Malformed`] when the name is not a token.
    pub fn new(name: &str) -> Result<Self, ValueError> {
        Self::parse(name)
    }

    /// The same with a preference in thousandths, at most 1,000, as servers list it.
    #[must_use]
    pub fn with_preference(self, thousandths: u16) -> Self {
        let q = thousandths.min(1000);
        let (whole, rest) = (q / 1000, q % 1000);
        let params = alloc::format!("{};q={whole}.{rest:03}", self.params);
        Self { params, ..self }
    }

    fn parse(text: &str) -> Result<Self, ValueError> {
        let (name, params) = match text.find(';') {
            Some(at) => text.split_at_checked(at).unwrap_or((text, "")),
            None => (text, ""),
        };
        let name = name.trim_matches([' ', '\t']);
        if !all(name, is_token) {
            return Err(ValueError::Malformed);
        }
        let mechanism = Self {
            name: name.into(),
            params: Params::parse(params, MAX_PARAMS)?.as_str().into(),
        };
        if mechanism.params().has("q") && mechanism.preference().is_none() {
            return Err(ValueError::Malformed);
        }
        Ok(mechanism)
    }

    /// The name: `tls`, `digest`, `ipsec-3gpp` ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is called so; case does not count.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn params(&self) -> Params<'_> {
        Params::parse(&self.params, MAX_PARAMS).unwrap_or_default()
    }

    /// The value of a parameter, such as `d-alg`, without quotes.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.params().unquoted(name).map(String::from)
    }

    /// The preference (`q`) in thousandths.
    pub fn preference(&self) -> Option<u16> {
        let text = self.params().value("q")?;
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = rest.len() <= 3 && rest.bytes().all(|b| b.is_ascii_digit());
        let rest = alloc::format!("{rest:0<3}").parse::<u16>().ok();
        match (whole, rest.filter(|_| digits)?) {
            ("0", rest) => Some(rest),
            ("1", 0) => Some(1000),
            _ => None,
        }
    }

    /// Same name and same parameters; what only one side computes is left out.
    fn is_same(&self, other: &Self) -> bool {
        let kept = |name: &str| !name.eq_ignore_ascii_case("d-ver");
        let (ours, theirs) = (self.params(), other.params());
        let mut ours = ours.iter().filter(|(name, _)| kept(name));
        let mut theirs = theirs.iter().filter(|(name, _)| kept(name));
        let same = ours.by_ref().all(|(name, value)| {
            theirs.next().is_some_and(|(n, v)| {
                n.eq_ignore_ascii_case(name) && v.map(unquote) == value.map(unquote)
            })
        });
        self.is(&other.name) && same && theirs.next().is_none()
    }
}

impl fmt::Display for SecMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        f.write_str(&self.params)
    }
}

/// Why two sides do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecAgreeError {
    /// The list is missing, empty or malformed.
    #[error("security mechanisms: {0}")]
    List(#[from] ValueError),
    /// Two mechanisms of the server have the same preference.
    #[error("two security mechanisms with the same preference")]
    SamePreference,
    /// None of the server's mechanisms is known.
    #[error("no common security mechanism")]
    NothingCommon,
    /// The server asks again although its list was shown to it as it had sent it: somebody on the
    /// way changes one of the two.
    #[error("the list of security mechanisms was changed on the way")]
    Changed,
}

/// A list of security mechanisms: the value of Security-Client, Security-Server or
/// Security-Verify.
///
/// ```
/// use sip_outbound::SecMechanisms;
///
/// let server = SecMechanisms::parse("ipsec-ike;q=0.1, tls;q=0.2").unwrap();
/// let chosen = server.choose(&["tls", "digest"]).unwrap();
/// assert_eq!(chosen.name(), "tls");
/// // Every further request shows the server what it said.
/// let verify = SecMechanisms::parse(&server.to_string()).unwrap();
/// assert!(server.is_mirrored_by(&verify));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecMechanisms(Vec<SecMechanism>);

impl SecMechanisms {
    /// A list of these.
    ///
    /// # Errors
    /// [`SecAgreeError`] when there is none, or when two have the same preference.
    pub fn new(list: Vec<SecMechanism>) -> Result<Self, SecAgreeError> {
        let list = Self(list);
        list.check_preferences()?;
        if list.0.is_empty() {
            return Err(ValueError::Missing.into());
        }
        Ok(list)
    }

    /// What a client lists: mechanisms by their names, without preference.
    ///
    /// # Errors
    /// [`SecAgreeError::List`] when there is none or one is not a token.
    pub fn of_client(names: &[&str]) -> Result<Self, SecAgreeError> {
        let list: Result<Vec<_>, _> = names.iter().map(|name| SecMechanism::new(name)).collect();
        let list = list?;
        if list.is_empty() {
            return Err(ValueError::Missing.into());
        }
        Ok(Self(list))
    }

    /// Reads one value.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        Self::read(crate::wire::split_list(text).filter(|part| !part.is_empty()))
    }

    /// Reads all values of this name in a message.
    ///
    /// # Errors
    /// [`ValueError`]; [`ValueError::Missing`] when there is none.
    pub fn of(message: &Message, name: Name) -> Result<Self, ValueError> {
        Self::read(message.list(name))
    }

    fn read<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Self, ValueError> {
        let mut list = Vec::new();
        for part in parts {
            if list.len() >= MAX_MECHANISMS {
                return Err(ValueError::Limit);
            }
            list.push(SecMechanism::parse(part)?);
        }
        if list.is_empty() {
            return Err(ValueError::Missing);
        }
        Ok(Self(list))
    }

    /// The mechanisms in their order.
    pub fn iter(&self) -> impl Iterator<Item = &SecMechanism> {
        self.0.iter()
    }

    fn check_preferences(&self) -> Result<(), SecAgreeError> {
        for (at, mechanism) in self.0.iter().enumerate() {
            let mut later = self.0.iter().skip(at.saturating_add(1));
            if later.any(|other| other.preference() == mechanism.preference()) {
                return Err(SecAgreeError::SamePreference);
            }
        }
        Ok(())
    }

    /// Of a server's list, the mechanism with the highest preference that is known (RFC 3329
    /// section 2.3.1).
    ///
    /// # Errors
    /// [`SecAgreeError`].
    pub fn choose(&self, known: &[&str]) -> Result<&SecMechanism, SecAgreeError> {
        self.check_preferences()?;
        self.0
            .iter()
            .filter(|mechanism| known.iter().any(|known| mechanism.is(known)))
            .max_by_key(|mechanism| mechanism.preference())
            .ok_or(SecAgreeError::NothingCommon)
    }

    /// Whether a client's Security-Verify shows this list: the same mechanisms in the same order
    /// with the same parameters. `d-ver` is the client's own.
    pub fn is_mirrored_by(&self, verify: &Self) -> bool {
        let both = self.0.iter().zip(&verify.0);
        self.0.len() == verify.0.len()
            && both.into_iter().all(|(ours, theirs)| ours.is_same(theirs))
    }
}

impl fmt::Display for SecMechanisms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mechanism) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{mechanism}")?;
        }
        Ok(())
    }
}

/// `d-ver` of the mechanism `digest`: proves the server's list with the user's password (RFC 3329
/// section 2.2). Counted as the response of a request, with the value of Security-Server as a
/// further part of what is hashed; `key` is H(user:realm:password).
pub fn digest_verify(
    exchange: &Exchange<'_>,
    key: &HexDigest,
    method: &str,
    body: &[u8],
    security_server: &str,
) -> HexDigest {
    let hash = exchange.hash;
    let list = single_blanks(security_server);
    let mut second: Vec<&[u8]> = alloc::vec![method.as_bytes(), exchange.uri.as_bytes()];
    let body = hash_joined(hash, &[body]);
    match exchange.qop {
        Some(Qop::AuthInt) => second.push(body.as_bytes()),
        Some(Qop::Auth) | None => {}
    }
    second.push(list.as_bytes());
    let second = hash_joined(hash, &second);
    let (nonce, cnonce) = (exchange.nonce.as_bytes(), exchange.cnonce.as_bytes());
    match exchange.qop {
        None => hash_joined(hash, &[key.as_bytes(), nonce, second.as_bytes()]),
        Some(qop) => {
            let count = alloc::format!("{:08x}", exchange.nc);
            let parts = [
                key.as_bytes(),
                nonce,
                count.as_bytes(),
                cnonce,
                qop.name().as_bytes(),
                second.as_bytes(),
            ];
            hash_joined(hash, &parts)
        }
    }
}

/// Each run of blanks as one space.
fn single_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let blank = matches!(c, ' ' | '\t' | '\r' | '\n');
        match (blank, out.ends_with(' ')) {
            (true, true) => {}
            (true, false) => out.push(' '),
            (false, _) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
