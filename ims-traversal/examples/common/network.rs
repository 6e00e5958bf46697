//! The firewall in front of a client, enforced where the program opens sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ims_traversal::Endpoint;
use tokio::net::{TcpStream, UdpSocket};

/// What a client may open.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// UDP does not get through.
    pub udp_blocked: bool,
    /// The only addresses TCP gets through to; all when `None`.
    pub tcp_only_to: Option<Vec<SocketAddr>>,
}

impl Network {
    /// Whether a TCP connection to this address gets through.
    pub fn allows_tcp(&self, to: SocketAddr) -> bool {
        self.tcp_only_to
            .as_ref()
            .is_none_or(|only| only.contains(&to))
    }

    /// Opens a TCP connection to a name or an address; of a name's addresses to the first that
    /// answers.
    pub async fn connect_to(&self, to: &Endpoint) -> io::Result<TcpStream> {
        let to = match to {
            Endpoint::Addr(addr) => *addr,
            Endpoint::Name { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                let unresolved = || io::Error::from(io::ErrorKind::NotFound);
                let mut last = unresolved();
                for addr in found.map_err(|_| unresolved())? {
                    match self.connect(addr).await {
                        Ok(stream) => return Ok(stream),
                        Err(error) => last = error,
                    }
                }
                return Err(last);
            }
        };
        self.connect(to).await
    }

    /// Opens a TCP connection. What the firewall swallows times out, as it does in life, only
    /// sooner.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        if !self.allows_tcp(to) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let connect = TcpStream::connect(to);
        let stream = tokio::time::timeout(Duration::from_secs(10), connect).await;
        let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends a datagram, unless the firewall swallows it; whether it left.
    pub fn send(&self, socket: &UdpSocket, data: &[u8], to: SocketAddr) -> bool {
        // What cannot be sent is lost, like any datagram.
        !self.udp_blocked && socket.try_send_to(data, to).is_ok()
    }
}
