//! The ICE part of a description, written and read (RFC 8839).

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use stun_proto::Instant;
use stun_proto::auth::Secret;

use super::{Gathering, Session};
use crate::sdp::{Line, LineError, NamedCandidate};
use crate::{Candidate, CandidateError, Credentials, Remote, RemoteError, Role};

/// Candidate lines read per stream; the rest is passed over.
const MAX_CANDIDATES: usize = 128;

/// Candidates behind names read per stream; the rest is passed over.
const MAX_NAMES: usize = 16;

/// Streams read; further m= lines end the reading.
const MAX_STREAMS: usize = 32;

/// One stream of the other side's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteStream {
    /// Its candidates.
    pub candidates: Vec<Candidate>,
    /// Those behind names, for the host to resolve and to add one by one, or to leave alone.
    pub named: Vec<NamedCandidate>,
    /// There will be no more of them.
    pub complete: bool,
    /// Candidates not taken: unknown transports and kinds, names, malformed lines.
    pub skipped: usize,
}

/// The ICE part of the other side's description.
///
/// ```
/// use ice_proto::RemoteDescription;
///
/// let description = RemoteDescription::parse(
///     "v=0\r\n\
///      a=ice-ufrag:8hhY\r\n\
///      a=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
///      a=ice-options:ice2\r\n\
///      m=audio 45664 RTP/AVP 0\r\n\
///      a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host\r\n",
/// )
/// .unwrap();
/// assert!(description.remote.ice2);
/// assert_eq!(description.streams[0].candidates[0].addr.port(), 8998);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDescription {
    /// User name fragment, password and options.
    pub remote: Remote,
    /// The streams, in the order of the m= lines; one if there is no m= line.
    pub streams: Vec<RemoteStream>,
}

#[derive(Debug, Default)]
struct Credential {
    ufrag: Option<String>,
    pwd: Option<Secret>,
}

impl RemoteDescription {
    /// Reads what concerns ICE from a session description, or from a fragment of one. `None`
    /// without user name fragment and password, or when streams disagree about them: then there
    /// is no ICE, or not ICE as it is understood here.
    ///
    /// Credentials of a stream count more than those of the session (RFC 8839 section 5.4).
    pub fn parse(text: &str) -> Option<Self> {
        Self::from_lines(text.lines())
    }

    /// As [`parse`](Self::parse), from lines: those of the session and of the streams wanted, for
    /// instance.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut levels = [(); 2].map(|()| Credential::default());
        let (mut lite, mut ice2, mut all_complete) = (false, false, false);
        let mut pacing = None;
        let mut streams: Vec<RemoteStream> = Vec::new();
        let mut in_stream = false;
        for line in lines {
            if line.starts_with("m=") {
                if streams.len() >= MAX_STREAMS {
                    break;
                }
                // Lines in front of the first m= line may have been candidates of a fragment.
                if in_stream || streams.is_empty() {
                    streams.push(RemoteStream::default());
                }
                in_stream = true;
                continue;
            }
            let parsed: Result<Line, LineError> = line.parse();
            let [session, stream] = &mut levels;
            let level = if in_stream { stream } else { session };
            match parsed {
                Ok(Line::Ufrag(ufrag)) => set_same(&mut level.ufrag, ufrag)?,
                Ok(Line::Pwd(pwd)) => set_same(&mut level.pwd, pwd)?,
                Ok(ref options @ Line::Options(_)) => ice2 |= options.has_option("ice2"),
                Ok(Line::Lite) => lite = true,
                Ok(Line::Pacing(ms)) => pacing = Some(Duration::from_millis(ms.into())),
                Ok(Line::Candidate(candidate)) => in_current(&mut streams, |stream| {
                    if stream.candidates.len() < MAX_CANDIDATES {
                        stream.candidates.push(candidate);
                    } else {
                        stream.skipped = stream.skipped.saturating_add(1);
                    }
                }),
                Ok(Line::Named(named)) => in_current(&mut streams, |stream| {
                    if stream.named.len() < MAX_NAMES {
                        stream.named.push(named);
                    } else {
                        stream.skipped = stream.skipped.saturating_add(1);
                    }
                }),
                Ok(Line::EndOfCandidates) if in_stream => {
                    in_current(&mut streams, |stream| stream.complete = true);
                }
                Ok(Line::EndOfCandidates) => all_complete = true,
                Err(LineError::Unsupported | LineError::Name | LineError::Malformed)
                    if line.contains("candidate:") =>
                {
                    in_current(&mut streams, |stream| {
                        stream.skipped = stream.skipped.saturating_add(1);
                    });
                }
                Ok(_) | Err(_) => {}
            }
        }
        if all_complete {
            streams.iter_mut().for_each(|stream| stream.complete = true);
        }
        let [session, stream] = levels;
        let credentials = Credentials {
            ufrag: stream.ufrag.or(session.ufrag)?,
            pwd: stream.pwd.or(session.pwd)?,
        };
        Some(Self {
            remote: Remote {
                credentials,
                lite,
                ice2,
                pacing,
            },
            streams,
        })
    }
}

/// Sets a value once; the same again is fine, another is not.
fn set_same<T: PartialEq>(slot: &mut Option<T>, value: T) -> Option<()> {
    match slot {
        Some(known) if *known != value => None,
        Some(_) => Some(()),
        None => {
            *slot = Some(value);
            Some(())
        }
    }
}

/// Does something with the stream the lines read now belong to.
fn in_current(streams: &mut Vec<RemoteStream>, act: impl FnOnce(&mut RemoteStream)) {
    if streams.is_empty() {
        streams.push(RemoteStream::default());
    }
    if let Some(last) = streams.last_mut() {
        act(last);
    }
}

impl Session {
    /// The ICE lines of this side's description for one stream, as far as candidates are known.
    ///
    /// Once checks have settled on a pair for each component, these are the only candidates
    /// (RFC 8839 section 4.4.1.2.2), and `remote-candidates` says what the other side's are, if
    /// this side controls; that line is for offers alone.
    pub fn description(&self, stream: u16) -> Vec<Line> {
        let credentials = self.agent.local_credentials();
        let options = if self.config.trickle {
            "trickle ice2"
        } else {
            "ice2"
        };
        let mut lines = alloc::vec![
            Line::Ufrag(credentials.ufrag.clone()),
            Line::Pwd(credentials.pwd.clone()),
            Line::Options(options.into()),
        ];
        let pacing = self.config.agent.pacing;
        if self.config.agent.lite {
            lines.push(Line::Lite);
        } else if pacing != Duration::from_millis(50) {
            let ms = u32::try_from(pacing.as_millis()).unwrap_or(u32::MAX);
            lines.push(Line::Pacing(ms));
        }
        if let Some(pairs) = self.agent.settled(stream) {
            let (local, remote): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let remote = remote.into_iter().map(|c: Candidate| (c.component, c.addr));
            if self.agent.role() == Role::Controlling {
                lines.push(Line::RemoteCandidates(remote.collect()));
            }
            lines.extend(local.into_iter().map(Line::Candidate));
        } else {
            let candidates = self.agent.local_candidates();
            let of_stream = candidates.filter(|(of, _)| *of == stream);
            lines.extend(of_stream.map(|(_, candidate)| Line::Candidate(candidate)));
        }
        if self.gathering == Gathering::Done {
            lines.push(Line::EndOfCandidates);
        }
        lines
    }

    /// Takes in the other side's description: its credentials, candidates, and whether they are
    /// all. Candidates that are not taken are passed over; returns how many those are.
    ///
    /// # Errors
    /// [`RemoteError`]; nothing has changed then.
    pub fn set_remote_description(
        &mut self,
        now: Instant,
        description: &RemoteDescription,
    ) -> Result<usize, RemoteError> {
        let mut skipped = 0_usize;
        self.set_remote(now, description.remote.clone())?;
        for (stream, remote) in description.streams.iter().enumerate() {
            skipped = skipped.saturating_add(remote.skipped);
            for candidate in &remote.candidates {
                let added = self.add_remote_candidate(now, stream as u16, candidate.clone());
                if !matches!(added, Ok(()) | Err(CandidateError::Redundant)) {
                    skipped = skipped.saturating_add(1);
                }
            }
        }
        let complete = !description.streams.is_empty()
            && description.streams.iter().all(|stream| stream.complete);
        if complete {
            self.end_of_remote_candidates(now);
        }
        Ok(skipped)
    }
}
