//! A wire that breaks: a TCP proxy between an exporter and its receiver.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the wire does to a connection that is made from now on, and to those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Lets everything through.
    Whole,
    /// Takes bytes, and never says anything.
    Silent,
    /// Closes after this many bytes of a request: in the middle of its body.
    CutRequest(usize),
    /// Lets the request through, and closes after this many bytes of the answer.
    CutAnswer(usize),
}

/// The proxy; it is gone when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<Mutex<Wire>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// A wire to `to`, whole at first.
    pub fn to(to: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let wire = Arc::new(Mutex::new(Wire::Whole));
        let shared = wire.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, to, shared.clone()));
            }
        });
        Self { address, wire, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens from now on.
    pub fn set(&self, wire: Wire) {
        *self.wire.lock().unwrap_or_else(PoisonError::into_inner) = wire;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn connect(client: TcpStream, to: SocketAddr, wire: Arc<Mutex<Wire>>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    // Nor does a wire hold small packets back: a window of HTTP/2 would wait 40 ms for each.
    for end in [&client, &server] {
        let _ = end.set_nodelay(true);
    }
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let now = || *wire.lock().unwrap_or_else(PoisonError::into_inner);
    let up = async {
        let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
        while let Ok(n) = client_reads.read(&mut buffer).await
            && n > 0
        {
            let n = match now() {
                Wire::Silent => continue,
                Wire::CutRequest(limit) if passed + n > limit => {
                    let _ = server_writes.write_all(&buffer[..limit.saturating_sub(passed)]).await;
                    return;
                }
                Wire::Whole | Wire::CutRequest(_) | Wire::CutAnswer(_) => n,
            };
            passed += n;
            if server_writes.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
        while let Ok(n) = server_reads.read(&mut buffer).await
            && n > 0
        {
            let n = match now() {
                Wire::Silent => continue,
                Wire::CutAnswer(limit) if passed + n > limit => {
                    let _ = client_writes.write_all(&buffer[..limit.saturating_sub(passed)]).await;
                    return;
                }
                Wire::Whole | Wire::CutRequest(_) | Wire::CutAnswer(_) => n,
            };
            passed += n;
            if client_writes.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    // Whoever ends first takes both directions with it.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
