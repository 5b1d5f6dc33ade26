//! `demo --view`: the page of `journey serve`, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use journey_cli::check::Dialects;
use journey_cli::serve::{Config, Limits, ServeError, Server};
use journey_layer::tracing::error;

/// The port of `journey serve`'s page.
const PAGE_PORT: u16 = 16687;

/// A running receiver with its page.
pub(super) struct View {
    /// Where the page is.
    pub page: String,
    /// Where OTLP/HTTP is taken.
    pub receiver: String,
}

impl View {
    /// Opens the page on its usual port of the loopback address, and a receiver on a free one.
    ///
    /// # Errors
    /// The page's port is taken: another `journey serve` may be running.
    pub(super) async fn open() -> Result<Self, ServeError> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Server::bind(Config {
            page: local(PAGE_PORT),
            grpc: local(0),
            http: local(0),
            limits: Limits { journeys: 10_000, bytes: 256 << 20, settle: Duration::from_secs(5) },
            dialects: Dialects::default(),
            link: None,
        })
        .await?;
        let view = Self {
            page: format!("http://{}/", server.page_addr()?),
            receiver: format!("http://{}", server.http_addr()?),
        };
        tokio::spawn(async {
            if let Err(failed) = server.run().await {
                error!("the page is gone: {failed}");
            }
        });
        Ok(view)
    }
}
