//! A client's side of a unix socket.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::ConnectError;

/// How much a server may send of one answer that nobody has read yet, in octets (HTTP/2's own start value): whoever reads no
/// further has the server wait, and finds little that is old when it reads on.
const WINDOW: u32 = (1 << 16) - 1;

/// Connects to the socket at `path`.
///
/// # Errors
/// Nobody listens there, or not `within` the time given.
pub async fn connect(path: &Path, within: Duration) -> Result<Channel, ConnectError> {
    let socket = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is not used, but for `:authority`: what grpc-go and gRPC's core send on a unix socket.
    let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(WINDOW);
    match time::timeout(within, endpoint.connect_with_connector(connector)).await {
        Ok(connected) => {
            connected.map_err(|error| ConnectError::Refused { path: path.to_owned(), reason: causes(&error) })
        }
        Err(_) => Err(ConnectError::Late { path: path.to_owned(), within }),
    }
}

/// One call that must have been answered `within` the time given, which the server is told as well.
///
/// # Errors
/// What the server answers, or `DEADLINE_EXCEEDED`.
pub async fn call<M, A, F>(
    within: Duration,
    message: M,
    call: impl FnOnce(Request<M>) -> F,
) -> Result<A, Status>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(within);
    let late = || Status::new(Code::DeadlineExceeded, format!("no answer within {within:?}"));
    match time::timeout(within, call(request)).await {
        // What tonic makes of its own clock.
        Ok(Err(status)) if status.code() == Code::Cancelled && status.message() == "Timeout expired" => {
            Err(late())
        }
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(late()),
    }
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
