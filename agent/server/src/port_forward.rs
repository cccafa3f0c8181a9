//! Connections to ports of a pod over a WebSocket, as the kubelet serves them: `v4.channel.k8s.io`.
//!
//! The n-th port has channel 2n for its data and 2n + 1 for an error, a sentence; the first message on
//! each is the port, in two little-endian bytes. One WebSocket makes one connection to each port.
//!
//! With `v5.channel.k8s.io`, which the kubelet speaks for programs only, each side also tells when no more
//! data comes from it, by a message on the close channel that names the data channel. A client that goes
//! without having told so was cut off, and the pod sees that as a reset. Without v5 the end of one
//! direction is the end of both.

use std::future::pending;
use std::io;

use coracle_model::Pod;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use crate::websocket::{BLOCK, CLOSE, Disconnected, Protocol, Socket, close, holding, message, receive};
use crate::{ForwardError, Forwarded};

/// The channels are numbered by a byte, and the last is not for data.
pub(crate) const MAX_PORTS: usize = 127;

/// What a client has for a port.
enum Input {
    Data(Bytes),
    /// No more comes.
    End,
}

/// Why a connection is over before both directions ended.
enum Cut {
    /// It broke, at the pod's side.
    Broken(io::Error),
    /// The pod's sandbox is gone.
    PodGone,
    /// The client is gone.
    ClientGone {
        /// It had more to send.
        midway: bool,
    },
}

/// Connects to the pod's ports and moves data until every connection is over, or the client is gone.
pub(crate) async fn run(
    socket: Socket,
    pod: &Pod,
    ports: &[u16],
    connect: impl Fn(u16) -> BoxFuture<'static, Result<Forwarded, ForwardError>>,
) {
    let protocol = socket.protocol;
    let (sink, mut stream) = socket.stream.split();
    let sink = Mutex::new(sink);
    let (inputs, outlets): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(1)).unzip();
    let forwarding = ports.iter().zip(outlets).zip((0..).step_by(2)).map(|((port, inputs), data)| {
        let link = Link { sink: &sink, protocol, data };
        let connecting = connect(*port);
        async move {
            if let Err(why) = link.forward(*port, inputs, connecting).await {
                let (key, uid) = (&pod.key, &pod.uid);
                let text = format!("error forwarding port {port} to pod {key}, uid {uid}: {why}");
                // A client that is gone does not want it.
                let _ = link.send(data + 1, text.as_bytes()).await;
            }
        }
    });
    {
        let mut forwarding = std::pin::pin!(join_all(forwarding));
        let distributing = std::pin::pin!(distribute(&mut stream, &sink, protocol, inputs));
        tokio::select! {
            _ = &mut forwarding => {}
            // The ports have nothing to wait for any more, and know it.
            Disconnected = distributing => drop(forwarding.await),
        }
    }
    close(sink.into_inner(), stream, None).await;
}

/// Gives each port what comes for it, until the client is gone. A port that does not take what it was sent
/// holds up the others, as with the kubelet.
async fn distribute<S>(
    stream: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    sink: &Mutex<S>,
    protocol: Protocol,
    inputs: Vec<mpsc::Sender<Input>>,
) -> Disconnected
where
    S: Sink<Message> + Unpin,
{
    while let Some((channel, payload)) = receive(stream).await {
        let (channel, input) = match *payload {
            [ended] if channel == CLOSE && protocol == Protocol::V5 => (ended, Input::End),
            _ => (channel, Input::Data(payload)),
        };
        // Nothing comes on the channels for errors.
        let port = (channel % 2 == 0).then(|| inputs.get(usize::from(channel / 2))).flatten();
        if let Some(port) = port
            // One whose connection is over takes nothing more.
            && let Err(gone) = holding(sink, port.send(input)).await
        {
            return gone;
        }
    }
    Disconnected
}

/// A port's channels.
struct Link<'a, S> {
    sink: &'a Mutex<S>,
    protocol: Protocol,
    data: u8,
}

// === impl Link ===

impl<S: Sink<Message> + Unpin> Link<'_, S> {
    /// Connects, and moves data until both directions ended; else says why they did not.
    async fn forward(
        &self,
        port: u16,
        mut inputs: mpsc::Receiver<Input>,
        connecting: BoxFuture<'static, Result<Forwarded, ForwardError>>,
    ) -> Result<(), String> {
        for channel in [self.data, self.data + 1] {
            if self.send(channel, &port.to_le_bytes()).await.is_err() {
                return Ok(());
            }
        }
        let Forwarded { mut stream, gone } = connecting.await.map_err(|error| error.to_string())?;
        let outcome = {
            let (read, write) = stream.split();
            let (tell_end, end_told) = oneshot::channel();
            let down = async {
                self.down(read).await?;
                match self.protocol {
                    Protocol::V5 => end_told.await.map_err(|_| Cut::ClientGone { midway: true }),
                    // That one direction ended cannot be told.
                    Protocol::V4 => Ok(()),
                }
            };
            tokio::select! {
                outcome = down => outcome,
                cut = self.up(write, &mut inputs, tell_end) => Err(cut),
                () = gone => Err(Cut::PodGone),
            }
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(Cut::Broken(error)) => Err(error.to_string()),
            Err(Cut::PodGone) => Err("the pod has ended".to_owned()),
            Err(Cut::ClientGone { midway }) => {
                if midway {
                    // The pod is not to take what came for the whole.
                    let _ = stream.set_zero_linger();
                }
                Ok(())
            }
        }
    }

    /// Sends what the pod sends, until its end.
    async fn down(&self, mut read: ReadHalf<'_>) -> Result<(), Cut> {
        let mut buffer = vec![0; BLOCK];
        loop {
            let length = read.read(&mut buffer).await.map_err(Cut::Broken)?;
            let sent = match length {
                0 if self.protocol == Protocol::V4 => Ok(()),
                0 => self.send(CLOSE, &[self.data]).await,
                _ => self.send(self.data, &buffer[..length]).await,
            };
            if sent.is_err() {
                // Whoever receives from the client will know whether it had told its end.
                pending::<()>().await;
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Writes what the client sends, and says when it told its end; until the client is gone.
    async fn up(
        &self,
        mut write: WriteHalf<'_>,
        inputs: &mut mpsc::Receiver<Input>,
        tell_end: oneshot::Sender<()>,
    ) -> Cut {
        let mut tell_end = Some(tell_end);
        while let Some(input) = inputs.recv().await {
            let written = match input {
                Input::Data(data) => write.write_all(&data).await,
                Input::End => {
                    let ended = write.shutdown().await;
                    if let Some(tell_end) = tell_end.take() {
                        let _ = tell_end.send(());
                    }
                    ended
                }
            };
            if let Err(error) = written {
                return Cut::Broken(error);
            }
        }
        Cut::ClientGone { midway: self.protocol == Protocol::V5 && tell_end.is_some() }
    }

    async fn send(&self, channel: u8, payload: &[u8]) -> Result<(), Disconnected> {
        let message = message(channel, payload);
        self.sink.lock().await.send(message).await.map_err(|_| Disconnected)
    }
}
