//! Tests of the configuration.
#![allow(clippy::unwrap_used, reason = "test code")]

use clap::Parser as _;

use super::*;
use crate::args::Args;
use crate::setup::{self, Setup};

const EXAMPLE: &str = include_str!("../turn-server.toml");

fn args(line: &[&str]) -> Config {
    Args::parse_from([&["turn-server"], line].concat())
        .config()
        .unwrap()
}

/// A configuration with which the server starts, on loopback.
fn working() -> Config {
    args(&[
        "--udp=127.0.0.1:0",
        "--relay=127.0.0.1",
        "--realm=example.org",
        "--user=alice:secret",
    ])
}

fn refused(config: &Config) -> String {
    match Setup::new(config) {
        Ok(_) => panic!("accepted"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn the_example_is_read_and_says_the_defaults() {
    let config = Config::parse(EXAMPLE).unwrap();
    assert_eq!(config.listen.tls.len(), 3);
    let said = format!(
        "{:?}",
        (config.limits, config.peers, config.protocol, config.drain)
    );
    let plain = Config::default();
    let default = format!(
        "{:?}",
        (plain.limits, plain.peers, plain.protocol, plain.drain)
    );
    assert_eq!(said, default);
}

#[test]
fn every_key_of_the_example_that_is_commented_out_is_one() {
    let mut found = 0;
    for line in EXAMPLE.lines() {
        let Some(key) = line.strip_prefix("# ") else {
            continue;
        };
        if key
            .split_once(" = ")
            .is_none_or(|(name, _)| name.contains(' '))
        {
            continue;
        }
        found += 1;
        let whole = EXAMPLE.replace(line, key);
        Config::parse(&whole).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    assert_eq!(found, 10);
}

#[test]
fn unknown_keys_are_errors_with_line_and_name() {
    for (text, line, key) in [
        ("[listen]\nudp = []\nsctp = []\n", "line 3", "sctp"),
        ("[limit]\n", "line 1", "limit"),
        ("[limits]\n\nallocation = 5\n", "line 3", "allocation"),
        ("workers = 2\nworker = 3\n", "line 2", "worker"),
    ] {
        let error = Config::parse(text).unwrap_err().to_string();
        assert!(error.contains(line), "{error}");
        assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
    }
    let error = Config::parse("[relay]\nports = [1]\n").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn flags_replace_what_the_file_says() {
    let file = std::env::temp_dir().join(format!("turn-server-{}.toml", std::process::id()));
    std::fs::write(&file, EXAMPLE).unwrap();
    let given = format!("--config={}", file.display());
    let config = args(&[
        &given,
        "--udp=127.0.0.1:3478",
        "--realm=other.org",
        "--max-per-user=3",
        "--relay=10.0.0.1",
        "--external=203.0.113.1",
        "--json",
    ]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(config.listen.udp, ["127.0.0.1:3478".parse().unwrap()]);
    assert_eq!(config.listen.tls.len(), 3);
    assert_eq!(config.users.realm, "other.org");
    assert_eq!(config.limits.allocations_per_user, 3);
    assert_eq!(config.log.format, Format::Json);
    let external = config.relay.external.into_iter().collect::<Vec<_>>();
    assert_eq!(
        external,
        [("10.0.0.1".parse().unwrap(), "203.0.113.1".parse().unwrap())]
    );
}

#[test]
fn contradictions_are_refused_before_anything_starts() {
    let check = |change: fn(&mut Config), said: &str| {
        let mut config = working();
        change(&mut config);
        let error = refused(&config);
        assert!(error.contains(said), "{error}");
    };
    assert!(Setup::new(&working()).is_ok());
    check(|c| c.listen.udp.clear(), "nowhere to listen");
    check(|c| c.relay.addresses.clear(), "no address for relays");
    check(
        |c| c.relay.addresses = vec!["0.0.0.0".parse().unwrap()],
        "wildcard",
    );
    check(
        |c| c.listen.tls = vec!["127.0.0.1:0".parse().unwrap()],
        "needs tls.certificate",
    );
    check(|c| c.drain.answer = Answer::Redirect, "no [redirect]");
    check(
        |c| {
            c.protocol.mobility = true;
            c.workers = 2;
        },
        "needs workers = 1",
    );
    check(|c| c.users.list.clear(), "no users");
    check(|c| c.users.list = vec!["alice".to_owned()], "NAME:PASSWORD");
    check(|c| c.users.list = vec!["a:0x12".to_owned()], "32 or 64");
    check(
        |c| c.users.algorithms = vec![Algorithm::Sha256],
        "algorithms",
    );
    check(
        |c| c.peers.allow = vec!["10.0.0.0/33".to_owned()],
        "peers.allow",
    );
    check(|c| c.limits.allocations = 0, "zero");
    check(|c| c.limits.max_lifetime = 60, "lifetimes");
    check(|c| c.relay.ports = (0, 9), "ports");
    check(
        |c| c.relay.external = [("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())].into(),
        "relay.external",
    );
    check(
        |c| c.users.secrets = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(),
        "at most four",
    );
}

#[test]
fn a_wrong_user_is_named_without_the_password() {
    let mut config = working();
    config.users.list = vec!["bob:0xsecretkey".to_owned()];
    let error = refused(&config);
    assert!(
        error.contains("bob") && !error.contains("secretkey"),
        "{error}"
    );
    config.users.list = vec!["only-a-password".to_owned()];
    assert!(
        !refused(&config).contains("password"),
        "{}",
        refused(&config)
    );
}

#[test]
fn a_wrong_line_of_a_users_file_is_named_with_file_and_line() {
    let dir = std::env::temp_dir().join(format!("turn-server-users-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("users");
    for (line, what) in [("no-colon-secretkey", "NAME:"), ("bob:0xsecretkey", "hex")] {
        std::fs::write(&file, format!("# users\nalice:secret\n\n{line}\n")).unwrap();
        let mut config = working();
        config.users.file = Some(file.clone());
        let error = refused(&config);
        assert!(
            error.contains("users, line 4") && error.contains(what),
            "{error}"
        );
        assert!(!error.contains("secretkey"), "{error}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_empty_certificate_file_is_no_certificate() {
    let dir = std::env::temp_dir().join(format!("turn-server-empty-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, "").unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut config = working();
    config.tls.certificate = Some(certificate);
    config.tls.key = Some(key);
    let error = refused(&config);
    assert!(error.contains("no certificate in"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_first_secret_is_the_one_in_use() {
    let mut config = working();
    config.users.secrets = vec!["new".to_owned(), "old".to_owned()];
    let rest = setup::keys(&config).unwrap().rest.unwrap();
    let only_new = turn_proto::server::RestUsers::new("new");
    let password =
        |users: &turn_proto::server::RestUsers| users.password(b"1:alice").expose().to_owned();
    assert_eq!(password(&rest), password(&only_new));
}
