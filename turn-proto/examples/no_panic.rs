//! Entry points for bytes of strangers that have no path to a panic, overflow checks included. The
//! linker proves it: with one, this does not link.
//!
//! ```text
//! RUSTFLAGS="--cfg no_panic" cargo build --profile no-panic -p turn-proto --example no_panic
//! ```
#![allow(clippy::print_stdout, reason = "a program for the linker")]
#![allow(unexpected_cfgs, reason = "set for this program alone")]

use core::hint::black_box;

#[cfg(no_panic)]
use no_panic::no_panic;
use stun_proto::wire::{
    Attribute, ErrorCode, MappedAddress, Message, Nonce, OtherAddress, PasswordAlgorithms, Realm,
    Software, Username, XorMappedAddress,
};
use turn_proto::server::parse_icmp;
use turn_proto::wire::{
    AccessToken, AddressErrorCode, AddressFamily, ChannelData, ChannelNumber, ConnectionId, Data,
    EvenPort, Icmp, Lifetime, MobilityTicket, RequestedTransport, ReservationToken, XorPeerAddress,
    XorRelayedAddress,
};

/// Whether a message has an attribute that can be read.
fn has<'a, A: Attribute<'a>>(bytes: &'a [u8]) -> bool {
    Message::parse(bytes).is_ok_and(|message| message.find::<A>().is_some())
}

// spec: SEC-G-03
macro_rules! entry_points {
    ($($name:ident($bytes:ident) { $($body:tt)* })*) => {
        $(
            #[cfg_attr(no_panic, no_panic)]
            fn $name($bytes: &[u8]) -> bool {
                $($body)*
            }
        )*

        const ENTRY_POINTS: &[(&str, fn(&[u8]) -> bool)] = &[$((stringify!($name), $name)),*];
    };
}

entry_points! {
    message(bytes) { Message::parse(bytes).is_ok() }
    attributes(bytes) {
        Message::parse(bytes).is_ok_and(|message| {
            message.attributes().any(|raw| raw.value.first() == Some(&raw.ty.0.to_be_bytes()[0]))
        })
    }
    unknown_required(bytes) {
        Message::parse(bytes).is_ok_and(|message| {
            message.unknown_required(|ty| ty.0 == 6).next().is_some()
        })
    }
    fingerprint(bytes) {
        Message::parse(bytes).is_ok_and(|message| message.check_fingerprint() == Some(true))
    }
    is_stun(bytes) { stun_proto::demux::is_stun(bytes) }
    first_byte(bytes) {
        let kind = bytes.first().map(|byte| stun_proto::demux::classify(*byte, true, true));
        kind == Some(stun_proto::demux::Kind::Stun)
    }
    xor_mapped_address(bytes) { has::<XorMappedAddress>(bytes) }
    mapped_address(bytes) { has::<MappedAddress>(bytes) }
    other_address(bytes) { has::<OtherAddress>(bytes) }
    error_code(bytes) { has::<ErrorCode<'_>>(bytes) }
    username(bytes) { has::<Username<'_>>(bytes) }
    realm(bytes) { has::<Realm<'_>>(bytes) }
    nonce(bytes) { has::<Nonce<'_>>(bytes) }
    software(bytes) { has::<Software<'_>>(bytes) }
    password_algorithms(bytes) {
        Message::parse(bytes).is_ok_and(|message| {
            let list: Option<PasswordAlgorithms<'_>> = message.find();
            list.is_some_and(|list| list.iter().any(|entry| entry.parameters.is_empty()))
        })
    }
    channel_data(bytes) { ChannelData::parse(bytes).is_some() }
    channel_number(bytes) { has::<ChannelNumber>(bytes) }
    lifetime(bytes) { has::<Lifetime>(bytes) }
    peer_address(bytes) { has::<XorPeerAddress>(bytes) }
    relayed_address(bytes) { has::<XorRelayedAddress>(bytes) }
    data(bytes) { has::<Data<'_>>(bytes) }
    even_port(bytes) { has::<EvenPort>(bytes) }
    requested_transport(bytes) { has::<RequestedTransport>(bytes) }
    reservation_token(bytes) { has::<ReservationToken>(bytes) }
    connection_id(bytes) { has::<ConnectionId>(bytes) }
    mobility_ticket(bytes) { has::<MobilityTicket<'_>>(bytes) }
    access_token(bytes) { has::<AccessToken<'_>>(bytes) }
    address_error_code(bytes) { has::<AddressErrorCode<'_>>(bytes) }
    icmp(bytes) { has::<Icmp>(bytes) }
    icmp_of_ipv4(bytes) { parse_icmp(AddressFamily::V4, bytes).is_some() }
    icmp_of_ipv6(bytes) { parse_icmp(AddressFamily::V6, bytes).is_some() }
}

fn main() {
    let bytes: Vec<u8> = std::env::args().flat_map(String::into_bytes).collect();
    for (name, entry_point) in ENTRY_POINTS {
        println!("{name}: {}", entry_point(black_box(&bytes)));
    }
}
