//! From a SIP URI to addresses, without asking DNS oneself (RFC 3263), and from a certificate to the
//! domains it stands for (RFC 5922).
//!
//! A [`Locator`] says what to ask and takes the answers; places to try come out, best first. One is
//! used for each new flow: when the connection cannot be made, or its first request is answered
//! with 503 or not at all, ask for the next one and repeat the request with another branch (RFC 3263
//! section 4.3). What belongs to a transaction that has begun stays where it is: resends, CANCEL and
//! the ACK for a refusal are not located again.

mod certificate;

use core::net::{IpAddr, SocketAddr};

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::discovery::{SrvRecord, interleave, order_srv};
use stun_proto::{Rng, Transport};

pub use self::certificate::{CertificateNames, Wildcards, is_proven};

use crate::wire::{SipUri, Via, host_ip, transport_of};

/// Questions one search asks at most, so that records that point at each other come to an end.
const MAX_QUERIES: usize = 32;

/// Records and addresses of one answer that are looked at.
const MAX_RECORDS: usize = 16;

/// Why a URI leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// The application supports no transport that the URI allows.
    #[error("no supported transport")]
    Unsupported,
}

/// A question for DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The NAPTR records of this name: answer with [`Locator::handle_naptr`].
    Naptr(String),
    /// The SRV records of this name: answer with [`Locator::handle_srv`].
    Srv(String),
    /// The A and AAAA records of this name, asked for both at once: answer with
    /// [`Locator::handle_addresses`].
    Addresses(String),
}

/// A place to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
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
    /// Try this place, and ask for the next when it fails.
    Try(Place),
    /// Wait for the answer of DNS.
    Wait,
    /// There is no other place.
    Exhausted,
}

/// A NAPTR record. Those of SIP have no regular expression; others are not handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaptrRecord {
    /// Lower ones come first.
    pub order: u16,
    /// Lower ones come first among those of the same order.
    pub preference: u16,
    /// `S` for those of SIP.
    pub flags: String,
    /// For example `SIPS+D2T`.
    pub service: String,
    /// The name of SRV records.
    pub replacement: String,
}

impl NaptrRecord {
    fn transport(&self) -> Option<Transport> {
        let services = [
            ("SIPS+D2T", Transport::Tls),
            ("SIP+D2T", Transport::Tcp),
            ("SIP+D2U", Transport::Udp),
        ];
        let found = services
            .into_iter()
            .find(|(name, _)| self.service.eq_ignore_ascii_case(name));
        let known = self.flags.eq_ignore_ascii_case("s") && !self.replacement.is_empty();
        found.map(|(_, transport)| transport).filter(|_| known)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The transport is open; these are supported and allowed.
    Naptr {
        name: String,
        transports: Vec<Transport>,
    },
    Srv {
        name: String,
        transport: Transport,
        without: Without,
    },
    Addresses {
        name: String,
        port: u16,
        transport: Transport,
    },
    Try(Place),
}

/// What follows when there are no SRV records.
#[derive(Clone, Debug)]
enum Without {
    /// The addresses of this name.
    Addresses(String),
    /// Nothing: another transport is tried.
    Nothing,
    /// No transport had any: the addresses of this name over this one.
    Last(String, Transport),
}

/// The search for the places a URI stands for.
///
/// Certificates are checked against [`FlowTarget::verify_name`](crate::FlowTarget::verify_name),
/// never against names that come out of DNS; [`is_proven`] does it.
///
/// ```
/// use sip_outbound::locate::{Locator, Next, Place, Query};
/// use sip_outbound::wire::UriBuf;
/// use stun_proto::Transport;
///
/// let uri: UriBuf = "sips:pcscf.example.com:443".parse().unwrap();
/// let mut locator = Locator::new(&uri.as_uri(), &[Transport::Tls], [7; 32]).unwrap();
/// assert_eq!(locator.next(), Next::Ask(Query::Addresses("pcscf.example.com".into())));
/// locator.handle_addresses(&["192.0.2.1".parse().unwrap()]);
/// let address = "192.0.2.1:443".parse().unwrap();
/// assert_eq!(locator.next(), Next::Try(Place { transport: Transport::Tls, address }));
/// assert_eq!(locator.next(), Next::Exhausted);
/// ```
#[derive(Clone, Debug)]
pub struct Locator {
    rng: Rng,
    /// What is to be done, the next thing last.
    steps: Vec<Step>,
    asked: Option<Step>,
    queries: usize,
    /// SRV records were found for some transport.
    found_srv: bool,
}

impl Locator {
    /// A search for a request URI or a Route value, over the transports the application supports, in
    /// the order it likes them. `seed` decides between records of the same weight.
    ///
    /// # Errors
    /// [`LocateError`].
    pub fn new(
        uri: &SipUri<'_>,
        supported: &[Transport],
        seed: [u8; 32],
    ) -> Result<Self, LocateError> {
        // A way other than the host is written into the URI by `maddr`.
        let target = uri.param("maddr").unwrap_or(uri.host());
        let secure = uri.is_secure();
        let allowed = |transport: Transport| {
            (!secure || transport == Transport::Tls) && supported.contains(&transport)
        };
        let named = uri.param("transport");
        let fixed = match (named, host_ip(target).is_some() || uri.port().is_some()) {
            (Some(name), _) => Some(uri.transport().or_else(|| transport_of(name))),
            (None, true) if secure => Some(Some(Transport::Tls)),
            (None, true) => Some(Some(Transport::Udp)),
            (None, false) => None,
        };
        let mut locator = Self::empty(seed);
        let steps = match fixed {
            Some(transport) => {
                let transport = transport.filter(|transport| allowed(*transport));
                let transport = transport.ok_or(LocateError::Unsupported)?;
                alloc::vec![fixed_transport(target, uri.port(), transport)]
            }
            None => {
                let transports: Vec<_> =
                    supported.iter().copied().filter(|t| allowed(*t)).collect();
                let usable = transports
                    .iter()
                    .any(|transport| *transport != Transport::Dtls);
                if !usable {
                    return Err(LocateError::Unsupported);
                }
                let name = String::from(target);
                alloc::vec![Step::Naptr { name, transports }]
            }
        };
        locator.push(steps);
        Ok(locator)
    }

    /// A search for the sender of a request, to whom the response cannot go the way the request came
    /// (RFC 3263 section 5). `None` when its transport is unknown. Not for clients behind a NAT, who
    /// cannot be connected to.
    pub fn for_response(via: &Via<'_>, seed: [u8; 32]) -> Option<Self> {
        let transport = transport_of(via.transport)?;
        let mut locator = Self::empty(seed);
        // The address it was received from, if that is not what it says of itself.
        let received = via.received().filter(|_| transport.is_stream());
        let step = match received {
            Some(ip) => {
                let port = via.port.unwrap_or(default_port(transport));
                let address = SocketAddr::new(ip, port);
                Step::Try(Place { transport, address })
            }
            None => fixed_transport(via.host(), via.port, transport),
        };
        locator.push([step]);
        Some(locator)
    }

    fn empty(seed: [u8; 32]) -> Self {
        Self {
            rng: Rng::from_seed(seed),
            steps: Vec::new(),
            asked: None,
            queries: 0,
            found_srv: false,
        }
    }

    /// What to do next. Call it again when a place has failed.
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
            Step::Try(place) => return Next::Try(*place),
            Step::Naptr { name, .. } => Query::Naptr(name.clone()),
            Step::Srv { name, .. } => Query::Srv(name.clone()),
            Step::Addresses { name, .. } => Query::Addresses(name.clone()),
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
        let Some(Step::Naptr { name, transports }) = &self.asked else {
            return;
        };
        let mut usable: Vec<_> = records
            .iter()
            .take(MAX_RECORDS)
            .filter_map(|record| Some((record, record.transport()?)))
            .filter(|(_, transport)| transports.contains(transport))
            .collect();
        usable.sort_by_key(|(record, _)| (record.order, record.preference));
        let steps = if usable.is_empty() {
            by_srv(name, transports)
        } else {
            let step = |(record, transport): (&NaptrRecord, Transport)| Step::Srv {
                name: record.replacement.trim_end_matches('.').into(),
                transport,
                without: Without::Addresses(name.clone()),
            };
            usable.into_iter().map(step).collect()
        };
        self.answered(steps);
    }

    /// Takes in the answer to [`Query::Srv`]; none when there are no such records. Without a
    /// question it changes nothing.
    pub fn handle_srv(&mut self, records: &[SrvRecord]) {
        let Some(Step::Srv {
            transport, without, ..
        }) = &self.asked
        else {
            return;
        };
        let transport = *transport;
        let fallback = |name: &String, transport| {
            let (name, port) = (name.clone(), default_port(transport));
            alloc::vec![Step::Addresses {
                name,
                port,
                transport
            }]
        };
        let steps = if !records.is_empty() {
            self.found_srv = true;
            // A lone dot says that the service is not there.
            order_srv(records, &mut self.rng)
                .into_iter()
                .filter(|record| record.target != ".")
                .map(|record| Step::Addresses {
                    name: record.target.trim_end_matches('.').into(),
                    port: record.port,
                    transport,
                })
                .collect()
        } else {
            match without {
                Without::Addresses(name) => fallback(name, transport),
                Without::Last(name, last) if !self.found_srv => fallback(name, *last),
                Without::Last(..) | Without::Nothing => Vec::new(),
            }
        };
        self.answered(steps);
    }

    /// Takes in the answer to [`Query::Addresses`], both families together. Without a question it
    /// changes nothing.
    pub fn handle_addresses(&mut self, addresses: &[IpAddr]) {
        let Some(Step::Addresses {
            port, transport, ..
        }) = &self.asked
        else {
            return;
        };
        let (port, transport) = (*port, *transport);
        let few = addresses.iter().take(MAX_RECORDS).copied();
        let (v6, v4): (Vec<_>, Vec<_>) = few.partition(IpAddr::is_ipv6);
        let place = |ip| {
            let address = SocketAddr::new(ip, port);
            Step::Try(Place { transport, address })
        };
        let steps: Vec<_> = interleave(&v6, &v4).into_iter().map(place).collect();
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

const fn default_port(transport: Transport) -> u16 {
    if transport.is_secure() { 5061 } else { 5060 }
}

/// The first step to a target over a transport that is settled.
fn fixed_transport(target: &str, port: Option<u16>, transport: Transport) -> Step {
    match (host_ip(target), port) {
        (Some(ip), port) => {
            let port = port.unwrap_or(default_port(transport));
            let address = SocketAddr::new(ip, port);
            Step::Try(Place { transport, address })
        }
        (None, Some(port)) => {
            let name = target.into();
            Step::Addresses {
                name,
                port,
                transport,
            }
        }
        (None, None) => Step::Srv {
            name: srv_name(target, transport),
            transport,
            without: Without::Addresses(target.into()),
        },
    }
}

/// SRV queries for a domain, one for each transport. When none brings anything, the default is left:
/// UDP, or TLS where that alone is allowed.
fn by_srv(name: &str, transports: &[Transport]) -> Vec<Step> {
    let default = match transports.contains(&Transport::Udp) {
        true => Some(Transport::Udp),
        false => transports.first().copied(),
    };
    let last = transports.len().saturating_sub(1);
    let step = |(at, transport): (usize, &Transport)| Step::Srv {
        name: srv_name(name, *transport),
        transport: *transport,
        without: match default.filter(|_| at == last) {
            Some(default) => Without::Last(name.into(), default),
            None => Without::Nothing,
        },
    };
    transports.iter().enumerate().map(step).collect()
}

/// The name of the SRV records of SIP at a domain.
fn srv_name(domain: &str, transport: Transport) -> String {
    let service = if transport.is_secure() { "sips" } else { "sip" };
    let protocol = if transport.is_stream() { "tcp" } else { "udp" };
    alloc::format!("_{service}._{protocol}.{domain}")
}

#[cfg(test)]
mod tests;
