//! Which way to the P-CSCF is tried next, and what is remembered of each network.
//!
//! A way is a [`Rung`]. Ordinary access comes first, and what hides among web traffic only when
//! that has failed (3GPP TS 33.203 annex W, TS 24.229 annex E.3.1.0). [`AccessLadder`] is a plain
//! value: it is told what failed and what worked, and says what to try.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use alloc::vec::Vec;

use stun_proto::time::{deadline, elapsed};
use stun_proto::{Instant, Transport};

/// A network the host can be in: a number of the host's making, such as a hash over interface,
/// SSID and gateway. Two networks with the same number cost a bad start, nothing worse.
///
/// ```
/// use ims_traversal::ladder::NetworkKey;
///
/// assert_ne!(NetworkKey(1), NetworkKey(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkKey(pub u64);

/// A way to the P-CSCF.
///
/// Its text form is for hosts that keep what was remembered:
///
/// ```
/// use ims_traversal::ladder::Rung;
/// use stun_proto::Transport;
///
/// for rung in [Rung::Ordinary(Transport::Udp), Rung::Connect, Rung::Tunnel(Transport::Tcp)] {
///     assert_eq!(rung.to_string().parse(), Ok(rung));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// SIP as it is meant to be: this transport to the P-CSCF's own port, 5060, or 5061 with TLS.
    Ordinary(Transport),
    /// TLS to port 443. Only without an HTTP proxy.
    Direct,
    /// CONNECT to port 443 through the HTTP proxy, and TLS inside. Only with one.
    Connect,
    /// The host's tunnel to an EFTF (3GPP TS 24.322), and this transport within.
    Tunnel(Transport),
}

impl Rung {
    /// Whether it makes sense in a network with or without an HTTP proxy.
    const fn applies(self, proxy: bool) -> bool {
        match self {
            Self::Ordinary(_) | Self::Tunnel(_) => true,
            Self::Direct => !proxy,
            Self::Connect => proxy,
        }
    }

    /// Whether the user agent is to act as if it were told to send keep-alives, in an access
    /// network with NAT, and behind a NAT (3GPP TS 24.229 annex E.3.1.0): on all but the ordinary
    /// ways.
    pub const fn assumes_nat(self) -> bool {
        match self {
            Self::Ordinary(_) => false,
            Self::Direct | Self::Connect | Self::Tunnel(_) => true,
        }
    }

    /// What SIP runs over in the end.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Ordinary(transport) | Self::Tunnel(transport) => transport,
            Self::Direct | Self::Connect => Transport::Tls,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordinary(transport) => write!(f, "ordinary/{transport}"),
            Self::Direct => f.write_str("direct"),
            Self::Connect => f.write_str("connect"),
            Self::Tunnel(transport) => write!(f, "tunnel/{transport}"),
        }
    }
}

/// A text is not that of a [`Rung`].
///
/// ```
/// use ims_traversal::ladder::{NotARung, Rung};
///
/// assert_eq!("carrier pigeon".parse::<Rung>(), Err(NotARung));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a way to the P-CSCF")]
pub struct NotARung;

impl FromStr for Rung {
    type Err = NotARung;

    fn from_str(text: &str) -> Result<Self, NotARung> {
        let (kind, transport) = match text.split_once('/') {
            Some((kind, "UDP")) => (kind, Some(Transport::Udp)),
            Some((kind, "TCP")) => (kind, Some(Transport::Tcp)),
            Some((kind, "TLS")) => (kind, Some(Transport::Tls)),
            Some((kind, "DTLS")) => (kind, Some(Transport::Dtls)),
            Some(_) => return Err(NotARung),
            None => (text, None),
        };
        match (kind, transport) {
            ("ordinary", Some(transport)) => Ok(Self::Ordinary(transport)),
            ("tunnel", Some(transport)) => Ok(Self::Tunnel(transport)),
            ("direct", None) => Ok(Self::Direct),
            ("connect", None) => Ok(Self::Connect),
            _ => Err(NotARung),
        }
    }
}

/// How an [`AccessLadder`] is made.
///
/// ```
/// use ims_traversal::ladder::{AccessLadder, LadderConfig, Rung};
/// use stun_proto::Transport;
///
/// let mut config = LadderConfig::default();
/// config.rungs.push(Rung::Tunnel(Transport::Tls)); // for a host that has one
/// assert!(AccessLadder::new(config).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LadderConfig {
    /// The ways, better ones first; 1 to 16, none twice. Ordinary TLS, [`Rung::Direct`],
    /// [`Rung::Connect`]; [`Rung::Tunnel`] is not among them.
    pub rungs: Vec<Rung>,
    /// How long a worse way is begun with before better ones are tried again: 24 h.
    pub retry_better: Duration,
    /// How many networks are remembered, those of late: 32.
    pub max_networks: usize,
}

impl Default for LadderConfig {
    fn default() -> Self {
        Self {
            rungs: [Rung::Ordinary(Transport::Tls), Rung::Direct, Rung::Connect].into(),
            retry_better: Duration::from_secs(24 * 3600),
            max_networks: 32,
        }
    }
}

/// Why a [`LadderConfig`] does not work.
///
/// ```
/// use ims_traversal::ladder::{AccessLadder, LadderConfig, LadderError};
///
/// let config = LadderConfig { rungs: vec![], ..LadderConfig::default() };
/// assert_eq!(AccessLadder::new(config).unwrap_err(), LadderError::Rungs);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LadderError {
    /// No ways, more than 16, or one twice.
    #[error("no way to the P-CSCF, too many, or one twice")]
    Rungs,
    /// No network can be remembered.
    #[error("no network can be remembered")]
    Networks,
}

/// What is remembered of a network, for hosts that keep it.
///
/// ```
/// use ims_traversal::ladder::{NetworkKey, Remembered, Rung};
///
/// let row = Remembered { network: NetworkKey(7), rung: Rung::Direct, age: Default::default() };
/// assert_eq!(row.rung.to_string(), "direct");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The network.
    pub network: NetworkKey,
    /// The way that worked.
    pub rung: Rung,
    /// How long ago better ways were tried in vain.
    pub age: Duration,
}

/// What to try.
///
/// ```
/// use ims_traversal::ladder::{Attempt, Rung};
///
/// let attempt = Attempt { rung: Rung::Connect, other: true };
/// assert!(attempt.rung.assumes_nat());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The way.
    pub rung: Rung,
    /// To another P-CSCF than the flow's own.
    pub other: bool,
}

/// How a way failed.
///
/// ```
/// use ims_traversal::ladder::Fall;
///
/// assert_ne!(Fall::Failed, Fall::Forbidden);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// It leads nowhere.
    Failed,
    /// The HTTP proxy does not want to connect to this P-CSCF (403).
    Forbidden,
}

/// One flow's way up the ladder. From [`AccessLadder::climb`].
///
/// ```
/// use ims_traversal::ladder::{AccessLadder, Climb, LadderConfig, NetworkKey, Rung};
/// use stun_proto::{Instant, Transport};
///
/// let mut ladder = AccessLadder::new(LadderConfig::default()).unwrap();
/// let climb: Climb = ladder.climb(Instant::ZERO, NetworkKey(1), false, false).unwrap();
/// assert_eq!(climb.attempt().rung, Rung::Ordinary(Transport::Tls));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Climb {
    network: NetworkKey,
    proxy: bool,
    /// There is another P-CSCF to turn to.
    others: bool,
    /// Which rungs were tried: bits by their place.
    tried: u16,
    attempt: Attempt,
    /// Began at a remembered rung, and has not left it.
    remembered: bool,
}

impl Climb {
    /// What to try now.
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The network it belongs to.
    pub const fn network(&self) -> NetworkKey {
        self.network
    }
}

#[derive(Clone, Copy, Debug)]
struct Memory {
    network: NetworkKey,
    rung: Rung,
    /// When better rungs are due again; `None` is never.
    due: Option<Instant>,
}

/// The ways to the P-CSCF and what is remembered of them. See the [module](self).
///
/// ```
/// use ims_traversal::ladder::{AccessLadder, Fall, LadderConfig, NetworkKey, Rung};
/// use stun_proto::Instant;
///
/// let mut ladder = AccessLadder::new(LadderConfig::default()).unwrap();
/// let (now, office) = (Instant::ZERO, NetworkKey(1));
/// let mut climb = ladder.climb(now, office, true, false).unwrap();
/// // Port 5061 is blocked, and there is a proxy:
/// let next = ladder.failed(&mut climb, Fall::Failed).unwrap();
/// assert_eq!(next.rung, Rung::Connect);
/// ladder.worked(now, &climb);
///
/// // Next time it is the first that is tried.
/// let climb = ladder.climb(now, office, true, false).unwrap();
/// assert_eq!(climb.attempt().rung, Rung::Connect);
/// ```
#[derive(Clone, Debug)]
pub struct AccessLadder {
    config: LadderConfig,
    /// The latest last.
    memory: Vec<Memory>,
}

impl AccessLadder {
    /// A ladder that remembers nothing.
    ///
    /// # Errors
    /// [`LadderError`].
    pub fn new(config: LadderConfig) -> Result<Self, LadderError> {
        let rungs = &config.rungs;
        let twice = |at: usize, rung: &Rung| rungs.iter().take(at).any(|other| other == rung);
        if rungs.is_empty()
            || rungs.len() > 16
            || rungs.iter().enumerate().any(|(at, rung)| twice(at, rung))
        {
            return Err(LadderError::Rungs);
        }
        if config.max_networks == 0 {
            return Err(LadderError::Networks);
        }
        Ok(Self {
            config,
            memory: Vec::new(),
        })
    }

    /// Begins at the way that worked last in this network, unless better ones are due again, and
    /// else at the best. `proxy` says whether this network has an HTTP proxy, `others` whether
    /// there is a second P-CSCF. `None` when no way applies.
    pub fn climb(
        &mut self,
        now: Instant,
        network: NetworkKey,
        proxy: bool,
        others: bool,
    ) -> Option<Climb> {
        let known = self
            .touch(network)
            .filter(|memory| memory.due.is_none_or(|due| now < due) && memory.rung.applies(proxy));
        let mut climb = Climb {
            network,
            proxy,
            others,
            tried: 0,
            attempt: Attempt {
                rung: *self.config.rungs.first()?,
                other: false,
            },
            remembered: known.is_some(),
        };
        match known {
            Some(memory) => {
                climb.attempt.rung = memory.rung;
                climb.tried = self.bit(memory.rung);
                Some(climb)
            }
            None => self.next_rung(&mut climb).map(|_| climb),
        }
    }

    /// The present attempt has failed: the next one, or `None` when there is none.
    pub fn failed(&self, climb: &mut Climb, fall: Fall) -> Option<Attempt> {
        let again = match fall {
            Fall::Failed => false,
            Fall::Forbidden => climb.others && !climb.attempt.other,
        };
        if again {
            climb.attempt.other = true;
            return Some(climb.attempt);
        }
        self.next_rung(climb)
    }

    /// The best rung that was not tried yet.
    fn next_rung(&self, climb: &mut Climb) -> Option<Attempt> {
        let fits = |rung: &&Rung| rung.applies(climb.proxy) && climb.tried & self.bit(**rung) == 0;
        let rung = *self.config.rungs.iter().find(fits)?;
        climb.tried |= self.bit(rung);
        climb.attempt = Attempt { rung, other: false };
        climb.remembered = false;
        Some(climb.attempt)
    }

    fn bit(&self, rung: Rung) -> u16 {
        let place = self.config.rungs.iter().position(|own| *own == rung);
        place
            .and_then(|place| u32::try_from(place).ok())
            .and_then(|place| 1_u16.checked_shl(place))
            .unwrap_or(0)
    }

    /// The present attempt has led to an answer of the P-CSCF: it is remembered.
    pub fn worked(&mut self, now: Instant, climb: &Climb) {
        let rung = climb.attempt.rung;
        let known = self.touch(climb.network).filter(|_| climb.remembered);
        let due = match known {
            Some(memory) if memory.rung == rung => memory.due,
            Some(_) | None => deadline(now, self.config.retry_better),
        };
        self.remember(Memory {
            network: climb.network,
            rung,
            due,
        });
    }

    /// Forgets a network.
    pub fn forget(&mut self, network: NetworkKey) {
        self.memory.retain(|memory| memory.network != network);
    }

    /// What is remembered, the network of last first.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = Remembered> {
        let whole = self.config.retry_better;
        self.memory.iter().rev().map(move |memory| Remembered {
            network: memory.network,
            rung: memory.rung,
            age: memory.due.map_or(Duration::ZERO, |due| {
                whole.saturating_sub(elapsed(now, due))
            }),
        })
    }

    /// Takes back what [`export`](Self::export) gave, in its order. Ways that are not in the
    /// configuration, and more networks than are remembered, are passed over.
    pub fn import(&mut self, now: Instant, rows: impl IntoIterator<Item = Remembered>) {
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| self.config.rungs.contains(&row.rung))
            .take(self.config.max_networks)
            .collect();
        for row in rows.into_iter().rev() {
            self.remember(Memory {
                network: row.network,
                rung: row.rung,
                due: deadline(now, self.config.retry_better.saturating_sub(row.age)),
            });
        }
    }

    fn remember(&mut self, memory: Memory) {
        self.forget(memory.network);
        if self.memory.len() >= self.config.max_networks {
            self.memory.remove(0);
        }
        self.memory.push(memory);
    }

    /// What is known of a network, which now is the one of last.
    fn touch(&mut self, network: NetworkKey) -> Option<Memory> {
        let at = self
            .memory
            .iter()
            .position(|known| known.network == network)?;
        let memory = self.memory.remove(at);
        self.memory.push(memory);
        Some(memory)
    }
}

#[cfg(test)]
mod tests;
