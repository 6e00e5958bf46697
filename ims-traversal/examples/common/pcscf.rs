//! A P-CSCF on real sockets: one machine behind a lock, a task for each connection.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_connect::auth::{ClaimedUser, HashAlgorithm, ha1};
use ims_traversal::ConnId;
use ims_traversal::pcscf::{
    CloseCause, Listener, Pcscf, PcscfAction, PcscfEvent, ServiceConfig, ServiceConfigError,
};
use rustls::ServerConfig as TlsConfig;
use sip_outbound::wire::Aor;
use sip_outbound::{KeyAnswer, MAX_TRANSMIT};
use stun_proto::{FiveTuple, Instant, Transport};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{now, seed, sleep_until};

/// How long the last bytes of a closed connection may take.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Bytes of one connection that are taken out of the machine at a time.
const PIECE: usize = 64 * 1024;

/// Users of the domains that are served here, with their passwords.
#[derive(Default)]
pub struct SipUsers {
    realm: String,
    domains: Vec<String>,
    passwords: HashMap<String, String>,
}

impl SipUsers {
    /// Users of these domains; the first one is the realm.
    pub fn new(domains: &[String], passwords: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            realm: domains.first().cloned().unwrap_or_default(),
            domains: domains.to_vec(),
            passwords: passwords.into_iter().collect(),
        }
    }

    /// The name of the user whose address of record this is.
    fn user<'a>(&self, aor: &'a Aor) -> Option<&'a str> {
        let rest = aor.as_str().split_once(':')?.1;
        let (user, domain) = rest.split_once('@')?;
        self.domains.iter().any(|own| own == domain).then_some(user)
    }

    fn exists(&self, aor: &Aor) -> bool {
        let user = self.user(aor);
        user.is_some_and(|user| self.passwords.contains_key(user))
    }

    /// Users name themselves with or without their domain.
    fn key(&self, user: &ClaimedUser, hash: HashAlgorithm, aor: &Aor) -> KeyAnswer {
        let ClaimedUser::Name(claimed) = user else {
            return KeyAnswer::Unknown;
        };
        let name = match claimed.split_once('@') {
            Some((name, domain)) if self.domains.iter().any(|own| own == domain) => name,
            Some(_) => return KeyAnswer::Unknown,
            None => claimed,
        };
        let Some(password) = self.passwords.get(name) else {
            return KeyAnswer::Unknown;
        };
        let (realm, password) = (self.realm.as_bytes(), password.as_bytes());
        KeyAnswer::Known {
            ha1: ha1(hash, claimed.as_bytes(), realm, password),
            authorised: self.user(aor) == Some(name),
            exists: true,
        }
    }
}

/// What the P-CSCF tells about itself.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A connection was accepted.
    Accepted(ConnId, SocketAddr),
    /// A connection was refused.
    Refused(SocketAddr, String),
    /// Something happened to a connection or a user.
    Event(PcscfEvent),
}

type OnNotice = Box<dyn Fn(Notice) + Send + Sync>;

/// The machine, and where its datagrams are written.
struct Inner {
    pcscf: Pcscf,
    buf: Vec<u8>,
    /// When the machine is told the time next.
    armed: Option<Instant>,
}

/// A running P-CSCF.
pub struct PcscfHost {
    inner: Mutex<Inner>,
    lines: Mutex<HashMap<ConnId, Arc<Line>>>,
    users: Mutex<SipUsers>,
    /// Towards registrars.
    socket: UdpSocket,
    core: SocketAddr,
    listeners: Mutex<Vec<JoinHandle<()>>>,
    wake: Notify,
    stopped: Notify,
    on_notice: OnNotice,
}

/// What the task of a connection waits for.
#[derive(Default)]
struct Line {
    changed: Notify,
    closed: AtomicBool,
}

impl Line {
    async fn closed(&self) {
        while !self.closed.load(Ordering::Acquire) {
            self.changed.notified().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PcscfHost {
    /// A P-CSCF whose UDP socket towards registrars is this one.
    pub fn new(
        config: ServiceConfig,
        users: SipUsers,
        socket: UdpSocket,
        on_notice: impl Fn(Notice) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, ServiceConfigError> {
        let core = config.core_socket;
        let host = Arc::new(Self {
            inner: Mutex::new(Inner {
                pcscf: Pcscf::new(config, seed(), now())?,
                buf: vec![0; MAX_TRANSMIT],
                armed: None,
            }),
            lines: Mutex::default(),
            users: Mutex::new(users),
            socket,
            core,
            listeners: Mutex::default(),
            wake: Notify::new(),
            stopped: Notify::new(),
            on_notice: Box::new(on_notice),
        });
        tokio::spawn(Arc::clone(&host).keep_time());
        tokio::spawn(Arc::clone(&host).receive());
        Ok(host)
    }

    /// How many connections and bindings there are.
    pub fn counts(&self) -> (usize, usize) {
        let inner = lock(&self.inner);
        (inner.pcscf.conn_count(), inner.pcscf.binding_count())
    }

    /// Other users from now on.
    pub fn set_users(&self, users: SipUsers) {
        *lock(&self.users) = users;
    }

    /// Another certificate for those who connect from now on.
    pub fn set_tls(&self, tls: Arc<TlsConfig>) {
        lock(&self.inner).pcscf.set_tls(tls);
    }

    /// Takes no more connections, lets those there are go one after the other, and returns when
    /// none is left.
    pub async fn shut_down(self: &Arc<Self>) {
        for listener in lock(&self.listeners).drain(..) {
            listener.abort();
        }
        let stopped = self.stopped.notified();
        {
            let mut inner = lock(&self.inner);
            inner.pcscf.shut_down(now());
            self.drain(&mut inner);
        }
        stopped.await;
    }

    async fn keep_time(self: Arc<Self>) {
        loop {
            let deadline = {
                let mut inner = lock(&self.inner);
                inner.armed = inner.pcscf.poll_timeout();
                inner.armed
            };
            tokio::select! {
                () = sleep_until(deadline) => {
                    let mut inner = lock(&self.inner);
                    inner.pcscf.handle_timeout(now());
                    self.drain(&mut inner);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    async fn receive(self: Arc<Self>) {
        let mut buf = vec![0; MAX_TRANSMIT];
        loop {
            if let Ok((len, remote)) = self.socket.recv_from(&mut buf).await {
                let at = FiveTuple::udp(self.core, remote);
                let mut inner = lock(&self.inner);
                inner.pcscf.handle_datagram(now(), at, &buf[..len]);
                self.drain(&mut inner);
            }
        }
    }

    /// Listens for connections.
    pub async fn listen(
        self: &Arc<Self>,
        at: SocketAddr,
        listener: Listener,
    ) -> io::Result<SocketAddr> {
        let socket = TcpListener::bind(at).await?;
        let local = socket.local_addr()?;
        let host = Arc::clone(self);
        let task = tokio::spawn(async move {
            loop {
                match socket.accept().await {
                    Ok((tcp, remote)) => host.accept(tcp, remote, listener),
                    // Out of file descriptors, most of the time: it does not help to hurry.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        lock(&self.listeners).push(task);
        Ok(local)
    }

    fn accept(self: &Arc<Self>, tcp: TcpStream, remote: SocketAddr, listener: Listener) {
        let _ = tcp.set_nodelay(true);
        let Ok(local) = tcp.local_addr() else {
            return;
        };
        let transport = Transport::Tcp;
        let at = FiveTuple {
            transport,
            local,
            remote,
        };
        let mut inner = lock(&self.inner);
        match inner.pcscf.accept(now(), at, listener) {
            Ok(conn) => {
                (self.on_notice)(Notice::Accepted(conn, remote));
                let line = self.add_line(conn);
                self.drain(&mut inner);
                tokio::spawn(Arc::clone(self).serve(tcp, conn, line));
            }
            Err(refused) => (self.on_notice)(Notice::Refused(remote, refused.to_string())),
        }
    }

    fn add_line(&self, conn: ConnId) -> Arc<Line> {
        let line = Arc::<Line>::default();
        lock(&self.lines).insert(conn, Arc::clone(&line));
        line
    }

    /// Opens a connection to a registrar.
    async fn connect(self: Arc<Self>, conn: ConnId, to: SocketAddr, line: Arc<Line>) {
        let connected = async {
            let socket = match self.core {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // Registrars know the P-CSCF by its address.
            socket.bind(SocketAddr::new(self.core.ip(), 0))?;
            let tcp = socket.connect(to).await?;
            tcp.set_nodelay(true)?;
            let local = tcp.local_addr()?;
            io::Result::Ok((tcp, local))
        };
        let connected = tokio::select! {
            connected = connected => connected,
            // The machine has given up.
            () = line.closed() => return,
        };
        {
            let mut inner = lock(&self.inner);
            match &connected {
                Ok((_, local)) => inner.pcscf.connected(now(), conn, *local),
                Err(_) => inner.pcscf.connection_failed(now(), conn),
            }
            self.drain(&mut inner);
        }
        if let Ok((tcp, _)) = connected {
            self.serve(tcp, conn, line).await;
        }
    }

    /// Moves the bytes of a connection until it is closed.
    async fn serve(self: Arc<Self>, tcp: TcpStream, conn: ConnId, line: Arc<Line>) {
        // There are many of them, most of them silent.
        let mut buf = vec![0; 4096];
        let mut out = Vec::new();
        let mut eof = false;
        loop {
            if out.is_empty() {
                self.take(conn, &mut buf, &mut out);
            }
            let closed = line.closed.load(Ordering::Acquire);
            if closed {
                return finish(tcp, &out).await;
            }
            let wants = !eof && lock(&self.inner).pcscf.wants_input(conn);
            tokio::select! {
                readable = tcp.readable(), if wants => {
                    match readable.and_then(|()| tcp.try_read(&mut buf)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Ok(0) | Err(_) => {
                            eof = true;
                            let mut inner = lock(&self.inner);
                            inner.pcscf.handle_eof(now(), conn);
                            self.drain(&mut inner);
                        }
                        Ok(len) => {
                            let mut inner = lock(&self.inner);
                            inner.pcscf.handle_input(now(), conn, &buf[..len]);
                            self.drain(&mut inner);
                        }
                    }
                }
                writable = tcp.writable(), if !out.is_empty() => {
                    match writable.and_then(|()| tcp.try_write(&out)) {
                        Ok(len) if len == out.len() => out = Vec::new(),
                        Ok(len) => drop(out.drain(..len)),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => {
                            let mut inner = lock(&self.inner);
                            inner.pcscf.handle_eof(now(), conn);
                            self.drain(&mut inner);
                        }
                    }
                }
                () = line.changed.notified() => {}
            }
        }
    }

    /// Takes what the machine has for a connection.
    fn take(self: &Arc<Self>, conn: ConnId, buf: &mut [u8], out: &mut Vec<u8>) {
        let mut inner = lock(&self.inner);
        while out.len() < PIECE {
            let Some(len) = inner.pcscf.poll_conn(conn, buf) else {
                break;
            };
            out.extend_from_slice(&buf[..len]);
        }
        self.drain(&mut inner);
    }

    /// Does what the machine wants done.
    fn drain(self: &Arc<Self>, inner: &mut Inner) {
        let Inner {
            pcscf: machine,
            buf,
            armed,
        } = inner;
        loop {
            while let Some(conn) = machine.poll_writable() {
                if let Some(line) = lock(&self.lines).get(&conn) {
                    line.changed.notify_one();
                }
            }
            while let Some(sent) = machine.poll_transmit(buf) {
                // A datagram that cannot be sent is lost; it is sent again.
                let _ = self.socket.try_send_to(&buf[..sent.len], sent.to.remote);
            }
            while let Some(event) = machine.poll_event() {
                self.event(machine, event);
            }
            match machine.poll_action() {
                Some(action) => self.act(machine, action),
                None => break,
            }
        }
        let next = machine.poll_timeout();
        if next.is_some_and(|next| armed.is_none_or(|armed| next < armed)) {
            *armed = next;
            self.wake.notify_one();
        }
    }

    fn act(self: &Arc<Self>, machine: &mut Pcscf, action: PcscfAction) {
        match action {
            PcscfAction::Connect { conn, to } => {
                let line = self.add_line(conn);
                tokio::spawn(Arc::clone(self).connect(conn, to, line));
            }
            PcscfAction::Close { conn } => {
                if let Some(line) = lock(&self.lines).remove(&conn) {
                    line.closed.store(true, Ordering::Release);
                    line.changed.notify_one();
                }
            }
            PcscfAction::FindKey {
                ticket,
                user,
                hash,
                aor,
            } => {
                let answer = lock(&self.users).key(&user, hash, &aor);
                machine.key_found(now(), ticket, &answer);
            }
            PcscfAction::FindUser { query, aor } => {
                let exists = lock(&self.users).exists(&aor);
                machine.user_found(now(), query, exists);
            }
            _ => {}
        }
    }

    fn event(&self, machine: &mut Pcscf, event: PcscfEvent) {
        match &event {
            // There is nothing here for a browser.
            PcscfEvent::Http { conn } => {
                machine.consume(*conn, usize::MAX);
                machine.write(
                    *conn,
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
                machine.close(now(), *conn);
            }
            PcscfEvent::Stopped => self.stopped.notify_one(),
            _ => {}
        }
        (self.on_notice)(Notice::Event(event));
    }
}

/// Writes the last bytes of a connection.
async fn finish(tcp: TcpStream, out: &[u8]) {
    use tokio::io::AsyncWriteExt as _;
    let mut tcp = tcp;
    let last = async {
        tcp.write_all(out).await?;
        tcp.shutdown().await
    };
    // Whoever does not read them does without.
    let _ = tokio::time::timeout(LAST_BYTES, last).await;
}

/// Whether this end of a connection is one to be told of: not a client that just left.
pub fn is_failure(cause: &CloseCause) -> bool {
    !matches!(
        cause,
        CloseCause::Peer | CloseCause::Host | CloseCause::ShutDown | CloseCause::Http
    )
}
