use super::*;

fn pcscf() -> EdgeConfig {
    EdgeConfig {
        next_hop: config().next_hop,
        ..EdgeConfig::pcscf("ep1.example.com")
    }
}

// spec: MEM-5.2.2-3
#[test]
fn strangers_may_only_register() {
    let mut bench = bench(pcscf());
    bench.input(bench.client, text("INVITE", "sip:bob@far", ""));
    assert_eq!(bench.code(bench.client), 403);
    bench.input(
        bench.client,
        text("ACK", "sip:bob@far", "").replace("z9hG4bKACK", "z9hG4bKother"),
    );
    assert!(bench.sent.is_empty());
    bench.register();
    assert!(matches!(&bench.events[..], [EdgeEvent::Registered { .. }]));
    bench.input(bench.client, text("MESSAGE", "sip:bob@far", ""));
    assert!(bench.next().1.is_request());
}

// spec: MEM-5.2.2-1
#[test]
fn path_is_added_and_required() {
    let mut bench = bench(pcscf());
    bench.input(bench.client, register(1, ""));
    let (_, request) = bench.next_request();
    assert!(
        request
            .only(Name::PATH)
            .unwrap()
            .ends_with("@ep1.example.com;lr;ob>")
    );
    assert!(request.has_tag(Name::REQUIRE, "path"));
}

// spec: MEM-5.2.2-2
#[test]
fn how_a_register_was_protected_is_ours_to_say() {
    let forwarded = |bench: &mut Bench, cseq: u32, response: &str| {
        let row = alloc::format!(
            "Authorization: Digest username=\"a,b\", integrity-protected=yes,response=\"{response}\",nc=00000001\r\n"
        );
        bench.input(bench.client, register(cseq, &row));
        let (flow, request) = bench.next_request();
        (
            flow,
            request.clone(),
            String::from(request.only(Name::AUTHORIZATION).unwrap()),
        )
    };
    let mut bench = bench(pcscf());
    let (flow, request, value) = forwarded(&mut bench, 1, "");
    assert_eq!(value, "Digest username=\"a,b\",response=\"\",nc=00000001");
    bench.answer(flow, &request, 401, &[]);
    bench.sent.clear();
    let (flow, request, value) = forwarded(&mut bench, 2, "abc");
    assert!(value.ends_with(",integrity-protected=\"tls-pending\""));
    assert_eq!(value.matches("integrity").count(), 1);
    bench.answer(
        flow,
        &request,
        200,
        &[("Contact", "<sip:alice@10.7.0.9:40112>;expires=60")],
    );
    bench.sent.clear();
    let (_, _, value) = forwarded(&mut bench, 3, "abc");
    assert!(value.ends_with(",integrity-protected=\"tls-yes\""));
}

// spec: MEM-5.2.6-1
#[test]
fn the_way_of_a_request_must_be_the_service_route() {
    let routes = |check, rows: &str| {
        let mut config = pcscf();
        config.pcscf = Some(PcscfConfig {
            service_route: check,
            ..PcscfConfig::default()
        });
        let mut bench = bench(config);
        bench.register();
        bench.events.clear();
        bench.input(bench.client, text("MESSAGE", "sip:bob@far", rows));
        let (_, message) = bench.next();
        if !message.is_request() {
            return Err(());
        }
        assert_eq!(
            message.only(Name::P_ASSERTED_IDENTITY),
            Ok("<sip:alice@ims.example.com>")
        );
        assert!(!message.has(Name::P_PREFERRED_IDENTITY));
        Ok(message
            .list(Name::ROUTE)
            .map(String::from)
            .collect::<Vec<_>>())
    };
    let right = "Route: <sip:ep1.example.com;lr>, <sip:scscf.example.com;lr>\r\n";
    let wrong = "Route: <sip:ep1.example.com;lr>, <sip:evil.example.com;lr>\r\nP-Preferred-Identity: <sip:boss@x>\r\nP-Asserted-Identity: <sip:boss@x>\r\n";
    let scscf = alloc::vec![String::from("<sip:scscf.example.com;lr>")];
    for check in [ServiceRouteCheck::Refuse, ServiceRouteCheck::Replace] {
        assert_eq!(routes(check, right), Ok(scscf.clone()));
    }
    for rows in [wrong, ""] {
        assert_eq!(routes(ServiceRouteCheck::Refuse, rows), Err(()));
        assert_eq!(routes(ServiceRouteCheck::Replace, rows), Ok(scscf.clone()));
    }
    let off = routes(ServiceRouteCheck::Off, wrong).unwrap();
    assert_eq!(off, ["<sip:evil.example.com;lr>"]);
}

// spec: MEM-5.2.6-1
#[test]
fn a_client_may_choose_among_the_identities_of_its_registration() {
    let mut bench = bench(pcscf());
    bench.input(bench.client, register(1, ""));
    let (flow, request) = bench.next_request();
    let rows = [
        ("Contact", "<sip:alice@10.7.0.9:40112>;expires=60"),
        ("P-Associated-URI", "<sip:alice@x>, \"A\" <tel:+1234>;p=1"),
        ("P-Associated-URI", "<sips:boss@x>"),
    ];
    bench.answer(flow, &request, 200, &rows);
    bench.sent.clear();
    let mut asserted = |n: u32, preferred: &str| {
        let rows = alloc::format!("P-Preferred-Identity: {preferred}\r\n");
        let text = text("MESSAGE", "sip:bob@far", &rows);
        bench.input(
            bench.client,
            text.replace("z9hG4bK", &alloc::format!("z9hG4bK{n}")),
        );
        let (_, request) = bench.next_request();
        assert!(!request.has(Name::P_PREFERRED_IDENTITY));
        String::from(request.only(Name::P_ASSERTED_IDENTITY).unwrap())
    };
    for (n, preferred, expected) in [
        (1, "<sip:alice@X>", "<sip:alice@x>"),
        (2, "\"Me\" <tel:+1234>", "<tel:+1234>"),
        (3, "<sips:boss@x>", "<sips:boss@x>"),
        (4, "<sip:boss@x>", "<sip:alice@x>"),
        (5, "<sip:evil@x>, <tel:+1234>", "<tel:+1234>"),
        (6, "nonsense", "<sip:alice@x>"),
    ] {
        assert_eq!(asserted(n, preferred), expected, "{preferred}");
    }
}

/// What only the network may say, each with a word of its own.
const OF_THE_NETWORK: &str = "P-Charging-Vector: icid-value=1\r\n\
    P-Charging-Function-Addresses: ccf=x\r\nP-Served-User: <sip:x@y>\r\n\
    P-Called-Party-ID: <sip:x@y>\r\nP-Visited-Network-ID: other\r\n\
    Remote-Party-ID: <sip:x@y>\r\nP-Asserted-Identity: <sip:boss@x>\r\n\
    P-Access-Network-Info: IEEE-802.11;network-provided, 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=\"a;network-provided;b\"\r\n\
    P-Access-Network-Info: 3GPP-GERAN;network-provided\r\n";

fn network_fields(message: &Message) -> Vec<String> {
    let of_network = |name: &str| name.starts_with("P-") || name.starts_with("Remote-");
    message
        .headers()
        .filter(|header| of_network(header.name))
        .map(|header| {
            let value = core::str::from_utf8(header.value).unwrap();
            alloc::format!("{}: {value}", header.name)
        })
        .collect()
}

// spec: MEM-5.2.6-1
#[test]
fn what_only_the_network_may_say_stays_with_the_network() {
    let own = "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=\"a;network-provided;b\"";
    let mut bench = bench(pcscf());
    let token = bench.register();
    // From a client into the network, except who it is, which we say ourselves.
    bench.input(bench.client, text("MESSAGE", "sip:bob@far", OF_THE_NETWORK));
    let (flow, request) = bench.next_request();
    let mut said = network_fields(&request);
    said.retain(|field| !field.starts_with("P-Asserted-Identity"));
    assert_eq!(said, [own]);
    assert_ne!(request.only(Name::P_ASSERTED_IDENTITY), Ok("<sip:boss@x>"));
    // From the network to a client, who may learn who calls it and by which of its names.
    let to_client = alloc::format!(
        "MESSAGE sip:alice@10.7.0.9:40112 SIP/2.0\r\nVia: SIP/2.0/TCP core;branch=z9hG4bKin\r\n\
         Route: <sip:{token}@ep1.example.com;lr;ob>\r\nFrom: <sip:b@far>;tag=1\r\n\
         To: <sip:alice@ims.example.com>\r\nCall-ID: in\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n\
         {OF_THE_NETWORK}Content-Length: 0\r\n\r\n"
    );
    bench.input(flow, to_client);
    let (on, request) = bench.next_request();
    assert_eq!(on, bench.client);
    assert_eq!(
        network_fields(&request),
        [
            "P-Called-Party-ID: <sip:x@y>",
            "P-Asserted-Identity: <sip:boss@x>",
            own
        ]
    );
    // And in the answer of the client.
    let rows = [
        ("P-Asserted-Identity", "<sip:boss@x>"),
        ("P-Charging-Vector", "icid-value=1"),
    ];
    bench.answer(bench.client, &request, 200, &rows);
    let (on, response) = bench.next_response();
    assert_eq!(on, flow);
    assert!(network_fields(&response).is_empty());
}

/// A client behind a NAT that knows neither `keep` nor outbound.
fn plain_register(cseq: u32, rows: &str) -> String {
    register(cseq, rows)
        .replace(";rport;keep", ";rport")
        .replace("path, outbound", "path")
        .replace(";reg-id=1", "")
}

// spec: F-4.2-3
#[test]
fn a_client_behind_a_nat_refreshes_often_and_the_registrar_hears_of_half() {
    let mut bench = bench(pcscf());
    let own = "<sip:alice@10.7.0.9:40112>;q=0.5;expires=3600";
    let other = "<sip:alice@elsewhere>;expires=7200";
    let row = alloc::format!("{other}, {own}");
    bench.input(bench.client, plain_register(1, "Expires: 600000\r\n"));
    let (core, request) = bench.next_request();
    assert_eq!(request.expires(), Some(600_000));
    let rows = [
        ("Contact", row.as_str()),
        ("Service-Route", "<sip:scscf.example.com;lr>"),
    ];
    bench.answer(core, &request, 200, &rows);
    let contacts = |bench: &mut Bench| {
        let (on, response) = bench.next_response();
        assert_eq!((on, response.code().number()), (bench.client, 200));
        assert_eq!(
            response.only(Name::SERVICE_ROUTE),
            Ok("<sip:scscf.example.com;lr>")
        );
        response
            .list(Name::CONTACT)
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let short = "<sip:alice@10.7.0.9:40112>;q=0.5;expires=60";
    assert_eq!(contacts(&mut bench), [other, short]);
    // Answered here for half an hour; the client lives by its refreshes.
    let mut cseq = 1;
    for second in (50..1800).step_by(50) {
        bench.run_to(second * 1000);
        cseq += 1;
        bench.input(bench.client, plain_register(cseq, "Expires: 600000\r\n"));
        let elsewhere = alloc::format!("<sip:alice@elsewhere>;expires={}", 7200 - second);
        assert_eq!(contacts(&mut bench), [elsewhere.as_str(), short]);
        assert!(bench.sent.is_empty());
    }
    // With half of it gone the registrar is asked, as long as ever.
    bench.run_to(1_800_000);
    bench.input(
        bench.client,
        plain_register(cseq + 1, "Expires: 600000\r\n"),
    );
    let (core, request) = bench.next_request();
    assert_eq!(request.expires(), Some(600_000));
    bench.answer(core, &request, 200, &rows);
    assert_eq!(contacts(&mut bench), [other, short]);
    assert!(bench.edge.registered(bench.client).is_some());
    // Without a refresh it counts as gone.
    bench.run_to(1_800_000 + 92_000);
    assert_eq!(bench.edge.registered(bench.client), None);
}

// spec: F-4.2-3
#[test]
fn what_changes_something_goes_on_to_the_registrar() {
    let refresh = plain_register(5, "Expires: 600\r\n");
    for (text, local) in [
        (refresh.clone(), true),
        (
            plain_register(5, "Authorization: Digest x=y\r\nExpires: 600\r\n"),
            true,
        ),
        (plain_register(1, "Expires: 600\r\n"), false),
        (plain_register(5, "Expires: 0\r\n"), false),
        (
            refresh.replace("Contact: <", "Contact: <sip:second@h>, <"),
            false,
        ),
        (refresh.replace("Contact: <", "Contact: *, <"), false),
        (
            refresh.replace("alice@10.7.0.9:40112>", "alice@10.7.0.9:40112>;q=0.1"),
            false,
        ),
        (
            refresh.replace("Supported: path", "Supported: path, gruu"),
            false,
        ),
        (refresh.replace("Call-ID: c", "Call-ID: d"), false),
        (
            plain_register(5, "P-Access-Network-Info: WLAN\r\nExpires: 600\r\n"),
            false,
        ),
    ] {
        let mut bench = bench(pcscf());
        bench.input(bench.client, plain_register(1, "Expires: 600\r\n"));
        let (core, request) = bench.next_request();
        let rows = [("Contact", "<sip:alice@10.7.0.9:40112>;expires=600")];
        bench.answer(core, &request, 200, &rows);
        bench.sent.clear();
        // Not the resend of the first one.
        bench.input(bench.client, text.replace("z9hG4bK", "z9hG4bKnew"));
        assert_eq!(!bench.next().1.is_request(), local, "{text}");
    }
}

// spec: F-4.2-3, F-4.2-2, OUT-5.4-4
#[test]
fn who_sends_keep_alives_or_needs_none_is_told_what_was_granted() {
    let granted = |config: EdgeConfig, text: String, outbound: bool| {
        let mut bench = bench(config);
        bench.input(bench.client, text);
        let (core, request) = bench.next_request();
        let mut rows = alloc::vec![("Contact", "<sip:alice@10.7.0.9:40112>;expires=600")];
        rows.extend(outbound.then_some(("Require", "outbound")));
        bench.answer(core, &request, 200, &rows);
        let (_, response) = bench.next_response();
        let contact = response.contacts(&Limits::DEFAULT).next().unwrap().unwrap();
        let expires = contact.expires().unwrap();
        bench.run_to(500_000);
        (expires, bench.edge.registered(bench.client).is_some())
    };
    let off = || EdgeConfig {
        pcscf: Some(PcscfConfig {
            nat_expires: None,
            ..PcscfConfig::default()
        }),
        ..pcscf()
    };
    // Behind a NAT: keep-alives, by one way or the other, or short refreshes.
    assert_eq!(granted(pcscf(), plain_register(1, ""), false), (60, false));
    assert_eq!(granted(pcscf(), register(1, ""), false), (600, false));
    assert_eq!(granted(pcscf(), plain_register(1, ""), true), (600, false));
    // Nobody has asked this client to be heard of.
    assert_eq!(granted(off(), plain_register(1, ""), false), (600, true));
    let open = plain_register(1, "").replace("TLS 10.7.0.9:40112", "TLS 203.0.113.7");
    assert_eq!(granted(pcscf(), open, false), (600, true));
}

// spec: OUT-5.4-1, SEED-2.2-3
#[test]
fn pings_are_answered_at_once() {
    let mut bench = bench(config());
    bench.input(bench.client, b"\r\n\r");
    assert!(bench.sent.is_empty());
    bench.input(bench.client, b"\n");
    assert_eq!(bench.sent.remove(0), (bench.client, b"\r\n".to_vec()));
}

// spec: OUT-5.4-4, PRI-4-4
#[test]
fn a_silent_flow_dies_after_the_flow_timer_and_grace() {
    let mut bench = bench(pcscf());
    bench.register();
    bench.run_to(50_000);
    bench.input(bench.client, b"\r\n\r\n");
    bench.run_to(50_000 + 91_999);
    assert!(bench.edge.registered(bench.client).is_some());
    bench.run_to(50_000 + 92_000);
    assert!(bench.events.contains(&EdgeEvent::FlowEnded {
        flow: bench.client,
        end: EdgeFlowEnd::Idle
    }));
    assert!(
        bench
            .actions
            .contains(&FlowAction::CloseFlow { flow: bench.client })
    );
    let mut bench = super::bench(config());
    bench.register();
    bench.run_to(151_999);
    assert!(bench.edge.registered(bench.client).is_some());
    bench.run_to(153_000);
    assert!(bench.edge.registered(bench.client).is_none());
}

// spec: PRI-4-3
#[test]
fn an_unregistered_flow_is_closed_whatever_it_sends() {
    let mut bench = bench(config());
    for second in 1..64 {
        bench.run_to(second * 1000);
        bench.input(bench.client, b"\r\n\r\n");
    }
    assert!(
        !bench
            .events
            .iter()
            .any(|event| matches!(event, EdgeEvent::FlowEnded { .. }))
    );
    bench.run_to(64_000);
    assert!(bench.events.contains(&EdgeEvent::FlowEnded {
        flow: bench.client,
        end: EdgeFlowEnd::Idle
    }));
}

// spec: SEC-G-05
#[test]
fn flows_of_the_core_are_few_and_end_when_nothing_passes() {
    let mut bench = bench(EdgeConfig {
        next_hop: None,
        flow_timer: None,
        max_core_flows: 2,
        ..config()
    });
    bench.register_elsewhere();
    for host in ["a", "A", "b"] {
        let text = text("OPTIONS", &alloc::format!("sip:u@{host};transport=tcp"), "");
        let text = text.replace("z9hG4bK", &alloc::format!("z9hG4bK{host}"));
        bench.input(bench.client, text);
        assert!(bench.next().1.is_request());
    }
    let opened = |bench: &Bench| {
        let open = |action: &&FlowAction| matches!(action, FlowAction::OpenFlow { .. });
        bench.actions.iter().filter(open).count()
    };
    assert_eq!(opened(&bench), 2);
    bench.input(bench.client, text("OPTIONS", "sip:u@c;transport=tcp", ""));
    assert_eq!(bench.code(bench.client), 503);
    let core = bench.core;
    bench.run_to(200_000);
    bench.input(core, b"\r\n\r\n");
    // Those that were opened are gone, the one that was used lives on.
    bench.run_to(300_000);
    let ended = |bench: &Bench, end| {
        let event =
            |event: &&EdgeEvent| matches!(event, EdgeEvent::FlowEnded { end: e, .. } if *e == end);
        bench.events.iter().filter(event).count()
    };
    assert_eq!(
        (bench.edge.flow_count(), ended(&bench, EdgeFlowEnd::Idle)),
        (2, 2)
    );
    bench.run_to(500_000);
    assert_eq!(bench.edge.flow_count(), 1);
    bench.input(bench.client, text("MESSAGE", "sip:u@c;transport=tcp", ""));
    assert_eq!(opened(&bench), 3);
}

// spec: SEC-G-05
#[test]
fn clients_in_any_number_do_not_keep_the_core_out() {
    let config = EdgeConfig {
        max_flows: 3,
        max_core_flows: 2,
        ..EdgeConfig::new("ep.example.com")
    };
    let mut edge = EdgeProxy::new(config, [7; 32], at(0)).unwrap();
    let mut accept = |side, port| edge.flow_accepted(at(0), tuple(port), side).is_some();
    let clients: Vec<_> = (1..5).map(|port| accept(Side::Access, port)).collect();
    assert_eq!(clients, [true, true, true, false]);
    let core: Vec<_> = (5..8).map(|port| accept(Side::Core, port)).collect();
    assert_eq!(core, [true, true, false]);
}

#[test]
fn a_flow_that_never_opens_is_given_up() {
    let mut bench = bench(config());
    bench
        .edge
        .handle_flow_input(at(0), bench.client, register(1, "").as_bytes());
    assert!(matches!(
        bench.edge.poll_action(),
        Some(FlowAction::OpenFlow { .. })
    ));
    bench.run_to(32_000);
    assert_eq!(bench.edge.flow_count(), 2);
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, FlowAction::CloseFlow { .. }))
    );
}

// spec: SEC-G-05
#[test]
fn few_requests_wait_for_a_flow_to_open() {
    let mut config = config();
    config.max_waiting = 2;
    let mut bench = bench(config);
    for n in 0..4 {
        let text = text("OPTIONS", "sip:a@b", "").replace("z9hG4bK", &alloc::format!("z9hG4bK{n}"));
        bench
            .edge
            .handle_flow_input(at(0), bench.client, text.as_bytes());
    }
    let mut buf = alloc::vec![0; 70_000];
    let len = bench.edge.poll_flow(bench.client, &mut buf).unwrap();
    let answers = String::from_utf8(buf[..len].to_vec()).unwrap();
    assert_eq!(answers.matches("SIP/2.0 503 ").count(), 2);
    // Those that wait go out, and there is room again.
    bench.drain();
    for _ in 0..2 {
        assert!(bench.next().1.is_request());
    }
    assert_eq!(bench.edge.waiting_count, 0);
}

// spec: SEC-G-05, SEC-G-14
#[test]
fn a_host_that_takes_no_events_gets_no_more() {
    let mut config = config();
    config.max_events = 3;
    let mut bench = bench(config);
    let flows: Vec<_> = (0..10)
        .filter_map(|n| bench.edge.flow_accepted(at(0), tuple(n), Side::Access))
        .collect();
    assert_eq!(flows.len(), 10);
    bench.edge.flow_failed(at(0), flows[0]);
    bench.edge.flow_failed(at(0), flows[1]);
    // Two ends, and two connections to close.
    assert_eq!(
        bench.edge.flow_accepted(at(0), tuple(99), Side::Access),
        None
    );
    let text = text("OPTIONS", "sip:a@b", "");
    bench
        .edge
        .handle_flow_input(at(0), bench.client, text.as_bytes());
    assert_eq!(
        (bench.edge.writable().count(), bench.edge.dropped()),
        (0, 1)
    );
    bench.drain();
    bench.input(bench.client, text);
    assert!(bench.next().1.is_request());
}

// spec: SEC-F-03, SEC-F-04
#[test]
fn a_client_may_send_more_and_slower_once_it_is_registered() {
    let big = |n: usize| {
        text("MESSAGE", "sip:bob@far", "").replace(
            "Content-Length: 0\r\n\r\n",
            &alloc::format!("Content-Length: {n}\r\n\r\n{}", "x".repeat(n)),
        )
    };
    let mut bench0 = bench(config());
    bench0.input(bench0.client, big(3000));
    assert_eq!(bench0.code(bench0.client), 413);
    assert!(matches!(
        &bench0.events[..],
        [EdgeEvent::FlowEnded {
            end: EdgeFlowEnd::Framing(_),
            ..
        }]
    ));
    let mut bench1 = bench(config());
    bench1.register();
    bench1.input(bench1.client, big(3000));
    assert_eq!(bench1.next().1.body().len(), 3000);
    let mut bench2 = bench(config());
    bench2.input(bench2.client, b"OPT");
    bench2.run_to(10_000);
    assert!(matches!(
        &bench2.events[..],
        [EdgeEvent::FlowEnded {
            end: EdgeFlowEnd::Framing(_),
            ..
        }]
    ));
}

// spec: SEC-G-05, PRI-4-2
#[test]
fn flows_are_counted_one_by_one_and_limited() {
    let mut config = config();
    config.max_flows = 1000;
    let mut bench = bench(config);
    for port in 0..999 {
        assert!(
            bench
                .edge
                .flow_accepted(at(0), tuple(port), Side::Access)
                .is_some()
        );
    }
    assert_eq!(
        bench.edge.flow_accepted(at(0), tuple(1), Side::Access),
        None
    );
    let at0 = FiveTuple {
        transport: Transport::Udp,
        ..tuple(4000)
    };
    bench
        .edge
        .handle_datagram(at(0), at0, text("OPTIONS", "sip:a@b", "").as_bytes());
    bench.input(bench.client, text("OPTIONS", "sip:a@b", ""));
    // There is room for the flow to the core.
    assert_eq!(bench.next_request().1.method().as_str(), "OPTIONS");
    bench.run_to(64_000);
    assert_eq!(bench.edge.flow_count(), 2);
}

#[test]
fn the_end_of_a_registration_closes_the_gate() {
    let mut bench0 = bench(pcscf());
    bench0.register();
    let removal = register(2, "Expires: 0\r\n");
    bench0.input(bench0.client, removal);
    let (flow, request) = bench0.next_request();
    bench0.answer(flow, &request, 200, &[]);
    assert_eq!(bench0.code(bench0.client), 200);
    assert_eq!(bench0.edge.registered(bench0.client), None);
    let mut bench1 = bench(EdgeConfig {
        flow_timer: None,
        ..pcscf()
    });
    bench1.register();
    bench1.run_to(3_599_999);
    assert!(bench1.edge.registered(bench1.client).is_some());
    bench1.run_to(3_600_000);
    assert!(bench1.edge.registered(bench1.client).is_none());
    bench1.input(bench1.client, text("INVITE", "sip:bob@far", ""));
    assert_eq!(bench1.code(bench1.client), 403);
}

// spec: SEC-G-19
#[test]
fn configurations_that_cannot_work_are_refused() {
    let check = |change: &dyn Fn(&mut EdgeConfig)| {
        let mut config = config();
        change(&mut config);
        EdgeProxy::new(config, [0; 32], at(0)).err()
    };
    assert_eq!(check(&|_| {}), None);
    assert_eq!(
        check(&|config| config.host = "a b".into()),
        Some(EdgeConfigError::Host)
    );
    assert_eq!(check(&|config| config.host = "a;b".into()), None);
    assert_eq!(
        check(&|config| config.proxy_extensions.push("a b".into())),
        Some(EdgeConfigError::OptionTag)
    );
    assert_eq!(
        check(&|config| config.max_flows = 0),
        Some(EdgeConfigError::Zero)
    );
    assert_eq!(
        check(&|config| config.flow_timer = Some(0)),
        Some(EdgeConfigError::Zero)
    );
}
