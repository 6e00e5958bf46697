//! The entry functions whose bytes are operations, with drawn bytes: deeper than what a corpus
//! replays. `SIM_SEEDS` and `SIM_SEED` count here as well.

use fuzz::sim::{Choices, Trace, seeds};

fn drawn(mut choices: Choices) -> Vec<u8> {
    let len = choices.index(400);
    choices.bytes(len)
}

fn agent(choices: Choices, _: Trace) {
    fuzz::sip::ops_sip_agent(&drawn(choices));
}

fn edge(choices: Choices, _: Trace) {
    fuzz::sip::ops_sip_edge(&drawn(choices));
}

fn registrar(choices: Choices, _: Trace) {
    fuzz::sip::ops_sip_registrar(&drawn(choices));
}

// spec: PRJ-3-3, SEC-F-02, SEC-F-05
#[test]
fn ops_sip_agent() {
    seeds("ops of an agent", 100, agent);
}

// spec: PRJ-3-3, SEC-F-02, SEC-F-05, SEC-P-08
#[test]
fn ops_sip_edge() {
    seeds("ops of an edge proxy", 100, edge);
}

// spec: OUT-6-6, OUT-6-7, SIP-10.3-6, SIP-10.3-7, SEC-P-13
#[test]
fn ops_sip_registrar() {
    seeds("ops of a registrar", 100, registrar);
}
