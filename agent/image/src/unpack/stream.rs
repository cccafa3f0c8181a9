//! One pass over a layer: read, verify, decompress, verify, unpack.
//!
//! A thread of its own reads, hashes and decompresses, while the caller's writes files: the two take
//! about as long. A few buffers go round between them, so memory is bounded whatever the layer is.

use std::io::{self, BufRead, Chain, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::entry::{Fault, Kind};
use super::format::{Format, Peeked};
use super::layer::LayerWriter;
use super::split::{SplitWriter, Tee};
use super::tar::TarReader;
use super::windows::WINDOWS;
use coracle_model::{Digest, Hasher};

const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 4;

/// How much more of a layer that nobody can use is read, and for how long, to tell one that was sent wrong from one that
/// was published so.
const LOOKED_AT: u64 = 4 << 20;
const LOOKED_FOR: Duration = Duration::from_secs(10);

/// How many times as large as its bytes an archive may be: what gzip can do at most. zstd can do a million times, and
/// what does is made to fill disks.
const MOST_EXPANSION: u64 = 1032;
/// What any archive may have, however few its bytes are.
const EXPANSION_ALLOWED: u64 = 1 << 30;

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

/// Why a layer was not unpacked.
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// The digest of its bytes, where there were as many as promised.
    pub(crate) blob: Option<Digest>,
}

/// Unpacks the layer that `source` holds: tar, plain or compressed with gzip or zstd.
///
/// `source` must have `blob_size` bytes, where that is known; at most `sink.max_archive` decompressed bytes are
/// taken, and no more than an honest layer of `blob_size` can have. Of what cannot be used the rest is looked at, if it is short: it may be something else than was promised.
pub(crate) fn unpack_stream(
    source: impl Read + Send,
    blob_size: Option<u64>,
    sink: Sink<'_>,
) -> Result<Streamed, Failure> {
    let Sink { mut writer, split, max_archive } = sink;
    let expanded = blob_size.map(|size| size.saturating_mul(MOST_EXPANSION).max(EXPANSION_ALLOWED));
    let max_archive = expanded.map_or(max_archive, |most| max_archive.min(most));
    let blob = Counted { source, hasher: Hasher::default(), count: 0, promised: blob_size, failed: false };
    let peeked = Peeked::new(blob).map_err(Fault::Read)?;
    let memory = peeked.format.memory();
    let _window = memory.map(|bytes| WINDOWS.take(bytes, || writer.wait_for_lowers())).transpose()?;
    let (full_sender, full) = sync_channel(BUFFERS);
    let (empty, empty_receiver) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        // The channel has room for all of them.
        let _ = empty.send(Vec::new());
    }
    // Whether the unpacker could not use what it was given.
    let unusable = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || feed(peeked, max_archive, &full_sender, &empty_receiver, unusable));
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
        unusable.store(unpacked.as_ref().is_err_and(Fault::is_of_the_layer), Ordering::SeqCst);
        let (chunks, mut split) = tee.into_parts();
        // Ends the reader, should it still wait for one of the two.
        drop(chunks);
        // It is why reading failed, where it failed.
        let unpacked = split.check().and(unpacked).and_then(|()| split.finish());
        let panicked = |_| Err(Looked::Failed(io::Error::other("the reading thread panicked")));
        match (unpacked, reader.join().unwrap_or_else(panicked)) {
            (Ok(()), Ok(streamed)) => Ok(streamed),
            (Ok(()), Err(Looked::Failed(error) | Looked::Other(error) | Looked::Promised(_, error))) => {
                Err(Fault::Read(error).into())
            }
            (Err(fault), Ok(streamed)) => Err(Failure { fault, blob: Some(streamed.blob) }),
            (Err(fault), Err(Looked::Promised(blob, _))) => Err(Failure { fault, blob: Some(blob) }),
            // What was sent wrong need not make sense, and what sense it makes says nothing.
            (Err(fault), Err(Looked::Other(error))) if fault.is_of_the_layer() => {
                Err(Fault::Read(error).into())
            }
            (Err(fault), Err(_)) => Err(fault.into()),
        }
    })
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, blob: None }
    }
}

/// What is known of a layer that was not read to its end, and why it was not.
enum Looked {
    /// It has as many bytes as were promised, with this digest.
    Promised(Digest, io::Error),
    /// It has more or fewer bytes than were promised, which is why.
    Other(io::Error),
    /// Nothing.
    Failed(io::Error),
}

fn feed<R: Read + Send>(
    peeked: Peeked<Counted<R>>,
    max_archive: u64,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
    unusable: &AtomicBool,
) -> Result<Streamed, Looked> {
    let Peeked { format, mut input } = peeked;
    match pump(format, &mut input, max_archive, full, empty) {
        Ok((diff_id, archive_size)) => {
            let (_, blob) = input.into_inner();
            Ok(Streamed { blob: blob.hasher.finish(), blob_size: blob.count, diff_id, archive_size })
        }
        Err(error) => {
            let copy = io::Error::new(error.kind(), error.to_string());
            // The receiver may be gone; then it has its own error.
            let is_ours = full.send(Err(error)).is_ok();
            if is_ours || unusable.load(Ordering::SeqCst) {
                Err(look(input, copy))
            } else {
                Err(Looked::Failed(copy))
            }
        }
    }
}

/// Decompresses all of `input`. The digest of the archive, and its length.
fn pump<R: Read + Send>(
    format: Format,
    input: &mut Chain<Cursor<Vec<u8>>, Counted<R>>,
    max_archive: u64,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<(Digest, u64)> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (mut hasher, mut size) = (Hasher::default(), 0);
    let mut decompressed = format.decompress(&mut *input)?;
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
        size += length as u64;
        if size > max_archive {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "it is larger than {max_archive} bytes when decompressed, which is the most that may be"
                ),
            ));
        }
        buffer.truncate(length);
        hasher.update(&buffer);
        full.send(Ok(buffer)).map_err(|_| gone())?;
    }
    // A decompressor stops at the end of its format; the digest covers every byte.
    drop(decompressed);
    io::copy(input, &mut io::sink())?;
    input.get_ref().1.ends()?;
    Ok((hasher.finish(), size))
}

/// Reads the rest of what could not be used, if it is short.
fn look<R: Read>(mut input: Chain<Cursor<Vec<u8>>, Counted<R>>, error: io::Error) -> Looked {
    let (until, mut left) = (Instant::now() + LOOKED_FOR, LOOKED_AT);
    let mut buffer = vec![0; 64 << 10];
    while left > 0 && Instant::now() < until {
        match input.read(&mut buffer) {
            Ok(0) => {
                let (_, blob) = input.into_inner();
                return match blob.ends() {
                    Err(other) => Looked::Other(other),
                    Ok(()) if blob.promised.is_some() => Looked::Promised(blob.hasher.finish(), error),
                    Ok(()) => Looked::Failed(error),
                };
            }
            Ok(count) => left = left.saturating_sub(count as u64),
            Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if input.get_ref().1.failed => break,
            Err(other) => return Looked::Other(other),
        }
    }
    Looked::Failed(error)
}

/// A blob, as it is read.
struct Counted<R> {
    source: R,
    hasher: Hasher,
    count: u64,
    /// How many bytes it must have, where that is known.
    promised: Option<u64>,
    /// Whether it could not be read on.
    failed: bool,
}

impl<R> Counted<R> {
    /// After its last byte: fails if there were too few.
    fn ends(&self) -> io::Result<()> {
        match self.promised {
            Some(promised) if self.count < promised => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends after {} bytes, {promised} were promised", self.count),
            )),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self
            .source
            .read(buffer)
            .inspect_err(|error| self.failed |= error.kind() != io::ErrorKind::Interrupted)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        match self.promised {
            Some(promised) if self.count > promised => {
                let problem = format!("it goes on after the {promised} bytes that were promised");
                Err(io::Error::new(io::ErrorKind::InvalidData, problem))
            }
            _ => Ok(count),
        }
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
