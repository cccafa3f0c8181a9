//! `grpc`: the health checking protocol, `grpc.health.v1.Health/Check`.
//!
//! Its one request and one response are a field each, so they are encoded here, on HTTP/2 without TLS.
//!
//! A connection that is refused fails at once and says so, where the kubelet tries again until its timeout
//! and then tells of that.

use std::io;

use coracle_model::Grpc;
use futures_util::FutureExt;
use h2::client;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use self::status::{Code, Status};
use super::http::beside;
use super::{Limit, Outcome, dial};
use crate::KUBERNETES_VERSION;
use crate::error::Error;
use crate::node::{Node, OUTPUT_LIMIT, Target};
use crate::words;

mod message;
mod status;

const PATH: &str = "/grpc.health.v1.Health/Check";

pub(super) async fn check<N: Node>(node: &N, target: &Target, spec: &Grpc, limit: Limit) -> Outcome {
    let host = dial::host(node, target, None);
    let address = dial::join(host.as_deref(), spec.port);
    let timeout = words::duration(limit.timeout);
    let stream = match timeout_at(limit.deadline, dial::connect(node, target, host.as_deref(), spec.port))
        .await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let message = format!("error: failed to connect service at {address:?}: {error}");
            return Outcome::Failure(message);
        }
        Err(_) => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {timeout}: context deadline exceeded"
            ));
        }
    };
    let status = match timeout_at(limit.deadline, call(stream, &address, &spec.service, limit)).await {
        Ok(Ok(message::SERVING)) => return Outcome::Success,
        Ok(Ok(other)) => {
            return Outcome::Failure(format!(
                "service unhealthy (responded with {:?})",
                message::serving_status(other)
            ));
        }
        Ok(Err(status)) => status,
        Err(_) => Status::new(Code::DeadlineExceeded, "context deadline exceeded"),
    };
    Outcome::Failure(match status.code {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message
        ),
        Code::DeadlineExceeded => format!("timeout: health rpc did not complete within {timeout}"),
        code => {
            format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {}", status.message)
        }
    })
}

/// Asks for a service's health; the `ServingStatus` of the response.
async fn call(stream: TcpStream, address: &str, service: &str, limit: Limit) -> Result<u64, Status> {
    let (sender, connection) = client::handshake(stream).await.map_err(broken)?;
    let mut connection = Box::pin(connection.fuse());
    let rpc = async {
        let request = request(address, limit)?;
        let mut sender = sender.ready().await.map_err(broken)?;
        let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
        body.send_data(Bytes::from(message::request(service)), true).map_err(broken)?;
        let response = response.await.map_err(broken)?;
        let (head, mut body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(Status::of_http(head.status));
        }
        // A response without a message has the trailers for its headers.
        if let Some(status) = Status::of_trailers(&head.headers) {
            return Err(status.or_internal("a response without a message"));
        }
        if !is_grpc(&head.headers) {
            let what = head.headers.get(header::CONTENT_TYPE);
            let message = format!(
                "unexpected content-type {:?}",
                what.map(|value| value.as_bytes().escape_ascii().to_string())
            );
            return Err(Status::new(Code::Unknown, message));
        }
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            body.flow_control().release_capacity(data.len()).map_err(broken)?;
            if bytes.len() + data.len() > OUTPUT_LIMIT {
                return Err(Status::new(Code::ResourceExhausted, "received message larger than max"));
            }
            bytes.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.map_err(broken)?;
        match trailers.as_ref().and_then(Status::of_trailers) {
            Some(status) if status.code != Code::Ok => Err(status),
            Some(_) => message::response(&bytes),
            None => Err(Status::new(Code::Internal, "server closed the stream without sending trailers")),
        }
    };
    beside(&mut connection, rpc).await
}

fn request(address: &str, limit: Limit) -> Result<Request<()>, Status> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}{PATH}"))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, format!("kube-probe/{KUBERNETES_VERSION}"))
        .header("grpc-timeout", format!("{}m", limit.timeout.as_millis().min(99_999_999)))
        .body(())
        .map_err(|error| Status::new(Code::Internal, error.to_string()))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A connection that does not work.
fn broken(error: h2::Error) -> Status {
    let error = match error.get_io() {
        Some(io) if io.kind() == io::ErrorKind::UnexpectedEof || io.kind() == io::ErrorKind::BrokenPipe => {
            Error::Closed
        }
        _ => Error::Http2(error),
    };
    Status::new(Code::Unavailable, error.to_string())
}
