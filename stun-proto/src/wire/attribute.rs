//! What an attribute is, and the walk over them (RFC 8489 section 14).

use core::fmt;

use super::TransactionId;

/// The type number of an attribute.
///
/// A newtype rather than an enum, so that unknown numbers survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType(pub u16);

impl AttributeType {
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    /// MESSAGE-INTEGRITY-SHA256.
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001C);
    /// FINGERPRINT.
    pub const FINGERPRINT: Self = Self(0x8028);

    /// Whether an agent that does not know this attribute must refuse the message
    /// (types below 0x8000).
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

impl fmt::Debug for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttributeType({:#06x})", self.0)
    }
}

/// Why the value of an attribute could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttributeError {
    /// The value has a length this attribute never has.
    #[error("attribute value has an impossible length")]
    Length,
    /// The address family is neither IPv4 nor IPv6.
    #[error("unsupported address family")]
    AddressFamily,
    /// The length is right, the content is not.
    #[error("attribute value out of range")]
    Value,
}

/// An attribute that can be read from and written to a message.
///
/// Other protocols define theirs with this trait:
///
/// ```
/// use stun_proto::wire::{Attribute, AttributeError, AttributeType, TransactionId};
///
/// /// LIFETIME of TURN: seconds.
/// struct Lifetime(u32);
///
/// impl<'a> Attribute<'a> for Lifetime {
///     const TYPE: AttributeType = AttributeType(0x000D);
///     fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
///         let bytes = value.try_into().map_err(|_| AttributeError::Length)?;
///         Ok(Self(u32::from_be_bytes(bytes)))
///     }
///     fn encoded_len(&self) -> usize {
///         4
///     }
///     fn encode(&self, out: &mut [u8], _: TransactionId) {
///         out.copy_from_slice(&self.0.to_be_bytes());
///     }
/// }
/// # assert_eq!(Lifetime::decode(&[0, 0, 2, 88], TransactionId([0; 12])).unwrap().0, 600);
/// ```
pub trait Attribute<'a>: Sized {
    /// The type number.
    const TYPE: AttributeType;

    /// Reads the value (without header and padding) of an attribute of a message with this ID.
    ///
    /// # Errors
    /// [`AttributeError`] when the value is not one this attribute can have.
    fn decode(value: &'a [u8], id: TransactionId) -> Result<Self, AttributeError>;

    /// Length of the value in bytes, without padding.
    fn encoded_len(&self) -> usize;

    /// Writes the value into `out`, which is exactly [`encoded_len`](Self::encoded_len) long.
    fn encode(&self, out: &mut [u8], id: TransactionId);
}

/// At most 64 bytes of what somebody else has sent, made harmless for logs.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.0.get(..64).unwrap_or(self.0);
        write!(f, "\"{}\"", most.escape_ascii())?;
        if most.len() < self.0.len() {
            write!(f, ".. {} bytes", self.0.len())?;
        }
        Ok(())
    }
}

/// An attribute as it stands in the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    /// The type number.
    pub ty: AttributeType,
    /// The value, without padding.
    pub value: &'a [u8],
}

impl fmt::Debug for RawAttribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawAttribute")
            .field("ty", &self.ty)
            .field("value", &Shown(self.value))
            .finish()
    }
}

/// Rounds a length up to the next multiple of four.
pub(crate) const fn padded(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// Iterator over the attributes of a message, in their order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) const fn new(attributes: &'a [u8]) -> Self {
        Self { rest: attributes }
    }

    /// Whether these bytes are whole attributes, and not too many.
    pub(crate) fn check(attributes: &'a [u8]) -> bool {
        let mut walk = Self::new(attributes);
        walk.by_ref().take(super::MAX_ATTRIBUTES).for_each(drop);
        walk.rest.is_empty()
    }

    /// How many bytes are left to walk.
    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = RawAttribute<'a>;

    /// The next attribute; `None` at the end, or where the bytes hold no whole attribute.
    fn next(&mut self) -> Option<RawAttribute<'a>> {
        let (header, rest) = self.rest.split_at_checked(4)?;
        let [t1, t0, l1, l0] = *header else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([l1, l0]));
        let (padded_value, rest) = rest.split_at_checked(padded(len))?;
        let value = padded_value.get(..len)?;
        self.rest = rest;
        Some(RawAttribute {
            ty: AttributeType(u16::from_be_bytes([t1, t0])),
            value,
        })
    }
}
