//! Serves clients whatever `:authority` they send.
//!
//! On a unix socket there is no authority, and clients differ in what they send for one: nothing, `localhost`, the
//! socket's path, or that percent-encoded. Most are no authority by RFC 3986, and h2 answers such a request with
//! `PROTOCOL_ERROR` and has no setting for it. Nothing here needs the field, so it is taken out of what the client sends
//! before h2 sees it. Header blocks are compressed with a table that all blocks of a connection share, so each is read
//! and written anew; every other frame passes as it is.
//!
//! A client that connects and calls nothing is not waited for: there is room for so many, and others want to be served.

mod hpack;
mod huffman;
mod static_table;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{self, Sleep};
use tonic::transport::server::{Connected, UdsConnectInfo};

use hpack::Transcoder;

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// The head of a frame.
const HEAD: usize = 9;
/// The largest frame a server takes that says nothing of it.
const LARGEST_FRAME: usize = 16 * 1024;
/// How long a header block may be, in all its frames.
const LONGEST_BLOCK: usize = 32 * 1024;
/// In how many frames it may come.
const MOST_CONTINUATIONS: u32 = 16;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a client sent that is no HTTP/2.
#[derive(Debug, thiserror::Error)]
#[error("the client sent {0}")]
struct Malformed(&'static str);

/// A client's connection, read without `:authority`.
pub(crate) struct Lenient {
    stream: UnixStream,
    filter: Filter,
    /// What is to be read, and how much of that was.
    filtered: Vec<u8>,
    read: usize,
    /// Ends when the client has to have called something; none, when it has.
    silent: Option<Pin<Box<Sleep>>>,
}

/// What becomes of what a client sends.
struct Filter {
    transcoder: Transcoder,
    state: State,
    /// The header block whose frames have not all come.
    block: Option<HeaderBlock>,
    /// A whole header block has come.
    called: bool,
}

enum State {
    /// So much passes as it is.
    Passing(usize),
    /// The head of a frame, as far as it came.
    Head(Vec<u8>),
    /// A frame of a header block, and what is missing of it.
    Collecting { flags: u8, kind: u8, payload: Vec<u8>, missing: usize },
}

struct HeaderBlock {
    stream: [u8; 4],
    end_stream: u8,
    fragments: Vec<u8>,
    continuations: u32,
}

// === impl Lenient ===

impl Lenient {
    /// The client has to call something within this time.
    pub(crate) fn new(stream: UnixStream, within: Duration) -> Self {
        let silent = Some(Box::pin(time::sleep(within)));
        Self { stream, filter: Filter::new(), filtered: Vec::new(), read: 0, silent }
    }
}

impl AsyncRead for Lenient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let left = this.filtered.get(this.read..).unwrap_or_default();
            if !left.is_empty() {
                let taken = left.len().min(buffer.remaining());
                buffer.put_slice(&left[..taken]);
                this.read += taken;
                return Poll::Ready(Ok(()));
            }
            this.filtered.clear();
            this.read = 0;
            if this.filter.called {
                this.silent = None;
            }
            if let Some(silent) = &mut this.silent
                && silent.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client called nothing",
                )));
            }
            let mut raw = [0; 8 * 1024];
            let mut raw = ReadBuf::new(&mut raw);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.filter
                .push(raw.filled(), &mut this.filtered)
                .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        }
    }
}

impl AsyncWrite for Lenient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Lenient {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

// === impl Filter ===

impl Filter {
    fn new() -> Self {
        Self { transcoder: Transcoder::new(), state: State::Passing(PREFACE), block: None, called: false }
    }

    /// Takes what came, and writes what h2 is to read.
    fn push(&mut self, mut bytes: &[u8], to: &mut Vec<u8>) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Passing(left) => {
                    let (pass, rest) = bytes.split_at(bytes.len().min(*left));
                    to.extend_from_slice(pass);
                    *left -= pass.len();
                    bytes = rest;
                    if *left == 0 {
                        self.state = State::Head(Vec::with_capacity(HEAD));
                    }
                }
                State::Head(head) => {
                    let (more, rest) = bytes.split_at(bytes.len().min(HEAD - head.len()));
                    head.extend_from_slice(more);
                    bytes = rest;
                    if let Ok(head) = <[u8; HEAD]>::try_from(head.as_slice()) {
                        self.state = self.begin(head, to)?;
                    }
                }
                State::Collecting { payload, missing, .. } => {
                    let (more, rest) = bytes.split_at(bytes.len().min(*missing));
                    payload.extend_from_slice(more);
                    *missing -= more.len();
                    bytes = rest;
                }
            }
            if let State::Collecting { flags, kind, payload, missing: 0 } = &mut self.state {
                let (flags, kind, payload) = (*flags, *kind, std::mem::take(payload));
                self.collected(flags, kind, &payload, to)?;
                self.state = State::Head(Vec::with_capacity(HEAD));
            }
        }
        Ok(())
    }

    /// What follows the head of a frame.
    fn begin(&mut self, head: [u8; HEAD], to: &mut Vec<u8>) -> Result<State, Malformed> {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        match (&mut self.block, kind) {
            (None, HEADERS) => {
                self.block = Some(HeaderBlock {
                    stream,
                    end_stream: flags & END_STREAM,
                    fragments: Vec::new(),
                    continuations: 0,
                });
            }
            (Some(block), CONTINUATION) if block.stream == stream => {
                block.continuations += 1;
                if block.continuations > MOST_CONTINUATIONS {
                    return Err(Malformed("a header block in more frames than allowed"));
                }
            }
            (Some(_), _) => return Err(Malformed("another frame within a header block")),
            (None, _) => {
                to.extend_from_slice(&head);
                return Ok(match length {
                    0 => State::Head(Vec::with_capacity(HEAD)),
                    _ => State::Passing(length),
                });
            }
        }
        if length > LARGEST_FRAME {
            return Err(Malformed("a frame larger than allowed"));
        }
        Ok(State::Collecting { flags, kind, payload: Vec::with_capacity(length), missing: length })
    }

    /// What becomes of a frame of a header block.
    fn collected(&mut self, flags: u8, kind: u8, payload: &[u8], to: &mut Vec<u8>) -> Result<(), Malformed> {
        let broken = Malformed("a HEADERS frame shorter than what it holds");
        let mut fragment = payload;
        if kind == HEADERS {
            if flags & PADDED != 0 {
                let (padding, rest) = fragment.split_first().ok_or(broken)?;
                let end = rest.len().checked_sub(usize::from(*padding));
                fragment = &rest[..end.ok_or(Malformed("a HEADERS frame with more padding than octets"))?];
            }
            // Priorities of streams are no more (RFC 9113, section 5.3), and h2 heeds none.
            if flags & PRIORITY != 0 {
                fragment = fragment.get(5..).ok_or(Malformed("a HEADERS frame shorter than its priority"))?;
            }
        }
        let Some(mut block) = self.block.take() else { return Ok(()) };
        block.fragments.extend_from_slice(fragment);
        if block.fragments.len() > LONGEST_BLOCK {
            return Err(Malformed("headers longer than allowed"));
        }
        if flags & END_HEADERS == 0 {
            self.block = Some(block);
            return Ok(());
        }
        let written = self.transcoder.without_authority(&block.fragments)?;
        write_frames(&block, &written, to);
        self.called = true;
        Ok(())
    }
}

/// A header block as HEADERS, and CONTINUATION where it is longer than a frame.
fn write_frames(block: &HeaderBlock, written: &[u8], to: &mut Vec<u8>) {
    let mut rest = written;
    let mut kind = HEADERS;
    loop {
        let (fragment, after) = rest.split_at(rest.len().min(LARGEST_FRAME));
        rest = after;
        let mut flags = if kind == HEADERS { block.end_stream } else { 0 };
        if rest.is_empty() {
            flags |= END_HEADERS;
        }
        to.extend_from_slice(&(fragment.len() as u32).to_be_bytes()[1..]);
        to.extend_from_slice(&[kind, flags]);
        to.extend_from_slice(&block.stream);
        to.extend_from_slice(fragment);
        if rest.is_empty() {
            return;
        }
        kind = CONTINUATION;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// All that comes of it, pushed in pieces of `piece` octets.
    fn filtered(sent: &[u8], piece: usize) -> Result<Vec<u8>, Malformed> {
        let (mut filter, mut to) = (Filter::new(), Vec::new());
        for bytes in sent.chunks(piece) {
            filter.push(bytes, &mut to)?;
        }
        Ok(to)
    }

    #[test]
    fn frames_pass_and_header_blocks_lose_their_authority() {
        let preface = [b'p'; PREFACE];
        let settings = frame(4, 0, 0, &[]);
        let data = frame(0, 1, 1, &[7; 300]);
        // ":method: GET" and ":authority: a", padded, with a priority, in two frames.
        let first = frame(HEADERS, END_STREAM | PADDED | PRIORITY, 1, &[2, 0, 0, 0, 0, 9, 0x82, 0x41, 0, 0]);
        let second = frame(CONTINUATION, END_HEADERS, 1, &[1, b'a']);
        let sent = [&preface[..], &settings, &first, &second, &data].concat();
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\0\x07:method\x03GET");
        let expected = [&preface[..], &settings, &headers, &data].concat();
        for piece in 1..=sent.len() {
            assert_eq!(filtered(&sent, piece).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_block_that_grows_beyond_a_frame_goes_on_in_another() {
        let value = [b'v'; 4000];
        let entry = [&[0x40, 1, b'n', 0x7f, 0xa1, 0x1e][..], &value].concat();
        let block = [&entry[..], &[0xbe; 9]].concat();
        let sent = [&[b'p'; PREFACE][..], &frame(HEADERS, END_HEADERS, 1, &block)].concat();
        let to = filtered(&sent, sent.len()).unwrap();
        let head = &to[PREFACE..PREFACE + HEAD];
        assert_eq!(head, [0, 0x40, 0, HEADERS, 0, 0, 0, 0, 1]);
        let last = PREFACE + 2 * (HEAD + LARGEST_FRAME);
        assert_eq!(to[last + 3..last + 5], [CONTINUATION, END_HEADERS]);
        assert_eq!(to.len(), PREFACE + 3 * HEAD + 10 * (1 + 2 + 3 + 4000));
    }

    #[test]
    fn what_is_no_header_block_is_refused() {
        let open = frame(HEADERS, 0, 1, &[0x82]);
        let bad: [Vec<u8>; 7] = [
            frame(HEADERS, PADDED | END_HEADERS, 1, &[]),
            frame(HEADERS, PADDED | END_HEADERS, 1, &[9, 0x82]),
            frame(HEADERS, PRIORITY | END_HEADERS, 1, &[0, 0]),
            frame(HEADERS, END_HEADERS, 1, &vec![0x82; LARGEST_FRAME + 1]),
            [&open[..], &frame(0, 0, 1, &[1])].concat(),
            [&open[..], &frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            [open, frame(CONTINUATION, 0, 1, &[]).repeat(MOST_CONTINUATIONS as usize + 1)].concat(),
        ];
        for sent in bad {
            let sent = [&[b'p'; PREFACE][..], &sent].concat();
            assert!(filtered(&sent, sent.len()).is_err(), "{:x?}", &sent[PREFACE..sent.len().min(60)]);
        }
    }
}
