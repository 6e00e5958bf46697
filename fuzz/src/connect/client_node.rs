//! The client's host: one tunnel after the other.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use http_connect::auth::{Allow, ClientAuth, Credentials, Policy};
use http_connect::{ConnectClient, ConnectConfig, ConnectEvent};

use super::client::{ClientIn, ClientMachine, ClientOut};
use super::proxy_node::{NAMES, PROXY, TARGET, at};
use crate::contract::Checked;
use crate::sim::{Arrival, End, HostId, Net, Outbox};

/// The client's host: one tunnel after the other.
pub(super) struct ClientNode {
    pub(super) host: HostId,
    pub(super) ip: IpAddr,
    pub(super) machine: Option<Checked<ClientMachine>>,
    pub(super) end: Option<End>,
    pub(super) outbox: Outbox,
    pub(super) established: bool,
    /// What the application sent into the tunnel, and what came out of it.
    pub(super) sent: Vec<u8>,
    pub(super) got: Vec<u8>,
    /// What it still wants to send.
    pub(super) payload: Vec<u8>,
    pub(super) healed: bool,
    pub(super) finished: bool,
}

impl ClientNode {
    pub(super) fn start(&mut self, net: &mut Net) {
        let now = net.now();
        let seed = net.choices().machine_seed();
        let odd = if self.healed {
            0
        } else {
            net.choices().below(8)
        };
        let target = match odd {
            1 => format!("{}:443", NAMES[1]),
            2 => format!("{}:25", NAMES[0]),
            3 => TARGET.to_string(),
            _ => format!("{}:443", NAMES[0]),
        };
        let config = ConnectConfig {
            expect_tls: net.choices().chance(200),
            proxy_connection: net.choices().flip(),
            ..ConnectConfig::default()
        };
        let wrong = odd == 4;
        self.machine = Some(Checked::new("client", now, move || {
            let password = if wrong { "wrong" } else { "secret" };
            let policy = Policy {
                basic: Allow::Always,
                ntlm: Allow::Always,
                ..Policy::default()
            };
            let auth = ClientAuth::new(Some(Credentials::new("alice", password)), policy);
            let target = target.parse().expect("a target");
            let client = ConnectClient::new(target, config.clone(), auth, seed, now);
            ClientMachine(client.expect("no odd fields"))
        }));
        self.established = false;
        self.sent.clear();
        self.got.clear();
        let len = *net.choices().pick(&[0, 1, 100, 5000, 40_000]);
        let mut payload = net.choices().fork().bytes(len);
        if let Some(first) = payload.first_mut() {
            *first = 0x16;
        }
        self.payload = payload;
        self.end = Some(net.connect(self.host, self.ip, at(PROXY)));
    }

    pub(super) fn input(&mut self, net: &mut Net, input: ClientIn) {
        let now = net.now();
        if let Some(machine) = &mut self.machine {
            let outputs = machine.input(now, input);
            self.outputs(net, outputs);
        }
    }

    pub(super) fn outputs(&mut self, net: &mut Net, outputs: Vec<ClientOut>) {
        for output in outputs {
            match output {
                ClientOut::Transmit(data) => {
                    let end = self.end.expect("a connection to write to");
                    self.outbox.write(net, end, &data);
                }
                ClientOut::Tunnel(data) => self.got.extend_from_slice(&data),
                ClientOut::Event(event) => {
                    net.note(self.host, || format!("{event:?}"));
                    self.event(net, event);
                }
            }
        }
    }

    pub(super) fn event(&mut self, net: &mut Net, event: ConnectEvent) {
        match event {
            ConnectEvent::Established { .. } => {
                self.established = true;
                let end = self.end.expect("a connection");
                let payload = self.payload.clone();
                self.sent = payload;
                self.outbox.write(net, end, &self.payload);
            }
            ConnectEvent::Reconnect => {
                self.drop_end(net);
                self.end = Some(net.connect(self.host, self.ip, at(PROXY)));
            }
            ConnectEvent::NeedToken { token, .. } => {
                let leg = if token.is_none() {
                    "bGVnMQ=="
                } else {
                    "bGVnMw=="
                };
                self.input(net, ClientIn::Token(Some(leg.to_owned())));
            }
            ConnectEvent::Rejected(_) | ConnectEvent::Failed(_) => self.stop(net),
            _ => {}
        }
    }

    pub(super) fn drop_end(&mut self, net: &mut Net) {
        if let Some(end) = self.end.take() {
            self.outbox.forget(end);
            net.close(end);
        }
    }

    /// The attempt, or the tunnel, is over.
    pub(super) fn stop(&mut self, net: &mut Net) {
        self.drop_end(net);
        self.established = false;
        if let Some(machine) = self.machine.take() {
            let mut choices = net.choices().fork();
            machine.finish(&mut choices);
        }
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        let is = |end: &End| self.end == Some(*end);
        match arrival {
            Arrival::Connected { end, .. } if is(&end) => self.input(net, ClientIn::Connected),
            Arrival::ConnectFailed { end, .. } if is(&end) => self.stop(net),
            Arrival::Bytes { end, data } if is(&end) => self.input(net, ClientIn::Bytes(data)),
            Arrival::Eof { end } | Arrival::Reset { end } if is(&end) => {
                self.input(net, ClientIn::Eof);
                if self.established {
                    self.stop(net);
                }
            }
            Arrival::Writable { end } => self.outbox.flush(net, end),
            Arrival::Alarm(_) => {
                if self.machine.is_none() && !self.finished {
                    self.start(net);
                } else if !self.healed && net.choices().chance(50) {
                    self.stop(net);
                }
                let most = if self.healed { 1 } else { 30 };
                let wait = net.choices().duration(Duration::from_secs(most));
                net.alarm(self.host, wait, 0);
            }
            Arrival::Datagram { .. }
            | Arrival::Unreachable { .. }
            | Arrival::Accepted { .. }
            | Arrival::Connected { .. }
            | Arrival::ConnectFailed { .. }
            | Arrival::Bytes { .. }
            | Arrival::Eof { .. }
            | Arrival::Reset { .. } => {}
        }
    }
}
