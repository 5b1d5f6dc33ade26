//! The command line of the example engine.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use example_engine::config::{Cli, Command};
use example_engine::{bench, commands};

/// Time for threads that still block when everything else has ended.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to do about a closed standard error.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        match cli.command {
            None => commands::serve(&cli.serve).await,
            Some(Command::Serve(args)) => commands::serve(&args).await,
            Some(Command::Core(args)) => commands::core(&args).await,
            Some(Command::Demo(args)) => example_engine::demo::run(&args).await,
            Some(Command::Bench(args)) => {
                let report = bench::run(&args).await?;
                let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
                io::stdout().write_all(text.as_bytes())?;
                Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    result
}
