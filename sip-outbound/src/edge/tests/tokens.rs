use proptest::prelude::*;

use super::*;

fn vector() -> (FlowTokenKeys, FlowToken) {
    let key: [u8; 32] = core::array::from_fn(|n| n as u8);
    let token = FlowToken {
        at: tuple(51044),
        serial: 0x1122_3344_5566_7788,
    };
    (FlowTokenKeys::new(&key), token)
}

// spec: OUT-5.1-3
#[test]
fn token_vector() {
    let (keys, token) = vector();
    assert_eq!(
        keys.issue(&token),
        "AQACBMAAAg8Bu8sAcQfHZBEiM0RVZneIQb-HnN4weegjNvbqvohg6Q"
    );
    assert_eq!(keys.open(&keys.issue(&token)), Ok(token));
    let v6 = FlowToken {
        at: FiveTuple {
            transport: Transport::Udp,
            local: "[2001:db8::15]:443".parse().unwrap(),
            remote: "[2001:db8:ffff::7]:51044".parse().unwrap(),
        },
        serial: 7,
    };
    assert_eq!(keys.issue(&v6).len(), 86);
    assert_eq!(keys.open(&keys.issue(&v6)), Ok(v6));
}

// spec: SEC-P-12, OUT-5.3.1-3
#[test]
fn every_flipped_bit_is_a_forgery() {
    let (keys, token) = vector();
    let text = keys.issue(&token);
    for at in 0..text.len() {
        for bit in 0..7 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            assert_eq!(keys.open(&text), Err(ForgedToken), "{text}");
        }
    }
    for text in [
        "",
        "A",
        "AQAC",
        &text[..53],
        &alloc::format!("{text}A"),
        &alloc::format!("{text}="),
    ] {
        assert_eq!(keys.open(text), Err(ForgedToken));
    }
}

#[test]
fn one_older_key_still_counts() {
    let (mut keys, token) = vector();
    let old = keys.issue(&token);
    keys.rotate(&[1; 32]);
    assert_ne!(keys.issue(&token), old);
    assert_eq!(keys.open(&old), Ok(token));
    keys.rotate(&[2; 32]);
    assert_eq!(keys.open(&old), Err(ForgedToken));
}

proptest! {
    // spec: SEC-P-12
    #[test]
    fn nobody_guesses_a_token(text in "[A-Za-z0-9_-]{0,90}") {
        prop_assert_eq!(vector().0.open(&text), Err(ForgedToken));
    }
}

#[test]
fn debug_output_shows_no_keys() {
    let key: [u8; 32] = core::array::from_fn(|n| 200 - n as u8);
    let without = alloc::format!("{:?}", config());
    assert!(without.contains("token_key: false, "), "{without}");
    let config = EdgeConfig {
        token_key: Some(key),
        ..config()
    };
    let edge = EdgeProxy::new(config.clone(), [7; 32], at(0)).unwrap();
    let shown = [
        alloc::format!("{config:?}"),
        alloc::format!("{config:#?}"),
        alloc::format!("{edge:?}"),
        alloc::format!("{:?}", edge.loop_key),
    ];
    for text in &shown {
        let numbers: Vec<_> = text
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse::<u8>().ok())
            .collect();
        let leaks = |key: &[u8]| {
            numbers
                .windows(4)
                .any(|four| key.windows(4).any(|k| k == four))
        };
        assert!(!leaks(&key), "{text}");
        assert!(!leaks(&edge.loop_key.0), "{text}");
    }
    assert!(shown[0].contains("token_key: true, "), "{}", shown[0]);
}
