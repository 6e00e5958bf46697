//! Opening sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted by a worker.
const BACKLOG: i32 = 1024;

/// How much the kernel keeps for each kind of socket, in bytes; `None` leaves its default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffers {
    pub listener: Option<usize>,
    pub relay: Option<usize>,
}

fn new(at: SocketAddr, ty: Type) -> io::Result<Socket> {
    let protocol = if ty == Type::DGRAM {
        Protocol::UDP
    } else {
        Protocol::TCP
    };
    let socket = Socket::new(Domain::for_address(at), ty, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Lets several sockets have one address: the kernel chooses by the five-tuple.
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

fn enlarge(socket: &Socket, bytes: Option<usize>) {
    if let Some(bytes) = bytes {
        super::udp::enlarge(socket, bytes);
    }
}

/// Fails when somebody else has the address. Sharing would let two servers take each other's
/// clients without a word.
pub fn is_free(at: SocketAddr, stream: bool) -> io::Result<()> {
    let socket = new(at, if stream { Type::STREAM } else { Type::DGRAM })?;
    if stream {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if stream {
        socket.listen(1)?;
    }
    Ok(())
}

/// A socket for the datagrams of clients, one of several on its address.
pub fn udp_listener(at: SocketAddr, buffer: Option<usize>) -> io::Result<std::net::UdpSocket> {
    let socket = new(at, Type::DGRAM)?;
    share(&socket)?;
    enlarge(&socket, buffer);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// A listener for the connections of clients, one of several on its address.
pub fn tcp_listener(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = new(at, Type::STREAM)?;
    // Connections of an earlier process that are not quite over do not hold the port.
    socket.set_reuse_address(true)?;
    share(&socket)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A relay for datagrams; fails where the port has any other user.
pub fn udp_relay(at: SocketAddr, buffer: Option<usize>) -> io::Result<std::net::UdpSocket> {
    let socket = new(at, Type::DGRAM)?;
    enlarge(&socket, buffer);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// A relay for connections (RFC 6062). Connections to peers leave from the same address.
pub fn tcp_relay(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    // Whether anybody has the port shows only without sharing.
    new(at, Type::STREAM)?.bind(&at.into())?;
    let socket = new(at, Type::STREAM)?;
    share(&socket)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Begins to connect to a peer from a relay's address.
pub fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = new(from, Type::STREAM)?;
    share(&socket)?;
    socket.bind(&from.into())?;
    match socket.connect(&to.into()) {
        Err(error) if !is_in_progress(&error) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32)
}

/// How the kernel spreads clients over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// By the five-tuple: evenly, whoever the clients are.
    #[default]
    Flow,
    /// By the client's address (IPv6: the /64): all its sockets come to one worker, and so do all
    /// clients behind one NAT. Linux only.
    Address,
}

/// Has the kernel choose among the sockets of one address by the client's address. Said to the
/// first of them, it holds for all; they are numbered in the order in which they were bound.
#[cfg(target_os = "linux")]
pub fn spread_by_address<S: std::os::fd::AsFd>(
    socket: &S,
    v4: bool,
    workers: usize,
) -> io::Result<()> {
    use nix::libc::{sock_filter, sock_fprog};
    use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};

    /// Classic BPF: offsets from here are into the IP header.
    const IP: u32 = 0xFFF0_0000;
    let op = |code, k| sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let load = |at| op(0x20, IP + at);
    let mut program = if v4 {
        vec![load(12)]
    } else {
        // The second word, exclusive or with the first.
        vec![load(8), op(0x07, 0), load(12), op(0xAC, 0)]
    };
    // Mixed, so that neighbours do not all go the same way; then one of the workers.
    let workers = u32::try_from(workers).map_err(|_| io::ErrorKind::InvalidInput)?;
    program.extend([
        op(0x24, 0x9E37_79B1),
        op(0x74, 16),
        op(0x94, workers),
        op(0x16, 0),
    ]);
    let program = sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

#[cfg(not(target_os = "linux"))]
pub fn spread_by_address<S>(_: &S, _: bool, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The addresses of this host that a wildcard stands for, without link-local ones.
pub fn expand(at: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    if !at.ip().is_unspecified() {
        return Ok(vec![at]);
    }
    let mut found = Vec::new();
    for ip in interfaces()? {
        let fits = ip.is_ipv4() == at.is_ipv4() && !ip.is_multicast();
        let local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let entry = SocketAddr::new(ip, at.port());
        if fits && !local && !found.contains(&entry) {
            found.push(entry);
        }
    }
    Ok(found)
}

fn interfaces() -> io::Result<Vec<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let addresses = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip())))
    });
    Ok(addresses.collect())
}
