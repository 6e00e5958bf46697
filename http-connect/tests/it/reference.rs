//! A second reading of the same grammar, as plain as possible, to compare with.

use http_connect::wire::{Head, HeadLimits, HeadReader, Leniency, RequestLine};
use proptest::prelude::*;

/// First line, then names and values.
type Reading = (String, Vec<(String, String)>);

/// RFC 9112 section 2.1, 3 and 5, without any leniency and any limit.
fn reference(bytes: &[u8]) -> Option<Reading> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let legal = |line: &str| line.chars().all(|c| c == '\t' || !c.is_ascii_control());
    let first = lines
        .next()
        .filter(|line| !line.is_empty() && legal(line))?;
    let fields = lines
        .map(|line| {
            let (name, value) = line.split_once(':').filter(|_| legal(line))?;
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            let value = value.trim_matches([' ', '\t']);
            (!name.is_empty() && name.chars().all(token))
                .then(|| (name.to_string(), value.to_string()))
        })
        .collect::<Option<_>>()?;
    Some((first.to_string(), fields))
}

fn ours(bytes: &[u8]) -> Option<Head> {
    let mut reader = HeadReader::new(HeadLimits::default(), Leniency::STRICT);
    let mut input = bytes;
    let head = reader.take(&mut input).ok()??;
    input.is_empty().then_some(head)
}

proptest! {
    // spec: SEC-H-10
    #[test]
    fn both_readings_agree(
        bytes in prop_oneof![
            3 => "(CONNECT h:1 HTTP/1.1|[A-Z ]{0,9})\r\n([A-Za-z-]{0,3}[:; ]{1,2}[ -~\t]{0,6}\r\n){0,5}\r\n",
            1 => "([!-~ \t\r\n:]|\r\n){0,30}\r\n\r\n",
        ],
    ) {
        let reading = ours(bytes.as_bytes()).map(|head| {
            let fields = head
                .fields()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect();
            (head.start_line().to_string(), fields)
        });
        prop_assert_eq!(reading, reference(bytes.as_bytes()), "{:?}", bytes);
    }

    #[test]
    fn request_lines_are_three_words(line in "[A-Za-z/:.0-9 \t]{0,24}|CONNECT [a-z:0-9]{1,9} HTTP/[0-9].[0-9]") {
        let words: Vec<&str> = line.split(' ').collect();
        let expected = words.len() == 3
            && words.iter().all(|word| !word.is_empty() && !word.contains('\t'))
            && words[0].chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
            && words[2].len() == 8
            && words[2].starts_with("HTTP/")
            && words[2][5..].chars().enumerate().all(|(at, c)| {
                if at == 1 { c == '.' } else { c.is_ascii_digit() }
            });
        prop_assert_eq!(RequestLine::parse(&line).is_some(), expected, "{:?}", line);
    }
}
