//! Cutting bytes.

use alloc::vec::Vec;

use crate::sim::Choices;

/// Cuts bytes in up to five pieces, none of them empty.
pub(crate) fn pieces(data: &[u8], choices: &mut Choices) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = data;
    for _ in 0..choices.below(5) {
        let (head, tail) = rest.split_at(choices.index(rest.len() + 1));
        pieces.push(head.to_vec());
        rest = tail;
    }
    pieces.push(rest.to_vec());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Takes what may still arrive before a cut off `cut`; whether the cut is there, which is then over.
#[cfg(feature = "sip")]
pub(crate) fn cut_short(cut: &mut Option<usize>, data: &mut Vec<u8>) -> bool {
    let Some(left) = cut else {
        return false;
    };
    if *left >= data.len() {
        *left -= data.len();
        return false;
    }
    data.truncate(*left);
    *cut = None;
    true
}

/// Bytes that are text for the most part, and look like it in messages.
#[cfg(feature = "sip")]
#[derive(Clone, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

#[cfg(feature = "sip")]
impl core::fmt::Debug for Octets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
