//! TLS over both protocols, with an authority and a client certificate of our own. Needs the feature `tls`.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

mod pipeline_support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use journey_layer::{Exporter, Journey, Protocol};
use pipeline_support::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

/// An authority, and a folder with its certificate and a client's as PEM files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let authority = Self { issuer, folder };
        let (client, key) = authority.issue("client");
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        fs::write(authority.path("client.pem"), client.pem()).unwrap();
        fs::write(authority.path("client.key"), key.serialize_pem()).unwrap();
        authority
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Ends TLS at a port of its own, asks for a client certificate, and passes the bytes on to `behind`.
    fn terminate(&self, behind: SocketAddr, protocol: Protocol) -> (SocketAddr, tokio::runtime::Runtime) {
        let (certificate, key) = self.issue("localhost");
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        if protocol == Protocol::Grpc {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = tokio::net::TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        (address, runtime)
    }
}

fn journey(address: SocketAddr, protocol: Protocol, files: [(&'static str, &Path); 3]) -> Journey {
    let files = files.map(|(name, path)| (name, path.to_str().unwrap().to_owned()));
    let environment = move |name: &str| {
        let name = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
        files.iter().find(|(key, _)| *key == name).map(|(_, path)| path.clone())
    };
    let exporter = Exporter::otlp().protocol(protocol).endpoint(format!("https://localhost:{}", address.port()));
    Journey::builder().environment(environment).exporter(exporter).build().unwrap()
}

#[test]
fn journeys_arrive_over_tls_with_a_private_authority_and_a_client_certificate() {
    let authority = Authority::new();
    let (ca, client, key) = (authority.path("ca.pem"), authority.path("client.pem"), authority.path("client.key"));
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let (address, _runtime) = authority.terminate(receiver.address, protocol);
        let files = [("CERTIFICATE", &*ca), ("CLIENT_CERTIFICATE", &*client), ("CLIENT_KEY", &*key)];
        let journey = journey(address, protocol, files);
        journeys(&journey, 1);
        journey.flush(LONG).unwrap();
        assert_eq!(receiver.spans().len(), 2);
    }
}

#[test]
fn a_receiver_that_the_authority_does_not_vouch_for_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (ca, client, key) = (other.path("ca.pem"), authority.path("client.pem"), authority.path("client.key"));
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol);
        let (address, _runtime) = authority.terminate(receiver.address, protocol);
        let files = [("CERTIFICATE", &*ca), ("CLIENT_CERTIFICATE", &*client), ("CLIENT_KEY", &*key)];
        let journey = journey(address, protocol, files);
        journeys(&journey, 1);
        wait_until("the cause is named", || {
            let error = journey.flush(SECOND / 4).unwrap_err().to_string();
            error.contains("certificate") || error.contains("UnknownIssuer")
        });
        assert_eq!((receiver.spans().len(), journey.stats().spans.live), (0, 2));
        journey.shutdown(SECOND / 10).unwrap_err();
    }
}

#[test]
fn a_certificate_that_cannot_be_read_is_an_error_at_the_start() {
    for protocol in PROTOCOLS {
        let exporter = Exporter::otlp().protocol(protocol).endpoint("https://localhost:1");
        let variables = &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file.pem")];
        let error = builder_in(variables).exporter(exporter).build().unwrap_err().to_string();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE is `/no/such/file.pem`: "), "{error}");
    }
}
