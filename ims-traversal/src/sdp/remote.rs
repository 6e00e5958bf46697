//! What the other side's description says about its transport (RFC 8839 section 4.2.5).

use core::net::SocketAddr;

use alloc::vec::Vec;

use ice_proto::{Candidate, CandidateKind, RemoteDescription};

use super::lines::Sdp;
use super::values::Destination;
use super::{Mismatch, NegotiationError};

/// How the other side's stream is reached.
///
/// ```
/// use ims_traversal::sdp::RemoteTransport;
///
/// let far = RemoteTransport::Plain { rtp: "192.0.2.9:4000".parse().unwrap(), rtcp: None };
/// assert!(!far.is_ice());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteTransport {
    /// By ICE: one stream with its candidates.
    Ice(RemoteDescription),
    /// Without ICE, at these very addresses.
    Plain {
        /// RTP, and RTCP where both share a port.
        rtp: SocketAddr,
        /// RTCP, where it has a port of its own.
        rtcp: Option<SocketAddr>,
    },
    /// Not at all for now: without ICE and without an address, as old devices hold a call.
    Nowhere,
}

impl RemoteTransport {
    /// Whether it is ICE.
    pub const fn is_ice(&self) -> bool {
        matches!(self, Self::Ice(_))
    }

    /// The addresses of the components, without ICE.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Plain { rtp, rtcp } => core::iter::once(*rtp).chain(*rtcp).collect(),
            Self::Ice(_) | Self::Nowhere => Vec::new(),
        }
    }
}

/// What a later offer means for ICE (RFC 8839 section 4.4.1.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It goes on, or there is none.
    None,
    /// It begins, or begins anew.
    Restart,
    /// It may not change like this.
    Forbidden,
}

pub(super) fn change(old: &RemoteTransport, new: &RemoteTransport) -> Change {
    match (old, new) {
        (RemoteTransport::Ice(old), RemoteTransport::Ice(new)) => {
            let (before, after) = (&old.remote.credentials, &new.remote.credentials);
            match (before.ufrag == after.ufrag, before.pwd == after.pwd) {
                (true, true) if old.remote == new.remote => Change::None,
                (false, false) => Change::Restart,
                (true | false, true | false) => Change::Forbidden,
            }
        }
        (RemoteTransport::Plain { .. } | RemoteTransport::Nowhere, RemoteTransport::Ice(_)) => {
            Change::Restart
        }
        (_, RemoteTransport::Plain { .. } | RemoteTransport::Nowhere) => Change::None,
    }
}

/// What was found, and whether there would have been ICE but for a default address that is no
/// candidate.
pub(super) struct Found {
    pub(super) transport: RemoteTransport,
    pub(super) mismatch: bool,
}

/// Looks at one media part; `mux` says that RTP and RTCP share a port, `offered` that ICE may be
/// used at all.
pub(super) fn find(
    sdp: &Sdp<'_>,
    media: usize,
    mux: bool,
    policy: Mismatch,
    offered: bool,
) -> Result<Found, NegotiationError> {
    let refused = sdp
        .media()
        .get(media)
        .is_some_and(|own| own.attribute("ice-mismatch").is_some());
    let ice = RemoteDescription::from_lines(sdp.lines(media)).filter(|_| offered && !refused);
    let Some(mut ice) = ice else {
        let transport = plain(sdp, media, mux)?;
        return Ok(Found {
            transport,
            mismatch: false,
        });
    };
    let strange = mismatches(sdp, media, mux);
    if !strange.is_empty() && policy == Mismatch::Refuse {
        let transport = plain(sdp, media, mux)?;
        return Ok(Found {
            transport,
            mismatch: true,
        });
    }
    // Only who says so sends candidates later (RFC 8840 section 4.1.3); most never say that these
    // are all.
    let trickles = |options: &str| options.split(' ').any(|option| option == "trickle");
    let complete = !sdp.attribute(media, "ice-options").is_some_and(trickles);
    if let Some(stream) = ice.streams.first_mut() {
        stream.complete |= complete;
        let extra = strange.into_iter().map(|(component, addr)| Candidate {
            foundation: "default".into(),
            component,
            priority: 1,
            addr,
            kind: CandidateKind::Host,
            related: None,
        });
        stream.candidates.extend(extra);
    }
    Ok(Found {
        transport: RemoteTransport::Ice(ice),
        mismatch: false,
    })
}

/// The default addresses no candidate line shows. Names and "nowhere" never count.
fn mismatches(sdp: &Sdp<'_>, media: usize, mux: bool) -> Vec<(u16, SocketAddr)> {
    let Some(own) = sdp.media().get(media) else {
        return Vec::new();
    };
    let second = own
        .attributes("candidate")
        .any(|value| value.split(' ').nth(1) == Some("2"));
    let wants_second = second || (!mux && own.attribute("rtcp").is_some());
    let rtcp = sdp.rtcp(media).filter(|_| wants_second);
    let defaults = [(1, sdp.rtp(media)), (2, rtcp)];
    defaults
        .into_iter()
        .filter_map(|(component, to)| Some((component, to?)))
        .filter(|(_, to)| !to.is_nowhere())
        .filter_map(|(component, to)| Some((component, to.addr()?)))
        .filter(|(component, to)| {
            // With mux, `a=rtcp` may say the port of RTP or any other: it is not used.
            let unused = mux && *component == 2;
            !unused && !to.ip().is_unspecified() && !sdp.has_candidate(media, *component, *to)
        })
        .collect()
}

/// How a media part is reached without ICE.
pub(super) fn plain(
    sdp: &Sdp<'_>,
    media: usize,
    mux: bool,
) -> Result<RemoteTransport, NegotiationError> {
    let rtp = sdp.rtp(media).ok_or(NegotiationError::NoAddress)?;
    let Destination::Addr(rtp) = rtp else {
        return Err(NegotiationError::Name);
    };
    if rtp.ip().is_unspecified() {
        return Ok(RemoteTransport::Nowhere);
    }
    if rtp.ip().is_multicast() {
        return Err(NegotiationError::NoAddress);
    }
    let silent = sdp.media().get(media).is_some_and(|own| {
        let zero = |name: &str| own.fields().any(|f| f.line() == Some(name));
        zero("b=RS:0") && zero("b=RR:0")
    });
    let rtcp = sdp.rtcp(media).and_then(|to| to.addr());
    let rtcp = rtcp.filter(|to| !mux && !silent && *to != rtp);
    Ok(RemoteTransport::Plain { rtp, rtcp })
}
