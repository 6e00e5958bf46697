//! Small values: numbers, CSeq, status codes, methods.

use core::fmt;

use alloc::borrow::Cow;
use alloc::string::String;

use super::ValueError;
use super::chars::{all, is_token, is_word, trim};
use super::params::words;

/// A number of one to ten ASCII digits, without sign.
pub(crate) fn decimal(text: &str) -> Option<u32> {
    let text = trim(text);
    let digits = !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A number of ASCII digits with any count of leading zeros.
pub(crate) fn decimal_padded(text: &str) -> Option<u32> {
    let text = trim(text);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    decimal(digits)
}

/// The method of a request; case counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(Cow<'static, str>);

macro_rules! methods {
    ($($konst:ident)*) => {
        impl Method {
            $(
                #[doc = concat!("`", stringify!($konst), "`.")]
                pub const $konst: Self = Self(Cow::Borrowed(stringify!($konst)));
            )*

            fn known(text: &str) -> Option<Self> {
                match text {
                    $(stringify!($konst) => Some(Self::$konst),)*
                    _ => None,
                }
            }
        }
    };
}

methods!(INVITE ACK CANCEL BYE REGISTER OPTIONS MESSAGE INFO UPDATE PRACK SUBSCRIBE NOTIFY REFER PUBLISH);

impl Method {
    /// The method of this name; `None` when it is not a token.
    pub fn new(text: &str) -> Option<Self> {
        Self::known(text)
            .or_else(|| all(text, is_token).then(|| Self(Cow::Owned(String::from(text)))))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request of this method can create a dialog (RFC 3261, 6665, 3515).
    pub fn forms_dialog(&self) -> bool {
        [Self::INVITE, Self::SUBSCRIBE, Self::REFER].contains(self)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<str> for Method {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

/// `CSeq`: a number below 2^31 and a method (RFC 3261 section 20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The number.
    pub number: u32,
    /// The method.
    pub method: &'a str,
}

impl<'a> CSeq<'a> {
    /// Reads a value.
    ///
    /// # Errors
    /// [`ValueError::Malformed`], or [`ValueError::OutOfRange`] for numbers from 2^31 on.
    pub fn parse(text: &'a str) -> Result<Self, ValueError> {
        let mut words = words(text);
        let (Some(number), Some(method), None) = (words.next(), words.next(), words.next()) else {
            return Err(ValueError::Malformed);
        };
        if !number.bytes().all(|b| b.is_ascii_digit()) || !all(method, is_token) {
            return Err(ValueError::Malformed);
        }
        let number = decimal_padded(number)
            .filter(|&number| number < 1 << 31)
            .ok_or(ValueError::OutOfRange)?;
        Ok(Self { number, method })
    }
}

/// Whether `text` is a `callid`: a word, or two with an `@` in between.
pub(crate) fn is_call_id(text: &str) -> bool {
    match text.split_once('@') {
        Some((left, right)) => all(left, is_word) && all(right, is_word),
        None => all(text, is_word),
    }
}

/// The number behind `Retry-After`: seconds; comment and parameters are passed over (RFC 3261
/// section 20.33).
pub fn parse_retry_after(text: &str) -> Option<u32> {
    let digits = text.split([';', '(', ' ', '\t']).next()?;
    decimal(digits)
}

/// A response code.
///
/// ```
/// use sip_outbound::wire::StatusCode;
///
/// assert_eq!(StatusCode::FLOW_FAILED.number(), 430);
/// assert_eq!(StatusCode::new(700), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

macro_rules! codes {
    ($($konst:ident $number:literal $reason:literal;)*) => {
        impl StatusCode {
            $(
                #[doc = concat!("`", stringify!($number), " ", $reason, "`.")]
                pub const $konst: Self = Self($number);
            )*

            /// The usual reason phrase; that of the class for codes unknown here.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($number => $reason,)*
                    100..=199 => "Session Progress",
                    200..=299 => "OK",
                    300..=399 => "Redirect",
                    400..=499 => "Bad Request",
                    500..=599 => "Server Internal Error",
                    _ => "Global Failure",
                }
            }
        }
    };
}

codes! {
    TRYING 100 "Trying";
    RINGING 180 "Ringing";
    SESSION_PROGRESS 183 "Session Progress";
    OK 200 "OK";
    ACCEPTED 202 "Accepted";
    BAD_REQUEST 400 "Bad Request";
    UNAUTHORIZED 401 "Unauthorized";
    FORBIDDEN 403 "Forbidden";
    NOT_FOUND 404 "Not Found";
    METHOD_NOT_ALLOWED 405 "Method Not Allowed";
    PROXY_AUTHENTICATION_REQUIRED 407 "Proxy Authentication Required";
    REQUEST_TIMEOUT 408 "Request Timeout";
    REQUEST_ENTITY_TOO_LARGE 413 "Request Entity Too Large";
    URI_TOO_LONG 414 "Request-URI Too Long";
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type";
    UNSUPPORTED_URI_SCHEME 416 "Unsupported URI Scheme";
    BAD_EXTENSION 420 "Bad Extension";
    EXTENSION_REQUIRED 421 "Extension Required";
    SESSION_INTERVAL_TOO_SMALL 422 "Session Interval Too Small";
    INTERVAL_TOO_BRIEF 423 "Interval Too Brief";
    FLOW_FAILED 430 "Flow Failed";
    FIRST_HOP_LACKS_OUTBOUND 439 "First Hop Lacks Outbound Support";
    BAD_INFO_PACKAGE 469 "Bad Info Package";
    TEMPORARILY_UNAVAILABLE 480 "Temporarily Unavailable";
    NO_SUCH_CALL 481 "Call/Transaction Does Not Exist";
    LOOP_DETECTED 482 "Loop Detected";
    TOO_MANY_HOPS 483 "Too Many Hops";
    BUSY_HERE 486 "Busy Here";
    REQUEST_TERMINATED 487 "Request Terminated";
    NOT_ACCEPTABLE_HERE 488 "Not Acceptable Here";
    REQUEST_PENDING 491 "Request Pending";
    SECURITY_AGREEMENT_REQUIRED 494 "Security Agreement Required";
    SERVER_ERROR 500 "Server Internal Error";
    NOT_IMPLEMENTED 501 "Not Implemented";
    BAD_GATEWAY 502 "Bad Gateway";
    SERVICE_UNAVAILABLE 503 "Service Unavailable";
    VERSION_NOT_SUPPORTED 505 "Version Not Supported";
    MESSAGE_TOO_LARGE 513 "Message Too Large";
    DECLINE 603 "Decline";
}

impl StatusCode {
    /// The code with this number, 100 to 699.
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            100..=699 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// 1xx: more will come.
    pub const fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// 2xx.
    pub const fn is_success(self) -> bool {
        self.0 / 100 == 2
    }

    /// The first digit, 1 to 6.
    pub const fn class(self) -> u16 {
        self.0 / 100
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
