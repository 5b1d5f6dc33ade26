//! Certificates for the way between API and core: read, and checked while there is somebody to tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as RustlsError, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// A peer that is slower with its side of the handshake is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A PEM file that cannot be used, by its name.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It has nothing of what it is for.
    #[error("{}: no {what} in PEM form{}", path.display(), error.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What is wrong with its form, if it has any.
        error: Option<pem::Error>,
    },
    /// It is not one of an authority.
    #[error("{}: not the certificate of an authority: {error}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        error: RustlsError,
    },
    /// Certificate and key are not a pair.
    #[error("{} is not the key of {}: {error}", key.display(), cert.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        error: RustlsError,
    },
}

/// Settings for TLS on a core's port.
///
/// # Errors
/// A file cannot be used. With `client_ca` only clients with a certificate of that authority get in.
pub fn server(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerTlsConfig, TlsError> {
    // tonic's server takes the process's provider, and another crate may have compiled in a second one. An error says that
    // there is one already, which will do.
    let _ = ring::default_provider().install_default();
    let config = ServerTlsConfig::new().timeout(HANDSHAKE_TIMEOUT).identity(identity(cert, key)?);
    Ok(match client_ca {
        Some(path) => config.client_ca_root(authority(path)?),
        None => config,
    })
}

/// Settings for TLS towards cores that have a certificate of the authority `ca`, with a certificate and key of one's own
/// where they ask for that.
///
/// # Errors
/// A file cannot be used.
pub fn client(ca: &Path, own: Option<(&Path, &Path)>) -> Result<ClientTlsConfig, TlsError> {
    let config = ClientTlsConfig::new().timeout(HANDSHAKE_TIMEOUT).ca_certificate(authority(ca)?);
    Ok(match own {
        Some((cert, key)) => config.identity(identity(cert, key)?),
        None => config,
    })
}

fn authority(path: &Path) -> Result<Certificate, TlsError> {
    let pem = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &pem)? {
        roots.add(certificate).map_err(|error| TlsError::Authority { path: path.to_owned(), error })?;
    }
    Ok(Certificate::from_pem(pem))
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, TlsError> {
    let (cert_pem, key_pem) = (read(cert)?, read(key)?);
    let chain = certificates(cert, &cert_pem)?;
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| TlsError::Pem {
        path: key.to_owned(),
        what: "private key",
        error: malformed(error),
    })?;
    let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
    CertifiedKey::from_der(chain, private, &provider).map_err(|error| TlsError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        error,
    })?;
    Ok(Identity::from_pem(cert_pem, key_pem))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |error| TlsError::Pem { path: path.to_owned(), what: "certificate", error };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| refuse(malformed(error)))?;
    if all.is_empty() { Err(refuse(None)) } else { Ok(all) }
}

/// That there is none is said already.
fn malformed(error: pem::Error) -> Option<pem::Error> {
    (!matches!(error, pem::Error::NoItemsFound)).then_some(error)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}
