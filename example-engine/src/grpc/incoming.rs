//! Connections to a core's port: bounded in number, and closed when nothing comes from them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream::unfold;
use journey_layer::tracing::{debug, warn};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use crate::server::ACCEPT_RETRY;

/// Connections at a time; more wait to be accepted. An API needs one.
const MAX_CONNECTIONS: usize = 256;

/// A connection that fails when nothing was read for too long: before its first byte, in a handshake, or later.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    limit: Duration,
    silence: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

/// The connections that `listener` accepts; each may be silent for `limit`.
pub(super) fn incoming(listener: TcpListener, limit: Duration) -> impl Stream<Item = io::Result<Connection>> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    unfold((listener, slots), move |(listener, slots)| async move {
        let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    warn!("a connection was not accepted: {error}");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!("a connection without TCP_NODELAY: {error}");
        }
        let connection = Connection { stream, limit, silence: Box::pin(sleep(limit)), _slot: slot };
        Some((Ok(connection), (listener, slots)))
    })
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, limit, silence, .. } = &mut *self;
        if let Poll::Ready(result) = Pin::new(stream).poll_read(cx, buffer) {
            silence.as_mut().reset(Instant::now() + *limit);
            return Poll::Ready(result);
        }
        silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn who_says_nothing_is_closed_and_who_says_something_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = pin!(incoming(listener, LIMIT));
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut connection = incoming.next().await.unwrap().unwrap();
        for _ in 0..6 {
            tokio::time::sleep(LIMIT / 4).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(connection.read_u8().await.unwrap(), b'x');
        }
        let silence = tokio::time::Instant::now();
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(silence.elapsed() >= LIMIT / 2);
    }
}
