//! What a journey costs, beside what the same journey costs with today's tracing libraries.
//!
//! `cargo run --release -p journey-bench` prints the table and writes `target/journey-bench.json`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use journey_bench::driver::{self, Effort};
use journey_bench::error::Error;
use journey_bench::jobs::{Command, Job};
use journey_bench::report::Report;
use journey_bench::sink::Sink;
use journey_bench::stacks::Kind;
use journey_bench::{alloc, child, cpu, instructions};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Measures what a journey costs through this project and through its peers, side by side.
#[derive(Parser)]
struct Flags {
    /// A trial of the harness that takes some seconds: its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Rounds; the more, the less noise.
    #[arg(long)]
    rounds: Option<usize>,
    /// The core that is measured on; the last one that this process may use if not given.
    #[arg(long, global = true)]
    core: Option<usize>,
    /// Where the figures go.
    #[arg(long, value_name = "FILE", default_value = "target/journey-bench.json")]
    json: PathBuf,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Runs one stack alone, for a profiler.
    Once {
        /// Which.
        stack: Kind,
        /// How many journeys.
        #[arg(default_value_t = 100_000)]
        journeys: usize,
    },
    /// Counts the producer's instructions under valgrind, which must be installed.
    Instructions {
        /// Which stacks; all if not given.
        stacks: Vec<Kind>,
    },
    /// Measures one job for a parent process.
    #[command(hide = true)]
    Measure {
        job: String,
        #[arg(long)]
        endpoint: String,
    },
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell where standard error is gone.
            let _ = writeln!(std::io::stderr(), "journey-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Error> {
    let core = match flags.core {
        Some(core) => core,
        None => cpu::allowed().map_err(Error::io("asking for the cores"))?.last().copied().unwrap_or(0),
    };
    match flags.action {
        Some(Action::Measure { job, endpoint }) => child::serve(&job, &endpoint, core),
        Some(Action::Once { stack, journeys }) => once(stack, journeys, core),
        Some(Action::Instructions { stacks }) => instructions(&stacks, core),
        None => table(&flags, core),
    }
}

/// Measures everything, prints the tables and writes the file.
fn table(flags: &Flags, core: usize) -> Result<(), Error> {
    let rounds = flags.rounds.unwrap_or(if flags.quick { 5 } else { 100 }).max(1);
    let terminal = std::io::stderr().is_terminal();
    let progress = |what: &str| {
        if terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{what}");
        }
    };
    let results = driver::run(Effort { rounds, quick: flags.quick, core }, progress)?;
    progress("");
    let report = Report::new(&results, flags.quick);
    let writing = || format!("writing {}", flags.json.display());
    if let Some(folder) = flags.json.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(writing()))?;
    }
    std::fs::write(&flags.json, report.json()).map_err(Error::io(writing()))?;
    writeln!(std::io::stdout(), "{report}").map_err(Error::io("printing the tables"))
}

/// Runs one stack in this process.
fn once(stack: Kind, journeys: usize, core: usize) -> Result<(), Error> {
    let mut cores = cpu::allowed().map_err(Error::io("asking for the cores"))?;
    cores.retain(|other| *other != core);
    let sink = Sink::start(cores)?;
    cpu::pin(&[core]).map_err(Error::io("choosing a core"))?;
    let mut measure = Job::Stack(stack).start(&sink.endpoint())?;
    let figures = measure.obey(Command::Round(journeys))?.figures;
    let producer = figures.get("producer_ns").copied().unwrap_or(f64::NAN);
    writeln!(std::io::stdout(), "{stack}: {producer:.0} ns of CPU time on the producer for each of {journeys} journeys")
        .map_err(Error::io("printing the result"))
}

/// Counts instructions.
fn instructions(stacks: &[Kind], core: usize) -> Result<(), Error> {
    for stack in if stacks.is_empty() { Kind::all() } else { stacks } {
        let instructions = instructions::of_a_journey(*stack, core)?;
        writeln!(std::io::stdout(), "{stack:<34} {instructions:>8.0} instructions of the producer for one journey")
            .map_err(Error::io("printing the result"))?;
    }
    Ok(())
}
