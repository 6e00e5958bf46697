//! From a `turn` or `turns` URI to servers, without asking DNS oneself (RFC 5928, RFC 7350
//! section 4.6, RFC 8155).
//!
//! A [`Resolver`] says what to ask and takes the answers; servers come out, best first. It is used
//! for the first Allocate only: when a server fails, ask for the next one, and drop the resolver
//! when one works. [`Servers`](crate::client::Servers) says which ones are to be skipped.

mod discovery;
mod naptr;

use core::net::{IpAddr, SocketAddr};

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use stun_proto::discovery::{SrvRecord, interleave, order_srv};
use stun_proto::uri::{Host, Scheme, Uri, UriTransport};
use stun_proto::{Rng, Transport};

pub use self::discovery::{ANYCAST, SERVICE_TYPES, Source, is_acceptable, sources};
pub use self::naptr::NaptrRecord;

/// Questions one resolution asks at most, so that records that point at each other come to an end.
const MAX_QUERIES: usize = 64;

/// Addresses per name that are looked at.
const MAX_ADDRESSES: usize = 16;

/// Why a URI cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// It is a `stun` or `stuns` URI.
    #[error("not the URI of a TURN server")]
    Scheme,
    /// Its transport is none of UDP and TCP.
    #[error("unknown transport")]
    UnknownTransport,
    /// The application supports none of the transports it allows.
    #[error("no supported transport")]
    Unsupported,
}

/// A question for DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The NAPTR records of this name: answer with [`Resolver::handle_naptr`].
    Naptr(String),
    /// The SRV records of this name: answer with [`Resolver::handle_srv`].
    Srv(String),
    /// The A and AAAA records of this name, asked for both at once: answer with
    /// [`Resolver::handle_addresses`].
    Addresses(String),
}

/// A server to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// How.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask DNS.
    Ask(Query),
    /// Try this server, and ask for the next when it fails.
    Try(Server),
    /// Wait for the answer of DNS.
    Wait,
    /// There is no other server: the resolution has failed.
    Exhausted,
}

#[derive(Clone, Debug)]
enum Step {
    /// The first NAPTR query; what to do when it brings nothing.
    FirstNaptr(String, Vec<Transport>),
    /// One of those it leads to, for one transport.
    Naptr(String, Transport),
    /// SRV records, and the name to fall back to when there are none.
    Srv(String, Transport, Option<String>),
    /// Addresses, each with this port over each of these transports.
    Addresses(String, Option<u16>, Vec<Transport>),
    Try(Server),
}

/// The search for the servers a URI stands for.
///
/// Certificates are checked against [`Uri::tls_name`], or the host of the URI when DNS chose TLS for a
/// `turn` URI: never against names that come out of DNS (RFC 5928 section 5).
///
/// ```
/// use stun_proto::Transport;
/// use turn_proto::resolve::{Next, Query, Resolver, Server};
///
/// let uri = "turn:example.org:8000?transport=tcp".parse().unwrap();
/// let supported = [Transport::Tls, Transport::Tcp, Transport::Udp];
/// let mut resolver = Resolver::new(&uri, &supported, [7; 32]).unwrap();
/// assert_eq!(resolver.next(), Next::Ask(Query::Addresses("example.org".into())));
/// resolver.handle_addresses(&["192.0.2.1".parse().unwrap()]);
/// let address = "192.0.2.1:8000".parse().unwrap();
/// let server = Server { transport: Transport::Tcp, address };
/// assert_eq!(resolver.next(), Next::Try(server));
/// assert_eq!(resolver.next(), Next::Exhausted);
/// ```
#[derive(Clone, Debug)]
pub struct Resolver {
    rng: Rng,
    /// What is to be done, the next thing last.
    steps: Vec<Step>,
    asked: Option<Step>,
    queries: usize,
}

impl Resolver {
    /// A search over the transports the application supports, in the order it likes them. `seed`
    /// decides between records of the same weight.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn new(uri: &Uri, supported: &[Transport], seed: [u8; 32]) -> Result<Self, ResolveError> {
        if !uri.scheme().is_turn() {
            return Err(ResolveError::Scheme);
        }
        let transports = transports(uri, supported)?;
        let port = uri.explicit_port();
        let mut resolver = Self {
            rng: Rng::from_seed(seed),
            steps: Vec::new(),
            asked: None,
            queries: 0,
        };
        match (uri.host(), port, uri.transport()) {
            (Host::Ip(ip), port, _) => resolver.push(servers(&[*ip], port, &transports)),
            (Host::Name(name), Some(_), _) => {
                resolver.push([Step::Addresses(name.clone(), port, transports)]);
            }
            (Host::Name(name), None, Some(_)) => resolver.push(by_srv(name, &transports)),
            (Host::Name(name), None, None) => {
                resolver.push([Step::FirstNaptr(name.clone(), transports)]);
            }
        }
        Ok(resolver)
    }

    /// What to do next. Call it again when a server has failed.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends by itself as iterators do"
    )]
    pub fn next(&mut self) -> Next {
        if self.asked.is_some() {
            return Next::Wait;
        }
        let Some(step) = self.steps.pop() else {
            return Next::Exhausted;
        };
        let query = match &step {
            Step::Try(server) => return Next::Try(*server),
            Step::FirstNaptr(name, _) | Step::Naptr(name, _) => Query::Naptr(name.clone()),
            Step::Srv(name, ..) => Query::Srv(name.clone()),
            Step::Addresses(name, ..) => Query::Addresses(name.clone()),
        };
        if self.queries >= MAX_QUERIES {
            self.steps.clear();
            return Next::Exhausted;
        }
        self.queries = self.queries.saturating_add(1);
        self.asked = Some(step);
        Next::Ask(query)
    }

    /// Takes in the answer to [`Query::Naptr`]; none when there are no such records. Without a
    /// question it changes nothing.
    pub fn handle_naptr(&mut self, records: &[NaptrRecord]) {
        match &self.asked {
            Some(Step::FirstNaptr(name, transports)) => {
                let found = naptr::ranked(records, transports);
                let steps = if found.is_empty() {
                    by_srv(name, transports)
                } else {
                    found
                };
                self.answered(steps);
            }
            Some(Step::Naptr(_, transport)) => {
                let steps = naptr::ranked(records, &[*transport]);
                self.answered(steps);
            }
            Some(Step::Srv(..) | Step::Addresses(..) | Step::Try(_)) | None => {}
        }
    }

    /// Takes in the answer to [`Query::Srv`]; none when there are no such records. Without a
    /// question it changes nothing.
    pub fn handle_srv(&mut self, records: &[SrvRecord]) {
        let Some(Step::Srv(_, transport, fallback)) = &self.asked else {
            return;
        };
        let transport = *transport;
        let steps: Vec<Step> = if records.is_empty() {
            let name = fallback.iter().cloned();
            name.map(|name| Step::Addresses(name, None, [transport].into()))
                .collect()
        } else {
            // A lone dot says that the service is not there.
            order_srv(records, &mut self.rng)
                .into_iter()
                .filter(|record| record.target != ".")
                .map(|record| Step::Addresses(record.target, Some(record.port), [transport].into()))
                .collect()
        };
        self.answered(steps);
    }

    /// Takes in the answer to [`Query::Addresses`], both families together. Without a question it
    /// changes nothing.
    pub fn handle_addresses(&mut self, addresses: &[IpAddr]) {
        let Some(Step::Addresses(_, port, transports)) = &self.asked else {
            return;
        };
        let few = addresses.iter().take(MAX_ADDRESSES).copied();
        let (v6, v4): (Vec<_>, Vec<_>) = few.partition(IpAddr::is_ipv6);
        let steps = servers(&interleave(&v6, &v4), *port, transports);
        self.answered(steps);
    }

    fn answered(&mut self, steps: Vec<Step>) {
        self.asked = None;
        self.push(steps);
    }

    /// Puts steps in front of all others.
    fn push(&mut self, steps: impl IntoIterator<Item = Step, IntoIter: DoubleEndedIterator>) {
        self.steps.extend(steps.into_iter().rev());
    }
}

/// The transports to try: table 1 of RFC 5928, with the line of RFC 7350 for DTLS.
fn transports(uri: &Uri, supported: &[Transport]) -> Result<Vec<Transport>, ResolveError> {
    let secure = uri.scheme() == Scheme::Turns;
    let only = match uri.transport() {
        None => None,
        Some(UriTransport::Udp) if secure => Some(Transport::Dtls),
        Some(UriTransport::Udp) => Some(Transport::Udp),
        Some(UriTransport::Tcp) if secure => Some(Transport::Tls),
        Some(UriTransport::Tcp) => Some(Transport::Tcp),
        Some(UriTransport::Other(_)) => return Err(ResolveError::UnknownTransport),
    };
    let fits = |transport: &Transport| {
        only.is_none_or(|only| only == *transport) && (!secure || transport.is_secure())
    };
    let list: Vec<Transport> = supported.iter().copied().filter(fits).collect();
    if list.is_empty() {
        return Err(ResolveError::Unsupported);
    }
    Ok(list)
}

/// SRV queries for a domain, one per transport.
fn by_srv(name: &str, transports: &[Transport]) -> Vec<Step> {
    let step = |transport: &Transport| {
        let srv = srv_name(name, *transport);
        Step::Srv(srv, *transport, Some(name.to_string()))
    };
    transports.iter().map(step).collect()
}

/// The name of the SRV records of TURN at a domain.
fn srv_name(domain: &str, transport: Transport) -> String {
    let service = if transport.is_secure() {
        "turns"
    } else {
        "turn"
    };
    let protocol = if transport.is_stream() { "tcp" } else { "udp" };
    alloc::format!("_{service}._{protocol}.{domain}")
}

/// Each transport with all addresses, in this order.
fn servers(addresses: &[IpAddr], port: Option<u16>, transports: &[Transport]) -> Vec<Step> {
    let mut steps = Vec::new();
    for transport in transports {
        let port = port.unwrap_or(if transport.is_secure() { 5349 } else { 3478 });
        steps.extend(addresses.iter().map(|ip| {
            Step::Try(Server {
                transport: *transport,
                address: SocketAddr::new(*ip, port),
            })
        }));
    }
    steps
}

#[cfg(test)]
mod tests;
