//! The test vectors of RFC 5769, RFC 8489 B.1 (corrected) and those made for the newer attributes.

use stun_proto::wire::{Key, PasswordAlgorithmId};

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// A message, the key that proves it, and the fewest bytes of SHA-256 code it may have.
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) key: Key,
    pub(crate) shortest: usize,
}

pub(crate) fn vectors() -> Vec<Vector> {
    let short = Key::short_term("VOkJxbRl1RmTxUk/WvJxBt");
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    let long = |algorithm| {
        Key::long_term(algorithm, user.as_bytes(), b"example.org", b"TheMatrIX").unwrap()
    };
    let george =
        |algorithm| Key::long_term(algorithm, b"George", b"example.com", b"wilma-6.7").unwrap();
    let (md5, sha256) = (PasswordAlgorithmId::MD5, PasswordAlgorithmId::SHA256);
    let vector = |name, text, key| Vector {
        name,
        bytes: hex(text),
        key,
        shortest: if name == "truncated" { 16 } else { 32 },
    };
    vec![
        vector(
            "RFC 5769 2.1",
            "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff
             80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249
             c1b571a280280004e57a3bcf",
            short.clone(),
        ),
        vector(
            "RFC 5769 2.2",
            "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643
             000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96",
            short.clone(),
        ),
        vector(
            "RFC 5769 2.3",
            "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa
             a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c",
            short.clone(),
        ),
        vector(
            "RFC 5769 2.4",
            "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c
             662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014
             f67024656dd64a3e02b8e0712e85c9a28ca89666",
            long(md5),
        ),
        vector(
            "RFC 8489 B.1",
            "000100882112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b2
             05c46e41407f1704001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c3946535476
             79363473410000000014000b6578616d706c652e6f726700001c0020234112fbd4e27f983eb4032836f998216f5b23f8
             d927753fbc4f882bfbdf0dec",
            long(sha256),
        ),
        vector(
            "both codes",
            "000100542112a442b7e7a701bc34d686fa87dfae000600096576746a3a68367659000000000800140382c46e3e4c413a
             025ec8c449f2c7694ab9c08c001c0020d923881dc8cd1261a43ea5cb5cb386678d4b8015cba2831db965df7e0301defb
             802800041df5f79b",
            short.clone(),
        ),
        vector(
            "truncated",
            "0001002c2112a442b7e7a701bc34d686fa87dfae000600096576746a3a68367659000000001c001040e26b42f7542429
             12c2b6b9fbdca907802800047ef9382b",
            short,
        ),
        vector(
            "Allocate of RFC 8489",
            "000300882112a442c271e932ad7446a32c234492000d000400000e1000190004110000000006000647656f7267650000
             0014000b6578616d706c652e636f6d00001500206f624d61744a6f73326741414161646c3757375065445534684b4537
             326a6461800200080002000000010000001d000400020000001c002083a0485c0f975a2c77b5289b649893d8cfc00299
             8808de602185afe1ceb8ad26",
            george(sha256),
        ),
        vector(
            "its success",
            "010300442112a442c271e932ad7446a32c234492001600080001e242e112a64d0020000800013a4ae112a643000d0004
             000004b0001c0020ba391c27b9565555acfbf222deedcc08f28d851d75e15aed1489b21fba8d239c",
            george(sha256),
        ),
        vector(
            "Allocate of RFC 5389",
            "0003006c2112a442c271e932ad7446a32c234492000d000400000e1000190004110000000006000647656f7267650000
             0014000b6578616d706c652e636f6d000015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341
             00080014fbb5b07d1994e5ac652924354d0399450d403f458028000442d972a3",
            george(md5),
        ),
    ]
}
