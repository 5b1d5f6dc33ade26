//! A process that measures one job, told what to do line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::cpu;
use crate::error::Error;
use crate::jobs::{Command, Job, Reply};

/// What a process says, once when it is ready and once for each command.
type Line = Result<Reply, String>;

/// The child's side: measures the encoded `job` on `core` until nobody asks any more.
///
/// # Errors
/// The pipe to the parent is broken.
pub fn serve(job: &str, endpoint: &str, core: usize) -> Result<(), Error> {
    let job: Job = serde_json::from_str(job).map_err(|error| Error::io("reading the job")(error.into()))?;
    let mut measure = Err(String::new());
    let say = |line: &Line| {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, line).map_err(|error| Error::io("answering")(error.into()))?;
        out.write_all(b"\n").and_then(|()| out.flush()).map_err(Error::io("answering"))
    };
    let mut ready = || -> Line {
        if !job.is_wide() {
            // Before any thread is started: the background threads of the stack are to stay on this core too.
            cpu::pin(&[core]).map_err(|error| format!("core {core}: {error}"))?;
        }
        measure = job.start(endpoint).map_err(|error| error.to_string());
        measure.as_ref().map(|_| Reply::default()).map_err(Clone::clone)
    };
    say(&ready())?;
    let Ok(mut measure) = measure else { return Ok(()) };
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Error::io("reading a command"))?;
        let command: Command =
            serde_json::from_str(&line).map_err(|error| Error::io("reading a command")(error.into()))?;
        say(&measure.obey(command).map_err(|error| error.to_string()))?;
    }
    // What is open or queued is of no use to anybody: no shutdown.
    std::process::exit(0)
}

/// The parent's side.
pub struct Measuring {
    /// What it measures.
    pub job: Job,
    process: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Measuring {
    /// Starts a process for `job`, without waiting for it to be ready.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(job: Job, endpoint: &str, core: usize) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("looking for this program"))?;
        let encoded = serde_json::to_string(&job).map_err(|error| Error::io("starting a process")(error.into()))?;
        let mut process = std::process::Command::new(program)
            .args(["measure", &encoded, "--endpoint", endpoint, "--core", &core.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("starting a process"))?;
        let commands = process.stdin.take().expect("it is piped");
        let replies = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { job, process, commands, replies })
    }

    /// Waits for the answer to the last command, or for readiness.
    ///
    /// # Errors
    /// The process failed.
    pub fn reply(&mut self) -> Result<Reply, Error> {
        let failed = |message: String| Error::Child { job: self.job.to_string(), message };
        let mut line = String::new();
        let read = self.replies.read_line(&mut line).map_err(|error| failed(error.to_string()))?;
        if read == 0 {
            return Err(failed("it ended".to_owned()));
        }
        let line: Line = serde_json::from_str(&line).map_err(|error| failed(error.to_string()))?;
        line.map_err(failed)
    }

    /// Has a command carried out.
    ///
    /// # Errors
    /// The process failed.
    pub fn ask(&mut self, command: Command) -> Result<Reply, Error> {
        let failed = |message: String| Error::Child { job: self.job.to_string(), message };
        let mut line = serde_json::to_vec(&command).map_err(|error| failed(error.to_string()))?;
        line.push(b'\n');
        self.commands.write_all(&line).map_err(|error| failed(error.to_string()))?;
        self.reply()
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
