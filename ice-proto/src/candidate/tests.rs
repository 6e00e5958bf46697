use alloc::string::ToString;

use super::*;

// spec: ICE-5.1.2.1-1, ICE-5.1.2.1-2, ICE-5.1.2-1
#[test]
fn candidate_priorities() {
    use CandidateKind::{Host, PeerReflexive, Relayed, ServerReflexive};
    for (kind, first, second) in [
        (Host, 2_130_706_431, 2_130_706_430),
        (PeerReflexive, 1_862_270_975, 1_862_270_974),
        (ServerReflexive, 1_694_498_815, 1_694_498_814),
        (Relayed, 16_777_215, 16_777_214),
    ] {
        assert_eq!(priority(kind, 65535, 1), first);
        assert_eq!(priority(kind, 65535, 2), second);
    }
    assert_eq!(priority(Host, 60000, 1), 2_129_289_471);
    assert_eq!(priority(ServerReflexive, 60000, 1), 1_693_081_855);
    assert_eq!(priority(Relayed, 60000, 1), 15_360_255);
}

// spec: ICE-6.1.2.3-1
#[test]
fn pair_priorities() {
    for (g, d, pair) in [
        (2_130_706_431, 2_130_706_431, 9_151_314_442_783_293_438),
        (2_130_706_430, 2_130_706_430, 9_151_314_438_488_326_140),
        (2_130_706_431, 1_694_498_815, 7_277_816_997_797_167_103),
        (1_694_498_815, 2_130_706_431, 7_277_816_997_797_167_102),
        (2_130_706_431, 1_862_270_975, 7_998_392_938_176_446_463),
        (1_694_498_815, 1_694_498_815, 7_277_816_996_924_751_870),
        (2_130_706_431, 16_777_215, 72_057_594_004_373_503),
        (16_777_215, 2_130_706_431, 72_057_594_004_373_502),
        (16_777_215, 16_777_215, 72_057_589_776_515_070),
        (1, 1, 4_294_967_298),
        (2_147_483_647, 2_147_483_647, 9_223_372_036_854_775_806),
    ] {
        assert_eq!(pair_priority(g, d), pair, "{g} {d}");
    }
}

// spec: ICE-5.1.1.1-2
#[test]
fn unusable_host_addresses() {
    for bad in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::192.0.2.1",
        "::ffff:192.0.2.1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!is_usable_host(bad.parse().unwrap(), false), "{bad}");
    }
    for good in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1", "fd00::1"] {
        assert!(is_usable_host(good.parse().unwrap(), false), "{good}");
    }
    assert!(is_usable_host("127.0.0.1".parse().unwrap(), true));
    assert!(is_usable_host("::1".parse().unwrap(), true));
}

// spec: DS-4-1
#[test]
fn families_take_turns() {
    let order = |text: &str| {
        let ips: Vec<IpAddr> = text
            .chars()
            .zip(1_u16..)
            .map(|(family, n)| match family {
                '4' => IpAddr::V4([192, 0, 2, n as u8].into()),
                _ => IpAddr::V6([0x2001, 0xdb8, 0, 0, 0, 0, 0, n].into()),
            })
            .collect();
        let mut ranked: Vec<_> = local_preferences(&ips).into_iter().zip(&ips).collect();
        ranked.sort();
        let mut unique: Vec<u16> = ranked.iter().map(|(p, _)| *p).collect();
        unique.dedup();
        assert_eq!(unique.len(), ips.len(), "unique");
        let families = ranked
            .iter()
            .rev()
            .map(|(_, ip)| if ip.is_ipv4() { '4' } else { '6' });
        families.collect::<String>()
    };
    assert_eq!(order("44666666"), "66664664");
    assert_eq!(order("4466"), "6644");
    assert_eq!(order("444"), "444");
    assert_eq!(order("666"), "666");
    assert_eq!(order("44446"), "64444");
    assert_eq!(order("466666"), "666664");
}

// spec: ICE-5.1.1.1-3
#[test]
fn a_temporary_address_hides_the_lasting_ones() {
    let address = |ip: &str, interface, temporary| InterfaceAddress {
        ip: ip.parse().unwrap(),
        interface,
        temporary,
    };
    let all = [
        address("192.0.2.1", 1, false),
        address("2001:db8:1::ee", 1, false),
        address("2001:db8:1::5", 1, true),
        address("2001:db8:2::7", 1, false),
        address("2001:db8:1::8", 2, false),
        address("fe80::1", 2, false),
        address("127.0.0.1", 3, false),
    ];
    let chosen: Vec<String> = host_addresses(&all, false)
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "192.0.2.1",
        "2001:db8:1::5",
        "2001:db8:2::7",
        "2001:db8:1::8",
    ];
    assert_eq!(chosen, expected);
    let lasting = [all[1], all[5]];
    assert_eq!(host_addresses(&lasting, false).len(), 2);
}
