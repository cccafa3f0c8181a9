//! TLS: whom to believe, and what to show.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore};

use crate::Error;
use crate::identity::{Identities, Unverified};

/// Whom a host's certificate may be from, and what the host is shown. `Default` is the system's root certificates, and
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trust {
    /// Files of root certificates in PEM, beside the system's.
    pub roots: Vec<PathBuf>,
    /// What the host may be shown, when it asks.
    pub identities: Vec<Identity>,
    /// Believes whatever certificate there is.
    pub skip_verify: bool,
}

/// What connections are made with.
#[derive(Clone)]
struct Made {
    connector: TlsConnector,
    /// Why there is nobody to believe. That is no fault of a host that shows no certificate, as one that speaks no TLS.
    no_roots: Option<Arc<str>>,
}

/// A client's certificate and its key, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// Its key; `None` where it is in the certificate's file.
    pub key: Option<PathBuf>,
}

/// Makes TLS connections. Files are read when the first is made, and again after one has failed: they may have been
/// renewed.
pub struct Tls {
    trust: Trust,
    made: Mutex<Option<Made>>,
    /// Tells connections that may not stand in for each other.
    id: u64,
}

// === impl Tls ===

impl Tls {
    /// Connections that trust so.
    pub fn new(trust: Trust) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { trust, made: Mutex::default(), id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whom they trust.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Agrees on TLS with a host.
    pub(crate) async fn connect<S>(&self, stream: S, host: &str) -> Result<TlsStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::ServerName(host.to_owned()))?;
        let made = self.lock().clone();
        let Made { connector, no_roots } = match made {
            Some(made) => made,
            None => self.make().await?,
        };
        let connected = connector.connect(name, stream).await;
        connected.map_err(|source| {
            *self.lock() = None;
            match no_roots {
                Some(why) if is_of_certificate(&source) => Error::Roots(why.to_string()),
                _ => Error::Tls { host: host.to_owned(), source },
            }
        })
    }

    async fn make(&self) -> Result<Made, Error> {
        let trust = self.trust.clone();
        let made = spawn_blocking(move || make(&trust)).await;
        let made = made.map_err(|error| Error::Roots(format!(" ({error})")))??;
        *self.lock() = Some(made.clone());
        Ok(made)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new(Trust::default())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// Whether a handshake has failed because of whom the host's certificate is from.
fn is_of_certificate(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    matches!(source, Some(tokio_rustls::rustls::Error::InvalidCertificate(_)))
}

fn make(trust: &Trust) -> Result<Made, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .map_err(Error::TlsSetup)?;
    let mut no_roots = None;
    let builder = match trust.skip_verify {
        true => {
            let unverified = Arc::new(Unverified::new(Arc::clone(&provider)));
            builder.dangerous().with_custom_certificate_verifier(unverified)
        }
        false => {
            let (roots, errors) = roots(&trust.roots)?;
            no_roots = roots.is_empty().then(|| errors.into());
            builder.with_root_certificates(roots)
        }
    };
    let config = match trust.identities.as_slice() {
        [] => builder.with_no_client_auth(),
        identities => builder.with_client_cert_resolver(Arc::new(Identities::read(identities, &provider)?)),
    };
    Ok(Made { connector: TlsConnector::from(Arc::new(config)), no_roots })
}

/// The system's, where OpenSSL would look for them, and those of these files. Those of the system's that rustls
/// cannot read are left out, as everywhere: a system has hundreds. Whoever names a file means it. Beside them what went
/// wrong with the system's.
fn roots(files: &[PathBuf]) -> Result<(RootCertStore, String), Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    for file in files {
        for certificate in certificates(file)? {
            let unusable = |error: tokio_rustls::rustls::Error| Error::TlsFile {
                path: file.clone(),
                reason: error.to_string(),
            };
            roots.add(certificate).map_err(unusable)?;
        }
    }
    Ok((roots, found.errors.iter().map(|why| format!(" ({why})")).collect()))
}

/// The certificates of a file in PEM, of which there must be one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |reason: String| Error::TlsFile { path: path.to_owned(), reason };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all.map_err(|error| failed(error.to_string()))? {
        none if none.is_empty() => Err(failed("it holds no certificate in PEM".to_owned())),
        all => Ok(all),
    }
}

/// What TLS is computed with.
pub(crate) type Provider = Arc<CryptoProvider>;
