//! The registrar (RFC 3261 section 10.3, RFC 5626 section 6, RFC 3327, RFC 3608, RFC 5627).

mod bindings;
mod config;
mod store;
mod targets;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use http_connect::auth::{
    Challenge, ClaimedUser, DigestClaim, DigestRefusal, DigestRequest, DigestServer, HashAlgorithm,
    HexDigest,
};
use stun_proto::Rng;

pub use bindings::BindingId;
pub use config::{RegistrarConfig, RegistrarConfigError};
pub use targets::{Next, Target, Targets, with_all_challenges};

use crate::Instant;
use crate::time::{Clock, Timers};
use crate::ua::FlowId;
use crate::wire::{Aor, Builder, Message, Method, Name, Request, SipUri, StatusCode, same_host};
use bindings::Bindings;
use store::Gruus;

/// A request whose user's key is being looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What to do with a REGISTER.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "taken apart at once")]
pub enum RegisterStep {
    /// Send this response.
    Respond(Message),
    /// Look up the user's key (H(user:realm:password), see [`http_connect::auth::ha1`]) and whether
    /// the user may register this name; then call [`Registrar::key_found`], within
    /// [`key_timeout`](RegistrarConfig::key_timeout).
    NeedKey {
        /// To be given back.
        ticket: Ticket,
        /// The user the request says it is from.
        user: ClaimedUser,
        /// The hash function of the key.
        hash: HashAlgorithm,
        /// Who is to be registered.
        aor: Aor,
    },
}

/// What the host knows of a user.
#[derive(Clone, Debug)]
pub enum KeyAnswer {
    /// There is no such user.
    Unknown,
    /// The key, and what the user may do.
    Known {
        /// The key.
        ha1: HexDigest,
        /// The user may register this address of record.
        authorised: bool,
        /// The address of record exists.
        exists: bool,
    },
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrarEvent {
    /// The bindings of a user have changed by a request.
    Changed {
        /// Who.
        aor: Aor,
        /// How many there are now.
        bindings: usize,
    },
    /// A binding ran out, or its flow is gone.
    Lost {
        /// Who.
        aor: Aor,
        /// Which one.
        binding: BindingId,
    },
}

struct Pending {
    request: Request,
    flow: Option<FlowId>,
    claim: DigestClaim,
    binding: String,
}

/// Bindings that run out in one call at most; the others follow as the host takes events.
const SWEEP: usize = 256;

/// Keeps the bindings of a domain.
///
/// It answers requests; transactions, and the way to and from it, are the host's.
///
/// ```
/// use sip_outbound::wire::{Limits, Message, ParseConfig, Request, UriBuf};
/// use sip_outbound::{Instant, RegisterStep, Registrar, RegistrarConfig};
///
/// let text = b"REGISTER sip:b SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
///     To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@h>\r\n\r\n";
/// let message = Message::parse(text, &ParseConfig::default()).unwrap();
/// let request = Request::check(message, &Limits::DEFAULT).unwrap();
///
/// let now = Instant::ZERO;
/// let mut registrar = Registrar::new(RegistrarConfig::new("b"), [7; 32], now).unwrap();
/// let RegisterStep::Respond(response) = registrar.handle_register(now, None, &request) else { panic!() };
/// assert!(response.as_bytes().starts_with(b"SIP/2.0 401 "));
///
/// // Behind something that has asked who it is already:
/// let config = RegistrarConfig { digest: None, ..RegistrarConfig::new("b") };
/// let mut registrar = Registrar::new(config, [7; 32], now).unwrap();
/// let RegisterStep::Respond(response) = registrar.handle_register(now, None, &request) else { panic!() };
/// assert!(response.as_bytes().starts_with(b"SIP/2.0 200 "));
/// let who = UriBuf::parse("sip:a@b").unwrap();
/// let mut targets = registrar.targets(&who.as_uri()).unwrap();
/// assert_eq!(targets.first(0).unwrap().contact.as_str(), "sip:a@h");
/// ```
pub struct Registrar {
    config: RegistrarConfig,
    rng: Rng,
    clock: Clock,
    digest: Option<DigestServer>,
    bindings: Bindings,
    gruus: Gruus,
    pending: BTreeMap<Ticket, Pending>,
    /// When a question has to be answered.
    questions: Timers<Ticket>,
    next_ticket: u64,
    /// Responses to requests whose questions were not answered in time.
    late: VecDeque<(Ticket, Message)>,
    events: VecDeque<RegistrarEvent>,
}

impl core::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Registrar")
            .field("domains", &self.config.domains)
            .field("bindings", &self.bindings.len())
            .finish_non_exhaustive()
    }
}

/// A refusal that is not more than its code and one field.
struct Refusal(StatusCode, Option<(Name, String)>);

impl From<StatusCode> for Refusal {
    fn from(code: StatusCode) -> Self {
        Self(code, None)
    }
}

impl Registrar {
    /// A registrar without bindings. `seed` must come from a cryptographic source.
    ///
    /// # Errors
    /// [`RegistrarConfigError`].
    pub fn new(
        config: RegistrarConfig,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, RegistrarConfigError> {
        config.check()?;
        let mut rng = Rng::from_seed(seed);
        let digest = match &config.digest {
            None => None,
            Some(digest) => {
                let mut own = http_connect::Rng::from_seed(rng.fork());
                Some(DigestServer::new(digest.clone(), &mut own)?)
            }
        };
        Ok(Self {
            rng,
            clock: Clock::new(now),
            digest,
            bindings: Bindings::default(),
            gruus: Gruus::default(),
            pending: BTreeMap::new(),
            questions: Timers::new(),
            next_ticket: 0,
            late: VecDeque::new(),
            events: VecDeque::new(),
            config,
        })
    }

    /// Takes in a REGISTER; `flow` is the one it came over, if the client itself is at the other
    /// end when the request has one Via.
    pub fn handle_register(
        &mut self,
        now: Instant,
        flow: Option<FlowId>,
        request: &Request,
    ) -> RegisterStep {
        let now = self.clock.advance(now);
        self.expire(now);
        if self.events.len() >= self.config.max_events {
            let refusal = StatusCode::SERVICE_UNAVAILABLE.into();
            return RegisterStep::Respond(self.refuse(request, &refusal));
        }
        let aor = match self.check(request) {
            Ok(aor) => aor,
            Err(refusal) => return RegisterStep::Respond(self.refuse(request, &refusal)),
        };
        if self.digest.is_none() {
            let message = self.store(now, flow, request, &aor, None);
            return RegisterStep::Respond(message);
        }
        let binding = nonce_binding(flow, request);
        let claim = match self.claim(request) {
            Ok(Some(claim)) => claim,
            Ok(None) => {
                return RegisterStep::Respond(self.challenge(now, request, &binding, false));
            }
            Err(()) => {
                let refusal = StatusCode::BAD_REQUEST.into();
                return RegisterStep::Respond(self.refuse(request, &refusal));
            }
        };
        if let Some(response) = self.screen(now, request, &binding, &claim) {
            return RegisterStep::Respond(response);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.saturating_add(1);
        let (user, hash) = (claim.user().clone(), claim.hash());
        let pending = Pending {
            request: request.clone(),
            flow,
            claim,
            binding,
        };
        self.pending.insert(ticket, pending);
        let wait = self.config.key_timeout;
        self.questions.arm(ticket, now, wait);
        RegisterStep::NeedKey {
            ticket,
            user,
            hash,
            aor,
        }
    }

    /// The answer to a request whose user is not looked up: the nonce is none of ours, or there are
    /// as many questions as allowed.
    fn screen(
        &mut self,
        now: Instant,
        request: &Request,
        binding: &str,
        claim: &DigestClaim,
    ) -> Option<Message> {
        let digest = self.digest.as_ref()?;
        match digest.screen(now, binding.as_bytes(), digest_request(request), claim) {
            Ok(()) => {}
            Err(DigestRefusal::Malformed) => {
                return Some(self.refuse(request, &StatusCode::BAD_REQUEST.into()));
            }
            // Of another server, or of this one before it was started: nothing is wrong with the
            // password.
            Err(DigestRefusal::Forged) => return Some(self.challenge(now, request, binding, true)),
            Err(_) => return Some(self.challenge(now, request, binding, false)),
        }
        let same = |pending: &&Pending| pending.binding == binding;
        let of_flow = self.pending.values().filter(same).count();
        let share = !binding.is_empty() && of_flow >= self.config.max_pending_per_flow;
        if !share && self.pending.len() < self.config.max_pending {
            return None;
        }
        Some(self.refuse(request, &StatusCode::SERVICE_UNAVAILABLE.into()))
    }

    /// The host has looked a user up: the response to send. `None` for an unknown ticket.
    pub fn key_found(
        &mut self,
        now: Instant,
        ticket: Ticket,
        answer: &KeyAnswer,
    ) -> Option<Message> {
        let now = self.clock.advance(now);
        self.expire(now);
        self.questions.disarm(ticket);
        let Pending {
            request,
            flow,
            claim,
            binding,
        } = self.pending.remove(&ticket)?;
        let (ha1, authorised, exists) = match answer {
            KeyAnswer::Unknown => (None, false, false),
            KeyAnswer::Known {
                ha1,
                authorised,
                exists,
            } => (Some(ha1), *authorised, *exists),
        };
        let asked = digest_request(&request);
        let digest = self.digest.as_mut()?;
        let proof = digest.verify_claim(now, binding.as_bytes(), asked, claim, ha1);
        Some(match proof {
            Err(DigestRefusal::Malformed) => self.refuse(&request, &StatusCode::BAD_REQUEST.into()),
            Err(DigestRefusal::Stale | DigestRefusal::Forged) => {
                self.challenge(now, &request, &binding, true)
            }
            Err(_) => self.challenge(now, &request, &binding, false),
            Ok(_) if !authorised => self.refuse(&request, &StatusCode::FORBIDDEN.into()),
            Ok(_) if !exists => self.refuse(&request, &StatusCode::NOT_FOUND.into()),
            Ok(proof) => match self.check(&request) {
                Ok(aor) => self.store(now, flow, &request, &aor, Some(proof.info(b""))),
                Err(refusal) => self.refuse(&request, &refusal),
            },
        })
    }

    /// Everything that can be said before asking who it is: domain, extensions, name.
    fn check(&self, request: &Request) -> Result<Aor, Refusal> {
        let limits = &self.config.parse.limits;
        if *request.method() != Method::REGISTER {
            let allow = (Name::ALLOW, String::from("REGISTER"));
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, Some(allow)));
        }
        let served = |uri: &SipUri<'_>| {
            let mut domains = self.config.domains.iter();
            domains.any(|domain| same_host(domain, uri.host()))
        };
        let uri = request.uri(limits).map_err(|_| StatusCode::BAD_REQUEST)?;
        if !uri.sip().is_some_and(|uri| served(&uri)) {
            return Err(StatusCode::NOT_FOUND.into());
        }
        let known = ["path", "outbound", "gruu"];
        let unknown: alloc::vec::Vec<_> = request
            .list(Name::REQUIRE)
            .filter(|tag| !known.iter().any(|known| known.eq_ignore_ascii_case(tag)))
            .collect();
        if !unknown.is_empty() {
            let field = (Name::UNSUPPORTED, unknown.join(", "));
            return Err(Refusal(StatusCode::BAD_EXTENSION, Some(field)));
        }
        let to = request.to(limits).map_err(|_| StatusCode::BAD_REQUEST)?;
        let to = to.uri.sip().ok_or(StatusCode::BAD_REQUEST)?;
        if served(&to) {
            Ok(to.aor())
        } else {
            Err(StatusCode::NOT_FOUND.into())
        }
    }

    /// The credentials for our realm; other realms and schemes are somebody else's.
    fn claim(&self, request: &Request) -> Result<Option<DigestClaim>, ()> {
        let realm = self.digest.as_ref().map(DigestServer::realm);
        let credentials = request
            .rows(Name::AUTHORIZATION)
            .filter_map(|row| Challenge::parse(row).ok())
            .find(|c| c.is("Digest") && c.parameter("realm").as_deref() == realm);
        let Some(credentials) = credentials else {
            return Ok(None);
        };
        // The first REGISTER in IMS names the user and answers nothing.
        if credentials.parameter("response").as_deref() == Some("") {
            return Ok(None);
        }
        DigestClaim::read(&credentials).map(Some).map_err(|_| ())
    }

    fn challenge(
        &mut self,
        now: Instant,
        request: &Request,
        binding: &str,
        stale: bool,
    ) -> Message {
        let rows = match &mut self.digest {
            Some(digest) => digest.challenges(now, binding.as_bytes(), stale),
            None => alloc::vec::Vec::new(),
        };
        let tag = self.tag();
        let mut builder = Builder::reply(request, StatusCode::UNAUTHORIZED, Some(&tag));
        for row in rows {
            builder = builder.header(Name::WWW_AUTHENTICATE, row);
        }
        finish(builder, request)
    }

    fn refuse(&mut self, request: &Request, refusal: &Refusal) -> Message {
        let Refusal(code, field) = refusal;
        let tag = self.tag();
        let mut builder = Builder::reply(request, *code, Some(&tag));
        if let Some((name, value)) = field {
            builder = builder.header(*name, value);
        }
        finish(builder, request)
    }

    fn tag(&mut self) -> String {
        alloc::format!("{:016x}", self.rng.u64())
    }

    /// Where requests for this URI go; a GRUU names one device (RFC 5627). `None` when the domain
    /// is not served here.
    pub fn targets(&self, uri: &SipUri<'_>) -> Option<Targets> {
        let now = self.clock.now();
        let mut domains = self.config.domains.iter();
        if !domains.any(|domain| same_host(domain, uri.host())) {
            return None;
        }
        if !uri.has_param("gr") {
            return Some(self.bindings.targets(now, &uri.aor(), None));
        }
        Some(match uri.param("gr") {
            Some(instance) => {
                let instance = store::normal_instance(instance);
                self.bindings.targets(now, &uri.aor(), Some(&instance))
            }
            None => match self.gruus.find(uri.user().unwrap_or_default()) {
                Some((aor, instance)) => self.bindings.targets(now, aor, Some(instance)),
                None => Targets::new(alloc::vec::Vec::new()),
            },
        })
    }

    /// Removes a binding whose flow has failed (430).
    pub fn drop_binding(&mut self, binding: BindingId) {
        if let Some((aor, binding)) = self.bindings.remove(binding) {
            self.lost(aor, &binding);
        }
    }

    /// A flow of a client that is connected here is gone: all bindings over it are, too.
    pub fn flow_closed(&mut self, now: Instant, flow: FlowId) {
        let now = self.clock.advance(now);
        self.expire(now);
        for binding in self.bindings.on_flow(flow) {
            self.drop_binding(binding);
        }
    }

    fn lost(&mut self, aor: Aor, binding: &bindings::Binding) {
        let binding = binding.id;
        self.gruus.keep(&aor, self.bindings.of(&aor));
        self.events.push_back(RegistrarEvent::Lost { aor, binding });
    }

    /// Lets bindings run out, and gives up questions that are not answered. When many are due, the
    /// rest of them runs out while [`poll_event`](Self::poll_event) is called.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.advance(now);
        self.expire(now);
    }

    /// Also before each request, for hosts that are late. What has not been reached does not count
    /// any more all the same.
    fn expire(&mut self, now: Instant) {
        while let Some(ticket) = self.questions.expired(now) {
            if let Some(pending) = self.pending.remove(&ticket) {
                let retry = (Name::RETRY_AFTER, String::from("5"));
                let refusal = Refusal(StatusCode::SERVER_ERROR, Some(retry));
                let response = self.refuse(&pending.request, &refusal);
                self.late.push_back((ticket, response));
            }
        }
        for _ in 0..SWEEP {
            let Some((aor, binding)) = self.bindings.expired(now) else {
                return;
            };
            self.lost(aor, &binding);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.bindings.poll_timeout(), self.questions.next()];
        timers.into_iter().flatten().min()
    }

    /// The next response to a request whose key the host has not found within
    /// [`key_timeout`](RegistrarConfig::key_timeout): 500. An answer to its ticket comes too late
    /// now.
    pub fn poll_response(&mut self) -> Option<(Ticket, Message)> {
        self.late.pop_front()
    }

    /// What has changed next.
    pub fn poll_event(&mut self) -> Option<RegistrarEvent> {
        if self.events.is_empty() {
            self.expire(self.clock.now());
        }
        self.events.pop_front()
    }

    /// A bound for the bytes this registrar ever holds: see [`RegistrarConfig::max_memory`].
    pub const fn max_memory(&self) -> usize {
        self.config.max_memory()
    }

    /// How many bindings there are.
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn digest_request(request: &Request) -> DigestRequest<'_> {
    DigestRequest {
        method: request.method().as_str(),
        uri: request.uri_text(),
        body: request.body(),
    }
}

/// What a nonce is good for only: the flow of the client, here or at its edge proxy.
fn nonce_binding(flow: Option<FlowId>, request: &Request) -> String {
    match (request.list(Name::PATH).last(), flow) {
        (Some(path), _) => path.into(),
        (None, Some(flow)) => alloc::format!("{}", flow.0),
        (None, None) => String::new(),
    }
}

/// A response that cannot be written, being over a limit, becomes a plain 500. That one is made of
/// fields that have been read, and shorter than the request.
fn finish(builder: Builder, request: &Request) -> Message {
    let fallback = || Builder::reply(request, StatusCode::SERVER_ERROR, Some("0")).finish(b"");
    match builder.finish(b"").or_else(|_| fallback()) {
        Ok(message) => message,
        // Never reached; nobody answers what looks like a request of its own.
        Err(_) => request.message().clone(),
    }
}

#[cfg(test)]
mod tests;
