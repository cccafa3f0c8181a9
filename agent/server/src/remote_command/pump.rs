//! Moves a program's input and output between its pipes and a WebSocket.
//!
//! Memory is bounded by one message in each direction: what the program does not read is not read from
//! the client, what the client does not read is not read from the program. Each direction waits alone, so
//! that a full output does not hold up an interrupt typed at the terminal.

use std::future::Future;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Channel;
use crate::websocket::{BLOCK, Disconnected, Protocol, Socket, close, holding, message, receive};
use crate::{ExecError, ExecSession, Resize, Status, TerminalSize};

/// Runs the session that `starting` gives until the program ended and its output was sent, or the client
/// is gone. Dropping the session then is what ends the program, see [`ExecSession`]. A failure is told
/// with `doing` before it.
pub(crate) async fn run(
    socket: Socket,
    doing: &'static str,
    starting: impl Future<Output = Result<ExecSession, ExecError>>,
) {
    let failed = |error: &ExecError| Status::internal(format_args!("error {doing}: {error}"));
    let protocol = socket.protocol;
    let (sink, mut stream) = socket.stream.split();
    let sink = Mutex::new(sink);
    let status = match starting.await {
        Ok(session) => {
            let ExecSession { stdin, stdout, stderr, resize, exit } = session;
            let ending = async {
                let (out, err, exit) = tokio::join!(
                    send(&sink, Channel::Stdout, stdout),
                    send(&sink, Channel::Stderr, stderr),
                    exit
                );
                out.and(err).map(|()| exit)
            };
            let ending = std::pin::pin!(ending);
            let feeding = std::pin::pin!(feed(&mut stream, &sink, protocol, stdin, resize));
            tokio::select! {
                ended = ending => match ended {
                    Ok(Ok(exit)) => Status::exit(exit),
                    Ok(Err(error)) => failed(&error),
                    Err(Disconnected) => return,
                },
                Disconnected = feeding => return,
            }
        }
        Err(error) => failed(&error),
    };
    let status = message(Channel::Error as u8, &status.to_json());
    close(sink.into_inner(), stream, Some(status)).await;
}

/// Sends an output until its end.
async fn send<S>(
    sink: &Mutex<S>,
    channel: Channel,
    output: Option<Box<dyn AsyncRead + Send + Unpin>>,
) -> Result<(), Disconnected>
where
    S: Sink<Message> + Unpin,
{
    let Some(mut output) = output else { return Ok(()) };
    let mut buffer = vec![0; BLOCK];
    loop {
        let length = match output.read(&mut buffer).await {
            Ok(length) => length,
            // A terminal's end: its last user closed it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
            Err(error) => {
                tracing::debug!(%error, ?channel, "reading the output of a program");
                0
            }
        };
        if length == 0 {
            return Ok(());
        }
        let message = message(channel as u8, &buffer[..length]);
        sink.lock().await.send(message).await.map_err(|_| Disconnected)?;
    }
}

/// Receives input and sizes until the client is gone.
async fn feed<S>(
    stream: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    sink: &Mutex<S>,
    protocol: Protocol,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<Box<dyn Resize>>,
) -> Disconnected
where
    S: Sink<Message> + Unpin,
{
    while let Some((channel, payload)) = receive(stream).await {
        match Channel::of(channel) {
            Some(Channel::Stdin) => {
                if let Some(open) = &mut stdin {
                    let writing = async {
                        open.write_all(&payload).await?;
                        open.flush().await
                    };
                    match holding(sink, writing).await {
                        Ok(Ok(())) => {}
                        // The program closed its input: what else is sent is not wanted.
                        Ok(Err(_)) => stdin = None,
                        Err(gone) => return gone,
                    }
                }
            }
            Some(Channel::Resize) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<TerminalSize>(&payload))
                    && let Err(error) = resize.resize(size)
                {
                    tracing::debug!(%error, "setting the size of a terminal");
                }
            }
            Some(Channel::Close) if protocol == Protocol::V5 && *payload == [Channel::Stdin as u8] => {
                stdin = None;
            }
            // Nothing a client sends; the kubelet ignores it, too.
            _ => {}
        }
    }
    Disconnected
}
