//! The fixed 20-byte header (RFC 8489 section 5).

use core::fmt;

/// Length of the STUN header in bytes.
pub const HEADER_LEN: usize = 20;

/// The fixed value of bytes 4 to 7.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The class of a message: two bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Expects a response.
    Request,
    /// Expects none.
    Indication,
    /// Answers a request that succeeded.
    Success,
    /// Answers a request that failed; carries ERROR-CODE.
    Error,
}

/// The method of a message: twelve bits of its type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(u16);

impl Method {
    /// Binding (RFC 8489 section 3).
    pub const BINDING: Self = Self(0x001);

    /// A method by its number; only the low twelve bits count.
    pub const fn new(number: u16) -> Self {
        Self(number & 0xFFF)
    }

    /// The number of this method, below 0x1000.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({:#05x})", self.0)
    }
}

/// Class and method, as they stand in the first two bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(u16);

impl MessageType {
    /// The type of a `class` message of `method`.
    pub const fn new(class: Class, method: Method) -> Self {
        let m = method.0;
        let spread = ((m & 0xF80) << 2) | ((m & 0x70) << 1) | (m & 0xF);
        let class_bits = match class {
            Class::Request => 0x000,
            Class::Indication => 0x010,
            Class::Success => 0x100,
            Class::Error => 0x110,
        };
        Self(spread | class_bits)
    }

    /// A request of `method`.
    pub const fn request(method: Method) -> Self {
        Self::new(Class::Request, method)
    }

    /// An indication of `method`.
    pub const fn indication(method: Method) -> Self {
        Self::new(Class::Indication, method)
    }

    /// The type with this wire value, or `None` when one of the two top bits is set.
    pub const fn from_wire(value: u16) -> Option<Self> {
        if value & 0xC000 == 0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The wire value, below 0x4000.
    pub const fn to_wire(self) -> u16 {
        self.0
    }

    /// The class.
    pub const fn class(self) -> Class {
        match self.0 & 0x110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// The method.
    pub const fn method(self) -> Method {
        let t = self.0;
        Method(((t & 0x3E00) >> 2) | ((t & 0xE0) >> 1) | (t & 0xF))
    }

    /// The type of the success response to a message of this method.
    pub const fn success(self) -> Self {
        Self::new(Class::Success, self.method())
    }

    /// The type of the error response to a message of this method.
    pub const fn error(self) -> Self {
        Self::new(Class::Error, self.method())
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:#05x})", self.class(), self.method().number())
    }
}

/// The 96-bit identifier that ties a response to its request.
///
/// Unpredictable ones come from [`Rng::transaction_id`](crate::Rng::transaction_id).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
