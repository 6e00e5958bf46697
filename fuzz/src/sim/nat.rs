//! NATs and stateful firewalls, in the words of RFC 4787.

use alloc::collections::BTreeMap;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sans_io_time::Instant;

use super::choices::Choices;

/// On what an external port (RFC 4787 section 4.1) or the admission of a datagram from outside
/// (section 5) depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Endpoint-independent: on nothing.
    Endpoint,
    /// Address-dependent: on the remote IP address.
    Address,
    /// Address and port-dependent: on the remote IP address and port.
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Endpoint, Self::Address, Self::AddressAndPort];

    /// The part of `remote` that counts; equal parts are treated equally.
    pub const fn part(self, remote: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Endpoint => None,
            Self::Address => Some(SocketAddr::new(remote.ip(), 0)),
            Self::AddressAndPort => Some(remote),
        }
    }
}

/// How a NAT behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatKind {
    /// On what the external port depends.
    pub mapping: Dependence,
    /// Which datagrams from outside pass.
    pub filtering: Dependence,
    /// Whether hosts inside reach each other through their external addresses.
    pub hairpin: bool,
    /// How long a mapping lives without outbound traffic (RFC 4787: not below 2 minutes).
    pub timeout: Duration,
}

impl NatKind {
    /// A NAT of the two dependences, without hairpinning, whose mappings live for two minutes.
    pub const fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            mapping,
            filtering,
            hairpin: false,
            timeout: Duration::from_secs(120),
        }
    }

    /// Any kind.
    pub fn drawn(choices: &mut Choices) -> Self {
        Self {
            hairpin: choices.flip(),
            ..Self::new(
                *choices.pick(&Dependence::ALL),
                *choices.pick(&Dependence::ALL),
            )
        }
    }
}

/// UDP and TCP are mapped apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

type Inside = (Protocol, SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
struct Mapping {
    key: Inside,
    expires: Option<Instant>,
    /// The parts of remote addresses that were sent to, and until when that counts.
    admitted: BTreeMap<Option<SocketAddr>, Option<Instant>>,
}

/// A NAT at work. With no external address it is a stateful firewall: addresses stay, only the
/// filtering is done.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) kind: NatKind,
    external: Option<IpAddr>,
    by_inside: BTreeMap<Inside, SocketAddr>,
    by_outside: BTreeMap<(Protocol, SocketAddr), Mapping>,
}

const fn live(until: Option<Instant>, now: Instant) -> bool {
    match until {
        Some(until) => now.as_nanos() < until.as_nanos(),
        None => true,
    }
}

impl Nat {
    pub(super) const fn new(kind: NatKind, external: Option<IpAddr>) -> Self {
        Self {
            kind,
            external,
            by_inside: BTreeMap::new(),
            by_outside: BTreeMap::new(),
        }
    }

    pub(super) const fn external(&self) -> Option<IpAddr> {
        self.external
    }

    /// The source address under which a datagram leaves.
    pub(super) fn outbound(
        &mut self,
        now: Instant,
        choices: &mut Choices,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
    ) -> SocketAddr {
        let translated = self.external.filter(|ip| ip.is_ipv4() == from.is_ipv4());
        let part = translated.and_then(|_| self.kind.mapping.part(to));
        let key = (protocol, from, part);
        let known = self.by_inside.get(&key).copied().filter(|outside| {
            self.by_outside
                .get(&(protocol, *outside))
                .is_some_and(|mapping| live(mapping.expires, now))
        });
        let outside = known.unwrap_or_else(|| {
            let outside = match translated {
                None => from,
                Some(ip) => self.free_port(now, choices, protocol, ip),
            };
            let mapping = Mapping {
                key,
                expires: None,
                admitted: BTreeMap::new(),
            };
            if let Some(old) = self.by_outside.insert((protocol, outside), mapping) {
                self.by_inside.remove(&old.key);
            }
            self.by_inside.insert(key, outside);
            outside
        });
        let until = now.checked_add(self.kind.timeout);
        let part = self.kind.filtering.part(to);
        if let Some(mapping) = self.by_outside.get_mut(&(protocol, outside)) {
            mapping.expires = until;
            mapping.admitted.insert(part, until);
        }
        outside
    }

    fn free_port(
        &self,
        now: Instant,
        choices: &mut Choices,
        protocol: Protocol,
        ip: IpAddr,
    ) -> SocketAddr {
        let mut port = choices.range(1024..=65_535) as u16;
        loop {
            let outside = SocketAddr::new(ip, port);
            match self.by_outside.get(&(protocol, outside)) {
                Some(mapping) if live(mapping.expires, now) => {
                    port = port.wrapping_add(1).max(1024);
                }
                Some(_) | None => return outside,
            }
        }
    }

    /// Where a datagram from outside goes, if anywhere.
    pub(super) fn inbound(
        &self,
        now: Instant,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let mapping = self.by_outside.get(&(protocol, to))?;
        let part = self.kind.filtering.part(from);
        let admitted = *mapping.admitted.get(&part)?;
        (live(mapping.expires, now) && live(admitted, now)).then_some(mapping.key.1)
    }

    /// Forgets all mappings, as after a reboot: what is sent next gets other ports.
    pub(super) fn rebind(&mut self) {
        self.by_inside.clear();
        self.by_outside.clear();
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::{Choices, Dependence, Instant, Nat, NatKind, Protocol};

    const UDP: Protocol = Protocol::Udp;

    fn nat(mapping: Dependence, filtering: Dependence) -> Nat {
        let external = "192.0.2.1".parse().unwrap();
        Nat::new(NatKind::new(mapping, filtering), Some(external))
    }

    /// Sends from one socket to two ports of one host and one of another, and says which of the
    /// external addresses are equal and which of three sources are let in at the first.
    fn check(mapping: Dependence, filtering: Dependence, equal: [bool; 2], admitted: [bool; 3]) {
        let (mut nat, mut choices) = (nat(mapping, filtering), Choices::from_seed(1));
        let inside = "10.0.0.2:5000".parse().unwrap();
        let remotes = ["198.51.100.1:1", "198.51.100.1:2", "203.0.113.1:1"];
        let [first, port, host] = remotes.map(|remote| {
            let remote = remote.parse().unwrap();
            let mut twin = Choices::from_seed(choices.u64());
            nat.outbound(Instant::ZERO, &mut twin, UDP, inside, remote)
        });
        assert_eq!([first == port, first == host], equal);
        let (mut nat, mut choices) = (self::nat(mapping, filtering), Choices::from_seed(1));
        let remote = remotes[0].parse().unwrap();
        let outside = nat.outbound(Instant::ZERO, &mut choices, UDP, inside, remote);
        let seen = remotes.map(|from| {
            nat.inbound(Instant::ZERO, UDP, from.parse().unwrap(), outside) == Some(inside)
        });
        assert_eq!(seen, admitted);
    }

    #[test]
    fn mapping_and_filtering_depend_on_what_they_are_named_after() {
        use Dependence::{Address, AddressAndPort, Endpoint};
        check(Endpoint, Endpoint, [true, true], [true, true, true]);
        check(Endpoint, Address, [true, true], [true, true, false]);
        check(Address, AddressAndPort, [true, false], [true, false, false]);
        check(AddressAndPort, Endpoint, [false, false], [true, true, true]);
    }

    #[test]
    fn a_mapping_ends_without_outbound_traffic_and_when_the_nat_reboots() {
        let mut nat = nat(Dependence::Endpoint, Dependence::Endpoint);
        let mut choices = Choices::from_seed(1);
        let (inside, remote) = (
            "10.0.0.2:5".parse().unwrap(),
            "198.51.100.1:1".parse().unwrap(),
        );
        let at = |secs| {
            Instant::ZERO
                .checked_add(Duration::from_secs(secs))
                .unwrap()
        };
        let outside = nat.outbound(at(0), &mut choices, UDP, inside, remote);
        assert_eq!(
            nat.outbound(at(100), &mut choices, UDP, inside, remote),
            outside
        );
        assert_eq!(nat.inbound(at(219), UDP, remote, outside), Some(inside));
        assert_eq!(nat.inbound(at(220), UDP, remote, outside), None);
        nat.outbound(at(230), &mut choices, UDP, inside, remote);
        nat.rebind();
        assert_eq!(nat.inbound(at(230), UDP, remote, outside), None);
    }

    #[test]
    fn without_an_external_address_it_filters_and_changes_nothing() {
        let kind = NatKind::new(Dependence::Endpoint, Dependence::AddressAndPort);
        let mut nat = Nat::new(kind, None);
        let mut choices = Choices::from_seed(1);
        let (inside, remote) = (
            "[fd00::2]:5".parse().unwrap(),
            "[2001:db8::1]:1".parse().unwrap(),
        );
        let other = "[2001:db8::1]:2".parse().unwrap();
        assert_eq!(nat.inbound(Instant::ZERO, UDP, remote, inside), None);
        assert_eq!(
            nat.outbound(Instant::ZERO, &mut choices, UDP, inside, remote),
            inside
        );
        assert_eq!(
            nat.inbound(Instant::ZERO, UDP, remote, inside),
            Some(inside)
        );
        assert_eq!(nat.inbound(Instant::ZERO, UDP, other, inside), None);
    }
}
