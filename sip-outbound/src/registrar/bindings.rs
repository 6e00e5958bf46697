//! Who is where.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::targets::{Target, Targets};
use crate::Instant;
use crate::time::Timers;
use crate::ua::FlowId;
use crate::wire::{Aor, SipUri, UriBuf};

/// A binding over one way: contact, path and flow. When a client registers over another way, that
/// is a binding with another number. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(pub(super) u64);

/// What makes two bindings of one address of record the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Instance and reg-id (RFC 5626 section 6).
    Outbound { instance: String, reg_id: u32 },
    /// The URI, compared as URIs are; and the instance, if there is one.
    Plain { instance: Option<String> },
}

impl Key {
    pub(super) fn instance(&self) -> Option<&str> {
        match self {
            Self::Outbound { instance, .. } => Some(instance),
            Self::Plain { instance } => instance.as_deref(),
        }
    }
}

/// One Contact of an address of record.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) id: BindingId,
    pub(super) key: Key,
    pub(super) uri: UriBuf,
    /// All parameters of the Contact but `expires`, as they came.
    pub(super) params: String,
    pub(super) path: Vec<String>,
    /// The client is connected here.
    pub(super) flow: Option<FlowId>,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) expires_at: Option<Instant>,
    /// Larger is later.
    pub(super) updated: u64,
}

impl Binding {
    pub(super) fn is_same(&self, key: &Key, uri: &SipUri<'_>) -> bool {
        match (&self.key, key) {
            (Key::Outbound { .. }, Key::Outbound { .. }) => self.key == *key,
            (Key::Plain { .. }, Key::Plain { .. }) => self.uri.as_uri().is_equivalent(uri),
            (Key::Outbound { .. }, Key::Plain { .. })
            | (Key::Plain { .. }, Key::Outbound { .. }) => false,
        }
    }

    pub(super) fn lives(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// Whole seconds it still lives.
    pub(super) fn remaining(&self, now: Instant) -> u64 {
        self.expires_at
            .map_or(0, |at| at.duration_since(now).as_secs())
    }
}

/// All bindings.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    by_aor: BTreeMap<Aor, Vec<Binding>>,
    owners: BTreeMap<BindingId, Aor>,
    by_flow: BTreeSet<(FlowId, BindingId)>,
    timers: Timers<BindingId>,
    next: u64,
}

impl Bindings {
    pub(super) fn of(&self, aor: &Aor) -> &[Binding] {
        self.by_aor.get(aor).map_or(&[], Vec::as_slice)
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn new_id(&mut self) -> BindingId {
        self.next = self.next.saturating_add(1);
        BindingId(self.next)
    }

    pub(super) fn now_serial(&mut self) -> u64 {
        self.new_id().0
    }

    /// Puts a new set in the place of the old one.
    pub(super) fn replace(&mut self, aor: &Aor, set: Vec<Binding>) {
        for old in self.by_aor.remove(aor).unwrap_or_default() {
            self.owners.remove(&old.id);
            self.timers.disarm(old.id);
            self.forget_flow(&old);
        }
        for binding in &set {
            self.by_flow
                .extend(binding.flow.map(|flow| (flow, binding.id)));
            self.owners.insert(binding.id, aor.clone());
            self.timers.set(binding.id, binding.expires_at);
        }
        if !set.is_empty() {
            self.by_aor.insert(aor.clone(), set);
        }
    }

    fn forget_flow(&mut self, binding: &Binding) {
        if let Some(flow) = binding.flow {
            self.by_flow.remove(&(flow, binding.id));
        }
    }

    pub(super) fn remove(&mut self, id: BindingId) -> Option<(Aor, Binding)> {
        let aor = self.owners.remove(&id)?;
        self.timers.disarm(id);
        let set = self.by_aor.get_mut(&aor)?;
        let at = set.iter().position(|binding| binding.id == id)?;
        let binding = set.remove(at);
        if set.is_empty() {
            self.by_aor.remove(&aor);
        }
        self.forget_flow(&binding);
        Some((aor, binding))
    }

    pub(super) fn expired(&mut self, now: Instant) -> Option<(Aor, Binding)> {
        let id = self.timers.expired(now)?;
        self.remove(id)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Those that a flow leads to.
    pub(super) fn on_flow(&self, flow: FlowId) -> Vec<BindingId> {
        let all = (flow, BindingId(0))..=(flow, BindingId(u64::MAX));
        self.by_flow.range(all).map(|(_, id)| *id).collect()
    }

    /// Those of a user that have not run out.
    pub(super) fn live(&self, now: Instant, aor: &Aor) -> impl Iterator<Item = &Binding> {
        self.of(aor)
            .iter()
            .filter(move |binding| binding.lives(now))
    }

    /// Where requests for a user go: of each device one flow at a time, the latest first.
    pub(super) fn targets(&self, now: Instant, aor: &Aor, instance: Option<&str>) -> Targets {
        let mut sorted: Vec<_> = self.live(now, aor).collect();
        sorted.sort_by_key(|binding| core::cmp::Reverse(binding.updated));
        let mut groups: Vec<(Option<&str>, Vec<Target>)> = Vec::new();
        for binding in sorted {
            let own = binding.key.instance();
            if instance.is_some() && own != instance {
                continue;
            }
            let target = Target {
                binding: binding.id,
                contact: binding.uri.clone(),
                path: binding.path.clone(),
                flow: binding.flow,
            };
            let group = groups
                .iter_mut()
                .find(|(name, _)| name.is_some() && *name == own);
            match group {
                Some((_, group)) => group.push(target),
                None => groups.push((own, alloc::vec![target])),
            }
        }
        Targets::new(groups.into_iter().map(|(_, group)| group).collect())
    }
}
