//! One TCP connection with a tunnel in it, as a task.

use std::io;
use std::net::SocketAddr;

use ims_traversal::tunnel::{Tunnel, TunnelConfig, TunnelError, TunnelEvent};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::network::Network;
use super::{now, seed, sleep_until};

/// What a stream has to say.
#[derive(Debug)]
pub enum StreamInput {
    /// The proxy has opened its part.
    ProxyConnected,
    /// It is ready; the local address of the TCP connection.
    Ready(SocketAddr),
    /// Clear bytes.
    Data(Vec<u8>),
    /// The end, of whichever side.
    Closed,
    /// It failed, at this step.
    Failed(StreamError),
}

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The TCP connection.
    #[error("TCP connection to {to}: {error}")]
    Tcp {
        /// Where to.
        to: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// What is inside it.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// Bytes that may wait for a slow connection before datagram-like messages are dropped.
const QUEUE: usize = 256;

/// Where to write to a stream.
pub type Writer = mpsc::Sender<Vec<u8>>;

/// A queue for what is to be written to a stream.
pub fn queue() -> (Writer, mpsc::Receiver<Vec<u8>>) {
    mpsc::channel(QUEUE)
}

/// Opens a connection to `to` and keeps it until it ends.
pub async fn dial(
    network: Network,
    to: SocketAddr,
    config: TunnelConfig,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    mut on: impl FnMut(StreamInput),
) {
    // Fields of the configuration are the program's own.
    let Ok(mut tunnel) = Tunnel::new(config, seed(), now()) else {
        return on(StreamInput::Closed);
    };
    loop {
        let tcp = match network.connect(to).await {
            Ok(tcp) => tcp,
            Err(error) => return on(StreamInput::Failed(StreamError::Tcp { to, error })),
        };
        tunnel.handle_connected(now());
        if !drive(&tcp, &mut tunnel, &mut outgoing, &mut on).await {
            return;
        }
    }
}

/// Keeps an accepted connection until it ends.
pub async fn serve(
    tcp: TcpStream,
    config: TunnelConfig,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    mut on: impl FnMut(StreamInput),
) {
    let Ok(mut tunnel) = Tunnel::new(config, seed(), now()) else {
        return on(StreamInput::Closed);
    };
    tunnel.handle_connected(now());
    drive(&tcp, &mut tunnel, &mut outgoing, &mut on).await;
}

/// Moves bytes until the connection ends; `true` when another one is wanted.
async fn drive(
    tcp: &TcpStream,
    tunnel: &mut Tunnel,
    outgoing: &mut mpsc::Receiver<Vec<u8>>,
    on: &mut impl FnMut(StreamInput),
) -> bool {
    let local = tcp.local_addr();
    let mut buf = vec![0; 16 * 1024];
    // Bytes for the connection, and clear bytes the tunnel has not taken yet.
    let (mut out, mut unwritten) = (Vec::new(), Vec::new());
    let (mut ready, mut closing, mut eof) = (false, false, false);
    loop {
        while let Some(event) = tunnel.poll_event() {
            match event {
                TunnelEvent::Connected => on(StreamInput::ProxyConnected),
                TunnelEvent::Ready { .. } => {
                    ready = true;
                    if let Ok(local) = local {
                        on(StreamInput::Ready(local));
                    }
                }
                TunnelEvent::Reconnect => return true,
                // No tokens here.
                TunnelEvent::NeedToken { .. } => tunnel.set_token(now(), None),
                TunnelEvent::NeedCredentials { .. } => tunnel.set_credentials(now(), None),
                TunnelEvent::Failed(error) => {
                    // The alert that says why.
                    while let Some(len) = tunnel.poll_transmit(&mut buf) {
                        let _ = tcp.try_write(&buf[..len]);
                    }
                    on(StreamInput::Failed(error.into()));
                    return false;
                }
                TunnelEvent::Closed => eof = true,
                _ => {}
            }
        }
        while tunnel.readable() > 0 {
            let len = tunnel.read(&mut buf);
            on(StreamInput::Data(buf[..len].to_vec()));
        }
        if ready && !unwritten.is_empty() {
            let taken = tunnel.write(&unwritten);
            unwritten.drain(..taken);
        }
        while out.len() < 64 * 1024 {
            let Some(len) = tunnel.poll_transmit(&mut buf) else {
                break;
            };
            out.extend_from_slice(&buf[..len]);
        }
        if eof || (closing && out.is_empty() && unwritten.is_empty()) {
            on(StreamInput::Closed);
            return false;
        }
        tokio::select! {
            readable = tcp.readable() => {
                let read = readable.and_then(|()| tcp.try_read(&mut buf));
                match read {
                    Ok(0) => {
                        tunnel.handle_eof(now());
                        if !ready {
                            continue;
                        }
                        eof = true;
                    }
                    Ok(len) => tunnel.handle_input(now(), &buf[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        tunnel.handle_eof(now());
                        eof = true;
                    }
                }
            }
            writable = tcp.writable(), if !out.is_empty() => {
                let written = writable.and_then(|()| tcp.try_write(&out));
                match written {
                    Ok(len) => drop(out.drain(..len)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        tunnel.handle_eof(now());
                        eof = true;
                    }
                }
            }
            message = outgoing.recv(), if ready && !closing && unwritten.is_empty() => {
                match message {
                    Some(message) => unwritten = message,
                    None => {
                        closing = true;
                        tunnel.close();
                    }
                }
            }
            () = sleep_until(tunnel.poll_timeout()) => tunnel.handle_timeout(now()),
        }
    }
}
