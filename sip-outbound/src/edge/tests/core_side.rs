//! Datagrams of the core.

use super::*;

fn udp(port: u16) -> FiveTuple {
    FiveTuple::udp(
        SocketAddr::from(([192, 0, 2, 15], 5060)),
        SocketAddr::from(([198, 51, 100, 1], port)),
    )
}

fn request(token: &str, body: usize) -> String {
    alloc::format!(
        "MESSAGE sip:alice@10.7.0.9 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKm{body}\r\n\
         Route: <sip:{token}@ep1.example.com;lr;ob>\r\nFrom: <sip:bob@x>;tag=1\r\nTo: <sip:alice@x>\r\nCall-ID: m\r\n\
         CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nContent-Length: {body}\r\n\r\n{}",
        "x".repeat(body)
    )
}

// spec: PRJ-10-2
#[test]
fn the_host_says_which_side_a_datagram_is_of() {
    let mut bench = bench(config());
    let token = bench.register();
    let text = request(&token, 3000);
    // Too large for somebody unknown, and not for clients to say.
    bench
        .edge
        .handle_datagram(bench.now, udp(1), text.as_bytes());
    let small = request(&token, 0);
    bench
        .edge
        .handle_datagram(bench.now, udp(2), small.as_bytes());
    bench.drain();
    assert_eq!(bench.code(FlowId(0)), 413);
    assert_eq!(bench.code(FlowId(0)), 403);
    bench
        .edge
        .handle_core_datagram(bench.now, udp(3), text.as_bytes());
    bench.drain();
    let (flow, request) = bench.next_request();
    assert_eq!(flow, bench.client);
    assert_eq!(request.body().len(), 3000);
}

#[test]
fn two_next_hops_may_be_one_address() {
    let mut bench = bench(EdgeConfig {
        next_hop: None,
        ..config()
    });
    bench.register_elsewhere();
    let (mut flows, mut sent) = (Vec::new(), Vec::new());
    for host in ["a", "b"] {
        let text = text("OPTIONS", &alloc::format!("sip:u@{host}"), "");
        let text = text.replace("z9hG4bK", &alloc::format!("z9hG4bK{host}"));
        bench
            .edge
            .handle_flow_input(bench.now, bench.client, text.as_bytes());
        while let Some(action) = bench.edge.poll_action() {
            if let FlowAction::OpenFlow { flow, .. } = action {
                bench.edge.flow_opened(bench.now, flow, udp(5060));
                flows.push(flow);
            }
        }
        bench.drain();
        sent.push(bench.next_request().1);
    }
    // One of them ends: what went the same way for the other one is still answered.
    bench.edge.flow_failed(bench.now, flows[0]);
    bench.drain();
    assert!(bench.sent.is_empty());
    let reply = Builder::reply(&sent[1], StatusCode::OK, Some("far"));
    let reply = reply.finish(b"").unwrap();
    bench
        .edge
        .handle_core_datagram(bench.now, udp(5060), reply.as_bytes());
    bench.drain();
    assert_eq!(bench.code(bench.client), 200);
    // With the last one everything fails that waits.
    bench.edge.flow_failed(bench.now, flows[1]);
    bench.drain();
    assert_eq!(bench.code(bench.client), 500);
}
