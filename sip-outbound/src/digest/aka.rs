//! Passwords that a smart card makes (RFC 3310, RFC 4169).

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_connect::auth::{Aka, Algorithm, HashAlgorithm, Secret};
use zeroize::Zeroizing;

/// What the card is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AkaChallenge {
    /// Who asks.
    pub realm: String,
    /// The random challenge.
    pub rand: [u8; 16],
    /// The network's proof that it knows the key.
    pub autn: [u8; 16],
}

impl AkaChallenge {
    /// Reads RAND and AUTN out of a nonce; data of the server may follow them.
    pub(super) fn from_nonce(realm: &str, nonce: &str) -> Option<Self> {
        let bytes = Base64::decode_vec(nonce).ok()?;
        let (rand, rest) = bytes.split_first_chunk()?;
        let (autn, _) = rest.split_first_chunk()?;
        Some(Self {
            realm: realm.into(),
            rand: *rand,
            autn: *autn,
        })
    }
}

/// What the card says.
#[derive(Clone, PartialEq, Eq)]
pub enum AkaAnswer {
    /// The network is right.
    Response {
        /// The response, 4 to 16 bytes.
        res: Secret,
        /// The integrity key; used by AKAv2 only.
        ik: Secret,
        /// The cipher key; used by AKAv2 only.
        ck: Secret,
    },
    /// The sequence number is out of range: AUTS asks for another.
    SyncFailure {
        /// AUTS.
        auts: [u8; 14],
    },
    /// The network does not know the key.
    MacFailure,
}

impl core::fmt::Debug for AkaAnswer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Response { .. } => "Response(..)",
            Self::SyncFailure { .. } => "SyncFailure(..)",
            Self::MacFailure => "MacFailure",
        })
    }
}

/// The password Digest is computed with.
pub(super) fn password(algorithm: Algorithm, res: &Secret, ik: &Secret, ck: &Secret) -> Secret {
    if algorithm.aka != Some(Aka::V2) {
        return Secret::new(res.expose());
    }
    let key: Zeroizing<Vec<u8>> = Zeroizing::new([res.expose(), ik.expose(), ck.expose()].concat());
    let label = b"http-digest-akav2-password";
    // HMAC takes keys of every length: the empty text is never the result.
    macro_rules! mac {
        ($hash:ty) => {
            Hmac::<$hash>::new_from_slice(&key).map_or_else(
                |_| String::new(),
                |mut mac| {
                    mac.update(label);
                    Base64::encode_string(&mac.finalize().into_bytes())
                },
            )
        };
    }
    let text = match algorithm.hash {
        HashAlgorithm::Md5 => mac!(md5::Md5),
        HashAlgorithm::Sha256 => mac!(sha2::Sha256),
        HashAlgorithm::Sha512_256 => mac!(sha2::Sha512_256),
    };
    Secret::new(text)
}

/// AUTS as it stands in the field.
pub(super) fn auts_text(auts: &[u8; 14]) -> String {
    Base64::encode_string(auts)
}
