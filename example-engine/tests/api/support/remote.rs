//! An engine core behind gRPC that can be killed.

use std::future::pending;
use std::time::Duration;

use example_engine::engine::{EngineConfig, EngineCore};
use example_engine::grpc::serve_core;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Gate, ScriptedRunner, Setup, free_port};

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
        let port = if port == 0 { free_port() } else { port };
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let served = core.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            serve_core(listener, served, None, pending(), pending()).await
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

/// A line to a core that can go dead: first the core's answers are lost, then the connection.
pub struct Line {
    pub url: String,
    state: watch::Sender<LineState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineState {
    Open,
    AnswersLost,
    Cut,
}

impl Line {
    pub async fn to(host: &RemoteCoreHost) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (state, port) = (watch::Sender::new(LineState::Open), host.port);
        let watched = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let core = TcpStream::connect(("127.0.0.1", port)).await.expect("the core");
                tokio::spawn(carry(client, core, watched.subscribe()));
            }
        });
        Self { url, state }
    }

    /// From now on nothing that the core says arrives.
    pub fn lose_answers(&self) {
        self.state.send_replace(LineState::AnswersLost);
    }

    /// Ends its connections.
    pub fn cut(&self) {
        self.state.send_replace(LineState::Cut);
    }
}

async fn carry(mut client: TcpStream, mut core: TcpStream, mut state: watch::Receiver<LineState>) {
    let now = state.clone();
    let ((mut from_client, mut to_client), (mut from_core, mut to_core)) = (client.split(), core.split());
    let answers = async {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from_core.read(&mut buffer).await {
            let open = *now.borrow() == LineState::Open;
            if open && to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = tokio::io::copy(&mut from_client, &mut to_core) => {}
        _ = state.wait_for(|state| *state == LineState::Cut) => {}
    }
}

impl Drop for RemoteCoreHost {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
