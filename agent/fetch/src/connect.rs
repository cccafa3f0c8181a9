//! Connections: to the host itself or by a proxy, in TLS or without.

use std::io;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exchange::{driven, empty};
use crate::proxy::{Proxies, Proxy};
use crate::tls::Tls;
use crate::{Address, Error};

/// How long one of several addresses of a host may take to accept a connection. One that nobody has is asked for
/// minutes else.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(2);

/// A connection, whatever it goes through.
pub(crate) type Stream = Box<dyn Duplex>;

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection over which an address can be asked.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    /// A proxy reads the request: it is to name the address in full (RFC 9112, section 3.2.2), and to have this
    /// `Proxy-Authorization`.
    pub(crate) by_proxy: Option<Option<HeaderValue>>,
}

/// Connects to whoever answers for an address.
pub(crate) async fn connect(address: &Address, proxies: &Proxies, tls: &Tls) -> Result<Connected, Error> {
    let Some(proxy) = proxies.of(address)? else {
        let stream = encrypted(Box::new(tcp(address).await?), address, tls).await?;
        return Ok(Connected { stream, by_proxy: None });
    };
    let to_proxy = async { encrypted(Box::new(tcp(&proxy.address).await?), &proxy.address, tls).await };
    let to_proxy = to_proxy.await.map_err(|source| {
        let source = Box::new(source);
        Error::ProxyUnreached { proxy: proxy.address.authority(), source }
    })?;
    if !address.is_https() {
        return Ok(Connected { stream: to_proxy, by_proxy: Some(proxy.credentials) });
    }
    let through = tunnel(to_proxy, &proxy, address).await?;
    Ok(Connected { stream: encrypted(through, address, tls).await?, by_proxy: None })
}

async fn encrypted(stream: Stream, address: &Address, tls: &Tls) -> Result<Stream, Error> {
    match address.is_https() {
        true => Ok(Box::new(tls.connect(stream, address.host()).await?)),
        false => Ok(stream),
    }
}

/// Has a proxy connect to a host (RFC 9110, section 9.3.6).
async fn tunnel(to_proxy: Stream, proxy: &Proxy, address: &Address) -> Result<Stream, Error> {
    let target = address.host_and_port();
    let mut request = Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    if let Some(credentials) = &proxy.credentials {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(empty())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(to_proxy)).await?;
    let _driven = driven(connection.with_upgrades());
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        let (proxy, status) = (proxy.address.authority(), response.status());
        return Err(Error::ProxyRefused { proxy, host: target, status });
    }
    Ok(Box::new(TokioIo::new(hyper::upgrade::on(response).await?)))
}

/// Connects to the first of a host's addresses that accepts.
async fn tcp(address: &Address) -> Result<TcpStream, Error> {
    let (host, port) = (address.host(), address.port());
    let lookup = |source| Error::Lookup { host: host.to_owned(), source };
    let all = crate::lookup::lookup(host, port).await.map_err(lookup)?;
    let mut first_error = None;
    let mut left = all.len();
    for address in all {
        left -= 1;
        let connecting = TcpStream::connect(address);
        let connected = match left {
            0 => connecting.await,
            _ => timeout(ONE_OF_SEVERAL, connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(source) => first_error = first_error.or(Some(Error::Connect { address, source })),
        }
    }
    Err(first_error.unwrap_or_else(|| lookup(io::Error::other("it has no address"))))
}
