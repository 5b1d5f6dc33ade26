//! The stacks, the work they are given, and how it is measured. `docs/performance.md` has the results.
//!
//! ```text
//! driver ──commands──► one process a job ─► jobs ─► stacks ─► work, in the stack's own vocabulary
//!    │   ◄──replies──                                  │
//!    └─► sink (OTLP http/protobuf, another core) ◄─────┘
//! ```

pub mod alloc;
pub mod census;
pub mod child;
pub mod counter;
pub mod cpu;
pub mod driver;
pub mod error;
pub mod floor;
pub mod instructions;
pub mod jobs;
pub mod report;
pub mod sample;
pub mod sink;
pub mod stacks;
pub mod work;
