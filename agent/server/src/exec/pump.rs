//! Moves a program's input and output between its pipes and a WebSocket.
//!
//! Memory is bounded by one message in each direction: what the program does not read is not read from
//! the client, what the client does not read is not read from the program. Each direction waits alone, so
//! that a full output does not hold up an interrupt typed at the terminal.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use super::{BLOCK, Channel, Protocol, Socket};
use crate::{ExecError, ExecSession, Resize, Status, TerminalSize};

/// How long a client may take to answer the closing handshake.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// While input waits for the program, the socket is not read: a ping tells whether somebody is there.
const PING: Duration = Duration::from_secs(10);

/// The client is gone, or broke the protocol: the session is over.
struct Disconnected;

/// Runs the session that `starting` gives until the program ended and its output was sent, or the client
/// is gone. Dropping the session then is what ends the program, see [`ExecSession`].
pub(crate) async fn run(socket: Socket, starting: impl Future<Output = Result<ExecSession, ExecError>>) {
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
            let receiving = std::pin::pin!(receive(&mut stream, &sink, protocol, stdin, resize));
            tokio::select! {
                ended = ending => match ended {
                    Ok(Ok(exit)) => Status::exit(exit),
                    Ok(Err(error)) => failed(&error),
                    Err(Disconnected) => return,
                },
                Disconnected = receiving => return,
            }
        }
        Err(error) => failed(&error),
    };
    let mut sink = sink.into_inner();
    let closing = async {
        sink.send(message(Channel::Error, &status.to_json())).await?;
        sink.close().await?;
        // What the client sent meanwhile is read, or the kernel would answer it with a reset that
        // overtakes the status.
        while let Some(Ok(_)) = stream.next().await {}
        Ok::<_, tungstenite::Error>(())
    };
    // A client that went without waiting for the status does not want it.
    let _ = timeout(CLOSE_DEADLINE, closing).await;
}

fn failed(error: &ExecError) -> Status {
    Status::internal(format_args!("error executing command in container: {error}"))
}

fn message(channel: Channel, payload: &[u8]) -> Message {
    let mut message = Vec::with_capacity(payload.len() + 1);
    message.push(channel as u8);
    message.extend_from_slice(payload);
    Message::Binary(message.into())
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
                tracing::debug!(%error, ?channel, "reading the output of an exec");
                0
            }
        };
        if length == 0 {
            return Ok(());
        }
        let message = message(channel, &buffer[..length]);
        sink.lock().await.send(message).await.map_err(|_| Disconnected)?;
    }
}

/// Receives input and sizes until the client is gone.
async fn receive<S>(
    stream: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    sink: &Mutex<S>,
    protocol: Protocol,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<Box<dyn Resize>>,
) -> Disconnected
where
    S: Sink<Message> + Unpin,
{
    while let Some(Ok(message)) = stream.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => break,
            _ => continue,
        };
        let Some((&channel, payload)) = data.split_first() else { continue };
        match Channel::of(channel) {
            Some(Channel::Stdin) => {
                if let Some(open) = &mut stdin {
                    match write(open, payload, sink).await {
                        Ok(Ok(())) => {}
                        // The program closed its input: what else is sent is not wanted.
                        Ok(Err(_)) => stdin = None,
                        Err(gone) => return gone,
                    }
                }
            }
            Some(Channel::Resize) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<TerminalSize>(payload))
                    && let Err(error) = resize.resize(size)
                {
                    tracing::debug!(%error, "setting the size of a terminal");
                }
            }
            Some(Channel::Close) if protocol == Protocol::V5 && payload == [Channel::Stdin as u8] => {
                stdin = None;
            }
            // Nothing a client sends; the kubelet ignores it, too.
            _ => {}
        }
    }
    Disconnected
}

/// Writes input the program may be slow to read, and notices when the client goes meanwhile.
async fn write<S>(
    stdin: &mut (impl AsyncWrite + Unpin),
    payload: &[u8],
    sink: &Mutex<S>,
) -> Result<io::Result<()>, Disconnected>
where
    S: Sink<Message> + Unpin,
{
    let writing = async {
        stdin.write_all(payload).await?;
        stdin.flush().await
    };
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
        written = writing => Ok(written),
        () = pinging => Err(Disconnected),
    }
}
