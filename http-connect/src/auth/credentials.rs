//! User name and password, and the Basic scheme (RFC 7617).

use alloc::string::String;
use core::fmt;

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use super::Challenge;

/// A password or the like: wiped when dropped, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<alloc::vec::Vec<u8>>);

impl Secret {
    /// Takes in a secret; AKA passwords are bytes, all others text.
    pub fn new(bytes: impl Into<alloc::vec::Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The secret itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A user name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl Credentials {
    /// Credentials for whatever realm asks for them.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
        }
    }
}

/// The name cannot be said in Basic: it holds a colon, or one of both holds control characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user name or password cannot be sent by Basic authentication")]
pub struct NotForBasic;

/// The value of an `Authorization` field for Basic (RFC 7617 section 2).
///
/// ```
/// use http_connect::auth::{Credentials, basic_authorization};
///
/// let credentials = Credentials::new("Aladdin", "open sesame");
/// let value = basic_authorization(&credentials).unwrap();
/// assert_eq!(value.as_str(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
/// ```
///
/// # Errors
/// [`NotForBasic`].
pub fn basic_authorization(credentials: &Credentials) -> Result<Zeroizing<String>, NotForBasic> {
    let (user, password) = (
        credentials.username.as_bytes(),
        credentials.password.expose(),
    );
    if user.contains(&b':') || user.iter().chain(password).any(u8::is_ascii_control) {
        return Err(NotForBasic);
    }
    let plain = Zeroizing::new([user, b":", password].concat());
    let mut value = Zeroizing::new(String::from("Basic "));
    value.push_str(&Zeroizing::new(Base64::encode_string(&plain)));
    Ok(value)
}

/// Reads Basic credentials: user name and password, split at the first colon. `None` when they
/// are malformed or of another scheme.
pub fn parse_basic(credentials: &Challenge<'_>) -> Option<Credentials> {
    let token = credentials.token68.filter(|_| credentials.is("Basic"))?;
    let plain = Zeroizing::new(Base64::decode_vec(token).ok()?);
    let colon = plain.iter().position(|&b| b == b':')?;
    let (user, password) = plain.split_at_checked(colon)?;
    if plain.iter().any(u8::is_ascii_control) {
        return None;
    }
    Some(Credentials {
        username: String::from(core::str::from_utf8(user).ok()?),
        password: Secret::new(password.get(1..)?),
    })
}
