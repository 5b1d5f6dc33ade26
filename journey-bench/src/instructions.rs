//! Instructions instead of time: the same on a busy machine as on an idle one.

use std::process::Command;

use crate::error::Error;
use crate::stacks::Kind;

/// Journeys in a run, and a whole number of bursts of any stack; the difference between one run and one of twice as many is free of what happens once.
const JOURNEYS: usize = 4096;

/// Instructions of the producer thread for one journey, counted by callgrind.
///
/// # Errors
/// Valgrind is not installed, or the stack failed under it.
pub fn of_a_journey(stack: Kind, core: usize) -> Result<f64, Error> {
    let once = collect(stack, core, JOURNEYS)?;
    let twice = collect(stack, core, 2 * JOURNEYS)?;
    Ok(twice.saturating_sub(once) as f64 / JOURNEYS as f64)
}

fn collect(stack: Kind, core: usize, journeys: usize) -> Result<u64, Error> {
    let program = std::env::current_exe().map_err(Error::io("looking for this program"))?;
    let output = Command::new("valgrind")
        // Only inside `Stack::run`, and so only on the producer.
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*stacks::Stack::run"])
        .arg(program)
        .args(["once", &stack.to_string(), &journeys.to_string(), "--core", &core.to_string()])
        .output()
        .map_err(Error::io("starting valgrind"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(instructions) if output.status.success() && instructions > 0 => Ok(instructions),
        _ => Err(Error::Child { job: format!("{stack} under valgrind"), message: log.into_owned() }),
    }
}
