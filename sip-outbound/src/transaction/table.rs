//! What both sides of the transactions are kept in: by number, by what names them on the wire, with
//! their timers.

use core::fmt::Debug;
use core::time::Duration;

use alloc::collections::BTreeMap;

use crate::Instant;
use crate::time::Timers;

/// The timers one transaction can have.
pub(super) trait Kind: Copy + Ord + Debug + 'static {
    /// Each of them.
    const ALL: &'static [Self];
    /// The one at which a transaction that has done its work is forgotten.
    const LINGER: Self;
}

/// Open transactions.
#[derive(Clone, Debug)]
pub(super) struct Table<Id, Key, Timer, Entry> {
    entries: BTreeMap<Id, (Key, Entry)>,
    by_key: BTreeMap<Key, Id>,
    timers: Timers<(Id, Timer)>,
}

impl<Id: Copy + Ord, Key: Clone + Ord, Timer: Kind, Entry> Table<Id, Key, Timer, Entry> {
    pub(super) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            timers: Timers::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn insert(&mut self, id: Id, key: Key, entry: Entry) {
        self.by_key.insert(key.clone(), id);
        self.entries.insert(id, (key, entry));
    }

    pub(super) fn find(&self, key: &Key) -> Option<Id> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, id: Id) -> Option<&Entry> {
        self.entries.get(&id).map(|(_, entry)| entry)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Entry> {
        self.entries.get_mut(&id).map(|(_, entry)| entry)
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Entry> {
        self.disarm_all(id);
        let (key, entry) = self.entries.remove(&id)?;
        self.by_key.remove(&key);
        Some(entry)
    }

    pub(super) fn arm(&mut self, id: Id, timer: Timer, now: Instant, wait: Duration) {
        self.timers.arm((id, timer), now, wait);
    }

    pub(super) fn disarm(&mut self, id: Id, timer: Timer) {
        self.timers.disarm((id, timer));
    }

    /// The work is done: only the wait for late repetitions is left.
    pub(super) fn linger(&mut self, id: Id, now: Instant, wait: Duration) {
        self.disarm_all(id);
        self.timers.arm((id, Timer::LINGER), now, wait);
    }

    fn disarm_all(&mut self, id: Id) {
        for timer in Timer::ALL {
            self.timers.disarm((id, *timer));
        }
    }

    pub(super) fn expired(&mut self, now: Instant) -> Option<(Id, Timer)> {
        self.timers.expired(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}
