//! What a UE is told in the beginning.

use core::time::Duration;

use super::UeConfigError;
use super::call::CallConfig;
use crate::access::AccessConfig;
use crate::media::MediaConfig;
use crate::sdp::{NegotiationConfig, RtcpMux};

/// How a [`Ue`](super::Ue) behaves.
///
/// ```
/// use ims_traversal::ue::UeConfig;
///
/// /// Takes one call at a time, and gives up when its media are lost.
/// fn simple(config: UeConfig) -> UeConfig {
///     let mut config = UeConfig { media_restarts: 0, ..config };
///     config.calls.max_calls = 1;
///     config
/// }
/// ```
#[derive(Clone, Debug)]
pub struct UeConfig {
    /// Control: who registers where, and how it gets there.
    pub access: AccessConfig,
    /// Media: STUN and TURN servers, components, the proxy. The role in it is not used: who offers
    /// controls. Components: one stream with 2, RTP and RTCP; with 1 where
    /// [`sdp.rtcp_mux`](NegotiationConfig::rtcp_mux) lets RTCP have no other
    /// ([`set_rtcp_mux`](Self::set_rtcp_mux)), or where there is to be no RTCP
    /// ([`RtcpMux::Never`]).
    pub media: MediaConfig,
    /// Codecs and other words of the session descriptions.
    pub sdp: NegotiationConfig,
    /// Limits and patience of calls.
    pub calls: CallConfig,
    /// How often, after one success, lost media are looked for anew by an ICE restart before the
    /// call is ended: once.
    pub media_restarts: u32,
    /// How long [`stop`](super::Ue::stop) waits for calls to be ended and relays to be given back
    /// before it unregisters all the same: 5 s.
    pub stop_patience: Duration,
}

impl UeConfig {
    /// The defaults around what has none. `media` gets one stream of two components, whatever it
    /// had.
    pub fn new(access: AccessConfig, mut media: MediaConfig) -> Self {
        media.session.agent.components = alloc::vec![2];
        Self {
            access,
            media,
            sdp: NegotiationConfig::default(),
            calls: CallConfig::default(),
            media_restarts: 1,
            stop_patience: Duration::from_secs(5),
        }
    }

    /// Whether RTP and RTCP share a port, and as many components as that takes.
    pub fn set_rtcp_mux(&mut self, rtcp_mux: RtcpMux) {
        let components = match rtcp_mux {
            RtcpMux::Only => 1,
            RtcpMux::Offer | RtcpMux::Never => 2,
        };
        self.sdp.rtcp_mux = rtcp_mux;
        self.media.session.agent.components = alloc::vec![components];
    }

    /// Whether calls can be described the way their media are gathered.
    pub(super) fn check(&self) -> Result<(), UeConfigError> {
        if self.calls.max_calls == 0 || self.calls.max_body == 0 {
            return Err(UeConfigError::Zero);
        }
        let fits = match (
            self.sdp.rtcp_mux,
            self.media.session.agent.components.as_slice(),
        ) {
            // A side that offers mux has to be ready for a no (RFC 5761 section 5.1.3).
            (RtcpMux::Offer, [2]) | (RtcpMux::Only, [1]) | (RtcpMux::Never, [1 | 2]) => true,
            (RtcpMux::Offer | RtcpMux::Only | RtcpMux::Never, _) => false,
        };
        fits.then_some(()).ok_or(UeConfigError::Components)
    }
}
