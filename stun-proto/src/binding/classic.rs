//! Requests of RFC 3489 clients: no magic cookie, a 128-bit transaction ID.

use crate::wire::{AttributeType, Attributes, HEADER_LEN, MAGIC_COOKIE, MessageType};

/// A classic message, checked as far as a server needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassicMessage<'a> {
    pub(super) ty: MessageType,
    /// Bytes 4 to 19.
    pub(super) id: [u8; 16],
    attributes: &'a [u8],
}

impl<'a> ClassicMessage<'a> {
    /// Reads a datagram that is well-formed but for the cookie.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, attributes) = bytes.split_at_checked(HEADER_LEN)?;
        let [t1, t0, l1, l0, id @ ..] = header else {
            return None;
        };
        let id = <[u8; 16]>::try_from(id).ok()?;
        let len = usize::from(u16::from_be_bytes([*l1, *l0]));
        if len != attributes.len() || !len.is_multiple_of(4) || id.starts_with(&COOKIE) {
            return None;
        }
        Attributes::check(attributes).then_some(Self {
            ty: MessageType::from_wire(u16::from_be_bytes([*t1, *t0]))?,
            id,
            attributes,
        })
    }

    /// The attributes a server has to know and does not. USERNAME, PASSWORD and MESSAGE-INTEGRITY
    /// are known and ignored: their code covered a padding nobody uses any more.
    pub(super) fn unknown(&self) -> impl Iterator<Item = AttributeType> {
        Attributes::new(self.attributes)
            .map(|raw| raw.ty)
            .filter(|ty| ty.is_comprehension_required() && !matches!(ty.0, 0x0006..=0x0008))
    }
}

const COOKIE: [u8; 4] = MAGIC_COOKIE.to_be_bytes();
