//! The `journey` command.

use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use journey_cli::check::{Checker, Dialect, Format};
use journey_cli::link::LinkTemplate;
use journey_cli::read::read_files;
use journey_cli::report::{Error as ReportError, Options, Report};
use journey_cli::serve::{Config, Limits, ServeError, Server};

/// Check, report and watch journeys: the traces of requests through an engine that serves language models.
#[derive(Parser)]
#[command(name = "journey", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check traces against the journey schema.
    ///
    /// Reads OTLP-JSON (lines, or one document) and OTLP protobuf, plain or under gzip. Exit code: 0 clean, 1 findings, 2 usage or
    /// unreadable input.
    Check(CheckArgs),
    /// Report where requests spent their time.
    ///
    /// Reads what `check` reads, in bounded memory. Exit code: 0, or 2 for usage, unreadable input and outputs that cannot be written.
    Report(ReportArgs),
    /// Receive OTLP and show journeys live on a web page.
    ///
    /// Listens on loopback unless --host says otherwise; there is no authentication, so keep it where only you can reach it.
    Serve(ServeArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// Files of spans; `-` is standard input. Give all files of a trace together.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Accept what a known engine does differently.
    #[arg(long, value_enum, value_name = "NAME")]
    dialect: Vec<Dialect>,
    /// How to write the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Findings of each rule to keep in full; the rest are counted.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    max_findings: usize,
}

#[derive(Args)]
struct ReportArgs {
    /// Files of spans; `-` is standard input. Give all files of a trace together.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Write one self-contained page with plots and waterfalls.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a trace for ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// Put a link to your tracing backend on each journey: a URL with `{trace_id}` in it, and perhaps `{span_id}`.
    #[arg(long, value_name = "URL")]
    link: Option<LinkTemplate>,
    /// Slowest journeys to list.
    #[arg(long, default_value_t = 10, value_name = "N")]
    slowest: usize,
    /// Journeys to keep open until all their spans were read, about half a kilobyte each.
    #[arg(long, default_value_t = 250_000, value_name = "N")]
    max_open: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Check(args) => check(args),
        Command::Report(args) => report(args),
        Command::Serve(args) => serve(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "journey: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Args)]
struct ServeArgs {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    host: IpAddr,
    /// Port of the page; 0 picks a free one.
    #[arg(long, default_value_t = 16687)]
    port: u16,
    /// Port of OTLP over gRPC; 0 picks a free one.
    #[arg(long, default_value_t = 4317)]
    grpc_port: u16,
    /// Port of OTLP over HTTP; 0 picks a free one.
    #[arg(long, default_value_t = 4318)]
    http_port: u16,
    /// Journeys to keep, and as many scheduler steps.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    max_journeys: usize,
    /// Memory for what is kept, about.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    max_memory: usize,
    /// Seconds without a new span after which a journey's missing spans are findings.
    #[arg(long, default_value_t = 5.0, value_parser = seconds, value_name = "S")]
    settle: f64,
    /// Accept what a known engine does differently.
    #[arg(long, value_enum, value_name = "NAME")]
    dialect: Vec<Dialect>,
    /// Put a link to your tracing backend on each journey: a URL with `{trace_id}` in it, and perhaps `{span_id}`.
    #[arg(long, value_name = "URL")]
    link: Option<LinkTemplate>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds between 0 and 86400".to_owned()),
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot write the result: {0}")]
    Check(#[from] io::Error),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

fn serve(args: ServeArgs) -> Result<u8, Failure> {
    let at = |port| SocketAddr::new(args.host, port);
    let config = Config {
        page: at(args.port),
        grpc: at(args.grpc_port),
        http: at(args.http_port),
        limits: Limits {
            journeys: args.max_journeys.max(1),
            bytes: args.max_memory.max(1).saturating_mul(1 << 20),
            settle: Duration::from_secs_f64(args.settle),
        },
        dialects: args.dialect.into_iter().collect(),
        link: args.link,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::bind(config).await?;
        // Scripts read these lines to learn the ports.
        let mut out = io::stdout();
        writeln!(out, "page       http://{}/", server.page_addr()?)?;
        writeln!(out, "OTLP gRPC  http://{}", server.grpc_addr()?)?;
        writeln!(out, "OTLP HTTP  http://{}/v1/traces", server.http_addr()?)?;
        out.flush()?;
        tokio::select! {
            served = server.run() => served?,
            () = told_to_stop() => {}
        }
        Ok(0)
    })
}

/// SIGINT or SIGTERM. Nothing is kept on disk, so there is nothing to save.
async fn told_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn report(args: ReportArgs) -> Result<u8, Failure> {
    let ReportArgs { files, html, perfetto, link, slowest, max_open } = args;
    let options = Options { slowest, max_open: max_open.max(1), html, perfetto, link };
    let mut report = Report::new(options, files.clone()).map_err(ReportError::from)?;
    read_files(&files, &mut report);
    Ok(report.finish(&mut BufWriter::new(io::stdout().lock()))?)
}

fn check(args: CheckArgs) -> Result<u8, Failure> {
    let mut checker = Checker::new(args.dialect.into_iter().collect(), args.max_findings);
    read_files(&args.files, &mut checker);
    let outcome = checker.finish();
    let mut out = BufWriter::new(io::stdout().lock());
    match outcome.write(args.format, &args.files, &mut out).and_then(|()| out.flush()) {
        // Whoever reads the findings has seen enough: `journey check .. | head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(outcome.exit_code()),
    }
}
