//! What a client makes of responses (RFC 8489 sections 6.3.3, 6.3.4 and 10).

use core::net::SocketAddr;

use super::client::{Auth, BindingClient, BindingEvent, FailureCause, RequestId, Timer};
use crate::auth::{Discarded, Judgement, RequestAuth};
use crate::wire::{
    Attribute as _, AttributeError, AttributeType, Class, ErrorCode, MappedAddress, Message,
    Method, TransactionId, XorMappedAddress,
};
use crate::{FiveTuple, Instant, Path, Transport};

impl BindingClient {
    /// Whether the message was for this client.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> bool {
        let response = matches!(message.class(), Class::Success | Class::Error);
        let printed = match message.check_fingerprint() {
            Some(right) => right,
            None => !self.config.fingerprint,
        };
        let tid = message.transaction_id();
        if !response || message.method() != Method::BINDING || !printed {
            return false;
        }
        let Some(id) = self.transactions.context_mut(path, tid).copied() else {
            return false;
        };
        let Some(request) = self.requests.get_mut(&id) else {
            return false;
        };
        let reliable = match path {
            Path::Datagram(at) => at.transport.is_secure(),
            Path::Stream(_) => true,
        };
        let judgement = match &mut self.auth {
            Auth::None => Judgement::Accept,
            Auth::ShortTerm(client) => match client.judge(message) {
                Ok(_) => Judgement::Accept,
                Err(why) => Judgement::Discard(why),
            },
            Auth::LongTerm(client) => client.judge(&mut request.auth, message, reliable),
        };
        match judgement {
            Judgement::Accept => self.accept(now, id, path, message),
            Judgement::Retry => {
                self.transactions.finish(now, tid);
                self.make_again(now, id);
            }
            Judgement::Discard(why) => self.discard(id, tid, path, message, why),
            Judgement::Fail(failure) => {
                self.transactions.finish(now, tid);
                self.fail(id, FailureCause::Auth(failure));
            }
        }
        true
    }

    /// Goes on waiting, unless nothing better can come.
    fn discard(
        &mut self,
        id: RequestId,
        tid: TransactionId,
        path: Path,
        message: &Message<'_>,
        why: Discarded,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let Discarded::Integrity { code } = why else {
            return;
        };
        request.seen.hint = code.or(request.seen.hint);
        // An unproven 400 was never received (RFC 8489 section 9.2.5).
        let ignored = code == Some(ErrorCode::BAD_REQUEST)
            && !message.has_integrity()
            && matches!(self.auth, Auth::LongTerm(_));
        if ignored {
            return;
        }
        request.seen.unproven = true;
        let hint = request.seen.hint;
        if matches!(path, Path::Stream(_)) {
            self.transactions.cancel(tid);
            self.fail(id, FailureCause::IntegrityViolated { hint });
        }
    }

    /// Takes in a response that is proven, or needs no proof.
    fn accept(&mut self, now: Instant, id: RequestId, path: Path, message: &Message<'_>) {
        let tid = message.transaction_id();
        let rtt = self.transactions.rtt(now, tid);
        self.transactions.finish(now, tid);
        let classic = self.config.classic;
        let known = |ty| is_known(ty, classic);
        if let Some(unknown) = message.unknown_required(known).next() {
            return self.fail(id, FailureCause::UnknownAttribute(unknown));
        }
        if message.class() == Class::Error {
            return match message.find::<ErrorCode<'_>>() {
                None => self.fail(id, FailureCause::Malformed),
                Some(error) => self.refused(now, id, path, message, error.code()),
            };
        }
        let xored = message.get::<XorMappedAddress>().map(|a| a.map(|a| a.0));
        let plain = message
            .get::<MappedAddress>()
            .filter(|_| classic)
            .map(|a| a.map(|a| a.0));
        let usable = |found: Option<Result<SocketAddr, AttributeError>>| found?.ok();
        match usable(xored).or_else(|| usable(plain)) {
            Some(mapped) => {
                self.requests.remove(&id);
                self.events.push_back(BindingEvent::Mapped {
                    request: id,
                    path,
                    mapped,
                    rtt,
                    counter: message.find(),
                });
            }
            None => self.fail(id, FailureCause::Malformed),
        }
    }

    fn refused(
        &mut self,
        now: Instant,
        id: RequestId,
        path: Path,
        message: &Message<'_>,
        code: u16,
    ) {
        match code {
            ErrorCode::TRY_ALTERNATE => self.redirect(now, id, path, message),
            500..=599 => self.retry_later(now, id, code),
            code => self.fail(id, FailureCause::Code { code }),
        }
    }

    fn retry_later(&mut self, now: Instant, id: RequestId, code: u16) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.server_errors >= self.config.server_error_retries {
            return self.fail(id, FailureCause::Code { code });
        }
        let factor = 1_u32.checked_shl(request.server_errors.into());
        let delay = self.config.server_error_delay;
        let delay = delay.saturating_mul(factor.unwrap_or(u32::MAX));
        request.server_errors = request.server_errors.saturating_add(1);
        self.timers.arm(Timer::Retry(id), now, delay);
    }

    fn redirect(&mut self, now: Instant, id: RequestId, path: Path, message: &Message<'_>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let protected = match &self.auth {
            Auth::None => false,
            // Nothing unproven gets so far.
            Auth::ShortTerm(_) => true,
            Auth::LongTerm(client) => client.proves(&request.auth, message),
        };
        let asked = match path {
            Path::Datagram(at) => Some(at),
            Path::Stream(_) => None,
        };
        let server = asked.map(|at| at.remote);
        match (
            self.redirects.follow(now, server, message, protected),
            asked,
        ) {
            (Err(refused), _) => self.fail(id, FailureCause::RedirectRefused(refused)),
            (Ok(alternative), Some(at)) if at.transport == Transport::Udp => {
                request.auth = RequestAuth::default();
                request.path = Path::Datagram(FiveTuple {
                    remote: alternative.server,
                    ..at
                });
                if let Auth::LongTerm(client) = &mut self.auth {
                    client.forget_challenge();
                }
                self.make_again(now, id);
            }
            (Ok(alternative), _) => self.fail(id, FailureCause::Redirected(alternative)),
        }
    }
}

/// The required attributes a Binding response may have; those of RFC 3489 from classic servers.
fn is_known(ty: AttributeType, classic: bool) -> bool {
    let old = classic && matches!(ty.0, 0x0002 | 0x0004 | 0x0005 | 0x000B);
    // MAPPED-ADDRESS, USERNAME, ERROR-CODE, UNKNOWN-ATTRIBUTES, REALM, NONCE, PASSWORD-ALGORITHM,
    // USERHASH.
    old || ty == XorMappedAddress::TYPE
        || matches!(
            ty.0,
            0x0001 | 0x0006 | 0x0009 | 0x000A | 0x0014 | 0x0015 | 0x001D | 0x001E
        )
}
