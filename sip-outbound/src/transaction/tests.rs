#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use proptest::prelude::*;
use stun_proto::{FiveTuple, StreamId};

use super::*;
use crate::Instant;
use crate::wire::{Builder, Limits, Message, Name, ParseConfig, Request, Response, StatusCode};

const TCP: Path = Path::Stream(StreamId(1));

fn udp() -> Path {
    let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
    Path::Datagram(FiveTuple::udp(addr(5060), addr(5061)))
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn parse(text: &str) -> Message {
    Message::parse(text.as_bytes(), &ParseConfig::default()).unwrap()
}

fn branched(method: &str, branch: &str, host: &str) -> Request {
    let text = alloc::format!(
        "{method} sip:bob@example.com;x=1 SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch={branch};rport\r\n\
         Route: <sip:p;lr>,<sip:q;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=f\r\nTo: <sip:bob@example.com>\r\n\
         Call-ID: c\r\nCSeq: 7 {method}\r\nRequire: x\r\nAuthorization: Digest x\r\nl: 3\r\n\r\nabc"
    );
    Request::check(parse(&text), &Limits::DEFAULT).unwrap()
}

fn request(method: &str) -> Request {
    branched(method, "z9hG4bKa", "h:5060")
}

fn reply(request: &Request, code: u16) -> Message {
    let code = StatusCode::new(code).unwrap();
    Builder::reply(request, code, Some("t"))
        .finish(b"")
        .unwrap()
}

fn response(request: &Request, code: u16) -> Response {
    Response::check(reply(request, code), &Limits::DEFAULT).unwrap()
}

fn line(bytes: &[u8]) -> String {
    let text = core::str::from_utf8(bytes).unwrap();
    let first = text.split("\r\n").next().unwrap();
    match first.strip_prefix("SIP/2.0 ") {
        Some(rest) => rest.split(' ').next().unwrap().into(),
        None => first.split(' ').next().unwrap().into(),
    }
}

fn secs(now: Instant) -> String {
    alloc::format!(
        "{:.1}",
        now.duration_since(at(0)).as_millis() as f64 / 1000.0
    )
}

/// What comes out of a machine with these methods until nothing is due before `end`, in lines.
macro_rules! trace {
    ($machine:expr, $end:expr) => {{
        let machine = &mut $machine;
        let (mut out, mut now) = (Vec::<String>::new(), at(0));
        loop {
            while let Some(sent) = machine.poll_transmit() {
                out.push(alloc::format!("{} {}", secs(now), line(&sent.bytes)));
            }
            while let Some(event) = machine.poll_event() {
                let event = alloc::format!("{event:?}");
                let name = event.split('(').next().unwrap();
                if name == "Ended" {
                    continue;
                }
                out.push(alloc::format!("{} {name}", secs(now)));
            }
            match machine.poll_timeout() {
                Some(next) if next <= at($end) => {
                    assert!(next >= now);
                    now = next;
                    machine.handle_timeout(now);
                    assert!(machine.poll_timeout().is_none_or(|later| later > now));
                }
                _ => break,
            }
        }
        out.join(", ")
    }};
}

fn clients(timings: Timings) -> ClientTransactions {
    ClientTransactions::new(timings, 256, at(0))
}

fn servers(timings: Timings) -> ServerTransactions {
    ServerTransactions::new(timings, 1024, at(0))
}

// spec: SIP-17-1
#[test]
fn an_unanswered_invite_over_datagrams_is_sent_seven_times() {
    let mut machine = clients(Timings::RFC3261);
    machine.send(at(0), udp(), request("INVITE")).unwrap();
    assert_eq!(
        trace!(machine, 100_000),
        "0.0 INVITE, 0.5 INVITE, 1.5 INVITE, 3.5 INVITE, 7.5 INVITE, 15.5 INVITE, 31.5 INVITE, 32.0 TimedOut"
    );
    assert!(machine.is_empty());
}

// spec: SIP-17-1
#[test]
fn an_unanswered_request_over_datagrams_is_sent_eleven_times() {
    let mut machine = clients(Timings::RFC3261);
    machine.send(at(0), udp(), request("REGISTER")).unwrap();
    let trace = trace!(machine, 100_000).replace(" REGISTER", "");
    assert_eq!(
        trace,
        "0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5, 32.0 TimedOut"
    );
}

// spec: SIP-17-1
#[test]
fn nothing_is_sent_again_over_streams() {
    for method in ["INVITE", "REGISTER"] {
        let mut machine = clients(Timings::RFC3261);
        machine.send(at(0), TCP, request(method)).unwrap();
        assert_eq!(
            trace!(machine, 100_000),
            alloc::format!("0.0 {method}, 32.0 TimedOut")
        );
    }
}

// spec: PRI-3-4
#[test]
fn the_ims_profile_waits_four_times_as_long() {
    let mut machine = clients(Timings::IMS);
    machine.send(at(0), udp(), request("REGISTER")).unwrap();
    let trace = trace!(machine, 300_000).replace(" REGISTER", "");
    assert_eq!(
        trace,
        "0.0, 2.0, 6.0, 14.0, 30.0, 46.0, 62.0, 78.0, 94.0, 110.0, 126.0, 128.0 TimedOut"
    );
    let mut machine = servers(Timings::IMS);
    machine.handle_request(at(0), udp(), &request("MESSAGE"));
    assert_eq!(trace!(machine, 100_000), "14.0 100");
}

#[test]
fn a_provisional_response_slows_or_stops_resending() {
    let options = request("OPTIONS");
    let mut machine = clients(Timings::RFC3261);
    let id = machine.send(at(0), udp(), options.clone()).unwrap();
    assert_eq!(
        machine.handle_response(at(0), udp(), &response(&options, 100)),
        Some(id)
    );
    let trace = trace!(machine, 100_000).replace(" OPTIONS", "");
    assert_eq!(
        trace,
        "0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 32.0 TimedOut"
    );
    let invite = request("INVITE");
    let mut machine = clients(Timings::RFC3261);
    machine.send(at(0), udp(), invite.clone()).unwrap();
    machine.handle_response(at(0), udp(), &response(&invite, 100));
    assert_eq!(trace!(machine, 180_000), "0.0 INVITE");
}

// spec: SIP-17.1.3-1
#[test]
fn responses_find_their_request_by_branch_and_method() {
    let (invite, message) = (request("INVITE"), request("MESSAGE"));
    let other = branched("INVITE", "z9hG4bKb", "h:5060");
    let mut machine = clients(Timings::RFC3261);
    let first = machine.send(at(0), TCP, invite.clone()).unwrap();
    let second = machine.send(at(0), TCP, message.clone()).unwrap();
    let third = machine.send(at(0), TCP, other.clone()).unwrap();
    assert_eq!(
        machine.handle_response(at(1), TCP, &response(&message, 200)),
        Some(second)
    );
    assert_eq!(
        machine.handle_response(at(1), TCP, &response(&other, 180)),
        Some(third)
    );
    assert_eq!(
        machine.handle_response(at(1), TCP, &response(&invite, 180)),
        Some(first)
    );
}

// spec: SIP-18.1.1-1, ACC-7.2-1
#[test]
fn stray_responses_are_dropped() {
    let options = request("OPTIONS");
    let mut machine = clients(Timings::RFC3261);
    assert_eq!(
        machine.handle_response(at(0), TCP, &response(&options, 200)),
        None
    );
    let id = machine.send(at(0), TCP, options.clone()).unwrap();
    let elsewhere = Path::Stream(StreamId(2));
    assert_eq!(
        machine.handle_response(at(0), elsewhere, &response(&options, 200)),
        None
    );
    let foreign = branched("OPTIONS", "z9hG4bKa", "other:5060");
    assert_eq!(
        machine.handle_response(at(0), TCP, &response(&foreign, 200)),
        None
    );
    assert_eq!(
        machine.handle_response(at(0), TCP, &response(&options, 200)),
        Some(id)
    );
    assert_eq!(
        machine.handle_response(at(0), TCP, &response(&options, 200)),
        None
    );
}

// spec: SIP-17.1.1-1
#[test]
fn a_refusal_is_acknowledged_along_the_way_of_the_invite() {
    let invite = request("INVITE");
    for (path, times) in [(TCP, 1), (udp(), 2)] {
        let mut machine = clients(Timings::RFC3261);
        let id = machine.send(at(0), path, invite.clone()).unwrap();
        machine.poll_transmit();
        let busy = response(&invite, 486);
        assert_eq!(machine.handle_response(at(0), path, &busy), Some(id));
        let ack = machine.poll_transmit().unwrap();
        assert_eq!(ack.path, path);
        assert_eq!(
            core::str::from_utf8(&ack.bytes).unwrap(),
            "ACK sip:bob@example.com;x=1 SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch=z9hG4bKa;rport\r\n\
             Route: <sip:p;lr>,<sip:q;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=f\r\n\
             To: <sip:bob@example.com>;tag=t\r\nCall-ID: c\r\nCSeq: 7 ACK\r\nContent-Length: 0\r\n\r\n"
        );
        // Over datagrams each repetition is acknowledged again, for 32 s.
        assert_eq!(machine.handle_response(at(31_999), path, &busy), None);
        assert_eq!(usize::from(machine.poll_transmit().is_some()) + 1, times);
        machine.handle_timeout(at(32_000));
        assert!(machine.is_empty());
    }
}

// spec: ACC-7.2-1
#[test]
fn every_2xx_to_an_invite_reaches_the_user() {
    let invite = request("INVITE");
    let mut machine = clients(Timings::RFC3261);
    let id = machine.send(at(0), TCP, invite.clone()).unwrap();
    machine.poll_transmit();
    for ms in [0, 1000, 31_999] {
        assert_eq!(
            machine.handle_response(at(ms), TCP, &response(&invite, 200)),
            Some(id)
        );
    }
    assert_eq!(
        machine.handle_response(at(31_999), TCP, &response(&invite, 486)),
        None
    );
    assert!(machine.poll_transmit().is_none());
    machine.handle_timeout(at(32_000));
    assert_eq!(
        machine.handle_response(at(32_001), TCP, &response(&invite, 200)),
        None
    );
}

// spec: SIP-9.1-1
#[test]
fn cancel_waits_for_a_provisional_response_and_looks_like_the_invite() {
    let invite = request("INVITE");
    let mut machine = clients(Timings::RFC3261);
    let id = machine.send(at(0), TCP, invite.clone()).unwrap();
    machine.poll_transmit();
    machine.cancel(at(0), id);
    assert!(machine.poll_transmit().is_none());
    machine.handle_response(at(100), TCP, &response(&invite, 180));
    let cancel = machine.poll_transmit().unwrap();
    assert_eq!(cancel.path, TCP);
    assert_eq!(
        core::str::from_utf8(&cancel.bytes).unwrap(),
        "CANCEL sip:bob@example.com;x=1 SIP/2.0\r\nVia: SIP/2.0/UDP h:5060;branch=z9hG4bKa;rport\r\n\
         Route: <sip:p;lr>,<sip:q;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=f\r\n\
         To: <sip:bob@example.com>\r\nCall-ID: c\r\nCSeq: 7 CANCEL\r\nContent-Length: 0\r\n\r\n"
    );
    let cancel = Message::parse(&cancel.bytes, &ParseConfig::default()).unwrap();
    let cancel = Request::check(cancel, &Limits::DEFAULT).unwrap();
    machine.cancel(at(101), id);
    assert!(machine.poll_transmit().is_none());
    assert_eq!(
        machine.handle_response(at(200), TCP, &response(&cancel, 200)),
        None
    );
    assert_eq!(
        machine.handle_response(at(200), TCP, &response(&invite, 487)),
        Some(id)
    );
    assert_eq!(line(&machine.poll_transmit().unwrap().bytes), "ACK");
    assert!(machine.is_empty());
}

#[test]
fn a_cancelled_invite_that_is_never_answered_times_out() {
    let invite = request("INVITE");
    let mut machine = clients(Timings::RFC3261);
    let id = machine.send(at(0), TCP, invite.clone()).unwrap();
    machine.handle_response(at(0), TCP, &response(&invite, 180));
    machine.cancel(at(0), id);
    assert_eq!(
        trace!(machine, 100_000),
        "0.0 INVITE, 0.0 CANCEL, 32.0 TimedOut"
    );
    assert!(machine.is_empty());
}

// spec: SIP-16.6-4
#[test]
fn timer_c_cancels_an_invite_that_rings_too_long() {
    let invite = request("INVITE");
    let mut machine = clients(Timings::RFC3261);
    machine.send(at(0), TCP, invite.clone()).unwrap();
    machine.handle_response(at(0), TCP, &response(&invite, 100));
    machine.handle_response(at(0), TCP, &response(&invite, 183));
    assert!(Timings::RFC3261.ringing > Duration::from_secs(180));
    assert_eq!(
        trace!(machine, 300_000),
        "0.0 INVITE, 181.0 CANCEL, 213.0 TimedOut"
    );
    let mut machine = clients(Timings::RFC3261);
    machine.send(at(0), TCP, invite.clone()).unwrap();
    machine.handle_response(at(0), TCP, &response(&invite, 180));
    machine.handle_response(at(100_000), TCP, &response(&invite, 100));
    assert_eq!(machine.poll_timeout(), Some(at(181_000)));
    machine.handle_response(at(100_000), TCP, &response(&invite, 183));
    assert_eq!(machine.poll_timeout(), Some(at(281_000)));
}

// spec: SEC-P-08
#[test]
fn client_transactions_are_bounded_and_all_end() {
    let mut machine = ClientTransactions::new(Timings::RFC3261, 2, at(0));
    let send = |machine: &mut ClientTransactions, branch: &str| {
        machine.send(at(0), TCP, branched("OPTIONS", branch, "h"))
    };
    send(&mut machine, "z9hG4bK1").unwrap();
    assert_eq!(send(&mut machine, "z9hG4bK1"), Err(SendError::Branch));
    assert_eq!(send(&mut machine, "old"), Err(SendError::Branch));
    send(&mut machine, "z9hG4bK2").unwrap();
    assert_eq!(send(&mut machine, "z9hG4bK3"), Err(SendError::Full));
    assert_eq!(
        machine.send(at(0), TCP, request("ACK")),
        Err(SendError::Full)
    );
    machine.handle_timeout(at(40_000));
    assert!(machine.is_empty() && machine.poll_timeout().is_none());
    assert_eq!(
        machine.send(at(0), TCP, request("ACK")),
        Err(SendError::Ack)
    );
}

#[test]
fn a_lost_path_ends_what_waits_on_it() {
    let mut machine = clients(Timings::RFC3261);
    let lost = machine.send(at(0), TCP, request("OPTIONS")).unwrap();
    machine.send(at(0), udp(), request("INVITE")).unwrap();
    assert_eq!(machine.path_failed(TCP), [lost]);
    assert_eq!(machine.len(), 1);
    assert_eq!(machine.path_failed(TCP), []);
}

// spec: SIP-17.2.3-1
#[test]
fn requests_are_told_apart_by_branch_sender_and_method() {
    let mut machine = servers(Timings::RFC3261);
    let mut incoming = |request: &Request| machine.handle_request(at(0), udp(), request);
    let new = |incoming| matches!(incoming, Incoming::New(_));
    assert!(new(incoming(&request("OPTIONS"))));
    assert_eq!(incoming(&request("OPTIONS")), Incoming::Absorbed);
    assert_eq!(
        incoming(&branched("OPTIONS", "z9hG4bKa", "H:5060")),
        Incoming::Absorbed
    );
    assert!(new(incoming(&branched("OPTIONS", "z9hG4bKa", "h"))));
    assert!(new(incoming(&branched(
        "OPTIONS",
        "z9hG4bKa",
        "other:5060"
    ))));
    assert!(new(incoming(&request("MESSAGE"))));
    assert!(new(incoming(&branched("OPTIONS", "z9hG4bKb", "h:5060"))));
}

// spec: SIP-17.2.3-2
#[test]
fn old_requests_are_told_apart_by_their_fields() {
    let bytes = include_bytes!("../../tests/torture/rfc4475/inv2543.dat");
    let message = Message::parse(bytes, &ParseConfig::default()).unwrap();
    let invite = Request::check(message.clone(), &Limits::DEFAULT).unwrap();
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), udp(), &invite) else {
        panic!()
    };
    assert_eq!(
        machine.handle_request(at(0), udp(), &invite),
        Incoming::Absorbed
    );
    machine.respond(at(0), id, &reply(&invite, 486)).unwrap();
    let ack = core::str::from_utf8(bytes)
        .unwrap()
        .replace("INVITE", "ACK")
        .replace("user=phone\r\nCall", "user=phone;tag=t\r\nCall");
    let ack = Request::check(parse(&ack), &Limits::DEFAULT).unwrap();
    assert_eq!(
        machine.handle_request(at(0), udp(), &ack),
        Incoming::Absorbed
    );
    assert_eq!(trace!(machine, 100_000), "0.0 486");
    let next = core::str::from_utf8(bytes)
        .unwrap()
        .replace("56 INVITE", "57 INVITE");
    let next = Request::check(parse(&next), &Limits::DEFAULT).unwrap();
    assert!(matches!(
        machine.handle_request(at(0), udp(), &next),
        Incoming::New(_)
    ));
}

// spec: SIP-17.2.2-1
#[test]
fn resends_are_absorbed_until_there_is_a_response_to_repeat() {
    let options = request("OPTIONS");
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), udp(), &options) else {
        panic!()
    };
    assert_eq!(
        machine.handle_request(at(500), udp(), &options),
        Incoming::Absorbed
    );
    assert!(machine.poll_transmit().is_none());
    machine.respond(at(600), id, &reply(&options, 404)).unwrap();
    let first = machine.poll_transmit().unwrap();
    assert_eq!(
        machine.handle_request(at(1500), udp(), &options),
        Incoming::Absorbed
    );
    assert_eq!(machine.poll_transmit().unwrap().bytes, first.bytes);
    machine.handle_timeout(at(32_599));
    assert_eq!(machine.len(), 1);
    machine.handle_timeout(at(32_600));
    assert!(machine.is_empty());
}

// spec: NIT-4.1-1, NIT-4.1-2
#[test]
fn other_requests_get_no_provisional_but_100_and_that_late() {
    let message = request("MESSAGE");
    for path in [udp(), TCP] {
        let mut machine = servers(Timings::RFC3261);
        let Incoming::New(id) = machine.handle_request(at(0), path, &message) else {
            panic!()
        };
        let refused = machine.respond(at(0), id, &reply(&message, 180));
        assert_eq!(refused, Err(RespondError::Status));
        if path == udp() {
            machine
                .respond(at(1000), id, &reply(&message, 100))
                .unwrap();
            assert!(machine.poll_transmit().is_none());
        }
        assert_eq!(trace!(machine, 30_000), "3.5 100");
        machine
            .respond(at(30_000), id, &reply(&message, 200))
            .unwrap();
        assert_eq!(line(&machine.poll_transmit().unwrap().bytes), "200");
        assert_eq!(machine.is_empty(), path == TCP);
    }
}

// spec: NIT-4.2-1
#[test]
fn other_requests_never_get_408() {
    let message = request("MESSAGE");
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), udp(), &message) else {
        panic!()
    };
    assert_eq!(
        machine.respond(at(0), id, &reply(&message, 408)),
        Err(RespondError::Status)
    );
    assert_eq!(trace!(machine, 100_000), "3.5 100, 32.0 Abandoned");
    assert!(machine.is_empty());
}

#[test]
fn an_invite_gets_100_soon_and_408_at_last() {
    let invite = request("INVITE");
    let mut machine = servers(Timings::RFC3261);
    machine.handle_request(at(0), TCP, &invite);
    assert_eq!(
        trace!(machine, 2_000_000),
        "0.2 100, 900.0 408, 900.0 Abandoned, 932.0 NoAck"
    );
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), TCP, &invite) else {
        panic!()
    };
    machine.respond(at(0), id, &reply(&invite, 180)).unwrap();
    assert_eq!(trace!(machine, 10_000), "0.0 180");
    machine.handle_request(at(10_000), TCP, &invite);
    assert_eq!(line(&machine.poll_transmit().unwrap().bytes), "180");
}

// spec: SIP-17-1
#[test]
fn a_refusal_is_sent_again_until_acknowledged_over_datagrams_only() {
    let invite = request("INVITE");
    let refused = |path| {
        let mut machine = servers(Timings::RFC3261);
        let Incoming::New(id) = machine.handle_request(at(0), path, &invite) else {
            panic!()
        };
        machine.respond(at(0), id, &reply(&invite, 486)).unwrap();
        machine
    };
    let mut machine = refused(udp());
    let trace = trace!(machine, 100_000).replace(" 486", "");
    assert_eq!(
        trace,
        "0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5, 32.0 NoAck"
    );
    let mut machine = refused(TCP);
    assert_eq!(trace!(machine, 100_000), "0.0 486, 32.0 NoAck");
    let mut machine = refused(udp());
    assert_eq!(
        machine.handle_request(at(0), udp(), &request("ACK")),
        Incoming::Absorbed
    );
    assert_eq!(
        machine.handle_request(at(0), udp(), &invite),
        Incoming::Absorbed
    );
    assert_eq!(trace!(machine, 4_999), "0.0 486");
    assert_eq!(machine.len(), 1);
    machine.handle_timeout(at(5_000));
    assert!(machine.is_empty());
    let mut machine = refused(TCP);
    machine.handle_request(at(0), TCP, &request("ACK"));
    assert!(machine.is_empty());
}

// spec: ACC-7.1-1
#[test]
fn after_2xx_resends_are_absorbed_more_2xx_go_out_and_ack_goes_up() {
    let invite = request("INVITE");
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), udp(), &invite) else {
        panic!()
    };
    machine.respond(at(0), id, &reply(&invite, 200)).unwrap();
    assert!(machine.poll_transmit().is_some());
    assert_eq!(
        machine.handle_request(at(1), udp(), &invite),
        Incoming::Absorbed
    );
    assert!(machine.poll_transmit().is_none());
    machine
        .respond(at(31_000), id, &reply(&invite, 200))
        .unwrap();
    assert!(machine.poll_transmit().is_some());
    assert_eq!(
        machine.respond(at(31_000), id, &reply(&invite, 486)),
        Err(RespondError::Answered)
    );
    assert_eq!(
        machine.handle_request(at(1), udp(), &request("ACK")),
        Incoming::Ack
    );
    let own_branch = branched("ACK", "z9hG4bKz", "h:5060");
    assert_eq!(
        machine.handle_request(at(1), udp(), &own_branch),
        Incoming::Ack
    );
    machine.handle_timeout(at(32_000));
    assert_eq!(
        machine.respond(at(32_000), id, &reply(&invite, 200)),
        Err(RespondError::Unknown)
    );
}

// spec: SIP-9.2-1
#[test]
fn a_cancel_is_answered_and_found_its_invite_or_is_new() {
    let (invite, cancel) = (request("INVITE"), request("CANCEL"));
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), TCP, &invite) else {
        panic!()
    };
    assert_eq!(
        machine.handle_request(at(0), TCP, &cancel),
        Incoming::Cancelled(id)
    );
    assert_eq!(line(&machine.poll_transmit().unwrap().bytes), "200");
    machine.respond(at(0), id, &reply(&invite, 487)).unwrap();
    assert_eq!(line(&machine.poll_transmit().unwrap().bytes), "487");
    assert_eq!(
        machine.handle_request(at(0), TCP, &cancel),
        Incoming::Absorbed
    );
    assert_eq!(line(&machine.poll_transmit().unwrap().bytes), "200");
    let unknown = branched("CANCEL", "z9hG4bKother", "h:5060");
    let Incoming::New(id) = machine.handle_request(at(0), TCP, &unknown) else {
        panic!()
    };
    machine.respond(at(0), id, &reply(&unknown, 481)).unwrap();
}

// spec: SEC-P-07
#[test]
fn there_is_one_final_response_and_none_to_ack() {
    let options = request("OPTIONS");
    let mut machine = servers(Timings::RFC3261);
    let Incoming::New(id) = machine.handle_request(at(0), udp(), &options) else {
        panic!()
    };
    machine.respond(at(0), id, &reply(&options, 200)).unwrap();
    assert_eq!(
        machine.respond(at(0), id, &reply(&options, 200)),
        Err(RespondError::Answered)
    );
    let other = branched("OPTIONS", "z9hG4bKz", "h:5060");
    let Incoming::New(id) = machine.handle_request(at(0), udp(), &other) else {
        panic!()
    };
    assert_eq!(
        machine.respond(at(0), id, &reply(&options, 200)),
        Err(RespondError::Foreign)
    );
    machine.poll_transmit();
    assert_eq!(
        machine.handle_request(at(0), TCP, &request("ACK")),
        Incoming::Ack
    );
    machine.answer_statelessly(TCP, &request("ACK"), StatusCode::BAD_REQUEST);
    assert!(machine.poll_transmit().is_none());
}

// spec: SEC-P-08, SEC-G-05
#[test]
fn a_flood_of_requests_meets_503_and_everything_ends() {
    let mut machine = ServerTransactions::new(Timings::RFC3261, 10, at(0));
    for n in 0..1000 {
        let register = branched("REGISTER", &alloc::format!("z9hG4bK{n}"), "h");
        let incoming = machine.handle_request(at(0), udp(), &register);
        assert_eq!(incoming == Incoming::Overload, n >= 10);
        assert_eq!(machine.poll_transmit().is_some(), n >= 10);
    }
    let invite = branched("INVITE", "z9hG4bKinvite", "h");
    assert_eq!(
        machine.handle_request(at(0), udp(), &invite),
        Incoming::Overload
    );
    machine.handle_timeout(at(100_000));
    assert!(machine.is_empty() && machine.poll_timeout().is_none());
    assert!(matches!(
        machine.handle_request(at(0), udp(), &invite),
        Incoming::New(_)
    ));
}

// spec: SIP-8.2.6-1
#[test]
fn trying_has_no_tag_of_ours() {
    let invite = request("INVITE");
    let mut machine = servers(Timings::RFC3261);
    machine.handle_request(at(0), TCP, &invite);
    machine.handle_timeout(at(200));
    let trying = machine.poll_transmit().unwrap().bytes;
    let trying = Message::parse(&trying, &ParseConfig::default()).unwrap();
    assert_eq!(trying.only(Name::TO), Ok("<sip:bob@example.com>"));
}

proptest! {
    // spec: SEC-G-07
    #[test]
    fn any_order_of_inputs_leaves_no_deadline_behind_and_ends(
        steps in proptest::collection::vec((0_u8..8, 0_u64..60_000, 0_u8..3), 0..40),
        datagram in any::<bool>(),
    ) {
        let path = if datagram { udp() } else { TCP };
        let (mut clients, mut servers) = (clients(Timings::RFC3261), servers(Timings::RFC3261));
        let (mut now, mut ids) = (0, Vec::new());
        for (step, wait, branch) in steps {
            now += wait;
            let method = if branch == 0 { "INVITE" } else { "OPTIONS" };
            let request = branched(method, &alloc::format!("z9hG4bK{branch}"), "h");
            let code = [100, 180, 200, 408, 486][usize::from(step) % 5];
            match step {
                0 => {
                    if let Incoming::New(id) = servers.handle_request(at(now), path, &request) {
                        ids.push((id, request));
                    }
                }
                1 => { servers.handle_request(at(now), path, &branched("ACK", "z9hG4bK0", "h")); }
                2 => { servers.handle_request(at(now), path, &branched("CANCEL", "z9hG4bK0", "h")); }
                3 => if let Some((id, request)) = ids.last() {
                    let _ = servers.respond(at(now), *id, &reply(request, code));
                },
                4 => { let _ = clients.send(at(now), path, request); }
                5 => { clients.handle_response(at(now), path, &response(&request, code)); }
                6 => { clients.path_failed(path); }
                _ => {}
            }
            clients.handle_timeout(at(now));
            servers.handle_timeout(at(now));
            while clients.poll_transmit().is_some() || servers.poll_transmit().is_some() {}
            prop_assert!(clients.poll_timeout().is_none_or(|next| next > at(now)));
            prop_assert!(servers.poll_timeout().is_none_or(|next| next > at(now)));
        }
        let mut end = at(now);
        while let Some(next) = clients.poll_timeout().into_iter().chain(servers.poll_timeout()).min() {
            prop_assert!(next > end);
            end = next;
            clients.handle_timeout(end);
            servers.handle_timeout(end);
        }
        prop_assert!(clients.is_empty() && servers.is_empty());
    }
}

/// Drains a machine; how often each transaction was said to have ended.
macro_rules! endings {
    ($machine:expr, $event:ident) => {{
        let mut ended = alloc::collections::BTreeMap::new();
        let mut last = 0_u64;
        loop {
            while $machine.poll_transmit().is_some() {}
            while let Some(event) = $machine.poll_event() {
                if let $event::Ended(id) = event {
                    *ended.entry(id).or_insert(0) += 1;
                }
            }
            match $machine.poll_timeout() {
                Some(next) => $machine.handle_timeout(next),
                None => break,
            }
            last += 1;
            assert!(last < 1000);
        }
        assert!(ended.values().all(|count| *count == 1), "{ended:?}");
        ended.len()
    }};
}

#[test]
fn the_end_of_each_transaction_is_said_once() {
    for path in [TCP, udp()] {
        let mut machine = clients(Timings::RFC3261);
        let mut count = 0;
        for (method, code) in [
            ("INVITE", None),
            ("INVITE", Some(200)),
            ("INVITE", Some(486)),
            ("OPTIONS", None),
            ("OPTIONS", Some(200)),
        ] {
            let request = branched(method, &alloc::format!("z9hG4bKe{count}"), "h:5060");
            let id = machine.send(at(0), path, request.clone()).unwrap();
            if let Some(code) = code {
                let seen = machine.handle_response(at(0), path, &response(&request, code));
                assert_eq!(seen, Some(id));
            }
            count += 1;
        }
        // One is cancelled: the CANCEL is nobody's.
        let request = branched("INVITE", "z9hG4bKx", "h:5060");
        let id = machine.send(at(0), path, request.clone()).unwrap();
        machine.handle_response(at(0), path, &response(&request, 180));
        machine.cancel(at(0), id);
        let forgotten = branched("OPTIONS", "z9hG4bKy", "h:5060");
        let id = machine.send(at(0), path, forgotten).unwrap();
        machine.forget(id);
        assert_eq!(endings!(machine, ClientEvent), count + 2);

        let mut machine = servers(Timings::RFC3261);
        for (n, (method, code)) in [
            ("INVITE", None),
            ("INVITE", Some(200)),
            ("INVITE", Some(486)),
            ("OPTIONS", None),
            ("OPTIONS", Some(200)),
        ]
        .into_iter()
        .enumerate()
        {
            let request = branched(method, &alloc::format!("z9hG4bKe{n}"), "h:5060");
            let Incoming::New(id) = machine.handle_request(at(0), path, &request) else {
                panic!()
            };
            if let Some(code) = code {
                machine.respond(at(0), id, &reply(&request, code)).unwrap();
            }
        }
        assert_eq!(endings!(machine, ServerEvent), 5);
    }
}

#[test]
fn a_lost_path_takes_its_own_transactions_only() {
    let mut machine = clients(Timings::RFC3261);
    for n in 0..10 {
        let path = Path::Stream(StreamId(n % 2));
        let request = branched("OPTIONS", &alloc::format!("z9hG4bKe{n}"), "h:5060");
        machine.send(at(0), path, request).unwrap();
    }
    let lost = machine.path_failed(Path::Stream(StreamId(1)));
    assert_eq!(lost.len(), 5);
    assert_eq!(machine.len(), 5);
    assert_eq!(machine.by_path_len(), 5);
    assert!(machine.path_failed(Path::Stream(StreamId(1))).is_empty());
    while machine.poll_timeout().is_some_and(|next| {
        machine.handle_timeout(next);
        true
    }) {}
    assert_eq!((machine.len(), machine.by_path_len()), (0, 0));
}
