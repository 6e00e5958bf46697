//! The ways themselves: connections, sockets, the host's tunnel.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;
use sip_outbound::FlowId;
use sip_outbound::wire::UriBuf;
use stun_proto::{FiveTuple, Instant, Transport};

use super::climb::Way;
use super::{Access, AccessAction, AccessEvent, AccessSocket, Endpoint, RungFailure};
use crate::conns::{ConnEvent, ConnId, ConnPlan};
use crate::ladder::{Attempt, Rung};
#[cfg(feature = "tls")]
use crate::tunnel::Tls;

impl Access {
    /// Begins with the present way of a flow.
    pub(super) fn try_way(&mut self, now: Instant, id: FlowId) -> Result<(), RungFailure> {
        let Some(flow) = self.flows.get(&id) else {
            return Ok(());
        };
        let Attempt { rung, other } = flow.attempt();
        if other && let Some(uri) = self.other_than(id) {
            self.agent.redirect_flow(id, uri.clone());
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.target.uri = uri;
            }
        }
        let Some(flow) = self.flows.get(&id) else {
            return Ok(());
        };
        self.events.push_back(AccessEvent::Trying {
            flow: id,
            rung,
            target: flow.target.uri.clone(),
        });
        if flow.target.needs_tls() && !rung.transport().is_secure() {
            return Err(RungFailure::Insecure);
        }
        match rung {
            Rung::Ordinary(transport) => self.dial(now, id, transport),
            Rung::Direct | Rung::Connect => {
                let to = endpoint(&flow.target.uri, self.config.tls_port);
                self.dial_tcp(now, id, to, Transport::Tls, rung == Rung::Connect)
            }
            Rung::Tunnel(_) => {
                self.set_way(id, Way::Tunnel);
                self.timers.arm(id, now, self.config.tunnel_timeout);
                self.actions
                    .push_back(AccessAction::OpenTunnel { flow: id });
                Ok(())
            }
        }
    }

    /// A P-CSCF other than the one of this flow, rather one that no flow uses.
    fn other_than(&self, id: FlowId) -> Option<UriBuf> {
        let own = &self.flows.get(&id)?.target.uri;
        let used = |uri: &UriBuf| self.flows.values().any(|flow| flow.target.uri == *uri);
        let others = || self.config.agent.proxies.iter().filter(|uri| *uri != own);
        others()
            .find(|uri| !used(uri))
            .or_else(|| others().next())
            .cloned()
    }

    /// Ordinary access to the P-CSCF's own port.
    fn dial(&mut self, now: Instant, id: FlowId, by: Transport) -> Result<(), RungFailure> {
        let Some(flow) = self.flows.get(&id) else {
            return Ok(());
        };
        let to = match flow.target.address {
            Some((_, address)) => Endpoint::Addr(address),
            None => {
                let uri = flow.target.uri.as_uri();
                let usual = if by.is_secure() { 5061 } else { 5060 };
                endpoint(&flow.target.uri, uri.port().unwrap_or(usual))
            }
        };
        match by {
            Transport::Tcp | Transport::Tls => self.dial_tcp(now, id, to, by, false),
            // There is no DTLS here.
            Transport::Dtls => Err(RungFailure::Insecure),
            Transport::Udp => {
                let socket = AccessSocket(self.next_socket);
                self.next_socket = self.next_socket.saturating_add(1);
                self.set_way(id, Way::Socket(socket));
                self.timers.arm(id, now, self.config.socket_timeout);
                self.actions
                    .push_back(AccessAction::OpenSocket { socket, to });
                Ok(())
            }
        }
    }

    fn dial_tcp(
        &mut self,
        now: Instant,
        id: FlowId,
        to: Endpoint,
        by: Transport,
        via_proxy: bool,
    ) -> Result<(), RungFailure> {
        #[cfg(feature = "tls")]
        let tls = if by.is_secure() {
            let host = self
                .flows
                .get(&id)
                .map(|flow| endpoint(&flow.target.uri, 0).host());
            let name = host.and_then(|host| ServerName::try_from(host).ok());
            Some(Tls::Client {
                config: self.config.tls.clone(),
                name: name.ok_or(RungFailure::Insecure)?,
            })
        } else {
            None
        };
        #[cfg(not(feature = "tls"))]
        if by.is_secure() {
            return Err(RungFailure::Insecure);
        }
        let plan = ConnPlan {
            to,
            via: self.config.proxy.as_ref().filter(|_| via_proxy),
            #[cfg(feature = "tls")]
            tls,
        };
        self.conns.open(now, id, plan).map_err(RungFailure::Plan)?;
        self.set_way(id, Way::Conn);
        Ok(())
    }

    fn set_way(&mut self, id: FlowId, way: Way) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.way = way;
        }
    }

    pub(super) fn tunnel_ready(&mut self, now: Instant, id: FlowId) {
        if !matches!(self.way(id), Some(Way::Tunnel)) {
            return;
        }
        self.timers.disarm(id);
        let rung = self.flows.get(&id).map(|flow| flow.attempt().rung);
        let Some(Rung::Tunnel(transport)) = rung else {
            return;
        };
        if let Err(cause) = self.dial(now, id, transport) {
            self.way_broke(now, id, cause);
        }
    }

    pub(super) fn socket_ready(&mut self, now: Instant, socket: AccessSocket, at: FiveTuple) {
        let Some(id) = self.flow_of_socket(socket) else {
            return;
        };
        if matches!(self.way(id), Some(Way::Socket(_))) {
            self.timers.disarm(id);
            self.set_way(id, Way::OpenSocket(socket, at));
            self.ready(now, id, at, None);
        }
    }

    /// A way is open: the user agent may use it.
    fn ready(&mut self, now: Instant, id: FlowId, at: FiveTuple, alpn: Option<Vec<u8>>) {
        let Some(flow) = self.flows.get(&id) else {
            return;
        };
        let rung = flow.attempt().rung;
        let via_proxy = rung == Rung::Connect;
        let cap = match rung {
            Rung::Connect => Some(self.config.keep_alive_proxy),
            Rung::Direct | Rung::Tunnel(_) => Some(self.config.keep_alive_443),
            Rung::Ordinary(_) => None,
        };
        let names = if at.transport.is_secure() {
            [String::from(flow.target.verify_name())].into()
        } else {
            Vec::new()
        };
        self.events.push_back(AccessEvent::Ready {
            flow: id,
            rung,
            via_proxy,
            alpn,
        });
        if let Some(cap) = cap {
            self.agent.limit_keep_alive(id, cap);
        }
        self.agent.flow_opened(now, id, at, names);
    }

    pub(super) fn conn_event(&mut self, now: Instant, id: FlowId, event: ConnEvent) {
        // What the connection wants of the host comes before what follows from its end.
        self.pull_actions();
        match event {
            ConnEvent::Proxied => {
                let learned = self.conns.take_auth(id);
                if let (Some((endpoint, auth)), Some(proxy)) = (learned, &mut self.config.proxy)
                    && endpoint == proxy.endpoint
                {
                    proxy.auth = auth;
                }
            }
            ConnEvent::Ready {
                local,
                remote,
                alpn,
            } => {
                let Some(flow) = self.flows.get_mut(&id) else {
                    return;
                };
                flow.way = Way::OpenConn;
                let at = FiveTuple {
                    transport: flow.attempt().rung.transport(),
                    local,
                    remote,
                };
                self.ready(now, id, at, alpn);
            }
            ConnEvent::NeedCredentials { realm, scheme } => {
                self.events.push_back(AccessEvent::ProxyCredentials {
                    flow: id,
                    realm,
                    scheme,
                });
            }
            ConnEvent::NeedToken { scheme, token } => {
                self.events.push_back(AccessEvent::ProxyToken {
                    flow: id,
                    scheme,
                    token,
                });
            }
            ConnEvent::Closed => {
                self.read_last(now, id);
                self.way_broke(now, id, RungFailure::Closed);
            }
            ConnEvent::Failed(error) => {
                self.read_last(now, id);
                self.way_broke(now, id, error.into());
            }
        }
    }

    pub(super) fn pull_actions(&mut self) {
        while let Some(action) = self.conns.poll_action() {
            self.actions.push_back(action.into());
        }
    }

    /// Gives the user agent the bytes that have come.
    pub(super) fn read(&mut self, now: Instant, id: FlowId) {
        if self.open_conn(id).is_none() {
            return;
        }
        let data = self.conns.received(id);
        let len = data.len();
        if len > 0 {
            self.agent.handle_flow_input(now, id, data);
            self.conns.consume(id, len);
        }
    }

    /// The same before its connection is given up. What the user agent makes of the last words
    /// comes first: it may have got its answer, or be done with the flow.
    fn read_last(&mut self, now: Instant, id: FlowId) {
        self.read(now, id);
        self.settle_agent(now);
    }

    pub(super) fn way(&self, id: FlowId) -> Option<Way> {
        self.flows.get(&id).map(|flow| flow.way)
    }

    /// The connection that carries a flow.
    pub(super) fn open_conn(&self, id: FlowId) -> Option<ConnId> {
        match self.way(id)? {
            Way::OpenConn => self.conns.id(id),
            Way::None | Way::Tunnel | Way::Conn | Way::Socket(_) | Way::OpenSocket(..) => None,
        }
    }

    /// Where the datagrams of a flow go.
    pub(super) fn open_socket(&self, id: FlowId) -> Option<FiveTuple> {
        match self.way(id)? {
            Way::OpenSocket(_, at) => Some(at),
            Way::None | Way::Tunnel | Way::Conn | Way::OpenConn | Way::Socket(_) => None,
        }
    }

    pub(super) fn flow_at(&self, at: FiveTuple) -> Option<FlowId> {
        let mut flows = self.flows.keys().copied();
        flows.find(|id| self.open_socket(*id) == Some(at))
    }

    pub(super) fn flow_of_socket(&self, socket: AccessSocket) -> Option<FlowId> {
        let found = self.flows.iter().find(|(_, flow)| match flow.way {
            Way::Socket(own) | Way::OpenSocket(own, _) => own == socket,
            Way::None | Way::Tunnel | Way::Conn | Way::OpenConn => false,
        });
        found.map(|(id, _)| *id)
    }
}

/// The host of a URI, at this port.
fn endpoint(uri: &UriBuf, port: u16) -> Endpoint {
    let uri = uri.as_uri();
    match uri.host_ip() {
        Some(ip) => Endpoint::Addr((ip, port).into()),
        None => Endpoint::Name {
            host: uri.host().to_string(),
            port,
        },
    }
}
