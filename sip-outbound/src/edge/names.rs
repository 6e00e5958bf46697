//! What this proxy is called on each of its sides (RFC 3261 section 16.6, RFC 5658).
//!
//! The core reaches it by the configured name. A client reaches it where its flow leads: by the
//! address and port it has connected to, over the transport of the flow. A client that is told
//! anything else sends ACK, BYE and responses to where nobody listens.

use alloc::string::String;

use stun_proto::{FiveTuple, Transport};

use super::flow::EdgeFlow;
use super::token::FlowToken;
use super::{EdgeProxy, Side};
use crate::ua::FlowId;
use crate::wire::{Editor, Name, SipUri, host_ip, same_host};

impl EdgeProxy {
    /// The name in the Via of requests over a flow.
    pub(super) fn sent_by(&self, side: Side, at: FiveTuple) -> String {
        match side {
            Side::Core => self.config.sent_by(),
            Side::Access => self.access_name(at),
        }
    }

    /// Host and port where a client reaches this proxy.
    fn access_name(&self, at: FiveTuple) -> String {
        let (ip, port) = (at.local.ip(), at.local.port());
        match &self.config.access_host {
            Some(host) => alloc::format!("{host}:{port}"),
            None if ip.is_unspecified() => alloc::format!("{}:{port}", self.config.host),
            None => alloc::format!("{}", at.local),
        }
    }

    /// The URI by which the core leads back here and on to a flow.
    pub(super) fn core_uri(&self, flow: FlowId, secure: bool, ob: bool) -> Option<String> {
        let token = self.token(flow)?;
        let scheme = if secure { "sips" } else { "sip" };
        let ob = if ob { ";ob" } else { "" };
        let name = self.config.sent_by();
        Some(alloc::format!("<{scheme}:{token}@{name};lr{ob}>"))
    }

    /// The URI by which the client of a flow leads here.
    fn access_uri(&self, flow: FlowId, secure: bool) -> Option<String> {
        let token = self.token(flow)?;
        let at = self.flows.get(&flow)?.at?;
        let name = self.access_name(at);
        let (scheme, transport) = match at.transport {
            // `sips` leaves no choice (RFC 3261 section 26.2.2).
            _ if secure => ("sips", ""),
            Transport::Udp | Transport::Dtls => ("sip", ""),
            Transport::Tcp => ("sip", ";transport=tcp"),
            Transport::Tls => ("sip", ";transport=tls"),
        };
        Some(alloc::format!("<{scheme}:{token}@{name}{transport};lr>"))
    }

    fn token(&self, flow: FlowId) -> Option<String> {
        let entry = self.flows.get(&flow)?;
        let (at, serial) = (entry.at?, entry.serial);
        Some(self.tokens.issue(&FlowToken { at, serial }))
    }

    /// Stays in the dialog, by one name for each side: the upper one for whom the request goes to,
    /// the lower one for whom it comes from.
    pub(super) fn record_both<'m>(
        &self,
        edit: Editor<'m>,
        flow: FlowId,
        secure: bool,
        to: Side,
    ) -> Editor<'m> {
        let access = self.access_uri(flow, secure);
        let (Some(access), Some(core)) = (access, self.core_uri(flow, secure, false)) else {
            return edit;
        };
        let (lower, upper) = match to {
            Side::Access => (core, access),
            Side::Core => (access, core),
        };
        edit.push_front(Name::RECORD_ROUTE, &lower)
            .push_front(Name::RECORD_ROUTE, &upper)
    }

    /// Whether a URI leads to this proxy, by whichever of its names.
    pub(super) fn is_own(&self, uri: &SipUri<'_>) -> bool {
        let mut aliases = self.config.aliases.iter().chain(&self.config.access_host);
        if aliases.any(|alias| same_host(alias, uri.host())) {
            // Clients know the ports that are listened on; this proxy does not.
            return true;
        }
        let port = match (uri.port(), self.config.port) {
            (Some(theirs), Some(ours)) => theirs == ours,
            (Some(_), None) | (None, _) => true,
        };
        let by_name = port && same_host(&self.config.host, uri.host());
        by_name
            || uri
                .user()
                .is_some_and(|user| self.tokens.open(user).is_ok())
    }

    /// Whether a URI leads where this client has connected to.
    pub(super) fn is_here(&self, entry: &EdgeFlow, uri: &SipUri<'_>) -> bool {
        entry.side == Side::Access
            && entry.at.is_some_and(|at| {
                host_ip(uri.host()) == Some(at.local.ip())
                    && uri.port_or_default() == at.local.port()
            })
    }
}
