//! What the application is asked: credentials of HTTP proxies, and the smart card.

use alloc::string::String;

use http_connect::auth::Credentials;
use sip_outbound::AkaAnswer;
use stun_proto::Instant;

use super::{MediaId, ProxyAsker, Ue};
use crate::ConnId;
use crate::ladder::AccessLadder;
use crate::media::MediaEvent;

impl Ue {
    /// Answers [`AccessEvent::ProxyCredentials`](crate::access::AccessEvent) and
    /// [`MediaEvent::NeedCredentials`], for every connection that waits and those to come; `None`
    /// gives up.
    pub fn set_proxy_credentials(&mut self, now: Instant, credentials: Option<Credentials>) {
        let now = self.clock.advance(now);
        if let Some(proxy) = &mut self.config.media.proxy {
            // Nobody has asked this copy yet, so there is no next step to take.
            let _ = proxy.auth.set_credentials(credentials.clone());
        }
        for (id, conn) in core::mem::take(&mut self.asking) {
            if let Some(entry) = self.media.get_mut(&id) {
                entry.media.set_credentials(now, conn, credentials.clone());
            }
        }
        self.access.set_proxy_credentials(now, credentials);
        self.settle(now);
    }

    /// Answers [`AccessEvent::ProxyToken`](crate::access::AccessEvent) and
    /// [`MediaEvent::NeedToken`], base64; `None` gives up.
    pub fn set_proxy_token(&mut self, now: Instant, asker: ProxyAsker, token: Option<String>) {
        let now = self.clock.advance(now);
        match asker {
            ProxyAsker::Control(flow) => self.access.set_proxy_token(now, flow, token),
            ProxyAsker::Media(call, conn) => {
                let id = self.legs.get(&call).map(|leg| leg.media);
                if let Some(entry) = id.and_then(|id| self.media.get_mut(&id)) {
                    entry.media.set_token(now, conn, token);
                }
            }
        }
        self.settle(now);
    }

    /// Notes which connections wait for credentials.
    pub(super) fn note_asking(&mut self, id: MediaId, event: &MediaEvent) {
        if let MediaEvent::NeedCredentials { conn, .. } = event {
            self.asking.insert((id, *conn));
        }
    }

    /// Media are gone: their connections wait no more.
    pub(super) fn forget_asking(&mut self, id: MediaId) {
        self.asking.retain(|(of, _): &(MediaId, ConnId)| *of != id);
    }

    /// Answers [`UserAgentEvent::CardNeeded`](sip_outbound::UserAgentEvent).
    pub fn card_answer(&mut self, now: Instant, reg_id: u32, answer: &AkaAnswer) {
        let now = self.clock.advance(now);
        self.access.agent_mut().card_answer(now, reg_id, answer);
        self.settle(now);
    }

    /// The ladder, to export what it remembers of networks.
    pub const fn ladder(&self) -> &AccessLadder {
        self.access.ladder()
    }

    /// The ladder, to import what an earlier life remembered.
    pub const fn ladder_mut(&mut self) -> &mut AccessLadder {
        self.access.ladder_mut()
    }
}
