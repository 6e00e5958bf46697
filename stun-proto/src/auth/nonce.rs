//! Nonces that are checked without being remembered (RFC 8489 section 9.2, RFC 7616 section 5.4).

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::string::String;

use base64ct::{Base64, Encoding as _};
use subtle::ConstantTimeEq as _;

use crate::wire::Key;
use crate::{Instant, Rng};

/// What every nonce of RFC 8489 begins with.
const COOKIE: &str = "obMatJos2";

/// Bytes of time and tag in a nonce.
const TIME_LEN: usize = 5;
const TAG_LEN: usize = 10;
const TIME_MASK: u64 = (1 << (8 * TIME_LEN)) - 1;

/// How far a nonce may come from the future before it is a forgery.
const FUTURE_SKEW: Duration = Duration::from_secs(5);

/// The features a nonce announces, so that a middleman cannot hide them (section 9.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityFeatures {
    /// Bit 0: the server offers PASSWORD-ALGORITHMS.
    pub password_algorithms: bool,
    /// Bit 1: the server knows USERHASH.
    pub username_anonymity: bool,
}

impl SecurityFeatures {
    /// The features announced by this nonce; none when it has no cookie.
    pub fn of_nonce(nonce: &[u8]) -> Self {
        let features = nonce
            .strip_prefix(COOKIE.as_bytes())
            .and_then(|rest| rest.get(..4))
            .and_then(|text| {
                let mut bytes = [0; 3];
                Base64::decode(text, &mut bytes).ok()?;
                Some(bytes)
            });
        let [first, ..] = features.unwrap_or_default();
        Self {
            password_algorithms: first & 0x80 != 0,
            username_anonymity: first & 0x40 != 0,
        }
    }

    const fn to_byte(self) -> u8 {
        (self.password_algorithms as u8) << 7 | (self.username_anonymity as u8) << 6
    }
}

/// What a nonce in a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    /// Issued here, to this client, not too long ago.
    Valid,
    /// Expired, issued to somebody else, or never issued here.
    Stale,
}

/// The keys that sign nonces: one in use, and the one before it, whose nonces still count.
#[derive(Clone)]
pub struct NonceKeys {
    current: Key,
    previous: Option<Key>,
}

impl NonceKeys {
    /// Keys of one's own.
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            current: Key::from_bytes(&rng.bytes::<32>()),
            previous: None,
        }
    }

    /// Signs with a new key from now on; nonces of the key before the last stop counting.
    pub fn rotate(&mut self, rng: &mut Rng) {
        let next = Key::from_bytes(&rng.bytes::<32>());
        self.previous = Some(core::mem::replace(&mut self.current, next));
    }

    /// A nonce for this client: 33 characters, good from `now` on.
    pub fn issue(&self, now: Instant, client: SocketAddr, features: SecurityFeatures) -> String {
        let time = time_bytes(now);
        let tag = tag(&self.current, features, time, client);
        let mut sealed = [0; TIME_LEN + TAG_LEN];
        for (slot, byte) in sealed.iter_mut().zip(time.into_iter().chain(tag)) {
            *slot = byte;
        }
        let mut nonce = String::from(COOKIE);
        push_base64(&mut nonce, &[features.to_byte(), 0, 0]);
        push_base64(&mut nonce, &sealed);
        nonce
    }

    /// Judges a nonce that `client` sent, without any memory of having issued it.
    pub fn check(
        &self,
        now: Instant,
        client: SocketAddr,
        nonce: &[u8],
        lifetime: Duration,
    ) -> NonceState {
        let features = SecurityFeatures::of_nonce(nonce);
        let Some((time, sent)) = unpack(nonce, features) else {
            return NonceState::Stale;
        };
        let by = |key: &Key| bool::from(tag(key, features, time, client).ct_eq(&sent));
        if !by(&self.current) && !self.previous.as_ref().is_some_and(by) {
            return NonceState::Stale;
        }
        let now = seconds(time_bytes(now));
        let age = now.wrapping_sub(seconds(time)) & TIME_MASK;
        let from_future = seconds(time).wrapping_sub(now) & TIME_MASK;
        if age <= lifetime.as_secs() || from_future <= FUTURE_SKEW.as_secs() {
            return NonceState::Valid;
        }
        NonceState::Stale
    }
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(..)")
    }
}

/// Appends at most [`TIME_LEN`] + [`TAG_LEN`] bytes in base64.
fn push_base64(text: &mut String, bytes: &[u8]) {
    let mut encoded = [0; (TIME_LEN + TAG_LEN) * 4 / 3];
    // The array is long enough for everything encoded here.
    text.push_str(Base64::encode(bytes, &mut encoded).unwrap_or_default());
}

fn unpack(nonce: &[u8], features: SecurityFeatures) -> Option<([u8; TIME_LEN], [u8; TAG_LEN])> {
    let text = nonce.strip_prefix(COOKIE.as_bytes())?;
    let (announced, text) = text.split_at_checked(4)?;
    // Features can be written in many ways; only one is ours.
    let mut encoded = [0; 4];
    let ours = Base64::encode(&[features.to_byte(), 0, 0], &mut encoded).ok()?;
    if announced != ours.as_bytes() {
        return None;
    }
    let mut sealed = [0; TIME_LEN + TAG_LEN];
    // A longer text than fits is an error of the decoder, a shorter one is too short here.
    let decoded = Base64::decode(text, &mut sealed).ok()?;
    let (time, tag) = decoded.split_first_chunk()?;
    Some((*time, tag.try_into().ok()?))
}

/// Whole seconds of the host's clock, wrapped around; only differences matter.
fn time_bytes(now: Instant) -> [u8; TIME_LEN] {
    let seconds = now.as_nanos().div_euclid(1_000_000_000);
    let [_, _, _, rest @ ..] = seconds.to_be_bytes();
    rest
}

fn seconds(time: [u8; TIME_LEN]) -> u64 {
    time.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn tag(
    key: &Key,
    features: SecurityFeatures,
    time: [u8; TIME_LEN],
    client: SocketAddr,
) -> [u8; TAG_LEN] {
    let ip = match client.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let port = client.port().to_be_bytes();
    let code = key.sha256(&[&[features.to_byte()], &time, &ip, &port]);
    let mut tag = [0; TAG_LEN];
    for (slot, byte) in tag.iter_mut().zip(code) {
        *slot = byte;
    }
    tag
}
