//! The client's end of an exec.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::Request;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::{Client, ClientError, answer, broken};
use crate::exec::{BLOCK, Channel, Protocol, websocket_config};
use crate::query::append;
use crate::{Status, TerminalSize};

/// What to start, and which of its streams are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Standard input will be sent.
    pub stdin: bool,
    /// The program gets a terminal.
    pub tty: bool,
}

type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// What is sent to the program.
#[derive(Debug)]
pub struct ExecInput {
    sink: SplitSink<WebSocket, Message>,
}

/// What comes from the program.
#[derive(Debug)]
pub struct ExecOutputs {
    stream: SplitStream<WebSocket>,
}

/// Something that came from the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Written to standard output, or to the terminal.
    Stdout(Bytes),
    /// Written to standard error.
    Stderr(Bytes),
    /// How it ended, after all it wrote.
    Ended(Box<Status>),
}

pub(super) async fn start(
    client: &Client,
    mut path: String,
    options: &ExecOptions,
) -> Result<(ExecInput, ExecOutputs), ClientError> {
    let mut query = String::new();
    options.command.iter().for_each(|word| append(&mut query, "command", word));
    append(&mut query, "output", "1");
    for (key, set) in [("input", options.stdin), ("error", !options.tty), ("tty", options.tty)] {
        if set {
            append(&mut query, key, "1");
        }
    }
    path.push_str(&query);
    let request = Request::get(&path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(SEC_WEBSOCKET_PROTOCOL, Protocol::V5.name());
    let response = client.get(request).await?;
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if chosen.is_none_or(|chosen| chosen != Protocol::V5.name()) {
        return Err(answer("/exec", "it does not speak v5.channel.k8s.io"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(websocket_config()))
            .await;
    let (sink, stream) = socket.split();
    Ok((ExecInput { sink }, ExecOutputs { stream }))
}

// === impl ExecInput ===

impl ExecInput {
    /// Sends standard input; waits while the program does not read.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for block in bytes.chunks(BLOCK) {
            self.send(Channel::Stdin, block).await?;
        }
        Ok(())
    }

    /// Ends standard input; output still comes.
    pub async fn close_stdin(&mut self) -> Result<(), ClientError> {
        self.send(Channel::Close, &[Channel::Stdin as u8]).await
    }

    /// Sets the size of the program's terminal.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), ClientError> {
        let size = serde_json::to_vec(&size).map_err(broken)?;
        self.send(Channel::Resize, &size).await
    }

    async fn send(&mut self, channel: Channel, payload: &[u8]) -> Result<(), ClientError> {
        let mut message = Vec::with_capacity(payload.len() + 1);
        message.push(channel as u8);
        message.extend_from_slice(payload);
        self.sink.send(Message::Binary(message.into())).await.map_err(broken)
    }
}

// === impl ExecOutputs ===

impl ExecOutputs {
    /// What comes next. After [`ExecOutput::Ended`] nothing does.
    ///
    /// # Errors
    ///
    /// When the connection broke before the program's end was told.
    pub async fn next(&mut self) -> Result<ExecOutput, ClientError> {
        loop {
            let message = match self.stream.next().await {
                Some(message) => message.map_err(broken)?,
                None => return Err(broken("it closed before the program's end was told")),
            };
            let Message::Binary(mut data) = message else { continue };
            let Some(channel) = data.first().copied() else { continue };
            let payload = data.split_off(1);
            match Channel::of(channel) {
                Some(Channel::Stdout) => return Ok(ExecOutput::Stdout(payload)),
                Some(Channel::Stderr) => return Ok(ExecOutput::Stderr(payload)),
                Some(Channel::Error) => {
                    let status = serde_json::from_slice(&payload).map_err(|error| answer("/exec", error))?;
                    return Ok(ExecOutput::Ended(Box::new(status)));
                }
                _ => {}
            }
        }
    }
}
