//! Why the core refuses a request, or does not start.

/// Why a sequence was not taken. Nothing of it is left in the core.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The prompt leaves no room for an output token.
    #[error("the prompt has {len} tokens, the model takes at most {max}; shorten it")]
    PromptTooLong {
        /// Its tokens.
        len: usize,
        /// Most tokens of a prompt.
        max: usize,
    },
    /// It could never run with this model and this KV cache, however long it waited.
    #[error(
        "the sequence needs {needed} tokens of KV cache, the engine has {available}; shorten the prompt or lower max_tokens"
    )]
    NeverFits {
        /// Tokens of KV cache at its longest.
        needed: usize,
        /// Tokens that the whole KV cache holds.
        available: usize,
    },
    /// The waiting queue is full: try again later.
    #[error("{waiting} sequences are waiting already; try again later")]
    QueueFull {
        /// Sequences in the waiting queue.
        waiting: usize,
    },
    /// The core drains before it stops, and takes nothing new.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The core's thread has ended.
    #[error("the engine core is dead: {0}")]
    Dead(String),
}

impl EngineError {
    /// Whether the same sequence would be refused however often it came, because it cannot fit.
    pub fn is_never(&self) -> bool {
        matches!(self, Self::PromptTooLong { .. } | Self::NeverFits { .. })
    }
}

/// Why a core did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that cannot work.
    #[error("{0}")]
    Config(String),
    /// The system gave no thread.
    #[error("no thread for the engine core: {0}")]
    Thread(#[from] std::io::Error),
}
