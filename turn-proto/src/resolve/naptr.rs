//! S-NAPTR with the service tag RELAY (RFC 3958, RFC 5928 section 3 step 4).

use alloc::string::String;
use alloc::vec::Vec;

use stun_proto::Transport;

use super::Step;

/// NAPTR records per name that are looked at.
const MAX_RECORDS: usize = 16;

/// One NAPTR record; records with a regular expression are none of S-NAPTR and not handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaptrRecord {
    /// Lower ones come first.
    pub order: u16,
    /// Lower ones come first among those of the same order.
    pub preference: u16,
    /// Empty: more NAPTR records; `S`: SRV records; `A`: addresses.
    pub flags: String,
    /// For example `RELAY:turn.udp:turn.tcp`.
    pub service: String,
    /// The name to go on with.
    pub replacement: String,
}

impl NaptrRecord {
    /// Whether the record leads to servers over this transport.
    fn offers(&self, transport: Transport) -> bool {
        let tag = match transport {
            Transport::Udp => "turn.udp",
            Transport::Tcp => "turn.tcp",
            Transport::Tls => "turn.tls",
            Transport::Dtls => "turn.dtls",
        };
        let mut parts = self.service.split(':');
        let relay = parts
            .next()
            .is_some_and(|service| service.eq_ignore_ascii_case("RELAY"));
        relay && parts.any(|part| part.eq_ignore_ascii_case(tag))
    }

    fn step(&self, transport: Transport) -> Option<Step> {
        let name = self.replacement.trim_end_matches('.');
        if name.is_empty() {
            return None;
        }
        let name = String::from(name);
        match self.flags.as_str() {
            "" => Some(Step::Naptr(name, transport)),
            "s" | "S" => Some(Step::Srv(name, transport, None)),
            "a" | "A" => Some(Step::Addresses(name, None, [transport].into())),
            _ => None,
        }
    }
}

/// Where records lead: by their rank, and where that is the same by the application's order of
/// transports.
pub(super) fn ranked(records: &[NaptrRecord], transports: &[Transport]) -> Vec<Step> {
    let mut found = Vec::new();
    for record in records.iter().take(MAX_RECORDS) {
        for (liking, transport) in transports.iter().enumerate() {
            if record.offers(*transport)
                && let Some(step) = record.step(*transport)
            {
                found.push(((record.order, record.preference, liking), step));
            }
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, step)| step).collect()
}
