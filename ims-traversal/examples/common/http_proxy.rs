//! An HTTP CONNECT proxy on real sockets: one machine for each connection.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http_connect::auth::{
    Challenge, ClaimedUser, DigestRefusal, DigestRequest, DigestServer, DigestServerConfig,
    HashAlgorithm, HexDigest, basic_challenge, ha1, parse_basic,
};
use http_connect::{
    AuthCheck, AuthVerdict, ConnectServer, ProxyAction, ProxyConfig, ProxyError, ProxyEvent,
    Record, Rng, Side, Ticket,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{now, seed, sleep_until};

/// Who may use the proxy, and how they prove it.
pub struct Users {
    realm: String,
    basic: bool,
    digest: Option<Mutex<DigestServer>>,
    passwords: HashMap<String, String>,
}

impl Users {
    /// Users with their passwords; `basic` and `digest` say which schemes are offered.
    pub fn new(
        realm: &str,
        passwords: HashMap<String, String>,
        basic: bool,
        digest: bool,
    ) -> anyhow::Result<Self> {
        let mut rng = Rng::from_seed(seed());
        let server = DigestServer::new(DigestServerConfig::new(realm), &mut rng)?;
        Ok(Self {
            realm: realm.to_owned(),
            basic,
            digest: digest.then(|| Mutex::new(server)),
            passwords,
        })
    }

    fn judge(&self, client: SocketAddr, check: &AuthCheck) -> AuthVerdict {
        let credentials = check.authorization().map(Challenge::parse);
        let mut stale = false;
        if let Some(Ok(credentials)) = &credentials {
            match self.proof(client, check, credentials) {
                Ok((user, info)) => {
                    let user = Some(user);
                    return AuthVerdict::Allow { user, info };
                }
                Err(DigestRefusal::Stale) => stale = true,
                Err(_) => {}
            }
        }
        let mut challenges = Vec::new();
        if let Some(digest) = &self.digest {
            let mut digest = digest.lock().unwrap_or_else(PoisonError::into_inner);
            let binding = client.ip().to_string();
            challenges.extend(digest.challenges(now(), binding.as_bytes(), stale));
        }
        if self.basic {
            challenges.push(basic_challenge(&self.realm));
        }
        AuthVerdict::Challenge(challenges)
    }

    /// The user, and what the answer tells about it.
    fn proof(
        &self,
        client: SocketAddr,
        check: &AuthCheck,
        credentials: &Challenge<'_>,
    ) -> Result<(String, Option<String>), DigestRefusal> {
        if self.basic && credentials.is("Basic") {
            let given = parse_basic(credentials).ok_or(DigestRefusal::Malformed)?;
            // Hashes of equal length compare in constant time.
            let hash = |password: &[u8]| ha1(HashAlgorithm::Sha256, b"", b"", password);
            let known = self.passwords.get(&given.username);
            let right = hash(known.map_or("", String::as_str).as_bytes());
            let same = right.matches(hash(given.password.expose()).as_str());
            return if same && known.is_some() {
                Ok((given.username, None))
            } else {
                Err(DigestRefusal::Wrong)
            };
        }
        let digest = self.digest.as_ref().ok_or(DigestRefusal::Malformed)?;
        let mut digest = digest.lock().unwrap_or_else(PoisonError::into_inner);
        let request = DigestRequest {
            method: "CONNECT",
            uri: check.uri(),
            body: b"",
        };
        let key = |user: &ClaimedUser, hash| self.key(user, hash);
        let binding = client.ip().to_string();
        let proof = digest.verify(now(), binding.as_bytes(), request, credentials, key)?;
        match proof.user() {
            ClaimedUser::Name(name) | ClaimedUser::Hash(name) => {
                Ok((name.clone(), Some(proof.info(b""))))
            }
        }
    }

    fn key(&self, user: &ClaimedUser, hash: HashAlgorithm) -> Option<HexDigest> {
        let ClaimedUser::Name(name) = user else {
            return None;
        };
        let password = self.passwords.get(name)?;
        let realm = self.realm.as_bytes();
        Some(ha1(hash, name.as_bytes(), realm, password.as_bytes()))
    }
}

/// Listens; `on_closed` gets one record for each connection.
pub async fn listen(
    at: SocketAddr,
    config: impl FnOnce(SocketAddr) -> ProxyConfig,
    users: Option<Users>,
    on_closed: impl Fn(SocketAddr, &Record) + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(at).await?;
    let local = listener.local_addr()?;
    let mut config = config(local);
    config.authenticate = users.is_some();
    let (config, users) = (Arc::new(config), Arc::new(users));
    let on_closed = Arc::new(on_closed);
    tokio::spawn(async move {
        loop {
            let Ok((client, from)) = listener.accept().await else {
                continue;
            };
            let (config, users) = (Arc::clone(&config), Arc::clone(&users));
            let on_closed = Arc::clone(&on_closed);
            tokio::spawn(async move {
                let _ = client.set_nodelay(true);
                if let Ok(proxy) = ConnectServer::new(config, seed(), now()) {
                    let mut connection = Connection {
                        proxy,
                        client,
                        from,
                        upstream: None,
                    };
                    connection
                        .run(users.as_ref().as_ref(), |record| on_closed(from, record))
                        .await;
                }
            });
        }
    });
    Ok(local)
}

struct Connection {
    proxy: ConnectServer,
    client: TcpStream,
    from: SocketAddr,
    upstream: Option<TcpStream>,
}

impl Connection {
    /// Until the tunnel is open; then the kernel's buffers do the rest.
    async fn run(&mut self, users: Option<&Users>, on_closed: impl Fn(&Record)) {
        let mut buf = vec![0; 16 * 1024];
        loop {
            while let Some(action) = self.proxy.poll_action() {
                if self.act(action, users).await.is_break() {
                    self.report(&on_closed);
                    return;
                }
            }
            let mut open = false;
            while let Some(event) = self.proxy.poll_event() {
                match event {
                    ProxyEvent::Open { .. } => open = true,
                    ProxyEvent::Closed(record) => on_closed(&record),
                    _ => {}
                }
            }
            while let Some(len) = self.proxy.poll_transmit(Side::Client, &mut buf) {
                if self.client.write_all(&buf[..len]).await.is_err() {
                    self.proxy.handle_reset(now(), Side::Client);
                }
            }
            if open {
                self.relay().await;
                self.report(&on_closed);
                return;
            }
            let wants = self.proxy.wants_input(Side::Client);
            tokio::select! {
                readable = self.client.readable(), if wants => {
                    match readable.and_then(|()| self.client.try_read(&mut buf)) {
                        Ok(0) => self.proxy.handle_eof(now(), Side::Client),
                        Ok(len) => {
                            let mut rest = &buf[..len];
                            while !rest.is_empty() {
                                let taken = self.proxy.handle_input(now(), Side::Client, rest);
                                if taken.len == 0 {
                                    break;
                                }
                                rest = &rest[taken.len..];
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => self.proxy.handle_reset(now(), Side::Client),
                    }
                }
                () = sleep_until(self.proxy.poll_timeout()) => self.proxy.handle_timeout(now()),
            }
        }
    }

    fn report(&mut self, on_closed: &impl Fn(&Record)) {
        while let Some(event) = self.proxy.poll_event() {
            if let ProxyEvent::Closed(record) = event {
                on_closed(&record);
            }
        }
    }

    async fn act(
        &mut self,
        action: ProxyAction,
        users: Option<&Users>,
    ) -> std::ops::ControlFlow<()> {
        match action {
            ProxyAction::CheckAuth { ticket, check } => {
                let verdict = match users {
                    Some(users) => users.judge(self.from, &check),
                    None => AuthVerdict::Forbid,
                };
                self.proxy.handle_auth(now(), ticket, verdict);
            }
            ProxyAction::Resolve { ticket, name } => {
                match tokio::net::lookup_host((name.as_str(), 0)).await {
                    Ok(found) => {
                        let found: Vec<_> = found.map(|addr| addr.ip()).collect();
                        self.proxy.handle_resolved(now(), ticket, &found);
                    }
                    Err(_) => {
                        let error = ProxyError::Dns { rcode: None };
                        self.proxy.handle_failure(now(), ticket, error);
                    }
                }
            }
            ProxyAction::Connect { ticket, address } => self.connect(ticket, address).await,
            ProxyAction::CloseWrite(Side::Client) => {
                let mut buf = [0; 4096];
                while let Some(len) = self.proxy.poll_transmit(Side::Client, &mut buf) {
                    let _ = self.client.write_all(&buf[..len]).await;
                }
                let _ = self.client.shutdown().await;
            }
            ProxyAction::Close(Side::Client) => return std::ops::ControlFlow::Break(()),
            ProxyAction::CloseWrite(Side::Upstream) | ProxyAction::Close(Side::Upstream) => {
                self.upstream = None;
            }
            ProxyAction::ConnectParent { ticket } => {
                // No parent is configured here.
                self.proxy
                    .handle_failure(now(), ticket, ProxyError::Unavailable);
            }
            _ => {}
        }
        std::ops::ControlFlow::Continue(())
    }

    async fn connect(&mut self, ticket: Ticket, address: SocketAddr) {
        let deadline = self.proxy.poll_timeout();
        let connected = tokio::select! {
            connected = TcpStream::connect(address) => connected,
            () = sleep_until(deadline) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(upstream) => {
                let _ = upstream.set_nodelay(true);
                self.upstream = Some(upstream);
                self.proxy.handle_connected(now(), ticket);
            }
            Err(error) => {
                let error = match error.kind() {
                    io::ErrorKind::TimedOut => ProxyError::ConnectionTimeout,
                    io::ErrorKind::ConnectionRefused => ProxyError::ConnectionRefused,
                    _ => ProxyError::Unroutable,
                };
                self.proxy.handle_failure(now(), ticket, error);
            }
        }
    }

    async fn relay(&mut self) {
        let Ok(held) = self.proxy.splice(now()) else {
            return;
        };
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        let begun = async {
            self.client.write_all(&held.to_client).await?;
            upstream.write_all(&held.to_upstream).await
        };
        if begun.await.is_ok() {
            let _ = tokio::io::copy_bidirectional(&mut self.client, upstream).await;
        }
    }
}
