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

#[test]
fn ops_sip_agent() {
    seeds("ops of an agent", 100, agent);
}

#[test]
fn ops_sip_edge() {
    seeds("ops of an edge proxy", 100, edge);
}

#[test]
fn ops_sip_registrar() {
    seeds("ops of a registrar", 100, registrar);
}
