//! Between the engine's plain data and the messages on the wire.

use super::proto;
use crate::engine::{EngineCoreOutput, EngineCoreRequest, EngineError, FinishReason, SamplingParams, SchedulerStats};

impl From<EngineCoreRequest> for proto::GenerateRequest {
    fn from(request: EngineCoreRequest) -> Self {
        let sampling = request.sampling_params;
        Self {
            request_id: request.request_id,
            prompt_token_ids: request.prompt_token_ids,
            sampling_params: Some(proto::SamplingParams {
                max_tokens: sampling.max_tokens,
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                seed: sampling.seed,
                stop_token_ids: sampling.stop_token_ids,
                ignore_eos: sampling.ignore_eos,
            }),
            priority: request.priority,
            carrier: request.carrier,
        }
    }
}

impl From<proto::GenerateRequest> for EngineCoreRequest {
    fn from(request: proto::GenerateRequest) -> Self {
        let sampling = request.sampling_params.map_or_else(SamplingParams::default, |sampling| SamplingParams {
            max_tokens: sampling.max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            seed: sampling.seed,
            stop_token_ids: sampling.stop_token_ids,
            ignore_eos: sampling.ignore_eos,
        });
        Self {
            request_id: request.request_id,
            prompt_token_ids: request.prompt_token_ids,
            sampling_params: sampling,
            priority: request.priority,
            carrier: request.carrier,
        }
    }
}

impl From<EngineCoreOutput> for proto::Output {
    fn from(output: EngineCoreOutput) -> Self {
        let (finish_reason, error) = match output.finish_reason {
            None => (None, String::new()),
            Some(FinishReason::Stop) => (Some(proto::FinishReason::Stop), String::new()),
            Some(FinishReason::Length) => (Some(proto::FinishReason::Length), String::new()),
            Some(FinishReason::Abort) => (Some(proto::FinishReason::Abort), String::new()),
            Some(FinishReason::Error(error)) => (Some(proto::FinishReason::Error), error),
        };
        Self { new_token_ids: output.new_token_ids, finish_reason: finish_reason.map(i32::from), error }
    }
}

impl From<proto::Output> for EngineCoreOutput {
    fn from(output: proto::Output) -> Self {
        let finish_reason = output.finish_reason.map(|reason| match proto::FinishReason::try_from(reason) {
            Ok(proto::FinishReason::Stop) => FinishReason::Stop,
            Ok(proto::FinishReason::Length) => FinishReason::Length,
            Ok(proto::FinishReason::Abort) => FinishReason::Abort,
            Ok(proto::FinishReason::Error) => FinishReason::Error(output.error),
            Err(_) => FinishReason::Error(format!("unknown finish reason {reason} from the engine core")),
        });
        Self { new_token_ids: output.new_token_ids, finish_reason }
    }
}

impl From<EngineError> for proto::Refused {
    fn from(error: EngineError) -> Self {
        use proto::refused::Kind;
        let (kind, message, needed, available) = match error {
            EngineError::Dead(message) => (Kind::Dead, message, 0, 0),
            EngineError::Invalid(message) => (Kind::Invalid, message, 0, 0),
            EngineError::PromptTooLong { len, max } => (Kind::PromptTooLong, String::new(), len, max),
            EngineError::NeverFits { needed, available } => (Kind::NeverFits, String::new(), needed, available),
            EngineError::QueueFull { waiting } => (Kind::QueueFull, String::new(), waiting, 0),
            EngineError::ShuttingDown => (Kind::ShuttingDown, String::new(), 0, 0),
        };
        Self { kind: kind.into(), message, needed: needed as u64, available: available as u64 }
    }
}

impl From<proto::Refused> for EngineError {
    fn from(refused: proto::Refused) -> Self {
        use proto::refused::Kind;
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        match Kind::try_from(refused.kind) {
            Ok(Kind::Invalid) => Self::Invalid(refused.message),
            Ok(Kind::PromptTooLong) => {
                Self::PromptTooLong { len: count(refused.needed), max: count(refused.available) }
            }
            Ok(Kind::NeverFits) => {
                Self::NeverFits { needed: count(refused.needed), available: count(refused.available) }
            }
            Ok(Kind::QueueFull) => Self::QueueFull { waiting: count(refused.needed) },
            Ok(Kind::ShuttingDown) => Self::ShuttingDown,
            Ok(Kind::Dead) | Err(_) => Self::Dead(refused.message),
        }
    }
}

/// Copies every field, both ways: a new one that is forgotten does not compile.
macro_rules! stats {
    ($($field:ident),+ $(,)?) => {
        impl From<SchedulerStats> for proto::StatsResponse {
            fn from(SchedulerStats { $($field),+ }: SchedulerStats) -> Self {
                Self { $($field),+ }
            }
        }

        impl From<proto::StatsResponse> for SchedulerStats {
            fn from(proto::StatsResponse { $($field),+ }: proto::StatsResponse) -> Self {
                Self { $($field),+ }
            }
        }

        impl super::pool::Sum for SchedulerStats {
            fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }
        }
    };
}

stats!(
    num_steps,
    num_running_reqs,
    num_waiting_reqs,
    num_blocks,
    num_free_blocks,
    prompt_tokens,
    prefix_cached_tokens,
    generation_tokens,
    recomputed_tokens,
    num_preemptions,
    finished_stop,
    finished_length,
    finished_abort,
    finished_error,
    ignored,
);
