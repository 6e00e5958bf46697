//! Lines for whoever watches: words, or JSON.

use std::time::Duration;

use ims_traversal::access::AccessEvent;
use ims_traversal::media::MediaEvent;
use ims_traversal::ue::{UeAction, UeConn, UeEvent};
use serde_json::{Map, Value, json};
use sip_outbound::UserAgentEvent;

use crate::common::ue::Output;
use crate::common::{now, say, seconds};
use stun_proto::Instant;

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub json: bool,
    pub start: Instant,
}

impl Report {
    /// One line: a step, and what belongs to it.
    pub fn step(&self, step: &str, words: &str, values: Value) {
        let since: Duration = now().duration_since(self.start);
        if self.json {
            let mut line = Map::new();
            line.insert("type".into(), step.replace(' ', "-").into());
            line.insert(
                "at".into(),
                json!((since.as_secs_f64() * 1000.0).round() / 1000.0),
            );
            if let Value::Object(values) = values {
                line.extend(values);
            }
            say(&Value::Object(line).to_string());
        } else {
            say(&format!("{:>8}  {step:<12} {words}", seconds(since)));
        }
    }

    /// What the UE says.
    pub fn output(&self, output: &Output) {
        match output {
            Output::Event(event) => self.event(event),
            Output::Acted(action) => self.action(action),
            Output::NoSocket(place, error) => {
                let why = format!("{place:?}: {error}");
                self.step("no socket", &why, json!({ "reason": why }));
            }
            Output::Media(..) => {}
        }
    }

    /// What the machine wants done.
    fn action(&self, action: &UeAction) {
        if let UeAction::Connect { conn, to } = action {
            let what = match conn {
                UeConn::Control(_) => "for SIP",
                UeConn::Media(..) => "for TURN",
            };
            let words = format!("{to}, {what}");
            self.step(
                "connecting",
                &words,
                json!({ "to": to.to_string(), "for": what }),
            );
        }
    }

    /// What happened.
    fn event(&self, event: &UeEvent) {
        match event {
            UeEvent::Access(event) => self.access(event),
            UeEvent::Media { event, .. } => self.media(event),
            UeEvent::Incoming { from, .. } => self.plain("incoming", from),
            UeEvent::Calling { .. } => self.plain("calling", "INVITE sent"),
            UeEvent::Ringing { code, .. } => self.plain("ringing", &code.to_string()),
            UeEvent::Established { .. } => self.plain("established", ""),
            UeEvent::Agreed {
                codecs,
                direction,
                ice,
                ..
            } => {
                let codec = codecs.first().map_or("", |codec| &codec.name);
                let way = if *ice { "ICE" } else { "no ICE" };
                let direction = direction.name();
                let words = format!("{codec}, {direction}, {way}");
                let values = json!({ "codec": codec, "direction": direction, "ice": ice });
                self.step("agreed", &words, values);
            }
            UeEvent::ChangeRefused { code, .. } => {
                let code = code.map_or_else(String::new, |code| code.to_string());
                self.plain("change refused", &code);
            }
            UeEvent::Info { content_type, .. } => self.plain("info", content_type),
            UeEvent::Ended { cause, .. } => self.plain("ended", &cause.to_string()),
            UeEvent::Message { from, body, .. } => {
                let text = String::from_utf8_lossy(body).into_owned();
                let values = json!({ "from": from, "text": text });
                self.step("message", &format!("{from}: {text}"), values);
            }
            UeEvent::Delivered { outcome, .. } => {
                let words = match outcome {
                    Ok(code) => code.to_string(),
                    Err(error) => error.to_string(),
                };
                self.plain("delivered", &words);
            }
            UeEvent::Stopped => self.plain("stopped", ""),
            _ => {}
        }
    }

    fn plain(&self, step: &str, words: &str) {
        let values = match words {
            "" => json!({}),
            words => json!({ "detail": words }),
        };
        self.step(step, words, values);
    }

    fn access(&self, event: &AccessEvent) {
        match event {
            AccessEvent::Trying { flow, rung, target } => {
                let words = format!("flow {}: {rung} to {target}", flow.0);
                let values = json!({
                    "flow": flow.0, "rung": rung.to_string(), "target": target.to_string(),
                });
                self.step("trying", &words, values);
            }
            AccessEvent::RungFailed { flow, rung, cause } => {
                let words = format!("flow {}: {rung}: {cause}", flow.0);
                let values = json!({
                    "flow": flow.0, "rung": rung.to_string(), "cause": cause.to_string(),
                });
                self.step("way failed", &words, values);
            }
            AccessEvent::Ready {
                flow,
                rung,
                via_proxy,
                ..
            } => {
                let hop = if *via_proxy { " through the proxy" } else { "" };
                let transport = rung.transport();
                let words = format!("flow {}: {transport}{hop}, REGISTER is sent", flow.0);
                let values = json!({
                    "flow": flow.0, "rung": rung.to_string(), "via_proxy": via_proxy,
                });
                self.step("connected", &words, values);
            }
            AccessEvent::Exhausted { flow } => {
                self.step(
                    "no way",
                    &format!("flow {}", flow.0),
                    json!({ "flow": flow.0 }),
                );
            }
            AccessEvent::ProxyCredentials { realm, .. } => self.plain("proxy asks", realm),
            AccessEvent::Agent(event) => self.agent(event),
            _ => {}
        }
    }

    fn agent(&self, event: &UserAgentEvent) {
        match event {
            UserAgentEvent::Registered {
                reg_id,
                flow,
                registration,
            } => {
                let keep = registration.keep_alive.map(|time| time.as_secs());
                let kind = if registration.outbound {
                    "outbound"
                } else {
                    "plain"
                };
                let mut words = format!("reg-id {reg_id}, flow {}: {kind}", flow.0);
                words += &format!(", for {} s", registration.expires);
                if let Some(keep) = keep {
                    words += &format!(", pings at least every {keep} s");
                }
                let values = json!({
                    "reg_id": reg_id, "flow": flow.0, "outbound": registration.outbound,
                    "expires": registration.expires, "keep_alive": keep, "path": registration.path,
                });
                self.step("registered", &words, values);
            }
            UserAgentEvent::FlowFailed {
                flow,
                cause,
                retry_in,
                ..
            } => {
                let mut words = format!("flow {}: {cause}", flow.0);
                if let Some(wait) = retry_in {
                    words += &format!(", again in {} s", wait.as_secs());
                }
                let values = json!({ "flow": flow.0, "cause": cause.to_string() });
                self.step("flow failed", &words, values);
            }
            UserAgentEvent::Refused { reg_id, cause } => {
                let words = format!("reg-id {reg_id}: {cause}");
                let values = json!({ "reg_id": reg_id, "cause": cause.to_string() });
                self.step("refused", &words, values);
            }
            UserAgentEvent::Unregistered { reg_id } => {
                let words = format!("reg-id {reg_id}");
                self.step("unregistered", &words, json!({ "reg_id": reg_id }));
            }
            UserAgentEvent::NotOutbound { reg_id } => {
                let words = format!("reg-id {reg_id}: the registrar knows no outbound");
                self.step("plain", &words, json!({ "reg_id": reg_id }));
            }
            UserAgentEvent::Suspicious { reg_id } => {
                let words = format!(
                    "reg-id {reg_id}: the realm is not that of the certificate, or the proof is wrong"
                );
                self.step("suspicious", &words, json!({ "reg_id": reg_id }));
            }
            UserAgentEvent::CardNeeded { reg_id, .. } => {
                let words = format!("reg-id {reg_id}: AKA is wanted, and there is no card here");
                self.step("card", &words, json!({ "reg_id": reg_id }));
            }
            _ => {}
        }
    }

    fn media(&self, event: &MediaEvent) {
        match event {
            MediaEvent::Proxied { server } => {
                self.plain("proxied", &format!("tunnel to {server}"));
            }
            MediaEvent::Connected {
                server, transport, ..
            } => self.plain("connected", &format!("TURN server {server}, {transport}")),
            MediaEvent::ServerFailed { server, cause, .. } => {
                let values = json!({ "server": server.to_string(), "cause": cause.to_string() });
                self.step("server", &format!("{server}: {cause}"), values);
            }
            MediaEvent::Selected {
                local,
                remote,
                relay,
                ..
            } => {
                let hop = relay.map(|leg| {
                    let proxy = if leg.via_proxy { " in CONNECT" } else { "" };
                    format!("{}{proxy}", leg.transport)
                });
                let mut words = format!("{} {} - ", local.kind, local.addr);
                words += &format!("{} {}", remote.kind, remote.addr);
                if let Some(hop) = &hop {
                    words += &format!(", relay over {hop}");
                }
                let values = json!({
                    "local": local.to_string(), "remote": remote.to_string(), "relay": hop,
                });
                self.step("selected", &words, values);
            }
            MediaEvent::Completed => self.plain("media way", "found"),
            MediaEvent::Heard { .. } => self.plain("heard", "the other side"),
            MediaEvent::Silent { .. } => self.plain("silent", "the other side"),
            MediaEvent::RouteLost { cause, .. } => self.plain("way lost", &cause.to_string()),
            MediaEvent::Failed(failure) => self.plain("no way", &failure.to_string()),
            _ => {}
        }
    }
}
