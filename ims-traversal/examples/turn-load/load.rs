//! The clients, the echo, and the loop that drives them.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mio::{Events, Poll, Token};
use quinn_udp::RecvMeta;
use smallvec::SmallVec;
use stun_proto::auth::Credentials;
use stun_proto::{FiveTuple, Instant, Path, Received, Transport};
use turn_proto::client::{AllocateOptions, Client, ClientConfig, Event, MAX_TRANSMIT, SendError};

use crate::Args;
use crate::udp::{BATCH, Pending, SLOT, UdpSocket};

/// Clients that allocate at the same time.
const TOGETHER: usize = 200;

/// How often the clients' own deadlines are looked at.
const DEADLINES: Duration = Duration::from_millis(50);

/// Bytes the kernel keeps for the echo.
const ECHO_BUFFER: usize = 32 << 20;

const ECHO: Token = Token(usize::MAX);

/// What has been counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sent: u64,
    /// Not taken by the kernel of this host, and not counted as sent.
    pub unsent: u64,
    pub echoed: u64,
    pub received: u64,
    /// Nanoseconds on the way, of all received together.
    pub delay: u64,
    /// The most nanoseconds of one.
    pub longest: u64,
}

struct One {
    client: Client,
    socket: UdpSocket,
    at: FiveTuple,
    ready: bool,
}

pub struct Load {
    poll: Poll,
    clients: Vec<One>,
    echo: UdpSocket,
    start: std::time::Instant,
    tally: Tally,
    slots: Vec<Box<[u8]>>,
    metas: [RecvMeta; BATCH],
    buf: Vec<u8>,
    /// Sockets that had a full batch.
    again: Vec<Token>,
    ready: usize,
    /// Whose turn it is, and how many datagrams have had theirs.
    next: usize,
    turns: u64,
    looked: Instant,
    config: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    peer: SocketAddr,
    /// Datagrams per second of all clients.
    rate: f64,
    payload: usize,
    burst: usize,
}

impl Load {
    pub fn new(args: &Args) -> Result<Self> {
        let poll = Poll::new()?;
        let mut echo = open(SocketAddr::new(args.peer, 0), Some(ECHO_BUFFER))?;
        echo.register(poll.registry(), ECHO)?;
        let peer = echo.local();
        let mut clients = Vec::new();
        for index in 0..args.clients {
            let local = SocketAddr::new(own_address(args.server.ip(), index), 0);
            let mut socket = open(local, None)?;
            socket.register(poll.registry(), Token(index))?;
            let at = FiveTuple::udp(socket.local(), args.server);
            let credentials = Credentials::new(&args.user, &args.password);
            let config = ClientConfig::new(Some(credentials));
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).context("randomness")?;
            let client = Client::new(
                config,
                Path::Datagram(at),
                Transport::Udp,
                seed,
                Instant::ZERO,
            );
            clients.push(One {
                client,
                socket,
                at,
                ready: false,
            });
        }
        Ok(Self {
            poll,
            clients,
            echo,
            start: std::time::Instant::now(),
            tally: Tally::default(),
            slots: (0..BATCH)
                .map(|_| vec![0; SLOT].into_boxed_slice())
                .collect(),
            metas: [RecvMeta::default(); BATCH],
            buf: vec![0; SLOT],
            again: Vec::new(),
            ready: 0,
            next: 0,
            turns: 0,
            looked: Instant::ZERO,
            config: Settings {
                peer,
                rate: args.rate * args.clients as f64,
                payload: args.payload.max(16),
                burst: args.burst.max(1),
            },
        })
    }

    pub fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    pub const fn tally(&self) -> Tally {
        self.tally
    }

    pub const fn reset_longest(&mut self) {
        self.tally.longest = 0;
    }

    /// Gets every client an allocation and a channel.
    pub fn allocate(&mut self) -> Result<()> {
        let begun = self.now();
        let mut asked = 0;
        while self.ready < self.clients.len() {
            let now = self.now();
            while asked < self.clients.len() && asked < self.ready + TOGETHER {
                let one = &mut self.clients[asked];
                one.client.allocate(now, AllocateOptions::default())?;
                self.drive(asked)?;
                asked += 1;
            }
            self.step(Duration::from_millis(20))?;
            if now.duration_since(begun) > Duration::from_secs(120) {
                bail!(
                    "{} of {} allocations after 120 s",
                    self.ready,
                    self.clients.len()
                );
            }
        }
        Ok(())
    }

    /// Sends and receives until so much time has passed since `start`.
    pub fn run(&mut self, start: Instant, until: Duration) {
        loop {
            let passed = self.now().duration_since(start);
            if passed >= until {
                return;
            }
            let due = (passed.as_secs_f64() * self.config.rate) as u64;
            // Not all at once after a pause.
            let count = due.saturating_sub(self.turns).min(4096);
            let mut left = count as usize;
            while left > 0 {
                let burst = self.config.burst.min(left);
                self.send(self.next, burst);
                self.next = (self.next + 1) % self.clients.len();
                left -= burst;
            }
            self.turns += count;
            let wait = if due > self.turns { 0 } else { 1 };
            if self.step(Duration::from_millis(wait)).is_err() {
                return;
            }
        }
    }

    /// Takes in what is still on its way.
    pub fn settle(&mut self, wait: Duration) {
        let until = self.now() + wait;
        while self.now() < until && self.step(Duration::from_millis(20)).is_ok() {}
    }

    /// Gives the allocations back.
    pub fn close(&mut self) {
        for index in 0..self.clients.len() {
            let now = self.now();
            self.clients[index].client.close(now);
            let _ = self.drive(index);
            if index % TOGETHER == 0 {
                let _ = self.step(Duration::from_millis(5));
            }
        }
        self.settle(Duration::from_secs(1));
    }

    fn send(&mut self, index: usize, count: usize) {
        let now = self.now();
        let One {
            client, socket, at, ..
        } = &mut self.clients[index];
        let mut payload = vec![0; self.config.payload];
        for _ in 0..count {
            payload[..8].copy_from_slice(&now.as_nanos().to_be_bytes());
            match client.send(now, self.config.peer, &payload, &mut self.buf) {
                Ok(sent) => {
                    let parts = [IoSlice::new(&self.buf[..sent.len])];
                    match socket.send(at.remote, &parts) {
                        Ok(()) => self.tally.sent += 1,
                        Err(_) => self.tally.unsent += 1,
                    }
                }
                Err(SendError::NoAllocation | SendError::NoPermission) => {
                    self.tally.unsent += 1;
                }
                Err(error) => crate::say(&format!("client {index}: {error}")),
            }
        }
    }

    /// Waits for datagrams and deadlines, and sees to them.
    fn step(&mut self, wait: Duration) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let wait = if self.again.is_empty() {
            wait
        } else {
            Duration::ZERO
        };
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => bail!(error),
            _ => {}
        }
        let again = std::mem::take(&mut self.again);
        for token in events.iter().map(mio::event::Event::token).chain(again) {
            if token == ECHO {
                self.echo();
            } else {
                self.receive(token.0)?;
            }
        }
        let now = self.now();
        if now.duration_since(self.looked) >= DEADLINES {
            self.looked = now;
            for index in 0..self.clients.len() {
                let client = &mut self.clients[index].client;
                if client.poll_timeout().is_some_and(|at| at <= now) {
                    client.handle_timeout(now);
                    self.drive(index)?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let now = self.now();
        let one = &mut self.clients[index];
        let Ok(received) = one.socket.receive(&mut self.slots, &mut self.metas) else {
            return Ok(());
        };
        if received == BATCH {
            self.again.push(Token(index));
        }
        let mut answers = false;
        for (slot, meta) in self.slots.iter().zip(&self.metas).take(received) {
            for datagram in slot[..meta.len].chunks(meta.stride.max(1)) {
                match one.client.handle_datagram(now, one.at, datagram) {
                    Received::Data { data, .. } => self.tally.received(now, data),
                    Received::Consumed => answers = true,
                    Received::NotMine => {}
                }
            }
        }
        if answers {
            self.drive(index)?;
        }
        Ok(())
    }

    /// Sends everything back where it came from.
    fn echo(&mut self) {
        let received = self.echo.receive(&mut self.slots, &mut self.metas);
        let Ok(received) = received else { return };
        if received == BATCH {
            self.again.push(ECHO);
        }
        let mut back: SmallVec<[Pending<'_>; 64]> = SmallVec::new();
        for (slot, meta) in self.slots.iter().zip(&self.metas).take(received) {
            for datagram in slot[..meta.len].chunks(meta.stride.max(1)) {
                self.tally.echoed += 1;
                let parts = [datagram, &[], &[]].map(IoSlice::new);
                back.push(Pending::new(meta.addr, parts));
            }
        }
        let failed = self.echo.send_each(&back) as u64;
        // Lost here, not at the server.
        self.tally.echoed -= failed;
        self.tally.unsent += failed;
        self.tally.sent -= failed;
    }

    /// Does what a client wants done.
    fn drive(&mut self, index: usize) -> Result<()> {
        let now = self.now();
        let one = &mut self.clients[index];
        let mut buf = [0; MAX_TRANSMIT];
        loop {
            while let Some(sent) = one.client.poll_transmit(&mut buf) {
                // It comes again if it is lost.
                let _ = one
                    .socket
                    .send(one.at.remote, &[IoSlice::new(&buf[..sent.len])]);
            }
            while one.client.poll_action().is_some() {}
            let Some(event) = one.client.poll_event() else {
                return Ok(());
            };
            match event {
                Event::Allocated { .. } => one.client.bind_channel(now, self.config.peer)?,
                Event::ChannelBound { .. } if !one.ready => {
                    one.ready = true;
                    self.ready += 1;
                }
                Event::AllocateFailed { cause, .. } => bail!("client {index}: {cause}"),
                Event::AllocationLost { cause, .. } => bail!("client {index} lost: {cause}"),
                _ => {}
            }
        }
    }
}

impl Tally {
    fn received(&mut self, now: Instant, data: &[u8]) {
        self.received += 1;
        let sent = data.first_chunk().map_or(0, |at| i64::from_be_bytes(*at));
        let delay = u64::try_from(now.as_nanos() - sent).unwrap_or_default();
        self.delay += delay;
        self.longest = self.longest.max(delay);
    }
}

/// The address a client sends from.
fn own_address(server: IpAddr, index: usize) -> IpAddr {
    match server {
        IpAddr::V4(v4) if v4.is_loopback() => {
            let (high, low) = (index / 250 % 250, index % 250 + 1);
            Ipv4Addr::new(127, 1, high as u8, low as u8).into()
        }
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(v6) if v6.is_loopback() => server,
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn open(at: SocketAddr, buffer: Option<usize>) -> Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(at).with_context(|| format!("UDP {at}"))?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = buffer {
        crate::udp::enlarge(&socket, bytes);
    }
    Ok(UdpSocket::new(socket)?)
}
