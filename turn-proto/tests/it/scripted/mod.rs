//! Servers with the habits of those that are out there, written from what is known of them and from
//! nothing of ours but the codec. The numbers U1 to U31 and T1 to T19 are those of the list of
//! traps.

mod coturn;
mod day;
mod pion;
mod rig;

use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;

use stun_proto::wire::{
    Class, ErrorCode, Key, Message, MessageType, Method, Nonce, PasswordAlgorithmId, Realm,
    Software, TransactionId, UnknownAttributes, Username, Writer, XorMappedAddress,
};
use turn_proto::wire::{
    self, Channel, ChannelNumber, Data, DontFragment, Lifetime, RequestedTransport, XorPeerAddress,
    XorRelayedAddress, channel_header,
};
use turn_proto::{Instant, Path};

use self::rig::{MAPPED, RELAYED};

/// What a server does about a request, other than Allocate, for an allocation it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    /// 437.
    Mismatch,
    /// 437, but 400 for ChannelBind (U7).
    BadBind,
    /// Nothing (U2).
    Silence,
}

/// How a server differs from the next one.
#[derive(Clone, Debug)]
struct Habits {
    software: &'static str,
    fingerprint: bool,
    nonce_life: Duration,
    /// A nonce may be used so many times (T18).
    nonce_uses: u32,
    /// Each 438 brings another nonce, and only the last one counts.
    nonce_each_time: bool,
    /// The nonce is looked at before user and password (T4).
    nonce_first: bool,
    /// Errors carry integrity once the user is known (U2).
    protects_errors: bool,
    /// The lifetime granted for the one asked for.
    lifetime: fn(Option<u32>) -> u32,
    /// How long the permission lives that a ChannelBind makes (U9).
    bound_permission: Duration,
    channels: RangeInclusive<u16>,
    unknown: Unknown,
    /// The code for a wrong user or password; unprotected 400 at one of them (T7).
    wrong_user: u16,
    /// The code for a forbidden peer in CreatePermission and in ChannelBind.
    denied: [u16; 2],
    /// Addresses before a forbidden one are installed although the answer is an error (U16).
    installs_before_bad: bool,
    /// DONT-FRAGMENT is refused (U18).
    refuses_dont_fragment: bool,
    /// 437 goes out before any authentication (U1).
    early_mismatch: bool,
}

#[derive(Debug)]
struct Issued {
    nonce: String,
    at: Instant,
    uses: u32,
}

#[derive(Debug)]
struct Alloc {
    expires: Instant,
    id: TransactionId,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
}

/// A request as it was answered; code 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answered {
    at: Instant,
    method: Method,
    code: u16,
    lifetime: Option<u32>,
}

#[derive(Debug)]
struct Script {
    habits: Habits,
    key: Key,
    nonces: BTreeMap<Path, Issued>,
    allocations: BTreeMap<Path, Alloc>,
    /// Peers nobody may reach.
    forbidden: Vec<IpAddr>,
    counter: u32,
    log: Vec<Answered>,
    /// What no server would like to see.
    complaints: Vec<String>,
}

/// What a handler decides.
enum Verdict {
    Ok,
    Code(u16),
    Silence,
}

impl Script {
    fn new(habits: Habits) -> Self {
        let md5 = PasswordAlgorithmId::MD5;
        Self {
            habits,
            key: Key::long_term(md5, b"alice", rig::REALM.as_bytes(), b"secret").unwrap(),
            nonces: BTreeMap::new(),
            allocations: BTreeMap::new(),
            forbidden: Vec::new(),
            counter: 0,
            log: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// The process starts anew: everything is forgotten.
    fn restart(&mut self) {
        self.nonces.clear();
        self.allocations.clear();
    }

    fn codes(&self, method: Method) -> Vec<u16> {
        let of = self.log.iter().filter(|seen| seen.method == method);
        of.map(|seen| seen.code).collect()
    }

    /// The nonce of a path, a new one if the last is of no use any more.
    fn nonce(&mut self, now: Instant, path: Path) -> String {
        let Habits {
            nonce_life,
            nonce_uses,
            ..
        } = self.habits;
        let good = |issued: &&Issued| {
            now.duration_since(issued.at) < nonce_life && issued.uses < nonce_uses
        };
        let known = self.nonces.get(&path).filter(good);
        if let Some(issued) = known.filter(|_| !self.habits.nonce_each_time) {
            return issued.nonce.clone();
        }
        self.counter += 1;
        let nonce = format!("{:016x}", u64::from(self.counter) * 0x9E37_79B9_7F4A);
        let issued = Issued {
            nonce: nonce.clone(),
            at: now,
            uses: 0,
        };
        self.nonces.insert(path, issued);
        nonce
    }

    fn is_stale(&mut self, now: Instant, path: Path, nonce: &[u8]) -> bool {
        let (life, uses) = (self.habits.nonce_life, self.habits.nonce_uses);
        let Some(issued) = self.nonces.get_mut(&path) else {
            return true;
        };
        issued.uses += 1;
        issued.nonce.as_bytes() != nonce
            || now.duration_since(issued.at) >= life
            || issued.uses > uses
    }

    /// Answers a request.
    fn request(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Option<Vec<u8>> {
        let message = Message::parse(bytes).unwrap();
        if message.class() != Class::Request {
            return None;
        }
        self.expire(now);
        let knows_only_md5 = |ty: u16| ty == 0x001C || ty == 0x001D || ty == 0x8002;
        if message.attributes().any(|raw| knows_only_md5(raw.ty.0)) {
            self.complaints
                .push("attributes nobody here offered".into());
        }
        let early = self.habits.early_mismatch
            && message.method() == wire::ALLOCATE
            && self
                .allocations
                .get(&path)
                .is_some_and(|held| held.id != message.transaction_id());
        if early {
            return Some(self.error(now, path, &message, 437, false));
        }
        match self.authenticate(now, path, &message) {
            Ok(()) => {}
            Err(code) => return Some(self.error(now, path, &message, code, false)),
        }
        let verdict = self.serve(now, path, &message);
        match verdict {
            Verdict::Ok => Some(self.success(now, path, &message)),
            Verdict::Code(code) => {
                let protected = self.habits.protects_errors;
                Some(self.error(now, path, &message, code, protected))
            }
            Verdict::Silence => None,
        }
    }

    fn authenticate(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Result<(), u16> {
        if !message.has_integrity() {
            return Err(401);
        }
        let nonce: Option<Nonce<'_>> = message.find();
        let nonce = nonce.ok_or(400_u16)?.as_bytes().to_vec();
        let known = message
            .find::<Username<'_>>()
            .map(|u| u.as_bytes().to_vec());
        let proven = known.as_deref() == Some(b"alice") && message.verify(&self.key).is_ok();
        let stale = self.is_stale(now, path, &nonce);
        match (self.habits.nonce_first, stale, proven) {
            (true, true, _) | (false, true, true) => Err(438),
            (_, _, false) => Err(self.habits.wrong_user),
            (_, false, true) => Ok(()),
        }
    }

    fn serve(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Verdict {
        if message.method() == wire::ALLOCATE {
            return self.allocate(now, path, message);
        }
        let Some(held) = self.allocations.get_mut(&path) else {
            return match self.habits.unknown {
                Unknown::BadBind if message.method() == wire::CHANNEL_BIND => Verdict::Code(400),
                Unknown::Mismatch | Unknown::BadBind => Verdict::Code(437),
                Unknown::Silence => Verdict::Silence,
            };
        };
        let peers: Vec<SocketAddr> = message
            .get_all::<XorPeerAddress>()
            .map(|peer| peer.unwrap().0)
            .collect();
        let bad = peers
            .iter()
            .position(|at| self.forbidden.contains(&at.ip()));
        match message.method() {
            wire::REFRESH => match message.find() {
                Some(Lifetime(0)) => {
                    self.allocations.remove(&path);
                }
                asked => {
                    let lifetime = (self.habits.lifetime)(asked.map(|l: Lifetime| l.0));
                    held.expires = now + Duration::from_secs(lifetime.into());
                }
            },
            wire::CREATE_PERMISSION => {
                let installed = match bad {
                    Some(bad) if self.habits.installs_before_bad => bad,
                    Some(_) => 0,
                    None => peers.len(),
                };
                for peer in &peers[..installed] {
                    held.permissions
                        .insert(peer.ip(), now + Duration::from_secs(300));
                }
                if bad.is_some() {
                    return Verdict::Code(self.habits.denied[0]);
                }
            }
            wire::CHANNEL_BIND => {
                if bad.is_some() {
                    return Verdict::Code(self.habits.denied[1]);
                }
                let number = message.find::<ChannelNumber>().unwrap().0;
                let peer = peers[0];
                let other = held
                    .channels
                    .iter()
                    .any(|(n, (at, _))| (*n == number) != (*at == peer));
                if other || !self.habits.channels.contains(&number) {
                    return Verdict::Code(400);
                }
                let expires = now + Duration::from_secs(600);
                held.channels.insert(number, (peer, expires));
                held.permissions
                    .insert(peer.ip(), now + self.habits.bound_permission);
            }
            _ => return Verdict::Silence,
        }
        Verdict::Ok
    }

    fn allocate(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Verdict {
        if self
            .allocations
            .get(&path)
            .is_some_and(|held| held.id != message.transaction_id())
        {
            return Verdict::Code(437);
        }
        if message.find::<RequestedTransport>() != Some(RequestedTransport::UDP) {
            return Verdict::Code(442);
        }
        if self.habits.refuses_dont_fragment && message.find::<DontFragment>().is_some() {
            return Verdict::Code(420);
        }
        let lifetime = (self.habits.lifetime)(message.find::<Lifetime>().map(|l| l.0));
        self.allocations.entry(path).or_insert(Alloc {
            expires: now + Duration::from_secs(lifetime.into()),
            id: message.transaction_id(),
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
        });
        Verdict::Ok
    }

    fn expire(&mut self, now: Instant) {
        self.allocations.retain(|_, held| now < held.expires);
        for held in self.allocations.values_mut() {
            held.permissions.retain(|_, until| now < *until);
            held.channels.retain(|_, (_, until)| now < *until);
        }
    }

    fn finish(&self, writer: Writer<'_>, protected: bool) -> usize {
        let software = Software::new(self.habits.software).unwrap();
        let writer = writer.attribute(&software);
        let len = match (protected, self.habits.fingerprint) {
            (true, true) => writer.message_integrity(&self.key).fingerprint().finish(),
            (true, false) => writer.message_integrity(&self.key).finish(),
            (false, true) => writer.fingerprint().finish(),
            (false, false) => writer.finish(),
        };
        len.unwrap()
    }

    fn note(&mut self, now: Instant, message: &Message<'_>, code: u16) {
        self.log.push(Answered {
            at: now,
            method: message.method(),
            code,
            lifetime: message.find::<Lifetime>().map(|l| l.0),
        });
    }

    fn success(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Vec<u8> {
        self.note(now, message, 0);
        let mut buf = [0; 500];
        let ty = message.message_type().success();
        let mut writer = Writer::new(&mut buf, ty, message.transaction_id());
        let left = self
            .allocations
            .get(&path)
            .map_or(0, |held| held.expires.duration_since(now).as_secs() as u32);
        if message.method() == wire::ALLOCATE {
            writer = writer
                .attribute(&XorRelayedAddress(RELAYED.parse().unwrap()))
                .attribute(&XorMappedAddress(MAPPED.parse().unwrap()));
        }
        if matches!(message.method(), wire::ALLOCATE | wire::REFRESH) {
            writer = writer.attribute(&Lifetime(left));
        }
        let len = self.finish(writer, true);
        buf[..len].to_vec()
    }

    fn error(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        code: u16,
        protected: bool,
    ) -> Vec<u8> {
        let about_peer = message.method() == wire::CHANNEL_BIND && message.has_integrity();
        self.note(now, message, code);
        let mut buf = [0; 500];
        let ty = message.message_type().error();
        let mut writer = Writer::new(&mut buf, ty, message.transaction_id());
        writer = writer.attribute(&ErrorCode::new(code));
        if code == 420 {
            let unknown = <DontFragment as stun_proto::wire::Attribute<'_>>::TYPE;
            writer = writer.attribute(&UnknownAttributes(core::iter::once(unknown).collect()));
        }
        // A 401 about a peer is no challenge.
        let challenge = code == 438 || (code == 401 && !protected && !about_peer);
        let nonce = challenge.then(|| self.nonce(now, path));
        if let Some(nonce) = &nonce {
            writer = writer
                .attribute(&Realm::new(rig::REALM).unwrap())
                .attribute(&Nonce::new(nonce).unwrap());
        }
        let len = self.finish(writer, protected);
        buf[..len].to_vec()
    }

    /// What the client's bytes become at the relay, if they get through.
    fn relay_client(
        &mut self,
        now: Instant,
        path: Path,
        bytes: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        self.expire(now);
        let held = self.allocations.get(&path)?;
        let (peer, data) = if bytes[0] >> 6 == 1 {
            let number = u16::from_be_bytes([bytes[0], bytes[1]]);
            let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            (held.channels.get(&number)?.0, bytes[4..4 + len].to_vec())
        } else {
            let message = Message::parse(bytes).unwrap();
            let peer = message.find::<XorPeerAddress>()?.0;
            (peer, message.find::<Data<'_>>()?.0.to_vec())
        };
        held.permissions
            .contains_key(&peer.ip())
            .then_some((peer, data))
    }

    /// What a peer's datagram becomes on its way to the client.
    fn relay_peer(
        &mut self,
        now: Instant,
        path: Path,
        peer: SocketAddr,
        data: &[u8],
    ) -> Option<Vec<u8>> {
        self.expire(now);
        let held = self.allocations.get(&path)?;
        held.permissions.get(&peer.ip())?;
        let bound = held.channels.iter().find(|(_, (at, _))| *at == peer);
        if let Some((number, _)) = bound {
            let header = channel_header(Channel::new(*number)?, data.len())?;
            let mut bytes = header.to_vec();
            bytes.extend_from_slice(data);
            if matches!(path, Path::Stream(_)) {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            return Some(bytes);
        }
        self.counter += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.counter.to_be_bytes());
        let mut buf = vec![0; data.len() + 200];
        let ty = MessageType::indication(wire::DATA);
        let writer = Writer::new(&mut buf, ty, TransactionId(id))
            .attribute(&XorPeerAddress(peer))
            .attribute(&Data(data));
        let len = self.finish(writer, false);
        buf.truncate(len);
        Some(buf)
    }
}
