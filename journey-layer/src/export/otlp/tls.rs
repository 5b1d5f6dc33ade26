//! TLS: rustls with ring. The operating system's certificates, unless `OTEL_EXPORTER_OTLP_CERTIFICATE` names others.

use std::path::{Path, PathBuf};

use super::settings::Certificates;
use crate::error::{BuildError, OtlpError};

#[cfg(feature = "otlp-http")]
pub(crate) fn client_config(files: &Certificates) -> Result<rustls::ClientConfig, BuildError> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore};

    let certificates = |setting, path: &Path| {
        let pem = read(setting, path)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err(unusable(setting, path, "no certificate in it")),
            other => other.map_err(|error| unusable(setting, path, error)),
        }
    };
    let mut roots = RootCertStore::empty();
    match &files.authority {
        Some((setting, path)) => {
            for certificate in certificates(setting, path)? {
                roots.add(certificate).map_err(|error| unusable(setting, path, error))?;
            }
        }
        // Some that the system has may be beyond rustls; a receiver that needs one of those is refused then.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    // Named, and not taken from the process: which provider is installed there is the application's choice.
    let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the safe default protocol versions")
        .with_root_certificates(roots);
    let Some(((setting, path), (key_setting, key_path))) = files.client.as_ref().zip(files.client_key.as_ref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_slice(&read(key_setting, key_path)?)
        .map_err(|error| unusable(key_setting, key_path, error))?;
    let chain = certificates(setting, path)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(setting, path, error))
}

#[cfg(feature = "otlp-grpc")]
pub(crate) fn tonic_config(files: &Certificates) -> Result<tonic::transport::ClientTlsConfig, BuildError> {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};

    let config = match &files.authority {
        Some((setting, path)) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(setting, path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match files.client.as_ref().zip(files.client_key.as_ref()) {
        Some((chain, key)) => config.identity(Identity::from_pem(read(chain.0, &chain.1)?, read(key.0, &key.1)?)),
        None => config,
    })
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|error| unusable(setting, path, error))
}

fn unusable(setting: &'static str, path: &Path, problem: impl ToString) -> BuildError {
    OtlpError::Certificate { setting, path: PathBuf::from(path), problem: problem.to_string() }.into()
}
