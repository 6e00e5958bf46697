//! A description as lines: borrowed, in order, and given back byte for byte unless changed.

use core::fmt;
use core::net::IpAddr;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::values::{Connection, Direction, MediaLine, Origin, rtcp_value};
use super::{Destination, SdpError, SdpErrorKind, SdpLimits};

/// The order of lines in a session part, and in a media part.
const SESSION_ORDER: &[u8] = b"vosiuepcbtrzka";
const MEDIA_ORDER: &[u8] = b"micbka";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    CrLf,
    Lf,
    /// The last line may lack one.
    Missing,
}

/// One line: a type and a value.
///
/// ```
/// use ims_traversal::sdp::Field;
///
/// let field = Field::new('a', "ptime:20").unwrap();
/// assert_eq!(field.attribute(), Some(("ptime", "20")));
/// assert!(Field::new('a', "x\r\na=y").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Type, `=`, value.
    text: Cow<'a, [u8]>,
    ending: Ending,
}

impl fmt::Debug for Field<'_> {
    /// The line, but for secrets: passwords of ICE, keys of SRTP, `k=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = [b"a=ice-pwd:".as_slice(), b"a=crypto:", b"k="];
        match secret.iter().find(|name| self.text.starts_with(name)) {
            Some(name) => write!(f, "{}..", name.escape_ascii()),
            None => write!(f, "{}", self.text.escape_ascii()),
        }
    }
}

impl Field<'static> {
    /// A line of its own.
    ///
    /// # Errors
    /// [`SdpErrorKind::Malformed`] when the type is no small letter or the value would not stay in
    /// its line.
    pub fn new(kind: char, value: &str) -> Result<Self, SdpErrorKind> {
        let fits = !value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0));
        if !kind.is_ascii_lowercase() || !fits {
            return Err(SdpErrorKind::Malformed);
        }
        let text = alloc::format!("{kind}={value}").into_bytes();
        Ok(Self {
            text: Cow::Owned(text),
            ending: Ending::CrLf,
        })
    }
}

impl Field<'_> {
    /// The type, a small letter.
    pub fn kind(&self) -> u8 {
        self.text.first().copied().unwrap_or_default()
    }

    /// The value as it stands.
    pub fn bytes(&self) -> &[u8] {
        self.text.get(2..).unwrap_or_default()
    }

    /// The value, if it is UTF-8.
    pub fn value(&self) -> Option<&str> {
        core::str::from_utf8(self.bytes()).ok()
    }

    /// The whole line without its ending, if it is UTF-8.
    pub fn line(&self) -> Option<&str> {
        core::str::from_utf8(&self.text).ok()
    }

    /// The name of an attribute, and what stands behind its colon.
    pub fn attribute(&self) -> Option<(&str, &str)> {
        let value = self.value().filter(|_| self.kind() == b'a')?;
        Some(value.split_once(':').unwrap_or((value, "")))
    }

    fn is_attribute(&self, name: &str) -> bool {
        self.attribute().is_some_and(|(known, _)| known == name)
    }
}

/// The lines of one level: those of the session, or those of one media part, its m= line first.
///
/// ```
/// use ims_traversal::sdp::{Field, Sdp, SdpLimits};
///
/// let text = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n\
///     m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\na=x-own:1\r\na=ice-lite\r\n";
/// let mut sdp = Sdp::parse(text, &SdpLimits::default()).unwrap();
/// let audio = &mut sdp.media_mut()[0];
/// assert_eq!(audio.attribute("x-own"), Some("1"));
/// audio.set(Field::new('c', "IN IP4 203.0.113.1").unwrap());
/// audio.remove_attributes(|name| name.starts_with("ice-"));
/// assert!(sdp.to_bytes().ends_with(
///     b"m=audio 4000 RTP/AVP 0\r\nc=IN IP4 203.0.113.1\r\na=x-own:1\r\n"
/// ));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Section<'a> {
    fields: Vec<Field<'a>>,
}

impl<'a> Section<'a> {
    /// Its lines, in order.
    pub fn fields(&self) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter()
    }

    /// The value of the first line of a type.
    pub fn get(&self, kind: char) -> Option<&str> {
        let mut fields = self.fields.iter();
        let field = fields.find(|field| char::from(field.kind()) == kind);
        field.and_then(Field::value)
    }

    /// The value of the first attribute of this name; empty for a flag.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes(name).next()
    }

    /// The values of all attributes of this name.
    pub fn attributes(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter().filter_map(Field::attribute);
        fields.filter_map(move |(known, value)| (known == name).then_some(value))
    }

    /// The m= line.
    pub fn media_line(&self) -> Option<MediaLine<'_>> {
        self.get('m').and_then(MediaLine::parse)
    }

    /// The c= line of this very level.
    pub fn connection(&self) -> Option<Connection<'_>> {
        self.get('c').and_then(Connection::parse)
    }

    /// The direction said at this very level.
    pub fn direction(&self) -> Option<Direction> {
        let mut fields = self.fields.iter().filter_map(Field::attribute);
        fields.find_map(|(name, _)| Direction::parse(name))
    }

    /// Puts a line in the place of the first of its type (for attributes: of its type and name),
    /// or where its type belongs if there is none.
    pub fn set(&mut self, field: Field<'a>) {
        let same = |known: &&mut Field<'_>| match field.attribute() {
            Some((name, _)) => known.is_attribute(name),
            None => known.kind() == field.kind(),
        };
        match self.fields.iter_mut().find(same) {
            Some(known) => *known = field,
            None => self.push(field),
        }
    }

    /// Adds a line behind the last one that may stand in front of it.
    pub fn push(&mut self, field: Field<'a>) {
        let is_media = self.fields.first().is_some_and(|f| f.kind() == b'm');
        let order = if is_media { MEDIA_ORDER } else { SESSION_ORDER };
        let rank = |kind: u8| order.iter().position(|known| *known == kind);
        let own = rank(field.kind()).unwrap_or(usize::MAX);
        let last = self.fields.iter().rposition(|known| {
            // Lines of unknown types stay where they are.
            rank(known.kind()).is_some_and(|rank| rank <= own)
        });
        let at = last.map_or(0, |last| last.saturating_add(1));
        self.fields.insert(at, field);
    }

    /// Removes every line that is not to be kept.
    pub fn retain(&mut self, keep: impl FnMut(&Field<'a>) -> bool) {
        self.fields.retain(keep);
    }

    /// Removes the attributes with such names.
    pub fn remove_attributes(&mut self, gone: impl Fn(&str) -> bool) {
        let gone = |field: &Field<'_>| field.attribute().is_some_and(|(name, _)| gone(name));
        self.fields.retain(|field| !gone(field));
    }
}

/// A session description as a list of lines, borrowed from the input as far as they are unchanged.
///
/// Reading checks the shape alone: `v=0` first, then one small letter, `=` and a value on each
/// line. What the lines say is read when asked for, so that descriptions of others survive in
/// every detail.
///
/// ```
/// use ims_traversal::sdp::{Destination, Sdp, SdpLimits};
///
/// let text = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
///     m=audio 4000 RTP/AVP 0\r\n";
/// let sdp = Sdp::parse(text, &SdpLimits::default()).unwrap();
/// assert_eq!(sdp.rtp(0), Some(Destination::Addr("192.0.2.1:4000".parse().unwrap())));
/// assert_eq!(sdp.rtcp(0), Some(Destination::Addr("192.0.2.1:4001".parse().unwrap())));
/// assert_eq!(sdp.to_bytes(), text);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdp<'a> {
    session: Section<'a>,
    media: Vec<Section<'a>>,
    /// Empty lines at the end, which some add.
    tail: &'a [u8],
}

impl<'a> Sdp<'a> {
    /// Reads a description.
    ///
    /// # Errors
    /// [`SdpError`] with the number of the line.
    pub fn parse(input: &'a [u8], limits: &SdpLimits) -> Result<Self, SdpError> {
        if input.len() > limits.bytes {
            return Err(SdpErrorKind::TooLong.at(0));
        }
        let end = input
            .iter()
            .rposition(|b| !matches!(b, b'\r' | b'\n'))
            .map_or(0, |last| last.saturating_add(1));
        // The ending of the last line belongs to it.
        let rest = input.get(end..).unwrap_or_default();
        let own = match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        let (body, tail) = input
            .split_at_checked(end.saturating_add(own))
            .unwrap_or((input, &[]));
        let mut sdp = Self {
            session: Section::default(),
            media: Vec::new(),
            tail,
        };
        for (line, text) in (1..).zip(body.split_inclusive(|b| *b == b'\n')) {
            if line > limits.lines {
                return Err(SdpErrorKind::TooManyLines.at(line));
            }
            let field = field(text, line, limits).map_err(|kind| kind.at(line))?;
            if field.kind() == b'm' {
                if sdp.media.len() >= limits.media {
                    return Err(SdpErrorKind::TooManyMedia.at(line));
                }
                sdp.media.push(Section::default());
            }
            let section = sdp.media.last_mut().unwrap_or(&mut sdp.session);
            section.fields.push(field);
        }
        if sdp.session.fields.is_empty() {
            return Err(SdpErrorKind::Version.at(1));
        }
        Ok(sdp)
    }

    /// The lines of the session.
    pub const fn session(&self) -> &Section<'a> {
        &self.session
    }

    /// The lines of the session, to change them.
    pub const fn session_mut(&mut self) -> &mut Section<'a> {
        &mut self.session
    }

    /// The media parts.
    pub fn media(&self) -> &[Section<'a>] {
        &self.media
    }

    /// The media parts, to change them.
    pub fn media_mut(&mut self) -> &mut [Section<'a>] {
        &mut self.media
    }

    /// Writes the description.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let sections = core::iter::once(&self.session).chain(&self.media);
        let mut fields = sections.flat_map(|section| &section.fields).peekable();
        while let Some(field) = fields.next() {
            out.extend_from_slice(&field.text);
            match field.ending {
                Ending::CrLf => out.extend_from_slice(b"\r\n"),
                Ending::Lf => out.push(b'\n'),
                Ending::Missing if fields.peek().is_some() => out.extend_from_slice(b"\r\n"),
                Ending::Missing => {}
            }
        }
        out.extend_from_slice(self.tail);
    }

    /// The description.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_to(&mut out);
        out
    }

    /// The o= line.
    pub fn origin(&self) -> Option<Origin<'_>> {
        self.session.get('o').and_then(Origin::parse)
    }

    /// The c= line that holds for a media part: its own, else that of the session.
    pub fn connection(&self, media: usize) -> Option<Connection<'_>> {
        let own = self.media.get(media)?;
        match own.get('c') {
            Some(value) => Connection::parse(value),
            None => self.session.connection(),
        }
    }

    /// The direction of a media part: its own, else that of the session, else both ways.
    pub fn direction(&self, media: usize) -> Direction {
        let own = self.media.get(media).and_then(Section::direction);
        own.or_else(|| self.session.direction()).unwrap_or_default()
    }

    /// An attribute of a media part, or else that of the session.
    pub fn attribute(&self, media: usize, name: &str) -> Option<&str> {
        let own = self.media.get(media).and_then(|own| own.attribute(name));
        own.or_else(|| self.session.attribute(name))
    }

    /// Where a media part wants its RTP.
    pub fn rtp(&self, media: usize) -> Option<Destination> {
        let port = self.media.get(media)?.media_line()?.port;
        Some(self.connection(media)?.with_port(port))
    }

    /// Where a media part wants its RTCP (RFC 3605): what `a=rtcp` says, else the next port.
    pub fn rtcp(&self, media: usize) -> Option<Destination> {
        let own = self.media.get(media)?;
        match own.attribute("rtcp") {
            Some(value) => {
                let (port, connection) = rtcp_value(value)?;
                let connection = connection.or_else(|| self.connection(media))?;
                Some(connection.with_port(port))
            }
            None => {
                let port = own.media_line()?.port.checked_add(1)?;
                Some(self.connection(media)?.with_port(port))
            }
        }
    }

    /// The lines of the session and of one media part, as far as they are UTF-8: what
    /// [`RemoteDescription::from_lines`](ice_proto::RemoteDescription::from_lines) reads.
    pub fn lines(&self, media: usize) -> impl Iterator<Item = &str> {
        let own = self.media.get(media).into_iter();
        let fields = core::iter::once(&self.session)
            .chain(own)
            .flat_map(|section| &section.fields);
        fields.filter_map(Field::line)
    }

    /// Whether a candidate line of a media part shows this address for a component.
    pub fn has_candidate(&self, media: usize, component: u16, at: core::net::SocketAddr) -> bool {
        let shows = |value: &str| {
            let mut words = value.split(' ').skip(1);
            let own = words.next().and_then(|word| word.parse::<u16>().ok());
            let mut words = words.skip(2);
            let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
            let port = words.next().and_then(|word| word.parse::<u16>().ok());
            own == Some(component)
                && ip.map(|ip| ip.to_canonical()) == Some(at.ip())
                && port == Some(at.port())
        };
        let own = self.media.get(media);
        own.is_some_and(|own| own.attributes("candidate").any(shows))
    }

    /// The description as text; what is not UTF-8 is replaced.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.to_bytes()).into_owned()
    }
}

fn field<'a>(text: &'a [u8], line: usize, limits: &SdpLimits) -> Result<Field<'a>, SdpErrorKind> {
    let (text, ending) = match text {
        [text @ .., b'\r', b'\n'] => (text, Ending::CrLf),
        [text @ .., b'\n'] => (text, Ending::Lf),
        text => (text, Ending::Missing),
    };
    if text.len() > limits.line {
        return Err(SdpErrorKind::LineTooLong);
    }
    let [kind, b'=', value @ ..] = text else {
        return Err(SdpErrorKind::Malformed);
    };
    if !kind.is_ascii_lowercase() || value.iter().any(|b| matches!(b, b'\r' | 0)) {
        return Err(SdpErrorKind::Malformed);
    }
    if line == 1 && text != b"v=0" {
        return Err(SdpErrorKind::Version);
    }
    let known = *kind == b'm' || SESSION_ORDER.contains(kind);
    if !known && !limits.unknown_types {
        return Err(SdpErrorKind::UnknownType);
    }
    Ok(Field {
        text: Cow::Borrowed(text),
        ending,
    })
}
