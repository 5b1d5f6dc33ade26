//! A connection whose client takes its answer too slowly is broken off.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How slow a client may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between one piece of an answer and the next.
    pub(super) piece: Duration,
    /// From a request to the end of its answer.
    pub(super) answer: Duration,
}

/// When the latest request of a connection came.
#[derive(Clone, Debug)]
pub(super) struct Asked(Arc<Mutex<Instant>>);

/// Fails a write that waits for a client beyond all patience: one that asks for much, and reads nothing or a little now and
/// then, would hold its connection, and what is generated for it, for as long as it likes.
#[derive(Debug)]
pub(super) struct Stall<S> {
    stream: S,
    patience: Patience,
    asked: Asked,
    /// Since when nothing could be written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Asked {
    /// A request comes now.
    pub(super) fn now(&self) {
        *self.0.lock() = Instant::now();
    }
}

impl<S: Unpin> Stall<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        Self { stream, patience, asked: Asked(Arc::new(Mutex::new(Instant::now()))), waiting: None }
    }

    /// To be told of each request.
    pub(super) fn asked(&self) -> Asked {
        self.asked.clone()
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = write(Pin::new(&mut self.stream), cx) {
            self.waiting = None;
            return Poll::Ready(result);
        }
        let left = self.patience.answer.saturating_sub(self.asked.0.lock().elapsed());
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.patience.piece.min(left))));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watch(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx, AsyncWrite::poll_shutdown)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Patience = Patience { piece: Duration::from_secs(20), answer: Duration::from_millis(300) };

    #[tokio::test]
    async fn a_client_that_takes_a_little_now_and_then_gets_until_its_time_is_over() {
        let (mut client, server) = duplex(64);
        let mut server = Stall::new(server, PATIENCE);
        let reading = tokio::spawn(async move {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        tokio::time::sleep(PATIENCE.answer).await;
        let asked = Instant::now();
        server.asked().now();
        let written = server.write_all(&[0; 100_000]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE.answer..PATIENCE.piece).contains(&asked.elapsed()), "{:?}", asked.elapsed());
        drop(server);
        reading.await.unwrap();
    }
}
