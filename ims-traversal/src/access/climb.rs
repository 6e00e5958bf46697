//! One flow's way to the P-CSCF, and what happens to it on the way.

use http_connect::auth::AuthRefusal;
use sip_outbound::{FlowAction, FlowFailure, FlowId, FlowTarget, UserAgentEvent};
use stun_proto::{FiveTuple, Instant, Transport};

use super::{Access, AccessAction, AccessEvent, AccessSocket, RungFailure};
use crate::ladder::{Attempt, Climb, Fall, Rung};
use crate::tunnel::TunnelError;

/// What a flow runs over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// Nothing yet.
    None,
    /// The host sets up its tunnel.
    Tunnel,
    /// A connection that is being made.
    Conn,
    /// One that carries SIP.
    OpenConn,
    /// A socket the host is to bind.
    Socket(AccessSocket),
    /// One that carries SIP.
    OpenSocket(AccessSocket, FiveTuple),
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) target: FlowTarget,
    reg_id: Option<u32>,
    /// `None` for a next hop the application has resolved: that is tried as it is.
    climb: Option<Climb>,
    pub(super) way: Way,
    /// The P-CSCF has answered: the way is good.
    answered: bool,
}

impl Flow {
    pub(super) fn attempt(&self) -> Attempt {
        let transport = self.target.address.map_or(Transport::Tls, |(it, _)| it);
        self.climb.as_ref().map_or(
            Attempt {
                rung: Rung::Ordinary(transport),
                other: false,
            },
            Climb::attempt,
        )
    }
}

impl Access {
    /// Passes on what the parts say to each other, until all is quiet.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            self.settle_agent(now);
            let Some((flow, event)) = self.conns.poll_event() else {
                break;
            };
            self.conn_event(now, flow, event);
        }
        self.pull_actions();
    }

    /// Does what the user agent wants, until it wants nothing.
    pub(super) fn settle_agent(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.agent.poll_event() {
                self.agent_event(now, &event);
                self.events.push_back(AccessEvent::Agent(event));
            } else if let Some(action) = self.agent.poll_action() {
                match action {
                    FlowAction::OpenFlow { flow, target } => self.open_flow(now, flow, target),
                    FlowAction::CloseFlow { flow } => self.close_flow(now, flow),
                }
            } else {
                return;
            }
        }
    }

    fn agent_event(&mut self, now: Instant, event: &UserAgentEvent) {
        match event {
            UserAgentEvent::Registered { reg_id, flow, .. } => {
                self.answered(now, *flow);
                self.climbs.remove(reg_id);
            }
            UserAgentEvent::Refused { reg_id, .. } => {
                let found = self
                    .flows
                    .iter()
                    .find(|(_, flow)| flow.reg_id == Some(*reg_id));
                if let Some(flow) = found.map(|(id, _)| *id) {
                    self.answered(now, flow);
                }
                self.climbs.remove(reg_id);
            }
            UserAgentEvent::FlowFailed { flow, cause, .. } => self.flow_failed(now, *flow, *cause),
            UserAgentEvent::NotOutbound { .. }
            | UserAgentEvent::Unregistered { .. }
            | UserAgentEvent::CardNeeded { .. }
            | UserAgentEvent::Suspicious { .. }
            | UserAgentEvent::Response { .. }
            | UserAgentEvent::RequestFailed { .. }
            | UserAgentEvent::Request { .. }
            | UserAgentEvent::Ack { .. }
            | UserAgentEvent::Cancelled { .. }
            | UserAgentEvent::NoAck { .. }
            | UserAgentEvent::Stopped => {}
        }
    }

    /// A response to REGISTER has come over this flow, so its way is good.
    fn answered(&mut self, now: Instant, flow: FlowId) {
        if let Some(flow) = self.flows.get_mut(&flow)
            && !core::mem::replace(&mut flow.answered, true)
            && let Some(climb) = &flow.climb
        {
            self.ladder.worked(now, climb);
        }
    }

    fn is_unanswered(&self, id: FlowId) -> bool {
        self.flows.get(&id).is_some_and(|flow| !flow.answered)
    }

    /// The user agent gives a flow up: whether its way is to blame.
    fn flow_failed(&mut self, now: Instant, id: FlowId, cause: FlowFailure) {
        if let FlowFailure::Failed(_) = cause {
            self.answered(now, id);
        } else if blames_the_way(cause) && self.is_unanswered(id) {
            self.open_way_failed(now, id, RungFailure::NoAnswer);
        }
    }

    /// A way that was open, and over which no answer has come, has failed. The user agent knows;
    /// its next flow goes on with the next way, and at once.
    fn open_way_failed(&mut self, now: Instant, id: FlowId, cause: RungFailure) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let (reg_id, rung) = (flow.reg_id, flow.attempt().rung);
        let climb = flow.climb.take();
        self.events.push_back(AccessEvent::RungFailed {
            flow: id,
            rung,
            cause,
        });
        let (Some(reg_id), Some(mut climb)) = (reg_id, climb) else {
            return;
        };
        if self.ladder.failed(&mut climb, Fall::Failed).is_some() {
            self.climbs.insert(reg_id, climb);
            self.agent.retry_now(now, reg_id);
        } else {
            self.events.push_back(AccessEvent::Exhausted { flow: id });
        }
    }

    fn open_flow(&mut self, now: Instant, id: FlowId, target: FlowTarget) {
        let reg_id = self.agent.reg_id(id);
        let mut flow = Flow {
            target,
            reg_id,
            climb: None,
            way: Way::None,
            answered: false,
        };
        let resolved = flow.target.address.is_some();
        if !resolved {
            let begun = reg_id.and_then(|reg_id| self.climbs.remove(&reg_id));
            let others = reg_id.is_some() && self.config.agent.proxies.len() > 1;
            let proxy = self.config.proxy.is_some();
            flow.climb = begun.or_else(|| self.ladder.climb(now, self.network, proxy, others));
        }
        let possible = resolved || flow.climb.is_some();
        self.flows.insert(id, flow);
        if possible {
            self.go_on(now, id);
        } else {
            self.exhausted(now, id);
        }
    }

    /// Tries the present way, and if that is impossible the next ones.
    fn go_on(&mut self, now: Instant, id: FlowId) {
        while let Err(cause) = self.try_way(now, id) {
            if !self.fall(id, cause) {
                self.exhausted(now, id);
                return;
            }
        }
    }

    /// What is being opened for a flow, or has carried it, does not work.
    pub(super) fn way_broke(&mut self, now: Instant, id: FlowId, cause: RungFailure) {
        let Some(flow) = self.flows.get(&id) else {
            return;
        };
        let answered = flow.answered;
        match flow.way {
            Way::OpenConn | Way::OpenSocket(..) => {
                self.agent.flow_failed(now, id);
                if !answered {
                    self.open_way_failed(now, id, cause);
                }
            }
            Way::None | Way::Tunnel | Way::Conn | Way::Socket(_) => {
                self.leave_way(now, id);
                if self.fall(id, cause) {
                    self.go_on(now, id);
                } else {
                    self.exhausted(now, id);
                }
            }
        }
    }

    /// Reports a failure; whether there is another way.
    fn fall(&mut self, id: FlowId, cause: RungFailure) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else {
            return false;
        };
        let forbidden = matches!(
            &cause,
            RungFailure::Proxy(TunnelError::Refused(rejection)) if rejection.status == 403
        );
        let fall = if forbidden {
            Fall::Forbidden
        } else {
            Fall::Failed
        };
        let rung = flow.attempt().rung;
        let next = match &mut flow.climb {
            Some(climb) => self.ladder.failed(climb, fall).is_some(),
            None => false,
        };
        self.forget_wrong_credentials(&cause);
        self.events.push_back(AccessEvent::RungFailed {
            flow: id,
            rung,
            cause,
        });
        next
    }

    /// The proxy has rejected user name or password: they are asked for again, not sent again.
    fn forget_wrong_credentials(&mut self, cause: &RungFailure) {
        if let RungFailure::Proxy(TunnelError::Refused(rejection)) = cause
            && rejection.auth == Some(AuthRefusal::WrongCredentials)
            && let Some(proxy) = &mut self.config.proxy
        {
            let _ = proxy.auth.set_credentials(None);
        }
    }

    fn exhausted(&mut self, now: Instant, id: FlowId) {
        self.events.push_back(AccessEvent::Exhausted { flow: id });
        self.agent.flow_failed(now, id);
    }

    /// The user agent is done with a flow.
    fn close_flow(&mut self, now: Instant, id: FlowId) {
        // An answer that says why may be left.
        while self.open_conn(id).is_some() && self.move_out(id) {}
        self.leave_way(now, id);
        self.flows.remove(&id);
    }

    fn leave_way(&mut self, now: Instant, id: FlowId) {
        self.timers.disarm(id);
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        match core::mem::replace(&mut flow.way, Way::None) {
            Way::None | Way::Tunnel => {}
            Way::Conn | Way::OpenConn => {
                self.conns.close(now, id);
                self.pull_actions();
            }
            Way::Socket(socket) | Way::OpenSocket(socket, _) => {
                self.actions.push_back(AccessAction::CloseSocket { socket });
            }
        }
    }
}

/// Whether a way over which nothing was answered yet is bad when this happens.
const fn blames_the_way(cause: FlowFailure) -> bool {
    match cause {
        FlowFailure::TimedOut
        | FlowFailure::KeepAlive
        | FlowFailure::Unsent
        | FlowFailure::Framing(_)
        | FlowFailure::Expired => true,
        // Those are this side's own doing, or say nothing of the way.
        FlowFailure::NotOpened
        | FlowFailure::Insecure
        | FlowFailure::Closed
        | FlowFailure::Failed(_)
        | FlowFailure::Refused(_)
        | FlowFailure::AddressChanged
        | FlowFailure::NetworkChanged => false,
        // Failures of a later version of that crate.
        _ => false,
    }
}
