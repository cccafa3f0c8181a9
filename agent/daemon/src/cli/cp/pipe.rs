//! Between the archive, whose reading and writing block, and a connection that must not be blocked.

use std::io::{self, BufRead, Read, Write};

use coracle_server::client::Bytes;
use tokio::sync::mpsc;

/// Pieces on their way.
const PIECES: usize = 8;
/// Bytes of a piece that is sent.
const PIECE: usize = 32 << 10;

/// For a thread that reads what is sent into the other end.
pub(super) struct PipeReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

/// For a thread that writes what is received from the other end. What it has not flushed is lost.
pub(super) struct PipeWriter {
    pieces: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

pub(super) fn reader() -> (mpsc::Sender<Bytes>, PipeReader) {
    let (sender, pieces) = mpsc::channel(PIECES);
    (sender, PipeReader { pieces, piece: Bytes::new() })
}

pub(super) fn writer() -> (PipeWriter, mpsc::Receiver<Vec<u8>>) {
    let (pieces, receiver) = mpsc::channel(PIECES);
    (PipeWriter { pieces, piece: Vec::with_capacity(PIECE) }, receiver)
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        drop(self.piece.split_to(amount));
    }
}

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
