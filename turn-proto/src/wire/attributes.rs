//! The attributes of RFC 8656, RFC 6062 and RFC 8016.

use core::net::{IpAddr, SocketAddr};

use stun_proto::wire::{
    Attribute, AttributeError, AttributeType, ErrorCode, TransactionId, decode_xor_address,
    encode_xor_address,
};

use super::Channel;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn from_wire(value: u8) -> Result<Self, AttributeError> {
        match value {
            1 => Ok(Self::V4),
            2 => Ok(Self::V6),
            _ => Err(AttributeError::AddressFamily),
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }
}

/// Attributes whose value is one XORed transport address: `name, number`.
macro_rules! xor_address {
    ($($(#[$doc:meta])* $name:ident, $ty:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub SocketAddr);

        impl<'a> Attribute<'a> for $name {
            const TYPE: AttributeType = AttributeType($ty);

            fn decode(value: &'a [u8], id: TransactionId) -> Result<Self, AttributeError> {
                decode_xor_address(value, id).map(Self)
            }

            fn encoded_len(&self) -> usize {
                match self.0 {
                    SocketAddr::V4(_) => 8,
                    SocketAddr::V6(_) => 20,
                }
            }

            fn encode(&self, out: &mut [u8], id: TransactionId) {
                encode_xor_address(self.0, id, out);
            }
        }
    )*};
}

xor_address! {
    /// XOR-PEER-ADDRESS: the peer as the server sees it (RFC 8656 section 18.3).
    XorPeerAddress, 0x0012;
    /// XOR-RELAYED-ADDRESS: the address the server relays for the client (section 18.5).
    XorRelayedAddress, 0x0016;
}

/// Attributes whose first bytes are the value and whose rest is reserved, sent as zeros and
/// ignored: `name(type), number, length, from the bytes, to the bytes`.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident($value:ty), $ty:literal, $len:literal, $from:expr, $to:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $value);

        impl<'a> Attribute<'a> for $name {
            const TYPE: AttributeType = AttributeType($ty);

            fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
                let bytes: [u8; $len] = value.try_into().map_err(|_| AttributeError::Length)?;
                let from: fn([u8; $len]) -> Result<$value, AttributeError> = $from;
                from(bytes).map(Self)
            }

            fn encoded_len(&self) -> usize {
                $len
            }

            fn encode(&self, out: &mut [u8], _: TransactionId) {
                let to: fn($value) -> [u8; $len] = $to;
                out.copy_from_slice(&to(self.0));
            }
        }
    )*};
}

fixed! {
    /// CHANNEL-NUMBER (section 18.1). The number as sent: judging its range is the receiver's
    /// task, see [`Channel::new`].
    ChannelNumber(u16), 0x000C, 4,
        |[c1, c0, _, _]| Ok(u16::from_be_bytes([c1, c0])),
        |number| { let [c1, c0] = number.to_be_bytes(); [c1, c0, 0, 0] };
    /// LIFETIME in seconds (section 18.2).
    Lifetime(u32), 0x000D, 4, |bytes| Ok(u32::from_be_bytes(bytes)), u32::to_be_bytes;
    /// REQUESTED-ADDRESS-FAMILY (section 18.6).
    RequestedAddressFamily(AddressFamily), 0x0017, 4,
        |[family, ..]| AddressFamily::from_wire(family),
        |family| [family.to_wire(), 0, 0, 0];
    /// ADDITIONAL-ADDRESS-FAMILY (section 18.11): a second relayed address, IPv6 the only legal
    /// wish.
    AdditionalAddressFamily(AddressFamily), 0x8000, 4,
        |[family, ..]| AddressFamily::from_wire(family),
        |family| [family.to_wire(), 0, 0, 0];
    /// REQUESTED-TRANSPORT: an IP protocol number (section 18.8).
    RequestedTransport(u8), 0x0019, 4, |[protocol, ..]| Ok(protocol), |p| [p, 0, 0, 0];
    /// RESERVATION-TOKEN (section 18.10).
    ReservationToken([u8; 8]), 0x0022, 8, Ok, |token| token;
    /// CONNECTION-ID, opaque to the client (RFC 6062 section 6.2.1).
    ConnectionId([u8; 4]), 0x002A, 4, Ok, |id| id;
}

impl ChannelNumber {
    /// The attribute for a channel.
    pub const fn of(channel: Channel) -> Self {
        Self(channel.number())
    }
}

impl RequestedTransport {
    /// UDP: protocol 17.
    pub const UDP: Self = Self(17);
    /// TCP: protocol 6 (RFC 6062).
    pub const TCP: Self = Self(6);
}

/// DATA: the payload of a Send or Data indication (section 18.4). May be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for Data<'a> {
    const TYPE: AttributeType = AttributeType(0x0013);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(self.0);
    }
}

/// EVEN-PORT (section 18.7): an even relay port, and perhaps the next one kept for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvenPort {
    /// Keep the port above for a RESERVATION-TOKEN.
    pub reserve_next: bool,
}

impl<'a> Attribute<'a> for EvenPort {
    const TYPE: AttributeType = AttributeType(0x0018);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let [flags] = value else {
            return Err(AttributeError::Length);
        };
        Ok(Self {
            reserve_next: flags & 0x80 != 0,
        })
    }

    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.fill(u8::from(self.reserve_next) << 7);
    }
}

/// DONT-FRAGMENT (section 18.9): no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DontFragment;

impl<'a> Attribute<'a> for DontFragment {
    const TYPE: AttributeType = AttributeType(0x001A);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        if value.is_empty() {
            Ok(Self)
        } else {
            Err(AttributeError::Length)
        }
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _: &mut [u8], _: TransactionId) {}
}

/// ADDRESS-ERROR-CODE (section 18.12): why one of two families was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressErrorCode<'a> {
    /// The family that was not allocated.
    pub family: AddressFamily,
    /// Why.
    pub error: ErrorCode<'a>,
}

impl<'a> Attribute<'a> for AddressErrorCode<'a> {
    const TYPE: AttributeType = AttributeType(0x8001);

    fn decode(value: &'a [u8], id: TransactionId) -> Result<Self, AttributeError> {
        // ERROR-CODE with the family in its first, reserved byte.
        let family = AddressFamily::from_wire(*value.first().ok_or(AttributeError::Length)?)?;
        let error = ErrorCode::decode(value, id)?;
        Ok(Self { family, error })
    }

    fn encoded_len(&self) -> usize {
        self.error.encoded_len()
    }

    fn encode(&self, out: &mut [u8], id: TransactionId) {
        self.error.encode(out, id);
        if let Some(first) = out.first_mut() {
            *first = self.family.to_wire();
        }
    }
}

/// ICMP (section 18.13): an ICMP error about a packet sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The ICMP type; the family of XOR-PEER-ADDRESS says of which ICMP.
    pub ty: u8,
    /// The ICMP code.
    pub code: u8,
    /// The MTU of the next hop where the type has one, else 0.
    pub data: u32,
}

impl<'a> Attribute<'a> for Icmp {
    const TYPE: AttributeType = AttributeType(0x8004);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        let [_, _, ty, code, d3, d2, d1, d0] = *value else {
            return Err(AttributeError::Length);
        };
        let data = u32::from_be_bytes([d3, d2, d1, d0]);
        Ok(Self { ty, code, data })
    }

    fn encoded_len(&self) -> usize {
        8
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        let [d3, d2, d1, d0] = self.data.to_be_bytes();
        out.copy_from_slice(&[0, 0, self.ty, self.code, d3, d2, d1, d0]);
    }
}

/// MOBILITY-TICKET (RFC 8016 section 4): opaque, empty in an Allocate request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobilityTicket<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for MobilityTicket<'a> {
    const TYPE: AttributeType = AttributeType(0x8030);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(self.0);
    }
}

/// ACCESS-TOKEN (RFC 7635 section 6.2): a token in its binary form, opaque to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessToken<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for AccessToken<'a> {
    const TYPE: AttributeType = AttributeType(0x001B);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(self.0);
    }
}

/// THIRD-PARTY-AUTHORIZATION (RFC 7635 section 6.1): the name of the server that tokens are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThirdPartyAuthorization<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for ThirdPartyAuthorization<'a> {
    const TYPE: AttributeType = AttributeType(0x802E);

    fn decode(value: &'a [u8], _: TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut [u8], _: TransactionId) {
        out.copy_from_slice(self.0);
    }
}
