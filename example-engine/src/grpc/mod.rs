//! Two processes: the API here, engine cores elsewhere, gRPC between them, over TLS where one asks for it, with the carrier in
//! each request.

mod convert;
mod incoming;
mod pool;
mod remote;
mod service;
pub mod tls;

pub use pool::{CorePool, PoolError};
pub use remote::RemoteOutputs;
pub use service::serve_core;

/// The generated messages and service; see `proto/engine.proto`.
mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        reason = "generated code follows its generator's style"
    )]
    include!("generated/example_engine.v1.rs");
}
