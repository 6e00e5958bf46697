//! Choosing between the flows of a device (RFC 5626 section 7).

use alloc::string::String;
use alloc::vec::Vec;

use super::BindingId;
use crate::ua::FlowId;
use crate::wire::{BuildError, Message, Name, Request, Response, StatusCode, UriBuf};

/// One way to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its binding.
    pub binding: BindingId,
    /// The registered Contact: the request URI.
    pub contact: UriBuf,
    /// The registered Path: goes in front of all Route values, in this order.
    pub path: Vec<String>,
    /// The flow, if the client is connected here: send exactly on it.
    pub flow: Option<FlowId>,
}

impl Target {
    /// The request as it goes to this target; Via and Max-Forwards are the sender's.
    ///
    /// # Errors
    /// [`BuildError`] when the request would break a limit.
    pub fn address(&self, request: &Request) -> Result<Message, BuildError> {
        let uri = self.contact.as_str();
        let uri = uri.split_once('?').map_or(uri, |(uri, _)| uri);
        let mut edit = request.edit().set_uri(uri);
        for path in self.path.iter().rev() {
            edit = edit.push_front(Name::ROUTE, path);
        }
        edit.finish()
    }
}

/// What follows from a final response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try this one. After 430 the binding that failed is to be
    /// [dropped](super::Registrar::drop_binding).
    Try(Target),
    /// This device has no other way, or has answered.
    Done,
}

/// Where a request goes: of each device only one flow at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// By device; what is left of each.
    groups: Vec<Vec<Target>>,
}

impl Targets {
    pub(super) fn new(mut groups: Vec<Vec<Target>>) -> Self {
        for group in &mut groups {
            group.reverse();
        }
        Self { groups }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The first way to a device, counted from 0; to be called once for each.
    pub fn first(&mut self, device: usize) -> Option<Target> {
        self.groups.get_mut(device)?.pop()
    }

    /// What follows from the final response of a device's last way; a way that is gone counts as
    /// 430.
    pub fn next(&mut self, device: usize, code: StatusCode) -> Next {
        let lost = code == StatusCode::FLOW_FAILED || code == StatusCode::REQUEST_TIMEOUT;
        let group = self.groups.get_mut(device).filter(|_| lost);
        match group.and_then(Vec::pop) {
            Some(target) => Next::Try(target),
            None => {
                if let Some(group) = self.groups.get_mut(device) {
                    group.clear();
                }
                Next::Done
            }
        }
    }
}

/// The response a proxy passes back that has tried several devices: `best`, which it has chosen
/// among the final responses, with the challenges of all 401 and 407 when it is one itself, so that
/// the client can answer all of them at once (RFC 3261 section 16.7 step 7). Those of one sender
/// stay in their order.
///
/// # Errors
/// [`BuildError`] when the response would break a limit.
pub fn with_all_challenges<'r>(
    best: &Response,
    others: impl IntoIterator<Item = &'r Response>,
) -> Result<Message, BuildError> {
    let asks = |response: &Response| {
        let code = response.code();
        code == StatusCode::UNAUTHORIZED || code == StatusCode::PROXY_AUTHENTICATION_REQUIRED
    };
    let mut edit = best.edit();
    for other in others {
        if !asks(best) || !asks(other) {
            continue;
        }
        for name in [Name::WWW_AUTHENTICATE, Name::PROXY_AUTHENTICATE] {
            for row in other.rows(name) {
                edit = edit.push_back(name, row);
            }
        }
    }
    edit.finish()
}
