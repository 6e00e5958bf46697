//! The registrar as the contract checker sees it.

use alloc::vec::Vec;

use http_connect::auth::{ClaimedUser, HashAlgorithm};
use sip_outbound::wire::{Aor, Message, Request, UriBuf};
use sip_outbound::{
    BindingId, FlowId, Instant, KeyAnswer, RegisterStep, Registrar, RegistrarEvent, Targets, Ticket,
};

use crate::contract::Machine;
use crate::sim::Choices;

/// What goes into a registrar.
#[derive(Clone, Debug)]
pub enum RegistrarIn {
    /// A REGISTER, and the flow it came over.
    Register(Option<FlowId>, Request),
    /// What the host knows of a user.
    Key(Ticket, KeyAnswer),
    /// A binding turned out to be dead.
    Drop(BindingId),
    /// A flow of a client is gone.
    FlowClosed(FlowId),
    /// Where do requests for this URI go?
    Find(UriBuf),
}

/// What comes out of a registrar.
#[derive(Clone, Debug)]
pub enum RegistrarOut {
    /// A response.
    Respond(Message),
    /// A key is needed.
    NeedKey(Ticket, ClaimedUser, HashAlgorithm, Aor),
    /// A response to a request whose key was not found in time.
    Late(Ticket, Message),
    /// The ticket is unknown.
    NoTicket,
    /// An event.
    Event(RegistrarEvent),
    /// Where requests go.
    Targets(Option<Targets>),
}

impl PartialEq for RegistrarOut {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Respond(a), Self::Respond(b)) => a.as_bytes() == b.as_bytes(),
            (Self::NeedKey(t, u, h, a), Self::NeedKey(t2, u2, h2, a2)) => {
                (t, u, h, a) == (t2, u2, h2, a2)
            }
            (Self::Late(t, a), Self::Late(t2, b)) => t == t2 && a.as_bytes() == b.as_bytes(),
            (Self::NoTicket, Self::NoTicket) => true,
            (Self::Event(a), Self::Event(b)) => a == b,
            (Self::Targets(a), Self::Targets(b)) => a == b,
            _ => false,
        }
    }
}

/// A registrar.
#[derive(Debug)]
pub struct RegistrarMachine {
    /// The machine.
    pub registrar: Registrar,
    max_total: usize,
}

impl RegistrarMachine {
    /// Around a machine without bindings.
    pub const fn new(registrar: Registrar, max_total: usize) -> Self {
        Self {
            registrar,
            max_total,
        }
    }
}

impl Machine for RegistrarMachine {
    type Input = RegistrarIn;
    type Output = RegistrarOut;

    fn input(&mut self, now: Instant, input: &RegistrarIn, out: &mut Vec<RegistrarOut>) {
        let registrar = &mut self.registrar;
        match input {
            RegistrarIn::Register(flow, request) => {
                out.push(match registrar.handle_register(now, *flow, request) {
                    RegisterStep::Respond(message) => RegistrarOut::Respond(message),
                    RegisterStep::NeedKey {
                        ticket,
                        user,
                        hash,
                        aor,
                    } => RegistrarOut::NeedKey(ticket, user, hash, aor),
                });
            }
            RegistrarIn::Key(ticket, answer) => {
                let message = registrar.key_found(now, *ticket, answer);
                out.push(message.map_or(RegistrarOut::NoTicket, RegistrarOut::Respond));
            }
            RegistrarIn::Drop(binding) => registrar.drop_binding(*binding),
            RegistrarIn::FlowClosed(flow) => registrar.flow_closed(now, *flow),
            RegistrarIn::Find(uri) => {
                out.push(RegistrarOut::Targets(registrar.targets(&uri.as_uri())));
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        self.registrar.handle_timeout(now);
    }

    fn poll(&mut self, _room: usize) -> Option<RegistrarOut> {
        if let Some((ticket, response)) = self.registrar.poll_response() {
            return Some(RegistrarOut::Late(ticket, response));
        }
        self.registrar.poll_event().map(RegistrarOut::Event)
    }

    fn deadline(&self) -> Option<Instant> {
        self.registrar.poll_timeout()
    }

    fn is_silence(output: &RegistrarOut) -> bool {
        matches!(output, RegistrarOut::Targets(_))
    }

    fn noise(&self, choices: &mut Choices) -> Option<RegistrarIn> {
        Some(match choices.below(2) {
            0 => RegistrarIn::FlowClosed(FlowId(u64::MAX)),
            _ => {
                let uri = UriBuf::parse("sip:nobody@example.com").expect("a URI");
                RegistrarIn::Find(uri)
            }
        })
    }

    fn check(&self) {
        let bindings = self.registrar.len();
        assert!(bindings <= self.max_total, "{bindings} bindings");
    }
}
