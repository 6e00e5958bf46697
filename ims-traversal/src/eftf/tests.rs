#![allow(clippy::arithmetic_side_effects, reason = "test code")]

use super::*;

/// IPv4, header only (the vector of the specification).
const V4: [u8; 20] = [
    0x45, 0, 0, 0x14, 0, 0, 0, 0, 0x40, 6, 0, 0, 10, 0, 0, 10, 10, 0, 0, 11,
];

/// IPv6 with this many octets behind its header.
fn v6(payload: u16) -> Vec<u8> {
    let mut packet = alloc::vec![7; 40 + usize::from(payload)];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

fn envelope(packet: &[u8]) -> Vec<u8> {
    [&envelope_header(packet).unwrap()[..], packet].concat()
}

/// Everything a stream yields when it comes in pieces of this size.
fn read(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<EnvelopeError>, u64) {
    let mut envelopes = Envelopes::new(MAX_PACKET);
    let mut packets = Vec::new();
    for mut input in stream.chunks(piece) {
        while let Some(next) = envelopes.next(&mut input) {
            match next {
                Ok(packet) => packets.push(packet.to_vec()),
                Err(error) => return (packets, Some(error), envelopes.skipped()),
            }
        }
        assert!(input.is_empty());
    }
    (packets, None, envelopes.skipped())
}

// spec: T-7.1.2.1-1
#[test]
fn the_vector_of_the_specification() {
    let wire = [&[1, 0, 0x17][..], &V4].concat();
    assert_eq!(envelope(&V4), wire);
    assert_eq!(read(&wire, 100).0, [V4.to_vec()]);
}

// spec: T-7.1.2.1-1, PRI-8-1
#[test]
fn envelopes_may_be_cut_anywhere() {
    let packets = [V4.to_vec(), v6(0), v6(300), V4.to_vec()];
    let unknown = [9, 0, 7, 1, 2, 3, 4];
    let mut stream = Vec::new();
    for packet in &packets {
        stream.extend_from_slice(&envelope(packet));
        stream.extend_from_slice(&unknown);
        stream.extend_from_slice(&[200, 0, 3]);
    }
    for piece in 1..=stream.len() {
        let (found, error, skipped) = read(&stream, piece);
        assert_eq!(
            (found.as_slice(), error, skipped),
            (&packets[..], None, 8),
            "{piece}"
        );
    }
}

#[test]
fn whole_packets_are_not_copied() {
    let stream = envelope(&V4);
    let mut envelopes = Envelopes::new(1500);
    let mut input = &stream[..];
    let packet = envelopes.next(&mut input).unwrap().unwrap();
    assert_eq!(packet.as_ptr(), stream[3..].as_ptr());
    assert_eq!(envelopes.held.capacity(), 0);
}

// spec: T-7.1.2.2-1, PRI-8-1
#[test]
fn impossible_lengths_end_the_stream() {
    for (head, error) in [
        ([1, 0, 0], EnvelopeError::Length(0)),
        ([1, 0, 1], EnvelopeError::Length(1)),
        ([1, 0, 2], EnvelopeError::Length(2)),
        ([1, 0, 3], EnvelopeError::Length(3)),
        ([2, 0, 0], EnvelopeError::Length(0)),
        ([2, 0, 2], EnvelopeError::Length(2)),
    ] {
        for piece in [1, 3] {
            assert_eq!(read(&head, piece).1, Some(error), "{head:?}");
        }
    }
    // What follows an error is never looked at.
    let mut envelopes = Envelopes::new(1500);
    let _ = envelopes.next(&mut &[1, 0, 3][..]);
    let stream = envelope(&V4);
    let mut input = &stream[..];
    let again = envelopes.next(&mut input);
    assert_eq!(again, Some(Err(EnvelopeError::Length(3))));
}

// spec: PRI-8-1
#[test]
fn the_packet_is_as_long_as_its_envelope() {
    let short = &v6(10)[..45];
    let mut long = V4.to_vec();
    long.push(0);
    for (packet, error) in [
        (&V4[..19], EnvelopeError::Mismatch),
        (&V4[..1], EnvelopeError::Mismatch),
        (&long[..], EnvelopeError::Mismatch),
        (short, EnvelopeError::Mismatch),
        (&[0x55; 30][..], EnvelopeError::NotIp),
        (&[][..], EnvelopeError::NotIp),
    ] {
        assert_eq!(envelope_header(packet), Err(error));
        if packet.is_empty() {
            continue;
        }
        let wire = [&[1, 0, packet.len() as u8 + 3][..], packet].concat();
        for piece in [1, 100] {
            assert_eq!(read(&wire, piece).1, Some(error));
        }
    }
}

#[test]
fn packets_have_a_longest() {
    let limit = v6((MAX_PACKET - 40) as u16);
    assert_eq!(envelope_header(&limit), Ok([1, 0xff, 0xff]));
    assert_eq!(
        envelope_header(&v6((MAX_PACKET - 39) as u16)),
        Err(EnvelopeError::TooLong)
    );
    assert_eq!(read(&envelope(&limit), 1000).0, [limit]);
    let mut envelopes = Envelopes::new(40);
    let (fits, too_long) = (envelope(&v6(0)), envelope(&v6(1)));
    assert!(envelopes.next(&mut &fits[..]).unwrap().is_ok());
    assert_eq!(
        envelopes.next(&mut &too_long[..]),
        Some(Err(EnvelopeError::TooLong))
    );
    // Unknown ones may be as long as they like: nothing of them is kept.
    let mut envelopes = Envelopes::new(40);
    let head = [5, 0xff, 0xff];
    assert_eq!(envelopes.next(&mut &head[..]), None);
    assert_eq!(envelopes.next(&mut &[0; 65_532][..]), None);
    assert!(envelopes.next(&mut &fits[..]).unwrap().is_ok());
    assert_eq!(envelopes.skipped(), 1);
}
