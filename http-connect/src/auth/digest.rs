//! The Digest scheme's arithmetic (RFC 7616 section 3.4).

use core::fmt;

use alloc::string::String;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

/// The hash functions of Digest, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// MD5: 32 digits.
    Md5,
    /// SHA-256: 64 digits.
    Sha256,
    /// SHA-512/256, as FIPS 180-4 defines it: 64 digits.
    Sha512_256,
}

/// Digest as IMS uses it, where a smart card makes the password (RFC 3310, RFC 4169).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aka {
    /// AKAv1: the password is RES, as it is.
    V1,
    /// AKAv2: the password is derived from RES, IK and CK.
    V2,
}

/// The `algorithm` of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Algorithm {
    /// The hash function.
    pub hash: HashAlgorithm,
    /// The `-sess` form: the first nonce and cnonce are part of the key.
    pub session: bool,
    /// Where the password comes from, if not from a user.
    pub aka: Option<Aka>,
}

impl Algorithm {
    /// MD5, also meant when a challenge names no algorithm.
    pub const MD5: Self = Self::of(HashAlgorithm::Md5);
    /// SHA-256.
    pub const SHA256: Self = Self::of(HashAlgorithm::Sha256);
    /// SHA-512/256.
    pub const SHA512_256: Self = Self::of(HashAlgorithm::Sha512_256);

    const fn of(hash: HashAlgorithm) -> Self {
        Self {
            hash,
            session: false,
            aka: None,
        }
    }

    /// The `-sess` form of it.
    #[must_use]
    pub const fn session(self) -> Self {
        Self {
            session: true,
            aka: None,
            ..self
        }
    }

    /// The algorithm of this name, without regard to case.
    ///
    /// ```
    /// use http_connect::auth::{Aka, Algorithm};
    ///
    /// assert_eq!(Algorithm::from_name("sha-256-sess"), Some(Algorithm::SHA256.session()));
    /// let aka = Algorithm { aka: Some(Aka::V1), ..Algorithm::MD5 };
    /// assert_eq!(Algorithm::from_name("AKAv1-MD5"), Some(aka));
    /// assert_eq!(Algorithm::from_name("FOO-1"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        const HASHES: [HashAlgorithm; 3] = [
            HashAlgorithm::Md5,
            HashAlgorithm::Sha256,
            HashAlgorithm::Sha512_256,
        ];
        HASHES
            .into_iter()
            .map(Self::of)
            .flat_map(|plain| {
                let aka = |version| Self {
                    aka: Some(version),
                    ..plain
                };
                [plain, plain.session(), aka(Aka::V1), aka(Aka::V2)]
            })
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The registered name.
    pub const fn name(self) -> &'static str {
        use HashAlgorithm::{Md5, Sha256, Sha512_256};
        match (self.hash, self.aka, self.session) {
            (Md5, None, false) => "MD5",
            (Md5, None, true) => "MD5-sess",
            (Md5, Some(Aka::V1), _) => "AKAv1-MD5",
            (Md5, Some(Aka::V2), _) => "AKAv2-MD5",
            (Sha256, None, false) => "SHA-256",
            (Sha256, None, true) => "SHA-256-sess",
            (Sha256, Some(Aka::V1), _) => "AKAv1-SHA-256",
            (Sha256, Some(Aka::V2), _) => "AKAv2-SHA-256",
            (Sha512_256, None, false) => "SHA-512-256",
            (Sha512_256, None, true) => "SHA-512-256-sess",
            (Sha512_256, Some(Aka::V1), _) => "AKAv1-SHA-512-256",
            (Sha512_256, Some(Aka::V2), _) => "AKAv2-SHA-512-256",
        }
    }
}

/// What a response protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop {
    /// Method and URI.
    Auth,
    /// Method, URI and body.
    AuthInt,
}

impl Qop {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

/// A hash in lower-case hexadecimal digits: 32 or 64 of them. Wiped when dropped.
#[derive(Clone)]
pub struct HexDigest {
    digits: [u8; 64],
    len: usize,
}

impl HexDigest {
    fn of(hash: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        let len = hash.len().saturating_mul(2).min(64);
        Self { digits, len }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The digits as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.digits.get(..self.len).unwrap_or_default()
    }

    /// Compares with digits from the wire, in constant time and without regard to case.
    pub fn matches(&self, other: &str) -> bool {
        let mut lower = [0; 64];
        for (slot, byte) in lower.iter_mut().zip(other.bytes()) {
            *slot = byte.to_ascii_lowercase();
        }
        let same_length = other.len() == self.len;
        bool::from(lower.ct_eq(&self.digits)) && same_length
    }
}

impl Drop for HexDigest {
    fn drop(&mut self) {
        self.digits.zeroize();
    }
}

impl fmt::Debug for HexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HexDigest(..)")
    }
}

/// The hash of the parts joined by colons.
pub fn hash_joined(algorithm: HashAlgorithm, parts: &[&[u8]]) -> HexDigest {
    fn run<D: md5::Digest>(parts: &[&[u8]]) -> HexDigest {
        let mut hash = D::new();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                hash.update(b":");
            }
            hash.update(part);
        }
        HexDigest::of(&hash.finalize())
    }
    match algorithm {
        HashAlgorithm::Md5 => run::<md5::Md5>(parts),
        HashAlgorithm::Sha256 => run::<sha2::Sha256>(parts),
        HashAlgorithm::Sha512_256 => run::<sha2::Sha512_256>(parts),
    }
}

/// H(user:realm:password): what a server keeps instead of the password.
pub fn ha1(algorithm: HashAlgorithm, user: &[u8], realm: &[u8], password: &[u8]) -> HexDigest {
    hash_joined(algorithm, &[user, realm, password])
}

/// H(user:realm): what a client shows instead of its name where the server asks for it
/// (`userhash`, RFC 7616 section 3.4.4).
pub fn userhash(algorithm: HashAlgorithm, user: &[u8], realm: &[u8]) -> HexDigest {
    hash_joined(algorithm, &[user, realm])
}

/// The key of a `-sess` algorithm: [`ha1`] hashed with the first nonce and cnonce of the session.
pub fn session_key(
    algorithm: HashAlgorithm,
    ha1: &HexDigest,
    nonce: &str,
    cnonce: &str,
) -> HexDigest {
    hash_joined(
        algorithm,
        &[ha1.as_bytes(), nonce.as_bytes(), cnonce.as_bytes()],
    )
}

/// What the `response` of one request is computed from, besides the key.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The hash function.
    pub hash: HashAlgorithm,
    /// What is protected; `None` for servers that know no qop (RFC 2069).
    pub qop: Option<Qop>,
    /// The nonce.
    pub nonce: &'a str,
    /// How often this nonce has been used, this time included.
    pub nc: u32,
    /// The client's nonce.
    pub cnonce: &'a str,
    /// The request target, exactly as sent.
    pub uri: &'a str,
}

impl Exchange<'_> {
    /// The `response` of a request, or with an empty method the `rspauth` of its response.
    /// `key` is as [`ha1`] or [`session_key`] makes it; `body` counts for [`Qop::AuthInt`] only.
    pub fn response(&self, key: &HexDigest, method: &str, body: &[u8]) -> HexDigest {
        let hash = self.hash;
        let (nonce, cnonce) = (self.nonce.as_bytes(), self.cnonce.as_bytes());
        let key = key.as_bytes();
        let (method, uri) = (method.as_bytes(), self.uri.as_bytes());
        let ha2 = match self.qop {
            Some(Qop::AuthInt) => {
                let body = hash_joined(hash, &[body]);
                hash_joined(hash, &[method, uri, body.as_bytes()])
            }
            Some(Qop::Auth) | None => hash_joined(hash, &[method, uri]),
        };
        match self.qop {
            None => hash_joined(hash, &[key, nonce, ha2.as_bytes()]),
            Some(qop) => {
                let nc = nonce_count(self.nc);
                let parts = [
                    key,
                    nonce,
                    nc.as_bytes(),
                    cnonce,
                    qop.name().as_bytes(),
                    ha2.as_bytes(),
                ];
                hash_joined(hash, &parts)
            }
        }
    }
}

/// The eight digits of `nc`.
pub(super) fn nonce_count(nc: u32) -> String {
    alloc::format!("{nc:08x}")
}
