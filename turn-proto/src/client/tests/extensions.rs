//! Two families, reserved ports, tokens of third parties.

use super::*;
use crate::wire::{
    AccessToken, AdditionalAddressFamily, AddressErrorCode, EvenPort, RequestedAddressFamily,
    ReservationToken, ThirdPartyAuthorization,
};

const V4: AddressFamily = AddressFamily::V4;
const V6: AddressFamily = AddressFamily::V6;

fn ask_for_two() -> (Rig, Seen) {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        additional_v6: true,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    let wish: AdditionalAddressFamily = request.message().find().unwrap();
    assert_eq!(wish, AdditionalAddressFamily(V6));
    assert_eq!(request.message().find::<RequestedAddressFamily>(), None);
    (rig, request)
}

fn two() -> Rig {
    let (mut rig, request) = ask_for_two();
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&XorRelayedAddress(addr("[2001:db8::15]:50000")))
            .attribute(&Lifetime(600))
    });
    let Some(Event::Allocated {
        additional,
        refused,
        ..
    }) = rig.event()
    else {
        panic!("not allocated");
    };
    assert_eq!(additional, Some(addr("[2001:db8::15]:50000")));
    assert_eq!(refused, None);
    rig
}

// spec: TURN-7.1-4, TURN-8.1-1
#[test]
fn both_families_are_refreshed_together() {
    let mut rig = two();
    rig.permit("192.0.2.1");
    rig.permit("2001:db8::1");
    let seen = rig.run(540, |rig, request| rig.serve(request));
    let refresh = seen.iter().find(|s| s.method() == wire::REFRESH).unwrap();
    assert_eq!(refresh.message().find::<RequestedAddressFamily>(), None);
    let batch = seen
        .iter()
        .find(|s| s.method() == wire::CREATE_PERMISSION)
        .unwrap();
    assert_eq!(batch.peers().len(), 2);
}

// spec: TURN-8.1-1
#[test]
fn one_family_can_be_given_back() {
    for code in [None, Some(443)] {
        let mut rig = two();
        rig.permit("192.0.2.1");
        rig.bind("[2001:db8::1]:7");
        rig.client.release_family(rig.now, V6).unwrap();
        let request = rig.request();
        let family: RequestedAddressFamily = request.message().find().unwrap();
        assert_eq!((request.lifetime(), family.0), (Some(0), V6));
        match code {
            None => rig.refresh_ok(&request, 0),
            Some(code) => rig.error(&request, code),
        }
        let released = Event::FamilyReleased { family: V6 };
        assert_eq!(rig.event(), Some(released));
        assert!(rig.client.is_permitted(ip("192.0.2.1")));
        assert!(!rig.client.is_permitted(ip("2001:db8::1")));
        let gone = rig.client.create_permission(rig.now, ip("2001:db8::2"));
        assert_eq!(gone, Err(ClientError::Family));
        let one = rig.client.release_family(rig.now, V4);
        assert_eq!(one, Err(ClientError::State));
        let seen = rig.run(700, |rig, request| rig.serve(request));
        assert!(seen.iter().all(|s| s.method() != wire::CHANNEL_BIND));
        assert_eq!(rig.event(), None);
    }
}

// spec: TURN-7.3-3
#[test]
fn one_family_of_two_can_be_refused() {
    for (said, expected) in [(Some(508), 508), (Some(440), 440), (None, 440)] {
        let (mut rig, request) = ask_for_two();
        rig.answer(&request, Class::Success, true, |w| {
            let error = said.map(|code| AddressErrorCode {
                family: V6,
                error: ErrorCode::new(code),
            });
            w.attribute(&XorRelayedAddress(addr(RELAYED)))
                .attribute(&Lifetime(600))
                .maybe(error.as_ref())
        });
        let Some(Event::Allocated {
            additional: None,
            refused,
            ..
        }) = rig.event()
        else {
            panic!("not allocated");
        };
        assert_eq!(refused, Some((V6, expected)));
        let other = rig.client.create_permission(rig.now, ip("2001:db8::1"));
        assert_eq!(other, Err(ClientError::Family));
    }
}

// spec: TURN-7.1-3
#[test]
fn a_family_is_asked_for_and_not_again_where_it_is_unknown() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        family: Some(V4),
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    let families = request.message().get_all::<RequestedAddressFamily>();
    assert_eq!(families.count(), 1);
    // A server of RFC 5766 does not know the attribute: IPv4 is all it has.
    rig.answer(&request, Class::Error, true, |w| {
        let unknown = stun_proto::wire::AttributeType(0x0017);
        let list = stun_proto::wire::UnknownAttributes([unknown].into_iter().collect());
        w.attribute(&ErrorCode::new(420)).attribute(&list)
    });
    let again = rig.request();
    assert_eq!(again.message().find::<RequestedAddressFamily>(), None);
}

// spec: TURN-7.1-5, TURN-7.2-11
#[test]
fn a_port_can_be_reserved_and_asked_for() {
    let mut rig = Rig::new();
    let options = AllocateOptions {
        even_port: Some(true),
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    let even: EvenPort = request.message().find().unwrap();
    assert!(even.reserve_next);
    rig.answer(&request, Class::Success, true, |w| {
        w.attribute(&XorRelayedAddress(addr(RELAYED)))
            .attribute(&Lifetime(600))
            .attribute(&ReservationToken(*b"12345678"))
    });
    let Some(Event::Allocated { reservation, .. }) = rig.event() else {
        panic!("not allocated");
    };
    assert_eq!(reservation, Some(*b"12345678"));
    let mut rig = Rig::with(config(), udp_path(40001), Transport::Udp);
    let options = AllocateOptions {
        reservation,
        ..AllocateOptions::default()
    };
    let request = rig.ask(options);
    let token = request.message().find();
    assert_eq!(token, Some(ReservationToken(*b"12345678")));
    assert_eq!(request.message().find::<EvenPort>(), None);
}

fn third_party() -> (Rig, Seen) {
    let config = ClientConfig {
        third_party: true,
        ..config()
    };
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
    rig.client
        .allocate(rig.now, AllocateOptions::default())
        .unwrap();
    let first = rig.request();
    ask_for_token(&mut rig, &first);
    assert_eq!(rig.event(), Some(Event::TokenNeeded));
    assert_eq!(rig.client.token_server(), Some("blackdow.carleon.gov"));
    assert!(rig.try_request().is_none());
    assert_eq!(rig.client.poll_timeout(), None);
    rig.client
        .set_token(rig.now, "kid-1", b"mac key 1", b"token 1")
        .unwrap();
    let again = rig.request();
    assert!(!again.message().has_integrity());
    assert_eq!(again.message().find::<AccessToken<'_>>(), None);
    ask_for_token(&mut rig, &again);
    let authenticated = rig.request();
    rig.key = Key::from_bytes(b"mac key 1");
    (rig, authenticated)
}

fn ask_for_token(rig: &mut Rig, to: &Seen) {
    rig.answer(to, Class::Error, false, |w| {
        w.attribute(&ErrorCode::new(401))
            .attribute(&Realm::new(REALM).unwrap())
            .attribute(&Nonce::new("nonce-1").unwrap())
            .attribute(&ThirdPartyAuthorization(b"blackdow.carleon.gov"))
    });
}

// spec: 7635-5-1, 7635-6.1-1, 7635-9-1
#[test]
fn a_token_takes_the_place_of_credentials() {
    let (mut rig, request) = third_party();
    let message = request.message();
    let username: stun_proto::wire::Username<'_> = message.find().unwrap();
    assert_eq!(username.as_str(), Some("kid-1"));
    assert_eq!(message.find(), Some(AccessToken(b"token 1")));
    message.verify(&rig.key).unwrap();
    rig.allocate_ok(&request);
    assert!(matches!(rig.event(), Some(Event::Allocated { .. })));
    // In Allocate and Refresh only.
    rig.client
        .create_permission(rig.now, ip("192.0.2.1"))
        .unwrap();
    let permission = rig.request();
    assert_eq!(permission.message().find::<AccessToken<'_>>(), None);
    permission.message().verify(&rig.key).unwrap();
    rig.ok(&permission);
    let seen = rig.run(540, |rig, request| {
        if request.method() != wire::REFRESH {
            rig.serve(request);
        }
    });
    let refresh = seen.iter().find(|s| s.method() == wire::REFRESH).unwrap();
    assert_eq!(refresh.message().find(), Some(AccessToken(b"token 1")));
}

// spec: 7635-9-1
#[test]
fn an_expired_token_is_replaced_without_losing_the_allocation() {
    let (mut rig, request) = third_party();
    rig.allocate_ok(&request);
    rig.event();
    let refresh = rig.advance(540)[0].clone();
    ask_for_token(&mut rig, &refresh);
    assert_eq!(rig.event(), Some(Event::TokenNeeded));
    rig.client
        .set_token(rig.now, "kid-2", b"mac key 2", b"token 2")
        .unwrap();
    rig.key = Key::from_bytes(b"mac key 2");
    // The server has asked before: the proof goes along at once.
    let again = rig.request();
    assert_eq!(again.message().find(), Some(AccessToken(b"token 2")));
    again.message().verify(&rig.key).unwrap();
    rig.refresh_ok(&again, 600);
    assert_eq!(rig.event(), None);
    rig.advance(1000);
    assert!(rig.events().is_empty());
}

// Trap U23: an allocation stays with the user it was made for.
#[test]
fn an_allocation_made_with_credentials_takes_no_token() {
    let mut rig = Rig::allocated();
    let token = rig.client.set_token(rig.now, "kid", b"key", b"token");
    assert_eq!(token, Err(ClientError::State));
    assert!(rig.advance(540)[0].message().verify(&rig.key).is_ok());
}

// spec: SEC-G-15
#[test]
fn secrets_do_not_show_in_debug() {
    let credentials = Credentials::new("user", "canary-password");
    let config = ClientConfig::new(Some(credentials));
    let mut rig = Rig::with(config, udp_path(40000), Transport::Udp);
    rig.client
        .set_token(rig.now, "kid", b"canary-mac-key", b"canary-token")
        .unwrap();
    let text = alloc::format!("{:?}", rig.client);
    for canary in ["canary", "99, 97, 110, 97, 114, 121"] {
        assert!(!text.contains(canary), "{text}");
    }
}
