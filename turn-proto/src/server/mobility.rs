//! Clients that change their address and keep their allocation (RFC 8016), and the keyed values
//! the server hands out instead of remembering them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use stun_proto::time::deadline;
use stun_proto::{Instant, Path, Rng};
use subtle::ConstantTimeEq as _;

use core::time::Duration;

use super::allocation::{AllocationId, lives};
use super::output::{Event, RelayId};
use super::requests::{BAD_REQUEST, Denied, Proven};
use super::{Core, Users};
use crate::wire::{Lifetime, MobilityTicket, code};

/// How long the ticket before the last one is known.
const OLD_TICKET: Duration = Duration::from_secs(30);

const IV: usize = 16;
const STATE: usize = 16;
const TAG: usize = 16;

/// Seals tickets and makes tokens.
///
/// A ticket is `iv || state ^ HMAC(key 1, iv) || HMAC(key 2, iv || sealed)`: the state, a handle of
/// 16 bytes, is encrypted with HMAC-SHA-256 in counter mode (one block) and then authenticated.
#[derive(Clone)]
pub(super) struct Tickets {
    encryption: Hmac<Sha256>,
    authentication: Hmac<Sha256>,
    tokens: Hmac<Sha256>,
}

impl core::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tickets(..)")
    }
}

impl Tickets {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut mac = || {
            // HMAC takes keys of every length; the empty fallback is never reached.
            Hmac::new_from_slice(&rng.bytes::<32>())
                .unwrap_or_else(|_| Hmac::new(&Default::default()))
        };
        Self {
            encryption: mac(),
            authentication: mac(),
            tokens: mac(),
        }
    }

    /// The RESERVATION-TOKEN of a relay: not to be guessed, and not to be remembered.
    pub(super) fn token(&self, relay: RelayId) -> [u8; 8] {
        let code = self.tokens.clone().chain_update(relay.0.to_be_bytes());
        let code: [u8; 32] = code.finalize().into_bytes().into();
        let [a, b, c, d, e, f, g, h, ..] = code;
        [a, b, c, d, e, f, g, h]
    }

    pub(super) fn seal(
        &self,
        rng: &mut Rng,
        AllocationId(id): AllocationId,
        generation: u64,
    ) -> [u8; IV + STATE + TAG] {
        let mut ticket = [0; IV + STATE + TAG];
        let iv = rng.bytes::<IV>();
        let state = id.to_be_bytes().into_iter().chain(generation.to_be_bytes());
        let sealed = state
            .zip(self.stream(&iv))
            .map(|(state, stream)| state ^ stream);
        for (to, from) in ticket.iter_mut().zip(iv.into_iter().chain(sealed)) {
            *to = from;
        }
        if let Some((body, tag)) = ticket.split_last_chunk_mut::<TAG>() {
            *tag = self.tag(body);
        }
        ticket
    }

    /// The allocation and generation of a ticket that was sealed with these keys.
    fn open(&self, ticket: &[u8]) -> Option<(AllocationId, u64)> {
        let (body, tag) = ticket.split_last_chunk::<TAG>()?;
        if body.len() != IV + STATE || !bool::from(self.tag(body).ct_eq(tag)) {
            return None;
        }
        let (iv, sealed) = body.split_first_chunk::<IV>()?;
        let mut state = [0; STATE];
        let opened = sealed.iter().zip(self.stream(iv));
        for (to, (sealed, stream)) in state.iter_mut().zip(opened) {
            *to = sealed ^ stream;
        }
        let (id, generation) = state.split_first_chunk::<8>()?;
        let generation = generation.try_into().ok()?;
        Some((
            AllocationId(u64::from_be_bytes(*id)),
            u64::from_be_bytes(generation),
        ))
    }

    fn stream(&self, iv: &[u8; IV]) -> [u8; 32] {
        let mac = self.encryption.clone().chain_update(iv);
        mac.finalize().into_bytes().into()
    }

    fn tag(&self, body: &[u8]) -> [u8; TAG] {
        let mac = self.authentication.clone().chain_update(body);
        let code: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(code) {
            *to = from;
        }
        tag
    }
}

impl<U: Users> Core<U> {
    /// Whether a client may move: never one that is known by nothing but its ticket (section 5).
    pub(super) const fn may_move(&self, proven: &Proven<'_>) -> bool {
        let known = proven.protection.integrity.is_some() || proven.client.transport.is_secure();
        self.config.mobility && known
    }

    /// A Refresh with a ticket (RFC 8016 section 3.2.2).
    pub(super) fn move_client(&mut self, now: Instant, proven: &Proven<'_>) -> Result<(), Denied> {
        if !self.may_move(proven) {
            return Err(Denied(code::MOBILITY_FORBIDDEN));
        }
        let ticket = proven.message.find::<MobilityTicket<'_>>();
        let ticket = ticket.and_then(|MobilityTicket(ticket)| self.tickets.open(ticket));
        let (id, generation) = ticket.ok_or(BAD_REQUEST)?;
        let mismatch = Denied(code::ALLOCATION_MISMATCH);
        let held_here = self.by_path.get(&proven.path.into()).copied();
        let allocation = self.allocations.get_mut(&id).ok_or(mismatch)?;
        let username = &allocation.username;
        let moves = allocation.mobility.as_deref_mut().ok_or(mismatch)?;
        let again = moves.generation.checked_sub(1) == Some(generation)
            && lives(moves.old_until, now)
            && moves.next.map(|(path, _)| path) == Some(proven.path);
        if !again && generation != moves.generation || allocation.path == proven.path {
            return Err(BAD_REQUEST);
        }
        if *username != proven.username {
            return Err(Denied(code::WRONG_CREDENTIALS));
        }
        if held_here.is_some_and(|held| held != id) {
            return Err(mismatch);
        }
        let granted = self.prolong(now, proven, id)?;
        if !again
            && let Some(allocation) = self.allocations.get_mut(&id)
            && let Some(moves) = allocation.mobility.as_deref_mut()
        {
            moves.generation = moves.generation.saturating_add(1);
            moves.old_until = deadline(now, OLD_TICKET);
            self.set_next(id, proven);
        }
        let ticket = self.ticket_of(id);
        let ty = proven.message.message_type().success();
        self.reply(proven, ty, |writer| {
            writer
                .attribute(&Lifetime(granted))
                .maybe(ticket.as_ref().map(|t| MobilityTicket(t)).as_ref())
        });
        Ok(())
    }

    fn ticket_of(&mut self, id: AllocationId) -> Option<[u8; IV + STATE + TAG]> {
        let generation = self.allocations.get(&id)?.mobility.as_ref()?.generation;
        Some(self.tickets.seal(&mut self.rng, id, generation))
    }

    /// The client will be here; at once if it cannot be reached where it was.
    fn set_next(&mut self, id: AllocationId, proven: &Proven<'_>) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let Some(moves) = allocation.mobility.as_deref_mut() else {
            return;
        };
        let before = moves.next.replace((proven.path, proven.client));
        let lost = moves.lost;
        if let Some((path, _)) = before {
            self.by_path.remove(&path.into());
            if let Path::Stream(stream) = path {
                self.stream_without_allocation(stream);
            }
        }
        self.by_path.insert(proven.path.into(), id);
        if let Path::Stream(stream) = proven.path {
            self.stream_with_allocation(stream);
        }
        if lost {
            self.arrived(id);
        }
    }

    /// Data has come from the new address, or the old one is gone: the client has moved.
    pub(super) fn arrived(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        let Some(moves) = allocation.mobility.as_deref_mut() else {
            return;
        };
        let Some((path, client)) = moves.next.take() else {
            return;
        };
        moves.lost = false;
        let old = core::mem::replace(&mut allocation.path, path);
        allocation.client = client;
        for relay in allocation.relays() {
            self.out.events.push_back(Event::AllocationMoved {
                relay: relay.id,
                path,
            });
        }
        self.by_path.remove(&old.into());
        if let Path::Stream(stream) = old {
            self.stream_without_allocation(stream);
        }
    }

    /// A client's stream is gone. Whether its allocation waits for it to come back.
    pub(super) fn survives(&mut self, id: AllocationId, path: Path) -> bool {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return false;
        };
        let here = allocation.path == path;
        let Some(moves) = allocation.mobility.as_deref_mut() else {
            return false;
        };
        self.by_path.remove(&path.into());
        if !here {
            // The way it was going to take; the old one still stands.
            moves.next = None;
        } else if moves.next.is_some() {
            self.arrived(id);
        } else {
            moves.lost = true;
        }
        true
    }
}
