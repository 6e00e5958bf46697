//! From a request to an open tunnel: credentials, policy, resolution, connection.

use core::net::{IpAddr, SocketAddr};

use alloc::boxed::Box;

use smallvec::SmallVec;

use super::addresses::plain;
use super::answer::{Refusal, write_established};
use super::request::Request;
use super::words::ends_with_host;
use super::{
    AuthCheck, AuthVerdict, ConnectServer, ProxyAction, ProxyError, ProxyEvent, Relay, Side, State,
    Ticket, Timer,
};
use crate::wire::is_field_value;
use crate::{Host, Instant};

impl ConnectServer {
    /// First the credentials, then the policy: a stranger learns nothing about it.
    pub(super) fn begin(&mut self, request: Box<Request>) {
        self.record.target = Some(request.target.clone());
        if !self.config.authenticate {
            return self.permit(request);
        }
        let ticket = self.ticket();
        self.actions.push_back(ProxyAction::CheckAuth {
            ticket,
            check: AuthCheck {
                uri: request.uri.clone(),
                authorization: request.authorization.clone(),
                target: request.target.clone(),
            },
        });
        let wait = self.config.limits.auth_timeout;
        self.timers.arm(Timer::Auth, self.clock.now(), wait);
        self.state = State::Auth { ticket, request };
    }

    /// The answer to [`ProxyAction::CheckAuth`].
    pub fn handle_auth(&mut self, now: Instant, ticket: Ticket, verdict: AuthVerdict) {
        self.clock.advance(now);
        if !matches!(self.state, State::Auth { ticket: asked, .. } if asked == ticket) {
            return;
        }
        self.timers.disarm(Timer::Auth);
        match verdict {
            AuthVerdict::Allow { user, info } => {
                if info.as_ref().is_some_and(|info| !is_field_value(info)) {
                    self.refuse(ProxyError::Internal);
                } else if let State::Auth { request, .. } =
                    core::mem::replace(&mut self.state, State::Moving)
                {
                    self.record.user = user;
                    self.info = info;
                    self.permit(request);
                }
            }
            AuthVerdict::Challenge(values) => {
                if values.is_empty() || !values.iter().all(|value| is_field_value(value)) {
                    self.refuse(ProxyError::Internal);
                } else {
                    self.refuse_with(ProxyError::Unauthenticated, &values, None, &[]);
                }
            }
            AuthVerdict::Continue(value) if is_field_value(&value) => self.challenge_again(value),
            AuthVerdict::Continue(_) => self.refuse(ProxyError::Internal),
            AuthVerdict::Forbid => self.refuse(ProxyError::Denied),
        }
        self.progress();
    }

    /// Goes on with a multi-leg handshake, on the same connection if nothing can have slipped in
    /// behind the request.
    fn challenge_again(&mut self, value: alloc::string::String) {
        let State::Auth { request, .. } = &self.state else {
            return;
        };
        let keep = self.to_upstream.is_empty()
            && self.requests < self.config.limits.requests
            && (!request.old || self.config.keep_old_clients);
        let error = ProxyError::Unauthenticated;
        if !keep {
            return self.refuse_with(error, &[value], None, &[]);
        }
        let refusal = Refusal {
            error,
            challenges: &[value],
            retry_after: None,
            proxy_status: None,
            keep: true,
        };
        refusal.write(&mut self.to_client);
        self.record.status = error.status();
        self.await_request();
    }

    /// Checks what can be checked before anybody else is asked.
    fn permit(&mut self, request: Box<Request>) {
        let target = &request.target;
        let hosts = &self.config.hosts;
        let known_host =
            hosts.is_empty() || hosts.iter().any(|end| ends_with_host(target.host(), end));
        if !known_host || !self.config.ports.contains(&target.port()) {
            return self.refuse(ProxyError::Denied);
        }
        if request.has_passed(&self.config.pseudonym) {
            return self.refuse(ProxyError::Loop);
        }
        if let Host::Ip(ip) = target.host()
            && let Err(error) = self.judge_address(*ip, target.port())
        {
            return self.refuse(error);
        }
        if self.config.parent.is_some() {
            return self.connect_parent(request);
        }
        let wait = self.config.limits.connect_timeout;
        self.timers.arm(Timer::Connect, self.clock.now(), wait);
        match target.host() {
            Host::Ip(ip) => {
                let address = SocketAddr::new(*ip, target.port());
                self.connect(request, address, SmallVec::new());
            }
            Host::Name(name) => {
                let name = name.clone();
                let ticket = self.ticket();
                self.actions
                    .push_back(ProxyAction::Resolve { ticket, name });
                self.state = State::Resolve { ticket, request };
            }
        }
    }

    fn judge_address(&self, ip: IpAddr, port: u16) -> Result<(), ProxyError> {
        let own = |at: &SocketAddr| plain(at.ip()) == plain(ip) && at.port() == port;
        if self.config.own_addresses.iter().any(own) {
            return Err(ProxyError::Denied);
        }
        if !self.config.addresses.allows(ip) {
            return Err(ProxyError::AddressProhibited);
        }
        Ok(())
    }

    /// The answer to [`ProxyAction::Resolve`]: the addresses of the name, best first. Those the
    /// policy forbids are left out.
    pub fn handle_resolved(&mut self, now: Instant, ticket: Ticket, addresses: &[IpAddr]) {
        self.clock.advance(now);
        let State::Resolve {
            ticket: asked,
            request,
        } = &self.state
        else {
            return;
        };
        if *asked != ticket {
            return;
        }
        let port = request.target.port();
        let mut refused = ProxyError::Dns { rcode: None };
        let mut allowed: SmallVec<[SocketAddr; 4]> = SmallVec::new();
        for ip in addresses {
            match self.judge_address(*ip, port) {
                Ok(()) if allowed.len() < self.config.limits.addresses => {
                    allowed.push(SocketAddr::new(*ip, port));
                }
                Ok(()) => {}
                Err(error) => refused = error,
            }
        }
        if allowed.is_empty() {
            self.refuse(refused);
        } else if let State::Resolve { request, .. } =
            core::mem::replace(&mut self.state, State::Moving)
        {
            let first = allowed.remove(0);
            let wait = self.config.limits.connect_timeout;
            self.timers.arm(Timer::Connect, self.clock.now(), wait);
            self.connect(request, first, allowed);
        }
        self.progress();
    }

    fn connect(
        &mut self,
        request: Box<Request>,
        address: SocketAddr,
        others: SmallVec<[SocketAddr; 4]>,
    ) {
        let ticket = self.ticket();
        self.upstream = true;
        self.actions
            .push_back(ProxyAction::Connect { ticket, address });
        self.state = State::Connect {
            ticket,
            request,
            address,
            others,
        };
    }

    /// The connection that [`ProxyAction::Connect`] or [`ProxyAction::ConnectParent`] asked for is
    /// there.
    pub fn handle_connected(&mut self, now: Instant, ticket: Ticket) {
        self.clock.advance(now);
        if let State::Connect {
            ticket: asked,
            request,
            address,
            ..
        } = &self.state
            && *asked == ticket
        {
            let event = ProxyEvent::Open {
                target: request.target.clone(),
                address: Some(*address),
                user: self.record.user.clone(),
            };
            self.open(event);
        } else if let State::Parent {
            ticket: asked,
            client,
            connected,
            ..
        } = &mut self.state
            && *asked == ticket
        {
            *connected = true;
            client.handle_connected(now);
            self.timers.disarm(Timer::Connect);
        }
        self.progress();
    }

    /// Answers the client; what it sent ahead is the first to go upstream.
    pub(super) fn open(&mut self, event: ProxyEvent) {
        self.timers.clear();
        let info = self.info.take();
        write_established(info.as_deref(), &mut self.to_client);
        self.record.status = 200;
        self.state = State::Relay(Relay::default());
        self.events.push_back(event);
        self.restart_idle();
    }

    pub(super) fn restart_idle(&mut self) {
        if let Some(wait) = self.config.limits.idle_timeout {
            self.timers.arm(Timer::Idle, self.clock.now(), wait);
        }
    }

    /// What [`ProxyAction::Resolve`], [`ProxyAction::Connect`] or [`ProxyAction::ConnectParent`]
    /// asked for has failed. After a failed connection the next address of the name is tried.
    pub fn handle_failure(&mut self, now: Instant, ticket: Ticket, error: ProxyError) {
        self.clock.advance(now);
        match self.state {
            State::Resolve { ticket: asked, .. } if asked == ticket => self.refuse(error),
            State::Parent { ticket: asked, .. } if asked == ticket => {
                self.upstream = false;
                self.refuse(error);
            }
            State::Connect { ticket: asked, .. } if asked == ticket => {
                self.upstream = false;
                self.connect_next(error);
            }
            State::Resolve { .. }
            | State::Connect { .. }
            | State::Parent { .. }
            | State::Head(_)
            | State::Auth { .. }
            | State::Relay(_)
            | State::Deliver { .. }
            | State::Linger { .. }
            | State::Closed
            | State::Moving => {}
        }
        self.progress();
    }

    fn connect_next(&mut self, error: ProxyError) {
        let State::Connect {
            request,
            mut others,
            ..
        } = core::mem::replace(&mut self.state, State::Moving)
        else {
            return;
        };
        if others.is_empty() {
            return self.refuse(error);
        }
        let next = others.remove(0);
        self.connect(request, next, others);
    }

    /// Forgets a connection attempt to the other side.
    pub(super) fn drop_upstream(&mut self) {
        if self.upstream {
            self.upstream = false;
            self.actions.push_back(ProxyAction::Close(Side::Upstream));
        }
    }
}
