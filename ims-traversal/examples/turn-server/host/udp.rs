//! A UDP socket that takes in and sends many datagrams at a time.
//!
//! Received is through `quinn-udp`: many datagrams for one system call, and several of one sender
//! in one buffer where the kernel has GRO. Sent is gathered from header and payload where they
//! lie, many datagrams for one call, and runs of equal ones as a single one (GSO).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use smallvec::SmallVec;

pub use self::system::Pending;

/// Room for the longest datagram, and for as many joined ones as the kernel makes.
pub const SLOT: usize = 65_536;

/// The most datagrams taken in at once.
pub const BATCH: usize = quinn_udp::BATCH_SIZE;

/// The most datagrams sent as one.
pub const SEGMENTS: usize = 64;

/// The most bytes sent as one.
const RUN: usize = 65_000;

/// The parts of the datagrams of one run: header, payload, padding each.
pub type Parts<'a> = SmallVec<[IoSlice<'a>; 256]>;

#[derive(Debug)]
pub struct UdpSocket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// The longest datagrams that may go as one: an interface may be too narrow, or unable.
    joins: usize,
    /// Whether datagrams leave with DF set.
    whole: bool,
}

impl UdpSocket {
    /// Takes over a bound socket.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let io = mio::net::UdpSocket::from_std(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        system::set_dont_fragment(&io, local.is_ipv4(), false)?;
        Ok(Self {
            joins: if state.max_gso_segments() >= SEGMENTS {
                SLOT
            } else {
                0
            },
            io,
            state,
            local,
            whole: false,
        })
    }

    /// Wants to hear of ICMP errors.
    pub fn report_errors(&self) -> io::Result<()> {
        self.state
            .enable_transport_errors(UdpSockRef::from(&self.io))
    }

    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.io.register(registry, token, Interest::READABLE)
    }

    pub fn deregister(&mut self, registry: &Registry) {
        let _ = self.io.deregister(registry);
    }

    /// Fills slots; how many of them.
    pub fn receive(&self, slots: &mut [Box<[u8]>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        let mut buffers: SmallVec<[IoSliceMut<'_>; BATCH]> = slots
            .iter_mut()
            .take(BATCH.min(metas.len()))
            .map(|slot| IoSliceMut::new(slot))
            .collect();
        self.state
            .recv(UdpSockRef::from(&self.io), &mut buffers, metas)
    }

    /// Sends one datagram.
    pub fn send(&self, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        system::send(&self.io, to, parts)
    }

    /// Sends datagrams that lie one behind the other in `parts`, each of `len` bytes but perhaps
    /// the last; how many were not sent.
    pub fn send_run(
        &mut self,
        to: SocketAddr,
        parts: &[IoSlice<'_>],
        of: usize,
        len: usize,
    ) -> usize {
        let count = parts.len() / of.max(1);
        if count > 1 && len <= self.joins {
            match system::send_run(&self.io, to, parts, len) {
                Ok(()) => return 0,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return count,
                    // Longer than the way is wide: each is cut up by itself.
                    io::ErrorKind::InvalidInput => self.joins = len.saturating_sub(1),
                    // An interface without checksums in hardware.
                    _ if error.raw_os_error() == Some(system::UNABLE) => self.joins = 0,
                    _ => {}
                },
            }
        }
        let failed = |datagram: &&[IoSlice<'_>]| self.send(to, datagram).is_err();
        parts.chunks(of.max(1)).filter(failed).count()
    }

    /// Sends datagrams to different places; how many were not sent.
    pub fn send_each(&self, datagrams: &[Pending<'_>]) -> usize {
        system::send_each(&self.io, datagrams)
    }

    /// Sets DF on what is sent from now on, or no longer.
    pub fn set_dont_fragment(&mut self, whole: bool) {
        if self.whole != whole
            && system::set_dont_fragment(&self.io, self.local.is_ipv4(), whole).is_ok()
        {
            self.whole = whole;
        }
    }

    /// The next ICMP error about something this socket sent: where to, type, code and MTU.
    pub fn next_error(&self) -> Option<IcmpError> {
        system::next_error(&self.io, self.local.is_ipv4())
    }

    /// Whether one more datagram may join a run.
    pub const fn joins(count: usize, first: usize, next: usize) -> bool {
        count < SEGMENTS && next <= first && (count + 1) * first <= RUN
    }
}

/// Has the kernel keep so many bytes for a socket, each way: beyond the system's limit where the
/// process may (CAP_NET_ADMIN), up to it elsewhere.
pub fn enlarge<S: std::os::fd::AsFd>(socket: &S, bytes: usize) {
    if system::force_buffers(socket, bytes).is_err() {
        let socket = socket2::SockRef::from(socket);
        let _ = socket.set_recv_buffer_size(bytes);
        let _ = socket.set_send_buffer_size(bytes);
    }
}

/// An ICMP error that came back.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError {
    pub peer: SocketAddr,
    pub ty: u8,
    pub code: u8,
    pub mtu: u32,
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::{self, IoSlice};
    use std::net::SocketAddr;
    use std::os::fd::{AsFd, AsRawFd as _};

    use mio::net::UdpSocket;
    use nix::sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
    };
    use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    use rustix::net::{
        MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sendmsg_addr,
    };
    use smallvec::SmallVec;

    use super::IcmpError;

    pub const UNABLE: i32 = nix::errno::Errno::EIO as i32;

    /// A datagram of a batch.
    #[derive(Debug)]
    pub struct Pending<'a> {
        to: SocketAddrAny,
        parts: [IoSlice<'a>; 3],
    }

    impl<'a> Pending<'a> {
        pub fn new(to: SocketAddr, parts: [IoSlice<'a>; 3]) -> Self {
            let to = SocketAddrAny::from(to);
            Self { to, parts }
        }
    }

    /// What came back for an earlier datagram is reported once by the next call, which then sends
    /// nothing: it is made again.
    fn past_errors(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        call().or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Err(error),
            _ => call(),
        })
    }

    pub fn send(socket: &UdpSocket, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        past_errors(|| {
            let mut none = SendAncillaryBuffer::default();
            let sent = sendmsg_addr(socket, &to, parts, &mut none, SendFlags::empty());
            sent.map_err(io::Error::from)
        })
        .map(drop)
    }

    pub fn send_run(
        socket: &UdpSocket,
        to: SocketAddr,
        parts: &[IoSlice<'_>],
        len: usize,
    ) -> io::Result<()> {
        let len = u16::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let to = SockaddrStorage::from(to);
        past_errors(|| {
            let segments = [ControlMessage::UdpGsoSegments(&len)];
            let fd = socket.as_raw_fd();
            let sent = sendmsg(fd, parts, &segments, MsgFlags::empty(), Some(&to));
            sent.map_err(io::Error::from)
        })
        .map(drop)
    }

    pub fn send_each(socket: &UdpSocket, datagrams: &[Pending<'_>]) -> usize {
        let mut left = datagrams;
        let mut failed = 0;
        while let Some((first, others)) = left.split_first() {
            if others.is_empty() {
                let mut none = SendAncillaryBuffer::default();
                let once = || {
                    let flags = SendFlags::empty();
                    let sent = sendmsg_addr(socket, &first.to, &first.parts, &mut none, flags);
                    sent.map_err(io::Error::from)
                };
                return failed + usize::from(past_errors(once).is_err());
            }
            match send_some(socket, left) {
                Ok(sent) => left = left.get(sent..).unwrap_or_default(),
                Err(rustix::io::Errno::WOULDBLOCK) => return failed + left.len(),
                // One that cannot be sent does not hold up the others.
                Err(_) => {
                    failed += 1;
                    left = others;
                }
            }
        }
        failed
    }

    fn send_some(socket: &UdpSocket, datagrams: &[Pending<'_>]) -> rustix::io::Result<usize> {
        let mut none: SmallVec<[SendAncillaryBuffer<'_, '_, '_>; 64]> = SmallVec::new();
        none.resize_with(datagrams.len().min(64), Default::default);
        let mut messages: SmallVec<[MMsgHdr<'_>; 64]> = datagrams
            .iter()
            .zip(&mut none)
            .map(|(datagram, none)| MMsgHdr::new_with_addr(&datagram.to, &datagram.parts, none))
            .collect();
        sendmmsg(socket, &mut messages, SendFlags::empty())
    }

    pub fn set_dont_fragment(socket: &UdpSocket, v4: bool, whole: bool) -> io::Result<()> {
        if v4 {
            let mode = if whole {
                Ipv4PathMtuDiscovery::DO
            } else {
                Ipv4PathMtuDiscovery::DONT
            };
            sockopt::set_ip_mtu_discover(socket, mode)?;
        } else {
            let mode = if whole {
                Ipv6PathMtuDiscovery::DO
            } else {
                Ipv6PathMtuDiscovery::DONT
            };
            sockopt::set_ipv6_mtu_discover(socket, mode)?;
            nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Ipv6DontFrag, &whole)?;
        }
        Ok(())
    }

    pub fn force_buffers<S: AsFd>(socket: &S, bytes: usize) -> io::Result<()> {
        use nix::sys::socket::{setsockopt, sockopt::RcvBufForce, sockopt::SndBufForce};
        setsockopt(socket, RcvBufForce, &bytes)?;
        Ok(setsockopt(socket, SndBufForce, &bytes)?)
    }

    pub fn next_error(socket: &UdpSocket, v4: bool) -> Option<IcmpError> {
        // Beside the error there are time stamp, address and type of service.
        let mut room = nix::cmsg_space!([u8; 256]);
        let fd = socket.as_raw_fd();
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let read = recvmsg::<SockaddrStorage>(fd, &mut [], Some(&mut room), flags).ok()?;
        let peer = read.address?;
        let peer = peer
            .as_sockaddr_in()
            .map(|at| SocketAddr::from((at.ip(), at.port())))
            .or_else(|| {
                let at = peer.as_sockaddr_in6()?;
                Some(SocketAddr::from((at.ip(), at.port())))
            })?;
        read.cmsgs().ok()?.find_map(|message| {
            let error = match message {
                ControlMessageOwned::Ipv4RecvErr(error, _) if v4 => error,
                ControlMessageOwned::Ipv6RecvErr(error, _) if !v4 => error,
                _ => return None,
            };
            // 2 and 3 are ICMP and ICMPv6; errors of this host itself have no type.
            matches!(error.ee_origin, 2 | 3).then_some(IcmpError {
                peer,
                ty: error.ee_type,
                code: error.ee_code,
                mtu: error.ee_info,
            })
        })
    }
}

/// Where there is no `sendmmsg`, every datagram is put together and sent by itself.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io::{self, IoSlice};
    use std::net::SocketAddr;

    use mio::net::UdpSocket;

    use super::IcmpError;

    pub const UNABLE: i32 = 0;

    #[derive(Debug)]
    pub struct Pending<'a> {
        to: SocketAddr,
        parts: [IoSlice<'a>; 3],
    }

    impl<'a> Pending<'a> {
        pub fn new(to: SocketAddr, parts: [IoSlice<'a>; 3]) -> Self {
            Self { to, parts }
        }
    }

    pub fn send(socket: &UdpSocket, to: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        socket.send_to(&whole, to).map(drop)
    }

    pub fn send_run(_: &UdpSocket, _: SocketAddr, _: &[IoSlice<'_>], _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn send_each(socket: &UdpSocket, datagrams: &[Pending<'_>]) -> usize {
        let failed = |one: &&Pending<'_>| send(socket, one.to, &one.parts).is_err();
        datagrams.iter().filter(failed).count()
    }

    pub fn set_dont_fragment(_: &UdpSocket, _: bool, whole: bool) -> io::Result<()> {
        if whole {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(())
    }

    pub fn force_buffers<S>(_: &S, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn next_error(_: &UdpSocket, _: bool) -> Option<IcmpError> {
        None
    }
}
