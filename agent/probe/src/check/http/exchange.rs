//! One request and its response, on a connection that serves no other.
//!
//! Nothing is spawned: the connection is driven by whoever waits for the response, so that it goes with
//! the probe that is given up.

use std::pin::{Pin, pin};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, FusedFuture};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::LOCATION;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;
use crate::node::OUTPUT_LIMIT;

/// What came back.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    /// [`OUTPUT_LIMIT`] bytes of it at most.
    pub(super) body: Vec<u8>,
}

/// A response whose body is still to be read.
pub(super) struct Head {
    status: u16,
    location: Option<String>,
    body: BoxFuture<'static, Result<Vec<u8>, Error>>,
}

// === impl Head ===

impl Head {
    fn new(
        status: u16,
        headers: &HeaderMap,
        body: impl Future<Output = Result<Vec<u8>, Error>> + Send + 'static,
    ) -> Self {
        let location =
            headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Self { status, location: location.filter(|location| !location.is_empty()), body: body.boxed() }
    }

    /// Reads the beginning of the body.
    pub(super) async fn response(self) -> Result<Response, Error> {
        let body = self.body.await?;
        Ok(Response { status: self.status, location: self.location, body })
    }
}

/// Asks by HTTP/1.1; returns with the head of the response.
pub(super) async fn http1<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Head, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    // Go's spelling; and a response is judged by its status, whatever else is wrong with it.
    builder.title_case_headers(true).ignore_invalid_headers_in_responses(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut connection = Box::pin(connection.fuse());
    let response = beside(&mut connection, sender.send_request(request)).await?;
    let (parts, mut body) = response.into_parts();
    let read = async move {
        let mut beginning = Vec::new();
        while beginning.len() < OUTPUT_LIMIT {
            match beside(&mut connection, body.frame()).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        append(&mut beginning, &data);
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => break,
            }
        }
        Ok(beginning)
    };
    Ok(Head::new(parts.status.as_u16(), &parts.headers, read))
}

/// Asks by HTTP/2; returns with the head of the response.
pub(super) async fn http2<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Head, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream).await?;
    let mut connection = Box::pin(connection.fuse());
    let ask = async {
        let (response, _) = sender.ready().await?.send_request(request.map(|_| ()), true)?;
        response.await
    };
    let response = beside(&mut connection, ask).await?;
    let (parts, mut body) = response.into_parts();
    let read = async move {
        let mut beginning = Vec::new();
        while beginning.len() < OUTPUT_LIMIT {
            let Some(data) = beside(&mut connection, body.data()).await else { break };
            let data = data?;
            append(&mut beginning, &data);
            body.flow_control().release_capacity(data.len())?;
        }
        Ok(beginning)
    };
    Ok(Head::new(parts.status.as_u16(), &parts.headers, read))
}

fn append(beginning: &mut Vec<u8>, data: &[u8]) {
    let room = OUTPUT_LIMIT - beginning.len();
    beginning.extend_from_slice(&data[..data.len().min(room)]);
}

/// Does some work on a connection while the connection is driven. What ends the connection reaches the work
/// as well, which says what it means.
pub(in crate::check) async fn beside<T>(
    connection: &mut (impl FusedFuture + Unpin),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if !connection.is_terminated() && Pin::new(&mut *connection).poll(cx).is_ready() {
            return work.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}
