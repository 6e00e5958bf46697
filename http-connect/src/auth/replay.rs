//! Which counts were used with which nonce (RFC 7616 section 5.5): a table of fixed size, for
//! authenticated users only.

use alloc::collections::BTreeMap;

use super::digest::HexDigest;
use super::nonce::NonceId;

/// How many counts behind the highest one may still arrive (several flows share a nonce).
const WINDOW: u32 = 64;

/// How many expired nonces are forgotten each time, so that no single request pays for all.
const SWEEP: usize = 8;

/// What is known of one nonce.
#[derive(Clone, Debug)]
struct Used {
    highest: u32,
    /// Bit n: `highest - n` has been used.
    seen: u64,
    /// The key of a `-sess` algorithm.
    session: Option<HexDigest>,
}

impl Used {
    /// Notes a count; `false` when it was used before or lies behind the window.
    fn take(&mut self, nc: u32) -> bool {
        if nc > self.highest {
            let by = nc.saturating_sub(self.highest);
            self.seen = if by >= WINDOW { 0 } else { self.seen << by } | 1;
            self.highest = nc;
            return true;
        }
        let behind = self.highest.saturating_sub(nc);
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

/// The nonces in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Replays {
    used: BTreeMap<NonceId, Used>,
    /// Nonces up to this one may have been forgotten while they still counted.
    forgotten: Option<NonceId>,
}

impl Replays {
    /// The session key that goes with a nonce.
    pub(super) fn session(&self, id: NonceId) -> Option<&HexDigest> {
        self.used.get(&id)?.session.as_ref()
    }

    /// Notes that a nonce was used for the `nc`th time; `false` when that may have happened
    /// before. Nonces issued before `alive` have expired. `session` is kept with a new nonce.
    pub(super) fn take(
        &mut self,
        id: NonceId,
        nc: u32,
        session: Option<&HexDigest>,
        alive: u64,
        limit: usize,
    ) -> bool {
        for _ in 0..SWEEP {
            match self.used.first_entry() {
                Some(oldest) if oldest.key().issued < alive => oldest.remove(),
                Some(_) | None => break,
            };
        }
        if nc == 0 {
            return false;
        }
        if let Some(used) = self.used.get_mut(&id) {
            return used.take(nc);
        }
        while self.used.len() >= limit.max(1)
            && let Some((oldest, _)) = self.used.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(oldest));
        }
        if self.forgotten.is_some_and(|until| id <= until) {
            return false;
        }
        let mut used = Used {
            highest: 0,
            seen: 0,
            session: session.cloned(),
        };
        used.take(nc);
        self.used.insert(id, used);
        true
    }
}
