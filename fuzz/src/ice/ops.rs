//! Entry functions for fuzzing.

/// Every parser of candidate and description lines on `data`.
pub fn parse_ice(_data: &[u8]) {}
/// A session driven by operations in `data`.
pub fn ops_ice_session(_data: &[u8]) {}
