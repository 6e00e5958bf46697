//! The codec: TURN's methods, attributes and error codes, and ChannelData (RFC 8656 sections 12.4
//! and 18).

mod attributes;
mod channel;

pub use attributes::{
    AccessToken, AdditionalAddressFamily, AddressErrorCode, AddressFamily, ChannelNumber,
    ConnectionId, Data, DontFragment, EvenPort, Icmp, Lifetime, MobilityTicket,
    RequestedAddressFamily, RequestedTransport, ReservationToken, ThirdPartyAuthorization,
    XorPeerAddress, XorRelayedAddress,
};
pub use channel::{CHANNEL_HEADER_LEN, Channel, ChannelData, channel_header};

use stun_proto::wire::Method;

/// Allocate (RFC 8656 section 7).
pub const ALLOCATE: Method = Method::new(0x003);
/// Refresh (section 8).
pub const REFRESH: Method = Method::new(0x004);
/// Send, always an indication (section 11).
pub const SEND: Method = Method::new(0x006);
/// Data, always an indication (section 11).
pub const DATA: Method = Method::new(0x007);
/// CreatePermission (section 10).
pub const CREATE_PERMISSION: Method = Method::new(0x008);
/// ChannelBind (section 12).
pub const CHANNEL_BIND: Method = Method::new(0x009);
/// Connect (RFC 6062 section 4.3).
pub const CONNECT: Method = Method::new(0x00A);
/// ConnectionBind (RFC 6062 section 4.3).
pub const CONNECTION_BIND: Method = Method::new(0x00B);
/// ConnectionAttempt, always an indication (RFC 6062 section 4.4).
pub const CONNECTION_ATTEMPT: Method = Method::new(0x00C);

/// The error codes of TURN and its extensions.
pub mod code {
    /// 403 Forbidden: the peer address or the use is against policy.
    pub const FORBIDDEN: u16 = 403;
    /// 405 Mobility Forbidden (RFC 8016).
    pub const MOBILITY_FORBIDDEN: u16 = 405;
    /// 437 Allocation Mismatch: there is none, or there is one already.
    pub const ALLOCATION_MISMATCH: u16 = 437;
    /// 440 Address Family not Supported.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: u16 = 440;
    /// 441 Wrong Credentials: not those the allocation was made with.
    pub const WRONG_CREDENTIALS: u16 = 441;
    /// 442 Unsupported Transport Protocol.
    pub const UNSUPPORTED_TRANSPORT: u16 = 442;
    /// 443 Peer Address Family Mismatch.
    pub const PEER_FAMILY_MISMATCH: u16 = 443;
    /// 446 Connection Already Exists (RFC 6062).
    pub const CONNECTION_EXISTS: u16 = 446;
    /// 447 Connection Timeout or Failure (RFC 6062).
    pub const CONNECTION_FAILED: u16 = 447;
    /// 486 Allocation Quota Reached.
    pub const QUOTA_REACHED: u16 = 486;
    /// 508 Insufficient Capacity.
    pub const INSUFFICIENT_CAPACITY: u16 = 508;
}

#[cfg(test)]
mod tests;
