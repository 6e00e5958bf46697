//! A life with changing networks, proxies and P-CSCFs; in the end all is well again.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use http_connect::auth::Credentials;
use ims_traversal::access::AccessEvent;
use ims_traversal::ladder::NetworkKey;
use sip_outbound::UserAgentEvent;
use stun_proto::Rng;

use super::registering::assert_hidden;
use super::world::{
    ONLY_443, ONLY_PROXY, Reach, Rules, World, config, http_proxy, pcscf, proxy_config,
};

const REACHES: [Reach; 3] = [Reach::Open, Reach::Refused, Reach::Silent];

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u32) as usize]
}

/// One thing that happens.
fn happen(world: &mut World, rng: &mut Rng) {
    match rng.below(8) {
        0 => {
            world.rules = Rules {
                ordinary: pick(rng, &REACHES),
                web: pick(rng, &REACHES),
                proxy: pick(rng, &REACHES),
            };
        }
        1 => world.down = vec![1 + rng.below(3) as usize],
        2 => world.down.clear(),
        3 => {
            let open = world.open();
            if !open.is_empty() {
                let conn = pick(rng, &open);
                world.reset(conn);
            }
        }
        4 => world.cut = Some(world.crossed + u64::from(rng.below(5000))),
        5 => {
            let proxy = rng.below(2) == 1;
            let credentials = Credentials::new("user", "pass");
            let proxy = proxy.then(|| http_proxy(Some(credentials)));
            world.access.set_proxy(proxy);
            let key = NetworkKey(u64::from(rng.below(3)));
            world.access.network_changed(world.now, key);
        }
        6 => {
            let at = rng.below(2) as usize;
            world.pcscfs[at].shut_down(world.now);
            world.run_for(6);
            world.pcscfs[at] = pcscf(at + 1, at + 1, |_| {});
        }
        _ => {
            let mut proxy = proxy_config();
            proxy.limits.idle_timeout = Some(Duration::from_secs(20 + u64::from(rng.below(60))));
            world.proxy = Arc::new(proxy);
        }
    }
}

/// The same life twice leaves the same trace.
fn live(seed: u8) -> String {
    let mut rng = Rng::from_seed([seed; 32]);
    let proxy = seed % 2 == 1;
    let rules = if proxy { ONLY_PROXY } else { ONLY_443 };
    let mut world = World::new(config(2, proxy), rules);
    world.piece = pick(&mut rng, &[1, 50, 4096]);
    world.start();
    for _ in 0..12 {
        happen(&mut world, &mut rng);
        let seconds = pick(&mut rng, &[0, 1, 20, 100, 1000]);
        world.run_for(seconds);
    }
    // Everything is as it was in the beginning, and one wait later it shows: 1,800 s at most, and
    // the ways that are silent until then.
    world.cut = None;
    world.down.clear();
    world.rules = rules;
    world.proxy = Arc::new(proxy_config());
    let credentials = Credentials::new("user", "pass");
    world
        .access
        .set_proxy(proxy.then(|| http_proxy(Some(credentials))));
    // Connections through a proxy as it was are not part of that.
    for conn in world.open() {
        world.reset(conn);
    }
    assert!(
        world.run_until(1800 + 200, |world| world.is_settled(2)),
        "{seed}: {}",
        world.story()
    );
    assert_hidden(&world);
    let flows: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            AccessEvent::Ready { flow, .. } => Some(*flow),
            _ => None,
        })
        .collect();
    let distinct: BTreeSet<_> = flows.iter().copied().collect();
    assert_eq!(distinct.len(), flows.len());
    world.events.clear();
    world.run_for(3600);
    let lost = world
        .events
        .iter()
        .any(|event| matches!(event, AccessEvent::Agent(UserAgentEvent::FlowFailed { .. })));
    assert!(!lost && world.is_settled(2), "{seed}: {}", world.story());
    format!("{} {:?}", world.story(), world.dialled)
}

// spec: MEM-5.1.1.2-4, PRI-2-1
#[test]
fn whatever_happens_it_is_registered_again_in_the_end() {
    for seed in 0..24 {
        let trace = live(seed);
        if seed < 4 {
            assert_eq!(trace, live(seed));
        }
    }
}
