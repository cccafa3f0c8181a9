//! One pass over a layer: read, verify, decompress, verify, unpack.
//!
//! A thread of its own reads, hashes and decompresses, while the caller's writes files: the two take
//! about as long. A few buffers go round between them, so memory is bounded whatever the layer is.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::entry::{Fault, Kind};
use super::format::{Peeked, large_window};
use super::layer::LayerWriter;
use super::split::{SplitWriter, Tee};
use super::tar::TarReader;
use coracle_model::{Digest, Hasher};

const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 4;

/// What one pass over a layer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streamed {
    /// Of the bytes as they were read.
    pub(crate) blob: Digest,
    /// How many they were.
    pub(crate) blob_size: u64,
    /// Of the decompressed archive.
    pub(crate) diff_id: Digest,
    /// Its length.
    pub(crate) archive_size: u64,
}

/// Where a layer goes.
pub(crate) struct Sink<'a> {
    /// Its files.
    pub(crate) writer: LayerWriter<'a>,
    /// What else its archive holds.
    pub(crate) split: SplitWriter<'a>,
    /// The most bytes its archive may have.
    pub(crate) max_archive: u64,
}

/// Unpacks the layer that `source` holds: tar, plain or compressed with gzip or zstd.
///
/// `source` must have `blob_size` bytes, where that is known; at most `sink.max_archive` decompressed bytes are
/// taken.
pub(crate) fn unpack_stream(
    source: impl Read + Send,
    blob_size: Option<u64>,
    sink: Sink<'_>,
) -> Result<Streamed, Fault> {
    let Sink { mut writer, split, max_archive } = sink;
    let most = blob_size.unwrap_or(u64::MAX);
    let blob = Counted { source, hasher: Hasher::default(), count: 0, most };
    let peeked = Peeked::new(blob).map_err(Fault::Read)?;
    // Whoever has the one large window waits for nobody, so that it comes free.
    let _window = if peeked.format.needs_large_window() {
        writer.wait_for_lowers()?;
        Some(large_window())
    } else {
        None
    };
    let (full_sender, full) = sync_channel(BUFFERS);
    let (empty, empty_receiver) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        // The channel has room for all of them.
        let _ = empty.send(Vec::new());
    }
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || feed(peeked, blob_size, max_archive, &full_sender, &empty_receiver));
        let mut tee = Tee::new(Chunks { full, empty, current: Vec::new(), at: 0 }, split);
        let unpacked = (|| {
            let mut archive = TarReader::new(&mut tee);
            while let Some(entry) = archive.next_entry()? {
                archive.input().content = true;
                let written = writer.apply(&entry, &mut archive)?;
                let input = archive.input();
                input.content = false;
                if let (Some(written), Kind::File(data)) = (written, &entry.kind) {
                    input.split.file(&written.path, written.inode, &data.segments);
                }
            }
            // What follows the archive's end is no entry, but part of the digests.
            io::copy(&mut tee, &mut io::sink()).map_err(Fault::Read)?;
            writer.finish()
        })();
        let (chunks, mut split) = tee.into_parts();
        // Ends the reader, should it still wait for one of the two.
        drop(chunks);
        // It is why reading failed, where it failed.
        let unpacked = split.check().and(unpacked).and_then(|()| split.finish());
        let streamed = reader.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")));
        unpacked?;
        streamed.map_err(Fault::Read)
    })
}

fn feed(
    peeked: Peeked<Counted<impl Read + Send>>,
    blob_size: Option<u64>,
    max_archive: u64,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Streamed> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let Peeked { format, mut input } = peeked;
    let (mut diff, mut archive_size) = (Hasher::default(), 0);
    let mut pump = || -> io::Result<()> {
        let mut decompressed = format.decompress(&mut input)?;
        loop {
            let mut buffer = empty.recv().map_err(|_| gone())?;
            buffer.resize(BUFFER, 0);
            let mut length = 0;
            while length < BUFFER {
                match decompressed.read(&mut buffer[length..]) {
                    Ok(0) => break,
                    Ok(count) => length += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if length == 0 {
                break;
            }
            archive_size += length as u64;
            if archive_size > max_archive {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("it is larger than {max_archive} bytes when decompressed"),
                ));
            }
            buffer.truncate(length);
            diff.update(&buffer);
            full.send(Ok(buffer)).map_err(|_| gone())?;
        }
        // A decompressor stops at the end of its format; the digest covers every byte.
        drop(decompressed);
        io::copy(&mut input, &mut io::sink())?;
        let blob = input.get_ref().1;
        match blob_size {
            Some(size) if blob.count < size => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends after {} bytes, {size} were promised", blob.count),
            )),
            _ => Ok(()),
        }
    };
    if let Err(error) = pump() {
        let copy = io::Error::new(error.kind(), error.to_string());
        // The receiver may be gone; then it has its own error.
        let _ = full.send(Err(error));
        return Err(copy);
    }
    let (_, blob) = input.into_inner();
    Ok(Streamed { blob: blob.hasher.finish(), blob_size: blob.count, diff_id: diff.finish(), archive_size })
}

struct Counted<R> {
    source: R,
    hasher: Hasher,
    count: u64,
    most: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        if self.count > self.most {
            let problem = format!("it goes on after the {} bytes that were promised", self.most);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(count)
    }
}

/// The decompressed archive on the unpacking side.
struct Chunks {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            let next = match self.full.recv() {
                Ok(next) => next?,
                // The reader is done.
                Err(_) => Vec::new(),
            };
            let used = std::mem::replace(&mut self.current, next);
            self.at = 0;
            if used.capacity() > 0 {
                // The reader may be done with buffers.
                let _ = self.empty.try_send(used);
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        super::read_buffered(self, out)
    }
}
