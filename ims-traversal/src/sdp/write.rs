//! A description of one's own, written down.

use core::fmt::{self, Write as _};
use core::net::IpAddr;

use alloc::string::String;
use alloc::vec::Vec;

use ice_proto::sdp::Line;

use super::values::Shown;
use super::{Codec, Direction, Flag, LocalTransport};

/// The m= lines of a session: ours, and those that were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Refused m= lines, as they are written.
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
    /// The transport protocol of ours; `RTP/AVP` if empty.
    pub(super) proto: String,
}

impl Layout {
    /// Where ours is.
    pub(super) const fn index(&self) -> usize {
        self.before.len()
    }

    pub(super) const fn len(&self) -> usize {
        self.before
            .len()
            .saturating_add(self.after.len())
            .saturating_add(1)
    }

    pub(super) fn proto(&self) -> &str {
        if self.proto.is_empty() {
            "RTP/AVP"
        } else {
            &self.proto
        }
    }
}

/// What a description says, but for its o= line.
pub(super) struct Body<'a> {
    pub(super) layout: &'a Layout,
    pub(super) codecs: &'a [Codec],
    pub(super) local: &'a LocalTransport,
    pub(super) direction: Direction,
    pub(super) mux: bool,
    pub(super) mux_only: bool,
    /// RTCP has a component of its own; in an offer also one that mux may make needless.
    pub(super) second: bool,
    /// Whether the lines of ICE are written, and that of `remote-candidates`.
    pub(super) ice: bool,
    pub(super) is_offer: bool,
    pub(super) mismatch: bool,
    pub(super) ptime: Option<u16>,
    pub(super) bandwidth: Option<u32>,
}

/// Of the session and not of a stream (RFC 8839 section 5).
const fn is_session_line(line: &Line) -> bool {
    matches!(line, Line::Lite | Line::Options(_) | Line::Pacing(_))
}

impl Body<'_> {
    /// The lines of ICE that are written, of one of both levels.
    fn ice(&self, session: bool) -> impl Iterator<Item = &Line> {
        let shown = move |line: &&Line| {
            let wanted = if let Line::Candidate(candidate) = line {
                // RTCP shares the port: nobody needs its component.
                self.second || candidate.component == 1
            } else {
                self.is_offer || !matches!(line, Line::RemoteCandidates(_))
            };
            self.ice && wanted && is_session_line(line) == session
        };
        self.local.ice.iter().filter(shown)
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "s=-\r\nc={}\r\nt=0 0\r\n", Shown(self.local.rtp.ip()))?;
        for line in self.ice(true) {
            write!(out, "a={line}\r\n")?;
        }
        for line in &self.layout.before {
            write!(out, "m={line}\r\n")?;
        }
        self.write_stream(out)?;
        for line in &self.layout.after {
            write!(out, "m={line}\r\n")?;
        }
        Ok(())
    }

    fn write_stream(&self, out: &mut String) -> fmt::Result {
        let (port, proto) = (self.local.rtp.port(), self.layout.proto());
        write!(out, "m=audio {port} {proto}")?;
        for codec in self.codecs {
            write!(out, " {}", codec.payload_type)?;
        }
        out.push_str("\r\n");
        if let Some(bandwidth) = self.bandwidth {
            write!(out, "b=AS:{bandwidth}\r\n")?;
        }
        if !self.second && !self.mux {
            // No RTCP at all (RFC 8839 section 4.2.2).
            out.push_str("b=RS:0\r\nb=RR:0\r\n");
        }
        for codec in self.codecs {
            write!(out, "a=rtpmap:{codec}\r\n")?;
            if let Some(parameters) = &codec.parameters {
                write!(out, "a=fmtp:{} {parameters}\r\n", codec.payload_type)?;
            }
        }
        if let Some(ptime) = self.ptime {
            write!(out, "a=ptime:{ptime}\r\n")?;
        }
        if let Some(rtcp) = self.local.rtcp.filter(|_| self.second) {
            write!(out, "a=rtcp:{} {}\r\n", rtcp.port(), Shown(rtcp.ip()))?;
        }
        write!(out, "{}", Flag(self.mux, "rtcp-mux"))?;
        write!(out, "{}", Flag(self.mux_only, "rtcp-mux-only"))?;
        write!(out, "{}", Flag(self.mismatch, "ice-mismatch"))?;
        for line in self.ice(false) {
            write!(out, "a={line}\r\n")?;
        }
        write!(out, "a={}\r\n", self.direction.name())
    }

    /// Everything behind the o= line.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }
}

/// The whole description.
pub(super) fn whole(user: &str, session: u64, version: u64, host: IpAddr, body: &str) -> String {
    let host = Shown(host);
    alloc::format!("v=0\r\no={user} {session} {version} {host}\r\n{body}")
}
