//! One request and its answer.

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_ENCODING, TRANSFER_ENCODING};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use crate::Error;
use crate::connect::Stream;

/// An answer, whose body may still be on its way.
pub(crate) struct Exchange {
    pub(crate) response: Response<Incoming>,
    /// Reads the connection.
    _driven: AbortOnDropHandle<()>,
}

/// Asks over a connection that serves nothing else.
pub(crate) async fn ask(stream: Stream, request: Request<Full<Bytes>>) -> Result<Exchange, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driven = driven(connection);
    Ok(Exchange { response: sender.send_request(request).await?, _driven: driven })
}

/// Has a connection do its work until the handle is dropped. What ends it reaches whoever waits for an answer.
pub(crate) fn driven<E>(
    connection: impl Future<Output = Result<(), E>> + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }))
}

pub(crate) fn empty() -> Full<Bytes> {
    Full::default()
}

// === impl Exchange ===

impl Exchange {
    /// The whole body, which may have so many bytes.
    pub(crate) async fn body(self, limit: u64) -> Result<Vec<u8>, Error> {
        let Self { response, _driven } = self;
        let (head, mut body) = response.into_parts();
        whole(&head.headers, &mut body, limit).await
    }
}

/// The whole of a body, which may have so many bytes.
pub(crate) async fn whole(headers: &HeaderMap, body: &mut Incoming, limit: u64) -> Result<Vec<u8>, Error> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|value| *value != "identity") {
        return Err(Error::Encoding(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
    }
    match body.size_hint().exact() {
        Some(length) if length > limit => return Err(Error::TooLarge(limit)),
        None if !headers.contains_key(TRANSFER_ENCODING) => return Err(Error::NoLength),
        Some(_) | None => {}
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > limit {
            return Err(Error::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
