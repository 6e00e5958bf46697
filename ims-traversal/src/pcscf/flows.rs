//! Between the connections, the edge proxy and the home network.

use sip_outbound::wire::SipUri;
use sip_outbound::{EdgeEvent, FlowAction, FlowTarget, RegistrarEvent};

use super::home::Question;
use super::*;

/// The other end of a stream of memory.
const INSIDE: SocketAddr =
    SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 5060);

impl Pcscf {
    /// A tunnel has got something: takes in what it says and what came through it.
    pub(super) fn process(&mut self, now: Instant, id: ConnId) {
        let (mut closed, mut failed) = (false, None);
        while let Some(event) = self
            .conns
            .get_mut(&id)
            .and_then(|conn| conn.tunnel.poll_event())
        {
            match event {
                TunnelEvent::Ready { alpn } => self.became_ready(now, id, alpn),
                TunnelEvent::Closed => closed = true,
                TunnelEvent::Failed(error) => failed = Some(error),
                // There is no proxy in front of an accepted connection.
                TunnelEvent::Connected
                | TunnelEvent::Reconnect
                | TunnelEvent::NeedToken { .. }
                | TunnelEvent::NeedCredentials { .. } => {}
            }
        }
        self.deliver(now, id);
        if let Some(error) = failed {
            self.part(now, id, CloseCause::Tunnel(error));
        } else if closed {
            self.lose(now, id, CloseCause::Peer);
        }
        if let Some(conn) = self.conns.get(&id) {
            let deadline = conn.tunnel.poll_timeout();
            self.timers.set(Timer::Tunnel(id), deadline);
        }
        self.mark(id);
        self.settle(now);
    }

    /// Clear bytes can come and go.
    fn became_ready(&mut self, now: Instant, id: ConnId, alpn: Option<Vec<u8>>) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if !matches!(conn.phase, Phase::Handshake) {
            return;
        }
        let name = conn.tunnel.server_name().map(String::from);
        let verdict = match (&alpn, &name) {
            (Some(alpn), _) => Some(first::by_alpn(alpn)),
            (None, Some(name)) => {
                first::by_name(name, &self.config.sip_names, &self.config.http_names)
            }
            (None, None) => None,
        };
        self.events.push_back(PcscfEvent::Ready {
            conn: id,
            alpn,
            name,
        });
        match verdict {
            Some(Verdict::Http) => return self.http(now, id),
            Some(Verdict::Foreign) => return self.part(now, id, CloseCause::Foreign),
            Some(Verdict::Sip) | None => {}
        }
        // Its time without registration starts now, whatever it speaks.
        let Some(flow) = self.edge.flow_accepted(now, conn.at, Side::Access) else {
            return self.part(now, id, CloseCause::Flows);
        };
        conn.phase = match verdict {
            Some(_) => Phase::Sip { flow },
            None => Phase::First { flow },
        };
        self.handshakes = self.handshakes.saturating_sub(1);
        self.owners.insert(flow, Owner::Conn(id));
    }

    fn http(&mut self, now: Instant, id: ConnId) {
        if self.config.http == HttpPolicy::Close {
            return self.part(now, id, CloseCause::Http);
        }
        self.leave_flow(now, id, Phase::Http);
        self.events.push_back(PcscfEvent::Http { conn: id });
    }

    /// Hands over what came through a tunnel.
    fn deliver(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if let Phase::First { flow } = conn.phase {
            match first::by_octets(conn.tunnel.received()) {
                None => return,
                Some(Verdict::Sip) => conn.phase = Phase::Sip { flow },
                Some(Verdict::Http) => return self.http(now, id),
                Some(Verdict::Foreign) => return self.part(now, id, CloseCause::Foreign),
            }
        }
        match conn.phase {
            Phase::Sip { flow } | Phase::Core { flow } => {
                let data = conn.tunnel.received();
                let len = data.len();
                if len > 0 {
                    self.edge.handle_flow_input(now, flow, data);
                    conn.tunnel.consume(len);
                }
            }
            Phase::Closing { .. } => conn.tunnel.consume(usize::MAX),
            // The host takes what it wants.
            Phase::Http => {}
            Phase::Handshake | Phase::First { .. } | Phase::Connecting { .. } => {}
        }
    }

    /// Puts a connection into a phase without a flow.
    fn leave_flow(&mut self, now: Instant, id: ConnId, phase: Phase) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if matches!(conn.phase, Phase::Handshake) {
            self.handshakes = self.handshakes.saturating_sub(1);
        }
        let flow = conn.phase.flow();
        conn.phase = phase;
        if let Some(flow) = flow.filter(|flow| self.owners.remove(flow).is_some()) {
            self.edge.flow_failed(now, flow);
        }
    }

    /// Ends a connection after what waits for it.
    pub(super) fn part(&mut self, now: Instant, id: ConnId, cause: CloseCause) {
        let closing = |conn: &Conn| matches!(conn.phase, Phase::Closing { .. });
        if self.conns.get(&id).is_none_or(closing) {
            return;
        }
        self.timers.disarm(Timer::Connect(id));
        self.timers.disarm(Timer::Leave(id));
        self.timers.arm(Timer::Linger(id), now, self.config.linger);
        let phase = Phase::Closing { cause, said: false };
        self.leave_flow(now, id, phase);
        self.mark(id);
    }

    /// A connection is lost: nothing can be sent any more.
    pub(super) fn lose(&mut self, now: Instant, id: ConnId, cause: CloseCause) {
        self.part(now, id, cause);
        self.finish(id);
    }

    /// Forgets a connection that is closing.
    pub(super) fn finish(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else {
            return;
        };
        if conn.side == Side::Access {
            self.clients = self.clients.saturating_sub(1);
        }
        for timer in [
            Timer::Tunnel(id),
            Timer::Connect(id),
            Timer::Linger(id),
            Timer::Leave(id),
        ] {
            self.timers.disarm(timer);
        }
        let cause = match conn.phase {
            Phase::Closing { cause, .. } => cause,
            Phase::Handshake
            | Phase::First { .. }
            | Phase::Sip { .. }
            | Phase::Http
            | Phase::Connecting { .. }
            | Phase::Core { .. } => CloseCause::Host,
        };
        self.actions.push_back(PcscfAction::Close { conn: id });
        self.events
            .push_back(PcscfEvent::Closed { conn: id, cause });
        self.check_stopped();
    }

    pub(super) fn check_stopped(&mut self) {
        if matches!(self.service, Service::Leaving { .. }) && self.conns.is_empty() {
            self.service = Service::Stopped;
            // Nobody is left to be served.
            self.home = None;
            self.events.push_back(PcscfEvent::Stopped);
        }
    }

    /// Notes that a connection has something to write.
    pub(super) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.queued
            && conn.wants_transmit()
        {
            conn.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Carries everything to where it goes, until nothing moves.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(event) = self.edge.poll_event() {
                idle = false;
                self.edge_event(now, event);
            }
            while let Some(action) = self.edge.poll_action() {
                idle = false;
                match action {
                    FlowAction::OpenFlow { flow, target } => self.open_core(now, flow, &target),
                    // Its event has been seen to.
                    FlowAction::CloseFlow { .. } => {}
                }
            }
            while let Some(flow) = self.next_writable() {
                idle = false;
                self.pull(now, flow);
            }
            while let Some((link, bytes)) =
                self.home.as_mut().and_then(|home| home.poll_transmit(now))
            {
                idle = false;
                self.edge.handle_flow_input(now, link, &bytes);
            }
            if idle {
                break;
            }
        }
        self.home_outputs();
    }

    fn next_writable(&self) -> Option<FlowId> {
        self.edge.writable().next()
    }

    /// Takes over what the registrar says, a part at a time: many bindings may run out at once.
    pub(super) fn home_outputs(&mut self) {
        const PART: usize = 256;
        if self.service == Service::Stopped {
            return;
        }
        let Some(home) = &mut self.home else {
            return;
        };
        while let Some(question) = home.poll_question() {
            self.actions.push_back(match question {
                Question::Key {
                    ticket,
                    user,
                    hash,
                    aor,
                } => PcscfAction::FindKey {
                    ticket,
                    user,
                    hash,
                    aor,
                },
                Question::User { query, aor } => PcscfAction::FindUser {
                    query: UserQuery(query),
                    aor,
                },
            });
        }
        for event in core::iter::from_fn(|| home.poll_event()).take(PART) {
            self.events.push_back(match event {
                RegistrarEvent::Changed { aor, bindings } => PcscfEvent::Bindings {
                    aor,
                    count: bindings,
                },
                RegistrarEvent::Lost { aor, binding } => PcscfEvent::BindingLost { aor, binding },
            });
        }
    }

    fn edge_event(&mut self, now: Instant, event: EdgeEvent) {
        // What follows from the end of the last connection comes behind the end of all.
        if self.service == Service::Stopped {
            return;
        }
        let conn = |flow: FlowId| match self.owners.get(&flow) {
            Some(Owner::Conn(conn)) => Some(*conn),
            Some(Owner::Home) | None => None,
        };
        match event {
            EdgeEvent::Registered { flow, aor } => {
                if let Some(conn) = conn(flow) {
                    self.events.push_back(PcscfEvent::Registered { conn, aor });
                }
            }
            EdgeEvent::Unregistered { flow } => {
                if let Some(conn) = conn(flow) {
                    self.events.push_back(PcscfEvent::Unregistered { conn });
                }
            }
            EdgeEvent::FlowEnded { flow, end } => match self.owners.get(&flow).copied() {
                Some(Owner::Conn(conn)) => {
                    // The last words.
                    self.pull(now, flow);
                    self.owners.remove(&flow);
                    self.part(now, conn, CloseCause::Flow(end));
                }
                Some(Owner::Home) => {
                    self.owners.remove(&flow);
                    if let Some(home) = &mut self.home {
                        home.link_closed(now, flow);
                    }
                }
                None => {}
            },
            EdgeEvent::ResponseLost { flow } => {
                self.events.push_back(PcscfEvent::ResponseLost { flow });
            }
        }
    }

    /// The edge proxy wants to reach this.
    fn open_core(&mut self, now: Instant, flow: FlowId, target: &FlowTarget) {
        if self.service == Service::Stopped {
            return self.edge.flow_failed(now, flow);
        }
        let uri = target.uri.as_uri();
        if let Some(home) = self.home.as_mut().filter(|home| home.serves(uri.host())) {
            home.link_opened(now, flow);
            self.owners.insert(flow, Owner::Home);
            let at = FiveTuple {
                transport: Transport::Tcp,
                local: INSIDE,
                remote: INSIDE,
            };
            return self.edge.flow_opened(now, flow, at);
        }
        let Some((to, transport)) = self.find_hop(&uri) else {
            let host = String::from(uri.host());
            self.events.push_back(PcscfEvent::NoRoute { host });
            return self.edge.flow_failed(now, flow);
        };
        let at = FiveTuple {
            transport,
            local: self.config.core_socket,
            remote: to,
        };
        if !transport.is_stream() {
            return self.edge.flow_opened(now, flow, at);
        }
        let leave = match self.service {
            Service::Running => None,
            Service::Leaving { until } if until.is_none_or(|until| now < until) => until,
            Service::Leaving { .. } | Service::Stopped => return self.edge.flow_failed(now, flow),
        };
        let tunnel = Tunnel::new(self.tunnel_config(), self.rng.fork(), now);
        let (Ok(tunnel), true) = (tunnel, self.has_room(Side::Core)) else {
            return self.edge.flow_failed(now, flow);
        };
        let conn = self.add(Conn::new(
            Side::Core,
            at,
            tunnel,
            Phase::Connecting { flow },
        ));
        self.timers
            .arm(Timer::Connect(conn), now, self.config.connect_timeout);
        self.timers.set(Timer::Leave(conn), leave);
        self.actions.push_back(PcscfAction::Connect { conn, to });
    }

    /// The registrar a URI leads to, by the name of its domain or its own address.
    fn find_hop(&self, uri: &SipUri<'_>) -> Option<(SocketAddr, Transport)> {
        let port = uri.port_or_default();
        let leads = |hop: &&CoreHop| {
            let domain = hop.domain.eq_ignore_ascii_case(uri.host()) && uri.port().is_none();
            let address = uri.host_ip() == Some(hop.address.ip()) && port == hop.address.port();
            domain || address
        };
        let hop = self.config.hops.iter().find(leads)?;
        Some((hop.address, hop.transport))
    }

    /// Takes everything a flow has to send.
    fn pull(&mut self, now: Instant, flow: FlowId) {
        let owner = self.owners.get(&flow).copied();
        let mut buf = core::mem::take(&mut self.scratch);
        while let Some(len) = self.edge.poll_flow(flow, &mut buf) {
            let data = buf.get(..len).unwrap_or_default();
            match owner {
                Some(Owner::Conn(conn)) => self.push(now, conn, data),
                Some(Owner::Home) => {
                    let home = self.home.as_mut();
                    if home.is_some_and(|home| !home.handle_input(now, flow, data)) {
                        self.edge.flow_failed(now, flow);
                    }
                }
                // Nobody is there any more.
                None => {}
            }
        }
        self.scratch = buf;
    }

    fn push(&mut self, now: Instant, id: ConnId, data: &[u8]) {
        let limit = self.config.max_unsent;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if !conn.push(data, limit) {
            conn.forget_waiting();
            self.part(now, id, CloseCause::Unsent);
        }
        self.mark(id);
    }
}
