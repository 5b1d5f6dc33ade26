//! The only place where a wire name is written.
//!
//! The macros are in `declare`. Rows stand in the order in which `docs/schema.md` prints them.

use crate::attribute::{Attribute, AttributeType};
use crate::event::Event;
use crate::scope::{Scope, SpanKind, SpanName};

enumeration! {
    /// `phase`: what the sequence is doing, as the scheduler sees it.
    Phase {
        /// In the waiting queue; never scheduled.
        Waiting = "WAITING",
        /// Computing its prompt.
        Prefill = "PREFILL",
        /// Producing output tokens.
        Decode = "DECODE",
    }
}

enumeration! {
    /// `schedule.kind`: the first time on the running list, or back after a preemption.
    ScheduleKind {
        /// The first SCHEDULED of the sequence.
        First = "FIRST",
        /// A SCHEDULED after PREEMPTED.
        Resume = "RESUME",
    }
}

enumeration! {
    /// `finish.status`: why the sequence ended; the values of vLLM's `RequestStatus`, in lower case.
    FinishStatus {
        /// An end-of-sequence token or a stop string.
        Stopped = "stopped",
        /// `max_tokens` or the context length was reached.
        Length = "length",
        /// The caller gave the request up.
        Aborted = "aborted",
        /// The request was never run (its prompt cannot fit).
        Ignored = "ignored",
        /// The engine failed.
        Error = "error",
    }
}

enumeration! {
    /// `reason` of `api.ABORTED`.
    AbortReason {
        /// The client closed the connection.
        ClientDisconnect = "client_disconnect",
        /// The request's time ran out.
        Timeout = "timeout",
        /// The handler's future was dropped before it completed.
        Cancelled = "cancelled",
        /// The engine or the handler returned an error.
        GenerationError = "generation_error",
        /// The request was refused before it reached the engine.
        ValidationError = "validation_error",
        /// The handler panicked.
        Panic = "panic",
        /// The span was closed without a terminal event, for no reason that could be seen.
        Unfinished = "unfinished",
    }
}

use AttributeType::{Float, Int, OneOf, Str};

attributes! {
    // llm_request: the seven that the removed duplicate span carried, then the two beside them.
    PromptTokens = "gen_ai.usage.prompt_tokens", "prompt_tokens", Int, "tokens in the prompt";
    CompletionTokens = "gen_ai.usage.completion_tokens", "completion_tokens", Int, "tokens generated, over all sequences";
    RequestId = "gen_ai.request.id", "request_id", Str, "id of the request; on `llm_core` the sequence's own id";
    TopP = "gen_ai.request.top_p", "top_p", Float, "nucleus sampling probability asked for";
    MaxTokens = "gen_ai.request.max_tokens", "max_tokens", Int, "most output tokens asked for";
    Temperature = "gen_ai.request.temperature", "temperature", Float, "sampling temperature asked for";
    N = "gen_ai.request.n", "n", Int, "sequences asked for";
    ResponseModel = "gen_ai.response.model", "model", Str, "name of the model that answered";
    HttpRoute = "http.route", "route", Str, "matched route, as in the HTTP semantic conventions";
    // Derived by the layer when a span closes.
    LatencyE2e = "gen_ai.latency.e2e", "latency_e2e", Float, "seconds from ARRIVED to the terminal event";
    TimeToFirstToken = "gen_ai.latency.time_to_first_token", "time_to_first_token", Float, "seconds from ARRIVED to FIRST_RESPONSE_FROM_CORE";
    TimeInQueue = "gen_ai.latency.time_in_queue", "time_in_queue", Float, "seconds from QUEUED to the first SCHEDULED";
    TimeInModelPrefill = "gen_ai.latency.time_in_model_prefill", "time_in_model_prefill", Float, "seconds from the first SCHEDULED to FIRST_TOKEN";
    TimeInModelDecode = "gen_ai.latency.time_in_model_decode", "time_in_model_decode", Float, "seconds from FIRST_TOKEN to FINISHED";
    TimeInModelInference = "gen_ai.latency.time_in_model_inference", "time_in_model_inference", Float, "seconds from the first SCHEDULED to FINISHED";
    TimePreempted = "journey.time_preempted", "time_preempted", Float, "seconds between PREEMPTED and SCHEDULED (RESUME), summed";
    // API events.
    ApiTsMonotonic = "event.ts.monotonic", "event_ts_monotonic", Float, "monotonic clock of the host, seconds";
    Reason = "reason", "reason", OneOf(AbortReason::VALUES), "why the request was aborted";
    Error = "error", "error", Str, "text of the error, where there is one";
    // Core events.
    EventType = "event.type", "event_type", Str, "the event's bare identifier";
    TsMonotonic = "ts.monotonic", "ts_monotonic", Float, "monotonic clock of the host, seconds";
    TsMonotonicNs = "ts.monotonic_ns", "ts_monotonic_ns", Int, "the same reading, nanoseconds";
    SchedulerStep = "scheduler.step", "step", Int, "number of the scheduler step; 0 before the first";
    Phase = "phase", "phase", OneOf(Phase::VALUES), "what the sequence is doing";
    PrefillDone = "prefill.done_tokens", "prefill_done_tokens", Int, "prompt tokens computed: a high-water mark that survives preemption";
    PrefillTotal = "prefill.total_tokens", "prefill_total_tokens", Int, "prompt tokens to compute";
    PrefillRecomputed = "prefill.recomputed_tokens", "prefill_recomputed_tokens", Int, "tokens computed again because a preemption threw them away";
    DecodeDone = "decode.done_tokens", "decode_done_tokens", Int, "output tokens so far";
    DecodeMax = "decode.max_tokens", "decode_max_tokens", Int, "most output tokens this sequence may produce";
    NumPreemptions = "num_preemptions", "num_preemptions", Int, "PREEMPTED events so far, this one included";
    ScheduleKind = "schedule.kind", "kind", OneOf(ScheduleKind::VALUES), "first time running, or back after a preemption";
    FinishStatus = "finish.status", "status", OneOf(FinishStatus::VALUES), "why the sequence ended";
    // step.BATCH_SUMMARY.
    StepId = "step.id", "step_id", Int, "number of the scheduler step";
    StepStart = "step.ts_start_ns", "ts_start_ns", Int, "monotonic clock at the step's start, nanoseconds";
    StepEnd = "step.ts_end_ns", "ts_end_ns", Int, "monotonic clock at the step's end, nanoseconds";
    StepDuration = "step.duration_us", "duration_us", Int, "length of the step, microseconds";
    RunningDepth = "queue.running_depth", "running_depth", Int, "sequences on the running list";
    WaitingDepth = "queue.waiting_depth", "waiting_depth", Int, "sequences in the waiting queue";
    NumPrefill = "batch.num_prefill_reqs", "num_prefill_reqs", Int, "sequences of the batch in prefill";
    NumDecode = "batch.num_decode_reqs", "num_decode_reqs", Int, "sequences of the batch in decode";
    ScheduledTokens = "batch.scheduled_tokens", "scheduled_tokens", Int, "tokens scheduled in the step";
    PrefillTokens = "batch.prefill_tokens", "prefill_tokens", Int, "of these, prompt tokens";
    DecodeTokens = "batch.decode_tokens", "decode_tokens", Int, "of these, decode tokens";
    NumFinished = "batch.num_finished", "num_finished", Int, "sequences that finished in the step";
    NumPreempted = "batch.num_preempted", "num_preempted", Int, "sequences that the step preempted";
    KvUsage = "kv.usage_gpu_ratio", "kv_usage_gpu_ratio", Float, "used share of the KV cache, 0 to 1";
    KvBlocksTotal = "kv.blocks_total_gpu", "kv_blocks_total_gpu", Int, "blocks in the KV cache";
    KvBlocksFree = "kv.blocks_free_gpu", "kv_blocks_free_gpu", Int, "free blocks in the KV cache";
    // step.REQUEST_SNAPSHOT (with step.id).
    SnapshotRequestId = "request.id", "snapshot_request_id", Str, "id of the sequence";
    SnapshotPhase = "request.phase", "request_phase", OneOf(Phase::VALUES), "its phase";
    NumPromptTokens = "request.num_prompt_tokens", "num_prompt_tokens", Int, "its prompt length";
    NumComputedTokens = "request.num_computed_tokens", "num_computed_tokens", Int, "tokens whose KV is in the cache";
    NumOutputTokens = "request.num_output_tokens", "num_output_tokens", Int, "output tokens so far";
    SnapshotPreemptions = "request.num_preemptions", "request_num_preemptions", Int, "preemptions so far";
    ScheduledThisStep = "request.scheduled_tokens_this_step", "scheduled_tokens_this_step", Int, "tokens scheduled for it in this step";
    KvBlocksAllocated = "kv.blocks_allocated_gpu", "kv_blocks_allocated_gpu", Int, "blocks it holds";
    KvBlocksCached = "kv.blocks_cached_gpu", "kv_blocks_cached_gpu", Int, "blocks it took from the prefix cache";
    EffectivePromptLen = "request.effective_prompt_len", "effective_prompt_len", Int, "prompt tokens left to compute after prefix caching (only with it)";
}

/// Keys that the current generative-AI semantic conventions renamed: old key, current key.
pub(crate) const RENAMED: &[(Attr, &str)] =
    &[(Attr::PromptTokens, "gen_ai.usage.input_tokens"), (Attr::CompletionTokens, "gen_ai.usage.output_tokens")];

spans! {
    scopes {
        Api = "vllm.api",
        Scheduler = "vllm.scheduler",
    }
    spans {
        LlmRequest = "llm_request" in Api, Server,
            [PromptTokens, CompletionTokens, RequestId, TopP, MaxTokens, Temperature, N, ResponseModel, HttpRoute],
            derived [LatencyE2e, TimeToFirstToken];
        LlmCore = "llm_core" in Scheduler, Internal, [RequestId],
            derived [TimeInQueue, TimeInModelPrefill, TimeInModelDecode, TimeInModelInference, TimePreempted];
        SchedulerStep = "scheduler_step" in Scheduler, Internal, [], derived [];
        ModelForward = "model_forward" in Scheduler, Internal, [], derived [];
    }
}

/// The short form of `FIRST_RESPONSE_FROM_CORE`.
pub(crate) const FIRST_RESPONSE_ALIAS: &str = "FIRST_RESPONSE";

events! {
    Arrived = "ARRIVED", "api.ARRIVED", on LlmRequest, terminal false,
        reserved [ApiTsMonotonic], required [], optional [], "request accepted by the API server";
    HandoffToCore = "HANDOFF_TO_CORE", "api.HANDOFF_TO_CORE", on LlmRequest, terminal false,
        reserved [ApiTsMonotonic], required [], optional [], "request sent to the engine core";
    FirstResponseFromCore = "FIRST_RESPONSE_FROM_CORE", "api.FIRST_RESPONSE_FROM_CORE", on LlmRequest, terminal false,
        reserved [ApiTsMonotonic], required [], optional [], "first output came back from the engine core";
    Departed = "DEPARTED", "api.DEPARTED", on LlmRequest, terminal true,
        reserved [ApiTsMonotonic], required [], optional [], "response fully sent";
    Aborted = "ABORTED", "api.ABORTED", on LlmRequest, terminal true,
        reserved [ApiTsMonotonic], required [Reason], optional [Error], "error, time-out or client gone";
    Queued = "QUEUED", "journey.QUEUED", on LlmCore, terminal false,
        reserved [EventType, TsMonotonic, TsMonotonicNs], required [],
        optional [SchedulerStep, Phase, PrefillDone, PrefillTotal, PrefillRecomputed, DecodeDone, DecodeMax, NumPreemptions],
        "added to the waiting queue";
    Scheduled = "SCHEDULED", "journey.SCHEDULED", on LlmCore, terminal false,
        reserved [EventType, TsMonotonic, TsMonotonicNs], required [],
        optional [ScheduleKind, SchedulerStep, Phase, PrefillDone, PrefillTotal, PrefillRecomputed, DecodeDone, DecodeMax, NumPreemptions],
        "moved to the running list";
    FirstToken = "FIRST_TOKEN", "journey.FIRST_TOKEN", on LlmCore, terminal false,
        reserved [EventType, TsMonotonic, TsMonotonicNs], required [],
        optional [SchedulerStep, Phase, PrefillDone, PrefillTotal, PrefillRecomputed, DecodeDone, DecodeMax, NumPreemptions],
        "first output token, once per sequence";
    Preempted = "PREEMPTED", "journey.PREEMPTED", on LlmCore, terminal false,
        reserved [EventType, TsMonotonic, TsMonotonicNs], required [],
        optional [SchedulerStep, Phase, PrefillDone, PrefillTotal, PrefillRecomputed, DecodeDone, DecodeMax, NumPreemptions],
        "its blocks were reclaimed; back to waiting";
    Finished = "FINISHED", "journey.FINISHED", on LlmCore, terminal true,
        reserved [EventType, TsMonotonic, TsMonotonicNs], required [FinishStatus],
        optional [SchedulerStep, Phase, PrefillDone, PrefillTotal, PrefillRecomputed, DecodeDone, DecodeMax, NumPreemptions],
        "done, resources freed";
    BatchSummary = "BATCH_SUMMARY", "step.BATCH_SUMMARY", on SchedulerStep, terminal false,
        reserved [], required [StepId],
        optional [StepStart, StepEnd, StepDuration, RunningDepth, WaitingDepth, NumPrefill, NumDecode, ScheduledTokens,
            PrefillTokens, DecodeTokens, NumFinished, NumPreempted, KvUsage, KvBlocksTotal, KvBlocksFree],
        "what one sampled scheduler step did";
    RequestSnapshot = "REQUEST_SNAPSHOT", "step.REQUEST_SNAPSHOT", on SchedulerStep, terminal false,
        reserved [], required [StepId, SnapshotRequestId],
        optional [SnapshotPhase, NumPromptTokens, NumComputedTokens, NumOutputTokens, SnapshotPreemptions, ScheduledThisStep,
            KvBlocksAllocated, KvBlocksCached, EffectivePromptLen],
        "one running sequence in a sampled step";
}

/// Names of the carrier, the string map that crosses the API / core boundary.
pub mod carrier {
    /// W3C Trace Context parent header.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C Trace Context state header.
    pub const TRACESTATE: &str = "tracestate";
    /// Set to [`SAMPLED`] when the API sampled the request.
    pub const JOURNEY_SAMPLED: &str = "x-vllm-journey-sampled";
    /// The one value of [`JOURNEY_SAMPLED`] that means yes.
    pub const SAMPLED: &str = "1";
    /// Key of the tracestate member that marks a handoff.
    pub const TRACESTATE_KEY: &str = "journey";
    /// Value of that member: the parent is an `llm_request`.
    pub const TRACESTATE_VALUE: &str = "llm_request";
}

/// Marks the `tracing` event of a macro that has handed its event to the layer already. The field has no value, so that
/// nobody prints it.
pub const SHADOW_FIELD: &str = "journey.shadow";

/// The scope in which the Python engine's `do_tracing()` opened its duplicate `llm_request`.
pub const HISTORICAL_DUPLICATE_SCOPE: &str = "vllm.llm_engine";

/// `service.name` of the one resource, when nothing else names it.
pub const DEFAULT_SERVICE_NAME: &str = "vllm";
