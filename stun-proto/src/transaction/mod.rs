//! Requests waiting for their responses (RFC 8489 section 6).

mod retransmit;
mod table;

pub use retransmit::{Retransmit, RetransmitConfig, RttEstimator, Step};
pub use table::{Ended, Transactions, TransactionsFull};

#[cfg(test)]
mod tests;
