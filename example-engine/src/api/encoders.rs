//! Threads for long prompts: as many as there are processors, whoever waits for them.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

/// Bounds what is computed at a time. The tokenizer takes many times a text's size while it works, and does not stop when
/// the client is gone.
#[derive(Debug)]
pub(super) struct Encoders(Arc<Semaphore>);

impl Default for Encoders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))))
    }
}

impl Encoders {
    /// Runs `work` when its turn comes; dropped before, it never runs. `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = self.0.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        working.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_keeps_its_thread_and_takes_no_other() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let encoders = Encoders(Arc::new(Semaphore::new(2)));
        let work = || {
            MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            RUNNING.fetch_sub(1, SeqCst);
        };
        for _ in 0..20 {
            let abandoned = tokio::time::timeout(Duration::from_millis(1), encoders.run(work));
            assert!(abandoned.await.is_err());
        }
        assert_eq!(encoders.run(work).await, Some(()));
        assert_eq!(encoders.run(|| panic!("as the test wants it")).await, None::<()>);
        assert!(MOST.load(SeqCst) <= 2);
    }
}
