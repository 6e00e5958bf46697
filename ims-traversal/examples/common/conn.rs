//! One TCP connection of a machine that keeps its bytes until they can be written.

use std::future::Future;
use std::io;
use std::sync::Arc;

use ims_traversal::{ConnFailure, Endpoint};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::network::Network;

/// What a connection has to say.
#[derive(Debug)]
pub enum ConnInput {
    /// It is there.
    Connected(Arc<TcpStream>),
    /// It was not made, or broke.
    Failed(ConnFailure),
    /// Bytes.
    Data(Vec<u8>),
    /// The other side has closed its half.
    Eof,
    /// It takes bytes again.
    Writable,
}

/// A connection, from the moment it is asked for.
pub struct Conn {
    tcp: Option<Arc<TcpStream>>,
    /// Polled from the machine and not written yet.
    rest: Vec<u8>,
    closing: bool,
    /// There is nothing to write any more.
    written: bool,
    task: JoinHandle<()>,
    /// Tells the task that it is to wait until the connection takes bytes.
    full: Arc<tokio::sync::Notify>,
}

impl Conn {
    /// Connects; `on` gets what happens, and says whether anybody wants more.
    pub fn dial<F: Future<Output = bool> + Send>(
        network: Network,
        to: Endpoint,
        on: impl Fn(ConnInput) -> F + Send + Sync + 'static,
    ) -> Self {
        let full = Arc::new(tokio::sync::Notify::new());
        let waits = Arc::clone(&full);
        let task = tokio::spawn(async move {
            match network.connect_to(&to).await {
                Err(error) => drop(on(ConnInput::Failed(failure_of(&error))).await),
                Ok(tcp) => {
                    let tcp = Arc::new(tcp);
                    on(ConnInput::Connected(Arc::clone(&tcp))).await;
                    tokio::join!(read(&tcp, &on), async {
                        loop {
                            waits.notified().await;
                            let _ = tcp.writable().await;
                            on(ConnInput::Writable).await;
                        }
                    });
                }
            }
        });
        Self {
            tcp: None,
            rest: Vec::new(),
            closing: false,
            written: false,
            task,
            full,
        }
    }

    /// The connection is there.
    pub fn established(&mut self, tcp: Arc<TcpStream>) {
        self.tcp = Some(tcp);
    }

    /// To be closed once everything is written.
    pub const fn close(&mut self) {
        self.closing = true;
    }

    /// Closed, and everything is written.
    pub const fn is_done(&self) -> bool {
        self.closing && (self.written || self.tcp.is_none())
    }

    /// Writes as much of what `poll` has as the connection takes.
    pub fn write(&mut self, mut poll: impl FnMut(&mut [u8]) -> Option<usize>) -> io::Result<()> {
        let Some(tcp) = &self.tcp else {
            return Ok(());
        };
        let mut buf = [0; 16 * 1024];
        loop {
            self.written = false;
            if self.rest.is_empty() {
                let Some(len) = poll(&mut buf) else {
                    self.written = true;
                    return Ok(());
                };
                self.rest.extend_from_slice(&buf[..len]);
            }
            match tcp.try_write(&self.rest) {
                Ok(len) => drop(self.rest.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full.notify_one();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read<F: Future<Output = bool>>(tcp: &TcpStream, on: &impl Fn(ConnInput) -> F) {
    let mut buf = vec![0; 16 * 1024];
    loop {
        let read = match tcp.readable().await {
            Ok(()) => tcp.try_read(&mut buf),
            Err(error) => Err(error),
        };
        let (input, last) = match read {
            Ok(0) => (ConnInput::Eof, true),
            Ok(len) => (ConnInput::Data(buf[..len].to_vec()), false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => (ConnInput::Failed(failure_of(&error)), true),
        };
        if !on(input).await || last {
            return;
        }
    }
}

/// Why a connection failed, in the machines' words.
pub fn failure_of(error: &io::Error) -> ConnFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnFailure::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ConnFailure::Reset,
        io::ErrorKind::TimedOut => ConnFailure::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ConnFailure::Unreachable
        }
        io::ErrorKind::NotFound => ConnFailure::Unresolved,
        _ => ConnFailure::Other,
    }
}
