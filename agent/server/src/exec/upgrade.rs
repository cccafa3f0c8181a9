//! The WebSocket handshake (RFC 6455, section 4), with the choice of Kubernetes' subprotocol.

use std::future::Future;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::Status;

/// The largest message taken. kubectl sends 32 KiB; other clients send what they are given at once.
const MAX_MESSAGE: usize = 4 << 20;

/// A version of Kubernetes' remote command protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `v4.channel.k8s.io`: standard input ends with the connection only.
    V4,
    /// `v5.channel.k8s.io`: standard input can be closed alone.
    V5,
}

/// A WebSocket, and what is spoken on it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<TokioIo<Upgraded>>,
    pub(crate) protocol: Protocol,
}

/// A valid request for a WebSocket.
#[derive(Debug)]
pub(crate) struct Upgrade {
    protocol: Protocol,
    accept: HeaderValue,
    upgraded: OnUpgrade,
}

/// The socket once the response was sent.
type Accepted = Pin<Box<dyn Future<Output = Result<Socket, hyper::Error>> + Send>>;

/// Bounds what a peer can make us hold.
pub(crate) fn websocket_config() -> WebSocketConfig {
    let config = WebSocketConfig::default();
    config.max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE)).write_buffer_size(0)
}

// === impl Upgrade ===

impl Upgrade {
    /// Checks the request.
    pub(crate) fn of(mut request: Request) -> Result<Self, Status> {
        let headers = request.headers();
        let asks = request.method() == Method::GET
            && has_token(headers, &CONNECTION, "upgrade")
            && has_token(headers, &UPGRADE, "websocket");
        if !asks {
            return Err(Status::bad_request(
                "exec needs a WebSocket: Upgrade request required, with subprotocol v5.channel.k8s.io or \
                 v4.channel.k8s.io (SPDY is not served)",
            ));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(Status::bad_request("Sec-WebSocket-Version must be 13"));
        }
        let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
            return Err(Status::bad_request("Sec-WebSocket-Key is missing"));
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
        // The client's order is its preference.
        let Some(protocol) = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(Protocol::of) else {
            return Err(Status::bad_request(
                "Sec-WebSocket-Protocol must offer v5.channel.k8s.io or v4.channel.k8s.io",
            ));
        };
        let upgraded = hyper::upgrade::on(&mut request);
        Ok(Self { protocol, accept, upgraded })
    }

    /// The response that makes the connection a WebSocket, and the socket.
    pub(crate) fn accept(self) -> (Response, Accepted) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol.name()));
        let (upgraded, protocol) = (self.upgraded, self.protocol);
        let socket = async move {
            let io = TokioIo::new(upgraded.await?);
            let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(websocket_config())).await;
            Ok(Socket { stream, protocol })
        };
        (response, Box::pin(socket))
    }
}

// === impl Protocol ===

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::V5, Self::V4].into_iter().find(|protocol| protocol.name() == name)
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}
