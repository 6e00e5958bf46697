//! Which flow took over from one that is gone: dialogs follow their client to it.
//!
//! A flow token in the route set of a dialog names one flow for ever, but the dialog outlives it:
//! the client comes back over another one and registers again. Its AoR and instance (RFC 5626
//! section 4.1), which the registrar has accepted, say that it is the same client.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use http_connect::auth::{HashAlgorithm, hash_joined};
use stun_proto::FiveTuple;

use super::token::FlowToken;
use crate::ua::FlowId;
use crate::wire::Aor;

/// Who registers: the hash of AoR and instance, so that long names cost no more than short ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client(String);

impl Client {
    pub(super) fn new(aor: &Aor, instance: &str) -> Self {
        let parts = [aor.as_str().as_bytes(), b"\0", instance.as_bytes()];
        Self(String::from(
            hash_joined(HashAlgorithm::Sha256, &parts).as_str(),
        ))
    }
}

/// The registered flows of each client, and whom those that are gone were of.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    living: BTreeSet<(Client, FlowId)>,
    /// By serial: older flows first.
    dead: BTreeMap<u64, (FiveTuple, Client)>,
}

impl Heirs {
    pub(super) fn register(&mut self, client: Client, flow: FlowId) {
        self.living.insert((client, flow));
    }

    pub(super) fn unregister(&mut self, client: &Client, flow: FlowId) {
        self.living.remove(&(client.clone(), flow));
    }

    /// A registered flow is gone. No more than `max` are remembered, the youngest ones.
    pub(super) fn bury(&mut self, client: Client, flow: FlowId, token: FlowToken, max: usize) {
        self.unregister(&client, flow);
        self.dead.insert(token.serial, (token.at, client));
        while self.dead.len() > max {
            self.dead.pop_first();
        }
    }

    /// The youngest flow of the client whose flow this token named.
    pub(super) fn heir(&self, token: &FlowToken) -> Option<FlowId> {
        let (_, client) = self
            .dead
            .get(&token.serial)
            .filter(|(at, _)| *at == token.at)?;
        self.youngest(client)
    }

    fn youngest(&self, client: &Client) -> Option<FlowId> {
        let all = (client.clone(), FlowId(0))..=(client.clone(), FlowId(u64::MAX));
        self.living.range(all).next_back().map(|(_, flow)| *flow)
    }

    /// Whether this client is registered over this flow as well.
    pub(super) fn has(&self, client: &Client, flow: FlowId) -> bool {
        self.living.contains(&(client.clone(), flow))
    }
}
