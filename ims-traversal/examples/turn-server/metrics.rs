//! What Prometheus reads: a text over HTTP/1.1, one answer for each connection.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::host::{Counts, Host, Snapshot};

/// A request line and some header fields; more is not read.
const REQUEST: usize = 4096;

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers whoever connects.
pub async fn serve(listener: TcpListener, text: Arc<Mutex<String>>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let text = text.lock().map(|text| text.clone()).unwrap_or_default();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(tcp, text)).await;
        });
    }
}

async fn answer(mut tcp: TcpStream, text: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buf = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST {
        match tcp.read(&mut buf).await? {
            0 => break,
            len => request.extend_from_slice(&buf[..len]),
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", text)
    } else {
        ("404 Not Found", String::new())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    tcp.write_all(head.as_bytes()).await?;
    tcp.write_all(body.as_bytes()).await?;
    tcp.shutdown().await
}

type Value = fn(&Snapshot) -> u64;

const GAUGES: [(&str, &str, Value); 4] = [
    (
        "allocations",
        "Allocations, those being opened included.",
        |s| s.allocations as u64,
    ),
    ("relays", "Open relay sockets.", |s| s.relays as u64),
    ("streams", "TCP and TLS connections of clients.", |s| {
        s.streams as u64
    }),
    (
        "peer_connections",
        "TCP connections to and from peers.",
        |s| s.peers as u64,
    ),
];

const COUNTERS: [(&str, &str, Value); 21] = [
    (
        "allocations_created_total",
        "Relayed addresses given out.",
        |s| s.counts.created,
    ),
    (
        "allocations_ended_total",
        "Relayed addresses given back.",
        |s| s.counts.ended,
    ),
    (
        "datagrams_from_clients_total",
        "Datagrams and data units of clients.",
        |s| s.counts.from_clients,
    ),
    (
        "datagrams_to_peers_total",
        "Datagrams relayed to peers.",
        |s| s.counts.to_peers,
    ),
    (
        "datagrams_from_peers_total",
        "Datagrams that came to relays.",
        |s| s.counts.from_peers,
    ),
    (
        "datagrams_to_clients_total",
        "Datagrams relayed to clients.",
        |s| s.counts.to_clients,
    ),
    (
        "datagrams_unsent_total",
        "Datagrams the kernel did not take.",
        |s| s.counts.unsent,
    ),
    (
        "datagrams_dropped_total",
        "Data for clients whose connection had too much waiting.",
        |s| s.counts.dropped,
    ),
    (
        "icmp_errors_total",
        "ICMP errors that came back to relays.",
        |s| s.counts.icmp,
    ),
    ("streams_accepted_total", "Connections accepted.", |s| {
        s.counts.accepted
    }),
    (
        "streams_handed_over_total",
        "Data connections handed to the worker of their peer.",
        |s| s.counts.handed_over,
    ),
    (
        "tls_failures_total",
        "Connections that failed in TLS.",
        |s| s.counts.tls_failures,
    ),
    (
        "spliced_bytes_total",
        "Bytes of ended connections to peers.",
        |s| s.counts.spliced,
    ),
    (
        "malformed_total",
        "Messages that are not what a client may send.",
        |s| s.stats.malformed,
    ),
    (
        "unauthenticated_total",
        "Requests without good proof, first ones included.",
        |s| s.stats.unauthenticated,
    ),
    (
        "failed_logins_total",
        "Requests with a wrong user name or password.",
        |s| s.stats.failed_logins,
    ),
    (
        "rate_limited_total",
        "Requests of strangers left unanswered.",
        |s| s.stats.rate_limited,
    ),
    (
        "not_permitted_total",
        "Data without allocation, permission or channel.",
        |s| s.stats.not_permitted,
    ),
    (
        "over_bandwidth_total",
        "Data beyond a user's bandwidth.",
        |s| s.stats.over_bandwidth,
    ),
    (
        "responses_dropped_total",
        "Requests dropped because too much waited.",
        |s| s.stats.responses_dropped,
    ),
    ("limited_total", "Requests refused with 486 or 508.", |s| {
        s.stats.limited
    }),
];

/// Everything, as text.
pub fn text(host: &Host, draining: bool) -> String {
    let snapshots = host.snapshots();
    let mut text = String::new();
    let mut family = |name: &str, help: &str, kind: &str, value: Value| {
        let _ = writeln!(text, "# HELP turn_{name} {help}\n# TYPE turn_{name} {kind}");
        for (worker, snapshot) in snapshots.iter().enumerate() {
            let value = value(snapshot);
            let _ = writeln!(text, "turn_{name}{{worker=\"{worker}\"}} {value}");
        }
    };
    for (name, help, value) in GAUGES {
        family(name, help, "gauge", value);
    }
    for (name, help, value) in COUNTERS {
        family(name, help, "counter", value);
    }
    let users = host.quota().users();
    let draining = u8::from(draining);
    let _ = write!(
        text,
        "# HELP turn_users Users with allocations.\n# TYPE turn_users gauge\nturn_users {users}\n\
         # HELP turn_draining Whether no new allocations are given.\n\
         # TYPE turn_draining gauge\nturn_draining {draining}\n"
    );
    text
}

/// All counters together, for the last line.
pub fn sum(snapshots: &[Snapshot]) -> Counts {
    snapshots.iter().fold(Counts::default(), |mut all, next| {
        let counts = next.counts;
        all.from_clients += counts.from_clients;
        all.to_peers += counts.to_peers;
        all.from_peers += counts.from_peers;
        all.to_clients += counts.to_clients;
        all.unsent += counts.unsent;
        all.dropped += counts.dropped;
        all
    })
}

#[cfg(test)]
mod tests;
