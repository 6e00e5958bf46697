//! Credentials of all kinds, and who may do what with them.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit as _};
use stun_proto::auth::{AuthFailure, Credentials, LongTermClient};
use stun_proto::wire::{Class, Key};
use turn_proto::Transport;
use turn_proto::client::{AllocateOptions, Cause, ClientConfig, Event};
use turn_proto::server::{KeyQuery, Lookup, RestUsers, Users};
use turn_proto::wire::{self, AccessToken, Lifetime, RequestedTransport, XorPeerAddress};

use crate::wired::*;

const SECRET: &str = "north";
const TODAY: u64 = 1_433_895_318;

fn rest(world: &mut World<RestUsers>, name: &str, secret: &str) -> usize {
    let password = RestUsers::new(secret).password(name.as_bytes());
    let config = ClientConfig {
        credentials: Some(Credentials::new(name, password.expose())),
        ..client_config()
    };
    let port = 40_000 + world.ends.len() as u16;
    let end = world.end(config, Transport::Udp, port);
    world.allocate(end, AllocateOptions::default());
    end
}

fn rest_world(change: impl FnOnce(&mut RestUsers)) -> World<RestUsers> {
    let mut users = RestUsers::new(SECRET);
    change(&mut users);
    let mut world = World::for_users(server_config(), users);
    world.server.set_unix_time(world.now, TODAY);
    world
}

// spec: REST-2.2-1, REST-4.2-1, REST-5.2-1, REST-D1
#[test]
fn scenario_17_names_with_a_time_count_until_then() {
    let wrong = Some(Cause::Auth(AuthFailure::WrongCredentials));
    // The time is over before the Allocate.
    let mut world = rest_world(|_| {});
    let end = rest(&mut world, &format!("{TODAY}:user2"), SECRET);
    assert_eq!(world.ends[end].cause(), wrong);
    // The time is over ten minutes after it: other servers let the allocation live on.
    let name = format!("{}:user2", TODAY + 600);
    let mut world = rest_world(|users| users.refresh_after_expiry = true);
    let end = rest(&mut world, &name, SECRET);
    world.bind(end, "9.9.9.9:9");
    world.run(at(3600));
    assert_eq!(world.ends[end].cause(), None);
    assert!(world.talks(end, "9.9.9.9:9"));
    // Ours counts it at each refresh; permissions and the end need none.
    let mut world = rest_world(|_| {});
    let end = rest(&mut world, &name, SECRET);
    world.run(at(600));
    world.permit(end, "9.9.9.9");
    assert!(world.talks(end, "9.9.9.9:9"));
    world.run(at(1200));
    assert_eq!(world.ends[end].cause(), wrong);
    // Two secrets, while one takes the place of the other.
    let mut world = rest_world(|users| users.add_secret("south"));
    for secret in [SECRET, "south"] {
        let end = rest(&mut world, &name, secret);
        world.ends[end].relayed();
    }
    let end = rest(&mut world, &name, "west");
    assert_eq!(world.ends[end].cause(), wrong);
    world.server.users_mut().drop_old_secrets();
    let end = rest(&mut world, &name, SECRET);
    assert_eq!(world.ends[end].cause(), wrong);
}

const NAME: &str = "blackdow.carleon.gov";
const MAC_KEY: &[u8] = b"ZksjpweoixXmvn67534m";
const ISSUED: u64 = 1_410_984_813;
/// The key the authorization server shares with the TURN server.
const LONG_KEY: &str = "48476b6a33324b4a476975793039387364666171624e6a4f69617a3731393233";
/// The tokens of the specification's vectors, with A256GCM and A128GCM.
const TOKEN_256: &str = "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03\
    b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d293a5c50499359f0c2e26f76";
const TOKEN_128: &str = "000c68346a336b326c326e3462357fb9e99f0827be3df1e1bd651493d3031d36\
    df57079784aee5eacb65fad4f27fab1a3f97974b69f851b24bf5af09eda357e0";

fn key(bits: usize) -> Vec<u8> {
    hex::decode(LONG_KEY).unwrap()[..bits / 8].to_vec()
}

fn seal(bits: usize, server: &str, nonce: [u8; 12], issued: u64) -> Vec<u8> {
    let mut inside = (MAC_KEY.len() as u16).to_be_bytes().to_vec();
    inside.extend(MAC_KEY);
    inside.extend((issued << 16).to_be_bytes());
    inside.extend(3600_u32.to_be_bytes());
    let payload = Payload {
        msg: &inside,
        aad: server.as_bytes(),
    };
    let sealed = if bits == 256 {
        Aes256Gcm::new_from_slice(&key(bits))
            .unwrap()
            .encrypt(&nonce.into(), payload)
    } else {
        Aes128Gcm::new_from_slice(&key(bits))
            .unwrap()
            .encrypt(&nonce.into(), payload)
    };
    let mut token = vec![0, 12];
    token.extend(nonce);
    token.extend(sealed.unwrap());
    token
}

/// A host whose tokens are sealed with AES-GCM.
#[derive(Debug)]
struct Authorized;

impl Users for Authorized {
    fn key(&self, _: &KeyQuery<'_>) -> Lookup {
        Lookup::Unknown
    }

    fn third_party(&self) -> Option<&str> {
        Some(NAME)
    }

    fn open_token(&self, kid: &[u8], nonce: &[u8], sealed: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; 12] = nonce.try_into().ok()?;
        let payload = Payload {
            msg: sealed,
            aad: name,
        };
        match kid {
            b"k256" => Aes256Gcm::new_from_slice(&key(256))
                .ok()?
                .decrypt(&nonce.into(), payload)
                .ok(),
            b"k128" => Aes128Gcm::new_from_slice(&key(128))
                .ok()?
                .decrypt(&nonce.into(), payload)
                .ok(),
            _ => None,
        }
    }
}

/// Allocates with a token `age` seconds after it was issued; the lifetime, if it is let in.
fn with_token(world: &mut World<Authorized>, kid: &str, token: &[u8], age: i64) -> Option<u64> {
    let unix = ISSUED.checked_add_signed(age).unwrap();
    world.server.set_unix_time(world.now, unix);
    let config = ClientConfig {
        credentials: None,
        third_party: true,
        ..client_config()
    };
    let port = 40_000 + world.ends.len() as u16;
    let end = world.end(config, Transport::Udp, port);
    world.allocate(end, AllocateOptions::default());
    assert_eq!(world.ends[end].events, [Event::TokenNeeded]);
    assert_eq!(world.ends[end].client.token_server(), Some(NAME));
    let now = world.now;
    world
        .client(end)
        .set_token(now, kid, MAC_KEY, token)
        .unwrap();
    world.step();
    world.ends[end].events.iter().find_map(|event| match event {
        Event::Allocated { lifetime, .. } => Some(lifetime.as_secs()),
        _ => None,
    })
}

// spec: 7635-6.2-1, 7635-5-1, 7635-7-1, 7635-7-2, 7635-9-1, 7635-9-2
#[test]
fn scenario_18_tokens_sealed_with_aes_gcm_let_in_while_they_are_fresh() {
    let vector = |text: &str| hex::decode(text).unwrap();
    let nonce = *b"h4j3k2l2n4b5";
    assert_eq!(seal(256, NAME, nonce, ISSUED), vector(TOKEN_256));
    assert_eq!(seal(128, NAME, nonce, ISSUED), vector(TOKEN_128));
    let mut world = World::for_users(server_config(), Authorized);
    for (kid, token) in [("k256", TOKEN_256), ("k128", TOKEN_128)] {
        assert_eq!(with_token(&mut world, kid, &vector(token), 0), Some(600));
    }
    // Five seconds of skew are nothing, six are too many; never for longer than is left of it.
    for (age, granted) in [
        (3599, Some(6)),
        (3604, Some(1)),
        (3605, None),
        (-3604, Some(1)),
        (-3605, None),
    ] {
        let granted_now = with_token(&mut world, "k256", &vector(TOKEN_256), age);
        assert_eq!(granted_now, granted, "{age} s");
    }
    // For another server, with another key, altered.
    let foreign = seal(256, "other.example", nonce, ISSUED);
    assert_eq!(with_token(&mut world, "k256", &foreign, 0), None);
    assert_eq!(with_token(&mut world, "k128", &vector(TOKEN_256), 0), None);
    assert_eq!(
        with_token(&mut world, "nobody", &vector(TOKEN_256), 0),
        None
    );
    let mut altered = vector(TOKEN_256);
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(with_token(&mut world, "k256", &altered, 0), None);
    // Nor does a token help without the key inside it.
    world.server.set_unix_time(world.now, ISSUED);
    let mut thief = LongTermClient::new(None);
    thief.set_third_party_key("k256", Key::from_bytes(b"guessed"));
    let token = vector(TOKEN_256);
    let code = world.ask(addr("198.51.100.66:1"), &mut thief, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
            .attribute(&AccessToken(&token))
    });
    assert_eq!(code, 401);
}

// spec: 7635-9-1, 7635-9-2
#[test]
fn scenario_18_a_token_is_used_for_refreshes_until_another_one_comes() {
    let mut world = World::for_users(server_config(), Authorized);
    let token = hex::decode(TOKEN_256).unwrap();
    assert_eq!(with_token(&mut world, "k256", &token, 0), Some(600));
    // The host fetches the next one in time, twice an hour.
    for half_hour in 1..=10 {
        let time = half_hour * 1800;
        world.run(at(time));
        assert_eq!(world.ends[0].cause(), None, "after {time} s");
        let nonce = [half_hour as u8; 12];
        let now = world.now;
        let next = seal(256, NAME, nonce, ISSUED + time);
        world
            .client(0)
            .set_token(now, "k256", MAC_KEY, &next)
            .unwrap();
        world.step();
    }
    let now = world.now;
    let refreshes = world.requests(wire::REFRESH);
    let with_tokens = refreshes
        .iter()
        .filter(|f| f.message().find::<AccessToken<'_>>().is_some());
    assert_eq!(with_tokens.count(), refreshes.len());
    world.permit(0, "9.9.9.9");
    let permission = world.requests(wire::CREATE_PERMISSION)[0].message();
    assert_eq!(permission.find::<AccessToken<'_>>(), None);
    // Without a new one it ends with the token.
    world.run(now + secs(3600 + 60));
    assert!(world.ends[0].events.contains(&Event::TokenNeeded));
    assert!(world.ends[0].cause().is_some());
}

// spec: TURN-12-1, 5389-12.2-3
#[test]
fn scenario_20_an_older_server_is_spoken_to_in_its_own_way() {
    let mut config = server_config();
    config.auth.password_algorithms = None;
    config.addresses_v6 = 0;
    config.rfc5766_channels = true;
    let mut world = World::with(config);
    let end = world.udp(40_000);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, "9.9.9.9:9");
    world.run(at(3600));
    assert!(world.talks(end, "9.9.9.9:9"));
    for flight in &world.flights {
        let message = flight.message();
        let known_to_5389 = |ty: u16| ty != 0x001C && ty != 0x001D && ty != 0x8002;
        assert!(message.attributes().all(|raw| known_to_5389(raw.ty.0)));
    }
    // An older client uses numbers that are reserved today, where that is allowed.
    let mut auth = LongTermClient::new(Some(Credentials::new("alice", "secret")));
    let from = addr("198.51.100.8:1");
    let allocate = world.ask(from, &mut auth, wire::ALLOCATE, |w| {
        w.attribute(&RequestedTransport::UDP)
    });
    assert_eq!(allocate, 0);
    let bind = |world: &mut World, auth: &mut LongTermClient, number| {
        world.ask(from, auth, wire::CHANNEL_BIND, |w| {
            w.attribute(&wire::ChannelNumber(number))
                .attribute(&XorPeerAddress(addr("9.9.9.9:9")))
        })
    };
    assert_eq!(bind(&mut world, &mut auth, 0x7FFF), 0);
    assert_eq!(bind(&mut world, &mut auth, 0x8000), 400);
}

// spec: STUN-9.2.5-3, TURN-7.2-1
#[test]
fn scenario_21_a_wrong_password_is_tried_once() {
    let mut world = World::new();
    let config = ClientConfig {
        credentials: Some(Credentials::new("alice", "wrong")),
        ..client_config()
    };
    let end = world.end(config, Transport::Udp, 40_000);
    world.allocate(end, AllocateOptions::default());
    world.run(at(100));
    let codes: Vec<_> = world
        .flights
        .iter()
        .filter(|f| f.class == Class::Error)
        .map(|f| f.code)
        .collect();
    assert_eq!(codes, [401, 401]);
    let cause = Cause::Auth(AuthFailure::WrongCredentials);
    assert_eq!(world.ends[end].cause(), Some(cause));
    assert_eq!(world.server.allocations(), 0);
}

// spec: TURN-5-2, SEC-T-07
#[test]
fn scenario_22_an_allocation_is_its_users_alone() {
    let mut world = World::allocated();
    let from = world.ends[0].local;
    let peer = XorPeerAddress(addr("9.9.9.9:9"));
    for (name, password, [allocate, refresh, permit, bind]) in [
        ("bob", "password", [437, 441, 441, 441]),
        ("alice", "secret", [437, 0, 0, 0]),
        ("alice", "wrong", [401, 401, 401, 401]),
    ] {
        let mut auth = LongTermClient::new(Some(Credentials::new(name, password)));
        let mut ask = |method,
                       body: &dyn for<'b> Fn(
            stun_proto::wire::Writer<'b>,
        ) -> stun_proto::wire::Writer<'b>| {
            world.ask(from, &mut auth, method, body)
        };
        assert_eq!(
            ask(wire::ALLOCATE, &|w| w.attribute(&RequestedTransport::UDP)),
            allocate
        );
        assert_eq!(
            ask(wire::REFRESH, &|w| w.attribute(&Lifetime(600))),
            refresh
        );
        assert_eq!(
            ask(wire::CREATE_PERMISSION, &|w| w.attribute(&peer)),
            permit
        );
        let number = wire::ChannelNumber(0x4000);
        assert_eq!(
            ask(wire::CHANNEL_BIND, &|w| w
                .attribute(&number)
                .attribute(&peer)),
            bind
        );
    }
    assert_eq!(world.server.allocations(), 1);
}

/// Users whose passwords are being replaced: all in the list count.
#[derive(Debug)]
struct Rotating(Vec<&'static str>);

impl Users for Rotating {
    fn key(&self, query: &KeyQuery<'_>) -> Lookup {
        let key = |password: &&str| {
            let (realm, password) = (query.realm.as_bytes(), password.as_bytes());
            Key::long_term(query.algorithm, b"alice", realm, password).map(Box::new)
        };
        Lookup::OneOf(self.0.iter().filter_map(key).collect())
    }
}

// spec: TURN-5-2, STUN-9.2.5-3
#[test]
fn a_password_is_replaced_while_the_allocation_lives() {
    let mut world = World::for_users(server_config(), Rotating(vec!["secret"]));
    let end = world.udp(40_000);
    world.allocate(end, AllocateOptions::default());
    world.bind(end, "9.9.9.9:9");
    // The server accepts both for a while, the client changes, the old one is dropped.
    world.server.users_mut().0.push("better");
    world.run(at(1000));
    let now = world.now;
    world
        .client(end)
        .set_password(now, "better".into())
        .unwrap();
    world.run(at(2000));
    world.server.users_mut().0.remove(0);
    world.run(at(9000));
    assert!(world.talks(end, "9.9.9.9:9"));
    assert_eq!(world.ends[end].cause(), None);
    assert_eq!(world.errors(401), 1);
    // A request that is under way with the old one when the server drops it is made again.
    world.server.users_mut().0.push("best");
    let now = world.now;
    world
        .client(end)
        .create_permission(now, ip("9.9.9.8"))
        .unwrap();
    world.client(end).set_password(now, "best".into()).unwrap();
    world.server.users_mut().0.remove(0);
    world.step();
    assert!(world.talks(end, "9.9.9.8:8"));
    assert_eq!(world.errors(401), 2);
    // And answered by the old one, when the server knew it still.
    world.server.users_mut().0.push("last");
    world
        .client(end)
        .create_permission(now, ip("9.9.9.7"))
        .unwrap();
    world.client(end).set_password(now, "last".into()).unwrap();
    world.step();
    assert!(world.talks(end, "9.9.9.7:7"));
    assert_eq!(world.errors(401), 2);
    // Too late: the allocation is lost with the refresh that is rejected.
    world.server.users_mut().0 = vec!["another"];
    world.run(at(20_000));
    let cause = Cause::Auth(AuthFailure::WrongCredentials);
    assert_eq!(world.ends[end].cause(), Some(cause));
    let now = world.now;
    assert!(
        world
            .client(end)
            .set_password(now, "another".into())
            .is_err()
    );
}

/// Users in a database that takes its time.
#[derive(Debug)]
struct Elsewhere;

impl Users for Elsewhere {
    fn key(&self, _: &KeyQuery<'_>) -> Lookup {
        Lookup::Later
    }
}

/// What the database says to the oldest question.
fn found(world: &mut World<Elsewhere>, password: Option<&str>) {
    let (ticket, algorithm) = world.lookups.remove(0);
    let key = password.and_then(|password| {
        Key::long_term(algorithm, b"alice", REALM.as_bytes(), password.as_bytes())
    });
    world.server.key_found(world.now, ticket, key);
    world.step();
}

// spec: STUN-6.3.1-2, STUN-6.3.4-3, SEC-G-05
#[test]
fn keys_that_come_late_are_waited_for_and_asked_for_once() {
    let mut world = World::for_users(server_config(), Elsewhere);
    let end = world.udp(40_000);
    world.allocate(end, AllocateOptions::default());
    // The request comes again and again meanwhile; data and other requests are not held up.
    world.run(at(4));
    assert_eq!(world.lookups.len(), 1);
    assert!(world.requests(wire::ALLOCATE).len() > 4);
    found(&mut world, Some("secret"));
    world.ends[end].relayed();
    assert_eq!(world.server.allocations(), 1);
    // Each later request asks, since the key is not kept.
    let now = world.now;
    world
        .client(end)
        .bind_channel(now, addr("9.9.9.9:9"))
        .unwrap();
    world.step();
    assert_eq!(world.lookups.len(), 1);
    found(&mut world, Some("secret"));
    assert!(world.talks(end, "9.9.9.9:9"));
    // The database is down while the allocation is to be refreshed, for longer than the server
    // waits: the client tries again until it is there, or the allocation ends.
    world.run(at(560));
    assert!(world.errors(500) > 0);
    assert_eq!(world.ends[end].cause(), None);
    while !world.lookups.is_empty() {
        found(&mut world, Some("secret"));
    }
    for second in 561..=640 {
        world.run(at(second));
        while !world.lookups.is_empty() {
            found(&mut world, Some("secret"));
        }
    }
    assert_eq!(world.ends[end].cause(), None);
    assert_eq!(world.server.allocations(), 1);
    // Whom nobody knows is refused like a wrong password.
    let other = world.udp(40_001);
    world.allocate(other, AllocateOptions::default());
    found(&mut world, None);
    let cause = Cause::Auth(AuthFailure::WrongCredentials);
    assert_eq!(world.ends[other].cause(), Some(cause));
}
