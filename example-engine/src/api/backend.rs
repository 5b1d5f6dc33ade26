//! Where the sequences go: a core in this process, or cores behind gRPC.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::error::ApiError;
use crate::engine::{EngineCore, EngineCoreOutput, EngineCoreRequest, EngineError, OutputStream, SchedulerStats};
use crate::grpc::{CorePool, RemoteOutputs};

/// The engine as the API sees it.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A core thread of this process.
    InProcess(EngineCore),
    /// Cores in other processes.
    Remote(CorePool),
}

/// The outputs of one sequence. Dropping it before its end aborts the sequence.
#[derive(Debug)]
pub enum Outputs {
    /// Of a core in this process.
    InProcess(OutputStream),
    /// Of a core elsewhere.
    Remote(Box<RemoteOutputs>),
}

impl Backend {
    /// Hands a sequence over; resolves when a core has taken it.
    ///
    /// # Errors
    /// No core took it, with the reason.
    pub async fn add_request(&self, request: EngineCoreRequest) -> Result<Outputs, ApiError> {
        match self {
            Self::InProcess(core) => Ok(Outputs::InProcess(core.add_request(request).await?)),
            Self::Remote(pool) => Ok(Outputs::Remote(Box::new(pool.add_request(request).await?))),
        }
    }

    /// Gauges and counters of all cores together.
    pub fn stats(&self) -> SchedulerStats {
        match self {
            Self::InProcess(core) => core.stats(),
            Self::Remote(pool) => pool.stats(),
        }
    }

    /// Whether a request can be served at all.
    ///
    /// # Errors
    /// Why not.
    pub fn health(&self) -> Result<(), ApiError> {
        match self {
            Self::InProcess(core) => Ok(core.health()?),
            Self::Remote(pool) => Ok(pool.health()?),
        }
    }
}

impl Stream for Outputs {
    type Item = EngineCoreOutput;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::InProcess(outputs) => Pin::new(outputs).poll_next(cx),
            Self::Remote(outputs) => Pin::new(outputs).poll_next(cx),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Invalid(message) => Self::Invalid { param: None, code: None, message },
            EngineError::PromptTooLong { .. } | EngineError::NeverFits { .. } => {
                Self::Invalid { param: None, code: Some("context_length_exceeded"), message: error.to_string() }
            }
            EngineError::QueueFull { waiting } => Self::Overloaded { limit: waiting },
            EngineError::ShuttingDown => Self::ShuttingDown,
            EngineError::Dead(message) => Self::NoCore(message),
        }
    }
}
