//! A peer's host.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;

use ice_proto::{
    Candidate, ComponentId, Event, FiveTuple, Remote, Role, Session, SessionAction, SessionConfig,
    SessionEvent, StreamFailure, StreamId, Transport, TurnServer,
};
use stun_proto::Path;
use stun_proto::auth::Credentials;

use super::model::Reach;
use super::session::{Command, SessionIn, SessionMachine, SessionOut};
use crate::contract::Checked;
use crate::sim::{Arrival, ConnectFailure, End, HostId, Net, Outbox};
use crate::turn::node::{SERVER, TCP_PORT, UDP_PORT, ip};

pub(super) const COMPONENT: ComponentId = ComponentId {
    stream: 0,
    component: 1,
};

/// What is told over signalling, in order.
#[derive(Clone, Debug)]
pub(super) enum Signal {
    /// A new description.
    Offer(Remote),
    Answer(Remote),
    Candidate(Candidate),
    Done,
}

/// How a peer reaches its TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relay {
    None,
    Udp,
    Tcp,
}

pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) host: HostId,
    pub(super) local: SocketAddr,
    pub(super) reach: Reach,
    /// UDP leaves the site.
    pub(super) udp: bool,
    pub(super) relay: Relay,
    pub(super) machine: Checked<SessionMachine>,
    pub(super) outbox: Outbox,
    pub(super) streams: BTreeMap<StreamId, End>,
    /// Local candidates wait for the description they belong to.
    pub(super) described: bool,
    pub(super) unsent: Vec<Signal>,
    pub(super) outbound: Vec<Signal>,
    pub(super) completed: bool,
    pub(super) failed: bool,
    pub(super) relayed_route: bool,
    pub(super) got: Vec<Vec<u8>>,
}

impl Peer {
    pub(super) fn remote(&self) -> Remote {
        let agent = self.machine.machine().0.agent();
        Remote {
            credentials: agent.local_credentials().clone(),
            lite: false,
            ice2: true,
            pacing: None,
        }
    }

    pub(super) fn input(&mut self, net: &mut Net, input: SessionIn) {
        let outputs = self.machine.input(net.now(), input);
        self.outputs(net, outputs);
    }

    pub(super) fn command(&mut self, net: &mut Net, command: Command) {
        self.input(net, SessionIn::Command(command));
    }

    pub(super) fn outputs(&mut self, net: &mut Net, outputs: Vec<SessionOut>) {
        for output in outputs {
            match output {
                SessionOut::Transmit(Path::Datagram(at), data) => {
                    net.send(self.host, at.local, at.remote, &data);
                }
                SessionOut::Transmit(Path::Stream(id), data) => {
                    if let Some(end) = self.streams.get(&id) {
                        self.outbox.write(net, *end, &data);
                    }
                }
                SessionOut::Action(action) => {
                    net.note(self.host, || format!("{action:?}"));
                    self.action(net, action);
                }
                SessionOut::Event(event) => {
                    net.note(self.host, || format!("{event:?}"));
                    self.event(event);
                }
                SessionOut::Data(_, data) => {
                    net.note(self.host, || {
                        format!("data {:02x?}", &data[..data.len().min(24)])
                    });
                    self.got.push(data);
                }
                SessionOut::NotMine => {}
                SessionOut::Refused(why) => net.note(self.host, || format!("refused: {why}")),
            }
        }
    }

    pub(super) fn action(&mut self, net: &mut Net, action: SessionAction) {
        match action {
            SessionAction::OpenStream { id, remote, .. } => {
                let end = net.connect(self.host, self.local.ip(), remote);
                self.streams.insert(id, end);
            }
            SessionAction::CloseStream { id } => {
                if let Some(end) = self.streams.remove(&id) {
                    self.outbox.close(net, end);
                }
            }
            SessionAction::OpenSocket { relay, local } => {
                let at = SocketAddr::new(local, net.free_port(self.host));
                net.bind(self.host, at);
                self.input(net, SessionIn::SocketOpened(relay, at));
            }
            SessionAction::CloseSocket { local } => net.unbind(self.host, local),
            _ => {}
        }
    }

    pub(super) fn event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::LocalCandidate { candidate, .. } => {
                self.unsent.push(Signal::Candidate(candidate));
            }
            SessionEvent::GatheringDone => self.unsent.push(Signal::Done),
            SessionEvent::Ice(Event::Completed { .. }) => self.completed = true,
            SessionEvent::Ice(Event::Failed { .. }) => self.failed = true,
            SessionEvent::Ice(Event::RouteLost { .. }) => self.completed = false,
            SessionEvent::Ice(Event::Selected { route, .. }) => {
                self.relayed_route = matches!(route, ice_proto::Route::Relay { .. });
            }
            _ => {}
        }
        if self.described {
            self.outbound.append(&mut self.unsent);
        }
    }

    /// Begins, or begins again.
    pub(super) fn describe(&mut self, net: &mut Net, offer: bool) {
        self.described = true;
        self.completed = false;
        self.failed = false;
        let remote = self.remote();
        self.outbound.push(if offer {
            Signal::Offer(remote)
        } else {
            Signal::Answer(remote)
        });
        self.outbound.append(&mut self.unsent);
        self.command(net, Command::Gather);
    }

    pub(super) fn restart(&mut self, net: &mut Net) {
        self.unsent.clear();
        self.outbound.clear();
        self.described = false;
        self.command(net, Command::Restart);
    }

    /// A new session on a new socket, for when servers have forgotten the old one.
    pub(super) fn renew(&mut self, net: &mut Net) {
        net.unbind(self.host, self.local);
        for end in core::mem::take(&mut self.streams).into_values() {
            self.outbox.forget(end);
            net.close(end);
        }
        let fresh = session(net, self.name, self.relay);
        let old = core::mem::replace(&mut self.machine, fresh);
        let mut choices = net.choices().fork();
        old.finish(&mut choices);
        self.unsent.clear();
        self.outbound.clear();
        self.described = false;
        self.local.set_port(self.local.port() + 1);
        net.bind(self.host, self.local);
        self.command(net, Command::AddHost(COMPONENT, self.local));
    }

    pub(super) fn signal(&mut self, net: &mut Net, signal: Signal) {
        match signal {
            Signal::Offer(remote) => {
                if self.described {
                    self.restart(net);
                }
                self.describe(net, false);
                self.command(net, Command::SetRemote(remote));
            }
            Signal::Answer(remote) => {
                self.command(net, Command::SetRemote(remote));
            }
            Signal::Candidate(candidate) => self.command(net, Command::AddRemote(0, candidate)),
            Signal::Done => self.command(net, Command::EndOfRemote),
        }
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        let id_of = |end: End| {
            let found = self.streams.iter().find(|(_, known)| **known == end);
            found.map(|(id, _)| *id)
        };
        match arrival {
            Arrival::Datagram {
                local,
                remote,
                data,
            } => self.input(
                net,
                SessionIn::Datagram(FiveTuple::udp(local, remote), data),
            ),
            Arrival::Unreachable { local, remote } => {
                self.input(net, SessionIn::Icmp(FiveTuple::udp(local, remote)));
            }
            Arrival::Connected { end, local } => {
                if let Some(id) = id_of(end) {
                    self.input(net, SessionIn::StreamOpened(id, local));
                } else {
                    net.close(end);
                }
            }
            Arrival::ConnectFailed { end, why } => {
                if let Some(id) = id_of(end) {
                    self.streams.remove(&id);
                    let why = match why {
                        ConnectFailure::Refused => StreamFailure::Refused,
                        ConnectFailure::TimedOut => StreamFailure::Timeout,
                    };
                    self.input(net, SessionIn::StreamFailed(id, why));
                }
            }
            Arrival::Bytes { end, data } => {
                if let Some(id) = id_of(end) {
                    self.input(net, SessionIn::Stream(id, data));
                }
            }
            Arrival::Eof { end } | Arrival::Reset { end } => {
                let id = id_of(end);
                self.outbox.forget(end);
                net.close(end);
                if let Some(id) = id {
                    self.streams.remove(&id);
                    self.input(net, SessionIn::StreamClosed(id));
                }
            }
            Arrival::Writable { end } => self.outbox.flush(net, end),
            Arrival::Accepted { .. } | Arrival::Alarm(_) => {}
        }
    }
}

/// A session without addresses.
pub(super) fn session(net: &mut Net, name: &'static str, relay: Relay) -> Checked<SessionMachine> {
    let seed = net.choices().machine_seed();
    let now = net.now();
    Checked::new(name, now, move || {
        let role = if name == "alice" {
            Role::Controlling
        } else {
            Role::Controlled
        };
        let mut config = SessionConfig::new(role);
        config
            .stun_servers
            .push(SocketAddr::new(ip(SERVER), UDP_PORT));
        let transport = match relay {
            Relay::None => None,
            Relay::Udp => Some((Transport::Udp, UDP_PORT)),
            Relay::Tcp => Some((Transport::Tcp, TCP_PORT)),
        };
        if let Some((transport, port)) = transport {
            config.turn_servers.push(TurnServer {
                addr: SocketAddr::new(ip(SERVER), port),
                transport,
                credentials: Credentials::new("alice", "secret"),
                server_name: None,
                family: None,
            });
        }
        SessionMachine(Session::new(config, seed, now))
    })
}
