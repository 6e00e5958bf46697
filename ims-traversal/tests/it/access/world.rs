//! What is between a UE and its P-CSCFs.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Arc, OnceLock};

use http_connect::auth::{
    Allow, Challenge, Credentials, DigestRequest, DigestServer, DigestServerConfig, ServerAuth,
    ServerVerdict, ha1, parse_basic,
};
use http_connect::{
    AuthCheck, AuthVerdict, ConnectServer, Prefix, ProxyAction, ProxyConfig, ProxyError,
    ProxyEvent, Rng, Side,
};
use ims_traversal::access::{Access, AccessAction, AccessConfig, AccessEvent};
use ims_traversal::ladder::NetworkKey;
use ims_traversal::pcscf::{HomeConfig, Listener, Pcscf, PcscfAction, PcscfEvent, ServiceConfig};
use ims_traversal::{ConnFailure, ConnId, Endpoint, HttpProxy};
use rustls::client::Resumption;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sip_outbound::wire::UriBuf;
use sip_outbound::{
    Account, InstanceId, Instant, KeyAnswer, RegistrarConfig, UserAgentConfig, UserAgentEvent,
};
use stun_proto::{FiveTuple, Transport};

/// One self-signed certificate for each name, made once: client and server side.
pub fn tls(name: usize) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    static MADE: OnceLock<(Arc<ClientConfig>, Vec<Arc<ServerConfig>>)> = OnceLock::new();
    let (client, servers) = MADE.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let names = [
            "portal.example",
            "pcscf1.ims.example",
            "pcscf2.ims.example",
            "pcscf3.ims.example",
            "turn.ims.example",
        ];
        let servers = names
            .into_iter()
            .map(|name| {
                let made = rcgen::generate_simple_self_signed([name.to_string()]).unwrap();
                let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
                roots.add(made.cert.der().clone()).unwrap();
                let mut config = ServerConfig::builder_with_provider(provider.clone())
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(vec![made.cert.der().clone()], key)
                    .unwrap();
                config.alpn_protocols = vec![b"sip/2".to_vec()];
                Arc::new(config)
            })
            .collect();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(client), servers)
    });
    (client.clone(), servers[name].clone())
}

/// What becomes of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Open,
    Refused,
    /// Segments vanish.
    Silent,
}

/// What the firewall lets out.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// To 5061.
    pub ordinary: Reach,
    /// To 443.
    pub web: Reach,
    /// To the HTTP proxy.
    pub proxy: Reach,
}

/// Only web traffic: the restrictive access of type I.
pub const ONLY_443: Rules = Rules {
    ordinary: Reach::Refused,
    web: Reach::Open,
    proxy: Reach::Silent,
};

/// Only the HTTP proxy: type II.
pub const ONLY_PROXY: Rules = Rules {
    ordinary: Reach::Refused,
    web: Reach::Silent,
    proxy: Reach::Open,
};

pub fn config(pcscfs: usize, proxy: bool) -> AccessConfig {
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
    let uris = (1..=pcscfs)
        .map(|n| UriBuf::parse(format!("sips:pcscf{n}.ims.example")).unwrap())
        .collect();
    let aor = UriBuf::parse("sip:alice@ims.example").unwrap();
    let mut agent = UserAgentConfig::ims(aor, instance, uris);
    agent.accounts = vec![Account::new("alice@ims.example", "secret", "ims.example")];
    // Sessions are resumed within one life of the UE only.
    let mut tls = ClientConfig::clone(&tls(0).0);
    tls.resumption = Resumption::in_memory_sessions(8);
    let mut config = AccessConfig::new(agent, tls.into());
    if proxy {
        config.proxy = Some(http_proxy(Some(Credentials::new("user", "pass"))));
    }
    config
}

pub fn http_proxy(credentials: Option<Credentials>) -> HttpProxy {
    let endpoint = Endpoint::Name {
        host: "proxy.corp.example".into(),
        port: 3128,
    };
    let mut proxy = HttpProxy::new(endpoint, credentials);
    proxy.auth.policy_mut().basic = Allow::Always;
    proxy
}

pub fn proxy_config() -> ProxyConfig {
    let mut config = ProxyConfig::new("gate");
    let net = SocketAddr::from(([203, 0, 113, 0], 0)).ip();
    config.addresses.allowed.push(Prefix::new(net, 24));
    config.authenticate = true;
    config
}

/// The P-CSCF of this number, with the certificate of that name.
pub fn pcscf(name: usize, certificate: usize, change: impl FnOnce(&mut ServiceConfig)) -> Pcscf {
    let host = format!("pcscf{name}.ims.example");
    let core = SocketAddr::from(([10, 0, 0, 1], 5060));
    let mut config = ServiceConfig::new(host, core);
    config.home = Some(HomeConfig::new(RegistrarConfig::new("ims.example")));
    config.tls = Some(tls(certificate).1);
    change(&mut config);
    Pcscf::new(config, [name as u8; 32], Instant::ZERO).unwrap()
}

/// The other end of a TCP connection of the UE.
enum Far {
    Pcscf(usize, ConnId),
    Proxy(Box<ConnectServer>, Option<(usize, ConnId)>),
}

struct Link {
    ue: ConnId,
    far: Far,
    /// Bytes the UE has sent over it.
    sent: Vec<u8>,
}

pub struct World {
    pub now: Instant,
    pub access: Access,
    pub pcscfs: Vec<Pcscf>,
    pub proxy: Arc<ProxyConfig>,
    /// The proxy asks for Digest instead of Basic.
    digest: Option<ServerAuth>,
    pub rules: Rules,
    /// The numbers of the P-CSCFs that refuse connections.
    pub down: Vec<usize>,
    links: Vec<Link>,
    pub events: Vec<AccessEvent>,
    /// Targets of the CONNECTs that were established, with the connection.
    pub tunnels: Vec<(ConnId, String)>,
    /// What the P-CSCFs have said.
    pub heard: Vec<PcscfEvent>,
    /// Where the UE connected to, in order.
    pub dialled: Vec<String>,
    /// What the UE sent over connections that are gone.
    pub past: Vec<Vec<u8>>,
    /// Resets the connection over which this byte passes, counted in both directions.
    pub cut: Option<u64>,
    /// Closes it instead.
    pub cut_by_close: bool,
    pub crossed: u64,
    /// Bytes are handed over in pieces of this size.
    pub piece: usize,
    next_port: u16,
}

impl World {
    pub fn new(config: AccessConfig, rules: Rules) -> Self {
        Self {
            now: Instant::ZERO,
            access: Access::new(config, [9; 32], Instant::ZERO).unwrap(),
            pcscfs: (1..=3).map(|n| pcscf(n, n, |_| {})).collect(),
            proxy: Arc::new(proxy_config()),
            digest: None,
            rules,
            down: Vec::new(),
            links: Vec::new(),
            events: Vec::new(),
            tunnels: Vec::new(),
            heard: Vec::new(),
            dialled: Vec::new(),
            past: Vec::new(),
            cut: None,
            cut_by_close: false,
            crossed: 0,
            piece: 4096,
            next_port: 40_000,
        }
    }

    pub fn ask_for_digest(&mut self) {
        let config = DigestServerConfig::new("corp");
        let digest = DigestServer::new(config, &mut Rng::from_seed([8; 32])).unwrap();
        self.digest = Some(ServerAuth::new(digest));
    }

    pub fn start(&mut self) {
        self.access.start(self.now, NetworkKey(1));
        self.settle();
    }

    /// Carries everything to where it goes until nothing is left.
    pub fn settle(&mut self) {
        loop {
            let mut busy = self.obey();
            busy |= self.carry_out();
            busy |= self.run_pcscfs();
            busy |= self.run_proxies();
            while let Some(event) = self.access.poll_event() {
                self.events.push(event);
                busy = true;
            }
            if !busy {
                break;
            }
        }
        let next = self.access.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "{next:?}");
    }

    fn obey(&mut self) -> bool {
        let mut busy = false;
        while let Some(action) = self.access.poll_action() {
            busy = true;
            match action {
                AccessAction::Connect { conn, to } => self.connect(conn, &to),
                AccessAction::Close { conn } => {
                    // First everything out.
                    self.carry_out();
                    self.drop_link(conn);
                }
                other => panic!("{other:?}"),
            }
        }
        busy
    }

    fn connect(&mut self, conn: ConnId, to: &Endpoint) {
        self.dialled.push(to.to_string());
        let reach = match to.port() {
            3128 => self.rules.proxy,
            443 => self.rules.web,
            _ => self.rules.ordinary,
        };
        match reach {
            Reach::Silent => return,
            Reach::Refused => {
                let failure = ConnFailure::Refused;
                return self.access.connection_failed(self.now, conn, failure);
            }
            Reach::Open => {}
        }
        let local = SocketAddr::from(([192, 168, 1, 20], self.next_port));
        self.next_port += 1;
        let (far, remote) = if to.port() == 3128 {
            let server = ConnectServer::new(self.proxy.clone(), [5; 32], self.now).unwrap();
            let remote = SocketAddr::from(([192, 168, 1, 1], 3128));
            (Far::Proxy(Box::new(server), None), remote)
        } else {
            let digit = to.host().chars().find_map(|c| c.to_digit(10));
            let index = digit.unwrap() as usize - 1;
            let remote = address(index, to.port());
            let Some(theirs) = self.accept(index, local, remote) else {
                let failure = ConnFailure::Refused;
                return self.access.connection_failed(self.now, conn, failure);
            };
            (Far::Pcscf(index, theirs), remote)
        };
        self.links.push(Link {
            ue: conn,
            far,
            sent: Vec::new(),
        });
        self.access.connected(self.now, conn, local, remote);
    }

    fn accept(&mut self, index: usize, from: SocketAddr, to: SocketAddr) -> Option<ConnId> {
        if self.down.contains(&(index + 1)) {
            return None;
        }
        let at = FiveTuple {
            transport: Transport::Tls,
            local: to,
            remote: from,
        };
        self.pcscfs[index].accept(self.now, at, Listener::Tls).ok()
    }

    fn link(&self, conn: ConnId) -> Option<usize> {
        self.links.iter().position(|link| link.ue == conn)
    }

    /// The UE has closed a connection, or it was cut.
    fn drop_link(&mut self, conn: ConnId) {
        let Some(at) = self.link(conn) else {
            return;
        };
        let link = self.links.remove(at);
        self.past.push(link.sent);
        match link.far {
            Far::Pcscf(index, theirs) | Far::Proxy(_, Some((index, theirs))) => {
                self.pcscfs[index].handle_eof(self.now, theirs);
            }
            Far::Proxy(_, None) => {}
        }
    }

    /// Counts bytes that pass; `false` when the connection is cut before the last of them.
    fn cross(&mut self, conn: ConnId, len: usize) -> bool {
        self.crossed += len as u64;
        let cut = self.cut.is_some_and(|cut| self.crossed > cut);
        if cut {
            self.cut = None;
            self.drop_link(conn);
            if self.cut_by_close {
                self.access.handle_eof(self.now, conn);
            } else {
                self.access
                    .connection_failed(self.now, conn, ConnFailure::Reset);
            }
        }
        !cut
    }

    /// How many of these bytes pass before the cut.
    fn until_cut(&self, len: usize) -> usize {
        self.cut.map_or(len, |cut| {
            let left = cut.saturating_sub(self.crossed);
            len.min(usize::try_from(left).unwrap())
        })
    }

    fn carry_out(&mut self) -> bool {
        let mut busy = false;
        let mut buf = vec![0; self.piece];
        loop {
            let Some(conn) = self.access.writable().next() else {
                break;
            };
            let Some(len) = self.access.poll_conn(conn, &mut buf) else {
                break;
            };
            busy = true;
            let pass = self.until_cut(len);
            let bytes = buf[..pass].to_vec();
            if let Some(at) = self.link(conn) {
                self.links[at].sent.extend_from_slice(&bytes);
                match &mut self.links[at].far {
                    Far::Pcscf(index, theirs) => {
                        self.pcscfs[*index].handle_input(self.now, *theirs, &bytes);
                    }
                    Far::Proxy(server, upstream) => {
                        let taken = server.handle_input(self.now, Side::Client, &bytes);
                        assert_eq!(taken.len, pass);
                        if let Some((index, theirs)) = upstream {
                            self.pcscfs[*index].handle_input(self.now, *theirs, taken.forward);
                        }
                    }
                }
            }
            self.cross(conn, len);
        }
        busy
    }

    /// Bytes on their way to the UE.
    fn carry_in(&mut self, conn: ConnId, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            let pass = self.until_cut(piece.len());
            self.access.handle_input(self.now, conn, &piece[..pass]);
            if !self.cross(conn, piece.len()) {
                return;
            }
        }
    }

    fn run_pcscfs(&mut self) -> bool {
        let mut busy = false;
        let mut buf = vec![0; 4096];
        for index in 0..self.pcscfs.len() {
            while let Some(theirs) = self.pcscfs[index].poll_writable() {
                while let Some(len) = self.pcscfs[index].poll_conn(theirs, &mut buf) {
                    busy = true;
                    self.towards_ue(index, theirs, &buf[..len]);
                }
            }
            while let Some(action) = self.pcscfs[index].poll_action() {
                busy = true;
                self.obey_pcscf(index, action);
            }
            while let Some(event) = self.pcscfs[index].poll_event() {
                self.heard.push(event);
            }
        }
        busy
    }

    fn of_pcscf(&self, index: usize, theirs: ConnId) -> Option<usize> {
        self.links.iter().position(|link| match &link.far {
            Far::Pcscf(at, conn) | Far::Proxy(_, Some((at, conn))) => {
                (*at, *conn) == (index, theirs)
            }
            Far::Proxy(_, None) => false,
        })
    }

    fn towards_ue(&mut self, index: usize, theirs: ConnId, bytes: &[u8]) {
        let Some(at) = self.of_pcscf(index, theirs) else {
            return;
        };
        let conn = self.links[at].ue;
        let forward = match &mut self.links[at].far {
            Far::Pcscf(..) => bytes.to_vec(),
            Far::Proxy(server, _) => {
                let taken = server.handle_input(self.now, Side::Upstream, bytes);
                assert_eq!(taken.len, bytes.len());
                taken.forward.to_vec()
            }
        };
        self.carry_in(conn, &forward);
    }

    fn obey_pcscf(&mut self, index: usize, action: PcscfAction) {
        match action {
            PcscfAction::Close { conn: theirs } => {
                let Some(at) = self.of_pcscf(index, theirs) else {
                    return;
                };
                let conn = self.links[at].ue;
                match &mut self.links[at].far {
                    Far::Pcscf(..) => {
                        self.past.push(self.links.remove(at).sent);
                        self.access.handle_eof(self.now, conn);
                    }
                    Far::Proxy(server, upstream) => {
                        *upstream = None;
                        server.handle_eof(self.now, Side::Upstream);
                    }
                }
            }
            PcscfAction::FindKey { ticket, hash, .. } => {
                let key = ha1(hash, b"alice@ims.example", b"ims.example", b"secret");
                let answer = KeyAnswer::Known {
                    ha1: key,
                    authorised: true,
                    exists: true,
                };
                self.pcscfs[index].key_found(self.now, ticket, &answer);
            }
            other => panic!("{other:?}"),
        }
    }

    fn run_proxies(&mut self) -> bool {
        let mut busy = false;
        let conns: Vec<_> = self.links.iter().map(|link| link.ue).collect();
        for conn in conns {
            busy |= self.run_proxy(conn);
        }
        busy
    }

    fn run_proxy(&mut self, conn: ConnId) -> bool {
        let mut busy = false;
        let mut buf = vec![0; 4096];
        loop {
            let Some(at) = self.link(conn) else {
                return busy;
            };
            let now = self.now;
            let Far::Proxy(server, upstream) = &mut self.links[at].far else {
                return busy;
            };
            if let Some(action) = server.poll_action() {
                busy = true;
                match action {
                    ProxyAction::CheckAuth { ticket, check } => {
                        let verdict = match &mut self.digest {
                            Some(digest) => judge_digest(digest, now, &check),
                            None => judge(check.authorization()),
                        };
                        server.handle_auth(now, ticket, verdict);
                    }
                    ProxyAction::Resolve { ticket, name } => {
                        let digit = name.chars().find_map(|c| c.to_digit(10)).unwrap();
                        let found = address(digit as usize - 1, 443).ip();
                        server.handle_resolved(now, ticket, &[found]);
                    }
                    ProxyAction::Connect { ticket, address } => {
                        let found = (0..3).find(|at| self::address(*at, 443) == address);
                        let index = found.unwrap();
                        let from = SocketAddr::from(([203, 0, 113, 99], 1024));
                        let theirs = self.accept(index, from, address);
                        let Far::Proxy(server, upstream) = &mut self.links[at].far else {
                            return busy;
                        };
                        *upstream = theirs.map(|theirs| (index, theirs));
                        match theirs {
                            Some(_) => server.handle_connected(now, ticket),
                            None => {
                                server.handle_failure(now, ticket, ProxyError::ConnectionRefused);
                            }
                        }
                    }
                    ProxyAction::Close(Side::Upstream) => {
                        if let Some((index, theirs)) = upstream.take() {
                            self.pcscfs[index].handle_eof(now, theirs);
                        }
                    }
                    ProxyAction::Close(Side::Client) => {
                        self.past.push(self.links.remove(at).sent);
                        self.access.handle_eof(now, conn);
                        return true;
                    }
                    ProxyAction::CloseWrite(Side::Client) => self.access.handle_eof(now, conn),
                    other => panic!("{other:?}"),
                }
            } else if let Some(len) = server.poll_transmit(Side::Client, &mut buf) {
                busy = true;
                self.carry_in(conn, &buf[..len]);
            } else if let Some(len) = server.poll_transmit(Side::Upstream, &mut buf) {
                busy = true;
                if let Some((index, theirs)) = *upstream {
                    self.pcscfs[index].handle_input(now, theirs, &buf[..len]);
                }
            } else if let Some(event) = server.poll_event() {
                if let ProxyEvent::Open { target, .. } = event {
                    self.tunnels.push((conn, target.to_string()));
                }
            } else {
                return busy;
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        let proxies = self.links.iter().map(|link| match &link.far {
            Far::Proxy(server, _) => server.poll_timeout(),
            Far::Pcscf(..) => None,
        });
        self.pcscfs
            .iter()
            .map(Pcscf::poll_timeout)
            .chain(proxies)
            .chain([self.access.poll_timeout()])
            .flatten()
            .min()
    }

    /// Lets time pass until `done`, for `limit` seconds at most; whether it came to that.
    pub fn run_until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_secs(limit);
        self.settle();
        while !done(self) {
            let Some(next) = self.next().filter(|next| *next <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(next);
            self.access.handle_timeout(self.now);
            for pcscf in &mut self.pcscfs {
                pcscf.handle_timeout(self.now);
            }
            for link in &mut self.links {
                if let Far::Proxy(server, _) = &mut link.far {
                    server.handle_timeout(self.now);
                }
            }
            self.settle();
        }
        true
    }

    pub fn run_for(&mut self, seconds: u64) {
        self.run_until(seconds, |_| false);
    }

    /// What was reported since the last call, one word each.
    pub fn story(&mut self) -> String {
        let told: Vec<_> = self.events.drain(..).filter_map(word).collect();
        told.join(", ")
    }

    pub fn registered(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, AccessEvent::Agent(UserAgentEvent::Registered { .. })))
            .count()
    }

    /// Whether a registration is in force, by the UE's own account and the P-CSCF's.
    pub fn is_settled(&self, flows: usize) -> bool {
        let bound: usize = self.pcscfs.iter().map(Pcscf::binding_count).sum();
        self.access.agent().writable().count() == 0 && bound == flows && self.open().len() == flows
    }

    /// Everything the UE has sent, connection by connection.
    pub fn sent(&self) -> Vec<&[u8]> {
        let open = self.links.iter().map(|link| &link.sent[..]);
        self.past.iter().map(|sent| &sent[..]).chain(open).collect()
    }

    /// The connections that are open.
    pub fn open(&self) -> Vec<ConnId> {
        self.links.iter().map(|link| link.ue).collect()
    }

    /// Cuts a connection in both directions.
    pub fn reset(&mut self, conn: ConnId) {
        self.drop_link(conn);
        self.access
            .connection_failed(self.now, conn, ConnFailure::Reset);
    }
}

/// One event in a word.
fn word(event: AccessEvent) -> Option<String> {
    Some(match event {
        AccessEvent::Trying { rung, target, .. } => {
            let host = target.as_uri().host().to_string();
            let host = host.split('.').next().unwrap().to_string();
            format!("{rung} {host}")
        }
        AccessEvent::RungFailed { cause, .. } => format!("({cause})"),
        AccessEvent::Ready {
            via_proxy, alpn, ..
        } => {
            let alpn = alpn.map_or_else(String::new, |id| format!(" {}", id.escape_ascii()));
            let via = if via_proxy { " via proxy" } else { "" };
            format!("ready{via}{alpn}")
        }
        AccessEvent::Exhausted { .. } => "exhausted".into(),
        AccessEvent::ProxyCredentials { realm, .. } => format!("credentials for {realm}?"),
        AccessEvent::Agent(UserAgentEvent::Registered { reg_id, .. }) => {
            format!("registered {reg_id}")
        }
        AccessEvent::Agent(UserAgentEvent::FlowFailed { cause, .. }) => format!("[{cause}]"),
        AccessEvent::Agent(UserAgentEvent::Stopped) => "stopped".into(),
        AccessEvent::Agent(_) => return None,
        other => format!("{other:?}"),
    })
}

pub fn judge(authorization: Option<&str>) -> AuthVerdict {
    let parsed = authorization.map(|value| Challenge::parse(value).unwrap());
    match parsed.and_then(|credentials| parse_basic(&credentials)) {
        Some(given) if given == Credentials::new("user", "pass") => AuthVerdict::Allow {
            user: Some(given.username),
            info: None,
        },
        _ => AuthVerdict::Challenge(vec!["Basic realm=\"corp\"".into()]),
    }
}

fn judge_digest(digest: &mut ServerAuth, now: Instant, check: &AuthCheck) -> AuthVerdict {
    let request = DigestRequest {
        method: "CONNECT",
        uri: check.uri(),
        body: b"",
    };
    let key = |hash, user: &str| (user == "user").then(|| ha1(hash, b"user", b"corp", b"pass"));
    match digest.check_named(now, b"ue", request, check.authorization(), key) {
        ServerVerdict::Allow { user, info } => AuthVerdict::Allow {
            user: Some(user),
            info,
        },
        ServerVerdict::Challenge(rows) => AuthVerdict::Challenge(rows),
        ServerVerdict::Malformed => panic!("{check:?}"),
    }
}

fn address(index: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, index as u8 + 1], port))
}
