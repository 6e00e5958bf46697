//! What is shown: a ladder for each network, and a table at the end.

use ims_traversal::access::AccessEvent;
use ims_traversal::media::MediaEvent;
use ims_traversal::ue::{UeAction, UeConn, UeEvent};
use sip_outbound::UserAgentEvent;
use stun_proto::Instant;

use crate::common::ue::Output;
use crate::common::{now, say, seconds};
use crate::story::{Outcome, Pair};
use crate::world::{Kind, World};

const OUT: &str = " --> ";
const IN: &str = " <-- ";
const BOTH: &str = " <-> ";
const FAIL: &str = " --x ";

/// One step of one UE.
pub struct Row {
    pub at: Instant,
    pub name: &'static str,
    pub arrow: &'static str,
    pub hop: &'static str,
    pub what: String,
}

/// What a UE said, as a row of the ladder.
pub fn words(world: &World, name: &'static str, output: &Output) -> Option<Row> {
    let (arrow, hop, what) = match output {
        Output::Media(..) => return None,
        Output::Acted(UeAction::Connect { conn, to }) => {
            let hop = world.hop(&to.to_string());
            let what = match (conn, hop) {
                (UeConn::Control(_), "proxy") => "TCP, CONNECT to the P-CSCF",
                (UeConn::Media(..), "proxy") => "TCP, CONNECT to the TURN server",
                _ => "TCP",
            };
            (OUT, hop, what.to_owned())
        }
        Output::Acted(_) => return None,
        Output::Event(event) => event_words(event)?,
        Output::NoSocket(..) => return None,
    };
    Some(Row {
        at: now(),
        name,
        arrow,
        hop,
        what,
    })
}

fn event_words(event: &UeEvent) -> Option<(&'static str, &'static str, String)> {
    Some(match event {
        UeEvent::Access(event) => return access_words(event),
        UeEvent::Media { event, .. } => return media_words(event),
        UeEvent::Incoming { from, .. } => (IN, "P-CSCF", format!("INVITE from {from}")),
        UeEvent::Calling { .. } => (OUT, "P-CSCF", "INVITE".to_owned()),
        UeEvent::Ringing { code, .. } => (IN, "P-CSCF", code.to_string()),
        UeEvent::Established { .. } => (BOTH, "P-CSCF", "200 and ACK: established".to_owned()),
        UeEvent::Ended { cause, .. } => (BOTH, "P-CSCF", format!("ended: {cause}")),
        UeEvent::Message { body, .. } => {
            let text = String::from_utf8_lossy(body);
            (IN, "P-CSCF", format!("MESSAGE \"{text}\""))
        }
        UeEvent::Delivered { outcome, .. } => {
            let what = match outcome {
                Ok(code) => format!("{code} to MESSAGE"),
                Err(error) => format!("MESSAGE: {error}"),
            };
            (IN, "P-CSCF", what)
        }
        _ => return None,
    })
}

fn access_words(event: &AccessEvent) -> Option<(&'static str, &'static str, String)> {
    Some(match event {
        AccessEvent::RungFailed { rung, cause, .. } => {
            (FAIL, "P-CSCF", format!("way \"{rung}\": {cause}"))
        }
        AccessEvent::Ready {
            rung, via_proxy, ..
        } => {
            let hop = if *via_proxy { " inside CONNECT" } else { "" };
            let what = format!("TLS{hop} is up (way \"{rung}\"): REGISTER");
            (OUT, "P-CSCF", what)
        }
        AccessEvent::Agent(UserAgentEvent::Registered { registration, .. }) => {
            let expires = registration.expires;
            let what = format!("200 to REGISTER after 401: bound for {expires} s");
            (IN, "P-CSCF", what)
        }
        AccessEvent::Agent(UserAgentEvent::FlowFailed {
            cause, retry_in, ..
        }) => {
            let wait = retry_in.unwrap_or_default().as_millis();
            (FAIL, "P-CSCF", format!("flow: {cause}; again in {wait} ms"))
        }
        AccessEvent::Agent(UserAgentEvent::Unregistered { .. }) => {
            (IN, "P-CSCF", "200 to REGISTER: unbound".to_owned())
        }
        _ => return None,
    })
}

fn media_words(event: &MediaEvent) -> Option<(&'static str, &'static str, String)> {
    Some(match event {
        MediaEvent::Proxied { .. } => (IN, "proxy", "HTTP 200: tunnel open".to_owned()),
        MediaEvent::Connected { transport, .. } => {
            (BOTH, "TURN", format!("{transport} is up: Allocate"))
        }
        MediaEvent::ServerFailed { cause, .. } => (FAIL, "TURN", cause.to_string()),
        MediaEvent::Selected {
            local,
            remote,
            relay,
            ..
        } => {
            let hop = if relay.is_some() { "TURN" } else { "peer" };
            let what = format!("media: {} - {} selected", local.kind, remote.kind);
            (BOTH, hop, what)
        }
        MediaEvent::Heard { .. } => (IN, "peer", "first RTP packet".to_owned()),
        MediaEvent::RouteLost { cause, .. } => (FAIL, "peer", cause.to_string()),
        MediaEvent::Failed(failure) => (FAIL, "peer", failure.to_string()),
        _ => return None,
    })
}

/// The ladder of a network.
pub fn print(kind: Kind, pair: &Pair<'_>) {
    say(&format!("\n== {}", kind.name()));
    for row in &pair.rows {
        let time = seconds(row.at.duration_since(pair.begun));
        let Row {
            name,
            arrow,
            hop,
            what,
            ..
        } = row;
        say(&format!("  {time}  {name:<5}{arrow}{hop:<11}  {what}"));
    }
}

pub fn print_table(outcomes: &[Outcome]) {
    say("");
    say(
        "network          control         media          relay           registered  connected  recovered  sent  echoed  resent",
    );
    for outcome in outcomes {
        say(&format!(
            "{:<16} {:<15} {:<14} {:<15} {:>7} ms {:>7} ms {:>7} ms {:>5} {:>7} {:>7}",
            outcome.kind.name(),
            outcome.control,
            outcome.pair,
            outcome.relay,
            outcome.registered.as_millis(),
            outcome.connected.as_millis(),
            outcome.recovered.as_millis(),
            outcome.tally.sent,
            outcome.tally.echoed,
            outcome.tally.resent,
        ));
    }
}
