//! A client, a proxy (or two) and a target, joined by pipes.

use std::sync::Arc;
use std::time::Duration;

use http_connect::auth::{
    Algorithm, Allow, ClientAuth, Credentials, DigestRequest, DigestServer, DigestServerConfig,
    Policy, ServerAuth, ServerVerdict, ha1,
};
use http_connect::{
    AuthVerdict, ConnectClient, ConnectConfig, ConnectEvent, ConnectServer, Instant, Parent,
    ProxyAction, ProxyConfig, ProxyEvent, Record, Rng, Side, Tunnel,
};

use crate::wire::Pipe;

/// Where the other end of a proxy's upstream connection is.
#[derive(Debug)]
enum Far {
    Nothing,
    /// Echoes in upper case, after it has said hello.
    Target(Pipe, Pipe),
    Proxy(Box<Hop>),
}

/// A proxy, its pipes to and from whoever connected to it, and what it is connected to.
#[derive(Debug)]
struct Hop {
    proxy: ConnectServer,
    up: Pipe,
    down: Pipe,
    far: Far,
    parent: Option<Arc<ProxyConfig>>,
    record: Option<Record>,
    closed: bool,
}

impl Hop {
    fn new(
        config: Arc<ProxyConfig>,
        parent: Option<Arc<ProxyConfig>>,
        now: Instant,
        step: usize,
    ) -> Self {
        Self {
            proxy: ConnectServer::new(config, [5; 32], now).unwrap(),
            up: Pipe::new(step),
            down: Pipe::new(step),
            far: Far::Nothing,
            parent,
            record: None,
            closed: false,
        }
    }

    /// Moves what can be moved; whether anything was.
    fn run(&mut self, now: Instant, step: usize, auth: &mut ServerAuth) -> bool {
        let mut moved = false;
        let mut buf = vec![0; step];
        // Input.
        let piece = self.up.peek();
        if !piece.is_empty() && self.proxy.wants_input(Side::Client) {
            let taken = self.proxy.handle_input(now, Side::Client, &piece);
            self.up.consume(taken.len);
            moved |= taken.len > 0;
            let forward = taken.forward.to_vec();
            if let Some(pipe) = self.far.up() {
                pipe.write(&forward);
            }
        }
        let piece = self.far.down().map(|pipe| pipe.peek()).unwrap_or_default();
        if !piece.is_empty() && self.proxy.wants_input(Side::Upstream) {
            let taken = self.proxy.handle_input(now, Side::Upstream, &piece);
            let forward = taken.forward.to_vec();
            moved |= taken.len > 0;
            if let Some(pipe) = self.far.down() {
                pipe.consume(taken.len);
            }
            // Half of it does not fit at once.
            let (written, rest) = forward.split_at(forward.len() / 2);
            self.down.write(written);
            if !forward.is_empty() {
                self.proxy.handle_unsent(now, Side::Client, rest);
            }
        }
        // Output.
        while let Some(len) = self.proxy.poll_transmit(Side::Client, &mut buf) {
            self.down.write(&buf[..len]);
            moved = true;
        }
        while let Some(len) = self.proxy.poll_transmit(Side::Upstream, &mut buf) {
            self.far.up().unwrap().write(&buf[..len]);
            moved = true;
        }
        while let Some(action) = self.proxy.poll_action() {
            moved = true;
            self.act(now, step, action, auth);
        }
        while let Some(event) = self.proxy.poll_event() {
            if let ProxyEvent::Closed(record) = event {
                assert!(self.record.is_none());
                self.record = Some(record);
            }
        }
        match &mut self.far {
            Far::Nothing => {}
            Far::Target(up, down) => {
                let piece = up.peek();
                up.consume(piece.len());
                if !piece.is_empty() {
                    down.write(&piece.to_ascii_uppercase());
                    moved = true;
                }
            }
            Far::Proxy(hop) => moved |= hop.run(now, step, auth),
        }
        assert!(self.proxy.poll_timeout().is_none_or(|at| at > now));
        moved
    }

    fn act(&mut self, now: Instant, step: usize, action: ProxyAction, auth: &mut ServerAuth) {
        match action {
            ProxyAction::CheckAuth { ticket, check } => {
                let request = DigestRequest {
                    method: "CONNECT",
                    uri: check.uri(),
                    body: b"",
                };
                let users =
                    |hash, user: &str| (user == "me").then(|| ha1(hash, b"me", b"gate", b"secret"));
                let verdict =
                    auth.check_named(now, b"10.1.1.1", request, check.authorization(), users);
                let verdict = match verdict {
                    ServerVerdict::Allow { user, info } => AuthVerdict::Allow {
                        user: Some(user),
                        info,
                    },
                    ServerVerdict::Challenge(rows) => AuthVerdict::Challenge(rows),
                    ServerVerdict::Malformed => AuthVerdict::Forbid,
                };
                self.proxy.handle_auth(now, ticket, verdict);
            }
            ProxyAction::Resolve { ticket, name } => {
                assert_eq!(name, "pcscf.example.com");
                let addresses = ["192.88.1.1".parse().unwrap()];
                self.proxy.handle_resolved(now, ticket, &addresses);
            }
            ProxyAction::Connect { ticket, address } => {
                assert_eq!(address, "192.88.1.1:443".parse().unwrap());
                let mut down = Pipe::new(step);
                down.write(b"HELLO ");
                self.far = Far::Target(Pipe::new(step), down);
                self.proxy.handle_connected(now, ticket);
            }
            ProxyAction::ConnectParent { ticket } => {
                let config = self.parent.clone().unwrap();
                self.far = Far::Proxy(Box::new(Self::new(config, None, now, step)));
                self.proxy.handle_connected(now, ticket);
            }
            ProxyAction::CloseWrite(Side::Client) => self.down.closed = true,
            ProxyAction::CloseWrite(Side::Upstream) => self.far.up().unwrap().closed = true,
            ProxyAction::Close(Side::Client) => self.closed = true,
            ProxyAction::Close(Side::Upstream) => self.far = Far::Nothing,
            other => panic!("{other:?}"),
        }
    }
}

impl Far {
    fn up(&mut self) -> Option<&mut Pipe> {
        match self {
            Self::Nothing => None,
            Self::Target(up, _) => Some(up),
            Self::Proxy(hop) => Some(&mut hop.up),
        }
    }

    fn down(&mut self) -> Option<&mut Pipe> {
        match self {
            Self::Nothing => None,
            Self::Target(_, down) => Some(down),
            Self::Proxy(hop) => Some(&mut hop.down),
        }
    }
}

fn server_auth() -> ServerAuth {
    let mut config = DigestServerConfig::new("gate");
    config.algorithms = vec![Algorithm::SHA512_256, Algorithm::SHA256, Algorithm::MD5];
    let mut rng = Rng::from_seed([8; 32]);
    ServerAuth::new(DigestServer::new(config, &mut rng).unwrap())
}

struct Run {
    client: ConnectClient,
    hop: Hop,
    connections: u32,
    event: Option<ConnectEvent>,
    tunnel: Option<Tunnel>,
    heard: Vec<u8>,
}

/// Runs a client against a proxy until it has its answer; `step` is the size of all reads.
fn connect(
    config: &Arc<ProxyConfig>,
    parent: Option<&Arc<ProxyConfig>>,
    client_auth: ClientAuth,
    auth: &mut ServerAuth,
    step: usize,
) -> Run {
    let now = Instant::ZERO + Duration::from_secs(100);
    let target = "pcscf.example.com:443".parse().unwrap();
    let client_config = ConnectConfig::default();
    let mut client = ConnectClient::new(target, client_config, client_auth, [4; 32], now).unwrap();
    client.handle_connected(now);
    let hop = || Hop::new(config.clone(), parent.cloned(), now, step);
    let mut run = Run {
        client,
        hop: hop(),
        connections: 1,
        event: None,
        tunnel: None,
        heard: Vec::new(),
    };
    let mut buf = vec![0; step];
    loop {
        let mut moved = false;
        while let Some(len) = run.client.poll_transmit(&mut buf) {
            run.hop.up.write(&buf[..len]);
            moved = true;
        }
        moved |= run.hop.run(now, step, auth);
        let piece = run.hop.down.peek();
        run.hop.down.consume(piece.len());
        moved |= !piece.is_empty();
        let rest = run.client.handle_input(now, &piece);
        if run.tunnel.is_none() {
            run.tunnel = run.client.tunnel();
        }
        match &mut run.tunnel {
            Some(tunnel) => run.heard.extend_from_slice(tunnel.read(rest).unwrap()),
            None => assert!(rest.is_empty()),
        }
        if let Some(event) = run.client.poll_event() {
            moved = true;
            if event == ConnectEvent::Reconnect {
                run.connections += 1;
                run.hop = hop();
                run.client.handle_connected(now);
            } else {
                assert!(run.event.is_none());
                run.event = Some(event);
            }
        }
        if !moved {
            return run;
        }
    }
}

fn policy() -> Policy {
    Policy {
        basic: Allow::Always,
        ..Policy::default()
    }
}

fn credentials(password: &str) -> ClientAuth {
    ClientAuth::new(Some(Credentials::new("me", password)), policy())
}

fn is_established(event: &Option<ConnectEvent>) -> bool {
    matches!(event, Some(ConnectEvent::Established { status: 200, .. }))
}

const STEPS: [usize; 6] = [1, 2, 7, 39, 100, 4096];

// spec: PRH-7-1, PRH-4-1, SEC-F-02
#[test]
fn a_tunnel_opens_and_the_target_that_speaks_first_is_heard_whatever_the_reads_are() {
    for step in STEPS {
        let config = Arc::new(ProxyConfig::new("gate"));
        let auth = ClientAuth::new(None, policy());
        let run = connect(&config, None, auth, &mut server_auth(), step);
        assert!(is_established(&run.event), "{step}: {:?}", run.event);
        assert_eq!(run.heard, b"HELLO ");
        assert_eq!(run.connections, 1);
    }
}

// spec: PRH-5-4, PRH-5-3, HS-11.7.3-1
#[test]
fn digest_costs_one_connection_more_the_first_time_only() {
    let mut config = ProxyConfig::new("gate");
    config.authenticate = true;
    let config = Arc::new(config);
    let mut auth = server_auth();
    for step in STEPS {
        let run = connect(&config, None, credentials("secret"), &mut auth, step);
        assert!(is_established(&run.event), "{step}: {:?}", run.event);
        assert_eq!(
            (run.connections, run.heard.as_slice()),
            (2, b"HELLO ".as_slice())
        );
        let again = connect(&config, None, run.client.into_auth(), &mut auth, step);
        assert!(is_established(&again.event));
        assert_eq!(again.connections, 1);
    }
    let run = connect(&config, None, credentials("wrong"), &mut auth, 100);
    let Some(ConnectEvent::Rejected(rejection)) = run.event else {
        panic!("{:?}", run.event);
    };
    assert_eq!(rejection.status, 407);
    assert_eq!(rejection.challenges.len(), 3);
    assert_eq!(run.connections, 2);
}

// spec: UP-5.3-2, HS-7.6.3-1
#[test]
fn a_chain_of_two_proxies_opens_a_tunnel_and_a_ring_does_not() {
    for step in STEPS {
        let mut near = ProxyConfig::new("near");
        near.parent = Some(Parent::new(credentials("secret")));
        let near = Arc::new(near);
        let mut far = ProxyConfig::new("far");
        far.authenticate = true;
        let far = Arc::new(far);
        let auth = ClientAuth::new(None, policy());
        let run = connect(&near, Some(&far), auth.clone(), &mut server_auth(), step);
        assert!(is_established(&run.event), "{step}: {:?}", run.event);
        assert_eq!(run.heard, b"HELLO ");

        let run = connect(&near, Some(&near), auth, &mut server_auth(), step);
        let Some(ConnectEvent::Rejected(rejection)) = run.event else {
            panic!("{:?}", run.event);
        };
        assert_eq!(rejection.status, 502);
    }
}

// spec: PRH-7-4
#[test]
fn bytes_of_an_open_tunnel_arrive_all_and_in_order() {
    for step in STEPS {
        let mut config = ProxyConfig::new("gate");
        config.limits.relay = 50;
        let config = Arc::new(config);
        let auth = ClientAuth::new(None, policy());
        let mut server = server_auth();
        let mut run = connect(&config, None, auth, &mut server, step);
        let text: String = (0..500).map(|n| format!("line {n}\n")).collect();
        run.hop.up.write(text.as_bytes());
        let now = Instant::ZERO + Duration::from_secs(100);
        while run.hop.run(now, step, &mut server) {
            let piece = run.hop.down.peek();
            run.hop.down.consume(piece.len());
            run.heard.extend_from_slice(&piece);
        }
        while !run.hop.down.is_empty() {
            let piece = run.hop.down.peek();
            run.hop.down.consume(piece.len());
            run.heard.extend_from_slice(&piece);
        }
        let expected = format!("HELLO {}", text.to_ascii_uppercase());
        assert_eq!(run.heard, expected.as_bytes(), "{step}");
        assert_eq!(run.hop.up.len(), 0);
    }
}
