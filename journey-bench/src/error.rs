//! What can go wrong while measuring.

use std::io;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Pipes, files, cores.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A stack could not be set up.
    #[error("{stack} could not be set up: {message}")]
    Setup {
        /// Its name.
        stack: String,
        /// Why.
        message: String,
    },
    /// A stack did not deliver what the others do.
    #[error("{stack} did not deliver what was asked of it: {message}")]
    Delivery {
        /// Its name.
        stack: String,
        /// What is missing, or too much.
        message: String,
    },
    /// A child process ended, or said something else than a reply.
    #[error("the process that measures {job} failed: {message}")]
    Child {
        /// What it was to measure.
        job: String,
        /// What it said.
        message: String,
    },
    /// The machine has too few cores.
    #[error("needs at least {needed} cores, and this process may use {allowed}")]
    Cores {
        /// Cores needed.
        needed: usize,
        /// Cores allowed.
        allowed: usize,
    },
}

impl Error {
    /// Says what was being done when `source` happened.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}
