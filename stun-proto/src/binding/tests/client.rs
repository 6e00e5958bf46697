use super::*;
use crate::auth::{AuthFailure, Credentials, LongTermServerConfig, ShortTermClient};
use crate::wire::{
    Attribute as _, AttributeType, Class, ErrorCode, IntegrityAlgorithm, Key, MappedAddress,
    Message, Nonce, PasswordAlgorithmId, Realm, Software, TransactionId, TransmitCounter, Username,
    XorMappedAddress,
};
use crate::{Received, RetransmitConfig};

const MAPPED: &str = "203.0.113.5:40000";

fn new(change: impl FnOnce(&mut BindingClientConfig)) -> BindingClient {
    let mut config = BindingClientConfig::default();
    change(&mut config);
    BindingClient::new(config, [7; 32], START).unwrap()
}

fn plain() -> BindingClient {
    new(|_| {})
}

/// Starts a request over UDP and takes its first transmission.
fn asked(client: &mut BindingClient) -> (RequestId, Vec<u8>) {
    let id = client.request(START, Path::Datagram(here())).unwrap();
    let sent = drain(client);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, Path::Datagram(here()));
    (id, sent[0].1.clone())
}

fn id_of(bytes: &[u8]) -> TransactionId {
    Message::parse(bytes).unwrap().transaction_id()
}

fn success(request: &[u8]) -> Vec<u8> {
    write(|buf| {
        Writer::new(buf, BINDING.success(), id_of(request))
            .attribute(&XorMappedAddress(addr(MAPPED)))
            .finish()
    })
}

fn error(request: &[u8], code: u16) -> Vec<u8> {
    write(|buf| {
        Writer::new(buf, BINDING.error(), id_of(request))
            .attribute(&ErrorCode::new(code))
            .finish()
    })
}

fn give(client: &mut BindingClient, now: Instant, data: &[u8]) {
    assert_eq!(
        client.handle_datagram(now, here(), data),
        Received::Consumed
    );
}

#[track_caller]
fn cause(client: &mut BindingClient) -> FailureCause {
    match &events(client)[..] {
        [BindingEvent::Failed { cause, .. }] => cause.clone(),
        other => panic!("{other:?}"),
    }
}

/// Lets time pass until nothing is armed any more; how many transmissions that brought.
fn run_out(client: &mut BindingClient) -> usize {
    let mut sent = drain(client).len();
    while let Some(next) = client.poll_timeout() {
        client.handle_timeout(next);
        sent += drain(client).len();
        assert!(client.poll_timeout().is_none_or(|later| later > next));
    }
    sent
}

// spec: STUN-6.1-1, STUN-5-5, STUN-6.2.1-1
#[test]
fn a_request_is_answered() {
    let mut client = plain();
    let (request, bytes) = asked(&mut client);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.message_type(), BINDING);
    assert!(message.has(Software::TYPE));
    give(&mut client, at(80), &success(&bytes));
    assert_eq!(
        events(&mut client),
        [BindingEvent::Mapped {
            request,
            path: Path::Datagram(here()),
            mapped: addr(MAPPED),
            rtt: Some(Duration::from_millis(80)),
            counter: None,
        }]
    );
    assert_eq!(client.poll_timeout(), None);
    // The next request has another ID, and so has another client.
    let (_, again) = asked(&mut client);
    assert_ne!(id_of(&bytes), id_of(&again));
    let other = BindingClient::new(BindingClientConfig::default(), [8; 32], START);
    let (_, other) = asked(&mut other.unwrap());
    assert_ne!(id_of(&bytes), id_of(&other));
    // The same response again answers nothing.
    let again = success(&bytes);
    let late = client.handle_datagram(at(81), here(), &again);
    assert_eq!(late, Received::NotMine);
}

// spec: STUN-16.1.2-1, SEC-G-19
#[test]
fn the_configuration_is_checked_when_the_client_is_made() {
    let mut client = new(|c| c.software = None);
    assert_eq!(asked(&mut client).1.len(), 20);
    let refused = |change: fn(&mut BindingClientConfig)| {
        let mut config = BindingClientConfig::default();
        change(&mut config);
        BindingClient::new(config, [7; 32], START).unwrap_err()
    };
    assert_eq!(
        refused(|c| c.software = Some("s".repeat(510))),
        ConfigError::Software
    );
    assert_eq!(refused(|c| c.max_requests = 0), ConfigError::Zero);
    assert_eq!(
        refused(|c| c.retransmit.rto = Duration::ZERO),
        ConfigError::Zero
    );
    assert_eq!(
        refused(|c| {
            c.classic = true;
            c.fingerprint = true;
        }),
        ConfigError::Classic
    );
    assert_eq!(
        refused(|c| {
            c.count_transmissions = true;
            c.authentication = Authentication::LongTerm(Credentials::new("u", "p"));
        }),
        ConfigError::Counters
    );
}

// spec: STUN-6.1-2, STUN-6.1-3
#[test]
fn messages_fit_the_smallest_packets() {
    let v6 = FiveTuple::udp(addr("[2001:db8::9]:5000"), addr("[2001:db8::1]:3478"));
    let mut dtls_v6 = v6;
    dtls_v6.transport = Transport::Dtls;
    let cases = [
        (here(), 504, true),
        (here(), 509, true),
        (over(Transport::Dtls), 420, true),
        (over(Transport::Dtls), 432, false),
        (v6, 509, true),
        (dtls_v6, 509, true),
    ];
    for (path, software, fits) in cases {
        let mut client = new(|c| c.software = Some("s".repeat(software)));
        let result = client.request(START, Path::Datagram(path));
        assert_eq!(result.is_ok(), fits, "{path:?} {software}");
    }
    let sizes =
        [here(), over(Transport::Dtls), v6, dtls_v6].map(|at| max_message(Path::Datagram(at)));
    assert_eq!(sizes, [547, 454, 1232, 1139]);

    // A user name and SOFTWARE together are too much for IPv4.
    let key = Key::short_term("p");
    let mut client = new(|c| {
        let short = ShortTermClient::new("u".repeat(300), key).unwrap();
        c.authentication = Authentication::ShortTerm(short);
        c.software = Some("s".repeat(300));
    });
    let result = client.request(START, Path::Datagram(here()));
    assert_eq!(result, Err(RequestError::TooLong));
    assert!(drain(&mut client).is_empty() && client.poll_timeout().is_none());
    assert!(client.request(START, Path::Datagram(v6)).is_ok());
}

// spec: STUN-6.2.1-6, STUN-5-6
#[test]
fn no_answer_is_a_timeout_after_seven_equal_transmissions() {
    let mut client = plain();
    let (_, first) = asked(&mut client);
    let mut sent = Vec::new();
    while let Some(next) = client.poll_timeout() {
        client.handle_timeout(next);
        sent.extend(drain(&mut client));
        if client.poll_timeout().is_none() {
            assert_eq!(next, at(39_500));
        }
    }
    assert_eq!(sent.len(), 6);
    assert!(sent.iter().all(|(_, bytes)| *bytes == first));
    assert_eq!(cause(&mut client), FailureCause::Timeout { hint: None });
}

// spec: STUN-6.3-1, STUN-5-8, SEC-S-06, STUN-6.3.2-1
#[test]
fn what_is_no_response_of_ours_is_left_to_others() {
    let mut client = new(|c| c.fingerprint = true);
    let (_, request) = asked(&mut client);
    let message = Message::parse(&request).unwrap();
    assert_eq!(message.check_fingerprint(), Some(true));
    let printed = |bytes: &[u8]| {
        let mut buf = bytes.to_vec();
        buf.resize(bytes.len() + 8, 0);
        append_fingerprint(&mut buf, bytes.len()).unwrap();
        buf
    };
    use crate::wire::append_fingerprint;
    let good = printed(&success(&request));
    let id = id_of(&request);
    let typed = |ty: MessageType| {
        printed(&write(|buf| {
            Writer::new(buf, ty, id)
                .attribute(&XorMappedAddress(addr(MAPPED)))
                .finish()
        }))
    };
    let mut other_id = id;
    other_id.0[11] ^= 1;
    let mut wrong_print = good.clone();
    *wrong_print.last_mut().unwrap() ^= 1;
    let not_mine = [
        b"\x80 RTP".to_vec(),
        success(&request),
        wrong_print,
        // A request with our own ID is somebody's request all the same.
        typed(BINDING),
        typed(MessageType::indication(Method::BINDING)),
        typed(MessageType::new(Class::Success, Method::new(3))),
        printed(&write(|buf| {
            Writer::new(buf, BINDING.success(), other_id)
                .attribute(&XorMappedAddress(addr(MAPPED)))
                .finish()
        })),
        good[..good.len() - 1].to_vec(),
    ];
    for data in not_mine {
        let received = client.handle_datagram(at(1), here(), &data);
        assert_eq!(received, Received::NotMine);
    }
    let elsewhere = [
        FiveTuple {
            remote: addr("198.51.100.1:3479"),
            ..here()
        },
        FiveTuple {
            remote: addr("198.51.100.2:3478"),
            ..here()
        },
        FiveTuple {
            local: addr("192.0.2.9:5001"),
            ..here()
        },
        over(Transport::Dtls),
    ];
    for path in elsewhere {
        let received = client.handle_datagram(at(1), path, &good);
        assert_eq!(received, Received::NotMine);
    }
    let mut input = &good[..];
    let received = client.handle_stream(at(1), StreamId(1), &mut input);
    assert_eq!((received, input.len()), (Received::NotMine, good.len()));
    assert!(events(&mut client).is_empty());
    // Nothing of that has disturbed the transaction.
    give(&mut client, at(2), &good);
    assert_eq!(events(&mut client).len(), 1);
}

// spec: STUN-6.3.3-1, STUN-6.3.3-2, STUN-6.3.4-1, STUN-6.3.4-2, STUN-6.3-3, STUN-14.8-4
#[test]
fn responses_that_end_the_request_without_an_address() {
    let respond = |f: &dyn Fn(Writer<'_>) -> Result<usize, WriteError>, class| {
        let mut client = plain();
        let (_, request) = asked(&mut client);
        let ty = MessageType::new(class, Method::BINDING);
        let data = write(|buf| f(Writer::new(buf, ty, id_of(&request))));
        give(&mut client, at(1), &data);
        assert_eq!(client.poll_timeout(), None, "never again by itself");
        events(&mut client)
    };
    let check =
        |f: &dyn Fn(Writer<'_>) -> Result<usize, WriteError>, class, expected| match &respond(
            f, class,
        )[..]
        {
            [BindingEvent::Failed { cause, .. }] => assert_eq!(*cause, expected),
            other => panic!("{other:?}"),
        };
    let unknown = AttributeType(0x7FFF);
    let mapped = XorMappedAddress(addr(MAPPED));
    check(
        &|w| w.attribute(&mapped).raw(unknown, &[]).finish(),
        Class::Success,
        FailureCause::UnknownAttribute(unknown),
    );
    check(&|w| w.finish(), Class::Success, FailureCause::Malformed);
    check(
        &|w| w.attribute(&MappedAddress(addr(MAPPED))).finish(),
        Class::Success,
        FailureCause::Malformed,
    );
    check(
        &|w| {
            w.raw(XorMappedAddress::TYPE, &[0, 3, 0, 0, 1, 2, 3, 4])
                .finish()
        },
        Class::Success,
        FailureCause::Malformed,
    );
    check(&|w| w.finish(), Class::Error, FailureCause::Malformed);
    check(
        &|w| w.raw(ErrorCode::TYPE, &[0, 0, 2, 0]).finish(),
        Class::Error,
        FailureCause::Malformed,
    );
    let error = |code| ErrorCode::new(code);
    check(
        &|w| w.attribute(&error(420)).raw(unknown, &[]).finish(),
        Class::Error,
        FailureCause::UnknownAttribute(unknown),
    );
    for code in [400, 401, 420, 499, 600, 699] {
        let expected = FailureCause::Code { code };
        check(
            &|w| w.attribute(&error(code)).finish(),
            Class::Error,
            expected,
        );
    }
    // Unknown optional and known unexpected attributes do no harm.
    let fine = respond(
        &|w| {
            w.raw(AttributeType(0xC057), &[1])
                .raw(Username::TYPE, b"x")
                .attribute(&mapped)
                .finish()
        },
        Class::Success,
    );
    assert!(matches!(fine[..], [BindingEvent::Mapped { .. }]));
    // An address of the other family is an address.
    let other = XorMappedAddress(addr("[2001:db8::5]:1"));
    let fine = respond(&|w| w.attribute(&other).finish(), Class::Success);
    assert!(matches!(fine[..], [BindingEvent::Mapped { .. }]));
}

// spec: STUN-6.3.4-3
#[test]
fn a_server_error_is_asked_about_four_times_again() {
    let mut client = plain();
    let (_, mut request) = asked(&mut client);
    let mut waits = Vec::new();
    let mut ids = alloc::vec![id_of(&request)];
    let mut now = START;
    loop {
        give(&mut client, now, &error(&request, 500));
        let Some(next) = client.poll_timeout() else {
            break;
        };
        waits.push((next - now).as_millis());
        now = next;
        client.handle_timeout(now);
        request = drain(&mut client)[0].1.clone();
        assert!(!ids.contains(&id_of(&request)));
        ids.push(id_of(&request));
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000]);
    assert_eq!(cause(&mut client), FailureCause::Code { code: 500 });
}

// spec: STUN-6.2.1-7
#[test]
fn a_hard_icmp_error_ends_the_request_at_once() {
    let mut client = plain();
    asked(&mut client);
    client.handle_icmp(at(10), here(), false);
    let elsewhere = FiveTuple {
        remote: addr("198.51.100.1:3479"),
        ..here()
    };
    client.handle_icmp(at(10), elsewhere, true);
    assert!(events(&mut client).is_empty());
    client.handle_icmp(at(10), here(), true);
    assert_eq!(cause(&mut client), FailureCause::Unreachable);
    assert_eq!((run_out(&mut client), client.poll_timeout()), (0, None));
    // While waiting to ask again, too.
    let (_, request) = asked(&mut client);
    give(&mut client, at(11), &error(&request, 500));
    client.handle_icmp(at(12), here(), true);
    assert_eq!(cause(&mut client), FailureCause::Unreachable);
    assert_eq!(client.poll_timeout(), None);
}

// spec: STUN-6.2.1-8, STUN-6.3.2-2
#[test]
fn indications_are_sent_once() {
    let mut client = plain();
    client.indication(START, Path::Datagram(here())).unwrap();
    let sent = drain(&mut client);
    assert_eq!(sent.len(), 1);
    let message = Message::parse(&sent[0].1).unwrap();
    assert_eq!(message.class(), Class::Indication);
    assert_eq!(client.poll_timeout(), None);
    for _ in 0..16 {
        client.indication(START, Path::Datagram(here())).unwrap();
    }
    let full = client.indication(START, Path::Datagram(here()));
    assert_eq!(full, Err(RequestError::TooMany));
}

#[test]
fn a_binding_is_kept_alive() {
    let mut client = plain();
    let path = Path::Datagram(here());
    let every = Duration::from_secs(15);
    client.keep_alive(START, path, Some(every)).unwrap();
    assert!(drain(&mut client).is_empty());
    for n in 1..=3_u64 {
        assert_eq!(client.poll_timeout(), Some(at(n * 15_000)));
        client.handle_timeout(at(n * 15_000));
        let sent = drain(&mut client);
        assert_eq!(sent.len(), 1);
        assert_eq!(
            Message::parse(&sent[0].1).unwrap().class(),
            Class::Indication
        );
    }
    // A host that does not send gets one, not ten.
    for n in 4..14_u64 {
        client.handle_timeout(at(n * 15_000));
    }
    assert_eq!(drain(&mut client).len(), 1);
    client.keep_alive(at(300_000), path, None).unwrap();
    assert_eq!(client.poll_timeout(), None);
    for port in 0..16 {
        let to = FiveTuple {
            remote: ([198, 51, 100, 1], port).into(),
            ..here()
        };
        client
            .keep_alive(START, Path::Datagram(to), Some(every))
            .unwrap();
    }
    let full = client.keep_alive(START, path, Some(every));
    assert_eq!(full, Err(RequestError::TooMany));
}

// spec: STUN-6.2-1, SEC-S-07, SEC-G-05, SEC-G-14
#[test]
fn ten_requests_run_at_once_and_sixty_four_wait_for_their_end() {
    let mut client = plain();
    for _ in 0..64 {
        client.request(START, Path::Datagram(here())).unwrap();
    }
    let full = client.request(START, Path::Datagram(here()));
    assert_eq!(full, Err(RequestError::TooMany));
    let sent = drain(&mut client);
    assert_eq!(sent.len(), 10);
    give(&mut client, at(5), &success(&sent[3].1));
    assert_eq!(drain(&mut client).len(), 1);
    // Events nobody has taken count.
    let full = client.request(at(5), Path::Datagram(here()));
    assert_eq!(full, Err(RequestError::TooMany));
    events(&mut client);
    assert!(client.request(at(5), Path::Datagram(here())).is_ok());
    run_out(&mut client);
    assert_eq!(events(&mut client).len(), 64, "each ends once");
}

// spec: STUN-6.2.2-1, STUN-6.2.2-2, STUN-6.2.2-4, STUN-6.2.2-6, STUN-6.2.2-7
#[test]
fn requests_over_a_stream() {
    let stream = StreamId(3);
    let path = Path::Stream(stream);
    let mut client = plain();
    client.request(START, path).unwrap();
    client.request(START, path).unwrap();
    let sent = drain(&mut client);
    assert_eq!(sent.len(), 2);
    // Answers in the other order, cut anywhere.
    let bytes = [success(&sent[1].1), success(&sent[0].1)].concat();
    for chunk in bytes.chunks(7) {
        let mut input = chunk;
        while !input.is_empty() {
            let received = client.handle_stream(at(9), stream, &mut input);
            assert_eq!(received, Received::Consumed);
        }
    }
    assert_eq!(events(&mut client).len(), 2);
    // The address is in use: nobody asks to close.
    assert_eq!((client.poll_action(), client.poll_timeout()), (None, None));
    client.request(at(10), path).unwrap();
    assert_eq!(run_out(&mut client), 1);
    assert_eq!(cause(&mut client), FailureCause::Timeout { hint: None });
    assert_eq!(client.poll_action(), Some(BindingAction::Reset(stream)));
    assert_eq!(client.poll_action(), None);
    for n in 10..25 {
        client
            .request(at(99_000), Path::Stream(StreamId(n)))
            .unwrap();
    }
    let full = client.request(at(99_000), Path::Stream(StreamId(30)));
    assert_eq!(full, Err(RequestError::TooMany));
}

// spec: STUN-6.2.2-3, SEC-F-05
#[test]
fn a_stream_that_ends_or_breaks_ends_its_requests() {
    let (a, b) = (StreamId(1), StreamId(2));
    let mut client = plain();
    client.request(START, Path::Stream(a)).unwrap();
    client.request(START, Path::Stream(b)).unwrap();
    client
        .keep_alive(START, Path::Stream(a), Some(Duration::from_secs(1)))
        .unwrap();
    client.handle_stream_closed(at(1), a);
    assert_eq!(cause(&mut client), FailureCause::StreamLost);
    let mut input = &b"HTTP/1.1 400 Bad Request\r\n"[..];
    assert_eq!(
        client.handle_stream(at(2), b, &mut input),
        Received::Consumed
    );
    assert!(input.is_empty());
    assert_eq!(cause(&mut client), FailureCause::StreamLost);
    assert_eq!(client.poll_action(), Some(BindingAction::Reset(b)));
    assert_eq!((run_out(&mut client), client.poll_timeout()), (0, None));
    let mut input = &b"more"[..];
    assert_eq!(
        client.handle_stream(at(3), b, &mut input),
        Received::NotMine
    );
}

fn short_term(client: &mut BindingClientConfig) {
    let short = ShortTermClient::new("user", Key::short_term("secret")).unwrap();
    client.authentication = Authentication::ShortTerm(short);
}

// spec: STUN-9.1.4-2, STUN-9.1.4-1, STUN-9.1.5-1
#[test]
fn unproven_responses_are_discarded_and_named_when_nothing_else_comes() {
    let key = Key::short_term("secret");
    let mut client = new(short_term);
    let (_, request) = asked(&mut client);
    let message = Message::parse(&request).unwrap();
    assert_eq!(
        message.verify(&key).unwrap().algorithm(),
        IntegrityAlgorithm::Sha256
    );
    give(&mut client, at(1), &success(&request));
    give(&mut client, at(2), &error(&request, 401));
    assert!(events(&mut client).is_empty());
    assert_eq!(run_out(&mut client), 6, "goes on sending");
    assert_eq!(
        cause(&mut client),
        FailureCause::IntegrityViolated { hint: Some(401) }
    );

    // A good one among bad ones counts; the next request has its kind of code only.
    let (_, request) = asked(&mut client);
    give(&mut client, at(1), &success(&request));
    let proven = write(|buf| {
        Writer::new(buf, BINDING.success(), id_of(&request))
            .attribute(&XorMappedAddress(addr(MAPPED)))
            .message_integrity(&key)
            .finish()
    });
    give(&mut client, at(2), &proven);
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Mapped { .. }]
    ));
    let (_, request) = asked(&mut client);
    let message = Message::parse(&request).unwrap();
    assert_eq!(
        message.verify(&key).unwrap().algorithm(),
        IntegrityAlgorithm::Sha1
    );

    // Over a stream nothing better can come.
    let mut client = new(short_term);
    client.request(START, Path::Stream(StreamId(1))).unwrap();
    let request = drain(&mut client)[0].1.clone();
    let bad = error(&request, 400);
    client.handle_stream(at(1), StreamId(1), &mut &bad[..]);
    assert_eq!(
        cause(&mut client),
        FailureCause::IntegrityViolated { hint: Some(400) }
    );
    assert_eq!(client.poll_timeout(), None);
}

fn long_term() -> BindingClient {
    new(|c| c.authentication = Authentication::LongTerm(Credentials::new("George", "wilma-6.7")))
}

fn long_term_server() -> BindingServer {
    let config = BindingServerConfig {
        auth: ServerAuth::LongTerm(LongTermServerConfig::new("example.com")),
        ..BindingServerConfig::default()
    };
    BindingServer::new(config, [9; 32]).unwrap()
}

/// One round: everything the client sends reaches the server, and the answers come back.
fn exchange(
    client: &mut BindingClient,
    server: &mut BindingServer,
    now: Instant,
    password: &str,
) -> Vec<Vec<u8>> {
    let key = |algorithm| {
        Key::long_term(algorithm, b"George", b"example.com", password.as_bytes()).unwrap()
    };
    let (md5, sha256) = (
        key(PasswordAlgorithmId::MD5),
        key(PasswordAlgorithmId::SHA256),
    );
    let mut requests = Vec::new();
    for (_, request) in drain(client) {
        let mut buf = [0; MAX_TRANSMIT];
        let answer = server.respond_with(now, there(), &request, &mut buf, |_, algorithm| {
            Some(if algorithm == PasswordAlgorithmId::MD5 {
                &md5
            } else {
                &sha256
            })
        });
        if let Some(answer) = answer {
            give(client, now, &buf[..answer.len]);
        }
        requests.push(request);
    }
    requests
}

// spec: SEC-C-01, SEC-S-06
#[test]
fn a_server_that_asks_for_nothing_is_believed_only_if_that_was_asked_for() {
    let credentials = Credentials::new("George", "wilma-6.7");
    for (authentication, believed) in [
        (Authentication::None, true),
        (Authentication::LongTermIfAsked(credentials.clone()), true),
        (Authentication::LongTerm(credentials), false),
    ] {
        let mut client = new(|c| c.authentication = authentication);
        let mut server = BindingServer::new(BindingServerConfig::default(), [9; 32]).unwrap();
        let request = client.request(START, Path::Datagram(here())).unwrap();
        exchange(&mut client, &mut server, at(1), "wilma-6.7");
        let told = events(&mut client);
        assert_eq!(matches!(told[..], [BindingEvent::Mapped { .. }]), believed);
        client.handle_timeout(at(40_000));
        let failed = BindingEvent::Failed {
            request,
            path: Path::Datagram(here()),
            cause: FailureCause::IntegrityViolated { hint: None },
        };
        let expected: &[BindingEvent] = if believed { &[] } else { &[failed] };
        assert_eq!(events(&mut client), expected);
    }
}

// spec: STUN-9.2.3.1-1, STUN-9.2.3.2-1, STUN-9.2.5-2, STUN-9.2.5-4, STUN-9.2-3
#[test]
fn long_term_credentials_are_given_when_asked_for_and_kept() {
    let (mut client, mut server) = (long_term(), long_term_server());
    client.request(START, Path::Datagram(here())).unwrap();
    let first = exchange(&mut client, &mut server, at(1), "wilma-6.7");
    assert!(!Message::parse(&first[0]).unwrap().has(Username::TYPE));
    let second = exchange(&mut client, &mut server, at(2), "wilma-6.7");
    assert!(Message::parse(&second[0]).unwrap().has(Username::TYPE));
    assert_ne!(id_of(&first[0]), id_of(&second[0]));
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Mapped { .. }]
    ));
    // The next one is proven at once; after ten minutes it takes a new nonce.
    client.request(at(3), Path::Datagram(here())).unwrap();
    exchange(&mut client, &mut server, at(3), "wilma-6.7");
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Mapped { .. }]
    ));
    client.request(at(700_000), Path::Datagram(here())).unwrap();
    let stale = exchange(&mut client, &mut server, at(700_000), "wilma-6.7");
    assert!(events(&mut client).is_empty());
    let fresh = exchange(&mut client, &mut server, at(700_000), "wilma-6.7");
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Mapped { .. }]
    ));
    let nonce = |bytes: &[u8]| {
        let message = Message::parse(bytes).unwrap();
        message.find::<Nonce<'_>>().unwrap().as_bytes().to_vec()
    };
    assert_ne!(nonce(&stale[0]), nonce(&fresh[0]));
    // Indications stay bare.
    client
        .indication(at(700_001), Path::Datagram(here()))
        .unwrap();
    assert_eq!(drain(&mut client)[0].1.len(), 20);
}

// spec: STUN-9.2.5-3, SEC-S-09
#[test]
fn a_wrong_password_is_tried_once() {
    let (mut client, mut server) = (long_term(), long_term_server());
    client.request(START, Path::Datagram(here())).unwrap();
    exchange(&mut client, &mut server, at(1), "other");
    exchange(&mut client, &mut server, at(2), "other");
    assert_eq!(
        cause(&mut client),
        FailureCause::Auth(AuthFailure::WrongCredentials)
    );
    assert!(drain(&mut client).is_empty());
}

// spec: STUN-9.2.5-6, STUN-9.2.5-7
#[test]
fn an_unproven_400_was_never_received() {
    for stream in [false, true] {
        let path = if stream {
            Path::Stream(StreamId(1))
        } else {
            Path::Datagram(here())
        };
        let mut client = long_term();
        client.request(START, path).unwrap();
        let give = |client: &mut BindingClient, now, data: &[u8]| {
            let received = match path {
                Path::Datagram(at) => client.handle_datagram(now, at, data),
                Path::Stream(id) => client.handle_stream(now, id, &mut &data[..]),
            };
            assert_eq!(received, Received::Consumed);
        };
        let first = drain(&mut client)[0].1.clone();
        let challenge = write(|buf| {
            Writer::new(buf, BINDING.error(), id_of(&first))
                .attribute(&ErrorCode::new(401))
                .attribute(&Realm::new("example.com").unwrap())
                .attribute(&Nonce::new("n").unwrap())
                .finish()
        });
        give(&mut client, at(1), &challenge);
        let second = drain(&mut client)[0].1.clone();
        give(&mut client, at(2), &error(&second, 400));
        assert!(events(&mut client).is_empty());
        run_out(&mut client);
        let timeout = FailureCause::Timeout { hint: Some(400) };
        assert_eq!(cause(&mut client), timeout);

        // Another error that nobody has proven counts as an attack.
        client.request(at(100_000), path).unwrap();
        let third = drain(&mut client)[0].1.clone();
        give(&mut client, at(100_001), &error(&third, 403));
        run_out(&mut client);
        let violated = FailureCause::IntegrityViolated { hint: Some(403) };
        assert_eq!(cause(&mut client), violated);
    }
}

// spec: 5389-12.1-1, 5389-12.2-3
#[test]
fn a_classic_server_is_understood() {
    let mut client = new(|c| c.classic = true);
    let (_, request) = asked(&mut client);
    assert_eq!(request.len(), 20, "no attributes");
    let old = |ty| (AttributeType(ty), [0, 1, 0, 1, 192, 0, 2, 1]);
    let response = |id| {
        write(|buf| {
            let mut writer =
                Writer::new(buf, BINDING.success(), id).attribute(&MappedAddress(addr(MAPPED)));
            for (ty, value) in [old(2), old(4), old(5), old(0xB)] {
                writer = writer.raw(ty, &value);
            }
            writer.finish()
        })
    };
    give(&mut client, at(1), &response(id_of(&request)));
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Mapped { mapped, .. }] if mapped == addr(MAPPED)
    ));
    for path in [
        Path::Datagram(over(Transport::Dtls)),
        Path::Stream(StreamId(1)),
    ] {
        let refused = client.request(at(2), path);
        assert_eq!(refused, Err(RequestError::ClassicTransport));
    }
    // Without that option those attributes are unknown and required.
    let mut client = plain();
    let (_, request) = asked(&mut client);
    give(&mut client, at(1), &response(id_of(&request)));
    assert!(matches!(
        cause(&mut client),
        FailureCause::UnknownAttribute(_)
    ));
}

// spec: 7982-3.1-1
#[test]
fn transmissions_are_counted_when_asked_for() {
    let mut client = new(|c| {
        c.count_transmissions = true;
        c.fingerprint = true;
    });
    let mut server = BindingServer::new(BindingServerConfig::default(), [9; 32]).unwrap();
    let (_, first) = asked(&mut client);
    client.handle_timeout(at(500));
    let second = drain(&mut client)[0].1.clone();
    let counter = |bytes: &[u8]| {
        let message = Message::parse(bytes).unwrap();
        assert_eq!(message.check_fingerprint(), Some(true));
        message.find::<TransmitCounter>().unwrap()
    };
    assert_eq!(
        counter(&first),
        TransmitCounter {
            request: 1,
            response: 0
        }
    );
    assert_eq!(
        counter(&second),
        TransmitCounter {
            request: 2,
            response: 0
        }
    );
    assert_eq!(id_of(&first), id_of(&second));
    let changed = first.iter().zip(&second).filter(|(a, b)| a != b).count();
    assert!(changed <= 1 + 4, "the count and the fingerprint");
    let mut buf = [0; MAX_TRANSMIT];
    let answer = server.respond(at(501), there(), &second, &mut buf).unwrap();
    give(&mut client, at(502), &buf[..answer.len]);
    assert!(matches!(
        events(&mut client)[..],
        [BindingEvent::Mapped {
            counter: Some(TransmitCounter {
                request: 2,
                response: 0
            }),
            rtt: None,
            ..
        }]
    ));
}

// spec: 7350-3-1
#[test]
fn dtls_is_repeated_like_udp() {
    let mut client = plain();
    client
        .request(START, Path::Datagram(over(Transport::Dtls)))
        .unwrap();
    assert_eq!(run_out(&mut client), 7);
}

// spec: SEC-G-12, SEC-G-08, SEC-G-07
#[test]
fn the_same_inputs_give_the_same_outputs_whatever_the_clock() {
    let run = || {
        let mut client = new(|c| {
            c.retransmit = RetransmitConfig {
                sends: 3,
                ..c.retransmit
            }
        });
        let mut trace = Vec::new();
        for nanos in [0, i64::MAX - 1, i64::MIN, 5, i64::MAX, 0] {
            let now = Instant::from_nanos(nanos);
            let _ = client.request(now, Path::Datagram(here()));
            let _ = client.keep_alive(now, Path::Datagram(here()), Some(Duration::MAX));
            client.handle_timeout(now);
            client.handle_icmp(now, here(), nanos == 5);
            trace.push((
                drain(&mut client),
                events(&mut client),
                client.poll_timeout(),
            ));
        }
        trace
    };
    assert_eq!(run(), run());
}
