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
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_keeps_its_thread_and_takes_no_other() {
        let encoders = Encoders(Arc::new(Semaphore::new(2)));
        let begun = Arc::<AtomicUsize>::default();
        let (let_go, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..20 {
            let (begun, held) = (begun.clone(), held.clone());
            let work = move || {
                begun.fetch_add(1, SeqCst);
                let _ = held.lock().map(|held| held.recv());
            };
            assert!(tokio::time::timeout(Duration::from_millis(5), encoders.run(work)).await.is_err());
        }
        drop(let_go);
        assert_eq!(encoders.run(|| 7).await, Some(7));
        assert_eq!(encoders.run(|| panic!("as the test wants it")).await, None::<()>);
        assert!(begun.load(SeqCst) <= 2, "{begun:?}");
    }
}
