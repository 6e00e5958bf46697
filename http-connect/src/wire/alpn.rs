//! The ALPN field: which protocols the tunnel will carry (RFC 7639).
//!
//! It may be false, so it never grants anything; proxies may use it to refuse.

use alloc::string::String;
use alloc::vec::Vec;

use crate::text::{hex_digit, is_token_byte};

/// A member of the field is empty, or is not encoded in the one way there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed ALPN field")]
pub struct AlpnError;

/// The value of the field for these protocol IDs, which must be those of the TLS ClientHello.
///
/// ```
/// use http_connect::wire::alpn_value;
///
/// assert_eq!(alpn_value([b"h2".as_slice(), b"http/1.1"]), "h2, http%2F1.1");
/// ```
pub fn alpn_value<'a>(ids: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut value = String::new();
    for (index, id) in ids.into_iter().enumerate() {
        if index > 0 {
            value.push_str(", ");
        }
        for &byte in id {
            if is_token_byte(byte) && byte != b'%' {
                value.push(char::from(byte));
            } else {
                value.push_str(&alloc::format!("%{byte:02X}"));
            }
        }
    }
    value
}

/// The protocol IDs of a field.
///
/// # Errors
/// [`AlpnError`], also when something is encoded that need not be.
pub fn parse_alpn(value: &str) -> Result<Vec<Vec<u8>>, AlpnError> {
    value
        .split(',')
        .map(|member| decode(member.trim_matches([' ', '\t'])))
        .collect()
}

fn decode(text: &str) -> Result<Vec<u8>, AlpnError> {
    let upper = |byte: Option<u8>| {
        byte.filter(|b| !b.is_ascii_lowercase())
            .and_then(hex_digit)
            .ok_or(AlpnError)
    };
    let mut id = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let decoded = upper(bytes.next())? << 4 | upper(bytes.next())?;
            if is_token_byte(decoded) && decoded != b'%' {
                return Err(AlpnError);
            }
            id.push(decoded);
        } else if is_token_byte(byte) {
            id.push(byte);
        } else {
            return Err(AlpnError);
        }
    }
    if id.is_empty() {
        return Err(AlpnError);
    }
    Ok(id)
}
