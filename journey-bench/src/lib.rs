//! The stacks, the work they are given, and how it is measured. `docs/performance.md` has the results.

pub mod alloc;
pub mod census;
pub mod cpu;
pub mod work;
