//! Every file of the corpora, on a stable toolchain.

use std::fs;
use std::path::Path;

/// An entry function of the fuzzers.
type Entry = fn(&[u8]);

const ENTRIES: [(&str, Entry); 15] = [
    ("parse_stun", fuzz::stun::parse_stun),
    ("ops_stun_message", fuzz::stun::ops_stun_message),
    ("ops_stun_stream", fuzz::stun::ops_stun_stream),
    ("parse_turn", fuzz::turn::parse_turn),
    ("ops_turn_client", fuzz::turn::ops_turn_client),
    ("ops_turn_server", fuzz::turn::ops_turn_server),
    ("parse_ice", fuzz::ice::parse_ice),
    ("ops_ice_session", fuzz::ice::ops_ice_session),
    ("parse_http", fuzz::connect::parse_http),
    ("ops_connect_client", fuzz::connect::ops_connect_client),
    ("ops_connect_proxy", fuzz::connect::ops_connect_proxy),
    ("parse_sip", fuzz::sip::parse_sip),
    ("ops_sip_agent", fuzz::sip::ops_sip_agent),
    ("ops_sip_edge", fuzz::sip::ops_sip_edge),
    ("ops_sip_registrar", fuzz::sip::ops_sip_registrar),
];

#[test]
fn corpora_are_replayed() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, entry) in ENTRIES {
        let files = fs::read_dir(corpora.join(name)).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no corpus for {name}");
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let run = std::panic::catch_unwind(|| entry(&bytes));
            assert!(run.is_ok(), "{} fails", file.display());
        }
    }
}

/// The torture tests of RFC 4475 and RFC 5118 are where SIP is tested.
#[test]
fn torture_messages_are_replayed() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sip-outbound/tests/torture");
    for rfc in ["rfc4475", "rfc5118"] {
        for file in fs::read_dir(tests.join(rfc)).unwrap() {
            let file = file.unwrap().path();
            let bytes = fs::read(&file).unwrap();
            let run = std::panic::catch_unwind(|| fuzz::sip::parse_sip(&bytes));
            assert!(run.is_ok(), "{} fails", file.display());
        }
    }
}

/// Every target has an entry here, and every entry a target.
#[test]
fn targets_and_entries_are_the_same() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("cargo-fuzz/fuzz_targets");
    let mut targets: Vec<String> = fs::read_dir(targets)
        .unwrap()
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort();
    let mut entries: Vec<_> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    entries.sort();
    assert_eq!(targets, entries);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn arbitrary_bytes_are_a_run(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        for (_, entry) in ENTRIES {
            entry(&bytes);
        }
    }
}
