//! The `journey` command.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use journey_cli::check::{Checker, Dialect, Format};
use journey_cli::read::read_files;

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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Check(args) => check(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever reads our output has seen enough: `journey check .. | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "journey: {error}");
            ExitCode::from(2)
        }
    }
}

fn check(args: CheckArgs) -> io::Result<u8> {
    let mut checker = Checker::new(args.dialect.into_iter().collect(), args.max_findings);
    read_files(&args.files, &mut checker);
    let outcome = checker.finish();
    let mut out = BufWriter::new(io::stdout().lock());
    outcome.write(args.format, &args.files, &mut out)?;
    out.flush()?;
    Ok(outcome.exit_code())
}
