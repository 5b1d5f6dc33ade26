//! `serve` and `core`.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use journey_layer::tracing::{info, warn};
use tokio::net::TcpListener;

use crate::api::{ApiConfig, ApiState, Backend, Lifecycle};
use crate::config::{CoreArgs, ServeArgs};
use crate::engine::EngineCore;
use crate::grpc::{CorePool, serve_core, tls};
use crate::server::{LINGER, Server, drain_at_signals};
use crate::startup::Front;
use crate::telemetry::{Options, Telemetry};

/// Time to export what is left when all work has ended.
pub const FLUSH: Duration = Duration::from_secs(10);

/// Serves the API until a signal, then comes down in order.
///
/// # Errors
/// Something does not start, or journeys could not be delivered.
pub async fn serve(args: &ServeArgs) -> Result<ExitCode, Box<dyn Error>> {
    let telemetry = Telemetry::start(Options {
        file: args.telemetry.journeys.as_deref(),
        console: true,
        memory: None,
        receiver: None,
        sample_rate: args.journey_tracing_sample_rate,
        step_sample_rate: args.engine.step_tracing_sample_rate,
    })?;
    let front = Front::load(&args.engine, args.served_model_name.as_deref())?;
    let backend = match args.cores.is_empty() {
        true => Backend::InProcess(front.start_core(&args.engine)?),
        false => {
            let own = args.core_cert.as_deref().zip(args.core_key.as_deref());
            let tls = args.core_ca.as_deref().map(|ca| tls::client(ca, own)).transpose()?;
            Backend::Remote(CorePool::connect(&args.cores, tls.as_ref())?)
        }
    };
    let state = ApiState::new(ApiConfig {
        backend: backend.clone(),
        tokenizer: front.tokenizer,
        template: front.template,
        model: front.card,
        limits: args.limits(),
        api_key: args.api_key.clone(),
        ledger: Some(telemetry.ledger()),
        do_tracing: None,
    });
    let server = Server::bind(&args.host, args.port, state.clone()).await?;
    drain_at_signals(state.lifecycle.clone())?;
    announce(&format!("listening on http://{}", server.address()))?;
    server.run(args.drain_timeout).await;
    if let Backend::InProcess(core) = backend {
        shut_down(core, Duration::ZERO).await;
    }
    finish(&telemetry)
}

/// Serves one engine core by gRPC until a signal, then comes down in order.
///
/// # Errors
/// Something does not start, or journeys could not be delivered.
pub async fn core(args: &CoreArgs) -> Result<ExitCode, Box<dyn Error>> {
    let telemetry = Telemetry::start(Options {
        file: args.telemetry.journeys.as_deref(),
        console: false,
        memory: None,
        receiver: None,
        sample_rate: None,
        step_sample_rate: args.engine.step_tracing_sample_rate,
    })?;
    let pair = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
    let tls = pair.map(|(cert, key)| tls::server(cert, key, args.tls_client_ca.as_deref())).transpose()?;
    let core = Front::load(&args.engine, None)?.start_core(&args.engine)?;
    let listener = TcpListener::bind((args.host.as_str(), args.port)).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    announce(&format!("core listening on {scheme}://{}", listener.local_addr()?))?;
    let lifecycle = std::sync::Arc::new(Lifecycle::new());
    drain_at_signals(lifecycle.clone())?;
    let down = async {
        lifecycle.draining().await;
        info!("draining: new sequences are refused");
        tokio::select! {
            () = shut_down(core.clone(), args.drain_timeout) => {}
            () = lifecycle.stopped() => shut_down(core.clone(), Duration::ZERO).await,
        }
    };
    // A connection that does not end holds up nothing.
    let late = async {
        lifecycle.draining().await;
        let _ = tokio::time::timeout(args.drain_timeout, lifecycle.stopped()).await;
        tokio::time::sleep(LINGER).await;
    };
    serve_core(listener, core.clone(), tls, down, late).await?;
    finish(&telemetry)
}

/// Ends a core: its unfinished sequences get `drain` to finish, and are aborted then. A step that hangs is left behind.
pub async fn shut_down(core: EngineCore, drain: Duration) {
    let ended = tokio::task::spawn_blocking(move || core.shutdown(drain));
    match tokio::time::timeout(drain.saturating_add(LINGER), ended).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("the engine core did not end well: {error}"),
        Err(_) => warn!("the engine core was still in a step {LINGER:?} after it should have ended"),
    }
}

/// Exports what is left; what could not be delivered is an error, and the ledger says what it was.
fn finish(telemetry: &Telemetry) -> Result<ExitCode, Box<dyn Error>> {
    let delivered = telemetry.shutdown(FLUSH);
    let stats = telemetry.stats();
    info!("journeys: {}", stats.to_string().trim_end().replace('\n', "; "));
    delivered?;
    Ok(ExitCode::SUCCESS)
}

/// The line that says where to connect to, for people and for tests.
fn announce(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
