//! What a registrar must hold, written down once more in the plainest way: a list of bindings, and
//! the rules of RFC 3261 section 10.3 and RFC 5626 section 6 one after the other.

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use sip_outbound::wire::{
    Limits, Message, Method, Name, NameAddr, Request, Response, SipUri, StatusCode, UriBuf,
};
use sip_outbound::{FlowId, Instant, Next, Registrar, RegistrarConfig, RegistrarEvent, Target};

const LIMITS: Limits = Limits::DEFAULT;

/// A binding.
#[derive(Clone, Debug)]
struct Bound {
    aor: String,
    instance: Option<String>,
    /// Only of outbound bindings.
    reg_id: Option<u32>,
    uri: UriBuf,
    path: Vec<String>,
    flow: Option<FlowId>,
    call_id: String,
    cseq: u32,
    expires: Instant,
    /// Larger is later.
    updated: u64,
}

/// The bindings there must be.
#[derive(Debug)]
pub(super) struct Model {
    domain: String,
    bindings: Vec<Bound>,
    min_expires: u32,
    max_expires: u32,
    default_expires: u32,
    max_bindings: usize,
    max_total: usize,
    updates: u64,
}

/// What is expected of a REGISTER.
type Verdict = Result<Vec<Bound>, u16>;

fn normal(instance: &str) -> String {
    if instance.to_ascii_lowercase().starts_with("urn:uuid:") {
        instance.to_ascii_lowercase()
    } else {
        instance.to_owned()
    }
}

impl Model {
    pub(super) fn new(config: &RegistrarConfig) -> Self {
        Self {
            domain: config.domains[0].clone(),
            bindings: Vec::new(),
            min_expires: config.min_expires,
            max_expires: config.max_expires,
            default_expires: config.default_expires,
            max_bindings: config.max_bindings,
            max_total: config.max_total,
            updates: 0,
        }
    }

    /// Bindings whose time is over are no more.
    pub(super) fn expire(&mut self, now: Instant) {
        self.bindings.retain(|bound| bound.expires > now);
    }

    /// A flow of a client is gone.
    pub(super) fn flow_closed(&mut self, flow: FlowId) {
        self.bindings.retain(|bound| bound.flow != Some(flow));
    }

    /// A target of this user turned out to be dead.
    pub(super) fn drop_target(&mut self, aor: &str, target: &Target) {
        // An outbound and a plain binding may look the same: the later one is tried first.
        let all = self.bindings.iter().enumerate();
        let same = all.filter(|(_, bound)| bound.aor == aor && is(bound, target));
        if let Some((at, _)) = same.max_by_key(|(_, bound)| bound.updated) {
            self.bindings.remove(at);
        }
    }

    /// The registrar has answered a REGISTER that it believes to be who it says; the answer must be
    /// the right one.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        flow: Option<FlowId>,
        request: &Request,
        answer: &Message,
    ) {
        self.expire(now);
        let response = Response::check(answer.clone(), &LIMITS).expect("a response");
        let code = response.code().number();
        let expected = match self.verdict(now, flow, request) {
            Err(expected) => expected,
            Ok(bindings) => {
                self.bindings = bindings;
                200
            }
        };
        let text = || request.as_bytes().escape_ascii().to_string();
        assert_eq!(code, expected, "answer to {}", text());
        if code == 200 {
            self.check_list(now, request, &response);
        }
    }

    /// The 200 names every binding of the user, and no other.
    fn check_list(&self, now: Instant, request: &Request, response: &Response) {
        let aor = aor_of(request);
        let mut expected: Vec<_> = self
            .bindings
            .iter()
            .filter(|bound| bound.aor == aor)
            .map(|bound| {
                let left = bound.expires.duration_since(now).as_secs();
                (bound.uri.as_str().to_owned(), bound.instance.clone(), left)
            })
            .collect();
        let mut listed: Vec<_> = response
            .contacts(&LIMITS)
            .map(|contact| {
                let contact = contact.expect("a contact");
                let instance = contact.instance().map(|urn| normal(&urn));
                let left = u64::from(contact.expires().expect("expires"));
                (contact.uri.as_str().to_owned(), instance, left)
            })
            .collect();
        expected.sort();
        listed.sort();
        assert_eq!(listed, expected, "bindings of {aor}");
        let offered = request.has_tag(Name::SUPPORTED, "outbound");
        let confirmed = response.has_tag(Name::REQUIRE, "outbound");
        assert!(
            offered || !confirmed,
            "outbound confirmed to who does not know it"
        );
    }

    /// What must become of a REGISTER.
    fn verdict(&self, now: Instant, flow: Option<FlowId>, request: &Request) -> Verdict {
        self.acceptable(request)?;
        let path: Vec<String> = request.list(Name::PATH).map(String::from).collect();
        let routes: Vec<_> = request.routes(Name::PATH, &LIMITS).collect();
        if routes.iter().any(Result::is_err) || path.len() > 8 {
            return Err(400);
        }
        if !path.is_empty() && !request.supports("path") {
            return Err(420);
        }
        let aor = aor_of(request);
        let newer = |bound: &Bound| {
            bound.call_id != request.call_id() || request.cseq_number() > bound.cseq
        };
        let (own, others): (Vec<_>, Vec<_>) = self
            .bindings
            .iter()
            .cloned()
            .partition(|bound| bound.aor == aor);
        if request.has_wildcard_contact() {
            let alone = request.list(Name::CONTACT).count() == 1;
            return match alone && request.expires() == Some(0) {
                false => Err(400),
                true if !own.iter().all(newer) => Err(500),
                true => Ok(others),
            };
        }
        let contacts: Vec<NameAddr<'_>> = request
            .contacts(&LIMITS)
            .collect::<Result<_, _>>()
            .map_err(|_| 400u16)?;
        let direct = request.via_count() == 1;
        let last = routes.last().and_then(|route| route.as_ref().ok());
        let by_flow = direct || last.is_some_and(SipUri::is_outbound);
        self.check_outbound(request, &contacts, by_flow)?;
        let mut set = own;
        for (contact, number) in contacts.iter().zip(1..) {
            let mut bound = self.bound(now, request, contact, &aor, by_flow)?;
            bound.path.clone_from(&path);
            bound.flow = flow.filter(|_| direct);
            bound.updated = self.updates + number;
            let same = |old: &Bound| match (old.reg_id, bound.reg_id) {
                (Some(old_id), Some(id)) => (old_id, &old.instance) == (id, &bound.instance),
                (None, None) => old.uri.as_uri().is_equivalent(&bound.uri.as_uri()),
                _ => false,
            };
            // Of this very request the last one counts.
            let known = |old: &&Bound| old.updated <= self.updates;
            if !set.iter().filter(|old| same(old)).filter(known).all(newer) {
                return Err(500);
            }
            set.retain(|old| !same(old));
            if bound.expires > now {
                set.push(bound);
            }
        }
        if set.len() > self.max_bindings {
            return Err(403);
        }
        if set.len() + others.len() > self.max_total {
            return Err(503);
        }
        Ok(others.into_iter().chain(set).collect())
    }

    fn acceptable(&self, request: &Request) -> Result<(), u16> {
        if *request.method() != Method::REGISTER {
            return Err(405);
        }
        let uri = request.uri(&LIMITS).map_err(|_| 400u16)?;
        let served = |uri: SipUri<'_>| uri.host().eq_ignore_ascii_case(&self.domain);
        if !uri.sip().is_some_and(served) {
            return Err(404);
        }
        let known = |tag: &str| ["path", "outbound", "gruu"].contains(&tag);
        if !request.list(Name::REQUIRE).all(known) {
            return Err(420);
        }
        let to = request.to(&LIMITS).map_err(|_| 400u16)?;
        let to = to.uri.sip().ok_or(400u16)?;
        if served(to) { Ok(()) } else { Err(404) }
    }

    fn check_outbound(
        &self,
        request: &Request,
        contacts: &[NameAddr<'_>],
        by_flow: bool,
    ) -> Result<(), u16> {
        let expiry = |contact: &NameAddr<'_>| contact.expires().or(request.expires());
        let live: Vec<_> = contacts.iter().filter(|c| expiry(c) != Some(0)).collect();
        let named = |contact: &NameAddr<'_>| contact.params.has("reg-id");
        if live.len() > 1 && live.iter().any(|contact| named(contact)) {
            return Err(400);
        }
        if contacts.iter().any(|c| named(c) && c.reg_id().is_none()) {
            return Err(400);
        }
        let offered = request.has_tag(Name::SUPPORTED, "outbound");
        if !by_flow && offered && contacts.iter().any(named) {
            return Err(439);
        }
        Ok(())
    }

    fn bound(
        &self,
        now: Instant,
        request: &Request,
        contact: &NameAddr<'_>,
        aor: &str,
        by_flow: bool,
    ) -> Result<Bound, u16> {
        let uri = contact.uri.sip().ok_or(400u16)?;
        if uri.aor().as_str() == aor {
            return Err(403);
        }
        let instance = contact.instance().map(|urn| normal(&urn));
        if instance.as_ref().is_some_and(|urn| urn.len() > 128) {
            return Err(400);
        }
        let asked = contact.expires().or(request.expires());
        let asked = asked.unwrap_or(self.default_expires);
        if asked > 0 && asked < 3600 && asked < self.min_expires {
            return Err(423);
        }
        let granted = Duration::from_secs(u64::from(asked.min(self.max_expires)));
        Ok(Bound {
            aor: aor.to_owned(),
            reg_id: contact.reg_id().filter(|_| by_flow && instance.is_some()),
            instance,
            uri: UriBuf::from(uri),
            path: Vec::new(),
            flow: None,
            call_id: request.call_id().to_owned(),
            cseq: request.cseq_number(),
            expires: now.checked_add(granted).expect("time"),
            updated: 0,
        })
    }

    /// The registrar holds what is held here, and shows it in the right order.
    pub(super) fn check(&mut self, registrar: &Registrar, aors: &[&str]) {
        assert_eq!(registrar.len(), self.bindings.len(), "bindings in all");
        self.updates += 100;
        for aor in aors {
            let uri = UriBuf::parse(*aor).expect("a URI");
            let mut targets = registrar.targets(&uri.as_uri()).expect("our domain");
            let mut expected: Vec<_> = self.bindings.iter().filter(|b| b.aor == *aor).collect();
            expected.sort_by_key(|bound| core::cmp::Reverse(bound.updated));
            for device in 0..targets.len() {
                let mut next = targets.first(device);
                let mut instance = None;
                while let Some(target) = next {
                    let at = expected.iter().position(|bound| is(bound, &target));
                    let bound = expected.remove(at.expect("a target that is bound"));
                    assert_eq!(bound.path, target.path, "path");
                    assert_eq!(bound.flow, target.flow, "flow");
                    let of = instance.get_or_insert_with(|| bound.instance.clone());
                    assert_eq!(*of, bound.instance, "two devices in one");
                    if let Some(instance) = of {
                        let later = expected.iter().find(|other| {
                            other.instance.as_ref() == Some(instance)
                                && other.updated > bound.updated
                        });
                        assert!(later.is_none(), "a later binding comes first: {later:?}");
                    }
                    next = match targets.next(device, StatusCode::FLOW_FAILED) {
                        Next::Try(target) => Some(target),
                        Next::Done => None,
                    };
                }
            }
            assert!(expected.is_empty(), "no target for {expected:?}");
        }
    }

    /// An event must be true.
    pub(super) fn event(&self, event: &RegistrarEvent) {
        if let RegistrarEvent::Changed { aor, bindings } = event {
            let held = self.bindings.iter().filter(|b| b.aor == aor.as_str());
            assert_eq!(held.count(), *bindings, "bindings of {aor:?}");
        }
    }
}

fn is(bound: &Bound, target: &Target) -> bool {
    bound.uri == target.contact && bound.path == target.path && bound.flow == target.flow
}

fn aor_of(request: &Request) -> String {
    let to = request.to(&LIMITS).expect("To");
    let aor = to.uri.sip().map(|uri| uri.aor());
    aor.map_or_else(String::new, |aor| aor.as_str().to_owned())
}
