//! A client's TCP connection, with TLS in it or not.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::{ServerConfig as TlsConfig, ServerConnection};
use smallvec::SmallVec;

/// Bytes that may wait for a client that does not read, before data for it is dropped.
pub const DATA_BACKLOG: usize = 256 * 1024;

/// Bytes that may wait before the connection is given up: messages must not be lost on a stream.
pub const CONTROL_BACKLOG: usize = 1024 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Clear bytes, or records, that the socket has not taken.
    out: Vec<u8>,
    /// How many of them it has taken since.
    written: usize,
    /// The write side is to be closed when everything is out.
    closing: bool,
    closed: bool,
}

/// What reading gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many clear bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more: the other side has closed its half.
    End,
}

impl Stream {
    pub fn new(tcp: TcpStream, tls: Option<Arc<TlsConfig>>) -> io::Result<Self> {
        let _ = tcp.set_nodelay(true);
        let tls = match tls {
            Some(config) => {
                let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
                // Records go on to `out` at once; what may wait there is bounded by the worker.
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
            None => None,
        };
        Ok(Self {
            tcp,
            tls,
            out: Vec::new(),
            written: 0,
            closing: false,
            closed: false,
        })
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.tcp, token, both)
    }

    pub fn deregister(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.tcp);
    }

    pub fn local(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Clear bytes from the client.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<Read> {
        loop {
            let Some(tls) = &mut self.tls else {
                return Ok(match retry(|| self.tcp.read(buf))? {
                    Some(0) => Read::End,
                    Some(len) => Read::Bytes(len),
                    None => Read::Nothing,
                });
            };
            match tls.reader().read(buf) {
                Ok(0) => return Ok(Read::End),
                Ok(len) => return Ok(Read::Bytes(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Cut off without a closing record. Messages say how long they are: nothing of
                // theirs can have been cut short unseen.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Read::End);
                }
                Err(error) => return Err(error),
            }
            if retry(|| tls.read_tls(&mut self.tcp))?.is_none() {
                return Ok(Read::Nothing);
            }
            let taken = tls.process_new_packets();
            // Answers of the handshake, or the alert that says why there is none.
            pull(tls, &mut self.out);
            match taken {
                Ok(_) => self.flush()?,
                Err(error) => {
                    let _ = self.flush();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }

    /// Sends bytes, or keeps them until the socket takes them. They go in one record: some clients
    /// take a record for a message.
    pub fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            for part in parts {
                self.out.extend_from_slice(part);
            }
            return self.flush();
        };
        let slices: SmallVec<[IoSlice<'_>; 3]> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let taken = tls.writer().write_vectored(&slices)?;
        pull(tls, &mut self.out);
        // There is no limit for what it takes.
        if taken < parts.iter().map(|part| part.len()).sum() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.flush()
    }

    /// How many bytes wait for the socket.
    pub const fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    /// Sends what the socket takes now.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            let left = &self.out[self.written..];
            match retry(|| self.tcp.write(left))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(len) => self.written += len,
                None => return Ok(()),
            }
        }
        self.out.clear();
        self.written = 0;
        // Nothing stays behind of a burst.
        self.out.shrink_to(4 * 1024);
        if self.closing && !self.closed {
            self.closed = true;
            let _ = self.tcp.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Closes the write side when everything is out.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.closing {
            return Ok(());
        }
        self.closing = true;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            pull(tls, &mut self.out);
        }
        self.flush()
    }

    /// Whether the write side is closed.
    pub const fn is_finished(&self) -> bool {
        self.closed
    }
}

/// Takes the records that are ready.
fn pull(tls: &mut ServerConnection, out: &mut Vec<u8>) {
    while tls.wants_write() {
        // Writing to memory does not fail.
        if tls.write_tls(out).is_err() {
            return;
        }
    }
}

/// `None` when it would block.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
