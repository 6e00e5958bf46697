//! Which pairs of NATs let two peers meet, reasoned from RFC 4787 alone.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::sim::{Dependence, NatKind};

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A public address, nothing in front of it.
    Public,
    /// A NAT with an address of its own.
    Nat(NatKind),
}

impl Reach {
    const fn mapping(self) -> Dependence {
        match self {
            Self::Public => Dependence::Endpoint,
            Self::Nat(kind) => kind.mapping,
        }
    }

    const fn filtering(self) -> Dependence {
        match self {
            Self::Public => Dependence::Endpoint,
            Self::Nat(kind) => kind.filtering,
        }
    }
}

/// An external address: whose it is, and for which destinations it is used. The ports of a peer's
/// addresses differ by destination exactly as its NAT's mapping depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    owner: usize,
    key: Key,
}

/// The part of the destination the mapping depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Any,
    Host(usize),
    Port(alloc::boxed::Box<Address>),
}

/// The STUN server, as an owner.
const SERVER: usize = 2;

fn part(dependence: Dependence, remote: &Address) -> Key {
    match dependence {
        Dependence::Endpoint => Key::Any,
        Dependence::Address => Key::Host(remote.owner),
        Dependence::AddressAndPort => Key::Port(alloc::boxed::Box::new(remote.clone())),
    }
}

/// Whether checks between two peers that know each other's server-reflexive (or public) addresses
/// can succeed without relay.
///
/// Everybody sends to every address known, learns the sources of what gets through, and answers.
/// A pair works when a request gets through and its answer leaves from the address the request was
/// sent to.
#[expect(clippy::needless_range_loop, reason = "a peer is a number here")]
pub fn direct_path(a: Reach, b: Reach) -> bool {
    let peers = [a, b];
    let server = Address {
        owner: SERVER,
        key: Key::Any,
    };
    let outside = |peer: usize, to: &Address| Address {
        owner: peer,
        key: part(peers[peer].mapping(), to),
    };
    // What each peer knows of the other, and what was let in by sending.
    let mut known: [BTreeSet<Address>; 2] = [1, 0].map(|other| {
        let reflexive = outside(other, &server);
        BTreeSet::from([reflexive])
    });
    let mut admitted: BTreeSet<(Address, Key)> = BTreeSet::new();
    for peer in 0..2 {
        let entry = (
            outside(peer, &server),
            part(peers[peer].filtering(), &server),
        );
        admitted.insert(entry);
    }
    // Each round can add one level of ports at most; what does not meet soon never does.
    for _ in 0..5 {
        for peer in 0..2 {
            for to in known[peer].clone() {
                let from = outside(peer, &to);
                admitted.insert((from, part(peers[peer].filtering(), &to)));
            }
        }
        let mut sent = Vec::new();
        for peer in 0..2 {
            for to in known[peer].clone() {
                sent.push((outside(peer, &to), to));
            }
        }
        for (from, to) in sent {
            let other = to.owner;
            let live = peers[other] == Reach::Public
                || admitted.contains(&(to.clone(), part(peers[other].filtering(), &from)));
            if !live {
                continue;
            }
            known[other].insert(from.clone());
            if outside(other, &from) == to {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use Dependence::{Address as Ip, AddressAndPort as Port, Endpoint};

    fn check(a: (Dependence, Dependence), b: (Dependence, Dependence), expected: bool) {
        let nat = |(mapping, filtering)| Reach::Nat(NatKind::new(mapping, filtering));
        assert_eq!(direct_path(nat(a), nat(b)), expected, "{a:?} {b:?}");
        assert_eq!(direct_path(nat(b), nat(a)), expected, "{b:?} {a:?}");
    }

    #[test]
    fn the_well_known_cases_of_hole_punching() {
        let (full, restricted, port, symmetric) = (
            (Endpoint, Endpoint),
            (Endpoint, Ip),
            (Endpoint, Port),
            (Port, Port),
        );
        for kind in [full, restricted, port] {
            check(full, kind, true);
            check(restricted, kind, true);
            check(port, kind, true);
        }
        check(symmetric, full, true);
        check(symmetric, restricted, true);
        check(symmetric, port, false);
        check(symmetric, symmetric, false);
        let symmetric = Reach::Nat(NatKind::new(Port, Port));
        assert!(direct_path(symmetric, Reach::Public));
        assert!(direct_path(Reach::Public, Reach::Public));
    }
}
