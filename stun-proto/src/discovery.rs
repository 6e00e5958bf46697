//! Finding a server by name, without asking DNS oneself (RFC 8489 section 8).
//!
//! [`Discovery`] says what to ask and takes the answers; what to connect to comes out, best first.

use core::net::{IpAddr, SocketAddr};

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::uri::{Host, Scheme, Uri};
use crate::{Rng, Transport};

/// The ALPN identifier of TURN over TLS and DTLS (RFC 7443).
pub const ALPN_TURN: &[u8] = b"stun.turn";
/// The ALPN identifier of NAT discovery over TLS and DTLS (RFC 7443).
pub const ALPN_NAT_DISCOVERY: &[u8] = b"stun.nat-discovery";

/// Most SRV records, and most addresses per name, that are looked at.
const MAX_RECORDS: usize = 16;

/// What a server is wanted for: the name of its service in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Binding, `_stun` and `_stuns`.
    Stun,
    /// NAT behaviour discovery, `_stun-behavior` and `_stun-behaviors` (RFC 5780 section 5.1).
    StunBehavior,
}

/// The name of the SRV records of a service at a domain.
///
/// ```
/// use stun_proto::Transport;
/// use stun_proto::discovery::{Service, srv_name};
///
/// let name = srv_name(Service::Stun, Transport::Tls, "example.org");
/// assert_eq!(name, "_stuns._tcp.example.org");
/// ```
pub fn srv_name(service: Service, transport: Transport, domain: &str) -> String {
    let service = match (service, transport.is_secure()) {
        (Service::Stun, false) => "stun",
        (Service::Stun, true) => "stuns",
        (Service::StunBehavior, false) => "stun-behavior",
        (Service::StunBehavior, true) => "stun-behaviors",
    };
    let protocol = if transport.is_stream() { "tcp" } else { "udp" };
    alloc::format!("_{service}._{protocol}.{domain}")
}

/// The transport a URI stands for when nothing else is said: UDP for `stun`, TLS for `stuns`
/// (RFC 7064 section 3.2).
pub const fn default_transport(scheme: Scheme) -> Transport {
    if scheme.is_secure() {
        Transport::Tls
    } else {
        Transport::Udp
    }
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// Lower ones are tried first.
    pub priority: u16,
    /// The share of clients among records of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The name of the host, `.` when there is no such service.
    pub target: String,
}

/// Puts records into the order they are to be tried in: by priority, and within one by lot,
/// weighted (RFC 2782). At most 16 are kept.
pub fn order_srv(records: &[SrvRecord], rng: &mut Rng) -> Vec<SrvRecord> {
    let mut rest: Vec<_> = records.iter().take(MAX_RECORDS).cloned().collect();
    rest.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(rest.len());
    while let Some(priority) = rest.first().map(|record| record.priority) {
        let peers = rest.iter().take_while(|record| record.priority == priority);
        let total: u32 = peers.map(|record| u32::from(record.weight)).sum();
        let mut left = rng.below(total.saturating_add(1));
        let chosen = rest.iter().position(|record| {
            let weight = u32::from(record.weight);
            let found = left <= weight;
            left = left.saturating_sub(weight);
            found
        });
        ordered.push(rest.remove(chosen.unwrap_or(0)));
    }
    ordered
}

/// Puts addresses of both families into the order they are to be tried in: alternating, IPv6
/// first (RFC 8305 section 4).
pub fn interleave(v6: &[IpAddr], v4: &[IpAddr]) -> Vec<IpAddr> {
    let mut ordered = Vec::with_capacity(v6.len().saturating_add(v4.len()));
    let (mut v6, mut v4) = (v6.iter(), v4.iter());
    loop {
        let before = ordered.len();
        ordered.extend(v6.next());
        ordered.extend(v4.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// A question for DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The SRV records of this name: answer with [`Discovery::handle_srv`].
    Srv(String),
    /// The A and AAAA records of this name, asked for both at once: answer with
    /// [`Discovery::handle_addresses`].
    Addresses(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask DNS.
    Ask(Query),
    /// Try this server; ask for the next one when it does not answer, or race it against the next
    /// one after 250 ms (RFC 8305).
    Try(SocketAddr),
    /// Wait for the answer of DNS.
    Wait,
    /// There is no other server.
    Exhausted,
}

/// A host that has not been resolved.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    port: u16,
}

#[derive(Clone, Debug)]
enum State {
    AskSrv { name: String, fallback: Target },
    WaitSrv { fallback: Target },
    Targets,
    WaitAddresses { port: u16 },
}

/// The search for the servers a `stun` or `stuns` URI stands for.
///
/// Certificates are checked against [`Uri::tls_name`], not against names that come out of DNS.
///
/// ```
/// use stun_proto::discovery::{Discovery, Next, Query, Service};
/// use stun_proto::Transport;
///
/// let uri = "stun:example.org".parse().unwrap();
/// let mut search = Discovery::new(Service::Stun, &uri, Transport::Udp, [7; 32]);
/// let question = search.next();
/// assert_eq!(question, Next::Ask(Query::Srv("_stun._udp.example.org".into())));
/// search.handle_srv(&[]);
/// assert_eq!(search.next(), Next::Ask(Query::Addresses("example.org".into())));
/// search.handle_addresses(&["198.51.100.1".parse().unwrap()]);
/// assert_eq!(search.next(), Next::Try("198.51.100.1:3478".parse().unwrap()));
/// assert_eq!(search.next(), Next::Exhausted);
/// ```
#[derive(Clone, Debug)]
pub struct Discovery {
    rng: Rng,
    state: State,
    targets: VecDeque<Target>,
    found: VecDeque<SocketAddr>,
}

impl Discovery {
    /// A search for servers over this transport. All its randomness comes from `seed`.
    pub fn new(service: Service, uri: &Uri, transport: Transport, seed: [u8; 32]) -> Self {
        let mut found = VecDeque::new();
        let mut targets = VecDeque::new();
        let default_port = if transport.is_secure() { 5349 } else { 3478 };
        let port = uri.explicit_port().unwrap_or(default_port);
        let state = match uri.host() {
            Host::Ip(ip) => {
                found.push_back(SocketAddr::new(*ip, port));
                State::Targets
            }
            // A port makes SRV records pointless.
            Host::Name(name) if uri.explicit_port().is_some() => {
                let name = name.clone();
                targets.push_back(Target { name, port });
                State::Targets
            }
            Host::Name(name) => State::AskSrv {
                name: srv_name(service, transport, name),
                fallback: Target {
                    name: name.clone(),
                    port,
                },
            },
        };
        Self {
            rng: Rng::from_seed(seed),
            state,
            targets,
            found,
        }
    }

    /// What to do next. Call it again when a server did not answer.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends by itself as iterators do"
    )]
    pub fn next(&mut self) -> Next {
        if let Some(server) = self.found.pop_front() {
            return Next::Try(server);
        }
        let state = core::mem::replace(&mut self.state, State::Targets);
        match state {
            State::AskSrv { name, fallback } => {
                self.state = State::WaitSrv { fallback };
                Next::Ask(Query::Srv(name))
            }
            State::Targets => match self.targets.pop_front() {
                Some(Target { name, port }) => {
                    self.state = State::WaitAddresses { port };
                    Next::Ask(Query::Addresses(name))
                }
                None => Next::Exhausted,
            },
            waiting @ (State::WaitSrv { .. } | State::WaitAddresses { .. }) => {
                self.state = waiting;
                Next::Wait
            }
        }
    }

    /// Takes in the answer to [`Query::Srv`]; none when there are no such records. Without a
    /// question it changes nothing.
    pub fn handle_srv(&mut self, records: &[SrvRecord]) {
        let State::WaitSrv { fallback } = &self.state else {
            return;
        };
        let fallback = fallback.clone();
        self.state = State::Targets;
        if records.is_empty() {
            self.targets.push_back(fallback);
            return;
        }
        let ordered = order_srv(records, &mut self.rng);
        // A lone dot says that the service is not there.
        let present = ordered.into_iter().filter(|record| record.target != ".");
        self.targets.extend(present.map(|record| Target {
            name: record.target,
            port: record.port,
        }));
    }

    /// Takes in the answer to [`Query::Addresses`], both families together. Without a question it
    /// changes nothing.
    pub fn handle_addresses(&mut self, addresses: &[IpAddr]) {
        let State::WaitAddresses { port } = self.state else {
            return;
        };
        self.state = State::Targets;
        let few = addresses.iter().take(MAX_RECORDS).copied();
        let (v6, v4): (Vec<_>, Vec<_>) = few.partition(IpAddr::is_ipv6);
        let ordered = interleave(&v6, &v4).into_iter();
        self.found
            .extend(ordered.map(|ip| SocketAddr::new(ip, port)));
    }
}

#[cfg(test)]
mod tests;
