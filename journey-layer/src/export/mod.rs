//! From finished records to exporters, on threads of our own.

mod backoff;
pub(crate) mod batch;
pub(crate) mod console;
pub(crate) mod convert;
pub(crate) mod exporter;
pub(crate) mod file;
mod json;
mod lane;
mod local;
pub(crate) mod memory;
pub(crate) mod notices;
pub(crate) mod otlp;
mod packed;
pub(crate) mod processor;
pub(crate) mod raw;
pub(crate) mod request;
pub(crate) mod sink;
pub(crate) mod spool;
mod tree;
pub(crate) mod worker;

pub use console::Console;
pub use convert::Semconv;
pub use exporter::Exporter;
pub use file::File;
pub use memory::Memory;
pub use otlp::{Otlp, Protocol};
pub use processor::Tallied;
