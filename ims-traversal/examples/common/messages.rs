//! Numbered payloads that come back from the other side.

use std::collections::BTreeMap;
use std::time::Duration;

use ice_proto::{ComponentId, Instant};

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Payloads sent, not counting resends.
    pub sent: u32,
    /// Payloads that came back.
    pub echoed: u32,
    /// Payloads of the other side.
    pub received: u32,
    /// Resends.
    pub resent: u32,
    /// From the other side's description to the last selected pair.
    pub connected_after: Duration,
}

/// Payloads under way.
#[derive(Default)]
pub struct Messages {
    /// How it goes.
    pub summary: Summary,
    /// Sent and not come back: when it was sent last.
    pub waiting: BTreeMap<(ComponentId, u32), Instant>,
    /// The number of the next one.
    pub next: u32,
    /// Payloads to send back.
    pub echoes: Vec<(ComponentId, Vec<u8>)>,
}

impl Messages {
    /// Takes in a payload of a component: an echo, or one to be sent back.
    pub fn take(&mut self, name: &str, component: ComponentId, data: &[u8]) {
        let own = std::str::from_utf8(data)
            .ok()
            .and_then(|text| text.strip_prefix(name)?.strip_prefix(' '));
        let Some(rest) = own else {
            self.summary.received += 1;
            self.echoes.push((component, data.to_vec()));
            return;
        };
        let number = rest.rsplit(' ').next().and_then(|n| n.parse().ok());
        if let Some(number) = number
            && self.waiting.remove(&(component, number)).is_some()
        {
            self.summary.echoed += 1;
        }
    }
}
