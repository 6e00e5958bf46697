//! The host with real sockets on loopback, and this workspace's client before it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use turn_proto::RelayProtocol;
use turn_proto::client::{AllocateOptions, Event};
use turn_proto::server::Admission;

use super::rig::{
    LOOPBACK, Ue, at, config, connect, eventually, keys, refusal, start, tcp_echo, udp_echo,
};
use super::*;

#[test]
fn data_goes_both_ways_through_every_worker() {
    let host = start(20_000..=20_199, Quota::new(100, 100));
    let peer = udp_echo();
    let mut clients: Vec<Ue> = (0..24)
        .map(|_| Ue::new(&host, Transport::Udp, "alice"))
        .collect();
    for client in &mut clients {
        client.allocate(RelayProtocol::Udp).unwrap();
        client.bind(peer);
    }
    for (n, client) in clients.iter_mut().enumerate() {
        // As many as go in one run, of one length but the last.
        for i in 0..20 {
            client.send(peer, &vec![n as u8; if i < 19 { 600 } else { 5 }]);
        }
        for i in 0..20 {
            assert_eq!(
                client.receive(),
                vec![n as u8; if i < 19 { 600 } else { 5 }]
            );
        }
    }
    assert_eq!(host.quota().allocations(), 24);
    eventually(&host, |all| {
        all.iter().all(|s| s.allocations > 0)
            && all.iter().map(|s| s.allocations).sum::<usize>() == 24
    });
    let lost = |s: &Snapshot| s.counts.unsent + s.counts.dropped;
    assert_eq!(host.snapshots().iter().map(lost).sum::<u64>(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn reserved_ports_are_found_where_clients_are_spread_by_address() {
    let mut config = config(21_700..=21_899);
    config.spread = sockets::Spread::Address;
    config.workers = 4;
    let host = Host::start(config, keys("alice"), Quota::new(100, 100)).unwrap();
    let mut kept = Vec::new();
    for _ in 0..12 {
        let mut client = Ue::new(&host, Transport::Udp, "alice");
        let options = AllocateOptions {
            even_port: Some(true),
            ..AllocateOptions::default()
        };
        client.client.allocate(now(), options).unwrap();
        let (relayed, token) = client.until(|event| match event {
            Event::Allocated {
                relayed,
                reservation,
                ..
            } => Some((*relayed, *reservation)),
            _ => None,
        });
        let mut other = Ue::new(&host, Transport::Udp, "alice");
        let options = AllocateOptions {
            reservation: token,
            ..AllocateOptions::default()
        };
        other.client.allocate(now(), options).unwrap();
        let above = other.until(|event| match event {
            Event::Allocated { relayed, .. } => Some(relayed.port()),
            _ => None,
        });
        assert_eq!(above, relayed.port() + 1);
        kept.push((client, other));
    }
    // All of them have one address, and so one worker.
    eventually(&host, |all| {
        let busy = all.iter().filter(|s| s.allocations > 0).count();
        busy == 1 && all.iter().any(|s| s.allocations == 24)
    });
}

#[cfg(target_os = "linux")]
#[test]
fn clients_with_many_addresses_are_spread_over_all_workers() {
    let mut config = config(21_900..=21_999);
    config.spread = sockets::Spread::Address;
    let host = Host::start(config, keys("alice"), Quota::new(100, 100)).unwrap();
    let mut sockets = Vec::new();
    for n in 1..=40 {
        let from = UdpSocket::bind((Ipv4Addr::new(127, 0, 7, n), 0)).unwrap();
        from.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        from.send_to(
            b"\0\x03\0\0\x21\x12\xa4\x42abcdefghijkl",
            at(&host, Transport::Udp),
        )
        .unwrap();
        from.recv(&mut [0; 200]).unwrap();
        let tcp = connect(at(&host, Transport::Tcp));
        sockets.push((from, tcp));
    }
    eventually(&host, |all| {
        let asked: Vec<u64> = all.iter().map(|s| s.stats.unauthenticated).collect();
        let streams: Vec<usize> = all.iter().map(|s| s.streams).collect();
        asked.iter().sum::<u64>() == 40
            && asked.iter().all(|n| *n >= 8)
            // These all came from one address.
            && (streams == [40, 0] || streams == [0, 40])
    });
}

#[test]
fn a_client_gets_relays_of_both_families() {
    let mut config = config(22_000..=22_199);
    config.relays.push(relay("::1"));
    let host = Host::start(config, keys("alice"), Quota::new(10, 10)).unwrap();
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    let peer = socket.local_addr().unwrap();
    let mut client = Ue::new(&host, Transport::Udp, "alice");
    let options = AllocateOptions {
        additional_v6: true,
        ..AllocateOptions::default()
    };
    client.client.allocate(now(), options).unwrap();
    let additional = client.until(|event| match event {
        Event::Allocated { additional, .. } => Some(*additional),
        _ => None,
    });
    client.bind(peer);
    client.send(peer, b"over IPv6");
    let mut buf = [0; 100];
    let (len, from) = socket.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..len], Some(from)), (&b"over IPv6"[..], additional));
    socket.send_to(b"and back", from).unwrap();
    assert_eq!(client.receive(), b"and back");
    client.close();
    assert_eq!(host.quota().allocations(), 0);
}

#[test]
fn an_empty_and_the_longest_datagram_pass() {
    let host = start(20_200..=20_299, Quota::new(100, 100));
    let peer = udp_echo();
    let mut client = Ue::new(&host, Transport::Udp, "alice");
    client.allocate(RelayProtocol::Udp).unwrap();
    client.bind(peer);
    client.send(peer, b"");
    assert_eq!(client.receive(), b"");
    client.send(peer, &[7; 1900]);
    assert_eq!(client.receive(), [7; 1900]);
}

#[test]
fn a_user_has_one_quota_with_all_workers() {
    let host = start(20_300..=20_499, Quota::new(3, 100));
    let mut clients: Vec<Ue> = (0..12)
        .map(|_| Ue::new(&host, Transport::Udp, "alice"))
        .collect();
    let mut granted = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        match client.allocate(RelayProtocol::Udp) {
            Ok(_) => granted.push(n),
            Err(cause) => assert!(refusal(cause).contains("486"), "{cause}"),
        }
    }
    assert_eq!(granted, [0, 1, 2]);
    clients[1].close();
    let mut another = Ue::new(&host, Transport::Udp, "alice");
    another.allocate(RelayProtocol::Udp).unwrap();
}

#[test]
fn a_server_that_is_being_emptied_keeps_those_it_has() {
    let mut host = start(20_500..=20_599, Quota::new(10, 10));
    let peer = udp_echo();
    let mut old = Ue::new(&host, Transport::Udp, "alice");
    old.allocate(RelayProtocol::Udp).unwrap();
    host.quota().close(Admission::NoCapacity);
    let mut new = Ue::new(&host, Transport::Udp, "alice");
    let cause = new.allocate(RelayProtocol::Udp).unwrap_err();
    assert!(refusal(cause).contains("508"), "{cause}");
    old.bind(peer);
    old.send(peer, b"still there");
    assert_eq!(old.receive(), b"still there");
    old.close();
    assert_eq!(host.quota().allocations(), 0);
    host.stop();
}

#[test]
fn new_clients_are_sent_elsewhere_and_no_longer() {
    let host = start(21_400..=21_499, Quota::new(10, 10));
    let elsewhere: SocketAddr = "9.9.9.9:3478".parse().unwrap();
    host.tell(|| {
        Command::Redirect(Some(Redirect {
            v4: Some(elsewhere),
            ..Redirect::default()
        }))
    });
    let mut client = Ue::new(&host, Transport::Udp, "alice");
    client
        .client
        .allocate(now(), AllocateOptions::default())
        .unwrap();
    let told = client.until(|event| match event {
        Event::AllocateFailed { alternate, .. } => Some(*alternate),
        _ => None,
    });
    assert_eq!(told, Some(elsewhere));
    host.tell(|| Command::Redirect(None));
    let mut client = Ue::new(&host, Transport::Udp, "alice");
    client.allocate(RelayProtocol::Udp).unwrap();
}

#[test]
fn users_are_exchanged_while_the_server_runs() {
    let host = start(20_600..=20_699, Quota::new(10, 10));
    let mut alice = Ue::new(&host, Transport::Udp, "alice");
    alice.allocate(RelayProtocol::Udp).unwrap();
    let fresh = Arc::new(keys("bob"));
    host.tell(|| Command::Users(Arc::clone(&fresh)));
    let mut bob = Ue::new(&host, Transport::Udp, "bob");
    bob.allocate(RelayProtocol::Udp).unwrap();
    let mut again = Ue::new(&host, Transport::Udp, "alice");
    again.allocate(RelayProtocol::Udp).unwrap_err();
}

#[test]
fn a_data_connection_finds_the_worker_of_its_peer() {
    let host = start(20_700..=20_899, Quota::new(10, 10));
    let peer = tcp_echo();
    let mut client = Ue::new(&host, Transport::Tcp, "alice");
    client.allocate(RelayProtocol::Tcp).unwrap();
    for n in 0..16u8 {
        let (mut tcp, behind) =
            client.connect_peer(SocketAddr::from(([127, 0, 0, 2 + n], peer.port())));
        assert_eq!(behind, b"");
        let sent = vec![n; 300_000];
        let mut writer = tcp.try_clone().unwrap();
        let whole = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&whole).unwrap();
            // The end goes round behind the data.
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        tcp.read_to_end(&mut back).unwrap();
        writing.join().unwrap();
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    }
    eventually(&host, |all| {
        let handed: u64 = all.iter().map(|s| s.counts.handed_over).sum();
        (1..16).contains(&handed) && all.iter().all(|s| s.peers == 0)
    });
}

#[test]
fn peers_connect_to_a_relay_and_bytes_before_the_splice_are_kept() {
    let host = start(20_900..=20_999, Quota::new(10, 10));
    let mut client = Ue::new(&host, Transport::Tcp, "alice");
    let relayed = client.allocate(RelayProtocol::Tcp).unwrap();
    // Without permission the connection is closed at once.
    let mut stranger = TcpStream::connect(relayed).unwrap();
    assert!(matches!(stranger.read(&mut [0; 10]), Ok(0) | Err(_)));
    client.client.create_permission(now(), LOOPBACK).unwrap();
    client.until(|event| matches!(event, Event::PermissionCreated { .. }).then_some(()));
    let mut peer = TcpStream::connect(relayed).unwrap();
    peer.write_all(b"early").unwrap();
    let (mut tcp, mut got) = client.ready();
    while got.len() < 5 {
        let mut buf = [0; 10];
        let len = tcp.read(&mut buf).unwrap();
        assert_ne!(len, 0);
        got.extend_from_slice(&buf[..len]);
    }
    assert_eq!(got, b"early");
    tcp.write_all(b"answer").unwrap();
    let mut buf = [0; 6];
    peer.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"answer");
    // The end of the allocation is the end of its connections.
    client.close();
    assert!(matches!(peer.read(&mut buf), Ok(0) | Err(_)));
}

#[test]
fn a_peer_that_does_not_read_holds_up_its_client() {
    let host = start(21_500..=21_599, Quota::new(10, 10));
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let mut client = Ue::new(&host, Transport::Tcp, "alice");
    client.allocate(RelayProtocol::Tcp).unwrap();
    let (tcp, _) = client.connect_peer(listener.local_addr().unwrap());
    let (mut peer, _) = listener.accept().unwrap();
    tcp.set_nonblocking(true).unwrap();
    let (mut sent, mut refused) = (0_usize, 0);
    // Full when nothing is taken for a while.
    while refused < 50 {
        match (&tcp).write(&[sent as u8; 4096]) {
            Ok(len) => (sent, refused) = (sent + len, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    // What two kernel buffers hold, and little more: no data piles up at the server.
    assert!(sent < 64 << 20, "{sent}");
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = 0;
    let mut buf = vec![0; 1 << 16];
    loop {
        match peer.read(&mut buf).unwrap() {
            0 => break,
            len => got += len,
        }
    }
    assert_eq!(got, sent);
}

#[cfg(target_os = "linux")]
#[test]
fn icmp_errors_reach_the_client() {
    let host = start(21_000..=21_099, Quota::new(10, 10));
    let nobody = {
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        socket.local_addr().unwrap()
    };
    let mut client = Ue::new(&host, Transport::Udp, "alice");
    client.allocate(RelayProtocol::Udp).unwrap();
    client.bind(nobody);
    client.send(nobody, b"anybody there?");
    let (peer, icmp) = client.until(|event| match event {
        Event::Icmp { peer, icmp } => Some((*peer, *icmp)),
        _ => None,
    });
    // Destination unreachable, port unreachable.
    assert_eq!((peer, icmp.ty, icmp.code), (nobody, 3, 3));
    // It cost no datagram after it.
    let echo = udp_echo();
    client.bind(echo);
    client.send(echo, b"next");
    assert_eq!(client.receive(), b"next");
}

#[test]
fn two_servers_do_not_share_an_address() {
    let host = start(21_100..=21_199, Quota::new(10, 10));
    let mut second = config(21_200..=21_299);
    second.listen = host.listening().to_vec();
    let error = Host::start(second, keys("alice"), Quota::new(1, 1)).unwrap_err();
    assert!(format!("{error:#}").contains("in use"), "{error:#}");
}

#[test]
fn a_server_does_not_start_on_addresses_this_host_lacks() {
    let elsewhere: IpAddr = "192.0.2.77".parse().unwrap();
    let mut relays = config(21_200..=21_299);
    relays.relays = vec![RelayAddress {
        ip: elsewhere,
        external: None,
    }];
    let error = Host::start(relays, keys("alice"), Quota::new(1, 1)).unwrap_err();
    assert!(
        format!("{error:#}").contains("relays on 192.0.2.77"),
        "{error:#}"
    );
    let mut listen = config(21_200..=21_299);
    listen.listen = vec![Listen {
        transport: Transport::Tcp,
        at: SocketAddr::new(elsewhere, 3478),
    }];
    let error = Host::start(listen, keys("alice"), Quota::new(1, 1)).unwrap_err();
    assert!(
        format!("{error:#}").contains("192.0.2.77:3478"),
        "{error:#}"
    );
}

#[test]
fn a_wrong_password_is_counted() {
    let host = start(21_200..=21_299, Quota::new(10, 10));
    let mut ue = Ue::new(&host, Transport::Udp, "nobody");
    ue.allocate(RelayProtocol::Udp).unwrap_err();
    // Snapshots are taken once a second.
    let logins = || -> u64 { host.snapshots().iter().map(|s| s.stats.failed_logins).sum() };
    for _ in 0..50 {
        if logins() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(logins(), 1);
}

#[test]
fn streams_that_say_nothing_sensible_are_closed() {
    let host = start(21_300..=21_399, Quota::new(10, 10));
    let mut tcp = connect(at(&host, Transport::Tcp));
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(tcp.read(&mut [0; 10]), Ok(0)));
    // A ConnectionBind for a worker that does not exist.
    let mut tcp = connect(at(&host, Transport::Tcp));
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bind = vec![0, 0x0B, 0, 8, 0x21, 0x12, 0xA4, 0x42];
    bind.extend([1; 12]);
    bind.extend([0, 0x2A, 0, 4, 200, 0, 0, 1]);
    tcp.write_all(&bind).unwrap();
    assert!(matches!(tcp.read(&mut [0; 10]), Ok(0)));
}

#[test]
fn garbage_leaves_nothing_behind() {
    let host = start(21_600..=21_699, Quota::new(10, 10));
    let mut rng = stun_proto::Rng::from_seed([9; 32]);
    let udp = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let mut heads = vec![vec![], vec![0, 1], vec![0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42]];
    heads.push(vec![0, 0x0B, 0, 8, 0x21, 0x12, 0xA4, 0x42]);
    heads.push(vec![0x40, 0, 0xFF, 0xFF]);
    for round in 0..400 {
        let mut bytes = heads[round % heads.len()].clone();
        for _ in 0..rng.below(8) {
            bytes.extend(rng.bytes::<32>());
        }
        udp.send_to(&bytes, at(&host, Transport::Udp)).unwrap();
        let mut tcp = connect(at(&host, Transport::Tcp));
        // The server may have closed it already.
        let _ = tcp.write_all(&bytes);
        if rng.below(2) == 0 {
            let _ = tcp.shutdown(std::net::Shutdown::Write);
        }
    }
    let mut client = Ue::new(&host, Transport::Udp, "alice");
    client.allocate(RelayProtocol::Udp).unwrap();
    eventually(&host, |all| {
        let accepted: u64 = all.iter().map(|s| s.counts.accepted).sum();
        accepted == 400 && all.iter().all(|s| s.streams == 0)
    });
    assert!(!host.is_broken());
    assert_eq!(host.quota().allocations(), 1);
}
