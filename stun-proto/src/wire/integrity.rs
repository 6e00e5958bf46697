//! Keys, message integrity and what it proves (RFC 8489 sections 9, 14.5, 14.6 and 18.5).

use core::fmt;
use core::ops::Deref;

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Digest as _;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::message::{Mac, Message};

/// Which code protects a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntegrityAlgorithm {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, 20 bytes.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, 16 to 32 bytes.
    Sha256,
}

/// The number of a password algorithm (RFC 8489 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PasswordAlgorithmId(pub u16);

impl PasswordAlgorithmId {
    /// The key is MD5 of user, realm and password: 16 bytes.
    pub const MD5: Self = Self(0x0001);
    /// The key is SHA-256 of user, realm and password: 32 bytes.
    pub const SHA256: Self = Self(0x0002);
}

/// A key for message integrity, with the padded inner and outer states of both HMACs kept, so
/// that each use costs two compressions less.
///
/// `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Key {
    sha1: Hmac<Sha1>,
    sha256: Hmac<Sha256>,
}

impl Key {
    /// A key from its raw bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // HMAC takes keys of every length; the empty fallback is never reached.
        let sha1 = Hmac::new_from_slice(bytes).unwrap_or_else(|_| Hmac::new(&Default::default()));
        let sha256 = Hmac::new_from_slice(bytes).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { sha1, sha256 }
    }

    /// The short-term key: the password, which the caller has processed with OpaqueString
    /// (printable ASCII needs no processing).
    pub fn short_term(password: &str) -> Self {
        Self::from_bytes(password.as_bytes())
    }

    /// The long-term key of `algorithm`, `None` when the algorithm is not known.
    ///
    /// Quotes around user name and realm, and trailing NULs of all three, do not count (RFC 8489
    /// section 9.2.2).
    pub fn long_term(
        algorithm: PasswordAlgorithmId,
        username: &[u8],
        realm: &[u8],
        password: &[u8],
    ) -> Option<Self> {
        let (user, realm) = (unquoted(username), unquoted(realm));
        let parts = [user, b":", realm, b":", without_nuls(password)];
        match algorithm {
            PasswordAlgorithmId::MD5 => {
                let mut hash = md5::Md5::new();
                parts.iter().for_each(|part| hash.update(part));
                Some(Self::from_bytes(&hash.finalize()))
            }
            PasswordAlgorithmId::SHA256 => {
                let mut hash = Sha256::new();
                parts.iter().for_each(|part| hash.update(part));
                Some(Self::from_bytes(&hash.finalize()))
            }
            _ => None,
        }
    }

    pub(crate) fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut mac = self.sha1.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.sha256.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Strips one pair of double quotes and trailing NULs.
fn unquoted(text: &[u8]) -> &[u8] {
    match without_nuls(text) {
        [b'"', inner @ .., b'"'] => inner,
        text => text,
    }
}

fn without_nuls(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&b| b != 0);
    end.and_then(|last| text.get(..=last)).unwrap_or_default()
}

/// The value of USERHASH: SHA-256 of `username ":" realm` (RFC 8489 section 14.4).
pub fn userhash(username: &[u8], realm: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    [username, b":", realm]
        .iter()
        .for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// Why a message is not proven to come from a holder of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntegrityError {
    /// There is no integrity attribute.
    #[error("no integrity attribute")]
    Absent,
    /// The code is wrong, or shorter than allowed.
    #[error("integrity does not match")]
    Mismatch,
}

/// A message whose sender has proven to hold the key.
///
/// Only made by [`Message::verify`]; state machines change state for nothing less.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    message: Message<'a>,
    algorithm: IntegrityAlgorithm,
}

impl Verified<'_> {
    /// Which attribute proved it; the response is protected by the same.
    pub const fn algorithm(&self) -> IntegrityAlgorithm {
        self.algorithm
    }
}

impl<'a> Deref for Verified<'a> {
    type Target = Message<'a>;

    fn deref(&self) -> &Message<'a> {
        &self.message
    }
}

impl<'a> Message<'a> {
    /// Checks MESSAGE-INTEGRITY-SHA256 if it is there (all 32 bytes of it), else
    /// MESSAGE-INTEGRITY, in constant time.
    ///
    /// # Errors
    /// [`IntegrityError`].
    pub fn verify(&self, key: &Key) -> Result<Verified<'a>, IntegrityError> {
        self.verify_truncated(key, 32)
    }

    /// As [`verify`](Self::verify), for a usage that lets MESSAGE-INTEGRITY-SHA256 be cut down to
    /// `shortest` bytes; never below 16 (RFC 8489 section 14.6).
    ///
    /// # Errors
    /// [`IntegrityError`].
    pub fn verify_truncated(
        &self,
        key: &Key,
        shortest: usize,
    ) -> Result<Verified<'a>, IntegrityError> {
        let (right, algorithm) = match (&self.sha256, &self.sha1) {
            (Some(mac), _) => (
                self.matches_sha256(key, mac, shortest.max(16)),
                IntegrityAlgorithm::Sha256,
            ),
            (None, Some(mac)) => (self.matches_sha1(key, mac), IntegrityAlgorithm::Sha1),
            (None, None) => return Err(IntegrityError::Absent),
        };
        if right {
            Ok(Verified {
                message: *self,
                algorithm,
            })
        } else {
            Err(IntegrityError::Mismatch)
        }
    }

    fn matches_sha1(&self, key: &Key, mac: &Mac<'_>) -> bool {
        let (head, rest) = self.covered_by(mac);
        key.sha1(&[&head, rest]).ct_eq(mac.value).into()
    }

    fn matches_sha256(&self, key: &Key, mac: &Mac<'_>, shortest: usize) -> bool {
        let len = mac.value.len();
        if len < shortest || len > 32 || !len.is_multiple_of(4) {
            return false;
        }
        let (head, rest) = self.covered_by(mac);
        let code = key.sha256(&[&head, rest]);
        code.get(..len)
            .is_some_and(|prefix| prefix.ct_eq(mac.value).into())
    }
}
