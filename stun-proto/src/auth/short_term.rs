//! The short-term credential mechanism, receiving side (RFC 8489 section 9.1.3).

use crate::wire::{ErrorCode, Key, Message, Username, Verified};

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
