//! Decides step by step who computes what, and takes back what came of it.

mod admission;
mod request;
mod schedule;
mod update;
mod view;

use std::collections::{BTreeSet, HashMap, HashSet};

use self::request::{Rank, Request};
pub(crate) use self::view::StepView;
use super::config::EngineConfig;
use super::stats::SchedulerStats;
use crate::kv_cache::KvCacheManager;

/// Continuous batching over a paged KV cache.
///
/// ```text
/// add_request ─► waiting ─► running ─► finished
///                   ▲          │
///                   └ preempt ─┘     when blocks run out: its KV is thrown away and computed again
/// ```
///
/// Both lists are ordered by rank, so the oldest (or most urgent) sequence is served first and is never the one
/// that is preempted while another runs. It therefore advances in every step, and every sequence ends.
#[derive(Debug)]
pub struct Scheduler {
    config: EngineConfig,
    kv_cache_manager: KvCacheManager,
    /// The unfinished sequences, by number.
    requests: HashMap<u64, Request>,
    /// Ids of the unfinished sequences.
    ids: HashSet<String>,
    waiting: BTreeSet<Rank>,
    running: BTreeSet<Rank>,
    next_number: u64,
    stats: SchedulerStats,
}

impl Scheduler {
    /// A scheduler without sequences. `config` must be valid.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            kv_cache_manager: KvCacheManager::new(config.block_size, config.num_blocks, config.enable_prefix_caching),
            config,
            requests: HashMap::new(),
            ids: HashSet::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            next_number: 0,
            stats: SchedulerStats::default(),
        }
    }

    /// Whether any sequence waits or runs.
    pub fn has_unfinished_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The KV cache's bookkeeping.
    pub fn kv_cache_manager(&self) -> &KvCacheManager {
        &self.kv_cache_manager
    }

    /// Gauges and counters as of now.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            num_running_reqs: self.running.len() as u64,
            num_waiting_reqs: self.waiting.len() as u64,
            num_blocks: self.kv_cache_manager.block_pool().num_blocks() as u64,
            num_free_blocks: self.kv_cache_manager.block_pool().num_free_blocks() as u64,
            ..self.stats
        }
    }

    fn request(&mut self, rank: Rank) -> &mut Request {
        self.requests.get_mut(&rank.number).expect("whatever waits or runs is unfinished")
    }
}
