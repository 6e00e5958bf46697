//! What is known of a registration: one for each place in the outbound proxy set.

use core::time::Duration;

use alloc::collections::VecDeque;
use alloc::string::String;

use stun_proto::Rng;

use super::pace::Pace;
use super::{FlowId, Refusal, UserAgentConfig};
use crate::Instant;
use crate::digest::{DigestAttempt, DigestClient};
use crate::time::elapsed;
use crate::wire::UriBuf;

/// A flow that has lived this long is good, whatever it dies of.
const LONG_LIFE: Duration = Duration::from_secs(20);

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
    /// What is known of the flow.
    pub(super) proof: Proof,
    /// A failure was forgiven since the last flow that lived long.
    pub(super) forgiven: bool,
    /// The registrar has accepted it once: what it refuses later may pass.
    pub(super) accepted: bool,
    /// When REGISTER was sent.
    pub(super) pace: Pace,
    /// What the current operation asks for.
    pub(super) asked: u32,
    /// A 423 has been obeyed in this operation.
    pub(super) brief: bool,
    /// The registrar has not confirmed outbound: no longer speak of it.
    pub(super) plain: bool,
    pub(super) keep: Keep,
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
    Refused(Refusal),
}

/// Whether a flow has shown that it is good for more than a 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not registered.
    None,
    /// Registered, since then.
    Bound(Instant),
    /// Registered since then, and a pong has come.
    Pong(Instant),
}

/// Keep-alives on the flow of a registration, and their longest interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    None,
    /// Without a promise that they are answered.
    Unasked(Duration),
    /// As the edge has said.
    Agreed(Duration),
}

impl Keep {
    pub(super) const fn agreed(self) -> Option<Duration> {
        match self {
            Self::Agreed(bound) => Some(bound),
            Self::None | Self::Unasked(_) => None,
        }
    }
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
            proof: Proof::None,
            forgiven: false,
            accepted: false,
            pace: Pace::default(),
            asked: config.expires,
            brief: false,
            plain: false,
            keep: Keep::None,
            agreed: None,
            agreed_ahead: false,
            remove_next: false,
        }
    }

    /// Whether it has no flow, but is to have one some day.
    pub(super) const fn is_at_rest(&self) -> bool {
        match self.state {
            State::Waiting | State::Refused(_) => true,
            State::Idle
            | State::Opening(_)
            | State::Registering(_)
            | State::Refreshing(_)
            | State::Registered(_)
            | State::Removing(_) => false,
        }
    }

    /// Whether the flow has lived long enough to be good.
    pub(super) fn has_lived(&self, now: Instant) -> bool {
        match self.proof {
            Proof::None => false,
            Proof::Bound(since) | Proof::Pong(since) => elapsed(since, now) >= LONG_LIFE,
        }
    }

    /// The flow has died: whether that is no failure that makes the next wait longer. Of those that
    /// were alive, but not for long, only the first one is forgiven.
    pub(super) fn is_forgiven(&mut self, now: Instant) -> bool {
        if self.has_lived(now) {
            self.failures = 0;
            self.forgiven = false;
            return true;
        }
        let alive = matches!(self.proof, Proof::Pong(_));
        alive && self.failures == 0 && !core::mem::replace(&mut self.forgiven, true)
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
            | State::Refused(_) => None,
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
            State::Idle | State::Waiting | State::Refused(_) => None,
        }
    }
}
