//! From an asynchronous stream of bytes to a thread that reads them.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What may lie between the network and the thread.
const BUFFER: usize = 1 << 20;

/// The end that is written to. Dropped before [`Feed::end`] it is a stream that broke off.
pub(crate) struct Feed {
    pieces: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
    wanted: oneshot::Receiver<()>,
}

/// The end that a thread reads.
pub(crate) struct FeedReader {
    pieces: mpsc::UnboundedReceiver<Piece>,
    current: Bytes,
    /// The room that `current` takes.
    held: Option<OwnedSemaphorePermit>,
    ended: bool,
    /// Told with the first read.
    wants: Option<oneshot::Sender<()>>,
}

enum Piece {
    Data(Bytes, OwnedSemaphorePermit),
    End,
}

/// The thread reads no more.
#[derive(Debug)]
pub(crate) struct ReaderGone;

/// A stream of bytes, with a bound to what is on its way.
pub(crate) fn feed() -> (Feed, FeedReader) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let (wants, wanted) = oneshot::channel();
    let feed = Feed { pieces: sender, room: Arc::new(Semaphore::new(BUFFER)), wanted };
    (feed, FeedReader { pieces, current: Bytes::new(), held: None, ended: false, wants: Some(wants) })
}

// === impl Feed ===

impl Feed {
    /// Waits until the thread reads for the first time.
    pub(crate) async fn wanted(&mut self) -> Result<(), ReaderGone> {
        (&mut self.wanted).await.map_err(|_| ReaderGone)
    }

    /// Hands bytes on, once there is room for them.
    pub(crate) async fn send(&self, mut bytes: Bytes) -> Result<(), ReaderGone> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(BUFFER / 4));
            let size = u32::try_from(piece.len()).map_err(|_| ReaderGone)?;
            let room = Arc::clone(&self.room);
            let permit = tokio::select! {
                permit = room.acquire_many_owned(size) => permit.map_err(|_| ReaderGone)?,
                () = self.pieces.closed() => return Err(ReaderGone),
            };
            self.pieces.send(Piece::Data(piece, permit)).map_err(|_| ReaderGone)?;
        }
        Ok(())
    }

    /// That was all.
    pub(crate) fn end(self) -> Result<(), ReaderGone> {
        self.pieces.send(Piece::End).map_err(|_| ReaderGone)
    }
}

// === impl FeedReader ===

impl Read for FeedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(wants) = self.wants.take() {
            // Nobody may be there any more, which the stream tells.
            let _ = wants.send(());
        }
        while self.current.is_empty() && !self.ended {
            self.held = None;
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes, permit)) => (self.current, self.held) = (bytes, Some(permit)),
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the pull was given up"));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_is_sent_is_read_to_its_end() {
        let (feed, mut reader) = feed();
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
        for piece in sent.chunks(1_234_567) {
            feed.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        feed.end().unwrap();
        assert_eq!(thread.join().unwrap().unwrap(), sent);
    }

    #[tokio::test]
    async fn no_more_is_on_its_way_than_there_is_room_for() {
        let (feed, mut reader) = feed();
        let piece = Bytes::from(vec![0; BUFFER / 4]);
        for _ in 0..4 {
            feed.send(piece.clone()).await.unwrap();
        }
        let wait = Duration::from_millis(50);
        assert!(timeout(wait, feed.send(piece.clone())).await.is_err());
        let thread = std::thread::spawn(move || {
            // The room is given back once the next piece is asked for.
            reader.read_exact(&mut vec![0; BUFFER / 4 + 1]).unwrap();
            reader
        });
        timeout(Duration::from_secs(10), feed.send(piece)).await.unwrap().unwrap();
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_an_error_and_so_is_a_reader_that_goes() {
        let (feed_end, mut reader) = feed();
        feed_end.send(Bytes::from_static(b"half")).await.unwrap();
        drop(feed_end);
        let read = std::thread::spawn(move || reader.read_to_end(&mut Vec::new())).join().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);

        let (feed_end, reader) = feed();
        for _ in 0..4 {
            feed_end.send(Bytes::from(vec![0; BUFFER / 4])).await.unwrap();
        }
        let waiting = tokio::spawn(async move { feed_end.send(Bytes::from_static(b"x")).await });
        drop(reader);
        assert!(timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().is_err());
    }
}
