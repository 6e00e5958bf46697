//! Entry functions for ICE: any bytes are a run.

use alloc::vec::Vec;
use core::net::SocketAddr;

use ice_proto::sdp::Line;
use ice_proto::{
    ComponentId, Credentials, FiveTuple, Instant, Remote, RemoteDescription, Role, Session,
    SessionConfig,
};
use stun_proto::wire::{
    IceControlled, Key, Message, MessageType, Method, Priority, UseCandidate, Username, Writer,
};

use super::{Command, SessionIn, SessionMachine, SessionOut};
use crate::contract::Checked;
use crate::sim::Choices;

const ONE: ComponentId = ComponentId {
    stream: 0,
    component: 1,
};

/// Reads a line and a description; a line that was read is written and read again.
pub fn parse_ice(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    let _ = RemoteDescription::parse(text);
    for line in text.lines() {
        if let Ok(line) = line.parse::<Line>() {
            let shown = alloc::format!("{line}");
            assert_eq!(shown.parse::<Line>(), Ok(line));
        }
    }
}

fn addr(n: u64) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1 + (n >> 1) as u8], 4000 + (n & 1) as u16))
}

/// A check as the other side makes them, for the credentials in `request`'s user name.
fn check(choices: &mut Choices, username: &str, password: &str) -> Vec<u8> {
    let mut buf = [0; 500];
    let ty = MessageType::request(Method::BINDING);
    let id = stun_proto::wire::TransactionId(choices.array());
    let nominates = choices.flip();
    let Ok(username) = Username::new(username) else {
        return Vec::new();
    };
    let len = Writer::new(&mut buf, ty, id)
        .attribute(&username)
        .attribute(&Priority(choices.u64() as u32))
        .attribute(&IceControlled(choices.u64()))
        .maybe(nominates.then_some(&UseCandidate))
        .message_integrity(&Key::short_term(password))
        .fingerprint()
        .finish();
    buf[..len.unwrap_or_default()].to_vec()
}

/// A session under operations drawn from the bytes: commands, checks of a side that knows the
/// password or does not, messages seen before with changes, time that passes.
pub fn ops_ice_session(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let mut now = Instant::ZERO;
    let make = || {
        let config = SessionConfig::new(Role::Controlling);
        Session::new(config, [7; 32], Instant::ZERO)
    };
    let local = make().agent().local_credentials().clone();
    let username = alloc::format!("{}:remote", local.ufrag);
    let host = SocketAddr::from(([192, 0, 2, 1], 5000));
    let mut session = Checked::new("ice session", now, move || SessionMachine(make()));
    session.input(now, SessionIn::Command(Command::AddHost(ONE, host)));
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut steps = 0;
    while !choices.is_spent() && steps < 200 {
        steps += 1;
        now += choices.duration(core::time::Duration::from_secs(8));
        let at = FiveTuple::udp(host, addr(choices.below(6)));
        let input = match choices.below(12) {
            0 => Some(SessionIn::Command(Command::Gather)),
            1 => Some(SessionIn::Command(Command::SetRemote(Remote {
                credentials: Credentials {
                    ufrag: "remote".into(),
                    pwd: "a password of the other side".into(),
                },
                lite: choices.chance(100),
                ice2: choices.flip(),
                pacing: None,
            }))),
            2 => {
                let line = alloc::format!(
                    "candidate:{} 1 udp {} {} {} typ host",
                    choices.below(3),
                    1 + choices.below(1000),
                    at.remote.ip(),
                    at.remote.port()
                );
                let candidate = line.parse();
                candidate
                    .ok()
                    .map(|candidate| SessionIn::Command(Command::AddRemote(0, candidate)))
            }
            3 => Some(SessionIn::Command(Command::EndOfRemote)),
            4 => Some(SessionIn::Command(Command::Send(ONE, b"data".to_vec()))),
            5 if choices.chance(50) => Some(SessionIn::Command(Command::Close)),
            6 => Some(SessionIn::Icmp(at)),
            7 | 8 => {
                let password = if choices.chance(800) {
                    local.pwd.expose()
                } else {
                    "wrong"
                };
                let bytes = check(&mut choices, &username, password);
                Some(SessionIn::Datagram(at, bytes))
            }
            9 | 10 if !seen.is_empty() => {
                let mut bytes = choices.pick(&seen).clone();
                let place = choices.index(bytes.len());
                if choices.flip() {
                    bytes[place] ^= choices.byte();
                }
                Some(SessionIn::Datagram(at, bytes))
            }
            _ => None,
        };
        let outputs = match input {
            Some(input) => session.input(now, input),
            None => session.timeout(now),
        };
        for output in outputs {
            let SessionOut::Transmit(_, bytes) = output else {
                continue;
            };
            if seen.len() < 32
                && let Ok(message) = Message::parse(&bytes)
            {
                // The answer of a side that knows the password.
                let mut buf = [0; 200];
                let ty = MessageType::request(Method::BINDING).success();
                let answer = Writer::new(&mut buf, ty, message.transaction_id())
                    .attribute(&stun_proto::wire::XorMappedAddress(host))
                    .message_integrity(&Key::short_term("a password of the other side"))
                    .fingerprint()
                    .finish();
                seen.push(buf[..answer.unwrap_or_default()].to_vec());
                seen.push(bytes);
            }
        }
    }
    session.finish(&mut choices);
}
