//! TLS: rustls with ring. The operating system's certificates, unless `OTEL_EXPORTER_OTLP_CERTIFICATE` names others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::settings::Certificates;
use crate::error::{BuildError, OtlpError};

#[cfg(feature = "otlp-http")]
pub(crate) fn client_config(files: &Certificates) -> Result<ClientConfig, BuildError> {
    let mut roots = RootCertStore::empty();
    match &files.authority {
        Some((setting, path)) => {
            let pem = read(setting, path)?;
            let added = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok)).0;
            if added == 0 {
                return Err(unusable(setting, path, "no certificate in it".into()));
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::Exporter(error.to_string()))?
        .with_root_certificates(roots);
    let Some(((setting, path), key)) = files.client.as_ref().zip(files.client_key.as_ref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(setting, path)?)
        .map(|certificate| certificate.map(CertificateDer::into_owned))
        .collect();
    let chain = chain.map_err(|error| unusable(setting, path, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key.0, &key.1)?)
        .map_err(|error| unusable(key.0, &key.1, error.to_string()))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(setting, path, error.to_string()))
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
    std::fs::read(path).map_err(|error| unusable(setting, path, error.to_string()))
}

fn unusable(setting: &'static str, path: &Path, problem: String) -> BuildError {
    OtlpError::Certificate { setting, path: PathBuf::from(path), problem }.into()
}
