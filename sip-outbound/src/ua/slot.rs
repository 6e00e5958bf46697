//! What is known of a registration: one for each place in the outbound proxy set.

use core::time::Duration;

use alloc::collections::VecDeque;
use alloc::string::String;

use stun_proto::Rng;

use super::idle::Idle;
use super::{FlowId, UserAgentConfig};
use crate::digest::{DigestAttempt, DigestClient};
use crate::wire::UriBuf;

/// A position in the outbound proxy set.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) reg_id: u32,
    pub(super) proxy: UriBuf,
    pub(super) call_id: String,
    pub(super) tag: String,
    pub(super) cseq: u32,
    pub(super) state: State,
    pub(super) digest: DigestClient,
    pub(super) attempt: DigestAttempt,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Spare proxies that have been tried since the last wait.
    pub(super) tried: usize,
    /// Registered, and known to be alive: the next failure is the first one again.
    pub(super) proven: bool,
    /// What the current operation asks for.
    pub(super) asked: u32,
    /// A 423 has been obeyed in this operation.
    pub(super) brief: bool,
    /// The registrar has not confirmed outbound: no longer speak of it.
    pub(super) plain: bool,
    pub(super) bound: Option<Duration>,
    /// What its flows have died of.
    pub(super) idle: Idle,
    /// The list of security mechanisms of the edge proxy, shown to it from now on.
    pub(super) agreed: Option<String>,
    /// The agreement is for the flow that is being opened.
    pub(super) agreed_ahead: bool,
    /// Remove the binding as soon as the refresh under way is answered.
    pub(super) remove_next: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not started, or over.
    Idle,
    Opening(FlowId),
    /// REGISTER is unanswered, or the card is being asked.
    Registering(FlowId),
    /// As `Registering`, with a binding that is still good.
    Refreshing(FlowId),
    Registered(FlowId),
    /// The timer will try again.
    Waiting,
    Removing(FlowId),
    Refused,
}

impl Slot {
    pub(super) fn new(reg_id: u32, proxy: UriBuf, config: &UserAgentConfig, rng: &mut Rng) -> Self {
        Self {
            reg_id,
            proxy,
            call_id: super::draft::token(rng, 16),
            tag: super::draft::token(rng, 8),
            cseq: 0,
            state: State::Idle,
            digest: DigestClient::new(config.accounts.clone(), config.digest),
            attempt: DigestAttempt::default(),
            failures: 0,
            tried: 0,
            proven: false,
            asked: config.expires,
            brief: false,
            plain: false,
            bound: None,
            idle: Idle::default(),
            agreed: None,
            agreed_ahead: false,
            remove_next: false,
        }
    }

    pub(super) const fn is_removing(&self) -> bool {
        matches!(self.state, State::Removing(_)) || self.remove_next
    }

    /// The flow, while a binding over it is good.
    pub(super) const fn registered_flow(&self) -> Option<FlowId> {
        match self.state {
            State::Registered(flow) | State::Refreshing(flow) => Some(flow),
            State::Idle
            | State::Opening(_)
            | State::Registering(_)
            | State::Waiting
            | State::Removing(_)
            | State::Refused => None,
        }
    }

    /// Goes over to another proxy of the domain; `false` when that one has had its turn, and it is
    /// time to wait.
    pub(super) fn try_another(&mut self, spares: &mut VecDeque<UriBuf>) -> bool {
        let Some(next) = spares.pop_front() else {
            return false;
        };
        spares.push_back(core::mem::replace(&mut self.proxy, next));
        let another = self.tried < spares.len();
        self.tried = if another {
            self.tried.saturating_add(1)
        } else {
            0
        };
        another
    }

    pub(super) const fn flow(&self) -> Option<FlowId> {
        match self.state {
            State::Opening(flow)
            | State::Registering(flow)
            | State::Refreshing(flow)
            | State::Registered(flow)
            | State::Removing(flow) => Some(flow),
            State::Idle | State::Waiting | State::Refused => None,
        }
    }
}
