//! The client's end of a connection to a port of a pod.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_tungstenite::tungstenite::Message;

use super::websocket::{WebSocket, open};
use super::{Client, ClientError, broken, path_of};
use crate::query::append;
use crate::websocket::{BLOCK, CLOSE, message, receive};

/// The channels of the one port.
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// A connection through the agent to a port of a pod, which the agent may still be making.
#[derive(Debug)]
pub struct PortForward {
    socket: WebSocket,
}

/// Why a forwarded connection did not end well. It is closed on both sides.
#[derive(Debug, thiserror::Error)]
pub enum ForwardFailure {
    /// The agent said why, in a sentence.
    #[error("{0}")]
    Remote(String),
    /// The connection to the agent broke.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// The connection to whoever uses the forward broke.
    #[error("error copying from local connection to remote stream: {0}")]
    LocalRead(#[source] io::Error),
    /// As before, towards it.
    #[error("error copying from remote stream to local connection: {0}")]
    LocalWrite(#[source] io::Error),
}

pub(super) async fn start(client: &Client, segments: &[&str], port: u16) -> Result<PortForward, ClientError> {
    let mut query = String::new();
    append(&mut query, "port", &port.to_string());
    Ok(PortForward { socket: open(client, &(path_of(segments) + &query)).await? })
}

// === impl PortForward ===

impl PortForward {
    /// Moves data between `local` and the pod until both have said their end. Where one of them breaks off,
    /// so does the other: a reset stays a reset.
    ///
    /// # Errors
    /// When it did not come to both ends, or the pod could not be connected to.
    pub async fn run(self, mut local: TcpStream) -> Result<(), ForwardFailure> {
        let (mut sink, mut stream) = self.socket.split();
        let outcome = {
            let (read, write) = local.split();
            let ended = AtomicBool::new(false);
            tokio::select! {
                outcome = down(&mut stream, write, &ended) => outcome,
                Err(error) = up(&mut sink, read, &ended) => Err(error),
            }
        };
        if outcome.is_err() {
            // Nobody is there to be told when this fails.
            let _ = local.set_zero_linger();
        }
        outcome
    }
}

/// Sends what comes from here, and its end.
async fn up(
    sink: &mut SplitSink<WebSocket, Message>,
    mut read: ReadHalf<'_>,
    ended: &AtomicBool,
) -> Result<(), ForwardFailure> {
    let mut buffer = vec![0; BLOCK];
    while !ended.load(Ordering::Relaxed) {
        let length = read.read(&mut buffer).await.map_err(ForwardFailure::LocalRead)?;
        let message = match length {
            0 => message(CLOSE, &[DATA]),
            _ => message(DATA, &buffer[..length]),
        };
        if sink.send(message).await.is_err() {
            // What the agent sent before it closed says why.
            break;
        }
        ended.store(length == 0, Ordering::Relaxed);
    }
    Ok(())
}

/// Writes what comes from the pod and, once that has ended, waits until the agent closes. It does so when
/// it knows of both ends, and not before all was delivered.
async fn down(
    stream: &mut SplitStream<WebSocket>,
    mut write: WriteHalf<'_>,
    up_ended: &AtomicBool,
) -> Result<(), ForwardFailure> {
    // The first message on each channel is the port, which is known.
    let mut named = [false; 2];
    let mut ended = false;
    while let Some((channel, payload)) = receive(stream).await {
        match (channel, &*payload) {
            (DATA | ERROR, _) if !std::mem::replace(&mut named[usize::from(channel)], true) => {}
            (DATA, data) => write.write_all(data).await.map_err(ForwardFailure::LocalWrite)?,
            (ERROR, text) => {
                return Err(ForwardFailure::Remote(String::from_utf8_lossy(text).into_owned()));
            }
            (CLOSE, [DATA]) => {
                write.shutdown().await.map_err(ForwardFailure::LocalWrite)?;
                ended = true;
            }
            _ => {}
        }
    }
    if ended && up_ended.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(broken("it closed before the end of the forwarded connection was told").into())
}
