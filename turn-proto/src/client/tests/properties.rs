//! What holds for every input.

use proptest::prelude::*;

use super::*;

/// Units as a server may put them on a stream, with what each is to deliver.
fn units() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    prop::collection::vec((0..4_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..20)
}

fn stream_rig() -> (Rig, Channel) {
    let mut rig = Rig::stream().allocate();
    let channel = rig.bind("192.0.2.210:49191");
    (rig, channel)
}

fn encode(units: &[(u8, Vec<u8>)], channel: Channel) -> Vec<u8> {
    let mut stream = Vec::new();
    for (kind, payload) in units {
        let mut buf = [0; 200];
        if *kind < 2 {
            stream.extend_from_slice(&channel_header(channel, payload.len()).unwrap());
            stream.extend_from_slice(payload);
            stream.resize(stream.len().next_multiple_of(4), 0xAA);
        } else {
            // A permitted and an unpermitted peer.
            let peer = SocketAddr::new(ip("192.0.2.210"), u16::from(*kind));
            let other = SocketAddr::new(ip("192.0.2.211"), 1);
            let peer = if *kind == 2 { peer } else { other };
            let ty = MessageType::indication(wire::DATA);
            let len = Writer::new(&mut buf, ty, TransactionId([9; 12]))
                .attribute(&XorPeerAddress(peer))
                .attribute(&Data(payload))
                .finish()
                .unwrap();
            stream.extend_from_slice(&buf[..len]);
        }
    }
    stream
}

fn feed(rig: &mut Rig, mut input: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut got = Vec::new();
    while !input.is_empty() {
        let received = rig.client.handle_stream(rig.now, StreamId(1), &mut input);
        if let Received::Data { peer, data } = received {
            got.push((peer, data.to_vec()));
        }
    }
    got
}

proptest! {
    // spec: TURN-STR-1, SEC-F-02, SEC-F-06
    #[test]
    fn cutting_the_stream_changes_nothing(
        units in units(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let (mut rig, channel) = stream_rig();
        let stream = encode(&units, channel);
        let whole = feed(&mut rig, &stream);
        let expected = units.iter().filter(|(kind, _)| *kind < 3).count();
        prop_assert_eq!(whole.len(), expected);
        let (mut cut, _) = stream_rig();
        let mut at: Vec<_> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let mut pieces = Vec::new();
        for pair in at.windows(2) {
            pieces.extend(feed(&mut cut, &stream[pair[0]..pair[1]]));
        }
        prop_assert_eq!(pieces, whole);
        prop_assert_eq!(cut.client.stats(), rig.client.stats());
        prop_assert_eq!(cut.events(), rig.events());
    }

    // spec: SEC-G-01, SEC-G-07
    #[test]
    fn no_bytes_and_no_times_do_harm(
        inputs in prop::collection::vec(
            (any::<u16>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)),
            0..40,
        ),
        stream in any::<bool>(),
    ) {
        let mut rig = if stream { Rig::stream() } else { Rig::new() };
        let request = rig.ask(AllocateOptions::default());
        rig.allocate_ok(&request);
        rig.client.create_permission(rig.now, ip("192.0.2.1")).unwrap();
        rig.client.bind_channel(rig.now, addr("192.0.2.1:1")).unwrap();
        for (time, kind, mut bytes) in inputs {
            // Times go forwards and backwards.
            rig.now = at(u64::from(time));
            if kind < 200 && bytes.len() >= 20 {
                // Often a header that parses.
                let len = (bytes.len() as u16 - 20) & !3;
                bytes.truncate(usize::from(len) + 20);
                bytes[0] = kind & 1;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
            }
            rig.input(&bytes);
            rig.requests();
            rig.events();
            rig.client.handle_timeout(rig.now);
            rig.requests();
            rig.events();
            let next = rig.client.poll_timeout();
            prop_assert!(next.is_none_or(|next| next > rig.now), "{next:?} at {:?}", rig.now);
        }
    }

    // spec: SEC-G-12, SEC-G-08
    #[test]
    fn the_same_seed_gives_the_same_bytes_at_the_ends_of_time(steps in 0..40_u64) {
        let run = |start: Instant| {
            let mut client = Client::new(config(), udp_path(1), Transport::Udp, [3; 32], start);
            client.allocate(start, AllocateOptions::default()).unwrap();
            let mut buf = [0; MAX_TRANSMIT];
            let mut all = Vec::new();
            for _ in 0..steps {
                while let Some(sent) = client.poll_transmit(&mut buf) {
                    all.push(buf[..sent.len].to_vec());
                }
                let Some(next) = client.poll_timeout() else { break };
                client.handle_timeout(next);
            }
            all
        };
        prop_assert_eq!(run(Instant::ZERO), run(Instant::ZERO));
        let end = Instant::from_nanos(i64::MAX);
        prop_assert_eq!(run(end).len().min(1), usize::from(steps > 0).min(1));
    }
}
