//! The security agreement with clients.

use super::*;
use crate::sec_agree::SecMechanisms;

const LIST: &str = "tls;q=0.2, ipsec-3gpp;q=0.1";

const TAGS: &str = "Require: sec-agree, a\r\nProxy-Require: sec-agree\r\n";

fn agreeing(required: bool) -> EdgeConfig {
    EdgeConfig {
        sec_agree: Some(EdgeSecAgree {
            mechanisms: SecMechanisms::parse(LIST).unwrap(),
            required,
        }),
        ..config()
    }
}

/// A client over this transport.
fn client(config: EdgeConfig, transport: Transport) -> Bench {
    let mut bench = bench(config);
    let at = FiveTuple {
        transport,
        ..tuple(51045)
    };
    bench.client = bench
        .edge
        .flow_accepted(super::at(0), at, Side::Access)
        .unwrap();
    bench
}

/// What becomes of a request: the code and whether the list comes with it, or what goes on.
fn outcome(config: EdgeConfig, transport: Transport, text: &str) -> Result<Request, (u16, bool)> {
    let mut bench = client(config, transport);
    bench.input(bench.client, text);
    let (_, message) = bench.next();
    if message.is_request() {
        return Ok(Request::check(message, &Limits::DEFAULT).unwrap());
    }
    let response = Response::check(message, &Limits::DEFAULT).unwrap();
    let listed = response.only(Name::SECURITY_SERVER) == Ok(LIST)
        && response.only(Name::REQUIRE) == Ok("sec-agree");
    Err((response.code().number(), listed))
}

// spec: SEC-2.3.1-3, SEC-2.3.1-6
#[test]
fn who_wants_to_agree_gets_the_list_and_has_to_show_it_over_tls() {
    let ask = |transport, rows: &str| {
        let text = text("OPTIONS", "sip:a@b", &alloc::format!("{TAGS}{rows}"));
        outcome(agreeing(false), transport, &text)
    };
    // Whatever the client lists, with and without a mechanism in common.
    for client in ["tls", "ipsec-man", "tls;q=0.9, digest"] {
        let rows = alloc::format!("Security-Client: {client}\r\n");
        assert_eq!(ask(Transport::Tcp, &rows).unwrap_err(), (494, true));
    }
    let verify = |list: &str| alloc::format!("Security-Verify: {list}\r\nSecurity-Client: tls\r\n");
    // Over TLS the list has to be the one that was sent.
    for wrong in [
        "tls;q=0.2",
        "tls;q=0.1, ipsec-3gpp;q=0.2",
        "ipsec-3gpp;q=0.1, tls;q=0.2",
        "tls;;",
    ] {
        assert_eq!(
            ask(Transport::Tls, &verify(wrong)).unwrap_err(),
            (494, true),
            "{wrong}"
        );
    }
    assert_eq!(ask(Transport::Tls, "").unwrap_err(), (494, true));
    // Without TLS it proves nothing.
    assert_eq!(ask(Transport::Tcp, &verify(LIST)).unwrap_err(), (494, true));
    let passed = ask(
        Transport::Tls,
        &verify("tls;q=0.2\r\nSecurity-Verify: ipsec-3gpp;q=0.1"),
    )
    .unwrap();
    assert_eq!(passed.rows(Name::REQUIRE).collect::<Vec<_>>(), ["a"]);
    for name in [
        Name::PROXY_REQUIRE,
        Name::SECURITY_CLIENT,
        Name::SECURITY_VERIFY,
        Name::SECURITY_SERVER,
    ] {
        assert!(!passed.has(name), "{name}");
    }
}

// spec: SEC-2.3.2-1
#[test]
fn an_agreement_can_be_required_of_flows_without_tls() {
    let ask = |transport, rows: &str| {
        let text = text("OPTIONS", "sip:a@b", rows);
        outcome(agreeing(true), transport, &text).map(|_| ())
    };
    assert_eq!(ask(Transport::Tcp, ""), Err((421, true)));
    assert_eq!(
        ask(Transport::Tcp, "Supported: x, sec-agree\r\n"),
        Err((494, true))
    );
    assert_eq!(ask(Transport::Tcp, TAGS), Err((494, true)));
    let second = "Via: SIP/2.0/TCP ua;branch=z9hG4bKq\r\n";
    assert_eq!(ask(Transport::Tcp, second), Err((502, false)));
    assert_eq!(ask(Transport::Tls, ""), Ok(()));
    // Where it is not required it is not asked for.
    let plain = text("OPTIONS", "sip:a@b", "");
    assert!(outcome(agreeing(false), Transport::Tcp, &plain).is_ok());
}

// spec: SEC-2.3.1-3, SEC-2.5-1
#[test]
fn in_ims_the_list_comes_with_the_challenge() {
    let mut pcscf = agreeing(false);
    let list = pcscf.sec_agree.take();
    let pcscf = EdgeConfig {
        sec_agree: list,
        next_hop: pcscf.next_hop,
        ..EdgeConfig::pcscf("ep1.example.com")
    };
    let mut bench = client(pcscf, Transport::Tcp);
    let rows = alloc::format!("{TAGS}Security-Client: tls\r\n");
    bench.input(bench.client, register(1, &rows));
    let (core, request) = bench.next_request();
    assert!(!request.has(Name::SECURITY_CLIENT) && !request.has(Name::PROXY_REQUIRE));
    bench.answer(
        core,
        &request,
        401,
        &[("WWW-Authenticate", "Digest realm=\"x\"")],
    );
    let (_, response) = bench.next_response();
    assert_eq!(response.only(Name::SECURITY_SERVER), Ok(LIST));
    // The client goes over to TLS, shows the list, and is known as one that comes over TLS.
    bench.client = bench
        .edge
        .flow_accepted(at(0), tuple(51046), Side::Access)
        .unwrap();
    let rows = alloc::format!(
        "{TAGS}Security-Verify: {LIST}\r\nAuthorization: Digest realm=\"x\",response=\"abc\"\r\n"
    );
    bench.input(bench.client, register(2, &rows));
    let (_, request) = bench.next_request();
    assert!(
        request
            .only(Name::AUTHORIZATION)
            .unwrap()
            .ends_with("integrity-protected=\"tls-pending\"")
    );
    assert!(!request.has(Name::SECURITY_VERIFY));
    // On each connection anew.
    bench.client = bench
        .edge
        .flow_accepted(at(0), tuple(51047), Side::Access)
        .unwrap();
    bench.input(bench.client, register(3, TAGS));
    assert_eq!(bench.code(bench.client), 494);
}

#[test]
fn without_an_agreement_the_tag_is_an_unknown_extension() {
    let text = text("OPTIONS", "sip:a@b", TAGS);
    assert_eq!(
        outcome(config(), Transport::Tls, &text).unwrap_err(),
        (420, false)
    );
    let mut config = agreeing(true);
    config.sec_agree.as_mut().unwrap().mechanisms = SecMechanisms::parse("digest").unwrap();
    let refused = EdgeProxy::new(config, [0; 32], at(0)).err();
    assert!(matches!(refused, Some(EdgeConfigError::SecAgree(_))));
}
