//! TLS with whom the system trusts.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore};

use crate::Error;

/// Makes TLS connections. The root certificates are read when the first is made, and again after one has failed:
/// they may have been renewed.
#[derive(Default)]
pub(crate) struct Tls(Option<TlsConnector>);

// === impl Tls ===

impl Tls {
    /// Agrees on TLS with a host.
    pub(crate) async fn connect<S>(&mut self, stream: S, host: &str) -> Result<TlsStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::ServerName(host.to_owned()))?;
        let connector = match &self.0 {
            Some(connector) => connector.clone(),
            None => self.0.insert(connector().await?).clone(),
        };
        let connected = connector.connect(name, stream).await;
        connected.map_err(|source| {
            self.0 = None;
            Error::Tls { host: host.to_owned(), source }
        })
    }
}

async fn connector() -> Result<TlsConnector, Error> {
    let roots = spawn_blocking(roots).await.map_err(|error| Error::Roots(format!(" ({error})")))??;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .map_err(Error::TlsSetup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The system's, where OpenSSL would look for them. Those among them that rustls cannot read are left out, as
/// everywhere: a system has hundreds.
fn roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::Roots(why.into_iter().map(|why| format!(" ({why})")).collect()));
    }
    Ok(roots)
}
