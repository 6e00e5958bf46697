//! Header field names, long and compact (RFC 3261 section 7.3.3).

use core::fmt;

macro_rules! names {
    ($($konst:ident $text:literal $compact:literal;)*) => {
        #[repr(u8)]
        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the constants")]
        enum Index { $($konst),* }

        const TABLE: &[(&str, &str)] = &[$(($text, $compact)),*];

        impl Name {
            $(
                #[doc = concat!("`", $text, "`.")]
                pub const $konst: Self = Self(Index::$konst as u8);
            )*
        }
    };
}

/// The name of a header field this crate knows. Comparing two is comparing numbers; upper and
/// lower case, long and compact form are the same name.
///
/// ```
/// use sip_outbound::wire::Name;
///
/// assert_eq!(Name::parse("v"), Some(Name::VIA));
/// assert_eq!(Name::parse("CONTACT"), Some(Name::CONTACT));
/// assert_eq!(Name::CALL_ID.as_str(), "Call-ID");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u8);

names! {
    VIA "Via" "v";
    MAX_FORWARDS "Max-Forwards" "";
    FROM "From" "f";
    TO "To" "t";
    CALL_ID "Call-ID" "i";
    CSEQ "CSeq" "";
    CONTACT "Contact" "m";
    ROUTE "Route" "";
    RECORD_ROUTE "Record-Route" "";
    PATH "Path" "";
    SERVICE_ROUTE "Service-Route" "";
    CONTENT_LENGTH "Content-Length" "l";
    CONTENT_TYPE "Content-Type" "c";
    CONTENT_ENCODING "Content-Encoding" "e";
    CONTENT_LANGUAGE "Content-Language" "";
    CONTENT_DISPOSITION "Content-Disposition" "";
    EXPIRES "Expires" "";
    MIN_EXPIRES "Min-Expires" "";
    RETRY_AFTER "Retry-After" "";
    FLOW_TIMER "Flow-Timer" "";
    SUPPORTED "Supported" "k";
    REQUIRE "Require" "";
    PROXY_REQUIRE "Proxy-Require" "";
    UNSUPPORTED "Unsupported" "";
    ALLOW "Allow" "";
    ALLOW_EVENTS "Allow-Events" "u";
    ACCEPT "Accept" "";
    ACCEPT_ENCODING "Accept-Encoding" "";
    ACCEPT_LANGUAGE "Accept-Language" "";
    AUTHORIZATION "Authorization" "";
    WWW_AUTHENTICATE "WWW-Authenticate" "";
    PROXY_AUTHORIZATION "Proxy-Authorization" "";
    PROXY_AUTHENTICATE "Proxy-Authenticate" "";
    AUTHENTICATION_INFO "Authentication-Info" "";
    PROXY_AUTHENTICATION_INFO "Proxy-Authentication-Info" "";
    SECURITY_CLIENT "Security-Client" "";
    SECURITY_SERVER "Security-Server" "";
    SECURITY_VERIFY "Security-Verify" "";
    P_ASSERTED_IDENTITY "P-Asserted-Identity" "";
    P_PREFERRED_IDENTITY "P-Preferred-Identity" "";
    P_ASSOCIATED_URI "P-Associated-URI" "";
    P_ACCESS_NETWORK_INFO "P-Access-Network-Info" "";
    EVENT "Event" "o";
    SUBJECT "Subject" "s";
    DATE "Date" "";
    WARNING "Warning" "";
    SERVER "Server" "";
    USER_AGENT "User-Agent" "";
    REFER_TO "Refer-To" "r";
    REFERRED_BY "Referred-By" "b";
    SESSION_EXPIRES "Session-Expires" "x";
    IDENTITY "Identity" "y";
    IN_REPLY_TO "In-Reply-To" "";
    CALL_INFO "Call-Info" "";
    ALERT_INFO "Alert-Info" "";
    ERROR_INFO "Error-Info" "";
    MAX_BREADTH "Max-Breadth" "";
    RSEQ "RSeq" "";
    RACK "RAck" "";
}

impl Name {
    /// The name with this long or compact spelling, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let index = TABLE.iter().position(|(long, compact)| {
            text.eq_ignore_ascii_case(long)
                || (!compact.is_empty() && text.eq_ignore_ascii_case(compact))
        })?;
        u8::try_from(index).ok().map(Self)
    }

    /// The long form.
    pub fn as_str(self) -> &'static str {
        TABLE.get(usize::from(self.0)).map_or("", |(long, _)| long)
    }

    /// The compact form, if there is one.
    pub fn compact(self) -> Option<&'static str> {
        let (_, compact) = TABLE.get(usize::from(self.0))?;
        (!compact.is_empty()).then_some(compact)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to look a header field up by: a [`Name`] or any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// A known name.
    Known(Name),
    /// A name this crate does not know.
    Other(&'a str),
}

impl<'a> Key<'a> {
    /// The text a new field of this name starts with.
    pub fn as_str(&self) -> &'a str {
        match self {
            Self::Known(name) => name.as_str(),
            Self::Other(text) => text,
        }
    }
}

impl From<Name> for Key<'_> {
    fn from(name: Name) -> Self {
        Self::Known(name)
    }
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(text: &'a str) -> Self {
        Name::parse(text).map_or(Self::Other(text), Self::Known)
    }
}
