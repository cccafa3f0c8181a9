//! The client's end of a WebSocket.

use hyper::Request;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Client, ClientError, answer, broken};
use crate::websocket::{Protocol, websocket_config};

pub(super) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Asks for a path and query that is served over a WebSocket.
pub(super) async fn open(client: &Client, path: &str) -> Result<WebSocket, ClientError> {
    let request = Request::get(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(SEC_WEBSOCKET_PROTOCOL, Protocol::V5.name());
    let response = client.get(request).await?;
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if chosen.is_none_or(|chosen| chosen != Protocol::V5.name()) {
        return Err(answer(path, "it does not speak v5.channel.k8s.io"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    let config = Some(websocket_config());
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, config).await)
}
