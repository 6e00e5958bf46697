//! What single lines say.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use alloc::borrow::Cow;
use alloc::string::String;

/// Formats of an m= line that are looked at.
pub(super) const MAX_FORMATS: usize = 64;

/// Where datagrams are to go.
///
/// ```
/// use ims_traversal::sdp::Destination;
///
/// let nowhere = Destination::Addr("0.0.0.0:9".parse().unwrap());
/// assert!(nowhere.is_nowhere());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An address.
    Addr(SocketAddr),
    /// A name, which nobody here resolves, and a port.
    Name(String, u16),
}

impl Destination {
    /// Port 9 of an unspecified address: candidates are still to come (RFC 8839
    /// section 4.2.5).
    pub fn is_nowhere(&self) -> bool {
        match self {
            Self::Addr(addr) => addr.ip().is_unspecified() && addr.port() == 9,
            Self::Name(..) => false,
        }
    }

    /// The address, if it is one.
    pub const fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Addr(addr) => Some(*addr),
            Self::Name(..) => None,
        }
    }
}

/// A c= line: `IN IP4 192.0.2.1`. TTL and number of multicast addresses are passed over.
///
/// ```
/// use ims_traversal::sdp::Connection;
///
/// let connection = Connection::parse("IN IP4 192.0.2.1").unwrap();
/// assert_eq!(connection.host, "192.0.2.1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// An address or a name.
    pub host: &'a str,
}

impl<'a> Connection<'a> {
    /// Reads the value of the line.
    pub fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.split(' ');
        let (net, family, host) = (words.next()?, words.next()?, words.next()?);
        if net != "IN" || words.next().is_some() {
            return None;
        }
        let host = host.split('/').next().filter(|host| !host.is_empty())?;
        let fits = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => family == "IP4",
            Ok(IpAddr::V6(_)) => family == "IP6",
            Err(_) => matches!(family, "IP4" | "IP6") && !host.contains(':'),
        };
        fits.then_some(Self { host })
    }

    pub(super) fn with_port(self, port: u16) -> Destination {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Destination::Addr(SocketAddr::new(ip.to_canonical(), port)),
            Err(_) => Destination::Name(self.host.into(), port),
        }
    }
}

/// An address as c=, o= and `a=rtcp` show it: `IN IP4 192.0.2.1`.
pub(super) struct Shown(pub(super) IpAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.0.is_ipv4() { "IP4" } else { "IP6" };
        write!(f, "IN {family} {}", self.0)
    }
}

/// The value of `a=rtcp` (RFC 3605): a port and perhaps another address.
pub(super) fn rtcp_value(value: &str) -> Option<(u16, Option<Connection<'_>>)> {
    let (port, rest) = value.split_once(' ').unwrap_or((value, ""));
    let port = port.parse().ok()?;
    match rest {
        "" => Some((port, None)),
        rest => Some((port, Some(Connection::parse(rest)?))),
    }
}

/// An m= line: `audio 4000 RTP/AVP 0 8 101`.
///
/// ```
/// use ims_traversal::sdp::MediaLine;
///
/// let line = MediaLine::parse("audio 49170/2 RTP/AVP 0 8").unwrap();
/// assert_eq!((line.port, line.ports, line.formats), (49170, 2, "0 8"));
/// assert_eq!(MediaLine { port: 0, ports: 1, ..line }.to_string(), "audio 0 RTP/AVP 0 8");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaLine<'a> {
    /// `audio`, `video`, ...
    pub media: &'a str,
    /// The port; 0 for a stream that is refused or has ended.
    pub port: u16,
    /// How many ports: 1 as a rule.
    pub ports: u16,
    /// `RTP/AVP`, ...
    pub proto: &'a str,
    /// The formats, payload types for RTP.
    pub formats: &'a str,
}

impl<'a> MediaLine<'a> {
    /// Reads the value of the line.
    pub fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.splitn(4, ' ');
        let (media, port) = (words.next()?, words.next()?);
        let (proto, formats) = (words.next()?, words.next()?);
        let (port, ports) = port.split_once('/').unwrap_or((port, "1"));
        let whole = ![media, proto, formats].contains(&"");
        whole.then_some(Self {
            media,
            port: number(port)?,
            ports: number(ports)?,
            proto,
            formats,
        })
    }

    /// The payload types among the formats; 64 at most.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        let formats = self.formats.split(' ').take(MAX_FORMATS);
        formats.filter_map(|format| number(format).filter(|pt| *pt < 128))
    }
}

impl fmt::Display for MediaLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.media, self.port)?;
        if self.ports != 1 {
            write!(f, "/{}", self.ports)?;
        }
        write!(f, " {} {}", self.proto, self.formats)
    }
}

/// A decimal number without sign.
fn number<T: core::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

/// An o= line.
///
/// ```
/// use ims_traversal::sdp::Origin;
///
/// let origin = Origin::parse("jdoe 2890844526 2890842807 IN IP4 192.0.2.1").unwrap();
/// assert_eq!((origin.session, origin.version), ("2890844526", "2890842807"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The user, `-` if there is none.
    pub user: &'a str,
    /// The session's number, decimal, of any length.
    pub session: &'a str,
    /// The version of the description, likewise; it grows with each change.
    pub version: &'a str,
    /// Whose session it is.
    pub host: &'a str,
}

impl<'a> Origin<'a> {
    /// Reads the value of the line.
    pub fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.splitn(4, ' ');
        let (user, session, version) = (words.next()?, words.next()?, words.next()?);
        let decimal = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let host = Connection::parse(words.next()?)?.host;
        (decimal(session) && decimal(version) && !user.is_empty()).then_some(Self {
            user,
            session,
            version,
            host,
        })
    }
}

/// Which way media flows, seen from whoever says it.
///
/// ```
/// use ims_traversal::sdp::Direction;
///
/// // What the other side only sends, this side only receives.
/// assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
/// assert_eq!(Direction::SendOnly.and(Direction::SendRecv), Direction::SendOnly);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// Away.
    SendOnly,
    /// Hither.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The name of its attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [
            Self::SendRecv,
            Self::SendOnly,
            Self::RecvOnly,
            Self::Inactive,
        ]
        .into_iter()
        .find(|direction| direction.name() == name)
    }

    /// Whether whoever says it sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether whoever says it receives.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same seen from the other side.
    pub const fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// What both allow.
    pub const fn and(self, other: Self) -> Self {
        Self::new(
            self.sends() && other.sends(),
            self.receives() && other.receives(),
        )
    }
}

/// A codec and its payload type.
///
/// ```
/// use ims_traversal::sdp::Codec;
///
/// let opus = Codec {
///     payload_type: 111,
///     name: "opus".into(),
///     clock_rate: 48_000,
///     channels: 2,
///     parameters: Some("useinbandfec=1".into()),
/// };
/// assert_eq!(opus.to_string(), "111 opus/48000/2");
/// assert_eq!(Codec::PCMU.to_string(), "0 PCMU/8000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// 0 to 127; 96 and above for codecs without a number of their own.
    pub payload_type: u8,
    /// As `a=rtpmap` has it; case does not count.
    pub name: Cow<'static, str>,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// 1 unless stereo or more.
    pub channels: u8,
    /// `a=fmtp`.
    pub parameters: Option<Cow<'static, str>>,
}

impl Codec {
    /// G.711 mu-law.
    pub const PCMU: Self = Self::fixed(0, "PCMU", 8000, 1);
    /// G.711 A-law.
    pub const PCMA: Self = Self::fixed(8, "PCMA", 8000, 1);
    /// Digits as events (RFC 4733).
    pub const TELEPHONE_EVENT: Self = Self {
        payload_type: 101,
        name: Cow::Borrowed("telephone-event"),
        clock_rate: 8000,
        channels: 1,
        parameters: Some(Cow::Borrowed("0-15")),
    };

    const fn fixed(payload_type: u8, name: &'static str, clock_rate: u32, channels: u8) -> Self {
        Self {
            payload_type,
            name: Cow::Borrowed(name),
            clock_rate,
            channels,
            parameters: None,
        }
    }

    /// What a payload type means without `a=rtpmap` (RFC 3551 section 6), for audio.
    fn by_number(payload_type: u8) -> Option<Self> {
        let (name, clock_rate, channels) = match payload_type {
            0 => ("PCMU", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            5 => ("DVI4", 8000, 1),
            6 => ("DVI4", 16_000, 1),
            7 => ("LPC", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44_100, 2),
            11 => ("L16", 44_100, 1),
            12 => ("QCELP", 8000, 1),
            13 => ("CN", 8000, 1),
            14 => ("MPA", 90_000, 1),
            15 => ("G728", 8000, 1),
            16 => ("DVI4", 11_025, 1),
            17 => ("DVI4", 22_050, 1),
            18 => ("G729", 8000, 1),
            _ => return None,
        };
        Some(Self::fixed(payload_type, name, clock_rate, channels))
    }

    /// Reads the value of `a=rtpmap`.
    fn parse(value: &str) -> Option<Self> {
        let (payload_type, encoding) = value.split_once(' ')?;
        let mut parts = encoding.trim_end().split('/');
        let (name, clock_rate) = (parts.next()?, parts.next()?);
        let channels = parts.next().map_or(Some(1), number)?;
        if name.is_empty() || name.len() > 64 {
            return None;
        }
        Some(Self {
            payload_type: number(payload_type).filter(|pt| *pt < 128)?,
            name: Cow::Owned(name.into()),
            clock_rate: number(clock_rate)?,
            channels,
            parameters: None,
        })
    }

    /// The codecs of a media part, in its order; formats that are not understood are left out.
    pub(super) fn all_of(section: &super::Section<'_>) -> alloc::vec::Vec<Self> {
        let Some(line) = section.media_line() else {
            return alloc::vec::Vec::new();
        };
        let described = |pt: u8| {
            let mut maps = section.attributes("rtpmap").filter_map(Self::parse);
            maps.find(|codec| codec.payload_type == pt)
        };
        let parameters = |pt: u8| {
            let mut all = section.attributes("fmtp");
            all.find_map(|value| {
                let (number, rest) = value.split_once(' ')?;
                (number.parse() == Ok(pt)).then(|| Cow::Owned(rest.into()))
            })
        };
        line.payload_types()
            .filter_map(|pt| described(pt).or_else(|| Self::by_number(pt)))
            .map(|codec| Self {
                parameters: parameters(codec.payload_type),
                ..codec
            })
            .collect()
    }

    /// Whether both are the same but for number and parameters.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
            && self.clock_rate == other.clock_rate
            && self.channels == other.channels
    }

    /// Whether it carries sound, and not only digits or silence.
    pub fn is_sound(&self) -> bool {
        let other = ["telephone-event", "CN", "tone", "red"];
        !other
            .iter()
            .any(|name| self.name.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Codec {
    /// The value of `a=rtpmap`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (payload_type, name) = (self.payload_type, &self.name);
        write!(f, "{payload_type} {name}/{}", self.clock_rate)?;
        if self.channels > 1 {
            write!(f, "/{}", self.channels)?;
        }
        Ok(())
    }
}
