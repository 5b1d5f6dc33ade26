//! The `journey` command, as a library: reading OTLP, checking it against the schema, reporting where requests spent
//! their time, and a live page.

pub mod check;
pub mod journey;
pub mod latency;
pub mod link;
pub mod model;
pub mod names;
pub mod read;
pub mod report;
pub mod serve;
pub mod time;
mod view;
