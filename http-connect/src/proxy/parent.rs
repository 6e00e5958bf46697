//! Passing a request on to another proxy.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::request::Request;
use super::{ConnectServer, ProxyAction, ProxyError, ProxyEvent, State, Ticket, Timer};
use crate::{
    ConnectClient, ConnectConfig, ConnectError, ConnectEvent, HeadError, Instant, Rejection,
};

impl ConnectServer {
    pub(super) fn connect_parent(&mut self, request: Box<Request>) {
        let Some(parent) = &self.config.parent else {
            return self.refuse(ProxyError::Internal);
        };
        let config = ConnectConfig {
            fields: request.forwarded_fields(&self.config.pseudonym),
            limits: self.config.limits.head,
            leniency: parent.leniency,
            exchange_timeout: parent.timeout,
            total_timeout: parent.timeout,
            ..ConnectConfig::default()
        };
        let passed_on = request.authorization.clone();
        let passed_on = passed_on.filter(|_| parent.share_credentials);
        let (target, auth) = (request.target.clone(), parent.auth.clone());
        let seed = self.rng.fork();
        let client = ConnectClient::new(target, config, auth, seed, self.clock.now());
        let Ok(mut client) = client else {
            return self.refuse(ProxyError::Internal);
        };
        client.pass_on(passed_on);
        let ticket = self.ask_for_parent();
        self.state = State::Parent {
            ticket,
            request,
            client: Box::new(client),
            connected: false,
        };
    }

    fn ask_for_parent(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.upstream = true;
        let wait = self.config.limits.connect_timeout;
        self.timers.arm(Timer::Connect, self.clock.now(), wait);
        self.actions
            .push_back(ProxyAction::ConnectParent { ticket });
        ticket
    }

    /// Takes in bytes of the parent; how many.
    pub(super) fn parent_input(&mut self, input: &[u8]) -> usize {
        let State::Parent {
            client, connected, ..
        } = &mut self.state
        else {
            return 0;
        };
        if !*connected {
            return 0;
        }
        let rest = client.handle_input(self.clock.now(), input);
        self.parent_events();
        if !matches!(self.state, State::Relay(_)) {
            return input.len();
        }
        // Behind the 2xx, which is in the queue already.
        let queued = self.to_client.push(rest, self.config.limits.relay);
        self.record.down = self.record.down.saturating_add(queued as u64);
        let left = rest.len().saturating_sub(queued);
        input.len().saturating_sub(left)
    }

    pub(super) fn parent_eof(&mut self) {
        if let State::Parent { client, .. } = &mut self.state {
            client.handle_eof(self.clock.now());
            self.parent_events();
        }
    }

    pub(super) fn parent_timeout(&mut self) {
        if let State::Parent { client, .. } = &mut self.state {
            client.handle_timeout(self.clock.now());
            self.parent_events();
        }
    }

    pub(super) fn parent_deadline(&self) -> Option<Instant> {
        if let State::Parent { client, .. } = &self.state {
            client.poll_timeout()
        } else {
            None
        }
    }

    fn parent_events(&mut self) {
        while let State::Parent { client, .. } = &mut self.state
            && let Some(event) = client.poll_event()
        {
            match event {
                ConnectEvent::Established { .. } => self.parent_established(),
                ConnectEvent::Reconnect => self.parent_reconnect(),
                // The host of a proxy is not asked about its parent.
                ConnectEvent::NeedToken { .. } | ConnectEvent::NeedCredentials { .. } => {
                    self.refuse(ProxyError::HttpProtocol {
                        received: Some(407),
                    });
                }
                ConnectEvent::Rejected(rejection) => self.parent_rejected(rejection),
                ConnectEvent::Failed(error) => self.refuse(parent_error(error)),
            }
        }
    }

    fn parent_established(&mut self) {
        if let State::Parent { request, .. } = &self.state {
            let target = request.target.clone();
            let user = self.record.user.clone();
            self.open(ProxyEvent::Open {
                target,
                address: None,
                user,
            });
        }
    }

    fn parent_reconnect(&mut self) {
        self.drop_upstream();
        self.eof = [false; 2];
        let new = self.ask_for_parent();
        if let State::Parent {
            ticket, connected, ..
        } = &mut self.state
        {
            *ticket = new;
            *connected = false;
        }
    }

    fn parent_rejected(&mut self, rejection: Rejection) {
        let shared = self
            .config
            .parent
            .as_ref()
            .is_some_and(|parent| parent.share_credentials);
        if shared && rejection.status == 407 && !rejection.challenges.is_empty() {
            let error = ProxyError::Unauthenticated;
            return self.refuse_with(error, &rejection.challenges, None, &[]);
        }
        let error = ProxyError::HttpProtocol {
            received: Some(rejection.status),
        };
        let members: Vec<String> = rejection.proxy_status.into_iter().collect();
        self.refuse_with(error, &[], None, &members);
    }
}

/// What the client of this proxy is told about a parent that does not answer as it should.
const fn parent_error(error: ConnectError) -> ProxyError {
    match error {
        ConnectError::ProxyClosed
        | ConnectError::AuthConnectionLost
        | ConnectError::TooManyConnections => ProxyError::ConnectionTerminated,
        ConnectError::Timeout => ProxyError::ReadTimeout,
        ConnectError::Head(HeadError::TooLarge | HeadError::StartLineTooLong) => {
            ProxyError::ResponseTooLarge
        }
        ConnectError::Head(_)
        | ConnectError::StatusLine
        | ConnectError::Interim
        | ConnectError::PeerSpeaksTls
        | ConnectError::ForgedProof => ProxyError::HttpProtocol { received: None },
    }
}
