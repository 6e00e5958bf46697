use fuzz::sim::{Choices, Trace, seeds};
fn b(c: &mut Choices) -> Vec<u8> {
    let n = c.index(400);
    let b = c.bytes(n);
    if let Ok(p) = std::env::var("DUMP") {
        std::fs::write(p, &b).unwrap();
    }
    b
}
fn agent(mut c: Choices, _: Trace) {
    fuzz::sip::ops_sip_agent(&b(&mut c));
}
fn edge(mut c: Choices, _: Trace) {
    fuzz::sip::ops_sip_edge(&b(&mut c));
}
#[test]
fn many_agent() {
    seeds("agent", 2000, agent);
}
#[test]
fn many_edge() {
    seeds("edge", 2000, edge);
}
#[test]
fn torture() {
    for dir in ["rfc4475", "rfc5118"] {
        let dir = format!(
            "{}/../sip-outbound/tests/torture/{dir}",
            env!("CARGO_MANIFEST_DIR")
        );
        for f in std::fs::read_dir(dir).unwrap() {
            let p = f.unwrap().path();
            println!("{}", p.display());
            fuzz::sip::parse_sip(&std::fs::read(p).unwrap());
        }
    }
}

fn registrar(mut c: Choices, _: Trace) {
    fuzz::sip::ops_sip_registrar(&b(&mut c));
}
#[test]
fn many_registrar() {
    seeds("registrar", 2000, registrar);
}
