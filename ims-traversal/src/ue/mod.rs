//! The UE (3GPP C1-133869 section 2.1): registers over whatever way there is, calls and is called, and
//! finds a way for the media of each call.
//!
//! [`Ue`] is [`Access`] for control, and for each call a dialog, an offer and answer, and a
//! [`Media`](crate::media::Media). Its host makes TCP connections and binds UDP sockets as
//! [`UeAction`] says, moves bytes and datagrams, and tells the time; it has nothing to do with TLS,
//! CONNECT, SIP, ICE or TURN.
//!
//! # Life of a call
//! ```text
//! call    -> gathering -> Calling -> Ringing .. -> Agreed, Established -> Media(Completed) -> talk
//! Incoming (gathering) -> answer -> Agreed, Established -> Media(Completed) -> talk
//! talk    -> set_direction, the other side's change: Agreed
//!         -> way lost: ICE restart once, then Ended
//!         -> network_changed: new media, offered over the next registration
//!         -> hang_up, the other side hangs up, refuses, ..: Ended
//! ```
//! A call that has lost its flow goes on: its requests take any other registration, or wait for the
//! next (RFC 5626 section 4.3).
//!
//! # What it does not do
//! No codecs and no jitter buffer: datagrams of media come and go as they are. Audio only, one
//! stream. No session timers (RFC 4028), no reliable provisional responses (RFC 3262), no
//! preconditions, no transfer. Descriptions do not trickle.
//!
//! # Limits
//! [`CallConfig`], and those of [`UserAgentConfig`](sip_outbound::UserAgentConfig),
//! [`SessionConfig`](ice_proto::SessionConfig) and [`ConnLimits`](crate::ConnLimits).

mod answers;
mod call;
mod config;
mod event;
mod io;
mod leg;
mod requests;
mod socket;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use sip_outbound::wire::StatusCode;
use sip_outbound::{FlowId, RequestId, UserAgent};
use stun_proto::time::{Clock, Timers, deadline};
use stun_proto::{Instant, Rng};

pub use call::{CallConfig, CallError, CallId, EndCause};
pub use config::UeConfig;
pub use event::{
    CallMedia, MediaId, Network, ProxyAsker, SocketId, SocketPlace, UeAction, UeConfigError,
    UeConn, UeError, UeEvent,
};

use crate::access::Access;
use crate::sdp::{Direction, Negotiation};
use crate::{ConnId, HttpProxy};
use call::Calls;
use leg::Leg;
use socket::{Instance, Sockets};

/// The longest datagram of [`Ue::poll_transmit`]; smaller buffers are the host's bug.
pub const MAX_TRANSMIT: usize = sip_outbound::MAX_TRANSMIT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// Calls are ended and relays given back; at this time, or when that is done, the
    /// registrations are removed.
    Ending {
        until: Option<Instant>,
    },
    /// The registrations are being removed.
    Leaving,
    Stopped,
}

/// A UE. See the [module](self).
///
/// After every input the host drains datagrams, bytes, actions and events, then waits for the next
/// input or the deadline:
///
/// ```
/// # use ims_traversal::access::AccessConfig;
/// # use ims_traversal::media::MediaConfig;
/// # use sip_outbound::wire::UriBuf;
/// # use sip_outbound::{InstanceId, UserAgentConfig};
/// # let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
/// # let tls = rustls::ClientConfig::builder_with_provider(provider)
/// #     .with_safe_default_protocol_versions().unwrap()
/// #     .with_root_certificates(rustls::RootCertStore::empty())
/// #     .with_no_client_auth();
/// # let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
/// # let aor: UriBuf = "sip:alice@ims.example".parse().unwrap();
/// # let pcscf: UriBuf = "sips:pcscf1.ims.example".parse().unwrap();
/// # let agent = UserAgentConfig::ims(aor, instance, vec![pcscf]);
/// # let session = ice_proto::SessionConfig::new(ice_proto::Role::Controlling);
/// # let access = AccessConfig::new(agent, tls.into());
/// # let config = UeConfig::new(access, MediaConfig::new(session));
/// use ims_traversal::ladder::NetworkKey;
/// use ims_traversal::ue::{MAX_TRANSMIT, Network, Ue, UeAction, UeConfig, UeEvent};
/// use stun_proto::Instant;
///
/// fn drain(ue: &mut Ue, now: Instant) {
///     let mut buf = vec![0; MAX_TRANSMIT];
///     while let Some(sent) = ue.poll_transmit(&mut buf) {
///         // buf[..sent.len] goes from sent.to.local to sent.to.remote.
///     }
///     let writable: Vec<_> = ue.writable().collect();
///     for conn in writable {
///         while let Some(len) = ue.poll_conn(conn, &mut buf) { /* write buf[..len] */ }
///     }
///     while let Some(action) = ue.poll_action() {
///         match action {
///             UeAction::Connect { conn, to } => { /* connect, then ue.connected(..) */ }
///             _ => { /* close, open or close a socket */ }
///         }
///     }
///     while let Some(event) = ue.poll_event() {
///         if let UeEvent::Incoming { call, .. } = event {
///             ue.answer(now, call).unwrap();
///         }
///     }
/// }
///
/// let now = Instant::ZERO; // the host's clock
/// let mut ue = Ue::new(config, [7; 32], now).unwrap();
/// let home = Network::new(NetworkKey(1), vec!["192.168.1.20".parse().unwrap()]);
/// ue.start(now, home);
/// drain(&mut ue, now);
/// // Bytes: ue.handle_input(now, conn, data), then ue.poll_received(now) for the media in them.
/// // Datagrams: ue.handle_datagram(now, at, data).
/// assert!(ue.poll_timeout().is_some());
/// ```
#[derive(Debug)]
pub struct Ue {
    config: UeConfig,
    rng: Rng,
    clock: Clock,
    phase: Phase,
    network: Option<Network>,
    access: Access,
    calls: Calls,
    legs: BTreeMap<CallId, Leg>,
    /// Calls whose media are to gather again, or that may offer again.
    timers: Timers<CallId>,
    /// Flows with a registration.
    flows: BTreeSet<FlowId>,
    /// Those that give their relays back included.
    media: BTreeMap<MediaId, Instance>,
    sockets: Sockets,
    /// Connections to TURN servers whose proxy wants credentials.
    asking: BTreeSet<(MediaId, ConnId)>,
    /// Media with bytes that have not been looked at.
    receiving: Option<MediaId>,
    /// MESSAGEs under way.
    messages: BTreeSet<RequestId>,
    actions: VecDeque<UeAction>,
    events: VecDeque<UeEvent>,
}

impl Ue {
    /// A UE that does nothing until [`start`](Self::start). `seed` must come from a cryptographic
    /// source.
    ///
    /// # Errors
    /// [`UeConfigError`].
    pub fn new(mut config: UeConfig, seed: [u8; 32], now: Instant) -> Result<Self, UeConfigError> {
        let mut rng = Rng::from_seed(seed);
        config.access.agent.allow = call::METHODS.into();
        config.check()?;
        Negotiation::new(config.sdp.clone(), 0)?;
        let access = Access::new(config.access.clone(), rng.fork(), now)?;
        let calls = Calls::new(config.calls.clone(), Rng::from_seed(rng.fork()), now);
        Ok(Self {
            config,
            rng,
            clock: Clock::new(now),
            phase: Phase::Idle,
            network: None,
            access,
            calls,
            legs: BTreeMap::new(),
            timers: Timers::new(),
            flows: BTreeSet::new(),
            media: BTreeMap::new(),
            sockets: Sockets::default(),
            asking: BTreeSet::new(),
            receiving: None,
            messages: BTreeSet::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Goes up the ladder and registers. Does nothing when running.
    pub fn start(&mut self, now: Instant, network: Network) {
        let now = self.clock.advance(now);
        if self.phase == Phase::Idle {
            self.phase = Phase::Running;
            self.access.start(now, network.key);
            self.network = Some(network);
            self.settle(now);
        }
    }

    /// Ends all calls, then removes all registrations; [`UeEvent::Stopped`] is the end.
    pub fn stop(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        match self.phase {
            Phase::Idle => {
                self.phase = Phase::Stopped;
                self.events.push_back(UeEvent::Stopped);
            }
            Phase::Running => {
                for call in self.calls.ids() {
                    let agent = self.access.agent_mut();
                    let _ = self.calls.hang_up(now, agent, call, EndCause::HungUp);
                }
                let until = deadline(now, self.config.stop_patience);
                self.phase = Phase::Ending { until };
            }
            Phase::Ending { .. } | Phase::Leaving | Phase::Stopped => {}
        }
        self.settle(now);
    }

    /// The host is in another network, or its addresses have changed: all flows are made anew, and
    /// calls move their media.
    pub fn network_changed(&mut self, now: Instant, network: Network) {
        let now = self.clock.advance(now);
        if self.phase != Phase::Running {
            return;
        }
        self.flows.clear();
        self.access.network_changed(now, network.key);
        self.network = Some(network);
        self.move_media(now);
        self.settle(now);
    }

    /// Sets the HTTP proxy for connections made from now on, of control and of calls to come;
    /// before [`network_changed`](Self::network_changed) when the new network has another one.
    pub fn set_proxy(&mut self, proxy: Option<HttpProxy>) {
        self.config.media.proxy.clone_from(&proxy);
        self.access.set_proxy(proxy);
    }

    const fn running(&self) -> Result<(), UeError> {
        match self.phase {
            Phase::Running => Ok(()),
            Phase::Idle | Phase::Ending { .. } | Phase::Leaving | Phase::Stopped => {
                Err(UeError::NotRunning)
            }
        }
    }

    /// Calls a SIP or tel URI.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn call(&mut self, now: Instant, to: &str) -> Result<CallId, UeError> {
        self.call_with(now, to, Vec::new())
    }

    /// As [`call`](Self::call), with further header fields in the INVITE.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn call_with(
        &mut self,
        now: Instant,
        to: &str,
        headers: Vec<(String, String)>,
    ) -> Result<CallId, UeError> {
        let now = self.clock.advance(now);
        self.running()?;
        let call = self.calls.prepare(to, headers)?;
        self.begin_outgoing(now, call);
        self.settle(now);
        Ok(call)
    }

    /// Takes an incoming call.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn answer(&mut self, now: Instant, call: CallId) -> Result<(), UeError> {
        let now = self.clock.advance(now);
        self.take(now, call)?;
        self.settle(now);
        Ok(())
    }

    /// Refuses an incoming call: 486 when busy, 603 when it is not wanted anywhere.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn reject(&mut self, now: Instant, call: CallId, code: StatusCode) -> Result<(), UeError> {
        let now = self.clock.advance(now);
        let agent = self.access.agent_mut();
        self.calls.refuse(now, agent, call, code)?;
        self.settle(now);
        Ok(())
    }

    /// Ends a call, or gives up calling; [`UeEvent::Ended`] follows.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn hang_up(&mut self, now: Instant, call: CallId) -> Result<(), UeError> {
        let now = self.clock.advance(now);
        let agent = self.access.agent_mut();
        self.calls.hang_up(now, agent, call, EndCause::HungUp)?;
        self.settle(now);
        Ok(())
    }

    /// Changes which way media may flow: [`Direction::SendOnly`] puts the other side on hold.
    /// [`UeEvent::Agreed`] or [`UeEvent::ChangeRefused`] follows.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn set_direction(
        &mut self,
        now: Instant,
        call: CallId,
        direction: Direction,
    ) -> Result<(), UeError> {
        let now = self.clock.advance(now);
        self.direct(now, call, direction)?;
        self.settle(now);
        Ok(())
    }

    /// Sends INFO within a call; nobody is told how it went.
    ///
    /// # Errors
    /// [`UeError`].
    pub fn info(
        &mut self,
        now: Instant,
        call: CallId,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<(), UeError> {
        let now = self.clock.advance(now);
        let agent = self.access.agent_mut();
        self.calls
            .info(now, agent, call, content_type, body.into())?;
        self.settle(now);
        Ok(())
    }

    /// The user agent, to look at.
    pub const fn agent(&self) -> &UserAgent {
        self.access.agent()
    }
}
