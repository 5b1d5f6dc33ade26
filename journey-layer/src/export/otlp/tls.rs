//! TLS: the operating system's certificates, unless `OTEL_EXPORTER_OTLP_CERTIFICATE` names others.

use std::path::{Path, PathBuf};

use super::settings::Certificates;
use crate::error::{BuildError, OtlpError};

#[cfg(feature = "otlp-http")]
pub(crate) fn with_certificates(
    mut client: reqwest::ClientBuilder,
    files: &Certificates,
) -> Result<reqwest::ClientBuilder, BuildError> {
    use reqwest::{Certificate, Identity};

    if let Some((setting, path)) = &files.authority {
        let certificates = Certificate::from_pem_bundle(&read(setting, path)?);
        let certificates = certificates.map_err(|error| unusable(setting, path, error))?;
        if certificates.is_empty() {
            return Err(unusable(setting, path, "no certificate in it"));
        }
        client = client.tls_certs_only(certificates);
    }
    if let Some(((setting, path), (key_setting, key_path))) = files.client.as_ref().zip(files.client_key.as_ref()) {
        let mut pem = read(setting, path)?;
        pem.push(b'\n');
        pem.extend(read(key_setting, key_path)?);
        client = client.identity(Identity::from_pem(&pem).map_err(|error| unusable(setting, path, error))?);
    }
    Ok(client)
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
