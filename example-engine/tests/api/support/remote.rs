//! An engine core behind gRPC that can be killed.

use std::time::Duration;

use example_engine::engine::{EngineConfig, EngineCore};
use example_engine::grpc::serve_core;

use super::{Gate, ScriptedRunner, Setup};

const SHUTDOWN: Duration = Duration::from_secs(5);

/// A core that is served from a runtime of its own. Killed, its connections break as those of a killed process do.
pub struct RemoteCoreHost {
    pub core: EngineCore,
    pub gate: Gate,
    pub port: u16,
    runtime: Option<tokio::runtime::Runtime>,
}

impl RemoteCoreHost {
    /// Starts a core on a port; 0 picks one.
    pub fn start(port: u16) -> Self {
        Self::start_with(port, Setup::default().engine)
    }

    pub fn start_with(port: u16, engine: EngineConfig) -> Self {
        let gate = Gate::open();
        let core = EngineCore::start(engine, Box::new(ScriptedRunner::new(gate.clone()))).expect("a core");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let port = listener.local_addr().expect("an address").port();
        let served = core.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            serve_core(listener, served, None, std::future::pending()).await
        });
        Self { core, gate, port, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Breaks every connection, and only then lets the orphaned core go on.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits until its threads have stopped, which an async context may not do by itself.
            std::thread::spawn(move || runtime.shutdown_timeout(SHUTDOWN)).join().expect("no panic");
        }
        self.gate.release();
    }
}

impl Drop for RemoteCoreHost {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
