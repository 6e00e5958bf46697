//! What becomes of the vectors when somebody changes them.

use stun_proto::demux::is_stun;
use stun_proto::framing::{Deframer, Next};
use stun_proto::wire::{AttributeType, MAX_ATTRIBUTES, Message, ParseErrorKind};

use crate::vectors::{Vector, vectors};

/// Parsed, proven, and the fingerprint right or absent.
fn holds(vector: &Vector, bytes: &[u8], printed: bool) -> bool {
    Message::parse(bytes).is_ok_and(|message| {
        let proven = message.verify_truncated(&vector.key, vector.shortest);
        proven.is_ok() && message.check_fingerprint() == printed.then_some(true)
    })
}

fn printed(vector: &Vector) -> bool {
    let message = Message::parse(&vector.bytes).unwrap();
    message.check_fingerprint().is_some()
}

/// Offsets of attribute headers, with their types.
fn offsets(bytes: &[u8]) -> Vec<(usize, AttributeType)> {
    let mut all = Vec::new();
    let mut at = 20;
    while at < bytes.len() {
        let word = |i: usize| u16::from_be_bytes([bytes[i], bytes[i + 1]]);
        all.push((at, AttributeType(word(at))));
        at += 4 + usize::from(word(at + 2)).next_multiple_of(4);
    }
    all
}

fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

// spec: STUN-14.5-1, STUN-14.6-1, STUN-14.7-1
#[test]
fn every_flipped_bit_is_noticed() {
    for vector in vectors() {
        let printed = printed(&vector);
        assert!(holds(&vector, &vector.bytes, printed), "{}", vector.name);
        for bit in 0..vector.bytes.len() * 8 {
            let mut bytes = vector.bytes.clone();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(
                !holds(&vector, &bytes, printed),
                "{} bit {bit}",
                vector.name
            );
        }
    }
}

// spec: STUN-5-3, STUN-STR-1
#[test]
fn every_truncation_and_every_byte_more_is_noticed() {
    for Vector { bytes, name, .. } in vectors() {
        for len in 0..bytes.len() {
            assert!(Message::parse(&bytes[..len]).is_err(), "{name} {len}");
            assert!(!is_stun(&bytes[..len]));
            // On a stream the rest is still to come.
            let mut deframer = Deframer::stun_only(2048);
            let next = deframer.next(&mut &bytes[..len]);
            assert!(matches!(next, Ok(Next::Partial | Next::Nothing)));
            assert!(matches!(
                deframer.next(&mut &bytes[len..]),
                Ok(Next::Unit(_))
            ));
        }
        for more in 1..=4 {
            let longer = [&bytes[..], &vec![0; more]].concat();
            assert_eq!(
                Message::parse(&longer).unwrap_err().kind,
                ParseErrorKind::Length
            );
        }
    }
}

// spec: STUN-9-2, STUN-14.7-2, STUN-14-3
#[test]
fn attributes_that_protect_have_their_place() {
    for vector in vectors() {
        let (bytes, places) = (&vector.bytes, offsets(&vector.bytes));
        let (last, ty) = *places.last().unwrap();
        let (second, _) = places[places.len() - 2];
        // The last two change places.
        if ty == AttributeType::FINGERPRINT {
            let swapped = [&bytes[..second], &bytes[last..], &bytes[second..last]].concat();
            assert_eq!(
                Message::parse(&swapped).unwrap_err().kind,
                ParseErrorKind::Fingerprint
            );
        }
        // An integrity attribute twice: the first one counts, whatever the second one says.
        let is_code = |(_, ty): &&(usize, AttributeType)| {
            *ty == AttributeType::MESSAGE_INTEGRITY
                || *ty == AttributeType::MESSAGE_INTEGRITY_SHA256
        };
        let (code, code_ty) = **places
            .iter()
            .filter(is_code)
            .collect::<Vec<_>>()
            .last()
            .unwrap();
        let len = 4 + usize::from(bytes[code + 3]);
        let mut twice = bytes[..code + len].to_vec();
        twice.extend_from_slice(&bytes[code..code + len]);
        let end = twice.len();
        twice[end - 1] ^= 1;
        let right_first = with_length(twice.clone());
        assert!(holds(&vector, &right_first, false), "{}", vector.name);
        twice[code + len - 1] ^= 1;
        twice[end - 1] ^= 1;
        let wrong_first = with_length(twice);
        assert!(!holds(&vector, &wrong_first, false), "{}", vector.name);
        assert!(matches!(code_ty.0, 0x0008 | 0x001C));
    }
}

// spec: SEC-S-02, SEC-G-06, SEC-G-09, SEC-G-11
#[test]
fn absurd_lengths_are_refused() {
    for Vector { bytes, .. } in vectors() {
        for (at, _) in offsets(&bytes) {
            for len in [0xFFFF_u16, 0xFFFC, 0xFFFD, 0x8000, 0x7FFF] {
                let mut absurd = bytes.clone();
                absurd[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
                let error = Message::parse(&absurd).unwrap_err();
                assert_eq!(error.kind, ParseErrorKind::AttributeOverrun);
                assert_eq!(error.offset, at);
            }
        }
        for len in [0xFFFC_u16, 0xFFFF, 0x7FFC] {
            let mut absurd = bytes.clone();
            absurd[2..4].copy_from_slice(&len.to_be_bytes());
            assert_eq!(
                Message::parse(&absurd).unwrap_err().kind,
                ParseErrorKind::Length
            );
        }
        let empty = [0x80, 0x99, 0, 0].repeat(16_000);
        let many = with_length([&bytes[..20], &empty].concat());
        let error = Message::parse(&many).unwrap_err();
        assert_eq!(error.kind, ParseErrorKind::TooManyAttributes);
        assert_eq!(error.offset, 20 + 4 * MAX_ATTRIBUTES, "no further work");
    }
}
