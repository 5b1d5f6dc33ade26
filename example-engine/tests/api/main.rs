//! The API over real HTTP and gRPC, in this process and in others, and the journeys that its requests leave.

mod adversarial;
mod cancellation;
mod completions;
mod disconnect;
mod errors;
mod processes;
mod proto;
mod remote;
mod schema;
mod shutdown;
mod support;
mod tls;
mod trust;
