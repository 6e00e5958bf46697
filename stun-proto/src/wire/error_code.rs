//! ERROR-CODE (RFC 8489 section 14.8).

use core::fmt;

use super::attribute::Shown;
use super::{Attribute, AttributeError, AttributeType, TransactionId};

/// Why a request failed: a code from 300 to 699 and a phrase for people.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    code: u16,
    reason: &'a [u8],
}

impl<'a> ErrorCode<'a> {
    /// 300 Try Alternate.
    pub const TRY_ALTERNATE: u16 = 300;
    /// 400 Bad Request.
    pub const BAD_REQUEST: u16 = 400;
    /// 401 Unauthenticated.
    pub const UNAUTHENTICATED: u16 = 401;
    /// 420 Unknown Attribute.
    pub const UNKNOWN_ATTRIBUTE: u16 = 420;
    /// 438 Stale Nonce.
    pub const STALE_NONCE: u16 = 438;
    /// 487 Role Conflict (ICE).
    pub const ROLE_CONFLICT: u16 = 487;
    /// 500 Server Error.
    pub const SERVER_ERROR: u16 = 500;

    /// An error with the registered phrase of its code. Codes outside 300..=699 become 500.
    pub const fn new(code: u16) -> ErrorCode<'static> {
        let code = if code >= 300 && code <= 699 {
            code
        } else {
            500
        };
        ErrorCode {
            code,
            reason: default_reason(code).as_bytes(),
        }
    }

    /// The same code with another phrase, cut to 127 bytes.
    #[must_use]
    pub fn with_reason(self, reason: &'a str) -> Self {
        let mut end = reason.len().min(127);
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let reason = reason.get(..end).unwrap_or_default().as_bytes();
        Self { reason, ..self }
    }

    /// The code, 300 to 699.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The phrase as received: possibly empty, possibly no UTF-8, without trailing NULs.
    pub fn reason(&self) -> &'a [u8] {
        let end = self.reason.iter().rposition(|&b| b != 0);
        end.and_then(|last| self.reason.get(..=last))
            .unwrap_or_default()
    }
}

impl fmt::Debug for ErrorCode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorCode")
            .field("code", &self.code)
            .field("reason", &Shown(self.reason))
            .finish()
    }
}

impl<'a> Attribute<'a> for ErrorCode<'a> {
    const TYPE: AttributeType = AttributeType(0x0009);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let [_, _, class, number, reason @ ..] = value else {
            return Err(AttributeError::Length);
        };
        if reason.len() > 763 {
            return Err(AttributeError::Length);
        }
        let (class, number) = (u16::from(class & 7), u16::from(*number));
        if !(3..=6).contains(&class) || number > 99 {
            return Err(AttributeError::Value);
        }
        let code = class.saturating_mul(100).saturating_add(number);
        Ok(Self { code, reason })
    }

    fn encoded_len(&self) -> usize {
        self.reason.len().saturating_add(4)
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        let head = [0, 0, (self.code / 100) as u8, (self.code % 100) as u8];
        let bytes = head.iter().chain(self.reason);
        for (slot, byte) in out.iter_mut().zip(bytes) {
            *slot = *byte;
        }
    }
}

/// The registered phrase of a code, empty for unregistered ones.
const fn default_reason(code: u16) -> &'static str {
    match code {
        300 => "Try Alternate",
        400 => "Bad Request",
        401 => "Unauthenticated",
        403 => "Forbidden",
        405 => "Mobility Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        446 => "Connection Already Exists",
        447 => "Connection Timeout or Failure",
        486 => "Allocation Quota Reached",
        487 => "Role Conflict",
        500 => "Server Error",
        508 => "Insufficient Capacity",
        _ => "",
    }
}
