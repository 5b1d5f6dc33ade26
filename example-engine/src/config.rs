//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::{ApiKey, Limits};
use crate::engine::{EngineConfig, SchedulingPolicy};
use crate::model::ModelConfig;

/// A client that is slower with the head of a request, or keeps a connection idle for longer, is closed.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that needs longer to send its body is refused.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of its answer for longer is broken off.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A small, readable vLLM that shows journey tracing at work.
///
/// Without a command it serves. Where traces go is said by the OTEL_* variables; without an OTLP endpoint they are
/// written to a file and printed.
#[derive(Debug, Parser)]
#[command(name = "example-engine", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Without a command: those of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the OpenAI API (the default).
    Serve(Box<ServeArgs>),
    /// Send a mixed load to a server of its own, and show the journeys and the ledger.
    Demo(Box<DemoArgs>),
    /// Run an engine core alone, for `serve --core`.
    Core(Box<CoreArgs>),
    /// Measure a running server.
    Bench(BenchArgs),
}

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 picks a free one and prints it.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Cores to use in place of one in this process (repeatable), e.g. http://127.0.0.1:9000.
    #[arg(long = "core", value_name = "URL")]
    pub cores: Vec<String>,
    /// With https:// cores: PEM file of the authority that their certificates are from.
    #[arg(long, value_name = "FILE", requires = "cores")]
    pub core_ca: Option<PathBuf>,
    /// PEM file of a certificate to show to the cores.
    #[arg(long, value_name = "FILE", requires_all = ["core_ca", "core_key"])]
    pub core_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", requires = "core_cert")]
    pub core_key: Option<PathBuf>,
    /// Name of the model towards clients; that of the checkpoint's directory by default.
    #[arg(long)]
    pub served_model_name: Option<String>,
    /// Key that clients must send as `Authorization: Bearer KEY`.
    #[arg(long, env = "EXAMPLE_ENGINE_API_KEY", hide_env_values = true, value_parser = ApiKey::parse)]
    pub api_key: Option<ApiKey>,
    /// Largest request body, bytes.
    #[arg(long, default_value_t = 1 << 20)]
    pub max_body_bytes: usize,
    /// Requests that may wait for their first output at once; more get 429.
    #[arg(long, default_value_t = 1024)]
    pub max_waiting_requests: usize,
    /// Longest time of one request, seconds.
    #[arg(long, default_value = "600", value_parser = seconds)]
    pub request_timeout: Duration,
    /// Time for running requests to finish after SIGTERM, seconds.
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Share of the requests whose journey is traced, 0 to 1, whatever their headers say; without it a `traceparent` decides.
    #[arg(long, value_name = "RATE")]
    pub journey_tracing_sample_rate: Option<f64>,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Where journeys go.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Flags of `core`.
#[derive(Clone, Debug, Args)]
pub struct CoreArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 picks a free one and prints it.
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Speak TLS alone: PEM file of the certificate, with what leads to its authority.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Let in only who has a certificate of this authority: PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Time for running sequences to finish after SIGTERM, seconds.
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Where journeys go.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Flags of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Requests to send.
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub requests: u32,
    /// Requests at a time.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub concurrency: u32,
    /// Open the duplicate `llm_request` that the Python engine's removed do_tracing() opened, through tracing and through
    /// the OpenTelemetry API, and show that it is refused.
    #[arg(long)]
    pub replay_do_tracing: bool,
    /// Print no journey as a tree.
    #[arg(long)]
    pub quiet: bool,
    /// Show the journeys on a live page, and keep it up until Ctrl-C.
    #[arg(long)]
    pub view: bool,
    /// The engine. Its KV cache is small by default, so that there is something to see.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Where journeys go.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Flags of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Requests to send.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// Requests at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// Tokens of each prompt.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Key for the server.
    #[arg(long, env = "EXAMPLE_ENGINE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceArg {
    /// A GPU if there is one (and the feature `gpu`), else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU; an error if there is none.
    Gpu,
}

/// Who is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// First come, first served.
    Fcfs,
    /// Lowest `priority` first.
    Priority,
}

/// The engine's flags; names as vLLM's.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Directory of a checkpoint in Hugging Face layout; the built-in demo model by default.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Where the model runs.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    /// Tokens per block of KV cache.
    #[arg(long)]
    pub block_size: Option<usize>,
    /// Blocks in the KV cache.
    #[arg(long)]
    pub num_blocks: Option<usize>,
    /// Sequences that run at once.
    #[arg(long)]
    pub max_num_seqs: Option<usize>,
    /// Tokens computed in one step; longer prompts are computed in chunks.
    #[arg(long)]
    pub max_num_batched_tokens: Option<usize>,
    /// Tokens of a prompt and its answer together; the model's own limit by default.
    #[arg(long)]
    pub max_model_len: Option<usize>,
    /// Who is served first.
    #[arg(long, value_enum, default_value_t = PolicyArg::Fcfs)]
    pub scheduling_policy: PolicyArg,
    /// Compute every prompt anew.
    #[arg(long)]
    pub no_prefix_caching: bool,
    /// Share of scheduler steps that are traced, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub step_tracing_sample_rate: f64,
    /// Share of the running requests that a traced step takes a snapshot of, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub step_tracing_snapshot_rate: f64,
}

/// Flags about journeys.
#[derive(Clone, Debug, Args)]
pub struct TelemetryArgs {
    /// OTLP-JSON file that journeys are appended to; without an OTLP endpoint, `journeys.jsonl` if none is named.
    #[arg(long, value_name = "FILE")]
    pub journeys: Option<PathBuf>,
}

impl ServeArgs {
    /// What a client may ask for.
    pub fn limits(&self) -> Limits {
        Limits {
            max_body_bytes: self.max_body_bytes,
            max_waiting_requests: self.max_waiting_requests,
            header_timeout: HEADER_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            request_timeout: self.request_timeout,
        }
    }
}

impl EngineArgs {
    /// The core's settings for a model.
    pub fn engine_config(&self, model: &ModelConfig) -> EngineConfig {
        let defaults = EngineConfig::default();
        EngineConfig {
            block_size: self.block_size.unwrap_or(defaults.block_size),
            num_blocks: self.num_blocks.unwrap_or(defaults.num_blocks),
            max_num_seqs: self.max_num_seqs.unwrap_or(defaults.max_num_seqs),
            max_num_batched_tokens: self.max_num_batched_tokens.unwrap_or(defaults.max_num_batched_tokens),
            max_model_len: self.max_model_len.unwrap_or(model.max_position_embeddings),
            max_waiting: defaults.max_waiting,
            policy: match self.scheduling_policy {
                PolicyArg::Fcfs => SchedulingPolicy::Fcfs,
                PolicyArg::Priority => SchedulingPolicy::Priority,
            },
            enable_prefix_caching: !self.no_prefix_caching,
            eos_token_ids: model.eos_token_id.clone(),
            vocab_size: model.vocab_size,
            step_tracing_snapshot_rate: self.step_tracing_snapshot_rate,
        }
    }
}

/// In seconds: no longer time needs to be told from none at all, and clocks can add it.
const A_YEAR: f64 = 365.0 * 24.0 * 3600.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if seconds > A_YEAR {
        return Err(format!("`{text}` is more than a year, {A_YEAR} seconds"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::iter;

    use clap::CommandFactory;

    use super::*;

    /// Cargo's, and clap's own.
    const NOT_OURS: [&str; 5] = ["--release", "--example", "--features", "--open", "--help"];

    #[test]
    fn times_are_such_as_a_clock_can_add() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("31536000"), Ok(Duration::from_secs(31_536_000)));
        for (text, told) in
            [("1e19", "more than a year"), ("inf", "more than a year"), ("-1", "negative"), ("soon", "not a number")]
        {
            assert!(seconds(text).is_err_and(|error| error.contains(text) && error.contains(told)), "{text}");
        }
    }

    #[test]
    fn every_option_in_the_documentation_exists() {
        let document = include_str!("../../docs/engine.md");
        let cli = Cli::command();
        let known: BTreeSet<String> = iter::once(&cli)
            .chain(cli.get_subcommands())
            .flat_map(|command| command.get_arguments())
            .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
            .collect();
        let words = document.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("--") && word.len() > 3).collect();
        assert!(named.len() > 30, "{named:?}");
        let unknown: Vec<_> =
            named.into_iter().filter(|word| !known.contains(*word) && !NOT_OURS.contains(word)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
