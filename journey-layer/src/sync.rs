//! What threads share is guarded by these: locks and counters, in whose place a model checker puts its own.

#[cfg(feature = "__model")]
pub(crate) use model::Mutex;
#[cfg(not(feature = "__model"))]
pub(crate) use parking_lot::Mutex;
#[cfg(feature = "__model")]
pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
#[cfg(not(feature = "__model"))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};

#[cfg(feature = "__model")]
mod model {
    use shuttle::sync::MutexGuard;

    /// Shuttle's lock, in the shape of parking_lot's.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a lock is not held across a panic")
        }
    }
}
