//! The `journey` command.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use journey_cli::check::{Checker, Dialect, Format};
use journey_cli::link::LinkTemplate;
use journey_cli::read::read_files;
use journey_cli::report::{Error as ReportError, Options, Report};

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
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever reads our output has seen enough: `journey check .. | head`.
        Err(Failure::Check(error) | Failure::Report(ReportError::Text(error)))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "journey: {error}");
            ExitCode::from(2)
        }
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot write the result: {0}")]
    Check(#[from] io::Error),
    #[error(transparent)]
    Report(#[from] ReportError),
}

fn report(args: ReportArgs) -> Result<u8, Failure> {
    let ReportArgs { files, html, perfetto, link, slowest, max_open } = args;
    let options = Options { slowest, max_open: max_open.max(1), html, perfetto, link };
    let mut report = Report::new(options, files.clone()).map_err(ReportError::from)?;
    read_files(&files, &mut report);
    let mut out = BufWriter::new(io::stdout().lock());
    let code = report.finish(&mut out)?;
    out.flush()?;
    Ok(code)
}

fn check(args: CheckArgs) -> Result<u8, Failure> {
    let mut checker = Checker::new(args.dialect.into_iter().collect(), args.max_findings);
    read_files(&args.files, &mut checker);
    let outcome = checker.finish();
    let mut out = BufWriter::new(io::stdout().lock());
    outcome.write(args.format, &args.files, &mut out)?;
    out.flush()?;
    Ok(outcome.exit_code())
}
