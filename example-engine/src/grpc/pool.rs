//! Several cores behind one API: the least loaded gets the next sequence.

use std::sync::Arc;
use std::time::Duration;

use journey_layer::tracing::{info, warn};
use tonic::transport::ClientTlsConfig;

use super::remote::{RemoteCore, RemoteOutputs, Untaken};
use crate::engine::{EngineCoreRequest, EngineError, SchedulerStats};

/// How often each core is asked how it is: how soon one that returned is used again.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// The cores of an API. A clone is another handle to the same cores.
#[derive(Clone, Debug)]
pub struct CorePool {
    cores: Arc<Vec<Arc<RemoteCore>>>,
}

/// Why a pool cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not a URL.
    #[error("`{url}` is not the URL of a core, such as http://127.0.0.1:9000: {error}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        error: String,
    },
    /// TLS, and no authority to tell the right core by.
    #[error("`{url}` needs `--core-ca FILE`: the certificate of the authority that the core's own is from")]
    NoAuthority {
        /// What was given.
        url: String,
    },
    /// Certificates, and a URL that would have no use for them.
    #[error("`{url}` would be spoken to without TLS, though `--core-ca` is given; write https://")]
    Plaintext {
        /// What was given.
        url: String,
    },
    /// No core.
    #[error("no core was given")]
    Empty,
}

/// Adds up field by field.
pub(super) trait Sum {
    fn add(&mut self, other: &Self);
}

impl CorePool {
    /// A pool of the cores at `urls`: all by TLS with the settings of [`tls::client`](super::tls::client), or without them none.
    /// They need not be up: from now on they are asked, and used when they are. Must be called inside a runtime; the asking
    /// ends with the last handle.
    ///
    /// # Errors
    /// No URL, one that is none, or one whose scheme does not go with `tls`.
    pub fn connect(urls: &[String], tls: Option<&ClientTlsConfig>) -> Result<Self, PoolError> {
        if urls.is_empty() {
            return Err(PoolError::Empty);
        }
        let core = |url: &String| match (RemoteCore::is_https(url), tls) {
            (Ok(true), None) => Err(PoolError::NoAuthority { url: url.clone() }),
            (Ok(false), Some(_)) => Err(PoolError::Plaintext { url: url.clone() }),
            (Ok(_), _) => {
                let core = RemoteCore::new(url, tls)
                    .map_err(|error| PoolError::Url { url: url.clone(), error: error.to_string() });
                core.map(Arc::new)
            }
            (Err(error), _) => Err(PoolError::Url { url: url.clone(), error }),
        };
        let cores = Arc::new(urls.iter().map(core).collect::<Result<Vec<_>, _>>()?);
        for core in cores.iter() {
            tokio::spawn(watch(Arc::downgrade(&cores), core.clone()));
        }
        Ok(Self { cores })
    }

    /// Hands a sequence to the least loaded core that takes it.
    ///
    /// # Errors
    /// What the last core that was asked said.
    pub async fn add_request(&self, mut request: EngineCoreRequest) -> Result<RemoteOutputs, EngineError> {
        let mut cores: Vec<_> = self.cores.iter().collect();
        // Those that are down come last: one may be back since it was last asked.
        cores.sort_by_cached_key(|core| (!core.is_up(), core.load()));
        let mut error = EngineError::Dead("there is no core".to_owned());
        for core in cores {
            error = match core.add_request(request.clone()).await {
                Ok(outputs) => return Ok(outputs),
                Err(Untaken::Unreachable(how)) => {
                    // It may have taken the sequence and died before it could say so: the next try is another one.
                    if let Some((base, _)) = request.request_id.rsplit_once('-') {
                        request.request_id = format!("{base}-{:08x}", rand::random::<u32>());
                    }
                    EngineError::Dead(how)
                }
                Err(Untaken::Refused(why)) if why.is_never() || matches!(why, EngineError::Invalid(_)) => {
                    return Err(why);
                }
                Err(Untaken::Refused(why)) => why,
            };
        }
        Err(error)
    }

    /// Gauges and counters of the cores that are up, added up.
    pub fn stats(&self) -> SchedulerStats {
        let mut sum = SchedulerStats::default();
        self.cores.iter().filter(|core| core.is_up()).for_each(|core| sum.add(&core.stats()));
        sum
    }

    /// Cores that are up.
    pub fn num_up(&self) -> usize {
        self.cores.iter().filter(|core| core.is_up()).count()
    }

    /// Whether any core is up.
    ///
    /// # Errors
    /// None is.
    pub fn health(&self) -> Result<(), EngineError> {
        match self.num_up() {
            0 => Err(EngineError::Dead(format!("none of {} cores is up", self.cores.len()))),
            _ => Ok(()),
        }
    }
}

async fn watch(pool: std::sync::Weak<Vec<Arc<RemoteCore>>>, core: Arc<RemoteCore>) {
    let mut was_up = None;
    while pool.strong_count() > 0 {
        let probe = core.probe().await;
        if was_up.replace(probe.is_ok()) != Some(probe.is_ok()) {
            match probe {
                Ok(()) => info!("core {} is up", core.url()),
                Err(error) => warn!("core {} is down: {error}", core.url()),
            }
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}
