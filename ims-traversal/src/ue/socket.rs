//! UDP sockets of the host, and the media instances that wait for them.

use core::net::SocketAddr;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ice_proto::{ComponentId, RelayId, Role};
use stun_proto::Instant;

use super::{CallId, MediaId, SocketId, SocketPlace, Ue, UeAction, UeConn};
use crate::access::{AccessAction, AccessSocket};
use crate::media::{Media, MediaAction};

/// Addresses of the host that are used.
const MAX_ADDRESSES: usize = 8;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// SIP over UDP.
    Control(AccessSocket),
    /// A host candidate.
    Host(MediaId, ComponentId),
    /// One more socket towards a TURN server.
    Relay(MediaId, RelayId),
}

impl Owner {
    const fn media(self) -> Option<MediaId> {
        match self {
            Self::Control(_) => None,
            Self::Host(media, _) | Self::Relay(media, _) => Some(media),
        }
    }
}

#[derive(Debug)]
struct Socket {
    owner: Owner,
    local: Option<SocketAddr>,
}

/// The sockets of the host.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    next: u64,
    table: BTreeMap<SocketId, Socket>,
    by_local: BTreeMap<SocketAddr, SocketId>,
}

impl Sockets {
    fn add(&mut self, owner: Owner) -> SocketId {
        let id = SocketId(self.next);
        self.next = self.next.saturating_add(1);
        self.table.insert(id, Socket { owner, local: None });
        id
    }

    /// Whose datagrams come in at a local address.
    pub(super) fn owner_at(&self, local: SocketAddr) -> Option<Owner> {
        let id = self.by_local.get(&local)?;
        self.table.get(id).map(|socket| socket.owner)
    }

    fn remove(&mut self, id: SocketId) -> Option<Owner> {
        let socket = self.table.remove(&id)?;
        if let Some(local) = socket.local {
            self.by_local.remove(&local);
        }
        Some(socket.owner)
    }

    fn of_media(&self, media: MediaId) -> Vec<SocketId> {
        let sockets = self.table.iter();
        sockets
            .filter(|(_, socket)| socket.owner.media() == Some(media))
            .map(|(id, _)| *id)
            .collect()
    }
}

/// One call's media.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) media: Media,
    /// Sockets that are not open yet; then it gathers.
    opening: usize,
}

impl Ue {
    /// Makes the media of a leg, and asks for the sockets they gather from.
    pub(super) fn open_media(&mut self, now: Instant, call: CallId, role: Role) {
        let Some(leg) = self.legs.get(&call) else {
            return;
        };
        let (id, rtcp) = (leg.media, leg.may_need_rtcp());
        let mut config = self.config.media.clone();
        config.session.agent.role = role;
        if !rtcp {
            config.session.agent.components = alloc::vec![1];
        }
        let components = config.session.agent.components.first().copied();
        let media = Media::new(config, self.rng.fork(), now);
        let addresses: Vec<_> = self.network.iter().flat_map(|n| &n.addresses).collect();
        let mut opening = 0_usize;
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            for component in 1..=components.unwrap_or(1) {
                let component = ComponentId {
                    stream: 0,
                    component,
                };
                let socket = self.sockets.add(Owner::Host(id, component));
                let place = SocketPlace::Address(*address);
                self.actions
                    .push_back(UeAction::OpenSocket { socket, place });
                opening = opening.saturating_add(1);
            }
        }
        self.media.insert(id, Instance { media, opening });
        self.gather_if_ready(now, id);
    }

    fn gather_if_ready(&mut self, now: Instant, id: MediaId) {
        if let Some(entry) = self.media.get_mut(&id).filter(|entry| entry.opening == 0) {
            // Once it is under way it is not begun again.
            let _ = entry.media.gather(now);
        }
    }

    /// The host has bound a UDP socket. `remote` is what a [`SocketPlace::Towards`] was resolved
    /// to.
    pub fn socket_opened(
        &mut self,
        now: Instant,
        socket: SocketId,
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) {
        let now = self.clock.advance(now);
        let entry = self.sockets.table.get_mut(&socket);
        let Some(entry) = entry.filter(|socket| socket.local.is_none()) else {
            return;
        };
        entry.local = Some(local);
        let owner = entry.owner;
        self.sockets.by_local.insert(local, socket);
        match owner {
            Owner::Control(access) => match remote {
                Some(remote) => self.access.socket_opened(now, access, local, remote),
                None => self.access.socket_failed(now, access),
            },
            Owner::Host(id, component) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    // An address that makes no candidate is passed over.
                    let _ = entry.media.add_host(now, component, local);
                    entry.opening = entry.opening.saturating_sub(1);
                }
                self.gather_if_ready(now, id);
            }
            Owner::Relay(id, relay) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    entry.media.socket_opened(now, relay, local);
                }
            }
        }
        self.settle(now);
    }

    /// The host could not bind a UDP socket, or one broke.
    pub fn socket_failed(&mut self, now: Instant, socket: SocketId) {
        let now = self.clock.advance(now);
        let at = self.sockets.table.get(&socket).and_then(|s| s.local);
        match self.sockets.remove(socket) {
            None => return,
            Some(Owner::Control(access)) => self.access.socket_failed(now, access),
            Some(Owner::Host(id, _)) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    match at {
                        Some(at) => entry.media.remove_host(now, at),
                        None => entry.opening = entry.opening.saturating_sub(1),
                    }
                }
                self.gather_if_ready(now, id);
            }
            Some(Owner::Relay(id, relay)) => {
                if let Some(entry) = self.media.get_mut(&id) {
                    entry.media.socket_failed(now, relay);
                }
            }
        }
        self.settle(now);
    }

    /// Media are no longer needed; they give their relays back.
    pub(super) fn close_media(&mut self, now: Instant, id: MediaId) {
        if let Some(entry) = self.media.get_mut(&id) {
            entry.media.close(now);
        }
    }

    /// Media have given everything back.
    pub(super) fn forget_media(&mut self, id: MediaId) {
        // What is still to be written is asked for by nobody else.
        self.media.remove(&id);
        self.forget_asking(id);
        for socket in self.sockets.of_media(id) {
            self.sockets.remove(socket);
            self.actions.push_back(UeAction::CloseSocket { socket });
        }
    }

    fn open_socket(&mut self, owner: Owner, place: SocketPlace) -> UeAction {
        let socket = self.sockets.add(owner);
        UeAction::OpenSocket { socket, place }
    }

    fn close_sockets(&mut self, which: impl Fn(&Socket) -> bool) {
        let table = self.sockets.table.iter();
        let found: Vec<_> = table
            .filter(|(_, socket)| which(socket))
            .map(|(id, _)| *id)
            .collect();
        for socket in found {
            self.sockets.remove(socket);
            self.actions.push_back(UeAction::CloseSocket { socket });
        }
    }

    pub(super) fn access_action(&mut self, action: AccessAction) {
        let action = match action {
            AccessAction::Connect { conn, to } => UeAction::Connect {
                conn: UeConn::Control(conn),
                to,
            },
            AccessAction::Close { conn } => UeAction::Close {
                conn: UeConn::Control(conn),
            },
            AccessAction::OpenSocket { socket, to } => {
                self.open_socket(Owner::Control(socket), SocketPlace::Towards(to))
            }
            AccessAction::CloseSocket { socket } => {
                let owner = Owner::Control(socket);
                return self.close_sockets(|socket| socket.owner == owner);
            }
            AccessAction::OpenTunnel { flow } => UeAction::OpenTunnel { flow },
        };
        self.actions.push_back(action);
    }

    pub(super) fn media_action(&mut self, id: MediaId, action: MediaAction) {
        let action = match action {
            MediaAction::Connect { conn, to } => UeAction::Connect {
                conn: UeConn::Media(id, conn),
                to,
            },
            MediaAction::Close { conn } => UeAction::Close {
                conn: UeConn::Media(id, conn),
            },
            MediaAction::OpenSocket { relay, local } => {
                self.open_socket(Owner::Relay(id, relay), SocketPlace::Address(local))
            }
            MediaAction::CloseSocket { local } => {
                return self.close_sockets(|socket| socket.local == Some(local));
            }
        };
        self.actions.push_back(action);
    }
}
