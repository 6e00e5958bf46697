//! Cutting byte streams into units (RFC 8489 section 6.2.2, RFC 8656 section 12.4, RFC 4571).
//!
//! A unit that lies whole in one read is handed out as a slice of that read; only one that is
//! split over reads is copied together first. An error is final: there is no way to find the next
//! unit after it.

mod reassembly;
mod rfc4571;
mod turn_stream;

pub use rfc4571::{FrameDeframer, FrameHeader, MAX_FRAME};
pub use turn_stream::{Deframer, FramingError, Next, Unit};

#[cfg(test)]
mod tests;
