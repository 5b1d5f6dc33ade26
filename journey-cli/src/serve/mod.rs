//! `journey serve`: an OTLP receiver with a live page.
//!
//! Three listeners, loopback unless told otherwise: OTLP over gRPC, OTLP over HTTP, and the page. The page only reads; what
//! comes in is bounded in size, what is kept in count and bytes.

mod filter;
mod grpc;
mod guard;
mod http;
mod live;
mod pages;
mod store;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::check::Dialects;
use crate::link::LinkTemplate;
use crate::model::Span;
use crate::read::{At, Problem, Sink};

pub use store::Limits;
use store::Store;

/// Largest body of one export request, as sent and as unpacked.
const MAX_BODY: usize = 16 << 20;
const MAX_UNPACKED: usize = 64 << 20;

/// Export requests worked on at once; the others wait, so that memory stays within bodies times this (gRPC's are decoded by then).
const MAX_EXPORTS: usize = 8;

/// Pages that may be open at once.
const MAX_WATCHERS: usize = 64;

/// How often the page is told of changes, at most.
const TICK: Duration = Duration::from_millis(500);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the page.
    pub page: SocketAddr,
    /// Address of OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Address of OTLP over HTTP.
    pub http: SocketAddr,
    /// What is kept.
    pub limits: Limits,
    /// Dialects that findings accept.
    pub dialects: Dialects,
    /// A link to each journey in the user's own backend.
    pub link: Option<LinkTemplate>,
}

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address} for {what}: {source}; choose another with {option} (port 0 picks a free one)")]
    Bind {
        /// What it was for.
        what: &'static str,
        /// The option that changes it.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// A listener failed while serving.
    #[error("serving failed: {0}")]
    Io(#[from] io::Error),
    /// The gRPC listener failed while serving.
    #[error("serving OTLP over gRPC failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// What all listeners share.
#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    /// Counts changes, for those who watch.
    version: watch::Sender<u64>,
    exports: Semaphore,
    watchers: Arc<Semaphore>,
    link: Option<LinkTemplate>,
}

impl Shared {
    /// Takes the spans of one export request in.
    fn take(&self, batch: Batch) {
        let now = Instant::now();
        let mut store = self.store.lock();
        store.unreadable(batch.problem_count);
        for span in batch.spans {
            store.add(span, now);
        }
        drop(store);
        self.version.send_modify(|version| *version += 1);
    }
}

/// The spans of one export request.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    first_problem: Option<String>,
    problem_count: u64,
}

impl Sink for Batch {
    fn span(&mut self, span: Span, _at: At) {
        self.spans.push(span);
    }

    fn problem(&mut self, problem: Problem) {
        self.problem_count += 1;
        self.first_problem.get_or_insert_with(|| problem.error.to_string());
    }
}

/// A server whose ports are bound, so that exporters may connect; it answers once [`Server::run`] is polled.
#[derive(Debug)]
pub struct Server {
    page: TcpListener,
    grpc: TcpListener,
    http: TcpListener,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds the three listeners.
    ///
    /// # Errors
    /// One of the addresses cannot be bound.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        Ok(Self {
            page: bind(config.page, "the page", "--port").await?,
            grpc: bind(config.grpc, "OTLP over gRPC", "--grpc-port").await?,
            http: bind(config.http, "OTLP over HTTP", "--http-port").await?,
            shared: Arc::new(Shared {
                store: Mutex::new(Store::new(config.limits, config.dialects)),
                version: watch::Sender::new(0),
                exports: Semaphore::new(MAX_EXPORTS),
                watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
                link: config.link,
            }),
        })
    }

    /// Where the page is.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn page_addr(&self) -> io::Result<SocketAddr> {
        self.page.local_addr()
    }

    /// Where OTLP over gRPC is taken.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn grpc_addr(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where OTLP over HTTP is taken, at `/v1/traces`.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn http_addr(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Serves until one of the listeners fails; drop the future to stop.
    ///
    /// # Errors
    /// A listener fails.
    pub async fn run(self) -> Result<(), ServeError> {
        let page = pages::router(self.shared.clone(), self.page.local_addr()?);
        let http = http::router(self.shared.clone(), self.http.local_addr()?);
        let settle = settle(self.shared.clone());
        tokio::select! {
            served = async { axum::serve(self.page, page).await } => Ok(served?),
            served = async { axum::serve(self.http, http).await } => Ok(served?),
            served = grpc::serve(self.grpc, self.shared.clone()) => Ok(served?),
            () = settle => Ok(()),
        }
    }
}

async fn bind(address: SocketAddr, what: &'static str, option: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { what, option, address, source })
}

/// Judges journeys that have gone silent, for as long as the server runs.
async fn settle(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        if shared.store.lock().settle(Instant::now()) {
            shared.version.send_modify(|version| *version += 1);
        }
    }
}
