//! The blocks: how many sequences hold each, which are free, and what is cached in which.

use std::collections::HashMap;

use super::{BlockHash, BlockId};

/// All blocks of the KV cache.
///
/// A free block keeps its cached content until it is given out again, so a free block may still be found by its hash.
/// Free blocks stand in a list in the order of their release: the one unused for longest is evicted first.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    free_blocks: FreeBlockQueue,
    cached_blocks: HashMap<BlockHash, BlockId>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Sequences that hold the block.
    ref_cnt: u32,
    /// Set while the block is in `cached_blocks`.
    block_hash: Option<BlockHash>,
}

impl BlockPool {
    /// A pool of `num_blocks` free, empty blocks.
    pub fn new(num_blocks: usize) -> Self {
        let mut free_blocks = FreeBlockQueue::new(num_blocks);
        (0..num_blocks as BlockId).for_each(|block| free_blocks.push_back(block));
        Self { blocks: vec![Block::default(); num_blocks], free_blocks, cached_blocks: HashMap::new() }
    }

    /// Blocks in the pool.
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that no sequence holds.
    pub fn num_free_blocks(&self) -> usize {
        self.free_blocks.len
    }

    /// Sequences that hold `block`.
    pub fn ref_cnt(&self, block: BlockId) -> u32 {
        self.blocks[block as usize].ref_cnt
    }

    /// Whether `block` can be found by its content.
    pub fn is_cached(&self, block: BlockId) -> bool {
        self.blocks[block as usize].block_hash.is_some()
    }

    /// The block with this content.
    pub fn get_cached_block(&self, hash: &BlockHash) -> Option<BlockId> {
        self.cached_blocks.get(hash).copied()
    }

    /// Takes `count` blocks for one sequence and forgets what they held; nothing when there are fewer.
    pub fn get_new_blocks(&mut self, count: usize) -> Option<Vec<BlockId>> {
        if count > self.num_free_blocks() {
            return None;
        }
        let blocks = (0..count).map(|_| {
            let id = self.free_blocks.pop_front().expect("as many blocks are free as were counted");
            let block = &mut self.blocks[id as usize];
            block.ref_cnt = 1;
            if let Some(hash) = block.block_hash.take() {
                self.cached_blocks.remove(&hash);
            }
            id
        });
        Some(blocks.collect())
    }

    /// One more sequence holds these cached blocks.
    pub fn touch(&mut self, blocks: &[BlockId]) {
        for &id in blocks {
            let block = &mut self.blocks[id as usize];
            if block.ref_cnt == 0 {
                self.free_blocks.remove(id);
            }
            block.ref_cnt += 1;
        }
    }

    /// One sequence less holds these blocks, given in the order of its tokens. The last are evicted first, because
    /// the beginning of a prompt is what others share.
    pub fn free_blocks(&mut self, blocks: &[BlockId]) {
        for &id in blocks.iter().rev() {
            let block = &mut self.blocks[id as usize];
            block.ref_cnt = block.ref_cnt.checked_sub(1).expect("a block is released only by a sequence that holds it");
            if block.ref_cnt == 0 {
                self.free_blocks.push_back(id);
            }
        }
    }

    /// Makes full `block` findable by its content. Where another block has the same, that one stays the one to find.
    pub fn cache_full_block(&mut self, block: BlockId, hash: BlockHash) {
        let slot = &mut self.blocks[block as usize].block_hash;
        if slot.is_none() && !self.cached_blocks.contains_key(&hash) {
            *slot = Some(hash);
            self.cached_blocks.insert(hash, block);
        }
    }

    /// Forgets all cached content; who holds what is unchanged.
    pub fn reset_prefix_cache(&mut self) {
        self.cached_blocks.clear();
        self.blocks.iter_mut().for_each(|block| block.block_hash = None);
    }
}

/// The free blocks, first released first. A linked list in a vector, so that a block in the middle leaves in O(1).
#[derive(Debug)]
struct FreeBlockQueue {
    /// Neighbours of each block; the last entry is the ring's anchor.
    links: Vec<(BlockId, BlockId)>,
    len: usize,
}

impl FreeBlockQueue {
    fn new(num_blocks: usize) -> Self {
        let anchor = num_blocks as BlockId;
        Self { links: vec![(anchor, anchor); num_blocks + 1], len: 0 }
    }

    fn anchor(&self) -> BlockId {
        (self.links.len() - 1) as BlockId
    }

    fn push_back(&mut self, block: BlockId) {
        let anchor = self.anchor();
        let (last, _) = self.links[anchor as usize];
        self.links[block as usize] = (last, anchor);
        self.links[last as usize].1 = block;
        self.links[anchor as usize].0 = block;
        self.len += 1;
    }

    fn remove(&mut self, block: BlockId) {
        let (previous, next) = self.links[block as usize];
        self.links[previous as usize].1 = next;
        self.links[next as usize].0 = previous;
        self.len -= 1;
    }

    fn pop_front(&mut self) -> Option<BlockId> {
        let (_, first) = self.links[self.anchor() as usize];
        (first != self.anchor()).then(|| {
            self.remove(first);
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash_new_full_blocks;
    use super::*;

    fn hash(token: u32) -> BlockHash {
        let mut hashes = Vec::new();
        hash_new_full_blocks(&mut hashes, &[token], 1);
        hashes[0]
    }

    #[test]
    fn the_block_unused_for_longest_is_evicted_first() {
        let mut pool = BlockPool::new(3);
        let blocks = pool.get_new_blocks(3).unwrap();
        blocks.iter().for_each(|&block| pool.cache_full_block(block, hash(block)));
        pool.free_blocks(&blocks[2..]);
        pool.free_blocks(&blocks[..2]);
        assert_eq!(pool.get_new_blocks(2).unwrap(), [2, 1], "the end of a prompt goes before its beginning");
        assert_eq!(pool.get_cached_block(&hash(0)), Some(0));
        assert_eq!(pool.get_cached_block(&hash(1)), None);
    }

    #[test]
    fn a_free_block_found_by_its_content_leaves_the_free_list() {
        let mut pool = BlockPool::new(2);
        let blocks = pool.get_new_blocks(2).unwrap();
        pool.cache_full_block(blocks[1], hash(7));
        pool.free_blocks(&blocks);
        pool.touch(&[blocks[1]]);
        assert_eq!((pool.num_free_blocks(), pool.ref_cnt(blocks[1])), (1, 1));
        assert_eq!(pool.get_new_blocks(2), None);
        assert_eq!(pool.get_new_blocks(1).unwrap(), [blocks[0]]);
    }

    #[test]
    fn equal_content_is_cached_once() {
        let mut pool = BlockPool::new(2);
        let blocks = pool.get_new_blocks(2).unwrap();
        blocks.iter().for_each(|&block| pool.cache_full_block(block, hash(7)));
        assert_eq!(pool.get_cached_block(&hash(7)), Some(blocks[0]));
        assert!(!pool.is_cached(blocks[1]));
    }
}
