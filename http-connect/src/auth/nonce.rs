//! Nonces that are checked without being remembered (RFC 7616 section 5.4).

use core::fmt;
use core::time::Duration;

use alloc::string::String;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{Instant, Rng};

const TIME_LEN: usize = 5;
const SALT_LEN: usize = 8;
const BINDING_LEN: usize = 8;
const TAG_LEN: usize = 16;
const BODY_LEN: usize = TIME_LEN + SALT_LEN + BINDING_LEN;

/// How far a nonce may come from the future before it is refused.
const FUTURE_SKEW_SECONDS: u64 = 5;

/// Time, salt, binding and a tag over all of them: when a nonce was issued, and to whom.
type Body = [u8; BODY_LEN];

/// What tells one nonce from all others, older ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NonceId {
    /// Whole seconds, see [`seconds`].
    pub(super) issued: u64,
    salt: [u8; SALT_LEN],
}

/// What a nonce in a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceState {
    /// Issued here, for this binding, not too long ago.
    Valid(NonceId),
    /// Issued here, but expired or for something else.
    Stale,
    /// Never issued here.
    Forged,
}

/// The keys that sign nonces: one in use, and the one before it, whose nonces still count.
#[derive(Clone)]
pub(super) struct NonceKeys {
    current: Hmac<Sha256>,
    previous: Option<Hmac<Sha256>>,
}

fn key(rng: &mut Rng) -> Hmac<Sha256> {
    // HMAC takes keys of every length; the fallback is never reached.
    Hmac::new_from_slice(&rng.bytes::<32>()).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

/// The beginning of the code over all parts.
fn code<const N: usize>(key: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; N] {
    let mut mac = key.clone();
    parts.iter().for_each(|part| mac.update(part));
    let full: [u8; 32] = mac.finalize().into_bytes().into();
    full.first_chunk().copied().unwrap_or([0; N])
}

/// Whole seconds of the host's clock, as far as five bytes go.
pub(super) fn seconds(now: Instant) -> u64 {
    (now.secs() as u64) & 0xff_ffff_ffff
}

impl NonceKeys {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            current: key(rng),
            previous: None,
        }
    }

    pub(super) fn rotate(&mut self, rng: &mut Rng) {
        self.previous = Some(core::mem::replace(&mut self.current, key(rng)));
    }

    /// A nonce of 50 characters that are safe in a quoted string.
    pub(super) fn issue(&self, now: Instant, realm: &str, binding: &[u8], rng: &mut Rng) -> String {
        let [_, _, _, time @ ..] = seconds(now).to_be_bytes();
        let salt: [u8; SALT_LEN] = rng.bytes();
        let bound: [u8; BINDING_LEN] = code(&self.current, &[b"binding", binding]);
        let tag: [u8; TAG_LEN] = code(
            &self.current,
            &[b"nonce", &time, &salt, &bound, realm.as_bytes()],
        );
        Base64UrlUnpadded::encode_string(&[&time[..], &salt, &bound, &tag].concat())
    }

    /// Judges a nonce without any memory of having issued it.
    pub(super) fn check(
        &self,
        now: Instant,
        lifetime: Duration,
        realm: &str,
        binding: &[u8],
        nonce: &str,
    ) -> NonceState {
        let mut bytes = [0; BODY_LEN + TAG_LEN];
        let Ok(sealed) = Base64UrlUnpadded::decode(nonce, &mut bytes) else {
            return NonceState::Forged;
        };
        let Some((body, sent)) = sealed.split_first_chunk::<BODY_LEN>() else {
            return NonceState::Forged;
        };
        let by = |key: &Hmac<Sha256>| {
            let tag: [u8; TAG_LEN] = code(key, &[b"nonce", body, realm.as_bytes()]);
            bool::from(tag[..].ct_eq(sent))
        };
        let keys = [Some(&self.current), self.previous.as_ref()];
        let Some(key) = keys.into_iter().flatten().find(|key| by(key)) else {
            return NonceState::Forged;
        };
        let (time, salt, bound) = split(body);
        let right: [u8; BINDING_LEN] = code(key, &[b"binding", binding]);
        let issued = time.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let age = seconds(now).saturating_sub(issued);
        let ahead = issued.saturating_sub(seconds(now));
        let good = bool::from(right.ct_eq(&bound))
            && age <= lifetime.as_secs()
            && ahead <= FUTURE_SKEW_SECONDS;
        if good {
            NonceState::Valid(NonceId { issued, salt })
        } else {
            NonceState::Stale
        }
    }
}

fn split(body: &Body) -> ([u8; TIME_LEN], [u8; SALT_LEN], [u8; BINDING_LEN]) {
    let (time, rest) = body.split_at(TIME_LEN);
    let (salt, bound) = rest.split_at(SALT_LEN);
    (
        time.try_into().unwrap_or_default(),
        salt.try_into().unwrap_or_default(),
        bound.try_into().unwrap_or_default(),
    )
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(..)")
    }
}
