//! Reading container logs: what `/containerLogs` gives, and how it goes on while it is followed.
//!
//! Nothing is held in memory but one block, whatever a log's size, and nothing polls: while followed, a
//! log is read when inotify tells of a change in its directory, until the container has ended.

mod chain;
mod files;
mod line;
mod tail;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use axum::body::Bytes;
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use tokio::sync::mpsc;

use self::chain::Chain;
use self::files::LogDirectory;
use self::line::{Decoder, Filter};
use self::tail::Tail;

pub(crate) use self::line::Stream;

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
    pub(crate) stream: Option<Stream>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    /// Only so many lines, from the end.
    pub(crate) tail: Option<u64>,
    /// Not more than so many bytes.
    pub(crate) limit: Option<u64>,
}

/// A log being read.
struct Reader {
    chain: Chain,
    decoder: Decoder,
    buffer: Vec<u8>,
    remaining: Option<u64>,
}

/// Opens the log, and gives its text in pieces. With `ended`, the log is followed: `ended` resolves when
/// nothing more will be written.
///
/// # Errors
///
/// When the log cannot be opened; what fails later comes through the channel.
pub(crate) async fn read(
    request: LogRequest,
    ended: Option<impl Future<Output = ()> + Send + 'static>,
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
    ended: impl Future<Output = ()>,
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
            () = &mut ended => last = true,
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
        let chain = match request.tail {
            None => Chain::from_start(directory),
            Some(0) => Chain::from_tail(directory, None)?,
            Some(lines) => Chain::from_tail(directory, Some(Tail::new(lines, request.stream)))?,
        };
        let decoder = Decoder::new(Filter {
            stream: request.stream,
            since: request.since,
            timestamps: request.timestamps,
        });
        Ok(Self { chain, decoder, buffer: vec![0; BLOCK], remaining: request.limit })
    }

    /// The next piece, which may be empty; `None` at the end of what is there.
    fn read(&mut self) -> io::Result<Option<Bytes>> {
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
        Ok(Some(out.into()))
    }
}

#[cfg(test)]
mod tests;
