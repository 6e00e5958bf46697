//! Character classes of the grammar (RFC 3261 section 25.1).

/// `token`.
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
        )
}

/// `word`, of which Call-ID consists (with one `@` in between).
pub(crate) const fn is_word(byte: u8) -> bool {
    is_token(byte)
        || matches!(
            byte,
            b'(' | b')'
                | b'<'
                | b'>'
                | b':'
                | b'\\'
                | b'"'
                | b'/'
                | b'['
                | b']'
                | b'?'
                | b'{'
                | b'}'
        )
}

/// `unreserved` of the URI grammar.
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')'
        )
}

/// `reserved` of the URI grammar: an escaped one is not equal to the plain one.
pub(crate) const fn is_reserved(byte: u8) -> bool {
    matches!(
        byte,
        b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b','
    )
}

/// The user part of a URI, escapes apart.
pub(crate) const fn is_user(byte: u8) -> bool {
    is_password(byte) || matches!(byte, b';' | b'?' | b'/')
}

/// The password part of a URI, escapes apart.
pub(crate) const fn is_password(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',')
}

/// Names and values of URI parameters, escapes apart.
pub(crate) const fn is_uri_param(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

/// Names and values of URI headers, escapes apart.
pub(crate) const fn is_uri_header(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$')
}

/// Unquoted values of header parameters: `token` and `host`.
pub(crate) const fn is_param_value(byte: u8) -> bool {
    is_token(byte) || matches!(byte, b'[' | b']' | b':')
}

/// Space or horizontal tab.
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A control character that may not stand in a head: all but the horizontal tab.
pub(crate) const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7F
}

/// Whether `text` is one or more characters of the class or `%HH`.
pub(crate) fn all_or_escaped(text: &str, class: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fits = if byte == b'%' {
            let digit = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
            digit(bytes.next()) && digit(bytes.next())
        } else {
            class(byte)
        };
        if !fits {
            return false;
        }
    }
    !text.is_empty()
}

/// Whether `text` is a non-empty run of characters of the class.
pub(crate) fn all(text: &str, class: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(class)
}

/// `text` without blanks at both ends.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
