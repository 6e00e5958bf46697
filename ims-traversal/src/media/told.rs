//! What the session tells, with what only this layer knows.

use core::net::SocketAddr;

use ice_proto::{ComponentId, Event, Role, Route, ServerFailure, SessionEvent, Step, Transport};

use super::{ConnStep, Media, MediaEvent, RelayLeg, ServerCause};

impl Media {
    /// Passes an event on. `detail` is why a stream failed, if this is about one.
    pub(super) fn session_event(&mut self, event: SessionEvent, detail: Option<ServerCause>) {
        let event = match event {
            SessionEvent::LocalCandidate { stream, candidate } => {
                MediaEvent::LocalCandidate { stream, candidate }
            }
            SessionEvent::GatheringDone => MediaEvent::Gathered,
            SessionEvent::ServerFailed {
                server,
                transport,
                step,
                cause,
            } => {
                let waited_for = match (step, cause) {
                    (Step::Open, ServerFailure::Timeout) => self.given_up(server, transport),
                    _ => None,
                };
                let cause = match (cause, detail, waited_for) {
                    (ServerFailure::Stream(_), Some(detail), _) => detail,
                    (_, _, Some(step)) => ServerCause::GivenUp(step),
                    (cause, _, None) => cause.into(),
                };
                MediaEvent::ServerFailed {
                    server,
                    transport,
                    step,
                    cause,
                }
            }
            SessionEvent::Ice(event) => return self.ice_event(event),
            SessionEvent::Closed => {
                self.streams.clear();
                self.readable.clear();
                self.conns.close_all(self.clock.now());
                MediaEvent::Closed
            }
            // Nothing to pass on from a later version of that crate.
            _ => return,
        };
        self.events.push_back(event);
    }

    /// What a stream to this server was waiting for when the session gave it up.
    fn given_up(&mut self, server: SocketAddr, transport: Transport) -> Option<ConnStep> {
        let mut all = self.given_up.iter();
        let at = all.position(|(leg, _)| leg.server == server && leg.transport == transport)?;
        self.given_up.remove(at).map(|(_, step)| step)
    }

    fn ice_event(&mut self, event: Event) {
        let event = match event {
            Event::Selected {
                component,
                local,
                remote,
                rtt,
                route,
                ..
            } => {
                self.ears.open(self.clock.now(), component);
                MediaEvent::Selected {
                    component,
                    local,
                    remote,
                    relay: self.leg(route),
                    rtt,
                }
            }
            Event::Completed { .. } => {
                self.events.push_back(MediaEvent::Completed);
                if !self.is_offer_due() {
                    return;
                }
                MediaEvent::OfferDue
            }
            Event::RouteLost {
                component, cause, ..
            } => MediaEvent::RouteLost { component, cause },
            Event::KeepAliveDue { component } => MediaEvent::KeepAliveDue { component },
            Event::Failed { cause, .. } => MediaEvent::Failed(cause),
            other @ (Event::LocalReflexive { .. }
            | Event::StreamFailed { .. }
            | Event::RoleChanged(_)
            | Event::NominationFailed { .. }
            | Event::ExchangeNeeded
            | _) => MediaEvent::Ice(other),
        };
        self.events.push_back(event);
    }

    /// How the relay of a route is reached.
    fn leg(&self, route: Route) -> Option<RelayLeg> {
        let Route::Relay { relay, .. } = route else {
            return None;
        };
        let (server, transport) = self.session.relay_server(relay)?;
        Some(RelayLeg {
            server,
            transport,
            via_proxy: transport != Transport::Udp && self.config.proxy.is_some(),
        })
    }

    /// Whether some default address in this side's description is not the selected one, and the
    /// other side needs to be told.
    fn is_offer_due(&self) -> bool {
        let agent = self.session.agent();
        let old = agent.remote().is_some_and(|remote| !remote.ice2);
        if !old || agent.role() != Role::Controlling {
            return false;
        }
        let streams = (0_u16..).zip(&self.config.session.agent.components);
        let mut all = streams.flat_map(|(stream, _)| {
            (1..=agent.component_count(stream))
                .map(move |component| ComponentId { stream, component })
        });
        all.any(|component| {
            let said = agent.default_candidate(component).map(|said| said.addr);
            let used = agent.selected(component).map(|(local, _)| local.addr);
            used.is_some() && used != said
        })
    }
}
