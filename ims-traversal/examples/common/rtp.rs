//! Numbered RTP packets: what the programs send as media, and count when it comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use stun_proto::Instant;

use super::now;

/// Samples of 20 ms at 8 kHz, one octet each in PCMU.
const FRAME: usize = 160;
const HEADER: usize = 12;
/// What the payload begins with; its number follows.
const MARK: &[u8; 8] = b"numbered";
/// The octet of PCMU that is no sound.
const SILENCE: u8 = 0xFF;
/// The same of PCMA.
const SILENCE_A: u8 = 0xD5;

/// How an exchange went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Own packets, repeated ones not counted.
    pub sent: u32,
    /// Own packets that came back.
    pub echoed: u32,
    /// Packets of the other side.
    pub received: u32,
    /// Repetitions of own packets that did not come back in time.
    pub resent: u32,
}

/// One side's stream of RTP (RFC 3550): silence in PCMU or PCMA with a number in each packet.
#[derive(Debug)]
pub struct Rtp {
    payload_type: u8,
    silence: u8,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    next: u32,
    total: u32,
    waiting: BTreeMap<u32, Instant>,
    tally: Tally,
}

impl Rtp {
    /// A stream of `total` packets.
    pub fn new(total: u32) -> Self {
        let seed = super::seed();
        let (ssrc, timestamp) = (&seed[..4], &seed[4..8]);
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, b| word << 8 | u32::from(*b));
        Self {
            payload_type: 0,
            silence: SILENCE,
            ssrc: word(ssrc),
            sequence: word(&seed[8..10]) as u16,
            timestamp: word(timestamp),
            next: 0,
            total,
            waiting: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Sends in this codec from now on: PCMU unless it is PCMA, with the number the other side
    /// wants.
    pub fn set_codec(&mut self, payload_type: u8, name: &str) {
        self.payload_type = payload_type & 0x7F;
        let pcma = name.eq_ignore_ascii_case("PCMA");
        self.silence = if pcma { SILENCE_A } else { SILENCE };
    }

    /// Sends so many packets more.
    pub const fn more(&mut self, count: u32) {
        self.total += count;
    }

    /// How it goes.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether every packet came back.
    pub const fn is_done(&self) -> bool {
        self.tally.echoed >= self.total
    }

    /// What to send in this frame of 20 ms: the next packet, and those that are late.
    pub fn tick(&mut self) -> Vec<Vec<u8>> {
        let (time, late) = (now(), Duration::from_millis(500));
        let again: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, sent)| time.duration_since(**sent) >= late)
            .map(|(number, _)| *number)
            .take(5)
            .collect();
        self.tally.resent += again.len() as u32;
        let mut packets: Vec<_> = again.into_iter().map(|n| self.packet(n)).collect();
        if self.next < self.total {
            self.tally.sent += 1;
            self.next += 1;
            packets.push(self.packet(self.next - 1));
        }
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        packets
    }

    fn packet(&mut self, number: u32) -> Vec<u8> {
        self.waiting.insert(number, now());
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0x80, self.payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(MARK);
        packet.extend(number.to_be_bytes());
        packet.resize(HEADER + FRAME, self.silence);
        packet
    }

    /// Takes in a packet; whether it is one of the other side, to be sent back as it is.
    pub fn take(&mut self, packet: &[u8]) -> bool {
        // Version 2; RTCP, if any, has payload types from 64 on.
        let (Some(&first), Some(&kind)) = (packet.first(), packet.get(1)) else {
            return false;
        };
        if first >> 6 != 2 || (64..=95).contains(&(kind & 0x7F)) || packet.len() < HEADER {
            return false;
        }
        if packet[8..HEADER] != self.ssrc.to_be_bytes() {
            self.tally.received += 1;
            return true;
        }
        let number = packet[HEADER..]
            .strip_prefix(MARK)
            .and_then(|rest| rest.first_chunk());
        let number = number.map(|bytes| u32::from_be_bytes(*bytes));
        if number.is_some_and(|number| self.waiting.remove(&number).is_some()) {
            self.tally.echoed += 1;
        }
        false
    }
}
