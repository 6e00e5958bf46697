//! Reading the Proxy-Status field (RFC 9209): a list of structured-field items with parameters.

use alloc::string::String;
use alloc::vec::Vec;

/// How many members of a field are read; the rest is left out.
const MAX_MEMBERS: usize = 16;

/// What one proxy on the way says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    /// Who says so.
    pub proxy: String,
    /// The error type, such as `dns_error`.
    pub error: Option<String>,
    /// What the proxy tried to reach next.
    pub next_hop: Option<String>,
    /// The protocol it spoke there.
    pub next_protocol: Option<String>,
    /// The status code it received.
    pub received_status: Option<u16>,
    /// Words for humans.
    pub details: Option<String>,
}

/// Reads a field, the proxy nearest to the target first; parameters that are not known are passed
/// over. `None` when the field is malformed.
///
/// ```
/// use http_connect::wire::proxy_status;
///
/// let members = proxy_status(r#"far; error=dns_error; rcode="NXDOMAIN", "near one""#).unwrap();
/// assert_eq!(members[0].error.as_deref(), Some("dns_error"));
/// assert_eq!(members[1].proxy, "near one");
/// ```
pub fn proxy_status(value: &str) -> Option<Vec<ProxyStatus>> {
    let mut reader = Reader {
        rest: value.trim_matches(' '),
    };
    let mut members = Vec::new();
    while !reader.rest.is_empty() {
        let member = reader.member()?;
        if members.len() < MAX_MEMBERS {
            members.push(member);
        }
        reader.skip_blanks();
        if reader.rest.is_empty() {
            break;
        }
        reader.eat(',').then_some(())?;
        reader.skip_blanks();
        if reader.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

#[derive(Debug)]
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn run(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn member(&mut self) -> Option<ProxyStatus> {
        let mut member = ProxyStatus {
            proxy: self.item()?,
            ..ProxyStatus::default()
        };
        while self.eat(';') {
            self.rest = self.rest.trim_start_matches(' ');
            let key =
                self.run(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c));
            if key.is_empty() {
                return None;
            }
            let value = if self.eat('=') {
                self.item()?
            } else {
                String::from("?1")
            };
            match key {
                "error" => member.error = Some(value),
                "next-hop" => member.next_hop = Some(value),
                "next-protocol" => member.next_protocol = Some(value),
                "received-status" => member.received_status = value.parse().ok(),
                "details" => member.details = Some(value),
                _ => {}
            }
        }
        Some(member)
    }

    /// A string, or anything that is written without quotes: token, number, boolean, bytes.
    fn item(&mut self) -> Option<String> {
        if !self.eat('"') {
            let bare = self.run(|c| c.is_ascii_graphic() && !";,\"".contains(c));
            return (!bare.is_empty()).then(|| String::from(bare));
        }
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => text.push(chars.next().filter(|c| "\"\\".contains(*c))?),
                c if c == ' ' || c.is_ascii_graphic() => text.push(c),
                _ => return None,
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }
}
