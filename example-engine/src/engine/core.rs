//! The core's thread: take commands, schedule, execute, update, again.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use journey_layer::tracing::dispatcher;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::client::{Command, EngineCore, OutputStream, Shared};
use super::config::EngineConfig;
use super::error::{EngineError, StartError};
use super::request::{EngineCoreOutput, EngineCoreRequest, FinishReason};
use super::scheduler::Scheduler;
use super::step_trace::StepTrace;
use crate::model_runner::{ModelError, ModelRunner, ModelRunnerOutput, ScheduledSequence};

impl EngineCore {
    /// Starts a core on its own thread.
    ///
    /// # Errors
    /// A setting that cannot work, or no thread.
    pub fn start(config: EngineConfig, model_runner: Box<dyn ModelRunner>) -> Result<Self, StartError> {
        config.validate()?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let core = CoreLoop {
            snapshot_rate: config.step_tracing_snapshot_rate,
            scheduler: Scheduler::new(config),
            model_runner,
            sender: commands.downgrade(),
            commands: receiver,
            outputs: HashMap::new(),
            shared: Arc::clone(&shared),
            shutdown: None,
        };
        core.publish_stats();
        // The caller's subscriber, which need not be the process's: a journey's two spans belong to one.
        let dispatch = dispatcher::get_default(Clone::clone);
        let run = move || dispatcher::with_default(&dispatch, || core.run());
        std::thread::Builder::new().name("engine-core".to_owned()).spawn(run)?;
        Ok(Self { commands, shared })
    }
}

struct CoreLoop {
    scheduler: Scheduler,
    snapshot_rate: f64,
    model_runner: Box<dyn ModelRunner>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// For the streams. Weak, so that the core ends with its last user.
    sender: mpsc::WeakUnboundedSender<Command>,
    outputs: HashMap<u64, mpsc::UnboundedSender<EngineCoreOutput>>,
    shared: Arc<Shared>,
    shutdown: Option<Shutdown>,
}

struct Shutdown {
    /// `None` waits as long as it takes.
    deadline: Option<Instant>,
    done: Vec<std::sync::mpsc::Sender<()>>,
}

impl CoreLoop {
    fn run(mut self) {
        let reason = match catch_unwind(AssertUnwindSafe(|| self.busy_loop())) {
            Ok(()) => FinishReason::Abort,
            Err(panic) => {
                let text = format!("it panicked: {}", panic_text(panic.as_ref()));
                *self.shared.dead.lock() = Some(text.clone());
                FinishReason::Error(text)
            }
        };
        for number in self.scheduler.unfinished() {
            self.finish(number, reason.clone());
        }
        self.publish_stats();
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Add(_, reply) = command {
                // Nobody waits for the answer of a request that was given up.
                let _ = reply.send(Err(EngineError::ShuttingDown));
            }
        }
        // Dropping the senders answers all who wait in `shutdown`.
    }

    fn busy_loop(&mut self) {
        loop {
            let idle = !self.scheduler.has_unfinished_requests();
            if idle && self.shutdown.is_some() {
                return;
            }
            if idle {
                match self.commands.blocking_recv() {
                    Some(command) => self.handle(command),
                    None => return,
                }
            }
            loop {
                match self.commands.try_recv() {
                    Ok(command) => self.handle(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let deadline = self.shutdown.as_ref().and_then(|shutdown| shutdown.deadline);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            if self.scheduler.has_unfinished_requests() {
                self.step();
            }
            self.publish_stats();
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            // If nobody waits for the answer any more, the stream in it is dropped, which aborts the sequence.
            Command::Add(request, reply) => drop(reply.send(self.add_request(*request))),
            Command::Abort(number) => self.finish(number, FinishReason::Abort),
            Command::Shutdown(drain, done) => {
                let deadline = Instant::now().checked_add(drain);
                let shutdown = self.shutdown.get_or_insert(Shutdown { deadline, done: Vec::new() });
                shutdown.deadline = shutdown.deadline.into_iter().chain(deadline).min();
                shutdown.done.push(done);
            }
        }
    }

    fn add_request(&mut self, request: EngineCoreRequest) -> Result<OutputStream, EngineError> {
        let commands = self.sender.upgrade().filter(|_| self.shutdown.is_none()).ok_or(EngineError::ShuttingDown)?;
        let number = self.scheduler.add_request(request, rand::rng().random())?;
        let (sender, outputs) = mpsc::unbounded_channel();
        self.outputs.insert(number, sender);
        Ok(OutputStream { outputs, number, commands, finished: false })
    }

    fn step(&mut self) {
        let mut trace = StepTrace::begin(&self.scheduler);
        let scheduler_output = self.scheduler.schedule();
        trace.planned(&self.scheduler, &scheduler_output, self.snapshot_rate);
        let result = trace.span.in_scope(|| self.model_runner.execute_model(&scheduler_output));
        let result = result.and_then(|output| check_output(&scheduler_output.scheduled_seqs, output));
        let outputs = match result {
            Ok(runner_output) => self.scheduler.update_from_output(&scheduler_output, &runner_output),
            Err(error) => self.scheduler.fail_step(&scheduler_output, &error),
        };
        trace.end(&self.scheduler, &scheduler_output);
        for (number, output) in outputs {
            self.send(number, output);
        }
    }

    fn finish(&mut self, number: u64, reason: FinishReason) {
        if self.scheduler.finish_request(number, &reason) {
            self.send(number, EngineCoreOutput { finish_reason: Some(reason), ..EngineCoreOutput::default() });
        }
    }

    fn send(&mut self, number: u64, output: EngineCoreOutput) {
        let finished = output.finish_reason.is_some();
        if let Some(sender) = self.outputs.get(&number) {
            // A dropped stream has sent its abort.
            let _ = sender.send(output);
        }
        if finished {
            self.outputs.remove(&number);
        }
    }

    fn publish_stats(&self) {
        *self.shared.stats.lock() = self.scheduler.stats();
    }
}

/// A runner that answers something else than what it was asked would end no sequence.
fn check_output(scheduled: &[ScheduledSequence], output: ModelRunnerOutput) -> Result<ModelRunnerOutput, ModelError> {
    let tokens = &output.sampled_token_ids;
    let matches = tokens.len() == scheduled.len()
        && scheduled.iter().zip(tokens).all(|(sequence, token)| sequence.sampling.is_some() == token.is_some());
    if !matches {
        let text = format!("{} sequences gave {} tokens", scheduled.len(), tokens.iter().flatten().count());
        return Err(ModelError::Execution(text));
    }
    Ok(output)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
