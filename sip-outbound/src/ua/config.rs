//! What a user agent is told in the beginning.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use crate::digest::{Account, DigestPolicy};
use crate::transaction::Timings;
use crate::wire::{Limits, Method, ParseConfig, UriBuf, all, is_token};

/// The name of a device, kept over restarts and changes of network (RFC 5626 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceId(String);

impl InstanceId {
    /// Takes in `urn:uuid:` and a UUID.
    ///
    /// # Errors
    /// [`ConfigError::Instance`] for anything else.
    pub fn new(urn: &str) -> Result<Self, ConfigError> {
        let uuid = urn.strip_prefix("urn:uuid:").unwrap_or_default();
        let shape = uuid.len() == 36
            && uuid.bytes().enumerate().all(|(at, b)| match at {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            });
        if shape {
            Ok(Self(urn.into()))
        } else {
            Err(ConfigError::Instance)
        }
    }

    /// The URN, in the spelling it was given in.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The habits of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 3261 and RFC 5626 alone.
    Internet,
    /// 3GPP TS 24.229: 600,000 s asked for, an empty Authorization in the first REGISTER, refresh
    /// 600 s before expiry.
    Ims,
}

/// When keep-alives are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Upper bound of the interval on streams when the edge names none: 120 s; 840 s saves
    /// batteries where the network allows it. The interval is drawn from 80 to 100 % of it.
    pub stream: Duration,
    /// The same on datagram flows: 29 s.
    pub datagram: Duration,
    /// No interval is longer, whatever the edge says: 120 s. Through HTTP proxies 50 s is wise.
    pub cap: Duration,
    /// How long a pong may take: 10 s.
    pub pong: Duration,
    /// The first interval on streams in a network of which nothing is known: 5 s. With each pong
    /// intervals grow by half, up to what is asked for or to what has cost a flow, see
    /// [`IdleTime`](super::IdleTime). A long one begins with what is asked for.
    pub first: Duration,
    /// Sends keep-alives on streams at intervals of `stream` although nobody has promised to answer
    /// them: firewalls forget the connections of plain registrations as well. Missing answers mean
    /// nothing, unless there was one before. On.
    pub unasked: bool,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            stream: Duration::from_secs(120),
            datagram: Duration::from_secs(29),
            cap: Duration::from_secs(120),
            pong: Duration::from_secs(10),
            first: Duration::from_secs(5),
            unasked: true,
        }
    }
}

/// How long to wait before a flow is tried again (RFC 5626 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// First wait when no flow is left: 30 s.
    pub base_all_failed: Duration,
    /// First wait when another flow works: 90 s.
    pub base_some_alive: Duration,
    /// Longest wait: 1,800 s.
    pub max: Duration,
    /// REGISTER requests of one registration in any 60 s, whatever they are sent for: 6. A removal
    /// does not wait.
    pub registers_per_minute: usize,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            base_all_failed: Duration::from_secs(30),
            base_some_alive: Duration::from_secs(90),
            max: Duration::from_secs(1800),
            registers_per_minute: 6,
        }
    }
}

/// Whether a security mechanism is agreed on with the edge proxy (RFC 3329).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecAgree {
    /// No. With TLS from the start the agreement is superfluous, and RFC 3329 forbids it.
    #[default]
    Off,
    /// On every flow, those over TLS as well: some P-CSCFs ask for it. TLS is the one mechanism
    /// that is offered; a flow without it is given up for one with it as soon as the proxy has
    /// shown its list.
    On,
}

/// What is to be done when the registrar does not confirm `outbound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutOutbound {
    /// Keep the binding as a plain one and no longer speak of outbound.
    Plain,
    /// Remove the binding and give up.
    Refuse,
}

/// How a [`UserAgent`](super::UserAgent) behaves.
#[derive(Clone, Debug)]
pub struct UserAgentConfig {
    /// The address of record: who is registered.
    pub aor: UriBuf,
    /// Where REGISTER goes in the end: the domain, without user.
    pub registrar: UriBuf,
    /// The outbound proxy set, at most eight; each gets a flow as long as `flows` allows. The
    /// position in this list is the reg-id. Those beyond stand in for one that fails, under its
    /// reg-id; there is a wait only when all of them have failed.
    pub proxies: Vec<UriBuf>,
    /// How many of the proxies are used at the same time: 2.
    pub flows: usize,
    /// The device.
    pub instance: InstanceId,
    /// Names and passwords.
    pub accounts: Vec<Account>,
    /// Which challenges are answered.
    pub digest: DigestPolicy,
    /// The habits of the network.
    pub profile: Profile,
    /// How long a binding is asked for, in seconds: 3,600; 600,000 in IMS.
    pub expires: u32,
    /// What follows from a registrar without outbound.
    pub without_outbound: WithoutOutbound,
    /// Agrees on TLS with the edge proxy. Off.
    pub sec_agree: SecAgree,
    /// Asks for GRUUs. On.
    pub gruu: bool,
    /// Parameters for the Contact, such as feature tags: name and value as it is to be written.
    pub contact_params: Vec<(String, Option<String>)>,
    /// Keep-alives.
    pub keep_alive: KeepAlive,
    /// Waits between attempts.
    pub recovery: Recovery,
    /// Transaction timers.
    pub timings: Timings,
    /// What is accepted from the network.
    pub parse: ParseConfig,
    /// Methods the application handles; others are answered with 405 or 501.
    pub allow: Vec<Method>,
    /// Option tags the application understands in Require.
    pub extensions: Vec<String>,
    /// Value of User-Agent; none by default.
    pub user_agent: Option<String>,
    /// Open transactions in each direction: 256.
    pub max_transactions: usize,
    /// Bytes that may wait for a slow flow before it counts as failed: 262,144.
    pub max_unsent: usize,
    /// How long bytes may wait for a flow to take them before it counts as failed: 10 s.
    pub max_unsent_age: Duration,
    /// Actions and events that wait for the host: 256; with more, messages are dropped unread.
    pub max_events: usize,
    /// Flows to other next hops: 4.
    pub max_extra_flows: usize,
}

/// Why a configuration does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The instance is not a `urn:uuid`.
    #[error("instance is not a urn:uuid")]
    Instance,
    /// There is no proxy, or more than eight.
    #[error("no outbound proxy, or more than eight")]
    Proxies,
    /// Several proxies, but only one flow (RFC 5626 section 4.2.1 wants two), or none.
    #[error("number of flows")]
    Flows,
    /// The registrar URI has a user part.
    #[error("registrar URI has a user part")]
    Registrar,
    /// A Contact parameter, extension or the User-Agent cannot be written.
    #[error("text that cannot be written")]
    Text,
    /// A limit or a wait is zero.
    #[error("limit or wait is zero")]
    Zero,
}

impl UserAgentConfig {
    /// The defaults for a user of a domain. The registrar is the domain of the address of record;
    /// accounts are to be added.
    pub fn new(aor: UriBuf, instance: InstanceId, proxies: Vec<UriBuf>) -> Self {
        let uri = aor.as_uri();
        let scheme = if uri.is_secure() { "sips" } else { "sip" };
        // A host that has been checked makes a URI.
        let registrar = UriBuf::parse(alloc::format!("{scheme}:{}", uri.host()));
        Self {
            registrar: registrar.unwrap_or_else(|_| aor.clone()),
            aor,
            flows: proxies.len().min(2),
            proxies,
            instance,
            accounts: Vec::new(),
            digest: DigestPolicy::default(),
            profile: Profile::Internet,
            expires: 3600,
            without_outbound: WithoutOutbound::Plain,
            sec_agree: SecAgree::Off,
            gruu: true,
            contact_params: Vec::new(),
            keep_alive: KeepAlive::default(),
            recovery: Recovery::default(),
            timings: Timings::RFC3261,
            parse: ParseConfig {
                limits: Limits::DEFAULT,
                ..ParseConfig::default()
            },
            allow: [
                Method::INVITE,
                Method::ACK,
                Method::CANCEL,
                Method::BYE,
                Method::OPTIONS,
                Method::MESSAGE,
            ]
            .into(),
            extensions: Vec::new(),
            user_agent: None,
            max_transactions: 256,
            max_unsent: 256 * 1024,
            max_unsent_age: Duration::from_secs(10),
            max_events: 256,
            max_extra_flows: 4,
        }
    }

    /// The habits of IMS on top of [`new`](Self::new).
    pub fn ims(aor: UriBuf, instance: InstanceId, proxies: Vec<UriBuf>) -> Self {
        Self {
            profile: Profile::Ims,
            expires: 600_000,
            ..Self::new(aor, instance, proxies)
        }
    }

    /// A bound for the bytes a user agent with this configuration ever holds, whatever comes in. What
    /// the application hands in (accounts, requests that are larger than messages it accepts) comes
    /// on top.
    ///
    /// The defaults give 380 MB: 256 open transactions in each direction, all of the longest
    /// messages. A user agent with a registration and nothing else takes about 36 KiB.
    pub const fn max_memory(&self) -> usize {
        // Measured (tests/it/memory_ua.rs) and rounded up; map nodes are half full at worst.
        const FIXED: usize = 64 * 1024;
        const FLOW: usize = 8192;
        const TRANSACTION: usize = 2048;
        // Realms remembered, each with a few texts of one header field.
        const REALMS: usize = 8 * 8;
        let limits = &self.parse.limits;
        let message = limits.max_message();
        let flow = FLOW
            .saturating_add(limits.max_incoming())
            .saturating_add(self.max_unsent)
            // Names of its dialogs, and what the registrar has granted.
            .saturating_add(self.max_transactions.saturating_mul(limits.line))
            .saturating_add(limits.head)
            .saturating_add(limits.line.saturating_mul(REALMS));
        let flows = self.flows.saturating_add(self.max_extra_flows);
        // The request, its names once more, the last response; a 2xx that is sent again.
        let server = TRANSACTION
            .saturating_add(message.saturating_mul(3))
            .saturating_add(limits.head);
        // The request and what it is made of, the ACK; for each of them a CANCEL.
        let client = TRANSACTION
            .saturating_add(message.saturating_mul(2))
            .saturating_add(limits.head)
            .saturating_mul(2);
        // Those with a message, and those of ends and failures.
        let events = self
            .max_events
            .saturating_mul(message)
            .saturating_add(self.max_transactions.saturating_mul(4 * 256));
        FIXED
            .saturating_add(flows.saturating_mul(flow))
            .saturating_add(crate::outbox::MAX_LEFT.saturating_mul(self.max_unsent))
            .saturating_add(
                self.max_transactions
                    .saturating_mul(server.saturating_add(client)),
            )
            .saturating_add(events)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let count = self.proxies.len();
        if count == 0 || count > 8 {
            return Err(ConfigError::Proxies);
        }
        if self.flows == 0 || (count > 1 && self.flows < 2) {
            return Err(ConfigError::Flows);
        }
        if self.registrar.as_uri().user().is_some() {
            return Err(ConfigError::Registrar);
        }
        let plain = |text: &str| !text.chars().any(char::is_control);
        let params = self.contact_params.iter().all(|(name, value)| {
            let text = alloc::format!(";{name}={}", value.as_deref().unwrap_or("x"));
            crate::wire::Params::parse(&text, 1).is_ok()
        });
        let tokens = self.extensions.iter().all(|tag| all(tag, is_token));
        if !params || !tokens || !self.user_agent.as_deref().is_none_or(plain) {
            return Err(ConfigError::Text);
        }
        let waits = [
            self.keep_alive.stream,
            self.keep_alive.datagram,
            self.keep_alive.cap,
            self.keep_alive.pong,
            self.keep_alive.first,
            self.max_unsent_age,
            self.recovery.base_all_failed,
            self.recovery.base_some_alive,
            self.recovery.max,
            self.timings.t1,
            self.timings.t2,
            self.timings.t4,
        ];
        let zero = waits.iter().any(Duration::is_zero)
            || self.expires == 0
            || self.max_transactions == 0
            || self.recovery.registers_per_minute == 0
            || self.max_events == 0
            || self.max_unsent == 0;
        if zero { Err(ConfigError::Zero) } else { Ok(()) }
    }
}
