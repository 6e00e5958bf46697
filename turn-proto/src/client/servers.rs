//! What is remembered about servers between allocations (RFC 8656 section 7.4, RFC 8489
//! section 10).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use alloc::collections::BTreeMap;

use stun_proto::Instant;
use stun_proto::time::deadline;

use super::{Cause, Event};
use crate::wire::{AddressFamily, code};

/// How many local addresses are tried before a server is left alone, and for how long.
const MAX_MISMATCHES: u8 = 3;
const MISMATCH_WAIT: Duration = Duration::from_secs(120);

/// How long a server is left alone that has no room for a family.
const NO_ROOM_WAIT: Duration = Duration::from_secs(60);

/// How long a server counts as asked, so that redirects do not go in circles.
const REDIRECT_MEMORY: Duration = Duration::from_secs(300);

/// How many redirects in a row are followed.
const MAX_HOPS: u8 = 3;

/// Servers remembered at once; the one asked longest ago is forgotten first.
const MAX_SERVERS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Server {
    asked: Instant,
    blocked: Option<Instant>,
    mismatches: u8,
    /// Until when a family is not to be asked for; for ever when the instant is `None`.
    families: [Option<Option<Instant>>; 2],
}

/// A host's memory of the servers it has asked: which to leave alone for how long, and where a
/// redirect may lead. Blocks are for an IP address, whatever the port and transport.
///
/// ```
/// use core::time::Duration;
/// use stun_proto::Instant;
/// use turn_proto::client::{Cause, Event, Servers};
///
/// let server = "192.0.2.1:3478".parse().unwrap();
/// let now = Instant::ZERO;
/// let mut servers = Servers::new();
/// servers.asked(now, server);
/// let failed = Event::AllocateFailed {
///     cause: Cause::Code(486),
///     retry_after: Some(Duration::from_secs(60)),
///     fresh_address: false,
///     alternate: None,
/// };
/// servers.note(now, server, &failed);
/// assert!(!servers.may_ask(now + Duration::from_secs(59), server.ip()));
/// assert!(servers.may_ask(now + Duration::from_secs(60), server.ip()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Servers {
    by_ip: BTreeMap<IpAddr, Server>,
    /// Transport addresses asked, for redirects.
    asked: BTreeMap<SocketAddr, Instant>,
    hops: u8,
}

impl Servers {
    /// No server known.
    pub const fn new() -> Self {
        Self {
            by_ip: BTreeMap::new(),
            asked: BTreeMap::new(),
            hops: 0,
        }
    }

    /// An Allocate is being sent to this server.
    pub fn asked(&mut self, now: Instant, server: SocketAddr) {
        self.entry(now, server.ip()).asked = now;
        self.asked
            .retain(|_, at| now.duration_since(*at) < REDIRECT_MEMORY);
        if self.asked.len() >= MAX_SERVERS {
            let oldest = self.asked.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(server, _)| *server) {
                self.asked.remove(&oldest);
            }
        }
        self.asked.insert(server, now);
    }

    /// Takes in what became of it.
    pub fn note(&mut self, now: Instant, server: SocketAddr, event: &Event) {
        if let Event::Allocated { refused, .. } = event {
            self.hops = 0;
            let server = self.entry(now, server.ip());
            server.mismatches = 0;
            if let Some((family, code)) = refused {
                server.refused(now, *family, *code);
            }
        }
        if let Event::AllocateFailed {
            cause,
            retry_after,
            fresh_address,
            alternate,
        } = event
        {
            if alternate.is_none() {
                self.hops = 0;
            }
            let server = self.entry(now, server.ip());
            let no_room = matches!(
                cause,
                Cause::Code(code::QUOTA_REACHED | code::INSUFFICIENT_CAPACITY)
            );
            if *fresh_address {
                server.mismatches = server.mismatches.saturating_add(1);
                if server.mismatches >= MAX_MISMATCHES {
                    server.mismatches = 0;
                    server.blocked = deadline(now, MISMATCH_WAIT);
                }
            } else if no_room {
                server.blocked = retry_after.and_then(|after| deadline(now, after));
            }
        }
    }

    /// The server has refused this family (440 on Allocate, or
    /// [`Event::Allocated`] with `refused`): never again for 440, not within 60 s otherwise.
    pub fn note_family(&mut self, now: Instant, server: IpAddr, family: AddressFamily, code: u16) {
        self.entry(now, server).refused(now, family, code);
    }

    /// Whether the server may be asked now.
    pub fn may_ask(&self, now: Instant, server: IpAddr) -> bool {
        self.by_ip
            .get(&server)
            .and_then(|server| server.blocked)
            .is_none_or(|until| until <= now)
    }

    /// Whether the server may be asked for a relayed address of this family now.
    pub fn may_ask_for(&self, now: Instant, server: IpAddr, family: AddressFamily) -> bool {
        let known = self.by_ip.get(&server);
        let refused = known.and_then(|server| *server.family(family));
        self.may_ask(now, server)
            && match refused {
                None => true,
                Some(None) => false,
                Some(Some(until)) => until <= now,
            }
    }

    /// Whether a redirect to this server is to be followed: not to one that was asked within 300 s
    /// or is left alone, and not more than three in a row. Counts it if so.
    pub fn follow(&mut self, now: Instant, to: SocketAddr) -> bool {
        let lately = self
            .asked
            .get(&to)
            .is_some_and(|at| now.duration_since(*at) < REDIRECT_MEMORY);
        if lately || self.hops >= MAX_HOPS || !self.may_ask(now, to.ip()) {
            return false;
        }
        self.hops = self.hops.saturating_add(1);
        true
    }

    fn entry(&mut self, now: Instant, ip: IpAddr) -> &mut Server {
        if self.by_ip.len() >= MAX_SERVERS && !self.by_ip.contains_key(&ip) {
            let oldest = self.by_ip.iter().min_by_key(|(_, server)| server.asked);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                self.by_ip.remove(&oldest);
            }
        }
        self.by_ip.entry(ip).or_insert(Server {
            asked: now,
            blocked: None,
            mismatches: 0,
            families: [None; 2],
        })
    }
}

impl Server {
    const fn family(&self, family: AddressFamily) -> &Option<Option<Instant>> {
        let [v4, v6] = &self.families;
        match family {
            AddressFamily::V4 => v4,
            AddressFamily::V6 => v6,
        }
    }

    fn refused(&mut self, now: Instant, family: AddressFamily, code: u16) {
        let until = if code == code::ADDRESS_FAMILY_NOT_SUPPORTED {
            None
        } else {
            deadline(now, NO_ROOM_WAIT)
        };
        let [v4, v6] = &mut self.families;
        match family {
            AddressFamily::V4 => *v4 = Some(until),
            AddressFamily::V6 => *v6 = Some(until),
        }
    }
}
