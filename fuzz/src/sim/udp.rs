//! The datagrams of a [`Net`].

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::SocketAddr;
use core::time::Duration;

use super::link::NO_MTU;
use super::nat::Protocol;
use super::net::Net;
use super::topology::{HostId, INTERNET, LAN, Owner, SiteId};
use super::world::{Arrival, Event, Packet};

impl Net {
    /// Opens a UDP socket.
    pub fn bind(&mut self, host: HostId, local: SocketAddr) {
        let site = self.site_of(host, local.ip());
        self.sockets.insert((site, local), host);
    }

    /// A port of this address that is free for UDP.
    pub fn free_port(&mut self, host: HostId) -> u16 {
        let port = &mut self.hosts[host.0].next_port;
        let free = *port;
        *port = port.checked_add(1).unwrap_or(49_152);
        free
    }

    /// Closes a UDP socket.
    pub fn unbind(&mut self, host: HostId, local: SocketAddr) {
        let site = self.site_of(host, local.ip());
        self.sockets.remove(&(site, local));
    }

    /// Puts a packet onto the internet, with whatever source address: what an attacker does who
    /// sits beside the path.
    pub fn inject(&mut self, packet: Packet) {
        self.trace_packet("attacker", &packet, "spoofed");
        let event = Event::Descend {
            site: INTERNET,
            packet,
            origin: None,
        };
        self.schedule(Duration::ZERO, event);
    }

    /// Sends a datagram from a socket of a host.
    ///
    /// # Panics
    /// Panics if the host has no such address, or for a payload longer than UDP can carry.
    pub fn send(&mut self, host: HostId, local: SocketAddr, remote: SocketAddr, data: &[u8]) {
        assert!(data.len() <= NO_MTU, "datagram of {} bytes", data.len());
        let (mut site, mut from) = (self.site_of(host, local.ip()), local);
        let mut copies = vec![(LAN, data.to_vec())];
        let now = self.now;
        let fate = loop {
            if self.is_below(site, remote.ip()) {
                break "";
            }
            let Some((parent, gateway)) = &mut self.sites[site.0].up else {
                break "no route";
            };
            if !gateway.firewall.lets_udp_out() {
                if gateway.firewall.rejects {
                    let told = Arrival::Unreachable { local, remote };
                    self.schedule(LAN, Event::Tell(host, told));
                }
                copies.clear();
                break "firewall";
            }
            if let Some(nat) = &mut gateway.nat {
                if nat.external() == Some(remote.ip()) && !nat.kind.hairpin {
                    copies.clear();
                    break "no hairpin";
                }
                from = nat.outbound(now, &mut self.choices, Protocol::Udp, from, remote);
            }
            let mut passed = Vec::new();
            for (time, data) in copies {
                for (more, data) in gateway.link.pass(now, &mut self.choices, data) {
                    passed.push((time + more, data));
                }
            }
            copies = passed;
            site = *parent;
            if copies.is_empty() {
                break "lost";
            }
        };
        if self.trace.is_on() {
            let packet = Packet {
                from: local,
                to: remote,
                data: data.to_vec(),
            };
            let name = self.name(host).to_string();
            self.trace_packet(&name, &packet, fate);
        }
        if fate == "no route" {
            return;
        }
        for (time, data) in copies {
            let packet = Packet {
                from,
                to: remote,
                data,
            };
            let event = Event::Descend {
                site,
                packet,
                origin: Some((host, local, remote)),
            };
            self.schedule(time, event);
        }
    }

    fn trace_packet(&self, who: &str, packet: &Packet, fate: &str) {
        self.trace.line(self.now, who, || {
            let Packet { from, to, data } = packet;
            let what = match self.describe {
                Some(describe) => describe(data),
                None => format!("{:02x?}", data.get(..data.len().min(8)).unwrap_or_default()),
            };
            let fate = if fate.is_empty() {
                String::new()
            } else {
                format!(" ({fate})")
            };
            format!("udp {from} -> {to} {} bytes {what}{fate}", data.len())
        });
    }

    /// A packet is in a site: hands it down, or to its host.
    pub(super) fn descend(
        &mut self,
        site: SiteId,
        mut packet: Packet,
        origin: Option<(HostId, SocketAddr, SocketAddr)>,
    ) -> Option<(HostId, Arrival)> {
        let now = self.now;
        match *self.sites[site.0].owners.get(&packet.to.ip())? {
            Owner::Host(host) => {
                if self.sockets.get(&(site, packet.to)) == Some(&host) {
                    return Some((
                        host,
                        Arrival::Datagram {
                            local: packet.to,
                            remote: packet.from,
                            data: packet.data,
                        },
                    ));
                }
                if let Some((host, local, remote)) = origin.filter(|_| self.icmp) {
                    let told = Arrival::Unreachable { local, remote };
                    self.schedule(LAN, Event::Tell(host, told));
                }
                None
            }
            Owner::Child(child) => {
                let (_, gateway) = self.sites[child.0].up.as_mut()?;
                if let Some(nat) = &gateway.nat {
                    let Some(inside) = nat.inbound(now, Protocol::Udp, packet.from, packet.to)
                    else {
                        self.trace_packet("net", &packet, "filtered");
                        return None;
                    };
                    packet.to = inside;
                }
                let passed = gateway.link.pass(now, &mut self.choices, packet.data);
                for (time, data) in passed {
                    let packet = Packet { data, ..packet };
                    let event = Event::Descend {
                        site: child,
                        packet,
                        origin,
                    };
                    self.schedule(time, event);
                }
                None
            }
        }
    }
}
