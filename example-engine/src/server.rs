//! The HTTP server: accept, serve, and come down in order.

mod stall;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use journey_layer::tracing::{debug, info, warn};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::stall::{Patience, Stall};
use crate::api::{ApiState, Lifecycle, router};

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// What was told to end gets this long: clients to read the end of what was cut short, a core to come out of its step.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Before the next try, when the system has no room for a connection.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(50);

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
    pub async fn run(self, drain: Duration) {
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        self.accept(&graceful, &mut connections).await;
        info!("draining: new requests are refused");
        drop(self.listener);
        let mut closed = pin!(graceful.shutdown());
        tokio::select! {
            () = &mut closed => return,
            () = self.state.lifecycle.stopped() => {}
            () = tokio::time::sleep(drain) => self.state.lifecycle.stop(),
        }
        if tokio::time::timeout(LINGER, closed).await.is_err() {
            warn!("connections were still open {LINGER:?} after the last request was aborted");
            connections.shutdown().await;
        }
    }

    /// Takes connections until the lifecycle drains.
    async fn accept(&self, graceful: &GracefulShutdown, connections: &mut JoinSet<()>) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.state.limits().header_timeout)
            .max_buf_size(MAX_HEAD_BYTES);
        let limits = self.state.limits();
        let patience = Patience {
            piece: limits.write_timeout,
            answer: limits.request_timeout.saturating_add(limits.write_timeout),
        };
        let router = router(self.state.clone());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut draining = pin!(self.state.lifecycle.draining());
        loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = &mut draining => return,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            // A token is a small packet, and is not to wait for the next one.
            if let Err(error) = stream.set_nodelay(true) {
                debug!("a connection without TCP_NODELAY: {error}");
            }
            let stream = Stall::new(stream, patience);
            let (asked, service) = (stream.asked(), TowerToHyperService::new(router.clone()));
            let service = service_fn(move |request| {
                asked.now();
                service.call(request)
            });
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            connections.spawn(async move {
                let _slot = slot;
                // The client's journey says what matters of a connection that broke.
                if let Err(error) = connection.await {
                    debug!("a connection ended early: {error}");
                }
            });
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
