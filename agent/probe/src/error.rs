//! Why an attempt could not be made or found nothing good.

use std::io;
use std::net::SocketAddr;

use crate::words;

/// Why a target could not be asked, or did not answer as it should. Displayed as the kubelet says it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port was given by a name the container has no port of.
    #[error("port {0} not found: the container declares no port of that name")]
    UnknownPort(String),
    /// The host's name has no address.
    #[error("dial tcp: lookup {host}: {}", words::io_error(source))]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The connection was not made.
    #[error("dial tcp {address}: connect: {}", words::io_error(source))]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{}", words::io_error(.0))]
    Io(#[from] io::Error),
    /// A TLS connection was asked for where plain HTTP is spoken.
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainServer,
    /// TLS was not agreed on.
    #[error("tls: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// A name that TLS cannot ask for.
    #[error("tls: {0:?} is no host name")]
    ServerName(String),
    /// A header of the probe cannot be sent.
    #[error("net/http: invalid header field {0:?}")]
    Header(String),
    /// The address of the request cannot be made.
    #[error("parse {url:?}: {source}")]
    Url {
        /// What was made of the specification.
        url: String,
        /// What is wrong with it.
        source: hyper::http::Error,
    },
    /// The server closed the connection and said nothing.
    #[error("EOF")]
    Closed,
    /// What came is not HTTP.
    #[error("net/http: HTTP/1.x transport connection broken: {0}")]
    Http(hyper::Error),
    /// What came is not HTTP/2.
    #[error("http2: {0}")]
    Http2(#[from] h2::Error),
    /// Redirected further than is followed.
    #[error("stopped after 10 redirects")]
    TooManyRedirects,
}

// === impl Error ===

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        use std::error::Error as _;
        let broken = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        match broken {
            Some(broken) => match broken.raw_os_error() {
                Some(number) => Self::Io(io::Error::from_raw_os_error(number)),
                None => Self::Io(io::Error::new(broken.kind(), broken.to_string())),
            },
            // The connection ended between or within messages.
            None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => Self::Closed,
            None => Self::Http(error),
        }
    }
}
