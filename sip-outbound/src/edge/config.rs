//! What an edge proxy is told in the beginning.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use crate::sec_agree::{SecAgreeError, SecMechanisms};
use crate::transaction::Timings;
use crate::wire::{Limits, ParseConfig, UriBuf, all, is_token};

/// What a P-CSCF does beyond an edge proxy (3GPP TS 24.229 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcscfConfig {
    /// Flows without a registration get 403 for everything but REGISTER.
    pub gate: bool,
    /// Tells the registrar by `integrity-protected` how REGISTER was protected; what the client
    /// says about it is removed.
    pub integrity_protected: bool,
    /// What happens to an initial request whose Route is not the Service-Route of its flow.
    pub service_route: ServiceRouteCheck,
    /// Names the registered identity in P-Asserted-Identity: the one the client prefers, if it is
    /// one of those the registrar associates with it, else the first of them.
    pub assert_identity: bool,
    /// The expiry, in seconds, that a client behind a NAT is told that sends no keep-alives, so that
    /// its refreshes hold the NAT open: 60. They are answered here while more than half of what the
    /// registrar has granted is left, unless they change something. None tells what was granted.
    pub nat_expires: Option<u32>,
}

impl Default for PcscfConfig {
    fn default() -> Self {
        Self {
            gate: true,
            integrity_protected: true,
            service_route: ServiceRouteCheck::Replace,
            assert_identity: true,
            nat_expires: Some(60),
        }
    }
}

/// How clients agree on a security mechanism with an edge proxy (RFC 3329).
///
/// TLS is the one mechanism that an edge proxy can check: clients that have agreed on it come by a
/// TLS flow, and show the list there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeSecAgree {
    /// The list that is shown to clients. The same for all, whatever they list.
    pub mechanisms: SecMechanisms,
    /// Refuses requests over flows without TLS unless the client begins an agreement.
    pub required: bool,
}

/// See [`PcscfConfig::service_route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceRouteCheck {
    /// Not looked at.
    Off,
    /// 400.
    Refuse,
    /// Put right.
    Replace,
}

/// How an [`EdgeProxy`](super::EdgeProxy) behaves.
#[derive(Clone)]
pub struct EdgeConfig {
    /// The name of this proxy towards the core, in Path, Record-Route and Via; routable for this
    /// instance alone.
    pub host: String,
    /// The port that goes with it, if not the default of the URI.
    pub port: Option<u16>,
    /// The name of this proxy towards clients, in Record-Route and Via; the port and the transport
    /// are those of the flow. The local address of the flow by default: set it when clients reach
    /// this proxy by another one.
    pub access_host: Option<String>,
    /// Further names by which this proxy is addressed in Route.
    pub aliases: Vec<String>,
    /// Where requests of clients go when no Route says otherwise; their request URI by default.
    pub next_hop: Option<UriBuf>,
    /// Key of the flow tokens; drawn from the seed by default. Keep it over restarts.
    pub token_key: Option<[u8; 32]>,
    /// Seconds between keep-alives asked of clients, in Flow-Timer and `keep`: 120. None asks for
    /// nothing.
    pub flow_timer: Option<u32>,
    /// How much longer a flow may be silent before it counts as dead: 32 s.
    pub flow_grace: Duration,
    /// How long a flow may stay without a registration: 64 s.
    pub unregistered_timeout: Duration,
    /// How long a flow of the core side may be without traffic in either direction: 300 s.
    pub core_idle: Duration,
    /// Adds Path also for contacts without reg-id.
    pub path_always: bool,
    /// Adds `Require: path`, and refuses with 421 clients that do not offer Path.
    pub require_path: bool,
    /// Record-routes all dialogs of clients, whether they ask by `ob` or not.
    pub record_route_always: bool,
    /// Option tags understood in Proxy-Require.
    pub proxy_extensions: Vec<String>,
    /// Behaves as a P-CSCF.
    pub pcscf: Option<PcscfConfig>,
    /// Agrees on a security mechanism with clients that ask for it; none by default, `sec-agree` in
    /// Proxy-Require is an unknown extension then.
    pub sec_agree: Option<EdgeSecAgree>,
    /// Transaction timers.
    pub timings: Timings,
    /// What is accepted from registered clients and from the core.
    pub parse: ParseConfig,
    /// What is accepted before registration.
    pub unregistered_limits: Limits,
    /// Flows of clients at a time: 10,000.
    pub max_flows: usize,
    /// Flows to next hops in the core that are opened from here, and as many that the core opens:
    /// 64 each; requests that would need another one get 503.
    pub max_core_flows: usize,
    /// Actions and events that wait for the host: 4,096. With more, messages are dropped unread
    /// and counted, and no flows accepted.
    pub max_events: usize,
    /// Open server transactions: 1,024.
    pub max_server_transactions: usize,
    /// Open client transactions: 1,024.
    pub max_client_transactions: usize,
    /// Requests that wait for flows to the core to open: 256; more get 503.
    pub max_waiting: usize,
    /// Bytes that may wait for one flow, 64 more counted for each message: 262,144.
    pub max_unsent: usize,
    /// Datagrams that may wait: 1,024; the oldest is dropped.
    pub max_datagrams: usize,
}

impl core::fmt::Debug for EdgeConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EdgeConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("access_host", &self.access_host)
            .field("aliases", &self.aliases)
            .field("next_hop", &self.next_hop)
            // A secret: whether there is one is all that is shown.
            .field("token_key", &self.token_key.is_some())
            .field("flow_timer", &self.flow_timer)
            .field("flow_grace", &self.flow_grace)
            .field("unregistered_timeout", &self.unregistered_timeout)
            .field("core_idle", &self.core_idle)
            .field("path_always", &self.path_always)
            .field("require_path", &self.require_path)
            .field("record_route_always", &self.record_route_always)
            .field("proxy_extensions", &self.proxy_extensions)
            .field("pcscf", &self.pcscf)
            .field("sec_agree", &self.sec_agree)
            .field("timings", &self.timings)
            .field("parse", &self.parse)
            .field("unregistered_limits", &self.unregistered_limits)
            .field("max_flows", &self.max_flows)
            .field("max_core_flows", &self.max_core_flows)
            .field("max_events", &self.max_events)
            .field("max_server_transactions", &self.max_server_transactions)
            .field("max_client_transactions", &self.max_client_transactions)
            .field("max_waiting", &self.max_waiting)
            .field("max_unsent", &self.max_unsent)
            .field("max_datagrams", &self.max_datagrams)
            .finish()
    }
}

/// Why a configuration does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeConfigError {
    /// A name is not one that can stand in a URI.
    #[error("host name")]
    Host,
    /// An option tag is not a token.
    #[error("option tag")]
    OptionTag,
    /// A limit or a wait is zero.
    #[error("limit or wait is zero")]
    Zero,
    /// The list of security mechanisms repeats a preference, or TLS is not in it.
    #[error("security mechanisms: {0}")]
    SecAgree(#[from] SecAgreeError),
}

impl EdgeConfig {
    /// The defaults for a name.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: None,
            access_host: None,
            aliases: Vec::new(),
            next_hop: None,
            token_key: None,
            flow_timer: Some(120),
            flow_grace: Duration::from_secs(32),
            unregistered_timeout: Duration::from_secs(64),
            core_idle: Duration::from_secs(300),
            path_always: false,
            require_path: false,
            record_route_always: false,
            proxy_extensions: Vec::new(),
            pcscf: None,
            sec_agree: None,
            timings: Timings::RFC3261,
            parse: ParseConfig::default(),
            unregistered_limits: Limits::UNAUTHENTICATED,
            max_flows: 10_000,
            max_core_flows: 64,
            max_events: 4096,
            max_server_transactions: 1024,
            max_client_transactions: 1024,
            max_waiting: 256,
            max_unsent: 256 * 1024,
            max_datagrams: 1024,
        }
    }

    /// A P-CSCF on port 443: keep-alives every 60 s, Path always and required, everything
    /// record-routed.
    pub fn pcscf(host: impl Into<String>) -> Self {
        Self {
            flow_timer: Some(60),
            path_always: true,
            require_path: true,
            record_route_always: true,
            pcscf: Some(PcscfConfig::default()),
            ..Self::new(host)
        }
    }

    pub(super) fn check(&self) -> Result<(), EdgeConfigError> {
        let names = core::iter::once(&self.host)
            .chain(&self.access_host)
            .chain(&self.aliases);
        for name in names {
            if UriBuf::parse(alloc::format!("sip:{name}")).is_err() {
                return Err(EdgeConfigError::Host);
            }
        }
        if !self.proxy_extensions.iter().all(|tag| all(tag, is_token)) {
            return Err(EdgeConfigError::OptionTag);
        }
        if let Some(agree) = &self.sec_agree {
            agree.mechanisms.choose(&["tls"])?;
        }
        let zero = self.unregistered_timeout.is_zero()
            || self.core_idle.is_zero()
            || self.max_flows == 0
            || self.max_core_flows == 0
            || self.max_events == 0
            || self.max_server_transactions == 0
            || self.max_client_transactions == 0
            || self.max_waiting == 0
            || self.max_unsent == 0
            || self.max_datagrams == 0
            || self.pcscf.is_some_and(|pcscf| pcscf.nat_expires == Some(0))
            || self.flow_timer == Some(0);
        if zero {
            Err(EdgeConfigError::Zero)
        } else {
            Ok(())
        }
    }

    /// A bound for the bytes an edge proxy with this configuration ever holds, whatever comes in.
    ///
    /// The defaults give 8.2 GB: 10,000 flows, each registered, in the middle of the longest message
    /// and with as much unsent as allowed. A flow that is registered and quiet takes about 4 KiB.
    pub const fn max_memory(&self) -> usize {
        // Measured (tests/it/memory.rs) and rounded up; map nodes are half full at worst.
        const FIXED: usize = 64 * 1024;
        const FLOW: usize = 4096;
        const TRANSACTION: usize = 2048;
        const EVENT: usize = 256;
        // What a proxy adds to a message: Via, Path, Record-Route, and the names in them.
        const ADDED: usize = 4096;
        let limits = &self.parse.limits;
        let message = limits.max_message().saturating_add(ADDED);
        // The user's name, identities and Service-Route.
        let names = limits.routes.saturating_mul(2).saturating_add(3);
        // And the answer that refreshes are answered with.
        let registration = limits.uri.saturating_mul(names);
        let registration = match &self.pcscf {
            Some(pcscf) if pcscf.nat_expires.is_some() => registration.saturating_add(message),
            Some(_) | None => registration,
        };
        let flow = FLOW
            .saturating_add(limits.max_incoming())
            .saturating_add(registration)
            .saturating_add(self.max_unsent);
        // The request, its names once more, and the last response.
        let server = TRANSACTION
            .saturating_add(message.saturating_mul(2))
            .saturating_add(limits.head);
        // The request and the ACK; for each of them a CANCEL.
        let client = TRANSACTION
            .saturating_add(message)
            .saturating_add(limits.head)
            .saturating_mul(2);
        FIXED
            .saturating_add(self.all_flows().saturating_mul(flow))
            .saturating_add(crate::outbox::MAX_LEFT.saturating_mul(self.max_unsent))
            .saturating_add(self.max_server_transactions.saturating_mul(server))
            .saturating_add(self.max_client_transactions.saturating_mul(client))
            .saturating_add(
                self.max_waiting
                    .saturating_add(self.max_datagrams)
                    .saturating_mul(message),
            )
            .saturating_add(
                self.event_limit()
                    .saturating_mul(EVENT.saturating_add(limits.uri)),
            )
    }

    const fn all_flows(&self) -> usize {
        self.max_flows
            .saturating_add(self.max_core_flows.saturating_mul(2))
    }

    /// How many events and actions wait at most: what goes on when the host takes none, ends.
    const fn event_limit(&self) -> usize {
        self.max_events
            .saturating_add(self.all_flows().saturating_mul(3))
            .saturating_add(self.max_server_transactions)
    }

    /// `host[:port]`.
    pub(super) fn sent_by(&self) -> String {
        match self.port {
            Some(port) => alloc::format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}
