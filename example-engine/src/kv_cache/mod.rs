//! Who uses which block of the KV cache: allocation, sharing of equal prompt beginnings, eviction.
//!
//! ```text
//! KvCacheManager   which blocks each sequence holds
//!   └ BlockPool    how many hold each block, which are free, which content is in which block
//! ```
//!
//! Nothing here touches the device: the model runner owns the memory, this says what is where in it.

mod block_hash;
mod block_pool;
mod manager;

pub use block_hash::{BlockHash, hash_new_full_blocks};
pub use block_pool::BlockPool;
pub use manager::KvCacheManager;

/// Number of a block of KV cache, from 0.
pub type BlockId = u32;
