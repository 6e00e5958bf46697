//! Session descriptions (RFC 8866) and what is agreed on by exchanging them (RFC 3264), for one
//! stream of audio whose transport is ICE (RFC 8839).
//!
//! - [`Sdp`] is a description as lines, to look at and to rewrite without losing anything.
//! - [`Negotiation`] is one side of offer and answer: it writes and reads whole descriptions.
//!
//! What goes between it and the transport are two values: [`LocalTransport`] is what this side's
//! description says, [`RemoteTransport`] what was found in the other's.
//!
//! # What it does not do
//! Bundles, SRTP, video: such parts of an offer are refused one by one. Parameters of codecs
//! (`a=fmtp`) are passed on, not compared. Names in c= lines are not resolved.

pub(crate) mod body;
mod lines;
mod negotiation;
mod remote;
mod values;
mod write;

use ice_proto::sdp::Line;

use core::fmt;
use core::net::SocketAddr;

use alloc::string::String;
use alloc::vec::Vec;

pub use self::lines::{Field, Sdp, Section};
pub use self::negotiation::{Agreed, Negotiation, NegotiationError, RemoteOffer};
pub use self::remote::RemoteTransport;
pub use self::values::{Codec, Connection, Destination, Direction, MediaLine, Origin};

/// How much of a description is read.
///
/// ```
/// use ims_traversal::sdp::{Sdp, SdpErrorKind, SdpLimits};
///
/// let limits = SdpLimits { lines: 1, ..SdpLimits::default() };
/// let error = Sdp::parse(b"v=0\r\ns=-\r\n", &limits).unwrap_err();
/// assert_eq!((error.line, error.kind), (2, SdpErrorKind::TooManyLines));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdpLimits {
    /// Most bytes: 65536.
    pub bytes: usize,
    /// Most lines: 1000.
    pub lines: usize,
    /// Most bytes of a line: 4096.
    pub line: usize,
    /// Most media parts: 32.
    pub media: usize,
    /// Keeps lines of types RFC 8866 does not know, which it wants descriptions refused for: no.
    pub unknown_types: bool,
}

impl Default for SdpLimits {
    fn default() -> Self {
        Self {
            bytes: 65_536,
            lines: 1000,
            line: 4096,
            media: 32,
            unknown_types: false,
        }
    }
}

/// Why a description is not read.
///
/// ```
/// use ims_traversal::sdp::{Sdp, SdpLimits};
///
/// let error = Sdp::parse(b"v=0\r\nq=1\r\n", &SdpLimits::default()).unwrap_err();
/// assert_eq!(error.to_string(), "session description, line 2: unknown type");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session description, line {line}: {kind}")]
pub struct SdpError {
    /// The line, counted from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong with it.
    pub kind: SdpErrorKind,
}

/// What is wrong with a line.
///
/// ```
/// use ims_traversal::sdp::{Field, SdpErrorKind};
///
/// assert_eq!(Field::new('A', "x").unwrap_err(), SdpErrorKind::Malformed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpErrorKind {
    /// More bytes than allowed.
    #[error("too long")]
    TooLong,
    /// More lines than allowed.
    #[error("too many lines")]
    TooManyLines,
    /// A longer line than allowed.
    #[error("line too long")]
    LineTooLong,
    /// More media parts than allowed.
    #[error("too many media parts")]
    TooManyMedia,
    /// It does not begin with `v=0`.
    #[error("not version 0")]
    Version,
    /// No small letter with `=` behind it, or characters no line has.
    #[error("malformed")]
    Malformed,
    /// A type of line that is not known.
    #[error("unknown type")]
    UnknownType,
}

impl SdpErrorKind {
    pub(self) const fn at(self, line: usize) -> SdpError {
        SdpError { line, kind: self }
    }
}

/// What this side's description says about the transport of its stream. `Debug` shows no
/// password.
///
/// ```
/// use ims_traversal::sdp::LocalTransport;
///
/// // Without ICE, and without a port for RTCP.
/// let local = LocalTransport::plain("192.0.2.1:4000".parse().unwrap(), None);
/// assert!(local.ice.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTransport {
    /// The default address for RTP.
    pub rtp: SocketAddr,
    /// That for RTCP, unless there is one component only.
    pub rtcp: Option<SocketAddr>,
    /// The lines of ICE; none without ICE. `remote-candidates` appears in offers only.
    pub ice: Vec<Line>,
}

impl LocalTransport {
    /// A transport without ICE.
    pub const fn plain(rtp: SocketAddr, rtcp: Option<SocketAddr>) -> Self {
        Self {
            rtp,
            rtcp,
            ice: Vec::new(),
        }
    }
}

/// RTP and RTCP on one port (RFC 5761).
///
/// ```
/// use ims_traversal::sdp::{NegotiationConfig, RtcpMux};
///
/// // One component, come what may.
/// let config = NegotiationConfig { rtcp_mux: RtcpMux::Only, ..NegotiationConfig::default() };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcpMux {
    /// Offered, and a second component kept ready until the answer has come (RFC 5761
    /// section 5.1.3). An offer of ICE with one component only says `a=rtcp-mux-only` besides.
    #[default]
    Offer,
    /// Nothing else is possible (RFC 8858).
    Only,
    /// Neither offered nor accepted.
    Never,
}

/// What to do when an offer's default address is not among its candidates (RFC 8839
/// section 4.2.5).
///
/// ```
/// use ims_traversal::sdp::{Mismatch, NegotiationConfig};
///
/// let config = NegotiationConfig { mismatch: Mismatch::Refuse, ..NegotiationConfig::default() };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// It becomes one more candidate, the least important one.
    #[default]
    Augment,
    /// The answer says `a=ice-mismatch`; there is no ICE then.
    Refuse,
}

/// What a [`Negotiation`] is told.
///
/// ```
/// use ims_traversal::sdp::{Codec, NegotiationConfig};
///
/// let config = NegotiationConfig {
///     codecs: vec![Codec::PCMA, Codec::TELEPHONE_EVENT],
///     ..NegotiationConfig::default()
/// };
/// assert_eq!(config.user, "-");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiationConfig {
    /// The codecs, the most preferred first: PCMU, PCMA, telephone-event. The first 32 count.
    pub codecs: Vec<Codec>,
    /// Milliseconds in a packet, if it is said.
    pub ptime: Option<u16>,
    /// Kilobits each second (`b=AS`), if it is said.
    pub bandwidth: Option<u32>,
    /// RTP and RTCP on one port: offered.
    pub rtcp_mux: RtcpMux,
    /// When the default address is no candidate: it becomes one.
    pub mismatch: Mismatch,
    /// The user in o=: `-`. Not longer than 64 characters, none of them a blank.
    pub user: String,
    /// How much of a description is read.
    pub limits: SdpLimits,
}

impl Default for NegotiationConfig {
    fn default() -> Self {
        Self {
            codecs: alloc::vec![Codec::PCMU, Codec::PCMA, Codec::TELEPHONE_EVENT],
            ptime: None,
            bandwidth: None,
            rtcp_mux: RtcpMux::Offer,
            mismatch: Mismatch::Augment,
            user: "-".into(),
            limits: SdpLimits::default(),
        }
    }
}

/// Why a configuration cannot be written down.
///
/// ```
/// use ims_traversal::sdp::{Codec, ConfigError, Negotiation, NegotiationConfig};
///
/// let codecs = vec![Codec::TELEPHONE_EVENT];
/// let config = NegotiationConfig { codecs, ..NegotiationConfig::default() };
/// assert_eq!(Negotiation::new(config, 1).unwrap_err(), ConfigError::NoCodec);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No codec, or none that carries sound.
    #[error("no codec that carries sound")]
    NoCodec,
    /// A payload type above 127, twice the same, or one between 64 and 95 where RTCP may share
    /// the port (RFC 5761 section 4).
    #[error("impossible payload type {0}")]
    PayloadType(u8),
    /// A text that does not fit into its line.
    #[error("impossible text")]
    Text,
}

impl NegotiationConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if !self.codecs.iter().any(Codec::is_sound) {
            return Err(ConfigError::NoCodec);
        }
        let mux = self.rtcp_mux != RtcpMux::Never;
        for (index, codec) in self.codecs.iter().enumerate() {
            let number = codec.payload_type;
            let mut earlier = self.codecs.iter().take(index);
            let twice = earlier.any(|earlier| earlier.payload_type == number);
            if number > 127 || twice || (mux && (64..=95).contains(&number)) {
                return Err(ConfigError::PayloadType(number));
            }
            let word = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
            let line = |text: &str| text.len() <= 512 && !text.contains(['\r', '\n', '\0']);
            let parameters = codec.parameters.as_deref().unwrap_or_default();
            if !word(&codec.name) || codec.name.is_empty() || !line(parameters) {
                return Err(ConfigError::Text);
            }
        }
        let user = &self.user;
        let fits = (1..=64).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(()).ok_or(ConfigError::Text)
    }
}

/// A flag shown as an attribute of its own, or as nothing.
struct Flag(bool, &'static str);

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 {
            write!(f, "a={}\r\n", self.1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
