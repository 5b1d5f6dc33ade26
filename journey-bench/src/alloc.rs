//! Counts allocations, while it is told to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// The system's allocator with a counter. Switched off it costs one load of a flag that nobody writes.
pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static MINE: Cell<u64> = const { Cell::new(0) };
}

/// Allocations since the counting began.
#[derive(Clone, Copy, Debug)]
pub struct Allocations {
    /// Of all threads.
    pub process: u64,
    /// Of the calling thread.
    pub thread: u64,
    /// Bytes taken less bytes given back, of all threads.
    pub bytes: i64,
}

/// Switches the counting on or off.
pub fn count(on: bool) {
    ON.store(on, Relaxed);
}

/// What was counted so far.
pub fn counted() -> Allocations {
    Allocations { process: COUNT.load(Relaxed), thread: MINE.get(), bytes: BYTES.load(Relaxed) }
}

fn took(bytes: usize) {
    if ON.load(Relaxed) {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as i64, Relaxed);
        // A thread that is being torn down is nobody's producer.
        let _ = MINE.try_with(|mine| mine.set(mine.get() + 1));
    }
}

fn gave(bytes: usize) {
    if ON.load(Relaxed) {
        BYTES.fetch_sub(bytes as i64, Relaxed);
    }
}

// SAFETY: every call is handed to `System` as it came, and what it returns is returned; the counters beside it neither
// allocate nor unwind.
#[allow(unsafe_code, reason = "a global allocator cannot be written without; it only counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
