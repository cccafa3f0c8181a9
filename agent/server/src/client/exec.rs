//! The client's end of an exec, and of an attach.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::websocket::{WebSocket, open};
use super::{Client, ClientError, answer, broken};
use crate::query::append;
use crate::remote_command::Channel;
use crate::websocket::{BLOCK, message, receive};
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

/// Which of a container's streams are wanted, beside its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Standard input will be sent.
    pub stdin: bool,
    /// The container has a terminal.
    pub tty: bool,
}

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
    command: &[String],
    AttachOptions { stdin, tty }: AttachOptions,
) -> Result<(ExecInput, ExecOutputs), ClientError> {
    let mut query = String::new();
    command.iter().for_each(|word| append(&mut query, "command", word));
    append(&mut query, "output", "1");
    for (key, set) in [("input", stdin), ("error", !tty), ("tty", tty)] {
        if set {
            append(&mut query, key, "1");
        }
    }
    path.push_str(&query);
    let socket = open(client, &path).await?;
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
        self.sink.send(message(channel as u8, payload)).await.map_err(broken)
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
            let Some((channel, payload)) = receive(&mut self.stream).await else {
                return Err(broken("it closed before the program's end was told"));
            };
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
