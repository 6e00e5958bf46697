//! What the status of a response leads to.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::words::class_of;
use super::{ConnectClient, ConnectError, ConnectEvent, Next, Rejection, State, Timer};
use crate::auth::{AuthStep, InfoVerdict};
use crate::wire::{BodyReader, Framing, Head, HeadReader, RetryAfter, StatusLine};

impl ConnectClient {
    pub(super) fn response(&mut self, head: &Head) {
        let Some(line) = StatusLine::parse(head.start_line(), self.config.leniency) else {
            return self.fail(ConnectError::StatusLine);
        };
        match line.status {
            101 => self.fail(ConnectError::Interim),
            100..=199 => {
                self.interim = self.interim.saturating_add(1);
                if self.interim > self.config.max_interim {
                    return self.fail(ConnectError::Interim);
                }
                let reader = HeadReader::new(self.config.limits, self.config.leniency);
                self.state = State::AwaitHead(reader);
            }
            200..=299 => self.established(head, line.status),
            _ => self.refused(head, line),
        }
    }

    fn established(&mut self, head: &Head, status: u16) {
        let token = self.auth.final_token(head.all("Proxy-Authenticate"));
        let info = head.first("Proxy-Authentication-Info");
        if self.auth.accepted(info, b"") == InfoVerdict::Forged {
            return self.fail(ConnectError::ForgedProof);
        }
        self.end(ConnectEvent::Established { status, token });
        self.state = State::Open {
            tunnel_taken: false,
        };
    }

    fn refused(&mut self, head: &Head, line: StatusLine) {
        let (framing, clear) = Framing::of_response(head, line);
        let reusable = clear && persists(head, line.minor);
        let next = match line.status {
            407 => self.challenged(head, reusable, line),
            401 if self.config.unauthorized_is_407 => self.challenged(head, reusable, line),
            408 if !self.timed_out => {
                self.timed_out = true;
                Next::Retry { reusable: false }
            }
            _ => reject(head, line),
        };
        let wanted = match &next {
            Next::Retry { reusable }
            | Next::Token { reusable, .. }
            | Next::Credentials { reusable, .. } => *reusable,
            Next::Reject(_) => true,
        };
        self.timers.disarm(Timer::Exchange);
        let wait = self.config.body_timeout;
        self.timers.arm(Timer::Body, self.clock.now(), wait);
        let body = BodyReader::new(framing, self.config.kept_body);
        let done = body.is_done();
        self.state = State::Draining { body, next };
        // Without a body, what follows is judged when it is looked at.
        if done || !wanted {
            self.drained(done && wanted);
        }
    }

    fn challenged(&mut self, head: &Head, reusable: bool, line: StatusLine) -> Next {
        let step = if line.status == 401 {
            self.auth.challenge(
                head.all("Proxy-Authenticate")
                    .chain(head.all("WWW-Authenticate")),
            )
        } else {
            self.auth.challenge(head.all("Proxy-Authenticate"))
        };
        match step {
            AuthStep::Retry => Next::Retry { reusable },
            AuthStep::NeedToken { scheme, token } => Next::Token {
                reusable,
                scheme,
                token,
            },
            AuthStep::NeedCredentials { realm, scheme } => Next::Credentials {
                reusable,
                realm,
                scheme,
            },
            AuthStep::Refuse(refusal) => {
                let mut next = reject(head, line);
                if let Next::Reject(rejection) = &mut next {
                    rejection.auth = Some(refusal);
                }
                next
            }
        }
    }
}

fn reject(head: &Head, line: StatusLine) -> Next {
    let challenges: Vec<String> = head.all("Proxy-Authenticate").map(String::from).collect();
    let members: Vec<&str> = head.all("Proxy-Status").collect();
    Next::Reject(Box::new(Rejection {
        status: line.status,
        class: class_of(line.status),
        auth: None,
        challenges,
        retry_after: head.first("Retry-After").and_then(RetryAfter::parse),
        proxy_status: (!members.is_empty()).then(|| members.join(", ")),
        body: Vec::new(),
    }))
}

/// Whether the connection goes on behind this response (RFC 9112 section 9.3). What
/// `Proxy-Connection` says counts as well; `close` wins.
fn persists(head: &Head, minor: u8) -> bool {
    let says = |word| head.lists("Connection", word) || head.lists("Proxy-Connection", word);
    !says("close") && (minor >= 1 || says("keep-alive"))
}
