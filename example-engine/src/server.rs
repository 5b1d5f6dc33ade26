//! The HTTP server: bind, serve, and come down in order.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use journey_layer::tracing::{info, warn};
use tokio::net::TcpListener;

use crate::api::{ApiState, Lifecycle, router};

/// Clients that do not read their answers to the end get this long after the last of these was cut short.
const LINGER: Duration = Duration::from_secs(2);

/// A bound server, not yet serving.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<ApiState>,
}

impl Server {
    /// Binds the API to a host and a port; 0 picks a free one.
    ///
    /// # Errors
    /// The address is taken, or not one of this machine.
    pub async fn bind(host: &str, port: u16, state: Arc<ApiState>) -> io::Result<Self> {
        let listener = TcpListener::bind((host, port))
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {host}:{port}: {error}")))?;
        Ok(Self { address: listener.local_addr()?, listener, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the lifecycle drains. Then requests get `drain` to finish; those that are left are aborted, with their
    /// journeys ended.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn run(self, drain: Duration) -> io::Result<()> {
        let lifecycle = {
            let state = self.state.clone();
            async move { state.lifecycle.draining().await }
        };
        let mut serving = pin!(
            axum::serve(self.listener, router(self.state.clone())).with_graceful_shutdown(lifecycle).into_future()
        );
        tokio::select! {
            result = &mut serving => return result,
            () = self.state.lifecycle.draining() => info!("draining: new requests are refused"),
        }
        tokio::select! {
            result = &mut serving => return result,
            () = self.state.lifecycle.stopped() => {}
            () = tokio::time::sleep(drain) => self.state.lifecycle.stop(),
        }
        match tokio::time::timeout(LINGER, serving).await {
            Ok(result) => result,
            Err(_) => {
                warn!("connections were still open {LINGER:?} after the last request was aborted");
                Ok(())
            }
        }
    }
}

/// Drains at SIGTERM or SIGINT; at a second one, stops.
///
/// # Errors
/// The process cannot listen to signals.
#[cfg(unix)]
pub fn drain_at_signals(lifecycle: Arc<Lifecycle>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        next().await;
        lifecycle.drain();
        next().await;
        lifecycle.stop();
    });
    Ok(())
}

/// Drains at Ctrl-C; at a second one, stops.
///
/// # Errors
/// Never: a process that cannot listen to Ctrl-C is ended by it.
#[cfg(not(unix))]
pub fn drain_at_signals(lifecycle: Arc<Lifecycle>) -> io::Result<()> {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            lifecycle.drain();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            lifecycle.stop();
        }
    });
    Ok(())
}
