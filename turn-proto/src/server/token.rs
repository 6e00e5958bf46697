//! Users that show a token of an authorization server (RFC 7635).

use alloc::boxed::Box;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding as _};
use stun_proto::Instant;
use stun_proto::auth::{Claim, User};
use stun_proto::wire::Key;

use super::requests::Seen;
use super::{Core, Users};
use crate::wire::{self, AccessToken};

/// How far clocks may differ, in seconds.
const SKEW: u64 = 5;

/// What a token proves.
#[derive(Debug)]
pub(super) struct Token {
    key: Box<Key>,
    /// The seconds it still counts; `None` when it was shown before.
    left: Option<u32>,
}

impl<U: Users> Core<U> {
    /// The token that decides about a request: the one it carries, or the one its allocation was
    /// made with. `Some(None)` is one that is not good. `None`: there is nothing to do with
    /// tokens here.
    pub(super) fn token_of(&self, seen: Seen<'_, '_>, claim: &Claim<'_>) -> Option<Option<Token>> {
        let User::Name(kid) = claim.user else {
            return None;
        };
        if let Some(AccessToken(token)) = seen.message.find() {
            let opens = matches!(seen.message.method(), wire::ALLOCATE | wire::REFRESH);
            return Some(opens.then(|| self.open(kid, token)).flatten());
        }
        let allocation = match self.allocation_at(seen.path) {
            Some((_, allocation)) => Some(allocation),
            None => self.allocation_of_connection(seen.message),
        }?;
        let key = allocation.token_key.clone()?;
        (allocation.username == kid).then_some(Some(Token { key, left: None }))
    }

    fn open(&self, kid: &[u8], token: &[u8]) -> Option<Token> {
        let name = self.users.third_party()?.as_bytes();
        let unseal = |token: &[u8]| {
            let (nonce, sealed) = prefixed(token)?;
            self.users.open_token(kid, nonce, sealed, name)
        };
        let opened = unseal(token).or_else(|| {
            // Some send the text an authorization server gave them.
            let text = core::str::from_utf8(token).ok()?;
            unseal(&Base64::decode_vec(text).ok()?)
        })?;
        let (key, left) = self.read(&opened)?;
        Some(Token {
            key: Box::new(Key::from_bytes(&key)),
            left: Some(left),
        })
    }

    /// The key inside a token, and how many seconds it still counts (section 7).
    fn read(&self, opened: &[u8]) -> Option<(Vec<u8>, u32)> {
        let (key, rest) = prefixed(opened)?;
        let (timestamp, rest) = rest.split_first_chunk::<8>()?;
        let lifetime: [u8; 4] = rest.try_into().ok()?;
        // 48 bits of seconds, 16 bits of fractions.
        let issued = u64::from_be_bytes(*timestamp) >> 16;
        let lifetime = u64::from(u32::from_be_bytes(lifetime));
        let age = self.unix_now()?.abs_diff(issued);
        let left = lifetime.checked_add(SKEW)?.checked_sub(age)?;
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        (left > 0 && !key.is_empty()).then(|| (key.to_vec(), left))
    }

    pub(super) fn by_token(
        &mut self,
        now: Instant,
        seen: Seen<'_, '_>,
        claim: &Claim<'_>,
        token: Option<Token>,
    ) {
        let key = token.as_ref().map(|token| &*token.key);
        match (self.auth.verify(now, claim, key), &token) {
            (Ok(proof), Some(token)) => {
                let User::Name(kid) = proof.user else { return };
                let integrity = (proof.protection, token.key.clone());
                self.proven(now, seen, kid.to_vec(), integrity, token.left);
            }
            (Err(refusal), _) => self.refuse(now, seen, &refusal),
            (Ok(_), None) => {}
        }
    }
}

/// Splits off what stands behind its length.
fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
