//! Taking the allocation to another path (RFC 8016).

use super::*;
use crate::wire::MobilityTicket;

fn ticket(seen: &Seen) -> Option<Vec<u8>> {
    let ticket: Option<MobilityTicket<'_>> = seen.message().find();
    ticket.map(|ticket| ticket.0.to_vec())
}

fn mobile(path: Path, transport: Transport) -> Rig {
    let mut rig = Rig::with(config(), path, transport);
    let options = AllocateOptions {
        mobility: true,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    assert_eq!(ticket(&request), Some(Vec::new()));
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&Lifetime(600))
            .attribute(&MobilityTicket(b"ticket-1"))
    });
    assert!(matches!(
        rig.event(),
        Some(Event::Allocated { mobile: true, .. })
    ));
    rig.permit("192.0.2.150");
    rig
}

fn moved_ok(rig: &mut Rig, request: &Seen, next: &[u8]) {
    rig.answer(request, Class::Success, true, |w| {
        w.attribute(&Lifetime(600)).attribute(&MobilityTicket(next))
    });
}

fn send(rig: &mut Rig) -> Result<Path, SendError> {
    let mut buf = [0; 100];
    let peer = addr("192.0.2.150:1");
    let sent = rig.client.send(rig.now, peer, b"x", &mut buf)?;
    Ok(sent.to)
}

// spec: 8016-3.1.1-1, 8016-3.2.1-1, 8016-3.2.2-4, 8016-3.2.2-2
#[test]
fn make_before_break() {
    let (old, new) = (udp_path(40000), udp_path(50000));
    let mut rig = mobile(old, Transport::Udp);
    let refresh = rig
        .advance(540)
        .into_iter()
        .find(|s| s.method() == wire::REFRESH);
    assert_eq!(ticket(&refresh.unwrap()), None, "not on the same path");
    let mut rig = mobile(old, Transport::Udp);
    let same = rig.client.path_changed(rig.now, old, Transport::Udp);
    assert_eq!(same, Err(ClientError::State));
    rig.client
        .path_changed(rig.now, new, Transport::Udp)
        .unwrap();
    let request = rig.request();
    assert_eq!((request.to, request.method()), (new, wire::REFRESH));
    assert_eq!(ticket(&request), Some(b"ticket-1".to_vec()));
    // The new address is challenged on its own; data still takes the old path.
    assert_eq!(send(&mut rig), Ok(old));
    rig.nonce = "nonce-2";
    rig.challenge(&request, 438);
    let again = rig.request();
    assert_eq!(
        (again.to, ticket(&again)),
        (new, Some(b"ticket-1".to_vec()))
    );
    assert_eq!(send(&mut rig), Ok(old));
    moved_ok(&mut rig, &again, b"ticket-2");
    assert_eq!(rig.event(), Some(Event::PathChanged));
    assert_eq!(send(&mut rig), Ok(new));
    // Data that the server had sent to the old path is still taken in.
    assert!(rig.data_from("192.0.2.150:1", b"late").is_some());
    rig.path = new;
    assert!(rig.data_from("192.0.2.150:1", b"early").is_some());
    // Permissions go on over the new path, and the next move uses the next ticket.
    let seen = rig.run(300, |rig, request| rig.serve(request));
    assert!(seen.iter().all(|s| s.to == new));
    assert_eq!(rig.event(), None);
    rig.client
        .path_changed(rig.now, udp_path(60000), Transport::Udp)
        .unwrap();
    assert_eq!(ticket(&rig.request()), Some(b"ticket-2".to_vec()));
}

// spec: 8016-3.2.2-4
#[test]
fn a_failed_move_leaves_the_old_path_in_use() {
    let (old, new) = (udp_path(40000), udp_path(50000));
    for code in [400, 405, 437, 441] {
        let mut rig = mobile(old, Transport::Udp);
        rig.client
            .path_changed(rig.now, new, Transport::Udp)
            .unwrap();
        let request = rig.request();
        rig.error(&request, code);
        let cause = Cause::Code(code);
        assert_eq!(rig.event(), Some(Event::PathChangeFailed { cause }));
        assert_eq!(send(&mut rig), Ok(old));
        let seen = rig.run(1000, |rig, request| rig.serve(request));
        assert!(seen.iter().all(|s| s.to == old));
        assert_eq!(rig.event(), None);
    }
    let mut rig = mobile(old, Transport::Udp);
    rig.client
        .path_changed(rig.now, new, Transport::Udp)
        .unwrap();
    rig.advance(40);
    let cause = Cause::Timeout;
    assert_eq!(rig.event(), Some(Event::PathChangeFailed { cause }));
    assert_eq!(send(&mut rig), Ok(old));
}

// Trap of break-before-make: everything waits for the new path.
// spec: TURN-STR-4, 8016-3.2.2-2
#[test]
fn break_before_make() {
    let (old, new) = (Path::Stream(StreamId(1)), Path::Stream(StreamId(2)));
    let mut rig = mobile(old, Transport::Tls);
    rig.now = at(100);
    rig.client.handle_stream_closed(rig.now, StreamId(1));
    assert_eq!(rig.event(), Some(Event::PathLost));
    assert_eq!(send(&mut rig), Err(SendError::NoAllocation));
    rig.client
        .create_permission(rig.now, ip("203.0.113.1"))
        .unwrap();
    assert!(rig.advance(200).is_empty());
    rig.client
        .path_changed(rig.now, new, Transport::Tls)
        .unwrap();
    let request = rig.request();
    assert_eq!(request.to, new);
    moved_ok(&mut rig, &request, b"ticket-2");
    assert_eq!(rig.event(), Some(Event::PathChanged));
    assert_eq!(send(&mut rig), Ok(new));
    rig.path = new;
    let waiting = rig.request();
    assert_eq!(
        (waiting.to, waiting.method()),
        (new, wire::CREATE_PERMISSION)
    );
    rig.ok(&waiting);
    let peer = ip("203.0.113.1");
    assert_eq!(rig.event(), Some(Event::PermissionCreated { peer }));
    let seen = rig.run(2000, |rig, request| rig.serve(request));
    assert!(seen.iter().all(|s| s.to == new));
    assert_eq!(rig.event(), None);
}

#[test]
fn an_allocation_without_path_ends_with_its_lifetime() {
    let mut rig = mobile(Path::Stream(StreamId(1)), Transport::Tls);
    rig.client.handle_stream_closed(rig.now, StreamId(1));
    rig.event();
    rig.advance(599);
    assert!(
        rig.events()
            .iter()
            .all(|e| !matches!(e, Event::AllocationLost { .. }))
    );
    rig.advance(600);
    assert!(matches!(
        rig.events().last(),
        Some(Event::AllocationLost { .. })
    ));
    rig.assert_silent();
    // Or when the server has forgotten it.
    let mut rig = mobile(Path::Stream(StreamId(1)), Transport::Tls);
    rig.client.handle_stream_closed(rig.now, StreamId(1));
    rig.client
        .path_changed(rig.now, Path::Stream(StreamId(2)), Transport::Tls)
        .unwrap();
    let request = rig.request();
    rig.error(&request, 437);
    let cause = Cause::Code(437);
    assert_eq!(
        rig.events()[1..],
        [
            Event::PathChangeFailed { cause },
            Event::AllocationLost { cause }
        ]
    );
    rig.assert_silent();
}

// spec: 8016-3.1.2-1
#[test]
fn a_server_that_forbids_tickets_is_asked_without() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        mobility: true,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    rig.error(&request, 405);
    let again = rig.request();
    assert_eq!(ticket(&again), None);
    rig.allocate_ok(&again);
    assert!(matches!(
        rig.event(),
        Some(Event::Allocated { mobile: false, .. })
    ));
    let moved = rig
        .client
        .path_changed(rig.now, udp_path(50000), Transport::Udp);
    assert_eq!(moved, Err(ClientError::State));
}

// spec: TURN-21.1.6-1
#[test]
fn a_private_username_does_not_move_into_the_open() {
    let mut rig = mobile(Path::Stream(StreamId(1)), Transport::Tls);
    let private = ClientConfig {
        private_username: true,
        ..config()
    };
    rig.client.core.config = private;
    let moved = rig
        .client
        .path_changed(rig.now, udp_path(50000), Transport::Udp);
    assert_eq!(moved, Err(ClientError::Options));
    rig.client
        .path_changed(rig.now, Path::Stream(StreamId(2)), Transport::Tls)
        .unwrap();
}

#[test]
fn a_second_change_replaces_the_first() {
    let mut rig = mobile(udp_path(40000), Transport::Udp);
    rig.client
        .path_changed(rig.now, udp_path(50000), Transport::Udp)
        .unwrap();
    let first = rig.request();
    rig.client
        .path_changed(rig.now, udp_path(60000), Transport::Udp)
        .unwrap();
    let second = rig.request();
    moved_ok(&mut rig, &first, b"ticket-x");
    assert_eq!(rig.event(), None);
    moved_ok(&mut rig, &second, b"ticket-2");
    assert_eq!(rig.event(), Some(Event::PathChanged));
    assert_eq!(send(&mut rig), Ok(udp_path(60000)));
}
