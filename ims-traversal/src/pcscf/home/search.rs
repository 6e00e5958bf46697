//! One request and the places it is tried at.

use alloc::vec::Vec;

use sip_outbound::wire::{Limits, Request, Response, StatusCode};
use sip_outbound::{BindingId, ClientId, FlowId, Target, Targets, with_all_challenges};

/// A request that was passed on, until its transaction is over.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The stream it came over; it goes on over the same.
    pub(super) link: FlowId,
    /// The request as it goes on, but for what its target adds.
    pub(super) request: Request,
    /// The devices of the user; none when the way is given by Route or URI.
    targets: Option<Targets>,
    device: usize,
    /// Where it is now.
    binding: Option<BindingId>,
    pub(super) client: Option<ClientId>,
    pub(super) cancelled: bool,
    /// The final answers so far, one of each device at most.
    answers: Vec<Answer>,
}

/// A final answer, and the response if one came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) response: Option<Response>,
}

/// What follows from a final answer.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum Step {
    Try(Target),
    /// This is the answer.
    Respond(Answer),
}

impl Search {
    pub(super) const fn new(link: FlowId, request: Request, targets: Option<Targets>) -> Self {
        Self {
            link,
            request,
            targets,
            device: 0,
            binding: None,
            client: None,
            cancelled: false,
            answers: Vec::new(),
        }
    }

    /// The first place to try.
    pub(super) fn first(&mut self) -> Option<Target> {
        let target = self.targets.as_mut()?.first(self.device)?;
        self.binding = Some(target.binding);
        Some(target)
    }

    /// The binding whose flow failed, after 430.
    pub(super) fn failed_binding(&mut self, code: StatusCode) -> Option<BindingId> {
        self.binding.filter(|_| code == StatusCode::FLOW_FAILED)
    }

    /// The last place tried has answered for good.
    pub(super) fn answered(&mut self, code: StatusCode, response: Option<Response>) -> Step {
        self.client = None;
        let last = self.cancelled || code.class() == 6;
        if !last && let Some(targets) = &mut self.targets {
            if let sip_outbound::Next::Try(target) = targets.next(self.device, code) {
                self.binding = Some(target.binding);
                return Step::Try(target);
            }
            self.device = self.device.saturating_add(1);
        }
        self.answers.push(Answer { code, response });
        if !last && let Some(target) = self.first() {
            return Step::Try(target);
        }
        self.best()
    }

    /// RFC 3261 section 16.7 steps 6 and 7.
    fn best(&mut self) -> Step {
        let mut answers = core::mem::take(&mut self.answers);
        let best = answers
            .iter()
            .enumerate()
            .min_by_key(|(_, answer)| rank(answer.code))
            .map_or(0, |(at, _)| at);
        let fallback = Answer {
            code: StatusCode::TEMPORARILY_UNAVAILABLE,
            response: None,
        };
        if answers.is_empty() {
            return Step::Respond(fallback);
        }
        let mut best = answers.swap_remove(best);
        if best.code == StatusCode::FLOW_FAILED {
            return Step::Respond(fallback);
        }
        if let Some(response) = &best.response {
            let others = answers.iter().filter_map(|answer| answer.response.as_ref());
            let merged = with_all_challenges(response, others);
            let merged = merged.map(|message| Response::check(message, &Limits::DEFAULT));
            if let Ok(Ok(merged)) = merged {
                best.response = Some(merged);
            }
        }
        Step::Respond(best)
    }
}

/// What is told first: 6xx, then the lowest class; within a class what the caller can act upon.
const fn rank(code: StatusCode) -> (u16, u16) {
    let class = match code.class() {
        6 => 0,
        class => class,
    };
    let within = match code.number() {
        401 | 407 | 415 | 420 | 484 => 0,
        // Says less than any other answer of its class.
        408 | 430 => 2,
        503 => 3,
        _ => 1,
    };
    (class, within)
}
