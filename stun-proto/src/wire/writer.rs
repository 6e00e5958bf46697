//! Writing a message into the caller's memory, in the only order that is legal.

use core::fmt;
use core::marker::PhantomData;

use super::attribute::padded;
use super::header::HEADER_LEN;
use super::message::fingerprint;
use super::{
    Attribute, AttributeType, IntegrityAlgorithm, Key, MAGIC_COOKIE, Message, MessageType,
    TransactionId, TransmitCounter,
};

/// Attributes may be added.
#[derive(Debug)]
pub enum Open {}
/// MESSAGE-INTEGRITY stands at the end: the other integrity attribute or the fingerprint may
/// follow.
#[derive(Debug)]
pub enum Sealed {}
/// All the integrity there can be stands at the end: only the fingerprint may follow.
#[derive(Debug)]
pub enum Complete {}
/// FINGERPRINT stands at the end: nothing may follow.
#[derive(Debug)]
pub enum Fingerprinted {}

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The slice is too small.
    #[error("the buffer is too small for the message")]
    BufferTooSmall,
    /// An attribute, or the message as a whole, is longer than 16 bits can say.
    #[error("attribute or message longer than 65,535 bytes")]
    TooLong,
    /// A response was to be written to something that is no request; nothing answers those.
    #[error("only requests are answered")]
    NotARequest,
}

/// Writes one message into a slice.
///
/// The type parameter says what may still follow, so that nothing can stand behind what protects
/// the message. Errors stick and come out of [`finish`](Writer::finish).
///
/// ```
/// use stun_proto::wire::{Key, Message, MessageType, Method, Software, TransactionId, Writer};
///
/// let key = Key::short_term("VOkJxbRl1RmTxUk/WvJxBt");
/// let mut buf = [0; 548];
/// let request = MessageType::request(Method::BINDING);
/// let len = Writer::new(&mut buf, request, TransactionId([7; 12]))
///     .attribute(&Software::new("example").unwrap())
///     .message_integrity(&key)
///     .fingerprint()
///     .finish()
///     .unwrap();
///
/// let message = Message::parse(&buf[..len]).unwrap();
/// assert!(message.verify(&key).is_ok());
/// assert_eq!(message.check_fingerprint(), Some(true));
/// ```
pub struct Writer<'b, S = Open> {
    buf: &'b mut [u8],
    len: usize,
    id: TransactionId,
    error: Option<WriteError>,
    state: PhantomData<S>,
}

impl<'b> Writer<'b> {
    /// Starts a message at the beginning of `buf`.
    pub fn new(buf: &'b mut [u8], ty: MessageType, id: TransactionId) -> Self {
        let mut writer = Self {
            buf,
            len: 0,
            id,
            error: None,
            state: PhantomData,
        };
        writer.append(&ty.to_wire().to_be_bytes());
        writer.append(&[0; 2]);
        writer.append(&MAGIC_COOKIE.to_be_bytes());
        writer.append(&id.0);
        writer
    }

    /// Adds an attribute, padded with zeros.
    #[must_use]
    pub fn attribute<'a, A: Attribute<'a>>(mut self, attribute: &A) -> Self {
        let id = self.id;
        self.push(A::TYPE, attribute.encoded_len(), |out| {
            attribute.encode(out, id)
        });
        self
    }

    /// Adds an attribute if there is one.
    #[must_use]
    pub fn maybe<'a, A: Attribute<'a>>(self, attribute: Option<&A>) -> Self {
        match attribute {
            Some(attribute) => self.attribute(attribute),
            None => self,
        }
    }

    /// Adds an attribute from its bytes.
    #[must_use]
    pub fn raw(mut self, ty: AttributeType, value: &[u8]) -> Self {
        self.push(ty, value.len(), |out| out.copy_from_slice(value));
        self
    }

    /// Seals the message with MESSAGE-INTEGRITY (HMAC-SHA1).
    #[must_use]
    pub fn message_integrity(mut self, key: &Key) -> Writer<'b, Sealed> {
        self.seal_sha1(key);
        self.into_state()
    }

    /// Seals the message with the attribute of `algorithm`.
    #[must_use]
    pub fn integrity(mut self, algorithm: IntegrityAlgorithm, key: &Key) -> Writer<'b, Complete> {
        match algorithm {
            IntegrityAlgorithm::Sha1 => self.seal_sha1(key),
            IntegrityAlgorithm::Sha256 => self.seal_sha256(key, 32),
        }
        self.into_state()
    }
}

/// States in which MESSAGE-INTEGRITY-SHA256 may follow.
pub trait BeforeSha256: sealed::Is {}
impl BeforeSha256 for Open {}
impl BeforeSha256 for Sealed {}

/// States in which FINGERPRINT may follow.
pub trait BeforeFingerprint: sealed::Is {}
impl BeforeFingerprint for Open {}
impl BeforeFingerprint for Sealed {}
impl BeforeFingerprint for Complete {}

mod sealed {
    #[expect(unnameable_types, reason = "sealed on purpose")]
    pub trait Is {}
    impl Is for super::Open {}
    impl Is for super::Sealed {}
    impl Is for super::Complete {}
}

impl<'b, S: BeforeSha256> Writer<'b, S> {
    /// Seals the message with all 32 bytes of MESSAGE-INTEGRITY-SHA256.
    #[must_use]
    pub fn message_integrity_sha256(self, key: &Key) -> Writer<'b, Complete> {
        self.message_integrity_sha256_truncated(key, 32)
    }

    /// Seals the message with the first `len` bytes of MESSAGE-INTEGRITY-SHA256; `len` is brought
    /// to a multiple of four between 16 and 32.
    #[must_use]
    pub fn message_integrity_sha256_truncated(
        mut self,
        key: &Key,
        len: usize,
    ) -> Writer<'b, Complete> {
        self.seal_sha256(key, len.clamp(16, 32) & !3);
        self.into_state()
    }
}

impl<'b, S: BeforeFingerprint> Writer<'b, S> {
    /// Adds FINGERPRINT; nothing can follow it.
    #[must_use]
    pub fn fingerprint(mut self) -> Writer<'b, Fingerprinted> {
        self.patch_length(8);
        let value = fingerprint(self.written()).to_be_bytes();
        self.push(AttributeType::FINGERPRINT, 4, |out| {
            out.copy_from_slice(&value)
        });
        self.into_state()
    }
}

impl<'b, S> Writer<'b, S> {
    /// The length of the message in bytes; it fills the beginning of the slice.
    ///
    /// # Errors
    /// The first [`WriteError`] met on the way.
    pub fn finish(mut self) -> Result<usize, WriteError> {
        self.patch_length(0);
        match self.error {
            None => Ok(self.len),
            Some(error) => Err(error),
        }
    }

    fn written(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.buf.get_mut(self.len..end) {
            Some(slot) => {
                slot.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.error = self.error.or(Some(WriteError::BufferTooSmall)),
        }
    }

    fn push(&mut self, ty: AttributeType, len: usize, encode: impl FnOnce(&mut [u8])) {
        let Ok(wire_len) = u16::try_from(len) else {
            self.error = self.error.or(Some(WriteError::TooLong));
            return;
        };
        let start = self.len.saturating_add(4);
        let (end, padded_end) = (start.saturating_add(len), start.saturating_add(padded(len)));
        if padded_end > self.buf.len() {
            self.error = self.error.or(Some(WriteError::BufferTooSmall));
        }
        if self.error.is_some() {
            return;
        }
        self.append(&ty.0.to_be_bytes());
        self.append(&wire_len.to_be_bytes());
        if let Some(value) = self.buf.get_mut(start..end) {
            encode(value);
        }
        if let Some(padding) = self.buf.get_mut(end..padded_end) {
            padding.fill(0);
        }
        self.len = padded_end;
    }

    /// Sets the header length as if `more` further bytes followed.
    fn patch_length(&mut self, more: usize) {
        let len = self.len.saturating_add(more).saturating_sub(HEADER_LEN);
        let Ok(len) = u16::try_from(len) else {
            self.error = self.error.or(Some(WriteError::TooLong));
            return;
        };
        if let Some(slot) = self.buf.get_mut(2..4) {
            slot.copy_from_slice(&len.to_be_bytes());
        }
    }

    fn seal_sha1(&mut self, key: &Key) {
        self.patch_length(24);
        let code = key.sha1(&[self.written()]);
        self.push(AttributeType::MESSAGE_INTEGRITY, 20, |out| {
            out.copy_from_slice(&code)
        });
    }

    fn seal_sha256(&mut self, key: &Key, len: usize) {
        self.patch_length(len.saturating_add(4));
        let code = key.sha256(&[self.written()]);
        self.push(AttributeType::MESSAGE_INTEGRITY_SHA256, len, |out| {
            for (slot, byte) in out.iter_mut().zip(code) {
                *slot = byte;
            }
        });
    }

    fn into_state<T>(self) -> Writer<'b, T> {
        Writer {
            buf: self.buf,
            len: self.len,
            id: self.id,
            error: self.error,
            state: PhantomData,
        }
    }
}

/// Adds FINGERPRINT to a finished message that has none; `buf[..len]` is the message, and the new
/// length is returned.
///
/// # Errors
/// [`WriteError`] when `buf` is too small or the message would be too long.
pub fn append_fingerprint(buf: &mut [u8], len: usize) -> Result<usize, WriteError> {
    let end = len.saturating_add(8);
    let wire_len =
        u16::try_from(end.saturating_sub(HEADER_LEN)).map_err(|_| WriteError::TooLong)?;
    if end > buf.len() {
        return Err(WriteError::BufferTooSmall);
    }
    if let Some(slot) = buf.get_mut(2..4) {
        slot.copy_from_slice(&wire_len.to_be_bytes());
    }
    let value = fingerprint(buf.get(..len).unwrap_or_default());
    let [t1, t0] = AttributeType::FINGERPRINT.0.to_be_bytes();
    let [v3, v2, v1, v0] = value.to_be_bytes();
    if let Some(slot) = buf.get_mut(len..end) {
        slot.copy_from_slice(&[t1, t0, 0, 4, v3, v2, v1, v0]);
    }
    Ok(end)
}

/// Sets the number of this transmission in TRANSACTION_TRANSMIT_COUNTER of a finished request, and
/// corrects FINGERPRINT (RFC 7982 section 3.1). `false`, and nothing changed, when the message has
/// no such attribute or is protected by integrity.
pub fn set_transmit_count(message: &mut [u8], count: u8) -> bool {
    let Ok(parsed) = Message::parse(message) else {
        return false;
    };
    let mut attributes = parsed.attributes();
    let offset = loop {
        let end_of_rest = attributes.remaining();
        match attributes.next() {
            Some(raw) if raw.ty == TransmitCounter::TYPE && raw.value.len() == 4 => {
                let whole = parsed.attributes().remaining();
                break whole.saturating_sub(end_of_rest).saturating_add(HEADER_LEN);
            }
            Some(_) => {}
            None => return false,
        }
    };
    let (protected, printed) = (parsed.has_integrity(), parsed.check_fingerprint().is_some());
    if protected {
        return false;
    }
    if let Some(slot) = message.get_mut(offset.saturating_add(6)) {
        *slot = count;
    }
    if printed {
        let len = message.len().saturating_sub(8);
        return append_fingerprint(message, len).is_ok();
    }
    true
}

impl<S> fmt::Debug for Writer<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("len", &self.len)
            .field("id", &self.id)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
