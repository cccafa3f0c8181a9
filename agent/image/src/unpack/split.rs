//! What a layer's archive holds that its files do not: headers, padding, order.
//!
//! With it and the layer's directory the archive comes again byte for byte, so an export has the image's own
//! configuration, and a file that was changed on disk shows in the DiffID. The idea is that of tar-split.
//!
//! The file `split` is one zstd stream of records, numbers in little-endian order:
//!
//! ```text
//! R <u32 length> <bytes>                                                  bytes of the archive
//! F <u32 length> <path> <u64 inode> <u32 n> n * (<u64 offset> <u64 length>)  segments of a file's content
//! E                                                                       the end
//! ```
//!
//! A file that a later entry of the same layer replaces is not in the layer's directory any more; its content is kept as
//! `lost/<inode>`, under the inode's number at the time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::budget::Budget;
use super::entry::{Fault, printable};

pub(crate) const SPLIT: &str = "split";
pub(crate) const LOST: &str = "lost";
/// Bytes of the archive in one record.
const MOST_LITERAL: usize = 64 << 10;
/// Headers are so much alike that more gains nothing, and it is memory of each layer that is being made.
const WINDOW_LOG: u32 = 17;
/// The most segments and the longest path of a file: what an archive can have of each (`MAX_SPECIAL` of digits and
/// separators, and what the kernel can name).
const MOST_SEGMENTS: u32 = 1 << 20;
const MOST_PATH: u32 = 8192;

static ZEROS: [u8; 4096] = [0; 4096];

/// Writes `split` while a layer is unpacked. A failure shows in [`SplitWriter::check`] and [`SplitWriter::finish`].
pub(crate) struct SplitWriter<'a> {
    out: zstd::stream::write::Encoder<'static, Counted<'a>>,
    literal: Vec<u8>,
    failure: Option<Fault>,
}

/// Where the compressed bytes go: they take room like all others.
struct Counted<'a> {
    file: BufWriter<File>,
    budget: Budget<'a>,
    full: Option<Fault>,
}

impl<'a> SplitWriter<'a> {
    /// `layer` is the layer's own directory.
    pub(crate) fn create(layer: BorrowedFd<'a>, budget: Budget<'a>) -> Result<Self, Fault> {
        let failed = Fault::write::<io::Error>("create the description of", b".");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let out = (|| {
            let file = File::from(openat(layer, SPLIT, flags, Mode::from_raw_mode(0o600))?);
            let file = Counted { file: BufWriter::with_capacity(64 << 10, file), budget, full: None };
            let mut out = zstd::stream::write::Encoder::new(file, 1)?;
            out.window_log(WINDOW_LOG)?;
            Ok(out)
        })();
        Ok(Self { out: out.map_err(failed)?, literal: Vec::with_capacity(MOST_LITERAL), failure: None })
    }

    /// Bytes that no file has.
    pub(crate) fn literal(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(MOST_LITERAL - self.literal.len()));
            self.literal.extend_from_slice(now);
            bytes = later;
            if self.literal.len() == MOST_LITERAL {
                self.flush_literal();
            }
        }
    }

    /// As many zeros that no file has.
    pub(crate) fn zeros(&mut self, mut count: u64) {
        while count > 0 {
            let step = count.min(ZEROS.len() as u64);
            self.literal(&ZEROS[..step as usize]);
            count -= step;
        }
    }

    /// Content of the file that was written at `path`.
    pub(crate) fn file(&mut self, path: &[u8], inode: u64, segments: &[(u64, u64)]) {
        self.flush_literal();
        let mut record = vec![b'F'];
        record.extend((path.len() as u32).to_le_bytes());
        record.extend(path);
        record.extend(inode.to_le_bytes());
        record.extend((segments.len() as u32).to_le_bytes());
        for (offset, length) in segments {
            record.extend(offset.to_le_bytes());
            record.extend(length.to_le_bytes());
        }
        self.write(&record);
    }

    /// Fails when something could not be written.
    pub(crate) fn check(&mut self) -> Result<(), Fault> {
        self.failure.take().map_or(Ok(()), Err)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        self.flush_literal();
        self.write(b"E");
        self.check()?;
        let failed = Fault::write::<io::Error>("write the description of", b".");
        let mut counted = self.out.finish().map_err(failed)?;
        match counted.full.take() {
            Some(full) => Err(full),
            None => counted.file.flush().map_err(Fault::write("write the description of", b".")),
        }
    }

    fn flush_literal(&mut self) {
        if self.literal.is_empty() {
            return;
        }
        let mut head = [b'R', 0, 0, 0, 0];
        head[1..].copy_from_slice(&(self.literal.len() as u32).to_le_bytes());
        self.write(&head);
        let literal = std::mem::take(&mut self.literal);
        self.write(&literal);
        self.literal = literal;
        self.literal.clear();
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failure.is_none()
            && let Err(error) = self.out.write_all(bytes)
        {
            let full = self.out.get_mut().full.take();
            self.failure =
                Some(full.unwrap_or_else(|| Fault::write("write the description of", b".")(error)));
        }
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(full) = self.budget.bytes(bytes.len() as u64) {
            self.full = Some(full);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The decompressed archive on its way to the unpacker; what is not a file's content goes into the description.
pub(super) struct Tee<'a, R> {
    input: R,
    pub(super) split: SplitWriter<'a>,
    /// Whether what is read now is the content of a file that is being written.
    pub(super) content: bool,
}

impl<'a, R: BufRead> Tee<'a, R> {
    pub(super) fn new(input: R, split: SplitWriter<'a>) -> Self {
        Self { input, split, content: false }
    }

    pub(super) fn into_parts(self) -> (R, SplitWriter<'a>) {
        (self.input, self.split)
    }
}

impl<R: BufRead> BufRead for Tee<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.split.has_failed() {
            return Err(io::Error::other("the layer's description cannot be written"));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if !self.content && amount > 0 {
            match self.input.fill_buf() {
                Ok(buffer) => self.split.literal(&buffer[..amount]),
                Err(error) => self.split.failure = Some(Fault::Read(error)),
            }
        }
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for Tee<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        super::read_buffered(self, out)
    }
}

/// Why an archive cannot be had again.
#[derive(Debug)]
pub(crate) enum AssembleError {
    /// The layer was changed, or cannot be read.
    Damaged(String),
    /// What takes the archive failed.
    Output(io::Error),
}

/// Gives a layer's archive as it came. Nothing is verified: the caller has the DiffID.
pub(crate) fn assemble(layer: BorrowedFd<'_>, out: &mut impl Write) -> Result<(), AssembleError> {
    let damaged =
        |error: io::Error| AssembleError::Damaged(format!("its description cannot be read: {error}"));
    let open = |name: &str, flags| openat(layer, name, flags | OFlags::CLOEXEC, Mode::empty());
    let split = match open(SPLIT, OFlags::RDONLY | OFlags::NOFOLLOW) {
        Ok(split) => File::from(split),
        Err(Errno::NOENT) => {
            let problem = "it was unpacked by a version that kept no description of its archive; remove the image and \
                           import or pull it again";
            return Err(AssembleError::Damaged(problem.to_owned()));
        }
        Err(error) => return Err(damaged(error.into())),
    };
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    let diff = open("diff", directory).map_err(|error| damaged(error.into()))?;
    let lost = open(LOST, directory).ok();
    let mut input = zstd::stream::read::Decoder::with_buffer(BufReader::new(split)).map_err(damaged)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match number::<1>(&mut input).map_err(damaged)?[0] {
            b'R' => {
                let length = u32::from_le_bytes(number(&mut input).map_err(damaged)?) as usize;
                if length > MOST_LITERAL {
                    return Err(damaged(io::ErrorKind::InvalidData.into()));
                }
                input.read_exact(&mut buffer[..length]).map_err(damaged)?;
                out.write_all(&buffer[..length]).map_err(AssembleError::Output)?;
            }
            b'F' => {
                let content = Content::read(&mut input).map_err(damaged)?;
                content.copy(&diff, lost.as_ref(), &mut buffer, out)?;
            }
            b'E' => return Ok(()),
            _ => return Err(damaged(io::ErrorKind::InvalidData.into())),
        }
    }
}

/// An `F` record.
struct Content {
    path: Vec<u8>,
    inode: u64,
    segments: Vec<(u64, u64)>,
}

impl Content {
    fn read(input: &mut impl Read) -> io::Result<Self> {
        let bounded = |value, most| if value > most { Err(io::ErrorKind::InvalidData) } else { Ok(value) };
        let length = bounded(u32::from_le_bytes(number(input)?), MOST_PATH)?;
        let mut path = vec![0; length as usize];
        input.read_exact(&mut path)?;
        let inode = u64::from_le_bytes(number(input)?);
        let count = bounded(u32::from_le_bytes(number(input)?), MOST_SEGMENTS)?;
        let segments = (0..count)
            .map(|_| Ok((u64::from_le_bytes(number(input)?), u64::from_le_bytes(number(input)?))))
            .collect::<io::Result<_>>()?;
        Ok(Self { path, inode, segments })
    }

    fn copy(
        &self,
        diff: &OwnedFd,
        lost: Option<&OwnedFd>,
        buffer: &mut [u8],
        out: &mut impl Write,
    ) -> Result<(), AssembleError> {
        let file =
            self.open(diff, lost).map_err(|error| self.damaged(&io::Error::from(error).to_string()))?;
        let stat = fstat(&file).map_err(|error| self.damaged(&io::Error::from(error).to_string()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.damaged("is no regular file any more"));
        }
        for &(offset, length) in &self.segments {
            let (mut at, mut left) = (offset, length);
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let count = match rustix::io::pread(&file, &mut buffer[..most], at) {
                    Ok(0) => return Err(self.damaged("is shorter than it was")),
                    Ok(count) => count,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(self.damaged(&io::Error::from(error).to_string())),
                };
                out.write_all(&buffer[..count]).map_err(AssembleError::Output)?;
                at += count as u64;
                left -= count as u64;
            }
        }
        Ok(())
    }

    fn open(&self, diff: &OwnedFd, lost: Option<&OwnedFd>) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Some(lost) = lost {
            match openat(lost, self.inode.to_string(), flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => return opened,
            }
        }
        // It was found without links.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(diff.as_fd(), self.path.as_slice(), flags, Mode::empty(), resolve)
    }

    fn damaged(&self, problem: &str) -> AssembleError {
        AssembleError::Damaged(format!("its file {:?} {problem}", printable(&self.path)))
    }
}

fn number<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
