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
