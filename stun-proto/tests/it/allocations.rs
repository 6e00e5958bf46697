//! What the hot paths take from the allocator: nothing.

use core::time::Duration;

use stun_proto::auth::authenticate_short_term;
use stun_proto::binding::{BindingServer, BindingServerConfig, MAX_TRANSMIT};
use stun_proto::demux::{classify, is_stun};
use stun_proto::framing::{Deframer, FrameDeframer, Next};
use stun_proto::limit::{RateLimit, RateLimiter};
use stun_proto::wire::{
    Key, Message, MessageType, Method, TransactionId, Username, Writer, XorMappedAddress,
};
use stun_proto::{FiveTuple, Instant, Rng};

use crate::vectors::vectors;

#[track_caller]
fn free_of_allocations(name: &str, mut f: impl FnMut()) {
    f();
    let info = allocation_counter::measure(|| (0..100).for_each(|_| f()));
    assert_eq!(info.count_total, 0, "{name}");
}

// spec: SEC-G-10
#[test]
fn reading_and_proving_take_no_memory() {
    for vector in vectors() {
        free_of_allocations(vector.name, || {
            let message = Message::parse(&vector.bytes).unwrap();
            assert!(
                message
                    .verify_truncated(&vector.key, vector.shortest)
                    .is_ok()
            );
            assert_ne!(message.check_fingerprint(), Some(false));
            let _ = message.find::<Username<'_>>();
            let _ = message.find::<XorMappedAddress>();
            assert_eq!(message.unknown_required(|_| true).count(), 0);
            let _ = authenticate_short_term(&message, |_| Some(&vector.key));
            assert!(is_stun(&vector.bytes));
            let _ = classify(vector.bytes[0], false, true);
        });
    }
}

#[test]
fn writing_takes_no_memory() {
    let key = Key::short_term("secret");
    let user = Username::new("them:us").unwrap();
    let mut buf = [0; 548];
    free_of_allocations("write", || {
        let ty = MessageType::request(Method::BINDING);
        Writer::new(&mut buf, ty, TransactionId([1; 12]))
            .attribute(&user)
            .message_integrity(&key)
            .message_integrity_sha256(&key)
            .fingerprint()
            .finish()
            .unwrap();
    });
}

#[test]
fn whole_units_of_a_stream_take_no_memory() {
    let stream: Vec<u8> = vectors().into_iter().flat_map(|v| v.bytes).collect();
    let mut deframer = Deframer::stun_only(2048);
    free_of_allocations("messages", || {
        let mut input = &stream[..];
        while let Ok(Next::Unit(_)) = deframer.next(&mut input) {}
        assert!(input.is_empty());
    });
    // Split ones take it once and use it again.
    let mut frames = FrameDeframer::new();
    let frame = [&[0x01, 0x00][..], &[7; 256]].concat();
    free_of_allocations("frames", || {
        for mut chunk in frame.chunks(100) {
            while frames.next(&mut chunk).is_some() {}
        }
    });
}

// spec: SEC-T-01, SEC-S-11
#[test]
fn a_server_takes_nothing_for_its_clients() {
    let mut server = BindingServer::new(BindingServerConfig::default(), [7; 32]).unwrap();
    let mut limiter = RateLimiter::new(RateLimit::default(), &mut Rng::from_seed([7; 32]));
    let local = "198.51.100.1:3478".parse().unwrap();
    let vectors = vectors();
    let classic = [0, 1, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let mut buf = [0; MAX_TRANSMIT];
    let mut client = 0_u32;
    free_of_allocations("server", || {
        for _ in 0..100 {
            client += 1;
            let now = Instant::ZERO + Duration::from_millis(client.into());
            let ip = core::net::Ipv4Addr::from(client);
            let at = FiveTuple::udp(local, (ip, 5000).into());
            limiter.allows(now, ip.into(), 100);
            for data in [&vectors[3].bytes[..], &classic, b"garbage"] {
                server.respond(now, at, data, &mut buf);
            }
        }
    });
    assert!(server.stats().answered > 1000);
}
