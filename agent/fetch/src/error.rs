//! Why there is no answer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use tokio_rustls::rustls;

/// The step of [`Error::Slow`] that makes a connection.
pub(crate) const CONNECTING: &str = "accepted a connection";

/// Why an address cannot be asked, or has not answered. No message shows a header, a password or a query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no address that can be asked.
    #[error("must be an absolute http or https URL: {0}")]
    Address(String),
    /// No such header can be sent.
    #[error("header {name:?}: {reason}")]
    Header {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// An environment variable names a proxy that cannot be used.
    #[error("the environment variable {variable} names no proxy that can be used: {reason}")]
    Proxy {
        /// Which one.
        variable: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The host's addresses could not be found out.
    #[error("cannot look up {host}: {source}")]
    Lookup {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody could be connected to.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Whom.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The proxy itself could not be reached.
    #[error("the proxy {proxy}, which the environment names: {source}")]
    ProxyUnreached {
        /// The proxy.
        proxy: String,
        /// Why.
        source: Box<Error>,
    },
    /// The proxy does not connect to the host.
    #[error("the proxy {proxy} does not connect to {host}: {status}")]
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// To whom it was to connect.
        host: String,
        /// What it said.
        status: StatusCode,
    },
    /// There are no root certificates.
    #[error(
        "no root certificates are found on this system{0}: install them (ca-certificates), or name them with \
         SSL_CERT_FILE"
    )]
    Roots(String),
    /// A file of certificates or keys cannot be used.
    #[error("{}: {reason}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    TlsSetup(#[source] rustls::Error),
    /// A host's name cannot stand in a certificate.
    #[error("{0:?} cannot be the name of a TLS server")]
    ServerName(String),
    /// TLS could not be agreed on; the certificate may not be trusted.
    #[error("TLS with {host}: {source}")]
    Tls {
        /// With whom.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The request could not be made, or the answer not be read.
    #[error("{}", Chain(.0))]
    Http(#[from] hyper::Error),
    /// No request can be made of this.
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    /// A redirect leads where none is followed.
    #[error("is redirected (status {status}), {reason}")]
    Redirect {
        /// The status.
        status: StatusCode,
        /// Why it is not followed.
        reason: String,
    },
    /// The status is none that brings what was asked for.
    #[error("has answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// For how long it asks not to be asked again.
        retry_after: Option<Duration>,
    },
    /// One that is cut off would look like one that is complete.
    #[error(
        "has answered without telling the length of the answer, so that one that is cut off cannot be told"
    )]
    NoLength,
    /// The body is compressed, though that was not asked for.
    #[error("has answered with content encoding {0:?}, which was not asked for")]
    Encoding(String),
    /// The body is larger than it may be.
    #[error("has answered with more than {0} bytes")]
    TooLarge(u64),
    /// A step of a request has taken too long.
    #[error("has not {what} within {} s", wait.as_secs_f32())]
    Slow {
        /// The step, as a participle.
        what: &'static str,
        /// How long it might take.
        wait: Duration,
    },
    /// The answer was not complete in time.
    #[error("has not answered completely within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

/// An error of hyper's, whose message leaves out what it comes from.
struct Chain<'a>(&'a hyper::Error);

// === impl Error ===

impl Error {
    /// For how long whoever is asked wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the network, or who is asked, may do better another time.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Lookup { .. } | Self::Connect { .. } | Self::Slow { .. } | Self::Timeout(_) => true,
            Self::Tls { .. } => self.certificate().is_none(),
            Self::ProxyUnreached { source, .. } => source.is_passing(),
            Self::Http(error) => !error.is_parse() && !error.is_user() && !self.wants_certificate(),
            Self::ProxyRefused { status, .. } | Self::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// Whether not even a connection was made: who is asked may be down, or not be reached.
    pub fn is_unconnected(&self) -> bool {
        match self {
            Self::Lookup { .. } | Self::Connect { .. } | Self::Tls { .. } => true,
            Self::ProxyUnreached { .. } | Self::ProxyRefused { .. } => true,
            Self::Slow { what, .. } => *what == CONNECTING,
            _ => false,
        }
    }

    /// What is wrong with the certificate of who was asked.
    pub fn certificate(&self) -> Option<&rustls::CertificateError> {
        match self.tls()? {
            rustls::Error::InvalidCertificate(error) => Some(error),
            _ => None,
        }
    }

    /// Whether who was asked wants a certificate of whoever asks, or does not believe the one it was shown. With TLS 1.3 that
    /// is told only in the place of an answer.
    pub fn wants_certificate(&self) -> bool {
        use rustls::AlertDescription::{
            AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
            CertificateUnknown, UnknownCA, UnsupportedCertificate,
        };
        let alert = match self {
            Self::Http(error) => alert_beneath(error),
            _ => match self.tls() {
                Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
                _ => None,
            },
        };
        alert.is_some_and(|alert| {
            [
                AccessDenied,
                BadCertificate,
                CertificateExpired,
                CertificateRequired,
                CertificateRevoked,
                CertificateUnknown,
                UnknownCA,
                UnsupportedCertificate,
            ]
            .contains(&alert)
        })
    }

    /// Whether who was asked for TLS has answered with something else, or not at all.
    pub fn is_without_tls(&self) -> bool {
        let Self::Tls { source, .. } = self else { return false };
        let has_gone = matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        self.has_answered_without_tls() || (self.tls().is_none() && has_gone)
    }

    /// Whether who was asked for TLS has answered with something else.
    pub fn has_answered_without_tls(&self) -> bool {
        matches!(self.tls(), Some(rustls::Error::InvalidMessage(_)))
    }

    fn tls(&self) -> Option<&rustls::Error> {
        let Self::Tls { source, .. } = self else { return None };
        source.get_ref()?.downcast_ref()
    }
}

/// The alert of TLS that an error of HTTP comes from.
fn alert_beneath(error: &hyper::Error) -> Option<rustls::AlertDescription> {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && let Some(rustls::Error::AlertReceived(alert)) =
                error.get_ref().and_then(|error| error.downcast_ref())
        {
            return Some(*alert);
        }
        next = error.source();
    }
    None
}

// === impl Chain ===

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
