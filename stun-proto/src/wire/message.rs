//! A received message, checked once and then read in place (RFC 8489 section 5).

use core::fmt;

use super::attribute::{Attributes, padded};
use super::header::HEADER_LEN;
use super::{
    Attribute, AttributeError, AttributeType, Class, MAGIC_COOKIE, MessageType, Method,
    RawAttribute, TransactionId,
};

/// The most attributes a message may have; more make it malformed, so that work is bounded.
pub const MAX_ATTRIBUTES: usize = 64;

const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct ParseError {
    /// Offset of the first byte that does not fit.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ParseErrorKind,
}

/// What is wrong with bytes that are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// Fewer than 20 bytes.
    #[error("truncated header")]
    Truncated,
    /// One of the two top bits of the first byte is set.
    #[error("not STUN")]
    NotStun,
    /// The magic cookie is missing.
    #[error("no magic cookie")]
    Cookie,
    /// The length is not a multiple of four or differs from the bytes that follow.
    #[error("wrong message length")]
    Length,
    /// An attribute reaches beyond the message.
    #[error("attribute reaches beyond the message")]
    AttributeOverrun,
    /// More than [`MAX_ATTRIBUTES`].
    #[error("too many attributes")]
    TooManyAttributes,
    /// Something follows FINGERPRINT, or it is not four bytes long.
    #[error("FINGERPRINT is misplaced or malformed")]
    Fingerprint,
}

/// Where an integrity attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mac<'a> {
    /// Offset of the attribute header from the start of the message.
    pub(super) offset: usize,
    /// The code itself; its length has not been judged.
    pub(super) value: &'a [u8],
}

/// A message that is well-formed as a whole: header, and every attribute inside its bounds.
///
/// Nothing is said about the values of attributes, nor about who sent it: see
/// [`verify`](Self::verify).
///
/// Reading by [`get`](Self::get) and [`attributes`](Self::attributes) covers the attributes in
/// front of the first integrity attribute only, because those behind it are not protected
/// (RFC 8489 section 14.5).
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    ty: MessageType,
    id: TransactionId,
    /// Offset of the first attribute that is not covered by integrity.
    trusted_end: usize,
    pub(super) sha1: Option<Mac<'a>>,
    pub(super) sha256: Option<Mac<'a>>,
    fingerprint: Option<u32>,
}

impl<'a> Message<'a> {
    /// Reads a whole datagram, or a whole message cut from a stream.
    ///
    /// ```
    /// use stun_proto::wire::{Class, Message, Method};
    ///
    /// let bytes = [
    ///     0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    /// ];
    /// let message = Message::parse(&bytes).unwrap();
    /// assert_eq!(message.class(), Class::Request);
    /// assert_eq!(message.method(), Method::BINDING);
    /// ```
    ///
    /// # Errors
    /// [`ParseError`] with the offset of the first byte that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let err = |offset, kind| ParseError { offset, kind };
        let Some((header, body)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err(err(bytes.len(), ParseErrorKind::Truncated));
        };
        let [t1, t0, l1, l0, c3, c2, c1, c0, id @ ..] = header else {
            return Err(err(bytes.len(), ParseErrorKind::Truncated));
        };
        let Some(ty) = MessageType::from_wire(u16::from_be_bytes([*t1, *t0])) else {
            return Err(err(0, ParseErrorKind::NotStun));
        };
        if u32::from_be_bytes([*c3, *c2, *c1, *c0]) != MAGIC_COOKIE {
            return Err(err(4, ParseErrorKind::Cookie));
        }
        let len = u16::from_be_bytes([*l1, *l0]);
        if len % 4 != 0 || usize::from(len) != body.len() {
            return Err(err(2, ParseErrorKind::Length));
        }
        let mut message = Self {
            bytes,
            ty,
            id: TransactionId(<[u8; 12]>::try_from(id).unwrap_or_default()),
            trusted_end: bytes.len(),
            sha1: None,
            sha256: None,
            fingerprint: None,
        };
        message.walk(body)?;
        Ok(message)
    }

    /// Checks all attributes and notes where the special ones are.
    fn walk(&mut self, body: &'a [u8]) -> Result<(), ParseError> {
        let err = |offset, kind| ParseError { offset, kind };
        let mut attributes = Attributes::new(body);
        let mut count = 0_usize;
        loop {
            let offset = self.bytes.len().saturating_sub(attributes.remaining());
            let Some(attribute) = attributes.next() else {
                if attributes.remaining() == 0 {
                    return Ok(());
                }
                return Err(err(offset, ParseErrorKind::AttributeOverrun));
            };
            if self.fingerprint.is_some() {
                return Err(err(offset, ParseErrorKind::Fingerprint));
            }
            count = count.saturating_add(1);
            if count > MAX_ATTRIBUTES {
                return Err(err(offset, ParseErrorKind::TooManyAttributes));
            }
            let mac = Mac {
                offset,
                value: attribute.value,
            };
            match attribute.ty {
                AttributeType::MESSAGE_INTEGRITY => {
                    self.trusted_end = self.trusted_end.min(offset);
                    self.sha1.get_or_insert(mac);
                }
                AttributeType::MESSAGE_INTEGRITY_SHA256 => {
                    self.trusted_end = self.trusted_end.min(offset);
                    self.sha256.get_or_insert(mac);
                }
                AttributeType::FINGERPRINT => {
                    let value = <[u8; 4]>::try_from(attribute.value)
                        .map_err(|_| err(offset, ParseErrorKind::Fingerprint))?;
                    self.trusted_end = self.trusted_end.min(offset);
                    self.fingerprint = Some(u32::from_be_bytes(value));
                }
                _ => {}
            }
        }
    }

    /// The whole message.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Class and method.
    pub const fn message_type(&self) -> MessageType {
        self.ty
    }

    /// The class.
    pub const fn class(&self) -> Class {
        self.ty.class()
    }

    /// The method.
    pub const fn method(&self) -> Method {
        self.ty.method()
    }

    /// The transaction ID.
    pub const fn transaction_id(&self) -> TransactionId {
        self.id
    }

    /// The attributes in front of integrity and fingerprint, in their order.
    pub fn attributes(&self) -> Attributes<'a> {
        let trusted = self.bytes.get(HEADER_LEN..self.trusted_end);
        Attributes::new(trusted.unwrap_or_default())
    }

    /// The first attribute of this kind in front of integrity, with its value read.
    pub fn get<A: Attribute<'a>>(&self) -> Option<Result<A, AttributeError>> {
        let raw = self.raw(A::TYPE)?;
        Some(A::decode(raw.value, self.id))
    }

    /// The first attribute of this kind, where "malformed" is as good as "absent".
    pub fn find<A: Attribute<'a>>(&self) -> Option<A> {
        self.get()?.ok()
    }

    /// All attributes of this kind in front of integrity.
    pub fn get_all<A: Attribute<'a>>(
        &self,
    ) -> impl Iterator<Item = Result<A, AttributeError>> + 'a {
        let id = self.id;
        self.attributes()
            .filter(|raw| raw.ty == A::TYPE)
            .map(move |raw| A::decode(raw.value, id))
    }

    /// Whether there is an attribute of this type in front of integrity.
    pub fn has(&self, ty: AttributeType) -> bool {
        self.raw(ty).is_some()
    }

    fn raw(&self, ty: AttributeType) -> Option<RawAttribute<'a>> {
        self.attributes().find(|raw| raw.ty == ty)
    }

    /// The comprehension-required attributes in front of integrity that `known` does not know.
    pub fn unknown_required(
        &self,
        known: impl Fn(AttributeType) -> bool,
    ) -> impl Iterator<Item = AttributeType> {
        self.attributes()
            .map(|raw| raw.ty)
            .filter(move |&ty| ty.is_comprehension_required() && !known(ty))
    }

    /// Whether MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 is there, right or wrong.
    pub const fn has_integrity(&self) -> bool {
        self.sha1.is_some() || self.sha256.is_some()
    }

    /// Whether FINGERPRINT is there and right; `None` when it is absent (RFC 8489 section 14.7).
    pub fn check_fingerprint(&self) -> Option<bool> {
        let sent = self.fingerprint?;
        // It is the last attribute and its padded length is eight bytes.
        let covered = self.bytes.len().saturating_sub(8);
        Some(sent == fingerprint(self.bytes.get(..covered).unwrap_or_default()))
    }

    /// The bytes an integrity attribute at `offset` covers, with the header length patched to
    /// end behind it: first the four header bytes to hash instead, then the rest.
    pub(super) fn covered_by(&self, mac: &Mac<'_>) -> ([u8; 4], &'a [u8]) {
        let end = mac
            .offset
            .saturating_add(4)
            .saturating_add(padded(mac.value.len()));
        let len = end.saturating_sub(HEADER_LEN) as u16;
        let [t1, t0] = self.ty.to_wire().to_be_bytes();
        let [l1, l0] = len.to_be_bytes();
        let rest = self.bytes.get(4..mac.offset).unwrap_or_default();
        ([t1, t0, l1, l0], rest)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("type", &self.ty)
            .field("id", &self.id)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The value of FINGERPRINT for everything in front of it, header length already final.
pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    crc32fast::hash(covered) ^ FINGERPRINT_XOR
}
