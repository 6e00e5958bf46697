//! A connection is cut at every place of the exchange.

use std::collections::BTreeSet;

use ims_traversal::access::AccessEvent;

use super::registering::assert_hidden;
use super::world::{ONLY_443, ONLY_PROXY, Rules, World, config};

/// After the first failure the next attempt begins within 60 s (RFC 5626 section 4.5), and takes
/// no time here.
const BOUND: u64 = 60;

/// How many bytes a registration takes.
fn whole(rules: Rules, proxy: bool) -> u64 {
    let mut world = World::new(config(1, proxy), rules);
    world.start();
    assert_eq!(world.registered(), 1);
    world.crossed
}

/// Signatures differ in length by a few bytes.
const SLACK: u64 = 40;

fn check(rules: Rules, proxy: bool, cut: u64, by_close: bool) {
    let mut world = World::new(config(1, proxy), rules);
    world.cut = Some(cut);
    world.cut_by_close = by_close;
    world.start();
    assert_eq!(world.cut, None, "{cut} of {}", world.crossed);
    // A cut behind the proxy's 407 hits a connection that is of no more use.
    if world.open().is_empty() {
        let before = world.registered();
        let again = world.run_until(BOUND, |world| world.registered() == before + 1);
        assert!(again, "{cut}: {}", world.story());
    }
    assert!(world.is_settled(1), "{cut}");
    assert_hidden(&world);
    // Every CONNECT that was established belongs to one flow at most, and every flow that went
    // through the proxy to one CONNECT.
    let tunnels: BTreeSet<_> = world.tunnels.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(tunnels.len(), world.tunnels.len());
    let ready: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            AccessEvent::Ready {
                flow, via_proxy, ..
            } => via_proxy.then_some(*flow),
            _ => None,
        })
        .collect();
    let flows: BTreeSet<_> = ready.iter().copied().collect();
    assert_eq!(flows.len(), ready.len());
    if proxy {
        assert!(
            ready.len() <= tunnels.len() && tunnels.len() <= ready.len() + 1,
            "{cut}"
        );
    }
    // And it stays so.
    world.events.clear();
    world.run_for(300);
    let story = world.story();
    assert!(
        !story.contains('[') && world.is_settled(1),
        "{cut}: {story}"
    );
}

#[test]
fn a_reset_or_close_anywhere_is_made_good_within_a_minute() {
    for (rules, proxy) in [(ONLY_443, false), (ONLY_PROXY, true)] {
        let whole = whole(rules, proxy);
        assert!(whole > 4000);
        for cut in (0..whole - SLACK).step_by(29) {
            check(rules, proxy, cut, cut % 2 == 1);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_reset_or_close_at_every_byte_is_made_good_within_a_minute() {
    for (rules, proxy) in [(ONLY_443, false), (ONLY_PROXY, true)] {
        for cut in 0..whole(rules, proxy) - SLACK {
            check(rules, proxy, cut, false);
            check(rules, proxy, cut, true);
        }
    }
}
