#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::vec::Vec;
use core::time::Duration;

use http_connect::auth::{Credentials, DigestSession, ha1};

use super::*;
use crate::wire::{Limits, ParseConfig, Response};

const URN: &str = "<urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee>";

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

/// A REGISTER of Alice: `hops` Via values, these rows.
fn request(call_id: &str, cseq: u32, hops: usize, rows: &str) -> Request {
    let vias = "Via: SIP/2.0/TLS h;branch=z9hG4bK1\r\n".repeat(hops);
    let text = alloc::format!(
        "REGISTER sip:ims.example.com SIP/2.0\r\n{vias}From: <sip:alice@ims.example.com>;tag=1\r\n\
         To: <sip:%61lice@IMS.example.com;x=1>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{rows}\r\n"
    );
    let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
    Request::check(message, &Limits::DEFAULT).unwrap()
}

fn open() -> RegistrarConfig {
    RegistrarConfig {
        digest: None,
        ..RegistrarConfig::new("ims.example.com")
    }
}

fn registrar(config: RegistrarConfig) -> Registrar {
    Registrar::new(config, [7; 32], at(0)).unwrap()
}

fn ask(registrar: &mut Registrar, secs: u64, flow: Option<u64>, request: &Request) -> Response {
    let flow = flow.map(FlowId);
    let RegisterStep::Respond(message) = registrar.handle_register(at(secs), flow, request) else {
        panic!()
    };
    Response::check(message, &Limits::DEFAULT).unwrap()
}

fn code(registrar: &mut Registrar, request: &Request) -> u16 {
    ask(registrar, 0, Some(1), request).code().number()
}

fn contact(reg_id: u32, uri: &str) -> String {
    alloc::format!("Contact: <{uri}>;reg-id={reg_id};+sip.instance=\"{URN}\"\r\n")
}

const OUTBOUND: &str = "Supported: path, outbound\r\n";

fn alice() -> Aor {
    SipUri::parse("sip:alice@ims.example.com", &Limits::DEFAULT)
        .unwrap()
        .aor()
}

// spec: OUT-6-1, OUT-6-2, OUT-6-3, OUT-6-5, OUT-6-8, PRJ-12-1, OUT-11.6-1
#[test]
fn the_table_of_outbound() {
    let full = contact(1, "sip:a@h");
    let no_instance = "Contact: <sip:a@h>;reg-id=1\r\n";
    let no_id = alloc::format!("Contact: <sip:a@h>;+sip.instance=\"{URN}\"\r\n");
    let ob = "Path: <sip:t@ep;lr;ob>\r\n";
    let both = "Path: <sip:second;lr>, <sip:t@ep;lr;ob>\r\n";
    let top = "Path: <sip:t@ep;lr;ob>, <sip:first;lr>\r\n";
    let plain = "Supported: path\r\n";
    for (hops, path, contact, supported, result) in [
        (1, "", full.as_str(), OUTBOUND, (200, true, true)),
        (1, "", &full, plain, (200, true, false)),
        (2, ob, &full, OUTBOUND, (200, true, true)),
        (3, both, &full, OUTBOUND, (200, true, true)),
        (3, top, &full, OUTBOUND, (439, false, false)),
        (2, "", &full, OUTBOUND, (439, false, false)),
        (
            2,
            "Path: <sip:t@ep;lr>\r\n",
            &full,
            OUTBOUND,
            (439, false, false),
        ),
        (2, "", &full, plain, (200, false, false)),
        (1, "", no_instance, OUTBOUND, (200, false, false)),
        (2, "", no_instance, OUTBOUND, (439, false, false)),
        (1, "", &no_id, OUTBOUND, (200, false, false)),
        (2, "", &no_id, OUTBOUND, (200, false, false)),
    ] {
        let mut registrar = registrar(open());
        let request = request("c", 1, hops, &alloc::format!("{path}{contact}{supported}"));
        let response = ask(&mut registrar, 0, Some(1), &request);
        let outbound = registrar
            .bindings
            .of(&alice())
            .iter()
            .any(|b| matches!(b.key, bindings::Key::Outbound { .. }));
        let required = response.has_tag(Name::REQUIRE, "outbound");
        assert_eq!(
            (response.code().number(), outbound, required),
            result,
            "{hops} {path} {contact} {supported}"
        );
    }
    let mut lenient = registrar(RegistrarConfig {
        accept_ob_anywhere: true,
        ..open()
    });
    let request = request("c", 1, 3, &alloc::format!("{top}{full}{OUTBOUND}"));
    assert_eq!(code(&mut lenient, &request), 200);
}

// spec: OUT-6-4, OUT-10-1, SEC-P-13
#[test]
fn one_live_contact_with_reg_id_at_a_time() {
    for (rows, expected) in [
        (
            alloc::format!("{}{}", contact(1, "sip:a@h"), contact(2, "sip:b@h")),
            400,
        ),
        (
            alloc::format!("{}Contact: <sip:b@h>\r\n", contact(1, "sip:a@h")),
            400,
        ),
        (
            alloc::format!("{}Contact: <sip:b@h>;expires=0\r\n", contact(1, "sip:a@h")),
            200,
        ),
        (contact(0, "sip:a@h"), 400),
        (contact(0x8000_0000, "sip:a@h"), 400),
        (contact(0x7FFF_FFFF, "sip:a@h"), 200),
        (
            contact(1, "sip:a@h").replace("0a1b2c3d", &"a".repeat(129)),
            400,
        ),
    ] {
        let request = request("c", 1, 1, &alloc::format!("{rows}{OUTBOUND}"));
        assert_eq!(code(&mut registrar(open()), &request), expected, "{rows}");
    }
}

// spec: OUT-6-6, OUT-6-7, OUT-6-10, OUT-6-12, OUT-4.1-5, PATH-5.3-1, SIP-19.1-1, OUT-6-9
#[test]
fn a_binding_is_replaced_by_instance_and_reg_id_and_keeps_everything() {
    let mut registrar = registrar(open());
    let path = "Path: <sip:p2;lr>, <sip:t@ep;lr;ob>\r\n";
    let rows = |uri: &str, path: &str| alloc::format!("{path}{}{OUTBOUND}", contact(1, uri));
    let first = request("c", 1, 2, &rows("sip:a@h;foo=1", path));
    let response = ask(&mut registrar, 0, None, &first);
    assert_eq!(
        response.rows(Name::PATH).collect::<Vec<_>>(),
        ["<sip:p2;lr>, <sip:t@ep;lr;ob>"]
    );
    assert_eq!(
        response.only(Name::CONTACT),
        Ok(&*alloc::format!(
            "<sip:a@h;foo=1>;reg-id=1;+sip.instance=\"{URN}\";expires=3600"
        ))
    );
    // Another spelling of the same UUID, another way.
    let other = rows("sip:new@h", "Path: <sip:t2@ep;lr;ob>\r\n").replace("0a1b2c3d", "0A1B2C3D");
    ask(&mut registrar, 10, None, &request("d", 1, 2, &other));
    ask(
        &mut registrar,
        20,
        Some(5),
        &request("e", 1, 1, "Contact: <sip:plain@h>\r\n"),
    );
    let set = registrar.bindings.of(&alice());
    assert_eq!(set.len(), 2);
    assert_eq!(
        (set[0].uri.as_str(), &set[0].path[..]),
        ("sip:new@h", &["<sip:t2@ep;lr;ob>".into()][..])
    );
    assert_eq!((set[0].flow, set[1].flow), (None, Some(FlowId(5))));
    // A direct client on another flow.
    ask(
        &mut registrar,
        30,
        Some(6),
        &request("e", 2, 1, "Contact: <sip:plain@h>\r\n"),
    );
    assert_eq!(registrar.bindings.of(&alice())[1].flow, Some(FlowId(6)));
    let uri = SipUri::parse("sip:alice@ims.example.com", &Limits::DEFAULT).unwrap();
    let mut targets = registrar.targets(&uri).unwrap();
    assert_eq!(targets.first(0).unwrap().contact.as_str(), "sip:plain@h");
}

// spec: SIP-10.3-1, SIP-8.2.1-1, SIP-8.2.2-1, PATH-5.3-2, SIP-19.1.1-2
#[test]
fn the_first_failing_step_decides() {
    let text = |change: &dyn Fn(String) -> String| {
        let good = request("c", 1, 1, "Contact: <sip:a@h>\r\n");
        let text = change(String::from_utf8(good.as_bytes().to_vec()).unwrap());
        let message = Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap();
        Request::check(message, &Limits::DEFAULT).unwrap()
    };
    let with = |rows: &'static str| text(&move |text| text.replace("Contact: <sip:a@h>\r\n", rows));
    for (request, expected) in [
        (text(&|text| text), 200),
        (
            text(&|text| text.replace("REGISTER sip:ims", "REGISTER sip:other")),
            404,
        ),
        (
            text(&|text| text.replace("@IMS.example", "@other.example")),
            404,
        ),
        (
            text(&|text| text.replace("To: <sip:%61lice@IMS.example.com;x=1>", "To: <tel:+1>")),
            400,
        ),
        (text(&|text| text.replace("REGISTER", "OPTIONS")), 405),
        (with("Require: foo\r\n"), 420),
        (with("Path: <sip:p;lr>\r\nContact: <sip:a@h>\r\n"), 420),
        (with("Path: sip:p;lr\r\nContact: <sip:a@h>\r\n"), 400),
        (with("Contact: <tel:+1>\r\n"), 400),
        (with("Contact: sip:a@h?Route=x\r\n"), 400),
        (with("Contact: <sip:a@h?Route=%3Csip:x%3E>\r\n"), 200),
        (with("Contact: <sip:alice@ims.example.com>\r\n"), 403),
        (with("Contact: <sip:alice@ims.example.com;gr=x>\r\n"), 403),
    ] {
        let mut registrar = registrar(open());
        let response = ask(&mut registrar, 0, Some(1), &request);
        assert_eq!(response.code().number(), expected, "{request:?}");
        assert_eq!(response.has(Name::UNSUPPORTED), expected == 420);
        assert_eq!(registrar.is_empty(), expected != 200);
    }
    let request = with("Path: <sip:p;lr>\r\nContact: <sip:a@h>\r\n");
    let mut lenient = registrar(RegistrarConfig {
        accept_unoffered_path: true,
        ..open()
    });
    assert_eq!(code(&mut lenient, &request), 200);
}

// spec: SIP-10.3-3, SIP-10.2.2-1
#[test]
fn a_star_removes_everything_and_stands_alone() {
    let mut registrar = registrar(open());
    for n in 0..3 {
        let rows = alloc::format!("Contact: <sip:a{n}@h>\r\n");
        assert_eq!(code(&mut registrar, &request("c", n + 1, 1, &rows)), 200);
    }
    for rows in [
        "Contact: *\r\n",
        "Contact: *\r\nExpires: 1\r\n",
        "Contact: *, <sip:x@h>\r\nExpires: 0\r\n",
    ] {
        assert_eq!(code(&mut registrar, &request("c", 9, 1, rows)), 400);
    }
    let star = "Contact: *\r\nExpires: 0\r\n";
    assert_eq!(code(&mut registrar, &request("c", 2, 1, star)), 500);
    assert_eq!(registrar.len(), 3);
    let response = ask(&mut registrar, 0, None, &request("c", 4, 1, star));
    assert_eq!(
        (response.code().number(), response.has(Name::CONTACT)),
        (200, false)
    );
    assert!(registrar.is_empty());
}

// spec: SIP-10.3-4
#[test]
fn times_are_granted_shortened_or_refused() {
    for (rows, expected) in [
        ("Contact: <sip:a@h>\r\n", Some(3600)),
        (
            "Contact: <sip:a@h>;expires=100\r\nExpires: 200\r\n",
            Some(100),
        ),
        ("Contact: <sip:a@h>\r\nExpires: 200\r\n", Some(200)),
        ("Contact: <sip:a@h>;expires=60\r\n", Some(60)),
        ("Contact: <sip:a@h>;expires=600000\r\n", Some(3600)),
        ("Contact: <sip:a@h>;expires=x\r\n", Some(3600)),
        ("Contact: <sip:a@h>;expires=1\r\n", None),
        ("Contact: <sip:a@h>;expires=59\r\n", None),
    ] {
        let response = ask(&mut registrar(open()), 0, None, &request("c", 1, 1, rows));
        match expected {
            Some(seconds) => {
                let contact = response.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
                assert_eq!(contact.expires(), Some(seconds), "{rows}");
            }
            None => {
                assert_eq!(response.code(), StatusCode::INTERVAL_TOO_BRIEF);
                assert_eq!(response.seconds(Name::MIN_EXPIRES), Ok(60));
            }
        }
    }
    // An hour may always be asked for.
    let long = RegistrarConfig {
        min_expires: 5000,
        default_expires: 6000,
        max_expires: 7000,
        ..open()
    };
    assert_eq!(
        code(
            &mut registrar(long.clone()),
            &request("c", 1, 1, "Contact: <sip:a@h>;expires=3600\r\n")
        ),
        200
    );
    assert_eq!(
        code(
            &mut registrar(long),
            &request("c", 1, 1, "Contact: <sip:a@h>;expires=3599\r\n")
        ),
        423
    );
}

// spec: SIP-10.3-5, SIP-10.3-6
#[test]
fn a_request_that_fails_in_part_changes_nothing() {
    let mut registrar = registrar(open());
    assert_eq!(
        code(
            &mut registrar,
            &request("c", 5, 1, "Contact: <sip:a@h>\r\n")
        ),
        200
    );
    let stale = request("c", 5, 1, "Contact: <sip:new@h>, <sip:a@h>\r\n");
    let response = ask(&mut registrar, 0, None, &stale);
    assert_eq!(response.code().number(), 500);
    assert!(response.seconds(Name::RETRY_AFTER).unwrap() <= 10);
    let bad = request("d", 1, 1, "Contact: <sip:new@h>, <sip:b@h>;expires=1\r\n");
    assert_eq!(code(&mut registrar, &bad), 423);
    assert_eq!(registrar.len(), 1);
    assert_eq!(
        code(
            &mut registrar,
            &request("c", 6, 1, "Contact: <sip:a@h>\r\n")
        ),
        200
    );
    assert_eq!(
        code(
            &mut registrar,
            &request("d", 1, 1, "Contact: <sip:a@h>\r\n")
        ),
        200
    );
}

// spec: SIP-10.3-7, SIP-10.3-8, SRT-6.3-1
#[test]
fn a_query_lists_what_there_is_and_changes_nothing() {
    let mut config = open();
    config.service_route =
        alloc::vec![crate::wire::UriBuf::parse("sip:scscf.example.com;lr").unwrap()];
    let mut registrar = registrar(config);
    let first = ask(
        &mut registrar,
        0,
        None,
        &request("c", 1, 1, "Contact: <sip:a@h>\r\n"),
    );
    ask(
        &mut registrar,
        50,
        None,
        &request(
            "d",
            1,
            1,
            "Contact: <sip:b@h>;expires=600\r\nRecord-Route: <sip:x;lr>\r\n",
        ),
    );
    let response = ask(&mut registrar, 100, None, &request("e", 1, 1, ""));
    let contacts: Vec<_> = response.rows(Name::CONTACT).collect();
    assert_eq!(
        contacts,
        ["<sip:a@h>;expires=3500", "<sip:b@h>;expires=550"]
    );
    assert!(!response.has(Name::RECORD_ROUTE));
    assert_eq!(
        response.only(Name::SERVICE_ROUTE),
        first.only(Name::SERVICE_ROUTE)
    );
    assert_eq!(
        response.only(Name::SERVICE_ROUTE),
        Ok("<sip:scscf.example.com;lr>")
    );
    assert_eq!(registrar.poll_timeout(), Some(at(650)));
    registrar.handle_timeout(at(650));
    registrar.handle_timeout(at(3600));
    assert!(registrar.is_empty() && registrar.poll_timeout().is_none());
    let lost = core::iter::from_fn(|| registrar.poll_event())
        .filter(|e| matches!(e, RegistrarEvent::Lost { .. }));
    assert_eq!(lost.count(), 2);
}

// spec: SEC-P-13, SEC-G-05
#[test]
fn bindings_are_limited_for_each_user_and_in_all() {
    let mut config = open();
    config.max_total = 12;
    let mut registrar = registrar(config);
    for n in 0..10 {
        assert_eq!(
            code(
                &mut registrar,
                &request("c", n + 1, 1, &alloc::format!("Contact: <sip:a{n}@h>\r\n"))
            ),
            200
        );
    }
    assert_eq!(
        code(
            &mut registrar,
            &request("c", 20, 1, "Contact: <sip:more@h>\r\n")
        ),
        403
    );
    assert_eq!(
        code(
            &mut registrar,
            &request("c", 21, 1, "Contact: <sip:a1@h>\r\n")
        ),
        200
    );
    for (n, expected) in [(0, 200), (1, 200), (2, 503)] {
        let other = String::from_utf8(
            request("z", 1, 1, "Contact: <sip:z@h>\r\n")
                .as_bytes()
                .to_vec(),
        )
        .unwrap();
        let other = other.replace("%61lice", &alloc::format!("user{n}"));
        let message = Message::parse(other.as_bytes(), &ParseConfig::default()).unwrap();
        assert_eq!(
            code(
                &mut registrar,
                &Request::check(message, &Limits::DEFAULT).unwrap()
            ),
            expected
        );
    }
    let path = alloc::format!(
        "Supported: path\r\nPath: {}\r\nContact: <sip:a1@h>\r\n",
        ["<sip:p;lr>"; 9].join(",")
    );
    assert_eq!(code(&mut registrar, &request("c", 30, 1, &path)), 400);
}

// spec: SEC-G-05, SEC-G-14, SEC-P-13
#[test]
fn a_binding_is_of_limited_size_and_a_host_that_takes_no_events_gets_no_more() {
    let mut registrar = registrar(RegistrarConfig {
        max_binding: 100,
        max_events: 2,
        ..open()
    });
    // Contact 40, Path 13 twice, parameters 28, Call-ID.
    let long = |call_id: &str, cseq| {
        let rows = alloc::format!(
            "Supported: path\r\nPath: <sip:p{0};lr>, <sip:q{0};lr>\r\nContact: <sip:{1}@h>;x={2};expires=60\r\n",
            "a".repeat(3),
            "b".repeat(34),
            "c".repeat(25)
        );
        request(call_id, cseq, 2, &rows)
    };
    assert_eq!(code(&mut registrar, &long("1234567", 1)), 513);
    assert!(registrar.is_empty());
    assert_eq!(code(&mut registrar, &long("123456", 1)), 200);
    assert_eq!(code(&mut registrar, &long("123456", 2)), 200);
    assert_eq!(code(&mut registrar, &long("123456", 3)), 503);
    assert!(registrar.poll_event().is_some());
    assert_eq!(code(&mut registrar, &long("123456", 4)), 200);
}

/// Registers two flows of one device and one other device.
fn three() -> (Registrar, SipUri<'static>) {
    let mut registrar = registrar(open());
    for (n, reg_id) in [(1, 1), (2, 2)] {
        let path = alloc::format!("Path: <sip:core;lr>, <sip:t{n}@ep{n};lr;ob>\r\n");
        let rows = alloc::format!(
            "{path}{}{OUTBOUND}",
            contact(reg_id, &alloc::format!("sip:a{n}@h"))
        );
        ask(
            &mut registrar,
            n,
            None,
            &request(&alloc::format!("c{n}"), 1, 2, &rows),
        );
    }
    ask(
        &mut registrar,
        0,
        Some(9),
        &request("d", 1, 1, "Contact: <sip:plain@h>\r\n"),
    );
    let uri = SipUri::parse("sip:alice@ims.example.com;user=phone", &Limits::DEFAULT).unwrap();
    (registrar, uri)
}

// spec: OUT-7-1, OUT-7-2, OUT-7-3
#[test]
fn one_flow_of_a_device_at_a_time_the_next_after_430() {
    let (mut registrar, uri) = three();
    let mut targets = registrar.targets(&uri).unwrap();
    assert_eq!(targets.len(), 2);
    assert_eq!(targets.first(0).unwrap().contact.as_str(), "sip:plain@h");
    let latest = targets.first(1).unwrap();
    assert_eq!(latest.contact.as_str(), "sip:a2@h");
    let Next::Try(other) = targets.next(1, StatusCode::FLOW_FAILED) else {
        panic!()
    };
    registrar.drop_binding(latest.binding);
    assert_eq!(other.contact.as_str(), "sip:a1@h");
    assert_eq!(targets.next(1, StatusCode::BUSY_HERE), Next::Done);
    assert_eq!(registrar.len(), 2);
    let mut targets = three().0.targets(&uri).unwrap();
    targets.first(1);
    assert_eq!(targets.next(1, StatusCode::BUSY_HERE), Next::Done);
    assert_eq!(targets.next(1, StatusCode::FLOW_FAILED), Next::Done);
    let foreign = SipUri::parse("sip:alice@other.example", &Limits::DEFAULT).unwrap();
    assert_eq!(registrar.targets(&foreign), None);
}

// spec: OUT-7-2
#[test]
fn a_late_430_does_not_end_a_binding_that_goes_another_way_by_now() {
    let mut registrar = registrar(open());
    let register = |cseq, token| {
        let rows = alloc::format!(
            "{}{OUTBOUND}Path: <sip:{token}@ep;lr;ob>\r\n",
            contact(1, "sip:a@h")
        );
        request("c", cseq, 2, &rows)
    };
    let uri = SipUri::parse("sip:alice@ims.example.com", &Limits::DEFAULT).unwrap();
    let target = |registrar: &Registrar| registrar.targets(&uri).unwrap().first(0).unwrap();
    assert_eq!(code(&mut registrar, &register(1, "old")), 200);
    let old = target(&registrar);
    assert_eq!(code(&mut registrar, &register(2, "old")), 200);
    assert_eq!(target(&registrar), old);
    assert_eq!(code(&mut registrar, &register(3, "new")), 200);
    registrar.drop_binding(old.binding);
    let new = target(&registrar);
    assert_eq!(new.path, ["<sip:new@ep;lr;ob>"]);
    registrar.drop_binding(new.binding);
    assert!(registrar.is_empty());
}

// spec: OUT-7-4
#[test]
fn the_path_becomes_the_route_and_the_contact_the_request_uri() {
    let (registrar, uri) = three();
    let mut targets = registrar.targets(&uri).unwrap();
    assert_eq!(targets.first(0).unwrap().flow, Some(FlowId(9)));
    let target = targets.first(1).unwrap();
    let request = request("x", 1, 1, "Route: <sip:rest;lr>\r\n");
    let message = target.address(&request).unwrap();
    assert_eq!(
        message.list(Name::ROUTE).collect::<Vec<_>>(),
        ["<sip:core;lr>", "<sip:t2@ep2;lr;ob>", "<sip:rest;lr>"]
    );
    assert!(
        message
            .as_bytes()
            .starts_with(b"REGISTER sip:a2@h SIP/2.0\r\n")
    );
}

// spec: OUT-7-5, OUT-12-1
#[test]
fn a_closed_flow_takes_all_its_bindings_along_and_no_others() {
    let (mut registrar, uri) = three();
    let other = String::from_utf8(
        request("z", 1, 1, &contact(1, "sip:z@h"))
            .as_bytes()
            .to_vec(),
    )
    .unwrap();
    let message = Message::parse(
        other.replace("%61lice", "bob").as_bytes(),
        &ParseConfig::default(),
    )
    .unwrap();
    assert_eq!(
        ask(
            &mut registrar,
            0,
            Some(9),
            &Request::check(message, &Limits::DEFAULT).unwrap()
        )
        .code()
        .number(),
        200
    );
    // The same device under another name is another binding.
    assert_eq!(
        (registrar.len(), registrar.targets(&uri).unwrap().len()),
        (4, 2)
    );
    registrar.flow_closed(at(0), FlowId(9));
    assert_eq!(registrar.len(), 2);
    let bob = SipUri::parse("sip:bob@ims.example.com", &Limits::DEFAULT).unwrap();
    assert!(registrar.targets(&bob).unwrap().is_empty());
}

// spec: GRUU-5-1
#[test]
fn gruus_name_one_device_until_its_call_id_changes() {
    let mut registrar = registrar(open());
    let rows = alloc::format!("{}Supported: gruu, outbound\r\n", contact(1, "sip:a@h"));
    let mut register = |call_id: &str, cseq| {
        let response = ask(
            &mut registrar,
            0,
            Some(1),
            &request(call_id, cseq, 1, &rows),
        );
        let contact = response.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
        let gruu = |name| String::from(contact.params.unquoted(name).unwrap());
        (gruu("pub-gruu"), gruu("temp-gruu"))
    };
    let (public, first) = register("c", 1);
    let (again, second) = register("c", 2);
    assert_eq!(public, again);
    assert!(public.contains(";gr=urn:uuid:0a1b2c3d") && first != second);
    let (_, third) = register("d", 1);
    let count = |text: &str| {
        registrar
            .targets(&SipUri::parse(text, &Limits::DEFAULT).unwrap())
            .unwrap()
            .len()
    };
    assert_eq!((count(&public), count(&third)), (1, 1));
    assert_eq!((count(&first), count(&second)), (0, 0));
    assert_eq!(count("sip:alice@ims.example.com;gr=urn:other"), 0);
}

// spec: GRUU-5-1
#[test]
fn flows_and_devices_keep_their_gruus_when_another_one_registers() {
    let mut registrar = registrar(open());
    let mut register = |call_id: &str, cseq, reg_id, device: &str| {
        let contact = contact(reg_id, "sip:a@h").replace("0a1b2c3d", device);
        let rows = alloc::format!("{contact}Supported: gruu, outbound\r\n");
        let register = request(call_id, cseq, 1, &rows);
        let answer = ask(&mut registrar, 0, Some(1), &register);
        let own = answer.contacts(&Limits::DEFAULT).find_map(|contact| {
            let contact = contact.unwrap();
            let urn = contact.instance().unwrap();
            let own = contact.reg_id() == Some(reg_id) && urn.contains(device);
            own.then(|| String::from(contact.params.unquoted("temp-gruu").unwrap()))
        });
        own.unwrap()
    };
    let gruus = [
        register("c1", 1, 1, "0a1b2c3d"),
        register("c2", 1, 2, "0a1b2c3d"),
        register("c3", 1, 1, "ffffffff"),
        register("c1", 2, 1, "0a1b2c3d"),
        // The first flow after a restart of the device.
        register("c4", 1, 1, "0a1b2c3d"),
    ];
    let found = gruus.map(|gruu| {
        let uri = SipUri::parse(&gruu, &Limits::DEFAULT).unwrap();
        registrar.targets(&uri).unwrap().len()
    });
    assert_eq!(found, [0, 1, 1, 0, 1]);
}

fn authorize(challenge: &Response, rng: &mut http_connect::Rng, password: &str) -> String {
    let row = challenge.rows(Name::WWW_AUTHENTICATE).next().unwrap();
    let challenge = Challenge::parse(row).unwrap();
    let mut session = DigestSession::new(&challenge, &Credentials::new("alice", password)).unwrap();
    let value = session.authorization(rng, "REGISTER", "sip:ims.example.com", b"");
    alloc::format!("Authorization: {value}\r\n")
}

fn key(hash: HashAlgorithm, authorised: bool, exists: bool) -> KeyAnswer {
    KeyAnswer::Known {
        ha1: ha1(hash, b"alice", b"ims.example.com", b"secret"),
        authorised,
        exists,
    }
}

// spec: DS-2.3-1, SIP-22.1-3, PRJ-14-1, PRJ-14-2, DIG-3.6-1, SEC-P-11, DS-2.6-1, DS-2.6-2, SIP-22.4-1
#[test]
fn nobody_registers_without_the_password() {
    let mut registrar = registrar(RegistrarConfig::new("ims.example.com"));
    let mut rng = http_connect::Rng::from_seed([1; 32]);
    let contact = "Contact: <sip:a@h>\r\n";
    let challenge = |registrar: &mut Registrar, secs, rows: &str| {
        ask(registrar, secs, Some(1), &request("c", 1, 1, rows))
    };
    let first = challenge(&mut registrar, 0, contact);
    assert_eq!(first.code(), StatusCode::UNAUTHORIZED);
    let rows: Vec<_> = first.rows(Name::WWW_AUTHENTICATE).collect();
    assert!(rows.len() == 2 && rows[0].contains("SHA-256") && rows[1].contains("MD5"));
    assert!(rows.iter().all(|row| row.contains("qop=\"auth\"")));
    for other in [
        "Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
        "Authorization: NoOneKnowsThisScheme opaque-data=here\r\n",
        "Authorization: Digest username=\"alice\",realm=\"ims.example.com\",nonce=\"\",uri=\"sip:ims.example.com\",response=\"\"\r\n",
    ] {
        assert_eq!(
            challenge(&mut registrar, 0, &alloc::format!("{contact}{other}")).code(),
            StatusCode::UNAUTHORIZED
        );
    }
    let right = authorize(&first, &mut rng, "secret");
    let attempt = |registrar: &mut Registrar,
                   secs,
                   flow,
                   row: &str,
                   answer: &dyn Fn(HashAlgorithm) -> KeyAnswer| {
        let request = request("c", 2, 1, &alloc::format!("{contact}{row}"));
        match registrar.handle_register(at(secs), Some(FlowId(flow)), &request) {
            RegisterStep::Respond(message) => Response::check(message, &Limits::DEFAULT).unwrap(),
            RegisterStep::NeedKey {
                ticket, hash, aor, ..
            } => {
                assert_eq!(aor, alice());
                let message = registrar
                    .key_found(at(secs), ticket, &answer(hash))
                    .unwrap();
                assert!(
                    registrar
                        .key_found(at(secs), ticket, &answer(hash))
                        .is_none()
                );
                Response::check(message, &Limits::DEFAULT).unwrap()
            }
        }
    };
    let good = |hash| key(hash, true, true);
    let wrong = authorize(&first, &mut rng, "wrong");
    let refused = attempt(&mut registrar, 1, 1, &wrong, &good);
    let unknown = attempt(&mut registrar, 1, 1, &right, &|_| KeyAnswer::Unknown);
    assert_eq!(
        (refused.code(), unknown.code()),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    assert_eq!(refused.as_bytes().len(), unknown.as_bytes().len());
    assert!(registrar.is_empty());
    let stale = |response: &Response| {
        response
            .rows(Name::WWW_AUTHENTICATE)
            .all(|row| row.contains("stale=true"))
    };
    // Another flow, another nonce; a foreign URI; too late.
    assert!(stale(&attempt(&mut registrar, 1, 2, &right, &good)));
    let foreign = right.replace("uri=\"sip:ims", "uri=\"sip:x");
    assert_eq!(
        attempt(&mut registrar, 1, 1, &foreign, &good).code(),
        StatusCode::BAD_REQUEST
    );
    assert!(stale(&attempt(&mut registrar, 302, 1, &right, &good)));
    assert!(registrar.is_empty());
}

// spec: SIP-10.3-1, SEC-P-11
#[test]
fn the_right_password_registers_once_per_count() {
    let mut rng = http_connect::Rng::from_seed([1; 32]);
    for (authorised, exists, expected) in
        [(true, true, 200), (false, true, 403), (true, false, 404)]
    {
        let mut registrar = registrar(RegistrarConfig::new("ims.example.com"));
        let first = ask(
            &mut registrar,
            0,
            Some(1),
            &request("c", 1, 1, "Contact: <sip:a@h>\r\n"),
        );
        let row = authorize(&first, &mut rng, "secret");
        let request = request("c", 2, 1, &alloc::format!("Contact: <sip:a@h>\r\n{row}"));
        for round in 0..2 {
            let step = registrar.handle_register(at(1), Some(FlowId(1)), &request);
            let RegisterStep::NeedKey { ticket, hash, .. } = step else {
                panic!()
            };
            let message = registrar
                .key_found(at(1), ticket, &key(hash, authorised, exists))
                .unwrap();
            let response = Response::check(message, &Limits::DEFAULT).unwrap();
            let code = response.code().number();
            assert_eq!(code, if round == 0 { expected } else { 401 });
            assert_eq!(response.has(Name::AUTHENTICATION_INFO), code == 200);
        }
    }
}

// spec: SEC-G-05
#[test]
fn lookups_under_way_are_limited() {
    let mut config = RegistrarConfig::new("ims.example.com");
    config.max_pending = 1;
    let mut registrar = registrar(config);
    let first = ask(&mut registrar, 0, Some(1), &request("c", 1, 1, ""));
    let row = authorize(&first, &mut http_connect::Rng::from_seed([1; 32]), "secret");
    let request = request("c", 2, 1, &row);
    assert!(matches!(
        registrar.handle_register(at(0), None, &request),
        RegisterStep::NeedKey { .. }
    ));
    assert_eq!(ask(&mut registrar, 0, None, &request).code().number(), 503);
}

#[test]
fn flow_timer_for_direct_clients_with_outbound() {
    let mut registrar = registrar(RegistrarConfig {
        flow_timer: Some(100),
        ..open()
    });
    let rows = alloc::format!("{}{OUTBOUND}", contact(1, "sip:a@h"));
    let response = ask(&mut registrar, 0, Some(1), &request("c", 1, 1, &rows));
    assert_eq!(response.seconds(Name::FLOW_TIMER), Ok(100));
    let plain = ask(
        &mut registrar,
        0,
        Some(1),
        &request("d", 1, 1, "Contact: <sip:b@h>\r\n"),
    );
    assert!(!plain.has(Name::FLOW_TIMER));
}

// spec: SEC-G-19
#[test]
fn configurations_that_cannot_work_are_refused() {
    let check = |change: &dyn Fn(&mut RegistrarConfig)| {
        let mut config = open();
        change(&mut config);
        Registrar::new(config, [0; 32], at(0)).err()
    };
    assert_eq!(check(&|_| {}), None);
    assert_eq!(
        check(&|config| config.domains.clear()),
        Some(RegistrarConfigError::Domain)
    );
    assert_eq!(
        check(&|config| config.min_expires = 0),
        Some(RegistrarConfigError::Expires)
    );
    assert_eq!(
        check(&|config| config.max_expires = 59),
        Some(RegistrarConfigError::Expires)
    );
    assert_eq!(
        check(&|config| config.max_total = 0),
        Some(RegistrarConfigError::Zero)
    );
}

// spec: SEC-G-05
#[test]
fn what_is_known_of_a_device_ends_with_its_last_binding() {
    let mut registrar = registrar(open());
    let devices = |registrar: &Registrar| registrar.gruus.len();
    let contact = |n: u32, expires: u32| {
        alloc::format!(
            "Contact: <sip:a@h>;+sip.instance=\"<urn:uuid:{n}>\";reg-id=1;expires={expires}\r\n"
        )
    };
    let supported = "Supported: path, outbound, gruu\r\n";
    for n in 0..50 {
        let rows = alloc::format!("{}{supported}", contact(n, 100 + n));
        let answer = ask(&mut registrar, 0, Some(1), &request("c", n + 1, 1, &rows));
        assert_eq!(answer.code().number(), 200);
        assert!(
            answer
                .rows(Name::CONTACT)
                .all(|row| row.contains("temp-gruu"))
        );
        if n > 0 {
            // The one before goes, another way each time.
            match n % 3 {
                0 => {
                    let rows = alloc::format!("{}{supported}", contact(n - 1, 0));
                    let gone = request("d", n, 1, &rows);
                    assert_eq!(code(&mut registrar, &gone), 200);
                }
                _ => registrar.drop_binding(registrar.bindings.of(&alice())[0].id),
            }
        }
        assert_eq!(devices(&registrar).0, 1, "{n}");
    }
    registrar.handle_timeout(at(1000));
    assert_eq!(devices(&registrar), (0, 0));
}

// spec: SIP-16.7-3
#[test]
fn a_challenge_that_is_passed_back_carries_those_of_all_branches() {
    let answer = |code: u16, rows: &[(&str, &str)]| {
        let request = request("c", 1, 2, "");
        let code = StatusCode::new(code).unwrap();
        let mut builder = Builder::reply(&request, code, Some("t"));
        for (name, value) in rows {
            builder = builder.header(*name, value);
        }
        Response::check(builder.finish(b"").unwrap(), &Limits::DEFAULT).unwrap()
    };
    let first = answer(
        401,
        &[
            ("WWW-Authenticate", "Digest realm=\"a\", x=1"),
            ("WWW-Authenticate", "Digest realm=\"a\", x=2"),
        ],
    );
    let second = answer(
        407,
        &[
            ("Proxy-Authenticate", "Digest realm=\"b\""),
            ("WWW-Authenticate", "Digest realm=\"c\""),
        ],
    );
    let busy = answer(486, &[("WWW-Authenticate", "Digest realm=\"d\"")]);
    let rows = |message: &Message, name| message.rows(name).map(String::from).collect::<Vec<_>>();
    let merged = with_all_challenges(&first, [&second, &busy]).unwrap();
    assert!(merged.as_bytes().starts_with(b"SIP/2.0 401 "));
    assert_eq!(
        rows(&merged, Name::WWW_AUTHENTICATE),
        [
            "Digest realm=\"a\", x=1",
            "Digest realm=\"a\", x=2",
            "Digest realm=\"c\""
        ]
    );
    assert_eq!(
        rows(&merged, Name::PROXY_AUTHENTICATE),
        ["Digest realm=\"b\""]
    );
    // Another best response stays as it is.
    let merged = with_all_challenges(&busy, [&first, &second]).unwrap();
    assert_eq!(merged.as_bytes(), busy.message().as_bytes());
}

// spec: OUT-6-11
#[test]
fn a_registrar_that_clients_reach_directly_answers_their_keep_alives() {
    use crate::framing::{Frame, Framer, FramerConfig, PING, PONG, Role, answer_binding, classify};
    use stun_proto::wire::{
        Class, Message as Stun, MessageType, Method as StunMethod, Writer, XorMappedAddress,
    };
    // Around the registrar stand the same framer and the same answer as everywhere.
    let mut framer = Framer::new(FramerConfig::new(Role::Server), at(0));
    let mut input = &PING[..];
    assert!(matches!(framer.next(at(0), &mut input), Some(Frame::Ping)));
    assert_eq!(PONG, b"\r\n");
    let tuple = stun_proto::FiveTuple::udp(
        core::net::SocketAddr::from(([192, 0, 2, 1], 5060)),
        core::net::SocketAddr::from(([203, 0, 113, 7], 40112)),
    );
    let mut buf = [0; 64];
    let id = stun_proto::Rng::from_seed([7; 32]).transaction_id();
    let ty = MessageType::request(StunMethod::BINDING);
    let len = Writer::new(&mut buf, ty, id).finish().unwrap();
    assert_eq!(classify(&buf[..len]), crate::framing::DatagramKind::Stun);
    let answer = answer_binding(tuple, &buf[..len]).unwrap();
    let answer = Stun::parse(&answer).unwrap();
    assert_eq!(
        (answer.class(), answer.transaction_id()),
        (Class::Success, id)
    );
    assert_eq!(answer.find(), Some(XorMappedAddress(tuple.remote)));
    assert_eq!(answer_binding(tuple, b"OPTIONS sip:a SIP/2.0"), None);
    // And its answers may ask for them.
    let mut registrar = registrar(RegistrarConfig {
        flow_timer: Some(100),
        ..open()
    });
    let rows = alloc::format!("{}{OUTBOUND}", contact(1, "sip:a@h"));
    let answer = ask(&mut registrar, 0, Some(1), &request("c", 1, 1, &rows));
    assert_eq!(answer.seconds(Name::FLOW_TIMER), Ok(100));
}

/// Credentials for a nonce of the right shape that was never issued.
fn forged(challenge: &Response, rng: &mut http_connect::Rng) -> String {
    let rows = authorize(challenge, rng, "secret");
    let nonce = rows.split("nonce=\"").nth(1).unwrap();
    let nonce = nonce.split('"').next().unwrap();
    rows.replace(nonce, &"A".repeat(nonce.len()))
}

// spec: SEC-P-11
#[test]
fn no_key_is_looked_up_for_a_nonce_that_was_never_issued() {
    let mut registrar = registrar(RegistrarConfig::new("ims.example.com"));
    let mut rng = http_connect::Rng::from_seed([9; 32]);
    let challenge = ask(&mut registrar, 0, Some(1), &request("c", 1, 1, ""));
    let rows = forged(&challenge, &mut rng);
    for cseq in 2..2000 {
        let asked = request("c", cseq, 1, &rows);
        let RegisterStep::Respond(message) =
            registrar.handle_register(at(1), Some(FlowId(1)), &asked)
        else {
            panic!("a question");
        };
        let answer = Response::check(message, &Limits::DEFAULT).unwrap();
        assert_eq!(answer.code().number(), 401);
        // A server that was started anew has to be asked again, not the user.
        let row = answer.rows(Name::WWW_AUTHENTICATE).next().unwrap();
        assert!(row.contains("stale=true"), "{row}");
    }
    assert!(registrar.pending.is_empty());
}

#[test]
fn a_question_that_nobody_answers_ends_with_500_and_makes_room() {
    let mut registrar = registrar(RegistrarConfig {
        max_pending: 2,
        ..RegistrarConfig::new("ims.example.com")
    });
    let mut rng = http_connect::Rng::from_seed([9; 32]);
    let mut login = |registrar: &mut Registrar, secs: u64, flow: u64| {
        let bare = request("c", 1, 1, "");
        let challenge = ask(registrar, secs, Some(flow), &bare);
        let rows = authorize(&challenge, &mut rng, "secret");
        registrar.handle_register(at(secs), Some(FlowId(flow)), &request("c", 2, 1, &rows))
    };
    let mut tickets = Vec::new();
    for flow in 1..=2 {
        let RegisterStep::NeedKey { ticket, .. } = login(&mut registrar, 0, flow) else {
            panic!("no question");
        };
        tickets.push(ticket);
    }
    assert!(matches!(
        login(&mut registrar, 0, 3),
        RegisterStep::Respond(_)
    ));
    assert_eq!(registrar.poll_timeout(), Some(at(5)));
    registrar.handle_timeout(at(5));
    for ticket in tickets {
        let (late, response) = registrar.poll_response().unwrap();
        assert_eq!(late, ticket);
        let response = Response::check(response, &Limits::DEFAULT).unwrap();
        assert_eq!(response.code().number(), 500);
        assert!(response.has(Name::RETRY_AFTER));
        let answer = KeyAnswer::Unknown;
        assert!(registrar.key_found(at(5), ticket, &answer).is_none());
    }
    assert!(registrar.poll_response().is_none() && registrar.poll_timeout().is_none());
    assert!(matches!(
        login(&mut registrar, 6, 3),
        RegisterStep::NeedKey { .. }
    ));
}

#[test]
fn one_flow_does_not_take_the_questions_of_all() {
    let mut registrar = registrar(RegistrarConfig::new("ims.example.com"));
    let mut rng = http_connect::Rng::from_seed([9; 32]);
    let mut questions = |registrar: &mut Registrar, flow: u64| {
        let challenge = ask(registrar, 0, Some(flow), &request("c", 1, 1, ""));
        let rows = authorize(&challenge, &mut rng, "wrong");
        let asked = request("c", 2, 1, &rows);
        let steps = (0..1000).map(|_| registrar.handle_register(at(0), Some(FlowId(flow)), &asked));
        steps
            .filter(|step| matches!(step, RegisterStep::NeedKey { .. }))
            .count()
    };
    assert_eq!(questions(&mut registrar, 1), 8);
    assert_eq!(questions(&mut registrar, 2), 8);
}

#[test]
fn many_bindings_that_run_out_at_once_take_many_small_steps() {
    let mut registrar = registrar(RegistrarConfig {
        max_events: 10_000,
        ..open()
    });
    for n in 0..3000 {
        let text = alloc::format!(
            "REGISTER sip:ims.example.com SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:u{n}@ims.example.com>;tag=1\r\n\
             To: <sip:u{n}@ims.example.com>\r\nCall-ID: c{n}\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@h>;expires=60\r\n\r\n"
        );
        let message =
            Message::parse(text.as_bytes(), &crate::wire::ParseConfig::default()).unwrap();
        let asked = Request::check(message, &Limits::DEFAULT).unwrap();
        assert_eq!(code(&mut registrar, &asked), 200);
    }
    while registrar.poll_event().is_some() {}
    registrar.handle_timeout(at(60));
    assert_eq!(registrar.len(), 3000 - SWEEP);
    // What has not been reached is no target any more.
    let uri = crate::wire::UriBuf::parse("sip:u2999@ims.example.com").unwrap();
    assert!(registrar.targets(&uri.as_uri()).unwrap().is_empty());
    let lost = core::iter::from_fn(|| registrar.poll_event()).count();
    assert_eq!((lost, registrar.len()), (3000, 0));
    assert_eq!(registrar.poll_timeout(), None);
}

// spec: OUT-6-3
#[test]
fn a_contact_that_stands_twice_is_one_binding() {
    let mut registrar = registrar(open());
    let twice = "Contact: <sip:a@h>;q=0.1, <sip:a@H>;q=0.9\r\n";
    assert_eq!(code(&mut registrar, &request("c", 1, 1, twice)), 200);
    let [binding] = registrar.bindings.of(&alice()) else {
        panic!("one binding");
    };
    assert_eq!(binding.params, ";q=0.9");
    // URIs that differ from each other can both be the same as a third one.
    let two = "Contact: <sip:a@h;x=1>, <sip:a@h;x=2>\r\n";
    assert_eq!(
        code(
            &mut registrar,
            &request("c", 2, 1, "Contact: <sip:a@h>;expires=0\r\n")
        ),
        200
    );
    assert_eq!(code(&mut registrar, &request("c", 3, 1, two)), 200);
    assert_eq!(registrar.len(), 2);
    assert_eq!(
        code(
            &mut registrar,
            &request("c", 4, 1, "Contact: <sip:a@h>\r\n")
        ),
        200
    );
    assert_eq!(registrar.len(), 1);
}
