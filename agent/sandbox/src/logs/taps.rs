//! Live output: what passes the pump, also to whoever is attached.
//!
//! A container is never held up by who watches it, nor is its log: each client has a buffer, and one that
//! falls behind by more than [`MOST_BEHIND`] is cut off, after what it still has in it, and told why.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use super::cri::Stream;

/// How many bytes of a stream a client may be behind.
pub(crate) const MOST_BEHIND: usize = 4 << 20;

/// A buffer that is empty keeps no more than this.
const KEPT: usize = 64 << 10;

/// The clients attached to a container's output.
#[derive(Debug, Default)]
pub(crate) struct Taps(Mutex<Clients>);

#[derive(Debug, Default)]
struct Clients {
    attached: Vec<Weak<Client>>,
    /// The streams of which nothing more comes.
    ended: [bool; 2],
}

/// What one client has yet to read of both streams.
#[derive(Debug, Default)]
struct Client {
    streams: [Mutex<Behind>; 2],
    cut_off: watch::Sender<bool>,
}

/// A client's ends.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) stdout: LiveOutput,
    pub(crate) stderr: LiveOutput,
    /// Becomes true when the client is cut off.
    pub(crate) cut_off: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Behind {
    bytes: VecDeque<u8>,
    end: Option<End>,
    reader: Option<Waker>,
}

/// Why nothing more is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The stream ended.
    Reached,
    /// The client did not keep up.
    CutOff,
    /// The client does not read it.
    Unread,
}

/// One of a container's streams from the moment of attaching on. Ends with the stream; for a client that
/// did not keep up, with an error of kind [`io::ErrorKind::QuotaExceeded`].
#[derive(Debug)]
pub struct LiveOutput {
    client: Arc<Client>,
    stream: Stream,
}

// === impl Taps ===

impl Taps {
    /// Attaches a client to standard output and error.
    pub(crate) fn attach(&self) -> Tap {
        let client = Arc::new(Client::default());
        let mut clients = self.clients();
        for (stream, ended) in client.streams.iter().zip(clients.ended) {
            lock(stream).end = ended.then_some(End::Reached);
        }
        clients.attached.retain(|client| client.strong_count() > 0);
        clients.attached.push(Arc::downgrade(&client));
        let output = |stream| LiveOutput { client: Arc::clone(&client), stream };
        Tap {
            stdout: output(Stream::Stdout),
            stderr: output(Stream::Stderr),
            cut_off: client.cut_off.subscribe(),
        }
    }

    /// Shows the clients what came.
    pub(super) fn show(&self, stream: Stream, bytes: &[u8]) {
        let mut clients = self.clients();
        if clients.attached.is_empty() || bytes.is_empty() {
            return;
        }
        clients.attached.retain(|client| match client.upgrade() {
            Some(client) => client.add(stream, bytes),
            None => false,
        });
    }

    /// The stream has ended.
    pub(super) fn end(&self, stream: Stream) {
        let mut clients = self.clients();
        clients.ended[usize::from(stream.index())] = true;
        for client in clients.attached.iter().filter_map(Weak::upgrade) {
            lock(client.behind(stream)).end(End::Reached);
        }
    }

    /// Nothing more comes, of either stream.
    pub(crate) fn end_all(&self) {
        self.end(Stream::Stdout);
        self.end(Stream::Stderr);
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        lock(&self.0)
    }
}

// === impl Client ===

impl Client {
    fn behind(&self, stream: Stream) -> &Mutex<Behind> {
        &self.streams[usize::from(stream.index())]
    }

    /// Says whether the client is to be shown more.
    fn add(&self, stream: Stream, bytes: &[u8]) -> bool {
        if lock(self.behind(stream)).add(bytes) {
            return true;
        }
        // Half of a program's output is none.
        self.streams.iter().for_each(|stream| lock(stream).end(End::CutOff));
        self.cut_off.send_replace(true);
        false
    }
}

// === impl Behind ===

impl Behind {
    /// `false` when there is no room.
    fn add(&mut self, bytes: &[u8]) -> bool {
        if self.end.is_some() {
            return true;
        }
        if self.bytes.len() + bytes.len() > MOST_BEHIND {
            return false;
        }
        self.bytes.extend(bytes);
        self.wake();
        true
    }

    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncRead for LiveOutput {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut behind = lock(self.client.behind(self.stream));
        let (first, _) = behind.bytes.as_slices();
        let count = first.len().min(buf.remaining());
        if count > 0 {
            buf.put_slice(&first[..count]);
            behind.bytes.drain(..count);
            if behind.bytes.is_empty() && behind.bytes.capacity() > KEPT {
                behind.bytes = VecDeque::new();
            }
            return Poll::Ready(Ok(()));
        }
        match behind.end {
            Some(End::Reached | End::Unread) => Poll::Ready(Ok(())),
            Some(End::CutOff) => Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into())),
            None => {
                behind.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for LiveOutput {
    fn drop(&mut self) {
        let mut behind = lock(self.client.behind(self.stream));
        behind.end(End::Unread);
        behind.bytes = VecDeque::new();
    }
}

/// No code panics while it holds a lock, and each leaves what it guards whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn rest(mut output: LiveOutput) -> (Vec<u8>, io::Result<usize>) {
        let mut bytes = Vec::new();
        let result = output.read_to_end(&mut bytes).await;
        (bytes, result)
    }

    #[tokio::test]
    async fn every_client_sees_what_comes_after_it_attached() {
        let taps = Taps::default();
        taps.show(Stream::Stdout, b"before");
        let first = taps.attach().stdout;
        taps.show(Stream::Stdout, b"one ");
        let Tap { stdout: second, stderr: errors, .. } = taps.attach();
        taps.show(Stream::Stdout, b"two");
        taps.show(Stream::Stderr, b"oops");
        let waiting = tokio::spawn(rest(first));
        tokio::task::yield_now().await;
        taps.end(Stream::Stdout);
        taps.end(Stream::Stderr);
        assert_eq!(waiting.await.unwrap().0, b"one two");
        assert_eq!((rest(second).await.0, rest(errors).await.0), (b"two".to_vec(), b"oops".to_vec()));
        let late = taps.attach().stdout;
        assert_eq!(rest(late).await.1.unwrap(), 0, "nothing comes any more");
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_cut_off_and_no_other() {
        let taps = Taps::default();
        let Tap { stdout: slow, stderr: slow_errors, cut_off } = taps.attach();
        let mut quick = taps.attach().stdout;
        let piece = vec![b'x'; MOST_BEHIND / 4];
        let mut read = vec![0; piece.len()];
        for _ in 0..5 {
            taps.show(Stream::Stdout, &piece);
            quick.read_exact(&mut read).await.unwrap();
        }
        assert!(*cut_off.borrow());
        let (seen, result) = rest(slow).await;
        assert_eq!(seen.len(), MOST_BEHIND, "what was there before is still read");
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(rest(slow_errors).await.1.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(taps.clients().attached.len(), 1);
        drop(quick);
        let Tap { stderr, cut_off, .. } = taps.attach();
        for _ in 0..5 {
            taps.show(Stream::Stdout, &piece);
        }
        assert!(!*cut_off.borrow(), "what is not wanted need not be read");
        drop(stderr);
        taps.show(Stream::Stdout, b"x");
        assert_eq!(taps.clients().attached.len(), 0, "who has gone is forgotten");
    }
}
