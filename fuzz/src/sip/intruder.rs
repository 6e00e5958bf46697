//! Somebody on the internet who connects to the edge proxies and sends what does no good.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use sip_outbound::wire::{Limits, Message, ParseConfig, Response};
use sip_outbound::{Frame, Framer, FramerConfig, Role};

use super::edge_node::{DATAGRAM_PORT, EDGES, STREAM_PORT};
use super::speech;
use crate::sim::{Arrival, End, HostId, INTERNET, Net, Outbox};

/// Connections at a time.
const MAX_ENDS: usize = 20;

/// What was sent, to know what may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// A request that follows a forged token.
    Forged,
    /// A request that follows somebody else's token, alive or not.
    Borrowed,
    /// A request without registration.
    Stranger,
    /// Somebody else's REGISTER.
    Replay,
}

/// The intruder.
pub(super) struct Intruder {
    pub(super) host: HostId,
    ip: IpAddr,
    pcscf: bool,
    ends: BTreeMap<End, Framer>,
    outbox: Outbox,
    attempts: Vec<Attempt>,
    stopped: bool,
}

impl Intruder {
    /// Puts the intruder onto the internet.
    pub(super) fn new(net: &mut Net, pcscf: bool) -> Self {
        let ip = IpAddr::from([192, 0, 2, 66]);
        let host = net.host("mallory", &[(ip, INTERNET)]);
        net.bind(host, SocketAddr::new(ip, 5060));
        Self {
            host,
            ip,
            pcscf,
            ends: BTreeMap::new(),
            outbox: Outbox::new(),
            attempts: Vec::new(),
            stopped: false,
        }
    }

    /// Goes away.
    pub(super) fn stop(&mut self, net: &mut Net) {
        self.stopped = true;
        for end in core::mem::take(&mut self.ends).into_keys() {
            net.close(end);
        }
        self.outbox = Outbox::new();
    }

    /// Does something, with what it has overheard.
    pub(super) fn act(&mut self, net: &mut Net, paths: &[String], registers: &[Vec<u8>]) {
        let (_, ip) = *net.choices().pick(&EDGES);
        match net.choices().below(8) {
            // A whole flood of connections.
            0 => {
                let count = net.choices().index(MAX_ENDS);
                for _ in 0..count {
                    self.connect(net, SocketAddr::from((ip, STREAM_PORT)));
                }
            }
            1 => self.connect(net, SocketAddr::from((ip, STREAM_PORT))),
            2 => {
                let data = self.words(net, paths, registers);
                let from = SocketAddr::new(self.ip, 5060);
                net.send(
                    self.host,
                    from,
                    SocketAddr::from((ip, DATAGRAM_PORT)),
                    &data,
                );
            }
            3 => {
                if let Some(end) = self.some_end(net) {
                    self.ends.remove(&end);
                    self.outbox.forget(end);
                    if net.choices().flip() {
                        net.reset(end);
                    } else {
                        net.close(end);
                    }
                }
            }
            _ => {
                for _ in 0..net.choices().below(6) {
                    if let Some(end) = self.some_end(net) {
                        let data = self.words(net, paths, registers);
                        self.outbox.write(net, end, &data);
                    }
                }
            }
        }
    }

    fn connect(&mut self, net: &mut Net, to: SocketAddr) {
        if self.ends.len() < MAX_ENDS {
            let end = net.connect(self.host, self.ip, to);
            let framer = Framer::new(FramerConfig::new(Role::Client), net.now());
            self.ends.insert(end, framer);
        }
    }

    fn some_end(&self, net: &mut Net) -> Option<End> {
        let ends: Vec<_> = self.ends.keys().copied().collect();
        (!ends.is_empty()).then(|| *net.choices().pick(&ends))
    }

    fn words(&mut self, net: &mut Net, paths: &[String], registers: &[Vec<u8>]) -> Vec<u8> {
        let number = self.attempts.len();
        let choices = net.choices();
        let (attempt, route) = match choices.below(8) {
            0 => return speech::noise(choices),
            1 => return b"\r\n\r\n".repeat(choices.index(20)),
            2 => {
                let visit = speech::visit(choices, paths);
                return speech::damage(choices, visit);
            }
            3 | 4 => {
                let (edge, _) = *choices.pick(&EDGES);
                let mut token = "AQACBMAAAg8Bu8sAcQfHZBEiM0RVZneIQb-HnN4weegjNvbqvohg6Q"
                    .as_bytes()
                    .to_vec();
                if let Some(path) = paths.last().filter(|_| choices.flip()) {
                    let user = path.split(['@', ':']).nth(1).unwrap_or_default();
                    token = user.as_bytes().to_vec();
                    let at = choices.index(token.len());
                    if let Some(byte) = token.get_mut(at) {
                        *byte = if *byte == b'A' { b'B' } else { b'A' };
                    }
                }
                let token = String::from_utf8_lossy(&token).into_owned();
                (Attempt::Forged, Some(format!("<sip:{token}@{edge};lr;ob>")))
            }
            5 if !paths.is_empty() => (Attempt::Borrowed, Some(choices.pick(paths).clone())),
            6 if !registers.is_empty() => {
                self.attempts.push(Attempt::Replay);
                let data = choices.pick(registers).clone();
                let text = String::from_utf8_lossy(&data).into_owned();
                // Its own Via and Call-ID, so that the answers can be told apart.
                let mut lines: Vec<_> = text.split("\r\n").map(String::from).collect();
                lines.retain(|line| !line.starts_with("Via:") && !line.starts_with("Path:"));
                lines.insert(
                    1,
                    format!("Via: SIP/2.0/TLS 192.0.2.66;branch=z9hG4bKm{number};rport"),
                );
                return lines.join("\r\n").into_bytes();
            }
            _ => (Attempt::Stranger, None),
        };
        self.attempts.push(attempt);
        let method = *choices.pick(&["INVITE", "MESSAGE", "OPTIONS"]);
        let route = route.map_or_else(String::new, |route| format!("Route: {route}\r\n"));
        format!(
            "{method} sip:alice@192.0.2.1:49152 SIP/2.0\r\n\
             Via: SIP/2.0/TLS 192.0.2.66;branch=z9hG4bKm{number};rport\r\n{route}\
             Max-Forwards: 70\r\nFrom: <sip:mallory@example.com>;tag=m\r\n\
             To: <sip:alice@example.com>\r\nCall-ID: m{number}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:mallory@192.0.2.66;ob>\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    pub(super) fn deliver(&mut self, net: &mut Net, arrival: Arrival) {
        match arrival {
            Arrival::Bytes { end, data } => {
                let Some(mut framer) = self.ends.remove(&end) else {
                    return;
                };
                let mut input = &data[..];
                while let Some(frame) = framer.next(net.now(), &mut input) {
                    if let Frame::Message(message) = frame {
                        self.message(message);
                    }
                }
                self.ends.insert(end, framer);
            }
            Arrival::Datagram { data, .. } => {
                if let Ok(message) = Message::parse(&data, &ParseConfig::default()) {
                    self.message(message);
                }
            }
            Arrival::Eof { end } | Arrival::Reset { end } | Arrival::ConnectFailed { end, .. } => {
                self.ends.remove(&end);
                self.outbox.forget(end);
                net.close(end);
            }
            Arrival::Writable { end } => self.outbox.flush(net, end),
            _ => {}
        }
    }

    /// What comes back is a refusal, of the right kind.
    fn message(&self, message: Message) {
        assert!(
            !message.is_request(),
            "nobody sends requests to an intruder"
        );
        // What is malformed in a request is so in its answer.
        let Ok(response) = Response::check(message, &Limits::DEFAULT) else {
            return;
        };
        let code = response.code().number();
        if code < 200 {
            return;
        }
        let number = response.branch().and_then(|b| b.strip_prefix("z9hG4bKm"));
        let Some(attempt) = number
            .and_then(|n| n.parse().ok())
            .and_then(|n: usize| self.attempts.get(n))
        else {
            return;
        };
        let right = match attempt {
            // What goes to the other edge proxy goes over the core, which may fail.
            Attempt::Forged => matches!(code, 403 | 408 | 500),
            // A path that an intruder has registered with is its own.
            Attempt::Borrowed => matches!(code, 200 | 403 | 408 | 430 | 500),
            Attempt::Stranger => !self.pcscf || code == 403,
            Attempt::Replay => code >= 400,
        };
        // Overload, and what is left of damaged messages in front.
        let right = right || matches!(code, 400 | 503);
        assert!(right, "{code} to an intruder: {attempt:?}");
    }
}
