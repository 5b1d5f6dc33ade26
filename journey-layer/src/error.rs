//! One error type per boundary that can fail.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::stats::Reason;

/// What a flush or a shutdown could not deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The time ran out with spans still queued. They stay queued after a flush; after a shutdown they are counted
    /// as dropped (`shutdown`).
    #[error("{pending} spans were not delivered within {timeout:?}: {cause}")]
    Timeout {
        /// Spans not yet accounted for.
        pending: u64,
        /// The time that was given.
        timeout: Duration,
        /// What stood in the way, as far as it is known.
        cause: String,
    },
    /// Spans were lost since the last flush.
    #[error("{spans} spans were lost ({reason}): {message}")]
    Lost {
        /// Spans lost.
        spans: u64,
        /// Why, as counted in the ledger; the latest reason where there were several.
        reason: Reason,
        /// What the exporter said.
        message: String,
    },
    /// Every span was taken, but an exporter's own flush failed.
    #[error("an exporter could not be flushed: {message}")]
    Exporter {
        /// What the exporter said.
        message: String,
    },
}

/// Why a pipeline could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An OTLP setting that cannot work.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The file of [`Exporter::file`](crate::Exporter::file) cannot be written.
    #[error("cannot write journeys to {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory of [`Builder::spool`](crate::Builder::spool) cannot be used.
    #[error("cannot keep a spool in {directory}: {source}", directory = directory.display())]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A spool belongs to one OTLP exporter.
    #[error("a spool in {directory} needs exactly one OTLP exporter, and there are {exporters}", directory = directory.display())]
    SpoolExporters {
        /// The directory.
        directory: PathBuf,
        /// How many there are.
        exporters: usize,
    },
    /// An exporter could not be set up.
    #[error("cannot set an exporter up: {0}")]
    Exporter(String),
    /// A rate that is not a number from 0.0 to 1.0.
    #[error("{name} is {value}; write a number from 0.0 to 1.0")]
    Rate {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// The export thread could not be started.
    #[error("cannot start the export thread: {0}")]
    Thread(#[source] io::Error),
}

/// An OTLP setting that cannot work, with what to write in its place.
///
/// `setting` is the environment variable or the builder's method that holds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// No `http://` or `https://`.
    #[error("{setting} is `{value}`, without a scheme: write `http://{value}`, or `https://{value}` for TLS")]
    MissingScheme {
        /// Where it stands.
        setting: &'static str,
        /// What stands there.
        value: String,
    },
    /// Not a URL that names a host.
    #[error("{setting} is `{value}`: {problem}; write a URL such as `{example}`")]
    InvalidUrl {
        /// Where it stands.
        setting: &'static str,
        /// What stands there.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// One that would work.
        example: String,
    },
    /// The port of the other protocol.
    #[error(
        "{setting} is `{value}`, but port {port} is the one of OTLP over {its} and the protocol is {chosen}: write \
         `{instead}`, or set the protocol to {its}"
    )]
    WrongPort {
        /// Where it stands.
        setting: &'static str,
        /// What stands there.
        value: String,
        /// The port.
        port: u16,
        /// The protocol that the port belongs to.
        its: &'static str,
        /// The protocol that was chosen.
        chosen: &'static str,
        /// The URL with the port that fits.
        instead: String,
    },
    /// A path where there should be none, or the wrong one.
    #[error("{setting} is `{value}`: {problem}; write `{instead}`")]
    WrongPath {
        /// Where it stands.
        setting: &'static str,
        /// What stands there.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
        /// The URL that would work.
        instead: String,
    },
    /// `https://` in a build that cannot speak TLS.
    #[error(
        "{setting} is `{value}`, but TLS is not compiled in: enable the feature `tls` of journey-layer, or write `{instead}`"
    )]
    NoTls {
        /// Where it stands.
        setting: &'static str,
        /// What stands there.
        value: String,
        /// The URL without TLS.
        instead: String,
    },
    /// A protocol that does not exist, or is not compiled in.
    #[error("{setting} is `{value}`: {problem}; write `{instead}`")]
    Protocol {
        /// Where it stands.
        setting: &'static str,
        /// What stands there.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
        /// A protocol that would work.
        instead: &'static str,
    },
    /// A header that HTTP does not allow.
    #[error("{setting} has a header `{name}` that cannot be sent: {problem}")]
    Header {
        /// Where it stands.
        setting: &'static str,
        /// The header's name. Its value may be a secret.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A certificate or key that cannot be used.
    #[error("{setting} is `{path}`: {problem}", path = path.display())]
    Certificate {
        /// Where it stands.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why journeys could not be installed for the whole process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The pipeline could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Journeys are installed already, with other settings. They go on working.
    #[error(
        "journeys are installed already and go to {installed}; a second installation that goes to {refused} was \
         refused, because it differs in {difference}: use the handle of the first"
    )]
    Conflict {
        /// Where journeys go.
        installed: String,
        /// Where they would have gone.
        refused: String,
        /// The first setting in which the two differ.
        difference: &'static str,
    },
    /// The installed pipeline was shut down; a process has one global subscriber, once.
    #[error("journeys were installed and have been shut down: keep the first handle until the process ends")]
    ShutDown,
    /// The process has a global subscriber that is not ours.
    #[error(
        "a global tracing subscriber is set already: build with `Journey::builder().build()` and add \
         `.with(journey.layer())` to its registry"
    )]
    SubscriberSet,
    /// An exporter installs journeys while it is started for the journeys that are being installed.
    #[error("an exporter that is being started installs journeys: install them in `main`, and give it the handle")]
    Exporter,
}
