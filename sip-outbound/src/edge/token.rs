//! Names of flows that nobody can make but us (RFC 5626 section 5.2).

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use stun_proto::{FiveTuple, Rng, Transport};
use subtle::ConstantTimeEq as _;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"sip-flow-token/1\0";
const TAG_LEN: usize = 16;

/// Longest token in characters: IPv6.
const MAX_LEN: usize = 96;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowToken {
    /// The addresses of the flow.
    pub at: FiveTuple,
    /// Tells it from earlier and later flows between the same addresses.
    pub serial: u64,
}

/// Why a token means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("forged or damaged flow token")]
pub struct ForgedToken;

/// The keys that sign flow tokens: one in use, and the one before it.
#[derive(Clone)]
pub struct FlowTokenKeys {
    current: (u8, Hmac<Sha256>),
    previous: Option<(u8, Hmac<Sha256>)>,
}

impl fmt::Debug for FlowTokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowTokenKeys(..)")
    }
}

fn key_of(key: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC takes keys of every length; the fallback is never reached.
    Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

impl FlowTokenKeys {
    /// Signs with this key. Kept over restarts, it lets tokens of dead flows be told from forged
    /// ones.
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            current: (0, key_of(key)),
            previous: None,
        }
    }

    /// A key of one's own.
    pub fn random(rng: &mut Rng) -> Self {
        Self::new(&rng.bytes())
    }

    /// Signs with a new key from now on. Tokens of the last one still count: rotate no more often
    /// than the longest registration lives.
    pub fn rotate(&mut self, key: &[u8; 32]) {
        let id = self.current.0.wrapping_add(1);
        let old = core::mem::replace(&mut self.current, (id, key_of(key)));
        self.previous = Some(old);
    }

    /// The token of a flow: 54 characters for IPv4, 86 for IPv6, all fit for the user part of a
    /// URI.
    ///
    /// ```
    /// use sip_outbound::{FlowToken, FlowTokenKeys};
    /// use stun_proto::{FiveTuple, Transport};
    ///
    /// let key: [u8; 32] = core::array::from_fn(|n| n as u8);
    /// let keys = FlowTokenKeys::new(&key);
    /// let at = FiveTuple {
    ///     transport: Transport::Tls,
    ///     local: "192.0.2.15:443".parse().unwrap(),
    ///     remote: "203.0.113.7:51044".parse().unwrap(),
    /// };
    /// let token = FlowToken { at, serial: 0x1122_3344_5566_7788 };
    /// assert_eq!(keys.open(&keys.issue(&token)), Ok(token));
    /// ```
    pub fn issue(&self, token: &FlowToken) -> String {
        let (id, key) = &self.current;
        let mut bytes = encode(*id, token);
        let tag = tag(key, &bytes);
        bytes.extend_from_slice(&tag);
        Base64UrlUnpadded::encode_string(&bytes)
    }

    /// What a token says, if it was issued here.
    ///
    /// # Errors
    /// [`ForgedToken`].
    pub fn open(&self, text: &str) -> Result<FlowToken, ForgedToken> {
        if text.len() > MAX_LEN {
            return Err(ForgedToken);
        }
        let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| ForgedToken)?;
        let at = bytes.len().checked_sub(TAG_LEN).ok_or(ForgedToken)?;
        let (body, sent) = bytes.split_at_checked(at).ok_or(ForgedToken)?;
        let id = *body.get(1).ok_or(ForgedToken)?;
        let known = core::iter::once(&self.current).chain(&self.previous);
        let (_, key) = known
            .into_iter()
            .find(|(known, _)| *known == id)
            .ok_or(ForgedToken)?;
        if !bool::from(tag(key, body)[..].ct_eq(sent)) {
            return Err(ForgedToken);
        }
        decode(body).ok_or(ForgedToken)
    }
}

fn tag(key: &Hmac<Sha256>, body: &[u8]) -> [u8; TAG_LEN] {
    let mut mac = key.clone();
    mac.update(LABEL);
    mac.update(body);
    let full: [u8; 32] = mac.finalize().into_bytes().into();
    full.first_chunk().copied().unwrap_or_default()
}

const fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Dtls => 3,
    }
}

fn encode(key_id: u8, token: &FlowToken) -> Vec<u8> {
    let FiveTuple {
        transport,
        local,
        remote,
    } = token.at;
    let family = if local.is_ipv4() { 4 } else { 6 };
    let mut bytes = alloc::vec![VERSION, key_id, protocol(transport), family];
    for addr in [local, remote] {
        match addr.ip() {
            IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
        }
        bytes.extend_from_slice(&addr.port().to_be_bytes());
    }
    bytes.extend_from_slice(&token.serial.to_be_bytes());
    bytes
}

fn decode(body: &[u8]) -> Option<FlowToken> {
    let ([VERSION, _, protocol, family], rest) = body.split_first_chunk()? else {
        return None;
    };
    let transport = match protocol {
        0 => Transport::Udp,
        1 => Transport::Tcp,
        2 => Transport::Tls,
        3 => Transport::Dtls,
        _ => return None,
    };
    let (local, rest) = address(*family, rest)?;
    let (remote, rest) = address(*family, rest)?;
    let at = FiveTuple {
        transport,
        local,
        remote,
    };
    let serial = u64::from_be_bytes(rest.try_into().ok()?);
    Some(FlowToken { at, serial })
}

fn address(family: u8, bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = match family {
        4 => {
            let (ip, rest) = bytes.split_first_chunk::<4>()?;
            (IpAddr::from(*ip), rest)
        }
        6 => {
            let (ip, rest) = bytes.split_first_chunk::<16>()?;
            (IpAddr::from(*ip), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}
