//! The short-term credential mechanism (RFC 8489 section 9.1).

use alloc::string::String;

use super::long_term_client::Discarded;
use crate::wire::{
    ErrorCode, IntegrityAlgorithm, Key, Message, TextTooLong, Username, Verified, WriteError,
    Writer,
};

/// The sending side: user name, key, and which integrity the server is known to speak.
///
/// ```
/// use stun_proto::auth::ShortTermClient;
/// use stun_proto::wire::{IntegrityAlgorithm, Key, MessageType, Method, TransactionId, Writer};
///
/// // ICE knows in advance that MESSAGE-INTEGRITY is used.
/// let client = ShortTermClient::new("them:us", Key::short_term("their password"))
///     .unwrap()
///     .only(IntegrityAlgorithm::Sha1);
/// let mut buf = [0; 548];
/// let writer = Writer::new(
///     &mut buf,
///     MessageType::request(Method::BINDING),
///     TransactionId([1; 12]),
/// );
/// let len = client.finish(writer).unwrap();
/// assert_eq!(len, 20 + 12 + 24);
/// ```
#[derive(Clone, Debug)]
pub struct ShortTermClient {
    username: String,
    key: Key,
    /// Known from outside, or by the first response; both are sent until then.
    algorithm: Option<IntegrityAlgorithm>,
}

impl ShortTermClient {
    /// A client that knows nothing of the server: requests carry both kinds of integrity.
    ///
    /// # Errors
    /// [`TextTooLong`] for a user name above 508 bytes.
    pub fn new(username: impl Into<String>, key: Key) -> Result<Self, TextTooLong> {
        let username = username.into();
        Username::new(&username)?;
        Ok(Self {
            username,
            key,
            algorithm: None,
        })
    }

    /// Uses only this integrity, which the server is known to speak.
    #[must_use]
    pub fn only(mut self, algorithm: IntegrityAlgorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Finishes a request or an indication.
    ///
    /// # Errors
    /// [`WriteError`] when the buffer is too small.
    pub fn finish(&self, writer: Writer<'_>) -> Result<usize, WriteError> {
        let username = Username::new(&self.username).ok();
        let writer = writer.maybe(username.as_ref());
        match self.algorithm {
            Some(algorithm) => writer.integrity(algorithm, &self.key).finish(),
            None => writer
                .message_integrity(&self.key)
                .message_integrity_sha256(&self.key)
                .finish(),
        }
    }

    /// Accepts a response if the key proves it, and remembers for later requests which kind of
    /// integrity the server chose. Over a stream no better response can come.
    ///
    /// # Errors
    /// [`Discarded`]: the response counts as never received.
    pub fn judge<'a>(&mut self, response: &Message<'a>) -> Result<Verified<'a>, Discarded> {
        let verified = response.verify(&self.key).ok();
        let fits = |v: &Verified<'_>| self.algorithm.is_none_or(|known| known == v.algorithm());
        let Some(verified) = verified.filter(fits) else {
            let code = response.find::<ErrorCode<'_>>().map(|error| error.code());
            return Err(Discarded::Integrity { code });
        };
        self.algorithm = Some(verified.algorithm());
        Ok(verified)
    }

    /// The key, for what else is to be protected with it.
    pub const fn key(&self) -> &Key {
        &self.key
    }
}

/// Why a message does not prove the short-term credentials. A request is answered with
/// [`code`](Self::code), unprotected; an indication is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShortTermRefusal {
    /// No integrity or no USERNAME.
    #[error("integrity or USERNAME missing")]
    Incomplete,
    /// Nobody here has this name.
    #[error("unknown user")]
    UnknownUser,
    /// The code does not fit the key.
    #[error("integrity does not match")]
    WrongKey,
}

impl ShortTermRefusal {
    /// The error code of the answer.
    pub const fn code(self) -> u16 {
        match self {
            Self::Incomplete => ErrorCode::BAD_REQUEST,
            Self::UnknownUser | Self::WrongKey => ErrorCode::UNAUTHENTICATED,
        }
    }
}

/// Checks a request or indication, in the order of the RFC. `key_of` finds the key of a user.
///
/// ```
/// use stun_proto::auth::authenticate_short_term;
/// use stun_proto::wire::{Key, Message, MessageType, Method, TransactionId, Username, Writer};
///
/// let key = Key::short_term("a password of the session");
/// let mut buf = [0; 548];
/// let ty = MessageType::request(Method::BINDING);
/// let len = Writer::new(&mut buf, ty, TransactionId([1; 12]))
///     .attribute(&Username::new("them:us").unwrap())
///     .message_integrity(&key)
///     .finish()
///     .unwrap();
/// let message = Message::parse(&buf[..len]).unwrap();
/// let verified = authenticate_short_term(&message, |user| (user == b"them:us").then_some(&key));
/// assert!(verified.is_ok());
/// ```
///
/// # Errors
/// [`ShortTermRefusal`].
pub fn authenticate_short_term<'a, 'k>(
    message: &Message<'a>,
    key_of: impl FnOnce(&[u8]) -> Option<&'k Key>,
) -> Result<Verified<'a>, ShortTermRefusal> {
    let username: Option<Username<'_>> = message.find();
    let Some(username) = username.filter(|_| message.has_integrity()) else {
        return Err(ShortTermRefusal::Incomplete);
    };
    let key = key_of(username.as_bytes()).ok_or(ShortTermRefusal::UnknownUser)?;
    message.verify(key).map_err(|_| ShortTermRefusal::WrongKey)
}
