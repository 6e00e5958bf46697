//! Entry functions for fuzzing.

/// Every text parser on `data`.
pub fn parse_http(_data: &[u8]) {}
/// A client driven by operations in `data`.
pub fn ops_connect_client(_data: &[u8]) {}
/// A proxy driven by operations in `data`.
pub fn ops_connect_proxy(_data: &[u8]) {}
