//! What a REGISTER does to the bindings: all of it or nothing.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use core::time::Duration;

use super::bindings::{Binding, Key};
use super::{Refusal, Registrar, RegistrarEvent, finish};
use crate::Instant;
use crate::time::deadline;
use crate::ua::FlowId;
use crate::wire::{
    Aor, Builder, Limits, Message, Name, NameAddr, Request, SipUri, StatusCode, UriBuf,
};

/// Longest instance identifier, in bytes.
const MAX_INSTANCE: usize = 128;

/// Temporary GRUUs of one registration at a time; of more the oldest stops counting.
pub(super) const MAX_TEMPORARY: usize = 16;

/// A user and one of the user's instances.
type Device = (Aor, String);

/// Temporary GRUUs that have been given out.
#[derive(Clone, Debug, Default)]
pub(super) struct Gruus {
    by_name: BTreeMap<String, Arc<Device>>,
    by_device: BTreeMap<Arc<Device>, Vec<Given>>,
}

/// Those of one registration: they end with its Call-ID. Each flow of a device has its own.
#[derive(Clone, Debug)]
struct Given {
    call_id: String,
    /// Oldest first.
    names: VecDeque<String>,
}

impl Gruus {
    pub(super) fn find(&self, name: &str) -> Option<(&Aor, &str)> {
        let (aor, instance) = self.by_name.get(name)?.as_ref();
        Some((aor, instance))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.by_device.len(), self.by_name.len())
    }

    fn give(&mut self, aor: &Aor, instance: &str, call_id: &str, name: String) {
        let device = (aor.clone(), String::from(instance));
        let known = self.by_device.get_key_value(&device);
        let device = known.map_or_else(|| Arc::new(device.clone()), |(known, _)| known.clone());
        let all = self.by_device.entry(device.clone()).or_default();
        let found = all.iter().position(|given| given.call_id == call_id);
        let at = found.unwrap_or_else(|| {
            let (call_id, names) = (String::from(call_id), VecDeque::new());
            all.push(Given { call_id, names });
            all.len().saturating_sub(1)
        });
        let Some(given) = all.get_mut(at) else {
            return;
        };
        if given.names.len() >= MAX_TEMPORARY
            && let Some(oldest) = given.names.pop_front()
        {
            self.by_name.remove(&oldest);
        }
        given.names.push_back(name.clone());
        self.by_name.insert(name, device);
    }

    /// Forgets what belongs to none of these bindings of a user: to a device that is gone, or to
    /// an older Call-ID.
    pub(super) fn keep(&mut self, aor: &Aor, set: &[Binding]) {
        let from = (aor.clone(), String::new());
        let devices: Vec<_> = self
            .by_device
            .range(from..)
            .map(|(device, _)| device)
            .take_while(|device| device.0 == *aor)
            .cloned()
            .collect();
        for device in devices {
            let Some(all) = self.by_device.get_mut(&device) else {
                continue;
            };
            all.retain(|given| {
                let bound = set.iter().any(|binding| {
                    binding.key.instance() == Some(&device.1) && binding.call_id == given.call_id
                });
                if !bound {
                    for name in &given.names {
                        self.by_name.remove(name);
                    }
                }
                bound
            });
            if all.is_empty() {
                self.by_device.remove(&device);
            }
        }
    }
}

/// Instances that mean the same get the same name: UUIDs are written in either case.
pub(super) fn normal_instance(urn: &str) -> String {
    let uuid = urn
        .get(..9)
        .is_some_and(|head| head.eq_ignore_ascii_case("urn:uuid:"));
    if uuid {
        urn.to_ascii_lowercase()
    } else {
        urn.into()
    }
}

/// What outbound means for one request (RFC 5626 section 6).
struct Outbound {
    /// Whether reg-id counts.
    applies: bool,
    /// The client understands `Require: outbound`.
    supported: bool,
}

/// One Contact of the request, ready to be stored.
struct Change {
    key: Key,
    uri: UriBuf,
    params: String,
    expires: u32,
}

impl Registrar {
    /// Carries out an authorised REGISTER.
    pub(super) fn store(
        &mut self,
        now: Instant,
        flow: Option<FlowId>,
        request: &Request,
        aor: &Aor,
        info: Option<String>,
    ) -> Message {
        match self.try_store(now, flow, request, aor) {
            Ok(outbound) => self.listing(now, request, aor, outbound, info),
            Err(refusal) => self.refuse(request, &refusal),
        }
    }

    /// Whether an outbound binding was made for a client that wants to know.
    fn try_store(
        &mut self,
        now: Instant,
        flow: Option<FlowId>,
        request: &Request,
        aor: &Aor,
    ) -> Result<bool, Refusal> {
        let limits = self.config.parse.limits;
        let direct = request.via_count() == 1;
        let path = self.path(request, &limits)?;
        if !request.has(Name::CONTACT) {
            return Ok(false);
        }
        if request.has_wildcard_contact() {
            self.remove_all(request, aor)?;
            return Ok(false);
        }
        let contacts: Vec<NameAddr<'_>> = request
            .contacts(&limits)
            .collect::<Result<_, _>>()
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        let outbound = self.outbound(request, &contacts, direct)?;
        let mut changes = Vec::new();
        for contact in &contacts {
            changes.push(self.change(request, contact, aor, &outbound)?);
        }
        let uses = changes
            .iter()
            .any(|change| change.expires > 0 && matches!(change.key, Key::Outbound { .. }));
        let flow = flow.filter(|_| direct);
        let set = self.apply(now, request, aor, changes, &path, flow)?;
        self.commit(aor, set);
        Ok(uses && outbound.supported)
    }

    fn commit(&mut self, aor: &Aor, set: Vec<Binding>) {
        let bindings = set.len();
        self.bindings.replace(aor, set);
        self.gruus.keep(aor, self.bindings.of(aor));
        let aor = aor.clone();
        self.events
            .push_back(RegistrarEvent::Changed { aor, bindings });
    }

    fn path(&self, request: &Request, limits: &Limits) -> Result<Vec<String>, Refusal> {
        let path: Vec<String> = request.list(Name::PATH).map(String::from).collect();
        let good = request
            .routes(Name::PATH, limits)
            .all(|route| route.is_ok());
        if !good || path.len() > self.config.max_path {
            return Err(StatusCode::BAD_REQUEST.into());
        }
        let offered = request.supports("path");
        if !path.is_empty() && !offered && !self.config.accept_unoffered_path {
            let field = (Name::UNSUPPORTED, String::from("path"));
            return Err(Refusal(StatusCode::BAD_EXTENSION, Some(field)));
        }
        Ok(path)
    }

    fn remove_all(&mut self, request: &Request, aor: &Aor) -> Result<(), Refusal> {
        let alone = request.list(Name::CONTACT).count() == 1;
        if !alone || request.expires() != Some(0) {
            return Err(StatusCode::BAD_REQUEST.into());
        }
        for binding in self.bindings.of(aor) {
            in_order(binding, request)?;
        }
        self.commit(aor, Vec::new());
        Ok(())
    }

    fn outbound(
        &self,
        request: &Request,
        contacts: &[NameAddr<'_>],
        direct: bool,
    ) -> Result<Outbound, Refusal> {
        let supported = request.has_tag(Name::SUPPORTED, "outbound");
        let default = request.expires();
        let live = |contact: &&NameAddr<'_>| contact.expires().or(default) != Some(0);
        let named = |contact: &NameAddr<'_>| contact.params.has("reg-id");
        let any = contacts.iter().filter(live).any(named);
        if any && contacts.iter().filter(live).count() > 1 {
            return Err(StatusCode::BAD_REQUEST.into());
        }
        let odd = |contact: &NameAddr<'_>| named(contact) && contact.reg_id().is_none();
        if contacts.iter().any(odd) {
            return Err(StatusCode::BAD_REQUEST.into());
        }
        let limits = &self.config.parse.limits;
        let mut values = request.routes(Name::PATH, limits).filter_map(Result::ok);
        let by_path = if self.config.accept_ob_anywhere {
            values.any(|uri| uri.is_outbound())
        } else {
            // The first hop has added its value first: it is the last one.
            values.last().is_some_and(|uri| uri.is_outbound())
        };
        let applies = direct || by_path;
        if !applies && supported && contacts.iter().any(named) {
            return Err(StatusCode::FIRST_HOP_LACKS_OUTBOUND.into());
        }
        Ok(Outbound { applies, supported })
    }

    fn change(
        &self,
        request: &Request,
        contact: &NameAddr<'_>,
        aor: &Aor,
        outbound: &Outbound,
    ) -> Result<Change, Refusal> {
        let uri = contact.uri.sip().ok_or(StatusCode::BAD_REQUEST)?;
        // A name that leads back here would go round in circles.
        if uri.aor() == *aor {
            return Err(StatusCode::FORBIDDEN.into());
        }
        let instance = contact.instance().map(|urn| normal_instance(&urn));
        if instance
            .as_ref()
            .is_some_and(|urn| urn.len() > MAX_INSTANCE)
        {
            return Err(StatusCode::BAD_REQUEST.into());
        }
        let key = match (instance, contact.reg_id()) {
            (Some(instance), Some(reg_id)) if outbound.applies => {
                Key::Outbound { instance, reg_id }
            }
            (instance, _) => Key::Plain { instance },
        };
        let asked = contact
            .expires()
            .or(request.expires())
            .unwrap_or(self.config.default_expires);
        if asked > 0 && asked < 3600 && asked < self.config.min_expires {
            let least = alloc::format!("{}", self.config.min_expires);
            let field = (Name::MIN_EXPIRES, least);
            return Err(Refusal(StatusCode::INTERVAL_TOO_BRIEF, Some(field)));
        }
        let mut params = String::new();
        for (name, value) in contact.params.iter() {
            if name.eq_ignore_ascii_case("expires") {
                continue;
            }
            params.push(';');
            params.push_str(name);
            if let Some(value) = value {
                params.push('=');
                params.push_str(value);
            }
        }
        Ok(Change {
            key,
            uri: UriBuf::from(uri),
            params,
            expires: asked.min(self.config.max_expires),
        })
    }

    /// The bindings as they are afterwards.
    fn apply(
        &mut self,
        now: Instant,
        request: &Request,
        aor: &Aor,
        changes: Vec<Change>,
        path: &[String],
        flow: Option<FlowId>,
    ) -> Result<Vec<Binding>, Refusal> {
        let old = self.bindings.of(aor).len();
        let mut set: Vec<_> = self.bindings.live(now, aor).cloned().collect();
        let first = self.bindings.now_serial();
        for change in changes {
            let uri = change.uri.as_uri();
            let same = |binding: &mut Binding| binding.is_same(&change.key, &uri);
            let mut id = None;
            // Equality of URIs is not transitive: there may be several.
            for binding in set.extract_if(.., same) {
                // A Contact may stand twice in one request: the last one counts.
                if binding.updated < first {
                    in_order(&binding, request)?;
                }
                // Over another way it is another one: what is learned of the old way too late
                // must not end it.
                let way = (&binding.uri, &*binding.path, binding.flow);
                if way == (&change.uri, path, flow) {
                    id = Some(binding.id);
                }
            }
            let id = id.unwrap_or_else(|| self.bindings.new_id());
            if change.expires == 0 {
                continue;
            }
            let lifetime = Duration::from_secs(u64::from(change.expires));
            let texts = path.iter().map(String::len);
            let size = [
                change.uri.as_str().len(),
                change.params.len(),
                request.call_id().len(),
            ];
            let size = texts.chain(size).fold(0, usize::saturating_add);
            if size > self.config.max_binding {
                return Err(StatusCode::MESSAGE_TOO_LARGE.into());
            }
            set.push(Binding {
                id,
                key: change.key,
                uri: change.uri,
                params: change.params,
                path: path.to_vec(),
                flow,
                call_id: request.call_id().into(),
                cseq: request.cseq_number(),
                expires_at: deadline(now, lifetime),
                updated: self.bindings.now_serial(),
            });
        }
        if set.len() > self.config.max_bindings {
            return Err(StatusCode::FORBIDDEN.into());
        }
        let total = self.bindings.len().saturating_sub(old);
        if total.saturating_add(set.len()) > self.config.max_total {
            return Err(StatusCode::SERVICE_UNAVAILABLE.into());
        }
        Ok(set)
    }

    /// The 2xx: all bindings there are.
    fn listing(
        &mut self,
        now: Instant,
        request: &Request,
        aor: &Aor,
        outbound: bool,
        info: Option<String>,
    ) -> Message {
        let tag = self.tag();
        let gruu = self.config.gruu && request.has_tag(Name::SUPPORTED, "gruu");
        let set: Vec<_> = self.bindings.live(now, aor).cloned().collect();
        let mut builder = Builder::reply(request, StatusCode::OK, Some(&tag));
        for binding in &set {
            let remaining = binding.remaining(now);
            let mut value =
                alloc::format!("<{}>{};expires={remaining}", binding.uri, binding.params);
            if let Some(instance) = binding.key.instance().filter(|_| gruu) {
                value.push_str(&self.gruu_params(request, aor, instance, &binding.call_id));
            }
            builder = builder.header(Name::CONTACT, value);
        }
        builder = builder.copy_all(request, Name::PATH);
        if !self.config.service_route.is_empty() {
            let routes = self.config.service_route.iter();
            let values: Vec<_> = routes.map(|uri| alloc::format!("<{uri}>")).collect();
            builder = builder.header(Name::SERVICE_ROUTE, values.join(", "));
        }
        if outbound {
            builder = builder.header(Name::REQUIRE, "outbound");
            let timer = self.config.flow_timer.filter(|_| request.via_count() == 1);
            builder = builder.maybe(Name::FLOW_TIMER, timer);
        }
        builder = builder
            .header(Name::SUPPORTED, "path, outbound, gruu")
            .maybe(Name::AUTHENTICATION_INFO, info);
        finish(builder, request)
    }

    fn gruu_params(
        &mut self,
        request: &Request,
        aor: &Aor,
        instance: &str,
        call_id: &str,
    ) -> String {
        let limits = &self.config.parse.limits;
        let to = request.to(limits).ok().and_then(|to| to.uri.sip());
        let Some(to): Option<SipUri<'_>> = to else {
            return String::new();
        };
        let scheme = if to.is_secure() { "sips" } else { "sip" };
        let user = to.user().unwrap_or_default();
        let host = to.host();
        let public = alloc::format!("{scheme}:{user}@{host};gr={instance}");
        let params = alloc::format!(";pub-gruu=\"{public}\"");
        // The instance may hold what a URI parameter cannot.
        if SipUri::parse(&public, limits).is_err() {
            return String::new();
        }
        let name = alloc::format!("{:032x}", u128::from_be_bytes(self.rng.bytes()));
        let temporary = alloc::format!(";temp-gruu=\"{scheme}:{name}@{host};gr\"");
        self.gruus.give(aor, instance, call_id, name);
        alloc::format!("{params}{temporary}")
    }
}

/// A request of the same Call-ID must be newer than the last one.
fn in_order(binding: &Binding, request: &Request) -> Result<(), Refusal> {
    let stale = binding.call_id == request.call_id() && request.cseq_number() <= binding.cseq;
    if stale {
        let field = (Name::RETRY_AFTER, String::from("5"));
        return Err(Refusal(StatusCode::SERVER_ERROR, Some(field)));
    }
    Ok(())
}
