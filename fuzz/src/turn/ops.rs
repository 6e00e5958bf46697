//! Entry functions for fuzzing.

/// Every decoder of the TURN wire format on `data`.
pub fn parse_turn(_data: &[u8]) {}
/// A client driven by operations in `data`.
pub fn ops_turn_client(_data: &[u8]) {}
/// A server driven by operations in `data`.
pub fn ops_turn_server(_data: &[u8]) {}
