//! Reading container logs: what `/containerLogs` gives, and how it goes on while it is followed.
//!
//! Nothing is held in memory but one block, whatever a log's size, and nothing polls: while followed, a
//! log is read when inotify tells of a change in its directory, until the container has ended.

mod chain;
mod files;
mod line;
mod position;
mod tail;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use axum::body::Bytes;
use coracle_model::PodUid;
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use tokio::sync::mpsc;

use self::chain::Chain;
use self::files::LogDirectory;
use self::line::{Decoder, Filter};
use self::tail::Tail;

pub(crate) use self::line::Stream;
pub(crate) use self::position::{FrameHead, Position};

/// Read and sent at a time.
const BLOCK: usize = 64 << 10;

/// Which log, and what of it.
#[derive(Clone, Debug)]
pub(crate) struct LogRequest {
    /// The log directory of the node.
    pub(crate) logs: PathBuf,
    /// `<namespace>_<name>_<uid>`.
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) attempt: u32,
    /// The text comes in frames.
    pub(crate) framed: Option<Framed>,
    pub(crate) stream: Option<Stream>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    /// Only so many lines, from the end.
    pub(crate) tail: Option<u64>,
    /// Not more than so many bytes.
    pub(crate) limit: Option<u64>,
}

/// What is asked for in frames, with positions to come back to.
#[derive(Clone, Debug)]
pub(crate) struct Framed {
    /// Whose log it is.
    pub(crate) uid: PodUid,
    /// Where to go on. Then `tail` has had its effect.
    pub(crate) from: Option<Position>,
}

/// What ended that a log was followed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The container: its log is complete.
    Container,
    /// The agent: the log may go on, and the next agent can give the rest.
    Agent,
}

/// A log being read.
struct Reader {
    chain: Chain,
    decoder: Decoder,
    buffer: Vec<u8>,
    remaining: Option<u64>,
    frames: Option<Frames>,
}

/// What frames tell beside their text.
struct Frames {
    uid: PodUid,
    attempt: u32,
    /// The first frame tells where reading begins, so that a client knows before the first line is written.
    first: bool,
    gap: bool,
}

/// Opens the log, and gives its text in pieces. With `ended`, the log is followed: `ended` resolves when
/// nothing more will be written, or nobody is left to read it; then the last piece is an error.
///
/// # Errors
///
/// When the log cannot be opened; what fails later comes through the channel.
pub(crate) async fn read(
    request: LogRequest,
    ended: Option<impl Future<Output = End> + Send + 'static>,
) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let reader = blocking(move || Reader::open(&request)).await?;
    let changes = match &ended {
        None => None,
        // Watched before the first read, so that no change falls between the two.
        Some(_) => Some(watch(reader.chain.directory())?),
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let outcome = match (changes, ended) {
            (Some(changes), Some(ended)) => follow(reader, changes, ended, &sender).await,
            _ => pump(reader, &sender).await.map(drop),
        };
        if let Err(error) = outcome {
            // A client that has gone need not be told.
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(receiver)
}

/// Reads up to the end of what is there. `None` when nothing more is wanted.
async fn pump(mut reader: Reader, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<Option<Reader>> {
    loop {
        let (back, piece) = blocking(move || {
            let piece = reader.read()?;
            Ok((reader, piece))
        })
        .await?;
        reader = back;
        let Some(piece) = piece else { return Ok(Some(reader)) };
        if !piece.is_empty() && sender.send(Ok(piece)).await.is_err() {
            return Ok(None);
        }
        if reader.remaining == Some(0) {
            return Ok(None);
        }
    }
}

async fn follow(
    mut reader: Reader,
    inotify: Inotify,
    ended: impl Future<Output = End>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut changes = inotify.into_event_stream(vec![0; 4096])?;
    let mut ended = std::pin::pin!(ended);
    let mut last = false;
    loop {
        match pump(reader, sender).await? {
            Some(back) => reader = back,
            None => return Ok(()),
        }
        // Only a read that began after the container ended has seen all of its log.
        if last {
            return Ok(());
        }
        tokio::select! {
            biased;
            end = &mut ended => match end {
                End::Container => last = true,
                End::Agent => return Err(io::Error::new(io::ErrorKind::Interrupted, "the agent ends")),
            },
            () = sender.closed() => return Ok(()),
            change = changes.next() => match change {
                Some(Ok(_)) => {}
                // More changes than the queue holds: there is something to read.
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

fn watch(directory: &LogDirectory) -> io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    inotify.watches().add(path, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
    Ok(inotify)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

// === impl Reader ===

impl Reader {
    fn open(request: &LogRequest) -> io::Result<Self> {
        let directory = LogDirectory::open(&request.logs, &request.pod, &request.container, request.attempt)?;
        let mut decoder = Decoder::new(Filter {
            stream: request.stream,
            since: request.since,
            timestamps: request.timestamps,
        });
        let mut frames = request.framed.as_ref().map(|framed| Frames {
            uid: framed.uid.clone(),
            attempt: request.attempt,
            first: true,
            gap: false,
        });
        let from = request.framed.as_ref().and_then(|framed| framed.from.as_ref());
        let chain = match (from, request.tail) {
            (Some(Position { place: Some(place), resume, .. }), _) => {
                match Chain::from_place(directory, *place)? {
                    Ok(chain) => {
                        decoder.resume(*resume);
                        chain
                    }
                    Err(directory) => {
                        frames.iter_mut().for_each(|frames| frames.gap = true);
                        Chain::from_start(directory)
                    }
                }
            }
            (Some(_), _) | (None, None) => Chain::from_start(directory),
            (None, Some(0)) => Chain::from_tail(directory, None)?,
            (None, Some(lines)) => Chain::from_tail(directory, Some(Tail::new(lines, request.stream)))?,
        };
        Ok(Self { chain, decoder, buffer: vec![0; BLOCK], remaining: request.limit, frames })
    }

    /// The next piece, which may be empty; `None` at the end of what is there.
    fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.frames.as_ref().is_some_and(|frames| frames.first) {
            return self.frame(Vec::new()).map(Some);
        }
        let length = self.chain.read(&mut self.buffer, &mut self.decoder)?;
        if length == 0 {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(length);
        self.decoder.decode(&self.buffer[..length], &mut out);
        if let Some(remaining) = &mut self.remaining {
            out.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= out.len() as u64;
        }
        self.frame(out).map(Some)
    }

    /// The text as it is sent.
    fn frame(&mut self, text: Vec<u8>) -> io::Result<Bytes> {
        let Some(frames) = &mut self.frames else { return Ok(text.into()) };
        let (resume, unread) = self.decoder.place();
        let place = self.chain.place().map(|mut place| {
            place.offset = place.offset.saturating_sub(unread as u64);
            place
        });
        let position = Position { uid: frames.uid.clone(), attempt: frames.attempt, place, resume };
        let head = FrameHead { length: text.len(), position, gap: std::mem::take(&mut frames.gap) };
        frames.first = false;
        let mut frame = serde_json::to_vec(&head)?;
        frame.push(b'\n');
        frame.extend_from_slice(&text);
        Ok(frame.into())
    }
}

#[cfg(test)]
mod tests;
