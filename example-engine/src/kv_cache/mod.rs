//! Who uses which block of the KV cache: allocation, sharing of equal prompt beginnings, eviction.

/// Number of a block of KV cache, from 0.
pub type BlockId = u32;
