//! Where hosts are: sites, the gateways between them, and whose address is where.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use super::firewall::Firewall;
use super::link::Link;
use super::nat::{Nat, NatKind};
use super::net::Net;

/// A host, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A place where addresses mean the same to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub usize);

/// Where public addresses are.
pub const INTERNET: SiteId = SiteId(0);

/// Time between two hosts of one site.
pub(super) const LAN: Duration = Duration::from_micros(200);

/// What stands between a site and its parent.
#[derive(Debug)]
pub struct Gateway {
    /// The way up and down.
    pub link: Link,
    /// What may leave.
    pub firewall: Firewall,
    pub(super) nat: Option<Nat>,
}

impl Gateway {
    /// Forwards everything both ways, without changing addresses.
    pub const fn routed(link: Link) -> Self {
        Self {
            link,
            firewall: Firewall::OPEN,
            nat: None,
        }
    }

    /// Translates to this external address, if of its family.
    pub const fn nat(link: Link, kind: NatKind, external: IpAddr) -> Self {
        Self {
            link,
            firewall: Firewall::OPEN,
            nat: Some(Nat::new(kind, Some(external))),
        }
    }

    /// Admits only what `kind.filtering` lets in, without changing addresses.
    pub const fn stateful(link: Link, kind: NatKind) -> Self {
        Self {
            link,
            firewall: Firewall::OPEN,
            nat: Some(Nat::new(kind, None)),
        }
    }

    /// Adds a firewall for what leaves.
    pub const fn with_firewall(mut self, firewall: Firewall) -> Self {
        self.firewall = firewall;
        self
    }

    fn external(&self, like: IpAddr) -> Option<IpAddr> {
        let external = self.nat.as_ref()?.external()?;
        (external.is_ipv4() == like.is_ipv4()).then_some(external)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Host(HostId),
    Child(SiteId),
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) up: Option<(SiteId, Gateway)>,
    pub(super) owners: BTreeMap<IpAddr, Owner>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    addresses: Vec<(IpAddr, SiteId)>,
    pub(super) next_port: u16,
}

impl Site {
    /// A site that leads up over this gateway; none of the internet.
    pub(super) const fn new(up: Option<(SiteId, Gateway)>) -> Self {
        Self {
            up,
            owners: BTreeMap::new(),
        }
    }
}

impl Net {
    /// A new site below `parent`.
    pub fn site(&mut self, parent: SiteId, gateway: Gateway) -> SiteId {
        let id = SiteId(self.sites.len());
        let external = gateway.nat.as_ref().and_then(Nat::external);
        self.sites.push(Site::new(Some((parent, gateway))));
        if let Some(ip) = external {
            self.own(parent, ip, Owner::Child(id));
        }
        id
    }

    /// A new host; each of its addresses is in one site.
    pub fn host(&mut self, name: &str, addresses: &[(IpAddr, SiteId)]) -> HostId {
        let id = HostId(self.hosts.len());
        self.hosts.push(Host {
            name: name.to_string(),
            addresses: Vec::new(),
            next_port: 49_152,
        });
        for (ip, site) in addresses {
            self.add_address(id, *ip, *site);
        }
        id
    }

    /// One more address of a host.
    pub fn add_address(&mut self, host: HostId, ip: IpAddr, site: SiteId) {
        self.hosts[host.0].addresses.push((ip, site));
        self.own(site, ip, Owner::Host(host));
    }

    /// Makes an address known in a site, and above as far as nobody translates it.
    fn own(&mut self, site: SiteId, ip: IpAddr, owner: Owner) {
        let (mut site, mut owner) = (site, owner);
        loop {
            let here = &mut self.sites[site.0];
            here.owners.insert(ip, owner);
            let Some((parent, gateway)) = &here.up else {
                return;
            };
            if gateway.external(ip).is_some() {
                return;
            }
            owner = Owner::Child(site);
            site = *parent;
        }
    }

    /// The gateway of a site, to change its link or firewall.
    ///
    /// # Panics
    /// Panics for the internet.
    pub fn gateway(&mut self, site: SiteId) -> &mut Gateway {
        let up = self.sites[site.0].up.as_mut();
        up.map(|(_, gateway)| gateway).expect("a site with gateway")
    }

    /// Where a site leads, and how long that takes.
    pub(super) fn uplink(&self, site: SiteId) -> Option<(SiteId, Duration, Duration)> {
        let (parent, gateway) = self.sites[site.0].up.as_ref()?;
        Some((*parent, gateway.link.delay, gateway.link.jitter))
    }

    /// The NAT of a site forgets everything.
    pub fn rebind(&mut self, site: SiteId) {
        self.trace.line(self.now, "net", || {
            format!("NAT of site {} rebinds", site.0)
        });
        if let Some(nat) = &mut self.gateway(site).nat {
            nat.rebind();
        }
    }

    /// The site an address of a host is in.
    ///
    /// # Panics
    /// Panics if the host has no such address.
    pub fn site_of(&self, host: HostId, ip: IpAddr) -> SiteId {
        let host = &self.hosts[host.0];
        let found = host.addresses.iter().find(|(own, _)| *own == ip);
        let Some((_, site)) = found else {
            panic!("{} sends from {ip}, which is not its address", host.name);
        };
        *site
    }

    /// Whether an address is in this site or below it.
    pub(super) fn is_below(&self, site: SiteId, ip: IpAddr) -> bool {
        self.sites[site.0].owners.contains_key(&ip)
    }
}
