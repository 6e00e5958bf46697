#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{MessageType, Method, Software, TransactionId, Writer};

fn message(software: usize) -> Vec<u8> {
    let mut buf = [0; 600];
    let text = "s".repeat(software);
    let ty = MessageType::request(Method::BINDING);
    let len = Writer::new(&mut buf, ty, TransactionId([4; 12]))
        .attribute(&Software::new(&text).unwrap())
        .finish()
        .unwrap();
    buf[..len].to_vec()
}

fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Units as owned bytes, data behind its channel number, and how the stream ended.
type Outcome = (Vec<Vec<u8>>, Option<FramingError>);

fn read(deframer: &mut Deframer, stream: &[u8], cuts: impl Iterator<Item = usize>) -> Outcome {
    let mut units = Vec::new();
    let mut rest = stream;
    for cut in cuts.chain([usize::MAX]) {
        let (mut input, behind) = rest.split_at(cut.min(rest.len()));
        rest = behind;
        loop {
            match deframer.next(&mut input) {
                Ok(Next::Unit(Unit::Message(bytes))) => units.push(bytes.to_vec()),
                Ok(Next::Unit(Unit::ChannelData { channel, data })) => {
                    units.push([&channel.to_be_bytes(), data].concat());
                }
                Ok(Next::Partial | Next::Nothing) => break,
                Err(error) => return (units, Some(error)),
            }
        }
    }
    (units, None)
}

// spec: STUN-6.2.2-5, STUN-STR-1
#[test]
fn messages_on_a_stream_need_no_framing() {
    let stream = [message(0), message(9), message(500)].concat();
    for step in [1, 3, 19, 20, 21, 1000] {
        let mut deframer = Deframer::stun_only(2048);
        let (units, error) = read(&mut deframer, &stream, core::iter::repeat_n(step, 1000));
        assert_eq!(error, None);
        assert_eq!(units, [message(0), message(9), message(500)]);
        assert_eq!(deframer.held() % 524, 0);
    }
}

// spec: STUN-STR-1, SEC-F-05
#[test]
fn a_stream_that_is_not_stun_ends_for_good_at_the_first_wrong_byte() {
    let with = |index: usize, value: u8| {
        let mut bytes = message(0);
        bytes[index] = value;
        bytes
    };
    let cases = [
        (with(0, 0x80), FramingError::NotStun, 1),
        (with(0, 0xC0), FramingError::NotStun, 1),
        (with(0, 0x40), FramingError::NotStun, 1),
        (with(3, 0x05), FramingError::Length, 4),
        (with(4, 0x20), FramingError::Cookie, 5),
        (with(7, 0x43), FramingError::Cookie, 8),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), FramingError::NotStun, 1),
        (
            b"\x16\x03\x01\x02\x00\x01\x00".to_vec(),
            FramingError::Length,
            4,
        ),
        (
            b"\x16\x03\x01\x00\xF0\x01\x00".to_vec(),
            FramingError::Cookie,
            5,
        ),
    ];
    for (bytes, expected, at) in cases {
        let mut deframer = Deframer::stun_only(2048);
        let fed = read(&mut deframer, &bytes[..at - 1], core::iter::empty());
        assert_eq!(fed, (Vec::new(), None));
        let mut byte = &bytes[at - 1..at];
        assert_eq!(deframer.next(&mut byte), Err(expected));
        // Good bytes behind a bad one change nothing.
        assert_eq!(deframer.next(&mut &message(0)[..]), Err(expected));
    }
}

// spec: SEC-G-10, SEC-F-03, SEC-G-09
#[test]
fn memory_follows_the_bytes_and_the_limit_not_the_declared_length() {
    // 65,532 bytes declared, nothing but the header sent.
    let mut header = message(0)[..20].to_vec();
    header[2..4].copy_from_slice(&0xFFFC_u16.to_be_bytes());
    let mut deframer = Deframer::stun_only(65_552);
    assert_eq!(deframer.next(&mut &header[..]), Ok(Next::Partial));
    assert_eq!(deframer.held(), 20);

    for (limit, fits) in [(65_551, false), (65_552, true)] {
        let mut deframer = Deframer::stun_only(limit);
        let result = deframer.next(&mut &header[..]);
        assert_eq!(result == Err(FramingError::TooLong), !fits);
    }
    for (limit, fits) in [(65_538, false), (65_539, true)] {
        let mut deframer = Deframer::with_channels(limit);
        let result = deframer.next(&mut &[0x40, 0, 0xFF, 0xFF][..]);
        assert_eq!(result == Err(FramingError::TooLong), !fits);
    }
}

#[test]
fn channel_data_is_handed_out_before_its_padding_has_come() {
    let mut deframer = Deframer::with_channels(2048);
    let mut input = &channel_data(0x4001, b"hello")[..9];
    let unit = Next::Unit(Unit::ChannelData {
        channel: 0x4001,
        data: b"hello",
    });
    assert_eq!(deframer.next(&mut input), Ok(unit));
    // Two bytes of padding now, the last one with the next unit.
    assert_eq!(deframer.next(&mut &[9, 9][..]), Ok(Next::Nothing));
    let next = [vec_of(9, 1), message(0)].concat();
    let mut input = &next[..];
    let expected = message(0);
    assert_eq!(
        deframer.next(&mut input),
        Ok(Next::Unit(Unit::Message(&expected)))
    );
    assert_eq!(deframer.next(&mut input), Ok(Next::Nothing));
}

fn vec_of(byte: u8, len: usize) -> Vec<u8> {
    alloc::vec![byte; len]
}

#[test]
fn limit_and_channels_can_change_between_units() {
    let mut deframer = Deframer::stun_only(20);
    assert_eq!(
        deframer.next(&mut &message(0)[..]),
        Err(FramingError::TooLong)
    );
    let mut deframer = Deframer::stun_only(24);
    assert!(deframer.next(&mut &message(0)[..]).is_ok());
    deframer.set_channels(true);
    deframer.set_limit(8);
    let empty = Unit::ChannelData {
        channel: 0x4000,
        data: &[],
    };
    let data = channel_data(0x4000, &[]);
    assert_eq!(deframer.next(&mut &data[..]), Ok(Next::Unit(empty)));
    let long = channel_data(0x4000, b"12345");
    assert_eq!(deframer.next(&mut &long[..]), Err(FramingError::TooLong));
}

// spec: SEC-F-06
#[test]
fn every_beginning_of_four_bytes_is_a_message_data_or_an_error() {
    for first in 0..=255_u8 {
        for last in 0..8 {
            let head = [first, 1, 0, last];
            let mut deframer = Deframer::with_channels(4096);
            let result = deframer.next(&mut &head[..]).map(|_| ());
            let expected = match first >> 6 {
                0 if last % 4 != 0 => Err(FramingError::Length),
                0 | 1 => Ok(()),
                _ => Err(FramingError::NotStun),
            };
            assert_eq!(result, expected, "{head:?}");
        }
    }
}

// spec: 4571-2-1, 4571-8-1, 4571-3-1
#[test]
fn frames_of_every_length_pass_unread() {
    assert_eq!(FrameHeader::new(65_535), Some(FrameHeader([0xFF, 0xFF])));
    assert_eq!(FrameHeader::new(65_536), None);
    let content = vec_of(0xAB, MAX_FRAME);
    let lengths = [0, 1, 2, 3, 1200, 65_534, 65_535, 0];
    let mut stream = Vec::new();
    for len in lengths {
        stream.extend_from_slice(&FrameHeader::new(len).unwrap().0);
        stream.extend_from_slice(&content[..len]);
    }
    for step in [1, 2, 3, 1400, stream.len()] {
        let mut deframer = FrameDeframer::new();
        let mut seen = Vec::new();
        for mut chunk in stream.chunks(step) {
            while let Some(frame) = deframer.next(&mut chunk) {
                assert!(frame.iter().all(|byte| *byte == 0xAB));
                seen.push(frame.len());
            }
            assert!(chunk.is_empty());
        }
        assert_eq!(seen, lengths);
    }
    // A declared length takes no memory.
    let mut deframer = FrameDeframer::new();
    assert_eq!(deframer.next(&mut &[0xFF, 0xFF, 1][..]), None);
    assert_eq!(deframer.held(), 3);
}

#[derive(Clone, Debug)]
enum Piece {
    Message(usize),
    Data(u16, Vec<u8>),
    Garbage(Vec<u8>),
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => (0_usize..40).prop_map(Piece::Message),
        6 => (0x4000_u16..0x8000, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(channel, data)| Piece::Data(channel, data)),
        1 => prop::collection::vec(any::<u8>(), 1..12).prop_map(Piece::Garbage),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| {
        let bytes = pieces.into_iter().map(|piece| match piece {
            Piece::Message(len) => message(len),
            Piece::Data(channel, data) => channel_data(channel, &data),
            Piece::Garbage(bytes) => bytes,
        });
        bytes.collect::<Vec<_>>().concat()
    })
}

proptest! {
    // spec: SEC-F-02, STUN-STR-1
    #[test]
    fn cutting_a_stream_anywhere_changes_nothing(
        stream in pieces(),
        cuts in prop::collection::vec(0_usize..30, 0..200),
    ) {
        let whole = read(&mut Deframer::with_channels(256), &stream, core::iter::empty());
        let cut = read(&mut Deframer::with_channels(256), &stream, cuts.into_iter());
        let single = core::iter::repeat_n(1, stream.len());
        let bytes = read(&mut Deframer::with_channels(256), &stream, single);
        prop_assert_eq!(&whole, &cut);
        prop_assert_eq!(&whole, &bytes);
    }

    // spec: SEC-F-01
    #[test]
    fn anything_read_byte_by_byte_holds_no_more_than_the_limit(
        stream in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut deframer = Deframer::with_channels(64);
        for byte in stream.chunks(1) {
            let mut input = byte;
            let _ = deframer.next(&mut input);
            prop_assert!(deframer.held() <= 64);
        }
    }
}

// Traps T10 and U15: lengths whose sum with header and padding does not fit 16 bits.
// spec: SEC-G-09
#[test]
fn the_longest_units_keep_the_stream_in_step() {
    let mut after = vec![0x40, 0x01, 0, 2, 8, 8, 0, 0];
    after.extend([
        0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ]);
    for len in 0xFFF9..=0xFFFF_u16 {
        let mut stream = vec![0x40, 0x00];
        stream.extend(len.to_be_bytes());
        stream.extend(core::iter::repeat_n(
            7,
            usize::from(len).next_multiple_of(4),
        ));
        stream.extend(&after);
        for piece in [1000, 65_536, 100_000] {
            let mut deframer = Deframer::with_channels(66_000);
            let mut units = Vec::new();
            for mut input in stream.chunks(piece) {
                while !input.is_empty() {
                    match deframer.next(&mut input).unwrap() {
                        Next::Unit(Unit::Message(bytes)) => units.push(bytes.len()),
                        Next::Unit(Unit::ChannelData { data, .. }) => units.push(data.len()),
                        Next::Partial | Next::Nothing => {}
                    }
                }
            }
            assert_eq!(
                units,
                [usize::from(len), 2, 20],
                "{len} in pieces of {piece}"
            );
        }
    }
    // A STUN message has a length in fours, the longest of 0xFFFC.
    let mut stream = vec![0, 1, 0xFF, 0xFC, 0x21, 0x12, 0xA4, 0x42];
    stream.resize(20 + 0xFFFC, 0);
    stream.extend(&after);
    let mut deframer = Deframer::with_channels(66_000);
    let mut input = &stream[..];
    let first = deframer.next(&mut input);
    let whole = matches!(first, Ok(Next::Unit(Unit::Message(bytes))) if bytes.len() == 65_552);
    assert!(whole, "{first:?}");
    assert_eq!(input, after);
}
