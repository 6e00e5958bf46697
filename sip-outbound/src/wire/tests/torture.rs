//! RFC 4475 and RFC 5118.

use super::*;

/// What becomes of a datagram, or of the same bytes on a stream when `stream` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Read; the element goes on.
    Fine,
    /// Answered with this code.
    Refused(u16),
    /// A response that is dropped.
    Dropped,
    /// No SIP at all.
    Unreadable,
}

use Verdict::{Dropped, Fine, Refused, Unreadable};

fn verdict(bytes: &[u8], config: &ParseConfig) -> Verdict {
    let Ok(message) = Message::parse(bytes, config) else {
        return Unreadable;
    };
    if !message.is_request() {
        return match Response::check(message, &config.limits) {
            Ok(_) => Fine,
            Err(_) => Dropped,
        };
    }
    let answerable = is_answerable(&message, &config.limits);
    match Request::check(message, &config.limits) {
        Ok(_) => Fine,
        Err(refusal) if answerable => Refused(refusal.status.number()),
        Err(_) => Dropped,
    }
}

macro_rules! file {
    ($dir:literal, $name:literal) => {
        (
            $name,
            &include_bytes!(concat!("../../../tests/torture/", $dir, "/", $name))[..],
        )
    };
}

// spec: SIP-7.1-2, SIP-7.3.1-1, SIP-7.3.1-4, SIP-7.3.3-1, SIP-19.1.1-2, SIP-20.10-1, PRJ-2-2, SIP-8.1.1-2
#[test]
fn rfc4475_verdicts() {
    let cases = [
        (file!("rfc4475", "wsinv.dat"), Fine),
        (file!("rfc4475", "intmeth.dat"), Unreadable),
        (file!("rfc4475", "esc01.dat"), Fine),
        (file!("rfc4475", "escnull.dat"), Fine),
        (file!("rfc4475", "esc02.dat"), Fine),
        (file!("rfc4475", "lwsdisp.dat"), Fine),
        (file!("rfc4475", "longreq.dat"), Fine),
        (file!("rfc4475", "dblreq.dat"), Fine),
        (file!("rfc4475", "semiuri.dat"), Fine),
        (file!("rfc4475", "transports.dat"), Fine),
        (file!("rfc4475", "mpart01.dat"), Fine),
        (file!("rfc4475", "unreason.dat"), Fine),
        (file!("rfc4475", "noreason.dat"), Fine),
        (file!("rfc4475", "badinv01.dat"), Dropped),
        (file!("rfc4475", "clerr.dat"), Refused(400)),
        (file!("rfc4475", "ncl.dat"), Refused(400)),
        (file!("rfc4475", "scalar02.dat"), Refused(400)),
        (file!("rfc4475", "scalarlg.dat"), Dropped),
        (file!("rfc4475", "quotbal.dat"), Refused(400)),
        (file!("rfc4475", "ltgtruri.dat"), Refused(400)),
        (file!("rfc4475", "lwsruri.dat"), Refused(400)),
        (file!("rfc4475", "lwsstart.dat"), Refused(400)),
        (file!("rfc4475", "trws.dat"), Refused(400)),
        (file!("rfc4475", "escruri.dat"), Refused(400)),
        (file!("rfc4475", "baddate.dat"), Fine),
        (file!("rfc4475", "regbadct.dat"), Fine),
        (file!("rfc4475", "badaspec.dat"), Refused(400)),
        (file!("rfc4475", "baddn.dat"), Refused(400)),
        (file!("rfc4475", "badvers.dat"), Refused(505)),
        (file!("rfc4475", "mismatch01.dat"), Refused(400)),
        (file!("rfc4475", "mismatch02.dat"), Refused(400)),
        (file!("rfc4475", "bigcode.dat"), Dropped),
        (file!("rfc4475", "badbranch.dat"), Fine),
        (file!("rfc4475", "insuf.dat"), Dropped),
        (file!("rfc4475", "unkscm.dat"), Fine),
        (file!("rfc4475", "novelsc.dat"), Fine),
        (file!("rfc4475", "unksm2.dat"), Fine),
        (file!("rfc4475", "bext01.dat"), Fine),
        (file!("rfc4475", "invut.dat"), Fine),
        (file!("rfc4475", "regaut01.dat"), Fine),
        (file!("rfc4475", "multi01.dat"), Refused(400)),
        (file!("rfc4475", "mcl01.dat"), Refused(400)),
        (file!("rfc4475", "bcast.dat"), Fine),
        (file!("rfc4475", "zeromf.dat"), Fine),
        (file!("rfc4475", "cparam01.dat"), Fine),
        (file!("rfc4475", "cparam02.dat"), Fine),
        (file!("rfc4475", "regescrt.dat"), Fine),
        (file!("rfc4475", "sdp01.dat"), Fine),
        (file!("rfc4475", "inv2543.dat"), Fine),
    ];
    for ((name, bytes), expected) in cases {
        let mut bytes = bytes.to_vec();
        if name == "baddn.dat" {
            // The archive lacks the blank line here.
            bytes.extend_from_slice(b"\r\n");
        }
        assert_eq!(verdict(&bytes, &ParseConfig::default()), expected, "{name}");
    }
}

// spec: SIP-18.2.1-2
#[test]
fn rfc5118_verdicts() {
    let cases = [
        (file!("rfc5118", "ipv6-good"), Fine),
        (file!("rfc5118", "ipv6-bad"), Refused(400)),
        (file!("rfc5118", "port-ambiguous"), Fine),
        (file!("rfc5118", "port-unambiguous"), Fine),
        (file!("rfc5118", "via-received-param-with-delim"), Fine),
        (file!("rfc5118", "via-received-param-no-delim"), Fine),
        (file!("rfc5118", "ipv6-in-sdp"), Fine),
        (file!("rfc5118", "mult-ip-in-header"), Fine),
        (file!("rfc5118", "mult-ip-in-sdp"), Fine),
        (file!("rfc5118", "ipv4-mapped-ipv6"), Fine),
        (file!("rfc5118", "ipv6-bug-abnf-3-colons"), Fine),
        (file!("rfc5118", "ipv6-correct-abnf-2-colons"), Fine),
    ];
    for ((name, bytes), expected) in cases {
        // The archive of RFC 5118 has line feeds only.
        let text = core::str::from_utf8(bytes).unwrap().replace("\r\n", "\n");
        let mut text = text.replace('\n', "\r\n");
        if !text.contains("\r\n\r\n") {
            text.push_str("\r\n");
        }
        // For the same reason its Content-Length values do not fit.
        let text = text.replace("Content-Length:", "X-Length:");
        assert_eq!(
            verdict(text.as_bytes(), &ParseConfig::default()),
            expected,
            "{name}"
        );
    }
}

fn torture(bytes: &[u8]) -> Message {
    Message::parse(bytes, &ParseConfig::default()).unwrap()
}

#[test]
fn tortuous_invite_is_read_as_meant() {
    let (_, bytes) = file!("rfc4475", "wsinv.dat");
    let invite = Request::check(torture(bytes), &Limits::DEFAULT).unwrap();
    assert_eq!(invite.cseq_number(), 9);
    assert_eq!(invite.max_forwards(), Ok(Some(68)));
    assert_eq!(invite.to_tag(), Some("1918181833n"));
    assert_eq!(invite.from_tag(), Some("98asjd8"));
    let from = invite.from(&Limits::DEFAULT).unwrap();
    assert_eq!(from.display_name().unwrap(), r#"J Rosenberg \""#);
    assert_eq!(invite.via_count(), 3);
    assert_eq!(invite.branch(), Some("390skdjuw"));
    assert_eq!(invite.cookie_branch(), None);
    let branches: Vec<_> = invite
        .list(Name::VIA)
        .map(|via| Via::parse(via, &Limits::DEFAULT).unwrap().branch().unwrap())
        .collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]);
    assert_eq!(invite.only(Name::SUBJECT), Ok(""));
    assert_eq!(
        invite.only("NewFangledHeader"),
        Ok("newfangled value continued newfangled value")
    );
    assert_eq!(invite.only("UnknownHeaderWithUnusualValue"), Ok(";;,,;;,;"));
    let contact = invite.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
    assert_eq!(contact.params.value("newparam"), Some("newvalue"));
    assert_eq!(contact.params.value("q"), Some("0.33"));
    assert_eq!(invite.body().len(), 150);
}

#[test]
fn odd_but_legal_characters_need_quoted_controls() {
    let (_, bytes) = file!("rfc4475", "intmeth.dat");
    let mut config = ParseConfig::default();
    config.leniency.quoted_controls = true;
    assert_eq!(verdict(bytes, &config), Fine);
    let message = Message::parse(bytes, &config).unwrap();
    let Start::Request { method, uri } = message.start() else {
        panic!()
    };
    assert!(method.starts_with("!interesting-Method"));
    let uri = SipUri::parse(uri, &config.limits).unwrap();
    assert_eq!(
        uri.password(),
        Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
    );
}

// spec: SIP-19.1.2-1, SIP-18.3-2
#[test]
fn details_of_the_messages_that_are_fine() {
    let uri_of = |bytes| torture(bytes);
    let (_, bytes) = file!("rfc4475", "esc01.dat");
    let message = uri_of(bytes);
    let Start::Request { uri, .. } = message.start() else {
        panic!()
    };
    let uri = SipUri::parse(uri, &Limits::DEFAULT).unwrap();
    assert_eq!(unescape(uri.user().unwrap()), "sips:user@example.com");
    let contact = message.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
    assert!(contact.uri.sip().unwrap().is_loose());

    let (_, bytes) = file!("rfc4475", "semiuri.dat");
    let message = uri_of(bytes);
    let Start::Request { uri, .. } = message.start() else {
        panic!()
    };
    let uri = SipUri::parse(uri, &Limits::DEFAULT).unwrap();
    assert_eq!(unescape(uri.user().unwrap()), "user;par=u@example.net");

    let (_, bytes) = file!("rfc4475", "escnull.dat");
    let message = uri_of(bytes);
    let users: Vec<_> = message
        .contacts(&Limits::DEFAULT)
        .map(|contact| contact.unwrap().uri.sip().unwrap().aor())
        .collect();
    assert_eq!(users.len(), 2);
    assert!(users[0] != users[1] && users[0].as_str().contains('\0'));

    let (_, bytes) = file!("rfc4475", "esc02.dat");
    let message = uri_of(bytes);
    assert_eq!(message.list(Name::CONTACT).count(), 2);
    assert_eq!(message.method(), "RE%47IST%45R");

    let (_, bytes) = file!("rfc4475", "dblreq.dat");
    let message = uri_of(bytes);
    assert_eq!((message.method(), message.body()), ("REGISTER", &b""[..]));

    let (_, bytes) = file!("rfc4475", "mpart01.dat");
    assert!(uri_of(bytes).body().contains(&0));

    let (_, bytes) = file!("rfc4475", "longreq.dat");
    assert_eq!(uri_of(bytes).via_count(), 34);

    let (_, bytes) = file!("rfc4475", "noreason.dat");
    let response = Response::check(torture(bytes), &Limits::DEFAULT).unwrap();
    assert_eq!(
        (response.code().number(), response.reason()),
        (100, &b""[..])
    );

    let contact = |bytes| {
        let message = torture(bytes);
        let contact = message.contacts(&Limits::DEFAULT).next().unwrap();
        contact.map(|contact| {
            let uri = contact.uri.sip().unwrap();
            (
                uri.has_param("unknownparam"),
                contact.params.has("unknownparam"),
                uri.headers().is_some(),
            )
        })
    };
    assert_eq!(
        contact(file!("rfc4475", "cparam01.dat").1),
        Ok((false, true, false))
    );
    assert_eq!(
        contact(file!("rfc4475", "cparam02.dat").1),
        Ok((true, false, false))
    );
    assert_eq!(
        contact(file!("rfc4475", "regescrt.dat").1),
        Ok((false, false, true))
    );
    assert!(contact(file!("rfc4475", "regbadct.dat").1).is_err());
    let (_, bytes) = file!("rfc4475", "badbranch.dat");
    let message = Request::check(torture(bytes), &Limits::DEFAULT).unwrap();
    assert_eq!(message.cookie_branch(), None);
}
