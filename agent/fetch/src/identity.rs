//! Certificates of clients, and servers that need not prove who they are.

use std::fs;
use std::sync::Arc;

use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{DigitallySignedStruct, Error as TlsError, SignatureScheme};

use crate::Error;
use crate::tls::{Identity, Provider, certificates};

/// What a server may be shown. It is chosen as Go's client does: the first that is from one of those whom the server
/// names.
#[derive(Debug)]
pub(crate) struct Identities(Vec<Arc<CertifiedKey>>);

/// Believes every certificate, and that whoever shows it has its key.
#[derive(Debug)]
pub(crate) struct Unverified(Provider);

// === impl Identities ===

impl Identities {
    pub(crate) fn read(identities: &[Identity], provider: &Provider) -> Result<Self, Error> {
        identities
            .iter()
            .map(|identity| read(identity, provider).map(Arc::new))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl ResolvesClientCert for Identities {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = |one: &&Arc<CertifiedKey>| {
            one.key.choose_scheme(schemes).is_some() && (issuers.is_empty() || is_from(&one.cert, issuers))
        };
        self.0.iter().find(usable).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Whether a chain names one of these issuers. Both are DER, of which equal names have equal bytes.
fn is_from(chain: &[CertificateDer<'_>], issuers: &[&[u8]]) -> bool {
    let names = |certificate: &CertificateDer<'_>, issuer: &[u8]| {
        !issuer.is_empty() && certificate.windows(issuer.len()).any(|window| window == issuer)
    };
    chain.iter().any(|certificate| issuers.iter().any(|issuer| names(certificate, issuer)))
}

fn read(identity: &Identity, provider: &Provider) -> Result<CertifiedKey, Error> {
    let chain = certificates(&identity.certificate)?;
    let path = identity.key.as_ref().unwrap_or(&identity.certificate);
    let failed = |reason: String| Error::TlsFile { path: path.clone(), reason };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    // What a PEM reader says of a key could show some of it.
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| failed("it holds no key in PEM".to_owned()))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| failed(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(TlsError::InconsistentKeys(tokio_rustls::rustls::InconsistentKeys::KeyMismatch)) => {
            Err(failed(format!("its key is not that of the certificate {}", identity.certificate.display())))
        }
        _ => Ok(certified),
    }
}

// === impl Unverified ===

impl Unverified {
    pub(crate) fn new(provider: Provider) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
