//! Descriptions in bodies of several parts (RFC 5621, RFC 2046).

use super::super::body::description_in;
use super::*;

const DESCRIPTION: &str = "v=0\r\ns=-\r\n";

fn check(content_type: &str, body: &str, expected: Option<&str>) {
    let found = description_in(content_type, body.as_bytes());
    let found = found.map(|found| core::str::from_utf8(found).unwrap());
    assert_eq!(found, expected, "{content_type}\n{body}");
}

#[test]
fn a_description_is_found_wherever_it_stands_in_the_body() {
    let own = Some(DESCRIPTION);
    check("application/sdp", DESCRIPTION, own);
    check("Application/SDP; charset=utf-8", DESCRIPTION, own);
    check("text/plain", DESCRIPTION, None);
    check("", DESCRIPTION, None);
    let sdp = format!("Content-Type: application/sdp\r\n\r\n{DESCRIPTION}");
    let xml = "Content-Type: application/pidf+xml\r\nContent-ID: <a@b>\r\n\r\n<presence/>";
    let mixed = "multipart/mixed;boundary=abc";
    let two = |first: &str, second: &str| {
        format!("preamble\r\n--abc\r\n{first}\r\n--abc\r\n{second}\r\n--abc--\r\nepilogue\r\n")
    };
    check(mixed, &two(&sdp, xml), own);
    check(mixed, &two(xml, &sdp), own);
    check(
        "Multipart/Mixed ; x=y; Boundary=\"abc\"",
        &two(xml, &sdp),
        own,
    );
    check(mixed, &two(xml, xml), None);
    // Without the blank at the end of a line, the last boundary, or any word of it.
    check(mixed, &format!("--abc \r\n{sdp}\r\n--abc--  "), own);
    check(mixed, &format!("--abc\r\n{sdp}"), own);
    check(
        "multipart/mixed",
        &format!("--abc\r\n{sdp}\r\n--abc--"),
        own,
    );
    let bare = format!("--abc\nContent-Type:application/sdp\n\n{DESCRIPTION}\n--abc--\n");
    check(mixed, &bare, own);
    // A part within a part, and one that is none.
    let inner = format!(
        "Content-Type: multipart/alternative;boundary=in\r\n\r\n--in\r\n\r\nplain\r\n--in\r\n{sdp}\r\n--in--\r\n"
    );
    check(mixed, &two(xml, &inner), own);
    let longer = two(&format!("{sdp}--abcd\r\n"), xml);
    check(mixed, &longer, Some("v=0\r\ns=-\r\n--abcd\r\n"));
    // What follows the end is no part.
    check(
        mixed,
        &format!("--abc--\r\n--abc\r\n{sdp}\r\n--abc--"),
        None,
    );
}

#[test]
fn of_alternatives_the_last_counts_and_of_other_parts_the_first() {
    let part = |session: &str| format!("--b\r\nContent-Type: application/sdp\r\n\r\n{session}\r\n");
    let body = format!("{}{}--b--\r\n", part("first"), part("second"));
    check("multipart/alternative;boundary=b", &body, Some("second"));
    check("multipart/mixed;boundary=b", &body, Some("first"));
    check("multipart/related;boundary=b", &body, Some("first"));
}

#[test]
fn encoded_parts_are_passed_over() {
    let part = |header: &str| {
        format!("--b\r\nContent-Type: application/sdp\r\n{header}\r\n\r\n{DESCRIPTION}\r\n--b--")
    };
    let mixed = "multipart/mixed;boundary=b";
    check(mixed, &part("Content-Transfer-Encoding: base64"), None);
    check(mixed, &part("Content-Encoding: gzip"), None);
    for plain in [
        "Content-Transfer-Encoding: binary",
        "Content-Disposition: session;handling=required",
        "odd line",
    ] {
        check(mixed, &part(plain), Some(DESCRIPTION));
    }
}

#[test]
fn parts_beyond_the_limits_are_not_looked_at() {
    let sdp = format!("--b\r\nContent-Type: application/sdp\r\n\r\n{DESCRIPTION}\r\n--b--");
    let mixed = "multipart/mixed;boundary=b";
    check(
        mixed,
        &("--b\r\n\r\nx\r\n".repeat(15) + &sdp),
        Some(DESCRIPTION),
    );
    check(mixed, &("--b\r\n\r\nx\r\n".repeat(16) + &sdp), None);
    let wrap = |level: u32, inner: &str, kind: &str| {
        format!("--l{level}\r\nContent-Type: {kind}\r\n\r\n{inner}\r\n--l{level}--")
    };
    let (mut body, mut kind) = (String::from(DESCRIPTION), String::from("application/sdp"));
    for level in 1..=4 {
        body = wrap(level, &body, &kind);
        kind = format!("multipart/mixed;boundary=l{level}");
        check(&kind, &body, (level < 4).then_some(DESCRIPTION));
    }
    let long = "x".repeat(71);
    check(
        &format!("multipart/mixed;boundary={long}"),
        &format!("--{long}\r\n"),
        None,
    );
}

proptest! {
    #[test]
    fn no_body_is_a_surprise(
        body in "(--b|--b--|\r\n|\n|Content-Type: |application/sdp|multipart/mixed;boundary=b|x|:| ){0,40}",
    ) {
        let found = description_in("multipart/mixed;boundary=b", body.as_bytes());
        prop_assert!(found.is_none_or(|found| found.len() <= body.len()));
    }
}
