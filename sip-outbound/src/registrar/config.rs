//! What a registrar is told in the beginning.

use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use http_connect::auth::{DigestConfigError, DigestServerConfig};

use crate::wire::{ParseConfig, UriBuf, ValueError};

/// How a [`Registrar`](super::Registrar) behaves.
#[derive(Clone, Debug)]
pub struct RegistrarConfig {
    /// The domains that are served.
    pub domains: Vec<String>,
    /// Challenges; none lets everybody in, for registrars behind something that has asked already.
    pub digest: Option<DigestServerConfig>,
    /// Shortest time granted, in seconds: 60.
    pub min_expires: u32,
    /// Longest time granted, in seconds: 3,600.
    pub max_expires: u32,
    /// Time granted when none is asked for, in seconds: 3,600.
    pub default_expires: u32,
    /// Returned in every 2xx (RFC 3608).
    pub service_route: Vec<UriBuf>,
    /// Returns GRUUs to clients that ask for them. On.
    pub gruu: bool,
    /// Flow-Timer for clients that are connected directly, in seconds.
    pub flow_timer: Option<u32>,
    /// Counts `ob` in any Path value, not only in that of the first hop. Off.
    pub accept_ob_anywhere: bool,
    /// Accepts Path from proxies of clients that do not offer it. Off.
    pub accept_unoffered_path: bool,
    /// What is accepted.
    pub parse: ParseConfig,
    /// Bindings of one address of record: 10; more are refused with 403.
    pub max_bindings: usize,
    /// Bindings in all: 100,000; more are refused with 503.
    pub max_total: usize,
    /// Bytes that one binding may take: Contact, Path and Call-ID together: 4,096. More is refused
    /// with 513.
    pub max_binding: usize,
    /// Events that wait for the host: 4,096; with more, requests are refused with 503.
    pub max_events: usize,
    /// Path values of a request: 8.
    pub max_path: usize,
    /// Requests that wait for the host to look a key up. Default: 256; more are refused with 503.
    pub max_pending: usize,
    /// The same of one flow of a client. Default: 8.
    pub max_pending_per_flow: usize,
    /// How long the host may take to look a key up, then the request is answered with 500.
    /// Default: 5 s.
    pub key_timeout: Duration,
}

/// Why a configuration does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrarConfigError {
    /// There is no domain, or one that cannot stand in a URI.
    #[error("domain")]
    Domain,
    /// Times contradict each other.
    #[error("contradictory times")]
    Expires,
    /// A limit or a wait is zero.
    #[error("limit or wait is zero")]
    Zero,
    /// The challenges cannot be made.
    #[error(transparent)]
    Digest(#[from] DigestConfigError),
}

impl RegistrarConfig {
    /// The defaults for a domain, with a realm of the same name.
    pub fn new(domain: impl Into<String>) -> Self {
        let domain = domain.into();
        Self {
            digest: Some(DigestServerConfig::new(domain.clone())),
            domains: alloc::vec![domain],
            min_expires: 60,
            max_expires: 3600,
            default_expires: 3600,
            service_route: Vec::new(),
            gruu: true,
            flow_timer: None,
            accept_ob_anywhere: false,
            accept_unoffered_path: false,
            parse: ParseConfig::default(),
            max_bindings: 10,
            max_total: 100_000,
            max_binding: 4096,
            max_events: 4096,
            max_path: 8,
            max_pending: 256,
            max_pending_per_flow: 8,
            key_timeout: Duration::from_secs(5),
        }
    }

    /// A bound for the bytes a registrar with this configuration ever holds, whatever its users
    /// register.
    ///
    /// The defaults give 2 GB: 100,000 bindings of the longest names and the most temporary GRUUs. A
    /// binding as clients make them takes about 1 KiB, and 4 KiB with all temporary GRUUs its device
    /// can have.
    pub const fn max_memory(&self) -> usize {
        // Measured (tests/it/memory.rs) and rounded up; map nodes are half full at worst.
        const FIXED: usize = 64 * 1024;
        const BINDING: usize = 1024;
        const GRUU: usize = 320;
        const NONCE: usize = 512;
        const EVENT: usize = 128;
        let limits = &self.parse.limits;
        // The user's name, in four tables; the Call-ID once more with the GRUUs.
        let names = limits.uri.saturating_mul(4);
        let binding = BINDING
            .saturating_add(names)
            .saturating_add(self.max_binding.saturating_mul(2))
            .saturating_add(GRUU.saturating_mul(super::store::MAX_TEMPORARY));
        let pending = limits.max_message().saturating_add(limits.head);
        let nonces = match &self.digest {
            Some(digest) => digest.max_nonces,
            None => 0,
        };
        let events = self
            .max_events
            .saturating_add(self.max_pending)
            .saturating_add(self.max_total);
        FIXED
            .saturating_add(self.max_total.saturating_mul(binding))
            .saturating_add(self.max_pending.saturating_mul(pending))
            .saturating_add(nonces.saturating_mul(NONCE))
            .saturating_add(events.saturating_mul(EVENT.saturating_add(limits.uri)))
    }

    pub(super) fn check(&self) -> Result<(), RegistrarConfigError> {
        let good = |domain: &String| -> Result<UriBuf, ValueError> {
            UriBuf::parse(alloc::format!("sip:{domain}"))
        };
        if self.domains.is_empty() || !self.domains.iter().all(|domain| good(domain).is_ok()) {
            return Err(RegistrarConfigError::Domain);
        }
        let times = 0 < self.min_expires
            && self.min_expires <= self.default_expires
            && self.default_expires <= self.max_expires;
        if !times {
            return Err(RegistrarConfigError::Expires);
        }
        if self.max_bindings == 0
            || self.max_total == 0
            || self.max_binding == 0
            || self.max_events == 0
            || self.max_path == 0
            || self.max_pending == 0
            || self.max_pending_per_flow == 0
            || self.key_timeout.is_zero()
        {
            return Err(RegistrarConfigError::Zero);
        }
        Ok(())
    }
}
