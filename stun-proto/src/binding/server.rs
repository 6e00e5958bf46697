//! The Binding server: a function from requests to responses.

use alloc::string::String;

use super::classic::ClassicMessage;
use super::{ConfigError, MAX_TRANSMIT};
use crate::auth::{
    LongTermServer, LongTermServerConfig, Refusal, ShortTermRefusal, User, authenticate_short_term,
};
use crate::limit::{RateLimit, RateLimiter};
use crate::wire::{
    Attribute as _, AttributeType, Class, ErrorCode, IntegrityAlgorithm, Key, MappedAddress,
    Message, MessageType, Method, PasswordAlgorithmId, Software, TransactionId, TransmitCounter,
    UnknownAttributes, WriteError, Writer, XorMappedAddress, append_fingerprint,
};
use crate::{FiveTuple, Instant, Rng, Transmit, Transport};

/// How clients prove themselves.
#[derive(Clone, Debug, Default)]
pub enum ServerAuth {
    /// Not at all, as a basic server should (RFC 8489 section 12).
    #[default]
    None,
    /// With a password of the session.
    ShortTerm,
    /// With user name and password in a realm.
    LongTerm(LongTermServerConfig),
}

/// What a server does.
#[derive(Clone, Debug)]
pub struct BindingServerConfig {
    /// SOFTWARE in responses, at most 509 bytes. `None` by default: it makes responses to strangers
    /// longer.
    pub software: Option<String>,
    /// Answers clients of RFC 3489 over UDP. To be switched off where the socket is shared with
    /// other protocols.
    pub classic: bool,
    /// How clients prove themselves.
    pub auth: ServerAuth,
    /// How many responses unproven clients get over UDP.
    pub unverified: RateLimit,
}

impl Default for BindingServerConfig {
    fn default() -> Self {
        Self {
            software: None,
            classic: true,
            auth: ServerAuth::None,
            unverified: RateLimit::default(),
        }
    }
}

/// What a server has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BindingServerStats {
    /// Success responses.
    pub answered: u64,
    /// Error responses.
    pub refused: u64,
    /// Responses not sent, because the client's network had enough of them.
    pub limited: u64,
    /// What was no request for this server.
    pub dropped: u64,
}

#[expect(clippy::large_enum_variant, reason = "one per machine")]
#[derive(Debug)]
enum Auth {
    None,
    ShortTerm,
    LongTerm(LongTermServer),
}

/// A STUN server for the Binding method.
///
/// It keeps no state per client, never opens or closes a connection, and answers nothing but
/// requests. Streams are cut into messages by a [`Deframer`](crate::framing::Deframer) each; the
/// host leaves closing them to the client.
///
/// ```
/// use stun_proto::binding::{BindingServer, BindingServerConfig, MAX_TRANSMIT};
/// use stun_proto::{FiveTuple, Instant};
///
/// let mut server = BindingServer::new(BindingServerConfig::default(), [7; 32]).unwrap();
/// let at = FiveTuple::udp(
///     "198.51.100.1:3478".parse().unwrap(),
///     "192.0.2.9:5000".parse().unwrap(),
/// );
/// let request = [
///     0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
/// ];
/// let mut buf = [0; MAX_TRANSMIT];
/// let answer = server.respond(Instant::ZERO, at, &request, &mut buf).unwrap();
/// assert_eq!((answer.to, answer.len), (at, 32));
/// ```
#[derive(Debug)]
pub struct BindingServer {
    software: Option<String>,
    classic: bool,
    auth: Auth,
    rng: Rng,
    limiter: RateLimiter,
    stats: BindingServerStats,
}

/// A response in the buffer.
struct Answer {
    len: usize,
    success: bool,
    /// The client has proven itself.
    verified: bool,
}

impl BindingServer {
    /// A server; all its memory is taken now. All its randomness comes from `seed`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: BindingServerConfig, seed: [u8; 32]) -> Result<Self, ConfigError> {
        let mut rng = Rng::from_seed(seed);
        let software = config.software.as_deref().map(Software::new);
        if software.is_some_and(|software| software.is_err()) {
            return Err(ConfigError::Software);
        }
        let auth = match config.auth {
            ServerAuth::None => Auth::None,
            ServerAuth::ShortTerm => Auth::ShortTerm,
            ServerAuth::LongTerm(config) => {
                let server = LongTermServer::new(config, &mut rng);
                Auth::LongTerm(server.map_err(|_| ConfigError::Realm)?)
            }
        };
        Ok(Self {
            software: config.software,
            classic: config.classic,
            auth,
            limiter: RateLimiter::new(config.unverified, &mut rng),
            rng,
            stats: BindingServerStats::default(),
        })
    }

    /// Answers what came over `at`, if it is to be answered: the response in `buf`, which holds
    /// [`MAX_TRANSMIT`] bytes, goes back the same way. For servers that know no users.
    ///
    /// # Panics
    /// When `buf` is too small.
    pub fn respond(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &[u8],
        buf: &mut [u8],
    ) -> Option<Transmit<FiveTuple>> {
        self.respond_with(now, at, data, buf, |_, _| None)
    }

    /// As [`respond`](Self::respond); `key_of` finds the key of a user, made with this password
    /// algorithm where the credentials are long-term.
    ///
    /// # Panics
    /// When `buf` is too small.
    pub fn respond_with<'k>(
        &mut self,
        now: Instant,
        at: FiveTuple,
        data: &[u8],
        buf: &mut [u8],
        key_of: impl FnOnce(User<'_>, PasswordAlgorithmId) -> Option<&'k Key>,
    ) -> Option<Transmit<FiveTuple>> {
        assert!(buf.len() >= MAX_TRANSMIT, "transmit buffer too small");
        let answer = match Message::parse(data) {
            Ok(message) if is_request(message.message_type()) && is_intact(&message) => {
                self.answer(now, at, &message, buf, key_of).ok()
            }
            Ok(_) => None,
            Err(_) => self.answer_classic(at, data, buf),
        };
        let Some(answer) = answer else {
            self.stats.dropped = self.stats.dropped.saturating_add(1);
            return None;
        };
        // Other transports have shown that the address is the client's.
        let spoofable = at.transport == Transport::Udp && !answer.verified;
        if answer.verified && matches!(self.auth, Auth::LongTerm(_)) {
            // It has got a nonce there.
            self.limiter.proven(now, at.remote.ip());
        }
        if spoofable && !self.limiter.allows(now, at.remote.ip(), answer.len) {
            self.stats.limited = self.stats.limited.saturating_add(1);
            return None;
        }
        let counter = if answer.success {
            &mut self.stats.answered
        } else {
            &mut self.stats.refused
        };
        *counter = counter.saturating_add(1);
        Some(Transmit {
            to: at,
            len: answer.len,
        })
    }

    /// Signs nonces with a new key; those of the last one still count. To be called every few
    /// hours where credentials are long-term.
    pub fn rotate_nonce_key(&mut self) {
        if let Auth::LongTerm(server) = &mut self.auth {
            server.rotate_nonce_key(&mut self.rng);
        }
    }

    /// What this server has seen.
    pub const fn stats(&self) -> BindingServerStats {
        self.stats
    }

    fn answer<'k>(
        &self,
        now: Instant,
        at: FiveTuple,
        message: &Message<'_>,
        buf: &mut [u8],
        key_of: impl FnOnce(User<'_>, PasswordAlgorithmId) -> Option<&'k Key>,
    ) -> Result<Answer, WriteError> {
        let proof = match &self.auth {
            Auth::None => Ok(None),
            Auth::ShortTerm => {
                let md5 = PasswordAlgorithmId::MD5;
                let mut used = None;
                let find = |name: &[u8]| {
                    used = key_of(User::Name(name), md5);
                    used
                };
                authenticate_short_term(message, find)
                    .map(|verified| used.map(|key| (verified.algorithm(), key)))
                    .map_err(Refused::ShortTerm)
            }
            Auth::LongTerm(server) => server
                .authenticate(now, at.remote, message, key_of)
                .map(|proven| Some((proven.protection, proven.key)))
                .map_err(|refusal| Refused::LongTerm(server, refusal)),
        };
        let (len, success, verified) = match proof {
            Ok(proof) => {
                let (len, success) = self.answer_proven(at, message, buf, proof)?;
                (len, success, proof.is_some())
            }
            Err(Refused::ShortTerm(refusal)) => {
                let ty = message.message_type().error();
                let len = Writer::new(buf, ty, message.transaction_id())
                    .attribute(&ErrorCode::new(refusal.code()).with_reason(""))
                    .finish()?;
                (len, false, false)
            }
            Err(Refused::LongTerm(server, refusal)) => {
                let len = server.write_refusal(now, at.remote, message, &refusal, buf)?;
                (len, false, false)
            }
        };
        let len = if message.check_fingerprint().is_some() {
            append_fingerprint(buf, len)?
        } else {
            len
        };
        Ok(Answer {
            len,
            success,
            verified,
        })
    }

    /// The length, and whether it is a success.
    fn answer_proven(
        &self,
        at: FiveTuple,
        message: &Message<'_>,
        buf: &mut [u8],
        proof: Option<(IntegrityAlgorithm, &Key)>,
    ) -> Result<(usize, bool), WriteError> {
        let unknown = message.unknown_required(is_known).collect();
        let unknown = UnknownAttributes(unknown);
        let success = unknown.0.is_empty();
        let (ty, id) = (message.message_type(), message.transaction_id());
        let writer = if success {
            Writer::new(buf, ty.success(), id).attribute(&XorMappedAddress(at.remote))
        } else {
            let error = ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE).with_reason("");
            Writer::new(buf, ty.error(), id)
                .attribute(&error)
                .attribute(&unknown)
        };
        let counter = message.find().map(|counter| TransmitCounter {
            response: 0,
            ..counter
        });
        let software = self.software.as_deref().map(Software::new);
        let writer = writer
            .maybe(counter.as_ref())
            .maybe(software.and_then(Result::ok).as_ref());
        let len = match proof {
            Some((algorithm, key)) => writer.integrity(algorithm, key).finish()?,
            None => writer.finish()?,
        };
        Ok((len, success))
    }

    /// A request without magic cookie: RFC 3489 over UDP, an error over DTLS (RFC 8489 section 11).
    fn answer_classic(&self, at: FiveTuple, data: &[u8], buf: &mut [u8]) -> Option<Answer> {
        let message = ClassicMessage::parse(data)?;
        if !is_request(message.ty) {
            return None;
        }
        let [head @ .., _, _, _, _, _, _, _, _, _, _, _, _] = message.id;
        let [_, _, _, _, id @ ..] = message.id;
        let id = TransactionId(id);
        let unknown = UnknownAttributes(message.unknown().collect());
        let error = |buf| Writer::new(buf, message.ty.error(), id);
        let (written, success) = match at.transport {
            Transport::Udp if self.classic && matches!(self.auth, Auth::None) => {
                if unknown.0.is_empty() {
                    let mapped = MappedAddress(at.remote);
                    let writer = Writer::new(buf, message.ty.success(), id).attribute(&mapped);
                    (writer.finish(), true)
                } else {
                    let code = ErrorCode::new(ErrorCode::UNKNOWN_ATTRIBUTE).with_reason("");
                    (
                        error(buf).attribute(&code).attribute(&unknown).finish(),
                        false,
                    )
                }
            }
            Transport::Dtls => {
                let code = ErrorCode::new(ErrorCode::SERVER_ERROR).with_reason("");
                (error(buf).attribute(&code).finish(), false)
            }
            Transport::Udp | Transport::Tcp | Transport::Tls => return None,
        };
        let len = written.ok()?;
        // What stands in place of the cookie is part of the ID.
        buf.get_mut(4..8)?.copy_from_slice(&head);
        Some(Answer {
            len,
            success,
            verified: false,
        })
    }
}

enum Refused<'s, 'k> {
    ShortTerm(ShortTermRefusal),
    LongTerm(&'s LongTermServer, Refusal<'k>),
}

fn is_request(ty: MessageType) -> bool {
    ty.class() == Class::Request && ty.method() == Method::BINDING
}

/// A wrong fingerprint means that it is another protocol's message.
fn is_intact(message: &Message<'_>) -> bool {
    message.check_fingerprint() != Some(false)
}

/// The required attributes of RFC 8489; those that make no sense in a request are ignored.
fn is_known(ty: AttributeType) -> bool {
    ty == XorMappedAddress::TYPE
        || matches!(
            ty.0,
            0x0001 | 0x0006 | 0x0009 | 0x000A | 0x0014 | 0x0015 | 0x001D | 0x001E
        )
}
