use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use http_connect::auth::Credentials;
use ims_traversal::Endpoint;
use ims_traversal::access::{AccessEvent, RungFailure};
use ims_traversal::ladder::{LadderConfig, NetworkKey, Rung};
use ims_traversal::pcscf::PcscfEvent;
use ims_traversal::tunnel::TunnelError;
use sip_outbound::UserAgentEvent;

use super::world::{
    ONLY_443, ONLY_PROXY, Reach, Rules, World, config, http_proxy, pcscf, proxy_config,
};

/// Whether what was sent over a connection holds this in the clear.
fn holds(sent: &[u8], text: &str) -> bool {
    sent.windows(text.len()).any(|part| part == text.as_bytes())
}

/// No SIP, and nothing that belongs to the SIP user, is to be seen by anybody on the way.
pub fn assert_hidden(world: &World) {
    for sent in world.sent() {
        for text in ["SIP/2.0", "REGISTER", "alice", "Digest", "urn:uuid"] {
            assert!(!holds(sent, text), "{text}: {}", sent.escape_ascii());
        }
    }
}

fn keep_alive(world: &World) -> Option<Duration> {
    world.events.iter().rev().find_map(|event| match event {
        AccessEvent::Agent(UserAgentEvent::Registered { registration, .. }) => {
            registration.keep_alive
        }
        _ => None,
    })
}

// spec: W-2-1, SEED-2.1-1, SEED-2.1-2, E-3.1.0-3, E-3.1.0-4, T-5.2.2-1, MEM-33.203-O-1, PRI-2-1
#[test]
fn with_443_only_sip_goes_over_tls_to_443() {
    for piece in [4096, 1] {
        let mut world = World::new(config(1, false), ONLY_443);
        world.piece = piece;
        world.start();
        assert_eq!(
            world.story(),
            "ordinary/TLS pcscf1, (connection refused), direct pcscf1, ready, registered 1"
        );
        assert_eq!(
            world.dialled,
            ["pcscf1.ims.example:5061", "pcscf1.ims.example:443"]
        );
        assert!(world.tunnels.is_empty());
        assert_hidden(&world);
    }
}

// spec: SEED-2.1-4, T-5.2.2-1, PRI-3-2, MEM-33.310-1
#[test]
fn each_flow_has_a_connect_and_tls_of_its_own() {
    for piece in [4096, 1] {
        let mut world = World::new(config(2, true), ONLY_PROXY);
        world.piece = piece;
        world.start();
        assert_eq!(world.registered(), 2);
        let targets: Vec<_> = world.tunnels.iter().map(|(_, to)| to.as_str()).collect();
        assert_eq!(
            targets,
            ["pcscf1.ims.example:443", "pcscf2.ims.example:443"]
        );
        let conns: BTreeSet<_> = world.tunnels.iter().map(|(conn, _)| *conn).collect();
        let ready: BTreeSet<_> = world
            .events
            .iter()
            .filter_map(|event| match event {
                AccessEvent::Ready {
                    flow, via_proxy, ..
                } => via_proxy.then_some(*flow),
                _ => None,
            })
            .collect();
        assert_eq!((conns.len(), ready.len()), (2, 2));
        assert_eq!(conns.into_iter().collect::<Vec<_>>(), world.open());
        // The name in the ClientHello is the P-CSCF's.
        let names: Vec<_> = world
            .heard
            .iter()
            .filter_map(|event| match event {
                PcscfEvent::Ready { name, .. } => name.clone(),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["pcscf1.ims.example", "pcscf2.ims.example"]);
        // CONNECT, its answer, and then nothing but TLS.
        for sent in world
            .sent()
            .iter()
            .filter(|sent| holds(sent, "Proxy-Authorization"))
        {
            assert!(sent.starts_with(b"CONNECT pcscf"));
            let end = sent
                .windows(4)
                .rposition(|part| part == b"\r\n\r\n")
                .unwrap()
                + 4;
            assert_eq!(sent[end..end + 2], [0x16, 0x03]);
        }
        assert_hidden(&world);
    }
}

// spec: MEM-33.310-1
#[test]
fn only_tls_1_2_and_1_3_with_ecdhe_and_aead_are_offered() {
    let mut world = World::new(config(1, false), ONLY_443);
    world.start();
    let hello = world.sent()[0].to_vec();
    // supported_versions: 1.3 and 1.2, nothing else.
    assert!(
        hello
            .windows(9)
            .any(|part| part == [0, 43, 0, 5, 4, 3, 4, 3, 3])
    );
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    let hello = accepted.client_hello();
    assert_eq!(hello.server_name(), Some("pcscf1.ims.example"));
    assert!(hello.alpn().is_none());
    for suite in hello.cipher_suites() {
        let name = format!("{suite:?}");
        let ecdhe = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
        let aead = name.contains("_GCM_") || name.contains("_POLY1305_");
        assert!((ecdhe && aead) || name.contains("SCSV"), "{name}");
    }
}

// spec: PRI-2-3, MEM-33.203-O-1
#[test]
fn a_certificate_for_another_name_ends_the_way_before_any_sip() {
    for proxy in [false, true] {
        let rules = if proxy { ONLY_PROXY } else { ONLY_443 };
        let mut world = World::new(config(1, proxy), rules);
        world.pcscfs[0] = pcscf(1, 0, |_| {});
        world.start();
        let intercepted = world.events.iter().any(|event| {
            let AccessEvent::RungFailed { rung, cause, .. } = event else {
                return false;
            };
            let way = if proxy { Rung::Connect } else { Rung::Direct };
            *rung == way && matches!(cause, RungFailure::Intercepted(_))
        });
        assert!(intercepted);
        let story = world.story();
        assert!(
            story.contains("exhausted") && !story.contains("ready"),
            "{story}"
        );
        // The portal did not even see the end of the handshake.
        let ready = |event: &PcscfEvent| matches!(event, PcscfEvent::Ready { .. });
        assert!(!world.heard.iter().any(ready));
        assert_hidden(&world);
        // Nor later.
        world.run_for(600);
        assert_eq!(world.registered(), 0);
        assert!(!world.heard.iter().any(ready));
        assert_hidden(&world);
    }
}

// spec: MEM-33.203-O-1
#[test]
fn a_certificate_of_an_unknown_issuer_ends_the_way_before_any_sip() {
    let mut config = config(1, false);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    config.tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
        .into();
    let mut world = World::new(config, ONLY_443);
    world.start();
    let untrusted = world.events.iter().any(|event| {
        let AccessEvent::RungFailed { cause, .. } = event else {
            return false;
        };
        matches!(cause, RungFailure::Tls(TunnelError::Certificate(_)))
    });
    assert!(untrusted && world.story().ends_with("exhausted, [could not be opened]"));
    assert_hidden(&world);
    let ready = |event: &PcscfEvent| matches!(event, PcscfEvent::Ready { .. });
    assert!(!world.heard.iter().any(ready));
}

#[test]
fn alpn_is_offered_when_wanted() {
    let mut config = config(1, false);
    config.sip_alpn = true;
    let mut world = World::new(config, ONLY_443);
    world.start();
    assert!(
        world
            .story()
            .ends_with("direct pcscf1, ready sip/2, registered 1")
    );
}

// spec: PRI-3-1
#[test]
fn keep_alives_are_as_frequent_as_the_way_needs() {
    for (proxy, flow_timer, expected) in [
        (false, 300, 120),
        (false, 30, 30),
        (true, 300, 50),
        (true, 30, 30),
    ] {
        let rules = if proxy { ONLY_PROXY } else { ONLY_443 };
        let mut config = config(1, proxy);
        // The host's own wish for batteries does not count on this way.
        config.agent.keep_alive.stream = Duration::from_secs(840);
        config.agent.keep_alive.cap = Duration::from_secs(840);
        let mut world = World::new(config, rules);
        world.pcscfs[0] = pcscf(1, 1, |config| config.edge.flow_timer = Some(flow_timer));
        world.start();
        let found = keep_alive(&world);
        assert_eq!(
            found,
            Some(Duration::from_secs(expected)),
            "{proxy} {flow_timer}"
        );
    }
}

#[test]
fn a_registration_lasts_for_a_day_over_one_connection() {
    let mut world = World::new(config(2, true), ONLY_PROXY);
    world.start();
    let open = world.open();
    world.events.clear();
    world.run_for(86_400);
    assert_eq!(world.open(), open);
    let story = world.story();
    assert!(!story.contains('(') && !story.contains('['), "{story}");
    // Granted 3,600 s, refreshed 600 s before.
    assert_eq!(story.matches("registered").count(), 2 * 28);
    world.access.stop(world.now);
    world.settle();
    assert_eq!(world.story(), "stopped");
    assert!(world.open().is_empty() && world.access.poll_timeout().is_none());
    for pcscf in &world.pcscfs {
        assert_eq!(pcscf.binding_count(), 0);
    }
}

// spec: PRI-3-3, PRI-2-2
#[test]
fn a_lost_tls_session_is_made_anew_on_the_same_way_and_reg_id() {
    let mut world = World::new(config(1, false), ONLY_443);
    world.start();
    // A pong has proven the flow by then.
    world.run_for(100);
    world.story();
    world.reset(world.open()[0]);
    world.settle();
    assert_eq!(
        world.story(),
        "[closed by the other side], direct pcscf1, ready, registered 1"
    );
    assert_eq!(world.pcscfs[0].binding_count(), 1);
    let by_alert = world.open()[0];
    world.run_for(100);
    world.story();
    // The other side ends TLS in good order, and comes back.
    world.pcscfs[0].shut_down(world.now);
    world.run_for(6);
    assert!(!world.open().contains(&by_alert));
    let story = world.story();
    assert!(
        story.starts_with("[closed by the other side], direct pcscf1, (connection refused)"),
        "{story}"
    );
    world.pcscfs[0] = pcscf(1, 1, |_| {});
    assert!(world.run_until(61, |world| world.registered() == 1));
}

// spec: PRI-10-1
#[test]
fn a_proxy_that_forgets_idle_tunnels_is_learned() {
    let mut world = World::new(config(1, true), ONLY_PROXY);
    let mut proxy = proxy_config();
    proxy.limits.idle_timeout = Some(Duration::from_secs(41));
    world.proxy = Arc::new(proxy);
    world.start();
    world.run_for(3600);
    assert!(world.story().contains("[closed by the other side]"));
    world.run_for(7200);
    let story = world.story();
    assert!(
        story.contains("registered 1") && !story.contains('['),
        "{story}"
    );
}

#[test]
fn credentials_are_asked_for_once_for_all_flows() {
    let mut config = config(2, true);
    config.proxy = Some(http_proxy(None));
    let mut world = World::new(config, ONLY_PROXY);
    world.start();
    assert!(
        world
            .story()
            .ends_with("connect pcscf2, credentials for corp?, credentials for corp?")
    );
    world
        .access
        .set_proxy_credentials(world.now, Some(Credentials::new("user", "pass")));
    world.settle();
    assert_eq!(
        world.story(),
        "ready via proxy, ready via proxy, registered 1, registered 2"
    );
    // Nobody is asked again.
    world.access.network_changed(world.now, NetworkKey(1));
    world.settle();
    assert!(!world.story().contains('?'));
    assert_eq!(world.open().len(), 2);
}

#[test]
fn what_a_proxy_wants_is_learned_once() {
    let mut world = World::new(config(1, true), ONLY_PROXY);
    world.start();
    let dials = |world: &mut World| {
        let count = world
            .dialled
            .iter()
            .filter(|to| to.contains("proxy"))
            .count();
        world.dialled.clear();
        count
    };
    // Challenged, and connected to again.
    assert_eq!(dials(&mut world), 2);
    world.access.network_changed(world.now, NetworkKey(1));
    world.settle();
    assert_eq!((dials(&mut world), world.registered()), (1, 2));
    // Another proxy does not get to see it.
    let mut other = http_proxy(Some(Credentials::new("user", "pass")));
    other.endpoint = Endpoint::Name {
        host: "proxy.other.example".into(),
        port: 3128,
    };
    world.access.set_proxy(Some(other));
    world.access.network_changed(world.now, NetworkKey(1));
    world.settle();
    assert_eq!((dials(&mut world), world.registered()), (2, 3));
}

#[test]
fn nonces_are_counted_whatever_the_order_of_the_flows() {
    let mut world = World::new(config(2, true), ONLY_PROXY);
    world.ask_for_digest();
    world.start();
    for _ in 0..5 {
        // Both flows at once, and one after the other.
        world.events.clear();
        world.access.network_changed(world.now, NetworkKey(1));
        world.settle();
        assert_eq!(world.registered(), 2);
        world.run_for(200);
        world.events.clear();
        for conn in world.open() {
            world.reset(conn);
            world.settle();
        }
        assert_eq!(world.registered(), 2);
    }
    assert!(!world.story().contains('('));
}

#[test]
fn wrong_credentials_are_not_sent_again() {
    let mut config = config(1, true);
    config.proxy = Some(http_proxy(Some(Credentials::new("user", "wrong"))));
    let mut world = World::new(config, ONLY_PROXY);
    world.start();
    let story = world.story();
    assert!(
        story.contains("user name or password was rejected"),
        "{story}"
    );
    assert!(story.contains("exhausted"), "{story}");
    assert!(world.run_until(120, |world| {
        let asked = |event: &AccessEvent| matches!(event, AccessEvent::ProxyCredentials { .. });
        world.events.iter().any(asked)
    }));
    world.access.set_proxy_credentials(world.now, None);
    world.settle();
    let story = world.story();
    assert!(
        story.contains("credentials are asked for and there are none"),
        "{story}"
    );
}

#[test]
fn a_proxy_that_forbids_one_p_cscf_is_asked_for_another() {
    let mut world = World::new(config(2, true), ONLY_PROXY);
    let mut proxy = proxy_config();
    proxy.hosts = vec!["pcscf2.ims.example".into(), "pcscf3.ims.example".into()];
    world.proxy = Arc::new(proxy);
    world.start();
    let story = world.story();
    assert!(
        story.contains("(the proxy refused: status 403), connect pcscf2"),
        "{story}"
    );
    assert_eq!(world.pcscfs[1].binding_count(), 2);

    // Better one that has nothing to do yet.
    let mut world = World::new(config(3, true), ONLY_PROXY);
    let mut proxy = proxy_config();
    proxy.hosts = vec!["pcscf2.ims.example".into(), "pcscf3.ims.example".into()];
    world.proxy = Arc::new(proxy);
    world.start();
    let bound: Vec<_> = world
        .pcscfs
        .iter()
        .map(|pcscf| pcscf.binding_count())
        .collect();
    assert_eq!(bound, [0, 1, 1]);

    // All of them: the way has failed.
    let mut world = World::new(config(2, true), ONLY_PROXY);
    let mut proxy = proxy_config();
    proxy.hosts = vec!["elsewhere.example".into()];
    world.proxy = Arc::new(proxy);
    world.start();
    assert_eq!(world.story().matches("status 403").count(), 4);
    assert_eq!(world.open().len(), 0);
}

// spec: PRI-2-2, PRI-2-1
#[test]
fn another_network_is_another_climb() {
    let mut world = World::new(config(1, false), ONLY_443);
    world.start();
    world.story();
    // The proxy's network: nothing is known of it.
    world.rules = ONLY_PROXY;
    world
        .access
        .set_proxy(Some(http_proxy(Some(Credentials::new("user", "pass")))));
    world.access.network_changed(world.now, NetworkKey(2));
    world.settle();
    assert_eq!(
        world.story(),
        "[network changed], ordinary/TLS pcscf1, (connection refused), connect pcscf1, \
         ready via proxy, registered 1"
    );
    assert_eq!(world.open().len(), 1);
    // Back again, and what worked there is tried first.
    world.rules = ONLY_443;
    world.access.set_proxy(None);
    world.access.network_changed(world.now, NetworkKey(1));
    world.settle();
    assert_eq!(
        world.story(),
        "[network changed], direct pcscf1, ready, registered 1"
    );
    // A network that lets everything pass, a day later: the better way is found.
    world.rules.ordinary = Reach::Open;
    world.run_for(86_400);
    world.story();
    world.access.network_changed(world.now, NetworkKey(1));
    world.settle();
    assert_eq!(
        world.story(),
        "[network changed], ordinary/TLS pcscf1, ready, registered 1"
    );
}

// spec: PRI-2-1
#[test]
fn silence_costs_15_seconds_and_nothing_open_is_reported() {
    let closed = Rules {
        ordinary: Reach::Silent,
        web: Reach::Silent,
        proxy: Reach::Silent,
    };
    let mut world = World::new(config(1, false), closed);
    world.start();
    world.run_for(14);
    assert_eq!(world.story(), "ordinary/TLS pcscf1");
    world.run_for(1);
    assert_eq!(world.story(), "(timed out), direct pcscf1");
    world.run_for(15);
    assert_eq!(
        world.story(),
        "(timed out), exhausted, [could not be opened]"
    );
    // RFC 5626: 30 to 60 s after the first failure.
    world.rules = ONLY_443;
    assert!(world.run_until(61, |world| world.registered() == 1));
}

// spec: MEM-5.1.1.2-4
#[test]
fn a_p_cscf_that_is_down_is_replaced_by_a_spare_one() {
    let mut config = config(3, false);
    config.ladder = LadderConfig {
        rungs: vec![Rung::Direct],
        ..LadderConfig::default()
    };
    let mut world = World::new(config, ONLY_443);
    world.down = vec![1];
    world.start();
    assert_eq!(
        world.story(),
        "direct pcscf1, direct pcscf2, (connection refused), exhausted, [could not be opened], \
         direct pcscf3, ready, ready, registered 2, registered 1"
    );
    // When all are down the wait of RFC 5626 counts.
    world.down = vec![1, 2, 3];
    for conn in world.open() {
        world.reset(conn);
    }
    world.settle();
    assert_eq!(world.access.poll_action(), None);
    world.story();
    world.down = vec![1];
    assert!(world.run_until(130, |world| world.registered() == 2));
}
