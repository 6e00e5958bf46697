//! Tests of the metrics.
#![allow(clippy::unwrap_used, reason = "test code")]

use super::*;
use crate::args::Args;
use crate::host::Host;
use crate::setup::Setup;
use clap::Parser as _;

async fn get(at: std::net::SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_are_shown_at_their_path_only() {
    let args = Args::parse_from([
        "turn-server",
        "--udp=127.0.0.1:0",
        "--relay=127.0.0.1",
        "--realm=example.org",
        "--user=alice:secret",
        "--workers=2",
    ]);
    let setup = Setup::new(&args.config().unwrap()).unwrap();
    let host = Host::start(setup.host, setup.keys, setup.quota).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let shown = Arc::new(Mutex::new(text(&host, true)));
    tokio::spawn(serve(listener, shown));
    let answer = get(at, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for line in [
        "# TYPE turn_allocations gauge",
        "turn_allocations{worker=\"1\"} 0",
        "turn_datagrams_to_peers_total{worker=\"0\"} 0",
        "turn_draining 1",
    ] {
        assert!(
            answer.lines().any(|found| found == line),
            "{line}: {answer}"
        );
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    let other = get(at, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    // Whoever sends without end is not listened to without end.
    let long = get(at, &"x".repeat(REQUEST)).await;
    assert!(long.starts_with("HTTP/1.1 404"), "{long}");
}
