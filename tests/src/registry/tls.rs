//! A certificate authority of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{DEFAULT_VERSIONS, RootCertStore, ServerConfig};

/// Makes certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, of a server or a client.
pub struct Certificate {
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// Whose certificates a client must show; `None` for nobody's.
    clients: Option<Vec<u8>>,
}

// === impl Authority ===

impl Authority {
    /// One that nobody trusts yet, with a name that no other has.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("test authority {number}"));
        let key = KeyPair::generate().expect("a key can be made");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate can be made"))
    }

    /// A certificate for host names and addresses, or of a client.
    pub fn certificate(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate().expect("a key can be made");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("the names are names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate can be made");
        Certificate { certificate: certificate.der().to_vec(), key: key.serialize_der(), clients: None }
    }

    /// The root, in PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    /// The root, in DER.
    pub fn der(&self) -> &[u8] {
        self.0.der()
    }

    /// Writes the root into a file.
    pub fn write(&self, path: &Path) {
        fs::write(path, self.pem()).expect("the directory is writable");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Certificate ===

impl Certificate {
    /// As a server's, which wants clients to show one of this authority's.
    pub fn wanting_clients_of(self, authority: &Authority) -> Self {
        Self { clients: Some(authority.0.der().to_vec()), ..self }
    }

    /// Writes certificate and key, in PEM, as `<name>.cert` and `<name>.key`.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) =
            (directory.join(format!("{name}.cert")), directory.join(format!("{name}.key")));
        fs::write(&certificate, pem("CERTIFICATE", &self.certificate)).expect("the directory is writable");
        fs::write(&key, pem("PRIVATE KEY", &self.key)).expect("the directory is writable");
        (certificate, key)
    }

    /// The certificate, in DER.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// The key, in DER (PKCS #8).
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(DEFAULT_VERSIONS)
            .expect("ring knows the default versions");
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(root.clone())).expect("it is a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("there is a root"))
            }
        };
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("it is a key");
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        Arc::new(builder.with_single_cert(chain, key).expect("the key is the certificate's"))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
