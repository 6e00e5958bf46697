//! From bytes to messages and keep-alives (RFC 3261 section 18.3, RFC 5626 sections 3.5.1 and 8).

mod budget;
mod datagram;
mod stream;

pub use datagram::{DatagramKind, answer_binding, classify};
pub use stream::{Frame, Framer, FramerConfig, FramingError, Role};

/// What a client sends to ask whether a stream is alive: CR LF CR LF.
pub const PING: &[u8; 4] = b"\r\n\r\n";

/// What answers it: CR LF.
pub const PONG: &[u8; 2] = b"\r\n";

#[cfg(test)]
mod tests;
