//! The attributes of RFC 8489, of ICE (RFC 8445) and of NAT discovery (RFC 5780).

use core::fmt;
use core::net::SocketAddr;

use super::address::{
    self, decode_address, decode_xor_address, encode_address, encode_xor_address,
};
use super::attribute::Shown;
use super::{Attribute, AttributeError, AttributeType, PasswordAlgorithmId, TransactionId};

/// A text is longer than its attribute may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("text longer than {limit} bytes")]
pub struct TextTooLong {
    /// The most bytes this attribute is sent with.
    pub limit: usize,
}

/// Attributes that hold text: `name, number, most bytes sent, most bytes read`.
macro_rules! text {
    ($($(#[$doc:meta])* $name:ident, $ty:literal, $sent:literal, $read:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a>(&'a [u8]);

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&Shown(self.0)).finish()
            }
        }

        impl<'a> $name<'a> {
            #[doc = concat!("The attribute with this text, at most ", stringify!($sent), " bytes.")]
            ///
            /// # Errors
            /// [`TextTooLong`].
            pub const fn new(text: &'a str) -> Result<Self, TextTooLong> {
                Self::from_bytes(text.as_bytes())
            }

            /// The attribute with these bytes, which should be UTF-8.
            ///
            /// # Errors
            /// [`TextTooLong`].
            pub const fn from_bytes(bytes: &'a [u8]) -> Result<Self, TextTooLong> {
                if bytes.len() > $sent {
                    return Err(TextTooLong { limit: $sent });
                }
                Ok(Self(bytes))
            }

            /// The bytes as received.
            pub const fn as_bytes(&self) -> &'a [u8] {
                self.0
            }

            /// The text, unless it is not UTF-8.
            pub const fn as_str(&self) -> Option<&'a str> {
                match core::str::from_utf8(self.0) {
                    Ok(text) => Some(text),
                    Err(_) => None,
                }
            }
        }

        impl<'a> Attribute<'a> for $name<'a> {
            const TYPE: AttributeType = AttributeType($ty);

            fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
                if value.len() > $read {
                    return Err(AttributeError::Length);
                }
                Ok(Self(value))
            }

            fn encoded_len(&self) -> usize {
                self.0.len()
            }

            fn encode(&self, out: &mut [u8], _: TransactionId) {
                out.copy_from_slice(self.0);
            }
        }
    )*};
}

text! {
    /// USERNAME (RFC 8489 section 14.3).
    Username, 0x0006, 508, 763;
    /// REALM: the domain of the credentials, without quotes (section 14.9).
    Realm, 0x0014, 509, 763;
    /// NONCE: what the server wants to see again (section 14.10).
    Nonce, 0x0015, 509, 763;
    /// SOFTWARE: what the sender runs (section 14.14).
    Software, 0x8022, 509, 763;
    /// ALTERNATE-DOMAIN: the name in the certificate of ALTERNATE-SERVER (section 14.16).
    AlternateDomain, 0x8003, 255, 255;
}

/// Attributes that hold an address: `name, number, reader, writer`.
macro_rules! address {
    ($($(#[$doc:meta])* $name:ident, $ty:literal, $decode:expr, $encode:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub SocketAddr);

        impl<'a> Attribute<'a> for $name {
            const TYPE: AttributeType = AttributeType($ty);

            fn decode(value: &'a [u8], id: TransactionId) -> Result<Self, AttributeError> {
                let decode: fn(&[u8], TransactionId) -> _ = $decode;
                decode(value, id).map(Self)
            }

            fn encoded_len(&self) -> usize {
                address::encoded_len(&self.0)
            }

            fn encode(&self, out: &mut [u8], id: TransactionId) {
                let encode: fn(SocketAddr, TransactionId, &mut [u8]) = $encode;
                encode(self.0, id, out);
            }
        }
    )*};
}

address! {
    /// MAPPED-ADDRESS: for classic clients and NAT discovery only (section 14.1).
    MappedAddress, 0x0001, |v, _| decode_address(v), |a, _, out| encode_address(a, out);
    /// XOR-MAPPED-ADDRESS: where the request came from (section 14.2).
    XorMappedAddress, 0x0020, decode_xor_address, encode_xor_address;
    /// ALTERNATE-SERVER: whom to ask instead (section 14.15).
    AlternateServer, 0x8023, |v, _| decode_address(v), |a, _, out| encode_address(a, out);
    /// RESPONSE-ORIGIN: where the response was sent from (RFC 5780 section 7.3).
    ResponseOrigin, 0x802B, |v, _| decode_address(v), |a, _, out| encode_address(a, out);
    /// OTHER-ADDRESS: the server's second address (RFC 5780 section 7.4).
    OtherAddress, 0x802C, |v, _| decode_address(v), |a, _, out| encode_address(a, out);
}

/// Attributes that hold one number: `name, number, integer type`.
macro_rules! number {
    ($($(#[$doc:meta])* $name:ident, $ty:literal, $int:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $int);

        impl<'a> Attribute<'a> for $name {
            const TYPE: AttributeType = AttributeType($ty);

            fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
                let bytes = value.try_into().map_err(|_| AttributeError::Length)?;
                Ok(Self(<$int>::from_be_bytes(bytes)))
            }

            fn encoded_len(&self) -> usize {
                size_of::<$int>()
            }

            fn encode(&self, out: &mut [u8], _: TransactionId) {
                out.copy_from_slice(&self.0.to_be_bytes());
            }
        }
    )*};
}

number! {
    /// PRIORITY a peer-reflexive candidate would have (RFC 8445 section 16.1).
    Priority, 0x0024, u32;
    /// ICE-CONTROLLED with the tie-breaker (RFC 8445 section 16.1).
    IceControlled, 0x8029, u64;
    /// ICE-CONTROLLING with the tie-breaker (RFC 8445 section 16.1).
    IceControlling, 0x802A, u64;
}

/// USE-CANDIDATE: the controlling agent nominates this pair (RFC 8445 section 16.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseCandidate;

impl<'a> Attribute<'a> for UseCandidate {
    const TYPE: AttributeType = AttributeType(0x0025);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        if value.is_empty() {
            Ok(Self)
        } else {
            Err(AttributeError::Length)
        }
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _: &mut [u8], _: TransactionId) {}
}

/// CHANGE-REQUEST: answer from another address or port (RFC 5780 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRequest {
    /// Answer from the other IP address.
    pub change_ip: bool,
    /// Answer from the other port.
    pub change_port: bool,
}

impl<'a> Attribute<'a> for ChangeRequest {
    const TYPE: AttributeType = AttributeType(0x0003);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let [_, _, _, flags] = value else {
            return Err(AttributeError::Length);
        };
        Ok(Self {
            change_ip: flags & 4 != 0,
            change_port: flags & 2 != 0,
        })
    }

    fn encoded_len(&self) -> usize {
        4
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        let flags = u32::from(self.change_ip) << 2 | u32::from(self.change_port) << 1;
        out.copy_from_slice(&flags.to_be_bytes());
    }
}

/// RESPONSE-PORT: answer to this port instead (RFC 5780 section 7.5). Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePort(pub u16);

impl<'a> Attribute<'a> for ResponsePort {
    const TYPE: AttributeType = AttributeType(0x0027);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        // The value is two bytes; some senders count the two bytes of padding as well.
        let ([p1, p0] | [p1, p0, _, _]) = value else {
            return Err(AttributeError::Length);
        };
        match u16::from_be_bytes([*p1, *p0]) {
            0 => Err(AttributeError::Value),
            port => Ok(Self(port)),
        }
    }

    fn encoded_len(&self) -> usize {
        2
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(&self.0.to_be_bytes());
    }
}

/// PADDING: bytes that only make the message long (RFC 5780 section 7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// How many zero bytes.
    pub len: u16,
}

impl<'a> Attribute<'a> for Padding {
    const TYPE: AttributeType = AttributeType(0x0026);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let len = u16::try_from(value.len()).map_err(|_| AttributeError::Length)?;
        Ok(Self { len })
    }

    fn encoded_len(&self) -> usize {
        usize::from(self.len)
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.fill(0);
    }
}

/// USERHASH: the user, without saying the name (section 14.4). See [`userhash`](super::userhash).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Userhash(pub [u8; 32]);

impl<'a> Attribute<'a> for Userhash {
    const TYPE: AttributeType = AttributeType(0x001E);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        value
            .try_into()
            .map(Self)
            .map_err(|_| AttributeError::Length)
    }

    fn encoded_len(&self) -> usize {
        32
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(&self.0);
    }
}

/// PASSWORD-ALGORITHM: the one the client chose (section 14.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordAlgorithm<'a> {
    /// Which algorithm.
    pub id: PasswordAlgorithmId,
    /// Its parameters: none for the registered ones.
    pub parameters: &'a [u8],
}

impl PasswordAlgorithm<'_> {
    /// An algorithm without parameters.
    pub const fn new(id: PasswordAlgorithmId) -> Self {
        Self {
            id,
            parameters: &[],
        }
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithm<'a> {
    const TYPE: AttributeType = AttributeType(0x001D);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let mut entries = PasswordAlgorithms(value);
        let entry = entries.take().ok_or(AttributeError::Length)?;
        if entries.0.is_empty() {
            Ok(entry)
        } else {
            Err(AttributeError::Length)
        }
    }

    fn encoded_len(&self) -> usize {
        self.parameters.len().saturating_add(4)
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        let [i1, i0] = self.id.0.to_be_bytes();
        let [l1, l0] = (self.parameters.len() as u16).to_be_bytes();
        let bytes = [i1, i0, l1, l0];
        for (slot, byte) in out.iter_mut().zip(bytes.iter().chain(self.parameters)) {
            *slot = *byte;
        }
    }
}

/// PASSWORD-ALGORITHMS: what the server offers, best first (section 14.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordAlgorithms<'a>(&'a [u8]);

impl<'a> PasswordAlgorithms<'a> {
    /// SHA-256, then MD5.
    pub const SHA256_MD5: PasswordAlgorithms<'static> =
        PasswordAlgorithms(&[0, 2, 0, 0, 0, 1, 0, 0]);
    /// SHA-256 alone.
    pub const SHA256: PasswordAlgorithms<'static> = PasswordAlgorithms(&[0, 2, 0, 0]);

    /// The list exactly as it stands in the message, for sending it back.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// A list from bytes that were received before.
    ///
    /// # Errors
    /// [`AttributeError::Length`] when they are no list.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, AttributeError> {
        let mut rest = Self(bytes);
        while !rest.0.is_empty() {
            rest.take().ok_or(AttributeError::Length)?;
        }
        Ok(Self(bytes))
    }

    /// The offers in the server's order.
    pub fn iter(&self) -> impl Iterator<Item = PasswordAlgorithm<'a>> + use<'a> {
        let mut rest = *self;
        core::iter::from_fn(move || rest.take())
    }

    fn take(&mut self) -> Option<PasswordAlgorithm<'a>> {
        let (head, rest) = self.0.split_at_checked(4)?;
        let [i1, i0, l1, l0] = *head else { return None };
        let len = usize::from(u16::from_be_bytes([l1, l0]));
        let parameters = rest.get(..len)?;
        // The padding of the last entry may be left out.
        let padded = super::attribute::padded(len).min(rest.len());
        self.0 = rest.get(padded..)?;
        Some(PasswordAlgorithm {
            id: PasswordAlgorithmId(u16::from_be_bytes([i1, i0])),
            parameters,
        })
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithms<'a> {
    const TYPE: AttributeType = AttributeType(0x8002);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        Self::from_bytes(value)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(self.0);
    }
}

/// UNKNOWN-ATTRIBUTES: what the server did not understand (section 14.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAttributes(pub smallvec::SmallVec<[AttributeType; 8]>);

impl<'a> Attribute<'a> for UnknownAttributes {
    const TYPE: AttributeType = AttributeType(0x000A);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        // More entries than attributes in a message would be a lie.
        if !value.len().is_multiple_of(2) || value.len() > super::MAX_ATTRIBUTES.saturating_mul(2) {
            return Err(AttributeError::Length);
        }
        let types = value.chunks_exact(2).filter_map(|pair| match pair {
            [t1, t0] => Some(AttributeType(u16::from_be_bytes([*t1, *t0]))),
            _ => None,
        });
        Ok(Self(types.collect()))
    }

    fn encoded_len(&self) -> usize {
        self.0.len().saturating_mul(2)
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        for (slot, ty) in out.chunks_exact_mut(2).zip(&self.0) {
            slot.copy_from_slice(&ty.0.to_be_bytes());
        }
    }
}

/// TRANSACTION_TRANSMIT_COUNTER: how often each side has sent (RFC 7982 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitCounter {
    /// Which transmission of the request this is, from 1.
    pub request: u8,
    /// How many responses have been sent; 0 in requests and from stateless servers.
    pub response: u8,
}

impl<'a> Attribute<'a> for TransmitCounter {
    const TYPE: AttributeType = AttributeType(0x8025);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let [_, _, request, response] = *value else {
            return Err(AttributeError::Length);
        };
        Ok(Self { request, response })
    }

    fn encoded_len(&self) -> usize {
        4
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(&[0, 0, self.request, self.response]);
    }
}
