//! What a TURN server may do, told from its messages alone.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use stun_proto::framing::{Deframer, Next, Unit};
use stun_proto::wire::{Class, Message, TransactionId};
use stun_proto::{Instant, Path, StreamId};
use turn_proto::server::{Event, RelayId};
use turn_proto::wire::{self, Lifetime, XorPeerAddress};

/// Lifetime of a permission (RFC 8656 section 9).
const PERMISSION: Duration = Duration::from_secs(300);

/// The permissions a server has confirmed, and who owns which relay.
///
/// It knows nothing of channels but that binding one makes a permission: what the server lets
/// through without one is wrong, whatever form it comes in.
#[derive(Debug, Default)]
pub(super) struct Model {
    streams: BTreeMap<StreamId, Deframer>,
    asked: BTreeMap<(Path, TransactionId), Vec<IpAddr>>,
    permitted: BTreeMap<(Path, IpAddr), Instant>,
    owners: BTreeMap<RelayId, Path>,
    /// Until when the allocation of a client lives, as it was told.
    lives: BTreeMap<Path, Option<Instant>>,
    relayed: BTreeMap<RelayId, SocketAddr>,
}

impl Model {
    /// A message goes to the server.
    pub(super) fn asks(&mut self, from: Path, message: &[u8]) {
        let Ok(message) = Message::parse(message) else {
            return;
        };
        if message.class() == Class::Request {
            let peers = message.get_all::<XorPeerAddress>();
            let peers = peers.flatten().map(|peer| peer.0.ip()).collect();
            self.asked.insert((from, message.transaction_id()), peers);
        }
    }

    /// Bytes of a stream go to the server.
    pub(super) fn hears(&mut self, id: StreamId, bytes: &[u8]) {
        let deframer = self
            .streams
            .entry(id)
            .or_insert_with(|| Deframer::with_channels(1 << 17));
        let (mut rest, mut asked) = (bytes, Vec::new());
        while let Ok(Next::Unit(unit)) = deframer.next(&mut rest) {
            if let Unit::Message(message) = unit {
                asked.push(message.to_vec());
            }
        }
        for message in asked {
            self.asks(Path::Stream(id), &message);
        }
    }

    /// The server answers.
    pub(super) fn answers(&mut self, now: Instant, to: Path, message: &[u8]) {
        let Ok(message) = Message::parse(message) else {
            return;
        };
        if message.class() != Class::Success {
            return;
        }
        if let Some(Lifetime(seconds)) = message.find() {
            let lifetime = Duration::from_secs(seconds.into());
            self.lives.insert(to, now.checked_add(lifetime));
        }
        let permits = [wire::CREATE_PERMISSION, wire::CHANNEL_BIND].contains(&message.method());
        if permits
            && let Some(peers) = self.asked.get(&(to, message.transaction_id()))
            && let Some(until) = now.checked_add(PERMISSION)
        {
            for peer in peers {
                self.permitted.insert((to, *peer), until);
            }
        }
    }

    /// The server says something.
    pub(super) fn event(&mut self, path: impl FnOnce() -> Path, event: &Event) {
        match event {
            Event::AllocationCreated { relay, relayed, .. } => {
                let path = path();
                self.permitted.retain(|(of, _), _| *of != path);
                self.owners.insert(*relay, path);
                self.relayed.insert(*relay, *relayed);
                let shared: BTreeSet<_> = self.relayed.values().collect();
                assert_eq!(
                    shared.len(),
                    self.relayed.len(),
                    "a relayed address is shared"
                );
            }
            Event::AllocationDeleted { relay, .. } => {
                self.relayed.remove(relay);
                if let Some(path) = self.owners.remove(relay) {
                    self.permitted.retain(|(of, _), _| *of != path);
                }
            }
            _ => {}
        }
    }

    /// Data passes a relay, in whichever direction.
    ///
    /// # Panics
    /// Panics if it may not.
    pub(super) fn passes(&self, now: Instant, relay: RelayId, peer: SocketAddr) {
        let owner = self.owners.get(&relay);
        let owner = owner.unwrap_or_else(|| panic!("data through {relay:?}, which nobody owns"));
        let lives = self.lives.get(owner).copied().flatten();
        assert!(
            lives.is_some_and(|until| now < until),
            "data through an allocation that ended at {lives:?}, now {now:?}"
        );
        let until = self.permitted.get(&(*owner, peer.ip()));
        assert!(
            until.is_some_and(|until| now < *until),
            "data between {owner:?} and {peer} without live permission (until {until:?}, now {now:?})"
        );
    }

    /// Who owns a relay.
    pub(super) fn owner(&self, relay: RelayId) -> Option<Path> {
        self.owners.get(&relay).copied()
    }
}
