//! A server over real HTTP with a scripted model, and the journeys it makes.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own part of the support")]

pub mod checkpoint;
pub mod processes;
pub mod remote;
mod runner;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use example_engine::api::{ApiConfig, ApiKey, ApiState, Backend, ChatTemplate, Limits, ModelCard};
use example_engine::engine::{EngineConfig, EngineCore};
use example_engine::grpc::CorePool;
use example_engine::model_runner::ModelRunner;
use example_engine::server::Server;
use journey_layer::testing::{Capture, CapturedSpan, capture_with};
use journey_layer::{Builder, Journey};
use serde_json::Value;

pub use runner::{EOS, Gate, SCRIPT, ScriptedRunner, tokenizer};

/// Longer than anything takes that does happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a test may change about its server.
pub struct Setup {
    pub engine: EngineConfig,
    pub limits: Limits,
    pub api_key: Option<ApiKey>,
    pub chat_template: Option<&'static str>,
    pub drain: Duration,
    pub sample_rate: f64,
    /// Share of the scheduler's steps that are traced.
    pub step_sample_rate: f64,
    /// Computes with the checkpoint's model, which no gate holds back, and not with the scripted one.
    pub real_model: bool,
}

/// A running server.
pub struct TestServer {
    pub url: String,
    pub http: reqwest::Client,
    pub gate: Gate,
    pub core: EngineCore,
    pub state: Arc<ApiState>,
    pub capture: Capture,
    pub backend: Backend,
    pub serving: tokio::task::JoinHandle<()>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engine: EngineConfig {
                block_size: 4,
                num_blocks: 4096,
                max_num_seqs: 64,
                max_num_batched_tokens: 256,
                max_model_len: 512,
                eos_token_ids: vec![EOS],
                ..EngineConfig::default()
            },
            limits: Limits {
                max_body_bytes: 64 * 1024,
                max_waiting_requests: 1024,
                header_timeout: Duration::from_secs(20),
                body_timeout: Duration::from_secs(20),
                write_timeout: Duration::from_secs(20),
                request_timeout: Duration::from_secs(60),
            },
            api_key: None,
            chat_template: None,
            drain: Duration::from_millis(200),
            sample_rate: 1.0,
            step_sample_rate: 0.0,
            real_model: false,
        }
    }
}

impl Setup {
    /// Starts the server. Its journeys are captured on this thread and on its core's.
    pub async fn start(self) -> TestServer {
        let capture = capture_with(builder().sample_rate(self.sample_rate).step_sample_rate(self.step_sample_rate));
        let gate = Gate::open();
        let max_model_len = self.engine.max_model_len;
        let runner: Box<dyn ModelRunner> = match self.real_model {
            true => Box::new(checkpoint::model_runner(&self.engine)),
            false => Box::new(ScriptedRunner::new(gate.clone())),
        };
        let core = EngineCore::start(self.engine.clone(), runner).expect("a core");
        self.serve(Backend::InProcess(core.clone()), core, gate, capture, max_model_len).await
    }

    /// Starts an API in front of remote cores.
    pub async fn start_remote(self, hosts: &[&remote::RemoteCoreHost], capture: Capture) -> TestServer {
        let urls: Vec<_> = hosts.iter().map(|host| host.url()).collect();
        self.start_at(&urls, hosts[0], capture).await
    }

    /// Starts an API in front of the cores at `urls`, `host` among them.
    pub async fn start_at(self, urls: &[String], host: &remote::RemoteCoreHost, capture: Capture) -> TestServer {
        let pool = CorePool::connect(urls, None).expect("a pool");
        until("the cores are up", || pool.num_up() == urls.len()).await;
        let max_model_len = self.engine.max_model_len;
        let core = host.core.clone();
        self.serve(Backend::Remote(pool), core, host.gate.clone(), capture, max_model_len).await
    }

    async fn serve(self, backend: Backend, core: EngineCore, gate: Gate, capture: Capture, len: usize) -> TestServer {
        let state = ApiState::new(ApiConfig {
            backend: backend.clone(),
            tokenizer: tokenizer(),
            template: ChatTemplate::load(self.chat_template, None).expect("a template"),
            model: ModelCard { name: "scripted".into(), max_model_len: len, vocab_size: 257 },
            limits: self.limits,
            api_key: self.api_key,
            ledger: None,
            do_tracing: None,
        });
        let server = Server::bind("127.0.0.1", 0, state.clone()).await.expect("a free port");
        let url = format!("http://{}", server.address());
        let serving = tokio::spawn(server.run(self.drain));
        TestServer { url, http: reqwest::Client::new(), gate, core, state, capture, backend, serving }
    }
}

/// Catches journeys without scheduler steps, whatever the environment says.
pub fn capture() -> Capture {
    capture_with(builder())
}

fn builder() -> Builder {
    Journey::builder().environment(|_| None)
}

/// A server with the default setup.
pub async fn serve() -> TestServer {
    Setup::default().start().await
}

impl TestServer {
    /// The cores behind gRPC.
    pub fn pool(&self) -> &CorePool {
        match &self.backend {
            Backend::Remote(pool) => pool,
            Backend::InProcess(_) => panic!("this server has its core in process"),
        }
    }

    /// Posts a JSON body.
    pub fn post(&self, route: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{route}", self.url)).json(body)
    }

    /// Posts a JSON body; the status and the answer.
    #[track_caller]
    pub fn ask(&self, route: &str, body: &Value) -> impl Future<Output = (u16, Value)> + use<> {
        let request = self.post(route, body);
        async move {
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            (status, response.json().await.expect("a JSON answer"))
        }
    }

    /// Posts a JSON body; the `data:` of every event, `[DONE]` included.
    pub fn ask_streaming(&self, route: &str, body: &Value) -> impl Future<Output = Vec<String>> + use<> {
        let request = self.post(route, body);
        async move {
            let text = request.send().await.expect("an answer").text().await.expect("a whole stream");
            text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
        }
    }

    /// Waits until every journey has ended; their spans.
    pub async fn journeys(&self) -> Vec<CapturedSpan> {
        // Between a span's end and its export the ledger is in motion.
        until("every span has ended and is accounted for", || {
            let stats = self.capture.stats();
            stats.spans.started > 0 && stats.spans.live == 0 && stats.balances()
        })
        .await;
        self.capture.spans()
    }

    /// Waits until every journey has ended; the only `llm_request`, and the `llm_core` spans under it.
    pub async fn journey(&self) -> (CapturedSpan, Vec<CapturedSpan>) {
        let (mut requests, cores): (Vec<_>, Vec<_>) =
            self.journeys().await.into_iter().partition(|span| span.name == "llm_request");
        assert_eq!(requests.len(), 1, "llm_request spans");
        let request = requests.remove(0);
        for core in &cores {
            assert_eq!(core.name, "llm_core");
            assert_eq!((core.trace_id, core.parent_span_id), (request.trace_id, Some(request.span_id)));
        }
        (request, cores)
    }

    /// Waits until `/metrics` has a line of this name and value.
    pub async fn until_metric(&self, name: &str, value: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let response = self.http.get(format!("{}/metrics", self.url)).send().await.expect("an answer");
            let text = response.text().await.expect("a whole text");
            if text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.trim() == value)) {
                return;
            }
            assert!(Instant::now() < deadline, "timed out: {name} {value}\n{text}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether no sequence and no block is held.
    pub fn core_is_idle(&self) -> bool {
        let stats = self.core.stats();
        stats.num_running_reqs == 0 && stats.num_waiting_reqs == 0 && stats.num_free_blocks == stats.num_blocks
    }

    /// Waits until no sequence and no block is held.
    pub async fn assert_core_is_idle(&self) {
        until("the core is idle", || self.core_is_idle()).await;
    }
}

/// A port at which nobody listens, until the test does.
pub fn free_port() -> u16 {
    // Bound and never listening, it refuses connections and keeps the port from everybody who does not ask for it by number.
    let socket = tokio::net::TcpSocket::new_v4().expect("a free port");
    socket.set_reuseaddr(true).expect("a free port");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let port = socket.local_addr().expect("an address").port();
    std::mem::forget(socket);
    port
}

/// Waits for a condition that other threads bring about.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let deadline = Instant::now() + PATIENCE;
    async move {
        while !condition() {
            assert!(Instant::now() < deadline, "timed out: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The value of a text attribute.
#[track_caller]
pub fn text(span: &CapturedSpan, key: &str) -> String {
    span.attribute(key).unwrap_or_else(|| panic!("no {key}")).as_str().into_owned()
}

/// The reason of `api.ABORTED`.
#[track_caller]
pub fn abort_reason(request: &CapturedSpan) -> String {
    let aborted = request.event("api.ABORTED");
    aborted.attribute("reason").expect("a reason").as_str().into_owned()
}

/// The status of `journey.FINISHED`.
#[track_caller]
pub fn finish_status(core: &CapturedSpan) -> String {
    let finished = core.event("journey.FINISHED");
    finished.attribute("finish.status").expect("a status").as_str().into_owned()
}
