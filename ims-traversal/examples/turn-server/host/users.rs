//! Who may use the server, and how much: shared by all workers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use turn_proto::server::{Admission, KeyQuery, Lookup, RestUsers, StaticUsers, Users};

/// The users of a file, and those with a name from the shared secret.
#[derive(Clone, Debug)]
pub struct Keys {
    pub listed: StaticUsers,
    pub rest: Option<RestUsers>,
}

/// What one worker's machine asks about users.
#[derive(Clone, Debug)]
pub struct HostUsers {
    pub keys: Arc<Keys>,
    pub quota: Arc<Quota>,
}

impl Users for HostUsers {
    fn key(&self, query: &KeyQuery<'_>) -> Lookup {
        match (self.keys.listed.key(query), &self.keys.rest) {
            (Lookup::Unknown, Some(rest)) => rest.key(query),
            (known, _) => known,
        }
    }

    fn admit(&self, username: &[u8]) -> Admission {
        self.quota.admit(username)
    }

    fn release(&self, username: &[u8]) {
        self.quota.release(username);
    }
}

/// Allocations of all workers. Asked when one begins and ends, never for data.
#[derive(Debug)]
pub struct Quota {
    /// The most for one user.
    pub per_user: usize,
    /// The most in all.
    pub total: usize,
    held: Mutex<HashMap<Vec<u8>, usize>>,
    all: AtomicUsize,
    closed: Mutex<Option<Admission>>,
}

impl Quota {
    pub fn new(per_user: usize, total: usize) -> Self {
        Self {
            per_user,
            total,
            held: Mutex::default(),
            all: AtomicUsize::new(0),
            closed: Mutex::new(None),
        }
    }

    /// Allocations there are.
    pub fn allocations(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Users that have some.
    pub fn users(&self) -> usize {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Answers new allocations like this from now on, whoever asks.
    pub fn close(&self, answer: Admission) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    fn admit(&self, username: &[u8]) -> Admission {
        let closed = *self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = closed {
            return answer;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held
            .get(username)
            .is_some_and(|held| *held >= self.per_user)
        {
            return Admission::QuotaReached;
        }
        if self.allocations() >= self.total {
            return Admission::NoCapacity;
        }
        *held.entry(username.to_vec()).or_default() += 1;
        self.all.fetch_add(1, Ordering::Relaxed);
        Admission::Admitted
    }

    fn release(&self, username: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(username) {
            *count -= 1;
            if *count == 0 {
                held.remove(username);
            }
            self.all.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
