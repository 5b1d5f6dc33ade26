//! Which blocks each sequence holds.

use std::collections::HashMap;

use super::{BlockHash, BlockId, BlockPool};

/// Gives blocks to sequences and takes them back. Sequences are known by a number that is never used twice.
#[derive(Debug)]
pub struct KvCacheManager {
    block_size: usize,
    enable_caching: bool,
    block_pool: BlockPool,
    req_to_blocks: HashMap<u64, RequestBlocks>,
}

#[derive(Debug, Default)]
struct RequestBlocks {
    /// In the order of the sequence's tokens.
    block_ids: Vec<BlockId>,
    /// How many of them, from the front, came from the prefix cache.
    num_from_cache: usize,
    /// How many of them, from the front, were given to the prefix cache or came from it.
    num_cached: usize,
}

impl KvCacheManager {
    /// A manager over `num_blocks` blocks of `block_size` tokens. Without `enable_caching` no block is ever shared.
    pub fn new(block_size: usize, num_blocks: usize, enable_caching: bool) -> Self {
        Self { block_size, enable_caching, block_pool: BlockPool::new(num_blocks), req_to_blocks: HashMap::new() }
    }

    /// The blocks.
    pub fn block_pool(&self) -> &BlockPool {
        &self.block_pool
    }

    /// Sequences that hold blocks.
    pub fn num_requests(&self) -> usize {
        self.req_to_blocks.len()
    }

    /// Used share of the blocks, 0 to 1.
    pub fn usage(&self) -> f64 {
        1.0 - self.block_pool.num_free_blocks() as f64 / self.block_pool.num_blocks() as f64
    }

    /// The blocks of a sequence, in the order of its tokens.
    pub fn block_ids(&self, request: u64) -> &[BlockId] {
        self.req_to_blocks.get(&request).map_or(&[], |blocks| &blocks.block_ids)
    }

    /// How many of the sequence's blocks came from the prefix cache.
    pub fn num_blocks_from_cache(&self, request: u64) -> usize {
        self.req_to_blocks.get(&request).map_or(0, |blocks| blocks.num_from_cache)
    }

    /// The cached blocks that a sequence of `num_tokens` tokens can begin with. At least its last token is left to
    /// compute, because only a computed token has logits.
    pub fn get_computed_blocks(&self, block_hashes: &[BlockHash], num_tokens: usize) -> Vec<BlockId> {
        if !self.enable_caching {
            return Vec::new();
        }
        let most = num_tokens.saturating_sub(1) / self.block_size;
        block_hashes.iter().take(most).map_while(|hash| self.block_pool.get_cached_block(hash)).collect()
    }

    /// Whether `num_tokens` tokens that begin with `computed_blocks` would fit now.
    pub fn fits(&self, num_tokens: usize, computed_blocks: &[BlockId]) -> bool {
        let new = num_tokens.div_ceil(self.block_size).saturating_sub(computed_blocks.len());
        // A cached block that nobody holds is counted as free, and is no longer once this sequence holds it.
        let revived = computed_blocks.iter().filter(|&&block| self.block_pool.ref_cnt(block) == 0).count();
        new + revived <= self.block_pool.num_free_blocks()
    }

    /// Gives a sequence that holds nothing the blocks that [`get_computed_blocks`](Self::get_computed_blocks) found.
    pub fn allocate_computed_blocks(&mut self, request: u64, computed_blocks: &[BlockId]) {
        self.block_pool.touch(computed_blocks);
        let count = computed_blocks.len();
        let blocks = RequestBlocks { block_ids: computed_blocks.to_vec(), num_from_cache: count, num_cached: count };
        let before = self.req_to_blocks.insert(request, blocks);
        assert!(before.is_none(), "a sequence begins with cached blocks only while it holds none");
    }

    /// Makes room for the first `num_tokens` tokens of a sequence. False, and nothing changed, when too few are free.
    pub fn allocate_slots(&mut self, request: u64, num_tokens: usize) -> bool {
        let held = self.block_ids(request).len();
        let Some(new) = self.block_pool.get_new_blocks(num_tokens.div_ceil(self.block_size).saturating_sub(held))
        else {
            return false;
        };
        self.req_to_blocks.entry(request).or_default().block_ids.extend(new);
        true
    }

    /// Makes the full blocks among the first `num_tokens` tokens findable for others. Their KV must be in the cache
    /// before anything that finds them reads it.
    pub fn cache_blocks(&mut self, request: u64, block_hashes: &[BlockHash], num_tokens: usize) {
        let Some(blocks) = self.req_to_blocks.get_mut(&request).filter(|_| self.enable_caching) else { return };
        let full = (num_tokens / self.block_size).min(block_hashes.len());
        for (block, hash) in blocks.block_ids.iter().zip(block_hashes).take(full).skip(blocks.num_cached) {
            self.block_pool.cache_full_block(*block, *hash);
        }
        blocks.num_cached = blocks.num_cached.max(full);
    }

    /// Takes back all blocks of a sequence. What is cached in them stays findable until they are given out again.
    pub fn free(&mut self, request: u64) {
        if let Some(blocks) = self.req_to_blocks.remove(&request) {
            self.block_pool.free_blocks(&blocks.block_ids);
        }
    }

    /// Forgets all cached content: what a failed step wrote is unknown.
    pub fn reset_prefix_cache(&mut self) {
        self.block_pool.reset_prefix_cache();
    }
}
