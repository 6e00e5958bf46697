//! One side of offer and answer (RFC 3264) for one stream of audio.

use core::fmt;
use core::net::IpAddr;

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::lines::{Sdp, Section};
use super::remote::{self, Change, Found};
use super::values::MediaLine;
use super::write::{self, Body, Layout};
use super::{
    Codec, ConfigError, Direction, LocalTransport, Mismatch, NegotiationConfig, RemoteTransport,
    RtcpMux, SdpError,
};

/// Codecs of one's own that are written down.
const MAX_CODECS: usize = 32;

/// Why a description leads to nothing.
///
/// ```
/// use ims_traversal::sdp::{Negotiation, NegotiationConfig, NegotiationError};
///
/// let mut callee = Negotiation::new(NegotiationConfig::default(), 1).unwrap();
/// let offer = b"v=0\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nm=video 4 RTP/AVP 31\r\n";
/// assert_eq!(callee.handle_offer(offer).unwrap_err(), NegotiationError::Incompatible);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// Not now: an offer is open, or none is.
    #[error("not possible in this state")]
    State,
    /// It cannot be read.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// The offer has no stream this side could take: no audio over RTP, or no codec in common. SIP
    /// says 488 then.
    #[error("nothing in common")]
    Incompatible,
    /// The answer refuses the stream.
    #[error("the other side refuses the stream")]
    Refused,
    /// The answer does not fit the offer.
    #[error("the answer does not fit the offer")]
    Unfit,
    /// RTP and RTCP must share a port, but the other side does not let them.
    #[error("the other side wants a port for RTCP")]
    NoMux,
    /// A later offer has other options of ICE, or half new credentials, without starting over.
    #[error("ICE changes without a restart")]
    IceChanged,
    /// There is no c= line that holds, or it makes no sense.
    #[error("no usable address")]
    NoAddress,
    /// The c= line shows a name, and there is no ICE.
    #[error("a name instead of an address")]
    Name,
}

/// What both sides have agreed on.
///
/// ```
/// use ims_traversal::media::Media;
/// use ims_traversal::sdp::{Agreed, RemoteTransport};
/// use stun_proto::Instant;
///
/// fn apply(now: Instant, media: &mut Media, agreed: &Agreed) {
///     if agreed.rtcp_mux {
///         media.limit_components(now, 0, 1);
///     }
///     media.expect_data(now, agreed.direction.receives());
///     match &agreed.transport {
///         RemoteTransport::Ice(description) => drop(media.set_remote(now, description)),
///         RemoteTransport::Plain { .. } => {
///             drop(media.set_remote_plain(now, 0, &agreed.transport.addresses()));
///         }
///         RemoteTransport::Nowhere => {}
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The codecs the other side takes, with the payload types it wants; the best first.
    pub send: Vec<Codec>,
    /// Those this side takes, with its own.
    pub receive: Vec<Codec>,
    /// Which way media flows, seen from here.
    pub direction: Direction,
    /// RTP and RTCP share a port.
    pub rtcp_mux: bool,
    /// How the other side is reached.
    pub transport: RemoteTransport,
    /// Milliseconds in a packet the other side wishes for.
    pub ptime: Option<u16>,
}

/// An offer of the other side, as far as it has been understood.
///
/// ```
/// use ims_traversal::sdp::{Direction, Negotiation, NegotiationConfig};
///
/// let mut callee = Negotiation::new(NegotiationConfig::default(), 1).unwrap();
/// let offer = b"v=0\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nm=audio 4 RTP/AVP 8\r\na=sendonly\r\n";
/// let offer = callee.handle_offer(offer).unwrap();
/// assert_eq!((offer.direction, offer.restart), (Direction::RecvOnly, false));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOffer {
    /// The codecs in common, in the order of the offer.
    pub codecs: Vec<Codec>,
    /// Which way media may flow, seen from here.
    pub direction: Direction,
    /// RTP and RTCP will share a port: one component is enough.
    pub rtcp_mux: bool,
    /// How the other side is reached.
    pub transport: RemoteTransport,
    /// ICE is to start over before the answer: the other side has new credentials, or had none
    /// before.
    pub restart: bool,
    /// Milliseconds in a packet the other side wishes for.
    pub ptime: Option<u16>,
    /// The answer is to say `a=ice-mismatch`.
    mismatch: bool,
    /// How the other side is reached if the answer has no ICE.
    without_ice: RemoteTransport,
    layout: Layout,
}

impl RemoteOffer {
    /// Whether RTCP has a component of its own on the other side.
    fn has_rtcp(&self) -> bool {
        let own = match &self.transport {
            // Without candidates it is not known.
            RemoteTransport::Ice(ice) => ice.streams.first().is_none_or(|stream| {
                let second = stream.candidates.iter().any(|known| known.component > 1);
                second || stream.candidates.is_empty()
            }),
            RemoteTransport::Plain { rtcp, .. } => rtcp.is_some(),
            RemoteTransport::Nowhere => true,
        };
        own && !self.rtcp_mux
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// An offer of this side has not been answered.
    Offered {
        ice: bool,
        direction: Direction,
        layout: Layout,
    },
    /// One of the other side.
    Asked(Box<RemoteOffer>),
}

/// A description as it was said. `Debug` does not show it.
#[derive(Clone, Default)]
struct Said(String);

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// One side of offer and answer: what it says, and what has been agreed on.
///
/// For a forked call a clone takes each answer.
///
/// ```
/// use ims_traversal::sdp::{LocalTransport, Negotiation, NegotiationConfig};
///
/// let mut caller = Negotiation::new(NegotiationConfig::default(), 1).unwrap();
/// let mut callee = Negotiation::new(NegotiationConfig::default(), 2).unwrap();
/// let here = LocalTransport::plain("192.0.2.1:4000".parse().unwrap(), None);
/// let there = LocalTransport::plain("192.0.2.2:5000".parse().unwrap(), None);
///
/// let offer = caller.offer(&here).unwrap();
/// callee.handle_offer(offer.as_bytes()).unwrap();
/// let answer = callee.answer(&there).unwrap();
/// let agreed = caller.handle_answer(answer.as_bytes()).unwrap();
/// assert!(agreed.rtcp_mux);
/// assert_eq!(agreed.send[0].name, "PCMU");
/// assert_eq!(agreed.transport.addresses(), ["192.0.2.2:5000".parse().unwrap()]);
/// ```
#[derive(Clone, Debug)]
pub struct Negotiation {
    config: NegotiationConfig,
    session: u64,
    version: u64,
    /// The address in o=, which stays.
    host: Option<IpAddr>,
    /// What the last description said, passwords and all.
    said: Said,
    wish: Direction,
    layout: Layout,
    state: State,
    agreed: Option<Agreed>,
}

impl Negotiation {
    /// A negotiation before its first description. `session` is the number of the session in o=:
    /// random, so that no two sessions of a user have the same.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(mut config: NegotiationConfig, session: u64) -> Result<Self, ConfigError> {
        config.codecs.truncate(MAX_CODECS);
        config.check()?;
        Ok(Self {
            config,
            // Many read it into a signed number.
            session: session >> 1,
            version: 0,
            host: None,
            said: Said::default(),
            wish: Direction::SendRecv,
            layout: Layout::default(),
            state: State::Idle,
            agreed: None,
        })
    }

    /// What holds now.
    pub const fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// The offer that waits for [`answer`](Self::answer).
    pub const fn asked(&self) -> Option<&RemoteOffer> {
        match &self.state {
            State::Asked(offer) => Some(offer),
            State::Idle | State::Offered { .. } => None,
        }
    }

    /// Whether RTCP may need a component of its own in the next description: unless it shares that
    /// of RTP by agreement, by the offer that is asked, or because nothing else is possible.
    pub fn may_need_rtcp(&self) -> bool {
        let muxed = match (self.asked(), self.agreed()) {
            (Some(asked), _) => asked.rtcp_mux,
            (None, Some(agreed)) => agreed.rtcp_mux,
            (None, None) => false,
        };
        self.config.rtcp_mux != RtcpMux::Only && !muxed
    }

    /// Whether an offer of this side waits for its answer.
    pub(crate) const fn has_offered(&self) -> bool {
        matches!(self.state, State::Offered { .. })
    }

    /// Which way media may flow as far as this side is concerned, from the next description on:
    /// [`SendOnly`](Direction::SendOnly) puts the other side on hold,
    /// [`Inactive`](Direction::Inactive) stops everything.
    pub const fn set_direction(&mut self, wish: Direction) {
        self.wish = wish;
    }

    /// Makes an offer, the first or a later one.
    ///
    /// # Errors
    /// [`NegotiationError::State`] while an offer is open.
    pub fn offer(&mut self, local: &LocalTransport) -> Result<String, NegotiationError> {
        if self.state != State::Idle {
            return Err(NegotiationError::State);
        }
        let layout = self.layout.clone();
        let ice = !local.ice.is_empty();
        let mux = self.config.rtcp_mux != RtcpMux::Never;
        // The component that mux has made needless is not there any more.
        let muxed = self.agreed.as_ref().is_some_and(|agreed| agreed.rtcp_mux);
        let second = local.rtcp.is_some() && !muxed && self.config.rtcp_mux != RtcpMux::Only;
        // Without a component to fall back on it is mux or no RTCP at all (RFC 5761 section 5.1.3).
        let stuck = ice && mux && !second && !muxed;
        let mux_only = stuck || self.config.rtcp_mux == RtcpMux::Only;
        let body = Body {
            layout: &layout,
            codecs: &self.config.codecs,
            local,
            direction: self.wish,
            mux,
            mux_only,
            second,
            ice,
            is_offer: true,
            mismatch: false,
            ptime: self.config.ptime,
            bandwidth: self.config.bandwidth,
        };
        let text = body.text();
        self.state = State::Offered {
            ice,
            direction: self.wish,
            layout,
        };
        Ok(self.say(text, local))
    }

    /// Puts the o= line in front, with a new version if something has changed (RFC 3264
    /// section 8).
    fn say(&mut self, body: String, local: &LocalTransport) -> String {
        if body != self.said.0 {
            self.version = self.version.saturating_add(1);
            self.said = Said(body);
        }
        let host = *self.host.get_or_insert(local.rtp.ip());
        write::whole(
            &self.config.user,
            self.session,
            self.version,
            host,
            &self.said.0,
        )
    }

    /// Takes in an answer. The same as before may come again in a later response: it is of no use
    /// any more then, and [`NegotiationError::State`].
    ///
    /// # Errors
    /// [`NegotiationError`]; the offer is over then, and what was agreed on before holds.
    pub fn handle_answer(&mut self, answer: &[u8]) -> Result<&Agreed, NegotiationError> {
        let (ice, direction, layout) = match core::mem::replace(&mut self.state, State::Idle) {
            State::Offered {
                ice,
                direction,
                layout,
            } => (ice, direction, layout),
            other @ (State::Idle | State::Asked(_)) => {
                self.state = other;
                return Err(NegotiationError::State);
            }
        };
        let sdp = Sdp::parse(answer, &self.config.limits)?;
        let index = layout.index();
        if sdp.media().len() != layout.len() {
            return Err(NegotiationError::Unfit);
        }
        let own = sdp.media().get(index).ok_or(NegotiationError::Unfit)?;
        let line = own.media_line().ok_or(NegotiationError::Unfit)?;
        if line.port == 0 {
            return Err(NegotiationError::Refused);
        }
        if line.media != "audio" || line.proto != layout.proto() {
            return Err(NegotiationError::Unfit);
        }
        let send = common(&Codec::all_of(own), &self.config.codecs);
        if !send.iter().any(Codec::is_sound) {
            return Err(NegotiationError::Unfit);
        }
        let rtcp_mux = has(own, "rtcp-mux") && self.config.rtcp_mux != RtcpMux::Never;
        if !rtcp_mux && self.config.rtcp_mux == RtcpMux::Only {
            return Err(NegotiationError::NoMux);
        }
        // A mismatch here ends ICE for both (RFC 8839 section 4.2.5).
        let found = remote::find(&sdp, index, rtcp_mux, Mismatch::Refuse, ice)?;
        let allowed = sdp.direction(index).reversed().and(direction);
        let receive = common(&self.config.codecs, &send);
        let agreed = Agreed {
            receive,
            send,
            direction: held(allowed, &found.transport),
            rtcp_mux,
            transport: found.transport,
            ptime: ptime(own),
        };
        self.layout = layout;
        Ok(self.agreed.insert(agreed))
    }

    /// Takes in an offer, the first or a later one. It is to be answered, or given up with
    /// [`roll_back`](Self::roll_back).
    ///
    /// # Errors
    /// [`NegotiationError`]; nothing has changed then. [`NegotiationError::State`] while an offer
    /// is open: SIP says 491 when it was this side's.
    pub fn handle_offer(&mut self, offer: &[u8]) -> Result<&RemoteOffer, NegotiationError> {
        if self.state != State::Idle {
            return Err(NegotiationError::State);
        }
        let sdp = Sdp::parse(offer, &self.config.limits)?;
        let (index, codecs) = self.choose(&sdp).ok_or(NegotiationError::Incompatible)?;
        let own = sdp.media().get(index).unwrap_or_else(|| sdp.session());
        let only = has(own, "rtcp-mux-only");
        let rtcp_mux = has(own, "rtcp-mux") && self.config.rtcp_mux != RtcpMux::Never;
        if !rtcp_mux && (only || self.config.rtcp_mux == RtcpMux::Only) {
            return Err(NegotiationError::NoMux);
        }
        let Found {
            transport,
            mismatch,
        } = remote::find(&sdp, index, rtcp_mux, self.config.mismatch, true)?;
        let before = self.agreed.as_ref().map(|agreed| &agreed.transport);
        let restart = match before.map(|old| remote::change(old, &transport)) {
            None | Some(Change::None) => false,
            Some(Change::Restart) => true,
            Some(Change::Forbidden) => return Err(NegotiationError::IceChanged),
        };
        let without_ice = remote::plain(&sdp, index, rtcp_mux);
        let offer = RemoteOffer {
            restart,
            without_ice: without_ice.unwrap_or(RemoteTransport::Nowhere),
            codecs,
            direction: held(sdp.direction(index).reversed(), &transport),
            rtcp_mux,
            transport,
            ptime: ptime(own),
            mismatch,
            layout: layout(&sdp, index),
        };
        self.state = State::Asked(Box::new(offer));
        self.asked().ok_or(NegotiationError::State)
    }

    /// The first stream of audio this side can take, and the codecs in common.
    fn choose(&self, sdp: &Sdp<'_>) -> Option<(usize, Vec<Codec>)> {
        let mut streams = sdp.media().iter().enumerate();
        streams.find_map(|(index, section)| {
            let line = section.media_line()?;
            let fits = line.media == "audio"
                && matches!(line.proto, "RTP/AVP" | "RTP/AVPF")
                && line.port != 0;
            let common = common(&Codec::all_of(section), &self.config.codecs);
            (fits && common.iter().any(Codec::is_sound)).then_some((index, common))
        })
    }

    /// Answers the offer taken in.
    ///
    /// `local` without lines of ICE makes an answer without; so does an offer without.
    ///
    /// # Errors
    /// [`NegotiationError::State`] without one.
    pub fn answer(&mut self, local: &LocalTransport) -> Result<String, NegotiationError> {
        let offer = match core::mem::replace(&mut self.state, State::Idle) {
            State::Asked(offer) => offer,
            other @ (State::Idle | State::Offered { .. }) => {
                self.state = other;
                return Err(NegotiationError::State);
            }
        };
        let direction = offer.direction.and(self.wish);
        let receive = with_own_parameters(&offer.codecs, &self.config.codecs);
        let body = Body {
            layout: &offer.layout,
            codecs: &receive,
            local,
            direction,
            mux: offer.rtcp_mux,
            mux_only: false,
            second: local.rtcp.is_some() && offer.has_rtcp(),
            ice: offer.transport.is_ice(),
            is_offer: false,
            mismatch: offer.mismatch,
            ptime: self.config.ptime,
            bandwidth: self.config.bandwidth,
        };
        let text = body.text();
        let transport = if local.ice.is_empty() {
            offer.without_ice
        } else {
            offer.transport
        };
        self.layout = offer.layout;
        self.agreed = Some(Agreed {
            send: offer.codecs,
            receive,
            direction,
            rtcp_mux: offer.rtcp_mux,
            transport,
            ptime: offer.ptime,
        });
        Ok(self.say(text, local))
    }

    /// The open offer, of whichever side, has been refused or taken back: what was agreed on
    /// before holds.
    pub fn roll_back(&mut self) {
        self.state = State::Idle;
    }
}

fn has(section: &Section<'_>, flag: &str) -> bool {
    section.attribute(flag).is_some()
}

fn ptime(section: &Section<'_>) -> Option<u16> {
    section.attribute("ptime")?.parse().ok()
}

/// Those of `first` that are also in `second`.
fn common(first: &[Codec], second: &[Codec]) -> Vec<Codec> {
    let known = |codec: &&Codec| second.iter().any(|other| other.is_same(codec));
    first.iter().filter(known).cloned().collect()
}

/// The numbers of the offer with the parameters of this side.
fn with_own_parameters(offered: &[Codec], own: &[Codec]) -> Vec<Codec> {
    offered
        .iter()
        .map(|codec| Codec {
            parameters: own
                .iter()
                .find(|own| own.is_same(codec))
                .and_then(|own| own.parameters.clone()),
            ..codec.clone()
        })
        .collect()
}

/// Nothing is sent to a side without an address (RFC 3264 section 8.4).
const fn held(direction: Direction, transport: &RemoteTransport) -> Direction {
    match transport {
        RemoteTransport::Nowhere => direction.and(Direction::RecvOnly),
        RemoteTransport::Ice(_) | RemoteTransport::Plain { .. } => direction,
    }
}

/// The m= lines of an answer: all but one refused.
fn layout(sdp: &Sdp<'_>, index: usize) -> Layout {
    let refuse = |section: &Section<'_>| match section.media_line() {
        Some(line) => MediaLine {
            port: 0,
            ports: 1,
            ..line
        }
        .to_string(),
        None => "audio 0 RTP/AVP 0".into(),
    };
    let (before, rest) = sdp.media().split_at_checked(index).unwrap_or_default();
    let proto = rest.first().and_then(Section::media_line);
    Layout {
        before: before.iter().map(refuse).collect(),
        after: rest.iter().skip(1).map(refuse).collect(),
        proto: proto.map_or_else(String::new, |line| line.proto.into()),
    }
}
