//! The codec: messages, attributes and integrity, without any state (RFC 8489 sections 5 and 14).
//!
//! [`Message::parse`] checks a whole message in one walk; afterwards reading cannot fail except
//! for the value of a single attribute. [`Writer`] writes into the caller's slice and its type
//! fixes the order attributes, integrity, fingerprint.

mod address;
mod attribute;
mod attributes;
mod error_code;
mod header;
mod integrity;
mod message;
mod writer;

pub use address::{decode_address, decode_xor_address, encode_address, encode_xor_address};
pub use attribute::{Attribute, AttributeError, AttributeType, Attributes, RawAttribute};
pub use attributes::{
    AlternateDomain, AlternateServer, ChangeRequest, IceControlled, IceControlling, MappedAddress,
    Nonce, OtherAddress, Padding, PasswordAlgorithm, PasswordAlgorithms, Priority, Realm,
    ResponseOrigin, ResponsePort, Software, TextTooLong, TransmitCounter, UnknownAttributes,
    UseCandidate, Userhash, Username, XorMappedAddress,
};
pub use error_code::ErrorCode;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, MessageType, Method, TransactionId};
pub use integrity::{
    IntegrityAlgorithm, IntegrityError, Key, PasswordAlgorithmId, Verified, userhash,
};
pub use message::{MAX_ATTRIBUTES, Message, ParseError, ParseErrorKind};
pub use writer::{
    BeforeFingerprint, BeforeSha256, Complete, Fingerprinted, Open, Sealed, WriteError, Writer,
    append_fingerprint, set_transmit_count,
};

#[cfg(test)]
mod tests;
