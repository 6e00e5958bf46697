//! The security agreement with the edge proxy.

use alloc::string::ToString as _;

use super::*;
use crate::sec_agree::SecAgreeError;

const LIST: &str = "ipsec-3gpp;q=0.1;x=\"a b\", tls;q=0.2";

fn clear(mode: SecAgree) -> Bench {
    let mut config = config(1);
    config.sec_agree = mode;
    config.proxies = alloc::vec![uri("sip:ep1.example.com:5060;transport=tcp;lr")];
    let mut bench = bench(config);
    bench.transport = Transport::Tcp;
    bench
}

fn list_of(request: &Request) -> (bool, Option<&str>, Option<&str>) {
    let tags = request.has_tag(Name::REQUIRE, "sec-agree")
        && request.has_tag(Name::PROXY_REQUIRE, "sec-agree");
    let only = |name| request.only(name).ok();
    (
        tags,
        only(Name::SECURITY_CLIENT),
        only(Name::SECURITY_VERIFY),
    )
}

// spec: SEC-2.3.1-1
#[test]
fn without_the_option_there_is_no_agreement() {
    let mut bench = bench(config(1));
    bench.start();
    let (flow, register) = bench.next_request();
    assert_eq!(list_of(&register), (false, None, None));
    assert!(!register.has_tag(Name::SUPPORTED, "sec-agree"));
    bench.answer(flow, &register, 494, &[("Security-Server", "tls;q=0.2")]);
    let status = StatusCode::SECURITY_AGREEMENT_REQUIRED;
    assert_eq!(bench.refusal(), Some(Refusal::Status(status)));
}

// spec: SEC-2.3.1-2, SEC-2.3.1-4, SEC-2.3.1-5, SEC-2.4-1, SEC-2.5-1
#[test]
fn a_flow_without_tls_is_left_for_one_with_it() {
    for (code, rows) in [
        (494, &[][..]),
        (421, &[("Require", "sec-agree")]),
        (
            401,
            &[(
                "WWW-Authenticate",
                "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\"",
            )],
        ),
    ] {
        let mut bench = clear(SecAgree::On);
        let flows = bench.start();
        let (flow, register) = bench.next_request();
        assert_eq!(list_of(&register), (true, Some("tls"), None));
        assert!(register.has_tag(Name::SUPPORTED, "sec-agree"));
        bench.transport = Transport::Tls;
        let mut rows = rows.to_vec();
        rows.push(("Security-Server", LIST));
        bench.answer(flow, &register, code, &rows);
        assert!(bench.closed(flows[0]));
        let found = bench.actions.iter().find_map(|action| match action {
            FlowAction::OpenFlow { target, .. } => Some(target.uri.to_string()),
            _ => None,
        });
        assert_eq!(found.as_deref(), Some("sips:ep1.example.com:5060;lr"));
        let secure = bench.open();
        // Nothing of the challenge is answered that came without TLS.
        let (flow, register) = bench.next_request();
        assert_eq!(
            (flow, list_of(&register)),
            (secure[0], (true, None, Some(LIST)))
        );
        assert!(!register.has(Name::AUTHORIZATION));
        let challenge =
            "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
        bench.answer(flow, &register, 401, &[("WWW-Authenticate", challenge)]);
        let flow = bench.accept(&[]);
        let granted = bench.events.iter().find_map(|event| match event {
            UserAgentEvent::Registered { registration, .. } => Some(registration.sec_agree),
            _ => None,
        });
        assert_eq!(granted, Some(true));
        // Every request over this flow shows the list.
        bench
            .ua
            .request(bench.now, NewRequest::new(Method::MESSAGE, "sip:b@c"))
            .unwrap();
        bench.drain();
        assert_eq!(list_of(&bench.next_request().1), (true, None, Some(LIST)));
        // The next connection begins anew.
        bench.transport = Transport::Tcp;
        bench.events.clear();
        bench.ua.handle_flow_closed(bench.now, flow);
        bench.run_for(200_000);
        bench.open();
        assert_eq!(list_of(&bench.next_request().1), (true, Some("tls"), None));
    }
}

// spec: SEC-2.3.1-1, SEC-2.3.1-5
#[test]
fn over_tls_the_list_is_shown_on_the_same_flow() {
    let mut config = config(1);
    config.sec_agree = SecAgree::On;
    let mut bench = bench(config);
    bench.start();
    let (flow, register) = bench.next_request();
    assert_eq!(list_of(&register), (true, Some("tls"), None));
    bench.answer(flow, &register, 494, &[("Security-Server", "tls;q=0.2")]);
    let (again, register) = bench.next_request();
    assert_eq!(
        (again, list_of(&register)),
        (flow, (true, None, Some("tls;q=0.2")))
    );
    assert_eq!(register.cseq_number(), 2);
    // The list in a challenge is taken along; the challenge is answered.
    let mut config = super::config(1);
    config.sec_agree = SecAgree::On;
    let mut bench = super::bench(config);
    bench.start();
    let (flow, register) = bench.next_request();
    let challenge = "Digest realm=\"ims.example.com\",nonce=\"n\",qop=\"auth\",algorithm=SHA-256";
    let rows = [
        ("WWW-Authenticate", challenge),
        ("Security-Server", "tls;q=0.2"),
    ];
    bench.answer(flow, &register, 401, &rows);
    let (_, register) = bench.next_request();
    assert_eq!(list_of(&register), (true, None, Some("tls;q=0.2")));
    assert!(register.has(Name::AUTHORIZATION));
}

// spec: SEC-2.3.1-4, SEC-2.2-1, SEC-2.3.1-6
#[test]
fn what_cannot_be_agreed_on_ends_the_registration() {
    let refusal = |rows: &[(&str, &str)]| {
        let mut bench = clear(SecAgree::On);
        bench.start();
        let (flow, register) = bench.next_request();
        bench.answer(flow, &register, 494, rows);
        bench.refusal()
    };
    let error = |error| Some(Refusal::SecAgree(error));
    let nothing = SecAgreeError::NothingCommon;
    assert_eq!(
        refusal(&[("Security-Server", "ipsec-ike;q=0.1")]),
        error(nothing)
    );
    let same = SecAgreeError::SamePreference;
    assert_eq!(
        refusal(&[("Security-Server", "tls;q=0.1, x;q=0.1")]),
        error(same)
    );
    let missing = SecAgreeError::List(crate::wire::ValueError::Missing);
    assert_eq!(refusal(&[]), error(missing));
    // Asked again although it was shown its list: somebody changes it.
    let mut config = config(1);
    config.sec_agree = SecAgree::On;
    let mut bench = bench(config);
    bench.start();
    for _ in 0..2 {
        let (flow, register) = bench.next_request();
        bench.answer(flow, &register, 494, &[("Security-Server", "tls;q=0.2")]);
    }
    assert_eq!(bench.refusal(), error(SecAgreeError::Changed));
}

// spec: SEC-2.5-1
#[test]
fn an_agreement_whose_flow_never_opens_is_forgotten() {
    let mut bench = clear(SecAgree::On);
    bench.start();
    let (flow, register) = bench.next_request();
    bench.answer(flow, &register, 494, &[("Security-Server", "tls;q=0.2")]);
    let secure = bench.actions.iter().find_map(|action| match action {
        FlowAction::OpenFlow { flow, .. } => Some(*flow),
        _ => None,
    });
    bench.actions.clear();
    bench.ua.flow_failed(bench.now, secure.unwrap());
    bench.run_for(60_000);
    bench.open();
    assert_eq!(list_of(&bench.next_request().1), (true, Some("tls"), None));
}
