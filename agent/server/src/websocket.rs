//! WebSockets as Kubernetes uses them: the handshake (RFC 6455, section 4) with the choice of a
//! subprotocol, and what all that is spoken on them has in common.
//!
//! Every message is binary, and its first byte is a channel.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use crate::Status;

/// The largest message taken. kubectl sends 32 KiB; other clients send what they are given at once.
const MAX_MESSAGE: usize = 4 << 20;

/// What is read of a stream, and sent, at a time.
pub(crate) const BLOCK: usize = 32 << 10;
/// The channel on which v5 tells that another one, named by the message's one further byte, has ended.
pub(crate) const CLOSE: u8 = 255;

/// How long a client may take to answer the closing handshake.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// While a message waits to be used up, the socket is not read: a ping tells whether somebody is there.
const PING: Duration = Duration::from_secs(10);

/// A version of Kubernetes' channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `v4.channel.k8s.io`: what the client sends ends with the connection only.
    V4,
    /// `v5.channel.k8s.io`: a channel can be closed alone.
    V5,
}

/// The client is gone, or broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnected;

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
    let config = config.max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    config.write_buffer_size(0).read_buffer_size(2 * BLOCK)
}

/// A message on a channel.
pub(crate) fn message(channel: u8, payload: &[u8]) -> Message {
    let mut message = Vec::with_capacity(payload.len() + 1);
    message.push(channel);
    message.extend_from_slice(payload);
    Message::Binary(message.into())
}

/// The next message's channel and payload; `None` once the client is gone.
pub(crate) async fn receive(
    stream: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> Option<(u8, Bytes)> {
    loop {
        let mut data: Bytes = match stream.next().await? {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => continue,
        };
        if let Some(channel) = data.first().copied() {
            return Some((channel, data.split_off(1)));
        }
    }
}

/// Waits for `work`, which uses up a message and may take as long as it likes, and notices when the client
/// goes meanwhile.
pub(crate) async fn holding<S, T>(sink: &Mutex<S>, work: impl Future<Output = T>) -> Result<T, Disconnected>
where
    S: Sink<Message> + Unpin,
{
    let pinging = async {
        let mut ticks = interval(PING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if sink.lock().await.send(Message::Ping(Bytes::new())).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = pinging => Err(Disconnected),
    }
}

/// Sends the last message, if there is one, and closes. A client that went without waiting for it does not
/// want it.
pub(crate) async fn close(
    mut sink: impl Sink<Message> + Unpin,
    mut stream: impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    last: Option<Message>,
) {
    let closing = async {
        if let Some(last) = last
            && sink.send(last).await.is_err()
        {
            return;
        }
        if sink.close().await.is_ok() {
            // What the client sent meanwhile is read, or the kernel would answer it with a reset that
            // overtakes what was sent last.
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = timeout(CLOSE_DEADLINE, closing).await;
}

// === impl Upgrade ===

impl Upgrade {
    /// Checks the request, which is for `what` (`exec`).
    pub(crate) fn of(what: &str, mut request: Request) -> Result<Self, Status> {
        let headers = request.headers();
        let asks = request.method() == Method::GET
            && has_token(headers, &CONNECTION, "upgrade")
            && has_token(headers, &UPGRADE, "websocket");
        if !asks {
            return Err(Status::bad_request(format!(
                "{what} needs a WebSocket: Upgrade request required, with subprotocol v5.channel.k8s.io or \
                 v4.channel.k8s.io (SPDY is not served)"
            )));
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
            let offered: Vec<&str> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
            return Err(Status::bad_request(format!(
                "{what} is served with subprotocol v5.channel.k8s.io or v4.channel.k8s.io; \
                 Sec-WebSocket-Protocol offers {}",
                if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
            )));
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
