//! Names for the content of full blocks.

use sha2::{Digest, Sha256};

/// Names a full block's content: its tokens and every token before them, since KV depends on both.
///
/// A cryptographic hash, because a collision would let one request read another's prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    fn new(parent: Option<&Self>, token_ids: &[u32]) -> Self {
        let mut hasher = Sha256::new();
        if let Some(Self(parent)) = parent {
            hasher.update(parent);
        }
        for token in token_ids {
            hasher.update(token.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}

/// Appends the hashes of the blocks that `token_ids` has filled since the last call.
pub fn hash_new_full_blocks(hashes: &mut Vec<BlockHash>, token_ids: &[u32], block_size: usize) {
    for block in token_ids.chunks_exact(block_size).skip(hashes.len()) {
        hashes.push(BlockHash::new(hashes.last(), block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(token_ids: &[u32]) -> Vec<BlockHash> {
        let mut hashes = Vec::new();
        hash_new_full_blocks(&mut hashes, token_ids, 2);
        hashes
    }

    #[test]
    fn a_hash_covers_every_token_before_the_block() {
        assert_eq!(hashes(&[1, 2, 3, 4])[1], hashes(&[1, 2, 3, 4, 5])[1]);
        assert_ne!(hashes(&[1, 2, 3, 4])[1], hashes(&[1, 9, 3, 4])[1]);
        assert_ne!(hashes(&[1, 2])[0], hashes(&[1, 2, 1, 2])[1]);
    }

    #[test]
    fn hashing_in_pieces_gives_the_same_hashes() {
        let tokens: Vec<u32> = (0..9).collect();
        let mut pieces = Vec::new();
        for end in 0..=tokens.len() {
            hash_new_full_blocks(&mut pieces, &tokens[..end], 2);
        }
        assert_eq!(pieces, hashes(&tokens));
        assert_eq!(pieces.len(), 4, "the ninth token fills no block");
    }
}
