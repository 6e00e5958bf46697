//! Asks a STUN server for this host's address, or is one.
//!
//! ```text
//! cargo run --example binding -- serve 127.0.0.1:3478
//! cargo run --example binding -- ask 127.0.0.1:3478
//! ```
#![allow(clippy::print_stdout, reason = "this is what the program is for")]

use core::error::Error;
use core::net::SocketAddr;
use core::time::Duration;
use std::io::{ErrorKind, Read as _};
use std::net::UdpSocket;

use stun_proto::binding::{
    BindingClient, BindingClientConfig, BindingEvent, BindingServer, BindingServerConfig,
    MAX_TRANSMIT,
};
use stun_proto::{FiveTuple, Instant, Path};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ask", server] => ask(server.parse()?),
        ["serve", local] => serve(local.parse()?),
        _ => Err("usage: binding ask|serve ADDRESS:PORT".into()),
    }
}

/// The time since the program started, as the machines want it.
fn now(start: std::time::Instant) -> Instant {
    let nanos = i64::try_from(start.elapsed().as_nanos());
    Instant::from_nanos(nanos.unwrap_or(i64::MAX))
}

fn seed() -> Result<[u8; 32], Box<dyn Error>> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn ask(server: SocketAddr) -> Result<(), Box<dyn Error>> {
    let start = std::time::Instant::now();
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    // Connecting tells which of our addresses is used.
    socket.connect(server)?;
    let at = FiveTuple::udp(socket.local_addr()?, server);

    let mut client = BindingClient::new(BindingClientConfig::default(), seed()?, now(start))?;
    client.request(now(start), Path::Datagram(at))?;
    let (mut out, mut incoming) = ([0; MAX_TRANSMIT], [0; 2048]);
    loop {
        while let Some(transmit) = client.poll_transmit(&mut out) {
            socket.send(out.get(..transmit.len).unwrap_or_default())?;
        }
        match client.poll_event() {
            Some(BindingEvent::Mapped { mapped, rtt, .. }) => {
                println!("{mapped} (round trip {rtt:?})");
                return Ok(());
            }
            Some(BindingEvent::Failed { cause, .. }) => return Err(cause.into()),
            None => {}
        }
        let wait = client
            .poll_timeout()
            .map_or(Duration::from_secs(1), |at| at.duration_since(now(start)));
        socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match socket.recv(&mut incoming) {
            Ok(len) => {
                let data = incoming.get(..len).unwrap_or_default();
                client.handle_datagram(now(start), at, data);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                client.handle_icmp(now(start), at, true);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
        client.handle_timeout(now(start));
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut
}

fn serve(local: SocketAddr) -> Result<(), Box<dyn Error>> {
    let start = std::time::Instant::now();
    let socket = UdpSocket::bind(local)?;
    let mut server = BindingServer::new(BindingServerConfig::default(), seed()?)?;
    let (mut out, mut incoming) = ([0; MAX_TRANSMIT], [0; 2048]);
    loop {
        let (len, from) = socket.recv_from(&mut incoming)?;
        let at = FiveTuple::udp(local, from);
        let data = incoming.get(..len).unwrap_or_default();
        if let Some(answer) = server.respond(now(start), at, data, &mut out) {
            // A datagram that cannot be sent is as good as lost.
            let _ = socket.send_to(out.get(..answer.len).unwrap_or_default(), from);
        }
    }
}
