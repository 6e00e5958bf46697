use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{Message, MessageType, Method, Priority, TransactionId, Writer};

// spec: 7983-7-1, 9443-1, DMX-1
#[test]
fn all_first_bytes() {
    for byte in 0..=255_u8 {
        for from_turn_server in [false, true] {
            let expected = match byte {
                0..=3 => Kind::Stun,
                16..=19 => Kind::Zrtp,
                20..=63 => Kind::Dtls,
                64..=79 if from_turn_server => Kind::Channel,
                128..=191 => Kind::Rtp,
                _ => Kind::Unknown,
            };
            assert_eq!(classify(byte, from_turn_server, false), expected, "{byte}");
            let with_quic = match (expected, byte) {
                (Kind::Unknown, 64..) => Kind::Quic,
                _ => expected,
            };
            assert_eq!(classify(byte, from_turn_server, true), with_quic, "{byte}");
        }
        assert_eq!(
            is_rtcp(byte),
            (64..=95).contains(&(byte & 0x7F)) && byte >= 128
        );
    }
}

fn message() -> Vec<u8> {
    let mut buf = [0; 64];
    let ty = MessageType::request(Method::BINDING);
    let len = Writer::new(&mut buf, ty, TransactionId([8; 12]))
        .attribute(&Priority(1))
        .finish()
        .unwrap();
    buf[..len].to_vec()
}

// spec: 7983-D, DMX-2
#[test]
fn the_first_byte_alone_does_not_make_a_message() {
    let good = message();
    assert!(is_stun(&good));
    for len in 0..good.len() {
        assert!(!is_stun(&good[..len]));
    }
    for index in [2, 3, 4, 5, 6, 7] {
        let mut bad = good.clone();
        bad[index] ^= 1;
        assert!(!is_stun(&bad), "byte {index}");
    }
    let mut bad = good.clone();
    bad[0] |= 0x40;
    assert!(!is_stun(&bad));
    assert!(!is_stun(&[good, alloc::vec![0; 4]].concat()));
}

proptest! {
    #[test]
    fn what_parses_has_the_shape(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if Message::parse(&bytes).is_ok() {
            prop_assert!(is_stun(&bytes));
        }
    }
}
