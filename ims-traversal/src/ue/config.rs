//! What a UE is told in the beginning.

use core::time::Duration;

use super::call::CallConfig;
use crate::access::AccessConfig;
use crate::media::MediaConfig;
use crate::sdp::NegotiationConfig;

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
    /// controls.
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
    /// The defaults around what has none.
    pub fn new(access: AccessConfig, media: MediaConfig) -> Self {
        Self {
            access,
            media,
            sdp: NegotiationConfig::default(),
            calls: CallConfig::default(),
            media_restarts: 1,
            stop_patience: Duration::from_secs(5),
        }
    }
}
